"""The settings: their layers, their errors, the sample files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel, ValidationError

from lcq.config import ConfigManager, DistributedConfig, load
from lcq.environment import told_by
from lcq.errors import InvalidConfig

SAMPLES = Path(__file__).parents[2] / "sample-config"


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def a_file(text: str) -> Path:
    path = Path("settings.yaml")
    path.write_text(text, encoding="utf-8")
    return path


def test_the_seeds_example_is_read_as_it_is_written() -> None:
    config = load(SAMPLES / "seed.yaml")
    assert config.enabled is True
    assert (config.scheduler_host, config.scheduler_port) == ("localhost", 8081)
    assert (config.zeromq.host, config.zeromq.base_port) == ("localhost", 5555)
    assert (config.redis.enabled, config.redis.host, config.redis.port) == (True, "localhost", 6379)
    assert not config.redis.is_private
    assert config.redis.address == "redis://localhost:6379/0"


def test_the_sample_file_holds_the_defaults() -> None:
    assert load(SAMPLES / "lcq.yaml") == DistributedConfig()


def keys_of(model: type[BaseModel], prefix: str = "") -> set[str]:
    keys = set()
    for name, field in model.model_fields.items():
        keys.add(prefix + name)
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            keys |= keys_of(field.annotation, f"{prefix}{name}.")
    return keys


def written_keys(values: dict[str, Any], prefix: str = "") -> set[str]:
    keys = set()
    for name, value in values.items():
        keys.add(prefix + name)
        if isinstance(value, dict):
            keys |= written_keys(value, f"{prefix}{name}.")
    return keys


def test_the_sample_file_leaves_no_key_out() -> None:
    written = yaml.safe_load((SAMPLES / "lcq.yaml").read_text(encoding="utf-8"))
    assert written_keys(written) == keys_of(DistributedConfig)
    queue_keys = set(DistributedConfig().queues[0].model_dump())
    assert all(set(queue) == queue_keys for queue in written["queues"])


def test_without_a_file_the_defaults_hold_and_redis_is_private() -> None:
    config = load()
    assert config == DistributedConfig()
    assert config.redis.is_private


@pytest.mark.parametrize(
    ("redis", "private"),
    [
        ("{}", True),
        ("{enabled: false, host: somewhere}", True),
        ("{host: somewhere}", False),
        ("{url: 'unix:///tmp/s'}", False),
    ],
)
def test_redis_is_private_unless_an_enabled_one_is_named(redis: str, private: bool) -> None:
    assert load(a_file(f"redis: {redis}")).redis.is_private is private


def test_lcq_yaml_of_this_folder_is_found_and_lcq_config_names_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    Path("lcq.yaml").write_text("scheduler_port: 1111")
    assert load().scheduler_port == 1111
    Path("other.yaml").write_text("scheduler_port: 2222")
    monkeypatch.setenv("LCQ_CONFIG", "other.yaml")
    assert load().scheduler_port == 2222


def test_each_layer_wins_over_the_one_below_and_leaves_the_rest_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = a_file("redis: {host: from-file, port: 1}\nagent: {name: from-file}\nscheduler_port: 1")
    monkeypatch.setenv("LCQ_REDIS__HOST", "from-environment")
    monkeypatch.setenv("LCQ_SCHEDULER_PORT", "2")
    config = load(path, overrides={"scheduler_port": 3})
    assert (config.redis.host, config.redis.port) == ("from-environment", 1)
    assert config.agent.name == "from-file"
    assert config.scheduler_port == 3


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("redis: {hots: x}", r"redis\.hots: unknown key, did you mean 'host'\?"),
        ("schedular_host: x", r"schedular_host: unknown key, did you mean 'scheduler_host'\?"),
        ("queues: [{name: a, kind: cpu, cors: 1}]", r"queues\.0\.cors: unknown key"),
        ("redis: {port: lots}", r"redis\.port: .*found 'lots'"),
        ("redis: {port: 70000}", r"redis\.port: .*65535"),
        ("redis: {namespace: lcq}", r"redis\.namespace"),
        ("leases: {beat_s: 10, lease_s: 15}", r"leases: lease_s must be at least twice beat_s"),
        ("log_level: loud", r"log_level: .*debug.*found 'loud'"),
        ("queues: []", "queues: there must be at least one"),
        ("queues: [{name: a, kind: cpu}, {name: a, kind: gpu, port_offset: 1}]", "each name once"),
        ("queues: [{name: a, kind: cpu}, {name: b, kind: gpu}]", "each port_offset once"),
        ("quotas: {queues: {gpu-hihg: 5}}", "quotas.queues: no such queue: gpu-hihg; there are gpu-high"),
        ("quotas: {in_flight: 0}", r"quotas\.in_flight: must be a whole number, 1 or more, or null, found 0"),
        ("shares: {users: {ann: 0}}", r"shares\.users\.ann: must be a number, more than 0, at most 1000, found 0"),
        ("- a list", "expected keys with values, found list"),
        ("redis: {host: [", "is not valid YAML"),
        ("a: &a [*a]", "unknown key"),
    ],
)
def test_a_bad_file_is_refused_in_one_line_that_names_file_and_key(text: str, complaint: str) -> None:
    with pytest.raises(InvalidConfig, match=rf"settings\.yaml.*{complaint}") as refused:
        load(a_file(text))
    assert "\n" not in str(refused.value)


def test_a_bad_environment_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LCQ_REDIS__PORT", "many")
    with pytest.raises(InvalidConfig, match=r"redis\.port"):
        load()


@pytest.mark.parametrize(
    ("variables", "found"),
    [
        ({"lcq_redis__Port": "7"}, {"redis": {"port": "7"}}),
        ({"LCQ_REDIS__PORT": "7", "LCQ_REDIS": '{"host": "a", "port": 1}'}, {"redis": {"host": "a", "port": "7"}}),
        ({"LCQ_SCHEDULERS": "a, b:5"}, {"schedulers": "a, b:5"}),
        ({"LCQ_STORAGE__ROOTS": '["/a"]'}, {"storage": {"roots": ["/a"]}}),
        ({"LCQ_CONTEXTS__EU__REDIS__URL": "redis://x"}, {"contexts": {"eu": {"redis": {"url": "redis://x"}}}}),
        ({"LCQ_AGENT__LABELS__RACK": "7", "LCQ_REDIS__BOGUS": "1"}, {"agent": {"labels": {"rack": "7"}},
                                                                     "redis": {"bogus": "1"}}),
        ({"LCQ_AGENT__MODELS": '["lama"]'}, {"agent": {"models": ["lama"]}}),
        ({"LCQ_BOGUS": "1", "LCQ_CONFIG": "x", "LCQ": "1", "HOME": "/root"}, {}),
    ],
)  # fmt: skip
def test_the_environment_says_settings_section_by_section(variables: dict[str, str], found: dict[str, object]) -> None:
    assert told_by(variables, DistributedConfig) == found


def test_a_list_in_the_environment_that_is_no_json_is_refused_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LCQ_STORAGE__ROOTS", "/photos")
    with pytest.raises(InvalidConfig, match=r"^LCQ_STORAGE__ROOTS: expected JSON, found '/photos'"):
        load()


def test_a_missing_file_is_named_with_the_place_that_named_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LCQ_CONFIG", "nowhere.yaml")
    with pytest.raises(InvalidConfig, match=r"nowhere\.yaml.*check --config and LCQ_CONFIG"):
        load()


def test_a_file_that_is_not_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "settings.yaml"
    path.write_bytes(b"\xff\xfe\x00\x01")
    with pytest.raises(InvalidConfig, match="settings"):
        load(path)


def test_an_empty_file_means_the_defaults() -> None:
    assert load(a_file("")) == DistributedConfig()


def test_settings_cannot_be_changed_in_place() -> None:
    with pytest.raises(ValueError, match="frozen"):
        DistributedConfig().scheduler_port = 1  # type: ignore[misc]


def test_the_config_manager_reads_anew_and_keeps_what_holds_when_the_file_is_bad(tmp_path: Path) -> None:
    path = tmp_path / "lcq.yaml"
    path.write_text("retries: {base_s: 2}")
    manager = ConfigManager(path)
    path.write_text("retries: {base_s: 3}")
    assert manager.reload().retries.base_s == 3
    path.write_text("retries: {bsae_s: 4}")
    with pytest.raises(InvalidConfig, match="unknown key, did you mean 'base_s'"):
        manager.reload()
    assert manager.config.retries.base_s == 3


# ---------------------------------------------------------------- contexts

_TWO = """
scheduler_host: here
redis: {url: "redis://here:6379/0"}
log_level: debug
contexts:
  studio: {scheduler_host: studio-1, redis: {url: "redis://studio-1:6379/3", namespace: "{art}"}, production: true}
  half: {scheduler_host: half-1}
  mine: {data_dir: /srv/mine}
"""


def test_a_context_says_where_its_cluster_is_and_nothing_outside_of_it_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LCQ_REDIS__URL", "redis://elsewhere:6379/0")
    studio = load(a_file(_TWO), context="studio")
    assert (studio.control_endpoint, studio.redis.address) == ("tcp://studio-1:5571", "redis://studio-1:6379/3")
    assert (studio.production, studio.context, studio.log_level, studio.has_address) == (True, "studio", "debug", True)
    half = load(a_file(_TWO), context="half")
    assert half.redis.is_private, "not the Redis of another cluster"
    assert not half.production
    mine = load(a_file(_TWO), context="mine")
    assert (mine.data_path, mine.has_address) == (Path("/srv/mine"), False)


def test_one_goes_from_context_to_context_and_back_outside() -> None:
    outside = load(a_file(_TWO))
    back = outside.in_context("studio").in_context("half").in_context("")
    assert back == outside
    assert outside.in_context("studio").in_context("half") == outside.in_context("half")


def test_the_context_that_is_meant_where_nobody_says_is_in_the_file_or_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = a_file(_TWO + "context: studio\n")
    assert load(path).scheduler_host == "studio-1"
    assert load(path, context="").scheduler_host == "here"
    monkeypatch.setenv("LCQ_CONTEXT", "half")
    manager = ConfigManager(path)
    assert (manager.config.scheduler_host, manager.reload().scheduler_host) == ("half-1", "half-1")


def test_an_unknown_context_is_told_with_the_nearest() -> None:
    with pytest.raises(InvalidConfig, match="did you mean 'studio'"):
        load(a_file(_TWO), context="studoi")
    with pytest.raises(InvalidConfig, match=r"contexts\.studio\.redis\.ulr: unknown key, did you mean 'url'"):
        load(a_file(_TWO.replace('url: "redis://studio', 'ulr: "redis://studio')), context="studio")


def test_the_environment_tells_of_storage_and_http(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LCQ_STORAGE__OPTIONS", '{"s3": {"profile": "lcq"}}')
    monkeypatch.setenv("LCQ_STORAGE__URLS", '["s3://studio/in"]')
    monkeypatch.setenv("LCQ_STORAGE__BLOBS__KEEP_HOURS", "2.5")
    monkeypatch.setenv("LCQ_HTTP__TOKENS", json.dumps({"ann": {"role": "operator", "sha256": "a" * 64}}))
    monkeypatch.setenv("LCQ_HTTP__PER_MINUTE", "30.5")
    found = load()
    assert found.storage.options == {"s3": {"profile": "lcq"}}
    assert found.storage.urls == ("s3://studio/in",)
    assert (found.storage.blobs.keep_hours, found.http.per_minute) == (2.5, 30.5)
    assert (found.http.tokens["ann"].role, found.http.tokens["ann"].sha256) == ("operator", "a" * 64)
    monkeypatch.setenv("LCQ_HTTP__TOKENS", "ann")
    with pytest.raises(InvalidConfig, match="LCQ_HTTP__TOKENS"):
        load()


def test_one_currency_holds_for_what_is_added_up() -> None:
    def told(budget: str, report: str) -> str:
        sections = {"serverless": {"budget": {"currency": budget}}, "report": {"currency": report}}
        return DistributedConfig.model_validate(sections).overflow.budget.currency

    assert [told("", ""), told("", "EUR"), told("CHF", ""), told("EUR", "EUR")] == ["USD", "EUR", "CHF", "EUR"]
    with pytest.raises(ValidationError, match="lcq report adds both"):
        told("USD", "EUR")

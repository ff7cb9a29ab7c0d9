"""Settings in layers: which said what, all that is wrong with them at once, and lcq config."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from lcq.cli.program import app
from lcq.config import ConfigManager, DistributedConfig, load
from lcq.errors import InvalidConfig
from lcq.settings import layers
from lcq.settings.watch import FileWatch
from tests.conftest import wait_until_sync

SEED = Path(__file__).parents[2] / "sample-config" / "seed.yaml"


@pytest.fixture(autouse=True)
def _places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty folder to be in, a system and a user without settings."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(layers, "SYSTEM_FILE", tmp_path / "etc" / "config.yaml")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "home"))
    for variable in ("LCQ_DISCOVERY__ENABLED", "LCQ_HTTP__ENABLED"):  # tests have them
        monkeypatch.delenv(variable, raising=False)
    for folder in ("etc", "home/lcq"):
        (tmp_path / folder).mkdir(parents=True)


def write(path: str, text: str) -> Path:
    Path(path).write_text(text, encoding="utf-8")
    return Path(path)


def lcq(*arguments: str) -> tuple[int, str, str]:
    """Exit code, stdout, stderr."""
    done = CliRunner().invoke(app, list(arguments), env={"COLUMNS": "200", "NO_COLOR": "1"})
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done.exit_code, done.stdout, done.stderr


# ---------------------------------------------------------------- layers and who said what


def test_each_layer_goes_over_the_one_below_and_every_key_knows_who_said_it(monkeypatch: pytest.MonkeyPatch) -> None:
    every = ("retries", "base_s"), ("retries", "max_s"), ("retries", "per_minute"), ("retries", "share")
    write("etc/config.yaml", "retries:\n  base_s: 1.5\n  max_s: 10\n  per_minute: 11\n  share: 1\nlog_level: error\n")
    write("home/lcq/config.yaml", "# mine\nretries: {max_s: 20, per_minute: 21, share: 2}\n")
    write("lcq.yaml", "retries:\n  per_minute: 31\n  share: 3\n")
    write("named.yaml", "\nretries:\n  share: 4\n")
    monkeypatch.setenv("LCQ_RETRIES__LONGEST_WAIT_S", "55")
    manager = ConfigManager(Path("named.yaml"), overrides={"log_level": "debug"})
    retries = manager.config.retries
    assert (retries.base_s, retries.max_s, retries.per_minute, retries.share) == (1.5, 20, 31, 4)
    assert (retries.longest_wait_s, manager.config.log_level) == (55, "debug")
    told = [str(manager.layers.origin(loc)) for loc in every]
    assert [one.rpartition("/")[2] for one in told] == ["config.yaml:2", "config.yaml:2", "lcq.yaml:2", "named.yaml:3"]
    assert "etc" in told[0]
    assert "home" in told[1]
    assert str(manager.layers.origin(("retries", "longest_wait_s"))) == "LCQ_RETRIES__LONGEST_WAIT_S"
    assert str(manager.layers.origin(("log_level",))) == "--log-level"
    assert str(manager.layers.origin(("leases", "beat_s"))) == "default"


def test_a_list_in_a_higher_layer_replaces_the_lower_one_as_a_whole() -> None:
    write("etc/config.yaml", "agent: {models: [a, b], labels: {rack: 3}}\n")
    write("lcq.yaml", "agent: {models: [c], labels: {hall: 4}}\n")
    config = load()
    assert (config.agent.models, config.agent.labels) == (("c",), {"rack": "3", "hall": "4"})


def test_a_file_that_is_to_be_alone_is_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    write("lcq.yaml", "log_level: error\nscheduler_port: 1\n")
    monkeypatch.setenv("LCQ_CONFIG", str(write("named.yaml", "scheduler_port: 2\n")))
    assert (load().log_level, load().scheduler_port) == ("error", 2)
    monkeypatch.setenv("LCQ_CONFIG_ALONE", "1")
    assert (load().log_level, load().scheduler_port) == ("info", 2)


def test_a_section_under_which_every_line_is_a_comment_says_nothing() -> None:
    assert load(write("lcq.yaml", "retries:\n  # base_s: 3\nagent:\n  heat:\n")) == load(SEED.parent / "lcq.yaml")


def test_a_file_of_the_system_appears_is_taken_over_and_may_not_go(tmp_path: Path) -> None:
    manager = ConfigManager()
    write("etc/config.yaml", "retries: {base_s: 9}\n")
    assert manager.reload().retries.base_s == 9
    (tmp_path / "etc" / "config.yaml").unlink()
    with pytest.raises(InvalidConfig, match=r"config\.yaml is gone"):
        manager.reload()
    assert manager.config.retries.base_s == 9


# ---------------------------------------------------------------- problems


def test_everything_that_is_wrong_in_every_layer_is_told_at_once_with_file_line_and_what_may_be(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    write("etc/config.yaml", "retries:\n  bsae_s: 3\npoll_s: 2\n")
    write("home/lcq/config.yaml", "a: [\n")
    write("lcq.yaml", "\nlog_level: debgu\nredis:\n  port: 70000\nleases: {beat_s: 10, lease_s: 15}\n")
    monkeypatch.setenv("LCQ_AGENT__SLOTS", "many")
    monkeypatch.setenv("LCQ_STORAGE__ROOTS", "/photos")
    with pytest.raises(InvalidConfig) as refused:
        load()
    told = {(one.at.rpartition("/")[2], one.key): one.said for one in refused.value.problems}
    assert told.pop(("config.yaml:2", "")).startswith("is not valid YAML")
    assert told == {
        ("config.yaml:2", "retries.bsae_s"): "unknown key, did you mean 'base_s'?",
        ("config.yaml:3", "poll_s"): "unknown key, did you mean 'agent.poll_s'?",
        ("lcq.yaml:2", "log_level"): 'must be "debug", "info", "warning", "error", found \'debgu\', '
        "did you mean 'debug'?",
        ("lcq.yaml:4", "redis.port"): "must be a whole number from 1 to 65535, found 70000",
        ("lcq.yaml:5", "leases"): "lease_s must be at least twice beat_s, found 15.0 and 10.0",
        ("LCQ_AGENT__SLOTS", "agent.slots"): "must be a whole number from 1 to 1024, or null, found 'many'",
        ("LCQ_STORAGE__ROOTS", ""): "expected JSON, found '/photos'; a list of paths",
    }
    assert "\n" not in str(refused.value)


def test_a_rule_over_several_sections_is_told_beside_what_hides_it_but_not_because_of_that() -> None:
    file = write("lcq.yaml", "redis: {port: x}\nquotas:\n  queues: {fast: 3}\n")
    with pytest.raises(InvalidConfig, match=r"line 1: redis\.port: .*; line 3: quotas\.queues: no such queue: fast"):
        load(file)
    file = write("lcq.yaml", "queues: [{name: fast, kind: no}]\nquotas:\n  queues: {fast: 3}\n")
    with pytest.raises(InvalidConfig) as refused:
        load(file)
    assert [one.key for one in refused.value.problems] == ["queues.0.kind"]


@pytest.mark.parametrize(
    "text",
    [
        "discovery: {key: [hunter2]}", "discovery: {kee: {key: hunter2}}", "redis: {passwort: hunter2}",
        "redis: {url: 'redis://:hunter2@here', port: 'redis://:hunter2@here'}", "discovery: [hunter2]",
    ],
)  # fmt: skip
def test_no_secret_is_told_in_a_refusal(text: str) -> None:
    with pytest.raises(InvalidConfig) as refused:
        load(write("lcq.yaml", text))
    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize("text", ["1: 2\n", "true: x\n", "redis: {1: 2}\n", "? [a, b]\n: c\n"])
def test_a_key_that_is_no_text_is_an_unknown_one(text: str) -> None:
    with pytest.raises(InvalidConfig, match=r"unknown key|not valid YAML"):
        load(write("lcq.yaml", text))


# ---------------------------------------------------------------- the command


def test_config_show_tells_what_holds_and_who_said_it_and_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    write("lcq.yaml", "discovery:\n  key: hunter2hunter2hunter2\nredis:\n  url: redis://ann:hunter2@here/0\n")
    monkeypatch.setenv("LCQ_SCHEDULER_PORT", "99")
    code, out, _ = lcq("--log-level", "error", "config", "show", "--set", "--origin")
    assert code == 0
    assert "hunter2" not in out
    said = {line.split()[0]: line.split()[-1] for line in out.splitlines()[2:]}
    assert said == {
        "scheduler_port": "LCQ_SCHEDULER_PORT", "log_level": "--log-level", "discovery.key": "lcq.yaml:2",
        "redis.url": "lcq.yaml:4",
    }  # fmt: skip
    assert lcq("config", "show", "scheduler_port")[1] == "99\n"
    assert yaml.safe_load(lcq("config", "show", "retries")[1])["retries"]["base_s"] == 1.0
    document = json.loads(lcq("--json", "config", "show")[1])
    assert document["redis.url"] == {"value": "redis://here/0", "origin": "lcq.yaml:4"}
    assert document["redis.port"] == {"value": 6379, "origin": "default"}
    code, _, talk = lcq("config", "show", "retries.bsae_s")
    assert (code, "did you mean 'retries.base_s'?" in talk) == (2, True)


def test_what_config_show_prints_is_a_file_that_means_the_same() -> None:
    write("lcq.yaml", "retries: {base_s: 9}\nagent: {labels: {rack: 3}, devices: {gpu: {slots: 2}}}\n")
    before = load()
    out = lcq("config", "show")[1]
    Path("lcq.yaml").unlink()
    assert load(write("shown.yaml", out)).model_dump() == before.model_dump()


def test_config_validate_tells_each_problem_in_a_line_as_compilers_do(monkeypatch: pytest.MonkeyPatch) -> None:
    write("lcq.yaml", "retries: {bsae_s: 3}\nlog_level: info\nlog_level: debug\n")
    code, out, talk = lcq("config", "validate", "lcq.yaml")
    assert out.splitlines() == [
        "lcq.yaml:1: retries.bsae_s: unknown key, did you mean 'base_s'?",
        "lcq.yaml:3: log_level: is there twice, first in line 2",
    ]
    assert (code, "2 problems in the settings" in talk) == (2, True)
    document = json.loads(lcq("config", "validate", "lcq.yaml", "--json")[1])
    assert [one["key"] for one in document["problems"]] == ["retries.bsae_s", "log_level"]
    assert lcq("config", "validate", str(SEED))[0] == 0
    write("lcq.yaml", "log_level: info\n")
    monkeypatch.setenv("LCQ_REDSI__HOST", "x")
    code, out, talk = lcq("config", "validate")
    assert (code, out) == (0, "right: lcq.yaml\n")
    assert "LCQ_REDSI__HOST is no setting; did you mean LCQ_REDIS__HOST?" in talk


def test_what_is_missing_is_told_where_the_section_stands_that_needs_it() -> None:
    write("lcq.yaml", "log_level: info\nschedules:\n  nightly:\n    cron: '0 2 * * *'\n")
    code, out, _ = lcq("config", "validate", "lcq.yaml")
    assert (code, out) == (2, "lcq.yaml:3: schedules.nightly.inputs: is missing: it must be a list of paths\n")


def test_config_init_writes_a_file_once_and_diff_tells_two_apart() -> None:
    assert lcq("config", "init")[0] == 0
    code, _, talk = lcq("config", "init")
    assert (code, "is there already" in talk) == (2, True)
    assert lcq("config", "diff", "lcq.yaml", str(SEED), "--json")[0] == 1
    differ: dict[str, Any] = json.loads(lcq("config", "diff", "lcq.yaml", str(SEED), "--json")[1])
    assert differ == {"redis.host": {"lcq.yaml": None, str(SEED): "localhost", "changes": "needs restart"}}
    assert lcq("config", "diff", "lcq.yaml", "lcq.yaml")[0] == 0
    assert json.loads(lcq("config", "schema")[1])["properties"]["scheduler_port"]["maximum"] == 65535


def test_a_command_that_cannot_begin_tells_every_problem_in_a_line_of_its_own() -> None:
    write("lcq.yaml", "retries: {bsae_s: 3}\nlog_level: loud\n")
    code, _, talk = lcq("tasks")
    assert code == 2
    assert talk.splitlines() == [
        "error: 2 problems in the settings",
        "  lcq.yaml:1: retries.bsae_s: unknown key, did you mean 'base_s'?",
        '  lcq.yaml:2: log_level: must be "debug", "info", "warning", "error", found \'loud\'',
    ]


# ---------------------------------------------------------------- the watch


def test_a_watch_tells_of_a_change_and_of_one_by_rename_and_nothing_once_it_is_disarmed(tmp_path: Path) -> None:
    told = threading.Event()
    watch = FileWatch(told.set)
    file, other = write("a.yaml", "1"), write("b.yaml", "2")
    for change in (lambda: file.write_text("3"), lambda: other.replace(file)):
        told.clear()
        watch.arm([file])
        wait_until_sync(lambda: watch.is_on)
        change()
        assert told.wait(60)
        assert not watch.is_on
    watch.arm([file])
    wait_until_sync(lambda: watch.is_on)
    watch.disarm()
    assert not watch.is_on
    watch.arm([tmp_path / "nowhere"])
    wait_until_sync(lambda: all(thread.name != "file watch" for thread in threading.enumerate()))
    assert not watch.is_on


def test_a_text_may_stand_in_a_file_of_its_own_named_in_a_file_a_section_of_many_or_a_variable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("url", "token", "key"):
        (tmp_path / name).write_text(f"redis://of-{name}\n")
    file = tmp_path / "lcq.yaml"
    file.write_text(
        f"redis: {{url_file: {tmp_path}/url}}\ncontexts: {{studio: {{redis: {{url_file: {tmp_path}/key}}}}}}\n"
    )
    monkeypatch.setenv("LCQ_STORAGE__TOKEN_FILE", str(tmp_path / "token"))
    manager = ConfigManager(file)
    assert manager.config.redis.url == "redis://of-url"
    assert manager.config.storage.token == "redis://of-token"
    assert load(file, context="studio").redis.url == "redis://of-key"
    assert DistributedConfig().storage.token == "redis://of-token"
    assert str(manager.layers.origin(("storage", "token"))) == "LCQ_STORAGE__TOKEN_FILE"
    assert str(manager.layers.origin(("redis", "url"))) == f"{file}:1"


def test_a_secrets_file_that_cannot_be_read_or_a_secret_said_twice_is_told_by_its_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "lcq.yaml"
    file.write_text("storage: {token_file: /nowhere/token}\n")
    with pytest.raises(InvalidConfig, match=r"storage\.token_file: cannot read /nowhere/token: No such file"):
        load(file)
    file.write_text("storage: {token_file: /nowhere/token, token: hunter2}\n")
    with pytest.raises(InvalidConfig, match=r"both storage\.token and storage\.token_file are set") as refusal:
        load(file)
    assert "hunter2" not in str(refusal.value)
    file.write_text("discovery: {key_file: /nowhere/key}\n")  # a setting itself: it is read where it is needed
    assert load(file).discovery.key_file == Path("/nowhere/key")
    monkeypatch.setenv("LCQ_REDIS__URL_FILE", "/nowhere/url")
    with pytest.raises(InvalidConfig, match=r"redis\.url_file: cannot read"):
        load(file)

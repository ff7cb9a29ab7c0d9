"""F-40: a configuration file that is written badly while processes run changes nothing; the next good one does."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import random
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import psutil
import pytest

from lcq import reload
from lcq.config import ConfigManager, DeviceConfig, DistributedConfig
from lcq.errors import InvalidConfig
from lcq.models import DEFAULT_QUEUES, Task, TaskStatus, TaskType
from lcq.reload import ConfigFollower, Role, changes, with_live_keys
from tests.cluster import Cluster, drill, running_cluster
from tests.conftest import wait_until, wait_until_sync

SAMPLES = Path(__file__).parents[2] / "sample-config"
ONLY = "queues:\n  - {name: only, kind: cpu}\n"
GOOD = "log_level: info\nretries:\n  base_s: 2\n  max_s: 30\nagent:\n  poll_s: 1\n"
BAD = {
    "cut in a word": (GOOD[:40], r"line 4 does not end"),
    "cut after a line, before its value": ("retries:\n  base_s\n", r"retries"),
    "no YAML": ("retries: {base_s: [\n", r"not valid YAML.*line 2"),
    "a tab": ("retries:\n\tbase_s: 3\n", r"not valid YAML.*line 2"),
    "empty": ("", "is empty"),
    "blank": ("\n\n", "is empty"),
    "an unknown key": ("retries:\n  bsae_s: 3\n", r"line 2: retries\.bsae_s: unknown key, did you mean 'base_s'"),
    "an unknown section": ("log_level: info\nretrys: {}\n", r"line 2: retrys: unknown key, did you mean 'retries'"),
    "a bad value": ("\n\nretries:\n  base_s: soon\n", r"line 4: retries\.base_s: .*found 'soon'"),
    "a list": ("- a\n- b\n", "expected keys with values, found list"),
    "not text": ("\x00\x01\x02\n", "not valid YAML"),
    "a date that is none": ("log_level: 2026-99-99\n", "log_level|not valid YAML"),
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "lcq.yaml"
    path.write_text(GOOD)
    return path


@pytest.mark.parametrize(("text", "found"), BAD.values(), ids=BAD)
def test_a_bad_file_is_refused_with_its_line_and_key_and_what_holds_goes_on_holding(
    path: Path, text: str, found: str
) -> None:
    manager = ConfigManager(path)
    path.write_text(text)
    with pytest.raises(InvalidConfig, match=found) as refused:
        manager.reload()
    assert str(path) in str(refused.value)
    assert "\n" not in str(refused.value)
    assert manager.config.retries.base_s == 2
    path.write_text(GOOD.replace("base_s: 2", "base_s: 3"))
    assert manager.reload().retries.base_s == 3


def test_a_file_cut_off_at_any_byte_is_refused_or_a_file_of_whole_lines(path: Path) -> None:
    manager = ConfigManager(path)
    whole = (SAMPLES / "lcq.yaml").read_bytes()
    for end in range(0, len(whole), 41):
        path.write_bytes(whole[:end])
        try:
            manager.reload()
        except InvalidConfig:
            continue
        assert whole[:end].rstrip(b" \t").endswith((b"\n", b"}")), whole[end - 40 : end]


def test_a_file_that_is_gone_changes_nothing(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(path.parent)
    manager = ConfigManager()  # ./lcq.yaml, which nobody named: at a start it need not be there
    path.unlink()
    with pytest.raises(InvalidConfig, match="is gone"):
        manager.reload()
    assert manager.config.retries.base_s == 2


def test_what_is_taken_over_at_once_and_what_needs_a_restart_is_told_apart() -> None:
    now = DistributedConfig()
    found = DistributedConfig(
        log_level="debug",
        limits={"frames": 7},
        agent={"drain_s": 1, "slots": 3, "name": "other", "devices": {"gpu": {"slots": 2, "enabled": False}}},
        retention={"failed_s": 60},
        queues=[{"name": "fast", "kind": "gpu", "min_vram_mib": 9}, *DEFAULT_QUEUES[1:]],
        redis={"url": "redis://elsewhere"},
        console={"theme": "lcq-light"},
        leases={"lease_s": 60},
        models={"sources": {"lama": {"urls": ["http://elsewhere/lama.pt"]}}},
        shares={"users": {"ann": 2}},
        quotas={"queued": 5, "users": {"ann": {"in_flight": 2}}},
    )  # type: ignore[arg-type]
    live, waiting = changes(now, found)
    assert live == (
        "agent.devices.gpu.slots", "agent.drain_s", "agent.slots", "leases.lease_s", "limits.frames", "log_level",
        "models.sources.lama.urls", "queues.fast", "queues.gpu-high", "quotas.queued", "quotas.users",
        "quotas.users.ann.in_flight",
        "quotas.users.ann.per_minute", "retention.failed_s", "shares.users", "shares.users.ann",
    )  # fmt: skip
    assert waiting == ("agent.devices.gpu.enabled", "agent.name", "redis.url")
    after = with_live_keys(now, found)
    assert (after.log_level, after.limits.frames, after.agent.drain_s) == ("debug", 7, 1)
    assert (after.agent.slots, after.leases, after.redis) == (3, found.leases, now.redis)
    assert after.agent.devices["gpu"] == DeviceConfig(slots=2)
    assert "enabled" not in after.agent.devices["gpu"].model_fields_set
    assert changes(after, found) == ((), waiting)
    back = with_live_keys(after, now)
    assert changes(back, now) == ((), ())


def test_a_process_looks_at_the_keys_that_it_reads_and_at_no_others() -> None:
    now = DistributedConfig()
    found = DistributedConfig(limits={"frames": 7}, retries={"base_s": 9}, iopaint={"url": "http://gpu-1"})  # type: ignore[arg-type]
    assert changes(now, found, [Role.SCHEDULER]) == (("limits.frames", "retries.base_s"), ())
    assert changes(now, found, [Role.AGENT]) == (("iopaint.url", "limits.frames"), ())
    assert with_live_keys(now, found, [Role.AGENT]).retries == now.retries


def rewrite(path: Path, text: str) -> None:
    path.write_text(text)


@contextlib.asynccontextmanager
async def following(path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[ConfigFollower, list]]:
    monkeypatch.setattr(reload, "_LOOK_S", 0.05)
    told: list[DistributedConfig] = []
    follower = ConfigFollower(ConfigManager(path), on_change=told.append)
    async with asyncio.TaskGroup() as group:
        life = group.create_task(follower.follow())
        yield follower, told
        life.cancel()


async def test_a_file_that_is_being_written_is_taken_over_when_it_stands_still_never_before(
    path: Path, monkeypatch: pytest.MonkeyPatch, rng: random.Random
) -> None:
    async with following(path, monkeypatch) as (follower, told):
        for base_s in range(3, 8):
            text = GOOD.replace("base_s: 2", f"base_s: {base_s}")
            with path.open("w") as file:
                for char in text:
                    file.write(char)
                    file.flush()
                    if rng.random() < 0.2:
                        await asyncio.sleep(0.002)
            await wait_until(lambda: told and told[-1].retries.base_s == base_s)  # noqa: B023
        assert all(config.retries.max_s == 30 for config in told)
        assert not follower.error


def replace_by_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


async def test_where_nothing_tells_of_changes_files_are_looked_at(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lcq.reload.FileWatch.arm", lambda watch, files: None)
    async with following(path, monkeypatch) as (_, told):
        rewrite(path, GOOD.replace("base_s: 2", "base_s: 3"))
        await wait_until(lambda: told and told[-1].retries.base_s == 3)


async def test_what_cannot_be_read_is_told_and_counted_and_nothing_changes(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with following(path, monkeypatch) as (follower, told):
        replace_by_folder(path)
        await wait_until(lambda: "cannot read the configuration" in follower.error)
        os.rmdir(path)  # noqa: PTH106
        await wait_until(lambda: "is gone" in follower.error)
        assert follower.refused == 2
        rewrite(path, GOOD.replace("base_s: 2", "base_s: 3"))
        await wait_until(lambda: not follower.error)
        assert [config.retries.base_s for config in told] == [3]


async def test_what_is_wrong_is_said_once_and_forgotten_when_it_is_right_again(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with following(path, monkeypatch) as (follower, told):
        rewrite(path, "retries:\n  bsae_s: 3\n")
        await wait_until(lambda: "did you mean 'base_s'" in follower.error)
        for _ in range(3):
            os.utime(path)
            await asyncio.sleep(0.2)
        assert sum("stay as they were" in record.message for record in caplog.records) == 1
        assert not told
        rewrite(path, GOOD)
        await wait_until(lambda: not follower.error)
        assert not told  # nothing has changed after all


async def test_a_change_that_needs_a_restart_is_named_and_not_taken_over(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with following(path, monkeypatch) as (follower, told):
        rewrite(path, GOOD.replace("poll_s: 1", "poll_s: 2\n  name: nine") + "redis:\n  port: 60\n")
        await wait_until(lambda: told)
        assert told[-1].agent.poll_s == 2
        assert told[-1].agent.name is None
        assert follower.config.redis.port == 6379
        assert "only a restart takes it over: agent.name, redis.port" in caplog.text
        assert follower.waiting == ("agent.name", "redis.port")


@pytest.mark.chaos
def test_a_running_cluster_keeps_its_settings_through_a_bad_file_and_takes_over_the_next_good_one(
    redis_url: str, tmp_path: Path
) -> None:
    config = tmp_path / "lcq.yaml"
    photo = SAMPLES / "photos" / "camera.png"
    mask = SAMPLES / "masks" / "camera.png"
    assert photo.exists()
    assert mask.exists()
    config.write_text("limits:\n  image_pixels: 1000000\n")
    with running_cluster(redis_url, tmp_path / "c", LCQ_CONFIG=str(config)) as cluster:
        cluster.start_scheduler()
        cluster.start_agent("node-1", slots=1)
        numbers = itertools.count()
        with cluster.client() as client:

            def outcome() -> str:
                out = tmp_path / f"{next(numbers)}.png"
                task = Task(
                    task_type=TaskType.INPAINT, image_path=str(photo), mask_path=str(mask), output_path=str(out)
                )
                (record,) = client.wait([client.submit(task).id], timeout_s=60)
                return record.status if record.failure is None else record.failure.code

            assert outcome() == TaskStatus.COMPLETED
            running = client.submit(drill("drill-sleep", seconds=4)).id
            config.write_text("limits:\n  image_pixles: 7\n")
            wait_until_sync(lambda: "did you mean 'image_pixels'" in client.info().config_error)
            wait_until_sync(lambda: "line 2: limits.image_pixles" in _node_says(client))
            assert outcome() == TaskStatus.COMPLETED
            config.write_text("limits:\n  image_pixels: 7\ndiscovery:\n  cluster: other\n")
            wait_until_sync(lambda: not client.info().config_error and not _node_says(client))
            wait_until_sync(lambda: "limits.image_pixels" in _log(cluster, "node-1"))
            assert outcome() == "image_too_large"
            config.write_text("limits:\n  image_pixels: 1000000\n")
            cluster.processes["node-1"].send_signal(signal.SIGHUP)  # a SIGHUP ends nothing, it reads at once
            cluster.processes["scheduler"].send_signal(signal.SIGHUP)
            wait_until_sync(lambda: _log(cluster, "node-1").count("configuration has changed") == 2)
            assert outcome() == TaskStatus.COMPLETED
            (record,) = client.wait([running], timeout_s=30)
            assert (record.status, record.attempt) == (TaskStatus.COMPLETED, 1)
            config.write_text("agent:\n  devices:\n    cpu: {slots: 3, queues: [only]}\n" + ONLY)
            wait_until_sync(lambda: [(node.slots, node.serves) for node in client.nodes()] == [(3, {"cpu": ("only",)})])
            assert outcome() == TaskStatus.COMPLETED
            config.write_text("agent:\n  devices:\n    nothing: {slots: 3}\n" + ONLY)
            wait_until_sync(lambda: "there is no device 'nothing' here" in _node_says(client))
            assert client.nodes()[0].slots == 3
            agent = psutil.Process(cluster.processes["node-1"].pid)
            runners = {child.pid for child in agent.children()}
            models = "models:\n  sources:\n    own: {urls: ['file:///own.pt']}\n"
            config.write_text("agent:\n  models: [cv2-ns]\n  devices:\n    cpu: {slots: 3}\n" + ONLY + models)
            wait_until_sync(lambda: [*client.nodes()[0].capability.models] == ["cv2-ns"])
            wait_until_sync(lambda: not runners & {child.pid for child in agent.children()})
            config.write_text("agent:\n  models: [cv2-sn]\n  devices:\n    cpu: {slots: 3}\n" + ONLY + models)
            wait_until_sync(lambda: "agent.models: no such model: 'cv2-sn'" in _node_says(client))
            config.write_text("log_level: info\n")
            wait_until_sync(lambda: (client.nodes()[0].slots, "only" in str(client.nodes()[0].serves)) == (1, False))
        for name in ("scheduler", "node-1"):
            assert cluster.processes[name].poll() is None
            log = _log(cluster, name)
            assert log.count("did you mean 'image_pixels'") == 1, log
            assert "only a restart takes it over: discovery.cluster" in log


def _node_says(client) -> str:
    return str(client.nodes()[0].telemetry.get("config_error", ""))


def _log(cluster: Cluster, name: str) -> str:
    return cluster.log_path(name).read_text()

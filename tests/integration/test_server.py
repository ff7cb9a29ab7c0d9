"""``lcq up`` and ``lcq scheduler`` as the processes they are: started, joined, killed, stopped."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from lcq.client import Client
from lcq.embedded import ClusterFile, read_cluster_file
from lcq.errors import StateUnavailable
from lcq.models import NodeRecord, NodeStatus
from lcq.server import first_of
from tests.conftest import wait_until_sync
from tests.processes import kill_and_wait, lcq, processes_about


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A data folder that every process of this test uses, with free ports."""
    data = tmp_path / "data"
    monkeypatch.setenv("LCQ_DATA_DIR", str(data))
    monkeypatch.setenv("LCQ_ZEROMQ__BASE_PORT", "0")
    monkeypatch.setenv("LCQ_ZEROMQ__CONTROL_PORT", "0")
    yield data
    for pid in processes_about(data):
        with contextlib.suppress(ProcessLookupError):  # it may end by itself meanwhile
            os.kill(pid, signal.SIGKILL)


def cluster_on(folder: Path) -> ClusterFile:
    return wait_until_sync(lambda: read_cluster_file(folder), what=f"a cluster on {folder}")


def online_nodes() -> list[NodeRecord]:
    with Client(timeout_s=30) as client, contextlib.suppress(StateUnavailable):
        return [node for node in client.nodes() if node.status is NodeStatus.ONLINE]
    return []  # while Redis is away nobody knows


def the_node() -> NodeRecord:
    return wait_until_sync(online_nodes, what="a node that is online")[0]


def agent_of(up: Any) -> int:
    (agent,) = (child.pid for child in psutil.Process(up.pid).children() if "worker.cli" in child.cmdline())
    return agent


def assert_nothing_is_left_of(folder: Path) -> None:
    wait_until_sync(lambda: not processes_about(folder), what="no process left")


def test_up_brings_a_whole_cluster_and_sigterm_takes_it_all_away(folder: Path, tmp_path: Path) -> None:
    with lcq("up", "--headless", cwd=tmp_path) as up:
        cluster_on(folder)
        assert the_node().status is NodeStatus.ONLINE
        ours = [psutil.Process(up.pid), *psutil.Process(up.pid).children(recursive=True)]
        listening = []
        for one in ours:
            with contextlib.suppress(psutil.Error):  # it has just ended, as a runner may
                listening += [at for at in one.net_connections("inet") if at.status == psutil.CONN_LISTEN]
        assert len(listening) >= 8  # control, six bells, the lifeline; and HTTP
        assert {at.laddr.ip for at in listening} == {"127.0.0.1"}, "docs/security.md: loopback needs nothing"
        up.send_signal(signal.SIGTERM)
        _, talk = up.communicate(timeout=120)
        assert up.returncode == 0, talk
        assert "Traceback" not in talk
        assert_nothing_is_left_of(folder)
        assert read_cluster_file(folder) is None


def test_up_without_a_console_on_a_folder_in_use_says_who_uses_it(folder: Path, tmp_path: Path) -> None:
    with lcq("up", "--headless", cwd=tmp_path) as up:
        cluster_on(folder)
        with lcq("up", "--headless", cwd=tmp_path) as second:
            _, talk = second.communicate(timeout=120)
            assert second.returncode == 2
            assert f"process {up.pid}" in talk
            assert "lcq console" in talk
            assert up.poll() is None  # asked in here: leaving this block ends all that has its place in tmp_path


def test_up_starts_its_agent_again_when_that_was_killed(folder: Path, tmp_path: Path) -> None:
    with lcq("up", "--headless", cwd=tmp_path) as up:
        cluster_on(folder)
        boot_id = the_node().boot_id
        kill_and_wait(agent_of(up))
        wait_until_sync(lambda: any(node.boot_id != boot_id for node in online_nodes()))


def test_nothing_of_a_killed_up_stays_alive(folder: Path, tmp_path: Path) -> None:
    with lcq("up", "--headless", cwd=tmp_path, is_forked=False) as up:
        cluster_on(folder)
        the_node()
        assert len(processes_about(folder)) > 3
        up.kill()
        assert_nothing_is_left_of(folder)


def test_after_a_kill_the_next_up_takes_over_where_it_was(folder: Path, tmp_path: Path) -> None:
    with lcq("up", "--headless", cwd=tmp_path) as up:
        cluster_on(folder)
        with Client(timeout_s=30) as client:
            client.pause("cpu-light", reason="to be remembered")
        up.kill()
        up.communicate()
        with lcq("up", "--headless", cwd=tmp_path) as again:
            wait_until_sync(lambda: (found := read_cluster_file(folder)) and found.pid == again.pid)
            the_node()
            with Client(timeout_s=30) as client:
                (queue,) = (queue for queue in client.queues() if queue.name == "cpu-light")
            assert queue.paused


def test_a_killed_redis_comes_back_under_a_running_cluster(folder: Path, tmp_path: Path) -> None:
    with lcq("up", "--headless", cwd=tmp_path) as up:
        cluster_on(folder)
        the_node()
        redis = json.loads((folder / "redis" / "run.json").read_text())["pid"]
        kill_and_wait(redis)
        the_node()
        assert up.poll() is None


def test_the_agent_of_up_knows_nothing_of_redis(folder: Path, tmp_path: Path) -> None:
    with lcq("up", "--headless", cwd=tmp_path) as up:
        cluster_on(folder)
        the_node()
        environment = psutil.Process(agent_of(up)).environ()
        assert not [name for name in environment if name.startswith("LCQ_REDIS")]
        assert "redis" not in Path(environment["LCQ_CONFIG"]).read_text()


def test_a_taken_port_is_named_with_its_setting(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        monkeypatch.setenv("LCQ_ZEROMQ__CONTROL_PORT", str(port))
        with lcq("up", "--headless", cwd=tmp_path) as up:
            _, talk = up.communicate(timeout=120)
            assert up.returncode == 2
            assert str(port) in talk
            assert "zeromq.control_port" in talk
            assert "Traceback" not in talk
        assert_nothing_is_left_of(folder)


@pytest.mark.parametrize("command", [("up", "--headless"), ("scheduler",)])
def test_a_data_folder_that_cannot_be_used_is_named_with_its_setting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...]
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("LCQ_DATA_DIR", str(tmp_path / "file" / "data"))
    with lcq(*command, cwd=tmp_path) as process:
        _, talk = process.communicate(timeout=120)
    assert process.returncode == 2
    assert "set data_dir" in talk
    assert "Traceback" not in talk


def test_a_host_that_is_not_to_take_part_says_so(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LCQ_ENABLED", "false")
    with lcq("scheduler", cwd=tmp_path) as scheduler:
        _, talk = scheduler.communicate(timeout=120)
    assert scheduler.returncode == 2
    assert "set enabled: true" in talk


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_scheduler_alone_ends_in_order_on_a_signal(folder: Path, tmp_path: Path, number: signal.Signals) -> None:
    with lcq("scheduler", cwd=tmp_path) as scheduler:
        cluster_on(folder)
        scheduler.send_signal(number)
        _, talk = scheduler.communicate(timeout=120)
        assert scheduler.returncode == 0, talk
        assert "Traceback" not in talk
        assert_nothing_is_left_of(folder)


async def test_first_of_ends_with_the_first_and_cancels_the_rest() -> None:
    never = asyncio.Event()
    await first_of(asyncio.sleep(0), never.wait())
    with pytest.raises(ZeroDivisionError):
        await first_of(_fails(), never.wait())


async def _fails() -> None:
    _ = 1 / 0

"""What schedulers and agents tell systemd: real processes, a real datagram socket."""

from __future__ import annotations

import signal
import sys
import time
from pathlib import Path

import psutil
import pytest

from lcq.client import Client
from lcq.errors import SchedulerUnreachable
from lcq.systemd import ServiceManager
from tests.cluster import drill, running_cluster
from tests.conftest import wait_until_sync
from tests.nodes import a_task
from tests.service_manager import Notified, notified

WATCHDOG_S = 3.0  # fed every second


def test_a_scheduler_says_that_it_is_ready_reads_anew_and_stops_and_is_fed_meanwhile(
    redis_url: str, tmp_path: Path
) -> None:
    settings = tmp_path / "lcq.yaml"
    settings.write_text("retention: {events: 2000}\n")
    with notified(watchdog_s=WATCHDOG_S) as systemd:
        environment = systemd.environment | {"LCQ_CONFIG": str(settings)}
        with running_cluster(redis_url, tmp_path / "data", **environment) as cluster:
            process = cluster.start_scheduler()
            systemd.wait("READY=1")
            assert systemd.status().startswith(f"answers at tcp://127.0.0.1:{cluster.control_port}")
            systemd.wait("WATCHDOG=1")
            settings.write_text("retention: {events: no}\n")
            process.send_signal(signal.SIGHUP)
            systemd.wait("READY=1", times=2)
            assert systemd.said.index("RELOADING=1") < len(systemd.said) - systemd.said[::-1].index("READY=1") - 1
            assert any(line.startswith("MONOTONIC_USEC=") for line in systemd.said)
            assert "the settings stay as they were" in systemd.status()
            assert "retention.events" in systemd.status()
            cluster.kill("scheduler", signal.SIGTERM)
            assert process.returncode == 0
            assert systemd.count("STOPPING=1") == 1
            assert not psutil.Process().environ().get("NOTIFY_SOCKET")  # nor did we become the service


def test_an_agent_tells_why_it_claims_nothing_and_asks_for_as_long_as_its_drain_takes(tmp_path: Path) -> None:
    with (
        notified(watchdog_s=WATCHDOG_S) as systemd,
        running_cluster("redis://127.0.0.1:1/0", tmp_path / "data", **systemd.environment) as cluster,
    ):
        process = cluster._start("agent", agent_command(cluster.control_port), {"LCQ_AGENT__DRAIN_S": "40"})
        systemd.wait("READY=1")
        wait_until_sync(lambda: "claims no task" in systemd.status(), what=f"why: {systemd.status()}")
        assert systemd.status().startswith("node-1 claims no task")
        systemd.wait("WATCHDOG=1")
        cluster.kill("agent", signal.SIGTERM)
        assert process.returncode == 0
        (asked,) = [line for line in systemd.said if line.startswith("EXTEND_TIMEOUT_USEC=")]
        assert int(asked.partition("=")[2]) > 40_000_000


def agent_command(port: int) -> list[str]:
    return [sys.executable, "-m", "worker.cli", "--scheduler", f"127.0.0.1:{port}", "--name", "node-1", "--slots", "1"]


def is_fed_no_more(systemd: Notified, log: Path) -> None:
    """The loop hangs (its log says so), the process lives, and for longer than the watchdog bears nothing comes."""
    wait_until_sync(lambda: "failpoint" in log.read_text() and ": hang" in log.read_text(), what="the loop to hang")
    before = systemd.count("WATCHDOG=1")
    time.sleep(1.5 * WATCHDOG_S)  # what is to be seen is that nothing comes in that time
    assert systemd.count("WATCHDOG=1") <= before + 1  # one may have been on its way


@pytest.mark.chaos
def test_an_agent_whose_event_loop_hangs_is_not_fed_although_its_threads_live(redis_url: str, tmp_path: Path) -> None:
    with notified(watchdog_s=WATCHDOG_S) as systemd, running_cluster(redis_url, tmp_path / "data") as cluster:
        cluster.start_scheduler()
        drilled = systemd.environment | {"LCQ_FAILPOINTS": "agent.lease=hang:600"}
        agent = cluster._start("agent", agent_command(cluster.control_port), drilled)
        systemd.wait("WATCHDOG=1", times=2)
        with cluster.client() as client:
            wait_until_sync(lambda: any(node.status == "online" for node in client.nodes()), what="it to join")
            client.submit(drill())
        is_fed_no_more(systemd, cluster.log_path("agent"))
        assert psutil.Process(agent.pid).num_threads() > 1
        agent.send_signal(signal.SIGABRT)  # as systemd does then
        agent.wait(60)
        assert 'File "' in cluster.log_path("agent").read_text()  # where each thread stood
        assert "in _meet" in cluster.log_path("agent").read_text()


@pytest.mark.chaos
def test_a_scheduler_whose_event_loop_hangs_is_not_fed(redis_url: str, tmp_path: Path) -> None:
    with notified(watchdog_s=WATCHDOG_S) as systemd:
        drilled = systemd.environment | {"LCQ_FAILPOINTS": "state.submit_task=hang:600"}
        with running_cluster(redis_url, tmp_path / "data", **drilled) as cluster:
            cluster.start_scheduler()
            systemd.wait("WATCHDOG=1", times=2)
            address = f"127.0.0.1:{cluster.control_port}"
            with Client(cluster.config, scheduler=address, timeout_s=3) as client, pytest.raises(SchedulerUnreachable):
                client.submit(a_task())
            is_fed_no_more(systemd, cluster.log_path("scheduler"))
            cluster.kill("scheduler", signal.SIGKILL)


def test_without_systemd_nothing_is_told_and_the_variables_of_another_are_not_ours() -> None:
    assert ServiceManager.of_this_process({}).watchdog_s == 0.0
    watched = {"NOTIFY_SOCKET": "@nobody", "WATCHDOG_USEC": "9000000", "WATCHDOG_PID": "1", "HOME": "/"}
    manager = ServiceManager.of_this_process(watched)
    assert watched == {"HOME": "/"}
    assert manager.watchdog_s == 0.0
    manager.ready("nobody hears it, and nothing breaks")
    manager.close()
    assert ServiceManager.of_this_process({"NOTIFY_SOCKET": "vsock:2:1"})._socket is None

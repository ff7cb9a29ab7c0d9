"""F-13: after every loss of Redis each agent claims again by itself; while it does not, it says so."""

from __future__ import annotations

import random
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lcq.client import Client
from lcq.errors import LcqError
from lcq.models import TaskStatus
from tests.cluster import Cluster, drill, running_cluster
from tests.conftest import wait_until_sync
from tests.forked import run
from tests.proxy import Proxy
from tests.tcp_server import TcpServer, tcp_server
from worker.health import read_health

AGENTS = ("node-1", "node-2")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[TcpServer]:
    with tcp_server(tmp_path / "redis") as server:
        yield server


@pytest.fixture
def proxy(server: TcpServer) -> Iterator[Proxy]:
    with Proxy(server.port) as proxy:
        yield proxy


@pytest.fixture
def cluster(proxy: Proxy, tmp_path: Path) -> Iterator[Cluster]:
    # Nobody is lost in these tests: only what was cut off is to come back.
    with running_cluster(f"redis://127.0.0.1:{proxy.port}/0", tmp_path / "c", LCQ_LEASES__LEASE_S="60") as cluster:
        cluster.start_scheduler()
        for agent in AGENTS:
            cluster.start_agent(agent, slots=1)
        yield cluster


def persistently(ask: Callable[[], list[str]]) -> list[str]:
    """The answer, asked for again while Redis is away."""

    def told() -> list[str]:
        try:
            return ask()
        except LcqError:
            return []

    return wait_until_sync(told, timeout=60, what="an answer")


def claims_again(client: Client, since: float) -> float:
    """Seconds after ``since`` until every agent has claimed and done a new task."""
    tasks = [(drill(), agent) for agent in AGENTS]
    persistently(lambda: [client.submit(task, node=agent).id for task, agent in tasks])
    done = persistently(lambda: [record.id for record in client.wait([task.id for task, _ in tasks], timeout_s=60)])
    assert len(done) == len(AGENTS)
    return time.monotonic() - since


def not_claiming(cluster: Cluster, agent: str) -> str:
    told = read_health(cluster.folder / "agents" / agent)
    if told is None:
        return "it has said nothing yet"
    assert told.is_alive
    return told.not_claiming


def told_by_health(cluster: Cluster, agent: str) -> tuple[int, str]:
    """What ``lcq-agent health`` says, and its exit code."""
    options = ["--data-dir", str(cluster.folder), "--name", agent, "health"]
    ended = run([sys.executable, "-m", "worker.cli", *options], capture_output=True, text=True, check=False)
    return ended.returncode, ended.stdout


def restart(server: TcpServer) -> None:
    server.kill()
    server.start()


def test_f13_every_agent_claims_again_after_restarts_and_resets_in_quick_succession(
    cluster: Cluster, server: TcpServer, proxy: Proxy
):
    with cluster.client() as client:
        claims_again(client, time.monotonic())
        for _ in range(3):
            restart(server)
        after_restarts_s = claims_again(client, time.monotonic())
        for _ in range(3):
            proxy.drop()
            time.sleep(0.1)
        after_resets_s = claims_again(client, time.monotonic())
        counts = [record.attempt for record in client.tasks()]
    print(f"\nall claim again {after_restarts_s:.2f} s after 3 restarts, {after_resets_s:.2f} s after 3 resets")
    assert set(counts) == {1}


def test_f13_an_agent_that_cannot_claim_says_so_and_why(cluster: Cluster, server: TcpServer):
    for agent in AGENTS:
        wait_until_sync(lambda agent=agent: not not_claiming(cluster, agent), what="both agents well")
    assert told_by_health(cluster, "node-1") == (0, "node-1 claims tasks\n")
    server.kill()
    for agent in AGENTS:
        wait_until_sync(lambda agent=agent: "Redis" in not_claiming(cluster, agent), what=f"{agent} to miss Redis")
    server.start()
    for agent in AGENTS:
        wait_until_sync(lambda agent=agent: not not_claiming(cluster, agent), what=f"{agent} well again")
    cluster.kill("scheduler", signal.SIGKILL)
    for agent in AGENTS:
        wait_until_sync(
            lambda agent=agent: "no scheduler answers" in not_claiming(cluster, agent),
            what=f"{agent} to miss its scheduler",
        )
    cluster.start_scheduler()
    with cluster.client() as client:
        claims_again(client, time.monotonic())
        assert {record.status for record in client.tasks()} == {TaskStatus.COMPLETED}
    for agent in AGENTS:
        wait_until_sync(lambda agent=agent: not not_claiming(cluster, agent), what=f"{agent} well again")
        said = cluster.log_path(agent).read_text()
        assert said.count("no scheduler answers") == 1, "once, not at every try"
        assert said.count("leases are not renewed") <= 2
        cluster.kill(agent, signal.SIGKILL)
    code, said = told_by_health(cluster, "node-2")
    assert (code, said) == (1, "node-2 claims no task: no agent named node-2 runs on this host\n")


@pytest.mark.chaos
def test_f13_every_agent_claims_again_after_each_of_twenty_restarts_of_redis(
    cluster: Cluster, server: TcpServer, rng: random.Random
):
    took = []
    with cluster.client() as client:
        for _ in range(20):
            server.kill()
            time.sleep(rng.choice([0, 0, 0.5, 2]))
            server.start()
            took.append(claims_again(client, time.monotonic()))
        assert {record.attempt for record in client.tasks()} == {1}
    print(f"\n20 restarts of Redis: all claim again after {sum(took) / 20:.2f} s (mean), {max(took):.2f} s (most)")
    assert max(took) < 30

"""Names of nodes: two agents on one host, who keeps a name, and who comes back under it. Real processes."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from typer.testing import CliRunner

from lcq.cli.main import app
from lcq.errors import NodeNameTaken
from lcq.hardware import host_name
from lcq.models import NodeStatus, TaskStatus
from lcq.state.manager import StateManager
from tests.audit import audit
from tests.cluster import Cluster, drill, running_cluster
from tests.conftest import wait_until_sync
from tests.forked import run
from tests.lan import speaks_mdns
from tests.logs import logging_kept
from tests.nodes import Node, the_cpu
from worker.home import agent_home, default_name

PATIENCE_S = 90.0


# ---------------------------------------------------------------- the folder, and the state


def test_agents_on_one_data_folder_get_names_of_their_own_and_get_them_again(tmp_path: Path) -> None:
    with agent_home(tmp_path, None) as first, agent_home(tmp_path, None) as second:
        names = (first.node_id, second.node_id)
        identities = (first.identity, second.identity)
    assert names == (host_name(), f"{host_name()}-2")
    assert len(set(identities)) == 2
    with agent_home(tmp_path, None) as first, agent_home(tmp_path, None) as second:
        assert (first.node_id, second.node_id) == names
        assert (first.identity, second.identity) == identities


def test_a_name_that_was_left_to_another_agent_is_not_taken_again_by_default(tmp_path: Path) -> None:
    with agent_home(tmp_path, None) as home:
        home.leave_name()
    assert default_name(tmp_path) == f"{host_name()}-2"
    with agent_home(tmp_path, None) as home:
        assert home.node_id == f"{host_name()}-2"
    with agent_home(tmp_path, host_name()) as home:  # whoever gives it this name means it
        assert home.node_id == host_name()


def test_an_identity_that_cannot_be_read_is_made_anew(tmp_path: Path) -> None:
    with agent_home(tmp_path, "a") as home:
        before = home.identity
        (home.folder / "identity").write_bytes(b"\xff garbage")
        after = home.identity
        assert after != before
        assert home.identity == after


async def hello(state: StateManager, boot: str, home: str) -> NodeStatus:
    serves = {"cpu": ("cpu-light",)}
    return (await state.register_node("n", boot=boot, capability=the_cpu(), serves=serves, home=home)).status


async def test_a_name_is_its_holders_until_that_has_gone(redis_url: str) -> None:
    async with StateManager(url=redis_url) as state:
        await hello(state, "boot-1", "home-1")
        with pytest.raises(NodeNameTaken, match="is node n now"):
            await hello(state, "boot-2", "home-2")
        assert await hello(state, "boot-3", "home-1") is NodeStatus.ONLINE  # a restart
        with pytest.raises(NodeNameTaken):
            await hello(state, "boot-2", "home-2")
        await Node(state, "n", "boot-3").lose()
        assert await hello(state, "boot-2", "home-2") is NodeStatus.ONLINE
        with pytest.raises(NodeNameTaken):
            await hello(state, "boot-4", "home-1")
        assert await hello(state, "boot-5", "") is NodeStatus.ONLINE  # by an older agent, which tells no home


async def test_a_holder_that_has_been_silent_for_a_lease_holds_nothing(redis_url: str) -> None:
    async with StateManager(url=redis_url) as state:
        await hello(state, "boot-1", "home-1")
        with redis.Redis.from_url(redis_url) as eye:
            eye.hset("{lcq}:node:n", "seen_ms", "1")
        assert await hello(state, "boot-2", "home-2") is NodeStatus.ONLINE


# ---------------------------------------------------------------- processes


@pytest.fixture
def cluster(redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    monkeypatch.chdir(tmp_path)
    with logging_kept(), running_cluster(redis_url, tmp_path / "c", LCQ_DISCOVERY__ENABLED="1") as running:
        running.start_scheduler()
        yield running


def start_unnamed(cluster: Cluster, process: str, folder: str, *more: str) -> None:
    address = f"127.0.0.1:{cluster.control_port}"
    agent = [sys.executable, "-m", "worker.cli", "--scheduler", address, "--slots", "1", *more]
    cluster._start(process, [*agent, "--data-dir", str(cluster.folder / folder)], {})


def lcq(cluster: Cluster, *arguments: str, code: int = 0) -> str:
    done = CliRunner().invoke(app, ["--scheduler", f"127.0.0.1:{cluster.control_port}", *arguments])
    assert done.exit_code == code, (done.output, cluster.logs())
    return str(done.stdout)


@pytest.mark.timeout(400)
def test_two_agents_of_one_host_are_two_nodes_with_labels_and_outlive_a_flushed_redis(
    cluster: Cluster, redis_url: str
) -> None:
    with cluster.client() as client, redis.Redis.from_url(redis_url, decode_responses=True) as eye:

        def online() -> dict[str, dict[str, str]]:
            return {node.id: dict(node.labels) for node in client.nodes() if node.status is NodeStatus.ONLINE}

        start_unnamed(cluster, "first", "one", "--label", "rack=3")
        wait_until_sync(lambda: set(online()) == {host_name()}, timeout=PATIENCE_S)
        start_unnamed(cluster, "second", "two", "--label", "rack=4,zone=a")
        both = {host_name(): {"rack": "3"}, f"{host_name()}-2": {"rack": "4", "zone": "a"}}
        wait_until_sync(lambda: online() == both, timeout=PATIENCE_S, what="a node of the second one's own")
        told = json.loads(lcq(cluster, "nodes", "--json"))
        assert both == {node["id"]: node["capability"]["labels"] for node in told["nodes"]}
        # The agents have an address, and the scheduler is bound to loopback: neither has anything to do with the LAN.
        assert not any(speaks_mdns(process.pid) for process in cluster.processes.values())

        # Labels decide where a task runs, and a reroute changes them.
        there = client.submit(drill(requires={"rack": "4"}))
        here = client.submit(drill(requires={"rack": "3"}))
        nowhere = client.submit(drill(requires={"rack": "9"}))
        assert nowhere.why == "no node has label rack=9 (there is rack=3, 4)"
        ended = client.wait([there.id, here.id], timeout_s=PATIENCE_S)
        assert [(one.status, one.node) for one in ended] == [
            (TaskStatus.COMPLETED, f"{host_name()}-2"),
            (TaskStatus.COMPLETED, host_name()),
        ]
        assert "no node has label rack=9" in lcq(cluster, "task", nowhere.id)
        assert "nodes with zone=a" in lcq(cluster, "reroute", nowhere.id, "--label", "zone=a")
        (moved,) = client.wait([nowhere.id], timeout_s=PATIENCE_S)
        assert (moved.node, dict(moved.task.requires)) == (f"{host_name()}-2", {"zone": "a"})

        # All that Redis knew is gone: both come back by themselves, with what they are.
        eye.flushall()
        wait_until_sync(lambda: online() == both, timeout=PATIENCE_S, what="both to come back after the flush")
        again = client.submit(drill(requires={"rack": "4"}))
        (ended_again,) = client.wait([again.id], timeout_s=PATIENCE_S)
        assert ended_again.node == f"{host_name()}-2"

        # A restart of the scheduler, and then of the second agent while the first is away: the name stays its own.
        cluster.kill("scheduler")
        cluster.start_scheduler()
        wait_until_sync(lambda: online() == both, timeout=PATIENCE_S)
        cluster.kill("first", signal.SIGTERM)
        cluster.kill("second")
        start_unnamed(cluster, "second", "two", "--label", "rack=4,zone=a")
        wait_until_sync(lambda: online() == {f"{host_name()}-2": both[f"{host_name()}-2"]}, timeout=PATIENCE_S)
        audit(eye, events=False)
    told = run(  # whether it claims already is not the question
        [sys.executable, "-m", "worker.cli", "--data-dir", str(cluster.folder / "two"), "health", "--json"],
        capture_output=True, text=True, timeout=120, check=False, env=os.environ | {"LCQ_LOG_LEVEL": "error"},
    )  # fmt: skip
    assert json.loads(told.stdout)["node"] == f"{host_name()}-2"


def test_a_reroute_says_what_it_cannot_mean(cluster: Cluster) -> None:
    lcq(cluster, "reroute", "06ft3k", "--label", "rack", code=2)
    lcq(cluster, "reroute", "06ft3k", "--label", "rack=1", "--any-label", code=2)
    lcq(cluster, "reroute", "06ft3k", code=2)

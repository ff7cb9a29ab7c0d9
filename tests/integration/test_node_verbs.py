"""What operators do to nodes and their devices: real schedulers and agents as processes, each word live."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis
from typer.testing import CliRunner

from lcq.cli.main import app
from lcq.client import Client
from lcq.errors import AgentTooOld, DeviceNotFound, LcqError, NodeNotFound, TransitionRefused, UnknownQueue
from lcq.models import DeviceWish, NodeRecord, NodeStatus, TaskStatus
from lcq.state.manager import StateManager
from lcq.wire import Drain, LabelNode, SetDevice, StopNode
from tests.audit import audit
from tests.cluster import Cluster, drill, running_cluster
from tests.conftest import wait_until_sync
from tests.nodes import LIGHT, Node

LONG_S = 90.0


@pytest.fixture
def cluster(redis_url: str, tmp_path: Path) -> Iterator[Cluster]:
    with running_cluster(redis_url, tmp_path / "c") as cluster:
        cluster.start_scheduler()
        yield cluster


def node_of(client: Client, name: str = "node-1") -> NodeRecord:
    return next(node for node in client.nodes() if node.id == name)


def has_slots(client: Client, count: int) -> bool:
    """Whether the agent itself says that it has so many."""
    return sum(device.slots for device in node_of(client).capability.devices) == count


def run_here(client: Client, count: int) -> bool:
    return node_of(client).running == count


def begun(client: Client, ids: list[str]) -> list[str]:
    return [one.id for one in client.get_many(ids) if one.status is TaskStatus.PROCESSING]


def acts_of(redis_url: str) -> list[dict[str, str]]:
    with redis.Redis.from_url(redis_url, decode_responses=True) as eye:
        return [fields for _, fields in eye.xrange("{lcq}:acts") if fields["act"] != "submit"]


def test_slots_queues_and_labels_are_set_live_and_hold_over_restarts_of_agent_and_scheduler(
    cluster: Cluster, redis_url: str
) -> None:
    cluster.start_agent(slots=1)
    with cluster.client() as client:
        sleepers = [client.submit(drill("drill-sleep", seconds=600)).id for _ in range(3)]
        wait_until_sync(lambda: run_here(client, 1), timeout=LONG_S, what="one runs")

        grow = SetDevice(node="node-1", slots=3, actor="ann", reason="night shift")
        for _ in range(2):  # a copy of the same command
            client.ask(grow)
        wait_until_sync(lambda: run_here(client, 3), timeout=LONG_S, what="three run")
        wait_until_sync(lambda: has_slots(client, 3), timeout=LONG_S, what="and so its agent says")
        wish = node_of(client).wishes["cpu"]
        assert wish == DeviceWish(slots=3, why="set by ann: night shift")

        client.set_device("node-1", "cpu", slots=1)
        wait_until_sync(lambda: has_slots(client, 1), timeout=LONG_S, what="it offers one slot")
        assert run_here(client, 3), "what runs may finish"
        for ended in sleepers[:2]:
            client.cancel([ended])
        wait_until_sync(lambda: run_here(client, 1), timeout=LONG_S, what="two have ended")
        waiting = client.submit(drill("drill-sleep", seconds=600)).id
        client.cancel([sleepers[2]])
        wait_until_sync(lambda: begun(client, [waiting]) == [waiting], timeout=LONG_S, what="the next one runs")
        behind = client.submit(drill("drill-noop")).id

        client.set_device("node-1", queues=["cpu-intensive"])
        assert node_of(client).serves == {"cpu": ("cpu-intensive",)}
        client.label_node("node-1", {"rack": "3", "site": "attic"}, reason="moved")
        client.label_node("node-1", without=["site"])
        assert dict(node_of(client).labels) == {"rack": "3"}
        wait_until_sync(
            lambda: client.get(behind).queue == "cpu-intensive", timeout=LONG_S, what="its way after the node"
        )
        with redis.Redis.from_url(redis_url, decode_responses=True) as eye:
            audit(eye)

        cluster.kill("node-1")
        cluster.kill("scheduler")
        cluster.start_scheduler()
        cluster.start_agent(slots=2)
        again = node_of(client)
        assert (again.serves, dict(again.labels)) == ({"cpu": ("cpu-intensive",)}, {"rack": "3"})
        wait_until_sync(lambda: has_slots(client, 1), timeout=LONG_S, what="one slot, as was set")
        only = client.submit(drill("drill-noop"), queue="cpu-light").id
        there = client.submit(drill("drill-noop"), queue="cpu-intensive").id
        assert client.wait([there], timeout_s=LONG_S)[0].status is TaskStatus.COMPLETED
        assert client.get(only).status is TaskStatus.QUEUED, "nothing serves that queue"

        client.set_device("node-1", slots=0, queues=())
        client.label_node("node-1", forget=["rack", "site"])
        wait_until_sync(lambda: has_slots(client, 2), timeout=LONG_S, what="its own slots again")
        assert (node_of(client).wishes, dict(node_of(client).labels)) == ({}, {})
        assert client.wait([only, behind], timeout_s=LONG_S)[0].status is TaskStatus.COMPLETED
    told = [(act["act"], act["actor"], act["reason"]) for act in acts_of(redis_url)]
    assert told.count(("set_device", "ann", "night shift")) == 1
    assert ("label_node", client.actor, "moved") in told


def test_a_drain_hands_back_at_its_deadline_and_a_stopped_agent_ends_in_order(cluster: Cluster, redis_url: str) -> None:
    agent = cluster.start_agent(slots=1)
    with cluster.client() as client:
        task = client.submit(drill("drill-sleep", seconds=600)).id
        wait_until_sync(lambda: bool(begun(client, [task])), timeout=LONG_S, what="it runs")
        client.drain("node-1")
        client.ask(Drain(node="node-1", deadline_s=0.5, actor="ann", reason="lights out"))
        wait_until_sync(lambda: client.get(task).status is TaskStatus.QUEUED, timeout=LONG_S, what="it went back")
        assert (client.get(task).retries, node_of(client).status) == (0, NodeStatus.DRAINING)
        client.activate("node-1")
        assert node_of(client).hand_back_ms is None
        wait_until_sync(lambda: bool(begun(client, [task])), timeout=LONG_S, what="it runs again")

        stop = StopNode(node="node-1", deadline_s=0, actor="ann", reason="moves to the attic")
        for _ in range(2):
            client.ask(stop)
        assert agent.wait(LONG_S) == 0
        wait_until_sync(lambda: node_of(client).status is NodeStatus.OFFLINE, timeout=LONG_S, what="it has left")
        assert (client.get(task).status, client.get(task).retries) == (TaskStatus.QUEUED, 0)
        with pytest.raises(TransitionRefused, match="offline"):
            client.stop_node("node-1")
        assert [(a["actor"], a["reason"]) for a in acts_of(redis_url) if a["act"] == "stop_node"] == [
            ("ann", "moves to the attic")
        ]
        cluster.start_agent(slots=1)  # started again, it works as before
        wait_until_sync(lambda: bool(begun(client, [task])), timeout=LONG_S, what="it runs once more")
        client.cancel([task])
    with redis.Redis.from_url(redis_url, decode_responses=True) as eye:
        audit(eye)


def test_what_cannot_be_done_is_refused_with_what_to_do(redis_url: str, cluster: Cluster) -> None:
    async def join() -> None:
        async with StateManager(url=redis_url) as state:
            await Node(state, "elder").hello()  # as an agent from before there were orders

    asyncio.run(join())
    with cluster.client() as client:
        orders: tuple[Callable[[], None], ...] = (
            lambda: client.set_device("elder", slots=2),
            lambda: client.stop_node("elder"),
            lambda: client.drain("elder", deadline_s=5),
        )
        for order in orders:
            with pytest.raises(AgentTooOld, match=r"node elder .* is too old to .*install this lcq there"):
                order()
        client.set_device("elder", queues=[LIGHT])  # that is the cluster's to do
        client.drain("elder")
        with pytest.raises(DeviceNotFound, match="it has cpu"):
            client.quarantine("elder", device="GPU-9")
        with pytest.raises(UnknownQueue):
            client.set_device("elder", queues=["nothing"])
        with pytest.raises(LcqError, match="is for devices of kind gpu"):
            client.set_device("elder", queues=["gpu-low"])
        with pytest.raises(NodeNotFound):
            client.ask(LabelNode(node="nobody", labels={"a": "b"}))
        address = f"127.0.0.1:{cluster.control_port}"

        def lcq(*arguments: str) -> tuple[int, dict[str, object]]:
            done = CliRunner().invoke(app, ["--scheduler", address, "--json", *arguments])
            assert done.stdout, done.output
            return done.exit_code, json.loads(done.stdout)

        assert lcq("label", "elder", "rack=3", "--reason", "moved") == (0, {"done": ["elder"], "refused": []})
        assert lcq("set", "elder", "--device", "c", "--queues", "cpu-intensive, cpu-light")[0] == 0
        assert node_of(client, "elder").serves == {"cpu": ("cpu-intensive", "cpu-light")}
        assert lcq("set", "elder", "--default")[0] == 2, "its slots cannot be told to it"
        assert lcq("quarantine", "elder", "--device", "cpu")[0] == 0
        assert lcq("activate", "elder", "--device", "cpu")[0] == 0
        assert lcq("stop", "elder", "--deadline", "5")[0] == 2
        assert dict(node_of(client, "elder").labels) == {"rack": "3"}

"""An agent's log, read through a scheduler by who cannot reach its host."""

from __future__ import annotations

import asyncio

import pytest

from lcq.errors import LogElsewhere, NodeNotFound, NoLog
from lcq.health import KNOWS_LOG
from lcq.logs import Logs
from lcq.models import TaskStatus
from lcq.state.manager import StateManager
from lcq.wire import Logged, LogLine, Order, ReadLog
from tests.cluster import drill, running_cluster
from tests.nodes import LIGHT, Node, the_cpu


def test_what_an_agent_and_its_runners_write_is_read_and_followed(redis_url, tmp_path):
    with running_cluster(redis_url, tmp_path / "data") as cluster:
        cluster.start_scheduler()
        cluster.start_agent(slots=1)
        with cluster.client() as client:
            task = drill("drill-transient").model_copy(update={"max_retries": 0})
            client.submit(task)
            (failed,) = client.wait([task.id])
            assert failed.status is TaskStatus.FAILED

            told = client.log("node-1", task=task.id)
            assert told.node == "node-1"
            found = [line for line in told.lines if task.id in line.text]
            assert {(line.source, line.level) for line in found} == {("agent", "WARNING")}
            everything = client.log("node-1", limit=500)
            assert any("joined scheduler" in line.text for line in everything.lines)

            client.drain("node-1", reason="new driver")
            news: list[str] = []
            after = everything.last
            while not any("draining" in text for text in news):
                more = client.log("node-1", after=after, limit=2)
                assert more.boot == told.boot
                assert all(line.number > after for line in more.lines)
                news += [line.text for line in more.lines]
                after = more.last
            with pytest.raises(NodeNotFound):
                client.log("node-7")


async def register(state: StateManager, *knows: str) -> None:
    capability = the_cpu().model_copy(update={"knows": knows})
    await state.register_node("node-1", boot="b", capability=capability, serves={"cpu": (LIGHT,)})


async def test_an_older_agent_and_one_of_another_scheduler_are_not_asked(state: StateManager):
    await Node(state).hello()
    logs = Logs(state.reader, order=lambda node, order: None, is_here=lambda node: False)
    with pytest.raises(NoLog, match="too old"):
        await logs.read(ReadLog(node="node-1"), b"")
    await state.leave_node("node-1", boot="boot-1")
    with pytest.raises(NoLog, match="it is offline"):
        await logs.read(ReadLog(node="node-1"), b"")
    await register(state, KNOWS_LOG)
    with pytest.raises(LogElsewhere, match="another scheduler"):
        await logs.read(ReadLog(node="node-1"), b"")


async def test_the_answer_goes_to_who_asked_and_who_does_not_answer_is_not_waited_for(state: StateManager, monkeypatch):
    await register(state, KNOWS_LOG)
    orders: asyncio.Queue[Order] = asyncio.Queue()
    logs = Logs(state.reader, order=lambda node, order: orders.put_nowait(order), is_here=lambda node: True)

    async def answer() -> None:
        wish = (await orders.get()).log
        assert wish is not None
        assert (wish.after, wish.limit, wish.task) == (7, 3, "t")
        line = LogLine(number=8, at_ms=1, source="agent", text="hello")
        await logs.logged(Logged(node_id="node-1", boot_id="b", wish="another", lines=(), last=99), b"")
        await logs.logged(Logged(node_id="node-1", boot_id="b", wish=wish.id, lines=(line,), first=2, last=8), b"")

    told, _ = await asyncio.gather(logs.read(ReadLog(node="node-1", after=7, limit=3, task="t"), b""), answer())
    assert (told.lines[0].text, told.first, told.last, told.boot) == ("hello", 2, 8, "b")
    monkeypatch.setattr("lcq.logs._ANSWER_S", 0.01)
    with pytest.raises(NoLog, match="has not answered"):
        await logs.read(ReadLog(node="node-1"), b"")

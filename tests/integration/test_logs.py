"""An agent's log, read through a scheduler by who cannot reach its host."""

from __future__ import annotations

import asyncio
import json
import signal

import httpx
import pytest

from lcq.errors import InvalidInput, LogElsewhere, NodeNotFound, NoLog, TaskNotFound
from lcq.health import KNOWS_LOG
from lcq.logs import Logs
from lcq.models import TaskStatus
from lcq.state.manager import StateManager
from lcq.wire import Logged, LogLine, Order, ReadLog
from tests.cluster import drill, free_port, running_cluster
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


def test_what_was_written_during_an_attempt_is_kept_by_its_node_also_of_one_that_crashed(redis_url, tmp_path):
    port = free_port()
    terms = {"LCQ_AGENT__TASK_LOGS__ATTEMPT_KIB": "16", "LCQ_LOG_FORMAT": "json"}
    terms |= {"LCQ_HTTP__ENABLED": "1", "LCQ_SCHEDULER_PORT": str(port)}
    with running_cluster(redis_url, tmp_path / "data", **terms) as cluster:
        cluster.start_scheduler()
        cluster.start_agent(slots=1)
        with cluster.client() as client:
            printed, much = drill("drill-print"), drill("drill-print", lines=2000)
            crashed = drill("drill-segfault", lines=1).model_copy(update={"max_retries": 0, "job": "night"})
            client.submit_many([printed, much, crashed])
            client.wait([printed.id, much.id, crashed.id])

            told = client.task_log(printed.id)
            assert (told.node, told.attempt, told.is_open) == ("node-1", 1, False)
            assert {(line.source, line.level) for line in told.lines} == {("cpu/0", "")}
            assert sorted(line.text for line in told.lines) == sorted(
                ["drill: no line break"]
                + [f"drill: line {n} {where}" for n in (1, 2, 3) for where in ("to stdout", "to stderr", "from C")]
            )

            died = [line.text for line in client.task_log(crashed.id, attempt=1).lines]
            assert died[:3] == ["drill: line 1 to stdout", "drill: line 1 to stderr", "drill: line 1 from C"]
            assert any("Segmentation fault" in text for text in died)
            assert any("in _print" in text or "in drill" in text for text in died)  # where it was
            assert "was killed by SIGSEGV" in died[-1]

            of_much = client.task_log(much.id, begin=0, limit=500)
            assert of_much.size > 10 * of_much.kept > 0
            assert of_much.kept <= 16 * 1024
            rest = client.task_log(much.id, begin=of_much.next)
            assert sum(line.cut for line in (*of_much.lines, *rest.lines)) == of_much.size - of_much.kept

            check_http(f"http://127.0.0.1:{port}/v1/tasks", crashed.id, died, much.id)
            quiet = drill()
            client.submit(quiet)
            client.wait([quiet.id])
            assert not client.task_log(quiet.id).is_there
            with pytest.raises(InvalidInput, match="has no attempt 7") as refusal:
                client.task_log(quiet.id, attempt=7)
            assert refusal.value.hint == "it has 1"
            with pytest.raises(TaskNotFound):
                client.task_log(drill().id)

            facts = [
                json.loads(line) for line in cluster.log_path("node-1").read_text().splitlines() if line[:1] == "{"
            ]
            (line,) = [one for one in facts if "SIGSEGV" in one["event"] and one.get("task") == crashed.id]
            assert (line["attempt"], line["job"], line["node"], line["cause"]) == (1, "night", "node-1", "runner_died")
            assert any(one["logger"] == "runner" and one["task"] == printed.id for one in facts)

            cluster.kill("node-1", signal.SIGTERM)
            with pytest.raises(
                NoLog, match="node-1 cannot be read now: it is offline; what attempt 1 wrote is still on"
            ):
                client.task_log(crashed.id)


def check_http(tasks: str, crashed: str, died: list[str], much: str) -> None:
    """The same over HTTP: as text, as JSON, as events, and followed to its end."""
    with httpx.Client(timeout=60) as http:
        for ask in ("", "?follow=1", "?attempt=1&begin=0"):
            text = http.get(f"{tasks}/{crashed[:-3]}/log{ask}")
            assert text.headers["content-type"].startswith("text/plain")
            lines = text.text.splitlines()
            assert [line.split(" ", 2)[2].removeprefix("WARNING ") for line in lines] == died
        assert "bytes were written here and not kept --" in http.get(f"{tasks}/{much}/log").text
        piece = http.get(f"{tasks}/{crashed}/log?begin=-1&limit=1", headers={"accept": "application/json"}).json()
        assert [line["text"] for line in piece["lines"]] == died[-1:]
        headers = {"accept": "text/event-stream"}
        events = http.get(f"{tasks}/{crashed}/log?follow=1", headers=headers).text.split("\n\n")[:-1]
        told = [json.loads(event.partition("data: ")[2]) for event in events]
        assert [(one["text"], one["node"]) for one in told] == [(text, "node-1") for text in died]
        again = {**headers, "last-event-id": events[1].partition("\n")[0].removeprefix("id: ")}
        rest = http.get(f"{tasks}/{crashed}/log?follow=1", headers=again).text.split("\n\n")[:-1]
        assert rest == events[2:]
        missing = http.get(f"{tasks}/{crashed}/log?attempt=5")
        assert (missing.status_code, missing.json()["code"]) == (400, "invalid_input")


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

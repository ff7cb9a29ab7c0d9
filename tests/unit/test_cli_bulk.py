"""The command line on logs, causes, and acts on all that a filter fits; the other side is a socket."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from typing import Any

import pytest

from lcq.background import BackgroundLoop
from lcq.errors import NoLog, UnknownCommand
from lcq.ids import new_id
from lcq.models import (
    Attempt,
    Cause,
    DeviceKind,
    ErrorClass,
    JobSummary,
    Note,
    Privacy,
    QueueConfig,
    QueueRecord,
    TaskStatus,
)
from lcq.wire import (
    BulkAnswer,
    DeadAnswer,
    Done,
    FindAnswer,
    GetTasksAnswer,
    HistoryAnswer,
    JobsAnswer,
    ListTasksAnswer,
    LogAnswer,
    LogLine,
    QueuesAnswer,
    TaskLogAnswer,
)
from tests.logs import logging_kept
from tests.peer import Peer, a_record, info
from tests.unit.test_cli import Answer

FAILED = TaskStatus.FAILED


@pytest.fixture
def peer() -> Iterator[Peer]:
    with logging_kept():
        held = BackgroundLoop.shared().hold(Peer(info=lambda ask: info("1-0")).listening())
        yield held.value
        held.release()


def lcq(peer: Peer, *arguments: str) -> Answer:
    return Answer("--scheduler", peer.endpoint, *arguments, columns=200)


# ---------------------------------------------------------------- logs


def a_line(number: int, text: str, *, attempt: int = 0) -> LogLine:
    source = "gpu-0" if attempt else "agent"
    return LogLine(number=number, at_ms=1000 * number, source=source, text=text, attempt=attempt)


def tell_of_two_attempts(peer: Peer) -> str:
    """A task that failed on n1, which is away now, and ran on n2, whose agent is started anew while it is followed."""
    record = a_record(new_id(), TaskStatus.PROCESSING).model_copy(update={"node": "n2", "attempt": 2})
    kept = "[red]out of memory\x1b[0m"
    attempts = (
        Attempt(number=1, node="n1", started_ms=1000, ended_ms=3500, outcome="failed", log=kept),
        Attempt(number=2, node="n2", started_ms=20_000),
    )
    boots = iter([("b1", 10), ("b1", 11), ("b2", 0), ("b2", 0), ("b2", 1)])

    def tell(ask: Any) -> LogAnswer | NoLog:
        if ask.node == "n1":
            return NoLog("n1", "it is offline")
        boot, last = next(boots, ("b2", 1))
        if ask.after < 0:
            lines = (a_line(last, f"begin of {boot}"), a_line(30, "tile 1", attempt=2))
        else:
            lines = (a_line(last, f"more of {boot}"),) if last > ask.after else ()
        return LogAnswer(node="n2", boot=boot, lines=lines, first=0, last=last)

    looks = iter([TaskStatus.PROCESSING, TaskStatus.PROCESSING, TaskStatus.COMPLETED])
    peer.handlers |= {
        "find": lambda ask: FindAnswer(id=record.id),
        "history": lambda ask: HistoryAnswer(record=record, attempts=attempts, events=(), explanation=""),
        "read_log": tell,
        "read_task_log": lambda ask: UnknownCommand("an older scheduler"),
        "get_tasks": lambda ask: GetTasksAnswer(tasks=(record.model_copy(update={"status": next(looks)}),)),
    }
    return record.id


def test_the_log_of_a_task_is_what_its_agents_tell_and_what_was_kept_of_its_failures(peer: Peer) -> None:
    task = tell_of_two_attempts(peer)
    answer = lcq(peer, "log", task[:6])
    assert answer.code == 0
    assert [line.split("  ", 1)[1] for line in answer.out.splitlines()] == [
        "n1  kept    [red]out of memory\\x1b[0m", "n2  agent   begin of b1", "n2  gpu-0   tile 1",
    ]  # fmt: skip
    assert "the log of n1 cannot be read now: it is offline" in answer.talk
    assert {ask.task for ask in peer.heard_of("read_log")} == {task}
    first = lcq(peer, "log", task[:6], "--attempt", "1", "--json").out.splitlines()
    assert [(json.loads(line)["node"], json.loads(line)["attempt"]) for line in first] == [("n1", 1)]
    lcq(peer, "log", task[:6], "--attempt", "3").refuses(2, "has no attempt 3", "it has 1, 2")
    lcq(peer, "log").refuses(2, "say of what", "lcq tasks and lcq nodes")


def test_a_log_is_followed_until_the_task_has_ended_also_through_a_restart_of_its_agent(
    peer: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lcq.cli.log._FOLLOW_S", 0.0)
    answer = lcq(peer, "log", tell_of_two_attempts(peer), "-f")
    texts = [line.rsplit("  ", 1)[1].strip() for line in answer.out.splitlines()]
    assert texts == ["[red]out of memory\\x1b[0m", "begin of b1", "tile 1", "more of b1", "begin of b2", "tile 1",
                     "more of b2"]  # fmt: skip
    assert "-- the agent of n2 was started anew --" in answer.talk
    assert answer.talk.count("it is offline") == 1, "said once"


def test_the_log_of_a_node_that_cannot_be_asked_is_an_error(peer: Peer) -> None:
    peer.handlers["read_log"] = lambda ask: NoLog(ask.node, "it is offline")
    answer = lcq(peer, "log", "--node", "n1")
    assert (answer.code, answer.out) == (2, "")
    assert "the log of n1 cannot be read now" in answer.talk


def keep_logs_of_two_attempts(peer: Peer) -> str:
    """A task whose first attempt wrote too much on n1 and failed, and whose second is kept by n2, and goes on."""
    task = tell_of_two_attempts(peer)
    second = ["begin", "more", "end"]

    def tell(ask: Any) -> TaskLogAnswer | NoLog:
        number = ask.attempt or 2
        answer = TaskLogAnswer(task=task, attempt=number, node=f"n{number}", next=90, size=90, kept=90)
        if number == 1:
            lines = (
                LogLine(number=0, at_ms=1000, source="cpu", text="first"),
                LogLine(number=80, at_ms=2000, source="agent", level="ERROR", text="[b]it died", cut=70),
            )
            return answer.model_copy(update={"lines": lines[-1:] if ask.begin < 0 else lines, "kept": 20})
        begin = max(ask.begin, 0)
        lines = tuple(LogLine(number=begin, at_ms=5000, source="cpu", text=text) for text in second[begin : begin + 1])
        is_open = begin + 1 < len(second)
        return answer.model_copy(
            update={
                "lines": lines,
                "next": begin + len(lines),
                "size": begin + 1,
                "kept": begin + 1,
                "is_open": is_open,
            }
        )

    looks = iter([TaskStatus.PROCESSING] * 2)
    record = a_record(task, TaskStatus.PROCESSING).model_copy(update={"node": "n2", "attempt": 2})
    peer.handlers |= {
        "read_task_log": tell,
        "get_tasks": lambda ask: GetTasksAnswer(
            tasks=(record.model_copy(update={"status": next(looks, TaskStatus.COMPLETED)}),)
        ),
    }
    return task


def test_what_nodes_have_kept_of_each_attempt_is_shown_and_what_they_have_not_is_said(peer: Peer) -> None:
    task = keep_logs_of_two_attempts(peer)
    answer = lcq(peer, "logs", task[:6])
    assert [line.split("  ", 1)[-1] for line in answer.out.splitlines()] == [
        "-- 70 bytes were written here and not kept (agent.task_logs.attempt_kib) --",
        "n1  agent   ERROR [b]it died", "n2  cpu     begin",
    ]  # fmt: skip
    assert "attempt 1 on n1: of 90 bytes 70 were not kept" in answer.talk
    assert "attempt 1 on n1: the newest lines; -n 0 shows all" in answer.talk
    assert not peer.heard_of("read_log")
    whole = lcq(peer, "log", task[:6], "-n", "0", "--attempt", "1", "--json").out.splitlines()
    assert [(json.loads(line)["text"], json.loads(line)["cut"]) for line in whole] == [("first", 0), ("[b]it died", 70)]


def test_what_nodes_keep_is_followed_until_the_task_has_ended(peer: Peer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lcq.cli.log._FOLLOW_S", 0.0)
    answer = lcq(peer, "logs", keep_logs_of_two_attempts(peer), "-f")
    assert [line.rsplit("  ", 1)[-1].strip() for line in answer.out.splitlines()][-3:] == ["begin", "more", "end"]


def test_a_node_that_is_gone_is_said_once_and_its_last_words_are_shown(peer: Peer) -> None:
    task = keep_logs_of_two_attempts(peer)
    tell = peer.handlers["read_task_log"]
    peer.handlers["read_task_log"] = lambda ask: NoLog("n1", "it is offline") if ask.attempt == 1 else tell(ask)
    answer = lcq(peer, "logs", task)
    assert [line.rsplit("  ", 1)[1].strip() for line in answer.out.splitlines()] == [
        "[red]out of memory\\x1b[0m",
        "begin",
    ]
    assert answer.talk.count("the log of n1 cannot be read now: it is offline") == 1


# ---------------------------------------------------------------- causes


def a_cause(text: str, known: Note | None = None) -> Cause:
    return Cause(
        error_class=ErrorClass.RESOURCE, code="out_of_memory", text=text, count=3, newest=new_id(), newest_ms=9000,
        oldest_ms=1000, nodes=("n1", "n2"), acknowledged=known,
    )  # fmt: skip


def test_causes_are_told_apart_by_what_is_asked_for_and_an_older_scheduler_is_named(peer: Peer) -> None:
    one = a_cause("x").model_copy(update={"of": {"size": ">16MP", "node": ""}, "trend": (0, 1, 4, 0)})
    peer.handlers["dead"] = lambda ask: DeadAnswer(causes=(one,) if ask.by else (a_cause("x"),), total=3, looked_at=3)
    shown = lcq(peer, "causes", "--by", "size, node")
    assert peer.heard_of("dead")[-1].by == ("size", "node")
    assert shown.out.splitlines()[0].split()[:4] == ["COUNT", "SIZE", "NODE", "CAUSE"]
    assert "NODES" not in shown.out
    assert all(told in shown.out for told in (">16MP", "?", " ▂█ ", "out_of_memory: x"))
    lcq(peer, "causes", "--by", "colour").refuses(2, "not grouped by 'colour'", "model, node, size")
    peer.handlers["dead"] = lambda ask: DeadAnswer(causes=(a_cause("x"),), total=3, looked_at=3)
    assert "this scheduler is an older one" in lcq(peer, "causes", "--by", "size").talk


def test_causes_are_listed_with_who_knows_of_them_and_acknowledged_by_what_tells_them_apart(peer: Peer) -> None:
    known = Note(at_ms=1, actor="ivo", text="on it")
    both = (a_cause("CUDA: tried to allocate <n> GiB"), a_cause("the host has no memory", known))
    peer.handlers["dead"] = lambda ask: DeadAnswer(causes=both, total=6, looked_at=6)
    peer.handlers["acknowledge"] = lambda ask: Done()
    assert "ivo: on it" in lcq(peer, "causes").out
    assert "ivo: on it" in lcq(peer, "dead").out
    assert lcq(peer, "causes", "--json").document["causes"][1]["acknowledged"]["actor"] == "ivo"
    answer = lcq(peer, "ack", "out_of_memory", "--text", "cuda", "rolling back")
    assert (answer.code, answer.out) == (0, "acknowledged: out_of_memory: CUDA: tried to allocate <n> GiB\n")
    assert lcq(peer, "ack", "out_of_memory", "--text", "host", "--withdraw").out.startswith("open again: ")
    assert [(ask.text, ask.reason, ask.withdraw) for ask in peer.heard_of("acknowledge")] == [
        (both[0].text, "rolling back", False), (both[1].text, "", True)
    ]  # fmt: skip
    lcq(peer, "ack", "out_of_memory", "x").refuses(2, "2 causes have the code", "--text WORDS")
    lcq(peer, "ack", "out_of_memory", "--text", "z").refuses(2, "no task has failed of", "lcq causes")
    lcq(peer, "ack", "c", "note", "--withdraw").refuses(2, "takes no note", "--withdraw")


# ---------------------------------------------------------------- deadlines


def test_a_deadline_is_typed_as_for_submit_and_none_takes_it_away(peer: Peer) -> None:
    one = a_record(new_id()).model_copy(update={"revision": 7})
    hold(peer, one)
    peer.handlers["find"] = lambda ask: FindAnswer(id=one.id)
    peer.handlers["jobs"] = lambda ask: JobsAnswer(jobs=(JobSummary(name='a|b "c"', submitted_ms=1, counts={}),))
    before = time.time()
    told = lcq(peer, "deadline", one.id[:6], "2h", "--reason", "they called")
    assert re.fullmatch(rf"to be done by \S+ \S+, in [12]h \d+m: {one.id}\n", told.out)
    assert lcq(peer, "deadline", "--job", 'a|b "c"', "none").code == 0
    assert lcq(peer, "deadline", "--where", "late:yes", "2999-01-01").code == 0
    first, of_job, of_filter = peer.heard_of("set_deadline")
    assert (first.ids, first.revisions, first.reason) == ((one.id,), (), "they called")
    assert first.done_by_ms is not None
    assert 0 <= first.done_by_ms / 1000 - before - 7200 < 600
    assert (of_job.done_by_ms, of_job.revisions) == (None, (7,))
    assert of_filter.done_by_ms is not None
    asked = [(ask.job, ask.where) for ask in peer.heard_of("list_tasks")]
    assert asked == [('a|b "c"', ""), ("", "late:yes")], "a job by its whole name, as it is, not by a filter"


def test_a_deadline_that_is_none_is_refused_before_anybody_is_asked(peer: Peer) -> None:
    lcq(peer, "deadline", "17:30").refuses(2, "say of which tasks, and then when", "lcq deadline TASK 17:30")
    lcq(peer, "deadline", "x", "--job", "j", "17:30").refuses(2, "by their ids, --job or --where", "lcq tasks")
    lcq(peer, "deadline", "06ft3k", "soon").refuses(2, "'soon' is no moment", "17:30")
    lcq(peer, "deadline", "06ft3k", "2020-01-01").refuses(2, "'2020-01-01' is over", "a moment to come")
    assert peer.heard_of("set_deadline") == []


# ---------------------------------------------------------------- privacy


def test_what_may_leave_the_house_is_asked_about_first_and_what_may_not_any_more_is_not(
    peer: Peer,
) -> None:
    one, other = (a_record(new_id()).model_copy(update={"revision": 7}) for _ in range(2))
    hold(peer, one, other)
    peer.handlers["find"] = lambda ask: FindAnswer(id=one.id)
    peer.handlers["get_tasks"] = lambda ask: GetTasksAnswer(tasks=(one,))
    peer.handlers["jobs"] = lambda ask: JobsAnswer(jobs=(JobSummary(name="holiday", submitted_ms=1, counts={}),))
    peer.handlers["queues"] = lambda ask: QueuesAnswer(queues=())
    for which in ((one.id[:6],), ("--job", "holiday")):
        many = 1 if which == (one.id[:6],) else 2
        told = rf"nothing was done: pictures might leave the house then.* \(of tasks: {many} queued\)"
        lcq(peer, "privacy", *which, "exportable").refuses(2, told, "--yes does it")
    assert peer.heard_of("set_privacy") == []
    told = lcq(peer, "privacy", "--job", "holiday", "exportable", "--dry-run")
    assert "it would fall on 2 tasks: 2 queued" in told.talk
    assert peer.heard_of("set_privacy") == []
    told = lcq(peer, "privacy", "--job", "holiday", "exportable", "--yes", "--reason", "they may")
    assert told.out == f"may leave the house: {one.id} {other.id}\n"
    assert lcq(peer, "privacy", one.id, "PRIVATE").code == 0
    out, back = peer.heard_of("set_privacy")
    assert (out.ids, out.revisions, out.privacy, out.reason) == ((one.id, other.id), (7, 7), "exportable", "they may")
    assert (back.ids, back.revisions, back.privacy) == ((one.id,), (), "private")


def test_a_terminal_is_asked_and_only_yes_lets_out(peer: Peer, monkeypatch: pytest.MonkeyPatch) -> None:
    one = a_record(new_id())
    free = one.model_copy(update={"task": one.task.model_copy(update={"privacy": Privacy.EXPORTABLE})})
    hold(peer, one)
    peer.handlers["find"] = lambda ask: FindAnswer(id=one.id)
    records = [one]
    peer.handlers["get_tasks"] = lambda ask: GetTasksAnswer(tasks=tuple(records))
    monkeypatch.setattr("lcq.cli.privacy._is_terminal", lambda: True)
    asked: list[str] = []
    for says in (False, True):
        monkeypatch.setattr("typer.confirm", lambda text, says=says, **_: asked.append(text) or says)
        told = lcq(peer, "privacy", one.id, "exportable")
        assert (told.code, len(peer.heard_of("set_privacy"))) == ((0, 1) if says else (2, 0))
    assert asked == ["Pictures may leave the house then, to functions of others (of tasks: 1 queued). Do it?"] * 2
    records[:] = [free]
    assert lcq(peer, "privacy", one.id, "exportable").code == 0
    assert len(asked) == 2, "it might leave already"


def test_of_what_a_function_works_on_it_is_said_that_this_goes_on(peer: Peer) -> None:
    one = a_record(new_id(), TaskStatus.PROCESSING).model_copy(update={"queue": "serverless"})
    hold(peer, one)
    peer.handlers["find"] = lambda ask: FindAnswer(id=one.id)
    peer.handlers["get_tasks"] = lambda ask: GetTasksAnswer(tasks=(one,))
    kinds = {"serverless": DeviceKind.SERVERLESS, "cpu-light": DeviceKind.CPU}
    queues = tuple(QueueRecord(config=QueueConfig(name=name, kind=kind)) for name, kind in kinds.items())
    peer.handlers["queues"] = lambda ask: QueuesAnswer(queues=queues)
    told = lcq(peer, "privacy", one.id, "private")
    assert (told.code, told.out) == (0, f"stays in the house: {one.id}\n")
    assert f"another attempt would be made in the house: {one.id}" in told.talk


def test_a_privacy_that_is_none_is_refused_before_anybody_is_asked(peer: Peer) -> None:
    lcq(peer, "privacy", "x", "public").refuses(2, "'public' is neither of private, exportable", "lcq privacy TASK")
    lcq(peer, "privacy", "private").refuses(2, "say of which tasks", "lcq privacy TASK private")
    lcq(peer, "privacy", "x", "--job", "j", "private").refuses(2, "by their ids, --job or --where", "lcq tasks")


# ---------------------------------------------------------------- all that a filter fits


def hold(peer: Peer, *records: Any) -> None:
    peer.handlers["list_tasks"] = lambda ask: ListTasksAnswer(tasks=records, total=9, looked_at=9)
    for act in ("cancel", "retry", "reroute", "prioritise", "comment", "set_deadline", "set_privacy"):
        peer.handlers[act] = lambda ask: BulkAnswer(done=ask.ids, revisions=(2,) * len(ask.ids))


@pytest.mark.parametrize(
    ("typed", "falls_on"),
    [
        (("cancel",), TaskStatus.QUEUED),
        (("retry",), FAILED),
        (("reroute", "--queue", "gpu-low"), FAILED),
        (("prioritise", "--priority", "low"), TaskStatus.QUEUED),
    ],
)
def test_an_act_falls_on_all_that_a_filter_fits_as_they_were_found(
    peer: Peer, typed: tuple[str, ...], falls_on: TaskStatus
) -> None:
    done = a_record(new_id(), TaskStatus.COMPLETED)
    one = a_record(new_id(), falls_on).model_copy(update={"revision": 7})
    hold(peer, done, one) if typed[0] != "retry" else hold(peer, a_record(new_id()), one)
    would = lcq(peer, *typed, "--where", "node~gpu-0", "--dry-run", "--json").document
    assert would["would"] == [one.id]
    assert sum(would["left_alone"].values()) == 1
    assert peer.heard_of(typed[0]) == []
    answer = lcq(peer, *typed, "--where", "node~gpu-0", "--reason", "r")
    assert answer.code == 0
    assert "left alone: 1 " in answer.talk
    (sent,) = peer.heard_of(typed[0])
    assert (sent.ids, sent.revisions, sent.reason) == ((one.id,), (7,), "r")
    assert {ask.where for ask in peer.heard_of("list_tasks")} == {"node~gpu-0"}


def test_what_falls_on_many_wants_a_yes_and_a_dry_run_tells_of_them(peer: Peer) -> None:
    many = [a_record(new_id(), FAILED) for _ in range(11)]
    hold(peer, *many)
    lcq(peer, "retry", "--where", "state:failed").refuses(2, r"11 tasks fit \(11 failed\), and nothing was", "--yes")
    told = lcq(peer, "retry", "--where", "state:failed", "--dry-run")
    assert (told.code, told.out.count("failed")) == (0, 11)
    assert "it would fall on 11 tasks: 11 failed" in told.talk
    assert peer.heard_of("retry") == []
    assert lcq(peer, "retry", "--where", "state:failed", "--yes").code == 0
    assert peer.heard_of("retry")[0].ids == tuple(one.id for one in many)
    lcq(peer, "retry", "--where", "x", "--failed").refuses(2, "say which tasks", "job=NAME")
    lcq(peer, "cancel", "0", "--where", "x").refuses(2, "say which tasks", "lcq tasks")
    assert "the filter 'age<soon' cannot be read" in lcq(peer, "cancel", "--where", "age<soon").talk


def test_a_note_is_left_with_several_tasks_or_all_that_a_filter_fits(peer: Peer) -> None:
    records = [a_record(new_id(), FAILED) for _ in range(2)]
    hold(peer, *records)
    ids = tuple(one.id for one in records)
    assert lcq(peer, "comment", *ids, "off by [one]").code == 0
    assert lcq(peer, "comment", "--where", "state:failed", "off by two").code == 0
    assert [(ask.ids, ask.text) for ask in peer.heard_of("comment")] == [(ids, "off by [one]"), (ids, "off by two")]
    lcq(peer, "comment", "only words").refuses(2, "with which task", "lcq comment TASK")

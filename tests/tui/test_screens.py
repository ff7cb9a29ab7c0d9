"""The screens as an operator uses them: keys in, commands out, and nothing that looks live when it is not."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from textual import events
from textual.widgets import Button, Input, OptionList

from lcq.errors import SchedulerUnreachable
from lcq.models import ActRecord, Attempt, Eta, JobSummary, NodeStatus, Privacy, TaskPriority, TaskRecord, TaskStatus
from lcq.reasons import WhyCode, because
from tests.conftest import wait_until
from tests.tui.fakes import REDIS_AWAY, FakeCluster, a_failure, a_node, a_task, many_tasks, now_ms
from tui.screens.detail import TaskScreen
from tui.screens.dialogs import Chooser, Help, Question
from tui.screens.forms import DeadlineQuestion
from tui.screens.nodes import NodesScreen
from tui.screens.queues import QueuesScreen
from tui.screens.submit import SubmitForm
from tui.screens.tasks import TasksScreen
from tui.widgets.frame import Banner, OneLine

EVIL = "a [/foo] [red]b\x1b]0;owned\x07\x1b[2J\u202e\x9b"


def three() -> FakeCluster:
    """Three tasks, the third the newest."""
    start = now_ms() - 60_000
    return FakeCluster(
        [a_task(f"/photos/{number}.jpg", submitted_ms=start + number * 1000) for number in (1, 2, 3)], [a_node()]
    )


def ids_of(cluster: FakeCluster) -> list[str]:
    """The ids, newest first, as the table has them."""
    return sorted(cluster.records, key=lambda task_id: cluster.records[task_id].submitted_ms, reverse=True)


# ---------------------------------------------------------------- looking


async def test_what_happens_shows_by_itself(open_console):
    cluster = three()
    async with open_console(cluster) as console:
        record = cluster.add(a_task("/photos/brand-new.jpg"))
        await console.settle()
        assert "brand-new.jpg" in console.text()
        cluster.change(record.id, "claim_tasks", status=TaskStatus.PROCESSING, node="gpu-1", attempt=1)
        await console.settle()
        assert "> PROCESSING" in console.text()
        assert "processing 1" in console.text()


async def test_progress_of_running_tasks_is_polled(open_console):
    task = a_task(status=TaskStatus.PROCESSING, node="gpu-1")
    cluster = FakeCluster([task])
    async with open_console(cluster) as console:
        cluster.records[task.id] = task.model_copy(update={"progress": 0.42, "stage": "tile 11 of 26"})
        await wait_until(lambda: "42%" in console.text() and "tile 11 of 26" in console.text())


async def test_the_details_of_a_failed_task_tell_why_and_where(open_console):
    task = a_task(
        status=TaskStatus.FAILED, failure=a_failure("tried 9.2 GiB\nsecond line"), node="gpu-1", attempt=1,
        finished_ms=now_ms(),
    )  # fmt: skip
    cluster = FakeCluster([task])
    cluster.history[task.id] = [
        Attempt(
            number=1, node="gpu-1", started_ms=now_ms() - 5000, ended_ms=now_ms(), outcome="failed",
            failure=task.failure, log="\n".join(f"[b]line {n}\x1b[2J" for n in range(30)),
        )
    ]  # fmt: skip
    async with open_console(cluster) as console:
        await console.press("d")
        await wait_until(lambda: "Attempts (1)" in console.text())
        sections = {name: str(console.app.screen._sections[name].content) for name in ("log", "raw")}
        assert "#1 gpu-1" in sections["log"]
        assert "10 lines before" in sections["log"]
        assert "[b]line 29" in sections["log"]
        assert "\x1b" not in sections["log"]
        assert json.loads(sections["raw"].partition("Raw\n")[2])["task"]["id"] == task.id
        text = console.text()
        assert "Error: resource, out_of_memory" in text
        assert "second line" in text
        assert task.id in text
        await console.press("escape")
        assert isinstance(console.app.screen, TasksScreen)


async def test_the_details_of_a_waiting_task_say_what_the_scheduler_says_and_follow_it(open_console):
    task = a_task(queue="gpu-high")
    cluster = FakeCluster([task])
    cluster.reasons[task.id] = because(
        WhyCode.QUEUE_PAUSED, "queue gpu-high is paused by ivo", queue="gpu-high", by="ivo", reason="", since_ms=None
    )
    async with open_console(cluster) as console:
        await console.press("d")
        await wait_until(lambda: "queue gpu-high is paused by ivo" in console.text())
        assert "lcq resume gpu-high" in console.text()
        cluster.reasons[task.id] = because(WhyCode.NO_NODE, "no node is online", known=0)
        await wait_until(lambda: "no node is online" in console.text(), what="it is asked again")
        assert "paused by ivo" not in console.text()
        cluster.reasons[task.id] = because(WhyCode.OTHER, "said " * 40 + "at length")
        await wait_until(lambda: "at length" in console.text())
        lines = console.text().splitlines()
        margins = [
            len(line) - len(line.lstrip())
            for line in lines
            if "Why it is here" in line or line.strip().startswith("said")
        ]
        assert len(margins) > 2
        assert set(margins[1:]) == {margins[0] + 1}, "no line of it begins where a heading would"


async def test_the_list_says_of_what_waits_why_as_the_scheduler_sees_it_and_never_what_it_said_of_another_state(
    open_console,
):
    waits, runs = a_task(why="gpu-high: the least that has it"), a_task(status=TaskStatus.PROCESSING, stage="tile 3")
    cluster = FakeCluster([waits, runs])
    cluster.reasons[waits.id] = because(WhyCode.NO_NODE, "no node is online", known=0)
    async with open_console(cluster) as console:
        await wait_until(lambda: "no node is online" in console.text())
        assert "the least that has it" not in console.text()
        assert {task_id for asked in cluster.asked for task_id in asked} == {waits.id}, "not of what does not wait"
        cluster.reasons[waits.id] = because(WhyCode.OTHER, "[b]another one[/x]")
        await wait_until(lambda: "[b]another one[/x]" in console.text(), what="it is asked again while it waits")
        cluster.reasons.clear()
        cluster.change(waits.id, "prioritise_task", priority=TaskPriority.HIGH, why="by maria")
        await wait_until(lambda: "by maria" in console.text(), what="the reason was of what it was before")
        assert "another one" not in console.text()


async def test_where_no_scheduler_tells_reasons_the_list_goes_back_to_what_the_records_say(open_console):
    task = a_task(why="gpu-high: the least that has it")
    cluster = FakeCluster([task])
    cluster.reasons[task.id] = because(WhyCode.NO_NODE, "no node is online", known=0)
    async with open_console(cluster) as console:
        await wait_until(lambda: "no node is online" in console.text())
        cluster.whys_trouble = REDIS_AWAY
        await wait_until(lambda: "the least that has it" in console.text(), what="it is not shown when it is old")
        await wait_until(lambda: "LIVE" in console.text(), what="the feed, which does not wait for it")


async def test_the_details_of_a_task_tell_how_its_job_is(open_console):
    task = a_task(task_job="holiday")
    cluster = FakeCluster([task])
    job = JobSummary(
        name="holiday", submitted_ms=1, eta=Eta(p50_s=200, p90_s=300),
        counts={TaskStatus.COMPLETED: 38, TaskStatus.FAILED: 2, TaskStatus.PROCESSING: 4, TaskStatus.QUEUED: 56},
    )  # fmt: skip
    cluster.job_summaries["holiday"] = job
    async with open_console(cluster) as console:
        await console.press("d")
        await wait_until(lambda: "Job holiday" in console.text())
        assert "40%: 38 of 100 done, 2 failed, 4 processing, 60 left" in console.text()
        assert "3m20s (P50), 5m00s (P90)" in console.text()
        paused = {"paused": "by ann: [b]lunch", "eta": Eta(why="paused by ann")}
        cluster.job_summaries["holiday"] = job.model_copy(update=paused)
        await wait_until(lambda: "PAUSED by ann: [b]lunch" in console.text(), what="it is asked again")
        assert "P50" not in console.text()


async def test_braces_walk_through_the_list_from_the_details(open_console):
    cluster = three()
    first, second, _ = ids_of(cluster)
    async with open_console(cluster) as console:
        await console.press("d", "right_curly_bracket")
        assert isinstance(console.app.screen, TaskScreen)
        assert console.app.screen.task_id == second
        await console.press("left_curly_bracket", "left_curly_bracket")
        assert console.app.screen.task_id == first


async def test_enter_on_a_queue_shows_its_tasks(open_console):
    cluster = FakeCluster([a_task(queue="gpu-high"), a_task(queue="cpu-light")])
    async with open_console(cluster) as console:
        await console.press("3", "enter")
        await wait_until(lambda: isinstance(console.app.screen, TasksScreen) and len(console.desk.tasks) == 1)
        assert console.desk.tasks.filter.text == "queue:gpu-high"


async def test_a_click_on_a_count_filters_by_it_and_a_click_on_a_tab_goes_there(open_console):
    cluster = FakeCluster([a_task(), a_task(status=TaskStatus.FAILED)])
    async with open_console(cluster) as console:
        line = console.app.screen.query_one("#counts", OneLine)
        await console.pilot.click(line, offset=(line.text.index("failed"), 0))
        await wait_until(lambda: len(console.desk.tasks) == 1)
        title = console.app.screen.query_one("#title", OneLine)
        await console.pilot.click(title, offset=(title.text.index("Queues"), 0))
        await console.opens(QueuesScreen)


async def test_help_has_every_key_of_the_screen_and_closes(open_console):
    """What goes on in a second line does so below what it tells, where no key stands."""
    async with open_console(three(), size=(80, 24)) as console:
        await console.press("question_mark")
        await console.opens(Help)

        def goes_on() -> bool:
            """The line of what one may type for this key is too long for 80 columns."""
            lines = console.lines()
            (place,) = (at for at, line in enumerate(lines) if "Move to another queue or node" in line)
            return lines[place + 1].find("[--reason TEXT]") == lines[place].index("Move to")

        await wait_until(goes_on, what="the second line below the first")
        await console.press("G")
        await wait_until(lambda: "All commands by name" in console.text(), what="the last of the keys")
        assert "esc closes" in console.text()
        await console.press("escape")
        assert isinstance(console.app.screen, TasksScreen)


async def test_quitting_asks_and_no_is_the_first_answer(open_console):
    async with open_console(three()) as console:
        await console.press("q")
        await console.opens(Question)
        assert console.app.focused is not None
        assert console.app.focused.id == "no"
        await console.press("enter")
        assert isinstance(console.app.screen, TasksScreen)
        await console.press("q")
        await console.opens(Question)
        await console.press("y")
        await wait_until(lambda: console.app.return_value == 0)


# ---------------------------------------------------------------- filter


async def test_typing_a_filter_triggers_no_act(open_console):
    cluster = three()
    async with open_console(cluster) as console:
        await console.press("slash", *"rmpqXDA2", "plus", "question_mark", "ctrl+d", "ctrl+k", "ctrl+a")
        field = console.app.screen.query_one("#filter", Input)
        assert field.value == "rmpqXDA2+?"
        await console.press("ctrl+e", "ctrl+u")
        assert field.value == ""
        assert isinstance(console.app.screen, TasksScreen)
        assert cluster.calls == []


async def test_escape_pressed_twice_in_a_detail_leaves_that_and_never_the_console(open_console):
    async with open_console(FakeCluster([a_task()])) as console:
        await console.press("slash", *"cover", "enter", "d")
        detail = console.app.screen
        assert isinstance(detail, TaskScreen)
        detail.action_back()
        detail.action_back()  # before the first has been heard
        await console.opens(TasksScreen)
        await console.pilot.pause()
        assert isinstance(console.app.screen, TasksScreen)
        assert console.desk.tasks.filter.text == "cover"


async def test_a_filter_narrows_and_escape_takes_it_back_step_by_step(open_console):
    cluster = three()
    async with open_console(cluster) as console:
        await console.press("slash", *"2.jpg", "enter")
        assert len(console.desk.tasks) == 1
        await console.press("space")
        assert console.desk.tasks.marks
        await console.press("escape")
        assert not console.desk.tasks.marks
        assert len(console.desk.tasks) == 1
        await console.press("escape")
        assert len(console.desk.tasks) == 3


async def test_pasted_lines_confirm_nothing_and_bring_no_escape_codes(open_console):
    async with open_console(three()) as console:
        await console.press("3", "p")
        await console.opens(Question)
        console.app.screen.query_one("#reason", Input).post_message(events.Paste("one\n\x1b[31mtwo\ny\n"))
        await console.pilot.pause()
        assert isinstance(console.app.screen, Question)
        assert console.app.screen.query_one("#reason", Input).value == "one ␛[31mtwo y"
        assert console.cluster.calls == []


# ---------------------------------------------------------------- acts


async def test_an_act_goes_to_the_ids_shown_even_after_the_list_has_shifted(open_console):
    cluster = three()
    _, second, _ = ids_of(cluster)
    async with open_console(cluster) as console:
        await console.press("j", "X")
        await console.opens(Question)
        assert second in console.text()
        for number in range(5):
            cluster.add(a_task(f"/photos/later-{number}.jpg"))
        cluster.forget(ids_of(cluster)[-1])
        await console.settle()
        await console.press("y")
        await wait_until(lambda: cluster.calls)
        assert cluster.calls == [("cancel", (second,))]
        await console.settle()
        assert console.desk.store.tasks.rows[second].status is TaskStatus.CANCELLED
        assert f"cancelled {second}" in console.text()


async def test_cancelling_starts_at_no(open_console):
    cluster = three()
    async with open_console(cluster) as console:
        await console.press("j", "X")
        await console.opens(Question)
        assert isinstance(console.app.focused, Button)
        await console.press("enter")
        await console.opens(TasksScreen)
        assert cluster.calls == []


async def test_a_few_retries_go_at_once_and_what_was_refused_stays_marked(open_console):
    start = now_ms() - 9000
    failed = [a_task(f"/p/{n}.jpg", status=TaskStatus.FAILED, submitted_ms=start + n) for n in range(3)]
    cluster = FakeCluster(failed)
    async with open_console(cluster) as console:
        await console.press("g", "space", "space")
        chosen = [row.id for row in console.desk.tasks.targets()]
        cluster.records[chosen[1]] = cluster.records[chosen[1]].model_copy(update={"revision": 9})
        await console.press("r")
        await wait_until(lambda: cluster.calls)
        await console.settle()
        assert cluster.calls == [("retry", tuple(chosen))]
        assert console.desk.tasks.marks == {chosen[1]}
        assert "refused" in console.text()


async def test_an_act_on_many_asks_first(open_console):
    failed = [a_task(f"/p/{n}.jpg", status=TaskStatus.FAILED) for n in range(12)]
    cluster = FakeCluster(failed)
    async with open_console(cluster) as console:
        console.desk.tasks.marks.update(cluster.records)
        await console.press("g", "r")
        await console.opens(Question)
        assert "12 failed" in console.text()
        assert cluster.calls == []


async def test_while_following_every_act_asks_because_the_cursor_moves_by_itself(open_console):
    cluster = FakeCluster([a_task(status=TaskStatus.FAILED)])
    async with open_console(cluster) as console:
        assert console.desk.tasks.follow
        await console.press("r")
        await console.opens(Question)


async def test_an_act_that_cannot_be_is_said_and_not_sent(open_console):
    cluster = FakeCluster([a_task(status=TaskStatus.COMPLETED)])
    async with open_console(cluster) as console:
        await console.press("j", "X")
        await wait_until(lambda: "cannot be cancelled: 1 completed" in console.text())
        assert isinstance(console.app.screen, TasksScreen)
        assert cluster.calls == []


async def test_priority_goes_up_and_down_by_one_from_what_was_shown(open_console):
    cluster = three()
    first = ids_of(cluster)[0]
    async with open_console(cluster) as console:
        await console.press("g", "plus")
        await wait_until(lambda: cluster.calls)
        await console.settle()
        await console.press("minus")
        await wait_until(lambda: len(cluster.calls) == 2)
        assert cluster.calls == [
            ("prioritise", ((first,), TaskPriority.HIGH)), ("prioritise", ((first,), TaskPriority.NORMAL)),
        ]  # fmt: skip


async def test_capital_t_asks_by_when_a_task_is_to_be_done_and_the_list_shows_it_at_once(open_console):
    cluster = three()
    first = ids_of(cluster)[0]
    async with open_console(cluster) as console:
        await console.press("g", "T")
        await console.opens(DeadlineQuestion)
        field = console.app.screen.query_one("#deadline", Input)
        assert field.has_focus
        field.value = "[soon]"
        await console.press("enter")
        await wait_until(lambda: "not done: '[soon]' is no moment (such as 17:30" in console.text())
        assert cluster.calls == []
        field.value = "2h"
        await console.press("enter")
        await wait_until(lambda: [name for name, _ in cluster.calls] == ["set_deadline"])
        (ids, deadline) = cluster.calls[0][1]
        assert (ids, 7000 < deadline.timestamp() - time.time() <= 7200) == ((first,), True)
        due_ms = cluster.records[first].task.deadline_ms
        await wait_until(lambda: console.desk.store.tasks.rows[first].done_by_ms == due_ms)
        cluster.change(first, "set_deadline", extra={"done_by_ms": ""})
        await wait_until(lambda: console.desk.store.tasks.rows[first].done_by_ms is None)


async def test_capital_l_lets_tasks_leave_the_house_once_it_was_agreed_and_keeps_them_there(open_console):
    cluster = FakeCluster([a_task(status=TaskStatus.PROCESSING, queue="serverless"), a_task(), a_task()])
    ids = ids_of(cluster)
    async with open_console(cluster) as console:

        async def choose(privacy: Privacy) -> None:
            await console.press("asterisk", "L")
            await console.opens(Chooser)
            await console.press(*(("down",) if privacy is Privacy.PRIVATE else ()), "enter")
            await console.opens(Question)

        await choose(Privacy.EXPORTABLE)
        assert "Let 3 tasks leave the house" in console.text()
        assert "functions of others get their pictures" in console.text()
        await console.press("enter")  # it begins at No
        await console.opens(TasksScreen)
        assert cluster.calls == []
        await console.press("escape")
        await choose(Privacy.EXPORTABLE)
        await console.press("y")
        await wait_until(lambda: cluster.calls)
        (name, (meant, privacy)) = cluster.calls[0]
        assert (name, set(meant), privacy) == ("set_privacy", set(ids), Privacy.EXPORTABLE)
        await wait_until(lambda: "may leave the house: 3 tasks" in console.text())
        await console.press("escape")
        await choose(Privacy.PRIVATE)
        assert "1 with a function now, which finishes that" in console.text()
        await console.press("y")
        await wait_until(lambda: len(cluster.calls) == 2)
        assert {record.task.privacy for record in cluster.records.values()} == {Privacy.PRIVATE}


async def test_u_takes_the_last_act_back_once_and_says_for_how_long_it_can(open_console, monkeypatch):
    monkeypatch.setattr("tui.desk.UNDO_S", 600)
    cluster = three()
    first = ids_of(cluster)[0]
    async with open_console(cluster) as console:
        await console.press("g", "u")
        await wait_until(lambda: "nothing of yours can be taken back" in console.text())
        await console.press("plus")
        await wait_until(lambda: "u takes it back" in console.text())
        await console.press("u")
        await wait_until(lambda: cluster.calls[1:] == [("undo", f"act of {first}")])
        await wait_until(lambda: f"taken back: {first}" in console.text())
        assert "u takes it back" not in console.text()
        await console.press("u")
        await console.settle()
        assert len(cluster.calls) == 2


async def test_an_act_that_is_refused_leaves_the_last_one_to_be_taken_back(open_console, monkeypatch):
    monkeypatch.setattr("tui.desk.UNDO_S", 600)
    cluster = three()
    first = ids_of(cluster)[0]
    async with open_console(cluster) as console:
        await console.press("g", "plus")
        await wait_until(lambda: "u takes it back" in console.text())
        cluster.records[first] = cluster.records[first].model_copy(update={"revision": 99})  # somebody was quicker
        await console.press("plus")
        await wait_until(lambda: f"refused {first}" in console.text())
        assert "u takes it back" in console.text()
        await console.press("u")
        await wait_until(lambda: cluster.calls[2:] == [("undo", f"act of {first}")])


async def test_a_pause_is_taken_back_from_any_screen(open_console, monkeypatch):
    monkeypatch.setattr("tui.desk.UNDO_S", 600)
    cluster = three()
    async with open_console(cluster) as console:
        await console.press("3", "p")
        await console.opens(Question)
        await console.press(*"driver", "enter")
        await wait_until(lambda: "u takes it back" in console.text())
        await console.press("2", "u")
        await wait_until(lambda: cluster.calls[1:] == [("undo", "act of queue gpu-high")])


# ---------------------------------------------------------------- causes and activity


def failed(image: str, message: str, **more: object) -> TaskRecord:
    return a_task(image, status=TaskStatus.FAILED, failure=a_failure(message), node="gpu-1", **more)


async def test_failures_of_one_cause_are_one_line_and_are_retried_together(open_console):
    cluster = FakeCluster(
        [failed(f"/p/{n}.jpg", f"/p/{n}.jpg: tried to allocate {n} GiB") for n in (1, 2, 3)]
        + [failed("/p/9.jpg", "[red]device lost")], [a_node()],
    )  # fmt: skip
    async with open_console(cluster) as console:
        await console.press("5")
        await wait_until(lambda: "<path>: tried to allocate <n> GiB" in console.text())
        assert "2 causes   4 failed tasks" in console.text()
        assert "[red]device lost" in console.text()
        await console.press("g", "r")
        await console.opens(Question)
        assert "Retry 3 tasks?" in console.text()
        await console.press("y")
        wanted = tuple(sorted(one.id for one in cluster.records.values() if "9.jpg" not in one.task.image_path))
        await wait_until(lambda: [(name, tuple(sorted(ids))) for name, ids in cluster.calls] == [("retry", wanted)])


async def test_enter_on_a_cause_shows_its_tasks(open_console):
    cluster = FakeCluster([failed("/p/1.jpg", "out of memory"), a_task("/p/2.jpg")], [a_node()])
    async with open_console(cluster) as console:
        await console.press("5")
        await wait_until(lambda: "1 cause   1 failed task" in console.text())
        await console.press("g", "enter")
        await console.opens(TasksScreen)
        await wait_until(lambda: console.desk.tasks.filter.text == "state:failed cause=out_of_memory")
        assert len(console.desk.tasks) == 1


async def test_a_group_of_failures_is_moved_to_the_place_chosen(open_console):
    cluster = FakeCluster([failed(f"/p/{n}.jpg", "out of memory") for n in (1, 2)], [a_node()])
    async with open_console(cluster) as console:
        await console.press("5")
        await wait_until(lambda: "2 failed tasks" in console.text())
        await console.press("g", "m")
        await console.opens(Chooser)
        await console.press("enter")
        await console.opens(Question)
        await console.press("y")
        await wait_until(lambda: [(name, *more[1:]) for name, more in cluster.calls] == [("reroute", "gpu-high", "")])


def an_act(number: int, **more: object) -> ActRecord:
    values = {"id": f"{number}-0", "at_ms": now_ms() - 5000, "act": "reroute", "actor": "ivo", "command": f"c{number}"}
    return ActRecord.model_validate(values | more)


async def test_the_activity_says_who_did_what_and_takes_back_what_still_can_be(open_console):
    cluster = three()
    first = ids_of(cluster)[0]
    cluster.audit = [
        an_act(2, undo_ms=600_000, on=f"ids={first} queue=gpu-high", reason="too [big]", outcome="1 done"),
        an_act(1, act="drain", on="node=gpu-1", at_ms=now_ms() - 60_000),
    ]
    async with open_console(cluster) as console:
        await console.press("6")
        await wait_until(lambda: "too [big]" in console.text())
        await console.press("j", "r")
        await wait_until(lambda: "drain by ivo cannot be taken back any more" in console.text())
        await console.press("g", "r")
        await console.opens(Question)
        assert "Take back: reroute by ivo?" in console.text()
        await console.press("y")
        await wait_until(lambda: cluster.calls == [("undo", "c2")])
        await console.press("g", "enter")
        await console.opens(TasksScreen)
        await wait_until(lambda: console.desk.tasks.filter.text == f"id:{first}")
        await console.press("6", "j", "enter")
        await console.opens(NodesScreen)
        await wait_until(lambda: console.desk.nodes.cursor_id == "gpu-1")


async def test_a_task_is_moved_to_the_place_chosen(open_console):
    cluster = three()
    second = ids_of(cluster)[1]
    async with open_console(cluster) as console:
        await console.press("j", "m")
        await console.opens(Chooser)
        names = [console.app.screen._choices[index].value for index in range(7)]
        console.app.screen.query_one(OptionList).highlighted = names.index(("node", "gpu-1"))
        await console.press("enter")
        await wait_until(lambda: cluster.calls)
        assert cluster.calls == [("reroute", ((second,), "", "gpu-1"))]


async def test_pausing_a_queue_asks_a_reason_and_resuming_does_not(open_console):
    cluster = three()
    async with open_console(cluster) as console:
        await console.press("3", "p")
        await console.opens(Question)
        await console.press(*"driver", "enter")
        await wait_until(lambda: cluster.calls == [("pause", ("gpu-high", "driver"))])
        await wait_until(lambda: console.desk.store.queues.rows["gpu-high"].paused)
        await console.press("p")
        await wait_until(lambda: cluster.calls[1:] == [("resume", "gpu-high")])


async def test_draining_a_node_asks_and_enter_in_the_reason_only_leads_to_no(open_console):
    cluster = FakeCluster([], [a_node("gpu-1", running=2)])
    async with open_console(cluster) as console:
        await console.press("4", "D")
        await console.opens(Question)
        assert "2 running tasks" in console.text()
        await console.press(*"fan", "enter")
        assert cluster.calls == []
        assert console.app.focused is not None
        assert console.app.focused.id == "no"
        await console.press("y")
        await wait_until(lambda: cluster.calls == [("drain", ("gpu-1", "fan"))])
        await wait_until(lambda: console.desk.store.nodes.rows["gpu-1"].status is NodeStatus.DRAINING)
        await console.press("A")
        await wait_until(lambda: cluster.calls[1:] == [("activate", "gpu-1")])


async def test_an_act_that_no_scheduler_answers_says_so(open_console):
    cluster = three()
    cluster.act_trouble = SchedulerUnreachable("tcp://localhost:5571", 4.0)
    async with open_console(cluster, size=(160, 40)) as console:
        await console.press("j", "plus")
        await wait_until(lambda: "no scheduler answers at tcp://localhost:5571" in console.text())


# ---------------------------------------------------------------- submitting


async def test_a_task_is_submitted_from_the_form(open_console, tmp_path):
    image, mask = tmp_path / "photo.png", tmp_path / "photo_mask.png"
    for path in (image, mask):
        path.write_bytes(b"x")
    cluster = FakeCluster([], [a_node()])
    async with open_console(cluster) as console:
        await console.press("s")
        await console.opens(SubmitForm)
        console.app.screen.query_one("#image", Input).value = str(image)
        await console.press("enter")
        await wait_until(lambda: cluster.calls)
        task, queue = cluster.calls[0][1]
        assert (task.image_path, task.mask_path, task.model) == (str(image), str(mask), "cv2-telea")
        assert (task.user_id, queue) == ("maria", "")
        await wait_until(lambda: "submitted" in console.text())


@pytest.mark.parametrize(
    ("field", "value", "complaint"),
    [("image", "", "name the picture"), ("image", "/nowhere/x.png", "not found on this machine"),
     ("mask", "", "no mask is named, and none lies beside the image. Submit again to send it all the same."),
     ("model", "no such [model]", "config.model must be a model's name"),
     ("deadline", "[soon]", "'[soon]' is no moment (such as 17:30")],
)  # fmt: skip
async def test_what_is_wrong_is_said_in_the_form_and_nothing_is_lost(open_console, field, value, complaint):
    cluster = FakeCluster()
    async with open_console(cluster) as console:
        await console.press("s")
        await console.opens(SubmitForm)
        console.app.screen.query_one("#image", Input).value = str(Path(__file__))
        console.app.screen.query_one(f"#{field}", Input).value = value
        await console.press("enter")
        await wait_until(lambda: complaint in " ".join(console.text().split()))
        assert console.app.screen.query_one(f"#{field}", Input).value == value
        assert cluster.calls == []


# ---------------------------------------------------------------- when nothing answers


@pytest.mark.usefixtures("news_may_stop")
async def test_when_redis_goes_away_a_banner_says_since_when_and_it_comes_back_by_itself(open_console):
    cluster = three()
    async with open_console(cluster) as console:
        cluster.trouble = REDIS_AWAY
        banner = console.app.screen.query_one(Banner)
        await wait_until(lambda: "No news since" in banner.text, timeout=60)
        assert "Connection refused" in banner.text
        assert "STALE" in console.text()
        assert "LIVE" not in console.text()
        snapshots = cluster.snapshots
        cluster.add(a_task("/photos/meanwhile.jpg"))
        cluster.trouble = None
        await wait_until(lambda: "meanwhile.jpg" in console.text())
        assert cluster.snapshots > snapshots
        await wait_until(lambda: "LIVE" in console.text() and not banner.display)


@pytest.mark.usefixtures("news_may_stop")
async def test_when_answers_stop_without_a_word_the_screen_says_so_too(open_console):
    cluster = three()
    async with open_console(cluster) as console:
        cluster.silent = True
        await wait_until(lambda: "STALE" in console.text(), timeout=60)


@pytest.mark.usefixtures("news_may_stop")
async def test_the_console_opens_without_a_cluster_and_waits_for_it(open_console):
    cluster = three()
    cluster.trouble = REDIS_AWAY
    async with open_console(cluster) as console:
        await wait_until(lambda: "Waiting for the cluster" in console.text())
        cluster.trouble = None
        await wait_until(lambda: "3 of 3" in console.text())


async def test_a_gap_in_the_events_is_healed_by_a_new_snapshot(open_console):
    cluster = three()
    async with open_console(cluster) as console:
        missed = a_task("/photos/missed.jpg")
        cluster.records[missed.id] = missed
        cluster.gap = True
        await wait_until(lambda: cluster.snapshots == 2)
        await wait_until(lambda: "missed.jpg" in console.text())


async def test_a_frozen_screen_says_so_and_thaws(open_console):
    cluster = three()
    async with open_console(cluster) as console:
        await console.press("z")
        cluster.add(a_task("/photos/while-frozen.jpg"))
        await console.settle()
        assert "FROZEN 1 held" in console.text()
        assert "while-frozen.jpg" not in console.text()
        await console.press("z")
        assert "while-frozen.jpg" in console.text()


# ---------------------------------------------------------------- hostile data, odd terminals


async def test_markup_and_escape_codes_in_every_field_are_shown_and_never_obeyed(open_console):
    task = a_task(
        EVIL, status=TaskStatus.FAILED, failure=a_failure(EVIL), task_user_id=EVIL, task_job=EVIL, task_mask_path=EVIL,
        task_output_path=EVIL, task_metadata={EVIL: EVIL}, why=EVIL, stage=EVIL, node="n [/x]", device=EVIL,
        finished_ms=now_ms(),
    )  # fmt: skip
    node = a_node("gpu-1", why=EVIL, telemetry={EVIL: EVIL})
    cluster = FakeCluster([task], [node])
    cluster.paused["gpu-high"] = EVIL
    cluster.history[task.id] = [
        Attempt(number=1, node="n [/x]", device=EVIL, started_ms=1, ended_ms=2, outcome=EVIL, failure=task.failure)
    ]
    cluster.emit("finish_task", id=task.id, rev=0, why=EVIL, message=EVIL)
    async with open_console(cluster) as console:
        for keys in (
            ("j",), ("d",), ("tab",), ("escape", "r"), ("X",), ("escape", "m"), ("escape", "s"), ("escape", "3"),
            ("d",), ("escape", "p"), ("escape", "escape", "4"), ("d",), ("escape", "D"), ("escape", "question_mark"),
            ("escape", "2", "slash", "left_square_bracket", "slash", "x", "right_square_bracket", "enter"),
        ):  # fmt: skip
            await console.press(*keys)
            await console.pilot.pause()
            seen = console.text()
            assert not set(seen) & set("\x1b\x07\x9b\u202e"), keys
        assert cluster.calls[0] == ("retry", (task.id,))
        await console.press("escape")
        console.desk.say(f"refused: {EVIL}", good=False)
        await console.settle()
        assert "[red]b␛]0;owned␇␛[2J" in console.text()


@pytest.mark.parametrize(
    "keys", [(), ("d",), ("3",), ("4",), ("s",), ("X",), ("question_mark",), ("m",), ("apostrophe",), ("C",)]
)
async def test_every_screen_lives_through_small_and_large_terminals(open_console, keys):
    cluster = FakeCluster(many_tasks(30), [a_node()])
    async with open_console(cluster, size=(80, 24)) as console:
        await console.press("j", *keys)
        for size in ((40, 10), (20, 4), (200, 60)):
            await console.pilot.resize_terminal(*size)
            await wait_until(lambda size=size: len(console.lines()) == size[1])
            await console.settle()


async def test_what_is_typed_right_after_tab_goes_to_the_next_field(open_console):
    async with open_console(three()) as console:
        await console.press("s")
        await console.opens(SubmitForm)
        image, mask = (console.app.screen.query_one(f"#{name}", Input) for name in ("image", "mask"))
        for key in ("a", "tab", "b", "c"):  # all at once, as a paste or a quick hand sends them
            console.app.post_message(events.Key(key, key if len(key) == 1 else None))
        await wait_until(lambda: len(image.value + mask.value) == 3)
        assert (image.value, mask.value) == ("a", "bc")

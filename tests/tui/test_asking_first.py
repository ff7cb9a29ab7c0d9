"""How much is asked before an act: by tier, by rights, by how fresh the screen is; and the ways there by key."""

from __future__ import annotations

from datetime import timedelta

import pytest
from textual.widgets import Button, Input

from lcq.models import NodeStatus, TaskPriority, TaskStatus
from tests.conftest import wait_until
from tests.tui.fakes import FakeCluster, a_failure, a_node, a_task, many_tasks, now_ms
from tui.rights import Rights
from tui.screens.activity import ActivityScreen
from tui.screens.detail import TaskScreen
from tui.screens.dialogs import Chooser, Question
from tui.screens.nodes import NodesScreen
from tui.screens.queues import QueuesScreen
from tui.screens.tasks import TasksScreen
from tui.source import Link
from tui.widgets.frame import KeyLine
from tui.widgets.table import LineTable


async def asked(console) -> Question:
    await console.opens(Question)
    screen = console.app.screen
    assert isinstance(screen, Question)
    await wait_until(lambda: screen.query("#no") and screen.query_one("#no").region.area)  # else a click goes beside it
    return screen


async def said(console, text: str) -> None:
    await wait_until(lambda: console.desk.said is not None and text in console.desk.said.text, what=text)


async def test_emptying_a_queue_needs_its_name_and_a_pasted_line_or_y_is_not_enough(open_console):
    waiting = [a_task(f"/p/{n}.jpg", queue="gpu-high") for n in range(3)]
    running = a_task("/p/r.jpg", queue="gpu-high", status=TaskStatus.PROCESSING, node="gpu-1")
    cluster = FakeCluster([*waiting, running, a_task(queue="cpu-light")], [a_node()])
    async with open_console(cluster) as console:
        await console.press("3", "g", "E")
        await asked(console)
        assert "cancel 3 waiting tasks" in console.text()
        await console.press("y", "enter")  # typed into the field
        assert "type gpu-high here first" in console.text()
        assert cluster.calls == []
        word = console.app.screen.query_one("#word", Input)
        word.value = ""
        await console.press("tab", "tab", "y")  # on a button
        await wait_until(lambda: console.app.focused is word)
        assert cluster.calls == []
        await console.press(*"gpu-high", "enter")
        await wait_until(lambda: cluster.calls)
        assert [(name, set(ids)) for name, ids in cluster.calls] == [("cancel", {one.id for one in waiting})]


async def test_stopping_a_node_needs_its_name(open_console):
    cluster = FakeCluster([], [a_node("gpu-1", running=2)])
    async with open_console(cluster) as console:
        await console.press("4", "K")
        await asked(console)
        assert "2 running tasks" in console.text()
        await console.press("escape")
        assert cluster.calls == []
        await console.press("K")
        await asked(console)
        await console.press(*"gpu-1", "enter")
        await wait_until(lambda: cluster.calls == [("stop_node", ("gpu-1", ""))])


async def test_a_costly_act_starts_at_no_and_takes_a_reason(open_console):
    cluster = FakeCluster([a_task()])
    async with open_console(cluster) as console:
        await console.press("j", "X")
        question = await asked(console)
        assert isinstance(console.app.focused, Button)
        question.query_one("#reason", Input).value = "duplicate"
        await console.press("y")
        await wait_until(lambda: cluster.reasons_given == ["duplicate"])


async def test_a_drain_asks_for_a_deadline_and_what_is_none_is_told(open_console):
    cluster = FakeCluster([], [a_node("gpu-1", running=1)])
    async with open_console(cluster) as console:
        await console.press("4", "D")
        question = await asked(console)
        deadline = question.query_one("#deadline", Input)
        deadline.value = "soon"
        question.query_one("#no").focus()
        await console.press("y")
        assert "length of time" in console.text()
        assert cluster.calls == []
        deadline.value = "10m"
        question.query_one("#no").focus()
        await console.press("y")
        await wait_until(lambda: cluster.calls == [("drain", ("gpu-1", "", 600.0))])


async def test_b_blocks_a_node_with_a_reason_and_unblocks_it(open_console):
    cluster = FakeCluster([], [a_node("gpu-1")])
    async with open_console(cluster) as console:
        await console.press("4", "b")
        await asked(console)
        await console.press(*"fan", "enter")
        await wait_until(lambda: cluster.calls == [("block", ("gpu-1", "fan"))])
        await wait_until(lambda: console.desk.nodes.row("gpu-1").status is NodeStatus.QUARANTINED)
        await console.press("b")
        await wait_until(lambda: cluster.calls[1:] == [("activate", "gpu-1")])


async def test_the_backlog_of_a_queue_is_moved_after_a_dry_run(open_console):
    waiting = [a_task(f"/p/{n}.jpg", queue="gpu-high") for n in range(2)]
    cluster = FakeCluster([*waiting, a_task(queue="cpu-light")], [a_node()])
    async with open_console(cluster) as console:
        await console.press("3", "g", "m")
        await console.opens(Chooser)
        assert "queue gpu-high" not in console.text(), "not to where they are"
        await console.press("enter")
        await asked(console)
        assert "Move the backlog of gpu-high, 2 tasks, to gpu-medium?" in console.text()
        await console.press("y")
        await wait_until(lambda: cluster.calls)
        assert set(cluster.calls[0][1][0]) == {one.id for one in waiting}
        assert cluster.calls[0][1][1:] == ("gpu-medium", "")


async def test_the_priority_is_set_the_last_act_repeated_and_the_ways_to_node_queue_and_history_work(open_console):
    start = now_ms() - 9000
    tasks = [a_task(f"/p/{n}.jpg", queue="gpu-high", node="gpu-2", submitted_ms=start + n) for n in range(3)]
    cluster = FakeCluster(tasks, [a_node("gpu-1"), a_node("gpu-2")])
    async with open_console(cluster) as console:
        await console.press("g", "P")
        await console.opens(Chooser)
        await console.press("enter")
        await wait_until(lambda: cluster.calls == [("prioritise", ((tasks[2].id,), TaskPriority.URGENT))])
        await said(console, "now urgent: ")
        await console.press("j", "full_stop")
        await wait_until(lambda: cluster.calls[1:] == [("prioritise", ((tasks[1].id,), TaskPriority.URGENT))])
        await console.press("n")
        await wait_until(lambda: console.desk.nodes.cursor_id == "gpu-2")
        assert isinstance(console.app.screen, NodesScreen)
        await console.press("2", "t")
        await console.opens(QueuesScreen)
        await wait_until(lambda: console.desk.queues.cursor_id == "gpu-high")
        await console.press("full_stop")
        await said(console, "is repeated on tasks")
        await console.press("U")
        await console.opens(ActivityScreen)


async def test_all_that_fit_are_meant_also_those_beyond_the_window(open_console):
    class Cut(FakeCluster):
        async def snapshot(self, limit=200_000, take=None):
            return await super().snapshot(20, take)

    cluster = Cut(many_tasks(60), total=1000)
    async with open_console(cluster) as console:
        await console.press("j", "slash", *"state:queued", "enter")
        await wait_until(lambda: console.desk.tasks.filter.text == "state:queued" and console.table.has_focus)
        await console.press("asterisk")
        await said(console, "also those beyond the window")
        await console.press("X")
        await asked(console)
        assert "Cancel 10 tasks?" in console.text(), "as many as the cluster has, not as the window holds"
        await console.press("y")
        await wait_until(lambda: cluster.calls)
        assert len(cluster.calls[0][1]) == 10


async def test_a_note_and_a_whole_cause_mean_also_those_beyond_the_window(open_console):
    class Cut(FakeCluster):
        async def snapshot(self, limit=200_000, take=None):
            return await super().snapshot(20, take)

    failures = [
        a_task(f"/p/{n}.jpg", status=TaskStatus.FAILED, failure=a_failure("device lost" if n % 3 else "no room"))
        for n in range(30)
    ]
    cluster = Cut(failures, [a_node()], total=1000)
    async with open_console(cluster) as console:
        await console.press("5")
        await wait_until(lambda: "device lost" in console.text() and console.desk.store.beyond)
        await console.press("g", "r")
        await asked(console)
        assert "Retry 20 tasks?" in console.text(), "as many as died of it, not as the window holds of them"
        await console.press("escape", "2", "j", "slash", *"state:failed", "enter")
        await wait_until(lambda: console.desk.tasks.filter.text == "state:failed" and console.table.has_focus)
        await console.press("asterisk")
        await said(console, "also those beyond the window")
        await console.press("c")
        await asked(console)
        assert "Comment on 30 tasks" in console.text()
        await console.press(*"known", "enter")
        await wait_until(lambda: "Yes, comment" in console.text())
        await console.press("y")
        await wait_until(lambda: cluster.calls)
        name, (ids, text) = cluster.calls[0]
        assert (name, len(ids), text) == ("comment", 30, "known")


# ---------------------------------------------------------------- what is not sent


@pytest.mark.parametrize(
    ("rights", "why"), [(Rights(read_only=True), "--read-only"), (Rights(production=True), ":write 15m")]
)
async def test_without_the_right_to_act_nothing_is_asked_or_sent_and_the_title_says_so(open_console, rights, why):
    cluster = FakeCluster([a_task()], [a_node()])
    async with open_console(cluster) as console:
        console.desk.rights = rights
        await console.press("j")
        for keys in (("X",), ("plus",), ("m",), ("P",), ("s",), ("3", "p"), ("E",), ("m",), ("4", "b"), ("D",), ("K",)):
            console.desk.say("")
            await console.press(*keys)
            await said(console, f"not done: {'this console only reads' if 'only' in why else 'this is production'}")
            assert not console.app.screen.is_modal
        assert " READ-ONLY " in console.text()
        assert why in console.desk.said.text
        assert cluster.calls == []


async def test_a_right_that_ends_while_the_question_is_open_sends_nothing(open_console):
    cluster = FakeCluster([a_task()], [a_node()])
    async with open_console(cluster) as console:
        console.desk.rights = Rights(production=True)
        console.desk.rights.lend(timedelta(minutes=5))
        await console.press("j", "X")
        await asked(console)
        console.desk.rights.give_back()
        await console.press("y")
        await said(console, "not done: this is production")
        assert isinstance(console.app.screen, TasksScreen)
        assert cluster.calls == []


async def test_nothing_is_sent_while_what_is_shown_is_old(open_console, monkeypatch):
    cluster = FakeCluster([a_task(status=TaskStatus.FAILED)], [a_node()])
    async with open_console(cluster) as console:
        monkeypatch.setattr(Link, "is_stale", True)
        await console.press("j", "r")
        await said(console, "Retry 1 task: not done: there is no news from the cluster since")
        assert cluster.calls == []


# ---------------------------------------------------------------- words for people


async def test_a_note_is_left_with_a_task_shown_in_its_details_and_can_be_taken_back(open_console):
    task = a_task()
    cluster = FakeCluster([task], [a_node()])
    async with open_console(cluster) as console:
        await console.press("j", "c")
        await asked(console)
        await console.press("enter")
        await said(console, "nothing is kept")
        await console.press("d", "c")
        question = await asked(console)
        question.query_one("#reason", Input).value = "roll back [1.8]?"
        await console.press("enter")
        await wait_until(lambda: cluster.calls == [("comment", ((task.id,), "roll back [1.8]?"))])
        await wait_until(lambda: "Notes (1)" in console.text() and "roll back [1.8]?" in console.text())
        assert console.desk.undoable is not None
        await console.press("u")
        await wait_until(lambda: cluster.calls[1:] == [("undo", f"act of comment {task.id}")])


async def test_a_cause_is_acknowledged_with_a_note_and_opened_again_without_one(open_console):
    failed = a_task(status=TaskStatus.FAILED, failure=a_failure(), node="gpu-1")
    cluster = FakeCluster([failed], [a_node()])
    async with open_console(cluster) as console:
        await console.press("5")
        await wait_until(lambda: "1 cause   1 failed task" in console.text())
        await console.press("g", "a")
        await asked(console)
        await console.press(*"mine", "enter")
        await wait_until(lambda: [call[1][2:] for call in cluster.calls] == [("mine", False)])
        await wait_until(lambda: "maria: mine" in console.text())
        assert console.desk.undoable is not None
        assert console.desk.undoable.commands == ("act of out_of_memory",)
        await console.press("a")
        await asked(console)
        assert "Without a note it is open again" in console.text()
        await console.press("enter")
        await wait_until(lambda: [call[1][2:] for call in cluster.calls[1:]] == [("", True)])
        await wait_until(lambda: "maria: mine" not in console.text())


# ---------------------------------------------------------------- by mouse


async def test_a_click_on_a_key_in_the_footer_does_what_the_key_does(open_console):
    cluster = FakeCluster([a_task(), a_task()], [a_node()])
    async with open_console(cluster) as console:
        await console.press("g")
        keys = console.app.screen.query_one("#keys", KeyLine)
        await console.pilot.click(keys, offset=(keys.text.index("mark"), 0))
        await wait_until(lambda: len(console.desk.tasks.marks) == 1)
        await console.pilot.click(keys, offset=(keys.text.index("cancel"), 0))
        question = await asked(console)
        await console.pilot.click(question.query_one("#no"))
        await console.opens(TasksScreen)
        assert cluster.calls == []
        table = console.app.screen.query_one(LineTable)
        await console.pilot.click(table, offset=(5, 2), times=2)
        await console.opens(TaskScreen)

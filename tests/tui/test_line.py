"""The command line in words: what a line means, what it would do, and how it goes on."""

from __future__ import annotations

from typing import Any

import pytest
from textual import events
from textual.widgets import Input

from lcq.errors import InvalidInput
from lcq.models import NodeStatus, TaskPriority, TaskStatus
from tests.conftest import wait_until
from tests.tui.fakes import FakeCluster, FakeSnapshot, a_failure, a_node, a_task
from tui.commands import Scope
from tui.desk import Desk
from tui.line import LineHistory, Scene, complete, line_commands, understand
from tui.rights import Rights
from tui.screens.command_line import CommandLine
from tui.screens.dialogs import Question
from tui.screens.queues import QueuesScreen
from tui.screens.tasks import TasksScreen


@pytest.fixture
async def scene() -> Scene:
    """Two that wait, three that failed, one that runs; two nodes, one of them drained; gpu-low is paused."""
    tasks = [a_task(f"/p/{n}.jpg", queue="gpu-high") for n in range(2)]
    tasks += [a_task(f"/f/{n}.jpg", status=TaskStatus.FAILED, failure=a_failure()) for n in range(3)]
    tasks += [a_task("/r.jpg", status=TaskStatus.PROCESSING, node="gpu-1")]
    cluster = FakeCluster(tasks, [a_node("gpu-1", running=1), a_node("gpu-2", status=NodeStatus.DRAINING)])
    cluster.paused["gpu-low"] = "fan"
    desk = Desk(cluster, cluster)
    snapshot = await cluster.snapshot()
    assert isinstance(snapshot, FakeSnapshot)
    desk.store.load(snapshot)
    desk.flush()
    rows = [desk.store.tasks.rows[task.id] for task in tasks]
    scopes = (Scope.EVERYWHERE, Scope.TABLE, Scope.TASKS)
    return Scene(desk, scopes, marked=rows[:2], cursor=rows[2], contexts=("studio", "(none)"))


@pytest.mark.parametrize(
    ("line", "forecast"),
    [
        ("move @marked --to gpu-medium", "Move 2 tasks to gpu-medium"),
        ("move --to gpu-1", "Move 2 tasks to node gpu-1"),
        ("retry 'state:failed cause:memory'", "Retry 3 tasks"),
        ("retry state:failed", "Retry 3 tasks"),
        ("retry @marked", "nothing to do; cannot be retried: 2 queued"),
        ("cancel @shown", "Cancel 3 tasks; cannot be cancelled: 3 failed"),
        ("prio +1", "Raise the priority of 2 tasks"),
        ("prio @cursor low", "nothing to do; cannot be given another priority: 1 failed"),
        ("prio queue=gpu-high urgent", "Set the priority of 2 tasks"),
        ("deadline none", "Take the deadline off 2 tasks"),
        ("deadline @cursor '2999-12-24 09:00'", "nothing to do; cannot be given another deadline: 1 failed"),
        ("deadline queue=gpu-high none", "Take the deadline off 2 tasks"),
        ("privacy exportable", "Let 2 tasks leave the house"),
        ("privacy @cursor private", "nothing to do; cannot be given another privacy: 1 failed"),
        ("pause gpu-high new driver", "pauses gpu-high: 2 tasks wait in it"),
        ("resume gpu-low", "resumes gpu-low: 0 tasks wait in it"),
        ("move-backlog gpu-high --to gpu-low", "moves all that waits in gpu-high to gpu-low: 2 tasks wait in it"),
        ("empty gpu-high", "cancels all that waits in gpu-high: 2 tasks wait in it; its name will be asked"),
        ("drain gpu-1 --deadline 10m", "It has 600 s to finish 1 running task"),
        ("stop gpu-1", "Its name will be asked"),
        ("unblock gpu-2", "gpu-2 takes work again: it is draining"),
        ("write 15m", "lends the right to act here"),
        ("tasks state:failed", "The tasks, of state:failed"),
        ("ctx studio", "to studio"),
        ("undo", "Take back what you did last"),
    ],
)
def test_a_line_says_what_it_would_do(scene, line, forecast):
    assert forecast in understand(line, scene).forecast


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("mvoe @marked --to gpu-low", "did you mean 'move'?"),
        ("move @marked", "move where?"),
        ("move --to gpu-hihg", "did you mean 'gpu-high'?"),
        ("move --too gpu-high", "did you mean 'to'?"),
        ("move --to", "--to needs a value"),
        ("retry 'stat:failed'", "no field 'stat'"),
        ("retry --to gpu-high", "takes no --to"),
        ("prio hgih", "did you mean 'high'?"),
        ("prio +9", "no priority '+9'"),
        ("deadline @marked soon", "'soon' is no moment (such as 17:30"),
        ("deadline --reason later", "by when?"),
        ("privacy expotable", "did you mean 'exportable'?"),
        ("pause gpu-hgh", "did you mean 'gpu-high'?"),
        ("pause gpu-low", "is paused by maria: fan"),
        ("resume gpu-high", "is not paused"),
        ("drain gpu-1 --deadline soon", "length of time"),
        ("drain gpu-9", "no node 'gpu-9'"),
        ("activate gpu-1", "is online"),
        ("move-backlog gpu-high --to gpu-high", "another QUEUE"),
        ("undo everything", "takes nothing more"),
        ("toggle-pause", "is for queues: go there first"),
        ("pause gpu-high 'open", "a quote is not closed"),
        ("ctx studoi", "did you mean 'studio'?"),
        ("write soon", "length of time"),
        ("", "a command"),
    ],
)
def test_a_line_that_means_nothing_says_which_word_and_what_is_nearest(scene, line, complaint):
    with pytest.raises(InvalidInput) as wrong:
        understand(line, scene)
    assert complaint in f"{wrong.value} {wrong.value.hint}"


def test_reasons_go_with_the_act_by_option_or_as_the_rest_of_the_line(scene):
    assert understand("move --to gpu-low --reason 'OOM since 1.8'", scene).reason == "OOM since 1.8"
    assert understand("pause gpu-high new driver", scene).reason == "new driver"
    assert understand("retry state:failed --reason=again", scene).reason == "again"


def test_a_task_is_named_by_its_id_or_by_a_beginning_that_only_it_has(scene):
    row = scene.marked[0]
    assert understand(f"cancel {row.id}", scene).act.ids == (row.id,)
    meant = understand(f"cancel {row.id[:15]}", scene)
    assert meant.act is None or meant.act.ids == (row.id,)
    assert understand("cancel 0000", scene).make is not None, "what begins no id is a word of a filter"


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("dra", "drain"), ("move --to gpu-m", "move --to gpu-medium"), ("drain gpu-", "drain gpu-1"),
        ("pause cpu-l", "pause cpu-light"), ("move @m", "move @marked"), ("move @marked --t", "move @marked --to"),
        ("retry sta", "retry state:"), ("prio @marked ur", "prio @marked urgent"), ("ctx st", "ctx studio"),
        ("move-backlog gpu-high --to gpu-l", "move-backlog gpu-high --to gpu-low"), ("tasks sta", "tasks state:"),
    ],
)  # fmt: skip
def test_a_line_is_completed_with_what_there_is(scene, typed, offered):
    assert complete(typed, scene)[0] == offered


@pytest.mark.parametrize("typed", ["nonsense x", "move --reason gpu", "undo x", "drain"])
def test_nothing_is_offered_where_nothing_is_known(scene, typed):
    assert complete(typed, scene) == []


def test_each_word_of_the_line_is_one_command_and_each_command_of_the_lists_has_one():
    known = line_commands()
    assert {"move", "retry", "cancel", "prio", "pause", "drain", "q", "help", "write", "tasks", "undo"} <= set(known)
    assert len({command.id for command in known.values()}) == len(known)


def test_earlier_lines_come_back_and_none_stands_there_twice():
    history = LineHistory()
    for line in ("one", "two", "one"):
        history.note(line)
    assert history.lines == ["two", "one"]
    assert history.step(0, 1) == (1, "one")
    assert history.step(1, 1) == (2, "two")
    assert history.step(2, 1) == (2, "two")
    assert history.step(1, -1) == (0, None)


# ---------------------------------------------------------------- on the screen


async def line_of(console: Any, text: str) -> CommandLine:
    await console.press("colon")
    await console.opens(CommandLine)
    screen = console.app.screen
    assert isinstance(screen, CommandLine)
    screen.query_one("#command", Input).value = text
    return screen


async def test_a_line_moves_what_is_marked_with_its_reason_and_says_beforehand_how_many(open_console):
    cluster = FakeCluster([a_task(f"/p/{n}.jpg") for n in range(3)], [a_node()])
    async with open_console(cluster) as console:
        await console.press("g", "space", "space")
        chosen = tuple(row.id for row in console.desk.tasks.targets())
        await line_of(console, "move @marked --to gpu-low --reason 'too large'")
        await wait_until(lambda: "would: Move 2 tasks to gpu-low" in console.text())
        assert cluster.calls == []
        await console.press("enter")
        await wait_until(lambda: cluster.calls == [("reroute", (chosen, "gpu-low", ""))])
        assert cluster.reasons_given == ["too large"]
        await line_of(console, "")
        await console.press("up")
        assert console.app.screen.query_one("#command", Input).value.startswith("move @marked")


async def test_a_line_on_a_filter_asks_first_and_a_mistyped_one_stays_to_be_mended(open_console):
    failed = [a_task(f"/p/{n}.jpg", status=TaskStatus.FAILED, failure=a_failure()) for n in range(3)]
    cluster = FakeCluster([*failed, a_task()], [a_node()])
    async with open_console(cluster) as console:
        await line_of(console, "rety state:failed")
        await console.press("enter")
        await wait_until(lambda: "did you mean 'retry'?" in console.text())
        field = console.app.screen.query_one("#command", Input)
        assert field.value == "rety state:failed"
        field.value = "retry state:failed"
        await console.press("enter")
        await console.opens(Question)
        assert "Retry 3 tasks?" in console.text()
        await console.press("y")
        await wait_until(lambda: cluster.calls)
        assert set(cluster.calls[0][1]) == {one.id for one in failed}


async def test_pasted_line_breaks_start_nothing_and_tab_completes(open_console):
    cluster = FakeCluster([a_task()], [a_node()])
    async with open_console(cluster) as console:
        screen = await line_of(console, "")
        field = screen.query_one("#command", Input)
        field.post_message(events.Paste("cancel @shown\nempty cpu-light\ny\n"))
        await wait_until(lambda: field.value)
        assert field.value == "cancel @shown empty cpu-light y"
        assert console.app.screen is screen
        field.value = ""
        await console.press(*"pri", "tab")
        assert field.value == "prio"
        await console.press("space", *"@c", "tab", "space", *"lo", "tab")
        assert field.value == "prio @cursor low"
        assert cluster.calls == []
        await console.press("escape")
        assert isinstance(console.app.screen, TasksScreen)


async def test_lines_go_to_views_lend_rights_and_run_what_keys_run(open_console):
    cluster = FakeCluster([a_task(status=TaskStatus.FAILED)], [a_node()])
    async with open_console(cluster) as console:
        console.desk.rights = Rights(production=True)
        await line_of(console, "pause gpu-high fan")
        await console.press("enter")
        await wait_until(lambda: "this is production" in console.desk.said.text if console.desk.said else False)
        await line_of(console, "write 15m")
        await console.press("enter")
        await wait_until(lambda: "WRITE" in console.text())
        await line_of(console, "queues")
        await console.press("enter")
        await console.opens(QueuesScreen)
        await line_of(console, "pause gpu-high fan")
        await console.press("enter")
        await wait_until(lambda: cluster.calls == [("pause", ("gpu-high", "fan"))])
        await line_of(console, "tasks state:failed")
        await console.press("enter")
        await wait_until(lambda: console.desk.tasks.filter.text == "state:failed")
        await line_of(console, "prio urgent")
        await wait_until(lambda: "nothing to do" in console.text())
        await console.press("escape")
        await line_of(console, "read-only")
        await console.press("enter")
        await wait_until(lambda: "READ-ONLY" in console.text())
        await line_of(console, "q")
        await console.press("enter")
        await console.opens(Question)
        assert TaskPriority.URGENT not in {row.priority for row in console.desk.store.tasks.rows.values()}

"""How risky an act is, what it says beforehand, and what it sends: without a screen."""

from __future__ import annotations

import pytest

from lcq.models import NodeStatus, TaskPriority, TaskStatus
from tests.tui.fakes import FakeCluster, a_node, a_task
from tui import acts
from tui.commands import Tier
from tui.screens.dialogs import is_typed
from tui.store import NodeRow, TaskRow, node_row, task_row


def rows(count: int, status: TaskStatus = TaskStatus.QUEUED) -> list[TaskRow]:
    first = task_row(a_task(status=status))
    out = []
    for number in range(count):
        row = TaskRow(f"{number:016d}", status, 1, first.queue, first.priority, image=first.image)
        out.append(row)
    return out


@pytest.mark.parametrize(
    ("act", "tier"),
    [
        (acts.retry(rows(10, TaskStatus.FAILED)), Tier.UNDOABLE),
        (acts.retry(rows(11, TaskStatus.FAILED)), Tier.COSTLY),
        (acts.move(rows(10), queue="gpu-low"), Tier.UNDOABLE),
        (acts.move(rows(1, TaskStatus.PROCESSING), queue="gpu-low"), Tier.COSTLY),
        (acts.set_priority(rows(3), TaskPriority.URGENT), Tier.UNDOABLE),
        (acts.set_priority(rows(11), TaskPriority.URGENT), Tier.COSTLY),
        (acts.cancel(rows(1)), Tier.COSTLY),
        (acts.cancel(rows(1000)), Tier.COSTLY),
        (acts.cancel(rows(1001)), Tier.FINAL),
        (acts.pause("gpu-low"), Tier.UNDOABLE),
        (acts.block("gpu-1"), Tier.UNDOABLE),
        (acts.drain(node_row(a_node())), Tier.COSTLY),
        (acts.empty("gpu-low", rows(1)), Tier.FINAL),
        (acts.stop_node(node_row(a_node())), Tier.FINAL),
    ],
)
def test_every_act_asks_as_much_as_it_risks(act, tier):
    assert act.tier is tier
    assert act.asks == (tier >= Tier.COSTLY)
    assert bool(act.word) == (tier is Tier.FINAL), "what cannot come back, and only that, has to be typed"


def test_stopping_a_quarter_of_the_fleet_asks_for_the_number_but_not_where_that_is_a_handful():
    running = rows(12, TaskStatus.PROCESSING)
    assert acts.cancel(running, slots=48).tier is Tier.COSTLY
    assert acts.cancel(running, slots=47).word == "12"
    assert acts.cancel(rows(2, TaskStatus.PROCESSING), slots=2).tier is Tier.COSTLY
    assert acts.cancel(rows(12), slots=4).tier is Tier.COSTLY, "what waits occupies nothing"


def test_an_act_says_beforehand_how_many_of_which_state_and_which_it_leaves_alone_and_why():
    act = acts.cancel([*rows(2), *rows(3, TaskStatus.PROCESSING), *rows(4, TaskStatus.COMPLETED)])
    assert act.title == "Cancel 5 tasks"
    assert act.lines[0] == "2 queued, 3 processing"
    assert "3 running now: the work done so far is lost" in act.lines
    assert act.lines[-1] == "Left alone: cannot be cancelled: 4 completed"
    assert act.forecast == "Cancel 5 tasks; cannot be cancelled: 4 completed"
    assert acts.retry(rows(1)).forecast == "nothing to do; cannot be retried: 1 queued"


def test_a_queue_is_emptied_of_what_waits_and_what_runs_goes_on():
    act = acts.empty("gpu-low", [*rows(2), *rows(1, TaskStatus.PROCESSING)])
    assert len(act.ids) == 2
    assert act.word == "gpu-low"


@pytest.mark.parametrize(
    ("word", "typed", "fits"),
    [("gpu-1", "gpu-1", True), ("gpu-1", " gpu-1 ", True), ("gpu-1", "gpu-11", False), ("gpu-1", "", False),
     ("1205", "1,205", True), ("1205", "1205", True), ("1205", "125", False), ("gpu-1", "GPU-1", False)],
)  # fmt: skip
def test_what_has_to_be_typed_is_that_word_and_no_other(word, typed, fits):
    assert is_typed(word, typed) is fits


async def test_an_act_can_be_made_again_for_other_tasks_and_goes_to_those_alone():
    first, second = a_task(priority=TaskPriority.LOW), a_task(priority=TaskPriority.LOW)
    cluster = FakeCluster([first, second])
    act = acts.set_priority([task_row(first)], TaskPriority.URGENT)
    assert act.again is not None
    again = act.again([task_row(second)])
    await again.run(cluster, "in a hurry")
    assert cluster.calls == [("prioritise", ((second.id,), TaskPriority.URGENT))]
    assert cluster.reasons_given == ["in a hurry"]


def test_a_node_that_is_down_is_not_told_to_be_idle_where_it_is_drained():
    assert "It is down." in acts.drain(NodeRow("gpu-4", NodeStatus.OFFLINE)).lines[0]
    assert "It is idle now" in acts.drain(NodeRow("gpu-4", NodeStatus.ONLINE)).lines[0]

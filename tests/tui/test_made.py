"""Two quick presses are two acts: the second goes by what the first has made, and by nothing that others did."""

from __future__ import annotations

import asyncio

import pytest

from lcq.models import Event, TaskPriority, TaskStatus
from tests.conftest import wait_until
from tests.tui.fakes import FakeCluster, a_task
from tui import acts
from tui.made import Made
from tui.store import Store, TaskRow, task_row

NORMAL, HIGH, URGENT = TaskPriority.NORMAL, TaskPriority.HIGH, TaskPriority.URGENT


def a_row(revision: int = 3, priority: TaskPriority = NORMAL, task_id: str = "one") -> TaskRow:
    return TaskRow(task_id, TaskStatus.QUEUED, revision, "gpu-low", priority)


def test_a_row_is_as_our_own_acts_have_left_it_however_many_those_were():
    made = Made()
    made.note("one", 3, 4, HIGH)
    made.note("one", 4, 5, None)  # moved, say
    made.note("one", 5, 6, URGENT)
    now = made.of(a_row())
    assert (now.acts_on, now.priority, now.revision) == (6, URGENT, 3)
    assert (made.of(a_row(5, HIGH)).acts_on, made.of(a_row(2)).acts_on) == (6, 2)
    other = a_row(task_id="two")
    assert made.of(other) is other
    assert made.renewed([other]) is None
    assert [one.acts_on for one in made.renewed([a_row(), other]) or ()] == [6, 3]


def test_what_an_older_scheduler_does_not_tell_is_not_made_up():
    made = Made()
    made.note("one", 3, 0, HIGH)
    assert made.renewed([a_row()]) is None


def test_the_second_press_raises_what_the_first_has_raised_and_carries_its_revision():
    made = Made()
    shown = a_row()
    second = acts.change_priority([shown], 1)
    made.note("one", 3, 4, HIGH)
    assert second.again is not None
    again = second.again(made.renewed(second.rows) or ())
    assert (again.bands, [row.acts_on for row in again.rows]) == ({"one": URGENT}, [4])


def test_news_of_it_and_older_news_do_not_undo_what_is_shown_of_our_own_act():
    store, made = Store(), Made()
    store.tasks.put(a_row())
    store.counts[TaskStatus.QUEUED] = 1

    def event(revision: int, priority: TaskPriority) -> Event:
        fields = {"id": "one", "status": "queued", "rev": str(revision), "queue": "gpu-low", "priority": priority.value}
        return Event(id=f"1000-{revision}", move="prioritise_task", fields=fields)

    def shown() -> tuple[int, int, TaskPriority]:
        row = store.tasks.rows["one"]
        return row.revision, row.acts_on, row.priority

    made.note("one", 3, 4, HIGH)
    made.note("one", 4, 5, URGENT)
    store.put_acted(made.of(a_row()))
    assert shown() == (3, 5, URGENT)
    store.apply([event(4, HIGH)])
    assert shown() == (4, 5, URGENT)
    store.apply([event(5, URGENT)])
    assert shown() == (5, 5, URGENT)
    store.put_acted(made.of(a_row()))
    store.apply([event(6, NORMAL)])  # somebody else's
    assert shown() == (6, 6, NORMAL)
    store.put_acted(made.of(a_row()))
    assert shown() == (6, 6, NORMAL)
    assert store.counts[TaskStatus.QUEUED] == 1


def test_a_record_that_was_read_before_our_act_is_old():
    store, record = Store(), a_task(status=TaskStatus.QUEUED)
    store.put_tasks([record])
    made = Made()
    made.note(record.id, record.revision, record.revision + 1, HIGH)
    store.put_acted(made.of(task_row(record)))
    store.put_tasks([record])
    assert store.tasks.rows[record.id].priority is HIGH


async def test_acts_on_the_same_task_wait_for_each_other_in_their_order_and_others_do_not():
    made, log = Made(), []
    gate = asyncio.Event()

    async def one(name: str, *ids: str) -> None:
        async with made.turn(ids):
            log.append(name)
            if name == "first":
                await gate.wait()

    async with asyncio.TaskGroup() as group:
        for name, ids in (("first", "ab"), ("second", "bc"), ("third", "c"), ("apart", "d")):
            group.create_task(one(name, *ids))
            await asyncio.sleep(0)
        await wait_until(lambda: log == ["first", "apart"])
        gate.set()
    assert log == ["first", "apart", "second", "third"]


@pytest.fixture
def cluster() -> FakeCluster:
    return FakeCluster([a_task(status=TaskStatus.QUEUED)])


async def test_two_quick_presses_both_count_and_anothers_change_in_between_refuses(
    open_console, cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch
):
    (first,) = cluster.records
    may_answer, prioritise = asyncio.Event(), cluster.prioritise

    async def slowly(*args: object, **named: object) -> object:
        await may_answer.wait()
        return await prioritise(*args, **named)  # type: ignore[arg-type]

    async with open_console(cluster) as console:
        monkeypatch.setattr(cluster, "prioritise", slowly)
        monkeypatch.setattr(cluster, "_after", lambda after: [])  # no news comes
        await console.press("g", "plus", "plus")
        may_answer.set()
        await wait_until(lambda: len(cluster.calls) == 2)
        assert [what for _, (_, what) in cluster.calls] == [HIGH, URGENT]
        await wait_until(lambda: "now urgent" in console.text())
        await console.press("minus")
        await wait_until(lambda: cluster.records[first].priority is HIGH)
        await wait_until(lambda: "now high" in console.text())
        cluster.change(first, "prioritise_task", priority=TaskPriority.LOW)
        await console.press("plus")
        await wait_until(lambda: f"refused {first}" in console.text())
        assert cluster.records[first].priority is TaskPriority.LOW

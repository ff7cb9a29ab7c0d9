"""Tasks at a glance: what a list shows of each is what its whole record says."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
import redis

from lcq.models import ErrorClass, TaskPriority, TaskRecord
from lcq.state.glance import TaskGlance
from lcq.state.manager import StateManager
from tests.nodes import HEAVY, LIGHT, NS, Node, a_failure, a_task
from tui.store import same, task_row

DUE = datetime(2026, 12, 24, 9, 0, 0, 123_456, tzinfo=UTC)


async def in_many_states(state: StateManager) -> list[str]:
    """The ids of tasks of every kind: waiting, due later, running, ended so and so, with notes."""
    node = Node(state)
    await node.hello()
    tasks = [
        a_task(user_id=f"studio-{n}", job="spring" if n % 2 else None, max_retries=n, deadline=DUE if n % 3 else None)
        for n in range(6)
    ]
    for task in tasks:
        await state.submit_task(task, queue=LIGHT, size=(4096, 2730) if task.job else None)
    grants = await node.claim(4)
    await node.finish(grants[0].task.id, grants[0].attempt)
    await node.fail(grants[1].task.id, grants[1].attempt, a_failure(ErrorClass.BAD_INPUT, "oom"))
    await node.beat(*((grant.task.id, grant.attempt) for grant in grants[2:]))
    waits = a_task(NS, priority=TaskPriority.URGENT, image_path="/photos/猫 [red].jpg")
    await state.submit_task(waits, queue=HEAVY)
    await state.cancel_task(tasks[5].id, why="duplicate")
    await state.comment_task(tasks[0].id, actor="maria", text="the mask is off")
    return [*(task.id for task in tasks), waits.id]


async def test_a_glance_shows_what_the_record_says_in_every_state(state: StateManager) -> None:
    ids = await in_many_states(state)
    records = await state.reader.tasks(ids)
    glances = await state.reader.glances([*ids, "0000000000000000", "no id"])
    assert [one.id for one in glances] == ids
    assert all(isinstance(one, TaskGlance) for one in glances)
    assert len({record.status for record in records.values()}) >= 4
    assert {task_row(one).size for one in glances} == {"", "4096x2730"}
    assert {task_row(one).done_by_ms for one in glances} == {None, round(DUE.timestamp() * 1000)}
    events = (await state.reader.events("0-0", limit=500)).events
    due = {event.fields["id"]: event.fields["done_by_ms"] for event in events if event.move == "submit_task"}
    assert all(due[one.id] == str(one.done_by_ms or "") for one in glances)
    assert {event.fields["size"] for event in events if event.move == "submit_task"} == {"", "4096x2730"}
    for one in glances:
        assert same(task_row(one), task_row(records[one.id])), one


@pytest.mark.parametrize("field", ["status", "rev", "priority", "queue", "max_retries", "submitted_ms"])
async def test_what_cannot_be_read_at_a_glance_is_shown_as_its_record_is_and_hides_no_other(
    state: StateManager, redis_url: str, field: str
) -> None:
    ids = [(await state.submit_task(a_task(), queue=LIGHT)).id for _ in range(3)]
    with redis.Redis.from_url(redis_url) as eye:
        eye.hset(state.reader.keys.task(ids[1]), field, "?")
        eye.delete(state.reader.keys.task(ids[2]))
        eye.set(state.reader.keys.task(ids[2]), "a string")
    found = {one.id: one for one in await state.reader.glances(ids)}
    whole = await state.reader.tasks(ids)
    assert sorted(found) == sorted(ids)
    assert isinstance(found[ids[0]], TaskGlance)
    for task_id in ids[1:]:
        record = found[task_id]
        if isinstance(record, TaskRecord):
            assert record == whole[task_id]
        else:
            assert field == "queue", "any text is a queue's name"

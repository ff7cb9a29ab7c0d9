"""Quotas: how much may wait in a queue, how much of one user may run, how fast one may submit."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest
import redis

from lcq.config import DistributedConfig, QuotasConfig
from lcq.errors import QueueFull, TooSoon
from lcq.models import ErrorClass, TaskPriority, TaskStatus
from lcq.state.manager import StateManager
from tests.audit import audit
from tests.nodes import HEAVY, LIGHT, NS, Node, a_failure, a_task

URGENT, HIGH, NORMAL, LOW = TaskPriority
A_MINUTE_MS = 60_000


@pytest.fixture
async def limited(redis_url: str) -> AsyncIterator[Callable[..., StateManager]]:
    """A StateManager whose quotas are set, and set anew, by calling it."""
    async with StateManager(DistributedConfig(), url=redis_url) as state:

        def limit(**quotas: object) -> StateManager:
            state.config = state.config.model_copy(update={"quotas": QuotasConfig.model_validate(quotas)})
            return state

        yield limit


Limit = Callable[..., StateManager]


async def node_of(state: StateManager, node_id: str = "node-1") -> Node:
    node = Node(state, node_id)
    await node.hello()
    return node


async def submitted(state: StateManager, count: int = 1, *, queue: str = LIGHT, **fields: object) -> list[str]:
    tasks = [a_task(**fields) for _ in range(count)]  # type: ignore[arg-type]
    return [(await state.submit_task(task, queue=queue)).id for task in tasks]


# ---------------------------------------------------------------- how much may wait


async def test_a_full_queue_refuses_and_says_how_full_it_is(limited: Limit, eye: redis.Redis) -> None:
    state = limited(queued=3)
    await submitted(state, 3)
    with pytest.raises(QueueFull, match=r"queue cpu-light is full: 3 tasks wait, at most 3 may") as caught:
        await submitted(state)
    assert "quotas.queued" in caught.value.hint
    assert len(audit(eye).tasks) == 3


async def test_a_full_queue_answers_who_asks_again_and_other_queues_take_tasks(limited: Limit) -> None:
    state = limited(queued=1, queues={HEAVY: 2})
    task = a_task()
    await state.submit_task(task, queue=LIGHT)
    assert (await state.submit_task(task, queue=LIGHT)).duplicate
    await submitted(state, 2, queue=HEAVY)
    with pytest.raises(QueueFull, match=r"cpu-intensive is full: 2 tasks"):
        await submitted(state, queue=HEAVY)


async def test_there_is_room_again_when_one_starts_or_is_cancelled(limited: Limit) -> None:
    state = limited(queued=2)
    node = await node_of(state)
    first, second = await submitted(state, 2)
    assert await node.claim_ids(1) == [first]
    await submitted(state)
    await state.cancel_task(second)
    await submitted(state)
    await node.release(first)  # what comes back is never refused
    with pytest.raises(QueueFull, match="3 tasks wait, at most 2"):
        await submitted(state)


async def test_what_waits_for_its_time_counts_too(limited: Limit) -> None:
    state = limited(queued=1)
    await state.submit_task(a_task(), queue=LIGHT, due_ms=2**51)
    with pytest.raises(QueueFull):
        await submitted(state)


async def test_a_limit_may_be_set_and_lifted_while_all_runs(limited: Limit) -> None:
    await submitted(limited(), 5)
    with pytest.raises(QueueFull):
        await submitted(limited(queued=5))
    await submitted(limited(queued=6))
    await submitted(limited())


async def test_an_urgent_task_is_refused_too_unless_it_may_displace(limited: Limit, eye: redis.Redis) -> None:
    low = await submitted(limited(queued=1), priority=LOW)
    with pytest.raises(QueueFull):
        await submitted(limited(queued=1), priority=URGENT)
    assert set(audit(eye).tasks) == set(low)


async def test_an_urgent_task_displaces_the_youngest_of_the_lowest_band(limited: Limit, eye: redis.Redis) -> None:
    state = limited(queued=5, displace=True)
    (normal,) = await submitted(state, priority=NORMAL)
    old, young = await submitted(state, 2, priority=LOW, job="folder")
    for index in ("band:cpu-light:low", "waiting:cpu-light"):
        eye.zadd(f"{{lcq}}:{index}", {old: 1})
    eye.hset(f"{{lcq}}:task:{old}", "queued_ms", 1)
    await submitted(state, 2, priority=HIGH)
    (urgent,) = await submitted(state, priority=URGENT)
    record = await state.reader.task(young)
    assert record.status == TaskStatus.CANCELLED
    assert record.why == f"displaced by the urgent task {urgent}: cpu-light is full (at most 5 may wait)"
    assert (await state.reader.totals())["displaced"] == 1
    told = [fields for _, fields in audit(eye).events if fields.get("displaced_by") == urgent]
    assert [(fields["id"], fields["move"], fields["status"]) for fields in told] == [
        (young, "cancel_task", "cancelled")
    ]
    await submitted(state, 2, priority=URGENT)
    assert (await state.reader.task(old)).status == TaskStatus.CANCELLED
    assert (await state.reader.task(normal)).status == TaskStatus.CANCELLED, "then the next band is the lowest"


async def test_none_but_the_urgent_displace_and_the_urgent_are_not_displaced(limited: Limit, eye: redis.Redis) -> None:
    state = limited(queued=1, displace=True)
    await submitted(state, priority=LOW)
    with pytest.raises(QueueFull):
        await submitted(state, priority=HIGH)
    (urgent,) = await submitted(state, priority=URGENT)
    with pytest.raises(QueueFull, match="is full") as caught:
        await submitted(state, priority=URGENT)
    assert "all that waits there is urgent" in caught.value.hint
    assert (await state.reader.task(urgent)).status == TaskStatus.QUEUED
    audit(eye)


async def test_submits_at_the_same_time_do_not_get_over_the_limit(limited: Limit, eye: redis.Redis) -> None:
    state = limited(queued=7)
    told = await asyncio.gather(*(submitted(state) for _ in range(30)), return_exceptions=True)
    assert sum(isinstance(one, QueueFull) for one in told) == 23
    assert len(audit(eye).tasks) == 7


# ---------------------------------------------------------------- how fast


async def test_a_user_may_submit_so_many_a_minute_and_is_told_when_to_come_again(
    limited: Limit, eye: redis.Redis
) -> None:
    state = limited(per_minute=6, users={"bot": {"per_minute": 600}})
    await submitted(state, 6, user_id="ann")
    with pytest.raises(TooSoon, match="user ann may submit 6 tasks a minute, and has") as caught:
        await submitted(state, user_id="ann")
    assert 0 < caught.value.again_s <= 10
    assert f"again in {caught.value.again_s:.1f} s" in caught.value.hint
    await submitted(state, 6, user_id="bob")
    await submitted(state, 20, user_id="bot")
    assert len(audit(eye).tasks) == 32


async def test_after_that_time_one_more_is_taken_and_asking_again_costs_nothing(
    limited: Limit, eye: redis.Redis
) -> None:
    state = limited(per_minute=6)
    task = a_task(user_id="ann")
    for _ in range(20):
        await state.submit_task(task, queue=LIGHT)
    await submitted(state, 5, user_id="ann")
    with pytest.raises(TooSoon) as caught:
        await submitted(state, user_id="ann")
    spent = float(eye.get("{lcq}:rate:ann")) - caught.value.again_s * 1000  # as long ago as it says
    eye.set("{lcq}:rate:ann", spent, px=A_MINUTE_MS)
    await submitted(state, user_id="ann")
    with pytest.raises(TooSoon):
        await submitted(state, user_id="ann")


async def test_a_refused_submit_costs_nothing_of_the_rate(limited: Limit, eye: redis.Redis) -> None:
    state = limited(per_minute=2, queued=1)
    (first,) = await submitted(state, user_id="ann")
    with pytest.raises(QueueFull):
        await submitted(state, user_id="ann")
    await state.cancel_task(first)
    await submitted(state, user_id="ann")
    audit(eye)


async def test_a_clock_that_was_set_back_keeps_nobody_out_for_long(limited: Limit, eye: redis.Redis) -> None:
    state = limited(per_minute=60)
    eye.set("{lcq}:rate:ann", 2**45, px=A_MINUTE_MS)
    with pytest.raises(TooSoon) as caught:
        await submitted(state, user_id="ann")
    assert caught.value.again_s <= 1


# ---------------------------------------------------------------- how much may run


async def test_a_user_has_so_many_running_and_others_pass(limited: Limit, eye: redis.Redis) -> None:
    state = limited(in_flight=2)
    node = await node_of(state)
    ann = await submitted(state, 30, user_id="ann", priority=HIGH)
    bob = await submitted(state, 3, user_id="bob", priority=LOW)
    assert await node.claim_ids(9) == [*ann[:2], *bob[:2]]
    audit(eye)
    assert await node.claim_ids(9) == []
    await node.finish(bob[0])
    await node.finish(ann[1])
    assert await node.claim_ids(9) == [ann[2], bob[2]]
    audit(eye)


async def test_thousands_at_the_limit_do_not_hide_one_task_behind_them(limited: Limit, eye: redis.Redis) -> None:
    state = limited(users={"ann": {"in_flight": 1}})
    node = await node_of(state)
    ann = await asyncio.gather(*(submitted(state, user_id="ann", priority=HIGH) for _ in range(1500)))
    assert [await node.claim_ids(1)] == [ann[0]]
    (bob,) = await submitted(state, user_id="bob", priority=LOW)
    assert await node.claim_ids(4) == [bob]
    await node.finish(ann[0][0])
    assert [await node.claim_ids(1)] == [ann[1]], "and they kept their places"
    audit(eye)


@pytest.mark.parametrize("how", ["finish", "crash", "hand-back", "lost node", "cancel", "lost lease"])
async def test_however_an_attempt_ends_the_next_may_start(limited: Limit, eye: redis.Redis, how: str) -> None:
    state = limited(in_flight=1)
    node = await node_of(state)
    first, second = await submitted(state, 2, user_id="ann")
    assert await node.claim_ids(2) == [first]
    assert await node.claim_ids(2) == []
    match how:
        case "finish":
            await node.finish(first)
        case "crash":
            await node.fail(first, 1, a_failure(ErrorClass.BAD_INPUT, "not_found"))
        case "hand-back":
            await node.release(first)
        case "lost node":
            await node.lose()
            await node.hello()
        case "lost lease":
            eye.zadd("{lcq}:leases", {first: 1})
            await state.expire_leases()
        case "cancel":
            await state.cancel_task(first)
    audit(eye)
    assert await node.claim_ids(2) == [first if how in ("hand-back", "lost node", "lost lease") else second]
    assert await node.claim_ids(2) == []
    audit(eye)


async def test_what_was_kept_back_can_be_moved_and_cancelled(limited: Limit, eye: redis.Redis) -> None:
    state = limited(in_flight=1)
    node = await node_of(state)
    ids = await submitted(state, 5, user_id="ann")
    assert await node.claim_ids(5) == ids[:1]
    assert await node.claim_ids(5) == []
    assert eye.exists("{lcq}:overs")
    await state.cancel_task(ids[1])
    await state.prioritise_task(ids[4], priority=URGENT)
    await state.reroute_task(ids[2], queue=HEAVY)
    audit(eye)
    await node.finish(ids[0])
    assert await node.claim_ids(5) == [ids[4]]
    for task_id in (ids[2], ids[3]):
        await state.cancel_task(task_id)
    audit(eye)
    assert not eye.exists("{lcq}:overs")


async def test_a_limit_that_is_lifted_brings_back_what_was_kept_back(limited: Limit, eye: redis.Redis) -> None:
    state = limited(in_flight=1)
    node = await node_of(state)
    ids = await submitted(state, 6, user_id="ann")
    assert await node.claim_ids(9) == ids[:1]
    assert await node.claim_ids(9) == []
    assert await limited(in_flight=3).recall_tasks() == 1
    audit(eye)
    assert await node.claim_ids(9) == ids[1:3]
    assert await limited().recall_tasks() == 0
    assert await node.claim_ids(9) == ids[3:]
    audit(eye)


async def test_tasks_that_no_node_can_run_do_not_take_the_users_turns_from_those_that_one_can(
    limited: Limit, eye: redis.Redis
) -> None:
    state = limited(in_flight=1)
    both, node = await node_of(state, "both"), Node(state, models=[NS])
    await node.hello()
    ids = await submitted(state, 4, user_id="ann")
    others = await submitted(state, 4, user_id="ann", config={"model": NS})
    assert await both.claim_ids(1) == ids[:1]
    assert await both.claim_ids(9) == []
    await both.finish(ids[0])
    await both.leave()
    assert await node.claim_ids(9) == others[:1]
    await node.finish(others[0])
    assert await node.claim_ids(9) == others[1:2]
    audit(eye)


async def test_a_mark_that_nobody_has_taken_away_does_not_count_for_ever(limited: Limit, eye: redis.Redis) -> None:
    state = limited(in_flight=1)
    node = await node_of(state)
    eye.hset("{lcq}:runs", "gone", "ann")  # as where a scheduler of an earlier version has ended it
    eye.hset("{lcq}:running", "ann", 1)
    (task_id,) = await submitted(state, user_id="ann")
    assert await node.claim_ids(1) == []
    await state.recall_tasks()
    assert await node.claim_ids(1) == [task_id]
    audit(eye)


async def test_users_jobs_take_turns_also_under_a_limit(limited: Limit, eye: redis.Redis) -> None:
    state = limited(in_flight=2)
    node = await node_of(state)
    first = await submitted(state, 10, user_id="ann", job="first")
    second = await submitted(state, 10, user_id="ann", job="second")
    order: list[str] = []
    while len(order) < 20:
        taken = await node.claim_ids(4)
        assert 1 <= len(taken) <= 2
        order += taken
        audit(eye)
        for task_id in taken:
            await node.finish(task_id)
    assert [task_id for task_id in order if task_id in first] == first
    assert len(set(order[:10]) & set(second)) == 5

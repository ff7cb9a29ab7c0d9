"""The order in which tasks start: bands, fair shares, age, places kept, lanes merged, warm models."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

import pytest
import redis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from lcq.config import DistributedConfig, SharesConfig
from lcq.models import DeviceReading, ErrorClass, TaskPriority
from lcq.state import scripts
from lcq.state.manager import StateManager
from lcq.state.scripts import BAND_SPANS, WARM_SPAN_S
from tests.audit import audit
from tests.nodes import HEAVY, LIGHT, NS, TELEA, Node, a_failure, a_task

URGENT, HIGH, NORMAL, LOW = TaskPriority


async def submitted(
    state: StateManager,
    *,
    user: str = "ann",
    priority: TaskPriority = NORMAL,
    model: str = TELEA,
    queue: str = LIGHT,
    node: str = "",
    cost_s: float = 1.0,
    max_retries: int = 3,
) -> str:
    task = a_task(model, user_id=user, priority=priority, max_retries=max_retries)
    return (await state.submit_task(task, queue=queue, node=node, cost_s=cost_s)).id


async def many(state: StateManager, count: int, *, user: str = "ann", priority: TaskPriority = NORMAL) -> list[str]:
    return [await submitted(state, user=user, priority=priority) for _ in range(count)]


async def started(node: Node, count: int, *, warm: Iterable[str] = ()) -> list[str]:
    """The ids of the next ``count`` tasks, claimed one by one."""
    ids = [await node.claim_ids(1, warm=tuple(warm)) for _ in range(count)]
    return [task_id for claimed in ids for task_id in claimed]


async def test_bands_go_before_each_other_and_age_decides_within_one(state: StateManager, node: Node) -> None:
    ids = {priority: await many(state, 3, priority=priority) for priority in (LOW, NORMAL, URGENT, HIGH)}
    assert await started(node, 12) == ids[URGENT] + ids[HIGH] + ids[NORMAL] + ids[LOW]


async def test_one_claim_of_many_slots_takes_the_same_order_as_many_claims_of_one(
    state: StateManager, node: Node
) -> None:
    ids = {priority: await many(state, 2, priority=priority) for priority in (LOW, URGENT, NORMAL)}
    assert await node.claim_ids(6) == ids[URGENT] + ids[NORMAL] + ids[LOW]


async def test_a_user_with_one_image_is_not_behind_anothers_five_hundred(state: StateManager, node: Node) -> None:
    await many(state, 500, user="ann")
    await started(node, 3)
    one = await submitted(state, user="bob")
    assert one in await started(node, 2)


@pytest.mark.parametrize("thousands", [1, pytest.param(10, marks=pytest.mark.chaos)])
async def test_one_image_behind_anothers_thousands_starts_with_the_next_free_slot(
    state: StateManager, node: Node, thousands: int
) -> None:
    for _ in range(thousands):
        await asyncio.gather(*(submitted(state, user="ann") for _ in range(1000)))
    running = await node.claim_ids(4)
    one = await submitted(state, user="bob")
    await node.finish(running[0])
    assert await node.claim_ids(1) == [one]


async def test_users_who_wait_together_share_evenly(state: StateManager, node: Node) -> None:
    ids = {user: await many(state, 20, user=user) for user in ("ann", "bob", "eve")}
    taken = set(await started(node, 30))
    assert [len(taken & set(mine)) for mine in ids.values()] == [10, 10, 10]


async def test_shares_are_of_predicted_seconds_and_not_of_tasks(state: StateManager, node: Node) -> None:
    long = [await submitted(state, user="ann", cost_s=4.0) for _ in range(20)]
    short = [await submitted(state, user="bob", cost_s=1.0) for _ in range(40)]
    taken = set(await started(node, 25))
    assert (len(taken & set(long)), len(taken & set(short))) == (5, 20)


async def test_within_a_user_the_oldest_starts_first(state: StateManager, node: Node) -> None:
    ids = await many(state, 30)
    assert await started(node, 30) == ids


async def test_an_urgent_task_overtakes_the_same_users_normal_ones(state: StateManager, node: Node) -> None:
    normal = await many(state, 50)
    urgent = await submitted(state, priority=URGENT)
    assert await started(node, 2) == [urgent, normal[0]]


async def test_a_task_made_urgent_later_overtakes_too_and_the_rest_keeps_its_order(
    state: StateManager, node: Node, eye: redis.Redis
) -> None:
    ids = await many(state, 10)
    await state.prioritise_task(ids[7], priority=URGENT)
    await state.prioritise_task(ids[0], priority=LOW)
    audit(eye)
    assert await started(node, 10) == [ids[7], *ids[1:7], *ids[8:], ids[0]]


@pytest.mark.parametrize("users", [1, 5])
async def test_a_low_task_does_not_starve_under_an_endless_stream_of_high_ones(
    state: StateManager, node: Node, users: int
) -> None:
    long_s = 100.0
    for n in range(users):
        await submitted(state, user=f"user {n}", priority=HIGH, cost_s=long_s)
    low = await submitted(state, user="bob", priority=LOW)
    patience = (BAND_SPANS[LOW] - BAND_SPANS[HIGH]) / long_s  # tasks of each high user that it lets pass
    for passed in range(int(users * (patience + 2))):
        (task_id,) = await started(node, 1)
        if task_id == low:
            assert passed >= users * patience
            return
        await submitted(state, user=f"user {passed % users}", priority=HIGH, cost_s=long_s)
    pytest.fail(f"it waited for more than {users} times {patience:g} tasks")


async def test_an_empty_queue_remembers_no_debts(state: StateManager, node: Node, eye: redis.Redis) -> None:
    await many(state, 20, user="ann")
    assert len(await started(node, 20)) == 20
    bob = await submitted(state, user="bob")
    ann = await submitted(state, user="ann")
    assert await started(node, 2) == [bob, ann]
    assert "fair:cpu-light" not in audit(eye).values


async def test_a_queue_emptied_by_cancelling_closes_its_books_too(
    state: StateManager, node: Node, eye: redis.Redis
) -> None:
    for task_id in await many(state, 5):
        await state.cancel_task(task_id)
    assert "fair:cpu-light" not in audit(eye).values


async def test_queues_keep_books_of_their_own(state: StateManager, node: Node) -> None:
    for _ in range(10):
        await submitted(state, user="ann", queue=HEAVY)
    ann = await submitted(state, user="ann", queue=LIGHT)
    bob = await submitted(state, user="bob", queue=LIGHT)
    assert await node.claim_ids(2) == [ann, bob], "what ann has in another queue, of other devices, counts for nothing"


# ---------------------------------------------------------------- places kept


@pytest.mark.parametrize("how", ["hand-back", "lost node", "crash"])
async def test_a_task_that_comes_back_has_its_old_place(state: StateManager, node: Node, how: str) -> None:
    ids = await many(state, 10)
    assert await started(node, 3) == ids[:3]
    match how:
        case "hand-back":
            await node.release(ids[1])
        case "crash":
            await node.fail(ids[1], 1, a_failure(ErrorClass.CRASH, "runner_died"))
        case "lost node":
            await node.lose()
            await node.beat()
    back = ids[:3] if how == "lost node" else ids[1:2]
    assert await started(node, len(back) + 1) == [*back, ids[3]]


async def test_a_retry_after_its_back_off_has_its_old_place(state: StateManager, node: Node, eye: redis.Redis) -> None:
    ids = await many(state, 5)
    await started(node, 2)
    await node.fail(ids[0], 1)
    assert await started(node, 1) == [ids[2]]
    eye.zadd("{lcq}:delayed", {ids[0]: 1})
    await state.release_due()
    assert await started(node, 2) == [ids[0], ids[3]]


async def test_a_task_that_comes_back_to_a_queue_that_was_empty_meanwhile_is_not_behind_new_ones(
    state: StateManager, node: Node
) -> None:
    ids = await many(state, 30)
    await started(node, 30)
    new = await many(state, 3, user="bob")
    await node.release(ids[29])
    assert await started(node, 4) == [ids[29], *new]


async def test_an_operators_retry_stands_in_line_anew(state: StateManager, node: Node) -> None:
    ids = await many(state, 3)
    await state.cancel_task(ids[0])
    await state.retry_task(ids[0], queue=LIGHT)
    assert await started(node, 3) == [ids[1], ids[2], ids[0]]


# ---------------------------------------------------------------- lanes, pins, avoidance, warmth


async def test_the_lanes_of_several_models_are_merged_in_order(state: StateManager, node: Node) -> None:
    ids = [await submitted(state, model=model) for model in (NS, TELEA, TELEA, NS, TELEA, NS)]
    assert await node.claim_ids(6) == ids


async def test_a_nodes_own_class_goes_first(state: StateManager) -> None:
    node = Node(state, queues=[HEAVY, LIGHT])
    await node.hello()
    light = await many(state, 3)
    heavy = [await submitted(state, queue=HEAVY) for _ in range(3)]
    assert await node.claim_ids(6) == [*heavy, *light]


async def test_what_is_pinned_to_a_node_goes_first_there_and_nowhere_else(
    state: StateManager, node: Node, eye: redis.Redis
) -> None:
    other = Node(state, "node-2")
    await other.hello()
    anyones = await submitted(state, priority=URGENT)
    pinned = await submitted(state, priority=LOW, node="node-1")
    audit(eye)
    assert await other.claim_ids(2) == [anyones]
    anyones = await submitted(state, priority=URGENT)
    assert await node.claim_ids(2) == [pinned, anyones]


async def test_a_node_that_failed_a_task_gets_it_only_where_there_is_no_other(
    state: StateManager, node: Node, eye: redis.Redis
) -> None:
    first, second = await many(state, 2)
    await started(node, 1)
    await node.fail(first, 1, a_failure(ErrorClass.BAD_OUTPUT, "size"))
    assert (await state.reader.task(first)).status == "queued"
    other = Node(state, "node-2")
    await other.hello()
    assert await started(node, 2) == [second], "node-2 could run the first, so node-1 leaves it"
    await state.drain_node("node-2")
    assert await started(node, 1) == [first], "now nobody else could"
    await node.fail(first, 2, a_failure(ErrorClass.BAD_OUTPUT, "size"))
    await state.activate_node("node-2")
    assert await started(other, 1) == [first]
    audit(eye)


@pytest.mark.parametrize("fault", ["rests: somebody plays on it", "fell off the bus"])
async def test_a_task_is_left_to_no_node_whose_devices_take_no_work(
    state: StateManager, node: Node, eye: redis.Redis, fault: str
) -> None:
    other = Node(state, "node-2")
    await other.hello()
    (first,) = await many(state, 1)
    await started(node, 1)
    await node.fail(first, 1, a_failure(ErrorClass.BAD_OUTPUT, "size"))
    assert await started(node, 1) == [], "node-2 could run it"
    await other.beat(readings={"cpu": DeviceReading(fault=fault)})
    assert await started(node, 1) == [first], "node-2 takes nothing"
    await node.fail(first, 2, a_failure(ErrorClass.BAD_OUTPUT, "size"))
    await other.beat(readings={"cpu": DeviceReading()})
    assert await started(node, 1) == []
    assert await started(other, 1) == [first]
    audit(eye)


async def test_a_node_with_another_model_is_no_elsewhere(state: StateManager, node: Node) -> None:
    other = Node(state, "node-2", models=[NS])
    await other.hello()
    first = await submitted(state, model=TELEA)
    await started(node, 1)
    await node.fail(first, 1, a_failure(ErrorClass.BAD_OUTPUT, "size"))
    assert await started(node, 1) == [first]


async def test_a_warm_model_goes_first_but_not_for_long(state: StateManager, node: Node) -> None:
    cold = await submitted(state, user="bob", model=NS)
    warm = [await submitted(state, user="ann", model=TELEA, cost_s=0.5) for _ in range(20)]
    order = await started(node, 21, warm=[TELEA])
    passed = order.index(cold)
    assert 1 <= passed <= WARM_SPAN_S / 0.5 + 1
    assert [task_id for task_id in order if task_id != cold] == warm


async def test_a_warm_model_is_preferred_within_its_band_only(state: StateManager, node: Node) -> None:
    warm = await submitted(state, model=TELEA, priority=NORMAL)
    cold = await submitted(state, model=NS, priority=HIGH)
    assert await started(node, 2, warm=[TELEA]) == [cold, warm]


async def test_without_warmth_the_head_goes_first(state: StateManager, node: Node) -> None:
    ids = [await submitted(state, model=model) for model in (NS, TELEA)]
    assert await started(node, 2) == ids


async def test_a_paused_queue_gives_nothing_pinned_tasks_included_and_others_go_on(
    state: StateManager, eye: redis.Redis
) -> None:
    node = Node(state, queues=[LIGHT, HEAVY])
    await node.hello()
    light, pinned = await submitted(state), await submitted(state, node="node-1")
    heavy = await submitted(state, queue=HEAVY)
    await state.pause_queue(LIGHT, actor="ann")
    assert await node.claim_ids(9) == [heavy]
    assert (await state.reader.ready())[LIGHT] == 0
    assert (await state.reader.waiting())[LIGHT] == 2
    await state.resume_queue(LIGHT, actor="ann")
    assert await node.claim_ids(9) == [pinned, light]
    audit(eye)


# ---------------------------------------------------------------- users' weights


async def test_a_user_of_twice_the_weight_gets_twice_the_work_done(redis_url: str) -> None:
    config = DistributedConfig(shares=SharesConfig(users={"ann": 2.0}))
    async with StateManager(config, url=redis_url) as state:
        node = Node(state)
        await node.hello()
        ann = await many(state, 40, user="ann")
        bob = await many(state, 40, user="bob")
        taken = set(await started(node, 30))
    assert (len(taken & set(ann)), len(taken & set(bob))) == (20, 10)


async def test_a_weight_counts_for_what_is_submitted_after_it_was_changed(state: StateManager, node: Node) -> None:
    bob = await many(state, 40, user="bob")
    state.config = state.config.model_copy(update={"shares": SharesConfig(default=1.0, users={"ann": 4.0})})
    ann = await many(state, 40, user="ann")
    taken = set(await started(node, 25))
    assert (len(taken & set(ann)), len(taken & set(bob))) == (20, 5)


# ---------------------------------------------------------------- the jobs of one user


async def a_job(state: StateManager, job: str, count: int, *, user: str = "ann", **more: object) -> list[str]:
    tasks = [a_task(user_id=user, job=job, **more) for _ in range(count)]
    return [(await state.submit_task(task, queue=LIGHT)).id for task in tasks]


async def test_one_image_of_a_users_second_job_does_not_wait_for_the_hundreds_of_the_first(
    state: StateManager, node: Node, eye: redis.Redis
) -> None:
    folder = await a_job(state, "folder", 300)
    assert await started(node, 3) == folder[:3]
    (one,) = await a_job(state, "one", 1)
    order = await started(node, 4)
    audit(eye)
    assert one in order[:3]
    assert [task_id for task_id in order if task_id != one] == folder[3:6], "and the first keeps its own order"


async def test_two_jobs_of_one_user_share_what_the_user_gets_and_each_keeps_its_order(
    state: StateManager, node: Node, eye: redis.Redis
) -> None:
    first, second = await a_job(state, "first", 40), await a_job(state, "second", 40)
    other = await a_job(state, "other", 40, user="bob")
    order = await started(node, 40)
    audit(eye)
    assert len(set(order) & set(other)) == 20, "who has two jobs gets no more than who has one"
    assert abs(len(set(order) & set(first)) - len(set(order) & set(second))) <= 1
    for job in (first, second, other):
        assert [task_id for task_id in order if task_id in job] == job[: len(set(order) & set(job))]


async def test_jobs_share_also_across_models(state: StateManager, node: Node, eye: redis.Redis) -> None:
    first = await a_job(state, "first", 30)
    second = await a_job(state, "second", 30, config={"model": NS})
    order = await node.claim_ids(8)
    audit(eye)
    assert len(set(order) & set(first)) == len(set(order) & set(second)) == 4


async def test_an_endless_row_of_new_jobs_does_not_stop_the_users_first_one(state: StateManager, node: Node) -> None:
    first = await a_job(state, "z", 10)
    order: list[str] = []
    for n in range(30):
        await a_job(state, f"job {n}", 1)
        order += await started(node, 1)
    assert len(set(order) & set(first)) >= 3, "as many jobs wait as there are rounds: it has its share of them"


async def test_a_task_that_comes_back_has_its_old_place_in_its_job(
    state: StateManager, node: Node, eye: redis.Redis
) -> None:
    first = await a_job(state, "first", 10)
    await a_job(state, "second", 10)
    taken = await started(node, 6)
    await node.release(first[0])
    order = await started(node, 2)
    audit(eye)
    assert taken[0] == first[0]
    assert first[0] in order


async def test_what_a_lane_has_and_no_line_knows_is_started_all_the_same(
    state: StateManager, node: Node, eye: redis.Redis
) -> None:
    """So it is with what a scheduler of an earlier version has taken in; what that one has started stays started."""
    ids = await a_job(state, "first", 3)
    for key in [*eye.scan_iter("{lcq}:turn:*"), *eye.scan_iter("{lcq}:line:*")]:
        eye.delete(key)
    eye.zadd("{lcq}:turn:cpu-light:normal:ann", {"gone": 0})
    eye.zadd("{lcq}:line:cpu-light:normal:ann:gone", {"task-1-0000": 0})
    assert await started(node, 3) == ids
    audit(eye)


# ---------------------------------------------------------------- over the queues of one device


@pytest.fixture
async def both(state: StateManager) -> Node:
    """A node whose own class is HEAVY, and that serves LIGHT too."""
    node = Node(state, queues=[HEAVY, LIGHT])
    await node.hello()
    return node


@pytest.mark.parametrize("queue", [HEAVY, LIGHT])
async def test_one_image_starts_with_the_next_slot_whatever_queue_it_waits_in(
    state: StateManager, both: Node, eye: redis.Redis, queue: str
) -> None:
    flood = [await submitted(state, user="ann", queue=HEAVY) for _ in range(60)]
    assert await started(both, 5) == flood[:5]
    one = await submitted(state, user="bob", queue=queue)
    assert await started(both, 2) == [one, flood[5]]
    audit(eye)


async def test_one_image_behind_its_queues_flood_starts_soon_although_that_floods_the_class_above_too(
    state: StateManager, both: Node
) -> None:
    for queue in (HEAVY, LIGHT):
        for _ in range(40):
            await submitted(state, user="ann", queue=queue)
    await started(both, 5)
    one = await submitted(state, user="bob", queue=LIGHT)
    assert one in await started(both, 2)


async def test_users_share_a_device_evenly_by_predicted_seconds_wherever_they_wait(
    state: StateManager, both: Node, eye: redis.Redis
) -> None:
    """Three users: one in each queue, one in both; long tasks and short ones."""
    ids = {
        "ann": [await submitted(state, user="ann", queue=HEAVY, cost_s=3.0) for _ in range(20)],
        "bob": [await submitted(state, user="bob", queue=LIGHT, cost_s=1.0) for _ in range(60)],
        "eve": [await submitted(state, user="eve", queue=q, cost_s=1.5) for q in (HEAVY, LIGHT) for _ in range(25)],
    }
    taken = set(await started(both, 60))
    audit(eye)
    had = {user: len(taken & set(mine)) * {"ann": 3.0, "bob": 1.0, "eve": 1.5}[user] for user, mine in ids.items()}
    assert max(had.values()) - min(had.values()) <= 2 * 3.0, had


async def test_a_weight_counts_over_queues_too(redis_url: str) -> None:
    config = DistributedConfig(shares=SharesConfig(users={"ann": 2.0}))
    async with StateManager(config, url=redis_url) as state:
        node = Node(state, queues=[HEAVY, LIGHT])
        await node.hello()
        ann = [await submitted(state, user="ann", queue=LIGHT) for _ in range(40)]
        bob = [await submitted(state, user="bob", queue=HEAVY) for _ in range(40)]
        taken = set(await started(node, 30))
    assert abs(len(taken & set(ann)) - 20) <= 1
    assert len(taken & set(ann)) + len(taken & set(bob)) == 30


async def test_an_urgent_task_goes_before_the_class_above_and_a_low_one_is_passed_for_as_long_as_its_band_says(
    state: StateManager, both: Node
) -> None:
    long_s = 200.0
    normal = [await submitted(state, user="ann", queue=HEAVY, cost_s=long_s) for _ in range(40)]
    low = await submitted(state, user="bob", queue=LIGHT, priority=LOW)
    urgent = await submitted(state, user="eve", queue=LIGHT, priority=URGENT)
    order = await started(both, 22)
    assert order[:2] == [urgent, normal[0]]
    passed = order.index(low) - 1  # but the urgent one
    assert (
        (BAND_SPANS[LOW] - BAND_SPANS[NORMAL]) / long_s <= passed <= (BAND_SPANS[LOW] - BAND_SPANS[NORMAL]) / long_s + 1
    )


async def test_what_was_had_of_other_devices_counts_for_nothing(state: StateManager, both: Node, node: Node) -> None:
    small = Node(state, "node-9", queues=[LIGHT])
    await small.hello()
    mine = [await submitted(state, user="bob", queue=LIGHT) for _ in range(30)]
    assert await started(small, 20) == mine[:20]
    flood = [await submitted(state, user="ann", queue=HEAVY) for _ in range(10)]
    taken = await started(both, 10)
    assert abs(len(set(taken) & set(flood)) - 5) <= 1


async def test_an_elder_starts_although_new_users_of_the_class_above_come_and_come(
    state: StateManager, both: Node, eye: redis.Redis
) -> None:
    old = [await submitted(state, user="ann", queue=LIGHT) for _ in range(3)]
    assert await started(both, 1) == old[:1]  # so that its user is not the one who has had least
    eye.zadd("{lcq}:waiting:cpu-light", {old[1]: 1})
    eye.hset(f"{{lcq}}:task:{old[1]}", "queued_ms", "1")
    eye.zadd("{lcq}:band:cpu-light:normal", {old[1]: 1})
    order: list[str] = []
    for n in range(12):
        await submitted(state, user=f"user {n}", queue=HEAVY)
        order += await started(both, 1)
    audit(eye)
    assert old[1] in order
    assert old[2] not in order, "it has not waited for as long"


@settings(
    max_examples=12, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck), phases=[Phase.generate]
)
@given(
    demand=st.lists(
        st.tuples(st.sampled_from("abcd"), st.sampled_from([HEAVY, LIGHT]), st.sampled_from([0.5, 1.0, 2.0])),
        min_size=1,
        max_size=6,
    ),
    wants=st.lists(st.integers(1, 4), min_size=8, max_size=16),
)
def test_whoever_waits_all_the_time_has_as_much_as_any_other_but_for_one_task(
    redis_url: str, demand: list[tuple[str, str, float]], wants: list[int]
) -> None:
    """Each of the demands is a flood: whatever starts of it is replaced at once."""

    async def run() -> dict[str, float]:
        had: dict[str, float] = dict.fromkeys((user for user, _, _ in demand), 0.0)
        of: dict[str, tuple[str, str, float]] = {}
        async with StateManager(url=redis_url) as state:
            node = Node(state, queues=[HEAVY, LIGHT])
            await node.hello()

            async def more(flood: tuple[str, str, float]) -> None:
                user, queue, cost_s = flood
                of[await submitted(state, user=user, queue=queue, cost_s=cost_s)] = flood

            for flood in demand * 8:
                await more(flood)
            for want in wants:
                for task_id in await node.claim_ids(want):
                    had[of[task_id][0]] += of[task_id][2]
                    await more(of[task_id])
        return had

    with redis.Redis.from_url(redis_url) as eye:
        eye.flushall()
    had = asyncio.run(run())
    assert max(had.values()) - min(had.values()) <= 2.0 + 1e-6, had


# ---------------------------------------------------------------- the book of a queue


async def test_the_book_forgets_users_whose_debt_is_paid(state: StateManager, node: Node, eye: redis.Redis) -> None:
    low = await submitted(state, user="low", priority=LOW, cost_s=1.0)
    for n in range(200):
        user = f"user {n}"
        await submitted(state, user=user, cost_s=0.5)
        await submitted(state, user=user, cost_s=0.5)
        assert low not in await started(node, 2)
    assert eye.zcard("{lcq}:waiting:cpu-light") == 1
    assert eye.hlen("{lcq}:fair:cpu-light") < 100


async def test_a_book_has_an_end_also_where_virtual_time_stands_still(
    redis_url: str, monkeypatch: pytest.MonkeyPatch, eye: redis.Redis
) -> None:
    monkeypatch.setattr(scripts, "MOST_SHARES", 100)
    async with StateManager(url=redis_url) as state:
        debtor = await many(state, 50, user="debtor")
        for n in range(300):
            await submitted(state, user=f"user {n}", cost_s=0.5)
        book = eye.hgetall("{lcq}:fair:cpu-light")
    assert len(book) <= 102
    assert float(book["normal:debtor"]) == len(debtor), "who owes most is not the one to be forgotten"

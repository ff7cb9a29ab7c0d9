"""Whole jobs: paused and resumed in their places, and acted on in pieces that may break off anywhere."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable

import pytest
import redis

from lcq.client import AsyncClient
from lcq.config import DistributedConfig
from lcq.errors import JobNotFound, TransitionRefused
from lcq.jobs import JobActs
from lcq.models import TaskPriority, TaskStatus
from lcq.scheduler import Scheduler
from lcq.state.manager import StateManager
from lcq.why import why_of
from lcq.wire import CancelJob
from tests.audit import audit
from tests.conftest import wait_until
from tests.nodes import LIGHT, NS, TELEA, Node, a_failure, a_task


@pytest.fixture
async def state(redis_url: str) -> AsyncIterator[StateManager]:
    async with StateManager(url=redis_url) as state:
        yield state


@pytest.fixture
def eye(redis_url: str) -> Iterable[redis.Redis]:
    with redis.Redis.from_url(redis_url, decode_responses=True) as client:
        yield client


@pytest.fixture
async def scheduler(redis_url: str) -> AsyncIterator[Scheduler]:
    config = DistributedConfig(zeromq={"base_port": 0, "control_port": 0})  # type: ignore[arg-type]
    async with Scheduler(config, redis_url=redis_url) as scheduler:
        yield scheduler


def client_of(scheduler: Scheduler) -> AsyncClient:
    address = scheduler.control_endpoint.removeprefix("tcp://")
    return AsyncClient(DistributedConfig(), scheduler=address, actor="ann", timeout_s=60)


async def submit(
    state: StateManager, job: str, count: int, *, user: str = "ann", model: str = TELEA, cost_s: float = 1.0
) -> list[str]:
    tasks = [a_task(model, job=job, user_id=user) for _ in range(count)]
    for task in tasks:
        await state.submit_task(task, queue=LIGHT, cost_s=cost_s)
    return [task.id for task in tasks]


async def walk(state: StateManager, job: str) -> int:
    moved = 0
    while True:
        more, is_last = await state.move_aside(job)
        moved += more
        if is_last:
            return moved


async def places(state: StateManager) -> list[str]:
    return [task_id for model in (TELEA, NS) for task_id in await state.reader.lane_ids(LIGHT, model, limit=10_000)]


# ---------------------------------------------------------------- pausing


async def test_a_paused_jobs_tasks_wait_aside_and_come_back_to_the_very_places_they_had(
    state: StateManager, eye: redis.Redis
):
    mine = await submit(state, "mine", 6)
    other = await submit(state, "other", 3, user="ben")
    second = await submit(state, "mine", 2, model=NS)
    before, scores = await places(state), eye.zrange(f"{{lcq}}:lane:{LIGHT}:{TELEA}", 0, -1, withscores=True)
    await state.pause_job("mine", actor="ann", reason="lunch")
    assert await walk(state, "mine") == len(mine) + len(second)
    assert await places(state) == other
    audit(eye)
    node = Node(state)
    await node.hello()
    assert await node.claim_ids(9) == other
    await state.resume_job("mine", actor="ann")
    assert await walk(state, "mine") == len(mine) + len(second)
    assert await places(state) == [task_id for task_id in before if task_id not in other]
    now = dict(eye.zrange(f"{{lcq}}:lane:{LIGHT}:{TELEA}", 0, -1, withscores=True))
    assert now.items() <= dict(scores).items()
    audit(eye)


async def test_nothing_of_a_job_starts_from_the_moment_it_is_paused_before_its_tasks_are_aside(
    state: StateManager, eye: redis.Redis
):
    await submit(state, "mine", 40)
    node = Node(state)
    await node.hello()
    (running,) = await node.claim(1)
    await state.pause_job("mine", actor="ann")
    assert await node.claim(4) == ()
    assert await node.claim(4) == ()
    await node.finish(running.task.id)
    late = await submit(state, "mine", 1)
    record = await state.reader.task(late[0])
    fleet = await state.reader.fleet()
    why = why_of(record, fleet)
    assert (why.text, why.hint) == ("job mine is paused by ann", "lcq resume --job mine")
    assert fleet.waiting[LIGHT] < 39, "what has gone aside is no backlog"
    await walk(state, "mine")
    assert await places(state) == []
    audit(eye)
    await state.resume_job("mine", actor="ann")
    await walk(state, "mine")
    assert len(await node.claim(50)) == 40


async def test_another_job_of_the_same_user_does_not_stand_behind_the_paused_one(state: StateManager):
    await submit(state, "big", 50, cost_s=10)
    bens = await submit(state, "bens", 5, user="ben", cost_s=10)
    await state.pause_job("big", actor="ann")
    await walk(state, "big")
    small = await submit(state, "small", 1, cost_s=10)
    assert (await places(state)).index(small[0]) <= 1
    assert set(await places(state)) == {*bens, *small}


async def test_every_move_on_a_task_that_is_aside_leaves_the_books_right(state: StateManager, eye: redis.Redis):
    node = Node(state)
    await node.hello()
    ids = await submit(state, "mine", 8)
    granted = await node.claim(2)
    await state.pause_job("mine", actor="ann")
    await walk(state, "mine")
    await node.release(granted[0].task.id)
    await node.fail(granted[1].task.id, failure=a_failure(code="lost"))
    rest = [task_id for task_id in ids if task_id not in {grant.task.id for grant in granted}]
    await state.cancel_task(rest[0])
    await state.reroute_task(rest[1], queue="gpu-low")
    await state.reroute_task(rest[2], queue=LIGHT, node="node-1")
    await state.prioritise_task(rest[3], priority=TaskPriority.URGENT)
    await state.retry_task(rest[0], queue=LIGHT)

    async def none_is_delayed() -> bool:  # one in a thousand is due at once
        await state.release_due()
        return not eye.exists("{lcq}:delayed")

    await wait_until(none_is_delayed, what="the one that failed is due")
    assert await node.claim(20) == ()
    audit(eye)
    await state.resume_job("mine", actor="ann")
    await walk(state, "mine")
    audit(eye)
    assert len(await node.claim(20)) == 7, "all but the one in another queue"
    audit(eye)


async def test_a_walk_that_breaks_off_is_ended_by_the_next_scheduler(
    state: StateManager, eye: redis.Redis, redis_url: str
):
    ids = await submit(state, "mine", 450)
    await state.pause_job("mine", actor="ann")
    moved, is_last = await state.move_aside("mine")
    assert 0 < moved < len(ids)
    assert not is_last
    config = DistributedConfig(zeromq={"base_port": 0, "control_port": 0})  # type: ignore[arg-type]
    async with Scheduler(config, redis_url=redis_url):
        await wait_until(lambda: not eye.exists("{lcq}:walks"), timeout=60, what="the walk is ended")
        assert eye.zcard(f"{{lcq}}:aside:{LIGHT}") == len(ids)
        await state.resume_job("mine", actor="ann")
        await state.pause_job("mine", actor="ann")  # before the way back has come to its end
        await wait_until(lambda: not eye.exists("{lcq}:walks"), timeout=60, what="and that one")
        assert eye.zcard(f"{{lcq}}:aside:{LIGHT}") == len(ids)
    audit(eye)


async def test_a_job_is_paused_once_and_one_that_is_not_there_never(state: StateManager, eye: redis.Redis):
    with pytest.raises(JobNotFound):
        await state.pause_job("nope", actor="ann")
    await submit(state, "mine", 1)
    with pytest.raises(TransitionRefused, match="not paused"):
        await state.resume_job("mine", actor="ann")
    await state.pause_job("mine", actor="ann", command="c1")
    await state.pause_job("mine", actor="ann", command="c1")
    with pytest.raises(TransitionRefused, match="paused already"):
        await state.pause_job("mine", actor="ben", command="c2")
    assert (await state.reader.jobs(name="mine"))[0].paused == "by ann"


async def test_a_pause_is_forgotten_with_the_last_task_of_its_job(redis_url: str, eye: redis.Redis):
    config = DistributedConfig(retention={"completed_s": 0.01, "failed_s": 0.01})  # type: ignore[arg-type]
    async with StateManager(config, url=redis_url) as state:
        (only,) = await submit(state, "mine", 1)
        await state.pause_job("mine", actor="ann")
        await state.cancel_task(only)
        await wait_until(state.forget_tasks, timeout=60, what="it is forgotten")
        assert not eye.exists("{lcq}:paused", "{lcq}:walks")
        audit(eye)


async def test_a_part_of_a_walk_moves_few_tasks_and_stops_early_where_they_take_long(
    state: StateManager, eye: redis.Redis
):
    await submit(state, "mine", 120)
    await state.pause_job("mine", actor="ann")
    script = state._scripts.digests["move_aside"]

    def part(looked_at: int, moved: int, ms: float) -> tuple[int, str]:
        _, count, is_last = eye.evalsha(script, 1, "{lcq}", "mine", looked_at, moved, ms)
        return count, is_last

    assert part(100, 25, 10_000) == (25, "0")
    assert part(10, 25, 10_000) == (10, "0")
    assert part(100, 25, 0) == (1, "0"), "one at least: it gets on, however slow the server is"
    assert eye.zcard(f"{{lcq}}:aside:{LIGHT}") == 36
    assert part(100, 200, 10_000) == (84, "1")
    audit(eye)


# ---------------------------------------------------------------- acts on all of a job


async def test_acts_on_a_job_are_done_task_by_task_and_kept_in_the_audit(scheduler: Scheduler, eye: redis.Redis):
    async with client_of(scheduler) as client:
        await client.submit_many([a_task(job="mine") for _ in range(700)])
        await client.submit_many([a_task(job="other")])
        answer = await client.prioritise_job("mine", TaskPriority.LOW, reason="later")
        assert (answer.done, answer.refused, answer.seen, answer.total) == (700, (), 700, 700)
        assert (await client.reroute_job("mine", queue="gpu-low")).done == 700
        await client.pause_job("mine", reason="lunch")
        assert [job.paused for job in await client.jobs("mine")] == ["by ann: lunch"]
        accepted = await client.submit(a_task(job="mine"))
        assert (await client.cancel_job("mine", reason="no more")).done == 701
        assert (await client.cancel_job("mine")).done == 0
        (job,) = await client.jobs("mine")
        assert job.counts == {TaskStatus.CANCELLED: 701}
        assert (await client.get(accepted.id)).why == "by ann: no more"
        assert (await client.retry_job("mine")).done == 0, "what was cancelled has not failed"
        with pytest.raises(JobNotFound):
            await client.cancel_job("nope")
    acts = [(fields["act"], fields["actor"], fields["reason"]) for _, fields in eye.xrange("{lcq}:acts")]
    # On a slow machine one of them may need several commands: each is an act.
    assert list(dict.fromkeys(act for act in acts if act[0].endswith("_job"))) == [
        ("prioritise_job", "ann", "later"), ("reroute_job", "ann", ""), ("pause_job", "ann", "lunch"),
        ("cancel_job", "ann", "no more"), ("cancel_job", "ann", ""), ("retry_job", "ann", ""),
    ]  # fmt: skip
    audit(eye)


async def test_failed_tasks_of_a_job_are_put_back_by_their_cause(scheduler: Scheduler, state: StateManager):
    node = Node(state)
    await node.hello()
    ids = [a_task(job="mine", max_retries=0) for _ in range(3)]
    for task, code in zip(ids, ("lost", "lost", "torn"), strict=True):
        await state.submit_task(task, queue=LIGHT)
        await node.claim(1)
        await node.fail(task.id, failure=a_failure(code=code))
    async with client_of(scheduler) as client:
        assert (await client.retry_job("mine", cause="torn")).done == 1
        assert (await client.retry_job("mine")).done == 2
        assert (await client.jobs("mine"))[0].counts == {TaskStatus.QUEUED: 3}


async def test_an_act_that_broke_off_is_told_again_under_its_id_and_counts_each_task_once(
    state: StateManager, eye: redis.Redis, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("lcq.jobs._LONGEST_S", 3600.0)  # nor does it break off by itself on a slow machine
    await submit(state, "mine", 600)
    left = 300
    act = CancelJob(job="mine", actor="ann")

    async def none_of_these(*_: object) -> None:
        pytest.fail("only cancel was asked for")

    async def cancel(act: CancelJob, task_id: str) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise asyncio.CancelledError  # the scheduler dies here
        await state.cancel_task(task_id, command=act.id)

    async def whole(act: CancelJob, task_id: str) -> None:
        await state.cancel_task(task_id, command=act.id)

    def acts(on_one) -> JobActs:
        others = {"prioritise": none_of_these, "retry": none_of_these, "reroute": none_of_these}
        return JobActs(state, state.reader.fleet, cancel=on_one, **others)

    with pytest.raises(asyncio.CancelledError):
        await acts(cancel).cancel(act)
    answer = await acts(whole).cancel(act)
    assert (answer.done, answer.after) == (600, "")
    assert (await state.reader.counts())[TaskStatus.CANCELLED] == 600
    audit(eye)

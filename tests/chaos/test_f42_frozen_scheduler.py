"""F-42: a scheduler that stood still takes nobody for dead for that, and what it still had in hand does no harm."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from lcq.client import AsyncClient
from lcq.config import DistributedConfig
from lcq.errors import StaleBoot
from lcq.models import DeviceKind, TaskStatus
from lcq.state.manager import StateManager
from lcq.wire import Running
from tests.audit import audit
from tests.cluster import Cluster, free_port, running_cluster
from tests.conftest import wait_until
from tests.light_node import LightNode, a_light_node
from tests.nodes import HEAVY, LIGHT, TELEA, Node, a_task, the_cpu

LOSSES = {"lose_node", "expire_leases"}


@pytest.fixture
def cluster(redis_url: str, tmp_path: Path) -> Iterator[Cluster]:
    with running_cluster(redis_url, tmp_path / "c") as cluster:
        yield cluster


@pytest.fixture
def eye(redis_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_url, decode_responses=True) as client:
        yield client


def losses(eye: redis.Redis) -> list[dict[str, str]]:
    return [fields for _, fields in eye.xrange("{lcq}:events") if fields["move"] in LOSSES]


def a_client(port: int, **more: object) -> AsyncClient:
    return AsyncClient(DistributedConfig(), scheduler=f"127.0.0.1:{port}", timeout_s=60)


@contextlib.contextmanager
def frozen(cluster: Cluster, name: str) -> Iterator[None]:
    cluster.kill(name, signal.SIGSTOP)
    try:
        yield
    finally:
        cluster.kill(name, signal.SIGCONT)


async def holding(node: LightNode, client: AsyncClient, count: int) -> list[str]:
    """Have ``node`` hold so many attempts."""
    ids = [(await client.submit(a_task(), node=node.name)).id for _ in range(count)]

    async def has_them() -> bool:
        await node.ask_for_work()
        return len(node.grants) == count

    await wait_until(has_them, what=f"{node.name} to hold {count} attempts")
    return ids


async def finish_and_count_attempts(node: LightNode, client: AsyncClient, ids: list[str]) -> list[int]:
    await node.membership.joined.wait()
    assert sorted(task_id for task_id, _ in node.grants) == sorted(ids), "it has been told that they are not its own"
    await node.finish_all()
    records = await client.wait(ids, timeout_s=60)
    assert {record.status for record in records} == {TaskStatus.COMPLETED}
    return [record.attempt for record in records]


async def freeze_alone(cluster: Cluster, eye: redis.Redis, seconds: float) -> None:
    cluster.start_scheduler()
    endpoint = f"tcp://127.0.0.1:{cluster.control_port}"
    async with a_client(cluster.control_port) as client, a_light_node([endpoint]) as node:
        ids = await holding(node, client, 3)
        with frozen(cluster, "scheduler"):
            stopped = time.monotonic()
            await asyncio.sleep(seconds)  # the fault itself: it stands still for longer than every lease
            stood_s = time.monotonic() - stopped
        woken = time.monotonic()
        await wait_until(lambda: node.beats[-1] > woken, timeout=60, what="a beat that is answered")
        heard_s = time.monotonic() - woken
        await wait_until(lambda: sum(beat > woken for beat in node.beats) > 10, timeout=60, what="judgement to be due")
        assert losses(eye) == []
        assert await finish_and_count_attempts(node, client, ids) == [1, 1, 1]
        print(f"\nstood still for {stood_s:.1f} s; heard its node again {heard_s:.2f} s after, and lost nobody")
    audit(eye)


async def test_f42_a_scheduler_that_stood_still_for_longer_than_the_leases_loses_nobody(
    cluster: Cluster, eye: redis.Redis
):
    await freeze_alone(cluster, eye, 4.5)


@pytest.mark.chaos
async def test_f42_a_scheduler_that_stood_still_for_a_minute_loses_nobody(redis_url, tmp_path, eye: redis.Redis):
    usual = {"LCQ_LEASES__BEAT_S": "3", "LCQ_LEASES__LEASE_S": "15", "LCQ_LEASES__LOST_AFTER_S": "1"}
    with running_cluster(redis_url, tmp_path / "c", **usual) as cluster:
        await freeze_alone(cluster, eye, 60)


@pytest.mark.chaos
async def test_f42_when_the_one_who_does_the_duties_stands_still_another_takes_them_over(
    cluster: Cluster, redis_url: str, eye: redis.Redis
):
    second_port = free_port()
    cluster.start_scheduler()
    await wait_until(lambda: eye.get("{lcq}:duty:nodes"), what="the duties to be taken")
    cluster.start_scheduler("second", port=second_port)
    endpoint = f"tcp://127.0.0.1:{cluster.control_port}"
    async with (
        StateManager(url=redis_url) as state,
        a_client(cluster.control_port) as client,
        a_client(second_port) as other,
        a_light_node([endpoint]) as node,
    ):
        other._learn = lambda told: None  # type: ignore[method-assign]
        first = (await client.info()).scheduler_id
        second = (await other.info()).scheduler_id
        assert eye.get("{lcq}:duty:nodes") == first
        ids = await holding(node, client, 2)
        await wait_until(lambda: len(node.membership._schedulers) == 2, what="the node to hear of the second")
        silent = Node(state, id="silent", queues=(HEAVY,))
        await silent.hello()
        await state.submit_task(a_task(), queue=HEAVY)
        with frozen(cluster, "scheduler"):
            stopped = time.monotonic()
            (grant,) = await silent.claim(lease_ms=500)
            await wait_until(lambda: eye.get("{lcq}:duty:nodes") == second, what="the second to take the duties")
            took_over_s = time.monotonic() - stopped
            await wait_until(lambda: losses(eye), what="the lease of one who is really silent to run out")
            found_s = time.monotonic() - stopped
            await wait_until(lambda: node.at == second, what="the node to go to the scheduler that answers")
            moved_s = node.welcomes[-1][0] - stopped
            await wait_until(lambda: node.beats[-1] > node.welcomes[-1][0], what="its leases renewed there")
        woken = time.monotonic()
        await wait_until(lambda: sum(beat > woken for beat in node.beats) > 6, what="the first to have judged again")
        assert [fields["id"] for fields in losses(eye) if fields.get("id")] == [grant.task.id]
        assert node.at == second, "the scheduler that woke up does not take the node back"
        assert await finish_and_count_attempts(node, other, ids) == [1, 1]
        print(
            f"\nduty holder frozen: duties taken over after {took_over_s:.2f} s, its node elsewhere after"
            f" {moved_s:.2f} s, a lease that ran out meanwhile found after {found_s:.2f} s"
        )
    audit(eye)


@pytest.mark.chaos
async def test_f42_the_nodes_of_a_frozen_scheduler_are_no_suspects_for_the_one_that_judges(
    redis_url: str, tmp_path: Path, eye: redis.Redis
):
    """With beats of 3 s they find another one after 6 s and more; a node of its own is suspect after 5."""
    usual = {"LCQ_LEASES__BEAT_S": "3", "LCQ_LEASES__LEASE_S": "60", "LCQ_LEASES__LOST_AFTER_S": "1"}
    second_port = free_port()
    with running_cluster(redis_url, tmp_path / "c", **usual) as cluster:
        cluster.start_scheduler()
        await wait_until(lambda: eye.get("{lcq}:duty:nodes"), what="the duties to be taken")
        cluster.start_scheduler("second", port=second_port)
        async with a_client(second_port) as other, a_light_node([f"tcp://127.0.0.1:{second_port}"]) as node:
            second = (await other.info()).scheduler_id
            await wait_until(lambda: node.at == second and len(node.beats) > 1, what="beats to the second")
            await wait_until(lambda: len(node.membership._schedulers) == 2, what="the node to hear of the first")
            with frozen(cluster, "second"):
                await wait_until(lambda: node.at != second, timeout=60, what="the node to go to the first")
                welcome = node.welcomes[-1][0]
                await wait_until(lambda: node.beats[-1] > welcome, timeout=60, what="it to be heard there")
            moves = [fields["move"] for _, fields in eye.xrange("{lcq}:events")]
            assert "suspect_node" not in moves
            assert not LOSSES & set(moves)
    audit(eye)


# ---------------------------------------------------------------- what it still had in hand


async def say_hello(state: StateManager, via: str) -> None:
    await state.register_node("n", boot="b", capability=the_cpu(), serves={"cpu": (LIGHT,)}, via=via)


async def claim(state: StateManager, via: str) -> tuple[str, ...]:
    grants = await state.claim_tasks(
        node="n", boot="b", device="cpu", kind=DeviceKind.CPU, slots=4, lanes=[TELEA], queues=[LIGHT], via=via
    )
    return tuple(grant.task.id for grant in grants)


async def test_f42_an_old_beat_of_a_node_that_has_gone_elsewhere_gives_nothing_of_it_back(
    redis_url: str, eye: redis.Redis
):
    config = DistributedConfig(leases={"beat_s": 0.001, "lease_s": 60})  # type: ignore[arg-type]
    async with StateManager(config, url=redis_url) as state:
        await say_hello(state, "first")
        await say_hello(state, "second")
        task = a_task()
        await state.submit_task(task, queue=LIGHT)
        assert await claim(state, "second") == (task.id,)
        await asyncio.sleep(0.01)  # older than two beats: a beat that does not list it would release it
        with pytest.raises(StaleBoot):
            await state.beat_node("n", boot="b", running=(), via="first")
        record = await state.reader.task(task.id)
        assert (record.status, record.attempt) == (TaskStatus.PROCESSING, 1)
        await state.beat_node("n", boot="b", running=(Running(task_id=task.id, attempt=1),), via="second")
        audit(eye)


async def test_f42_an_old_wish_of_a_node_that_has_gone_elsewhere_is_granted_nothing(redis_url: str, eye: redis.Redis):
    async with StateManager(url=redis_url) as state:
        await say_hello(state, "first")
        await say_hello(state, "second")
        await state.submit_task(a_task(), queue=LIGHT)
        with pytest.raises(StaleBoot):
            await claim(state, "first")
        assert len(await claim(state, "second")) == 1
        audit(eye)


async def test_a_grant_whose_answer_died_with_its_scheduler_runs_as_soon_as_the_node_is_elsewhere(
    redis_url: str, eye: redis.Redis
):
    async with StateManager(url=redis_url) as state:
        await say_hello(state, "first")
        lost, held = a_task(), a_task()
        await state.submit_task(lost, queue=LIGHT)
        await state.submit_task(held, queue=LIGHT)
        assert set(await claim(state, "first")) == {lost.id, held.id}
        await asyncio.sleep(0.01)  # Redis counts in milliseconds
        await say_hello(state, "second")
        await state.beat_node("n", boot="b", running=(Running(task_id=held.id, attempt=1),), via="second")
        assert (await state.reader.task(lost.id)).status == TaskStatus.QUEUED
        assert (await state.reader.task(held.id)).status == TaskStatus.PROCESSING
        assert await claim(state, "second") == (lost.id,)
        await state.beat_node("n", boot="b", running=(Running(task_id=held.id, attempt=1),), via="second")
        assert (await state.reader.task(lost.id)).status == TaskStatus.PROCESSING, "this one may be on its way"
        audit(eye)


async def test_f42_a_lease_that_ran_out_while_its_judge_stood_still_is_not_his_to_judge(
    redis_url: str, eye: redis.Redis
):
    async with StateManager(url=redis_url) as state:
        node = Node(state)
        await node.hello()
        await state.submit_task(a_task(), queue=LIGHT)
        judged_ms = await state.take_duty("nodes", "judge", hold_ms=1000)
        (grant,) = await node.claim(lease_ms=1)
        await asyncio.sleep(0.05)  # he stands still, and the node's beats wait at his door
        assert await state.expire_leases(judged_ms=judged_ms) == ()
        assert [ended.task_id for ended in await state.expire_leases()] == [grant.task.id]
        audit(eye)

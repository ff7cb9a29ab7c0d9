"""kill -9 of a scheduler in the middle of an act on a big job: another one ends it, and what was done is told."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import redis

from lcq.client import AsyncClient
from lcq.models import TaskStatus
from lcq.state.manager import StateManager
from lcq.wire import JobActAnswer
from tests.audit import audit
from tests.cluster import Cluster, free_port, running_cluster
from tests.conftest import wait_until
from tests.nodes import LIGHT, Node, a_failure, a_task

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(600)]

COUNT = 1200
DONE_WHEN_KILLED = 500
JOB = "big"
Act = Callable[[AsyncClient, Callable[[JobActAnswer], None]], Awaitable[JobActAnswer]]


async def cancel(client: AsyncClient, on_progress: Callable[[JobActAnswer], None]) -> JobActAnswer:
    return await client.cancel_job(JOB, reason="wrong folder", on_progress=on_progress)


async def retry(client: AsyncClient, on_progress: Callable[[JobActAnswer], None]) -> JobActAnswer:
    return await client.retry_job(JOB, reason="the store is back", on_progress=on_progress)


async def submitted(state: StateManager) -> None:
    await asyncio.gather(
        *(state.submit_task(a_task(job=JOB, max_retries=0), queue=LIGHT) for _ in range(COUNT)),
        *(state.submit_task(a_task(job="other", user_id="ben", max_retries=0), queue=LIGHT) for _ in range(50)),
    )


async def failed(state: StateManager) -> None:
    """A node has taken all of it, and failed it."""
    node = Node(state, "failing")
    await node.hello()
    while granted := await node.claim(64):
        await asyncio.gather(*(node.fail(grant.task.id, failure=a_failure(code="lost")) for grant in granted))
    await node.leave()


@asynccontextmanager
async def two_schedulers(redis_url: str, folder: Path, dies_at: str) -> AsyncIterator[tuple[Cluster, int]]:
    """The first one kills itself where ``dies_at`` says; the port of the second one, which lives."""
    port = free_port()
    with running_cluster(redis_url, folder) as cluster:
        cluster.environment = {"LCQ_FAILPOINTS": dies_at}
        await asyncio.to_thread(cluster.start_scheduler)
        cluster.environment = {}
        await asyncio.to_thread(cluster.start_scheduler, "second", port=port)
        yield cluster, port


def client_of(cluster: Cluster, *ports: int, timeout_s: float = 60.0) -> AsyncClient:
    addresses = ",".join(f"127.0.0.1:{port}" for port in ports)
    return AsyncClient(cluster.config, scheduler=addresses, actor="ann", timeout_s=timeout_s)


def acts(redis_url: str, act: str) -> list[dict[str, str]]:
    with redis.Redis.from_url(redis_url, decode_responses=True) as eye:
        return [fields for _, fields in eye.xrange("{lcq}:acts") if fields["act"] == act]


def done_by(told: list[dict[str, str]]) -> int:
    """What the audit says was done, by all entries together."""
    return sum(int(one["outcome"].partition(" ")[0]) for one in told if one["outcome"] != "begun")


@pytest.mark.parametrize(("act", "move", "after"), [(cancel, "cancel_task", ""), (retry, "retry_task", "-after")])
async def test_an_act_on_a_job_whose_scheduler_is_killed_is_ended_by_another_one_and_told_once(
    redis_url: str, tmp_path: Path, act: Act, move: str, after: str
):
    async with StateManager(url=redis_url) as state:
        await submitted(state)
        if act is retry:
            await failed(state)
        before = {one.id: one.revision for one in (await state.reader.tasks(await ids_of(state))).values()}
        dies_at = f"state.{move}=kill{after}@{DONE_WHEN_KILLED}"
        async with two_schedulers(redis_url, tmp_path / "c", dies_at) as (cluster, port):
            seen: list[JobActAnswer] = []
            async with client_of(cluster, cluster.control_port, timeout_s=120) as first:
                first._learn = lambda told: None  # type: ignore[method-assign]  # it asks the one that dies, first
                acting = asyncio.create_task(act(first, seen.append))
                process = cluster.processes["scheduler"]
                await wait_until(lambda: process.poll() is not None, timeout=60, what="the scheduler to be killed")
                assert process.returncode == -signal.SIGKILL, cluster.logs()
                counts = (await state.reader.jobs(name=JOB))[0].counts
                assert 0 < counts[TaskStatus.CANCELLED if act is cancel else TaskStatus.QUEUED] < COUNT
                first._connect(f"tcp://127.0.0.1:{port}")
                answer = await acting
        assert (answer.done, answer.refused, answer.seen) == (COUNT, (), COUNT)
        assert [one.done for one in seen] == sorted(one.done for one in seen)
        records = await state.reader.tasks(list(before))
        wanted = TaskStatus.CANCELLED if act is cancel else TaskStatus.QUEUED
        assert {one.status for one in records.values()} == {wanted}
        assert {one.revision - before[one.id] for one in records.values()} == {1}, "each was moved once"
        other = (await state.reader.jobs(name="other"))[0].counts
        assert sum(other.values()) == 50
        assert other.get(TaskStatus.CANCELLED, 0) == 0
    told = acts(redis_url, f"{act.__name__}_job")
    assert {one["actor"] for one in told} == {"ann"}
    assert [one["outcome"] for one in told].count("begun") == 1
    assert done_by(told) == COUNT
    with redis.Redis.from_url(redis_url, decode_responses=True) as eye:
        audit(eye)


async def ids_of(state: StateManager) -> list[str]:
    found: list[str] = []
    while True:
        page = await state.reader.job_page(JOB, after=found[-1] if found else "", limit=500)
        found += [task_id for task_id, _, _ in page]
        if len(page) < 500:
            return found


async def test_where_the_client_has_gone_too_the_audit_tells_of_the_begun_act_and_asking_again_does_the_rest(
    redis_url: str, tmp_path: Path
):
    async with StateManager(url=redis_url) as state:
        await submitted(state)
        dies_at = f"state.cancel_task=kill@{DONE_WHEN_KILLED}"
        async with two_schedulers(redis_url, tmp_path / "c", dies_at) as (cluster, port):
            async with client_of(cluster, cluster.control_port) as client:
                client._learn = lambda told: None  # type: ignore[method-assign]
                acting = asyncio.create_task(client.cancel_job(JOB, reason="wrong folder"))
                process = cluster.processes["scheduler"]
                await wait_until(lambda: process.poll() is not None, timeout=60, what="the scheduler to be killed")
                acting.cancel()
                await asyncio.wait({acting})
            (job,) = await state.reader.jobs(name=JOB)
            gone = job.counts[TaskStatus.CANCELLED]
            assert 0 < gone < COUNT
            (begun,) = acts(redis_url, "cancel_job")
            assert (begun["outcome"], begun["actor"], begun["reason"]) == ("begun", "ann", "wrong folder")
            async with client_of(cluster, port) as later:
                answer = await later.cancel_job(JOB, reason="the rest")
            assert (answer.done, answer.seen) == (COUNT - gone, COUNT)
            assert (await state.reader.jobs(name=JOB))[0].counts == {TaskStatus.CANCELLED: COUNT}
            whys = {one.why for one in (await state.reader.tasks(await ids_of(state))).values()}
            assert whys == {"by ann: wrong folder", "by ann: the rest"}
    with redis.Redis.from_url(redis_url, decode_responses=True) as eye:
        audit(eye)

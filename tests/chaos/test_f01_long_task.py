"""F-1, F-2: a task far longer than its lease runs once; each task obeys the lease stored with it, whoever judges."""

from __future__ import annotations

import contextlib
import signal
from pathlib import Path

import pytest
import redis

from lcq.client import AsyncClient
from lcq.config import LeaseConfig
from lcq.models import NodeStatus, TaskStatus
from lcq.scheduler import Scheduler
from tests.audit import audit
from tests.chaos.rig import Photo, Rig, a_rig, scripted_agent
from tests.conftest import wait_until

SHORT_S, LONG_S = 2.0, 60.0


@contextlib.asynccontextmanager
async def a_patient_scheduler(rig: Rig):
    """A second scheduler on the same Redis, whose nodes beat more rarely than those of the first may be silent."""
    leases = LeaseConfig(beat_s=5, lease_s=LONG_S, lost_after_s=0.5)
    config = rig.config.model_copy(update={"leases": leases})
    async with Scheduler(config, redis_url=rig.scheduler.redis_url) as scheduler:
        address = scheduler.control_endpoint.removeprefix("tcp://")
        async with AsyncClient(config, scheduler=address, timeout_s=30) as client:
            yield Rig(config, scheduler, client, rig.folder)


@pytest.mark.chaos
async def test_f01_f02_a_task_five_times_as_long_as_its_lease_has_one_attempt_beside_a_scheduler_with_other_leases(
    redis_url: str, tmp_path: Path
):
    """Both schedulers judge: the impatient one too, whose lease is shorter than the other's nodes' beat."""
    short, long = Photo(tmp_path / "short"), Photo(tmp_path / "long")
    async with a_rig(redis_url, tmp_path, lease_s=SHORT_S) as rig, a_patient_scheduler(rig) as patient:
        with scripted_agent(rig, "quick") as quick, scripted_agent(patient, "slow") as slow:
            await rig.until_node("quick", NodeStatus.ONLINE)
            await rig.until_node("slow", NodeStatus.ONLINE)
            first = (await rig.client.submit(short.task(), node="quick")).id
            second = (await rig.client.submit(long.task(), node="slow")).id
            await rig.until_attempt(first, 1, node="quick")
            await rig.until_attempt(second, 1, node="slow")
            await short.until_begun(1)
            await long.until_begun(1)
            await wait_until(lambda: _ran_for(rig, first, 5 * SHORT_S), timeout=60, what="five leases to pass")
            assert [(await rig.client.get(one)).attempt for one in (first, second)] == [1, 1]
            assert await rig.total("expired") == 0
            assert (await rig.node("slow")).status is NodeStatus.ONLINE
            short.open_to(1)
            await rig.until(first, TaskStatus.COMPLETED)
            await rig.is_the_committed_one(first, short, 1)

            # Both fall silent: the short lease runs out, the long one does not.
            again = Photo(tmp_path / "again")
            third = (await rig.client.submit(again.task(), node="quick")).id
            await rig.until_attempt(third, 1, node="quick")
            await again.until_begun(1)
            for process in (quick, slow):
                process.send_signal(signal.SIGSTOP)
            await rig.until_node("quick", NodeStatus.OFFLINE)
            assert (await rig.client.get(third)).status is TaskStatus.QUEUED
            assert (await rig.client.get(second)).status is TaskStatus.PROCESSING
            assert (await rig.node("slow")).status is not NodeStatus.OFFLINE
            for process in (quick, slow):
                process.send_signal(signal.SIGCONT)
            again.open_to(1)
            again.open_to(2)
            long.open_to(1)
            await rig.until(second, TaskStatus.COMPLETED, timeout=60)
            await rig.until(third, TaskStatus.COMPLETED, timeout=60)
            await rig.is_the_committed_one(second, long, 1)
            assert await rig.commits(third) == 1
    with redis.Redis.from_url(redis_url, decode_responses=True) as eye:
        audit(eye)


@pytest.mark.chaos
async def test_f02_a_node_that_moves_to_a_more_patient_scheduler_keeps_its_short_leases(redis_url: str, tmp_path: Path):
    """As in a rolling change of settings: the attempt's lease is shorter than the new scheduler's beat."""
    photo = Photo(tmp_path / "photo")
    async with contextlib.AsyncExitStack() as outer:
        patient: Rig
        async with a_rig(redis_url, tmp_path, lease_s=SHORT_S) as rig:
            patient = await outer.enter_async_context(a_patient_scheduler(rig))
            outer.enter_context(scripted_agent(rig, "node-1", beside=patient))
            await rig.until_node("node-1", NodeStatus.ONLINE)
            task_id = (await rig.client.submit(photo.task())).id
            await rig.until_attempt(task_id, 1, node="node-1")
            await photo.until_begun(1)
            registered_ms = (await rig.node("node-1")).registered_ms
        await wait_until(lambda: _joined_after(patient, registered_ms), timeout=60, what="node-1 to join the other")
        await wait_until(lambda: _ran_for(patient, task_id, 8 * SHORT_S), timeout=60, what="leases to pass")
        record = await patient.client.get(task_id)
        assert (record.status, record.attempt) == (TaskStatus.PROCESSING, 1)
        photo.open_to(1)
        await patient.until(task_id, TaskStatus.COMPLETED)
        await patient.is_the_committed_one(task_id, photo, 1)


async def _ran_for(rig: Rig, task_id: str, seconds: float) -> bool:
    started_ms = (await rig.client.get(task_id)).started_ms
    return started_ms is not None and await rig.scheduler.state.now_ms() - started_ms > seconds * 1000


async def _joined_after(rig: Rig, moment_ms: int) -> bool:
    return (await rig.node("node-1")).registered_ms > moment_ms

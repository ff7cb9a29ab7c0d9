"""F-5: a runner that cannot be killed keeps its slot; its task runs elsewhere after the bound, on files of its own."""

from __future__ import annotations

from pathlib import Path

import pytest
import redis

from lcq.models import NodeStatus, TaskStatus
from tests.audit import audit
from tests.chaos.rig import Photo, Rig, a_rig, scripted, scripted_agent
from tests.conftest import wait_until

TIMEOUT_S = 1.0
BOUND_S = 0.5  # of tests.scripted_agent, where lcq-agent has 5 s


@pytest.mark.chaos
async def test_while_a_kill_does_not_kill_the_slot_is_not_used_and_the_task_runs_elsewhere_after_the_bound(
    redis_url: str, tmp_path: Path
):
    photo, undead = Photo(tmp_path / "photo"), tmp_path / "undead"
    undead.touch()
    async with a_rig(redis_url, tmp_path, lease_s=20) as rig:
        with scripted_agent(rig, "stuck", "--unkillable", str(undead)), scripted_agent(rig, "node-2"):
            await rig.until_node("stuck", NodeStatus.ONLINE)
            await rig.until_node("node-2", NodeStatus.ONLINE)
            task_id = (await rig.client.submit(photo.task(timeout_s=TIMEOUT_S), node="stuck")).id
            await rig.until_attempt(task_id, 1, node="stuck")
            await photo.until_begun(1)
            await rig.client.reroute([task_id], queue="cpu-light")  # ends attempt 1, or tries to
            photo.open_to(2)
            await rig.until(task_id, TaskStatus.COMPLETED, timeout=60)
            await rig.is_the_committed_one(task_id, photo, 2)
            assert (await rig.client.get(task_id)).node == "node-2"

            await wait_until(lambda: _unkillable(rig, 1), timeout=60, what="the beats to tell of the stuck slot")
            waiting = (await rig.client.submit(scripted(), node="stuck")).id
            photo.open_to(1)  # the undead runner is done: nobody hears it, and its file stays out of the way
            seen_ms = (await rig.node("stuck")).seen_ms
            await wait_until(lambda: _seen_after(rig, seen_ms + 1000), timeout=60, what="more beats")
            assert (await rig.client.get(waiting)).status is TaskStatus.QUEUED, "the slot was used again"
            await rig.is_the_committed_one(task_id, photo, 2)

            undead.unlink()
            await rig.until(waiting, TaskStatus.COMPLETED, timeout=60)
            await wait_until(lambda: _unkillable(rig, 0), timeout=60, what="the beats to tell that it is gone")
            await wait_until(lambda: not photo.staged(), what="nothing left beside the result")
    with redis.Redis.from_url(redis_url, decode_responses=True) as eye:
        audit(eye)


@pytest.mark.chaos
async def test_an_attempt_that_ran_out_of_time_and_cannot_be_killed_is_not_begun_again_before_the_bound(
    redis_url: str, tmp_path: Path
):
    photo, undead = Photo(tmp_path / "photo"), tmp_path / "undead"
    undead.touch()
    async with a_rig(redis_url, tmp_path, lease_s=20) as rig:
        with scripted_agent(rig, "stuck", "--unkillable", str(undead)):
            await rig.until_node("stuck", NodeStatus.ONLINE)
            task_id = (await rig.client.submit(photo.task(timeout_s=TIMEOUT_S))).id
            await rig.until_attempt(task_id, 1, node="stuck")
            await photo.until_begun(1)
            with scripted_agent(rig, "node-2"):
                photo.open_to(2)
                await rig.until(task_id, TaskStatus.COMPLETED, timeout=60)
            first, second = await rig.attempts(task_id)
            assert first.failure is not None
            assert (first.failure.code, second.node) == ("timed_out", "node-2")
            waited_s = (second.started_ms - first.started_ms) / 1000 - TIMEOUT_S
            print(f"\nbegun again {waited_s:.2f} s after its time was over; the bound is {BOUND_S} s")
            assert waited_s >= BOUND_S - 0.05
            await rig.is_the_committed_one(task_id, photo, 2)
            undead.unlink()
            await wait_until(lambda: _unkillable(rig, 0), timeout=60, what="the slot to be free again")


async def _unkillable(rig: Rig, slots: int) -> bool:
    return (await rig.node("stuck")).telemetry.get("slots_unkillable") == slots


async def _seen_after(rig: Rig, moment_ms: int) -> bool:
    return (await rig.node("stuck")).seen_ms > moment_ms

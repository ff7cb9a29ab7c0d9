"""F-12: what a busy node has ahead does not wait for it while others are idle."""

from __future__ import annotations

from pathlib import Path

import pytest

from lcq.models import TaskStatus
from lcq.wire import MOST_IN_HAND
from tests.chaos.rig import Rig, a_rig, scripted
from tests.conftest import wait_until


async def started_after_s(rig: Rig, task_id: str) -> float:
    record = await rig.client.get(task_id)
    assert record.started_ms is not None
    return (record.started_ms - record.submitted_ms) / 1000


async def test_short_tasks_behind_a_long_one_start_on_the_idle_node(redis_url: str, tmp_path: Path):
    async with a_rig(redis_url, tmp_path) as rig, rig.agent("busy", slots=1), rig.agent("idle", slots=1):
        long = (await rig.client.submit(scripted("until cancelled"), node="busy")).id
        await rig.until(long, TaskStatus.PROCESSING)
        ids = [one.id for one in (await rig.client.submit_many([scripted() for _ in range(10)])).accepted]
        for task_id in ids:
            await rig.until(task_id, TaskStatus.COMPLETED)
            assert (await rig.client.get(task_id)).node == "idle"
        delays = [await started_after_s(rig, task_id) for task_id in ids]
        print(f"\nlongest wait for a start: {max(delays):.3f} s")
        await rig.client.cancel([long])


@pytest.mark.parametrize("nodes", [pytest.param(1, marks=pytest.mark.chaos), 2])
async def test_a_node_that_has_learned_to_hold_ahead_holds_nothing_behind_a_long_task(
    redis_url: str, tmp_path: Path, nodes: int
):
    """One node has its hands full of short tasks when a long one comes among them; then another node joins."""
    async with a_rig(redis_url, tmp_path) as rig, rig.agent("busy", slots=1) as busy:
        while busy._hand.room("cpu") <= 0:  # until it knows that its work is short; on a slow machine, again
            practice = [one.id for one in (await rig.client.submit_many([scripted() for _ in range(8)])).accepted]
            for task_id in practice:
                await rig.until(task_id, TaskStatus.COMPLETED)
        long, *short = [
            one.id
            for one in (
                await rig.client.submit_many([scripted("until cancelled"), *(scripted() for _ in range(MOST_IN_HAND))])
            ).accepted
        ]
        await rig.until(long, TaskStatus.PROCESSING)

        async def all_wait() -> bool:
            """In the queue, where whoever comes may have them; and they stay there."""
            return {one.status for one in await rig.client.get_many(short)} == {TaskStatus.QUEUED}

        await wait_until(all_wait, what="the short tasks to be given back")
        attempts = [one.attempt for one in await rig.client.get_many(short)]
        if nodes == 1:
            await wait_until(lambda: busy._membership.joined.is_set())
            beats = (await rig.client.nodes())[0].seen_ms
            await wait_until(lambda: _seen_again(rig, beats + 800), what="two more beats")
            assert [one.attempt for one in await rig.client.get_many(short)] == attempts, "taken and given back again"
        else:
            async with rig.agent("idle", slots=1):
                for task_id in short:
                    await rig.until(task_id, TaskStatus.COMPLETED)
                    assert (await rig.client.get(task_id)).node == "idle"
        assert all(one.retries == 0 for one in await rig.client.get_many(short))
        await rig.client.cancel([long])


async def _seen_again(rig: Rig, since_ms: int) -> bool:
    return all(node.seen_ms > since_ms for node in await rig.client.nodes())

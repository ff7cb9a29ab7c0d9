"""F-10: beats that come nine tenths of a lease apart, with the cluster busy: nobody is declared lost."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest
import redis

from lcq.models import NodeStatus, TaskStatus
from tests.audit import audit
from tests.chaos.cable import Cable, laid_cable
from tests.chaos.rig import Photo, Rig, a_rig, scripted, scripted_agent
from tests.conftest import wait_until

LONG_S = float(os.environ.get("LCQ_LATE_BEATS_S", "24"))


async def a_late_beat(rig: Rig, cable: Cable, lease_s: float) -> float:
    """Cut node-1 off right after a beat until nine tenths of its lease have passed; answers how late its next one was.

    In seconds of Redis's clock, by which leases are judged.
    """
    state = rig.scheduler.state
    before_ms = (await rig.node("node-1")).seen_ms

    async def seen() -> int:
        now_ms = (await rig.node("node-1")).seen_ms
        return now_ms if now_ms > before_ms else 0

    before_ms = await wait_until(seen, what="a beat")
    cable.cut()
    await asyncio.sleep(0.9 * lease_s - (await state.now_ms() - before_ms) / 1000)
    before_ms = (await rig.node("node-1")).seen_ms  # one may have been under way
    cable.mend()
    cut_ms = before_ms
    return (await wait_until(seen, what="the late beat") - cut_ms) / 1000


async def load(rig: Rig) -> None:
    """Keep the cluster busy, at its pace: never more than a few hundred tasks wait."""
    while True:
        ids = [one.id for one in (await rig.client.submit_many([scripted() for _ in range(50)])).accepted]
        await rig.until(ids[-1], TaskStatus.COMPLETED)
        await asyncio.sleep(0.05)


async def beat_late(
    redis_url: str, folder: Path, monkeypatch: pytest.MonkeyPatch, *, lease_s: float, rounds: int
) -> None:
    photo, gaps = Photo(folder / "photo"), []
    with laid_cable(monkeypatch) as cable:
        async with a_rig(redis_url, folder, beat_s=0.3, lease_s=lease_s) as rig, rig.agent("node-1", slots=1):
            task_id = (await rig.client.submit(photo.task(), node="node-1")).id
            await rig.until_attempt(task_id, 1)
            await photo.until_begun(1)
            with scripted_agent(rig, "node-2"):
                await rig.until_node("node-2", NodeStatus.ONLINE)
                async with asyncio.TaskGroup() as group:
                    busy = group.create_task(load(rig))
                    while len(gaps) < rounds:
                        gap_s = await a_late_beat(rig, cable, lease_s)
                        if gap_s >= lease_s:  # this machine was so slow that the silence was a real one
                            print(f"\na silence of {gap_s:.2f} s was longer than was meant; begun anew")
                            break
                        gaps.append(gap_s)
                        assert await rig.total("expired") == 0, f"lost after a silence of {gaps[-1]:.2f} s: {gaps}"
                        assert (await rig.client.get(task_id)).attempt == 1
                    busy.cancel()
            done = await rig.total("completed")
            print(f"\n0 losses in {len(gaps)} silences of {min(gaps, default=0):.2f} to {max(gaps, default=0):.2f} s,")
            print(f"with leases of {lease_s} s, beside {done} other tasks")
            assert gaps, "no beat came late and in time: this proved nothing"
            photo.open_to(1)
            photo.open_to(2)
            await rig.until(task_id, TaskStatus.COMPLETED, timeout=60)
            assert await rig.commits(task_id) == 1
    with redis.Redis.from_url(redis_url, decode_responses=True) as eye:
        audit(eye)


@pytest.mark.chaos
async def test_a_beat_nine_tenths_of_a_lease_late_loses_nothing(
    redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    await beat_late(redis_url, tmp_path, monkeypatch, lease_s=5, rounds=1)


@pytest.mark.chaos
@pytest.mark.timeout(900)
async def test_beats_that_are_always_nine_tenths_of_a_lease_late_lose_nothing(
    redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """LCQ_LATE_BEATS_S=600 makes it ten minutes."""
    await beat_late(redis_url, tmp_path, monkeypatch, lease_s=6, rounds=max(1, int(LONG_S / 6)))

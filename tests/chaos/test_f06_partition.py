"""F-6: a node that was cut off: shorter than its lease nothing restarts; longer, one of two attempts commits."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import redis

from lcq.models import NodeStatus, TaskStatus
from tests.audit import audit
from tests.chaos.cable import laid_cable
from tests.chaos.rig import Photo, a_rig, scripted_agent
from tests.conftest import wait_until


def check_the_books(redis_url: str) -> None:
    with redis.Redis.from_url(redis_url, decode_responses=True) as eye:
        audit(eye)


async def test_a_node_cut_off_for_less_than_its_lease_is_suspect_and_its_task_goes_on(
    redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    photo = Photo(tmp_path / "photo")
    with laid_cable(monkeypatch) as cable:
        async with a_rig(redis_url, tmp_path, beat_s=0.3, lease_s=20) as rig, rig.agent("node-1", slots=1) as agent:
            assert len(cable.proxies) >= 2, "the control socket and the lifeline go through the cable"
            task_id = (await rig.client.submit(photo.task())).id
            await rig.until_attempt(task_id, 1)
            await photo.until_begun(1)
            cable.cut()
            cut_at = time.monotonic()
            await rig.until_node("node-1", NodeStatus.SUSPECT)
            print(f"\nsuspect after {time.monotonic() - cut_at:.2f} s of 0.3 s beats")
            assert "no beat for" in (await rig.node("node-1")).why
            assert (await rig.client.get(task_id)).status is TaskStatus.PROCESSING
            photo.open_to(1)  # it ends while nobody can be told
            await wait_until(lambda: len(agent._outcomes) == 1, what="an outcome that nobody has settled")
            cable.mend()
            await rig.until(task_id, TaskStatus.COMPLETED, timeout=60)
            await rig.until_node("node-1", NodeStatus.ONLINE)
            record = await rig.client.get(task_id)
            assert (record.attempt, record.retries) == (1, 0)
            await rig.is_the_committed_one(task_id, photo, 1)
            assert (await rig.node("node-1")).why == ""
            assert await rig.total("expired") == 0
    check_the_books(redis_url)


@pytest.mark.parametrize("winner", [1, pytest.param(2, marks=pytest.mark.chaos)])
async def test_of_a_node_cut_off_for_longer_and_its_successor_exactly_one_commits(
    redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, winner: int
):
    """Attempt 1 ends behind the cut. Either it is heard while attempt 2 still runs, or after that has committed."""
    photo = Photo(tmp_path / "photo")
    with laid_cable(monkeypatch) as cable:
        async with a_rig(redis_url, tmp_path, beat_s=0.3, lease_s=2) as rig, rig.agent("node-1", slots=1) as agent:
            task_id = (await rig.client.submit(photo.task())).id
            await rig.until_attempt(task_id, 1, node="node-1")
            await photo.until_begun(1)
            cable.cut()
            with scripted_agent(rig, "node-2"):
                await rig.until_node("node-1", NodeStatus.OFFLINE)
                await rig.until_attempt(task_id, 2, node="node-2")
                await photo.until_begun(2)
                photo.open_to(1)
                await wait_until(lambda: len(agent._outcomes) == 1, what="an outcome that nobody has settled")
                if winner == 2:
                    photo.open_to(2)
                    await rig.until(task_id, TaskStatus.COMPLETED)
                cable.mend()
                await rig.until(task_id, TaskStatus.COMPLETED, timeout=60)
                await rig.until_node("node-1", NodeStatus.ONLINE)
                await wait_until(lambda: not agent._outcomes, what="the verdict on attempt 1")
                await wait_until(lambda: _is_idle(rig, "node-2"), what="node-2 to be free")
                photo.open_to(2)
                await rig.is_the_committed_one(task_id, photo, winner)
                await wait_until(lambda: not photo.staged(), what="nothing left beside the result")
                assert await rig.total("late") == (winner == 1)
                assert await rig.total("fenced") == (winner == 2)
                assert await rig.total("completed") == 1
    check_the_books(redis_url)


async def _is_idle(rig, name: str) -> bool:
    return not (await rig.node(name)).running

"""F-8: a node killed in a task's final attempt: the task ends, with its reason, and does not "run" for ever."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest

from lcq.models import NodeStatus, TaskStatus
from tests.chaos.rig import Photo, a_rig, scripted_agent
from tests.conftest import wait_until


@pytest.mark.parametrize(
    ("how", "codes", "lease_s"),
    [
        pytest.param(signal.SIGKILL, {"node_lost"}, 600, id="killed"),
        pytest.param(signal.SIGSTOP, {"lease_expired", "node_silent"}, 4, id="silent", marks=pytest.mark.chaos),
    ],
)
async def test_a_task_whose_node_is_gone_in_its_final_attempt_fails(
    redis_url: str, tmp_path: Path, how: signal.Signals, codes: set[str], lease_s: float
):
    """A killed one is told by its lifeline alone: its lease would run for ten minutes."""
    photo = Photo(tmp_path / "photo")
    async with a_rig(redis_url, tmp_path, lease_s=lease_s, lost_after_s=1.0) as rig:
        with scripted_agent(rig, "node-1") as agent:
            await rig.until_node("node-1", NodeStatus.ONLINE)
            task_id = (await rig.client.submit(photo.task(max_retries=0))).id
            await rig.until_attempt(task_id, 1, node="node-1")
            await wait_until(lambda: rig.scheduler.nodes._lifelines, what="the lifeline to be held")
            agent.send_signal(how)
            gone_at = time.monotonic()
            await rig.until(task_id, TaskStatus.FAILED, timeout=60)
            print(f"\nfailed {time.monotonic() - gone_at:.2f} s after {how.name}")
            record = await rig.client.get(task_id)
            assert record.failure is not None
            assert record.failure.code in codes
            assert not (await rig.node("node-1")).running

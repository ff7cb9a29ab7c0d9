"""F-7: an agent killed and started again within a beat: what its old boot held runs again at the new one's hello."""

from __future__ import annotations

from pathlib import Path

from lcq.models import NodeStatus, TaskStatus
from tests.chaos.rig import Photo, a_rig, scripted_agent


async def test_the_hello_of_a_new_boot_requeues_what_the_old_one_held(redis_url: str, tmp_path: Path):
    """Neither silence nor the lifeline can have done it: both wait for far longer than this test lives."""
    photo = Photo(tmp_path / "photo")
    async with a_rig(redis_url, tmp_path, beat_s=30, lease_s=600, lost_after_s=60) as rig:
        with scripted_agent(rig, "node-1") as agent:
            await rig.until_node("node-1", NodeStatus.ONLINE)
            task_id = (await rig.client.submit(photo.task())).id
            await rig.until_attempt(task_id, 1, node="node-1")
            boot = (await rig.node("node-1")).boot_id
            agent.kill()
            agent.wait()
        with scripted_agent(rig, "node-1"):
            await rig.until_attempt(task_id, 2, node="node-1")
            node = await rig.node("node-1")
            assert node.boot_id != boot
            first, second = await rig.attempts(task_id)
            assert first.failure is not None
            assert first.failure.code == "node_restarted"
            print(f"\nrun again {second.started_ms - node.registered_ms} ms after the new boot's hello")
            photo.open_to(2)
            await rig.until(task_id, TaskStatus.COMPLETED)
        await rig.is_the_committed_one(task_id, photo, 2)

"""F-4: an agent stopped past its lease wakes up with a result, when another has committed: it changes nothing."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import redis

from lcq.models import NodeStatus, TaskStatus
from tests.audit import audit
from tests.chaos.rig import Photo, a_rig, scripted_agent
from tests.conftest import wait_until


async def test_a_stopped_agents_result_file_progress_and_outcome_change_nothing_and_are_counted(
    redis_url: str, tmp_path: Path
):
    photo = Photo(tmp_path / "photo")
    async with a_rig(redis_url, tmp_path, lease_s=2) as rig:
        with scripted_agent(rig, "node-1") as stopped, redis.Redis.from_url(redis_url, decode_responses=True) as eye:
            await rig.until_node("node-1", NodeStatus.ONLINE)
            task_id = (await rig.client.submit(photo.task())).id
            await rig.until_attempt(task_id, 1, node="node-1")
            await wait_until(lambda: len(photo.staged()) == 1, what="attempt 1 to have its result staged")
            stopped.send_signal(signal.SIGSTOP)
            with scripted_agent(rig, "node-2"):
                await rig.until_attempt(task_id, 2, node="node-2")
                photo.open_to(1)  # the runner of the stopped agent goes on, and is done
                photo.open_to(2)
                await rig.until(task_id, TaskStatus.COMPLETED, timeout=60)
            name = f"{{lcq}}:task:{task_id}"
            await wait_until(lambda: eye.hexists(name, "billed"), what="it to be counted for the report")
            assert await rig.total("fenced") == 0
            task, file = eye.hgetall(name), photo.final.stat()
            attempts = eye.lrange(f"{{lcq}}:attempts:{task_id}", 0, -1)
            stopped.send_signal(signal.SIGCONT)
            await rig.until_node("node-1", NodeStatus.ONLINE)
            await wait_until(lambda: not photo.staged(), timeout=60, what="its file to be thrown away")
            await wait_until(lambda: _fenced(rig), timeout=60, what="its outcome to be refused")
            assert await rig.total("fenced") == 1
            after = photo.final.stat()
            assert eye.hgetall(name) == task
            assert eye.lrange(f"{{lcq}}:attempts:{task_id}", 0, -1) == attempts
            assert [json.loads(one)["outcome"] for one in attempts] == ["failed", "completed"]
            assert (after.st_ino, after.st_mtime_ns) == (file.st_ino, file.st_mtime_ns)
            await rig.is_the_committed_one(task_id, photo, 2)
    with redis.Redis.from_url(redis_url, decode_responses=True) as eye:
        audit(eye)


async def _fenced(rig) -> bool:
    return await rig.total("fenced") > 0

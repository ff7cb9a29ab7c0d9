"""F-38: a hundred corrupt images fail once each, and no node is the worse for it."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import redis

from lcq.models import ErrorClass, Task, TaskStatus, TaskType
from tests.cluster import running_cluster


@pytest.mark.chaos
def test_a_hundred_corrupt_images_fail_once_each_and_nobody_is_blamed(
    redis_url: str, tmp_path: Path, rng: random.Random
) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    whole = (Path(__file__).parents[2] / "sample-config" / "photos" / "rocket.jpg").read_bytes()
    tasks = []
    for number in range(100):
        torn = {
            0: whole[: rng.randrange(10, len(whole) // 2)],
            1: rng.randbytes(rng.randrange(1, 4000)),
            2: b"",
            3: b"\x89PNG\r\n\x1a\n" + rng.randbytes(200),
        }[number % 4]
        (photos / f"{number}.jpg").write_bytes(torn)
        image, mask = (str(photos / f"{number}{end}.jpg") for end in ("", "-mask"))
        Path(mask).write_bytes(whole)
        tasks.append(Task(task_type=TaskType.INPAINT, image_path=image, mask_path=mask, config={"model": "cv2-telea"}))
    with running_cluster(redis_url, tmp_path / "c") as cluster:
        cluster.start_scheduler()
        for name in ("node-1", "node-2"):
            cluster.start_agent(name, slots=1)
        with cluster.client() as client, redis.Redis.from_url(redis_url, decode_responses=True) as eye:
            ids = [accepted.id for accepted in client.submit_many(tasks).accepted]
            assert len(ids) == 100
            records = client.wait(ids, timeout_s=90)
            assert {(one.status, one.retries, one.attempt) for one in records} == {(TaskStatus.FAILED, 0, 1)}
            assert {one.failure and one.failure.error_class for one in records} == {ErrorClass.BAD_INPUT}
            nodes = client.nodes()
            assert [(node.failed, node.blame, node.status) for node in nodes] == [(0, 0.0, "online")] * 2
            assert all(not eye.hexists(f"{{lcq}}:node:{node.id}", "blame") for node in nodes)
            causes = client.dead().causes
            assert sum(cause.count for cause in causes) == 100
            assert len(causes) < 20, "the same trouble is one cause, whatever the file is called"
            print("\n" + "\n".join(f"{cause.count} x {cause.code}: {cause.text}" for cause in causes))

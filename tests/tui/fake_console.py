"""The console over a cluster in memory that is never quiet, to look at: ``python -m tests.tui.fake_console``."""

from __future__ import annotations

import asyncio
import random
import sys

from lcq.ids import new_id
from lcq.models import Attempt, NodeStatus, TaskPriority, TaskRecord, TaskStatus
from tests.tui.fakes import FakeCluster, a_failure, a_node, a_task, many_tasks, now_ms
from tui.app import ConsoleApp
from tui.desk import Desk

_NAMES = ("cover_0411.tif", "hafen-bei-nacht.jpg", "写真-東京タワー.png", "IMG_20240807_wide.webp", "[red]sale[b].png",
          "naïve café.jpg", "a\x1b]0;owned\x07b.png", "🇩🇪 family 👨‍👩‍👧.heic")  # fmt: skip
_MODELS = ("cv2-telea", "cv2-ns", "lama")
_QUEUES = ("gpu-high", "gpu-medium", "cpu-light", "cpu-intensive")
_NODES = ("gpu-017", "gpu-021", "cpu-003")


def a_random_task(age_ms: int) -> TaskRecord:
    """One task somewhere in its life."""
    status = random.choices(list(TaskStatus), (2, 10, 4, 30, 5, 2))[0]
    ran = status in (TaskStatus.PROCESSING, TaskStatus.COMPLETED, TaskStatus.FAILED)
    submitted = now_ms() - age_ms
    failure = a_failure("tried to allocate 9.21 GiB, 1.1 GiB free") if status is TaskStatus.FAILED else None
    return a_task(
        f"/srv/photos/press-7/{random.choice(_NAMES)}",
        status=status,
        queue=random.choice(_QUEUES),
        task_id=new_id(),
        task_config={"model": random.choice(_MODELS), "radius": 3},
        task_user_id=random.choice(("press-7", "studio-a", "archive")),
        task_mask_path="/srv/photos/press-7/mask.png",
        priority=random.choice(list(TaskPriority)),
        node=random.choice(_NODES) if ran else "",
        attempt=1 if ran else 0,
        progress=random.random() if status is TaskStatus.PROCESSING else 0.0,
        stage="tile 11 of 26" if status is TaskStatus.PROCESSING else "",
        submitted_ms=submitted,
        started_ms=submitted + age_ms // 3 if ran else None,
        finished_ms=submitted + age_ms // 2 if ran and status.is_terminal else None,
        due_ms=now_ms() + 20_000 if status is TaskStatus.PENDING else None,
        failure=failure,
        why="no node has 40 GB VRAM" if status is TaskStatus.QUEUED and random.random() < 0.2 else "",
    )


def a_busy_cluster(count: int) -> FakeCluster:
    """A cluster with a past."""
    tasks = [a_random_task(random.randrange(1000, 3_000_000)) for _ in range(min(count, 3000))]
    tasks += many_tasks(max(0, count - 3000))
    nodes = (
        a_node("gpu-017", running=3, completed=1204, failed=31, telemetry={"cpu": 71.0, "gpu": "84%"}),
        a_node("gpu-021", running=1, completed=960, telemetry={"cpu": 12.0}),
        a_node("cpu-003", status=NodeStatus.DRAINING, running=2, why="maria: new driver"),
        a_node("cpu-004", status=NodeStatus.OFFLINE, seen_ms=now_ms() - 180_000, why="its lifeline closed"),
    )
    cluster = FakeCluster(tasks, nodes)
    cluster.paused["gpu-medium"] = "driver update, back at noon"
    for record in tasks:
        if record.attempt and record.node and record.started_ms:
            outcome = "running" if record.finished_ms is None else str(record.status)
            cluster.history[record.id] = [
                Attempt(
                    number=1, node=record.node, device="cpu", started_ms=record.started_ms,
                    ended_ms=record.finished_ms, outcome=outcome, failure=record.failure,
                )
            ]  # fmt: skip
    return cluster


async def live(cluster: FakeCluster, a_second: float) -> None:
    """Let tasks arrive, run and end."""
    while True:
        await asyncio.sleep(1 / a_second)
        record = random.choice(list(cluster.records.values())[-400:])
        match record.status:
            case TaskStatus.QUEUED:
                cluster.change(
                    record.id, "claim_tasks", status=TaskStatus.PROCESSING, node=random.choice(_NODES),
                    attempt=record.attempt + 1, started_ms=now_ms(),
                )  # fmt: skip
            case TaskStatus.PROCESSING if record.progress < 0.9:
                cluster.records[record.id] = record.model_copy(
                    update={"progress": record.progress + 0.2, "stage": f"tile {int(record.progress * 26)} of 26"}
                )
            case TaskStatus.PROCESSING:
                cluster.change(record.id, "finish_task", status=TaskStatus.COMPLETED, finished_ms=now_ms())
            case _:
                cluster.add(a_random_task(0).model_copy(update={"status": TaskStatus.QUEUED, "node": ""}))
        for node_id, node in cluster.node_records.items():
            if node.status is NodeStatus.ONLINE:
                cluster.node_records[node_id] = node.model_copy(update={"seen_ms": now_ms()})


async def main(count: int, a_second: float) -> None:
    random.seed(7)
    cluster = a_busy_cluster(count)
    app = ConsoleApp(Desk(cluster, cluster, cluster="demo@memory"), user="maria")
    async with asyncio.TaskGroup() as tasks:
        life = tasks.create_task(live(cluster, a_second), name="life")
        await app.run_async()
        life.cancel()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 600, float(sys.argv[2]) if len(sys.argv) > 2 else 4))

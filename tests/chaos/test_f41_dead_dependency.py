"""F-41: while what an engine needs is down, attempts are few and free; an IOPaint server stands in for serverless."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from lcq.models import Task, TaskRecord, TaskStatus, TaskType
from tests.cluster import free_port, running_cluster
from tests.conftest import wait_until, wait_until_sync
from worker.breaker import Breakers

STANDIN = Path(__file__).parents[1] / "iopaint_standin.py"


@pytest.mark.chaos
def test_a_dead_dependency_is_tried_few_times_and_no_task_loses_a_retry(redis_url: str, tmp_path: Path) -> None:
    port, down_s, slots, nodes = free_port(), 30.0, 1, ("node-1", "node-2")
    Image.effect_noise((40, 30), 60).convert("RGB").save(tmp_path / "photo.png")
    mask = Image.new("L", (40, 30))
    mask.paste(255, (10, 10, 20, 20))
    mask.save(tmp_path / "mask.png")

    def a_task(model: str) -> Task:
        return Task(
            task_type=TaskType.INPAINT,
            image_path=str(tmp_path / "photo.png"),
            mask_path=str(tmp_path / "mask.png"),
            output_path=str(tmp_path / f"out-{time.monotonic_ns()}.png"),
            config={"model": model},
            max_retries=1,
        )

    settings = {"LCQ_IOPAINT__URL": f"http://127.0.0.1:{port}", "LCQ_IOPAINT__MODELS": '{"far": "cv2"}'}
    with running_cluster(redis_url, tmp_path / "c", **settings) as cluster:
        cluster.start_scheduler()
        for name in nodes:
            cluster.start_agent(name, slots=slots)
        with cluster.client() as client:
            ids = [accepted.id for accepted in client.submit_many([a_task("far") for _ in range(40)]).accepted]

            def records() -> list[TaskRecord]:
                return client.get_many(ids)

            wait_until_sync(
                lambda: not any("far" in node.capability.models for node in client.nodes()),
                timeout=60,
                what="the model is withdrawn everywhere",
            )
            near = client.submit(a_task("cv2-telea"))
            assert client.wait([near.id], timeout_s=60)[0].status == TaskStatus.COMPLETED, "the rest works"
            time.sleep(down_s)  # the outage itself: it has a length, and nothing that could be waited for
            attempts = sum(record.attempt for record in records())
            print(f"\n{attempts} attempts of 40 tasks on {len(nodes)} nodes in an outage of {down_s:g} s")
            assert attempts <= len(nodes) * (3 + slots)
            assert {record.status for record in records()} <= {TaskStatus.QUEUED, TaskStatus.PENDING}
            assert {record.retries for record in records()} == {0}
            waits = next(one for one in records() if one.status is TaskStatus.QUEUED)
            assert f"no IOPaint answers at http://127.0.0.1:{port}" in client.history(waits.id).explanation
            late = client.submit_many([a_task("far")])
            assert not late.refused, "a model that is away for a while is no unknown model"
            ids += [accepted.id for accepted in late.accepted]
            began = time.monotonic()
            start = ("start", "--model", "cv2", "--device", "cpu", "--port", str(port))
            command = [sys.executable, str(STANDIN), *start]
            with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
                try:
                    ended = client.wait(ids, timeout_s=120)
                finally:
                    server.kill()
            assert {record.status for record in ended} == {TaskStatus.COMPLETED}
            assert {record.retries for record in ended} == {0}
            print(f"all {len(ids)} done {time.monotonic() - began:.1f} s after the server was started")


class Changes:
    """What breakers say, and what they are told of what they need."""

    def __init__(self) -> None:
        self.said: list[tuple[str, str]] = []
        self.is_up = False
        self.looks = 0

    def look(self, engine: str) -> bool:
        self.looks += 1
        return self.is_up

    def breakers(self) -> Breakers:
        return Breakers(on_change=lambda *said: self.said.append(said), answers=self.look, pause_s=(0.01, 0.05))


async def watched(breakers: Breakers, condition: Callable[[], bool]) -> None:
    import asyncio

    async with asyncio.TaskGroup() as group:
        life = group.create_task(breakers.watch(), name="breakers")
        await wait_until(condition)
        life.cancel()


async def test_three_failures_in_a_row_withdraw_an_engines_models_until_what_it_needs_answers() -> None:
    changes = Changes()
    breakers = changes.breakers()
    for _ in range(2):
        breakers.failed("iopaint", "away")
    breakers.worked("iopaint")
    for _ in range(2):
        breakers.failed("iopaint", "away")
    assert changes.said == [], "not in a row"
    for _ in range(3):
        breakers.failed("iopaint", "away")
    assert changes.said == [("iopaint", "away")], "said once"
    await watched(breakers, lambda: changes.looks >= 2)
    assert changes.said == [("iopaint", "away")]
    changes.is_up = True
    await watched(breakers, lambda: len(changes.said) == 2)
    assert changes.said[1] == ("iopaint", "")


async def test_one_failure_after_a_return_is_enough_to_withdraw_again() -> None:
    changes = Changes()
    changes.is_up = True
    breakers = changes.breakers()
    for _ in range(3):
        breakers.failed("iopaint", "away")
    await watched(breakers, lambda: len(changes.said) == 2)
    breakers.failed("iopaint", "away again")
    assert changes.said[2] == ("iopaint", "away again")

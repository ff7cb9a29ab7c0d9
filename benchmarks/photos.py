"""What the queue costs real work: 200 photos through LCQ, against a bare loop of the same function, in one run.

    python -m benchmarks.photos [--photos N] [--slots N]

The photos are the samples in ``sample-config``, repeated. The bare loop calls ``worker.engines.work.run_task`` in this
process, one after another; LCQ runs the same through a scheduler, an agent and its runners. Rates and their ratio.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

from lcq.config import LimitsConfig
from lcq.embedded import PrivateServer
from lcq.models import Task, TaskStatus, TaskType
from tests.cluster import running_cluster
from worker.engines.opencv import OpenCvEngine
from worker.engines.shelf import Shelf
from worker.engines.work import run_task
from worker.settings import EngineSettings

SAMPLES = Path(__file__).parents[1] / "sample-config"


def tasks(count: int, out: Path) -> list[Task]:
    photos = sorted((SAMPLES / "photos").iterdir())
    masks = {mask.stem: mask for mask in (SAMPLES / "masks").iterdir()}
    return [
        Task(
            task_type=TaskType.INPAINT,
            image_path=str(photo),
            mask_path=str(masks[photo.stem]),
            output_path=str(out / f"{place}-{photo.name}"),
            config={"model": "cv2-telea"},
        )
        for place, photo in ((place, photos[place % len(photos)]) for place in range(count))
    ]


def bare_rate(count: int, out: Path) -> float:
    settings, limits = EngineSettings(), LimitsConfig()
    shelf = Shelf((OpenCvEngine(settings),), settings)
    work = tasks(count, out)
    begun = time.perf_counter()
    for task in work:
        finished = run_task(task, attempt=1, shelf=shelf, limits=limits, progress=lambda fraction, stage: None)
        Path(finished.staged).replace(finished.result.path)
    return count / (time.perf_counter() - begun)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--photos", type=int, default=200)
    arguments.add_argument("--slots", type=int, default=2)
    chosen = arguments.parse_args()
    with tempfile.TemporaryDirectory() as name, PrivateServer(Path(name)) as server:
        folder = Path(name)
        bare_rate(12, folder / "warm")
        bare = bare_rate(chosen.photos, folder / "bare")
        with running_cluster(server.tcp_url, folder / "c") as cluster:
            cluster.start_scheduler()
            rates = {}
            for slots in sorted({1, chosen.slots}):
                node = f"node-{slots}"
                cluster.start_agent(node, slots=slots)
                with cluster.client() as client:
                    warm = client.submit_many(tasks(12, folder / f"warm-{slots}"))
                    client.wait([accepted.id for accepted in warm.accepted], timeout_s=120)
                    begun = time.perf_counter()
                    answer = client.submit_many(tasks(chosen.photos, folder / f"lcq-{slots}"))
                    records = client.wait([accepted.id for accepted in answer.accepted], timeout_s=600)
                    rates[slots] = chosen.photos / (time.perf_counter() - begun)
                    assert all(record.status == TaskStatus.COMPLETED for record in records)
                    client.drain(node)
    figures = {"photos": chosen.photos, "bare_loop_photos_per_s": round(bare, 2)}
    for slots, rate in rates.items():
        figures[f"lcq_{slots}_slot_photos_per_s"] = round(rate, 2)
        figures[f"lcq_{slots}_slot_over_bare"] = round(rate / bare, 3)
    print(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()

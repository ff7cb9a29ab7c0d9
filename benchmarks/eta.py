"""Whether jobs are done when LCQ said they would be: how many by the P50, and how many by the P90.

    python -m benchmarks.eta               # simulated jobs: seconds
    python -m benchmarks.eta --live        # a real cluster, and real pictures

Half of the answers should be kept by the P50 and nine in ten by the P90. ``times`` in the simulation is how much longer
everything takes than was predicted at the submit, ``noise`` how much single attempts differ (of the logarithm). An
answer is asked for nineteen times in each job's life, evenly over it, and in the live form twice a second.
"""

from __future__ import annotations

import argparse
import heapq
import json
import math
import os
import random
import statistics
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from PIL import Image, ImageDraw

from lcq.client import Client
from lcq.embedded import PrivateServer
from lcq.eta import Crew, Rivals, job_eta
from lcq.models import JobSummary, Task, TaskStatus, TaskType
from tests.cluster import running_cluster

IDLE = 0.05  # of what its attempts take, a slot is idle between two: 4 to 8 % were seen in the live form
UNSEEN_SPREAD = 2.0  # what is told of attempts of which too few were seen


@dataclass(frozen=True)
class Answer:
    """What was said, and how long it took then. ``share``: of the job's life that had gone by."""

    share: float
    p50_s: float
    p90_s: float
    actual_s: float


@dataclass(frozen=True)
class Calibration:
    """How answers were kept."""

    answers: int
    under_p50: float
    under_p90: float
    median_times_p50: float

    @classmethod
    def of(cls, answers: Sequence[Answer]) -> Calibration:
        return cls(
            len(answers),
            round(statistics.fmean(one.actual_s <= one.p50_s for one in answers), 3),
            round(statistics.fmean(one.actual_s <= one.p90_s for one in answers), 3),
            round(statistics.median(one.actual_s / one.p50_s for one in answers), 3),
        )


# ---------------------------------------------------------------- simulated


def simulated(*, jobs: int, times: float, noise: float, seed: int = 1) -> Calibration:
    """Of so many jobs of 5 to 300 tasks on 1 to 16 slots, each asked for at nineteen moments."""
    rng = random.Random(seed)
    answers: list[Answer] = []
    for _ in range(jobs):
        answers += _a_life(rng, rng.choice([5, 20, 80, 300]), rng.choice([1, 2, 4, 16]), times, noise)
    return Calibration.of(answers)


def _a_life(rng: random.Random, tasks: int, slots: int, times: float, noise: float) -> list[Answer]:
    predicted = [rng.lognormvariate(0, 0.5) for _ in range(tasks)]
    actual = [one * times * rng.lognormvariate(-(noise**2) / 2, noise) for one in predicted]
    free, starts, ends = [0.0] * slots, [], []
    for seconds in actual:
        starts.append(heapq.heappop(free))
        ends.append(starts[-1] + seconds)
        heapq.heappush(free, starts[-1] + seconds * (1 + IDLE))
    over = max(ends)
    answers = []
    for moment in range(1, 20):
        now = over * moment / 20.5
        done = [n for n in range(tasks) if ends[n] <= now]
        running = [n for n in range(tasks) if starts[n] <= now < ends[n]]
        waiting = tasks - len(done) - len(running)
        job = JobSummary(
            name="simulated",
            submitted_ms=0,
            counts={
                TaskStatus.QUEUED: waiting,
                TaskStatus.PROCESSING: len(running),
                TaskStatus.COMPLETED: len(done),
            },
            left_s=sum(predicted) - sum(predicted[n] for n in done),
            done_predicted_s=sum(predicted[n] for n in done),
            done_spent_s=sum(actual[n] for n in done),
        )
        crew = Crew(
            slots,
            math.exp(1.2816 * noise) if len(done) > 8 else UNSEEN_SPREAD,
            running_s=statistics.fmean(predicted[n] for n in running) if running else 0.0,
            elapsed_s=statistics.fmean(now - starts[n] for n in running) if running else 0.0,
        )
        eta = job_eta(job, crew, Rivals())
        assert eta is not None
        assert eta.p50_s is not None
        assert eta.p90_s is not None
        answers.append(Answer(moment / 20.5, eta.p50_s, eta.p90_s, over - now))
    return answers


# ---------------------------------------------------------------- live


def _pictures(folder: Path, count: int) -> list[tuple[Path, Path]]:
    """Pictures of several sizes with their masks."""
    rng, found = random.Random(1), []
    for number in range(count):
        side = rng.choice([400, 700, 1000, 1400])
        picture = Image.effect_noise((side, side), 40).convert("RGB")
        mask = Image.new("L", (side, side))
        ImageDraw.Draw(mask).rectangle((side // 4, side // 4, side // 2, side // 3), fill=255)
        paths = folder / f"{number}.png", folder / f"{number}-mask.png"
        picture.save(paths[0])
        mask.save(paths[1])
        found.append(paths)
    return found


def _watched(client: Client, name: str, pictures: Iterable[tuple[Path, Path]], results: Path) -> list[Answer]:
    tasks = [
        Task(
            task_type=TaskType.INPAINT,
            image_path=str(image),
            mask_path=str(mask),
            output_path=str(results / f"{name}-{image.name}"),
            config={"model": "cv2-telea"},
            job=name,
        )
        for image, mask in pictures
    ]
    began = time.monotonic()
    answer = client.submit_many(tasks)
    assert not answer.refused, answer.refused[:1]
    asked: list[tuple[float, float, float]] = []
    while True:
        (job,) = client.jobs(name=name)
        now = time.monotonic()
        if not job.unfinished:
            break
        if job.eta is not None and job.eta.p50_s is not None and job.eta.p90_s is not None:
            asked.append((now, job.eta.p50_s, job.eta.p90_s))
        time.sleep(0.5)
    return [Answer((then - began) / (now - began), p50_s, p90_s, now - then) for then, p50_s, p90_s in asked]


def live(jobs: int, tasks: int) -> dict[str, object]:
    """Some jobs of pictures, one after another, on an agent with two slots that has never seen any."""
    with (
        tempfile.TemporaryDirectory() as folder,
        PrivateServer(Path(folder) / "redis") as server,
        running_cluster(server.tcp_url, Path(folder) / "c") as cluster,
    ):
        root = Path(folder) / "pictures"
        root.mkdir()
        cluster.start_scheduler()
        cluster.start_agent("node-1")
        pictures = _pictures(root, tasks)
        with cluster.client() as client:
            by_job = [_watched(client, f"job {number}", pictures, root) for number in range(jobs)]
    every = [one for answers in by_job for one in answers]
    return {
        "jobs": jobs,
        "tasks_of_each": tasks,
        "all": asdict(Calibration.of(every)),
        "the_first_job": asdict(Calibration.of(by_job[0])),
        "the_later_ones": asdict(Calibration.of([one for answers in by_job[1:] for one in answers])),
    }


# ---------------------------------------------------------------- the program


def main() -> None:
    arguments = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, prog="python -m benchmarks.eta"
    )
    arguments.add_argument("--live", action="store_true", help="a real cluster instead; some minutes")
    arguments.add_argument("--jobs", type=int, help="jobs (300; live: 3)")
    arguments.add_argument("--tasks", type=int, default=80, help="tasks of each live job")
    chosen = arguments.parse_args()
    figures: dict[str, object] = {"cores": os.cpu_count(), "load": [round(one, 1) for one in os.getloadavg()]}
    if chosen.live:
        figures |= live(chosen.jobs or 3, chosen.tasks)
    else:
        for times in (0.5, 1.0, 1.3, 2.0):
            for noise in (0.05, 0.3, 0.8):
                told = simulated(jobs=chosen.jobs or 300, times=times, noise=noise)
                figures[f"times {times}, noise {noise}"] = asdict(told)
    print(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()

"""What HTTP costs: a picture for one and four clients, a person behind a batch, and a folder; IOPaint beside it.

    python -m benchmarks.over_http [--only behind|long|clients|batch] [--slots N] [--iopaint PATH]

``behind``: a cv2 request for 1024 x 768 while a job of 1,000 pictures runs, against one of an idle cluster.
``long``: strokes while every slot is at tasks of four seconds, with a kept slot and without.
``clients``: CPU seconds (of all processes but the clients') and pictures a second of POST inpaint, LCQ and IOPaint with
the same pictures in one run. ``batch``: 40 JPEGs by ``lcq submit`` and by ``iopaint run``. IOPaint: of make parity.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import io
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import httpx
import numpy as np
import psutil
from PIL import Image

from lcq.embedded import PrivateServer
from lcq.models import Task, TaskStatus, TaskType
from tests.cluster import Cluster, free_port, running_cluster
from worker.engines.iopaint_server import IopaintServer

WIDTH, HEIGHT = 1024, 768
IOPAINT = Path(__file__).parents[1] / ".venv-parity" / "bin" / "iopaint"
_START_S = 300.0


def a_photo(seed: int) -> bytes:
    """A JPEG that is neither flat nor noise."""
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 256, (HEIGHT // 16, WIDTH // 16, 3), dtype=np.uint8)
    smooth = cv2.resize(small, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC).astype(np.int16)
    grain = rng.normal(0, 6, smooth.shape).astype(np.int16)
    out = io.BytesIO()
    Image.fromarray((smooth + grain).clip(0, 255).astype(np.uint8)).save(out, format="JPEG", quality=90)
    return out.getvalue()


def strokes() -> bytes:
    """Two, as the web app sends them."""
    mask = np.zeros((HEIGHT, WIDTH, 4), np.uint8)
    for begin, end in (((150, 300), (420, 330)), ((700, 520), (860, 600))):
        cv2.line(mask, begin, end, (255, 204, 0, 187), 24)
    out = io.BytesIO()
    Image.fromarray(mask).save(out, format="PNG")
    return out.getvalue()


def bodies(count: int) -> list[bytes]:
    """The JSON of requests, each with another picture."""
    mask = base64.b64encode(strokes()).decode()
    return [
        json.dumps({"image": base64.b64encode(a_photo(seed)).decode(), "mask": mask, "cv2_radius": 5}).encode()
        for seed in range(count)
    ]


# ---------------------------------------------------------------- who is measured


@contextlib.contextmanager
def our_cluster(folder: Path, slots: int, *, kept: int = 1) -> Iterator[tuple[Cluster, str, Callable[[], float]]]:
    """A cluster with one agent, its HTTP address, and the CPU seconds that all its processes have taken."""
    port = free_port()
    around = {
        "LCQ_HTTP__ENABLED": "1", "LCQ_HTTP__PER_MINUTE": "1000000", "LCQ_SCHEDULER_PORT": str(port),
        "LCQ_DISCOVERY__ENABLED": "0", "LCQ_AGENT__MODELS": '["cv2-telea", "cv2-ns", "drill-sleep"]',
        "LCQ_LEASES__BEAT_S": "3", "LCQ_LEASES__LEASE_S": "15", "LCQ_HTTP__INTERACTIVE_SLOTS": str(kept),
    }  # fmt: skip
    with PrivateServer(folder / "redis") as server, running_cluster(server.tcp_url, folder, **around) as cluster:
        cluster.start_scheduler()
        cluster.start_agent(slots=slots)

        def spent_s() -> float:
            return sum(cpu_s(one.pid) for one in cluster.processes.values()) + redis_cpu_s(server)

        yield cluster, f"http://127.0.0.1:{port}", spent_s


def redis_cpu_s(server: PrivateServer) -> float:
    import redis

    told = redis.Redis.from_url(server.url).info("cpu")
    return float(told["used_cpu_user"]) + float(told["used_cpu_sys"])


def cpu_s(pid: int) -> float:
    """CPU seconds of a process and of all below it, those that have ended included."""
    total = 0.0
    for one in (psutil.Process(pid), *psutil.Process(pid).children(recursive=True)):
        with contextlib.suppress(psutil.Error):
            times = one.cpu_times()
            total += times.user + times.system + times.children_user + times.children_system
    return total


@contextlib.contextmanager
def their_server(program: Path, folder: Path) -> Iterator[tuple[str, Callable[[], float]]]:
    """IOPaint with cv2, its address and its CPU seconds."""
    server = IopaintServer((str(program),), "cv2", device="cpu", more=["--model-dir", str(folder)])
    try:
        until = time.monotonic() + _START_S
        while not server.api.is_up():
            if not server.lives or time.monotonic() > until:
                raise SystemExit(f"IOPaint did not start: {server.last_words()}")
            time.sleep(0.5)
        yield server.api.url, lambda: cpu_s(os.getpid()) - own_cpu_s()
    finally:
        server.end()


def own_cpu_s() -> float:
    times = psutil.Process().cpu_times()
    return times.user + times.system + times.children_user + times.children_system


# ---------------------------------------------------------------- clients


def asked(client: httpx.Client, body: bytes) -> float:
    """Seconds until the answer was there."""
    begun = time.perf_counter()
    answer = client.post("/api/v1/inpaint", content=body, headers={"content-type": "application/json"})
    took = time.perf_counter() - begun
    assert answer.status_code == 200, answer.text[:500]
    assert Image.open(io.BytesIO(answer.content)).size == (WIDTH, HEIGHT)
    return took


def load(address: str, spent_s: Callable[[], float], clients: int, work: Sequence[bytes]) -> dict[str, float]:
    """All of ``work`` by so many clients at a time."""
    with httpx.Client(base_url=address, timeout=600, limits=httpx.Limits(max_connections=clients)) as client:
        before, begun = spent_s(), time.perf_counter()
        with ThreadPoolExecutor(clients) as pool:
            times = list(pool.map(lambda body: asked(client, body), work))
        wall = time.perf_counter() - begun
        spent = spent_s() - before
    return {
        "pictures_per_s": round(len(work) / wall, 2),
        "cpu_s_a_picture": round(spent / len(work), 4),
        "p50_s": round(statistics.median(times), 4),
        "longest_s": round(max(times), 4),
    }


def of_clients(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    work = bodies(options.pictures)
    found: dict[str, Any] = {"pictures": len(work), "size": f"{WIDTH} x {HEIGHT}"}
    if options.iopaint.exists():
        with their_server(options.iopaint, folder / "models") as (address, spent_s):
            load(address, spent_s, 1, work[:4])
            found["iopaint"] = {n: load(address, spent_s, n, work) for n in (1, 4)}
    with our_cluster(folder / "lcq", options.slots) as (_, address, spent_s):
        load(address, spent_s, 2, work[:8])
        found["lcq"] = {n: load(address, spent_s, n, work) for n in (1, 4)}
    if "iopaint" in found:
        found["lcq_cpu_over_iopaint"] = {
            n: round(found["lcq"][n]["cpu_s_a_picture"] / found["iopaint"][n]["cpu_s_a_picture"], 3) for n in (1, 4)
        }
    return found


# ---------------------------------------------------------------- behind a batch


def a_batch(folder: Path, count: int) -> list[Task]:
    """Pictures in a folder, as tasks by path; twenty different ones, over and over."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "mask.png").write_bytes(strokes())
    for seed in range(20):
        (folder / f"{seed}.jpg").write_bytes(a_photo(seed))
    return [
        Task(
            task_type=TaskType.INPAINT,
            image_path=str(folder / f"{place % 20}.jpg"),
            mask_path=str(folder / "mask.png"),
            output_path=str(folder / "out" / f"{place}.jpg"),
            config={"model": "cv2-ns", "radius": 5},
            job="batch",
            user_id="batch",
        )
        for place in range(count)
    ]


def of_behind(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    work = bodies(options.requests)
    with (
        our_cluster(folder / "lcq", options.slots) as (cluster, address, _),
        httpx.Client(base_url=address, timeout=600) as client,
        cluster.client() as operator,
    ):
        for body in work[:4]:
            asked(client, body)
        idle = [asked(client, body) for body in work]
        tasks = a_batch(folder / "photos", options.batch)
        for at in range(0, len(tasks), 500):
            operator.submit_many(tasks[at : at + 500])
        asked(client, work[0])  # the first one makes that slots are kept
        busy = [asked(client, body) for body in work]
        (job,) = operator.jobs("batch")
        left = job.counts.get(TaskStatus.QUEUED, 0)
        done = operator.page("job:batch state:completed", limit=200).tasks
        running = [record.result.seconds for record in done if record.result is not None]
    remainder = statistics.median(running)
    return {
        "slots": options.slots,
        "batch": options.batch,
        "still_waiting_at_the_end": left,
        "idle_p50_s": round(statistics.median(idle), 4),
        "busy_p50_s": round(statistics.median(busy), 4),
        "busy_longest_s": round(max(busy), 4),
        "task_of_the_batch_p50_s": round(remainder, 4),
        "allowed_s": round(2 * statistics.median(idle) + remainder, 4),
        "within": round(sum(one < 2 * statistics.median(idle) + remainder for one in busy) / len(busy), 3),
    }


_LONG_S = 4.0


def of_long(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """A stroke every half second while every slot has tasks of four seconds, with a kept slot and without one."""
    work = bodies(options.requests)
    found: dict[str, Any] = {"slots": options.slots, "a_task_takes_s": _LONG_S}
    for kept in (0, 1):
        with (
            our_cluster(folder / f"lcq-{kept}", options.slots, kept=kept) as (cluster, address, _),
            httpx.Client(base_url=address, timeout=600) as client,
            cluster.client() as operator,
        ):
            for body in work[:4]:
                asked(client, body)
            sleepers = [
                Task(
                    task_type=TaskType.INPAINT,
                    image_path="drill.png",
                    config={"model": "drill-sleep", "seconds": _LONG_S},
                )
                for _ in range(200)
            ]
            operator.submit_many(sleepers)
            time.sleep(_LONG_S / 2)
            first = asked(client, work[0])
            times = []
            for body in work:
                time.sleep(0.5)
                times.append(asked(client, body))
        found[f"{kept} kept"] = {
            "first_s": round(first, 3),
            "p50_s": round(statistics.median(times), 3),
            "longest_s": round(max(times), 3),
        }
    return found


# ---------------------------------------------------------------- a folder


def timed(command: Sequence[str], environment: dict[str, str]) -> tuple[float, float]:
    """Seconds by the wall and of the CPU that ``command`` took."""
    before, begun = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    wall = time.perf_counter() - begun
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == 0, f"{command}: {done.stdout[-1000:]}{done.stderr[-1000:]}"
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def of_batch(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    for name in ("photos", "masks", "one", "one-mask"):
        (folder / name).mkdir()
    for seed in range(options.folder):
        (folder / "photos" / f"{seed:03}.jpg").write_bytes(a_photo(seed))
        (folder / "masks" / f"{seed:03}.png").write_bytes(strokes())
    (folder / "one" / "0.jpg").write_bytes(a_photo(0))
    (folder / "one-mask" / "0.png").write_bytes(strokes())
    found: dict[str, Any] = {"pictures": options.folder}
    if options.iopaint.exists():

        def iopaint_run(images: str, masks: str) -> tuple[float, float]:
            command = [str(options.iopaint), "run", "--model=cv2", "--device=cpu", f"--image={folder / images}",
                       f"--mask={folder / masks}", f"--output={folder / ('theirs-' + images)}",
                       f"--model-dir={folder / 'models'}"]  # fmt: skip
            return timed(command, dict(os.environ))

        start = iopaint_run("one", "one-mask")
        whole = iopaint_run("photos", "masks")
        found["iopaint_run"] = {
            "wall_s": round(whole[0], 2), "cpu_s": round(whole[1], 2),
            "wall_s_without_its_start": round(whole[0] - start[0], 2),
            "cpu_s_a_picture_without_its_start": round((whole[1] - start[1]) / (options.folder - 1), 4),
        }  # fmt: skip
    with our_cluster(folder / "lcq", options.slots) as (cluster, _, spent_s):
        environment = os.environ | {
            "LCQ_ZEROMQ__CONTROL_PORT": str(cluster.control_port), "LCQ_DATA_DIR": str(folder / "client"),
            "LCQ_DISCOVERY__ENABLED": "0",
        }  # fmt: skip

        def submit(images: str, masks: str) -> tuple[float, float]:
            command = [sys.executable, "-m", "lcq.cli.main", "submit", str(folder / images), "--mask",
                       str(folder / masks), "--out", str(folder / f"ours-{images}"), "--model", "cv2-ns",
                       "--radius", "4", "--wait"]  # fmt: skip
            return timed(command, environment)

        submit("one", "one-mask")
        before = spent_s()
        wall, cpu = submit("photos", "masks")
        found["lcq_submit"] = {
            "wall_s": round(wall, 2),
            "cpu_s": round(cpu + spent_s() - before, 2),
            "cpu_s_of_the_command_line": round(cpu, 2),
            "cpu_s_a_picture_without_the_command_line": round((spent_s() - before) / options.folder, 4),
        }
        assert len(list((folder / "ours-photos").glob("*.jpg"))) == options.folder
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=("behind", "long", "clients", "batch"))
    parser.add_argument("--slots", type=int, default=2)
    parser.add_argument("--pictures", type=int, default=60, help="of clients")
    parser.add_argument("--requests", type=int, default=30, help="of behind")
    parser.add_argument("--batch", type=int, default=1000, help="of behind: the job")
    parser.add_argument("--folder", type=int, default=40, help="of batch")
    parser.add_argument("--iopaint", type=Path, default=IOPAINT)
    options = parser.parse_args()
    found = {}
    for name, measure in (("clients", of_clients), ("behind", of_behind), ("long", of_long), ("batch", of_batch)):
        if options.only in (None, name):
            with tempfile.TemporaryDirectory() as folder:
                found[name] = measure(options, Path(folder))
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()

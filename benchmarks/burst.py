"""A burst: 200 photos for one slow device of the house, and functions that help, up to a budget, and until they die.

    python -m benchmarks.burst [--photos N]

Everything is real but two things: the slow device is a CPU whose runner is stopped nine tenths of the time, and the
functions (four instances of functions-framework with LCQ's handler) run on this machine. A call costs 0.01, whatever it
takes, so that a budget of 1.00 is a hundred calls to the cent.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lcq.embedded import PrivateServer
from lcq.models import Task, TaskStatus
from tests.cluster import Cluster, running_cluster
from tests.functions import SAMPLES, functions_framework

MODEL = "cv2-telea"
PRICE = 0.01
DUTY = 0.1  # of its time the slow device works
_PERIOD_S = 0.2
_LONGEST_S = 900.0
_LEARNED_FROM = 14


@dataclass
class Outcome:
    """What became of one burst."""

    name: str
    seconds: float
    done: int
    by_device: Counter[str]
    spent: float
    reserved: float
    tries: int

    def __str__(self) -> str:
        where = ", ".join(f"{count} {device}" for device, count in sorted(self.by_device.items()))
        return f"| {self.name} | {self.seconds:.1f} s | {self.done} | {where} | {self.spent:.2f} | {self.tries} |"


@contextlib.contextmanager
def slowed(cluster: Cluster, agent: str) -> Iterator[None]:
    """The runners of ``agent`` work a tenth of the time."""
    ended = threading.Event()

    def go_on() -> None:
        while not ended.is_set():
            runners = cluster.runners(agent)
            for how, pause in ((signal.SIGCONT, _PERIOD_S * DUTY), (signal.SIGSTOP, _PERIOD_S * (1 - DUTY))):
                for runner in runners:
                    with contextlib.suppress(OSError):
                        os.kill(runner.pid, how)
                ended.wait(pause)
        for runner in cluster.runners(agent):
            with contextlib.suppress(OSError):
                os.kill(runner.pid, signal.SIGCONT)

    thread = threading.Thread(target=go_on, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def burst(name: str, photos: int, *, functions: bool, budget: float | None = None, dies_after: int = 0) -> Outcome:
    """Submit ``photos`` at once, and wait for all. ``dies_after``: so many results of functions later they are gone."""
    settings = {"LCQ_SERVERLESS__OVERFLOW_AFTER_S": "5"}
    if budget is not None:
        settings["LCQ_SERVERLESS__BUDGET__DAY"] = str(budget)
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        server = stack.enter_context(PrivateServer(folder / "state"))
        address, kill = "", None
        if functions:
            own = stack.enter_context(contextlib.ExitStack())
            address = own.enter_context(functions_framework(folder / "function.log", workers=4))
            kill = own.close
        cluster = stack.enter_context(running_cluster(server.tcp_url, folder / "c", **settings))
        cluster.start_scheduler()
        cluster.start_agent("house", slots=1)
        if functions:
            burst_ = {"url": address, "models": {MODEL: 0.3}, "concurrency": 4, "price_call": PRICE, "timeout_s": 60}
            cluster.environment = {
                **cluster.environment,
                "LCQ_AGENT__FUNCTIONS": json.dumps({"burst": burst_}),
                "LCQ_AGENT__DEVICES": json.dumps({"cpu": {"enabled": False}}),
            }
            cluster.start_agent("far")
        stack.enter_context(slowed(cluster, "house"))
        client = stack.enter_context(cluster.client())
        names = sorted(path.stem for path in (SAMPLES.parent / "masks").glob("*.png"))
        images = {path.stem: path for path in (SAMPLES.parent / "photos").iterdir()}

        def task(number: int, privacy: str) -> Task:
            name = names[number % len(names)]
            return Task.model_validate(
                {
                    "task_type": "inpaint",
                    "image_path": str(images[name]),
                    "mask_path": str(SAMPLES.parent / "masks" / f"{name}.png"),
                    "output_path": str(folder / privacy / f"{number}.png"),
                    "config": {"model": MODEL},
                    "privacy": privacy,
                }
            )

        # What the slow device takes is learned first, as a cluster that has worked before knows it.
        learned = client.submit_many([task(number, "private") for number in range(_LEARNED_FROM)]).accepted
        client.wait([one.id for one in learned], timeout_s=_LONGEST_S)
        tasks = [task(number, "exportable") for number in range(photos)]
        began = time.monotonic()
        ids = [one.id for one in client.submit_many(tasks).accepted]
        while kill is not None and dies_after and time.monotonic() - began < _LONGEST_S / 4:
            if sum(node.completed for node in client.nodes() if node.id == "far") >= dies_after:
                kill()
                break
            time.sleep(0.1)
        records = client.wait(ids, timeout_s=_LONGEST_S)
        seconds = time.monotonic() - began
        day = client.spend().now[1]
        done = [one for one in records if one.status is TaskStatus.COMPLETED]
        written = len(list((folder / "exportable").glob("*.png")))
        assert written == len(done), (written, len(done))
        return Outcome(
            name,
            seconds,
            len(done),
            Counter(one.device for one in done),
            day.spent,
            day.reserved,
            max(one.retries for one in records),
        )


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--photos", type=int, default=200, metavar="N")
    photos = arguments.parse_args().photos
    print("| | makespan | done | where | spent | most tries lost |\n|---|---:|---:|---|---:|---:|", flush=True)
    outcomes = []
    for name, more in (
        ("the house alone", {"functions": False}),
        ("with functions", {"functions": True}),
        (f"with a budget of {photos / 2 * PRICE:g}", {"functions": True, "budget": photos / 2 * PRICE}),
        ("functions die in the middle", {"functions": True, "dies_after": photos // 4}),
    ):
        outcomes.append(burst(name, photos, **more))  # type: ignore[arg-type]
        print(outcomes[-1], flush=True)
    alone, *others = outcomes
    print("\n" + ", ".join(f"{one.name}: {alone.seconds / one.seconds:.1f} times as fast as alone" for one in others))
    assert all(one.done == photos for one in outcomes)


if __name__ == "__main__":
    main()

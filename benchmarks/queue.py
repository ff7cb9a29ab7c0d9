"""How fast the queue itself is: no-op tasks a second with 1 and 2 agents, and how soon an idle cluster starts a task.

    python -m benchmarks.queue [--tasks N] [--probes N]

Everything is real: a private server with its log on, a scheduler process, agent processes with two runners each, a
client in this process. The no-op engine does nothing, so what is measured is what LCQ adds to every task. No targets
yet; compare figures of one run only.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import tempfile
import time
from pathlib import Path

from lcq.client import Client
from lcq.embedded import PrivateServer
from lcq.models import TaskStatus
from tests.cluster import drill, running_cluster


def drain_rate(client: Client, tasks: int) -> tuple[float, float]:
    """Submit ``tasks`` no-ops to a paused queue, resume it, wait. Answers (submits/s, completed tasks/s)."""
    client.pause("cpu-light", reason="benchmark")
    begun = time.perf_counter()
    answer = client.submit_many([drill() for _ in range(tasks)])
    submitted = time.perf_counter() - begun
    ids = [accepted.id for accepted in answer.accepted]
    assert len(ids) == tasks, answer.refused[:1]
    client.resume("cpu-light")
    begun = time.perf_counter()
    records = client.wait(ids, timeout_s=300)
    drained = time.perf_counter() - begun
    assert all(record.status == TaskStatus.COMPLETED for record in records)
    return tasks / submitted, tasks / drained


def idle_latencies(client: Client, probes: int) -> tuple[list[float], list[float]]:
    """One no-op at a time to an idle cluster. Answers ms from submit to start (Redis's clock), and to its end here."""
    starts, ends = [], []
    for _ in range(probes):
        begun = time.perf_counter()
        accepted = client.submit(drill())
        (record,) = client.wait([accepted.id], timeout_s=30)
        ends.append((time.perf_counter() - begun) * 1000)
        assert record.started_ms is not None
        starts.append(float(record.started_ms - record.submitted_ms))
        time.sleep(0.15)  # let the agent fall idle again: this is the latency of a bell, not of a step's answer
    return starts, ends


def percentiles(values: list[float]) -> dict[str, float]:
    cuts = statistics.quantiles(values, n=100)
    return {"p50": round(statistics.median(values), 2), "p99": round(cuts[98], 2), "max": round(max(values), 2)}


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--tasks", type=int, default=3000)
    arguments.add_argument("--probes", type=int, default=200)
    chosen = arguments.parse_args()
    figures: dict[str, object] = {"python": platform.python_version(), "tasks": chosen.tasks}
    with (
        tempfile.TemporaryDirectory() as folder,
        PrivateServer(Path(folder)) as server,
        running_cluster(
            server.tcp_url, Path(folder) / "c", LCQ_LEASES__BEAT_S="3", LCQ_LEASES__LEASE_S="15"
        ) as cluster,
    ):
        cluster.start_scheduler()
        cluster.start_agent("node-1")
        with cluster.client() as client:
            drain_rate(client, 200)  # warm-up
            for agents in (1, 2):
                if agents == 2:
                    cluster.start_agent("node-2")
                submits, rate = drain_rate(client, chosen.tasks)
                starts, ends = idle_latencies(client, chosen.probes)
                figures[f"{agents} agent{'s' if agents > 1 else ''}"] = {
                    "submits_per_s": round(submits),
                    "noop_tasks_per_s": round(rate),
                    "idle_submit_to_start_ms": percentiles(starts),
                    "idle_submit_to_result_ms": percentiles(ends),
                }
    print(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()

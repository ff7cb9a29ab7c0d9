"""What acts on a whole job cost: how long each takes, how long its scripts hold Redis, how long others wait.

    python -m benchmarks.jobs [--tasks N] [--only "retry failed" cancel]

A private server with its log on, a scheduler and an agent as processes, and a client here that does each act on one
job of N tasks. The server itself says how long its scripts took (``INFO latencystats``, ``SLOWLOG``) and how much
processor time it spent: on a machine that is busy otherwise the two differ, for a script that the kernel puts off is
slow to those who wait. Another connection asks a trifle every few milliseconds and notes how long it waits.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import platform
import tempfile
import time
from collections.abc import Awaitable, Callable, Collection
from pathlib import Path
from typing import Any

from redis import asyncio as redis

from lcq.client import AsyncClient
from lcq.config import DistributedConfig
from lcq.embedded import PrivateServer
from lcq.errors import TransitionRefused
from lcq.models import TaskPriority
from lcq.state.manager import StateManager
from lcq.state.scripts import Scripts
from tests.cluster import running_cluster
from tests.nodes import LIGHT, Node, a_failure, a_task

SLOW_US = 3_000  # scripts that take longer are told one by one
ASKED_EVERY_S = 0.004
JOB, OTHER = "big", "cpu-intensive"
ACTS = ("pause", "resume", "prioritise", "reroute", "retry failed", "cancel")


async def fill(state: StateManager, count: int) -> None:
    """One job of so many waiting tasks, and one of another user beside it."""
    for start in range(0, count, 500):
        await asyncio.gather(
            *(state.submit_task(a_task(job=JOB, max_retries=0), queue=LIGHT) for _ in range(min(500, count - start)))
        )
    await asyncio.gather(*(state.submit_task(a_task(job="small", user_id="ben"), queue=LIGHT) for _ in range(100)))


class Meter:
    """What the server tells of the scripts that have run since it was asked last."""

    def __init__(self, eye: redis.Redis, config: DistributedConfig) -> None:
        self._eye = eye
        self._names = {digest: name for name, digest in Scripts(config).digests.items()}
        self._cpu_s = 0.0

    async def begin(self) -> None:
        await self._eye.config_resetstat()
        await self._eye.slowlog_reset()
        self._cpu_s = await self._spent()

    async def _spent(self) -> float:
        told = await self._eye.info("cpu")
        return float(told["used_cpu_user_main_thread"]) + float(told["used_cpu_sys_main_thread"])

    async def read(self) -> dict[str, Any]:
        cpu_s = await self._spent() - self._cpu_s
        stats = (await self._eye.info("commandstats")).get("cmdstat_evalsha", {"calls": 0, "usec": 0})
        latency = (await self._eye.info("latencystats")).get("latency_percentiles_usec_evalsha", {})
        slowest: dict[str, list[float]] = {}
        for entry in await self._eye.slowlog_get(10_000):
            words = entry["command"].split()
            name = self._names.get(words[1].decode(), "?") if words[0].lower() == b"evalsha" else words[0].decode()
            slowest.setdefault(name, []).append(entry["duration"] / 1000)
        return {
            "scripts": stats["calls"],
            "server_cpu_ms_a_script": round(1000 * cpu_s / max(1, stats["calls"]), 3),
            "script_ms": {name: round(float(us) / 1000, 3) for name, us in latency.items()},
            "longer_than_3_ms": {
                name: {
                    "count": len(found),
                    "longest_ms": round(max(found), 1),
                    "over_10_ms": sum(d > 10 for d in found),
                }
                for name, found in sorted(slowest.items())
            },
        }


async def ask_all_the_time(url: str, waits: list[float]) -> None:
    async with redis.Redis.from_url(url) as bystander:
        while True:
            begun = time.perf_counter()
            await bystander.get("{lcq}:format")
            waits.append(1000 * (time.perf_counter() - begun))
            await asyncio.sleep(ASKED_EVERY_S)


async def measure(meter: Meter, url: str, act: Callable[[], Awaitable[Any]]) -> dict[str, Any]:
    waits: list[float] = []
    await meter.begin()
    bystander = asyncio.create_task(ask_all_the_time(url, waits))
    begun = time.perf_counter()
    answer = await act()
    took_s = time.perf_counter() - begun
    bystander.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await bystander
    ordered = sorted(waits)
    return {
        "seconds": round(took_s, 1),
        "tasks": getattr(answer, "done", getattr(answer, "moved", answer)),
        **await meter.read(),
        "another_client_waits_ms": {
            "p50": round(ordered[len(ordered) // 2], 1),
            "p99": round(ordered[len(ordered) * 99 // 100], 1),
            "max": round(ordered[-1], 1),
        },
    }


async def run(
    count: int, url: str, address: str, config: DistributedConfig, only: Collection[str] = ()
) -> dict[str, Any]:
    figures: dict[str, Any] = {}
    async with (
        StateManager(config, url=url) as state,
        redis.Redis.from_url(url) as eye,
        AsyncClient(config, scheduler=address, actor="bench", timeout_s=120) as client,
    ):
        await eye.config_set("slowlog-log-slower-than", SLOW_US)
        await eye.config_set("slowlog-max-len", 10_000)
        for queue in (LIGHT, OTHER):
            await state.pause_queue(queue, actor="benchmark")
        begun = time.perf_counter()
        await fill(state, count)
        figures["submit"] = {"seconds": round(time.perf_counter() - begun, 1)}
        print("submit", json.dumps(figures["submit"]), flush=True)
        meter = Meter(eye, config)

        async def walked() -> None:
            while await eye.exists("{lcq}:walks"):  # noqa: ASYNC110 - that is for the server to say
                await asyncio.sleep(0.02)

        async def pause() -> Any:
            answer = await client.pause_job(JOB, reason="benchmark")
            await walked()
            return answer

        async def resume() -> Any:
            answer = await client.resume_job(JOB)
            await walked()
            return answer

        acts: dict[str, Callable[[], Awaitable[Any]]] = {
            "pause": pause,
            "resume": resume,
            "prioritise": lambda: client.prioritise_job(JOB, TaskPriority.LOW),
            "reroute": lambda: client.reroute_job(JOB, queue=OTHER),
            "retry failed": lambda: client.retry_job(JOB),
            "cancel": lambda: client.cancel_job(JOB, reason="benchmark"),
        }
        for name, act in acts.items():
            if only and name not in only:
                continue
            if name == "retry failed":
                await fail_all(state)
            figures[name] = await measure(meter, url, act)
            print(name, json.dumps(figures[name]), flush=True)
    return figures


async def fail_all(state: StateManager) -> None:
    """Let a node take every task of the job, and fail it; the agent takes none meanwhile."""
    (agent,) = [one.id for one in await state.reader.nodes()]
    await state.drain_node(agent, why="benchmark")
    node = Node(state, "failing", queues=(OTHER, LIGHT))
    await node.hello()
    for queue in node.queues:
        await state.resume_queue(queue, actor="benchmark")
    while granted := await node.claim(64):
        await node.beat()  # for minutes: who says nothing is lost
        for done in await asyncio.gather(
            *(node.fail(grant.task.id, failure=a_failure(code="lost")) for grant in granted), return_exceptions=True
        ):
            if isinstance(done, Exception) and not isinstance(done, TransitionRefused):
                raise done
    for queue in node.queues:
        await state.pause_queue(queue, actor="benchmark")
    await node.leave()
    await state.activate_node(agent, why="benchmark")


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--tasks", type=int, default=100_000)
    arguments.add_argument("--only", nargs="*", default=(), choices=ACTS, metavar="ACT", help=f"of {', '.join(ACTS)}")
    chosen = arguments.parse_args()
    with (
        tempfile.TemporaryDirectory() as folder,
        PrivateServer(Path(folder)) as server,
        running_cluster(server.tcp_url, Path(folder) / "c", LCQ_LEASES__LEASE_S="600") as cluster,
    ):
        cluster.start_scheduler()
        cluster.start_agent()  # that serves the queues, which are paused
        figures = asyncio.run(
            run(chosen.tasks, server.tcp_url, f"127.0.0.1:{cluster.control_port}", cluster.config, chosen.only)
        )
    print(json.dumps({"python": platform.python_version(), "tasks": chosen.tasks, **figures}, indent=1))


if __name__ == "__main__":
    main()

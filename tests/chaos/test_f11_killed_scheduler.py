"""F-11: kill -9 of the scheduler before and after a move: what was asked is done once, whoever asks it of the next."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import redis

from lcq.client import AsyncClient
from lcq.models import TaskStatus
from tests.audit import audit
from tests.chaos.rig import ENDED
from tests.cluster import Cluster, drill, running_cluster
from tests.conftest import wait_until

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(900)]

MOVES = (
    "submit_task", "claim_tasks", "finish_task", "fail_task", "release_task", "beat_node", "register_node",
    "cancel_task", "retry_task", "reroute_task", "note_act",
)  # fmt: skip


DRILLS = int(os.environ.get("LCQ_SCHEDULER_KILLS", "8"))  # of 22; each costs two starts of a scheduler


class Day:
    """What is asked of a cluster so that it makes a certain move; each is to be done once, and said to be done."""

    def __init__(self, cluster: Cluster, client: AsyncClient) -> None:
        self.cluster = cluster
        self.client = client
        self.ids: list[str] = []

    async def submitted(self, name: str = "drill-noop", **config: object) -> str:
        accepted = await self.client.submit(drill(name, **config))
        self.ids.append(accepted.id)
        return accepted.id

    async def until(self, task_id: str, *wanted: TaskStatus) -> None:
        async def reached() -> bool:
            return (await self.client.get(task_id)).status in wanted

        await wait_until(reached, timeout=60, what=f"{task_id} to be {' or '.join(wanted)}")

    async def done(self, **config: object) -> None:
        task_id = await self.submitted(**config)  # type: ignore[arg-type]
        await self.until(task_id, TaskStatus.COMPLETED)
        attempts = (await self.client.history(task_id)).attempts
        assert [one.outcome for one in attempts].count("completed") == 1

    async def failed_once(self) -> None:
        await self.done(name="drill-transient", failures=1)

    async def handed_back(self) -> None:
        task_id = await self.submitted("drill-sleep", seconds=60)
        await self.until(task_id, TaskStatus.PROCESSING)
        for _ in range(2):
            self.cluster.processes["node-1"].send_signal(signal.SIGTERM)
            await asyncio.sleep(0.2)
        await asyncio.to_thread(self.cluster.processes["node-1"].wait, 30)
        await self.until(task_id, TaskStatus.QUEUED)
        assert (await self.client.get(task_id)).retries <= 1  # it leaves unheard where nobody answers for 5 s
        assert not (await self.client.cancel([task_id])).refused
        await asyncio.to_thread(self.cluster.start_agent)

    async def cancelled(self) -> None:
        task_id = await self.submitted("drill-sleep", seconds=60)
        answer = await self.client.cancel([task_id])
        assert answer.done == (task_id,), answer
        await self.until(task_id, TaskStatus.CANCELLED)

    async def retried(self) -> None:
        task_id = await self.submitted()
        await self.until(task_id, *ENDED)
        answer = await self.client.retry([task_id])
        assert answer.done == (task_id,), answer
        await self.until(task_id, TaskStatus.COMPLETED)
        outcomes = [attempt.outcome for attempt in (await self.client.history(task_id)).attempts]
        # A grant that was under way to the node as the scheduler died is one more, and cost nothing.
        assert outcomes.count("completed") == 2, outcomes

    async def rerouted(self) -> None:
        task_id = await self.submitted("drill-sleep", seconds=0.2)
        await self.until(task_id, *ENDED)
        assert not (await self.client.retry([task_id])).refused
        await self.client.reroute([task_id], node="node-1")  # done or too late, both are truths
        await self.until(task_id, TaskStatus.COMPLETED)

    async def restarted(self) -> None:
        self.cluster.kill("node-1")
        await asyncio.to_thread(self.cluster.start_agent)

    async def nothing(self) -> None:
        """Beats come by themselves."""

    def acts(self) -> dict[str, Callable[[], Awaitable[None]]]:
        return {
            "fail_task": self.failed_once,
            "release_task": self.handed_back,
            "beat_node": self.nothing,
            "register_node": self.restarted,
            "cancel_task": self.cancelled,
            "note_act": self.cancelled,
            "retry_task": self.retried,
            "reroute_task": self.rerouted,
        }


async def test_a_scheduler_killed_before_or_after_any_move_loses_and_doubles_nothing(
    redis_url: str, tmp_path: Path, rng: random.Random
):
    every = [(move, side) for move in MOVES for side in ("kill", "kill-after")]
    drills = rng.sample(every, DRILLS)
    with running_cluster(redis_url, tmp_path / "c", LCQ_LEASES__LEASE_S="10") as cluster:
        await asyncio.to_thread(cluster.start_scheduler)
        await asyncio.to_thread(cluster.start_agent)
        address = f"127.0.0.1:{cluster.control_port}"
        async with AsyncClient(cluster.config, scheduler=address, actor="ann", timeout_s=60) as client:
            day = Day(cluster, client)
            for move, side in drills:
                cluster.kill("scheduler")
                cluster.environment = {**cluster.environment, "LCQ_FAILPOINTS": f"state.{move}={side}@1"}
                process = await asyncio.to_thread(cluster._start, "scheduler", *_scheduler(cluster))
                async with asyncio.TaskGroup() as group:
                    acting = group.create_task(day.acts().get(move, day.done)())
                    await wait_until(lambda p=process: p.poll() is not None, timeout=60, what=f"{move}={side}")
                    assert process.returncode == -signal.SIGKILL, cluster.logs()
                    cluster.environment = {**cluster.environment, "LCQ_FAILPOINTS": ""}
                    await asyncio.to_thread(cluster.start_scheduler)
                    await acting
            for task_id in day.ids:
                await day.until(task_id, *ENDED)
    with redis.Redis.from_url(redis_url, decode_responses=True) as eye:
        audit(eye)
    print(f"\n{len(drills)} schedulers killed; {len(day.ids)} tasks")


def _scheduler(cluster: Cluster) -> tuple[list[str], dict[str, str]]:
    """As ``start_scheduler`` has it, but without the wait: this one may die before it answers."""
    return (
        [sys.executable, "-m", "lcq.cli.main", "scheduler"],
        {"LCQ_ZEROMQ__BASE_PORT": "0", "LCQ_ZEROMQ__CONTROL_PORT": str(cluster.control_port)},
    )

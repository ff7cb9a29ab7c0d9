"""F-33: whatever begins, ends, is killed or crashes, what is on the books is what runs; no host stands idle for it."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import pytest
import redis

from lcq.config import DistributedConfig, LeaseConfig, RetryConfig
from lcq.errors import StaleBoot, TaskNotFound, TransitionRefused
from lcq.ids import new_id
from lcq.models import ErrorClass, TaskStatus
from lcq.state.manager import StateManager
from tests.audit import audit
from tests.cluster import drill, running_cluster
from tests.conftest import wait_until_sync
from tests.fake_gpu import FakeGpu, FakeGpus
from tests.nodes import HEAVY, LIGHT, Node, a_failure, a_task
from tests.vram_ledger import VramLedger

AT_ONCE = 50
CONFIG = DistributedConfig(leases=LeaseConfig(beat_s=60, lease_s=3600), retries=RetryConfig(base_s=0, max_s=0))


class Storm:
    """Random moves of three nodes and an operator, many at a time, on one state."""

    def __init__(self, state: StateManager, rng: random.Random) -> None:
        self.state = state
        self.rng = rng
        self.nodes = [Node(state, f"node-{number}", queues=(LIGHT, HEAVY)) for number in range(3)]
        self.tokens: list[tuple[Node, str, int]] = []
        self.ids: list[str] = []
        self.told: Counter[str] = Counter()

    async def move(self) -> None:
        kinds: list[tuple[int, Callable[[], Awaitable[object]]]] = [
            (20, self.submit), (25, self.claim), (25, self.finish), (8, self.fail), (4, self.hand_back),
            (1, self.crash), (2, self.restart), (3, self.beat), (4, self.cancel), (4, self.retry), (4, self.reroute),
        ]  # fmt: skip
        (chosen,) = self.rng.choices([kind for _, kind in kinds], [weight for weight, _ in kinds])
        try:
            await chosen()
            self.told[chosen.__name__] += 1
        except (TaskNotFound, TransitionRefused, StaleBoot):
            self.told[f"{chosen.__name__} refused"] += 1

    def _node(self) -> Node:
        return self.rng.choice(self.nodes)

    def _token(self) -> tuple[Node, str, int]:
        return self.rng.choice(self.tokens[-60:] or [(self.nodes[0], "no-such-task", 1)])

    def _id(self) -> str:
        return self.rng.choice(self.ids[-60:] or ["no-such-task"])

    async def submit(self) -> None:
        task = a_task(max_retries=self.rng.randint(0, 3))
        self.ids.append(task.id)
        await self.state.submit_task(task, queue=self.rng.choice([LIGHT, HEAVY]))

    async def claim(self) -> None:
        node = self._node()
        for grant in await node.claim(self.rng.randint(1, 3)):
            self.tokens.append((node, grant.task.id, grant.attempt))

    async def finish(self) -> None:
        node, task_id, attempt = self._token()
        await node.finish(task_id, attempt)

    async def fail(self) -> None:
        node, task_id, attempt = self._token()
        await node.fail(task_id, attempt, a_failure(self.rng.choice(list(ErrorClass))))

    async def hand_back(self) -> None:
        node, task_id, attempt = self._token()
        await node.release(task_id, attempt)

    async def crash(self) -> None:
        await self._node().lose()

    async def restart(self) -> None:
        node = self._node()
        node.boot = new_id()
        await node.hello()

    async def beat(self) -> None:
        node = self._node()
        await node.beat(*((task_id, attempt) for owner, task_id, attempt in self.tokens[-60:] if owner is node))

    async def cancel(self) -> None:
        await self.state.cancel_task(self._id())

    async def retry(self) -> None:
        await self.state.retry_task(self._id(), queue=LIGHT)

    async def reroute(self) -> None:
        await self.state.reroute_task(self._id(), queue=self.rng.choice([LIGHT, HEAVY]))


@pytest.mark.parametrize("events", [2_500, pytest.param(10_000, marks=pytest.mark.chaos)])
async def test_after_thousands_of_random_events_the_books_say_what_runs(
    redis_url: str, rng: random.Random, events: int
):
    async with StateManager(CONFIG, url=redis_url) as state:
        storm = Storm(state, rng)
        for node in storm.nodes:
            await node.hello()
        for _ in range(events // AT_ONCE):
            await asyncio.gather(*(storm.move() for _ in range(AT_ONCE)))
        with redis.Redis.from_url(redis_url, decode_responses=True) as eye:
            ledger = audit(eye)
        running = {task_id for task_id, t in ledger.tasks.items() if t["status"] == TaskStatus.PROCESSING}
        held = set().union(*ledger.sets("held:").values())
        assert set(ledger.values.get("leases", {})) == held == running
        assert int(ledger.values["counts"].get("processing", 0)) == len(running)
        print(
            f"\nF-33: {sum(storm.told.values())} events, {len(running)} leases live, {dict(storm.told.most_common())}"
        )
        for node in storm.nodes:  # and at the end nothing is left of what is gone
            node.boot = new_id()
            await node.hello()
        with redis.Redis.from_url(redis_url, decode_responses=True) as eye:
            ledger = audit(eye)
        assert not ledger.sets("held:")
        assert not ledger.values.get("leases")
        assert int(ledger.values["counts"].get("processing", 0)) == 0


def test_a_gpu_host_takes_cpu_tasks_while_no_gpu_task_fits(redis_url: str, tmp_path: Path):
    gpus = FakeGpus(tmp_path)
    taken = FakeGpu("GPU-aaaaaaaa-0000-0000-0000-000000000001", total_mib=10_000, free_mib=500, processes={1: 9_300})
    gpus.set([taken])
    settings = {**VramLedger(tmp_path).environment, **gpus.environment}
    with running_cluster(redis_url, tmp_path / "c", **settings) as cluster:
        cluster.start_scheduler()
        cluster.start_agent("node-1", slots=1)
        with cluster.client() as client:
            wait_until_sync(
                lambda: {device.id for device in client.nodes()[0].capability.devices} == {taken.uuid, "cpu"}
            )
            big = drill("ledger-gpu")
            client.submit_many([big])
            small = [drill(device="cpu") for _ in range(10)]
            client.submit_many(small)
            records = client.wait([task.id for task in small], timeout_s=60)
            assert {(record.status, record.device) for record in records} == {(TaskStatus.COMPLETED, "cpu")}
            assert client.get(big.id).status == TaskStatus.QUEUED
            gpus.set([replace(taken, free_mib=9_800, processes={})])  # whoever held it is gone
            (record,) = client.wait([big.id], timeout_s=60)
            assert (record.status, record.device) == (TaskStatus.COMPLETED, taken.uuid)

"""F-9: expired leases and silent nodes are swept beside thousands of completions: no success is ever taken back."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter

import pytest
import redis

from lcq.config import DistributedConfig, RetentionConfig
from lcq.errors import LcqError, StaleBoot, TransitionRefused
from lcq.models import TERMINAL_STATES, TaskStatus
from lcq.state.manager import StateManager
from tests.audit import audit
from tests.nodes import LIGHT, Node, a_task

NODES = 4


async def work(state: StateManager, node: Node, rng: random.Random, left: Counter[str]) -> None:
    """Claim with leases so short that many run out under the work, finish all the same, and sometimes fall silent."""
    while left["open"] > 0:
        try:
            lease_ms = rng.choice([1, 3, 10, 60_000])
            grants = await node.claim(16, lease_ms=lease_ms)
            if not grants:  # nothing is there, or it was taken for lost: its next beat brings it back
                await node.beat()
                await asyncio.sleep(0.002)
                continue
            if lease_ms < 60_000 and not left["expired"]:
                continue  # however quick the machine is, some run out before they are finished
            told = await asyncio.gather(
                *(node.finish(grant.task.id, grant.attempt) for grant in grants), return_exceptions=True
            )
            for answer in told:
                left["refused" if isinstance(answer, TransitionRefused) else "finished"] += 1
                if isinstance(answer, Exception) and not isinstance(answer, TransitionRefused):
                    raise answer
            if rng.random() < 0.02:
                await node.lose()
            if rng.random() < 0.1:
                await node.beat()
        except StaleBoot:
            await node.hello()


async def sweep(state: StateManager, left: Counter[str]) -> None:
    while left["open"] > 0:
        left["expired"] += len(await state.expire_leases())
        await state.release_due()
        await state.forget_tasks()
        counts = await state.reader.counts()
        left["open"] = left["all"] - counts[TaskStatus.COMPLETED]
        await asyncio.sleep(0)


async def complete_beside_sweepers(redis_url: str, count: int, rng: random.Random) -> None:
    config = DistributedConfig(retention=RetentionConfig(events=100 * count))
    left: Counter[str] = Counter(all=count, open=count)
    async with StateManager(config, url=redis_url) as state:
        nodes = [Node(state, f"node-{number}") for number in range(NODES)]
        for node in nodes:
            await node.hello()
        tasks = [a_task(max_retries=100) for _ in range(count)]
        for start in range(0, count, 500):
            await asyncio.gather(*(state.submit_task(task, queue=LIGHT) for task in tasks[start : start + 500]))
        began = time.monotonic()
        async with asyncio.TaskGroup() as group:
            for _ in range(2):
                group.create_task(sweep(state, left))
            for node in nodes:
                group.create_task(work(state, node, rng, left))
        took_s = time.monotonic() - began
        for node in nodes:  # and whatever is still held, or told again, changes nothing either
            await node.lose()
        for task in rng.sample(tasks, 50):
            for node in nodes:
                with pytest.raises(LcqError):
                    await node.fail(task.id, 1 + rng.randrange(3))
        await state.expire_leases()
        totals = await state.reader.totals()
    print(f"\n{count} completions in {took_s:.1f} s beside {left['expired']} leases that ran out: {totals}")
    assert totals["completed"] == count
    assert left["expired"] > 0, "no lease ran out: this proved nothing"
    with redis.Redis.from_url(redis_url, decode_responses=True) as eye:
        ledger = audit(eye)
        assert {t["status"] for t in ledger.tasks.values()} == {TaskStatus.COMPLETED}
        ended: set[str] = set()
        for _, fields in ledger.events:
            if "id" in fields:
                assert fields["id"] not in ended, f"after its end: {fields}"
                if fields["status"] in TERMINAL_STATES:
                    ended.add(fields["id"])
        assert len(ended) == count
        for i, attempts in ledger.attempts.items():
            assert [one["outcome"] for one in attempts].count("completed") == 1, i


async def test_a_sweeper_beside_a_thousand_completions_takes_none_back(redis_url: str, rng: random.Random):
    await complete_beside_sweepers(redis_url, 1000, rng)


@pytest.mark.chaos
@pytest.mark.timeout(300)
async def test_a_sweeper_beside_ten_thousand_completions_takes_none_back(redis_url: str, rng: random.Random):
    await complete_beside_sweepers(redis_url, 10_000, rng)

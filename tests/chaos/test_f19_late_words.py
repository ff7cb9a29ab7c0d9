"""F-19: whatever is told of an attempt after its result, in any order, by any scheduler: the end stays the end."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator

import pytest
import redis

from lcq.client import AsyncClient
from lcq.config import DistributedConfig
from lcq.models import ErrorClass, TaskStatus
from lcq.scheduler import Scheduler
from lcq.wire import Beat, Outcome, Request, Running, Step
from tests.audit import audit
from tests.light_node import LightNode, a_light_node
from tests.nodes import a_failure, a_result, a_task

ORDERS = 60


@pytest.fixture
def eye(redis_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_url, decode_responses=True) as client:
        yield client


def late_words(node: LightNode, task_id: str, attempt: int) -> list[Request]:
    """Everything that can still be on its way when the result is told."""

    def beat(progress: float, number: int = attempt) -> Beat:
        running = Running(task_id=task_id, attempt=number, progress=progress, stage="fill")
        return Beat(node_id=node.name, boot_id=node.boot_id, running=(running,))

    def step(**how: object) -> Step:
        outcome = Outcome(task_id=task_id, attempt=attempt, **how)  # type: ignore[arg-type]
        return Step(node_id=node.name, boot_id=node.boot_id, outcomes=(outcome,))

    return [
        beat(0.1), beat(0.9), beat(1.0), beat(0.5, attempt + 1),
        step(result=a_result()), step(result=a_result("/photos/other.png")), step(failure=a_failure()),
        step(failure=a_failure(ErrorClass.CRASH, "runner_died")), step(handed_back=True),
    ]  # fmt: skip


async def test_f19_nothing_that_is_told_after_the_result_reopens_a_task(
    redis_url: str, eye: redis.Redis, rng: random.Random
):
    config = DistributedConfig(zeromq={"base_port": 0, "control_port": 0})  # type: ignore[arg-type]
    async with (
        Scheduler(config, redis_url=redis_url) as scheduler,
        AsyncClient(config, scheduler=scheduler.control_endpoint, timeout_s=30) as client,
        a_light_node([scheduler.control_endpoint]) as node,
    ):
        for _ in range(ORDERS):
            accepted = await client.submit(a_task())
            await node.ask_for_work()
            (grant,) = node.grants.values()
            ends_by = rng.choice(["result", "failure", "cancel"])
            words = late_words(node, grant.task.id, grant.attempt)
            if ends_by == "result":
                await node.finish(grant)
            elif ends_by == "failure":
                failure = a_failure(ErrorClass.BAD_INPUT, "missing_file")
                await node.report(Outcome(task_id=grant.task.id, attempt=grant.attempt, failure=failure))
                words = [word for word in words if not (isinstance(word, Step) and word.outcomes[0].result)]
            else:
                await client.cancel(accepted.id)
                node.grants.clear()
            ended = await client.get(accepted.id)
            assert ended.status.is_terminal
            order = rng.sample(words, len(words)) + rng.choices(words, k=4)
            if rng.random() < 0.5:
                for word in order:
                    await node.line.ask(word.model_copy(update={"id": f"{word.id}-{rng.random()}"}))
            else:
                await asyncio.gather(*(node.line.ask(word) for word in rng.sample(words, len(words))))
            assert await client.get(accepted.id) == ended
        counts = eye.hgetall("{lcq}:counts")
        assert sum(int(counts.get(status, 0)) for status in TaskStatus if status.is_terminal) == ORDERS
    audit(eye)


async def test_f19_what_was_told_before_the_result_but_arrives_after_it_changes_nothing(
    redis_url: str, eye: redis.Redis, rng: random.Random
):
    config = DistributedConfig(zeromq={"base_port": 0, "control_port": 0})  # type: ignore[arg-type]
    async with (
        Scheduler(config, redis_url=redis_url) as scheduler,
        AsyncClient(config, scheduler=scheduler.control_endpoint, timeout_s=30) as client,
        a_light_node([scheduler.control_endpoint]) as node,
    ):
        for _ in range(ORDERS):
            accepted = await client.submit(a_task())
            await node.ask_for_work()
            (grant,) = node.grants.values()
            beats = [word for word in late_words(node, grant.task.id, grant.attempt) if isinstance(word, Beat)]
            result = Outcome(task_id=grant.task.id, attempt=grant.attempt, result=a_result())
            words: list[Request] = [*beats, Step(node_id=node.name, boot_id=node.boot_id, outcomes=(result,))]
            await asyncio.gather(*(node.line.ask(word) for word in rng.sample(words, len(words))))
            node.grants.clear()
            record = await client.get(accepted.id)
            assert (record.status, record.attempt) == (TaskStatus.COMPLETED, 1)
    audit(eye)

"""F-34: under an endless stream of more urgent work, also of users who never came before, a low task starts in time."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator

import pytest
import redis

from lcq.models import TaskPriority
from lcq.state.manager import StateManager
from lcq.state.scripts import BAND_SPANS, ELDERS_TURN
from tests.audit import audit
from tests.nodes import LIGHT, Node, a_task

LOW, HIGH = TaskPriority.LOW, TaskPriority.HIGH


@pytest.fixture
async def state(redis_url: str) -> AsyncIterator[StateManager]:
    async with StateManager(url=redis_url) as state:
        yield state


class Stream:
    """High tasks, each of a user who was never seen before; there are always some that wait."""

    def __init__(self, state: StateManager, node: Node) -> None:
        self._state, self._node, self._users = state, node, 0

    async def grow(self, count: int = 1) -> None:
        for _ in range(count):
            self._users += 1
            task = a_task(user_id=f"new user {self._users}", priority=HIGH)
            await self._state.submit_task(task, queue=LIGHT, cost_s=1.0)

    async def next_start(self) -> str:
        await self.grow()
        (grant,) = await self._node.claim()
        await self._node.finish(grant.task.id)
        return grant.task.id


async def test_a_low_task_starts_within_ten_starts_once_it_has_waited_for_its_bands_span(
    state: StateManager, redis_url: str
) -> None:
    node = Node(state)
    await node.hello()
    stream = Stream(state, node)
    low = [(await state.submit_task(a_task(user_id="bob", priority=LOW), queue=LIGHT)).id for _ in range(3)]
    await stream.grow(40)
    early = [await stream.next_start() for _ in range(60)]
    assert not set(low) & set(early), "more urgent work goes first, for as long as the band says"
    with redis.Redis.from_url(redis_url, decode_responses=True) as eye:
        for age_s, task_id in zip((5, 3, 1), low, strict=True):
            since_ms = int(eye.time()[0]) * 1000 - (BAND_SPANS[LOW] + age_s) * 1000
            eye.zadd("{lcq}:waiting:cpu-light", {task_id: since_ms})
            eye.hset(f"{{lcq}}:task:{task_id}", "queued_ms", since_ms)
        begun = [await stream.next_start() for _ in range(3 * ELDERS_TURN + 1)]
        places = [begun.index(task_id) + 1 for task_id in low]
        print(f"\nthe low tasks started at places {places}; the bound is {[n * ELDERS_TURN for n in (1, 2, 3)]}")
        assert all(place <= n * ELDERS_TURN for n, place in enumerate(places, start=1))
        gaps = [after - before for before, after in itertools.pairwise(places)]
        assert gaps == [ELDERS_TURN] * 2, "and no more often: the order of bands is for the rest"
        audit(eye)

"""A dry run of a submit: where tasks would go and when they would be done, and nothing is there afterwards."""

from __future__ import annotations

import redis

from lcq.client import AsyncClient
from lcq.config import DistributedConfig
from lcq.scheduler import Scheduler
from lcq.state.manager import StateManager
from tests.nodes import Node, a_task


async def test_tasks_that_are_foreseen_go_where_they_would_and_are_not_submitted(
    state: StateManager, node: Node, redis_url: str, eye: redis.Redis
) -> None:
    config = DistributedConfig(zeromq={"base_port": 0, "control_port": 0})  # type: ignore[arg-type]
    async with Scheduler(config, redis_url=redis_url) as scheduler:
        address = scheduler.control_endpoint.removeprefix("tcp://")
        async with AsyncClient(DistributedConfig(), scheduler=address, actor="ann", timeout_s=60) as ann:
            few = await ann.foresee([a_task() for _ in range(3)])
            assert sum(one.count for one in few.foreseen) == 3
            assert all(one.done_s is not None and one.done_s > 0 and not one.why for one in few.foreseen)
            many = await ann.foresee([a_task() for _ in range(1201)])
            assert abs(sum(one.count for one in many.foreseen) - 1201) <= len(many.foreseen)
            assert max(one.done_s or 0 for one in many.foreseen) > max(one.done_s or 0 for one in few.foreseen)
            place = few.foreseen[0].queue
            await ann.pause(place, reason="lunch")
            (held,) = (await ann.foresee([a_task()], queue=place)).foreseen
            assert (held.done_s, "lunch" in held.why) == (None, True)
            wrong = await ann.foresee([a_task(config={"model": "no-such"}), a_task()])
            assert (wrong.refusals, wrong.refused[0].code) == (1, "unknown_model")
            (alone,) = (await ann.foresee([a_task()], node=node.id)).foreseen
            assert alone.count == 1
            assert (await ann.page()).total == 0
            assert not list(eye.scan_iter("{lcq}:task:*"))

"""When a job is done and why a task waits, asked of a scheduler that has seen neither its submit nor its nodes."""

from __future__ import annotations

import pytest

from lcq.client import AsyncClient
from lcq.models import Eta
from lcq.scheduler import Scheduler
from lcq.wire import Outcome
from tests.conftest import wait_until
from tests.integration.test_ladder import Stage
from tests.integration.test_why import SMALL, a_host, stage
from tests.nodes import a_result, a_task

__all__ = ("stage",)  # the fixture


async def test_a_second_scheduler_foretells_what_the_first_one_does(stage: Stage, redis_url: str) -> None:
    """What predictions go by is in Redis: what waits, who works, and what was learned."""
    node = await a_host(stage)
    job = [await stage.client.submit(a_task("cv2-ns", job="scans")) for _ in range(5)]
    assert await node.claim(SMALL)
    before, span_before = await foretold(stage.client), await span_of(stage.client, job[-1].id)
    slow = a_result().model_copy(update={"seconds": 40.0})  # many times what was predicted: that has to be learned
    await node.step(outcomes=(Outcome(task_id=job[0].id, attempt=1, device=SMALL.id, result=slow),))
    async with (
        Scheduler(stage.scheduler.config, redis_url=redis_url) as second,
        AsyncClient(stage.scheduler.config, scheduler=second.control_endpoint.removeprefix("tcp://")) as other,
    ):

        async def are_one() -> bool:
            one, two = await foretold(stage.client), await foretold(other)
            is_learned = one.p50_s is not None and before.p50_s is not None and one.p50_s > 3 * before.p50_s
            return is_learned and one.p50_s == pytest.approx(two.p50_s) and one.p90_s == pytest.approx(two.p90_s)

        async def foretell_alike() -> bool:
            one, two = await span_of(stage.client, job[-1].id), await span_of(other, job[-1].id)
            return one > 3 * span_before and one == pytest.approx(two, rel=0.01)

        # A job's end goes by how long its own tasks took, too: that is known before what a task costs is read anew.
        await wait_until(are_one, what="both foretell the job's end by what its first task took")
        await wait_until(foretell_alike, what="both have read what such a task costs")
        codes = [(await client.why(job[-1].id)).code for client in (stage.client, other)]
        assert codes[0] == codes[1]


async def foretold(client: AsyncClient) -> Eta:
    (job,) = await client.jobs("scans")
    assert job.eta is not None
    return job.eta


async def span_of(client: AsyncClient, task_id: str) -> float:
    """How many milliseconds that task will run, by what is foretold of it."""
    facts = (await client.why(task_id)).facts
    return facts["finish_p50_ms"] - facts["start_p50_ms"]  # type: ignore[operator]

"""F-41 for a task alone: no other's calls tell whether the function is away, or whether it is the task that kills."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lcq.models import TaskStatus
from tests.chaos.test_f41_functions import BOTH, a_task, attempts_of, books_are_the_sum, function_at, start_function
from tests.cluster import running_cluster
from tests.conftest import wait_until_sync
from tests.functions import functions_framework
from tests.hostile_gateway import hostile_gateway

pytestmark = pytest.mark.chaos


@pytest.mark.timeout(600)
def test_a_task_alone_loses_no_try_in_an_outage_and_all_of_them_where_it_is_what_kills(
    redis_url: str, tmp_path: Path
) -> None:
    with (
        functions_framework(tmp_path / "function.log") as function,
        hostile_gateway(function) as gateway,
        running_cluster(redis_url, tmp_path / "c", LCQ_SERVERLESS__OVERFLOW_AFTER_S="0") as cluster,
        cluster.client() as client,
    ):
        cluster.start_scheduler()
        start_function(cluster, "far", function_at(gateway.url, models={BOTH: 0.2}))
        gateway.always = "cut before"
        alone = client.submit(a_task(tmp_path, BOTH, 1, max_retries=0)).id
        wait_until_sync(lambda: len(gateway.came) >= 4, timeout=180, what="two calls that try it")
        (of_task, *looks) = gateway.keys[:4]
        assert of_task == f"{alone}/1"
        assert not any(key.startswith(alone) for key in looks), "what tries it is no task's call"
        gateway.always = ""
        (ended,) = client.wait([alone], timeout_s=180)
        assert (ended.status, ended.retries) == (TaskStatus.COMPLETED, 0)
        codes = [one["failure"]["code"] for one in attempts_of(redis_url, [alone])[:-1]]
        assert codes == ["endpoint_silent"] * len(codes)

        gateway.always, gateway.spares_wakes = "cut after", True
        killer = client.submit(a_task(tmp_path, BOTH, 2, max_retries=2)).id
        (ended,) = client.wait([killer], timeout_s=180)
        assert (ended.status, ended.attempt, ended.retries) == (TaskStatus.FAILED, 3, 2), json.dumps(gateway.keys)
        assert client.spend().now[0].reserved == 0
        books_are_the_sum(redis_url, attempts_of(redis_url, [alone, killer]))

"""F-41 for functions: ten minutes in which nobody answers, and a storm of all that can become of a call."""

from __future__ import annotations

import json
import os
import random
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import redis

from lcq.client import Client
from lcq.models import ErrorClass, Task, TaskRecord, TaskStatus
from lcq.reasons import WhyCode
from tests.cluster import Cluster, free_port, running_cluster
from tests.conftest import wait_until_sync
from tests.functions import SAMPLES, functions_framework
from tests.hostile_gateway import hostile_gateway
from tests.s3 import s3_server, wait_for
from worker.endpoint_keeper import IN_A_ROW

pytestmark = pytest.mark.chaos

BOTH, ONLY_FUNCTIONS = "cv2-telea", "cv2-ns"
OUTAGE_S = float(os.environ.get("LCQ_TEST_OUTAGE_S", "600"))
CALLS = 4  # at a time, of each function


def a_task(folder: Path, model: str, number: int, **more: object) -> Task:
    return Task.model_validate(
        {
            "task_type": "inpaint",
            "image_path": str(SAMPLES.parent / "photos" / "coffee.jpg"),
            "mask_path": str(SAMPLES.parent / "masks" / "coffee.png"),
            "output_path": str(folder / f"{model}-{number}.png"),
            "config": {"model": model},
            "privacy": "exportable",
            "job": "outage",
        }
        | more
    )


def function_at(url: str, **more: Any) -> str:
    terms = {"url": url, "models": {BOTH: 0.2, ONLY_FUNCTIONS: 0.2}, "concurrency": CALLS, "timeout_s": 60}
    return json.dumps({"burst": terms | {"price_call": 0.01, "price_s": 0.001} | more})


def start_function(cluster: Cluster, name: str, functions: str) -> None:
    """An agent that does nothing itself."""
    house = cluster.environment
    cluster.environment = {
        **house, "LCQ_AGENT__FUNCTIONS": functions, "LCQ_AGENT__DEVICES": json.dumps({"cpu": {"enabled": False}})
    }  # fmt: skip
    cluster.start_agent(name)
    cluster.environment = house


def attempts_of(redis_url: str, ids: list[str]) -> list[dict[str, Any]]:
    with redis.Redis.from_url(redis_url, decode_responses=True) as eye:
        return [json.loads(text) for one in ids for text in eye.lrange(f"{{lcq}}:attempts:{one}", 0, -1)]


def books_are_the_sum(redis_url: str, attempts: list[dict[str, Any]]) -> float:
    """What was spent, which is what the attempts say; and nothing is reserved any more."""
    with redis.Redis.from_url(redis_url, decode_responses=True) as eye:
        book = eye.hgetall("{lcq}:spend:job:outage")
    paid = [one for one in attempts if "spend" in one]
    assert int(book["spent"]) == sum(one["spend"]["settled"] for one in paid)
    assert (int(book["reserved"]), int(book["calls"])) == (0, len(paid))
    return int(book["spent"]) / 1e6


@pytest.mark.timeout(1500)
def test_ten_minutes_without_functions_cost_few_calls_and_no_task_its_tries(redis_url: str, tmp_path: Path) -> None:
    port = free_port()
    settings = {
        "LCQ_SERVERLESS__OVERFLOW_AFTER_S": "0",
        "LCQ_AGENT__MODELS": json.dumps([BOTH]),
        "LCQ_SERVERLESS__BUDGET__MONTH": "1000",
    }
    with (
        functions_framework(tmp_path / "function.log") as function,
        running_cluster(redis_url, tmp_path / "c", **settings) as cluster,
        hostile_gateway(function) as silent,
    ):
        cluster.start_scheduler()
        cluster.start_agent("house", slots=1)
        cluster.environment = {key: value for key, value in settings.items() if "MODELS" not in key}
        with hostile_gateway(function, port=port) as gone:
            start_function(cluster, "far-gone", function_at(gone.url))
            start_function(cluster, "far-silent", function_at(silent.url))
            with cluster.client() as client:
                first = [a_task(tmp_path, ONLY_FUNCTIONS, number) for number in range(8)]
                ids = [one.id for one in client.submit_many(first).accepted]
                assert {one.status for one in client.wait(ids, timeout_s=180)} == {TaskStatus.COMPLETED}
        silent.always = "cut before"
        _outage(cluster, silent.came, tmp_path, ids, redis_url)
        silent.always, back_at, known = "", time.monotonic(), len(silent.answered)
        with hostile_gateway(function, port=port) as gone, cluster.client() as client:
            ended = list(client.wait(ids, timeout_s=400))
            later = []

            def both_are_used() -> bool:
                if not gone.passed or len(silent.answered) == known:  # who has nothing to do is not tried
                    more = [a_task(tmp_path, ONLY_FUNCTIONS, 100 + len(later) + number) for number in range(12)]
                    later.extend(one.id for one in client.submit_many(more).accepted)
                    ended.extend(client.wait(later[-12:], timeout_s=400))
                return bool(gone.passed) and len(silent.answered) > known

            wait_until_sync(both_are_used, timeout=400, what="both are used again")
        assert {one.status for one in ended} == {TaskStatus.COMPLETED}, Counter(one.status for one in ended)
        print(f"used again after {min(silent.answered[known], gone.answered[0]) - back_at:.0f} s and "
              f"{max(silent.answered[known], gone.answered[0]) - back_at:.0f} s")  # fmt: skip
        for one, before in ((gone, 0), (silent, known)):
            came = [at for at in one.came if at > back_at]
            assert len(came) < 2 or came[1] >= one.answered[before], "one call tries it, and no herd"
        attempts = attempts_of(redis_url, ids + later)
        spent = books_are_the_sum(redis_url, attempts)
        print(f"spent {spent:.3f} in {sum('spend' in one for one in attempts)} calls")


def _outage(cluster: Cluster, silent: list[float], folder: Path, ids: list[str], redis_url: str) -> None:
    """Ten minutes. Adds to ``ids`` what is submitted at their beginning."""
    began, began_ms, known = time.monotonic(), time.time() * 1000, len(silent)
    with cluster.client() as client:
        both = [one.id for one in client.submit_many([a_task(folder, BOTH, n) for n in range(40)]).accepted]
        only = [a_task(folder, ONLY_FUNCTIONS, number) for number in range(20, 40)]
        waiting = [one.id for one in client.submit_many(only).accepted]
        ids += both + waiting
        at_home = client.wait(both, timeout_s=OUTAGE_S)
        print(f"\nall {len(both)} that the house can do were done {time.monotonic() - began:.0f} s after it began")
        assert {one.status for one in at_home} == {TaskStatus.COMPLETED}
        assert _nodes(client, both) == {"house"}
        wait_until_sync(lambda: client.why(waiting[-1]).code is WhyCode.ENDPOINT_AWAY, what="lcq why says so")
        print(f"lcq why: {client.why(waiting[-1]).text}")
        time.sleep(max(0.0, began + OUTAGE_S - time.monotonic()))  # it has a length, and nothing to be waited for
        records = client.get_many(ids)
    attempts = [one for one in attempts_of(redis_url, both + waiting) if one["node"] != "house"]
    gone = Counter(int((one["started_ms"] - began_ms) // 60_000) for one in attempts if one["node"] == "far-gone")
    cut = Counter(int((at - began) // 60) for at in silent[known:])
    print(f"connections a minute: where nobody listens {_told(gone)}, where all are cut {_told(cut)}")
    print(f"codes: {dict(Counter(one['failure']['code'] for one in attempts if one.get('failure')))}")
    lost = Counter(one.retries for one in records)
    print(f"tries lost, of 3 each: {dict(lost)}; attempts: {sum(one.attempt for one in records)}")
    for calls in (gone, cut):
        assert calls[0] <= BEFORE + IN_FIRST_MINUTE
        assert max(calls[minute] for minute in range(1, 10)) <= 2
        assert calls.total() <= BEFORE + MOST_TRIALS
    assert {one.status for one in records} <= {TaskStatus.COMPLETED, TaskStatus.QUEUED, TaskStatus.PENDING}
    assert sum(one.retries for one in records) <= 2  # before it was known that nobody is answered
    assert not any(
        (one["failure"] or {}).get("error_class") == ErrorClass.CRASH for one in attempts if "failure" in one
    )


BEFORE = IN_A_ROW - 1 + CALLS  # before it rests: that many have failed, and so many more are on their way
IN_FIRST_MINUTE = 4  # trials after 5, 15, 35 s; a quarter sooner, and a fourth may be among them
MOST_TRIALS = 11  # after pauses of 5, 10, 20, 40, 80 and 120 s, each a quarter shorter


def _told(calls: Mapping[int, int]) -> str:
    return " ".join(str(calls.get(minute, 0)) for minute in range(10))


def _nodes(client: Client, ids: list[str]) -> set[str]:
    return {one.node for one in client.get_many(ids)}


FAULTS = (
    "cut before", "cut after", "twice", "busy:1", "unavailable", "refuse:500", "refuse:502", "refuse:504", "garbage",
    "slow", "", "", "", "",
)  # fmt: skip


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("with_exchange", [False, True])
def test_whatever_becomes_of_calls_each_task_is_done_once_and_the_books_are_the_sum_of_the_bills(
    redis_url: str, tmp_path: Path, rng: random.Random, with_exchange: bool
) -> None:
    with (
        functions_framework(tmp_path / "function.log") as function,
        hostile_gateway(function) as gateway,
        s3_server(tmp_path) as s3,
        running_cluster(redis_url, tmp_path / "c", LCQ_SERVERLESS__OVERFLOW_AFTER_S="0") as cluster,
    ):
        more: dict[str, Any] = {"timeout_s": 30}
        if with_exchange:
            wait_for(s3)
            s3.make_bucket("exchange")
            more |= {"exchange": "s3://exchange/calls", "payload_kib": 16}
            cluster.environment = {**cluster.environment, "LCQ_STORAGE__OPTIONS": json.dumps({"s3": s3.options})}
        cluster.start_scheduler()
        start_function(cluster, "far", function_at(gateway.url, **more))
        planned = [rng.choice(FAULTS) for _ in range(80)]
        gateway.faults.extend(planned)
        with cluster.client() as client:
            tasks = [a_task(tmp_path, BOTH, number, max_retries=20) for number in range(60)]
            ids = [one.id for one in client.submit_many(tasks).accepted]
            ended: list[TaskRecord] = client.wait(ids, timeout_s=1500)
        assert {one.status for one in ended} == {TaskStatus.COMPLETED}, cluster.logs()[-5000:]
        assert len({(tmp_path / f"{BOTH}-{number}.png").read_bytes() for number in range(60)}) == 1
        attempts = attempts_of(redis_url, ids)
        outcomes = Counter(one["outcome"] for one in attempts)
        codes = Counter(one["failure"]["code"] for one in attempts if one.get("failure"))
        spent = books_are_the_sum(redis_url, attempts)
        print(f"\n{dict(Counter(planned))}: {dict(outcomes)}, {dict(codes)}; {len(gateway.keys)} calls came, "
              f"{len(gateway.passed)} were handed on, {spent:.3f} spent")  # fmt: skip
        assert outcomes["completed"] == 60, "the result of exactly one attempt each"
        free = codes["endpoint_silent"] + codes["endpoint_busy"] + codes["endpoint_unreachable"]
        assert sum(one.retries for one in ended) == codes.total() - free
        if with_exchange:
            assert codes["function_unknown"] + codes["endpoint_silent"] <= sum(
                fault in ("cut before", "refuse:502", "refuse:504", "slow") for fault in planned
            ), "what was done is found where it was left, and not called again"

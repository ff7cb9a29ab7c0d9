"""F-30: memory that an engine leaks comes back, because its runner is replaced, and no task pays for it."""

from __future__ import annotations

import random
from pathlib import Path

import psutil
import pytest

from lcq.client import Client
from lcq.models import TaskStatus
from tests.cluster import Cluster, drill, running_cluster
from tests.vram_ledger import VramLedger

MODELS = ("ledger", "ledger-a", "ledger-b", "ledger-c")
GROWN_MIB = 150


def work_off(cluster: Cluster, client: Client, rng: random.Random, count: int) -> tuple[int, set[int]]:
    """``count`` tasks of random sizes and four models. The most that was seen held, in MiB, and by which processes."""
    tasks = [
        drill(rng.choice(MODELS), mib=rng.randint(0, 20), leak_mib=rng.randint(0, 4), ending="done")
        for _ in range(count)
    ]
    ids = [accepted.id for accepted in client.submit_many(tasks).accepted]
    assert len(ids) == count
    most, runners = 0, set()
    while any(client.get(task_id).status not in (TaskStatus.COMPLETED, TaskStatus.FAILED) for task_id in ids[-1:]):
        for runner in cluster.runners("node-1"):
            try:
                most = max(most, runner.memory_info().rss >> 20)
            except psutil.NoSuchProcess:
                continue
            runners.add(runner.pid)
    for record in client.wait(ids, timeout_s=120):
        assert (record.status, record.retries) == (TaskStatus.COMPLETED, 0), record
        # What was in hand while a runner was replaced may have gone back, at no cost: that is another attempt.
        attempts = client.history(record.id).attempts
        assert [attempt.outcome for attempt in attempts if attempt.outcome != "handed_back"] == ["completed"]
        most = max(most, attempts[-1].peak_mib)
    return most, runners


@pytest.mark.chaos
def test_five_hundred_leaking_tasks_of_four_models_reach_a_plateau_and_none_is_lost(
    redis_url: str, tmp_path: Path, rng: random.Random
):
    ledger = VramLedger(tmp_path)
    settings = {**ledger.environment, "LCQ_AGENT__RECYCLE__GROWN_MIB": str(GROWN_MIB)}
    with running_cluster(redis_url, tmp_path / "c", **settings) as cluster:
        cluster.start_scheduler()
        cluster.start_agent("node-1", slots=1)
        (first,) = cluster.runners("node-1")
        base = first.memory_info().rss >> 20
        with cluster.client() as client:
            most, runners = work_off(cluster, client, rng, 500)
        leaked = 500 * 2
        print(f"\nF-30: about {leaked} MiB leaked; base {base}, most {most} MiB; {len(runners)} runners")
        assert most < base + 3 * GROWN_MIB, "plateau: what a runner may grow, one task, and the engines' libraries"
        assert len(runners) > 2
        assert "another one takes its place" in cluster.logs()


@pytest.mark.chaos
def test_a_runner_is_replaced_after_as_many_attempts_as_it_may_do(redis_url: str, tmp_path: Path):
    with running_cluster(redis_url, tmp_path / "c", LCQ_AGENT__RECYCLE__TASKS="3") as cluster:
        cluster.start_scheduler()
        cluster.start_agent("node-1", slots=1)
        with cluster.client() as client:
            ids = [accepted.id for accepted in client.submit_many([drill() for _ in range(10)]).accepted]
            records = client.wait(ids, timeout_s=60)
        assert {(record.status, record.retries) for record in records} == {(TaskStatus.COMPLETED, 0)}
        assert cluster.logs().count("has done 3 attempts") == 3

"""A minute of kill -9 at random: agents, runners, the scheduler, Redis. Then all heals, and every task is done once."""

from __future__ import annotations

import os
import random
import signal
import time
from collections import Counter
from pathlib import Path

import psutil
import pytest

from lcq.models import TaskStatus
from tests.cluster import Cluster, drill, running_cluster

pytestmark = pytest.mark.chaos

STORM_S = float(os.environ.get("LCQ_STORM_S", "60"))


def kill_something(cluster: Cluster, rng: random.Random, redis_server) -> str:
    """Kill one process of the cluster, and start it again where nobody else does."""
    victim = rng.choice(["runner", "runner", "node-1", "node-2", "scheduler", "redis"])
    if victim == "redis":
        os.kill(redis_server.pid, signal.SIGKILL)
        redis_server.ensure_running()
    elif victim == "runner":
        for runner in rng.sample(cluster.runners("node-1") + cluster.runners("node-2"), 1):
            runner.kill()
    else:
        cluster.kill(victim)
        if victim == "scheduler":
            cluster.start_scheduler()
        else:
            cluster.start_agent(victim, wait=False)
    return victim


def test_a_storm_of_kills_loses_no_task_and_commits_none_twice(
    redis_server, redis_url: str, tmp_path: Path, rng: random.Random
):
    killed: Counter[str] = Counter()
    ids: list[str] = []
    with running_cluster(redis_url, tmp_path / "c", LCQ_LEASES__LEASE_S="6") as cluster:
        cluster.start_scheduler()
        cluster.start_agent("node-1")
        cluster.start_agent("node-2")
        with cluster.client() as client:
            until = time.monotonic() + STORM_S
            while time.monotonic() < until:
                work = [
                    drill("drill-sleep", seconds=rng.choice([0, 0.01, 0.3, 1.0])) for _ in range(rng.randint(1, 25))
                ]
                # A task may meet many deaths in such a minute; what is tested is that none is lost, not its patience.
                work = [task.model_copy(update={"max_retries": 100}) for task in work]
                answer = client.submit_many(work)
                ids += [accepted.id for accepted in answer.accepted]
                assert len(answer.accepted) == len(work), answer.refused
                if any(child.is_running() for name in ("node-1", "node-2") for child in _runners_of(cluster, name)):
                    killed[kill_something(cluster, rng, redis_server)] += 1
                time.sleep(rng.uniform(0.2, 1.5))
            client.wait(ids, timeout_s=180)
            outcomes: Counter[str] = Counter()
            for task_id in ids:
                history = client.history(task_id)
                committed = [one for one in history.attempts if one.outcome == "completed"]
                numbers = [one.number for one in history.attempts]
                assert numbers == list(range(1, len(numbers) + 1)), history
                poisoned = history.record.failure is not None and history.record.failure.code == "poison"
                if history.record.status == TaskStatus.COMPLETED:
                    assert len(committed) == 1, history
                else:
                    assert poisoned, history  # two of its runners were killed: left alone, and said so
                    assert not committed, history
                outcomes[history.record.status + (" (poison)" if poisoned else "")] += 1
            assert sum(outcomes.values()) == len(set(ids))
            print(f"\nkilled {dict(killed)}; {len(ids)} tasks: {dict(outcomes)}")


def _runners_of(cluster: Cluster, name: str) -> list[psutil.Process]:
    try:
        return cluster.runners(name)
    except psutil.NoSuchProcess:
        return []

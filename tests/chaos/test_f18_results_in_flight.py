"""F-18: the scheduler goes while results are on their way: they are delivered later, and nothing is computed again."""

from __future__ import annotations

import random
import signal
import time
from pathlib import Path

import redis

from lcq.models import TaskStatus
from tests.audit import audit
from tests.cluster import drill, running_cluster
from tests.conftest import wait_until_sync

RESTARTS = 2


def test_f18_results_in_flight_when_the_scheduler_is_restarted_arrive_and_nothing_is_computed_again(
    redis_url: str, tmp_path: Path, rng: random.Random
):
    # The leases outlive the restarts, as they do by default: then an attempt that was begun is never begun again.
    with running_cluster(redis_url, tmp_path / "c", LCQ_LEASES__LEASE_S="60") as cluster:
        cluster.start_scheduler()
        cluster.start_agent("node-1", slots=4)
        with cluster.client() as client:
            submitted: list[str] = []
            for number in range(RESTARTS):
                work = [drill("drill-sleep", seconds=rng.uniform(0, 0.2)) for _ in range(40)]
                submitted += [accepted.id for accepted in client.submit_many(work).accepted]
                done = 40 * number + rng.randint(5, 20)
                wait_until_sync(
                    lambda done=done: client.page(status=TaskStatus.COMPLETED).total >= done, what="some to be done"
                )
                cluster.kill("scheduler", rng.choice([signal.SIGKILL, signal.SIGTERM]))
                time.sleep(rng.uniform(0, 0.3))  # what runs comes to its end with nobody there
                cluster.start_scheduler()
            records = client.wait(submitted, timeout_s=60)
            histories = [client.history(task_id) for task_id in submitted]
        assert {record.status for record in records} == {TaskStatus.COMPLETED}
        outcomes = [[attempt.outcome for attempt in history.attempts] for history in histories]
        computed = sum(outcome != "handed_back" for one in outcomes for outcome in one)
        print(
            f"\n{RESTARTS} restarts: {len(submitted)} tasks, {computed} attempts computed,"
            f" {sum(len(one) for one in outcomes) - computed} grants that reached nobody"
        )
        assert computed == len(submitted), [one for one in outcomes if len(one) > 1]
        spool = cluster.folder / "agents" / "node-1" / "spool"
        wait_until_sync(lambda: not list(spool.glob("*.json")), what="nothing left on disk")
    with redis.Redis.from_url(redis_url, decode_responses=True) as eye:
        audit(eye)

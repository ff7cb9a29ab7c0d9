"""F-3: an engine that lets nothing else run in its process for ten leases: beats come from another one, all goes on."""

from __future__ import annotations

from pathlib import Path

import pytest

from lcq.models import NodeStatus, TaskStatus
from tests.cluster import drill, running_cluster
from tests.conftest import wait_until_sync

LEASE_S = 2.0


@pytest.mark.chaos
def test_a_runner_that_holds_the_lock_for_ten_leases_is_not_taken_for_lost(redis_url: str, tmp_path: Path):
    leases = {"LCQ_LEASES__LEASE_S": str(LEASE_S), "LCQ_LEASES__BEAT_S": "0.4"}
    with running_cluster(redis_url, tmp_path / "c", **leases) as cluster:
        cluster.start_scheduler()
        cluster.start_agent("node-1", slots=1)
        with cluster.client() as client:
            task_id = client.submit(drill("drill-gil", seconds=10 * LEASE_S)).id
            wait_until_sync(lambda: client.get(task_id).status == TaskStatus.PROCESSING)
            seen = set()

            def ended() -> bool:
                seen.add(client.nodes()[0].status)
                return client.get(task_id).status == TaskStatus.COMPLETED

            wait_until_sync(ended, timeout=90, what="ten leases without a word from the runner")
            (attempt,) = client.history(task_id).attempts
            assert attempt.ended_ms is not None
            assert attempt.ended_ms - attempt.started_ms >= 10_000 * LEASE_S
            assert NodeStatus.OFFLINE not in seen

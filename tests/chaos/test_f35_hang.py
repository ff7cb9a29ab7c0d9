"""F-35: an attempt that hangs is ended by its deadline for progress, while its node beats on."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from lcq.models import TaskStatus
from tests.cluster import drill, running_cluster
from tests.conftest import wait_until_sync

DEADLINE_S = 1.5


@pytest.mark.chaos
def test_a_call_that_never_returns_is_ended_by_its_deadline_while_the_node_beats_on(redis_url: str, tmp_path: Path):
    with running_cluster(redis_url, tmp_path / "c", LCQ_AGENT__NO_PROGRESS_S=str(DEADLINE_S)) as cluster:
        cluster.start_scheduler()
        cluster.start_agent("node-1", slots=2)
        with cluster.client() as client:
            hung = drill("drill-hang", failures=1)
            beside = drill("drill-sleep", seconds=3 * DEADLINE_S)  # progress keeps it, for longer than the deadline
            client.submit_many([hung, beside])
            wait_until_sync(lambda: client.get(hung.id).status == TaskStatus.PROCESSING, timeout=60)
            began = time.monotonic()
            beats = set()
            while client.get(hung.id).attempt == 1 and time.monotonic() < began + 30:
                beats.add(client.nodes()[0].seen_ms)
                time.sleep(0.02)
            noticed = time.monotonic() - began
            records = client.wait([hung.id, beside.id], timeout_s=60)
            assert {record.status for record in records} == {TaskStatus.COMPLETED}
            first, second = client.history(hung.id).attempts
            assert first.failure is not None
            assert first.failure.code == "no_progress"
            assert second.outcome == "completed"
            assert [attempt.outcome for attempt in client.history(beside.id).attempts] == ["completed"]
            took = ((first.ended_ms or 0) - first.started_ms) / 1000
            print(
                f"\nF-35: ended {took:.2f} s after its start, seen after {noticed:.2f} s; {len(beats)} beats meanwhile"
            )
            assert len(beats) >= 2
            assert took >= DEADLINE_S

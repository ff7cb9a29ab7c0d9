"""F-31: one attempt that runs out of memory is one failed attempt: the next one meets a fresh runner."""

from __future__ import annotations

from pathlib import Path

from lcq.models import ErrorClass, TaskStatus
from tests.cluster import drill, running_cluster


def test_one_attempt_out_of_memory_fails_alone_and_the_next_tasks_there_succeed(redis_url: str, tmp_path: Path):
    with running_cluster(redis_url, tmp_path / "c") as cluster:
        cluster.start_scheduler()
        cluster.start_agent("node-1", slots=1)
        (before,) = cluster.runners("node-1")
        with cluster.client() as client:
            hit, *others = [drill("drill-oom", failures=1), *(drill() for _ in range(5))]
            ids = [accepted.id for accepted in client.submit_many([hit, *others]).accepted]
            records = client.wait(ids, timeout_s=60)
            assert {record.status for record in records} == {TaskStatus.COMPLETED}
            attempts = [attempt for task_id in ids for attempt in client.history(task_id).attempts]
        failed = [attempt for attempt in attempts if attempt.outcome == "failed"]
        assert len(failed) == 1
        assert failed[0].failure is not None
        assert (failed[0].failure.error_class, failed[0].failure.code) == (ErrorClass.RESOURCE, "out_of_memory")
        assert {(attempt.node, attempt.device) for attempt in attempts} == {("node-1", "cpu")}
        assert len(attempts) == len(ids) + 1
        (after,) = cluster.runners("node-1")
        assert after.pid != before.pid

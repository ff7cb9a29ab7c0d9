"""A backup is taken while real agents work, and put onto another server: there every task ends, exactly once."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from lcq.backup import make_backup, restore_backup
from lcq.models import TaskStatus
from lcq.state.manager import StateManager
from tests.audit import audit
from tests.cluster import drill, running_cluster
from tests.conftest import wait_until
from tests.redis_rig import running_server


@pytest.mark.chaos
async def test_a_cluster_restored_from_a_backup_under_load_ends_every_task_exactly_once(tmp_path: Path):
    file = tmp_path / "state.lcq"
    with running_server(tmp_path / "redis-1") as first, running_cluster(first.url, tmp_path / "c1") as cluster:
        cluster.start_scheduler()
        cluster.start_agent("node-1", slots=4)
        work = [drill("drill-sleep", seconds=0.02, n=n).model_copy(update={"job": f"job {n % 3}"}) for n in range(400)]
        work += [drill("drill-transient"), drill("drill-crash")]
        with cluster.client() as client:
            ids = {one.id for one in (await asyncio.to_thread(client.submit_many, work)).accepted}
            assert len(ids) == len(work)

            def is_under_way() -> bool:
                return client.page(limit=1, status=TaskStatus.COMPLETED).total > 40

            await wait_until(is_under_way, timeout=90, what="work is under way")
        async with StateManager(url=first.url) as state:
            made = await make_backup(state, file)
            counts = await state.reader.counts()
        assert counts.get(TaskStatus.QUEUED, 0) > 0, "it was to be taken while there is work"
        print(f"\n{made.tasks} tasks, {made.size_bytes} bytes in {made.seconds:.2f} s, of {counts} then")
    with (
        running_server(tmp_path / "redis-2") as second,
        running_cluster(second.url, tmp_path / "c2") as cluster,
        second.client() as eye,
    ):
        restored = await restore_backup(file, cluster.config, second.url)
        assert sum(restored.by_state.values()) == len(ids)
        audit(eye)
        cluster.start_scheduler()
        cluster.start_agent("node-1", slots=4)
        with cluster.client() as client:

            def is_over() -> bool:
                done = sum(client.page(limit=1, status=one).total for one in (TaskStatus.COMPLETED, TaskStatus.FAILED))
                return done == len(ids)

            await wait_until(is_over, timeout=120, what="every task has ended")
        ledger = audit(eye)
    assert set(ledger.tasks) == ids
    done = {i for i, t in ledger.tasks.items() if t["status"] == TaskStatus.COMPLETED}
    assert len(done) >= 400
    for task_id in done:
        outcomes = [record["outcome"] for record in ledger.attempts[task_id]]
        assert outcomes.count("completed") == 1, outcomes
    print(f"restored in {restored.seconds:.2f} s, {restored.handed_back} were handed back: {restored.by_state}")

"""F-32: the recorded peak is what an attempt held while it ran, also where it was killed and can be asked no more."""

from __future__ import annotations

from pathlib import Path

import pytest

from lcq.models import TaskStatus
from tests.cluster import drill, running_cluster
from tests.vram_ledger import VramLedger

MIB = 300


@pytest.mark.chaos
def test_the_peak_on_record_is_at_least_what_the_attempt_took(redis_url: str, tmp_path: Path):
    ledger = VramLedger(tmp_path)
    with running_cluster(redis_url, tmp_path / "c", **ledger.environment) as cluster:
        cluster.start_scheduler()
        cluster.start_agent("node-1", slots=1)
        with cluster.client() as client:
            for ending, code in (("done", ""), ("kill", "runner_died"), ("hang", "timed_out")):
                big = drill("ledger", mib=MIB, ending=ending).model_copy(update={"timeout_s": 2.0, "max_retries": 0})
                after = drill("ledger")
                client.submit_many([big, after])
                record, last = client.wait([big.id, after.id], timeout_s=60)
                assert (record.failure.code if record.failure else "") == code
                assert last.status == TaskStatus.COMPLETED
                peaks = [client.history(task_id).attempts[0].peak_mib for task_id in (big.id, after.id)]
                print(f"\nF-32: {ending}: peak of the attempt that took {MIB} MiB, and of the next: {peaks} MiB")
                assert peaks[0] >= MIB
                assert 0 < peaks[1] < MIB, "a peak is of its own attempt, not of the runner's life"

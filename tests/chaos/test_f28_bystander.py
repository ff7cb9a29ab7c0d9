"""F-28: what is killed is one attempt's own family, and nobody beside it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tests.chaos.runners import children_of, warden_of
from tests.cluster import drill, running_cluster
from tests.conftest import wait_until_sync
from tests.vram_ledger import VramLedger

SLEEP = [sys.executable, "-c", "import time; time.sleep(1000)"]


@pytest.mark.chaos
def test_of_two_families_and_two_bystanders_only_the_hung_attempts_family_is_ended(redis_url: str, tmp_path: Path):
    ledger = VramLedger(tmp_path)
    with running_cluster(redis_url, tmp_path / "c", **ledger.environment) as cluster:
        cluster.start_scheduler()
        agent = cluster.start_agent("node-1", slots=2)
        beside = subprocess.Popen(SLEEP)  # in the agent's own process group
        marked = subprocess.Popen(SLEEP, env=os.environ | {"LCQ_RUNNER_OF": "another"}, start_new_session=True)
        try:
            with cluster.client() as client:
                lives = drill("ledger", children=["group", "session", "daemon"], ending="work")
                assert client.submit_many([lives]).accepted
                wait_until_sync(lambda: len(ledger.holders()) == 3, timeout=60)
                spared = ledger.holders()
                (busy,) = [one for one in cluster.runners("node-1") if len(children_of(warden_of(one))) > 1]
                dies = drill("ledger", children=["group", "session", "daemon"], ending="hang")
                dies = dies.model_copy(update={"timeout_s": 2.0, "max_retries": 0})
                assert client.submit_many([dies]).accepted
                wait_until_sync(lambda: len(ledger.holders()) == 6, timeout=60)
                (record,) = client.wait([dies.id], timeout_s=60)
                assert record.failure is not None
                assert record.failure.code == "timed_out"
                assert ledger.holders() == spared
                assert busy.is_running()
                assert client.get(lives.id).attempt == 1
                assert os.getpgid(beside.pid) == os.getpgid(agent.pid)
                assert beside.poll() is None
                assert marked.poll() is None
                assert psutil.Process(agent.pid).is_running()
        finally:
            for process in (beside, marked):
                process.kill()
                process.wait()

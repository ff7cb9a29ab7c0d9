"""F-27: whatever is killed, nothing that a runner started outlives it: neither in its session nor out of it."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import psutil
import pytest

from lcq.models import TaskStatus
from tests.chaos.runners import children_of, warden_of
from tests.cluster import Cluster, drill, running_cluster
from tests.conftest import wait_until_sync
from tests.vram_ledger import VramLedger

CHILDREN = ["group", "session", "daemon"]  # in the runner's group; in a session of its own; forked twice besides


@pytest.fixture
def ledger(tmp_path: Path) -> VramLedger:
    return VramLedger(tmp_path)


@pytest.fixture
def cluster(redis_url: str, tmp_path: Path, ledger: VramLedger):
    with running_cluster(redis_url, tmp_path / "c", LCQ_LEASES__LEASE_S="60", **ledger.environment) as cluster:
        cluster.start_scheduler()
        cluster.start_agent("node-1", slots=1)
        yield cluster


def runner_and_its_family(cluster: Cluster, ledger: VramLedger, **config: object) -> psutil.Process:
    with cluster.client() as client:
        task = drill("ledger", children=CHILDREN, ending="hang", **config).model_copy(update={"max_retries": 0})
        assert client.submit_many([task]).accepted
        wait_until_sync(lambda: len(ledger.holders()) == len(CHILDREN), what="a family that holds memory", timeout=60)
    (runner,) = cluster.runners("node-1")
    assert len(children_of(warden_of(runner))) == len(CHILDREN) + 1
    return runner


def all_freed(ledger: VramLedger, runner: psutil.Process, since: float, what: str) -> None:
    wait_until_sync(
        lambda: not ledger.holders() and not runner.is_running(), what="nobody who holds memory", timeout=60
    )
    print(f"\nF-27: {what} killed: all of its memory is back after {time.monotonic() - since:.3f} s")


def test_when_any_process_of_a_family_is_killed_nobody_of_it_holds_memory(cluster: Cluster, ledger: VramLedger):
    for victim in ("runner", "warden", "group", "agent"):
        # All but a killed warden's know their own by descent, also those who have forgotten their environment.
        runner = runner_and_its_family(cluster, ledger, bare=victim in ("runner", "agent"))
        warden = warden_of(runner)
        began = time.monotonic()
        match victim:
            case "agent":
                cluster.kill("node-1")
            case "runner":
                runner.kill()
            case "warden":
                warden.kill()
            case "group":
                os.killpg(warden.pid, signal.SIGKILL)
        all_freed(ledger, runner, began, victim)
        if victim != "agent":
            with cluster.client() as client:  # and the slot is as good as new
                (record,) = client.wait([client.submit_many([drill()]).accepted[0].id], timeout_s=60)
                assert record.status == TaskStatus.COMPLETED


def test_what_outlived_agent_and_warden_is_ended_by_the_next_start_and_a_bystander_is_not(
    cluster: Cluster, ledger: VramLedger
):
    runner = runner_and_its_family(cluster, ledger)
    warden_of(runner).suspend()  # it cannot do its office
    bystander = psutil.Popen(["sleep", "1000"], env=os.environ | {"LCQ_RUNNER_OF": "somebody-else"})
    try:
        cluster.kill("node-1")
        wait_until_sync(
            lambda: not runner.is_running() or runner.status() == "zombie", what="the runner's own end", timeout=60
        )
        assert len(ledger.holders()) == len(CHILDREN)
        began = time.monotonic()
        cluster.start_agent("node-1", slots=1, wait=False)
        wait_until_sync(lambda: not ledger.holders(), what="the sweep", timeout=60)
        print(f"\nF-27: swept {time.monotonic() - began:.3f} s after the next start was asked for")
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()

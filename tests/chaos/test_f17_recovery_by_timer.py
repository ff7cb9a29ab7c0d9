"""F-17: a worker dies and nobody submits anything afterwards: its task runs elsewhere all the same, by the clock."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lcq.client import Client
from lcq.models import TaskStatus
from tests.cluster import Cluster, drill, running_cluster
from tests.conftest import wait_until_sync


@pytest.fixture
def cluster(redis_url: str, tmp_path: Path) -> Iterator[Cluster]:
    # No agent polls, and no lease but those of these tests runs out by chance on a busy machine.
    with running_cluster(redis_url, tmp_path / "c", LCQ_AGENT__POLL_S="3600", LCQ_LEASES__LEASE_S="4") as cluster:
        cluster.start_scheduler()
        cluster.start_agent("node-1", slots=1)
        yield cluster


def running_on(client: Client, task_id: str, node: str) -> bool:
    record = client.get(task_id)
    return record.status is TaskStatus.PROCESSING and record.node == node


def given_to_node_1(client: Client) -> str:
    task_id = client.submit(drill("drill-sleep", seconds=4)).id
    wait_until_sync(lambda: running_on(client, task_id, "node-1"), what="the task on node-1")
    return task_id


@pytest.mark.parametrize("how", [signal.SIGKILL, pytest.param(signal.SIGSTOP, marks=pytest.mark.chaos)])
def test_f17_the_task_of_a_worker_that_died_or_froze_runs_elsewhere_though_nothing_else_happens(
    cluster: Cluster, how: signal.Signals
):
    with cluster.client() as client:
        cluster.start_agent("node-2", slots=1)
        client.drain("node-2")
        task_id = given_to_node_1(client)
        client.activate("node-2")
        cluster.kill("node-1", how)
        died = time.monotonic()
        wait_until_sync(lambda: client.get(task_id).node == "node-2", timeout=60, what="the task on node-2")
        began_s = time.monotonic() - died
        (record,) = client.wait([task_id], timeout_s=60)
    print(f"\n{how.name}: its task runs elsewhere after {began_s:.2f} s, with nothing submitted meanwhile")
    assert (record.status, record.node) == (TaskStatus.COMPLETED, "node-2")

"""kill -9 of anything loses nothing: real processes, a real server, every task done exactly once."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from lcq.client import Client
from lcq.models import NodeStatus, TaskRecord, TaskStatus
from tests.cluster import Cluster, drill, running_cluster
from tests.conftest import wait_until_sync


@pytest.fixture
def cluster(redis_url: str, tmp_path: Path):
    # Leases longer than any of these tests: what is noticed here is noticed by lifelines, not by silence.
    with running_cluster(redis_url, tmp_path / "c", LCQ_LEASES__LEASE_S="60") as cluster:
        cluster.start_scheduler()
        yield cluster


@pytest.fixture
def short_leases(redis_url: str, tmp_path: Path):
    with running_cluster(redis_url, tmp_path / "c", LCQ_LEASES__LEASE_S="3") as cluster:
        cluster.start_scheduler()
        yield cluster


def finished_exactly_once(client: Client, ids: list[str]) -> list[TaskRecord]:
    """Wait for all, and check that each was committed by exactly one attempt."""
    records = client.wait(ids, timeout_s=120)
    assert {record.status for record in records} == {TaskStatus.COMPLETED}, [
        (record.id, record.status, record.failure) for record in records
    ]
    for record in records:
        outcomes = [attempt.outcome for attempt in client.history(record.id).attempts]
        assert outcomes.count("completed") == 1, (record.id, outcomes)
    return records


def submit(client: Client, count: int, **config: object) -> list[str]:
    answer = client.submit_many([drill("drill-sleep", **config) for _ in range(count)])
    assert not answer.refused
    return [accepted.id for accepted in answer.accepted]


def some_running(client: Client, *, node: str = "", at_least: int = 1) -> list[TaskRecord]:
    return wait_until_sync(
        lambda: (
            records if len(records := list(client.tasks(status=TaskStatus.PROCESSING, node=node))) >= at_least else []
        ),
        what=f"{at_least} tasks running",
    )


def test_an_agent_killed_while_it_works_loses_no_task_and_its_runners_die_with_it(cluster: Cluster):
    cluster.start_agent("node-1")
    with cluster.client() as client:
        ids = submit(client, 6, seconds=0.5)
        some_running(client, node="node-1", at_least=2)
        orphans = cluster.runners("node-1")
        assert orphans
        cluster.kill("node-1")
        cluster.start_agent("node-2", slots=1)
        finished_exactly_once(client, ids)
        assert not any(orphan.is_running() and orphan.status() != "zombie" for orphan in orphans)
        wait_until_sync(
            lambda: any(node.id == "node-1" and node.status == NodeStatus.OFFLINE for node in client.nodes())
        )


def test_an_agent_killed_and_started_again_under_its_name_does_the_same_tasks(cluster: Cluster):
    cluster.start_agent("node-1", slots=1)
    with cluster.client() as client:
        ids = submit(client, 4, seconds=0.5)
        some_running(client)
        cluster.kill("node-1")
        cluster.start_agent("node-1", slots=1)
        finished_exactly_once(client, ids)


def test_a_killed_runner_costs_its_task_one_attempt_and_the_slot_works_on(cluster: Cluster):
    cluster.start_agent("node-1", slots=1)
    with cluster.client() as client:
        hit = client.submit(drill("drill-hang", failures=1)).id
        after = submit(client, 2, seconds=0.1)
        wait_until_sync(lambda: client.nodes()[0].telemetry.get("slots_busy") == 1, what="the runner at work")
        cluster.runners("node-1")[0].kill()
        finished_exactly_once(client, [hit, *after])
        history = client.history(hit)
        assert history.record.attempt == 2
        failure = history.attempts[0].failure
        assert failure is not None
        assert failure.code == "runner_died"


def test_a_killed_scheduler_is_not_missed_by_running_tasks_and_its_successor_takes_over(cluster: Cluster):
    cluster.start_agent("node-1")
    with cluster.client() as client:
        ids = submit(client, 6, seconds=0.5)
        some_running(client, at_least=2)
        cluster.kill("scheduler")
        cluster.start_scheduler()
        records = finished_exactly_once(client, ids)
        # One more attempt, where a grant was under way when the scheduler died: nobody has begun that one.
        assert all(record.retries == 0 for record in records), "a scheduler's death must cost no try"


def test_everything_killed_at_once_comes_back_and_finishes_every_task_once(cluster: Cluster):
    cluster.start_agent("node-1")
    with cluster.client() as client:
        ids = submit(client, 8, seconds=0.4)
        some_running(client, at_least=2)
        runners = cluster.runners("node-1")
        for runner in runners:
            runner.kill()
        cluster.kill("node-1")
        cluster.kill("scheduler")
        cluster.start_scheduler()
        cluster.start_agent("node-1")
        finished_exactly_once(client, ids)


def test_a_drained_agent_finishes_or_hands_back_and_no_task_pays_for_it(cluster: Cluster):
    process = cluster.start_agent("node-1")
    with cluster.client() as client:
        ids = submit(client, 4, seconds=1.0)
        some_running(client, at_least=2)
        cluster.kill("node-1", signal.SIGTERM)
        assert process.returncode == 0, cluster.logs()
        cluster.start_agent("node-2", slots=1)
        records = finished_exactly_once(client, ids)
        assert all(record.retries == 0 for record in records)


def test_a_second_sigterm_hands_back_at_once(cluster: Cluster):
    process = cluster.start_agent("node-1")
    with cluster.client() as client:
        ids = submit(client, 2, seconds=600)
        some_running(client, at_least=2)
        process.terminate()
        wait_until_sync(lambda: "drain" in cluster.log_path("node-1").read_text())
        process.terminate()
        process.wait(60)
        records = [client.get(task) for task in ids]
        assert {record.status for record in records} == {TaskStatus.QUEUED}
        assert all(record.retries == 0 for record in records)


def test_a_stopped_agent_that_wakes_up_late_changes_nothing(short_leases: Cluster):
    cluster = short_leases
    cluster.start_agent("node-1", slots=1)
    with cluster.client() as client:
        ids = submit(client, 1, seconds=2.0)
        some_running(client, node="node-1")
        cluster.kill("node-1", signal.SIGSTOP)
        cluster.start_agent("node-2", slots=1)
        (record,) = finished_exactly_once(client, ids)
        assert record.node == "node-2"
        cluster.kill("node-1", signal.SIGCONT)
        wait_until_sync(
            lambda: any(node.id == "node-1" and node.status == NodeStatus.ONLINE for node in client.nodes()),
            what="node-1 back online",
        )
        after = client.get(ids[0])
        assert (after.status, after.node, after.result) == (record.status, record.node, record.result)


def test_redis_killed_in_the_middle_loses_nothing_that_was_accepted(cluster: Cluster, redis_server):
    cluster.start_agent("node-1", slots=1)
    with cluster.client() as client:
        ids = submit(client, 6, seconds=0.5)
        some_running(client)
        os.kill(redis_server.pid, signal.SIGKILL)
        redis_server.ensure_running()
        finished_exactly_once(client, ids)


@pytest.mark.chaos
def test_short_tasks_in_hand_of_a_drained_or_killed_agent_are_done_by_another(cluster: Cluster):
    cluster.start_agent("node-1", slots=1)
    with cluster.client() as client:
        client.wait(submit(client, 20, seconds=0), timeout_s=60)  # now it knows that its work is short
        ids = submit(client, 400, seconds=0.005)
        wait_until_sync(
            lambda: any(record.stage == "in hand" for record in client.tasks(status=TaskStatus.PROCESSING)),
            what="a beat that lists a task in hand",
        )
        cluster.kill("node-1", signal.SIGTERM)
        cluster.start_agent("node-2", slots=1)
        cluster.kill("node-2")  # wherever it is just now
        cluster.start_agent("node-3")
        records = finished_exactly_once(client, ids)
        assert max(record.retries for record in records) <= 1

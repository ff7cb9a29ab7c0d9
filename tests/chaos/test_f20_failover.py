"""F-20: a failover of Redis loses acknowledged writes; what is lost is told, submitted again, and done once."""

from __future__ import annotations

import asyncio
import gc
import random
import re
import threading
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from lcq.client import Client
from lcq.errors import TaskNotFound
from lcq.models import TaskRecord, TaskStatus
from lcq.state.reader import StateReader
from lcq.state.sentinels import SentinelUrl
from tests.audit import audit
from tests.cluster import Cluster, drill, running_cluster
from tests.conftest import wait_until, wait_until_sync
from tests.redis_rig import Rig, Server, running_rig

LOST = re.compile(r"failover: up to (\d+) ms \((\d+) bytes seen\)")


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    with running_rig(tmp_path / "redis", password="s3cret-of-the-test") as rig:
        yield rig


@pytest.fixture
def cluster(rig: Rig, tmp_path: Path) -> Iterator[Cluster]:
    with running_cluster(rig.url, tmp_path / "c") as cluster:
        cluster.start_scheduler()
        yield cluster


@contextmanager
def waited_for(client: Client, ids: list[str], timeout_s: float = 90) -> Iterator[list[TaskRecord]]:
    """Have ``client`` wait for ``ids`` while the block runs; the records are there when it is over."""
    records: list[TaskRecord] = []
    waiter = threading.Thread(target=lambda: records.extend(client.wait(ids, timeout_s=timeout_s)))
    waiter.start()
    yield records
    waiter.join(timeout_s + 5)
    assert len(records) == len(ids), f"{len(ids) - len(records)} tasks had no end"


def has_failed_over(cluster: Cluster, times: int = 1) -> Callable[[], bool]:
    return lambda: len(LOST.findall(cluster.log_path("scheduler").read_text())) >= times


def works(client: Client) -> float:
    """Have one task done; how long that took."""
    began = time.monotonic()
    client.wait(client.submit(drill()).id, timeout_s=60)
    return time.monotonic() - began


def submit_until_taken(client: Client) -> None:
    task = drill()
    wait_until_sync(lambda: _is_taken(client, task), timeout=60, what="a task is accepted again")


def _is_taken(client: Client, task) -> bool:
    try:
        client.submit(task, key=task.id)
    except Exception:  # noqa: BLE001  while Redis is away every kind of refusal may come
        return False
    return True


def missing(server: Server, ids: list[str]) -> list[str]:
    with server.client() as eye:
        return [task_id for task_id in ids if not eye.exists(f"{{lcq}}:task:{task_id}")]


def test_a_failover_that_lost_writes_is_told_and_waiting_clients_submit_again(rig: Rig, cluster: Cluster):
    cluster.start_agent(slots=1)
    with cluster.client() as client:
        works(client)
        client.pause("cpu-light")
        kept = [client.submit(drill()).id for _ in range(5)]
        rig.wait_in_sync()
        time.sleep(1.2)  # the scheduler has looked: the rest comes after what it knows to be replicated
        said_before = len(cluster.log_path("scheduler").read_text())  # a slow start may have met no Sentinel yet
        with rig.replica_cut_off():
            lost = [accepted.id for accepted in client.submit_many([drill() for _ in range(20)]).accepted]
            assert len(lost) == 20
            time.sleep(1.2)
            began = time.monotonic()
            with waited_for(client, kept + lost) as records:
                new = rig.kill_primary()
                promoted_s = time.monotonic() - began
                gone = missing(new, kept + lost)
                submit_until_taken(client)
                accepting_s = time.monotonic() - began
                wait_until_sync(has_failed_over(cluster), timeout=60, what="the scheduler tells of the failover")
                client.resume("cpu-light")
        assert {record.status for record in records} == {TaskStatus.COMPLETED}
        assert not set(gone) & set(kept), "what was replicated has survived"
        with new.client() as eye:
            ledger = audit(eye)
        (ms, size), *_ = LOST.findall(cluster.log_path("scheduler").read_text())
        told = [fields for _, fields in ledger.events if fields["move"] == "note_failover"]
    log = cluster.log_path("scheduler").read_text()
    print(
        f"\nfailover: the replica was primary {promoted_s:.2f} s after the kill, tasks accepted again after "
        f"{accepting_s:.2f} s; {len(gone)} of {len(lost)} unreplicated tasks lost, {len(gone)} submitted again and "
        f"completed; told: up to {ms} ms, {size} bytes"
    )
    assert len(gone) == 20, "the test has lost what it meant to lose"
    assert int(ms) >= 1000 and int(size) > 0, "the window that was told covers what was lost"  # noqa: PT018
    assert len(told) == 1 and told[0]["lost_bytes"] == size, told  # noqa: PT018
    assert "s3cret" not in cluster.logs(), "a password is in a log"
    completed = Counter(fields["id"] for _, fields in ledger.events if fields.get("status") == "completed")
    assert all(completed[task_id] == 1 for task_id in kept + lost), "each was committed once"
    troubles = [line for line in log[said_before:].splitlines() if "refuses" in line or "does not answer" in line]
    assert len(troubles) <= 2, log  # once by the watch, once by the feed


@pytest.mark.chaos
def test_a_planned_failover_loses_nothing_and_nobody_needs_to_be_started_again(rig: Rig, cluster: Cluster):
    cluster.start_agent(slots=1)
    with cluster.client() as client:
        ids = [
            accepted.id
            for accepted in client.submit_many([drill("drill-sleep", seconds=0.05) for _ in range(20)]).accepted
        ]
        with waited_for(client, ids) as records:
            began = time.monotonic()
            new = rig.fail_over()
            submit_until_taken(client)
            print(f"\na planned failover: tasks accepted again after {time.monotonic() - began:.2f} s")
        assert {record.status for record in records} == {TaskStatus.COMPLETED}
        works(client)
    with new.client() as eye:
        audit(eye)


async def test_a_reader_follows_the_primary_and_is_told_of_the_gap(rig: Rig, cluster: Cluster):
    with cluster.client() as client:
        client.submit(drill("cv2-ns"))
    rig.wait_in_sync()
    async with StateReader(rig.url) as reader:
        before = await reader.snapshot()
        with rig.replica_cut_off():
            with cluster.client() as client:
                client.submit(drill("cv2-ns"))
            ahead = (await reader.events(before.last_event_id, 2000)).last_id
            assert ahead > before.last_event_id
            rig.kill_primary()

        async def answers() -> bool:
            try:
                answer = await reader.events(ahead, 0)
            except Exception:  # noqa: BLE001
                return False
            return answer.gap

        await wait_until(answers, timeout=60, what="the reader is told that it remembers what is lost")
        after = await reader.snapshot()
        assert len(after.tasks) == 1


@pytest.mark.chaos
def test_a_result_for_a_task_that_was_lost_is_refused_and_the_agent_goes_on(rig: Rig, cluster: Cluster):
    cluster.start_agent(slots=1)
    with cluster.client() as client:
        works(client)
        rig.wait_in_sync()
        with rig.replica_cut_off():
            task_id = client.submit(drill("drill-sleep", seconds=6)).id
            wait_until_sync(lambda: client.get(task_id).status == TaskStatus.PROCESSING, what="it runs")
            rig.kill_primary()
        submit_until_taken(client)
        with cluster.client() as other, pytest.raises(TaskNotFound):
            other.wait(task_id, timeout_s=20)
        said = f"task {task_id}, attempt 1: "
        wait_until_sync(
            lambda: (
                said in cluster.log_path("node-1").read_text()
                or f"ending task {task_id}" in cluster.log_path("node-1").read_text()
            ),
            timeout=60,
            what="the agent is told what has become of its attempt",
        )
        works(client)


@pytest.mark.chaos
def test_a_primary_that_froze_is_left_and_what_it_says_later_counts_nothing(rig: Rig, cluster: Cluster):
    cluster.start_agent(slots=2)
    with cluster.client() as client:
        works(client)
        rig.wait_in_sync()
        old = rig.primary
        began = time.monotonic()
        old.freeze()
        rig.wait_for_failover(old)
        submit_until_taken(client)
        print(f"\na frozen primary: tasks accepted again after {time.monotonic() - began:.2f} s")
        old.thaw()
        ids = [accepted.id for accepted in client.submit_many([drill() for _ in range(50)]).accepted]
        assert {record.status for record in client.wait(ids, timeout_s=60)} == {TaskStatus.COMPLETED}
        wait_until_sync(lambda: old.role == "slave", timeout=60, what="the old primary follows the new one")
        assert not missing(rig.primary, ids)
    with rig.primary.client() as eye:
        audit(eye)


@pytest.mark.chaos
def test_many_failovers_in_a_row_lose_no_task_that_a_client_waits_for(rig: Rig, cluster: Cluster, rng):
    cluster.start_agent(slots=2)
    ids: list[str] = []
    lost = 0
    with cluster.client() as client:
        for turn in range(4):
            rig.wait_in_sync()
            work = [drill("drill-sleep", seconds=rng.choice([0, 0.05, 0.2])) for _ in range(40)]
            with rig.replica_cut_off():
                ids = [accepted.id for accepted in client.submit_many(work).accepted]
                with waited_for(client, ids) as records:
                    dead = rig.primary
                    lost += len(missing(rig.kill_primary(), ids))
            assert {record.status for record in records} == {TaskStatus.COMPLETED}
            dead.start()
            wait_until_sync(has_failed_over(cluster, turn + 1), timeout=60, what="the failover is told")
    print(f"\n4 failovers: {lost} of 160 accepted tasks were lost, submitted again and completed")


async def test_who_stops_asking_the_sentinels_in_the_middle_leaves_no_connection_open(
    rig: Rig, rng: random.Random
) -> None:
    sentinels = SentinelUrl.read(rig.url)
    await wait_until(sentinels.agreed_primary, what="the Sentinels answer")
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        for _ in range(200):
            asking = asyncio.create_task(sentinels.primary())
            await asyncio.sleep(rng.uniform(0, 0.006))
            asking.cancel()
            await asyncio.wait({asking})
        await asyncio.sleep(0)
        gc.collect()
    assert [str(one.message) for one in told] == []

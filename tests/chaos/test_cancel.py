"""A cancelled attempt is gone, with all it started, before its slot is used again; and every answer is the truth."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from lcq.client import Client
from lcq.config import DistributedConfig
from lcq.errors import TransitionRefused
from lcq.models import TaskStatus
from lcq.state.manager import StateManager
from tests.audit import audit
from tests.cluster import Cluster, drill, running_cluster
from tests.conftest import wait_until_sync
from tests.nodes import LIGHT, Node, a_task
from tests.redis_rig import running_server
from tests.vram_ledger import VramLedger


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Cluster, VramLedger]]:
    """One for all tests: each leaves it with a free slot."""
    folder = tmp_path_factory.mktemp("cluster")
    ledger = VramLedger(folder)
    with (
        running_server(folder / "redis") as server,
        running_cluster(server.url, folder / "c", **ledger.environment) as cluster,
    ):
        cluster.start_scheduler()
        cluster.start_agent("node-1", slots=1)
        yield cluster, ledger


def test_a_cancelled_attempt_and_all_it_started_are_gone_before_its_slot_is_used_again(
    node: tuple[Cluster, VramLedger], tmp_path: Path
):
    cluster, ledger = node
    # One hears the cancel at its next step, the other hears nothing; children that forget their environment, or not.
    for ending, bare in (("work", True), ("hang", False), ("hang", True)):
        took = cancel_a_family(cluster, ledger, tmp_path / f"begun-{ending}-{bare}", ending=ending, bare=bare)
        print(f"\ncancel: the {ending}ing runner and its three children were gone after {took:.2f} s")


def cancel_a_family(cluster: Cluster, ledger: VramLedger, begun: Path, **config: object) -> float:
    """Cancel an attempt that has started processes, with another waiting for its slot. How long they lived on."""
    with cluster.client() as client:
        task = drill("ledger", children=["group", "session", "daemon"], **config)
        after = drill("ledger", begun=str(begun))
        client.submit_many([task])
        wait_until_sync(lambda: len(ledger.holders()) == 3, timeout=60)
        client.submit_many([after])
        (runner,) = cluster.runners("node-1")
        began = time.monotonic()
        client.cancel([task.id])
        wait_until_sync(
            lambda: not ledger.holders() and not runner.is_running(), what="the end of the family", timeout=60
        )
        took = time.monotonic() - began
        (record,) = client.wait([after.id], timeout_s=60)
        assert record.status == TaskStatus.COMPLETED
        assert not begun.read_text(), "the next attempt met processes of the cancelled one"
        assert client.get(task.id).status == TaskStatus.CANCELLED
        return took


def test_a_cancelled_attempt_that_gives_up_in_time_and_leaves_nothing_keeps_its_warm_runner(
    node: tuple[Cluster, VramLedger],
):
    cluster, _ = node
    with cluster.client() as client:
        (before,) = cluster.runners("node-1")
        task = drill("drill-sleep", seconds=60)
        client.submit_many([task])
        wait_until_sync(lambda: client.get(task.id).status == TaskStatus.PROCESSING, timeout=60)
        client.cancel([task.id])
        (record,) = client.wait([client.submit_many([drill()]).accepted[0].id], timeout_s=60)
        assert record.status == TaskStatus.COMPLETED
        (after,) = cluster.runners("node-1")
        assert after.pid == before.pid


async def test_cancel_retry_and_reroute_racing_with_completion_answer_what_the_record_says(
    redis_url: str, rng: random.Random
):
    """Each won race is one event, each lost one a refusal that names the state that won."""
    told: Counter[str] = Counter()
    async with StateManager(DistributedConfig(), url=redis_url) as state:
        node = Node(state)
        await node.hello()
        for _ in range(400):
            task = a_task()
            await state.submit_task(task, queue=LIGHT)
            (grant,) = await node.claim()
            racers = {
                "finish": node.finish(task.id, grant.attempt),
                "cancel": state.cancel_task(task.id, why="race"),
                "retry": state.retry_task(task.id, queue=LIGHT, why="race"),
                "reroute": state.reroute_task(task.id, queue=LIGHT, why="race"),
            }
            names = rng.sample(sorted(racers), len(racers))
            answers = await asyncio.gather(*(racers[name] for name in names), return_exceptions=True)
            won = {name for name, answer in zip(names, answers, strict=True) if not isinstance(answer, BaseException)}
            assert all(isinstance(answer, TransitionRefused) for answer in answers if isinstance(answer, BaseException))
            record = await state.reader.task(task.id)
            (attempt,) = await state.reader.attempts(task.id)
            moves = Counter(
                {"cancel": "cancel_task", "retry": "retry_task", "reroute": "reroute_task", "finish": "finish_task"}[
                    name
                ]
                for name in won
            )
            events = Counter(event.move for event in await state.reader.task_events(record))
            assert {move: events[move] for move in moves} == dict(moves), (names, answers, events)
            assert sum(events.values()) == len(won) + 2, (won, events)  # and submit and claim
            ends = {"completed"} if "finish" in won else {"cancelled", "rerouted"}
            assert attempt.outcome in ends, (won, attempt)
            assert record.status in {TaskStatus.COMPLETED, TaskStatus.CANCELLED, TaskStatus.QUEUED}
            told["+".join(name for name in names if name in won)] += 1
            if record.status is TaskStatus.QUEUED:
                await state.cancel_task(task.id, why="tidy")
    print(f"\ncancel, retry, reroute against completion: {dict(told.most_common())}")
    with redis.Redis.from_url(redis_url, decode_responses=True) as eye:
        audit(eye)
    assert len(told) > 3


def test_cancels_that_meet_completions_of_a_real_node_tell_what_became_of_the_task(
    node: tuple[Cluster, VramLedger], rng: random.Random
):
    answers: dict[str, str] = {}
    cluster, _ = node
    tasks = [drill("drill-sleep", seconds=0.02) for _ in range(60)]

    def hammer(mine: list[str], pause_s: list[float]) -> None:
        with cluster.client() as client:
            for task_id, wait_s in zip(mine, pause_s, strict=True):
                time.sleep(wait_s)
                answers[task_id] = _cancelled(client, task_id)

    with cluster.client() as client:
        ids = [accepted.id for accepted in client.submit_many(tasks).accepted]
        halves = [ids[::2], ids[1::2]]
        threads = [
            threading.Thread(target=hammer, args=(half, [rng.uniform(0, 0.04) for _ in half])) for half in halves
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        records = client.wait(ids, timeout_s=60)
        for record in records:
            assert record.status == answers[record.id], (record, answers[record.id])
            outcomes = [attempt.outcome for attempt in client.history(record.id).attempts]
            assert outcomes.count("completed") == (record.status == TaskStatus.COMPLETED)
    print(f"\ncancel against real completions: {dict(Counter(answers.values()))}")


def _cancelled(client: Client, task_id: str) -> str:
    """What the cluster says has become of ``task_id``."""
    answer = client.cancel([task_id])
    if answer.done:
        return TaskStatus.CANCELLED
    (refusal,) = answer.refused
    assert TaskStatus.COMPLETED in refusal.message, refusal
    return TaskStatus.COMPLETED

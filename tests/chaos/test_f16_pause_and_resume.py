"""F-16: pausing, resuming and restarting in any order moves no task out of the books: the multiset stays the same."""

from __future__ import annotations

import asyncio
import itertools
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from lcq.client import AsyncClient
from lcq.config import DistributedConfig
from lcq.embedded import PrivateServer
from lcq.errors import TransitionRefused
from lcq.models import TaskStatus
from lcq.state.manager import StateManager
from tests.audit import audit
from tests.cluster import free_port, running_cluster
from tests.conftest import wait_until
from tests.light_node import light_nodes
from tests.nodes import HEAVY, LIGHT, Node, a_task
from tests.processes import lives

MOVES = 1000
QUEUES = (LIGHT, HEAVY)


@pytest.fixture
def eye(redis_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_url, decode_responses=True) as client:
        yield client


class Story:
    """What was submitted, what is paused, and two nodes that take, finish, give back, die and come again."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.submitted: list[str] = []
        self.finished: list[str] = []
        self.paused: set[str] = set()
        self.held: dict[str, dict[str, int]] = {"n-1": {}, "n-2": {}}  # node -> task -> attempt
        self.boots = Counter(dict.fromkeys(self.held, 0))
        self.done: Counter[str] = Counter()

    def node(self, state: StateManager, name: str) -> Node:
        return Node(state, id=name, boot=f"boot-{self.boots[name]}", queues=QUEUES)

    async def one_move(self, state: StateManager) -> None:
        queue, name = self.rng.choice(QUEUES), self.rng.choice(list(self.held))
        node, held = self.node(state, name), self.held[name]
        move = self.rng.choice(["pause", "resume", "pause", "resume", "submit", "claim", "claim", "finish", "release",
                                "restart", "beat"])  # fmt: skip
        self.done[move] += 1
        match move:
            case "pause" | "resume":
                try:
                    act = state.pause_queue if move == "pause" else state.resume_queue
                    await act(queue, actor="ann")
                    (self.paused.add if move == "pause" else self.paused.discard)(queue)
                except TransitionRefused:
                    assert (queue in self.paused) == (move == "pause")
            case "submit":
                task = a_task(max_retries=100)
                await state.submit_task(task, queue=queue)
                self.submitted.append(task.id)
            case "claim":
                for grant in await node.claim(self.rng.randint(1, 3)):
                    record = await state.reader.task(grant.task.id)
                    assert record.queue not in self.paused, "a paused queue gives nothing out"
                    held[grant.task.id] = grant.attempt
            case "finish" if held:
                task_id = self.rng.choice(list(held))
                await node.finish(task_id, held.pop(task_id))
                self.finished.append(task_id)
            case "release" if held:
                task_id = self.rng.choice(list(held))
                await node.release(task_id, held.pop(task_id))
            case "restart":
                self.boots[name] += 1
                held.clear()
                await self.node(state, name).hello()
            case "beat":
                await node.beat(*held.items())


@pytest.mark.chaos
async def test_f16_a_thousand_random_pauses_resumes_and_restarts_keep_every_task(
    redis_server: PrivateServer, redis_url: str, eye: redis.Redis, rng: random.Random
):
    story = Story(rng)
    restarts = set(rng.sample(range(MOVES), 8))
    moves = 0
    while moves < MOVES:
        async with StateManager(url=redis_url) as state:  # each time around a scheduler begins anew
            for name in story.held:
                await story.node(state, name).hello()
            for _ in range(100):
                if moves in restarts:
                    restarts.discard(moves)
                    break
                await story.one_move(state)
                moves += 1
        if moves in restarts or rng.random() < 0.3:
            os.kill(redis_server.pid, signal.SIGKILL)
            await wait_until(lambda pid=redis_server.pid: not lives(pid), what="the server's end")
            redis_server.ensure_running()
        ledger = audit(eye)
        assert Counter(list(ledger.tasks)) == Counter(story.submitted)
        ended = [i for i, t in ledger.tasks.items() if t["status"] == TaskStatus.COMPLETED]
        assert Counter(ended) == Counter(story.finished)
    print(f"\n{moves} moves {dict(story.done)}: {len(story.submitted)} tasks, {len(story.finished)} finished")


@pytest.mark.chaos
async def test_f16_pausing_and_resuming_while_two_schedulers_are_restarted_keeps_every_task(
    redis_url: str, tmp_path: Path, eye: redis.Redis, rng: random.Random
):
    ports = (free_port(), free_port())
    submitted: list[str] = []
    with running_cluster(redis_url, tmp_path / "c", LCQ_LEASES__LEASE_S="30") as cluster:
        for port in ports:
            cluster.start_scheduler(str(port), port=port)
        endpoints = [f"tcp://127.0.0.1:{port}" for port in ports]
        addresses = ",".join(f"127.0.0.1:{port}" for port in ports)
        async with (
            AsyncClient(DistributedConfig(), scheduler=addresses, timeout_s=60) as client,
            light_nodes(2, endpoints, takes=True) as nodes,
        ):
            await wait_until(lambda: all(node.beats for node in nodes), timeout=60, what="both nodes")

            async def steer() -> None:
                while not restarted.is_set():
                    for act in (client.pause, client.resume):  # told again to the next one, it must not be refused
                        answer = await client.submit_many([a_task() for _ in range(rng.randint(1, 3))])
                        submitted.extend(one.id for one in answer.accepted)
                        await act(LIGHT)
                        acts.append(time.monotonic())
                    await asyncio.sleep(0.02)

            acts: list[float] = []
            restarted = asyncio.Event()
            steering = asyncio.create_task(steer())
            for port in ports:
                how = rng.choice([signal.SIGKILL, signal.SIGTERM])
                await asyncio.to_thread(cluster.kill, str(port), how)
                await asyncio.to_thread(cluster.start_scheduler, str(port), port=port)
            restarted.set()
            await steering
            records = await client.wait(submitted, timeout_s=60)
            assert Counter(record.id for record in records) == Counter(submitted)
            assert {record.status for record in records} == {TaskStatus.COMPLETED}
    assert Counter(list(audit(eye).tasks)) == Counter(submitted)
    longest_s = max(after - before for before, after in itertools.pairwise(acts))
    print(f"\n{len(submitted)} tasks, {len(acts)} pauses and resumes, the longest took {longest_s:.2f} s")

"""Makes changes in a cluster, so many a second, by the real scripts: tasks are submitted, claimed, finished.

    python -m benchmarks.changes REDIS_URL [--fill N] [--rate N] [--seconds S]

What the figures of ``benchmarks.console`` are measured beside. ``--fill``: first see to it that there are so many
tasks.
Prints one line of JSON: how many changes (events of tasks) were made, and in how many seconds.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import time
from collections import deque

from lcq.errors import StateUnavailable
from lcq.models import Task, TaskPriority
from lcq.state.manager import StateManager
from tests.nodes import LIGHT, NS, TELEA, Node, a_task

NODES = 8
TICK_S = 0.02
BEAT_S = 1.0
_AT_ONCE = 500
_RUNNING = 160  # attempts that are under way at a time
_PATIENCE = 20  # times in a row that the server may be late
_LATE_S = 0.5  # who is later than this does not try to catch up


def a_photo(number: int) -> Task:
    """One of many tasks that are not all alike."""
    return a_task(
        model=random.choice((TELEA, NS)),
        image_path=f"/photos/batch-{number // 1000:04d}/img_{number:07d}.jpg",
        user_id=f"studio-{number % 20:02d}",
        priority=random.choices(tuple(TaskPriority), (1, 6, 2, 1))[0],
    )


async def fill(state: StateManager, count: int) -> int:
    """See to it that the cluster has so many tasks; how many were added. On a busy machine a server may be late for
    once: it is waited for."""
    added, there, late = 0, -1, 0
    while True:
        try:
            if there < 0:
                there = (await state.reader.snapshot(limit=0)).total_tasks
            if there >= count:
                return added
            some = min(_AT_ONCE, count - there)
            await asyncio.gather(*(state.submit_task(a_photo(there + place), queue=LIGHT) for place in range(some)))
        except StateUnavailable:
            late += 1
            if late > _PATIENCE:
                raise
            await asyncio.sleep(5)
            there = -1
        else:
            added, there, late = added + some, there + some, 0


class Work:
    """Nodes that take tasks and finish them, and somebody who submits as many anew."""

    def __init__(self, state: StateManager) -> None:
        self._state = state
        self._nodes = [Node(state, f"bench-{place}", boot=str(time.time_ns())) for place in range(NODES)]
        self._running: deque[tuple[Node, str, int]] = deque()
        self._submitted = 0
        self.made = 0  # changes

    async def begin(self) -> None:
        for node in self._nodes:
            await node.hello()

    async def leave(self) -> None:
        """Finish what runs, and go."""
        await asyncio.gather(*(node.finish(task_id, attempt) for node, task_id, attempt in self._running))
        for node in self._nodes:
            await node.leave()

    async def run(self, rate: float, seconds: float) -> None:
        """Make ``rate`` changes a second, as far as the machine allows: a third each of submits, claims, finishes."""
        begun = time.monotonic()
        due = begun
        beat = 0.0
        owed, turn = 0.0, 0
        while (now := time.monotonic()) < begun + seconds:
            if now - due > _LATE_S:
                due = now
            owed += rate * TICK_S / 3
            count, owed = int(owed), owed - int(owed)
            turn += 1
            if count:
                await self._step(self._nodes[turn % NODES], count)
            if now - beat > BEAT_S:
                beat = now
                await asyncio.gather(*(self._beat(node) for node in self._nodes))
            due += TICK_S
            await asyncio.sleep(max(0.0, due - time.monotonic()))

    async def _step(self, node: Node, count: int) -> None:
        ending = [self._running.popleft() for _ in range(max(0, min(count, len(self._running) - _RUNNING)))]
        self._submitted += count
        grants, *_ = await asyncio.gather(
            node.claim(count, lease_ms=600_000),
            *(who.finish(task_id, attempt) for who, task_id, attempt in ending),
            *(self._state.submit_task(a_photo(self._submitted + place), queue=LIGHT) for place in range(count)),
        )
        self._running.extend((node, grant.task.id, grant.attempt) for grant in grants)
        self.made += len(ending) + count + len(grants)

    async def _beat(self, node: Node) -> None:
        await node.beat(*((task_id, attempt) for who, task_id, attempt in self._running if who is node))


async def run(url: str, count: int, rate: float, seconds: float) -> dict[str, object]:
    async with StateManager(url=url) as state:
        begun = time.monotonic()
        added = await fill(state, count)
        told: dict[str, object] = {"added": added, "added_in_s": round(time.monotonic() - begun, 1)}
        if rate and seconds:
            work = Work(state)
            await work.begin()
            begun = time.monotonic()
            await work.run(rate, seconds)
            told |= {"changes": work.made, "seconds": round(time.monotonic() - begun, 2)}
            await work.leave()
        return told


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("url", metavar="REDIS_URL")
    arguments.add_argument("--fill", type=int, default=0, metavar="N")
    arguments.add_argument("--rate", type=float, default=0, metavar="N")
    arguments.add_argument("--seconds", type=float, default=0, metavar="S")
    chosen = arguments.parse_args()
    print(json.dumps(asyncio.run(run(chosen.url, chosen.fill, chosen.rate, chosen.seconds))))


if __name__ == "__main__":
    main()

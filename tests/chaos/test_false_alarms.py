"""Hosts with far too much to do: beats come late, and nobody is declared lost for it.

Beats and leases are those of a default set-up. LCQ_STARVE_S=600 makes it ten minutes, LCQ_STARVE_LOOPS is how many
busy loops there are a core.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import quantiles

import pytest
import redis

from lcq.models import NodeStatus, TaskStatus
from tests.audit import audit
from tests.cluster import drill, running_cluster
from tests.conftest import wait_until_sync

STARVE_S = float(os.environ.get("LCQ_STARVE_S", "60"))
LOOPS = int(os.environ.get("LCQ_STARVE_LOOPS", "4"))
NODES = ("node-1", "node-2", "node-3")
DEFAULTS = {"LCQ_LEASES__BEAT_S": "3", "LCQ_LEASES__LEASE_S": "15", "LCQ_LEASES__LOST_AFTER_S": "1"}
_TASK_S = 0.5
_LOOK_S = 0.25

# Of each core that a loop runs on it gets three times the share of an ordinary process, where we may give it that.
_LOOP = """
import contextlib, os, sys, time
with contextlib.suppress(OSError):
    os.nice(-5)
until = time.monotonic() + float(sys.argv[1])
while time.monotonic() < until:
    pass
"""


@contextlib.contextmanager
def busy_loops(count: int, *, at_most_s: float) -> Iterator[None]:
    """So many processes that only want the processor; they end by themselves should nobody be left to end them."""
    loops = [subprocess.Popen([sys.executable, "-S", "-c", _LOOP, str(at_most_s)]) for _ in range(count)]
    try:
        yield
    finally:
        for loop in loops:
            loop.kill()
        for loop in loops:
            loop.wait()


@dataclass
class Silences:
    """The longest silence of each node between two looks, by Redis's clock."""

    eye: redis.Redis

    def look(self) -> list[float]:
        seconds, micros = self.eye.time()
        seen = [int(self.eye.hget(f"{{lcq}}:node:{node}", "seen_ms") or 0) for node in NODES]
        return [seconds + micros / 1e6 - one / 1000 for one in seen]


@pytest.mark.chaos
@pytest.mark.timeout(900 + 3 * STARVE_S)
def test_nobody_is_declared_lost_where_busy_loops_take_the_processors(redis_url: str, tmp_path: Path) -> None:
    cores = os.cpu_count() or 1
    with (
        running_cluster(redis_url, tmp_path / "c", **DEFAULTS) as cluster,
        redis.Redis.from_url(redis_url, decode_responses=True) as eye,
    ):
        cluster.start_scheduler()
        for name in NODES:
            cluster.start_agent(name, slots=1)
        with cluster.client() as client:
            begin = eye.xrevrange("{lcq}:events", count=1)[0][0]
            tasks = [drill("drill-sleep", seconds=_TASK_S) for _ in range(int(STARVE_S * len(NODES) / _TASK_S))]
            ids = [one.id for one in client.submit_many(tasks).accepted]
            silences, answers = Silences(eye), []
            longest = [0.0] * len(NODES)
            with busy_loops(LOOPS * cores, at_most_s=3 * STARVE_S + 60):
                until = time.monotonic() + STARVE_S
                while time.monotonic() < until:  # it is measured for so long: there is no condition to wait for
                    began = time.monotonic()
                    client.info()
                    answers.append(time.monotonic() - began)
                    longest = [max(pair) for pair in zip(longest, silences.look(), strict=True)]
                    time.sleep(_LOOK_S)
                load = os.getloadavg()[0]
            events = [fields for _, fields in eye.xrange("{lcq}:events", min=f"({begin}")]
            moves = Counter(fields["move"] for fields in events)
            done = moves["finish_task"]
            late = [longest[number] for number in range(len(NODES))]
            stood_still = cluster.log_path("scheduler").read_text().count("stood still")
            print(
                f"\n{LOOPS} busy loops on each of {cores} cores for {STARVE_S:g} s, load {load:.1f}: "
                f"{moves['suspect_node']} times suspect, {moves['lose_node']} times offline, "
                f"{moves['expire_leases']} leases run out; beats of 3 s, leases of 15 s\n"
                f"longest silences of {', '.join(f'{one:.2f}' for one in late)} s; {done} tasks done meanwhile; "
                f"the scheduler stood still {stood_still} times; it answered in {_p(answers, 50):.3f} s (P50), "
                f"{_p(answers, 99):.3f} s (P99)"
            )
            assert (moves["lose_node"], moves["expire_leases"]) == (0, 0)
            assert done, "they worked meanwhile"
            records = client.wait(ids, timeout_s=300)
            assert {(record.status, record.attempt) for record in records} == {(TaskStatus.COMPLETED, 1)}
            wait_until_sync(
                lambda: {node.status for node in client.nodes()} == {NodeStatus.ONLINE}, what="all are online"
            )
        cluster.stop()
        audit(eye)


def _p(values: list[float], percent: int) -> float:
    return quantiles(values, n=100)[percent - 1] if len(values) > 1 else max(values, default=0.0)

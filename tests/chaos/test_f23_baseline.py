"""F-23: what comes and goes leaves nothing behind: every key has a time to live or an owner, and bytes return."""

from __future__ import annotations

import asyncio
import random
import signal
import subprocess
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
import redis

from lcq.config import DistributedConfig
from tests.audit import CLASSES, EXPIRING, audit, class_of, read
from tests.cluster import Cluster, drill, running_cluster
from tests.conftest import wait_until
from tests.redis_rig import Server, running_server
from tui.cluster import Cluster as Console

# Who takes the keys of a class away. A class that stands in neither is one that grows for ever.
OWNERS = {
    "a task, forgotten when its retention is over": {
        "task:*", "attempts:*", "idem:*", "ids", "ix:*", "lane:*", "lanes", "waiting:*", "fair:*", "leases", "held:*",
        "delayed", "expiry", "job:*", "jobs", "causes", "aside:*", "paused", "walks", "labelled", "turn:*", "line:*",
        "band:*", "back:*", "over:*", "overs", "runs", "running", "backlog:*", "ends", "rank:*", "mine:*", "users:*",
    },
    "a node, forgotten after a day of silence": {"node:*", "nodes", "subs:*"},
    "the duty of counting what was used, which takes each task off it": {"unbilled"},
    "a queue, while it is paused": {"queue:*"},
    "the cluster: one key, with so many fields at most": {
        "counts", "totals", "failover", "schedulers", "listening", "format", "cluster", "acks", "upkeep",
        "access", "handshakes",
        "alerts", "silences", "notices",
    },
    "the cluster: one stream, capped": {"events", "acts"},
    "the cluster: so many keys at most, each of so many entries": {"costs", "cost:*", "memory:*"},
    "its time to live": {
        "minute:*", "answer:*", "undo:*", "undone:*", "done:*", "duty:*", "synced", "blame:*", "budget", "rate:*",
        "shared:*", "use:*", "interactive", "usage:*", "schedule:*", "spend:*", "spent_out",
        "warm_ups", "warmed:*",
        "condition:*", "call:*", "address:*", "lent:*",
    },
}  # fmt: skip


MOST_KEPT = 32  # of one client of Redis, as lcq/state/connection.py has it


def test_every_class_of_keys_has_one_owner():
    named = Counter(name for classes in OWNERS.values() for name in classes)
    assert set(named) == set(CLASSES)
    assert set(named.values()) == {1}
    assert {name.rstrip("*") for name in OWNERS["its time to live"]} == set(EXPIRING)


@dataclass(frozen=True)
class Footprint:
    """What one moment's Redis holds, without what expires by itself and without what the capped streams hold."""

    keys: frozenset[str]
    data_bytes: int
    connections: int  # of all but the scheduler, which keeps idle ones: as many as it once needed at the same time
    kept: int  # the scheduler's


def footprint(eye: redis.Redis, scheduler: subprocess.Popen[bytes]) -> Footprint:
    lasting = sorted(key for key in eye.scan_iter(count=1000) if eye.ttl(key) < 0)
    pipe = eye.pipeline(transaction=False)
    for key in lasting:
        pipe.memory_usage(key, samples=0)
    sizes = dict(zip(lasting, pipe.execute(), strict=True))
    data = sum(size or 0 for key, size in sizes.items() if key not in ("{lcq}:events", "{lcq}:acts"))
    ours = {f"{one.laddr.ip}:{one.laddr.port}" for one in psutil.Process(scheduler.pid).net_connections("tcp")}
    clients = eye.client_list()
    kept = sum(client["addr"] in ours for client in clients)
    return Footprint(frozenset(lasting), data, len(clients) - kept, kept)


async def attach_and_detach(config: DistributedConfig, rng: random.Random) -> None:
    """A console comes, looks around, perhaps steers, and goes, in order or in the middle of a question."""
    async with Console(config, scheduler=f"127.0.0.1:{config.zeromq.control_port}") as console:
        snapshot = await console.snapshot(1000)
        await console.nodes()
        match rng.randrange(4):
            case 0:
                asking = asyncio.create_task(console.events(snapshot.last_event_id, 5000, 100))
                await asyncio.sleep(rng.uniform(0, 0.02))
                asking.cancel()
                await asyncio.wait({asking})
            case 1:
                await console.pause("serverless", reason="because")
                await console.resume("serverless")


async def a_round(server: Server, cluster: Cluster, rng: random.Random, *, consoles: int, crashes: int) -> None:
    """Tasks of every fate, consoles that come and go, processes that die; then wait until all is forgotten."""
    config = cluster.config.model_copy(update={"redis": cluster.config.redis.model_copy(update={"url": server.url})})
    with cluster.client() as client:
        work = [
            drill("drill-sleep", seconds=rng.uniform(0, 0.05), n=n).model_copy(update={"job": f"job {n % 3}"})
            for n in range(20)
        ]
        work += [drill("drill-transient").model_copy(update={"max_retries": 0}) for _ in range(3)]
        answer = await asyncio.to_thread(client.submit_many, work)
        assert len(answer.accepted) == len(work), answer.refused
        (late,) = client.submit_many([drill("drill-sleep", seconds=60)]).accepted
        for number in range(consoles):
            await attach_and_detach(config, rng)
            if crashes and number % (consoles // crashes) == 0:
                victim = rng.choice(["node-1", "node-1", "scheduler"])
                cluster.kill(victim, signal.SIGKILL)
                if victim == "scheduler":
                    await asyncio.to_thread(cluster.start_scheduler)
                else:
                    await asyncio.to_thread(cluster.start_agent, "node-1")
        await asyncio.to_thread(client.cancel, late.id)
        await wait_until(lambda: not _remaining(client), timeout=90, what="every task has ended and is forgotten")


def _remaining(client) -> int:
    return client.page(limit=1).total


async def returns_to_baseline(tmp_path: Path, rng: random.Random, *, consoles: int, crashes: int) -> None:
    short = {"LCQ_RETENTION__COMPLETED_S": "0.5", "LCQ_RETENTION__FAILED_S": "0.5"}
    with (
        running_server(tmp_path / "redis") as server,
        running_cluster(server.url, tmp_path / "c", **short) as cluster,
        server.client() as eye,
    ):
        cluster.start_scheduler()
        cluster.start_agent("node-1")
        await a_round(server, cluster, rng, consoles=4, crashes=0)
        before = footprint(eye, cluster.processes["scheduler"])
        began = time.monotonic()
        await a_round(server, cluster, rng, consoles=consoles, crashes=crashes)
        told = audit(eye)

        def is_back() -> bool:
            nonlocal after
            after = footprint(eye, cluster.processes["scheduler"])
            return after.keys == before.keys and after.connections <= before.connections and after.kept <= MOST_KEPT

        after = before
        await wait_until(is_back, what=f"keys and connections as before: {before}")
        classes = {class_of(name) for name in read(eye).values}
    print(
        f"\n{consoles} consoles came and went, {crashes} crashes, {time.monotonic() - began:.1f} s: "
        f"keys {len(before.keys)} -> {len(after.keys)}, bytes {before.data_bytes} -> {after.data_bytes}, "
        f"connections {before.connections} -> {after.connections}, the scheduler's {before.kept} -> {after.kept}; "
        f"classes {sorted(map(str, classes))}"
    )
    assert not told.tasks
    assert after.data_bytes < before.data_bytes * 1.2 + 4096


@pytest.mark.chaos
async def test_consoles_that_come_and_go_and_crashes_leave_no_key_behind(tmp_path: Path, rng: random.Random):
    await returns_to_baseline(tmp_path, rng, consoles=20, crashes=2)


@pytest.mark.chaos
@pytest.mark.timeout(300)
async def test_a_thousand_consoles_and_ten_crashes_leave_no_key_behind(tmp_path: Path, rng: random.Random):
    await returns_to_baseline(tmp_path, rng, consoles=1000, crashes=10)

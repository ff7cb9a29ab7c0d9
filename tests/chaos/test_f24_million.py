"""F-24: a million tasks. No command holds Redis for long, nothing lists keys, and no script is made on the fly."""

from __future__ import annotations

import asyncio
import json
import os
import re
import time
from collections.abc import Awaitable, Callable
from importlib import resources
from itertools import islice
from pathlib import Path

import pytest
import redis

from lcq.config import DistributedConfig, LeaseConfig, RetentionConfig
from lcq.ids import new_id
from lcq.models import DeviceKind, TaskPriority, TaskStatus
from lcq.state.manager import StateManager
from lcq.state.scripts import Scripts, move_names
from lcq.wire import ListTasks
from tests.nodes import HEAVY, LIGHT, NS, TELEA, Node, a_task, the_cpu
from tests.redis_rig import Server, running_server

TASKS = int(os.environ.get("LCQ_TEST_MANY", "1000000"))
ALLOWED_MS = 50
_BATCH = 1000


# ---------------------------------------------------------------- what can be seen without a million


def test_no_script_and_no_reader_asks_for_keys_by_pattern():
    for module in ("lcq.state", "lcq", "tui", "worker"):
        for path in Path(str(resources.files(module))).rglob("*"):
            if path.suffix not in (".lua", ".py"):
                continue
            text = path.read_text(encoding="utf-8")
            assert not re.search(r"""["'](KEYS|SCAN|FLUSHALL|FLUSHDB)["']""", text), path
            assert not re.search(r"""\.(keys|scan|scan_iter|flushall|flushdb)\((?!\))""", text), path


async def test_the_scripts_are_the_same_few_whatever_they_are_called_with(tmp_path: Path):
    with running_server(tmp_path / "redis") as server:
        before = set(Scripts(DistributedConfig()).digests.values())
        async with StateManager(url=server.url) as state:
            node = Node(state)
            await node.hello()
            for n in range(20):
                task = a_task(user_id=f"user-{n}", job=f"job {n}")
                await state.submit_task(task, queue=LIGHT)
                await node.claim()
                await node.finish(task.id)
        with server.client() as eye:
            assert eye.script_exists(*before) == [True] * len(before)
            assert eye.info("memory")["number_of_cached_scripts"] == len(move_names())


# ---------------------------------------------------------------- a million


def load(server: Server, config: DistributedConfig, count: int) -> float:
    """Submit ``count`` tasks by the real script, in pipelines; how many a second were taken."""
    scripts = Scripts(config)
    digest = scripts.digests["submit_task"]
    task = a_task()
    told = json.loads(task.to_json())
    began = time.monotonic()
    with redis.Redis.from_url(server.url) as client:
        for text in scripts.texts.values():
            client.script_load(text)
        for start in range(0, count, _BATCH):
            pipe = client.pipeline(transaction=False)
            for n in range(start, min(start + _BATCH, count)):
                told["id"] = task_id = new_id()
                model = (TELEA, NS)[n % 2]
                pipe.evalsha(
                    digest, 1, "{lcq}", task_id, json.dumps(told), "digest", task_id, (LIGHT, HEAVY)[n % 3 == 0], "",
                    model, "normal", f"user-{n % 200}", f"job-{n % 5000}" if n % 4 else "", 3, 1.0, 0, task.image_path,
                    "", 0, model, 0,
                )  # fmt: skip
            pipe.execute()
    return count / (time.monotonic() - began)


class Steps:
    """What was done with so many tasks there, and how long each took its asker."""

    def __init__(self) -> None:
        self.told: list[str] = []

    async def __call__(self, name: str, what: Callable[[], Awaitable[object]], times: int = 1) -> None:
        began = time.monotonic()
        for _ in range(times):
            await what()
        self.told.append(f"{name}: {(time.monotonic() - began) / times * 1000:.1f} ms")


@pytest.mark.chaos
@pytest.mark.timeout(900)
async def test_a_million_tasks_make_no_command_slow(tmp_path: Path):
    config = DistributedConfig(
        retention=RetentionConfig(completed_s=0.001), leases=LeaseConfig(beat_s=0.01, lease_s=3600)
    )
    with running_server(tmp_path / "redis", slowlog_log_slower_than="5000", slowlog_max_len="2000") as server:
        rate = await asyncio.to_thread(load, server, config, TASKS)
        async with StateManager(config, url=server.url) as state:
            steps, reader = Steps(), state.reader
            node = Node(state)
            await state.register_node(
                node.id, boot=node.boot, capability=the_cpu(slots=64), serves={"cpu": [LIGHT, HEAVY]}
            )

            async def claim(lease_ms: int = 3_600_000) -> tuple[str, ...]:
                grants = await state.claim_tasks(
                    node=node.id, boot=node.boot, device="cpu", kind=DeviceKind.CPU, slots=64, lanes=(TELEA, NS),
                    queues=(LIGHT, HEAVY), warm=(NS,), lease_ms=lease_ms,
                )  # fmt: skip
                return tuple(grant.task.id for grant in grants)

            async def claim_and_finish() -> None:
                await asyncio.gather(*(node.finish(task_id) for task_id in await claim()))

            await steps("claim 64 and finish them", claim_and_finish, 20)
            for _ in range(6):
                await claim(1)
            await asyncio.sleep(0.01)
            await steps("expire 200 leases", state.expire_leases, 2)
            await steps("forget 200 tasks", state.forget_tasks, 6)
            await claim()
            await steps("lose a node with 64 attempts", lambda: node.lose())
            await node.hello()
            some = [record.id for record in (await reader.list_tasks(ListTasks(limit=200))).tasks]
            for number, task_id in enumerate(some[:60]):
                match number % 3:
                    case 0:
                        await steps("cancel", lambda: state.cancel_task(task_id))  # noqa: B023
                    case 1:
                        await steps(
                            "prioritise",
                            lambda: state.prioritise_task(task_id, priority=TaskPriority.URGENT),  # noqa: B023
                        )
                    case 2:
                        await steps("reroute", lambda: state.reroute_task(task_id, queue=HEAVY, node=node.id))  # noqa: B023
            del steps.told[-57:]
            queries: list[dict[str, object]] = [
                {}, {"status": TaskStatus.QUEUED}, {"queue": LIGHT}, {"job": "job-7"}, {"node": node.id},
                {"job": "job-7", "queue": LIGHT}, {"status": TaskStatus.QUEUED, "queue": HEAVY},
            ]  # fmt: skip
            for query in queries:
                await steps(f"list {query}", lambda: reader.list_tasks(ListTasks(limit=100, **query)))  # type: ignore[arg-type]  # noqa: B023
            await steps("find by prefix", lambda: reader.find(some[0][:15]))
            await steps("the fleet", reader.fleet, 5)
            await steps("jobs", reader.jobs, 3)
            await steps("a snapshot of 200,000", reader.snapshot)
            await steps("submit", lambda: state.submit_task(a_task(), queue=LIGHT), 50)
        with server.client() as eye:
            slow = [entry for entry in eye.slowlog_get(2000) if b"INFO" not in entry["command"]]
            slowest = sorted(slow, key=lambda entry: -entry["duration"])
            memory = eye.info("memory")
            count = eye.zcard("{lcq}:ids")
    print(f"\n{count:,} tasks, loaded at {rate:,.0f} a second, {memory['used_memory'] / 2**30:.2f} GiB; ", end="")
    print(f"{memory['number_of_cached_scripts']} scripts in {memory.get('used_memory_scripts', 0) / 1024:.0f} KiB")
    print(*steps.told, sep="\n")
    print(f"{len(slow)} commands over 5 ms; the slowest:")
    for entry in islice(slowest, 5):
        print(f"  {entry['duration'] / 1000:.1f} ms {entry['command'][:100]!r}")
    assert memory["number_of_cached_scripts"] == len(move_names())
    # A machine that is busy with other things counts here too: the promise is for one that is not.
    over = [entry for entry in slow if entry["duration"] > 3 * ALLOWED_MS * 1000]
    assert not over, over

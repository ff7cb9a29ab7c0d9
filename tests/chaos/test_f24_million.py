"""F-24: a million tasks. No command holds Redis for long, nothing lists keys, and no script is made on the fly."""

from __future__ import annotations

import asyncio
import os
import re
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from importlib import resources
from pathlib import Path

import pytest
import redis

from lcq.config import DistributedConfig, LeaseConfig, RetentionConfig
from lcq.models import DeviceKind, TaskPriority, TaskStatus
from lcq.state.manager import StateManager
from lcq.state.records import digest_of
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
            if path.name in ("vacate.py", "copies.py"):
                continue  # a backup reads all there is, a little at a time; what a restore empties is at rest
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
    began = time.monotonic()
    with redis.Redis.from_url(server.url) as client:
        for text in scripts.texts.values():
            client.script_load(text)
        for start in range(0, count, _BATCH):
            pipe = client.pipeline(transaction=False)
            for n in range(start, min(start + _BATCH, count)):
                model, user, job = (TELEA, NS)[n % 2], f"user-{n % 200}", f"job-{n % 5000}" if n % 4 else ""
                task = a_task(config={"model": model}, user_id=user, job=job or None)
                told = task.to_json()
                pipe.evalsha(
                    digest, 1, "{lcq}", task.id, told, digest_of(told), task.id, (LIGHT, HEAVY)[n % 3 == 0], "",
                    model, "normal", user, job, 3, 1.0, 0, task.image_path,
                    "", 0, model, 0, 1.0, 0, 0, 0, "", "", "", 0, "",
                )  # fmt: skip
            pipe.execute()
    return count / (time.monotonic() - began)


class Steps:
    """What was done with so many tasks there: how long each took its asker, and what it cost the server.

    The slowlog counts the time for which a busy machine let the server wait, too. So a command counts as slow only
    where the processor time of the whole step, had it all gone into commands of its kind, allows that they were, and
    where more than a tenth of them did.
    """

    def __init__(self, server: Server) -> None:
        assert server.process is not None
        self._clock = Path(f"/proc/{server.process.pid}/task/{server.process.pid}/schedstat")
        self._eye = server.client(patience_s=30)
        self.told: list[str] = []
        self.slow: list[str] = []

    def _cpu_ms(self) -> float:
        return int(self._clock.read_text().split()[0]) / 1e6

    def _calls(self) -> Counter[str]:
        """By command; those of several words ("slowlog|get") by the first, as the slowlog has them."""
        calls: Counter[str] = Counter()
        for name, told in self._eye.info("commandstats").items():
            calls[name.removeprefix("cmdstat_").partition("|")[0]] += int(told["calls"])
        return calls

    async def __call__(self, name: str, what: Callable[[], Awaitable[object]], times: int = 1) -> None:
        self._eye.slowlog_reset()
        calls, cpu_ms, began = self._calls(), self._cpu_ms(), time.monotonic()
        for _ in range(times):
            await what()
        took_ms = (time.monotonic() - began) * 1000 / times
        cpu_ms = (self._cpu_ms() - cpu_ms) / times
        calls = self._calls() - calls
        long = [entry for entry in self._eye.slowlog_get(2000) if entry["duration"] > ALLOWED_MS * 1000]
        over = Counter(entry["command"].split(b" ")[0].decode().lower() for entry in long)
        for kind, n in over.items():
            is_often = n > calls[kind] / 10 and kind not in ("info", "slowlog", "xread")  # our own looks; what waits
            if is_often and cpu_ms * times / calls[kind] > ALLOWED_MS:
                self.slow.append(f"{name}: {kind} {n} of {calls[kind]}")
        self.told.append(f"{name}: {took_ms:.1f} ms, of the server's processor {cpu_ms:.2f} ms")

    def close(self) -> None:
        self._eye.close()


@pytest.mark.chaos
@pytest.mark.timeout(1500)
async def test_a_million_tasks_make_no_command_slow(tmp_path: Path):
    config = DistributedConfig(
        retention=RetentionConfig(completed_s=0.001), leases=LeaseConfig(beat_s=0.01, lease_s=3600)
    )
    with running_server(tmp_path / "redis", slowlog_log_slower_than="5000", slowlog_max_len="2000") as server:
        steps = Steps(server)
        rate = 0.0

        async def load_all() -> None:
            nonlocal rate
            rate = await asyncio.to_thread(load, server, config, TASKS)

        await steps("load them", load_all)
        async with StateManager(config, url=server.url) as state:
            reader = state.reader
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
            for _ in range(18):
                await claim(1)
            await asyncio.sleep(0.01)
            await steps("expire 1,152 leases", state.expire_leases)
            await steps("forget 1,280 tasks", state.forget_tasks)

            async def claim_and_lose() -> None:
                await node.hello()
                await claim()
                await node.lose()

            await steps("claim 64 and lose the node", claim_and_lose, 5)
            await node.hello()
            some = [record.id for record in (await reader.list_tasks(ListTasks(limit=200))).tasks]
            ids = iter(some)
            await steps("cancel", lambda: state.cancel_task(next(ids)), 20)
            await steps("prioritise", lambda: state.prioritise_task(next(ids), priority=TaskPriority.URGENT), 20)
            await steps("reroute", lambda: state.reroute_task(next(ids), queue=HEAVY, node=node.id), 20)
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
        steps.close()
        with server.client() as eye:
            memory = eye.info("memory")
            count = eye.zcard("{lcq}:ids")
    print(f"\n{count:,} tasks, loaded at {rate:,.0f} a second, {memory['used_memory'] / 2**30:.2f} GiB; ", end="")
    print(f"{memory['number_of_cached_scripts']} scripts in {memory.get('used_memory_scripts', 0) / 1024:.0f} KiB")
    print(*steps.told, sep="\n")
    assert memory["number_of_cached_scripts"] == len(move_names())
    assert not steps.slow

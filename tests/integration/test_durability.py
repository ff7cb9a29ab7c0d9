"""redis.durability: fsync. A submit or a result is accepted when Redis's log is on the disk, and not before."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from lcq.config import DistributedConfig
from lcq.errors import StateUnavailable, UnsafeState
from lcq.state.manager import StateManager
from tests.nodes import LIGHT, Node, a_task
from tests.redis_rig import Server, running_server


@asynccontextmanager
async def state_on(server: Server, **redis: str) -> AsyncIterator[StateManager]:
    config = DistributedConfig(redis={"durability": "fsync", **redis})  # type: ignore[arg-type]
    async with StateManager(config, url=server.url) as state:
        yield state


async def test_a_submit_is_not_accepted_while_the_log_does_not_reach_the_disk(tmp_path: Path, monkeypatch):
    monkeypatch.setattr("lcq.state.disk_log._SYNC_MS", 500)
    with running_server(tmp_path / "redis", appendfsync="no") as server:
        async with state_on(server) as state:
            task = a_task()
            with pytest.raises(StateUnavailable, match=r"did not reach the disk within 0\.5 s.*appendfsync"):
                await state.submit_task(task, queue=LIGHT)
            with pytest.raises(StateUnavailable, match="did not reach the disk"):  # asked again: known, still not safe
                await state.submit_task(task, queue=LIGHT)
            server.ask("CONFIG", "SET", "appendfsync", "everysec")
            monkeypatch.setattr("lcq.state.disk_log._SYNC_MS", 5000)
            assert (await state.submit_task(task, queue=LIGHT)).duplicate, "the same task, now accepted"


async def test_a_result_is_not_settled_while_the_log_does_not_reach_the_disk(tmp_path: Path, monkeypatch):
    monkeypatch.setattr("lcq.state.disk_log._SYNC_MS", 500)
    with running_server(tmp_path / "redis", appendfsync="always") as server:
        async with state_on(server) as state:
            node = Node(state)
            await node.hello()
            await state.submit_task(a_task(), queue=LIGHT)
            (grant,) = await node.claim()
            server.ask("CONFIG", "SET", "appendfsync", "no")
            with pytest.raises(StateUnavailable, match="did not reach the disk"):
                await node.finish(grant.task.id)
            server.ask("CONFIG", "SET", "appendfsync", "always")
            monkeypatch.setattr("lcq.state.disk_log._SYNC_MS", 5000)
            await node.finish(grant.task.id)  # told again, it is settled


async def test_a_server_that_cannot_wait_has_to_sync_always(tmp_path: Path):
    with running_server(tmp_path / "redis", rename_command='WAITAOF ""') as server:
        with pytest.raises(UnsafeState, match=r"appendfsync is everysec.*appendfsync always"):
            async with state_on(server):
                pass
        server.ask("CONFIG", "SET", "appendfsync", "always")
        async with state_on(server) as state:
            await state.submit_task(a_task(), queue=LIGHT)


@pytest.mark.chaos
async def test_what_durability_costs(tmp_path: Path):
    told = []
    for name, policy in (("everysec", "everysec"), ("fsync", "everysec"), ("fsync", "always")):
        with running_server(tmp_path / f"{name}-{policy}", appendfsync=policy) as server:
            async with state_on(server, durability=name) as state:
                began = time.monotonic()
                await asyncio.gather(*(state.submit_task(a_task(), queue=LIGHT) for _ in range(1000)))
                many_s = time.monotonic() - began
                began = time.monotonic()
                for _ in range(3):
                    await state.submit_task(a_task(), queue=LIGHT)
                one_ms = (time.monotonic() - began) / 3 * 1000
                told.append(f"durability {name}, appendfsync {policy}: {1000 / many_s:,.0f} submits/s asked for at "
                            f"once, {one_ms:.1f} ms for one alone")  # fmt: skip
    print("", *told, sep="\n")

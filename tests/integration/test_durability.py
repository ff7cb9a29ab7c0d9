"""redis.durability. A submit or a result is accepted when neither Redis's death nor, with fsync, the power takes it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from lcq.config import DistributedConfig
from lcq.errors import StateUnavailable, UnsafeState
from lcq.models import TaskStatus
from lcq.state.disk_log import Unwritten
from lcq.state.manager import StateManager
from tests.conftest import wait_until
from tests.nodes import LIGHT, Node, a_task
from tests.redis_rig import Server, running_server
from tests.slow_disk import SlowDisk


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


async def syncing(server: Server, state: StateManager) -> None:
    """Return when Redis is syncing its log: from then on it answers what it has not written."""

    async def is_syncing() -> bool:
        await state.submit_task(a_task(), queue=LIGHT)
        with server.client() as client:
            return bool(client.info("persistence")["aof_pending_bio_fsync"])

    await wait_until(is_syncing, what="a sync of Redis's log")


async def test_what_was_accepted_while_redis_synced_its_log_is_there_after_its_death(tmp_path: Path):
    disk = SlowDisk(tmp_path / "disk")
    with running_server(tmp_path / "redis", environment=disk.environment) as server:
        async with StateManager(url=server.url) as state:
            node = Node(state)
            await node.hello()
            finished, submitted, cancelled = a_task(), a_task(), a_task()
            await state.submit_task(finished, queue=LIGHT)
            (grant,) = await node.claim()
            await state.submit_task(cancelled, queue=LIGHT)
            with disk.slow():
                await syncing(server, state)
                await asyncio.gather(
                    state.submit_task(submitted, queue=LIGHT),
                    node.finish(grant.task.id),
                    state.cancel_task(cancelled.id, command="an act"),
                )
                server.kill()
        server.start()
        async with StateManager(url=server.url) as state:
            statuses = [(await state.reader.task(one.id)).status for one in (submitted, finished, cancelled)]
            assert statuses == [TaskStatus.QUEUED, TaskStatus.COMPLETED, TaskStatus.CANCELLED]


async def test_a_submit_is_not_accepted_while_the_log_is_not_written(tmp_path: Path, monkeypatch):
    disk = SlowDisk(tmp_path / "disk")
    with running_server(tmp_path / "redis", environment=disk.environment) as server:
        async with StateManager(url=server.url) as state:
            with disk.slow():
                await syncing(server, state)
                monkeypatch.setattr("lcq.state.disk_log._SYNC_MS", 200)  # Redis writes after two seconds, synced or not
                with pytest.raises(StateUnavailable, match=r"its log was not written within 0\.2 s .*: ok\)"):
                    await state.submit_task(a_task(), queue=LIGHT)
            monkeypatch.setattr("lcq.state.disk_log._SYNC_MS", 5000)
            await state.submit_task(a_task(), queue=LIGHT)


def test_what_was_answered_is_written_when_redis_has_nothing_left_syncs_nothing_or_has_written_as_much():
    def told(waiting: int, size: int, **more: object) -> dict[str, object]:
        return {"aof_enabled": 1, "aof_buffer_length": waiting, "aof_current_size": size, "aof_pending_bio_fsync": 1,
                "aof_rewrite_in_progress": 0, "aof_last_write_status": "ok"} | more  # fmt: skip

    assert Unwritten().is_written({"aof_enabled": 0})
    assert Unwritten().is_written(told(0, 100))
    assert Unwritten().is_written(told(20, 100, aof_pending_bio_fsync=0))
    for more in ({"aof_rewrite_in_progress": 1}, {"aof_last_write_status": "err"}):
        assert not Unwritten().is_written(told(20, 100, aof_pending_bio_fsync=0, **more))
    busy = Unwritten()
    looks = [(20, 100), (30, 100), (30, 119), (40, 120)]  # others write all the while
    assert [busy.is_written(told(*look)) for look in looks] == [False, False, False, True]
    rewritten = Unwritten()
    looks = [(20, 100), (25, 60), (30, 84), (30, 85)]  # a log that was made anew is shorter
    assert [rewritten.is_written(told(*look)) for look in looks] == [False, False, False, True]


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

"""Tasks go into the archive before they are forgotten, whoever dies between the two; backups by themselves."""

from __future__ import annotations

from pathlib import Path

import redis

from lcq.archive import Archive
from lcq.archivist import Archivist
from lcq.backup import kept_backups
from lcq.backups import Backups
from lcq.component import Ground
from lcq.config import ArchiveConfig, BackupConfig, DistributedConfig, RetryConfig
from lcq.desk import Site
from lcq.errors import LcqError
from lcq.state.manager import StateManager
from lcq.storage.opening import store_of
from tests.audit import audit
from tests.conftest import wait_until
from tests.nodes import LIGHT, Node, a_task


def config_with(**changes: object) -> DistributedConfig:
    return DistributedConfig(retries=RetryConfig(base_s=3600, max_s=3600)).model_copy(update=changes)


async def ended(state: StateManager, eye: redis.Redis, count: int = 3, *, overdue: bool = True) -> list[str]:
    """So many tasks whose retention is over."""
    node = Node(state)
    await node.hello()
    found = []
    for _ in range(count):
        task = (await state.submit_task(a_task(user_id="ann"), queue=LIGHT)).id
        await node.claim()
        await node.finish(task, 1)
        eye.zadd("{lcq}:expiry", {task: 1 if overdue else (await state.now_ms()) - 5000})
        found.append(task)
    return found


async def test_a_task_is_forgotten_once_it_is_in_the_archive_and_is_there_once(
    redis_url: str, eye: redis.Redis, tmp_path: Path
):
    config = config_with(archive=ArchiveConfig(folder=tmp_path / "archive"))
    async with StateManager(config, url=redis_url) as state:
        found = await ended(state, eye)
        copied = await state.copy_expired(10)
        assert sorted(task.id for task in copied) == sorted(found)
        archive = Archive(tmp_path / "archive")
        archivist = Archivist(Ground(state, Site(state)))
        forget = state.forget_archived

        async def dies(revisions: object) -> int:
            raise LcqError("the scheduler died between the archive and the deletion")

        state.forget_archived = dies  # type: ignore[method-assign,assignment]
        try:
            await archivist.work()
        except LcqError:
            pass
        assert sorted(row["id"] for row in archive.rows()) == sorted(found)
        assert sum((await state.reader.counts()).values()) == 3
        state.forget_archived = forget  # type: ignore[method-assign]
        eye.zadd("{lcq}:expiry", {found[0]: 1})
        await state.retry_task(found[0], queue=LIGHT)  # an operator wants it: it is not forgotten
        assert await archivist.work() == 2
        assert set(audit(eye).tasks) == {found[0]}
        assert sorted(row["id"] for row in archive.rows()) == sorted(found)
        assert next(iter(archive.rows()))["user"] == "ann"


async def test_what_cannot_be_archived_stays_and_says_so_and_goes_after_all_when_that_took_too_long(
    redis_url: str, eye: redis.Redis, tmp_path: Path
):
    (tmp_path / "archive").touch()  # no folder
    config = config_with(archive=ArchiveConfig(folder=tmp_path / "archive", hold_hours=1))
    async with StateManager(config, url=redis_url) as state:
        (long_ago,) = await ended(state, eye, 1)
        (lately,) = await ended(state, eye, 1, overdue=False)
        async with Archivist(Ground(state, Site(state))):

            async def is_said() -> bool:
                return "archive" in (await state.reader.upkeep()).get("archive", {}).get("error", "")

            async def is_gone() -> bool:
                return set(eye.hkeys(f"{{lcq}}:task:{long_ago}")) == set()

            await wait_until(is_said)
            await wait_until(is_gone)
        assert eye.exists(f"{{lcq}}:task:{lately}")
        (tmp_path / "archive").unlink()
        archivist = Archivist(Ground(state, Site(state)))
        assert await archivist.work() == 1
        assert [row["id"] for row in Archive(tmp_path / "archive").rows()] == [lately]
        audit(eye)


async def test_backups_are_made_by_the_settings_and_the_oldest_go(redis_url: str, eye: redis.Redis, tmp_path: Path):
    folder = tmp_path / "backups"
    config = config_with(backup=BackupConfig(every_hours=1, keep=2, folder=folder), data_dir=tmp_path)
    folder.mkdir()
    for day in (1, 2, 3):
        (folder / f"lcq-2026110{day}-000000.lcq").touch()
    (folder / "lcq-mine.lcq").touch()
    async with StateManager(config, url=redis_url) as state:
        await ended(state, eye, 1, overdue=False)
        async with Backups(Ground(state, Site(state)), store_of(config), tick_s=0.05):

            async def is_told() -> int:
                return int((await state.reader.upkeep()).get("backup", {}).get("made_ms", 0))

            made_ms = await wait_until(is_told)
        names = [path.name for path in kept_backups(folder)]
        assert len(names) == 2
        assert names[0] == "lcq-20261103-000000.lcq"
        assert (folder / "lcq-mine.lcq").exists()
        assert (await state.reader.upkeep())["backup"]["made_ms"] == made_ms, "and no other for an hour"

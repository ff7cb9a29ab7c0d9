"""A scheduler's timed duty: a backup every so often, the oldest of too many away."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

from lcq.backup import Made, backup_name, drop_oldest, make_backup
from lcq.backup_file import verified
from lcq.component import Complaints, Duty, Ground, Lives
from lcq.config import DistributedConfig
from lcq.errors import BackupFailed, LcqError, StateUnavailable
from lcq.storage.blobs import BlobStore

_log = logging.getLogger(__name__)

_TICK_S = 5.0
_AGAIN_S = 600.0  # after one that failed


def backup_folder(config: DistributedConfig) -> Path:
    """Where schedulers with these settings keep their backups."""
    return config.backup.folder or config.data_path / "backups"


class Backups(Lives):
    """``async with Backups(ground, store)``: makes backups while it is open, if ``backup.every_hours`` is set.

    ``store``: the cluster's blobs.
    """

    def __init__(self, ground: Ground, store: BlobStore, *, tick_s: float = _TICK_S) -> None:
        super().__init__(ground)
        self._store, self._tick_s = store, tick_s
        self._duty = Duty(ground, "backup")

    def lives(self) -> tuple[tuple[str, Coroutine[Any, Any, None]], ...]:
        return (("backups", self._keep()),)

    async def _keep(self) -> None:
        complaints = Complaints("the backup")
        while True:
            await asyncio.sleep(self._tick_s * random.uniform(0.8, 1.2))
            if self._state.config.backup.every_hours is None:
                continue
            try:
                if await self._is_due():
                    async with self._duty.held():
                        await self.make()
            except StateUnavailable:
                continue  # the feed has said so
            except LcqError as refusal:
                complaints.say(refusal)
                with contextlib.suppress(LcqError):
                    await self._state.note_upkeep("backup", error=str(refusal))
                await asyncio.sleep(_AGAIN_S * random.uniform(0.8, 1.0))

    async def _is_due(self) -> bool:
        """Whether it is time, and ours to do it."""
        every_ms = (self._state.config.backup.every_hours or 0) * 3_600_000
        last = (await self._state.reader.upkeep()).get("backup", {}).get("made_ms", 0)
        if await self._state.now_ms() < last + every_ms:
            return False
        return await self._duty.is_ours()

    async def make(self) -> Made:
        """Make one now, read it whole, and drop the oldest of too many.

        Raises:
            BackupFailed, DiskFull, BackupUnusable, StateUnavailable, StorageUnreachable.
        """
        config = self._state.config
        folder = backup_folder(config)
        try:
            await asyncio.to_thread(folder.mkdir, mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise BackupFailed(f"{folder} cannot be made: {error.strerror}", hint="see backup.folder") from error
        path = folder / backup_name(await self._state.now_ms())
        made = await make_backup(self._state, path, store=self._store if config.backup.blobs else None)
        await asyncio.to_thread(verified, path)
        gone = await asyncio.to_thread(drop_oldest, folder, config.backup.keep)
        await self._state.note_upkeep(
            "backup", made_ms=made.at_ms, file=str(path), tasks=made.tasks, bytes=made.size_bytes
        )
        told = (path, made.tasks, made.size_bytes, made.seconds, gone)
        _log.info("backup %s: %d tasks, %d bytes, %.1f s; %d old ones removed", *told)
        return made

"""The archivist of a scheduler: brings tasks whose retention is over into the archive, and only then lets them go."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import random
import time
from collections.abc import Coroutine
from typing import Any

from lcq.archive import Archive, Row, row_of
from lcq.component import Complaints, Duty, Ground, Lives
from lcq.errors import LcqError, StateUnavailable
from lcq.state import records
from lcq.state.moves.copies import CopiedTask
from lcq.usage import today_of

_log = logging.getLogger(__name__)

_TICK_S = 0.5
_PAGE = 200
_BATCHES = 25
_AGAIN_S = 15.0  # after a failure
_SEAL_S = 900.0


class Archivist(Lives):
    """``async with Archivist(ground)``: does its duty as long as the block is open, where ``archive.folder`` is set."""

    def __init__(self, ground: Ground) -> None:
        super().__init__(ground)
        self._duty = Duty(ground, "archive")
        self._sealed_at = -_SEAL_S
        self._failing: str | None = None  # what was told last; None: nothing yet

    def lives(self) -> tuple[tuple[str, Coroutine[Any, Any, None]], ...]:
        return (("archive", self._keep()),)

    async def _keep(self) -> None:
        complaints = Complaints("the archive")
        while True:
            await asyncio.sleep(_TICK_S * random.uniform(0.8, 1.2))
            if self._state.config.archive.folder is None:
                continue
            try:
                if not await self._duty.is_ours():
                    continue
                await self.work()
                await self._tell("")
            except StateUnavailable:
                continue  # the feed has said so
            except LcqError as refusal:
                complaints.say(refusal)
                with contextlib.suppress(LcqError):
                    await self._tell(str(refusal))
                    await self._let_go_of_the_oldest()
                await asyncio.sleep(_AGAIN_S)

    async def work(self) -> int:
        """Archive what is to be forgotten, and forget it; answers how many tasks that were.

        Raises:
            DiskFull, ArchiveUnusable: those that are not in the archive stay in Redis. StateUnavailable.
        """
        config = self._state.config.archive
        if config.folder is None:
            return 0
        archive, done = Archive(config.folder), 0
        for _ in range(_BATCHES):
            tasks = await self._state.copy_expired(_PAGE)
            now_ms = await self._state.now_ms()
            rows = [row for task in tasks if (row := _row(task, now_ms)) is not None]
            await asyncio.to_thread(archive.add, rows, today_of(now_ms))
            # What could not be read has no row: the move that forgets it looks at it, and isolates it.
            gone = {task.id: int(_field(task, "rev", "0") or 0) for task in tasks}
            done += await self._state.forget_archived(gone)
            if len(tasks) < _PAGE:
                break
        if time.monotonic() - self._sealed_at > _SEAL_S:
            today = today_of(await self._state.now_ms())
            await asyncio.to_thread(archive.seal, today, config.format)
            self._sealed_at = time.monotonic()
        return done

    async def _let_go_of_the_oldest(self) -> None:
        """Redis must not fill up for ever: what could not be archived for too long is forgotten without it."""
        hold_ms = int(self._state.config.archive.hold_hours * 3_600_000)
        lost = await self._state.forget_tasks(overdue_ms=hold_ms)
        if lost:
            _log.error("%d tasks were forgotten without having been archived: that failed for too long", lost)

    async def _tell(self, error: str) -> None:
        """Have it in Redis, where commands and consoles see it, whether the archive takes things in."""
        if error != self._failing:
            await self._state.note_upkeep("archive", error=error)
            self._failing = error


def _field(task: CopiedTask, name: str, otherwise: str) -> str:
    return dict(zip(task.fields[::2], task.fields[1::2], strict=True)).get(name, otherwise)


def _row(task: CopiedTask, now_ms: int) -> Row | None:
    fields = dict(zip(task.fields[::2], task.fields[1::2], strict=True))
    if not fields:
        return None
    try:
        record = records.task_record(fields)
    except (ValueError, KeyError, TypeError, AttributeError):
        return {"id": task.id, "revision": fields.get("rev"), "message": "damaged", "task": json.dumps(fields)}
    attempts = [records.attempt(text, number) for number, text in enumerate(task.attempts, 1)]
    return row_of(record, attempts, now_ms)

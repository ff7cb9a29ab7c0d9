"""Asks the scheduler why the tasks in sight wait, beside the feed: neither it nor the screen ever waits for that."""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections.abc import Callable, Iterable, Mapping
from itertools import islice
from typing import TYPE_CHECKING

from pydantic import ValidationError

from lcq.errors import LcqError, UnknownCommand
from lcq.lang import tr
from lcq.reasons import brief
from tui.source import Commander, Link
from tui.store import Store
from tui.text import ELLIPSIS, clean

if TYPE_CHECKING:
    from lcq.wire import WhyAnswer

ASK_S = 1.0
"""So often while anything happens: with what the scheduler itself may keep, no reason on the screen is older than about
two seconds then."""
CALM_S = 3.0
"""So often while nothing does, and nothing else is in sight."""
SOON_S = 0.25
"""Who has just come to other tasks need not wait longer than this."""
ANSWER_S = 3.0
SLOW_S = 0.3
"""Where an answer takes longer, that it is asked stands in its place: not before, or it would flicker."""
_OLDER_S = 30.0  # until a scheduler that does not know the question is asked again: it may have been upgraded


class Asker:
    """Keeps the reasons of the waiting tasks on the screen fresh. What is not told again is soon not shown any more."""

    def __init__(self, commander: Commander, store: Store, link: Link, *, waiting: Callable[[], Iterable[str]]) -> None:
        """``waiting``: the ids of the tasks in sight that wait."""
        self._commander, self._store, self._link, self._waiting = commander, store, link, waiting
        self._woken = asyncio.Event()
        self._by_hand = False  # somebody has come to other tasks
        self._asked: dict[str, int] = {}  # the tasks of the last question, and their revisions then
        self._heard = -1  # what the store had heard by then
        self._asked_at = -math.inf

    def look(self, *, by_hand: bool = False) -> None:
        """Take note that other tasks may be in sight, or other news of them; ``by_hand``: an operator went there."""
        if self._heard != self._store.heard or self._has_others(self._waiting()):
            self._by_hand |= by_hand
            self._woken.set()

    def _in_order(self) -> list[str]:
        """The tasks in sight that wait, those first of which nothing was told: the time may not do for all of them."""
        return sorted(dict.fromkeys(self._waiting()), key=lambda task_id: not self._has_others([task_id]))

    def _has_others(self, ids: Iterable[str]) -> bool:
        """Whether of one of these, as it is now, nobody has asked."""
        rows = self._store.tasks.rows
        return any(task_id in rows and self._asked.get(task_id) != rows[task_id].revision for task_id in ids)

    async def run(self) -> None:
        """Ask until cancelled."""
        from lcq.wire import MOST_WHYS  # here: no answer of a scheduler is needed for the first frame

        while True:
            ids = list(islice(self._in_order(), MOST_WHYS))
            left_s = self._asked_at + self._pause_s(ids) - time.monotonic()
            if ids and left_s <= 0:
                await self._ask(ids)
                continue
            if not ids:
                self._asked = {}
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(left_s if ids else None):
                    await self._woken.wait()
            self._woken.clear()

    def _pause_s(self, ids: Iterable[str]) -> float:
        """How long after the last question the next one is due."""
        is_other = self._has_others(ids)
        if is_other and self._by_hand:
            return SOON_S
        return ASK_S if is_other or self._heard != self._store.heard else CALM_S

    async def _ask(self, ids: list[str]) -> None:
        rows = self._store.tasks.rows
        self._asked = {task_id: rows[task_id].revision for task_id in ids if task_id in rows}
        self._heard, self._asked_at, self._by_hand = self._store.heard, time.monotonic(), False
        try:
            told = await self._answer(ids)
        except UnknownCommand:
            await asyncio.sleep(_OLDER_S)
        except (LcqError, OSError, TimeoutError, ValidationError):
            self._store.note_others()  # the feed says why; the records' own lines are shown when the reasons are old
        else:
            now = self._link.now_ms
            self._store.tell(
                (
                    (task_id, one.revision, clean(one.why.text), clean(brief(one.why, now)))
                    for task_id, one in told.items()
                ),
                now,
            )
            for task_id in [task_id for task_id in ids if task_id not in told]:  # that would have taken too long
                self._asked.pop(task_id, None)

    async def _answer(self, ids: list[str]) -> Mapping[str, WhyAnswer]:
        slow = asyncio.get_running_loop().call_later(SLOW_S, self._mark, ids)
        try:
            async with asyncio.timeout(ANSWER_S):
                return await self._commander.whys(ids)
        finally:
            slow.cancel()

    def _mark(self, ids: Iterable[str]) -> None:
        """Say of those of which nothing is known that it is asked."""
        rows = [row for one in ids if (row := self._store.tasks.rows.get(one)) is not None]
        blank = [
            (row.id, row.revision, tr("the scheduler is asked …"), ELLIPSIS)
            for row in rows
            if not (row.why or row.error) and (row.told is None or row.told.short == ELLIPSIS)
        ]
        self._store.tell(blank, self._link.now_ms)

"""Asks the scheduler why the tasks in sight wait, beside the feed: neither it nor the screen ever waits for that."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from itertools import islice

from pydantic import ValidationError

from lcq.errors import LcqError, UnknownCommand
from lcq.reasons import brief
from tui.source import Commander, Link
from tui.store import Store
from tui.text import clean

ASK_S = 1.0
"""So often; with what the scheduler itself may keep, no reason on the screen is older than about two seconds: three
where it has just been told that nothing is different, for then every other question is left out."""
ANSWER_S = 3.0
_OLDER_S = 30.0  # until a scheduler that does not know the question is asked again: it may have been upgraded


class Asker:
    """Keeps the reasons of the waiting tasks on the screen fresh. What is not told again is soon not shown any more."""

    def __init__(self, commander: Commander, store: Store, link: Link, *, waiting: Callable[[], Iterable[str]]) -> None:
        """``waiting``: the ids of the tasks in sight that wait."""
        self._commander, self._store, self._link, self._waiting = commander, store, link, waiting

    async def run(self) -> None:
        """Ask until cancelled."""
        from lcq.wire import MOST_WHYS  # here: no answer of a scheduler is needed for the first frame

        before: object = None
        asked: list[str] = []
        is_calm = False  # the last two answers said the same
        while True:
            pause_s = ASK_S
            ids = list(islice(dict.fromkeys(self._waiting()), MOST_WHYS))
            if is_calm and ids == asked:
                is_calm = False
            elif ids:
                asked = ids
                try:
                    async with asyncio.timeout(ANSWER_S):
                        told = await self._commander.whys(ids)
                except UnknownCommand:
                    pause_s = _OLDER_S
                except (LcqError, OSError, TimeoutError, ValidationError):
                    pass  # nobody answers: the feed says so, and the records' own lines are shown
                else:
                    now = self._link.now_ms
                    before, is_calm = told, told == before
                    self._store.tell(
                        (
                            (task_id, one.revision, clean(one.why.text), clean(brief(one.why, now)))
                            for task_id, one in told.items()
                        ),
                        now,
                    )
            await asyncio.sleep(pause_s)

"""Who waits for tasks to end, told by the event of their end: one listener of the feed for all of them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from lcq.errors import StateUnavailable
from lcq.models import TERMINAL_STATES, TaskRecord
from lcq.state.feed import batches
from lcq.state.manager import StateManager

_FLOOR_S = 20.0  # each who waits looks so often all the same


class Endings:
    """``await wait(task_id)``, while ``follow()`` runs."""

    def __init__(self, state: StateManager) -> None:
        self._state = state
        self._waiting: dict[str, set[asyncio.Event]] = {}

    async def follow(self) -> None:
        """Hear of every end, for ever."""
        async for events in batches(self._state.feed):
            if events is None:  # some were lost: everybody looks
                self._tell(tuple(self._waiting))
            else:
                self._tell(event.fields.get("id", "") for event in events if event.fields.get("status") in _ENDS)

    def _tell(self, ids: Iterable[str]) -> None:
        for task_id in ids:
            for news in self._waiting.get(task_id, ()):
                news.set()

    async def wait(self, task_id: str) -> TaskRecord:
        """The task's record when it has come to an end.

        Raises:
            TaskNotFound: it is not there, or no more.
        """
        news = asyncio.Event()
        self._waiting.setdefault(task_id, set()).add(news)
        try:
            while True:
                news.clear()
                try:
                    record = await self._state.reader.task(task_id)
                    if record.status.is_terminal:
                        return record
                except StateUnavailable:
                    await asyncio.sleep(0.2)  # Redis is away: its feed goes on when it is back
                    news.set()
                try:
                    async with asyncio.timeout(_FLOOR_S):
                        await news.wait()
                except TimeoutError:
                    continue
        finally:
            waiting = self._waiting[task_id]
            waiting.discard(news)
            if not waiting:
                del self._waiting[task_id]


_ENDS = frozenset(str(status) for status in TERMINAL_STATES)

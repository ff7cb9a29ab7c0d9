"""Tells who asks what this agent has logged of late, and what it has kept of an attempt."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Awaitable, Callable

from lcq.errors import LcqError
from lcq.wire import Logged, LogWish, TaskLogged, TaskLogWish
from worker.logbook import Logbook
from worker.task_logs import TaskLogs

TELL_S = 5.0
"""How long the telling may take; nobody waits for it much longer."""


class LogTeller:
    """Answers one wish after another. ``run()`` as long as the agent lives; ``tell`` delivers the lines."""

    def __init__(
        self,
        node_id: str,
        boot_id: str,
        book: Logbook,
        task_logs: TaskLogs,
        *,
        tell: Callable[[Logged | TaskLogged], Awaitable[object]],
    ) -> None:
        self._node_id, self._boot_id, self._book, self._task_logs = node_id, boot_id, book, task_logs
        self._tell = tell
        # More of them push out the oldest: nobody waits for that.
        self._wishes: deque[LogWish | TaskLogWish] = deque(maxlen=16)
        self._due = asyncio.Event()

    def wish(self, wish: LogWish | TaskLogWish) -> None:
        self._wishes.append(wish)
        self._due.set()

    async def run(self) -> None:
        """For ever: tell what is asked for."""
        while True:
            await self._due.wait()
            self._due.clear()
            while self._wishes:
                wish = self._wishes.popleft()
                told = await self._of_task(wish) if isinstance(wish, TaskLogWish) else self._of_node(wish)
                with contextlib.suppress(LcqError):  # nobody waits for it by then
                    await self._tell(told)

    def _of_node(self, wish: LogWish) -> Logged:
        lines, first, last = self._book.read(wish.after, wish.limit, wish.task)
        return Logged(node_id=self._node_id, boot_id=self._boot_id, wish=wish.id, lines=lines, first=first, last=last)

    async def _of_task(self, wish: TaskLogWish) -> TaskLogged:
        key = (wish.task, wish.attempt)
        is_open = self._task_logs.is_open(key)  # before it is read: what comes after its end is nothing
        kept = await self._task_logs.read(key, wish.begin, wish.limit)
        return TaskLogged(
            node_id=self._node_id,
            boot_id=self._boot_id,
            wish=wish.id,
            lines=kept.lines,
            next=kept.next,
            size=kept.size,
            kept=kept.kept,
            is_open=is_open,
            is_there=kept.is_there or is_open,
        )

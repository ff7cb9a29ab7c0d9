"""What acts of this console have made of tasks, as their answers told it, before the news of it comes round.

An act goes by what was on the screen when its key was pressed. Where that was before the operator's own last act on the
same task was answered or shown, it is made anew on what that act has made. What anybody else does meanwhile is
not taken in by that: the task has another revision then, and refuses.
"""

from __future__ import annotations

import asyncio
import copy
from collections import OrderedDict
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lcq.models import TaskPriority
    from tui.store import TaskRow

_KEPT = 20_000


class Made:
    """Of the tasks that were acted on here: from which revision to which, and in which band they are now."""

    def __init__(self) -> None:
        self._made: OrderedDict[tuple[str, int], tuple[int, TaskPriority | None]] = OrderedDict()
        self._under_way: list[tuple[frozenset[str], asyncio.Event]] = []

    def note(self, task_id: str, seen: int, revision: int, priority: TaskPriority | None) -> None:
        """An act that saw a task at revision ``seen`` has made it ``revision``; ``priority``: None, as it was."""
        if revision > seen:
            self._made[task_id, seen] = (revision, priority)
            if len(self._made) > _KEPT:
                self._made.popitem(last=False)

    def of(self, row: TaskRow) -> TaskRow:
        """The task as our own acts have left it since ``row``; ``row`` itself where none has."""
        made = self._made.get((row.id, row.acts_on))
        if made is None:
            return row
        row = copy.copy(row)
        while made is not None:
            row.acted, priority = made
            row.priority = priority or row.priority
            made = self._made.get((row.id, row.acted))
        return row

    @asynccontextmanager
    async def turn(self, ids: Collection[str]) -> AsyncIterator[None]:
        """Inside, no earlier act on any of these is under way any more; the others go on beside it."""
        mine, over = frozenset(ids), asyncio.Event()
        earlier = [end for theirs, end in self._under_way if not theirs.isdisjoint(mine)]
        entry = (mine, over)
        self._under_way.append(entry)
        try:
            for end in earlier:
                await end.wait()
            yield
        finally:
            self._under_way.remove(entry)
            over.set()

    def renewed(self, rows: Sequence[TaskRow]) -> list[TaskRow] | None:
        """``rows`` as our own acts have left them; None where none has changed any."""
        now = [self.of(row) for row in rows]
        return now if any(one is not row for one, row in zip(now, rows, strict=True)) else None

"""Tasks beyond the live window: where the cluster has more than the console holds, the scheduler looks for what fits
the filter, page by page, and the list goes on as one scrolls to its end. Beside the feed: nobody waits for it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

from pydantic import ValidationError

from lcq.errors import LcqError
from lcq.lang import retold_error, tr
from tui import source
from tui.source import Commander
from tui.store import Store, TaskRow
from tui.view import View

LOOK_S = 0.25
_CALM_LOOKS = 8  # it is looked so much more rarely where there is nothing to look for
PAGE = 500
MOST = 20_000
"""So many older tasks are taken in at most, until everything is read again."""
_ANSWER_S = 10.0
_TROUBLE_S = 2.0  # until it is tried again


class Older:
    """Fetches tasks that are older than the window. ``told`` says how far that is."""

    def __init__(
        self, commander: Commander, store: Store, view: View[TaskRow], *, open_task: Callable[[], str] = str
    ) -> None:
        """``open_task``: the id of the one whose details are in sight, "" if none is."""
        self._commander, self._store, self._view, self._open_task = commander, store, view, open_task
        self._of = (0, 0, "")  # the load of the store, the cut, and the filter, that what follows is about
        self._cursor = ""
        self._found = self._looked_at = 0
        self._taken = 0  # in this load, whatever the filter
        self._done = False
        self._trouble = ""
        self._woken = asyncio.Event()

    @property
    def told(self) -> str:
        """What came of it, for the line above the table; "" where the window holds everything."""
        if not self._store.oldest or self._of != self._now:
            return ""
        if self._trouble:
            return tr("older ones cannot be asked for: {trouble}", trouble=self._trouble)
        if not self._view.filter:
            return (
                "" if not self._full else tr("cut: {most:,} older ones are here, a filter finds the others", most=MOST)
            )
        how_far = (
            tr("all")
            if self._done
            else tr("cut at {looked_at:,}", looked_at=self._looked_at)
            if self._full
            else tr("{looked_at:,} so far", looked_at=self._looked_at)
        )
        return tr("older: {found:,} fit ({how_far} looked at)", found=self._found, how_far=how_far)

    @property
    def is_done(self) -> bool:
        """Whether all that fits the filter is here: nothing is beyond the window, or that has been looked through."""
        return not self._store.oldest or (self._of == self._now and self._done)

    @property
    def _now(self) -> tuple[int, int, str]:
        found = self._view.filter
        return self._store.loads, self._store.cuts, found.text if found and not found.problem else ""

    @property
    def _full(self) -> bool:
        return self._taken >= MOST

    def look(self) -> None:
        """Take note that something else may be wanted."""
        if self._store.oldest and (self._of != self._now or self._is_missing):
            self._woken.set()

    @property
    def _is_missing(self) -> bool:
        """Somebody wants what has not been looked for yet."""
        return self._wanted and not self._done and not self._full

    async def run(self) -> None:
        """Look for older tasks, and keep the window to its size, until cancelled."""
        while True:
            if self._is_missing or self._store.excess(source.WINDOW) > 0:
                await asyncio.sleep(LOOK_S)
            else:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(LOOK_S * _CALM_LOOKS):
                        await self._woken.wait()
            self._woken.clear()
            self._store.seeking = self._wanted
            self._store.cut(source.WINDOW, self._is_kept)
            if not self._store.oldest:
                continue  # all that there is is here
            if self._of != self._now:
                self._begin()
            if self._is_missing:
                await self._look()
                self._store.note_others()

    def _begin(self) -> None:
        if self._of[:2] != self._now[:2]:
            self._taken = 0
        self._of = self._now
        self._cursor, self._trouble = self._store.oldest, ""
        self._found = self._looked_at = 0
        self._done = False

    @property
    def _wanted(self) -> bool:
        """A filter wants all that fits it; without one, what lies behind the end of the list, once that is near."""
        view = self._view
        if not self._store.oldest:
            return False
        return bool(view.filter) or view.top + 2 * view.height > len(view)

    def _is_kept(self, task_id: str) -> bool:
        """What somebody has marked, or looks at, stays here."""
        view = self._view
        return task_id in view.marks or task_id in (view.cursor_id, self._open_task())

    async def _look(self) -> None:
        of = self._of
        try:
            async with asyncio.timeout(_ANSWER_S):
                page = await self._commander.page(of[2], limit=PAGE, cursor=self._cursor)
        except (LcqError, OSError, TimeoutError, ValidationError) as error:
            self._trouble = retold_error(error) or tr("no answer")
            await asyncio.sleep(_TROUBLE_S)
            return
        if of != self._now:
            return  # meanwhile something else is asked for
        self._trouble = ""
        self._taken += self._store.put_older(page.tasks)
        self._found += len(page.tasks)
        self._looked_at += page.looked_at
        self._cursor, self._done = page.cursor, not page.cursor

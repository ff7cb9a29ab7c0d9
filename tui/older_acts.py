"""Acts older than the newest: read from the audit page by page, as somebody comes to the list's end or filters it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from pydantic import ValidationError

from lcq.errors import LcqError
from lcq.lang import retold_error, tr
from tui.source import Link, Reader
from tui.store import MOST_ACTS, ActRow, Store
from tui.view import View

LOOK_S = 0.25
PAGE = 500
_ANSWER_S = 10.0
_TROUBLE_S = 2.0  # until it is tried again


class OlderActs:
    """Fetches acts from beyond the newest, while the activity is in sight. ``told`` says how far that is."""

    def __init__(
        self, reader: Reader, store: Store, view: View[ActRow], link: Link, *, in_sight: Callable[[], bool]
    ) -> None:
        """``in_sight``: whether somebody looks at them."""
        self._reader, self._store, self._view, self._link = reader, store, view, link
        self._in_sight = in_sight
        self._trouble = ""
        self._woken = asyncio.Event()

    @property
    def told(self) -> str:
        """What there is beyond those here, for the line above the table; "" where they are all there are."""
        store = self._store
        if not store.acts_read or store.acts_whole:
            return ""
        if self._trouble:
            return tr("older ones cannot be read: {trouble}", trouble=self._trouble)
        if self._is_full:
            return tr("cut: there are older ones")
        return tr("older ones are being read") if self._wanted else tr("older ones follow")

    @property
    def _is_full(self) -> bool:
        return len(self._store.acts.rows) >= MOST_ACTS

    @property
    def _wanted(self) -> bool:
        """A filter wants all that fits it; without one, what lies behind the end of the list, once that is near."""
        view, store = self._view, self._store
        if not self._in_sight() or view.frozen or not store.acts_read or store.acts_whole or self._is_full:
            return False
        return bool(view.filter) or view.top + 2 * view.height > len(view)

    def look(self) -> None:
        """Take note that something else may be wanted."""
        if self._wanted:
            self._woken.set()

    async def run(self) -> None:
        """Read on where that is wanted, until cancelled."""
        while True:
            await self._woken.wait()
            self._woken.clear()
            while self._wanted:
                await self._read_on()
                self._store.note_others()
                await asyncio.sleep(LOOK_S)

    async def _read_on(self) -> None:
        before, loads = self._store.oldest_act, self._store.acts_loads
        try:
            async with asyncio.timeout(_ANSWER_S):
                acts = await self._reader.acts(PAGE, before)
        except (LcqError, OSError, TimeoutError, ValidationError) as error:
            self._trouble = retold_error(error) or tr("no answer")
            await asyncio.sleep(_TROUBLE_S)
            return
        self._trouble = ""
        if loads == self._store.acts_loads:  # else they were read anew meanwhile: these may not follow them
            self._store.put_older_acts(acts, self._link.now_ms, is_last=len(acts) < PAGE)

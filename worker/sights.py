"""Tells whether this host sees the files that somebody is about to submit."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

from lcq.errors import LcqError
from lcq.glance import seen_of
from lcq.roots import Roots
from lcq.wire import Saw, SeeWish

_MOST_WAITING = 16


class SightTeller:
    """Answers one wish after another. ``run()`` as long as the agent lives; ``tell`` delivers what it saw."""

    def __init__(self, node_id: str, boot_id: str, roots: Roots, *, tell: Callable[[Saw], Awaitable[object]]) -> None:
        self._node_id, self._boot_id, self._roots, self._tell = node_id, boot_id, roots, tell
        self._wishes: asyncio.Queue[SeeWish] = asyncio.Queue()

    def wish(self, wish: SeeWish) -> None:
        """Take up a wish; too many of them push out the one that has waited longest."""
        if self._wishes.qsize() >= _MOST_WAITING:
            self._wishes.get_nowait()
        self._wishes.put_nowait(wish)

    async def run(self) -> None:
        """For ever: look at what is asked for."""
        while True:
            wish = await self._wishes.get()
            seen = await asyncio.to_thread(seen_of, wish.files, self._roots)
            with contextlib.suppress(LcqError):  # nobody waits for it by then
                await self._tell(Saw(node_id=self._node_id, boot_id=self._boot_id, wish=wish.id, seen=seen))

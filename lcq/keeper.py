"""The keeper of a scheduler's blobs: has the place for them, tells where it is, and sweeps what nobody needs."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from typing import Any

from lcq.component import Complaints, Duty, Ground, Lives
from lcq.errors import LcqError, StateUnavailable
from lcq.ids import new_id
from lcq.sockets import guesses_host, is_loopback
from lcq.storage.depot import Depot
from lcq.storage.marks import read_mark, write_mark
from lcq.storage.opening import depot_of
from lcq.wire import AskStore, StoreAnswer

_log = logging.getLogger(__name__)

_SWEEP_S = 900.0
_PAGE = 500  # tasks that are looked at in one go
_BREATH_S = 0.02  # between two of them: others want Redis too
_MARK_AGAIN_S = (1.0, 60.0)


class Keeper(Lives):
    """``async with Keeper(ground) as keeper``: ``keeper.depot`` is what HTTP hands out and takes in.

    Raises on entering:
        AddressRefused: what is needed to reach ``storage.url`` is not installed.
    """

    def __init__(self, ground: Ground, *, sweep_s: float = _SWEEP_S) -> None:
        super().__init__(ground)
        self._sweep_s = sweep_s
        self._duty = Duty(ground, "blobs")
        self._mark = ""

    async def open(self, stack: AsyncExitStack) -> None:
        self.depot: Depot = await asyncio.to_thread(
            depot_of, self._ground.config, lambda: self._state.config
        )  # what it needs may have to be loaded first
        self._ground.site.desk.serve(AskStore, self._tell)

    def lives(self) -> tuple[tuple[str, Coroutine[Any, Any, None]], ...]:
        return (("blobs' mark", self._keep_marked()), ("blobs' sweep", self._keep_swept()))

    async def _tell(self, ask: AskStore, sender: bytes) -> StoreAnswer:
        storage = self._state.config.storage
        config = self._ground.config
        return StoreAnswer(
            url=self.depot.store.url,
            mark=self._mark,
            http=http_for_others(self._ground),
            same_host=guesses_host(config),
            loopback=is_loopback(config.zeromq.bind),
            web=storage.web,
            urls=storage.urls,
        )

    # ------------------------------------------------------------ its duties

    async def _keep_marked(self) -> None:
        """Put a mark there by which others see that it is the place that is meant; once, and again where it is gone."""
        complaints = Complaints("the mark of the blobs' place")
        pause_s = _MARK_AGAIN_S[0]
        while True:
            try:
                self._mark = await asyncio.to_thread(_marked, self._ground, self._mark)
                pause_s = _MARK_AGAIN_S[1]
            except LcqError as trouble:
                complaints.say(trouble)
                pause_s = min(_MARK_AGAIN_S[1], 2 * pause_s)
            await asyncio.sleep(pause_s)

    async def _keep_swept(self) -> None:
        complaints = Complaints("sweeping blobs")
        while True:
            await asyncio.sleep(self._sweep_s * random.uniform(0.8, 1.2))
            try:
                if await self._duty.is_ours():
                    async with self._duty.held():
                        await self.sweep()
            except StateUnavailable:
                continue  # the feed has said so
            except LcqError as refusal:
                complaints.say(refusal)

    async def sweep(self) -> int:
        """Remove what nobody needs; answers how many blobs went.

        Raises:
            StorageUnreachable, StateUnavailable: then the rest stays.
        """
        loop = asyncio.get_running_loop()
        unused_s = self._state.config.storage.blobs.keep_hours * 3600

        def is_needed(some: set[str]) -> set[str]:
            return asyncio.run_coroutine_threadsafe(self._needed(some), loop).result()

        gone = await asyncio.to_thread(self.depot.sweep, unused_s=unused_s, is_needed=is_needed)
        if gone:
            _log.info("%d blobs that no task needs were removed", gone)
        return gone

    async def _needed(self, some: set[str]) -> set[str]:
        """Those of some blobs that tasks name which Redis has."""
        needed: set[str] = set()
        after = ""
        while True:
            after, named = await self._state.reader.blobs_of(after=after, limit=_PAGE)
            needed |= named & some
            if not after or needed == some:
                return needed
            await asyncio.sleep(_BREATH_S)


def http_for_others(ground: Ground) -> str:
    """ "host:port" of this scheduler's HTTP for who reaches its control socket; "": it is not for them."""
    config = ground.config
    if not is_loopback(config.zeromq.bind) and is_loopback(config.http.bind):
        return ""  # whoever asks may be on another host, and would ask its own
    return ground.site.http


def _marked(ground: Ground, mark: str) -> str:
    """The mark that is there, or is put there now."""
    found = read_mark(ground.config)
    if found:
        return found
    return write_mark(ground.config, mark or new_id())

"""The lifeline: a plain TCP connection whose only message is its end. The kernel closes it when we die."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import Callable

from lcq.lifelines import lifeline_words

_log = logging.getLogger(__name__)
_FIRST_S = (0.05, 0.2)  # a scheduler waits about a second for one that was cut: be back before that
_LONGEST_S = 2.0
_STAYED_S = 1.0
_CONNECT_S = 2.0


class Lifeline:
    """Keeps one connection to where ``attach()`` last said. ``hold()`` runs as long as the agent lives.

    It is a lifeline for both ends: ``on_lost`` is called when one that was held is cut and cannot be had again at
    once, because then that scheduler has died.
    """

    def __init__(self, node_id: str, boot_id: str, *, on_lost: Callable[[], None]) -> None:
        self._on_lost = on_lost
        self._node_id, self._boot_id = node_id, boot_id
        self._address = self._key = ""
        self._turn = 0
        self._moved = asyncio.Event()
        self._writer: asyncio.StreamWriter | None = None

    def attach(self, address: str, key: str = "") -> None:
        """Hold the line to ``address`` ("host:port") alone; "": to none. ``key``: by what we are known there."""
        if (address, key) != (self._address, self._key):
            self._address, self._key = address, key
            self._moved.set()
            self._end_in_order()

    async def hold(self) -> None:
        """Connect, and again whenever the line is cut, until cancelled."""
        loop = asyncio.get_running_loop()
        pause_s = random.uniform(*_FIRST_S)
        was_held = False
        while True:
            self._moved.clear()
            if not self._address:
                await self._moved.wait()
                continue
            began = loop.time()
            await self._hold_one(self._address)
            is_moved, has_stayed = self._moved.is_set(), loop.time() - began > _STAYED_S
            if was_held and not is_moved and not has_stayed:
                _log.info("the lifeline to %s was cut: its scheduler has gone", self._address)
                self._on_lost()
            was_held = has_stayed and not is_moved
            if is_moved or has_stayed:
                pause_s = random.uniform(*_FIRST_S)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await self._moved.wait()
            pause_s = min(_LONGEST_S, 2 * pause_s)

    async def _hold_one(self, address: str) -> None:
        """One connection, until it is cut or the line is to go elsewhere."""
        host, _, port = address.rpartition(":")
        try:
            async with asyncio.timeout(_CONNECT_S):
                reader, writer = await asyncio.open_connection(host.strip("[]"), int(port))
        except (OSError, TimeoutError) as error:
            _log.debug("no lifeline to %s: %s", address, error)
            return
        self._writer = writer
        try:
            self._turn += 1
            writer.write(lifeline_words(self._node_id, self._boot_id, self._turn, self._key))
            await reader.read(1)  # nothing ever comes but the end
        except OSError as error:
            _log.debug("the lifeline to %s was cut: %s", address, error)
        finally:
            self._writer = None
            writer.close()

    def _end_in_order(self) -> None:
        if self._writer is not None:
            self._writer.write(b"bye\n")  # else the scheduler at its other end takes us for dead
            self._writer.close()  # once that has gone out

    async def bye(self) -> None:
        """End the line, and say that this end is in order."""
        writer = self._writer
        self.attach("")
        if writer is not None:
            with contextlib.suppress(OSError, TimeoutError):
                async with asyncio.timeout(1):
                    await writer.wait_closed()

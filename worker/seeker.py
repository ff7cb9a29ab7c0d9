"""The seeker: while this node is in no scheduler's hands and nobody has said where one is, it looks on the LAN."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable

from lcq.client import looks_around
from lcq.config import DistributedConfig
from lcq.errors import LcqError

_log = logging.getLogger(__name__)
_PATIENCE_S = 1.0  # for where we were, or for this host's own scheduler, before anybody else is looked for
_ROUND_S = 10.0  # after so long the interfaces may be others, and whoever is announced is asked for anew


class Seeker:
    """``found`` are the control endpoints of the schedulers that the LAN has told of. Run ``seek()``.

    It sends and hears nothing while the node is joined, or where an address is configured.
    """

    def __init__(
        self,
        config: DistributedConfig,
        scheduler: str | None,
        *,
        joined: asyncio.Event,
        on_trouble: Callable[[str], None],
    ) -> None:
        self.found: tuple[str, ...] = ()
        self.ignored = 0
        """Announcements that were not used, since the start."""
        self._config = config
        self._scheduler = scheduler
        self._joined = joined
        self._on_trouble = on_trouble
        self._said = ""

    async def seek(self) -> None:
        """Look whenever there is need, for ever.

        Raises:
            InvalidConfig: there is something wrong with ``discovery.key``.
        """
        while True:
            if not await self._is_joined_within(_PATIENCE_S) and looks_around(self._config, self._scheduler):
                await self._look()
            elif self._joined.is_set():
                await asyncio.sleep(_PATIENCE_S)

    async def _is_joined_within(self, seconds: float) -> bool:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._joined.wait()
        return self._joined.is_set()

    async def _look(self) -> None:
        from lcq.discovery import Browser

        try:
            async with Browser(self._config.discovery) as browser:
                self._say(f"looking for a scheduler on the LAN, at {browser.where}")
                choice = await browser.listen(_ROUND_S)
                self.ignored += browser.ignored.total()
                if choice.why:
                    self._say(choice.why)
                    self._on_trouble(choice.why)
                if choice.endpoints and choice.endpoints != self.found:
                    how = "signed" if self._config.discovery.has_key else "on its word alone: there is no discovery.key"
                    _log.warning("the LAN tells of cluster %s, %s", ", ".join(choice.clusters), how)
                self.found = choice.endpoints or self.found
        except LcqError as trouble:
            self._say(str(trouble))
            await asyncio.sleep(_ROUND_S)
            return
        await self._is_joined_within(_ROUND_S)

    def _say(self, word: str) -> None:
        if word != self._said:
            _log.info("%s", word)
        self._said = word

"""The seeker: while this node is in no scheduler's hands and nobody has said where one is, it looks on the LAN."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from pathlib import Path

from lcq.client.addresses import find_schedulers, listens, looks_around, unbelieved
from lcq.config import DistributedConfig
from lcq.errors import NoMulticast, SeveralClusters

_log = logging.getLogger(__name__)
_PATIENCE_S = 1.0  # for where we were, or for this host's own scheduler, before anybody else is looked for
_SAID_KEPT = 32
_ROUND_S = 10.0  # after so long the interfaces may be others, and whoever is announced is asked for anew


class Seeker:
    """``found`` are the control endpoints of the schedulers that the LAN has told of. Run ``seek()``.

    It sends and hears nothing while the node is joined, or where an address is configured.
    """

    def __init__(
        self, config: DistributedConfig, scheduler: str | None, *, joined: asyncio.Event, key_file: Path | None = None
    ) -> None:
        self._key_file = key_file
        self.found: tuple[str, ...] = ()
        self.ignored = 0
        """Announcements that were not used, since the start."""
        self.why = ""
        """Why the LAN was of no help when it was needed last."""
        self._config = config
        self._scheduler = scheduler
        self._joined = joined
        self._said: set[str] = set()

    async def seek(self) -> None:
        """Look whenever there is need, for ever.

        Raises:
            InvalidConfig: there is something wrong with ``discovery.key``.
        """
        while True:
            if await self._is_joined_within(_PATIENCE_S):
                self.why = ""
                await asyncio.sleep(_PATIENCE_S)
            elif looks_around(self._config, self._scheduler, key_file=self._key_file) and not await listens(
                find_schedulers(self._config, key_file=self._key_file)[0]
            ):
                await self._look()

    async def _is_joined_within(self, seconds: float) -> bool:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._joined.wait()
        return self._joined.is_set()

    async def _look(self) -> None:
        from lcq.discovery import Browser

        try:
            async with Browser(self._config.discovery) as browser:
                if not self.found:
                    self._say(logging.INFO, f"looking for a scheduler on the LAN, at {browser.where}")
                choice = await browser.listen(_ROUND_S)
                self.ignored += browser.ignored.total()
        except NoMulticast as trouble:
            self.why = str(trouble)
        else:
            self.why = choice.why
            if len(choice.clusters) > 1:
                self.why = str(SeveralClusters(choice.why))
            self.why = unbelieved(self._config, choice.endpoints) or self.why
            if choice.endpoints and not self.why:
                has_key = self._config.discovery.has_key
                how = "signed by our key" if has_key else "on its word alone, for there is no discovery.key"
                self._say(logging.WARNING, f"the LAN tells of cluster {', '.join(choice.clusters)}: taken {how}")
                self.found = choice.endpoints
        if self.why:
            self._say(logging.WARNING, self.why)
        if self.found or self.why:  # else somebody may come at any moment
            await self._is_joined_within(_ROUND_S)

    def _say(self, level: int, word: str) -> None:
        if word not in self._said:
            _log.log(level, "%s", word)
            self._said = {word, *list(self._said)[:_SAID_KEPT]}

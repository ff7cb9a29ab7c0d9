"""Follows the configuration file of a running process: what may change while it runs changes at once, nothing else.

A file is believed when it has stood still for a moment, is whole, and is right in every key. Until then what holds
goes on holding, and ``error`` says what is wrong.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from lcq.config import ConfigManager, DistributedConfig
from lcq.errors import InvalidConfig

_log = logging.getLogger(__name__)
_LOOK_S = 1.0

LIVE_KEYS = (
    "log_level", "retries", "limits", "shares", "quotas", "agent.drain_s", "agent.poll_s", "agent.no_progress_s",
    "agent.labels", "agent.busy_elsewhere", "agent.heat", "agent.disk", "agent.thumbnails", "agent.clock_skew_s",
    "http.tokens", "http.per_minute",
)  # fmt: skip
"""Keys, and sections with all their keys, that a running process takes over. All others need a restart."""


class ConfigFollower:
    """Reads the file of ``manager`` again whenever it changes. ``on_change`` gets the settings that hold then."""

    def __init__(self, manager: ConfigManager, *, on_change: Callable[[DistributedConfig], None]) -> None:
        self.config = manager.config
        self.error = ""
        """What is wrong with the file as it is now: file, line and key; "" if nothing is."""
        self._manager = manager
        self._on_change = on_change
        self._due = asyncio.Event()
        self._read = manager.stamp()
        self._told: tuple[str, ...] = ()

    def read_now(self) -> None:
        """Do not wait until the file has changed: somebody has sent a SIGHUP."""
        self._due.set()

    async def follow(self) -> None:
        """Look every second, for ever."""
        seen = self._read
        while True:
            try:
                async with asyncio.timeout(_LOOK_S):
                    await self._due.wait()
            except TimeoutError:
                before, seen = seen, self._manager.stamp()
                if seen == self._read or seen != before:  # the same as ever, or still being written
                    continue
            self._due.clear()
            self._read = seen = self._manager.stamp()
            self._take_in()

    def _take_in(self) -> None:
        try:
            found = self._manager.reload()
        except InvalidConfig as error:
            if str(error) != self.error:
                self.error = str(error)
                _log.error("the settings stay as they were: %s", error)
            return
        if self.error:
            _log.info("the configuration is right again")
        self.error = ""
        live, waiting = changes(self.config, found)
        if waiting and waiting != self._told:
            _log.warning("changed, but only a restart takes it over: %s", ", ".join(waiting))
        self._told = waiting
        if live:
            self.config = with_live_keys(self.config, found)
            _log.info("the configuration has changed: %s", ", ".join(live))
            self._on_change(self.config)


def changes(now: DistributedConfig, found: DistributedConfig) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The keys in which the two differ: those that can be taken over at once, and those that need a restart."""
    before, after = dict(_leaves(now.model_dump())), dict(_leaves(found.model_dump()))
    changed = sorted(key for key in before | after if before.get(key, ...) != after.get(key, ...))
    live = tuple(key for key in changed if _is_live(key))
    return live, tuple(key for key in changed if not _is_live(key))


def with_live_keys(now: DistributedConfig, found: DistributedConfig) -> DistributedConfig:
    """``now`` with what may change while a process runs as it is in ``found``."""
    taken: dict[str, Any] = {}
    for key in LIVE_KEYS:
        section, _, name = key.partition(".")
        part = getattr(found, section)
        if name:
            part = taken.get(section, getattr(now, section)).model_copy(update={name: getattr(part, name)})
        taken[section] = part
    return now.model_copy(update=taken)


def _is_live(key: str) -> bool:
    return any(key == live or key.startswith(f"{live}.") for live in LIVE_KEYS)


def _leaves(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value

"""Follows the configuration files of a running process: what may change while it runs changes at once, nothing else.

A file is believed when it has stood still for a moment, is whole, and is right in every key. Until then what holds
goes on holding, and ``error`` says what is wrong.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from types import MappingProxyType
from typing import Any

from lcq.config import ConfigManager, DeviceConfig, DistributedConfig
from lcq.errors import InvalidConfig
from lcq.models import QueueConfig
from lcq.settings.watch import FileWatch

_log = logging.getLogger(__name__)
_LOOK_S = 1.0  # between two looks where nothing tells of changes
_FLOOR_S = 5.0  # and where something does
_STILL_S = 0.25  # for so long a file that has changed must stand still


class Role(StrEnum):
    """What a process is: by that it reads some settings and not others."""

    SCHEDULER = "scheduler"
    AGENT = "agent"


READ_BY: Mapping[Role, tuple[str, ...]] = MappingProxyType(
    {
        Role.SCHEDULER: (
            "enabled", "scheduler_host", "scheduler_port", "data_dir", "log_level", "log_format", "zeromq", "redis",
            "discovery", "leases", "retries", "quarantine", "shares", "quotas", "retention", "storage", "queues",
            "serverless", "http", "limits", "report", "archive", "backup", "schedules", "windows",
            "alerting", "alerts", "tracing",
        ),
        Role.AGENT: (
            "enabled", "scheduler_host", "schedulers", "data_dir", "log_level", "log_format", "zeromq", "discovery",
            "agent", "limits", "storage", "models", "iopaint", "tracing",
        ),
    }
)  # fmt: skip
"""The sections, and keys outside of any, that a process of a role reads. What nobody here reads, commands and consoles
read when they start."""

LIVE: Mapping[Role, tuple[str, ...]] = MappingProxyType(
    {
        Role.SCHEDULER: (
            "log_level", "leases", "retries", "quarantine", "shares", "quotas", "retention", "queues", "serverless",
            "limits", "report", "archive", "backup", "schedules", "windows",
            "http.tokens", "http.per_minute", "http.interactive_slots", "http.interactive_s", "http.answer_s",
            "http.model", "http.save_folder", "http.public_url", "storage.blobs",
            "alerting", "alerts", "tracing",
        ),
        Role.AGENT: (
            "log_level", "limits", "schedulers", "agent.slots", "agent.devices.*.slots", "agent.devices.*.queues",
            "agent.functions", "agent.models", "agent.labels", "agent.drain_s", "agent.poll_s", "agent.no_progress_s",
            "agent.recycle", "agent.busy_elsewhere", "agent.heat", "agent.disk", "agent.task_logs", "agent.thumbnails",
            "agent.clock_skew_s", "models.sources", "models.allow", "models.timeout_s", "iopaint", "storage.blobs",
        ),
    }
)  # fmt: skip
"""Keys, and sections with all their keys, that a running process of a role takes over. All others need a restart."""

EVERY_ROLE: frozenset[Role] = frozenset(Role)


class ConfigFollower:
    """Reads the files of ``manager`` again whenever they change, for a process of these ``roles``.

    ``on_change`` gets the settings that are to hold then; where it raises ``InvalidConfig``, those of before go on.
    """

    def __init__(
        self,
        manager: ConfigManager,
        *,
        roles: Collection[Role] = EVERY_ROLE,
        on_change: Callable[[DistributedConfig], object],
    ) -> None:
        self.config = manager.config
        self.manager = manager
        self.error = ""
        """What is wrong with the files as they are now: file, line and key; "" if nothing is."""
        self.refused = 0
        """How often files were not taken over."""
        self.waiting: tuple[str, ...] = ()
        """The keys that have changed since the start, and need a restart."""
        self.when_read: Callable[[], object] = lambda: None
        """Called when the files have been read because somebody asked by ``read_now``."""
        self._roles = frozenset(roles)
        self._on_change = on_change
        self._asked = False
        self._stirred = asyncio.Event()
        self._read = manager.stamps()

    def read_now(self) -> None:
        """Do not wait until a file has changed: somebody has sent a SIGHUP."""
        self._asked = True
        self._stirred.set()

    async def follow(self) -> None:
        """Look whenever a file is told to have changed, and every few seconds, for ever."""
        loop = asyncio.get_running_loop()

        def tell() -> None:
            with contextlib.suppress(RuntimeError):  # the loop has been closed meanwhile
                loop.call_soon_threadsafe(self._stirred.set)

        watch = FileWatch(tell)
        armed: set[Path] | None = None
        try:
            while True:
                told = await self._until_stirred(_FLOOR_S if watch.is_on else _LOOK_S)
                has_news = await self._have_news()
                if has_news or self._asked:
                    was_asked, self._asked = self._asked, False
                    self._read = self.manager.stamps()
                    self._take_in()
                    if was_asked:
                        self.when_read()
                there = {file for file, stamp in self._read.items() if stamp is not None}
                if told or has_news or there != armed:  # not before the first look: a start has other things to do
                    watch.arm(there)
                    armed = there
        finally:
            watch.disarm()

    async def _until_stirred(self, seconds: float) -> bool:
        """Wait until there may be something to read, at most so long. Answers whether somebody said so."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stirred.wait()
        was_stirred = self._stirred.is_set()
        self._stirred.clear()
        return was_stirred

    async def _have_news(self) -> bool:
        """Whether the files are other ones than those that were read, and stand still."""
        seen = self.manager.stamps()
        while seen != self._read and not self._asked:
            await asyncio.sleep(min(_STILL_S, _LOOK_S))
            before, seen = seen, self.manager.stamps()
            if seen == before:
                return True
        return False

    def _take_in(self) -> None:
        try:
            found = self.manager.reload()
            live, waiting = changes(self.config, found, self._roles)
            if live:
                taken = with_live_keys(self.config, found, self._roles)
                self._on_change(taken)
                self.config = taken
        except InvalidConfig as error:
            self.refused += 1
            if str(error) != self.error:
                self.error = str(error)
                _log.error("the settings stay as they were: %s", error)
            return
        if self.error:
            _log.info("the configuration is right again")
        self.error = ""
        if waiting and waiting != self.waiting:
            _log.warning("changed, but only a restart takes it over: %s", ", ".join(waiting))
        self.waiting = waiting
        if live:
            _log.info("the configuration has changed: %s", ", ".join(live))


def changes(
    now: DistributedConfig, found: DistributedConfig, roles: Collection[Role] = EVERY_ROLE
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The keys that ``roles`` read in which the two differ: those that can be taken over at once, and those that
    need a restart."""
    before, after = dict(leaves(now.model_dump())), dict(leaves(found.model_dump()))
    for name in now.agent.devices.keys() | found.agent.devices.keys():  # one that nobody names is at its defaults
        for key, value in DeviceConfig().model_dump().items():
            before.setdefault(f"agent.devices.{name}.{key}", value)
            after.setdefault(f"agent.devices.{name}.{key}", value)
    for values in (before, after):
        values.pop("agent.devices", None)
    changed = {key for key in before | after if before.get(key, ...) != after.get(key, ...)}
    if "queues" in changed:
        changed |= set(_changed_queues(now.queues, found.queues))
        changed.discard("queues")
    concerned = sorted(key for key in changed if any(_is_under(key, READ_BY[role]) for role in roles))
    live = tuple(key for key in concerned if _is_live(key, roles))
    return live, tuple(key for key in concerned if not _is_live(key, roles))


def with_live_keys(
    now: DistributedConfig, found: DistributedConfig, roles: Collection[Role] = EVERY_ROLE
) -> DistributedConfig:
    """``now`` with what may change while a process of ``roles`` runs as it is in ``found``."""
    for key in dict.fromkeys(key for role in roles for key in LIVE[role]):
        if _is_live(key, roles):
            now = _taken(now, found, key.split("."))
    return now


def how_it_changes(key: str) -> str:
    """How a change of ``key`` in a file comes to those who read it, in words."""
    readers = [role for role in Role if _is_under(key, READ_BY[role])]
    if not readers:
        return "at the next start of a command or console"
    live = [role for role in readers if _is_live(key, (role,))]
    if len(live) == len(readers):
        return "at once"
    below = any(one.startswith(f"{key}.") for role in readers for one in LIVE[role])
    return "in part at once" if below else "needs restart"


def _is_live(key: str, roles: Collection[Role]) -> bool:
    readers = [role for role in roles if _is_under(key, READ_BY[role])]
    return bool(readers) and all(_is_under(key, LIVE[role]) for role in readers)


def _is_under(key: str, known: Collection[str]) -> bool:
    """Whether ``key`` is one of ``known``, or in a section that is. ``*`` there stands for any name."""
    steps = key.split(".")
    return any(
        len(steps) >= len(parts) and all(part in ("*", step) for part, step in zip(parts, steps, strict=False))
        for parts in (one.split(".") for one in known)
    )


def _taken(now: Any, found: Any, steps: Sequence[str]) -> Any:
    """``now`` with what is at ``steps`` as it is in ``found``, also as to whether somebody has said it."""
    step, *rest = steps
    if step == "*":
        kinds = {name: type(one) for name, one in (now | found).items()}
        return {name: _taken(now.get(name, kind()), found.get(name, kind()), rest) for name, kind in kinds.items()}
    value = _taken(getattr(now, step), getattr(found, step), rest) if rest else getattr(found, step)
    out = now.model_copy(update={step: value})
    if not rest and step not in found.model_fields_set:
        out.__pydantic_fields_set__.discard(step)
    return out


def _changed_queues(now: Sequence[QueueConfig], found: Sequence[QueueConfig]) -> Iterator[str]:
    """``queues.NAME`` of those that are new or gone, ``queues.NAME.KEY`` of others."""
    before, after = ({one.name: one.model_dump() for one in queues} for queues in (now, found))
    for name in before.keys() ^ after.keys():
        yield f"queues.{name}"
    for name in before.keys() & after.keys():
        yield from (f"queues.{name}.{key}" for key, value in before[name].items() if after[name][key] != value)
    if before.keys() == after.keys() and list(before) != list(after):
        yield "queues.order"


def leaves(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every key that is no section, with its value."""
    for name, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value

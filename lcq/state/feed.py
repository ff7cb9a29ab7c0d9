"""Feed: one reader of the event stream a process, shared by all who want to know."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Self

from lcq.errors import StateDamaged, StateUnavailable
from lcq.models import Event
from lcq.state.reader import StateReader

_log = logging.getLogger(__name__)
_WAIT_MS = 5000
_READ_AT_ONCE = 1000
_BUSY_S = 0.002
_BACKLOG = 10_000  # events that one slow listener may leave unread before it is told of a gap


class Listener:
    """One who listens to the feed: ``async for events in listener``. None stands for a gap: look afresh."""

    def __init__(self) -> None:
        self._unread: list[Event] = []
        self._gap = False
        self._news = asyncio.Event()

    def put(self, events: tuple[Event, ...], *, gap: bool = False) -> None:
        if gap or len(self._unread) + len(events) > _BACKLOG:
            self._gap = True
            self._unread.clear()
        else:
            self._unread.extend(events)
        self._news.set()

    async def take(self) -> tuple[Event, ...] | None:
        """All events since the last call, waiting for the first; None if some were lost."""
        await self._news.wait()
        self._news.clear()
        events, self._unread = tuple(self._unread), []
        gap, self._gap = self._gap, False
        return None if gap else events


class Feed:
    """Follows the events of one cluster through every loss of Redis. ``async with Feed(reader)``."""

    def __init__(self, reader: StateReader) -> None:
        self._reader = reader
        self._listeners: set[Listener] = set()
        self._arrived = asyncio.Condition()
        self._stack = AsyncExitStack()
        self.last_id = "0-0"

    async def __aenter__(self) -> Self:
        self.last_id = await self._reader.last_event_id()
        async with AsyncExitStack() as stack:
            group = await stack.enter_async_context(asyncio.TaskGroup())
            follower = group.create_task(self._follow(), name="event feed")
            stack.callback(follower.cancel)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    async def _follow(self) -> None:
        away = behind = False
        last_batch = 0.0
        while True:
            try:
                if away or behind:  # only then can the stream have been cut off before us
                    answer = await self._reader.events(self.last_id, wait_ms=_WAIT_MS, limit=_READ_AT_ONCE)
                    events, gap = answer.events, answer.gap or away
                    self.last_id = answer.last_id
                else:
                    events, gap = await self._reader.news(self.last_id, _WAIT_MS, _READ_AT_ONCE), False
                    if events:
                        self.last_id = events[-1].id
            except (StateUnavailable, StateDamaged) as error:
                if not away:
                    _log.warning("events stopped: %s", error)
                away = True
                await asyncio.sleep(random.uniform(0.1, 0.5))  # jittered: all schedulers meet the same return
                continue
            if gap:
                _log.warning("events go on after %s", self.last_id)
            away, behind = False, len(events) == _READ_AT_ONCE
            if not events and not gap:
                continue
            for listener in self._listeners:
                listener.put(events, gap=gap)
            async with self._arrived:
                self._arrived.notify_all()
            if time.monotonic() - last_batch < _BUSY_S and not behind:
                await asyncio.sleep(_BUSY_S)  # read a busy stream in batches: a read a task would cost too much
            last_batch = time.monotonic()

    def listen(self) -> Listener:
        """A listener that hears everything from now on. Give it back with ``leave()``."""
        listener = Listener()
        self._listeners.add(listener)
        return listener

    def leave(self, listener: Listener) -> None:
        self._listeners.discard(listener)

    async def wait_for_news(self, seen: str, wait_s: float) -> None:
        """Return when there is something newer than ``seen``, or after ``wait_s``."""
        try:
            async with asyncio.timeout(wait_s), self._arrived:
                await self._arrived.wait_for(lambda: self.last_id != seen)
        except TimeoutError:
            return


async def batches(feed: Feed) -> AsyncIterator[tuple[Event, ...] | None]:
    """The feed's events in batches for as long as the caller iterates; None where some were lost."""
    listener = feed.listen()
    try:
        while True:
            yield await listener.take()
    finally:
        feed.leave(listener)

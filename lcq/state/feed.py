"""Feed: one reader of the event stream a process, shared by all who want to know."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Self

from lcq.errors import StateUnavailable
from lcq.models import Event
from lcq.state.reader import StateReader

_log = logging.getLogger(__name__)
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
        away = False
        while True:
            try:
                answer = await self._reader.events(self.last_id, wait_ms=5000)
            except StateUnavailable as error:
                if not away:
                    _log.warning("events stopped: %s", error)
                away = True
                await asyncio.sleep(random.uniform(0.1, 0.5))  # jittered: all schedulers meet the same return
                continue
            if away or answer.gap:
                _log.warning("events go on after %s", self.last_id)
            for listener in self._listeners:
                listener.put(answer.events, gap=answer.gap or away)
            away = False
            self.last_id = answer.last_id
            if answer.events:
                async with self._arrived:
                    self._arrived.notify_all()

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

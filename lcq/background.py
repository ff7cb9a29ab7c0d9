"""The one background event loop of this process, on which plain scripts run async components."""

from __future__ import annotations

import asyncio
import atexit
import concurrent.futures
import contextlib
import os
import threading
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import AbstractAsyncContextManager
from typing import Any, ClassVar, Final, Generic, TypeVar

T = TypeVar("T")

_END: Final = object()
_CLOSE_S = 10.0  # how long components may take to put their things away when the process ends


class BackgroundLoop:
    """An event loop on a thread of its own. Take ``BackgroundLoop.shared()``; it ends with the process.

    Every method is for other threads than the loop's own: from inside the loop, ``await`` instead.
    """

    _shared: ClassVar[BackgroundLoop | None] = None
    _guard: ClassVar[threading.Lock] = threading.Lock()

    def __init__(self) -> None:
        self._pid = os.getpid()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._live, name="lcq background loop", daemon=True)
        self._thread.start()
        atexit.register(self.close)

    @classmethod
    def shared(cls) -> BackgroundLoop:
        """The loop of this process, started when first asked for (and anew in a forked child)."""
        with cls._guard:
            if cls._shared is None or not cls._shared.is_alive:
                cls._shared = cls()
            return cls._shared

    @property
    def is_alive(self) -> bool:
        return self._pid == os.getpid() and self._thread.is_alive()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """The result of ``work``, run on the loop while the caller waits.

        An interrupt of the caller (ctrl-c) cancels the work.
        """
        if threading.current_thread() is self._thread:
            work.close()
            raise RuntimeError("this is the background loop's own thread: use the async form and await it")
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        finally:
            future.cancel()  # nothing where it is done; else the caller was interrupted

    def iterate(self, source: AsyncIterator[T]) -> Iterator[T]:
        """What ``source`` yields, one by one; it is closed when the caller stops."""
        try:
            while (value := self.run(_next(source))) is not _END:
                yield value  # type: ignore[misc]  # a sentinel has no type that T excludes
        finally:
            close = getattr(source, "aclose", None)
            if close is not None and self.is_alive:
                self.run(close())

    def hold(self, component: AbstractAsyncContextManager[T]) -> Held[T]:
        """Enter ``component`` and stay inside until ``release()``, all in one asyncio.Task.

        One task, because a TaskGroup must be left by the one that entered it.
        """
        return Held(self._loop, component)

    def close(self) -> None:
        """End what runs on the loop, then the loop. Safe to call twice."""
        if not self.is_alive:
            return
        atexit.unregister(self.close)
        ending = asyncio.run_coroutine_threadsafe(_end_everything(), self._loop)
        with contextlib.suppress(concurrent.futures.TimeoutError):
            ending.result(_CLOSE_S)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_CLOSE_S)

    def _live(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_forever()
        finally:
            self._loop.close()


class Held(Generic[T]):
    """A component that is open on the background loop. ``value`` is what its ``async with`` gave."""

    value: T

    def __init__(self, loop: asyncio.AbstractEventLoop, component: AbstractAsyncContextManager[T]) -> None:
        self._loop = loop
        self._leave = asyncio.Event()
        entered: concurrent.futures.Future[T] = concurrent.futures.Future()
        self._life = asyncio.run_coroutine_threadsafe(self._stay(component, entered), loop)
        try:
            either: tuple[concurrent.futures.Future[Any], ...] = (entered, self._life)
            concurrent.futures.wait(either, return_when=concurrent.futures.FIRST_COMPLETED)
        except BaseException:
            self._life.cancel()
            raise
        if not entered.done():
            self._life.result()  # raises why it could not be entered
        self.value = entered.result()

    async def _stay(self, component: AbstractAsyncContextManager[T], entered: concurrent.futures.Future[T]) -> None:
        async with component as value:
            entered.set_result(value)
            await self._leave.wait()

    def release(self) -> None:
        """Leave the component; returns when it has put its things away. Safe to call twice."""
        if not self._life.done():
            self._loop.call_soon_threadsafe(self._leave.set)
        self._life.result()


async def _next(source: AsyncIterator[T]) -> T | object:
    return await anext(source, _END)


async def _end_everything() -> None:
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for other in others:
        other.cancel()
    await asyncio.gather(*others, return_exceptions=True)
    await asyncio.get_running_loop().shutdown_asyncgens()

"""Calls that may never return (a hung driver, a dead network disk), made where they hold up nobody."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import threading
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Aside(Generic[T]):
    """Calls ``call`` in threads that the end of the process does not wait for, one at a time."""

    def __init__(self, name: str, call: Callable[[], T]) -> None:
        self._name = name
        self._call = call
        self._answer: asyncio.Future[T] | None = None
        self._since = 0.0

    @property
    def silent_s(self) -> float:
        """For how long the call under way has not returned; 0 where none is under way."""
        if self._answer is None or self._answer.done():
            return 0.0
        return asyncio.get_running_loop().time() - self._since

    async def ask(self, *, patience_s: float) -> T:
        """What ``call`` gives back, or raises. While one is under way, its answer is this one's too.

        Raises:
            TimeoutError: it did not return in ``patience_s``, counted from its beginning.
        """
        if self._answer is None or self._answer.done():
            self._answer = self._begin()
        answer = self._answer
        async with asyncio.timeout(max(0.0, patience_s - self.silent_s)):
            return await asyncio.shield(answer)

    def _begin(self) -> asyncio.Future[T]:
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[T] = loop.create_future()
        answer.add_done_callback(lambda done: done.cancelled() or done.exception())  # nobody may be left to look
        self._since = loop.time()

        def work() -> None:
            try:
                told = functools.partial(answer.set_result, self._call())
            except BaseException as error:  # noqa: BLE001 - raised where it was asked for
                told = functools.partial(answer.set_exception, error)
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody wants to know any more
                loop.call_soon_threadsafe(told)

        threading.Thread(target=work, name=self._name, daemon=True).start()
        return answer

"""Wishes: what is asked of an agent by an order, and told by the agent in a request of its own. Nothing is kept."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

from lcq.wire import Done


class Told(Protocol):
    """What an agent tells; ``wish`` is the id of the question."""

    @property
    def wish(self) -> str: ...


ToldT = TypeVar("ToldT", bound=Told)


class Wishes(Generic[ToldT]):
    """Questions that wait for their agents; its length is how many."""

    def __init__(self, *, patience_s: float) -> None:
        self._patience_s = patience_s
        self._waiting: dict[str, asyncio.Future[ToldT]] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    async def ask(self, wish: str, order: Callable[[], None]) -> ToldT | None:
        """Send the ``order`` that asks for ``wish``, and wait for what is told; None: nothing was in time."""
        answer: asyncio.Future[ToldT] = asyncio.get_running_loop().create_future()
        self._waiting[wish] = answer
        try:
            order()
            async with asyncio.timeout(self._patience_s):
                return await answer
        except TimeoutError:
            return None
        finally:
            del self._waiting[wish]

    def take_in(self, told: ToldT) -> Done:
        """Hand on what an agent tells; nobody may wait for it any more."""
        answer = self._waiting.get(told.wish)
        if answer is not None and not answer.done():
            answer.set_result(told)
        return Done()

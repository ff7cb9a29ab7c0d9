"""What every manager is: an async component, that a plain script may also start() and stop()."""

from __future__ import annotations

import asyncio
import logging
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self
from weakref import WeakKeyDictionary

from lcq.background import BackgroundLoop, Held
from lcq.config import DistributedConfig, load
from lcq.desk import Site
from lcq.embedded import PrivateServer
from lcq.errors import LcqError, StateUnavailable
from lcq.state.manager import StateManager

_log = logging.getLogger(__name__)
_DUTY_S = 60.0  # what dies with a duty in hand leaves it to others after so long


@dataclass(frozen=True)
class Ground:
    """What the managers of one scheduler stand on together."""

    state: StateManager
    site: Site

    @property
    def config(self) -> DistributedConfig:
        """The settings as they are now: some may change while a process runs."""
        return self.state.config


class _SharedGround:
    """The ground of managers that were made with no arguments: one a process, there while any of them runs.

    Redis is found by configuration; where none is configured, the private server of this user is started.
    """

    def __init__(self) -> None:
        self._lock = asyncio.Lock()
        self._release = asyncio.Event()
        self._ready: asyncio.Future[Ground] | None = None
        self._users = 0

    async def take(self) -> Ground:
        async with self._lock:
            if self._ready is None or self._ready.exception() is not None:
                self._ready = asyncio.get_running_loop().create_future()
                self._release.clear()
                # A task of its own: the ground outlives the component that happened to come first.
                self._keeper = asyncio.create_task(self._keep(self._ready), name="shared ground")
            ground = await self._ready
            self._users += 1
            return ground

    async def give_back(self) -> None:
        async with self._lock:
            self._users -= 1
            if self._users == 0:
                self._ready = None
                self._release.set()
                await self._keeper

    async def _keep(self, ready: asyncio.Future[Ground]) -> None:
        try:
            async with AsyncExitStack() as stack:
                config = load()
                url = config.redis.address if not config.redis.is_private else ""
                if not url:
                    url = (await stack.enter_async_context(PrivateServer(config.data_path))).url
                state = await stack.enter_async_context(StateManager(config, url=url))
                ready.set_result(Ground(state, Site(state)))
                await self._release.wait()
        except LcqError as error:
            if ready.done():
                raise
            ready.set_exception(error)


_shared_grounds: WeakKeyDictionary[asyncio.AbstractEventLoop, _SharedGround] = WeakKeyDictionary()


class Manager(ABC):
    """The life that all managers share. Made with a ground it belongs to a scheduler; without, it finds one.

    ``async with`` in async code; ``start()`` and ``stop()`` in a plain script.
    """

    def __init__(self, ground: Ground | None = None) -> None:
        self._given = ground
        self._stack = AsyncExitStack()
        self._held: Held[Manager] | None = None

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            if self._given is None:
                shared = _shared_grounds.setdefault(asyncio.get_running_loop(), _SharedGround())
                ground = await shared.take()
                stack.push_async_callback(shared.give_back)
            else:
                ground = self._given
            await self._open(ground, stack)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    @abstractmethod
    async def _open(self, ground: Ground, stack: AsyncExitStack) -> None:
        """Open what this manager owns, and push onto ``stack`` how it is closed."""

    def start(self) -> None:
        """Run on this process's background loop until ``stop()``, or until the process ends.

        Raises:
            LcqError: it cannot start; the same errors as from ``async with``.
        """
        if self._held is None:
            self._held = BackgroundLoop.shared().hold(self)

    def stop(self) -> None:
        """End what ``start()`` began; returns when everything is closed. Safe to call twice."""
        held, self._held = self._held, None
        if held is not None:
            held.release()


async def run_beside(stack: AsyncExitStack, *lives: tuple[str, Coroutine[Any, Any, None]]) -> None:
    """Run named coroutines in one TaskGroup for as long as ``stack`` is open; then they are cancelled."""
    group = await stack.enter_async_context(asyncio.TaskGroup())
    for name, life in lives:
        stack.callback(group.create_task(life, name=name).cancel)


class Lives(ABC):
    """A part of a scheduler that has a life of its own, as long as ``async with`` is open."""

    def __init__(self, ground: Ground) -> None:
        self._ground, self._state = ground, ground.state
        self._stack = AsyncExitStack()

    @abstractmethod
    def lives(self) -> tuple[tuple[str, Coroutine[Any, Any, None]], ...]:
        """What runs meanwhile, by name."""

    async def open(self, stack: AsyncExitStack) -> None:  # noqa: B027 - most own nothing besides
        """Before its lives begin: open what it owns besides, and push onto ``stack`` how that is closed."""

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            await self.open(stack)
            await run_beside(stack, *self.lives())
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()


class Duty:
    """What one of all schedulers does at a time, under a short lease in Redis."""

    def __init__(self, ground: Ground, name: str) -> None:
        self._state, self._scheduler_id, self._name = ground.state, ground.site.scheduler_id, name

    async def is_ours(self, *, hold_s: float = _DUTY_S) -> bool:
        """Take it, or keep it, for so long; False where another scheduler has it.

        Raises:
            StateUnavailable.
        """
        hold_ms = int(hold_s * 1000)
        return await self._state.take_duty(self._name, self._scheduler_id, hold_ms=hold_ms) is not None

    @asynccontextmanager
    async def held(self) -> AsyncIterator[None]:
        """However long the block takes, it stays ours."""
        keeping = asyncio.create_task(self._keep(), name=f"duty {self._name}")
        try:
            yield
        finally:
            keeping.cancel()

    async def _keep(self) -> None:
        while True:
            await asyncio.sleep(_DUTY_S / 4)
            with suppress(LcqError):
                await self.is_ours()


class Complaints:
    """What one of our lives could not do, said once for as long as it stays the same."""

    def __init__(self, subject: str) -> None:
        self._subject = subject
        self._said = ""

    def say(self, refusal: LcqError) -> None:
        if str(refusal) != self._said:
            self._said = str(refusal)
            _log.error("%s: %s", self._subject, refusal)


async def complained(duty: Coroutine[Any, Any, Any], complaints: Complaints) -> None:
    """Do one of several duties: what is refused is said, and keeps no other duty from being done.

    Raises:
        StateUnavailable: then the others have no chance either.
    """
    try:
        await duty
    except StateUnavailable:
        raise
    except LcqError as refusal:
        complaints.say(refusal)

"""The scheduler's HTTP port: bound at its start, and served from the first connection on.

What serves it is heavy to load (FastAPI: half a second, 30 MB), and most schedulers are never asked over HTTP.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from contextlib import AsyncExitStack
from importlib import import_module
from types import TracebackType
from typing import Self

from lcq.component import Ground, run_beside
from lcq.errors import InvalidConfig
from lcq.sockets import BACKLOG, advertised_host, is_loopback
from lcq.storage.depot import Depot

_log = logging.getLogger(__name__)


class HttpDoor:
    """``async with HttpDoor(ground, depot)``: this scheduler answers HTTP, as far as settings and port allow it.

    Raises on entering:
        InvalidConfig: it may not be bound so, or somebody chose a port that is taken.
    """

    def __init__(self, ground: Ground, depot: Depot) -> None:
        self._ground, self._depot = ground, depot
        self._stack = AsyncExitStack()
        self.address = ""
        """The URL that it is reached by; "": it does not answer HTTP."""

    async def __aenter__(self) -> Self:
        config = self._ground.config
        if not config.http.enabled:
            return self
        if not is_loopback(config.http.bind) and not config.http.tokens:
            raise InvalidConfig(
                f"http.bind is {config.http.bind}, and there are no tokens: whoever reaches it could submit and steer",
                hint="make one with 'lcq token NAME --role operator' and put it into http.tokens, or keep 127.0.0.1",
            )
        listener = self._bound()
        if listener is None:
            return self
        async with AsyncExitStack() as stack:
            stack.callback(listener.close)
            host, port = listener.getsockname()[:2]
            shown = "localhost" if host in ("0.0.0.0", "::") else host  # noqa: S104 - shown, not bound
            self.address = _at(shown, port)
            reached = advertised_host(config) if host in ("0.0.0.0", "::") else host  # noqa: S104
            self._ground.site.http = _at(reached, port).removeprefix("http://")
            await run_beside(stack, ("http", self._serve(listener)))
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    def _bound(self) -> socket.socket | None:
        """The listening socket; None where the port that nobody chose is taken."""
        config = self._ground.config
        bind = "127.0.0.1" if config.http.bind == "localhost" else config.http.bind
        listener = socket.socket(socket.AF_INET6 if ":" in bind else socket.AF_INET)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((bind, config.scheduler_port))
            listener.listen(BACKLOG)
        except OSError as error:
            listener.close()
            found = f"cannot bind HTTP to {bind}:{config.scheduler_port}: {error.strerror}"
            if config.model_fields_set & {"scheduler_port", "http"}:
                raise InvalidConfig(
                    found, hint="set scheduler_port to another one, or 0 for a free one; or http.enabled: false"
                ) from error
            _log.warning("%s: this scheduler answers no HTTP (set scheduler_port to another one)", found)
            return None
        listener.setblocking(False)
        return listener

    async def _serve(self, listener: socket.socket) -> None:
        await _first_connection(listener)
        # By name, and in a thread: the scheduler goes on meanwhile.
        serving = await asyncio.to_thread(import_module, "lcq.http.serving")
        await serving.serve(listener, self._ground, self._depot)


def _at(host: str, port: int) -> str:
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


async def _first_connection(listener: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    somebody = asyncio.Event()
    loop.add_reader(listener.fileno(), somebody.set)
    try:
        await somebody.wait()
    finally:
        loop.remove_reader(listener.fileno())

"""uvicorn inside the scheduler's event loop: from a listening socket until it is cancelled."""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from email.utils import formatdate
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from lcq.component import Ground
from lcq.http.app import make_app
from lcq.sockets import BACKLOG
from lcq.storage.depot import Depot

_PATIENCE_S = 3  # at the end, for answers that are under way
_HEADER_BYTES = 64 * 1024
_HEADER_S = 20.0  # within which a connection must have asked something
_IDLE_S = 30


async def serve(listener: socket.socket, ground: Ground, depot: Depot) -> None:
    """Answer HTTP on ``listener`` until cancelled; then what is under way has a moment to end."""
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
    app = make_app(ground, depot)
    config = uvicorn.Config(
        app.guard,
        http=_Connection,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        backlog=BACKLOG,
        limit_concurrency=ground.config.http.connections,
        timeout_keep_alive=_IDLE_S,
        timeout_graceful_shutdown=_PATIENCE_S,
        h11_max_incomplete_event_size=_HEADER_BYTES,
    )
    async with asyncio.TaskGroup() as group:
        following = group.create_task(app.endings.follow(), name="http endings")
        server = _Server(config)
        config.load()
        server.lifespan = config.lifespan_class(config)
        await server.startup(sockets=[listener])
        try:
            await server.main_loop()
        finally:
            app.closing.set()
            await server.shutdown(sockets=[listener])
            following.cancel()


class _Server(uvicorn.Server):
    """Ends when it is cancelled, wakes once a second for the Date header, and leaves signals to lcq.server."""

    async def main_loop(self) -> None:
        while True:
            date = formatdate(time.time(), usegmt=True).encode()
            self.server_state.default_headers = [(b"date", date), *self.config.encoded_headers]
            await asyncio.sleep(1.0)


class _Connection(H11Protocol):
    """A connection whose request does not come whole within a while is closed: slow headers hold no place."""

    _patience: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._watch()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        self._calm()
        super().connection_lost(exc)

    @property
    def _is_asking(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def _watch(self) -> None:
        if not self._is_asking:
            self._calm()
        elif self._patience is None:
            self._patience = self.loop.call_later(_HEADER_S, self._lose_patience)

    def _calm(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None

    def _lose_patience(self) -> None:
        self._patience = None
        if self._is_asking and not self.transport.is_closing():
            self.transport.abort()

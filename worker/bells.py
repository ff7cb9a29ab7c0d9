"""The bells: the PULL socket by which queues wake an idle agent. A busy one is not in the ring."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from types import TracebackType
from typing import Self

import zmq

from lcq.admission import Admission
from lcq.sockets import Mailbox, make_socket

_FULL_S = 0.05  # an agent that is full for less stays in the ring: leaving and coming back costs more
_TICKETS = 4  # a ticket is a bell: a second one in the same moment says nothing new


class Bells:
    """Calls ``on_ring`` whenever a queue that is listened to has a task. ``async with``, and run ``listen()``."""

    def __init__(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        *,
        on_ring: Callable[[], None],
        admission: Callable[[], Admission | None] = lambda: None,
    ) -> None:
        """``admission``: of the line by which the rings are told; here the same is shown."""
        self._admission_of_line = admission
        self._shown = ("", "")
        self._context = context
        self._on_ring = on_ring
        self._rings: Mapping[str, str] = {}
        self._queues: frozenset[str] = frozenset()
        self._connected: set[str] = set()
        self._leaving: asyncio.TimerHandle | None = None

    @property
    def _admission(self) -> Admission | None:
        return self._admission_of_line()

    async def __aenter__(self) -> Self:
        credential = self._admission.credential if self._admission is not None else None
        self._socket = make_socket(self._context, zmq.PULL, high_water=_TICKETS, credential=credential)
        self._mailbox = Mailbox(self._socket)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._leaving is not None:
            self._leaving.cancel()
        self._mailbox.close()

    def found_at(self, rings: Mapping[str, str]) -> None:
        """From now on the queues ring at these endpoints: queue -> endpoint."""
        if self._admission is not None and self._admission.server_key:
            self._shown = self._admission.shown
            rings, self._rings = dict(rings), {}  # what was refused once does not come again by itself
            self._leave()
            self._admission.show(self._socket)
        self._rings = dict(rings)
        self._leave()
        self.attend(self._queues)

    def admitted(self) -> None:
        """The line by which the rings are told has been let in: perhaps by another key, of the schedulers or ours."""
        if self._admission is not None and self._admission.shown != self._shown:
            self.found_at(self._rings)

    def attend(self, queues: Iterable[str]) -> None:
        """Be in the ring of just these queues; one is joined at once, and left after a moment."""
        self._queues = frozenset(queues)
        wanted = self._wanted()
        for endpoint in wanted - self._connected:
            self._mailbox.connect(endpoint)
            self._connected.add(endpoint)
        if self._connected <= wanted:
            if self._leaving is not None:
                self._leaving.cancel()
                self._leaving = None
        elif self._leaving is None:
            self._leaving = asyncio.get_running_loop().call_later(_FULL_S, self._leave)

    def _wanted(self) -> set[str]:
        return {self._rings[queue] for queue in self._queues if queue in self._rings}

    def _leave(self) -> None:
        self._leaving = None
        for endpoint in self._connected - self._wanted():
            self._mailbox.disconnect(endpoint)
            self._connected.discard(endpoint)

    async def listen(self) -> None:
        """Hear the bells until closed. What a ticket says is not looked at: the next step is told what there is."""
        async for _ in self._mailbox.batches():
            if self._queues:
                self._on_ring()

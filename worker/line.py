"""The control line: the agent's DEALER to one scheduler at a time. Asks until it is answered."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self, cast

import zmq

from lcq.admission import Admission
from lcq.errors import InvalidConfig, LcqError, NotAdmitted, ProtocolError, SchedulerUnreachable
from lcq.keyring import Credential
from lcq.sockets import Mailbox, make_socket
from lcq.wire import AnswerT, Order, Reply, Request, pack_request, unpack_reply

_log = logging.getLogger(__name__)
_NOBODY_S = (0.05, 1.0)  # first and longest pause between tries while there is no connection
_SILENT_S = (1.0, 4.0)  # first and longest pause before a request that got no answer is sent again


class NotAnswered(SchedulerUnreachable):
    """Nobody answers because nobody lets us in: ``refusal`` says why."""

    def __init__(self, endpoint: str, refusal: NotAdmitted) -> None:
        self.endpoint = endpoint
        self.refusal = refusal
        LcqError.__init__(self, refusal.message, hint=refusal.hint)


class ControlLine:
    """Requests and answers, and the orders in between. ``async with``; ``listen()`` runs as long as it is open.

    ``on_order`` is told each order, ``on_late`` each answer to a request that nobody waits for any more; ``credential``
    is shown to whom it connects, and ``on_admitted`` told when one lets it in; ``late``: of its ``Admission``.
    """

    def __init__(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        identity: bytes,
        *,
        on_order: Callable[[Order], None],
        on_late: Callable[[Reply], None],
        credential: Credential | None = None,
        on_admitted: Callable[[], None] = lambda: None,
        late: Callable[[], Credential | None] = lambda: None,
    ) -> None:
        self._credential = credential
        self._late = late
        self._on_admitted = on_admitted
        self._context = context
        self._identity = identity
        self._on_order = on_order
        self._on_late = on_late
        self._waiting: dict[str, tuple[asyncio.Future[Reply], bytes]] = {}
        self.endpoint = ""

    async def __aenter__(self) -> Self:
        self._socket = make_socket(self._context, zmq.DEALER, identity=self._identity, credential=self._credential)
        self._mailbox = Mailbox(self._socket)
        self.admission = Admission(
            self._socket,
            self._credential,
            connect_again=self._connect_again,
            on_admitted=self._on_admitted,
            late=self._late,
        )
        self._watching = asyncio.create_task(self.admission.watch(), name="control line's admission")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._watching.cancel()
        await asyncio.wait({self._watching})
        self.admission.close()
        self._mailbox.close()

    def _connect_again(self, _: str) -> None:
        """The handshake failed, and nobody tries again by itself."""
        endpoint = self.endpoint
        if endpoint:
            self._mailbox.disconnect(endpoint)
            self.endpoint = ""
            self.connect(endpoint)

    def connect(self, endpoint: str) -> None:
        """Speak to the scheduler at ``endpoint`` from now on, and to no other. What waits is asked there.

        Raises:
            InvalidConfig: that is no endpoint.
        """
        if endpoint == self.endpoint and not self.admission.key_has_come():
            return
        if self.endpoint:
            self._mailbox.disconnect(self.endpoint)
            self.endpoint = ""
        self._socket.ipv6 = "[" in endpoint
        self.admission.prepare(endpoint)
        try:
            self._mailbox.connect(endpoint)
        except zmq.ZMQError as error:
            raise InvalidConfig(
                f"cannot connect to {endpoint}: {error.strerror}", hint="check --scheduler and scheduler_host"
            ) from error
        self.endpoint = endpoint

    async def ask(
        self, request: Request[AnswerT], *, patience_s: float | None = None, nobody_s: float | None = None
    ) -> AnswerT:
        """The answer to ``request``, which is sent again, under its id, until there is one.

        Raises:
            SchedulerUnreachable: there was none within ``patience_s`` (None: wait for ever), or within ``nobody_s``
                there was not even a connection by which to ask.
            LcqError: the scheduler's refusal, as the class its code names.
        """
        answered: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self._waiting[request.id] = (answered, pack_request(request))
        try:
            async with asyncio.timeout(patience_s):
                await self._send_until_answered(request.id, nobody_s)
        except TimeoutError:
            if self.admission.refusal is not None:
                raise NotAnswered(self.endpoint, self.admission.refusal) from None
            raise SchedulerUnreachable(self.endpoint, patience_s or 0.0) from None
        finally:
            del self._waiting[request.id]
        return answered.result().answer(cast("type[AnswerT]", request.ANSWER))

    async def _send_until_answered(self, request_id: str, patience_s: float | None) -> None:
        answered, frame = self._waiting[request_id]
        nobody_s, silent_s = _NOBODY_S[0], _SILENT_S[0]
        waited_s = 0.0
        while not answered.done():
            missed = self._mailbox.dropped
            self._mailbox.send(frame)
            if self._mailbox.dropped > missed:
                if patience_s is not None and waited_s >= patience_s:
                    raise TimeoutError
                pause_s, nobody_s = nobody_s, min(2 * nobody_s, _NOBODY_S[1])
                waited_s += pause_s
            else:
                patience_s = None
                pause_s, silent_s = silent_s, min(1.5 * silent_s, _SILENT_S[1])
            await asyncio.wait({answered}, timeout=pause_s * random.uniform(0.75, 1.25))

    def ask_again(self) -> None:
        """Send at once whatever still waits for its answer: somebody listens again."""
        for _, frame in self._waiting.values():
            self._mailbox.send(frame)

    async def listen(self) -> None:
        """Take in what the scheduler says, until the line is closed."""
        nonsense = ""
        async for batch in self._mailbox.batches():
            for frames in batch:
                try:
                    reply = unpack_reply(frames[-1])
                except ProtocolError as error:
                    waiting = self._waiting.get(error.request_id)
                    if waiting is not None and not waiting[0].done():
                        waiting[0].set_exception(error)  # such as another version's answer: who asked has to know
                    elif str(error) != nonsense:
                        nonsense = str(error)
                        _log.error("the scheduler at %s cannot be understood: %s", self.endpoint, error)
                    continue
                if reply.server_keys:
                    self.admission.learn(reply.server_keys)
                self._hear(reply)

    def _hear(self, reply: Reply) -> None:
        if reply.order is not None:
            self._on_order(reply.order)
            return
        waiting: tuple[asyncio.Future[Reply], Any] | None = self._waiting.get(reply.id)
        if waiting is None or waiting[0].done():
            self._on_late(reply)
        else:
            waiting[0].set_result(reply)

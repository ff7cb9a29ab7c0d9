"""A client's connection to every scheduler that it knows: requests go out until they are answered."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from types import TracebackType
from typing import Self, cast

import zmq

from lcq.admission import Admission
from lcq.client.addresses import LISTEN_S, find_schedulers, found_around, host_and_port, listens, looks_around
from lcq.config import DistributedConfig
from lcq.errors import InvalidInput, NotAdmitted, ProtocolError, SchedulerUnreachable, StateUnavailable
from lcq.keyring import Credential, client_file, credential_for
from lcq.sockets import Mailbox, make_socket
from lcq.wire import MAX_MESSAGE_BYTES, Act, AnswerT, Reply, Request, pack_request, unpack_reply

log = logging.getLogger(__name__)

_NOBODY_S = (0.01, 0.2)  # first and longest pause between tries while there is no connection
_AWAY_S = 0.2  # between two tries while the scheduler's Redis is away
SILENT_S = (0.5, 4.0)
"""First and longest pause before a request that got no answer is sent again."""


class Connection:
    """What ``AsyncClient`` is built on: ``ask``, from many coroutines of one event loop, inside ``async with``.

    It is connected to every scheduler that it was given or that an answer has named. What subclasses add are the
    requests, by what they are about.
    """

    def __init__(
        self,
        config: DistributedConfig,
        scheduler: str | None,
        actor: str,
        timeout_s: float,
        *,
        credential: Credential | None = None,
    ) -> None:
        """``credential``: what is shown instead of this user's key, wherever it is.

        Raises:
            InvalidInput: ``scheduler`` cannot be used.
        """
        self._settings = config
        self._shown = credential
        self.given = find_schedulers(config, scheduler)
        """Where to ask by what is configured; ``endpoints`` may come from the LAN instead."""
        self.endpoints = self.given
        self._config = config if looks_around(config, scheduler) else None
        self.actor = actor[:128]
        self.timeout_s = timeout_s
        self._waiting: dict[str, asyncio.Future[Reply]] = {}
        self._context: zmq.Context[zmq.Socket[bytes]] | None = None
        self._mailbox: Mailbox | None = None
        self._receiver: asyncio.Task[None] | None = None
        self._admission: Admission | None = None
        self._watching: asyncio.Task[None] | None = None
        self._connected: dict[str, None] = {}  # endpoints, in the order in which they were learnt
        self._told: tuple[str, ...] = ()

    @property
    def endpoint(self) -> str:
        """The first of the schedulers that this client was given."""
        return self.endpoints[0]

    @property
    def known_schedulers(self) -> int:
        """How many schedulers requests go to, in turn."""
        return len(self._connected)

    async def __aenter__(self) -> Self:
        """Raises:
        InvalidInput: an address is none.
        InvalidConfig: the key of this user cannot be used.
        SeveralClusters: no address is configured, and the LAN tells of more than one cluster.
        """
        if self._config is not None and not await listens(self.given[0]):
            found = await found_around(self._config, min(LISTEN_S, self.timeout_s))
            self.endpoints = found or self.given
        credential = self._own_key()
        self._context = zmq.Context()
        self._socket = make_socket(self._context, zmq.DEALER, credential=credential)
        self._mailbox = Mailbox(self._socket)
        self._admission = Admission(
            self._socket, credential, connect_again=self._connect_again, on_refused=self._refused, late=self._own_key
        )
        self._told, self._connected = (), {}
        for endpoint in self.endpoints:
            try:
                self._connect(endpoint)
            except zmq.ZMQError as error:
                self._admission.close()
                self._mailbox.close()
                self._context.term()
                raise InvalidInput(
                    f"cannot connect to {endpoint}: {error.strerror}", hint="check --scheduler and scheduler_host"
                ) from error
        self._receiver = asyncio.create_task(self._receive(self._mailbox), name="lcq client receiver")
        self._watching = asyncio.create_task(self._admission.watch(), name="lcq client admission")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        lives = {life for life in (self._receiver, self._watching) if life is not None}
        for life in lives:
            life.cancel()
        if lives:
            await asyncio.wait(lives)
        if self._admission is not None:
            self._admission.close()
        if self._mailbox is not None:
            self._mailbox.close()
        if self._context is not None:
            self._context.term()
        self._receiver = self._watching = self._admission = self._mailbox = self._context = None

    def _own_key(self) -> Credential | None:
        """What this user would show now, where nobody has said what to show.

        Raises:
            InvalidConfig: it cannot be used.
        """
        return self._shown or credential_for(self._settings, self.endpoints, client_file(self._settings))

    # ------------------------------------------------------------ whom to ask

    def _connect(self, endpoint: str) -> None:
        self._socket.ipv6 = "[" in endpoint
        if self._admission is not None:
            self._admission.prepare(endpoint, even_here=True)
        self._socket.connect(endpoint)
        self._connected[endpoint] = None

    def _connect_again(self, endpoint: str) -> None:
        """Where the handshake failed, or everywhere if that name is none of ours."""
        for known in [endpoint] if endpoint in self._connected else list(self._connected):
            with contextlib.suppress(zmq.ZMQError):
                self._socket.disconnect(known)
            self._connect(known)

    def _refused(self, refusal: NotAdmitted) -> None:
        """Whoever waits need not any longer, if this was the only scheduler."""
        if len(self._connected) == 1:
            for waiting in self._waiting.values():
                if not waiting.done():
                    waiting.set_exception(refusal)

    def _learn(self, told: tuple[str, ...]) -> None:
        """Ask the schedulers that an answer names too, and no more those that it names no longer."""
        self._told = told
        given = {host_and_port(endpoint) for endpoint in self.endpoints}
        found = {endpoint: host_and_port(endpoint) for endpoint in told}
        # A scheduler that we know by another address may be on another host: its 127.0.0.1 is not ours.
        are_here = any(place in given for place in found.values())
        more = [
            endpoint
            for endpoint, (host, port) in found.items()
            if (host, port) not in given and (are_here or host != "127.0.0.1")
        ]
        for endpoint in more:
            if endpoint not in self._connected:
                try:
                    self._connect(endpoint)
                except zmq.ZMQError as error:
                    log.debug("cannot connect to %s: %s", endpoint, error.strerror)
        for endpoint in [known for known in self._connected if known not in (*self.endpoints, *more)]:
            self._socket.disconnect(endpoint)
            del self._connected[endpoint]

    # ------------------------------------------------------------ one request, one answer

    async def ask(self, request: Request[AnswerT], *, hold_s: float = 0.0) -> AnswerT:
        """The answer to any request of ``lcq.wire``. ``hold_s``: how long the scheduler may think about it.

        An act that meets a scheduler whose Redis is away is asked for again under its id, which is safe, in that time.

        Raises:
            SchedulerUnreachable: nobody answered in time; the request may have been done all the same.
            StateUnavailable: Redis was away all the time; the same holds.
            LcqError: the scheduler's refusal, as the class its code names.
        """
        mailbox = self._mailbox
        if mailbox is None:
            raise RuntimeError("the client is not open: use it in a with block")
        frame = pack_request(request)
        if len(frame) > MAX_MESSAGE_BYTES:
            raise InvalidInput(
                f"a {request.CMD} of {len(frame)} bytes is over the limit of {MAX_MESSAGE_BYTES}",
                hint="make the tasks' config and metadata smaller, or send fewer at a time",
            )
        reply: Reply | None = None
        try:
            async with asyncio.timeout(self.timeout_s + hold_s):
                while reply is None or (isinstance(request, Act) and _is_away(reply)):
                    if reply is not None:
                        await asyncio.sleep(_AWAY_S * random.uniform(0.5, 1.5))
                    answered = self._waiting[request.id] = asyncio.get_running_loop().create_future()
                    await self._send_until_answered(mailbox, frame, answered, hold_s)
                    reply = answered.result()
        except TimeoutError as late:
            if reply is None and self._admission is not None and self._admission.refusal is not None:
                raise self._admission.refusal from late
            if reply is None:
                raise SchedulerUnreachable(", ".join(self._connected), self.timeout_s + hold_s) from late
        finally:
            self._waiting.pop(request.id, None)
        return reply.answer(cast("type[AnswerT]", request.ANSWER))

    @staticmethod
    async def _send_until_answered(
        mailbox: Mailbox, frame: bytes, answered: asyncio.Future[Reply], hold_s: float
    ) -> None:
        nobody_s, silent_s = _NOBODY_S[0], SILENT_S[0]
        while not answered.done():
            dropped_before = mailbox.dropped
            mailbox.send(frame)
            if mailbox.dropped > dropped_before:
                pause_s, nobody_s = nobody_s, min(2 * nobody_s, _NOBODY_S[1])
            else:
                pause_s, silent_s = hold_s + silent_s, min(2 * silent_s, SILENT_S[1])
            await asyncio.wait({answered}, timeout=pause_s * random.uniform(0.75, 1.25))

    async def _receive(self, mailbox: Mailbox) -> None:
        async for batch in mailbox.batches():
            for frames in batch:
                try:
                    reply = unpack_reply(frames[-1])
                except ProtocolError as error:  # it does not say to whom it speaks, so everybody must know
                    for waiting in self._waiting.values():
                        if not waiting.done():
                            waiting.set_exception(error)
                    continue
                if reply.server_keys and self._admission is not None:
                    self._admission.learn(reply.server_keys)
                if reply.schedulers and reply.schedulers != self._told:
                    self._learn(reply.schedulers)
                answered = self._waiting.get(reply.id)
                if answered is not None and not answered.done():
                    answered.set_result(reply)


def _is_away(reply: Reply) -> bool:
    return reply.error is not None and reply.error.get("code") == StateUnavailable.code

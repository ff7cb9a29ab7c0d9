"""The one place that makes ZeroMQ sockets: every option set on purpose, every socket owned by one coroutine."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import random
import socket
from collections.abc import AsyncIterator

import psutil
import zmq

from lcq.config import DistributedConfig
from lcq.errors import InvalidConfig
from lcq.wire import MAX_MESSAGE_BYTES

_WILDCARDS = frozenset({"0.0.0.0", "*", "::", "[::]"})  # noqa: S104 - known, not bound
_ASKING = frozenset({zmq.DEALER, zmq.PUSH})
_BATCH = 256  # messages taken from a socket before anything else gets its turn
BACKLOG = 1024  # connections that may come at once: a fleet that finds its scheduler again
MOST_RECONNECT_S = 2.0  # a peer that was away for long is tried again at least so often
LAST_WORDS_MS = 300


def make_socket(
    context: zmq.Context[zmq.Socket[bytes]], kind: int, *, identity: bytes = b"", high_water: int = 10_000
) -> zmq.Socket[bytes]:
    """A socket of ``kind`` with LCQ's options. Bind or connect it yourself."""
    socket = context.socket(kind)
    socket.linger = 0  # nothing in a socket is the only copy of anything
    socket.immediate = True  # queue only for peers that are really there
    # One side of a connection asks whether the other is still there, and tells it by the time to live to give up where
    # nothing more comes. It is the side whose incoming pipe never stops: libzmq 4.3.5 ends the process ("Assertion
    # failed: !_io_error") where it has to ask on a connection that broke while that pipe was full, or closed, as a
    # ROUTER's is when a peer comes back under its name. It ends it, too, where a question has to be answered that is
    # found behind a full pipe of a connection that has broken: so the pipes of those who are asked never are full. Who
    # rings bounds a PULL's; a ROUTER's would be bounded in messages only, of which each may be of MAX_MESSAGE_BYTES.
    if kind in _ASKING:
        socket.heartbeat_ivl = 2000
        socket.heartbeat_timeout = 6000
        socket.heartbeat_ttl = 6000
    socket.reconnect_ivl = random.randint(50, 150)  # jittered: a restarted scheduler meets no herd
    # ZeroMQ's own jitter ends where a pause has grown to its maximum, so that is another one for each socket too.
    socket.reconnect_ivl_max = int(MOST_RECONNECT_S * random.uniform(600, 1000))
    socket.backlog = BACKLOG
    socket.maxmsgsize = MAX_MESSAGE_BYTES
    socket.sndhwm = high_water
    socket.rcvhwm = high_water if kind in _ASKING else 0
    if kind == zmq.ROUTER:
        socket.router_mandatory = True  # a peer that has gone is an error, not a silent drop
        socket.router_handover = True  # a restarted agent takes its name over from its dead socket
    if identity:
        socket.identity = identity
    return socket


class Mailbox:
    """One socket, owned by one coroutine: others send through it, and get what arrives in batches.

    Sending never blocks and never waits; what cannot go out now (no peer, a full pipe) is dropped and
    counted in ``dropped``, because every sender asks again. Make it inside the event loop.

    ZeroMQ's file descriptor tells of a change once: whatever touches the socket may swallow that word. So every
    touch goes through here, and looks afterwards whether something has arrived.
    """

    def __init__(self, socket: zmq.Socket[bytes]) -> None:
        self._socket = socket
        self._loop = asyncio.get_running_loop()
        self._arrived = asyncio.Event()
        self._loop.add_reader(socket.fileno(), self._look)
        self.dropped = 0

    def _look(self) -> None:
        if not self._socket.closed and int(self._socket.getsockopt(zmq.EVENTS)) & zmq.POLLIN:
            self._arrived.set()

    def send(self, *frames: bytes) -> None:
        """Hand ``frames`` to ZeroMQ, now."""
        try:
            self._socket.send_multipart(frames, zmq.NOBLOCK)
        except zmq.ZMQError:  # Again: no peer or a full pipe; EHOSTUNREACH: the peer has gone
            self.dropped += 1
        self._look()

    def connect(self, endpoint: str) -> None:
        """Raises:
        zmq.ZMQError: ``endpoint`` is none.
        """
        self._socket.connect(endpoint)
        self._look()

    def disconnect(self, endpoint: str) -> None:
        self._socket.disconnect(endpoint)
        self._look()

    async def batches(self) -> AsyncIterator[list[list[bytes]]]:
        """Everything that waits on the socket, again and again, until it is closed."""
        while not self._socket.closed:
            batch: list[list[bytes]] = []
            try:
                while len(batch) < _BATCH:
                    batch.append(self._socket.recv_multipart(zmq.NOBLOCK))
            except zmq.Again:
                self._arrived.clear()
                self._look()  # the attempts to receive are touches too
            if batch:
                yield batch
                await asyncio.sleep(0)  # a flood must not keep everybody else from their turn
            else:
                await self._arrived.wait()

    def close(self, *, linger_ms: int = 0) -> None:
        """``linger_ms``: how long what was sent last may still take to go out."""
        if not self._socket.closed:
            self._loop.remove_reader(self._socket.fileno())
            self._socket.close(linger=linger_ms)
            self._arrived.set()


def bind_socket(socket: zmq.Socket[bytes], address: str, port: int, what: str, key: str) -> int:
    """Bind to ``address``:``port`` (0: any free one). Answers the port.

    Raises:
        InvalidConfig: the port is taken, or the address is not this machine's; names the setting ``key``.
    """
    address = "127.0.0.1" if address == "localhost" else address
    try:
        if port == 0:
            return int(socket.bind_to_random_port(f"tcp://{address}"))
        socket.bind(f"tcp://{address}:{port}")
    except zmq.ZMQError as error:
        raise InvalidConfig(
            f"cannot bind {what} to {address}:{port}: {error.strerror or error}",
            hint=f"is another scheduler running here? set {key} to other ports, or 0 for free ones",
        ) from error
    return port


def advertised_host(config: DistributedConfig) -> str:
    """The host that peers are told: the configured one, or the loopback address where that is bound."""
    bind = config.zeromq.bind
    if is_loopback(bind):
        return bind
    if not is_loopback(config.scheduler_host):
        return config.scheduler_host
    return (_own_address() or config.scheduler_host) if bind in _WILDCARDS else bind


def guesses_host(config: DistributedConfig) -> bool:
    """Whether the host that peers are told is only our guess: then they keep to the one by which they reached us."""
    return not is_loopback(config.zeromq.bind) and is_loopback(config.scheduler_host)


def _own_address() -> str:
    """The address of this host from which it would speak to the rest of the world; "" if it is on no network."""
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("192.0.2.1", 9))  # sends nothing
        return str(probe.getsockname()[0])
    return next(
        (
            one.address
            for addresses in psutil.net_if_addrs().values()
            for one in addresses
            if one.family is socket.AF_INET and not is_loopback(one.address)
        ),
        "",
    )


def refuse_open_bind(config: DistributedConfig) -> None:
    """Raises:
    InvalidConfig: another address than loopback is to be bound, and nobody said that the network is trusted.
    """
    if is_loopback(config.zeromq.bind) or config.zeromq.trusted_network:
        return
    raise InvalidConfig(
        f"zeromq.bind is {config.zeromq.bind}: whoever reaches it could submit and steer, nothing is encrypted",
        hint="keep 127.0.0.1, or set zeromq.trusted_network: true on a network whose every member you trust",
    )


def is_loopback(address: str) -> bool:
    """Whether ``address``, or the name localhost, is this host's own."""
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return address == "localhost"

"""The one place that makes ZeroMQ sockets: every option set on purpose, every socket owned by one coroutine."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
import os
import random
import socket
import struct
from collections.abc import AsyncIterator, Callable
from enum import StrEnum
from typing import TYPE_CHECKING

import psutil
import zmq

from lcq.config import DistributedConfig
from lcq.errors import InvalidConfig
from lcq.ids import new_id
from lcq.wire import MAX_MESSAGE_BYTES

if TYPE_CHECKING:
    from lcq.gate import Gate
    from lcq.keyring import Credential

_log = logging.getLogger(__name__)

_WILDCARDS = frozenset({"0.0.0.0", "*", "::", "[::]"})  # noqa: S104 - known, not bound
_ASKING = frozenset({zmq.DEALER, zmq.PUSH})
_BATCH = 256  # messages taken from a socket before anything else gets its turn
BACKLOG = 1024  # connections that may come at once: a fleet that finds its scheduler again
MOST_RECONNECT_S = 2.0  # a peer that was away for long is tried again at least so often
LAST_WORDS_MS = 300
_BIND_TRIES, _BIND_PAUSE_S = 300, 0.02
_HANDSHAKE_MS = 5000  # a stranger who connects and says nothing is not waited for longer
ZAP_DOMAIN = b"lcq"
# CVE-2019-13132 (before authentication), CVE-2019-6250, CVE-2020-15166 are of older ones.
SAFE_VERSION = (4, 3, 3)


def make_socket(
    context: zmq.Context[zmq.Socket[bytes]],
    kind: int,
    *,
    identity: bytes = b"",
    high_water: int = 10_000,
    gate: Gate | None = None,
    credential: Credential | None = None,
) -> zmq.Socket[bytes]:
    """A socket of ``kind`` with LCQ's options. Bind it by ``bind_socket``, or connect it yourself.

    ``gate``: of this context; it lets in only whose keys the gate knows. ``credential``: what it shows where it
    connects. With neither, nothing is encrypted.
    """
    socket = context.socket(kind)
    if gate is not None:
        _lock(socket, gate, context)
    elif credential is not None:
        show(socket, credential)
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


def _lock(socket: zmq.Socket[bytes], gate: Gate, context: zmq.Context[zmq.Socket[bytes]]) -> None:
    # Without a handler in this very context, a CURVE server lets in whoever knows its public key.
    if not gate.is_open or gate.context is not context:
        socket.close(linger=0)
        raise RuntimeError("a socket is to be locked by a gate that is not open in its context")
    socket.curve_server = True
    gate.turn_key(socket)
    socket.zap_domain = ZAP_DOMAIN
    socket.setsockopt(zmq.ZAP_ENFORCE_DOMAIN, 1)  # where the handler is gone nobody is let in, instead of everybody
    socket.setsockopt(zmq.HANDSHAKE_IVL, _HANDSHAKE_MS)


def show(socket: zmq.Socket[bytes], credential: Credential, *, attempt: int = 0) -> None:
    """Let the next connection of ``socket`` show this key, to a scheduler that is known by one of its keys.

    ``attempt``: by which, where there are several: the first, the second …, and the first again.
    """
    require_curve()
    socket.curve_serverkey = bytes.fromhex(credential.server_keys[attempt % len(credential.server_keys)])
    socket.curve_publickey = bytes.fromhex(credential.pair.public)
    socket.curve_secretkey = bytes.fromhex(credential.pair.secret)


def require_curve() -> None:
    """Raises:
    InvalidConfig: the libzmq here cannot encrypt, or is known to be open to attacks where it does.
    """
    found = zmq.zmq_version_info()
    if found < SAFE_VERSION or not zmq.has("curve"):
        what = "has no CURVE" if found >= SAFE_VERSION else f"is {zmq.zmq_version()}, older than 4.3.3"
        raise InvalidConfig(
            f"keys cannot be used: the libzmq of this pyzmq {what}", hint="install pyzmq 27 or newer from its wheel"
        )


def new_key_pair() -> tuple[str, str]:
    """A fresh public and secret key, 64 hexadecimal digits each."""
    require_curve()
    from zmq.utils import z85

    public, secret = zmq.curve_keypair()
    return z85.decode(public).hex(), z85.decode(secret).hex()


def key_pair_of(secret: bytes) -> tuple[str, str]:
    """The public and the secret key that 32 bytes are, 64 hexadecimal digits each."""
    require_curve()
    from zmq.utils import z85

    return z85.decode(zmq.curve_public(z85.encode(secret))).hex(), secret.hex()


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

    def _receive(self) -> list[bytes]:
        """Raises:
        zmq.Again: nothing waits.
        """
        return self._socket.recv_multipart(zmq.NOBLOCK)

    async def batches(self) -> AsyncIterator[list[list[bytes]]]:
        """Everything that waits on the socket, again and again, until it is closed."""
        while not self._socket.closed:
            batch: list[list[bytes]] = []
            try:
                while len(batch) < _BATCH:
                    batch.append(self._receive())
            except zmq.Again:
                self._arrived.clear()
                self._look()  # the attempts to receive are touches too
            if batch:
                yield batch
                await asyncio.sleep(0)  # a flood must not keep everybody else from their turn
            else:
                await self._arrived.wait()

    async def bind_again(self, gate: Gate) -> None:
        """Cut every connection to a locked socket; who still may comes again.

        For sockets that never hear who is at the other end, and for another key of the gate.
        """
        endpoint = _endpoint_of(self._socket)
        with contextlib.suppress(zmq.ZMQError):
            self._socket.unbind(endpoint)
        gate.turn_key(self._socket)
        for _ in range(_BIND_TRIES):  # the one before is closed by another thread
            if self._socket.closed:
                return
            try:
                self._socket.bind(endpoint)
            except zmq.ZMQError:
                await asyncio.sleep(_BIND_PAUSE_S)
            else:
                self._look()
                return
        _log.error("%s cannot be bound again: nobody can connect there until this scheduler is restarted", endpoint)

    def close(self, *, linger_ms: int = 0) -> None:
        """``linger_ms``: how long what was sent last may still take to go out."""
        if not self._socket.closed:
            self._loop.remove_reader(self._socket.fileno())
            self._socket.close(linger=linger_ms)
            self._arrived.set()


class KeyedMailbox(Mailbox):
    """The mailbox of a locked ROUTER: each message is sender, frame, and the key whose owner sent it.

    Messages of other forms are none of ours, and are dropped.
    """

    def __init__(self, socket: zmq.Socket[bytes]) -> None:
        super().__init__(socket)
        self._key_at: dict[int, str] = {}  # file descriptor of a connection -> who spoke there last

    def _receive(self) -> list[bytes]:
        parts = self._socket.recv_multipart(zmq.NOBLOCK, copy=False)
        last = parts[-1]
        if len(parts) != 2:
            return []
        key = str(last.get("User-Id"))  # by libzmq, from what the gate has said: a peer cannot set it
        self._key_at[int(last.get(zmq.SRCFD))] = key
        return [parts[0].bytes, last.bytes, key.encode()]

    def cut(self, key: str) -> int:
        """Break the connections on which this key was heard. Answers how many.

        One that has never said a word stays until it does: nothing was ever sent there.
        """
        spoke = [place for place, known in self._key_at.items() if known == key]
        port = _endpoint_of(self._socket).rpartition(":")[2]
        done = 0
        for place in spoke:
            del self._key_at[place]
            with contextlib.suppress(OSError), socket.socket(fileno=os.dup(place)) as line:
                if str(line.getsockname()[1]) == port:  # the number may have been another file's since
                    line.shutdown(socket.SHUT_RDWR)  # libzmq finds its end, as if the peer had gone
                    done += 1
        return done


def _endpoint_of(socket: zmq.Socket[bytes]) -> str:
    return bytes(socket.getsockopt(zmq.LAST_ENDPOINT)).rstrip(b"\0").decode()


class Handshake(StrEnum):
    """How the handshake of a connection ended."""

    DONE = "done"
    REFUSED = "refused"  # by the gate: the key is not known, or was revoked
    OTHER_MECHANISM = "other_mechanism"  # one side wants keys, the other has none
    UNPROVEN = "unproven"  # what was said does not fit the keys: most often another server's key is known
    MALFORMED = "malformed"  # no ZeroMQ
    BROKEN_OFF = "broken_off"  # the other side left


_MECHANISM_MISMATCH, _CRYPTOGRAPHIC = 0x11000002, 0x11000001
_WATCHED = (
    zmq.EVENT_HANDSHAKE_SUCCEEDED
    | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
    | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
    | zmq.EVENT_HANDSHAKE_FAILED_AUTH
)


class HandshakeWatch:
    """Tells how each handshake of a socket ends, and at which endpoint of it. Run ``watch()``; ``close()`` before it.

    Make it before the socket is bound or connected, inside the event loop.
    """

    def __init__(self, socket: zmq.Socket[bytes], on_end: Callable[[Handshake, str], None]) -> None:
        self._socket = socket
        self._on_end = on_end
        self._mailbox = Mailbox(_monitor_of(socket))

    async def watch(self) -> None:
        """For as long as it is open."""
        async for batch in self._mailbox.batches():
            for frames in batch:
                event, value = struct.unpack("=HI", frames[0])
                end = _end_of(event, value)
                if end is not None:
                    self._on_end(end, frames[1].decode("ascii", "replace"))

    def close(self) -> None:
        if not self._socket.closed:
            self._socket.monitor(
                None, 0
            )  # first: it writes a last event, and waits for ever where nobody is to read it
            self._mailbox.close()


def _monitor_of(socket: zmq.Socket[bytes]) -> zmq.Socket[bytes]:
    """What libzmq tells of the handshakes of ``socket``. Never full: libzmq's own thread would wait until it is read,
    and with it every socket of this process."""
    address = f"inproc://handshakes-{new_id()}"
    socket.monitor(address, _WATCHED)
    told: zmq.Socket[bytes] = socket.context.socket(zmq.PAIR)
    told.rcvhwm = 0
    told.linger = 0
    told.connect(address)
    return told


def _end_of(event: int, value: int) -> Handshake | None:
    if event == zmq.EVENT_HANDSHAKE_SUCCEEDED:
        return Handshake.DONE
    if event == zmq.EVENT_HANDSHAKE_FAILED_AUTH:
        return Handshake.REFUSED
    if event == zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL:
        return {_MECHANISM_MISMATCH: Handshake.OTHER_MECHANISM, _CRYPTOGRAPHIC: Handshake.UNPROVEN}.get(
            value, Handshake.MALFORMED
        )
    return Handshake.BROKEN_OFF if event == zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL else None


def bind_socket(
    socket: zmq.Socket[bytes], address: str, port: int, what: str, key: str, *, trusted: bool = False
) -> int:
    """Bind to ``address``:``port`` (0: any free one). Answers the port.

    ``trusted``: also to another address than loopback although it lets anybody in.

    Raises:
        InvalidConfig: the port is taken, or the address is not this machine's; names the setting ``key``.
    """
    address = "127.0.0.1" if address == "localhost" else address
    # Asked of the socket itself: one that was forgotten is open to anybody, while all others are locked.
    if not (is_loopback(address) or trusted or is_locked(socket)):
        socket.close(linger=0)
        raise RuntimeError(f"{what} was to be bound to {address} without a lock")
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


def is_locked(socket: zmq.Socket[bytes]) -> bool:
    """Whether libzmq itself says of this socket that it lets in nobody without a key that a gate knows."""
    return (
        socket.getsockopt(zmq.MECHANISM) == zmq.CURVE
        and bool(socket.getsockopt(zmq.CURVE_SERVER))
        and socket.getsockopt(zmq.ZAP_DOMAIN) == ZAP_DOMAIN
        and bool(socket.getsockopt(zmq.ZAP_ENFORCE_DOMAIN))
    )


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


def refuse_open_bind(config: DistributedConfig, *, is_keyed: bool) -> None:
    """Raises:
    InvalidConfig: another address than loopback is to be bound without keys, and nobody said that the network is
        trusted.
    """
    if is_loopback(config.zeromq.bind) or is_keyed:
        return
    if config.zeromq.trusted_network:
        _log.warning(
            "zeromq.bind is %s and there are no keys (zeromq.trusted_network): NOTHING IS ENCRYPTED, whoever reaches "
            "the ports may submit and steer; 'lcq keys init' makes keys (docs/enrolment.md)",
            config.zeromq.bind,
        )
        return
    raise InvalidConfig(
        f"zeromq.bind is {config.zeromq.bind}, and there are no keys: whoever reaches it could submit and steer",
        hint="make keys with 'lcq keys init', then let hosts in by 'lcq keys invite' (docs/enrolment.md); or keep "
        "127.0.0.1; or set zeromq.trusted_network: true on a network whose every member you trust",
    )


def is_loopback(address: str) -> bool:
    """Whether ``address``, or the name localhost, is this host's own."""
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return address == "localhost"

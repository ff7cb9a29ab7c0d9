"""Who is let in: the list of keys as every scheduler sees it, and the gate of a context, which asks it.

The gate is libzmq's handler for authentication (ZAP): without one, a CURVE socket lets in whoever knows its public key.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from types import TracebackType
from typing import TYPE_CHECKING, Self

import zmq

from lcq.clock import steady_now
from lcq.component import Complaints, run_beside
from lcq.errors import LcqError, StateUnavailable
from lcq.file_mark import file_mark
from lcq.key_record import KeyRecord, KeyRole, fingerprint_of
from lcq.keyring import Credential, ServerKeys, is_keyed, peer_pair, read_server_keys, server_file
from lcq.sockets import Handshake, HandshakeWatch, Mailbox, make_socket, refuse_open_bind
from lcq.state.feed import batches

if TYPE_CHECKING:
    from lcq.component import Ground
    from lcq.config import DistributedConfig
    from lcq.state.manager import StateManager

_log = logging.getLogger(__name__)
_HANDLER = "inproc://zeromq.zap.01"  # where libzmq looks for it
_LOOK_AT_FILE_S = 1.0
_LOOK_S = 5.0  # the floor under the events that tell of changes
_AGAIN_S = 0.25  # at least, between two looks for keys that are not on the list, whoever shows them
_TELL_S = 2.0  # between two words to Redis of who came and who was refused
_SAY_S, _MOST_SAID = 60.0, 1024
_TURNING_S = 60.0  # after another key of the schedulers has come, who knew the one before is no stranger
_UNDERWAY = 256  # handshakes that are decided at a time; more are refused, and come again
KEY_MOVES = frozenset({"enrol_key", "accept_invitation", "revoke_key", "replace_key"})


class Unadmitted(Exception):
    """Why a key is not let in."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class AllowList:
    """The keys that may connect, as Redis had them last. While it is away, that goes on holding."""

    def __init__(self, state: StateManager) -> None:
        self._state = state
        self._read = asyncio.Lock()
        self._read_at = -_LOOK_S
        self._known: Mapping[str, KeyRecord] = {}
        self._peers: Mapping[str, KeyRecord] = {}  # what schedulers show each other, which no list has
        self._live: frozenset[str] = frozenset()  # of what is known, when it was last looked at
        self._redis_ms, self._redis_at = 0, 0.0  # what Redis's clock showed, and when by ours
        self.credential: Credential | None = None
        """What a scheduler shows another one that it asks something."""
        self._on_revoked: list[Callable[[KeyRecord], None]] = []
        self._refused: Counter[str] = Counter()
        self._turned_at, self._expected = -math.inf, 0
        self._last_refused: dict[str, str] = {}  # reason -> who, and from where
        self._seen: dict[str, str] = {}  # key -> from where it came
        self.refused: Counter[str] = Counter()
        """Handshakes that failed here since the start, by reason: for metrics."""
        self.gates: list[Gate] = []

    def on_revoked(self, told: Callable[[KeyRecord], None], stack: AsyncExitStack) -> None:
        """``told``: called with each record that ceases to be live, until ``stack`` is closed."""
        self._on_revoked.append(told)
        stack.callback(self._on_revoked.remove, told)

    def know_peers(self, keys: ServerKeys) -> None:
        """Who has the schedulers' key is one of them, and may look as they do."""
        pairs = [peer_pair(pair) for pair in (keys.pair, keys.coming) if pair is not None]
        self._peers = {one.public: KeyRecord(key=one.public, name="scheduler", role=KeyRole.VIEWER) for one in pairs}
        self.credential = Credential(pairs[0], keys.told, name="scheduler", role=KeyRole.VIEWER)

    @property
    def _now_ms(self) -> int:
        """Redis's clock, by which keys and invitations end: this host's may be wrong, and others' differ."""
        return self._redis_ms + round((steady_now() - self._redis_at) * 1000)

    def holder(self, key: str) -> KeyRecord | None:
        """Whose key it is, if it may still speak."""
        found = self._known.get(key) or self._peers.get(key)
        return found if found is not None and found.is_live(self._now_ms) else None

    def holders(self) -> tuple[KeyRecord, ...]:
        """All who may speak."""
        now_ms = self._now_ms
        return tuple(record for record in self._known.values() if record.is_live(now_ms))

    async def admit(self, key: str, address: str) -> KeyRecord:
        """Raises:
        Unadmitted: who has it is not to be let in.
        """
        found = self._known.get(key) or self._peers.get(key)
        if found is None:  # it may have been enrolled just now, elsewhere
            asked_at = steady_now()
            await asyncio.sleep(max(0.0, self._read_at + _AGAIN_S - asked_at))
            try:
                await self.read(asked_at=asked_at)
            except LcqError as away:
                raise Unadmitted("redis_away") from away
            found = self._known.get(key)
        if found is None:
            raise Unadmitted("unknown_key")
        if found.revoked_ms:
            raise Unadmitted("revoked_key")
        if not found.is_live(self._now_ms):
            raise Unadmitted("expired_key")
        if key in self._known:
            self._seen[key] = address
        return found

    def failed(self) -> int:
        """How many handshakes failed here since the start that somebody meant: who connects and leaves without a word,
        as what looks whether a port is open does, is none of them."""
        return self.refused.total() - self.refused[Handshake.BROKEN_OFF] - self._expected

    def expect_old_key(self) -> None:
        """The schedulers' key has just changed: who knew the one before tries that first."""
        self._turned_at = steady_now()

    def note(self, reason: str, who: str) -> None:
        """A handshake has failed."""
        self.refused[reason] += 1
        self._expected += reason == Handshake.UNPROVEN and steady_now() - self._turned_at < _TURNING_S
        self._refused[reason] += 1
        self._last_refused[reason] = who

    async def read(self, *, asked_at: float | None = None) -> None:
        """Read the list anew; tell of those that are no longer live. Of several who ask at a time, one reads.

        Raises:
            LcqError: Redis is away; what was known stays.
        """
        async with self._read:
            if asked_at is not None and self._read_at >= asked_at:
                return
            began = steady_now()
            now_known = {record.key: record for record in await self._state.reader.access.records()}
            now_ms = await self._state.now_ms()
            self._redis_ms, self._redis_at = now_ms, steady_now()
            before, self._known, self._read_at = self._known, now_known, began
            live = frozenset(key for key, record in now_known.items() if record.is_live(now_ms))
            ended, self._live = self._live - live, live
        for key in ended:
            for told in self._on_revoked:
                told(now_known.get(key) or before[key])

    async def follow(self) -> None:
        """Follow the list in Redis, for ever: on the word of an event, and every few seconds."""
        complaints = Complaints("the list of keys")
        stirred = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            group.create_task(self._listen(stirred), name="news of keys")
            group.create_task(self._tell(), name="handshakes")
            while True:
                try:
                    await self.read()
                except StateUnavailable:
                    pass  # the feed has said so
                except LcqError as refusal:
                    complaints.say(refusal)
                stirred.clear()
                try:
                    async with asyncio.timeout(_LOOK_S):
                        await stirred.wait()
                except TimeoutError:
                    continue

    async def _listen(self, stirred: asyncio.Event) -> None:
        async for events in batches(self._state.feed):
            if events is None or any(event.move in KEY_MOVES for event in events):
                stirred.set()

    async def _tell(self) -> None:
        while True:
            await asyncio.sleep(_TELL_S)
            await self.tell()

    async def tell(self) -> None:
        """Let all schedulers know who came, and who was refused."""
        if not self._refused and not self._seen:
            return
        refused, last, seen = self._refused, self._last_refused, self._seen
        self._refused, self._last_refused, self._seen = Counter(), {}, {}
        try:
            await self._state.note_handshakes(refused, last, seen)
        except LcqError:  # told again, with what comes next
            self._refused.update(refused)
            self._last_refused = last | self._last_refused
            self._seen = seen | self._seen


class Gate:
    """Answers for one context who is let in. ``async with``; open it before any socket of the context is made."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], keys: ServerKeys, allowed: AllowList) -> None:
        self.context = context
        self.keys = keys
        self.allowed = allowed
        self.is_open = False
        self._on_turned: Callable[[], Awaitable[None]] | None = None
        self._said: dict[tuple[str, str], float] = {}
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            socket = make_socket(self.context, zmq.ROUTER)
            socket.bind(_HANDLER)
            self._mailbox = Mailbox(socket)
            stack.callback(self._mailbox.close)
            self._group = await stack.enter_async_context(asyncio.TaskGroup())
            serving = self._group.create_task(self._serve(), name="gate")
            stack.callback(serving.cancel)
            self.is_open = True
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.is_open = False
        await self._stack.aclose()

    def on_turned(self, told: Callable[[], Awaitable[None]]) -> None:
        """``told``: has the sockets of this gate bound again, now that there is another key."""
        self._on_turned = told

    async def take(self, keys: ServerKeys) -> None:
        """Be known by another key from now on. Who is connected is cut, and comes again."""
        before, self.keys = self.keys, keys
        self.allowed.know_peers(keys)
        if keys.pair.public != before.pair.public and self._on_turned is not None:
            self.allowed.expect_old_key()
            _log.warning("the schedulers' key is %s from now on", fingerprint_of(keys.pair.public))
            await self._on_turned()

    def turn_key(self, socket: zmq.Socket[bytes]) -> None:
        """Have a socket prove itself by the key that holds now, to all who connect from its next bind on."""
        socket.curve_secretkey = bytes.fromhex(self.keys.pair.secret)

    def watch(self, socket: zmq.Socket[bytes]) -> HandshakeWatch:
        """Count the handshakes of this socket that fail. Run it, and close it before the socket."""
        return HandshakeWatch(socket, self._note)

    def _note(self, end: Handshake, endpoint: str) -> None:
        if end not in (Handshake.DONE, Handshake.REFUSED):  # the latter has been counted with its reason
            self.allowed.note(end.value, f"at {endpoint.removeprefix('tcp://')}")

    async def _serve(self) -> None:
        underway: set[asyncio.Task[None]] = set()
        async for batch in self._mailbox.batches():
            for frames in batch:
                if len(frames) < 8:
                    continue
                task = self._group.create_task(self._decide(frames, is_busy=len(underway) >= _UNDERWAY), name="admit")
                underway.add(task)
                task.add_done_callback(underway.discard)

    async def _decide(self, frames: list[bytes], *, is_busy: bool) -> None:
        route, _, version, request, _, address, _, mechanism, *credentials = frames
        who = address.decode("ascii", "replace")
        status, user = b"400", b""  # never 300: libzmq then lets the peer wait until its handshake takes too long
        try:
            if version != b"1.0" or mechanism != b"CURVE" or len(credentials) != 1 or len(credentials[0]) != 32:
                raise Unadmitted("no_key")
            if is_busy:
                raise Unadmitted("too_many")
            key = credentials[0].hex()
            who = f"{key[:16]} from {who}"
            await self.allowed.admit(key, address.decode("ascii", "replace"))
            status, user = b"200", key.encode()
        except Unadmitted as refusal:
            self.allowed.note(refusal.reason, who)
            self._say(refusal.reason, who)
        self._mailbox.send(route, b"", b"1.0", request, status, b"", user, b"")

    def _say(self, reason: str, who: str) -> None:
        """Log it, but not each of a flood."""
        now = steady_now()
        if now - self._said.get((reason, who), -_SAY_S) >= _SAY_S:
            _log.warning("not let in (%s): %s", reason, who)
            if len(self._said) >= _MOST_SAID:
                self._said.clear()
            self._said[reason, who] = now


# ---------------------------------------------------------------- how a scheduler has them


def keys_of(config: DistributedConfig) -> ServerKeys | None:
    """The schedulers' key, where only who has a key is to be let in; None where anybody is.

    Raises:
        InvalidConfig: anybody would be let in from other hosts; or the key cannot be used.
    """
    keys = read_server_keys(config) if is_keyed(config) else None
    refuse_open_bind(config, is_keyed=keys is not None)
    return keys


async def open_gate(ground: Ground, context: zmq.Context[zmq.Socket[bytes]], stack: AsyncExitStack) -> Gate | None:
    """The gate of a manager's context, open until ``stack`` is closed; None where anybody is let in.

    Raises:
        InvalidConfig: as ``keys_of``.
        StateUnavailable: Redis is away.
    """
    keys = keys_of(ground.config)
    if keys is None:
        return None
    site = ground.site
    if site.allowed is None:
        site.allowed = AllowList(ground.state)
        site.allowed.know_peers(keys)
        site.desk.server_keys = keys.told
        site.handshakes_failed = site.allowed.failed
        await ground.state.enrol_owners(keys.owners)
        await site.allowed.read()
        await run_beside(stack, ("keys", site.allowed.follow()), ("server key", _follow_file(ground, site.allowed)))
    gate = Gate(context, keys, site.allowed)
    site.allowed.gates.append(gate)
    stack.callback(site.allowed.gates.remove, gate)
    return await stack.enter_async_context(gate)


async def _follow_file(ground: Ground, allowed: AllowList) -> None:
    """Go by the file of the schedulers' key as it is now, for ever: ``lcq keys rotate --server`` writes another."""
    path = server_file(ground.config)
    complaints = Complaints("the schedulers' key")
    seen = file_mark(path)
    while True:
        await asyncio.sleep(_LOOK_AT_FILE_S)
        found = file_mark(path)
        if found == seen:
            continue
        try:
            keys = read_server_keys(ground.config)
        except LcqError as refusal:
            complaints.say(refusal)
            continue
        seen = found
        if keys is None:
            _log.error("%s is gone: this scheduler goes on with the key that it had", path)
            continue
        ground.site.desk.server_keys = keys.told
        if keys.coming is not None:
            _log.info("all who connect are told the schedulers' next key, %s", fingerprint_of(keys.coming.public))
        for gate in tuple(allowed.gates):
            await gate.take(keys)

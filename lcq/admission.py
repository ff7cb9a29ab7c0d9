"""How a socket that connects gets in where keys are asked for: what it shows, why it is not let in, and another try.

libzmq says nothing of a handshake that failed, and does not try again where it was refused: this does both. And where
another key was put into the file of the one that is shown (``lcq keys rotate``), or the first one comes while the door
is shut (``lcq-agent join``), that one is shown from then on.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable
from pathlib import Path

import zmq

from lcq.errors import LcqError, NotAdmitted
from lcq.file_mark import file_mark
from lcq.key_record import KeyRole, fingerprint_of
from lcq.keyring import Credential, host_of, learn_server_keys, read_credential
from lcq.sockets import Handshake, HandshakeWatch, is_loopback, show

_log = logging.getLogger(__name__)
_AGAIN_S = (0.2, 5.0)  # first and longest pause before a refused connection is tried again
_LOOK_AT_FILE_S = 5.0  # a key that was changed works for minutes more
_OFTEN = 3  # handshakes broken off one after another: then it is not that a scheduler was just stopped
_JOIN = (
    "an operator makes a token by 'lcq keys invite', then here: lcq keys join TOKEN, for an agent lcq-agent join TOKEN;"
    " what runs takes the key up by itself"
)


class Admission:
    """Of one socket, made before it is connected, inside the event loop. Run ``watch()``.

    ``connect_again``: has the owner of the socket connect to that endpoint anew, "" to all of them; ``on_refused``:
    told each time that the door stays shut, ``on_admitted`` that it is open. ``late``: asked for a key while none is
    shown and nobody has let us in without one; None: there is none yet.
    """

    def __init__(
        self,
        socket: zmq.Socket[bytes],
        credential: Credential | None,
        *,
        connect_again: Callable[[str], None],
        on_refused: Callable[[NotAdmitted], None] = lambda _: None,
        on_admitted: Callable[[], None] = lambda: None,
        late: Callable[[], Credential | None] = lambda: None,
    ) -> None:
        self.credential = credential
        self.refusal: NotAdmitted | None = None
        """Why it is not let in; None: it is, or nobody has answered yet."""
        self._socket = socket
        self._connect_again = connect_again
        self._on_refused = on_refused
        self._on_admitted = on_admitted
        self._late = late
        self._needs_none = False  # somebody has let us in without a key
        self._unusable = ""  # why the key that has come cannot be shown
        self._attempt = self._broken_off = 0
        self._pause_s = _AGAIN_S[0]
        self._watch: HandshakeWatch | None = None
        self._begun = asyncio.Event()
        self._timers: set[asyncio.TimerHandle] = set()

    @property
    def shown(self) -> tuple[str, str]:
        """Which key is shown now, and to which of the schedulers'; public halves, "" where none is."""
        return (self.credential.pair.public if self.credential is not None else "", self.server_key)

    @property
    def server_key(self) -> str:
        """By which of the schedulers' keys they are known now; "" where no key is shown."""
        keys = self.credential.server_keys if self.credential is not None else ()
        return keys[self._attempt % len(keys)] if keys else ""

    def prepare(self, endpoint: str, *, even_here: bool = False) -> None:
        """Call it before the socket is connected there. Loopback needs nothing, and nothing is looked at there where no
        key is shown, unless ``even_here``.
        """
        self.key_has_come()
        self.show(self._socket)
        is_elsewhere = not is_loopback(host_of(endpoint))
        if self._watch is None and (is_elsewhere or even_here or self.credential is not None):
            self._watch = HandshakeWatch(self._socket, self._hear)
            self._begun.set()

    def show(self, socket: zmq.Socket[bytes]) -> None:
        """Let the next connection of ``socket`` show what this one shows."""
        if self.credential is not None:
            show(socket, self.credential, attempt=self._attempt)

    def learn(self, server_keys: tuple[str, ...]) -> None:
        """A scheduler that is known says which keys it has and will have."""
        if self.credential is None or not server_keys or set(server_keys) == set(self.credential.server_keys):
            return
        now = self.server_key
        try:
            self.credential = learn_server_keys(self.credential, server_keys)
        except LcqError as refusal:
            _log.warning("the schedulers' new key is not kept: %s", refusal)
            return
        self._attempt = self.credential.server_keys.index(now) if now in self.credential.server_keys else 0

    async def watch(self) -> None:
        """For as long as it is open."""
        await self._begun.wait()
        async with asyncio.TaskGroup() as group:
            if self._watch is not None:
                group.create_task(self._watch.watch(), name="handshakes")
            group.create_task(self._follow_file(), name="file of the key")

    async def _follow_file(self) -> None:
        """Show the key that is in the file, from a moment after it was changed; for ever."""
        path, seen = self._file, ""
        if path is not None:
            seen = file_mark(path)
        while True:
            await asyncio.sleep(_LOOK_AT_FILE_S)
            if self._file is None:
                continue
            found = file_mark(self._file)
            if self._file == path and found != seen and self._turn_to_file():
                self._connect_again("")
            path, seen = self._file, found

    @property
    def _file(self) -> Path | None:
        return self.credential.file if self.credential is not None else None

    def key_has_come(self) -> bool:
        """Whether a key is shown from the next connection on, and none was until now."""
        return not self._needs_none and self._take_late()

    def _take_late(self) -> bool:
        """Show from the next connection on the key that has come since. False: one is shown, or none is there."""
        if self.credential is not None:
            return False
        try:
            self.credential = self._late()
        except LcqError as refusal:
            if str(refusal) != self._unusable:
                self._unusable = str(refusal)
                _log.warning("no key is shown: %s", refusal)
        if self.credential is None:
            return False
        _log.info("key %s has come, and is shown from now on", fingerprint_of(self.credential.pair.public))
        return True

    def _turn_to_file(self) -> bool:
        """Show what is in the file from the next connection on. False: that is shown already, or is none."""
        shown = self.credential
        if shown is None or shown.file is None:
            return False
        try:
            found = read_credential(shown.file)
        except LcqError as refusal:
            _log.warning("the key that was there goes on: %s", refusal)
            return False
        if found is None or (found.pair, found.server_keys) == (shown.pair, shown.server_keys):
            return False
        now = self.server_key
        self.credential = found
        self._attempt = found.server_keys.index(now) if now in found.server_keys else 0
        if found.pair == shown.pair:
            return self.refusal is not None or now not in found.server_keys
        _log.info("key %s is shown from now on, as %s has it", fingerprint_of(found.pair.public), found.file)
        return True

    def close(self) -> None:
        for timer in self._timers:
            timer.cancel()
        if self._watch is not None:
            self._watch.close()

    def _hear(self, end: Handshake, endpoint: str) -> None:
        if end is Handshake.DONE:
            self.refusal, self._pause_s, self._broken_off = None, _AGAIN_S[0], 0
            self._needs_none = self.credential is None
            self._on_admitted()
            return
        if end in (Handshake.BROKEN_OFF, Handshake.UNPROVEN, Handshake.MALFORMED):
            self._broken_off += 1
            if self.credential is None:  # it is tried again by itself
                is_shut = self._broken_off >= _OFTEN
                if (is_shut or not self._needs_none) and self._take_late():
                    self._try_again("")
                elif is_shut:
                    self.refusal = NotAdmitted(
                        endpoint,
                        "breaks every handshake off: most often because it lets in only who has a key, and this host "
                        "shows none",
                        hint=_JOIN,
                    )
                return
            self.refusal = _stranger(endpoint, self.credential)
            if len(self.credential.server_keys) > 1:  # it may have turned to its next one
                self._attempt += 1
                self._try_again(endpoint)
            return
        if self._take_late() or (end is Handshake.REFUSED and self._turn_to_file()):
            self._try_again("")
            return
        self.refusal = self._why(end, endpoint)
        self._try_again(endpoint)
        self._on_refused(self.refusal)

    def _why(self, end: Handshake, endpoint: str) -> NotAdmitted:
        if end is Handshake.REFUSED and self.credential is not None:
            return NotAdmitted(
                endpoint,
                f"does not let in the key of this host ({fingerprint_of(self.credential.pair.public)}): "
                "it was revoked, or never enrolled",
                hint="'lcq keys list' tells an operator which; to be let in again: a token of 'lcq keys invite', then "
                f"here: {_join_of(self.credential)} --replace TOKEN",
            )
        if self.credential is None:
            return NotAdmitted(endpoint, "lets in only who has a key, and this host shows none", hint=_JOIN)
        return NotAdmitted(
            endpoint,
            "asks for no key, and this host speaks only encrypted there",
            hint=f"is it the right scheduler? where keys are given up for good, remove {self.credential.file}",
        )

    def _try_again(self, endpoint: str) -> None:
        def connect() -> None:
            self._timers.discard(timer)
            if not self._socket.closed:
                self._connect_again(endpoint)

        pause_s = self._pause_s * random.uniform(0.75, 1.25)
        self._pause_s = min(2 * self._pause_s, _AGAIN_S[1])
        timer = asyncio.get_running_loop().call_later(pause_s, connect)
        self._timers.add(timer)


def _stranger(endpoint: str, credential: Credential) -> NotAdmitted:
    """Of a scheduler that does not prove to have a key by which this host knows it."""
    found = (
        "breaks the handshake off: most often its key is another one than "
        f"{' or '.join(map(fingerprint_of, credential.server_keys))}"
    )
    if credential.role == KeyRole.INVITED:
        return NotAdmitted(
            endpoint,
            found,
            hint="was the schedulers' key changed after the token was made? then 'lcq keys invite' makes another one",
        )
    node = f" --node {credential.node}" if credential.role == KeyRole.AGENT else ""
    return NotAdmitted(
        endpoint,
        found,
        hint="was the schedulers' key changed twice while this host was away? 'lcq keys show' on a scheduler's host "
        f"tells theirs; with that, say here: lcq keys trust KEY{node}",
    )


def _join_of(credential: Credential) -> str:
    return "lcq-agent join" if credential.role == KeyRole.AGENT else "lcq keys join"

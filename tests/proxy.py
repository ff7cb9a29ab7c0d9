"""A TCP proxy for tests: what a network does to a connection, done to it at will."""

from __future__ import annotations

import contextlib
import selectors
import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Iterator

_CHUNK = 64 * 1024
_MOST_HELD = 4 * 1024 * 1024  # bytes that a direction may hold back before the sender is no longer read
_TICK_S = 0.02


class _Way:
    """One direction of a connection: what has come and is still to be passed on, with the time it is due."""

    def __init__(self, source: socket.socket, target: socket.socket) -> None:
        self.source = source
        self.target = target
        self.waiting: deque[tuple[float, bytes]] = deque()
        self.has_ended = False  # the source will send no more
        self.is_told = False  # and the target knows

    @property
    def held(self) -> int:
        return sum(len(chunk) for _, chunk in self.waiting)


class Proxy:
    """Passes connections at ``port`` on to ``target_port`` of the same host. ``with Proxy(port) as proxy``.

    - ``freeze()``: nothing passes and nobody is told, as with a cable that was pulled; ``thaw()`` goes on.
    - ``delay_s``: how long each piece is kept back, in each direction.
    - ``drop()``: what is under way is thrown away and the connections are reset.
    - ``refuse()``: new connections are reset at once too; ``accept()`` ends that.
    """

    def __init__(self, target_port: int, *, host: str = "127.0.0.1", port: int = 0, listen: str = "") -> None:
        """``listen``: another address of this host to be reached at, such as 127.0.0.2."""
        self._target = (host, target_port)
        self.delay_s = 0.0
        self.connect_times: list[float] = []
        self._frozen = False
        self._refusing = False
        self._lock = threading.Lock()
        self._ways: dict[socket.socket, _Way] = {}
        self._listener = socket.create_server((listen or host, port), backlog=1024)
        self._listener.setblocking(False)
        self.port = int(self._listener.getsockname()[1])
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._serve, name=f"proxy to {target_port}", daemon=True)

    def __enter__(self) -> Proxy:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join(10)
        self.drop()
        self._listener.close()
        self._selector.close()

    def freeze(self) -> None:
        with self._lock:
            self._frozen = True

    def thaw(self) -> None:
        with self._lock:
            self._frozen = False

    def refuse(self) -> None:
        with self._lock:
            self._refusing = True
        self.drop()

    def accept(self) -> None:
        with self._lock:
            self._refusing = False

    def drop(self) -> None:
        """Reset every connection."""
        with self._lock:
            for end in tuple(self._ways):
                self._forget(end)

    @contextlib.contextmanager
    def frozen(self) -> Iterator[None]:
        self.freeze()
        try:
            yield
        finally:
            self.thaw()

    @property
    def connections(self) -> int:
        """How many are open now."""
        with self._lock:
            return len(self._ways) // 2

    # ------------------------------------------------------------ the thread

    def _serve(self) -> None:
        while not self._ended.is_set():
            found = self._selector.select(_TICK_S)
            with self._lock:
                for key, _ in found:
                    if key.fileobj is self._listener:
                        self._take_connection()
                    elif not self._frozen:
                        self._read(key.fileobj)  # type: ignore[arg-type]
                if not self._frozen:
                    self._pass_on()
            if self._frozen:
                time.sleep(_TICK_S)  # what waits to be read would wake us at once, again and again

    def _take_connection(self) -> None:
        try:
            near, _ = self._listener.accept()
        except OSError:
            return
        self.connect_times.append(time.monotonic())
        if self._refusing:
            _reset(near)
            return
        try:
            far = socket.create_connection(self._target, timeout=2)
        except OSError:
            _reset(near)
            return
        for source, target in ((near, far), (far, near)):
            source.setblocking(False)
            source.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._ways[source] = _Way(source, target)
            self._selector.register(source, selectors.EVENT_READ)

    def _read(self, source: socket.socket) -> None:
        way = self._ways.get(source)
        if way is None or way.held > _MOST_HELD:
            return
        try:
            chunk = source.recv(_CHUNK)
        except BlockingIOError:
            return
        except OSError:
            self._forget(source)
            return
        if chunk:
            way.waiting.append((time.monotonic() + self.delay_s, chunk))
        else:
            way.has_ended = True
            self._selector.unregister(source)

    def _pass_on(self) -> None:
        now = time.monotonic()
        for source, way in tuple(self._ways.items()):
            if source not in self._ways:
                continue
            try:
                while way.waiting and way.waiting[0][0] <= now:
                    due, chunk = way.waiting.popleft()
                    sent = way.target.send(chunk)
                    if sent < len(chunk):
                        way.waiting.appendleft((due, chunk[sent:]))
                        break
            except BlockingIOError:
                way.waiting.appendleft((due, chunk))
            except OSError:
                self._forget(source)
                continue
            if way.has_ended and not way.waiting and not way.is_told:
                way.is_told = True
                with contextlib.suppress(OSError):
                    way.target.shutdown(socket.SHUT_WR)
                other = self._ways.get(way.target)
                if other is not None and other.is_told:
                    self._forget(source)

    def _forget(self, end: socket.socket) -> None:
        way = self._ways.get(end)
        if way is None:
            return
        for each in (way.source, way.target):
            self._ways.pop(each, None)
            with contextlib.suppress(KeyError, ValueError):
                self._selector.unregister(each)
            _reset(each)


def _reset(connection: socket.socket) -> None:
    """Close it so that the other end is told at once, and nothing more is delivered."""
    with contextlib.suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()

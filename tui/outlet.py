"""What goes to the terminal, by a thread of its own: nobody waits for a terminal that is slow, stopped or gone."""

from __future__ import annotations

import os
import select
import threading
from collections import deque
from collections.abc import Callable

BEHIND_BYTES = 12_000
"""With more than this still to be written the terminal is behind: frames are left out, then the newest is painted."""
MOST_BYTES = 300_000
"""No more is ever kept for it: what comes on top of that (copies to the clipboard, bells) is lost."""
_CHUNK = 4096  # of it at a time: how much is waiting is known that exactly
_ROOM_S = 0.25  # to wait for room, before it is looked whether that still makes sense


def opened_anew(terminal: int) -> int:
    """A descriptor of its own for a terminal, on which a write does not wait. The one it is from stays as it is.

    That one is shared with the shell, which must not find it changed. Where the terminal cannot be opened (it is that
    of another user, before a su), it is a copy of that one, on which a write does wait.
    """
    try:
        return os.open(os.ttyname(terminal), os.O_WRONLY | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return os.dup(terminal)


class Outlet(threading.Thread):
    """Writes to a terminal in the background. ``on_gone`` is called, by this thread, once there is none any more."""

    def __init__(self, terminal: int, on_gone: Callable[[], None]) -> None:
        super().__init__(daemon=True, name="terminal output")
        self._fd, self._on_gone = opened_anew(terminal), on_gone
        self._texts: deque[bytes] = deque()
        self._news = threading.Condition()
        self._ends = self._gave_up = self._gone = False
        self._last_words = b""
        self.waiting = 0
        """Bytes that have not been written yet."""

    @property
    def is_behind(self) -> bool:
        return self.waiting > BEHIND_BYTES

    def write(self, text: str) -> None:
        """Write it when its turn comes; returns at once."""
        data = text.encode("utf-8", "replace")
        with self._news:
            if self._gone or self._ends or self.waiting + len(data) > MOST_BYTES:
                return
            self._texts.append(data)
            self.waiting += len(data)
            self._news.notify()

    def end(self, patience_s: float) -> bool:
        """Write what is waiting, then end; whether that was done within ``patience_s``."""
        with self._news:
            self._ends = True
            self._news.notify()
        self.join(patience_s)
        return not self.is_alive()

    def give_up(self, last_words: str) -> None:
        """Throw away what is still waiting, and once there is room write ``last_words`` in its place, and end."""
        with self._news:
            self._last_words, self._gave_up = last_words.encode(), True
            self._news.notify()

    def run(self) -> None:
        while (data := self._next()) is not None:
            self._send(data)
        if self._gave_up:
            self._send(self._last_words, always=True)
        os.close(self._fd)

    def _next(self) -> bytes | None:
        with self._news:
            while not (self._texts or self._ends or self._gave_up):
                self._news.wait()
            if self._gave_up or not self._texts:
                return None
            return self._texts.popleft()

    def _send(self, data: bytes, *, always: bool = False) -> None:
        rest = memoryview(data)
        while rest and not self._gone and (always or not self._gave_up):
            try:
                written = os.write(self._fd, rest[:_CHUNK])
            except BlockingIOError:
                select.select([], [self._fd], [], _ROOM_S)
                continue
            except OSError:
                self._lose()
                return
            rest = rest[written:]
            with self._news:
                self.waiting = max(0, self.waiting - written)

    def _lose(self) -> None:
        with self._news:
            self._gone = True
            self._texts.clear()
            self.waiting = 0
        self._on_gone()

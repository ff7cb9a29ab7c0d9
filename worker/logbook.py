"""The newest lines of what this agent logs and of what its runners write, for who asks: so many, and no more."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass

from lcq.errors import LcqError
from lcq.wire import MOST_LOG_CHARS, Logged, LogLine, LogWish

MOST_LINES = 4000
MOST_CHARS = 1_000_000  # of all lines together
MOST_LINE = 2000
TELL_S = 5.0
"""How long the telling may take; nobody waits for it much longer."""
_ESCAPES = re.compile(
    r"\x1b(?:"
    r"\[[0-?]*[ -/]*[@-~]"  # CSI: colours, cursor moves
    r"|\][^\x07\x1b]*(?:\x07|\x1b\\)?"  # OSC: titles, links, the clipboard
    r"|[PX^_][^\x1b]*(?:\x1b\\)?"  # strings for the device
    r"|[ -/]*[0-~]"
    r")"
)


@dataclass(slots=True)
class _Line:
    number: int
    at_ms: int
    source: str
    level: str
    task: str
    attempt: int
    text: str


def bare(text: str) -> str:
    """``text`` as one line without colours, cursor moves and other commands to a terminal.

    Of what a progress bar wrote over itself, the last is left.
    """
    text = _ESCAPES.sub("", text).rstrip("\r").rpartition("\r")[2].expandtabs(4)
    return "".join(char for char in text if char.isprintable())[:MOST_LINE]


class Logbook(logging.Handler):
    """A handler of this process's log, and the place where runners' lines go. Safe from any thread."""

    def __init__(self) -> None:
        super().__init__()
        self._lines: deque[_Line] = deque()
        self._chars = 0
        self._next = 0

    def emit(self, record: logging.LogRecord) -> None:
        try:
            text = record.getMessage()
            if record.exc_info and record.exc_info[1] is not None:
                text += f": {record.exc_info[1]!r}"
        except (TypeError, ValueError):  # a message that does not fit its arguments: the other handlers say so
            return
        self._add(int(record.created * 1000), "agent", record.levelname, "", 0, text)

    def note(self, source: str, text: str, *, task: str = "", attempt: int = 0) -> None:
        """Keep a line that the runner in slot ``source`` wrote, during that attempt."""
        with self._held():
            self._add(time.time_ns() // 1_000_000, source, "", task, attempt, text)

    @contextlib.contextmanager
    def _held(self) -> Iterator[None]:
        self.acquire()
        try:
            yield
        finally:
            self.release()

    def _add(self, at_ms: int, source: str, level: str, task: str, attempt: int, text: str) -> None:
        for part in text.splitlines() or [""]:
            line = bare(part)
            if line:
                self._lines.append(_Line(self._next, at_ms, source, level, task, attempt, line))
                self._next += 1
                self._chars += len(line)
        while len(self._lines) > MOST_LINES or self._chars > MOST_CHARS:
            self._chars -= len(self._lines.popleft().text)

    def read(self, after: int, limit: int, task: str = "") -> tuple[tuple[LogLine, ...], int, int]:
        """The lines that a ``LogWish`` asks for; the oldest number kept, and up to which it was looked."""
        with self._held():
            lines = [one for one in self._lines if one.number > after]
            first, last = (self._lines[0].number if self._lines else self._next), self._next - 1
        wanted = [one for one in lines if not task or one.task == task or task in one.text]
        chosen: list[_Line] = []
        chars = 0
        for one in reversed(wanted) if after < 0 else wanted:
            chars += len(one.text) + 64
            if len(chosen) >= limit or chars > MOST_LOG_CHARS:
                break
            chosen.append(one)
        if after < 0:
            chosen.reverse()
        elif len(chosen) < len(wanted):
            last = chosen[-1].number if chosen else after
        return tuple(_told(one) for one in chosen), first, last


def _told(line: _Line) -> LogLine:
    return LogLine(
        number=line.number, at_ms=line.at_ms, source=line.source, level=line.level, task=line.task,
        attempt=line.attempt, text=line.text,
    )  # fmt: skip


class LogTeller:
    """Answers one wish after another. ``run()`` as long as the agent lives; ``tell`` delivers the lines."""

    def __init__(
        self, node_id: str, boot_id: str, book: Logbook, *, tell: Callable[[Logged], Awaitable[object]]
    ) -> None:
        self._node_id, self._boot_id, self._book, self._tell = node_id, boot_id, book, tell
        self._wishes: deque[LogWish] = deque(maxlen=16)  # more of them push out the oldest: nobody waits for that
        self._due = asyncio.Event()

    def wish(self, wish: LogWish) -> None:
        self._wishes.append(wish)
        self._due.set()

    async def run(self) -> None:
        """For ever: tell what is asked for."""
        while True:
            await self._due.wait()
            self._due.clear()
            while self._wishes:
                wish = self._wishes.popleft()
                lines, first, last = self._book.read(wish.after, wish.limit, wish.task)
                told = Logged(
                    node_id=self._node_id, boot_id=self._boot_id, wish=wish.id, lines=lines, first=first, last=last
                )
                with contextlib.suppress(LcqError):  # nobody waits for it by then
                    await self._tell(told)

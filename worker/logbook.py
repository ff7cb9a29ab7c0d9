"""The newest lines of what this agent logs, its runners' among them, for who asks: so many, and no more."""

from __future__ import annotations

import contextlib
import logging
import re
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from lcq.log import RUNNER_LOG, facts_of
from lcq.wire import MOST_LOG_CHARS, LogLine

MOST_LINES = 4000
MOST_CHARS = 1_000_000  # of all lines together
MOST_LINE = 2000
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


def bare(text: str, *, most: int = MOST_LINE) -> str:
    """``text`` as one line without colours, cursor moves and other commands to a terminal, ``most`` characters of it.

    Of what a progress bar wrote over itself, the last is left.
    """
    text = _ESCAPES.sub("", text).rstrip("\r").rpartition("\r")[2].expandtabs(4)
    return "".join(char for char in text if char.isprintable())[:most]


class Logbook(logging.Handler):
    """A handler of this process's log, and the place where runners' lines go. Safe from any thread."""

    def __init__(self, on_told: Callable[[tuple[str, int], str, str], None] | None = None) -> None:
        """``on_told`` gets the level and the words of what the agent itself has to say about an attempt."""
        super().__init__()
        self._on_told = on_told
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
        facts = facts_of(record)
        by_runner = record.name == RUNNER_LOG
        source = str(facts.get("slot", "agent")) if by_runner else "agent"
        level = "" if by_runner and record.levelno <= logging.INFO else record.levelname
        task, attempt = facts.get("task", ""), facts.get("attempt", 0)
        self._add(int(record.created * 1000), source, level, task, attempt, text)
        if self._on_told is not None and task and attempt and not by_runner:
            self._on_told((task, attempt), level, text)

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

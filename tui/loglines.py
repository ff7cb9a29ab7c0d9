"""Lines of a log as they are read: which are shown, what is searched, where one is. No terminal here."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from tui.columns import Tone
from tui.text import cells, clean, cut

MOST_LINES = 10_000
WINDOWS: tuple[tuple[str, int], ...] = (
    ("all", 0), ("1m", 60_000), ("5m", 300_000), ("15m", 900_000), ("1h", 3_600_000), ("6h", 21_600_000),
)  # fmt: skip
LEVEL_TONE: dict[str, Tone] = {"ERROR": "bad", "CRITICAL": "bad", "WARNING": "warn", "DEBUG": "dim"}
_LETTER = {"ERROR": "E", "CRITICAL": "E", "WARNING": "W", "INFO": "I", "DEBUG": "D"}


@dataclass(frozen=True)
class Line:
    """One line. ``key`` orders it among all: (which part of the log, its number there)."""

    key: tuple[int, int]
    at_ms: int  # 0: not known
    source: str
    level: str
    text: str

    @property
    def tone(self) -> Tone:
        return LEVEL_TONE.get(self.level, "plain")


class LogLines:
    """The lines that are known, at most ``MOST_LINES`` of the newest, and how they are looked at.

    The cursor is on a line, not at a place: what comes and goes leaves it there. Following, it is on the newest.
    """

    def __init__(self) -> None:
        self._all: list[Line] = []
        self._shown: list[Line] = []
        self.follow, self.wrap, self.stamps = True, False, True
        self.window = 0  # index of WINDOWS
        self.search = ""
        self.marks: set[tuple[int, int]] = set()
        self.dropped = 0  # lines that were known and are not any more
        self.now_ms = 0
        self.top = 0  # index of the first line on the screen
        self.cursor: tuple[int, int] | None = None
        self.changes = 0  # counts up whenever another picture is to be painted

    def __len__(self) -> int:
        return len(self._shown)

    @property
    def total(self) -> int:
        return len(self._all)

    @property
    def shown(self) -> Sequence[Line]:
        return self._shown

    # ------------------------------------------------------------ what is known

    def add(self, lines: Iterable[Line]) -> None:
        """Take in lines; those that are known already are passed over."""
        news: list[Line] = []
        newest = self._all[-1].key if self._all else None
        for line in lines:
            if newest is None or line.key > newest:
                news.append(line)
                newest = line.key
        if not news:
            return
        self._all += news
        if len(self._all) > MOST_LINES:
            self.dropped += len(self._all) - MOST_LINES
            del self._all[:-MOST_LINES]
        self._choose()

    def clear(self) -> None:
        self._all.clear()
        self.marks.clear()
        self.dropped, self.cursor, self.top = 0, None, 0
        self._choose()

    def tick(self, now_ms: int) -> None:
        """Take note of the time: lines leave the window by that alone."""
        self.now_ms = now_ms
        oldest = self._oldest_ms
        if oldest and self._shown and 0 < self._shown[0].at_ms < oldest:
            self._choose()

    @property
    def _oldest_ms(self) -> int:
        span_ms = WINDOWS[self.window][1]
        return self.now_ms - span_ms if span_ms else 0

    def _choose(self) -> None:
        oldest = self._oldest_ms
        first = self._shown[self.top].key if self.top < len(self._shown) else None
        self._shown = [line for line in self._all if not line.at_ms or line.at_ms >= oldest]
        self.changes += 1
        if self.follow:
            self.to(len(self._shown) - 1, keep_following=True)
            return
        if first is not None:
            self.top = bisect_left(self._shown, first, key=lambda line: line.key)
        if self.cursor is not None:
            self.to(bisect_left(self._shown, self.cursor, key=lambda line: line.key))

    # ------------------------------------------------------------ going about

    @property
    def here(self) -> int:
        """The index of the cursor's line among those shown; 0 where there is none."""
        if self.cursor is None:
            return max(0, len(self._shown) - 1)
        return min(
            bisect_left(self._shown, self.cursor, key=lambda line: line.key), max(0, len(self._shown) - 1)
        )  # fmt: skip

    def to(self, index: int, *, keep_following: bool = False) -> None:
        """Put the cursor on the line at ``index``, or the nearest one."""
        if not keep_following:
            self.follow = False
        self.changes += 1
        if self._shown:
            self.cursor = self._shown[max(0, min(index, len(self._shown) - 1))].key
        else:
            self.cursor = None

    def move(self, steps: int) -> None:
        self.to(self.here + steps)

    def reveal(self, height: int, rows_of: Sequence[int]) -> None:
        """Scroll so far that the cursor's line is among ``height`` rows; ``rows_of``: how many each line takes."""
        here = self.here
        self.top = max(0, min(self.top, here))
        while self.top < here and sum(rows_of[self.top : here + 1]) > height:
            self.top += 1
        if self.follow or here == len(self._shown) - 1:  # a window that is not full shows more of what is before
            while self.top > 0 and sum(rows_of[self.top - 1 :]) <= height:
                self.top -= 1

    def set_follow(self, on: bool) -> None:
        self.follow = on
        if on:
            self.to(len(self._shown) - 1, keep_following=True)
        self.changes += 1

    def next_window(self) -> None:
        self.window = (self.window + 1) % len(WINDOWS)
        self._choose()

    def mark(self) -> None:
        """Mark the cursor's line, or no longer."""
        if self.cursor is not None:
            self.marks ^= {self.cursor}
            self.changes += 1

    # ------------------------------------------------------------ searching

    def find(self, text: str) -> None:
        """Search ``text`` from here on; the cursor goes to the nearest line that has it, at or before the cursor."""
        self.search = clean(text).casefold()
        self.changes += 1
        if self.search and self._shown and self.search not in self._shown[self.here].text.casefold():
            self.next_match(-1)

    def next_match(self, step: int) -> bool:
        """Go to the next line with what is searched, round the end. Answers whether there is one."""
        if not self.search or not self._shown:
            return False
        size, here = len(self._shown), self.here
        for away in range(1, size + 1):
            index = (here + step * away) % size
            if self.search in self._shown[index].text.casefold():
                self.to(index)
                return True
        return False

    @property
    def matches(self) -> int:
        return sum(self.search in line.text.casefold() for line in self._shown) if self.search else 0

    # ------------------------------------------------------------ as text

    def head(self, line: Line, sources: int) -> str:
        """What stands before a line's text: its mark, its time, who wrote it, how grave it is."""
        mark = "*" if line.key in self.marks else " "
        when = ""
        if self.stamps:
            stamp = f"{datetime.fromtimestamp(line.at_ms / 1000, UTC):%H:%M:%S}Z" if line.at_ms else "--:--:-- "
            when = f"{stamp} "
        source = cut(line.source, sources)
        return f"{mark}{when}{source}{' ' * (sources - cells(source))} {_LETTER.get(line.level, ' ')} "

    def as_text(self) -> str:
        """The lines that are shown, or those marked where some are, as a file."""
        chosen = [line for line in self._shown if line.key in self.marks] or self._shown
        out = []
        for line in chosen:
            when = (
                datetime.fromtimestamp(line.at_ms / 1000, UTC).isoformat(timespec="milliseconds") if line.at_ms else "-"
            )
            out.append(f"{when} {line.source} {line.level or '-'} {line.text}\n")
        return "".join(out)


def wrapped(text: str, width: int) -> list[str]:
    """``text`` in pieces of at most ``width`` cells; at least one."""
    if width <= 0 or cells(text) <= width:
        return [text]
    pieces, begun, room = [], 0, width
    for index, char in enumerate(text):
        wide = cells(char)
        if wide > room:
            pieces.append(text[begun:index])
            begun, room = index, width
        room -= wide
    return [*pieces, text[begun:]]

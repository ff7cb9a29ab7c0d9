"""The file of a recording, read: its lines as far as they are whole, from any of its gzip members on.

What somebody looked at stands in lines of kind ``look`` and in members of their own, so that one can be read alone.
"""

from __future__ import annotations

import json
import re
import zlib
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

_LINE = re.compile(rb'\{"at":(\d{13}),"kind":"([a-z]+)"')
_OF = re.compile(rb',"what":"([a-z]+)","of":("(?:[^"\\]|\\.)*"),"seen":')
_READ_BYTES = 1 << 13  # what is lost at most before the place of a damage
_LONGEST_LINE = 64 << 20


@dataclass(frozen=True)
class Line:
    """One line of a recording, not read yet but for its moment and its kind. ``member``: where its part begins."""

    at_ms: int
    kind: str
    text: bytes
    member: int


def lines_of(path: Path, start: int = 0) -> Iterator[Line]:
    """The lines from the gzip member at ``start`` on, as far as they are whole; never more."""
    with path.open("rb") as file:
        file.seek(start)
        unpacker, member, read, rest = zlib.decompressobj(31), start, start, b""
        while data := file.read(_READ_BYTES):
            read += len(data)
            while data:
                try:
                    rest += unpacker.decompress(data)
                except zlib.error:
                    return  # damaged from here on
                data = unpacker.unused_data
                *whole, rest = rest.split(b"\n")
                for text in whole:
                    head = _LINE.match(text)
                    if head is None:
                        return  # not one of ours
                    yield Line(int(head[1]), head[2].decode(), text, member)
                if len(rest) > _LONGEST_LINE:
                    return
                if unpacker.eof:  # lines end where members do
                    unpacker, member = zlib.decompressobj(31), read - len(data)


def inner(line: bytes, name: str) -> bytes:
    """The JSON of the part ``name`` of a line, which is its last."""
    head = _LINE.match(line)
    start = (head.end() if head is not None else 0) + len(name) + 4  # ,"name":
    return line[start:-1]


@dataclass(frozen=True)
class Look:
    """Where in the file stands what was looked at: the line so many in the member that begins at that place."""

    at_ms: int
    member: int
    place: int


class Looks:
    """What was looked at while it was recorded: of each thing when, and how it was then. Safe from any thread."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._known: dict[tuple[str, str], list[Look]] = {}
        self._member, self._place = -1, 0
        self._read = lru_cache(maxsize=256)(self._read_line)

    def take(self, line: Line) -> None:
        """Take note of a line of the file; all of them, in their order."""
        self._place = self._place + 1 if line.member == self._member else 0
        self._member = line.member
        if line.kind == "look" and (about := _about(line.text)) is not None:
            self._known.setdefault(about, []).append(Look(line.at_ms, line.member, self._place))

    def until(self, what: str, of: str, at_ms: int) -> Sequence[Look]:
        """All looks at that thing up to that moment, the oldest first."""
        known = self._known.get((what, of), [])
        return known[: bisect_right(known, at_ms, key=lambda look: look.at_ms)]

    def last(self, what: str, of: str, at_ms: int) -> Look | None:
        """The last look at that thing up to that moment."""
        found = self.until(what, of, at_ms)
        return found[-1] if found else None

    def read(self, look: Look) -> bytes:
        """What was seen, as JSON; b"" where the file is gone or was changed meanwhile."""
        return self._read(look)

    def _read_line(self, look: Look) -> bytes:
        try:
            for place, line in enumerate(lines_of(self._path, look.member)):
                if place == look.place:
                    return _OF.split(line.text, maxsplit=1)[-1][:-1] if line.at_ms == look.at_ms else b""
        except OSError:
            pass
        return b""


def _about(text: bytes) -> tuple[str, str] | None:
    """What was looked at, and of what: a task's id, a node."""
    head = _LINE.match(text)
    about = _OF.match(text, head.end()) if head is not None else None
    if about is None:
        return None
    try:
        return about[1].decode(), str(json.loads(about[2]))
    except ValueError:
        return None

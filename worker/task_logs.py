"""What was written during each attempt, kept in files of its own: so much of each, so much of all, and for so long.

A log is a stream of lines, each known by the place of its first byte. Of a long one its beginning and its end are
kept; what lay between is counted. Files are written aside: a slow disk holds nobody up, and costs at most lines.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from lcq.clock import steady_now
from lcq.config import TaskLogsConfig
from lcq.ids import is_id
from lcq.wire import MOST_LOG_CHARS, LogLine
from worker.logbook import MOST_LINE, bare

_log = logging.getLogger(__name__)

Key = tuple[str, int]  # (task id, attempt)

_WRITE_S = 0.25  # how long lines may wait for their file, so that many go there at once
_SWEEP_S = 60.0
_MOST_WAITING = 4 * 2**20  # bytes of one attempt that wait for a slow disk
_LONGEST_PIECE = 16 * 1024  # bytes of one line that is not over yet
_BLOCK = 4096  # what the smallest file takes of a disk
_LINE_CHARS = 64  # that a line takes of an answer beside its text
_TAIL_BYTES = 2 * MOST_LOG_CHARS  # where the newest lines are looked for


@dataclass
class _Segment:
    """A file: bytes ``start`` to ``end`` of a log."""

    start: int
    path: Path
    size: int = 0

    @property
    def end(self) -> int:
        return self.start + self.size


@dataclass
class _Said:
    """What waits to be written: when, by whom, and its bytes; ``cut``: so many bytes were dropped instead."""

    at_ms: int
    source: str
    data: bytes
    cut: int = 0


@dataclass
class _AttemptLog:
    """The log of one attempt: its files, the oldest first, and where its stream stands."""

    segments: list[_Segment] = field(default_factory=list)
    end: int = 0
    written_s: float = 0.0  # by the wall clock: when a file of it was written last
    begun: dict[str, bytes] = field(default_factory=dict)  # of each source a line that is not over yet

    @property
    def kept(self) -> int:
        """Bytes that are here."""
        return sum(segment.size for segment in self.segments)

    @property
    def taken(self) -> int:
        """Bytes of the disk."""
        return sum(-(-segment.size // _BLOCK) * _BLOCK for segment in self.segments)


@dataclass(frozen=True)
class Kept:
    """Lines of one attempt's log. ``next``: ask for what begins there. Of its ``size`` bytes ``kept`` are here.

    ``is_there``: whether anything is known of it.
    """

    lines: tuple[LogLine, ...] = ()
    next: int = 0
    size: int = 0
    kept: int = 0
    is_there: bool = False


class TaskLogs:
    """Takes in what is written during attempts, and tells it. ``run()`` while the agent lives, then ``flush()``."""

    def __init__(self, folder: Path, *, terms: Callable[[], TaskLogsConfig]) -> None:
        self.folder = folder
        self._terms = terms
        self._waiting: dict[Key, deque[_Said]] = {}
        self._waiting_bytes: dict[Key, int] = {}
        self._due = asyncio.Event()
        self._busy = asyncio.Lock()
        self._logs: dict[Key, _AttemptLog] | None = None  # None: the folder has not been looked at yet
        self._open: set[Key] = set()
        self._ending: set[Key] = set()
        self._swept_at = 0.0
        self._trouble = ""

    # ------------------------------------------------------------ taking in; nothing here waits for a disk

    def begin(self, key: Key) -> None:
        """The attempt ``key`` begins: until ``end()`` more may come."""
        self._open.add(key)

    def note(self, key: Key, source: str, data: bytes) -> None:
        """Take in what ``source`` wrote, as it came."""
        if not self._terms().attempt_kib:
            return
        waiting = self._waiting.setdefault(key, deque())
        waiting.append(_Said(time.time_ns() // 1_000_000, source, data))
        self._waiting_bytes[key] = self._waiting_bytes.get(key, 0) + len(data)
        while self._waiting_bytes[key] > _MOST_WAITING and len(waiting) > 1:
            gone = waiting.popleft()
            self._waiting_bytes[key] -= len(gone.data)
            waiting[0].cut += gone.cut + len(gone.data)
        self._due.set()

    def say(self, key: Key, level: str, text: str) -> None:
        """Take in what the agent itself has to say of the attempt."""
        self.note(key, f"agent/{level}", text.encode("utf-8", "replace") + b"\n")

    def end(self, key: Key) -> None:
        """The attempt is over: a line that was not ended is one, too."""
        self._open.discard(key)
        if key in self._waiting or (self._logs is not None and key in self._logs):
            self._ending.add(key)
            self._due.set()

    # ------------------------------------------------------------ writing

    async def run(self) -> None:
        """For ever: write what waits, and remove what has had its time."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_SWEEP_S):
                    await self._due.wait()
            await asyncio.sleep(_WRITE_S)
            await self.flush()

    async def flush(self) -> None:
        """Write all that waits."""
        async with self._busy:
            self._due.clear()
            waiting, self._waiting, self._waiting_bytes = self._waiting, {}, {}
            ending, self._ending = self._ending, set()
            await asyncio.to_thread(self._write, waiting, ending)

    def _write(self, waiting: dict[Key, deque[_Said]], ending: set[Key]) -> None:
        try:
            logs = self._known()
            for key, said in waiting.items():
                self._write_one(key, logs.setdefault(key, _AttemptLog()), said)
            for key in ending & logs.keys():
                now_ms = time.time_ns() // 1_000_000
                self._write_one(key, logs[key], [_Said(now_ms, source, b"\n") for source in logs[key].begun])
            if waiting or steady_now() - self._swept_at >= _SWEEP_S:
                self._sweep(logs)
            self._trouble = ""
        except OSError as error:
            if str(error.strerror) != self._trouble:
                self._trouble = str(error.strerror)
                _log.warning("logs of tasks cannot be kept in %s: %s", self.folder, error.strerror)

    def _known(self) -> dict[Key, _AttemptLog]:
        """All logs that are there; the folder is looked at once."""
        if self._logs is None:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            found: dict[Key, _AttemptLog] = {}
            with os.scandir(self.folder) as entries:
                for entry in entries:
                    place = _place(entry.name)
                    if place is None:
                        continue
                    key, start = place
                    told = entry.stat()
                    log = found.setdefault(key, _AttemptLog())
                    log.segments.append(_Segment(start, Path(entry.path), told.st_size))
                    log.written_s = max(log.written_s, told.st_mtime)
            for log in found.values():
                log.segments.sort(key=lambda segment: segment.start)
                log.end = log.segments[-1].end
            self._logs = found
        return self._logs

    def _write_one(self, key: Key, log: _AttemptLog, waiting: Iterable[_Said]) -> None:
        """Raises:
        OSError: as for those lines, which are counted as cut.
        """
        quota = self._terms().attempt_kib * 1024
        left = deque(waiting)
        while left:
            said = left.popleft()
            if said.cut:
                log.begun.pop(said.source, None)
                log.end += said.cut
            parts = deque(_in_parts(b"".join(self._lines(log, said)), max(1024, quota // 4)))
            while parts:
                segment = self._segment(key, log, len(parts[0]), quota)
                try:
                    with segment.path.open("ab") as file:
                        file.write(parts[0])
                except OSError:
                    with contextlib.suppress(OSError):
                        os.truncate(segment.path, segment.size)
                    log.end += sum(map(len, parts)) + sum(len(one.data) + one.cut for one in left)
                    raise
                segment.size += len(parts.popleft())
                log.end = segment.end
        log.written_s = time.time()

    def _lines(self, log: _AttemptLog, said: _Said) -> Iterator[bytes]:
        """What was said, as lines for a file; the beginning of one that is not over is kept for later."""
        *whole, rest = (log.begun.pop(said.source, b"") + said.data).split(b"\n")
        while len(rest) > _LONGEST_PIECE:
            whole.append(rest[:_LONGEST_PIECE])
            rest = rest[_LONGEST_PIECE:]
        if rest:
            log.begun[said.source] = rest
        when = datetime.fromtimestamp(said.at_ms / 1000, UTC).isoformat(timespec="milliseconds")
        head = f"{when.replace('+00:00', 'Z')} {said.source} "
        for line in whole:
            text = bare(line.decode("utf-8", "replace"), most=_LONGEST_PIECE)
            for start in range(0, len(text), MOST_LINE):
                yield f"{head}{text[start : start + MOST_LINE]}\n".encode()

    def _segment(self, key: Key, log: _AttemptLog, more: int, quota: int) -> _Segment:
        """The file that the next ``more`` bytes go to. Of the tail only the newest files are kept."""
        last = log.segments[-1] if log.segments else None
        if last is not None and last.end == log.end:
            most = quota // 2 if last.start == 0 else quota // 4
            if last.size + more <= most:
                return last
        segment = _Segment(log.end, self.folder / f"{key[0]}.{key[1]}.{log.end}.log")
        log.segments.append(segment)
        tail = [one for one in log.segments if one.start > 0]
        for old in tail[:-2]:
            old.path.unlink(missing_ok=True)
            log.segments.remove(old)
        return segment

    def _sweep(self, logs: dict[Key, _AttemptLog]) -> None:
        """Remove what is too old, and then the oldest for as long as all together take too much."""
        self._swept_at = steady_now()
        terms = self._terms()
        oldest_s = time.time() - terms.keep_s
        taken = sum(log.taken for log in logs.values())
        for key, log in sorted(logs.items(), key=lambda entry: entry[1].written_s):
            if key in self._open or (log.written_s >= oldest_s and taken <= terms.total_mib * 2**20):
                continue
            taken -= log.taken
            for segment in log.segments:
                segment.path.unlink(missing_ok=True)
            del logs[key]

    # ------------------------------------------------------------ telling

    async def read(self, key: Key, begin: int, limit: int) -> Kept:
        """Lines of the log ``key``: those from byte ``begin`` on, the oldest first; -1: the newest ones."""
        await self.flush()
        async with self._busy:
            return await asyncio.to_thread(self._read, key, begin, limit)

    def is_open(self, key: Key) -> bool:
        """Whether the attempt runs here: more may come."""
        return key in self._open

    def _read(self, key: Key, begin: int, limit: int) -> Kept:
        log = (self._logs or {}).get(key)
        if log is None or not log.segments:
            return Kept()
        is_newest = begin < 0
        at = max(0, log.end - _TAIL_BYTES) if is_newest else min(begin, log.end)
        chosen: deque[LogLine] = deque()
        chars = 0
        for segment in log.segments:
            if segment.end <= at:
                continue
            cut, at = max(0, segment.start - at), max(at, segment.start)
            data = _bytes_of(segment.path, at - segment.start)
            if is_newest and at > segment.start:  # in the middle of a line
                middle = data.find(b"\n") + 1
                at, data = at + middle, data[middle:]
            for raw in data.splitlines(keepends=True):
                line = _line(at, raw, cut)
                chars += len(line.text) + _LINE_CHARS
                if not is_newest and chosen and (len(chosen) >= limit or chars > MOST_LOG_CHARS):
                    return Kept(tuple(chosen), next=at, size=log.end, kept=log.kept, is_there=True)
                chosen.append(line)
                at, cut = at + len(raw), 0
                while is_newest and len(chosen) > 1 and (len(chosen) > limit or chars > MOST_LOG_CHARS):
                    chars -= len(chosen.popleft().text) + _LINE_CHARS
            at = segment.end
        return Kept(tuple(chosen), next=log.end, size=log.end, kept=log.kept, is_there=True)


def _bytes_of(path: Path, start: int) -> bytes:
    try:
        with path.open("rb") as file:
            file.seek(start)
            return file.read()
    except OSError:  # somebody has removed it
        return b""


def _place(name: str) -> tuple[Key, int] | None:
    """Whose file it is, and at which byte of the log it begins; None: not one of ours."""
    task, *rest = name.split(".")
    if len(rest) != 3 or rest[2] != "log" or not is_id(task) or not (rest[0].isdecimal() and rest[1].isdecimal()):
        return None
    return (task, int(rest[0])), int(rest[1])


def _in_parts(lines: bytes, most: int) -> Iterator[bytes]:
    """``lines`` in parts of whole lines, each of at most ``most`` bytes where its lines let it."""
    start = 0
    while len(lines) - start > most:
        end = lines.rfind(b"\n", start, start + most) + 1
        if end <= start:
            end = lines.find(b"\n", start) + 1 or len(lines)
        yield lines[start:end]
        start = end
    if start < len(lines):
        yield lines[start:]


def _line(number: int, raw: bytes, cut: int) -> LogLine:
    """A line of a file as it is told."""
    when, _, rest = raw.decode("utf-8", "replace").rstrip("\n").partition(" ")
    source, _, text = rest.partition(" ")
    who, _, level = source.partition("/")
    source, level = (who, level) if who == "agent" else (source, "")
    try:
        at_ms = int(datetime.fromisoformat(when).timestamp() * 1000)
    except ValueError:  # cut off by a full disk, or written by somebody else
        at_ms, source, text = 0, "", rest
    return LogLine(number=number, at_ms=at_ms, source=source, level=level, text=bare(text), cut=cut)

"""The file of a backup: lines of JSON, compressed, with a digest of them all at the end (docs/backup.md)."""

from __future__ import annotations

import contextlib
import errno
import gzip
import hashlib
import json
import os
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from lcq.errors import BackupFailed, BackupUnusable, DiskFull

FILE_FORMAT = 1
_MARK = "lcq_backup"
_LEVEL = 3  # of gzip: half the time of its usual one, for a tenth more
_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_SECOND_FIELD_TELLS = ("task", "gone")  # the last line of a task counts


@dataclass(frozen=True)
class Contents:
    """What a whole, sound backup says of itself."""

    path: Path
    head: dict[str, Any]
    end: dict[str, Any]
    size_bytes: int
    last_lines: dict[str, int] = field(default_factory=dict, repr=False)  # by task, the number of the line that counts


class BackupWriter:
    """``with BackupWriter(path, head) as out``: the file is there once it is whole, and not before.

    Raises:
        BackupFailed: there is such a file, or it cannot be written. DiskFull.
    """

    def __init__(self, path: Path, head: dict[str, Any]) -> None:
        self.path = path
        self.counts: dict[str, int] = {}
        self._head = head
        self._digest = hashlib.sha256()
        self._part = path.with_name(f"{path.name}.part-{os.getpid()}")
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Self:
        with self._troubles(), contextlib.ExitStack() as stack:
            if self.path.exists():
                raise BackupFailed(f"there is a file {self.path} already", hint="name another one: none is overwritten")
            number = os.open(self._part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            self._file = stack.enter_context(os.fdopen(number, "wb"))
            self._out = gzip.GzipFile(fileobj=self._file, mode="wb", compresslevel=_LEVEL, filename="", mtime=0)
            self._stack = stack.pop_all()
        self._line({_MARK: FILE_FORMAT} | self._head)
        return self

    def add(self, kind: str, *told: Any) -> None:
        """One more line, of some kind."""
        self.counts[kind] = self.counts.get(kind, 0) + 1
        self._line([kind, *told])

    def _line(self, value: Any) -> None:
        text = json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass") + b"\n"
        self._digest.update(text)
        with self._troubles():
            self._out.write(text)

    def close_whole(self, end: dict[str, Any]) -> None:
        """Write the last line, and give the file its name."""
        told = {"end": self.counts} | end | {"sha256": self._digest.hexdigest()}
        with self._troubles():
            self._out.write(json.dumps(told).encode() + b"\n")
            self._out.close()
            self._file.flush()
            os.fsync(self._file.fileno())
            os.link(self._part, self.path)  # where somebody has made one meanwhile, it is not overwritten
            folder = os.open(self.path.absolute().parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(OSError):  # what could not be written has been told
            self._stack.close()
        self._part.unlink(missing_ok=True)

    @contextlib.contextmanager
    def _troubles(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if error.errno in _NO_ROOM:
                raise DiskFull(
                    str(self.path.absolute().parent), "the backup was left out; none is half there"
                ) from error
            raise BackupFailed(
                f"{self.path} cannot be written: {error.strerror or error}", hint="name a place that may be written"
            ) from error


def lines_of(path: Path) -> Iterator[tuple[bytes, Any]]:
    """Every line of a backup, as it is written and as what it says.

    Raises:
        BackupUnusable: it cannot be read, or breaks off.
    """
    try:
        with gzip.open(path, "rb") as file:
            for line in file:
                yield line, json.loads(line)
    except EOFError as error:
        raise BackupUnusable(path, "it breaks off before its end") from error
    except (gzip.BadGzipFile, zlib.error, ValueError) as error:
        raise BackupUnusable(path, f"it is damaged, or no file of ours: {error}") from error
    except OSError as error:
        raise BackupUnusable(path, error.strerror or str(error)) from error


def verified(path: Path) -> Contents:
    """Read all of a backup: its form, its counts, its digest.

    Raises:
        BackupUnusable: saying what is wrong.
    """
    digest = hashlib.sha256()
    head: dict[str, Any] = {}
    counts: dict[str, int] = {}
    last: dict[str, int] = {}
    for number, (line, told) in enumerate(lines_of(path)):
        if number == 0:
            head = _checked_head(path, told)
        elif isinstance(told, dict) and "end" in told:
            if told.get("sha256") != digest.hexdigest():
                raise BackupUnusable(path, "its digest is not the one of what is in it")
            if told["end"] != counts:
                raise BackupUnusable(path, f"it should have {told['end']}, and has {counts}")
            return Contents(path, head, told, path.stat().st_size, last)
        elif isinstance(told, list) and told:
            counts[told[0]] = counts.get(told[0], 0) + 1
            if told[0] in _SECOND_FIELD_TELLS:
                last[told[1]] = number
        else:
            raise BackupUnusable(path, f"line {number + 1} is none that LCQ writes")
        digest.update(line)
    raise BackupUnusable(path, "it breaks off before its end" if head else "it is empty")


def _checked_head(path: Path, told: Any) -> dict[str, Any]:
    if not isinstance(told, dict) or _MARK not in told:
        raise BackupUnusable(path, "it is no backup of LCQ")
    if told[_MARK] != FILE_FORMAT:
        raise BackupUnusable(
            path,
            f"it is of format {told[_MARK]}, this LCQ reads {FILE_FORMAT}",
            hint=f"use the LCQ that wrote it, {told.get('lcq', 'of another version')}, or a newer one",
        )
    return told

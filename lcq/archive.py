"""The archive: records of forgotten tasks, a file a day, each there once for whoever reads (docs/archive.md).

A day's file is a journal while the day lasts: lines that are appended and synced before a task is forgotten. Where a
scheduler dies between the two, the next one appends the same again; readers, and the file that the journal becomes when
the day is over, have it once.
"""

from __future__ import annotations

import contextlib
import fcntl
import gzip
import json
import os
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any, Literal

from lcq.errors import ArchiveUnusable, DiskFull
from lcq.models import Attempt, TaskRecord

ArchiveFormat = Literal["jsonl", "parquet"]
Row = dict[str, Any]

_JOURNAL, _SEALED, _PARQUET = ".jsonl", ".jsonl.gz", ".parquet"
_AT_ONCE = 5000  # rows of a Parquet file's group

COLUMNS: Mapping[str, type] = {
    "id": str, "revision": int, "status": str, "user": str, "job": str, "queue": str, "priority": str, "task_type": str,
    "model": str, "image": str, "mask": str, "output": str, "submitted_ms": int, "started_ms": int, "finished_ms": int,
    "archived_ms": int, "node": str, "device": str, "attempt": int, "retries": int, "seconds": float, "width": int,
    "height": int, "bytes": int, "sha256": str, "error_class": str, "code": str, "message": str, "why": str,
    "task": str, "attempts": str,
}  # fmt: skip
"""What is kept of a task. ``task`` (as it was submitted) and ``attempts`` are JSON."""


def row_of(record: TaskRecord, attempts: Sequence[Attempt], archived_ms: int) -> Row:
    """What is kept of a task."""
    task, result, failure = record.task, record.result, record.failure
    return {
        "id": record.id, "revision": record.revision, "status": str(record.status), "user": task.user_id or "",
        "job": task.job or "", "queue": record.queue, "priority": str(record.priority),
        "task_type": str(task.task_type), "model": task.model, "image": task.image_path, "mask": task.mask_path or "",
        "output": task.output_path or "", "submitted_ms": record.submitted_ms, "started_ms": record.started_ms,
        "finished_ms": record.finished_ms, "archived_ms": archived_ms, "node": record.node, "device": record.device,
        "attempt": record.attempt, "retries": record.retries, "seconds": result.seconds if result else None,
        "width": result.width if result else None, "height": result.height if result else None,
        "bytes": result.bytes if result else None, "sha256": result.sha256 if result else "",
        "error_class": str(failure.error_class) if failure else "", "code": failure.code if failure else "",
        "message": failure.message if failure else record.damaged, "why": record.why,
        "task": task.model_dump_json(exclude_defaults=True),
        "attempts": json.dumps([one.model_dump(mode="json", exclude_defaults=True) for one in attempts]),
    }  # fmt: skip


@dataclass(frozen=True)
class Day:
    """The files of one day: of when tasks were archived, in UTC."""

    day: date
    files: tuple[Path, ...]

    @property
    def size_bytes(self) -> int:
        return sum(file.stat().st_size for file in self.files)

    @property
    def is_open(self) -> bool:
        """Whether it may still grow."""
        return any(_kind(file) == _JOURNAL for file in self.files)


class Archive:
    """A folder of such files."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    # ------------------------------------------------------------ in

    def add(self, rows: Iterable[Row], day: date) -> None:
        """Have these rows on the disk when it returns.

        Raises:
            DiskFull: none of them is there. ArchiveUnusable: the folder cannot be written.
        """
        text = b"".join(json.dumps(row, separators=(",", ":")).encode() + b"\n" for row in rows)
        if not text:
            return
        with self._troubles():
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            path = self.folder / f"{day.isoformat()}{_JOURNAL}"
            number = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
            with os.fdopen(number, "rb+", buffering=0) as file:
                fcntl.flock(file, fcntl.LOCK_EX)
                size = file.seek(0, os.SEEK_END)
                if size and os.pread(number, 1, size - 1) != b"\n":
                    text = b"\n" + text  # whoever wrote there died in the middle of a line
                try:
                    left = memoryview(text)
                    while left:
                        left = left[os.write(number, left) :]
                    os.fsync(number)
                except OSError:
                    with contextlib.suppress(OSError):
                        os.ftruncate(number, size)  # no half of it
                    raise

    def seal(self, before: date, form: ArchiveFormat) -> int:
        """Make of each journal of a day before this one the file that it stays, with each row once; answers how many.

        Raises:
            DiskFull, ArchiveUnusable: then the journals stay.
        """
        count = 0
        for day in self.days():
            if day.day >= before or not day.is_open:
                continue
            target = self.folder / f"{day.day.isoformat()}{_PARQUET if form == 'parquet' else _SEALED}"
            part = self.folder / f".{target.name}.part-{os.getpid()}"
            with self._troubles():
                try:
                    write = write_parquet if form == "parquet" else _write_gzip
                    write(part, self._once(day.files))
                    part.replace(target)
                finally:
                    part.unlink(missing_ok=True)
                for file in day.files:
                    if file != target:
                        file.unlink()
            count += 1
        return count

    # ------------------------------------------------------------ out

    def days(self) -> tuple[Day, ...]:
        """The days of which there is something, the oldest first.

        Raises:
            ArchiveUnusable: the folder cannot be read.
        """
        found: dict[date, list[Path]] = {}
        with self._troubles():
            for path in sorted(self.folder.iterdir()) if self.folder.is_dir() else []:
                kind = _kind(path)
                if kind and not path.name.startswith("."):
                    with contextlib.suppress(ValueError):
                        found.setdefault(date.fromisoformat(path.name.removesuffix(kind)), []).append(path)
        whole_first = {day: sorted(files, key=lambda file: _kind(file) == _JOURNAL) for day, files in found.items()}
        return tuple(Day(day, tuple(files)) for day, files in sorted(whole_first.items()))

    def rows(self, *, since: date | None = None, until: date | None = None) -> Iterator[Row]:
        """Each archived end of a task once, from the oldest day on; days are those on which they were archived.

        Raises:
            ArchiveUnusable: a file cannot be read.
        """
        days = [
            day for day in self.days() if (since is None or day.day >= since) and (until is None or day.day <= until)
        ]
        return self._once([file for day in days for file in day.files])

    def find(self, prefix: str) -> list[Row]:
        """The rows of the tasks whose ids begin so: a task that was run again after it was archived has several."""
        return [row for row in self.rows() if str(row.get("id", "")).startswith(prefix)]

    @staticmethod
    def _once(files: Sequence[Path]) -> Iterator[Row]:
        seen: set[tuple[Any, Any]] = set()
        for file in files:
            for row in _read(file):
                known = (row.get("id"), row.get("revision"))
                if known not in seen:
                    seen.add(known)
                    yield row

    @contextlib.contextmanager
    def _troubles(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise trouble(self.folder, error) from error


def trouble(folder: Path, error: OSError) -> DiskFull | ArchiveUnusable:
    """What ``error`` says of the archive in ``folder``."""
    import errno

    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return DiskFull(str(folder), "the archive takes nothing in", hint="free some, or set archive.folder elsewhere")
    return ArchiveUnusable(error.filename or folder, error.strerror or str(error))


def _kind(path: Path) -> str:
    return next((kind for kind in (_SEALED, _JOURNAL, _PARQUET) if path.name.endswith(kind)), "")


def _read(path: Path) -> Iterator[Row]:
    if _kind(path) == _PARQUET:
        yield from _read_parquet(path)
        return
    opened: Callable[..., Any] = gzip.open if _kind(path) == _SEALED else open
    try:
        with opened(path, "rb") as file:
            for line in file:
                try:
                    row = json.loads(line)
                except ValueError:
                    continue  # the half line of one who died while it was written: it is there once more, whole
                if isinstance(row, dict):
                    yield row
    except (OSError, EOFError, zlib.error) as error:
        raise ArchiveUnusable(path, getattr(error, "strerror", None) or str(error)) from error


def _write_gzip(path: Path, rows: Iterable[Row]) -> None:
    number = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(number, "wb") as file:
        with gzip.GzipFile(fileobj=file, mode="wb", filename="", mtime=0) as out:
            for row in rows:
                out.write(json.dumps(row, separators=(",", ":")).encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())


# ---------------------------------------------------------------- Parquet, where pyarrow is


def _pyarrow() -> tuple[Any, Any]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise ArchiveUnusable("Parquet", "pyarrow is not installed", hint="pip install 'lcq[parquet]'") from error
    return pyarrow, pyarrow.parquet


def write_parquet(path: Path, rows: Iterable[Row]) -> None:
    """Write rows as one Parquet file, readable by this user only.

    Raises:
        ArchiveUnusable: pyarrow is not there.
    """
    arrow, parquet = _pyarrow()
    types = {str: arrow.string(), int: arrow.int64(), float: arrow.float64()}
    schema = arrow.schema([(name, types[kind]) for name, kind in COLUMNS.items()])
    number = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(number, "wb") as file:
        with parquet.ParquetWriter(file, schema, compression="zstd") as out:
            batch: list[Row] = []
            for row in rows:
                batch.append({name: row.get(name) for name in COLUMNS})
                if len(batch) >= _AT_ONCE:
                    out.write_table(arrow.Table.from_pylist(batch, schema=schema))
                    batch = []
            out.write_table(arrow.Table.from_pylist(batch, schema=schema))
        file.flush()
        os.fsync(file.fileno())


def _read_parquet(path: Path) -> Iterator[Row]:
    _, parquet = _pyarrow()
    try:
        with parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=_AT_ONCE):
                yield from batch.to_pylist()
    except (OSError, ValueError) as error:  # pyarrow's own errors are ValueErrors
        raise ArchiveUnusable(path, str(error)) from error

"""The manifest of a folder of results: which input each was made of, so that a job can be taken up where it stopped."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError

from lcq.errors import ManifestUnusable
from lcq.models import Value, explain_invalid

MANIFEST_NAME = ".lcq-manifest.json"
FORMAT = 1
MOST_ENTRIES = 250_000  # results that one manifest remembers, the newest
MOST_BYTES = 512 * 2**20  # a file larger than this is none of ours
_ABOUT = "lcq: what the results in this folder were made of; 'lcq submit' reads it to do only what is not yet done"
_NO_LOCKS = (errno.EBADF, errno.ENOLCK, errno.ENOTSUP, errno.EINVAL)  # a file system that has none for folders


class Entry(Value):
    """One result: what it is made of, which task makes or made it, and what came out."""

    output: str = Field(min_length=1)  # its name below the manifest's folder
    image: str  # absolute path of the input
    sha256: str  # of the input
    mask_sha256: str = ""
    params: str = ""  # hash of what was asked: type of task and config
    job: str = ""
    task: str = ""  # id
    key: str = ""  # idempotency key under which it was submitted
    state: Literal["given", "done", "failed"] = "given"
    result_sha256: str = ""
    seconds: float = Field(default=0.0, ge=0)  # of work on the node
    megapixels: float = Field(default=0.0, ge=0)
    why: str = ""  # of a failure: its code and message
    at_ms: int = 0  # when this was written, by the client's clock


class Manifest:
    """The manifest of one folder. What is written replaces the file as a whole, or not at all."""

    def __init__(self, folder: Path) -> None:
        """Raises:
        ManifestUnusable: there is one, and it cannot be read or is of a newer LCQ.
        """
        self.folder = folder
        self.damaged = ""  # what was found in a file that was set aside
        self._entries: dict[str, Entry] = {}
        self._stamp: tuple[int, int, int] | None = None
        self._read()

    @property
    def path(self) -> Path:
        return self.folder / MANIFEST_NAME

    @property
    def entries(self) -> tuple[Entry, ...]:
        return tuple(self._entries.values())

    def of(self, output: Path) -> Entry | None:
        """What is known of the result of this (absolute) path."""
        return self._entries.get(self._name(output)[0])

    def path_of(self, entry: Entry) -> Path:
        return self.folder / entry.output

    def name_of(self, output: Path) -> str:
        """The name of a result below the folder, as an entry has it."""
        return self._name(output)[1]

    def _name(self, output: Path) -> tuple[str, str]:
        relative = output.relative_to(self.folder) if output.is_relative_to(self.folder) else output
        return folded(str(relative)), str(relative)

    def _read(self) -> None:
        try:
            status = self.path.stat()
            text = self.path.read_bytes() if status.st_size <= MOST_BYTES else b""
        except FileNotFoundError:
            self._stamp = None
            return None
        except OSError as error:
            raise ManifestUnusable(self.path, f"it cannot be read: {error.strerror}") from error
        if not text:
            raise ManifestUnusable(self.path, f"it has {status.st_size} bytes")
        self._stamp = (status.st_ino, status.st_mtime_ns, status.st_size)
        try:
            told = json.loads(text)
            found = told["format"] if isinstance(told, dict) else None
            if isinstance(found, int) and found > FORMAT:
                raise ManifestUnusable(self.path, f"it is of format {found}, this lcq knows {FORMAT}")
            entries = [Entry.model_validate(one, extra="ignore") for one in told["entries"]]
        except ValidationError as error:
            return self._set_aside(explain_invalid(error))
        except (ValueError, KeyError, TypeError) as error:
            return self._set_aside(str(error) or type(error).__name__)
        self._entries = {folded(entry.output): entry for entry in entries}
        return None

    def _set_aside(self, found: str) -> None:
        """Nobody but a person can tell what a damaged file was to say: it stays beside the new one."""
        aside = self.path.with_name(f"{MANIFEST_NAME}.damaged")
        try:
            self.path.replace(aside)
        except OSError as error:
            raise ManifestUnusable(
                self.path, f"it is damaged ({found}) and cannot be moved: {error.strerror}"
            ) from error
        self.damaged = f"{self.path} is damaged ({found[:200]}): kept as {aside.name}, and begun anew"
        self._entries, self._stamp = {}, None

    def note(self, entries: Iterable[Entry]) -> None:
        """Put these in the place of what was known of their results, and write all of it.

        What somebody else has written meanwhile stays, where it is of other results. Beyond ``MOST_ENTRIES`` the
        oldest are forgotten.

        Raises:
            ManifestUnusable: it cannot be written. What was there is unharmed.
        """
        with contextlib.suppress(FileNotFoundError):
            status = self.path.stat()
            if (status.st_ino, status.st_mtime_ns, status.st_size) != self._stamp:
                self._read()
        self._entries.update((folded(entry.output), entry) for entry in entries)
        if len(self._entries) > MOST_ENTRIES:
            newest = sorted(self._entries.items(), key=lambda item: item[1].at_ms)[-MOST_ENTRIES:]
            self._entries = dict(newest)
        self._write()

    def _write(self) -> None:
        fresh = self.path.with_name(f"{MANIFEST_NAME}.new")
        lines = ",\n".join(entry.model_dump_json(exclude_defaults=True) for entry in self._entries.values())
        text = f'{{"format": {FORMAT}, "about": {json.dumps(_ABOUT)}, "entries": [\n{lines}\n]}}\n'
        try:
            with fresh.open("w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
                status = os.fstat(file.fileno())
            fresh.replace(self.path)
            _sync_folder(self.folder)
        except OSError as error:
            with contextlib.suppress(OSError):
                fresh.unlink()
            raise ManifestUnusable(self.path, f"it cannot be written: {error.strerror}") from error
        self._stamp = (status.st_ino, status.st_mtime_ns, status.st_size)


def folded(name: str) -> str:
    """``name`` as file systems compare it that do not tell cases or ways to write an accent apart."""
    return unicodedata.normalize("NFC", name).casefold()


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with contextlib.suppress(OSError):  # not every file system does that for folders
            os.fsync(handle)
    finally:
        os.close(handle)


@contextlib.contextmanager
def locked(folder: Path, on_wait: Callable[[], None]) -> Iterator[None]:
    """Be the only one on this host who holds ``folder``; ``on_wait`` is called before another is waited for.

    The kernel ends it with the process. Where the file system knows no such locks, there is none.
    """
    try:
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except OSError:
        yield
        return
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            on_wait()
            fcntl.flock(handle, fcntl.LOCK_EX)
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise ManifestUnusable(folder / MANIFEST_NAME, f"it cannot be locked: {error.strerror}") from error
        yield
    finally:
        os.close(handle)


@contextlib.contextmanager
def try_locked(folder: Path) -> Iterator[bool]:
    """Hold ``folder`` as ``locked`` does, or be told False at once: another holds it, or it cannot be opened."""
    try:
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except OSError:
        yield False
        return
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in _NO_LOCKS:  # where there are no locks nobody holds one
                yield False
                return
        yield True
    finally:
        os.close(handle)

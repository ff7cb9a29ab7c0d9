"""Blobs in a folder: the default, beside the state; also one that several hosts mount."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import secrets
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

from lcq.errors import BlobMismatch, BlobNotFound, StorageFull, StorageUnreachable
from lcq.private_folder import make_private
from lcq.storage.addresses import is_sha256
from lcq.storage.blobs import CHUNK, Blob, Moved, nothing

_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_TEMPORARY = ".tmp-"
_LEFT_OVER_S = 24 * 3600.0  # a half-written file of that age is of a process that has died


class FolderStore:
    """``folder``/ab/abcdef…: each blob a file that never changes. Its mtime is when it was last used."""

    def __init__(self, folder: Path, *, lack: Callable[[int], str] = lambda size: "") -> None:
        """``lack`` answers what is missing on its disk once so many more bytes are written; "": nothing."""
        self._folder = folder
        self._lack = lack
        self.url = folder.absolute().as_uri()

    def stat(self, sha256: str) -> Blob | None:
        with self._failures_named():
            try:
                os.utime(self._path(sha256))
                found = self._path(sha256).stat()
            except FileNotFoundError:
                return None
            except PermissionError:  # it may be read, by who does not own it
                found = self._path(sha256).stat()
            return Blob(sha256, found.st_size, found.st_mtime)

    def put(self, source: Path, sha256: str, *, moved: Moved = nothing) -> Blob:
        known = self.stat(sha256)
        if known is not None:
            return known
        lack = self._lack(source.stat().st_size)
        if lack:
            raise StorageFull(self.url, lack)
        with source.open("rb") as file, self._failures_named(), self._fresh(sha256) as (fresh, out):
            found = hashlib.sha256()
            while chunk := file.read(CHUNK):
                found.update(chunk)
                out.write(chunk)
                moved(len(chunk))
            if found.hexdigest() != sha256:
                raise BlobMismatch(sha256, found.hexdigest())
            out.flush()
            os.fsync(out.fileno())
            self._take(fresh, sha256)
        return self._known(sha256)

    def adopt(self, source: Path, sha256: str) -> Blob:
        """Take in the file ``source``, whose SHA-256 is known to be right, and whose bytes are on the disk.

        It is moved where that can be, else copied.
        """
        with self._failures_named():
            try:
                self._path(sha256).parent.mkdir(parents=True, exist_ok=True)
                self._take(source, sha256)
            except OSError as error:
                if error.errno != errno.EXDEV:
                    raise
                self.put(source, sha256)
                source.unlink(missing_ok=True)
        return self._known(sha256)

    def get(self, sha256: str, target: Path, *, moved: Moved = nothing) -> Blob:
        found = hashlib.sha256()
        size = 0
        try:
            with target.open("xb") as out:
                for chunk in self.read(sha256):
                    found.update(chunk)
                    out.write(chunk)
                    size += len(chunk)
                    moved(len(chunk))
            if found.hexdigest() != sha256:
                raise BlobMismatch(sha256, found.hexdigest())
        except FileExistsError:
            raise
        except BaseException:
            target.unlink(missing_ok=True)
            raise
        return Blob(sha256, size, time.time())

    def read(self, sha256: str, *, offset: int = 0, length: int | None = None) -> Iterator[bytes]:
        with self._failures_named():
            try:
                file = self._path(sha256).open("rb")
            except FileNotFoundError as error:
                raise BlobNotFound(sha256) from error
        with file:
            with contextlib.suppress(OSError):
                os.utime(file.fileno())
            file.seek(offset)
            left = length
            while left is None or left > 0:
                with self._failures_named():
                    chunk = file.read(CHUNK if left is None else min(CHUNK, left))
                if not chunk:
                    return
                left = None if left is None else left - len(chunk)
                yield chunk

    def delete(self, sha256: str) -> bool:
        with self._failures_named():
            try:
                self._path(sha256).unlink()
            except FileNotFoundError:
                return False
            return True

    def blobs(self) -> Iterator[Blob]:
        with self._failures_named():
            shelves = sorted(self._folder.iterdir()) if self._folder.is_dir() else []
        for shelf in shelves:
            with contextlib.suppress(OSError), os.scandir(shelf) as entries:
                for entry in entries:
                    with contextlib.suppress(OSError):
                        found = entry.stat(follow_symlinks=False)
                        if is_sha256(entry.name):
                            yield Blob(entry.name, found.st_size, found.st_mtime)
                        elif entry.name.startswith(_TEMPORARY) and found.st_mtime < time.time() - _LEFT_OVER_S:
                            Path(entry.path).unlink(missing_ok=True)

    # ------------------------------------------------------------ files

    def _path(self, sha256: str) -> Path:
        if not is_sha256(sha256):
            raise BlobNotFound(sha256[:80])
        return self._folder / sha256[:2] / sha256

    def _known(self, sha256: str) -> Blob:
        found = self.stat(sha256)
        if found is None:
            raise StorageUnreachable(self.url, f"what was put there as {sha256} is gone at once")
        return found

    @contextlib.contextmanager
    def _fresh(self, sha256: str) -> Iterator[tuple[Path, IO[bytes]]]:
        shelf = self._path(sha256).parent
        make_private(shelf)
        fresh = shelf / f"{_TEMPORARY}{secrets.token_hex(8)}"
        try:
            with fresh.open("xb") as out:
                yield fresh, out
        finally:
            fresh.unlink(missing_ok=True)

    def _take(self, fresh: Path, sha256: str) -> None:
        path = self._path(sha256)
        fresh.chmod(0o440)
        fresh.replace(path)
        descriptor = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    @contextlib.contextmanager
    def _failures_named(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if error.errno in _NO_ROOM:
                raise StorageFull(self.url, error.strerror or "its disk is full") from error
            raise StorageUnreachable(self.url, error.strerror or str(error)) from error

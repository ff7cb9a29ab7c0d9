"""Uploads that may be broken off and go on later: what has come of them waits in a folder, under its SHA-256."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from lcq.errors import BlobMismatch, BlobNotFound, BlobTooLarge, StorageFull, StorageUnreachable, UploadConflict
from lcq.ids import new_id
from lcq.private_folder import make_private
from lcq.storage.addresses import is_sha256
from lcq.storage.blobs import CHUNK, Blob

_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_PART = ".part"

Take = Callable[[Path, str], Blob]


class Upload:
    """One that is open: the only one of its bytes on this host. ``offset``: how many are here.

    Its methods block for a disk's time. ``close()`` (or the end of a ``with`` block) keeps what has come, so that it
    can go on later; ``finish()`` makes a blob of it.
    """

    def __init__(self, path: Path, sha256: str, size: int, take: Take, closed: Callable[[], None]) -> None:
        """Raises:
        UploadConflict: another one of these bytes is open. StorageFull, StorageUnreachable.
        """
        self.sha256, self.size = sha256, size
        self._path, self._take, self._closed = path, take, closed
        self._sum = hashlib.sha256()
        try:
            self._file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600), "r+b")
        except OSError as error:
            raise _named(error, path) from error
        try:
            fcntl.flock(self._file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not _is_still_there(self._file.fileno(), path):  # it is a blob now, or gone: touch it no more
                raise BlockingIOError
            while chunk := self._file.read(CHUNK):
                self._sum.update(chunk)
            if self._file.tell() > size:  # of another that began under this name
                self._restart()
        except BlockingIOError as error:
            self._file.close()
            raise UploadConflict(sha256, "another one is at work", uploaded=_size_of(path)) from error
        except OSError as error:
            self._file.close()
            raise _named(error, path) from error
        self.offset = self._file.tell()

    def write(self, data: bytes) -> None:
        """Add ``data`` at ``offset``.

        Raises:
            BlobTooLarge: that would be more than ``size``. StorageFull, StorageUnreachable.
        """
        if self.offset + len(data) > self.size:
            raise BlobTooLarge(f"the upload of {self.sha256}", self.size, self.offset + len(data))
        try:
            self._file.write(data)
        except OSError as error:
            self._rewind()
            raise _named(error, self._path) from error
        self._sum.update(data)
        self.offset += len(data)

    def restart(self) -> None:
        """Begin again at 0."""
        try:
            self._restart()
        except OSError as error:
            raise _named(error, self._path) from error

    def finish(self) -> Blob:
        """The blob that has come whole.

        Raises:
            UploadConflict: some of it has not come yet.
            BlobMismatch: it is not what it was to be; all of it is thrown away.
            StorageFull, StorageUnreachable: what has come stays here.
        """
        if self.offset < self.size:
            raise UploadConflict(self.sha256, f"{self.offset} of {self.size} bytes are here", uploaded=self.offset)
        if self._sum.hexdigest() != self.sha256:
            self._path.unlink(missing_ok=True)
            raise BlobMismatch(self.sha256, self._sum.hexdigest())
        _sync(self._file, self._path)
        return self._take(self._path, self.sha256)

    def close(self) -> None:
        """Leave it; twice does no harm."""
        if not self._file.closed:
            with contextlib.suppress(OSError):  # a full disk: what of it is there will do
                self._file.close()
            self._closed()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _restart(self) -> None:
        self._file.seek(0)
        self._file.truncate()
        self._sum = hashlib.sha256()
        self.offset = 0

    def _rewind(self) -> None:
        """After a failed write: what cannot be known to be here counts as not here."""
        with contextlib.suppress(OSError):
            self._restart()


class Arrival:
    """Bytes that come in one go, and whose SHA-256 nobody knows before they are here. What breaks off is thrown away.

    Its methods block for a disk's time. ``finish()``, and ``close()`` in any case.
    """

    def __init__(self, path: Path, size: int, take: Take, closed: Callable[[], None]) -> None:
        """``size``: the most bytes that may come.

        Raises:
            StorageFull, StorageUnreachable.
        """
        self._path, self._most, self._take, self._closed = path, size, take, closed
        self._sum = hashlib.sha256()
        self.size = 0
        try:
            self._file = os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb")
        except OSError as error:
            raise _named(error, path) from error

    def write(self, data: bytes) -> None:
        """Raises:
        BlobTooLarge: that would be more than may come. StorageFull, StorageUnreachable.
        """
        if self.size + len(data) > self._most:
            raise BlobTooLarge("the upload", self._most, self.size + len(data))
        try:
            self._file.write(data)
        except OSError as error:
            raise _named(error, self._path) from error
        self._sum.update(data)
        self.size += len(data)

    @property
    def sha256(self) -> str:
        """Of what has come."""
        return self._sum.hexdigest()

    def finish(self) -> Blob:
        """The blob that has come.

        Raises:
            StorageFull, StorageUnreachable.
        """
        _sync(self._file, self._path)
        return self._take(self._path, self.sha256)

    def close(self) -> None:
        """Leave it; what is no blob by now is gone. Twice does no harm."""
        if not self._file.closed:
            with contextlib.suppress(OSError):
                self._file.close()
            self._path.unlink(missing_ok=True)
            self._closed()


@dataclass(frozen=True)
class Part:
    """What has come of an upload: ``size`` bytes. ``left_s``: seconds since 1970, when it was last gone on with."""

    size: int
    left_s: float


class Uploads:
    """The folder of what has come so far."""

    def __init__(self, folder: Path, take: Take) -> None:
        """``take`` makes a blob of a whole file, and removes it."""
        self._folder, self._take = folder, take

    def begin(self, sha256: str, *, size: int, closed: Callable[[], None]) -> Upload:
        """Open the upload of ``size`` bytes, where it was left off.

        Raises:
            UploadConflict, StorageFull, StorageUnreachable.
        """
        try:
            make_private(self._folder)
        except OSError as error:
            raise _named(error, self._folder) from error
        return Upload(self._path(sha256), sha256, size, self._take, closed)

    def receive(self, size: int, *, closed: Callable[[], None]) -> Arrival:
        """Take in at most ``size`` bytes of which nobody knows yet what they are.

        Raises:
            StorageFull, StorageUnreachable.
        """
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise _named(error, self._folder) from error
        return Arrival(self._folder / f"{new_id()}{_PART}", size, self._take, closed)

    def uploaded(self, sha256: str) -> int:
        """How many bytes of it are here."""
        return _size_of(self._path(sha256))

    def forget_old(self, older_than_s: float) -> int:
        """Remove what nobody went on with for so long; answers how many."""
        count = 0
        until = time.time() - older_than_s
        for path in self._folder.glob(f"*{_PART}"):
            with contextlib.suppress(OSError):
                if path.stat().st_mtime < until:
                    path.unlink()
                    count += 1
        return count

    def let_go(self, sha256: str) -> bool:
        """Remove what has come of an upload, unless somebody is at it; answers whether it is gone."""
        path = self._path(sha256)
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError:
            return not path.exists()
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink(missing_ok=True)
        except OSError:
            return False
        finally:
            os.close(descriptor)
        return True

    def parts(self) -> dict[str, Part]:
        """What has come of each upload that is not whole; what nobody went on with for longest is first."""
        found = {}
        for path in self._folder.glob(f"*{_PART}"):
            sha256 = path.name.removesuffix(_PART)
            with contextlib.suppress(OSError):
                status = path.stat()
                if is_sha256(sha256):
                    found[sha256] = Part(status.st_size, status.st_mtime)
        return dict(sorted(found.items(), key=lambda one: one[1].left_s))

    def _path(self, sha256: str) -> Path:
        if not is_sha256(sha256):
            raise BlobNotFound(sha256[:80])
        return self._folder / f"{sha256}{_PART}"


def _size_of(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _is_still_there(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat(follow_symlinks=False))
    except FileNotFoundError:
        return False


def _sync(file: BinaryIO, path: Path) -> None:
    try:
        file.flush()
        os.fsync(file.fileno())
    except OSError as error:
        raise _named(error, path) from error


def _named(error: OSError, path: Path) -> StorageFull | StorageUnreachable:
    if error.errno in _NO_ROOM:
        return StorageFull(str(path.parent), error.strerror or "the disk is full")
    return StorageUnreachable(str(path), error.strerror or str(error))

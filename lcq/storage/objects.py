"""Blobs in an object store, and single objects there: whatever fsspec knows (s3://, gs://, memory:// …)."""

from __future__ import annotations

import contextlib
import errno
import functools
import hashlib
import os
import posixpath
import time
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from lcq.errors import (
    AddressRefused,
    BlobMismatch,
    BlobNotFound,
    BlobTooLarge,
    LcqError,
    StorageFull,
    StorageUnreachable,
)
from lcq.storage.addresses import is_sha256
from lcq.storage.blobs import CHUNK, Blob, Moved, nothing

_PIECE = 8 * 2**20  # of an upload: an object store takes them one by one
_EXTRAS = {"s3": "s3", "s3a": "s3", "gs": "gs", "gcs": "gs"}
_S3 = frozenset({"s3", "s3a"})
_LOCAL = frozenset({"file", "local"})
_STALE = 0.5  # of the time that blobs are kept: an object of that age is put anew where somebody counts on it


class Objects:
    """Objects at one scheme, such as s3."""

    def __init__(self, scheme: str, options: Mapping[str, Any] | None = None) -> None:
        """Raises:
        AddressRefused: fsspec, or what it needs for this scheme, is not installed, or takes no such options.
        """
        self.scheme = scheme
        self._system = _file_system(scheme, dict(options or {}))

    def size(self, url: str) -> int | None:
        """How many bytes are there; None: there is no such object.

        Raises:
            StorageUnreachable.
        """
        found = self.look(url)
        return None if found is None else found[0]

    def look(self, url: str) -> tuple[int, float] | None:
        """How many bytes, and when they were written (seconds since 1970; 0: not known)."""
        with _failures_named(url):
            try:
                found = self._system.info(url)
            except FileNotFoundError:
                return None
        if found.get("type") == "directory":
            return None
        return int(found.get("size") or 0), _seconds(found)

    def read(self, url: str, *, offset: int = 0, length: int | None = None) -> Iterator[bytes]:
        """Raises:
        FileNotFoundError, StorageUnreachable.
        """
        with _failures_named(url), self._system.open(url, "rb", cache_type="readahead", block_size=_PIECE) as file:
            file.seek(offset)
            left = length
            while left is None or left > 0:
                chunk = file.read(CHUNK if left is None else min(CHUNK, left))
                if not chunk:
                    return
                left = None if left is None else left - len(chunk)
                yield chunk

    def get(self, url: str, target: Path, *, most: int, moved: Moved = nothing) -> tuple[int, str]:
        """Have the object in the new file ``target``; answers its size and SHA-256.

        Raises:
            FileNotFoundError; BlobTooLarge: it has more than ``most`` bytes; StorageUnreachable.
            OSError: the file cannot be written.
        """
        found = hashlib.sha256()
        size = 0
        out = target.open("xb")
        try:
            with out:
                for chunk in self.read(url):
                    size += len(chunk)
                    if size > most:
                        raise BlobTooLarge(url, most)
                    found.update(chunk)
                    out.write(chunk)
                    moved(len(chunk))
        except BaseException:
            target.unlink(missing_ok=True)
            raise
        return size, found.hexdigest()

    def put(self, source: Path, url: str, *, moved: Moved = nothing) -> int:
        """Write the file ``source`` there; whole, or not at all.

        Raises:
            StorageFull, StorageUnreachable. OSError: the file cannot be read.
        """
        size = 0
        with source.open("rb") as file:
            with _failures_named(url):
                if self.scheme in _LOCAL:
                    self._system.makedirs(posixpath.dirname(url), exist_ok=True)
                out = self._system.open(url, "wb", block_size=_PIECE)
            try:
                while chunk := file.read(CHUNK):
                    with _failures_named(url):
                        out.write(chunk)
                    size += len(chunk)
                    moved(len(chunk))
            except BaseException:
                with contextlib.suppress(Exception):
                    out.discard()
                with contextlib.suppress(Exception):
                    out.closed = True  # else its end of life would finish what must not be
                raise
            with _failures_named(url):
                out.close()
        return size

    def write(self, url: str, data: bytes) -> None:
        """Put a few bytes there.

        Raises:
            StorageFull, StorageUnreachable.
        """
        with _failures_named(url):
            self._system.pipe_file(url, data)

    def signed(self, url: str, *, seconds: float, writes: bool = False) -> str:
        """An address at which anybody may read (or write, once or more) the object for so long.

        Raises:
            AddressRefused: objects of this scheme have none.
            StorageUnreachable.
        """
        with _failures_named(url):
            expires = max(1, int(seconds))
            if self.scheme in _S3:
                method = "put_object" if writes else "get_object"
                return str(self._system.url(url, expires=expires, client_method=method))
            with contextlib.suppress(NotImplementedError):  # as fsspec's file systems say it that have none
                return str(self._system.sign(url, expiration=expires, method="PUT" if writes else "GET"))
        raise AddressRefused(
            url, f"{self.scheme}:// has no addresses that others may use for a while", hint="s3:// and gs:// have"
        )

    def delete(self, url: str) -> bool:
        """Raises:
        StorageUnreachable.
        """
        with _failures_named(url):
            try:
                self._system.rm_file(url)
            except FileNotFoundError:
                return False
            return True

    def below(self, url: str) -> Iterator[tuple[str, int, float]]:
        """The name, size and time of every object below ``url``.

        Raises:
            StorageUnreachable.
        """
        with _failures_named(url):
            self._system.invalidate_cache()
            try:
                found = self._system.find(url, detail=True)
            except FileNotFoundError:
                return
        for name, told in found.items():
            if told.get("type") != "directory":  # the folder itself, where its first object came while it was read
                yield posixpath.basename(name), int(told.get("size") or 0), _seconds(told)


class ObjectStore:
    """Blobs below ``url``: url/ab/abcdef….

    ``keep_s``: how long an unused blob is kept. Objects cannot be touched: one of half that age is not counted on
    (``stat`` finds none), so that it is put there anew, and young again.
    """

    def __init__(self, url: str, options: Mapping[str, Any] | None = None, *, keep_s: float) -> None:
        """Raises:
        AddressRefused: as ``Objects`` says.
        """
        self.url = url.rstrip("/")
        self._keep_s = keep_s
        self._objects = Objects(url.partition("://")[0].lower(), options)

    def stat(self, sha256: str) -> Blob | None:
        found = self._objects.look(self._place(sha256))
        if found is None or (found[1] and time.time() - found[1] > self._keep_s * _STALE):
            return None
        return Blob(sha256, *found)

    def put(self, source: Path, sha256: str, *, moved: Moved = nothing) -> Blob:
        known = self.stat(sha256)
        if known is not None:
            return known
        found = _sha256_of(source)
        if found != sha256:
            raise BlobMismatch(sha256, found)
        return Blob(sha256, self._objects.put(source, self._place(sha256), moved=moved), time.time())

    def get(self, sha256: str, target: Path, *, moved: Moved = nothing) -> Blob:
        known = self._objects.size(self._place(sha256))
        if known is None:
            raise BlobNotFound(sha256)
        try:
            size, found = self._objects.get(self._place(sha256), target, most=known, moved=moved)
        except FileNotFoundError as error:
            raise BlobNotFound(sha256) from error
        if found != sha256:
            target.unlink(missing_ok=True)
            raise BlobMismatch(sha256, found)
        return Blob(sha256, size, time.time())

    def read(self, sha256: str, *, offset: int = 0, length: int | None = None) -> Iterator[bytes]:
        try:
            yield from self._objects.read(self._place(sha256), offset=offset, length=length)
        except FileNotFoundError as error:
            raise BlobNotFound(sha256) from error

    def delete(self, sha256: str) -> bool:
        return self._objects.delete(self._place(sha256))

    def blobs(self) -> Iterator[Blob]:
        for name, size, written_s in self._objects.below(self.url):
            if is_sha256(name):
                yield Blob(name, size, written_s or time.time())

    def _place(self, sha256: str) -> str:
        if not is_sha256(sha256):
            raise BlobNotFound(sha256[:80])
        return f"{self.url}/{sha256[:2]}/{sha256}"


@functools.lru_cache(maxsize=1)
def _known_schemes() -> frozenset[str]:
    import fsspec

    return frozenset(fsspec.available_protocols())


def _file_system(scheme: str, options: dict[str, Any]) -> Any:
    extra = _EXTRAS.get(scheme)
    hint = f"pip install 'lcq[{extra}]' there" if extra else "see fsspec's documentation for what it needs"
    try:
        import fsspec
    except ImportError as error:
        raise AddressRefused(f"{scheme}://", "fsspec is not installed here", hint=hint) from error
    if scheme not in _known_schemes():
        raise AddressRefused(f"{scheme}://", "no such kind of address is known", hint="such as s3:// or gs://")
    if scheme in _S3:  # left alone, botocore signs addresses for some regions so that a PUT may have no Content-Type
        options["config_kwargs"] = {"signature_version": "s3v4", **(options.get("config_kwargs") or {})}
    try:
        # Listings are never remembered: others write there too.
        return fsspec.filesystem(scheme, use_listings_cache=False, **options)
    except ImportError as error:
        raise AddressRefused(f"{scheme}://", f"what it needs is not installed here: {error}", hint=hint) from error
    except (TypeError, ValueError) as error:
        raise AddressRefused(f"{scheme}://", f"{error}", hint="see storage.options in lcq.yaml") from error


@contextlib.contextmanager
def _failures_named(url: str) -> Iterator[None]:
    """Say what went wrong in our words. Each of these libraries has errors of its own, with no common ground."""
    try:
        yield
    except (LcqError, FileNotFoundError, GeneratorExit):
        raise
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StorageFull(url, os.strerror(error.errno)) from error
        raise StorageUnreachable(url, _line(error)) from error
    except Exception as error:
        raise StorageUnreachable(url, _line(error)) from error


def _line(error: BaseException) -> str:
    said = " ".join(str(error).split()) or type(error).__name__
    return said[:300]


def _seconds(told: Mapping[str, Any]) -> float:
    for key in ("LastModified", "mtime", "updated", "created", "last_modified"):
        value = told.get(key)
        if isinstance(value, datetime):
            return value.timestamp()
        if isinstance(value, int | float):
            return float(value)
        if isinstance(value, str):
            with contextlib.suppress(ValueError):
                return datetime.fromisoformat(value).timestamp()
    return 0.0


def _sha256_of(path: Path) -> str:
    found = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            found.update(chunk)
    return found.hexdigest()

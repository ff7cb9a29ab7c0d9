"""The scheduler's depot: the cluster's blobs, for who sends them and for who fetches them.

This is what HTTP stands on (``/v1/blobs/{sha256}``); the rules of that are in docs/decisions/0019-bytes.md:

    PUT   the whole, or (with ``Content-Range: bytes FIRST-LAST/SIZE``) what is missing of it   201, 200 if it was there
    HEAD  200 with Content-Length; 404 with ``Upload-Offset``: so many bytes have come, go on from there
    GET   with ranges

Its methods block, for a disk's or a store's time: call them in a thread.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from lcq.errors import BlobNotFound, BlobTooLarge, StorageFull, StorageUnreachable
from lcq.storage.addresses import is_sha256
from lcq.storage.blobs import Blob, BlobStore
from lcq.storage.folder import FolderStore
from lcq.storage.room import lack_of_room
from lcq.storage.uploads import Arrival, Part, Upload, Uploads

_GOES_ON_S = 120.0
"""Who was broken off comes back within this, if at all soon: until then what has come makes way for nobody."""


class Terms(Protocol):
    """What the depot goes by (``storage.blobs`` of the settings)."""

    @property
    def limit_mib(self) -> int: ...
    @property
    def floor_mib(self) -> int: ...
    @property
    def floor_percent(self) -> float: ...


@dataclass(frozen=True)
class Usage:
    """``count`` blobs of ``size`` bytes in all; with ``parts`` bytes of uploads that were broken off, of at most
    ``limit``."""

    count: int
    size: int
    limit: int
    parts: int = 0


class Depot:
    """Blobs in ``store``, uploads on their way in ``uploads``. May be used from any thread."""

    def __init__(
        self,
        store: BlobStore,
        *,
        uploads: Path,
        terms: Callable[[], Terms],
        largest: Callable[[], int],
    ) -> None:
        """``largest``: bytes that one blob may have (``limits.image_bytes``)."""
        self.store = store
        self._folder = uploads
        self._terms, self._largest = terms, largest
        self._uploads = Uploads(uploads, self._take)
        self._lock = threading.Lock()
        self._reserved = 0  # by uploads that are open
        self._open: set[str] = set()
        self._parts: dict[str, Part] = {}  # of uploads that were broken off, the oldest first
        self._count, self._size = 0, -1  # not known yet

    # ------------------------------------------------------------ out

    def stat(self, sha256: str) -> Blob | None:
        """What is here under this name; to ask is to use it, so that it stays for a while. None: nothing.

        Raises:
            StorageUnreachable.
        """
        return self.store.stat(sha256) if is_sha256(sha256) else None

    def read(self, sha256: str, *, offset: int = 0, length: int | None = None) -> Iterator[bytes]:
        """The bytes from ``offset`` on, in pieces of at most 256 KiB; ``length`` of them at most. Each
        ``next()`` blocks.

        Raises:
            BlobNotFound, StorageUnreachable: with the first piece, or in the middle.
        """
        return self.store.read(sha256, offset=offset, length=length)

    def delete(self, sha256: str) -> bool:
        """Forget a blob, whoever needs it; answers whether there was one."""
        known = self.stat(sha256)
        if known is None or not self.store.delete(sha256):
            return False
        self._note(-1, -known.size)
        return True

    def usage(self) -> Usage:
        """How much there is. The first time that takes as long as looking at all of it."""
        with self._lock:
            if self._size >= 0:
                return self._usage()
        return self.count_anew()

    def lack(self) -> str:
        """Why there is no room for another byte, or the storage cannot be asked; "": there is."""
        try:
            self.usage()  # so that it is known
        except StorageUnreachable as away:
            return away.message
        with self._lock:
            full = self._lack("", 1, self._terms())
        return full.message if full else ""

    # ------------------------------------------------------------ in

    def uploaded(self, sha256: str) -> int:
        """How many bytes of an upload that was broken off are here; 0 where it is whole, or never began."""
        return self._uploads.uploaded(sha256) if is_sha256(sha256) else 0

    def upload(self, sha256: str, *, size: int) -> Upload:
        """Open the upload of ``size`` bytes, at the ``offset`` to which they had come before.

        Whoever goes on elsewhere calls ``restart()`` (from 0), or is told by UploadConflict where to go on. Write, then
        ``finish()``; close it in any case.

        Raises:
            BlobTooLarge: it is over ``limits.image_bytes``.
            StorageFull: it would be more than there may be, or leave less room on the disk than there must, though
                what others have left half uploaded has made way.
            UploadConflict: the same bytes are being uploaded just now.
            BlobNotFound: that is no SHA-256. StorageUnreachable.
        """
        if not is_sha256(sha256):
            raise BlobNotFound(sha256[:80])
        if size > self._largest():
            raise BlobTooLarge("the upload", self._largest(), size)
        self._reserve(sha256, size)
        try:
            upload = self._uploads.begin(sha256, size=size, closed=lambda: self._closed(sha256, size))
        except BaseException:
            self._release(size)
            raise
        with self._lock:
            self._open.add(sha256)
            self._parts.pop(sha256, None)
        return upload

    def receive(self, size: int) -> Arrival:
        """Take in ``size`` bytes at most whose SHA-256 nobody knows yet. Write, then ``finish()``; close in any case.

        Raises:
            BlobTooLarge: it is over ``limits.image_bytes``. StorageFull, StorageUnreachable.
        """
        if size > self._largest():
            raise BlobTooLarge("the upload", self._largest(), size)
        self._reserve("", size)
        try:
            return self._uploads.receive(size, closed=lambda: self._release(size))
        except BaseException:
            self._release(size)
            raise

    def keep(self, data: bytes) -> Blob:
        """Have ``data`` as a blob: for bytes that have come in another way, such as a multipart form.

        Raises:
            BlobTooLarge, StorageFull, UploadConflict, StorageUnreachable.
        """
        sha256 = hashlib.sha256(data).hexdigest()
        known = self.stat(sha256)
        if known is not None:
            return known
        with self.upload(sha256, size=len(data)) as upload:
            upload.restart()
            upload.write(data)
            return upload.finish()

    # ------------------------------------------------------------ its keeping

    def sweep(self, *, unused_s: float, is_needed: Callable[[set[str]], set[str]]) -> int:
        """Remove the blobs that nobody has used for ``unused_s`` and no task needs, and uploads that nobody went on
        with for as long. ``is_needed`` answers which of some blobs tasks need. Answers how many blobs went.

        Raises:
            StorageUnreachable, and what ``is_needed`` raises: then the rest stays.
        """
        until = time.time() - unused_s
        old = {blob.sha256: blob for blob in self.store.blobs() if blob.used_s < until}
        gone = 0
        if old:
            unneeded = set(old) - is_needed(set(old))
            for blob in self.store.blobs():  # as they are now: one may have been used while that was found out
                if blob.sha256 in unneeded and blob.used_s < until and self.store.delete(blob.sha256):
                    gone += 1
        self._uploads.forget_old(unused_s)
        self.count_anew()
        return gone

    def count_anew(self) -> Usage:
        """Look how much there is."""
        count = size = 0
        for blob in self.store.blobs():
            count, size = count + 1, size + blob.size
        parts = self._uploads.parts()
        with self._lock:
            self._count, self._size = count, size
            self._parts = {sha256: part for sha256, part in parts.items() if sha256 not in self._open}
            return self._usage()

    def _usage(self) -> Usage:
        return Usage(self._count, self._size, self._terms().limit_mib << 20, self._bytes_of_parts())

    def _bytes_of_parts(self, but: str = "") -> int:
        return sum(part.size for sha256, part in self._parts.items() if sha256 != but)

    def _reserve(self, sha256: str, size: int) -> None:
        terms = self._terms()
        self.usage()  # so that it is known
        with self._lock:
            while lack := self._lack(sha256, size, terms):
                oldest = next((part for part in self._parts if part != sha256), None)
                would_fit = self._size + self._reserved + size <= terms.limit_mib << 20
                if oldest is None or not would_fit or self._parts[oldest].left_s > time.time() - _GOES_ON_S:
                    raise lack
                self._uploads.let_go(oldest)  # where somebody else is at it, it is counted again in time
                del self._parts[oldest]
            self._reserved += size

    def _lack(self, sha256: str, size: int, terms: Terms) -> StorageFull | None:
        """Why there is no room for ``size`` bytes more; what has come of them before is among these."""
        limit = terms.limit_mib << 20
        taken = self._size + self._reserved
        parts = self._bytes_of_parts(but=sha256)
        if taken + parts + size > limit:
            why = f"{taken + parts >> 20} of {limit >> 20} MiB are taken, {size >> 10} KiB wanted"
            return StorageFull(self.store.url, why)
        lack = lack_of_room(
            self._folder, floor_mib=terms.floor_mib, floor_percent=terms.floor_percent, needed=self._reserved + size
        )
        return StorageFull(str(self._folder), lack) if lack else None

    def _closed(self, sha256: str, size: int) -> None:
        left = self._uploads.uploaded(sha256)
        with self._lock:
            self._reserved -= size
            self._open.discard(sha256)
            self._parts.pop(sha256, None)
            if left:
                self._parts[sha256] = Part(left, time.time())

    def _release(self, size: int) -> None:
        with self._lock:
            self._reserved -= size

    def _note(self, count: int, size: int) -> None:
        with self._lock:
            if self._size >= 0:
                self._count, self._size = self._count + count, max(0, self._size + size)

    def _take(self, path: Path, sha256: str) -> Blob:
        """Make a blob of a whole upload."""
        is_new = self.store.stat(sha256) is None
        if isinstance(self.store, FolderStore):
            blob = self.store.adopt(path, sha256)
        else:
            blob = self.store.put(path, sha256)
            path.unlink(missing_ok=True)
        if is_new:
            self._note(1, blob.size)
        return blob

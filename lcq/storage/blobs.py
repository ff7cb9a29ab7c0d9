"""Blobs: bytes that are known by their SHA-256. What a place for them can do, whatever it is made of."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

CHUNK = 2**18
"""Bytes that are moved at a time."""

Moved = Callable[[int], None]
"""Told after each piece how many bytes it had; what it raises ends the transfer."""


def nothing(count: int) -> None:
    """A ``Moved`` that takes no notice."""


@dataclass(frozen=True)
class Blob:
    """What is stored. ``used_s``: seconds since 1970, when it was last put or asked for."""

    sha256: str
    size: int
    used_s: float


class BlobStore(Protocol):
    """A place for blobs. All methods block and may be called from any thread.

    Whatever they are asked, they raise StorageUnreachable where the place does not answer, and StorageFull where it
    has no room.
    """

    url: str
    """Where it is, as an fsspec URL."""

    def stat(self, sha256: str) -> Blob | None:
        """What is there under this name, used just now; None: nothing that can be counted on."""

    def put(self, source: Path, sha256: str, *, moved: Moved = nothing) -> Blob:
        """Keep the bytes of the file ``source``; nothing is done where they are there already.

        Raises:
            BlobMismatch: they have another SHA-256. OSError: the file cannot be read.
        """

    def get(self, sha256: str, target: Path, *, moved: Moved = nothing) -> Blob:
        """Have the bytes in the new file ``target``. Where this raises, there is no such file.

        Raises:
            BlobNotFound; BlobMismatch: what is there is damaged. OSError: the file cannot be written.
        """

    def read(self, sha256: str, *, offset: int = 0, length: int | None = None) -> Iterator[bytes]:
        """The bytes from ``offset`` on, in pieces; ``length`` of them at most.

        Raises:
            BlobNotFound: with the first piece.
        """

    def delete(self, sha256: str) -> bool:
        """Forget the bytes; answers whether there were any."""

    def blobs(self) -> Iterator[Blob]:
        """All that is there, in no order."""

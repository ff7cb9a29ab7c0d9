"""Bytes between requests and the depot, whose methods block: each call of it is in a thread."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator

from starlette.datastructures import UploadFile

from lcq.errors import InvalidInput, UploadConflict
from lcq.http.line import Line
from lcq.storage.addresses import blob_address
from lcq.storage.depot import Depot

_SAME_S = 10.0  # how long somebody else may take to bring the very same bytes
_LOOK_S = 0.05


async def kept(depot: Depot, data: bytes) -> str:
    """The address of ``data`` as a blob.

    Raises:
        BlobTooLarge, StorageFull, StorageUnreachable.
    """
    until = asyncio.get_running_loop().time() + _SAME_S
    while True:
        try:
            return blob_address((await asyncio.to_thread(depot.keep, data)).sha256)
        except UploadConflict:  # the same bytes are just coming in another request
            if asyncio.get_running_loop().time() > until:
                raise
            await asyncio.sleep(_LOOK_S)


async def content_of(part: object, name: str) -> bytes:
    """The bytes of a part of a form.

    Raises:
        InvalidInput: it is missing, empty, or no file.
    """
    if not isinstance(part, UploadFile):
        raise InvalidInput(f"the part {name!r} is missing, or is no file", hint="send it as a file, with a file name")
    data = await part.read()
    if not data:
        raise InvalidInput(f"the part {name!r} is empty")
    return data


async def pieces(source: Iterator[bytes]) -> AsyncIterator[bytes]:
    """What ``source`` gives, each piece awaited."""
    with contextlib.closing(source):  # type: ignore[type-var]
        while (piece := await asyncio.to_thread(next, source, None)) is not None:
            yield piece


async def whole(line: Line, sha256: str) -> bytes:
    """A blob as a whole.

    Raises:
        BlobNotFound, StorageUnreachable.
    """
    return await asyncio.to_thread(lambda: b"".join(line.depot.read(sha256)))

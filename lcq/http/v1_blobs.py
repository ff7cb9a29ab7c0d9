"""/v1/blobs: bytes by their SHA-256, up and down, also in pieces (docs/decisions/0019-bytes.md)."""

from __future__ import annotations

import asyncio
import re
from typing import Annotated

from fastapi import APIRouter, Path, Request, Response
from pydantic import BaseModel, Field
from starlette.responses import StreamingResponse

from lcq.errors import BlobNotFound, InvalidInput, UploadConflict
from lcq.http.bytes import pieces
from lcq.http.line import Line
from lcq.http.problems import PROBLEMS
from lcq.http.v1_tasks import REFUSED, told
from lcq.storage.uploads import Upload

Sha256 = Annotated[str, Path(pattern=r"^[0-9a-f]{64}$")]
_RANGE = re.compile(r"^bytes=(\d{0,19})-(\d{0,19})$")
_CONTENT_RANGE = re.compile(r"^bytes (\d{1,19})-(\d{1,19})/(\d{1,19})$")
_AT_ONCE = 2**20  # written in one go: each goes to a thread
_BINARY = {"type": "string", "format": "binary"}
_BYTES: dict[str, dict[str, object]] = {"application/octet-stream": {}}


class Stored(BaseModel):
    sha256: str
    size: int


class Usage(BaseModel):
    count: int
    bytes: int
    uploads_bytes: int = Field(description="of uploads that were broken off, and can go on")
    limit_bytes: int


def router(line: Line) -> APIRouter:
    """The routes."""
    routes = APIRouter(prefix="/v1/blobs", tags=["blobs"], responses=REFUSED)

    @routes.get("", response_model=Usage)
    async def usage() -> Response:
        """How many there are, and how much room they take."""
        found = await asyncio.to_thread(line.depot.usage)
        return told(Usage(count=found.count, bytes=found.size, uploads_bytes=found.parts, limit_bytes=found.limit))

    @routes.head(
        "/{sha256}",
        response_class=Response,
        responses={404: {"description": "Upload-Offset: so many bytes of it have come", "content": {}}},
    )
    async def look(sha256: Sha256) -> Response:
        """Whether it is there; to ask is to use it, so that it stays for a while."""
        found = await asyncio.to_thread(line.depot.stat, sha256)
        if found is None:
            offset = await asyncio.to_thread(line.depot.uploaded, sha256)
            return Response(status_code=404, headers={"upload-offset": str(offset)})
        return Response(headers={"content-length": str(found.size), "accept-ranges": "bytes"})

    @routes.get(
        "/{sha256}",
        response_class=Response,
        responses={
            200: {"description": "all of it", "content": _BYTES},
            206: {"description": "the range that was asked for", "content": _BYTES},
            416: {"description": "it is not that long"},
        },
    )
    async def fetch(request: Request, sha256: Sha256) -> Response:
        """Its bytes, or the one range of them that is asked for."""
        found = await asyncio.to_thread(line.depot.stat, sha256)
        if found is None:
            raise BlobNotFound(sha256)
        headers = {"accept-ranges": "bytes", "etag": f'"{sha256}"', "cache-control": "private, immutable"}
        first, last, status = 0, found.size - 1, 200
        wanted = _RANGE.match(request.headers.get("range", ""))
        if wanted is not None and any(wanted.groups()):
            if wanted[1]:
                first, last = int(wanted[1]), min(last, int(wanted[2]) if wanted[2] else last)
            else:
                first = max(0, found.size - int(wanted[2]))
            if first > last:
                return Response(status_code=416, headers={"content-range": f"bytes */{found.size}"})
            status = 206
            headers["content-range"] = f"bytes {first}-{last}/{found.size}"
        length = last - first + 1
        headers["content-length"] = str(length)
        return StreamingResponse(
            pieces(line.depot.read(sha256, offset=first, length=length)),
            status,
            headers=headers,
            media_type="application/octet-stream",
        )

    @routes.put(
        "/{sha256}",
        status_code=201,
        response_model=Stored,
        responses={
            200: {"model": Stored, "description": "it was there already"},
            507: {"description": "no room", "content": PROBLEMS},
        },
        openapi_extra={
            "requestBody": {
                "required": True,
                "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
            }
        },
    )
    async def put(request: Request, sha256: Sha256) -> Response:
        """Have its bytes kept: all of them, or with Content-Range those that are still missing."""
        first, size = _extent(request)
        known = await asyncio.to_thread(line.depot.stat, sha256)
        if known is not None:
            return told(Stored(sha256=sha256, size=known.size))
        upload = await asyncio.to_thread(lambda: line.depot.upload(sha256, size=size))
        try:
            if first == 0:
                await asyncio.to_thread(upload.restart)
            elif upload.offset != first:
                raise UploadConflict(sha256, f"{upload.offset} bytes of it are here", uploaded=upload.offset)
            await _written(request, upload)
            stored = await asyncio.to_thread(upload.finish)
        finally:
            await asyncio.to_thread(upload.close)
        return told(Stored(sha256=stored.sha256, size=stored.size), 201)

    @routes.delete("/{sha256}", status_code=204, response_class=Response)
    async def forget(sha256: Sha256) -> Response:
        """Forget it, whoever needs it."""
        if not await asyncio.to_thread(line.depot.delete, sha256):
            raise BlobNotFound(sha256)
        return Response(status_code=204)

    return routes


async def _written(request: Request, upload: Upload) -> None:
    waiting = bytearray()
    async for chunk in request.stream():
        waiting += chunk
        if len(waiting) >= _AT_ONCE:
            await asyncio.to_thread(upload.write, bytes(waiting))
            waiting.clear()
    if waiting:
        await asyncio.to_thread(upload.write, bytes(waiting))


def _extent(request: Request) -> tuple[int, int]:
    """From which byte on these are, and how many there are in all.

    Raises:
        InvalidInput: the headers do not say.
    """
    told_range = request.headers.get("content-range")
    length = request.headers.get("content-length", "")
    if told_range is None:
        if not length.isdigit():
            raise InvalidInput("the request has no Content-Length", hint="say how many bytes come")
        return 0, int(length)
    wanted = _CONTENT_RANGE.match(told_range)
    if wanted is None:
        raise InvalidInput(f"Content-Range {told_range[:80]!r} is none", hint="bytes FIRST-LAST/SIZE")
    first, last, size = (int(one) for one in wanted.groups())
    if not first <= last < size:
        raise InvalidInput(f"Content-Range {told_range[:80]!r} is none", hint="FIRST <= LAST < SIZE")
    return first, size

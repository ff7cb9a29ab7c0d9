"""/v1/calls, /v1/once: addresses that functions are lent, each good for one transfer (docs/serverless.md).

Whoever has such an address may use it, without any token: it is its own authority. They are handed out by the control
socket (``open_call``) to the agent that has the attempt, and by that call's own address to its runner. What goes
through them lies with the blobs; what is known of it, in the book of the call.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import APIRouter, HTTPException, Path, Query, Request, Response
from pydantic import BaseModel, Field
from starlette.types import Receive, Scope, Send

from lcq.errors import (
    AddressUnknown,
    BlobMismatch,
    BlobTooLarge,
    InvalidInput,
    LcqError,
    StateUnavailable,
    StorageUnreachable,
    TooLarge,
)
from lcq.http.line import Line
from lcq.http.v1_tasks import told
from lcq.lent import MOST_REPLY_BYTES, ONCE, Left, Part, Taken, Way, digest_of, is_asked, name_of, seconds_of
from lcq.state.moves.calls import WrongWay

_log = logging.getLogger(__name__)

Token = Annotated[str, Path(min_length=1, max_length=200)]
Seconds = Annotated[float, Field(gt=0, le=24 * 3600)]
_AT_ONCE = 2**20  # written in one go: each goes to a thread
_GRACE_S = 120.0  # of a transfer, beside what its bytes take at the least speed
_LEAST_SPEED = 64 * 1024  # bytes a second
_FETCH_S = 600.0  # for what is left here to be fetched
_LATE_S = 3600.0  # after a call's time is over, its bill may still come
_LOOK_S = (0.05, 0.5)  # first and longest pause between two looks whether a reply has come
_LONGEST_WAIT_S = 30.0
_LONGEST = 200  # characters of a foreign header that are kept


class Picture(BaseModel):
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    size: int = Field(ge=1)


class Wanted(BaseModel):
    """What a call needs: ``image`` and ``mask`` are brought by who asks, and fetched by the function; its result is
    put; with ``reply`` a gateway calls back."""

    image: Picture | None = None
    mask: Picture | None = None
    result: str = ""  # the digest of what is asked
    reply: bool = False
    seconds: Seconds = 300.0


def router(line: Line, closing: asyncio.Event) -> APIRouter:
    """The routes; in no document: nobody makes such an address up. ``closing``: the scheduler ends."""
    routes = APIRouter(prefix="/v1", include_in_schema=False)
    state = line.state

    @routes.post("/calls/{token}/addresses")
    async def lend(token: Token, wanted: Wanted) -> Response:
        """Lend what a call needs: paths, by what they are for; ``name``: what the reply that comes by ``post_reply`` is
        called."""
        most = state.config.limits.image_bytes
        lent: dict[str, str] = {}
        for part, picture in ((Part.IMAGE, wanted.image), (Part.MASK, wanted.mask)):
            if picture is None:
                continue
            if picture.size > most:
                raise BlobTooLarge("the picture", most, picture.size)
            for way in (Way.PUT, Way.GET):
                one, _ = await state.lend_address(
                    token, way, part, seconds=wanted.seconds, size=picture.size, sha256=picture.sha256
                )
                lent[f"{way}_{part}"] = ONCE + one
        if wanted.result:
            if not is_asked(wanted.result):
                raise InvalidInput(
                    f"{wanted.result[:40]!r} is no digest of what is asked", hint="16 hexadecimal digits"
                )
            one, _ = await state.lend_address(
                token, Way.PUT, Part.RESULT, of=wanted.result, seconds=wanted.seconds, size=most
            )
            lent["put_result"] = ONCE + one
        if wanted.reply:
            one, digest = await state.lend_address(
                token, Way.POST, Part.REPLY, seconds=wanted.seconds + _LATE_S, size=MOST_REPLY_BYTES
            )
            lent |= {"post_reply": ONCE + one, "name": name_of(digest)}
        return told(lent)

    @routes.get("/calls/{token}/left")
    async def look(
        token: Token,
        asked: Annotated[str, Query(max_length=16)] = "",
        reply: Annotated[str, Query(max_length=16)] = "",
        wait_s: Annotated[float, Query(ge=0, le=_LONGEST_WAIT_S)] = 0.0,
    ) -> Response:
        """The results of what was ``asked``, the newest attempt's first; and that ``reply``, waited for."""
        whose = await state.reader.calls.whose(digest_of(token))
        if whose is None:
            raise AddressUnknown
        until = asyncio.get_running_loop().time() + wait_s
        pause_s, longest_s = _LOOK_S
        while True:
            left = await state.reader.calls.left(*whose)
            replies = [one for one in left if one.part is Part.REPLY and one.of == reply]
            results = [one for one in left if one.part is Part.RESULT and one.of == asked]
            time_left_s = until - asyncio.get_running_loop().time()
            if not reply or replies or time_left_s <= 0 or closing.is_set():
                break
            await asyncio.sleep(min(pause_s, time_left_s))
            pause_s = min(longest_s, 1.5 * pause_s)
        there = [one for one in results if await asyncio.to_thread(line.depot.stat, one.sha256) is not None]
        found = [await fetched_by(token, one) for one in there]
        return told({"results": found, "reply": await fetched_by(token, replies[0]) if replies else None})

    async def fetched_by(token: str, left: Left) -> dict[str, Any]:
        """What is here, and the path by which it is fetched, once."""
        one, _ = await state.lend_address(
            token,
            Way.GET,
            left.part,
            of=left.of,
            seconds=_FETCH_S,
            size=left.size,
            sha256=left.sha256,
            attempt=left.attempt,
        )
        return {**left.told, "attempt": left.attempt, "of": left.of, "path": ONCE + one}

    @routes.delete("/calls/{token}")
    async def close(token: Token) -> Response:
        """The call is over: what came by it goes."""
        unneeded = await state.close_call(token)
        for sha256 in unneeded:
            try:
                await asyncio.to_thread(line.depot.delete, sha256)
            except StorageUnreachable as trouble:
                _log.info("a picture of a call that is over stays for a while: %s", trouble)
        if unneeded:
            await state.close_call(token, removed=unneeded)
        return Response(status_code=204)

    @routes.get("/once/{token}")
    async def fetch(request: Request, token: Token) -> Response:
        """The bytes, once."""
        with _other_ways_told():
            taken = await state.take_address(token, Way.GET, size=None, seconds=_GRACE_S + _FETCH_S)
        known = None
        try:
            known = await asyncio.to_thread(line.depot.stat, taken.sha256)
        finally:
            if known is None:
                await state.settle_address(taken, is_whole=False)
        if known is None:
            raise AddressUnknown
        return _Once(line, request, taken)

    @routes.put("/once/{token}", status_code=201)
    async def put(request: Request, token: Token) -> Response:
        """Bytes, once, and never more than may come."""
        announced = _length(request)
        most = announced or state.config.limits.image_bytes
        with _other_ways_told():
            taken = await state.take_address(token, Way.PUT, size=announced, seconds=_GRACE_S + most / _LEAST_SPEED)
        async with _held(line, taken) as seen:
            if not announced and announced is not None:
                raise InvalidInput("the request has no bytes", hint="send the picture as its body")
            if taken.sha256 and announced is not None and announced != taken.size:
                raise InvalidInput(f"{announced:,} bytes were announced, and {taken.size:,} are to come")
            if taken.sha256:
                seen.was_there = await asyncio.to_thread(line.depot.stat, taken.sha256) is not None
            arrival = await asyncio.to_thread(line.depot.receive, announced or taken.size)
            try:
                await _written(request, arrival.write)
                if not arrival.size or (announced is not None and arrival.size != announced):
                    raise InvalidInput(f"{arrival.size:,} bytes came, which is not all", hint="send the whole picture")
                if taken.sha256 and arrival.sha256 != taken.sha256:
                    raise BlobMismatch(taken.sha256, arrival.sha256)
                if not taken.sha256:
                    await state.name_bytes(taken, arrival.sha256)
                    seen.was_there = await asyncio.to_thread(line.depot.stat, arrival.sha256) is not None
                blob = await asyncio.to_thread(arrival.finish)
            finally:
                await asyncio.to_thread(arrival.close)
            await state.settle_address(
                taken, is_whole=True, sha256=blob.sha256, size=blob.size, was_there=seen.was_there
            )
        return told(Picture(sha256=blob.sha256, size=blob.size), 201)

    @routes.post("/once/{token}")
    async def call_back(request: Request, token: Token) -> Response:
        """What a gateway says became of a call, once. Where nobody waits for it any more, only its bill counts."""
        with _other_ways_told():
            taken = await state.take_address(token, Way.POST, size=_length(request), seconds=_GRACE_S)
        async with _held(line, taken):
            document = await _whole(request, taken.size)
            heads = {name: request.headers.get(f"x-{head}", "")[:_LONGEST] for name, head in _HEADS}
            status = int(heads["status"]) if heads["status"].isdigit() and len(heads["status"]) == 3 else 200
            sha256 = ""
            if not taken.is_over:
                # An empty answer is one too: a space is no JSON either, and a blob has bytes.
                blob = await asyncio.to_thread(line.depot.keep, document or b" ")
                sha256 = blob.sha256
            await state.settle_address(
                taken, is_whole=True, sha256=sha256, size=max(1, len(document)), told=heads | {"status": status}
            )
        await _billed(line, taken, document, heads["seconds"], is_last=status not in _TRIED_AGAIN)
        return Response(status_code=204)

    return routes


_TRIED_AGAIN = frozenset({429, 503})
"""By which a gateway says that a call was not taken: the same attempt may make another one."""

_HEADS = (("status", "function-status"), ("seconds", "duration-seconds"), ("call_id", "call-id"))
"""What a gateway tells beside the function's answer, in headers of its own."""


class _Once(Response):
    """The bytes of an address; it is used up when all of them have gone to who asked."""

    def __init__(self, line: Line, request: Request, taken: Taken) -> None:
        super().__init__(media_type="application/octet-stream")
        self._line, self._request, self._taken = line, request, taken

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        is_whole = False
        try:
            length = str(self._taken.size).encode()
            heads = [(b"content-type", b"application/octet-stream"), (b"content-length", length)]
            await send({"type": "http.response.start", "status": 200, "headers": heads})
            source = self._line.depot.read(self._taken.sha256)
            left = self._taken.size
            while left and (piece := await asyncio.to_thread(next, source, None)) is not None:
                left -= len(piece)
                if await self._request.is_disconnected():
                    return
                await send({"type": "http.response.body", "body": piece, "more_body": left > 0})
            is_whole = left == 0
        finally:
            with suppress(LcqError):
                await self._line.state.settle_address(self._taken, is_whole=is_whole)


@dataclass
class _Seen:
    """``was_there``: whether the bytes of a transfer were among the blobs before; None: nobody has looked."""

    was_there: bool | None = None


@asynccontextmanager
async def _held(line: Line, taken: Taken) -> AsyncIterator[_Seen]:
    """What breaks off in the block leaves the address as it was."""
    seen = _Seen()
    try:
        yield seen
    except BaseException:
        with suppress(LcqError):  # its time ends by itself
            await asyncio.shield(line.state.settle_address(taken, is_whole=False, was_there=seen.was_there))
        raise


@contextmanager
def _other_ways_told() -> Iterator[None]:
    try:
        yield
    except WrongWay as error:
        way = error.way.upper()
        raise HTTPException(405, f"this address is for {way}", headers={"allow": way}) from error


async def _written(request: Request, write: Any) -> None:
    waiting = bytearray()
    async for chunk in request.stream():
        waiting += chunk
        if len(waiting) >= _AT_ONCE:
            await asyncio.to_thread(write, bytes(waiting))
            waiting.clear()
    if waiting:
        await asyncio.to_thread(write, bytes(waiting))


async def _whole(request: Request, most: int) -> bytes:
    taken = bytearray()
    async for chunk in request.stream():
        taken += chunk
        if len(taken) > most:
            raise TooLarge(f"this address takes {most:,} bytes at most, and more came")
    return bytes(taken)


def _length(request: Request) -> int | None:
    length = request.headers.get("content-length", "")
    return int(length) if length.isdigit() and len(length) < 16 else None


async def _billed(line: Line, taken: Taken, document: bytes, header: str, *, is_last: bool) -> None:
    """Have the books corrected by what an attempt cost that has ended already, or will end without saying so."""
    terms = await line.reader.calls.terms(taken.task, taken.attempt)
    seconds = seconds_of(document, header)
    if terms is None or seconds is None:
        return
    try:
        cost = terms.price(seconds)
        if await line.state.bill_attempt(taken.task, attempt=taken.attempt, cost=cost, is_last=is_last):
            _log.info("task %s, attempt %d: its bill came late, for %.1f s", taken.task, taken.attempt, seconds)
    except StateUnavailable as away:  # then what was taken to be true stays
        _log.warning("task %s, attempt %d: its late bill is not in the books: %s", taken.task, taken.attempt, away)

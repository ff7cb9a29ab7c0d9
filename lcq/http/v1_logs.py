"""/v1/tasks/{id}/log: what was written during a task's attempts; as text, as events or as JSON, and followed."""

from __future__ import annotations

import asyncio
import functools
import re
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter, Header, Query
from starlette.responses import Response, StreamingResponse

from lcq.errors import InvalidInput, LogElsewhere, NoLog
from lcq.http.line import Line
from lcq.http.problems import as_json
from lcq.http.v1_tasks import REFUSED, TaskId, told
from lcq.log_stream import followed, whole
from lcq.wire import MOST_LOG_LINES, LogLine, ReadTaskLog, TaskLogAnswer

Piece = TaskLogAnswer | NoLog
"""Some lines; or what keeps them from being read just now."""
_TEXT, _EVENTS, _JSON = "text/plain; charset=utf-8", "text/event-stream", "application/json"
_PLACE = re.compile(r"^([0-9]{1,9})-([0-9]{1,15})$")
_QUIET_S = 15.0  # a comment at least so often: proxies close what is silent, and a client that has gone is noticed


def router(line: Line, closing: asyncio.Event) -> APIRouter:
    """The route. ``closing``: streams end."""
    routes = APIRouter(prefix="/v1/tasks", tags=["tasks"], responses=REFUSED)

    @routes.get(
        "/{task_id}/log",
        response_class=Response,
        responses={
            200: {
                "description": "as Accept wants it: text (which is the default), events, or one piece as JSON",
                "content": {"text/plain": {}, _EVENTS: {}, _JSON: {}},
            }
        },
    )
    async def task_log(
        task_id: TaskId,
        attempt: Annotated[int, Query(ge=0, le=10**9, description="its number; 0: the newest")] = 0,
        begin: Annotated[
            int, Query(ge=-1, le=10**15, description="at that byte of it; -1 (of JSON only): the newest lines")
        ] = 0,
        limit: Annotated[int, Query(ge=1, le=MOST_LOG_LINES, description="lines of one answer in JSON")] = 200,
        follow: Annotated[bool, Query(description="go on until the task has ended, over all its attempts")] = False,
        accept: Annotated[str, Header()] = "*/*",
        last_event_id: Annotated[
            str | None, Header(pattern=_PLACE.pattern, description="as browsers send it when they come back")
        ] = None,
    ) -> Response:
        """What its runners wrote, as far as the node that ran the attempt has kept it.

        Text has a line a line. Events have each as JSON, and its place as their id.
        """
        whole_id = await line.whole_id(task_id)
        if last_event_id is not None and (place := _PLACE.match(last_event_id)):
            attempt, begin = int(place[1]), int(place[2])
        source = _Source(line, whole_id)
        kind = _wanted(accept)
        if kind == _JSON:
            if follow:
                raise InvalidInput("one answer in JSON cannot be followed", hint=f"ask for {_EVENTS}, or for text")
            return told(await source.read(attempt, begin, limit))
        read = source.followed if follow else source.whole
        pieces = await read(attempt, max(0, begin))
        return StreamingResponse(_unless(closing, _written(pieces, kind), kind), media_type=kind)

    return routes


class _Source:
    """The log of one task. Where its node speaks to another scheduler, that one is asked."""

    def __init__(self, line: Line, task: str) -> None:
        self._line, self._task = line, task

    async def read(self, attempt: int, begin: int, limit: int = MOST_LOG_LINES) -> TaskLogAnswer:
        """Raises:
        TaskNotFound, InvalidInput, NoLog.
        """
        ask = ReadTaskLog(task=self._task, attempt=attempt, begin=begin, limit=limit)
        try:
            return await self._line.ask(ask)
        except LogElsewhere:
            async with self._line.everywhere() as client:
                return await client.task_log(self._task, attempt=attempt, begin=begin, limit=limit)

    async def whole(self, attempt: int, begin: int) -> AsyncIterator[Piece]:
        """Raises:
        TaskNotFound, InvalidInput, NoLog: before its first piece.
        """
        first = await self.read(attempt, begin)
        return self._after(first)

    async def _after(self, first: TaskLogAnswer) -> AsyncIterator[Piece]:
        yield first
        if first.lines and first.next < first.size:
            async for answer in whole(self.read, first.attempt, first.next):
                yield answer

    async def followed(self, attempt: int, begin: int) -> AsyncIterator[Piece]:
        """Raises:
        TaskNotFound: before its first piece.
        """
        look = functools.partial(self._line.reader.task, self._task)
        await look()
        return followed(self.read, look, attempt=attempt, begin=begin)


def _wanted(accept: str) -> str:
    """The kind that is named first, of those that there are."""
    for one in accept.split(","):
        match one.partition(";")[0].strip().lower():
            case "application/json":
                return _JSON
            case "text/event-stream":
                return _EVENTS
            case "text/plain" | "text/*" | "*/*":
                return _TEXT
    return _TEXT


async def _written(pieces: AsyncIterator[Piece], kind: str) -> AsyncIterator[bytes]:
    async for piece in pieces:
        if kind == _EVENTS:
            yield _as_events(piece)
        elif isinstance(piece, NoLog):
            yield f"-- {piece.message} --\n".encode()
        else:
            yield "".join(_as_text(line) for line in piece.lines).encode()


def _as_text(line: LogLine) -> str:
    cut = f"-- {line.cut} bytes were written here and not kept --\n" if line.cut else ""
    when = datetime.fromtimestamp(line.at_ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    level = f"{line.level} " if line.level else ""
    return f"{cut}{when} {line.source} {level}{line.text}\n"


def _as_events(piece: Piece) -> bytes:
    if isinstance(piece, NoLog):
        return b"event: trouble\ndata: %s\n\n" % as_json({"code": piece.code, "message": piece.message})
    ends = [line.number for line in piece.lines[1:]] + [piece.next]
    return b"".join(
        b"id: %d-%d\nevent: line\ndata: %s\n\n"
        % (
            piece.attempt,
            end,
            as_json(line.model_dump(mode="json") | {"task": piece.task, "attempt": piece.attempt, "node": piece.node}),
        )
        for line, end in zip(piece.lines, ends, strict=True)
    )


async def _unless(closing: asyncio.Event, content: AsyncIterator[bytes], kind: str) -> AsyncIterator[bytes]:
    """``content`` until this scheduler ends; what is silent for long says that it is still here, where that can be."""
    ends = asyncio.ensure_future(closing.wait())
    coming = asyncio.ensure_future(_next(content))
    try:
        while True:
            await asyncio.wait({coming, ends}, timeout=_QUIET_S, return_when=asyncio.FIRST_COMPLETED)
            if coming.done():
                piece = coming.result()
                if piece is None:
                    return
                coming = asyncio.ensure_future(_next(content))
                if piece:
                    yield piece
            elif ends.done():
                return
            elif kind == _EVENTS:
                yield b": still here\n\n"
    finally:
        ends.cancel()
        coming.cancel()


async def _next(content: AsyncIterator[bytes]) -> bytes | None:
    return await anext(content, None)

"""/v1/events: what happens, as server-sent events; who comes back goes on where it stopped."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import APIRouter, Header, Query
from starlette.responses import StreamingResponse

from lcq.clock import steady_now
from lcq.errors import StateUnavailable
from lcq.http.line import Line
from lcq.http.problems import as_json
from lcq.http.v1_tasks import REFUSED
from lcq.models import Event
from lcq.wire import Events, EventsAnswer

_QUIET_MS = 15_000  # a line at least so often: proxies close what is silent, and a client that has gone is noticed
_PIECE = 500
_AGAIN_MS = 1000
_ID = r"^(\$|[0-9]{1,19}-[0-9]{1,19})$"


def router(line: Line, closing: asyncio.Event) -> APIRouter:
    """The route. ``closing``: streams end."""
    routes = APIRouter(prefix="/v1", tags=["events"], responses=REFUSED)

    @routes.get(
        "/events",
        response_class=StreamingResponse,
        responses={200: {"description": "text/event-stream", "content": {"text/event-stream": {}}}},
    )
    async def events(
        after: Annotated[
            str, Query(pattern=_ID, description="the id of the last event that is known; $: from now on")
        ] = "$",
        last_event_id: Annotated[
            str | None, Header(pattern=_ID, description="as browsers send it when they come back; goes over after")
        ] = None,
        task: Annotated[str, Query(max_length=64)] = "",
        job: Annotated[str, Query(max_length=128)] = "",
        node: Annotated[str, Query(max_length=128)] = "",
        queue: Annotated[str, Query(max_length=128)] = "",
    ) -> StreamingResponse:
        """Each event with its id and its move as its name; ``data`` has its fields.

        ``ready`` comes first. ``gap``: some were dropped before they could be read; look afresh.
        """
        wanted = {key: value for key, value in (("id", task), ("job", job), ("node", node), ("queue", queue)) if value}
        return StreamingResponse(_stream(line, closing, last_event_id or after, wanted), media_type="text/event-stream")

    return routes


async def _stream(line: Line, closing: asyncio.Event, after: str, wanted: dict[str, str]) -> AsyncIterator[bytes]:
    if after == "$":
        after = line.state.feed.last_id
    yield b"retry: %d\n" % _AGAIN_MS + _told("ready", after, b"{}")
    told_at = steady_now()
    while not closing.is_set():
        try:
            answer = await _unless(closing, line, after)
        except StateUnavailable as away:
            yield b": %s\n\n" % away.message.encode()
            await asyncio.sleep(_AGAIN_MS / 1000)
            continue
        if answer is None:
            return
        before, after = after, answer.last_id
        shown = [event for event in answer.events if _is_wanted(event, wanted)]
        text = b"".join(_told(event.move, event.id, as_json(event.fields)) for event in shown)
        if answer.gap:  # what follows it has yet to be seen
            yield _told(
                "gap",
                before if answer.events else after,
                as_json({"message": "events were dropped before they could be read"}),
            )
        if text:
            yield text
        elif not answer.events or steady_now() - told_at >= _QUIET_MS / 1000:
            yield b"id: %s\n: still here\n\n" % after.encode()  # who comes back need not go through it all again
        elif not answer.gap:
            continue
        told_at = steady_now()


async def _unless(closing: asyncio.Event, line: Line, after: str) -> EventsAnswer | None:
    """The next events; None where this scheduler ends first."""
    asked = asyncio.ensure_future(line.ask(Events(after=after, wait_ms=_QUIET_MS, limit=_PIECE)))
    ends = asyncio.ensure_future(closing.wait())
    try:
        await asyncio.wait({asked, ends}, return_when=asyncio.FIRST_COMPLETED)
        return asked.result() if asked.done() else None
    finally:
        asked.cancel()
        ends.cancel()


def _is_wanted(event: Event, wanted: dict[str, str]) -> bool:
    return all(event.fields.get(key) == value for key, value in wanted.items())


def _told(name: str, event_id: str, data: bytes) -> bytes:
    return b"id: %s\nevent: %s\ndata: %s\n\n" % (event_id.encode(), name.encode(), data)

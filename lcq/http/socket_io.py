"""As much of Engine.IO 4 as keeps the parents' web apps quiet: connected by polling, and nothing ever to tell.

Their erase models report no progress there either.
"""

from __future__ import annotations

import asyncio
import secrets
from collections import OrderedDict
from dataclasses import dataclass, field

from fastapi import APIRouter, Request, Response

from lcq.http.problems import as_json

_PING_S = 25.0
_MOST = 1000
_SEPARATOR = "\x1e"


@dataclass
class _Line:
    waiting: list[str] = field(default_factory=list)
    news: asyncio.Event = field(default_factory=asyncio.Event)

    def say(self, packet: str) -> None:
        self.waiting.append(packet)
        self.news.set()


def router(closing: asyncio.Event) -> APIRouter:
    """The routes. ``closing``: polls end."""
    routes = APIRouter(include_in_schema=False)
    lines: OrderedDict[str, _Line] = OrderedDict()

    @routes.get("/socket.io/")
    async def poll(request: Request) -> Response:
        query = request.query_params
        if query.get("EIO") != "4" or query.get("transport") != "polling":
            return _refused(5, "Unsupported protocol version")
        sid = query.get("sid")
        if sid is None:
            sid = secrets.token_urlsafe(12)
            lines[sid] = _Line()
            if len(lines) > _MOST:
                lines.popitem(last=False)
            told = {"sid": sid, "upgrades": [], "pingInterval": 25000, "pingTimeout": 20000, "maxPayload": 100000}
            return _said("0" + as_json(told).decode())
        line = lines.get(sid)
        if line is None:
            return _refused(1, "Session ID unknown")
        ends = asyncio.ensure_future(closing.wait())
        news = asyncio.ensure_future(line.news.wait())
        await asyncio.wait({ends, news}, timeout=_PING_S, return_when=asyncio.FIRST_COMPLETED)
        ends.cancel()
        news.cancel()
        packets, line.waiting = line.waiting or ["2"], []
        line.news.clear()
        return _said(_SEPARATOR.join(packets))

    @routes.post("/socket.io/")
    async def told(request: Request) -> Response:
        line = lines.get(request.query_params.get("sid", ""))
        if line is None:
            return _refused(1, "Session ID unknown")
        for packet in (await request.body()).decode("utf-8", "replace").split(_SEPARATOR):
            if packet.startswith("40"):
                line.say("40" + as_json({"sid": secrets.token_urlsafe(12)}).decode())
            elif packet == "1" or packet.startswith("41"):
                lines.pop(request.query_params["sid"], None)
                line.say("6")
        return _said("ok")

    return routes


def _said(text: str) -> Response:
    return Response(text.encode(), media_type="text/plain; charset=UTF-8")


def _refused(code: int, message: str) -> Response:
    return Response(as_json({"code": code, "message": message}), 400, media_type="application/json")

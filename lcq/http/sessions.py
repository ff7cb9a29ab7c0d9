"""Which model each client of the parents' APIs has chosen: those know no model in a request, only one at a time.

A browser is known by a cookie. A script without cookies is known by its token, else by its address: scripts of one
host share a choice. Choices are of one scheduler, and do not outlive it.
"""

from __future__ import annotations

import secrets
from collections import OrderedDict
from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import Response

from lcq.http.line import Line, caller_in
from lcq.http.parents import models_of

COOKIE = "lcq_session"
_REMEMBERED = 10_000


@dataclass
class Session:
    """``model``: as its parent calls it; "": none was chosen. ``user``: whose its tasks are, without a token."""

    key: str
    user: str
    model: str = ""
    is_new: bool = False


class Sessions:
    """The newest of them."""

    def __init__(self) -> None:
        self._known: OrderedDict[str, Session] = OrderedDict()

    def of(self, request: Request) -> Session:
        """The session of who asks."""
        cookie = request.cookies.get(COOKIE, "")
        caller = caller_in(request)
        address = request.client.host if request.client else "?"
        key = f"cookie {cookie}" if cookie in self._cookies() else f"{caller.name} {address}"
        known = self._known.get(key)
        if known is None:
            known = self._known[key] = Session(key, user=caller.name)
        self._known.move_to_end(key)
        while len(self._known) > _REMEMBERED:
            self._known.popitem(last=False)
        return known

    async def model_of(self, request: Request, line: Line) -> tuple[str, str]:
        """The model of the session of who asks, by its parent's name, and the engine that has it here ("": none)."""
        wanted = self.of(request).model or line.state.config.http.model
        known = models_of(await line.nodes())
        if not known or (wanted and wanted not in known):  # it may have come just now
            known = models_of(await line.reader.nodes())
        model = wanted or next(iter(known), "lama")
        return model, known.get(model, "")

    def _cookies(self) -> _Cookies:
        return _Cookies(self._known)

    def welcome(self, request: Request, response: Response) -> None:
        """Give a browser that has none a session of its own."""
        if request.cookies.get(COOKIE, "") in self._cookies():
            return
        cookie = secrets.token_urlsafe(16)
        self._known[f"cookie {cookie}"] = Session(f"cookie {cookie}", user=f"web-{cookie[:8]}", is_new=True)
        response.set_cookie(COOKIE, cookie, httponly=True, samesite="strict", path="/")


class _Cookies:
    def __init__(self, known: OrderedDict[str, Session]) -> None:
        self._known = known

    def __contains__(self, cookie: str) -> bool:
        return f"cookie {cookie}" in self._known

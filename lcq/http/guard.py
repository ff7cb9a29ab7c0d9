"""The ASGI layer around everything: who, from where, how often, how much and how long, before any of it is read."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, TypeAlias

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from lcq.config import HttpConfig
from lcq.errors import HeadersTooLarge, InternalError, LcqError, TooLarge, TooManyRequests, Unauthenticated
from lcq.http.access import Caller, caller_of, needed_role, refuse_foreign, refuse_more, shown_path
from lcq.http.problems import PROBLEM_TYPE, as_json, headers_of, problem_of, status_of
from lcq.http.rates import Rates
from lcq.lent import ONCE
from lcq.metrics.instruments import Counts, Histogram

_log = logging.getLogger(__name__)
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS"})
_GONE = 499  # as nginx counts answers to clients that have gone
_WRONG_TOKENS_A_MINUTE = 60.0
_MIB = 2**20
_POLITE = 16 * _MIB  # of a refused body that is read all the same, so that its sender hears the refusal
_POLITE_S = 2.0  # so long one waits for the rest of it
_LEAST_SPEED = 64 * 1024  # bytes a second, for a body that takes longer than http.body_s
_HEADERS = 100
_HEADER_BYTES = 64 * 1024

Scope: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send: TypeAlias = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]


class Refused(HTTPException):
    """A refusal on its way through FastAPI, which makes a 400 of every other error while it reads a body."""

    def __init__(self, refusal: LcqError) -> None:
        super().__init__(int(status_of(refusal)), refusal.message)
        self.refusal = refusal


class BodyLate(TooManyRequests):
    """A body that took too long to come."""

    code = "too_slow"

    def __init__(self, body_s: float) -> None:
        LcqError.__init__(
            self, f"the request had not arrived within {body_s:g} s", hint="send less, or raise http.body_s"
        )
        self.again_s = 1.0


class Guard:
    """Wraps ``app``. What it refuses costs neither a body nor a look at Redis.

    ``scope["state"]["caller"]`` is who asks. ``answered`` counts answers by method, route and status; ``took`` has the
    seconds that they took.
    """

    def __init__(
        self,
        app: App,
        settings: Callable[[], HttpConfig],
        *,
        own_names: frozenset[str],
        largest_blob: Callable[[], int],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``settings`` and ``largest_blob`` answer what holds now; the latter in bytes."""
        self._app = app
        self._settings = settings
        self._own_names = own_names
        self._largest_blob = largest_blob
        self._clock = clock
        self._rates = Rates(clock=clock)
        self._uploads = asyncio.Semaphore(settings().uploads)
        self.answered = Counts("lcq_http_requests_total")
        self.took = Histogram("lcq_http_request_seconds")
        self.under_way = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            return
        began = self._clock()
        told = _Told(send, receive, scope)
        self.under_way += 1
        try:
            await self._guarded(scope, receive, told)
        except LcqError as refusal:
            await self._refuse(scope, told, refusal)
        except ClientDisconnect:
            told.status = told.status or _GONE
        except Exception:  # noqa: BLE001 - the edge: a bug in one answer must not end the scheduler of all
            _log.exception("%s %s failed", scope["method"], shown_path(scope["path"]))
            await self._refuse(
                scope, told, InternalError("this request failed inside the scheduler", hint="its log has the story")
            )
        finally:
            self.under_way -= 1
            route = getattr(scope.get("route"), "path", "other")
            method = scope["method"] if scope["method"] in _METHODS else "OTHER"  # strangers make no new series
            self.answered.note(method, route, str(told.status))
            self.took.note(self._clock() - began, method, route)

    async def _guarded(self, scope: Scope, receive: Receive, told: _Told) -> None:
        settings = self._settings()
        _refuse_heads(scope["headers"])
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        method, path = scope["method"], scope["path"]
        address = (scope.get("client") or ("?",))[0]
        refuse_foreign(headers, settings, own_names=self._own_names, method=method)
        caller = self._caller(headers, settings, method, path, address)
        refuse_more(caller, method, path)
        wait_s = self._rates.take(caller.name if caller.is_named else address, settings.per_minute)
        if wait_s:
            raise TooManyRequests(caller.name, f"asks more than {settings.per_minute:g} times a minute", wait_s)
        scope.setdefault("state", {})["caller"] = caller
        is_blob = method == "PUT" and path.startswith(("/v1/blobs/", ONCE))
        most = max(self._largest_blob() if is_blob else 0, settings.body_mib * _MIB)
        body = told.body = _Body(receive, headers, most, settings.body_s, self._uploads)
        if body.declared > most:
            raise _too_large(most)
        try:
            await self._app(scope, body.receive, told)
        finally:
            body.release()

    def _caller(self, headers: dict[str, str], settings: HttpConfig, method: str, path: str, address: str) -> Caller:
        """Raises:
        Unauthenticated, TooManyRequests: it has tried too many tokens.
        """
        if settings.tokens and needed_role(method, path) is None:
            return caller_of(None, settings.model_copy(update={"tokens": {}}))
        try:
            return caller_of(headers.get("authorization"), settings)
        except Unauthenticated:
            wait_s = self._rates.take(f"wrong {address}", _WRONG_TOKENS_A_MINUTE)
            if wait_s:
                raise TooManyRequests(address, "shows too many wrong tokens", wait_s) from None
            raise

    @staticmethod
    async def _refuse(scope: Scope, told: _Told, refusal: LcqError) -> None:
        if told.status:
            return  # it has begun to answer: the connection is closed by who served it
        document = problem_of(refusal)
        path = scope["path"]
        if not path.startswith("/v1"):
            document["errors"] = refusal.message
        is_page = scope["method"] == "GET" and path in ("/", "/index.html")
        more = [(name.encode(), value.encode()) for name, value in headers_of(refusal, is_for_browsers=is_page).items()]
        content = as_json(document)
        more += [(b"content-type", PROBLEM_TYPE.encode()), (b"content-length", str(len(content)).encode())]
        await told({"type": "http.response.start", "status": int(status_of(refusal)), "headers": more})
        await told({"type": "http.response.body", "body": content if scope["method"] != "HEAD" else b""})


class _Told:
    """``send``, that remembers the status, and says to browsers what they may not guess."""

    def __init__(self, send: Send, receive: Receive, scope: Scope) -> None:
        self._send = send
        self._receive = receive
        self.status = 0
        self.body: _Body | None = None
        named = {name for name, _ in scope["headers"]}
        self._has_body = bool(named & {b"content-length", b"transfer-encoding"})
        self._would_go_on = b"transfer-encoding" in named and b"expect" not in named  # to read on would ask for it

    async def __call__(self, message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = list(message.get("headers", ()))
            named = {name.lower() for name, _ in headers}
            for name, value in (
                (b"x-content-type-options", b"nosniff"),
                (b"cache-control", b"no-store"),
                (b"cross-origin-resource-policy", b"same-origin"),
                (b"x-frame-options", b"DENY"),
            ):
                if name not in named:
                    headers.append((name, value))
            if self.status >= 400 and await self._has_much_left():
                headers.append((b"connection", b"close"))  # nobody reads what is still to come of it
            message = {**message, "headers": headers}
        await self._send(message)

    async def _has_much_left(self) -> bool:
        """Whether more of the body is to come than is read only to be polite: who is cut off while sending hears of a
        broken connection, and not the refusal."""
        if not (self.body.has_much_left if self.body is not None else self._has_body):
            return False
        if not self._would_go_on:
            return True
        heard = 0
        try:
            async with asyncio.timeout(_POLITE_S):
                while heard <= _POLITE:
                    message = await self._receive()
                    heard += len(message.get("body", b""))
                    if message["type"] == "http.disconnect" or not message.get("more_body", False):
                        return False
        except TimeoutError:
            pass
        return True


class _Body:
    """``receive`` with limits: bytes, time, and how many bodies come in at once."""

    def __init__(
        self, receive: Receive, headers: dict[str, str], most: int, body_s: float, uploads: asyncio.Semaphore
    ) -> None:
        """``most``: bytes. ``body_s``: what it may take, beside what its bytes take at the least speed."""
        self._receive = receive
        self._most = most
        self._body_s = body_s
        self._uploads = uploads
        self._is_held = False
        length = headers.get("content-length", "")
        self.declared = int(length) if length.isdigit() else 0
        self._is_chunked = "transfer-encoding" in headers
        self._is_whole = self.declared == 0 and not self._is_chunked
        self._taken = 0
        self._until: float | None = None

    @property
    def has_much_left(self) -> bool:
        """Whether more of it is still to come than one would read only to be polite."""
        return not self._is_whole and (self._is_chunked or self.declared - self._taken > _POLITE)

    async def receive(self) -> MutableMapping[str, Any]:
        """The next part of the body; after its end, when the client has gone.

        Raises:
            Refused: it is too large, or takes too long.
        """
        if self._is_whole:
            return await self._receive()
        loop = asyncio.get_running_loop()
        if self._until is None:
            await self._uploads.acquire()
            self._is_held = True
            self._until = loop.time() + self._body_s
        try:
            async with asyncio.timeout_at(self._until + self._taken / _LEAST_SPEED):
                message = await self._receive()
        except TimeoutError:
            raise Refused(BodyLate(self._body_s)) from None
        self._taken += len(message.get("body", b""))
        if self._taken > self._most:
            raise Refused(_too_large(self._most))
        if message["type"] == "http.disconnect" or not message.get("more_body", False):
            self._is_whole = True
            self.release()
        return message

    def release(self) -> None:
        if self._is_held:
            self._is_held = False
            self._uploads.release()


def _refuse_heads(heads: list[tuple[bytes, bytes]]) -> None:
    """Raises:
    HeadersTooLarge.
    """
    size = sum(len(name) + len(value) for name, value in heads)
    if len(heads) > _HEADERS or size > _HEADER_BYTES:
        raise HeadersTooLarge(
            f"a request may have {_HEADERS} headers of {_HEADER_BYTES >> 10} KiB in all, "
            f"this one has {len(heads)} of {-(-size >> 10)} KiB",
            hint="send fewer, or shorter ones: cookies of other sites on this host are the usual cause",
        )


def _too_large(most: int) -> TooLarge:
    return TooLarge(
        f"a request may have {most // _MIB} MiB, and this one has more",
        hint="send less at a time, by path or as blobs, or raise http.body_mib",
    )

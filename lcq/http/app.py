"""The application: all routes, one guard around them, every error as a problem document."""

from __future__ import annotations

import asyncio
import math
import socket
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.utils import get_openapi
from pydantic import ValidationError
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware

from lcq import __version__
from lcq.component import Ground
from lcq.config import HttpConfig
from lcq.errors import LcqError
from lcq.http import (
    events,
    health,
    iopaint,
    lama_cleaner,
    socket_io,
    v1_alerts,
    v1_blobs,
    v1_fleet,
    v1_lent,
    v1_logs,
    v1_pictures,
    v1_tasks,
    web_app,
)
from lcq.http.endings import Endings
from lcq.http.guard import Guard, Refused
from lcq.http.line import Line
from lcq.http.problems import PROBLEM_TYPE, Problem, as_json, headers_of, problem, problem_of, status_of
from lcq.http.sessions import Sessions
from lcq.http.shapes import Submitted
from lcq.http.studio import Studio
from lcq.models import explain_invalid
from lcq.storage.depot import Depot

_Kind = TypeVar("_Kind", bound=Exception)
_LONGEST_INPUT = 200
_DEEPEST_INPUT = 12
_WHAT = {404: "not_found", 405: "method_not_allowed", 415: "unsupported_media_type"}


class HttpApp:
    """What serves one scheduler. ``guard`` is the ASGI application."""

    def __init__(self, ground: Ground, depot: Depot) -> None:
        self.closing = asyncio.Event()
        self.endings = Endings(ground.state)
        line = Line(ground, depot)
        app = FastAPI(
            title="LCQ",
            version=__version__,
            description="Lama Cleaner Queue: image clean-up as a fleet's work.",
            docs_url=None,  # their pages load scripts of others
            redoc_url=None,
            openapi_url="/openapi.json",
        )
        for kind, answer in (
            _answering(LcqError, _refused),
            _answering(RequestValidationError, _invalid_request),
            _answering(ValidationError, _invalid),
            _answering(HTTPException, _failed),
        ):
            app.add_exception_handler(kind, answer)

        def settings() -> HttpConfig:
            return ground.state.config.http  # as it is now: tokens may change while it runs

        origins = ground.config.http.origins
        if origins:
            app.add_middleware(
                CORSMiddleware,
                allow_origins=list(origins),
                allow_methods=["*"],
                allow_headers=["*"],
                expose_headers=["X-Seed", "X-Width", "X-Height", "Link", "Location", "Retry-After"],
            )
        self.guard = Guard(
            app, settings, own_names=own_names(ground), largest_blob=lambda: ground.state.config.limits.image_bytes
        )
        studio, sessions = Studio(line, self.endings), Sessions()
        for router in (
            v1_tasks.router(line, self.endings),
            v1_logs.router(line, self.closing),
            v1_fleet.router(line),
            v1_alerts.router(line),
            v1_blobs.router(line),
            v1_lent.router(line, self.closing),
            v1_pictures.router(line),
            events.router(line, self.closing),
            health.router(line, self.guard),
            iopaint.router(line, studio, sessions),
            lama_cleaner.router(line, studio, sessions),
            socket_io.router(self.closing),
        ):
            app.router.routes += router.routes  # include_router would make each of them a second time
        web_app.serve(app, ground.config.http.web_app)
        app.openapi = lambda: _described(app)  # type: ignore[method-assign]
        self.app = app


def make_app(ground: Ground, depot: Depot) -> HttpApp:
    return HttpApp(ground, depot)


def _described(app: FastAPI) -> dict[str, Any]:
    """The OpenAPI document, with the bodies that routes read by themselves, and what refusals are."""
    if app.openapi_schema is None:
        document = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
        schemas = document["components"]["schemas"]
        for body in (Submitted, Problem):
            told = body.model_json_schema(ref_template="#/components/schemas/{model}")
            schemas.update(told.pop("$defs", {}))
            schemas[body.__name__] = told
        app.openapi_schema = document
    return app.openapi_schema


def own_names(ground: Ground) -> frozenset[str]:
    """The names by which this host may be asked."""
    config = ground.config
    names = (socket.gethostname(), config.scheduler_host, config.zeromq.host)
    return frozenset(name.lower() for name in names)


def _answering(
    kind: type[_Kind], answer: Callable[[Request, _Kind], Awaitable[Response]]
) -> tuple[type[_Kind], Callable[[Request, Exception], Awaitable[Response]]]:
    """How errors of that kind are answered, as Starlette wants to be told: what it calls takes any."""

    async def answered(request: Request, error: Exception) -> Response:
        if not isinstance(error, kind):
            raise error
        return await answer(request, error)

    return kind, answered


async def _refused(request: Request, error: LcqError) -> Response:
    document = problem_of(error)
    if not request.url.path.startswith("/v1"):
        document["errors"] = error.message
    return _document(document, int(status_of(error)), headers_of(error))


async def _invalid_request(request: Request, error: RequestValidationError) -> Response:
    if request.url.path.startswith("/api/v1"):
        return Response(as_json({"detail": _shortened(error.errors())}), 422, media_type="application/json")
    found = "; ".join(
        ".".join(str(step) for step in one["loc"][1:]) + f": {one['msg'].removeprefix('Value error, ')}"
        for one in error.errors()
    )
    return _not_valid(found)


async def _invalid(request: Request, error: ValidationError) -> Response:
    return _not_valid(explain_invalid(error))


def _not_valid(found: str) -> Response:
    return _document(problem(422, "invalid_input", found.removeprefix(": ")[:2000]), 422)


def _shortened(value: Any, deep: int = 0) -> Any:
    """FastAPI's own list of what is wrong, as IOPaint answers it; but without the whole picture in it."""
    if isinstance(value, dict | list | tuple) and deep > _DEEPEST_INPUT:
        return "…"
    if isinstance(value, dict):
        return {str(key): _shortened(inner, deep + 1) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_shortened(inner, deep + 1) for inner in value]
    if isinstance(value, str):
        return value if len(value) <= _LONGEST_INPUT else value[:_LONGEST_INPUT] + "…"
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)  # a request may say NaN, which an answer in JSON may not
    return value if value is None or isinstance(value, bool | int | float) else str(value)


async def _failed(request: Request, error: HTTPException) -> Response:
    if isinstance(error, Refused):
        return await _refused(request, error.refusal)
    code = _WHAT.get(error.status_code, "invalid_input" if error.status_code < 500 else "internal_error")
    return _document(problem(error.status_code, code, str(error.detail)), error.status_code, dict(error.headers or {}))


def _document(document: dict[str, Any], status: int, headers: dict[str, str] | None = None) -> Response:
    return Response(as_json(document), status, headers=headers, media_type=PROBLEM_TYPE)

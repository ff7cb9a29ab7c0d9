"""/healthz, /readyz, /metrics: for those who watch a scheduler."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, Field

from lcq import __version__
from lcq.errors import LcqError
from lcq.http.line import Line
from lcq.http.v1_tasks import told
from lcq.metrics.cluster import ClusterMetrics
from lcq.metrics.exposition import Sheet, exposed
from lcq.models import NodeStatus

if TYPE_CHECKING:
    from lcq.http.guard import Guard

_ANSWER_S = 3.0  # Redis is not ready where it takes longer


class Alive(BaseModel):
    status: str = "ok"
    version: str = __version__


class Ready(BaseModel):
    ready: bool
    checks: dict[str, str] = Field(description='each "ok", or in words what is not ready')


def router(line: Line, guard: Guard) -> APIRouter:
    """The routes; the first two need no token."""
    routes = APIRouter(tags=["health"])
    cluster = ClusterMetrics(line.ground)

    @routes.get("/healthz", response_model=Alive)
    async def healthz() -> Response:
        """This process answers."""
        return told(Alive())

    @routes.get("/readyz", response_model=Ready, responses={503: {"model": Ready, "description": "not ready"}})
    async def readyz() -> Response:
        """Whether it can take tasks in; where it cannot, what is missing."""
        redis = await _redis_says(line)
        checks = {"redis": redis}
        if redis == "ok":
            online = sum(node.status is NodeStatus.ONLINE for node in await line.reader.nodes())
            checks["nodes"] = "ok" if online else "none is online: tasks are taken in, and wait"
        checks["storage"] = await asyncio.to_thread(line.depot.lack) or "ok"
        settings = line.ground.site.settings
        if settings is not None and settings.error:
            checks["settings"] = f"not taken over: {settings.error}"
        ready = redis == "ok"
        return told(Ready(ready=ready, checks=checks), 200 if ready else 503)

    @routes.get(
        "/metrics",
        response_class=Response,
        responses={200: {"description": "Prometheus's text format", "content": {"text/plain": {}}}},
    )
    async def metrics(request: Request) -> Response:
        """Tasks, queues, nodes, devices, and how this scheduler does (docs/metrics.md)."""
        sheet = Sheet()
        await cluster.put_on(sheet)
        sheet.put_counts(guard.answered)
        sheet.put_histogram(guard.took)
        sheet.put("lcq_http_requests_under_way", guard.under_way)
        # In a thread: the first one loads Prometheus's library.
        content, media_type = await asyncio.to_thread(exposed, sheet, request.headers.get("accept", ""))
        return Response(content, headers={"content-type": media_type})

    return routes


async def _redis_says(line: Line) -> str:
    try:
        async with asyncio.timeout(_ANSWER_S):
            await line.reader.now_ms()
    except TimeoutError:
        return f"Redis has not answered within {_ANSWER_S:g} s"
    except LcqError as away:
        return str(away)
    return "ok"

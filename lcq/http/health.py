"""/healthz, /readyz, /metrics: for those who watch a scheduler."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from fastapi import APIRouter, Response
from pydantic import BaseModel, Field

from lcq import __version__
from lcq.errors import LcqError
from lcq.http.line import Line
from lcq.http.v1_tasks import told
from lcq.models import NodeStatus, TaskStatus

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
    async def metrics() -> Response:
        """Tasks, queues, nodes, devices, and what this scheduler has answered."""
        return Response("\n".join(await _metrics(line, guard)) + "\n", media_type="text/plain; version=0.0.4")

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


async def _metrics(line: Line, guard: Guard) -> list[str]:
    queues, nodes, counts, totals = await asyncio.gather(
        line.reader.queues(), line.reader.nodes(), line.reader.counts(), line.reader.totals()
    )
    devices = [(node, device) for node in nodes for device in node.capability.devices]
    readings = [
        ({"node": node.id, "device": device.id}, node.readings[device.id])
        for node, device in devices
        if device.id in node.readings
    ]
    return [
        *_family("lcq_info", "gauge", "which LCQ this is", [({"version": __version__}, 1)]),
        *_family(
            "lcq_tasks", "gauge", "tasks by status", [({"status": status}, counts[status]) for status in TaskStatus]
        ),
        *_family(
            "lcq_moves_total",
            "counter",
            "what has been counted since the state began",
            [({"what": name}, count) for name, count in sorted(totals.items())],
        ),
        *_family(
            "lcq_queue_tasks",
            "gauge",
            "tasks of each queue by status",
            [
                ({"queue": queue.name, "status": status}, queue.counts.get(status, 0))
                for queue in queues
                for status in TaskStatus
            ],
        ),
        *_family(
            "lcq_queue_paused", "gauge", "1: paused", [({"queue": queue.name}, int(queue.paused)) for queue in queues]
        ),
        *_family(
            "lcq_queue_nodes", "gauge", "live nodes that serve it", [({"queue": q.name}, len(q.nodes)) for q in queues]
        ),
        *_family(
            "lcq_nodes",
            "gauge",
            "nodes by status",
            [({"status": status}, sum(node.status is status for node in nodes)) for status in NodeStatus],
        ),
        *_family("lcq_node_running", "gauge", "attempts that run there", [({"node": n.id}, n.running) for n in nodes]),
        *_family(
            "lcq_device_slots",
            "gauge",
            "attempts that may run there at a time",
            [({"node": node.id, "device": device.id}, device.slots) for node, device in devices],
        ),
        *_family(
            "lcq_device_busy",
            "gauge",
            "its use, 0 to 1",
            [(labels, reading.busy) for labels, reading in readings if reading.busy is not None],
        ),
        *_family(
            "lcq_device_free_mebibytes",
            "gauge",
            "its free memory",
            [(labels, reading.free_mib) for labels, reading in readings if reading.free_mib is not None],
        ),
        *_family(
            "lcq_http_answers_total",
            "counter",
            "HTTP answers of this scheduler",
            [
                ({"method": method, "route": route, "status": status}, count)
                for (method, route, status), count in sorted(guard.answered.items())
            ],
        ),
        *_family(
            "lcq_http_seconds_total",
            "counter",
            "what they took, waiting included",
            [
                ({"method": method, "route": route}, round(seconds, 6))
                for (method, route), seconds in sorted(guard.seconds.items())
            ],
        ),
        *_family("lcq_http_under_way", "gauge", "requests that are not answered yet", [({}, guard.under_way)]),
    ]


def _family(
    name: str, kind: str, what: str, samples: Iterable[tuple[Mapping[str, object], float | int | None]]
) -> list[str]:
    lines = [f"# HELP {name} {what}", f"# TYPE {name} {kind}"]
    for labels, value in samples:
        told_labels = ",".join(f'{label}="{_escaped(str(said))}"' for label, said in labels.items())
        lines.append(f"{name}{{{told_labels}}} {value}" if told_labels else f"{name} {value}")
    return lines


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")

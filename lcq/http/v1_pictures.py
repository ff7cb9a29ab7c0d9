"""/v1/tasks/ID/thumbnails: small pictures of a task, as a node sees its files now; none is kept (decision 14)."""

from __future__ import annotations

import base64
from typing import Literal

from fastapi import APIRouter, Query, Response

from lcq.errors import NodeElsewhere, NoThumbnail
from lcq.http.line import Line
from lcq.http.v1_tasks import REFUSED, TaskId
from lcq.wire import AskThumbnail

LONGEST = 480
"""Pixels of the longer side, where nobody says."""
_LARGEST = 1024


def router(line: Line) -> APIRouter:
    """The routes."""
    routes = APIRouter(prefix="/v1/tasks", tags=["tasks"], responses=REFUSED)

    @routes.get(
        "/{task_id}/thumbnails/{part}",
        response_class=Response,
        responses={200: {"description": "a small picture", "content": {"image/webp": {}}}},
    )
    async def thumbnail(
        task_id: TaskId,
        part: Literal["before", "mask", "overlay", "after"],
        longest: int = Query(LONGEST, ge=16, le=_LARGEST),
    ) -> Response:
        """The input, its mask, the mask laid over the input, or the result, as WebP. None is kept anywhere."""
        whole = await line.whole_id(task_id)
        try:
            answer = await line.ask(AskThumbnail(task_id=whole, parts=(part,), longest=longest, webp=True))
        except NodeElsewhere:
            async with line.everywhere() as client:
                answer = await client.thumbnail(whole, parts=(part,), longest=longest, webp=True)
        told = answer.parts.get(part)
        if told is None or not told.data:
            raise NoThumbnail(whole, told.why if told is not None and told.why else "nobody has made it")
        return Response(base64.b64decode(told.data), media_type="image/webp", headers={"cache-control": "no-store"})

    return routes

"""/v1/tasks: submit, list, look, wait, steer, and fetch results."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import APIRouter, Path, Query, Request, Response
from starlette.exceptions import HTTPException
from starlette.responses import StreamingResponse

from lcq.errors import InvalidInput, LcqError, ResultGone, TransitionRefused
from lcq.http.access import Role
from lcq.http.bytes import content_of, kept, pieces
from lcq.http.endings import Endings
from lcq.http.line import Line, act_id, caller_in
from lcq.http.parents import format_of
from lcq.http.problems import PROBLEMS, as_json
from lcq.http.shapes import (
    Acted,
    Commented,
    Key,
    Limit,
    Name,
    OnTask,
    Prioritised,
    Reason,
    Reclassed,
    Redated,
    Rerouted,
    Submitted,
    Taken,
    TaskPage,
    Wanted,
    task_values,
)
from lcq.models import Task, TaskRecord, TaskResult, TaskStatus, build
from lcq.roots import Roots
from lcq.storage.addresses import Kind, read_address
from lcq.wire import (
    Accepted,
    Act,
    AskWhy,
    BulkAnswer,
    Cancel,
    Comment,
    History,
    HistoryAnswer,
    ListTasks,
    Prioritise,
    Refusal,
    Reroute,
    Retry,
    SetDeadline,
    SetPrivacy,
    Submit,
    WhyAnswer,
)

_LONGEST_WAIT_S = 60.0
_CHUNK = 256 * 1024
_JPEG = b"\xff\xd8\xff"
_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK

_MOST_JSON = 2**20  # of a part that is no file
_SUBMIT_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {"schema": {"$ref": "#/components/schemas/Submitted"}},
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["image"],
                    "additionalProperties": False,
                    "properties": {
                        "image": {"type": "string", "format": "binary"},
                        "mask": {"type": "string", "format": "binary"},
                        "task": {"type": "string", "contentMediaType": "application/json"},
                        **{name: {"type": "string", "maxLength": 128} for name in ("queue", "node", "reason")},
                    },
                }
            },
        },
    }
}
TaskId = Annotated[
    str, Path(min_length=1, max_length=64, description="an id, or its beginning where only one task has that")
]
REFUSED: dict[int | str, dict[str, Any]] = {
    status: {"description": what, "content": PROBLEMS}
    for status, what in {
        400: "asked wrongly",
        401: "no token, or none that is known",
        403: "not allowed to this role, host name or origin",
        404: "no such thing",
        409: "its state does not allow it",
        413: "too large",
        422: "a member is missing or wrong",
        429: "asked too often",
        503: "Redis is away, or a queue is full",
    }.items()
}


def told(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """An answer in JSON. ``value``: a model, or what JSON knows."""
    content = value.model_dump_json() if hasattr(value, "model_dump_json") else as_json(value)
    return Response(content, status, headers=headers, media_type="application/json")


def router(line: Line, endings: Endings) -> APIRouter:
    """The routes."""
    routes = APIRouter(prefix="/v1/tasks", tags=["tasks"], responses=REFUSED)

    @routes.get("", response_model=TaskPage)
    async def list_tasks(
        request: Request,
        where: Annotated[
            str, Query(max_length=2000, description="LCQ's filter language: state:failed age<1h (docs/filter.md)")
        ] = "",
        status: TaskStatus | None = None,
        queue: Name = "",
        node: Name = "",
        job: Name = "",
        cause: Name = "",
        limit: Limit = 100,
        cursor: Annotated[str, Query(pattern=r"^([0-9a-hjkmnp-tv-z]{16})?$")] = "",
    ) -> Response:
        """Newest first; all filters given must hold. With ``where`` pages may be short, even empty."""
        ask = ListTasks(
            where=where, status=status, queue=queue, node=node, job=job, cause=cause, limit=limit, cursor=cursor
        )
        page = await line.ask(ask)
        answer = page.model_dump(mode="json", exclude={"cursor"}) | {"next": page.cursor}
        return told(answer, headers=next_link(request, "cursor", page.cursor))

    @routes.post("", status_code=201, response_model=Taken, openapi_extra=_SUBMIT_BODY)
    async def submit(request: Request, key: Key = None) -> Response:
        """Give tasks to the cluster. Each is accepted for good, or refused by itself.

        As JSON, any number by address. As a form, one: image and mask are files, task is the JSON of the rest.
        """
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind == "multipart/form-data":
            return await submitted(line, request, await _in_form(line, request), key)
        if kind not in ("application/json", ""):
            raise HTTPException(415, f"a submit is application/json or multipart/form-data, found {kind[:80]!r}")
        return await submitted(line, request, Submitted.model_validate_json(await request.body()), key)

    @routes.get("/{task_id}", response_model=TaskRecord)
    async def get_task(
        task_id: TaskId,
        wait_s: Annotated[
            float, Query(ge=0, le=_LONGEST_WAIT_S, description="wait so long for its end, if it has not come yet")
        ] = 0.0,
    ) -> Response:
        """A task and all that has become of it."""
        whole = await line.whole_id(task_id)
        if wait_s:
            try:
                async with asyncio.timeout(wait_s):
                    return told(await endings.wait(whole))
            except TimeoutError:
                pass
        return told(await line.reader.task(whole))

    @routes.get("/{task_id}/history", response_model=HistoryAnswer)
    async def history(task_id: TaskId) -> Response:
        """Its attempts and events, the newest last."""
        return told(await line.ask(History(task_id=await line.whole_id(task_id))))

    @routes.get("/{task_id}/why", response_model=WhyAnswer)
    async def why(task_id: TaskId) -> Response:
        """Why it waits, or what became of it: a code of a closed list, and a line for people."""
        return told(await line.ask(AskWhy(task_id=await line.whole_id(task_id))))

    @routes.get(
        "/{task_id}/result",
        response_class=Response,
        responses={200: {"description": "the picture", "content": {"image/*": {}}}},
    )
    async def result(task_id: TaskId) -> Response:
        """The picture that it left, where this scheduler reaches it."""
        record = await line.record(task_id)
        if record.result is None:
            raise TransitionRefused("fetch_task", f"the result of task {record.id}", str(record.status))
        address = read_address(record.result.path)
        if address.kind is Kind.BLOB:
            if await asyncio.to_thread(line.depot.stat, address.place) is None:
                raise ResultGone(record.id, "its blob is gone")
            headers = {"content-length": str(record.result.bytes), "etag": f'"{address.place}"'}
            content = pieces(line.depot.read(address.place))
            first = await anext(content, b"")
            return StreamingResponse(_after(first, content), headers=headers, media_type=type_of(first))
        return await picture(record.id, record.result, Roots(line.ground.config.storage.roots))

    @routes.post("/{task_id}/cancel", response_model=Acted)
    async def cancel(request: Request, task_id: TaskId, wish: OnTask | None = None, key: Key = None) -> Response:
        """Cancel it; a running attempt is told to stop."""
        return await on_task(request, Cancel, task_id, wish or OnTask(), key)

    @routes.post("/{task_id}/retry", response_model=Acted)
    async def retry(request: Request, task_id: TaskId, wish: OnTask | None = None, key: Key = None) -> Response:
        """Put a task that has come to an end back into its queue, its counts anew."""
        return await on_task(request, Retry, task_id, wish or OnTask(), key)

    @routes.post("/{task_id}/reroute", response_model=Acted)
    async def reroute(request: Request, task_id: TaskId, wish: Rerouted, key: Key = None) -> Response:
        """Move it to a queue, to a node, or to nodes with these labels."""
        more = {"queue": wish.queue, "node": wish.node, "labels": wish.labels}
        return await on_task(request, Reroute, task_id, wish, key, **more)

    @routes.post("/{task_id}/prioritise", response_model=Acted)
    async def prioritise(request: Request, task_id: TaskId, wish: Prioritised, key: Key = None) -> Response:
        """Give it another priority."""
        return await on_task(request, Prioritise, task_id, wish, key, priority=wish.priority)

    @routes.post("/{task_id}/deadline", response_model=Acted)
    async def set_deadline(request: Request, task_id: TaskId, wish: Redated, key: Key = None) -> Response:
        """Have it done by another moment, or no matter when."""
        done_by_ms = None if wish.deadline is None else round(wish.deadline.timestamp() * 1000)
        return await on_task(request, SetDeadline, task_id, wish, key, done_by_ms=done_by_ms)

    @routes.post("/{task_id}/privacy", response_model=Acted)
    async def set_privacy(request: Request, task_id: TaskId, wish: Reclassed, key: Key = None) -> Response:
        """Let its pictures leave the house, or not any more."""
        return await on_task(request, SetPrivacy, task_id, wish, key, privacy=wish.privacy)

    @routes.post("/{task_id}/comment", response_model=Acted)
    async def comment(request: Request, task_id: TaskId, wish: Commented, key: Key = None) -> Response:
        """Leave a note for people with it."""
        return await on_task(request, Comment, task_id, Reason(), key, text=wish.text)

    async def on_task(
        request: Request, kind: type[Act[BulkAnswer]], task_id: str, wish: Reason, key: str | None, **more: Any
    ) -> Response:
        caller = caller_in(request)
        record = await line.own_record(caller, task_id)
        revision = getattr(wish, "revision", None)
        values: dict[str, Any] = {"ids": (record.id,), **more}
        if revision is not None:
            values["revisions"] = (revision,)
        act = kind(
            id=act_id(request, key, wish.model_dump_json() + repr(more)),
            actor=caller.name,
            reason=wish.reason,
            **values,
        )
        answer = await line.ask(act)
        for refusal in answer.refused:
            raise refusal.error()
        return told(Acted(act=act.id, task=await line.reader.task(record.id)))

    return routes


async def _in_form(line: Line, request: Request) -> Submitted:
    """The task of a form, its pictures kept as blobs.

    Raises:
        InvalidInput, ValidationError, BlobTooLarge, StorageFull, StorageUnreachable.
    """
    async with request.form(max_files=2, max_fields=4, max_part_size=_MOST_JSON) as form:
        said = form.get("task", "{}")
        wanted = Wanted.model_validate_json(said if isinstance(said, str) else await said.read(_MOST_JSON))
        found = {"image_path": await kept(line.depot, await content_of(form.get("image"), "image"))}
        if "mask" in form:
            found["mask_path"] = await kept(line.depot, await content_of(form["mask"], "mask"))
        more = {name: form[name] for name in ("queue", "node", "reason") if isinstance(form.get(name), str)}
    return Submitted.model_validate({"tasks": [wanted.model_copy(update=found)], **more})


async def submitted(line: Line, request: Request, wanted: Submitted, key: str | None) -> Response:
    """Have tasks taken in; with nothing taken in the answer is the first refusal.

    Raises:
        LcqError: why none of them was accepted.
    """
    caller = caller_in(request)
    may_name_others = caller.role.covers(Role.OPERATOR)
    tasks: list[Task] = []
    for one in wanted.tasks:
        if one.image_path is None:
            raise InvalidInput("image_path is missing", hint="name a file, or send the picture as multipart/form-data")
        tasks.append(build(Task, task_values(one, caller_name=caller.name, may_name_others=may_name_others)))
    act = Submit(
        tasks=tuple(tasks),
        keys=tuple(f"http:{caller.name}:{key}:{number}" for number in range(len(tasks))) if key else (),
        queue=wanted.queue,
        node=wanted.node,
        actor=caller.name,
        reason=wanted.reason,
    )
    answer = await line.ask(act)
    if not answer.accepted:
        raise answer.refused[0].error()
    more = {"location": f"/v1/tasks/{answer.accepted[0].id}"} if len(tasks) == 1 else {}
    return told(_taken(answer.accepted, answer.refused), 201, more)


def _taken(accepted: tuple[Accepted, ...], refused: tuple[Refusal, ...]) -> Taken:
    return Taken(accepted=list(accepted), refused=list(refused))


def next_link(request: Request, name: str, cursor: str) -> dict[str, str]:
    """The Link header that leads to the next page, where there is one."""
    if not cursor:
        return {}
    query = urlencode([(key, value) for key, value in request.query_params.multi_items() if key != name])
    return {"link": f'<{request.url.path}?{query}{"&" * bool(query)}{name}={cursor}>; rel="next"'}


# ---------------------------------------------------------------- results

_TYPES = {".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".png": "image/png", ".webp": "image/webp", ".tif": "image/tiff",
          ".tiff": "image/tiff"}  # fmt: skip


def type_of(head: bytes) -> str:
    """The media type of a result that has no name, by how it begins."""
    form = format_of(head)
    return "application/octet-stream" if form == "jpeg" and not head.startswith(_JPEG) else f"image/{form}"


async def _after(first: bytes, others: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield first
    async for piece in others:
        yield piece


async def picture(task_id: str, result: TaskResult, roots: Roots) -> Response:
    """A result as it lies on this host's disk.

    Raises:
        ResultGone: it does not, or another file is there now.
    """
    try:
        descriptor = await asyncio.to_thread(
            roots.open_to_read, result.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK
        )
    except (OSError, LcqError) as error:
        raise ResultGone(task_id, getattr(error, "strerror", None) or str(error)) from error
    size = os.fstat(descriptor).st_size
    if size != result.bytes:
        os.close(descriptor)
        raise ResultGone(task_id, f"it has {size} bytes now, not {result.bytes}")

    async def content() -> AsyncIterator[bytes]:
        try:
            while chunk := await asyncio.to_thread(os.read, descriptor, _CHUNK):
                yield chunk
        finally:
            os.close(descriptor)

    suffix = os.path.splitext(result.path)[1].lower()  # noqa: PTH122 - it need not be a path of this system
    headers = {"content-length": str(size), "etag": f'"{result.sha256}"'}
    return StreamingResponse(content(), headers=headers, media_type=_TYPES.get(suffix, "application/octet-stream"))

"""Pictures while somebody waits: what a request brings becomes a task of priority high, and its end the answer."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from starlette.requests import ClientDisconnect, Request

from lcq.errors import AnswerLate, LcqError, ResultGone
from lcq.http.bytes import kept, whole
from lcq.http.endings import Endings
from lcq.http.line import Line, caller_in
from lcq.http.sessions import Session
from lcq.image_size import Size, size_of
from lcq.models import Task, TaskPriority, TaskRecord, TaskStatus, TaskType, build
from lcq.storage.addresses import read_address
from lcq.wire import AskWhy, Cancel, Submit


class NotDone(Exception):
    """A task that came to an end without a result."""

    def __init__(self, record: TaskRecord) -> None:
        self.record = record
        failure = record.failure
        self.code = failure.code if failure is not None else str(record.status)
        self.words = failure.message if failure is not None else record.why or f"the task was {record.status}"
        super().__init__(self.words)


@dataclass(frozen=True)
class Wish:
    """What is to be done with a picture. ``config``: the task's, with its model."""

    image: bytes
    mask: bytes | None
    config: Mapping[str, Any]
    task_type: TaskType = TaskType.INPAINT


class Studio:
    """Answers with pictures."""

    def __init__(self, line: Line, endings: Endings) -> None:
        self._line, self._endings = line, endings

    async def done(self, request: Request, session: Session, wish: Wish) -> bytes:
        """The picture that came of it. A client that goes away has its task cancelled.

        Raises:
            NotDone: there is none: its task failed, or somebody cancelled it.
            AnswerLate: it took longer than http.answer_s.
            ClientDisconnect: nobody waits any more.
            LcqError: it was not taken in.
        """
        depot = self._line.depot
        image = await kept(depot, wish.image)
        mask = await kept(depot, wish.mask) if wish.mask is not None else None
        caller = caller_in(request)
        task = build(
            Task,
            {
                "task_type": wish.task_type,
                "image_path": image,
                "mask_path": mask,
                "config": dict(wish.config),
                "priority": TaskPriority.HIGH,
                "user_id": caller.name if caller.is_named else session.user,
                "metadata": {"interactive": True, "path": request.url.path[:100]},
            },
        )
        answer = await self._line.ask(
            Submit(tasks=(task,), sizes=(_size(wish.image),), actor=caller.name, interactive=True)
        )
        for refusal in answer.refused:
            raise refusal.error()
        record = await self._end_of(request, task.id, caller.name)
        if record.status is not TaskStatus.COMPLETED or record.result is None:
            raise NotDone(record)
        try:
            return await whole(self._line, read_address(record.result.path).place)
        except LcqError as gone:
            raise ResultGone(record.id, gone.message) from gone

    async def _end_of(self, request: Request, task_id: str, actor: str) -> TaskRecord:
        """The task when it has ended: told by its event, not asked for."""
        answer_s = self._line.state.config.http.answer_s
        ends = asyncio.ensure_future(self._endings.wait(task_id))
        leaves = asyncio.ensure_future(_until_gone(request))
        try:
            await asyncio.wait({ends, leaves}, timeout=answer_s, return_when=asyncio.FIRST_COMPLETED)
            if ends.done():
                return ends.result()
        except asyncio.CancelledError:  # this scheduler ends: nobody waits any more
            await self._cancelled(task_id, actor, "the request that waited for it was cut off")
            raise
        finally:
            ends.cancel()
            leaves.cancel()
        if leaves.done():
            await self._cancelled(task_id, actor, "the client that waited for it has gone")
            raise ClientDisconnect
        why = (await self._line.ask(AskWhy(task_id=task_id))).why.text
        await self._cancelled(task_id, actor, f"not done within {answer_s:g} s")
        raise AnswerLate(task_id, answer_s, why)

    async def _cancelled(self, task_id: str, actor: str, reason: str) -> None:
        await self._line.ask(Cancel(ids=(task_id,), actor=actor, reason=reason))  # refused where it has just ended


async def _until_gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _size(data: bytes) -> Size | None:
    return size_of(io.BytesIO(data))

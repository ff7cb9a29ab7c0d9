"""Tasks at a glance: as much of each as a list shows, read by the hundred thousand.

A whole record costs a reader six times as much: no line of a list needs its JSON, its result and all their checks.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from redis.exceptions import ResponseError

from lcq.models import TaskPriority, TaskStatus
from lcq.state.connection import Client, our_errors
from lcq.state.keys import Keys
from lcq.state.records import LONGEST_MESSAGE, notes

_FIELDS = (
    "status", "rev", "queue", "priority", "model", "user", "job", "image", "node", "device", "pinned", "attempt",
    "max_retries", "progress", "stage", "submitted_ms", "updated_ms", "started_ms", "finished_ms", "due_ms", "code",
    "message", "why", "notes", "size", "done_by_ms",
)  # fmt: skip
_STATUSES = {str(one): one for one in TaskStatus}
_PRIORITIES = {str(one): one for one in TaskPriority}


class TaskGlance(NamedTuple):
    """A task, in short. Times are ms since 1970 by Redis's clock; ``error``: "code: message" of its last failure."""

    id: str
    status: TaskStatus
    revision: int
    queue: str
    priority: TaskPriority
    model: str
    user: str
    job: str
    image: str
    node: str
    device: str
    pinned: str
    attempt: int
    max_attempts: int
    progress: float
    stage: str
    submitted_ms: int
    updated_ms: int
    started_ms: int | None
    finished_ms: int | None
    due_ms: int | None
    error: str
    why: str
    notes: int
    size: str  # of its image, "WxH"; "": not known
    done_by_ms: int | None  # its deadline


def _glance(task_id: str, told: Sequence[str | None]) -> TaskGlance:
    """Raises:
    KeyError, ValueError, TypeError: it cannot be read so.
    """
    (
        status, rev, queue, priority, model, user, job, image, node, device, pinned, attempt, max_retries, progress,
        stage, submitted_ms, updated_ms, started_ms, finished_ms, due_ms, code, message, why, said, size,
        done_by_ms,
    ) = told  # fmt: skip
    if queue is None or model is None or user is None or image is None:
        raise ValueError("it is not whole")
    return TaskGlance(
        task_id,
        _STATUSES[status],  # type: ignore[index]  # None is a KeyError, as is meant
        int(rev),  # type: ignore[arg-type]  # and here a TypeError
        queue,
        _PRIORITIES[priority],  # type: ignore[index]
        model,
        user,
        job or "",
        image,
        node or "",
        device or "",
        pinned or "",
        int(attempt or 0),
        int(max_retries) + 1,  # type: ignore[arg-type]
        float(progress or 0),
        stage or "",
        int(submitted_ms or 0),
        int(updated_ms or 0),
        int(started_ms) if started_ms else None,
        int(finished_ms) if finished_ms else None,
        int(due_ms) if due_ms else None,
        f"{code}: {(message or '')[:LONGEST_MESSAGE]}" if code else "",
        why or "",
        len(notes(said)) if said else 0,
        size or "",
        int(done_by_ms) if done_by_ms else None,
    )


class Glances:
    """Reads them. ``redis``: the client whose connections are used."""

    def __init__(self, redis: Client, keys: Keys, url: str) -> None:
        self._redis, self._url = redis, url
        self._key = keys.task("").encode()
        names = (b"$%d\r\n%s\r\n" % (len(name), name.encode()) for name in _FIELDS)
        self._head, self._tail = b"*%d\r\n$5\r\nHMGET\r\n" % (len(_FIELDS) + 2), b"".join(names)

    async def read(self, ids: Sequence[str]) -> tuple[list[TaskGlance], list[str]]:
        """Those of ``ids`` that exist, in their order; and those that cannot be read so.

        Raises:
            StateUnavailable: Redis does not answer.
        """
        async with our_errors(self._url):
            answers = await self._ask(ids)
        found, unreadable = [], []
        for task_id, told in zip(ids, answers, strict=True):
            try:
                if not isinstance(told, list):
                    unreadable.append(task_id)
                elif any(one is not None for one in told):
                    found.append(_glance(task_id, told))
            except (KeyError, ValueError, TypeError):
                unreadable.append(task_id)
        return found, unreadable

    async def _ask(self, ids: Sequence[str]) -> list[Any]:
        """What Redis says of each; a refusal stands in the place of its answer.

        By the connection itself: redis-py's pipeline takes five times as long to write such questions and to take in
        what comes, and there are a hundred thousand of them between a console's start and its list.
        """
        key, head, tail = self._key, self._head, self._tail
        pool = self._redis.connection_pool
        connection = await pool.get_connection()
        try:
            questions = (
                head + b"$%d\r\n%s%s\r\n" % (len(key) + len(task_id), key, task_id.encode()) + tail for task_id in ids
            )
            await connection.send_packed_command([b"".join(questions)])
            answers: list[Any] = []
            for _ in ids:
                try:
                    answers.append(await connection.read_response())
                except ResponseError as refusal:
                    answers.append(refusal)
            return answers
        except BaseException:
            await connection.disconnect(nowait=True)  # what is still to come on it belongs to nobody
            raise
        finally:
            await pool.release(connection)

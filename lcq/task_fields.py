"""What a filter may ask of a task (docs/filter.md): one list of fields for records and for a console's rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from lcq.ids import is_id
from lcq.models import TaskPriority, TaskRecord, TaskStatus
from lcq.query import Kind, Query, QueryField, Value, parse_strictly

RowT = TypeVar("RowT")


@dataclass(frozen=True, slots=True)
class _Asked:
    kind: Kind
    title: str
    choices: tuple[str, ...] = ()
    also: Mapping[str, tuple[str, ...]] | None = None
    timed: bool = False


NEEDS = ("attention", "nothing")
"""What tasks, nodes and queues may need."""

LATE = ("yes", "no")
"""Whether a task that has a deadline is late."""

_STATES = {
    "waiting": (TaskStatus.PENDING.value, TaskStatus.QUEUED.value),
    "running": (TaskStatus.PROCESSING.value,),
    "done": (TaskStatus.COMPLETED.value,),
    "open": tuple(status.value for status in TaskStatus if not status.is_terminal),
    "ended": tuple(status.value for status in TaskStatus if status.is_terminal),
}

_FIELDS: dict[str, _Asked] = {
    "id": _Asked(Kind.TEXT, "its id"),
    "state": _Asked(Kind.CHOICE, "where it stands", tuple(TaskStatus), _STATES),
    "queue": _Asked(Kind.TEXT, "its queue"),
    "node": _Asked(Kind.TEXT, "the node it runs or ran on last"),
    "pinned": _Asked(Kind.TEXT, "the node it was sent to"),
    "model": _Asked(Kind.TEXT, "its model"),
    "user": _Asked(Kind.TEXT, "who submitted it"),
    "job": _Asked(Kind.TEXT, "the job it belongs to"),
    "priority": _Asked(Kind.ORDER, "its band", tuple(reversed(TaskPriority))),
    "image": _Asked(Kind.TEXT, "the path of its image"),
    "error": _Asked(Kind.TEXT, "code and message of its last failure"),
    "cause": _Asked(Kind.TEXT, "the code of its last failure"),
    "why": _Asked(Kind.TEXT, "why it stands where it does, as its record says"),
    "try": _Asked(Kind.NUMBER, "which attempt it is at"),
    "size": _Asked(Kind.NUMBER, "the megapixels of its image"),
    "progress": _Asked(Kind.SHARE, "how far the running attempt is"),
    "age": _Asked(Kind.SPAN, "how long ago it was submitted", timed=True),
    "took": _Asked(Kind.SPAN, "how long its last attempt took, or runs by now", timed=True),
    "deadline": _Asked(Kind.SPAN, "how long until it is to be done", timed=True),
    "late": _Asked(Kind.CHOICE, "whether it is, or was, done after its deadline", LATE, timed=True),
    "needs": _Asked(Kind.CHOICE, "whether somebody should look: it failed, or goes on after a failure", NEEDS),
}


def fields_over(getters: Mapping[str, Callable[[RowT, int], Value]]) -> dict[str, QueryField[RowT]]:
    """The fields of a task over rows of another make; ``getters`` has one for each."""
    return {
        name: QueryField(name, asked.kind, getters[name], asked.title, asked.choices, asked.also, asked.timed)
        for name, asked in _FIELDS.items()
    }


def _error(record: TaskRecord) -> str:
    return f"{record.failure.code}: {record.failure.message}" if record.failure else ""


def needed(status: TaskStatus, *, failed_before: bool) -> str:
    """What a task needs, of ``NEEDS``: attention if it failed, or has not ended and failed before."""
    return NEEDS[not (status is TaskStatus.FAILED or (failed_before and may_need(status)))]


def may_need(status: TaskStatus) -> bool:
    """Whether a task of this status can need attention at all."""
    return status is TaskStatus.FAILED or not status.is_terminal


def took_ms(started_ms: int | None, finished_ms: int | None, running: bool, now_ms: int) -> float | None:
    """How long an attempt took, or runs by ``now_ms``; None where neither can be said."""
    if started_ms is None:
        return None
    if finished_ms is not None:
        return finished_ms - started_ms
    return max(0, now_ms - started_ms) if running else None


def late_ms(status: TaskStatus, done_by_ms: int | None, finished_ms: int | None, now_ms: int) -> float | None:
    """How far beyond its deadline a task is by ``now_ms``, or was completed: less than 0 before it. None where it has
    none, or will not be done any more."""
    if done_by_ms is None or status in (TaskStatus.FAILED, TaskStatus.CANCELLED):
        return None
    return (now_ms if finished_ms is None else finished_ms) - done_by_ms


def told_late(late: float | None) -> str | None:
    """The word of ``LATE`` for that; None where there is nothing to be late for."""
    return None if late is None else LATE[late <= 0]


def size_of(text: str) -> tuple[int, int] | None:
    """``WxH`` as two numbers; what cannot be read is not known."""
    width, _, height = text.partition("x")
    return (int(width), int(height)) if width.isdecimal() and height.isdecimal() else None


def megapixels(size: tuple[int, int] | None) -> float | None:
    """Of an image of that size; None: not known."""
    return size[0] * size[1] / 1_000_000 if size else None


RECORD_FIELDS: dict[str, QueryField[TaskRecord]] = fields_over(
    {
        "id": lambda record, _: record.id,
        "state": lambda record, _: record.status.value,
        "queue": lambda record, _: record.queue,
        "node": lambda record, _: record.node,
        "pinned": lambda record, _: record.pinned_node,
        "model": lambda record, _: record.task.model,
        "user": lambda record, _: record.task.user_id,
        "job": lambda record, _: record.task.job or "",
        "priority": lambda record, _: record.priority.value,
        "image": lambda record, _: record.task.source,
        "error": lambda record, _: _error(record),
        "cause": lambda record, _: record.failure.code if record.failure else "",
        "why": lambda record, _: record.why,
        "try": lambda record, _: record.attempt,
        "size": lambda record, _: megapixels(record.size),
        "progress": lambda record, _: record.progress,
        "age": lambda record, now: max(0, now - record.submitted_ms),
        "took": lambda record, now: took_ms(
            record.started_ms, record.finished_ms, record.status is TaskStatus.PROCESSING, now
        ),
        "deadline": lambda record, now: None if record.task.deadline_ms is None else record.task.deadline_ms - now,
        "late": lambda record, now: told_late(late_ms(record.status, record.task.deadline_ms, record.finished_ms, now)),
        "needs": lambda record, _: needed(record.status, failed_before=record.failure is not None),
    }
)


def haystack(record: TaskRecord) -> str:
    """What free text is looked for in, casefolded."""
    words = (
        record.id, record.status, record.queue, record.priority, record.task.model, record.task.user_id,
        record.task.job or "", record.task.source, record.node, _error(record), record.why, record.stage,
    )  # fmt: skip
    return "\n".join(words).casefold()


def parse_where(text: str) -> Query[TaskRecord]:
    """A filter over the records of tasks.

    Raises:
        InvalidInput: a part of it cannot be meant.
    """
    return parse_strictly(text, RECORD_FIELDS, haystack)


def whole_ids(query: Query[RowT]) -> frozenset[str]:
    """The tasks of which a match can only be one, where the query has their whole ids; empty: it may be any."""
    named = query.holding("id")
    return named if named is not None and all(map(is_id, named)) else frozenset()

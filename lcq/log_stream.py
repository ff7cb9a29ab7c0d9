"""The log of a task, read from its agents piece by piece, and followed over all of its attempts. No I/O here."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

from lcq.errors import NoLog
from lcq.models import TaskRecord, TaskStatus
from lcq.wire import TaskLogAnswer

FOLLOW_S = 1.0
"""How often an agent is asked for what is new."""

Read = Callable[[int, int], Awaitable[TaskLogAnswer]]
"""Asks for the log of an attempt (its number; 0: the newest), from a byte of it on."""


async def whole(read: Read, attempt: int, begin: int = 0) -> AsyncIterator[TaskLogAnswer]:
    """All that is kept of the log of an attempt by now, in pieces; at least one.

    Raises:
        NoLog, UnknownCommand: as asking for it does.
    """
    while True:
        answer = await read(attempt, begin)
        yield answer
        if not answer.lines or answer.next >= answer.size:
            return
        attempt, begin = answer.attempt, answer.next


async def followed(
    read: Read,
    look: Callable[[], Awaitable[TaskRecord]],
    *,
    attempt: int = 0,
    begin: int = 0,
    only: bool = False,
    pause_s: float = FOLLOW_S,
) -> AsyncIterator[TaskLogAnswer | NoLog]:
    """What is written from byte ``begin`` of ``attempt`` on (0: the newest, or the first that comes), until the task
    has ended; ``only``: until that attempt has. What keeps it from being read is told once, and it is tried again.

    ``look``: the task as it is now.
    """
    number, said = attempt, ""
    while True:
        record = await look()  # before it is read: then all that was written by its end is read, too
        number = number or record.attempt
        is_open, is_behind = False, False
        if number:
            try:
                answer = await read(number, begin)
            except NoLog as trouble:
                if trouble.message != said:
                    said = trouble.message
                    yield trouble
            else:
                said = ""
                if answer.lines:
                    yield answer
                begin, is_open = answer.next, answer.is_open
                is_behind = bool(answer.lines) and answer.next < answer.size
        if is_behind:
            continue
        is_latest = number >= record.attempt
        is_over = not is_open and not (is_latest and record.status is TaskStatus.PROCESSING)
        if is_over and ((is_latest and record.status.is_terminal) or (only and number)):
            return
        if is_over and not is_latest:
            number, begin, said = number + 1, 0, ""
        else:
            await asyncio.sleep(pause_s)


def cut_of(answer: TaskLogAnswer) -> int:
    """How many bytes of it were written and not kept."""
    return max(0, answer.size - answer.kept)

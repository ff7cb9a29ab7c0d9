"""Which tasks a command is about: ids as a person types them, or all of a job."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence

from lcq.client import AsyncClient
from lcq.errors import InvalidInput
from lcq.models import TaskStatus


async def chosen(
    client: AsyncClient,
    typed: Sequence[str],
    *,
    job: str = "",
    statuses: Iterable[TaskStatus] | None = None,
) -> list[str]:
    """The whole ids of the tasks meant: those typed (any unique beginnings), or those of ``job``.

    Of a job only tasks in one of ``statuses`` are meant, if these are given.

    Raises:
        InvalidInput: neither ids nor a job, or both; TaskNotFound, AmbiguousId, JobNotFound.
    """
    if bool(typed) == bool(job):
        raise InvalidInput("say which tasks: either their ids or --job NAME", hint="lcq tasks lists them")
    if typed:
        found = await asyncio.gather(*(client.find(prefix) for prefix in typed))
        return list(dict.fromkeys(found))
    await client.jobs(job)  # raises where there is none of that name
    wanted = None if statuses is None else frozenset(statuses)
    return [record.id async for record in client.tasks(job=job) if wanted is None or record.status in wanted]

"""Which tasks a command is about: ids as a person types them, or all of some jobs."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from lcq.client import AsyncClient
from lcq.errors import InvalidInput


async def chosen(client: AsyncClient, typed: Sequence[str], *, jobs: Sequence[str] = ()) -> list[str]:
    """The whole ids of the tasks meant: those typed (any unique beginnings), or those of ``jobs``.

    Raises:
        InvalidInput: neither ids nor jobs, or both; TaskNotFound, AmbiguousId, JobNotFound.
    """
    if bool(typed) == bool(jobs):
        raise InvalidInput("say which tasks: either their ids or --job NAME", hint="lcq tasks lists them")
    if typed:
        found = await asyncio.gather(*(client.find(prefix) for prefix in typed))
        return list(dict.fromkeys(found))
    for job in jobs:
        await client.jobs(job)  # raises where there is none of that name
    return [record.id for job in dict.fromkeys(jobs) async for record in client.tasks(job=job)]

"""Which tasks a command is about: ids as a person types them, or all of a job."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from lcq.client import AsyncClient
from lcq.errors import InvalidInput


async def chosen(client: AsyncClient, typed: Sequence[str], *, job: str = "") -> list[str]:
    """The whole ids of the tasks meant: those typed (any unique beginnings), or those of ``job``.

    Raises:
        InvalidInput: neither ids nor a job, or both; TaskNotFound, AmbiguousId, JobNotFound.
    """
    if bool(typed) == bool(job):
        raise InvalidInput("say which tasks: either their ids or --job NAME", hint="lcq tasks lists them")
    if typed:
        found = await asyncio.gather(*(client.find(prefix) for prefix in typed))
        return list(dict.fromkeys(found))
    await client.jobs(job)  # raises where there is none of that name
    return [record.id async for record in client.tasks(job=job)]

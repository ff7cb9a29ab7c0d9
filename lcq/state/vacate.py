"""A namespace seen from outside, without adopting it: whether it is empty, who works on it, and how it is emptied."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

from lcq.errors import RestoreRefused, without_password
from lcq.state.connection import Client, connect, our_errors
from lcq.state.keys import Keys

# What a scheduler leaves behind that never had any work.
_NOTHING = ("format", "cluster", "schedulers", "listening", "duty:", "synced", "failover", "totals", "minute:")
_SCAN = 1000


async def vacate(url: str, namespace: str, *, replace: bool) -> int:
    """Leave the namespace without a key; answers how many were there.

    Raises:
        RestoreRefused: a scheduler works on it, or there is something in it that ``replace`` does not give away.
        StateUnavailable: the server does not answer.
    """
    client = connect(url)
    try:
        async with our_errors(url):
            await _refuse_living(client, url, Keys(namespace))
        kept = [
            name async for some in _pages(client, url, namespace) for name in some if not _is_nothing(name, namespace)
        ]
        if kept and not replace:
            raise RestoreRefused(
                f"{namespace} at {without_password(url)} is not empty: {len(kept)} keys, such as {kept[0]}",
                hint="restore into an empty one (redis.namespace), or say --replace: all that is there is lost then",
            )
        gone = 0
        async for some in _pages(client, url, namespace):
            async with our_errors(url):
                gone += int(await client.unlink(*some))
        return gone
    finally:
        with contextlib.suppress(OSError):
            await client.aclose()


async def _refuse_living(client: Client, url: str, keys: Keys) -> None:
    seconds, _ = await client.time()
    for name, told in (await client.hgetall(keys.schedulers)).items():
        if int(told.partition(" ")[0]) >= int(seconds) * 1000:
            raise RestoreRefused(
                f"the scheduler {name} works on the state at {without_password(url)}",
                hint="stop all schedulers first (lcq up, too); one that was killed counts for 6 s more",
            )


async def _pages(client: Client, url: str, namespace: str) -> AsyncIterator[list[str]]:
    cursor = 0
    while True:
        async with our_errors(url):
            cursor, found = await client.scan(cursor, match=f"{namespace}:*", count=_SCAN)
        if found:
            yield found
        if not int(cursor):
            return


def _is_nothing(name: str, namespace: str) -> bool:
    short = name.removeprefix(f"{namespace}:")
    return any(short == one or (one.endswith(":") and short.startswith(one)) for one in _NOTHING)

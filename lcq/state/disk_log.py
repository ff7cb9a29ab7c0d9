"""DiskLog: waits until what Redis has acknowledged is in its log on the disk (redis.durability: fsync)."""

from __future__ import annotations

import asyncio
from typing import Any

from redis import exceptions as redis_errors

from lcq.errors import StateUnavailable, UnsafeState, without_password
from lcq.state.connection import Client, our_errors

_SYNC_MS = 5000  # under a client's patience: it is to hear why, not only that nobody answered
_MARK_S = 24 * 3600


class DiskLog:
    """Sees to it that Redis's log is synced, for all who wait at once. ``run()`` does the work."""

    def __init__(self, url: str, redis: Client, mark: str) -> None:
        """``mark``: a key to write to. WAITAOF waits for its own connection's last write, so one is made."""
        self._url = url
        self._redis = redis
        self._mark = mark
        self._waiting: list[asyncio.Future[None]] = []
        self._wanted = asyncio.Event()
        self._can_wait = True

    async def check(self) -> None:
        """Find out how the server is made to sync.

        Raises:
            UnsafeState: it cannot be made to, and does not do so by itself before it answers.
        """
        async with our_errors(self._url):
            try:
                await self._redis.execute_command("WAITAOF", 1, 0, 1)
            except redis_errors.ResponseError as refusal:
                self._can_wait = False
                found = str(refusal)
            else:
                return
            try:
                policy = (await self._redis.config_get("appendfsync")).get("appendfsync", "")
            except redis_errors.ResponseError as refusal:
                policy = f"not to be read ({refusal})"
        if policy != "always":
            raise UnsafeState(
                f"redis.durability is fsync, but Redis at {without_password(self._url)} does not wait for its disk: "
                f"WAITAOF says {found!r}, and appendfsync is {policy}",
                hint="use Redis 7.2 or newer or Valkey, or redis-cli config set appendfsync always",
            )

    async def reaches_disk(self) -> None:
        """Return when everything that Redis has answered until now is on its disk.

        Raises:
            StateUnavailable: it did not get there in time. It may still; asking again is safe.
        """
        if not self._can_wait:
            return  # it syncs before it answers
        reached: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(reached)
        self._wanted.set()
        await reached

    async def run(self) -> None:
        """Sync for all who wait, again and again, until cancelled."""
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            waiting, self._waiting = self._waiting, []
            try:
                await self._sync()
            except StateUnavailable as error:
                for reached in waiting:
                    if not reached.done():
                        reached.set_exception(error)
            except asyncio.CancelledError:
                for reached in (*waiting, *self._waiting):
                    reached.cancel()
                raise
            for reached in waiting:
                if not reached.done():
                    reached.set_result(None)

    async def _sync(self) -> None:
        async with our_errors(self._url):
            # A new time to live is a write that a full Redis takes too: running tasks must be able to finish.
            written, synced = await self._after("EXPIRE", self._mark, _MARK_S)
            if not written:
                _, synced = await self._after("SET", self._mark, "", "EX", _MARK_S)
        if int(synced[0]) < 1:
            raise StateUnavailable(
                self._url,
                f"its log did not reach the disk within {_SYNC_MS / 1000:g} s",
                refused=True,
                hint="look at that disk, and at appendfsync ('no' never syncs); what was sent may still get there",
            )

    async def _after(self, *write: str | int) -> list[Any]:
        pipe = self._redis.pipeline(transaction=False)
        pipe.execute_command(*write)
        pipe.execute_command("WAITAOF", 1, 0, _SYNC_MS)
        return list(await pipe.execute())

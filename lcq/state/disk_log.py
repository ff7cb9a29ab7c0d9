"""DiskLog: waits until what Redis has acknowledged is in its log, where its death, or the power's, does not take it.

An answer of Redis does not say so. While it syncs its log (once a second, with appendfsync everysec), it writes nothing
to it, for up to two seconds, and answers all the same: who is killed then takes with it what it has answered
(flushAppendOnlyFile in its source). INFO tells what it has not written yet.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from redis import exceptions as redis_errors

from lcq.clock import steady_now
from lcq.errors import StateUnavailable, UnsafeState, without_password
from lcq.state.connection import Client, our_errors

_SYNC_MS = 5000  # under a client's patience: it is to hear why, not only that nobody answered
_MARK_S = 24 * 3600
_LOOK_S = (0.002, 0.05)


class Unwritten:
    """What Redis had answered when it was first looked at, followed from look to look (INFO persistence)."""

    def __init__(self) -> None:
        self._size = 0
        self._wanted = 0

    def is_written(self, told: Mapping[str, Any]) -> bool:
        """Whether all of that is with the system, as ``told`` says: a look at a later turn of Redis's loop than the
        answers'."""
        if not int(told.get("aof_enabled", 0)):
            return True  # it has no log: redis.unsafe
        waiting, size = int(told.get("aof_buffer_length", 0)), int(told.get("aof_current_size", 0))
        if waiting == 0:
            return True
        is_well = told.get("aof_last_write_status", "ok") == "ok"
        if (
            is_well
            and not int(told.get("aof_pending_bio_fsync", 0))
            and not int(told.get("aof_rewrite_in_progress", 0))
        ):
            return True  # it syncs nothing, so it has written before it sent this
        if size < self._size or not self._wanted:  # the first look; or a rewritten log is shorter, and counts anew
            self._wanted = size + waiting
        self._size = size
        return size >= self._wanted


class DiskLog:
    """Sees to it that Redis's log has what it has answered, for all who wait at once. ``run()`` does the work."""

    def __init__(self, url: str, redis: Client, mark: str, *, is_synced: bool) -> None:
        """``is_synced``: it is to be on the disk (redis.durability: fsync), not only with the system, which keeps it
        when Redis dies. ``mark``: a key to write to. WAITAOF waits for its own connection's last write, so one is made.
        """
        self._url = url
        self._is_synced = is_synced
        self._redis = redis
        self._mark = mark
        self._waiting: list[asyncio.Future[None]] = []
        self._wanted = asyncio.Event()
        self._can_wait = True

    async def check(self) -> None:
        """Find out how the server is made to sync, where it has to.

        Raises:
            UnsafeState: it cannot be made to, and does not do so by itself before it answers.
        """
        if not self._is_synced:
            return
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

    async def has_all(self) -> None:
        """Return when everything that Redis has answered until now is in its log.

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
        """Look, or sync, for all who wait, again and again, until cancelled."""
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            waiting, self._waiting = self._waiting, []
            try:
                await (self._sync() if self._is_synced else self._is_written())
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

    async def _is_written(self) -> None:
        unwritten, until, (pause_s, longest_s) = Unwritten(), steady_now() + _SYNC_MS / 1000, _LOOK_S
        while True:
            async with our_errors(self._url):
                told = await self._redis.info("persistence")
            if unwritten.is_written(told):
                return
            if steady_now() > until:
                break
            await asyncio.sleep(pause_s)
            pause_s = min(longest_s, 2 * pause_s)
        raise StateUnavailable(
            self._url,
            f"its log was not written within {_SYNC_MS / 1000:g} s (INFO says of its last write: "
            f"{told.get('aof_last_write_status')})",
            refused=True,
            hint="look at that disk, and at Redis's log; what was sent may still get there",
        )

    async def _after(self, *write: str | int) -> list[Any]:
        pipe = self._redis.pipeline(transaction=False)
        pipe.execute_command(*write)
        pipe.execute_command("WAITAOF", 1, 0, _SYNC_MS)
        return list(await pipe.execute())

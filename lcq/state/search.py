"""TaskSearch: pages of tasks by index, and by the filter language above what indexes know. Changes nothing."""

from __future__ import annotations

import heapq
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence

from lcq.ids import lowest_id
from lcq.models import TaskRecord, TaskStatus
from lcq.query import Query
from lcq.state.connection import Client, our_errors
from lcq.state.keys import Keys
from lcq.task_fields import NEEDS, may_need, parse_where, whole_ids
from lcq.wire import ListTasks, ListTasksAnswer

PIECE = 2000  # ids asked for in one command: it must never hold the server for long
_READ = 100  # records read and judged at a time: others are served in between
_LOOKED_AT = 3000  # records that one page looks at, at most: then it tells how far it came
_SLACK_MS = 3_600_000  # a client makes the id, by its own clock, and may submit it again for an hour


class TaskSearch:
    """Finds tasks by a ``ListTasks``. ``tasks`` reads records by their ids."""

    def __init__(
        self,
        redis: Client,
        keys: Keys,
        url: str,
        *,
        tasks: Callable[[Iterable[str]], Awaitable[dict[str, TaskRecord]]],
        now_ms: Callable[[], Awaitable[int]],
    ) -> None:
        self._redis, self._keys, self._url = redis, keys, url
        self._tasks, self._now_ms = tasks, now_ms

    async def page(self, ask: ListTasks) -> ListTasksAnswer:
        """A page of the tasks for which every given filter holds, newest first.

        Raises:
            InvalidInput: ``where`` cannot be read.
        """
        where = parse_where(ask.where)
        indexes, either = self._indexes(ask, where)
        if where:
            return await self._judged(ask, where, indexes, either)
        if len(indexes) == 1:
            async with our_errors(self._url):
                total = await self._redis.zcard(indexes[0])
                page = await self.below(indexes[0], ask.cursor, ask.limit + 1)
        else:
            both = [task_id async for task_id in self._in_all(indexes, "")]
            total = len(both)
            page = [task_id for task_id in both if not ask.cursor or task_id < ask.cursor][: ask.limit + 1]
        more = len(page) > ask.limit
        page = page[: ask.limit]
        found = await self._tasks(page)
        return ListTasksAnswer(
            tasks=tuple(found[task_id] for task_id in page if task_id in found),
            total=total,
            cursor=page[-1] if more else "",
            looked_at=len(page),
        )

    def _indexes(self, ask: ListTasks, where: Query[TaskRecord]) -> tuple[list[str], list[str]]:
        """Indexes all of which have every match, and others any one of which has it."""
        keys = self._keys
        indexes = {
            key
            for key in (
                ask.status and keys.by_status(ask.status),
                ask.queue and keys.by_queue(ask.queue),
                ask.node and keys.by_node(ask.node),
                ask.job and keys.by_job(ask.job),
                ask.cause and keys.by_cause(ask.cause),
            )
            if key
        }
        either: list[str] = []
        for field, index in _INDEXED.items():
            values = where.only(field)
            if values is None or (field not in _CLOSED and len(values) != 1):
                continue
            named = [index(keys, value) for value in sorted(values)]
            if len(named) == 1:
                indexes |= set(named)
            elif not either:
                either = named
        if not either and where.only("needs") == frozenset(NEEDS[:1]):
            either = [keys.by_status(status) for status in TaskStatus if may_need(status)]
        return sorted(indexes) or [keys.ids], either

    async def _judged(
        self, ask: ListTasks, where: Query[TaskRecord], indexes: Sequence[str], either: Sequence[str]
    ) -> ListTasksAnswer:
        """A page of what ``where`` fits, of which no index knows: each record is read and looked at."""
        now = await self._now_ms()
        oldest = where.at_most("age")
        last = "" if oldest is None else lowest_id(max(0, int(now - oldest) - _SLACK_MS))
        if named := whole_ids(where):
            ids = self._named(named, indexes, ask.cursor)
        else:
            ids = self._in_all(indexes, ask.cursor) if not either else self._in_any(either, indexes, ask.cursor)
        found: list[TaskRecord] = []
        cursor, looked_at = "", 0
        async for piece in _pieces(ids, _READ):
            candidates = [task_id for task_id in piece if task_id > last]
            records = await self._tasks(candidates)
            for task_id in candidates:
                looked_at += 1
                cursor = task_id
                if task_id in records and where.matches(records[task_id], now):
                    found.append(records[task_id])
                    if len(found) == ask.limit:
                        return await self._cut(found, cursor, looked_at)
            if len(candidates) < len(piece):
                break  # all that follows is older than any match can be
            if looked_at >= _LOOKED_AT:
                return await self._cut(found, cursor, looked_at)
        return await self._cut(found, "", looked_at)

    async def _cut(self, found: Sequence[TaskRecord], cursor: str, looked_at: int) -> ListTasksAnswer:
        async with our_errors(self._url):
            total = await self._redis.zcard(self._keys.ids)
        return ListTasksAnswer(tasks=tuple(found), total=total, cursor=cursor, looked_at=looked_at)

    # ------------------------------------------------------------ ids

    async def below(self, index: str, cursor: str, limit: int) -> list[str]:
        """The newest ids of ``index`` that come after ``cursor`` (""; the newest of all)."""
        return list(await self._redis.zrevrangebylex(index, f"({cursor}" if cursor else "+", "-", 0, limit))

    async def _in_all(self, indexes: Sequence[str], cursor: str) -> AsyncIterator[str]:
        """The ids that are in each of ``indexes``, newest first, from below ``cursor``.

        Looked up in pieces: ZINTER over a million would keep everybody else waiting for seconds.
        """
        async with our_errors(self._url):
            pipe = self._redis.pipeline(transaction=False)
            for index in indexes:
                pipe.zcard(index)
            sizes = await pipe.execute()
        smallest, *others = [index for _, index in sorted(zip(sizes, indexes, strict=True))]
        while True:
            async with our_errors(self._url):
                ids = await self.below(smallest, cursor, PIECE)
            if not ids:
                return
            for task_id in await self._kept(ids, others):
                yield task_id
            cursor = ids[-1]

    async def _kept(self, ids: list[str], indexes: Sequence[str]) -> list[str]:
        """Those of ``ids`` that are in each of ``indexes``."""
        if not indexes:
            return ids
        async with our_errors(self._url):
            pipe = self._redis.pipeline(transaction=False)
            for index in indexes:
                pipe.zmscore(index, ids)
            scores = await pipe.execute()
        return [task_id for task_id, *found in zip(ids, *scores, strict=True) if None not in found]

    async def _named(self, named: Iterable[str], indexes: Sequence[str], cursor: str) -> AsyncIterator[str]:
        """Those of ``named`` that are in each of ``indexes``, newest first, from below ``cursor``."""
        below = sorted((task_id for task_id in named if not cursor or task_id < cursor), reverse=True)
        for task_id in await self._kept(below, indexes) if below else ():
            yield task_id

    async def _in_any(self, either: Sequence[str], indexes: Sequence[str], cursor: str) -> AsyncIterator[str]:
        """The ids that are in any of ``either`` and in each of ``indexes``, newest first, from below ``cursor``."""
        others = [index for index in indexes if index != self._keys.ids]
        while True:
            async with our_errors(self._url):
                parts = [await self.below(index, cursor, PIECE) for index in either]
            # Below the highest end of a part that was cut, that part is not known: the next round reads on there.
            ends = [part[-1] for part in parts if len(part) == PIECE]
            known = max(ends, default="")
            merged = heapq.merge(*parts, reverse=True)
            ids = list(dict.fromkeys(task_id for task_id in merged if task_id >= known))
            if not ids:
                return
            for task_id in await self._kept(ids, others):
                yield task_id
            if not ends:
                return
            cursor = known


_INDEXED: dict[str, Callable[[Keys, str], str]] = {
    "state": lambda keys, value: keys.by_status(TaskStatus(value)),
    "queue": lambda keys, value: keys.by_queue(value),
    "node": lambda keys, value: keys.by_node(value),
    "job": lambda keys, value: keys.by_job(value),
}
_CLOSED = ("state",)  # the language itself spells their values: the index has the same word


async def _pieces(ids: AsyncIterator[str], size: int) -> AsyncIterator[list[str]]:
    piece: list[str] = []
    async for task_id in ids:
        piece.append(task_id)
        if len(piece) == size:
            yield piece
            piece = []
    if piece:
        yield piece

"""StateReader: everything that may be known about the cluster, read from Redis, changing nothing."""

from __future__ import annotations

import asyncio
import json
import random
import re
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from itertools import chain
from types import TracebackType
from typing import Any, NamedTuple, Self

from redis.exceptions import ResponseError

from lcq.alerts.records import AlertRecord, Alerts, Condition, Notice, Silence, read_all
from lcq.causes import APART, in_common, size_class, trend
from lcq.config import ServerlessConfig
from lcq.errors import AmbiguousId, InvalidInput, JobNotFound, StateUnavailable, TaskNotFound
from lcq.eta import Rivals
from lcq.ids import ALPHABET, ID_LENGTH, is_id, normalise_prefix
from lcq.models import (
    DEFAULT_QUEUES,
    Attempt,
    Cause,
    DeviceSample,
    ErrorClass,
    Event,
    JobSummary,
    MinuteTally,
    NodeRecord,
    QueueConfig,
    QueueRecord,
    TaskPriority,
    TaskRecord,
    TaskStatus,
)
from lcq.placement import USERS_TOLD, Backlog
from lcq.routing import LIVE, Fleet
from lcq.silence import Ear
from lcq.spend import Book, Overflow, Spend, book_of, cheapest_price
from lcq.state import records
from lcq.state.access import AccessBook
from lcq.state.act_log import ActLog
from lcq.state.calls import CallBooks
from lcq.state.connection import ANSWER_S, Client, connect, our_errors
from lcq.state.glance import Glances, TaskGlance
from lcq.state.keys import Keys
from lcq.state.learned import LearnedCosts
from lcq.state.search import PIECE, TaskSearch
from lcq.task_fields import size_of
from lcq.usage import Days, number_of
from lcq.why import Standing
from lcq.wire import DeadAnswer, EventsAnswer, ListTasks, ListTasksAnswer

_BLOB = re.compile(r"blob:([0-9a-f]{64})")  # as lcq.storage.addresses writes it, wherever a task names one
_PAGE = 500  # task hashes asked for in one pipeline
_PIECE = 250  # of them where somebody looks at a screen meanwhile: to make something of them holds the loop
_LOOKED_AT = 20_000  # failed tasks of one code that are read to count their causes
_NODES_NAMED = 5
_HELD_S = 2.0  # so long an event that was in the stream is not looked for there, where nothing has followed it
_SAMPLE = 40  # tasks of a job that are looked at to tell where it waits


@dataclass(frozen=True)
class Snapshot:
    """All that a view starts from; events after ``last_event_id`` continue it without a gap."""

    tasks: tuple[TaskRecord, ...]
    nodes: tuple[NodeRecord, ...]
    queues: tuple[QueueRecord, ...]
    last_event_id: str
    total_tasks: int  # more than len(tasks) where the limit cut the oldest off


_NodeRead = tuple[Any, Any, NodeRecord]  # a node's fields and how many tasks it holds, as Redis tells them; its record


class StateReader:
    """Reads one cluster's state. ``async with StateReader(url) as reader``.

    Every method raises ``StateUnavailable`` while Redis does not answer, and works again when it does.
    """

    def __init__(self, url: str, *, namespace: str = "{lcq}", queues: Sequence[QueueConfig] = DEFAULT_QUEUES) -> None:
        self.url = url
        self.keys = Keys(namespace)
        self.queue_configs = tuple(queues)
        """Which queues there are: as long as the process runs they may become others, also while it waits for Redis."""
        self.serverless = ServerlessConfig()
        """By which rules work goes to functions; as the process goes by them now."""
        self._redis = connect(url)
        self._follow = connect(url)  # blocks for news, on its own connection
        self.acts = ActLog(self._redis, self.keys, url)
        self.access = AccessBook(self._redis, self.keys, url)
        self.calls = CallBooks(self._redis, self.keys, url)
        self._search = TaskSearch(self._redis, self.keys, url, tasks=self.tasks, now_ms=self.now_ms)
        self._glances = Glances(self._redis, self.keys, url)
        self.learned = LearnedCosts(url, self._redis, self.keys)
        self._fleet: Fleet | None = None
        self._fleet_at = 0.0
        self._fleet_reading = asyncio.Lock()
        self._nodes_read: dict[str, _NodeRead] = {}
        self._held = ("", 0.0)  # an event that was in the stream, and when (monotonic)

    async def __aenter__(self) -> Self:
        return self

    @property
    def clients(self) -> tuple[Client, ...]:
        """Its connections, for who looks after them."""
        return self._redis, self._follow

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._redis.aclose()
        await self._follow.aclose()

    # ------------------------------------------------------------ tasks

    async def tasks(self, ids: Iterable[str]) -> dict[str, TaskRecord]:
        """The records of those of ``ids`` that exist."""
        wanted = list(ids)
        found: dict[str, TaskRecord] = {}
        for start in range(0, len(wanted), _PAGE):
            page = wanted[start : start + _PAGE]
            async with our_errors(self.url):
                pipe = self._redis.pipeline(transaction=False)
                for task_id in page:
                    pipe.hgetall(self.keys.task(task_id))
                hashes = await pipe.execute(raise_on_error=False)
            found |= {
                task_id: _task_record(task_id, fields)
                for task_id, fields in zip(page, hashes, strict=True)
                if fields and is_id(task_id)
            }
        return found

    async def glances(self, ids: Sequence[str]) -> list[TaskGlance | TaskRecord]:
        """Those of ``ids`` that exist, in short; in the place of what cannot be read so stands its record."""
        found, unreadable = await self._glances.read([task_id for task_id in ids if is_id(task_id)])
        return [*found, *(await self.tasks(unreadable)).values()] if unreadable else list(found)

    async def task(self, task_id: str) -> TaskRecord:
        """Raises:
        TaskNotFound: it was never submitted, or its record has expired.
        """
        found = await self.tasks((task_id,))
        if task_id not in found:
            raise TaskNotFound(task_id)
        return found[task_id]

    async def find(self, typed: str) -> str:
        """The one task id that begins with what a person typed.

        Raises:
            TaskNotFound: none does.
            AmbiguousId: several do; the error names some.
        """
        prefix = normalise_prefix(typed)
        if not prefix or not set(prefix) <= set(ALPHABET):
            raise TaskNotFound(typed)
        async with our_errors(self.url):
            matches = await self._redis.zrangebylex(self.keys.ids, f"[{prefix}", f"[{prefix}\xff", 0, 4)
        if not matches:
            raise TaskNotFound(typed)
        if len(matches) > 1 and len(prefix) < ID_LENGTH:
            raise AmbiguousId(typed, matches)
        return str(matches[0])

    async def list_tasks(self, query: ListTasks) -> ListTasksAnswer:
        """A page of the tasks for which every given filter holds, newest first.

        Raises:
            InvalidInput: ``where`` cannot be read.
        """
        return await self._search.page(query)

    async def attempts(self, task_id: str) -> tuple[Attempt, ...]:
        """Every attempt of the task, oldest first."""
        async with our_errors(self.url):
            texts = await self._redis.lrange(self.keys.attempts(task_id), 0, -1)
        return tuple(records.attempt(text, place + 1) for place, text in enumerate(texts))

    async def dead(self, *, cause: str = "", job: str = "", by: Sequence[str] = ()) -> DeadAnswer:
        """The failed tasks, all or those of the code ``cause`` or of ``job``, by what they died of.

        ``by``: and by these of ``lcq.causes.APART``.

        Raises:
            InvalidInput: causes cannot be told apart by that.
        """
        if unknown := sorted({*by} - {*APART}):
            raise InvalidInput(f"failures are not grouped by {unknown[0]!r}", hint=f"there is {', '.join(APART)}")
        async with our_errors(self.url):
            codes = [cause] if cause else sorted(await self._redis.smembers(self.keys.causes))
            acks = await self._redis.hgetall(self.keys.acks)
        now_ms = await self.now_ms()
        found: dict[tuple[str, ...], list[_Death]] = {}
        total = looked_at = 0
        for code in codes:
            async with our_errors(self.url):
                there = await self._redis.zcard(self.keys.by_cause(code))
            ids = await self._newest(self.keys.by_cause(code), _LOOKED_AT)
            matching = 0
            for start in range(0, len(ids), _PAGE):
                page = ids[start : start + _PAGE]
                async with our_errors(self.url):
                    pipe = self._redis.pipeline(transaction=False)
                    for task_id in page:
                        pipe.hmget(self.keys.task(task_id), *_OF_A_DEATH)
                    answers = await pipe.execute()
                for task_id, (of_job, error_class, message, image, node, at_ms, now, model, size) in zip(
                    page, answers, strict=True
                ):
                    if now != code or (job and of_job != job):  # it was put back meanwhile
                        continue
                    matching += 1
                    size_known = size_class(size_of(size or ""))
                    death = _Death(task_id, node or "", int(at_ms or 0), model or "", size_known)
                    text = in_common(message or "", paths=(image or "",))
                    kind = (error_class, code, text, *(getattr(death, name) for name in by))
                    found.setdefault(kind, []).append(death)
            looked_at += matching
            total += matching if job else max(there, matching)
        causes = [
            _cause(kind, by, members, acks.get(f"{kind[1]}: {kind[2]}", ""), now_ms) for kind, members in found.items()
        ]
        causes.sort(key=lambda one: (-one.count, -one.newest_ms))
        return DeadAnswer(causes=tuple(causes), total=total, looked_at=looked_at)

    async def _newest(self, index: str, limit: int) -> list[str]:
        """The newest ids of an index, asked for in pieces."""
        ids: list[str] = []
        while len(ids) < limit:
            async with our_errors(self.url):
                piece = await self._search.below(index, ids[-1] if ids else "", min(PIECE, limit - len(ids)))
            ids += piece
            if not piece:
                break
        return ids

    async def task_events(self, record: TaskRecord, *, limit: int = 200) -> tuple[Event, ...]:
        """The newest events of one task that the stream still holds, oldest first."""
        found: list[Event] = []
        newest = "+"
        async with our_errors(self.url):
            while len(found) < limit:
                page = await self._redis.xrevrange(self.keys.events, newest, str(record.submitted_ms), count=2000)
                found += [records.event(*entry) for entry in page if entry[1].get("id") == record.id]
                if len(page) < 2000:
                    break
                newest = f"({page[-1][0]}"
        return tuple(reversed(found[:limit]))

    # ------------------------------------------------------------ fleet

    async def nodes(self) -> tuple[NodeRecord, ...]:
        """Every node that is not forgotten, by name."""
        async with our_errors(self.url):
            names = sorted(await self._redis.zrange(self.keys.nodes, 0, -1))
            pipe = self._redis.pipeline(transaction=False)
            for name in names:
                pipe.hgetall(self.keys.node(name))
                pipe.zcard(self.keys.held(name))
            answers = await pipe.execute(raise_on_error=False)
        pairs = zip(names, answers[::2], answers[1::2], strict=True)
        read = {name: self._node(name, fields, running) for name, fields, running in pairs if fields}
        self._nodes_read = read
        return tuple(record for _, _, record in read.values())

    def _node(self, name: str, fields: Any, running: Any) -> _NodeRead:
        """What was read of a node, and its record: the one of before, where nothing is different."""
        known = self._nodes_read.get(name)
        if known is not None and known[:2] == (fields, running):
            return known
        return fields, running, _node_record(name, fields, running)

    async def queues(self, nodes: Sequence[NodeRecord] | None = None) -> tuple[QueueRecord, ...]:
        """Every configured queue with its counts, in the configuration's order.

        ``nodes``: those that may serve them, where the caller has read them just now.
        """
        return await self._queues(await self.nodes() if nodes is None else nodes, self.queue_configs)

    async def _queues(self, nodes: Iterable[NodeRecord], configs: Sequence[QueueConfig]) -> tuple[QueueRecord, ...]:
        live: dict[str, list[str]] = {}
        for node in nodes:
            if node.status in ("online", "suspect"):
                for queue in {queue for queues in node.serves.values() for queue in queues}:
                    live.setdefault(queue, []).append(node.id)
        async with our_errors(self.url):
            pipe = self._redis.pipeline(transaction=False)
            pipe.hgetall(self.keys.counts)
            for config in configs:
                pipe.hgetall(self.keys.queue(config.name))
                pipe.zrange(self.keys.waiting(config.name), 0, 0, withscores=True)
            counts, *answers = await pipe.execute()
        out = []
        for config, fields, oldest in zip(configs, answers[::2], answers[1::2], strict=True):
            tally = {status: records.whole(counts.get(f"{config.name}/{status}")) for status in TaskStatus}
            since = int(oldest[0][1]) if oldest else None
            out.append(records.queue_record(config, fields, tally, since, tuple(live.get(config.name, ()))))
        return tuple(out)

    async def recent_fleet(self, *, within_s: float) -> Fleet:
        """The fleet as it was at most ``within_s`` ago. Of several who ask, one reads; the others get what there
        is, where that is at most twice as old, and else wait: after a quiet hour it tells of an hour ago."""
        asked = time.monotonic()
        if self._fleet is not None and self._fleet_reading.locked() and asked - self._fleet_at <= 2 * within_s:
            return self._fleet
        async with self._fleet_reading:
            if self._fleet is None or asked - self._fleet_at > within_s:
                began = time.monotonic()
                try:
                    self._fleet, self._fleet_at = await self.fleet(), began
                except StateUnavailable:  # those who have waited for it do not each try it again
                    self._fleet_at = time.monotonic()
                    raise
            return self._fleet

    async def _backlog(
        self, configs: Sequence[QueueConfig]
    ) -> tuple[
        dict[str, Backlog],
        dict[str, dict[str, int]],
        dict[tuple[str, str], tuple[float, ...]],
        frozenset[tuple[str, str]],
    ]:
        """What waits in each queue, how much of it whose, when what runs on each device is predicted to end, and to
        which queues and lanes people who wait came of late."""
        async with our_errors(self.url):
            pipe = self._redis.pipeline(transaction=False)
            pipe.time()
            pipe.zrange(self.keys.ends, 0, -1, withscores=True)
            pipe.hgetall(self.keys.interactive)
            for config in configs:
                pipe.hgetall(self.keys.backlog(config.name))
                pipe.hrandfield(self.keys.users(config.name), USERS_TOLD, withvalues=True)
            (seconds, micros), ends, until, *told = await pipe.execute()
        now_ms = int(seconds) * 1000 + int(micros) // 1000
        backlog: dict[str, Backlog] = {
            config.name: records.backlog(fields) for config, fields in zip(configs, told[::2], strict=True)
        }
        users = {config.name: _counts(some) for config, some in zip(configs, told[1::2], strict=True)}
        busy: dict[tuple[str, str], list[float]] = {}
        for member, ends_ms in ends:
            node, _, rest = member.partition("|")
            busy.setdefault((node, rest.rpartition("|")[0]), []).append(abs(ends_ms - now_ms) / 1000)
        return backlog, users, {name: tuple(left) for name, left in busy.items()}, _until(until, now_ms)

    async def fleet(self) -> Fleet:
        """A picture of the cluster as routing sees it."""
        configs = self.queue_configs
        nodes = await self.nodes()
        queues = await self._queues(nodes, configs)
        backlog, users, busy, interactive = await self._backlog(configs)
        return Fleet(
            overflow=await self._overflow(nodes),
            costs=await self.learned.book(),
            backlog=backlog,
            users={queue: frozenset(counts) for queue, counts in users.items()},
            tasks_of=users,
            busy_s=busy,
            interactive=interactive,
            queues=configs,
            nodes=nodes,
            waiting=await self._waiting(configs),
            paused_jobs={job: told for job, (told, _) in (await self.paused_jobs()).items()},
            paused={
                queue.name: f"by {queue.paused_by}" + (f": {queue.paused_reason}" if queue.paused_reason else "")
                for queue in queues
                if queue.paused
            },
        )

    async def _overflow(self, nodes: Iterable[NodeRecord]) -> Overflow | None:
        """None where no node that is there calls functions."""
        price = cheapest_price(node for node in nodes if node.status in LIVE)
        if price is None:
            return None
        return Overflow(self.serverless.overflow_after_s, await self.spend(), price, await self.now_ms())

    async def spend(self) -> Spend:
        """What functions have cost this hour, today and this month (UTC, by Redis's clock), and may."""
        now = datetime.fromtimestamp(await self.now_ms() / 1000, UTC)
        async with our_errors(self.url):
            pipe = self._redis.pipeline(transaction=False)
            pipe.hgetall(self.keys.spend("hour", f"{now:%Y-%m-%dT%H}"))
            pipe.hgetall(self.keys.spend("day", f"{now:%Y-%m-%d}"))
            pipe.hgetall(self.keys.spend("month", f"{now:%Y-%m}"))
            pipe.smembers(self.keys.spent_out)
            hour, day, month, out = await pipe.execute()
        return Spend(self.serverless.budget, book_of(hour), book_of(day), book_of(month), frozenset(out))

    async def spend_of_days(self, days: int) -> dict[str, Book]:
        """What functions have cost on each of the last ``days`` days (UTC), today first."""
        today = datetime.fromtimestamp(await self.now_ms() / 1000, UTC)
        names = [f"{today - timedelta(days=ago):%Y-%m-%d}" for ago in range(days)]
        async with our_errors(self.url):
            pipe = self._redis.pipeline(transaction=False)
            for name in names:
                pipe.hgetall(self.keys.spend("day", name))
            return dict(zip(names, map(book_of, await pipe.execute()), strict=True))

    async def spend_of_job(self, job: str) -> Book:
        """What functions have cost for the tasks of a job."""
        async with our_errors(self.url):
            return book_of(await self._redis.hgetall(self.keys.spend("job", job)))

    async def spend_of_jobs(self, limit: int = 200) -> dict[str, Book]:
        """What functions have cost for each of the newest ``limit`` jobs for which they have cost anything."""
        async with our_errors(self.url):
            names = await self._redis.zrevrange(self.keys.jobs, 0, limit - 1)
            pipe = self._redis.pipeline(transaction=False)
            for name in names:
                pipe.hgetall(self.keys.spend("job", name))
            books = await pipe.execute()
        return {name: book_of(fields) for name, fields in zip(names, books, strict=True) if fields}

    async def jobs(self, *, name: str = "", limit: int = 100, after: str = "") -> tuple[JobSummary, ...]:
        """Jobs with their counts, newest first; with ``name``, that one; with ``after``, those that come after it.

        Raises:
            JobNotFound: there is none of that name.
        """
        async with our_errors(self.url):
            if name:
                score = await self._redis.zscore(self.keys.jobs, name)
                if score is None:
                    raise JobNotFound(name)
                named = [(name, score)]
            else:
                first = 0
                if after:
                    place = await self._redis.zrevrank(self.keys.jobs, after)
                    if place is None:
                        raise JobNotFound(after)
                    first = int(place) + 1
                named = await self._redis.zrevrange(self.keys.jobs, first, first + limit - 1, withscores=True)
            pipe = self._redis.pipeline(transaction=False)
            for job, _ in named:
                pipe.hgetall(self.keys.job(job))
            hashes = await pipe.execute()
        paused = await self.paused_jobs()
        return tuple(
            records.job_summary(job, score, fields, paused.get(job))
            for (job, score), fields in zip(named, hashes, strict=True)
        )

    async def paused_jobs(self) -> dict[str, tuple[str, int]]:
        """The jobs that are paused: by whom and why, in words that follow "paused", and since when."""
        async with our_errors(self.url):
            found = await self._redis.hgetall(self.keys.paused)
        return {job: records.pause_of(text) for job, text in found.items()}

    async def job_outlook(self, job: str) -> tuple[tuple[TaskRecord, ...], Rivals]:
        """Some of the job's tasks that have not ended, and what else waits in their queues."""
        async with our_errors(self.url):
            size = await self._redis.zcard(self.keys.by_job(job))
            places = range(size) if size <= _SAMPLE else sorted(random.sample(range(size), _SAMPLE))
            pipe = self._redis.pipeline(transaction=False)
            for place in places:
                pipe.zrange(self.keys.by_job(job), place, place)
            found = await pipe.execute()
        sample = self._left(await self.tasks(task_id for ids in found for task_id in ids))
        for status in (TaskStatus.QUEUED, TaskStatus.PROCESSING, TaskStatus.PENDING):
            if not sample and size > _SAMPLE:  # only few are left, of many
                sample = self._left(
                    {one.id: one for one in (await self.list_tasks(ListTasks(job=job, status=status, limit=20))).tasks}
                )
        return sample, await self._rivals(sample)

    @staticmethod
    def _left(found: Mapping[str, TaskRecord]) -> tuple[TaskRecord, ...]:
        return tuple(one for one in found.values() if not one.status.is_terminal and not one.damaged)

    async def _rivals(self, sample: Sequence[TaskRecord]) -> Rivals:
        """What waits beside a job in its queues, as the books of fair queueing have it."""
        if not sample:
            return Rivals()
        mine = Counter((record.priority, record.task.user_id) for record in sample).most_common(1)[0][0]
        async with our_errors(self.url):
            pipe = self._redis.pipeline(transaction=False)
            for queue in sorted({record.queue for record in sample}):
                pipe.hgetall(self.keys.fair(queue))
            books = await pipe.execute()
        before, own = 0.0, 0.0
        others: dict[str, float] = {}
        bands = list(TaskPriority)
        for book in books:
            for field, text in book.items():
                band, colon, user = field.partition(":")
                if not colon or band not in bands:
                    continue
                left_s = max(0.0, records.real(text) - records.real(book.get("v")))
                if bands.index(TaskPriority(band)) < bands.index(mine[0]):
                    before += left_s
                elif (band, user) == mine:
                    own += left_s
                elif band == mine[0]:
                    others[user] = others.get(user, 0.0) + left_s
        return Rivals(before=before, others=others, own=own)

    async def job_walks(self) -> tuple[str, ...]:
        """The jobs that were paused or resumed, and not all of whose tasks have gone aside or come back yet."""
        async with our_errors(self.url):
            return tuple(await self._redis.hkeys(self.keys.walks))

    async def job_page(self, job: str, *, after: str, limit: int) -> tuple[tuple[str, str, str], ...]:
        """The next tasks of a job, the oldest first: the id of each, its status, and the code of its failure."""
        async with our_errors(self.url):
            ids = await self._redis.zrangebylex(self.keys.by_job(job), f"({after}" if after else "-", "+", 0, limit)
            pipe = self._redis.pipeline(transaction=False)
            for task_id in ids:
                pipe.hmget(self.keys.task(task_id), "status", "code")
            answers = await pipe.execute(raise_on_error=False)
        pairs = zip(ids, answers, strict=True)
        return tuple(
            (task_id, *("", "")) if isinstance(told, Exception) else (task_id, told[0] or "", told[1] or "")
            for task_id, told in pairs
        )

    async def blobs_of(self, *, after: str = "", limit: int = 500) -> tuple[str, frozenset[str]]:
        """The blobs (SHA-256) that the next tasks after that id name, as their input or their result; and the id of the
        last one looked at, "" at the end."""
        async with our_errors(self.url):
            ids = await self._redis.zrangebylex(self.keys.ids, f"({after}" if after else "-", "+", 0, limit)
            pipe = self._redis.pipeline(transaction=False)
            for task_id in ids:
                pipe.hmget(self.keys.task(task_id), "json", "result")
            answers = await pipe.execute(raise_on_error=False)
        named: set[str] = set()
        for told in answers:
            if not isinstance(told, Exception):
                named.update(sha256 for text in told if text for sha256 in _BLOB.findall(text))
        return (ids[-1] if len(ids) == limit else ""), frozenset(named)

    async def done_by(self, command_id: str) -> int:
        """How many tasks an operator's command has changed, as long as that is remembered."""
        async with our_errors(self.url):
            return int(await self._redis.hlen(self.keys.done(command_id)))

    async def counts(self) -> dict[TaskStatus, int]:
        """How many tasks are in each status."""
        async with our_errors(self.url):
            values = await self._redis.hmget(self.keys.counts, list(TaskStatus))
        return {status: records.whole(value) for status, value in zip(TaskStatus, values, strict=True)}

    async def totals(self) -> dict[str, int]:
        """What has been counted since the state began: submitted, claimed, completed, fenced …"""
        async with our_errors(self.url):
            return {name: records.whole(value) for name, value in (await self._redis.hgetall(self.keys.totals)).items()}

    async def minutes(self, count: int = 60) -> tuple[MinuteTally, ...]:
        """The last ``count`` minutes (at most a day is kept), the oldest first; the last is the one under way."""
        now = await self.now_ms() // 60_000
        minutes = range(now - count + 1, now + 1)
        queues = [config.name for config in self.queue_configs]
        fields = records.minute_fields(queues)
        async with our_errors(self.url):
            pipe = self._redis.pipeline(transaction=False)
            for minute in minutes:
                pipe.hmget(self.keys.minute(minute), *fields)
            answers = await pipe.execute()
        return tuple(
            records.minute_tally(minute, dict(zip(fields, answer, strict=True)), queues)
            for minute, answer in zip(minutes, answers, strict=True)
        )

    async def upkeep(self) -> dict[str, dict[str, Any]]:
        """How the duties for operators went last: by duty, ``error`` ("": well), ``at_ms``, and facts of it."""
        async with our_errors(self.url):
            told = await self._redis.hgetall(self.keys.upkeep)
        return {duty: json.loads(text) for duty, text in told.items()}

    async def schedules(self, names: Sequence[str]) -> list[dict[str, str]]:
        """What is kept of these schedules; empty where nobody has seen one yet."""
        async with our_errors(self.url):
            pipe = self._redis.pipeline(transaction=False)
            for name in names:
                pipe.hgetall(self.keys.schedule(name))
            return list(await pipe.execute())

    async def usage(self, days: Sequence[date]) -> Days:
        """What was used on these days."""
        async with our_errors(self.url):
            pipe = self._redis.pipeline(transaction=False)
            for day in days:
                pipe.hgetall(self.keys.usage(number_of(day)))
            answers = await pipe.execute()
        return Days(dict(zip(days, answers, strict=True)))

    async def device_history(self, node: str) -> dict[str, tuple[DeviceSample, ...]]:
        """How each device of ``node`` was in the last hour, the oldest first, every half minute while it was heard."""
        async with our_errors(self.url):
            texts = await self._redis.lrange(self.keys.use(node), 0, -1)
        return records.device_history(texts)

    async def waiting(self) -> dict[str, int]:
        """How many queued tasks each queue has, pinned ones included."""
        return await self._waiting(self.queue_configs)

    async def _waiting(self, configs: Sequence[QueueConfig]) -> dict[str, int]:
        async with our_errors(self.url):
            pipe = self._redis.pipeline(transaction=False)
            for config in configs:
                pipe.zcard(self.keys.waiting(config.name))
            depths = await pipe.execute()
        return {config.name: depth for config, depth in zip(configs, depths, strict=True)}

    async def ready(self) -> dict[str, int]:
        """How many queued tasks each queue could start now: none where it is paused."""
        configs = self.queue_configs
        async with our_errors(self.url):
            pipe = self._redis.pipeline(transaction=False)
            for config in configs:
                pipe.hexists(self.keys.queue(config.name), "paused")
            paused = await pipe.execute()
        depths = (await self._waiting(configs)).items()
        return {queue: 0 if stopped else depth for (queue, depth), stopped in zip(depths, paused, strict=True)}

    async def lanes(self) -> tuple[tuple[str, str], ...]:
        """The (queue, lane) pairs in which tasks wait, but for those that are kept for one node."""
        async with our_errors(self.url):
            found = sorted(await self._redis.smembers(self.keys.lanes))
        pairs = (lane.split(":", 1) for lane in found if ":" in lane)
        return tuple((queue, lane) for queue, lane in pairs)

    async def all_lanes(self) -> tuple[tuple[str, str], ...]:
        """As ``lanes``, with those of labelled tasks that are kept for one node, under its name: ``@node``."""
        async with our_errors(self.url):
            pipe = self._redis.pipeline(transaction=False)
            pipe.smembers(self.keys.lanes)
            pipe.smembers(self.keys.labelled)
            listed, labelled = await pipe.execute()
        pairs = (lane.split(":", 1) for lane in sorted({*listed, *labelled}) if ":" in lane)
        return tuple((queue, lane) for queue, lane in pairs)

    async def depths(self) -> dict[tuple[str, str], int]:
        """How many tasks wait in each (queue, lane), but for those that are kept for one node."""
        lanes = await self.lanes()
        async with our_errors(self.url):
            pipe = self._redis.pipeline(transaction=False)
            for lane in lanes:
                pipe.zcard(self.keys.lane(*lane))
            return dict(zip(lanes, await pipe.execute(), strict=True))

    async def kept_for(self, nodes: Iterable[NodeRecord]) -> frozenset[str]:
        """Those of ``nodes`` for which a task waits that is kept for them."""
        labelled = [lane for queue, lane in await self.all_lanes() if queue.startswith("@")]
        asked = [
            (node.id, lane)
            for node in nodes
            for lane in {*labelled, *chain(*(node.capability.lanes_of(one) for one in node.capability.devices))}
        ]
        async with our_errors(self.url):
            pipe = self._redis.pipeline(transaction=False)
            for node_id, lane in asked:
                pipe.exists(self.keys.lane(f"@{node_id}", lane))
            answers = await pipe.execute()
        return frozenset(node_id for (node_id, _), there in zip(asked, answers, strict=True) if there)

    async def now_ms(self) -> int:
        """What Redis's clock shows, in ms since 1970."""
        async with our_errors(self.url):
            seconds, micros = await self._redis.time()
        return int(seconds) * 1000 + int(micros) // 1000

    async def standing(
        self, record: TaskRecord, lanes: Iterable[str], *, depths: Mapping[tuple[str, str], int] | None = None
    ) -> Standing:
        """The place of a task; for a queued one, what is before it in these ``lanes`` of where it waits.

        ``depths``: what ``depths()`` has told just now, where somebody has asked already.
        Counted by what Redis keeps sorted: it costs the same among a hundred tasks and a million.
        """
        async with our_errors(self.url):
            pipe = self._redis.pipeline(transaction=False)
            pipe.time()
            pipe.hgetall(self.keys.queue(record.queue))
            pipe.hget(self.keys.paused, record.task.job or "")
            pipe.hget(self.keys.running, record.task.user_id)
            pipe.hmget(self.keys.task(record.id), "score", "avoid")
            (seconds, micros), queue, job, running, (score, avoids) = await pipe.execute()
        standing = Standing(
            now_ms=int(seconds) * 1000 + int(micros) // 1000,
            avoids=avoids or "",
            paused=records.hold(queue),
            job_paused=records.hold_of_job(job) if job else None,
            in_flight=records.whole(running),
        )
        if record.status is not TaskStatus.QUEUED or score is None:
            return standing
        owner = f"@{record.pinned_node}" if record.pinned_node else record.queue
        wanted = tuple(lanes)
        names = [self.keys.lane(owner, lane) for lane in wanted]
        by_band = {band: [self.keys.rank(owner, lane, band) for lane in wanted] for band in TaskPriority}
        by_user = {
            band: [self.keys.mine(owner, lane, band, record.task.user_id) for lane in wanted] for band in TaskPriority
        }
        every = [*names, *chain(*by_band.values()), *chain(*by_user.values())]
        before = await self._before(every, float(score), record.id)
        ahead = {lane: before[name] for lane, name in zip(wanted, names, strict=True)}
        in_bands = {band: sum(before[name] for name in keys) for band, keys in by_band.items()}
        own = sum(before[name] for band, keys in by_user.items() if band.band >= record.priority.band for name in keys)
        higher = sum(count for band, count in in_bands.items() if band.band < record.priority.band)
        is_whole = sum(in_bands.values()) == sum(ahead.values())
        return replace(
            standing,
            ahead=ahead,
            higher=higher if is_whole else None,
            own=own,
            depths=await self.depths() if depths is None else depths,
        )

    async def _before(self, names: Sequence[str], score: float, task_id: str) -> dict[str, int]:
        """How many members of each sorted set come before a task of that score, all at one moment."""
        async with our_errors(self.url):
            pipe = self._redis.pipeline(transaction=True)
            for name in names:
                pipe.zcount(name, "-inf", f"({score!r}")
                pipe.zcount(name, score, score)
            counts = await pipe.execute()
        before = dict(zip(names, counts[::2], strict=True))
        # Of those with the same score the ids decide: the place of ours among them is between ``low`` and ``high``.
        open_ = {name: (before[name], before[name] + ties) for name, ties in zip(names, counts[1::2], strict=True)}
        while unsure := [(name, low, high) for name, (low, high) in open_.items() if low < high]:
            async with our_errors(self.url):
                pipe = self._redis.pipeline(transaction=False)
                for name, low, high in unsure:
                    middle = (low + high) // 2
                    pipe.zrange(name, middle, middle)
                found = await pipe.execute()
            for (name, low, high), member in zip(unsure, found, strict=True):
                middle = (low + high) // 2
                is_before = bool(member) and member[0] < task_id
                open_[name] = (middle + 1, high) if is_before else (low, middle)
        return {name: low for name, (low, _) in open_.items()}

    async def lane_ids(
        self, queue: str, lane: str, *, limit: int, after: int = 0, from_end: bool = False
    ) -> tuple[str, ...]:
        """Tasks of one lane in the order in which they would be claimed, but for the first ``after``.

        ``from_end``: in the opposite order.
        """
        async with our_errors(self.url):
            name = self.keys.lane(queue, lane)
            return tuple(await self._redis.zrange(name, after, after + limit - 1, desc=from_end))

    async def ends_of_users(self, queue: str, lane: str, users: Iterable[str], *, each: int) -> tuple[str, ...]:
        """The last tasks of one lane of each of ``users``, ``each`` of every priority."""
        async with our_errors(self.url):
            pipe = self._redis.pipeline(transaction=False)
            for user in users:
                for priority in TaskPriority:
                    pipe.zrange(self.keys.mine(queue, lane, priority, user), 0, each - 1, desc=True)
            return tuple(task_id for ids in await pipe.execute() for task_id in ids)

    async def exportable(self, ids: Sequence[str]) -> frozenset[str]:
        """Those of ``ids`` whose pictures may leave the house: of their records only that is read."""
        async with our_errors(self.url):
            pipe = self._redis.pipeline(transaction=False)
            for task_id in ids:
                pipe.hget(self.keys.task(task_id), "json")
            told = await pipe.execute()
        return frozenset(task_id for task_id, text in zip(ids, told, strict=True) if records.may_leave(text or ""))

    async def schedulers(self) -> dict[str, str]:
        """Control endpoints of the schedulers that said they live, by scheduler id."""
        async with our_errors(self.url):
            seconds, micros = await self._redis.time()
            fields = await self._redis.hgetall(self.keys.schedulers)
        now_ms = seconds * 1000 + micros // 1000
        alive = {}
        for scheduler_id, text in fields.items():
            until_ms, _, endpoint = text.partition(" ")
            if records.whole(until_ms) > now_ms:
                alive[scheduler_id] = endpoint
        return alive

    async def listening(self) -> dict[str, Ear]:
        """How well each scheduler listens to its nodes, by scheduler id: those of the last minute."""
        async with our_errors(self.url):
            fields = await self._redis.hgetall(self.keys.listening)
        told = {scheduler_id: text.partition(" ") for scheduler_id, text in fields.items()}
        return {one: Ear(records.whole(last), records.whole(since)) for one, (last, _, since) in told.items()}

    # ------------------------------------------------------------ alerts

    async def alerts(self) -> Alerts:
        """The alerts that are about to be or are, and what is silenced."""
        async with our_errors(self.url):
            pipe = self._redis.pipeline(transaction=True)
            pipe.time()
            pipe.hgetall(self.keys.alerts)
            pipe.hgetall(self.keys.silences)
            (seconds, micros), alerts, silences = await pipe.execute()
        return Alerts(
            alerts=tuple(one for _, one in sorted(read_all(AlertRecord, alerts).items())),
            silences=tuple(one for _, one in sorted(read_all(Silence, silences).items())),
            now_ms=int(seconds) * 1000 + int(micros) // 1000,
            alert_texts=alerts,
            silence_texts=silences,
        )

    async def notices(self) -> dict[str, tuple[str, Notice]]:
        """What receivers are still to be told, by id: the record's text, and what it says."""
        async with our_errors(self.url):
            texts = await self._redis.hgetall(self.keys.notices)
        return {name: (texts[name], one) for name, one in read_all(Notice, texts).items()}

    async def conditions(self) -> dict[str, Condition]:
        """How each scheduler that lives says that it is, by its id."""
        ids = sorted(await self.schedulers())
        if not ids:
            return {}
        async with our_errors(self.url):
            pipe = self._redis.pipeline(transaction=False)
            for one in ids:
                pipe.get(self.keys.condition(one))
            texts = await pipe.execute()
        told = {one: Condition.read(text) for one, text in zip(ids, texts, strict=True) if text}
        return {one: condition for one, condition in told.items() if condition is not None}

    # ------------------------------------------------------------ events

    async def last_event_id(self) -> str:
        """The newest event's id, ``0-0`` if nothing has happened yet."""
        async with our_errors(self.url):
            newest = await self._redis.xrevrange(self.keys.events, count=1)
        return str(newest[0][0]) if newest else "0-0"

    async def events(self, after: str, wait_ms: int = 0, limit: int = 1000) -> EventsAnswer:
        """Events after the id ``after`` (``$``: from now on); waits up to ``wait_ms`` for the first one.

        ``gap`` is True where the stream no longer holds the event ``after``: take a snapshot.
        """
        if after == "$":
            after = await self.last_event_id()
        known, at = self._held
        gap = (known != after or time.monotonic() - at > _HELD_S) and not await self._holds(after)
        found = await self.news(after, 0 if gap else wait_ms, limit)
        if found:
            gap = gap or not await self._holds(after)  # what has come since may have been lost in part
            after = found[-1].id
            self._held = (after, time.monotonic())
        elif gap:
            after = await self.last_event_id()
        return EventsAnswer(events=found, last_id=after, gap=gap)

    async def _holds(self, event_id: str) -> bool:
        """Whether the stream still holds that event, so that it holds all that came after it too.

        An id that was seen and is not there any more was trimmed, or was lost with the server's last second.
        """
        if event_id == "0-0":
            return True
        async with our_errors(self.url):
            is_there = bool(await self._redis.xrange(self.keys.events, event_id, event_id, count=1))
        if is_there:
            self._held = (event_id, time.monotonic())
        return is_there

    async def news(self, after: str, wait_ms: int, limit: int) -> tuple[Event, ...]:
        """Events after the id ``after``, without a look whether any were lost: for who reads all the time."""
        async with our_errors(self.url, within_s=ANSWER_S + wait_ms / 1000):
            answer = await self._follow.xread({self.keys.events: after}, count=limit, block=wait_ms or None)
        return tuple(records.event(*entry) for _, entries in _streams(answer) for entry in entries)

    async def snapshot(
        self, limit: int = 200_000, take: Callable[[Sequence[TaskGlance | TaskRecord]], None] | None = None
    ) -> Snapshot:
        """Everything a view needs to begin, at most the newest ``limit`` tasks.

        ``take`` is given the tasks in pieces as they are read, in short and the newest first, and the answer has none
        then: all their records at once need some six kB each.
        """
        last = await self.last_event_id()  # read first: what happens meanwhile comes again as an event
        async with our_errors(self.url):
            total = await self._redis.zcard(self.keys.ids)
        ids = await self._newest(self.keys.ids, limit)
        tasks: list[TaskRecord] = []
        for start in range(0, len(ids), _PIECE):
            piece = ids[start : start + _PIECE]
            if take is None:
                tasks += (await self.tasks(piece)).values()
            else:
                take(await self.glances(piece))
        nodes = await self.nodes()
        return Snapshot(
            tasks=tuple(tasks),
            nodes=nodes,
            queues=await self.queues(nodes),
            last_event_id=last,
            total_tasks=total,
        )


_UNREADABLE = (ValueError, KeyError, TypeError, AttributeError)  # what our models and json say of a damaged record


def _task_record(task_id: str, fields: Any) -> TaskRecord:
    """The record, or what can be shown of it: one damaged record must not hide all others."""
    if isinstance(fields, ResponseError):
        return records.damaged_task(task_id, {}, str(fields))
    try:
        record = records.task_record(fields)
    except _UNREADABLE as error:
        return records.damaged_task(task_id, fields, records.told_damage(error))
    if record.id != task_id:
        return records.damaged_task(task_id, fields, f"its JSON is that of task {record.id}")
    return record


def _counts(answer: Sequence[Any]) -> dict[str, int]:
    """Field and number in turn, as HRANDFIELD has them; by RESP3 in pairs."""
    flat = [one for pair in answer for one in pair] if answer and not isinstance(answer[0], str) else list(answer)
    return {name: records.whole(count) for name, count in zip(flat[::2], flat[1::2], strict=True)}


def _until(fields: Mapping[str, str], now_ms: int) -> frozenset[tuple[str, str]]:
    """The queues and lanes of which it is still to be reckoned with that somebody waits there."""
    names = (name.partition(":") for name, until in fields.items() if records.whole(until) > now_ms)
    return frozenset((queue, lane) for queue, _, lane in names)


def _node_record(name: str, fields: Any, running: Any) -> NodeRecord:
    if isinstance(fields, ResponseError):
        return records.damaged_node(name, str(fields))
    try:
        return records.node_record(name, fields, running)
    except _UNREADABLE as error:
        return records.damaged_node(name, records.told_damage(error))


_OF_A_DEATH = ("job", "class", "message", "image", "node", "finished_ms", "code", "model", "size")


class _Death(NamedTuple):
    """What is told of one failed task where its cause is."""

    task_id: str
    node: str
    at_ms: int
    model: str
    size: str


def _cause(kind: Sequence[str], by: Sequence[str], members: list[_Death], ack: str, now_ms: int) -> Cause:
    error_class, code, text, *values = kind
    newest = max(members, key=lambda member: member.at_ms)
    return Cause(
        error_class=ErrorClass(error_class),
        code=code,
        text=text,
        count=len(members),
        newest=newest.task_id,
        newest_ms=newest.at_ms,
        oldest_ms=min(member.at_ms for member in members),
        nodes=_most_common(member.node for member in members),
        models=_most_common(member.model for member in members),
        sizes=_most_common(member.size for member in members),
        trend=trend((member.at_ms for member in members), now_ms),
        acknowledged=next(iter(records.notes(f"[{ack}]")), None) if ack else None,
        of=dict(zip(by, values, strict=True)),
    )


def _most_common(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(name for name, _ in Counter(filter(None, names)).most_common(_NODES_NAMED))


def _streams(answer: Any) -> Iterable[tuple[str, list[tuple[str, dict[str, str]]]]]:
    """XREAD's answer as pairs, whether the protocol gives pairs (RESP 2) or a map (RESP 3)."""
    pairs = answer.items() if isinstance(answer, dict) else answer or ()
    return [(name, entries[0] if entries and isinstance(entries[0], list) else entries) for name, entries in pairs]

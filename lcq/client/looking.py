"""What a client can ask of tasks, jobs, nodes and queues as they stand."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from typing import Literal, TypeVar

from lcq.client.connection import Connection
from lcq.errors import InvalidInput, LogElsewhere, NodeElsewhere, TaskNotFound, VersionMismatch
from lcq.ids import is_id, normalise_prefix
from lcq.models import ActRecord, JobReport, JobSummary, NodeRecord, QueueRecord, Skips, TaskRecord, TaskStatus
from lcq.reasons import Why
from lcq.usage import By
from lcq.wire import (
    MAX_BATCH,
    MOST_WHYS,
    Acts,
    AskSees,
    AskSettings,
    AskStore,
    AskThumbnail,
    AskWhy,
    AskWhys,
    Costs,
    CostStats,
    Dead,
    DeadAnswer,
    Find,
    GetTasks,
    History,
    HistoryAnswer,
    Info,
    InfoAnswer,
    Jobs,
    ListTasks,
    ListTasksAnswer,
    LogAnswer,
    Nodes,
    NoteJob,
    Queues,
    ReadLog,
    ReadTaskLog,
    Report,
    ReportAnswer,
    ReportJob,
    SeenFile,
    SeesAnswer,
    SettingsAnswer,
    StoreAnswer,
    TaskLogAnswer,
    ThumbnailAnswer,
    WhyAnswer,
)

ItemT = TypeVar("ItemT")

LOG_S = 3.0
"""How long a scheduler may wait for the lines of an agent's log."""
THUMBNAIL_S = 25.0
"""How long a scheduler may take to have small pictures made."""


class Looking(Connection):
    """The questions of a client."""

    async def find(self, prefix: str) -> str:
        """The whole id that ``prefix`` is the unique beginning of; a whole id comes back as it is.

        Raises:
            TaskNotFound: no id begins so.
            AmbiguousId: several do.
        """
        typed = normalise_prefix(prefix)
        if is_id(typed):
            return typed
        if not typed:
            raise InvalidInput("an empty task id", hint="lcq tasks lists them")
        return (await self.ask(Find(prefix=typed))).id

    async def get(self, id_or_prefix: str) -> TaskRecord:
        """A task as it stands.

        Raises:
            TaskNotFound, AmbiguousId: as ``find`` says.
        """
        return (await self.get_many([await self.find(id_or_prefix)]))[0]

    async def get_many(self, ids: Iterable[str]) -> list[TaskRecord]:
        """The tasks of these (whole) ids, in the order given.

        Raises:
            TaskNotFound: for the first that is not there.
        """
        records = []
        for piece in pieces(tuple(ids)):
            answer = await self.ask(GetTasks(ids=tuple(piece)))
            found = {record.id: record for record in answer.tasks}
            for task_id in piece:
                if task_id not in found:
                    raise TaskNotFound(task_id)
                records.append(found[task_id])
        return records

    async def store(self) -> StoreAnswer:
        """Where the cluster's blobs are, and what tasks may name.

        Raises:
            UnknownCommand: this scheduler is older than blobs.
        """
        return (await self.ask(AskStore())).reached_at(self.endpoint)

    async def sees(self, files: Sequence[SeenFile]) -> SeesAnswer:
        """Whether all live nodes see ``files`` as they are seen here; at most ``MOST_SEEN`` of them."""
        return await self.ask(AskSees(files=tuple(files)))

    async def known(self, ids: Iterable[str]) -> list[TaskRecord]:
        """The tasks of those of these (whole) ids that are there."""
        records: list[TaskRecord] = []
        for piece in pieces(tuple(ids)):
            records += (await self.ask(GetTasks(ids=tuple(piece)))).tasks
        return records

    async def page(
        self,
        where: str = "",
        *,
        status: TaskStatus | None = None,
        queue: str = "",
        node: str = "",
        job: str = "",
        cause: str = "",
        limit: int = 100,
        cursor: str = "",
    ) -> ListTasksAnswer:
        """One page of the tasks for which all filters given hold, newest first, with the total.

        ``where`` is a filter in words (docs/filter.md). Its pages may be short although there are more: only an empty
        cursor is the end; and the total is of all tasks.

        Raises:
            InvalidInput: ``where`` cannot be read.
            VersionMismatch: this scheduler is older and knows no filter in words.
        """
        answer = await self.ask(
            ListTasks(
                where=where,
                status=status,
                queue=queue,
                node=node,
                job=job,
                cause=cause,
                limit=max(1, min(limit, MAX_BATCH)),
                cursor=cursor,
            )
        )
        if where and answer.tasks and not answer.looked_at:  # it has listed everything as if nothing had been asked
            raise VersionMismatch(
                f"this scheduler is older than filters in words: {where!r:.100} was not understood",
                hint="upgrade it, or use --status, --queue, --node, --job and --cause",
            )
        return answer

    async def tasks(
        self,
        where: str = "",
        *,
        status: TaskStatus | None = None,
        queue: str = "",
        node: str = "",
        job: str = "",
        cause: str = "",
        limit: int | None = None,
    ) -> AsyncIterator[TaskRecord]:
        """The tasks for which all filters given hold, newest first, fetched page by page."""
        left, cursor = limit, ""
        while left is None or left > 0:
            size = MAX_BATCH if left is None else min(left, MAX_BATCH)
            answer = await self.page(
                where, status=status, queue=queue, node=node, job=job, cause=cause, limit=size, cursor=cursor
            )
            for record in answer.tasks:
                yield record
            if left is not None:
                left -= len(answer.tasks)
            cursor = answer.cursor
            if not cursor:
                return

    async def dead(self, *, cause: str = "", job: str = "", by: Sequence[str] = ()) -> DeadAnswer:
        """The failed tasks by what they died of; only those of the code ``cause``, or of ``job``.

        ``by``: told apart also by model, node, size (of the image), which each cause has in ``of`` then.

        Raises:
            InvalidInput: failures cannot be told apart by that.
        """
        return await self.ask(Dead(cause=cause, job=job, by=tuple(by)))

    async def acts(self, *, actor: str = "", before: str = "", limit: int = 100) -> tuple[ActRecord, ...]:
        """Who did what and why, newest first; ``before`` is the id of an act: only what is older than that."""
        return (await self.ask(Acts(actor=actor, before=before, limit=max(1, min(limit, 1000))))).acts

    async def costs(self, model: str = "") -> tuple[CostStats, ...]:
        """What is known of costs, of all models or of one, and how good predictions were."""
        return (await self.ask(Costs(model=model))).costs

    async def usage(self, since: str = "30d", *, by: By = "user", whole: bool = False) -> ReportAnswer:
        """What was used since then ("30d", "4w", "2026-11-01"), by user, job, node, model or day.

        Of forgotten tasks too. ``whole``: by each of these.

        Raises:
            InvalidInput: that is no time.
        """
        return await self.ask(Report(since=since, by=by, whole=whole))

    async def history(self, id_or_prefix: str) -> HistoryAnswer:
        """A task with its attempts, its events, and one line on why it waits or what became of it."""
        return await self.ask(History(task_id=await self.find(id_or_prefix)))

    async def why(self, id_or_prefix: str) -> Why:
        """Why a task waits, or what became of it: one reason of the closed list in ``lcq.reasons``."""
        return (await self.ask(AskWhy(task_id=await self.find(id_or_prefix)))).why

    async def whys(self, ids: Iterable[str]) -> dict[str, WhyAnswer]:
        """Why each of these (whole) ids is where it is, for a list. Some may be missing: then it would take too long.

        Raises:
            UnknownCommand: this scheduler is older and tells it of one at a time.
        """
        wanted = tuple(ids)
        told: list[WhyAnswer] = []
        for start in range(0, len(wanted), MOST_WHYS):
            told += (await self.ask(AskWhys(ids=wanted[start : start + MOST_WHYS]))).whys
        return {one.id: one for one in told}

    async def thumbnail(
        self,
        task_id: str,
        *,
        parts: Sequence[Literal["before", "mask", "after", "overlay"]] = ("before", "mask", "after"),
        longest: int = 320,
        box: tuple[float, float, float, float] = (0.0, 0.0, 1.0, 1.0),
        webp: bool = False,
    ) -> ThumbnailAnswer:
        """Small pictures of a task, made by a node that reaches its files; ``longest``: pixels of the longer side.

        ``overlay`` is the image with its mask over it in red; ``webp``: all of them as WebP. ``box`` is the part of
        them that is wanted: left, top, right and bottom, in shares.

        Raises:
            NoThumbnail: no node can be asked: why not.
            UnknownCommand: this scheduler is older and shows no pictures.
        """
        tried = 0
        while True:
            request = AskThumbnail(task_id=task_id, parts=tuple(parts), longest=longest, box=box, webp=webp)
            try:
                return await self.ask(request, hold_s=THUMBNAIL_S)
            except NodeElsewhere:  # requests go round the schedulers: the next one may be the node's
                tried += 1
                if tried >= 2 * len(self._connected):
                    raise

    async def log(self, node: str, *, after: int = -1, limit: int = 200, task: str = "") -> LogAnswer:
        """What the agent of ``node`` has logged of late, and what its runners wrote.

        ``after``: only lines with greater numbers, the oldest first (``last`` of an answer goes on where it ended);
        -1: the newest ``limit``. ``task``: only lines of this task, or that name it.

        Raises:
            NodeNotFound.
            NoLog: its agent cannot be asked: why not.
            UnknownCommand: this scheduler is older.
        """
        tried = 0
        while True:
            try:
                return await self.ask(ReadLog(node=node, after=after, limit=limit, task=task), hold_s=LOG_S)
            except LogElsewhere:  # requests go round the schedulers: the next one may be the node's
                tried += 1
                if tried >= 2 * len(self._connected):
                    raise

    async def task_log(self, task_id: str, *, attempt: int = 0, begin: int = -1, limit: int = 200) -> TaskLogAnswer:
        """What was written during an attempt of a task (0: the newest), as far as the agent that ran it has kept it.

        ``begin``: from that byte of it on, the oldest line first (``next`` of an answer goes on where it ended); -1:
        the newest ``limit`` lines.

        Raises:
            TaskNotFound.
            InvalidInput: it has no such attempt.
            NoLog: nobody has taken it yet, or the agent that ran it cannot be asked: why not.
            UnknownCommand: this scheduler is older.
        """
        tried = 0
        while True:
            request = ReadTaskLog(task=task_id, attempt=attempt, begin=begin, limit=limit)
            try:
                return await self.ask(request, hold_s=LOG_S)
            except LogElsewhere:  # as in log()
                tried += 1
                if tried >= 2 * len(self._connected):
                    raise

    async def nodes(self) -> tuple[NodeRecord, ...]:
        """All nodes the cluster knows."""
        return (await self.ask(Nodes())).nodes

    async def queues(self) -> tuple[QueueRecord, ...]:
        """All queues with their counts."""
        return (await self.ask(Queues())).queues

    async def jobs(self, name: str = "", *, limit: int = 100) -> tuple[JobSummary, ...]:
        """Jobs, newest first; with ``name`` only that one.

        Raises:
            JobNotFound: there is none of that name.
        """
        return (await self.ask(Jobs(name=name, limit=limit))).jobs

    async def report_job(self, job: str) -> JobReport:
        """What has become of a job, all in all.

        Raises:
            JobNotFound: there is none of that name, or it has been forgotten.
        """
        return (await self.ask(ReportJob(job=job))).report

    async def note_job(self, job: str, skipped: Sequence[Skips]) -> None:
        """Have kept with a job what a submit of it has skipped, and why.

        Raises:
            JobNotFound: there is none of that name: none of its tasks is known.
        """
        await self.ask(NoteJob(job=job, skipped=tuple(skipped), actor=self.actor))

    async def info(self) -> InfoAnswer:
        """Which scheduler this is: versions, its Redis, its queues, the newest event's id."""
        return await self.ask(Info())

    async def settings(self) -> SettingsAnswer:
        """What settings that scheduler goes by now, without secrets, and who said each.

        Raises:
            UnknownCommand: it is older than this question.
        """
        return await self.ask(AskSettings())


def pieces(items: Sequence[ItemT]) -> Iterator[Sequence[ItemT]]:
    """``items`` in as many pieces as there are requests needed for them."""
    for start in range(0, len(items), MAX_BATCH):
        yield items[start : start + MAX_BATCH]


def listed(ids: str | Iterable[str]) -> tuple[str, ...]:
    """One id, or some, as a caller may give them."""
    return (ids,) if isinstance(ids, str) else tuple(ids)

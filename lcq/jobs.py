"""Acts on whole jobs: in pieces, each move a short script, so that one of a hundred thousand tasks holds up nobody."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any, TypeAlias

from lcq.errors import (
    JobNotFound,
    LcqError,
    NodeNotFound,
    StateUnavailable,
    TaskNotFound,
    TransitionRefused,
    UnknownQueue,
)
from lcq.eta import crew_of, job_eta
from lcq.models import TERMINAL_STATES, Eta, JobReport, JobSummary, TaskRecord, TaskStatus
from lcq.routing import Fleet
from lcq.state.manager import StateManager
from lcq.wire import (
    AsideAnswer,
    CancelJob,
    Done,
    JobActAnswer,
    Jobs,
    JobsAnswer,
    NoteJob,
    PauseJob,
    PrioritiseJob,
    Refusal,
    Refusals,
    ReportJob,
    ReportJobAnswer,
    Request,
    RerouteJob,
    ResumeJob,
    RetryJob,
)

_UNFINISHED = frozenset(TaskStatus) - TERMINAL_STATES
_PIECE = 250  # tasks that are looked at, at a time
_AT_ONCE = 16  # and acted on: the server does what comes in one piece before it listens to anybody else
_LONGEST_S = 3.0  # for one command; the next one goes on where this has stopped
_DUTY_S = 0.5  # of a timed duty, for all jobs: others wait for their turn
_FORETOLD = 50  # jobs of a list, the newest, that are told when they will be done
_OVERTAKEN = (TaskNotFound, TransitionRefused)  # what it was meant for has ended, or is gone, since it was looked at

OnOne: TypeAlias = Callable[[Any, str], Awaitable[object]]
OnRecord: TypeAlias = Callable[[Any, TaskRecord, Fleet], Awaitable[object]]


class JobActs:
    """Carries out what is asked for all tasks of a job."""

    def __init__(
        self,
        state: StateManager,
        fleet: Callable[[], Awaitable[Fleet]],
        *,
        cancel: OnOne,
        prioritise: OnOne,
        retry: OnRecord,
        reroute: OnRecord,
    ) -> None:
        """The last four do their act on one task, given the command and the id; or its record, and the fleet."""
        self._state = state
        self._reader = state.reader
        self._fleet = fleet
        self._cancel, self._retry, self._reroute, self._prioritise = cancel, retry, reroute, prioritise

    @property
    def handlers(self) -> Iterable[tuple[type[Request[Any]], Callable[[Any, bytes], Awaitable[Any]]]]:
        """Which command is answered by what."""
        return (
            (Jobs, self.jobs),
            (ReportJob, self.report),
            (PauseJob, self.pause),
            (ResumeJob, self.resume),
            (CancelJob, self.cancel),
            (RetryJob, self.retry),
            (RerouteJob, self.reroute),
            (PrioritiseJob, self.prioritise),
            (NoteJob, self.note),
        )

    # ------------------------------------------------------------ looking

    async def jobs(self, ask: Jobs, sender: bytes = b"") -> JobsAnswer:
        """Jobs with their counts, and when they are likely to be done."""
        found = await self._reader.jobs(name=ask.name, limit=ask.limit, after=ask.after)
        unfinished = [job for job in found if job.unfinished][:_FORETOLD]
        etas = dict(
            zip((job.name for job in unfinished), await asyncio.gather(*map(self._eta, unfinished)), strict=True)
        )
        return JobsAnswer(jobs=tuple(job.model_copy(update={"eta": etas.get(job.name)}) for job in found))

    async def _eta(self, job: JobSummary) -> Eta | None:
        sample, rivals = await self._reader.job_outlook(job.name)
        others = max(0.0, rivals.own - job.left_s)  # the book has all that its user waits for, this job's too
        crew = crew_of(sample, await self._fleet(), now_ms=await self._state.now_ms())
        return job_eta(job, crew, replace(rivals, own=others))

    async def report(self, ask: ReportJob, sender: bytes = b"") -> ReportJobAnswer:
        (job,) = (await self.jobs(Jobs(name=ask.job))).jobs
        failed = job.counts.get(TaskStatus.FAILED, 0)
        causes = (await self._reader.dead(job=job.name)).causes if failed else ()
        return ReportJobAnswer(
            report=JobReport(
                name=job.name,
                done=job.counts.get(TaskStatus.COMPLETED, 0),
                unfinished=job.unfinished,
                cancelled=job.counts.get(TaskStatus.CANCELLED, 0),
                skipped=job.skipped,
                failed=causes,
                seconds=job.seconds,
                megapixels=job.megapixels,
                paused=job.paused,
                eta=job.eta,
            )
        )

    async def note(self, act: NoteJob, sender: bytes = b"") -> Done:
        if not await self._state.note_job(act.job, act.skipped):
            raise JobNotFound(act.job)
        return Done()

    # ------------------------------------------------------------ pausing

    async def pause(self, act: PauseJob, sender: bytes = b"") -> AsideAnswer:
        await self._state.pause_job(act.job, actor=act.actor, reason=act.reason, command=act.id)
        return await self._walk(act.job)

    async def resume(self, act: ResumeJob, sender: bytes = b"") -> AsideAnswer:
        await self._state.resume_job(act.job, actor=act.actor, reason=act.reason, command=act.id)
        return await self._walk(act.job)

    async def _walk(self, job: str, longest_s: float = _LONGEST_S) -> AsideAnswer:
        """Take the job's waiting tasks aside, or back, for a while; ``go_on`` does the rest."""
        moved, is_last, until = 0, False, time.monotonic() + longest_s
        while not is_last and time.monotonic() < until:
            more, is_last = await self._state.move_aside(job)
            moved += more
        return AsideAnswer(moved=moved, is_last=is_last)

    async def go_on(self) -> None:
        """A timed duty: what a command has begun and not ended, because it was long or its scheduler died."""
        walks = await self._reader.job_walks()
        for job in walks:
            await self._walk(job, _DUTY_S / len(walks))

    # ------------------------------------------------------------ acts on each task

    async def cancel(self, act: CancelJob, sender: bytes = b"") -> JobActAnswer:
        return await self._each(act, self._cancel, lambda status, code: status in _UNFINISHED)

    async def retry(self, act: RetryJob, sender: bytes = b"") -> JobActAnswer:
        def is_meant(status: str, code: str) -> bool:
            return status == TaskStatus.FAILED and act.cause in ("", code)

        return await self._each_record(act, self._retry, is_meant)

    async def reroute(self, act: RerouteJob, sender: bytes = b"") -> JobActAnswer:
        fleet = await self._fleet()
        if act.queue and fleet.queue(act.queue) is None:
            raise UnknownQueue(act.queue, [queue.name for queue in fleet.queues])
        if act.node and fleet.node(act.node) is None:
            raise NodeNotFound(act.node)
        if not act.queue and not act.node and act.labels is None:
            raise LcqError("reroute to where?", hint="name a queue, a node, or labels")
        return await self._each_record(act, self._reroute, lambda status, code: status in _UNFINISHED)

    async def prioritise(self, act: PrioritiseJob, sender: bytes = b"") -> JobActAnswer:
        return await self._each(act, self._prioritise, lambda status, code: status in _UNFINISHED)

    async def _each_record(self, act: Any, do: OnRecord, is_meant: Callable[[str, str], bool]) -> JobActAnswer:
        """``_each`` for what has to know the task and the fleet. Both are read once for all that is done at a time."""
        records: dict[str, TaskRecord] = {}
        fleet = await self._fleet()

        async def look(ids: Sequence[str]) -> None:
            nonlocal records, fleet
            records, fleet = await self._reader.tasks(ids), await self._fleet()

        async def one(act: Any, task_id: str) -> None:
            if task_id not in records:
                raise TaskNotFound(task_id)
            await do(act, records[task_id], fleet)

        return await self._each(act, one, is_meant, look)

    async def _each(
        self,
        act: Any,
        do: OnOne,
        is_meant: Callable[[str, str], bool],
        look: Callable[[Sequence[str]], Awaitable[None]] | None = None,
    ) -> JobActAnswer:
        """Do an act on each task of the job that is meant, from the oldest on, until it took long enough.

        What has come to its end since it was looked at is not meant any more, and no refusal. ``look`` is told what is
        done next. Each task is a script of its own, and few are sent at a time, so that nobody waits long for Redis.
        """
        (job,) = await self._reader.jobs(name=act.job)  # raises where there is none of that name
        refused: dict[str, Refusals] = {}
        after, until, seen = act.after, time.monotonic() + _LONGEST_S, 0
        is_late = False
        while not is_late:
            page = await self._reader.job_page(act.job, after=after, limit=_PIECE)
            places = {task_id: place for place, (task_id, _, _) in enumerate(page, 1)}
            ids = [task_id for task_id, status, code in page if is_meant(status, code)]
            looked_at = len(page)
            for start in range(0, len(ids), _AT_ONCE):
                some = ids[start : start + _AT_ONCE]
                if look is not None:
                    await look(some)
                for refusal in await asyncio.gather(*(self._one(act, do, task_id) for task_id in some)):
                    if refusal is not None:
                        known = refused.get(refusal.code)
                        count = known.count + 1 if known else 1
                        refused[refusal.code] = Refusals(count=count, example=known.example if known else refusal)
                is_late = time.monotonic() > until
                if is_late and start + _AT_ONCE < len(ids):
                    looked_at = places[some[-1]]
                    break
            seen += looked_at
            is_end = looked_at == len(page) < _PIECE
            after = "" if is_end else page[looked_at - 1][0]
            if is_end:
                break
            is_late = is_late or time.monotonic() > until
        done = await self._reader.done_by(act.id)
        return JobActAnswer(done=done, refused=tuple(refused.values()), after=after, seen=seen, total=job.total)

    @staticmethod
    async def _one(act: Any, do: OnOne, task_id: str) -> Refusal | None:
        try:
            await do(act, task_id)
        except StateUnavailable:
            raise  # the whole command is told again
        except _OVERTAKEN:
            return None
        except LcqError as error:
            return Refusal.of(task_id, error)
        return None

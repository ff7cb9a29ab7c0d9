"""What an operator can have a client do to tasks and jobs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, TypeAlias

from lcq.client.connection import Connection
from lcq.client.looking import listed
from lcq.errors import InvalidInput
from lcq.models import Privacy, TaskPriority
from lcq.wire import (
    MAX_BATCH,
    Acknowledge,
    AsideAnswer,
    BulkAnswer,
    Cancel,
    CancelJob,
    Comment,
    JobActAnswer,
    PauseJob,
    Prioritise,
    PrioritiseJob,
    Refusal,
    Refusals,
    Request,
    Reroute,
    RerouteJob,
    ResumeJob,
    Retry,
    RetryJob,
    SetDeadline,
    SetPrivacy,
    Undo,
)

_JOB_ACT_S = 5.0  # that a scheduler may take for one command on a whole job

OnProgress: TypeAlias = Callable[[JobActAnswer], None]
"""Is told how far an act on a whole job is: what was done, and refused, of the tasks that it has come past by then."""


class Steering(Connection):
    """The acts of a client on tasks and jobs."""

    async def cancel(self, ids: str | Iterable[str], *, revisions: Sequence[int] = (), reason: str = "") -> BulkAnswer:
        """Cancel tasks; a running attempt is told to stop. What has become of each is in the answer.

        ``revisions`` (one an id, optional) are what the caller saw: a task that has moved on is refused.
        """
        return await self._on_tasks(Cancel, ids, revisions, reason)

    async def retry(self, ids: str | Iterable[str], *, revisions: Sequence[int] = (), reason: str = "") -> BulkAnswer:
        """Put tasks that have come to an end back into their queue, their counts anew."""
        return await self._on_tasks(Retry, ids, revisions, reason)

    async def reroute(
        self,
        ids: str | Iterable[str],
        *,
        queue: str = "",
        node: str = "",
        labels: Mapping[str, str] | None = None,
        revisions: Sequence[int] = (),
        reason: str = "",
    ) -> BulkAnswer:
        """Move tasks to a queue, to one node, or to nodes with these labels. A running attempt is cancelled first.

        ``labels``: what the tasks require from now on, whatever they required before; ``{}``: any node will do.
        """
        return await self._on_tasks(Reroute, ids, revisions, reason, queue=queue, node=node, labels=labels)

    async def prioritise(
        self,
        ids: str | Iterable[str],
        priority: TaskPriority,
        *,
        revisions: Sequence[int] = (),
        reason: str = "",
    ) -> BulkAnswer:
        """Give tasks another priority."""
        return await self._on_tasks(Prioritise, ids, revisions, reason, priority=priority)

    async def set_deadline(
        self,
        ids: str | Iterable[str],
        deadline: datetime | None,
        *,
        revisions: Sequence[int] = (),
        reason: str = "",
    ) -> BulkAnswer:
        """Have tasks that have not ended done by another moment, with its time zone; None: no matter when.

        Raises:
            InvalidInput: the moment has no time zone.
        """
        if deadline is not None and deadline.tzinfo is None:
            raise InvalidInput(f"{deadline} has no time zone", hint="deadline.astimezone() takes it for this host's")
        done_by_ms = None if deadline is None else round(deadline.timestamp() * 1000)
        return await self._on_tasks(SetDeadline, ids, revisions, reason, done_by_ms=done_by_ms)

    async def set_privacy(
        self,
        ids: str | Iterable[str],
        privacy: Privacy,
        *,
        revisions: Sequence[int] = (),
        reason: str = "",
    ) -> BulkAnswer:
        """Let the pictures of tasks that have not ended leave the house from now on (functions of others may work on
        them where it would be late), or not any more. What a function works on is finished there all the same; its
        next attempt is one of the house."""
        return await self._on_tasks(SetPrivacy, ids, revisions, reason, privacy=privacy)

    async def comment(self, ids: str | Iterable[str], text: str) -> BulkAnswer:
        """Leave a note for people with tasks, of at most 500 characters; their state and revision stay as they are."""
        wanted = listed(ids)
        done: list[str] = []
        refused: list[Refusal] = []
        acts: list[str] = []
        for start in range(0, len(wanted), MAX_BATCH):
            request = Comment(ids=wanted[start : start + MAX_BATCH], text=text, actor=self.actor)
            answer = await self.ask(request)
            done += answer.done
            refused += answer.refused
            acts.append(request.id)
        return BulkAnswer(done=tuple(done), refused=tuple(refused), acts=tuple(acts))

    async def acknowledge(self, cause: str, text: str = "", *, note: str = "", withdraw: bool = False) -> str:
        """Tell others that the failures of this code, and with ``text`` in common (as ``dead`` answers it), are known.

        ``withdraw``: they are open again. Answers the command's id, for ``undo``.

        Raises:
            CauseNotFound: no task failed so, or nobody has acknowledged it.
        """
        command = Acknowledge(cause=cause, text=text, reason=note, withdraw=withdraw, actor=self.actor)
        await self.ask(command)
        return command.id

    async def undo(self, act: str, *, reason: str = "") -> BulkAnswer:
        """Take back what the command with the id ``act`` has done, exactly, where nothing has happened since.

        What has moved on, or was a running attempt, is refused one by one. ``BulkAnswer.acts`` and ``acts()`` have ids.

        Raises:
            NothingToUndo: it has done nothing that can be taken back, or more than 15 s ago.
        """
        return await self.ask(Undo(act=act, actor=self.actor, reason=reason))

    async def _on_tasks(
        self,
        command: type[Request[BulkAnswer]],
        ids: str | Iterable[str],
        revisions: Sequence[int],
        reason: str,
        **wish: object,
    ) -> BulkAnswer:
        wanted = listed(ids)
        if revisions and len(revisions) != len(wanted):
            raise InvalidInput(f"{len(wanted)} tasks need as many revisions, found {len(revisions)}")
        done: list[str] = []
        refused: list[Refusal] = []
        made: list[int] = []
        acts: list[str] = []
        for start in range(0, len(wanted), MAX_BATCH):
            piece = slice(start, start + MAX_BATCH)
            values: dict[str, Any] = {"ids": wanted[piece], "revisions": tuple(revisions[piece]), **wish}
            request = command(actor=self.actor, reason=reason, **values)
            answer = await self.ask(request)
            done += answer.done
            made += answer.revisions if len(answer.revisions) == len(answer.done) else [0] * len(answer.done)
            refused += answer.refused
            acts.append(request.id)
        return BulkAnswer(done=tuple(done), revisions=tuple(made), refused=tuple(refused), acts=tuple(acts))

    async def pause_job(self, job: str, *, reason: str = "") -> AsideAnswer:
        """Let no task of ``job`` start; running ones finish, and what is submitted for it waits."""
        return await self.ask(PauseJob(job=job, actor=self.actor, reason=reason), hold_s=_JOB_ACT_S)

    async def resume_job(self, job: str, *, reason: str = "") -> AsideAnswer:
        """Let the tasks of ``job`` wait in their old places again."""
        return await self.ask(ResumeJob(job=job, actor=self.actor, reason=reason), hold_s=_JOB_ACT_S)

    async def cancel_job(self, job: str, *, reason: str = "", on_progress: OnProgress | None = None) -> JobActAnswer:
        """Cancel those tasks of ``job`` that have not ended. The answer counts them.

        Of a large job that takes many commands, of a few seconds each; ``on_progress`` is told after each of them.
        """
        return await self._on_job(
            lambda after: CancelJob(job=job, after=after, actor=self.actor, reason=reason), on_progress
        )

    async def retry_job(
        self, job: str, *, cause: str = "", reason: str = "", on_progress: OnProgress | None = None
    ) -> JobActAnswer:
        """Put those tasks of ``job`` that failed (of the code ``cause``) back into their queues."""
        return await self._on_job(
            lambda after: RetryJob(job=job, cause=cause, after=after, actor=self.actor, reason=reason), on_progress
        )

    async def reroute_job(
        self,
        job: str,
        *,
        queue: str = "",
        node: str = "",
        labels: Mapping[str, str] | None = None,
        reason: str = "",
        on_progress: OnProgress | None = None,
    ) -> JobActAnswer:
        """Move those tasks of ``job`` that have not ended, as ``reroute`` does."""
        wanted = None if labels is None else dict(labels)
        return await self._on_job(
            lambda after: RerouteJob(
                job=job, queue=queue, node=node, labels=wanted, after=after, actor=self.actor, reason=reason
            ),
            on_progress,
        )

    async def prioritise_job(
        self, job: str, priority: TaskPriority, *, reason: str = "", on_progress: OnProgress | None = None
    ) -> JobActAnswer:
        """Give those tasks of ``job`` that have not ended another priority."""
        return await self._on_job(
            lambda after: PrioritiseJob(job=job, priority=priority, after=after, actor=self.actor, reason=reason),
            on_progress,
        )

    async def _on_job(
        self, command: Callable[[str], Request[JobActAnswer]], on_progress: OnProgress | None
    ) -> JobActAnswer:
        """Ask for an act on a whole job, a command after the other, and sum up what they say."""
        done, seen, after = 0, 0, ""
        refused: dict[str, Refusals] = {}
        while True:
            answer = await self.ask(command(after), hold_s=_JOB_ACT_S)
            done += answer.done
            for one in answer.refused:
                known = refused.get(one.example.code)
                refused[one.example.code] = Refusals(
                    count=one.count + (known.count if known else 0), example=known.example if known else one.example
                )
            seen += answer.seen
            after = answer.after
            told = JobActAnswer(done=done, refused=tuple(refused.values()), after=after, seen=seen, total=answer.total)
            if on_progress is not None:
                on_progress(told)
            if not after:
                return told

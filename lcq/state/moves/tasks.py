"""The moves of tasks that clients and operators ask for."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from lcq.costs import precision_of, processed_megapixels
from lcq.errors import (
    IdempotencyConflict,
    QueueFull,
    StateOverloaded,
    TaskNotFound,
    TooManyRequirements,
    TooSoon,
    TransitionRefused,
)
from lcq.labels import told_labels
from lcq.models import Task, TaskPriority, TaskStatus
from lcq.moves import starts_of
from lcq.routing import Route
from lcq.state import records
from lcq.state.moves.mover import Mover
from lcq.state.scripts import MOST_LABELLED_LANES
from lcq.wire import Accepted


@dataclass(frozen=True)
class Ended:
    """A running attempt that an operator's move ended: its runner is to be stopped on ``node``."""

    task_id: str
    node: str
    attempt: int
    revision: int = 0  # of the task, after the move; 0: an older scheduler has made it, and it is not known


class TaskMoves(Mover):
    """What clients and operators ask for."""

    async def submit_task(
        self,
        task: Task,
        *,
        queue: str,
        node: str = "",
        key: str = "",
        cost_s: float = 1.0,
        due_ms: int = 0,
        why: str = "",
        forced: bool = False,
        vram_mib: int = 0,
        size: tuple[int, int] | None = None,
        interactive: bool = False,
    ) -> Accepted:
        """Take a task in; when this returns, it is Redis's.

        ``key`` is the idempotency key (default: the task's id): a second submit with it finds the first task.
        ``forced``: the submitter chose the queue, so that routing leaves the task there. ``vram_mib``: what it is
        predicted to need of a GPU's memory (0: not known). ``size``: width and height of its image, where known.
        ``interactive``: somebody waits for it; for a while slots are kept for such.

        Raises:
            IdempotencyConflict: the key belongs to a task that asks for something else.
            TooManyRequirements: too many different ones wait already.
            QueueFull: as many wait in the queue as may.
            TooSoon: the user has submitted as many in the last minute as it may.
            StateOverloaded: Redis is full.
            UnsafeState: it has been set so that it may lose data.
        """
        if self.watch.risk is not None:
            raise self.watch.risk
        text = task.to_json()
        digest = records.digest_of(text)
        quotas = self.config.quotas
        most, per_minute = quotas.most_queued(queue), quotas.most_per_minute(task.user_id)
        try:
            answer = await self._move(
                "submit_task", task.id, text, digest, key or task.id, queue, node, task.model, task.priority,
                task.user_id, task.job or "", task.max_retries, cost_s, due_ms, task.source, why, int(forced),
                task.lane, vram_mib, self.config.shares.of(task.user_id), most, int(quotas.displace), per_minute,
                "" if size is None else f"{size[0]}x{size[1]}",
                "" if size is None else f"{processed_megapixels(task, size):.6f}", precision_of(task),
                int(self.config.http.interactive_s * 1000) if interactive else 0, task.deadline_ms or "",
            )  # fmt: skip
        except StateOverloaded as full:
            self.watch.refused_task(full)
            raise
        self.watch.took_task()
        if answer[0] == "conflict":
            raise IdempotencyConflict(key or task.id, answer[1])
        if answer[0] == "too_many_labelled":
            raise TooManyRequirements(told_labels(task.requires), MOST_LABELLED_LANES)
        if answer[0] == "full":
            urgent = quotas.displace and task.priority is TaskPriority.URGENT
            raise QueueFull(queue, int(answer[1]), most, displaces=urgent)
        if answer[0] == "too_soon":
            raise TooSoon(task.user_id, per_minute, int(answer[1]) / 1000)
        await self._until_kept()  # also of one that was known: whoever asks again may ask because it failed here
        return Accepted(
            id=answer[1],
            status=TaskStatus(answer[2]),
            queue=answer[3],
            duplicate=answer[0] == "duplicate",
            why=why,
        )

    async def cancel_task(
        self, task_id: str, *, why: str = "", revision: int | None = None, command: str = ""
    ) -> Ended:
        """``command``: the id of the command that asks for it; a second time with that id is told as the first.

        Raises:
        TaskNotFound, TransitionRefused: it is finished, or has changed since ``revision``.
        """
        answer = await self._move("cancel_task", task_id, why, "" if revision is None else revision, command=command)
        self._refuse("cancel_task", task_id, answer)
        return Ended(task_id, answer[1], int(answer[2]), _revision(answer, 3))

    async def retry_task(
        self, task_id: str, *, queue: str, why: str = "", revision: int | None = None, command: str = ""
    ) -> int:
        """Put a finished task into ``queue`` anew. Answers its revision then. ``command``: as for ``cancel_task``.

        Raises:
            TaskNotFound, TransitionRefused: it is not finished, or has changed since ``revision``.
        """
        seen = "" if revision is None else revision
        answer = await self._move("retry_task", task_id, why, seen, queue, command=command)
        self._refuse("retry_task", task_id, answer)
        return _revision(answer, 1)

    async def reroute_task(
        self,
        task_id: str,
        *,
        queue: str,
        node: str = "",
        why: str = "",
        revision: int | None = None,
        forced: bool = True,
        asked: Task | None = None,
        cost_s: float | None = None,
        command: str = "",
    ) -> Ended:
        """Put a task into ``queue``, for ``node`` alone if one is named; a running attempt is ended.

        ``asked``: the task with the labels that it requires from now on; None: those it required before. ``cost_s``:
        the seconds of work that it is predicted to be there; None: as many as before.
        ``command``: as for ``cancel_task``.

        Raises:
            TaskNotFound, TransitionRefused: it is completed, or has changed since ``revision``.
            TooManyRequirements: too many different ones wait already.
        """
        seen = "" if revision is None else revision
        requires = "" if asked is None else json.dumps(dict(asked.requires))
        lane = "" if asked is None else asked.lane
        answer = await self._move(
            "reroute_task", task_id, why, seen, queue, node, int(forced), requires, lane,
            "" if cost_s is None else cost_s, command=command,
        )  # fmt: skip
        self._refuse("reroute_task", task_id, answer)
        if answer[0] == "too_many_labelled":
            raise TooManyRequirements(told_labels(asked.requires) if asked else "labels", MOST_LABELLED_LANES)
        return Ended(task_id, answer[1], int(answer[2]), _revision(answer, 3))

    async def prioritise_task(
        self, task_id: str, *, priority: TaskPriority, why: str = "", revision: int | None = None, command: str = ""
    ) -> int:
        """Answers the task's revision then. ``command``: as for ``cancel_task``.

        Raises:
        TaskNotFound, TransitionRefused: it is finished, or has changed since ``revision``.
        """
        seen = "" if revision is None else revision
        answer = await self._move("prioritise_task", task_id, why, seen, priority, command=command)
        self._refuse("prioritise_task", task_id, answer)
        return _revision(answer, 1)

    async def set_deadline(self, asked: Task, *, revision: int, why: str = "", command: str = "") -> int:
        """Let a task be done by the deadline that ``asked`` has, which is in all else the task at ``revision``.

        Answers the task's revision then. ``command``: as for ``cancel_task``.

        Raises:
        TaskNotFound, TransitionRefused: it is finished, or has changed since ``revision``.
        """
        done_by = asked.deadline_ms or ""
        text = asked.to_json()
        told = (asked.id, why, revision, text, done_by, records.digest_of(text))
        answer = await self._move("set_deadline", *told, command=command)
        self._refuse("set_deadline", asked.id, answer)
        return _revision(answer, 1)

    async def set_privacy(
        self, asked: Task, *, revision: int, home: Route | None = None, why: str = "", command: str = ""
    ) -> int:
        """Let a task's pictures leave the house, or not, as ``asked`` says, which is in all else the task at
        ``revision``.

        ``home``: where it waits from now on, if it waits; None: where it does. Answers the task's revision then.
        ``command``: as for ``cancel_task``.

        Raises:
        TaskNotFound, TransitionRefused: it is finished, or has changed since ``revision``.
        """
        text = asked.to_json()
        queue, cost_s = ("", "") if home is None else (home.queue, home.seconds)
        told = (asked.id, why, revision, text, records.digest_of(text), asked.privacy, queue, cost_s)
        answer = await self._move("set_privacy", *told, command=command)
        self._refuse("set_privacy", asked.id, answer)
        return _revision(answer, 1)

    def _refuse(self, move: str, task_id: str, answer: list[Any]) -> None:
        """Raise what a script's refusal means; a caller who forgets to look must not go on."""
        verdict = answer[0]
        if verdict == "missing":
            raise TaskNotFound(task_id)
        if verdict == "refused":
            legal = " or ".join(starts_of(move))
            raise TransitionRefused(move, f"task {task_id}", answer[1], hint=f"only what is {legal} can be")
        if verdict == "moved_on":
            raise TransitionRefused(
                move, f"task {task_id}", answer[1], hint="it has changed since you looked; look again"
            )


def _revision(answer: list[Any], place: int) -> int:
    """The revision that a move has made; 0 where an older scheduler has, whose answer is told once more."""
    return int(answer[place]) if len(answer) > place else 0

"""How a client gives tasks to a cluster, and gives them again when a failover of Redis has lost them."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby

from lcq import tracing
from lcq.client.looking import Looking, pieces
from lcq.errors import InvalidInput, TaskNotFound
from lcq.image_size import Size, read_sizes
from lcq.models import Task, TaskRecord
from lcq.wire import MAX_BATCH, Accepted, Foresee, ForeseeAnswer, GetTasks, Refusal, Submit, SubmitAnswer

log = logging.getLogger(__name__)

_KEPT = 20_000  # tasks that a client can submit again, the newest
_KEPT_S = 3600.0  # and for how long: what a failover of Redis loses was submitted seconds before it


@dataclass(frozen=True)
class _Submitted:
    """A task as it was given to the cluster, to be given again if a failover of Redis lost it."""

    task: Task
    key: str
    queue: str
    node: str
    at: float


class Submissions:
    """The tasks that a client has submitted lately and has not seen end, by id."""

    def __init__(self) -> None:
        self._kept: OrderedDict[str, _Submitted] = OrderedDict()

    def __contains__(self, task_id: str) -> bool:
        return task_id in self._kept

    def __getitem__(self, task_id: str) -> _Submitted:
        """Raises:
        TaskNotFound: this client has not submitted it, or not lately.
        """
        given = self._kept.get(task_id)
        if given is None or time.monotonic() - given.at > _KEPT_S:
            raise TaskNotFound(task_id)
        return given

    def remember(self, answer: SubmitAnswer, tasks: Sequence[Task], keys: Sequence[str], queue: str, node: str) -> None:
        """Keep those of ``tasks``, submitted under ``keys`` (default: their ids), that ``answer`` says are accepted."""
        now = time.monotonic()
        refused = {refusal.id for refusal in answer.refused}
        named = [(task, key) for task, key in zip(tasks, keys or [task.id for task in tasks], strict=True)]
        taken = [(task, key) for task, key in named if task.id not in refused]
        for accepted, (task, key) in zip(answer.accepted, taken, strict=False):
            # Where the key was known already, the task goes by the id it had then.
            again = task if task.id == accepted.id else task.model_copy(update={"id": accepted.id})
            self._kept[accepted.id] = _Submitted(again, key, queue, node, now)
            self._kept.move_to_end(accepted.id)
        while self._kept and (len(self._kept) > _KEPT or now - next(iter(self._kept.values())).at > _KEPT_S):
            self._kept.popitem(last=False)

    def forget(self, task_id: str) -> None:
        """Its end has been seen: it is not to be submitted again, whatever becomes of its record."""
        self._kept.pop(task_id, None)


class Submitting(Looking):
    """How a client gives tasks away, and sees to it that the cluster has them."""

    _submissions: Submissions

    async def submit(
        self, task: Task, *, queue: str = "", node: str = "", key: str | None = None, reason: str = ""
    ) -> Accepted:
        """Give one task to the cluster; when this returns it is stored for good.

        ``queue`` and ``node`` override routing. ``key`` (default: the task's id) makes submitting safe to
        repeat: the same key answers with the same task.

        Raises:
            InvalidInput, StateOverloaded, IdempotencyConflict: why the task was refused.
        """
        keys = (key,) if key is not None else ()
        answer = await self.submit_many([task], queue=queue, node=node, keys=keys, reason=reason)
        if answer.refused:
            raise answer.refused[0].error()
        return answer.accepted[0]

    async def submit_many(
        self,
        tasks: Iterable[Task],
        *,
        queue: str = "",
        node: str = "",
        keys: Sequence[str] = (),
        reason: str = "",
    ) -> SubmitAnswer:
        """Give many tasks to the cluster, each accepted or refused by itself, in the order given.

        Raises:
            InvalidInput: ``keys`` are given, but not one a task.
        """
        wanted = tuple(tasks)
        if keys and len(keys) != len(wanted):
            raise InvalidInput(f"{len(wanted)} tasks need as many keys, found {len(keys)}")
        begun_ns = time.time_ns()
        accepted: list[Accepted] = []
        refused: list[Refusal] = []
        for start in range(0, len(wanted), MAX_BATCH):
            piece = slice(start, start + MAX_BATCH)
            answer = await self.ask(
                Submit(
                    tasks=wanted[piece],
                    keys=tuple(keys[piece]),
                    sizes=await asyncio.to_thread(_sizes, wanted[piece]),
                    queue=queue,
                    node=node,
                    actor=self.actor,
                    reason=reason,
                )
            )
            accepted += answer.accepted
            refused += answer.refused
            self._submissions.remember(answer, wanted[piece], keys[piece], queue, node)
        if tracing.active is not None:
            whys = {one.id: f"{one.code}: {one.message}" for one in refused}
            for task in wanted:
                facts = {"actor": self.actor}
                tracing.active.tell("submit", task, begun_ns=begun_ns, error=whys.get(task.id, ""), facts=facts)
        return SubmitAnswer(accepted=tuple(accepted), refused=tuple(refused))

    async def foresee(self, tasks: Sequence[Task], *, queue: str = "", node: str = "") -> ForeseeAnswer:
        """Where these tasks would go, and when they would be done, if they were submitted now. Nothing is submitted.

        Of more than one command holds, as many as it does are asked about, and stand for the rest.

        Raises:
            UnknownCommand: this scheduler is older and cannot say.
        """
        step = max(1, -(-len(tasks) // MAX_BATCH))
        some = tuple(tasks[::step])
        return await self.ask(
            Foresee(
                tasks=some,
                sizes=await asyncio.to_thread(_sizes, some),
                queue=queue,
                node=node,
                each_stands_for=len(tasks) / len(some),
            )
        )

    async def _submit_lost(self, ids: Iterable[str]) -> None:
        """Give those of ``ids`` that the cluster does not know any more to it again, as they were, under their keys.

        Raises:
            TaskNotFound: one is not there that this client has not submitted, or not lately.
            LcqError: one is refused now.
        """
        lost: list[str] = []
        for piece in pieces(tuple(ids)):
            lost += (await self.ask(GetTasks(ids=tuple(piece)))).missing
        given_before = [self._submissions[task_id] for task_id in lost]
        log.warning("%d tasks are unknown to the cluster, as Redis has lost them: submitting them again", len(lost))
        to_where = groupby(given_before, lambda given: (given.queue, given.node))
        for (queue, node), group in to_where:
            again = list(group)
            answer = await self.submit_many(
                [given.task for given in again],
                queue=queue,
                node=node,
                keys=[given.key for given in again],
                reason="lost by a failover of Redis",
            )
            for refusal in answer.refused:
                raise refusal.error()

    async def _found(self, ids: Sequence[str]) -> list[TaskRecord]:
        """The tasks of ``ids``; those of them that a failover of Redis lost are submitted again first.

        Raises:
            TaskNotFound: one is not there that this client has not submitted.
        """
        while True:
            try:
                return await self.get_many(ids)
            except TaskNotFound as unknown:
                if unknown.task_id not in self._submissions:
                    raise
            await self._submit_lost(ids)


def _sizes(tasks: Sequence[Task]) -> tuple[Size | None, ...]:
    """How large the images are, as far as this host can see them: the cluster predicts by it."""
    return tuple(read_sizes(task.image_path if task.image_path.startswith("/") else "" for task in tasks))

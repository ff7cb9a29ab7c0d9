"""The moves of attempts: what nodes claim, finish, fail and give back."""

from __future__ import annotations

import json
import logging
import random
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from lcq import tracing
from lcq.config import DistributedConfig
from lcq.errors import StaleBoot, TaskNotFound, TransitionRefused
from lcq.health import DEPENDENCY_DOWN, NO_RETRY_LOST, is_too_much, may_blame
from lcq.models import DeviceKind, ErrorClass, Failure, TaskResult, TaskStatus
from lcq.placement import Patience
from lcq.routing import CALL_TOO_LARGE, OUT_OF_MEMORY, EaseStep, Route
from lcq.slow import Took
from lcq.spend import bill_of, millionths
from lcq.state import records
from lcq.state.moves.mover import Mover
from lcq.wire import Grant

_log = logging.getLogger(__name__)
_LOOKS = 64  # at a lane's head, for what is no task of a user who has as much running as it may


@dataclass(frozen=True)
class Rule:
    """What a class of failure does to its task."""

    retry: bool
    death: bool = False  # counts towards poison: it brought a runner down
    avoid: bool = False  # the next attempt runs elsewhere, where there is an elsewhere
    at_once: bool = False  # no back-off: it was not the world's fault


RULES: Mapping[ErrorClass, Rule] = {
    ErrorClass.BAD_INPUT: Rule(retry=False),
    ErrorClass.RESOURCE: Rule(retry=True, avoid=True),
    ErrorClass.TRANSIENT: Rule(retry=True, avoid=True),
    ErrorClass.CRASH: Rule(retry=True, death=True, avoid=True, at_once=True),
    ErrorClass.BAD_OUTPUT: Rule(retry=True, avoid=True, at_once=True),
}


@dataclass(frozen=True)
class Retaken:
    """The right to put a late result in its place, and to tell it as attempt ``attempt``, for ``lease_ms``."""

    attempt: int
    lease_ms: int


class AttemptMoves(Mover):
    """What nodes do."""

    async def claim_tasks(
        self,
        *,
        node: str,
        boot: str,
        device: str,
        kind: DeviceKind,
        slots: int,
        lanes: Iterable[str],
        queues: Iterable[str],
        warm: Iterable[str] = (),
        fits_mib: int | None = None,
        needs_mib: Mapping[str, int] | None = None,
        learned_mib: Mapping[str, int] | None = None,
        lease_ms: int | None = None,
        via: str = "",
        costs: str = "",
        patience: Patience | None = None,
        most_others: int | None = None,
        worst_price: float = 0.0,
        on_held: Callable[[], None] = lambda: None,
    ) -> tuple[Grant, ...]:
        """Lease up to ``slots`` tasks to one device; none if there are none, or if the node takes no work.

        ``lanes``: what the device can do. ``warm``: models loaded there; they need less. Together the grants need
        at most ``fits_mib`` of its memory (None: no limit), by the prediction that came with each task or, where
        it has the lane, by ``needs_mib``: what the node's own engine says; and no less than ``learned_mib``,
        by lane. A task that does not fit keeps its place.
        ``via``: the scheduler that asks for the node. ``costs``: what work takes there (``lcq.costs.curves_as_json``),
        so that each attempt's record says what was predicted. By ``patience`` tasks are left for faster devices;
        ``on_held`` is called where some were. ``most_others``: how many of a lower priority than high that device may
        have then (None: no limit); its other slots are kept for people who wait. ``worst_price``: what an attempt there
        costs at most; where that is something, or the device is a function, only tasks that may leave the house are
        granted, as many as the budget allows.

        Raises:
            StaleBoot: the node is not registered with this boot id, or has gone to another scheduler since.
        """
        lease = int(self.config.leases.lease_s * 1000) if lease_ms is None else lease_ms
        asked_ns = time.time_ns()
        needs = {"told": dict(needs_mib or {}), "learned": dict(learned_mib or {})}
        told = (
            node, boot, device, slots, lease,
            json.dumps(sorted(lanes)), json.dumps(sorted(warm)), json.dumps(list(queues)),
            kind, "" if fits_mib is None else fits_mib, json.dumps(needs),
            via, most_in_flight(self.config), costs, json.dumps(patience) if patience else "",
            "" if most_others is None else most_others,
            json.dumps(bill_of(self.config.serverless.budget, worst_price)) if kind is DeviceKind.SERVERLESS else "",
        )  # fmt: skip
        answer = await self._move("claim_tasks", *told)
        for _ in range(_LOOKS):
            if answer[0] != "more":
                break
            answer = await self._move("claim_tasks", *told)
        else:
            return ()
        if answer[0] == "stale":
            raise StaleBoot(node)
        if answer[0] == "refused":
            return ()
        if answer[0] == "held":
            on_held()
        rest = answer[1:]
        grants = []
        for task_id, number, steps, digest, text, queue, waited_ms in zip(
            *(rest[part::7] for part in range(7)), strict=True
        ):
            self.measures.task_wait.note(int(waited_ms) / 1000, queue)
            try:
                task, eased = records.granted_task(task_id, text, digest), records.steps(steps)
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                await self.isolate_task(task_id, found=records.told_damage(error))
                continue
            grants.append(Grant(task=task, attempt=int(number), device=device, lease_ms=lease, eased=eased))
            if tracing.active is not None:
                _tell_claim(tracing.active, grants[-1], node, queue, asked_ns, int(waited_ms))
        return tuple(grants)

    async def finish_task(
        self, task_id: str, *, attempt: int, node: str, result: TaskResult, peak_mib: int = 0, device_peak_mib: int = 0
    ) -> Took | None:
        """Commit a result. Telling it twice is harmless; a late one counts if no newer attempt has committed.

        Answers what it took where that can be compared with what others take.

        Raises:
            TaskNotFound, TransitionRefused: the attempt is no longer the task's; nothing was changed.
        """
        answer = await self._move(
            "finish_task", task_id, attempt, node, result.model_dump_json(), peak_mib, device_peak_mib
        )
        self._settle("finish_task", task_id, attempt, answer)
        await self._until_kept()
        if answer[0] == "ok":
            self._note_finished(*answer[5:])
        if answer[0] != "ok" or not answer[4]:
            return None
        return Took(device=answer[2], cost=answer[3], megapixels=float(answer[4]), seconds=float(answer[5]))

    def _note_finished(self, worked_s: str, queue: str, attempt_ms: str, task_ms: str) -> None:
        self.measures.attempt_run.note(float(worked_s), queue)
        self.measures.attempt.note(float(attempt_ms) / 1000, queue)
        self.measures.task_done.note(float(task_ms) / 1000, queue)

    async def retake_task(self, task_id: str, *, attempt: int, node: str, boot: str) -> Retaken:
        """A node has the result of an attempt that was taken back from it: where it counts, the task is its own again.

        Telling it twice is harmless.

        Raises:
            TaskNotFound, TransitionRefused: that result does not count any more; nothing was changed.
            StaleBoot: a newer boot has this node's name.
        """
        lease_ms = int(self.config.leases.lease_s * 1000)
        answer = await self._move("retake_task", task_id, attempt, node, boot, lease_ms)
        if answer[0] == "stale":
            raise StaleBoot(node)
        if answer[0] == "refused":
            answer = ["fenced", *answer[1:]]  # told as one that finishes would be
        self._settle("retake_task", task_id, attempt, answer)
        return Retaken(attempt=int(answer[1]), lease_ms=int(answer[2]))

    async def fail_task(
        self,
        task_id: str,
        *,
        attempt: int,
        node: str,
        failure: Failure,
        easier: EaseStep | None = None,
        home: Route | None = None,
        cost: float | None = None,
        log: str = "",
        peak_mib: int = 0,
        device_peak_mib: int = 0,
    ) -> bool:
        """End an attempt without a result; the class of the failure decides what becomes of the task.

        With ``easier``, that step decides it: the task is queued at once where the step says, and loses no retry.
        With ``home``, a retry is made there: a function has failed it, and the house can do it.
        ``cost``: what a function was paid all the same; None: what the failure's code says of that counts.
        ``log``: what the runner wrote last. Answers whether the node has failed so much that it is to be judged.

        Raises:
            TaskNotFound, TransitionRefused: the attempt is no longer the task's; nothing was changed.
        """
        rule = RULES[failure.error_class]
        retries = self.config.retries
        terms: dict[str, object] = {
            "retry": rule.retry,
            "death": rule.death,
            "avoid": rule.avoid,
            "base_ms": 0 if rule.at_once else int(retries.base_s * 1000),
            "cap_ms": int(retries.max_s * 1000),
            "random": random.random(),
            "peak_mib": peak_mib,
            "device_peak_mib": device_peak_mib,
            "is_short": failure.code == OUT_OF_MEMORY,
            "blame": self.config.quarantine.enabled and may_blame(failure),
            "away": failure.code in DEPENDENCY_DOWN,
            "free": failure.code in NO_RETRY_LOST or (home is not None and failure.code == CALL_TOO_LARGE),
            "budget": {
                "per_minute": retries.per_minute,
                "per_cause_per_minute": retries.per_cause_per_minute,
                "share": retries.share,
                "longest_ms": int(retries.longest_wait_s * 1000),
                "random": random.random(),
            },
        }
        if easier is not None:
            terms |= {"ease": easier.ease, "queue": easier.queue, "avoid": easier.avoid}
        if cost is not None:
            terms["paid"] = millionths(cost)
        if home is not None:
            terms |= {"home": home.queue, "home_cost": home.seconds}
        answer = await self._move(
            "fail_task", task_id, attempt, node, failure.model_dump_json(), json.dumps(terms), log
        )
        self._settle("fail_task", task_id, attempt, answer)
        if answer[0] == "ok":
            outcome = "failed" if answer[1] == TaskStatus.FAILED else "retried"
            self.measures.attempts_failed.note(failure.error_class, outcome)
        return answer[0] == "ok" and is_too_much(
            float(answer[2]), self.config.quarantine, on_probation=answer[3] == "1"
        )

    async def release_task(self, task_id: str, *, attempt: int, node: str, cost: float | None = None) -> None:
        """A node gives an attempt back unfinished; that costs the task no retry. ``cost``: what was paid for it at a
        function, which is nothing where it had not begun; None: nobody knows.

        Raises:
            TaskNotFound, TransitionRefused: the attempt is no longer the task's; nothing was changed.
        """
        answer = await self._move("release_task", task_id, attempt, node, "" if cost is None else millionths(cost))
        self._settle("release_task", task_id, attempt, answer)

    def _settle(self, move: str, task_id: str, attempt: int, answer: list[Any]) -> None:
        if answer[0] == "missing":
            raise TaskNotFound(task_id)
        if answer[0] == "fenced":
            raise TransitionRefused(
                move,
                f"attempt {attempt} of task {task_id}",
                answer[1],
                hint="another attempt or an operator was first",
            )

    async def isolate_task(self, task_id: str, *, found: str) -> None:
        """Fail a task whose record is not what was written, and keep it; one that has ended stays as it was."""
        _log.error("the record of task %s is damaged, the task is isolated: %s", task_id, found)
        await self._move("isolate_task", task_id, found)


def _tell_claim(tracer: tracing.Tracer, grant: Grant, node: str, queue: str, asked_ns: int, waited_ms: int) -> None:
    task, attempt, now_ns = grant.task, grant.attempt, time.time_ns()
    queued_ns = now_ns - 1_000_000 * waited_ms
    tracer.tell("queued", task, attempt=attempt, begun_ns=queued_ns, ended_ns=now_ns, facts={"queue": queue})
    facts: dict[str, str | float] = {"node": node, "device": grant.device, "queue": queue}
    tracer.claimed(task, attempt, begun_ns=asked_ns, facts=facts)


def most_in_flight(config: DistributedConfig) -> str:
    """How many tasks of a user may run at a time, as scripts read it."""
    most = config.quotas.most_in_flight
    return "" if most is None else json.dumps(most)

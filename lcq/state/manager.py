"""StateManager: the only writer of Redis. One method a move, each one Lua script, all or nothing."""

from __future__ import annotations

import asyncio
import json
import logging
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import timedelta
from types import TracebackType
from typing import Any, Self

from redis import exceptions as redis_errors

from lcq import failpoints
from lcq.config import DistributedConfig
from lcq.costs import precision_of, processed_megapixels
from lcq.errors import (
    DeviceNotFound,
    IdempotencyConflict,
    JobNotFound,
    NodeNameTaken,
    NodeNotFound,
    QueueFull,
    StaleBoot,
    StateFormatMismatch,
    StateOverloaded,
    StateUnavailable,
    TaskNotFound,
    TooManyRequirements,
    TooSoon,
    TransitionRefused,
    without_password,
)
from lcq.health import DEPENDENCY_DOWN, is_too_much, may_blame
from lcq.ids import new_id
from lcq.labels import told_labels
from lcq.models import (
    DeviceKind,
    DeviceReading,
    ErrorClass,
    Failure,
    NodeCapability,
    NodeStatus,
    Skips,
    Task,
    TaskPriority,
    TaskResult,
    TaskStatus,
)
from lcq.moves import starts_of
from lcq.placement import Patience
from lcq.routing import EaseStep
from lcq.state import records
from lcq.state.connection import check_server, connect, our_errors, ours
from lcq.state.disk_log import DiskLog
from lcq.state.feed import Feed
from lcq.state.reader import StateReader
from lcq.state.scripts import ANSWERS_KEPT, MOST_LABELLED_LANES, STATE_FORMAT, Scripts
from lcq.state.watch import Failover, ServerWatch
from lcq.wire import Accepted, Grant, Orders, Running

_log = logging.getLogger(__name__)
_BATCH = 128  # scripts in one pipeline: enough to share a round trip, few enough to let readers in between
_ACTS_KEPT = 100_000
_LIMIT = 200  # tasks that one timed duty moves in one script: it must never hold the server for long
_ASIDE = 50  # fewer too: each leaves a lane, its line and the books
_LAPSES = 100  # fewer where each takes more
_LOOKS = 64  # at a lane's head, for what is no task of a user who has as much running as it may
_BATCHES = 25  # of these, one after another while there is more to do: other scripts run in between


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
class Ended:
    """A running attempt that an operator's move ended: its runner is to be stopped on ``node``."""

    task_id: str
    node: str
    attempt: int


@dataclass(frozen=True)
class Welcome:
    """What a node is told at its hello: ``serves`` is what its devices serve, by device."""

    status: NodeStatus
    serves: Mapping[str, tuple[str, ...]]
    orders: Orders


@dataclass(frozen=True)
class Heard:
    """What a beat is answered. ``probed``: devices in quarantine that are to be probed when their time has come."""

    status: NodeStatus
    lost: tuple[Running, ...]
    orders: Orders
    probed: tuple[str, ...]
    now_ms: int


class StateManager:
    """Owns Redis for writing. ``async with StateManager(config, url=…) as state``.

    Calls made at the same time share one pipeline. Every method raises ``StateUnavailable`` while Redis does
    not answer; then the move may or may not have been made, and asking again is safe.
    """

    def __init__(self, config: DistributedConfig | None = None, *, url: str | None = None) -> None:
        self.config = config or DistributedConfig()
        self.url = url or self.config.redis.address
        self.reader = StateReader(self.url, namespace=self.config.redis.namespace, queues=self.config.queues)
        self.keys = self.reader.keys
        self.feed = Feed(self.reader)
        self.server_version = ""
        self._scripts = Scripts(self.config)
        self._redis = connect(self.url)
        self._disk_log: DiskLog | None = None
        if self.config.redis.durability == "fsync":
            self._disk_log = DiskLog(self.url, self._redis, self.keys.synced)
        self.watch = ServerWatch(
            self.url, self._redis, self.reader.clients, unsafe=self.config.redis.unsafe, noted=self._note_failover
        )
        self._asked: list[tuple[str, Sequence[Any], asyncio.Future[list[Any]]]] = []
        self._something_asked = asyncio.Event()
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        """Raises:
        StateUnavailable: the server does not answer.
        UnsafeState: the server may lose data, and the configuration does not accept that.
        StateFormatMismatch: a newer LCQ has written what is there.
        """
        async with AsyncExitStack() as stack:
            stack.push_async_callback(self._redis.aclose)
            await stack.enter_async_context(self.reader)
            self.server_version = await check_server(self._redis, self.url, unsafe=self.config.redis.unsafe)
            if self._disk_log is not None:
                await self._disk_log.check()
            await self._load_scripts()
            await self._adopt()
            group = await stack.enter_async_context(asyncio.TaskGroup())
            pump = group.create_task(self._pump(), name="state pump")
            stack.callback(pump.cancel)
            stack.callback(group.create_task(self.watch.run(), name="server watch").cancel)
            if self._disk_log is not None:
                stack.callback(group.create_task(self._disk_log.run(), name="disk log").cancel)
            await stack.enter_async_context(self.feed)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    async def _adopt(self) -> None:
        (answer,) = await self._run([("adopt_state", [1, self.keys.root], None)])
        if isinstance(answer, Exception):
            raise answer
        had = answer[1]
        if answer[0] == "other_format":
            raise StateFormatMismatch(self.url, had, STATE_FORMAT)
        if had != str(STATE_FORMAT):
            _log.info(
                "the state at %s is of format %d now, was %s", without_password(self.url), STATE_FORMAT, had or "new"
            )

    # ------------------------------------------------------------ how moves travel

    async def _load_scripts(self) -> None:
        async with our_errors(self.url):
            pipe = self._redis.pipeline(transaction=False)
            for text in self._scripts.texts.values():
                pipe.script_load(text)
            await pipe.execute()

    async def _move(self, name: str, *arguments: str | int | float, command: str = "") -> list[Any]:
        """Run one script; answers its list. Calls of one turn of the loop travel together.

        ``command``: the id of the operator's command that this is a part of; it is done once however often told.
        """
        await failpoints.reach(f"state.{name}", error=self._unavailable)
        done: asyncio.Future[list[Any]] = asyncio.get_running_loop().create_future()
        keys = (self.keys.root, self.keys.done(command)) if command else (self.keys.root,)
        self._asked.append((name, [len(keys), *keys, *map(str, arguments)], done))
        self._something_asked.set()
        answer = await done
        if answer[0] == "other_format":
            raise StateFormatMismatch(self.url, answer[1], STATE_FORMAT)
        await failpoints.passed(f"state.{name}", error=self._unavailable)
        return answer

    def _unavailable(self, point: str) -> StateUnavailable:
        return StateUnavailable(self.url, f"failpoint {point}")

    async def _pump(self) -> None:
        while True:
            await self._something_asked.wait()
            batch, self._asked = self._asked[:_BATCH], self._asked[_BATCH:]
            if not self._asked:
                self._something_asked.clear()
            try:
                answers = await self._run(batch)
            except asyncio.CancelledError:
                for _, _, done in (*batch, *self._asked):
                    done.cancel()
                raise
            for (_, _, done), answer in zip(batch, answers, strict=True):
                if done.done():
                    continue
                if isinstance(answer, Exception):
                    done.set_exception(answer)
                else:
                    done.set_result(answer)

    async def _run(self, batch: Sequence[tuple[str, Sequence[Any], Any]]) -> list[Any]:
        try:
            async with our_errors(self.url):
                answers = await self._pipeline(batch)
                forgotten = [
                    place for place, answer in enumerate(answers) if isinstance(answer, redis_errors.NoScriptError)
                ]
                if forgotten:  # the server was restarted or flushed its scripts: none of these has run
                    await self._load_scripts()
                    again = await self._pipeline([batch[place] for place in forgotten])
                    for place, answer in zip(forgotten, again, strict=True):
                        answers[place] = answer
        except Exception as error:  # noqa: BLE001 - handed to every caller who waits for this pipeline
            if isinstance(error, StateUnavailable):
                self.watch.failed(error)
            return [error] * len(batch)
        told = [ours(self.url, answer) if isinstance(answer, Exception) else answer for answer in answers]
        self._tell_watch(told)
        return told

    def _tell_watch(self, answers: Sequence[object]) -> None:
        refused = next((one for one in answers if isinstance(one, StateUnavailable)), None)
        if refused is None or not all(isinstance(one, StateUnavailable) for one in answers):
            self.watch.answered()
        elif not isinstance(refused, StateOverloaded):
            self.watch.failed(refused)

    async def _pipeline(self, batch: Sequence[tuple[str, Sequence[Any], Any]]) -> list[Any]:
        pipe = self._redis.pipeline(transaction=False)
        for name, arguments, _ in batch:
            pipe.evalsha(self._scripts.digests[name], *arguments)
        return list(await pipe.execute(raise_on_error=False))

    async def _reaches_disk(self) -> None:
        """What was answered is durable, as redis.durability wants it."""
        if self._disk_log is not None:
            await self._disk_log.reaches_disk()

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

    # ------------------------------------------------------------ tasks: what clients and operators ask

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
    ) -> Accepted:
        """Take a task in; when this returns, it is Redis's.

        ``key`` is the idempotency key (default: the task's id): a second submit with it finds the first task.
        ``forced``: the submitter chose the queue, so that routing leaves the task there. ``vram_mib``: what it is
        predicted to need of a GPU's memory (0: not known). ``size``: width and height of its image, where known.

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
                task.user_id, task.job or "", task.max_retries, cost_s, due_ms, task.image_path, why, int(forced),
                task.lane, vram_mib, self.config.shares.of(task.user_id), most, int(quotas.displace), per_minute,
                "" if size is None else f"{size[0]}x{size[1]}",
                "" if size is None else f"{processed_megapixels(task, size):.6f}", precision_of(task),
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
        await self._reaches_disk()  # also of one that was known: whoever asks again may ask because it failed here
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
        return Ended(task_id, answer[1], int(answer[2]))

    async def retry_task(
        self, task_id: str, *, queue: str, why: str = "", revision: int | None = None, command: str = ""
    ) -> None:
        """Put a finished task into ``queue`` anew. ``command``: as for ``cancel_task``.

        Raises:
            TaskNotFound, TransitionRefused: it is not finished, or has changed since ``revision``.
        """
        seen = "" if revision is None else revision
        answer = await self._move("retry_task", task_id, why, seen, queue, command=command)
        self._refuse("retry_task", task_id, answer)

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
        return Ended(task_id, answer[1], int(answer[2]))

    async def prioritise_task(
        self, task_id: str, *, priority: TaskPriority, why: str = "", revision: int | None = None, command: str = ""
    ) -> None:
        """``command``: as for ``cancel_task``.

        Raises:
        TaskNotFound, TransitionRefused: it is finished, or has changed since ``revision``.
        """
        seen = "" if revision is None else revision
        answer = await self._move("prioritise_task", task_id, why, seen, priority, command=command)
        self._refuse("prioritise_task", task_id, answer)

    # ------------------------------------------------------------ attempts: what nodes do

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
        lease_ms: int | None = None,
        via: str = "",
        costs: str = "",
        patience: Patience | None = None,
        on_held: Callable[[], None] = lambda: None,
    ) -> tuple[Grant, ...]:
        """Lease up to ``slots`` tasks to one device; none if there are none, or if the node takes no work.

        ``lanes``: what the device can do. ``warm``: models loaded there; they need less. Together the grants need
        at most ``fits_mib`` of its memory (None: no limit), by the prediction that came with each task or, where
        it has the lane, by ``needs_mib``: what the node's own engine says. A task that does not fit keeps its place.
        ``via``: the scheduler that asks for the node. ``costs``: what work takes there (``lcq.costs.curves_as_json``),
        so that each attempt's record says what was predicted. By ``patience`` tasks are left for faster devices;
        ``on_held`` is called where some were.

        Raises:
            StaleBoot: the node is not registered with this boot id, or has gone to another scheduler since.
        """
        lease = int(self.config.leases.lease_s * 1000) if lease_ms is None else lease_ms
        told = (
            node, boot, device, slots, lease,
            json.dumps(sorted(lanes)), json.dumps(sorted(warm)), json.dumps(list(queues)),
            kind, "" if fits_mib is None else fits_mib, json.dumps(dict(needs_mib or {})),
            via, self._most_in_flight, costs, json.dumps(patience) if patience else "",
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
        for task_id, number, steps, digest, text in zip(*(rest[part::5] for part in range(5)), strict=True):
            try:
                task, eased = records.granted_task(task_id, text, digest), records.steps(steps)
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                await self.isolate_task(task_id, found=records.told_damage(error))
                continue
            grants.append(Grant(task=task, attempt=int(number), device=device, lease_ms=lease, eased=eased))
        return tuple(grants)

    @property
    def _most_in_flight(self) -> str:
        most = self.config.quotas.most_in_flight
        return "" if most is None else json.dumps(most)

    async def finish_task(
        self, task_id: str, *, attempt: int, node: str, result: TaskResult, peak_mib: int = 0
    ) -> None:
        """Commit a result. Telling it twice is harmless; a late one counts if no newer attempt has committed.

        Raises:
            TaskNotFound, TransitionRefused: the attempt is no longer the task's; nothing was changed.
        """
        answer = await self._move("finish_task", task_id, attempt, node, result.model_dump_json(), peak_mib)
        self._settle("finish_task", task_id, attempt, answer)
        await self._reaches_disk()

    async def fail_task(
        self,
        task_id: str,
        *,
        attempt: int,
        node: str,
        failure: Failure,
        easier: EaseStep | None = None,
        log: str = "",
        peak_mib: int = 0,
    ) -> bool:
        """End an attempt without a result; the class of the failure decides what becomes of the task.

        With ``easier``, that step decides it: the task is queued at once where the step says, and loses no retry.
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
            "blame": self.config.quarantine.enabled and may_blame(failure),
            "free": failure.code in DEPENDENCY_DOWN,
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
        answer = await self._move(
            "fail_task", task_id, attempt, node, failure.model_dump_json(), json.dumps(terms), log
        )
        self._settle("fail_task", task_id, attempt, answer)
        return answer[0] == "ok" and is_too_much(
            float(answer[2]), self.config.quarantine, on_probation=answer[3] == "1"
        )

    async def release_task(self, task_id: str, *, attempt: int, node: str) -> None:
        """A node gives an attempt back unfinished; that costs the task no retry.

        Raises:
            TaskNotFound, TransitionRefused: the attempt is no longer the task's; nothing was changed.
        """
        answer = await self._move("release_task", task_id, attempt, node)
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

    # ------------------------------------------------------------ queues

    async def pause_queue(self, queue: str, *, actor: str, reason: str = "", command: str = "") -> None:
        """Raises:
        TransitionRefused: it is paused already.
        """
        answer = await self._move("pause_queue", queue, actor, reason, command=command)
        if answer[0] == "refused":
            raise TransitionRefused("pause_queue", f"queue {queue}", "paused already")

    async def resume_queue(self, queue: str, *, actor: str, reason: str = "", command: str = "") -> None:
        """Raises:
        TransitionRefused: it is not paused.
        """
        answer = await self._move("resume_queue", queue, actor, reason, command=command)
        if answer[0] == "refused":
            raise TransitionRefused("resume_queue", f"queue {queue}", "not paused")

    # ------------------------------------------------------------ jobs

    async def pause_job(self, job: str, *, actor: str, reason: str = "", command: str = "") -> None:
        """From now on none of its tasks starts. ``move_aside`` has then to be called until it says that it is through.

        Raises:
            JobNotFound, TransitionRefused: there is none of that name, or it is paused already.
        """
        answer = await self._move("pause_job", job, actor, reason, command=command)
        self._refuse_job("pause_job", job, answer, "paused already")

    async def resume_job(self, job: str, *, actor: str, reason: str = "", command: str = "") -> None:
        """From now on what is submitted for it may start again; what waits comes back by ``move_aside``.

        Raises:
            JobNotFound, TransitionRefused: there is none of that name, or it is not paused.
        """
        answer = await self._move("resume_job", job, actor, reason, command=command)
        self._refuse_job("resume_job", job, answer, "not paused")

    async def note_job(self, job: str, skipped: Sequence[Skips]) -> bool:
        """Keep with a job what a submit of it has skipped. Answers whether there is such a job."""
        told = json.dumps([one.model_dump() for one in skipped])
        return bool((await self._move("note_job", job, told))[0] == "ok")

    async def move_aside(self, job: str) -> tuple[int, bool]:
        """One part of the way through a job that was paused or resumed. Answers how many tasks changed their side,
        and whether that was the last part. Any scheduler may do any part; nothing is done twice."""
        answer = await self._move("move_aside", job, _ASIDE)
        return int(answer[1]), answer[2] == "1"

    def _refuse_job(self, move: str, job: str, answer: list[Any], state: str) -> None:
        if answer[0] == "missing":
            raise JobNotFound(job)
        if answer[0] == "refused":
            raise TransitionRefused(move, f"job {job}", state)

    # ------------------------------------------------------------ nodes

    async def register_node(
        self,
        node: str,
        *,
        boot: str,
        capability: NodeCapability,
        serves: Mapping[str, Sequence[str]],
        via: str = "",
        home: str = "",
    ) -> Welcome:
        """A node says hello; attempts of its earlier boot run elsewhere. Answers what the cluster wants of it.

        ``via``: the scheduler it says it to. From now on only that one speaks for it. ``home``: by which a restart of
        the same agent is told from another one.

        Raises:
            StaleBoot: a newer boot has replaced this one.
            NodeNameTaken: an agent with another home lives under this name.
        """
        by_device = {
            device.id: {"queues": list(serves.get(device.id, ())), "lanes": sorted(capability.lanes_of(device))}
            for device in capability.devices
        }
        lanes = sorted(
            {f"{queue}:{lane}" for can in by_device.values() for queue in can["queues"] for lane in can["lanes"]}
        )
        answer = await self._move(
            "register_node", node, boot, capability.model_dump_json(),
            json.dumps({device: list(queues) for device, queues in serves.items()}), json.dumps(lanes),
            int(self.config.leases.beat_s * 1000), int(self.config.leases.lease_s * 1000), via,
            json.dumps(dict(capability.labels)), home, json.dumps(by_device),
        )  # fmt: skip
        if answer[0] == "stale":
            raise StaleBoot(node)
        if answer[0] == "taken":
            raise NodeNameTaken(node, answer[1])
        return Welcome(NodeStatus(answer[1]), records.serves(answer[3]), records.orders(answer[4], int(answer[5])))

    async def beat_node(
        self,
        node: str,
        *,
        boot: str,
        running: Iterable[Running] = (),
        telemetry: Mapping[str, float | str] | None = None,
        readings: Mapping[str, DeviceReading] | None = None,
        via: str = "",
    ) -> Heard:
        """Renew a node's leases. Answers what the cluster wants of it, and the attempts that it has lost.

        A device's fault that appears or goes is an event; other readings only stand in the node's record.
        A lease that the node does not list never reached it, and is released: if it is older than two beats, or
        than the node's hello to ``via``, the scheduler that it beats to.

        Raises:
            StaleBoot: the node is not registered with this boot id, or has gone to another scheduler since.
        """
        flat: list[str | int | float] = []
        for one in running:
            flat += [one.task_id, one.attempt, one.progress, one.stage]
        grace_ms = int(2 * self.config.leases.beat_s * 1000)  # a beat may be told again for as long as one takes
        told = {device: reading.model_dump(exclude_defaults=True) for device, reading in (readings or {}).items()}
        answer = await self._move(
            "beat_node", node, boot, json.dumps(dict(telemetry or {})), json.dumps(told), grace_ms, via, *flat
        )
        if answer[0] == "stale":
            raise StaleBoot(node)
        lost = zip(answer[4::2], answer[5::2], strict=True)
        return Heard(
            NodeStatus(answer[1]),
            tuple(Running(task_id=task, attempt=int(number)) for task, number in lost),
            records.orders(answer[2], int(answer[3])),
            records.probed_devices(answer[2]),
            int(answer[3]),
        )

    async def leave_node(self, node: str, *, boot: str) -> None:
        """A drained node goes in order.

        Raises:
            StaleBoot: the node is not registered with this boot id.
        """
        if (await self._move("leave_node", node, boot))[0] == "stale":
            raise StaleBoot(node)

    async def lose_node(self, node: str, *, boot: str, seen_before_ms: int, code: str, message: str) -> int | None:
        """Give up a node that died or fell silent, unless it was seen after ``seen_before_ms``.

        Answers how many attempts run elsewhere now; None if the node lives, is gone already, or was restarted.
        """
        answer = await self._move("lose_node", node, boot, seen_before_ms, code, message)
        return int(answer[1]) if answer[0] == "ok" else None

    async def suspect_node(self, node: str, *, boot: str, seen_before_ms: int, why: str) -> bool:
        """Show that an online node's beat is overdue, unless it was seen after ``seen_before_ms``; answers whether."""
        return bool((await self._move("suspect_node", node, boot, seen_before_ms, why))[0] == "ok")

    async def drain_node(self, node: str, *, why: str = "", deadline_s: float | None = None, command: str = "") -> None:
        """Let a node finish what it has; ``deadline_s`` later it hands back what still runs.

        Raises:
            NodeNotFound, TransitionRefused: it is offline, or draining already and no new deadline is given.
        """
        answer = await self._move("drain_node", node, why, _span_ms(deadline_s), command=command)
        self._refuse_node("drain_node", node, answer)

    async def stop_node(self, node: str, *, why: str = "", deadline_s: float | None = None, command: str = "") -> None:
        """Have a node's agent drain and end.

        Raises:
            NodeNotFound, TransitionRefused: it is offline, or stopping already.
        """
        answer = await self._move("stop_node", node, why, _span_ms(deadline_s), command=command)
        self._refuse_node("stop_node", node, answer)

    async def activate_node(self, node: str, *, why: str = "", device: str = "", command: str = "") -> None:
        """``device``: only this one of its devices.

        Raises:
            NodeNotFound, DeviceNotFound, TransitionRefused: it is neither draining nor quarantined.
        """
        answer = await self._move("activate_node", node, why, device, command=command)
        self._refuse_node("activate_node", node, answer, device)

    async def quarantine_node(
        self, node: str, *, why: str = "", probed: bool = True, device: str = "", command: str = ""
    ) -> int:
        """Let a node take nothing new; what it runs it may finish. What it has cost tasks that go on is given back.

        ``probed``: until it has passed a probe; else until ``activate_node``. ``device``: only this one of its devices.
        Answers how many tasks got a retry back.

        Raises:
            NodeNotFound, DeviceNotFound, TransitionRefused: it takes no work already.
        """
        first = int(self.config.quarantine.pause_s * 1000) if probed else ""
        longest = int(self.config.quarantine.longest_pause_s * 1000)
        answer = await self._move("quarantine_node", node, why, first, longest, device, command=command)
        self._refuse_node("quarantine_node", node, answer, device)
        return int(answer[1])

    async def probe_node(self, node: str, *, boot: str, device: str = "") -> bool:
        """Whether a quarantined node, or ``device`` of it, is to show now that it works again."""
        return bool((await self._move("probe_node", node, boot, device))[0] == "ok")

    async def settle_probe(
        self, node: str, *, boot: str, passed: bool, detail: str = "", device: str = ""
    ) -> NodeStatus | None:
        """A probed node, or ``device`` of it, is forgiven, or stays in quarantine.

        Answers what it is now, online or quarantined; None if it was not being probed.

        Raises:
            StaleBoot: the node is not registered with this boot id.
        """
        terms = self.config.quarantine
        first, longest = int(terms.pause_s * 1000), int(terms.longest_pause_s * 1000)
        answer = await self._move(
            "settle_probe", node, boot, int(passed), detail, first, longest, terms.probation, device
        )
        if answer[0] == "stale":
            raise StaleBoot(node)
        return NodeStatus(answer[1]) if answer[0] == "ok" else None

    async def set_device(
        self,
        node: str,
        device: str,
        *,
        slots: int | None = None,
        queues: Sequence[str] | None = None,
        why: str = "",
        command: str = "",
    ) -> None:
        """Set the slots and the queues of a device, until that is taken back. None: as before; 0, (): its own again.

        Raises:
            NodeNotFound, DeviceNotFound
        """
        told = "" if queues is None else json.dumps(list(queues))
        answer = await self._move(
            "set_device", node, device, "" if slots is None else slots, told, why, command=command
        )
        self._refuse_node("set_device", node, answer, device)

    async def label_node(
        self,
        node: str,
        labels: Mapping[str, str | None],
        *,
        forget: Sequence[str] = (),
        why: str = "",
        command: str = "",
    ) -> None:
        """Set labels of a node over those that its agent tells; None takes one away, ``forget`` undoes either.

        Raises:
            NodeNotFound
        """
        answer = await self._move(
            "label_node", node, json.dumps(dict(labels)), json.dumps(list(forget)), why, command=command
        )
        self._refuse_node("label_node", node, answer)

    async def release_models(self, node: str, *, why: str = "", command: str = "") -> None:
        """Have a node told to free what its loaded models hold.

        Raises:
            NodeNotFound, TransitionRefused: it is offline.
        """
        self._refuse_node("release_models", node, await self._move("release_models", node, why, command=command))

    def _refuse_node(self, move: str, node: str, answer: list[Any], device: str = "") -> None:
        if answer[0] == "missing":
            raise NodeNotFound(node)
        if answer[0] == "no_device":
            raise DeviceNotFound(node, device)
        if answer[0] == "refused":
            subject = f"device {device} of node {node}" if device else f"node {node}"
            raise TransitionRefused(move, subject, answer[1])

    # ------------------------------------------------------------ timed duties

    async def expire_leases(self, *, judged_ms: int | None = None) -> tuple[Ended, ...]:
        """Attempts whose lease has run out go back to their queues. Answers whose they were.

        ``judged_ms`` (default: now): by Redis's clock, when the one who judges was awake. If he stands still before
        this gets to Redis, a lease that ran out meanwhile, unheard by him, is not his to judge; nor is one by a time
        to which Redis's clock has just been set.
        """
        ended: list[Ended] = []
        for _ in range(_BATCHES):
            answer = await self._move("expire_leases", _LAPSES, "" if judged_ms is None else judged_ms)
            ended += [Ended(task, node, 0) for task, node in zip(answer[1::2], answer[2::2], strict=True)]
            if len(answer) // 2 < _LAPSES:
                break
        return tuple(ended)

    async def release_due(self) -> int:
        """Pending tasks whose time has come are queued. Answers how many."""
        return await self._in_batches("release_due")

    async def recall_tasks(self) -> int:
        """What was kept back for a quota goes back where there is room. Answers of how many users some still is."""
        return int((await self._move("recall_tasks", self._most_in_flight, _LIMIT))[1])

    async def forget_tasks(self) -> int:
        """Remove records that outlived their retention. Answers how many."""
        return await self._in_batches("forget_tasks")

    async def _in_batches(self, move: str) -> int:
        done = 0
        for _ in range(_BATCHES):
            count = int((await self._move(move, _LIMIT))[1])
            done += count
            if count < _LIMIT:
                break
        return done

    async def forget_nodes(self, *, silence_ms: int) -> int:
        """Remove nodes that have been offline for longer than ``silence_ms``. Answers how many."""
        return int((await self._move("forget_nodes", silence_ms))[1])

    async def now_ms(self) -> int:
        """Redis's clock, by which every deadline is judged."""
        async with our_errors(self.url):
            seconds, micros = await self._redis.time()
        return int(seconds) * 1000 + int(micros) // 1000

    async def isolate_task(self, task_id: str, *, found: str) -> None:
        """Fail a task whose record is not what was written, and keep it; one that has ended stays as it was."""
        _log.error("the record of task %s is damaged, the task is isolated: %s", task_id, found)
        await self._move("isolate_task", task_id, found)

    async def isolate_node(self, node: str, *, found: str) -> None:
        """Have a node whose record is not what was written say hello again; what it holds it keeps."""
        _log.error("the record of node %s is damaged, it has to say hello again: %s", node, found)
        await self._move("isolate_node", node, found)

    async def clock(self) -> tuple[int, int]:
        """What Redis's clock shows, and how many times the deadlines were shifted after it."""
        async with our_errors(self.url), self._redis.pipeline(transaction=False) as pipe:
            (seconds, micros), shifts = await pipe.time().hget(self.keys.totals, "clock_set").execute()
        return int(seconds) * 1000 + int(micros) // 1000, int(shifts or 0)

    async def shift_deadlines(self, by_ms: int, *, shifts: int) -> int | None:
        """Redis's clock has been set by ``by_ms``: let every deadline be as far away as it was.

        ``shifts`` is what ``clock()`` said before that. Answers how many leases were moved; None where another
        scheduler has done it.
        """
        answer = await self._move("shift_deadlines", by_ms, shifts)
        return int(answer[1]) if answer[0] == "ok" else None

    async def take_duty(self, duty: str, scheduler_id: str, *, hold_ms: int) -> int | None:
        """Redis's time if ``scheduler_id`` does ``duty`` now, else None; it keeps it by asking again in ``hold_ms``.

        Two schedulers that both believe it for a moment do no harm: every duty is a move that may be made twice.
        """
        answer = await self._move("take_duty", duty, scheduler_id, hold_ms)
        return int(answer[1]) if answer[0] == "ok" else None

    async def announce_scheduler(self, scheduler_id: str, endpoint: str, *, hold_ms: int, cluster: str = "") -> str:
        """Publish a scheduler's control endpoint for ``hold_ms``; forgets those that fell silent.

        Answers the id of this cluster, which is ``cluster`` (default: a new one) where it had none yet.
        """
        answer = await self._move("announce_scheduler", scheduler_id, endpoint, hold_ms, cluster or new_id())
        return str(answer[1])

    async def withdraw_scheduler(self, scheduler_id: str) -> None:
        """Take a stopping scheduler off the list; its duties pass on when their short hold ends."""
        async with our_errors(self.url):
            await self._redis.hdel(self.keys.schedulers, scheduler_id)

    async def _note_failover(self, failover: Failover) -> None:
        """Have it in the events, where consoles see it; whichever scheduler notices first tells all."""
        await self._move("note_failover", failover.run_id, failover.lost_ms, failover.lost_bytes, str(failover))

    # ------------------------------------------------------------ acts

    async def recall_answer(self, command_id: str) -> bytes | None:
        """The answer that an earlier copy of this command got."""
        async with our_errors(self.url):
            text = await self._redis.get(self.keys.answer(command_id))
        return None if text is None else text.encode("latin-1")

    async def note_act(self, command_id: str, answer: bytes, act: Mapping[str, str]) -> None:
        """Write an operator's act to the audit stream, and keep its answer for a copy that comes later.

        ``act`` is empty where it was refused: then only the answer is kept.
        """
        keep_ms = ANSWERS_KEPT // timedelta(milliseconds=1)
        fields = [text for pair in act.items() for text in pair]
        await self._move("note_act", command_id, answer.decode("latin-1"), keep_ms, _ACTS_KEPT, *fields)


def _span_ms(seconds: float | None) -> str | int:
    return "" if seconds is None else int(seconds * 1000)

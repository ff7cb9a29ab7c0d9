"""StateManager: the only writer of Redis. One method a move, each one Lua script, all or nothing."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from hashlib import sha256
from types import TracebackType
from typing import Any, Self

from redis import exceptions as redis_errors

from lcq.config import DistributedConfig
from lcq.errors import (
    IdempotencyConflict,
    NodeNotFound,
    StaleBoot,
    StateOverloaded,
    StateUnavailable,
    TaskNotFound,
    TransitionRefused,
)
from lcq.models import (
    DeviceKind,
    DeviceReading,
    ErrorClass,
    Failure,
    NodeCapability,
    NodeStatus,
    Task,
    TaskPriority,
    TaskResult,
    TaskStatus,
)
from lcq.moves import starts_of
from lcq.routing import EaseStep
from lcq.state import records
from lcq.state.connection import check_server, connect, our_errors, ours
from lcq.state.disk_log import DiskLog
from lcq.state.feed import Feed
from lcq.state.reader import StateReader
from lcq.state.scripts import Scripts
from lcq.state.watch import Failover, ServerWatch
from lcq.wire import Accepted, Grant, Running

_BATCH = 128  # scripts in one pipeline: enough to share a round trip, few enough to let readers in between
_ACTS_KEPT = 100_000
_LIMIT = 200  # tasks that one timed duty moves in one script: it must never hold the server for long
_LAPSES = 100  # fewer where each takes more


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
    ErrorClass.TRANSIENT: Rule(retry=True),
    ErrorClass.CRASH: Rule(retry=True, death=True, avoid=True, at_once=True),
    ErrorClass.BAD_OUTPUT: Rule(retry=True, avoid=True, at_once=True),
}


@dataclass(frozen=True)
class Ended:
    """A running attempt that an operator's move ended: its runner is to be stopped on ``node``."""

    task_id: str
    node: str
    attempt: int


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
        self._asked: list[tuple[str, Sequence[str], asyncio.Future[list[Any]]]] = []
        self._something_asked = asyncio.Event()
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        """Raises:
        StateUnavailable: the server does not answer.
        UnsafeState: the server may lose data, and the configuration does not accept that.
        """
        async with AsyncExitStack() as stack:
            stack.push_async_callback(self._redis.aclose)
            await stack.enter_async_context(self.reader)
            self.server_version = await check_server(self._redis, self.url, unsafe=self.config.redis.unsafe)
            if self._disk_log is not None:
                await self._disk_log.check()
            await self._load_scripts()
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

    # ------------------------------------------------------------ how moves travel

    async def _load_scripts(self) -> None:
        async with our_errors(self.url):
            pipe = self._redis.pipeline(transaction=False)
            for text in self._scripts.texts.values():
                pipe.script_load(text)
            await pipe.execute()

    async def _move(self, name: str, *arguments: str | int | float) -> list[Any]:
        """Run one script; answers its list. Calls of one turn of the loop travel together."""
        done: asyncio.Future[list[Any]] = asyncio.get_running_loop().create_future()
        self._asked.append((name, [self.keys.root, *map(str, arguments)], done))
        self._something_asked.set()
        return await done

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

    async def _run(self, batch: Sequence[tuple[str, Sequence[str], Any]]) -> list[Any]:
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

    async def _pipeline(self, batch: Sequence[tuple[str, Sequence[str], Any]]) -> list[Any]:
        pipe = self._redis.pipeline(transaction=False)
        for name, arguments, _ in batch:
            pipe.evalsha(self._scripts.digests[name], 1, *arguments)
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
    ) -> Accepted:
        """Take a task in; when this returns, it is Redis's.

        ``key`` is the idempotency key (default: the task's id): a second submit with it finds the first task.
        ``forced``: the submitter chose the queue, so that routing leaves the task there. ``vram_mib``: what it is
        predicted to need of a GPU's memory (0: not known).

        Raises:
            IdempotencyConflict: the key belongs to a task that asks for something else.
            StateOverloaded: Redis is full.
            UnsafeState: it has been set so that it may lose data.
        """
        if self.watch.risk is not None:
            raise self.watch.risk
        text = task.to_json()
        told = json.loads(text)
        told.pop("id")  # a client that lost its answer may come with the same key and a new id
        digest = sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()
        try:
            answer = await self._move(
                "submit_task", task.id, text, digest, key or task.id, queue, node, task.model, task.priority,
                task.user_id, task.job or "", task.max_retries, cost_s, due_ms, task.image_path, why, int(forced),
                task.lane, vram_mib,
            )  # fmt: skip
        except StateOverloaded as full:
            self.watch.refused_task(full)
            raise
        self.watch.took_task()
        if answer[0] == "conflict":
            raise IdempotencyConflict(key or task.id, answer[1])
        await self._reaches_disk()  # also of one that was known: whoever asks again may ask because it failed here
        return Accepted(
            id=answer[1],
            status=TaskStatus(answer[2]),
            queue=answer[3],
            duplicate=answer[0] == "duplicate",
            why=why,
        )

    async def cancel_task(self, task_id: str, *, why: str = "", revision: int | None = None) -> Ended:
        """Raises:
        TaskNotFound, TransitionRefused: it is finished, or has changed since ``revision``.
        """
        answer = await self._move("cancel_task", task_id, why, "" if revision is None else revision)
        self._refuse("cancel_task", task_id, answer)
        return Ended(task_id, answer[1], int(answer[2]))

    async def retry_task(self, task_id: str, *, queue: str, why: str = "", revision: int | None = None) -> None:
        """Put a finished task into ``queue`` anew.

        Raises:
            TaskNotFound, TransitionRefused: it is not finished, or has changed since ``revision``.
        """
        answer = await self._move("retry_task", task_id, why, "" if revision is None else revision, queue)
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
    ) -> Ended:
        """Put a task into ``queue``, for ``node`` alone if one is named; a running attempt is ended.

        Raises:
            TaskNotFound, TransitionRefused: it is completed, or has changed since ``revision``.
        """
        seen = "" if revision is None else revision
        answer = await self._move("reroute_task", task_id, why, seen, queue, node, int(forced))
        self._refuse("reroute_task", task_id, answer)
        return Ended(task_id, answer[1], int(answer[2]))

    async def prioritise_task(
        self, task_id: str, *, priority: TaskPriority, why: str = "", revision: int | None = None
    ) -> None:
        """Raises:
        TaskNotFound, TransitionRefused: it is finished, or has changed since ``revision``.
        """
        answer = await self._move("prioritise_task", task_id, why, "" if revision is None else revision, priority)
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
    ) -> tuple[Grant, ...]:
        """Lease up to ``slots`` tasks to one device; none if there are none, or if the node takes no work.

        ``lanes``: what the device can do. ``warm``: models loaded there; they need less. Together the grants need
        at most ``fits_mib`` of its memory (None: no limit), by the prediction that came with each task or, where
        it has the lane, by ``needs_mib``: what the node's own engine says. A task that does not fit keeps its place.

        Raises:
            StaleBoot: the node is not registered with this boot id.
        """
        lease = int(self.config.leases.lease_s * 1000) if lease_ms is None else lease_ms
        answer = await self._move(
            "claim_tasks", node, boot, device, slots, lease,
            json.dumps(sorted(lanes)), json.dumps(sorted(warm)), json.dumps(list(queues)),
            kind, "" if fits_mib is None else fits_mib, json.dumps(dict(needs_mib or {})),
        )  # fmt: skip
        if answer[0] == "stale":
            raise StaleBoot(node)
        if answer[0] == "refused":
            return ()
        rest = answer[1:]
        return tuple(
            Grant(
                task=Task.from_json(text),
                attempt=int(number),
                device=device,
                lease_ms=lease,
                eased=records.steps(steps),
            )
            for number, steps, text in zip(rest[1::4], rest[2::4], rest[3::4], strict=True)
        )

    async def finish_task(self, task_id: str, *, attempt: int, node: str, result: TaskResult) -> None:
        """Commit a result. Telling it twice is harmless; a late one counts if no newer attempt has committed.

        Raises:
            TaskNotFound, TransitionRefused: the attempt is no longer the task's; nothing was changed.
        """
        answer = await self._move("finish_task", task_id, attempt, node, result.model_dump_json())
        self._settle("finish_task", task_id, attempt, answer)
        await self._reaches_disk()

    async def fail_task(
        self, task_id: str, *, attempt: int, node: str, failure: Failure, easier: EaseStep | None = None
    ) -> None:
        """End an attempt without a result; the class of the failure decides what becomes of the task.

        With ``easier``, that step decides it: the task is queued at once where the step says, and loses no retry.

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
        }
        if easier is not None:
            terms |= {"ease": easier.ease, "queue": easier.queue, "avoid": easier.avoid}
        answer = await self._move("fail_task", task_id, attempt, node, failure.model_dump_json(), json.dumps(terms))
        self._settle("fail_task", task_id, attempt, answer)

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

    async def pause_queue(self, queue: str, *, actor: str, reason: str = "") -> None:
        """Raises:
        TransitionRefused: it is paused already.
        """
        answer = await self._move("pause_queue", queue, actor, reason)
        if answer[0] == "refused":
            raise TransitionRefused("pause_queue", f"queue {queue}", "paused already")

    async def resume_queue(self, queue: str, *, actor: str, reason: str = "") -> None:
        """Raises:
        TransitionRefused: it is not paused.
        """
        answer = await self._move("resume_queue", queue, actor, reason)
        if answer[0] == "refused":
            raise TransitionRefused("resume_queue", f"queue {queue}", "not paused")

    # ------------------------------------------------------------ nodes

    async def register_node(
        self, node: str, *, boot: str, capability: NodeCapability, serves: Mapping[str, Sequence[str]]
    ) -> NodeStatus:
        """A node says hello; attempts of its earlier boot run elsewhere. Answers what the cluster wants of it.

        Raises:
            StaleBoot: a newer boot has replaced this one.
        """
        lanes = sorted(
            {
                f"{queue}:{lane}"
                for device in capability.devices
                for queue in serves.get(device.id, ())
                for lane in capability.lanes_of(device)
            }
        )
        answer = await self._move(
            "register_node", node, boot, capability.model_dump_json(),
            json.dumps({device: list(queues) for device, queues in serves.items()}), json.dumps(lanes),
        )  # fmt: skip
        if answer[0] == "stale":
            raise StaleBoot(node)
        return NodeStatus(answer[1])

    async def beat_node(
        self,
        node: str,
        *,
        boot: str,
        running: Iterable[Running] = (),
        telemetry: Mapping[str, float | str] | None = None,
        readings: Mapping[str, DeviceReading] | None = None,
    ) -> tuple[NodeStatus, tuple[Running, ...]]:
        """Renew a node's leases. Answers what the cluster wants of it, and the attempts that it has lost.

        A device's fault that appears or goes is an event; other readings only stand in the node's record.
        A lease older than two beats that the node does not list never reached it, and is released.

        Raises:
            StaleBoot: the node is not registered with this boot id.
        """
        flat: list[str | int | float] = []
        for one in running:
            flat += [one.task_id, one.attempt, one.progress, one.stage]
        grace_ms = int(2 * self.config.leases.beat_s * 1000)  # a beat may be told again for as long as one takes
        told = {device: reading.model_dump(exclude_defaults=True) for device, reading in (readings or {}).items()}
        answer = await self._move(
            "beat_node", node, boot, json.dumps(dict(telemetry or {})), json.dumps(told), grace_ms, *flat
        )
        if answer[0] == "stale":
            raise StaleBoot(node)
        lost = zip(answer[2::2], answer[3::2], strict=True)
        return NodeStatus(answer[1]), tuple(Running(task_id=task, attempt=int(number)) for task, number in lost)

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

    async def drain_node(self, node: str, *, why: str = "") -> None:
        """Raises:
        NodeNotFound, TransitionRefused: it is draining or offline already.
        """
        self._refuse_node("drain_node", node, await self._move("drain_node", node, why))

    async def activate_node(self, node: str, *, why: str = "") -> None:
        """Raises:
        NodeNotFound, TransitionRefused: it is neither draining nor quarantined.
        """
        self._refuse_node("activate_node", node, await self._move("activate_node", node, why))

    async def release_models(self, node: str, *, why: str = "") -> None:
        """Have a node told to free what its loaded models hold.

        Raises:
            NodeNotFound, TransitionRefused: it is offline.
        """
        self._refuse_node("release_models", node, await self._move("release_models", node, why))

    def _refuse_node(self, move: str, node: str, answer: list[Any]) -> None:
        if answer[0] == "missing":
            raise NodeNotFound(node)
        if answer[0] == "refused":
            raise TransitionRefused(move, f"node {node}", answer[1])

    # ------------------------------------------------------------ timed duties

    async def expire_leases(self) -> tuple[Ended, ...]:
        """Attempts whose lease has run out go back to their queues. Answers whose they were."""
        answer = await self._move("expire_leases", _LAPSES)
        return tuple(Ended(task, node, 0) for task, node in zip(answer[1::2], answer[2::2], strict=True))

    async def release_due(self) -> int:
        """Pending tasks whose time has come are queued. Answers how many."""
        return int((await self._move("release_due", _LIMIT))[1])

    async def forget_tasks(self) -> int:
        """Remove records that outlived their retention. Answers how many."""
        return int((await self._move("forget_tasks", _LIMIT))[1])

    async def forget_nodes(self, *, silence_ms: int) -> int:
        """Remove nodes that have been offline for longer than ``silence_ms``. Answers how many."""
        return int((await self._move("forget_nodes", silence_ms))[1])

    async def now_ms(self) -> int:
        """Redis's clock, by which every deadline is judged."""
        async with our_errors(self.url):
            seconds, micros = await self._redis.time()
        return int(seconds) * 1000 + int(micros) // 1000

    async def take_duty(self, duty: str, scheduler_id: str, *, hold_ms: int) -> bool:
        """Whether ``scheduler_id`` does ``duty`` now; it keeps it by asking again within ``hold_ms``.

        Two schedulers that both believe it for a moment do no harm: every duty is a move that may be made twice.
        """
        return bool((await self._move("take_duty", duty, scheduler_id, hold_ms))[0] == "ok")

    async def announce_scheduler(self, scheduler_id: str, endpoint: str, *, hold_ms: int) -> None:
        """Publish a scheduler's control endpoint for ``hold_ms``; forgets those that fell silent."""
        await self._move("announce_scheduler", scheduler_id, endpoint, hold_ms)

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

    async def note_act(self, command_id: str, answer: bytes, act: Mapping[str, str], *, keep_ms: int = 600_000) -> None:
        """Write an operator's act to the audit stream, and keep its answer for a copy that comes later."""
        fields = [text for pair in act.items() for text in pair]
        await self._move("note_act", command_id, answer.decode("latin-1"), keep_ms, _ACTS_KEPT, *fields)

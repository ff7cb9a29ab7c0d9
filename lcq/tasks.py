"""TaskManager: what people may ask. Serves every command of operators and clients."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import os
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import AsyncExitStack
from dataclasses import asdict, replace
from datetime import UTC, datetime
from typing import Any

from lcq import __version__
from lcq.agreement import EVERYWHERE, OF_SCHEDULERS, Agreed
from lcq.autoscale import DEFAULT_TARGET_S, Scale, scale
from lcq.component import Complaints, Ground, Manager, complained, run_beside
from lcq.config import PricesConfig
from lcq.costs import KNOWN_MODELS, CostKey, Curve, calibration, cost_key, is_estimate, shipped_curve
from lcq.errors import (
    AddressRefused,
    AgentTooOld,
    DeviceNotFound,
    LcqError,
    NodeNotFound,
    NothingToUndo,
    StateOverloaded,
    StateUnavailable,
    TransitionRefused,
    UnknownQueue,
)
from lcq.explain import Explainer
from lcq.functions import dearest_price
from lcq.health import KNOWS_ORDERS
from lcq.ids import new_id
from lcq.image_size import MOST_SIDE, Size, read_sizes
from lcq.jobs import JobActs
from lcq.memory_costs import memory_calibration
from lcq.models import DeviceKind, NodeRecord, Task, TaskRecord, model_of
from lcq.moving import Mover
from lcq.roots import Roots
from lcq.routing import Fleet, Route, foresee, is_barred, route, way_home
from lcq.spend import Book
from lcq.state.feed import batches
from lcq.storage.addresses import Allowed, Kind, read_address
from lcq.usage import BYS, days_since, today_of, total_of
from lcq.warming import Warming
from lcq.wire import (
    PROTOCOL_VERSION,
    Accepted,
    Acknowledge,
    Act,
    Activate,
    Acts,
    ActsAnswer,
    AskSettings,
    AskSpend,
    AskWhy,
    AskWhys,
    Autoscale,
    AutoscaleAnswer,
    BulkAnswer,
    Cancel,
    CancelJob,
    Comment,
    Costs,
    CostsAnswer,
    CostStats,
    Dead,
    DeadAnswer,
    Done,
    Drain,
    DrainIdle,
    DrainIdleAnswer,
    Events,
    EventsAnswer,
    Find,
    FindAnswer,
    Foresee,
    ForeseeAnswer,
    Foreseen,
    GetTasks,
    GetTasksAnswer,
    History,
    HistoryAnswer,
    Info,
    InfoAnswer,
    LabelNode,
    ListTasks,
    ListTasksAnswer,
    Nodes,
    NodesAnswer,
    Pause,
    Prioritise,
    PrioritiseJob,
    Quarantine,
    Queues,
    QueuesAnswer,
    Refusal,
    Release,
    Report,
    ReportAnswer,
    Reroute,
    RerouteJob,
    Resume,
    Retry,
    RetryJob,
    SetDeadline,
    SetDevice,
    SetPrivacy,
    SettingsAnswer,
    SpendAnswer,
    SpendBook,
    StopNode,
    Submit,
    SubmitAnswer,
    Undo,
    WhyAnswer,
    WhysAnswer,
)

_log = logging.getLogger(__name__)
_FLEET_AGE_S = 0.5  # how old the picture of the fleet may be when a task is routed
_TICK_S = 0.2
_AFTER_CHANGE_S = 0.05
_DUTY_HOLD_MS = 3000
_DEPTHS_S = 10.0  # between two looks at what waits, for charts
_FLEET_MOVES = frozenset(
    {
        "register_node", "beat_node", "leave_node", "lose_node", "drain_node", "activate_node", "pause_queue",
        "resume_queue", "quarantine_node", "settle_probe", "pause_job", "resume_job",
        "stop_node", "set_device", "label_node",
    }
)  # fmt: skip


class TaskManager(Manager):
    """Takes tasks in, routes them, and carries out operators' acts and questions."""

    def __init__(self, ground: Ground | None = None) -> None:
        super().__init__(ground)
        self._fleet_asked = self._fleet_stale = -1.0  # when the picture was asked for; when it was last made an old one
        self._fleet_read = asyncio.Lock()
        self._fleet_changed = asyncio.Event()
        self._agreed = Agreed((*EVERYWHERE, *OF_SCHEDULERS))

    async def _open(self, ground: Ground, stack: AsyncExitStack) -> None:
        self._ground = ground
        self._state = ground.state
        self._reader = ground.state.reader
        self._mover = Mover(ground.state)
        self._explainer = Explainer(ground.state, self.fleet)
        self._roots = Roots(ground.config.storage.roots)
        serve: Callable[[Any, Any], None] = ground.site.desk.serve
        for kind, handler in (
            (Submit, self.submit), (Cancel, self.cancel), (Retry, self.retry), (Reroute, self.reroute),
            (Prioritise, self.prioritise), (Pause, self.pause), (Resume, self.resume), (Drain, self.drain),
            (Activate, self.activate), (Quarantine, self.quarantine), (Release, self.release), (Info, self.info),
            (StopNode, self.stop_node), (SetDevice, self.set_device), (LabelNode, self.label_node),
            (SetDeadline, self.set_deadline), (SetPrivacy, self.set_privacy), (Undo, self.undo),
            (Comment, self.comment), (Acknowledge, self.acknowledge), (Foresee, self.foresee), (Acts, self.acts),
            (AskSettings, self.settings),
            (Find, self.find), (GetTasks, self.get_tasks), (ListTasks, self.list_tasks), (Dead, self.dead),
            (History, self.history), (AskWhy, self.why), (AskWhys, self.whys), (Costs, self.costs), (Nodes, self.nodes),
            (Queues, self.queues), (Events, self.events), (Autoscale, self.autoscale), (DrainIdle, self.drain_idle),
            (Report, self.report), (AskSpend, self.spend),
        ):  # fmt: skip
            serve(kind, handler)
        self._jobs = JobActs(
            ground.state,
            self.fleet,
            cancel=lambda act, task_id: self._cancel_one(act, task_id, None),
            prioritise=lambda act, task_id: self._prioritise_one(act, task_id, None),
            retry=lambda act, record, fleet: self._retry_known(act, record, None, fleet),
            reroute=lambda act, record, fleet: self._reroute_known(act, record, None, fleet),
        )
        self._warming = Warming(ground.state)
        for command, answered_by in (*self._jobs.handlers, *self._warming.handlers):
            serve(command, answered_by)
        await run_beside(stack, ("fleet watch", self._watch_fleet()), ("task duties", self._do_duties()))

    # ------------------------------------------------------------ the picture routing works on

    async def fleet(self) -> Fleet:
        """The fleet as it was at most half a second ago. Of several who ask at a time, one reads."""
        async with self._fleet_read:
            now = time.monotonic()
            if self._fleet_asked <= self._fleet_stale or now - self._fleet_asked > _FLEET_AGE_S:
                self._fleet, self._fleet_asked = await self._reader.fleet(), now
            return self._fleet

    async def _fleet_with(self, *, models: Iterable[str] = (), node: str = "") -> Fleet:
        """The fleet, looked at anew where what is asked for is not in the picture at hand.

        A node may just have joined, and the event that tells of it be still on its way: nothing is refused for that.
        """
        fleet = await self.fleet()
        unheard = set(models) - KNOWN_MODELS.keys()
        if (unheard and not unheard <= fleet.models) or (node and fleet.node(node) is None):
            self._fleet_stale = time.monotonic()
            fleet = await self.fleet()
        return fleet

    async def _watch_fleet(self) -> None:
        async for events in batches(self._state.feed):
            if events is None or any(event.move in _FLEET_MOVES for event in events):
                self._fleet_stale = time.monotonic()
                self._fleet_changed.set()

    def look_again(self) -> None:
        """The settings have changed: what waits is routed by them."""
        self._fleet_stale = time.monotonic()
        self._fleet_changed.set()

    # ------------------------------------------------------------ acts on tasks

    async def submit(self, submit: Submit, sender: bytes = b"") -> SubmitAnswer:
        """Each task is accepted durably, or refused by itself with its reason."""
        fleet = await self._fleet_with(models={task.model for task in submit.tasks}, node=submit.node)
        keys = submit.keys or tuple(task.id for task in submit.tasks)
        if len(keys) != len(submit.tasks):
            raise LcqError(f"{len(submit.tasks)} tasks came with {len(keys)} idempotency keys", hint="give one a task")
        sizes = await self._sizes(submit)
        told = await asyncio.gather(
            *(
                self._submit_one(task, key, submit.queue, submit.node, fleet, size, interactive=submit.interactive)
                for task, key, size in zip(submit.tasks, keys, sizes, strict=True)
            )
        )
        return SubmitAnswer(
            accepted=tuple(one for one in told if isinstance(one, Accepted)),
            refused=tuple(one for one in told if isinstance(one, Refusal)),
        )

    async def foresee(self, ask: Foresee, sender: bytes = b"") -> ForeseeAnswer:
        """Where tasks would go now, one after the other, and when the last of each queue would be done."""
        fleet = await self._fleet_with(models={task.model for task in ask.tasks}, node=ask.node)
        fleet = replace(fleet, placed_s=dict(fleet.placed_s))  # what is only asked about is not in anybody's way
        sizes = await self._sizes(ask)
        found: dict[tuple[str, str], Foreseen] = {}
        refused: dict[str, Refusal] = {}
        count = ask.each_stands_for
        refusals = 0
        for task, size in zip(ask.tasks, sizes, strict=True):
            try:
                self._refuse_places(task)
                seen = foresee(task, fleet, queue=ask.queue, node=ask.node, size=size)
            except LcqError as error:
                refused.setdefault(error.code, Refusal.of(task.id, error))
                refusals += 1
                continue
            chosen = seen.route
            fleet.note_placed(replace(chosen, seconds=chosen.seconds * count))
            pause = fleet.paused.get(chosen.queue)
            why = chosen.why or (f"{chosen.queue} is paused {pause}" if pause is not None else "")
            known = found.get((chosen.queue, why))
            known_queue = fleet.queue(chosen.queue)
            is_paid = known_queue is not None and known_queue.kind is DeviceKind.SERVERLESS
            price = dearest_price(fleet.nodes, task.model) if is_paid else 0.0
            found[chosen.queue, why] = Foreseen(
                worst_cost=(known.worst_cost if known else 0.0) + price,
                queue=chosen.queue, why=why, done_s=seen.done_s,
                count=(known.count if known else 0) + 1, seconds=(known.seconds if known else 0.0) + chosen.seconds,
                guessed=seen.guessed or (known is not None and known.guessed),
            )  # fmt: skip
        scaled = [
            one.model_copy(
                update={
                    "count": round(one.count * count),
                    "seconds": one.seconds * count,
                    "worst_cost": one.worst_cost * count,
                }
            )
            for one in found.values()
        ]
        return ForeseeAnswer(
            currency=self._state.config.overflow.budget.currency,
            foreseen=tuple(scaled),
            refused=tuple(refused.values()),
            refusals=round(refusals * count),
        )

    async def _sizes(self, submit: Submit | Foresee) -> tuple[Size | None, ...]:
        """How large each image is: as the client told, else as its header tells where it lies in storage.roots."""
        if len(submit.sizes) == len(submit.tasks):
            told = tuple(
                size if size and all(0 < side <= MOST_SIDE for side in size) else None for size in submit.sizes
            )
        else:
            told = (None,) * len(submit.tasks)
        unknown = [place for place, size in enumerate(told) if size is None]
        if not self._roots or not unknown:
            return told
        paths = [submit.tasks[place].image_path for place in unknown]
        seen = await asyncio.to_thread(lambda: list(read_sizes(paths, roots=self._roots)))
        found = dict(zip(unknown, seen, strict=True))
        return tuple(found.get(place, size) for place, size in enumerate(told))

    async def _submit_one(
        self, task: Task, key: str, queue: str, node: str, fleet: Fleet, size: Size | None, *, interactive: bool
    ) -> Accepted | Refusal:
        try:
            self._refuse_places(task)
            chosen = route(task, fleet, queue=queue, node=node, size=size)
            fleet.note_placed(chosen)
            pause = fleet.paused_jobs.get(task.job or "")
            why = chosen.why if pause is None else f"job {task.job} is paused {pause}"
            return await self._state.submit_task(
                task,
                queue=chosen.queue,
                node=node,
                key=key,
                cost_s=chosen.seconds,
                why=why,
                forced=bool(queue),
                vram_mib=chosen.vram_mib,
                size=size,
                interactive=interactive,
            )
        except LcqError as error:
            if isinstance(error, StateUnavailable) and not isinstance(error, StateOverloaded):
                raise  # nothing is known about any of them: the client asks again with the same keys
            return Refusal.of(task.id, error)

    def _refuse_places(self, task: Task) -> None:
        """Raises:
        AddressRefused, OutsideRoots: tasks may not name what it names.
        """
        storage = self._state.config.storage
        allowed = Allowed(storage.urls, storage.web)
        for text in filter(None, (task.image_path, task.mask_path, task.output_path)):
            address = read_address(text)
            allowed.refuse(address)
            if address.is_path:
                self._roots.refuse_by_name(address.place)
        if task.output_path and read_address(task.output_path).kind in (Kind.BLOB, Kind.WEB):
            raise AddressRefused(
                task.output_path, "no result can be put there", hint="leave it out: then the result is a blob"
            )

    async def submit_task(self, task: Task) -> Accepted:
        """Take in one task, from code that runs in this process.

        Raises:
            LcqError: why it was refused.
        """
        answer = await self.submit(Submit(tasks=(task,)))
        for refusal in answer.refused:
            raise refusal.error()
        return answer.accepted[0]

    async def cancel(self, act: Cancel, sender: bytes = b"") -> BulkAnswer:
        return await self._each(act, act.ids, lambda task_id, seen: self._cancel_one(act, task_id, seen))

    async def _cancel_one(self, act: Cancel | CancelJob, task_id: str, seen: int | None) -> int:
        return (await self._state.cancel_task(task_id, why=_by(act), revision=seen, command=act.id)).revision

    async def retry(self, act: Retry, sender: bytes = b"") -> BulkAnswer:
        fleet = await self.fleet()
        return await self._each(act, act.ids, lambda task_id, seen: self._retry_one(act, task_id, seen, fleet))

    async def _retry_one(self, act: Retry, task_id: str, seen: int | None, fleet: Fleet) -> int:
        return await self._retry_known(act, await self._reader.task(task_id), seen, fleet)

    async def _retry_known(self, act: Retry | RetryJob, record: TaskRecord, seen: int | None, fleet: Fleet) -> int:
        _refuse_damaged(record, "retry_task")
        queue = record.queue
        is_free = not record.forced or fleet.queue(queue) is None or is_barred(record, fleet)
        if is_free and not record.pinned_node:
            queue = route(record.task, fleet).queue
        return await self._state.retry_task(record.id, queue=queue, why=_by(act), revision=seen, command=act.id)

    async def reroute(self, act: Reroute, sender: bytes = b"") -> BulkAnswer:
        fleet = await self._fleet_with(node=act.node)
        if act.queue and fleet.queue(act.queue) is None:
            raise UnknownQueue(act.queue, [queue.name for queue in fleet.queues])
        if act.node and fleet.node(act.node) is None:
            raise NodeNotFound(act.node)
        if not act.queue and not act.node and act.labels is None:
            raise LcqError("reroute to where?", hint="name a queue, a node, or labels")
        return await self._each(act, act.ids, lambda task_id, seen: self._reroute_one(act, task_id, seen, fleet))

    async def _reroute_one(self, act: Reroute, task_id: str, seen: int | None, fleet: Fleet) -> int:
        return await self._reroute_known(act, await self._reader.task(task_id), seen, fleet)

    async def _reroute_known(
        self, act: Reroute | RerouteJob, record: TaskRecord, seen: int | None, fleet: Fleet
    ) -> int:
        _refuse_damaged(record, "reroute_task")
        asked = record.task if act.labels is None else record.task.model_copy(update={"requires": act.labels})
        chosen: Route = route(asked, fleet, queue=act.queue, node=act.node)
        ended = await self._state.reroute_task(
            record.id,
            queue=chosen.queue,
            node=act.node,
            why=chosen.why or _by(act),
            revision=seen,
            forced=bool(act.queue or act.node),
            asked=None if act.labels is None else asked,
            command=act.id,
        )
        return ended.revision

    async def prioritise(self, act: Prioritise, sender: bytes = b"") -> BulkAnswer:
        return await self._each(act, act.ids, lambda task_id, seen: self._prioritise_one(act, task_id, seen))

    async def _prioritise_one(self, act: Prioritise | PrioritiseJob, task_id: str, seen: int | None) -> int:
        return await self._state.prioritise_task(
            task_id, priority=act.priority, why=_by(act), revision=seen, command=act.id
        )

    async def set_deadline(self, act: SetDeadline, sender: bytes = b"") -> BulkAnswer:
        return await self._each(act, act.ids, lambda task_id, seen: self._set_deadline_one(act, task_id, seen))

    async def _set_deadline_one(self, act: SetDeadline, task_id: str, seen: int | None) -> int:
        record = await self._reader.task(task_id)
        _refuse_damaged(record, "set_deadline")
        deadline = None if act.done_by_ms is None else datetime.fromtimestamp(act.done_by_ms / 1000, UTC)
        return await self._state.set_deadline(
            Task.model_validate({**record.task.model_dump(), "deadline": deadline}),  # within the calendar
            revision=record.revision if seen is None else seen,
            why=_by(act),
            command=act.id,
        )

    async def set_privacy(self, act: SetPrivacy, sender: bytes = b"") -> BulkAnswer:
        fleet = await self.fleet()
        return await self._each(act, act.ids, lambda task_id, seen: self._set_privacy_one(act, task_id, seen, fleet))

    async def _set_privacy_one(self, act: SetPrivacy, task_id: str, seen: int | None, fleet: Fleet) -> int:
        record = await self._reader.task(task_id)
        _refuse_damaged(record, "set_privacy")
        asked = record.task.model_copy(update={"privacy": act.privacy})
        home = way_home(record.model_copy(update={"task": asked}), fleet)
        made = await self._state.set_privacy(
            asked,
            revision=record.revision if seen is None else seen,
            home=home,
            why=_by(act),
            command=act.id,
        )
        if home is not None:
            fleet.note_placed(home)
        return made

    async def undo(self, act: Undo, sender: bytes = b"") -> BulkAnswer:
        """Take back, one by one, what another command has done.

        Raises:
            NothingToUndo: it has done nothing that can be taken back, or too long ago.
        """
        subjects = await self._reader.acts.undoable(act.act, by=act.id)
        if not subjects:
            raise NothingToUndo(act.act)
        return await self._each(act, subjects, lambda subject, _: self._undo_one(act, subject))

    async def _undo_one(self, act: Undo, subject: str) -> int:
        why = f"taken back {_by(act)}"
        kind, _, name = subject.partition(" ")
        if kind == "cause":
            await self._state.undo_acknowledgement(name, of=act.act, command=act.id)
        elif kind == "silence":
            await self._state.undo_silence(name, of=act.act, command=act.id)
        elif kind == "comment":
            await self._state.undo_comment(name, of=act.act, command=act.id)
        elif kind == "queue":
            await self._state.undo_queue(name, of=act.act, why=why, command=act.id)
        else:
            await self._state.undo_task(subject, of=act.act, why=why, command=act.id)
        return 0

    async def comment(self, act: Comment, sender: bytes = b"") -> BulkAnswer:
        async def note(task_id: str, _: int | None) -> int:
            await self._state.comment_task(task_id, actor=act.actor, text=act.text, command=act.id)
            return 0

        return await self._each(act, act.ids, note)

    async def acknowledge(self, act: Acknowledge, sender: bytes = b"") -> Done:
        await self._state.acknowledge_cause(
            act.cause, act.text, actor=act.actor, note=act.reason, withdraw=act.withdraw, command=act.id
        )
        return Done()

    async def acts(self, ask: Acts, sender: bytes = b"") -> ActsAnswer:
        return ActsAnswer(acts=await self._reader.acts.page(before=ask.before, actor=ask.actor, limit=ask.limit))

    async def _each(
        self, act: Act[Any], ids: Sequence[str], do: Callable[[str, int | None], Awaitable[int]]
    ) -> BulkAnswer:
        """Do an act on every id by itself; each is done or refused, none is left unsaid. ``do`` answers revisions."""
        seen: Sequence[int | None] = getattr(act, "revisions", ()) or (None,) * len(ids)
        if len(seen) != len(ids):
            raise LcqError(f"{len(ids)} ids came with {len(seen)} revisions", hint="give one an id, or none")

        async def one(task_id: str, revision: int | None) -> Refusal | int:
            try:
                return await do(task_id, revision)
            except StateUnavailable:
                raise
            except LcqError as error:
                return Refusal.of(task_id, error)

        told = await asyncio.gather(*(one(task_id, revision) for task_id, revision in zip(ids, seen, strict=True)))
        return BulkAnswer(
            done=tuple(task_id for task_id, one in zip(ids, told, strict=True) if not isinstance(one, Refusal)),
            revisions=tuple(one for one in told if not isinstance(one, Refusal)),
            refused=tuple(one for one in told if isinstance(one, Refusal)),
        )

    # ------------------------------------------------------------ acts on queues and nodes

    async def pause(self, act: Pause, sender: bytes = b"") -> Done:
        queue = self._known_queue(act.queue)
        await self._state.pause_queue(queue, actor=act.actor, reason=act.reason, command=act.id)
        return Done()

    async def resume(self, act: Resume, sender: bytes = b"") -> Done:
        queue = self._known_queue(act.queue)
        await self._state.resume_queue(queue, actor=act.actor, reason=act.reason, command=act.id)
        return Done()

    def _known_queue(self, name: str) -> str:
        known = [queue.name for queue in self._ground.config.queues]
        if name not in known:
            raise UnknownQueue(name, known)
        return name

    async def drain(self, act: Drain, sender: bytes = b"") -> Done:
        if act.deadline_s is not None:
            await self._with_orders(act.node, "hand back what it runs at a deadline")
        await self._state.drain_node(act.node, why="drained " + _by(act), deadline_s=act.deadline_s, command=act.id)
        return Done()

    async def stop_node(self, act: StopNode, sender: bytes = b"") -> Done:
        await self._with_orders(act.node, "be stopped from here: stop it on its host")
        await self._state.stop_node(act.node, why="stopped " + _by(act), deadline_s=act.deadline_s, command=act.id)
        return Done()

    async def drain_idle(self, act: DrainIdle, sender: bytes = b"") -> DrainIdleAnswer:
        left = act.count - await self._reader.done_by(act.id)  # a copy of this command has drained some already
        if act.queue:
            self._known_queue(act.queue)
        drained: list[str] = []
        for idle in (await self._scale()).idle:
            if len(drained) >= left or (act.queue and act.queue not in idle.queues):
                continue
            try:
                await self._state.drain_node(idle.node, why="drained " + _by(act), command=act.id)
            except (NodeNotFound, TransitionRefused):
                continue  # it has gone meanwhile, or somebody else was first
            drained.append(idle.node)
            told = {"act": "drain", "actor": act.actor, "reason": act.reason or "idle", "on": f"node={idle.node}"}
            note = new_id()
            await self._state.note_act(note, b"", told | {"command": note})
        return DrainIdleAnswer(drained=tuple(drained))

    async def autoscale(self, ask: Autoscale, sender: bytes = b"") -> AutoscaleAnswer:
        return AutoscaleAnswer(scale=await self._scale(ask.target_wait_s))

    async def spend(self, ask: AskSpend, sender: bytes = b"") -> SpendAnswer:
        known = await self._reader.spend()
        days = await self._reader.spend_of_days(ask.days) if ask.days else {}
        job = await self._reader.spend_of_job(ask.job) if ask.job else None
        budget = known.budget
        return SpendAnswer(
            currency=budget.currency,
            now=(
                _told_book("hour", known.hour, budget.hour),
                _told_book("day", known.day, budget.day),
                _told_book("month", known.month, budget.month),
            ),
            days=tuple(_told_book(day, book, budget.day) for day, book in days.items()),
            job=_told_book(ask.job, job, budget.job) if job is not None else None,
            job_limit=budget.job,
            user_limit=budget.user_day,
        )

    async def _scale(self, target_s: float = DEFAULT_TARGET_S) -> Scale:
        fleet = await self._reader.fleet()
        return scale(
            fleet,
            await self._reader.queues(),
            await self._reader.depths(),
            now_ms=await self._reader.now_ms(),
            target_s=target_s,
            kept_for=await self._reader.kept_for(fleet.nodes),
        )

    async def activate(self, act: Activate, sender: bytes = b"") -> Done:
        device = await self._device(act.node, act.device)
        await self._state.activate_node(act.node, why="activated " + _by(act), device=device, command=act.id)
        return Done()

    async def quarantine(self, act: Quarantine, sender: bytes = b"") -> Done:
        device, why = await self._device(act.node, act.device), "quarantined " + _by(act)
        await self._state.quarantine_node(act.node, why=why, probed=False, device=device, command=act.id)
        return Done()

    async def set_device(self, act: SetDevice, sender: bytes = b"") -> Done:
        if act.slots is None and act.queues is None:
            raise LcqError("set what?", hint="give slots, or queues, or both")
        node = await self._node(act.node)
        if act.slots is not None:
            await self._with_orders(act.node, "change its slots while it runs: set agent.devices.….slots there")
        if not act.device and len(node.capability.devices) > 1:
            names = ", ".join(device.id for device in node.capability.devices)
            raise LcqError(f"node {act.node} has several devices: {names}", hint="name the one that is meant")
        device = await self._device(act.node, act.device or _only_device(node))
        for name in act.queues or ():
            self._check_queue(node, device, name)
        await self._state.set_device(
            act.node, device, slots=act.slots, queues=act.queues, why="set " + _by(act), command=act.id
        )
        return Done()

    def _check_queue(self, node: NodeRecord, device_id: str, name: str) -> None:
        """Raises:
        LcqError: there is no such queue, or it is for another kind of device.
        """
        self._known_queue(name)
        kind = next(queue.kind for queue in self._ground.config.queues if queue.name == name)
        device = next((one for one in node.capability.devices if one.id == device_id), None)
        if device is not None and device.kind is not kind:
            raise LcqError(
                f"queue {name} is for devices of kind {kind}, {device_id} of node {node.id} is a {device.kind}",
                hint="lcq queues and lcq nodes show the kinds",
            )

    async def label_node(self, act: LabelNode, sender: bytes = b"") -> Done:
        if not (act.labels or act.without or act.forget):
            raise LcqError("which label?", hint="give NAME=VALUE to set one, or name one to take away or to forget")
        labels: dict[str, str | None] = {**act.labels, **dict.fromkeys(act.without)}
        await self._state.label_node(act.node, labels, forget=act.forget, why="labelled " + _by(act), command=act.id)
        return Done()

    async def _node(self, name: str) -> NodeRecord:
        """Raises:
        NodeNotFound
        """
        node = next((one for one in await self._reader.nodes() if one.id == name), None)
        if node is None:
            raise NodeNotFound(name)
        return node

    async def _with_orders(self, name: str, wish: str) -> None:
        """Raises:
        NodeNotFound
        AgentTooOld: its agent is not of those that obey orders by beat.
        """
        node = await self._node(name)
        if KNOWS_ORDERS not in node.capability.knows:
            raise AgentTooOld(name, wish, node.capability.version)

    async def _device(self, name: str, prefix: str) -> str:
        """The whole id of the device of a node of which ``prefix`` is a unique beginning; "" for "".

        Raises:
            NodeNotFound, DeviceNotFound
        """
        if not prefix:
            return ""
        node = await self._node(name)
        known = {device.id for device in node.capability.devices} | set(node.readings) | set(node.quarantined)
        found = [one for one in sorted(known) if one.startswith(prefix)]
        if prefix in known:
            return prefix
        if len(found) != 1:
            raise DeviceNotFound(name, prefix, sorted(known))
        return found[0]

    async def release(self, act: Release, sender: bytes = b"") -> Done:
        await self._state.release_models(act.node, why="released " + _by(act), command=act.id)
        return Done()

    # ------------------------------------------------------------ questions

    async def info(self, ask: Info, sender: bytes = b"") -> InfoAnswer:
        upkeep = await self._reader.upkeep()
        return InfoAnswer(
            scheduler_id=self._ground.site.scheduler_id,
            version=__version__,
            protocol=PROTOCOL_VERSION,
            redis=self._state.server_version,
            queues=self._ground.config.queues,
            last_event_id=await self._reader.last_event_id(),
            pid=os.getpid(),
            config_error=settings.error if (settings := self._ground.site.settings) is not None else "",
            config_refused=settings.refused if settings is not None else 0,
            upkeep_errors={duty: one["error"] for duty, one in upkeep.items() if one.get("error")},
            config_waiting=settings.waiting if settings is not None else (),
            now_ms=await self._reader.now_ms(),
            agreed=self._agreed.told(self._ground.config),
        )

    async def settings(self, ask: AskSettings, sender: bytes = b"") -> SettingsAnswer:
        """Every setting as it holds now, and who said it; no secret."""
        from lcq.reload import leaves
        from lcq.settings.layers import DEFAULT
        from lcq.settings.secrets import hidden

        config = self._ground.config
        values = hidden(config.model_dump(mode="json"), type(config))
        followed = self._ground.site.settings
        layers = followed.manager.layers if followed is not None else None
        said = {key: layers.origin(tuple(key.split("."))) for key, _ in leaves(values)} if layers is not None else {}
        origins = {key: str(origin) for key, origin in said.items() if origin != DEFAULT}
        return SettingsAnswer(values=values, origins=origins)

    async def find(self, ask: Find, sender: bytes = b"") -> FindAnswer:
        return FindAnswer(id=await self._reader.find(ask.prefix))

    async def get_tasks(self, ask: GetTasks, sender: bytes = b"") -> GetTasksAnswer:
        found = await self._reader.tasks(ask.ids)
        missing = tuple(task_id for task_id in ask.ids if task_id not in found)
        return GetTasksAnswer(tasks=tuple(found.values()), missing=missing)

    async def list_tasks(self, ask: ListTasks, sender: bytes = b"") -> ListTasksAnswer:
        return await self._reader.list_tasks(ask)

    async def dead(self, ask: Dead, sender: bytes = b"") -> DeadAnswer:
        return await self._reader.dead(cause=ask.cause, job=ask.job, by=ask.by)

    async def history(self, ask: History, sender: bytes = b"") -> HistoryAnswer:
        record, why = await self._explainer.one(ask.task_id)
        return HistoryAnswer(
            record=record,
            attempts=await self._reader.attempts(ask.task_id),
            events=await self._reader.task_events(record),
            explanation=why.text,
            why=why,
            currency=self._state.config.overflow.budget.currency,
        )

    async def costs(self, ask: Costs, sender: bytes = b"") -> CostsAnswer:
        """What attempts were predicted to take, and took."""
        book, fleet = await self._reader.learned.book(), await self._reader.fleet()
        known = await self._reader.learned.observations()
        curves: dict[CostKey, Curve] = {}
        for station in fleet.timetable.stations.values():  # what they can do and nobody has seen yet
            for lane in station.lanes:
                offer = station.capability.models[model_of(lane)]
                key = cost_key(lane, station.device, offer)
                if key not in curves:
                    curves[key] = book.curve(lane, station.device, offer=offer)
        for key in known:
            curves[key] = book.curves.get(key) or shipped_curve(key.model, DeviceKind(key.kind), cores=key.cores)
        stats = []
        for key, curve in sorted(curves.items(), key=lambda one: one[0]):
            if ask.model and key.model != ask.model:
                continue
            seen, held = known.get(key, ((), ()))
            shipped = "estimate" if is_estimate(key.model, DeviceKind(key.kind)) else "measured"
            now = {"fixed_s": curve.fixed_s, "s_per_megapixel": curve.s_per_megapixel, "load_s": curve.load_s}
            now["memory_attempts"] = curve.mib_samples
            stats.append(
                CostStats(
                    **asdict(key),
                    **asdict(calibration(key, seen)),
                    **asdict(memory_calibration(held)),
                    **now,
                    basis="learned" if curve.samples else shipped,
                )
            )
        return CostsAnswer(costs=tuple(stats))

    async def report(self, ask: Report, sender: bytes = b"") -> ReportAnswer:
        """Raises:
        InvalidInput: ``since`` is no time.
        """
        days = days_since(ask.since, today_of(await self._reader.now_ms()))
        used = await self._reader.usage(days)
        others = {by: used.rows(by) for by in BYS if by not in (ask.by, "day")} if ask.whole else {}
        of_days = used.rows("day")
        config = self._ground.config
        is_free_else = config.report.prices == PricesConfig()
        has_paid = any(row.function_s or (row.cost and is_free_else) for row in of_days)
        return ReportAnswer(
            by=ask.by,
            currency=config.report.currency or (config.overflow.budget.currency if has_paid else ""),
            rows=of_days if ask.by == "day" else used.rows(ask.by),
            days=of_days,
            total=total_of(of_days),
            others=others,
        )

    async def why(self, ask: AskWhy, sender: bytes = b"") -> WhyAnswer:
        record, why = await self._explainer.one(ask.task_id)
        return WhyAnswer(id=record.id, status=record.status, why=why, revision=record.revision)

    async def whys(self, ask: AskWhys, sender: bytes = b"") -> WhysAnswer:
        return WhysAnswer(whys=tuple(await self._explainer.many(ask.ids)))

    async def nodes(self, ask: Nodes, sender: bytes = b"") -> NodesAnswer:
        return NodesAnswer(nodes=await self._reader.nodes())

    async def queues(self, ask: Queues, sender: bytes = b"") -> QueuesAnswer:
        return QueuesAnswer(queues=await self._reader.queues())

    async def events(self, ask: Events, sender: bytes = b"") -> EventsAnswer:
        """Waits on the feed that this process reads anyway: a thousand readers cost Redis one."""
        feed = self._state.feed
        after = feed.last_id if ask.after == "$" else ask.after
        answer = await self._reader.events(after, 0, ask.limit)
        if not answer.events and not answer.gap and ask.wait_ms:
            await feed.wait_for_news(after, ask.wait_ms / 1000)
            answer = await self._reader.events(after, 0, ask.limit)
        return answer

    # ------------------------------------------------------------ timed duties

    async def _do_duties(self) -> None:
        scheduler_id = self._ground.site.scheduler_id
        complaints = Complaints("task duties")
        depths_at = -math.inf
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_TICK_S):
                    await self._fleet_changed.wait()
                    await asyncio.sleep(_AFTER_CHANGE_S)  # a fleet that comes back changes many times
            try:
                if not await self._state.take_duty("tasks", scheduler_id, hold_ms=_DUTY_HOLD_MS):
                    self._fleet_changed.clear()
                    continue
                await complained(self._state.release_due(), complaints)
                await complained(self._state.recall_tasks(), complaints)
                await complained(self._state.account_tasks(), complaints)
                if self._state.config.archive.folder is None:  # else the archivist forgets them, when it has them
                    await complained(self._state.forget_tasks(), complaints)
                await complained(self._jobs.go_on(), complaints)
                await complained(self._warming.settle_lost(), complaints)
                if time.monotonic() - depths_at > _DEPTHS_S:
                    depths_at = time.monotonic()
                    await complained(self._state.note_depths(), complaints)
                changed = self._fleet_changed.is_set()
                self._fleet_changed.clear()
                if self._mover.is_due(changed=changed):
                    await complained(self._move_waiting(), complaints)
            except StateUnavailable:
                self._fleet_changed.clear()  # StateManager's feed has said so; the next tick tries again
            except LcqError as refusal:
                complaints.say(refusal)

    async def _move_waiting(self) -> None:
        """Tasks that nothing can run where they wait go where something can; and some where they are done earlier."""
        fleet = await self.fleet()
        await self._mover.move_stranded(fleet)
        await self._mover.bring_home(fleet)
        await self._mover.move_tails(fleet)
        await self._warming.look(fleet)


def _only_device(node: NodeRecord) -> str:
    """The one device of a node that has one; "" where it has none."""
    return node.capability.devices[0].id if node.capability.devices else next(iter(node.readings), "")


def _refuse_damaged(record: TaskRecord, move: str) -> None:
    """Raises:
    TransitionRefused: its record cannot be read, so nobody knows what would run.
    """
    if record.damaged:
        found = f"damaged: {record.damaged}"
        raise TransitionRefused(move, f"task {record.id}", found, hint="submit it anew; this record expires")


def _by(act: Act[Any]) -> str:
    return f"by {act.actor}" + (f": {act.reason}" if act.reason else "")


def _told_book(name: str, book: Book, limit: float | None) -> SpendBook:
    return SpendBook(
        name=name, spent=book.spent, reserved=book.reserved, calls=book.calls, limit=limit, users=dict(book.users),
        users_reserved=dict(book.users_reserved),
    )  # fmt: skip

"""Where a task runs: a pure function of what it needs and of a picture of the fleet. No I/O, no clock."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from lcq.costs import (
    KNOWN_MODELS,
    ORDINARY_MEGAPIXELS,
    SHIPPED,
    CostBook,
    ModelFacts,
    megapixels_at_once,
    precision_of,
    processed_megapixels,
)
from lcq.errors import InvalidInput, NodeNotFound, UnknownModel, UnknownQueue
from lcq.labels import satisfies, told_labels, why_unlabelled
from lcq.memory_costs import room_needed
from lcq.models import (
    Device,
    DeviceKind,
    Ease,
    ModelOffer,
    NodeRecord,
    NodeStatus,
    Privacy,
    QueueConfig,
    RestCode,
    Task,
    TaskPriority,
    TaskRecord,
    TaskType,
    lane_name,
    model_of,
)
from lcq.placement import Backlog, Station, Timetable
from lcq.reasons import Why, WhyCode, because
from lcq.reserve import kept_slots
from lcq.spend import Overflow

LIVE = frozenset({NodeStatus.ONLINE, NodeStatus.SUSPECT})
OUT_OF_MEMORY = "out_of_memory"  # the failure that is answered by an easier attempt

CALL_TOO_LARGE = "call_too_large"
"""A picture that no call of that function carries."""

BROKE_AT_FUNCTION = frozenset(
    {
        CALL_TOO_LARGE, "result_too_large", "function_failed", "function_error", "result_not_taken", "result_missing",
        "reply_unreadable", "bytes_unreachable",
    }
)  # fmt: skip
"""Codes of functions alone: what has failed so is done by the house, where that can."""

WARM_NEEDS = 0.5
"""The share of a predicted need that is still to be had where the model is warm. What it has loaded is taken already;
of what a model needs in all, its weights are taken to be half, as nothing more exact is known beforehand."""

_ABILITY = {
    TaskType.INPAINT: "inpaint",
    TaskType.UPSCALE: "upscale",
    TaskType.SEGMENT: "segment",
    TaskType.PLUGIN: "run plugin tasks",
}
_STEP = {
    Ease.SMALLER_TILE: "a smaller tile",
    Ease.LOWER_PRECISION: "lower precision",
    Ease.BIGGER_GPU: "a bigger GPU",
    Ease.CPU: "the CPU",
}
_SMALLER = frozenset({Ease.SMALLER_TILE, Ease.LOWER_PRECISION})


@dataclass(frozen=True)
class Requirements:
    """What a task needs of a device."""

    model: str
    task_type: TaskType
    kinds: tuple[DeviceKind, ...]  # allowed, best first
    vram_mib: int  # predicted; 0: not known
    seconds: Mapping[DeviceKind, float]  # typical of devices of that kind
    labels: Mapping[str, str] = field(default_factory=dict)  # that its node must have
    megapixels: float = ORDINARY_MEGAPIXELS  # that are worked on
    precision: str = ""
    priority: TaskPriority = TaskPriority.NORMAL
    user: str = ""
    job: str = ""
    at_once: float = ORDINARY_MEGAPIXELS  # megapixels of it that are surely in memory at a time
    deadline_ms: int | None = None  # when it is to be done
    is_homebound: bool = False  # functions have failed it: they get it no more where the house can do it
    is_smaller: bool = False  # it was made to need less memory: what was learned of whole attempts says nothing of it
    ordinary_mib: int = 0
    """What an ordinary picture needs of a GPU. Where none has what a large one needs whole, it has to be tried with
    less: the ladder cuts it up."""

    @cached_property
    def place(self) -> tuple[object, ...]:
        """By what it is decided which devices may run this."""
        of_memory = (self.vram_mib, self.at_once, self.precision, self.is_smaller)
        return (self.model, self.task_type, of_memory, tuple(sorted(self.labels.items())))

    @property
    def lane(self) -> str:
        """By what costs of this are known."""
        return lane_name(self.model, self.task_type)

    def ordinary(self) -> Requirements:
        """This, cut up into ordinary pieces."""
        return replace(self, vram_mib=self.ordinary_mib, at_once=ORDINARY_MEGAPIXELS)

    def fits(self, queue: QueueConfig) -> bool:
        """Whether every device that is good enough for ``queue`` can run this."""
        if queue.kind not in self.kinds:
            return False
        return queue.kind != DeviceKind.GPU or queue.min_vram_mib >= self.vram_mib

    def allows(self, node: NodeRecord) -> bool:
        """Whether ``node`` has the labels that are required."""
        return not self.labels or satisfies(node.labels, self.labels)

    def seconds_on(self, kind: DeviceKind) -> float:
        return self.seconds.get(kind, 1.0)


@dataclass(frozen=True)
class Fleet:
    """A picture of the cluster, as routing sees it."""

    queues: tuple[QueueConfig, ...]
    nodes: tuple[NodeRecord, ...] = ()
    waiting: Mapping[str, int] = field(default_factory=dict)  # queued tasks a queue
    paused: Mapping[str, str] = field(default_factory=dict)  # paused queue -> who and why
    paused_jobs: Mapping[str, str] = field(default_factory=dict)  # paused job -> who and why
    costs: CostBook = SHIPPED
    backlog: Mapping[str, Backlog] = field(default_factory=dict)  # queue -> typical seconds of what waits there
    users: Mapping[str, frozenset[str]] = field(default_factory=dict)  # queue -> who waits there; of many, some
    tasks_of: Mapping[str, Mapping[str, int]] = field(default_factory=dict)  # queue -> how many tasks each has there
    busy_s: Mapping[tuple[str, str], tuple[float, ...]] = field(default_factory=dict)
    """By node and device: seconds until each attempt there is predicted to end; of one that is late, by how much it
    is, for nothing better is known of it."""
    overflow: Overflow | None = None  # by which rules work goes to functions; None: there is none that takes any
    interactive: frozenset[tuple[str, str]] = frozenset()  # queues and lanes to which somebody who waits came of late
    placed_s: dict[str, float] = field(default_factory=dict)  # by queue: routed there since this picture was taken

    _memo: dict[object, Any] = field(default_factory=dict, compare=False, repr=False)
    """What was found out of this picture, by what was asked: a thousand tasks of one submit ask the same."""

    def note_placed(self, route: Route) -> None:
        """Count what was routed by this picture: the next task had better know of it."""
        self.placed_s[route.queue] = self.placed_s.get(route.queue, 0.0) + route.seconds

    @cached_property
    def timetable(self) -> Timetable:
        """When work would be done where."""
        stations = {}
        for node in self.live:
            for device in node.capability.devices:
                queues = node.serves.get(device.id, ())
                if queues and not fault_of(node, device):
                    name, reading = (node.id, device.id), node.readings.get(device.id)
                    lowered = node.lowered.get(device.id)
                    slots = min(device.slots, lowered.most) if lowered else device.slots
                    stations[name] = Station(
                        name=name,
                        device=device,
                        capability=node.capability,
                        lanes=node.capability.lanes_of(device),
                        queues=queues,
                        free_s=_free_s(slots, self.busy_s.get(name, ())),
                        warm=frozenset(reading.warm if reading else ()),
                        lowered=lowered,
                    )
        return Timetable(stations, self.backlog, self.costs, self.users, self.tasks_of)

    def kept_slots(self, most: int) -> Mapping[tuple[str, str], int]:
        """By node and device: the slots that are kept for people who wait, ``most`` for each queue and lane."""
        if not most or not self.interactive:
            return {}
        if ("kept", most) not in self._memo:
            self._memo["kept", most] = kept_slots(self.timetable.stations.values(), self.interactive, most)
        found: Mapping[tuple[str, str], int] = self._memo["kept", most]
        return found

    def queue(self, name: str) -> QueueConfig | None:
        return next((queue for queue in self.queues if queue.name == name), None)

    def node(self, name: str) -> NodeRecord | None:
        return next((node for node in self.nodes if node.id == name), None)

    # What is worked out once for a picture, and not for each of the tasks that are routed by it.

    @cached_property
    def live(self) -> list[NodeRecord]:
        """The nodes that take work."""
        return [node for node in self.nodes if node.status in LIVE]

    @cached_property
    def offers(self) -> Mapping[str, tuple[ModelOffer, ...]]:
        """By model, what nodes offer of it, or would: each once that says anything else of its needs."""
        found: dict[str, dict[tuple[object, ...], ModelOffer]] = {}
        for node in self.nodes:
            for offered in (node.capability.models, node.capability.withheld):
                for model, offer in offered.items():
                    told = (offer.kinds, offer.task_types, offer.engine, offer.vram_mib, *sorted(offer.seconds.items()))
                    found.setdefault(model, {}).setdefault(told, offer)
        return {model: tuple(different.values()) for model, different in found.items()}

    @property
    def models(self) -> frozenset[str]:
        """Every model that is known by name or offered by a node, or would be."""
        offered = {model for node in self.nodes for model in (*node.capability.models, *node.capability.withheld)}
        return frozenset(offered | set(KNOWN_MODELS))

    def serving(self, queue: str, need: Requirements) -> Iterator[tuple[NodeRecord, Device]]:
        """The devices that take tasks like this from ``queue``.

        They are live and without a fault, have the model and the labels, and are large enough.
        """
        for node in self.live:
            if not need.allows(node):
                continue
            for device in node.capability.devices:
                if (
                    queue in node.serves.get(device.id, ())
                    and node.capability.can_run(device, need.model, need.task_type)
                    and not fault_of(node, device)
                    and self.memory_need(node, device, need) <= room_of(device)
                ):
                    yield node, device

    def members(self, queue: str, need: Requirements) -> Mapping[tuple[str, str], int]:
        """The devices that take tasks like this from ``queue``, by node and device, with their slots."""
        asked = ("members", queue, need.place)
        if asked not in self._memo:
            self._memo[asked] = {(node.id, device.id): device.slots for node, device in self.serving(queue, need)}
        found: Mapping[tuple[str, str], int] = self._memo[asked]
        return found

    def live_slots(self, queue: str, need: Requirements) -> int:
        """How many slots there are on the devices that take tasks like this from ``queue``."""
        asked = ("slots", queue, need.place)
        if asked not in self._memo:
            self._memo[asked] = sum(self.members(queue, need).values())
        found: int = self._memo[asked]
        return found

    def is_within(self, queue: str, other: str, need: Requirements) -> bool:
        """Whether all devices that take tasks like this from ``queue`` take them from ``other`` too."""
        asked = ("within", queue, other, need.place)
        if asked not in self._memo:
            self._memo[asked] = self.members(queue, need).keys() <= self.members(other, need).keys()
        found: bool = self._memo[asked]
        return found

    def is_served(self, queue: str, lane: str) -> bool:
        """Whether any device takes tasks from this lane of ``queue``."""
        return self.room_in(queue, lane) is not None

    def memory_need(self, node: NodeRecord, device: Device, need: Requirements) -> int:
        """What such a task needs of a GPU's memory there, in MiB; 0: not known.

        What was learned of the device, or of its like, counts more than what its engine says, and that more than the
        prediction that came with the task. ``claim_tasks`` does the same.
        """
        offer = node.capability.models[need.model]
        if device.kind is DeviceKind.GPU and not need.is_smaller:
            learned = self.costs.learned_memory(need.lane, device, precision=need.precision, offer=offer)
            if learned is not None:
                return room_needed(learned, need.at_once, otherwise=offer.vram_mib)
        return memory_need(offer, need.vram_mib)

    def claim_need(self, node: NodeRecord, device: Device, need: Requirements, submitted_mib: int) -> int:
        """What ``claim_tasks`` wants to be free there for a task for which so much was predicted at its submit."""
        needed = self.memory_need(node, device, replace(need.ordinary(), vram_mib=submitted_mib))
        if self._is_told(node, device, need.lane):
            return needed
        return submitted_mib if need.is_smaller else max(needed, submitted_mib)

    def room_in(self, queue: str, lane: str) -> float | None:
        """The memory in MiB of the largest device that takes tasks from this lane of ``queue``; None if none does.

        It has no end where any task of the lane fits: on a CPU, on a GPU of unknown size, or where the engine itself
        says what its model needs.
        """
        return max(
            (
                float("inf") if self._is_told(node, device, lane) else room_of(device)
                for node in self.live
                for device in node.capability.devices
                if queue in node.serves.get(device.id, ()) and not fault_of(node, device) and node.reads(device, lane)
            ),
            default=None,
        )

    def _is_told(self, node: NodeRecord, device: Device, lane: str) -> bool:
        """Whether the engine's own word says what tasks of the lane need there, and not their prediction."""
        offer = node.capability.models[model_of(lane)]
        return bool(offer.vram_mib) and self.costs.learned_memory(lane, device, offer=offer) is None


def _free_s(slots: int, busy_s: tuple[float, ...]) -> tuple[float, ...]:
    """Until each slot of a device is free; what it holds ahead of its slots comes after what runs."""
    free = [0.0] * slots
    for seconds in sorted(busy_s):
        free[free.index(min(free))] += seconds
    return tuple(sorted(free))


def fault_of(node: NodeRecord, device: Device) -> str:
    """Why ``device`` takes no work now: it is in quarantine, or its node's last beat told; empty if it does."""
    if device.id in node.quarantined:
        return f"in quarantine: {node.quarantined[device.id]}"
    reading = node.readings.get(device.id)
    return reading.fault if reading else ""


def room_of(device: Device) -> float:
    """The memory a GPU has in all, in MiB; where it is not known, or the device is none, there is no end to it."""
    return device.vram_mib if device.kind is DeviceKind.GPU and device.vram_mib else float("inf")


def memory_need(offer: ModelOffer, predicted_mib: int) -> int:
    """What a task needs of a GPU's memory on a node that makes this offer, in MiB; 0: not known.

    The engine there knows better than the prediction that came with the task. ``claim_tasks`` does the same.
    """
    return offer.vram_mib or predicted_mib


@dataclass(frozen=True)
class Route:
    """The queue a task goes to; ``why`` is empty if something there can run it now, else a reason to act on."""

    queue: str
    seconds: float  # predicted run time there
    why: str = ""
    vram_mib: int = 0  # what it is predicted to need where that is a GPU
    reason: Why | None = field(default=None, compare=False)  # ``why`` with its code


def requirements_of(record: TaskRecord, fleet: Fleet) -> Requirements:
    """As ``requirements``, of a task as it is by now."""
    return requirements(record.task, fleet, size=record.size, eased=record.eased)


def requirements(
    task: Task, fleet: Fleet, *, size: tuple[int, int] | None = None, eased: Collection[Ease] = ()
) -> Requirements:
    """What ``task`` needs, from its model, its type and its device wish; what is not known of a model, nodes tell.

    ``size``: width and height of its image, where they are known. ``eased``: what was made easier for it.

    Raises:
        UnknownModel: neither known by name nor offered by any node; says the nearest name.
    """
    known = KNOWN_MODELS.get(task.model)
    offers = fleet.offers.get(task.model, ())
    if known is None and not offers:
        raise UnknownModel(task.model, fleet.models, image=printable(task.image_path))
    facts = _facts(known, offers)
    wish = task.device
    if wish == "cpu":
        wanted: Collection[DeviceKind] = (DeviceKind.CPU,)
    elif wish == "auto":
        wanted = facts.kinds
    else:
        wanted = (DeviceKind.GPU,)
    kinds = tuple(kind for kind in facts.kinds if kind in wanted)
    if wish == "auto" and DeviceKind.SERVERLESS not in kinds and _may_leave(task, offers):
        kinds = (*kinds, DeviceKind.SERVERLESS)  # after all that is of the house
    elif task.privacy is Privacy.PRIVATE:
        kinds = tuple(kind for kind in kinds if kind is not DeviceKind.SERVERLESS)
    megapixels, precision = processed_megapixels(task, size), precision_of(task)
    lane = lane_name(task.model, task.task_type)
    at_once = megapixels_at_once(task, size)
    vram_mib = facts.vram_mib + int(facts.vram_mib_per_megapixel * (at_once - ORDINARY_MEGAPIXELS))
    ordinary_mib = facts.vram_mib
    cautious = ModelOffer(kinds=facts.kinds, vram_mib=facts.vram_mib, seconds=dict(facts.seconds)) if kinds else None
    learned = fleet.costs.typical(lane, DeviceKind.GPU, precision=precision, offer=cautious)
    is_smaller = not _SMALLER.isdisjoint(eased)
    if learned.mib_samples and not is_smaller:
        vram_mib = room_needed(learned, at_once, otherwise=vram_mib)
        ordinary_mib = room_needed(learned, ORDINARY_MEGAPIXELS, otherwise=ordinary_mib)
    return Requirements(
        model=task.model,
        task_type=task.task_type,
        kinds=kinds,
        vram_mib=vram_mib,
        seconds={
            kind: round(fleet.costs.typical(lane, kind, precision=precision, offer=cautious).seconds(megapixels), 4)
            for kind in dict.fromkeys((*facts.kinds, *kinds))
        },
        labels=task.requires,
        megapixels=megapixels,
        precision=precision,
        priority=task.priority,
        user=task.user_id,
        job=task.job or "",
        at_once=at_once,
        ordinary_mib=ordinary_mib,
        deadline_ms=task.deadline_ms,
        is_smaller=is_smaller,
    )


def _may_leave(task: Task, offers: Iterable[ModelOffer]) -> bool:
    """Whether functions may, and can, work on ``task``."""
    return task.privacy is Privacy.EXPORTABLE and any(
        DeviceKind.SERVERLESS in offer.kinds and task.task_type in offer.task_types for offer in offers
    )


def _facts(known: ModelFacts | None, offers: Iterable[ModelOffer]) -> ModelFacts:
    """What is known by name, and what offers tell beyond it: where they differ, the most cautious of them."""
    offers = list(offers)
    seconds: dict[DeviceKind, float] = {}
    for offer in offers:
        for kind, one in offer.seconds.items():
            seconds[kind] = max(one, seconds.get(kind, 0.0))
    kinds = known.kinds if known else tuple(dict.fromkeys(kind for offer in offers for kind in offer.kinds))
    vram_mib = (known.vram_mib if known else 0) or max((offer.vram_mib for offer in offers), default=0)
    return ModelFacts(
        kinds,
        vram_mib,
        seconds | dict(known.seconds if known else {}),
        vram_mib_per_megapixel=known.vram_mib_per_megapixel if known else 0,
    )


def printable(text: str) -> str:
    """``text`` with newlines, escape codes and the like made visible, for messages."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def route(
    task: Task,
    fleet: Fleet,
    *,
    queue: str = "",
    node: str = "",
    size: tuple[int, int] | None = None,
    eased: Collection[Ease] = (),
) -> Route:
    """The queue in which ``task`` is predicted to be done first; of equals, and of those with no device more, the least
    capable.

    ``queue`` and ``node`` are an operator's choice, which is obeyed if it exists. ``size``: width and height of the
    image, where they are known. ``eased``: what was made easier for it.

    Raises:
        UnknownModel, UnknownQueue, NodeNotFound: what was asked for does not exist.
    """
    need = requirements(task, fleet, size=size, eased=eased)
    if node:
        return _route_to_node(task, need, fleet, node, queue)
    if queue:
        chosen = fleet.queue(queue)
        if chosen is None:
            raise UnknownQueue(queue, [known.name for known in fleet.queues], image=printable(task.image_path))
        if chosen.kind is DeviceKind.SERVERLESS and task.privacy is Privacy.PRIVATE:
            raise InvalidInput(
                f"{printable(task.image_path)}: queue {queue} is of functions, and the task is not marked as one that "
                "may leave the house",
                hint="lcq submit --exportable, or another queue",
            )
        reason = None if fleet.live_slots(queue, need) else _why_nothing_runs(need, fleet, (chosen,))
        return Route(queue, need.seconds_on(chosen.kind), _line(reason), need.vram_mib, reason)
    return _route_freely(task, need, fleet)


def route_again(record: TaskRecord, fleet: Fleet) -> Route:
    """The queue for a waiting task that nothing serves where it is. The steps it has taken stay taken.

    Raises:
        UnknownModel: no node offers it any more.
    """
    return _again(record, fleet, is_homebound=_is_homebound(record))


def home_of(record: TaskRecord, fleet: Fleet) -> Route | None:
    """Where the house does a running task that a function has failed; None where it cannot, or an operator has said
    where it runs."""
    here = fleet.queue(record.queue)
    if record.forced or record.pinned_node or record.damaged or here is None or here.kind is not DeviceKind.SERVERLESS:
        return None
    try:
        home = _again(record, fleet, is_homebound=True)
    except UnknownModel:
        return None
    chosen = fleet.queue(home.queue)
    return None if home.why or chosen is None or chosen.kind is DeviceKind.SERVERLESS else home


def is_barred(record: TaskRecord, fleet: Fleet) -> bool:
    """Whether it waits, or would wait again, for functions, which may not have its pictures."""
    here = fleet.queue(record.queue)
    return record.task.privacy is Privacy.PRIVATE and here is not None and here.kind is DeviceKind.SERVERLESS


def way_home(record: TaskRecord, fleet: Fleet) -> Route | None:
    """Where in the house a task waits that functions may not have any more, whoever has sent it to them; None where it
    is none of those, or the house has no queue for it."""
    if record.damaged or not is_barred(record, fleet):
        return None
    try:
        home = route_again(record, fleet)
    except UnknownModel:
        return None
    chosen = fleet.queue(home.queue)
    return None if chosen is None or chosen.kind is DeviceKind.SERVERLESS else home


def _is_homebound(record: TaskRecord) -> bool:
    return record.failure is not None and record.failure.code in BROKE_AT_FUNCTION


def _again(record: TaskRecord, fleet: Fleet, *, is_homebound: bool) -> Route:
    need = replace(requirements_of(record, fleet), is_homebound=is_homebound)
    here = fleet.queue(record.queue)
    if Ease.CPU in record.eased:
        need = replace(need, kinds=(DeviceKind.CPU,))
    elif Ease.BIGGER_GPU in record.eased and here is not None:
        bigger_mib = max(need.vram_mib, here.min_vram_mib)
        need = replace(need, vram_mib=bigger_mib, ordinary_mib=bigger_mib)
    return _route_freely(record.task, need, fleet)


EARLIER = 0.7
"""A waiting task is moved only to where it is done in less than this share of the time."""
_WORTH_MOVING_S = 2.0


def earlier_route(record: TaskRecord, fleet: Fleet) -> Route | None:
    """Where the last task of its queue would be done much earlier, by devices that do not serve that; None if nowhere.

    What an operator has put somewhere, or what has been made easier, stays.
    """
    here = fleet.queue(record.queue)
    if record.forced or record.pinned_node or record.eased or record.damaged or here is None:
        return None
    try:
        need = requirements_of(record, fleet)
    except UnknownModel:
        return None
    better = route_again(record, fleet)
    there = fleet.queue(better.queue)
    if better.why or there is None or there.name == here.name or there.name in fleet.paused:
        return None
    if fleet.is_within(there.name, here.name, need):
        return None  # it would only go before others
    now_s, then_s = _finish(here, need, fleet, more_s=-record.cost_s), _finish(there, need, fleet)
    if here.kind is DeviceKind.SERVERLESS:
        lack = fleet.overflow.lack(need.user, need.job) if fleet.overflow is not None else ""
        if lack or _is_homebound(record):
            return better  # nothing of it is called before there is money again; or it has failed there
    left_s = fleet.overflow.left_s(need.deadline_ms) if fleet.overflow is not None else None
    if left_s is not None and then_s <= left_s < now_s:
        return better  # it is done in time there, and not here
    return better if then_s < EARLIER * now_s and now_s - then_s > _WORTH_MOVING_S else None


def _route_freely(task: Task, need: Requirements, fleet: Fleet) -> Route:
    for is_whole in (True, False):
        wanted = need if is_whole else need.ordinary()
        live = [known for known in _fitting(wanted, fleet) if fleet.live_slots(known.name, wanted)]
        live = _within_overflow(live, wanted, fleet)
        if live:
            best = _soonest(_apart(live, wanted, fleet), wanted, fleet)
            reason = _why_unpaid(best, need, fleet)
            return Route(best.name, need.seconds_on(best.kind), _line(reason), wanted.vram_mib, reason)
    need = need.ordinary()
    fitting = _fitting(need, fleet)
    if not fitting:
        # It cannot run on what was wished for: it waits in the first queue, with its reason.
        reason = why_no_queue(need, task.device, fleet.queues[0].name)
        return Route(fleet.queues[0].name, 1.0, reason.text, need.vram_mib, reason)
    reason = _why_nothing_runs(need, fleet, tuple(fitting))
    return Route(fitting[0].name, need.seconds_on(fitting[0].kind), reason.text, need.vram_mib, reason)


def _within_overflow(live: list[QueueConfig], need: Requirements, fleet: Fleet) -> list[QueueConfig]:
    """``live`` without the queues of functions, where the house is soon enough, or the budget does not allow them.

    Where nothing of the house takes it, all that is left may be those: budget or not, that is where it waits.
    """
    house = [known for known in live if known.kind is not DeviceKind.SERVERLESS]
    if len(house) == len(live) or not house:
        return live
    overflow = fleet.overflow
    if need.is_homebound or overflow is None or overflow.lack(need.user, need.job):
        return house
    soonest_s = min(_finish(known, need, fleet) for known in house)
    return live if overflow.is_late(soonest_s, need.deadline_ms) else house


def _fitting(need: Requirements, fleet: Fleet) -> list[QueueConfig]:
    """The queues that may have a task like this, the least capable first.

    What needs more of a GPU than any queue promises, because its image is large, may go to the highest class: some
    devices there may be large enough.
    """
    fitting = [known for known in fleet.queues if need.fits(known)]
    gpus = [known for known in fleet.queues if known.kind is DeviceKind.GPU and known.kind in need.kinds]
    if gpus and need.vram_mib > need.ordinary_mib and not any(known in fitting for known in gpus):
        fitting.append(max(gpus, key=_capability))
    return sorted(fitting, key=_capability)


def _route_to_node(task: Task, need: Requirements, fleet: Fleet, name: str, queue: str) -> Route:
    node = fleet.node(name)
    if node is None:
        raise NodeNotFound(name)
    capability = node.capability
    served = {
        known
        for device in capability.devices
        if capability.can_run(device, need.model, need.task_type)
        for known in node.serves.get(device.id, ())
    }
    usable = [known for known in fleet.queues if known.name in served and known.kind in need.kinds]
    # A queue whose devices are large enough before one that may not be: the node was chosen, and is obeyed anyway.
    usable.sort(key=lambda known: (not need.fits(known), need.kinds.index(known.kind), _capability(known)))
    allowed = [known for known in fleet.queues if known.kind in need.kinds] or list(fleet.queues)
    home = queue or (usable or allowed)[0].name
    chosen = fleet.queue(home)
    if chosen is None:
        raise UnknownQueue(home, [known.name for known in fleet.queues], image=printable(task.image_path))
    reason = _why_not_on(node, need, task.device, is_served=bool(usable))
    names = {known.name for known in usable}
    meant = [one for one in capability.devices if capability.can_run(one, need.model, need.task_type)]
    meant = [one for one in meant if names & set(node.serves.get(one.id, ()))]
    if reason is None and meant and all(fault_of(node, one) for one in meant):
        reason = _why_out([(node, one) for one in meant])
    return Route(home, need.seconds_on(chosen.kind), _line(reason), need.vram_mib, reason)


def _capability(queue: QueueConfig) -> tuple[bool, bool, int, int, int]:
    dear = queue.kind is DeviceKind.SERVERLESS
    return (dear, queue.kind != DeviceKind.CPU, queue.min_vram_mib, queue.min_cores, queue.min_memory_mib)


def _apart(queues: list[QueueConfig], need: Requirements, fleet: Fleet) -> list[QueueConfig]:
    """Of ``queues``, the least capable first, those that have a device which serves no less capable one of them.

    A bigger GPU serves the classes below its own, after its own: what is sent to its own class although all its devices
    serve a lower one too would only go before what waits there, whoever's and however urgent that is.
    """
    kept: list[QueueConfig] = []
    for queue in queues:
        if not any(fleet.is_within(queue.name, lower.name, need) for lower in kept):
            kept.append(queue)
    return kept


def _soonest(queues: Iterable[QueueConfig], need: Requirements, fleet: Fleet) -> QueueConfig:
    return min(queues, key=lambda known: (_finish(known, need, fleet), _capability(known)))


def _finish(queue: QueueConfig, need: Requirements, fleet: Fleet, *, more_s: float = 0.0) -> float:
    """Predicted seconds until a task put into ``queue`` now is done. ``more_s``: with so much more work before it."""
    lane, timetable = lane_name(need.model, need.task_type), fleet.timetable
    more_s += fleet.placed_s.get(queue.name, 0.0)
    if queue.name not in fleet.backlog:
        more_s += fleet.waiting.get(queue.name, 0) * need.seconds_on(queue.kind)
    finish_s = timetable.finish_s(
        queue.name,
        lane,
        lambda: [timetable.stations[name] for name in fleet.members(queue.name, need)],
        key=(need.vram_mib, tuple(sorted(need.labels.items()))),
        precision=need.precision,
        megapixels=need.megapixels,
        priority=need.priority,
        more_s=more_s,
        user=need.user,
    )
    return float("inf") if finish_s is None else finish_s


@dataclass(frozen=True)
class Foresight:
    """Where a task would go now, and in how many seconds it would be done; None: nobody can say."""

    route: Route
    done_s: float | None
    guessed: bool = False  # what it takes there nobody has measured, or learned


def foresee(
    task: Task, fleet: Fleet, *, queue: str = "", node: str = "", size: tuple[int, int] | None = None
) -> Foresight:
    """What would become of ``task`` if it were submitted now. As for ``route``."""
    chosen = route(task, fleet, queue=queue, node=node, size=size)
    known = fleet.queue(chosen.queue)
    need = requirements(task, fleet, size=size)
    guessed = known is not None and _is_guess(known, need, fleet)
    if chosen.why or node or known is None or known.name in fleet.paused:
        return Foresight(chosen, None, guessed)
    done_s = _finish(known, need, fleet)
    return Foresight(chosen, None if done_s == float("inf") else done_s, guessed)


def _is_guess(queue: QueueConfig, need: Requirements, fleet: Fleet) -> bool:
    """Whether nobody has measured, or learned, what such a task takes on one of the devices there; or at all."""
    lane, timetable = lane_name(need.model, need.task_type), fleet.timetable
    stations = [timetable.stations[name] for name in fleet.members(queue.name, need)]
    if not stations:
        return fleet.costs.typical(lane, queue.kind, precision=need.precision).guessed
    return any(timetable.curve(one, lane, need.precision).guessed for one in stations)


# ---------------------------------------------------------------- the ladder


@dataclass(frozen=True)
class EaseStep:
    """What is made easier for a task's next attempt, and where that waits."""

    ease: Ease
    queue: str
    avoid: bool = False  # where another node serves that lane, the one that failed leaves it alone


def next_ease(record: TaskRecord, fleet: Fleet) -> EaseStep | None:
    """The next step of the ladder for a running task that has run out of memory; None where none is left.

    First what its engine can do where it runs: a smaller tile, then lower precision. Then a GPU class above,
    a class at a time, then the CPU if the task leaves the device to us; neither for a task that an operator has
    put where it is, and neither to where nobody would take it.
    """
    try:
        need = requirements_of(record, fleet)
    except UnknownModel:
        return None
    node = fleet.node(record.node)
    offer = node.capability.models.get(need.model) if node else None
    for ease in (Ease.SMALLER_TILE, Ease.LOWER_PRECISION):
        if offer is not None and ease in offer.eases and ease not in record.eased:
            return EaseStep(ease, record.queue)
    here = fleet.queue(record.queue)
    if record.forced or record.pinned_node or here is None or here.kind is not DeviceKind.GPU:
        return None
    failed = next((one for one in node.capability.devices if one.id == record.device), None) if node else None
    bigger = _bigger_gpu(here, failed, need, fleet)
    if bigger is not None:
        again = node is not None and failed is not None and bigger.name in node.serves.get(failed.id, ())
        return EaseStep(Ease.BIGGER_GPU, bigger.name, avoid=again)
    live = [
        known
        for known in fleet.queues
        if known.kind is DeviceKind.CPU and known.name not in fleet.paused and fleet.live_slots(known.name, need)
    ]
    if record.task.device == "auto" and DeviceKind.CPU in need.kinds and live:
        return EaseStep(Ease.CPU, _soonest(live, need, fleet).name)
    return None


def _bigger_gpu(here: QueueConfig, failed: Device | None, need: Requirements, fleet: Fleet) -> QueueConfig | None:
    """The queue of the lowest class above where every GPU is bigger than ``failed``, else of the highest with one."""
    vram_mib = failed.vram_mib if failed else 0
    above = [
        known
        for known in fleet.queues
        if known.kind is DeviceKind.GPU
        and known.min_vram_mib > here.min_vram_mib
        and known.name not in fleet.paused
        and any(device.vram_mib > vram_mib for _, device in fleet.serving(known.name, need))
    ]
    above.sort(key=_capability)
    sure = [known for known in above if known.min_vram_mib > vram_mib]
    return sure[0] if sure else above[-1] if above else None


def told_steps(eased: Iterable[Ease]) -> str:
    """The steps of the ladder in words: ``a smaller tile, the CPU``."""
    return ", ".join(_STEP[ease] for ease in eased)


# ---------------------------------------------------------------- reasons


def _why_unpaid(queue: QueueConfig, need: Requirements, fleet: Fleet) -> Why | None:
    """That functions are all that could run it, and there is no money for them; None: there is, or it needs none."""
    if queue.kind is not DeviceKind.SERVERLESS or fleet.overflow is None:
        return None
    lack = fleet.overflow.lack(need.user, need.job)
    return because(WhyCode.NO_BUDGET, lack, queue=queue.name) if lack else None


def _line(reason: Why | None) -> str:
    return reason.text if reason else ""


def why_no_queue(need: Requirements, wish: str, queue: str) -> Why:
    """Why no queue is for a task like this: what was wished for cannot run its model, or none asks for as much."""
    if not need.kinds:
        told = f"model {need.model} does not run on {wish}; retry it elsewhere"
        return because(WhyCode.NO_DEVICE, told, model=need.model, device=wish)
    told = f"model {need.model} needs {need.vram_mib} MiB of a GPU, and no queue asks for as much"
    return because(WhyCode.NO_QUEUE, told, queue=queue)


_AWAY = (
    (NodeStatus.QUARANTINED, WhyCode.ALL_QUARANTINED),
    (NodeStatus.DRAINING, WhyCode.ALL_DRAINING),
    (NodeStatus.OFFLINE, WhyCode.ALL_OFFLINE),
)


_RESTS: Mapping[str, WhyCode] = {
    RestCode.BUSY_ELSEWHERE: WhyCode.BUSY_ELSEWHERE,
    RestCode.TOO_HOT: WhyCode.TOO_HOT,
    RestCode.DISK_FULL: WhyCode.DISK_FULL,
    RestCode.ENDPOINT_AWAY: WhyCode.ENDPOINT_AWAY,
}


def _why_nothing_runs(need: Requirements, fleet: Fleet, queues: tuple[QueueConfig, ...]) -> Why:
    live = fleet.live
    having = [node for node in live if need.model in node.capability.models]
    away = [node for node in fleet.nodes if node.status not in LIVE and need.model in node.capability.models]
    held = [node for node in away if node.status is NodeStatus.QUARANTINED]
    if held and not having:
        return _why_away(need, held)
    if not live:
        known = len(fleet.nodes)
        told = "no node is online" + (f" ({known} known: lcq nodes)" if known else "; start one with lcq-agent")
        if away and any(node.status is NodeStatus.DRAINING for node in away):
            return _why_away(need, away)
        return because(WhyCode.NO_NODE, told, known=known)
    if not having:
        withheld = next((node for node in live if need.model in node.capability.withheld), None)
        if away and withheld is None:
            return _why_away(need, away)
        return _why_no_model(need, live)
    able = [node for node in having if need.task_type in node.capability.models[need.model].task_types]
    if not able:
        return _why_not_this_type(need, live, [node.capability.models[need.model] for node in having])
    having, able = able, [node for node in able if need.allows(node)]
    if not able:
        return _why_not_these_labels(need, fleet, having)
    faults = [
        (node, device)
        for node in able
        for device in node.capability.devices
        if fault_of(node, device) and any(_would_serve(node, device, queue) for queue in queues)
    ]
    if faults:
        return _why_out(faults)
    return _why_no_device(need, fleet, able, queues)


def _why_out(faults: Sequence[tuple[NodeRecord, Device]]) -> Why:
    """That these devices, which could run it, take no work now."""
    told = "; ".join(
        f"{device.kind} {device.id} of node {node.id} takes no work: {fault_of(node, device)}"
        for node, device in faults
    )
    node, device = faults[0]
    if all(device.id in node.quarantined for node, device in faults):
        reason = node.quarantined[device.id]
        return because(WhyCode.DEVICE_QUARANTINED, told, node=node.id, device=device.id, reason=reason)
    for one, its in faults:
        reading = one.readings.get(its.id)
        if its.id not in one.quarantined and reading is not None and reading.rest in _RESTS:
            code = _RESTS[reading.rest]  # it comes back by itself: no other fault is as near to its end
            return because(code, told, node=one.id, device=its.id, fault=reading.fault)
    return because(WhyCode.DEVICE_FAULT, told, node=node.id, device=device.id, fault=fault_of(node, device))


def _would_serve(node: NodeRecord, device: Device, queue: QueueConfig) -> bool:
    """Whether ``device`` serves ``queue``, or would but for its quarantine."""
    if device.id in node.quarantined:
        return device.satisfies(queue)
    return queue.name in node.serves.get(device.id, ())


def _why_away(need: Requirements, away: Iterable[NodeRecord]) -> Why:
    """That the nodes which have the model take no work: of those, the one that is easiest to have back."""
    order = [status for status, _ in _AWAY]
    one = min(away, key=lambda node: (order.index(node.status), node.id))
    told = f"node {one.id}, which has model {need.model}, is {one.status}" + (f": {one.why}" if one.why else "")
    if one.status is not NodeStatus.OFFLINE:
        told += f" (lcq activate {one.id} ends that)"
    return because(dict(_AWAY)[one.status], told, node=one.id, reason=one.why)


def _why_no_model(need: Requirements, live: Iterable[NodeRecord]) -> Why:
    live = list(live)
    told = f"no node has model {need.model}{_left_out(need.model, live)}"
    withheld = next((node for node in live if need.model in node.capability.withheld), None)
    one = withheld or next((node for node in live if need.model in node.capability.left_out), None)
    reason = one.capability.left_out.get(need.model, "") if one else ""
    code = WhyCode.DEPENDENCY_DOWN if withheld else WhyCode.NO_MODEL
    return because(code, told, model=need.model, node=one.id if one else "", left_out=reason)


def _why_no_device(
    need: Requirements, fleet: Fleet, able: Sequence[NodeRecord], queues: tuple[QueueConfig, ...]
) -> Why:
    """That the nodes with the model have no device that is of the right kind, large enough, and serves ``queues``."""
    names = ", ".join(queue.name for queue in queues)
    nodes = f"{len(able)} node{'s have' if len(able) > 1 else ' has'} model {need.model}"
    not_served = because(
        WhyCode.NOT_SERVED, f"{nodes}, but none serves {names}", model=need.model, queue=queues[0].name
    )
    if any(queue.kind != DeviceKind.GPU for queue in queues):
        kinds = {queue.kind for queue in queues}
        if any(kinds & set(node.capability.models[need.model].kinds) for node in able):
            return not_served
        kind = " or ".join(sorted(kinds))
        told = f"{nodes}, but none on its {kind.upper()}, which {names} needs"
        return because(WhyCode.NO_DEVICE, told, model=need.model, device=kind)
    gpus = [
        (node, device)
        for node in able
        for device in node.capability.devices
        if device.kind is DeviceKind.GPU or device.vram_mib
    ]
    if not any(device.vram_mib for _, device in gpus):
        told = f"{nodes}, but none has a GPU, which {names} needs"
        return because(WhyCode.NO_DEVICE, told, model=need.model, device="gpu")
    if not any(DeviceKind.GPU in node.capability.models[need.model].kinds for node, _ in gpus):
        told = f"{nodes}, but none on its GPU, which {names} needs"
        return because(WhyCode.NO_DEVICE, told, model=need.model, device="gpu")
    least = min(queue.min_vram_mib for queue in queues)

    def needed(node: NodeRecord, device: Device) -> int:
        return max(fleet.memory_need(node, device, need), least)

    if all(needed(node, device) > device.vram_mib for node, device in gpus):
        node, device = min(gpus, key=lambda one: (needed(*one) - one[1].vram_mib, one[0].id, one[1].id))
        asked, has = needed(node, device), device.vram_mib
        told = (
            f"{nodes}, the largest GPU has {has} MiB, it needs {asked} MiB: "
            f"{device.id} of node {node.id} misses {asked - has} MiB"
        )
        return because(
            WhyCode.MISSES_MEMORY,
            told,
            model=need.model,
            node=node.id,
            device=device.id,
            needs_mib=asked,
            has_mib=has,
            misses_mib=asked - has,
        )
    return not_served


def _why_not_on(node: NodeRecord, need: Requirements, wish: str, *, is_served: bool) -> Why | None:
    """Why ``node``, for which a task is kept, does not run it; None where it does."""
    name, offer = node.id, node.capability.models.get(need.model)
    if offer is None:
        had = ", ".join(sorted(node.capability.models)) or "none"
        told = f"node {name} has no model {need.model}; it has {had}{_left_out(need.model, (node,))}"
    elif node.status not in LIVE:
        told = f"node {name} is {node.status}" + (f": {node.why}" if node.why else "")
        return because(WhyCode.PINNED_NODE_DOWN, told, node=name, status=node.status.value, reason=node.why)
    elif need.task_type not in offer.task_types:
        told = f"node {name} cannot {_ABILITY[need.task_type]} with model {need.model} (it can: {_abilities((offer,))})"
    elif not need.allows(node):
        had = told_labels(node.labels) or "none"
        told = f"node {name} has not all labels that the task requires ({told_labels(need.labels)}); it has {had}"
    elif not is_served:
        wished = " or ".join(need.kinds) or wish
        told = f"node {name} has no {wished} that runs model {need.model}"
    else:
        return None
    return because(WhyCode.PINNED_NODE_UNFIT, told, node=name)


def _why_not_these_labels(need: Requirements, fleet: Fleet, having: Iterable[NodeRecord]) -> Why:
    why = why_unlabelled(need.labels, {node.id: node.labels for node in fleet.live})
    absent = [node for node in fleet.nodes if node.status not in LIVE and need.allows(node)]
    requires = told_labels(need.labels)
    if why and absent:
        one = absent[0]
        reason = f": {one.why}" if one.why else ""
        why = f"node {one.id}, which has label {requires}, is {one.status}{reason}"
    elif not why:
        others = why_unlabelled(need.labels, {node.id: node.labels for node in having})
        why = f"of the nodes with model {need.model}, {others}"
    return because(WhyCode.NO_LABEL, why, requires=requires)


def _why_not_this_type(need: Requirements, live: Iterable[NodeRecord], offers: Iterable[ModelOffer]) -> Why:
    ability = _ABILITY[need.task_type]
    others = sorted(
        {
            model
            for node in live
            for model, offer in node.capability.models.items()
            if need.task_type in offer.task_types
        }
    )
    can = f"models that can: {', '.join(others)}" if others else "no model of any node can"
    told = f"no node can {ability} with model {need.model} (it can: {_abilities(offers)}); {can}"
    return because(WhyCode.NO_ABILITY, told, model=need.model, task_type=need.task_type.value)


def _abilities(offers: Iterable[ModelOffer]) -> str:
    types = {task_type for offer in offers for task_type in offer.task_types}
    return ", ".join(_ABILITY[task_type] for task_type in TaskType if task_type in types) or "nothing"


def _left_out(model: str, nodes: Iterable[NodeRecord]) -> str:
    """Why a node that could have ``model`` has not, if one has told."""
    return next(
        (
            f" (node {node.id}: {node.capability.left_out[model]})"
            for node in nodes
            if model in node.capability.left_out
        ),
        "",
    )


def at_home_s(record: TaskRecord, fleet: Fleet) -> float:
    """In how many seconds the house is predicted to have done one more task like that, one put to the end of its queue
    now; infinite where nothing of the house takes it."""
    try:
        need = requirements_of(record, fleet)
    except UnknownModel:
        return float("inf")
    house = [known for known in _fitting(need, fleet) if known.kind is not DeviceKind.SERVERLESS]
    live = [known for known in house if fleet.live_slots(known.name, need)]
    return min((_finish(known, need, fleet) for known in live), default=float("inf"))

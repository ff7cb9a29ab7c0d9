"""Where a task runs: a pure function of what it needs and of a picture of the fleet. No I/O, no clock."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from lcq.errors import NodeNotFound, UnknownModel, UnknownQueue
from lcq.models import DeviceKind, NodeRecord, NodeStatus, QueueConfig, Task, TaskRecord, TaskStatus

LIVE = frozenset({NodeStatus.ONLINE, NodeStatus.SUSPECT})


@dataclass(frozen=True)
class ModelFacts:
    """What a model needs, before anything has been learned about it."""

    kinds: tuple[DeviceKind, ...]  # best first
    vram_mib: int = 0
    seconds: Mapping[DeviceKind, float] = field(default_factory=dict)  # predicted for one image


_GPU_OR_CPU = (DeviceKind.GPU, DeviceKind.CPU)

# Memory as the parent programs document it (docs/architecture.md, "Models"); seconds are first guesses.
KNOWN_MODELS: Mapping[str, ModelFacts] = {
    "cv2-telea": ModelFacts((DeviceKind.CPU,), seconds={DeviceKind.CPU: 0.1}),
    "cv2-ns": ModelFacts((DeviceKind.CPU,), seconds={DeviceKind.CPU: 0.1}),
    "lama": ModelFacts(_GPU_OR_CPU, 2000, {DeviceKind.GPU: 0.5, DeviceKind.CPU: 5.0}),
    "anime-lama": ModelFacts(_GPU_OR_CPU, 2000, {DeviceKind.GPU: 0.5, DeviceKind.CPU: 5.0}),
    "manga": ModelFacts(_GPU_OR_CPU, 2000, {DeviceKind.GPU: 0.5, DeviceKind.CPU: 5.0}),
    "migan": ModelFacts(_GPU_OR_CPU, 2000, {DeviceKind.GPU: 0.3, DeviceKind.CPU: 2.0}),
    "ldm": ModelFacts(_GPU_OR_CPU, 3000, {DeviceKind.GPU: 5.0, DeviceKind.CPU: 120.0}),
    "zits": ModelFacts(_GPU_OR_CPU, 4000, {DeviceKind.GPU: 2.0, DeviceKind.CPU: 40.0}),
    "mat": ModelFacts(_GPU_OR_CPU, 4000, {DeviceKind.GPU: 1.0, DeviceKind.CPU: 20.0}),
    "fcf": ModelFacts(_GPU_OR_CPU, 4000, {DeviceKind.GPU: 1.0, DeviceKind.CPU: 20.0}),
    "sd1.5": ModelFacts(_GPU_OR_CPU, 4000, {DeviceKind.GPU: 5.0, DeviceKind.CPU: 200.0}),
}


@dataclass(frozen=True)
class Fleet:
    """A picture of the cluster, as routing sees it."""

    queues: tuple[QueueConfig, ...]
    nodes: tuple[NodeRecord, ...] = ()
    waiting: Mapping[str, int] = field(default_factory=dict)  # queued tasks a queue
    paused: Mapping[str, str] = field(default_factory=dict)  # paused queue -> who and why

    def queue(self, name: str) -> QueueConfig | None:
        return next((queue for queue in self.queues if queue.name == name), None)

    def node(self, name: str) -> NodeRecord | None:
        return next((node for node in self.nodes if node.id == name), None)

    @property
    def models(self) -> frozenset[str]:
        """Every model that is known by name or offered by a node."""
        offered = {model for node in self.nodes for model in node.capability.models}
        return frozenset(offered | set(KNOWN_MODELS))

    def live_slots(self, queue: str, model: str) -> int:
        """How many slots of live nodes serve ``queue`` with ``model``."""
        slots = 0
        for node in self.nodes:
            if node.status not in LIVE:
                continue
            for device in node.capability.devices:
                if queue in node.serves.get(device.id, ()) and model in node.capability.models_on(device.kind):
                    slots += device.slots
        return slots


@dataclass(frozen=True)
class Requirements:
    """What a task needs of a device."""

    model: str
    kinds: tuple[DeviceKind, ...]  # allowed, best first
    vram_mib: int
    seconds: Mapping[DeviceKind, float]

    def fits(self, queue: QueueConfig) -> bool:
        """Whether every device that may serve ``queue`` can run this."""
        if queue.kind not in self.kinds:
            return False
        return queue.kind != DeviceKind.GPU or queue.min_vram_mib >= self.vram_mib

    def seconds_on(self, kind: DeviceKind) -> float:
        return self.seconds.get(kind, 1.0)


@dataclass(frozen=True)
class Route:
    """The queue a task goes to; ``why`` is empty if something there can run it now, else a reason to act on."""

    queue: str
    seconds: float  # predicted run time there
    why: str = ""


def requirements(task: Task, fleet: Fleet) -> Requirements:
    """What ``task`` needs, from its model and its device wish.

    Raises:
        UnknownModel: neither known by name nor offered by any node; says the nearest name.
    """
    facts = KNOWN_MODELS.get(task.model)
    if facts is None:
        offers = [node.capability.models[task.model] for node in fleet.nodes if task.model in node.capability.models]
        if not offers:
            raise UnknownModel(task.model, fleet.models, image=printable(task.image_path))
        facts = ModelFacts(tuple(dict.fromkeys(kind for offer in offers for kind in offer)))
    wish = task.device
    if wish == "cpu":
        wanted: Collection[DeviceKind] = (DeviceKind.CPU,)
    elif wish == "auto":
        wanted = facts.kinds
    else:
        wanted = (DeviceKind.GPU,)
    kinds = tuple(kind for kind in facts.kinds if kind in wanted)
    return Requirements(task.model, kinds, facts.vram_mib, facts.seconds)


def printable(text: str) -> str:
    """``text`` with newlines, escape codes and the like made visible, for messages."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def route(task: Task, fleet: Fleet, *, queue: str = "", node: str = "") -> Route:
    """The queue for ``task``: the least capable that can run it, unless a better one finishes it sooner.

    ``queue`` and ``node`` are an operator's choice, which is obeyed if it exists.

    Raises:
        UnknownModel, UnknownQueue, NodeNotFound: what was asked for does not exist.
    """
    need = requirements(task, fleet)
    if node:
        return _route_to_node(task, need, fleet, node, queue)
    if queue:
        chosen = fleet.queue(queue)
        if chosen is None:
            raise UnknownQueue(queue, [known.name for known in fleet.queues], image=printable(task.image_path))
        why = "" if fleet.live_slots(queue, need.model) else _why_nothing_runs(need, fleet, (chosen,))
        return Route(queue, need.seconds_on(chosen.kind), why)
    fitting = sorted((known for known in fleet.queues if need.fits(known)), key=_capability)
    live = [known for known in fitting if fleet.live_slots(known.name, need.model)]
    if live:
        best = min(live, key=lambda known: (_finish(known, need, fleet), _capability(known)))
        return Route(best.name, need.seconds_on(best.kind))
    if not fitting:
        # The model cannot run on what the submitter wished for: it waits in the first queue, with its reason.
        return Route(fleet.queues[0].name, 1.0, f"model {need.model} does not run on {task.device}; retry it elsewhere")
    return Route(fitting[0].name, need.seconds_on(fitting[0].kind), _why_nothing_runs(need, fleet, tuple(fitting)))


def _route_to_node(task: Task, need: Requirements, fleet: Fleet, name: str, queue: str) -> Route:
    node = fleet.node(name)
    if node is None:
        raise NodeNotFound(name)
    served = [known for queues in node.serves.values() for known in queues]
    usable = [known for known in fleet.queues if known.name in served and known.kind in need.kinds]
    home = queue or (usable[0].name if usable else served[0] if served else fleet.queues[0].name)
    if fleet.queue(home) is None:
        raise UnknownQueue(home, [known.name for known in fleet.queues], image=printable(task.image_path))
    why = ""
    if need.model not in node.capability.models:
        why = f"node {name} has no model {need.model}; it has {', '.join(sorted(node.capability.models))}"
    elif node.status not in LIVE:
        why = f"node {name} is {node.status}" + (f": {node.why}" if node.why else "")
    return Route(home, 1.0, why)


def _capability(queue: QueueConfig) -> tuple[bool, int, int, int]:
    return (queue.kind != DeviceKind.CPU, queue.min_vram_mib, queue.min_cores, queue.min_memory_mib)


def _finish(queue: QueueConfig, need: Requirements, fleet: Fleet) -> float:
    """Predicted seconds until a task put into ``queue`` now is done."""
    run = need.seconds_on(queue.kind)
    slots = fleet.live_slots(queue.name, need.model)
    wait = fleet.waiting.get(queue.name, 0) * run / slots
    return wait + run


def _why_nothing_runs(need: Requirements, fleet: Fleet, queues: tuple[QueueConfig, ...]) -> str:
    live = [node for node in fleet.nodes if node.status in LIVE]
    if not live:
        known = len(fleet.nodes)
        return "no node is online" + (f" ({known} known: lcq nodes)" if known else "; start one with lcq-agent")
    having = [node for node in live if need.model in node.capability.models]
    if not having:
        return f"no node has model {need.model}"
    names = ", ".join(queue.name for queue in queues)
    nodes = f"{len(having)} node{'s have' if len(having) > 1 else ' has'} model {need.model}"
    if all(queue.kind == DeviceKind.GPU for queue in queues):
        largest = max((device.vram_mib for node in having for device in node.capability.devices), default=0)
        if not largest:
            return f"{nodes}, but none has a GPU, which {names} needs"
        needed = max(need.vram_mib, min(queue.min_vram_mib for queue in queues))
        return f"{nodes}, the largest GPU has {largest} MiB, it needs {needed} MiB"
    return f"{nodes}, but none serves {names}"


def explain(record: TaskRecord, fleet: Fleet) -> str:
    """Why a task waits, or what became of it, in one line that a person can act on."""
    task = record.task
    match record.status:
        case TaskStatus.PENDING:
            cause = f" after {record.failure.code}" if record.failure else ""
            return f"waits for its retry{cause} (retry {record.retries} of {task.max_retries})"
        case TaskStatus.QUEUED:
            return _explain_queued(record, fleet)
        case TaskStatus.PROCESSING:
            return f"runs on {record.node} ({record.device}), attempt {record.attempt}, {record.progress:.0%}"
        case TaskStatus.COMPLETED:
            took = f" in {record.result.seconds:.2f} s" if record.result else ""
            return f"completed by {record.node}{took}"
        case TaskStatus.FAILED:
            failure = record.failure
            return f"failed: {failure.code}: {failure.message}" if failure else "failed"
        case TaskStatus.CANCELLED:
            return f"cancelled{' ' if record.why else ''}{record.why}"


def _explain_queued(record: TaskRecord, fleet: Fleet) -> str:
    if record.queue in fleet.paused:
        return f"queue {record.queue} is paused {fleet.paused[record.queue]}".rstrip()
    try:
        needs = route(record.task, fleet, queue=record.queue, node=record.pinned_node)
    except NodeNotFound:
        return f"is kept for node {record.pinned_node}, which is gone; lcq reroute it"
    except (UnknownModel, UnknownQueue) as error:
        return str(error)
    if needs.why:
        return needs.why
    behind = fleet.waiting.get(record.queue, 0)
    return f"waits for its turn in {record.queue} ({behind} queued there)"

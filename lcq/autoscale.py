"""How many slots each queue wants, and which nodes nothing would miss: for whoever starts and stops machines. Pure."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping

from pydantic import Field

from lcq.models import DeviceKind, NodeRecord, NodeStatus, QueueRecord, TaskStatus, Value
from lcq.routing import Fleet, fault_of

DEFAULT_TARGET_S = 60.0


class QueueScale(Value):
    """What one queue has, and what it wants. Seconds are predicted ones of a typical device of the queue's kind."""

    queue: str
    kind: DeviceKind
    waiting: int  # tasks that are queued
    running: int
    backlog_s: float  # work that waits, in seconds of one slot
    live_slots: int  # of all devices that serve it and take work; one that serves several queues counts in each
    wanted_slots: int  # to have begun all that waits within the target; never fewer than run
    oldest_wait_s: float  # since when the oldest queued task waits; 0: none does
    unserved: int = 0  # queued tasks of lanes that no device serves: more nodes of the same kind do not help these
    paused: bool = False  # then nothing new begins, and more slots are of no use
    guessed: bool = False  # what some of its backlog takes there nobody has measured, or learned


class IdleNode(Value):
    """A node that runs nothing, and that nothing which waits would go to."""

    node: str
    idle_s: float
    slots: int
    queues: tuple[str, ...] = ()  # that it serves


class Scale(Value):
    """The signal of one moment."""

    target_wait_s: float
    queues: tuple[QueueScale, ...] = ()
    idle: tuple[IdleNode, ...] = Field(default=())  # the one that has been idle longest first
    live_slots: int = 0  # of all devices that take work, each counted once
    wanted_slots: int = 0  # of all queues together


def wanted_slots(*, backlog_s: float, waiting: int, running: int, target_s: float) -> int:
    """Slots that do ``backlog_s`` seconds of waiting work within ``target_s``, and what runs besides.

    Never fewer than run now, and never more than there are tasks: no task is done by two slots.
    """
    needed = math.ceil(backlog_s / target_s) if waiting else 0
    return max(running, min(running + waiting, max(needed, 1 if waiting else 0)))


def scale(
    fleet: Fleet,
    queues: Iterable[QueueRecord],
    depths: Mapping[tuple[str, str], int],
    *,
    now_ms: int,
    target_s: float = DEFAULT_TARGET_S,
    kept_for: Collection[str] = (),
) -> Scale:
    """What each queue wants, and which nodes are idle.

    ``depths``: queued tasks by queue and lane, but for those that are kept for one node; ``kept_for``: the nodes for
    which some are. ``now_ms`` by Redis's clock.
    """
    told = tuple(_queue(fleet, queue, depths, now_ms, target_s) for queue in queues)
    live = sum(device.slots for node in fleet.live for device in node.capability.devices if not fault_of(node, device))
    return Scale(
        target_wait_s=target_s,
        queues=told,
        idle=idle_nodes(fleet, depths, now_ms=now_ms, kept_for=kept_for),
        live_slots=live,
        wanted_slots=sum(queue.wanted_slots for queue in told),
    )


def _queue(
    fleet: Fleet, queue: QueueRecord, depths: Mapping[tuple[str, str], int], now_ms: int, target_s: float
) -> QueueScale:
    name = queue.name
    waiting, running = (queue.counts.get(status, 0) for status in (TaskStatus.QUEUED, TaskStatus.PROCESSING))
    backlog_s = sum(fleet.backlog.get(name, {}).values())
    if waiting and backlog_s <= 0:
        backlog_s = float(waiting)  # an older LCQ has put them there, and told nothing of what they cost
    slots = sum(
        device.slots
        for node in fleet.live
        for device in node.capability.devices
        if name in node.serves.get(device.id, ()) and not fault_of(node, device)
    )
    lanes = {lane: count for (known, lane), count in depths.items() if known == name}
    wanted = wanted_slots(backlog_s=backlog_s, waiting=waiting, running=running, target_s=target_s)
    return QueueScale(
        queue=name,
        kind=queue.config.kind,
        waiting=waiting,
        running=running,
        backlog_s=round(backlog_s, 3) if waiting else 0.0,
        live_slots=slots,
        wanted_slots=running if queue.paused else wanted,
        oldest_wait_s=max(0, now_ms - queue.oldest_queued_ms) / 1000 if queue.oldest_queued_ms else 0.0,
        unserved=sum(count for lane, count in lanes.items() if not fleet.is_served(name, lane)),
        paused=queue.paused,
        guessed=any(
            seconds > 0 and fleet.costs.typical(lane, queue.config.kind).guessed
            for (_, lane), seconds in fleet.backlog.get(name, {}).items()
        ),
    )


def idle_nodes(
    fleet: Fleet, depths: Mapping[tuple[str, str], int], *, now_ms: int, kept_for: Collection[str] = ()
) -> tuple[IdleNode, ...]:
    """The nodes to stop first: online, running nothing, and with nothing waiting that they would take."""
    found = [
        IdleNode(node=node.id, idle_s=max(0, now_ms - _idle_since(node)) / 1000, slots=node.slots, queues=_served(node))
        for node in fleet.nodes
        if node.status is NodeStatus.ONLINE and not node.running and not node.damaged and node.id not in kept_for
        if not any(
            count and queue not in fleet.paused and _takes(node, queue, lane) for (queue, lane), count in depths.items()
        )
    ]
    return tuple(sorted(found, key=lambda one: (-one.idle_s, one.node)))


def _idle_since(node: NodeRecord) -> int:
    return max(node.idle_ms, node.registered_ms)


def _served(node: NodeRecord) -> tuple[str, ...]:
    return tuple(sorted({queue for queues in node.serves.values() for queue in queues}))


def _takes(node: NodeRecord, queue: str, lane: str) -> bool:
    return any(
        queue in node.serves.get(device.id, ()) and node.reads(device, lane) for device in node.capability.devices
    )

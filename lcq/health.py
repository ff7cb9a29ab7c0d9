"""Which failures a node may be blamed for, and when it is to be quarantined. Pure: no I/O, no clock."""

from __future__ import annotations

from collections.abc import Iterable

from lcq.config import QuarantineConfig
from lcq.models import ErrorClass, Failure, NodeRecord, NodeStatus
from lcq.routing import LIVE

SUSPECTED = 2.0  # so much to blame, and a node's word alone costs a task nothing; on probation it is too much
FADED = 0.5  # what may have faded of a count of failures since the first of them
FUNCTION_UNKNOWN = "function_unknown"
"""A function has not answered, and may have run."""

ENDPOINT_DOWN = frozenset({"endpoint_unreachable", "endpoint_busy", "endpoint_refused", "endpoint_silent"})
IS_AWAY = ENDPOINT_DOWN | {FUNCTION_UNKNOWN}
"""Codes of calls at functions that reached nothing, or had no answer."""

DEPENDENCY_DOWN = ENDPOINT_DOWN | {"iopaint_unreachable"}
"""Codes that say: what the work needs beside the node was away. No retry is lost by that, and nobody is to blame."""

NO_RETRY_LOST = DEPENDENCY_DOWN | {"storage_unreachable"}
"""The same of retries alone: a node whose own way to the cluster's blobs is broken may well be to blame."""

KNOWS_LOG = "log"
"""In ``NodeCapability.knows`` of agents that tell what they have logged of late."""

KNOWS_TASK_LOGS = "task_logs"
"""The same of agents that keep what was written during attempts, and tell it."""

KNOWS_ORDERS = "orders"
"""In ``NodeCapability.knows`` of agents that obey ``lcq.wire.Orders`` and probe one device at a time."""

KNOWS_WARM_UPS = "warm_ups"
"""The same of agents that wake functions when they are told to."""

_BLAMED = frozenset({ErrorClass.CRASH, ErrorClass.BAD_OUTPUT, ErrorClass.TRANSIENT})
_NOT_THE_NODES = DEPENDENCY_DOWN | {"iopaint_busy", "iopaint_slow", "model_not_here", "config_invalid"}


def may_blame(failure: Failure) -> bool:
    """Whether a failure may be the fault of the node: never a bad input, nor a lack of memory, which has its ladder."""
    return failure.error_class in _BLAMED and failure.code not in _NOT_THE_NODES


def is_too_much(blame: float, terms: QuarantineConfig, *, on_probation: bool) -> bool:
    """Whether a node with so much to blame is to be judged."""
    return blame >= (min(SUSPECTED, terms.tasks) if on_probation else terms.tasks) - FADED


def verdict(
    node_id: str,
    *,
    queue: str,
    lane: str,
    waiting: Iterable[tuple[str, str]],
    nodes: Iterable[NodeRecord],
    terms: QuarantineConfig,
    device: str = "",
) -> str:
    """Why ``device`` of ``node_id``, which has just failed one more task of this lane, is to be quarantined; "": not.

    Without a device it is the node as a whole that is judged. It is not where nobody well serves that lane of
    ``queue``: then the tasks may be to blame. Nor where it is the last that serves another lane in which tasks wait
    (``waiting``), or where too much of the fleet is in quarantine already.
    """
    known = tuple(nodes)
    node = next((one for one in known if one.id == node_id), None)
    if not terms.enabled or node is None or node.status not in LIVE or device in node.quarantined:
        return ""
    is_whole = not device
    on_probation = node.probation > 0 if is_whole else (node.on_probation.get(device, 0) > 0)
    blame = blame_of(node, terms) if is_whole else device_blame_of(node, device, terms)
    if not is_too_much(blame, terms, on_probation=on_probation):
        return ""
    well = tuple(well_beside(node, device, queue=queue, lane=lane, nodes=known, terms=terms))
    if not well or missed(node, device, waiting=waiting, nodes=known, terms=terms):
        return ""
    names = ", ".join(well[:3]) + (f" and {len(well) - 3} more" if len(well) > 3 else "")
    return f"failed {round(blame)} tasks of late, where {names} did not"


def well_beside(
    node: NodeRecord, device: str, *, queue: str, lane: str, nodes: Iterable[NodeRecord], terms: QuarantineConfig
) -> dict[str, tuple[tuple[str, str], ...]]:
    """Who does the work of this lane of ``queue`` beside ``device`` of ``node`` (the whole node, where none is named)
    and is not suspected itself: other nodes, and other devices of this one; of each, by node and device, what does it.
    """
    beside = {
        one.id: tuple((one.id, its.id) for its in one.capability.devices if device_serves(one, its.id, queue, lane))
        for one in nodes
        if one.id != node.id and one.status in LIVE and blame_of(one, terms) < SUSPECTED
    }
    for sibling in _siblings(node, device):
        if device_blame_of(node, sibling, terms) < SUSPECTED and device_serves(node, sibling, queue, lane):
            beside[sibling] = ((node.id, sibling),)
    return {name: what for name, what in beside.items() if what}


def _siblings(node: NodeRecord, device: str) -> list[str]:
    """The devices of ``node`` that would be left without ``device``; none where it is the whole node."""
    if not device:
        return []
    return [one.id for one in node.capability.devices if one.id != device and one.id not in node.quarantined]


def missed(
    node: NodeRecord,
    device: str,
    *,
    waiting: Iterable[tuple[str, str]],
    nodes: Iterable[NodeRecord],
    terms: QuarantineConfig,
) -> str:
    """Why ``device`` of ``node`` (the whole node, where none is named) cannot be spared, in words; "": it can.

    It cannot where some of what waits (``waiting``: queues and lanes) would be served by nobody without it, or more of
    the fleet would be in quarantine than may. Every quarantine that nobody has asked for asks this first.
    """
    known = tuple(nodes)
    others = [one for one in known if one.id != node.id and one.status in LIVE]
    siblings = _siblings(node, device)

    def is_missed(queue: str, lane: str) -> bool:
        """Whether it serves this lane, and nobody would without it."""
        does = device_serves(node, device, queue, lane) if device else serves(node, queue, lane)
        is_left = any(serves(one, queue, lane) for one in others) or any(
            device_serves(node, sibling, queue, lane) for sibling in siblings
        )
        return does and not is_left

    alone = next((one for one in waiting if is_missed(*one)), None)
    if alone is not None:
        return f"nothing else takes {alone[1]} from {alone[0]}, where tasks wait"
    out = sum(max(1, len(one.capability.devices)) for one in known if one.status is NodeStatus.QUARANTINED)
    out += sum(len(one.quarantined) for one in known if one.status in LIVE)
    there = sum(max(1, len(one.capability.devices)) for one in known if one.status in (*LIVE, NodeStatus.QUARANTINED))
    more = 1 if device else max(1, len(node.capability.devices))
    most = max(more, int(terms.share * there))
    if out + more > most:
        return f"{out} of {there} devices are in quarantine already, and quarantine.share lets {most} be"
    return ""


def alarm_verdict(
    node: NodeRecord,
    device: str,
    *,
    waiting: Iterable[tuple[str, str]],
    nodes: Iterable[NodeRecord],
    terms: QuarantineConfig,
) -> str:
    """Why ``device`` of ``node``, whose results its own agent does not trust, works on all the same; "": it does not.

    It is not put into quarantine where it cannot be spared: then people are told, by its alarm.
    """
    why = missed(node, device if is_held_by_device(node) else "", waiting=waiting, nodes=nodes, terms=terms)
    return f"{node.readings[device].alarm}; it works on, because {why}" if why else ""


def blame_of(node: NodeRecord, terms: QuarantineConfig) -> float:
    """How much ``node`` was to blame when it was heard last: what it failed before that has faded."""
    return _faded(node, node.blame, node.blame_ms, terms)


def device_blame_of(node: NodeRecord, device: str, terms: QuarantineConfig) -> float:
    """The same for one of its devices."""
    blame, blame_ms = node.device_blame.get(device, (0.0, 0))
    return _faded(node, blame, blame_ms, terms)


def _faded(node: NodeRecord, blame: float, blame_ms: int, terms: QuarantineConfig) -> float:
    return blame * float(0.5 ** (max(0, node.seen_ms - blame_ms) / 1000 / terms.half_life_s))


def serves(node: NodeRecord, queue: str, lane: str) -> bool:
    """Whether some device of ``node`` takes tasks from this lane of ``queue``."""
    return any(device_serves(node, device.id, queue, lane) for device in node.capability.devices)


def device_serves(node: NodeRecord, device_id: str, queue: str, lane: str) -> bool:
    """Whether this device of ``node`` does, and has no fault."""
    device = next((one for one in node.capability.devices if one.id == device_id), None)
    reading = node.readings.get(device_id)
    if reading is not None and reading.fault:
        return False
    return device is not None and queue in node.serves.get(device_id, ()) and node.reads(device, lane)


def is_held_by_device(node: NodeRecord) -> bool:
    """Whether a device of ``node`` can be held in quarantine by itself: it has several, and its agent can probe one."""
    several = len(node.readings) > 1 or len(node.capability.devices) > 1
    return several and KNOWS_ORDERS in node.capability.knows

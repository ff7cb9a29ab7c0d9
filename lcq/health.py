"""Which failures a node may be blamed for, and when it is to be quarantined. Pure: no I/O, no clock."""

from __future__ import annotations

from collections.abc import Iterable

from lcq.config import QuarantineConfig
from lcq.models import ErrorClass, Failure, NodeRecord, NodeStatus
from lcq.routing import LIVE

SUSPECTED = 2.0  # so much to blame, and a node's word alone costs a task nothing; on probation it is too much
FADED = 0.5  # what may have faded of a count of failures since the first of them
DEPENDENCY_DOWN = frozenset({"iopaint_unreachable"})
"""Codes that say: what the work needs beside the node was away. No retry is lost by that, and nobody is to blame."""

KNOWS_ORDERS = "orders"
"""In ``NodeCapability.knows`` of agents that obey ``lcq.wire.Orders`` and probe one device at a time."""

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
    others = [one for one in known if one.id != node_id and one.status in LIVE]
    well = [one.id for one in others if blame_of(one, terms) < SUSPECTED and serves(one, queue, lane)]
    if not is_whole:
        siblings = [one.id for one in node.capability.devices if one.id != device and one.id not in node.quarantined]
        well += [
            one
            for one in siblings
            if device_blame_of(node, one, terms) < SUSPECTED and device_serves(node, one, queue, lane)
        ]

    def is_left(*other: str) -> bool:
        """Whether somebody would serve this lane without what is judged."""
        return any(serves(one, *other) for one in others) or (
            not is_whole and any(device_serves(node, sibling, *other) for sibling in siblings)
        )

    if not well or any(
        (serves(node, *other) if is_whole else device_serves(node, device, *other)) and not is_left(*other)
        for other in waiting
    ):
        return ""
    out = sum(max(1, len(one.capability.devices)) for one in known if one.status is NodeStatus.QUARANTINED)
    out += sum(len(one.quarantined) for one in known if one.status in LIVE)
    there = sum(max(1, len(one.capability.devices)) for one in known if one.status in (*LIVE, NodeStatus.QUARANTINED))
    more = max(1, len(node.capability.devices)) if is_whole else 1
    if out + more > max(more, int(terms.share * there)):
        return ""
    names = ", ".join(well[:3]) + (f" and {len(well) - 3} more" if len(well) > 3 else "")
    return f"failed {round(blame)} tasks of late, where {names} did not"


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
    """Whether this device of ``node`` does."""
    device = next((one for one in node.capability.devices if one.id == device_id), None)
    return device is not None and queue in node.serves.get(device_id, ()) and node.reads(device, lane)


def is_held_by_device(node: NodeRecord) -> bool:
    """Whether a device of ``node`` can be held in quarantine by itself: it has several, and its agent can probe one."""
    several = len(node.readings) > 1 or len(node.capability.devices) > 1
    return several and KNOWS_ORDERS in node.capability.knows

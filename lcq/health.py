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
) -> str:
    """Why ``node_id``, which has just failed one more task of this lane of ``queue``, is to be quarantined; "": not.

    It is not where nobody well serves that lane: then the tasks may be to blame. Nor where it is the last that serves
    another lane in which tasks wait (``waiting``), or where too many nodes are in quarantine already.
    """
    known = tuple(nodes)
    node = next((one for one in known if one.id == node_id), None)
    if not terms.enabled or node is None or node.status not in LIVE:
        return ""
    if not is_too_much(blame_of(node, terms), terms, on_probation=node.probation > 0):
        return ""
    others = [one for one in known if one.id != node_id and one.status in LIVE]
    well = [one for one in others if blame_of(one, terms) < SUSPECTED and serves(one, queue, lane)]
    if not well:
        return ""
    if any(serves(node, *other) and not any(serves(one, *other) for one in others) for other in waiting):
        return ""
    quarantined = sum(one.status is NodeStatus.QUARANTINED for one in known)
    there = len(others) + 1 + quarantined
    if quarantined + 1 > max(1, int(terms.share * there)):
        return ""
    names = ", ".join(one.id for one in well[:3]) + (f" and {len(well) - 3} more" if len(well) > 3 else "")
    return f"failed {round(blame_of(node, terms))} tasks of late, where {names} did not"


def blame_of(node: NodeRecord, terms: QuarantineConfig) -> float:
    """How much ``node`` was to blame when it was heard last: what it failed before that has faded."""
    return node.blame * float(0.5 ** (max(0, node.seen_ms - node.blame_ms) / 1000 / terms.half_life_s))


def serves(node: NodeRecord, queue: str, lane: str) -> bool:
    """Whether some device of ``node`` takes tasks from this lane of ``queue``."""
    return any(
        queue in node.serves.get(device.id, ()) and node.reads(device, lane) for device in node.capability.devices
    )

"""Functions as the cluster sees them: how each is, and which are to be woken because overflow is near. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from pydantic import Field

from lcq.health import KNOWS_WARM_UPS
from lcq.models import Device, DeviceKind, FunctionReading, NodeRecord, Prewarm, TaskType, Value
from lcq.routing import LIVE, Fleet, fault_of

_NOT_TOLD = {"rests_until_ms": None, "trials": None, "not_woken": ""}  # of a node that is away


class FunctionRecord(Value):
    """A function that a node calls. ``why``: why it takes nothing now; "": it does, as far as anybody knows.

    While it is tried (``trials``), ``calls_at_once`` is 1, however many it may have else.
    """

    node: str
    function: str
    platform: str = ""  # http, lambda, runpod
    why: str = ""
    models: tuple[str, ...] = ()
    calls_at_once: int = 0
    warm: int = 0  # and below: as FunctionReading has them
    cold: int = 0
    in_flight: int = 0
    start_s: float = 0.0
    load_s: float = 0.0
    in_vain: int = 0
    rests_until_ms: int | None = None
    trials: int | None = None
    not_woken: str = ""
    prewarm: int = 0  # instances that are woken before they are needed
    worst_price: float = 0.0  # of a call
    spent_hour: float = Field(default=0.0, ge=0)  # in this hour of the clock (UTC)


def functions_of(nodes: Iterable[NodeRecord], spent_hour: Mapping[str, float]) -> tuple[FunctionRecord, ...]:
    """Every function of every node, by node and name. ``spent_hour``: by "node/function" (``Book.functions``)."""
    told = []
    for node, device in functions_in(nodes):
        reading = _reading(node, device)
        if node.status not in LIVE or device.id in node.quarantined:
            reading = reading.model_copy(update=_NOT_TOLD)  # ``why`` says what counts
        told.append(
            FunctionRecord(
                node=node.id,
                function=device.id,
                platform=device.name,
                why=why_not(node, device),
                models=tuple(sorted(models_of(node, device))),
                calls_at_once=device.slots,
                **reading.model_dump(),
                prewarm=device.prewarm.instances if device.prewarm else 0,
                worst_price=device.worst_price,
                spent_hour=spent_hour.get(f"{node.id}/{device.id}", 0.0),
            )
        )
    return tuple(sorted(told, key=lambda one: (one.node, one.function)))


def why_not(node: NodeRecord, device: Device) -> str:
    """Why a function takes nothing now; "": it does."""
    if node.status not in LIVE:
        return f"node {node.id} is {node.status.value}" + (f": {node.why}" if node.why else "")
    return fault_of(node, device) or ("" if models_of(node, device) else "it has no model to offer")


def model_to_wake(node: NodeRecord, device: Device, wanted: str = "") -> str:
    """The model that a warm-up loads there: ``wanted``, if it can; else the one that takes longest; "": none."""
    models = models_of(node, device)
    if wanted:
        return wanted if wanted in models else ""
    return max(models, key=lambda name: (models[name], name), default="")


def dearest_price(nodes: Iterable[NodeRecord], model: str) -> float:
    """What an attempt at ``model`` costs at most, at whichever function of ``nodes`` it comes to."""
    return max(
        (device.worst_price for node, device in functions_in(nodes) if model in models_of(node, device)), default=0.0
    )


def functions_in(nodes: Iterable[NodeRecord]) -> Iterator[tuple[NodeRecord, Device]]:
    for node in nodes:
        for device in node.capability.devices:
            if device.kind is DeviceKind.SERVERLESS:
                yield node, device


def _reading(node: NodeRecord, device: Device) -> FunctionReading:
    reading = node.readings.get(device.id)
    return (reading.function if reading else None) or FunctionReading()


def models_of(node: NodeRecord, device: Device) -> dict[str, float]:
    """By model that it can run, the seconds that a picture takes there."""
    return {
        name: offer.seconds.get(device.kind, 0.0)
        for name, offer in node.capability.models.items()
        if node.capability.can_run(device, name, TaskType.INPAINT)
    }


@dataclass(frozen=True)
class Kept:
    """A function of which instances are kept warm while overflow is near. ``calls``: so many at the same time leave as
    many warm as there are to be, for each wakes an instance or keeps one that is; 0: there are enough."""

    node: NodeRecord
    device: Device
    prewarm: Prewarm
    calls: int


def kept_warm(fleet: Fleet) -> tuple[Kept, ...]:
    """The functions that are. One that several nodes call by the same name is one function, woken by one of them."""
    by_name: dict[str, list[tuple[NodeRecord, Device]]] = {}
    for node, device in functions_in(fleet.live):
        if device.prewarm and KNOWS_WARM_UPS in node.capability.knows and not why_not(node, device):
            by_name.setdefault(device.id, []).append((node, device))
    found = []
    for callers in by_name.values():
        node, device = min(callers, key=lambda one: one[0].id)
        prewarm = device.prewarm or Prewarm()
        wanted = min(prewarm.instances, device.slots)
        readings = [_reading(*one) for one in callers]
        in_flight = sum(one.in_flight for one in readings)
        is_enough = wanted <= max(in_flight, *(one.warm for one in readings))
        found.append(Kept(node, device, prewarm, 0 if is_enough else wanted - in_flight))
    return tuple(found)


def wakes(kept: Kept, late_s: Mapping[str, float], overflow_after_s: float) -> str:
    """The model for which overflow is near, of those that the function has; "": it is not.

    ``late_s``: by model, when the house is predicted to have done a waiting task that may leave it.
    """
    near = {model: seconds for model, seconds in late_s.items() if seconds >= kept.prewarm.share * overflow_after_s}
    return max(near.keys() & models_of(kept.node, kept.device), key=lambda model: (near[model], model), default="")

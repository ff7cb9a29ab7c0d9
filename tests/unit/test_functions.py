"""Which functions are woken, for which model, and how those of a node that is away are told."""

from __future__ import annotations

import pytest

from lcq.config import BudgetConfig
from lcq.functions import functions_of, kept_warm, model_to_wake, wakes
from lcq.health import KNOWS_WARM_UPS
from lcq.models import (
    DEFAULT_QUEUES,
    Device,
    DeviceKind,
    DeviceReading,
    FunctionReading,
    ModelOffer,
    NodeCapability,
    NodeRecord,
    NodeStatus,
    Prewarm,
)
from lcq.routing import Fleet
from lcq.spend import Spend, cheapest_price

KIND = DeviceKind.SERVERLESS


def caller(
    name: str = "far", *, price: float = 0.1, prewarm: Prewarm | None = None, status: NodeStatus = NodeStatus.ONLINE,
    reading: DeviceReading | None = None, **seconds: float,
) -> NodeRecord:  # fmt: skip
    """A node that calls one function, of which each model takes so many ``seconds`` a picture."""
    device = Device(id="burst", kind=KIND, slots=4, worst_price=price, prewarm=prewarm)
    offers = {model: ModelOffer(kinds=(KIND,), seconds={KIND: took}) for model, took in seconds.items()}
    return NodeRecord(
        id=name,
        boot_id="b",
        status=status,
        capability=NodeCapability(devices=(device,), models=offers, knows=(KNOWS_WARM_UPS,)),
        readings={"burst": reading} if reading else {},
    )


def kept(*nodes: NodeRecord) -> list[tuple[str, int]]:
    return [(one.node.id, one.calls) for one in kept_warm(Fleet(queues=DEFAULT_QUEUES, nodes=nodes))]


def test_a_function_that_is_left_alone_is_woken_by_nobody_but_one_for_whom_it_works() -> None:
    prewarm, rests = Prewarm(instances=3), DeviceReading(fault="its function is left alone", rest="endpoint_away")
    assert kept(caller("a", prewarm=prewarm, lama=1, reading=rests)) == []
    assert kept(caller("a", prewarm=prewarm, lama=1, reading=rests), caller("b", prewarm=prewarm, lama=1)) == [("b", 3)]
    assert kept(caller("a", prewarm=prewarm, lama=1), caller("b", prewarm=prewarm, lama=1)) == [("a", 3)]


@pytest.mark.parametrize(("share", "from_s"), [(0.25, 15.0), (0.75, 45.0)])
def test_overflow_is_near_from_the_share_on_that_the_function_has_in_its_settings(share: float, from_s: float) -> None:
    (one,) = kept_warm(Fleet(queues=DEFAULT_QUEUES, nodes=(caller(prewarm=Prewarm(instances=1, share=share), lama=1),)))
    assert wakes(one, {"lama": from_s - 0.1}, 60.0) == ""
    assert wakes(one, {"lama": from_s}, 60.0) == "lama"
    assert wakes(one, {"mat": 1000.0}, 60.0) == "", "it has not that"


def test_what_is_woken_has_the_model_loaded_that_takes_longest_or_the_one_that_is_wanted() -> None:
    node = caller(lama=4.0, mat=9.0, zits=6.0)
    (device,) = node.capability.devices
    assert model_to_wake(node, device) == "mat"
    assert model_to_wake(node, device, "lama") == "lama"
    assert model_to_wake(node, device, "cv2-telea") == ""


def test_of_a_node_that_is_away_or_held_nobody_is_told_until_when_its_function_rests() -> None:
    reading = DeviceReading(function=FunctionReading(in_vain=3, rests_until_ms=9_000))
    here, away = (caller(status=status, reading=reading, lama=1) for status in (NodeStatus.ONLINE, NodeStatus.OFFLINE))
    held = here.model_copy(update={"quarantined": {"burst": "it fails"}})
    assert [functions_of([one], {})[0].rests_until_ms for one in (here, away, held)] == [9_000, None, None]


def test_there_is_money_as_long_as_the_cheapest_function_can_be_paid() -> None:
    nodes = [caller("a", price=0.4), caller("b", price=0.1), caller("c", price=0.2)]
    price = cheapest_price(nodes)
    assert price == 0.1
    assert Spend(BudgetConfig(hour=0.3)).lack(price) == ""
    assert cheapest_price([]) is None

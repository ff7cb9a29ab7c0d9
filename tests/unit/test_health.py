"""Who is to blame: the judgement on a node, from counters alone."""

from __future__ import annotations

import pytest

from lcq.config import QuarantineConfig
from lcq.health import alarm_verdict, blame_of, may_blame, missed, verdict
from lcq.models import DeviceReading, ErrorClass, Failure, NodeRecord, NodeStatus
from tests.nodes import LIGHT, NS, TELEA, the_cpu

TERMS = QuarantineConfig()


def a_node(name: str, blame: float = 0.0, status: NodeStatus = NodeStatus.ONLINE, **fields: object) -> NodeRecord:
    values = {
        "id": name, "boot_id": "b", "status": status, "blame": blame, "capability": the_cpu(),
        "serves": {"cpu": (LIGHT,)}, "seen_ms": 1_000_000, "blame_ms": 1_000_000,
    }  # fmt: skip
    return NodeRecord.model_validate(values | fields)


def judged(*nodes: NodeRecord, waiting: tuple[tuple[str, str], ...] = (), terms: QuarantineConfig = TERMS) -> str:
    return verdict("bad", queue=LIGHT, lane=TELEA, waiting=waiting, nodes=nodes, terms=terms)


def test_a_node_that_fails_where_others_do_not_is_quarantined_and_the_reason_names_them() -> None:
    assert judged(a_node("bad", 5.0), a_node("good")) == "failed 5 tasks of late, where good did not"
    assert judged(a_node("bad", 4.0), a_node("good")) == ""


def test_on_probation_two_failures_are_too_many() -> None:
    assert judged(a_node("bad", 2.0, probation=3), a_node("good"))
    assert judged(a_node("bad", 1.0, probation=3), a_node("good")) == ""


@pytest.mark.parametrize(
    "others",
    [
        (),
        (a_node("as-bad", 2.5),),
        (a_node("gone", status=NodeStatus.OFFLINE), a_node("drained", status=NodeStatus.DRAINING)),
        (a_node("other-model", capability=the_cpu((NS,))),),
        (a_node("other-queue", serves={"cpu": ("cpu-intensive",)}),),
    ],
)
def test_where_nobody_well_does_the_same_work_nobody_is_quarantined(others: tuple[NodeRecord, ...]) -> None:
    assert judged(a_node("bad", 50.0), *others) == ""


def test_the_last_that_serves_a_lane_with_waiting_tasks_stays() -> None:
    good = a_node("good", capability=the_cpu((TELEA,)))
    assert judged(a_node("bad", 9.0), good, waiting=((LIGHT, NS),)) == ""
    assert judged(a_node("bad", 9.0), good, waiting=((LIGHT, TELEA),))


def test_only_a_share_of_the_fleet_is_in_quarantine_at_once_but_one_always_may() -> None:
    fleet = [a_node(f"good-{n}") for n in range(7)]
    out = a_node("out", status=NodeStatus.QUARANTINED)
    two = [out, a_node("out-2", status=NodeStatus.QUARANTINED)]
    assert judged(a_node("bad", 9.0), *fleet, *two)  # three of ten
    assert judged(a_node("bad", 9.0), *fleet, *two, a_node("out-3", status=NodeStatus.QUARANTINED)) == ""
    assert judged(a_node("bad", 9.0), a_node("good"), out) == ""
    assert judged(a_node("bad", 9.0), a_node("good"))


def test_a_device_in_doubt_works_on_where_it_is_the_last_for_waiting_tasks_and_says_so() -> None:
    alarm = "had 2 memory errors that ECC could not correct"
    bad = a_node("bad", readings={"cpu": DeviceReading(alarm=alarm)})

    def said(*others: NodeRecord, waiting: tuple[tuple[str, str], ...] = ((LIGHT, NS),)) -> str:
        return alarm_verdict(bad, "cpu", waiting=waiting, nodes=(bad, *others), terms=TERMS)

    kept = f"{alarm}; it works on, because nothing else takes {NS} from {LIGHT}, where tasks wait"
    assert said() == kept
    assert said(a_node("good", capability=the_cpu((TELEA,)))) == kept
    assert said(a_node("good", status=NodeStatus.OFFLINE)) == kept
    assert said(a_node("good")) == ""
    assert said(waiting=()) == "", "nothing waits: nobody misses it"
    assert said(waiting=(("gpu-high", NS),)) == "", "what waits it does not do anyway"


def test_a_device_that_is_one_too_many_in_quarantine_says_how_many_there_are() -> None:
    out = a_node("out", status=NodeStatus.QUARANTINED)
    bad, good = a_node("bad"), a_node("good")
    said = missed(bad, "", waiting=(), nodes=(bad, good, out), terms=TERMS)
    assert said == "1 of 3 devices are in quarantine already, and quarantine.share lets 1 be"


def test_nothing_is_judged_where_quarantine_is_off_or_the_node_takes_no_work() -> None:
    off = QuarantineConfig(enabled=False)
    assert judged(a_node("bad", 9.0), a_node("good"), terms=off) == ""
    for status in (NodeStatus.DRAINING, NodeStatus.QUARANTINED, NodeStatus.OFFLINE):
        assert judged(a_node("bad", 9.0, status), a_node("good")) == ""
    assert judged(a_node("good")) == ""


def test_blame_fades_by_half_in_every_half_life() -> None:
    before = 1_000_000 - int(2 * TERMS.half_life_s * 1000)
    assert blame_of(a_node("bad", 8.0, blame_ms=before), TERMS) == pytest.approx(2.0)


@pytest.mark.parametrize(
    ("error_class", "code", "expected"),
    [
        (ErrorClass.CRASH, "runner_died", True),
        (ErrorClass.BAD_OUTPUT, "output_constant", True),
        (ErrorClass.TRANSIENT, "io_error", True),
        (ErrorClass.TRANSIENT, "iopaint_unreachable", False),
        (ErrorClass.RESOURCE, "out_of_memory", False),
        (ErrorClass.BAD_INPUT, "image_undecodable", False),
    ],
)
def test_bad_input_and_a_dead_neighbour_are_never_the_nodes_fault(
    error_class: ErrorClass, code: str, expected: bool
) -> None:
    assert may_blame(Failure(error_class=error_class, code=code, message="m")) is expected

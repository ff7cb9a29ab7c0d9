"""A device that has become slow is found by its own history, and neither pictures, hosts nor neighbours make it one."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import pytest

from lcq.config import QuarantineConfig
from lcq.costs import CostKey, Curve, Observation, fitted
from lcq.models import Device, DeviceKind, DeviceReading, Lowered, NodeRecord, NodeStatus
from lcq.slow import LEARNED, SlowVerdict, SlowWatch, Took, is_told, lowered_by, slow_verdict, used_by_others
from tests.nodes import LIGHT, NS, TELEA, the_cpu

TERMS = QuarantineConfig()
TWO_S = Curve(fixed_s=2.0, s_per_megapixel=0.0, samples=LEARNED)
COST = str(CostKey(TELEA, "", "opencv", "cpu x"))


@dataclass
class Bench:
    """A watch, a clock that a test moves, and what is learned at the moment: two seconds, whatever the size."""

    now: float = 1000.0
    terms: QuarantineConfig = TERMS
    learned: Curve | None = TWO_S

    def __post_init__(self) -> None:
        self.slow = SlowWatch(clock=lambda: self.now)

    def work(
        self, times: Iterable[float], *, node: str = "bad", device: str = "cpu", every_s: float = 10.0, cost: str = COST
    ) -> float:
        """Attempts that take so many times as long as the two seconds; what the last one brought."""
        said = 0.0
        for one in times:
            self.now += every_s
            said = self.slow.note(node, Took(device, cost, 1.0, 2.0 * one), self.learned, self.terms)
        return said


# ---------------------------------------------------------------- what is slow


def test_a_device_is_slow_once_its_last_attempts_have_been_for_a_minute():
    bench = Bench()
    assert bench.work([1.0] * 20) == 0
    assert bench.work([4.0] * 4) == 0
    assert bench.slow.times("bad", "cpu") == 4.0
    assert bench.work([4.0] * 6) == 0, "half of the last eight are not enough, nor more of them for less than a minute"
    assert bench.work([4.0]) == 4.0


def test_short_work_that_is_slow_for_a_moment_is_no_slow_device():
    bench = Bench()
    assert bench.work([9.0] * 500, every_s=0.1) == 0
    assert bench.work([1.0] * 5, every_s=0.1) == 0
    assert bench.work([9.0] * 500, every_s=0.1) == 0, "it begins anew"
    assert bench.work([9.0] * 200, every_s=0.1) == 9.0


@pytest.mark.parametrize("times", [[2.9] * 40, [1.0, 50.0] * 20, [1.0, 1.0, 9.0] * 20])
def test_a_little_slower_or_now_and_then_is_not_slow(times: list[float]):
    bench = Bench()
    assert max(bench.work([one]) for one in times) == 0


def test_what_was_slow_long_ago_says_nothing_and_work_of_milliseconds_neither():
    bench = Bench()
    bench.work([9.0] * 8, every_s=1.0)
    bench.now += 3600
    assert bench.work([9.0] * 7) == 0
    assert bench.slow.times("bad", "cpu") == 9.0
    bench.now += 3600
    assert bench.slow.times("bad", "cpu") == 0
    bench.learned = Curve(fixed_s=0.002, s_per_megapixel=0.0, samples=LEARNED)
    for _ in range(100):
        bench.now += 10
        assert bench.slow.note("quick", Took("cpu", COST, 1.0, 0.05), bench.learned, TERMS) == 0


def test_models_are_looked_at_one_by_one_and_it_can_be_switched_off():
    bench = Bench()
    for number in range(100):
        assert bench.work([9.0], cost=f"model {number % 20}") == 0, "five of each are not eight"
    off = Bench(terms=QuarantineConfig(slow_times=None))
    assert off.work([9.0] * 100) == 0


def test_who_was_held_for_being_slow_is_known_at_once_where_it_still_is_and_forgiven_where_not():
    bench = Bench()
    bench.work([4.0] * 20)
    bench.slow.hold("bad", "cpu")
    assert bench.work([4.0] * 3) == 0
    assert bench.work([4.0]) == 4.0, "within its probation: so the next pause is longer"
    bench.slow.hold("bad", "cpu")
    assert bench.work([1.0] * 8) == 0
    assert bench.work([4.0] * 8) == 0, "it is like any other again"


def test_it_is_compared_with_its_own_past_also_where_what_is_learned_follows_it_within_seconds():
    bench = Bench()
    bench.work([1.0] * 10, every_s=0.5)
    for second in range(60):
        bench.learned = Curve(fixed_s=2.0 if second < 10 else 10.0, s_per_megapixel=0.0, samples=96)
        assert bench.work([5.0] * 2, every_s=0.5) == 0
    assert bench.work([5.0] * 20, every_s=0.5) == 5.0
    bench.slow.hold("bad", "cpu")
    assert bench.work([5.0] * 200, every_s=0.5) == 0, "what it does when it is back is its usual"


def test_what_is_usual_follows_what_is_learned_for_as_long_as_it_is_well():
    bench = Bench()
    bench.work([1.0] * 8)
    bench.learned = Curve(fixed_s=1.0, s_per_megapixel=0.0, samples=96)  # a new driver has made all of them faster
    bench.work([0.5] * 8)
    assert bench.work([1.75] * 12) == 3.5


def test_what_is_a_little_slower_for_good_becomes_its_usual():
    bench = Bench()
    bench.work([1.0] * 8)
    bench.learned = Curve(fixed_s=4.0, s_per_megapixel=0.0, samples=96)
    bench.work([2.0] * 100)
    assert bench.work([4.0] * 100) == 0, "twice what it has been for long"
    assert bench.work([14.0] * 20) == 7.0


def test_nothing_is_said_before_enough_was_learned():
    for learned in (None, Curve(fixed_s=2.0, s_per_megapixel=0.0, samples=LEARNED - 1)):
        assert Bench(learned=learned).work([9.0] * 50) == 0


def test_pictures_of_other_sizes_take_longer_and_make_no_device_slow():
    sizes = [size for size in (1, 2, 4, 8, 12, 16) for _ in range(4)]
    guess = Curve(fixed_s=0.2, s_per_megapixel=1.0)
    curve = fitted([Observation(megapixels=size, seconds=0.1 + 0.5 * size) for size in sizes], guess)
    bench = Bench()
    for _ in range(20):
        bench.now += 10
        assert bench.slow.note("bad", Took("cpu", COST, 24.0, 0.1 + 0.5 * 24), curve, TERMS) == 0


# ---------------------------------------------------------------- what may be the reason instead


def test_what_is_done_while_a_host_has_far_too_much_to_do_or_others_use_a_device_is_of_no_account():
    bench = Bench()
    for _ in range(30):
        bench.work([9.0] * 4)
        bench.slow.hear("bad", devices=(), telemetry={"load_1m": 3.1, "cores": 2.0})
    assert bench.work([9.0] * 8) == 0
    bench.slow.hear("bad", devices=(), telemetry={"load_1m": 2.9, "cores": 2.0})
    bench.slow.hear("other", devices=("cpu",), telemetry={"load_1m": 99.0, "cores": 2.0})
    assert bench.work([9.0] * 6) == 9.0
    bench.slow.hear("bad", devices=("cpu",), telemetry={})
    assert bench.work([9.0] * 8) == 0
    readings = {
        "a": DeviceReading(foreign_busy=0.3),
        "b": DeviceReading(foreign_busy=0.1),
        "c": DeviceReading(rest="too_hot"),
        "d": DeviceReading(),
    }
    assert used_by_others(readings) == ("a", "c")


def a_node(name: str, devices: tuple[str, ...] = ("cpu",), **fields: object) -> NodeRecord:
    capability = the_cpu().model_copy(update={"devices": tuple(Device(id=one, kind=DeviceKind.CPU) for one in devices)})
    values = {
        "id": name, "boot_id": "b", "status": NodeStatus.ONLINE, "capability": capability,
        "serves": dict.fromkeys(devices, (LIGHT,)),
    }  # fmt: skip
    return NodeRecord.model_validate(values | fields)


def judged(
    bench: Bench,
    *nodes: NodeRecord,
    device: str = "cpu",
    waiting: tuple[tuple[str, str], ...] = (),
) -> SlowVerdict:
    return slow_verdict(
        nodes[0], device, times=4.0, queue=LIGHT, lane=TELEA, slow=bench.slow,
        waiting=waiting, nodes=nodes, terms=TERMS,
    )  # fmt: skip


SLOW = "is slow: its last attempts took 4.0 times as long as is usual for them (the median), where good did not"
LESS = {"cpu": Lowered(times=4.0, behind=2.0, most=2, why=SLOW)}


def test_a_slow_device_is_given_less_first_and_is_held_where_it_stays_slow():
    bench = Bench()
    bench.work([1.0] * 8, node="good")
    assert judged(bench, a_node("bad"), a_node("good")) == SlowVerdict(SLOW)
    assert judged(bench, a_node("bad", lowered=LESS), a_node("good")) == SlowVerdict(SLOW, is_out=True)
    two = a_node("bad", ("left", "right"))
    assert judged(bench, two, device="left").why.endswith("where right did not")
    bench.slow.hold("bad", "cpu")
    assert judged(bench, a_node("bad"), a_node("good")).is_out, "it has been in quarantine for that before"


def test_a_slow_device_that_cannot_be_spared_works_on_with_less_and_says_for_whom():
    bench, good = Bench(), a_node("good", capability=the_cpu((TELEA,)))
    waits = ((LIGHT, TELEA), (LIGHT, NS))
    assert judged(bench, a_node("bad"), good, waiting=waits) == SlowVerdict(SLOW), "less takes no last device away"
    kept = f"{SLOW}; it works on, because nothing else takes {NS} from {LIGHT}, where tasks wait"
    assert judged(bench, a_node("bad", lowered=LESS), good, waiting=waits) == SlowVerdict(kept)
    assert judged(bench, a_node("bad", lowered=LESS), good, waiting=waits[:1]).is_out


def test_less_is_half_of_the_slots_and_predictions_that_hold():
    assert lowered_by(4.0, 2.5, 8, SLOW) == Lowered(times=4.0, behind=2.5, most=4, why=SLOW)
    alone = lowered_by(4.0, 0.9, 1, SLOW)
    assert (alone.most, alone.behind) == (1, 1.0), "what was learned of its class is what it does by now"
    assert [is_told(LESS["cpu"], behind) for behind in (0.0, 1.7, 2.4, 3.0, 1.2)] == [True, True, True, False, False]


def test_a_lowered_device_is_measured_by_what_is_learned_now_and_well_by_what_was_usual_before():
    bench, took = Bench(), Took("cpu", COST, 1.0, 0.0)
    bench.work([1.0] * 8)
    assert bench.slow.is_well("bad", took)
    bench.learned = Curve(fixed_s=4.0, s_per_megapixel=0.0, samples=96)  # half of the class is slow now
    bench.work([6.0] * 7)
    bench.slow.begin_anew("bad", "cpu")
    assert bench.slow.behind("bad", took) == 0
    bench.work([6.0] * 8)
    assert (bench.slow.behind("bad", took), bench.slow.is_well("bad", took)) == (3.0, False)
    bench.work([1.2] * 8)
    assert bench.slow.is_well("bad", took)


def test_who_is_pardoned_begins_anew():
    bench = Bench()
    bench.work([4.0] * 20)
    bench.slow.hold("bad", "gpu")
    bench.slow.pardon("bad", "cpu")
    assert (bench.slow.times("bad", "cpu"), bench.slow.is_held("bad", "gpu")) == (0, True)
    bench.slow.pardon("bad", "")
    assert not bench.slow.is_held("bad", "gpu")


def test_nothing_becomes_of_a_slow_device_where_it_may_be_something_else():
    bench = Bench()
    bad, good = a_node("bad"), a_node("good")
    nothing = SlowVerdict()
    assert judged(bench, bad) == nothing, "nobody else does this work"
    assert judged(bench, bad, a_node("good", status=NodeStatus.DRAINING)) == nothing
    assert judged(bench, bad, a_node("good", readings={"cpu": DeviceReading(fault="too hot")})) == nothing
    assert judged(bench, bad, a_node("good", lowered=LESS)) == nothing, "that one is slow itself"
    bench.work([2.0] * 4, node="good")
    assert judged(bench, bad, good) == nothing, "others are slow too: the store of the pictures, perhaps"
    bench = Bench()
    bench.work([2.0] * 4, device="right")
    assert judged(bench, a_node("bad", ("left", "right")), good, device="left") == nothing, "its host is slow"


def test_a_node_that_has_gone_is_forgotten():
    bench = Bench()
    bench.work([4.0] * 20)
    bench.slow.forget("bad")
    assert bench.slow.times("bad", "cpu") == 0
    assert bench.work([4.0] * 7) == 0

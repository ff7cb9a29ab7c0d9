"""How far the wall clock is off: by the quickest answer, at once after it was set, and with a steady warning."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from worker.skew import Skew


@dataclass
class Clocks:
    """A host's two clocks, and the cluster's."""

    steady: float = 500.0
    ahead: float = 0.0  # of the host's wall clock, against the cluster's
    cluster: float = 1_800_000_000.0

    def __post_init__(self) -> None:
        self.skew = Skew(5.0, wall=lambda: self.cluster + self.ahead, steady=lambda: self.steady)

    def go(self, seconds: float) -> None:
        self.steady += seconds
        self.cluster += seconds

    def beat(self, there_s: float = 0.001, back_s: float = 0.001) -> None:
        asked_at = self.steady
        self.go(there_s)
        shown_ms = int(self.cluster * 1000)
        self.go(back_s)
        self.skew.note(shown_ms, asked_at=asked_at, told_at=self.steady)
        self.go(3)


def test_a_moment_to_come_is_told_by_the_clusters_clock_however_ours_is_set_and_by_ours_where_that_is_not_known():
    clocks = Clocks(ahead=-3600.0)
    assert clocks.skew.shown_ms(clocks.steady + 9) == round((clocks.cluster - 3600 + 9) * 1000)
    clocks.beat()
    told = clocks.skew.shown_ms(clocks.steady + 9)
    assert told == pytest.approx((clocks.cluster + 9) * 1000, abs=3)
    until = clocks.steady + 9
    clocks.ahead = 86_400.0
    clocks.go(3)
    assert clocks.skew.shown_ms(until) == told


def test_nothing_is_known_before_the_first_answer():
    assert Clocks().skew.offset is None
    assert Clocks().skew.warning == ""


@pytest.mark.parametrize("ahead", [0.0, 2.5, -2.5, 86_400.0])
@pytest.mark.parametrize(("there_s", "back_s"), [(0.001, 0.001), (1.0, 0.0), (0.0, 1.0), (0.2, 0.7)])
def test_the_error_is_half_of_what_the_answer_took_and_the_offset_is_within_it(
    ahead: float, there_s: float, back_s: float
):
    clocks = Clocks(ahead=ahead)
    clocks.beat(there_s, back_s)
    offset = clocks.skew.offset
    assert offset is not None
    assert offset.error_s == pytest.approx((there_s + back_s) / 2)
    assert abs(offset.ahead_s - ahead) <= offset.error_s + 0.002


def test_of_some_answers_the_quickest_is_believed_until_it_is_old():
    clocks = Clocks(ahead=1.0)
    clocks.beat(0.0, 2.0)
    clocks.beat(0.002, 0.002)
    for _ in range(6):
        clocks.beat(2.0, 0.0)
        assert clocks.skew.offset is not None
        assert clocks.skew.offset.ahead_s == pytest.approx(1.0, abs=0.01)
    for _ in range(2):
        clocks.beat(2.0, 0.0)
    assert clocks.skew.offset is not None
    assert clocks.skew.offset.error_s == pytest.approx(1.0)


def test_a_clock_of_ours_that_is_set_shows_at_once_and_one_of_the_clusters_with_the_next_answer():
    clocks = Clocks()
    clocks.beat()
    clocks.ahead = 60.0
    assert clocks.skew.offset is not None
    assert clocks.skew.offset.ahead_s == pytest.approx(60.0, abs=0.01)
    clocks.ahead = 0.0
    clocks.cluster += 3600
    clocks.ahead = -3600.0
    clocks.beat(0.3, 0.3)
    assert clocks.skew.offset.ahead_s == pytest.approx(-3600.0, abs=0.4)


def test_a_warning_comes_over_the_bound_for_certain_and_goes_well_under_it():
    clocks = Clocks(ahead=5.4)
    clocks.beat(0.5, 0.5)
    assert clocks.skew.warning == "", "it may be 4.9 s"
    clocks.beat()
    assert clocks.skew.warning.startswith("this host's clock is 5.4 s ahead of the cluster's (± 0.00 s)")
    said = clocks.skew.warning
    clocks.ahead = 4.5
    clocks.beat()
    assert clocks.skew.warning == said, "it neither flickers nor changes its words"
    clocks.ahead = 3.9
    clocks.beat()
    assert clocks.skew.warning == ""
    clocks.ahead = -5.1
    clocks.beat()
    assert "5.1 s behind the cluster's" in clocks.skew.warning
    lenient = Clocks(ahead=50.0)
    lenient.skew.follow(60.0)
    lenient.beat()
    assert lenient.skew.warning == ""

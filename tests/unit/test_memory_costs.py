"""What is learned of memory: the upper edge of what was held, no less than what is shipped before that is enough."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lcq.costs import KEPT, Curve, shipped_curve
from lcq.memory_costs import ENOUGH, MARGIN, Held, memory_calibration, remembering, room_needed
from lcq.models import DeviceKind

PRIOR = shipped_curve("lama", DeviceKind.GPU)  # 2000 MiB for an ordinary picture
UNKNOWN = Curve(1.0, 1.0)

helds = st.lists(
    st.builds(
        Held,
        st.floats(0.01, 100),
        st.integers(0, 100_000),
        st.integers(0, 100_000),
        is_short=st.booleans(),
    ),
    max_size=30,
)


def test_nothing_seen_is_what_was_known() -> None:
    assert remembering(PRIOR, []) == PRIOR
    assert remembering(UNKNOWN, [Held(1.0, 0)]) == UNKNOWN  # an engine that cannot tell


@pytest.mark.parametrize("seen", [1, ENOUGH - 1])
def test_before_enough_was_seen_it_is_never_less_than_what_is_shipped(seen: int) -> None:
    assert remembering(PRIOR, [Held(1.0, 900)] * seen) == PRIOR


def test_after_enough_it_is_what_was_held_also_where_that_is_less() -> None:
    learned = remembering(PRIOR, [Held(1.0, 900)] * ENOUGH)
    assert learned.memory(1.0) == pytest.approx(900)
    assert learned.mib_samples == ENOUGH


def test_the_first_that_held_more_raises_it() -> None:
    assert remembering(PRIOR, [Held(1.0, 3000)]).memory(1.0) == pytest.approx(3000)


def test_the_line_runs_along_the_upper_edge_of_what_was_held() -> None:
    held = [Held(size, int(500 + 300 * size) + (400 if number % 10 == 0 else 0)) for number, size in
            enumerate([1.0, 2.0, 4.0, 8.0] * 20)]  # fmt: skip
    learned = remembering(PRIOR, held)
    assert learned.mib_per_megapixel == pytest.approx(300, rel=0.05)
    assert sum(one.peak_mib <= learned.memory(one.megapixels) + 1 for one in held) >= 0.94 * len(held)


def test_one_that_ran_out_of_memory_raises_it_at_once_and_each_further_one_up_to_twice() -> None:
    told = [remembering(PRIOR, [Held(1.0, 0, is_short=True)] * times).memory(1.0) for times in (1, 2, 30)]
    assert told == [pytest.approx(2500), pytest.approx(3125), pytest.approx(4000)]


def test_what_it_held_as_it_ran_out_is_the_least_that_is_needed() -> None:
    assert remembering(PRIOR, [Held(1.0, 7000, is_short=True)]).memory(1.0) == pytest.approx(7000)


def test_one_that_ran_out_is_forgotten_once_enough_as_large_were_completed() -> None:
    short = Held(4.0, 0, is_short=True)
    small, large = [Held(1.0, 900)] * (2 * ENOUGH), [Held(4.0, 1500)] * ENOUGH
    assert remembering(PRIOR, [short, *small]).memory(1.0) == pytest.approx(900 * 1.25)
    assert remembering(PRIOR, [short, *small, *large]).memory(4.0) == pytest.approx(1500)
    assert remembering(PRIOR, [*small, *large, short]).memory(4.0) == pytest.approx(1500 * 1.25)


def test_only_the_last_that_are_kept_count() -> None:
    assert remembering(PRIOR, [Held(1.0, 9000)] * 50 + [Held(1.0, 900)] * KEPT).memory(1.0) == pytest.approx(900)


@settings(max_examples=50)
@given(helds, st.floats(0.01, 100), st.floats(0.01, 100))
def test_more_of_a_picture_never_needs_less(held: list[Held], one: float, two: float) -> None:
    learned = remembering(PRIOR, held)
    small, large = (learned.memory(size) for size in sorted((one, two)))
    assert 0 <= small <= large


def test_a_margin_is_left_and_an_engines_word_stands_until_enough_was_seen() -> None:
    few, many = (remembering(UNKNOWN, [Held(1.0, 1000)] * seen) for seen in (1, ENOUGH))
    assert room_needed(few, 1.0, otherwise=6000) == 6000
    assert room_needed(many, 1.0, otherwise=6000) == pytest.approx(1000 * MARGIN, abs=1)


def test_calibration_tells_what_was_held_and_how_many_were_within() -> None:
    held = [Held(1.0, peak, 1000) for peak in (800, 900, 1000, 1200)] + [Held(1.0, 0, 1000, is_short=True)]
    told = memory_calibration(held)
    assert (told.predicted_mib, told.peak_mib, told.held_within, told.out_of_memory) == (1000, 950, 0.75, 1)
    assert memory_calibration([]).peak_p95_mib == 0

"""When a node whose beats are missed is shown as suspect."""

from __future__ import annotations

import pytest

from lcq.silence import Ear, overdue_ms, unheard_ms

NOW_MS = 1_000_000


def unheard(*, seen_ms: int, ears: dict[str, Ear], scheduler: str = "s") -> int:
    return unheard_ms(seen_ms, scheduler, ears, beat_ms=3000, gap_ms=1750, now_ms=NOW_MS)


@pytest.mark.parametrize(
    ("beat_ms", "lease_ms", "at_least_ms"),
    [
        pytest.param(3000, 15_000, 5000, id="two seconds more than a beat"),
        pytest.param(10_000, 60_000, 15_000, id="half a beat more, where that is longer"),
        pytest.param(500, 3000, 2250, id="less, where the lease would be all but over"),
    ],
)
def test_a_beat_has_to_be_late_by_more_than_a_busy_host_stands_still(beat_ms: int, lease_ms: int, at_least_ms: int):
    assert overdue_ms(beat_ms, lease_ms) == at_least_ms
    assert overdue_ms(beat_ms, lease_ms) < lease_ms


def test_all_silence_counts_while_the_scheduler_listened():
    assert unheard(seen_ms=NOW_MS - 8000, ears={"s": Ear(NOW_MS - 100, NOW_MS - 60_000)}) == 8000


def test_silence_counts_from_when_a_scheduler_that_stood_still_listens_again():
    assert unheard(seen_ms=NOW_MS - 8000, ears={"s": Ear(NOW_MS - 100, NOW_MS - 700)}) == 700


def test_the_nodes_of_a_frozen_scheduler_have_three_beats_to_find_another():
    assert unheard(seen_ms=NOW_MS - 8000, ears={"s": Ear(NOW_MS - 7800, NOW_MS - 60_000)}) < 0
    assert unheard(seen_ms=NOW_MS - 14_000, ears={"s": Ear(NOW_MS - 14_000, NOW_MS - 60_000)}) == 5000


def test_all_silence_counts_where_nothing_is_known_of_the_scheduler():
    """It is of an older version, or has ended in order: its nodes look for another one at once."""
    assert unheard(seen_ms=NOW_MS - 8000, ears={"another": Ear(NOW_MS, NOW_MS)}) == 8000

"""What a console may do: everything, nothing, or for a while what was lent."""

from __future__ import annotations

from datetime import timedelta

import pytest

from lcq.errors import InvalidInput
from lcq.spans import read_span
from tui.rights import Rights

QUARTER = timedelta(minutes=15)


class Clock:
    def __init__(self) -> None:
        self.s = 100.0

    def __call__(self) -> float:
        return self.s


def test_an_ordinary_console_may_act_and_its_title_says_nothing_of_it():
    rights = Rights()
    assert (rights.refusal(), rights.title) == ("", "")
    assert "may act anyway" in rights.lend(QUARTER)


def test_production_starts_with_reading_and_acts_for_as_long_as_that_was_lent():
    clock = Clock()
    rights = Rights(production=True, clock=clock)
    assert ":write 15m" in rights.refusal()
    assert rights.title == "READ-ONLY"
    assert rights.lend(QUARTER) == "may act for 15m00s"
    assert (rights.refusal(), rights.title) == ("", "WRITE 15m00s")
    clock.s += 14 * 60 + 30
    assert rights.title == "WRITE 30.0s"
    clock.s += 31
    assert rights.refusal()


def test_what_was_lent_can_be_given_back_at_once_and_an_ordinary_console_can_do_without():
    for rights in (Rights(production=True), Rights()):
        rights.lend(QUARTER)
        rights.give_back()
        assert rights.refusal()
        rights.lend(QUARTER)
        assert not rights.refusal()


def test_nothing_is_lent_to_a_console_that_only_reads():
    rights = Rights(read_only=True, production=True)
    with pytest.raises(InvalidInput, match="--read-only"):
        rights.lend(QUARTER)
    assert "--read-only" in rights.refusal()


@pytest.mark.parametrize("span", [timedelta(), timedelta(hours=9), timedelta(seconds=-1)])
def test_the_right_to_act_is_lent_for_a_while_and_no_longer(span):
    with pytest.raises(InvalidInput, match="up to 8h"):
        Rights(production=True).lend(span)


@pytest.mark.parametrize(
    ("typed", "seconds"), [("15m", 900), ("1h30m", 5400), ("90", 90), ("0", 0), (" 2H ", 7200), ("500ms", 0.5)]
)
def test_a_length_of_time_is_read_as_filters_read_it(typed, seconds):
    assert read_span(typed, named="it").total_seconds() == seconds


@pytest.mark.parametrize("typed", ["", "soon", "15 m", "m15", "1y", "-5", "31d"])
def test_what_is_no_length_of_time_is_told(typed):
    with pytest.raises(InvalidInput, match="the deadline is"):
        read_span(typed, named="the deadline")

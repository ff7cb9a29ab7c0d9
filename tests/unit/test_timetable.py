"""When schedules are due and windows are open, also in the nights in which clocks are set."""

from __future__ import annotations

from datetime import datetime
from zoneinfo import ZoneInfo

import pytest

from lcq.timetable import Cron, Window, at_ms, moment_of, read_days

BERLIN = ZoneInfo("Europe/Berlin")


def ms(text: str, zone: str = "UTC", fold: int = 0) -> int:
    return at_ms(datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone), fold=fold))


def local(times: tuple[int, ...]) -> list[str]:
    return [moment_of(one, BERLIN).strftime("%m-%d %H:%M") for one in times]


def test_a_schedule_is_due_by_the_clocks_of_its_zone() -> None:
    cron = Cron("30 2 * * mon-fri", "Europe/Berlin")
    assert local(cron.following(ms("2026-11-27 12:00"), 2)) == ["11-30 02:30", "12-01 02:30"]
    assert cron.last_due(ms("2026-11-27 12:00"), ms("2026-11-30 12:00")) == ms("2026-11-30 02:30", "Europe/Berlin")
    assert cron.last_due(ms("2026-11-30 02:30", "Europe/Berlin"), ms("2026-11-30 12:00")) is None
    on_time = ms("2026-11-30 02:30", "Europe/Berlin")
    assert cron.last_due(on_time - 1, on_time) == on_time
    assert cron.last_due(on_time - 1, on_time - 1) is None


def test_what_falls_into_the_hour_that_is_left_out_is_due_after_it_and_what_falls_into_one_twice_is_due_once() -> None:
    cron = Cron("30 2 * * *", "Europe/Berlin")
    assert local(cron.following(ms("2026-03-28 12:00"), 2)) == ["03-29 03:00", "03-30 02:30"]
    assert local(cron.following(ms("2026-10-24 12:00"), 2)) == ["10-25 02:30", "10-26 02:30"]


@pytest.mark.parametrize(
    ("expression", "zone", "found"),
    [
        ("* * *", "UTC", "is no cron expression"),
        ("61 * * * *", "UTC", "Bad minute"),
        ("0 0 31 2 *", "UTC", "cron expression|never due"),
        ("0 0 * * *", "Mars/Olympus", "no time zone"),
    ],
)
def test_what_is_no_time_is_refused(expression: str, zone: str, found: str) -> None:
    with pytest.raises(ValueError, match=found):
        Cron(expression, zone).check()


def test_a_window_over_midnight_belongs_to_the_day_on_which_it_opens() -> None:
    night = Window("20:00-07:00", "mon-fri", "Europe/Berlin")
    friday = ms("2026-11-27 23:00", "Europe/Berlin")
    assert night.state(friday) == (
        True,
        ms("2026-11-27 20:00", "Europe/Berlin"),
        ms("2026-11-28 07:00", "Europe/Berlin"),
    )
    saturday = ms("2026-11-28 22:00", "Europe/Berlin")
    closed = (False, ms("2026-11-28 07:00", "Europe/Berlin"), ms("2026-11-30 20:00", "Europe/Berlin"))
    assert night.state(saturday) == closed
    assert night.state(ms("2026-11-28 07:00", "Europe/Berlin")) == closed, "to the minute"
    assert night.state(ms("2026-11-30 06:00", "Europe/Berlin"))[0] is False, "nobody opened it on Sunday"


def test_windows_that_touch_are_one_and_a_whole_day_is_a_day() -> None:
    weekend = Window("00:00-24:00", "sat,sun")
    opened, since, until = weekend.state(ms("2026-11-29 12:00"))
    assert (opened, since, until) == (True, ms("2026-11-28 00:00"), ms("2026-11-30 00:00"))
    always = Window("08:00-08:00")
    assert always.state(ms("2026-11-29 12:00"))[0]


def test_a_window_is_as_long_as_the_clocks_on_the_wall_say_in_the_nights_in_which_they_are_set() -> None:
    night = Window("20:00-07:00", "", "Europe/Berlin")
    spring, autumn = ms("2026-03-28 22:00", "Europe/Berlin"), ms("2026-10-24 22:00", "Europe/Berlin")
    hours = [(until - since) / 3_600_000 for _, since, until in (night.state(spring), night.state(autumn))]
    assert hours == [10, 12]


def test_days_and_hours_are_read_as_people_write_them() -> None:
    assert read_days("fri-mon") == {4, 5, 6, 0}
    assert read_days("") == set(range(7))
    for wrong in ("monday", "mon-", "x"):
        with pytest.raises(ValueError, match="weekdays"):
            read_days(wrong)
    for wrong in ("8-9", "25:00-26:00", "20:00", "20:70-07:00"):
        with pytest.raises(ValueError, match="span of a day"):
            Window(wrong).check()

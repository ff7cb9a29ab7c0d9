"""Moments as people type them."""

from __future__ import annotations

import time
from datetime import datetime, timedelta

import pytest

from lcq.errors import InvalidInput
from lcq.moments import moment_meant, told_deadline, told_moment

NOW = datetime(2026, 11, 30, 17, 0).astimezone()


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("90m", NOW + timedelta(minutes=90)),
        ("1.5 h", NOW + timedelta(minutes=90)),
        ("2d", NOW + timedelta(days=2)),
        ("17:30", NOW + timedelta(minutes=30)),
        ("9:00", NOW + timedelta(hours=16)),
        ("17:00", NOW + timedelta(days=1)),
        ("2026-12-01 08:00", NOW + timedelta(hours=15)),
        (" 2026-12-01T08:00 ", NOW + timedelta(hours=15)),
    ],
)
def test_a_time_of_day_a_date_or_a_span_is_a_moment_to_come(typed: str, meant: datetime) -> None:
    assert moment_meant(typed, NOW) == meant
    assert moment_meant(typed, NOW).tzinfo is not None


def test_a_date_may_name_its_zone() -> None:
    assert moment_meant("2027-01-01T00:00+05:00", NOW).isoformat().startswith(("2026-12-31", "2027-01-01"))
    assert moment_meant("2027-01-01T00:00+05:00", NOW) == datetime.fromisoformat("2026-12-31T19:00+00:00")


def test_a_moment_is_told_with_its_zone_and_can_be_typed_so(monkeypatch: pytest.MonkeyPatch) -> None:
    noon = datetime.fromisoformat("2999-12-24T12:00+00:00")
    try:
        for zone, told in (("UTC", "2999-12-24 12:00:00+00:00"), ("CST-8", "2999-12-24 20:00:00+08:00")):
            monkeypatch.setenv("TZ", zone)
            time.tzset()
            assert told_moment(noon) == told
            assert told_deadline(noon, str).startswith(f"{told}, in ")
            assert moment_meant(told, NOW) == noon
    finally:
        monkeypatch.undo()
        time.tzset()


@pytest.mark.parametrize("typed", ["", "soon", "25:00", "-5m", "2026-13-01", "99999999999d", "5", "2026-11-30 16:00"])
def test_what_is_no_moment_to_come_is_refused_with_what_would_be(typed: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        moment_meant(typed, NOW)
    assert refused.value.hint

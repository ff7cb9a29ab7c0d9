"""Moments to come, as people type them: a time of day, a date, or how long from now."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from datetime import datetime, timedelta

from lcq.errors import InvalidInput
from lcq.lang import tr

_SPAN = re.compile(r"^(\d+(?:\.\d+)?)\s*([smhd])$")
_UNIT_S = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_TIME = re.compile(r"^(\d{1,2}):(\d{2})$")


NONE = "none"
"""What takes a deadline away, where one is asked for."""


def moment_or_none(text: str, now: datetime) -> datetime | None:
    """As ``moment_meant``; None where ``text`` is "none".

    Raises:
        InvalidInput: it is neither a moment to come nor that.
    """
    return None if text.strip().casefold() == NONE else moment_meant(text, now)


def moment_meant(text: str, now: datetime) -> datetime:
    """The moment that ``text`` means, by this host's clock where it names no time zone; ``now`` is one of that.

    A time of day that is over today is meant for tomorrow.

    Raises:
        InvalidInput: it is none, or is over.
    """
    typed = text.strip()
    try:
        if span := _SPAN.match(typed):
            return now + timedelta(seconds=float(span[1]) * _UNIT_S[span[2]])
        if time_of_day := _TIME.match(typed):
            today = now.replace(tzinfo=None)  # by the clock on the wall, also in a night in which that is set
            meant = today.replace(hour=int(time_of_day[1]), minute=int(time_of_day[2]), second=0, microsecond=0)
            return (meant if meant > today else meant + timedelta(days=1)).astimezone()
        moment = datetime.fromisoformat(typed).astimezone()
    except (ValueError, OverflowError, OSError):
        raise InvalidInput(f"{text!r} is no moment", hint="such as 17:30, 2026-12-24 09:00, 90m, 2h or 1d") from None
    if moment <= now:
        raise InvalidInput(f"{text!r} is over: it is {now:%Y-%m-%d %H:%M:%S %Z} now", hint="name a moment to come")
    return moment


def told_moment(moment: datetime) -> str:
    """By this host's clock, and with the zone of it: who reads that may sit elsewhere. It can be typed so, too."""
    return moment.astimezone().isoformat(" ", "seconds")


def told_deadline(deadline: datetime, span: Callable[[float], str]) -> str:
    """When something is to be done by, on this host's clock, and how far that is from now."""
    left_s = deadline.timestamp() - time.time()
    when = told_moment(deadline)
    if left_s < 0:
        return tr("{when}, ! LATE since {span}", when=when, span=span(-left_s))
    return tr("{when}, in {span}", when=when, span=span(left_s))

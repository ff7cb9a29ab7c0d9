"""Lengths of time as operators type them, the same as in filters."""

from __future__ import annotations

import re
from datetime import timedelta

from lcq.errors import InvalidInput

_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|[smhdw])")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0, "w": 604_800.0}
_MOST_S = 30 * 86_400.0


def read_span(typed: str, *, named: str) -> timedelta:
    """``1h30m`` as a length of time of at most 30 days; a bare number is seconds.

    Raises:
        InvalidInput: saying what ``named`` has to be.
    """
    text = typed.strip().casefold()
    parts = _PART.findall(text)
    if parts and "".join(number + unit for number, unit in parts) == text:
        seconds = sum(float(number) * _SECONDS[unit] for number, unit in parts)
    elif re.fullmatch(r"\d+(\.\d+)?", text):
        seconds = float(text)
    else:
        raise InvalidInput(f"{named} is a length of time, found {typed!r}", hint="such as 90s, 15m or 1h30m")
    if seconds > _MOST_S:
        raise InvalidInput(f"{named} is at most 30 days, found {typed!r}", hint="such as 90s, 15m or 1h30m")
    return timedelta(seconds=seconds)

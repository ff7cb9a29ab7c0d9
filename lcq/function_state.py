"""How a function stands that did not answer, by what its agent tells of it: it rests, or one call tries it. Pure."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum

from lcq.lang import N, T, ntr, retold, tr
from lcq.models import DeviceReading, FunctionReading, RestCode

LEFT_ALONE = T("its function is left alone until it is tried again: {why}")
"""The fault of a function that rests, ``why``: what its last call found."""
_BEFORE_WHY = LEFT_ALONE.partition("{")[0]


class FunctionState(StrEnum):
    OFFERED = "offered"  # it answers, as far as anybody knows
    RESTS = "rests"  # nobody calls it before its pause is over
    TRIED = "tried"  # one call at a time tries whether it answers again; told by no agent that is older than this


def state_of(reading: DeviceReading) -> FunctionState:
    """How the function stands that a device is."""
    if reading.rest == RestCode.ENDPOINT_AWAY:
        return FunctionState.RESTS
    is_tried = reading.function is not None and reading.function.trials is not None
    return FunctionState.TRIED if is_tried else FunctionState.OFFERED


def told_standing(function: FunctionReading | None, at: Callable[[int], str]) -> str:
    """Such as "rests until 13:05:10, after 3 calls in vain", or "is tried by one call"; "": neither, or its agent is
    older, and does not tell. ``at`` tells a moment, in ms since 1970.
    """
    told = told_briefly(function, at)
    if not told or function is None or not function.in_vain:
        return told
    return ntr("{told}, after {n:,} call in vain", "{told}, after {n:,} calls in vain", function.in_vain, told=told)


def told_briefly(function: FunctionReading | None, at: Callable[[int], str]) -> str:
    """The same, where there is room for few words."""
    if function is None:
        return ""
    if function.rests_until_ms is not None:
        return tr("rests until {time}", time=at(function.rests_until_ms))
    if function.trials is None:
        return ""
    return tr(N("is tried by one call") if function.trials else N("is tried by the next call"))


def told_why(fault: str, standing: str) -> str:
    """Why a function rests, in the language that is spoken: what its last call found, behind how it stands; its whole
    ``fault`` where that is not told.
    """
    if not standing:
        return retold(fault)
    return tr("{standing}: {why}", standing=standing, why=retold(fault.removeprefix(_BEFORE_WHY)))

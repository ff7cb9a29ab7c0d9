"""How the instances of a function are told."""

from __future__ import annotations

from lcq.lang import ntr, tr
from lcq.models import FunctionReading


def told_instances(function: FunctionReading) -> str:
    """Such as "2 instances"; "" where none is warm."""
    return ntr("{n:,} instance", "{n:,} instances", function.warm) if function.warm else ""


def told_cold_starts(function: FunctionReading) -> str:
    """How many there were, and what the last one took."""
    if not function.cold:
        return ""
    return tr(
        "{n:,}, the last took {start:.1f} s, {load:.1f} of them to load its model",
        n=function.cold,
        start=function.start_s,
        load=function.load_s,
    )


def told_start(seconds: float) -> str:
    """What a cold start took."""
    return tr("{seconds:.1f} s", seconds=seconds)

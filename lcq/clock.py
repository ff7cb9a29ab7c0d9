"""Clocks that nobody sets, and whether Redis's has been set.

Deadlines are Redis's, by its TIME, which is a wall clock: somebody may set it, and a replica that takes over may have
another. Every scheduler compares it with a clock of its own that only ever goes on.
"""

from __future__ import annotations

import time

TOLERATED_MS = 200
"""A step as small as that is not worth a word: clocks are slewed, and answers take their time."""


def steady_now() -> float:
    """Seconds on a clock that nobody sets, and that goes on while the machine sleeps where there is such a one."""
    if hasattr(time, "CLOCK_BOOTTIME"):
        return time.clock_gettime(time.CLOCK_BOOTTIME)
    return time.monotonic()


class ClockWatch:
    """Told what Redis's clock shows, every now and then; knows when it has been set, and what it should show."""

    def __init__(self) -> None:
        self._shown_ms: int | None = None
        self._asked_at = self._told_at = 0.0

    def note(self, shown_ms: int, *, asked_at: float, told_at: float) -> int:
        """Redis's clock showed ``shown_ms`` at some moment between two of ``steady_now()``.

        Answers by how many ms it has been set since the last look: 0 for not at all, and the first time.
        """
        before = self._shown_ms
        least_ms, most_ms = (asked_at - self._told_at) * 1000, (told_at - self._asked_at) * 1000
        self._shown_ms, self._asked_at, self._told_at = shown_ms, asked_at, told_at
        if before is None or least_ms - TOLERATED_MS <= shown_ms - before <= most_ms + TOLERATED_MS:
            return 0
        return round(shown_ms - before - (least_ms + most_ms) / 2)

    def most_ms(self) -> int:
        """What Redis's clock shows now at most, unless it has been set since the last look."""
        return (self._shown_ms or 0) + round((steady_now() - self._asked_at) * 1000) + TOLERATED_MS

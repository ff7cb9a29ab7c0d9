"""How often news may be painted: a terminal is sent so many bytes a second, and no more for longer than a moment."""

from __future__ import annotations

import time
from collections.abc import Callable

BYTES_S = 24_000
"""What news may take of a link; keys are answered at once, whatever they take."""
BURST_S = 0.5  # of quiet saved up: one news that changes all of the screen goes out at once
DEBT_S = 1.0  # and it never waits longer than this for what has been sent before


class Pace:
    """Counts what is sent, and tells whether news may be painted now."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._at = clock()
        self._left = BURST_S * BYTES_S

    def note(self, sent: int) -> None:
        """So many bytes have been sent to the terminal."""
        self._left = max(-DEBT_S * BYTES_S, self._left_now() - sent)

    @property
    def allows(self) -> bool:
        return self._left_now() >= 0

    def _left_now(self) -> float:
        now = self._clock()
        self._left = min(BURST_S * BYTES_S, self._left + (now - self._at) * BYTES_S)
        self._at = now
        return self._left

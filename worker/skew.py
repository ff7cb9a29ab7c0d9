"""How far this host's wall clock is off from the cluster's. No deadline goes by it: file times and certificates do."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from lcq.clock import TOLERATED_MS, steady_now

_log = logging.getLogger(__name__)
_KEPT = 8  # answers, of which the quickest is believed
_CALMED = 0.8  # of the bound, under which a warning ends


@dataclass(frozen=True)
class Offset:
    """How far our clock is ahead of the cluster's (negative: behind), and how sure that is, in seconds."""

    ahead_s: float
    error_s: float


@dataclass(frozen=True)
class _Sample:
    """The cluster's clock less our steady one, and half the time in which that may have been."""

    less_s: float
    error_s: float

    def agrees_with(self, other: _Sample) -> bool:
        return abs(self.less_s - other.less_s) <= self.error_s + other.error_s + TOLERATED_MS / 1000


class Skew:
    """Told what the cluster's clock shows in each answer that has it; knows how far ours is off at any moment."""

    def __init__(
        self, bound_s: float, *, wall: Callable[[], float] = time.time, steady: Callable[[], float] = steady_now
    ) -> None:
        """``bound_s``: a warning is due where ours is off by more."""
        self.warning = ""
        """What is wrong with our clock, for a person; "" where nothing is."""
        self._bound_s = bound_s
        self._wall = wall
        self._steady = steady
        self._samples: deque[_Sample] = deque(maxlen=_KEPT)

    def follow(self, bound_s: float) -> None:
        """Go by this bound from now on."""
        self._bound_s = bound_s

    def note(self, shown_ms: int, *, asked_at: float, told_at: float) -> None:
        """The cluster's clock showed ``shown_ms`` at some moment between these two of the steady clock."""
        error_s = max(0.0, told_at - asked_at) / 2
        sample = _Sample(shown_ms / 1000 - (asked_at + error_s), error_s)
        if not all(sample.agrees_with(one) for one in self._samples):
            self._samples.clear()  # that clock was set, or another server has taken over
        self._samples.append(sample)
        self._judge()

    @property
    def offset(self) -> Offset | None:
        """Nothing is known before the first answer that tells."""
        if not self._samples:
            return None
        best = self._best
        return Offset(self._wall() - (self._steady() + best.less_s), best.error_s)

    def shown_ms(self, at: float) -> int:
        """What the cluster's clock shows at that moment of the steady one, in ms since 1970; what ours does, before the
        first answer that tells.
        """
        less_s = self._best.less_s if self._samples else self._wall() - self._steady()
        return round((at + less_s) * 1000)

    @property
    def _best(self) -> _Sample:
        return min(self._samples, key=lambda one: one.error_s)

    def _judge(self) -> None:
        offset = self.offset
        if offset is None:
            return
        off_s = abs(offset.ahead_s)
        if not self.warning and off_s - offset.error_s > self._bound_s:
            way = "ahead of" if offset.ahead_s > 0 else "behind"
            self.warning = (
                f"this host's clock is {off_s:.1f} s {way} the cluster's (± {offset.error_s:.2f} s): times of files "
                "and certificates will be wrong, leases are not; see to its time service (timedatectl)"
            )
            _log.warning(self.warning)
        elif self.warning and off_s + offset.error_s < self._bound_s * _CALMED:
            self.warning = ""
            _log.warning("this host's clock agrees with the cluster's again, within %.2f s", off_s + offset.error_s)

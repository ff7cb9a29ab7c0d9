"""How much of this host's processors programs use that are not this agent's, nor below it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable

import psutil


def _busy_s() -> float:
    """Seconds that all processors together have worked, for whomever."""
    spent = psutil.cpu_times()
    return float(sum(spent) - spent.idle - getattr(spent, "iowait", 0.0) - getattr(spent, "guest", 0.0))


def _own_s() -> float:
    """Seconds of these that this process has had, and all below it, also what has ended there."""
    own = 0.0
    with contextlib.suppress(psutil.Error):
        me = psutil.Process()
        for one in (me, *me.children(recursive=True)):
            with contextlib.suppress(psutil.Error):  # it has just ended: its parent has its seconds
                own += sum(one.cpu_times()[:4])
    return own


class ForeignCpu:
    """Measured from one ``share()`` to the next."""

    def __init__(
        self,
        *,
        busy_s: Callable[[], float] = _busy_s,
        own_s: Callable[[], float] = _own_s,
        cores: int = os.cpu_count() or 1,
    ) -> None:
        self._busy_s = busy_s
        self._own_s = own_s
        self._cores = cores
        self._last: tuple[float, float, float] | None = None

    def share(self, now: float) -> float | None:
        """The share of all cores that others used since the last call, at ``now`` by a steady clock; None the first
        time. Reads the table of processes: some milliseconds.
        """
        try:
            current = (now, self._busy_s(), self._own_s())
        except (OSError, psutil.Error):  # a system that does not tell
            self._last = None
            return None
        last, self._last = self._last, current
        if last is None or now <= last[0]:
            return None
        took_s, busy_s, own_s = (after - before for after, before in zip(current, last, strict=True))
        return max(0.0, min(1.0, (busy_s - max(0.0, own_s)) / (took_s * self._cores)))

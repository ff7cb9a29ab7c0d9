"""A probe of this node: fresh runners on every device that is in order, and what their golden pictures showed."""

from __future__ import annotations

import logging
from collections.abc import Callable

from lcq.clock import steady_now
from worker.pool import RunnerPool, Shown

_log = logging.getLogger(__name__)
_LONGEST_S = 600.0  # a device that has shown nothing by then may have failed meanwhile: begin anew


class Retest:
    """``on_done`` is called with whether all is well, and with what is not."""

    def __init__(self, pool: RunnerPool, *, on_done: Callable[[bool, str], None]) -> None:
        self._pool = pool
        self._on_done = on_done
        self._awaited: set[str] = set()  # devices that have not shown yet what they can
        self._found: list[str] = []
        self._began = 0.0

    def begin(self) -> None:
        """Replace all runners, unless that is under way. Busy ones finish their attempt first."""
        if self._awaited and steady_now() - self._began < _LONGEST_S:
            return
        _log.warning("the cluster wants to see whether this node works: all runners are replaced and tested")
        self._began, self._found = steady_now(), []
        self._awaited = set(self._pool.renew())
        if not self._awaited:
            self._on_done(False, "no device is in order")

    def hear(self, shown: Shown) -> None:
        """Take in what a runner has shown."""
        if shown.device not in self._awaited or not (shown.tested or shown.ready is None):
            return
        self._awaited.remove(shown.device)
        if shown.ready is None:
            self._found.append(f"{shown.device}: {shown.why}")
        elif shown.ready.failed:
            self._found += shown.ready.failed.values()
        elif not shown.ready.offers:
            self._found.append(f"{shown.device}: no engine has a model for it")
        if not self._awaited:
            self._on_done(not self._found, "; ".join(self._found)[:2000])

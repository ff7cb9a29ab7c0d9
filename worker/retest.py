"""Probes of this node or of one device: fresh runners where all is in order, and what their golden pictures showed."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field

from lcq.clock import steady_now
from worker.pool import RunnerPool
from worker.slot import Shown

_log = logging.getLogger(__name__)
_LONGEST_S = 600.0  # a device that has shown nothing by then may have failed meanwhile: begin anew


@dataclass
class _Trial:
    """One probe: of one device, or of all."""

    began: float
    awaited: set[str]  # devices that have not shown yet what they can
    found: list[str] = field(default_factory=list)


class Retest:
    """``on_done`` is called with which device was probed ("": all of them), whether all is well, and what is not."""

    def __init__(self, pool: RunnerPool, *, on_done: Callable[[str, bool, str], None]) -> None:
        self._pool = pool
        self._on_done = on_done
        self._trials: dict[str, _Trial] = {}  # by device; "": of all

    def begin(self, device: str = "") -> None:
        """Replace the runners of ``device``, or all, unless that is under way. Busy ones finish their attempt first."""
        trial = self._trials.get(device)
        if trial is not None and steady_now() - trial.began < _LONGEST_S:
            return
        of = f"device {device}" if device else "this node"
        _log.warning("the cluster wants to see whether %s works: its runners are replaced and tested", of)
        awaited = self._pool.renew(device)
        if awaited:
            self._trials[device] = _Trial(steady_now(), set(awaited))
        else:
            self._on_done(device, False, f"{device} is not in order" if device else "no device is in order")

    def hear(self, shown: Shown) -> None:
        """Take in what a runner has shown."""
        if not (shown.tested or shown.ready is None):
            return
        for name, trial in tuple(self._trials.items()):
            if shown.device in trial.awaited:
                self._take_in(name, trial, shown)

    def _take_in(self, name: str, trial: _Trial, shown: Shown) -> None:
        trial.awaited.remove(shown.device)
        if shown.ready is None:
            trial.found.append(f"{shown.device}: {shown.why}")
        elif shown.ready.failed:
            trial.found += shown.ready.failed.values()
        elif not shown.ready.offers:
            trial.found.append(f"{shown.device}: no engine has a model for it")
        if not trial.awaited:
            del self._trials[name]
            self._on_done(name, not trial.found, "; ".join(trial.found)[:2000])

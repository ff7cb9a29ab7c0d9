"""Devices that have become slow, by what was learned of their attempts while they were not. Pure: no I/O.

What is learned (lcq/costs.py) knows the model, the precision, the size of the picture and the class of the device. Of
each device the curve is remembered that held when it was last as fast as that says: what is learned follows a device
that becomes slow, within seconds where its work is short.
"""

from __future__ import annotations

import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from statistics import median_low

from lcq.config import QuarantineConfig
from lcq.costs import Curve
from lcq.health import can_be_spared, well_beside
from lcq.models import DeviceReading, NodeRecord

Name = tuple[str, str]
"""Node and device."""

WINDOW = 8
"""Attempts whose median counts; of a device that was held for being slow, ``AGAIN`` are enough, at once."""
AGAIN = 4
LEARNED = 16
"""Attempts that a curve must have been learned from to be believed against a device."""
NOT_SLOW = 1.5
"""Times as long as it was, up to which a device is no slow one."""

_LEAST_S = 0.1  # what is expected counts as no less: of shorter work it is the rest that takes time
_FRESH_S = 900.0
_MOST_KEPT = 4096  # of devices with a model each
_BUSY_LOAD = 1.5  # processes that want to run, a core
_BUSY_ELSEWHERE = 0.2  # of a device's time


@dataclass(frozen=True)
class Took:
    """What one completed attempt took on a device, with its model loaded."""

    device: str
    cost: str  # by what it was predicted, as lcq.costs.CostKey writes it
    megapixels: float
    seconds: float


@dataclass
class _Window:
    """The last attempts on one device of one cost, against what they would have taken when all was well."""

    usual: Curve
    usual_since: float  # when the device was last so
    ratios: deque[tuple[float, float]] = field(default_factory=lambda: deque(maxlen=WINDOW))  # when, times as long
    slow_since: float | None = None

    def middle(self, count: int) -> float:
        """The median of the last ``count``, of two the lower one; 0 where there are less."""
        last = [ratio for _, ratio in self.ratios][-count:]
        return median_low(last) if len(last) == count else 0.0


class SlowWatch:
    """Told of each completed attempt of the nodes at one scheduler."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._windows: OrderedDict[tuple[str, str, str], _Window] = OrderedDict()  # node, device, cost
        self._held: set[Name] = set()

    def note(self, node: str, took: Took, learned: Curve | None, terms: QuarantineConfig) -> float:
        """How many times as long as usual this device takes, where that is to be judged; else 0.

        ``learned``: what is known of the cost now; None or from few attempts: this one says nothing.
        """
        if terms.slow_times is None or learned is None or learned.samples < LEARNED:
            return 0.0
        now, is_held = self._clock(), (node, took.device) in self._held
        window = self._window((node, took.device, took.cost), learned, now)
        while window.ratios and now - window.ratios[0][0] > _FRESH_S:
            window.ratios.popleft()
        window.ratios.append((now, took.seconds / max(_LEAST_S, window.usual.seconds(took.megapixels))))
        if 0 < window.middle(WINDOW) <= NOT_SLOW:
            window.usual, window.usual_since = learned, now
            self._held.discard((node, took.device))
        times = window.middle(AGAIN if is_held else WINDOW)
        if times <= terms.slow_times:
            window.slow_since = None
            if now - window.usual_since > _FRESH_S:  # a little slower for good: that is usual from now on
                window.usual, window.usual_since = learned, now
                window.ratios.clear()
            return 0.0
        if window.slow_since is None:
            window.slow_since = now
        return times if is_held or now - window.slow_since >= terms.slow_s else 0.0

    def _window(self, key: tuple[str, str, str], learned: Curve, now: float) -> _Window:
        window = self._windows.get(key)
        if window is None:
            window = self._windows[key] = _Window(usual=learned, usual_since=now)
            if len(self._windows) > _MOST_KEPT:
                self._windows.popitem(last=False)
        self._windows.move_to_end(key)
        return window

    def times(self, node: str, device: str) -> float:
        """How many times as long as usual it takes by all that is known; 0 where not enough is."""
        now = self._clock()
        found = (window for key, window in self._windows.items() if key[:2] == (node, device))
        fresh = (one for one in found if one.ratios and now - one.ratios[-1][0] <= _FRESH_S)
        return max((one.middle(AGAIN) for one in fresh), default=0.0)

    def begin_anew(self, node: str, device: str) -> None:
        """How long it took of late is of no account."""
        for key, window in self._windows.items():
            if key[:2] == (node, device):
                window.ratios.clear()
                window.slow_since = None

    def hold(self, node: str, device: str) -> None:
        """It is held now, for being slow; once it works again, what is learned then is its usual."""
        for key in [key for key in self._windows if key[:2] == (node, device)]:
            del self._windows[key]
        self._held.add((node, device))

    def hear(self, node: str, *, devices: Iterable[str], telemetry: Mapping[str, float | str]) -> None:
        """``devices`` of a node are used by others too; as its host is, where that has far too much to do.

        What attempts took there meanwhile says nothing of the devices.
        """
        load, cores = telemetry.get("load_1m"), telemetry.get("cores")
        is_busy = isinstance(load, float) and isinstance(cores, float) and load > _BUSY_LOAD * cores
        meant = {key[1] for key in self._windows if key[0] == node} if is_busy else set(devices)
        for device in meant:
            self.begin_anew(node, device)

    def forget(self, node: str) -> None:
        """A node is gone."""
        for key in [key for key in self._windows if key[0] == node]:
            del self._windows[key]
        self._held = {name for name in self._held if name[0] != node}


def used_by_others(readings: Mapping[str, DeviceReading]) -> tuple[str, ...]:
    """Devices that other programs use noticeably, or that rest."""
    return tuple(device for device, one in readings.items() if one.rest or (one.foreign_busy or 0.0) >= _BUSY_ELSEWHERE)


def slow_verdict(
    node: NodeRecord,
    device: str,
    *,
    times: float,
    queue: str,
    lane: str,
    slow: SlowWatch,
    waiting: Iterable[tuple[str, str]],
    nodes: Iterable[NodeRecord],
    terms: QuarantineConfig,
) -> str:
    """Why ``device`` of ``node`` (the whole node, where none is named), which takes ``times`` as long as usual, is to
    be quarantined; "": not.

    It is not where other devices of its node are slow too, for then it is the host; where nobody else is known to do
    this work and not to be slow; nor where it cannot be spared.
    """
    if device and any(slow.times(node.id, one.id) > NOT_SLOW for one in node.capability.devices if one.id != device):
        return ""
    beside = well_beside(node, device, queue=queue, lane=lane, nodes=nodes, terms=terms)
    well = [name for name, what in beside.items() if all(slow.times(*one) <= NOT_SLOW for one in what)]
    if not well or not can_be_spared(node, device, waiting=waiting, nodes=nodes, terms=terms):
        return ""
    return (
        f"is slow: its last attempts took {times:.1f} times as long as is usual for them (the median), "
        f"where {', '.join(well[:3])} did not"
    )

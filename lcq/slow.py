"""Devices that have become slow, by what their attempts were predicted to take. Pure: no I/O.

A prediction knows the model, the precision, the size of the picture and the class of the device, and was learned from
what that class did before (lcq/costs.py): the history that a device is compared with is its own and that of its like.
"""

from __future__ import annotations

import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from statistics import median_low

from lcq.config import QuarantineConfig
from lcq.health import can_be_spared, well_beside
from lcq.models import DeviceReading, NodeRecord

Name = tuple[str, str]
"""Node and device."""

WINDOW = 8
"""Attempts whose median counts; of a device that was held for being slow, ``AGAIN`` are enough, at once."""
AGAIN = 4
LEARNED = 16
"""Attempts a prediction must have been learned from to be believed against a device."""
NOT_SLOW = 1.5
"""Times as long as predicted, up to which a device is no slow one."""

_LEAST_S = 0.1  # what was predicted counts as no less: of shorter work it is the rest that takes time
_FRESH_S = 900.0
_MOST_KEPT = 4096  # of devices with a model each
_BUSY_LOAD = 1.5  # processes that want to run, a core
_BUSY_ELSEWHERE = 0.2  # of a device's time


@dataclass(frozen=True)
class Took:
    """What one completed attempt took on a device, with its model loaded, and what was predicted for it."""

    device: str
    cost: str  # by what it was predicted, as lcq.costs.CostKey writes it
    predicted_s: float
    seconds: float


@dataclass
class _Window:
    """The last attempts on one device that were predicted by one cost."""

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

    def note(self, node: str, took: Took, terms: QuarantineConfig) -> float:
        """How many times as long as predicted this device takes, where that is to be judged; else 0."""
        if terms.slow_times is None:
            return 0.0
        now, name, key = self._clock(), (node, took.device), (node, took.device, took.cost)
        window = self._windows.setdefault(key, _Window())
        self._windows.move_to_end(key)
        if len(self._windows) > _MOST_KEPT:
            self._windows.popitem(last=False)
        while window.ratios and now - window.ratios[0][0] > _FRESH_S:
            window.ratios.popleft()
        window.ratios.append((now, took.seconds / max(_LEAST_S, took.predicted_s)))
        is_held = name in self._held
        times = window.middle(AGAIN if is_held else WINDOW)
        if times <= terms.slow_times:
            window.slow_since = None
            if is_held and 0 < window.middle(WINDOW) <= NOT_SLOW:
                self._held.discard(name)
            return 0.0
        if window.slow_since is None:
            window.slow_since = now
        return times if is_held or now - window.slow_since >= terms.slow_s else 0.0

    def times(self, node: str, device: str) -> float:
        """How many times as long as predicted it takes by all that is known; 0 where not enough is."""
        now = self._clock()
        found = (window for key, window in self._windows.items() if key[:2] == (node, device))
        return max((one.middle(AGAIN) for one in found if now - one.ratios[-1][0] <= _FRESH_S), default=0.0)

    def begin_anew(self, node: str, device: str, *, is_held: bool = False) -> None:
        """What was seen of a device so far is of no account. ``is_held``: it is held now, for being slow."""
        for key in [key for key in self._windows if key[:2] == (node, device)]:
            del self._windows[key]
        if is_held:
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
    learned_from: int,
    slow: SlowWatch,
    waiting: Iterable[tuple[str, str]],
    nodes: Iterable[NodeRecord],
    terms: QuarantineConfig,
) -> str:
    """Why ``device`` of ``node`` (the whole node, where none is named), which takes ``times`` as long as predicted, is
    to be quarantined; "": not.

    It is not where the prediction was learned from few attempts; where other devices of its node are slow too, for then
    it is the host; where nobody else is known to do this work and not to be slow; nor where it cannot be spared.
    """
    if learned_from < LEARNED:
        return ""
    if device and any(slow.times(node.id, one.id) > NOT_SLOW for one in node.capability.devices if one.id != device):
        return ""
    beside = well_beside(node, device, queue=queue, lane=lane, nodes=nodes, terms=terms)
    well = [name for name, what in beside.items() if all(slow.times(*one) <= NOT_SLOW for one in what)]
    if not well or not can_be_spared(node, device, waiting=waiting, nodes=nodes, terms=terms):
        return ""
    return (
        f"is slow: its last attempts took {times:.1f} times as long as predicted (the median), "
        f"where {', '.join(well[:3])} did not"
    )

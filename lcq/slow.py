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
from lcq.health import is_held_by_device, missed, well_beside
from lcq.models import DeviceReading, Lowered, NodeRecord

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
_TOLD_AGAIN = 1.25  # times as much: so far may predictions for a lowered device be off before it is told anew
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
    # When, how many times as long as usual, and as what is learned now predicts.
    ratios: deque[tuple[float, float, float]] = field(default_factory=lambda: deque(maxlen=WINDOW))
    slow_since: float | None = None

    def middle(self, count: int) -> float:
        """The median of the last ``count``, of two the lower one; 0 where there are less."""
        last = [ratio for _, ratio, _ in self.ratios][-count:]
        return median_low(last) if len(last) == count else 0.0

    def behind(self) -> float:
        """The same of all, against what is predicted; 0 where there are less than ``WINDOW``."""
        return median_low([one for _, _, one in self.ratios]) if len(self.ratios) == WINDOW else 0.0


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
        usual_s, learned_s = window.usual.seconds(took.megapixels), learned.seconds(took.megapixels)
        window.ratios.append((now, took.seconds / max(_LEAST_S, usual_s), took.seconds / max(_LEAST_S, learned_s)))
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

    def is_held(self, node: str, device: str) -> bool:
        """Whether it was held for being slow, and has not been well since."""
        return (node, device) in self._held

    def is_well(self, node: str, took: Took) -> bool:
        """Whether its last attempts, of which this was one, took hardly longer than usual."""
        window = self._windows.get((node, took.device, took.cost))
        return window is not None and 0 < window.middle(WINDOW) <= NOT_SLOW

    def behind(self, node: str, took: Took) -> float:
        """How many times as long as predicted its last attempts, of which this was one, took; 0: too few to tell."""
        window = self._windows.get((node, took.device, took.cost))
        return window.behind() if window is not None else 0.0

    def begin_anew(self, node: str, device: str) -> None:
        """How long it took of late is of no account."""
        for key, window in self._windows.items():
            if key[:2] == (node, device):
                window.ratios.clear()
                window.slow_since = None

    def pardon(self, node: str, device: str) -> None:
        """An operator holds nothing against it any more; without a device: against none of the node's."""
        for of, its in [key[:2] for key in self._windows if key[0] == node]:
            if not device or its == device:
                self.begin_anew(of, its)
        self._held = {name for name in self._held if name[0] != node or (device and name[1] != device)}

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


@dataclass(frozen=True)
class SlowVerdict:
    """What becomes of a device that has become slow; nothing, where ``why`` is ""."""

    why: str = ""
    is_out: bool = False
    """It is quarantined; else it is given less."""


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
) -> SlowVerdict:
    """What to do about ``device`` of ``node``, whose attempts take ``times`` as long as usual.

    Nothing where other devices of its node are slow too, for then it is the host, nor where nobody else is known to do
    this work and not to be slow. Else it is given less first; and if it has been for a while, or had been quarantined
    for that before, it is quarantined, unless it cannot be spared.
    """
    known, alone = tuple(nodes), len(node.capability.devices) <= 1
    others = [one.id for one in node.capability.devices if one.id != device]
    if any(slow.times(node.id, one) > NOT_SLOW for one in others):
        return SlowVerdict()
    lowered = {(one.id, its) for one in known for its in one.lowered}
    beside = well_beside(node, "" if alone else device, queue=queue, lane=lane, nodes=known, terms=terms)
    well = [
        name
        for name, what in beside.items()
        if all(slow.times(*one) <= NOT_SLOW and one not in lowered for one in what)
    ]
    if not well:
        return SlowVerdict()
    why = (
        f"is slow: its last attempts took {times:.1f} times as long as is usual for them (the median), "
        f"where {', '.join(well[:3])} did not"
    )
    if device not in node.lowered and not slow.is_held(node.id, device):
        return SlowVerdict(why)
    held = device if is_held_by_device(node) else ""
    needed = missed(node, held, waiting=waiting, nodes=known, terms=terms)
    return SlowVerdict(f"{why}; it works on, because {needed}") if needed else SlowVerdict(why, is_out=True)


def lowered_by(times: float, behind: float, slots: int, why: str) -> Lowered:
    """What a device that takes ``times`` as long as usual, ``behind`` times as long as predicted, is given: half its
    ``slots``, and predictions that hold for it."""
    return Lowered(times=round(times, 2), behind=round(max(1.0, behind), 2), most=max(1, slots // 2), why=why)


def is_told(lowered: Lowered, behind: float) -> bool:
    """Whether predictions for a lowered device are about as its last attempts say (``behind``; 0: they say nothing)."""
    return not behind or 1 / _TOLD_AGAIN <= max(1.0, behind) / lowered.behind <= _TOLD_AGAIN

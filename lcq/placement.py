"""When work would be done where: a timetable of the fleet as it stands. Pure: no I/O, no clock.

Time is counted in two ways. A device's own seconds are what its curve says (lcq/costs.py). The backlog of a queue is in
typical seconds, those of a device of that kind of which nothing more is known; a device that is twice as fast as that
does two of them a second. What waits is taken to flow evenly over the slots that may do it, each from when it is free.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TypeAlias

from lcq.costs import ORDINARY_MEGAPIXELS, CostBook, Curve, device_class
from lcq.models import Device, Lowered, NodeCapability, TaskPriority, model_of

Patience: TypeAlias = Mapping[str, Mapping[str, tuple[float, float, float]]]
"""By queue and lane, what faster devices promise: seconds until they will have done all that waits there, seconds until
the first of them is free, and how long work takes there as a share of how long it takes here."""

Backlog: TypeAlias = Mapping[tuple[TaskPriority, str], float]
"""What waits in one queue, by band and lane, in typical seconds of work."""

FASTER = 0.8
"""A device is faster at something if it takes less than this share of the time."""

WORTH_WAITING_S = 0.5
"""What a task has to gain by waiting for a faster device."""


@dataclass(frozen=True)
class Station:
    """A device as far as time goes: what it does, how fast, and when its slots are free."""

    name: tuple[str, str]  # node, device
    device: Device
    capability: NodeCapability
    lanes: frozenset[str]
    queues: tuple[str, ...]  # own class first
    free_s: tuple[float, ...]  # until each slot is free; 0: it is
    warm: frozenset[str] = frozenset()  # models
    lowered: Lowered | None = None  # it has become slow

    @property
    def behind(self) -> float:
        """How many times as long as on others of its class work takes there now."""
        return self.lowered.behind if self.lowered else 1.0


@dataclass(frozen=True)
class _Slots:
    """Slots that share work: when each can begin, and how many typical seconds of work it then does a second."""

    starts: tuple[float, ...]  # ascending
    speeds: tuple[float, ...]  # of all that have begun by then, together
    done: tuple[float, ...]  # by then

    @classmethod
    def of(cls, slots: Iterable[tuple[float, float]]) -> _Slots:
        """From pairs of start and speed."""
        starts, speeds, done = [], [], []
        speed = work = before = 0.0
        for start, own in sorted(slots):
            work += speed * (start - before)
            speed, before = speed + own, start
            starts.append(start)
            speeds.append(speed)
            done.append(work)
        return cls(tuple(starts), tuple(speeds), tuple(done))

    def time_for(self, work: float) -> float:
        """Seconds until so much work has been begun and done; 0 for none."""
        if work <= 0 or not self.starts:
            return 0.0
        place = max(0, bisect_left(self.done, work) - 1)
        return self.starts[place] + (work - self.done[place]) / self.speeds[place]


@dataclass(frozen=True)
class _Choice:
    """Stations that a task may run on, as a whole and by what they cost."""

    slots: _Slots
    kinds: tuple[tuple[float, Curve, bool], ...]  # (earliest start, curve, is warm), one of each
    share: float  # of the queue's other work that they will do


@dataclass(frozen=True)
class Timetable:
    """What each station does next, at one moment."""

    stations: Mapping[tuple[str, str], Station]
    backlog: Mapping[str, Backlog]
    costs: CostBook
    users: Mapping[str, frozenset[str]] = field(default_factory=dict)  # by queue: who waits there, or some of them
    _curves: dict[tuple[str, str, str, str], Curve] = field(default_factory=dict)
    _ratios: dict[tuple[str, str, str], float] = field(default_factory=dict)
    _drains: dict[str, float] = field(default_factory=dict)
    _choices: dict[object, _Choice] = field(default_factory=dict)
    _promises: dict[object, Patience] = field(default_factory=dict)

    @cached_property
    def _serving(self) -> Mapping[str, Sequence[Station]]:
        found: dict[str, list[Station]] = {}
        for station in self.stations.values():
            for queue in station.queues:
                found.setdefault(queue, []).append(station)
        return found

    @cached_property
    def _classes(self) -> Mapping[tuple[str, str], str]:
        return {
            name: device_class(station.device) + (f" / {station.behind:g}" if station.behind > 1 else "")
            for name, station in self.stations.items()
        }

    def curve(self, station: Station, lane: str, precision: str = "") -> Curve:
        """What a task of ``lane`` costs at ``station``."""
        offer = station.capability.models.get(model_of(lane))
        key = (self._classes[station.name], lane, precision, offer.engine if offer else "")
        if key not in self._curves:
            curve = self.costs.curve(lane, station.device, precision=precision, offer=offer)
            self._curves[key] = curve.scaled(station.behind) if station.behind > 1 else curve
        return self._curves[key]

    def _ratio(self, station: Station, lane: str) -> float:
        """How long work takes there as a share of what it typically takes."""
        offer = station.capability.models.get(model_of(lane))
        key = (self._classes[station.name], lane, offer.engine if offer else "")
        if key not in self._ratios:
            typical = self.costs.typical(lane, station.device.kind, offer=offer).seconds(ORDINARY_MEGAPIXELS)
            here = self.curve(station, lane).seconds(ORDINARY_MEGAPIXELS)
            self._ratios[key] = max(1e-6, here) / max(1e-6, typical)
        return self._ratios[key]

    def waiting(self, queue: str, *, least: TaskPriority = TaskPriority.LOW) -> float:
        """Typical seconds of the work that waits in ``queue``, in the band ``least`` and above."""
        return sum(
            seconds for (priority, _), seconds in self.backlog.get(queue, {}).items() if priority.band <= least.band
        )

    def _by_lane(self, queue: str) -> Mapping[str, float]:
        found: dict[str, float] = {}
        for (_, lane), seconds in self.backlog.get(queue, {}).items():
            found[lane] = found.get(lane, 0.0) + seconds
        return {lane: seconds for lane, seconds in found.items() if seconds > 0}

    def drained_s(self, queue: str) -> float:
        """Seconds until all that waits in ``queue`` now has been done, by those that serve it."""
        if queue not in self._drains:
            self._drains[queue] = 0.0  # a station that serves it twice does not wait for itself
            lanes = self._by_lane(queue)
            slots = []
            for station in self._serving.get(queue, ()):
                mine = {lane: seconds for lane, seconds in lanes.items() if lane in station.lanes}
                if mine:
                    ratio = sum(self._ratio(station, lane) * seconds for lane, seconds in mine.items())
                    slots += [(start, sum(mine.values()) / ratio) for start in self._starts(station, queue)]
            self._drains[queue] = _Slots.of(slots).time_for(sum(lanes.values()))
        return self._drains[queue]

    def _before(self, station: Station, queue: str) -> list[str]:
        """The queues that ``station`` serves before ``queue``, and in which there is work for it."""
        earlier = station.queues[: station.queues.index(queue)] if queue in station.queues else station.queues
        return [name for name in earlier if any(lane in station.lanes for lane in self._by_lane(name))]

    def _starts(self, station: Station, queue: str) -> list[float]:
        """When each slot of ``station`` turns to ``queue``: once it is free, and the queues before that are empty.

        So it is between tasks of one user. Where there are several it begins sooner, and takes longer: see ``_shared``.
        """
        before = max((self.drained_s(earlier) for earlier in self._before(station, queue)), default=0.0)
        return [max(before, free_s) for free_s in station.free_s]

    def _shared(
        self, station: Station, queue: str, speed: float, user: str, priority: TaskPriority
    ) -> tuple[float, list[tuple[float, float]]]:
        """When a task of ``user`` in ``queue`` can begin there at the earliest, and what its slots do for that queue.

        A device shares itself between the users of all its queues (claim_tasks.lua): where others than this one wait in
        the queues before this, it does as large a part for this one as it has of the users, as soon as what is of a
        higher band there is done; and all once those queues are empty.
        """
        starts = self._starts(station, queue)
        earlier = self._before(station, queue)
        others = frozenset().union(*(self.users.get(name, frozenset()) for name in earlier)) - {user}
        if not others:
            return min(starts), [(start, speed) for start in starts]
        here = len(self.users.get(queue, frozenset()) | {user})
        part = here / (here + len(others))
        higher_s = max(self.drained_s(name) * self._higher(name, priority) for name in earlier)
        soon = [max(higher_s, free_s) for free_s in station.free_s]
        slots = [(start, part * speed) for start in soon]
        return min(soon), slots + [(start, (1 - part) * speed) for start in starts]

    def _higher(self, queue: str, priority: TaskPriority) -> float:
        """The share of what waits in ``queue`` that is of a higher band than ``priority``."""
        work = [(band.band < priority.band, seconds) for (band, _), seconds in self.backlog.get(queue, {}).items()]
        whole = sum(seconds for _, seconds in work)
        return sum(seconds for is_higher, seconds in work if is_higher) / whole if whole > 0 else 0.0

    @cached_property
    def _rivals(self) -> Mapping[str, frozenset[str]]:
        """By queue: users who wait in queues that devices of it serve before it."""
        found: dict[str, frozenset[str]] = {}
        for station in self.stations.values():
            before: frozenset[str] = frozenset()
            for queue in station.queues:
                found[queue] = found.get(queue, frozenset()) | before
                before |= self.users.get(queue, frozenset())
        return found

    # ------------------------------------------------------------ where a task would be done first

    def finish_s(
        self,
        queue: str,
        lane: str,
        among: Callable[[], Iterable[Station]],
        *,
        key: object = None,
        precision: str = "",
        megapixels: float = ORDINARY_MEGAPIXELS,
        priority: TaskPriority = TaskPriority.NORMAL,
        more_s: float = 0.0,
        user: str = "",
    ) -> float | None:
        """Predicted seconds until a task that ``user`` puts into ``queue`` now is done, P50; None if none may run it.

        ``among`` answers the stations that may, and is asked once for each ``key``. ``more_s``: typical seconds of work
        that were put there since this moment. What waits in lower bands waits on.
        """
        choice = self._choice(queue, lane, among, precision, key, user, priority)
        if not choice.kinds:
            return None
        ahead_s = choice.slots.time_for((self.waiting(queue, least=priority) + more_s) * choice.share)
        return min(
            max(ahead_s, start) + curve.predict(megapixels, warm=is_warm).seconds_p50
            for start, curve, is_warm in choice.kinds
        )

    def _choice(
        self,
        queue: str,
        lane: str,
        among: Callable[[], Iterable[Station]],
        precision: str,
        key: object,
        user: str,
        priority: TaskPriority,
    ) -> _Choice:
        is_shared = bool(self._rivals.get(queue, frozenset()) - {user})
        name = (queue, lane, precision, key, (user, priority) if is_shared else None)
        known = self._choices.get(name)
        if known is not None:
            return known
        slots: list[tuple[float, float]] = []
        kinds: dict[tuple[int, bool], tuple[float, Curve, bool]] = {}
        own = everybodys = 0.0
        for station in among():
            curve, is_warm = self.curve(station, lane, precision), model_of(lane) in station.warm
            speed = 1 / self._ratio(station, lane)
            first, its_slots = self._shared(station, queue, speed, user, priority)
            slots += its_slots
            own += speed * len(station.free_s)
            kind = (id(curve), is_warm)
            if kind not in kinds or first < kinds[kind][0]:
                kinds[kind] = (first, curve, is_warm)
        others = self._by_lane(queue)
        for station in self._serving.get(queue, ()):
            lanes = [other for other in others if other in station.lanes]
            if lanes or lane in station.lanes:
                everybodys += len(station.free_s) / self._ratio(station, lanes[0] if lanes else lane)
        share = min(1.0, own / everybodys) if everybodys else 1.0
        choice = self._choices[name] = _Choice(_Slots.of(slots), tuple(kinds.values()), share)
        return choice

    # ------------------------------------------------------------ what is left for faster devices

    def patience(self, name: tuple[str, str], warm: Iterable[str] = ()) -> Patience:
        """What the device ``name`` leaves for devices that are faster at it, or that have its model loaded.

        It should take no task that one of those will have done sooner, although it is busy now. Where they have more to
        do than that, or are gone, nothing is promised, and it takes all it can. ``warm``: models loaded there now.
        """
        station = self.stations.get(name)
        if station is None:
            return {}
        loaded = frozenset(warm)
        key = (self._classes[name], station.queues, station.lanes, loaded)
        if key not in self._promises:
            found = {}
            for queue in station.queues:
                lanes = {
                    lane: terms
                    for lane in self._by_lane(queue)
                    if lane in station.lanes and (terms := self._promise(station, queue, lane, loaded)) is not None
                }
                if lanes:
                    found[queue] = lanes
            self._promises[key] = found
        return self._promises[key]

    def _promise(
        self, station: Station, queue: str, lane: str, loaded: frozenset[str]
    ) -> tuple[float, float, float] | None:
        model = model_of(lane)
        here = self.curve(station, lane).predict(warm=model in loaded).seconds_p50
        slots, first, least = [], [], []
        for other in self._serving.get(queue, ()):
            if lane not in other.lanes or other.name == station.name:
                continue
            curve = self.curve(other, lane)
            load_s = 0.0 if model in other.warm else curve.load_s
            there = curve.seconds(ORDINARY_MEGAPIXELS)
            if there + load_s >= FASTER * here:
                continue
            starts = [start + load_s for start in self._starts(other, queue)]
            slots += [(start, 1 / self._ratio(other, lane)) for start in starts]
            first.append(min(starts))
            least.append(there / max(1e-6, here))
        if not slots:
            return None
        all_done = _Slots.of(slots).time_for(self.waiting(queue))
        return round(all_done, 3), round(min(first), 3), round(min(1.0, min(least)), 4)

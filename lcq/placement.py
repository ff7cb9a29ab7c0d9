"""When work would be done where: a timetable of the fleet as it stands. Pure: no I/O, no clock.

Time is counted in two ways. A device's own seconds are what its curve says (lcq/costs.py). The backlog of a queue is in
typical seconds, those of a device of that kind of which nothing more is known; a device that is twice as fast as that
does two of them a second. What waits is taken to flow evenly over the slots that may do it, each from when it is free,
by the order in which claims go (claim_tasks.lua): what is of a higher band first, then evenly between the users of all
queues of a device, of one user's its own class first.
"""

from __future__ import annotations

import heapq
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

USERS_TOLD = 16
"""Of how many who wait in a queue a picture of the fleet tells; where there are as many, there may be more."""

_NOBODY_KNOWN = frozenset({""})  # an older LCQ tells of no users: all are taken for one
_NEVER_FULL = (0.0,) * len(TaskPriority)

_Turn: TypeAlias = tuple[tuple[float, float], ...]
"""(seconds from now, part of a device that is added then), earliest first."""


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
    tasks_of: Mapping[str, Mapping[str, int]] = field(default_factory=dict)  # and how many tasks each has there
    _curves: dict[tuple[str, str, str, str], Curve] = field(default_factory=dict)
    _ratios: dict[tuple[str, str, str], float] = field(default_factory=dict)
    _turns: dict[object, _Turn] = field(default_factory=dict)
    _lanes: dict[str, Mapping[str, float]] = field(default_factory=dict)
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
        if queue not in self._lanes:
            found: dict[str, float] = {}
            for (_, lane), seconds in self.backlog.get(queue, {}).items():
                found[lane] = found.get(lane, 0.0) + seconds
            self._lanes[queue] = {lane: seconds for lane, seconds in found.items() if seconds > 0}
        return self._lanes[queue]

    def drained_s(self, queue: str) -> float:
        """Seconds until all that waits in ``queue`` now has been done, by those that serve it; 0 where nobody does."""
        return self._cleared_s(queue, TaskPriority.LOW)

    def _cleared_s(self, queue: str, least: TaskPriority) -> float:
        """Seconds until what waits in ``queue`` of the band ``least`` and above has been done."""
        return self._cleared.get(queue, _NEVER_FULL)[least.band]

    @cached_property
    def _cleared(self) -> Mapping[str, Sequence[float]]:
        """By queue and band: seconds until what waits there, of that band and above, has been done."""
        return _Run(self).cleared

    def _speed(self, station: Station, queue: str) -> float:
        """How many typical seconds of what waits in ``queue`` a slot there does a second; 0: of none of it."""
        mine = [(lane, seconds) for lane, seconds in self._by_lane(queue).items() if lane in station.lanes]
        spent = sum(self._ratio(station, lane) * seconds for lane, seconds in mine)
        return sum(seconds for _, seconds in mine) / spent if spent > 0 else 0.0

    def _who(self, queue: str) -> frozenset[str]:
        """The users who wait there."""
        return self.users.get(queue) or _NOBODY_KNOWN

    def _kind(self, station: Station) -> tuple[object, ...]:
        """What stations have in common that are alike but for when their slots are free."""
        return (self._classes[station.name], station.queues, station.lanes)

    def _turn(self, station: Station, queue: str, user: str, priority: TaskPriority) -> _Turn:
        """What part its slots have for tasks of ``user`` in ``queue``, and from when; "": of those who wait there.

        What is of a higher band in any of its queues comes first, and what the same users have in classes above; others
        of the same band share it with them until they have no more there.
        """
        key = (station.queues, station.lanes, queue, user, priority)
        known = self._turns.get(key)
        if known is None:
            known = self._turns[key] = self._its_turn(station, queue, user, priority)
        return known

    def _its_turn(self, station: Station, queue: str, user: str, priority: TaskPriority) -> _Turn:
        ours = self._who(queue)
        ours = ours - _NOBODY_KNOWN | {user} if user else ours
        begin = 0.0
        rivals: list[tuple[float, frozenset[str]]] = []  # until when, who
        is_above = True
        for other in station.queues:
            if other == queue:
                is_above = False
            elif any(lane in station.lanes for lane in self._by_lane(other)):
                if priority.band:
                    begin = max(begin, self._cleared_s(other, priority.raised(1)))
                until = self._cleared_s(other, priority)
                theirs = self._who(other) - (ours if not is_above or not user else {user})
                if theirs:
                    rivals.append((until, theirs))
                elif is_above:
                    begin = max(begin, until)
        rivals = sorted((until, theirs) for until, theirs in rivals if until > begin)
        parts, had = [], 0.0
        for place, since in enumerate([begin, *(until for until, _ in rivals)]):
            others = frozenset[str]().union(*(theirs for _, theirs in rivals[place:]))
            part = len(ours) / (len(ours) + len(others))
            if part > had:
                parts.append((since, part - had))
            had = max(had, part)
        return tuple(parts)

    @staticmethod
    def _slots(station: Station, turn: _Turn, speed: float) -> list[tuple[float, float]]:
        """Its slots as far as a turn goes: from when, and how much faster from then on."""
        return [(max(since, free_s), part * speed) for free_s in station.free_s for since, part in turn]

    @cached_property
    def _rivals(self) -> Mapping[str, frozenset[str]]:
        """By queue: users who wait in other queues that devices of it serve."""
        found: dict[str, frozenset[str]] = {}
        for queues in {station.queues for station in self.stations.values()}:
            for queue in queues:
                names = (self.users.get(other, frozenset[str]()) for other in queues if other != queue)
                found[queue] = found.get(queue, frozenset[str]()).union(*names)
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
        ahead_s = choice.slots.time_for(self._before(queue, priority, user, more_s) * choice.share)
        return min(
            max(ahead_s, start) + curve.predict(megapixels, warm=is_warm).seconds_p50
            for start, curve, is_warm in choice.kinds
        )

    def _before(self, queue: str, priority: TaskPriority, user: str, more_s: float) -> float:
        """Typical seconds of the work in ``queue`` that comes before a task which ``user`` puts there now.

        What is of a higher band, what the user has there itself, and of each other user no more than that: shares are
        even. All of it where it is not known who waits there. ``more_s`` is taken for the user's own.
        """
        whole = self.waiting(queue, least=priority)
        told, counts = self.users.get(queue, frozenset()), self.tasks_of.get(queue, {})
        if not user or not told or len(told) >= USERS_TOLD or (user in told and user not in counts):
            return whole + more_s
        higher = self.waiting(queue, least=priority.raised(1)) if priority.band else 0.0
        count = sum(counts.values())
        theirs = {one: counts.get(one, 0) / count if count else 1 / len(told) for one in told}
        own = max(0.0, theirs.pop(user, 0.0) * (whole - higher) + more_s)
        return higher + own + sum(min(own, share * (whole - higher)) for share in theirs.values())

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
            turn = self._turn(station, queue, user, priority)
            slots += self._slots(station, turn, speed)
            first = max(turn[0][0], station.free_s[0])
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

    def _usual_band(self, queue: str) -> TaskPriority:
        """The band of which most waits there."""
        bands: dict[TaskPriority, float] = {}
        for (priority, _), seconds in self.backlog.get(queue, {}).items():
            bands[priority] = bands.get(priority, 0.0) + seconds
        return max(bands, key=lambda priority: (bands[priority], -priority.band), default=TaskPriority.NORMAL)

    def _promise(
        self, station: Station, queue: str, lane: str, loaded: frozenset[str]
    ) -> tuple[float, float, float] | None:
        model = model_of(lane)
        here = self.curve(station, lane).predict(warm=model in loaded).seconds_p50
        slots, first, least = [], [], []
        band = self._usual_band(queue)
        for other in self._serving.get(queue, ()):
            if lane not in other.lanes or other.name == station.name:
                continue
            curve = self.curve(other, lane)
            load_s = 0.0 if model in other.warm else curve.load_s
            there = curve.seconds(ORDINARY_MEGAPIXELS)
            if there + load_s >= FASTER * here:
                continue
            turn = self._turn(other, queue, "", band)
            slots += [(start + load_s, own) for start, own in self._slots(other, turn, 1 / self._ratio(other, lane))]
            first.append(max(turn[0][0], other.free_s[0]) + load_s)
            least.append(there / max(1e-6, here))
        if not slots:
            return None
        all_done = _Slots.of(slots).time_for(self.waiting(queue))
        return round(all_done, 3), round(min(first), 3), round(min(1.0, min(least)), 4)


class _Run:
    """All that waits, worked off by the order of claims: each slot from when it is free, until nothing is left."""

    def __init__(self, timetable: Timetable) -> None:
        self._table = timetable
        self._left = {queue: self._work(queue) for queue in timetable.backlog}
        self._kinds = {timetable._kind(station): station for station in timetable.stations.values()}
        self._speeds = {
            kind: {queue: timetable._speed(station, queue) for queue in station.queues}
            for kind, station in self._kinds.items()
        }
        self._slots = dict.fromkeys(self._kinds, 0)  # that are free by now
        self.cleared = {queue: list(_NEVER_FULL) for queue in self._left}
        self._work_off()

    def _work(self, queue: str) -> list[float]:
        """Typical seconds by band, of the lanes that anybody reads."""
        read = frozenset[str]().union(*{station.lanes for station in self._table._serving.get(queue, ())})
        work = [0.0] * len(TaskPriority)
        for (priority, lane), seconds in self._table.backlog[queue].items():
            if lane in read and seconds > 0:
                work[priority.band] += seconds
        return work

    def _work_off(self) -> None:
        free = [(since, place, kind) for place, (since, kind) in enumerate(self._begins())]
        heapq.heapify(free)
        now, parts, rates = 0.0, self._parts(), dict.fromkeys(self._left, 0.0)
        while any(map(any, self._left.values())):
            until, emptied = self._next(now, rates)
            if free and free[0][0] <= until:
                until, emptied = free[0][0], None
            if until == float("inf"):
                return
            for queue, rate in rates.items():
                self._take(queue, rate * (until - now))
            now = until
            if emptied is None:
                kind = heapq.heappop(free)[2]
                self._slots[kind] += 1
                for queue, own in parts[kind].items():
                    rates[queue] += own
                continue
            self._note(emptied, now)
            parts = self._parts()
            rates = dict.fromkeys(self._left, 0.0)
            for kind, owns in parts.items():
                for queue, own in owns.items():
                    rates[queue] += own * self._slots[kind]

    def _begins(self) -> Iterable[tuple[float, tuple[object, ...]]]:
        for station in self._table.stations.values():
            kind = self._table._kind(station)
            for since in station.free_s:
                yield since, kind

    def _next(self, now: float, rates: Mapping[str, float]) -> tuple[float, str | None]:
        """When the work of a queue's highest band will be done, at these rates, and of which queue."""
        soonest: tuple[float, str | None] = (float("inf"), None)
        for queue, rate in rates.items():
            work = next((seconds for seconds in self._left[queue] if seconds), 0.0)
            if rate > 0 and work and now + work / rate < soonest[0]:
                soonest = now + work / rate, queue
        return soonest

    def _take(self, queue: str, done: float) -> None:
        band = self._top(queue)
        if band is not None and done > 0:  # a rest of rounding is the next event
            self._left[queue][band] = max(self._left[queue][band] - done, 1e-12)

    def _note(self, queue: str, now: float) -> None:
        band = self._top(queue)
        if band is not None:
            self._left[queue][band] = 0.0
            for lower in range(band, len(TaskPriority)):
                self.cleared[queue][lower] = now

    def _top(self, queue: str) -> int | None:
        return next((band for band, seconds in enumerate(self._left[queue]) if seconds), None)

    def _parts(self) -> dict[tuple[object, ...], dict[str, float]]:
        """What a slot of each kind does a second for each queue, as things are."""
        return {kind: self._part(station, self._speeds[kind]) for kind, station in self._kinds.items()}

    def _part(self, station: Station, speeds: Mapping[str, float]) -> dict[str, float]:
        tops = {queue: top for queue in station.queues if speeds[queue] and (top := self._top_of(queue)) is not None}
        if not tops:
            return {}
        highest, seen, weights = min(tops.values()), frozenset[str](), {}
        for queue, top in tops.items():
            if top == highest:
                users = self._table._who(queue)
                weights[queue] = len(users - seen)
                seen |= users
        whole = sum(weights.values())
        return {queue: speeds[queue] * weight / whole for queue, weight in weights.items() if weight}

    def _top_of(self, queue: str) -> int | None:
        return self._top(queue) if queue in self._left else None

"""What the console knows: rows of tasks, nodes and queues by id, kept up to date by snapshots and events.

Every text is cleaned at this door and nowhere needs cleaning again. Rows are never changed in place: a
change puts a new row, so that a frozen view and the paint cache can keep the old one.
"""

from __future__ import annotations

import asyncio
import copy
import sys
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from operator import attrgetter, is_not
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from lcq.function_state import FunctionState, state_of, told_standing, told_why
from lcq.lang import N, retold, tr
from lcq.models import (
    ActRecord,
    Cause,
    Device,
    DeviceKind,
    DeviceReading,
    Event,
    MinuteTally,
    NodeRecord,
    NodeStatus,
    QueueRecord,
    TaskPriority,
    TaskRecord,
    TaskStatus,
)
from tui.flow import Flow, flow_of
from tui.text import clean, counted, money, stamp

if TYPE_CHECKING:
    from lcq.alerts.records import AlertRecord, Alerts
    from lcq.state.glance import TaskGlance
    from lcq.wire import DeadAnswer

_FORGOTTEN_KEPT = 10_000
MINUTES_SHOWN = 60
"""Of the cluster's counters: the last hour."""
_WANTED_KEPT = 5_000
_CUT_AT_ONCE = 200  # tasks that leave the window at a time: a list of a hundred thousand is mended by the piece
_CUT_FROM = 50
_HOLES = 5_000
_OLDER_KEPT = 25_000  # tasks older than the window that are held beside it

MOST_ACTS = 20_000
"""So many acts are held: the newest."""
_ACTS_CUT = 500  # beyond that so many leave at once

WAITING = (TaskStatus.PENDING, TaskStatus.QUEUED)
"""The states of which the scheduler is asked why."""


class Row(Protocol):
    """What the store keeps and a view can order."""

    id: str

    @property
    def haystack(self) -> str:
        """What a plain filter word is looked for in, casefolded."""


RowT = TypeVar("RowT", bound=Row)


def _name(text: str) -> str:
    """A cleaned text that many rows share, kept once in memory."""
    return sys.intern(clean(text))


@dataclass(slots=True, eq=False)
class Told:
    """What the scheduler says of why a task waits, in full and for a list, and when it has said so last."""

    text: str
    short: str
    at_ms: int  # by Redis's clock


@dataclass(slots=True, eq=False)
class TaskRow:
    """One task. Times are ms since 1970 by Redis's clock."""

    id: str
    status: TaskStatus
    revision: int
    queue: str
    priority: TaskPriority
    model: str = ""
    user: str = ""
    job: str = ""
    image: str = ""
    node: str = ""
    device: str = ""
    pinned: str = ""
    attempt: int = 0
    max_attempts: int = 0  # 0: not known yet
    progress: float = 0.0
    stage: str = ""
    submitted_ms: int = 0
    updated_ms: int = 0
    started_ms: int | None = None
    finished_ms: int | None = None
    due_ms: int | None = None
    error: str = ""  # "code: message" of its last failure
    why: str = ""
    notes: int = 0  # comments
    size: str = ""  # of its image, "4096x2730"; "": not known
    done_by_ms: int | None = None  # its deadline
    partial: bool = False  # made from events alone: the whole record is still to be read
    told: Told | None = None  # of this revision, while it is in sight
    acted: int = 0  # the revision that an act of this console has made of it, of which no news has come yet
    _haystack: str = ""

    @property
    def acts_on(self) -> int:
        """The revision that an act has seen, who acts on what is shown."""
        return max(self.revision, self.acted)

    @property
    def haystack(self) -> str:
        if not self._haystack:
            words = (
                self.id, self.status, self.queue, self.priority, self.model, self.user, self.job, self.image,
                self.node, self.error, self.why, self.stage,
            )  # fmt: skip
            self._haystack = "\n".join(words).casefold()
        return self._haystack


@dataclass(frozen=True, slots=True)
class DeviceNow:
    """One device of a node as its last beat told it. None: not known."""

    id: str
    name: str
    kind: str
    slots: int
    busy: float | None = None
    used_mib: int | None = None
    total_mib: int | None = None
    heat_c: float | None = None
    power_w: float | None = None
    called: str = ""  # by the settings of its node
    why: str = ""  # what keeps it from work, or is held against it
    warm: tuple[str, ...] = ()  # models loaded there
    function: FunctionNow | None = None  # what it is beside that, where it calls a function


@dataclass(frozen=True, slots=True)
class FunctionNow:
    """What a device says of the function that it calls. Money is in the budget's currency."""

    endpoint: str = ""  # "": its agent is older, and does not tell
    price_s: float = 0.0
    price_call: float = 0.0
    worst_price: float = 0.0  # of a call
    away: str = ""  # why it is not offered: what its agent found when it called; "": it is
    in_flight: int | None = None  # calls under way; None, of this and the next two: its agent is older
    warm: int | None = None  # instances that its platform still keeps
    cold: int | None = None  # cold starts since its agent began
    start_s: float = 0.0  # what the last of them took
    standing: str = ""  # until when it rests, or that one call tries it; "": neither, or its agent is older
    is_tried: bool = False  # it is that
    today: float | None = None  # what it has cost since midnight, UTC; None: not read

    @property
    def told(self) -> str:
        """How busy it is, and what it has cost, in a few words."""
        words = [tr("! BREAKER OPEN")] if self.away else [tr("? HALF OPEN")] if self.is_tried else []
        words += [tr("{n} in flight", n=self.in_flight)] if self.in_flight is not None else []
        words += [tr("{n} warm", n=self.warm)] if self.warm is not None else []
        words += [counted(self.cold, "cold start")] if self.cold is not None else []
        words += [tr("{amount} paid today", amount=money(self.today))] if self.today is not None else []
        return ", ".join(words)

    @property
    def why(self) -> str:
        """Why it is not offered, or with one call at a time alone; "": it is."""
        return told_why(self.away, self.standing) if self.away else self.standing


@dataclass(slots=True, eq=False)
class NodeRow:
    """One node. ``load`` holds what its beats tell, as text by name."""

    id: str
    status: NodeStatus
    host: str = ""
    devices: tuple[str, ...] = ()
    queues: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    slots: int = 0
    running: int = 0
    completed: int = 0
    failed: int = 0
    seen_ms: int = 0
    registered_ms: int = 0
    software: str = ""
    load: tuple[tuple[str, str], ...] = ()
    busy: float | None = None  # of its devices that tell it, the mean: 0 to 1
    used_mib: int = 0  # of its devices' memory, and all there is; 0: not known
    total_mib: int = 0
    hottest_c: float | None = None
    now: tuple[DeviceNow, ...] = ()  # its devices
    hand_back_ms: int | None = None  # when a draining node hands back what it still runs; None: it may go on
    stopping: bool = False  # its agent ends as soon as it has drained
    why: str = ""

    @property
    def haystack(self) -> str:
        words = (self.id, self.status, self.host, *self.devices, *self.queues, *self.models, self.why)
        return "\n".join(words).casefold()


@dataclass(slots=True, eq=False)
class QueueRow:
    """One queue; its id is its name."""

    id: str
    kind: str = ""
    needs: str = ""
    paused: bool = False
    paused_by: str = ""
    reason: str = ""
    paused_ms: int | None = None
    counts: tuple[int, ...] = (0,) * len(TaskStatus)  # in the order of TaskStatus
    oldest_ms: int | None = None
    nodes: tuple[str, ...] = ()
    place: int = 0  # where the cluster's configuration lists it
    flow: Flow | None = None  # what comes and goes, a minute; None: not known

    @property
    def haystack(self) -> str:
        words = (self.id, self.kind, "paused" if self.paused else "open", self.reason, *self.nodes)
        return "\n".join(words).casefold()

    def count(self, status: TaskStatus) -> int:
        return self.counts[_STATUS_INDEX[status]]

    @property
    def waiting(self) -> int:
        """Its tasks that have not begun."""
        return sum(map(self.count, WAITING))

    @property
    def empty_in_ms(self) -> float | None:
        """How long it takes at the pace of late until what waits is done; None: it grows, stands, or is not known."""
        if not self.waiting or self.flow is None or self.flow.grows or self.paused:
            return None
        return self.flow.empty_in_ms(self.waiting)


@dataclass(slots=True, eq=False)
class CauseRow:
    """Failed tasks that died of the same; its id is made of what they have in common."""

    id: str
    code: str
    kind: str  # its error class
    text: str
    count: int
    newest_ms: int
    oldest_ms: int = 0
    nodes: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    sizes: tuple[str, ...] = ()  # classes of size of their images
    trend: tuple[int, ...] = ()  # of the last hour, in each five minutes
    known: str = ""  # who has acknowledged it, and what they had to say
    of: tuple[tuple[str, str], ...] = ()  # by what it is told apart beside that, and what its tasks have there

    @property
    def haystack(self) -> str:
        return "\n".join(
            (self.code, self.kind, self.text, self.known, *self.nodes, *self.models, *self.sizes)
        ).casefold()


@dataclass(slots=True, eq=False)
class ActRow:
    """What somebody did to the cluster; its id is its place in the audit."""

    id: str
    at_ms: int
    act: str
    actor: str
    on: str = ""
    reason: str = ""
    outcome: str = ""
    command: str = ""
    undo_until_ms: int = 0  # 0: it cannot be taken back

    @property
    def haystack(self) -> str:
        return "\n".join((self.act, self.actor, self.on, self.reason, self.outcome, self.command)).casefold()


_ALL_OF_A_TASK = attrgetter(*TaskRow.__slots__)


def _like(row: TaskRow) -> TaskRow:
    """Another row that says the same; ``copy.copy`` takes four times as long."""
    return TaskRow(*_ALL_OF_A_TASK(row))


_STATUS_INDEX = {status: index for index, status in enumerate(TaskStatus)}


def is_holey(dropped: int, held: Mapping[str, object]) -> bool:
    """Whether a dict is worth making anew, from which so many things were dropped: it keeps their places, and where
    those are used up it grows to twice its size for ever (10 MB, of a hundred thousand rows that come and go)."""
    return dropped >= max(_HOLES, len(held) // 2)


@dataclass(slots=True)
class Changes:
    """Which rows are new or different, which are gone; ``everything`` after a snapshot."""

    changed: set[str] = field(default_factory=set)
    gone: set[str] = field(default_factory=set)
    everything: bool = False

    def __bool__(self) -> bool:
        return self.everything or bool(self.changed) or bool(self.gone)


class Shelf(Generic[RowT]):
    """The rows of one kind by id, and what has happened to them since somebody last took note."""

    def __init__(self, stir: asyncio.Event | None = None) -> None:
        """``stir``: what is set when something happens here."""
        self._stir = stir or asyncio.Event()
        self.rows: dict[str, RowT] = {}
        self._dropped = 0  # since ``rows`` was made
        self._changes = Changes()

    def put(self, row: RowT) -> None:
        """Keep ``row`` under its id in place of what was there."""
        self.rows[row.id] = row
        self._stir.set()
        self._changes.changed.add(row.id)
        self._changes.gone.discard(row.id)

    def drop(self, row_id: str) -> None:
        if self.rows.pop(row_id, None) is not None:
            self._changes.gone.add(row_id)
            self._changes.changed.discard(row_id)
            self._stir.set()
            self._dropped += 1
            if is_holey(self._dropped, self.rows):
                self.rows, self._dropped = dict(self.rows), 0

    def replace(self, rows: Iterable[RowT]) -> None:
        """Forget what was known and keep ``rows``."""
        self.rows, self._dropped = {row.id: row for row in rows}, 0
        self._changes = Changes(everything=True)
        self._stir.set()

    def update(self, rows: Iterable[RowT]) -> None:
        """Make the shelf hold just ``rows``, noting only the real differences."""
        fresh = {row.id: row for row in rows}
        for row_id in [known for known in self.rows if known not in fresh]:
            self.drop(row_id)
        for row in fresh.values():
            known = self.rows.get(row.id)
            if known is None or not same(known, row):
                self.put(row)

    @property
    def has_news(self) -> bool:
        return bool(self._changes)

    def take(self) -> Changes:
        """What has changed since the last ``take``."""
        taken, self._changes = self._changes, Changes()
        return taken


_ASIDE = ("_haystack", "told", "acted")  # slots that no record or event tells


def same(one: RowT, other: RowT) -> bool:
    """Whether two rows say the same, what is not told of them aside."""
    slots: tuple[str, ...] = type(one).__slots__  # type: ignore[attr-defined]  # dataclass(slots=True) makes it
    return all(getattr(one, slot) == getattr(other, slot) for slot in slots if slot not in _ASIDE)


class SnapshotLike(Protocol):
    """All there is, as of event ``last_event_id``; ``tasks`` are the newest of ``total_tasks``."""

    @property
    def tasks(self) -> tuple[TaskRecord, ...]: ...
    @property
    def nodes(self) -> tuple[NodeRecord, ...]: ...
    @property
    def queues(self) -> tuple[QueueRecord, ...]: ...
    @property
    def last_event_id(self) -> str: ...
    @property
    def total_tasks(self) -> int: ...


class Store:
    """Tasks, nodes and queues. A row only ever moves on to a higher revision, whatever order news comes in."""

    def __init__(self) -> None:
        self.stir = asyncio.Event()  # set when something has happened, for who waits for that
        self.tasks: Shelf[TaskRow] = Shelf(self.stir)
        self.nodes: Shelf[NodeRow] = Shelf(self.stir)
        self._nodes: tuple[NodeRecord, ...] = ()  # of which they were made
        self._paid: Mapping[str, float] | None = None  # None: nobody has asked
        self.queues: Shelf[QueueRow] = Shelf(self.stir)
        self.causes: Shelf[CauseRow] = Shelf(self.stir)
        self.causes_by: tuple[str, ...] = ()  # by what causes are told apart, of lcq.causes.APART
        self.causes_read = self.acts_read = False  # they are asked for when somebody looks at them
        self.acts: Shelf[ActRow] = Shelf(self.stir)
        self.acts_whole = False  # all that the audit has are here
        self.acts_loads = 0  # how often what is older than those here may have become something else
        self._newest_act = (0, 0)  # its place
        self.minutes: tuple[MinuteTally, ...] = ()  # the oldest first; the last is under way
        self.alerts: Alerts | None = None  # None: they have not been read
        self.alerts_due = False  # something has become of them
        self._begun: list[AlertRecord] = []  # alerts that began since somebody was told
        self.failures = 0  # tasks that the causes are of
        self.counts: dict[TaskStatus, int] = dict.fromkeys(TaskStatus, 0)
        self.beyond = 0  # tasks the cluster has that are not here: they were too many for the snapshot
        self.oldest = ""  # the oldest id of the snapshot, where there are others beyond it
        self.loads = 0  # how often it was started over
        self.unreadable = 0  # events whose fields made no sense
        self.cuts = 0  # how often what had been read from beyond the window was let go
        self.seeking = False  # somebody looks at what lies beyond the window: what happens there is worth reading
        self._line: deque[str] = deque()  # the window's ids, the oldest first
        self._older: dict[str, None] = {}  # those of tasks that are here and are older than the window
        self.heard = 0  # how often something has come of the cluster: events, or tasks that go on without them
        self._has_others = False  # something is different that no shelf holds
        self.polling_due = False  # an event about a node or a queue: their records are worth reading now
        self._wanted: dict[str, None] = {}
        self._forgotten: dict[str, None] = {}

    @property
    def has_news(self) -> bool:
        """Whether anything has happened on a shelf since somebody took note of it."""
        return any(shelf.has_news for shelf in (self.tasks, self.queues, self.nodes, self.causes, self.acts))

    def note_others(self) -> None:
        """Something that no shelf holds is different: it is worth showing."""
        self._has_others = True
        self.stir.set()

    def take_others(self) -> bool:
        """Whether something that no shelf holds is different since the last call."""
        others, self._has_others = self._has_others, False
        return others

    def device_called(self, node: str, device: str) -> str:
        """What a device of a node is called there: gpu0 and no serial number; its id where that is not known."""
        row = self.nodes.rows.get(node)
        return next((one.called for one in row.now if one.id == device and one.called), device) if row else device

    @property
    def all_counts(self) -> dict[TaskStatus, int]:
        """How many tasks the cluster has in each state: where not all are here, as its queues tell it each second."""
        if not self.beyond:
            return self.counts
        return {status: sum(row.count(status) for row in self.queues.rows.values()) for status in TaskStatus}

    # ------------------------------------------------------------ snapshots and records

    def load(self, snapshot: SnapshotLike, rows: Iterable[TaskRow] | None = None) -> None:
        """Start over from ``snapshot``; ``rows`` are its tasks, where the caller has made them already."""
        self._forgotten.clear()
        self._wanted.clear()
        self.tasks.replace(map(task_row, snapshot.tasks) if rows is None else rows)
        self.counts = dict.fromkeys(TaskStatus, 0)
        for row in self.tasks.rows.values():
            self.counts[row.status] += 1
        self.beyond = max(0, snapshot.total_tasks - len(self.tasks.rows))
        self._line, self._older = deque(sorted(self.tasks.rows)), {}
        self.oldest = self._line[0] if self.beyond and self._line else ""
        self.loads += 1
        self.heard += 1
        self.put_nodes(snapshot.nodes)
        self.put_queues(snapshot.queues)

    def put_nodes(self, records: Iterable[NodeRecord]) -> None:
        now = tuple(records)
        if len(now) != len(self._nodes) or any(map(is_not, now, self._nodes)):  # a reader keeps what is as it was
            self._nodes = now
            self.nodes.update(node_row(record, self._paid) for record in now)

    @property
    def has_functions(self) -> bool:
        """Whether a node calls functions: then what they cost is worth a look."""
        return any(device.function is not None for row in self.nodes.rows.values() for device in row.now)

    def put_paid(self, paid: Mapping[str, float]) -> None:
        """What each function was paid today, by "node/device"; the next records of nodes are shown with it."""
        if paid != self._paid:
            self._paid, self._nodes = dict(paid), ()

    def put_queues(self, records: Iterable[QueueRecord]) -> None:
        rows = [queue_row(record, place) for place, record in enumerate(records)]
        for row in rows:
            row.flow = flow_of(self.minutes, row.id)
        self.queues.update(rows)

    def put_alerts(self, alerts: Alerts) -> None:
        """Take in the alerts. Those that were there before the first look are no news."""
        self.alerts_due = False
        if self.alerts is not None:
            known = {(one.name, one.fired_ms) for one in self.alerts.firing}
            self._begun += [one for one in alerts.firing if (one.name, one.fired_ms) not in known]
        if self.alerts is None or (alerts.alerts, alerts.silences) != (self.alerts.alerts, self.alerts.silences):
            self.note_others()
        self.alerts = alerts

    def take_begun(self) -> list[AlertRecord]:
        """The alerts that have begun since the last call."""
        begun, self._begun = self._begun, []
        return begun

    @property
    def firing(self) -> tuple[AlertRecord, ...]:
        """The alerts that are firing and not silenced, the worst first."""
        return self.alerts.firing if self.alerts is not None else ()

    def put_minutes(self, minutes: Sequence[MinuteTally]) -> bool:
        """Take in counters of the newest minutes. Answers False, and changes nothing, where some before are missing."""
        first = minutes[0].minute
        before = tuple(one for one in self.minutes if one.minute < first)
        if len(minutes) < MINUTES_SHOWN and (not before or before[-1].minute != first - 1):
            return False
        told = (*before, *minutes)[-MINUTES_SHOWN:]
        if told != self.minutes:
            self.minutes = told
            self.note_others()
        for row in list(self.queues.rows.values()):
            flow = flow_of(self.minutes, row.id)
            if row.flow != flow:
                shown = copy.copy(row)
                shown.flow = flow
                self.queues.put(shown)
        return True

    def put_causes(self, dead: DeadAnswer) -> None:
        self.failures, self.causes_read = dead.total, True
        self.causes.update(cause_row(cause) for cause in dead.causes)

    @property
    def oldest_act(self) -> str:
        """The id of the oldest act that is here; "" if none is."""
        return min(self.acts.rows, key=_place, default="")

    def put_acts(self, acts: Sequence[ActRecord], now_ms: int, *, limit: int | None = None) -> None:
        """Take in the newest acts: as many as ``limit``, or fewer where that are all there are; None: these are all.

        Older ones that are here stay, unless some between them and these are missing. That one can be taken back is
        told again each time, a little later: kept as it was.
        """
        rows = []
        for act in acts:
            row = act_row(act, now_ms)
            known = self.acts.rows.get(row.id)
            if known is not None and bool(known.undo_until_ms) == bool(row.undo_until_ms):
                row.undo_until_ms = known.undo_until_ms
            rows.append(row)
        newest = max((_place(row.id) for row in rows), default=(0, 0))
        is_all = limit is None or len(rows) < limit
        follows = newest >= self._newest_act and any(row.id in self.acts.rows for row in rows)
        if is_all or not follows:  # a jump in a replay, another audit, or so many new ones that some are missing
            self.acts.update(rows)
            self.acts_whole = is_all
            self.acts_loads += 1
        else:
            for row in rows:
                known = self.acts.rows.get(row.id)
                if known is None or not same(known, row):
                    self.acts.put(row)
        self._newest_act = newest
        self._cut_acts()
        self.acts_read = True

    def put_older_acts(self, acts: Iterable[ActRecord], now_ms: int, *, is_last: bool) -> None:
        """Take in the acts that are next older than those here; ``is_last``: there are none before them."""
        for act in acts:
            self.acts.put(act_row(act, now_ms))
        self.acts_whole = is_last

    def _cut_acts(self) -> None:
        """A console that is open for days holds no more acts than it would read."""
        excess = len(self.acts.rows) - MOST_ACTS
        if excess >= _ACTS_CUT:
            for act_id in sorted(self.acts.rows, key=_place)[:excess]:
                self.acts.drop(act_id)
            self.acts_whole = False
            self.acts_loads += 1

    def put_tasks(self, records: Iterable[TaskGlance | TaskRecord]) -> None:
        """Take in what records say, unless an event has already told of something newer."""
        for record in records:
            self._wanted.pop(record.id, None)
            known = self.tasks.rows.get(record.id)
            if record.id in self._forgotten or (known is not None and record.revision < known.acts_on):
                continue
            row = task_row(record)
            if known is not None and known.revision == row.revision:
                row.told = known.told
            if known is None and row.id < self.oldest:
                self.beyond = max(0, self.beyond - 1)
            if known is None or not same(known, row):
                self.heard += 1
                self._put_task(row, known)

    def put_older(self, records: Iterable[TaskRecord]) -> int:
        """Take in tasks from beyond the window; answers how many of them were not here."""
        before = len(self.tasks.rows)
        self.put_tasks(record for record in records if record.id < self.oldest)
        return len(self.tasks.rows) - before

    def excess(self, limit: int) -> int:
        """By how many tasks the window has more than ``limit``; what was read from beyond it aside."""
        return len(self.tasks.rows) - len(self._older) - limit

    def cut(self, limit: int, kept: Callable[[str], bool]) -> None:
        """Where the window has more than ``limit`` tasks, let some of the oldest go, but none that is to be ``kept``.

        What was read from beyond it goes first, all of it, so that there is no gap between the two; unless somebody
        looks there: then the window may grow by a fifth meanwhile.
        """
        excess = self.excess(limit)
        if len(self._older) > _OLDER_KEPT:
            self._let_go([one for one in self._older if not kept(one)][: len(self._older) - _OLDER_KEPT])
        if excess < _CUT_FROM or (self._older and self.seeking and excess < limit // 5):
            return
        if any(not kept(one) for one in self._older):
            self._let_go([one for one in self._older if not kept(one)])
            self.cuts += 1
        leaving: list[str] = []
        while self._line and len(leaving) < min(excess, _CUT_AT_ONCE):
            task_id = self._line.popleft()
            if task_id in self.tasks.rows:
                if kept(task_id):
                    self._older[task_id] = None
                    excess -= 1
                else:
                    leaving.append(task_id)
        self._let_go(leaving)
        self.oldest = self._line[0] if self._line else ""

    def _let_go(self, ids: Iterable[str]) -> None:
        """The cluster has these tasks still, and they are not here any more."""
        for task_id in ids:
            self.counts[self.tasks.rows[task_id].status] -= 1
            self.tasks.drop(task_id)
            self._older.pop(task_id, None)
            self.beyond += 1

    def tell(self, reasons: Iterable[tuple[str, int, str, str]], now_ms: int) -> None:
        """Take in why tasks wait: of each its id, its revision then, and the reason in full and for a list."""
        for task_id, revision, text, short in reasons:
            known = self.tasks.rows.get(task_id)
            if known is None or known.revision != revision or known.status not in WAITING:
                continue  # it has moved on meanwhile
            if known.told is not None and (known.told.text, known.told.short) == (text, short):
                known.told.at_ms = now_ms
                continue
            row = copy.copy(known)
            row.told = Told(text, short, now_ms)
            self._put_task(row, known)

    def take_wanted(self, limit: int) -> list[str]:
        """Ids that events spoke of and nobody knows; they leave the list."""
        taken = list(self._wanted)[:limit]
        for task_id in taken:
            del self._wanted[task_id]
        return taken

    # ------------------------------------------------------------ events

    def apply(self, events: Iterable[Event]) -> None:
        """Take in what happened. Old news and news told twice change nothing."""
        for event in events:
            fields = event.fields
            self.heard += 1
            try:
                if event.move == "forget_tasks":
                    self._forget(clean(fields["id"]))
                elif "rev" in fields:
                    self._apply_task(event)
                elif event.move in ("comment_task", "undo_comment"):
                    self._want(clean(fields["task"]))  # its record has the notes
                    self.polling_due = True
                elif "node" in fields:
                    self._apply_node(fields)
                else:
                    self.polling_due = True
                    self.alerts_due |= event.move in ("note_alerts", "silence_alert", "undo_silence")
            except (KeyError, ValueError):
                self.unreadable += 1

    def _apply_task(self, event: Event) -> None:
        fields = event.fields
        task_id, revision = clean(fields["id"]), int(fields["rev"])
        known = self.tasks.rows.get(task_id)
        if known is not None and revision <= known.revision:
            return
        if known is None:
            if "submitted_ms" not in fields:
                self._want(task_id)
                return
            row = TaskRow(
                task_id, TaskStatus(fields["status"]), revision, "", TaskPriority.NORMAL,
                model=_name(fields.get("model", "")), user=_name(fields.get("user", "")),
                job=_name(fields.get("job", "")), image=clean(fields.get("image", "")),
                submitted_ms=int(fields["submitted_ms"]), size=_name(fields.get("size", "")),
                done_by_ms=int(fields.get("done_by_ms") or 0) or None, partial=True,
            )  # fmt: skip
        else:
            row = _like(known)
            row._haystack = ""
        self._move_on(row, event, revision)
        if known is not None and revision < known.acted:  # old news: our own act has made something else of it since
            row.priority = known.priority
        self._put_task(row, known)

    def _want(self, task_id: str) -> None:
        """Have its record read: unless it is beyond the window, and nobody looks there."""
        is_ours = task_id in self.tasks.rows or task_id >= self.oldest or self.seeking
        if is_ours and task_id not in self._forgotten and len(self._wanted) < _WANTED_KEPT:
            self._wanted[task_id] = None

    def put_acted(self, row: TaskRow) -> None:
        """Show a task as an act of ours has left it, unless there is news of it by now."""
        known = self.tasks.rows.get(row.id)
        if known is not None and known.acts_on < row.acted:
            shown = copy.copy(known)
            shown.acted, shown.priority, shown._haystack = row.acted, row.priority, ""
            self._put_task(shown, known)

    @staticmethod
    def _move_on(row: TaskRow, event: Event, revision: int) -> None:
        """Bring ``row`` to where ``event`` says the task is now."""
        fields, now = event.fields, event.at_ms
        was = row.status
        row.status, row.revision, row.updated_ms = TaskStatus(fields["status"]), revision, now
        row.queue = _name(fields.get("queue", row.queue))
        row.node = _name(fields.get("node", ""))
        row.attempt = int(fields.get("attempt", row.attempt))
        row.priority = TaskPriority(fields.get("priority", row.priority))
        if "done_by_ms" in fields:  # another deadline, or that was taken back
            row.done_by_ms = int(fields["done_by_ms"] or 0) or None
        row.why, row.told = _name(fields.get("why", "")), None
        if "message" in fields or "code" in fields:
            row.error = clean(f"{fields.get('code', 'error')}: {fields.get('message', '')}")
        elif row.status in (TaskStatus.COMPLETED, TaskStatus.CANCELLED) or event.move == "retry_task":
            row.error = ""
        if row.status is TaskStatus.PROCESSING:
            if was is not TaskStatus.PROCESSING:
                row.started_ms, row.finished_ms, row.progress, row.stage = now, None, 0.0, ""
        else:
            row.progress, row.stage, row.device = 0.0, "", ""
            row.finished_ms = (row.finished_ms if was is row.status else now) if row.status.is_terminal else None
        if row.status is TaskStatus.PENDING:
            row.partial = True  # when it is due stands only in its record
        else:
            row.due_ms = None

    def _put_task(self, row: TaskRow, known: TaskRow | None) -> None:
        if known is not None:
            self.counts[known.status] -= 1
        elif row.id < self.oldest:
            self._older[row.id] = None
        else:
            self._line.append(row.id)
        self.counts[row.status] += 1
        self.tasks.put(row)

    def _forget(self, task_id: str) -> None:
        known = self.tasks.rows.get(task_id)
        if known is not None:
            self.counts[known.status] -= 1
            self.tasks.drop(task_id)
            self._older.pop(task_id, None)
            if len(self._line) > 2 * len(self.tasks.rows) + _FORGOTTEN_KEPT:
                self._line = deque(one for one in self._line if one in self.tasks.rows)
        elif task_id < self.oldest:
            self.beyond = max(0, self.beyond - 1)
        self._wanted.pop(task_id, None)
        self._forgotten[task_id] = None  # a record that was on its way here must not bring it back
        if len(self._forgotten) > _FORGOTTEN_KEPT:
            del self._forgotten[next(iter(self._forgotten))]

    def _apply_node(self, fields: dict[str, str]) -> None:
        self.polling_due = True
        self._nodes = ()  # the records are to have the last word, whatever this one is about
        known = self.nodes.rows.get(clean(fields["node"]))
        if known is not None:
            row = copy.copy(known)
            row.status = NodeStatus(fields.get("status", row.status))
            row.why = clean(fields.get("why", ""))
            if not same(known, row):
                self.nodes.put(row)


# ---------------------------------------------------------------- records as rows


def task_row(record: TaskGlance | TaskRecord) -> TaskRow:
    """A task's record, whole or in short, as its row."""
    return _glanced_row(record) if isinstance(record, tuple) else _recorded_row(record)


def _glanced_row(glance: TaskGlance) -> TaskRow:
    (
        task_id, status, revision, queue, priority, model, user, job, image, node, device, pinned, attempt,
        max_attempts, progress, stage, submitted_ms, updated_ms, started_ms, finished_ms, due_ms, error, why, notes,
        size, done_by_ms,
    ) = glance  # fmt: skip
    if updated_ms == submitted_ms:
        updated_ms = submitted_ms  # one thing for both, as below
    return TaskRow(
        clean(task_id), status, revision, _name(queue), priority, _name(model), _name(user), _name(job), clean(image),
        _name(node), _name(device), _name(pinned), attempt, max_attempts, progress or 0.0, _name(stage), submitted_ms,
        updated_ms, started_ms, updated_ms if finished_ms == updated_ms else finished_ms, due_ms, _name(error),
        _name(why), notes, _name(size), done_by_ms,
    )  # fmt: skip


def _recorded_row(record: TaskRecord) -> TaskRow:
    task, failure = record.task, record.failure
    submitted_ms = record.submitted_ms
    updated_ms = submitted_ms if record.updated_ms == submitted_ms else record.updated_ms
    return TaskRow(
        id=clean(record.id),
        status=record.status,
        revision=record.revision,
        queue=_name(record.queue),
        priority=record.priority,
        model=_name(task.model),
        user=_name(task.user_id),
        job=_name(task.job or ""),
        image=clean(task.source),
        node=_name(record.node),
        device=_name(record.device),
        pinned=_name(record.pinned_node),
        attempt=record.attempt,
        max_attempts=task.max_retries + 1,
        progress=record.progress or 0.0,  # one nought for all; so below: a hundred thousand rows, a thing each
        stage=_name(record.stage),
        submitted_ms=submitted_ms,
        updated_ms=updated_ms,
        started_ms=record.started_ms,
        finished_ms=updated_ms if record.finished_ms == updated_ms else record.finished_ms,
        due_ms=record.due_ms,
        error=_name(f"{failure.code}: {failure.message}") if failure else "",
        why=_name(record.why),
        notes=len(record.notes),
        size=_name("x".join(map(str, record.size))) if record.size else "",
        done_by_ms=task.deadline_ms,
    )


def cause_row(cause: Cause) -> CauseRow:
    """A cause as its row."""
    text, code = clean(cause.text), _name(cause.code)
    return CauseRow(
        id=" ".join((f"{code}: {text}", *(f"{name}={clean(value)}" for name, value in cause.of.items()))),
        code=code,
        kind=cause.error_class.value,
        text=text,
        count=cause.count,
        newest_ms=cause.newest_ms,
        oldest_ms=cause.oldest_ms,
        nodes=tuple(map(_name, cause.nodes)),
        models=tuple(map(_name, cause.models)),
        sizes=tuple(map(_name, cause.sizes)),
        trend=cause.trend,
        known=clean(f"{cause.acknowledged.actor}: {cause.acknowledged.text}") if cause.acknowledged else "",
        of=tuple((name, clean(value)) for name, value in cause.of.items()),
    )


def _place(act_id: str) -> tuple[int, int]:
    """Where an act stands in the audit, by its id."""
    at_ms, _, number = act_id.partition("-")
    return int(at_ms or 0), int(number or 0)


def act_row(act: ActRecord, now_ms: int) -> ActRow:
    """An act of the audit as its row."""
    return ActRow(
        clean(act.id), act.at_ms, _name(act.act), _name(act.actor), clean(act.on), clean(act.reason),
        clean(act.outcome), clean(act.command), now_ms + act.undo_ms if act.undo_ms else 0,
    )  # fmt: skip


_CLOCK = ("clock_offset_s", "clock_error_s")
_UNTOLD = (*_CLOCK, "agreed")
_TOLD_AS = {
    "cpu_percent": (N("processor"), "{:.0f}%"),
    "disk_used": (N("fullest disk"), "{:.0%}"),
    "load_1m": (N("load, 1 minute"), "{:.1f}"),
    "outcomes_unsettled": (N("results to tell"), "{:.0f}"),
    "slots_broken": (N("broken slots"), "{:.0f}"),
    "slots_busy": (N("busy slots"), "{:.0f}"),
    "slots_unkillable": (N("stuck slots"), "{:.0f}"),
}
"""What nodes tell under names that say little to a person: how it is called, and how its number is written."""


def _clock(told: Mapping[str, float | str]) -> list[tuple[str, str]]:
    """How far a node's clock is off, where that is more than it may be wrong about it, and enough to mind."""
    offset, error = (told.get(name) for name in _CLOCK)
    if not isinstance(offset, float | int) or not isinstance(error, float | int) or abs(offset) < max(error, 0.1):
        return []
    return [("clock", f"{offset:+.1f} s")]


def _told(name: str, value: float | str) -> tuple[str, str]:
    """One thing a node tells, in a person's units: the unit is the end of its name."""
    label = clean(name)
    if isinstance(value, str):
        return label.replace("_", " "), clean(value)
    if name in _TOLD_AS:
        label, way = _TOLD_AS[name]
        return label, way.format(value)
    for ending, shown in (("_percent", f"{value:.0f}%"), ("_mib", f"{value / 1024:.1f} GiB")):
        if label.endswith(ending):
            return label.removesuffix(ending).replace("_", " "), shown
    return label.replace("_", " "), f"{value:.4g}"


def _reading(reading: DeviceReading, caution: str) -> str:
    """How a device is, in a few words; first what is held against it (``caution``)."""
    words = [clean(caution)] if caution else []
    if reading.fault:
        words.append(tr("takes no work: {fault}", fault=clean(reading.fault)))
    if reading.free_mib is not None:
        total = "" if reading.total_mib is None else tr(" of {total:.1f}", total=reading.total_mib / 1024)
        words.append(tr("{free_mib:.1f}{total} GiB free", free_mib=reading.free_mib / 1024, total=total))
    if reading.foreign_mib:
        words.append(tr("others hold {foreign_mib:.1f}", foreign_mib=reading.foreign_mib / 1024))
    if reading.busy is not None:
        words.append(tr("{busy:.0%} busy", busy=reading.busy))
    if reading.temperature_c is not None:
        words.append(f"{reading.temperature_c:.0f} °C")
    if reading.warm:
        words.append(tr("warm: {models}", models=clean(", ".join(reading.warm))))
    return ", ".join(words)


def _short_names(devices: Sequence[Device]) -> dict[str, str]:
    """How the devices of a node are called by its settings: cpu, gpu0, gpu1."""
    gpus = [one.id for one in devices if one.kind is DeviceKind.GPU]
    return {one.id: f"gpu{gpus.index(one.id)}" if one.id in gpus else clean(one.id[:12]) for one in devices}


def node_row(record: NodeRecord, paid: Mapping[str, float] | None = None) -> NodeRow:
    """A node's record as its row. ``paid``: what functions have cost today, by "node/device"; None: not known."""
    functions = _functions_now(record, paid)
    capability = record.capability
    readings = record.readings.values()
    busy = [reading.busy for reading in readings if reading.busy is not None]
    heat = [reading.temperature_c for reading in readings if reading.temperature_c is not None]
    filled = [reading for reading in readings if reading.total_mib and reading.free_mib is not None]
    queues = {queue: None for served in record.serves.values() for queue in served}
    called = _short_names(capability.devices)
    return NodeRow(
        id=clean(record.id),
        status=record.status,
        host=clean(capability.host),
        devices=tuple(
            clean(
                tr("{name} ({kind}, {slots})", name=one.name or one.id, kind=one.kind, slots=counted(one.slots, "slot"))
            )
            for one in capability.devices
        ),
        queues=tuple(clean(queue) for queue in queues),
        models=tuple(clean(model) for model in sorted(capability.models)),
        slots=record.slots,
        running=record.running,
        completed=record.completed,
        failed=record.failed,
        seen_ms=record.seen_ms,
        registered_ms=record.registered_ms,
        software=clean(capability.version),
        load=(
            *(
                (
                    called.get(device, clean(device[:12])),
                    functions[device].told if device in functions else _reading(reading, record.caution(device)),
                )
                for device, reading in sorted(record.readings.items(), key=lambda pair: called.get(pair[0], pair[0]))
            ),
            *(_told(name, value) for name, value in sorted(record.telemetry.items()) if name not in _UNTOLD),
            *_clock(record.telemetry),
        ),
        busy=round(sum(busy) / len(busy), 2) if busy else None,
        used_mib=sum((one.total_mib or 0) - (one.free_mib or 0) for one in filled),
        total_mib=sum(one.total_mib or 0 for one in filled),
        hottest_c=max(heat, default=None),
        now=_devices_now(record, functions),
        hand_back_ms=record.hand_back_ms,
        stopping=record.stopping,
        why=clean(record.why) or _settings_trouble(record),
    )


def _settings_trouble(record: NodeRecord) -> str:
    error = str(record.telemetry.get("config_error", ""))
    return clean(tr("its settings stay as they were: {error}", error=retold(error))) if error else ""


def _devices_now(record: NodeRecord, functions: Mapping[str, FunctionNow]) -> tuple[DeviceNow, ...]:
    out = []
    called = _short_names(record.capability.devices)
    for device in record.capability.devices:
        told = record.readings.get(device.id, DeviceReading())
        known = told.total_mib is not None and told.free_mib is not None
        why = told.fault or record.quarantined.get(device.id, "") or told.alarm or record.caution(device.id)
        out.append(
            DeviceNow(
                id=clean(device.id),
                called=called[device.id],
                name=clean(device.name or device.id),
                kind=str(device.kind),
                slots=device.slots,
                busy=told.busy,
                used_mib=max(0, (told.total_mib or 0) - (told.free_mib or 0)) if known else None,
                total_mib=told.total_mib,
                heat_c=told.temperature_c,
                power_w=told.power_w,
                why=clean(why),
                warm=tuple(clean(model) for model in told.warm),
                function=functions.get(device.id),
            )
        )
    return tuple(out)


def _functions_now(record: NodeRecord, paid: Mapping[str, float] | None) -> dict[str, FunctionNow]:
    """What a node's devices that call functions tell of these, by their ids."""
    capability, kind, found = record.capability, DeviceKind.SERVERLESS, {}
    withheld = [model for model, offer in capability.withheld.items() if kind in offer.kinds]
    held = next((capability.left_out[model] for model in withheld if model in capability.left_out), "")
    if withheld and not held:
        held = tr("it does not answer")
    for device in capability.devices:
        if device.kind is not kind:
            continue
        told = record.readings.get(device.id, DeviceReading())
        reading, away = told.function, told.fault if state_of(told) is FunctionState.RESTS else held
        found[device.id] = FunctionNow(
            endpoint=clean(device.endpoint), price_s=device.price_s, price_call=device.price_call,
            worst_price=device.worst_price, away=clean(away),
            in_flight=reading.in_flight if reading else None, warm=reading.warm if reading else None,
            cold=reading.cold if reading else None, start_s=reading.start_s if reading else 0.0,
            standing=told_standing(reading, stamp), is_tried=state_of(told) is FunctionState.TRIED,
            today=None if paid is None else paid.get(f"{record.id}/{device.id}", 0.0),
        )  # fmt: skip
    return found


def queue_row(record: QueueRecord, place: int) -> QueueRow:
    """A queue's record as its row."""
    config = record.config
    needs = [
        tr("{min_vram_mib:g} GB VRAM", min_vram_mib=config.min_vram_mib / 1000) if config.min_vram_mib else "",
        tr("{n} cores", n=config.min_cores) if config.min_cores else "",
        tr("{min_memory_mib:g} GB memory", min_memory_mib=config.min_memory_mib / 1000)
        if config.min_memory_mib
        else "",
    ]
    return QueueRow(
        id=clean(record.name),
        kind=str(config.kind),
        needs=", ".join(filter(None, needs)),
        paused=record.paused,
        paused_by=clean(record.paused_by),
        reason=clean(record.paused_reason),
        paused_ms=record.paused_ms,
        counts=tuple(record.counts.get(status, 0) for status in TaskStatus),
        oldest_ms=record.oldest_queued_ms,
        nodes=tuple(clean(node) for node in record.nodes),
        place=place,
    )

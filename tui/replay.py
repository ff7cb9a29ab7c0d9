"""Plays what ``tui.record`` has written: a reader whose time can stand still, run faster and jump. No terminal here."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from lcq.alerts.records import Alerts
from lcq.errors import AmbiguousId, InvalidInput, TaskNotFound
from lcq.lang import tr
from lcq.models import (
    ActRecord,
    Attempt,
    DeviceSample,
    Event,
    MinuteTally,
    NodeRecord,
    QueueRecord,
    TaskPriority,
    TaskRecord,
    TaskStatus,
)
from lcq.wire import DeadAnswer, EventsAnswer
from tui.past import IsReplay, refuse
from tui.record import FORMAT
from tui.reel import Line, Looks, inner, lines_of
from tui.source import Link

SPEEDS = (0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0)
_LOOK_S = 0.1
_SLICE = 1000  # records taken in before the screen has its turn
_SILENT_MS = 40_000  # what no event tells is recorded every 15 s
_PAST_KEPT = 50_000


@cache  # made when first needed: a live console never does
def _read(model: type[Any]) -> Callable[[bytes], tuple[Any, ...]]:
    """Reads a JSON list of these."""
    return TypeAdapter(tuple[model, ...]).validate_json  # type: ignore[valid-type]  # a variable's


class NotARecording(InvalidInput):
    """The file cannot be played."""

    def __init__(self, path: Path, found: str) -> None:
        super().__init__(f"{path} cannot be replayed: {found}", hint="make one with 'lcq console --record FILE'")


_CLOCK = re.compile(r"(\d{1,2}):(\d{2})(?::(\d{2}))?Z?")


def is_time(text: str) -> bool:
    """Whether that is meant as a time, and not as a file."""
    return _CLOCK.fullmatch(text) is not None or re.match(r"\d{4}-\d{2}-\d{2}T", text) is not None


@dataclass(frozen=True)
class Recording:
    """A file that can be played: of which cluster, from when to when, and where one can begin."""

    path: Path
    cluster: str
    begun_ms: int
    ended_ms: int
    chapters: tuple[tuple[int, int], ...]  # moment and place of each whole snapshot
    ended: bool  # in order; not cut off by a crash, or still being written
    looks: Looks = field(compare=False)

    @classmethod
    def open(cls, path: Path) -> Recording:
        """Look through the file.

        Raises:
            NotARecording: there is none, or nothing in it can be played.
        """
        cluster, begun, last, ended = "", 0, 0, False
        chapters: list[tuple[int, int]] = []
        opened: tuple[int, int] | None = None
        looks = Looks(path)
        try:
            for line in lines_of(path):
                looks.take(line)
                last = line.at_ms
                if line.kind == "begin":
                    about = json.loads(line.text)["about"]
                    if about["format"] > FORMAT:
                        raise NotARecording(path, f"it was made by a newer LCQ ({about['lcq']})")
                    cluster = str(about["cluster"])
                elif line.kind == "snapshot":
                    opened = (line.at_ms, line.member)
                elif line.kind == "whole" and opened is not None:
                    chapters.append(opened)
                    begun, opened = begun or opened[0], None
                elif line.kind == "end":
                    ended = True
        except OSError as error:
            raise NotARecording(path, error.strerror or str(error)) from error
        except (ValueError, KeyError, TypeError) as error:
            raise NotARecording(path, f"its head cannot be read ({error})") from error
        if not cluster or not chapters:
            raise NotARecording(
                path, "it is no recording of a console" if not cluster else "no snapshot in it is whole"
            )
        return cls(path, cluster, begun, max(last, begun), tuple(chapters), ended, looks)

    def moment(self, text: str) -> int:
        """``11:45``, ``11:45:30`` (UTC) or a whole ISO date as ms since 1970.

        Raises:
            InvalidInput: it is none, or not in the recording.
        """
        begun = datetime.fromtimestamp(self.begun_ms / 1000, UTC)
        clock = _CLOCK.fullmatch(text.strip())
        try:
            if clock is not None:
                hour, minute, second = (int(part or 0) for part in clock.groups())
                meant = begun.replace(hour=hour, minute=minute, second=second, microsecond=0)
                if meant < begun.replace(second=0 if clock[3] is None else begun.second, microsecond=0):
                    meant += timedelta(days=1)
            else:
                meant = datetime.fromisoformat(text.strip())
                meant = meant if meant.tzinfo is not None else meant.replace(tzinfo=UTC)
        except ValueError as error:
            raise InvalidInput(f"{text!r:.40} is no time", hint="such as 11:45, 11:45:30, 2026-11-29T11:45") from error
        at_ms = max(int(meant.timestamp() * 1000), self.begun_ms)
        if at_ms > self.ended_ms or meant < begun - timedelta(minutes=1):
            raise InvalidInput(f"{text} is not in the recording", hint=f"it goes {self.told_span}")
        return at_ms

    @property
    def told_span(self) -> str:
        """From when to when, in UTC."""
        begun, ended = (datetime.fromtimestamp(at / 1000, UTC) for at in (self.begun_ms, self.ended_ms))
        until = f"{ended:%H:%M:%S}Z" if begun.date() == ended.date() else f"{ended:%Y-%m-%d %H:%M:%S}Z"
        return tr("from {begun:%Y-%m-%d %H:%M:%S}Z to {until}", begun=begun, until=until)


@dataclass(frozen=True)
class _Snapshot:
    tasks: tuple[TaskRecord, ...]
    nodes: tuple[NodeRecord, ...]
    queues: tuple[QueueRecord, ...]
    last_event_id: str
    total_tasks: int


class Playback:
    """Reads a recording as if it were the cluster, at its own time. A ``Reader`` for the feed."""

    def __init__(self, recording: Recording, at_ms: int | None = None) -> None:
        self.recording = recording
        self.speed = 1.0
        self.paused = False
        self.problem = ""
        self.jumps = 0  # how often its time was set
        self.on_alerts: Callable[[], None] = lambda: None  # called when there are other alerts by now
        self._alerts_told: Alerts | None = None
        self._held_ms = recording.begun_ms if at_ms is None else at_ms
        self._since = time.monotonic()
        self._lock = asyncio.Lock()
        self._past: deque[Event] = deque(maxlen=_PAST_KEPT)
        self._open_at(self._held_ms)

    # ------------------------------------------------------------ its time

    @property
    def now_is(self) -> int:
        """The replay's time, in ms since 1970."""
        if self.paused:
            return self._held_ms
        gone = (time.monotonic() - self._since) * 1000 * self.speed
        return min(self.recording.ended_ms, self._held_ms + int(gone))

    @property
    def at_end(self) -> bool:
        return self.now_is >= self.recording.ended_ms

    @property
    def silent_since_ms(self) -> int | None:
        """Since when nothing was recorded, where that is longer than even a calm cluster is silent; else None."""
        return self._seen_ms if self.now_is - self._seen_ms > _SILENT_MS and not self.at_end else None

    @property
    def told(self) -> str:
        """How it goes, in a word."""
        return tr("END") if self.at_end else tr("HELD") if self.paused else f"x{self.speed:g}"

    def _hold(self, at_ms: int) -> None:
        self._held_ms, self._since = at_ms, time.monotonic()

    def toggle(self) -> None:
        """Stand still, or go on."""
        self._hold(self.now_is)
        self.paused = not self.paused

    def change_speed(self, steps: int) -> None:
        """Faster (1) or slower (-1)."""
        self._hold(self.now_is)
        here = SPEEDS.index(self.speed)
        self.speed = SPEEDS[max(0, min(here + steps, len(SPEEDS) - 1))]

    async def seek(self, at_ms: int) -> None:
        """Jump there."""
        at_ms = max(self.recording.begun_ms, min(at_ms, self.recording.ended_ms))
        self.jumps += 1
        async with self._lock:
            self._hold(at_ms)
            self._open_at(at_ms)
        await self._advance()

    async def step(self) -> None:
        """Stand still at the next thing that happened."""
        if not self.paused:
            self.toggle()
        async with self._lock:
            await asyncio.to_thread(self._read_event)
        self._tell_of_alerts()

    # ------------------------------------------------------------ reading the file

    def _open_at(self, at_ms: int) -> None:
        """Begin at the last snapshot before that moment."""
        before = [chapter for chapter in self.recording.chapters if chapter[0] <= at_ms]
        _, place = before[-1] if before else self.recording.chapters[0]
        self._lines = lines_of(self.recording.path, place)
        self._next: Line | None = next(self._lines, None)
        self._seen_ms = at_ms  # when the last was written that has been read
        self._reading: dict[str, Any] | None = None  # a snapshot of which not all is read yet
        self._snapshot: _Snapshot | None = None
        self._jumped = False
        self._records: dict[str, TaskRecord] = {}
        self._later: dict[str, Event] = {}
        self._pending: deque[Event] = deque()
        self._nodes: tuple[NodeRecord, ...] = ()
        self._queues: tuple[QueueRecord, ...] = ()
        self._minutes: tuple[MinuteTally, ...] = ()
        self._acts: tuple[ActRecord, ...] = ()
        self._dead = DeadAnswer()
        self._alerts = Alerts()
        self._past.clear()

    async def _advance(self) -> None:
        async with self._lock:
            await asyncio.to_thread(self._read_until, self.now_is)
        self._tell_of_alerts()

    def _tell_of_alerts(self) -> None:
        if self._alerts is not self._alerts_told:
            self._alerts_told = self._alerts
            self.on_alerts()

    def _read_until(self, at_ms: int) -> None:
        """Take in all lines up to that moment; a snapshot that has begun in full."""
        while self._next is not None and (self._next.at_ms <= at_ms or self._snapshot is None):
            self._take_next()

    def _read_event(self) -> None:
        self._read_until(self._held_ms)
        while self._next is not None:
            line = self._next
            self._take_next()
            if line.kind == "events":
                self._hold(max(line.at_ms, self._held_ms))
                return

    def _take_next(self) -> None:
        line = self._next
        if line is None:
            return
        self._seen_ms = line.at_ms
        try:
            self._take(line.kind, json.loads(line.text) if line.kind == "snapshot" else line.text)
        except (ValidationError, ValueError, KeyError, TypeError) as error:
            self.problem = tr("it ends here: what follows cannot be read ({name})", name=type(error).__name__)
            self._next = None
            return
        self._next = next(self._lines, None)

    def _take(self, kind: str, told: Any) -> None:
        match kind:
            case "snapshot":
                self._reading = {"last": str(told["last"]), "total": int(told["total"]), "tasks": []}
            case "rows" if self._reading is not None:
                self._reading["tasks"] += _read(TaskRecord)(inner(told, "rows"))
            case "nodes":
                self._nodes = _read(NodeRecord)(inner(told, kind))
            case "queues":
                self._queues = _read(QueueRecord)(inner(told, kind))
            case "whole" if self._reading is not None:
                one, self._reading = self._reading, None
                tasks = tuple(one["tasks"])
                self._snapshot = _Snapshot(tasks, self._nodes, self._queues, one["last"], one["total"])
                self._records = {record.id: record for record in tasks}
                self._later.clear()
                self._pending.clear()
                self._jumped = True
            case "events":
                events = _read(Event)(inner(told, kind))
                self._pending.extend(events)
                self._past.extend(events)
                self._later |= {event.fields["id"]: event for event in events if "rev" in event.fields}
            case "tasks":
                self._records |= {record.id: record for record in _read(TaskRecord)(inner(told, kind))}
            case "minutes":
                self._minutes = _read(MinuteTally)(inner(told, kind))
            case "acts":
                self._acts = _read(ActRecord)(inner(told, kind))
            case "alerts":
                self._alerts = Alerts.model_validate_json(inner(told, kind), extra="ignore")
            case "dead":
                self._dead = DeadAnswer.model_validate_json(inner(told, kind))

    # ------------------------------------------------------------ a reader of the cluster as it was

    async def now_ms(self) -> int:
        return self.now_is

    async def snapshot(self, limit: int = 0, take: Callable[[Sequence[TaskRecord]], None] | None = None) -> _Snapshot:
        await self._advance()
        self._jumped = False
        if self._snapshot is None:
            raise NotARecording(self.recording.path, self.problem or "no snapshot in it is whole")
        snapshot = self._snapshot
        if take is not None:
            for start in range(0, len(snapshot.tasks), _SLICE):
                take(snapshot.tasks[start : start + _SLICE])
                await asyncio.sleep(0)  # a key pressed meanwhile is answered meanwhile
        return snapshot

    async def events(self, after: str, wait_ms: int, limit: int) -> EventsAnswer:
        until = time.monotonic() + wait_ms / 1000
        while True:
            await self._advance()
            if self._jumped:
                return EventsAnswer(events=(), last_id=after, gap=True)
            if self._pending:
                found = tuple(self._pending.popleft() for _ in range(min(limit, len(self._pending))))
                return EventsAnswer(events=found, last_id=found[-1].id, gap=False)
            if time.monotonic() >= until:
                return EventsAnswer(events=(), last_id=after, gap=False)
            await asyncio.sleep(_LOOK_S)

    async def tasks(self, ids: Sequence[str]) -> Mapping[str, TaskRecord]:
        return {one: self._as_now(self._records[one]) for one in ids if one in self._records}

    async def glances(self, ids: Sequence[str]) -> Sequence[TaskRecord]:
        return tuple((await self.tasks(ids)).values())

    def _as_now(self, record: TaskRecord) -> TaskRecord:
        """The record as the last event tells the task, where that is newer."""
        event = self._later.get(record.id)
        if event is None or int(event.fields["rev"]) <= record.revision:
            return record
        told = event.fields
        return record.model_copy(
            update={
                "status": TaskStatus(told["status"]), "revision": int(told["rev"]), "updated_ms": event.at_ms,
                "queue": told.get("queue", record.queue), "node": told.get("node", ""), "why": told.get("why", ""),
                "attempt": int(told.get("attempt", record.attempt)),
                "priority": TaskPriority(told.get("priority", record.priority)),
            }
        )  # fmt: skip

    async def nodes(self) -> Sequence[NodeRecord]:
        return self._nodes

    async def queues(self, nodes: Sequence[NodeRecord] | None = None) -> Sequence[QueueRecord]:
        return self._queues

    async def minutes(self, count: int = 60) -> tuple[MinuteTally, ...]:
        return self._minutes[-count:] or (MinuteTally(minute=self.now_is // 60_000),)

    async def device_history(self, node: str) -> Mapping[str, Sequence[DeviceSample]]:
        """As it was looked at last by then; nothing where nobody did."""
        return await self._seen(dict[str, tuple[DeviceSample, ...]], "devices", node) or {}

    async def _seen(self, kind: Any, what: str, of: str) -> Any:
        """What was looked at last by now; None where nobody did, or where it cannot be read."""
        look = self.recording.looks.last(what, of, self.now_is)
        if look is None:
            return None
        text = await asyncio.to_thread(self.recording.looks.read, look)
        try:
            return TypeAdapter(kind).validate_json(text)
        except ValidationError:
            return None

    async def dead(self, *, by: Sequence[str] = ()) -> DeadAnswer:
        """As they were recorded: not told apart by more."""
        return self._dead

    async def alerts(self) -> Alerts:
        """As they were read last by then; a recording of an older LCQ has none."""
        return self._alerts.model_copy(update={"now_ms": self.now_is})

    async def acts(self, limit: int, before: str = "") -> Sequence[ActRecord]:
        places = [place for place, act in enumerate(self._acts) if act.id == before]
        start = places[0] + 1 if places else len(self._acts) if before else 0
        return self._acts[start : start + limit]

    async def task(self, task_id: str) -> TaskRecord:
        if task_id not in self._records:
            raise TaskNotFound(task_id)
        return self._as_now(self._records[task_id])

    async def find(self, typed: str) -> str:
        begun = sorted(one for one in self._records if one.startswith(typed))
        if not begun:
            raise TaskNotFound(typed)
        if len(begun) > 1:
            raise AmbiguousId(typed, begun)
        return begun[0]

    async def attempts(self, task_id: str) -> Sequence[Attempt]:
        """As they were recorded last by then; ``attempts_ms`` tells when that was."""
        return await self._seen(tuple[Attempt, ...], "attempts", task_id) or ()

    def attempts_ms(self, task_id: str) -> int | None:
        """When the attempts that ``attempts`` answers were recorded, in ms since 1970; None: they never were by now."""
        look = self.recording.looks.last("attempts", task_id, self.now_is)
        return look.at_ms if look is not None else None

    def changed_ms(self, task_id: str) -> int:
        """When something has last happened to a task, in ms since 1970, as far as is known; else 0."""
        event = self._later.get(task_id)
        return event.at_ms if event is not None else 0

    async def task_events(self, record: TaskRecord, *, limit: int = 200) -> Sequence[Event]:
        """Those that somebody looked at by then, and all that came since the recording, or its last snapshot, began."""
        seen = await self._seen(tuple[Event, ...], "events", record.id) or ()
        came = [event for event in self._past if event.fields.get("id") == record.id]
        known = {event.id: event for event in (*seen, *came)}
        return sorted(known.values(), key=lambda event: _place(event.id))[-limit:]

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return refuse  # whatever else a console may ask of a cluster is not in a recording


def _place(event_id: str) -> tuple[int, int]:
    at_ms, _, number = event_id.partition("-")
    return int(at_ms), int(number or 0)


class ReplayLink(Link):
    """Its time is the replay's. What it shows is never stale: it is the past, and said to be."""

    def __init__(self, playback: Playback) -> None:
        super().__init__()
        self._playback = playback

    @property
    def now_ms(self) -> int:
        return self._playback.now_is

    @property
    def is_stale(self) -> bool:
        return False

    @property
    def refusal(self) -> str:
        return str(IsReplay())

    def note_skew(self, there_ms: int) -> None:
        pass

"""Records what a console sees into a file that ``tui.replay`` plays: bounded, and whole up to any moment of a crash.

Lines of JSON in gzip, each beginning ``{"at":MS,"kind":"…"``; a new gzip member begins with each snapshot, so that a
player can start there. What is written is flushed every second: a file that was cut off plays up to that.
"""

from __future__ import annotations

import asyncio
import functools
import json
import os
import re
import time
import zlib
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from lcq import __version__
from lcq.errors import LcqError
from lcq.lang import tr
from lcq.private_folder import make_private
from tui.looks import Noted, listed
from tui.source import WINDOW

if TYPE_CHECKING:
    from lcq.alerts.records import Alerts
    from lcq.models import Attempt, DeviceSample, Event, NodeRecord, QueueRecord, TaskRecord
    from lcq.state.glance import TaskGlance
    from lcq.wire import EventsAnswer
    from tui.gallery import Pictures
    from tui.store import SnapshotLike

FORMAT = 1
FLUSH_S = 1.0
THIN_S = 3.0  # so often, at most, the nodes and queues are written
OVERVIEW_S = 15.0  # so often what no event tells is read for the recording: minutes, failures, acts
_MOST_WAITING = 100_000  # things seen that wait to be written: the disk does not keep up
_SLICE = 500
_LINES = 50  # written at once
_ENDING = ".lcqrec"


class RecordingExists(LcqError):
    """Nothing was recorded: a file of that name is there."""

    def __init__(self, path: Path) -> None:
        super().__init__(f"{path} is there already", hint="a recording never overwrites a file: give another name")


def recordings_folder(data_path: Path) -> Path:
    """Where recordings go that nobody gave a name."""
    return data_path / "recordings"


def new_recording(data_path: Path, cluster: str) -> Path:
    """The file of a recording that begins now."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", cluster).strip("-.") or "lcq"
    return recordings_folder(data_path) / f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{name}{_ENDING}"


def latest_recording(data_path: Path) -> Path | None:
    """The newest of the recordings that nobody gave a name."""
    return max(recordings_folder(data_path).glob(f"*{_ENDING}"), default=None)


def line_of(at_ms: int, kind: str, **parts: str) -> bytes:
    """One line of a recording; ``parts`` are JSON already."""
    more = "".join(f',"{name}":{part}' for name, part in parts.items())
    return f'{{"at":{at_ms:013d},"kind":"{kind}"{more}}}\n'.encode(errors="backslashreplace")


@dataclass(frozen=True)
class RecordingRules:
    """Where recordings go, and how large and long they may become."""

    data_path: Path
    most_bytes: int = 200 * 2**20
    most_s: float = 12 * 3600.0


class Recorder:
    """Writes one recording. What is noted is written by ``run``, so that nobody who notes ever waits for the disk."""

    def __init__(
        self,
        path: Path,
        *,
        cluster: str,
        now_ms: Callable[[], int],
        rules: RecordingRules,
    ) -> None:
        """Raises:
        RecordingExists: ``path`` is there.
        LcqError: it cannot be written.
        """
        self.path = path
        self.written = 0  # bytes
        self.stopped = ""  # why it has ended; "" while it goes on
        self.noted = Noted(rules.most_bytes // 2)  # what is looked at meanwhile
        self._now_ms, self._rules = now_ms, rules
        self._until = time.monotonic() + rules.most_s
        self._last_ms = 0
        self._waiting: deque[tuple[str, int, Any]] = deque()
        self._begun = False  # a snapshot has been noted: nothing before it could be played
        self._alerts: tuple[object, object] | None = None  # and silences, as noted last
        self._thinned: dict[str, tuple[float, str]] = {}
        self._overview_due = 0.0
        self._lines: list[bytes] = []
        self._packer = zlib.compressobj(6, zlib.DEFLATED, 31)
        try:
            make_private(path.parent)
            self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError as error:
            raise RecordingExists(path) from error
        except OSError as error:
            raise LcqError(f"{path} cannot be recorded to: {error.strerror or error}") from error
        about = f'{{"format":{FORMAT},"cluster":{_quoted(cluster)},"lcq":{_quoted(__version__)}}}'
        self._put(line_of(self._moment(), "begin", about=about))

    # ------------------------------------------------------------ noting

    def note_snapshot(self, snapshot: SnapshotLike) -> None:
        self._begun, self._alerts = True, None
        self._note("snapshot", snapshot)

    def note_events(self, answer: EventsAnswer) -> None:
        if answer.events:
            self._note("events", answer.events)
            self.noted.note_changed(answer.events)

    def note(self, kind: str, seen: Any) -> None:
        """``kind``: nodes, queues, tasks, minutes, dead or acts; alerts have a way of their own."""
        self._note(kind, seen)

    def note_alerts(self, alerts: Alerts) -> None:
        """Where they are others than those that were noted last, or a snapshot has come since."""
        told = (alerts.alerts, alerts.silences)
        if self._begun and told != self._alerts:
            self._alerts = told
            self._note("alerts", alerts)

    def _note(self, kind: str, seen: Any) -> None:
        if self.stopped or not self._begun:
            return
        if len(self._waiting) >= _MOST_WAITING:
            self.stop(tr("the disk does not keep up"))
            return
        self._waiting.append((kind, self._moment(), seen))

    def _moment(self) -> int:
        self._last_ms = max(self._last_ms, self._now_ms())  # a clock that is set back must not turn the order round
        return self._last_ms

    def stop(self, why: str) -> None:
        """End it: what waits is still written."""
        self.stopped = self.stopped or why

    # ------------------------------------------------------------ writing

    async def run(
        self,
        overview: Mapping[str, Callable[[], Awaitable[Any]]],
        attempts: Callable[[str], Awaitable[Sequence[Attempt]]] | None = None,
    ) -> None:
        """Write until it has ended. ``overview``: what is to be read now and then, by its kind; ``attempts`` are read
        of some tasks that have changed, those first that have come to an end."""
        try:
            while not self.stopped:
                await asyncio.sleep(FLUSH_S)
                await self._read_overview(overview)
                if attempts is not None:
                    await self._read_attempts(attempts)
                await self._write_waiting()
                await self._write_looks()
                if self.written >= self._rules.most_bytes:
                    self.stop(
                        tr(
                            "it has reached {most_bytes} MiB (console.record_mib)",
                            most_bytes=self._rules.most_bytes // 2**20,
                        )
                    )
                elif time.monotonic() >= self._until:
                    self.stop(
                        tr("it has reached {most:g} hours (console.record_hours)", most=self._rules.most_s / 3600)
                    )
            await self._write_waiting()
            await self._write_looks()
        except OSError as error:
            self.stop(tr("{path} cannot be written: {strerror}", path=self.path, strerror=error.strerror or error))
        finally:
            self._end()

    async def _read_overview(self, ways: Mapping[str, Callable[[], Awaitable[Any]]]) -> None:
        if time.monotonic() < self._overview_due or not self._begun:
            return
        self._overview_due = time.monotonic() + OVERVIEW_S
        for kind, read in ways.items():
            try:
                async with asyncio.timeout(5.0):
                    self._note(kind, await read())
            except (LcqError, OSError, TimeoutError, ValidationError):
                pass  # what is not known is not in the recording either

    async def _read_attempts(self, read: Callable[[str], Awaitable[Sequence[Attempt]]]) -> None:
        for task_id in self.noted.take_changed() if self._begun else ():
            try:
                async with asyncio.timeout(5.0):
                    found = await read(task_id)
            except (LcqError, OSError, TimeoutError, ValidationError):
                continue
            self.noted.note("attempts", task_id, functools.partial(listed, found))

    async def _write_looks(self) -> None:
        """What was looked at, in a member of the file of its own: a player finds it there alone."""
        if not self._begun or not len(self.noted):
            return
        made = await asyncio.to_thread(lambda: list(self.noted.made()))
        if not made:
            return
        await asyncio.to_thread(self._new_member)
        before = self.written
        for what, of, text in made:
            await self._write(line_of(self._moment(), "look", what=_quoted(what), of=_quoted(of), seen=text))
        await asyncio.to_thread(self._new_member)
        self.noted.note_written(self.written - before)

    async def _write_waiting(self) -> None:
        while self._waiting:
            kind, at_ms, seen = self._waiting.popleft()
            if kind == "snapshot":
                await self._write_snapshot(at_ms, seen)
            elif kind in ("dead", "alerts"):
                await self._write(line_of(at_ms, kind, **{kind: seen.model_dump_json()}))
            else:
                for start in range(0, max(1, len(seen)), _SLICE):
                    text = listed(seen[start : start + _SLICE])
                    if kind not in ("nodes", "queues") or self._is_news(kind, text):
                        await self._write(line_of(at_ms, kind, **{kind: text}))
        await asyncio.to_thread(self._flush)

    def _is_news(self, kind: str, text: str) -> bool:
        due, before = self._thinned.get(kind, (0.0, ""))
        if text == before or time.monotonic() < due:
            return False
        self._thinned[kind] = (time.monotonic() + THIN_S, text)
        return True

    async def _write_snapshot(self, at_ms: int, snapshot: SnapshotLike) -> None:
        await asyncio.to_thread(self._new_member)
        last, total = _quoted(snapshot.last_event_id), str(snapshot.total_tasks)
        await self._write(line_of(at_ms, "snapshot", last=last, total=total))
        for start in range(0, len(snapshot.tasks), _SLICE):
            await self._write(line_of(at_ms, "rows", rows=listed(snapshot.tasks[start : start + _SLICE])))
        await self._write(line_of(at_ms, "nodes", nodes=listed(snapshot.nodes)))
        await self._write(line_of(at_ms, "queues", queues=listed(snapshot.queues)))
        await self._write(line_of(at_ms, "whole"))

    async def _write(self, line: bytes) -> None:
        self._lines.append(line)
        if len(self._lines) >= _LINES:
            await asyncio.to_thread(self._put_lines)
        else:
            await asyncio.sleep(0)  # the screen has its turn

    def _put_lines(self) -> None:
        lines, self._lines = self._lines, []
        self._put(b"".join(lines))

    def _put(self, text: bytes) -> None:
        self._out(self._packer.compress(text))

    def _flush(self) -> None:
        self._put_lines()
        self._out(self._packer.flush(zlib.Z_SYNC_FLUSH))

    def _new_member(self) -> None:
        self._put_lines()
        self._out(self._packer.flush())
        self._packer = zlib.compressobj(6, zlib.DEFLATED, 31)

    def _out(self, data: bytes) -> None:
        while data:
            done = os.write(self._file, data)
            self.written += done
            data = data[done:]

    def _end(self) -> None:
        self.stop(tr("the console was left"))
        try:
            self._put_lines()
            self._put(line_of(self._moment(), "end", why=_quoted(self.stopped)))
            self._out(self._packer.flush())
        except OSError:
            pass  # it plays up to where it is whole
        finally:
            os.close(self._file)


def _quoted(text: str) -> str:
    return json.dumps(text)


class Tape:
    """A reader through which everything that is read goes, to be noted while somebody records. A ``Reader`` itself."""

    def __init__(self, reader: Any) -> None:
        self._reader = reader
        self._alerts: Alerts | None = None  # as they were read last
        self.recorder: Recorder | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reader, name)

    def _noted(self, kind: str, seen: Any) -> Any:
        if self.recorder is not None:
            self.recorder.note(kind, seen)
        return seen

    async def snapshot(
        self, limit: int = WINDOW, take: Callable[[Sequence[TaskGlance | TaskRecord]], None] | None = None
    ) -> SnapshotLike:
        found: SnapshotLike
        if self.recorder is None:
            found = await self._reader.snapshot(limit=limit, take=take)
            return found
        found = await self._reader.snapshot(limit=limit)  # whole: the recorder writes it by and by
        self.recorder.note_snapshot(found)
        if self._alerts is not None:  # who begins to play here sees them
            self.recorder.note_alerts(self._alerts)
        if take is not None:
            for start in range(0, len(found.tasks), _SLICE):
                take(found.tasks[start : start + _SLICE])
                await asyncio.sleep(0)  # a key pressed meanwhile is answered meanwhile
        return found

    async def events(self, after: str, wait_ms: int, limit: int) -> EventsAnswer:
        answer: EventsAnswer = await self._reader.events(after, wait_ms, limit)
        if self.recorder is not None:
            self.recorder.note_events(answer)
        return answer

    async def alerts(self) -> Alerts:
        found: Alerts = await self._reader.alerts()
        self._alerts = found
        if self.recorder is not None:
            self.recorder.note_alerts(found)
        return found

    async def nodes(self) -> Sequence[NodeRecord]:
        found: Sequence[NodeRecord] = self._noted("nodes", await self._reader.nodes())
        return found

    async def queues(self, nodes: Sequence[NodeRecord] | None = None) -> Sequence[QueueRecord]:
        found: Sequence[QueueRecord] = self._noted("queues", await self._reader.queues(nodes))
        return found

    async def glances(self, ids: Sequence[str]) -> Sequence[TaskGlance | TaskRecord]:
        if self.recorder is not None:
            return tuple((await self.tasks(ids)).values())  # a recording has whole records
        found: Sequence[TaskGlance | TaskRecord] = await self._reader.glances(ids)
        return found

    async def tasks(self, ids: Sequence[str]) -> Mapping[str, TaskRecord]:
        found: Mapping[str, TaskRecord] = await self._reader.tasks(ids)
        if self.recorder is not None and found:
            self.recorder.note("tasks", tuple(found.values()))
        return found

    async def task(self, task_id: str) -> TaskRecord:
        found: TaskRecord = await self._reader.task(task_id)
        self._noted("tasks", (found,))
        return found

    async def attempts(self, task_id: str) -> Sequence[Attempt]:
        found: Sequence[Attempt] = await self._reader.attempts(task_id)
        if self.recorder is not None:
            self.recorder.noted.note("attempts", task_id, lambda: listed(found))
        return found

    async def task_events(self, record: TaskRecord, *, limit: int = 200) -> Sequence[Event]:
        found: Sequence[Event] = await self._reader.task_events(record, limit=limit)
        if self.recorder is not None:
            self.recorder.noted.note("events", record.id, lambda: listed(found))
        return found

    async def device_history(self, node: str) -> Mapping[str, Sequence[DeviceSample]]:
        found: Mapping[str, Sequence[DeviceSample]] = await self._reader.device_history(node)
        if self.recorder is not None:
            told = {device: [one.model_dump(mode="json") for one in samples] for device, samples in found.items()}
            self.recorder.noted.note("devices", node, lambda: json.dumps(told), every_s=60.0)
        return found

    @property
    def noted(self) -> Noted | None:
        """Where is noted what is looked at, while somebody records."""
        return self.recorder.noted if self.recorder is not None and not self.recorder.stopped else None

    def note_pictures(self, record: TaskRecord, pictures: Pictures) -> None:
        """These pictures are looked at."""
        if self.noted is not None:
            self.noted.note_pictures(record, pictures)

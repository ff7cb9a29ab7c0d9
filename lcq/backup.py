"""Backups: the state of a cluster, as it was at one moment, in one file; taken while the cluster works, and put back.

The truth is each task's record. Those are copied page by page while work goes on; which of them have changed since is
followed by the events, and copied again. A last script reads, at one moment, what is still open and all that has to fit
to it. Indexes are not in a backup: the same Lua that keeps them makes them anew from the records.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import logging
import re
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lcq import __version__
from lcq.backup_file import BackupWriter, Contents, lines_of, verified
from lcq.config import DistributedConfig
from lcq.errors import BackupFailed, BackupUnusable, BlobNotFound
from lcq.ids import new_id
from lcq.models import TaskPriority, TaskStatus
from lcq.state.manager import StateManager
from lcq.state.moves.copies import CopiedKey, CopiedTask
from lcq.state.scripts import BASE_FORMAT, STATE_FORMAT
from lcq.state.vacate import vacate
from lcq.storage.blobs import BlobStore

_log = logging.getLogger(__name__)

_PAGE = 200  # tasks that one script copies
_BREATH_S = 0.002  # between two of them: others want Redis too
_FEW = 1000  # changed tasks that the last look may have left to it
_ROUNDS = 200
_KEYS = 100
_ENTRIES = 1000
_CHUNK = 256 * 1024
_AT_ONCE = 256

# What becomes of each class of keys: a test knows them all (tests/unit/test_backup.py).
OF_TASKS = ("task:", "attempts:", "idem:")
"""One task each: in the backup as the task's record."""
MADE_ANEW = (
    "ids", "ix:", "lane:", "lanes", "labelled", "rank:", "mine:", "users:", "waiting:", "band:", "turn:", "line:",
    "back:", "over:", "overs", "runs", "running", "aside:", "walks", "delayed", "leases", "expiry", "held:", "counts",
    "causes", "backlog:", "ends", "subs:",
)  # fmt: skip
"""Indexes: made from the records."""
OF_THE_MOMENT = (
    "schedulers", "listening", "duty:", "synced", "failover", "format", "cluster", "notices", "condition:",
    "call:", "address:", "lent:",
)  # fmt: skip
"""Of those who run now, or said by the head of the backup."""
STREAMS = ("events", "acts")
AT_LEISURE = ("upkeep", "minute:", "cost:", "memory:", "use:", "answer:", "done:")
"""Kept; read when there is time, for nothing else has to fit to them."""
AT_ONCE = (
    "totals", "fair:", "job:", "jobs", "node:", "nodes", "queue:", "costs", "acks", "undo:", "undone:", "paused",
    "unbilled", "usage:", "spend:", "spent_out", "schedule:", "blame:", "budget", "rate:", "shared:", "interactive",
    "alerts", "silences", "warm_ups", "warmed:",
    "access", "handshakes",
)  # fmt: skip
"""Kept, and read with the last tasks, in one moment."""
_OF_A_JOB = ("skipped", "summed")  # what a job's hash says that its tasks do not

_ENDED = tuple(status for status in TaskStatus if status.is_terminal)
_BLOB = re.compile(r"blob:([0-9a-f]{64})")  # as lcq.storage.addresses writes it
_TEXTS = ("json", "digest", "idem", "model", "user", "queue")
_NUMBERS = ("rev", "attempt", "retries", "deaths", "max_retries", "submitted_ms", "updated_ms", "queued_ms")

Progress = Callable[[str, int, int], None]
"""Told of what there is how much is done, of how much (0: not known)."""


def _quiet(_what: str, _done: int, _of: int) -> None:
    pass


def is_of(name: str, classes: Iterable[str]) -> bool:
    """Whether a key, without its namespace, belongs to one of these classes."""
    return any(name == one or (one.endswith(":") and name.startswith(one)) for one in classes)


@dataclass(frozen=True)
class Made:
    """A backup that was written."""

    path: Path
    tasks: int
    size_bytes: int
    at_ms: int
    seconds: float
    blobs: int = 0
    blobs_missing: int = 0


async def make_backup(
    state: StateManager, path: Path, *, store: BlobStore | None = None, progress: Progress = _quiet
) -> Made:
    """Write the state, as it is at a moment before this returns, into a new file; with the blobs in ``store`` that its
    tasks name, where one is given. The cluster works on meanwhile.

    Raises:
        BackupFailed: the file is there or cannot be written, or more happens than can be followed. DiskFull.
        StateUnavailable, StorageUnreachable.
    """
    began = time.monotonic()
    copy = _Copy(state, progress)
    head = await copy.head()
    with BackupWriter(path, head) as out:
        await copy.take(out)
        missing = await _add_blobs(out, copy.blobs, store, progress) if store is not None else 0
        end = {"tasks": copy.count, "at_ms": copy.at_ms, "last_event": copy.last_event}
        await asyncio.to_thread(out.close_whole, end)
        blobs = out.counts.get("blob_end", 0)
    size = (await asyncio.to_thread(path.stat)).st_size
    return Made(path, copy.count, size, copy.at_ms, time.monotonic() - began, blobs, missing)


class _Copy:
    """One walk through a state."""

    def __init__(self, state: StateManager, progress: Progress) -> None:
        self._state, self._reader = state, state.reader
        self._progress = progress
        self._ids: set[str] = set()  # that are in the file
        self._changed: set[str] = set()  # and are not any more as they are there
        self._since = "0-0"
        self.blobs: set[str] = set()
        self.at_ms = 0
        self.last_event = "0-0"

    @property
    def count(self) -> int:
        """The tasks that the backup has."""
        return len(self._ids)

    async def head(self) -> dict[str, Any]:
        config = self._state.config
        cluster = await self._state.copy_keys(["cluster", "format"])
        told = {key.name: key.value for key in cluster}
        return {
            "lcq": __version__,
            "state_format": int(str(told.get("format", BASE_FORMAT))),
            "cluster": told.get("cluster", ""),
            "namespace": config.redis.namespace,
            "redis": self._state.server_version,
            "began": datetime.now(UTC).isoformat(timespec="seconds"),
            "settings_sha256": settings_digest(config),
            "queues": [queue.name for queue in config.queues],
        }

    async def take(self, out: BackupWriter) -> None:
        self._since = await self._reader.last_event_id()
        names = await self._state.key_names()
        at_leisure = [name for name in dict.fromkeys(names) if is_of(name, AT_LEISURE)]
        for start in range(0, len(at_leisure), _KEYS):
            await self._write_keys(out, await self._state.copy_keys(at_leisure[start : start + _KEYS]))
        total = sum((await self._reader.counts()).values())
        after = ""
        while True:
            page = await self._state.copy_page(after, _PAGE)
            await self._write_tasks(out, page)
            self._progress("tasks", len(self._ids), max(total, len(self._ids)))
            await self._follow()
            if len(page) < _PAGE:
                break
            after = page[-1].id
            await asyncio.sleep(_BREATH_S)
        await self._end(out)
        for stream in STREAMS:
            await self._write_stream(out, stream)

    async def _follow(self) -> None:
        """Note which tasks have changed since the last look."""
        while True:
            answer = await self._reader.events(self._since, 0, _ENTRIES)
            if answer.gap:
                raise _overtaken()
            self._since = answer.last_id
            for event in answer.events:
                self._changed.update(filter(None, (event.fields.get("id"), event.fields.get("task"))))
            if len(answer.events) < _ENTRIES:
                return

    async def _end(self, out: BackupWriter) -> None:
        """Copy what has changed, until so little is left that it can be read at one moment."""
        for _ in range(_ROUNDS):
            while len(self._changed) > _FEW:
                some = [self._changed.pop() for _ in range(_PAGE)]
                await self._write_tasks(out, await self._state.copy_tasks(some))
                await self._follow()
            names = [name for name in dict.fromkeys(await self._state.key_names()) if is_of(name, AT_ONCE)]
            rest = await self._state.copy_rest(self._since, sorted(self._changed), names)
            if rest == "gap":
                raise _overtaken()
            if not isinstance(rest, str):
                await self._write_tasks(out, rest.tasks)
                await self._write_keys(out, rest.keys)
                self.at_ms, self.last_event = rest.at_ms, rest.last_event
                return
            await self._follow()
        raise _overtaken()

    async def _write_tasks(self, out: BackupWriter, tasks: Sequence[CopiedTask]) -> None:
        def write() -> None:
            for task in tasks:
                if task.fields:
                    out.add("task", task.id, task.fields, task.attempts)
                    self.blobs.update(_BLOB.findall(" ".join(task.fields)))
                else:
                    out.add("gone", task.id)

        for task in tasks:
            (self._ids.add if task.fields else self._ids.discard)(task.id)
        await asyncio.to_thread(write)

    @staticmethod
    async def _write_keys(out: BackupWriter, keys: Sequence[CopiedKey]) -> None:
        def write() -> None:
            for key in keys:
                out.add("key", key.name, key.kind, key.ttl_ms, _kept_value(key))

        await asyncio.to_thread(write)

    async def _write_stream(self, out: BackupWriter, stream: str) -> None:
        until = self.last_event if stream == "events" else "+"
        after = "0-0"
        while entries := await self._state.stream(stream, after=after, until=until, limit=_ENTRIES):
            await asyncio.to_thread(out.add, "entries", stream, entries)
            after = entries[-1][0]
            await asyncio.sleep(_BREATH_S)


def _kept_value(key: CopiedKey) -> str | tuple[str, ...]:
    if not key.name.startswith("job:"):
        return key.value
    pairs = zip(key.value[::2], key.value[1::2], strict=True)
    return tuple(text for name, value in pairs if name in _OF_A_JOB for text in (name, value))


def _overtaken() -> BackupFailed:
    return BackupFailed(
        "more happened than could be followed while the state was read",
        hint="try again; where it stays so, set retention.events higher",
    )


def settings_digest(config: DistributedConfig) -> str:
    """The SHA-256 of all settings without their secrets: whether two clusters are set up alike."""
    from lcq.settings.secrets import hidden

    values = hidden(config.model_dump(mode="json"), type(config))
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


async def _add_blobs(out: BackupWriter, wanted: set[str], store: BlobStore, progress: Progress) -> int:
    """Write the blobs that tasks name. Answers how many of them are gone: that is no reason to have no backup."""
    missing = 0
    for number, sha256 in enumerate(sorted(wanted), 1):
        try:
            await asyncio.to_thread(_add_blob, out, sha256, store)
        except BlobNotFound:
            missing += 1
        progress("blobs", number, len(wanted))
    return missing


def _add_blob(out: BackupWriter, sha256: str, store: BlobStore) -> None:
    size = 0
    for chunk in store.read(sha256):
        for start in range(0, len(chunk), _CHUNK):
            out.add("blob", sha256, base64.b64encode(chunk[start : start + _CHUNK]).decode())
        size += len(chunk)
    out.add("blob_end", sha256, size)


# ---------------------------------------------------------------- by itself

_NAME = "lcq-{at}.lcq"
_NAMED = re.compile(r"^lcq-\d{8}-\d{6}\.lcq$")


def kept_backups(folder: Path) -> tuple[Path, ...]:
    """The backups that schedulers have made there, the oldest first."""
    return tuple(sorted(path for path in folder.glob("lcq-*.lcq") if _NAMED.match(path.name)))


def backup_name(at_ms: int) -> str:
    """What a backup that is made then is called."""
    return _NAME.format(at=datetime.fromtimestamp(at_ms / 1000, UTC).strftime("%Y%m%d-%H%M%S"))


def drop_oldest(folder: Path, keep: int) -> int:
    """Remove the oldest of more than ``keep`` backups there; answers how many. Others' files stay."""
    gone = kept_backups(folder)[:-keep]
    for path in gone:
        path.unlink(missing_ok=True)
    return len(gone)


# ---------------------------------------------------------------- put back


@dataclass(frozen=True)
class Restored:
    """What came of a restore. ``by_state``: the tasks by the state that they have now."""

    contents: Contents
    by_state: dict[str, int]
    handed_back: int
    left_out: tuple[tuple[str, str], ...]  # tasks whose records were damaged, and how
    blobs: int
    seconds: float


async def restore_backup(
    path: Path,
    config: DistributedConfig,
    url: str,
    *,
    replace: bool = False,
    as_copy: bool = False,
    paused: bool = False,
    store: BlobStore | None = None,
    progress: Progress = _quiet,
) -> Restored:
    """Put a backup into the namespace of ``config`` at ``url``, where no scheduler works.

    ``replace``: all that is there is given away. ``as_copy``: under an id of its own, beside the cluster that it is of.
    ``paused``: every queue is, so that nothing starts before somebody has looked. ``store``: where its blobs go.

    Raises:
        BackupUnusable: the file is not sound, or of a newer LCQ. Nothing was changed.
        RestoreRefused: a scheduler works there, or the namespace is not empty. Nothing was changed.
        StateUnavailable: then what is there is closed to schedulers until it is restored with ``replace``.
    """
    began = time.monotonic()
    contents = await asyncio.to_thread(verified, path)
    if int(contents.head["state_format"]) > STATE_FORMAT:
        raise BackupUnusable(
            path,
            f"its state is of format {contents.head['state_format']}, this LCQ knows {STATE_FORMAT}",
            hint=f"use LCQ {contents.head.get('lcq', '')}, which wrote it, or a newer one",
        )
    await vacate(url, config.redis.namespace, replace=replace)
    async with StateManager(config, url=url) as state:
        await state.begin_restore(datetime.now(UTC).isoformat(timespec="seconds"))
        filling = _Filling(state, contents, progress)
        await filling.fill(store)
        cluster = "" if as_copy else str(contents.head.get("cluster", ""))
        await state.end_restore(state_format=int(contents.head["state_format"]), cluster=cluster or new_id())
        if paused:
            for queue in await state.reader.queues():
                if not queue.paused:
                    await state.pause_queue(queue.name, actor="lcq restore", reason="restored paused")
    told = Counter(filling.by_state)
    return Restored(
        contents, dict(told), filling.handed_back, tuple(filling.left_out), filling.blobs, time.monotonic() - began
    )


class _Filling:
    """A backup on its way into an empty namespace: first all that tasks stand on, then the tasks."""

    def __init__(self, state: StateManager, contents: Contents, progress: Progress) -> None:
        self._state, self._contents, self._progress = state, contents, progress
        self.by_state: Counter[str] = Counter()
        self.handed_back = 0
        self.left_out: list[tuple[str, str]] = []
        self.blobs = 0
        self._unbilled: set[str] = set()

    async def fill(self, store: BlobStore | None) -> None:
        for _, told in self._lines("key"):
            name, kind, ttl_ms, value = told[1:]
            if name == "unbilled":  # each task enters it as it is put back
                self._unbilled.update(value)
                continue
            await self._state.restore_key(
                CopiedKey(name, kind, ttl_ms, value if isinstance(value, str) else tuple(value))
            )
        for _, told in self._lines("entries"):
            await self._state.restore_entries(told[1], [(entry, fields) for entry, fields in told[2]])
        batch: list[CopiedTask] = []
        for number, told in self._lines("task"):
            if self._contents.last_lines[told[1]] == number:
                batch.append(self._billed(CopiedTask(told[1], tuple(told[2]), tuple(told[3]))))
            if len(batch) >= _AT_ONCE:
                await self._put(batch)
                batch = []
        await self._put(batch)
        if store is not None:
            await asyncio.to_thread(self._put_blobs, store)

    def _lines(self, *kinds: str) -> Iterator[tuple[int, Any]]:
        for number, (_, told) in enumerate(lines_of(self._contents.path)):
            if isinstance(told, list) and told[0] in kinds:
                yield number, told

    def _billed(self, task: CopiedTask) -> CopiedTask:
        """The task, counted for reports as it was at the moment of the backup: it may have been copied before that."""
        told = dict(zip(task.fields[::2], task.fields[1::2], strict=True))
        if task.id in self._unbilled or told.get("status") not in _ENDED:
            return task
        told["billed"] = f"{told.get('attempt', '0')}:{told.get('finished_ms') or told.get('updated_ms', '0')}"
        return replace(task, fields=tuple(text for pair in told.items() for text in pair))

    async def _put(self, tasks: Sequence[CopiedTask]) -> None:
        sound = []
        for task in tasks:
            found = damage_of(task)
            if found:
                self.left_out.append((task.id, found))
                _log.error("the record of task %s is damaged in the backup, and left out: %s", task.id, found)
            else:
                sound.append(task)
        states = await asyncio.gather(*(self._state.restore_task(task) for task in sound))
        self.by_state.update(states)
        self.handed_back += sum(_status(task) == TaskStatus.PROCESSING for task in sound)
        self._progress("tasks", sum(self.by_state.values()), int(self._contents.end["tasks"]))

    def _put_blobs(self, store: BlobStore) -> None:
        with tempfile.TemporaryDirectory(prefix="lcq-restore-") as folder:
            part = Path(folder) / "blob"
            for _, told in self._lines("blob", "blob_end"):
                if told[0] == "blob":
                    with part.open("ab") as file:
                        file.write(base64.b64decode(told[2]))
                    continue
                if not part.exists():
                    part.touch()  # a blob without a byte
                store.put(part, told[1])
                part.unlink()
                self.blobs += 1
                self._progress("blobs", self.blobs, 0)


def _status(task: CopiedTask) -> str:
    return dict(zip(task.fields[::2], task.fields[1::2], strict=True)).get("status", "")


def damage_of(task: CopiedTask) -> str:
    """What is wrong with a task's record; "": nothing that keeps it from being put back."""
    fields = dict(zip(task.fields[::2], task.fields[1::2], strict=True))
    if fields.get("status") not in tuple(TaskStatus):
        return "status is none"
    if fields.get("priority") not in tuple(TaskPriority):
        return "priority is none"
    for name in _TEXTS:
        if not fields.get(name):
            return f"has no {name}"
    for name in _NUMBERS:
        if not fields.get(name, "").isdecimal():
            return f"{name} is no number"
    if int(fields["attempt"]) != len(task.attempts):
        return "attempt does not count its attempts"
    needed = {TaskStatus.PENDING: "due_ms", TaskStatus.QUEUED: "score", TaskStatus.FAILED: "code"}
    missing = needed.get(TaskStatus(fields["status"]))
    return f"has no {missing}" if missing and not fields.get(missing) else ""

"""What an operator looks at, for a recording: attempts, logs, reasons, jobs, histories, pictures; bounded.

What is noted is made into text by who writes the recording, in a thread: nobody who looks waits for that.
"""

from __future__ import annotations

import json
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # nothing of that is needed before somebody records
    from pydantic import BaseModel

    from lcq.models import Event, JobSummary, TaskRecord
    from lcq.reasons import Why
    from lcq.thumbnails import Thumbnail
    from lcq.wire import LogAnswer, TaskLogAnswer, ThumbnailPart, WhyAnswer
    from tui.gallery import Pictures

MOST_LOOKS = 50_000
"""So many are written at most: what a player has to know of them takes some 10 MB."""
PICTURE_PX = 512  # of the longer side, of a picture in a recording
_MOST_WAITING = 2_000
_MOST_CHANGED = 200  # tasks of which it is known that their attempts have changed, and they were not read yet
_AT_A_TIME = 20  # of them are read each second
_ENDED = ("failed", "completed", "cancelled", "pending")


@dataclass(frozen=True)
class Wish:
    """Something to be written; ``make`` tells it as JSON."""

    what: str
    of: str
    make: Callable[[], str]


class Noted:
    """What was looked at and waits to be written, and what is worth a look because it has just changed."""

    def __init__(self, most_bytes: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._most_bytes, self._clock = most_bytes, clock
        self._waiting: deque[Wish] = deque()
        self._seen: dict[tuple[str, str], int] = {}  # what was written last of each, as its hash
        self._due: dict[tuple[str, str], float] = {}
        self._pictured: dict[str, tuple[int, int]] = {}  # by the ids of tasks: the revision, and how large
        self._changed: dict[str, bool] = {}  # by the ids of tasks: whether an attempt has ended
        self._count = self._bytes = 0

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def is_full(self) -> bool:
        """Whether no more is kept: half of the recording's size, or as many as a player can know of."""
        return self._bytes >= self._most_bytes or self._count >= MOST_LOOKS

    def note(self, what: str, of: str, make: Callable[[], str], *, every_s: float = 0.0) -> None:
        """Keep what was seen just now, at most once in ``every_s``; what is as it was is not written again."""
        now = self._clock()
        if self.is_full or len(self._waiting) >= _MOST_WAITING or now < self._due.get((what, of), now):
            return
        if every_s:
            self._due[what, of] = now + every_s
        self._waiting.append(Wish(what, of, make))

    def note_pictures(self, record: TaskRecord, pictures: Pictures) -> None:
        """Keep small copies of a task's pictures, where none as large of this revision are kept."""
        sizes = [max(one.thumbnail.pixels.shape[:2]) for one in pictures.parts.values() if one.thumbnail is not None]
        kept = record.revision, min(PICTURE_PX, max(sizes, default=0))
        if sizes and kept > self._pictured.get(record.id, (-1, 0)) and not self.is_full:
            self._pictured[record.id] = kept
            self.note("pictures", record.id, lambda: packed(record, pictures))

    def note_changed(self, events: Iterable[Event]) -> None:
        """Take note of tasks that are worth a look: an attempt of theirs has begun or ended."""
        for event in events:
            told = event.fields
            if event.move != "submit_task" and told.get("attempt", "0") not in ("", "0") and "id" in told:
                ended = told.get("status") in _ENDED or self._changed.pop(told["id"], False)
                if len(self._changed) < _MOST_CHANGED:
                    self._changed[told["id"]] = ended

    def take_changed(self) -> list[str]:
        """The tasks to be looked at now, those first of which an attempt has ended."""
        if self.is_full:
            return []
        ids = sorted(self._changed, key=lambda one: not self._changed[one])[:_AT_A_TIME]
        for one in ids:
            del self._changed[one]
        return ids

    def made(self) -> Iterator[tuple[str, str, str]]:
        """What waits, as what, of what, and JSON. Reckons with the processor: for a thread."""
        while self._waiting:
            wish = self._waiting.popleft()
            text = wish.make()
            key, kept = (wish.what, wish.of), hash(text)
            if text and self._seen.get(key) != kept and not self.is_full:
                self._seen[key] = kept
                self._count += 1
                yield wish.what, wish.of, text

    def note_written(self, size: int) -> None:
        """So many bytes of the file are what was looked at."""
        self._bytes += size


def listed(models: Iterable[BaseModel]) -> str:
    """A JSON list of them."""
    return f"[{','.join(model.model_dump_json() for model in models)}]"


def log_of(node: str, task: str) -> str:
    """Under which name it is kept what an agent told of a task; ``task`` "": its whole log."""
    return f"{node} {task}".rstrip()


class Overheard:
    """Somebody who is asked for things; what they answer is noted while somebody records. A ``Commander`` itself."""

    def __init__(self, commander: Any, noted: Callable[[], Noted | None]) -> None:
        self._commander, self._noted = commander, noted

    def __getattr__(self, name: str) -> Any:
        return getattr(self._commander, name)

    def _note(self, what: str, of: str, make: Callable[[], str], *, every_s: float = 0.0) -> None:
        noted = self._noted()
        if noted is not None:
            noted.note(what, of, make, every_s=every_s)

    async def why(self, task_id: str) -> Why:
        told: Why = await self._commander.why(task_id)
        self._note("why", task_id, told.model_dump_json)
        return told

    async def whys(self, ids: Sequence[str]) -> Mapping[str, WhyAnswer]:
        told: Mapping[str, WhyAnswer] = await self._commander.whys(ids)
        self._note("whys", "", lambda: listed(told.values()), every_s=5.0)
        return told

    async def jobs(self, name: str) -> Sequence[JobSummary]:
        told: Sequence[JobSummary] = await self._commander.jobs(name)
        self._note("job", name, lambda: listed(told), every_s=5.0)
        return told

    async def read_log(self, node: str, *, after: int = -1, limit: int = 200, task: str = "") -> LogAnswer:
        told: LogAnswer = await self._commander.read_log(node, after=after, limit=limit, task=task)
        if told.lines or after < 0:
            self._note("log", log_of(node, task), told.model_dump_json)
        return told

    async def read_task_log(
        self, task_id: str, *, attempt: int = 0, begin: int = -1, limit: int = 200
    ) -> TaskLogAnswer:
        told: TaskLogAnswer = await self._commander.read_task_log(task_id, attempt=attempt, begin=begin, limit=limit)
        if told.lines:
            self._note("log", log_of(told.node, task_id), lambda: as_log(told).model_dump_json())
        return told


def as_log(told: TaskLogAnswer) -> LogAnswer:
    """What is kept of an attempt, as a part of its node's log: so it is recorded, and found again."""
    from lcq.wire import LogAnswer

    return LogAnswer(node=told.node, boot=f"attempt {told.attempt}", lines=told.lines, last=told.next - 1)


def packed(record: TaskRecord, pictures: Pictures) -> str:
    """A task's pictures as JSON, small: as a node would have sent them."""
    from lcq.wire import ThumbnailAnswer, ThumbnailPart

    parts = {
        part: _packed(part, one.thumbnail) if one.thumbnail is not None else ThumbnailPart(why=one.why[:2000])
        for part, one in pictures.parts.items()
    }
    if not any(part.data for part in parts.values()):
        return ""
    answer = ThumbnailAnswer(parts={str(part): one for part, one in parts.items()})
    return json.dumps({"revision": record.revision, "answer": answer.model_dump(mode="json")})


def _packed(part: str, thumbnail: Thumbnail) -> ThumbnailPart:
    import base64  # here: who shows no picture needs none of it

    from lcq.thumbnails import to_jpeg, to_png
    from lcq.wire import ThumbnailPart
    from tui.pictures import Look, placed_in, sampled

    room = min(PICTURE_PX, max(thumbnail.pixels.shape[:2]))
    pixels = sampled(thumbnail, placed_in(thumbnail.size, (room, room), Look()))
    data = to_png(pixels) if part == "mask" else to_jpeg(pixels)
    width, height = thumbnail.size
    return ThumbnailPart(data=base64.b64encode(data).decode(), width=width, height=height, bytes=thumbnail.file_bytes)

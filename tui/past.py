"""What a replay answers where a scheduler would be asked: what was looked at while it was recorded, or that nobody did.

Nothing can be done to what has been: every act is refused.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NoReturn

from pydantic import TypeAdapter, ValidationError

from lcq.errors import LcqError, NoLog
from lcq.lang import tr
from lcq.models import JobSummary, TaskRecord
from lcq.picture_parts import Part
from lcq.reasons import Why
from lcq.wire import LogAnswer, LogLine, ThumbnailAnswer, ThumbnailPart, WhyAnswer
from tui.looks import log_of

if TYPE_CHECKING:
    from tui.replay import Playback

_FRESH_MS = 60_000  # a reason of what still waits is true no longer
_INPUTS: tuple[Part, ...] = ("before", "mask")
_WHOLE = (0.0, 0.0, 1.0, 1.0)


class IsReplay(LcqError):
    """What has been cannot be changed."""

    def __init__(self) -> None:
        super().__init__("this is a replay: nothing can be done to what has been", hint="leave it with q to act")


class NotRecorded(LcqError):
    """It is not in the recording: nobody looked at it then."""

    def __init__(self, what: str) -> None:
        super().__init__(f"{what} is not in the recording: nobody looked at it by then")


async def refuse(*_: Any, **__: Any) -> NoReturn:
    """Raises:
    IsReplay: always.
    """
    raise IsReplay


class PastCommander:
    """Stands where a scheduler would be asked."""

    def __init__(self, playback: Playback) -> None:
        self._playback = playback
        self._logs: dict[str, tuple[int, LogAnswer]] = {}  # by their names: of how many looks, and all they told

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return refuse

    async def _read(self, what: str, of: str, *, max_age_ms: int | None = None) -> bytes:
        """Raises:
        NotRecorded: nobody looked at it by then, or too long before.
        """
        look = self._playback.recording.looks.last(what, of, self._playback.now_is)
        if look is None or (max_age_ms is not None and self._playback.now_is - look.at_ms > max_age_ms):
            raise NotRecorded(f"{what} {of}".rstrip())
        text = await asyncio.to_thread(self._playback.recording.looks.read, look)
        if not text:
            raise NotRecorded(f"{what} {of}".rstrip())
        return text

    async def why(self, task_id: str) -> Why:
        record = await self._playback.task(task_id)
        look = self._playback.recording.looks.last("why", task_id, self._playback.now_is)
        if look is not None and look.at_ms >= self._playback.changed_ms(task_id):
            age_ms = None if record.status.is_terminal else _FRESH_MS
            why: Why = _valid(Why, await self._read("why", task_id, max_age_ms=age_ms))
            return why
        told = (await self.whys([task_id])).get(task_id)
        if told is None or told.revision != record.revision:
            raise NotRecorded(f"why {task_id}")
        return told.why

    async def whys(self, ids: Sequence[str]) -> Mapping[str, WhyAnswer]:
        told: tuple[WhyAnswer, ...] = _valid(tuple[WhyAnswer, ...], await self._read("whys", "", max_age_ms=_FRESH_MS))
        wanted = set(ids)
        return {one.id: one for one in told if one.id in wanted}

    async def jobs(self, name: str) -> Sequence[JobSummary]:
        found: tuple[JobSummary, ...] = _valid(
            tuple[JobSummary, ...], await self._read("job", name, max_age_ms=_FRESH_MS)
        )
        return found

    # ------------------------------------------------------------ logs

    async def read_log(self, node: str, *, after: int = -1, limit: int = 200, task: str = "") -> LogAnswer:
        """All lines that were read by then, in whatever pieces; where some are missing between them that is a line."""
        name = log_of(node, task)
        looks = self._playback.recording.looks.until("log", name, self._playback.now_is)
        if not looks and task:  # somebody may have read all of the node's
            whole = await self._whole_log(log_of(node, ""))
            lines = tuple(line for line in whole.lines if task in (line.task, *line.text.split())) if whole else ()
            told = whole.model_copy(update={"lines": lines}) if whole is not None and lines else None
        else:
            told = await self._whole_log(name)
        if told is None:
            raise NoLog(node, tr("nobody had looked at it when this was recorded"))
        lines = tuple(line for line in told.lines if line.number > after)
        lines = lines[:limit] if after >= 0 else lines[-limit:]
        last = lines[-1].number if lines and after >= 0 else max(told.last, after)
        return told.model_copy(update={"lines": lines, "last": last})

    async def _whole_log(self, name: str) -> LogAnswer | None:
        looks = self._playback.recording.looks.until("log", name, self._playback.now_is)
        if not looks:
            return None
        count, told = self._logs.get(name, (-1, None))
        if told is None or count != len(looks):
            read = self._playback.recording.looks.read
            texts = await asyncio.to_thread(lambda: [read(look) for look in looks])
            told = _together([_valid(LogAnswer, text) for text in texts if text], " " not in name)
            if told is None:
                return None
            self._logs[name] = (len(looks), told)
        return told

    # ------------------------------------------------------------ pictures

    def has_picture(self, record: TaskRecord, part: Part) -> bool:
        """Whether the recording has that picture: then it is that, and not the file that is there today."""
        told = self._pictures(record)
        return told is not None and bool(told.parts.get(part, ThumbnailPart()).data)

    async def thumbnail(
        self, task_id: str, *, parts: Sequence[Part], longest: int, box: tuple[float, float, float, float]
    ) -> ThumbnailAnswer:
        record = await self._playback.task(task_id)
        told = await asyncio.to_thread(self._pictures, record)
        if told is None or box != _WHOLE:
            raise NotRecorded(tr("a picture of {task_id}", task_id=task_id) if told is None else tr("more of it"))
        none = ThumbnailPart(why=tr("it is not in the recording"))
        return told.model_copy(update={"parts": {part: told.parts.get(part, none) for part in parts}})

    def _pictures(self, record: TaskRecord) -> ThumbnailAnswer | None:
        looks = self._playback.recording.looks
        look = looks.last("pictures", record.id, self._playback.now_is)
        text = looks.read(look) if look is not None else b""
        if look is None or not text:
            return None
        try:
            seen = json.loads(text)
            told = ThumbnailAnswer.model_validate(seen["answer"])
        except (ValidationError, ValueError, KeyError, TypeError):
            return None
        of_now = seen.get("revision") == record.revision
        kept = {name: part for name, part in told.parts.items() if of_now or name in _INPUTS}  # files never change so
        at = datetime.fromtimestamp(look.at_ms / 1000, UTC)
        source = tr("the recording, {at:%H:%M:%S}Z", at=at)
        return told.model_copy(update={"parts": kept, "node": source})


def _valid(kind: Any, text: bytes) -> Any:
    try:
        return TypeAdapter(kind).validate_json(text)
    except ValidationError as error:
        raise NotRecorded(tr("what can be read of it ({kind})", kind=type(error).__name__)) from error


def _together(told: Sequence[LogAnswer], is_whole: bool) -> LogAnswer | None:
    """Pieces of one log as one; of another boot than the last ones only what the last one has. ``is_whole``: its
    numbers have no gaps of their own, as those of a task's lines have."""
    if not told:
        return None
    lines: dict[int, LogLine] = {}
    last = -1
    for piece in (one for one in told if one.boot == told[-1].boot):
        first = piece.lines[0].number if piece.lines else last + 1
        if is_whole and lines and first > last + 1:
            gone = tr("-- {gone} lines were not recorded --", gone=first - last - 1)
            lines[last + 1] = LogLine(
                number=last + 1, at_ms=piece.lines[0].at_ms, source="console", level="WARNING", text=gone
            )
        lines |= {line.number: line for line in piece.lines}
        last = max(last, piece.last, *lines)
    ordered = tuple(lines[number] for number in sorted(lines))
    return told[-1].model_copy(update={"lines": ordered, "first": ordered[0].number if ordered else 0, "last": last})

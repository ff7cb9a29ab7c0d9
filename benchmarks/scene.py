"""A cluster at one moment, kept in a file: what the console's pictures are painted from, each time the same.

It is written down once, from a real cluster (``benchmarks.stage``): its tasks, nodes and queues at that moment, and the
answer to each question that the console asked for a picture. Reading it, time stands still and nothing can be done.
"""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import inspect
import json
import time
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast
from unittest import mock

from pydantic import TypeAdapter

import lcq.alerts.records
import lcq.models
import lcq.reasons
import lcq.spend
import lcq.wire
from lcq.causes import APART
from lcq.errors import AnswerLate, LcqError, SchedulerUnreachable, StateUnavailable, TaskNotFound
from lcq.models import Attempt, Event, NodeRecord, QueueRecord, Task, TaskRecord
from lcq.picture_parts import files_of
from lcq.state.reader import Snapshot
from lcq.task_fields import parse_where
from lcq.wire import EventsAnswer, LogAnswer, ThumbnailAnswer, ThumbnailPart, WhyAnswer
from tui.cluster import Cluster
from tui.source import Link
from tui.spending import DAYS
from tui.store import WAITING

if TYPE_CHECKING:
    from lcq.models import MinuteTally

FILE = Path(__file__).with_name("scene.json.gz")
_QUESTIONS = frozenset({
    "acts", "alerts", "attempts", "budget", "dead", "device_history", "foresee", "info", "jobs", "keys", "minutes",
    "own_key", "read_log", "read_task_log", "schedules", "spend", "spend_of_days", "spend_of_jobs",
    "task_events", "thumbnail", "why", "whys",
})  # fmt: skip
"""What may be asked of the cluster while it is written down: nothing that changes it."""
_REDIS_MS, _CONTROL_MS, _SILENCE_S = 1.2, 2.6, 0.3
_OVERVIEWS = (
    "minutes", "alerts", "info", "budget", "spend", "spend_of_jobs", "schedules", "keys", "own_key",
)  # fmt: skip
_ASKED_AT_ONCE = 50
_BEFORE_MS = 10_000  # a console that has read nothing yet is so much earlier: what it did then is done anew
_LONGEST = 256  # pixels of a small picture that is kept
_PICTURES = 5
_ALL_ACTS = 500
_ASKED_AGAIN = 20


class NotInScene(LcqError):
    """Nobody asked that when the scene was written down."""

    def __init__(self, question: str) -> None:
        super().__init__(f"{question} is not in the scene", hint="write it down anew: benchmarks.screenshots --stage")


@cache
def _kind_of(question: str) -> TypeAdapter[Any]:
    """What that question is answered with, as ``Cluster`` says."""
    told = inspect.signature(getattr(Cluster, question)).return_annotation
    return TypeAdapter(eval(told, {}, _Names()))


class _Names(dict[str, Any]):
    """What the answers are made of, found when it is named."""

    def __missing__(self, name: str) -> Any:
        for module in (lcq.models, lcq.wire, lcq.spend, lcq.reasons, lcq.alerts.records, typing):
            if hasattr(module, name):
                return getattr(module, name)
        raise KeyError(name)


class Scene:
    """Reader and commander of a cluster that stands still. ``live``: whom to ask what is not known yet."""

    def __init__(self, at_ms: int, snapshot: Snapshot, answers: dict[str, Any], live: Cluster | None = None) -> None:
        self.at_ms, self._snapshot, self._answers, self._live = at_ms, snapshot, answers, live
        self._records = {record.id: record for record in snapshot.tasks}

    # ------------------------------------------------------------ made, kept and read

    @classmethod
    async def of(cls, live: Cluster, pictured: Sequence[str], foreseen: Sequence[Task]) -> Scene:
        """The cluster as it is now, and what it answers to all that a console may ask. ``pictured``: filters of tasks
        whose pictures are kept, those of the newest of each; ``foreseen``: tasks that a form asks about."""
        snapshot, at_ms = await live.snapshot(), await live.now_ms()
        scene = cls(at_ms, snapshot, {}, live)
        for question in _OVERVIEWS:  # first: all of the same moment
            await getattr(scene, question)()
        await scene.acts(_ALL_ACTS)
        await scene.spend_of_days(DAYS)
        waiting = [record.id for record in snapshot.tasks if record.status in WAITING]
        for start in range(0, len(waiting), _ASKED_AT_ONCE):
            told = await scene._persist("whys", waiting[start : start + _ASKED_AT_ONCE])
            for one, answer in told.items():
                scene._keep("whys", one, {one: answer})
        for by in ((), *((field,) for field in APART)):
            await scene.dead(by=by)
        for node in snapshot.nodes:
            await scene.device_history(node.id)
            with contextlib.suppress(LcqError):  # one that is down has none
                await scene.read_log(node.id)
        for record in snapshot.tasks:
            await scene.attempts(record.id)
            await scene.task_events(record)
        for job in {record.task.job for record in snapshot.tasks if record.task.job}:
            await scene.jobs(job)
        for where in pictured:
            query = parse_where(where)
            found = [record for record in snapshot.tasks if query.matches(record, at_ms)]
            for record in sorted(found, key=lambda one: one.submitted_ms)[-_PICTURES:]:
                await scene.why(record.id)
                await scene.thumbnail(record.id, parts=tuple(files_of(record)), longest=0, box=(0.0, 0.0, 1.0, 1.0))
        await scene.foresee(foreseen)
        return scene

    def save(self, path: Path = FILE) -> None:
        told = {
            "at_ms": self.at_ms,
            "snapshot": TypeAdapter(Snapshot).dump_python(self._snapshot, mode="json"),
            "answers": dict(sorted(self._answers.items())),
        }
        path.write_bytes(gzip.compress(json.dumps(told, separators=(",", ":")).encode(), 9, mtime=0))

    @classmethod
    def read(cls, path: Path = FILE) -> Scene:
        told = json.loads(gzip.decompress(path.read_bytes()))
        return cls(told["at_ms"], TypeAdapter(Snapshot).validate_python(told["snapshot"]), told["answers"])

    @contextlib.contextmanager
    def time_stands_still(self) -> Iterator[None]:
        """While the block lasts it is the moment of the scene."""
        with (
            mock.patch.object(time, "time_ns", return_value=self.at_ms * 1_000_000),
            mock.patch.object(time, "time", return_value=self.at_ms / 1000),
        ):
            yield

    # ------------------------------------------------------------ the tasks

    async def now_ms(self) -> int:
        return self.at_ms

    async def snapshot(self, limit: int = 0, take: Callable[[Sequence[TaskRecord]], None] | None = None) -> Snapshot:
        if take is not None:
            take(self._snapshot.tasks)
        return self._snapshot

    async def events(self, after: str, wait_ms: int, limit: int) -> EventsAnswer:
        await asyncio.sleep(wait_ms / 1000)
        return EventsAnswer(events=(), last_id=after, gap=False)

    async def tasks(self, ids: Sequence[str]) -> Mapping[str, TaskRecord]:
        return {one: self._records[one] for one in ids if one in self._records}

    async def glances(self, ids: Sequence[str]) -> Sequence[TaskRecord]:
        return tuple((await self.tasks(ids)).values())

    async def task(self, task_id: str) -> TaskRecord:
        if task_id not in self._records:
            raise TaskNotFound(task_id)
        return self._records[task_id]

    # ------------------------------------------------------------ all else

    async def _ask(self, question: str, key: str, *asked: Any, **named: Any) -> Any:
        """The answer that is known under ``key``; where none is, and the cluster is there, its own."""
        name = f"{question} {key}".rstrip()
        if name not in self._answers:
            if self._live is None or question not in _QUESTIONS:
                raise NotInScene(name)
            self._keep(question, key, await self._persist(question, *asked, **named))
        return _kind_of(question).validate_python(self._answers[name])

    async def _persist(self, question: str, *asked: Any, **named: Any) -> Any:
        """Ask the cluster until it answers: the scheduler of a busy machine may be late."""
        for _ in range(_ASKED_AGAIN):
            with contextlib.suppress(AnswerLate, SchedulerUnreachable, StateUnavailable):
                return await getattr(self._live, question)(*asked, **named)
        return await getattr(self._live, question)(*asked, **named)

    def _keep(self, question: str, key: str, answer: Any) -> None:
        self._answers[f"{question} {key}".rstrip()] = _kind_of(question).dump_python(answer, mode="json")

    def __getattr__(self, question: str) -> Callable[..., Any]:
        if question.startswith("_") or not hasattr(Cluster, question):
            raise AttributeError(question)

        async def ask(*asked: Any, **named: Any) -> Any:
            told = [str(one) for one in (*asked, *(value for value in named.values() if value))]
            return await self._ask(question, " ".join(told), *asked, **named)

        return ask

    async def nodes(self) -> Sequence[NodeRecord]:
        return self._snapshot.nodes

    async def queues(self, nodes: object = None) -> Sequence[QueueRecord]:
        return self._snapshot.queues

    async def minutes(self, count: int = 60) -> Sequence[MinuteTally]:
        found = await self._ask("minutes", "")
        return cast("Sequence[MinuteTally]", found[-count:])

    async def acts(self, limit: int, before: str = "") -> Any:
        found = await self._ask("acts", "", _ALL_ACTS)
        places = [place + 1 for place, act in enumerate(found) if act.id == before]
        return found[places[0] :][:limit] if places else () if before else found[:limit]

    async def dead(self, *, by: Sequence[str] = ()) -> Any:
        return await self._ask("dead", " ".join(by), by=by)

    async def attempts(self, task_id: str) -> Sequence[Attempt]:
        found: Sequence[Attempt] = await self._ask("attempts", task_id, task_id)
        return found[: self._records[task_id].attempt]

    async def task_events(self, record: TaskRecord, *, limit: int = 200) -> Sequence[Event]:
        found: Sequence[Event] = await self._ask("task_events", record.id, record)
        return [event for event in found if event.at_ms <= self.at_ms][-limit:]

    async def whys(self, ids: Sequence[str]) -> Mapping[str, WhyAnswer]:
        told: dict[str, WhyAnswer] = {}
        for one in ids:  # each by itself: another size of the screen has others in sight
            told |= await self._ask("whys", one, [one])
        return told

    async def read_log(self, node: str, *, after: int = -1, limit: int = 200, task: str = "") -> LogAnswer:
        found: LogAnswer = await self._ask("read_log", f"{node} {task}", node, limit=limit, task=task)
        lines = tuple(line for line in found.lines if line.at_ms <= self.at_ms and line.number > after)
        return found.model_copy(update={"lines": lines, "last": max(after, *(line.number for line in lines), -1)})

    async def foresee(self, tasks: Sequence[Any], *, queue: str = "") -> Any:
        return await self._ask("foresee", f"{len(tasks)} {queue}", tasks, queue=queue)

    async def thumbnail(
        self, task_id: str, *, parts: Sequence[str], longest: int, box: tuple[float, float, float, float]
    ) -> ThumbnailAnswer:
        """One size of each picture is kept."""
        told: dict[str, ThumbnailPart] = {}
        node = ""
        for part in parts:
            place = " ".join(f"{edge:.4f}" for edge in box)
            found: ThumbnailAnswer = await self._ask(
                "thumbnail", f"{task_id} {part} {place}", task_id, parts=(part,), longest=_LONGEST, box=box
            )
            told |= found.parts
            node = node or found.node
        return ThumbnailAnswer(parts=told, node=node)


class StillLink(Link):
    """How fresh a scene is: always alike."""

    def feel_control(self, took_ms: float) -> None:
        super().feel_control(_CONTROL_MS)

    @property
    def redis_ms(self) -> float | None:
        return _REDIS_MS

    @redis_ms.setter
    def redis_ms(self, took_ms: float | None) -> None:
        pass

    @property
    def silence_s(self) -> float:
        return _SILENCE_S if self.loaded else super().silence_s

    @property
    def now_ms(self) -> int:
        return super().now_ms - (0 if self.loaded else _BEFORE_MS)

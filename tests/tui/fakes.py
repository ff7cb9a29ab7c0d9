"""A cluster in memory: what the console reads and commands, moved by the tests (and by the demo) alone."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar

from lcq.alerts.records import AlertRecord, Alerts, AlertStatus, Silence
from lcq.causes import in_common, size_class
from lcq.config import BudgetConfig
from lcq.errors import AmbiguousId, JobNotFound, LcqError, StateUnavailable, TaskNotFound, UnknownCommand
from lcq.key_record import KeyRecord
from lcq.models import (
    DEFAULT_QUEUES,
    ActRecord,
    Attempt,
    Cause,
    Device,
    DeviceKind,
    DeviceSample,
    ErrorClass,
    Event,
    Failure,
    JobSummary,
    MinuteTally,
    ModelOffer,
    NodeCapability,
    NodeRecord,
    NodeStatus,
    Note,
    Privacy,
    QueueRecord,
    Task,
    TaskPriority,
    TaskRecord,
    TaskStatus,
    TaskType,
)
from lcq.picture_parts import Part
from lcq.reasons import Why
from lcq.spend import Book, Spend
from lcq.task_fields import parse_where
from lcq.wire import (
    Accepted,
    BulkAnswer,
    DeadAnswer,
    EventsAnswer,
    ForeseeAnswer,
    Foreseen,
    InfoAnswer,
    KeyAnswer,
    KeysAnswer,
    ListTasksAnswer,
    LogAnswer,
    LogLine,
    Refusal,
    SpendAnswer,
    SpendBook,
    SubmitAnswer,
    TaskLogAnswer,
    ThumbnailAnswer,
    ThumbnailPart,
    WhyAnswer,
)
from lcq.wire.schedules import RanSchedule, ScheduleRecord, SchedulesAnswer, WindowRecord
from tui.submitting import Sent, Wish


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def a_task(
    image: str = "/photos/cover.jpg", *, status: TaskStatus = TaskStatus.QUEUED, queue: str = "cpu-light", **more: Any
) -> TaskRecord:
    """A task's record; ``more`` are fields of the record, or of its task where they begin with ``task_``."""
    of_task = {name.removeprefix("task_"): more.pop(name) for name in list(more) if name.startswith("task_")}
    task = Task(task_type=TaskType.INPAINT, image_path=image, **of_task)
    values: dict[str, Any] = {
        "task": task, "status": status, "revision": 1, "queue": queue, "priority": TaskPriority.NORMAL,
        "submitted_ms": now_ms(), "updated_ms": now_ms(),
    }  # fmt: skip
    return TaskRecord(**(values | more))


def a_failure(message: str = "CUDA out of memory", code: str = "out_of_memory") -> Failure:
    return Failure(error_class=ErrorClass.RESOURCE, code=code, message=message)


def a_node(name: str = "gpu-1", *, status: NodeStatus = NodeStatus.ONLINE, **more: Any) -> NodeRecord:
    capability = NodeCapability(
        devices=(Device(id="cpu", kind=DeviceKind.CPU, name="EPYC 7402", slots=4, cores=8, memory_mib=16_000),),
        models=dict.fromkeys(("cv2-telea", "cv2-ns"), ModelOffer(kinds=(DeviceKind.CPU,))),
        host=f"{name}.studio",
        version="0.1.0",
    )
    values: dict[str, Any] = {
        "id": name, "boot_id": "b1", "status": status, "capability": capability,
        "serves": {"cpu": ("cpu-intensive", "cpu-light")}, "registered_ms": now_ms(), "seen_ms": now_ms(),
    }  # fmt: skip
    return NodeRecord(**(values | more))


@dataclass(frozen=True)
class FakeSnapshot:
    tasks: tuple[TaskRecord, ...]
    nodes: tuple[NodeRecord, ...]
    queues: tuple[QueueRecord, ...]
    last_event_id: str
    total_tasks: int


class FakeCluster:
    """Reader and commander of one cluster that lives in this object.

    ``calls`` lists the commands that arrived. With ``trouble`` set, everything raises it; with ``silent``
    set, nothing answers.
    """

    def __init__(
        self, tasks: Iterable[TaskRecord] = (), nodes: Iterable[NodeRecord] = (), *, total: int | None = None
    ) -> None:
        self.records = {record.id: record for record in tasks}
        self.node_records = {record.id: record for record in nodes}
        self.paused: dict[str, str] = {}
        self.history: dict[str, list[Attempt]] = {}
        self.reasons: dict[str, Why] = {}
        self.looks: list[tuple[str, tuple[str, ...], int, tuple[float, float, float, float]]] = []
        self.thumbnails: dict[tuple[str, str], ThumbnailPart] = {}
        self.thumbnail_trouble: LcqError | None = None
        self.shutter = asyncio.Event()  # not set: pictures never come
        self.shutter.set()
        self.whys_trouble: LcqError | None = None
        self.asked: list[tuple[str, ...]] = []  # of which tasks the reasons were asked, for the list
        self.job_summaries: dict[str, JobSummary] = {}
        self.log: list[Event] = []
        self.calls: list[tuple[str, Any]] = []
        self.reasons_given: list[str] = []  # of the acts on tasks
        self.tallies: list[MinuteTally] = []
        self.samples: dict[str, dict[str, tuple[DeviceSample, ...]]] = {}  # node -> device -> its last hour
        self.known: dict[str, Note] = {}  # causes that somebody has acknowledged, by their codes
        self.logs: dict[str, list[LogLine]] = {}  # node -> what its agent has
        self.task_logs: dict[str, dict[int, TaskLogAnswer | LcqError]] = {}  # task, attempt -> what its node has kept
        self.boots: dict[str, str] = {}
        self.log_trouble: LcqError | None = None
        self.audit: list[ActRecord] = []  # the newest first
        self.schedule_records: dict[str, ScheduleRecord] = {}
        self.windows: tuple[WindowRecord, ...] = ()
        self.key_records: dict[str, KeyRecord] = {}
        self.key = ""  # by which the console asks
        self.books = Spend(BudgetConfig(currency="USD"))  # of this hour, today and this month
        self.day_books: dict[str, Book] = {}
        self.job_books: dict[str, Book] = {}
        self.limits = BudgetConfig(currency="USD")
        self.alert_records: dict[str, AlertRecord] = {}
        self.silences: dict[str, Silence] = {}
        self.snapshots = 0
        self.trouble: LcqError | None = None
        self.act_trouble: LcqError | None = None
        self.config_error = ""
        self.silent = False
        self.control_silent = False
        self.page_size = 10
        self.skew_ms = 0
        self.gap = False
        self._total = total
        self._serial = 0
        self._news = asyncio.Event()

    # ------------------------------------------------------------ what the tests do to it

    def emit(self, move: str, /, **fields: object) -> Event:
        """One event, as a move's script would write it."""
        self._serial += 1
        event = Event(
            id=f"{now_ms()}-{self._serial}", move=move, fields={name: str(value) for name, value in fields.items()}
        )
        self.log.append(event)
        self._news.set()
        return event

    def change(self, task_id: str, move: str, *, extra: dict[str, object] | None = None, **fields: Any) -> TaskRecord:
        """Move a task on: its record with ``fields`` changed, one revision further, and the event of it."""
        record = self.records[task_id]
        record = record.model_copy(update={**fields, "revision": record.revision + 1, "updated_ms": now_ms()})
        self.records[task_id] = record
        self.emit(move, **self._fields(record), **(extra or {}))
        return record

    def add(self, record: TaskRecord) -> TaskRecord:
        self.records[record.id] = record
        task = record.task
        self.emit(
            "submit_task", **self._fields(record), model=task.model, user=task.user_id, job=task.job or "",
            image=task.image_path, submitted_ms=record.submitted_ms,
        )  # fmt: skip
        return record

    def alert(self, rule: str, subject: str = "", text: str = "something is wrong", **more: Any) -> AlertRecord:
        """One that has just begun, and its event."""
        values = {"status": AlertStatus.FIRING, "since_ms": now_ms(), "fired_ms": now_ms()} | more
        record = AlertRecord(rule=rule, subject=subject, text=text, **values)
        self.alert_records[record.name] = record
        self.emit("note_alerts", alert=rule, subject=subject, happening="firing")
        return record

    def forget(self, task_id: str) -> None:
        del self.records[task_id]
        self.emit("forget_tasks", id=task_id)

    @staticmethod
    def _fields(record: TaskRecord) -> dict[str, object]:
        return {
            "id": record.id, "status": record.status, "rev": record.revision, "queue": record.queue,
            "node": record.node, "attempt": record.attempt, "priority": record.priority, "why": record.why,
        }  # fmt: skip

    # ------------------------------------------------------------ reader

    async def _answerable(self) -> None:
        if self.silent:
            await asyncio.Event().wait()  # as a server does that was stopped: for ever
        if self.trouble is not None:
            raise self.trouble

    async def now_ms(self) -> int:
        await self._answerable()
        return now_ms() + self.skew_ms

    async def info(self) -> InfoAnswer:
        """A scheduler that answers, whatever its Redis does."""
        if self.control_silent:
            await asyncio.Event().wait()
        if self.act_trouble is not None:
            raise self.act_trouble
        return InfoAnswer(
            scheduler_id="s1", version="0.1.0", protocol=1, redis="redis://", queues=DEFAULT_QUEUES,
            last_event_id="0-0", pid=1, config_error=self.config_error,
        )  # fmt: skip

    async def snapshot(
        self, limit: int = 200_000, take: Callable[[Sequence[TaskRecord]], None] | None = None
    ) -> FakeSnapshot:
        await self._answerable()
        self.snapshots += 1
        self.gap = False
        tasks = sorted(self.records.values(), key=lambda record: record.id, reverse=True)[:limit]
        last = self.log[-1].id if self.log else "0-0"
        total = len(self.records) if self._total is None else self._total
        if take is not None:
            take(tasks)
            tasks = []
        return FakeSnapshot(tuple(tasks), await self.nodes(), await self.queues(), last, total)

    async def events(self, after: str, wait_ms: int, limit: int) -> EventsAnswer:
        await self._answerable()
        found = self._after(after)
        if not found:
            self._news.clear()
            try:
                await asyncio.wait_for(self._news.wait(), wait_ms / 1000)
            except TimeoutError:
                pass
            await self._answerable()
            found = self._after(after)
        found = found[:limit]
        return EventsAnswer(events=tuple(found), last_id=found[-1].id if found else after, gap=self.gap)

    def _after(self, after: str) -> list[Event]:
        ids = [event.id for event in self.log]
        return self.log[ids.index(after) + 1 :] if after in ids else list(self.log)

    async def tasks(self, ids: Sequence[str]) -> dict[str, TaskRecord]:
        await self._answerable()
        return {task_id: self.records[task_id] for task_id in ids if task_id in self.records}

    async def glances(self, ids: Sequence[str]) -> list[TaskRecord]:
        return list((await self.tasks(ids)).values())

    async def nodes(self) -> tuple[NodeRecord, ...]:
        await self._answerable()
        return tuple(self.node_records.values())

    async def queues(self, nodes: Sequence[NodeRecord] | None = None) -> tuple[QueueRecord, ...]:
        await self._answerable()
        out = []
        tally = Counter((record.queue, record.status) for record in self.records.values())
        for config in DEFAULT_QUEUES:
            counts = {status: tally[config.name, status] for status in TaskStatus}
            serving = [
                node.id for node in self.node_records.values()
                if any(config.name in queues for queues in node.serves.values())
            ]  # fmt: skip
            out.append(
                QueueRecord(
                    config=config, paused=config.name in self.paused, paused_by="maria",
                    paused_reason=self.paused.get(config.name, ""), paused_ms=now_ms(), counts=counts,
                    oldest_queued_ms=now_ms() - 90_000 if counts[TaskStatus.QUEUED] else None, nodes=tuple(serving),
                )
            )  # fmt: skip
        return tuple(out)

    async def task(self, task_id: str) -> TaskRecord:
        await self._answerable()
        if task_id not in self.records:
            raise TaskNotFound(task_id)
        return self.records[task_id]

    async def attempts(self, task_id: str) -> tuple[Attempt, ...]:
        await self._answerable()
        return tuple(self.history.get(task_id, ()))

    async def task_events(self, record: TaskRecord, *, limit: int = 200) -> tuple[Event, ...]:
        await self._answerable()
        return tuple(event for event in self.log if event.fields.get("id") == record.id)[-limit:]

    async def spend(self) -> Spend:
        await self._answerable()
        return self.books

    async def spend_of_days(self, days: int) -> dict[str, Book]:
        await self._answerable()
        return dict(list(self.day_books.items())[:days])

    async def spend_of_jobs(self, limit: int = 200) -> dict[str, Book]:
        return dict(list(self.job_books.items())[:limit])

    # ------------------------------------------------------------ commander

    async def _called(self, name: str, *what: Any) -> None:
        if self.act_trouble is not None:
            raise self.act_trouble
        self.calls.append((name, what[0] if len(what) == 1 else what))

    def _bulk(
        self, ids: Sequence[str], revisions: Sequence[int], do: Callable[[TaskRecord], TaskRecord | None]
    ) -> BulkAnswer:
        done, refused = [], []
        for task_id, revision in zip(ids, revisions, strict=True):
            record = self.records.get(task_id)
            if record is None:
                refused.append(Refusal(id=task_id, code="task_not_found", message=f"no task {task_id!r}"))
            elif record.revision != revision or do(record) is None:
                refused.append(Refusal(id=task_id, code="transition_refused", message=f"it is {record.status} by now"))
            else:
                done.append(task_id)
        return BulkAnswer(
            done=tuple(done), revisions=tuple(self.records[one].revision for one in done), refused=tuple(refused),
            acts=tuple(f"act of {one}" for one in done[:1]),
        )  # fmt: skip

    async def minutes(self, count: int = 60) -> tuple[MinuteTally, ...]:
        await self._answerable()
        newest = self.tallies[-1].minute if self.tallies else 0
        told = {one.minute: one for one in self.tallies}
        return tuple(told.get(minute, MinuteTally(minute=minute)) for minute in range(newest - count + 1, newest + 1))

    async def device_history(self, node: str) -> dict[str, tuple[DeviceSample, ...]]:
        await self._answerable()
        return self.samples.get(node, {})

    async def dead(self, *, by: Sequence[str] = ()) -> DeadAnswer:
        await self._answerable()
        failed = [record for record in self.records.values() if record.failure is not None]
        groups: dict[tuple[str, ...], list[TaskRecord]] = {}
        for record in failed:
            assert record.failure is not None
            text = in_common(record.failure.message, paths=(record.task.image_path,))
            has = {"model": record.task.model, "node": record.node, "size": size_class(record.size)}
            groups.setdefault((record.failure.code, text, *(has[name] for name in by)), []).append(record)
        causes = (
            Cause(
                error_class=members[0].failure.error_class,  # type: ignore[union-attr]
                code=code, text=text, count=len(members), newest=members[-1].id, newest_ms=now_ms(),
                oldest_ms=now_ms() - 60_000, acknowledged=self.known.get(code),
                nodes=tuple({record.node for record in members if record.node}), of=dict(zip(by, of, strict=True)),
            )
            for (code, text, *of), members in groups.items()
        )  # fmt: skip
        return DeadAnswer(causes=tuple(causes), total=len(failed), looked_at=len(failed))

    async def alerts(self) -> Alerts:
        await self._answerable()
        return Alerts(
            alerts=tuple(self.alert_records.values()), silences=tuple(self.silences.values()), now_ms=now_ms()
        )

    async def acts(self, limit: int, before: str = "") -> tuple[ActRecord, ...]:
        await self._answerable()
        start = [act.id for act in self.audit].index(before) + 1 if before else 0
        return tuple(self.audit[start : start + limit])

    async def find(self, typed: str) -> str:
        await self._answerable()
        begun = [one for one in sorted(self.records) if one.startswith(typed)]
        if len(begun) > 1:
            raise AmbiguousId(typed, begun)
        if not begun:
            raise TaskNotFound(typed)
        return begun[0]

    async def why(self, task_id: str) -> Why:
        await self._answerable()
        if task_id not in self.reasons:
            raise TaskNotFound(task_id)
        return self.reasons[task_id]

    async def whys(self, ids: Sequence[str]) -> dict[str, WhyAnswer]:
        await self._answerable()
        self.asked.append(tuple(ids))
        if self.whys_trouble is not None:
            raise self.whys_trouble
        found = {task_id: self.records[task_id] for task_id in ids if task_id in self.reasons}
        return {
            task_id: WhyAnswer(id=task_id, status=one.status, why=self.reasons[task_id], revision=one.revision)
            for task_id, one in found.items()
        }

    async def read_log(self, node: str, *, after: int = -1, limit: int = 200, task: str = "") -> LogAnswer:
        await self._answerable()
        if self.log_trouble is not None:
            raise self.log_trouble
        known = self.logs.get(node, [])
        lines = [line for line in known if line.number > after and (not task or task in (line.task, line.text))]
        lines = lines[-limit:] if after < 0 else lines[:limit]
        first, last = (known[0].number, known[-1].number) if known else (0, -1)
        return LogAnswer(node=node, boot=self.boots.get(node, "b1"), lines=tuple(lines), first=first, last=last)

    async def read_task_log(
        self, task_id: str, *, attempt: int = 0, begin: int = -1, limit: int = 200
    ) -> TaskLogAnswer:
        await self._answerable()
        if task_id not in self.task_logs:
            raise UnknownCommand("an older scheduler")
        told = self.task_logs[task_id].get(attempt or max(self.task_logs[task_id]))
        if isinstance(told, LcqError):
            raise told
        assert told is not None
        lines = told.lines[-limit:] if begin < 0 else [line for line in told.lines if line.number >= begin][:limit]
        after = [line.number for line in told.lines if lines and line.number > lines[-1].number]
        return told.model_copy(update={"lines": tuple(lines), "next": after[0] if after else told.size})

    async def jobs(self, name: str) -> tuple[JobSummary, ...]:
        await self._answerable()
        if name not in self.job_summaries:
            raise JobNotFound(name)
        return (self.job_summaries[name],)

    async def thumbnail(
        self, task_id: str, *, parts: Sequence[Part], longest: int, box: tuple[float, float, float, float]
    ) -> ThumbnailAnswer:
        self.looks.append((task_id, tuple(parts), longest, box))
        await self.shutter.wait()
        if self.thumbnail_trouble is not None:
            raise self.thumbnail_trouble
        gone = ThumbnailPart(why="no such file on this node")
        told = {part: self.thumbnails.get((task_id, part), gone) for part in parts}
        return ThumbnailAnswer(parts=told, node="gpu-1")

    async def submit(self, task: Task, *, queue: str = "") -> Accepted:
        await self._called("submit", task, queue)
        record = TaskRecord(
            task=task, status=TaskStatus.QUEUED, revision=1, queue=queue or "cpu-light", priority=task.priority,
            submitted_ms=now_ms(),
        )  # fmt: skip
        self.add(record)
        return Accepted(id=task.id, queue=record.queue, status=record.status)

    async def foresee(self, tasks: Sequence[Task], *, queue: str = "") -> ForeseeAnswer:
        await self._answerable()
        worst = 0.3 * sum(task.privacy is Privacy.EXPORTABLE for task in tasks)
        found = Foreseen(
            queue=queue or "cpu-light", count=len(tasks), seconds=2.0 * len(tasks), done_s=30.0, worst_cost=worst
        )
        return ForeseeAnswer(foreseen=(found,), currency="EUR")

    async def submit_folder(self, wish: Wish) -> Sent:
        await self._called("submit_folder", wish)
        return Sent("job-of-it", (Accepted(id="0" * 16, queue="cpu-light", status=TaskStatus.QUEUED),), (), 2)

    async def submit_many(
        self, tasks: Sequence[Task], *, queue: str = "", node: str = "", reason: str = ""
    ) -> SubmitAnswer:
        await self._called("submit_many", tuple(tasks), queue, node)
        accepted = []
        for task in tasks:
            record = self.add(a_task(task.image_path, queue=queue or "cpu-light").model_copy(update={"task": task}))
            accepted.append(Accepted(id=task.id, queue=record.queue, status=record.status))
        return SubmitAnswer(accepted=tuple(accepted))

    async def retry(self, ids: Sequence[str], *, revisions: Sequence[int], reason: str = "") -> BulkAnswer:
        await self._called("retry", tuple(ids))
        self.reasons_given.append(reason)

        def again(record: TaskRecord) -> TaskRecord | None:
            if not record.status.is_terminal:
                return None
            return self.change(record.id, "retry_task", status=TaskStatus.QUEUED, failure=None, node="")

        return self._bulk(ids, revisions, again)

    async def cancel(self, ids: Sequence[str], *, revisions: Sequence[int], reason: str = "") -> BulkAnswer:
        await self._called("cancel", tuple(ids))
        self.reasons_given.append(reason)

        def stop(record: TaskRecord) -> TaskRecord | None:
            if record.status.is_terminal:
                return None
            return self.change(record.id, "cancel_task", status=TaskStatus.CANCELLED, why="by maria", node="")

        return self._bulk(ids, revisions, stop)

    async def reroute(
        self, ids: Sequence[str], *, revisions: Sequence[int], queue: str = "", node: str = "", reason: str = ""
    ) -> BulkAnswer:
        await self._called("reroute", tuple(ids), queue, node)
        self.reasons_given.append(reason)
        return self._bulk(
            ids, revisions, lambda record: self.change(record.id, "reroute_task", queue=queue or record.queue)
        )

    async def prioritise(
        self, ids: Sequence[str], priority: TaskPriority, *, revisions: Sequence[int], reason: str = ""
    ) -> BulkAnswer:
        await self._called("prioritise", tuple(ids), priority)
        self.reasons_given.append(reason)
        return self._bulk(ids, revisions, lambda record: self.change(record.id, "prioritise_task", priority=priority))

    async def set_deadline(
        self, ids: Sequence[str], deadline: datetime | None, *, revisions: Sequence[int], reason: str = ""
    ) -> BulkAnswer:
        await self._called("set_deadline", tuple(ids), deadline)
        self.reasons_given.append(reason)

        def change(record: TaskRecord) -> TaskRecord:
            task = record.task.model_copy(update={"deadline": deadline})
            return self.change(record.id, "set_deadline", extra={"done_by_ms": task.deadline_ms or ""}, task=task)

        return self._bulk(ids, revisions, change)

    async def set_privacy(
        self, ids: Sequence[str], privacy: Privacy, *, revisions: Sequence[int], reason: str = ""
    ) -> BulkAnswer:
        await self._called("set_privacy", tuple(ids), privacy)
        self.reasons_given.append(reason)
        seen = revisions or [self.records[one].revision for one in ids]

        def change(record: TaskRecord) -> TaskRecord:
            task = record.task.model_copy(update={"privacy": privacy})
            return self.change(record.id, "set_privacy", extra={"privacy": privacy}, task=task)

        return self._bulk(ids, seen, change)

    async def comment(self, ids: Sequence[str], text: str) -> BulkAnswer:
        await self._called("comment", tuple(ids), text)
        for task_id in ids:
            record = self.records[task_id]
            note = Note(at_ms=now_ms(), actor="maria", text=text)
            self.records[task_id] = record.model_copy(update={"notes": (*record.notes, note)})
            self.emit("comment_task", task=task_id, actor="maria", note=text)
        return BulkAnswer(done=tuple(ids), acts=(f"act of comment {ids[0]}",))

    async def acknowledge(self, cause: str, text: str, *, note: str = "", withdraw: bool = False) -> str:
        await self._called("acknowledge", cause, text, note, withdraw)
        if withdraw:
            self.known.pop(cause, None)
        else:
            self.known[cause] = Note(at_ms=now_ms(), actor="maria", text=note)
        return f"act of {cause}"

    async def silence(self, rule: str, *, seconds: float, subject: str = "", reason: str = "") -> str:
        await self._called("silence", rule, subject, seconds, reason)
        one = Silence(rule=rule, subject=subject, until_ms=now_ms() + int(seconds * 1000), actor="maria", reason=reason)
        self.silences[one.name] = one
        self.emit("silence_alert", alert=one.name)
        return f"act of {one.name}"

    async def unsilence(self, rule: str, *, subject: str = "", reason: str = "") -> str:
        await self._called("unsilence", rule, subject)
        name = f"{rule}/{subject}" if subject else rule
        del self.silences[name]
        self.emit("silence_alert", alert=name)
        return f"act of {name}"

    async def undo(self, act: str) -> BulkAnswer:
        await self._called("undo", act)
        return BulkAnswer(done=(act.removeprefix("act of "),))

    async def pause(self, queue: str, *, reason: str = "") -> str:
        await self._called("pause", queue, reason)
        self.paused[queue] = reason
        self.emit("pause_queue", queue=queue, why=f"paused by maria: {reason}")
        return f"act of queue {queue}"

    async def resume(self, queue: str, *, reason: str = "") -> str:
        await self._called("resume", queue)
        self.paused.pop(queue, None)
        self.emit("resume_queue", queue=queue, why="resumed by maria")
        return f"act of queue {queue}"

    async def drain(self, node: str, *, deadline_s: float | None = None, reason: str = "") -> None:
        await self._called("drain", node, reason, *([deadline_s] if deadline_s is not None else []))
        self._set_node(node, NodeStatus.DRAINING, reason, "drain_node")

    async def activate(self, node: str, *, reason: str = "") -> None:
        await self._called("activate", node)
        self._set_node(node, NodeStatus.ONLINE, "", "activate_node")

    async def block(self, node: str, *, reason: str = "") -> None:
        await self._called("block", node, reason)
        self._set_node(node, NodeStatus.QUARANTINED, reason, "quarantine_node")

    async def stop_node(self, node: str, *, deadline_s: float | None = None, reason: str = "") -> None:
        await self._called("stop_node", node, reason)
        self._set_node(node, NodeStatus.OFFLINE, reason, "leave_node")

    async def page(self, where: str = "", *, limit: int = 100, cursor: str = "") -> ListTasksAnswer:
        """As the scheduler answers it, a few records at a time."""
        await self._answerable()
        if self.act_trouble is not None:
            raise self.act_trouble
        ids = sorted((one for one in self.records if not cursor or one < cursor), reverse=True)
        looked_at = ids[: min(limit, self.page_size)]
        query = parse_where(where)
        found = tuple(self.records[one] for one in looked_at if query.matches(self.records[one], now_ms()))
        return ListTasksAnswer(
            tasks=found, total=len(self.records), looked_at=len(looked_at),
            cursor=looked_at[-1] if len(looked_at) < len(ids) else "",
        )  # fmt: skip

    async def matching(self, where: str) -> AsyncIterator[TaskRecord]:
        await self._answerable()
        query = parse_where(where)
        for record in list(self.records.values()):
            if query.matches(record, now_ms()):
                yield record

    async def budget(self) -> SpendAnswer:
        if self.act_trouble is not None:
            raise self.act_trouble
        spans = ("hour", "day", "month")
        return SpendAnswer(
            currency=self.limits.currency,
            now=tuple(SpendBook(name=span, limit=getattr(self.limits, span)) for span in spans),
            job_limit=self.limits.job, user_limit=self.limits.user_day,
        )  # fmt: skip

    async def schedules(self) -> SchedulesAnswer:
        await self._answerable()
        return SchedulesAnswer(schedules=tuple(self.schedule_records.values()), windows=self.windows)

    async def run_schedule(self, name: str, *, reason: str = "") -> RanSchedule:
        await self._called("run_schedule", name, reason)
        return RanSchedule(job=f"{name} now", accepted=3, there=1)

    async def pause_schedule(self, name: str, *, reason: str = "") -> None:
        await self._called("pause_schedule", name, reason)
        changes = {"paused_by": "maria", "paused_reason": reason, "next_ms": ()}
        self.schedule_records[name] = self.schedule_records[name].model_copy(update=changes)

    async def resume_schedule(self, name: str, *, reason: str = "") -> None:
        await self._called("resume_schedule", name)
        changes = {"paused_by": "", "paused_reason": "", "next_ms": (now_ms() + 3_600_000,)}
        self.schedule_records[name] = self.schedule_records[name].model_copy(update=changes)

    async def keys(self) -> KeysAnswer:
        await self._answerable()
        return KeysAnswer(keys=tuple(self.key_records.values()), server_keys=("f" * 64,), now_ms=now_ms())

    async def own_key(self) -> str:
        return self.key

    async def revoke_key(self, key: str, *, reason: str = "") -> KeyAnswer:
        await self._called("revoke_key", key, reason)
        changes = {"revoked_ms": now_ms(), "revoked_by": "maria", "reason": reason}
        self.key_records[key] = self.key_records[key].model_copy(update=changes)
        return KeyAnswer(record=self.key_records[key])

    def _set_node(self, node: str, status: NodeStatus, why: str, move: str) -> None:
        record = self.node_records[node]
        self.node_records[node] = record.model_copy(update={"status": status, "why": why})
        self.emit(move, node=node, status=status, why=why)


REDIS_AWAY = StateUnavailable("redis://localhost:6379/0", "Connection refused")


RecordT = TypeVar("RecordT", Task, TaskRecord)


def _like(model: RecordT, **changes: object) -> RecordT:
    """A copy with ``changes``, unchecked: what model_copy does, ten times as fast."""
    twin = object.__new__(type(model))
    object.__setattr__(twin, "__dict__", model.__dict__ | changes)
    object.__setattr__(twin, "__pydantic_fields_set__", model.__pydantic_fields_set__)
    object.__setattr__(twin, "__pydantic_extra__", None)
    object.__setattr__(twin, "__pydantic_private__", None)
    return twin


def many_tasks(count: int) -> list[TaskRecord]:
    """Records that differ in what a table shows."""
    base, start, statuses = a_task(), now_ms() - count, list(TaskStatus)
    return [
        _like(
            base,
            task=_like(base.task, id=f"{number:016d}", image_path=f"/photos/{number:06d}.jpg"),
            status=statuses[number % 6],
            submitted_ms=start + number,
        )
        for number in range(count)
    ]

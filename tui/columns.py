"""What each table shows: its columns, how wide, in which tone, by what they sort, what a filter may name."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, Generic, Literal

from lcq.act_fields import act_fields_over
from lcq.lang import N, retold, tr
from lcq.models import NodeStatus, TaskPriority, TaskStatus
from lcq.query import Kind, QueryField
from lcq.task_fields import NEEDS, fields_over, late_ms, megapixels, needed, size_of, told_late, took_ms
from tui.store import WAITING, ActRow, CauseRow, NodeRow, QueueRow, RowT, TaskRow
from tui.text import basename, cells, compact, long_span, span

Tone = Literal["plain", "dim", "good", "bad", "warn", "run", "strong"]
Cell = tuple[str, Tone]


@dataclass(frozen=True)
class Column(Generic[RowT]):
    """One column. ``rank`` says what goes first when there is no room: the greatest number.

    A ``live`` column changes by itself with the clock or with progress; these stand on the left, because
    the terminal is sent a changed line from its left edge to the change.
    """

    id: str
    title: str
    width: int
    cell: Callable[[RowT, int], Cell]  # of the row, at a time in ms since 1970 by Redis's clock
    sort: Callable[[RowT], Any]
    rank: int = 0
    live: bool = False
    right: bool = False
    most: int = 0  # it may grow to so many cells where there is room
    snug: bool = False  # of names and lists: no wider than what is in it, where that is soon looked through
    extra: bool = False  # shown only where somebody has chosen it

    @property
    def shown_title(self) -> str:
        """Its head in the language that is spoken."""
        return tr(self.title)


def named(*fields: QueryField[RowT]) -> dict[str, QueryField[RowT]]:
    return {field.name: field for field in fields}


# ---------------------------------------------------------------- tasks

TASK_LOOK: dict[TaskStatus, tuple[str, Tone]] = {
    TaskStatus.PENDING: ("~", "warn"),
    TaskStatus.QUEUED: (".", "plain"),
    TaskStatus.PROCESSING: (">", "run"),
    TaskStatus.COMPLETED: ("#", "good"),
    TaskStatus.FAILED: ("x", "bad"),
    TaskStatus.CANCELLED: ("-", "dim"),
}
STATE_WORDS = (
    N("PENDING"), N("QUEUED"), N("PROCESSING"), N("COMPLETED"), N("FAILED"), N("CANCELLED"),
    N("pending"), N("queued"), N("processing"), N("completed"), N("failed"), N("cancelled"), N("running"),
    N("ONLINE"), N("SUSPECT"), N("DRAINING"), N("QUARANTINED"), N("OFFLINE"),
    N("online"), N("suspect"), N("draining"), N("quarantined"), N("offline"),
    N("urgent"), N("high"), N("normal"), N("low"),
    N("both"), N("wipe"), N("difference"), N("before"), N("after"),
    N("bad_input"), N("resource"), N("transient"), N("crash"), N("bad_output"), N("bug"), N("cancelled"),
)  # fmt: skip
"""States, outcomes, priorities and classes of errors in words: what shows one asks ``tr`` for it."""
_STATUS_PLACE = {status: place for place, status in enumerate(TaskStatus)}
_PRIORITY_TONE: dict[TaskPriority, Tone] = {
    TaskPriority.URGENT: "warn",
    TaskPriority.HIGH: "strong",
    TaskPriority.NORMAL: "plain",
    TaskPriority.LOW: "dim",
}


def state_cell(status: TaskStatus) -> Cell:
    """A state as letter and word, so that it needs no colour."""
    letter, tone = TASK_LOOK[status]
    return f"{letter} {tr(status.upper())}", tone


TOLD_FOR_MS = 6_000
"""As old may be what the scheduler said of a task; then its record's own line is shown again."""


def reason(row: TaskRow, now_ms: int, *, in_full: bool = False) -> str:
    """Why the task waits, as the scheduler sees it now; empty where it has not said so of late."""
    told = row.told
    if told is None or now_ms - told.at_ms > TOLD_FOR_MS:
        return ""
    return retold(told.text if in_full else told.short)


def retold_failure(error: str) -> str:
    """``CODE: what it said``, the latter in the language that is spoken."""
    code, colon, said = error.partition(": ")
    return f"{code}{colon}{retold(said)}"


def without_folder(told: str, image: str) -> str:
    """What is told of a task, without what stands beside it already: its picture's path before, its folder within."""
    folder = image.removesuffix(basename(image))
    told = told.removeprefix(f"{image}: ").replace(f": {image}: ", ": ", 1)
    return told.replace(folder, "") if folder.strip("/") else told


def last_word(row: TaskRow, now_ms: int, *, in_full: bool = False) -> Cell:
    """Why the task is where it is, in one line."""
    told = reason(row, now_ms, in_full=in_full)
    if told and row.status in WAITING:
        return told, "plain"
    match row.status:
        case TaskStatus.FAILED:
            failed = retold_failure(row.error)
            return (failed if in_full else without_folder(failed, row.image)) or retold(row.why), "bad"
        case TaskStatus.PENDING:
            due = tr("due in {span}: ", span=span(row.due_ms - now_ms)) if row.due_ms and row.due_ms > now_ms else ""
            return due + (retold_failure(row.error) or retold(row.why) or tr("waits for its time")), "plain"
        case TaskStatus.PROCESSING:
            return tr(row.stage) or retold(row.why), "plain"
        case TaskStatus.COMPLETED:
            took = ""
            if row.finished_ms is not None and row.started_ms is not None:
                took = tr("took {span}", span=long_span(row.finished_ms - row.started_ms))
            return ", ".join(filter(None, (took, retold(row.why)))), "dim"
        case TaskStatus.QUEUED:
            again = tr("again after {error}", error=retold_failure(row.error)) if row.error else ""
            return retold(row.why) or again, "plain"
        case TaskStatus.CANCELLED:
            return retold(row.why), "dim"


def _progress(row: TaskRow, _now: int) -> Cell:
    return (f"{int(row.progress * 100)}%", "run") if row.status is TaskStatus.PROCESSING else ("--", "dim")


def most_attempts(row: TaskRow) -> str:
    """How many attempts there may be, as far as is known: who retries it grants more, and some cost nothing."""
    return str(max(row.max_attempts, row.attempt)) if row.max_attempts else "?"


def _attempts(row: TaskRow, _now: int) -> Cell:
    return f"{row.attempt}/{most_attempts(row)}", "warn" if row.attempt > 1 else "plain"


def _age(row: TaskRow, now_ms: int) -> Cell:
    return span(now_ms - row.submitted_ms), "plain"


def _took_ms(row: TaskRow, now_ms: int) -> float | None:
    return took_ms(row.started_ms, row.finished_ms, row.status is TaskStatus.PROCESSING, now_ms)


def _took(row: TaskRow, now_ms: int) -> Cell:
    took = _took_ms(row, now_ms)
    return ("--", "dim") if took is None else (long_span(took), "plain")


def _megapixels(row: TaskRow) -> float | None:
    return megapixels(size_of(row.size))


def _late_ms(row: TaskRow, now_ms: int) -> float | None:
    return late_ms(row.status, row.done_by_ms, row.finished_ms, now_ms)


def deadline_cell(row: TaskRow, now_ms: int) -> Cell:
    """How far away its deadline is; a late one by letter and word."""
    if row.done_by_ms is None:
        return "--", "dim"
    late = _late_ms(row, now_ms)
    if late is None:  # it will not be done any more
        return tr("- not done"), "dim"
    if late > 0:
        return tr("! LATE {span}", span=span(late)), "bad"
    return (tr("# kept"), "dim") if row.finished_ms is not None else (tr("in {span}", span=span(-late)), "plain")


TASK_COLUMNS: tuple[Column[TaskRow], ...] = (
    Column("id", "ID", 12, lambda row, _: (row.id, "strong"), lambda row: row.id, most=16),
    Column("age", "AGE", 5, _age, lambda row: row.submitted_ms, live=True, right=True),
    Column("progress", "PROG", 4, _progress, lambda row: row.progress, rank=1, live=True, right=True),
    Column("state", "STATE", 12, lambda row, _: state_cell(row.status), lambda row: _STATUS_PLACE[row.status]),
    Column("attempt", "TRY", 4, _attempts, lambda row: row.attempt, rank=5, right=True),
    Column("priority", "PRI", 6, lambda row, _: (tr(row.priority), _PRIORITY_TONE[row.priority]),
           lambda row: row.priority.band, rank=4),
    Column("queue", "QUEUE", 13, lambda row, _: (row.queue, "plain"), lambda row: row.queue, rank=2),
    Column("node", "NODE", 10, lambda row, _: (row.node or "-", "plain"), lambda row: row.node, rank=6, most=16),
    Column("model", "MODEL", 9, lambda row, _: (row.model, "plain"), lambda row: row.model, rank=7, most=14),
    Column("size", "SIZE", 9, lambda row, _: (row.size or "--", "plain" if row.size else "dim"),
           lambda row: _megapixels(row) or 0.0, rank=8, right=True, most=11),
    Column("image", "IMAGE", 12, lambda row, _: (basename(row.image), "plain"), lambda row: basename(row.image),
           rank=3, most=40),
    Column("why", "WHY / LAST WORD", 24, last_word, lambda row: last_word(row, 0)[0], most=400),
)  # fmt: skip

TASK_MORE: tuple[Column[TaskRow], ...] = (
    Column("user", "USER", 9, lambda row, _: (row.user, "plain"), lambda row: row.user, most=20, extra=True),
    Column("job", "JOB", 10, lambda row, _: (row.job or "-", "plain"), lambda row: row.job, most=24, extra=True),
    Column("took", "TOOK", 6, _took, lambda row: _took_ms(row, 0) or 0, right=True, extra=True),
    Column("deadline", "DEADLINE", 10, deadline_cell, lambda row: row.done_by_ms or math.inf, right=True, most=14,
           extra=True),
    Column("device", "DEVICE", 8, lambda row, _: (row.device or "-", "plain"), lambda row: row.device, most=14,
           extra=True),
    Column("pinned", "PINNED", 8, lambda row, _: (row.pinned or "-", "plain"), lambda row: row.pinned, most=16,
           extra=True),
    Column("path", "PATH", 20, lambda row, _: (row.image, "plain"), lambda row: row.image, most=80, extra=True),
    Column("error", "LAST ERROR", 20, lambda row, _: (retold_failure(row.error), "bad"), lambda row: row.error,
           most=120, extra=True),
)  # fmt: skip

TASK_FIELDS: dict[str, QueryField[TaskRow]] = fields_over(
    {
        "id": lambda row, _: row.id,
        "state": lambda row, _: row.status.value,
        "queue": lambda row, _: row.queue,
        "node": lambda row, _: row.node,
        "pinned": lambda row, _: row.pinned,
        "model": lambda row, _: row.model,
        "user": lambda row, _: row.user,
        "job": lambda row, _: row.job,
        "priority": lambda row, _: row.priority.value,
        "image": lambda row, _: row.image,
        "error": lambda row, _: row.error,
        "cause": lambda row, _: row.error.partition(":")[0],
        "why": lambda row, _: row.why,
        "try": lambda row, _: row.attempt,
        "size": lambda row, _: _megapixels(row),
        "progress": lambda row, _: row.progress,
        "age": lambda row, now: max(0, now - row.submitted_ms),
        "took": _took_ms,
        "deadline": lambda row, now: None if row.done_by_ms is None else row.done_by_ms - now,
        "late": lambda row, now: told_late(_late_ms(row, now)),
        "needs": lambda row, _: needed(row.status, failed_before=bool(row.error)),
    }
)

# ---------------------------------------------------------------- queues


def _queue_count(status: TaskStatus) -> Callable[[QueueRow, int], Cell]:
    def cell(row: QueueRow, _now: int) -> Cell:
        count = row.count(status)
        return compact(count), TASK_LOOK[status][1] if count else "dim"

    return cell


def _queue_state(row: QueueRow, _now: int) -> Cell:
    return (tr("| PAUSED"), "warn") if row.paused else (tr("> OPEN"), "good")


def _oldest(row: QueueRow, now_ms: int) -> Cell:
    return (span(now_ms - row.oldest_ms), "plain") if row.oldest_ms is not None else ("--", "dim")


def pace(per_minute: float | None) -> str:
    """Tasks a minute in at most four characters; "--" where that is not known."""
    if per_minute is None:
        return "--"
    return f"{per_minute:.1f}" if 0 < per_minute < 9.95 else compact(round(per_minute))


def _came(row: QueueRow) -> float | None:
    return row.flow.came if row.flow is not None else None


def _left(row: QueueRow) -> float | None:
    return row.flow.left if row.flow is not None else None


def _pace_cell(per_minute: float | None) -> Cell:
    return pace(per_minute), "plain" if per_minute else "dim"


def _empty(row: QueueRow, _now: int) -> Cell:
    """When it is empty at the pace of late."""
    if not row.waiting or (row.flow is None and not row.paused):
        return "--", "dim"
    if row.flow is not None and row.flow.grows:
        return tr("grows"), "warn"
    left_ms = row.empty_in_ms
    return (span(left_ms), "plain") if left_ms is not None else (tr("stands"), "warn")


def _empty_order(row: QueueRow) -> float:
    left_ms = row.empty_in_ms
    return left_ms if left_ms is not None else math.inf if row.waiting else -1.0


def _queue_note(row: QueueRow, now_ms: int) -> Cell:
    if row.paused:
        reason = f": {row.reason}" if row.reason else ""
        by = row.paused_by or tr("somebody")
        if row.paused_ms:
            ago = span(now_ms - row.paused_ms)
            return tr("paused {ago} ago by {by}{reason}", ago=ago, by=by, reason=reason), "warn"
        return tr("paused by {by}{reason}", by=by, reason=reason), "warn"
    if not row.nodes:
        waits = row.count(TaskStatus.QUEUED) > 0
        return tr("no node serves it; its tasks wait") if waits else tr("no node serves it"), "warn" if waits else "dim"
    return f"{row.kind}{', ' if row.needs else ''}{row.needs}: {', '.join(row.nodes)}", "dim"


def _count_column(name: str, title: str, status: TaskStatus, rank: int) -> Column[QueueRow]:
    return Column(name, title, 6, _queue_count(status), lambda row: row.count(status), rank=rank, right=True)


QUEUE_COLUMNS: tuple[Column[QueueRow], ...] = (
    Column("queue", "QUEUE", 13, lambda row, _: (row.id, "strong"), lambda row: (row.place, row.id), most=16,
           snug=True),
    Column("oldest", "OLDEST", 6, _oldest, lambda row: -(row.oldest_ms or 0), live=True, right=True),
    Column("state", "STATE", 8, _queue_state, lambda row: row.paused),
    _count_column("queued", "QUEUED", TaskStatus.QUEUED, 0),
    _count_column("processing", "RUNS", TaskStatus.PROCESSING, 0),
    Column("in", "IN/m", 5, lambda row, _: _pace_cell(_came(row)), lambda row: _came(row) or 0.0, rank=3, right=True),
    Column("out", "OUT/m", 5, lambda row, _: _pace_cell(_left(row)), lambda row: _left(row) or 0.0, rank=2, right=True),
    Column("empty", "EMPTY", 6, _empty, _empty_order, rank=1, right=True),
    _count_column("pending", "PEND", TaskStatus.PENDING, 5),
    _count_column("failed", "FAILED", TaskStatus.FAILED, 4),
    _count_column("completed", "DONE", TaskStatus.COMPLETED, 6),
    Column("nodes", "NODES", 5, lambda row, _: (str(len(row.nodes)), "plain" if row.nodes else "warn"),
           lambda row: len(row.nodes), rank=3, right=True),
    Column("note", "SERVED BY / NOTE", 17, _queue_note, lambda row: _queue_note(row, 0)[0], most=400),
)  # fmt: skip


def _counted(status: TaskStatus) -> Callable[[QueueRow, int], float]:
    return lambda row, _: row.count(status)


def queue_needs_attention(row: QueueRow) -> bool:
    """It gives out nothing, or has tasks that nobody serves."""
    return row.paused or (not row.nodes and row.count(TaskStatus.QUEUED) > 0)


QUEUE_FIELDS: dict[str, QueryField[QueueRow]] = named(
    QueryField("queue", Kind.TEXT, lambda row, _: row.id, "its name"),
    QueryField("kind", Kind.TEXT, lambda row, _: row.kind, "the kind of device that serves it"),
    QueryField("node", Kind.TEXT, lambda row, _: " ".join(row.nodes), "the nodes that serve it"),
    QueryField("nodes", Kind.NUMBER, lambda row, _: len(row.nodes), "how many they are"),
    QueryField("state", Kind.CHOICE, lambda row, _: "paused" if row.paused else "open", "whether it gives out tasks",
               ("open", "paused")),
    QueryField("queued", Kind.NUMBER, _counted(TaskStatus.QUEUED), "tasks that wait in it"),
    QueryField("running", Kind.NUMBER, _counted(TaskStatus.PROCESSING), "tasks of it that run"),
    QueryField("failed", Kind.NUMBER, _counted(TaskStatus.FAILED), "tasks of it that failed"),
    QueryField("in", Kind.NUMBER, lambda row, _: _came(row), "tasks a minute that come into it"),
    QueryField("out", Kind.NUMBER, lambda row, _: _left(row), "tasks a minute that leave it"),
    QueryField("empty", Kind.SPAN, lambda row, _: row.empty_in_ms, "how long until it is empty at this pace"),
    QueryField("oldest", Kind.SPAN, lambda row, now: None if row.oldest_ms is None else now - row.oldest_ms,
               "how long the oldest has waited", timed=True),
    QueryField("needs", Kind.CHOICE, lambda row, _: NEEDS[not queue_needs_attention(row)],
               "whether somebody should look", NEEDS),
)  # fmt: skip

# ---------------------------------------------------------------- nodes

NODE_LOOK: dict[NodeStatus, tuple[str, Tone]] = {
    NodeStatus.ONLINE: (">", "good"),
    NodeStatus.SUSPECT: ("?", "warn"),
    NodeStatus.DRAINING: ("~", "warn"),
    NodeStatus.QUARANTINED: ("!", "bad"),
    NodeStatus.OFFLINE: ("x", "bad"),
}
_NODE_PLACE = {status: place for place, status in enumerate(NodeStatus)}
_BLOCKS = 8


def _busy(row: NodeRow, _now: int) -> Cell:
    """Slots as blocks: # taken, . free; the numbers are beside it."""
    if not row.slots:
        return "", "dim"
    shown = min(row.slots, _BLOCKS)
    taken = min(shown, -(-row.running * shown // row.slots))
    return "#" * taken + "." * (shown - taken), "run" if taken else "dim"


def _seen(row: NodeRow, now_ms: int) -> Cell:
    silent = now_ms - row.seen_ms
    return span(silent), "plain" if silent < 10_000 else "warn"


def node_state_cell(status: NodeStatus) -> Cell:
    letter, tone = NODE_LOOK[status]
    return f"{letter} {tr(status.upper())}", tone


def _node_load(row: NodeRow, _now: int) -> Cell:
    """How busy each device is; of one that calls a function, how many calls are under way."""
    if row.status is NodeStatus.OFFLINE:
        return "--", "dim"
    told = []
    for device in row.now:
        if device.function is not None and device.function.in_flight is not None:
            told.append(f"{device.called} {device.function.in_flight}/{device.slots}")
        elif device.busy is not None:
            told.append(f"{device.called} {device.busy:.0%}")
    return "  ".join(told) or "--", "plain" if told else "dim"


NODE_COLUMNS: tuple[Column[NodeRow], ...] = (
    Column("node", "NODE", 12, lambda row, _: (row.id, "strong"), lambda row: row.id, most=16, snug=True),
    Column("seen", "SEEN", 4, _seen, lambda row: -row.seen_ms, live=True, right=True),
    Column("busy", "SLOTS", 8, _busy, lambda row: row.running / max(1, row.slots), rank=3, live=True),
    Column("running", "RUNS", 5, lambda row, _: (f"{row.running}/{row.slots}", "plain"),
           lambda row: row.running, live=True, right=True),
    Column("state", "STATE", 13, lambda row, _: node_state_cell(row.status),
           lambda row: _NODE_PLACE[row.status]),
    Column("completed", "DONE", 5, lambda row, _: (compact(row.completed), "plain"),
           lambda row: row.completed, rank=2, right=True),
    Column("failed", "FAILED", 6, lambda row, _: (compact(row.failed), "bad" if row.failed else "dim"),
           lambda row: row.failed, rank=1, right=True),
    Column("serves", "SERVES", 14, lambda row, _: (", ".join(row.queues), "plain"),
           lambda row: ", ".join(row.queues), rank=4, most=40, snug=True),
    Column("load", "LOAD", 14, _node_load, lambda row: _node_load(row, 0)[0], rank=5, most=30, snug=True),
    Column("why", "WHY", 16, lambda row, _: (retold(row.why), "plain"), lambda row: row.why, most=400, snug=True),
)  # fmt: skip


def node_is_troubled(row: NodeRow) -> bool:
    """It says what keeps it from work; that somebody has let it work again is no such thing."""
    return bool(row.why) and not (row.status is NodeStatus.ONLINE and row.why.partition(" ")[0] == "activated")


def node_needs_attention(row: NodeRow) -> bool:
    """It is gone, silent or in quarantine, or says what keeps it from work. One that was told to drain needs nobody."""
    return row.status in (NodeStatus.SUSPECT, NodeStatus.QUARANTINED, NodeStatus.OFFLINE) or (
        row.status is NodeStatus.ONLINE and node_is_troubled(row)
    )


NODE_FIELDS: dict[str, QueryField[NodeRow]] = named(
    QueryField("node", Kind.TEXT, lambda row, _: row.id, "its name"),
    QueryField("state", Kind.CHOICE, lambda row, _: row.status.value, "whether it takes work", tuple(NodeStatus)),
    QueryField("queue", Kind.TEXT, lambda row, _: " ".join(row.queues), "the queues it serves"),
    QueryField("model", Kind.TEXT, lambda row, _: " ".join(row.models), "the models it offers"),
    QueryField("host", Kind.TEXT, lambda row, _: row.host, "its host"),
    QueryField("why", Kind.TEXT, lambda row, _: row.why, "why it stands where it does"),
    QueryField("slots", Kind.NUMBER, lambda row, _: row.slots, "how many attempts it may run"),
    QueryField("running", Kind.NUMBER, lambda row, _: row.running, "how many it runs"),
    QueryField("failed", Kind.NUMBER, lambda row, _: row.failed, "attempts that failed here"),
    QueryField("seen", Kind.SPAN, lambda row, now: max(0, now - row.seen_ms), "how long it is silent", timed=True),
    QueryField("needs", Kind.CHOICE, lambda row, _: NEEDS[not node_needs_attention(row)],
               "whether somebody should look", NEEDS),
)  # fmt: skip


# ---------------------------------------------------------------- the fleet at a glance


def _use(row: NodeRow, _now: int) -> Cell:
    return ("--", "dim") if row.busy is None or row.status is NodeStatus.OFFLINE else (f"{row.busy:.0%}", "plain")


def _memory(row: NodeRow, _now: int) -> Cell:
    if not row.total_mib or row.status is NodeStatus.OFFLINE:  # how it was before it went tells nothing now
        return "--", "dim"
    full = row.used_mib / row.total_mib
    return f"{row.used_mib / 1024:.1f}/{row.total_mib / 1024:.1f}G", "warn" if full > 0.95 else "plain"


def _heat(row: NodeRow, _now: int) -> Cell:
    if row.hottest_c is None or row.status is NodeStatus.OFFLINE:
        return "--", "dim"
    return f"{row.hottest_c:.0f}C", "bad" if row.hottest_c >= 90 else "warn" if row.hottest_c >= 80 else "plain"


def _failing(row: NodeRow) -> float:
    return row.failed / max(1, row.failed + row.completed)


def fleet_columns(now_running: Callable[[str], str]) -> tuple[Column[NodeRow], ...]:
    """One line a node; ``now_running`` tells what a node works on."""
    return (
        Column("node", "NODE", 12, lambda row, _: (row.id, "strong"), lambda row: row.id, most=16, snug=True),
        Column("seen", "SEEN", 4, _seen, lambda row: -row.seen_ms, live=True, right=True),
        Column("busy", "SLOTS", 8, _busy, lambda row: row.running / max(1, row.slots), live=True),
        Column("use", "BUSY", 4, _use, lambda row: row.busy or 0, live=True, right=True),
        Column("memory", "MEMORY", 11, _memory, lambda row: row.used_mib, rank=2, live=True, right=True),
        Column("heat", "TEMP", 4, _heat, lambda row: row.hottest_c or 0, rank=3, live=True, right=True),
        Column("state", "STATE", 13, lambda row, _: node_state_cell(row.status), lambda row: _NODE_PLACE[row.status]),
        Column("completed", "DONE", 5, lambda row, _: (compact(row.completed), "plain"), lambda row: row.completed,
               rank=4, right=True),
        Column("failing", "FAIL", 4, lambda row, _: (f"{_failing(row):.0%}", "bad" if row.failed else "dim"), _failing,
               rank=1, right=True),
        Column("why", "NOW / WHY", 16,
               lambda row, _: (retold(row.why), "warn") if node_is_troubled(row) else (now_running(row.id), "plain"),
               lambda row: row.why, most=400),
    )  # fmt: skip


# ---------------------------------------------------------------- causes


def _ago(at_ms: int, now_ms: int) -> str:
    return span(now_ms - at_ms) if at_ms else "--"


def _trend(row: CauseRow) -> Cell:
    from tui.charts import bars  # which needs what is here

    return (bars(row.trend, 12), "bad") if any(row.trend) else ("-", "dim")


def _cause_name(row: CauseRow) -> str:
    return " ".join((row.code, *(value or "?" for _, value in row.of)))


CAUSE_COLUMNS: tuple[Column[CauseRow], ...] = (
    Column("count", "TASKS", 7, lambda row, _: (compact(row.count), "bad"), lambda row: row.count, right=True),
    Column("last", "LAST", 4, lambda row, now: (_ago(row.newest_ms, now), "plain"), lambda row: row.newest_ms,
           live=True, right=True),
    Column("first", "FIRST", 5, lambda row, now: (_ago(row.oldest_ms, now), "dim"), lambda row: row.oldest_ms,
           rank=2, live=True, right=True),
    Column("trend", "LAST HOUR", 12, lambda row, _: _trend(row),
           lambda row: sum(row.trend), rank=2, live=True),
    Column("code", "CAUSE", 16, lambda row, _: (_cause_name(row), "strong"), lambda row: (row.code, row.of), most=44,
           snug=True),
    Column("kind", "KIND", 9, lambda row, _: (tr(row.kind), "plain"), lambda row: row.kind, rank=3),
    Column("nodes", "ON", 12, lambda row, _: (", ".join(row.nodes) or "-", "plain"), lambda row: ", ".join(row.nodes),
           rank=1, most=30, snug=True),
    Column("models", "WITH", 10, lambda row, _: (", ".join(row.models) or "-", "plain"),
           lambda row: ", ".join(row.models), rank=4, most=24, snug=True),
    Column("sizes", "SIZES", 8, lambda row, _: (", ".join(row.sizes) or "-", "plain"),
           lambda row: ", ".join(row.sizes), rank=5, most=24, snug=True),
    Column("known", "KNOWN TO", 10, lambda row, _: (row.known or "-", "plain" if row.known else "dim"),
           lambda row: row.known, rank=1, most=40, snug=True),
    Column("text", "WHAT THEY SAID", 24, lambda row, _: (retold(row.text), "plain"), lambda row: row.text, most=400),
)  # fmt: skip

CAUSE_FIELDS: dict[str, QueryField[CauseRow]] = named(
    QueryField("cause", Kind.TEXT, lambda row, _: row.code, "its code"),
    QueryField("kind", Kind.TEXT, lambda row, _: row.kind, "its class"),
    QueryField("node", Kind.TEXT, lambda row, _: " ".join(row.nodes), "where they failed last"),
    QueryField("model", Kind.TEXT, lambda row, _: " ".join(row.models), "with which models"),
    QueryField("size", Kind.TEXT, lambda row, _: " ".join(row.sizes), "of which classes of size their images are"),
    QueryField("error", Kind.TEXT, lambda row, _: row.text, "what they said"),
    QueryField("known", Kind.TEXT, lambda row, _: row.known, "who has acknowledged it, and their note"),
    QueryField("tasks", Kind.NUMBER, lambda row, _: row.count, "how many they are"),
    QueryField("last", Kind.SPAN, lambda row, now: max(0, now - row.newest_ms), "how long ago the last", timed=True),
)

# ---------------------------------------------------------------- acts


def _undo_left(row: ActRow, now_ms: int) -> Cell:
    left = row.undo_until_ms - now_ms
    return (f"{left / 1000:.0f}s", "warn") if left > 0 else ("", "dim")


ACT_COLUMNS: tuple[Column[ActRow], ...] = (
    Column("age", "AGO", 5, lambda row, now: (span(now - row.at_ms), "plain"), lambda row: row.at_ms,
           live=True, right=True),
    Column("undo", "UNDO", 4, _undo_left, lambda row: row.undo_until_ms, live=True, right=True),
    Column("actor", "WHO", 10, lambda row, _: (row.actor, "strong"), lambda row: row.actor, most=18),
    Column("act", "ACT", 14, lambda row, _: (row.act, "plain"), lambda row: row.act),
    Column("reason", "REASON", 12, lambda row, _: (row.reason, "plain"), lambda row: row.reason, rank=1, most=40,
           snug=True),
    Column("outcome", "OUTCOME", 10, lambda row, _: (retold(row.outcome), "dim"), lambda row: row.outcome,
           rank=2, most=30, snug=True),
    Column("on", "ON", 14, lambda row, _: (row.on, "dim"), lambda row: row.on, most=400),
)  # fmt: skip

ACT_FIELDS: dict[str, QueryField[ActRow]] = act_fields_over(
    {
        "actor": lambda row, _: row.actor,
        "act": lambda row, _: row.act,
        "on": lambda row, _: row.on,
        "reason": lambda row, _: row.reason,
        "outcome": lambda row, _: row.outcome,
        "age": lambda row, now: max(0, now - row.at_ms),
    }
)


_WIDEST = 60  # cells of one column in a wide table


_SORT_MARK = 2  # cells of a head that tell the order


def _narrowed(column: Column[RowT], longest: int | None) -> Column[RowT]:
    """A column no wider than what it has to hold."""
    if longest is None:
        return column
    needed = max(longest, cells(column.shown_title) + _SORT_MARK)
    return replace(column, width=min(column.width, needed), most=min(column.most, needed))


def lay_out(
    columns: Sequence[Column[RowT]], width: int, longest: Mapping[str, int] = MappingProxyType({})
) -> list[tuple[Column[RowT], int]]:
    """Which columns fit ``width`` cells, a space between them, and how wide each is.

    ``longest``: by a column's id, the cells of the longest that it ever holds, where that is known.
    Columns leave by rank, greatest first; the room that is left goes to those that may grow: the first one
    (a name) has what it can use, the last one (free text) takes what the others do not need.
    """
    shown = list(columns)
    while any(column.rank for column in shown) and sum(column.width + 1 for column in shown) - 1 > width:
        shown.remove(max(shown, key=lambda column: (column.rank, columns.index(column))))
    shown = [_narrowed(column, longest.get(column.id)) for column in shown]
    widths = {column.id: column.width for column in shown}
    room = width - sum(widths.values()) - (len(shown) - 1)
    for column in reversed(shown):  # not even the most needed ones fit: the last are cut, or gone with their space
        if room >= 0:
            break
        taken = min(widths[column.id], -room)
        widths[column.id] -= taken
        room += taken + (widths[column.id] == 0)
    shown = [column for column in shown if widths[column.id] > 0]
    growing = [column for column in shown if column.most > column.width]
    for place, column in enumerate(growing):
        fair = room if place in (0, len(growing) - 1) else room // (len(growing) - place)
        more = max(0, min(column.most - column.width, fair))
        widths[column.id] += more
        room -= more
    for column in growing:  # what the last has no use for, others may
        more = max(0, min(column.most - widths[column.id], room))
        widths[column.id] += more
        room -= more
    if room > 0 and shown:
        widths[shown[-1].id] += room
    return [(column, widths[column.id]) for column in shown]


def lay_out_sideways(
    columns: Sequence[Column[RowT]], width: int, *, start: int = 0, wide: bool = False
) -> list[tuple[Column[RowT], int]]:
    """As ``lay_out`` for a table wider than the screen: none leaves, and the right edge cuts.

    The first column stays; ``start`` of those behind it are scrolled off. ``wide``: each as wide as it may grow.
    """
    laid: list[tuple[Column[RowT], int]] = []
    room = width
    for column in (*columns[:1], *columns[1 + start :]):
        if room <= 0:
            break
        wanted = max(column.width, min(column.most, _WIDEST)) if wide else column.width
        laid.append((column, min(wanted, room)))
        room -= wanted + 1
    if laid and room > 0:
        last, taken = laid[-1]
        laid[-1] = (last, taken + room + 1 if last.most > taken else taken)
    return laid

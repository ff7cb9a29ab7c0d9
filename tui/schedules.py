"""The schedules as rows: when each is due, what came of its last run, and what can be done to it. No terminal here."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from lcq.lang import ntr, retold, tr
from lcq.query import Kind, QueryField
from lcq.task_fields import NEEDS
from tui import acts
from tui.acts import Act
from tui.columns import Cell, Column, named
from tui.commands import Tier
from tui.text import clean, long_span, span

if TYPE_CHECKING:
    from lcq.wire import BulkAnswer
    from lcq.wire.schedules import RanSchedule, ScheduleRecord, SchedulesAnswer, WindowRecord
    from tui.source import Commander

STATES = ("on", "paused", "failed")


@dataclass(slots=True, eq=False)
class ScheduleRow:
    """A schedule of the settings; its id is its name. Times are ms since 1970 by Redis's clock."""

    id: str
    cron: str
    timezone: str
    next_ms: tuple[int, ...] = ()  # empty while it is paused
    paused_by: str = ""
    reason: str = ""
    last_ms: int = 0  # 0: it has not run yet
    last_told: str = ""
    last_job: str = ""
    error: str = ""  # why it could not be run last
    version: int = 0

    @property
    def haystack(self) -> str:
        words = (self.id, self.cron, self.timezone, self.state, self.reason, self.last_told, self.error)
        return "\n".join(words).casefold()

    @property
    def state(self) -> str:
        """One of STATES."""
        return "paused" if self.paused_by else "failed" if self.error else "on"

    @property
    def due_ms(self) -> int | None:
        """When it runs next; None: not before somebody resumes it."""
        return self.next_ms[0] if self.next_ms else None


def schedule_row(record: ScheduleRecord) -> ScheduleRow:
    """A schedule's record as its row."""
    return ScheduleRow(
        id=clean(record.name), cron=clean(record.cron), timezone=clean(record.timezone), next_ms=record.next_ms,
        paused_by=clean(record.paused_by), reason=clean(record.paused_reason), last_ms=record.last_due_ms,
        last_told=clean(record.last_told), last_job=clean(record.last_job), error=clean(record.error),
    )  # fmt: skip


def minute(ms: int) -> str:
    """A date and a time of day, in UTC."""
    return f"{datetime.fromtimestamp(ms / 1000, UTC):%Y-%m-%d %H:%MZ}" if ms else "--"


def state_cell(row: ScheduleRow, _now: int = 0) -> Cell:
    """Whether it runs by itself, as letter and word."""
    match row.state:
        case "paused":
            return tr("| PAUSED"), "warn"
        case "failed":
            return tr("x FAILED"), "bad"
        case _:
            return tr("> ON"), "good"


def outcome(row: ScheduleRow, _now: int = 0) -> Cell:
    """What came of its last run, or why it is not run now."""
    if row.paused_by:
        because = f": {row.reason}" if row.reason else ""
        return tr("paused by {by}{reason}", by=row.paused_by, reason=because), "warn"
    if row.error:
        return tr("cannot be run: {error}", error=retold(row.error)), "bad"
    return (retold(row.last_told), "plain") if row.last_told else (tr("it has not run yet"), "dim")


def _next(row: ScheduleRow, now_ms: int) -> Cell:
    return ("--", "dim") if row.due_ms is None else (span(max(0, row.due_ms - now_ms)), "plain")


def _last(row: ScheduleRow, now_ms: int) -> Cell:
    return (span(now_ms - row.last_ms), "plain") if row.last_ms else ("--", "dim")


_NEVER = 2**62

SCHEDULE_COLUMNS: tuple[Column[ScheduleRow], ...] = (
    Column("name", "SCHEDULE", 12, lambda row, _: (row.id, "strong"), lambda row: row.id, most=24, snug=True),
    Column("next", "DUE IN", 7, _next, lambda row: row.due_ms or _NEVER, live=True, right=True),
    Column("last", "RAN", 5, _last, lambda row: -row.last_ms, live=True, right=True),
    Column("state", "STATE", 9, state_cell, lambda row: STATES.index(row.state)),
    Column("cron", "WHEN", 12, lambda row, _: (row.cron, "plain"), lambda row: row.cron, most=24, snug=True),
    Column("zone", "BY THE CLOCKS OF", 16, lambda row, _: (row.timezone, "dim"), lambda row: row.timezone, rank=2,
           most=20, snug=True),
    Column("at", "NEXT RUN", 17, lambda row, _: (minute(row.due_ms or 0), "plain"), lambda row: row.due_ms or _NEVER,
           rank=1),
    Column("told", "WHAT CAME OF IT", 16, outcome, lambda row: outcome(row)[0], most=400),
)  # fmt: skip

SCHEDULE_FIELDS: dict[str, QueryField[ScheduleRow]] = named(
    QueryField("name", Kind.TEXT, lambda row, _: row.id, "its name"),
    QueryField("state", Kind.CHOICE, lambda row, _: row.state, "whether it runs by itself", STATES),
    QueryField("cron", Kind.TEXT, lambda row, _: row.cron, "when it is due"),
    QueryField("told", Kind.TEXT, lambda row, _: row.last_told, "what came of its last run"),
    QueryField(
        "due", Kind.SPAN, lambda row, now: None if row.due_ms is None else max(0, row.due_ms - now),
        "how long until it is run", timed=True,
    ),
    QueryField(
        "needs", Kind.CHOICE, lambda row, _: NEEDS[row.state == "on"], "whether somebody should look", NEEDS
    ),
)  # fmt: skip


def window_told(window: WindowRecord, now_ms: int) -> str:
    """A window of nodes in a few words."""
    left = long_span(max(0, window.changes_ms - now_ms))
    state = tr("open, closes in {time}", time=left) if window.is_open else tr("closed, opens in {time}", time=left)
    return f"{clean(window.name)} {state} ({counted_nodes(len(window.nodes))})"


def counted_nodes(count: int) -> str:
    return ntr("{n} node", "{n} nodes", count)


def rows_of(answer: SchedulesAnswer) -> list[ScheduleRow]:
    return [schedule_row(record) for record in answer.schedules]


# ---------------------------------------------------------------- acts


def _on(name: str, call: Callable[[Commander, str], Awaitable[None]]) -> acts.Run:
    async def run(commander: Commander, reason: str) -> BulkAnswer:
        from lcq.wire import BulkAnswer

        await call(commander, reason)
        return BulkAnswer(done=(name,))

    return run


def pause(row: ScheduleRow) -> Act:
    """It is run no more until somebody resumes it."""
    name = row.id
    run = _on(name, lambda commander, reason: commander.pause_schedule(name, reason=reason))
    lines = (tr("It is not run until it is resumed; what is due meanwhile is not made up for."),)
    return Act(tr("Pause {name}", name=name), tr("paused"), (name,), Tier.UNDOABLE, run, lines, tr("Yes, pause"))


def resume(row: ScheduleRow) -> Act:
    name = row.id
    run = _on(name, lambda commander, reason: commander.resume_schedule(name, reason=reason))
    return Act(tr("Resume {name}", name=name), tr("resumed"), (name,), Tier.UNDOABLE, run)


def run_now(row: ScheduleRow) -> Act:
    """Its tasks are submitted now; when it is due next stays as it is."""
    name = row.id

    async def run(commander: Commander, reason: str) -> BulkAnswer:
        from lcq.wire import BulkAnswer

        return BulkAnswer(done=(f"{name}: {told_run(await commander.run_schedule(name, reason=reason))}",))

    lines: tuple[str, ...] = (
        tr("Its tasks are submitted now. When it is due next stays as it is."),
        f"{row.cron} {row.timezone}",
    )
    if row.paused_by:
        lines = (*lines, tr("It is paused, and stays so: this is one run."))
    return Act(tr("Run {name} now", name=name), tr("ran"), (name,), Tier.COSTLY, run, lines, tr("Yes, run it"))


def told_run(made: RanSchedule) -> str:
    """What came of a run, in one line."""
    parts = [ntr("{n} task in job {job}", "{n} tasks in job {job}", made.accepted, job=clean(made.job) or "-")]
    if made.there:
        parts.append(ntr("{n} result is there already", "{n} results are there already", made.there))
    if made.skipped:
        parts.append(ntr("{n} file was left out", "{n} files were left out", made.skipped))
    if made.refused:
        parts.append(tr("{count} were refused: {why}", count=made.refused, why=retold(made.example)))
    return ", ".join(parts)

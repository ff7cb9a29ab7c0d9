"""The schedules: when each is due, what came of its last run; paused, resumed and run from here."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import ClassVar

from textual import on
from textual.binding import BindingType

from lcq.lang import N, ntr, tr
from lcq.wire.schedules import WindowRecord
from tui import schedules
from tui.commands import Scope, bindings_of
from tui.desk import Desk
from tui.schedules import SCHEDULE_COLUMNS, SCHEDULE_FIELDS, ScheduleRow, minute, outcome, window_told
from tui.screens.asked import AskedScreen
from tui.screens.base import ActWished, ReasonWished, Said
from tui.widgets.frame import TONE_STYLE, Part
from tui.widgets.table import LineTable


class SchedulesScreen(AskedScreen[ScheduleRow]):
    """What the schedulers' settings have submitted by itself."""

    MODE = "schedules"
    SCOPES: ClassVar[tuple[Scope, ...]] = (Scope.EVERYWHERE, Scope.TABLE, Scope.SCHEDULES)
    BINDINGS: ClassVar[list[BindingType]] = [*bindings_of(Scope.SCHEDULES)]
    ONE = N("one schedule at a time: esc clears the marks")
    NONE = N("no schedule is under the cursor")

    def __init__(self, desk: Desk) -> None:
        super().__init__(desk, SCHEDULE_COLUMNS, SCHEDULE_FIELDS, sort="next")
        self._windows: tuple[WindowRecord, ...] = ()

    async def ask(self) -> Iterable[ScheduleRow]:
        answer = await self.desk.commander.schedules()
        self._windows = answer.windows
        return schedules.rows_of(answer)

    def states(self) -> Sequence[str]:
        return ("", *(f"state:{state}" for state in schedules.STATES))

    def counts(self) -> Sequence[Part]:
        if not self.is_read:
            return ()
        by_state = Counter(row.state for row in self.shelf.rows.values())
        parts = [Part(f" {ntr('{n} schedule', '{n} schedules', len(self.shelf.rows))}")]
        told = (("paused", "warn", tr("{n} paused", n=by_state["paused"])),
                ("failed", "bad", tr("{n} failed", n=by_state["failed"])))  # fmt: skip
        parts += [
            Part(f"   {text}", TONE_STYLE[tone], f"filter_by('state:{state}')")  # type: ignore[index]
            for state, tone, text in told
            if by_state[state]
        ]
        parts += self.trouble_part()
        now = self.desk.link.now_ms
        parts += [Part(f"   {window_told(window, now)}", "$text-muted") for window in self._windows]
        return parts

    def nothing(self) -> str:
        return tr("no schedules: see schedules in lcq.yaml")

    def about(self, row: ScheduleRow) -> Sequence[Part]:
        told, tone = outcome(row)
        following = ", ".join(minute(at) for at in row.next_ms)
        when = tr("   next {times}", times=following) if following else ""
        last = tr("   last {time}: ", time=minute(row.last_ms)) if row.last_ms and not row.paused_by else "   "
        return (
            Part(f" {row.id}", "bold $text-primary"),
            Part(last, "$text-muted"),
            Part(told, TONE_STYLE[tone]),
            Part(f"   {row.cron} {row.timezone}{when}"),
        )

    @on(LineTable.Opened)
    @on(LineTable.Described)
    def _open(self, wish: LineTable.Opened | LineTable.Described) -> None:
        """To the tasks of its last run."""
        row = self.view.row(wish.row_id)
        if row is not None and row.last_job:
            self.post_message(self.ModeWished("tasks", f'job:"{row.last_job}"'))
        elif row is not None:
            self.post_message(Said(tr("{name} has submitted nothing yet", name=row.id), good=False))

    def action_toggle_schedule(self) -> None:
        row = self.one()
        if row is not None and row.paused_by:
            self.post_message(ActWished(schedules.resume(row)))
        elif row is not None:
            self.post_message(ReasonWished(schedules.pause(row)))

    def action_run_schedule(self) -> None:
        row = self.one()
        if row is not None:
            self.post_message(ActWished(schedules.run_now(row)))

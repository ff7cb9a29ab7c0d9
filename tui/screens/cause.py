"""All about one cause: since when, how often, and what the tasks that died of it have in common."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import ClassVar

from textual.containers import Horizontal
from textual.widget import Widget

from lcq.lang import N, retold, tr
from tui.charts import Graph, Series
from tui.commands import Scope
from tui.desk import Desk
from tui.flow import MINUTE_MS
from tui.screens.about import AboutScreen
from tui.screens.causes import CauseActs, tasks_of, where_of
from tui.screens.detail import Piece, fact
from tui.store import CauseRow, TaskRow
from tui.text import counted, span, stamp, wrapped
from tui.widgets.chart import Chart
from tui.widgets.frame import TONE_STYLE

_MOST_TASKS = 8
_HOUR = 60


class CauseScreen(AboutScreen[CauseRow], CauseActs):
    """One cause, kept up to date."""

    MODE = "causes"
    NOUN = N("cause")
    SCOPES: ClassVar[tuple[Scope, ...]] = (Scope.EVERYWHERE, Scope.READING, Scope.DETAIL, Scope.ABOUT, Scope.CAUSES)
    SECTIONS = ("head", "common", "tasks")
    TABS: ClassVar[Mapping[str, str]] = {
        "head": N("Overview"), "common": N("What they have in common"), "tasks": N("Its tasks"),
    }  # fmt: skip

    def __init__(self, desk: Desk, cause: str) -> None:
        super().__init__(desk, desk.causes, cause)

    def compose_charts(self) -> Iterable[Widget]:
        self.charts = [Chart(classes="chart")]
        return [Horizontal(*self.charts, classes="device-charts")]

    def act_causes(self) -> list[CauseRow]:
        return [self.row] if self.row is not None else []

    @property
    def crumb(self) -> str:
        return self.row.code if self.row is not None else self.row_id

    @property
    def tasks(self) -> list[TaskRow]:
        row = self.row
        return sorted(tasks_of(row, self.desk.store), key=lambda task: -task.updated_ms) if row is not None else []

    def action_open_tasks(self) -> None:
        if self.row is not None:
            self.post_message(self.ModeWished("tasks", where_of(self.row, self.desk.store)))

    def show_row(self, row: CauseRow) -> None:
        tasks = self.tasks
        now = self.desk.link.now_ms
        pieces: list[Piece] = [
            (f" x {row.code}", TONE_STYLE["bad"]),
            (tr("  of kind {kind}\n", kind=tr(row.kind)), "bold"),
        ]
        pieces += [(f"  {line}\n", "") for line in wrapped(retold(row.text), self.size.width - 4)]
        for name, value in row.of:
            pieces += fact(name, value or tr("not known"))
        pieces += fact("known", row.known)
        here = tr(", {count:,} of them here", count=len(tasks)) if len(tasks) != row.count else ""
        pieces += fact("tasks", f"{row.count:,}{here}")
        pieces += fact("last", tr("{newest}, {now} ago", newest=stamp(row.newest_ms), now=span(now - row.newest_ms)))
        pieces += fact(
            "first",
            tr("{oldest}, {now} ago", oldest=stamp(row.oldest_ms), now=span(now - row.oldest_ms))
            if row.oldest_ms
            else "",
        )
        pieces += fact("sizes", "   ".join(row.sizes))
        self.show_section("head", pieces)
        self.show_graphs([trend(tasks, now)])
        self.show_section("common", _in_common(tasks))
        self.show_section("tasks", self.listed(tr("The newest"), tasks, _MOST_TASKS))


def trend(tasks: Iterable[TaskRow], now_ms: int) -> Graph:
    """How many failed so in each minute of the last hour, of those that are here."""
    minutes = Counter((now_ms - (task.finished_ms or task.updated_ms)) // MINUTE_MS for task in tasks)
    values = [float(minutes[ago]) for ago in range(_HOUR - 1, -1, -1)]
    return Graph(tr("Failed so, tasks a minute"), (Series(tr("failed"), values, "bad"),),
                 note=tr("{values} in the last hour", values=counted(int(sum(values)), 'task')))  # fmt: skip


def _in_common(tasks: list[TaskRow]) -> list[Piece]:
    """On which nodes, with which models, in which queues, whose: the most frequent of each."""
    if not tasks:
        return []
    pieces: list[Piece] = [(tr(" What they have in common\n"), "bold $text-primary")]
    for label, name in (
        (N("nodes"), "node"),
        (N("models"), "model"),
        (N("queues"), "queue"),
        (N("users"), "user"),
        (N("jobs"), "job"),
    ):
        found = Counter(str(getattr(task, name)) for task in tasks if getattr(task, name))
        told = [f"{what} ({count:,})" for what, count in found.most_common(5)]
        more = tr("   and {count} others", count=len(found) - 5) if len(found) > 5 else ""
        pieces += fact(label, "   ".join(told) + more)
    return pieces

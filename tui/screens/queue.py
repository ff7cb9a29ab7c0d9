"""All about one queue: its last hour, what waits in it, who can serve it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import ClassVar

from textual.containers import Horizontal
from textual.widget import Widget

from lcq.lang import N, retold, tr
from lcq.models import TaskStatus
from tui.charts import queue_forecast, queue_graphs
from tui.columns import NODE_LOOK, node_state_cell, pace
from tui.commands import Scope
from tui.desk import Desk
from tui.screens.about import AboutScreen
from tui.screens.detail import Piece, fact
from tui.screens.queues import QueueActs
from tui.store import WAITING, QueueRow, TaskRow
from tui.text import cut, fit, long_span, stamp
from tui.widgets.chart import Chart
from tui.widgets.frame import TONE_STYLE

_NODES_AT = 36  # cells before what is told of a node, and at the right edge
_MOST_TASKS = 8


class QueueScreen(AboutScreen[QueueRow], QueueActs):
    """One queue, kept up to date."""

    MODE = "queues"
    NOUN = N("queue")
    SCOPES: ClassVar[tuple[Scope, ...]] = (Scope.EVERYWHERE, Scope.READING, Scope.DETAIL, Scope.ABOUT, Scope.QUEUES)
    SECTIONS = ("head", "served", "waiting", "running")
    TABS: ClassVar[Mapping[str, str]] = {
        "head": N("Overview"), "served": N("Served by"), "waiting": N("Waiting"), "running": N("Running"),
    }  # fmt: skip

    def __init__(self, desk: Desk, queue: str) -> None:
        super().__init__(desk, desk.queues, queue)

    def compose_charts(self) -> Iterable[Widget]:
        self.charts = [Chart(classes="chart"), Chart(classes="chart")]
        return [Horizontal(*self.charts, classes="device-charts")]

    def act_queues(self) -> list[QueueRow]:
        return [self.row] if self.row is not None else []

    def is_mine(self, task: TaskRow) -> bool:
        return task.queue == self.row_id and (task.status in WAITING or task.status is TaskStatus.PROCESSING)

    def action_open_tasks(self) -> None:
        self.post_message(self.ModeWished("tasks", f"queue:{self.row_id}"))

    def show_row(self, row: QueueRow) -> None:
        self.show_graphs(queue_graphs(self.desk.store.minutes, row.id, row.waiting))
        self.show_section("head", self._head(row))
        self.show_section("served", self._served(row))
        tasks = self.tasks
        waits = sorted((task for task in tasks if task.status in WAITING), key=lambda task: task.submitted_ms)
        runs = [task for task in tasks if task.status is TaskStatus.PROCESSING]
        self.show_section("waiting", self.listed(tr("Waiting, the oldest first"), waits, _MOST_TASKS))
        self.show_section("running", self.listed(tr("Running"), runs, _MOST_TASKS))

    def _head(self, row: QueueRow) -> list[Piece]:
        now = self.desk.link.now_ms
        state: Piece = (tr("| PAUSED"), TONE_STYLE["warn"]) if row.paused else (tr("> OPEN"), TONE_STYLE["good"])
        pieces: list[Piece] = [(" ", ""), state, (f"  {row.id}\n", "bold")]
        if row.paused:
            since = tr(
                "{paused} by {paused_by}", paused=stamp(row.paused_ms), paused_by=row.paused_by or tr("somebody")
            )
            pieces += fact("paused", f"{since}: {row.reason or tr('no reason given')}", TONE_STYLE["warn"])
        pieces += fact("devices", row.kind + (tr(" with at least {needs}", needs=row.needs) if row.needs else ""))
        if row.oldest_ms is not None:
            pieces += fact("oldest", tr("waits for {now}", now=long_span(now - row.oldest_ms)))
        counts = [f"{row.count(status):,} {tr(status)}" for status in TaskStatus if row.count(status)]
        pieces += fact("tasks", "   ".join(counts) or tr("none"))
        if row.flow is not None:
            told = tr("{came} come, {left} leave", came=pace(row.flow.came), left=pace(row.flow.left))
            pieces += fact("a minute", told)
            forecast, tone = queue_forecast(row.flow, row.waiting) if row.waiting else ("", "dim")
            paused = row.paused and row.waiting
            pieces += fact("forecast", tr("not while it is paused") if paused else forecast, TONE_STYLE[tone])
        return pieces

    def _served(self, row: QueueRow) -> list[Piece]:
        nodes = [node for node in self.desk.store.nodes.rows.values() if row.id in node.queues]
        if not nodes:
            return [(tr(" Nobody serves it: its tasks wait\n"), TONE_STYLE["warn"])]
        pieces: list[Piece] = [(tr(" Served by ({count})\n", count=len(nodes)), "bold $text-primary")]
        for node in sorted(nodes, key=lambda one: (one.id not in row.nodes, one.id)):
            word, _ = node_state_cell(node.status)
            pieces += [
                (f"  {fit(node.id, 16)} ", ""),
                (fit(word, 14), TONE_STYLE[NODE_LOOK[node.status][1]]),
                (
                    cut(
                        tr(
                            "{running} of {slots} busy   {why}",
                            running=node.running,
                            slots=node.slots,
                            why=retold(node.why),
                        ),
                        max(16, self.size.width - _NODES_AT),
                    )
                    + "\n",
                    "",
                ),
            ]
        return pieces

"""The queues: how deep, how old, paused by whom, served by what."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from textual import on
from textual.binding import BindingType
from textual.message import Message

from lcq.lang import tr
from lcq.models import TaskStatus
from tui import acts
from tui.columns import QUEUE_COLUMNS
from tui.commands import Scope, bindings_of
from tui.desk import Desk
from tui.screens.base import ActWished, ConsoleScreen, Said
from tui.screens.listing import ListScreen
from tui.store import QueueRow
from tui.text import counted
from tui.widgets.frame import Part
from tui.widgets.table import LineTable


class QueueActs(ConsoleScreen):
    """A screen of which some queues are meant by the keys of queues."""

    BINDINGS: ClassVar[list[BindingType]] = [*bindings_of(Scope.QUEUES)]

    @dataclass
    class PauseWished(Message):
        """The operator wants to pause this queue and will be asked why."""

        row: QueueRow

    @dataclass
    class BacklogMoveWished(Message):
        """The operator wants to choose where all that waits in this queue shall go."""

        row: QueueRow

    @dataclass
    class EmptyWished(Message):
        """The operator wants all that waits in this queue cancelled; the name will be asked."""

        row: QueueRow

    def act_queues(self) -> list[QueueRow]:
        """The queues that are meant."""
        return []

    def _one(self) -> QueueRow | None:
        rows = self.act_queues()
        if len(rows) > 1:
            self.post_message(Said(tr("one queue at a time: esc clears the marks"), good=False))
            return None
        if not rows:
            self.say_nothing_here(tr("no queue is under the cursor"))
        return rows[0] if rows else None

    def action_toggle_pause(self) -> None:
        row = self._one()
        if row is not None and row.paused:
            self.post_message(ActWished(acts.resume(row.id)))
        elif row is not None:
            self.post_message(self.PauseWished(row))

    def action_move_backlog(self) -> None:
        row = self._one()
        if row is not None:
            self.post_message(self.BacklogMoveWished(row))

    def action_empty_queue(self) -> None:
        row = self._one()
        if row is not None:
            self.post_message(self.EmptyWished(row))


class QueuesScreen(ListScreen[QueueRow], QueueActs):
    """Every configured queue, in the configuration's order."""

    MODE = "queues"
    SCOPES: ClassVar[tuple[Scope, ...]] = (Scope.EVERYWHERE, Scope.TABLE, Scope.QUEUES)

    @dataclass
    class DescriptionWished(Message):
        """The operator wants to know all about this queue."""

        row: QueueRow

    def __init__(self, desk: Desk) -> None:
        super().__init__(desk, desk.queues, QUEUE_COLUMNS)

    def counts(self) -> Sequence[Part]:
        rows = self.desk.store.queues.rows.values()
        waiting = sum(row.count(TaskStatus.QUEUED) for row in rows)
        running = sum(row.count(TaskStatus.PROCESSING) for row in rows)
        paused = sum(row.paused for row in rows)
        parts = [
            Part(
                tr(
                    " {count}   {waiting:,} queued   {running:,} processing",
                    count=counted(len(rows), "queue"),
                    waiting=waiting,
                    running=running,
                )
            )
        ]
        if paused:
            parts.append(
                Part(tr("   {paused} paused", paused=paused), "bold $text-warning", "filter_by('state:paused')")
            )
        return parts

    def states(self) -> Sequence[str]:
        return ("", "state:open", "state:paused")

    def nothing(self) -> str:
        return tr("this cluster has no queues")

    def about(self, row: QueueRow) -> Sequence[Part]:
        needs = tr(" with {needs}", needs=row.needs) if row.needs else ""
        state = (
            tr(
                "   paused by {paused_by}: {reason}",
                paused_by=row.paused_by,
                reason=row.reason or tr("no reason given"),
            )
            if row.paused
            else ""
        )
        return (
            Part(f" {row.id}", "bold $text-primary"),
            Part(state, "$text-warning"),  # first: the nodes may be many
            Part(
                tr(
                    "   {kind}{needs}   served by {nodes}",
                    kind=row.kind,
                    needs=needs,
                    nodes=", ".join(row.nodes) or tr("nobody"),
                )
            ),
        )

    @on(LineTable.Opened)
    def _open(self, wish: LineTable.Opened) -> None:
        self.post_message(self.ModeWished("tasks", f"queue:{wish.row_id}"))

    @on(LineTable.Described)
    def _describe(self, wish: LineTable.Described) -> None:
        row = self.view.row(wish.row_id)
        if row is not None:
            self.post_message(self.DescriptionWished(row))

    def act_queues(self) -> list[QueueRow]:
        return self.view.targets()

"""What can be done to tasks, the same from the list and from a task's details: the keys, and the wishes they send."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

from textual.binding import BindingType
from textual.message import Message

from lcq.lang import tr
from tui import acts
from tui.acts import Act
from tui.commands import Scope, bindings_of
from tui.screens.base import (
    ActWished,
    CompareWished,
    ConsoleScreen,
    LogWished,
    PicturesWished,
    RowWished,
    Said,
)
from tui.store import TaskRow


class TaskActs(ConsoleScreen):
    """A screen of which some tasks are meant by the keys of tasks."""

    BINDINGS: ClassVar[list[BindingType]] = [*bindings_of(Scope.TASKS)]

    class SubmitWished(Message):
        """The operator wants the form for a new task."""

    @dataclass
    class MoveWished(Message):
        """The operator wants to choose where these tasks shall go."""

        rows: Sequence[TaskRow]
        asks: bool
        where: str | None = None  # the filter, where all that it fits is meant

    @dataclass
    class PriorityWished(Message):
        """The operator wants to choose the priority of these tasks."""

        rows: Sequence[TaskRow]
        asks: bool
        where: str | None = None

    @dataclass
    class DeadlineWished(Message):
        """The operator wants to say by when these tasks are to be done."""

        rows: Sequence[TaskRow]
        asks: bool
        where: str | None = None

    @dataclass
    class PrivacyWished(Message):
        """The operator wants to say whether the pictures of these tasks may leave the house."""

        rows: Sequence[TaskRow]
        asks: bool
        where: str | None = None

    @dataclass
    class ChangeWished(Message):
        """The operator wants these tasks done again with something changed; ``anew``: as new ones."""

        rows: Sequence[TaskRow]
        anew: bool
        where: str | None = None

    @dataclass
    class CommentWished(Message):
        """The operator wants to leave a note with these tasks."""

        rows: Sequence[TaskRow]
        where: str | None = None

    @dataclass
    class WideActWished(Message):
        """The operator wants this done to all that the filter fits, also to what the window does not hold."""

        make: Callable[[Sequence[TaskRow]], Act]
        where: str

    def _rows(self) -> Sequence[TaskRow]:
        """The tasks that are meant; where there is none, that is said."""
        rows = self.act_rows()
        if not rows:
            self.say_nothing_here(tr("no task is under the cursor"))
        return rows

    def _row(self) -> TaskRow | None:
        """The task that the operator looks at; where there is none, that is said."""
        row = self.row_here
        if row is None:
            self.say_nothing_here(tr("no task is under the cursor"))
        return row

    def act_rows(self) -> list[TaskRow]:
        """The tasks that are meant, as they are shown."""
        return []

    @property
    def row_here(self) -> TaskRow | None:
        """The one task that the operator looks at, whatever is marked."""
        return next(iter(self.act_rows()), None)

    @property
    def unsure(self) -> bool:
        """Whether the operator cannot be sure of which tasks are meant: then every act asks."""
        return False

    @property
    def wide_filter(self) -> str | None:
        """The filter of which all is meant, where that is more than there is to show."""
        return None

    def wish(self, make: Callable[[Sequence[TaskRow]], Act]) -> None:
        """Send up the act on what is meant. Where the operator cannot be sure of what it falls on, it asks."""
        if self.wide_filter is not None:
            self.post_message(self.WideActWished(make, self.wide_filter))
            return
        act = make(self.act_rows())
        if act.ids:
            self.post_message(ActWished(act.made_to_ask() if self.unsure else act))
        else:
            self.say_nothing_here(act.skipped or tr("no task is under the cursor"))

    def action_submit(self) -> None:
        self.post_message(self.SubmitWished())

    def action_retry(self) -> None:
        self.wish(acts.retry)

    def action_cancel(self) -> None:
        slots = sum(row.slots for row in self.desk.store.nodes.rows.values())
        self.wish(lambda rows: acts.cancel(rows, slots=slots))

    def action_raise_priority(self) -> None:
        self.wish(lambda rows: acts.change_priority(rows, 1))

    def action_lower_priority(self) -> None:
        self.wish(lambda rows: acts.change_priority(rows, -1))

    def action_set_priority(self) -> None:
        rows = self._rows()
        if rows:
            self.post_message(self.PriorityWished(rows, asks=self.unsure, where=self.wide_filter))

    def action_set_deadline(self) -> None:
        rows = self._rows()
        if rows:
            self.post_message(self.DeadlineWished(rows, asks=self.unsure, where=self.wide_filter))

    def action_set_privacy(self) -> None:
        rows = self._rows()
        if rows:
            self.post_message(self.PrivacyWished(rows, asks=self.unsure, where=self.wide_filter))

    def action_move(self) -> None:
        rows = self._rows()
        if rows:
            self.post_message(self.MoveWished(rows, asks=self.unsure, where=self.wide_filter))

    def action_retry_changed(self) -> None:
        rows = self._rows()
        if rows:
            self.post_message(self.ChangeWished(rows, anew=False, where=self.wide_filter))

    def action_edit(self) -> None:
        row = self._row()
        if row is not None:
            self.post_message(self.ChangeWished([row], anew=True))

    def action_comment(self) -> None:
        rows = self._rows()
        if rows:
            self.post_message(self.CommentWished(rows, self.wide_filter))

    def action_task_log(self) -> None:
        row = self._row()
        if row is not None:
            self.post_message(LogWished(node=row.node, task_id=row.id))

    def action_go_to_node(self) -> None:
        row = self._row()
        if row is None:
            return
        if row.node or row.pinned:
            self.post_message(RowWished("nodes", row.node or row.pinned))
        else:
            self.post_message(Said(tr("it has run on no node yet"), good=False))

    def action_go_to_queue(self) -> None:
        row = self._row()
        if row is not None:
            self.post_message(RowWished("queues", row.queue))

    def action_open_pictures(self) -> None:
        row = self._row()
        if row is not None:
            self.post_message(PicturesWished(row.id))

    def action_compare_attempts(self) -> None:
        """Two marked tasks, or the attempts of the one that is looked at."""
        rows = self.act_rows()
        if len(rows) > 2:
            self.post_message(
                Said(tr("mark two tasks to compare them, or none to compare a task's attempts"), good=False)
            )
        elif len(rows) == 2:
            self.post_message(CompareWished(rows[0].id, rows[1].id))
        elif (row := self._row()) is not None:
            self.post_message(CompareWished(row.id))

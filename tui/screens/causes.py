"""The causes: what failed tasks died of, the most frequent first, and what can be done to all of one."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import ClassVar

from textual import on, work
from textual.binding import BindingType
from textual.message import Message

from lcq.causes import APART, in_common, size_class, size_clauses
from lcq.lang import retold, tr
from lcq.models import TaskStatus
from lcq.task_fields import size_of
from tui import acts
from tui.columns import CAUSE_COLUMNS
from tui.commands import Scope, bindings_of
from tui.desk import Desk
from tui.screens.base import ActWished, ConsoleScreen, Said
from tui.screens.dialogs import Choice, Chooser
from tui.screens.listing import ListScreen
from tui.store import CauseRow, Store, TaskRow
from tui.text import clean, counted
from tui.widgets.frame import Part
from tui.widgets.table import LineTable


class CauseActs(ConsoleScreen):
    """A screen of which some causes are meant by the keys of causes."""

    BINDINGS: ClassVar[list[BindingType]] = [*bindings_of(Scope.CAUSES)]

    @dataclass
    class GroupMoveWished(Message):
        """The operator wants to choose where these tasks shall go."""

        rows: Sequence[TaskRow]

    @dataclass
    class AcknowledgementWished(Message):
        """The operator knows of this cause, and will be asked for a note."""

        row: CauseRow

    @dataclass
    class WideGroupWished(Message):
        """The operator means all that failed so, also what the window does not hold. ``moves``: they choose where to,
        else all of that is retried."""

        causes: Sequence[CauseRow]
        moves: bool

    def act_causes(self) -> list[CauseRow]:
        """The causes that are meant."""
        return []

    def _is_wide(self, *, moves: bool) -> bool:
        """Whether the scheduler has to be asked for the group: not all tasks are here. Then that is wished."""
        causes = self.act_causes()
        if not causes or not self.desk.store.beyond:
            return False
        self.post_message(self.WideGroupWished(causes, moves))
        return True

    def _group(self) -> list[TaskRow]:
        """The failed tasks that are meant; where there is none, that is said."""
        rows = self.act_causes()
        tasks = [task for row in rows for task in tasks_of(row, self.desk.store)]
        if not tasks:
            none = tr("none of these failures is here any more")
            self.say_nothing_here(none if rows else tr("no cause is under the cursor"))
        return tasks

    def action_retry_group(self) -> None:
        if self._is_wide(moves=False):
            return
        rows = self._group()
        if rows:
            self.post_message(ActWished(acts.retry(rows).made_to_ask()))

    def action_move_group(self) -> None:
        if self._is_wide(moves=True):
            return
        rows = self._group()
        if rows:
            self.post_message(self.GroupMoveWished(rows))

    @work(group="panel", exclusive=True)
    async def action_group_causes(self) -> None:
        store = self.desk.store
        if self.desk.playback is not None:
            self.post_message(Said(tr("a recording has causes by their errors alone"), good=False))
            return
        ways = [way for length in range(len(APART) + 1) for way in combinations(APART, length)]
        now = tr("now")
        choices = [
            Choice(("by", ",".join(way)), grouped_by(way), now if way == store.causes_by else "") for way in ways
        ]
        chosen = await self.app.push_screen_wait(Chooser(tr("Group failures by"), choices))
        if chosen is not None:
            store.causes_by = tuple(filter(None, chosen[1].split(",")))
            self.desk.feed.recount()
            self.post_message(Said(tr("failures by {by}", by=grouped_by(store.causes_by))))

    def action_acknowledge(self) -> None:
        rows = self.act_causes()
        if len(rows) > 1:
            self.post_message(Said(tr("one cause at a time: esc clears the marks"), good=False))
        elif rows:
            self.post_message(self.AcknowledgementWished(rows[0]))
        else:
            self.say_nothing_here(tr("no cause is under the cursor"))


class CausesScreen(ListScreen[CauseRow], CauseActs):
    """Failures that are the same but for paths, ids and numbers, as one line."""

    MODE = "causes"
    SCOPES: ClassVar[tuple[Scope, ...]] = (Scope.EVERYWHERE, Scope.TABLE, Scope.CAUSES)

    @dataclass
    class DescriptionWished(Message):
        """The operator wants to know all about this cause."""

        row: CauseRow

    def __init__(self, desk: Desk) -> None:
        super().__init__(desk, desk.causes, CAUSE_COLUMNS)

    def counts(self) -> Sequence[Part]:
        store = self.desk.store
        if not self.is_read:
            return []
        told = f" {counted(len(store.causes.rows), 'cause')}   {counted(store.failures, 'failed task')}"
        by = {name: None for row in store.causes.rows.values() for name, _ in row.of}
        return [Part(told + (tr("   by {by}", by=grouped_by(tuple(by))) if by else ""))]

    @property
    def is_read(self) -> bool:
        return self.desk.store.causes_read

    def nothing(self) -> str:
        return tr("no task has failed")

    def about(self, row: CauseRow) -> Sequence[Part]:
        return (
            Part(f" {row.code}", "bold $text-primary"),
            Part(
                tr("   {count:,} of kind {kind}   {text_}", count=row.count, kind=tr(row.kind), text_=retold(row.text))
            ),
        )

    def act_causes(self) -> list[CauseRow]:
        return self.view.targets()

    @on(LineTable.Opened)
    def _open(self, wish: LineTable.Opened) -> None:
        row = self.view.row(wish.row_id)
        if row is not None:
            self.post_message(self.ModeWished("tasks", where_of(row, self.desk.store)))

    @on(LineTable.Described)
    def _describe(self, wish: LineTable.Described) -> None:
        row = self.view.row(wish.row_id)
        if row is not None:
            self.post_message(self.DescriptionWished(row))


def grouped_by(by: Sequence[str]) -> str:
    """By what failures are grouped, in words."""
    return ", ".join((tr("error"), *map(tr, by)))


def where_of(cause: CauseRow, store: Store) -> str:
    """A filter that its tasks fit; and no others, as far as filters can say that of an error."""
    clauses = ["state:failed", f"cause={cause.code}"]
    others = {row.text for row in store.causes.rows.values() if row.code == cause.code} - {cause.text}
    if others:
        parts = re.split(r"<\w+>|[\"…]", cause.text)
        telling = [part for part in parts if not any(part.casefold() in other.casefold() for other in others)]
        said = max(telling or parts, key=len).strip()
        clauses += [f'error:"{said}"'] if said else []
    for name, value in cause.of:
        if name == "size":
            clauses += size_clauses(value)
        else:
            quote = "'" if '"' in value else '"'
            clauses.append(f"{name}={quote}{value}{quote}" if re.search(r"[\s\"']", value) else f"{name}={value}")
    return " ".join(clauses)


def tasks_of(cause: CauseRow, store: Store) -> list[TaskRow]:
    """The failed tasks of the console's window that died of this."""
    return [row for row in store.tasks.rows.values() if died_of(row, cause)]


def died_of(row: TaskRow, cause: CauseRow) -> bool:
    """Whether that task failed of this cause."""
    if row.status is not TaskStatus.FAILED:
        return False
    has = {"model": row.model, "node": row.node, "size": clean(size_class(size_of(row.size)))}
    if any(has[name] != value for name, value in cause.of):
        return False
    code, _, message = row.error.partition(": ")
    return code == cause.code and clean(in_common(message, paths=(row.image,))) == cause.text

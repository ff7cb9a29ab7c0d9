"""The activity: who did what to which, why, what came of it, and what can still be taken back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from textual import on
from textual.binding import BindingType

from lcq.lang import retold, tr
from tui import acts
from tui.columns import ACT_COLUMNS
from tui.commands import Scope, bindings_of
from tui.desk import Desk
from tui.screens.base import ActWished, RowWished, Said
from tui.screens.listing import ListScreen
from tui.store import ActRow
from tui.text import counted
from tui.widgets.frame import Part
from tui.widgets.table import LineTable


class ActivityScreen(ListScreen[ActRow]):
    """The newest acts of all operators, of programs, and of the cluster itself."""

    MODE = "activity"
    SCOPES: ClassVar[tuple[Scope, ...]] = (Scope.EVERYWHERE, Scope.TABLE, Scope.ACTIVITY)
    BINDINGS: ClassVar[list[BindingType]] = [*bindings_of(Scope.ACTIVITY)]

    def __init__(self, desk: Desk) -> None:
        super().__init__(desk, desk.acts, ACT_COLUMNS)

    def counts(self) -> Sequence[Part]:
        if not self.is_read:
            return []
        rows = self.desk.store.acts.rows.values()
        acts, actors = counted(len(rows), "act"), counted(len({row.actor for row in rows}), "actor")
        if self.desk.store.acts_whole:
            return [Part(tr(" {count}   of {actors}", count=acts, actors=actors))]
        return [Part(tr(" the newest {count}   of {actors}", count=acts, actors=actors))]

    @property
    def is_read(self) -> bool:
        return self.desk.store.acts_read

    def nothing(self) -> str:
        return tr("nobody has done anything yet")

    def about(self, row: ActRow) -> Sequence[Part]:
        return (
            Part(f" {row.act}", "bold $text-primary"),
            Part(
                tr(
                    "   by {actor}   {reason}   {outcome}   {on}",
                    actor=row.actor,
                    reason=row.reason or tr("no reason given"),
                    outcome=retold(row.outcome),
                    on=row.on,
                )
            ),
        )

    @on(LineTable.Opened)
    @on(LineTable.Described)
    def _open(self, wish: LineTable.Opened | LineTable.Described) -> None:
        """To what it was done to: its tasks, or the node or queue."""
        row = self.view.row(wish.row_id)
        ids = _ids_of(row) if row is not None else ()
        if ids:
            self.post_message(self.ModeWished("tasks", f"id:{'|'.join(ids)}"))
            if row is not None and "…" in row.on:
                self.post_message(Said(tr("the audit names {n} of these tasks", n=len(ids))))
        elif row is not None and (place := _place_of(row)) is not None:
            self.post_message(RowWished(*place))
        else:
            self.post_message(Said(tr("this act names no task, node or queue"), good=False))

    def action_undo_act(self) -> None:
        row = self.view.cursor
        if row is None:
            self.say_nothing_here(tr("no act is under the cursor"))
            return
        if row.undo_until_ms <= self.desk.link.now_ms:
            self.post_message(
                Said(tr("{act} by {actor} cannot be taken back any more", act=row.act, actor=row.actor), good=False)
            )
            return
        act = acts.undo(tr("{act} by {actor}", act=row.act, actor=row.actor), (row.command,))
        self.post_message(ActWished(act.made_to_ask()))  # the cursor follows the newest: it may be another's


def _ids_of(row: ActRow) -> tuple[str, ...]:
    """The ids of tasks in what an act was done to."""
    for word in row.on.split():
        name, _, value = word.partition("=")
        if name in ("ids", "tasks"):
            return tuple(one for one in value.split(",") if one.isalnum())
    return ()


def _place_of(row: ActRow) -> tuple[str, str] | None:
    """The view and the name of the node or queue that an act was done to."""
    named = dict(word.split("=", 1) for word in row.on.split() if "=" in word)
    for view, name in (("nodes", "node"), ("queues", "queue")):
        if named.get(name):
            return view, named[name]
    return None

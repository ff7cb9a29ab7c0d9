"""The nodes: who works, who is silent, who was sent home and why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from textual import on
from textual.binding import BindingType
from textual.message import Message

from lcq.lang import retold, tr
from lcq.models import NodeStatus
from tui import acts
from tui.columns import NODE_COLUMNS, NODE_LOOK, Column
from tui.commands import Scope, bindings_of
from tui.desk import Desk
from tui.screens.base import ActWished, ConsoleScreen, LogWished, Said
from tui.screens.listing import ListScreen
from tui.store import NodeRow
from tui.widgets.frame import TONE_STYLE, Part
from tui.widgets.table import LineTable


class NodeActs(ConsoleScreen):
    """A screen of which some nodes are meant by the keys of nodes."""

    BINDINGS: ClassVar[list[BindingType]] = [*bindings_of(Scope.NODES)]

    @dataclass
    class DrainWished(Message):
        """The operator wants this node to finish its work and take no more; it will be asked."""

        row: NodeRow

    @dataclass
    class BlockWished(Message):
        """The operator wants this node to take no new work; why will be asked."""

        row: NodeRow

    def act_nodes(self) -> list[NodeRow]:
        """The nodes that are meant."""
        return []

    def _one(self) -> NodeRow | None:
        rows = self.act_nodes()
        if len(rows) > 1:
            self.post_message(Said(tr("one node at a time: esc clears the marks"), good=False))
            return None
        if not rows:
            self.say_nothing_here(tr("no node is under the cursor"))
        return rows[0] if rows else None

    def action_node_log(self) -> None:
        row = self._one()
        if row is not None:
            self.post_message(LogWished(node=row.id))

    def action_drain(self) -> None:
        row = self._one()
        if row is not None:
            self.post_message(self.DrainWished(row))

    def action_activate(self) -> None:
        row = self._one()
        if row is not None:
            self.post_message(ActWished(acts.activate(row.id)))

    def action_toggle_block(self) -> None:
        row = self._one()
        if row is not None and row.status is NodeStatus.QUARANTINED:
            self.post_message(ActWished(acts.activate(row.id, unblocks=True)))
        elif row is not None:
            self.post_message(self.BlockWished(row))

    def action_stop_node(self) -> None:
        row = self._one()
        if row is not None:
            self.post_message(ActWished(acts.stop_node(row)))


class NodesScreen(ListScreen[NodeRow], NodeActs):
    """Every node that is not forgotten."""

    MODE = "nodes"
    SCOPES: ClassVar[tuple[Scope, ...]] = (Scope.EVERYWHERE, Scope.TABLE, Scope.NODES)

    @dataclass
    class DescriptionWished(Message):
        """The operator wants to know all about this node."""

        row: NodeRow

    def __init__(self, desk: Desk, columns: Sequence[Column[NodeRow]] = NODE_COLUMNS) -> None:
        super().__init__(desk, desk.nodes, columns)

    def counts(self) -> Sequence[Part]:
        rows = list(self.desk.store.nodes.rows.values())
        by_status = Counter(row.status for row in rows)
        live = [row for row in rows if row.status is not NodeStatus.OFFLINE]
        parts = [
            Part(
                tr(
                    " slots {what}/{what2} busy",
                    what=sum(row.running for row in live),
                    what2=sum(row.slots for row in live),
                )
            )
        ]
        parts += [
            Part(
                f"   {by_status[status]} {tr(status)}", TONE_STYLE[NODE_LOOK[status][1]], f"filter_by('state:{status}')"
            )
            for status in NodeStatus
            if by_status[status]
        ]
        return parts

    def states(self) -> Sequence[str]:
        return ("", *(f"state:{status}" for status in NodeStatus))

    def nothing(self) -> str:
        return tr("no node yet: start one with lcq-agent, or lcq up")

    def about(self, row: NodeRow) -> Sequence[Part]:
        where = tr(" on {host}", host=row.host) if row.host and row.host != row.id else ""
        return (
            Part(f" {row.id}", "bold $text-primary"),
            Part("".join(f"   {one.called} {one.function.told}" for one in row.now if one.function), "$text-accent"),
            Part(
                tr(
                    "{where}   {devices}   models {models}",
                    where=where,
                    devices="; ".join(row.devices),
                    models=", ".join(row.models) or tr("none"),
                )
            ),
            Part(f"   {retold(row.why)}" if row.why else "", "$text-warning"),
        )

    @on(LineTable.Opened)
    def _open(self, wish: LineTable.Opened) -> None:
        self.post_message(self.ModeWished("tasks", f"node:{wish.row_id}"))

    @on(LineTable.Described)
    def _describe(self, wish: LineTable.Described) -> None:
        row = self.view.row(wish.row_id)
        if row is not None:
            self.post_message(self.DescriptionWished(row))

    def act_nodes(self) -> list[NodeRow]:
        return self.view.targets()

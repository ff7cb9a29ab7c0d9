"""The keys: who may connect, since when, seen when and from where; revoked from here, behind a question."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import ClassVar

from textual import on
from textual.binding import BindingType

from lcq.lang import N, ntr, tr
from tui import enrolled
from tui.commands import Scope, bindings_of
from tui.desk import Desk
from tui.enrolled import KEY_COLUMNS, KEY_FIELDS, KeyRow, handshakes_told, in_a_filter, key_row
from tui.schedules import minute
from tui.screens.asked import AskedScreen
from tui.screens.base import ActWished, RowWished, Said
from tui.widgets.frame import TONE_STYLE, Part
from tui.widgets.table import LineTable


class KeysScreen(AskedScreen[KeyRow]):
    """Every key that is enrolled, was, or is invited."""

    MODE = "keys"
    SCOPES: ClassVar[tuple[Scope, ...]] = (Scope.EVERYWHERE, Scope.TABLE, Scope.KEYS)
    BINDINGS: ClassVar[list[BindingType]] = [*bindings_of(Scope.KEYS)]
    ONE = N("one key at a time: esc clears the marks")
    NONE = N("no key is under the cursor")

    def __init__(self, desk: Desk) -> None:
        super().__init__(desk, KEY_COLUMNS, KEY_FIELDS, sort="state")
        self._asks_for_keys = True
        self._handshakes = ""

    async def ask(self) -> Iterable[KeyRow]:
        answer, own = await self.desk.commander.keys(), await self.desk.commander.own_key()
        self._asks_for_keys = bool(answer.server_keys)
        self._handshakes = handshakes_told(answer.refused, answer.now_ms)
        return [key_row(record, answer.now_ms, own) for record in answer.keys]

    def states(self) -> Sequence[str]:
        there = {row.state for row in self.shelf.rows.values()}
        return ("", *(f"state:{in_a_filter(state)}" for state in enrolled.STATES if state in there))

    def counts(self) -> Sequence[Part]:
        if not self.is_read:
            return ()
        by_state = Counter(row.state for row in self.shelf.rows.values())
        parts = [Part(f" {ntr('{n} key', '{n} keys', len(self.shelf.rows))}")]
        for state in enrolled.STATES:
            if by_state[state]:
                look = TONE_STYLE[enrolled.LOOK[state][2]]
                parts.append(
                    Part(f"   {by_state[state]} {tr(state)}", look, f"filter_by('state:{in_a_filter(state)}')")
                )
        parts += self.trouble_part()
        if not self._asks_for_keys:
            parts.append(Part(f"   {tr('this scheduler asks for no keys')}", "$text-warning"))
        if self._handshakes:
            parts.append(Part(f"   {self._handshakes}", "$text-warning"))
        return parts

    def nothing(self) -> str:
        if not self._asks_for_keys:
            return tr("this scheduler asks for no keys: it is on loopback, or its network counts as trusted")
        return tr("no key is enrolled: lcq keys init makes the first ones")

    def about(self, row: KeyRow) -> Sequence[Part]:
        seen = tr("seen {time} from {address}", time=minute(row.seen_ms), address=row.address or "--")
        told = [
            tr(row.role),
            tr("revoked {time}", time=minute(row.since_ms)) if row.state == "revoked"
            else tr("since {time}", time=minute(row.since_ms)),
            *([tr("by {who}", who=row.by)] if row.by else []),
            seen if row.seen_ms else tr("has not connected yet"),
            *([tr("ends {time}", time=minute(row.until_ms))] if row.until_ms else []),
            row.id,
        ]  # fmt: skip
        note, tone = enrolled.note(row, self.desk.link.now_ms)
        return (
            Part(f" {row.name}", "bold $text-primary"),
            Part(f"   {note}" if note else "", TONE_STYLE[tone]),
            Part(f"   {'   '.join(told)}"),
        )

    @on(LineTable.Opened)
    @on(LineTable.Described)
    def _open(self, wish: LineTable.Opened | LineTable.Described) -> None:
        """To the node that it speaks for."""
        row = self.view.row(wish.row_id)
        if row is not None and row.node:
            self.post_message(RowWished("nodes", row.node))
        elif row is not None:
            self.post_message(Said(tr("{name} is no node: there is nothing further", name=row.name), good=False))

    def action_revoke_key(self) -> None:
        row = self.one()
        if row is not None and row.state in ("revoked", "used", "replaced"):
            self.say_nothing_here(tr("{name} is let in no more: it is {state}", name=row.name, state=tr(row.state)))
        elif row is not None:
            self.post_message(ActWished(enrolled.revoke(row)))

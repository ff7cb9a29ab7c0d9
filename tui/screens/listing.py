"""A screen with one table: its counts above it, its filter, and a line on the row under the cursor."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import ClassVar, Generic

from textual import on
from textual.containers import Horizontal
from textual.widget import Widget
from textual.widgets import Input

from tui.columns import Column
from tui.commands import Scope
from tui.desk import Desk
from tui.screens.base import ConsoleScreen, Said
from tui.store import RowT
from tui.text import clean
from tui.view import View
from tui.widgets.field import CleanInput
from tui.widgets.frame import OneLine, Part
from tui.widgets.table import LineTable

_TYPING_PAUSE_S = 0.12


class FilterInput(CleanInput):
    """Where the filter is typed. Enter and escape go back to the table."""


class ListScreen(ConsoleScreen, Generic[RowT]):
    """Shows one view of the desk."""

    SCOPES: ClassVar[tuple[Scope, ...]] = (Scope.EVERYWHERE, Scope.TABLE)
    AUTO_FOCUS = "LineTable"

    def __init__(self, desk: Desk, view: View[RowT], columns: Sequence[Column[RowT]]) -> None:
        super().__init__(desk)
        self.view = view
        self._counts_line, self._cursor_line = OneLine(id="counts"), OneLine(id="cursor")
        self._found_line, self._status_line = OneLine(id="found"), OneLine(id="status")
        self._filter_field = FilterInput(id="filter", compact=True, select_on_focus=False, placeholder=self._hint)
        self.table: LineTable[RowT] = LineTable(
            view, columns, lambda: self.desk.link.now_ms, empty=self._why_empty, id="table"
        )

    def on_screen_resume(self) -> None:
        self.desk.view = self.MODE
        self.desk.store.polling_due = True  # what this view alone shows may be old
        super().on_screen_resume()

    def compose_body(self) -> Iterable[Widget]:
        yield self._counts_line
        yield Horizontal(self._found_line, self._filter_field, self._status_line, id="filterline")
        yield self.table
        yield self._cursor_line

    @property
    def _hint(self) -> str:
        return f"words, -word, name:word, name~regex, name<15m with {' '.join(self.view.fields)}"

    # ------------------------------------------------------------ what is shown

    def show_news(self) -> None:
        super().show_news()
        self.table.sync()
        self._show_lines()

    def _show_lines(self) -> None:
        self._counts_line.show(self.counts())
        notes = self._notes()
        typing = self.has_class("-filtering")  # then the Input stands between the two lines
        self._found_line.show(self._found(), () if typing else notes)
        self._status_line.show((), notes)
        row = self.view.cursor
        self._cursor_line.show(self.about(row) if row is not None else ())

    def counts(self) -> Sequence[Part]:
        """The line of counts above the table."""
        return ()

    def about(self, row: RowT) -> Sequence[Part]:
        """The line on the row under the cursor."""
        return (Part(f" {row.id}"),)

    def nothing(self) -> str:
        """What to say where there is no row at all."""
        return ""

    def _why_empty(self) -> str:
        if not self.desk.link.loaded:
            return "reading the cluster …"
        if self.view.total:
            return "nothing fits the filter: esc clears it"
        return self.nothing()

    def _found(self) -> list[Part]:
        found = self.view.filter
        parts = [Part(" / ", "bold $text-primary", "focus_filter")]
        parts.append(Part(found.text or "filter", "bold" if found.text else "$text-muted", "focus_filter"))
        if found.problem:
            parts.append(Part(f"  {found.problem}", "bold $text-error"))
        return parts

    def _notes(self) -> list[Part]:
        view = self.view
        notes = [f"{len(view):,} of {view.total:,}"]
        if self.desk.store.beyond and self.view is self.desk.tasks:
            notes[0] += f", newest of {view.total + self.desk.store.beyond:,}"
        if view.marks:
            hidden = f" ({view.hidden_marks} not shown)" if view.hidden_marks else ""
            notes.append(f"{len(view.marks)} marked{hidden}")
        if view.follow:
            notes.append("FOLLOWING")
        elif view.top:
            notes.append(f"{view.top:,} above")
        return [Part("   ".join(notes) + " ")]

    @on(LineTable.Looked)
    def _looked(self) -> None:
        self._show_lines()

    @on(LineTable.Copied)
    def _copied(self, wish: LineTable.Copied) -> None:
        self.app.copy_to_clipboard(wish.row_id)
        self.post_message(Said(f"sent {wish.row_id} to the terminal's clipboard (inside tmux: set-clipboard on)"))

    # ------------------------------------------------------------ filter

    @on(LineTable.FilterWished)
    def action_focus_filter(self) -> None:
        self.add_class("-filtering")
        self._filter_field.focus()

    def set_filter_text(self, text: str) -> None:
        """Filter by ``text``, as if it had been typed."""
        with self.prevent(Input.Changed):
            self._filter_field.value = text
            self._filter_field.cursor_position = len(text)
        self._filter_by(text)

    def _filter_by(self, text: str) -> None:
        self.view.set_filter(clean(text))
        self.show_news()

    @on(Input.Changed, "#filter")
    def _filter_typed(self, typed: Input.Changed) -> None:
        """Filter when the typing rests: a hundred thousand rows are not searched at every letter."""
        value = typed.value
        self.set_timer(_TYPING_PAUSE_S, lambda: self._filter_if_still(value))

    def _filter_if_still(self, value: str) -> None:
        if self._filter_field.value == value and value != self.view.filter.text:
            self._filter_by(value)

    @on(Input.Submitted, "#filter")
    def _filter_done(self, typed: Input.Submitted) -> None:
        if typed.value != self.view.filter.text:
            self._filter_by(typed.value)
        self._leave_filter()

    def _leave_filter(self) -> None:
        self.remove_class("-filtering")
        self.table.focus()

    # ------------------------------------------------------------ back

    def action_back(self) -> None:
        if self.has_class("-filtering"):
            self._leave_filter()
        elif self.view.marks:
            self.view.marks.clear()
            self.show_news()
        elif self.view.filter.text:
            self.set_filter_text("")
        else:
            self.back_from_list()

    def back_from_list(self) -> None:
        """Nothing is left to clear; a root view stays where it is (q leaves)."""

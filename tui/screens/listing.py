"""A screen with one table: its counts above it, its filter, and a line on the row under the cursor."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import ClassVar, Generic

from textual import on, work
from textual.containers import Horizontal
from textual.widget import Widget
from textual.widgets import Input

from lcq.errors import LcqError
from lcq.lang import retold, retold_error, tr
from tui import export
from tui.columns import Column
from tui.commands import Scope
from tui.desk import Desk
from tui.saved import NEEDS_ATTENTION, SavedView, state_of, toggled, with_state
from tui.screens.base import ConsoleScreen, Said
from tui.screens.choose import AskLine, ColumnsPanel
from tui.screens.dialogs import Choice, Chooser, Question
from tui.store import RowT
from tui.text import cells, clean, counted
from tui.view import View
from tui.widgets.field import CleanInput
from tui.widgets.frame import OneLine, Part
from tui.widgets.table import LineTable

_TYPING_PAUSE_S = 0.12
_SOON_LOOKED_THROUGH = 100  # rows


_SECONDS = re.compile(r"(?<![\w.])\d{1,2}s\b")  # an age that another second makes another, as tui.text.span tells it


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
        self._shows_seconds: bool | None = None  # None: nobody has looked since it was shown
        self._filter_field = FilterInput(id="filter", compact=True, select_on_focus=False, placeholder=self._hint)
        self.table: LineTable[RowT] = LineTable(
            view, columns, lambda: self.desk.link.now_ms, empty=self._why_empty, id="table"
        )

    def on_screen_resume(self) -> None:
        self.desk.view = self.MODE
        self.desk.feed.poke()  # what this view alone shows may be old
        super().on_screen_resume()
        self.desk.look(by_hand=True)

    def compose_body(self) -> Iterable[Widget]:
        yield self._counts_line
        yield Horizontal(self._found_line, self._filter_field, self._status_line, id="filterline")
        yield self.table
        yield self._cursor_line

    @property
    def _hint(self) -> str:
        return tr("words, -word, name:word, name~regex, name<15m with {fields}", fields=" ".join(self.view.fields))

    # ------------------------------------------------------------ what is shown

    def _longest(self) -> dict[str, int]:
        """By the ids of columns, how long the longest is that they hold, where that is soon looked through."""
        if len(self.view) > _SOON_LOOKED_THROUGH:
            return {}
        now = self.desk.link.now_ms
        rows = [row for place in range(len(self.view)) if (row := self.view.row_at(place)) is not None]
        return {
            column.id: max((cells(column.cell(row, now)[0]) for row in rows), default=0)
            for column in self.table.all_columns
            if column.snug
        }

    def show_news(self) -> None:
        super().show_news()
        self.table.fit(self._longest())
        self.table.sync()
        self._show_lines()

    def _show_lines(self) -> None:
        self._shows_seconds = None
        self._counts_line.show(self.counts())
        notes = self._notes()
        typing = self.has_class("-filtering")  # then the Input stands between the two lines
        self._found_line.show(self._found(), () if typing else notes)
        self._status_line.show((), notes)
        row = self.view.cursor
        self._cursor_line.show(self.about(row) if row is not None else ())
        self.desk.look()

    def counts(self) -> Sequence[Part]:
        """The line of counts above the table."""
        return ()

    def about(self, row: RowT) -> Sequence[Part]:
        """The line on the row under the cursor."""
        return (Part(f" {row.id}"),)

    def nothing(self) -> str:
        """What to say where there is no row at all."""
        return ""

    @property
    def is_still(self) -> bool:
        if self.view.filter.timed or not self.desk.feed.is_still:
            return False
        if self._shows_seconds is None:
            lines = (line.text for line in self.query(OneLine) if line.display and line is not self._title_line)
            self._shows_seconds = any(map(_SECONDS.search, (*lines, *self.table.shown_cells)))
        return not self._shows_seconds

    @property
    def is_read(self) -> bool:
        """Whether the cluster has answered what its rows are."""
        return self.desk.link.loaded

    def _why_empty(self) -> str:
        if not self.desk.link.loaded or not self.is_read:
            return tr("reading the cluster …")
        if self.view.total:
            return tr("nothing fits the filter: esc clears it")
        return self.nothing()

    def _found(self) -> list[Part]:
        found = self.view.filter
        parts = [Part(" / ", "bold $text-primary", "focus_filter")]
        parts.append(Part(found.text or tr("filter"), "bold" if found.text else "$text-muted", "focus_filter"))
        if found.problem:
            parts.append(Part(f"  {retold(found.problem)}", "bold $text-error"))
        return parts

    def _notes(self) -> list[Part]:
        view = self.view
        notes = [tr("{count:,} of {total:,}", count=len(view), total=view.total)]
        if self.desk.store.oldest and self.view is self.desk.tasks:
            notes[0] += tr(", newest of {total:,}", total=view.total + self.desk.store.beyond)
            notes += filter(None, (self.desk.older.told,))
        if self.view is self.desk.acts:
            notes += filter(None, (self.desk.older_acts.told,))
        if view.marks:
            hidden = tr(" ({hidden_marks} not shown)", hidden_marks=view.hidden_marks) if view.hidden_marks else ""
            notes.append(tr("{count} marked{hidden}", count=len(view.marks), hidden=hidden))
        if view.follow:
            notes.append(tr("FOLLOWING"))
        elif view.top:
            notes.append(tr("{top:,} above", top=view.top))
        return [Part("   ".join(notes) + " ")]

    @on(LineTable.Looked)
    def _looked(self) -> None:
        self._show_lines()
        self.desk.look(by_hand=True)

    @on(LineTable.Copied)
    def _copied(self, wish: LineTable.Copied) -> None:
        self.app.copy_to_clipboard(wish.row_id)
        self.post_message(
            Said(tr("sent {row_id} to the terminal's clipboard (inside tmux: set-clipboard on)", row_id=wish.row_id))
        )

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
        self.desk.look(by_hand=True)

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

    # ------------------------------------------------------------ ways to look

    def states(self) -> Sequence[str]:
        """The clauses that the counts above the table stand for, from left to right; "" for all."""
        return ()

    def action_filter_by(self, clause: str) -> None:
        """Of the rows only those of this state; the rest of the filter stays."""
        self.set_filter_text(with_state(self.view.filter.text, clause))

    def _step_state(self, step: int) -> None:
        states = list(self.states())
        if not states:
            self.post_message(Said(tr("the rows here have no states to choose from"), good=False))
            return
        now = state_of(self.view.filter.text)
        here = states.index(now) if now in states else 0
        self.action_filter_by(states[(here + step) % len(states)])

    def look_of(self, name: str = "") -> SavedView:
        """How it looks now."""
        view = self.view
        usual = (view.sort, view.descending) == view.home
        return SavedView(
            name, self.MODE, view.filter.text, "" if usual else view.sort, view.descending and not usual,
            self.table.chosen,
        )  # fmt: skip

    def look_so(self, saved: SavedView) -> None:
        """Look as ``saved`` says."""
        self.table.choose(saved.columns)
        sort, descending = (saved.sort, saved.descending) if saved.sort in self.view.sorts else self.view.home
        self.view.set_sort(sort, descending=descending)
        self.set_filter_text(saved.filter_text)

    @on(LineTable.Wished)
    def _wished(self, wish: LineTable.Wished) -> None:
        match wish.command_id:
            case "next_state":
                self._step_state(1)
            case "previous_state":
                self._step_state(-1)
            case "attention":
                self._toggle_attention()
            case "sort_menu":
                self._choose_order()
            case "choose_columns":
                self._choose_columns()
            case "copy_json":
                self._copy_json()
            case "save_rows":
                self._save_rows()

    def _toggle_attention(self) -> None:
        if "needs" in self.view.fields:
            self.set_filter_text(toggled(self.view.filter.text, NEEDS_ATTENTION))
        else:
            self.post_message(Said(tr("here everything is told that needs attention, or nothing: see 2, 3 and 4")))

    @work(group="panel", exclusive=True)
    async def _choose_order(self) -> None:
        now, way = self.view.sort, tr("descending") if self.view.descending else tr("ascending")
        choices = [
            Choice(
                ("sort", column.id),
                column.shown_title,
                tr("now, {way}: enter turns it round", way=way) if column.id == now else "",
            )
            for column in self.table.all_columns
        ]
        choices.sort(key=lambda choice: choice.value[1] != now)
        chosen = await self.app.push_screen_wait(Chooser(tr("Order by"), choices))
        if chosen is None:
            return
        if chosen[1] == now:
            self.table.action_reverse()
        else:
            self.table.sort_by(chosen[1])

    @work(group="panel", exclusive=True)
    async def _choose_columns(self) -> None:
        shown = [column.id for column in self.table.columns]
        chosen = await self.app.push_screen_wait(ColumnsPanel(self.table.all_columns, shown))
        if chosen is not None:
            self.table.choose(chosen)
            self.show_news()

    # ------------------------------------------------------------ taking rows away

    def _copy_json(self) -> None:
        rows = self.view.targets()
        if not rows:
            self.post_message(Said(tr("nothing to copy: no row is under the cursor"), good=False))
            return
        now = self.desk.link.now_ms
        text = export.as_json(export.values_of(row, self.view.fields, now) for row in rows)
        size = len(text.encode())
        if size > export.CLIPBOARD_BYTES:
            told = tr(
                "{count} are {size} kB, too much for a terminal's clipboard: S saves them",
                count=counted(len(rows), "row"),
                size=size // 1000,
            )
            self.post_message(Said(told, good=False))
            return
        self.app.copy_to_clipboard(text)
        told = tr(
            "sent {count} as JSON to the terminal's clipboard (inside tmux: set-clipboard on)",
            count=counted(len(rows), "row"),
        )
        self.post_message(Said(told))

    @work(group="panel", exclusive=True)
    async def _save_rows(self) -> None:
        rows, what = (self.view.targets(), tr("marked")) if self.view.marks else (list(self.view.rows()), tr("shown"))
        if not rows:
            self.post_message(Said(tr("nothing to save: no row is shown"), good=False))
            return
        now, fields = self.desk.link.now_ms, self.view.fields
        hint = tr("{what} is here; .csv or .json; enter saves", what=_file_of("."))
        title = tr("Save the {count} {what} as", count=counted(len(rows), "row"), what=what)
        name = await self.app.push_screen_wait(AskLine(title, value=export.proposed_name(self.MODE, now), hint=hint))
        if name is None:
            return
        path = _file_of(name)

        def write(*, overwrite: bool = False) -> int:
            return export.write_rows(path, [export.values_of(row, fields, now) for row in rows], overwrite=overwrite)

        try:
            try:
                size = await asyncio.to_thread(write)
            except export.FileIsThere:
                question = Question(
                    tr("Overwrite {path}?", path=path), (tr("A file of that name is there."),), tr("Yes, overwrite it")
                )
                if await self.app.push_screen_wait(question) is None:
                    self.post_message(Said(tr("{path} was left as it is", path=path)))
                    return
                size = await asyncio.to_thread(write, overwrite=True)
        except LcqError as error:
            self.post_message(Said(tr("not saved: {error}", error=retold_error(error)), good=False))
        else:
            self.post_message(
                Said(
                    tr(
                        "saved {count} in {path} ({size:,} bytes, yours alone to read)",
                        count=counted(len(rows), "row"),
                        path=path,
                        size=size,
                    )
                )
            )

    # ------------------------------------------------------------ back

    def action_back(self) -> None:
        if self.has_class("-filtering"):
            self._leave_filter()
        elif self.view.marks:
            self.view.marks.clear()
            self.show_news()
        elif self.view.filter.text and self.desk.drilled == (self.MODE, self.view.filter.text):
            self.desk.drilled = None
            self.post_message(self.HistoryWished(-1))  # to the row that led here, as it was left
        elif self.view.filter.text:
            self.set_filter_text("")
        else:
            self.back_from_list()

    def back_from_list(self) -> None:
        """Nothing is left to clear; a root view stays where it is (q leaves)."""


def _file_of(typed: str) -> Path:
    """The file that somebody typed the name of."""
    return Path(typed).expanduser().absolute()

"""The panels in which one chooses how to look: saved views, columns, a name. Each answers what was chosen, or None."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar

from textual import on, work
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Input, OptionList, Static
from textual.widgets.option_list import Option

from lcq.errors import LcqError
from lcq.lang import retold_error, tr
from tui.columns import Column
from tui.commands import Scope, bindings_of
from tui.saved import LONGEST_NAME, SavedView, SavedViews
from tui.screens.dialogs import Choosing, Question
from tui.text import cells, clean, fit
from tui.widgets.field import CleanInput

_LONGEST_LINE = 1000


class AskLine(ModalScreen["str | None"]):
    """Asks for one line: a name, a file."""

    SCOPES: ClassVar[tuple[Scope, ...]] = (Scope.PANEL,)
    BINDINGS: ClassVar[list[BindingType]] = [*bindings_of(Scope.PANEL)]
    AUTO_FOCUS = "Input"

    def __init__(self, title: str, *, value: str = "", hint: str = "", longest: int = _LONGEST_LINE) -> None:
        super().__init__()
        self._title, self._value, self._hint, self._longest = title, value, hint, longest

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog"):
            yield Static(Content(clean(self._title)), classes="dialog-title")
            yield CleanInput(self._value, max_length=self._longest, id="line", compact=True, select_on_focus=False)
            yield Static(Content(clean(self._hint or tr("enter goes on, esc leaves it"))), classes="dialog-hint")

    @on(Input.Submitted, "#line")
    def _given(self, typed: Input.Submitted) -> None:
        if typed.value.strip():
            self.dismiss(typed.value.strip())

    def action_shut(self) -> None:
        self.dismiss(None)


class ViewsPanel(Choosing["SavedView | None"]):
    """The saved views: enter looks so; what is looked at now can be kept, and one's own can be deleted."""

    SCOPES: ClassVar[tuple[Scope, ...]] = (Scope.PANEL, Scope.CHOICE, Scope.VIEWS)
    BINDINGS: ClassVar[list[BindingType]] = [*bindings_of(Scope.VIEWS)]

    def __init__(self, saved: SavedViews, present: SavedView | None) -> None:
        """``present``: how it looks now; None where that is no list."""
        super().__init__()
        self._saved, self._present = saved, present
        self._shown: tuple[SavedView, ...] = ()

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog wide"):
            yield Static(Content(tr("Saved views")), classes="dialog-title")
            yield OptionList(compact=True)
            yield Static(classes="dialog-hint", id="views-hint")

    def on_mount(self) -> None:
        self._fill()

    def _fill(self, at: str = "") -> None:
        self._shown = self._saved.all
        wide = max(cells(view.shown_name) for view in self._shown)
        listed = self.query_one(OptionList)
        listed.clear_options()
        listed.add_options(
            Option(Content(f"{fit(view.shown_name, wide)}  {'' if not view.shipped else '(LCQ) '}{view.told}"))
            for view in self._shown
        )
        names = [view.name for view in self._shown]
        listed.highlighted = names.index(at) if at in names else 0
        self._hint(self._saved.problem or tr("enter looks so, s keeps how it looks now, D deletes yours, esc closes"))

    def _hint(self, text: str) -> None:
        self.query_one("#views-hint", Static).update(Content(clean(text)))

    @on(OptionList.OptionSelected)
    def _chosen(self, chosen: OptionList.OptionSelected) -> None:
        self.dismiss(self._shown[chosen.option_index])

    def action_shut(self) -> None:
        self.dismiss(None)

    @work(exclusive=True)
    async def action_keep_view(self) -> None:
        if self._present is None:
            self._hint(tr("here is no list whose look could be kept: esc, then go to one"))
            return
        title = tr("Keep {told} as", told=self._present.told)
        name = await self.app.push_screen_wait(AskLine(title, longest=LONGEST_NAME, hint=tr("a name; enter keeps it")))
        if name is None:
            return
        if name in self._saved:
            question = Question(tr("Replace the view {name!r}?", name=name), (), tr("Yes, replace it"))
            if await self.app.push_screen_wait(question) is None:
                return
        try:
            self._saved.save(replace(self._present, name=name))
        except LcqError as error:
            self._hint(retold_error(error))
        else:
            self._fill(name)

    @work(exclusive=True)
    async def action_delete_view(self) -> None:
        at = self.query_one(OptionList).highlighted
        view = self._shown[at] if at is not None else None
        if view is None or view.shipped:
            self._hint(tr("this one came with LCQ and stays"))
            return
        question = Question(tr("Delete the view {name!r}?", name=view.name), (view.told,), tr("Yes, delete it"))
        if await self.app.push_screen_wait(question) is None:
            return
        try:
            self._saved.delete(view.name)
        except LcqError as error:
            self._hint(retold_error(error))
        else:
            self._fill()


class ColumnsPanel(Choosing["tuple[str, ...] | None"]):
    """Which columns a table shows, and in which order: their ids; () for the usual ones."""

    SCOPES: ClassVar[tuple[Scope, ...]] = (Scope.PANEL, Scope.CHOICE, Scope.COLUMNS)
    BINDINGS: ClassVar[list[BindingType]] = [*bindings_of(Scope.COLUMNS)]

    def __init__(self, columns: Sequence[Column[Any]], shown: Sequence[str]) -> None:
        super().__init__()
        titles = {column.id: column.shown_title for column in columns}
        self._titles = titles
        self._order = [*shown, *(one for one in titles if one not in shown)]
        self._shown = set(shown)

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog"):
            yield Static(Content(tr("Columns")), classes="dialog-title")
            yield OptionList(compact=True)
            yield Static(
                Content(tr("space shows, J K move, u as usual, enter is done, esc leaves it")),
                classes="dialog-hint",
            )

    def on_mount(self) -> None:
        self._fill(0)

    def _fill(self, at: int) -> None:
        listed = self.query_one(OptionList)
        listed.clear_options()
        listed.add_options(
            Option(Content(f"[{'x' if one in self._shown else ' '}] {self._titles[one]}")) for one in self._order
        )
        listed.highlighted = at

    @property
    def _at(self) -> int:
        return self.query_one(OptionList).highlighted or 0

    @on(OptionList.OptionSelected)
    def _done(self) -> None:
        self.dismiss(tuple(one for one in self._order if one in self._shown))

    def action_toggle_column(self) -> None:
        self._shown ^= {self._order[self._at]}
        self._fill(self._at)

    def _move(self, step: int) -> None:
        here = self._at
        there = here + step
        if 0 <= there < len(self._order):
            self._order[here], self._order[there] = self._order[there], self._order[here]
            self._fill(there)

    def action_column_up(self) -> None:
        self._move(-1)

    def action_column_down(self) -> None:
        self._move(1)

    def action_usual_columns(self) -> None:
        self.dismiss(())

    def action_shut(self) -> None:
        self.dismiss(None)

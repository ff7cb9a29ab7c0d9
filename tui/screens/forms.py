"""The forms of acts that ask for more than yes or no."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.content import Content
from textual.screen import ModalScreen
from textual.suggester import SuggestFromList
from textual.widgets import Button, Input, Select, Static

from lcq.changing import Changes, differences, parameters_of, read_parameters
from lcq.errors import InvalidInput
from lcq.lang import retold_error, tr
from lcq.models import TaskPriority, TaskRecord
from lcq.moments import moment_or_none
from lcq.spans import read_span
from tui.acts import Act
from tui.changing import again
from tui.commands import Scope, bindings_of
from tui.screens.dialogs import Choice, Question
from tui.screens.submit import here
from tui.text import clean, no_markup
from tui.widgets.field import CleanInput

_AS_IT_IS = ""
_SHOWN_IDS = 3


class DrainQuestion(Question):
    """Asks why a node is drained, and whether what it runs may take its time or is handed back at a deadline."""

    deadline_s: float | None = None  # None: it finishes what it runs, however long that takes

    def compose_more(self) -> ComposeResult:
        yield CleanInput(
            placeholder=tr("finish by, such as 10m; then hand back. Empty: finish, however long"), id="deadline",
            compact=True, max_length=20,
        )  # fmt: skip
        yield Static(id="deadline-error", markup=False)

    def action_agree(self) -> None:
        typed = self.query_one("#deadline", Input).value.strip()
        try:
            self.deadline_s = read_span(typed, named=tr("the deadline")).total_seconds() if typed else None
        except InvalidInput as wrong:
            self.query_one("#deadline-error", Static).update(
                Content(clean(tr("not done: {wrong}", wrong=retold_error(wrong))))
            )
            self.query_one("#deadline").focus()
            return
        super().action_agree()

    @on(Input.Submitted, "#deadline")
    def _deadline_given(self) -> None:
        self.query_one("#no").focus()


class DeadlineQuestion(Question):
    """Asks by when tasks are to be done, in the words of ``lcq submit --deadline``."""

    FIRST = "#deadline"
    deadline: datetime | None = None

    def compose_more(self) -> ComposeResult:
        yield CleanInput(
            placeholder=tr("17:30, 2026-12-24 09:00, 90m, 2h, or none"), id="deadline", compact=True, max_length=40
        )
        yield Static(id="deadline-error", markup=False)

    def action_agree(self) -> None:
        try:
            self.deadline = moment_or_none(self.query_one("#deadline", Input).value, datetime.now().astimezone())
        except InvalidInput as wrong:
            told = tr("not done: {wrong}", wrong=retold_error(wrong))
            self.query_one("#deadline-error", Static).update(Content(clean(told)))
            self.query_one("#deadline").focus()
            return
        super().action_agree()

    @on(Input.Submitted, "#deadline")
    def _deadline_given(self) -> None:
        self.action_agree()


class SilenceQuestion(Question):
    """Asks why nobody is to be told of an alert, and for how long."""

    seconds = 7200.0

    def compose_more(self) -> ComposeResult:
        yield CleanInput(
            "2h", placeholder=tr("for how long, such as 30m or 2h"), id="span", compact=True, max_length=20
        )
        yield Static(id="span-error", markup=False)

    def action_agree(self) -> None:
        typed = self.query_one("#span", Input).value.strip()
        try:
            self.seconds = read_span(typed, named=tr("the time")).total_seconds()
            if self.seconds < 1:
                raise InvalidInput("the time is a second or more")
        except InvalidInput as wrong:
            told = tr("not done: {wrong}", wrong=retold_error(wrong))
            self.query_one("#span-error", Static).update(Content(clean(told)))
            self.query_one("#span").focus()
            return
        super().action_agree()

    @on(Input.Submitted, "#span")
    def _span_given(self) -> None:
        self.query_one("#no").focus()


class ChangeForm(ModalScreen[Act | None]):
    """Tasks as they are, to be done again with something changed. Answers the act that does it, or None.

    Says at every key what differs, and whether the same tasks go or new ones are made. Where several tasks differ in
    something, its field is empty: left so, each keeps its own.
    """

    SCOPES: ClassVar[tuple[Scope, ...]] = (Scope.PANEL,)
    BINDINGS: ClassVar[list[BindingType]] = [
        *bindings_of(Scope.PANEL),
        # First of all: without priority the focus moves after the keys that follow have gone to the old field.
        Binding("tab", "app.focus_next", show=False, priority=True),
        Binding("shift+tab", "app.focus_previous", show=False, priority=True),
    ]
    AUTO_FOCUS = "#model"

    def __init__(
        self, title: str, records: Sequence[TaskRecord], places: Sequence[Choice], models: Sequence[str], *, anew: bool
    ) -> None:
        """``anew``: new tasks in any case, whose files can be others too."""
        super().__init__()
        self._title, self._records, self._places, self._models = title, records, places, models
        self._anew = anew
        self._begun: dict[str, str] = {}

    def _common(self, of: Callable[[TaskRecord], str]) -> str:
        """What all tasks have in common; empty where they differ."""
        found = {of(record) for record in self._records}
        return next(iter(found)) if len(found) == 1 else ""

    def compose(self) -> ComposeResult:
        ids = ", ".join(record.id for record in self._records[:_SHOWN_IDS])
        more = " …" if self._records[_SHOWN_IDS:] else ""
        self._begun = {
            "model": self._common(lambda one: one.task.model),
            "parameters": self._common(lambda one: parameters_of(one.task)),
            "timeout": self._common(lambda one: f"{one.task.timeout_s:g}"),
            "retries": self._common(lambda one: str(one.task.max_retries)),
        }
        if self._anew:
            self._begun |= {
                "image": self._common(lambda one: one.task.image_path),
                "mask": self._common(lambda one: one.task.mask_path or ""),
                "output": self._common(lambda one: one.task.output_path or ""),
            }
        with Vertical(classes="dialog wide"):
            yield Static(Content(clean(f"{self._title}: {ids}{more}")), classes="dialog-title")
            with VerticalScroll(id="form", can_focus=False):
                for name in ("image", "mask", "output") if self._anew else ():
                    yield from self._row(tr(name.capitalize()), self._input(name))
                yield from self._row(tr("Model"), self._input("model", suggester=SuggestFromList(self._models)))
                yield from self._row(tr("Engine"), self._input("parameters", hint="radius=5 format=png …"))
                yield from self._row(tr("Time-out"), self._input("timeout", hint=tr("seconds, or 10m")))
                yield from self._row(tr("Retries"), self._input("retries"))
                yield from self._row(tr("Place"), self._place())
                yield from self._row(tr("Priority"), self._priority())
            yield Static(id="form-differs", markup=False)
            yield Static(id="form-error", markup=False)
            with Horizontal(classes="dialog-buttons"):
                go = tr("Submit (enter)") if self._anew else tr("Retry (enter)")
                yield Button(Content(go), id="send", compact=True, variant="primary")
                yield Button(Content(tr("Close (esc)")), id="close", compact=True)

    @staticmethod
    def _row(label: str, field: Input | Select[str]) -> ComposeResult:
        yield Horizontal(Static(Content(label), classes="label"), field, classes="row")

    def _input(self, name: str, *, hint: str = "", suggester: SuggestFromList | None = None) -> CleanInput:
        placeholder = hint if len(self._records) == 1 else tr("as each has it")
        return CleanInput(
            clean(self._begun[name]), id=name, compact=True, placeholder=placeholder, suggester=suggester,
            select_on_focus=False,
        )  # fmt: skip

    def _place(self) -> Select[str]:
        as_it_is = tr("by routing") if self._anew else tr("where it was")
        options = [(no_markup(choice.name), f"{choice.value[0]} {choice.value[1]}") for choice in self._places]
        return Select([(as_it_is, _AS_IT_IS), *options], value=_AS_IT_IS, allow_blank=False, id="place", compact=True)

    def _priority(self) -> Select[str]:
        common = self._common(lambda one: str(one.priority))
        options = [(tr(priority), str(priority)) for priority in TaskPriority]
        if not common:
            options = [(tr("as each has it"), _AS_IT_IS), *options]
        return Select(options, value=common, allow_blank=False, id="priority", compact=True)

    def on_mount(self) -> None:
        self._foresee()

    # ------------------------------------------------------------ what is typed

    def _changed(self, name: str) -> str | None:
        """What stands in a field now, None where that is as it was."""
        typed = self.query_one(f"#{name}", Input).value.strip()
        return None if typed == clean(self._begun[name]).strip() else typed

    def _chosen(self, name: str) -> str:
        value: object = self.query_one(f"#{name}", Select).value
        return value if isinstance(value, str) else ""

    def _changes(self) -> Changes:
        """Raises:
        InvalidInput: a field holds what cannot be.
        """
        kind, _, place = self._chosen("place").partition(" ")
        priority = self._chosen("priority")
        wanted = TaskPriority(priority) if priority else None
        if wanted is not None and all(record.priority is wanted for record in self._records):
            wanted = None
        parameters, timeout, retries = (self._changed(name) for name in ("parameters", "timeout", "retries"))
        seconds = read_span(timeout, named=tr("the time-out")).total_seconds() if timeout else None
        if seconds is not None and not (math.isfinite(seconds) and seconds > 0):
            raise InvalidInput("the time-out is more than nothing")
        if retries and not retries.isdecimal():
            raise InvalidInput(f"retries are a number, found {retries!r}")
        image, mask, output = (
            (self._changed(name) for name in ("image", "mask", "output")) if self._anew else (None,) * 3
        )
        return Changes(
            model=self._changed("model") or None,
            parameters=None if parameters is None else read_parameters(parameters),
            timeout_s=seconds,
            max_retries=int(retries) if retries else None,
            image=here(image) if image else None,
            mask=None if mask is None else here(mask) if mask else "",
            output=here(output) if output else None,
            queue=place if kind == "queue" else "",
            node=place if kind == "node" else "",
            priority=wanted,
            anew=self._anew,
        )

    def _act(self) -> Act:
        """Raises:
        InvalidInput: what is typed cannot be done.
        """
        return again(self._records, self._changes())

    @on(Input.Changed)
    @on(Select.Changed)
    def _foresee(self) -> None:
        """Say what would be otherwise, and what would go."""
        differs, complaint = self.query_one("#form-differs", Static), self.query_one("#form-error", Static)
        try:
            changes = self._changes()
            act = again(self._records, changes)
        except InvalidInput as wrong:
            differs.update("")
            complaint.update(Content(clean(retold_error(wrong))))
            return
        which = tr("the same task") if len(act.ids) == 1 else tr("the same tasks")
        if changes.makes_new:
            which = (
                tr("a new task; the old one stays as it is")
                if len(act.ids) == 1
                else tr("new tasks; the old ones stay")
            )
        lines = [f"{act.title}: {which}", *differences(self._records, changes), *filter(None, (act.skipped,))]
        if not act.ids:
            lines = [tr("nothing to do: {skipped}", skipped=act.skipped)]
        differs.update(Content(clean("; ".join(lines))))
        complaint.update("")

    @on(Input.Submitted)
    @on(Button.Pressed, "#send")
    def _send(self) -> None:
        try:
            act = self._act()
        except InvalidInput as wrong:
            self.query_one("#form-error", Static).update(
                Content(clean(tr("not done: {wrong}", wrong=retold_error(wrong))))
            )
            return
        if act.ids:
            self.dismiss(act)
        else:
            self.query_one("#form-error", Static).update(
                Content(clean(tr("nothing to do: {skipped}", skipped=act.skipped)))
            )

    @on(Button.Pressed, "#close")
    def _close(self) -> None:
        self.dismiss(None)

    def action_shut(self) -> None:
        self.dismiss(None)

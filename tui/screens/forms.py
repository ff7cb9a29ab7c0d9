"""The forms of acts that ask for more than yes or no."""

from __future__ import annotations

from textual import on
from textual.app import ComposeResult
from textual.content import Content
from textual.widgets import Input, Static

from lcq.errors import InvalidInput
from tui.screens.dialogs import Question
from tui.spans import read_span
from tui.text import clean
from tui.widgets.field import CleanInput


class DrainQuestion(Question):
    """Asks why a node is drained, and whether what it runs may take its time or is handed back at a deadline."""

    deadline_s: float | None = None  # None: it finishes what it runs, however long that takes

    def compose_more(self) -> ComposeResult:
        yield CleanInput(
            placeholder="finish by, such as 10m; then hand back. Empty: finish, however long", id="deadline",
            compact=True, max_length=20,
        )  # fmt: skip
        yield Static(id="deadline-error", markup=False)

    def action_agree(self) -> None:
        typed = self.query_one("#deadline", Input).value.strip()
        try:
            self.deadline_s = read_span(typed, named="the deadline").total_seconds() if typed else None
        except InvalidInput as wrong:
            self.query_one("#deadline-error", Static).update(Content(clean(f"not done: {wrong}")))
            self.query_one("#deadline").focus()
            return
        super().action_agree()

    @on(Input.Submitted, "#deadline")
    def _deadline_given(self) -> None:
        self.query_one("#no").focus()

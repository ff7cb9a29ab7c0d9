"""What is shown instead of a broken layout where the terminal is too small for any."""

from __future__ import annotations

from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import BindingType
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Static

from lcq.lang import tr
from tui.commands import Scope

SMALLEST = (41, 11)
"""Columns and lines from which on there is a layout."""


def is_too_small(width: int, height: int) -> bool:
    return width < SMALLEST[0] or height < SMALLEST[1]


class SizeNote(ModalScreen[None]):
    """Says how large the terminal is and how large it has to be. No key does anything here: what it would fall on
    cannot be seen."""

    SCOPES: ClassVar[tuple[Scope, ...]] = ()
    BINDINGS: ClassVar[list[BindingType]] = []
    AUTO_FOCUS = ""

    def compose(self) -> ComposeResult:
        yield Static(id="size-note", markup=False)

    def on_mount(self) -> None:
        self._say()

    def on_resize(self) -> None:
        self._say()

    def _say(self) -> None:
        width, height = self.size
        lines = (
            tr("LCQ: {width}x{height} is too small", width=width, height=height),
            tr("it needs {smallest}x{smallest2} or more", smallest=SMALLEST[0], smallest2=SMALLEST[1]),
            tr("make the window larger, or the font smaller"),
            tr("the cluster works on; ctrl-q leaves"),
        )
        self.query_one("#size-note", Static).update(Content("\n".join(lines[: max(1, height)])))

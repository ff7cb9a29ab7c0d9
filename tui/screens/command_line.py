"""The line in which a command is typed: says what it would do while it is typed, completes it, knows earlier ones."""

from __future__ import annotations

import asyncio
from typing import ClassVar

from textual import events, on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.message import Message
from textual.screen import ModalScreen
from textual.suggester import Suggester
from textual.widgets import Input, Static

from lcq.errors import InvalidInput
from lcq.lang import retold_error, tr
from tui.commands import Scope, bindings_of
from tui.line import LineHistory, Meant, Scene, complete, line_commands, understand
from tui.text import clean
from tui.widgets.field import CleanInput

_LONGEST = 2000
_TYPING_PAUSE_S = 0.1  # a hundred thousand rows are not searched at every letter


class _Completions(Suggester):
    """The likeliest way on, shown behind what is typed; right takes it."""

    def __init__(self, scene: Scene) -> None:
        super().__init__(use_cache=False, case_sensitive=True)
        self._scene = scene

    async def get_suggestion(self, value: str) -> str | None:
        return next(iter(complete(value, self._scene)), None) if value.strip() else None


class LineInput(CleanInput):
    """An input in which tab goes through the completions, and up and down through earlier lines."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("tab", "complete(1)", show=False),
        Binding("shift+tab", "complete(-1)", show=False),
        Binding("up", "earlier(1)", show=False),
        Binding("down", "earlier(-1)", show=False),
    ]

    class CompleteWished(Message):
        """The operator wants the next completion, or the one before."""

        def __init__(self, steps: int) -> None:
            super().__init__()
            self.steps = steps

    class EarlierWished(Message):
        """The operator wants an earlier line, or a later one."""

        def __init__(self, steps: int) -> None:
            super().__init__()
            self.steps = steps

    def action_complete(self, steps: int) -> None:
        self.post_message(self.CompleteWished(steps))

    def action_earlier(self, steps: int) -> None:
        self.post_message(self.EarlierWished(steps))

    def put(self, text: str) -> None:
        """Have ``text`` there, the cursor behind it."""
        self.value = text
        self.cursor_position = len(text)


class CommandLine(ModalScreen[Meant | None]):
    """Answers what was meant, or None. What means nothing is told, and stays to be mended."""

    SCOPES: ClassVar[tuple[Scope, ...]] = (Scope.PANEL,)
    BINDINGS: ClassVar[list[BindingType]] = [*bindings_of(Scope.PANEL)]
    AUTO_FOCUS = "#command"

    def __init__(self, scene: Scene, history: LineHistory, text: str = "") -> None:
        super().__init__()
        self._scene, self._history = scene, history
        self._field = LineInput(
            text, id="command", compact=True, max_length=_LONGEST, select_on_focus=False,
            suggester=_Completions(scene),
            placeholder=tr("move @marked --to QUEUE, retry 'state:failed', … tab completes"),
        )  # fmt: skip
        self._told = Static(id="command-told", markup=False)  # by name it is not found once the line is being left
        self._offers: list[str] = []
        self._offer = -1
        self._back = 0  # how far back in the history
        self._typed = text

    def compose(self) -> ComposeResult:
        with Vertical(id="command-box"):
            yield self._told
            yield Horizontal(Static(Content(" : "), id="command-mark"), self._field, id="command-row")

    def _tell(self, text: str, style: str = "$text-muted") -> None:
        self._told.update(Content.styled(clean(text), style))
        self._told.display = bool(text)

    def on_mount(self) -> None:
        self._field.cursor_position = len(self._field.value)
        self._foresee(self._field.value)

    @on(Input.Changed, "#command")
    def _changed(self, typed: Input.Changed) -> None:
        if typed.value not in self._offers:
            self._offers, self._offer = [], -1
        self._foresee(typed.value)

    @work(exclusive=True, group="foresee")
    async def _foresee(self, text: str) -> None:
        """Say what the line would do, when the typing rests."""
        if not text.strip():
            self._tell(", ".join(line_commands()))
            return
        await asyncio.sleep(_TYPING_PAUSE_S)
        try:
            meant = await asyncio.to_thread(understand, text, self._scene)
        except InvalidInput as wrong:
            command = line_commands().get(text.split()[0])
            usage = f"   :{command.called} {command.takes}" if command is not None and command.takes else ""
            self._tell(f"{retold_error(wrong)}{usage}", "$text-warning")
        else:
            self._tell(tr("would: {forecast}", forecast=meant.forecast), "$text-success")

    @on(LineInput.CompleteWished)
    def _complete(self, wish: LineInput.CompleteWished) -> None:
        if not self._offers:
            self._offers = complete(self._field.value, self._scene)
            self._offer = -1 if wish.steps > 0 else 0
        if self._offers:
            self._offer = (self._offer + wish.steps) % len(self._offers)
            self._field.put(self._offers[self._offer])
            if len(self._offers) == 1:
                self._offers = []

    @on(LineInput.EarlierWished)
    def _earlier(self, wish: LineInput.EarlierWished) -> None:
        if self._back == 0:
            self._typed = self._field.value
        self._back, line = self._history.step(self._back, wish.steps)
        self._field.put(self._typed if line is None else line)

    @on(Input.Submitted, "#command")
    def _given(self, typed: Input.Submitted) -> None:
        if not typed.value.strip():
            self.dismiss(None)
            return
        self._understand(typed.value)

    @work(exclusive=True, group="foresee")
    async def _understand(self, text: str) -> None:
        try:
            meant = await asyncio.to_thread(understand, text, self._scene)
        except InvalidInput as wrong:
            self._tell(tr("not done: {wrong}", wrong=retold_error(wrong)), "bold $text-error")
            return
        if self.is_current:  # else the note of a small terminal stands over it, and that would be closed
            self._history.note(text.strip())
            self.dismiss(meant)

    def on_click(self, event: events.Click) -> None:
        if event.widget is self:  # beside the line
            self.dismiss(None)

    def action_shut(self) -> None:
        self.dismiss(None)

"""The form for a new task. What is wrong with an entry is said in the form, and nothing typed is lost."""

from __future__ import annotations

import asyncio
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from textual import on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.content import Content
from textual.screen import ModalScreen
from textual.suggester import SuggestFromList
from textual.widgets import Button, Input, Select, Static

from lcq.errors import InvalidInput, LcqError, UnknownCommand
from lcq.lang import N, retold_error, tr
from lcq.models import DEFAULT_MODEL, TaskPriority
from tui.commands import Scope, bindings_of
from tui.source import Commander, trouble_of
from tui.submitting import Wish, prepare, told
from tui.text import clean, no_markup
from tui.widgets.field import CleanInput

ROUTED = N("by routing")
STAYS = N("no: its pictures stay in the house")
MAY_LEAVE = N("yes, exportable: functions may work on it")
_TYPING_PAUSE_S = 0.3


def here(path: str) -> str:
    """A path as the nodes will read it: made absolute from where the console runs."""
    return str(Path(path).expanduser().absolute())


class SubmitForm(ModalScreen[Wish | None]):
    """Answers what was asked for, or None. Says at every key where that would go, and when it would be done."""

    SCOPES: ClassVar[tuple[Scope, ...]] = (Scope.PANEL,)
    BINDINGS: ClassVar[list[BindingType]] = [
        *bindings_of(Scope.PANEL),
        # First of all: without priority the focus moves after the keys that follow have gone to the old field.
        Binding("tab", "app.focus_next", show=False, priority=True),
        Binding("shift+tab", "app.focus_previous", show=False, priority=True),
    ]
    AUTO_FOCUS = "#image"

    def __init__(self, *, user: str, queues: Sequence[str], models: Sequence[str], commander: Commander) -> None:
        super().__init__()
        self._user, self._queues, self._models = user, queues, models
        self._commander = commander
        self._warned = ""
        self._told_of: Wish | None = None  # of which the dry run on the screen is

    def compose(self) -> ComposeResult:
        known = ", ".join(self._models)
        with Vertical(classes="dialog wide"):
            yield Static(Content(tr("Submit a task")), classes="dialog-title")
            with VerticalScroll(id="form", can_focus=False):
                yield from self._row(
                    tr("Image"),
                    CleanInput(id="image", compact=True, placeholder=tr("a path, several in quotes, or a folder")),
                )
                yield from self._row(
                    tr("Mask"),
                    CleanInput(
                        id="mask", compact=True, placeholder=tr("a file for all, or a folder; default: NAME_mask.EXT")
                    ),
                )
                yield from self._row(
                    tr("Model"),
                    CleanInput(
                        value=DEFAULT_MODEL, id="model", compact=True, placeholder=known,
                        suggester=SuggestFromList(self._models),
                    ),
                )  # fmt: skip
                yield from self._row(
                    tr("Queue"),
                    Select(
                        [(tr(ROUTED), ""), *((no_markup(queue), queue) for queue in self._queues)],
                        value="", allow_blank=False, id="queue", compact=True,
                    ),
                )  # fmt: skip
                yield from self._row(
                    tr("Priority"),
                    Select(
                        [(tr(priority), str(priority)) for priority in TaskPriority],
                        value=str(TaskPriority.NORMAL), allow_blank=False, id="priority", compact=True,
                    ),
                )  # fmt: skip
                yield from self._row(
                    tr("Output"),
                    CleanInput(
                        id="output", compact=True, placeholder=tr("default: beside the image; of a folder: in cleaned")
                    ),
                )
                yield from self._row(
                    tr("Job"), CleanInput(id="job", compact=True, placeholder=tr("of a folder: its name"))
                )
                yield from self._row(
                    tr("Done by"),
                    CleanInput(
                        id="deadline", compact=True,
                        placeholder=tr("17:30, 2026-12-24 09:00, 90m, 2h; default: whenever"),
                    ),
                )  # fmt: skip
                yield from self._row(
                    tr("May leave"),
                    Select(
                        [(tr(STAYS), ""), (tr(MAY_LEAVE), "yes")],
                        value="", allow_blank=False, id="exportable", compact=True,
                    ),
                )  # fmt: skip
            yield Static(id="form-differs", markup=False)
            yield Static(id="form-error", markup=False)
            with Horizontal(classes="dialog-buttons"):
                yield Button(Content(tr("Submit (enter)")), id="send", compact=True, variant="primary")
                yield Button(Content(tr("Close (esc)")), id="close", compact=True)

    @staticmethod
    def _row(label: str, field: Input | Select[str]) -> ComposeResult:
        yield Horizontal(Static(Content(label), classes="label"), field, classes="row")

    def _typed(self, name: str) -> str:
        return self.query_one(f"#{name}", Input).value.strip()

    def _chosen(self, name: str) -> str:
        value: object = self.query_one(f"#{name}", Select).value
        return value if isinstance(value, str) else ""

    def _wish(self) -> Wish | None:
        """What the fields say; None where no image is named.

        Raises:
            InvalidInput: a field holds what cannot be.
        """
        typed = self._typed("image")
        whole = here(typed) if typed else ""
        try:  # a path with spaces may be typed as it is
            inputs = [whole] if Path(whole).exists() else [here(path) for path in shlex.split(typed)]
        except ValueError as error:
            raise InvalidInput("Image: a quote is not closed") from error
        if not typed or not inputs:
            return None
        mask, output = self._typed("mask"), self._typed("output")
        return Wish(
            tuple(inputs), self._typed("model") or DEFAULT_MODEL, self._user, here(mask) if mask else "",
            here(output) if output else "", self._chosen("queue"), TaskPriority(self._chosen("priority")),
            self._typed("job"), bool(self._chosen("exportable")), self._typed("deadline"),
        )  # fmt: skip

    @on(Input.Changed)
    @on(Select.Changed)
    def _changed(self) -> None:
        self._complain("")  # it was about what stood there before
        self._foresee(wait_s=_TYPING_PAUSE_S)

    @work(exclusive=True, group="foresee")
    async def _foresee(self, *, wait_s: float) -> None:
        """The dry run, when the typing rests: nothing is submitted by it."""
        await asyncio.sleep(wait_s)
        self._told_of = None
        try:
            wish = self._wish()
            if wish is None:
                self._tell(())
                return
            self._tell((tr("looking …"),) if wish.is_folder else ())
            prepared = await asyncio.to_thread(prepare, wish)
            answer = await self._commander.foresee(prepared.tasks, queue=wish.queue)
        except UnknownCommand:
            self._tell((tr("this scheduler is older and cannot say where they would go"),))
            self._told_of = wish
        except (LcqError, OSError, TimeoutError) as error:
            self._tell((tr("would not go: {error}", error=trouble_of(error)),))
        else:
            self._tell(told(prepared, answer))
            self._told_of = wish

    def _tell(self, lines: Sequence[str]) -> None:
        self.query_one("#form-differs", Static).update(Content("\n".join(clean(line) for line in lines)))

    @on(Input.Submitted)
    @on(Button.Pressed, "#send")
    def _send(self) -> None:
        self._send_if_it_can_be()

    @work(exclusive=True, group="send")
    async def _send_if_it_can_be(self) -> None:
        try:
            wish = self._wish()
            if wish is None:
                self._complain(tr("Image: name the picture to clean"))
                self.query_one("#image").focus()
                return
            prepared = await asyncio.to_thread(prepare, wish)
        except InvalidInput as wrong:
            self._complain(retold_error(wrong))
            return
        warning = prepared.warning
        if warning and warning != self._warned:
            self._warned = warning
            self._complain(tr("{warning}. Submit again to send it all the same.", warning=warning))
        elif wish.is_folder and self._told_of != wish:  # what is many is seen first
            self._complain(tr("see above where they would go; submit again to send them"))
            self._foresee(wait_s=0)
        elif self.is_current:  # else the note of a small terminal stands over it, and that would be closed
            self.dismiss(wish)

    def _complain(self, text: str) -> None:
        self.query_one("#form-error", Static).update(Content(clean(text)))

    @on(Button.Pressed, "#close")
    def _close(self) -> None:
        self.dismiss(None)

    def action_shut(self) -> None:
        self.dismiss(None)

"""The form for a new task. What is wrong with an entry is said in the form, and nothing typed is lost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from pydantic import ValidationError
from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.content import Content
from textual.screen import ModalScreen
from textual.suggester import SuggestFromList
from textual.widgets import Button, Input, Select, Static

from lcq.models import DEFAULT_MODEL, Task, TaskPriority, TaskType, explain_invalid
from tui.commands import Scope, bindings_of
from tui.text import clean
from tui.widgets.field import CleanInput

ROUTED = "by routing"


@dataclass(frozen=True)
class Wish:
    """A task to submit, and the queue it was wished into ("": routed)."""

    task: Task
    queue: str


def here(path: str) -> str:
    """A path as the nodes will read it: made absolute from where the console runs."""
    return str(Path(path).expanduser().absolute())


class SubmitForm(ModalScreen[Wish | None]):
    """Answers the task that was asked for, or None."""

    SCOPES: ClassVar[tuple[Scope, ...]] = (Scope.PANEL,)
    BINDINGS: ClassVar[list[BindingType]] = [
        *bindings_of(Scope.PANEL),
        # First of all: without priority the focus moves after the keys that follow have gone to the old field.
        Binding("tab", "app.focus_next", show=False, priority=True),
        Binding("shift+tab", "app.focus_previous", show=False, priority=True),
    ]
    AUTO_FOCUS = "#image"

    def __init__(self, *, user: str, queues: Sequence[str], models: Sequence[str]) -> None:
        super().__init__()
        self._user, self._queues, self._models = user, queues, models
        self._warned = ""

    def compose(self) -> ComposeResult:
        known = ", ".join(self._models)
        with Vertical(classes="dialog wide"):
            yield Static(Content("Submit a task"), classes="dialog-title")
            with VerticalScroll(id="form", can_focus=False):
                yield from self._row("Image", CleanInput(id="image", compact=True, placeholder="path"))
                yield from self._row(
                    "Mask", CleanInput(id="mask", compact=True, placeholder="path; bright is replaced")
                )
                yield from self._row(
                    "Model",
                    CleanInput(
                        value=DEFAULT_MODEL, id="model", compact=True, placeholder=known,
                        suggester=SuggestFromList(self._models),
                    ),
                )  # fmt: skip
                yield from self._row(
                    "Queue",
                    Select(
                        [(ROUTED, ""), *((queue, queue) for queue in self._queues)],
                        value="", allow_blank=False, id="queue", compact=True,
                    ),
                )  # fmt: skip
                yield from self._row(
                    "Priority",
                    Select(
                        [(str(priority), str(priority)) for priority in TaskPriority],
                        value=str(TaskPriority.NORMAL), allow_blank=False, id="priority", compact=True,
                    ),
                )  # fmt: skip
                yield from self._row(
                    "Output", CleanInput(id="output", compact=True, placeholder="path; default: beside the image")
                )
            yield Static(id="form-error", markup=False)
            with Horizontal(classes="dialog-buttons"):
                yield Button(Content("Submit (enter)"), id="send", compact=True, variant="primary")
                yield Button(Content("Close (esc)"), id="close", compact=True)

    @staticmethod
    def _row(label: str, field: Input | Select[str]) -> ComposeResult:
        yield Horizontal(Static(Content(label), classes="label"), field, classes="row")

    def _typed(self, name: str) -> str:
        return self.query_one(f"#{name}", Input).value.strip()

    def _chosen(self, name: str) -> str:
        value: object = self.query_one(f"#{name}", Select).value
        return value if isinstance(value, str) else ""

    @on(Input.Submitted)
    @on(Button.Pressed, "#send")
    def _send(self) -> None:
        image, mask, output = self._typed("image"), self._typed("mask"), self._typed("output")
        if not image:
            self._complain("Image: name the picture to clean")
            self.query_one("#image").focus()
            return
        try:
            task = Task(
                task_type=TaskType.INPAINT,
                image_path=here(image),
                mask_path=here(mask) if mask else None,
                output_path=here(output) if output else None,
                config={"model": self._typed("model") or DEFAULT_MODEL},
                priority=TaskPriority(self._chosen("priority")),
                user_id=self._user,
            )
        except ValidationError as error:
            self._complain(explain_invalid(error))
            return
        missing = [path for path in (task.image_path, task.mask_path) if path and not self._is_there(path)]
        warning = f"not found on this machine: {', '.join(missing)}" if missing else ""
        if warning and warning != self._warned:  # a node may well see what this machine does not
            self._warned = warning
            self._complain(f"{warning}. Submit again to send it all the same.")
            return
        self.dismiss(Wish(task, self._chosen("queue")))

    @staticmethod
    def _is_there(path: str) -> bool:
        return Path(path).is_file()

    def _complain(self, text: str) -> None:
        self.query_one("#form-error", Static).update(Content(clean(text)))

    @on(Button.Pressed, "#close")
    def _close(self) -> None:
        self.dismiss(None)

    def action_shut(self) -> None:
        self.dismiss(None)

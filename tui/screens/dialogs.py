"""The questions: yes or no, why, where to. Each shows on what the act will fall, and starts at the safe answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, TypeVar

from textual import events, on
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Button, Input, OptionList, Static
from textual.widgets.option_list import Option

from lcq.lang import tr
from tui.commands import PALETTE_KEY, Scope, bindings_of, commands_of, show_key
from tui.text import cells, clean, fit, hanging
from tui.widgets.field import CleanInput

MAX_REASON = 500

ChosenT = TypeVar("ChosenT")


class Question(ModalScreen[str | None]):
    """Asks before something is done. Answers None for no, else the reason typed ("" if none was).

    The focus is on No; ``y`` goes. Where a reason is asked first, Enter in it goes on: to the act if ``light``, to No
    otherwise, so that a pasted line can never start what costs work. What cannot come back needs ``word`` to be typed.
    """

    SCOPES: ClassVar[tuple[Scope, ...]] = (Scope.DIALOG,)
    BINDINGS: ClassVar[list[BindingType]] = [*bindings_of(Scope.DIALOG)]
    AUTO_FOCUS = None
    FIRST: ClassVar[str] = ""
    """The field in which a special question begins."""

    def __init__(
        self,
        title: str,
        lines: Sequence[str],
        go: str,
        *,
        reason: str = "",
        light: bool = False,
        word: str = "",
        starts_at_no: bool = False,
    ) -> None:
        """``reason``: what the field for it says while it is empty; "": none is asked. ``word``: what to type first."""
        super().__init__()
        self._title, self._lines, self._go = title, lines, go
        self._reason, self._light, self._word = reason, light, word
        self._starts_at_no = starts_at_no
        self.heeds_early_keys = light
        """Whether keys that were pressed before it was shown are meant for it."""

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog"):
            yield Static(Content(clean(self._title)), classes="dialog-title")
            with VerticalScroll(classes="dialog-text", can_focus=False):
                yield Static(Content("\n".join(clean(line) for line in self._lines)))
            yield from self.compose_more()
            if self._reason:
                yield CleanInput(placeholder=self._reason, max_length=MAX_REASON, id="reason", compact=True)
            if self._word:
                asked = tr("type {word} to go on", word=self._word)
                yield CleanInput(placeholder=asked, max_length=MAX_REASON, id="word", compact=True)
                yield Static(id="word-error", markup=False)
            with Horizontal(classes="dialog-buttons"):
                yield Button(Content(tr("No (n)")), id="no", compact=True)
                yield Button(Content(f"{self._go} (y)"), id="yes", compact=True, variant="warning")

    def compose_more(self) -> ComposeResult:
        """What a special question asks beyond this."""
        yield from ()

    def on_mount(self) -> None:
        first = self.FIRST or ("#no" if self._starts_at_no or not self._reason else "#reason")
        self.query_one("#word" if self._word else first).focus()

    def action_agree(self) -> None:
        if self._word and not is_typed(self._word, self.query_one("#word", Input).value):
            complaint = tr("not done: type {word} here first", word=self._word)
            self.query_one("#word-error", Static).update(Content(clean(complaint)))
            self.query_one("#word").focus()
            return
        self.dismiss(self.query_one("#reason", Input).value.strip() if self._reason else "")

    def action_refuse(self) -> None:
        self.dismiss(None)

    @on(Button.Pressed, "#yes")
    def _yes(self) -> None:
        self.action_agree()

    @on(Button.Pressed, "#no")
    def _no(self) -> None:
        self.action_refuse()

    @on(Input.Submitted, "#word")
    def _word_given(self) -> None:
        self.action_agree()

    @on(Input.Submitted, "#reason")
    def _reason_given(self) -> None:
        if self._light:
            self.action_agree()
        else:
            self.query_one("#word" if self._word else "#no").focus()


def is_typed(word: str, typed: str) -> bool:
    """Whether that is the word that was asked for; a number may have its commas."""
    given = typed.strip()
    return given == word or (word.isdecimal() and given.replace(",", "") == word)


@dataclass(frozen=True)
class Choice:
    """One thing to choose: its value, its name, and what speaks for or against it."""

    value: tuple[str, str]
    name: str
    note: str = ""


class Choosing(ModalScreen[ChosenT]):
    """A panel with one list, in which one goes about by the keys of a table."""

    SCOPES: ClassVar[tuple[Scope, ...]] = (Scope.PANEL, Scope.CHOICE)
    BINDINGS: ClassVar[list[BindingType]] = [*bindings_of(Scope.PANEL, Scope.CHOICE)]
    AUTO_FOCUS = "OptionList"

    def action_choice_down(self) -> None:
        self.query_one(OptionList).action_cursor_down()

    def action_choice_up(self) -> None:
        self.query_one(OptionList).action_cursor_up()

    def action_choice_first(self) -> None:
        self.query_one(OptionList).action_first()

    def action_choice_last(self) -> None:
        self.query_one(OptionList).action_last()


class Chooser(Choosing["tuple[str, str] | None"]):
    """A list to choose from; answers the choice's value, or None."""

    def __init__(self, title: str, choices: Sequence[Choice]) -> None:
        super().__init__()
        self._title, self._choices = title, choices

    def compose(self) -> ComposeResult:
        wide = max((cells(choice.name) for choice in self._choices), default=0)
        with Vertical(classes="dialog"):
            yield Static(Content(clean(self._title)), classes="dialog-title")
            yield OptionList(
                *(
                    Option(Content(f"{fit(clean(choice.name), wide)}  {clean(choice.note)}"))
                    for choice in self._choices
                ),
                compact=True,
            )
            yield Static(Content(tr("enter chooses, esc leaves it as it is")), classes="dialog-hint")

    @on(OptionList.OptionSelected)
    def _chosen(self, chosen: OptionList.OptionSelected) -> None:
        self.dismiss(self._choices[chosen.option_index].value)

    def action_shut(self) -> None:
        self.dismiss(None)


class _Keys(Static):
    """Keys and what each does: what is too long for its line goes on below that, not below the key."""

    def __init__(self, pieces: Sequence[tuple[str, str]]) -> None:
        super().__init__(Content.assemble(*pieces))
        self._pieces, self._width = pieces, 0

    def on_resize(self, resized: events.Resize) -> None:
        if resized.size.width != self._width:
            self._width = resized.size.width
            self.update(hanging(self._pieces, self._width))


class Help(ModalScreen[None]):
    """All keys of a screen, from the one table of commands."""

    SCOPES: ClassVar[tuple[Scope, ...]] = (Scope.PANEL, Scope.READING)
    BINDINGS: ClassVar[list[BindingType]] = [*bindings_of(Scope.PANEL, Scope.READING)]
    AUTO_FOCUS = None

    def __init__(self, scopes: Sequence[Scope], user_keys: Mapping[str, tuple[str, ...]]) -> None:
        super().__init__()
        self._scopes, self._user_keys = scopes, user_keys

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog wide tall"):
            yield Static(Content(tr("Keys of this screen")), classes="dialog-title")
            with VerticalScroll(id="help-text", can_focus=False):
                yield _Keys(self._pieces())
            yield Static(Content(tr("j k scroll, esc closes")), classes="dialog-hint")

    def _pieces(self) -> list[tuple[str, str]]:
        parts: list[tuple[str, str]] = []
        for scope in (
            *reversed(self._scopes),
            *((Scope.LINE,) if Scope.EVERYWHERE in self._scopes else ()),
        ):  # what is special here comes first
            parts.append((f"{tr(scope.value)}\n", "bold $text-primary"))
            for command in commands_of(scope):
                keys = " ".join(command.shown_keys(self._user_keys))
                parts.append((f"  {fit(keys, 12)}", "bold"))
                said = f"  :{command.called} {command.takes}" if command.takes else ""
                parts.append((command.shown_title, ""))
                parts.append((f"{said}\n", "$text-muted"))
            parts.append(("\n", ""))
        parts.append((f"  {fit(show_key(PALETTE_KEY), 12)}", "bold"))
        parts.append((tr("All commands by name, and the themes\n"), ""))
        return parts

    def action_shut(self) -> None:
        self.dismiss(None)

    def action_line_down(self) -> None:
        self.query_one("#help-text").scroll_relative(y=1, animate=False)

    def action_line_up(self) -> None:
        self.query_one("#help-text").scroll_relative(y=-1, animate=False)

    def action_to_top(self) -> None:
        self.query_one("#help-text").scroll_home(animate=False)

    def action_to_end(self) -> None:
        self.query_one("#help-text").scroll_end(animate=False)

    def action_half_screen_down(self) -> None:
        self.query_one("#help-text").scroll_relative(y=8, animate=False)

    def action_half_screen_up(self) -> None:
        self.query_one("#help-text").scroll_relative(y=-8, animate=False)

"""The single lines around a table: title, counts, what is under the cursor, the last act, the keys."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from textual import events
from textual.content import Content
from textual.widget import Widget

from tui.columns import Tone
from tui.commands import Command, Scope
from tui.text import cells, clean, cut

TONE_STYLE: dict[Tone, str] = {
    "plain": "$foreground",
    "dim": "$text-muted",
    "good": "$text-success",
    "bad": "bold $text-error",
    "warn": "$text-warning",
    "run": "bold $text-accent",
    "strong": "bold",
}
"""How each tone of a table's cell looks in a line of text."""


@dataclass(frozen=True)
class Part:
    """A piece of a line: its text, its style, and what a click on it does."""

    text: str
    style: str = ""
    action: str = ""


def width_of(parts: Iterable[Part]) -> int:
    return sum(cells(part.text) for part in parts)


class OneLine(Widget):
    """One line of parts. It is cut at the widget's edge, never wrapped, and never read as markup."""

    ALLOW_SELECT = False

    def __init__(self, *, id: str | None = None, classes: str | None = None) -> None:  # noqa: A002
        super().__init__(id=id, classes=classes)
        self._left: tuple[Part, ...] = ()
        self._right: tuple[Part, ...] = ()

    @property
    def text(self) -> str:
        """What the line says in the room it has."""
        return "".join(part.text for part in self._fitted())

    def show(self, parts: Iterable[Part], right: Iterable[Part] = ()) -> None:
        """Show ``parts``, and ``right`` at the right edge; where both do not fit, ``parts`` are cut."""
        left, right = _cleaned(parts), _cleaned(right)
        if (left, right) != (self._left, self._right):
            self._left, self._right = left, right
            self.refresh()

    def _fitted(self) -> list[Part]:
        room = self.size.width
        right = _cut(self._right, room)
        left = _cut(self._left, room - width_of(right))
        gap = room - width_of(left) - width_of(right)
        return [*left, Part(" " * gap), *right] if right else left

    def render(self) -> Content:
        return Content.assemble(*((part.text, part.style) for part in self._fitted()))

    async def clicked_on(self, action: str) -> None:
        """Do what a click on a part does."""
        await self.screen.run_action(action)

    async def on_click(self, event: events.Click) -> None:
        left = 0
        for part in self._fitted():
            width = cells(part.text)
            if part.action and left <= event.x < left + width:
                await self.clicked_on(part.action)
                return
            left += width


def _cleaned(parts: Iterable[Part]) -> tuple[Part, ...]:
    return tuple(Part(clean(part.text), part.style, part.action) for part in parts)


def _cut(parts: Iterable[Part], room: int) -> list[Part]:
    kept = []
    for part in parts:
        text = cut(part.text, room)
        kept.append(Part(text, part.style, part.action))
        room -= cells(text)
    return kept


class KeyLine(OneLine):
    """The keys that matter here, as many as fit; the way to all of them is always the last."""

    def __init__(
        self,
        commands: Sequence[Command],
        more: Sequence[Command] = (),
        *,
        id: str | None = None,  # noqa: A002
    ) -> None:
        """``more``: at the right edge, where there is room for them too."""
        super().__init__(id=id)
        self._commands, self._more = commands, more
        self.shown: tuple[Command, ...] = ()

    def on_resize(self) -> None:
        if not self._commands:
            return
        *others, last = self._commands
        room = self.size.width - 1 - self._width(last)
        shown: list[Command] = []
        for command in others:
            needed = self._width(command) + 2
            if needed > room:
                break
            shown.append(command)
            room -= needed
        self.shown = (*shown, last)
        parts = [Part(" ")]
        for place, command in enumerate(self.shown):
            gap = "  " if place else ""
            parts += [
                Part(gap),
                Part(self._key_of(command), "bold $text-primary", command.id),
                Part(f" {command.shown_label}", "$foreground", command.id),
            ]
        self.show(parts, self._further(self.size.width - width_of(parts)))

    def _further(self, room: int) -> list[Part]:
        """The views that the title does not name, where there is room for all of them."""
        told: list[Part] = []
        for command in self._more:
            told += [
                Part("  "),
                Part(self._key_of(command), "$text-muted", command.id),
                Part(f" {command.shown_label}", "$text-muted", command.id),
            ]
        return [*told, Part(" ")] if told and width_of(told) + 3 <= room else []

    async def clicked_on(self, action: str) -> None:
        is_of_table = any(command.id == action and command.scope is Scope.TABLE for command in self.shown)
        where = self.screen.query_one("LineTable") if is_of_table else self.screen
        await where.run_action(action)

    def _key_of(self, command: Command) -> str:
        return command.shown_keys(getattr(self.app, "user_keys", {}))[0]

    def _width(self, command: Command) -> int:
        return cells(f"{self._key_of(command)} {command.shown_label}")


class Banner(Widget):
    """Says since when nothing has been heard; gone while all is well."""

    DEFAULT_CSS = "Banner { height: auto; display: none; }"
    ALLOW_SELECT = False

    def __init__(self, *, id: str | None = None) -> None:  # noqa: A002
        super().__init__(id=id)
        self.text = ""

    def show(self, text: str) -> None:
        """Show ``text``; with none, take no room."""
        cleaned = clean(text)
        if cleaned != self.text:
            self.text = cleaned
            self.display = bool(cleaned)
            self.refresh(layout=True)

    def render(self) -> Content:
        return Content(self.text)

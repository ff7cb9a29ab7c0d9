"""docs/keys.md is the table of commands. ``make keys`` writes it anew."""

from __future__ import annotations

import os
from pathlib import Path

from tui.commands import COMMANDS, PALETTE_KEY, Command, Scope, commands_of, show_key
from tui.line import SPOKEN

PAGE = Path(__file__).parents[2] / "docs" / "keys.md"
RENEW = os.environ.get("LCQ_RENEW_KEYS") == "1"
_HEAD = """# Keys and commands of the console

`?` in the console shows those of a screen, `{palette}` all by name. Each has an id, by which `console.keys` in the
settings gives it keys of your own (several with spaces between them); `:` takes its word. What costs work or cannot
come back needs a capital or a function key; keys that terminals, multiplexers or fields own are refused at the start,
and so is one that would mean two things on a screen.

This page is written by `make keys` from the table in tui/commands.py.
"""


def page() -> str:
    """The page as the table of commands has it."""
    sections = [_HEAD.format(palette=show_key(PALETTE_KEY))]
    for scope in Scope:
        commands = commands_of(scope)
        if commands:
            rows = "\n".join(_row(command) for command in commands)
            head = "| id | keys | what it does | on the command line |\n|---|---|---|---|"
            sections.append(f"## {scope.value}\n\n{head}\n{rows}\n")
    return "\n".join(sections)


def _row(command: Command) -> str:
    keys = " ".join(_code(show_key(key)) for key in command.keys) or "-"
    said = _code(f":{command.called} {command.takes}".strip()) if command.scope in SPOKEN else "-"
    return f"| {_code(command.id)} | {keys} | {command.title} | {said} |"


def _code(text: str) -> str:
    return f"`` {text} ``" if "`" in text else f"`{text}`"


def test_the_page_of_keys_is_the_table_of_commands() -> None:
    if RENEW:
        PAGE.write_text(page(), encoding="utf-8")
    assert PAGE.read_text(encoding="utf-8") == page(), "where this is meant: make keys"


def test_every_key_is_shown_as_it_is_printed_on_a_keyboard() -> None:
    named = {"esc", "enter", "space", "tab", "home", "end", "up", "down", "left", "right", "pgup", "pgdn", "f2"}
    for command in COMMANDS:
        for shown in map(show_key, command.keys):
            key = shown.removeprefix("shift-").removeprefix("ctrl-")
            assert len(key) == 1 or key in named, (command.id, shown)

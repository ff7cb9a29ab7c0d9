"""The help of commands in the language that is spoken: what their declarations say in English is taken as its key."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from lcq.lang import N, spoken, tr

_HELPS = ("help", "short_help", "epilog", "rich_help_panel")
_ENGLISH = "english_of_"
_PANELS = {"argument": N("Arguments"), "option": N("Options")}
_COMMANDS = N("Commands")
# Typer's own words in a help, by the names that it keeps them under.
_TYPERS = {
    "DEFAULT_STRING": N("[default: {}]"),
    "REQUIRED_LONG_STRING": N("[required]"),
    "ARGUMENTS_PANEL_TITLE": _PANELS["argument"],
    "OPTIONS_PANEL_TITLE": _PANELS["option"],
    "COMMANDS_PANEL_TITLE": _COMMANDS,
}
_is_translated = False


def translate(command: Any) -> None:
    """Have a command, its options and the commands below it tell in the language that is spoken what they do."""
    global _is_translated
    if spoken() == "en" and not _is_translated:
        return  # the usual case costs nothing
    _is_translated = True
    for part in parts_of(command, loaded=True):
        for name in _HELPS:
            english = english_help(part, name)
            if english:
                heading, gap, commands = english.partition("\n\n") if name == "epilog" else (english, "", "")
                setattr(part, _ENGLISH + name, english)
                setattr(part, name, tr(heading) + gap + commands)  # below "Examples:" are commands to type
    from typer import rich_utils  # here: it is needed for a help alone, and takes long to load

    for name, english in _TYPERS.items():
        setattr(rich_utils, name, tr(english))


def parts_of(command: Any, *, loaded: bool = False) -> Iterator[Any]:
    """The command, its parameters, and those of all commands below it; with ``loaded``, of those that are already."""
    yield command
    yield from command.params
    commands = getattr(command, "commands", {})
    for inner in (getattr(commands, "loaded", commands) if loaded else commands).values():
        yield from parts_of(inner, loaded=loaded)


def english_help(part: Any, name: str) -> str:
    """What the declaration of a command or a parameter says under ``name``, whatever is spoken; "" for nothing."""
    english = getattr(part, _ENGLISH + name, None) or getattr(part, name, None)
    return english if isinstance(english, str) else ""

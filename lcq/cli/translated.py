"""The help of commands in the language that is spoken: what their declarations say in English is taken as its key.

Nothing of it is loaded or looked up before a help is shown in another language than English.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import wraps
from typing import Any

from typer.core import TyperCommand, TyperGroup

from lcq.lang import N, T, spoken, tr

_HELPS = ("help", "short_help", "epilog", "rich_help_panel")
_ENGLISH = "english_of_"
_PANELS = {"argument": N("Arguments"), "option": N("Options")}
# Typer's own words in a help, by the names that it keeps them under.
_TYPERS = {
    "DEFAULT_STRING": N("[default: {}]"),
    "ENVVAR_STRING": N("[env var: {}]"),
    "REQUIRED_LONG_STRING": N("[required]"),
    "ARGUMENTS_PANEL_TITLE": _PANELS["argument"],
    "OPTIONS_PANEL_TITLE": _PANELS["option"],
    "COMMANDS_PANEL_TITLE": N("Commands"),
}
HELP = N("Show this message and exit.")
REFUSALS = (  # what Typer, and pydantic in it, say of a command line that they do not take
    T("no such command {a}."),
    T("no such command {a}. Did you mean {b}?"),
    T("no such option: {a}"),
    T("no such option: {a} (Possible options: {b})"),
    T("option {a} requires an argument."),
    T("option {a} requires {b} arguments."),
    T("option {a} does not take a value."),
    T("got unexpected extra argument(s) ({a})"),
    T("got unexpected extra argument ({a})"),
    T("got unexpected extra arguments ({a})"),
    T("missing argument {a}."),
    T("missing option {a}."),
    T("missing argument {a}. {b}"),
    T("missing option {a}. {b}"),
    T("missing command."),
    T("choose from: {a}"),
    T("invalid value for {a}: {b}"),
    T("invalid value: {a}"),
    T("{a} is not one of {b}."),
    T("Input should be {a}"),
    T("Input should be {a} or {b}"),
    T("Input should be greater than {a}"),
    T("Input should be greater than or equal to {a}"),
    T("Input should be less than {a}"),
    T("Input should be less than or equal to {a}"),
    T("Input should be a valid integer, unable to parse string as an integer"),
    T("Input should be a valid number, unable to parse string as a number"),
    T("Input should be a valid boolean, unable to interpret input"),
    T("Input should be a valid string"),
    T("Input should be a valid list"),
    T("Input should be a valid tuple"),
    T("Input should be a valid dictionary"),
    T("Input should be a valid boolean"),
    T("Input should be a valid integer"),
    T("Input should be a valid number"),
    T("Field required"),
    T("Extra inputs are not permitted"),
    T("String should match pattern {a}"),
    T("String should have at least {a} characters"),
    T("String should have at most {a} characters"),
    T("String should have at least 1 character"),
)
_is_translated = False


def translate_helps() -> None:
    """Have every command's help shown in the language that is spoken then, whenever the command itself is loaded."""
    global _is_translated
    if spoken() == "en" or _is_translated:
        return  # the usual case costs nothing
    _is_translated = True
    for kind in (TyperCommand, TyperGroup):
        kind.format_help = _translating(kind.format_help)  # type: ignore[method-assign]
        kind.get_usage = _with_our_usage(kind.get_usage)  # type: ignore[method-assign]


def _translating(show: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(show)
    def format_help(command: Any, ctx: Any, formatter: Any) -> Any:
        for part in parts_of(command, ctx):
            for name in _HELPS:
                english = english_help(part, name)
                if english:
                    heading, gap, commands = english.partition("\n\n") if name == "epilog" else (english, "", "")
                    setattr(part, _ENGLISH + name, english)
                    setattr(part, name, tr(heading) + gap + commands)  # below "Examples:" are commands to type
        from typer import rich_utils  # here: it is needed for a help alone, and takes long to load

        from lcq.cli.wide import break_wide_text

        break_wide_text()
        for name, english in _TYPERS.items():
            setattr(rich_utils, name, tr(english))
        return show(command, ctx, formatter)

    return format_help


def _with_our_usage(told: Callable[..., str]) -> Callable[..., str]:
    @wraps(told)
    def get_usage(command: Any, ctx: Any) -> str:
        return re.sub(r"\AUsage: ", lambda _: tr("Usage: "), told(command, ctx))

    return get_usage


def parts_of(command: Any, ctx: Any = None) -> Iterator[Any]:
    """The command, its parameters, and with ``ctx`` the commands right below it as its help lists them.

    Without one: those of all commands below it that are loaded.
    """
    yield command
    yield from command.params
    if ctx is None:
        for inner in getattr(command, "commands", {}).values():
            yield from parts_of(inner)
        return
    yield command.get_help_option(ctx)
    if isinstance(command, TyperGroup):
        yield from filter(None, (command.get_command(ctx, name) for name in command.list_commands(ctx)))


def english_help(part: Any, name: str) -> str:
    """What the declaration of a command or a parameter says under ``name``, whatever is spoken; "" for nothing."""
    english = getattr(part, _ENGLISH + name, None) or getattr(part, name, None)
    return english if isinstance(english, str) else ""

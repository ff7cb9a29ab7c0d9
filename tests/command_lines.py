"""Command lines as our programs read them: whether each word of one is known, with nothing done.

For the pages, and for what is in sample-config: an option that is renamed must not live on there.
"""

from __future__ import annotations

import contextlib
import io
import re
import shlex
from collections.abc import Sequence
from functools import cache
from typing import Any

import typer
from typer.main import get_command

PROGRAMS = ("lcq", "lcq-agent")
_SHOWS = 0  # the exit code of --help and --version
_PUT_IN = re.compile(r"\$(\w+|\{[^}]*\}|\([^)]*\))")


@cache
def program(name: str) -> Any:
    """The command of that name, all its subcommands in it."""
    if name == "lcq":
        from lcq.cli.program import app
    else:
        from worker.cli import app
    return get_command(app)


def complaint(words: Sequence[str]) -> str:
    """What ``words`` (a program of ours, and what it is given) is told before anything is done; "": nothing.

    Values are only as good as their types: that a task or a file is there is not asked. What a shell would put in
    (``$SLOTS``) may be a number as well as a text.
    """
    told = _complaint(words)
    if told and any("$" in word for word in words):
        told = _complaint([_PUT_IN.sub("1", word) for word in words])
    return told


def _complaint(words: Sequence[str]) -> str:
    if list(words) == ["lcq"]:
        return ""  # its help
    command, name, rest = program(words[0]), words[0], list(words[1:])
    context = None
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            while True:
                context = command.make_context(name, rest, parent=context)
                if not hasattr(command, "list_commands"):
                    return ""
                rest = [*context._protected_args, *context.args]
                if not rest:
                    return "" if command.invoke_without_command else f"{name}: of its commands, none is named"
                name, command, rest = command.resolve_command(context, rest)
    except typer.TyperException as error:
        return f"{shlex.join(words)}: {error.format_message()}"
    except typer.Exit as ended:
        return "" if ended.exit_code == _SHOWS else f"{shlex.join(words)}: it ends with {ended.exit_code}"


_BEFORE = frozenset(
    ["if", "then", "else", "elif", "while", "until", "do", "!", "time", "exec", "env", "sudo", "nohup", "{", "}"]
)
_SUM = re.compile(r"\$\(\(.*?\)\)")
_SETS = re.compile(r"^[A-Za-z_][A-Za-z0-9_]*=")


def ours_in(script: str) -> list[list[str]]:
    """The command lines of our programs in a piece of shell: each as its words, quotes and comments gone.

    What the shell would put in stays as it is written (``$NODE``): to our programs it is a text like another.
    """
    found: list[list[str]] = []
    for line in _SUM.sub("$N", re.sub(r"\\\n\s*", " ", script)).splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
        lexer.commenters = "#"
        lexer.wordchars += "$%@:,+[]^*?{}…"
        try:
            words = list(lexer)
        except ValueError:  # a quote that goes on in the next line: such lines are none of ours
            continue
        command: list[str] = []
        skips = False
        for word in [*words, ";"]:
            if set(word) <= set("|&;()<>"):
                skips = False
                if set(word) & set("<>") and "(" not in word:  # a file is named next; its number stood before
                    skips = True
                    if command and command[-1].isdigit():
                        command.pop()
                    continue
                if command and command[0].rpartition("/")[2] in PROGRAMS:
                    found.append([command[0].rpartition("/")[2], *command[1:]])
                command = []
            elif skips:
                skips = False
            elif command or not (word in _BEFORE or _SETS.match(word)):
                command.append(word)
    return found

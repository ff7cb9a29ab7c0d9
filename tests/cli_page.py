"""docs/cli.md: each command of lcq and lcq-agent with its arguments, options and examples, from the programs."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from tests.command_lines import program

_HEAD = """# Commands

What `lcq --help` and `lcq-agent --help` tell, of each command. `make pages` writes this page, and a test holds it
against the programs. Global options stand before the command (`lcq --scheduler head:5571 tasks`), and so do those of
`lcq-agent`. Every command that answers takes `--json`. Exit codes of `lcq`: 0 done, 1 some tasks failed, 2 refused or
wrong usage, 3 nobody answers, 4 not in time, 130 interrupted.
"""


def as_page() -> str:
    """The page."""
    out = [_HEAD]
    for name in ("lcq", "lcq-agent"):
        command = program(name)
        context = command.make_context(name, [], resilient_parsing=True)
        out += [f"## {name}", *_told(command, context)]
        for path, inner, inner_context in _commands(command, context):
            out += [f"### {path}", *_told(inner, inner_context)]
    return "\n\n".join(out) + "\n"


def _commands(group: Any, context: Any) -> Iterator[tuple[str, Any, Any]]:
    """Each command below ``group``: what is typed for it, itself, its context."""
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if command is None or command.hidden:
            continue
        inner = type(context)(command, info_name=name, parent=context, resilient_parsing=True)
        yield inner.command_path, command, inner
        if hasattr(command, "list_commands"):
            yield from _commands(command, inner)


def _told(command: Any, context: Any) -> list[str]:
    usage = " ".join([context.command_path, *command.collect_usage_pieces(context)])
    out = [f"`{usage}`"]
    if command.help:
        out.append(_text(command.help))
    rows = []
    for one in command.params:
        if getattr(one, "hidden", False) or one.name == "help":
            continue
        record = one.get_help_record(context)
        if record:
            rows.append(f"| `{_cell(record[0].strip())}` | {_cell(_text(record[1]))} |")
    if rows:
        out.append("\n".join(["| | |", "|---|---|", *rows]))
    examples = re.findall(r"\[bold\](.+?)\[/bold\]", command.epilog or "", re.DOTALL)
    examples = [one.replace("\\[", "[") for one in examples if one.startswith("lcq")]
    if examples:
        out.append(
            "<!-- not run here: examples of its help; every word of them is checked -->\n```\n"
            + "\n".join(examples)
            + "\n```"
        )
    return out


def _text(said: str) -> str:
    """Without rich's marks, each paragraph a line, and what is typed in code."""
    plain = re.sub(r"\[/?(?:bold|dim)\]", "", said).replace("\\[", "[").replace("\f", "")
    paragraphs = [" ".join(part.split()) for part in re.split(r"\n\s*\n", plain)]
    return "\n\n".join(
        re.sub(r"(?<![\w`/.-])(--[a-z][\w-]*)", r"`\1`", part).replace("<", "&lt;") for part in paragraphs if part
    )


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")

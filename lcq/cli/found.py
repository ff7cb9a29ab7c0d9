"""Commands that another package brings: found by the entry-point group ``lcq.commands``, loaded when asked for."""

from __future__ import annotations

from functools import lru_cache
from importlib.metadata import entry_points
from typing import Any

import typer
from typer.core import TyperGroup

from lcq.errors import LcqError


def found_commands(name: str) -> typer.Typer:
    """A group whose commands are those of the ``typer.Typer`` that the entry point ``name`` leads to."""

    class Found(TyperGroup):
        """Asks the other package only when somebody wants a command of it, or the list of them."""

        def list_commands(self, ctx: Any) -> list[str]:
            return _group(name).list_commands(ctx)

        def get_command(self, ctx: Any, cmd_name: str) -> Any:
            return _group(name).get_command(ctx, cmd_name)

    return typer.Typer(cls=Found, no_args_is_help=True)


@lru_cache
def _group(name: str) -> TyperGroup:
    found = tuple(entry_points(group="lcq.commands", name=name))
    if not found:
        raise LcqError(
            f"the commands of 'lcq {name}' are not installed",
            hint="install LCQ anew: pip install --force-reinstall lcq",
        )
    group = typer.main.get_command(found[0].load())
    if not isinstance(group, TyperGroup):
        raise LcqError(f"the entry point {name!r} of lcq.commands has no commands", hint="install LCQ anew")
    return group

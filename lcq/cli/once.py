"""Of a command's option that takes one value and is given two, the first would be lost unsaid: it is refused.

Of the global ones the last holds, as everywhere: an alias that names a cluster can be told another one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from functools import cache, wraps
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from lcq.lang import T


@cache
def refuse_second_values() -> None:
    """Have every command refuse an option that is given again where it takes but one value."""
    for kind in (TyperCommand, TyperGroup):
        kind.make_parser = _refusing(kind.make_parser)  # type: ignore[method-assign]


def _refusing(made: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(made)
    def make_parser(command: Any, ctx: Any) -> Any:
        parser = made(command, ctx)
        parse = parser.parse_args

        def parse_args(args: list[str]) -> tuple[dict[str, Any], list[str], Sequence[Any]]:
            options, rest, order = parse(args)
            if ctx.parent is None or ctx.resilient_parsing:
                return options, rest, order
            for one, times in Counter(order).items():
                if times > 1 and not (one.multiple or one.is_flag):
                    raise typer.BadParameter(T("it is given more than once, and takes one value"), ctx=ctx, param=one)
            return options, rest, order

        parser.parse_args = parse_args
        return parser

    return make_parser

"""Which parts of the ground a move stands on: of what the shared Lua files define, each script gets what it uses.

Redis runs a script from its first line each time it is called: whatever is defined in front of a move costs every call
of it, and the collector of garbage walks over it. So a script is loaded with those top-level parts alone that its move
needs, directly or by another part. A part begins at a line without indentation that defines names (``local function
x``, ``local x = …``, ``local x, y``, ``x = function``) or does something at once (``do``, ``if``): such a one is kept
always.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

_BEGINS = re.compile(r"^(?:local function (?P<function>\w+)|local (?P<names>\w+(?:, \w+)*)(?: = |$)|(?P<later>\w+) = )")
_AT_ONCE = re.compile(r"^(?:do|if|for|while)\b")
_COMMENT = re.compile(r"(?:^|\s+)--.*$")
_WORD = re.compile(r"\b[A-Za-z_]\w*\b")


@dataclass(frozen=True)
class Part:
    """One top-level piece of Lua. ``names``: what it defines; none where it does something at once."""

    names: frozenset[str]
    text: str

    @cached_property
    def words(self) -> frozenset[str]:
        """Every word in it: what it uses is among them."""
        return frozenset(_WORD.findall(self.text))


def parts_of(text: str) -> tuple[Part, ...]:
    """The parts of a Lua file, in their order, without comments.

    Raises:
        ValueError: a line without indentation begins nothing that is known, and ends nothing.
    """
    parts: list[Part] = []
    names: frozenset[str] | None = None
    lines: list[str] = []

    def close() -> None:
        if names is not None:
            parts.append(Part(names, "\n".join(lines)))

    for whole in text.splitlines():
        line = _COMMENT.sub("", whole)
        if not line.strip():
            continue
        begins = _BEGINS.match(line)
        if begins or _AT_ONCE.match(line):
            close()
            told = begins and (begins["function"] or begins["names"] or begins["later"])
            names, lines = frozenset(told.split(", ")) if told else frozenset(), [line]
        elif names is None or not (line[0].isspace() or line[0] in "}e"):
            raise ValueError(f"begins no part: {line}")
        else:
            lines.append(line)
    close()
    return tuple(parts)


def needed(parts: Iterable[Part], body: str) -> str:
    """The text of those parts that ``body`` needs, in their order, and of those that do something at once."""
    parts = tuple(parts)
    wanted = set(_WORD.findall("\n".join(_COMMENT.sub("", line) for line in body.splitlines())))
    kept = {place for place, part in enumerate(parts) if not part.names}
    for place in kept:
        wanted |= parts[place].words
    grows = True
    while grows:
        grows = False
        for place, part in enumerate(parts):
            if place not in kept and part.names & wanted:
                kept.add(place)
                wanted |= part.words
                grows = True
    return "\n".join(part.text for place, part in enumerate(parts) if place in kept) + "\n"

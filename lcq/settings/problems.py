"""What is wrong with settings, all at once: each with file, line, key, value, what is allowed, the nearest key."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from lcq.errors import InvalidConfig
from lcq.settings.keys import allowed_of, field_at, keys_of, names_at, values_of
from lcq.settings.layers import DEFAULT, Layers, Loc, Origin
from lcq.settings.secrets import SECRET_NAME, shown

_OF_TYPE = re.compile(r"_(type|parsing|from_float|parsing_size)$")
_OF_RANGE = frozenset({"greater_than", "greater_than_equal", "less_than", "less_than_equal", "literal_error", "enum"})
_NAMED_FIRST = re.compile(r"^([a-z_]+(?:\.[a-z_]+)*): (.*)$", re.DOTALL)  # what concerns several sections begins so


UNKNOWN, OTHER, NO_JSON, MISSING = "unknown", "other", "no JSON", "missing"
"""What is wrong, in one word; for all else ``what`` is the sentence of a rule."""


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong. ``line`` 0: not known; ``found`` "": there is nothing to show, or it is a secret."""

    where: str  # the file, the variable or the flag
    line: int
    key: str
    what: str
    found: str = ""
    allowed: str = ""
    near: str = ""

    def __str__(self) -> str:
        return (f"line {self.line}: " if self.line else "") + (f"{self.key}: " if self.key else "") + self.said

    @property
    def said(self) -> str:
        """What is wrong with it, in a sentence."""
        if self.what == UNKNOWN and self.near:
            return f"unknown key, did you mean {self.near!r}?"
        if self.what == UNKNOWN:
            return f"unknown key; known: {self.allowed}"
        if self.what == OTHER and self.near:
            return f"must be {self.allowed}, found {self.found}, did you mean {self.near!r}?"
        if self.what == OTHER and self.found:
            return f"must be {self.allowed}, found {self.found}"
        if self.what == OTHER:
            return f"must be {self.allowed}"
        if self.what == NO_JSON:
            return f"expected JSON, found {self.found}; {self.allowed}" if self.found else "expected JSON"
        if self.what == MISSING:
            return f"is missing: it must be {self.allowed}"
        return f"{self.what}, found {self.found}" if self.found else self.what

    @property
    def at(self) -> str:
        """``FILE:LINE``, as editors and compilers say it."""
        return f"{self.where}:{self.line}" if self.line else self.where

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def problems_of(error: ValidationError | None, layers: Layers, model: type[BaseModel]) -> tuple[Problem, ...]:
    """Everything that is wrong with what ``layers`` say."""
    found = [_unread(path, one) for path, one in layers.failed]
    for wrong in layers.not_json:
        kind, metadata, secret = field_at(model, tuple(wrong.key.split(".")))
        value = "" if secret else f"{wrong.found!r:.80}"
        found.append(Problem(wrong.name, 0, "", NO_JSON, value, allowed_of(kind, metadata)))
    if error is not None:
        found += [_described(one, layers, model) for one in error.errors()]
        found += _hidden_behind(error, layers, model)
    return tuple(sorted(dict.fromkeys(found), key=lambda one: (one.where, one.line)))


def doubles_in(layers: Layers) -> Iterator[Problem]:
    """Keys that a file says twice: only the last counts, and people see the first."""
    for layer in layers.layers:
        for loc, line, first in layer.doubles():
            yield Problem(layer.name, line, _joined(loc), f"is there twice, first in line {first}")


def refusal(problems: Sequence[Problem]) -> InvalidConfig:
    """The error that tells them all, in one line."""
    by_place: dict[str, list[str]] = {}
    for one in problems:
        by_place.setdefault(one.where, []).append(str(one))
    error = InvalidConfig("; ".join(f"{where}: {'; '.join(said)}" for where, said in by_place.items()))
    error.problems = tuple(problems)
    return error


def _unread(path: Path, error: InvalidConfig) -> Problem:
    """A file that cannot be read, or is no YAML."""
    line = re.search(r"\bline (\d+)", error.message)
    what = error.message.replace(f"cannot read the configuration {path}:", "cannot be read:", 1)
    return Problem(str(path), int(line[1]) if line else 0, "", what.removeprefix(str(path)).lstrip(": "))


def _described(told: Any, layers: Layers, model: type[BaseModel]) -> Problem:
    loc: Loc = tuple(step for step in told["loc"] if step != "[key]")
    what = str(told["msg"]).removeprefix("Value error, ")
    named = _NAMED_FIRST.match(what)
    if not loc and named is not None:
        loc, what = tuple(named[1].split(".")), named[2]
    origin = layers.origin(loc)
    key = _joined(loc)
    if told["type"] == "extra_forbidden":
        return _unknown(loc, told["input"], origin, model)
    kind, metadata, secret = field_at(model, loc)
    allowed = allowed_of(kind, metadata) if kind is not None else ""
    if told["type"] == "missing":  # nobody said it: it is missing where the section stands that needs it
        origin = next((one for size in range(len(loc), 0, -1) if (one := layers.origin(loc[:size])) != DEFAULT), origin)
        return Problem(_place(origin), origin.line, key, MISSING, allowed=allowed)
    if allowed and (_OF_TYPE.search(told["type"]) or told["type"] in _OF_RANGE):
        what = OTHER
    near = ""
    if isinstance(told["input"], str):
        near = next(iter(difflib.get_close_matches(told["input"], values_of(kind), n=1)), "")
    value = "" if secret or not told["loc"] or "found" in what else shown(told["input"], loc, model)
    return Problem(_place(origin), origin.line, key, what, value, allowed, near)


def _place(origin: Origin) -> str:
    return origin.name or "settings"


def _unknown(loc: Loc, value: Any, origin: Origin, model: type[BaseModel]) -> Problem:
    last = str(loc[-1])
    known = names_at(model, loc[:-1])
    near = next(iter(difflib.get_close_matches(last, known, n=1)), "")
    if not near:  # it may be a key of another section
        elsewhere = (key.name for key in keys_of(model) if key.name.endswith(f".{last}") and "*" not in key.name)
        near = next(elsewhere, "")
    found = "" if SECRET_NAME.search(last) else shown(value, loc, model)
    return Problem(_place(origin), origin.line, _joined(loc), UNKNOWN, found, ", ".join(known), near)


def _hidden_behind(error: ValidationError, layers: Layers, model: type[BaseModel]) -> list[Problem]:
    """What could not be seen for other problems: rules over several keys are looked at once each is right by itself."""
    wrong = {str(one["loc"][0]) for one in error.errors() if one["loc"]}
    if not wrong:
        return []
    try:
        model(**{name: value for name, value in layers.values.items() if name not in wrong})
    except ValidationError as more:
        told = [_described(one, layers, model) for one in more.errors()]
        return [one for one in told if not any(re.search(rf"\b{name}\b", f"{one.key}: {one.what}") for name in wrong)]
    return []


def _joined(loc: Loc) -> str:
    return ".".join(map(str, loc))

"""Every key there is: what it means, what it may be, what it is where nobody says. Taken from the fields themselves.

What a key means is the text below its field, in the source: read where somebody asks, so that no start pays for it.
"""

from __future__ import annotations

import ast
import inspect
import re
import sys
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import annotated_types as limits
from pydantic import BaseModel, StringConstraints
from pydantic.fields import FieldInfo

from lcq.environment import parts_of

ANY = "*"
"""In the name of a key: a name that people choose, or a place in a list."""


@dataclass(frozen=True)
class Key:
    """One key. ``name`` joins its sections by dots; ``values`` are those of a closed list."""

    name: str
    about: str
    allowed: str
    default: Any
    is_section: bool
    is_secret: bool
    values: tuple[str, ...] = ()

    @property
    def depth(self) -> int:
        return self.name.count(".")


def keys_of(model: type[BaseModel], prefix: str = "", default: BaseModel | None = None) -> Iterator[Key]:
    """All keys of ``model``, sections before what is in them. What is the same again in ``contexts`` is left out."""
    told = abouts(model)
    for name, field in model.model_fields.items():
        value = getattr(default, name) if default is not None else _default(field)
        section = section_of(field.annotation)
        about = told.get(name, "") or (about_of(section[0]) if section is not None else "")
        yield Key(
            name=prefix + name,
            about=about,
            allowed=allowed_of(field.annotation, field.metadata),
            default=value,
            is_section=section is not None and not section[1],
            is_secret=not field.repr,
            values=values_of(field.annotation),
        )
        if section is None or (prefix.startswith("contexts.") and not section[1]):
            continue
        inner, joint = section
        yield from keys_of(inner, f"{prefix}{name}.{joint}", value if not joint else None)


def _default(field: FieldInfo) -> Any:
    return None if field.is_required() else field.get_default(call_default_factory=True)


def section_of(kind: Any) -> tuple[type[BaseModel], str] | None:
    """The section that a value of the type is, and "" for it; or that each of several is, and how they are named."""
    for one in parts_of(kind):
        if isinstance(one, type) and issubclass(one, BaseModel):
            return one, ""
        inner = typing.get_args(one)
        if inner and typing.get_origin(one) in (tuple, list, dict, Mapping):
            found = section_of(inner[-1] if inner[-1] is not Ellipsis else inner[0])
            if found is not None:
                return found[0], f"{ANY}."
    return None


def field_at(model: type[BaseModel], loc: tuple[str | int, ...]) -> tuple[Any, tuple[Any, ...], bool]:
    """The type at ``loc`` (None: no such key), what else its field says of it, and whether that is a secret."""
    kind: Any = model
    metadata: tuple[Any, ...] = ()
    secret = False
    for step in loc:
        found: tuple[Any, tuple[Any, ...]] | None = None
        for one in parts_of(kind):
            inner = typing.get_args(one)
            if isinstance(one, type) and issubclass(one, BaseModel):
                field = one.model_fields.get(str(step))
                if field is not None:
                    found, secret = (field.annotation, tuple(field.metadata)), secret or not field.repr
            elif inner and typing.get_origin(one) in (dict, Mapping):
                found = (inner[-1], ())
            elif inner and typing.get_origin(one) in (tuple, list):
                found = (inner[0], ())
        if found is None:
            return None, (), secret
        kind, metadata = found
    return kind, metadata, secret


def names_at(model: type[BaseModel], loc: tuple[str | int, ...]) -> list[str]:
    """The keys that the section at ``loc`` has; none where it is none, or its keys are names that people choose."""
    kind, _, _ = field_at(model, loc)
    inner = next((one for one in parts_of(kind) if isinstance(one, type) and issubclass(one, BaseModel)), None)
    return sorted(inner.model_fields) if inner is not None else []


# ---------------------------------------------------------------- what a value may be, in words


def values_of(kind: Any) -> tuple[str, ...]:
    """The values of a closed list; () where there is none."""
    return tuple(
        str(value)
        for one in parts_of(kind)
        for value in (
            typing.get_args(one)
            if typing.get_origin(one) is Literal
            else [member.value for member in one]
            if isinstance(one, type) and issubclass(one, Enum)
            else ()
        )
    )


def allowed_of(kind: Any, metadata: typing.Sequence[Any] = ()) -> str:
    """What a value of this type may be: "a whole number from 1 to 65535, or null"."""
    if typing.get_origin(kind) is typing.Annotated:
        inner, *more = typing.get_args(kind)
        return allowed_of(inner, [*metadata, *more])
    parts = [one for one in parts_of(kind) if one is not type(None)]
    said = " or ".join(dict.fromkeys(_allowed_one(one, metadata) for one in parts))
    return said + (", or null" if type(None) in tuple(parts_of(kind)) else "")


def _allowed_one(kind: Any, metadata: typing.Sequence[Any]) -> str:
    inner = typing.get_args(kind)
    origin = typing.get_origin(kind)
    values = values_of(kind)
    if values:
        return ", ".join(f'"{value}"' for value in values)
    if origin in (dict, Mapping):
        return "any section" if inner[-1] is Any else f"a section of names, each with {allowed_of(inner[-1])}"
    if origin in (tuple, list):
        return f"a list of {_several(allowed_of(inner[0]))}"
    if kind is bool:
        return "true or false"
    if kind in (int, float):
        return ("a whole number" if kind is int else "a number") + _range(metadata)
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return "a section"
    if isinstance(kind, type) and issubclass(kind, Path):
        return "a path"
    pattern = next((found for one in metadata if (found := _pattern(one))), "")
    return f"text like {pattern}" if pattern else "text"


_SEVERAL = {
    "a whole number": "whole numbers", "a number": "numbers", "a path": "paths", "a section": "sections",
    "text": "texts",
}  # fmt: skip


def _several(allowed: str) -> str:
    """Of what each of a list may be, as one says it of all: "paths", "texts like …"."""
    one = next((one for one in _SEVERAL if re.match(rf"{one}(?=[ ,]|$)", allowed)), "")
    return _SEVERAL[one] + allowed.removeprefix(one) if one else f"any of {allowed}"


def _pattern(told: Any) -> str:
    if isinstance(told, FieldInfo):
        return next((found for one in told.metadata if (found := _pattern(one))), "")
    pattern = getattr(told, "pattern", None)
    return pattern if isinstance(pattern, str) or (isinstance(told, StringConstraints) and pattern) else ""


def _number(bound: Any) -> str:
    return str(int(bound)) if bound == int(bound) else str(bound)


def _range(metadata: typing.Sequence[Any]) -> str:
    told = [one for some in metadata for one in (some.metadata if isinstance(some, FieldInfo) else [some])]
    low = next((_number(one.ge) for one in told if isinstance(one, limits.Ge)), "")
    above = next((_number(one.gt) for one in told if isinstance(one, limits.Gt)), "")
    high = next((_number(one.le) for one in told if isinstance(one, limits.Le)), "")
    below = next((_number(one.lt) for one in told if isinstance(one, limits.Lt)), "")
    if low and high:
        return f" from {low} to {high}"
    said = [f"{low} or more" if low else "", f"more than {above}" if above else ""]
    said += [f"at most {high}" if high else "", f"less than {below}" if below else ""]
    return "".join(f", {one}" for one in said if one)


# ---------------------------------------------------------------- what is said of it in the source


def abouts(model: type[BaseModel]) -> dict[str, str]:
    """By field, the text below it in the source, of ``model`` and what it is made from; or its description."""
    found: dict[str, str] = {}
    for kind in reversed(model.__mro__):
        if issubclass(kind, BaseModel) and kind is not BaseModel:
            found |= _texts_of(kind.__module__).get(kind.__qualname__, {})
    found |= {name: field.description for name, field in model.model_fields.items() if field.description}
    return {name: _plain(text) for name, text in found.items()}


def about_of(model: type[BaseModel]) -> str:
    """What is said of a section as a whole."""
    return _plain(model.__dict__.get("__doc__") or "")


@lru_cache
def _texts_of(module: str) -> dict[str, dict[str, str]]:
    tree = ast.parse(inspect.getsource(sys.modules[module]))
    found: dict[str, dict[str, str]] = {}
    for kind in (node for node in ast.walk(tree) if isinstance(node, ast.ClassDef)):
        texts = found[kind.name] = {}
        for field, below in zip(kind.body, kind.body[1:], strict=False):
            if (
                isinstance(field, ast.AnnAssign)
                and isinstance(field.target, ast.Name)
                and isinstance(below, ast.Expr)
                and isinstance(below.value, ast.Constant)
                and isinstance(below.value.value, str)
            ):
                texts[field.target.id] = below.value.value
    return found


def _plain(text: str) -> str:
    return " ".join(text.split()).replace("``", "`")

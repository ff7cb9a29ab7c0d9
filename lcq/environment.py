"""Settings by the environment: LCQ_<SECTION>__<KEY> as what a file would say. What is no setting is left alone."""

from __future__ import annotations

import json
import types
import typing
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

PREFIX, JOINT = "lcq_", "__"
_heard = ContextVar("heard", default=True)


class AsText:
    """In a setting's annotation: its own validator reads the text; it is no JSON."""


class NotJson(ValueError):
    """A variable holds a list or a section, and what it says cannot be read."""

    def __init__(self, name: str, key: str, found: str) -> None:
        super().__init__(f"{name}: expected JSON, found {found!r:.80}")
        self.name = name
        self.key = key
        self.found = found


@dataclass(frozen=True)
class Told:
    """What variables say, by whom each setting is told, and which of them cannot be read."""

    values: dict[str, Any]
    variables: dict[tuple[str | int, ...], str]
    not_json: tuple[NotJson, ...]


@contextmanager
def deaf() -> Iterator[None]:
    """Inside, variables tell nothing: what they say is in the values at hand already, or is not to count."""
    token = _heard.set(False)
    try:
        yield
    finally:
        _heard.reset(token)


def told_by(environment: Mapping[str, str], model: type[BaseModel]) -> dict[str, Any]:
    """What the variables say of the settings of ``model``, section in section. Their names' case does not matter.

    Lists and sections are JSON; single keys of a section stand over what is said of the section as a whole.

    Raises:
        NotJson: naming the variable.
    """
    if not _heard.get():
        return {}
    told = read_environment(environment, model)
    for error in told.not_json:
        raise error
    return with_files(told.values, model)


def with_files(values: Mapping[str, Any], model: type[BaseModel]) -> dict[str, Any]:
    """``values`` with the text of the files that they name (lcq.settings.by_file).

    Raises:
        InvalidConfig: one cannot be read.
    """
    from lcq.settings.by_file import resolved

    return resolved(values, model) if values else {}


def read_environment(environment: Mapping[str, str], model: type[BaseModel]) -> Told:
    """As ``told_by``, with the names of the variables, and all that cannot be read."""
    told, wrong = Told({}, {}, ()), []
    ours = ((name.lower(), name, value) for name, value in environment.items())
    for key, name, value in sorted(one for one in ours if one[0].startswith(PREFIX)):  # a section before its keys
        path = key[len(PREFIX) :].split(JOINT)
        if path[0] not in model.model_fields:
            continue
        try:
            _put(told.values, path, _read(name, value, path, *_meant(model, path)))
        except NotJson as error:
            wrong.append(error)
        else:
            told.variables[tuple(path)] = name
    return Told(told.values, told.variables, tuple(wrong))


def _put(into: dict[str, Any], path: list[str], value: Any) -> None:
    for step in path[:-1]:
        inner = into.get(step)
        if not isinstance(inner, dict):
            inner = into[step] = {}
        into = inner
    into[path[-1]] = value


def _meant(model: type[BaseModel], path: list[str]) -> tuple[Any, bool]:
    """The type of the setting at ``path``, None where there is none; and whether its own validator reads text."""
    kind: Any = model
    as_text = False
    for step in path:
        kind, as_text = _below(kind, step)
    return kind, as_text


def _below(kind: Any, step: str) -> tuple[Any, bool]:
    for one in parts_of(kind):
        if typing.get_origin(one) in (dict, Mapping):
            return typing.get_args(one)[-1], False
        if isinstance(one, type) and issubclass(one, BaseModel) and step in one.model_fields:
            field = one.model_fields[step]
            return field.annotation, AsText in field.metadata
    return None, False


def parts_of(kind: Any) -> Iterator[Any]:
    """The type itself, or where several are allowed, each of them."""
    origin = typing.get_origin(kind)
    if origin is typing.Annotated:
        yield from parts_of(typing.get_args(kind)[0])
    elif origin in (typing.Union, types.UnionType):
        for one in typing.get_args(kind):
            yield from parts_of(one)
    else:
        yield kind


def _read(name: str, value: str, path: list[str], kind: Any, as_text: bool) -> Any:
    if as_text or not any(_is_whole(one) for one in parts_of(kind)):
        return value
    try:
        return json.loads(value)
    except ValueError:
        if all(_is_whole(one) for one in parts_of(kind) if one is not type(None)):
            raise NotJson(name, ".".join(path), value) from None
        return value  # it may be of the other type


def _is_whole(kind: Any) -> bool:
    """Whether a value of the type is a list, a mapping or a section."""
    origin = typing.get_origin(kind) or kind
    return isinstance(origin, type) and issubclass(origin, tuple | list | Mapping | BaseModel)

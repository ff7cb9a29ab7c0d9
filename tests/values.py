"""Hypothesis strategies for every model that crosses an edge, made from the models themselves."""

from __future__ import annotations

import enum
import functools
import types
import typing
from collections.abc import Mapping
from typing import Any

import annotated_types
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from lcq.ids import ALPHABET, ID_LENGTH
from lcq.models import Task, TaskPriority, TaskType

THOROUGH = settings(max_examples=150, deadline=None, database=None, suppress_health_check=list(HealthCheck))
QUICK = settings(THOROUGH, max_examples=15)  # for what is tried with every model there is

INTEGERS = st.integers(-(2**63), 2**64 - 1)  # what 64 bits hold, and so JSON peers and msgpack
FLOATS = st.floats(allow_nan=False, allow_infinity=False)
UNICODE = st.characters(exclude_categories=("Cs",))
ids = st.text(st.sampled_from(ALPHABET), min_size=ID_LENGTH, max_size=ID_LENGTH)
words = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\x00"), min_size=1, max_size=30)

json_values = st.recursive(
    st.none() | st.booleans() | INTEGERS | FLOATS | st.text(UNICODE, max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(UNICODE, max_size=10), inner, max_size=4),
    max_leaves=12,
)
json_objects = st.dictionaries(st.text(UNICODE, max_size=10), json_values, max_size=5)


small_objects = st.dictionaries(st.text(UNICODE, max_size=3), INTEGERS | st.text(UNICODE, max_size=3), max_size=2)


@st.composite
def tasks(draw: st.DrawFn, objects: st.SearchStrategy[dict[str, Any]] = json_objects) -> Task:
    """Any task that can be made."""
    config = draw(objects)
    config.pop("model", None)
    config.pop("device", None)
    if draw(st.booleans()):
        config["model"] = draw(st.from_regex(r"\A[A-Za-z0-9][A-Za-z0-9._+-]{0,63}\Z"))
    if draw(st.booleans()):
        config["device"] = draw(st.sampled_from(["auto", "cpu", "gpu", "cuda", "cuda:0", "cuda:11", "mps"]))
    return Task(
        id=draw(ids),
        task_type=draw(st.sampled_from(TaskType)),
        image_path=draw(words),
        mask_path=draw(st.none() | words),
        output_path=draw(st.none() | words),
        config=config,
        priority=draw(st.sampled_from(TaskPriority)),
        max_retries=draw(st.integers(0, 100)),
        timeout_s=draw(st.floats(min_value=0, max_value=7 * 24 * 3600, exclude_min=True)),
        user_id=draw(words),
        job=draw(st.none() | words),
        metadata=draw(objects),
    )


@functools.cache
def values_of(model: type[BaseModel]) -> st.SearchStrategy[Any]:
    """Any value of ``model``: every field drawn from its annotation and its limits."""
    if model is Task:
        return tasks(small_objects)
    fields = {name: _of_field(info) for name, info in model.model_fields.items()}
    return st.builds(model, **fields)


def _of_field(info: FieldInfo) -> st.SearchStrategy[Any]:
    return _of(info.annotation, list(info.metadata))


def _of(annotation: Any, limits: list[Any]) -> st.SearchStrategy[Any]:
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return _of(arguments[0], [*limits, *arguments[1:]])
    if origin in (typing.Union, types.UnionType):
        return st.one_of(*(_of(argument, limits) for argument in arguments))
    if origin is typing.Literal:
        return st.sampled_from(arguments)
    if origin is tuple and arguments[-1] is not Ellipsis:
        return st.tuples(*(_of(argument, []) for argument in arguments))
    if origin is tuple:
        smallest = _limit(limits, "min_length", 0)
        return st.lists(_of(arguments[0], []), min_size=smallest, max_size=max(2, smallest)).map(tuple)
    if origin in (dict, Mapping) or annotation is dict:
        key, value = arguments
        return json_objects if value is Any else st.dictionaries(_of(key, []), _of(value, []), max_size=3)
    if isinstance(annotation, type) and issubclass(annotation, enum.Enum):
        return st.sampled_from(list(annotation))
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return values_of(annotation)
    return _scalar(annotation, limits)


def _scalar(annotation: Any, limits: list[Any]) -> st.SearchStrategy[Any]:
    if annotation is type(None):
        return st.none()
    if annotation is bool:
        return st.booleans()
    if annotation is int:
        return st.integers(_limit(limits, "ge", -(2**63)), _limit(limits, "le", 2**63 - 1))
    if annotation is float:
        return st.floats(_limit(limits, "ge", None), _limit(limits, "le", None), allow_nan=False, allow_infinity=False)
    if annotation is str:
        pattern = _limit(limits, "pattern", None)
        if pattern is not None:  # to Python's $, a newline at the end is still the end
            return st.from_regex(pattern.replace("$)", r"\Z)").removesuffix("$") + r"\Z")
        return st.text(
            st.characters(exclude_categories=("Cs",), exclude_characters="\x00"),
            min_size=_limit(limits, "min_length", 0),
            max_size=min(20, _limit(limits, "max_length", 20)),
        )
    raise NotImplementedError(f"no strategy for {annotation}")


def _limit(limits: list[Any], name: str, default: Any) -> Any:
    for limit in limits:
        grouped = list(limit) if isinstance(limit, annotated_types.GroupedMetadata) else [limit]
        grouped += list(limit.metadata) if isinstance(limit, FieldInfo) else []
        for one in grouped:
            found = getattr(one, name, None)
            if found is not None:
                return found
    return default

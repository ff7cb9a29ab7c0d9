"""Labels: what the owner of a node says of it (``rack=3``), and what a task may require of where it runs. Pure.

A task that requires labels waits in a lane of its own, ``<lane>?<key>=<value>&…`` with the keys sorted: a node that has
them all reads it too, any other never sees it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Annotated, Any, TypeAlias

from pydantic import AfterValidator, BeforeValidator, Field, PlainSerializer

from lcq.errors import InvalidInput

_KEY = r"^[A-Za-z0-9][A-Za-z0-9._/-]{0,62}$"
_VALUE = r"^[A-Za-z0-9][A-Za-z0-9._/+-]{0,62}$"
_MOST = 16  # labels of one node, or required by one task
_FORM = "letters, digits, '.', '_', '/' and '-', at most 63, beginning with a letter or digit"


def _has_form(form: str, given: object) -> bool:
    return isinstance(given, str) and re.match(form, given) is not None and not given.endswith("\n")


def _checked(given: Any) -> Any:
    if not isinstance(given, Mapping):
        return given
    if len(given) > _MOST:
        raise ValueError(f"must be at most {_MOST} labels, found {len(given)}")
    for key, value in given.items():
        if not _has_form(_KEY, key):
            raise ValueError(f"a label's name is {_FORM}, found {key!r:.80}")
        if not _has_form(_VALUE, value):
            raise ValueError(f"the value of label {key} is text: {_FORM} (and '+'), found {value!r:.80}")
    return given


Labels: TypeAlias = Annotated[
    Mapping[Annotated[str, Field(pattern=_KEY)], Annotated[str, Field(pattern=_VALUE)]],
    BeforeValidator(_checked),
    AfterValidator(lambda labels: MappingProxyType(dict(sorted(labels.items())))),
    PlainSerializer(dict, return_type=dict[str, str]),
]


def parse_labels(words: Iterable[str]) -> dict[str, str]:
    """``["rack=3", "zone=a"]`` as labels; several may stand in one word, with commas between them.

    Raises:
        InvalidInput: one is no label, or is given twice with two values.
    """
    labels: dict[str, str] = {}
    for word in (one.strip() for some in words for one in some.split(",")):
        key, equals, value = word.partition("=")
        if not equals:
            raise InvalidInput(f"{word!r} is no label", hint="write NAME=VALUE, such as rack=3")
        if labels.get(key, value) != value:
            raise InvalidInput(f"label {key} is given twice: {labels[key]} and {value}", hint="give one value")
        labels[key] = value
    try:
        _checked(labels)
    except ValueError as error:
        raise InvalidInput(str(error), hint="write NAME=VALUE, such as rack=3") from error
    return labels


def told_labels(labels: Mapping[str, str]) -> str:
    """Labels in words: ``rack=3, zone=a``."""
    return ", ".join(f"{key}={value}" for key, value in sorted(labels.items()))


def satisfies(labels: Mapping[str, str], requires: Mapping[str, str]) -> bool:
    """Whether what has these ``labels`` has all that is required."""
    return all(labels.get(key) == value for key, value in requires.items())


def labelled_lane(lane: str, requires: Mapping[str, str]) -> str:
    """The lane, beside ``lane``, of the tasks that require these labels."""
    if not requires:
        return lane
    return f"{lane}?{'&'.join(f'{key}={value}' for key, value in sorted(requires.items()))}"


def split_lane(lane: str) -> tuple[str, dict[str, str]]:
    """A lane as what its node must be able to do, and the labels that it must have."""
    base, _, required = lane.partition("?")
    return base, dict(pair.split("=", 1) for pair in required.split("&") if "=" in pair)


def why_unlabelled(requires: Mapping[str, str], nodes: Mapping[str, Mapping[str, str]]) -> str:
    """Why none of ``nodes`` (their labels, by name) may run what requires these labels; "" where one may.

    Names one label where no node has that one at all, else all of them and the node that comes nearest.
    """
    if not requires or any(satisfies(labels, requires) for labels in nodes.values()):
        return ""
    for key, value in sorted(requires.items()):
        found = sorted({labels[key] for labels in nodes.values() if key in labels})
        if value not in found:
            others = f" (there is {key}={', '.join(found[:8])})" if found else ""
            return f"no node has label {key}={value}{others}"
    missing = {
        name: {key: value for key, value in requires.items() if labels.get(key) != value}
        for name, labels in nodes.items()
    }
    nearest = min(missing, key=lambda name: (len(missing[name]), name))
    return f"no node has all of {told_labels(requires)}; {nearest} lacks {told_labels(missing[nearest])}"

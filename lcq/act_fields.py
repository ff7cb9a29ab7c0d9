"""What a filter may ask of an act (docs/filter.md): one list of fields for the audit's records and a console's rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

from lcq.models import ActRecord
from lcq.query import Kind, Query, QueryField, Value, parse_strictly

RowT = TypeVar("RowT")

_FIELDS = {
    "actor": (Kind.TEXT, "who did it"),
    "act": (Kind.TEXT, "what"),
    "on": (Kind.TEXT, "to what"),
    "reason": (Kind.TEXT, "why"),
    "outcome": (Kind.TEXT, "what came of it"),
    "age": (Kind.SPAN, "how long ago"),
}


def act_fields_over(getters: Mapping[str, Callable[[RowT, int], Value]]) -> dict[str, QueryField[RowT]]:
    """The fields of an act over rows of another make; ``getters`` has one for each."""
    return {
        name: QueryField(name, kind, getters[name], title, timed=name == "age")
        for name, (kind, title) in _FIELDS.items()
    }


_OF_A_RECORD = act_fields_over(
    {
        "actor": lambda act, _: act.actor,
        "act": lambda act, _: act.act,
        "on": lambda act, _: act.on,
        "reason": lambda act, _: act.reason,
        "outcome": lambda act, _: act.outcome,
        "age": lambda act, now: max(0, now - act.at_ms),
    }
)


def haystack(act: ActRecord) -> str:
    """What free text is looked for in, casefolded."""
    return "\n".join((act.act, act.actor, act.on, act.reason, act.outcome, act.command)).casefold()


def parse_acts_where(text: str) -> Query[ActRecord]:
    """A filter over acts.

    Raises:
        InvalidInput: a part of it cannot be meant.
    """
    return parse_strictly(text, _OF_A_RECORD, haystack)

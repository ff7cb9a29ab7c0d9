"""The filter language: the same words in the console, in ``lcq tasks`` and on the wire. Pure.

``age<15m node~'gpu-0[123]' state:failed|cancelled -job:holiday "two words"``: clauses with spaces between them,
all of which must hold; ``-`` or ``!`` before one turns it round. docs/filter.md is for people.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache
from typing import Generic, TypeAlias, TypeVar

from lcq.errors import InvalidInput

RowT = TypeVar("RowT")
Test: TypeAlias = Callable[[RowT, int], bool]  # of a row, at a time in ms since 1970

MOST_LENGTH = 2000
"""Characters of one query: what a person types, and a stranger cannot make costly."""


class Kind(Enum):
    """What the values of a field are, and so how they may be asked for."""

    TEXT = "text"
    CHOICE = "one of a list"
    ORDER = "one of a list, least first"
    NUMBER = "a number"
    SPAN = "a length of time"
    SHARE = "a percentage"


Value: TypeAlias = str | float | None


@dataclass(frozen=True, slots=True)
class QueryField(Generic[RowT]):
    """One thing that can be asked of a row. ``get`` answers in text, in ms (SPAN) or 0 to 1 (SHARE); None: not known.

    ``choices`` are the words of a CHOICE, or of an ORDER with the least first; ``also`` names sets of them.
    ``timed``: its answer changes with the clock alone.
    """

    name: str
    kind: Kind
    get: Callable[[RowT, int], Value]
    title: str
    choices: tuple[str, ...] = ()
    also: Mapping[str, tuple[str, ...]] | None = None
    timed: bool = False


@dataclass(frozen=True, slots=True)
class Clause(Generic[RowT]):
    """One part of a query. ``field`` is "" for free text; ``values`` is what a CHOICE or an exact text may be."""

    text: str
    wanted: bool
    test: Test[RowT]
    field: str = ""
    operator: str = ""
    values: tuple[str, ...] = ()
    number: float = 0.0
    timed: bool = False


@dataclass(frozen=True, slots=True)
class Query(Generic[RowT]):
    """What was asked for. ``problem`` tells what could not be meant; that part is left out."""

    text: str = ""
    clauses: tuple[Clause[RowT], ...] = ()
    problem: str = ""

    def __bool__(self) -> bool:
        return bool(self.clauses)

    def matches(self, row: RowT, now_ms: int) -> bool:
        """Whether every clause holds for ``row`` at that time."""
        return all(clause.test(row, now_ms) is clause.wanted for clause in self.clauses)

    @property
    def timed(self) -> bool:
        """Whether a row may come to match, or cease to, by the clock alone."""
        return any(clause.timed for clause in self.clauses)

    def only(self, field: str) -> frozenset[str] | None:
        """The values that ``field`` may have in any match, where the query names them; None: any at all."""
        named: frozenset[str] | None = None
        for clause in self.clauses:
            if clause.field == field and clause.wanted and clause.operator == "=" and clause.values:
                named = frozenset(clause.values) if named is None else named & frozenset(clause.values)
        return named

    def holding(self, field: str) -> frozenset[str] | None:
        """What is in this text field of any match, whole or a part of it: one of these, casefolded; None: anything."""
        for clause in self.clauses:
            if clause.field == field and clause.wanted and clause.operator in (":", "=") and clause.values:
                return frozenset(value.casefold() for value in clause.values)
        return None

    def at_most(self, field: str) -> float | None:
        """The greatest number that ``field`` may have in any match, where the query bounds it."""
        bounds = [c.number for c in self.clauses if c.field == field and c.wanted and c.operator in ("<", "<=")]
        return min(bounds, default=None)


def parse(text: str, fields: Mapping[str, QueryField[RowT]], haystack: Callable[[RowT], str]) -> Query[RowT]:
    """Read what somebody typed; ``haystack`` is what free text is looked for in, casefolded.

    Never fails: what cannot be meant is told in ``problem`` and left out, since a query is also read at each letter
    while it is typed.
    """
    clauses: list[Clause[RowT]] = []
    problems: list[str] = []
    if len(text) > MOST_LENGTH:
        problems.append(f"a filter is at most {MOST_LENGTH} characters long, this is {len(text)}")
        return Query(text, (), problems[0])
    for typed in _words(text, problems):
        try:
            clause = _clause(typed, fields, haystack)
        except InvalidInput as error:
            problems.append(str(error))
        else:
            if clause is not None:
                clauses.append(clause)
    return Query(text, tuple(clauses), "; ".join(problems))


def parse_strictly(text: str, fields: Mapping[str, QueryField[RowT]], haystack: Callable[[RowT], str]) -> Query[RowT]:
    """``parse`` for a query that is complete.

    Raises:
        InvalidInput: a part of it cannot be meant.
    """
    found = parse(text, fields, haystack)
    if found.problem:
        raise InvalidInput(f"the filter {text!r:.200} cannot be read: {found.problem}")
    return found


# ---------------------------------------------------------------- words


@dataclass(frozen=True, slots=True)
class _Word:
    """A word as typed, and the same with its quotes taken off. ``literal``: the quotes began it, so it is text."""

    typed: str
    bare: str
    literal: bool


def _words(text: str, problems: list[str]) -> Iterable[_Word]:
    """``text`` at its spaces, but for those in quotes. A quote opens a word or a value, never inside one: ``don't``."""
    typed, bare, quote, literal = "", "", "", False
    for char in text:
        if quote:
            typed += char
            if char == quote:
                quote = ""
            else:
                bare += char
        elif char in "\"'" and (not bare or bare in ("-", "!") or bare[-1] in ":=~<>?|"):
            literal = literal or bare in ("", "-", "!")
            typed, quote = typed + char, char
        elif char.isspace():
            if typed:
                yield _Word(typed, bare, literal)
            typed, bare, literal = "", "", False
        else:
            typed, bare = typed + char, bare + char
    if typed:
        if quote:
            problems.append(f"the quote {quote} is not closed")
        yield _Word(typed, bare, literal)


def words_of(text: str) -> list[str]:
    """The clauses of ``text`` as they were typed."""
    return [word.typed for word in _words(text, [])]


_FORM = re.compile(r"([A-Za-z_]+)(!=|!~|<=|>=|[:=~<>?])(.*)", re.DOTALL)
_OPERATORS = {
    Kind.TEXT: (":", "=", "!=", "~", "!~", "?"),
    Kind.CHOICE: (":", "=", "!="),
    Kind.ORDER: (":", "=", "!=", "<", "<=", ">", ">="),
    Kind.NUMBER: (":", "=", "!=", "<", "<=", ">", ">="),
    Kind.SPAN: ("<", "<=", ">", ">="),
    Kind.SHARE: ("<", "<=", ">", ">="),
}


def _clause(
    word: _Word, fields: Mapping[str, QueryField[RowT]], haystack: Callable[[RowT], str]
) -> Clause[RowT] | None:
    bare, wanted = word.bare, True
    if len(bare) > 1 and bare[0] in "-!":
        bare, wanted = bare[1:], False
    form = None if word.literal else _FORM.fullmatch(bare)
    if form is None:
        return _free(word, bare, wanted, haystack)
    name, operator, value = form[1].casefold(), form[2], form[3]
    field = fields.get(name)
    if field is None:
        if operator in (":", "?") and (not value or value.startswith("/")):
            return _free(word, bare, wanted, haystack)  # s3://bucket, C:/scans, "what?"
        near = difflib.get_close_matches(name, fields, n=1, cutoff=0.6)
        hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(fields)}"
        raise InvalidInput(f"no field {name!r}", hint=hint)
    if operator not in _OPERATORS[field.kind]:
        raise InvalidInput(
            f"{name} is {field.kind.value}", hint=f"it is asked for by {' '.join(_OPERATORS[field.kind])}"
        )
    if not value and operator not in ("=", "!="):
        return None  # still being typed
    if operator.startswith("!"):
        wanted, operator = not wanted, operator[1:]
    match field.kind:
        case Kind.TEXT:
            return _of_text(word.typed, wanted, field, operator, value)
        case Kind.CHOICE:
            return _of_choice(word.typed, wanted, field, value)
        case Kind.ORDER:
            return _of_order(word.typed, wanted, field, operator, value)
        case Kind.NUMBER | Kind.SPAN | Kind.SHARE:
            return _of_number(word.typed, wanted, field, operator, value)


# ---------------------------------------------------------------- clauses


def _free(word: _Word, bare: str, wanted: bool, haystack: Callable[[RowT], str]) -> Clause[RowT] | None:
    if not word.literal and len(bare) > 1 and bare[0] == "~":
        pattern = _pattern(bare[1:])
        return Clause(word.typed, wanted, lambda row, _: pattern(haystack(row)))
    if not word.literal and len(bare) > 1 and bare[0] == "?":
        letters = _fuzzy(bare[1:])
        return Clause(word.typed, wanted, lambda row, _: letters(haystack(row)))
    sought = bare.casefold()
    return Clause(word.typed, wanted, lambda row, _: sought in haystack(row)) if sought else None


def _pattern(text: str) -> Callable[[str], bool]:
    """Whether a text has something that fits ``text``, a regular expression.

    It takes time in proportion to what it reads, whatever it says: a stranger's query is evaluated in the scheduler.
    """
    import re2  # here, and below: few queries have a pattern

    options = re2.Options()
    options.case_sensitive = False
    options.log_errors = False
    options.max_mem = 1 << 20
    try:
        compiled = re2.compile(text, options)
    except re2.error as error:
        told = error.args[0] if error.args else error
        reason = told.decode(errors="replace") if isinstance(told, bytes) else str(told)
        raise InvalidInput(f"{text!r} is no regular expression: {reason}") from error
    return lambda sought: compiled.search(sought.encode(errors="replace")) is not None


def _fuzzy(text: str) -> Callable[[str], bool]:
    """The letters of ``text`` in their order, with anything between them."""
    import re2

    return _pattern("(?s)" + ".*?".join(re2.escape(letter) for letter in text))


def _of_text(typed: str, wanted: bool, field: QueryField[RowT], operator: str, value: str) -> Clause[RowT]:
    get = field.get
    if operator in ("~", "?"):
        # Many rows share one node, one model, one error: each of these is looked through once.
        fits = lru_cache(maxsize=2048)(_pattern(value) if operator == "~" else _fuzzy(value))
        return Clause(typed, wanted, lambda row, now: fits(str(get(row, now) or "")), field.name)
    if operator == "=":
        exact = tuple(value.split("|"))
        return Clause(typed, wanted, lambda row, now: str(get(row, now) or "") in exact, field.name, "=", exact)
    sought = tuple(one.casefold() for one in value.split("|"))
    if any("*" in one for one in sought):
        import re2

        whole = _pattern("(?s)^(?:" + "|".join(".*".join(map(re2.escape, one.split("*"))) for one in sought) + ")$")
        return Clause(typed, wanted, lambda row, now: whole(str(get(row, now) or "")), field.name)

    def holds(row: RowT, now: int) -> bool:
        text = str(get(row, now) or "").casefold()
        return any(one in text for one in sought)

    return Clause(typed, wanted, holds, field.name, operator, sought)


def _chosen(field: QueryField[RowT], value: str) -> tuple[str, ...]:
    """The words of the field's list that ``value`` names: in full, by their beginning, or as a set of them."""
    chosen: dict[str, None] = {}
    sets = field.also or {}
    for one in value.casefold().split("|"):
        found: Sequence[str] = (one,) if one in field.choices else sets.get(one, ())
        found = found or [word for word in field.choices if one and word.startswith(one)]
        if not found:
            near = difflib.get_close_matches(one, [*field.choices, *sets], n=1, cutoff=0.6)
            hint = f"did you mean {str(near[0])!r}?" if near else f"known: {', '.join((*field.choices, *sets))}"
            raise InvalidInput(f"{field.name} is never {one!r}", hint=hint)
        chosen.update(dict.fromkeys(found))
    return tuple(chosen)


def _of_choice(typed: str, wanted: bool, field: QueryField[RowT], value: str) -> Clause[RowT]:
    get, chosen = field.get, _chosen(field, value)
    return Clause(typed, wanted, lambda row, now: get(row, now) in chosen, field.name, "=", chosen, timed=field.timed)


def _of_order(typed: str, wanted: bool, field: QueryField[RowT], operator: str, value: str) -> Clause[RowT]:
    if operator in (":", "="):
        return _of_choice(typed, wanted, field, value)
    places = {word: place for place, word in enumerate(field.choices)}
    bounds = [places[word] for word in _chosen(field, value)]
    get, compare = field.get, _COMPARE[operator]
    bound = max(bounds) if operator in ("<=", ">") else min(bounds)
    return Clause(typed, wanted, lambda row, now: compare(places.get(str(get(row, now)), -1), bound), field.name)


_COMPARE: dict[str, Callable[[float, float], bool]] = {
    "<": lambda one, other: one < other,
    "<=": lambda one, other: one <= other,
    ">": lambda one, other: one > other,
    ">=": lambda one, other: one >= other,
    "=": lambda one, other: one == other,
    ":": lambda one, other: one == other,
}


def _of_number(typed: str, wanted: bool, field: QueryField[RowT], operator: str, value: str) -> Clause[RowT]:
    bound = _READ[field.kind](field.name, value)
    get, compare = field.get, _COMPARE[operator]

    def holds(row: RowT, now: int) -> bool:
        number = get(row, now)
        return number is not None and compare(float(number), bound)

    return Clause(typed, wanted, holds, field.name, operator, number=bound, timed=field.timed)


def _number(name: str, value: str) -> float:
    try:
        return float(value)
    except ValueError as error:
        raise InvalidInput(f"{name} is compared with a number, found {value!r}", hint=f"such as {name}>2") from error


def _share(name: str, value: str) -> float:
    try:
        return float(value.removesuffix("%")) / 100
    except ValueError as error:
        raise InvalidInput(f"{name} is compared with a percentage, found {value!r}", hint=f"{name}>50%") from error


_UNITS = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 604_800_000}
_SPAN = re.compile(r"(\d+(?:\.\d+)?)(ms|[smhdw])")


def _span(name: str, value: str) -> float:
    """``1h30m`` in ms; a bare number is seconds."""
    parts = _SPAN.findall(value.casefold())
    if parts and "".join(number + unit for number, unit in parts) == value.casefold():
        return sum(float(number) * _UNITS[unit] for number, unit in parts)
    try:
        return float(value) * 1000
    except ValueError as error:
        raise InvalidInput(
            f"{name} is compared with a length of time, found {value!r}", hint=f"such as {name}<15m, {name}>1h30m"
        ) from error


_READ: dict[Kind, Callable[[str, str], float]] = {Kind.NUMBER: _number, Kind.SPAN: _span, Kind.SHARE: _share}

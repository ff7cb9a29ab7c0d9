"""What functions cost as rows, for ``--once``: spans of time, functions, days, users and jobs. No terminal here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lcq.lang import N, tr
from lcq.query import Kind, QueryField
from lcq.task_fields import NEEDS
from tui.columns import Cell, Column, Tone, named
from tui.spending import Gauge, Segment, Spending, cheapest, function_standing, functions_of, gauge_bar, gauges
from tui.store import NodeRow
from tui.text import clean, money

KINDS = (N("span"), N("function"), N("day"), N("user"), N("job"))
_SPANS = ("hour", "day", "month")


@dataclass(slots=True, eq=False)
class BookRow:
    """One book; its id is its kind and its name. Amounts are in ``currency``."""

    id: str
    place: int  # in the order in which the console's view has them
    kind: str  # one of KINDS
    name: str
    spent: float
    reserved: float | None = None  # None, of this and the next two: its books do not tell
    calls: int | None = None
    limit: float | None = None  # None: there is none
    state: str = ""  # how it stands, as the view says it, in English; "": there is nothing to be said
    tone: Tone = "plain"
    bar: str = ""
    currency: str = ""
    version: int = 0

    @property
    def haystack(self) -> str:
        return "\n".join((self.kind, self.name, self.state)).casefold()

    @property
    def is_trouble(self) -> bool:
        return self.tone in ("warn", "bad")


def book_rows(told: Spending, nodes: Sequence[NodeRow]) -> list[BookRow]:
    """A row of each book that has something in it; of this hour, today, this month and the functions in any case.

    A user's are today's, as the limit is; a function's, too.
    """
    rows: list[BookRow] = []
    for name, gauge in zip(_SPANS, gauges(told, cheapest(nodes)), strict=True):
        rows.append(_of_gauge("span", name, gauge))
    for node, device, function in functions_of(nodes):
        cost = told.spend.day.of_function(f"{node.id}/{device.id}")
        state = function_standing(node, device, function)
        rows.append(_book_row("function", f"{node.id} {device.called}", cost.spent, state, reserved=cost.reserved))
    for day, book in told.days.items():
        if book.taken or book.calls:
            rows.append(_book_row("day", day, book.spent, reserved=book.reserved, calls=book.calls))
    budget = told.budget
    for user, _ in sorted(told.spend.day.users.items(), key=lambda one: (-one[1], one[0])):
        limit = budget.user_day if budget is not None else None
        book = told.spend.day.of_user(user)
        state = Gauge(user, book, limit).standing if limit is not None else ("", "plain")
        rows.append(_book_row("user", user, book.spent, state, limit=limit, reserved=book.reserved))
    for job, book in sorted(told.jobs.items(), key=lambda one: (-one[1].taken, one[0])):
        if book.taken or book.calls:
            limit = budget.job if budget is not None else None
            rows.append(_of_gauge("job", job, Gauge(job, book, limit, full=job in told.spend.jobs_out)))
    for place, row in enumerate(rows):
        row.place, row.currency = place, told.currency
    return rows


def _of_gauge(kind: str, name: str, gauge: Gauge) -> BookRow:
    is_said = gauge.limit is not None or kind == "span"
    row = _book_row(
        kind, name, gauge.book.spent, gauge.standing if is_said else ("", "plain"), limit=gauge.limit,
        reserved=gauge.book.reserved, calls=gauge.book.calls,
    )  # fmt: skip
    row.bar = gauge_bar(gauge, 10) if gauge.limit is not None else ""
    return row


def _book_row(
    kind: str,
    name: str,
    spent: float,
    state: Segment = ("", "plain"),
    *,
    limit: float | None = None,
    reserved: float | None = None,
    calls: int | None = None,
) -> BookRow:
    return BookRow(f"{kind} {name}", 0, kind, clean(name), spent, reserved, calls, limit, *state)


def _amount(amount: float | None, currency: str = "") -> Cell:
    return ("--", "dim") if amount is None else (money(amount, currency), "plain")


def _share(row: BookRow) -> float | None:
    if row.limit is None:
        return None
    return (row.spent + (row.reserved or 0.0)) / row.limit if row.limit else 1.0


def _used(row: BookRow, _now: int) -> Cell:
    share = _share(row)
    return ("--", "dim") if share is None else (f"{row.bar} {share:.0%}".lstrip(), row.tone)


def _calls(row: BookRow, _now: int) -> Cell:
    return ("--", "dim") if row.calls is None else (f"{row.calls:,}", "plain")


BOOK_COLUMNS: tuple[Column[BookRow], ...] = (
    Column("kind", "OF", 8, lambda row, _: (tr(row.kind), "dim"), lambda row: row.place),
    Column("name", "NAME", 14, lambda row, _: (row.name, "strong"), lambda row: row.name, most=36, snug=True),
    Column("spent", "SPENT", 12, lambda row, _: _amount(row.spent, row.currency), lambda row: -row.spent, right=True),
    Column("reserved", "RESERVED", 9, lambda row, _: _amount(row.reserved), lambda row: -(row.reserved or 0.0),
           right=True, rank=2),
    Column("limit", "LIMIT", 9, lambda row, _: _amount(row.limit), lambda row: row.limit or 0.0, right=True, rank=1),
    Column("calls", "CALLS", 6, _calls, lambda row: -(row.calls or 0), right=True, rank=3),
    Column("used", "USED", 15, _used, lambda row: -(_share(row) or 0.0)),
    Column("state", "STATE", 14, lambda row, _: (tr(row.state) if row.state else "", row.tone),
           lambda row: row.state, most=24),
)  # fmt: skip

BOOK_FIELDS: dict[str, QueryField[BookRow]] = named(
    QueryField("kind", Kind.CHOICE, lambda row, _: row.kind, "what it is the book of", KINDS),
    QueryField("name", Kind.TEXT, lambda row, _: row.name, "whose it is"),
    QueryField("spent", Kind.NUMBER, lambda row, _: row.spent, "what was spent"),
    QueryField("reserved", Kind.NUMBER, lambda row, _: row.reserved, "what calls under way may cost"),
    QueryField("limit", Kind.NUMBER, lambda row, _: row.limit, "what it may cost"),
    QueryField("calls", Kind.NUMBER, lambda row, _: row.calls, "how many calls"),
    QueryField("currency", Kind.TEXT, lambda row, _: row.currency, "what amounts are in"),
    QueryField("state", Kind.TEXT, lambda row, _: row.state.lstrip("!>?x ").lower(), "how it stands"),
    QueryField("needs", Kind.CHOICE, lambda row, _: NEEDS[not row.is_trouble], "whether somebody should look", NEEDS),
)  # fmt: skip

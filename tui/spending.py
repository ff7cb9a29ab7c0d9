"""What functions cost, in words, numbers and bars: budgets, days, users, jobs, functions. No terminal here."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from lcq.config import BudgetConfig
from lcq.lang import N, tr
from lcq.models import Attempt, NodeStatus
from lcq.spend import MILLION, Book, Spend
from tui.columns import Tone
from tui.store import DeviceNow, FunctionNow, NodeRow
from tui.text import cells, clean, counted, cut, fit, long_span, money

if TYPE_CHECKING:
    from lcq.wire import SpendAnswer

NEARLY = 0.9
"""From this share of a limit on, it is nearly used."""
DAYS = 31
_MOST_USERS, _MOST_JOBS = 30, 40
_BAR = 16
_WIDE = 96  # cells from where on more is told in a line
_LEAST_PAST = 0.02  # of a span of time must have gone, before its pace says anything

Segment = tuple[str, Tone]
Line = list[Segment]


@dataclass(frozen=True)
class Spending:
    """What the books say, and what may be spent. ``budget``: None where no scheduler has told it."""

    now_ms: int
    spend: Spend
    days: Mapping[str, Book] = field(default_factory=dict)  # by date (UTC), today first
    jobs: Mapping[str, Book] = field(default_factory=dict)  # the newest job first
    budget: BudgetConfig | None = None

    @property
    def currency(self) -> str:
        return self.budget.currency if self.budget is not None else ""


def budget_of(told: SpendAnswer) -> BudgetConfig:
    """The limits that a scheduler tells of."""
    limits = {book.name: book.limit for book in told.now}
    return BudgetConfig(
        hour=limits.get("hour"), day=limits.get("day"), month=limits.get("month"), job=told.job_limit,
        user_day=told.user_limit, currency=told.currency,
    )  # fmt: skip


def _within(width: int, line: Line, *spared: int) -> Line:
    """A line of at most ``width`` cells: as far as needed its segments at ``spared`` leave, in this order; the rest is
    cut."""
    gone: set[int] = set()
    for place in spared:
        if sum(cells(text) for at, (text, _) in enumerate(line) if at not in gone) > width:
            gone.add(place)
    kept: Line = []
    for place, (text, tone) in enumerate(line):
        if place not in gone:
            shown = cut(text, max(0, width))
            kept.append((shown, tone))
            width -= cells(shown)
    return kept


# ---------------------------------------------------------------- gauges


@dataclass(frozen=True)
class Gauge:
    """What a span of time, a user or a job has cost, against what it may."""

    name: str
    book: Book
    limit: float | None
    full: bool = False  # so much is spent that no further call fits into it
    price: float = 0.0  # what the cheapest call may cost
    left_ms: float = 0.0  # until the span of time ends; 0: it is none
    past: float = 0.0  # how much of it has gone: 0 to 1

    @property
    def share(self) -> float | None:
        """Of the limit, what is spent or reserved; None where there is none."""
        if self.limit is None:
            return None
        return self.book.taken / self.limit if self.limit else 1.0

    @property
    def word(self) -> Segment:
        """How that is meant, as a word."""
        word, tone = self.standing
        return tr(word), tone

    @property
    def standing(self) -> Segment:
        """The same, whatever language is spoken."""
        share = self.share
        if share is None:
            return N("NO LIMIT"), "dim"
        if self.full or self.book.spent >= (self.limit or 0.0):
            return N("USED UP"), "bad"
        if self.is_reserved:
            return N("RESERVED"), "warn"
        return (N("NEARLY USED"), "warn") if share >= NEARLY else (N("WITHIN"), "good")

    @property
    def is_reserved(self) -> bool:
        """Whether no further call fits until one that is under way has ended."""
        return self.limit is not None and self.book.taken + self.price > self.limit + 1e-9

    @property
    def gone_in_ms(self) -> float | None:
        """When it is used up, at the pace of this span so far; None: not before it ends, or that is not known."""
        if self.limit is None or self.full or self.past < _LEAST_PAST or not self.left_ms or not self.book.spent:
            return None
        pace = self.book.spent / self.past  # of a whole span
        span_ms = self.left_ms / (1 - self.past)
        left_ms = (self.limit - self.book.taken) / pace * span_ms
        return left_ms if 0 < left_ms < self.left_ms else None


def _ends(now_ms: int) -> dict[str, tuple[datetime, datetime]]:
    """When this hour, this day and this month began and end, by UTC."""
    now = datetime.fromtimestamp(now_ms / 1000, UTC)
    hour = now.replace(minute=0, second=0, microsecond=0)
    day = hour.replace(hour=0)
    month = day.replace(day=1)
    after = (month + timedelta(days=32)).replace(day=1)
    return {
        "hour": (hour, hour + timedelta(hours=1)), "day": (day, day + timedelta(days=1)), "month": (month, after)
    }  # fmt: skip


_SPANS = {"hour": N("this hour"), "day": N("today"), "month": N("this month")}


def gauges(told: Spending, price: float | None = None) -> list[Gauge]:
    """This hour, today and this month. ``price``: what a call costs at most at the cheapest function there is."""
    out = []
    spend = told.spend if told.budget is None else Spend(told.budget, told.spend.hour, told.spend.day, told.spend.month)
    full = spend.used_up(price) if price is not None else frozenset()
    for span, (begun, ends) in _ends(told.now_ms).items():
        whole_ms = (ends - begun).total_seconds() * 1000
        left_ms = ends.timestamp() * 1000 - told.now_ms
        limit = getattr(told.budget, span) if told.budget is not None else None
        name, book, past = tr(_SPANS[span]), getattr(spend, span), 1 - left_ms / whole_ms
        out.append(Gauge(name, book, limit, span in full, price or 0.0, left_ms, past))
    return out


def _cells_of(share: float, width: int) -> int:
    """So many of ``width`` cells are taken by a share; the least of it takes one."""
    return max(0, min(width, math.ceil(share * width - 1e-6)))


def gauge_bar(gauge: Gauge, width: int = _BAR) -> str:
    """What is spent, what is reserved behind it, and what is left, in ``width`` cells."""
    if not gauge.limit:
        return "━" * width if gauge.limit == 0 else "·" * width
    spent, taken = (_cells_of(amount / gauge.limit, width) for amount in (gauge.book.spent, gauge.book.taken))
    return "━" * spent + "╌" * (taken - spent) + "·" * (width - taken)


def gauge_lines(told: Sequence[Gauge], currency: str, width: int) -> list[Line]:
    """A line of each: its bar, its share as a number, that as a word, and the amounts."""
    lines: list[Line] = []
    names = max((len(gauge.name) for gauge in told), default=0)
    bar = _BAR if width >= _WIDE else 10
    amounts = {gauge.name: money(gauge.book.spent) + _of_limit(gauge.limit) for gauge in told}
    widest = max(map(cells, amounts.values()), default=0)
    for gauge in told:
        word, tone = gauge.word
        share = f"{gauge.share:.0%}" if gauge.share is not None else "--"
        line: Line = [
            (f"  {fit(gauge.name, max(10, names))} ", "plain"), (gauge_bar(gauge, bar), tone),
            (f" {fit(share, 5, right=True)}  ", "strong"), (f"{fit(word, 11)}  ", tone),
            (fit(amounts[gauge.name], widest), "plain"), (_reserved(gauge.book), "plain"),
            (f"  {counted(gauge.book.calls, 'call')}", "plain"),
            (tr("  starts anew in {time}", time=long_span(gauge.left_ms)) if gauge.left_ms else "", "dim"),
        ]  # fmt: skip
        lines.append(_within(width, line, 7, 6, 5))
        said = _said(gauge)
        if said:
            lines.append([(f"  {' ' * max(10, names)} {said}", tone if tone == "bad" else "warn")])
    if currency and lines:
        told_in = tr("  in {currency}, by UTC; reserved: the worst that calls under way may cost", currency=currency)
        lines.append(_within(width, [(told_in, "dim")]))
    return lines


def _of_limit(limit: float | None) -> str:
    return tr(" of {limit}", limit=money(limit)) if limit is not None else ""


def _reserved(book: Book) -> str:
    return tr("  reserved {amount}", amount=money(book.reserved)) if book.reserved else ""


def _said(gauge: Gauge) -> str:
    """What follows from it, where something does."""
    if gauge.word[1] == "bad" and gauge.left_ms:
        left = long_span(gauge.left_ms)
        return tr("no further call fits: tasks stay in the house, for {time}", time=left)
    if gauge.is_reserved and gauge.left_ms:
        return tr("no further call fits until one that is under way has ended")
    gone = gauge.gone_in_ms
    return tr("used up in {time} at this pace", time=long_span(gone)) if gone is not None else ""


# ---------------------------------------------------------------- by day, user and job


def _of_most(amount: float, most: float, width: int = 12) -> str:
    """A bar against the greatest of its kind."""
    return "━" * (_cells_of(amount / most, width) if most > 0 else 0)


def day_lines(told: Spending, width: int) -> list[Line]:
    """What each day has cost that cost anything, the newest first."""
    most = max((book.taken for book in told.days.values()), default=0.0)
    lines: list[Line] = []
    for day, book in told.days.items():
        if not book.taken and not book.calls:
            continue
        first = max(book.users.items(), key=lambda one: one[1], default=("", 0.0))
        line: Line = [
            (f"  {day} ", "plain"), (f"{fit(money(book.spent), 12, right=True)} ", "strong"),
            (fit(counted(book.calls, "call"), 15, right=True), "plain"),
            (f"  {fit(_of_most(book.taken, most), 12)}", "run"),
            (tr("  most by {user}", user=clean(first[0])) if first[1] else "", "dim"),
        ]  # fmt: skip
        lines.append(_within(width, line))
    return lines


def user_lines(told: Spending, width: int) -> list[Line]:
    """What each user's tasks have cost today, against what they may, and in the days that are shown."""
    in_all: dict[str, float] = {}
    for book in told.days.values():
        for user in book.users:
            in_all[user] = in_all.get(user, 0.0) + book.of_user(user).spent
    today = told.spend.day
    limit = told.budget.user_day if told.budget is not None else None
    lines: list[Line] = []
    name_room = max(10, min(24, width - 60))
    for user, amount in sorted(in_all.items(), key=lambda one: (-one[1], one[0]))[:_MOST_USERS]:
        own = today.of_user(user)
        if not amount and not own.reserved:
            continue
        gauge = Gauge(user, own, limit)
        word, tone = gauge.word
        share = f"{gauge.share:.0%}" if gauge.share is not None else ""
        line: Line = [
            (f"  {fit(clean(user), name_room)} ", "plain"), (f"{fit(money(amount), 12, right=True)} ", "strong"),
            (tr("  today {amount}", amount=money(own.spent)) + _of_limit(limit) + _reserved(own), "plain"),
            (f"  {share} {word}" if limit is not None else "", tone),
        ]  # fmt: skip
        lines.append(_within(width, line, 2))
    return lines


def job_lines(told: Spending, width: int) -> list[Line]:
    """What each job has cost, the most expensive first, against what it may."""
    limit = told.budget.job if told.budget is not None else None
    lines: list[Line] = []
    name_room = max(12, min(36, width - 54))
    by_cost = sorted(told.jobs.items(), key=lambda one: (-one[1].taken, one[0]))
    for job, book in by_cost[:_MOST_JOBS]:
        if not book.taken and not book.calls:
            continue
        gauge = Gauge(job, book, limit, full=job in told.spend.jobs_out)
        word, tone = gauge.word
        share = f"{gauge.share:.0%}" if gauge.share is not None else ""
        line: Line = [
            (f"  {fit(clean(job), name_room)} ", "plain"), (f"{fit(money(book.spent), 12, right=True)} ", "strong"),
            (fit(counted(book.calls, "call"), 11, right=True), "plain"), (_reserved(book), "plain"),
            (f"  {share} {word}" if limit is not None or gauge.full else "", tone),
        ]  # fmt: skip
        lines.append(_within(width, line, 3, 2))
    return lines


# ---------------------------------------------------------------- functions


def functions_of(nodes: Iterable[NodeRow]) -> list[tuple[NodeRow, DeviceNow, FunctionNow]]:
    """The devices of nodes that call functions, by the names of both."""
    found = [(node, device, device.function) for node in nodes for device in node.now if device.function is not None]
    return sorted(found, key=lambda one: (one[0].id, one[1].called))


def cheapest(nodes: Iterable[NodeRow]) -> float | None:
    """What a call costs at most at the cheapest function that is there; None: none is."""
    live = (node for node in nodes if node.status is not NodeStatus.OFFLINE)
    return min((function.worst_price for _, _, function in functions_of(live)), default=None)


def function_state(node: NodeRow, device: DeviceNow, function: FunctionNow) -> Segment:
    """Whether it is called, as letter and word: a breaker is open where the endpoint was not reached of late, and half
    open while one call at a time tries it."""
    word, tone = function_standing(node, device, function)
    return tr(word), tone


def function_standing(node: NodeRow, device: DeviceNow, function: FunctionNow) -> Segment:
    """The same, whatever language is spoken."""
    if node.status is NodeStatus.OFFLINE:
        return N("x AWAY"), "bad"
    if function.away:
        return N("! BREAKER OPEN"), "bad"
    if function.is_tried:
        return N("? HALF OPEN"), "warn"
    return (N("? RESTS"), "warn") if device.why else (N("> OFFERED"), "good")


def price_told(function: FunctionNow, currency: str) -> str:
    """What a call costs."""
    parts = []
    if function.price_s:
        parts.append(tr("{amount} a second", amount=money(function.price_s, currency)))
    if function.price_call:
        parts.append(tr("{amount} a call", amount=money(function.price_call, currency)))
    if not parts and not function.worst_price:
        return tr("nothing")
    return ", ".join((*parts, tr("at most {amount} a call", amount=money(function.worst_price, currency))))


def function_lines(told: Spending, nodes: Iterable[NodeRow], width: int) -> list[Line]:
    """A line of each function: whether it is called, how busy it is, what it has cost today."""
    lines: list[Line] = []
    for node, device, function in functions_of(nodes):
        state, tone = function_state(node, device, function)
        cost = told.spend.day.of_function(f"{node.id}/{device.id}")
        name = f"{node.id} {device.called}"
        line: Line = [
            (f"  {fit(name, max(14, min(28, width - 66)))} ", "strong"), (f"{fit(state, 14)} ", tone),
            (in_flight_told(node, device, function), "plain"),
            (tr("  {n} warm", n=function.warm) if function.warm is not None else "", "plain"),
            (f"  {counted(function.cold, 'cold start')}" if function.cold is not None else "", "plain"),
            (tr("  today {amount}", amount=money(cost.spent)) + _reserved(cost), "strong"),
            (tr("  at most {amount} a call", amount=money(function.worst_price)), "dim"),
        ]  # fmt: skip
        lines.append(_within(width, line, 6, 4, 3))
        if function.why:
            lines.append(_within(width, [(f"      {function.why}", tone)]))
    return lines


def function_facts(node: NodeRow, device: DeviceNow, currency: str) -> list[tuple[str, str, Tone]]:
    """All about a function, as labels, words and how these are meant."""
    function = device.function
    if function is None:
        return []
    state, tone = function_state(node, device, function)
    facts: list[tuple[str, str, Tone]] = [
        (N("state"), f"{state}  {function.why}".rstrip(), tone),
        (N("endpoint"), function.endpoint or tr("not told: its agent is older"), "plain"),
        (N("price"), price_told(function, currency), "plain"),
        (N("calls"), in_flight_told(node, device, function) + _instances(function), "plain"),
    ]
    if function.start_s:
        facts.append((N("cold start"), tr("the last took {time}", time=long_span(function.start_s * 1000)), "plain"))
    if function.today is not None:
        facts.append((N("today"), money(function.today, currency), "strong"))
    return facts


def _instances(function: FunctionNow) -> str:
    if function.warm is None or function.cold is None:
        return ""  # its agent is older
    return tr("  {n} warm", n=function.warm) + f"  {counted(function.cold, 'cold start')}"


def in_flight_told(node: NodeRow, device: DeviceNow, function: FunctionNow) -> str:
    """How many calls are under way, of how many there may be."""
    running = function.in_flight
    if running is None:  # an older agent
        running = node.running if len(node.now) == 1 else None
    return tr("{n}/{most} in flight", n="--" if running is None else running, most=device.slots)


# ---------------------------------------------------------------- of a task


def task_cost(attempts: Iterable[Attempt], currency: str = "") -> Segment:
    """What functions were paid for a task's attempts together, and may be yet, and on which nodes these ran."""
    paid = [(attempt, attempt.spend) for attempt in attempts if attempt.spend is not None]
    cost = sum(attempt.spent for attempt, _ in paid if attempt.ended_ms is not None) / MILLION
    worst = sum(bill.worst for attempt, bill in paid if attempt.ended_ms is None) / MILLION
    told = money(cost, currency)
    if worst:
        told += tr(", and at most {amount} for the call under way", amount=money(worst, currency))
    places = ", ".join(dict.fromkeys(clean(attempt.node) for attempt, _ in paid))
    return tr(
        "{amount}, paid for {calls} by {nodes}", amount=told, calls=counted(len(paid), "call"), nodes=places
    ), "run"

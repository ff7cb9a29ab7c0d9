"""What serverless functions cost, and whether the budget allows more. Pure: no I/O, no clock."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from lcq.config import BudgetConfig
from lcq.models import DeviceKind, NodeRecord

MILLION = 1_000_000
"""The state has money in whole millionths of the currency."""


def millionths(amount: float) -> int:
    """``amount`` as the state has it: no less, but for what is only how a decimal number lies in a computer."""
    return math.ceil(round(amount * MILLION, 3))


SURE_SHARE = 0.25
"""Predictions err: a deadline is kept surely where a quarter more time would do."""


@dataclass(frozen=True)
class Book:
    """What a span of time, or a job, has cost. ``reserved``: the worst that what runs now may still cost."""

    spent: float = 0.0
    reserved: float = 0.0
    calls: int = 0
    users: Mapping[str, float] = field(default_factory=dict)  # of a day: both together, by user
    functions: Mapping[str, float] = field(default_factory=dict)  # by "node/device": of an hour spent, of a day both
    users_reserved: Mapping[str, float] = field(default_factory=dict)  # of a day: what of that is reserved
    functions_reserved: Mapping[str, float] = field(default_factory=dict)

    @property
    def taken(self) -> float:
        """What counts against a limit."""
        return self.spent + self.reserved

    def of_user(self, user: str) -> Book:
        """What that user's tasks have cost of a day."""
        return _part(self.users, self.users_reserved, user)

    def of_function(self, name: str) -> Book:
        """What that function, "node/device", has cost."""
        return _part(self.functions, self.functions_reserved, name)


def _part(taken: Mapping[str, float], reserved: Mapping[str, float], whose: str) -> Book:
    own = taken.get(whose, 0.0)
    under_way = min(own, reserved.get(whose, 0.0))
    return Book(round(own - under_way, 6), under_way)


def book_of(fields: Mapping[str, str]) -> Book:
    """A book from its fields in the state; what is no number counts as nothing."""

    def whole(name: str) -> int:
        try:
            return max(0, int(fields.get(name, 0)))
        except ValueError:
            return 0

    parts = (
        {name.removeprefix(mark): whole(name) / MILLION for name in fields if name.startswith(mark)}
        for mark in ("u/", "f/", "ru/", "rf/")
    )
    return Book(whole("spent") / MILLION, whole("reserved") / MILLION, whole("calls"), *parts)


def cheapest_price(nodes: Iterable[NodeRecord]) -> float | None:
    """What an attempt costs at most at the cheapest function of ``nodes``; None: they have none."""
    functions = (one for node in nodes for one in node.capability.devices if one.kind is DeviceKind.SERVERLESS)
    return min((one.worst_price for one in functions), default=None)


def bill_of(budget: BudgetConfig, worst_price: float) -> dict[str, int]:
    """What ``claim_tasks`` reserves an attempt by, all in millionths."""
    limits = {span: getattr(budget, span) for span in ("hour", "day", "month", "job", "user_day")}
    told = {span: math.floor(round(limit * MILLION, 3)) for span, limit in limits.items() if limit is not None}
    return {"worst": millionths(worst_price)} | told


@dataclass(frozen=True)
class Spend:
    """The books of now, by what they are limited by."""

    budget: BudgetConfig
    hour: Book = Book()
    day: Book = Book()
    month: Book = Book()
    jobs_out: frozenset[str] = frozenset()  # jobs that have used up what they may

    @property
    def shares(self) -> dict[str, float]:
        """Of each span of time that has a limit, the share of it that is spent or reserved."""
        return {name: book.taken / limit for name, limit, book in self._spans if limit}

    def used_up(self, price: float) -> frozenset[str]:
        """Of those spans the ones of which so much is spent that nothing fits any more that may cost ``price``. What is
        reserved does not count: most of it comes back as calls end."""
        return frozenset(
            name for name, limit, book in self._spans if limit is not None and book.spent + price > limit + 1e-9
        )

    @property
    def _spans(self) -> tuple[tuple[str, float | None, Book], ...]:
        return (
            ("hour", self.budget.hour, self.hour), ("day", self.budget.day, self.day),
            ("month", self.budget.month, self.month),
        )  # fmt: skip

    def lack(self, price: float, *, user: str = "", job: str = "") -> str:
        """Why ``price`` more may not be spent now, in words for people; "": it may."""
        budget, currency = self.budget, self.budget.currency
        own = self.day.users.get(user, 0.0)
        spans = (
            ("this hour", budget.hour, self.hour.taken),
            ("today", budget.day, self.day.taken),
            ("this month", budget.month, self.month.taken),
            (f"user {user} today", budget.user_day, own),
        )
        for what, limit, taken in spans:
            if limit is not None and taken + price > limit + 1e-9:
                return (
                    f"the budget for {what} is {limit:g} {currency}, of which {taken:.4g} are spent or reserved, and "
                    f"an attempt may cost {price:.4g}"
                )
        if job and job in self.jobs_out and budget.job is not None:
            return f"the budget for a job is {budget.job:g} {currency}, and {job} has used that up"
        return ""


@dataclass(frozen=True)
class Overflow:
    """When tasks that may leave the house do. ``price``: what an attempt costs at most at the cheapest function there
    is. ``now_ms``: what Redis's clock showed; 0: not known, and then no deadline counts."""

    after_s: float
    spend: Spend
    price: float = 0.0
    now_ms: int = 0

    def left_s(self, deadline_ms: int | None) -> float | None:
        """Seconds until a deadline, less than 0 after it; None: there is none."""
        return None if deadline_ms is None or not self.now_ms else (deadline_ms - self.now_ms) / 1000

    def late_s(self, done_s: float, deadline_ms: int | None) -> float:
        """What ``done_s``, which the house is predicted to need, is beside ``after_s``: for a deadline, by the share of
        the time until then."""
        left_s = self.left_s(deadline_ms)
        if left_s is None:
            return done_s
        return float("inf") if left_s <= 0 else done_s * (1 + SURE_SHARE) / left_s * self.after_s

    def is_late(self, done_s: float, deadline_ms: int | None) -> bool:
        """Whether ``done_s``, which the house is predicted to need, is too late: for the deadline, if there is one."""
        left_s = self.left_s(deadline_ms)
        return done_s > self.after_s if left_s is None else done_s * (1 + SURE_SHARE) > left_s

    def lack(self, user: str, job: str) -> str:
        """As ``Spend.lack``."""
        return self.spend.lack(self.price, user=user, job=job)

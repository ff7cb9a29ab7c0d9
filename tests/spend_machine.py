"""Money under random moves of two schedulers: a ledger in plain Python beside Redis's books; after each move they are
the same, and no claim has gone over a limit. The clock of the scripts may be put on by hours, days and months."""

from __future__ import annotations

import asyncio
import json
import math
from collections import defaultdict
from collections.abc import Coroutine, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from functools import cached_property
from hashlib import sha1
from typing import Any, TypeVar

import redis
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from lcq.config import DistributedConfig
from lcq.errors import LcqError, TaskNotFound, TransitionRefused
from lcq.models import Device, DeviceKind, ModelOffer, NodeCapability, TaskResult
from lcq.spend import MILLION
from lcq.state.manager import StateManager
from lcq.state.scripts import Scripts
from lcq.wire import Grant
from tests.nodes import TELEA, a_failure, a_result, a_task

T = TypeVar("T")
BURST = "serverless"
NOT_RUN = ("endpoint_unreachable", "endpoint_busy", "endpoint_refused", "call_too_large")
MAY_HAVE_RUN = ("function_unknown", "endpoint_silent", "function_failed", "reply_unreadable")
SPANS = ("hour", "day", "month", "job")
HOUR_MS = 3_600_000

limits = st.sampled_from([None, None, None, None, None, 0.65, 1.0, 1.0, 2.5, 0.0])
budgets = st.fixed_dictionaries(dict.fromkeys(("hour", "day", "month", "job", "user_day"), limits))
prices = st.sampled_from([0.0, 0.0000004, 0.1, 0.3, 0.3, 0.7])
costs = st.sampled_from([0.0, 0.0000001, 0.05, 0.3, 7.0])  # a bill over the worst is not believed
schedulers = st.integers(0, 1)
which = st.integers(0, 30)
numbers = st.integers(1, 4)
wishes_of = st.lists(st.tuples(schedulers, st.sampled_from(["node-1", "node-2"]), numbers, prices), max_size=4)


def config_of(budget: Mapping[str, float | None]) -> DistributedConfig:
    return DistributedConfig.model_validate(
        {
            "serverless": {"budget": dict(budget)},
            "retries": {"base_s": 0.01, "max_s": 0.01, "per_minute": 1e9, "per_cause_per_minute": 1e9},
            "quarantine": {"enabled": False},
        }
    )


class LaterScripts(Scripts):
    """The scripts as they are, with a clock that is as many ms later as the key ``later`` says."""

    @cached_property
    def texts(self) -> Mapping[str, str]:
        mark = "return tonumber(t[1]) * 1000"
        assert mark in super().texts["claim_tasks"]
        later = 'return tonumber(redis.call("GET", ROOT .. ":later") or "0") + tonumber(t[1]) * 1000'
        return {name: text.replace(mark, later) for name, text in super().texts.items()}

    @cached_property
    def digests(self) -> Mapping[str, str]:
        return {name: sha1(text.encode(), usedforsecurity=False).hexdigest() for name, text in self.texts.items()}


SCRIPTS = LaterScripts(config_of({}))


@dataclass(frozen=True)
class Bill:
    """What an attempt was reserved, and what it cost. ``cost``: what its function will say; ``settled``: None while
    it runs."""

    worst: int
    hour: str
    day: str
    month: str
    user: str
    job: str
    cost: float
    settled: int | None = None
    said: str = ""  # the code, or "completed"
    came: bool = False  # its bill, while it ran

    @property
    def paid(self) -> int:
        """By its function's word."""
        return min(self.worst, math.ceil(self.cost * MILLION))

    @property
    def books(self) -> list[tuple[str, str]]:
        return [(span, name) for span in SPANS if (name := getattr(self, span))]


Key = tuple[str, int]
Wish = tuple[int, str, int, float]  # which scheduler asks, for which node, for how many, at which price


class SpendMachine(RuleBasedStateMachine):
    """Two schedulers, each with a connection and a budget of its own, and two nodes with a function.

    Rules have no preconditions: when a retry is due, and who comes first of those that are even, is a matter of
    chance, so what is drawn must not depend on what there is. One that has nothing to do does nothing.
    """

    url = ""

    def __init__(self) -> None:
        super().__init__()
        self.eye = redis.Redis.from_url(self.url, decode_responses=True)
        self.eye.flushall()
        self.later_ms = 0
        self.ledger: dict[Key, Bill] = {}
        self.node_of: dict[Key, str] = {}
        self.ids: list[str] = []
        self.loop = asyncio.new_event_loop()
        self.over = asyncio.Event()
        ready: asyncio.Future[list[StateManager]] = self.loop.create_future()
        self.life = self.loop.create_task(self._live(ready))
        self.states = self.loop.run_until_complete(ready)

    async def _live(self, ready: asyncio.Future[list[StateManager]]) -> None:
        config = SCRIPTS.config
        async with StateManager(config, url=self.url) as one, StateManager(config, url=self.url) as other:
            for state in (one, other):
                state._scripts = SCRIPTS
            ready.set_result([one, other])
            await self.over.wait()

    def teardown(self) -> None:
        try:
            self.close_all()
        finally:
            self.over.set()
            self.loop.run_until_complete(self.life)
            self.loop.close()
            self.eye.close()

    def close_all(self) -> None:
        """At the end nothing is reserved, and what was spent is the sum of what attempts cost."""
        for number, key in enumerate(self.running):
            self.end(key, ("completed", "function_unknown", "endpoint_busy")[number % 3])
        self.books_are_the_sum_of_all_bills()
        for name in self.eye.scan_iter("{lcq}:spend:*"):
            assert int(self.eye.hget(name, "reserved") or 0) == 0, name
        assert all(bill.settled is not None for bill in self.ledger.values())

    def now(self, *coroutines: Coroutine[Any, Any, T]) -> list[T | LcqError]:
        """What becomes of moves that are made at the same time."""

        async def all_of_them() -> list[Any]:
            return await asyncio.gather(*coroutines, return_exceptions=True)

        told = self.loop.run_until_complete(all_of_them())
        for one in told:
            if isinstance(one, BaseException) and not isinstance(one, TransitionRefused | TaskNotFound):
                raise one
        return told

    # ------------------------------------------------------------ how it begins, and what changes about it

    @initialize(first=budgets, other=budgets)
    def begin(self, first: dict[str, float | None], other: dict[str, float | None]) -> None:
        self.follow(0, first)
        self.follow(1, other)
        for name in ("node-1", "node-2"):
            kind = DeviceKind.SERVERLESS
            capability = NodeCapability(
                devices=(Device(id="burst", kind=kind, slots=8, worst_price=0.3),),
                models={TELEA: ModelOffer(kinds=(kind,), seconds={kind: 0.5})},
            )
            self.now(self.states[0].register_node(name, boot=name, capability=capability, serves={"burst": (BURST,)}))
        self.submit(6, "ann", "holiday", may_leave=True)
        self.claims_and_ends_at_once([(0, "node-1", 2, 0.3), (1, "node-2", 1, 0.1)], [], 0.05)

    @rule(scheduler=schedulers, budget=budgets)
    def follow(self, scheduler: int, budget: dict[str, float | None]) -> None:
        """One scheduler reads its settings anew, and not yet the other."""
        self.states[scheduler].follow(config_of(budget))

    @rule(hours=st.sampled_from([1, 1, 1, 24, 24 * 31]))
    def time_passes(self, hours: int) -> None:
        self.later_ms += hours * HOUR_MS
        self.eye.set("{lcq}:later", self.later_ms)

    @rule(
        count=st.integers(1, 4),
        user=st.sampled_from(["ann", "bob"]),
        job=st.sampled_from([None, "holiday", "wedding"]),
        may_leave=st.sampled_from([True, True, True, False]),
    )
    def submit(self, count: int, user: str, job: str | None, *, may_leave: bool) -> None:
        for _ in range(count):
            task = a_task(user_id=user, job=job, max_retries=2, privacy="exportable" if may_leave else "private")
            self.now(self.states[0].submit_task(task, queue=BURST))
            self.ids.append(task.id)

    # ------------------------------------------------------------ attempts begin

    async def _claim(self, scheduler: int, node: str, slots: int, price: float) -> tuple[Grant, ...]:
        return await self.states[scheduler].claim_tasks(
            node=node, boot=node, device="burst", kind=DeviceKind.SERVERLESS, slots=slots, lanes=[TELEA],
            queues=[BURST], lease_ms=60_000, worst_price=price,
        )  # fmt: skip

    @rule(wishes=wishes_of, cost=costs)
    def claims_at_once(self, wishes: list[Wish], cost: float) -> None:
        self.claims_and_ends_at_once(wishes, [], cost)

    @rule(
        wishes=wishes_of,
        ends=st.lists(st.tuples(which, st.sampled_from(["completed", NOT_RUN[0], MAY_HAVE_RUN[0]])), max_size=2),
        cost=costs,
    )
    def claims_and_ends_at_once(self, wishes: list[Wish], ends: list[tuple[int, str]], cost: float) -> None:
        """Schedulers claim for their nodes while some of what runs ends."""
        running = self.running
        ending = {running[number % len(running)]: said for number, said in ends if running}
        moves = [self._claim(*wish) for wish in wishes] + [self._end(key, said) for key, said in ending.items()]
        told = self.now(*moves)
        for key, said in ending.items():
            self._note_end(key, said)
        for (_, node, _, price), grants in zip(wishes, told[: len(wishes)], strict=True):
            assert isinstance(grants, tuple)
            for grant in grants:
                self._note_claim(grant, node, price, cost)
        self._is_within_limits(wishes, told)

    def _note_claim(self, grant: Grant, node: str, price: float, cost: float) -> None:
        key = (grant.task.id, grant.attempt)
        assert key not in self.ledger, "nobody is granted what another has"
        assert grant.task.privacy == "exportable"
        record = self.record(key)
        bill = record["spend"]
        now_ms = self.later_ms + int(1000 * float(self.eye.time()[0]))
        assert bill["hour"] in {self.hour(now_ms), self.hour(now_ms - HOUR_MS)}
        assert (bill["day"], bill["month"]) == (bill["hour"][:10], bill["hour"][:7])
        self.ledger[key] = Bill(
            math.ceil(price * MILLION), bill["hour"], bill["day"], bill["month"], grant.task.user_id,
            grant.task.job or "", cost,
        )  # fmt: skip
        self.node_of[key] = node

    @staticmethod
    def hour(now_ms: int) -> str:
        return f"{datetime.fromtimestamp(now_ms / 1000, UTC):%Y-%m-%dT%H}"

    def _is_within_limits(self, wishes: Iterable[Wish], told: Iterable[object]) -> None:
        """Of each book that a limit is for, by the largest of those who granted anything on it."""
        most: dict[tuple[str, str, str], float] = {}
        for (scheduler, *_), grants in zip(wishes, told, strict=False):
            budget = self.states[scheduler].config.serverless.budget
            assert isinstance(grants, tuple)
            for grant in grants:
                bill = self.ledger[grant.task.id, grant.attempt]
                for span, limit in (("hour", budget.hour), ("day", budget.day), ("month", budget.month)):
                    name = (span, getattr(bill, span), "")
                    most[name] = max(most.get(name, 0.0), math.inf if limit is None else limit)
                name = ("job", bill.job, "")
                most[name] = max(most.get(name, 0.0), math.inf if budget.job is None else budget.job)
                name = ("day", bill.day, f"u/{bill.user}")
                most[name] = max(most.get(name, 0.0), math.inf if budget.user_day is None else budget.user_day)
        for (span, which_one, field), limit in most.items():
            if which_one and limit < math.inf:
                book = self.eye.hgetall(f"{{lcq}}:spend:{span}:{which_one}")
                taken = int(book.get(field, 0)) if field else int(book.get("reserved", 0)) + int(book.get("spent", 0))
                assert taken <= limit * MILLION, f"{span} {which_one} {field}: {taken} of {limit}"

    # ------------------------------------------------------------ attempts end

    @property
    def running(self) -> list[Key]:
        return [key for key, bill in self.ledger.items() if bill.settled is None]

    @property
    def lost(self) -> list[Key]:
        """Attempts that ended without a word of whether they ran."""
        return [key for key, bill in self.ledger.items() if bill.said in ("lost", "released", "cancelled")]

    async def _end(self, key: Key, said: str) -> object:
        state, node = self.states[key[1] % 2], self.node_of[key]
        if said == "completed":
            result = TaskResult.model_validate(a_result().model_dump() | {"cost": self.ledger[key].cost})
            return await state.finish_task(key[0], attempt=key[1], node=node, result=result)
        if said == "released":
            return await state.release_task(key[0], attempt=key[1], node=node)
        return await state.fail_task(key[0], attempt=key[1], node=node, failure=a_failure(code=said))

    def _note_end(self, key: Key, said: str) -> None:
        bill = self.ledger[key]
        settled = bill.paid if said == "completed" else 0 if said in NOT_RUN else bill.paid if bill.came else bill.worst
        self.ledger[key] = replace(bill, settled=settled, said=said)

    def end(self, key: Key, said: str) -> None:
        (told,) = self.now(self._end(key, said))
        assert not isinstance(told, LcqError), told
        self._note_end(key, said)

    @rule(number=which, said=st.sampled_from(["completed", "completed", "released", *NOT_RUN, *MAY_HAVE_RUN]))
    def ends(self, number: int, said: str) -> None:
        if self.running:
            self.end(self.running[number % len(self.running)], said)

    @rule(number=which)
    def a_bill_comes(self, number: int) -> None:
        """A gateway says what an attempt has cost that has not ended."""
        if not self.running:
            return
        key = self.running[number % len(self.running)]
        bill = self.states[0].bill_attempt(key[0], attempt=key[1], cost=self.ledger[key].cost, is_last=True)
        assert self.now(bill) == [False]
        self.ledger[key] = replace(self.ledger[key], came=True)

    @rule(number=which)
    def tells_it_twice(self, number: int) -> None:
        """What has been told, and answered, is told again: nothing changes."""
        key = [*self.ledger, ("", 0)][number % (len(self.ledger) + 1)]
        said = self.ledger[key].said if key in self.ledger else ""
        if said not in ("", "lost", "cancelled"):
            self.now(self._end(key, said))

    @rule(number=which)
    def is_lost(self, number: int) -> None:
        """A node falls silent: an attempt's lease runs out."""
        if not self.running:
            return
        key = self.running[number % len(self.running)]
        self.eye.zadd("{lcq}:leases", {key[0]: 1}, xx=True)
        self.now(self.states[key[1] % 2].expire_leases())
        for one in self.running:  # time may have passed, and more of them be over
            if self.record(one)["outcome"] != "running":
                self._note_end(one, "lost")
        assert key not in self.running

    @rule(number=which)
    def is_cancelled(self, number: int) -> None:
        if not self.running:
            return
        key = self.running[number % len(self.running)]
        self.now(self.states[0].cancel_task(key[0]))
        self._note_end(key, "cancelled")

    @rule(number=which, said=st.sampled_from(["completed", "completed", NOT_RUN[0]]))
    def a_late_word(self, number: int, said: str) -> None:
        """What was lost, or taken back, was done after all, and its bill comes late; or it had surely not run."""
        if not self.lost:
            return
        key = self.lost[number % len(self.lost)]
        (told,) = self.now(self._end(key, said))
        if not isinstance(told, LcqError):
            for other in self.running:  # another attempt was at it, and is not wanted any more
                if other[0] == key[0]:
                    self._note_end(other, "cancelled")
        self._note_end(key, said)

    @rule(number=which)
    def a_late_result_is_put_in_its_place(self, number: int) -> None:
        """A node has the result of what was taken from it, and is given the task back for it."""
        if not self.lost:
            return
        key = self.lost[number % len(self.lost)]
        node = self.node_of[key]
        (told,) = self.now(self.states[0].retake_task(key[0], attempt=key[1], node=node, boot=node))
        if isinstance(told, LcqError):
            return
        for other in self.running:
            if other[0] == key[0]:
                self._note_end(other, "cancelled")
        result = TaskResult.model_validate(a_result().model_dump() | {"cost": self.ledger[key].cost})
        self.now(self.states[1].finish_task(key[0], attempt=told.attempt, node=node, result=result))
        self._note_end(key, "completed")

    @rule()
    def old_books_are_forgotten(self) -> None:
        """Those of earlier hours; what still runs was reserved there, and makes none anew when it ends."""
        now = {self.hour(self.later_ms + int(1000 * float(self.eye.time()[0])) - ago) for ago in (0, HOUR_MS)}
        for name in list(self.eye.scan_iter("{lcq}:spend:hour:*")):
            hour = name.removeprefix("{lcq}:spend:hour:")
            if hour not in now:
                self.eye.delete(name)
                for key, bill in self.ledger.items():
                    if bill.hour == hour:
                        self.ledger[key] = replace(bill, hour="")

    @rule()
    def what_is_due_is_queued(self) -> None:
        self.now(self.states[0].release_due())

    @rule(number=which)
    def is_retried(self, number: int) -> None:
        """Somebody wants it done anew."""
        self.now(self.states[1].retry_task(self.ids[number % len(self.ids)], queue=BURST))

    # ------------------------------------------------------------ what is always so

    def record(self, key: Key) -> dict[str, Any]:
        record: dict[str, Any] = json.loads(self.eye.lindex(f"{{lcq}}:attempts:{key[0]}", key[1] - 1))
        return record

    @invariant()
    def books_are_the_sum_of_all_bills(self) -> None:
        wanted: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
        for key, bill in self.ledger.items():
            for span, name in bill.books:
                book = wanted[f"{{lcq}}:spend:{span}:{name}"]
                book["reserved"] += bill.worst if bill.settled is None else 0
                book["spent"] += bill.settled or 0
                book["calls"] += bill.settled is not None
                if span == "hour":
                    book[f"f/{self.node_of[key]}/burst"] += bill.settled or 0
                if span == "day":
                    for field in (f"u/{bill.user}", f"f/{self.node_of[key]}/burst"):
                        book[field] += bill.worst if bill.settled is None else bill.settled
                        book[f"r{field}"] += bill.worst if bill.settled is None else 0
        found: dict[str, dict[str, int]] = {
            name: {field: int(value) for field, value in self.eye.hgetall(name).items()}
            for name in self.eye.scan_iter("{lcq}:spend:*")
        }
        assert all(value >= 0 for book in found.values() for value in book.values()), found
        for name in {*wanted, *found}:
            fields = {*wanted[name], *found.get(name, {})}
            told = {field: (found.get(name, {}).get(field, 0), wanted[name][field]) for field in fields}
            assert all(there == here for there, here in told.values()), f"{name}: {told}"
        self._the_report_says_the_same()

    def _the_report_says_the_same(self) -> None:
        """By day, in all and by user."""
        wanted: dict[str, int] = defaultdict(int)
        for bill in self.ledger.values():
            for field in ("all/cost/", f"user/cost/{bill.user or '(warm-ups)'}"):
                wanted[f"{bill.day} {field}"] += bill.settled or 0
        for name in self.eye.scan_iter("{lcq}:usage:*"):
            day = date.fromordinal(date(1970, 1, 1).toordinal() + int(name.rpartition(":")[2])).isoformat()
            for field, value in self.eye.hgetall(name).items():
                if field.startswith(("all/cost/", "user/cost/")):
                    wanted[f"{day} {field}"] -= int(value)
        assert not any(wanted.values()), f"books and report differ by {dict(wanted)}"

"""Functions that are away: how often they are tried, by how many calls, and what that costs tasks."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from lcq.health import NO_RETRY_LOST
from lcq.models import ErrorClass, Failure, RestCode
from lcq.runner_config import FunctionConfig
from lcq.wire import Warm, WarmAnswer, Warmed, WarmWish
from tests.conftest import wait_until
from worker.endpoint_keeper import MOST_FREE, EndpointKeeper, Standing, as_silence
from worker.functions_named import NamedFunctions
from worker.waker import Waker

BURST = "burst"


def failure(code: str = "endpoint_unreachable", error_class: ErrorClass = ErrorClass.TRANSIENT) -> Failure:
    return Failure(error_class=error_class, code=code, message="/photos/cat.png: function burst: it cannot be reached")


class Watch:
    """A keeper, the clock that it goes by, and what it has told."""

    def __init__(self) -> None:
        self.now = 0.0
        self.changes: list[str] = []
        self.keeper = EndpointKeeper(self.changes.append, clock=lambda: self.now, chance=lambda low, high: 1.0)
        self.begun = 0

    def begin(self, task: str = "", attempt: int = 1) -> tuple[str, int]:
        self.begun += 1
        key = (task or f"task-{self.begun}", attempt)
        self.keeper.begun(BURST, key)
        return key

    def fail(self, code: str = "endpoint_unreachable", *, task: str = "", attempt: int = 1, again_s: float = 0) -> str:
        """The code that is reported for a call that ended with ``code``."""
        key = self.begin(task, attempt)
        return self.keeper.failed(BURST, key, failure(code), again_s=again_s).code

    def pass_(self, seconds: float) -> None:
        self.now += seconds
        self.keeper.look()

    @property
    def room(self) -> int:
        return self.keeper.room(BURST, 8)

    @property
    def is_resting(self) -> bool:
        return self.keeper.rest(BURST) is not None


def test_three_calls_in_a_row_that_reach_nothing_and_it_is_left_alone_until_one_call_may_try_it() -> None:
    watch = Watch()
    for _ in range(2):
        watch.fail()
    watch.keeper.worked(BURST, watch.begin())
    for _ in range(2):
        watch.fail()
    assert (watch.room, watch.changes) == (8, [])
    watch.fail()
    rest = watch.keeper.rest(BURST)
    assert rest is not None
    assert rest.code is RestCode.ENDPOINT_AWAY
    assert rest.why == "its function is left alone until it is tried again: it cannot be reached"
    assert (watch.room, watch.changes) == (0, [BURST])
    assert watch.keeper.standing(BURST) == Standing(in_vain=3, until=5.0)
    watch.pass_(4.9)
    assert watch.is_resting
    watch.pass_(0.1)
    assert not watch.is_resting
    assert (watch.room, watch.keeper.most(BURST)) == (1, 1)
    assert watch.keeper.standing(BURST) == Standing(in_vain=3, trials=0)
    trial = watch.begin()
    assert watch.room == 0, "one call, and no herd"
    assert watch.keeper.standing(BURST).trials == 1
    watch.keeper.failed(BURST, trial, failure())
    assert watch.keeper.standing(BURST) == Standing(in_vain=4, until=15.0)
    watch.pass_(10)
    watch.keeper.worked(BURST, watch.begin())
    assert (watch.room, watch.keeper.most(BURST)) == (8, None)
    assert watch.keeper.standing(BURST) == Standing()


def test_ten_minutes_of_outage_cost_eight_calls_no_task_a_try_and_end_with_one_call() -> None:
    watch, calls, reported = Watch(), Counter[int](), Counter[str]()
    flight = [watch.begin() for _ in range(8)]  # what was on its way when it died
    for key in flight:
        reported[watch.keeper.failed(BURST, key, failure()).code] += 1
    while watch.now < 600:
        watch.pass_(1)
        for _ in range(watch.room):  # there is always more work than room
            calls[int(watch.now // 60)] += 1
            reported[watch.fail()] += 1
    assert dict(calls) == {0: 3, 1: 1, 2: 1, 4: 1, 6: 1, 8: 1}  # after 5, 15, 35, 75, 155, 275, 395, 515 s
    assert set(reported) <= NO_RETRY_LOST
    assert reported.total() == 8 + 8
    trials = []
    while not trials:  # it is there again, and nobody has noticed yet
        watch.pass_(1)
        trials += [watch.begin() for _ in range(watch.room)]
    assert (len(trials), watch.now, watch.room) == (1, 635, 0)
    watch.keeper.worked(BURST, trials[0])
    assert (watch.room, watch.is_resting) == (8, False)
    for _ in range(3):
        watch.fail()
    watch.pass_(5)
    assert watch.room == 1, "the pauses begin anew"


def test_who_answers_nobody_is_away_too_and_the_task_that_brings_it_down_is_found_out() -> None:
    watch = Watch()
    told = [watch.fail("function_unknown", task=task) for task in "aba"]
    assert told == ["function_unknown", "function_unknown", "endpoint_silent"]
    assert "endpoint_silent" in NO_RETRY_LOST
    assert watch.is_resting
    for _ in range(8):
        watch.pass_(120)
        assert watch.fail("function_unknown", task="a", attempt=4) == "endpoint_silent"
    watch.pass_(120)
    assert watch.fail("function_unknown", task="a", attempt=21) == "function_unknown", "not for ever"
    alone = Watch()
    assert {alone.fail("function_unknown", task="killer") for _ in range(9)} == {"function_unknown"}
    assert not alone.is_resting


@pytest.mark.parametrize("asked_s", [60.0, 300.0])
@pytest.mark.parametrize("is_answered", [True, False])
def test_who_wants_to_be_left_alone_is_for_so_long_whatever_earlier_calls_say(
    asked_s: float, is_answered: bool
) -> None:
    watch = Watch()
    earlier = watch.begin()
    watch.fail("endpoint_busy", again_s=asked_s)
    assert watch.is_resting, "asked once is enough"
    if is_answered:
        watch.keeper.worked(BURST, earlier)
    watch.pass_(asked_s - 1)
    assert watch.is_resting
    watch.pass_(1)
    assert watch.room == 1


def test_calls_that_began_before_say_nothing_against_it_and_what_is_its_answer_says_something_for_it() -> None:
    watch = Watch()
    early = [watch.begin() for _ in range(4)]
    for _ in range(3):
        watch.fail()
    watch.pass_(5)
    for key in early[:2]:
        watch.keeper.failed(BURST, key, failure())
    assert watch.room == 1, "only the call that tries it tells"
    watch.keeper.worked(BURST, early[2])
    assert watch.room == 8
    for _ in range(3):
        watch.fail()
    watch.keeper.worked(BURST, early[3])
    assert watch.is_resting, "not before one has tried it"
    watch.pass_(0)
    assert watch.room == 1
    assert watch.fail("mask_full") == "mask_full"  # a refusal of the function's own
    assert watch.room == 8


def test_a_trial_that_tells_nothing_makes_room_for_another() -> None:
    watch = Watch()
    for _ in range(3):
        watch.fail()
    watch.pass_(5)
    watch.keeper.dropped(watch.begin())
    assert watch.room == 1
    assert watch.fail("call_too_large") == "call_too_large"
    assert watch.room == 1
    key = watch.begin()
    crash = failure("runner_died", ErrorClass.CRASH)
    assert watch.keeper.failed(BURST, key, crash) is crash
    assert watch.room == 1


async def test_the_keeper_looks_by_itself() -> None:
    changes: list[str] = []
    keeper = EndpointKeeper(changes.append, pause_s=(0.01, 0.01))
    for number in range(3):
        keeper.failed(BURST, (str(number), 1), failure())
    watch = asyncio.create_task(keeper.watch())
    await wait_until(lambda: keeper.most(BURST) == 1)
    watch.cancel()
    assert changes == [BURST, BURST]


class Alone(Watch):
    """One task, and the tiny calls that find out whether the function is there."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = 0
        self.keeper = EndpointKeeper(
            self.changes.append, clock=lambda: self.now, chance=lambda low, high: 1.0, ask=self._ask
        )

    def _ask(self, device: str) -> bool:
        self.asked += 1
        return True

    def cut(self, *, is_there: bool, task: str = "alone", attempt: int = 1) -> str:
        """The code that is reported for a call that was cut, once it was asked for where that is in doubt."""
        key, told = self.begin(task, attempt), failure("function_unknown")
        is_doubtful = self.keeper.is_doubtful(BURST, key, told)
        if is_doubtful:
            self.answer(is_there)
        return self.keeper.failed(BURST, key, told, is_there=is_there if is_doubtful else None).code

    def answer(self, is_there: bool) -> None:
        key = self.begin("look")
        if is_there:
            self.keeper.worked(BURST, key)
        else:
            self.keeper.failed(BURST, key, failure("function_unknown"))


def test_a_task_alone_loses_no_try_while_nobody_is_answered_and_tiny_calls_find_out_that_it_is_over() -> None:
    watch = Alone()
    assert watch.cut(is_there=False) == "endpoint_silent"
    for pause_s in (5, 10, 20, 40, 80, 120, 120):
        assert watch.is_resting
        watch.pass_(pause_s)
        assert (watch.is_resting, watch.room) == (False, 0), "no task's call, which is dear"
        watch.answer(False)
    watch.pass_(120)
    watch.answer(True)
    assert (watch.room, watch.is_resting, watch.asked) == (8, False, 8)
    watch.keeper.worked(BURST, watch.begin("alone"))
    assert watch.cut(is_there=False) == "endpoint_silent", "another outage"


def test_a_task_that_brings_the_function_down_loses_its_tries_though_that_is_slow_to_come_back() -> None:
    quick = Alone()
    assert [quick.cut(is_there=True) for _ in range(4)] == ["function_unknown"] * 4
    assert not quick.is_resting, "others are not to suffer for it"
    slow = Alone()
    assert slow.cut(is_there=False) == "endpoint_silent"
    slow.pass_(5)
    slow.answer(True)
    assert [slow.cut(is_there=False, attempt=number) for number in (2, 3, 4)] == ["function_unknown"] * 3
    assert slow.room == 8


def test_where_a_second_task_is_cut_or_nobody_can_ask_a_task_tries_it() -> None:
    both = Alone()
    both.cut(is_there=False)
    assert both.cut(is_there=False, task="other") == "endpoint_silent"
    both.pass_(5)
    assert (both.room, both.asked) == (1, 0)
    poor = Alone()
    poor.cut(is_there=False)
    poor.pass_(5)
    assert poor.room == 0
    poor.keeper.not_asked(BURST)
    assert poor.room == 1
    assert poor.cut(is_there=False) == "endpoint_silent"


async def test_a_function_whose_calls_are_queued_is_not_asked_by_one_that_goes_past_the_queue() -> None:
    def nobody(*_: object) -> None:
        raise AssertionError("it was called")

    settings = {
        "kind": "openfaas",
        "async": True,
        "url": "https://faas.example/function/clean",
        "models": {"lama": 2.0},
    }
    functions = NamedFunctions({"queued": FunctionConfig.model_validate(settings)})

    async def ask(_: object) -> None:
        nobody()

    waker = Waker(
        "node-1", "boot-1", functions, ask=ask, room=lambda *_: 0, begun=nobody, answered=nobody, woken=nobody,
        ended=nobody, changed=nobody,
    )  # fmt: skip
    async with asyncio.timeout(60):
        assert await waker.look("queued") is None
        assert await waker.look("gone") is None


async def test_what_a_warm_up_failed_of_is_told_once_whatever_the_number_of_its_calls() -> None:
    functions = NamedFunctions(
        {"burst": FunctionConfig.model_validate({"url": "http://127.0.0.1:9", "models": {"lama": 1}})}
    )
    told: list[tuple[str, str]] = []
    paid: list[float] = []

    async def ask(asked: Warm | Warmed) -> WarmAnswer | None:
        if isinstance(asked, Warm):
            return WarmAnswer(calls=asked.count)
        paid.append(asked.cost)
        return None

    def nothing(*_: object) -> None: ...

    waker = Waker(
        "node-1", "boot-1", functions, ask=ask, room=lambda _, count: count, begun=nothing, answered=nothing,
        woken=lambda device, failure: told.append((device, failure.code if failure else "")), ended=nothing,
        changed=nothing,
    )  # fmt: skip
    running = asyncio.create_task(waker.run())
    waker.wish(WarmWish(device="burst", model="lama", count=2))
    await wait_until(lambda: paid == [0.0], what="the warm-up's end")
    running.cancel()
    await asyncio.wait([running])
    assert told == [("burst", "endpoint_unreachable")]


def test_a_function_that_is_another_one_now_is_not_left_alone_for_what_was_there_before() -> None:
    watch = Watch()
    for _ in range(3):
        watch.fail()
    assert watch.is_resting
    watch.keeper.forget(BURST)
    assert not watch.is_resting
    assert (watch.room, watch.changes) == (8, [BURST, BURST])
    lost = failure("function_unknown")
    assert as_silence(("task-1", 1), lost).code == "endpoint_silent", "nobody can be asked about that one any more"
    assert as_silence(("task-1", MOST_FREE + 1), lost) == lost
    assert as_silence(("task-1", 1), failure("function_failed")).code == "function_failed"

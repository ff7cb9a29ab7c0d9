"""Functions are woken before they are needed, when overflow is near or by hand: no oftener, and for no more money."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import redis

from lcq import warming
from lcq.config import BudgetConfig, DistributedConfig, ServerlessConfig
from lcq.errors import AgentTooOld, BudgetSpent, FunctionNotFound, InvalidInput, LcqError, NodeNotFound, StaleBoot
from lcq.functions import FunctionRecord
from lcq.health import KNOWS_WARM_UPS
from lcq.models import (
    Device,
    DeviceKind,
    DeviceReading,
    FunctionReading,
    ModelOffer,
    NodeCapability,
    Prewarm,
    Privacy,
    TaskStatus,
)
from lcq.state.manager import StateManager
from lcq.warming import Warming
from lcq.wire import AskFunctions, Warm, Warmed, WarmFunction
from tests.audit import audit
from tests.conftest import wait_until_sync
from tests.functions import far_cluster, functions_framework
from tests.nodes import LIGHT, a_task

HOUR = timedelta(hours=1)
PREWARM = Prewarm(instances=3, share=0.5, idle_after_s=60)


def house_and_function(
    *, prewarm: Prewarm | None = PREWARM, knows: tuple[str, ...] = (KNOWS_WARM_UPS,)
) -> NodeCapability:
    """A node with a slot of its own, that takes 20 s a picture, and a function."""
    kinds = (DeviceKind.CPU, DeviceKind.SERVERLESS)
    return NodeCapability(
        devices=(
            Device(id="cpu", kind=DeviceKind.CPU, slots=1),
            Device(id="burst", kind=DeviceKind.SERVERLESS, name="http", slots=4, worst_price=0.25, prewarm=prewarm),
        ),
        models={"slow": ModelOffer(kinds=kinds, seconds={DeviceKind.CPU: 20.0, DeviceKind.SERVERLESS: 1.0})},
        knows=knows,
    )


async def a_node(
    state: StateManager, name: str = "far", reading: FunctionReading | None = None, **terms: Any
) -> NodeCapability:
    capability = house_and_function(**terms)
    serves = {"cpu": (LIGHT,), "burst": ("serverless",)}
    await state.register_node(name, boot="boot-1", capability=capability, serves=serves)
    await beat(state, reading or FunctionReading(), name)
    return capability


async def beat(state: StateManager, reading: FunctionReading, name: str = "far") -> None:
    await state.beat_node(name, boot="boot-1", running=(), readings={"burst": DeviceReading(function=reading)})


def with_budget(state: StateManager, **limits: float) -> None:
    serverless = ServerlessConfig(overflow_after_s=60, budget=BudgetConfig(currency="USD", **limits))
    state.follow(state.config.model_copy(update={"serverless": serverless}))


def wishes(eye: redis.Redis) -> list[Mapping[str, str]]:
    told = [fields for _, fields in eye.xrange("{lcq}:events")]
    return [one for one in told if one["move"] == "wish_warm_up"]


# ---------------------------------------------------------------- money


async def test_warm_ups_are_reserved_at_their_worst_as_far_as_the_budget_allows_and_settled_once(
    state: StateManager, eye: redis.Redis
) -> None:
    with_budget(state, hour=1.0, day=10.0)
    await a_node(state)

    async def reserve(warm_up: str, count: int, boot: str = "boot-1") -> tuple[int, str]:
        told = await state.reserve_warm_up(
            warm_up, node="far", boot=boot, device="burst", count=count, worst_price=0.3, hold=HOUR
        )
        return told.calls, told.lacking

    async def hour() -> tuple[float, float, int]:
        book = (await state.reader.spend()).hour
        return book.spent, book.reserved, book.calls

    with pytest.raises(StaleBoot):
        await reserve("early", 1, boot="boot-0")
    assert await reserve("one", 2) == (2, "")
    assert await reserve("one", 2) == (2, "")  # a copy of it
    assert await hour() == (0.0, 0.6, 0)
    assert await reserve("two", 3) == (1, "hour")
    assert await reserve("three", 1) == (0, "hour")
    await state.settle_warm_up("one", cost=0.05)
    await state.settle_warm_up("one", cost=0.05)
    await state.settle_warm_up("never", cost=0.05)
    assert await hour() == (0.05, 0.3, 2)
    await state.settle_warm_up("two", cost=7.0)  # a bill over the worst is not believed
    assert await hour() == (0.35, 0.0, 3)
    assert (await state.reader.spend()).hour.functions == {"far/burst": 0.35}
    day = (await state.reader.spend()).day
    assert (day.users, day.functions) == ({}, {"far/burst": 0.35})
    audit(eye)


async def test_schedulers_that_reserve_at_the_same_time_together_reserve_no_more_than_the_budget(
    state: StateManager, redis_url: str
) -> None:
    with_budget(state, hour=1.0)
    await a_node(state)
    async with StateManager(state.config, url=redis_url) as second:
        asked = [(one, count) for count in (1, 2, 1, 3) for one in (state, second)]
        reserved = await asyncio.gather(
            *(
                one.reserve_warm_up(
                    str(number), node="far", boot="boot-1", device="burst", count=count, worst_price=0.3, hold=HOUR
                )
                for number, (one, count) in enumerate(asked)
            )
        )
    assert sum(one.calls for one in reserved) == 3  # of 14, for 1.0
    assert (await state.reader.spend()).hour.reserved == pytest.approx(0.9)


async def test_a_warm_up_that_nobody_tells_of_counts_as_the_dearest(state: StateManager) -> None:
    await a_node(state)
    for warm_up, hold in (("lost", timedelta()), ("runs", HOUR)):
        await state.reserve_warm_up(
            warm_up, node="far", boot="boot-1", device="burst", count=2, worst_price=0.5, hold=hold
        )
    assert await state.settle_lost_warm_ups() == 1
    assert await state.settle_lost_warm_ups() == 0
    book = (await state.reader.spend()).month
    assert (book.spent, book.reserved, book.calls) == (1.0, 1.0, 2)


# ---------------------------------------------------------------- by itself


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What the warming of a scheduler takes for the time."""
    now = [1000.0]
    # Not of the module time: this loop's own clock would stand still, and with it whatever waits for a moment.
    monkeypatch.setattr(warming, "time", SimpleNamespace(monotonic=lambda: now[0]))
    return now


async def look(state: StateManager, warming_: Warming, clock: list[float], *, after_s: float = 5.0) -> None:
    clock[0] += after_s
    await warming_.look(await state.reader.fleet())


async def test_a_function_is_woken_when_overflow_is_near_and_is_let_sleep_when_it_is_not(
    state: StateManager, eye: redis.Redis, clock: list[float]
) -> None:
    with_budget(state)
    await a_node(state)
    one = Warming(state)

    async def submit(privacy: Privacy, count: int) -> None:
        for _ in range(count):
            await state.submit_task(a_task("slow", privacy=privacy), queue=LIGHT, cost_s=20.0)

    await submit(Privacy.PRIVATE, 2)
    await look(state, one, clock)
    assert wishes(eye) == []  # however long they wait: they may not leave
    await submit(Privacy.EXPORTABLE, 1)
    await look(state, one, clock)
    (wish,) = wishes(eye)
    assert (wish["node"], wish["device"], wish["model"], wish["count"]) == ("far", "burst", "slow", "3")
    assert wish["reason"] == "overflow is near"
    await look(state, one, clock)
    assert len(wishes(eye)) == 1  # it has been told a moment ago
    await beat(state, FunctionReading(warm=3, cold=3))
    eye.delete("{lcq}:warmed:burst")  # as after its time
    await look(state, one, clock)
    assert len(wishes(eye)) == 1  # as many are warm as are to be
    await beat(state, FunctionReading(warm=1, in_flight=1))
    await look(state, one, clock)
    assert wishes(eye)[-1]["count"] == "2"  # the third is at a call
    for task in await state.reader.lane_ids(LIGHT, "slow", limit=9):
        await state.cancel_task(task)
    eye.delete("{lcq}:warmed:burst")
    await beat(state, FunctionReading())
    await look(state, one, clock, after_s=50)
    assert len(wishes(eye)) == 3  # nothing waits, but that is not long ago
    eye.delete("{lcq}:warmed:burst")
    await look(state, one, clock, after_s=20)
    assert len(wishes(eye)) == 3
    audit(eye)


async def test_nothing_is_woken_without_money_or_wish_or_by_an_agent_that_cannot(
    state: StateManager, eye: redis.Redis, clock: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    with_budget(state, hour=0.2)
    await a_node(state)
    one = Warming(state)
    for _ in range(3):
        await state.submit_task(a_task("slow", privacy=Privacy.EXPORTABLE), queue=LIGHT, cost_s=20.0)
    await look(state, one, clock)
    await look(state, one, clock)
    (said,) = (told.message for told in caplog.records if "is not woken" in told.message)
    assert said.startswith("function burst is not woken although overflow is near: the budget for this hour is 0.2 USD")
    with_budget(state)
    for terms in ({"prewarm": None}, {"knows": ()}):
        await a_node(state, **terms)
        await look(state, one, clock)
    await a_node(state, reading=FunctionReading(warm=3))
    await a_node(state, "near")  # the same function, called by two
    await look(state, one, clock)
    assert wishes(eye) == []


# ---------------------------------------------------------------- by hand


async def test_what_is_asked_by_hand_is_refused_in_words_where_it_cannot_be_done(
    state: StateManager, eye: redis.Redis
) -> None:
    with_budget(state, hour=0.6)
    await a_node(state)
    await a_node(state, "old", knows=())
    one = Warming(state)

    async def refused(error: type[LcqError], **asked: Any) -> str:
        with pytest.raises(error) as told:
            await one.warm(WarmFunction(actor="ann", **asked))
        return str(told.value)

    assert "no node calls a function bust" in await refused(FunctionNotFound, function="bust")
    assert "moon" in await refused(NodeNotFound, function="burst", node="moon")
    assert "too old to wake a function" in await refused(AgentTooOld, function="burst", node="old")
    assert "has no model lama" in await refused(InvalidInput, function="burst", model="lama")
    assert "takes 4 calls at a time" in await refused(InvalidInput, function="burst", count=5)
    told = await one.warm(WarmFunction(function="burst", actor="ann", reason="the shoot"))
    assert (told.node, told.model, told.count) == ("far", "slow", 3)
    again = WarmFunction(function="burst", count=1)
    await one.warm(again)
    await one.warm(again)  # a copy of it
    assert [(wish["count"], wish["reason"]) for wish in wishes(eye)] == [
        ("3", "by ann: the shoot"), ("1", "by anonymous"),
    ]  # fmt: skip
    asked = Warm(node_id="far", boot_id="boot-1", device="burst", count=3)
    allowed = await one.reserve(asked)
    assert (allowed.calls, allowed.why) == (2, "the budget for this hour allows no more")
    assert (await one.reserve(Warm(node_id="far", boot_id="boot-1", device="cpu", count=1))).calls == 0
    assert "is not woken: the budget for this hour is 0.6" in await refused(BudgetSpent, function="burst")
    await one.settle(Warmed(node_id="far", boot_id="boot-1", warm_up=asked.id, cost=0.125))
    far = FunctionRecord(
        node="far", function="burst", platform="http", models=("slow",), calls_at_once=4, prewarm=3,
        worst_price=0.25, spent_hour=0.125,
    )  # fmt: skip
    found = (await one.functions(AskFunctions())).functions
    assert found == (far, far.model_copy(update={"node": "old", "spent_hour": 0.0}))
    await state.beat_node("far", boot="boot-1", running=(), readings={"burst": DeviceReading(fault="it is away")})
    assert "takes nothing now: it is away" in await refused(LcqError, function="burst")
    audit(eye)


# ---------------------------------------------------------------- for real


def test_instances_that_were_woken_by_hand_do_the_work_warm_and_all_of_it_is_in_the_books(
    redis_url: str, tmp_path: Path
) -> None:
    folder = Path(__file__).parents[2] / "sample-config"
    with (
        functions_framework(tmp_path / "function.log", workers=2) as address,
        far_cluster(
            redis_url, tmp_path / "c", {"burst": {"url": address}}, LCQ_SERVERLESS__BUDGET__HOUR="100"
        ) as cluster,
        cluster.client() as client,
    ):
        wait_until_sync(lambda: client.functions().functions, what="the function")
        assert client.warm_function("burst", 2, reason="the shoot").node == "far"

        def told() -> FunctionRecord:
            return client.functions().functions[0]

        def is_woken() -> FunctionRecord | None:
            """What it cost, and what a beat told of it: either may come first."""
            now = told()
            return now if now.spent_hour and (now.warm, now.cold, now.in_flight) == (2, 2, 0) else None

        woken = wait_until_sync(is_woken, what="two warm instances, and the warm-ups in the books")
        assert woken is not None
        assert 0 < woken.load_s < woken.start_s
        task = a_task(
            image_path=str(folder / "photos" / "coffee.jpg"),
            mask_path=str(folder / "masks" / "coffee.png"),
            output_path=str(tmp_path / "out.png"),
            privacy="exportable",
        )
        (done,) = client.wait([client.submit_many([task]).accepted[0].id], timeout_s=120)
        assert (done.status, done.device) == (TaskStatus.COMPLETED, "burst"), cluster.logs()
        assert done.result is not None
        assert not [note for note in done.result.notes if "cold start" in note]
        month = client.spend().now[2]  # of the hours, the next one may have begun meanwhile
        assert (month.calls, month.reserved) == (3, 0.0)
        assert month.spent == pytest.approx(woken.spent_hour + done.result.cost, abs=3e-6)
        assert told().cold == 2  # a model is loaded once an instance


def test_what_a_function_is_to_keep_warm_is_told_by_its_settings() -> None:
    config = DistributedConfig.model_validate(
        {"agent": {"functions": {"burst": {"url": "http://far", "models": {"lama": 4}, "prewarm": {"instances": 2}}}}}
    )
    assert config.agent.functions["burst"].prewarm.model_dump() == Prewarm(instances=2).model_dump()

"""Budgets of functions: what may be spent, and that several schedulers never spend more."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from lcq.component import Ground
from lcq.config import BudgetConfig, DistributedConfig
from lcq.desk import Site
from lcq.errors import InvalidInput, TransitionRefused
from lcq.foreseen import told_foreseen
from lcq.functions import dearest_price
from lcq.health import ENDPOINT_DOWN
from lcq.models import (
    Device,
    DeviceKind,
    ErrorClass,
    ModelOffer,
    NodeCapability,
    NodeRecord,
    NodeStatus,
    Privacy,
    TaskResult,
    TaskStatus,
)
from lcq.moving import Mover
from lcq.nodes import NodeManager
from lcq.reasons import WhyCode
from lcq.reload import Role, changes, with_live_keys
from lcq.routing import Route, home_of, route, route_again
from lcq.spend import Book, Overflow, Spend, bill_of, book_of
from lcq.state.manager import StateManager
from lcq.tasks import TaskManager
from lcq.usage import By, today_of
from lcq.why import why_of
from lcq.wire import ForeseeAnswer, Foreseen, Grant, Outcome, Retry, SetPrivacy
from tests.nodes import LIGHT, TELEA, Node, a_failure, a_result, a_task

BURST = "serverless"


def settings(**budget: float) -> DistributedConfig:
    return DistributedConfig.model_validate({"serverless": {"overflow_after_s": 1, "budget": budget}})


class FunctionNode(Node):
    """A node with one function, at 0.3 for the worst call."""

    price = 0.3

    async def hello(self, slots: int = 8) -> None:  # type: ignore[override]
        device = Device(id="burst", kind=DeviceKind.SERVERLESS, slots=slots, worst_price=self.price)
        kind = DeviceKind.SERVERLESS
        capability = NodeCapability(devices=(device,), models={TELEA: ModelOffer(kinds=(kind,), seconds={kind: 0.5})})
        await self.state.register_node(self.id, boot=self.boot, capability=capability, serves={"burst": (BURST,)})

    async def take(self, slots: int = 1) -> tuple[Grant, ...]:
        return await self.state.claim_tasks(
            node=self.id, boot=self.boot, device="burst", kind=DeviceKind.SERVERLESS, slots=slots, lanes=[TELEA],
            queues=[BURST], lease_ms=60_000, worst_price=self.price,
        )  # fmt: skip

    async def end(self, grant: Grant, cost: float) -> None:
        result = TaskResult.model_validate(a_result().model_dump() | {"cost": cost})
        await self.state.finish_task(grant.task.id, attempt=grant.attempt, node=self.id, result=result)


async def submitted(state: StateManager, count: int = 1, **fields: object) -> list[str]:
    ids = []
    for _ in range(count):
        task = a_task(**({"privacy": "exportable"} | fields))
        await state.submit_task(task, queue=BURST)
        ids.append(task.id)
    return ids


async def test_a_call_is_reserved_at_its_worst_and_settled_by_its_bill(redis_url: str) -> None:
    async with StateManager(settings(month=1.0), url=redis_url) as state:
        node = FunctionNode(state)
        await node.hello()
        await submitted(state, 5, user_id="ann")
        grants = await node.take(5)
        assert len(grants) == 3  # a fourth at 0.3 would be over 1.0
        known = await state.reader.spend()
        assert known.month == Book(0.0, 0.9, 0)
        assert known.day.users == {"ann": 0.9}
        assert known.day.functions == {f"{node.id}/burst": 0.9}
        assert known.day.of_user("ann") == known.day.of_function(f"{node.id}/burst") == Book(0.0, 0.9)
        (running,) = await state.reader.attempts(grants[0].task.id)
        assert (running.spend.worst, running.spent) == (300_000, 0)
        assert known.lack(0.3) == (
            "the budget for this month is 1 USD, of which 0.9 are spent or reserved, and an attempt may cost 0.3"
        )
        for grant in grants:
            await node.end(grant, 0.01)
        known = await state.reader.spend()
        assert known.month == Book(0.03, 0.0, 3)
        assert (known.used_up(0.98), known.used_up(0.3)) == ({"month"}, frozenset())
        assert known.day.functions == {f"{node.id}/burst": 0.03}
        assert known.day.of_user("ann") == known.day.of_function(f"{node.id}/burst") == Book(0.03)
        assert known.day.functions_reserved == {}
        assert (await state.reader.attempts(grants[0].task.id))[0].spent == 10_000
        assert known.lack(0.3) == ""
        assert len(await node.take(5)) == 2


@pytest.mark.parametrize(
    ("code", "cost"), [("endpoint_unreachable", 0.0), ("storage_unreachable", 0.0), ("function_unknown", 0.3)]
)
async def test_what_has_not_run_costs_nothing_and_of_what_may_have_the_worst_is_true(
    redis_url: str, code: str, cost: float
) -> None:
    async with StateManager(settings(), url=redis_url) as state:
        node = FunctionNode(state)
        await node.hello()
        await submitted(state, max_retries=0)
        (grant,) = await node.take()
        await state.fail_task(grant.task.id, attempt=1, node=node.id, failure=a_failure(code=code))
        known = await state.reader.spend()
        assert known.month == Book(cost, 0.0, 1)
        await state.account_tasks()
        today = [today_of(await state.now_ms())]
        billed = sum(row.cost for row in (await state.reader.usage(today)).rows("user"))
        assert billed == cost, "lcq report goes by the books, also of what has failed"


@pytest.mark.parametrize(
    ("end", "cost"),
    [("lost", 0.02), ("function_unknown", 0.02), ("cancelled", 0.02), ("endpoint_busy", 0.0), ("no word", 0.3)],
)
async def test_a_bill_that_comes_while_its_attempt_runs_counts_when_that_ends_without_one(
    redis_url: str, end: str, cost: float
) -> None:
    async with StateManager(settings(), url=redis_url) as state:
        node = FunctionNode(state)
        await node.hello()
        await submitted(state)
        (grant,) = await node.take()
        told = {"attempt": 1, "node": node.id}
        if end != "no word":
            assert not await state.bill_attempt(grant.task.id, attempt=1, cost=0.02, is_last=True)
        assert not await state.bill_attempt(grant.task.id, attempt=1, cost=0.001, is_last=False)  # it was not taken
        assert (await state.reader.spend()).month == Book(0.0, 0.3, 0), "it may make another call"
        if end in ("lost", "no word"):  # its runner was killed
            failure = a_failure(ErrorClass.CRASH, "runner_died")
            await state.fail_task(grant.task.id, **told, failure=failure)
        elif end == "cancelled":
            await state.cancel_task(grant.task.id)
        else:
            await state.fail_task(grant.task.id, **told, failure=a_failure(code=end))
        assert (await state.reader.spend()).month == Book(cost, 0.0, 1)
        assert (await state.reader.attempts(grant.task.id))[0].spent == round(cost * 1e6)


@pytest.mark.parametrize("is_late", [False, True])
async def test_a_call_whose_result_could_not_be_kept_has_run_and_costs_what_it_did(
    redis_url: str, is_late: bool
) -> None:
    async with StateManager(settings(), url=redis_url) as state:
        node = FunctionNode(state)
        await node.hello()
        (task_id,) = await submitted(state)
        await node.take()
        failed = Outcome(task_id=task_id, attempt=1, failure=a_failure(code="storage_unreachable"), cost=0.05)
        if is_late:
            await state.release_task(task_id, attempt=1, node=node.id)
        nodes = NodeManager(Ground(state, Site(state)))  # not begun: it needs no sockets here
        nodes._state = state
        verdict = await nodes._settled(node.id, failed)
        assert verdict.verdict == ("refused" if is_late else "settled")
        assert (await state.reader.spend()).month == Book(0.05, 0.0, 1)


async def test_what_an_attempt_says_itself_goes_before_a_bill_that_came_while_it_ran(redis_url: str) -> None:
    async with StateManager(settings(), url=redis_url) as state:
        node = FunctionNode(state)
        await node.hello()
        await submitted(state)
        (grant,) = await node.take()
        await state.bill_attempt(grant.task.id, attempt=1, cost=0.02, is_last=True)
        await node.end(grant, 0.05)
        assert (await state.reader.spend()).month == Book(0.05, 0.0, 1)


async def test_an_endpoint_that_is_away_says_nothing_of_the_node_that_called_it(redis_url: str) -> None:
    async with StateManager(settings(), url=redis_url) as state:
        node, other = FunctionNode(state), FunctionNode(state, "node-2")
        await node.hello()
        await other.hello()  # where somebody else could do it, a node may be to blame
        ids = await submitted(state, 2 * len(ENDPOINT_DOWN) + 1)
        grants = await node.take(8)
        codes = [*sorted(ENDPOINT_DOWN)] * 2
        for code, grant in zip(codes, grants, strict=True):
            failure = a_failure(code=code)
            assert not await state.fail_task(grant.task.id, attempt=1, node=node.id, failure=failure)
        known = (await state.reader.nodes())[0]
        assert (known.failed, known.blame, known.device_blame, known.quarantined) == (0, 0.0, {}, {})
        (grant,) = await node.take()
        await state.fail_task(grant.task.id, attempt=1, node=node.id, failure=a_failure(code="function_failed"))
        known = (await state.reader.nodes())[0]
        assert (known.failed, known.device_blame["burst"][0]) == (1, 1.0), "what ran there, and failed, does"
        for task_id in ids:
            await state.cancel_task(task_id)
        await state.account_tasks()
        (row,) = (await state.reader.usage([today_of(await state.now_ms())])).rows("node")
        assert (row.tasks, row.attempts) == (0, 1), "nor are they attempts in a report"


@pytest.mark.parametrize("price", [0.3, 0.0])
async def test_a_report_has_time_in_functions_apart_and_charges_no_gpu_for_it(redis_url: str, price: float) -> None:
    config = DistributedConfig.model_validate({"report": {"prices": {"gpu": 1e6}}})
    async with StateManager(config, url=redis_url) as state:
        node = FunctionNode(state)
        node.price = price
        await node.hello()
        await submitted(state)
        (grant,) = await node.take()
        await asyncio.sleep(0.01)
        await node.end(grant, 0.0)
        await state.account_tasks()
        (row,) = (await state.reader.usage([today_of(await state.now_ms())])).rows("node")
        assert (row.name, row.attempts, row.gpu_s, row.cpu_s, row.cost) == (node.id, 1, 0.0, 0.0, 0.0)
        assert row.function_s >= 0.01


async def test_a_late_bill_corrects_what_was_taken_to_be_true(redis_url: str) -> None:
    async with StateManager(settings(), url=redis_url) as state:
        node = FunctionNode(state)
        await node.hello()
        await submitted(state, job="holiday")
        (grant,) = await node.take()
        await state.release_task(grant.task.id, attempt=1, node=node.id)
        assert (await state.reader.spend_of_job("holiday")) == Book(0.3, 0.0, 1)
        await node.end(grant, 0.02)
        assert (await state.reader.spend_of_job("holiday")) == Book(0.02, 0.0, 1)
        assert (await state.reader.spend_of_jobs()) == {"holiday": Book(0.02, 0.0, 1)}


async def test_what_is_handed_back_before_it_was_begun_costs_nothing(redis_url: str) -> None:
    async with StateManager(settings(), url=redis_url) as state:
        node = FunctionNode(state)
        await node.hello()
        await submitted(state, 2)
        not_begun, begun = await node.take(2)
        nodes = NodeManager(Ground(state, Site(state)))
        nodes._state = state
        for grant, cost in ((not_begun, 0.0), (begun, None)):
            back = Outcome(task_id=grant.task.id, attempt=1, handed_back=True, cost=cost)
            assert (await nodes._settled(node.id, back)).verdict == "settled"
        assert (await state.reader.spend()).month == Book(0.3, 0.0, 2)


async def test_each_user_and_each_job_has_a_limit_and_who_is_over_it_holds_nobody_up(redis_url: str) -> None:
    async with StateManager(settings(user_day=0.7, job=0.4), url=redis_url) as state:
        node = FunctionNode(state)
        await node.hello()
        await submitted(state, 3, user_id="ann")
        await submitted(state, 3, user_id="bob", job="wedding")
        grants = await node.take(6)
        assert sorted(grant.task.user_id for grant in grants) == ["ann", "ann", "bob"]
        known = await state.reader.spend()
        assert "job is 0.4 USD, and wedding has used that up" in known.lack(0.3, user="carl", job="wedding")
        assert "user ann today is 0.7" in known.lack(0.3, user="ann")
        assert known.lack(0.3, user="carl") == ""


async def test_one_claim_for_several_slots_does_not_overspend_either(redis_url: str) -> None:
    """What was looked at while there was money is not granted once others of the same claim have taken it: a task that
    gave its place to one of another job, whose turn it was, had been looked at."""
    async with StateManager(settings(month=0.65), url=redis_url) as state:
        node = FunctionNode(state)
        await node.hello()
        await submitted(state, 6, job="holiday")
        for grant in await node.take(2):
            await node.end(grant, 0.0)
        await submitted(state, 6, job="wedding")
        assert len(await node.take(8)) == 2
        assert (await state.reader.spend()).month.reserved == pytest.approx(0.6)


async def test_what_comes_late_from_whom_it_was_taken_corrects_the_bill_though_it_is_not_wanted(redis_url: str) -> None:
    async with StateManager(settings(), url=redis_url) as state:
        node = FunctionNode(state)
        await node.hello()
        await submitted(state, 3)
        done, not_run, retaken = await node.take(3)
        await state.cancel_task(done.task.id)
        await state.cancel_task(not_run.task.id)
        await state.release_task(retaken.task.id, attempt=1, node=node.id)
        assert (await state.reader.spend()).month == Book(pytest.approx(0.9), 0.0, 3)
        for _ in range(2):  # told twice, it is believed once
            with pytest.raises(TransitionRefused):
                await node.end(done, 0.02)
            failure = a_failure(code="endpoint_unreachable")
            with pytest.raises(TransitionRefused):
                await state.fail_task(not_run.task.id, attempt=1, node=node.id, failure=failure)
        assert (await state.reader.spend()).month == Book(pytest.approx(0.32), 0.0, 3)
        again = await state.retake_task(retaken.task.id, attempt=1, node=node.id, boot=node.boot)
        await node.end(retaken.model_copy(update={"attempt": again.attempt}), 0.03)
        assert (await state.reader.spend()).month == Book(pytest.approx(0.05), 0.0, 3)


async def test_what_may_not_leave_the_house_is_granted_to_no_function(redis_url: str) -> None:
    async with StateManager(settings(), url=redis_url) as state:
        node = FunctionNode(state)
        await node.hello()
        await submitted(state, privacy="private")
        (may,) = await submitted(state)
        assert [grant.task.id for grant in await node.take(2)] == [may]
        with pytest.raises(InvalidInput, match="may leave the house"):
            route(a_task(), await state.reader.fleet(), queue=BURST)


async def test_what_is_let_out_goes_by_the_rules_of_overflow_and_what_is_forbidden_comes_home(redis_url: str) -> None:
    async with (
        StateManager(settings(), url=redis_url) as state,
        TaskManager(Ground(state, Site(state))) as tasks,
    ):
        await Node(state, id="cpu-1", models=(TELEA,)).hello()
        node = FunctionNode(state)
        await node.hello()
        mover = Mover(state)

        async def say(privacy: Privacy, *ids: str) -> None:
            assert (await tasks.set_privacy(SetPrivacy(ids=ids, privacy=privacy, actor="ann"))).done == ids

        async def queue_of(*ids: str) -> list[str]:
            return [one.queue for one in (await state.reader.tasks(ids)).values()]

        async def look() -> None:
            fleet = await state.reader.fleet()
            await mover.bring_home(fleet)
            await mover.move_tails(fleet)

        first, *others = [a_task(user_id="ann") for _ in range(30)]
        for task in (first, *others):  # of one user: the first is far from the end of the lane, and from that of hers
            await state.submit_task(task, queue=LIGHT, cost_s=10)
        await look()
        assert await queue_of(first.id) == [LIGHT]
        await say(Privacy.EXPORTABLE, first.id)
        await look()
        assert await queue_of(first.id, *(one.id for one in others)) == [BURST, *[LIGHT] * 29]
        await say(Privacy.PRIVATE, first.id)
        record = await state.reader.task(first.id)
        assert (record.queue, record.why, record.task) == (LIGHT, "by ann", first)
        assert await node.take(2) == ()
        chosen = a_task(privacy="exportable")  # by an operator, and for one node: it would have no way out
        await state.submit_task(chosen, queue=BURST, node=node.id, forced=True)
        await say(Privacy.PRIVATE, chosen.id)
        record = await state.reader.task(chosen.id)
        assert (record.queue, record.forced, record.pinned_node) == (LIGHT, False, "")
        running, failing = await submitted(state, 2)
        grants = {grant.task.id: grant for grant in await node.take(2)}
        await say(Privacy.PRIVATE, running, failing)
        assert await queue_of(running, failing) == [BURST, BURST]
        why = why_of(await state.reader.task(running), await state.reader.fleet())
        assert "another attempt would be made in the house" in why.text
        await node.end(grants[running], 0.01)
        assert (await state.reader.task(running)).status is TaskStatus.COMPLETED
        await state.release_task(failing, attempt=1, node=node.id)
        why = why_of(await state.reader.task(failing), await state.reader.fleet())
        assert (why.code, why.facts) == (WhyCode.MAY_NOT_LEAVE, {"queue": BURST})
        assert await node.take(2) == ()
        await look()
        record = await state.reader.task(failing)
        assert (record.queue, record.why) == (LIGHT, f"may not leave the house; moved to {LIGHT}")
        forced = a_task(privacy="exportable", max_retries=0)
        await state.submit_task(forced, queue=BURST, forced=True)
        assert len(await node.take()) == 1
        await say(Privacy.PRIVATE, forced.id)
        await state.fail_task(forced.id, attempt=1, node=node.id, failure=a_failure())
        await tasks.retry(Retry(ids=(forced.id,)))
        assert await queue_of(forced.id) == [LIGHT]


async def test_overflow_goes_out_only_where_the_house_is_late_and_there_is_money(redis_url: str) -> None:
    async with StateManager(settings(month=0.5), url=redis_url) as state:
        await Node(state, id="cpu-1", models=(TELEA,)).hello()
        node = FunctionNode(state)
        await node.hello()

        async def queues(**fields: object) -> str:
            return route(a_task(**fields), await state.reader.fleet()).queue

        assert await queues(privacy="exportable") == LIGHT  # it is done at once
        for _ in range(100):
            await state.submit_task(a_task(), queue=LIGHT, cost_s=10)
        assert await queues(privacy="exportable") == BURST
        assert await queues() == LIGHT
        await submitted(state, 2)
        assert len(await node.take(2)) == 1
        assert await queues(privacy="exportable") == LIGHT  # 0.2 are left, and a call may cost 0.3


async def test_what_waits_for_functions_goes_home_when_the_money_is_spent(redis_url: str) -> None:
    async with StateManager(settings(month=0.5), url=redis_url) as state:
        node = FunctionNode(state)
        await node.hello()
        await Node(state, id="cpu-1", models=(TELEA,)).hello()
        waiting = await submitted(state, 3)
        assert len(await node.take(3)) == 1
        await Mover(state).move_tails(await state.reader.fleet())
        records = await state.reader.tasks(waiting)
        assert sorted(one.queue for one in records.values()) == [LIGHT, LIGHT, BURST]
        assert {one.why for one in records.values() if one.queue == LIGHT} == {f"is done earlier in {LIGHT}; moved"}


@pytest.mark.parametrize(("code", "retries"), [("call_too_large", 0), ("function_failed", 1)])
async def test_what_a_function_has_failed_is_done_by_the_house_and_does_not_go_out_again(
    redis_url: str, code: str, retries: int
) -> None:
    async with StateManager(settings(), url=redis_url) as state:
        node = FunctionNode(state)
        await node.hello()
        await submitted(state, max_retries=retries)
        (grant,) = await node.take()

        async def home() -> Route | None:
            return home_of(await state.reader.task(grant.task.id), await state.reader.fleet())

        assert await home() is None, "nobody else has the model"
        await Node(state, id="cpu-1", models=(TELEA,)).hello()
        for _ in range(100):
            await state.submit_task(a_task(), queue=LIGHT, cost_s=10)
        there = await home()
        assert there is not None
        await state.fail_task(grant.task.id, attempt=1, node=node.id, failure=a_failure(code=code), home=there)
        record, fleet = await state.reader.task(grant.task.id), await state.reader.fleet()
        assert (record.status, record.queue, record.retries) == (TaskStatus.PENDING, LIGHT, retries)
        assert record.why == f"{code} at a function: the house does it"
        assert route_again(record, fleet).queue == LIGHT
        assert route(record.task, fleet).queue == BURST, "another like it would go out"


async def test_what_is_late_for_its_deadline_goes_out_from_behind_others_work_too(redis_url: str) -> None:
    async with StateManager(settings(), url=redis_url) as state:
        await Node(state, id="cpu-1", models=(TELEA,)).hello()
        await FunctionNode(state).hello()
        now = datetime.fromtimestamp(await state.reader.now_ms() / 1000, UTC)
        sooner, later = (
            a_task(user_id="bob", privacy="exportable", deadline=now + timedelta(seconds=left))
            for left in (60, 360_000)
        )
        for task in (sooner, later):
            await state.submit_task(task, queue=LIGHT, cost_s=10)
        for _ in range(60):  # they come later, may not leave the house, and are the end of the lane
            await state.submit_task(a_task(user_id="ann"), queue=LIGHT, cost_s=100)
        assert (await state.reader.lane_ids(LIGHT, TELEA, limit=1, from_end=True))[0] not in (sooner.id, later.id)
        await Mover(state).move_tails(await state.reader.fleet())
        moved, stays = await state.reader.task(sooner.id), await state.reader.task(later.id)
        assert (moved.queue, moved.why) == (BURST, f"{LIGHT} would be late for its deadline; moved to {BURST}")
        assert stays.queue == LIGHT


def test_books_are_read_whatever_is_in_them() -> None:
    assert book_of({}) == Book()
    told = {"spent": "1500000", "reserved": "-5", "calls": "3", "u/ann": "7", "odd": "x", "ru/ann": "-3"}
    assert book_of(told) == Book(1.5, 0.0, 3, {"ann": 0.000007}, {}, {"ann": 0.0})
    assert book_of({"spent": "much"}) == Book()
    assert bill_of(BudgetConfig(hour=0.1, job=2), 0.0000001) == {"worst": 1, "hour": 100_000, "job": 2_000_000}
    assert Spend(BudgetConfig()).lack(1e9) == ""


def test_what_is_reserved_takes_its_share_of_a_budget_and_uses_none_of_it_up() -> None:
    spend = Spend(BudgetConfig(hour=1.0), hour=Book(spent=0.2, reserved=0.7))
    assert spend.shares == {"hour": pytest.approx(0.9)}
    assert (spend.used_up(0.8), spend.used_up(0.81)) == (frozenset(), {"hour"})
    assert spend.lack(0.3), "but as long as it is, no more may be called"


def test_how_late_the_house_is_is_told_in_shares_of_the_time_until_a_deadline() -> None:
    overflow = Overflow(60, Spend(BudgetConfig()), now_ms=1_000_000)
    assert overflow.late_s(30, None) == 30
    assert overflow.late_s(30, 1_000_000 + 75_000) == pytest.approx(30)  # half of the time, with a quarter more
    assert overflow.late_s(0.1, 999_000) == float("inf")
    for left_s in (10.0, 37.0, 38.0, 400.0):
        deadline_ms = 1_000_000 + round(1000 * left_s)
        assert overflow.is_late(30, deadline_ms) == (overflow.late_s(30, deadline_ms) > 60)


@pytest.mark.parametrize(
    "moment", ["2024-02-29T23:59:59", "2026-03-01T00:00:00", "2026-12-31T23:00:00", "2100-02-28T12:00:00"]
)
async def test_the_calendar_of_the_script_is_that_of_everybody(redis_url: str, moment: str) -> None:
    from redis.asyncio import Redis

    from lcq.state.scripts import Scripts

    when = datetime.fromisoformat(moment).replace(tzinfo=UTC)
    text = Scripts(DistributedConfig()).texts["claim_tasks"]
    function = text[text.index("local function day_of") : text.index("local function spend_windows")]
    days = int(when.timestamp()) // 86400
    async with Redis.from_url(redis_url, decode_responses=True) as redis:
        told = await redis.eval(f"{function}\nlocal y, m, d = day_of({days})\nreturn {{y, m, d}}", 0)
    assert told == [when.year, when.month, when.day]


def test_a_dry_run_says_what_functions_would_be_paid_at_most() -> None:
    told = ForeseeAnswer(
        currency="EUR", foreseen=(Foreseen(queue=BURST, count=3, seconds=1.5, done_s=2, worst_cost=0.9),)
    )
    assert told_foreseen(told, lambda seconds: f"{seconds:g} s") == [
        "3 to serverless, 1.5 s of work, the last done in about 2 s",
        "functions would be paid 0.9 EUR for these at most, if the budget allows it",
    ]


def test_at_most_is_what_the_dearest_function_takes_that_has_the_model() -> None:
    def function(name: str, price: float, model: str) -> NodeRecord:
        kind = DeviceKind.SERVERLESS
        capability = NodeCapability(
            devices=(Device(id=name, kind=kind, worst_price=price),),
            models={model: ModelOffer(kinds=(kind,), seconds={kind: 1.0})},
        )
        return NodeRecord(id=name, boot_id="b", status=NodeStatus.ONLINE, capability=capability)

    nodes = [function("cheap", 0.1, "lama"), function("dear", 0.4, "lama"), function("other", 9.0, "mat")]
    assert dearest_price(nodes, "lama") == 0.4
    assert dearest_price(nodes, "zits") == 0.0


async def test_what_a_failed_call_says_that_it_cost_counts_also_where_that_is_nothing(redis_url: str) -> None:
    config = DistributedConfig.model_validate({"report": {"prices": {"cpu": 1e6}}})
    async with StateManager(config, url=redis_url) as state:
        node, house = FunctionNode(state), Node(state, id="cpu-1", models=(TELEA,))
        await node.hello()
        await house.hello()
        await submitted(state, 2)
        for grant, cost in zip(await node.take(2), (0.0, 0.02), strict=True):
            told = {"attempt": 1, "node": node.id, "failure": a_failure(ErrorClass.BAD_INPUT, "mask_full")}
            await state.fail_task(grant.task.id, **told, cost=cost)
        assert (await state.reader.spend()).month == Book(0.02, 0.0, 2)
        at_home = a_task()
        await state.submit_task(at_home, queue=LIGHT)
        await house.claim()
        await asyncio.sleep(0.01)
        await state.fail_task(at_home.id, attempt=1, node="cpu-1", failure=a_failure(), cost=0.0)
        await state.cancel_task(at_home.id)
        await state.account_tasks()
        rows = (await state.reader.usage([today_of(await state.now_ms())])).rows("node")
        costs = {row.name: row.cost for row in rows}
        assert costs[node.id] == 0.02
        assert costs["cpu-1"] > 0, "the price of its device"


@pytest.mark.parametrize("amount", [2.01, 4.03, 0.57, 0.00051])
def test_a_budget_is_used_up_exactly_whatever_a_computer_makes_of_decimal_numbers(amount: float) -> None:
    whole = round(amount * 1e6)
    assert bill_of(BudgetConfig(hour=amount), amount) == {"worst": whole, "hour": whole}
    assert bill_of(BudgetConfig(hour=amount + 4e-7), amount + 4e-7) == {"worst": whole + 1, "hour": whole}


async def test_a_budget_that_is_lowered_while_calls_run_holds_at_once_and_takes_nothing_from_them(
    redis_url: str,
) -> None:
    before, after = settings(month=1.0), settings(month=0.5)
    assert changes(before, after, (Role.SCHEDULER,)) == (("serverless.budget.month",), ())
    async with StateManager(before, url=redis_url) as state:
        node = FunctionNode(state)
        await node.hello()
        await submitted(state, 5)
        first, *others = await node.take(2)
        state.follow(with_live_keys(before, after, (Role.SCHEDULER,)))
        assert await node.take(1) == ()
        assert "the budget for this month is 0.5 USD, of which 0.6" in (await state.reader.spend()).lack(0.3)
        await node.end(first, 0.1)
        assert await node.take(1) == (), "0.1 is spent, 0.3 may be, and a call may cost as much"
        for grant in others:
            await node.end(grant, 0.05)
        assert len(await node.take(3)) == 1
        state.follow(with_live_keys(before, before, (Role.SCHEDULER,)))
        assert len(await node.take(3)) == 1
        assert (await state.reader.spend()).month == Book(pytest.approx(0.15), 0.6, 2)


async def test_a_report_says_what_the_books_say_also_of_late_bills_and_of_what_wakes_functions(redis_url: str) -> None:
    async with StateManager(settings(), url=redis_url) as state:
        node = FunctionNode(state)
        await node.hello()

        async def costs(by: By) -> dict[str, float]:
            rows = (await state.reader.usage([today_of(await state.now_ms())])).rows(by)
            return {row.name: row.cost for row in rows}

        await submitted(state, 2, user_id="ann", job="holiday")
        first, second = await node.take(2)
        await node.end(first, 0.02)
        assert (await costs("user")) == {"ann": 0.02}, "at once, and not only once its task is counted"
        await state.cancel_task(second.task.id)
        await state.account_tasks()
        assert (await costs("user")) == {"ann": 0.32}
        with pytest.raises(TransitionRefused):
            await node.end(second, 0.05)
        told = {"node": node.id, "boot": node.boot, "device": "burst", "count": 2, "worst_price": 0.3}
        await state.reserve_warm_up("w", **told, hold=timedelta(hours=1))
        await state.settle_warm_up("w", cost=0.01)
        assert (await costs("user")) == {"ann": 0.07, "(warm-ups)": 0.01}
        assert (await costs("job"), await costs("model")) == ({"holiday": 0.07}, {TELEA: 0.07})
        assert (await costs("node")) == {node.id: 0.08}
        (total,) = (await costs("day")).values()
        assert total == (await state.reader.spend()).day.spent == 0.08

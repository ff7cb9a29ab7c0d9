"""What functions cost, as the console tells it: a bar, a number and a word; by day, user and job; what a task cost."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from lcq.config import BudgetConfig
from lcq.function_state import LEFT_ALONE
from lcq.models import Attempt, Device, DeviceKind, DeviceReading, FunctionReading, ModelOffer
from lcq.spend import Book, Spend
from lcq.wire import SpendAnswer, SpendBook
from tests.conftest import wait_until
from tests.tui.fakes import FakeCluster, a_node, a_task
from tui.spending import (
    Gauge,
    Spending,
    budget_of,
    cheapest,
    day_lines,
    function_facts,
    function_lines,
    gauge_bar,
    gauge_lines,
    gauges,
    job_lines,
    task_cost,
    user_lines,
)
from tui.store import NodeRow, node_row
from tui.text import cells, money

HALF_PAST = round(datetime(2026, 2, 28, 12, 30, tzinfo=UTC).timestamp() * 1000)


def text(lines: list[list[tuple[str, str]]]) -> str:
    return "\n".join("".join(part for part, _ in line) for line in lines)


def a_node_of_functions(*, away: str = "") -> object:
    kind = DeviceKind.SERVERLESS
    device = Device(id="burst", kind=kind, slots=8, worst_price=0.3, price_s=0.001, endpoint="https://clean.example")
    offers = {"lama": ModelOffer(kinds=(kind,))}
    record = a_node("cloud-1", serves={"burst": ("serverless",)}, running=3)
    told = {"devices": (device,), "models": {} if away else offers}
    if away:
        told |= {"withheld": offers, "left_out": {"lama": away}}
    return record.model_copy(update={"capability": record.capability.model_copy(update=told)})


@pytest.mark.parametrize(
    ("spent", "reserved", "limit", "bar", "share", "word"),
    [
        (0.4, 0.2, 1.0, "━━━━╌╌····", "60%", "WITHIN"), (0.85, 0.06, 1.0, "━━━━━━━━━╌", "91%", "NEARLY USED"),
        (1.0, 0.0, 1.0, "━━━━━━━━━━", "100%", "USED UP"), (3.0, 0.0, None, "··········", "--", "NO LIMIT"),
        (0.0, 0.0, 0.0, "━━━━━━━━━━", "100%", "USED UP"), (0.0001, 0.0, 9.0, "━·········", "0%", "WITHIN"),
    ],
)  # fmt: skip
def test_a_gauge_is_a_bar_and_a_number_and_a_word(spent, reserved, limit, bar, share, word):
    gauge = Gauge("today", Book(spent, reserved), limit)
    assert gauge_bar(gauge, 10) == bar
    line = text(gauge_lines([gauge], "USD", 80))
    assert share in line
    assert word in line


def test_a_budget_into_which_no_call_fits_is_used_up_although_something_is_left():
    told = Spending(HALF_PAST, Spend(BudgetConfig(), hour=Book(0.8)), budget=BudgetConfig(hour=1.0))
    hour, _, _ = gauges(told, price=0.3)
    assert hour.word == ("USED UP", "bad")
    said = text(gauge_lines(gauges(told, price=0.3), "USD", 120))
    assert "tasks stay in the house, for 30m00s" in said
    assert gauges(told, price=0.1)[0].word[0] == "WITHIN"
    at_work = Spending(HALF_PAST, Spend(BudgetConfig(), hour=Book(0.2, 0.6)), budget=BudgetConfig(hour=1.0))
    assert gauges(at_work, price=0.3)[0].word == ("RESERVED", "warn"), "most of it comes back"
    assert "until one that is under way has ended" in text(gauge_lines(gauges(at_work, price=0.3), "USD", 80))


def test_the_pace_so_far_tells_when_a_budget_will_be_used_up():
    told = Spending(HALF_PAST, Spend(BudgetConfig(), hour=Book(0.8)), budget=BudgetConfig(hour=1.0))
    hour, day, month = gauges(told)
    assert hour.left_ms == 30 * 60_000
    assert hour.gone_in_ms == pytest.approx(7.5 * 60_000)
    assert (day.gone_in_ms, month.gone_in_ms) == (None, None)
    assert month.past == pytest.approx((27 * 24 + 12.5) / (28 * 24)), "the 28th of a February"


def test_days_users_and_jobs_are_told_with_who_cost_most_first():
    days = {
        "2026-02-28": Book(0.5, 0.1, 9, {"ann": 0.5, "bob": 0.1}), "2026-02-27": Book(),
        "2026-02-26": Book(2.0, 0.0, 30, {"bob": 2.0}),
    }  # fmt: skip
    jobs = {"new": Book(0.2, 0.0, 2), "old [red]": Book(1.9, 0.0, 20)}
    budget = BudgetConfig(job=2.0, user_day=0.5)
    told = Spending(HALF_PAST, Spend(budget, day=days["2026-02-28"]), days, jobs, budget)
    shown = text(day_lines(told, 80)).splitlines()
    assert [line.split()[0] for line in shown] == ["2026-02-28", "2026-02-26"]
    assert "most by ann" in shown[0]
    assert "30 calls" in shown[1]
    users = text(user_lines(told, 80)).splitlines()
    assert [line.split()[:2] for line in users] == [["bob", "2.10"], ["ann", "0.50"]]
    assert "100% USED UP" in users[1]
    first, second = text(job_lines(told, 80)).splitlines()
    assert "old [red]" in first
    assert "95% NEARLY USED" in first
    assert "10% WITHIN" in second


def test_a_function_says_whether_it_is_called_how_busy_it_is_and_what_it_cost_today():
    told = Spending(HALF_PAST, Spend(BudgetConfig(), day=Book(functions={"cloud-1/burst": 0.42})))
    line = text(function_lines(told, [node_row(a_node_of_functions())], 80))
    assert "cloud-1 burst" in line
    assert "> OFFERED" in line
    assert "today 0.42" in line
    assert "3/8 in flight" in line, "an older agent tells nothing of it: its attempts are told"
    reading = DeviceReading(function=FunctionReading(warm=2, cold=5, in_flight=4))
    newer = a_node_of_functions().model_copy(update={"readings": {"burst": reading}})
    assert "4/8 in flight  2 warm  5 cold starts" in text(function_lines(told, [node_row(newer)], 120))
    row = node_row(newer, {"cloud-1/burst": 0.42})
    assert dict(row.load)["burst"] == "4 in flight, 2 warm, 5 cold starts, 0.42 paid today"
    facts = {label: said for label, said, _ in function_facts(row, row.now[0], "EUR")}
    assert facts["endpoint"] == "https://clean.example"
    assert facts["price"] == "0.0010 EUR a second, at most 0.30 EUR a call"
    away = text(function_lines(told, [node_row(a_node_of_functions(away="it cannot be reached: refused"))], 80))
    assert "! BREAKER OPEN" in away
    assert "it cannot be reached: refused" in away
    rests = DeviceReading(rest="endpoint_away", fault="its function is left alone: refused")
    alone = node_row(a_node_of_functions().model_copy(update={"readings": {"burst": rests}}))
    assert "! BREAKER OPEN" in text(function_lines(told, [alone], 80))
    assert alone.now[0].function.away == "its function is left alone: refused"
    assert dict(alone.load)["burst"] == "! BREAKER OPEN"
    assert function_lines(told, [alone], 80)[1] == [("      its function is left alone: refused", "bad")]
    assert cheapest([node_row(a_node_of_functions()), node_row(a_node())]) == 0.3
    assert cheapest([node_row(a_node())]) is None


def test_a_function_that_rests_says_until_when_and_one_that_is_tried_that_its_breaker_is_half_open():
    told = Spending(HALF_PAST, Spend(BudgetConfig()))

    def row(**reading: object) -> NodeRow:
        record = a_node_of_functions().model_copy(update={"readings": {"burst": DeviceReading.model_validate(reading)}})
        return node_row(record)

    fault = LEFT_ALONE.format(why="it cannot be reached: refused")
    rests = row(rest="endpoint_away", fault=fault, function={"rests_until_ms": HALF_PAST + 10_000, "in_vain": 3})
    said = "rests until 2026-02-28 12:30:10Z, after 3 calls in vain: it cannot be reached: refused"
    first, second = function_lines(told, [rests], 120)
    assert "! BREAKER OPEN" in text([first])
    assert second == [(f"      {said}", "bad")]
    assert function_facts(rests, rests.now[0], "")[0][1:] == (f"! BREAKER OPEN  {said}", "bad")
    tried = row(function={"trials": 1, "in_vain": 1})
    first, second = function_lines(told, [tried], 80)
    assert "? HALF OPEN" in text([first])
    assert second == [("      is tried by one call, after 1 call in vain", "warn")]
    assert dict(tried.load)["burst"] == "? HALF OPEN, 0 in flight, 0 warm, 0 cold starts"
    assert "> OFFERED" in text(function_lines(told, [row(function={"in_vain": 2})], 80))


def test_a_task_says_what_its_attempts_have_cost_and_may_yet():
    def attempt(number: int, **more: object) -> Attempt:
        return Attempt.model_validate({"number": number, "node": "cloud-1", "started_ms": 1} | more)

    paid = attempt(1, ended_ms=2, spend={"worst": 300_000}, spent=12_500)
    runs = attempt(2, spend={"worst": 300_000})
    assert task_cost([attempt(1, ended_ms=2), paid], "EUR")[0] == "0.0125 EUR, paid for 1 call by cloud-1"
    assert "at most 0.30 for the call under way" in task_cost([paid, runs])[0]
    assert paid.model_dump_json() == Attempt.model_validate_json(paid.model_dump_json()).model_dump_json()
    assert "spen" not in attempt(1).model_dump_json(), "older readers are told nothing new of the others"


def test_the_limits_are_those_that_a_scheduler_tells():
    answer = SpendAnswer(currency="EUR", now=(SpendBook(name="hour", limit=2.0), SpendBook(name="day")), job_limit=1.0)
    assert budget_of(answer) == BudgetConfig(hour=2.0, job=1.0, currency="EUR")


@pytest.mark.parametrize(
    ("amount", "shown"),
    [
        (0.0, "0.00"),
        (0.0000004, "0.0000004"),
        (1e-9, "0"),
        (0.0058, "0.0058"),
        (0.2168, "0.22"),
        (12.5, "12.50"),
        (1234.5, "1,234.50"),
    ],
)
def test_money_has_as_many_digits_as_tell_something(amount, shown):
    assert money(amount) == shown


async def test_a_node_tells_all_of_its_function_and_a_task_what_it_cost_and_where_it_ran(open_console):
    task = a_task(status="completed", attempt=1, node="cloud-1", device="burst", queue="serverless")
    cluster = FakeCluster([task], [a_node_of_functions()])
    cluster.limits = BudgetConfig(currency="EUR")
    paid = {"device": "burst", "ended_ms": 2, "outcome": "completed", "spend": {"worst": 300_000}, "spent": 12_500}
    cluster.history[task.id] = [Attempt.model_validate({"number": 1, "node": "cloud-1", "started_ms": 1} | paid)]
    async with open_console(cluster, size=(80, 24)) as console:
        await console.press("d")
        told = "0.0125 EUR, paid for 1 call by cloud-1"
        await wait_until(lambda: told in console.text(), what="what the task cost")
        assert "cloud-1, burst" in console.text()
        await console.press("4", "d")
        await wait_until(lambda: "https://clean.example" in console.text(), what="the function's endpoint")
        assert "> OFFERED" in console.text()
        await wait_until(lambda: "0.0010 EUR a second" in console.text(), what="its price")


async def test_the_view_of_spend_shows_the_budget_and_asks_for_nothing_once_it_is_left(open_console, monkeypatch):
    cluster = FakeCluster((), [a_node_of_functions()])
    cluster.books = Spend(BudgetConfig(), hour=Book(0.95, 0.0, 7), day=Book(0.95, 0.0, 7, {"ann": 0.95}))
    cluster.day_books = {"2026-02-28": cluster.books.day}
    cluster.job_books = {"holiday": Book(0.95, 0.0, 7)}
    cluster.limits = BudgetConfig(hour=1.0, currency="EUR")
    monkeypatch.setattr("tui.screens.spend._EVERY_S", 0.0)
    async with open_console(cluster, size=(80, 24)) as console:
        await console.press("7")
        await wait_until(lambda: "USED UP" in console.text(), what="the gauge of this hour")
        for said in ("95%", "EUR", "NO LIMIT", "cloud-1 burst", "2026-02-28", "ann", "holiday", "7 Spend"):
            assert said in console.text(), said
        assert max(len(line) for line in console.lines()) == 80
        await console.press("2")
        await wait_until(lambda: "7 Spend" not in console.text())
        asked: list[int] = []
        monkeypatch.setattr(cluster, "spend_of_days", asked.append)
        console.app.show_news()
        await console.pilot.pause()
        assert asked == []


@pytest.mark.parametrize("width", [78, 118])
def test_no_line_is_wider_than_the_screen_whatever_things_are_called(width):
    long, wide = "a-very-long-name-of-somebody-or-something-that-goes-on", "写真-東京タワー-と-京都-の-写真"
    book = Book(12_345.6, 999.9, 1_234_567, {long: 9_999.9, wide: 12_345.6}, {"cloud-1/burst": 9_999.9})
    budget = BudgetConfig(hour=13_000.0, day=1.0, month=99_999.0, job=12_000.0, user_day=10_000.0)
    told = Spending(HALF_PAST, Spend(budget, book, book, book), {"2026-02-28": book}, {long: book, wide: book}, budget)
    reading = DeviceReading(
        function=FunctionReading(warm=100, cold=1_000, in_flight=8), rest="endpoint_away", fault=long * 9
    )
    node = node_row(a_node_of_functions().model_copy(update={"id": wide, "readings": {"burst": reading}}))
    lines = [
        *gauge_lines(gauges(told, 0.3), "EUR", width), *day_lines(told, width), *user_lines(told, width),
        *job_lines(told, width), *function_lines(told, [node], width),
    ]  # fmt: skip
    assert [line for line in map(text, ([line] for line in lines)) if cells(line) > width] == []

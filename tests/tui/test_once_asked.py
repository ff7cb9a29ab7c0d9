"""``lcq console --once`` of the views that a scheduler is asked for: what functions cost, schedules, keys."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any, cast

import pytest

from lcq.config import BudgetConfig
from lcq.errors import SchedulerUnreachable
from lcq.key_record import KeyRole
from lcq.spend import Book, Spend
from lcq.wire.schedules import WindowRecord
from tests.tui.fakes import FakeCluster
from tests.tui.test_enrolled import AGENT, ANN, a_key
from tests.tui.test_schedules import a_schedule
from tests.tui.test_spending import a_node_of_functions
from tui.cluster import Cluster
from tui.once import document, look_once, text_lines
from tui.saved import SavedView


async def printed(cluster: FakeCluster, view: str, words: str = "") -> tuple[list[str], dict[str, Any], str]:
    """The view as text and as a document, and what is said beside it."""
    look = SavedView("", view, words)
    shown = await look_once(cast(Cluster, cluster), look, limit=100)
    return text_lines(shown, look, 160), json.loads(json.dumps(document(shown, look))), shown.beside


async def test_what_functions_cost_is_a_row_of_each_book_in_the_order_of_the_view() -> None:
    cluster = FakeCluster(nodes=[a_node_of_functions(away="its function is left alone")])
    cluster.limits = BudgetConfig(hour=1.0, job=2.0, user_day=1.0, currency="USD")
    today = Book(0.5, 0.1, 9, {"ann": 0.6}, {"cloud-1/burst": 0.6})
    cluster.books = Spend(BudgetConfig(), hour=Book(0.95, 0.0, 12), day=today)
    cluster.day_books, cluster.job_books = {"2026-02-28": today}, {"old [red]": Book(0.5, 0.1, 9), "none": Book()}
    lines, told, note = await printed(cluster, "spend")
    assert [tuple(line.split()[:2]) for line in lines] == [
        ("OF", "NAME"), ("span", "hour"), ("span", "day"), ("span", "month"), ("function", "cloud-1"),
        ("day", "2026-02-28"), ("user", "ann"), ("job", "old"),
    ]  # fmt: skip
    assert " 0.95 USD" in lines[1]
    assert "95% " in lines[1]
    assert "! BREAKER OPEN" in lines[4]
    assert "30% " in lines[7]
    hour = told["rows"][0]
    assert (hour["spent"], hour["limit"], hour["calls"], hour["currency"]) == (0.95, 1.0, 12, "USD")
    assert [row["state"] for row in told["rows"][3:6]] == ["breaker open", "", "within"]
    assert note == ""
    _, told, _ = await printed(cluster, "spend", "kind:user|job spent>0.55")
    assert ([row["name"] for row in told["rows"]], told["total"]) == (["ann"], 7)


async def test_what_was_spent_is_told_also_where_no_scheduler_tells_the_budget() -> None:
    cluster = FakeCluster()
    cluster.books = Spend(BudgetConfig(), hour=Book(0.4))
    cluster.act_trouble = SchedulerUnreachable("127.0.0.1:5571", 1.0)
    lines, told, note = await printed(cluster, "spend", "kind:span")
    assert "NO LIMIT" in lines[1]
    assert (told["rows"][0]["spent"], told["rows"][0]["limit"]) == (0.4, None)
    assert note.startswith("no scheduler tells what the budget is: ")


async def test_schedules_are_printed_and_beside_them_their_windows() -> None:
    cluster = FakeCluster()
    cluster.schedule_records = {
        "nightly": a_schedule(last_told="12 tasks"), "weekly": a_schedule("weekly", error="/in is not there"),
    }  # fmt: skip
    cluster.windows = (WindowRecord(name="night", told="20:00-07:00", nodes=("a",), is_open=True, changes_ms=1),)
    lines, told, note = await printed(cluster, "schedules", "needs:attention")
    assert [line.split()[0] for line in lines] == ["SCHEDULE", "weekly"]
    assert "/in is not there" in lines[1]
    row = told["rows"][0]
    due = datetime.fromtimestamp(cluster.schedule_records["weekly"].next_ms[0] / 1000, UTC)
    assert (told["shown"], told["total"], told["cut"]) == (1, 2, False)
    assert (row["next_at"], row["last_at"]) == (due.isoformat(timespec="milliseconds"), None)
    assert note == "night open, closes in 0.0s (1 node)"


async def test_keys_are_printed_with_ones_own_marked() -> None:
    cluster = FakeCluster()
    cluster.key_records = {AGENT: a_key(), ANN: a_key(ANN, "ann", KeyRole.OPERATOR)}
    cluster.key = ANN
    lines, told, _ = await printed(cluster, "keys")
    assert [line.split()[0] for line in lines] == ["NAME", "ann", "gpu-7"]
    assert "this console's own" in lines[1]
    assert [(row["name"], row["role"], row["state"]) for row in told["rows"]] == [
        ("ann", "operator", "enrolled"), ("gpu-7", "agent", "enrolled")
    ]  # fmt: skip


async def test_where_only_a_scheduler_knows_and_none_answers_nothing_is_printed() -> None:
    cluster = FakeCluster()
    cluster.trouble = SchedulerUnreachable("127.0.0.1:5571", 1.0)
    with pytest.raises(SchedulerUnreachable):
        await printed(cluster, "keys")

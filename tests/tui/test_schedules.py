"""The view of schedules: what it says of each, and what is done to one from there."""

from __future__ import annotations

from lcq.wire.schedules import ScheduleRecord, WindowRecord
from tests.conftest import wait_until
from tests.tui.fakes import FakeCluster, now_ms
from tui.commands import Tier
from tui.rights import Rights
from tui.schedules import outcome, pause, run_now, schedule_row, state_cell, window_told

HOUR = 3_600_000


def a_schedule(name: str = "nightly", **more: object) -> ScheduleRecord:
    values = {"cron": "0 3 * * *", "timezone": "Europe/Berlin", "next_ms": (now_ms() + HOUR,)} | more
    return ScheduleRecord.model_validate({"name": name} | values)


def test_a_schedule_says_whether_it_runs_and_what_came_of_it_in_a_letter_and_words():
    on = schedule_row(a_schedule(last_due_ms=1, last_told="12 tasks"))
    assert (state_cell(on)[0], outcome(on)[0]) == ("> ON", "12 tasks")
    assert outcome(schedule_row(a_schedule()))[0] == "it has not run yet"
    paused = schedule_row(a_schedule(paused_by="ivo", paused_reason="new masks", next_ms=()))
    assert (state_cell(paused)[0], outcome(paused)[0]) == ("| PAUSED", "paused by ivo: new masks")
    failed = schedule_row(a_schedule(error="/in is not there", last_told="12 tasks"))
    assert (state_cell(failed)[0], outcome(failed)[0]) == ("x FAILED", "cannot be run: /in is not there")


def test_what_schedules_are_called_can_inject_nothing():
    row = schedule_row(a_schedule("a\x1b]0;b\x07[red]", paused_by="x\x9b2J"))
    assert "\x1b" not in row.id + row.paused_by
    assert "\x9b" not in row.paused_by


def test_a_run_by_hand_asks_and_a_pause_does_not_cost_anything():
    row = schedule_row(a_schedule())
    assert pause(row).tier is Tier.UNDOABLE
    assert run_now(row).tier is Tier.COSTLY
    assert any("stays so" in line for line in run_now(schedule_row(a_schedule(paused_by="ivo"))).lines)


def test_a_window_says_when_it_changes_and_of_how_many_nodes_it_is():
    window = WindowRecord(name="night", told="20:00-07:00", nodes=("a", "b"), is_open=False, changes_ms=HOUR)
    assert window_told(window, 0) == "night closed, opens in 1h00m (2 nodes)"


async def test_a_schedule_is_paused_resumed_and_run_by_keys_and_read_again_at_once(open_console):
    cluster = FakeCluster()
    cluster.schedule_records["nightly"] = a_schedule(last_due_ms=now_ms() - HOUR, last_told="12 tasks")
    async with open_console(cluster, size=(80, 24)) as console:
        await console.press("8")
        await wait_until(lambda: "nightly" in console.text(), what="the schedule to be listed")
        assert "1 schedule" in console.text()
        await console.press("p")
        await console.pilot.press(*"new", "enter")
        await wait_until(lambda: "| PAUSED" in console.text(), what="the pause to be seen")
        assert ("pause_schedule", ("nightly", "new")) in cluster.calls
        await console.press("p")
        await wait_until(lambda: "> ON" in console.text(), what="it to be on again")
        await console.press("R")
        await wait_until(lambda: "Run nightly now?" in console.text())
        await console.press("y")
        await wait_until(lambda: "ran nightly: 3 tasks in job nightly now" in console.text())
        console.desk.rights = Rights(read_only=True)
        await console.press("p")
        await wait_until(lambda: "not done" in console.text())
        assert [name for name, _ in cluster.calls].count("pause_schedule") == 1

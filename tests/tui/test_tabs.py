"""The title and the tabs of the details, by keys and by the mouse; and the mouse in a log."""

from __future__ import annotations

import pytest
from textual.events import MouseScrollDown, MouseScrollUp

from lcq.models import Attempt, TaskStatus
from tests.conftest import wait_until
from tests.tui.fakes import FakeCluster, a_failure, a_node, a_task, now_ms
from tests.tui.test_line import line_of
from tests.tui.test_log import said
from tui.columns import NODE_COLUMNS, lay_out
from tui.screens.detail import TaskScreen
from tui.screens.log import LogScreen
from tui.text import cells
from tui.widgets.frame import OneLine


async def test_the_details_of_a_task_have_tabs_with_their_numbers_for_keys_and_the_mouse(open_console):
    task = a_task(status=TaskStatus.FAILED, node="gpu-1", attempt=2, failure=a_failure())
    cluster = FakeCluster([a_task(), task], [a_node("gpu-1")])
    cluster.history[task.id] = [
        Attempt(number=number, node="gpu-1", started_ms=now_ms(), ended_ms=now_ms(), outcome="failed",
                failure=a_failure())
        for number in (1, 2)
    ]  # fmt: skip
    async with open_console(cluster, size=(80, 24)) as console:
        await console.press("slash", *"state", "colon", *"failed", "enter", "enter")
        screen = console.app.screen
        assert isinstance(screen, TaskScreen)
        await wait_until(lambda: "Attempts (2)" in console.text())
        tabs = console.lines()[1]
        assert "[Overview]" in tabs
        assert all(f" {name} " in tabs for name in ("Images", "Attempts (2)", "Log", "Files", "Raw"))
        assert "1 of 1  { }" in tabs
        assert {cells(line) for line in console.lines()} == {80}
        await console.press("shift+tab")
        await wait_until(lambda: "[Raw]" in console.lines()[1])
        assert '"revision": 1' in console.text()
        await console.press("tab")
        await wait_until(lambda: "[Overview]" in console.lines()[1])
        await console.pilot.click("#tabs", offset=(tabs.index("Attempts"), 0))
        await wait_until(lambda: "[Attempts (2)]" in console.lines()[1])
        assert "#2 failed" in console.text()
        await console.press("g")
        await wait_until(lambda: "[Overview]" in console.lines()[1])


async def test_a_word_for_lists_is_refused_where_there_is_none(open_console):
    async with open_console(FakeCluster([a_task()], [a_node()])) as console:
        await console.press("enter")
        await console.opens(TaskScreen)
        await line_of(console, "filter")
        await console.press("enter")
        await wait_until(lambda: ":filter is for a list: go to one first" in console.text())


async def test_the_mouse_goes_to_a_line_of_a_log_and_the_wheel_scrolls_it(open_console):
    cluster = FakeCluster([a_task()], [a_node("gpu-1")])
    cluster.logs["gpu-1"] = [said(number, f"line {number:03}") for number in range(1, 101)]
    async with open_console(cluster, size=(80, 24)) as console:
        await console.press("4", "l")
        screen = console.app.screen
        assert isinstance(screen, LogScreen)
        await wait_until(lambda: "line 100" in console.text())
        first = screen.lines.top
        await console.pilot._post_mouse_events([MouseScrollUp], screen.pane)
        await wait_until(lambda: screen.lines.top == first - 3)
        assert "f follows" in console.text()
        await console.pilot._post_mouse_events([MouseScrollDown], screen.pane)
        await wait_until(lambda: screen.lines.top == first)
        await console.pilot.click(screen.pane, offset=(30, 4))
        assert screen.lines.here == first + 4


@pytest.mark.parametrize(
    ("width", "name"), [(120, "lcq@localhost"), (80, "lcq@loca"), (60, "lcq@localhost"), (41, "lcq@")]
)
async def test_the_title_has_every_view_and_the_cluster_and_nothing_in_it_moves_with_the_round_trips(
    open_console, width, name
):
    async with open_console(FakeCluster([a_task()], [a_node()]), size=(width, 24)) as console:
        console.desk.cluster = "lcq@localhost"
        seen = set()
        for took in (0.4, 9.7, 63.0, 240.0, None):
            console.desk.link.redis_ms = took
            console.app.screen.show_pulse()
            title = console.app.screen.query_one("#title", OneLine).text
            seen.add((title.index("3"), title.index("6"), title.index("LIVE")))
            assert name in title
            assert cells(title) == width
        assert len(seen) == 1
        await console.pilot.click("#title", offset=(seen.pop()[1], 0))
        await wait_until(lambda: console.app.current_mode == "activity")


def test_what_the_last_column_has_no_use_for_goes_to_those_that_are_cut():
    laid = {column.id: room for column, room in lay_out(NODE_COLUMNS, 150, {"load": 9, "why": 0, "serves": 40})}
    assert laid["serves"] >= 40
    assert sum(laid.values()) + len(laid) - 1 == 150


async def test_a_number_that_loses_a_digit_moves_no_column(open_console):
    async with open_console(FakeCluster([], [a_node("gpu-1")]), size=(150, 24)) as console:
        await console.press("4")
        table = console.table
        rooms = []
        for longest in (40, 38, 41, 20):
            table.fit({"load": longest, "why": 0})
            rooms.append(next(room for column, room in table.shown_columns if column.id == "serves"))
        assert rooms[0] == rooms[1]
        assert next(room for column, room in table.shown_columns if column.id == "load") < 40


async def test_a_list_to_choose_from_goes_by_the_keys_of_a_table_and_a_narrow_head_keeps_its_letters(open_console):
    async with open_console(FakeCluster([a_task()], [a_node()])) as console:
        await console.press("o", "j", "j", "k", "j", "enter")
        assert console.desk.tasks.sort == "progress"
        assert " PRO^ " in console.text()
        await console.press("o", "G", "g", "enter")
        assert (console.desk.tasks.sort, console.desk.tasks.descending) == ("progress", True)


async def test_what_is_told_of_one_task_is_gone_when_another_is_shown(open_console):
    tasks = [a_task("/p/a.jpg"), a_task("/p/b.jpg")]
    cluster = FakeCluster(tasks, [a_node()])
    for task, node in zip(tasks, ("gpu-1", "gpu-2"), strict=True):
        cluster.history[task.id] = [Attempt(number=1, node=node, started_ms=now_ms(), outcome="failed")]
    async with open_console(cluster) as console:
        await console.press("g", "enter")
        await wait_until(lambda: "#1 failed      gpu-2" in console.text())
        screen = console.app.screen
        assert isinstance(screen, TaskScreen)
        screen.show_task(tasks[0].id)
        assert not screen.part("attempts").display
        await wait_until(lambda: "#1 failed      gpu-1" in console.text())
        assert "gpu-2" not in console.text()

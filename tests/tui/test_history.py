"""Views that were looked at: there and back, with their filters."""

from __future__ import annotations

from tests.conftest import wait_until
from tests.tui.fakes import FakeCluster, a_node, a_task
from tui.history import Place, ViewHistory
from tui.screens.queues import QueuesScreen
from tui.screens.tasks import TasksScreen


def test_back_and_forth_find_each_place_as_it_was_left():
    history = ViewHistory(Place("tasks"))
    history.leave("state:failed")
    history.go(Place("queues"))
    history.go(Place("tasks", "queue:gpu-high"))
    assert history.step(1) is None
    assert history.step(-1) == Place("queues")
    assert history.step(-1) == Place("tasks", "state:failed")
    assert history.step(-1) is None
    assert history.step(1) == Place("queues")


def test_going_somewhere_new_forgets_what_was_ahead_and_the_same_place_is_not_noted_twice():
    history = ViewHistory(Place("tasks"))
    history.go(Place("queues"))
    history.step(-1)
    history.go(Place("nodes"))
    history.go(Place("nodes"))
    assert history.step(1) is None
    assert history.step(-1) == Place("tasks")
    assert history.step(1) == Place("nodes")


def test_only_so_many_places_are_kept():
    history = ViewHistory(Place("tasks", "0"))
    for number in range(1, 200):
        history.go(Place("tasks", str(number)))
    steps = 0
    while history.step(-1):
        steps += 1
    assert steps < 50
    assert history.here != Place("tasks", "0")


async def test_brackets_and_the_backtick_lead_through_the_views_with_their_filters(open_console):
    cluster = FakeCluster([a_task("/p/1.jpg", queue="gpu-high"), a_task("/p/2.jpg")], [a_node()])
    async with open_console(cluster) as console:

        def shows(screen: type, text: str) -> bool:
            return isinstance(console.app.screen, screen) and console.desk.tasks.filter.text == text

        console.app.screen.set_filter_text("2.jpg")
        await console.press("3", "g", "enter")
        await wait_until(lambda: shows(TasksScreen, "queue:gpu-high"))
        await console.press("left_square_bracket")
        await wait_until(lambda: shows(QueuesScreen, "queue:gpu-high"))
        await console.press("left_square_bracket")
        await wait_until(lambda: shows(TasksScreen, "2.jpg"))
        await console.press("left_square_bracket")
        await wait_until(lambda: "there is no view before this one" in console.text())
        await console.press("right_square_bracket", "right_square_bracket")
        await wait_until(lambda: shows(TasksScreen, "queue:gpu-high"))
        await console.press("grave_accent")
        await wait_until(lambda: shows(QueuesScreen, "queue:gpu-high"))
        await console.press("grave_accent")
        await wait_until(lambda: shows(TasksScreen, "queue:gpu-high"))


async def test_escape_leads_back_to_the_row_that_led_here_with_cursor_marks_and_filter_as_they_were(open_console):
    cluster = FakeCluster([a_task("/p/1.jpg", queue="gpu-high"), a_task("/p/2.jpg")], [a_node()])
    async with open_console(cluster) as console:
        await console.press("3", "slash", *"queue~gpu", "enter")
        await wait_until(lambda: console.desk.queues.filter.text == "queue~gpu" and console.table.has_focus)
        await console.press("g", "space", "k", "enter")
        cursor, marks = console.desk.queues.cursor_id, set(console.desk.queues.marks)
        assert marks == {cursor}
        await wait_until(lambda: isinstance(console.app.screen, TasksScreen) and console.desk.tasks.filter.text)
        await wait_until(lambda: console.desk.drilled == ("tasks", console.desk.tasks.filter.text))
        await console.press("enter", "escape", "escape")
        await console.opens(QueuesScreen)
        queues = console.desk.queues
        assert (queues.cursor_id, set(queues.marks), queues.filter.text) == (cursor, marks, "queue~gpu")
        await console.press("2")
        await console.opens(TasksScreen)
        await console.press("escape")
        await wait_until(lambda: console.desk.tasks.filter.text == "")
        assert isinstance(console.app.screen, TasksScreen), "who came by the key of the view clears its filter"

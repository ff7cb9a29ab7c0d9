"""Keys that come all at once do what they would do one by one: none goes to what the one before has left."""

from __future__ import annotations

from textual import events
from textual.keys import _character_to_key
from textual.widgets import Input

from lcq.models import TaskStatus
from tests.conftest import wait_until
from tests.tui.fakes import FakeCluster, a_failure, a_node, a_task
from tui.screens.detail import TaskScreen
from tui.screens.dialogs import Question


def type_at_once(console, text: str) -> None:
    """As a terminal sends what comes in one piece."""
    for character in text:
        key = "enter" if character == "\n" else _character_to_key(character)
        console.app.post_message(events.Key(key, None if character == "\n" else character))


async def test_a_filter_that_is_typed_quickly_triggers_no_act(open_console):
    failed = a_task("/p/retry.jpg", status=TaskStatus.FAILED, failure=a_failure())
    cluster = FakeCluster([failed, a_task()], [a_node()])
    async with open_console(cluster) as console:
        type_at_once(console, "/retry\n")
        await wait_until(lambda: console.desk.tasks.filter.text == "retry")
        type_at_once(console, "5/oom\n")
        await wait_until(lambda: console.desk.causes.filter.text == "oom")
        type_at_once(console, "2:tasks state:failed\n")
        await wait_until(lambda: console.desk.tasks.filter.text == "state:failed")
        assert cluster.calls == []
        assert console.desk.said is None


async def test_keys_pressed_before_a_question_was_seen_do_not_answer_it(open_console):
    cluster = FakeCluster([a_task(), a_task()], [a_node()])
    async with open_console(cluster) as console:
        type_at_once(console, "gXy")
        await wait_until(lambda: isinstance(console.app.screen, Question))
        await console.pilot.pause()
        assert isinstance(console.app.screen, Question)
        assert cluster.calls == []
        await console.press("y")
        await wait_until(lambda: cluster.calls)


async def test_what_is_typed_behind_a_key_goes_to_what_it_opens(open_console):
    cluster = FakeCluster([a_task("/p/a.jpg"), a_task("/p/b.jpg")], [a_node()])
    async with open_console(cluster) as console:
        type_at_once(console, "gcbad scan, ask the customer\n")
        await wait_until(lambda: cluster.calls)
        assert cluster.calls[0][0] == "comment"
        assert "bad scan, ask the customer" in str(cluster.calls[0][1])
        type_at_once(console, "\nj}")
        await wait_until(lambda: isinstance(console.app.screen, TaskScreen))
        type_at_once(console, "3jjjppaused\n")
        await wait_until(lambda: cluster.calls[-1][0] == "pause")
        assert cluster.calls[-1][1][1] == "paused"
        assert not console.app.screen.query(Input).filter("#reason")

"""Keys that come all at once do what they would do one by one: none goes to what the one before has left.

And what works for a screen, or for the whole console, has ended when that goes away.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from types import SimpleNamespace

import pytest
from textual import events
from textual.keys import _character_to_key
from textual.widget import Widget
from textual.widgets import Input
from textual.worker import Worker

from lcq.models import TaskRecord, TaskStatus
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
        await console.opens(Question)
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
        await console.opens(TaskScreen)
        type_at_once(console, "3jjjppaused\n")
        await wait_until(lambda: cluster.calls[-1][0] == "pause")
        assert cluster.calls[-1][1][1] == "paused"
        assert not console.app.screen.query(Input).filter("#reason")


class Last(Widget):
    """Part of a screen that is taken away: tells when that begins, and holds it up until what it waits for is true."""

    def __init__(self, begun: Callable[[], object], until: Callable[[], bool] = lambda: True) -> None:
        super().__init__()
        self._begun, self._until = begun, until

    async def on_unmount(self) -> None:
        self._begun()
        await wait_until(self._until)


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A form's or a command's looks at files: whether one is ``asked`` for, and that it is ``answered``."""
    asked, answered = asyncio.Event(), asyncio.Event()

    async def to_thread(call: Callable[..., object], *args: object) -> object:
        asked.set()
        await answered.wait()
        return call(*args)

    for module in ("submit", "command_line"):
        monkeypatch.setattr(f"tui.screens.{module}.asyncio", SimpleNamespace(to_thread=to_thread, sleep=asyncio.sleep))
    return SimpleNamespace(asked=asked, answered=answered)


@pytest.mark.parametrize(
    ("keys", "form", "group"),
    [
        ("sx\n", "SubmitForm", "send"),
        ("sx", "SubmitForm", "foresee"),
        (":tasks oom\n", "CommandLine", "foresee"),
    ],
)
async def test_a_form_that_is_closed_while_it_looks_at_what_was_typed_closes_nothing_else(
    open_console, looks, keys, form, group
):
    cluster = FakeCluster([a_task()], [a_node()])
    async with open_console(cluster) as console:
        await console.press("j", "d")
        await console.opens(TaskScreen)
        type_at_once(console, keys)
        await wait_until(looks.asked.is_set)
        assert type(console.app.screen).__name__ == form

        def of_the_group() -> Worker[object] | None:
            going = (one for one in console.app.workers if one.is_running and not one.is_cancelled)
            return next((one for one in going if one.group == group), None)

        looking = await wait_until(of_the_group)
        await console.app.screen.mount(Last(looks.answered.set, lambda: looking.is_finished))
        await console.press("escape")
        await wait_until(lambda: looking.is_finished)
        await console.pilot.pause()
        assert isinstance(console.app.screen, TaskScreen)
        assert cluster.calls == []


async def test_what_waits_for_an_answer_opens_nothing_in_a_console_that_ends(open_console):
    cluster = FakeCluster([a_task()], [a_node()])
    answered, opened = asyncio.Event(), []

    async def tasks(ids: Sequence[str]) -> dict[str, TaskRecord]:
        await answered.wait()
        return {task_id: cluster.records[task_id] for task_id in ids}

    cluster.tasks = tasks
    async with open_console(cluster) as console:
        app = console.app
        app.screen_change_signal.subscribe(app, opened.append)
        await console.press("j", "e")
        asking = await wait_until(lambda: next((one for one in app.workers if one.group == "acts"), None))
        await app.screen.mount(Last(answered.set, lambda: asking.is_finished))
    assert opened == []


async def test_keys_that_wait_for_a_form_are_forgotten_when_the_console_ends(open_console):
    cluster = FakeCluster([a_task()], [a_node()])
    async with open_console(cluster) as console:
        app = console.app
        await console.press("3")
        await wait_until(lambda: app.current_mode == "queues")
        await app.screen.mount(Last(lambda: None, lambda: not app._under_way))  # closed after the tasks
        await console.press("2")
        app.run_worker(asyncio.Event().wait(), group="acts")
        type_at_once(console, "ej")
        await wait_until(lambda: app._under_way)

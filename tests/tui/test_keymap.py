"""The operator's own keys: read, refused in words, and heard and shown on the screens."""

from __future__ import annotations

import re

import pytest

from lcq.errors import InvalidConfig
from tests.conftest import wait_until
from tests.tui.fakes import FakeCluster, a_node, a_task
from tui.app import ConsoleApp
from tui.commands import Scope
from tui.desk import Desk
from tui.keymap import read_keymap

TASKS = (Scope.EVERYWHERE, Scope.TABLE, Scope.TASKS)
SCREENS = (TASKS, (Scope.EVERYWHERE, Scope.TABLE, Scope.QUEUES))


@pytest.mark.parametrize(
    ("wish", "keys"),
    [
        ("f5", ("f5",)), ("$", ("dollar_sign",)), ("ctrl-g", ("ctrl+g",)), ("shift+up %", ("shift+up", "percent_sign")),
        (",", ("comma",)), ("M", ("M",)), ("question_mark", ("question_mark",)),
    ],
)  # fmt: skip
def test_keys_are_named_as_they_are_printed_or_as_textual_does(wish, keys):
    assert read_keymap({"move": wish} | ({"help": "f5"} if "question" in wish else {}), SCREENS)["move"] == keys


@pytest.mark.parametrize(
    ("wishes", "complaint"),
    [
        ({"mvoe": "f5"}, "did you mean 'move'?"),
        ({"move": ""}, "names no key"),
        ({"move": "nokey"}, "there is no key 'nokey'"),
        ({"move": "hyper+x"}, "there is no key"),
        ({"move": "ctrl+s"}, "own, or never arrives"),
        ({"move": "ctrl-i"}, "own, or never arrives"),
        ({"move": "x"}, "own, or never arrives"),
        ({"move": "r"}, "r would mean"),
        ({"move": "f5", "retry": "f5"}, "f5 would mean"),
        ({"cancel": "ctrl+g"}, "a capital or a function key"),
        ({"cancel": "a"}, "a capital or a function key"),
    ],
)
def test_a_key_that_cannot_be_is_told_in_words(wishes, complaint):
    with pytest.raises(InvalidConfig) as wrong:
        read_keymap(wishes, SCREENS)
    assert complaint in str(wrong.value)
    assert "console.keys" in str(wrong.value)


def test_two_commands_may_change_keys_and_one_key_may_mean_things_on_different_screens():
    assert read_keymap({"move": "r", "retry": "m"}, SCREENS) == {"move": ("r",), "retry": ("m",)}
    assert read_keymap({"retry": "p"}, SCREENS) == {"retry": ("p",)}


async def test_own_keys_are_heard_and_shown_and_the_old_ones_are_not_heard():
    cluster = FakeCluster([a_task()], [a_node()])
    app = ConsoleApp(Desk(cluster, cluster), keys={"raise_priority": "K", "freeze": "f5"})
    async with app.run_test(size=(120, 40)) as pilot:
        await wait_until(lambda: app.desk.link.loaded and len(app.desk.tasks) == 1)
        await pilot.press("g", "plus", "K")
        await wait_until(lambda: cluster.calls)
        await pilot.press("z", "f5")
        await wait_until(lambda: app.desk.tasks.frozen)
        assert [name for name, _ in cluster.calls] == ["prioritise"]
        await pilot.press("question_mark")
        await wait_until(lambda: app.screen.is_modal)
        lines = ["".join(segment.text for segment in strip) for strip in app.screen._compositor.render_strips()]
        assert any(re.search(r"K\s+Raise the priority", line) for line in lines), lines

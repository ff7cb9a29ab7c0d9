"""The table of commands: no key twice where both are heard, none that is not ours, each one does something."""

from __future__ import annotations

from collections import Counter

import pytest
from textual.app import App
from textual.content import Content
from textual.screen import Screen
from textual.widgets import OptionList

from tests.conftest import wait_until
from tests.tui.fakes import FakeCluster, a_node, a_task
from tui.commands import COMMANDS, FORBIDDEN_KEYS, Scope, Tier, commands_of, footer_of, show_key
from tui.screens.base import ConsoleScreen
from tui.screens.cause import CauseScreen
from tui.screens.choose import AskLine, ColumnsPanel, ViewsPanel
from tui.screens.command_line import CommandLine
from tui.screens.compare import CompareScreen
from tui.screens.detail import TaskScreen
from tui.screens.dialogs import Chooser, Help, Question
from tui.screens.forms import ChangeForm, DrainQuestion, SilenceQuestion
from tui.screens.keys import KeysScreen
from tui.screens.log import LogScreen
from tui.screens.node import NodeScreen
from tui.screens.nodes import NodesScreen
from tui.screens.picture import PictureScreen
from tui.screens.queue import QueueScreen
from tui.screens.queues import QueuesScreen
from tui.screens.schedules import SchedulesScreen
from tui.screens.spend import SpendScreen
from tui.screens.submit import SubmitForm
from tui.screens.tasks import TasksScreen
from tui.widgets.table import LineTable

SCREENS = [
    TasksScreen, QueuesScreen, NodesScreen, TaskScreen, QueueScreen, NodeScreen, CauseScreen, LogScreen,
    Question, Chooser, Help, SubmitForm, AskLine,
    ViewsPanel, ColumnsPanel, DrainQuestion, SilenceQuestion, CommandLine, PictureScreen, CompareScreen, ChangeForm,
    SpendScreen, SchedulesScreen, KeysScreen,
]  # fmt: skip
EDITING = {"ctrl+a", "ctrl+e", "ctrl+u", "ctrl+k", "ctrl+w", "ctrl+d", "ctrl+x", "ctrl+c", "ctrl+v", "ctrl+f"}


@pytest.mark.parametrize("screen", SCREENS, ids=lambda screen: screen.__name__)
def test_no_key_of_a_screen_means_two_things(screen):
    keys = Counter(key for command in commands_of(*screen.SCOPES) for key in command.keys)
    assert [key for key, times in keys.items() if times > 1] == []


def test_no_command_uses_a_key_that_others_own_or_that_does_not_arrive():
    assert {key for command in COMMANDS for key in command.keys} & FORBIDDEN_KEYS == set()


def test_danger_is_a_capital_and_never_on_ctrl():
    for command in COMMANDS:
        for key in command.keys:
            if command.tier >= Tier.COSTLY:
                assert len(key) == 1
                assert key.isupper()
            if key.startswith("ctrl+"):
                assert command.tier is Tier.LOOK


@pytest.mark.parametrize("screen", SCREENS, ids=lambda screen: screen.__name__)
def test_the_small_letter_beside_a_dangerous_capital_is_harmless(screen):
    tiers = {key: command.tier for command in commands_of(*screen.SCOPES) for key in command.keys}
    for key, tier in tiers.items():
        if tier >= Tier.COSTLY:
            assert tiers.get(key.lower(), Tier.LOOK) is Tier.LOOK


def test_every_id_is_there_once():
    assert len({command.id for command in COMMANDS}) == len(COMMANDS)


@pytest.mark.parametrize("screen", SCREENS, ids=lambda screen: screen.__name__)
def test_every_command_of_a_screen_has_its_action(screen):
    for command in commands_of(*screen.SCOPES):
        owner = LineTable if command.scope is Scope.TABLE else screen
        assert callable(getattr(owner, f"action_{command.id}", None)), command.id


@pytest.mark.parametrize("screen", SCREENS, ids=lambda screen: screen.__name__)
def test_a_footer_has_at_most_eight_keys_and_the_way_to_all_of_them(screen):
    if issubclass(screen, ConsoleScreen):
        shown = footer_of(screen.SCOPES)
        assert len(shown) <= 8
        assert shown[-1].id == "help"


@pytest.mark.parametrize(
    ("key", "shown"), [("question_mark", "?"), ("ctrl+d", "ctrl-d"), ("X", "X"), ("escape", "esc")]
)
def test_a_key_is_shown_as_it_is_printed(key, shown):
    assert show_key(key) == shown


def check_keys(app: App[int], screen: Screen[object]) -> None:
    """What is really bound on an open screen, by whoever bound it."""
    ours = {key: command.id for command in commands_of(*screen.SCOPES) for key in command.keys}  # type: ignore[attr-defined]
    for key, active in screen.active_bindings.items():
        assert key not in FORBIDDEN_KEYS or active.binding.action not in ours.values(), key
        if active.binding.priority:  # a priority binding would steal the key from somebody who types
            assert len(key) > 1
            assert key not in EDITING
    bound = {key: active.binding.action for key, active in screen.active_bindings.items()}
    for key, command_id in ours.items():
        if key in bound:  # a focused field keeps what it edits with
            assert bound[key] == command_id or screen.focused is not None, key


async def test_a_walk_through_every_screen_meets_only_the_keys_of_the_table(open_console):
    cluster = FakeCluster([a_task(), a_task()], [a_node()])
    seen: set[type[Screen[object]]] = set()
    async with open_console(cluster) as console:
        ways = [
            ((), TasksScreen), (("d",), TaskScreen), (("escape", "3"), QueuesScreen), (("d",), QueueScreen),
            (("escape", "4", "d"), NodeScreen), (("l",), LogScreen), (("escape", "escape", "2"), TasksScreen),
            (("escape", "3"), QueuesScreen),
            (("escape", "p"), Question), (("escape", "4"), NodesScreen), (("D",), DrainQuestion),
            (("escape", "question_mark"), Help), (("escape", "2", "s"), SubmitForm), (("escape", "m"), Chooser),
            (("escape", "S"), AskLine), (("escape", "C"), ColumnsPanel), (("escape", "apostrophe"), ViewsPanel),
            (("escape", "i"), PictureScreen), (("escape", "equals_sign"), CompareScreen),
            (("escape", "colon"), CommandLine), (("escape", "e"), ChangeForm), (("escape", "7"), SpendScreen),
            (("8",), SchedulesScreen), (("9",), KeysScreen), (("q",), Question),
        ]  # fmt: skip
        for keys, kind in ways:
            await console.press(*keys)
            await console.opens(kind)
            check_keys(console.app, console.app.screen)
            seen.add(type(console.app.screen))
    # These are met in test_details (causes are read every few seconds) and in test_alerts.
    assert seen | {CauseScreen, SilenceQuestion} == set(SCREENS)


async def test_the_palette_offers_every_command_of_the_screen(open_console):
    async with open_console(FakeCluster([a_task()])) as console:
        offered = {command.title: command.help for command in console.app.get_system_commands(console.app.screen)}
        await console.press("ctrl+p")
        await wait_until(
            lambda: console.app.screen.query(OptionList) and console.app.screen.query_one(OptionList).options
        )
        assert ":silence RULE[/ON] [TIME] [REASON]" in "\n".join(
            str(option.prompt) for option in console.app.screen.query_one(OptionList).options
        )
    known = commands_of(*TasksScreen.SCOPES, Scope.LINE)
    assert {command.title for command in known} <= offered.keys()
    told = {Content.from_markup(words).plain for words in offered.values()}
    assert {f":{command.called} {command.takes}" for command in commands_of(Scope.LINE)} <= told, "none is markup"


def test_a_screen_on_top_of_a_view_tells_the_way_back_and_a_list_what_it_is_for():
    for screen in (TaskScreen, QueueScreen, NodeScreen, CauseScreen, LogScreen, PictureScreen, SpendScreen):
        assert "back" in [command.id for command in footer_of(screen.SCOPES)], screen
    assert "back" not in [command.id for command in footer_of(TasksScreen.SCOPES)]
    assert "node_log" in [command.id for command in footer_of(NodesScreen.SCOPES)]


async def test_where_there_is_room_the_keys_of_the_views_that_the_title_leaves_out_are_told(open_console):
    async with open_console(FakeCluster(), size=(120, 30)) as console:
        assert console.lines()[-1].endswith("7 Spend  8 Schedules  9 Keys ")
        await console.press("8")
        assert console.lines()[-1].endswith("7 Spend  9 Keys ")
        await console.pilot.resize_terminal(80, 24)
        await console.settle()
        assert "7 Spend" not in console.lines()[-1]

"""The console's application: opens the screens, keeps them fresh, asks before acts and sends them."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
import os
import signal
import sys
import traceback
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from types import MappingProxyType
from typing import ClassVar

from rich.console import RenderableType
from textual import on, work
from textual.app import App, SystemCommand
from textual.binding import BindingType
from textual.css.query import NoMatches
from textual.driver import Driver
from textual.screen import Screen
from textual.worker import WorkerFailed

from lcq.clock import steady_now
from lcq.config import DistributedConfig
from lcq.errors import InvalidInput, LcqError, TaskNotFound
from lcq.lang import N, tr
from lcq.log import setup_logging
from lcq.private_folder import make_private
from lcq.roots import Roots
from tui import lateness
from tui.alarms import Alarms, alarms_of, headline
from tui.cluster import Cluster, cluster_name
from tui.commands import Command, Scope, commands_of
from tui.contexts import ContextChoice, choices
from tui.desk import Desk, past_desk
from tui.gallery import Gallery
from tui.graphics import find_graphics
from tui.history import Place, ViewHistory
from tui.keymap import read_keymap
from tui.outlet import Outlet
from tui.pace import Pace
from tui.playing import PlayingApp
from tui.record import RecordingExists, RecordingRules
from tui.remembered import Remembered
from tui.rights import Rights
from tui.saved import SavedView, SavedViews, views_path
from tui.screens.base import (
    CompareWished,
    ConsoleScreen,
    LogWished,
    PicturesWished,
    RowWished,
    Said,
)
from tui.screens.causes import CausesScreen
from tui.screens.dialogs import Choice, Chooser, Help, Question
from tui.screens.listing import ListScreen
from tui.screens.nodes import NodesScreen
from tui.screens.queues import QueuesScreen
from tui.screens.small import SizeNote, is_too_small
from tui.screens.tasks import TasksScreen
from tui.sheets import OnceRead
from tui.source import trouble_of
from tui.text import no_markup
from tui.themes import FALLBACK, THEME_NAMES, THEMES, choose_theme, legible
from tui.widgets.table import LineTable

FAREWELL = N("The cluster goes on working without the console.")
OF_OTHERS = N("This cluster goes on without the console; the one that was started with the console stops with it.")
ONLY_PAST = N("It is only a recording.")

FLUSH_S = 0.125
"""How often news reach the screen at most."""
_REPLAY_LOOK_S = 0.375  # so often, without any, in a replay, whose seconds may be short
_SLACK_S = 0.002  # a moment that is waited for has come then


_LATER = (
    "screens.detail", "screens.fleet", "screens.node", "screens.queue", "screens.cause", "screens.activity",
    "screens.command_line", "screens.forms", "screens.submit", "screens.log", "screens.charts", "screens.picture",
    "screens.compare", "replay",
)  # fmt: skip
"""What is loaded after the first frame, in the order in which it may be wished."""
_BETWEEN_MODULES_S = 0.1
_QUIET = Alarms(bell=False)
_RESTLESS_S, _CALM_STEPS_S = 10.0, 2  # where neither cluster nor hand has stirred for so long, clocks go on so often
_WHOLE_S = 10.0  # and ages of minutes so often

_VARIABLES: dict[str, dict[str, str]] = {}  # the colours of each theme that has been shown


def _heard_together() -> list[Sequence[Scope]]:
    """Which scopes' keys are heard at a time: those of each kind of screen."""
    kinds: list[type] = [Screen]
    for kind in kinds:
        kinds += kind.__subclasses__()
    return list({tuple(getattr(kind, "SCOPES", ())) for kind in kinds})


class ConsoleApp(PlayingApp):
    """The console over one desk. Exits with 0, or with 1 after a failure of its own."""

    CSS_PATH = "console.tcss"
    TITLE = "LCQ"
    BINDINGS: ClassVar[list[BindingType]] = []
    ENABLE_COMMAND_PALETTE = True
    DEFAULT_MODE = "tasks"  # the first screen is the one that is shown, and none before it

    def __init__(
        self,
        desk: Desk,
        *,
        user: str = "anonymous",
        farewell: str = FAREWELL,
        crash_log: Path | None = None,
        theme: str = "",
        remembered: Remembered | None = None,
        contexts: Sequence[ContextChoice] = (),
        recording: RecordingRules | None = None,
        keys: Mapping[str, str] = MappingProxyType({}),
        alarms: Alarms = _QUIET,
    ) -> None:
        """``theme``: a theme's name; "": what suits the terminal. ``remembered``: where a chosen one is kept.
        ``contexts``: the clusters that one can go to. ``recording``: where recordings go, and how large they may be.
        ``keys``: the operator's own, by the ids of commands. ``alarms``: how the terminal is told that an alert begins.

        Raises:
            InvalidConfig: one of them cannot be.
        """
        no_colour = "NO_COLOR" in os.environ  # then none is sent at all, and no shade of grey in its place
        user_keys = read_keymap(keys, _heard_together()) if keys else {}
        super().__init__(desk, user=user, user_keys=user_keys, ansi_color=True if no_colour else None)
        for one in THEMES:
            self.register_theme(one)
        begin_with = choose_theme(theme, colours=self.console.color_system, no_colour=no_colour)
        self.set_reactive(App.theme, begin_with)  # before anything is painted: nothing is read twice
        self._refresh_truecolor_filter(self.ansi_theme)  # which a theme that is set later does by itself
        self.stylesheet = OnceRead(variables=self.get_css_variables())
        self._remembered = remembered
        self._farewell = farewell
        self._crash_log = crash_log
        self._alarms = alarms
        self._contexts = contexts
        self.recording_rules = recording
        self.next_context: str | None = None
        """The context that the operator has gone to; None: they have left."""
        self._second_shown = 0
        self._heard = 0
        self._whole_at = 0.0  # when all of what is in sight was shown last, by the steady clock
        self._state_shown: tuple[object, ...] = ()
        self._pace = Pace()
        self._missed_a_frame = False
        self._history = ViewHistory(Place("tasks"))
        self._went_back = 0  # by the key that goes to the last view and back: 1 when it has gone there
        self.add_mode("fleet", self._make_fleet)
        self.add_mode("tasks", lambda: TasksScreen(self.desk))
        self.add_mode("queues", lambda: QueuesScreen(self.desk))
        self.add_mode("nodes", lambda: NodesScreen(self.desk))
        self.add_mode("causes", lambda: CausesScreen(self.desk))
        self.add_mode("activity", self._make_activity)
        for mode in ("spend", "schedules", "keys"):
            self.add_mode(mode, functools.partial(self._make_further, mode))

    def _make_fleet(self) -> Screen[None]:
        from tui.screens.fleet import FleetScreen

        return FleetScreen(self.desk)

    def _make_activity(self) -> Screen[None]:
        from tui.screens.activity import ActivityScreen

        return ActivityScreen(self.desk)

    def _make_further(self, mode: str) -> Screen[None]:
        """The view of that name, one of those that few look at: it is loaded when somebody does."""
        match mode:
            case "schedules":
                from tui.screens.schedules import SchedulesScreen

                return SchedulesScreen(self.desk)
            case "keys":
                from tui.screens.keys import KeysScreen

                return KeysScreen(self.desk)
            case _:
                from tui.screens.spend import SpendScreen

                return SpendScreen(self.desk)

    def get_theme_variable_defaults(self) -> dict[str, str]:
        colours = self.current_theme.to_color_system().generate()
        return {name: colours[standing_in] for name, standing_in in FALLBACK.items()}

    def get_css_variables(self) -> dict[str, str]:
        theme = self.current_theme
        if theme.name in _VARIABLES:  # reckoned once: each screen that is shown for the first time asks for them
            self.theme_variables = dict(_VARIABLES[theme.name])
            return self.theme_variables
        variables = super().get_css_variables()
        if theme.name not in THEME_NAMES and not theme.ansi:
            variables |= legible(variables, dark=theme.dark)
            self.theme_variables = variables
        _VARIABLES[theme.name] = dict(variables)
        return variables

    def _keep_theme(self, theme: str) -> None:
        if self._remembered is not None:
            self._remembered.put("theme", theme)

    @on(ConsoleScreen.ChartsWished)
    def _show_charts(self) -> None:
        from tui.screens.charts import ChartsScreen

        if not isinstance(self.screen, ChartsScreen):
            self.push_screen(ChartsScreen(self.desk, str(self.current_mode)))

    @on(LogWished)
    def _show_log(self, wish: LogWished) -> None:
        from tui.screens.log import LogScreen

        self.push_screen(LogScreen(self.desk, node=wish.node, task_id=wish.task_id))

    @on(ConsoleScreen.OtherColoursWished)
    def _other_colours(self) -> None:
        here = THEME_NAMES.index(self.theme) if self.theme in THEME_NAMES else -1
        self.theme = THEME_NAMES[(here + 1) % len(THEME_NAMES)]
        self.say(tr("colours: {theme}", theme=self.theme))

    def on_mount(self) -> None:
        self._count_what_is_sent()
        self.theme_changed_signal.subscribe(self, lambda theme: self._keep_theme(theme.name))
        self.call_after_refresh(self._begin_to_read)  # what is loaded for that must not keep the first frame waiting
        self.run_worker(self._keep_fresh(), name="news", group="news")

    def _begin_to_read(self) -> None:
        if not gc.isenabled():
            gc.freeze()  # what was loaded and built for the first frame stays: no collection need look at it again
            gc.enable()
        self.run_worker(self._load_the_rest(), name="modules", group="modules")
        self.run_worker(self.desk.feed.run(), name="feed", group="feed")
        if self.desk.playback is None:
            self.run_worker(self.desk.pulse.run(), name="pulse", group="feed")
            self.run_worker(self.desk.older.run(), name="older", group="feed")
        self.run_worker(self.desk.older_acts.run(), name="older acts", group="feed")
        self.run_worker(self.desk.asker.run(), name="asker", group="feed")

    async def _load_the_rest(self) -> None:
        """Load what the first frame did not need, piece by piece: no view waits for it when it is first visited."""
        for module in _LATER:
            if f"tui.{module}" not in sys.modules:
                await asyncio.sleep(_BETWEEN_MODULES_S)
                import_module(f"tui.{module}")

    # ------------------------------------------------------------ keeping the screens fresh

    def on_resize(self) -> None:
        self._mind_the_size()

    def _mind_the_size(self) -> None:
        """Where the terminal is too small for any layout, say so on top of whatever is open, until it is not."""
        if not self.screen_stack:
            return  # a last tick while the console is left
        small, told = is_too_small(*self.size), isinstance(self.screen, SizeNote)
        if small and not told:
            self.push_screen(SizeNote())
        elif told and not small:
            self.pop_screen()

    async def _keep_fresh(self) -> None:
        """Bring news as they come, and time as it goes. No timer: its message to itself costs ten times as much."""
        while True:
            stir = self.desk.store.stir
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._still_for_s):
                    await stir.wait()
            has_news = stir.is_set()
            stir.clear()
            if not self._bring_news():
                has_news = True
                stir.set()
            if has_news:
                await asyncio.sleep(FLUSH_S)

    @property
    def _is_calm(self) -> bool:
        """Neither cluster nor hand has stirred of late, and all is well: nobody waits for a second to pass."""
        desk = self.desk
        is_well = desk.playback is None and desk.said is None and not desk.link.is_stale
        return is_well and steady_now() - self.stirred_s >= _RESTLESS_S

    @property
    def _still_for_s(self) -> float:
        """Until when nothing on the screen goes on by time alone: neither the clock, nor that no news came."""
        link = self.desk.link
        if self.desk.playback is not None:
            return _REPLAY_LOOK_S
        step_ms = 1000 * (_CALM_STEPS_S if self._is_calm else 1)
        next_s = (step_ms - link.now_ms % step_ms) / 1000
        return _SLACK_S + (next_s if link.stale_in_s is None else min(next_s, link.stale_in_s))

    def _bring_news(self) -> bool:
        """Bring news to the screens. False where a terminal that cannot keep up is not given them yet."""
        self._mind_the_size()  # something may have been opened over the note
        if self._terminal_is_behind or not self._pace.allows:
            return False
        if self._missed_a_frame:
            self._missed_a_frame = False
            self.screen.refresh()  # all of it, as it is by now
        self._ring()
        desk, second = self.desk, self.desk.link.now_ms // 1000
        if desk.store.heard != self._heard:
            self._heard, self.stirred_s = desk.store.heard, steady_now()
        state = (*desk.link.state, desk.said is None)
        has_news, has_others = desk.flush(), desk.store.take_others()
        steps = _CALM_STEPS_S if self._is_calm else 1
        goes_on = self._second_shown // steps != second // steps  # clocks and ages do
        if has_news or has_others or state != self._state_shown or (goes_on and not self._shows_no_seconds):
            self.show_news()
        elif goes_on:
            for screen in self._screens_in_sight():
                screen.show_pulse()
        if goes_on or has_news:
            self._second_shown = second
        self._state_shown = state
        return True

    @property
    def _shows_no_seconds(self) -> bool:
        """Only the title goes on for now: the ages in sight are of minutes and more, and have been shown of late."""
        of_late = steady_now() - self._whole_at < _WHOLE_S
        return of_late and self._is_calm and all(screen.is_still for screen in self._screens_in_sight())

    def _ring(self) -> None:
        """Tell the terminal of alerts that have just begun."""
        begun = self.desk.store.take_begun()
        if not begun or self.desk.playback is not None:
            return
        self.say(tr("alert: {text} (B shows them)", text=headline(begun)), good=False)
        told = self._alarms.sequence(begun, self.desk.cluster)
        if told and self._driver is not None and not self.is_headless and not self.is_web:
            self._driver.write(told)

    def _screens_in_sight(self) -> Iterator[ConsoleScreen]:
        for screen in self.screen_stack:
            in_sight = screen is self.screen or self.screen.is_modal
            if in_sight and isinstance(screen, ConsoleScreen):
                yield screen

    def show_news(self) -> None:
        """Let the screens in sight show how things are now."""
        self._whole_at = steady_now()
        for screen in self._screens_in_sight():
            screen.show_news()

    def _count_what_is_sent(self) -> None:
        driver = self._driver
        if driver is None:
            return
        write = driver.write

        def counted(data: str) -> None:
            self._pace.note(len(data))
            write(data)

        driver.write = counted  # type: ignore[method-assign]  # Textual tells this nowhere else

    def get_driver_class(self) -> type[Driver]:
        driver = super().get_driver_class()
        if driver.__module__ == "textual.drivers.linux_driver":  # not one that the environment names
            from tui.terminal import TerminalDriver

            return TerminalDriver
        return driver

    @property
    def _terminal_is_behind(self) -> bool:
        outlet: Outlet | None = getattr(self._driver, "outlet", None)  # a browser and a test have none
        return outlet is not None and outlet.is_behind

    def _display(self, screen: Screen[object], renderable: RenderableType | None) -> None:
        """Paint, but where the terminal is behind: it is spared what will be old when it can show it."""
        if self._terminal_is_behind:
            self._missed_a_frame = True
        else:
            super()._display(screen, renderable)

    def say(self, text: str, *, good: bool = True) -> None:
        self.desk.say(text, good=good)
        self.show_news()

    @on(Said)
    def _said(self, said: Said) -> None:
        self.say(said.text, good=said.good)

    # ------------------------------------------------------------ going about

    @on(ConsoleScreen.ModeWished)
    def _mode_wished(self, wish: ConsoleScreen.ModeWished) -> None:
        self._history.leave(self._root_filter)
        self._went_back = 0
        is_drill = bool(wish.filter_text) and wish.mode != self.current_mode
        self.desk.drilled = (wish.mode, wish.filter_text or "") if is_drill else None
        self._show_mode(wish.mode, wish.filter_text)

        def note() -> None:  # once the new root is there
            self._history.go(Place(wish.mode, self._root_filter))

        self.call_later(note)

    @on(ConsoleScreen.HistoryWished)
    def _history_wished(self, wish: ConsoleScreen.HistoryWished) -> None:
        self._history.leave(self._root_filter)
        place = self._history.step(wish.steps or (-1 if self._went_back <= 0 else 1))
        if place is None:
            self.say(
                tr("there is no view before this one") if wish.steps < 1 else tr("there is no view after this one")
            )
            return
        self._went_back = 0 if wish.steps else (1 if self._went_back <= 0 else 0)
        self._show_mode(place.mode, place.filter_text)

    def _show_mode(self, mode: str, filter_text: str | None) -> None:
        if self.current_mode == mode:
            while len(self.screen_stack) > 1:
                self.pop_screen()
        else:
            self.switch_mode(mode)
        if filter_text is not None:
            self.call_later(self._filter_root, filter_text)
        self.show_news()

    @property
    def _root_filter(self) -> str:
        root = self.screen_stack[0]
        return root.view.filter.text if isinstance(root, ListScreen) else ""

    def _filter_root(self, text: str) -> None:
        if self.desk.drilled == (self.current_mode, text):  # the rows are wanted, not what was open above them before
            while len(self.screen_stack) > 1:
                self.pop_screen()
        root = self.screen_stack[0]
        if isinstance(root, ListScreen):
            root.set_filter_text(text)

    @on(RowWished)
    def _row_wished(self, wish: RowWished) -> None:
        """To a row of another view. A filter that hides it is taken away."""
        self._mode_wished(ConsoleScreen.ModeWished(wish.mode))

        def go() -> None:  # once the new root is there
            root = self.screen_stack[0]
            if not isinstance(root, ListScreen):
                return
            if root.view.row(wish.row_id) is None:
                self.say(tr("{row_id} is not here: the cluster has forgotten it", row_id=wish.row_id), good=False)
                return
            if root.view.index_of(wish.row_id) is None:
                root.set_filter_text("")
            root.view.move_to(root.view.index_of(wish.row_id) or 0)
            self.show_news()

        self.call_later(go)

    @on(ConsoleScreen.LeaveWished)
    async def _leave(self, wish: ConsoleScreen.LeaveWished) -> None:
        if wish.screen is not self.screen:
            return  # it has been left already: a key that is pressed twice is no wish to quit
        if len(self.screen_stack) > 1:
            self.pop_screen()
        else:
            self._ask_to_quit()

    def quit_console(self) -> None:
        self._ask_to_quit()

    @property
    def context_names(self) -> Sequence[str]:
        return [one.title for one in self._contexts]

    @work(group="quit", exclusive=True)
    async def _ask_to_quit(self) -> None:
        question = Question(tr("Leave the console?"), (tr(self._farewell),), tr("Yes, leave"))
        if await self.push_screen_wait(question) is not None:
            self.exit(0)

    @on(ConsoleScreen.HelpWished)
    def _help(self) -> None:
        if isinstance(self.screen, ConsoleScreen):
            self.push_screen(Help(self.screen.SCOPES, self.user_keys))

    @on(ConsoleScreen.FreezeWished)
    def _freeze(self) -> None:
        views = (self.desk.tasks, self.desk.queues, self.desk.nodes, self.desk.causes, self.desk.acts)
        if self.desk.tasks.frozen:
            for view in views:
                view.thaw()
        else:
            for view in views:
                view.freeze()
        self.show_news()

    @on(ConsoleScreen.RefetchWished)
    def _refetch(self) -> None:
        self.desk.feed.refetch()
        self.say(tr("reading everything again"))

    @on(ConsoleScreen.SuspendWished)
    def _suspend(self) -> None:
        """Stop, as ctrl-z does, where a shell waits that can bring us back."""
        own_job = os.getpgrp() == os.getpid() and os.getsid(0) != os.getpid()
        if own_job and not self.is_web:
            self.action_suspend_process()
        else:
            self.say(tr("it cannot be put aside: no shell waits for it that could bring it back"), good=False)

    @on(Driver.SignalResume)
    def _repaint(self) -> None:
        """Back from there: of what the terminal showed nothing is left."""
        for screen in self.screen_stack:
            screen.refresh(layout=True)

    @on(ConsoleScreen.SavedViewsWished)
    @work(group="panel", exclusive=True)
    async def _saved_views(self) -> None:
        from tui.screens.choose import ViewsPanel

        present = self.screen.look_of() if isinstance(self.screen, ListScreen) else None
        chosen = await self.push_screen_wait(ViewsPanel(self.desk.saved, present))
        if chosen is not None:
            self.look_so(chosen)

    async def _run_line(self, command: Command, words: Sequence[str], reason: str, screen: ConsoleScreen) -> None:
        if command.id == "open_task":
            await self._open_by_id(*words)
            return
        if command.id != "saved_views" or not words:
            await super()._run_line(command, words, reason, screen)
            return
        name = " ".join(words)
        saved = next((view for view in self.desk.saved.all if name in (view.name, view.shown_name)), None)
        if saved is None:
            self.say(tr("no saved view {name!r}: ' lists them", name=name), good=False)
        else:
            self.look_so(saved)

    async def _open_by_id(self, typed: str) -> None:
        """To the details of a task, wherever it is: the cluster says whether there is one."""
        task_id = typed
        if typed not in self.desk.store.tasks.rows:
            try:
                task_id = await self.desk.reader.find(typed)
            except TaskNotFound:
                told = tr("no task {typed}: there never was one, or the cluster has forgotten it", typed=typed)
                self.say(told, good=False)
                return
            except (LcqError, OSError, TimeoutError) as error:
                self.say(trouble_of(error), good=False)
                return
        self._mode_wished(ConsoleScreen.ModeWished("tasks"))
        self.call_later(self._show_task, TasksScreen.DetailsWished(task_id))

    def look_so(self, saved: SavedView) -> None:
        """Go to a saved view."""
        self._mode_wished(ConsoleScreen.ModeWished(saved.mode, saved.filter_text))

        def look() -> None:  # once the new root is there
            root = self.screen_stack[0]
            if isinstance(root, ListScreen):
                root.look_so(saved)

        self.call_later(look)

    def switch_context(self, name: str) -> None:
        """Leave this cluster for that of another context; with "", let the operator choose one."""
        if name:
            self._go_to_context(name)
        else:
            self._choose_context()

    @work(group="panel", exclusive=True)
    async def _choose_context(self) -> None:
        if not self._contexts:
            self.say(tr("the settings name no other cluster: see contexts in sample-config/lcq.yaml"), good=False)
            return
        listed = [
            Choice(("context", one.title), one.title, one.where + tr(", here") * one.here) for one in self._contexts
        ]
        chosen = await self.push_screen_wait(Chooser(tr("Which cluster?"), listed))
        if chosen is not None:
            self._go_to_context(chosen[1])

    def _go_to_context(self, title: str) -> None:
        chosen = next((one for one in self._contexts if title in (one.title, one.name)), None)
        if chosen is None:
            known = ", ".join(one.title for one in self._contexts) or tr("none")
            self.say(tr("no context {title!r}: there is {known}", title=title, known=known), good=False)
        elif chosen.here:
            self.say(tr("this is {title}", title=title))
        else:
            self.next_context = chosen.name
            self.exit(0)

    @on(TasksScreen.DetailsWished)
    def _show_task(self, wish: TasksScreen.DetailsWished) -> None:
        from tui.screens.detail import TaskScreen

        self.push_screen(TaskScreen(self.desk, wish.task_id))

    @on(CompareWished)
    def _compare(self, wish: CompareWished) -> None:
        from tui.screens.compare import CompareScreen

        self.push_screen(CompareScreen(self.desk, wish.task_id, wish.other_id))

    @on(PicturesWished)
    def _show_pictures(self, wish: PicturesWished) -> None:
        from tui.screens.picture import PictureScreen

        self.push_screen(PictureScreen(self.desk, wish.task_id))

    @on(QueuesScreen.DescriptionWished)
    def _describe_queue(self, wish: QueuesScreen.DescriptionWished) -> None:
        from tui.screens.queue import QueueScreen

        self.push_screen(QueueScreen(self.desk, wish.row.id))

    @on(CausesScreen.DescriptionWished)
    def _describe_cause(self, wish: CausesScreen.DescriptionWished) -> None:
        from tui.screens.cause import CauseScreen

        self.push_screen(CauseScreen(self.desk, wish.row.id))

    @on(NodesScreen.DescriptionWished)
    def _describe_node(self, wish: NodesScreen.DescriptionWished) -> None:
        from tui.screens.node import NodeScreen

        self.push_screen(NodeScreen(self.desk, wish.row.id))

    def get_system_commands(self, screen: Screen[object]) -> Iterable[SystemCommand]:
        if isinstance(screen, ConsoleScreen):
            for scope in screen.SCOPES:
                if scope is Scope.READING:
                    continue
                for command in commands_of(scope):
                    run = functools.partial(self._run_command, screen, command.id, scope)
                    told = f"{tr(scope.value)}: {command.shown_keys(self.user_keys)[0]}"
                    yield SystemCommand(command.shown_title, no_markup(told), run)
            for command in commands_of(Scope.LINE):
                begin = functools.partial(screen.post_message, ConsoleScreen.LineWished(f"{command.called} "))
                yield SystemCommand(command.shown_title, no_markup(f":{command.called} {command.takes}"), begin)
        yield SystemCommand(tr("Theme"), tr("Choose other colours"), self.action_change_theme)

    async def _run_command(self, screen: ConsoleScreen, command_id: str, scope: Scope) -> None:
        where = screen.query_one(LineTable) if scope is Scope.TABLE else screen
        await where.run_action(command_id)

    # ------------------------------------------------------------ failing

    def _handle_exception(self, error: Exception) -> None:
        """A fault of the console itself: into a file with it, and one line to the operator."""
        if isinstance(error, NoMatches) and not self.is_running:
            return  # none: a screen that was opened as the console ended is given no widgets any more
        if self._crash_log is None:
            super()._handle_exception(error)
            return
        if isinstance(error, WorkerFailed) and isinstance(error.error, Exception):
            error = error.error  # what went wrong, and not in which of our tasks
        text = "".join(traceback.format_exception(error))
        make_private(self._crash_log.parent)
        with self._crash_log.open("a", encoding="utf-8", errors="backslashreplace") as log:
            log.write(text)
        self.exit(
            1, return_code=1,
            message=tr(
                "error: the console failed: {error}; the details are in {file}",
                error=type(error).__name__, file=self._crash_log,
            ),
        )  # fmt: skip


async def run_console_async(
    config: DistributedConfig,
    *,
    user: str | None = None,
    farewell: str = FAREWELL,
    scheduler: str | None = None,
    theme: str = "",
    read_only: bool = False,
    record: str = "",
    replay: str = "",
    at: str = "",
    stop: asyncio.Event | None = None,
) -> int:
    """Run the console on this event loop until the operator leaves it, or ``stop`` is set; its exit code.

    ``record``: a file to record into. ``replay``: a recording to show instead of a cluster, from the time ``at`` on.

    The terminal is its own while it runs: nothing else in the process may write to stdout or stderr, so
    send the log to a file first (``lcq.log.setup_logging``).

    Raises:
        InvalidInput: there is no terminal to run in, no such theme, or no such recording.
    """
    if "TEXTUAL_DRIVER" not in os.environ and not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise InvalidInput(
            "the console needs a terminal for its input and its screen",
            hint="run it in one, or use 'lcq tasks', 'lcq nodes' and 'lcq events' with --json",
        )
    past: tuple[Recording, int | None] | None = None
    if record:
        _refuse_to_overwrite(_file_of(record))  # before anybody believes that it is recorded
    if replay:
        from tui.replay import Recording

        recording = await asyncio.to_thread(Recording.open, _file_of(replay))
        past = (recording, recording.moment(at) if at else None)
    if user is None:
        from lcq.client import login_name

        user = login_name()
    saved = SavedViews(views_path())
    home = config.context
    while True:
        at_home = config.context == home
        if past is not None:
            from tui.replay import Playback

            desk = past_desk(Playback(*past), saved=saved)
            ends = tr(ONLY_PAST) if replay else tr("It is only a recording. You come back to where you were.")
            app = await _run_app(config, desk, stop, user=user, farewell=ends, theme=theme)
        else:
            rights = Rights(read_only=read_only, production=config.production)
            ends = farewell if at_home or farewell == FAREWELL else OF_OTHERS
            async with Cluster(config, scheduler=scheduler if at_home else None) as cluster:
                desk = Desk(cluster, cluster, cluster=cluster_name(config), saved=saved, rights=rights)
                roots, seen = Roots(config.storage.roots), desk.tape.note_pictures
                desk.gallery = Gallery(cluster, limits=config.limits, roots=roots, seen=seen)
                app = await _run_app(config, desk, stop, user=user, farewell=ends, theme=theme, record=record)
        goes_on = app.next_context is not None or app.next_replay is not None or (past is not None and not replay)
        if app.return_code or not goes_on or (stop is not None and stop.is_set()):
            return app.return_code or 0
        past, record = app.next_replay, ""  # who leaves a replay that began in a console comes back there
        if app.next_context is not None:
            config, replay = config.in_context(app.next_context), ""


def _file_of(typed: str) -> Path:
    return Path(typed).expanduser()


def _refuse_to_overwrite(path: Path) -> None:
    if path.exists():
        raise RecordingExists(path)


async def _run_app(
    config: DistributedConfig,
    desk: Desk,
    stop: asyncio.Event | None,
    *,
    user: str,
    farewell: str,
    theme: str,
    record: str = "",
) -> ConsoleApp:
    """A console over one desk, until it is left."""
    remembered = Remembered(config.data_path / "console-choices.json") if config.console.remember else None
    kept = config.console
    desk.graphics = find_graphics(kept.pictures, os.environ)
    app = ConsoleApp(
        desk, user=user, farewell=farewell, crash_log=config.data_path / "console-crash.log",
        theme=theme or (remembered and remembered.get("theme")) or kept.theme, remembered=remembered,
        contexts=choices(config), keys=kept.keys,
        alarms=alarms_of(bell=kept.bell, notify=kept.notify, environment=os.environ),
        recording=RecordingRules(config.data_path, kept.record_mib * 2**20, kept.record_hours * 3600),
    )  # fmt: skip
    if record:
        app.call_later(app.record, record)
    async with asyncio.TaskGroup() as tasks:
        watch = tasks.create_task(_exit_when(stop, app), name="console stop") if stop is not None else None
        await app.run_async()
        if watch is not None:
            watch.cancel()
    return app


async def _exit_when(stop: asyncio.Event, app: ConsoleApp) -> None:
    await stop.wait()
    app.exit(0)


def run_console(
    config: DistributedConfig,
    *,
    farewell: str = FAREWELL,
    scheduler: str | None = None,
    theme: str = "",
    read_only: bool = False,
    record: str = "",
    replay: str = "",
    at: str = "",
) -> int:
    """The program ``lcq console``: runs until the operator leaves; its exit code.

    ``farewell`` is what the operator is told when asked whether to leave. ``scheduler`` ("HOST:PORT") is
    commanded; default: the one that the configuration names. ``theme``: its colours; default: those chosen last.
    ``read_only``: no key changes anything. ``record``, ``replay``, ``at``: as for ``run_console_async``.

    Raises:
        InvalidInput: there is no terminal to run in, no such theme, or no such recording.
    """
    setup_logging(config.log_level, file=config.data_path / "console.log")

    async def main() -> int:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, stop.set)  # so that the terminal is left as it was found
        async with lateness.measured():
            return await run_console_async(
                config, farewell=farewell, scheduler=scheduler, theme=theme, read_only=read_only, record=record,
                replay=replay, at=at, stop=stop,
            )  # fmt: skip

    gc.disable()  # until the first frame, as while it was loaded
    try:
        return asyncio.run(main())
    finally:
        gc.enable()

"""The log of a node or of a task: the newest lines that its agent tells, followed, searched, marked and saved."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from rich.segment import Segment
from rich.style import Style
from textual import events, on, work
from textual.binding import BindingType
from textual.containers import Horizontal
from textual.message import Message
from textual.strip import Strip
from textual.widget import Widget
from textual.widgets import Input

from lcq.errors import LcqError, LogNotKept, NoLog, UnknownCommand
from lcq.lang import N, retold, retold_error, tr
from tui import export
from tui.commands import Scope, bindings_of
from tui.loglines import WINDOWS, Line, LogLines, wrapped
from tui.screens.base import ConsoleScreen, Said
from tui.screens.choose import AskLine
from tui.screens.dialogs import Question
from tui.source import trouble_of
from tui.text import clean, counted, fit
from tui.widgets.field import CleanInput
from tui.widgets.frame import TONE_STYLE, OneLine, Part

if TYPE_CHECKING:
    from lcq.models import Attempt
    from lcq.wire import LogAnswer, TaskLogAnswer
    from tui.desk import Desk

FOLLOW_S = 1.0
"""How often an agent is asked for what is new."""
_AGAIN_S = 3.0  # after a refusal
_PAGE = 500
_SOURCES = 8  # cells for who wrote a line
_WHEEL = 3
_CUT = N("-- {cut:,} bytes were written here and not kept (agent.task_logs.attempt_kib) --")
_MOST_ATTEMPTS = 3  # of a task, the newest, whose logs are read


class LogPane(Widget):
    """Paints the lines, and goes to the one that is clicked on; the keys are the screen's."""

    class Looked(Message):
        """The mouse has gone to another line."""

    ALLOW_SELECT = False
    COMPONENT_CLASSES: ClassVar[set[str]] = {"log--cursor", "log--found", *(f"log--{tone}" for tone in TONE_STYLE)}

    def __init__(self, lines: LogLines, empty: Callable[[], str], *, id: str | None = None) -> None:  # noqa: A002
        super().__init__(id=id)
        self._lines, self._empty = lines, empty
        self._rows: list[tuple[int, int, str]] = []  # line, piece of it, text
        self._made: tuple[object, ...] = ()

    def sync(self) -> None:
        """Paint anew where anything is different from what is on the screen."""
        lines, size = self._lines, self.size
        state = (lines.changes, size, self._empty() if not len(lines) else "")
        if state == self._made:
            return
        self._made = state
        pieces = self._pieces()
        lines.reveal(max(1, size.height), [len(one) for one in pieces])
        self._rows = [
            (index, place, text)
            for index in range(lines.top, min(len(lines), lines.top + size.height))
            for place, text in enumerate(pieces[index])
        ][: size.height]
        self.refresh()

    def _pieces(self) -> list[list[str]]:
        """Each line as the pieces that it takes on the screen."""
        if not self._lines.wrap:
            return [[line.text] for line in self._lines.shown]
        room = max(1, self.size.width - self._head_width)
        return [wrapped(line.text, room) for line in self._lines.shown]

    @property
    def _head_width(self) -> int:
        return 1 + (10 if self._lines.stamps else 0) + _SOURCES + 3

    def notify_style_update(self) -> None:
        super().notify_style_update()
        self._made = ()
        self.refresh()

    def on_resize(self) -> None:
        self.sync()

    def render_line(self, y: int) -> Strip:
        width, ground = self.size.width, self.rich_style
        if y >= len(self._rows):
            text = f"  {self._empty()}" if y == 0 and not len(self._lines) else ""
            return Strip([Segment(fit(text, width), ground + self._style("dim"))]).adjust_cell_length(width, ground)
        index, place, text = self._rows[y]
        line = self._lines.shown[index]
        style = ground + self._style(line.tone)
        if line.key == self._lines.cursor:
            style += Style(bgcolor=self.get_component_rich_style("log--cursor").bgcolor)
        elif line.key in self._lines.marks:
            style += Style(bold=True)
        head = self._lines.head(line, _SOURCES) if place == 0 else " " * self._head_width
        shown = fit(f"{head}{text}", width)
        return Strip(self._with_matches(shown, min(len(head), len(shown)), style)).adjust_cell_length(width, style)

    def _with_matches(self, shown: str, begin: int, style: Style) -> list[Segment]:
        """The line in segments, what is searched turned round."""
        sought = self._lines.search
        folded = shown.casefold()
        if not sought or len(folded) != len(shown):
            return [Segment(shown, style)]
        segments, at = [], 0
        while (found := folded.find(sought, max(at, begin))) >= 0:
            end = found + len(sought)
            segments += [Segment(shown[at:found], style), Segment(shown[found:end], style + Style(reverse=True))]
            at = end
        return [*segments, Segment(shown[at:], style)]

    def _style(self, tone: str) -> Style:
        return self.get_component_rich_style(f"log--{tone}", partial=True)

    # ------------------------------------------------------------ mouse

    def _scroll(self, event: events.MouseEvent, steps: int) -> None:
        """Move what is in sight; the cursor comes along at its edge."""
        event.stop()
        event.prevent_default()
        if self._rows:
            self._lines.to(self._rows[-1 if steps > 0 else 0][0] + steps)
            self.post_message(self.Looked())

    def _on_mouse_scroll_down(self, event: events.MouseScrollDown) -> None:
        self._scroll(event, _WHEEL)

    def _on_mouse_scroll_up(self, event: events.MouseScrollUp) -> None:
        self._scroll(event, -_WHEEL)

    def on_click(self, event: events.Click) -> None:
        if event.y < len(self._rows):
            self._lines.to(self._rows[event.y][0])
            self.post_message(self.Looked())


class SearchInput(CleanInput):
    """Where the search is typed."""


class LogScreen(ConsoleScreen):
    """What the agent of ``node`` tells of its log; with a task, what is kept and told of that."""

    SCOPES: ClassVar[tuple[Scope, ...]] = (Scope.EVERYWHERE, Scope.READING, Scope.LOG)
    BINDINGS: ClassVar[list[BindingType]] = [*bindings_of(Scope.READING, Scope.LOG)]
    AUTO_FOCUS = ""  # not the field: letters are keys until somebody searches

    def __init__(self, desk: Desk, *, node: str = "", task_id: str = "") -> None:
        super().__init__(desk)
        self.MODE = "tasks" if task_id else "nodes"
        self.node, self.task_id = node, task_id
        self.lines = LogLines()
        self._parts = 0  # of the log: each boot of each agent is one, and what is kept with attempts
        self._wrong = tr("reading …")
        self._status_line = OneLine(id="logstatus")
        self._search_field = SearchInput(
            id="search", compact=True, select_on_focus=False, placeholder=tr("words to search")
        )
        self.pane = LogPane(self.lines, self._why_empty, id="log")

    def compose_body(self) -> Iterable[Widget]:
        yield Horizontal(self._status_line, self._search_field, id="logline")
        yield self.pane

    @property
    def crumb(self) -> str:
        return tr("{task_id} > log", task_id=self.task_id or self.node)

    def on_mount(self) -> None:
        super().on_mount()
        self._read()

    # ------------------------------------------------------------ reading

    @work(exclusive=True, group="log")
    async def _read(self) -> None:
        """Read what there is, then follow, for as long as the screen is open."""
        if self.task_id and self.desk.playback is None:
            node = self.node
            with contextlib.suppress(UnknownCommand, LogNotKept):
                await self._read_kept()
            self.node = node
            self.lines.clear()
            self._parts = 0  # of an older scheduler, or agent: its newest lines are all that there is
        if self.task_id:
            await self._read_attempts()
        boot, after, jumps = "", -1, self._jumps
        while True:
            pause_s = FOLLOW_S
            if jumps != self._jumps:  # a replay that has been set to another time: what was read may not be yet
                jumps, boot, after = self._jumps, "", -1
                self.lines.clear()
                if self.task_id:
                    await self._read_attempts()
            if not self.node:
                self._wrong = tr("no node has taken it yet: there is no log")
                await self._read_attempts()
            else:
                try:
                    told = await self.desk.commander.read_log(self.node, after=after, limit=_PAGE, task=self.task_id)
                except (LcqError, OSError, TimeoutError) as error:
                    self._wrong = retold(error.why) if isinstance(error, NoLog) else trouble_of(error)
                    pause_s = _AGAIN_S
                else:
                    self._wrong = ""
                    if told.boot != boot:
                        news = self._new_part(
                            tr("the agent of {node} was started anew", node=self.node) if boot else ""
                        )
                        if boot:  # its numbers begin anew
                            boot, after = told.boot, -1
                            self._take(news)
                            continue
                        boot = told.boot
                    self._take_in(told, after)
                    pause_s = 0.05 if len(told.lines) == _PAGE and after >= 0 else FOLLOW_S
                    after = max(told.last, after)
            self._show_lines()
            await asyncio.sleep(pause_s)

    async def _read_kept(self) -> None:
        """What nodes have kept of the attempts of the task; the newest of them is followed, for ever.

        Raises:
            UnknownCommand: this scheduler is older.
            LogNotKept: the agent of the newest one is.
        """
        while not (attempts := await self._attempts()):
            self._wrong = self._wrong or tr("no node has taken it yet: there is no log")
            self._show_lines()
            await asyncio.sleep(FOLLOW_S)
        self._wrong = ""
        number = max(1, attempts[-1].number - _MOST_ATTEMPTS + 1)
        begin, said, is_open = -1, False, False
        while True:
            attempt = next((one for one in attempts if one.number == number), attempts[-1])
            self.node, pause_s, is_behind = attempt.node, FOLLOW_S, False
            if not said:
                self._parts += 1
                self._take([self._line(-3, attempt.started_ms, "console", "", self._head_of(attempt))])
            try:
                told = await self.desk.commander.read_task_log(self.task_id, attempt=number, begin=begin, limit=_PAGE)
            except UnknownCommand:
                raise
            except (LcqError, OSError, TimeoutError) as error:
                self._wrong = retold(error.message) if isinstance(error, NoLog) else trouble_of(error)
                pause_s, is_open = _AGAIN_S, False
                if isinstance(error, LogNotKept) and number == attempts[-1].number:
                    raise
                if not said:
                    self._take(self._last_words(attempt))
            else:
                self._wrong = ""
                if not told.is_there and not said:
                    self._take(self._last_words(attempt))
                self._take_pieces(told, begin)
                is_behind = begin >= 0 and bool(told.lines) and told.next < told.size
                begin, is_open = told.next, told.is_open
            said = True
            if is_behind:
                continue
            if not is_open:
                attempts = await self._attempts() or attempts
                if number < attempts[-1].number:
                    number, begin, said = number + 1, -1 if number + 1 < attempts[-1].number else 0, False
                    continue
            self._show_lines()
            await asyncio.sleep(pause_s)

    async def _attempts(self) -> Sequence[Attempt]:
        try:
            return await self.desk.reader.attempts(self.task_id)
        except (LcqError, OSError, TimeoutError) as error:
            self._wrong = trouble_of(error)
            return ()

    def _head_of(self, attempt: Attempt) -> str:
        return tr(
            "-- attempt {number} on {node}: {outcome} --",
            number=attempt.number,
            node=attempt.node,
            outcome=tr(attempt.outcome),
        )

    def _last_words(self, attempt: Attempt) -> list[Line]:
        """What is kept with an attempt that failed, where its node tells nothing."""
        at_ms = attempt.ended_ms or attempt.started_ms
        return [self._line(place, at_ms, "kept", "", text) for place, text in enumerate(attempt.log.splitlines())]

    def _take_pieces(self, told: TaskLogAnswer, begin: int) -> None:
        news = []
        lost = told.size - told.kept
        if begin < 0 and told.lines and told.lines[0].number > 0:
            more = tr("lcq logs {task} -n 0 shows all", task=self.task_id)
            what = tr("-- the newest of {size:,} bytes; {more} --", size=told.size, more=more)
            news.append(self._line(-1, told.lines[0].at_ms, "console", "", what))
        for one in told.lines:
            if one.cut:
                what = tr(_CUT, cut=one.cut)
                news.append(self._line(2 * one.number, one.at_ms, "console", "WARNING", what))
            news.append(self._line(2 * one.number + 1, one.at_ms, one.source, one.level, one.text))
        if begin < 0 and lost > 0 and not any(one.cut for one in told.lines):
            what = tr("-- {cut:,} bytes of it were not kept (agent.task_logs.attempt_kib) --", cut=lost)
            news.insert(0, self._line(-2, told.lines[0].at_ms if told.lines else 0, "console", "WARNING", what))
        self._take(news)

    def _line(self, place: int, at_ms: int, source: str, level: str, text: str) -> Line:
        return Line((self._parts, place), at_ms, clean(source), clean(level), clean(text))

    @property
    def _jumps(self) -> int:
        return self.desk.playback.jumps if self.desk.playback is not None else 0

    async def _read_attempts(self) -> None:
        """What is kept with the task's attempts: the last words of those that failed."""
        try:
            attempts = await self.desk.reader.attempts(self.task_id)
        except (LcqError, OSError, TimeoutError) as error:
            self._wrong = trouble_of(error)
            return
        if not attempts:
            return
        if not self.node:
            self.node = attempts[-1].node
        for attempt in attempts:
            self._take(self._kept(attempt))

    def _kept(self, attempt: Attempt) -> list[Line]:
        if not attempt.log:
            return []
        self._parts += 1
        head = tr(
            "attempt {number} on {node} {outcome}; its runner wrote last:",
            number=attempt.number,
            node=attempt.node,
            outcome=tr(attempt.outcome),
        )
        at_ms = attempt.ended_ms or attempt.started_ms
        texts = [head, *attempt.log.splitlines()]
        return [Line((self._parts, place), at_ms, "kept", "", clean(text)) for place, text in enumerate(texts)]

    def _new_part(self, why: str) -> list[Line]:
        self._parts += 1
        return [Line((self._parts, -2), self.desk.link.now_ms, "console", "", clean(f"-- {why} --"))] if why else []

    def _take_in(self, told: LogAnswer, after: int) -> None:
        news = []
        if after >= 0 and told.first > after + 1:
            gone = told.first - after - 1
            news.append(
                Line((self._parts, told.first * 2 - 1), self.desk.link.now_ms, "console", "WARNING",
                     tr("-- {gone} came and went before they were read --", gone=counted(gone, 'line')))
            )  # fmt: skip
        for one in told.lines:
            source = "agent" if one.source == "agent" else one.source
            news.append(
                Line((self._parts, one.number * 2), one.at_ms, clean(source), clean(one.level), clean(one.text))
            )  # fmt: skip
        self._take(news)

    def _take(self, news: Sequence[Line]) -> None:
        self.lines.add(news)
        self._show_lines()

    # ------------------------------------------------------------ what is shown

    def show_news(self) -> None:
        super().show_news()
        self.lines.tick(self.desk.link.now_ms)
        self._show_lines()

    def _why_empty(self) -> str:
        if self._wrong:
            return clean(self._wrong)
        if self.lines.total:
            return tr("nothing in the last {windows}: t changes the window", windows=WINDOWS[self.lines.window][0])
        return tr("nothing yet") if not self.task_id else tr("{node} has told nothing of this task", node=self.node)

    def _show_lines(self) -> None:
        if not self.is_attached:
            return
        lines = self.lines
        name = (
            tr("{id} on {node}", id=self.task_id, node=self.node)
            if self.task_id and self.node
            else self.task_id or self.node
        )
        parts = [Part(f" {name} ", "bold $text-primary")]
        if self._wrong and lines.total:
            parts.append(Part(f"  {self._wrong}", TONE_STYLE["warn"]))
        elif lines.search:
            found = lines.matches
            parts.append(
                Part(f"  /{lines.search}: {counted(found, 'line')}", "$text-accent" if found else "$text-warning")
            )
        notes = [tr("{count:,} of {total}", count=len(lines), total=counted(lines.total, "line"))]
        if lines.window:
            notes.append(tr("last {windows}", windows=WINDOWS[lines.window][0]))
        if lines.marks:
            notes.append(tr("{count} marked", count=len(lines.marks)))
        notes += [tr("wrapped")] if lines.wrap else []
        notes.append(tr("FOLLOWING") if lines.follow else tr("f follows"))
        self._status_line.show(parts, [Part("   ".join(notes) + " ")])
        self.pane.sync()

    # ------------------------------------------------------------ keys

    @on(LogPane.Looked)
    def _changed(self) -> None:
        self._show_lines()

    def action_line_down(self) -> None:
        self.lines.move(1)
        self._changed()

    def action_line_up(self) -> None:
        self.lines.move(-1)
        self._changed()

    def action_to_top(self) -> None:
        self.lines.to(0)
        self._changed()

    def action_to_end(self) -> None:
        self.lines.to(len(self.lines) - 1)
        self._changed()

    def action_half_screen_down(self) -> None:
        self.lines.move(max(1, self.pane.size.height // 2))
        self._changed()

    def action_half_screen_up(self) -> None:
        self.lines.move(-max(1, self.pane.size.height // 2))
        self._changed()

    def action_follow_log(self) -> None:
        self.lines.set_follow(not self.lines.follow)
        self._changed()

    def action_wrap_lines(self) -> None:
        self.lines.wrap = not self.lines.wrap
        self.lines.changes += 1
        self._changed()

    def action_time_stamps(self) -> None:
        self.lines.stamps = not self.lines.stamps
        self.lines.changes += 1
        self._changed()

    def action_log_window(self) -> None:
        self.lines.next_window()
        self._changed()

    def action_mark_line(self) -> None:
        self.lines.mark()
        self._changed()

    def action_next_match(self) -> None:
        self._match(1)

    def action_previous_match(self) -> None:
        self._match(-1)

    def _match(self, step: int) -> None:
        if not self.lines.search:
            self.post_message(Said(tr("nothing is searched: / asks for what")))
        elif not self.lines.next_match(step):
            self.post_message(Said(tr("no line here has {search!r}", search=self.lines.search)))
        self._changed()

    def action_search_log(self) -> None:
        self.add_class("-searching")
        self._search_field.focus()

    @on(Input.Submitted, "#search")
    def _searched(self, typed: Input.Submitted) -> None:
        self._leave_search()
        self.lines.find(typed.value)
        if self.lines.search and not self.lines.matches:
            self.post_message(Said(tr("no line here has {search!r}", search=self.lines.search)))
        self._changed()

    def _leave_search(self) -> None:
        self.remove_class("-searching")
        self.set_focus(None)

    def action_back(self) -> None:
        if self.has_class("-searching"):
            self._leave_search()
        elif self.lines.search:
            self.lines.find("")
            self._changed()
        else:
            super().action_back()

    @work(group="panel", exclusive=True)
    async def action_save_log(self) -> None:
        text = self.lines.as_text()
        if not text:
            self.post_message(Said(tr("nothing to save: no line is shown"), good=False))
            return
        what = counted(text.count("\n"), "line")
        stem = export.proposed_name(f"log-{self.task_id or self.node}", self.desk.link.now_ms).rpartition(".")[0]
        hint = tr("{what} is here; enter saves", what=_path_of("."))
        name = await self.app.push_screen_wait(AskLine(tr("Save {what} as", what=what), value=f"{stem}.log", hint=hint))
        if name is None:
            return
        path = _path_of(name)
        try:
            try:
                size = await asyncio.to_thread(export.write_text, path, text)
            except export.FileIsThere:
                question = Question(
                    tr("Overwrite {path}?", path=path), (tr("A file of that name is there."),), tr("Yes, overwrite it")
                )
                if await self.app.push_screen_wait(question) is None:
                    self.post_message(Said(tr("{path} was left as it is", path=path)))
                    return
                size = await asyncio.to_thread(export.write_text, path, text, overwrite=True)
        except LcqError as error:
            self.post_message(Said(tr("not saved: {error}", error=retold_error(error)), good=False))
        else:
            self.post_message(
                Said(
                    tr("saved {what} in {path} ({size:,} bytes, yours alone to read)", what=what, path=path, size=size)
                )
            )


def _path_of(name: str) -> Path:
    return Path(name).expanduser().resolve()

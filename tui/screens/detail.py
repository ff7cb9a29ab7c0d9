"""All about one task, and all about one queue or node: text in sections, read with the keys of a reader."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import ClassVar

from textual import work
from textual.binding import BindingType
from textual.containers import VerticalScroll
from textual.widget import Widget
from textual.widgets import Static

from lcq.errors import LcqError, TaskNotFound
from lcq.lang import N, retold, tr
from lcq.models import Attempt, Event, JobSummary, Privacy, TaskRecord, TaskStatus
from lcq.moments import told_moment
from lcq.reasons import Why
from lcq.spend import MILLION
from tui.columns import Tone, deadline_cell, last_word, most_attempts, state_cell
from tui.commands import Scope, bindings_of
from tui.desk import Desk
from tui.screens.base import ConsoleScreen, Said
from tui.screens.task_acts import TaskActs
from tui.screens.tasks import short_name
from tui.source import TROUBLES, trouble_of
from tui.store import RowT, TaskRow, task_row
from tui.text import clean, clean_block, fit, hanging, long_span, money, span, stamp, wrapped
from tui.view import View
from tui.widgets.frame import TONE_STYLE, OneLine, Part, width_of
from tui.widgets.picture import PictureStrip

_AGAIN_S = 1.0  # the history is read again at most so often
_WHY_AGAIN_S = 2.0  # why a task waits may change although nothing happens to it
_LABEL = 16
_LOG_LINES = 20  # the newest of each attempt

Piece = tuple[str, str]  # text and style


def fact(label: str, value: str, style: str = "", *, width: int = 0) -> list[Piece]:
    """A line ``label value``; nothing where there is no value. ``width``: of the screen, in which a long value goes on
    below its beginning; 0: it is short."""
    if not value:
        return []
    lines = wrapped(clean(value), width - _LABEL - 6) if width else [clean(value)]
    told = ("\n" + " " * (_LABEL + 4)).join(lines)
    return [(f"  {fit(tr(label), _LABEL)}  ", "$text-muted"), (f"{told}\n", style)]


def place_told(view: View[RowT], row_id: str) -> str:
    """Which of how many rows that is, in the order in which they are looked at; "" where it is not among them."""
    place = view.index_of(row_id)
    return tr("{place:,} of {total:,}", place=place + 1, total=len(view)) if place is not None else ""


@dataclass(frozen=True)
class History:
    """What Redis says about one task."""

    record: TaskRecord
    attempts: tuple[Attempt, ...]
    events: tuple[Event, ...]


def is_paid(history: History) -> bool:
    """Whether a function was paid for one of its attempts, or may be."""
    return any(attempt.spend is not None for attempt in history.attempts)


class Reading(ConsoleScreen):
    """A screen to scroll through with the keys of a reader."""

    BINDINGS: ClassVar[list[BindingType]] = [*bindings_of(Scope.READING)]
    _scroll: VerticalScroll

    def action_line_down(self) -> None:
        self._scroll.scroll_relative(y=1, animate=False)

    def action_line_up(self) -> None:
        self._scroll.scroll_relative(y=-1, animate=False)

    def action_to_top(self) -> None:
        self._scroll.scroll_home(animate=False)

    def action_to_end(self) -> None:
        self._scroll.scroll_end(animate=False)

    def action_half_screen_down(self) -> None:
        self._scroll.scroll_relative(y=max(1, self._scroll.size.height // 2), animate=False)

    def action_half_screen_up(self) -> None:
        self._scroll.scroll_relative(y=-max(1, self._scroll.size.height // 2), animate=False)


class SectionsScreen(Reading):
    """A screen of text sections to scroll through."""

    SCOPES: ClassVar[tuple[Scope, ...]] = (Scope.EVERYWHERE, Scope.READING)
    SECTIONS: ClassVar[tuple[str, ...]] = ()
    AUTO_FOCUS = None

    def __init__(self, desk: Desk) -> None:
        super().__init__(desk)
        self._sections = {name: Static(id=f"section-{name}", classes="section", markup=False) for name in self.SECTIONS}
        for name in self.SECTIONS[1:]:
            self._sections[name].display = False  # until there is something to say
        self._scroll = VerticalScroll(*self._sections.values(), id="sections", can_focus=False)

    def compose_body(self) -> Iterable[Widget]:
        yield self._scroll

    def show_section(self, name: str, pieces: Sequence[Piece]) -> None:
        """Put ``pieces`` into a section; an empty one takes no room."""
        section = self._sections[name]
        content = hanging(pieces, self.size.width - 1).rstrip("\n")  # a scroll bar may stand beside it
        section.display = bool(pieces)
        if section.content != content:
            section.update(content)


class ReadingScreen(SectionsScreen):
    """Sections with tabs, all about one row of a list."""

    BINDINGS: ClassVar[list[BindingType]] = [*bindings_of(Scope.DETAIL)]
    SCOPES: ClassVar[tuple[Scope, ...]] = (Scope.EVERYWHERE, Scope.READING, Scope.DETAIL)
    TABS: ClassVar[Mapping[str, str]] = {}
    """Which sections have a tab, and what it says."""

    def __init__(self, desk: Desk) -> None:
        super().__init__(desk)
        self._tab_line = OneLine(id="tabs")
        self._went_to = ("", 0)  # the section that was asked for last, and how far down that led

    def compose_body(self) -> Iterable[Widget]:
        if self.TABS:
            yield self._tab_line
        yield self._scroll

    def on_mount(self) -> None:
        super().on_mount()
        self.watch(self._scroll, "scroll_y", self._show_tabs, init=False)

    def show_news(self) -> None:
        super().show_news()
        self._show_tabs()

    # ------------------------------------------------------------ from section to section

    def part(self, name: str) -> Widget:
        """What is shown of the section of that name."""
        return self._sections[name]

    def tab_counts(self) -> Mapping[str, int]:
        """How many there are of what is told in a section, where that is worth a number in its tab."""
        return {}

    def place_in_list(self) -> str:
        """Which of how many this is, in the list that it was opened from; "" where it is in none."""
        return ""

    def _tops(self) -> dict[str, int]:
        """How far down each section with a tab begins that has something to say."""
        shown = [name for name in self.TABS or self._sections if self.part(name).display]
        return {name: round(self.part(name).virtual_region.y) for name in shown}

    @property
    def _section_here(self) -> str:
        """The section that was asked for, as long as nobody scrolls on; else the one at the top."""
        here, tops = round(self._scroll.scroll_y), self._tops()
        name, at = self._went_to
        if name in tops and at == here:
            return name
        passed = [name for name, top in tops.items() if top <= here] if here > 0 else []
        return passed[-1] if passed else next(iter(tops), "")

    def _show_tabs(self) -> None:
        if not self.TABS or not self.is_attached:
            return
        here, counts = self._section_here, self.tab_counts()
        parts = []
        for name in self._tops():
            count = f" ({counts[name]:,})" if counts.get(name) else ""
            title = f"{tr(self.TABS[name])}{count}"
            told, style = (f"[{title}]", "bold $text-primary") if name == here else (f" {title} ", "$foreground")
            parts.append(Part(told, style, f"go_to_section('{name}')"))
        place = self.place_in_list()
        ways = [Part(f"  {place}  ", "$text-muted"), Part("{", "bold $text-primary", "previous_row"), Part(" "),
                Part("}", "bold $text-primary", "next_row"), Part(" ")]  # fmt: skip
        room = self.size.width - width_of(parts)
        self._tab_line.show(parts, ways if place and width_of(ways) <= room else ())

    def action_go_to_section(self, name: str) -> None:
        top = self._tops().get(name)
        if top is not None:
            there = min(top, self._scroll.max_scroll_y)
            self._went_to = (name, there)
            self._scroll.scroll_to(y=there, animate=False, immediate=True)
            self._show_tabs()

    def _step_section(self, step: int) -> None:
        names = list(self._tops())
        if names:
            here = self._section_here
            self.action_go_to_section(names[(names.index(here) + step) % len(names) if here in names else 0])

    def action_next_section(self) -> None:
        self._step_section(1)

    def action_previous_section(self) -> None:
        self._step_section(-1)


class TaskScreen(ReadingScreen, TaskActs):
    """One task: what it is, why it is where it is, its attempts and its events."""

    MODE = "tasks"
    BINDINGS: ClassVar[list[BindingType]] = [*bindings_of(Scope.ABOUT)]
    SCOPES: ClassVar[tuple[Scope, ...]] = (
        Scope.EVERYWHERE,
        Scope.READING,
        Scope.DETAIL,
        Scope.ABOUT,
        Scope.TASKS,
    )
    SECTIONS = ("head", "why", "notes", "job", "life", "attempts", "log", "task", "events", "raw")
    TABS: ClassVar[Mapping[str, str]] = {
        "head": N("Overview"), "images": N("Images"), "attempts": N("Attempts"), "log": N("Log"), "task": N("Files"),
        "events": N("Events"), "raw": N("Raw"),
    }  # fmt: skip

    _OF_HISTORY = ("notes", "life", "attempts", "log", "task", "events", "raw")

    def __init__(self, desk: Desk, task_id: str) -> None:
        super().__init__(desk)
        self.task_id = task_id
        self._history: History | None = None
        self._trouble_text = ""
        self._read_state: tuple[int, int] | None = None  # its revision, and how many notes it had
        self._read_at = 0.0
        self._raw_of: tuple[tuple[TaskRecord, int], list[Piece]] | None = None  # of which record, how wide; its lines
        self._reason: Why | None = None
        self._asked: tuple[str, int] | None = None  # of which task, at which revision, the reason was asked last
        self._asked_at = 0.0
        self._is_asked = False  # nobody has told yet why it is as it is now
        self._images = PictureStrip(desk, facts=False, id="images")
        self._job: JobSummary | None = None  # the task's, as the scheduler told of it last
        self._job_at = 0.0

    def on_mount(self) -> None:
        self._scroll.mount(self._images, after=self._sections["job"])
        super().on_mount()

    def part(self, name: str) -> Widget:
        return self._images if name == "images" else super().part(name)

    def tab_counts(self) -> Mapping[str, int]:
        history = self._history
        return {} if history is None else {"attempts": len(history.attempts), "events": len(history.events)}

    def place_in_list(self) -> str:
        return place_told(self.desk.tasks, self.task_id)

    @property
    def crumb(self) -> str:
        return self.task_id

    @property
    def row(self) -> TaskRow | None:
        """The task as the store knows it, or as its record was read last."""
        known = self.desk.store.tasks.rows.get(self.task_id)
        if known is None and self._history is not None:
            return task_row(self._history.record)
        return known

    def on_unmount(self) -> None:
        if self.desk.open_task == self.task_id:
            self.desk.open_task = ""

    def show_task(self, task_id: str) -> None:
        """Show another task in this screen's place."""
        self.task_id = task_id
        self._history, self._trouble_text, self._read_state = None, "", None
        self._reason, self._asked, self._is_asked = None, None, False
        self._job, self._job_at = None, 0.0
        self._scroll.scroll_home(animate=False)
        self.show_news()

    # ------------------------------------------------------------ reading

    def show_news(self) -> None:
        super().show_news()
        self.desk.open_task = self.task_id
        row = self.desk.store.tasks.rows.get(self.task_id)
        revision = row.revision if row is not None else -1
        seen = (revision, row.notes if row is not None else 0)
        if seen != self._read_state and time.monotonic() - self._read_at > _AGAIN_S:
            self._read_state, self._read_at = seen, time.monotonic()
            self._read()
        due = row is not None and not row.status.is_terminal and time.monotonic() - self._asked_at > _WHY_AGAIN_S
        if row is not None and (due or self._asked != (self.task_id, revision)):
            if self._asked != (self.task_id, revision):
                self._reason, self._is_asked = None, True  # what was said of another state is not shown
            self._asked, self._asked_at = (self.task_id, revision), time.monotonic()
            self._ask_why()
        if self.row is not None and self.row.job and time.monotonic() - self._job_at > _WHY_AGAIN_S:
            self._job_at = time.monotonic()
            self._ask_job(self.row.job)
        self._show_sections()

    @work(exclusive=True, group="job")
    async def _ask_job(self, name: str) -> None:
        task_id, found = self.task_id, None
        try:
            found = next(iter(await self.desk.commander.jobs(name)), None)
        except (LcqError, OSError, TimeoutError):
            pass  # what was said before is old by now, and not shown
        if task_id == self.task_id:
            self._job = found
            self._show_sections()

    @work(exclusive=True, group="why")
    async def _ask_why(self) -> None:
        task_id, asked = self.task_id, self._asked
        reason = None
        with contextlib.suppress(LcqError, OSError, TimeoutError):  # an older scheduler, or none: as the record says
            reason = await self.desk.commander.why(task_id)
        if (task_id, asked) == (self.task_id, self._asked):
            self._reason, self._is_asked = reason or self._reason, False
            self._show_sections()

    @work(exclusive=True, group="history")
    async def _read(self) -> None:
        task_id = self.task_id
        try:
            record = await self.desk.reader.task(task_id)
            attempts = await self.desk.reader.attempts(task_id)
            events = await self.desk.reader.task_events(record, limit=200)
        except TaskNotFound as gone:
            self._trouble_text = str(gone)
        except (LcqError, OSError, TimeoutError) as error:
            self._trouble_text = tr("its history cannot be read now: {error}", error=trouble_of(error))
            self._read_state = None
        else:
            self._history = History(record, tuple(attempts), tuple(events))
            if is_paid(self._history):
                with contextlib.suppress(*TROUBLES):  # then it is told without its currency
                    await self.desk.purse.ask()
            self._trouble_text = ""
        if task_id == self.task_id:
            self._show_sections()

    # ------------------------------------------------------------ sections

    def _show_sections(self) -> None:
        row = self.row
        if row is None:
            text = self._trouble_text or tr("reading …")
            self.show_section("head", [(f" {clean(text)}", "bold")])
            return
        self._images.look_at(row)
        self.show_section("head", self._head(row))
        self.show_section("why", self._why(row))
        self.show_section("job", self._of_job(self._job) if self._job is not None else [])
        history = self._history
        if history is None:
            for name in self._OF_HISTORY:  # what stands there may be another task's
                self.show_section(name, [])
            return
        self.show_section("notes", self._notes(history.record))
        self.show_section("life", self._life(history))
        self.show_section("attempts", self._attempts(history))
        self.show_section("log", self._log(history))
        self.show_section("task", self._files(history.record))
        self.show_section("events", self._events(history))
        self.show_section("raw", self._raw(history.record))

    def _head(self, row: TaskRow) -> list[Piece]:
        word, tone = state_cell(row.status)
        now = self.desk.link.now_ms
        pieces: list[Piece] = [(f" {word}", TONE_STYLE[tone]), (f"  {short_name(row)}\n", "bold")]
        if row.status is TaskStatus.PROCESSING:
            pieces += fact("progress", f"{int(row.progress * 100)}%  {row.stage}", TONE_STYLE["run"])
        tries = tr("{attempt} of {max_attempts}", attempt=row.attempt, max_attempts=most_attempts(row))
        place = row.queue + (tr(", pinned to {pinned}", pinned=row.pinned) if row.pinned else "")
        pieces += fact(
            "queue",
            tr("{place}   priority {priority}   try {tries}", place=place, priority=tr(row.priority), tries=tries),
        )
        pieces += fact(
            "model",
            tr("{model}   user {user}", model=row.model, user=row.user)
            + (tr("   job {job}", job=row.job) if row.job else ""),
        )
        where = row.node + (f", {self.desk.store.device_called(row.node, row.device)}" if row.device else "")
        pieces += fact("node", where)
        pieces += self._cost()
        sent = tr("{submitted}, {now} ago", submitted=stamp(row.submitted_ms), now=span(now - row.submitted_ms))
        if row.started_ms:
            sent += tr("   started {at}", at=stamp(row.started_ms))
        if row.finished_ms:
            sent += tr("   ended {at}", at=stamp(row.finished_ms))
        pieces += fact("submitted", sent)
        if row.due_ms and row.status is TaskStatus.PENDING:
            pieces += fact("due", tr("{due}, in {due2}", due=stamp(row.due_ms), due2=span(row.due_ms - now)))
        return pieces

    def _cost(self) -> list[Piece]:
        """What functions were paid for it; nothing where none was."""
        if self._history is None or not is_paid(self._history):
            return []
        from tui.spending import task_cost  # here: most tasks cost nothing

        told, tone = task_cost(self._history.attempts, self.desk.purse.currency)
        return fact("cost", told, TONE_STYLE[tone], width=self.size.width)

    def _why(self, row: TaskRow) -> list[Piece]:
        text, tone = last_word(row, self.desk.link.now_ms)
        pieces: list[Piece] = []
        failure = self._history.record.failure if self._history is not None else None
        if row.status is TaskStatus.FAILED and failure is not None:
            pieces.append(
                (
                    tr(" Error: {error_class}, {code}\n", error_class=tr(failure.error_class), code=failure.code),
                    TONE_STYLE["bad"],
                )
            )
            pieces += [self._indented(line, "") for line in clean_block(retold(failure.message)).splitlines()]
        elif self._reason is not None:
            pieces += [
                (tr(" Why it is here\n"), "bold $text-primary"),
                self._indented(clean(retold(self._reason.text)), TONE_STYLE[tone]),
            ]
            text = self._reason.text
            if self._reason.hint:
                hint = clean(retold(self._reason.hint).replace("ID", self.task_id))
                pieces.append(self._indented(hint, "$text-muted"))
        elif text:
            pieces += [(tr(" Why it is here\n"), "bold $text-primary"), self._indented(text, TONE_STYLE[tone])]
        elif self._is_asked:
            asking = tr("the scheduler is asked …")
            pieces += [(tr(" Why it is here\n"), "bold $text-primary"), self._indented(asking, "$text-muted")]
        if row.why and row.why not in text and retold(row.why) not in text:
            why = retold(row.why)  # of who changed its priority or deadline it says no more than "by maria"
            pieces.append(self._indented(tr("changed {why}", why=why) if row.why.startswith("by ") else why, ""))
        if self._trouble_text:
            pieces.append(self._indented(clean(self._trouble_text), TONE_STYLE["warn"]))
        return pieces

    def _indented(self, text: str, style: str) -> Piece:
        """``text`` with every line of it two cells in, so that none begins where the next heading would."""
        return "".join(f"  {line}\n" for line in wrapped(text, self.size.width - 6)), style

    @staticmethod
    def _of_job(job: JobSummary) -> list[Piece]:
        """The task's job: whether it is paused, by whom and why; how far it is, and when it is likely to be done."""
        done = job.counts.get(TaskStatus.COMPLETED, 0)
        share = 100 * (job.total - job.unfinished) // max(1, job.total)
        parts = [tr("{done:,} of {total:,} done", done=done, total=job.total)]
        parts += [
            f"{count:,} {tr(status)}"
            for status in (TaskStatus.FAILED, TaskStatus.CANCELLED, TaskStatus.PROCESSING)
            if (count := job.counts.get(status, 0))
        ]
        parts += [tr("{unfinished:,} left", unfinished=job.unfinished)] if job.unfinished else []
        pieces: list[Piece] = [(tr(" Job {name}\n", name=clean(job.name)), "bold $text-primary")]
        if job.paused:
            pieces += fact("state", tr("PAUSED {paused}", paused=job.paused), TONE_STYLE["warn"])
        else:
            pieces += fact("state", tr("at work") if job.unfinished else tr("ended"))
        pieces += fact("progress", f"{share}%: {', '.join(parts)}")
        eta = job.eta
        if eta is not None and eta.p50_s is not None and eta.p90_s is not None:
            times = f"{long_span(eta.p50_s * 1000)} (P50), {long_span(eta.p90_s * 1000)} (P90)"
            pieces += fact("likely done in", tr("{told}, a guess", told=times) if eta.guessed else times)
        elif eta is not None and not job.paused:
            pieces += fact("waits", retold(eta.why), TONE_STYLE["warn"])
        return pieces

    def _life(self, history: History) -> list[Piece]:
        """The attempts along the task's life: dots for waiting, equals signs for work."""
        begin = history.record.submitted_ms
        end = max([self.desk.link.now_ms if not history.record.status.is_terminal else begin + 1]
                  + [attempt.ended_ms or begin for attempt in history.attempts]
                  + [history.record.finished_ms or begin])  # fmt: skip
        if not history.attempts or end <= begin:
            return []
        room = max(10, self.size.width - 44)
        scale = room / (end - begin)
        took = long_span(end - begin)
        pieces: list[Piece] = [(tr(" Life of the task: {took}\n", took=took), "bold $text-primary")]
        tones: dict[str, Tone] = {"#": "good", "x": "bad", ">": "run"}
        waited = begin
        for attempt in history.attempts:
            ended = attempt.ended_ms or end
            first, last = int((attempt.started_ms - begin) * scale), int((ended - begin) * scale)
            dots = max(0, first - int((waited - begin) * scale))
            mark = {"running": ">", "completed": "#", "failed": "x"}.get(attempt.outcome, "-")
            before, work = " " * max(0, first - dots) + "." * dots, "=" * max(0, last - first - 1) + mark
            tone = TONE_STYLE[tones.get(mark, "plain")]
            pieces += [
                (f"  {fit(f'#{attempt.number} {clean(attempt.node)}', 22)} ", ""),
                (before, "$text-muted"),
                (fit(work, room + 1 - len(before)) + " ", tone),
                (f"{long_span(ended - attempt.started_ms)}\n", ""),
            ]
            waited = ended
        return pieces

    @staticmethod
    def _notes(record: TaskRecord) -> list[Piece]:
        """What people have said of it."""
        if not record.notes:
            return []
        pieces: list[Piece] = [(tr(" Notes ({count})\n", count=len(record.notes)), "bold $text-primary")]
        for note in record.notes:
            pieces.append((f"  {stamp(note.at_ms)}  {fit(clean(note.actor), 12)}", "bold"))
            pieces.append((f"{clean(note.text)}\n", ""))
        return pieces

    def _attempts(self, history: History) -> list[Piece]:
        missing = self._missing_attempts(history)
        if not history.attempts and not missing:
            return []
        pieces: list[Piece] = [(tr(" Attempts ({count})\n", count=len(history.attempts)), "bold $text-primary")]
        if missing:
            pieces.append(self._indented(missing, TONE_STYLE["warn"]))
        for attempt in history.attempts:
            took = (
                tr(", took {ended}", ended=long_span(attempt.ended_ms - attempt.started_ms)) if attempt.ended_ms else ""
            )
            called = self.desk.store.device_called(attempt.node, attempt.device)
            device = f", {called}" if called else ""
            pieces.append((f"  #{attempt.number} {fit(tr(clean(attempt.outcome)), 12)}", "bold"))
            paid = ""
            if attempt.spend is not None and attempt.ended_ms is not None:
                paid = tr(", paid {amount}", amount=money(attempt.spent / MILLION, self.desk.purse.currency))
            pieces.append((f"{clean(attempt.node + device)}, {stamp(attempt.started_ms)}{took}{paid}\n", ""))
            if attempt.failure is not None:
                message = clean(f"{attempt.failure.code}: {retold(attempt.failure.message)}")
                pieces.append((f"     {message}\n", TONE_STYLE["bad"]))
        return pieces

    def _missing_attempts(self, history: History) -> str:
        """What a replay does not know of the attempts: not all of what happens is recorded."""
        playback, record = self.desk.playback, history.record
        if playback is None or not record.attempt:
            return ""
        at_ms = playback.attempts_ms(self.task_id)
        if at_ms is None:
            return tr("they are not in the recording: nobody had looked at them by then")
        newest = history.attempts[-1] if history.attempts else None
        is_old = newest is None or newest.number < record.attempt
        if is_old or (newest is not None and newest.ended_ms is None and record.status is not TaskStatus.PROCESSING):
            return tr("as they were recorded at {at}; what came after that is not in the recording", at=stamp(at_ms))
        return ""

    def _files(self, record: TaskRecord) -> list[Piece]:
        width, task, result = self.size.width, record.task, record.result
        pieces: list[Piece] = [(tr(" Files and settings\n"), "bold $text-primary")]
        pieces += fact("image", task.image_path, width=width)
        pieces += fact("mask", task.mask_path or "", width=width)
        pieces += fact("output", task.output_path or "", width=width)
        if result is not None:
            size = tr(
                "{width}x{height}, {bytes:,} bytes, {seconds:.2f} s of work",
                width=result.width,
                height=result.height,
                bytes=result.bytes,
                seconds=result.seconds,
            )
            pieces += fact("result", result.path, TONE_STYLE["good"], width=width)
            pieces += fact("", tr("{size}, mask {mask_fraction:.1%}", size=size, mask_fraction=result.mask_fraction))
            pieces += fact("notes", "; ".join(result.notes), width=width)
        if task.privacy is Privacy.EXPORTABLE:
            pieces += fact("privacy", tr("exportable: its pictures may leave the house"))
        if task.deadline is not None:
            pieces += self._deadline(record, task.deadline)
        plain = task.model_dump(mode="json")
        for name in ("config", "metadata"):
            if plain[name]:
                pieces += fact(name, json.dumps(plain[name], ensure_ascii=False), width=width)
        pieces += fact(
            "limits",
            tr(
                "up to {max_retries} retries, time-out {timeout:g} s",
                max_retries=task.max_retries,
                timeout=task.timeout_s,
            ),
        )
        return pieces

    def _deadline(self, record: TaskRecord, deadline: datetime) -> list[Piece]:
        """Its deadline, and whether that is kept, as the list tells it."""
        told, tone = deadline_cell(task_row(record), self.desk.link.now_ms)
        return fact("deadline", f"{told_moment(deadline)}  {told}", TONE_STYLE[tone])

    @staticmethod
    def _events(history: History) -> list[Piece]:
        if not history.events:
            return []
        pieces: list[Piece] = [(tr(" Events ({count})\n", count=len(history.events)), "bold $text-primary")]
        for event in history.events:
            fields = event.fields
            said = [fields.get("status", ""), fields.get("node", ""), fields.get("queue", "")]
            more = fields.get("message") or fields.get("why", "")
            pieces.append((f"  {stamp(event.at_ms)}  {fit(clean(event.move), 17)}", "bold"))
            pieces.append((f"{clean('  '.join(filter(None, said)))}", ""))
            pieces.append((f"  {clean(more)}\n" if more else "\n", "$text-muted"))
        return pieces

    def _log(self, history: History) -> list[Piece]:
        """What its attempts wrote last; the whole log has a screen of its own."""
        told = [attempt for attempt in history.attempts if attempt.log]
        if not history.attempts:
            return []
        pieces: list[Piece] = [
            (tr(" Log"), "bold $text-primary"),
            (tr("   l: all that its node tells\n"), "$text-muted"),
        ]
        for attempt in told:
            pieces.append((f"  #{attempt.number} {clean(attempt.node)}\n", "bold"))
            lines = clean_block(attempt.log).splitlines()
            if len(lines) > _LOG_LINES:
                pieces.append((f"     {tr('{count} lines before', count=len(lines) - _LOG_LINES)}\n", "$text-muted"))
            pieces += [self._indented(line, "") for line in lines[-_LOG_LINES:]]
        return pieces

    def _raw(self, record: TaskRecord) -> list[Piece]:
        """The record as programs read it."""
        made_of = (record, self.size.width)
        if self._raw_of is None or self._raw_of[0] != made_of:
            text = json.dumps(record.model_dump(mode="json"), indent=2, ensure_ascii=False)
            lines = [self._indented(line, "") for line in clean_block(text).splitlines()]
            self._raw_of = (made_of, lines)
        return [(tr(" Raw\n"), "bold $text-primary"), *self._raw_of[1]]

    # ------------------------------------------------------------ commands

    def _step(self, steps: int) -> None:
        there = self.desk.step_from(self.task_id, steps)
        if there is None:
            self.post_message(Said(tr("there is no other task in that direction")))
        else:
            self.show_task(there)

    def action_next_row(self) -> None:
        self._step(1)

    def action_previous_row(self) -> None:
        self._step(-1)

    def action_copy_shown_id(self) -> None:
        self.app.copy_to_clipboard(self.task_id)
        self.post_message(
            Said(tr("sent {task_id} to the terminal's clipboard (inside tmux: set-clipboard on)", task_id=self.task_id))
        )

    def act_rows(self) -> list[TaskRow]:
        row = self.row
        return [row] if row is not None else []

    def action_open_tasks(self) -> None:
        row = self.row
        code = row.error.partition(":")[0] if row is not None else ""
        if row is not None and row.status is TaskStatus.FAILED and code:
            self.post_message(self.ModeWished("tasks", f"state:failed cause={code}"))
        else:
            self.post_message(Said(tr("it has not failed: there are no others of its cause")))

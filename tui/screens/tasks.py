"""The tasks: all of them, live, with what an operator may do to them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar

from textual import on
from textual.message import Message
from textual.widget import Widget

from lcq.lang import tr
from lcq.models import TaskStatus
from lcq.task_fields import whole_ids
from tui.columns import TASK_COLUMNS, TASK_LOOK, TASK_MORE, Tone, last_word
from tui.commands import Scope
from tui.desk import Desk
from tui.saved import state_of
from tui.screens.base import Said
from tui.screens.listing import ListScreen
from tui.screens.task_acts import TaskActs
from tui.store import TaskRow
from tui.text import basename, cells, compact, cut, cut_left
from tui.widgets.frame import TONE_STYLE, Part, width_of
from tui.widgets.head import FleetHead
from tui.widgets.picture import SHOWN_FROM, PictureStrip
from tui.widgets.table import LineTable


class TasksScreen(ListScreen[TaskRow], TaskActs):
    """Every task in the window, newest first."""

    MODE = "tasks"
    SCOPES: ClassVar[tuple[Scope, ...]] = (Scope.EVERYWHERE, Scope.TABLE, Scope.TASKS)

    @dataclass
    class DetailsWished(Message):
        """The operator wants to see all about this task."""

        task_id: str

    def __init__(self, desk: Desk) -> None:
        super().__init__(desk, desk.tasks, (*TASK_COLUMNS, *TASK_MORE))
        self._wide: tuple[str, int] | None = None  # filter and marks, when all that fit were marked
        self._head = FleetHead(always_panels=False, id="panels")
        self._strip = PictureStrip(desk, id="strip")

    def compose_body(self) -> Iterable[Widget]:
        yield self._head
        yield from super().compose_body()
        yield self._strip

    def show_news(self) -> None:
        self._head.show(self.desk.store, self.desk.link.now_ms, self.size.width, self.size.height)
        super().show_news()

    def _longest(self) -> dict[str, int]:
        store = self.desk.store
        names = {"queue": list(store.queues.rows), "node": list(store.nodes.rows)}
        return {column: max(map(cells, ids)) for column, ids in names.items() if ids}

    def on_resize(self) -> None:
        self._strip.display = self.size.width >= SHOWN_FROM[0] and self.size.height >= SHOWN_FROM[1]
        super().on_resize()

    def _show_lines(self) -> None:
        super()._show_lines()
        self._strip.look_at(self.view.cursor)

    # ------------------------------------------------------------ what is shown

    def _why_empty(self) -> str:
        found = self.view.filter
        named = whole_ids(found)
        if not (self.desk.link.loaded and named and len(found.clauses) == 1) or found.problem:
            return super()._why_empty()
        if not self.desk.older.is_done:
            return self.desk.older.told or tr("looking for it beyond the window …")
        if len(named) == 1:
            return tr("the cluster has forgotten it: esc shows the others")
        return tr("the cluster has forgotten all of them: esc shows the others")

    def counts(self) -> Sequence[Part]:
        """Chips, as long as the room allows: words with numbers, short numbers, only states that are, short words."""
        counts = self.desk.store.all_counts
        for whole_numbers, empty_ones, letters in (
            (True, True, 12), (False, True, 12), (False, False, 12), (False, True, 4), (False, True, 0),
        ):  # fmt: skip
            parts = [self._chip(tr("all"), sum(counts.values()), "", "plain", whole_numbers, letters)]
            parts += [
                self._chip(status, count, f"state:{status}", TASK_LOOK[status][1], whole_numbers, letters)
                for status, count in counts.items()
                if count or empty_ones or state_of(self.view.filter.text) == f"state:{status}"
            ]
            if width_of(parts) <= self.size.width:
                break
        return parts

    def _chip(self, word: str, count: int, filter_text: str, tone: Tone, whole_numbers: bool, letters: int) -> Part:
        number = f"{count:,}" if whole_numbers else compact(count)
        known = tr(word) if filter_text else word
        name = cut(known, letters) if letters else (TASK_LOOK[TaskStatus(word)][0] if filter_text else word)
        chosen = state_of(self.view.filter.text) == filter_text
        text = f"[{name} {number}]" if chosen else f" {name} {number} "
        return Part(text, TONE_STYLE[tone if count else "dim"], f"filter_by('{filter_text}')")

    def states(self) -> Sequence[str]:
        return ("", *(f"state:{status}" for status in TaskStatus))

    def nothing(self) -> str:
        return tr("no tasks yet: s submits one")

    def about(self, row: TaskRow) -> Sequence[Part]:
        failed = row.status is TaskStatus.FAILED  # then its picture's path is not told twice
        word, tone = last_word(row, self.desk.link.now_ms, in_full=not failed)
        head = f" {row.id} "
        facts = f"{row.model}  {row.user}" + (tr("  job {job}", job=row.job) if row.job else "")
        if row.pinned:
            facts += tr("  pinned to {pinned}", pinned=row.pinned)
        room = max(10, self.size.width - cells(head) - cells(facts) - 6)
        word = cut(word, room * 2 // 3)
        path = cut_left(row.image, max(8, room - cells(word)))
        return (
            Part(head, "bold $text-primary"), Part(f"{path}  ", "$foreground"), Part(f"{facts}  ", "$text-muted"),
            Part(word, TONE_STYLE[tone]),
        )  # fmt: skip

    # ------------------------------------------------------------ commands

    @on(LineTable.Opened)
    @on(LineTable.Described)
    def _open(self, wish: LineTable.Opened | LineTable.Described) -> None:
        self.post_message(self.DetailsWished(wish.row_id))

    def act_rows(self) -> list[TaskRow]:
        return self.view.targets()

    @property
    def row_here(self) -> TaskRow | None:
        return self.view.cursor

    @property
    def unsure(self) -> bool:
        return self.view.follow or self.view.hidden_marks > 0

    @property
    def wide_filter(self) -> str | None:
        """The filter of which all is meant, also what the window does not hold."""
        return self.view.filter.text if self._wide == (self.view.filter.text, len(self.view.marks)) else None

    @on(LineTable.AllMarked)
    def _all_marked(self) -> None:
        if self.view.marks and self.desk.store.beyond:
            self._wide = (self.view.filter.text, len(self.view.marks))
            self.post_message(Said(tr("all that fit are meant, also those beyond the window; esc clears that")))


def short_name(row: TaskRow) -> str:
    """The task as it is called in a title."""
    return f"{row.id} {basename(row.image)}"

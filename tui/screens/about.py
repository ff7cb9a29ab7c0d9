"""All about one row of a list: what the details of a node, a queue and a cause have in common."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import ClassVar, Generic

from textual.binding import BindingType
from textual.containers import VerticalScroll
from textual.widget import Widget

from lcq.lang import tr
from lcq.models import TaskStatus
from tui.charts import Graph
from tui.columns import last_word, state_cell
from tui.commands import Scope, bindings_of
from tui.desk import Desk
from tui.screens.base import Said
from tui.screens.detail import Piece, ReadingScreen, place_told
from tui.store import RowT, TaskRow
from tui.text import basename, clean, cut, fit, span
from tui.view import View
from tui.widgets.chart import Chart
from tui.widgets.frame import TONE_STYLE

_LOOK_AGAIN_S = 1.0  # through all tasks, for those of this row


class AboutScreen(ReadingScreen, Generic[RowT]):
    """Kept up to date, with plots between its first section and the others."""

    BINDINGS: ClassVar[list[BindingType]] = [*bindings_of(Scope.ABOUT)]
    SECTIONS: ClassVar[tuple[str, ...]] = ("head", "more", "tasks")
    NOUN = "row"

    def __init__(self, desk: Desk, view: View[RowT], row_id: str) -> None:
        super().__init__(desk)
        self.view, self.row_id = view, row_id
        self.charts: list[Chart] = []
        self._looked_at = 0.0
        self._tasks: list[TaskRow] = []
        head, *others = self._sections.values()
        self._scroll = VerticalScroll(head, *self.compose_charts(), *others, id="sections", can_focus=False)

    def compose_charts(self) -> Iterable[Widget]:
        """The plots; ``self.charts`` holds those that ``show_graphs`` fills."""
        return ()

    @property
    def crumb(self) -> str:
        return self.row_id

    @property
    def row(self) -> RowT | None:
        return self.view.row(self.row_id)

    def place_in_list(self) -> str:
        return place_told(self.view, self.row_id)

    def show_news(self) -> None:
        super().show_news()
        row = self.row
        if row is None:
            self.show_section(
                "head",
                [
                    (
                        tr(
                            " {noun} {row_id} is gone: the cluster has forgotten it",
                            noun=tr(self.NOUN),
                            row_id=self.row_id,
                        ),
                        "bold",
                    )
                ],
            )
            for name in self.SECTIONS[1:]:
                self.show_section(name, [])
        else:
            self.show_row(row)

    def show_row(self, row: RowT) -> None:
        """Show all about ``row``."""

    def show_graphs(self, graphs: Iterable[Graph]) -> None:
        for chart, graph in zip(self.charts, graphs, strict=False):
            chart.show(graph)

    # ------------------------------------------------------------ its tasks

    def is_mine(self, task: TaskRow) -> bool:
        """Whether a task is to be told of here."""
        return False

    @property
    def tasks(self) -> list[TaskRow]:
        """Those that are told of here, as they were a second ago at most; the newest first."""
        if time.monotonic() - self._looked_at > _LOOK_AGAIN_S:
            self._looked_at = time.monotonic()
            found = [task for task in self.desk.store.tasks.rows.values() if self.is_mine(task)]
            self._tasks = sorted(found, key=lambda task: -task.updated_ms)
        return self._tasks

    def listed(self, title: str, tasks: list[TaskRow], most: int) -> list[Piece]:
        """A few tasks, a line each."""
        if not tasks:
            return []
        now = self.desk.link.now_ms
        pieces: list[Piece] = [(f" {title} ({len(tasks):,})\n", "bold $text-primary")]
        for task in tasks[:most]:
            state, tone = state_cell(task.status)
            done = f"{int(task.progress * 100)}%" if task.status is TaskStatus.PROCESSING else ""
            word = last_word(task, now)[0]
            name = max(8, min(24, self.size.width // 4))
            room = max(0, self.size.width - 46 - name)  # what is left beside the columns, and a scroll bar
            pieces += [
                (f"  {task.id} ", ""),
                (fit(state, 13), TONE_STYLE[tone]),
                (f"{fit(done, 4, right=True)} {fit(span(now - task.updated_ms), 4, right=True)}  ", "$text-muted"),
                (f"{fit(basename(task.image), name)} {cut(clean(word), room)}\n", ""),
            ]
        if len(tasks) > most:
            pieces.append((tr("  … {count:,} more: enter shows all\n", count=len(tasks) - most), "$text-muted"))
        return pieces

    # ------------------------------------------------------------ commands

    def show_other(self, row_id: str) -> None:
        """Show another row in this one's place."""
        self.row_id = row_id
        self._looked_at = 0.0
        self._scroll.scroll_home(animate=False)
        self.show_news()

    def _step(self, steps: int) -> None:
        here = self.view.index_of(self.row_id)
        there = self.view.row_at(here + steps) if here is not None else None
        if here is None or there is None:
            self.post_message(Said(tr("there is no other in that direction")))
        else:
            self.view.move_to(here + steps)
            self.show_other(there.id)

    def action_open_tasks(self) -> None:
        """Go to its tasks."""

    def action_next_row(self) -> None:
        self._step(1)

    def action_previous_row(self) -> None:
        self._step(-1)

    def action_copy_shown_id(self) -> None:
        self.app.copy_to_clipboard(self.row_id)
        self.post_message(
            Said(tr("sent {row_id} to the terminal's clipboard (inside tmux: set-clipboard on)", row_id=self.row_id))
        )

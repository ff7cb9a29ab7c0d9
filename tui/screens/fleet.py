"""The fleet at a glance: four panels, and one line a node."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterable, Sequence

from textual.containers import Horizontal, Vertical
from textual.widget import Widget

from lcq.models import TaskStatus
from tui.columns import fleet_columns
from tui.desk import Desk
from tui.fleet import PANEL_LINES, panels
from tui.screens.nodes import NodesScreen
from tui.text import basename, fit
from tui.widgets.frame import TONE_STYLE, OneLine, Part

_LOOK_AGAIN_S = 1.0  # through all tasks, for what each node works on
_NARROW = 72  # below that, two panels


class FleetScreen(NodesScreen):
    """What is there, what gets done, what waits, what needs a person; and every node on a line."""

    MODE = "fleet"

    def __init__(self, desk: Desk) -> None:
        super().__init__(desk, fleet_columns(self._now_running))
        self._panel_lines = [OneLine(classes="panel") for _ in range(PANEL_LINES + 1)]
        self._works_on: dict[str, list[str]] = {}
        self._last_look = 0.0

    def compose_body(self) -> Iterable[Widget]:
        yield Vertical(*self._panel_lines, id="panels")
        yield Horizontal(self._found_line, self._filter_field, self._status_line, id="filterline")
        yield self.table
        yield self._cursor_line

    def show_news(self) -> None:
        if time.monotonic() - self._last_look > _LOOK_AGAIN_S:
            self._last_look = time.monotonic()
            running: dict[str, list[str]] = defaultdict(list)
            for row in self.desk.store.tasks.rows.values():
                if row.status is TaskStatus.PROCESSING:
                    running[row.node].append(basename(row.image))
            self._works_on = running
        super().show_news()
        self._show_panels()

    def _now_running(self, node: str) -> str:
        return "  ".join(self._works_on.get(node, ()))

    def _show_panels(self) -> None:
        width = self.size.width
        shown = 4 if width >= _NARROW else 2
        each = max(8, (width - 1) // shown - 2)
        all_of_them = panels(self.desk.store, self.desk.link.now_ms, each)
        chosen = all_of_them if shown == 4 else (all_of_them[0], all_of_them[3])
        head: list[Part] = []
        rows: list[list[Part]] = [[] for _ in range(PANEL_LINES)]
        for panel in chosen:
            head.append(Part(f" {fit(panel.title, each)} ", "bold $text-secondary"))
            for place, row in enumerate(rows):
                line = panel.lines[place] if place < len(panel.lines) else None
                row.append(
                    Part(f" {fit(line.text if line else '', each)} ", TONE_STYLE[line.tone if line else "plain"])
                )
        for widget, parts in zip(self._panel_lines, (head, *rows), strict=True):
            widget.show(parts)

    def counts(self) -> Sequence[Part]:
        return ()

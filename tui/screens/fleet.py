"""The fleet at a glance: four panels, and one line a node."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterable, Sequence

from textual import on
from textual.containers import Horizontal
from textual.widget import Widget

from lcq.models import TaskStatus
from tui.columns import fleet_columns
from tui.desk import Desk
from tui.screens.nodes import NodesScreen
from tui.text import basename
from tui.widgets.devices import DeviceLines
from tui.widgets.frame import Part
from tui.widgets.head import FleetHead
from tui.widgets.heat import HeatMap

_AROUND = 7  # lines of the screen that are neither nodes nor devices nor panels: title, filter, head, keys
_LEAST_ROOM = 4
_LOOK_AGAIN_S = 1.0  # through all tasks, for what each node works on


class FleetScreen(NodesScreen):
    """What is there, what gets done, what waits, what needs a person; and every node on a line."""

    MODE = "fleet"

    def __init__(self, desk: Desk) -> None:
        super().__init__(desk, fleet_columns(self._now_running))
        self._head = FleetHead(always_panels=True, id="panels")
        self._devices = DeviceLines(id="devices")
        self._map = HeatMap(id="map")
        self._works_on: dict[str, list[str]] = {}
        self._last_look = 0.0

    def compose_body(self) -> Iterable[Widget]:
        yield self._head
        yield self._map
        yield Horizontal(self._found_line, self._filter_field, self._status_line, id="filterline")
        yield self.table
        yield self._devices
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
        self._head.show(self.desk.store, self.desk.link.now_ms, self.size.width, self.size.height)
        self._show_map()
        around = _AROUND + FleetHead.panel_lines(self.size.width, self.size.height) + self._map.shown_lines
        room = self.size.height - len(self.view) - around
        nodes = (self.view.row_at(place) for place in range(len(self.view))) if room >= _LEAST_ROOM else ()
        self._devices.show([node for node in nodes if node is not None], self.size.width, room)

    def _show_map(self) -> None:
        nodes = [node for place in range(len(self.view)) if (node := self.view.row_at(place)) is not None]
        self._map.show(nodes, self.size.width, self.size.height, here=self.view.cursor_id)

    def _show_lines(self) -> None:
        super()._show_lines()
        if self._map.display:  # the cursor has moved on it as well
            self._show_map()

    @on(HeatMap.Chosen)
    def _go_to(self, chosen: HeatMap.Chosen) -> None:
        place = self.view.index_of(chosen.node)
        if place is not None:
            self.view.move_to(place)
            self.show_news()

    def _now_running(self, node: str) -> str:
        return "  ".join(self._works_on.get(node, ()))

    def counts(self) -> Sequence[Part]:
        return ()

"""The last hour as plots: what was done, what failed, what waits, how the devices are used."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

from textual.containers import Grid, VerticalScroll
from textual.widget import Widget

from lcq.lang import tr
from tui.charts import cluster_graphs
from tui.commands import Scope
from tui.desk import Desk
from tui.fleet import waiting_in
from tui.screens.detail import Reading
from tui.widgets.chart import Chart

_WIDE = 100  # from there on, two plots beside each other


class ChartsScreen(Reading):
    """The cluster's last hour, by minutes, as its schedulers have kept it."""

    SCOPES: ClassVar[tuple[Scope, ...]] = (Scope.EVERYWHERE, Scope.READING)
    AUTO_FOCUS = None
    COUNT = 4

    def __init__(self, desk: Desk, mode: str) -> None:
        super().__init__(desk)
        self.MODE = mode
        self._charts = [Chart(classes="chart") for _ in range(self.COUNT)]
        self._grid = Grid(*self._charts, id="charts")
        self._scroll = VerticalScroll(self._grid, id="sections", can_focus=False)

    def compose_body(self) -> Iterable[Widget]:
        yield self._scroll

    @property
    def crumb(self) -> str:
        return tr("Charts")

    def show_news(self) -> None:
        super().show_news()
        columns = 2 if self.size.width >= _WIDE else 1
        self._grid.set_class(columns == 2, "-wide")
        rows = -(-self.COUNT // columns)
        self._grid.styles.height = rows * max(8, (self.size.height - 3) // rows)
        store = self.desk.store
        for chart, graph in zip(self._charts, cluster_graphs(store.minutes, waiting_in(store)), strict=True):
            chart.show(graph)

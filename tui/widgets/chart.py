"""A plot on the screen: paints what tui/charts.py has made of it, in the theme's colours."""

from __future__ import annotations

from typing import ClassVar

from rich.segment import Segment
from rich.style import Style
from textual.strip import Strip
from textual.widget import Widget

from tui.charts import Graph, Piece, plot
from tui.text import clean
from tui.widgets.frame import TONE_STYLE


class Chart(Widget):
    """One graph, as large as it is given room."""

    ALLOW_SELECT = False
    COMPONENT_CLASSES: ClassVar[set[str]] = {f"chart--{tone}" for tone in TONE_STYLE}

    def __init__(self, *, id: str | None = None, classes: str | None = None) -> None:  # noqa: A002
        super().__init__(id=id, classes=classes)
        self._graph: Graph | None = None
        self._made: tuple[tuple[int, int], list[list[Piece]]] | None = None

    def show(self, graph: Graph) -> None:
        """Draw ``graph`` in place of what was drawn."""
        if graph != self._graph:
            self._graph, self._made = graph, None
            self.refresh()

    def notify_style_update(self) -> None:
        super().notify_style_update()
        self.refresh()

    def lines(self) -> list[list[Piece]]:
        """What it shows, in the room it has."""
        size = (self.size.width, self.size.height)
        if self._graph is None:
            return [[(" " * size[0], "plain")] for _ in range(size[1])]
        if self._made is None or self._made[0] != size:
            self._made = (size, plot(self._graph, *size))
        return self._made[1]

    def render_line(self, y: int) -> Strip:
        lines = self.lines()
        ground = self.rich_style
        pieces = lines[y] if y < len(lines) else []
        return Strip([Segment(clean(text), self._style(tone, ground)) for text, tone in pieces]).adjust_cell_length(
            self.size.width, ground
        )

    def _style(self, tone: str, ground: Style) -> Style:
        return ground + self.get_component_rich_style(f"chart--{tone}", partial=True)

"""The fleet above a table: four panels where there is room, one line where there is not, nothing where it is tiny."""

from __future__ import annotations

from collections.abc import Sequence

from textual.containers import Vertical

from tui.fleet import PANEL_LINES, Panel, panels, panels_over, summary
from tui.store import Store
from tui.text import cells, fit
from tui.widgets.frame import TONE_STYLE, OneLine, Part

_NARROW = 72  # below that, two panels
_TALL = 24  # lines from which on there is room for two panels below two others
_PAIRS = ((0, 3), (1, 2))  # the fleet beside what needs a person; below it what gets done and what waits
_WIDTHS_MS = 1500
_ROOMY = (100, 30)  # from there on a list of tasks has four panels above it


class FleetHead(Vertical):
    """What is there, what gets done, what waits, what needs a person."""

    def __init__(self, *, always_panels: bool, id: str | None = None) -> None:  # noqa: A002
        self._lines = [OneLine(classes="panel") for _ in range(2 * (PANEL_LINES + 1))]
        self._always_panels = always_panels
        self._widths: dict[tuple[int, ...], tuple[int, tuple[int, ...]]] = {}  # until when, and which
        super().__init__(*self._lines, id=id)

    @staticmethod
    def panel_lines(width: int, height: int) -> int:
        """How many lines the panels take in a screen of that size."""
        in_pairs = _NARROW <= width < _ROOMY[0] and height >= _TALL
        return (PANEL_LINES + 1) * (2 if in_pairs else 1)

    def show(self, store: Store, now_ms: int, width: int, height: int) -> None:
        """Show how things are, in a screen of that size."""
        if not self._always_panels and (width < _ROOMY[0] or height < _ROOMY[1]):
            lines = summary(store, now_ms, width - 1)
            told = [Part(f"{line.text}  ", TONE_STYLE[line.tone], "show_fleet") for line in lines]
            self._fill([[Part(" "), *told]])
        elif width < _NARROW:
            each = max(8, (width - 1) // 2 - 2)
            first, *_, last = panels(store, now_ms, each)
            self._fill(_rows([(first, each), (last, each)]))
        elif self.panel_lines(width, height) == PANEL_LINES + 1:
            self._fill(_rows(self._over(store, now_ms, width - 1 - 2 * 4, (0, 1, 2, 3))))
        else:  # two beside each other, and two below them: each has room for what it says
            room = width - 1 - 2 * 2
            self._fill([row for pair in _PAIRS for row in _rows(self._over(store, now_ms, room, pair))])

    def _over(self, store: Store, now_ms: int, width: int, places: Sequence[int]) -> list[tuple[Panel, int]]:
        """The panels; how wide each is, is worked out every other second: it takes as long as what they say."""
        asked = (width, *places)
        until_ms, given = self._widths.get(asked, (0, ()))
        found = panels_over(store, now_ms, width, places, given if now_ms < until_ms else ())
        if now_ms >= until_ms:
            self._widths[asked] = (now_ms + _WIDTHS_MS, tuple(each for _, each in found))
        return found

    def _fill(self, rows: list[list[Part]]) -> None:
        for place, widget in enumerate(self._lines):
            widget.display = place < len(rows)
            widget.show(rows[place] if place < len(rows) else ())


def _rows(chosen: Sequence[tuple[Panel, int]]) -> list[list[Part]]:
    """Panels beside each other, as lines."""
    rows: list[list[Part]] = [[] for _ in range(PANEL_LINES + 1)]
    for panel, each in chosen:
        rule = "─" * max(0, each - cells(panel.title) - 1)
        rows[0].append(Part(fit(f" {panel.title} {rule}", each + 2), "bold $text-secondary", "show_fleet"))
        for place, row in enumerate(rows[1:]):
            line = panel.lines[place] if place < len(panel.lines) else None
            tone = TONE_STYLE[line.tone if line else "plain"]
            row.append(Part(f" {fit(line.text if line else '', each)} ", tone))
    return rows

"""What functions cost: against the budget, by day, by user, by job; and the functions themselves."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from typing import ClassVar

from textual import work

from lcq.lang import tr
from lcq.spend import Spend
from tui.commands import Scope
from tui.desk import Desk
from tui.screens.detail import Piece, SectionsScreen
from tui.source import TROUBLES, trouble_of
from tui.spending import (
    DAYS,
    Line,
    Spending,
    cheapest,
    day_lines,
    function_lines,
    gauge_lines,
    gauges,
    job_lines,
    user_lines,
)
from tui.widgets.frame import TONE_STYLE

_EVERY_S = 5.0


class SpendScreen(SectionsScreen):
    """The books of functions, read while somebody looks at them."""

    MODE = "spend"
    SCOPES: ClassVar[tuple[Scope, ...]] = (Scope.EVERYWHERE, Scope.READING)
    SECTIONS = ("head", "functions", "days", "users", "jobs")

    def __init__(self, desk: Desk) -> None:
        super().__init__(desk)
        self._read_at = -_EVERY_S
        self._spend: Spend | None = None
        self._told: Spending | None = None
        self._trouble_text = ""
        self._no_limits = ""  # why no scheduler tells the budget

    def on_screen_resume(self) -> None:
        self.desk.view = self.MODE
        self._read_at = -_EVERY_S  # what stands here may be old
        super().on_screen_resume()

    def show_news(self) -> None:
        super().show_news()
        if time.monotonic() - self._read_at >= _EVERY_S and self.is_attached and not self.desk.tasks.frozen:
            self._read_at = time.monotonic()
            self._read()
        self._show_sections()

    @work(exclusive=True, group="spend")
    async def _read(self) -> None:
        reader, purse = self.desk.reader, self.desk.purse
        try:
            spend, days, jobs = await reader.spend(), await reader.spend_of_days(DAYS), await reader.spend_of_jobs()
        except TROUBLES as error:
            self._trouble_text = tr("what functions cost cannot be read now: {error}", error=trouble_of(error))
            self._show_sections()
            return
        self._trouble_text = ""
        try:
            await purse.ask()
        except TROUBLES as error:
            self._no_limits = tr("no scheduler tells what the budget is: {error}", error=trouble_of(error))
        else:
            self._no_limits = ""
        self._told = Spending(self.desk.link.now_ms, spend, days, jobs, purse.budget)
        self._show_sections()

    def _show_sections(self) -> None:
        told, width = self._told, self.size.width - 2
        trouble: list[Piece] = [(f"  {self._trouble_text}\n", TONE_STYLE["warn"])] if self._trouble_text else []
        if told is None:
            self.show_section("head", trouble or [(f" {tr('reading …')}", "bold")])
            return
        nodes = list(self.desk.store.nodes.rows.values())
        lines = gauge_lines(gauges(told, cheapest(nodes)), told.currency, width)
        if self._no_limits:
            lines.append([(f"  {self._no_limits}", "warn")])
        self.show_section("head", [*trouble, *_section(tr("Budget"), lines)])
        functions = function_lines(told, nodes, width)
        none: list[Line] = [[(tr("  none: no agent has agent.functions in its settings (docs/serverless.md)"), "dim")]]
        self.show_section("functions", _section(tr("Functions"), functions or none))
        nothing: list[Line] = [[(tr("  nothing was spent"), "dim")]]
        days = tr("Days ({count}, UTC)", count=DAYS)
        self.show_section("days", _section(days, day_lines(told, width) or nothing))
        self.show_section("users", _section(tr("Users, in {count} days", count=DAYS), user_lines(told, width)))
        self.show_section("jobs", _section(tr("Jobs, of the newest"), job_lines(told, width)))


def _section(title: str, lines: Sequence[Line]) -> list[Piece]:
    """Lines under a heading; nothing where there are none."""
    if not lines:
        return []
    return [(f" {title}\n", "bold $text-primary"), *_pieces(lines)]


def _pieces(lines: Iterable[Line]) -> list[Piece]:
    out: list[Piece] = []
    for line in lines:
        out += [(text, TONE_STYLE[tone]) for text, tone in line]
        out.append(("\n", ""))
    return out

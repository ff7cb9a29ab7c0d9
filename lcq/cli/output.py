"""How the command line speaks: answers on stdout, talk on stderr, tables for people, JSON for programs."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel
from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from lcq.errors import LcqError
from lcq.lang import ntr, retold, tr
from lcq.models import Event, NodeStatus, TaskStatus

STYLES = {
    TaskStatus.PENDING: "cyan",
    TaskStatus.QUEUED: "blue",
    TaskStatus.PROCESSING: "yellow",
    TaskStatus.COMPLETED: "green",
    TaskStatus.FAILED: "red",
    TaskStatus.CANCELLED: "magenta",
    NodeStatus.ONLINE: "green",
    NodeStatus.SUSPECT: "yellow",
    NodeStatus.DRAINING: "cyan",
    NodeStatus.QUARANTINED: "red",
    NodeStatus.OFFLINE: "bright_black",
}
_READABLE = 12  # characters below which what may be cut is hardly worth its place
_READABLE_WRAPPED = 24  # and what goes on below
_GAP = 2  # between columns
_BLANK = 100  # a column with nothing in it is spared before all others
_UNLIMITED = 100_000  # columns of a table that goes into a pipe: nothing is cut there


def visible(text: str) -> str:
    """``text`` with everything spelled out that a terminal would obey instead of show, on one line."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def age(since_ms: int | None) -> str:
    """How long ago that was, for a person: ``3m 20s``."""
    return "" if not since_ms else duration(max(0.0, time.time() - since_ms / 1000))


def duration(seconds: float) -> str:
    """A span of time in at most two units: ``0.35s``, ``12.1s``, ``3m 20s``, ``2d 4h``."""
    if seconds < 1:
        return f"{seconds:.2f}s"
    if seconds < 60:
        return f"{seconds:.1f}s"
    minutes, left = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes}m {left}s"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours}h {minutes}m"
    return f"{hours // 24}d {hours % 24}h"


def clock(at_ms: int | None) -> str:
    """A moment in local time, to the millisecond."""
    if not at_ms:
        return ""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at_ms / 1000)) + f".{at_ms % 1000:03d}"


def time_of_day(at_ms: int) -> str:
    """A moment of today in local time: ``13:05:10``."""
    return time.strftime("%H:%M:%S", time.localtime(at_ms / 1000))


def tail(path: str) -> str:
    """The end of a path that tells most: the file and its folder."""
    parts = path.rsplit("/", 2)
    return path if len(parts) < 3 or not parts[0] else f"…/{parts[1]}/{parts[2]}"


@dataclass(frozen=True)
class Column:
    """A column of a table: ``whole`` is never made narrower, ``wrapped`` goes on below, all others are cut.

    Where the terminal is too narrow for all of them, those with nothing in them are left out, and then those that can
    be ``spared``, the highest number first. Its title is English, and translated where the table is shown.
    """

    title: str
    right: bool = False
    whole: bool = False
    wrapped: bool = False
    spared: int = 0


class Output:
    """Where a command's words go. ``as_json``: answers are for a program."""

    def __init__(self, *, as_json: bool = False) -> None:
        self.as_json = as_json
        piped = not sys.stdout.isatty() and "COLUMNS" not in os.environ
        self._answers = Console(
            file=sys.stdout,
            markup=False,
            emoji=False,
            highlight=False,
            width=_UNLIMITED if piped else None,
        )
        self.talk_console = Console(file=sys.stderr, markup=False, emoji=False, highlight=False)

    def say(self, text: str = "") -> None:
        """One line of the answer."""
        print(visible(text))

    def document(self, value: Any) -> None:
        """The answer for a program: one JSON document. Models become their JSON form."""
        print(json.dumps(_plain(value), indent=2))

    def line(self, value: Any) -> None:
        """One of many answers for a program: a JSON document on a line of its own, at once."""
        print(json.dumps(_plain(value)), flush=True)

    def table(self, columns: Sequence[Column], rows: Iterable[Sequence[str | Text]], *, empty: str = "") -> None:
        """Rows under titles, cut to the terminal's width; ``empty`` is talked about where there are none."""
        texts = [[_cell(cell) for cell in row] for row in rows]
        if not texts:
            self.talk(empty)
            return
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, collapse_padding=True)
        shown = _fitting(columns, texts, self._answers.width)
        for number in shown:
            column = columns[number]
            # Only columns that may wrap are made narrower by rich, so the cells forbid it, not the column.
            table.add_column(tr(column.title), justify="right" if column.right else "left", no_wrap=column.whole)
        for cells in texts:
            for cell, column in zip(cells, columns, strict=True):
                cell.no_wrap, cell.overflow = not column.wrapped, "fold" if column.wrapped else "ellipsis"
            table.add_row(*(cells[number] for number in shown))
        self._answers.print(table)

    def facts(self, pairs: Iterable[tuple[str, str | Text]]) -> None:
        """Names with values, a line each; values are never cut."""
        grid = Table.grid(padding=(0, 2))
        grid.add_column(style="bold", no_wrap=True)
        grid.add_column(overflow="fold")
        for name, value in pairs:
            if value:
                grid.add_row(name, _cell(value))
        self._answers.print(grid)

    def rows(self, rows: Iterable[Sequence[str | Text]]) -> None:
        """Rows without titles; the last column goes on below where it is longer than the terminal is wide."""
        grid = Table.grid(padding=(0, 2))
        for cells in map(_cells, rows):
            while len(grid.columns) < len(cells):
                grid.add_column(overflow="fold")
            for cell in cells[:-1]:
                cell.no_wrap = True
            grid.add_row(*cells)
        if grid.row_count:
            self._answers.print(grid)

    def event(self, event: Event, details: str) -> None:
        """One event, as a line of the answer, at once."""
        status = event.fields.get("status", "")
        style = STYLES[TaskStatus(status)] if status in tuple(TaskStatus) else ""
        words = [Text(clock(event.at_ms), style="dim"), Text(f"{visible(event.move):<12}", style="bold")]
        words += [
            _cell(event.fields.get("id", "-")),
            Text(_padded(tr(visible(status)), 10), style=style),
            _cell(details),
        ]
        self._answers.print(Text(" ").join(words), soft_wrap=True)

    def heading(self, text: str) -> None:
        self._answers.print()
        self._answers.print(Text(visible(text), style="bold"))

    def talk(self, text: str) -> None:
        """One line for the person at the terminal, that is not part of the answer."""
        self.talk_console.print(Text(visible(text)), soft_wrap=True)

    def retell(self, text: str) -> None:
        """As ``talk``, of a sentence that was made in English elsewhere."""
        self.talk(retold(text))

    def error(self, error: LcqError) -> None:
        """What went wrong, and what to do, a line each."""
        problems = getattr(error, "problems", ())
        if len(problems) > 1:  # of settings
            self.complain(ntr("{n} problem in the settings", "{n} problems in the settings", len(problems)))
            for one in problems:
                self.talk(f"  {told_problem(one)}")
            return
        self.complain(retold(error.message), retold(error.hint))

    def complain(self, message: str, hint: str = "") -> None:
        self.talk_console.print(Text.assemble((tr("error: "), "bold red"), visible(message)), soft_wrap=True)
        if hint:
            self.talk_console.print(Text.assemble((tr("hint: "), "bold"), visible(hint)), soft_wrap=True)


def _fitting(columns: Sequence[Column], rows: Sequence[Sequence[Text]], width: int) -> list[int]:
    """Which columns are shown where there is room for ``width`` characters."""
    shown = list(range(len(columns)))
    widest = [max(row[number].cell_len for row in rows) for number in shown]
    titles = [cell_len(tr(column.title)) for column in columns]

    def need(number: int) -> int:
        natural = max(widest[number], titles[number])
        if columns[number].whole:
            return natural
        return min(natural, max(titles[number], _READABLE_WRAPPED if columns[number].wrapped else _READABLE))

    def worth(number: int) -> int:
        return columns[number].spared if widest[number] else _BLANK

    while len(shown) > 1 and sum(map(need, shown)) + _GAP * (len(shown) - 1) > width:
        least = max(shown, key=worth)
        if not worth(least):
            break
        shown.remove(least)
    return shown


def told_problem(problem: Any) -> str:
    """What is wrong with a setting (``lcq.settings.problems.Problem``), as compilers say it: ``FILE:LINE: KEY: …``."""
    return f"{problem.at}: " + (f"{problem.key}: " if problem.key else "") + retold(problem.said)


def status_text(status: TaskStatus | NodeStatus) -> Text:
    return Text(tr(status.value), style=STYLES[status])


def _padded(text: str, width: int) -> str:
    """``text`` with spaces behind it, up to ``width`` columns of a terminal."""
    return text + " " * (width - cell_len(text))


def _cell(value: str | Text) -> Text:
    return value if isinstance(value, Text) else Text(visible(value))


def _cells(row: Sequence[str | Text]) -> list[Text]:
    return [_cell(cell) for cell in row]


def _plain(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    return value

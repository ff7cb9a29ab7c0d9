"""LineTable: the console's own table on the line API, for a hundred thousand rows that change all the time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, ClassVar, Generic

from rich.segment import Segment
from rich.style import Style
from textual import events
from textual.binding import BindingType
from textual.cache import LRUCache
from textual.geometry import Region
from textual.message import Message
from textual.scroll_view import ScrollView
from textual.strip import Strip

from tui.columns import Column, Tone, lay_out, lay_out_sideways
from tui.commands import Scope, bindings_of
from tui.store import RowT
from tui.text import begun, cells, clean, fit
from tui.themes import UNREADABLE_AT_CURSOR
from tui.view import View

_GUTTER = 2  # cursor and mark
_BAR = 1
_WHEEL = 3
_SLACK = 3  # cells that a column may be too wide: a number that loses a digit moves nothing beside it
_TONES: tuple[Tone, ...] = ("plain", "dim", "good", "bad", "warn", "run", "strong")

_LineKey = tuple[Any, ...]
_STILL = 4  # from there on the key of a row has its cells


class LineTable(ScrollView, Generic[RowT], can_focus=True):
    """Shows a view's window, one line a row.

    ``sync`` compares what each screen line should show with what it showed last and repaints only the
    lines that differ; where only the clock or progress has moved, only their left part. The view does the
    scrolling, anchored at a row: ScrollView's own offsets would ask for a layout at every new row.
    """

    BINDINGS: ClassVar[list[BindingType]] = [*bindings_of(Scope.TABLE)]
    COMPONENT_CLASSES: ClassVar[set[str]] = {
        "table--header", "table--sorted", "table--cursor", "table--marked", "table--bar",
        *(f"table--{tone}" for tone in _TONES),
    }  # fmt: skip

    @dataclass
    class Opened(Message):
        """The operator wants to go into this row."""

        row_id: str

    @dataclass
    class Described(Message):
        """The operator wants to know all about this row."""

        row_id: str

    class Looked(Message):
        """Cursor, marks, order or window are different now."""

    class AllMarked(Message):
        """The operator has marked all that the filter shows, or none of it."""

    @dataclass
    class Copied(Message):
        """The operator wants this id on the clipboard."""

        row_id: str

    class FilterWished(Message):
        """The operator wants to type a filter."""

    @dataclass
    class Wished(Message):
        """The operator wants one of the things that a screen does for its table, by the command's id."""

        command_id: str

    def __init__(
        self,
        view: View[RowT],
        columns: Sequence[Column[RowT]],
        now_ms: Callable[[], int],
        *,
        empty: Callable[[], str],
        id: str | None = None,  # noqa: A002  # Textual's own name for it
    ) -> None:
        super().__init__(id=id)
        self.view = view
        self._columns = columns
        self._chosen: tuple[Column[RowT], ...] | None = None
        self._wide = False
        self._start = 0  # columns scrolled off behind the first
        self._longest: dict[str, int] = {}
        self._now_ms = now_ms
        self._empty = empty
        self._layout: list[tuple[Column[RowT], int]] = []
        self._live_width = 0
        self._painted: list[_LineKey] = []
        self._strips: LRUCache[_LineKey, Strip] = LRUCache(1024)
        self._styles: dict[tuple[str, str], Style] = {}
        self._frozen_ms: int | None = None
        self.rendered_lines = 0  # how many lines were ever built: what a test of the budget looks at

    # ------------------------------------------------------------ what is on the screen

    @property
    def rows_shown(self) -> int:
        """How many rows fit below the header."""
        return max(1, self.size.height - 1)

    @property
    def shown_columns(self) -> list[tuple[Column[RowT], int]]:
        return list(self._layout)

    @property
    def columns(self) -> tuple[Column[RowT], ...]:
        """The columns that are to be shown, as far as there is room."""
        return self._chosen or self.usual_columns

    @property
    def usual_columns(self) -> tuple[Column[RowT], ...]:
        return tuple(column for column in self._columns if not column.extra)

    @property
    def all_columns(self) -> Sequence[Column[RowT]]:
        """All that can be chosen."""
        return self._columns

    @property
    def chosen(self) -> tuple[str, ...] | None:
        """The ids of the columns that were chosen; None: the usual ones."""
        return None if self._chosen is None else tuple(column.id for column in self._chosen)

    def choose(self, ids: Sequence[str] | None) -> None:
        """Show these columns in this order, unknown ones left out; with None, or none of them known, the usual ones."""
        known = {column.id: column for column in self._columns}
        chosen = tuple(known[one] for one in dict.fromkeys(ids or ()) if one in known)
        self._chosen = None if not chosen or chosen == self.usual_columns else chosen
        self._start = 0
        self._lay_out()

    def fit(self, longest: Mapping[str, int]) -> None:
        """Columns of which one knows, by their ids, how long the longest is that they hold need be hardly wider."""
        before = self._longest
        steady = {
            name: before[name] if 0 < before.get(name, 0) - now <= _SLACK else now for name, now in longest.items()
        }
        if before != steady:
            self._longest = steady
            self._lay_out()

    def sync(self) -> None:
        """Repaint what is different from what was painted last, and nothing else."""
        if self.view.frozen:
            self._frozen_ms = self._frozen_ms or self._now_ms()
        else:
            self._frozen_ms = None
        rows = self.rows_shown
        keys = [self._header_key(), *(self._row_key(line, rows) for line in range(rows))]
        before, self._painted = self._painted, keys
        if len(before) != len(keys):
            self.refresh()
            return
        width, dirty = self.size.width, []
        for y, (old, new) in enumerate(zip(before, keys, strict=True)):
            if old != new:
                whole = y == 0 or old[:-1] != new[:-1]  # the last part of a row's key is its live cells
                dirty.append(Region(0, y, width if whole else self._live_width, 1))
        if dirty:
            self.refresh(*dirty)

    def _header_key(self) -> _LineKey:
        return (self.view.sort, self.view.descending, self.size.width, self._start, self._wide)

    def _row_key(self, line: int, rows: int) -> _LineKey:
        view = self.view
        row = view.row_at(view.top + line)
        if row is None:
            return (self._empty() if not len(view) and line == 1 else "", self._bar(line, rows), ())
        now = self._time
        # What the cells say and not the row's version: progress that arrives leaves the right part alone.
        still = tuple(column.cell(row, now) for column, _ in self._layout if not column.live)
        live = tuple(column.cell(row, now) for column, _ in self._layout if column.live)
        return (row.id, row.id == view.cursor_id, row.id in view.marks, self._bar(line, rows), still, live)

    @property
    def shown_cells(self) -> Iterator[str]:
        """What the cells say that were painted last."""
        for key in self._painted[1:]:
            for text, _ in chain(*key[_STILL:]):
                yield text

    @property
    def _time(self) -> int:
        return self._now_ms() if self._frozen_ms is None else self._frozen_ms

    def _bar(self, line: int, rows: int) -> str:
        total = len(self.view)
        if total <= rows:
            return " "
        size = max(1, rows * rows // total)
        start = (rows - size) * self.view.top // (total - rows)
        return "█" if start <= line < start + size else "│"

    # ------------------------------------------------------------ painting

    def render_line(self, y: int) -> Strip:
        width = self.size.width
        if y == 0:
            return self._header_strip(width)
        key = self._row_key(y - 1, self.rows_shown)
        strip = self._strips.get(key)
        if strip is None:
            self.rendered_lines += 1
            strip = self._row_strip(y - 1, width)
            self._strips[key] = strip
        return strip

    def _style(self, tone: str, ground: str = "") -> Style:
        """The style of a tone on the table's own ground, or on that of the cursor or a mark."""
        style = self._styles.get((tone, ground))
        if style is None:
            shown = "strong" if ground == "cursor" and (self.app.theme, tone) in UNREADABLE_AT_CURSOR else tone
            style = self.get_component_rich_style(f"table--{shown}")
            if ground:
                style += Style(bgcolor=self.get_component_rich_style(f"table--{ground}").bgcolor)
            self._styles[tone, ground] = style
        return style

    def _header_strip(self, width: int) -> Strip:
        segments = [Segment(" " * _GUTTER, self._style("header"))]
        for place, (column, room) in enumerate(self._layout):
            is_sorted = column.id == self.view.sort
            title = column.shown_title
            if is_sorted:
                arrow = "v" if self.view.descending else "^"
                title = f"{title} {arrow}" if cells(title) + 2 <= room else f"{begun(title, room - 1)}{arrow}"
            gap = "" if place == 0 else " "
            style = self._style("sorted") if is_sorted else self._style("header")
            segments += [
                Segment(gap, self._style("header")),
                Segment(fit(title, room, right=column.right), style),
            ]
        return Strip(segments).simplify().adjust_cell_length(width, self._style("header"))

    def _row_strip(self, line: int, width: int) -> Strip:
        view = self.view
        row = view.row_at(view.top + line)
        bar = Segment(self._bar(line, self.rows_shown), self._style("bar"))
        if row is None:
            text = self._empty() if not len(view) and line == 1 else ""
            room = max(0, width - _BAR)
            return Strip([Segment(fit("  " + text, room), self._style("dim")), bar]).adjust_cell_length(width)
        at_cursor, marked = row.id == view.cursor_id, row.id in view.marks
        ground = "cursor" if at_cursor else "marked" if marked else ""
        pieces: list[tuple[str, Style]] = [
            (f"{'>' if at_cursor else ' '}{'*' if marked else ' '}", self._style("strong", ground))
        ]
        now = self._time
        for place, (column, room) in enumerate(self._layout):
            text, tone = column.cell(row, now)
            gap = " " if place else ""
            pieces.append((gap + fit(clean(text), room, right=column.right), self._style(tone, ground)))
        segments: list[Segment] = []
        text, style = pieces[0]
        for more, its_style in pieces[1:]:  # one segment for neighbours of one style: fewer bytes to the terminal
            if its_style == style:
                text += more
            else:
                segments.append(Segment(text, style))
                text, style = more, its_style
        segments.append(Segment(text, style))
        body = Strip(segments).adjust_cell_length(max(0, width - _BAR), self._style("plain", ground))
        return Strip([*body, bar]).adjust_cell_length(width)

    def notify_style_update(self) -> None:
        super().notify_style_update()
        self._forget_paint()

    def _forget_paint(self) -> None:
        self._strips.clear()
        self._styles.clear()
        self._painted = []
        self.refresh()

    def on_resize(self) -> None:
        self._lay_out()

    def _lay_out(self) -> None:
        room = max(1, self.size.width - _GUTTER - _BAR)
        if self._wide or self._start:
            self._layout = lay_out_sideways(self.columns, room, start=self._start, wide=self._wide)
        else:
            self._layout = lay_out(self.columns, room, self._longest)
        reach = [index for index, (column, _) in enumerate(self._layout) if column.live]
        self._live_width = _GUTTER + sum(room + 1 for _, room in self._layout[: max(reach, default=-1) + 1])
        self.view.resize(self.rows_shown)
        self._forget_paint()
        self.sync()

    # ------------------------------------------------------------ keys

    def _looked(self) -> None:
        self.sync()
        self.post_message(self.Looked())

    def action_cursor_down(self) -> None:
        self.view.move(1)
        self._looked()

    def action_cursor_up(self) -> None:
        self.view.move(-1)
        self._looked()

    def action_first(self) -> None:
        self.view.move_to(0)
        self._looked()

    def action_last(self) -> None:
        self.view.move_to(len(self.view) - 1)
        self._looked()

    def action_page_down(self) -> None:
        self.view.page(1)
        self._looked()

    def action_page_up(self) -> None:
        self.view.page(-1)
        self._looked()

    def action_half_page_down(self) -> None:
        self.view.page(0.5)
        self._looked()

    def action_half_page_up(self) -> None:
        self.view.page(-0.5)
        self._looked()

    def action_mark(self) -> None:
        if self.view.cursor_id is not None:
            self.view.mark(self.view.cursor_id)
            self.view.move(1)
            self._looked()

    def action_mark_range(self) -> None:
        self.view.mark_range()
        self._looked()

    def action_mark_all(self) -> None:
        self.view.mark_all()
        self._looked()
        self.post_message(self.AllMarked())

    def action_invert_marks(self) -> None:
        self.view.invert_marks()
        self._looked()

    def action_follow(self) -> None:
        self.view.set_follow(not self.view.follow)
        self._looked()

    def action_filter(self) -> None:
        self.post_message(self.FilterWished())

    def action_wide(self) -> None:
        self._wide, self._start = not self._wide, 0
        self._lay_out()
        self._looked()

    def action_scroll_right(self) -> None:
        self._scroll_sideways(1)

    def action_scroll_left(self) -> None:
        self._scroll_sideways(-1)

    def _scroll_sideways(self, step: int) -> None:
        start = max(0, min(self._start + step, len(self.columns) - 2))
        if start != self._start:
            self._start = start
            self._lay_out()
            self._looked()

    def action_next_state(self) -> None:
        self.post_message(self.Wished("next_state"))

    def action_previous_state(self) -> None:
        self.post_message(self.Wished("previous_state"))

    def action_sort_menu(self) -> None:
        self.post_message(self.Wished("sort_menu"))

    def action_choose_columns(self) -> None:
        self.post_message(self.Wished("choose_columns"))

    def action_copy_json(self) -> None:
        self.post_message(self.Wished("copy_json"))

    def action_save_rows(self) -> None:
        self.post_message(self.Wished("save_rows"))

    def action_attention(self) -> None:
        self.post_message(self.Wished("attention"))

    def action_sort_left(self) -> None:
        self._sort_by_neighbour(-1)

    def action_sort_right(self) -> None:
        self._sort_by_neighbour(1)

    def _sort_by_neighbour(self, step: int) -> None:
        """Sort by the next column on the screen, so that the arrow is always seen to move."""
        shown = [column.id for column, _ in self._layout]
        if shown:
            here = shown.index(self.view.sort) if self.view.sort in shown else -step
            self.sort_by(shown[(here + step) % len(shown)])

    def sort_by(self, column_id: str) -> None:
        """Order by this column, the way it is of most use."""
        home, descending = self.view.home
        self.view.set_sort(column_id, descending=descending if column_id == home else False)
        self._looked()

    def action_reverse(self) -> None:
        self.view.set_sort(self.view.sort, descending=not self.view.descending)
        self._looked()

    def action_open(self) -> None:
        if self.view.cursor_id is not None:
            self.post_message(self.Opened(self.view.cursor_id))

    def action_describe(self) -> None:
        if self.view.cursor_id is not None:
            self.post_message(self.Described(self.view.cursor_id))

    def action_copy_id(self) -> None:
        if self.view.cursor_id is not None:
            self.post_message(self.Copied(self.view.cursor_id))

    # ------------------------------------------------------------ mouse

    def _on_mouse_scroll_down(self, event: events.MouseScrollDown) -> None:
        event.stop()
        event.prevent_default()
        self.view.scroll(_WHEEL)
        self._looked()

    def _on_mouse_scroll_up(self, event: events.MouseScrollUp) -> None:
        event.stop()
        event.prevent_default()
        self.view.scroll(-_WHEEL)
        self._looked()

    def on_click(self, event: events.Click) -> None:
        if event.y == 0:
            left = _GUTTER
            for column, room in self._layout:
                if left <= event.x < left + room:
                    if column.id == self.view.sort:
                        self.action_reverse()
                    else:
                        self.sort_by(column.id)
                left += room + 1
        elif event.x >= self.size.width - _BAR and len(self.view) > self.rows_shown:
            self.view.scroll(round((event.y - 1) / self.rows_shown * len(self.view)) - self.view.top)
            self._looked()
        elif self.view.top + event.y - 1 < len(self.view):
            self.view.move_to(self.view.top + event.y - 1)
            self._looked()
            if event.chain == 2:
                self.action_open()

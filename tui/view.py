"""How rows are looked at: their order, filter, marks, and a cursor that stays on its row and screen line.

Knows nothing of a terminal. Order is a list of ids sorted by (value, id), with the values beside it, so that a row is
found, put in and taken out by bisection (a list of such pairs would take 6 MB more, of a hundred thousand rows);
descending order is the same list read from its end.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Generic

from lcq.query import Query, QueryField, parse
from tui.store import Changes, RowT, Shelf, is_holey

_BULK = 256  # more changes than this at once are merged in one sort instead of one by one


class View(Generic[RowT]):
    """An ordered, filtered look at a shelf.

    ``cursor_id`` names a row, never a place: whatever comes, goes or is sorted, the cursor stays on that
    row and on its screen line. The row under the cursor stays in the list even when the filter no longer
    fits it, so that a key never lands on a neighbour that slipped in.
    """

    def __init__(
        self,
        shelf: Shelf[RowT],
        sorts: Mapping[str, Callable[[RowT], Any]],
        *,
        sort: str,
        descending: bool = False,
        fields: Mapping[str, QueryField[RowT]] | None = None,
    ) -> None:
        self._shelf = shelf
        self.sorts = sorts
        self.fields = fields or {}
        self.sort, self.descending = sort, descending
        self.home = (sort, descending)
        self.filter: Query[RowT] = Query()
        self.now_ms = 0  # by Redis's clock: what a filter by age is asked at
        self.cursor_id: str | None = None
        self.top = 0  # the index of the row on the first screen line
        self.height = 1
        self.marks: set[str] = set()
        self._marked_last: str | None = None
        self.follow = False
        self.held = 0  # changes kept back since it was frozen
        self._frozen: dict[str, RowT] | None = None
        self._ids: list[str] = []  # ascending by ``_key_of``
        self._values: dict[str, Any] = {}  # by which they are in order
        self._dropped = 0  # since ``_values`` was made
        self._rebuild()

    # ------------------------------------------------------------ looking

    def __len__(self) -> int:
        return len(self._ids)

    @property
    def total(self) -> int:
        """How many rows there are before the filter."""
        return len(self._rows)

    @property
    def _rows(self) -> dict[str, RowT]:
        return self._shelf.rows if self._frozen is None else self._frozen

    @property
    def frozen(self) -> bool:
        return self._frozen is not None

    def id_at(self, index: int) -> str:
        return self._ids[len(self._ids) - 1 - index if self.descending else index]

    def row_at(self, index: int) -> RowT | None:
        """The row at ``index``, or None past the end."""
        return self._rows.get(self.id_at(index)) if 0 <= index < len(self._ids) else None

    def row(self, row_id: str) -> RowT | None:
        return self._rows.get(row_id)

    def index_of(self, row_id: str | None) -> int | None:
        if row_id is None or row_id not in self._values:
            return None
        place = self._place(self._key_of(row_id))
        return len(self._ids) - 1 - place if self.descending else place

    def _key_of(self, row_id: str) -> tuple[Any, str]:
        return (self._values[row_id], row_id)

    def _place(self, key: tuple[Any, str]) -> int:
        """Where in the order ``key`` is, or would be."""
        return bisect_left(self._ids, key, key=self._key_of)

    @property
    def cursor(self) -> RowT | None:
        """The row under the cursor."""
        return self._rows.get(self.cursor_id) if self.cursor_id is not None else None

    @property
    def cursor_line(self) -> int | None:
        """The screen line of the cursor, 0 for the first; None where it is scrolled off."""
        index = self.index_of(self.cursor_id)
        line = -1 if index is None else index - self.top
        return line if 0 <= line < self.height else None

    def window(self) -> Iterator[RowT]:
        """The rows on the screen, without those that have gone since the last ``take``."""
        for index in range(self.top, min(self.top + self.height, len(self._ids))):
            row = self.row_at(index)
            if row is not None:
                yield row

    def rows(self) -> Iterator[RowT]:
        """All rows that the filter shows, in their order."""
        for row_id in reversed(self._ids) if self.descending else self._ids:
            row = self._rows.get(row_id)
            if row is not None:
                yield row

    def targets(self) -> list[RowT]:
        """What an act means: the marked rows, or the one under the cursor."""
        if self.marks:
            places = {row_id: self.index_of(row_id) for row_id in sorted(self.marks) if row_id in self._rows}
            shown = sorted((place, row_id) for row_id, place in places.items() if place is not None)
            hidden = [row_id for row_id, place in places.items() if place is None]
            return [self._rows[row_id] for row_id in [row_id for _, row_id in shown] + hidden]
        return [self.cursor] if self.cursor is not None else []

    @property
    def hidden_marks(self) -> int:
        """Marked rows that the filter does not show."""
        return sum(row_id not in self._values for row_id in self.marks)

    # ------------------------------------------------------------ taking changes in

    def take(self, changes: Changes) -> None:
        """Bring the order up to date with what happened on the shelf."""
        if not changes:
            return
        if self._frozen is not None:
            self.held += len(changes.changed) + len(changes.gone)
            return
        if changes.everything:
            self._anchored(lambda: self._rebuild(keep=self.cursor_id))
        else:
            self._anchored(lambda: self._merge(changes.changed | changes.gone))
        if changes.gone or changes.everything:
            self.marks = {row_id for row_id in self.marks if row_id in self._rows}

    def _fits(self, row: RowT) -> bool:
        return self.filter.matches(row, self.now_ms)

    def _key(self, row_id: str, *, keep: str | None) -> tuple[Any, str] | None:
        row = self._rows.get(row_id)
        if row is None or not (row_id == keep or self._fits(row)):
            return None
        return (self.sorts[self.sort](row), row_id)

    def _merge(self, touched: Iterable[str]) -> None:
        leaving: list[str] = []
        coming: dict[str, Any] = {}
        for row_id in touched:
            old = self._key_of(row_id) if row_id in self._values else None
            new = self._key(row_id, keep=self.cursor_id)
            if old == new:
                continue
            if old is not None:
                leaving.append(row_id)
            if new is not None:
                coming[row_id] = new[0]
        is_bulk = len(leaving) + len(coming) > _BULK
        if is_bulk:
            gone = set(leaving)
            self._ids = [row_id for row_id in self._ids if row_id not in gone]
        else:
            self._take_out(leaving)
        for row_id in leaving:
            del self._values[row_id]
            self._dropped += row_id not in coming
        if is_bulk:
            self._put_in(coming)
        else:
            for row_id, value in coming.items():
                self._ids.insert(self._place((value, row_id)), row_id)
                self._values[row_id] = value
        if is_holey(self._dropped, self._values):
            self._values, self._dropped = dict(self._values), 0

    def _put_in(self, coming: dict[str, Any]) -> None:
        """Put many rows into the order; what stands before the first of them stays as it is."""
        first = min(((value, row_id) for row_id, value in coming.items()), default=None)
        if first is None:
            return
        start = self._place(first)
        self._values |= coming
        pairs = [self._key_of(row_id) for row_id in (*self._ids[start:], *coming)]
        pairs.sort()
        self._ids[start:] = [row_id for _, row_id in pairs]

    def _take_out(self, ids: Iterable[str]) -> None:
        """Take rows out of the order. Neighbours go together: each cut moves up all that stands behind it."""
        places = sorted((self._place(self._key_of(row_id)) for row_id in ids), reverse=True)
        at = 0
        while at < len(places):
            first = last = places[at]
            while at + 1 < len(places) and places[at + 1] == first - 1:
                at, first = at + 1, first - 1
            del self._ids[first : last + 1]
            at += 1

    def _rebuild(self, *, keep: str | None = None) -> None:
        value, rows, fits, now = self.sorts[self.sort], self._rows, self.filter.matches, self.now_ms
        if self.filter:
            pairs = [(value(row), row_id) for row_id, row in rows.items() if row_id == keep or fits(row, now)]
        else:
            pairs = [(value(row), row_id) for row_id, row in rows.items()]
        pairs.sort()
        self._ids = [row_id for _, row_id in pairs]
        self._values, self._dropped = {row_id: value for value, row_id in pairs}, 0

    def _anchored(self, change: Callable[[], None]) -> None:
        """Do ``change`` and put the cursor's row back on the screen line where it was."""
        index = self.index_of(self.cursor_id)
        old_key = self._key_of(self.cursor_id) if index is not None and self.cursor_id is not None else None
        line = self.cursor_line
        first = self.id_at(self.top) if line is None and self.top < len(self._ids) else None
        change()
        if index is None or old_key is None:
            self.cursor_id = self.id_at(0) if self._ids else None
            self._clamp()
            return
        if self.follow:
            self._follow()
            return
        now = self.index_of(self.cursor_id)
        if now is None:  # its row is gone: the one that took its place is the nearest
            now = self._neighbour(old_key)
            self.cursor_id = self.id_at(now) if self._ids else None
        if line is not None:
            self.top = now - line
        else:
            stayed = self.index_of(first)
            self.top = self.top if stayed is None else stayed
        self._clamp()

    def _neighbour(self, key: tuple[Any, str]) -> int:
        try:
            place = self._place(key)
        except TypeError:  # the sort is by another kind of value now
            return 0
        index = len(self._ids) - place if self.descending else place
        return max(0, min(index, len(self._ids) - 1))

    def _follow(self) -> None:
        self.top = 0
        self.cursor_id = self.id_at(0) if self._ids else None

    def _clamp(self) -> None:
        self.top = max(0, min(self.top, len(self._ids) - self.height))

    # ------------------------------------------------------------ moving

    def _leave(self, then: str | None) -> None:
        """Put the cursor on ``then``; a row that was only kept for the cursor's sake leaves the list."""
        left, self.cursor_id = self.cursor_id, then
        row = self._rows.get(left) if left is not None else None
        if left is None or left == then or row is None or self._fits(row):
            return
        if left in self._values:
            index = self._place(self._key_of(left))
            above = (len(self._ids) - 1 - index if self.descending else index) < self.top
            del self._ids[index], self._values[left]
            self.top -= above

    def move_to(self, index: int) -> None:
        """Put the cursor on the row at ``index`` (or the nearest) and scroll it into sight."""
        self.follow = False
        if not self._ids:
            self.cursor_id = None
            return
        self._leave(self.id_at(max(0, min(index, len(self._ids) - 1))))
        self.reveal()

    def move(self, steps: int) -> None:
        here = self.index_of(self.cursor_id)
        self.move_to(0 if here is None else here + steps)

    def page(self, pages: float) -> None:
        """Move cursor and window together by ``pages`` of the window's height."""
        steps = round(pages * self.height) or (1 if pages > 0 else -1)
        line = self.cursor_line
        self.move(steps)
        index = self.index_of(self.cursor_id)
        if line is not None and index is not None:
            self.top = index - line
            self._clamp()

    def scroll(self, lines: int) -> None:
        """Move the window; the cursor stays on its row, also out of sight."""
        self.follow = False
        self.top += lines
        self._clamp()

    def reveal(self) -> None:
        """Scroll just as far as the cursor needs to be in sight."""
        index = self.index_of(self.cursor_id)
        if index is not None:
            self.top = min(max(self.top, index - self.height + 1), index)
        self._clamp()

    def resize(self, height: int) -> None:
        """Take note of how many rows fit on the screen."""
        line = self.cursor_line
        self.height = max(1, height)
        self._clamp()
        if line is not None:
            self.reveal()

    # ------------------------------------------------------------ order, filter, marks

    def set_filter(self, text: str) -> None:
        """Show only what ``text`` fits (docs/filter.md); what means nothing is told in ``filter.problem``."""
        self.filter = self.parsed(text)
        self._anchored(self._rebuild)
        self.reveal()

    def parsed(self, text: str) -> Query[RowT]:
        """What ``text`` fits, without showing it."""
        return parse(text, self.fields, lambda row: row.haystack)

    def tick(self, now_ms: int) -> None:
        """Take note of the time: rows may come to fit the filter, or cease to, by that alone."""
        self.now_ms = now_ms
        if self.filter.timed and not self.frozen:
            self._anchored(lambda: self._rebuild(keep=self.cursor_id))

    def set_sort(self, sort: str, *, descending: bool) -> None:
        self.follow = False
        if sort != self.sort or descending != self.descending:

            def change() -> None:
                self.sort, self.descending = sort, descending
                self._rebuild(keep=self.cursor_id)

            self._anchored(change)

    def set_follow(self, on: bool) -> None:
        """Keep the cursor on the first row of the home order (the newest), whatever arrives."""
        if on:
            self.set_sort(self.home[0], descending=self.home[1])
            self._leave(None)
            self._follow()
        self.follow = on

    def mark(self, row_id: str) -> None:
        self.marks ^= {row_id}
        self._marked_last = row_id

    def mark_range(self) -> None:
        """Mark every row from the one marked last to the cursor; without such a one, the row under the cursor."""
        here = self.index_of(self.cursor_id)
        if here is None:
            return
        there = self.index_of(self._marked_last)
        first, last = sorted((here, here if there is None else there))
        self.marks |= {self.id_at(index) for index in range(first, last + 1)}
        self._marked_last = self.cursor_id

    def mark_all(self) -> None:
        """Mark every row that the filter shows; if all of them are marked, none."""
        shown = set(self._values)
        self.marks = self.marks - shown if shown <= self.marks else self.marks | shown

    def invert_marks(self) -> None:
        """Of the rows that the filter shows, mark those that are not marked, and those only."""
        self.marks ^= set(self._values)

    def freeze(self) -> None:
        """Hold still: changes are counted, not shown, until ``thaw``."""
        if self._frozen is None:
            self._frozen, self.held = dict(self._shelf.rows), 0

    def thaw(self) -> None:
        if self._frozen is not None:
            self._frozen, self.held = None, 0
            self.take(Changes(everything=True))

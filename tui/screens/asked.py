"""A list that is asked for every few seconds while somebody looks at it, and never else."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from typing import ClassVar, Generic

from textual import work

from lcq.lang import tr
from lcq.query import QueryField
from tui.columns import Column
from tui.desk import Desk
from tui.screens.base import Said
from tui.screens.listing import ListScreen
from tui.source import TROUBLES, trouble_of
from tui.store import RowT, Shelf
from tui.view import View
from tui.widgets.frame import Part


class AskedScreen(ListScreen[RowT], Generic[RowT]):
    """A list with a shelf of its own. What it holds is asked for when it is opened, then every few seconds, and as soon
    as this console has done something."""

    EVERY_S: ClassVar[float] = 5.0
    ONE = ""
    """What to say where a key means one row, and several are marked."""
    NONE = ""
    """What to say where a key needs a row, and none is under the cursor."""

    def __init__(
        self, desk: Desk, columns: Sequence[Column[RowT]], fields: Mapping[str, QueryField[RowT]], *, sort: str
    ) -> None:
        self.shelf: Shelf[RowT] = Shelf()
        self._asked_at = -self.EVERY_S
        self._acted = desk.acted
        self._was_read = False
        self.trouble = ""  # why the last question was not answered
        orders = {column.id: column.sort for column in columns}
        super().__init__(desk, View(self.shelf, orders, sort=sort, fields=fields), columns)

    async def ask(self) -> Iterable[RowT]:
        """The rows, as they are now."""
        return ()

    @property
    def is_still(self) -> bool:
        return False  # as it is shown it looks whether to ask again

    @property
    def is_read(self) -> bool:
        return self._was_read

    def _why_empty(self) -> str:
        return tr("it cannot be read now: {error}", error=self.trouble) if self.trouble else super()._why_empty()

    def trouble_part(self) -> Sequence[Part]:
        """That what is shown is old, where it is."""
        if not self.trouble or not self._was_read:
            return ()
        return (Part(tr("   as it was; it cannot be read now: {error}", error=self.trouble), "bold $text-warning"),)

    def show_news(self) -> None:
        view, now = self.view, self.desk.link.now_ms
        if view.frozen != self.desk.tasks.frozen:
            if view.frozen:
                view.thaw()
            else:
                view.freeze()
        view.now_ms = now
        view.take(self.shelf.take())
        view.tick(now)
        super().show_news()
        is_due = time.monotonic() - self._asked_at >= self.EVERY_S or self.desk.acted != self._acted
        if is_due and self.is_attached:
            self._asked_at, self._acted = time.monotonic(), self.desk.acted
            self._ask()

    @work(exclusive=True, group="asked")
    async def _ask(self) -> None:
        try:
            rows = await self.ask()
        except TROUBLES as error:
            self.trouble = trouble_of(error)
        else:
            self.trouble, self._was_read = "", True
            self.shelf.update(rows)
        self.show_news()

    def one(self) -> RowT | None:
        """The row that a key means; where there is none, or several, that is said."""
        rows = self.view.targets()
        if len(rows) > 1:
            self.post_message(Said(tr(self.ONE), good=False))
            return None
        if not rows:
            self.say_nothing_here(tr(self.NONE))
        return rows[0] if rows else None

"""Views of ``--once`` that the console asks for only while somebody looks at them: spend, schedules, keys."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any, Generic

from lcq.lang import tr
from lcq.query import QueryField
from tui import enrolled, schedules
from tui.books import BOOK_COLUMNS, BOOK_FIELDS, BookRow, book_rows
from tui.cluster import Cluster
from tui.columns import Column
from tui.enrolled import KEY_COLUMNS, KEY_FIELDS, KeyRow
from tui.schedules import SCHEDULE_COLUMNS, SCHEDULE_FIELDS, ScheduleRow
from tui.source import TROUBLES, trouble_of
from tui.spending import DAYS, Spending, budget_of
from tui.store import RowT, Shelf, node_row
from tui.view import View

Read = Callable[[Cluster, int], Awaitable[tuple[Iterable[RowT], str]]]


class Asked(Generic[RowT]):
    """One of these views, with nothing in it until ``read``."""

    def __init__(
        self, columns: Sequence[Column[RowT]], fields: Mapping[str, QueryField[RowT]], sort: str, read: Read[RowT]
    ) -> None:
        self.columns, self._read = columns, read
        self._shelf: Shelf[RowT] = Shelf()
        self.view = View(self._shelf, {column.id: column.sort for column in columns}, sort=sort, fields=fields)

    async def read(self, cluster: Cluster, now_ms: int) -> str:
        """Read its rows, as they are at ``now_ms`` by Redis's clock; answers what they cannot tell.

        Raises:
            StateUnavailable, SchedulerUnreachable: who knows does not answer.
        """
        rows, note = await self._read(cluster, now_ms)
        self._shelf.update(rows)
        self.view.take(self._shelf.take())
        return note


async def _books(cluster: Cluster, now_ms: int) -> tuple[Iterable[BookRow], str]:
    spend, days, jobs = await cluster.spend(), await cluster.spend_of_days(DAYS), await cluster.spend_of_jobs()
    nodes = [node_row(record) for record in await cluster.nodes()]
    try:
        budget, note = budget_of(await cluster.budget()), ""
    except TROUBLES as error:
        budget, note = None, tr("no scheduler tells what the budget is: {error}", error=trouble_of(error))
    return book_rows(Spending(now_ms, spend, days, jobs, budget), nodes), note


async def _schedules(cluster: Cluster, now_ms: int) -> tuple[Iterable[ScheduleRow], str]:
    answer = await cluster.schedules()
    return schedules.rows_of(answer), "; ".join(schedules.window_told(one, now_ms) for one in answer.windows)


async def _keys(cluster: Cluster, now_ms: int) -> tuple[Iterable[KeyRow], str]:
    answer, own = await cluster.keys(), await cluster.own_key()
    notes = () if answer.server_keys else (tr("this scheduler asks for no keys"),)
    told = filter(None, (*notes, enrolled.handshakes_told(answer.refused, answer.now_ms)))
    return [enrolled.key_row(record, answer.now_ms, own) for record in answer.keys], "; ".join(told)


ASKED: Mapping[str, Callable[[], Asked[Any]]] = {
    "spend": lambda: Asked(BOOK_COLUMNS, BOOK_FIELDS, "kind", _books),
    "schedules": lambda: Asked(SCHEDULE_COLUMNS, SCHEDULE_FIELDS, "next", _schedules),
    "keys": lambda: Asked(KEY_COLUMNS, KEY_FIELDS, "state", _keys),
}
"""By the names of views: a new one."""

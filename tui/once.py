"""``lcq console --once``: one view, printed once, by the same words as the console itself. Needs no terminal."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import sys
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from lcq.config import DistributedConfig
from lcq.errors import InvalidInput, LcqError
from lcq.lang import tr
from lcq.log import setup_logging
from lcq.models import ActRecord, TaskRecord, TaskStatus
from lcq.reasons import brief
from lcq.wire import MOST_WHYS, ListTasks
from tui.cluster import Cluster, cluster_name
from tui.columns import (
    ACT_COLUMNS,
    CAUSE_COLUMNS,
    NODE_COLUMNS,
    QUEUE_COLUMNS,
    TASK_COLUMNS,
    TASK_MORE,
    Column,
    fleet_columns,
    lay_out,
)
from tui.desk import Desk
from tui.export import values_of
from tui.fleet import PANEL_LINES, panels
from tui.once_asked import ASKED
from tui.saved import MODES, SavedView, SavedViews, views_path
from tui.store import MOST_ACTS, WAITING, ActRow, Store, act_row, task_row
from tui.text import basename, cells, clean, fit
from tui.view import View

VIEWS = (*MODES, *ASKED)
MOST = 10_000
_PAGE = 500
_PANEL = 36
_ANSWER_S = 1.0  # why tasks wait is told where a scheduler says so at once


@dataclass(frozen=True)
class Shown:
    """What there is to print: the rows of one view, of how many, where it was cut, and what is said beside it."""

    desk: Desk
    view: View[Any]
    columns: Sequence[Column[Any]]
    total: int
    note: str = ""  # where it was cut; "": it was not
    beside: str = ""


def run_once(
    config: DistributedConfig,
    *,
    mode: str = "tasks",
    words: str = "",
    saved: str = "",
    as_json: bool = False,
    limit: int = 100,
) -> int:
    """Print a view of the cluster to stdout, notes to stderr; the exit code.

    ``saved`` is the name of a saved view; ``words``, a filter, are added to its own.

    Raises:
        StateUnavailable: the cluster cannot be reached.
        InvalidInput: there is no such view, or the filter cannot be meant.
    """
    setup_logging("warning")
    look = _look(mode, words, saved)

    async def main() -> Shown:
        async with Cluster(config) as cluster:
            return await look_once(cluster, look, limit=limit, name=cluster_name(config), reasons=not as_json)

    shown = asyncio.run(main())
    if as_json:
        lines = [json.dumps(document(shown, look), indent=1, ensure_ascii=False)]
    else:
        piped = not sys.stdout.isatty() and "COLUMNS" not in os.environ
        lines = text_lines(shown, look, None if piped else shutil.get_terminal_size().columns)
    sys.stdout.write("".join(f"{line}\n" for line in lines))
    note = tr("{count:,} of {total:,} {mode}", count=len(shown.view), total=shown.total, mode=look.mode)
    sys.stderr.write("; ".join(filter(None, (note, shown.note, shown.beside))) + "\n")
    return 0


def _look(mode: str, words: str, name: str) -> SavedView:
    if not name:
        if mode not in VIEWS:
            raise InvalidInput(f"no view {mode!r}", hint=f"there are {', '.join(VIEWS)}")
        return SavedView("", mode, words)
    views = SavedViews(views_path()).all
    found = next((view for view in views if view.name == name), None)
    if found is None:
        raise InvalidInput(f"no saved view {name!r}", hint=f"there are {', '.join(view.name for view in views)}")
    filter_text = f"{found.filter_text} {words}".strip()
    return SavedView(found.name, found.mode, filter_text, found.sort, found.descending, found.columns)


async def look_once(cluster: Cluster, look: SavedView, *, limit: int, name: str = "lcq", reasons: bool = True) -> Shown:
    """Read what one view needs, and no more. ``reasons``: also why tasks wait, which only a scheduler knows.

    Raises:
        StateUnavailable: the cluster cannot be reached.
        SchedulerUnreachable: nor can a scheduler, where only one of these knows.
        InvalidInput: the filter cannot be meant.
    """
    desk = Desk(cluster, cluster, cluster=name)
    now = await cluster.now_ms()
    desk.link.note_skew(now)
    store, columns, total, note, beside = desk.store, TASK_COLUMNS, 0, "", ""
    views: dict[str, View[Any]] = {
        "tasks": desk.tasks, "queues": desk.queues, "causes": desk.causes, "activity": desk.acts
    }  # fmt: skip
    asked = ASKED[look.mode]() if look.mode in ASKED else None
    view = asked.view if asked is not None else views.get(look.mode, desk.nodes)
    view.now_ms = now
    view.set_filter(clean(look.filter_text))
    if view.filter.problem:
        raise InvalidInput(f"the filter {look.filter_text!r:.200} cannot be read: {view.filter.problem}")
    shown: Sequence[Column[Any]]
    match look.mode:
        case "tasks":
            records, total, note = await _tasks(cluster, look.filter_text, limit)
            for record in records:
                store.tasks.put(task_row(record))
            if reasons:
                await _read_reasons(cluster, store, now)
            shown = (*columns, *TASK_MORE)
        case "queues":
            store.minutes = await cluster.minutes()
            store.put_queues(await cluster.queues())
            shown = QUEUE_COLUMNS
        case "causes":
            store.put_causes(await cluster.dead())
            shown = CAUSE_COLUMNS
        case "activity":
            note = await _read_acts(cluster, store, view, limit)
            shown = ACT_COLUMNS
        case _ if asked is not None:
            beside, shown = await asked.read(cluster, now), asked.columns
        case _:
            store.put_nodes(await cluster.nodes())
            shown = NODE_COLUMNS
            if look.mode == "fleet":
                store.put_queues(await cluster.queues())
                store.minutes = await cluster.minutes()
                store.put_causes(await cluster.dead())
                for status in TaskStatus:
                    store.counts[status] = sum(row.count(status) for row in store.queues.rows.values())
                running, _, _ = await _tasks(cluster, "state:processing", MOST)
                shown = fleet_columns(lambda node: "  ".join(
                    basename(clean(one.task.image_path)) for one in running if one.node == node
                ))  # fmt: skip
    desk.flush()
    if look.sort in view.sorts:
        view.set_sort(look.sort, descending=look.descending)
    chosen = {column.id: column for column in shown}
    return Shown(
        desk,
        view,
        [chosen[one] for one in look.columns or () if one in chosen] or [one for one in shown if not one.extra],
        total or view.total,
        note,
        beside,
    )


async def _read_reasons(cluster: Cluster, store: Store, now_ms: int) -> None:
    """Why those that wait do so, as the scheduler sees it now; where it does not say, the records have the word."""
    ids = [row.id for row in store.tasks.rows.values() if row.status in WAITING]
    for begin in range(0, len(ids), MOST_WHYS):
        try:
            async with asyncio.timeout(_ANSWER_S):
                told = await cluster.whys(ids[begin : begin + MOST_WHYS])
        except (LcqError, OSError, TimeoutError):
            return
        store.tell(
            (
                (task_id, one.revision, clean(one.why.text), clean(brief(one.why, now_ms)))
                for task_id, one in told.items()
            ),
            now_ms,
        )


async def _read_acts(cluster: Cluster, store: Store, view: View[ActRow], limit: int) -> str:
    """The newest acts that fit, into the store; and where it was cut."""
    found: list[ActRecord] = []
    fit, note = 0, ""
    async for act in _acts(cluster):
        if fit == limit or len(found) == MOST_ACTS:
            note = tr("cut after the newest {looked_at:,}: --limit shows more", looked_at=len(found))
            break
        found.append(act)
        fit += not view.filter or view.filter.matches(act_row(act, view.now_ms), view.now_ms)
    store.put_acts(found, view.now_ms)
    return note


async def _acts(cluster: Cluster) -> AsyncIterator[ActRecord]:
    """All that is in the audit, the newest first."""
    page: Sequence[ActRecord] = ()
    while not page or len(page) == _PAGE:
        page = await cluster.acts(_PAGE, page[-1].id if page else "")
        for act in page:
            yield act
        if not page:
            return


async def _tasks(cluster: Cluster, where: str, limit: int) -> tuple[list[TaskRecord], int, str]:
    """The newest that fit, how many there are in all, and where it was cut."""
    found: list[TaskRecord] = []
    cursor, total, looked_at = "", 0, 0
    while True:
        page = await cluster.list_tasks(ListTasks(where=where, limit=min(_PAGE, limit - len(found)), cursor=cursor))
        found += page.tasks
        cursor, looked_at, total = page.cursor, looked_at + page.looked_at, page.total
        if not cursor or len(found) >= limit:
            break
    if not cursor:
        return found, total, ""
    return found, total, tr("cut after the newest {looked_at:,}: --limit shows more", looked_at=looked_at)


def document(shown: Shown, look: SavedView) -> dict[str, Any]:
    """The view for a program."""
    now = shown.view.now_ms
    return {
        "cluster": shown.desk.cluster,
        "at": datetime.fromtimestamp(now / 1000, UTC).isoformat(timespec="milliseconds"),
        "view": look.mode,
        "filter": look.filter_text,
        "shown": len(shown.view),
        "total": shown.total,
        "cut": bool(shown.note),
        "rows": [values_of(row, shown.view.fields, now) for row in shown.view.rows()],
    }


def text_lines(shown: Shown, look: SavedView, width: int | None) -> list[str]:
    """The view for people, at most ``width`` cells wide; None: as wide as its words are."""
    now = shown.view.now_ms
    lines = []
    if look.mode == "fleet":
        each = _PANEL if width is None else max(8, (width - 4) // 4)
        told = panels(shown.desk.store, now, each)
        lines.append(" ".join(fit(panel.title, each) for panel in told).rstrip())
        for place in range(PANEL_LINES):
            texts = (panel.lines[place].text if place < len(panel.lines) else "" for panel in told)
            lines.append(" ".join(fit(text, each) for text in texts).rstrip())
    rows = [[clean(column.cell(row, now)[0]) for column in shown.columns] for row in shown.view.rows()]
    if width is None:
        heads = [cells(column.shown_title) for column in shown.columns]
        widest = [max(head, 1, *(cells(row[at]) for row in rows)) for at, head in enumerate(heads)]
        laid = list(zip(shown.columns, widest, strict=True))
    else:
        laid = lay_out(shown.columns, width)
    places = {column.id: at for at, column in enumerate(shown.columns)}
    lines.append(" ".join(fit(column.shown_title, room, right=column.right) for column, room in laid).rstrip())
    for row in rows:
        words = (fit(row[places[column.id]], room, right=column.right) for column, room in laid)
        lines.append(" ".join(words).rstrip())
    return lines

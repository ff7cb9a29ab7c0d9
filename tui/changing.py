"""The console's acts that do tasks again with something changed (lcq/changing.py)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from lcq.changing import Changes, changed, differences, retry_elsewhere, submit_changed
from lcq.lang import tr
from lcq.models import TERMINAL_STATES, TaskRecord
from lcq.wire import BulkAnswer
from tui.acts import Act
from tui.commands import Tier
from tui.source import Commander
from tui.text import basename, counted


def again(records: Sequence[TaskRecord], changes: Changes) -> Act:
    """The act that does tasks again so: the same ones where that is enough, else new ones.

    Raises:
        InvalidInput: they cannot be tasks so.
    """
    if changes.makes_new:
        return _new_ones(records, changes)
    fit = [record for record in records if record.status in TERMINAL_STATES]
    others = Counter(one.status for one in records if one not in fit)
    place = changes.node or changes.queue

    async def run(commander: Commander, reason: str) -> BulkAnswer:
        return await retry_elsewhere(commander, fit, changes, reason=reason)

    tasks = counted(len(fit), "task")
    title = tr("Retry {tasks} in {place}", tasks=tasks, place=place) if place else tr("Retry {count}", count=tasks)
    lines = tuple(differences(fit, changes)) or (tr("nothing is changed: they go again as they were"),)
    named = ", ".join(f"{count:,} {tr(status)}" for status, count in others.items())
    skipped = tr("cannot be {past}: {named}", past=tr("retried"), named=named) if others else ""
    return Act(title, tr("retried"), tuple(one.id for one in fit), Tier.UNDOABLE, run, lines, tr("Yes, retry"), skipped)


def _new_ones(records: Sequence[TaskRecord], changes: Changes) -> Act:
    tasks = [changed(record.task, changes) for record in records]

    async def run(commander: Commander, reason: str) -> BulkAnswer:
        return await submit_changed(commander, tasks, changes, reason=reason)

    names = ", ".join(f"{record.id} {basename(record.task.image_path)}" for record in records[:3])
    lines = (
        tr(
            "{count} of {names}{what}; the old ones stay as they are",
            count=counted(len(tasks), "new task"),
            names=names,
            what=" …" if records[3:] else "",
        ),
        *differences(records, changes),
    )
    title = tr("Submit {count}", count=counted(len(tasks), "changed task"))
    return Act(title, tr("submitted"), tuple(task.id for task in tasks), Tier.UNDOABLE, run, lines, tr("Yes, submit"))

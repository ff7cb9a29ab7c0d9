"""Acts on tasks: on which by a filter, what of that is left alone, how much goes unasked; and what became of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Annotated

import typer
from rich.text import Text

from lcq.cli.choice import chosen
from lcq.cli.output import Column, Output, status_text, tail
from lcq.cli.session import OK, REFUSED
from lcq.client import AsyncClient
from lcq.errors import InvalidInput
from lcq.lang import tr
from lcq.models import TaskRecord, TaskStatus
from lcq.task_fields import parse_where
from lcq.wire import BulkAnswer

MANY = 10
"""An act on more tasks than this, of those that a filter fits, wants --yes."""
_SHOWN = 20
_ACTS_TOLD = 3  # of an act that took several commands

WhereOption = Annotated[
    str, typer.Option("--where", metavar="FILTER", help="All tasks that this fits, as lcq tasks takes it.")
]
YesFlag = Annotated[bool, typer.Option("--yes", help="Do it, although more than 10 tasks fit.")]
DryRunFlag = Annotated[bool, typer.Option("--dry-run", help="Only tell on which tasks it would fall.")]


@dataclass(frozen=True)
class Meant:
    """The tasks that an act falls on. ``revisions``, ``records``: as they were found, where a filter was asked; else
    none."""

    ids: tuple[str, ...]
    revisions: tuple[int, ...] = ()
    records: tuple[TaskRecord, ...] = ()


async def meant(
    client: AsyncClient,
    output: Output,
    ids: Sequence[str],
    *,
    where: str,
    legal: Collection[TaskStatus],
    yes: bool,
    dry_run: bool,
    job: str = "",
) -> Meant | None:
    """What is meant by ids, by a filter, or by a job; None where nothing shall be done: what would be is told then.

    Tasks of other states than ``legal`` are left alone, and counted, where a filter or a job says which. All of a job
    needs no yes.

    Raises:
        InvalidInput: neither or both are given, the filter says nothing, or it fits many and nobody said yes.
    """
    if ids and where:
        raise InvalidInput("say which tasks: either their ids or --where FILTER", hint="lcq tasks lists them")
    if job:
        await client.jobs(job)  # raises where there is none of that name
        # Not by a filter: what a job is called may have quotes in it, and | is "or" there.
        records = [record async for record in client.tasks(job=job)]
    elif not where:
        whole = await chosen(client, ids)
        if not dry_run:
            return Meant(tuple(whole))
        records = await client.get_many(whole)
    else:
        parse_where(where)
        records = [record async for record in client.tasks(where)]
    fit = [record for record in records if record.status in legal]
    left_alone = Counter(record.status for record in records if record.status not in legal)
    if dry_run:
        _tell_dry(fit, left_alone, output)
        return None
    if left_alone:
        output.talk(tr("left alone: {counts}", counts=_counted(left_alone)))
    if len(fit) > MANY and not (yes or job):
        counts = counted(fit)
        raise InvalidInput(
            f"{len(fit)} tasks fit ({counts}), and nothing was done", hint="--dry-run shows them, --yes does it"
        )
    return Meant(tuple(one.id for one in fit), tuple(one.revision for one in fit), tuple(fit))


def counted(records: Iterable[TaskRecord]) -> str:
    """How many of them are in which state."""
    return _counted(Counter(record.status for record in records))


def _counted(counts: Counter[TaskStatus]) -> str:
    return tr(", ").join(
        tr("{count} {status}", count=f"{count:,}", status=tr(status.value)) for status, count in counts.items()
    )


def _tell_dry(fit: Sequence[TaskRecord], left_alone: Counter[TaskStatus], output: Output) -> None:
    if output.as_json:
        output.document({"would": [one.id for one in fit], "left_alone": {str(k): n for k, n in left_alone.items()}})
        return
    output.table(
        [Column("TASK", whole=True), Column("STATUS", whole=True), Column("QUEUE"), Column("NODE"), Column("IMAGE")],
        _rows(fit[:_SHOWN]),
        empty=tr("it would fall on no task"),
    )
    if fit:
        counts = counted(fit)
        output.talk(tr("it would fall on {count:,} tasks: {counts}", count=len(fit), counts=counts))
    if left_alone:
        output.talk(tr("left alone: {counts}", counts=_counted(left_alone)))


def _rows(records: Iterable[TaskRecord]) -> Iterable[Sequence[str | Text]]:
    for one in records:
        yield one.id, status_text(one.status), one.queue, one.node, tail(one.task.image_path)


def tell(done: str, answer: BulkAnswer, output: Output) -> int:
    """Say what became of each id: one line if all is well, one more for each refusal."""
    if output.as_json:
        output.document(answer)
    elif answer.done:
        count = len(answer.done)
        names = " ".join(islice(answer.done, 5)) + (tr(" and {count} more", count=count - 5) if count > 5 else "")
        output.say(tr("{done}: {names}", done=done, names=names))
        for act in reversed(answer.acts[-_ACTS_TOLD:]):  # what was done last is taken back first
            output.talk(tr("'lcq undo {act}' takes it back, for 15 s", act=act))
    elif not answer.refused:
        output.talk(tr("no such tasks: nothing to do"))
    for refusal in answer.refused:
        output.error(refusal.error())
    return REFUSED if answer.refused else OK

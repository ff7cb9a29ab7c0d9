"""lcq deadline: by when tasks are to be done."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

import typer

from lcq.cli.bulk import DryRunFlag, WhereOption, YesFlag, meant, tell
from lcq.cli.examples import examples
from lcq.cli.output import duration
from lcq.cli.session import OK, JobOption, JsonFlag, Reason, Session, run, session_of
from lcq.errors import InvalidInput
from lcq.lang import tr
from lcq.models import TERMINAL_STATES, TaskStatus
from lcq.moments import moment_or_none, told_deadline

app = typer.Typer()

_OPEN = frozenset(TaskStatus) - TERMINAL_STATES


@app.command(
    epilog=examples(
        "lcq deadline 06ft3k 17:30",
        "lcq deadline 06ft3k '2026-12-24 09:00' --reason 'the client called'",
        "lcq deadline --job holiday 2h",
        "lcq deadline --where 'late:yes' none --yes",
    )
)
def deadline(
    context: typer.Context,
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="[TASK]... WHEN",
            help="Of which tasks, by their ids or the beginnings; then by when: 17:30, '2026-12-24 09:00', or 90m, 2h,"
            " 1d from now, or none.",
        ),
    ],
    job: JobOption = "",
    where: WhereOption = "",
    yes: YesFlag = False,
    dry_run: DryRunFlag = False,
    reason: Reason = "",
    as_json: JsonFlag = False,
) -> int:
    """Have tasks that wait or run done by another moment, or no matter when.

    Where that would be late here, functions may do them, if they are --exportable.
    """
    *ids, typed = words
    if not (ids or job or where):
        raise InvalidInput("say of which tasks, and then when", hint="lcq deadline TASK 17:30")
    if bool(ids) + bool(job) + bool(where) > 1:
        raise InvalidInput("say which tasks: by their ids, --job or --where", hint="lcq tasks lists them")
    when = moment_or_none(typed, datetime.now().astimezone())
    return run(_set(session_of(context, as_json), ids, job, where, when, yes, dry_run, reason))


async def _set(
    session: Session,
    ids: list[str],
    job: str,
    where: str,
    when: datetime | None,
    yes: bool,
    dry_run: bool,
    reason: str,
) -> int:
    async with session.client() as client:
        found = await meant(client, session.output, ids, where=where, legal=_OPEN, yes=yes, dry_run=dry_run, job=job)
        if found is None:
            return OK
        answer = await client.set_deadline(found.ids, when, revisions=found.revisions, reason=reason)
    done = tr("to be done no matter when")
    if when is not None:
        done = tr("to be done by {deadline}", deadline=told_deadline(when, duration))
    return tell(done, answer, session.output)

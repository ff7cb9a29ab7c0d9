"""lcq privacy: whether the pictures of tasks may leave the house."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from lcq.cli.bulk import DryRunFlag, Meant, WhereOption, counted, meant, tell
from lcq.cli.examples import examples
from lcq.cli.session import OK, JobOption, JsonFlag, Reason, Session, run, session_of
from lcq.errors import InvalidInput
from lcq.lang import tr
from lcq.models import TERMINAL_STATES, DeviceKind, Privacy, TaskRecord, TaskStatus

app = typer.Typer()

_OPEN = frozenset(TaskStatus) - TERMINAL_STATES
_NAMED = 5


@app.command(
    epilog=examples(
        "lcq privacy --job holiday exportable",
        "lcq privacy 06ft3k 06ft4m private --reason 'the client said no'",
        "lcq privacy --where 'queue:cpu-light age>1h' exportable --dry-run",
    )
)
def privacy(
    context: typer.Context,
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="[TASK]... exportable|private",
            help="Of which tasks, by their ids or the beginnings; then whether their pictures may leave the house:"
            " exportable, or private.",
        ),
    ],
    job: JobOption = "",
    where: WhereOption = "",
    yes: Annotated[
        bool, typer.Option("--yes", help="Do it unasked, although they may leave the house then, or more than 10 fit.")
    ] = False,
    dry_run: DryRunFlag = False,
    reason: Reason = "",
    as_json: JsonFlag = False,
) -> int:
    """Let tasks that wait or run leave the house (functions may work on them), or not any more.

    Those that may leave do so where they would be late here, within the budget. What may not and waits for a function
    waits in the house at once; what a function works on now is finished there.
    """
    *ids, typed = words
    if typed.casefold() not in tuple(Privacy):
        raise InvalidInput(
            f"{typed!r} is neither of {', '.join(Privacy)}",
            hint="say of which tasks, and then that: lcq privacy TASK private",
        )
    if not (ids or job or where):
        raise InvalidInput("say of which tasks, and then which", hint=f"lcq privacy TASK {typed.casefold()}")
    if bool(ids) + bool(job) + bool(where) > 1:
        raise InvalidInput("say which tasks: by their ids, --job or --where", hint="lcq tasks lists them")
    wanted, session = Privacy(typed.casefold()), session_of(context, as_json)
    found = run(_found(session, ids, job, where, yes=yes or wanted is Privacy.EXPORTABLE, dry_run=dry_run))
    if found is None:
        return OK
    if wanted is Privacy.EXPORTABLE and not yes:
        _ask(found, session)
    return run(_set(session, found, wanted, reason))


async def _found(session: Session, ids: list[str], job: str, where: str, *, yes: bool, dry_run: bool) -> Meant | None:
    async with session.client() as client:
        found = await meant(client, session.output, ids, where=where, legal=_OPEN, yes=yes, dry_run=dry_run, job=job)
        if found is None or found.records:
            return found
        return Meant(found.ids, found.revisions, tuple(await client.get_many(found.ids)))


def _ask(found: Meant, session: Session) -> None:
    """Raises:
    InvalidInput: somebody may be asked, and does not agree; or nobody may, and some may not leave by now.
    """
    kept = [one for one in found.records if one.status in _OPEN and one.task.privacy is Privacy.PRIVATE]
    if not kept:
        return
    counts = counted(kept)
    if session.as_json or not _is_terminal():
        raise InvalidInput(
            f"nothing was done: pictures might leave the house then, to others' functions (of tasks: {counts})",
            hint="--dry-run shows them, --yes does it",
        )
    question = tr(
        "Pictures may leave the house then, to functions of others (of tasks: {counts}). Do it?", counts=counts
    )
    if not typer.confirm(question, err=True):
        raise InvalidInput("nothing was done", hint="--dry-run shows them, --yes does it")


def _is_terminal() -> bool:
    return sys.stdin.isatty()


async def _set(session: Session, found: Meant, wanted: Privacy, reason: str) -> int:
    # Whatever has happened to a task since it was looked at: it may be kept in the house.
    seen = found.revisions if wanted is Privacy.EXPORTABLE else ()
    async with session.client() as client:
        answer = await client.set_privacy(found.ids, wanted, revisions=seen, reason=reason)
        out: list[TaskRecord] = []
        if wanted is Privacy.PRIVATE and answer.done:
            of_functions = {one.name for one in await client.queues() if one.config.kind is DeviceKind.SERVERLESS}
            records = await client.get_many(answer.done) if of_functions else ()
            out = [one for one in records if one.status is TaskStatus.PROCESSING and one.queue in of_functions]
    if wanted is Privacy.EXPORTABLE:
        return tell(tr("may leave the house"), answer, session.output)
    code = tell(tr("stays in the house"), answer, session.output)
    if out:
        names = " ".join(one.id for one in out[:_NAMED]) + (
            tr(" and {count} more", count=len(out) - _NAMED) if len(out) > _NAMED else ""
        )
        session.output.talk(
            tr(
                "a function works on it now, and finishes that; another attempt would be made in the house: {names}",
                names=names,
            )
        )
    return code

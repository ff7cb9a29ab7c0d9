"""lcq acts, undo: who did what to the cluster and why, and taking it back."""

from __future__ import annotations

from typing import Annotated

import typer

from lcq.cli.examples import examples
from lcq.cli.output import Column, Output, clock, duration
from lcq.cli.session import OK, JsonFlag, Reason, Session, run, session_of
from lcq.cli.tasks import tell
from lcq.client import AsyncClient
from lcq.errors import InvalidInput
from lcq.lang import retold, tr
from lcq.models import ActRecord

app = typer.Typer()

_LOOKED_AT = 1000  # acts among which the beginning of an id is looked for

_COLUMNS = (
    Column("TIME", whole=True),
    Column("WHO"),
    Column("ACT", whole=True),
    Column("ON"),
    Column("REASON", wrapped=True),
    Column("OUTCOME", wrapped=True),
    Column("UNDO", whole=True),
)


@app.command(epilog=examples("lcq acts", "lcq acts --actor maria --limit 200", "lcq acts --json | jq '.[].act'"))
def acts(
    context: typer.Context,
    actor: Annotated[str, typer.Option("--actor", metavar="NAME", help="Only what this one did.")] = "",
    limit: Annotated[int, typer.Option("--limit", min=1, help="How many, the newest first.")] = 50,
    as_json: JsonFlag = False,
) -> int:
    """List who did what to the cluster and why, the newest first; UNDO says for how long it can be taken back."""
    return run(_acts(session_of(context, as_json), actor, limit))


async def _acts(session: Session, actor: str, limit: int) -> int:
    found: list[ActRecord] = []
    async with session.client() as client:
        while len(found) < limit:
            page = await client.acts(actor=actor, before=found[-1].id if found else "", limit=limit - len(found))
            if not page:
                break
            found += page
    output = session.output
    if output.as_json:
        output.document(found)
        return OK
    output.table(_COLUMNS, map(_row, found), empty=tr("nobody has done anything yet"))
    return OK


def _row(one: ActRecord) -> tuple[str, ...]:
    undo = f"{one.command} {duration(one.undo_ms / 1000)}" if one.undo_ms else ""
    return clock(one.at_ms), one.actor, one.act, one.on, one.reason, retold(one.outcome), undo


@app.command(epilog=examples("lcq undo", "lcq undo 06ft3k --reason 'wrong queue'"))
def undo(
    context: typer.Context,
    act: Annotated[
        str, typer.Argument(metavar="ACT", help="Its id, or the beginning: lcq acts. Your last, if none.")
    ] = "",
    reason: Reason = "",
    as_json: JsonFlag = False,
) -> int:
    """Take an act back within 15 s: retry, reroute, prioritise, cancel of what does not run, pause, resume.

    Each task is put back exactly as it was, in its old place, unless something has happened to it since: then that is
    told, and it stays as it is.
    """
    session = session_of(context, as_json)

    async def take_back() -> int:
        async with session.client() as client:
            meant = await _meant(client, act, session.output)
            return tell(tr("taken back"), await client.undo(meant.command, reason=reason), session.output)

    return run(take_back())


async def _meant(client: AsyncClient, typed: str, output: Output) -> ActRecord:
    """Raises:
    InvalidInput: no act can be meant, or several.
    """
    if not typed:
        mine = [one for one in await client.acts(actor=client.actor, limit=20) if one.undo_ms]
        if not mine:
            raise InvalidInput(
                f"{client.actor} has done nothing in the last 15 s that can be taken back",
                hint="'lcq acts' shows what was done; 'lcq undo ACT' takes back what somebody else did",
            )
        output.talk(f"{mine[0].act} {mine[0].on}".rstrip())
        return mine[0]
    found = [one for one in await client.acts(limit=_LOOKED_AT) if one.command.startswith(typed.lower())]
    if not found:
        raise InvalidInput(f"no act of late has an id that begins with {typed!r}", hint="lcq acts lists them")
    if len({one.command for one in found}) > 1:
        raise InvalidInput(f"{len(found)} acts have ids that begin with {typed!r}", hint="type more of it")
    return found[0]

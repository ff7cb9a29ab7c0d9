"""lcq acts, undo: who did what to the cluster and why, and taking it back."""

from __future__ import annotations

import re
import time
from typing import Annotated

import typer

from lcq.act_fields import parse_acts_where
from lcq.cli.bulk import tell
from lcq.cli.examples import examples
from lcq.cli.output import Column, Output, clock, duration
from lcq.cli.session import OK, JsonFlag, Reason, Session, run, session_of
from lcq.client import AsyncClient
from lcq.errors import InvalidInput
from lcq.lang import retold, tr
from lcq.models import ActRecord

app = typer.Typer()

_PAGE = 1000  # acts asked for at a time where a filter looks for some
_LOOKED_AT = 1000  # acts among which the beginning of an id is looked for

_COLUMNS = (
    Column("TIME", whole=True),
    Column("WHO"),
    Column("ACT", whole=True),
    Column("ON"),
    Column("REASON", wrapped=True),
    Column("OUTCOME", wrapped=True, spared=2),
    Column("UNDO", whole=True, spared=1),
)


@app.command(
    epilog=examples(
        "lcq acts", "lcq acts --actor maria --limit 200", "lcq acts 'act:reroute on:gpu-high age<2h'",
        "lcq acts --before 2h", "lcq acts --json | jq '.[].act'",
    )
)  # fmt: skip
def acts(
    context: typer.Context,
    where: Annotated[
        list[str] | None,
        typer.Argument(metavar="[FILTER]", help="As in the console: words, actor: act: on: reason: outcome: age<2h."),
    ] = None,
    actor: Annotated[str, typer.Option("--actor", metavar="NAME", help="Only what this one did.")] = "",
    before: Annotated[
        str, typer.Option("--before", metavar="WHEN", help="Only older ones: than 2h ago, or than the act of that id.")
    ] = "",
    limit: Annotated[int, typer.Option("--limit", min=1, help="How many, the newest first.")] = 50,
    as_json: JsonFlag = False,
) -> int:
    """List who did what to the cluster and why, the newest first; UNDO says for how long it can be taken back."""
    return run(_acts(session_of(context, as_json), " ".join(where or ()), actor, before, limit))


async def _acts(session: Session, where: str, actor: str, before: str, limit: int) -> int:
    fits = parse_acts_where(where)
    found: list[ActRecord] = []
    last, is_more = _place_of(before), False
    async with session.client() as client:
        while len(found) < limit:
            page = await client.acts(actor=actor, before=last, limit=_PAGE if fits else limit - len(found) + 1)
            now_ms = time.time_ns() // 1_000_000
            fitting = [one for one in page if fits.matches(one, now_ms)]
            is_more = len(found) + len(fitting) > limit
            found += fitting[: limit - len(found)]
            if not page:
                break
            last = page[-1].id
    output = session.output
    if output.as_json:
        output.document(found)
        return OK
    nothing = tr("no act fits the filter") if fits or before or actor else tr("nobody has done anything yet")
    output.table(_COLUMNS, map(_row, found), empty=nothing)
    if is_more:
        output.talk(tr("there are older ones: --limit shows more, --before {id} goes on from here", id=found[-1].id))
    return OK


def _place_of(when: str) -> str:
    """Where in the audit reading begins: below the act of this id, or so long ago; "": at the newest.

    Raises:
        InvalidInput: it is neither.
    """
    if not when or re.fullmatch(r"\d{10,}-\d+", when):
        return when
    try:
        ago = parse_acts_where(f"age>{when}").clauses[0].number
    except InvalidInput as error:
        raise InvalidInput(
            f"--before {when!r} is no length of time and no id of an act", hint="such as 2h, or an id of --json"
        ) from error
    return f"{max(0, time.time_ns() // 1_000_000 - round(ago))}-0"


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
    """Take back (15 s): retry, reroute, priority, deadline, privacy, comment, ack, pause, resume, cancel of what waits.

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

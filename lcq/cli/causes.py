"""lcq causes, ack: what failed tasks died of, and saying that somebody knows of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import typer

from lcq.causes import APART
from lcq.cli.examples import examples
from lcq.cli.output import Column, Output, age
from lcq.cli.session import OK, JobOption, JsonFlag, Session, run, session_of
from lcq.client import AsyncClient
from lcq.errors import CauseNotFound, InvalidInput
from lcq.lang import N, retold, tr
from lcq.models import Cause
from lcq.wire import DeadAnswer

app = typer.Typer()

MAX_NOTE = 500
_HEADS = {"model": N("MODEL"), "node": N("NODE"), "size": N("SIZE")}
_BARS = " ▁▂▃▄▅▆▇█"


@app.command(
    epilog=examples(
        "lcq causes", "lcq causes --by model,node", "lcq causes --cause out_of_memory --by size", "lcq causes --json"
    )
)
def causes(
    context: typer.Context,
    cause: Annotated[str, typer.Option("--cause", metavar="CODE", help="Only failures of this code.")] = "",
    job: JobOption = "",
    by: Annotated[
        str, typer.Option("--by", metavar="WHAT", help="Tell them apart by these, too: model,node,size (of the image).")
    ] = "",
    as_json: JsonFlag = False,
) -> int:
    """Group the failed tasks by cause: how many, first and last, where, and who knows of it ('lcq ack')."""
    return run(_causes(session_of(context, as_json), cause, job, _apart(by)))


def _apart(by: str) -> tuple[str, ...]:
    """Raises:
    InvalidInput: causes are not told apart by that.
    """
    named = tuple(dict.fromkeys(filter(None, (one.strip() for one in by.split(",")))))
    if unknown := [one for one in named if one not in APART]:
        raise InvalidInput(f"failures are not grouped by {unknown[0]!r}", hint=f"there is {', '.join(APART)}")
    return named


async def _causes(session: Session, code: str, job: str, by: tuple[str, ...]) -> int:
    async with session.client() as client:
        answer = await client.dead(cause=code, job=job, by=by)
    tell_causes(answer, session.output)
    if by and answer.causes and not answer.causes[0].of:
        session.output.talk(tr("this scheduler is an older one: it groups failures by their errors alone"))
    return OK


def tell_causes(answer: DeadAnswer, output: Output) -> None:
    """The failures by cause, the most frequent first."""
    if output.as_json:
        output.document(answer)
        return
    by = tuple(answer.causes[0].of) if answer.causes else ()
    output.table(
        [
            Column("COUNT", right=True, whole=True),
            *(Column(_HEADS[name], whole=True) for name in by),
            Column("CAUSE", wrapped=True),
            *([Column("NODES", spared=2)] if "node" not in by else []),
            Column("LAST HOUR", whole=True, spared=3),
            Column("FIRST", right=True, whole=True, spared=4),
            Column("LAST", right=True, whole=True),
            Column("FOR EXAMPLE", whole=True),
            Column("KNOWN TO", wrapped=True, spared=1),
        ],
        (
            (
                str(one.count),
                *(one.of.get(name, "") or "?" for name in by),
                f"{one.code}: {retold(one.text)}",
                *([", ".join(one.nodes)] if "node" not in by else []),
                _trend(one.trend),
                tr("{age} ago", age=age(one.oldest_ms)) if one.oldest_ms else "",
                tr("{age} ago", age=age(one.newest_ms)),
                one.newest,
                _known(one),
            )
            for one in answer.causes
        ),
        empty=tr("no failed tasks"),
    )
    if answer.total > answer.looked_at:
        output.talk(tr("counted from the newest {some} of {all}", some=answer.looked_at, all=answer.total))


def _trend(counts: Sequence[int]) -> str:
    """The last hour in steps of five minutes, as bars."""
    most = max(counts, default=0)
    return "".join(_BARS[-(-count * (len(_BARS) - 1) // most)] for count in counts) if most else "-"


def _known(cause: Cause) -> str:
    if cause.acknowledged is None:
        return ""
    return f"{cause.acknowledged.actor}: {cause.acknowledged.text}".removesuffix(": ")


@app.command(
    epilog=examples(
        "lcq ack out_of_memory '1.8 doubled the buffer, rolling back'",
        "lcq ack out_of_memory --text 'tried to allocate' 'known'",
        "lcq ack out_of_memory --withdraw",
    )
)
def ack(
    context: typer.Context,
    cause: Annotated[str, typer.Argument(metavar="CAUSE", help="Its code: lcq causes.")],
    note: Annotated[str, typer.Argument(metavar="[NOTE]", help="What others shall read; at most 500 characters.")] = "",
    text: Annotated[
        str, typer.Option("--text", metavar="WORDS", help="Part of its message, where several have this code.")
    ] = "",
    withdraw: Annotated[bool, typer.Option("--withdraw", help="It is open again.")] = False,
    as_json: JsonFlag = False,
) -> int:
    """Tell others that somebody knows of a cause of failures, with a note; its tasks stay as they are."""
    if withdraw and note:
        raise InvalidInput("--withdraw takes no note", hint="lcq ack CAUSE --withdraw")
    if len(note.strip()) > MAX_NOTE:
        raise InvalidInput(f"a note has at most {MAX_NOTE} characters, found {len(note.strip())}")
    return run(_ack(session_of(context, as_json), cause, text, note.strip(), withdraw))


async def _ack(session: Session, code: str, text: str, note: str, withdraw: bool) -> int:
    output = session.output
    async with session.client() as client:
        meant = await _meant(client, code, text)
        act = await client.acknowledge(meant.code, meant.text, note=note, withdraw=withdraw)
    name = f"{meant.code}: {meant.text}"
    if output.as_json:
        output.document({"cause": meant.code, "text": meant.text, "note": note, "withdrawn": withdraw})
    else:
        output.say(tr("open again: {name}", name=name) if withdraw else tr("acknowledged: {name}", name=name))
        output.talk(tr("'lcq undo {act}' takes it back, for 15 s", act=act))
    return OK


async def _meant(client: AsyncClient, code: str, text: str) -> Cause:
    """The one cause of this code that has ``text`` in it.

    Raises:
        CauseNotFound: there is none.
        InvalidInput: there are several.
    """
    of_code = (await client.dead(cause=code)).causes
    found = [one for one in of_code if text.casefold() in one.text.casefold()]
    if not found:
        raise CauseNotFound(code, text)
    exact = [one for one in found if one.text == text]
    if len(found) > 1 and len(exact) != 1:
        listed = "; ".join(one.text for one in found[:5])
        raise InvalidInput(f"{len(found)} causes have the code {code!r}: {listed}", hint="say which by --text WORDS")
    return (exact or found)[0]

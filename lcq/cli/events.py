"""lcq events: what happens in the cluster, a line each."""

from __future__ import annotations

import re
import time
from typing import Annotated

import typer

from lcq.cli.examples import examples
from lcq.cli.output import Output
from lcq.cli.session import INTERRUPTED, OK, JsonFlag, Session, run, session_of
from lcq.cli.tasks import details
from lcq.errors import InvalidInput
from lcq.models import Event
from lcq.wire import Events

app = typer.Typer()

_SPAN = re.compile(r"(\d+(?:\.\d+)?)\s*([smhd]?)")
_UNIT_S = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}
_DEFAULT_SINCE = "10m"


@app.command(epilog=examples("lcq events -f", "lcq events --since 1h --task 06ft3k", "lcq events -f --json | jq .move"))
def events(
    context: typer.Context,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on as things happen, until ctrl-c.")] = False,
    since: Annotated[
        str | None,
        typer.Option(
            "--since", metavar="SPAN", help="How far back, as 90s, 10m, 2h or 1d; default 10m, or now with -f."
        ),
    ] = None,
    task: Annotated[str, typer.Option("--task", metavar="ID", help="Only of this task.")] = "",
    as_json: JsonFlag = False,
) -> int:
    """Show what happened, the oldest first; with -f also what happens next. JSON is a document a line."""
    session = session_of(context, as_json)
    span_s = _seconds(since or _DEFAULT_SINCE)
    from_now_on = follow and since is None
    try:
        return run(_events(session, follow, None if from_now_on else span_s, task))
    except KeyboardInterrupt:
        return INTERRUPTED


def _seconds(span: str) -> float:
    parts = _SPAN.fullmatch(span.strip())
    if parts is None:
        raise InvalidInput(f"{span!r} is not a span of time", hint="for example 90s, 10m, 2h or 1d")
    return float(parts[1]) * _UNIT_S[parts[2]]


async def _events(session: Session, follow: bool, span_s: float | None, typed: str) -> int:
    output = session.output
    async with session.client() as client:
        task_id = await client.find(typed) if typed else ""
        after = (await client.info()).last_event_id
        if span_s is not None:
            newest, after = after, f"{max(0, round((time.time() - span_s) * 1000))}-0"
            while _order(after) < _order(newest):
                page = await client.ask(Events(after=after))
                after = page.last_id
                _show(page.events, task_id, output)
                if not page.events:
                    break
        if follow:
            async for event in client.events(after):
                _show((event,), task_id, output)
    return OK


def _order(event_id: str) -> tuple[int, int]:
    at_ms, _, number = event_id.partition("-")
    return int(at_ms or 0), int(number or 0)


def _show(found: tuple[Event, ...], task_id: str, output: Output) -> None:
    for event in found:
        if task_id and event.fields.get("id") != task_id:
            continue
        if output.as_json:
            output.line(event)
        else:
            output.event(event, details(event.fields))

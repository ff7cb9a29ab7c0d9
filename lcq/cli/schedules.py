"""lcq schedules: what is submitted by itself, and when; the windows of nodes."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import Annotated

import typer

from lcq.cli.asking import ask_and_tell
from lcq.cli.examples import examples
from lcq.cli.output import Column, Output, duration
from lcq.cli.session import OK, JsonFlag, Reason, Session, session_of
from lcq.client import AsyncClient
from lcq.lang import ntr, retold, tr
from lcq.wire.schedules import RanSchedule, ScheduleRecord, SchedulesAnswer, WindowRecord

app = typer.Typer()

Name = Annotated[str, typer.Argument(metavar="NAME", help="As the settings call it.")]


@app.callback(
    invoke_without_command=True,
    epilog=examples("lcq schedules", "lcq schedules run nightly", "lcq schedules pause nightly --reason 'new masks'"),
)
def schedules(context: typer.Context, as_json: JsonFlag = False) -> int:
    """List the schedules: when each is due next, and what came of the last time; and the windows of nodes."""
    if context.invoked_subcommand is not None:
        return OK
    return ask_and_tell(session_of(context, as_json), AsyncClient.schedules, _tell)


def _tell(found: SchedulesAnswer, output: Output) -> None:
    output.table(
        [
            Column("SCHEDULE", whole=True),
            Column("WHEN"),
            Column("NEXT", whole=True),
            Column("LAST", whole=True),
            Column("WHAT CAME OF IT"),
        ],
        (
            (one.name, f"{one.cron} {one.timezone}", _next(one), _local(one.last_due_ms), _came(one))
            for one in found.schedules
        ),
        empty=tr("no schedules: see schedules in lcq.yaml"),
    )
    if found.windows:
        output.heading(tr("Windows"))
        output.table(
            [Column("WINDOW", whole=True), Column("OPEN"), Column("NOW", whole=True), Column("NODES", wrapped=True)],
            ((one.name, one.told, _now(one), ", ".join(one.nodes)) for one in found.windows),
        )


def _next(one: ScheduleRecord) -> str:
    if one.paused_by:
        return tr("paused by {by} {reason}", by=one.paused_by, reason=one.paused_reason).rstrip()
    return _local(one.next_ms[0]) if one.next_ms else ""


def _came(one: ScheduleRecord) -> str:
    return tr("cannot be run: {error}", error=retold(one.error)) if one.error else retold(one.last_told)


def _now(one: WindowRecord) -> str:
    left = duration(max(0.0, one.changes_ms / 1000 - time.time()))
    return tr("open, closes in {time}", time=left) if one.is_open else tr("closed, opens in {time}", time=left)


def _local(ms: int) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(ms / 1000)) if ms else ""


@app.command("run", epilog=examples("lcq schedules run nightly"))
def run_now(context: typer.Context, name: Name, reason: Reason = "", as_json: JsonFlag = False) -> int:
    """Run a schedule now, also one that is paused; when it is due next stays as it is."""
    session = session_of(context, as_json)
    return ask_and_tell(session, lambda client: client.run_schedule(name, reason=reason), _tell_run)


def _tell_run(made: RanSchedule, output: Output) -> None:
    output.say(ntr("{n} task in job {job}", "{n} tasks in job {job}", made.accepted, job=made.job or "-"))
    if made.there:
        output.talk(ntr("{n} result is there already", "{n} results are there already", made.there))
    if made.skipped:
        output.talk(ntr("{n} file was left out", "{n} files were left out", made.skipped))
    if made.refused:
        output.talk(tr("{count} were refused: {why}", count=made.refused, why=retold(made.example)))


@app.command(epilog=examples("lcq schedules pause nightly --reason 'new masks'"))
def pause(context: typer.Context, name: Name, reason: Reason = "", as_json: JsonFlag = False) -> int:
    """Run a schedule no more until it is resumed."""
    session, told = session_of(context, as_json), tr("{name} is paused", name=name)
    return _act(session, name, lambda client: client.pause_schedule(name, reason=reason), told)


@app.command(epilog=examples("lcq schedules resume nightly"))
def resume(context: typer.Context, name: Name, reason: Reason = "", as_json: JsonFlag = False) -> int:
    """Run a schedule again when it is due next; what was due meanwhile is not made up for."""
    session, told = session_of(context, as_json), tr("{name} is resumed", name=name)
    return _act(session, name, lambda client: client.resume_schedule(name, reason=reason), told)


def _act(session: Session, name: str, act: Callable[[AsyncClient], Awaitable[None]], told: str) -> int:
    async def ask(client: AsyncClient) -> dict[str, list[str]]:
        await act(client)
        return {"done": [name], "refused": []}  # as the other acts answer

    return ask_and_tell(session, ask, lambda _, output: output.say(told))

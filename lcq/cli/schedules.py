"""lcq schedules: what is submitted by itself, and when; the windows of nodes."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from lcq.cli.examples import examples
from lcq.cli.output import Column, Output, duration
from lcq.cli.session import OK, JsonFlag, Reason, Session, run, session_of
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
    return run(_list(session_of(context, as_json)))


async def _list(session: Session) -> int:
    output = session.output
    async with session.client() as client:
        found = await client.schedules()
    if output.as_json:
        output.document(found)
        return OK
    _tell(found, output)
    return OK


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
    return run(_run(session_of(context, as_json), name, reason))


async def _run(session: Session, name: str, reason: str) -> int:
    async with session.client() as client:
        made = await client.run_schedule(name, reason=reason)
    if session.output.as_json:
        session.output.document(made)
        return OK
    _tell_run(made, session.output)
    return OK


def _tell_run(made: RanSchedule, output: Output) -> None:
    output.say(ntr("{n} task in job {job}", "{n} tasks in job {job}", made.accepted, job=made.job or "-"))
    if made.there:
        output.talk(ntr("{n} result is there already", "{n} results are there already", made.there))
    if made.skipped:
        output.talk(ntr("{n} file was left out", "{n} files were left out", made.skipped))
    if made.refused:
        output.talk(tr("{count} were refused: {why}", count=made.refused, why=retold(made.example)))


@app.command(epilog=examples("lcq schedules pause nightly --reason 'new masks'"))
def pause(context: typer.Context, name: Name, reason: Reason = "") -> int:
    """Run a schedule no more until it is resumed."""
    return run(_pause(session_of(context), name, reason))


async def _pause(session: Session, name: str, reason: str) -> int:
    async with session.client() as client:
        await client.pause_schedule(name, reason=reason)
    session.output.say(tr("{name} is paused", name=name))
    return OK


@app.command(epilog=examples("lcq schedules resume nightly"))
def resume(context: typer.Context, name: Name, reason: Reason = "") -> int:
    """Run a schedule again when it is due next; what was due meanwhile is not made up for."""
    return run(_resume(session_of(context), name, reason))


async def _resume(session: Session, name: str, reason: str) -> int:
    async with session.client() as client:
        await client.resume_schedule(name, reason=reason)
    session.output.say(tr("{name} is resumed", name=name))
    return OK

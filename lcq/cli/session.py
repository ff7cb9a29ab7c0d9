"""What every command shares: the session that the global options began, and options that several have."""

from __future__ import annotations

import dataclasses
from collections.abc import Coroutine
from typing import Annotated, Any, TypeVar

import typer

from lcq.cli.called import INTERRUPTED as INTERRUPTED
from lcq.cli.called import NOT_IN_TIME as NOT_IN_TIME
from lcq.cli.called import OK as OK
from lcq.cli.called import REFUSED as REFUSED
from lcq.cli.called import SHELL_ASKS as SHELL_ASKS
from lcq.cli.called import SOME_FAILED as SOME_FAILED
from lcq.cli.called import UNREACHABLE as UNREACHABLE
from lcq.cli.called import Session as Session
from lcq.lang import T

ResultT = TypeVar("ResultT")

JsonFlag = Annotated[bool, typer.Option("--json", help="Answer in JSON, for programs.")]
_IDS = "Task ids, or any unique beginnings of them."
Ids = Annotated[list[str], typer.Argument(metavar="ID", help=_IDS)]
SomeIds = Annotated[list[str] | None, typer.Argument(metavar="ID", help=_IDS)]


def _named(context: typer.Context, parameter: typer.CallbackParam, value: Any) -> Any:
    """Refuse a name that is empty: ``--job "$JOB"`` of a script that has none must not mean all there is."""
    source = context.get_parameter_source(parameter.name)
    if source is not None and source.name == "COMMANDLINE" and not all([value] if isinstance(value, str) else value):
        raise typer.BadParameter(T("it is empty: a job has a name"), ctx=context, param_hint="'--job'")
    return value


JobOption = Annotated[str, typer.Option("--job", metavar="NAME", help="All tasks of this job.", callback=_named)]
JobsOption = Annotated[
    list[str] | None,
    typer.Option("--job", metavar="NAME", help="All tasks of this job (again for more).", callback=_named),
]
Reason = Annotated[str, typer.Option("--reason", metavar="TEXT", help="Why; kept in the audit.")]


def session_of(context: typer.Context, as_json: bool = False) -> Session:
    """The session that the global options began; ``--json`` may also stand behind the command."""
    session = context.find_object(Session)
    if session is None:
        raise RuntimeError("a command runs below the app, whose callback makes the session")
    return dataclasses.replace(session, as_json=True) if as_json else session


def run(work: Coroutine[Any, Any, ResultT]) -> ResultT:
    """Run a command's coroutine; ctrl-c cancels it and comes out as KeyboardInterrupt."""
    import asyncio

    return asyncio.run(work)

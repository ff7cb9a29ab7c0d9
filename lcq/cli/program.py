"""The program lcq: its global options, its commands, and what becomes of an error."""
# ruff: noqa: E402

from __future__ import annotations

import gc
import re

_had_been_enabled = gc.isenabled()
gc.disable()  # nothing that is imported becomes garbage: to look for it there is a tenth of the start

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

# No package that extends pydantic is of use here: to look for them reads what every installed one says of itself.
os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")

import typer
from typer.core import TyperGroup

from lcq.cli.commands import Commands
from lcq.cli.once import refuse_second_values
from lcq.cli.session import INTERRUPTED, NOT_IN_TIME, REFUSED, SHELL_ASKS, UNREACHABLE, Session
from lcq.cli.translated import translate_helps
from lcq.errors import LcqError, SchedulerUnreachable, StateOverloaded, StateUnavailable
from lcq.lang import Language, retold, speak_as_asked, tr
from lcq.log import LogLevel

if TYPE_CHECKING:
    from lcq.cli.output import Output

if _had_been_enabled:
    gc.enable()

_EPILOG = (
    "Begin with [bold]lcq up[/bold] in one terminal and [bold]lcq submit FOLDER --wait[/bold] in another."
    " Exit codes: 0 done, 1 some tasks failed, 2 refused or wrong usage, 3 nobody answers, 4 not in time,"
    " 130 interrupted."
)


class Program(TyperGroup):
    """Turns what goes wrong into one line, a hint and an exit code. Of its commands it loads those that are used."""

    def __init__(self, **given: Any) -> None:
        super().__init__(**given)
        self.commands = Commands()

    def list_commands(self, ctx: Any) -> list[str]:
        return list(self.commands)

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except (LcqError, TimeoutError) as error:
            session = ctx.obj or Session()
            if session.log_level == "debug":
                import traceback

                traceback.print_exception(error)
            raise typer.Exit(tell(error, session.output)) from error

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        windows_expand_args: bool = True,
        **extra: Any,
    ) -> Any:
        args = sys.argv[1:] if args is None else list(args)
        speak_as_asked(args)
        translate_helps()
        refuse_second_values()
        if SHELL_ASKS in os.environ:
            from typer.completion import completion_init  # type: ignore[attr-defined]

            completion_init()
        try:
            code = super().main(args, prog_name, complete_var, False, windows_expand_args, **extra)
        except typer.TyperException as error:
            code = error.exit_code
            context = getattr(error, "ctx", None)
            command = context.command_path if context is not None else "lcq"
            from lcq.cli.misplaced import where_it_belongs
            from lcq.cli.output import Output

            if misplaced := where_it_belongs(error, args):
                Output().complain(*misplaced)
            elif message := _one_line(error.format_message()):  # else its help was shown
                hint = tr("'{command} --help' tells how it is used", command=command)
                Output().complain(retold(message), hint)
        except typer.Abort:
            code = INTERRUPTED
        if standalone_mode:
            sys.exit(code or 0)
        return code or 0


def tell(error: LcqError | TimeoutError, output: Output) -> int:
    """Say what went wrong, and answer the exit code of it."""
    if isinstance(error, TimeoutError):
        output.complain(retold(str(error)), tr("they go on; wait again, or see 'lcq tasks'"))
        return NOT_IN_TIME
    output.error(error)
    if isinstance(error, StateOverloaded):
        return REFUSED
    return UNREACHABLE if isinstance(error, SchedulerUnreachable | StateUnavailable) else REFUSED


_OF_NO_USE = re.compile("Value error, ")  # pydantic's


def _one_line(message: str) -> str:
    message = _OF_NO_USE.sub("", " ".join(message.split()))
    return message[:1].lower() + message[1:]


app = typer.Typer(
    cls=Program,
    name="lcq",
    help="Clean up images on a fleet: submit them, watch them, steer them.",
    epilog=_EPILOG,
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def begin(
    context: typer.Context,
    config: Annotated[
        Path | None, typer.Option("--config", metavar="FILE", help="A file of settings, over those of lcq.yaml here.")
    ] = None,
    scheduler: Annotated[
        str | None,
        typer.Option("--scheduler", metavar="HOST:PORT", help="The scheduler to talk to, or several with commas."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Answer in JSON, for programs.")] = False,
    log_level: Annotated[LogLevel | None, typer.Option("--log-level", help="How much to log.")] = None,
    patience_s: Annotated[
        float, typer.Option("--patience", metavar="SECONDS", min=0.01, help="How long to wait for an answer.")
    ] = 10.0,
    cluster: Annotated[
        str | None, typer.Option("--context", metavar="NAME", help="One of the contexts in the settings.")
    ] = None,
    lang: Annotated[
        Language | None,
        typer.Option("--lang", help="The language to speak; default: LCQ_LANG, else the locale."),
    ] = None,
) -> None:
    if not gc.isenabled():  # by main(): what is loaded to find the command is kept too
        gc.freeze()
        gc.enable()
    context.obj = Session(config, scheduler, as_json, log_level, patience_s, cluster, lang)


def run() -> None:
    """Run the command line and end the process with its exit code."""
    gc.disable()
    try:
        app()
    finally:
        gc.freeze()  # the process ends: to look for garbage in all there is would take it longer than many a command

"""lcq up, scheduler, console, demo, version: what runs, and which version of it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lcq.cli.examples import examples
from lcq.cli.session import OK, JsonFlag, Session, run, session_of
from lcq.console import find_console
from lcq.errors import InvalidInput, LcqError, SchedulerUnreachable
from lcq.lang import ntr, retold, retold_error, tr
from lcq.loading import for_good

if TYPE_CHECKING:
    from lcq.wire import InfoAnswer

app = typer.Typer()

_BRIEFLY_S = 1.0


@app.command(epilog=examples("lcq up", "lcq up --headless"))
def up(
    context: typer.Context,
    headless: Annotated[bool, typer.Option("--headless", help="Without the console.")] = False,
) -> int:
    """Run a whole cluster on this machine: private Redis, a scheduler, an agent, and the console."""
    with for_good():
        from lcq.server import run_up  # here, so that a client command need not load a scheduler

    return run_up(session_of(context).settings, headless=headless)


@app.command(epilog=examples("lcq scheduler", "lcq --config lcq.yaml scheduler"))
def scheduler(context: typer.Context) -> int:
    """Run a scheduler until it is told to stop; any number may run at once."""
    with for_good():
        from lcq.server import run_scheduler

    return run_scheduler(session_of(context).settings)


@app.command(
    epilog=examples(
        "lcq console",
        "lcq --context studio console --read-only",
        "lcq console --once 'state:failed age<1d'",
        "lcq console --replay this-morning.lcqrec --at 11:45",
        "lcq console --json --view nodes needs:attention",
    )
)
def console(
    context: typer.Context,
    where: Annotated[
        list[str] | None, typer.Argument(metavar="[FILTER]", help="For --once and --json: only what fits.")
    ] = None,
    theme: Annotated[
        str,
        typer.Option(
            "--theme", metavar="NAME", help="Its colours, such as lcq-light or lcq-blue; default: as chosen last."
        ),
    ] = "",
    read_only: Annotated[bool, typer.Option("--read-only", help="No key changes anything.")] = False,
    record: Annotated[str, typer.Option("--record", metavar="FILE", help="Record what is seen into a new file.")] = "",
    replay: Annotated[str, typer.Option("--replay", metavar="FILE", help="Show a recording instead.")] = "",
    at: Annotated[str, typer.Option("--at", metavar="TIME", help="For --replay: from then on, such as 11:45.")] = "",
    web: Annotated[
        bool, typer.Option("--web", help=r"In a browser (pip install 'lcq\[web]'); on loopback, unless told.")
    ] = False,
    web_host: Annotated[
        str, typer.Option("--web-host", metavar="ADDRESS", help="For --web: what to bind; nothing is encrypted.")
    ] = "127.0.0.1",
    web_port: Annotated[int, typer.Option("--web-port", min=0, max=65535, help="For --web; 0: a free one.")] = 8000,
    once: Annotated[bool, typer.Option("--once", help="Print the view and exit; needs no terminal.")] = False,
    as_json: JsonFlag = False,
    view: Annotated[
        str,
        typer.Option(
            "--view",
            metavar="NAME",
            help="fleet, tasks, queues, nodes, causes, activity, spend, schedules or keys.",
        ),
    ] = "tasks",
    saved: Annotated[str, typer.Option("--saved", metavar="NAME", help="A saved view instead.")] = "",
    limit: Annotated[int, typer.Option("--limit", min=1, max=10_000, help="How many tasks or acts at most.")] = 100,
) -> int:
    """Watch and steer the cluster in this terminal."""
    session = session_of(context, as_json)
    if once or session.as_json:
        print_view = find_console("console-once")
        words = " ".join(where or ())
        return print_view(session.config, mode=view, words=words, saved=saved, as_json=session.as_json, limit=limit)
    if at and not replay:
        raise InvalidInput("--at is for --replay", hint="lcq console --replay FILE --at 11:45")
    if where:
        raise InvalidInput("a filter here is for --once and --json", hint="in the console, / takes it")
    if web:
        options = {"--theme": theme, "--record": record, "--replay": replay, "--at": at}
        rest = [word for option, value in options.items() if value for word in (option, value)]
        arguments = [*session.as_arguments(), "console", *rest, *(["--read-only"] if read_only else [])]
        return find_console("console-web")(session.config, arguments, host=web_host, port=web_port)
    return find_console()(
        session.config,
        scheduler=session.scheduler,
        theme=theme,
        read_only=read_only,
        record=record,
        replay=replay,
        at=at,
    )


@app.command(epilog=examples("lcq demo", "lcq demo my-results --no-console"))
def demo(
    context: typer.Context,
    folder: Annotated[Path, typer.Argument(metavar="[FOLDER]", help="Where the results go.")] = Path("demo-out"),
    with_console: Annotated[
        bool, typer.Option("--console/--no-console", help="Open the console while it runs.")
    ] = True,
) -> int:
    """Clean the sample photos with a real cluster on this machine, and show what came out."""
    from lcq.demo import run_demo

    return run_demo(folder, with_console=with_console)


@app.command(epilog=examples("lcq version", "lcq version --json"))
def version(context: typer.Context, as_json: JsonFlag = False) -> int:
    """Show the versions of LCQ, its protocol and Python, and those of the scheduler if it answers."""
    return run(_version(session_of(context, as_json)))


async def _version(session: Session) -> int:
    import platform

    from lcq import __version__
    from lcq.wire import PROTOCOL_VERSION

    output = session.output
    client = session.client(min(_BRIEFLY_S, session.patience_s))
    there: InfoAnswer | None = None
    try:
        async with client:
            there = await client.info()
    except SchedulerUnreachable:
        told = tr("none answers at {where}", where=client.endpoint)
    except LcqError as error:  # such as another protocol: that is what was asked for
        told = f"{client.endpoint}: {retold_error(error)}"
    else:
        told = tr(
            "LCQ {version}, protocol {protocol}, at {where}, process {pid}",
            version=there.version,
            protocol=there.protocol,
            where=client.endpoint,
            pid=there.pid,
        )
    if output.as_json:
        output.document(
            {
                "lcq": __version__,
                "protocol": PROTOCOL_VERSION,
                "python": platform.python_version(),
                "endpoint": client.endpoint,
                "scheduler": there,
            }
        )
        return OK
    output.facts(
        [
            ("LCQ", __version__),
            (tr("protocol"), str(PROTOCOL_VERSION)),
            ("Python", platform.python_version()),
            (tr("scheduler"), told),
            ("Redis", there.redis if there is not None else ""),
            (tr("settings"), _not_taken_over(there)),
            (tr("needs restart"), ", ".join(there.config_waiting) if there is not None else ""),
        ]
    )
    return OK


def _not_taken_over(there: InfoAnswer | None) -> str:
    if there is None or not there.config_error:
        return ""
    told = tr("not taken over: {error}", error=retold(there.config_error))
    return told + ntr(" ({n} time)", " ({n} times)", there.config_refused) if there.config_refused > 1 else told

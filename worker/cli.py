"""The program lcq-agent: its options, its signals, its exit codes."""
# ruff: noqa: E402

from __future__ import annotations

import gc

_had_been_enabled = gc.isenabled()
gc.disable()  # nothing that is imported becomes garbage: to look for it there is a tenth of the start

import asyncio
import logging
import os
import signal
import sys
from pathlib import Path
from typing import Annotated, Any, NoReturn

# As in lcq/cli/program.py; its runners inherit it.
os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")

import typer

from lcq import __version__, failpoints
from lcq.cli.install import DryRun, NoStart, OfUser, RunAs
from lcq.cli.misplaced import where_it_belongs
from lcq.cli.once import refuse_second_values
from lcq.cli.output import Output
from lcq.cli.translated import translate_helps
from lcq.config import ConfigManager, DistributedConfig, LogLevel
from lcq.errors import InvalidConfig, InvalidToken, LcqError, NodeNameTaken
from lcq.labels import parse_labels
from lcq.lang import Language, retold, retold_error, speak, speak_as_asked, tr
from lcq.log import setup_logging
from lcq.systemd import ServiceManager
from worker.agent import Agent
from worker.health import read_health
from worker.home import default_name
from worker.probe import probe, show

if _had_been_enabled:
    gc.freeze()  # all of it stays: no collection need look at it again
    gc.enable()

_log = logging.getLogger(__name__)
_REFUSED = 2

app = typer.Typer(name="lcq-agent", add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="rich")


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"lcq-agent {__version__}")  # noqa: T201 - the answer
        raise typer.Exit


@app.callback(
    invoke_without_command=True,
    epilog="Example: [bold]lcq-agent --scheduler studio-1:5571 --slots 4[/bold]. SIGTERM or ctrl-c drains: what runs "
    "may finish for agent.drain_s seconds, the rest is handed back; a second one hands back at once. "
    "Exit codes: 0 left in order, 2 refused.",
)
def agent(
    context: typer.Context,
    scheduler: Annotated[
        str | None,
        typer.Option(
            metavar="HOST:PORT", help="The scheduler, or several with commas; default: the one of this user or host."
        ),
    ] = None,
    name: Annotated[str | None, typer.Option(metavar="NAME", help="This node's name; default: the host's.")] = None,
    slots: Annotated[
        int | None, typer.Option(metavar="N", min=1, max=1024, help="Tasks at a time; default: half the cores.")
    ] = None,
    models: Annotated[
        list[str] | None,
        typer.Option(metavar="MODEL", help="Offer only these models (again, or with commas); default: all."),
    ] = None,
    label: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=VALUE", help="What tasks may require of this node, such as rack=3 (again for more)."
        ),
    ] = None,
    metrics_port: Annotated[
        int | None,
        typer.Option(metavar="N", min=0, max=65535, help="Tell Prometheus at this port of loopback; 0: a free one."),
    ] = None,
    config: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A file of settings, over those of lcq.yaml here.")
    ] = None,
    data_dir: Annotated[Path | None, typer.Option(metavar="FOLDER", help="Where its files are kept.")] = None,
    log_level: Annotated[LogLevel | None, typer.Option(help="How much to log.")] = None,
    lang: Annotated[
        Language | None, typer.Option("--lang", help="The language to speak; default: LCQ_LANG, else the locale.")
    ] = None,
    version: Annotated[
        bool, typer.Option("--version", help="Show the version.", callback=_show_version, is_eager=True)
    ] = False,
) -> None:
    """Clean images on this host for a cluster, until told to stop."""
    own: dict[str, Any] = {"name": name, "slots": slots, "metrics_port": metrics_port}
    if models:
        own["models"] = [model for some in models for model in some.replace(",", " ").split()]
    if label:
        try:
            own["labels"] = parse_labels(label)
        except LcqError as error:
            _refuse(error)
    overrides: dict[str, Any] = {"agent": {key: value for key, value in own.items() if value is not None}}
    if data_dir is not None:
        overrides["data_dir"] = data_dir
    if log_level is not None:
        overrides["log_level"] = log_level
    if lang is not None:
        overrides["lang"] = lang
    try:
        manager = ConfigManager(config, overrides=overrides)
        settings = manager.config
        if settings.lang:
            speak(settings.lang)
        is_agent = context.invoked_subcommand is None
        setup_logging(settings.log_level, form=settings.log_format if is_agent else "pretty")
        if not is_agent:
            context.obj = settings
            return
        run_agent(settings, scheduler=scheduler, manager=manager)
    except LcqError as error:
        if isinstance(error, InvalidConfig) and context.invoked_subcommand == "doctor":
            context.obj = error  # that is what it is asked for
            return
        _refuse(error)


def _refuse(error: LcqError) -> NoReturn:
    print(f"lcq-agent: {retold_error(error)}", file=sys.stderr)  # noqa: T201 - the log may not stand yet
    raise typer.Exit(_REFUSED) from error


@app.command(
    name="probe",
    epilog="Example: [bold]lcq-agent --config gpu-box.yaml probe --json[/bold]. Options of lcq-agent go before probe.",
)
def show_hardware(
    context: typer.Context,
    as_json: Annotated[bool, typer.Option("--json", help="Answer with one JSON document.")] = False,
) -> None:
    """Show what this host has, what of it an agent would offer to which queues, and what not and why."""
    try:
        report = probe(context.obj)
    except LcqError as error:
        _refuse(error)
    show(report, Output(as_json=as_json))


@app.command(
    name="install-service",
    epilog="Example: [bold]sudo lcq-agent --scheduler head:5571 --name gpu-1 install-service[/bold]. Options of "
    "lcq-agent go before install-service, and become those of the service.",
)
def install_service(
    context: typer.Context,
    of_user: OfUser = False,
    run_as: RunAs = "lcq",
    no_start: NoStart = False,
    dry_run: DryRun = False,
) -> None:
    """Have systemd run an agent from now on: sandboxed, watched, drained when it stops, and started with the host."""
    from lcq.cli.install import install
    from lcq.installing import a_unit
    from lcq.units import Part

    try:
        unit = a_unit(Part.AGENT, context.obj, _given_options(context), user="" if of_user else run_as)
        install(unit, Output(), start=not no_start, dry_run=dry_run)
    except LcqError as error:
        _refuse(error)


@app.command(name="uninstall-service", epilog="Example: [bold]sudo lcq-agent uninstall-service[/bold].")
def uninstall_service(
    context: typer.Context, of_user: OfUser = False, no_start: NoStart = False, dry_run: DryRun = False
) -> None:
    """Drain and stop the agent that systemd runs, and delete its unit. Settings and data stay."""
    from lcq.cli.install import uninstall
    from lcq.units import Part

    try:
        uninstall(Part.AGENT, Output(), of_user=of_user, stop=not no_start, dry_run=dry_run)
    except LcqError as error:
        _refuse(error)


def _given_options(context: typer.Context) -> list[str]:
    """The options of lcq-agent itself that were given, as a command line has them."""
    told: list[str] = []
    for name, value in (context.parent.params if context.parent is not None else {}).items():
        values = value if isinstance(value, list | tuple) else [value]
        for one in values:
            if one is not None and one is not False and name != "version":
                word = str(one.absolute()) if isinstance(one, Path) else str(one)
                told += [f"--{name.replace('_', '-')}", word]
    return told


@app.command(
    epilog="Example: [bold]lcq-agent --scheduler head:5571 doctor[/bold]. Options of lcq-agent go before doctor. Exit "
    "codes: 0 nothing is wrong, 1 warnings, 2 problems.",
)
def doctor(
    context: typer.Context,
    as_json: Annotated[bool, typer.Option("--json", help="Answer with one JSON document.")] = False,
    local: Annotated[bool, typer.Option("--local", help="Only this host: ask no scheduler.")] = False,
) -> None:
    """Examine this host and its way to the scheduler, and tell of all that is wrong what to do about it."""
    from lcq.cli.doctor import invalid, show, strange_variables
    from worker.doctor import examined

    config: DistributedConfig | InvalidConfig = context.obj
    if isinstance(config, InvalidConfig):
        raise typer.Exit(show([*invalid(config), *strange_variables()], Output(as_json=as_json)))
    scheduler = (context.parent.params if context.parent is not None else {}).get("scheduler")
    found = asyncio.run(examined(config, scheduler=scheduler, local=local))
    raise typer.Exit(show([*found, *strange_variables()], Output(as_json=as_json)))


@app.command(epilog="Example: [bold]lcq-agent --name gpu-1 health || alert[/bold]. Exit codes: 0 claims, 1 does not.")
def health(
    context: typer.Context,
    as_json: Annotated[bool, typer.Option("--json", help="Answer with one JSON document.")] = False,
) -> None:
    """Tell whether the agent on this host claims tasks, and if not, why; for a watchdog or a container's probe."""
    config: DistributedConfig = context.obj
    name = config.agent.name or default_name(config.data_path)
    told = read_health(config.data_path / "agents" / name)
    why = told.not_claiming if told is not None and told.is_alive else f"no agent named {name} runs on this host"
    output = Output(as_json=as_json)
    if as_json:
        resting = dict(told.resting) if told is not None and told.is_alive else {}
        since = told.since if told else None
        said = {"node": name, "claims": not why, "not_claiming": why, "since": since, "resting": resting}
        output.document(said | {"warning": told.warning if told is not None and told.is_alive else ""})
    else:
        why_not = tr("{name} claims no task: {why}", name=name, why=retold(why))
        output.say(why_not if why else tr("{name} claims tasks", name=name))
        for device, rest in () if why or told is None else told.resting.items():
            output.say(tr("but none on {device}: {rest}", device=device, rest=retold(rest)))
        if told is not None and told.is_alive and told.warning:
            output.say(tr("warning: {warning}", warning=retold(told.warning)))
    raise typer.Exit(1 if why else 0)


@app.command(
    epilog="Examples: [bold]lcq-agent join lcq1.Zm9v…[/bold], [bold]lcq-agent --name gpu-7 join - < token[/bold]. "
    "Afterwards [bold]lcq-agent[/bold] starts with nothing more said."
)
def join(
    context: typer.Context,
    token: Annotated[
        str, typer.Argument(metavar="TOKEN", help="Of 'lcq keys invite --role agent'; '-': it is on stdin.")
    ],
    replace: Annotated[bool, typer.Option("--replace", help="Also where there is a key already.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Answer with one JSON document.")] = False,
) -> None:
    """Take a token up: this host's agent gets a key of its own, and knows where the scheduler is."""
    from lcq.cli.keys import read_argument, tell_joined
    from lcq.joining import join as join_by
    from lcq.keyring import agent_file, read_token

    config: DistributedConfig = context.obj
    try:
        given = read_token(read_argument(token))
        if given.role != "agent":
            raise InvalidToken(f"it is for a {given.role}", hint="'lcq keys join TOKEN' takes it")
        name = config.agent.name or default_name(config.data_path)
        work = join_by(config, given, name=name, file_of=lambda node: agent_file(config, node), replaces=replace)
        tell_joined(Output(as_json=as_json), asyncio.run(work))
    except LcqError as error:
        _refuse(error)


def run_agent(config: DistributedConfig, *, scheduler: str | None = None, manager: ConfigManager | None = None) -> None:
    """Run an agent until SIGTERM or SIGINT; returns when it has left. ``manager`` read ``config``, if a file did.

    Raises:
        LcqError: it cannot start, or another agent has taken its name.
    """
    if not config.enabled:
        raise InvalidConfig(
            "enabled is false: this host takes no part in a cluster", hint="set enabled: true, or LCQ_ENABLED=1"
        )
    failpoints.arm_from_environment()
    asyncio.run(_until_signalled(config, scheduler, manager, ServiceManager.of_this_process()))


async def _until_signalled(
    config: DistributedConfig, scheduler: str | None, manager: ConfigManager | None, systemd: ServiceManager
) -> None:
    told = asyncio.Event()
    while not told.is_set():
        try:
            await _run_one(config, scheduler, manager, told, systemd)
        except NodeNameTaken as other:
            _log.warning("%s; taking another name", other.message)
        else:
            return


async def _run_one(
    config: DistributedConfig,
    scheduler: str | None,
    manager: ConfigManager | None,
    told: asyncio.Event,
    systemd: ServiceManager,
) -> None:
    """Raises:
    NodeNameTaken: nobody has named it, and its name is another's: the next one has the next name.
    """
    async with Agent(config, scheduler=scheduler, manager=manager) as agent:

        def stop() -> None:
            agent.request_stop(at_once=told.is_set())
            systemd.stopping(agent.stop_s)
            told.set()

        def read_settings() -> None:
            systemd.reloading()
            agent.read_settings(lambda: systemd.ready(_condition(agent)))

        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop)
        is_in_terminal = sys.stdin is not None and sys.stdin.isatty()  # then SIGHUP means that it was closed
        loop.add_signal_handler(signal.SIGHUP, stop if is_in_terminal else read_settings)
        if told.is_set():  # while this one was made; the one before it, which had another name, has heard it
            agent.request_stop(at_once=True)
        systemd.ready(_condition(agent))
        async with systemd.watched(lambda: _condition(agent)):
            await agent.run()


def _condition(agent: Agent) -> str:
    """How it is, in a line for ``systemctl status``."""
    claims = f"claims no task: {agent.not_claiming}" if agent.not_claiming else "claims tasks"
    refused = f"the settings stay as they were: {agent.config_error}" if agent.config_error else ""
    return "; ".join(filter(None, (f"{agent.node_id} {claims}", f"{agent.running} running", refused)))


def main() -> None:
    """Run the command line and end the process with its exit code."""
    speak_as_asked(sys.argv[1:])
    translate_helps()
    refuse_second_values()
    try:
        sys.exit(app(standalone_mode=False) or 0)
    except typer.TyperException as error:
        said = " ".join(error.format_message().split())
        if misplaced := where_it_belongs(error, sys.argv[1:]):
            Output().complain(*misplaced)
        elif said:  # else its help was shown
            hint = tr("'{command} --help' tells how it is used", command="lcq-agent")
            Output().complain(retold(said[:1].lower() + said[1:]), hint)
        sys.exit(error.exit_code)
    except typer.Abort:
        sys.exit(1)
    finally:
        gc.freeze()  # the process ends: there is no need to look for garbage in all there is


if __name__ == "__main__":
    main()

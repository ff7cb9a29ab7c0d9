"""lcq install-service, uninstall-service: a scheduler that systemd starts, watches and stops."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from lcq.cli.examples import examples
from lcq.cli.session import OK, Session, session_of
from lcq.lang import N, tr

if TYPE_CHECKING:
    from lcq.cli.output import Output
    from lcq.installing import Step
    from lcq.units import Part, Unit

app = typer.Typer()

OfUser = Annotated[bool, typer.Option("--user", help="A service of this user alone; needs no root.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Show the unit and every step; change nothing.")]
NoStart = Annotated[bool, typer.Option("--no-start", help="Only write the unit, or delete it: ask nothing of systemd.")]
RunAs = Annotated[
    str, typer.Option("--as", metavar="USER", help="As whom it runs; made if there is no such user of the system.")
]


@app.command(
    "install-service",
    epilog=examples(
        "sudo lcq install-service", "lcq install-service --user", "lcq --config head.yaml install-service --dry-run"
    ),
)
def install_service(
    context: typer.Context,
    of_user: OfUser = False,
    run_as: RunAs = "lcq",
    no_start: NoStart = False,
    dry_run: DryRun = False,
) -> int:
    """Have systemd run a scheduler from now on: sandboxed, watched, and started with the host.

    Global options before the command (--config, --log-level) become those of the service.
    """
    from lcq.installing import a_unit
    from lcq.units import Part

    session = session_of(context)
    options = _options(session)
    unit = a_unit(Part.SCHEDULER, session.config, options, user="" if of_user else run_as)
    install(unit, session.output, start=not no_start, dry_run=dry_run)
    return OK


@app.command("uninstall-service", epilog=examples("sudo lcq uninstall-service", "lcq uninstall-service --user"))
def uninstall_service(
    context: typer.Context, of_user: OfUser = False, no_start: NoStart = False, dry_run: DryRun = False
) -> int:
    """Stop the scheduler that systemd runs, and delete its unit. Settings and data stay."""
    from lcq.units import Part

    uninstall(Part.SCHEDULER, session_of(context).output, of_user=of_user, stop=not no_start, dry_run=dry_run)
    return OK


def _options(session: Session) -> list[str]:
    given = session.as_arguments()
    return given if session.scheduler is None else _without(given, "--scheduler")


def _without(words: Sequence[str], option: str) -> list[str]:
    at = words.index(option)
    return [*words[:at], *words[at + 2 :]]


def install(unit: Unit, output: Output, *, start: bool, dry_run: bool) -> None:
    """Do what installs ``unit``, and say each step; ``dry_run``: show the unit and the steps.

    Raises:
        ServiceNotInstalled: a step was refused.
    """
    from lcq.installing import check_systemd, steps_to_install

    steps = steps_to_install(unit, start=start)
    if dry_run:
        for line in unit.text().splitlines():
            output.say(line)
    elif start:
        check_systemd()
    _carry_out(steps, output, dry_run=dry_run)
    if start and not dry_run:
        form = N("{unit} runs, and starts with the host; its log: {command}")
        output.talk(tr(form, unit=unit.name, command=unit.log_command))


def uninstall(part: Part, output: Output, *, of_user: bool, stop: bool, dry_run: bool) -> None:
    """The same, the other way round.

    Raises:
        InvalidInput: there is no such unit.
        ServiceNotInstalled: a step was refused.
    """
    from lcq.installing import steps_to_uninstall

    _carry_out(steps_to_uninstall(part, of_user=of_user, stop=stop), output, dry_run=dry_run)


def _carry_out(steps: Sequence[Step], output: Output, *, dry_run: bool) -> None:
    for step in steps:
        output.talk(f"  {step}")
        if not dry_run:
            step.carry_out()

"""lcq doctor: what is wrong with this host and the cluster, each thing with its remedy."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from lcq.cli.examples import examples
from lcq.cli.output import Output, told_problem
from lcq.cli.session import JsonFlag, run, session_of
from lcq.errors import InvalidConfig
from lcq.lang import N, ntr, tr
from lcq.log import setup_logging

if TYPE_CHECKING:
    from lcq.doctor.examine import More
    from lcq.doctor.findings import Finding

app = typer.Typer()

LocalFlag = Annotated[bool, typer.Option("--local", help="Only this host, and the Redis that is configured here.")]
QuietFlag = Annotated[bool, typer.Option("--quiet", help="Only warnings and problems.")]
_PATIENCE_S = 5.0
_STYLES = ("green", "cyan", "yellow", "red")
_WORDS = (N("+ ok"), N("i note"), N("! warning"), N("x problem"))


@app.command(
    epilog=examples(
        "lcq doctor", "lcq doctor --local", "lcq doctor --json | jq '.findings[] | select(.level == \"problem\")'"
    )
)
def doctor(
    context: typer.Context, local: LocalFlag = False, quiet: QuietFlag = False, as_json: JsonFlag = False
) -> int:
    """Examine this host, its Redis and the cluster, and tell of all that is wrong what to do about it.

    Exit codes: 0 nothing is wrong, 1 warnings, 2 problems. docs/doctor.md has every code.
    """
    from lcq.doctor.examine import examine

    session = session_of(context, as_json)
    setup_logging(session.log_level or "error")  # what is wrong is among the findings
    try:
        config = session.config
    except InvalidConfig as wrong:
        return show([*invalid(wrong), *strange_variables()], session.output, quiet=quiet)
    found = run(
        examine(
            config,
            scheduler=session.scheduler,
            config_file=session.config_file,
            local=local,
            patience_s=min(_PATIENCE_S, session.patience_s),
            more=_of_the_worker(),
        )
    )
    return show([*found, *strange_variables()], session.output, quiet=quiet)


def _of_the_worker() -> list[More]:
    """What the package that does the work adds of this host; nothing where it is not installed."""
    from lcq.console import find_console
    from lcq.errors import LcqError

    try:
        more: Any = find_console("doctor")
    except LcqError:
        return []
    return [more]


def invalid(wrong: InvalidConfig) -> list[Finding]:
    """What is wrong with the settings, one finding each; nothing else can be looked at then."""
    from lcq.doctor.findings import Level, finding
    from lcq.hardware import host_name

    problems: Sequence[Any] = wrong.problems
    said = [told_problem(one) for one in problems] or [wrong.message]
    fix = N("mend it; 'lcq config validate' says when it is right. Nothing else was looked at")
    return [finding("config_invalid", Level.PROBLEM, host_name(), "{said}", fix=fix, said=one) for one in said]


def strange_variables() -> list[Finding]:
    """Variables that look like settings and are none."""
    from lcq.cli.config import strange_variables as found_variables
    from lcq.doctor.findings import Level, finding
    from lcq.hardware import host_name

    where = host_name()
    form = N("{name} is no setting")
    return [
        finding(
            "config_unknown_variable",
            Level.WARNING,
            where,
            form,
            fix=N("did you mean {near}?") if near else "",
            name=name,
            near=near,
        )
        for name, near in found_variables()
    ]


def show(findings: Iterable[Finding], output: Output, *, quiet: bool = False) -> int:
    """Tell all of them, and answer the exit code: 0, 1 or 2."""
    from lcq.doctor.findings import AREAS, Level, in_order, worst
    from lcq.hardware import host_name

    found = in_order(findings)
    level = worst(found)
    code = max(0, level - Level.NOTE)
    if output.as_json:
        from lcq import __version__

        document = {"host": host_name(), "version": __version__, "level": level.word, "exit_code": code}
        output.document(document | {"findings": [one.as_dict() for one in found]})
        return code
    shown = [one for one in found if not quiet or one.level >= Level.WARNING]
    for area, title in AREAS.items():
        rows = [row for one in shown if one.area == area for row in _rows(one)]
        if rows:
            output.heading(tr(title))
            output.rows(rows)
    output.heading(_in_all(found))
    return code


def _rows(one: Finding) -> list[tuple[Text | str, Text | str, Text | str]]:
    found, fix = one.said()
    style = _STYLES[one.level]
    head = (Text(tr(_WORDS[one.level]), style=style), Text(one.where, style="bold"), Text(found))
    out: list[tuple[Text | str, Text | str, Text | str]] = [head]
    if one.level:
        out.append(("", Text(one.code, style="dim"), tr("do: {fix}", fix=fix) if fix else ""))
    return out


def _in_all(found: Sequence[Finding]) -> str:
    from lcq.doctor.findings import Level

    problems, warnings = (sum(one.level is level for one in found) for level in (Level.PROBLEM, Level.WARNING))
    if not problems and not warnings:
        return tr("nothing is wrong")
    said = [ntr("{n} problem", "{n} problems", problems)] if problems else []
    said += [ntr("{n} warning", "{n} warnings", warnings)] if warnings else []
    return tr(", ").join(said)

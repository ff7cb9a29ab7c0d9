"""lcq report: what was used, by user, job, node, model or day."""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path
from typing import Annotated, Literal

import typer

from lcq import __version__
from lcq.cli.examples import examples
from lcq.cli.output import Column, Output
from lcq.cli.session import OK, JsonFlag, Session, run, session_of
from lcq.errors import InvalidInput
from lcq.lang import tr
from lcq.models import UsageRow
from lcq.usage import By, as_csv, told_amount
from lcq.wire import ReportAnswer

app = typer.Typer()


Format = Literal["table", "csv", "json", "html"]


@app.command(
    epilog=examples(
        "lcq report --since 30d",
        "lcq report --by node --since 4w --format csv",
        "lcq report --format html --out usage.html",
    )
)
def report(
    context: typer.Context,
    since: Annotated[
        str,
        typer.Option("--since", metavar="TIME", help="30d, 4w, or a day such as 2026-11-01; days are those of UTC."),
    ] = "30d",
    by: Annotated[By, typer.Option("--by", help="Whose use is told.")] = "user",
    form: Annotated[Format, typer.Option("--format", help="html is a page with plots, by all of these.")] = "table",
    out: Annotated[Path | None, typer.Option("--out", metavar="FILE", help="Write it there instead.")] = None,
    as_json: JsonFlag = False,
) -> int:
    """Tell what was used: tasks, megapixels, time of GPUs, CPUs, functions, failures, cost; of forgotten tasks too."""
    session = session_of(context, as_json)
    if out is not None and form == "table":
        raise InvalidInput(
            "a table is for a terminal, not for a file", hint="use --format csv, json or html with --out"
        )
    return run(_report(session, since, by, "json" if session.as_json else form, out))


async def _report(session: Session, since: str, by: By, form: Format, out: Path | None) -> int:
    async with session.client() as client:
        answer = await client.usage(since, by=by, whole=form == "html")
    if form == "table":
        _table(answer, session.output)
        return OK
    text = _text(answer, form, session)
    if out is None:
        sys.stdout.write(text)
        return OK
    await asyncio.to_thread(_write, out, text)
    session.output.talk(tr("written: {file}", file=out))
    return OK


def _write(out: Path, text: str) -> None:
    try:
        out.write_text(text, encoding="utf-8")
    except OSError as error:
        raise InvalidInput(f"{out} cannot be written: {error.strerror}", hint="name another file") from error


def _text(answer: ReportAnswer, form: Format, session: Session) -> str:
    if form == "csv":
        return as_csv(answer.by, answer.rows)
    if form == "json":
        return answer.model_dump_json(indent=2, exclude={"others"}) + "\n"
    from lcq.report_page import report_page

    cluster = session.config.discovery.cluster or session.config.context or "lcq"
    return report_page(answer, cluster=cluster, made=time.strftime("%Y-%m-%d %H:%M %Z"), version=__version__)


def _table(answer: ReportAnswer, output: Output) -> None:
    has_cost, has_functions = bool(answer.currency) or answer.total.cost > 0, answer.total.function_s > 0
    heads = [
        Column(answer.by.upper()),
        Column("TASKS", right=True, whole=True),
        Column("FAILED", right=True, whole=True),
        Column("CANCELLED", right=True, whole=True),
        Column("RETRIES", right=True, whole=True),
        Column("MEGAPIXELS", right=True, whole=True),
        Column("GPU H", right=True, whole=True),
        Column("CPU H", right=True, whole=True),
        *([Column("FUNCTION H", right=True, whole=True)] if has_functions else []),
        *([Column("COST", right=True, whole=True)] if has_cost else []),
    ]
    rows = [_row(row, has_functions, has_cost) for row in answer.rows]
    if len(rows) > 1:
        rows.append(_row(answer.total.model_copy(update={"name": tr("all")}), has_functions, has_cost))
    output.table(heads, rows, empty=tr("nothing has ended in that time"))
    if has_cost and answer.currency:
        output.talk(tr("costs are in {currency}, by the prices when the work was done", currency=answer.currency))


def _row(row: UsageRow, has_functions: bool, has_cost: bool) -> tuple[str, ...]:
    return (
        row.name,
        f"{row.tasks:,}",
        f"{row.failed:,}",
        f"{row.cancelled:,}",
        f"{row.retries:,}",
        f"{row.megapixels:,.1f}",
        told_amount(row.gpu_s / 3600),
        told_amount(row.cpu_s / 3600),
        *([told_amount(row.function_s / 3600)] if has_functions else []),
        *([told_amount(row.cost)] if has_cost else []),
    )

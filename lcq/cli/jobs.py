"""lcq jobs: how far each job is."""

from __future__ import annotations

from typing import Annotated

import typer

from lcq.cli.examples import examples
from lcq.cli.output import Column, age
from lcq.cli.session import OK, JsonFlag, Session, run, session_of
from lcq.models import TaskStatus

app = typer.Typer()

_COLUMNS = (
    Column("JOB"),
    Column("AGE", right=True, whole=True),
    Column("TASKS", right=True, whole=True),
    Column("DONE", right=True, whole=True),
    Column("FAILED", right=True, whole=True),
    Column("CANCELLED", right=True, whole=True),
    Column("LEFT", right=True, whole=True),
    Column("%", right=True, whole=True),
)


@app.command(epilog=examples("lcq jobs", "lcq jobs holiday --json"))
def jobs(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="[NAME]", help="Only this one.")] = "",
    limit: Annotated[int, typer.Option("--limit", min=1, max=1000, help="How many, the newest first.")] = 50,
    as_json: JsonFlag = False,
) -> int:
    """List jobs, the newest first, with how far each is."""
    return run(_jobs(session_of(context, as_json), name, limit))


async def _jobs(session: Session, name: str, limit: int) -> int:
    output = session.output
    async with session.client() as client:
        found = await client.jobs(name, limit=limit)
    if output.as_json:
        output.document({"jobs": found})
        return OK
    output.table(
        _COLUMNS,
        (
            (
                job.name,
                age(job.submitted_ms),
                str(job.total),
                str(job.counts.get(TaskStatus.COMPLETED, 0)),
                str(job.counts.get(TaskStatus.FAILED, 0)),
                str(job.counts.get(TaskStatus.CANCELLED, 0)),
                str(job.unfinished),
                f"{100 * (job.total - job.unfinished) // max(1, job.total)}",
            )
            for job in found
        ),
        empty="no jobs",
    )
    return OK

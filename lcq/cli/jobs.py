"""lcq jobs, lcq job: how far each job is, when it will be done, and what has become of it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lcq.cli.examples import examples
from lcq.cli.output import Column, age
from lcq.cli.report import eta_text, report_of_entries, show_report
from lcq.cli.session import OK, JsonFlag, Session, run, session_of
from lcq.errors import InvalidInput, JobNotFound
from lcq.manifest import Manifest
from lcq.models import JobReport, TaskStatus
from lcq.places import places_of

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
    Column("DONE IN"),
)


@app.command(epilog=examples("lcq jobs", "lcq jobs holiday --json", "lcq jobs report holiday"))
def jobs(
    context: typer.Context,
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[NAME]", help="Only this one; 'report NAME': as 'lcq job NAME'.")
    ] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, max=1000, help="How many, the newest first.")] = 50,
    as_json: JsonFlag = False,
) -> int:
    """List jobs, the newest first: how far each is, and when it is likely done (in half, in nine of ten cases)."""
    match names or []:
        case []:
            return run(_jobs(session_of(context, as_json), "", limit))
        case [name]:
            return run(_jobs(session_of(context, as_json), name, limit))
        case ["report", name]:
            return _job(session_of(context, as_json), name)
    raise InvalidInput("one job at a time", hint="lcq jobs NAME, or lcq jobs report NAME")


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
                eta_text(job.eta) if job.eta else f"paused {job.paused}" if job.paused else "",
            )
            for job in found
        ),
        empty="no jobs",
    )
    return OK


@app.command(epilog=examples("lcq job holiday", "lcq job cleaned/ --json"))
def job(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME|FOLDER", help="A job, or the folder of its results.")],
    as_json: JsonFlag = False,
) -> int:
    """Report on a job: what is done, skipped and why, failed and why, what it took, and when it is likely to be done.

    Of a job that the cluster has forgotten, the manifest beside its results still tells.
    """
    return _job(session_of(context, as_json), name)


def _job(session: Session, name: str) -> int:
    output = session.output
    folder = Path(name)
    if folder.is_dir():
        report = _of_manifests(name, [folder], "")
        if report is None:
            raise InvalidInput(f"{name} has no manifest of results", hint="lcq jobs lists the jobs of the cluster")
    else:
        try:
            report = run(_asked(session, name))
        except JobNotFound:
            report = _of_manifests(name, places_of(session.config.data_path, name), name)
            if report is None:
                raise
            output.talk("the cluster has forgotten this job: the manifest beside its results tells")
    if output.as_json:
        output.document(report)
    else:
        show_report(report, output)
    return OK


async def _asked(session: Session, name: str) -> JobReport:
    async with session.client() as client:
        return await client.report_job(name)


def _of_manifests(name: str, folders: list[Path], job_name: str) -> JobReport | None:
    """What the manifests of these folders say of a job (empty: of all that is there); None where they say nothing."""
    entries = [
        entry for folder in folders for entry in Manifest(folder.absolute()).entries if job_name in ("", entry.job)
    ]
    return report_of_entries(name, entries) if entries else None

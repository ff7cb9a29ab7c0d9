"""lcq jobs, lcq job: how far each job is, when it will be done, and what has become of it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from lcq.cli.asking import ask_and_tell
from lcq.cli.examples import examples
from lcq.cli.output import Column, Output, age
from lcq.cli.report import eta_text, report_of_entries, show_report
from lcq.cli.session import OK, JsonFlag, Session, run, session_of
from lcq.errors import InvalidInput, JobNotFound, LcqError
from lcq.lang import retold, retold_error, tr
from lcq.manifest import Manifest
from lcq.models import JobReport, JobSummary, TaskStatus
from lcq.places import places_of
from lcq.settling import open_entries, settle

app = typer.Typer()

_COLUMNS = (
    Column("JOB"),
    Column("AGE", right=True, whole=True),
    Column("TASKS", right=True, whole=True),
    Column("DONE", right=True, whole=True),
    Column("FAILED", right=True, whole=True),
    Column("CANCELLED", right=True, whole=True, spared=2),
    Column("LEFT", right=True, whole=True),
    Column("%", right=True, whole=True, spared=3),
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
            name = ""
        case [name]:
            pass
        case ["report", name]:
            return _job(session_of(context, as_json), name)
        case _:
            raise InvalidInput("one job at a time", hint="lcq jobs NAME, or lcq jobs report NAME")
    session = session_of(context, as_json)
    return ask_and_tell(session, lambda client: client.jobs(name, limit=limit), _tell, key="jobs")


def _tell(found: Sequence[JobSummary], output: Output) -> None:
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
                _told_end(job),
            )
            for job in found
        ),
        empty=tr("no jobs"),
    )


def _told_end(job: JobSummary) -> str:
    if job.eta:
        return eta_text(job.eta)
    return tr("paused {by}", by=retold(job.paused)) if job.paused else ""


@app.command(epilog=examples("lcq job holiday", "lcq job cleaned/ --json"))
def job(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME|FOLDER", help="A job, or the folder of its results.")],
    as_json: JsonFlag = False,
) -> int:
    """Report on a job: what is done, skipped and why, failed and why, what it took, and when it is likely to be done.

    The manifest beside its results learns of what has ended since; of a job that the cluster has forgotten it tells.
    """
    return _job(session_of(context, as_json), name)


def _job(session: Session, name: str) -> int:
    output = session.output
    folder = Path(name)
    report = run(_of_folder(session, folder) if folder.is_dir() else _of_job(session, name))
    if output.as_json:
        output.document(report)
    else:
        show_report(report, output)
    return OK


async def _of_job(session: Session, name: str) -> JobReport:
    """What the cluster says of a job, else what the manifests do."""
    places, output = places_of(session.config.data_path, name), session.output
    async with session.client() as client:
        await settle(client, places, job=name, complain=output.retell)
        try:
            return await client.report_job(name)
        except JobNotFound:
            report = _of_manifests(name, places, name)
            if report is None:
                raise
    output.talk(tr("the cluster has forgotten this job: the manifest beside its results tells"))
    return report


async def _of_folder(session: Session, folder: Path) -> JobReport:
    """What the manifest of a folder says, after a look at the cluster where something is open."""
    left = open_entries(folder)
    jobs: tuple[JobSummary, ...] = ()
    if any(entry.state == "given" for entry in left):
        try:
            async with session.client() as client:
                await settle(client, [folder], complain=session.output.retell)
                names = {entry.job for entry in left if entry.state == "given"}
                if len(names) == 1 and (only := names.pop()):
                    jobs = await client.jobs(only)
        except JobNotFound:
            pass  # nothing of it is left there
        except (LcqError, TimeoutError) as error:
            why = retold_error(error)
            session.output.talk(tr("as of the last look, for the cluster cannot be asked: {why}", why=why))
    report = _of_manifests(str(folder), [folder], "")
    if report is None:
        raise InvalidInput(f"{folder} has no manifest of results", hint="lcq jobs lists the jobs of the cluster")
    for job in jobs:
        report = report.model_copy(update={"paused": job.paused, "eta": job.eta})
    return report


def _of_manifests(name: str, folders: list[Path], job_name: str) -> JobReport | None:
    """What the manifests of these folders say of a job (empty: of all that is there); None where they say nothing."""
    entries = [
        entry for folder in folders for entry in Manifest(folder.absolute()).entries if job_name in ("", entry.job)
    ]
    return report_of_entries(name, entries) if entries else None

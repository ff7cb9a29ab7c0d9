"""The report of a job: what was done, skipped and why, failed and why, and what it took."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from lcq.causes import in_common
from lcq.cli.output import Output, duration
from lcq.folder import Skipped
from lcq.models import Cause, ErrorClass, JobReport, Skips, TaskRecord, TaskStatus
from lcq.resumable import megapixels_of

_SHOWN = 20  # reasons of each kind


def report_of(name: str, skipped: Iterable[Skipped], ended: Sequence[TaskRecord], took_s: float) -> JobReport:
    """The report of what one submit has waited for."""
    results = [record.result for record in ended if record.result is not None]
    return JobReport(
        name=name,
        done=sum(record.status is TaskStatus.COMPLETED for record in ended),
        unfinished=sum(not record.status.is_terminal for record in ended),
        cancelled=sum(record.status is TaskStatus.CANCELLED for record in ended),
        skipped=counted(skipped),
        failed=_causes([record for record in ended if record.status is TaskStatus.FAILED]),
        seconds=sum(result.seconds for result in results),
        megapixels=sum(map(megapixels_of, results)),
        took_s=took_s,
    )


def counted(skipped: Iterable[Skipped]) -> tuple[Skips, ...]:
    """Why inputs were skipped, the most frequent reason first."""
    groups: dict[str, list[str]] = {}
    for one in skipped:
        groups.setdefault(one.why.partition(":")[0], []).append(str(one.path))
    reasons = (Skips(why=why, count=len(paths), example=paths[0]) for why, paths in groups.items())
    return tuple(sorted(reasons, key=lambda reason: (-reason.count, reason.why)))


def _causes(failed: Iterable[TaskRecord]) -> tuple[Cause, ...]:
    groups: dict[tuple[ErrorClass, str, str], list[TaskRecord]] = {}
    for record in failed:
        if (failure := record.failure) is not None:
            text = in_common(failure.message, paths=(record.task.image_path,))
            groups.setdefault((failure.error_class, failure.code, text), []).append(record)
    causes = []
    for (error_class, code, text), records in groups.items():
        newest = max(records, key=lambda record: record.finished_ms or 0)
        causes.append(
            Cause(
                error_class=error_class,
                code=code,
                text=text,
                count=len(records),
                newest=newest.id,
                newest_ms=newest.finished_ms or 0,
                nodes=tuple(sorted({record.node for record in records if record.node})),
            )
        )
    return tuple(sorted(causes, key=lambda cause: (-cause.count, cause.code, cause.text)))


def show_report(report: JobReport, output: Output) -> None:
    """The report for a person, as the answer."""
    skips = sum(skipped.count for skipped in report.skipped)
    parts = [f"{report.done} done"]
    parts += [f"{skips} skipped"] if skips else []
    parts += [f"{report.failures} failed"] if report.failures else []
    parts += [f"{report.cancelled} cancelled"] if report.cancelled else []
    parts += [f"{report.unfinished} not yet ended"] if report.unfinished else []
    told = f"job {report.name}: " if report.name else ""
    work = f"; {duration(report.seconds)} of work, {report.megapixels:.1f} megapixels" if report.done else ""
    took = f" in {duration(report.took_s)}" if report.took_s is not None and report.done else ""
    output.say(f"{told}{', '.join(parts)}{took}{work}")
    for skipped in report.skipped[:_SHOWN]:
        output.say(f"  skipped {skipped.count}: {skipped.why} ({skipped.example})")
    for cause in report.failed[:_SHOWN]:
        output.say(f"  failed {cause.count}: {cause.code}: {cause.text} (lcq task {cause.newest})")
    more = len(report.skipped[_SHOWN:]) + len(report.failed[_SHOWN:])
    if more:
        output.say(f"  and for {more} more reasons")

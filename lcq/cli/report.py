"""The report of a job: what was done, skipped and why, failed and why, and what it took."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from lcq.causes import in_common
from lcq.cli.output import Output, duration
from lcq.folder import Skipped
from lcq.lang import N, ntr, retold, tr
from lcq.manifest import Entry
from lcq.models import Cause, ErrorClass, Eta, JobReport, Skips, TaskRecord, TaskStatus
from lcq.resumable import megapixels_of
from lcq.settling import UNKNOWN

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


def report_of_entries(name: str, entries: Sequence[Entry]) -> JobReport:
    """The report that a manifest still allows."""
    failed: dict[str, list[Entry]] = {}
    for entry in entries:
        if entry.state == "failed":
            failed.setdefault(in_common(entry.why, paths=(entry.image,)), []).append(entry)
    causes = [
        Cause(
            error_class=ErrorClass.BAD_INPUT,
            code=text.partition(":")[0] or "failed",
            text=text.partition(": ")[2],
            count=len(found),
            newest=max(found, key=lambda entry: entry.at_ms).task,
            newest_ms=max(entry.at_ms for entry in found),
        )
        for text, found in failed.items()
    ]
    done = [entry for entry in entries if entry.state == "done"]
    return JobReport(
        name=name,
        done=len(done),
        unfinished=sum(entry.state == "given" and entry.why != UNKNOWN for entry in entries),
        unknown=sum(entry.state == "given" and entry.why == UNKNOWN for entry in entries),
        failed=tuple(sorted(causes, key=lambda cause: -cause.count)),
        seconds=sum(entry.seconds for entry in done),
        megapixels=sum(entry.megapixels for entry in done),
    )


def eta_text(eta: Eta) -> str:
    """When a job is likely to be done, in words: ``3m 20s, at most 5m 0s``."""
    if eta.p50_s is None or eta.p90_s is None:
        return retold(eta.why)
    told = tr("{likely}, at most {most}", likely=duration(eta.p50_s), most=duration(eta.p90_s))
    return tr("{told}, a guess", told=told) if eta.guessed else told


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
    counts = {
        N("{count} done"): report.done,
        N("{count} skipped"): skips,
        N("{count} failed"): report.failures,
        N("{count} cancelled"): report.cancelled,
        N("{count} not yet ended"): report.unfinished,
        N("{count} nobody knows of (submit again)"): report.unknown,
    }
    parts = tr(", ").join(tr(text, count=count) for text, count in counts.items() if count or text == "{count} done")
    told = tr("job {name}: ", name=report.name) if report.name else ""
    took = work = ""
    if report.done:
        took = tr(" in {span}", span=duration(report.took_s)) if report.took_s is not None else ""
        span, size = duration(report.seconds), report.megapixels
        work = tr("; {span} of work, {megapixels:.1f} megapixels", span=span, megapixels=size)
    output.say(f"{told}{parts}{took}{work}")
    for skipped in report.skipped[:_SHOWN]:
        output.say(
            tr(
                "  skipped {count}: {why} ({example})",
                count=skipped.count,
                why=retold(skipped.why),
                example=skipped.example,
            )
        )
    for cause in report.failed[:_SHOWN]:
        what = f"{cause.code}: {retold(cause.text)} (lcq task {cause.newest})"
        output.say(tr("  failed {count}: {what}", count=cause.count, what=what))
    if report.paused:
        output.say(tr("  paused {by}", by=retold(report.paused)))
    elif report.eta is not None:
        likely, told = report.eta.p50_s is not None, eta_text(report.eta)
        output.say(tr("  likely done in {eta}", eta=told) if likely else tr("  waits: {why}", why=told))
    more = len(report.skipped[_SHOWN:]) + len(report.failed[_SHOWN:])
    if more:
        output.say(ntr("  and for {n} more reason", "  and for {n} more reasons", more))

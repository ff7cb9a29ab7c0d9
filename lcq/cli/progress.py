"""Waiting for tasks at a terminal: the bar, the counts at the end, a line for each failure."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from lcq.cli.output import Output, duration
from lcq.cli.report import eta_text
from lcq.cli.session import OK, SOME_FAILED
from lcq.client import AsyncClient
from lcq.errors import LcqError
from lcq.lang import retold, tr
from lcq.models import TaskRecord, TaskStatus

_NOTED_EVERY_S = 2.0
_ETA_EVERY_S = 2.0
_NOTING_SHARE = 20  # and at most a twentieth of the time goes into noting


@dataclass
class Watch:
    """Some tasks that somebody waits for, and those of them that have ended."""

    ids: Sequence[str]
    ended: list[TaskRecord] = field(default_factory=list)
    job: str = ""  # of which all of them are; then the cluster can say when it is likely to be done

    @property
    def counts(self) -> Counter[TaskStatus]:
        return Counter(record.status for record in self.ended)

    @property
    def exit_code(self) -> int:
        return OK if self.counts[TaskStatus.COMPLETED] == len(self.ids) else SOME_FAILED


class _Notes:
    """Hands on what has ended, in pieces: who notes it may write a long file each time."""

    def __init__(self, note: Callable[[Sequence[TaskRecord]], None]) -> None:
        self._note = note
        self._untold: list[TaskRecord] = []
        self._next = time.monotonic() + _NOTED_EVERY_S

    async def add(self, record: TaskRecord) -> None:
        self._untold.append(record)
        if time.monotonic() >= self._next:
            await asyncio.to_thread(self.flush)

    def flush(self) -> None:
        began = time.monotonic()
        untold, self._untold = self._untold, []
        self._note(untold)
        now = time.monotonic()
        self._next = now + max(_NOTED_EVERY_S, _NOTING_SHARE * (now - began))


async def follow(
    watch: Watch,
    client: AsyncClient,
    output: Output,
    timeout_s: float | None = None,
    on_ended: Callable[[Sequence[TaskRecord]], None] = lambda ended: None,
) -> None:
    """Wait for the tasks of ``watch`` with a bar on stderr; then say what became of them.

    ``on_ended`` is told of tasks that have ended: a few seconds later at most, and of all before this comes back.

    Raises:
        TimeoutError: after ``timeout_s`` some had not ended.
    """
    started = time.monotonic()
    columns = (
        TextColumn(tr("cleaning")),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[failed]}", style="red"),
        TextColumn("{task.fields[rate]}"),
        TextColumn("{task.fields[eta]}"),
        TimeRemainingColumn(elapsed_when_finished=True),
    )
    notes = _Notes(on_ended)
    with (
        contextlib.ExitStack() as last,
        Progress(*columns, console=output.talk_console, speed_estimate_period=60) as progress,
    ):
        last.callback(notes.flush)
        bar = progress.add_task("", total=len(watch.ids), failed="", rate="", eta="")

        async def tell_eta() -> None:
            while not progress.finished:
                with contextlib.suppress(LcqError):
                    for job in await client.jobs(watch.job):
                        if not progress.finished:  # else it came too late, and all is done
                            progress.update(bar, eta=tr("done in {eta}", eta=eta_text(job.eta)) if job.eta else "")
                await asyncio.sleep(_ETA_EVERY_S)

        if watch.job:
            telling = asyncio.create_task(tell_eta(), name="eta")
            last.callback(telling.cancel)
        async for record in client.as_completed(watch.ids, timeout_s):
            watch.ended.append(record)
            await notes.add(record)
            failed = watch.counts[TaskStatus.FAILED]
            spent = max(time.monotonic() - started, 1e-3)
            progress.update(
                bar,
                advance=1,
                failed=tr("{count} failed", count=failed) if failed else "",
                rate=f"{len(watch.ended) / spent:.1f}/s",
            )
        progress.update(bar, eta="")
    for record in watch.ended:
        if record.status is not TaskStatus.COMPLETED:
            output.talk(unsuccessful(record))
    if not output.as_json:
        spent = time.monotonic() - started
        output.say(tr("{what} in {span}", what=summary(watch.counts), span=duration(spent)))


def summary(counts: Counter[TaskStatus]) -> str:
    """``12 completed, 1 failed``: what there is of each, the completed always."""
    others = [(status, count) for status, count in counts.items() if status is not TaskStatus.COMPLETED]
    return tr(", ").join(
        tr("{count} {status}", count=count, status=tr(status.value))
        for status, count in [(TaskStatus.COMPLETED, counts[TaskStatus.COMPLETED]), *others]
    )


def unsuccessful(record: TaskRecord) -> str:
    """One line on a task that did not complete: the image, what happened, where to read more."""
    image = record.task.source
    if record.failure is None:
        return (
            f"{tr(record.status.value)} {image}: {retold(record.why) or tr('no reason given')} [lcq task {record.id}]"
        )
    what = retold(record.failure.message.removeprefix(f"{record.task.image_path}: "))
    return f"{tr(record.status.value)} {image}: {what} [{record.failure.code}; lcq task {record.id}]"

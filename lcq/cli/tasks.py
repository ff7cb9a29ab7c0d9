"""lcq tasks, task, cancel, retry, reroute, prioritise: looking at tasks, and steering them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from typing import Annotated

import typer
from rich.text import Text

from lcq.cli.bulk import DryRunFlag, WhereOption, YesFlag, meant, tell
from lcq.cli.change import (
    NO_CHANGES,
    ModelOption,
    NodeOption,
    PriorityOption,
    QueueOption,
    RetriesOption,
    SetOption,
    TimeoutOption,
    do_again,
    read_changes,
    records_meant,
)
from lcq.cli.choice import chosen
from lcq.cli.examples import examples
from lcq.cli.output import Column, Output, age, clock, duration, status_text, tail
from lcq.cli.session import OK, REFUSED, Ids, JobOption, JsonFlag, Reason, Session, SomeIds, run, session_of
from lcq.client import AsyncClient
from lcq.errors import InvalidInput, UnknownCommand
from lcq.labels import parse_labels, told_labels
from lcq.lang import N, ntr, retold, tr
from lcq.models import TERMINAL_STATES, Attempt, Privacy, TaskPriority, TaskRecord, TaskStatus
from lcq.moments import told_deadline, told_moment
from lcq.reasons import MEANINGS, Why, brief
from lcq.spend import MILLION
from lcq.task_fields import late_ms, parse_where
from lcq.wire import HistoryAnswer, JobActAnswer

app = typer.Typer()

_EXPLAINED = 1000  # rows of a list that say why they wait, as the scheduler sees it now
MAX_COMMENT = 500
_WAITING = (TaskStatus.PENDING, TaskStatus.QUEUED)
_OPEN = frozenset(TaskStatus) - TERMINAL_STATES
_MOVABLE = frozenset(TaskStatus) - {TaskStatus.COMPLETED}

_COLUMNS = (
    Column("TASK", whole=True),
    Column("STATUS", whole=True),
    Column("QUEUE", spared=2),
    Column("NODE", spared=1),
    Column("MODEL", spared=4),
    Column("IMAGE"),
    Column("TRY", right=True, whole=True, spared=5),
    Column("AGE", right=True, whole=True),
    Column("NOTE"),
)


@app.command(
    epilog=examples(
        "lcq tasks 'state:failed age<15m'",
        "lcq tasks 'node~gpu-0[12] cause=oom !job:holiday'",
        "lcq tasks --status failed --job holiday",
        "lcq tasks --json --limit 1000",
    )
)
def tasks(
    context: typer.Context,
    where: Annotated[
        list[str] | None,
        typer.Argument(metavar="FILTER", help="Words that must be found, or NAME:WORD, NAME<15m … (docs/filter.md)."),
    ] = None,
    status: Annotated[TaskStatus | None, typer.Option("--status", help="Only these.")] = None,
    queue: Annotated[str, typer.Option("--queue", metavar="NAME", help="Only of this queue.")] = "",
    node: Annotated[str, typer.Option("--node", metavar="NAME", help="Only what ran on this node.")] = "",
    job: JobOption = "",
    cause: Annotated[str, typer.Option("--cause", metavar="CODE", help="Only failures of this code.")] = "",
    limit: Annotated[int, typer.Option("--limit", min=1, help="How many, the newest first.")] = 50,
    as_json: JsonFlag = False,
) -> int:
    """List tasks, the newest first; all filters given must hold. What waits says why (in full: lcq why ID)."""
    words = " ".join(where or ())
    return run(_tasks(session_of(context, as_json), words, status, queue, node, job, cause, limit))


async def _tasks(
    session: Session, where: str, status: TaskStatus | None, queue: str, node: str, job: str, cause: str, limit: int
) -> int:
    output = session.output
    parse_where(where)  # what is wrong with it is known here as well as there
    async with session.client() as client:
        first = await client.page(where, status=status, queue=queue, node=node, job=job, cause=cause, limit=limit)
        records, cursor, looked_at = list(first.tasks), first.cursor, first.looked_at
        while cursor and len(records) < limit:
            more = await client.page(
                where,
                status=status,
                queue=queue,
                node=node,
                job=job,
                cause=cause,
                limit=limit - len(records),
                cursor=cursor,
            )
            records += more.tasks
            cursor, looked_at = more.cursor, looked_at + more.looked_at
        reasons = await _reasons(client, records)
    if output.as_json:
        told = [record.model_dump(mode="json") | {"reason": reasons.get(record.id)} for record in records]
        output.document({"tasks": told, "total": first.total})
        return OK
    output.table(
        _COLUMNS,
        (_row(record, reasons.get(record.id)) for record in records),
        empty=tr("no task fits") if where else tr("no tasks"),
    )
    if where and cursor:
        output.talk(
            tr(
                "{some} of those that fit, after looking at {all} tasks; --limit shows more",
                some=len(records),
                all=looked_at,
            )
        )
    elif where:
        output.talk(tr("{some} of {all} tasks fit", some=len(records), all=first.total))
    elif first.total > len(records):
        output.talk(tr("{some} of {all}; --limit shows more", some=len(records), all=first.total))
    return OK


async def _reasons(client: AsyncClient, records: Sequence[TaskRecord]) -> dict[str, Why]:
    """Why those of the first rows that wait do so, by their ids, as the scheduler sees it now."""
    waiting = [record.id for record in records[:_EXPLAINED] if record.status in _WAITING]
    try:
        return {task_id: told.why for task_id, told in (await client.whys(waiting)).items()}
    except UnknownCommand:
        return {}  # an older scheduler: the records have what was known when they were written


def _row(record: TaskRecord, reason: Why | None) -> tuple[str | Text, ...]:
    return (
        record.id,
        status_text(record.status),
        record.queue,
        record.node,
        record.task.model,
        tail(record.task.source),
        str(record.attempt),
        age(record.submitted_ms),
        _note(record, reason),
    )


def _note(record: TaskRecord, reason: Why | None) -> str:
    if reason is not None:
        return retold(brief(reason, time.time_ns() // 1_000_000))
    if record.status is TaskStatus.PROCESSING:
        return f"{record.progress:.0%} {tr(record.stage)}".rstrip()
    if record.failure is not None and record.status in (TaskStatus.FAILED, TaskStatus.PENDING):
        return retold(record.failure.message.removeprefix(f"{record.task.image_path}: "))
    return retold(record.why)


@app.command(epilog=examples("lcq task 06ft3k", "lcq task 06ft3k --json"))
def task(context: typer.Context, ids: Ids, as_json: JsonFlag = False) -> int:
    """Show a task's whole history: what was asked, each attempt, each event, and why it stands as it does."""
    return run(_task(session_of(context, as_json), ids))


async def _task(session: Session, ids: list[str]) -> int:
    output = session.output
    async with session.client() as client:
        histories = [await client.history(task_id) for task_id in await chosen(client, ids)]
    if output.as_json:
        output.document(histories[0] if len(histories) == 1 else histories)
        return OK
    for number, history in enumerate(histories):
        if number:
            output.say()
        _show(history, output)
    return OK


def _show(history: HistoryAnswer, output: Output) -> None:
    record = history.record
    output.facts(_facts(record, history.explanation))
    if record.notes:
        output.heading(tr("Notes"))
        output.table(
            [Column("TIME", whole=True), Column("WHO"), Column("NOTE", wrapped=True)],
            ((clock(note.at_ms), note.actor, note.text) for note in record.notes),
        )
    if history.attempts:
        eased = any(attempt.eased for attempt in history.attempts)
        predicted = any(attempt.predicted_s for attempt in history.attempts)
        paid = any(attempt.spend for attempt in history.attempts)
        output.heading(tr("Attempts"))
        output.table(
            [
                Column("NO", right=True, whole=True),
                Column("NODE"),
                Column("DEVICE", spared=3),
                Column("STARTED", whole=True, spared=4),
                Column("TOOK", right=True, whole=True),
                *([Column("WORKED", right=True, whole=True), Column("PREDICTED", whole=True)] if predicted else []),
                *([Column("PAID", right=True, whole=True)] if paid else []),
                Column("OUTCOME", whole=True),
                *([Column("EASED", wrapped=True)] if eased else []),
                Column("FAILURE", wrapped=True),
            ],
            (
                (
                    str(attempt.number),
                    attempt.node,
                    attempt.device,
                    clock(attempt.started_ms),
                    duration((attempt.ended_ms - attempt.started_ms) / 1000) if attempt.ended_ms else "",
                    *([duration(attempt.seconds) if attempt.seconds else "", _predicted(attempt)] if predicted else []),
                    *([_paid(attempt, history.currency)] if paid else []),
                    tr(attempt.outcome),
                    *([", ".join(attempt.eased)] if eased else []),
                    f"{attempt.failure.code}: {retold(attempt.failure.message)}" if attempt.failure else "",
                )
                for attempt in history.attempts
            ),
        )
    if history.events:
        output.heading(tr("Events"))
        output.table(
            [Column("TIME", whole=True), Column("MOVE", whole=True), Column("STATUS"), Column("DETAILS", wrapped=True)],
            (
                (clock(event.at_ms), event.move, tr(event.fields.get("status", "")), details(event.fields))
                for event in history.events
            ),
        )


def _paid(attempt: Attempt, currency: str) -> str:
    return f"{attempt.spent / MILLION:,.6f} {currency}".strip() if attempt.ended_ms else ""


def _predicted(attempt: Attempt) -> str:
    """What it was expected to take: ``1.2 s (P90 2.4 s), 300 MiB, 4.2 MP``; *a guess*, where nobody had measured it."""
    if not attempt.predicted_s:
        return ""
    memory = f", {attempt.predicted_mib:,} MiB" if attempt.predicted_mib else ""
    cold = "" if attempt.warm else tr(", with loading")
    times = f"{duration(attempt.predicted_s)} (P90 {duration(attempt.predicted_p90_s)})"
    times = tr("{told}, a guess", told=times) if attempt.guessed else times
    return f"{times}{memory}, {attempt.megapixels:.1f} MP{cold}"


def _told_deadline(record: TaskRecord) -> str:
    """Its deadline on this host's clock, and whether that is, or was, kept."""
    deadline = record.task.deadline
    if deadline is None:
        return ""
    if record.status not in TERMINAL_STATES:
        return told_deadline(deadline, duration)
    late = late_ms(record.status, record.task.deadline_ms, record.finished_ms, 0)
    when = told_moment(deadline)
    if late is None:
        return tr("{when}, and was not done", when=when)
    if late > 0:
        return tr("{when}, ! LATE by {span}", when=when, span=duration(late / 1000))
    return tr("{when}, and was kept", when=when)


def details(fields: dict[str, str]) -> str:
    """What an event says beyond its task and its status."""
    return " ".join(
        f"{name}={value}" for name, value in fields.items() if value and name not in ("id", "status", "rev")
    )


def _facts(record: TaskRecord, explanation: str) -> Iterable[tuple[str, str | Text]]:
    asked = record.task
    yield tr("task"), record.id
    yield tr("status"), status_text(record.status)
    yield tr("why"), retold(explanation)
    yield tr("image"), asked.image_path
    yield tr("source"), asked.source if asked.source != asked.image_path else ""
    yield tr("mask"), asked.mask_path or ""
    yield tr("result"), record.result.path if record.result else ""
    yield tr("output"), asked.output_path if asked.output_path and not record.result else ""
    yield tr("image size"), f"{record.size[0]} x {record.size[1]}" if record.size else ""
    yield tr("type"), asked.task_type
    yield tr("config"), " ".join(f"{key}={value}" for key, value in asked.config.items())
    yield tr("queue"), record.queue
    yield tr("pinned to"), record.pinned_node
    yield tr("requires"), told_labels(asked.requires)
    yield tr("node"), f"{record.node} {record.device}".strip()
    yield tr("priority"), tr(record.priority.value)
    yield tr("user"), asked.user_id
    yield tr("job"), asked.job or ""
    is_free = asked.privacy is Privacy.EXPORTABLE
    yield tr("privacy"), tr("exportable: its pictures may leave the house") if is_free else ""
    yield tr("to be done by"), _told_deadline(record)
    yield (
        tr("attempts"),
        tr(
            "{attempt}, retries {retries} of {most}",
            attempt=record.attempt,
            retries=record.retries,
            most=asked.max_retries,
        ),
    )
    yield tr("eased"), ", ".join(record.eased)
    if record.status is TaskStatus.PROCESSING:
        yield tr("progress"), f"{record.progress:.0%} {tr(record.stage)}"
    yield tr("submitted"), _moment(record.submitted_ms)
    yield tr("due"), clock(record.due_ms)
    yield tr("started"), _moment(record.started_ms)
    yield tr("finished"), _moment(record.finished_ms)
    if record.result is not None:
        result = record.result
        yield (
            tr("size"),
            tr(
                "{width} x {height}, {bytes} bytes, {span}",
                width=result.width,
                height=result.height,
                bytes=result.bytes,
                span=duration(result.seconds),
            ),
        )
        yield tr("notes"), tr("; ").join(map(retold, result.notes))
    if record.failure is not None:
        yield tr("failure"), f"{record.failure.error_class} / {record.failure.code}: {retold(record.failure.message)}"


def _moment(at_ms: int | None) -> str:
    return tr("{at} ({age} ago)", at=clock(at_ms), age=age(at_ms)) if at_ms else ""


@app.command(epilog=examples("lcq why 06ft3k", "lcq why --json 06ft3k", "lcq why --codes"))
def why(
    context: typer.Context,
    ids: SomeIds = None,
    codes: Annotated[bool, typer.Option("--codes", help="List all codes there are, and what they mean.")] = False,
    as_json: JsonFlag = False,
) -> int:
    """Tell in one line why a task waits, or what became of it, and what to do about it."""
    session = session_of(context, as_json)
    if codes:
        return _codes(session.output)
    if not ids:
        raise InvalidInput("why is what waiting?", hint="lcq why ID, or lcq why --codes")
    return run(_why(session, ids))


async def _why(session: Session, ids: list[str]) -> int:
    output = session.output
    async with session.client() as client:
        found = [(task_id, await client.why(task_id)) for task_id in await chosen(client, ids)]
    if output.as_json:
        told = [{"id": task_id, **why.model_dump(mode="json")} for task_id, why in found]
        output.document(told[0] if len(told) == 1 else told)
        return OK
    for task_id, why in found:
        output.say((f"{task_id}  " if len(found) > 1 else "") + f"{_coded(why)}")
        if why.hint:
            output.talk(tr("hint: ") + retold(why.hint).replace("ID", task_id))
    return OK


def _codes(output: Output) -> int:
    if output.as_json:
        output.document({code: {"means": one.says, "facts": one.facts} for code, one in MEANINGS.items()})
    else:
        output.table(
            [Column("CODE", whole=True), Column("MEANS", wrapped=True)],
            ((code, retold(one.says)) for code, one in MEANINGS.items()),
        )
    return OK


# ---------------------------------------------------------------- acts


@app.command(
    epilog=examples(
        "lcq cancel 06ft3k 06ft3m",
        "lcq cancel --job holiday",
        "lcq cancel --where 'queue=gpu-low state:waiting age>1d' --dry-run",
    )
)
def cancel(
    context: typer.Context,
    ids: SomeIds = None,
    job: JobOption = "",
    where: WhereOption = "",
    yes: YesFlag = False,
    dry_run: DryRunFlag = False,
    reason: Reason = "",
    as_json: JsonFlag = False,
) -> int:
    """Cancel tasks; running ones are told to stop. --job means those of it that have not ended."""
    session = session_of(context, as_json)
    _refuse_both(job, where, dry_run)

    async def act() -> int:
        async with session.client() as client:
            if _is_job(ids, job):
                say_how_far = _teller(tr("cancelled"), session.output)
                of_job = await client.cancel_job(job, reason=reason, on_progress=say_how_far)
                return _tell_job(tr("cancelled"), of_job, session.output)
            found = await meant(client, session.output, ids or [], where=where, legal=_OPEN, yes=yes, dry_run=dry_run)
            if found is None:
                return OK
            answer = await client.cancel(found.ids, revisions=found.revisions, reason=reason)
            return tell(tr("cancelled"), answer, session.output)

    return run(act())


@app.command(
    epilog=examples(
        "lcq retry 06ft3k",
        "lcq retry --failed --job holiday",
        "lcq retry --failed --cause out_of_memory",
        "lcq retry --where 'state:failed node:gpu-1 age<2h' --yes",
        "lcq retry 06ft3k --queue gpu-high --priority high",
        "lcq retry --where 'state:failed cause:oom' --set precision=fp16",
    )
)
def retry(
    context: typer.Context,
    ids: SomeIds = None,
    failed: Annotated[bool, typer.Option("--failed", help="All that failed (of --job, of --cause).")] = False,
    job: JobOption = "",
    cause: Annotated[str, typer.Option("--cause", metavar="CODE", help="Only failures of this code.")] = "",
    where: WhereOption = "",
    model: ModelOption = None,
    settings: SetOption = None,
    timeout_s: TimeoutOption = None,
    max_retries: RetriesOption = None,
    queue: QueueOption = "",
    node: NodeOption = "",
    priority: PriorityOption = None,
    yes: YesFlag = False,
    dry_run: DryRunFlag = False,
    reason: Reason = "",
    as_json: JsonFlag = False,
) -> int:
    """Put tasks that have ended back into their queue, their counts anew. --job means those that failed.

    With another queue, node or priority the same tasks go there; with another model, --set, --timeout or --max-retries
    new ones are submitted, and the old ones stay as they are.
    """
    session = session_of(context, as_json)
    if ids and failed:
        raise InvalidInput("say either ids or --failed", hint="--failed may be narrowed by --job NAME and --cause CODE")
    if cause and not (failed or job):
        raise InvalidInput("--cause narrows --failed", hint="lcq retry --failed --cause CODE")
    changes = read_changes(
        settings=settings, model=model, timeout_s=timeout_s, max_retries=max_retries, queue=queue, node=node,
        priority=priority,
    )  # fmt: skip
    if changes != NO_CHANGES and (job or failed):
        raise InvalidInput(
            "what is changed goes with ids or --where", hint="lcq retry --where 'state:failed job=NAME' --model lama"
        )
    _refuse_both(job or failed, where, dry_run)

    async def act() -> int:
        async with session.client() as client:
            if changes != NO_CHANGES:
                records = await records_meant(client, session, ids or [], where, TERMINAL_STATES, yes=yes or dry_run)
                return await do_again(client, session, records, changes, reason=reason, dry_run=dry_run)
            if _is_job(ids, job):
                say_how_far = _teller(tr("put back"), session.output)
                of_job = await client.retry_job(job, cause=cause, reason=reason, on_progress=say_how_far)
                return _tell_job(tr("put back"), of_job, session.output)
            if failed:
                all_failed = [record.id async for record in client.tasks(status=TaskStatus.FAILED, cause=cause)]
                return tell(tr("put back"), await client.retry(all_failed, reason=reason), session.output)
            found = await meant(
                client, session.output, ids or [], where=where, legal=TERMINAL_STATES, yes=yes, dry_run=dry_run
            )
            if found is None:
                return OK
            answer = await client.retry(found.ids, revisions=found.revisions, reason=reason)
            return tell(tr("put back"), answer, session.output)

    return run(act())


@app.command(
    epilog=examples(
        "lcq reroute 06ft3k --queue gpu-high",
        "lcq reroute 06ft3k --node studio-2",
        "lcq reroute 06ft3k --label rack=3",
        "lcq reroute --job holiday --any-label",
        "lcq reroute --where 'queue=gpu-high state:waiting' --queue gpu-low --yes",
    )
)
def reroute(
    context: typer.Context,
    ids: SomeIds = None,
    queue: Annotated[str, typer.Option("--queue", metavar="NAME", help="To this queue.")] = "",
    node: Annotated[str, typer.Option("--node", metavar="NAME", help="To this node alone.")] = "",
    label: Annotated[
        list[str] | None,
        typer.Option("--label", metavar="NAME=VALUE", help="To nodes with this label, whatever was required before."),
    ] = None,
    any_label: Annotated[bool, typer.Option("--any-label", help="To nodes of any labels.")] = False,
    job: JobOption = "",
    where: WhereOption = "",
    yes: YesFlag = False,
    dry_run: DryRunFlag = False,
    reason: Reason = "",
    as_json: JsonFlag = False,
) -> int:
    """Move tasks to another queue, to one node, or to nodes with a label; a running attempt is cancelled first."""
    session = session_of(context, as_json)
    if label and any_label:
        raise InvalidInput("--label and --any-label contradict each other", hint="give one of them")
    labels = parse_labels(label or ()) if label or any_label else None
    if (queue and node) or not (queue or node or labels is not None):
        raise InvalidInput(
            "say where to: --queue NAME or --node NAME, --label NAME=VALUE, or --any-label",
            hint="lcq queues, lcq nodes",
        )
    _refuse_both(job, where, dry_run)

    async def act() -> int:
        async with session.client() as client:
            place = queue or node or tr("nodes of any labels")
            if labels:
                place = tr("nodes with {labels}", labels=told_labels(labels))
            moved = tr("moved to {where}", where=place)
            if _is_job(ids, job):
                say_how_far = _teller(moved, session.output)
                of_job = await client.reroute_job(
                    job, queue=queue, node=node, labels=labels, reason=reason, on_progress=say_how_far
                )
                return _tell_job(moved, of_job, session.output)
            found = await meant(
                client, session.output, ids or [], where=where, legal=_MOVABLE, yes=yes, dry_run=dry_run
            )
            if found is None:
                return OK
            answer = await client.reroute(
                found.ids, queue=queue, node=node, labels=labels, revisions=found.revisions, reason=reason
            )
            return tell(moved, answer, session.output)

    return run(act())


@app.command(epilog=examples("lcq prioritise 06ft3k --priority urgent", "lcq prioritise --job holiday --priority low"))
def prioritise(
    context: typer.Context,
    priority: Annotated[TaskPriority, typer.Option("--priority", help="The new priority.")],
    ids: SomeIds = None,
    job: JobOption = "",
    where: WhereOption = "",
    yes: YesFlag = False,
    dry_run: DryRunFlag = False,
    reason: Reason = "",
    as_json: JsonFlag = False,
) -> int:
    """Give tasks that wait another priority."""
    session = session_of(context, as_json)
    _refuse_both(job, where, dry_run)

    now = tr("now {priority}", priority=tr(priority.value))

    async def act() -> int:
        async with session.client() as client:
            if _is_job(ids, job):
                say_how_far = _teller(now, session.output)
                of_job = await client.prioritise_job(job, priority, reason=reason, on_progress=say_how_far)
                return _tell_job(now, of_job, session.output)
            found = await meant(client, session.output, ids or [], where=where, legal=_OPEN, yes=yes, dry_run=dry_run)
            if found is None:
                return OK
            answer = await client.prioritise(found.ids, priority, revisions=found.revisions, reason=reason)
            return tell(now, answer, session.output)

    return run(act())


@app.command(
    epilog=examples(
        "lcq comment 06ft3k 'the mask is off by a pixel'",
        "lcq comment --where 'cause:oom age<1h' 'the new driver; being looked at'",
    )
)
def comment(
    context: typer.Context,
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="[TASK]... TEXT",
            help="Of which tasks, by their ids or the beginnings; then what others shall read, at most 500 characters.",
        ),
    ],
    where: WhereOption = "",
    yes: YesFlag = False,
    dry_run: DryRunFlag = False,
    as_json: JsonFlag = False,
) -> int:
    """Leave a note with tasks; their state stays as it is."""
    session = session_of(context, as_json)
    *ids, text = (word.strip() for word in words)
    if not ids and not where:
        raise InvalidInput("say with which task, and then the note", hint="lcq comment TASK 'what others shall read'")
    if not 0 < len(text) <= MAX_COMMENT:
        raise InvalidInput(f"a note has 1 to {MAX_COMMENT} characters, found {len(text)}")

    async def act() -> int:
        async with session.client() as client:
            found = await meant(
                client, session.output, ids, where=where, legal=frozenset(TaskStatus), yes=yes, dry_run=dry_run
            )
            if found is None:
                return OK
            return tell(tr("noted with"), await client.comment(found.ids, text), session.output)

    return run(act())


def _refuse_both(job: str | bool, where: str, dry_run: bool) -> None:
    """Raises:
    InvalidInput: a job, or all that failed, and a filter are given.
    """
    if job and where:
        raise InvalidInput("say which tasks: either --where FILTER, or --job and --failed", hint="--where 'job=NAME …'")
    if job and dry_run:
        raise InvalidInput("--dry-run tells of ids or of --where", hint="--where 'job=NAME …' --dry-run")


def _is_job(ids: list[str] | None, job: str) -> bool:
    """Whether all of a job is meant.

    Raises:
        InvalidInput: ids are given as well.
    """
    if ids and job:
        raise InvalidInput("say which tasks: either their ids or --job NAME", hint="lcq tasks lists them")
    return bool(job)


def _teller(done: str, output: Output) -> Callable[[JobActAnswer], None]:
    """Says how far an act on a large job is, as long as it is not at its end."""

    def say_how_far(answer: JobActAnswer) -> None:
        if answer.after:
            form = N("{done}: {count:,} tasks, {seen:,} looked at; it goes on …")
            if answer.total:
                form = N("{done}: {count:,} tasks, {seen:,} of {total:,} looked at; it goes on …")
            output.talk(tr(form, done=done, count=answer.done, seen=answer.seen, total=answer.total))

    return say_how_far


def _tell_job(done: str, answer: JobActAnswer, output: Output) -> int:
    """Say what became of the tasks of a job: how many, and one line for each cause of refusals."""
    if output.as_json:
        output.document(answer)
    elif answer.done:
        output.say(ntr("{done}: {n} task", "{done}: {n} tasks", answer.done, done=done))
    elif not answer.refused:
        output.talk(tr("no such tasks: nothing to do"))
    for refused in answer.refused:
        output.error(refused.example.error())
        if refused.count > 1:
            output.talk(tr("so with {count} more", count=refused.count - 1))
    return REFUSED if answer.refused else OK


def _coded(why: Why) -> str:
    """A reason behind its code, which it may begin with by itself."""
    told = retold(why.text)
    return told if told.startswith(f"{why.code}:") else f"{why.code}: {told}"

"""lcq dead: the tasks that failed for good, by what they died of; each with what was asked and what was said."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from lcq.cli.causes import tell_causes
from lcq.cli.choice import chosen
from lcq.cli.examples import examples
from lcq.cli.output import Output, clock, status_text
from lcq.cli.session import OK, Ids, JobOption, JsonFlag, Session, run, session_of
from lcq.lang import retold, tr
from lcq.wire import HistoryAnswer

app = typer.Typer()


@app.callback(
    invoke_without_command=True,
    epilog=examples("lcq dead", "lcq dead --cause out_of_memory", "lcq dead show 06ft3k"),
)
def dead(
    context: typer.Context,
    cause: Annotated[str, typer.Option("--cause", metavar="CODE", help="Only failures of this code.")] = "",
    job: JobOption = "",
    as_json: JsonFlag = False,
) -> int:
    """Count the failed tasks by cause. 'lcq dead show ID' tells of one, 'lcq retry --failed' puts them back."""
    if context.invoked_subcommand is not None:
        return OK
    return run(_dead(session_of(context, as_json), cause, job))


async def _dead(session: Session, code: str, job: str) -> int:
    async with session.client() as client:
        tell_causes(await client.dead(cause=code, job=job), session.output)
    return OK


@app.command(epilog=examples("lcq dead show 06ft3k", "lcq dead show 06ft3k --json"))
def show(context: typer.Context, ids: Ids, as_json: JsonFlag = False) -> int:
    """Show what was asked of tasks, what each attempt died of, and what its runner wrote last."""
    return run(_show(session_of(context, as_json), ids))


async def _show(session: Session, ids: list[str]) -> int:
    output = session.output
    async with session.client() as client:
        histories = [await client.history(task_id) for task_id in await chosen(client, ids)]
    if output.as_json:
        output.document([_document(history) for history in histories])
        return OK
    for number, history in enumerate(histories):
        if number:
            output.say()
        _tell(history, output)
    return OK


def _document(history: HistoryAnswer) -> dict[str, object]:
    record = history.record
    return {
        "id": record.id,
        "status": record.status,
        "failure": record.failure,
        "payload": record.task,
        "attempts": history.attempts,
    }


def _tell(history: HistoryAnswer, output: Output) -> None:
    record = history.record
    output.facts(
        (
            (tr("task"), record.id),
            (tr("status"), status_text(record.status)),
            (tr("reason"), retold(history.explanation)),
        )
    )
    output.heading(tr("Payload"))
    for line in json.dumps(json.loads(record.task.to_json()), indent=2).splitlines():
        output.say(line)
    for attempt in history.attempts:
        if attempt.failure is None:
            continue
        failure = attempt.failure
        output.heading(
            tr(
                "Attempt {number} on {node} {device}, {at}",
                number=attempt.number,
                node=attempt.node,
                device=attempt.device,
                at=clock(attempt.ended_ms),
            )
        )
        output.say(f"{failure.error_class} / {failure.code}: {retold(failure.message)}")
        for line in attempt.log.splitlines():
            output.say(f"  {line}")

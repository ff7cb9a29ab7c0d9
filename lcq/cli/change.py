"""lcq retry with changes, lcq edit: tasks done again with something changed, as R and e in the console."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml

from lcq.changing import Changes, changed, differences, retry_elsewhere, submit_changed
from lcq.cli.bulk import DryRunFlag, WhereOption, YesFlag, meant, tell
from lcq.cli.examples import examples
from lcq.cli.session import OK, JsonFlag, Reason, Session, SomeIds, run, session_of
from lcq.client import AsyncClient
from lcq.errors import InvalidInput
from lcq.lang import ntr, tr
from lcq.models import TaskPriority, TaskRecord, TaskStatus
from lcq.wire import BulkAnswer

app = typer.Typer()

NO_CHANGES = Changes()

ModelOption = Annotated[str | None, typer.Option("--model", metavar="NAME", help="With another model.")]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="With this of the model otherwise (again for more); KEY= takes it away."
    ),
]
TimeoutOption = Annotated[
    float | None, typer.Option("--timeout", metavar="SECONDS", help="How long one attempt may take.")
]
RetriesOption = Annotated[int | None, typer.Option("--max-retries", min=0, max=100, help="Tries after the first.")]
QueueOption = Annotated[str, typer.Option("--queue", metavar="NAME", help="In this queue.")]
NodeOption = Annotated[str, typer.Option("--node", metavar="NAME", help="On this node alone.")]
PriorityOption = Annotated[TaskPriority | None, typer.Option("--priority", help="Before whom in the queue.")]


def read_changes(
    *, settings: Sequence[str] | None = None, image: Path | None = None, mask: str | None = None,
    output: Path | None = None, **others: Any,
) -> Changes:  # fmt: skip
    """The changes that options say. ``settings``: KEY=VALUE each; ``others``: as ``Changes`` has them.

    Raises:
        InvalidInput: a setting is none, or a queue and a node are given.
    """
    if others.get("queue") and others.get("node"):
        raise InvalidInput("say where: either --queue or --node", hint="--node NAME is a node's alone, whatever queue")
    over = dict(map(_setting, settings or ())) or None
    files: dict[str, Any] = {
        "image": None if image is None else str(image.absolute()),
        "mask": mask and str(Path(mask).absolute()),
        "output": None if output is None else str(output.absolute()),
    }
    return Changes(over=over, **files, **others)


def _setting(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise InvalidInput(f"--set takes KEY=VALUE, found {text!r}", hint="--set radius=8")
    try:
        return name, yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise InvalidInput(
            f"--set {name}: {value!r} is no value: {' '.join(str(error).split())}", hint="--set radius=8"
        ) from error


async def do_again(
    client: AsyncClient,
    session: Session,
    records: Sequence[TaskRecord],
    changes: Changes,
    *,
    reason: str,
    dry_run: bool,
) -> int:
    """Do these tasks again so, and tell what became of it; with ``dry_run`` only what would be otherwise.

    Raises:
        InvalidInput: they cannot be tasks so.
    """
    output = session.output
    if not records:
        return tell(tr("put back"), BulkAnswer(), output)
    tasks = [changed(one.task, changes) for one in records] if changes.makes_new else []
    lines = differences(records, changes) or [tr("nothing is changed: they go again as they were")]
    if dry_run and output.as_json:
        output.document({"would": [one.id for one in records], "new": bool(tasks), "differs": lines})
        return OK
    for line in lines:
        output.talk(line)
    if dry_run:
        output.say(
            ntr("{n} new task would be submitted", "{n} new tasks would be submitted", len(tasks))
            if tasks
            else ntr("{n} task would go again", "{n} tasks would go again", len(records))
        )
        return OK
    if tasks:
        return tell(tr("submitted"), await submit_changed(client, tasks, changes, reason=reason), output)
    return tell(tr("put back"), await retry_elsewhere(client, records, changes, reason=reason), output)


@app.command(
    epilog=examples(
        "lcq edit 06ft3k --mask better_mask.png",
        "lcq edit 06ft3k --model lama --set precision=fp32 --output /photos/again.png",
        "lcq edit --where 'job=holiday state:done' --set radius=8 --queue gpu-low --yes",
    )
)
def edit(
    context: typer.Context,
    ids: SomeIds = None,
    image: Annotated[Path | None, typer.Option("--image", metavar="FILE", help="Of another image.")] = None,
    mask: Annotated[str | None, typer.Option("--mask", metavar="FILE", help="With another mask; '' for none.")] = None,
    output: Annotated[Path | None, typer.Option("--output", metavar="FILE", help="Into another file.")] = None,
    model: ModelOption = None,
    settings: SetOption = None,
    timeout_s: TimeoutOption = None,
    max_retries: RetriesOption = None,
    queue: QueueOption = "",
    node: NodeOption = "",
    priority: PriorityOption = None,
    where: WhereOption = "",
    yes: YesFlag = False,
    dry_run: DryRunFlag = False,
    reason: Reason = "",
    as_json: JsonFlag = False,
) -> int:
    """Submit tasks again as new ones, with something changed; the old ones stay as they are."""
    session = session_of(context, as_json)
    changes = read_changes(
        settings=settings, image=image, mask=mask, output=output, model=model, timeout_s=timeout_s,
        max_retries=max_retries, queue=queue, node=node, priority=priority, anew=True,
    )  # fmt: skip

    async def act() -> int:
        async with session.client() as client:
            records = await records_meant(client, session, ids or [], where, tuple(TaskStatus), yes=yes or dry_run)
            if len(records) > 1 and (image or output):
                raise InvalidInput(
                    f"{len(records)} tasks cannot have one --image or one --output", hint="one task at a time"
                )
            return await do_again(client, session, records, changes, reason=reason, dry_run=dry_run)

    return run(act())


async def records_meant(
    client: AsyncClient, session: Session, ids: Sequence[str], where: str, legal: Collection[TaskStatus], *, yes: bool
) -> list[TaskRecord]:
    """The tasks of these ids, or those of states in ``legal`` that a filter fits, as they are now.

    Raises:
        InvalidInput: as ``lcq.cli.bulk.meant``; or a task of these ids is in none of the states.
    """
    found = await meant(client, session.output, ids, where=where, legal=legal, yes=yes, dry_run=False)
    records = list(await client.get_many(found.ids)) if found is not None else []
    others = [one for one in records if one.status not in legal]
    if others:
        raise InvalidInput(f"{others[0].id} is {others[0].status}: it has not ended", hint="lcq cancel, or lcq edit")
    return records

"""lcq submit: images and folders become tasks."""

from __future__ import annotations

import asyncio
import contextlib
import shlex
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml

from lcq import resumable
from lcq.cli.examples import examples
from lcq.cli.output import Output, duration
from lcq.cli.progress import Watch, follow
from lcq.cli.report import counted, report_of, show_report
from lcq.cli.sending import Upload, choose_way, tell_unfetched, uploads_of
from lcq.cli.session import INTERRUPTED, OK, REFUSED, SOME_FAILED, JsonFlag, Session, run, session_of
from lcq.client import AsyncClient, login_name
from lcq.errors import InvalidInput, LcqError
from lcq.folder import Named, Pairing, Skipped, format_named, name_results, pair_images
from lcq.foreseen import told_foreseen, told_late
from lcq.labels import parse_labels
from lcq.lang import T, ntr, retold, tr
from lcq.models import JobReport, Privacy, Task, TaskPriority, TaskRecord, TaskType, build
from lcq.moments import moment_meant
from lcq.places import note_places
from lcq.resumable import FolderJob, Piece, Shelf, folder_job_name, named_results, result_folders, sums_of_pairs
from lcq.wire import Accepted, ForeseeAnswer, Refusal

app = typer.Typer()

_NOTED = 20  # reasons for which something was skipped that are kept with the job
_NOTE_S = 2.0  # that noting them may take
_SHOWN = 10  # lines about skipped files before the rest is only counted


@dataclass
class Submission:
    """What one ``lcq submit`` is about, and what has become of it so far."""

    job: FolderJob
    skipped: Sequence[Skipped]  # what was found and cannot become a task
    watch: Watch | None = None

    @property
    def name(self) -> str | None:
        return self.job.name

    @property
    def accepted(self) -> list[Accepted]:
        """The tasks that make what is not done, also those of earlier submits that still run."""
        return [piece.accepted for piece in self.job.pieces if piece.accepted is not None]

    @property
    def refused(self) -> list[Refusal]:
        return [piece.refused for piece in self.job.pieces if piece.refused is not None]

    @property
    def all_skipped(self) -> list[Skipped]:
        """Everything that needs no work, with the reason."""
        done = [Skipped(piece.pair.image, piece.why) for piece in self.job.pieces if piece.done]
        return [*self.skipped, *done]

    @property
    def ended(self) -> list[TaskRecord]:
        return self.watch.ended if self.watch is not None else []

    @property
    def how_to_wait(self) -> str:
        taken_up = [piece.entry for piece in self.job.waits.values() if piece.why == resumable.EARLIER]
        if self.name is not None and all(entry is None or entry.job == self.name for entry in taken_up):
            return f"lcq wait --job {shlex.quote(self.name)}"
        return "lcq wait " + " ".join(accepted.id for accepted in self.accepted)


@app.command(
    epilog=examples(
        "lcq submit photo.jpg --mask photo_mask.png --out cleaned --wait",
        "lcq submit photos --mask masks --out cleaned --wait",
        "lcq submit photos --model cv2-ns --radius 5 --priority high --job holiday",
        "lcq submit photos --model lama --set precision=bf16 --set hd_strategy=crop",
        "lcq submit photos --require rack=3",
        "lcq submit photos --exportable --deadline 17:30",
        "lcq submit photos --dry-run",
    )
)
def submit(
    context: typer.Context,
    inputs: Annotated[list[Path], typer.Argument(metavar="IMAGE|FOLDER", help="Images, or folders of them.")],
    mask: Annotated[
        Path | None,
        typer.Option(
            "--mask",
            metavar="FILE|FOLDER",
            help="One mask for all, or a folder of masks with the images' names."
            " Default: NAME_mask.EXT beside each image.",
        ),
    ] = None,
    model: Annotated[str | None, typer.Option("--model", metavar="NAME", help="The model that fills in.")] = None,
    device: Annotated[
        str | None, typer.Option("--device", metavar="WISH", help="auto, cpu, gpu, cuda or cuda:N.")
    ] = None,
    queue: Annotated[str, typer.Option("--queue", metavar="NAME", help="Default: the router chooses.")] = "",
    node: Annotated[str, typer.Option("--node", metavar="NAME", help="Only this node may run them.")] = "",
    priority: Annotated[
        TaskPriority, typer.Option("--priority", help="Before whom in the queue.")
    ] = TaskPriority.NORMAL,
    job: Annotated[
        str | None, typer.Option("--job", metavar="NAME", help="Default, for several: the folder and the time.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            metavar="DIR",
            help="Where results go, by their relative names. Default: cleaned, beside each image.",
        ),
    ] = None,
    user: Annotated[str | None, typer.Option("--user", metavar="NAME", help="For whom; default: you.")] = None,
    max_retries: Annotated[int, typer.Option("--max-retries", min=0, max=100, help="Tries after the first.")] = 3,
    timeout_s: Annotated[
        float, typer.Option("--timeout", metavar="SECONDS", help="How long one attempt may take.")
    ] = 600.0,
    image_format: Annotated[
        str | None, typer.Option("--format", metavar="FORMAT", help="Of the results; default: the image's own.")
    ] = None,
    quality: Annotated[int | None, typer.Option("--quality", min=1, max=100, help="Of JPEG and WebP results.")] = None,
    radius: Annotated[float | None, typer.Option("--radius", min=0, help="How far cv2 models look, in pixels.")] = None,
    more: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Anything else that the model knows (again for more)."),
    ] = None,
    task_type: Annotated[
        TaskType, typer.Option("--type", help="What is to be done; all but inpaint do without a mask.")
    ] = TaskType.INPAINT,
    require: Annotated[
        list[str] | None,
        typer.Option(
            "--require", metavar="NAME=VALUE", help="Only nodes with this label may run them (again for more)."
        ),
    ] = None,
    exportable: Annotated[
        bool, typer.Option("--exportable", help="They may leave the house: functions of others may work on them.")
    ] = False,
    deadline: Annotated[
        str | None,
        typer.Option(
            "--deadline",
            metavar="WHEN",
            help="To be done by then: 17:30, 2026-12-24 09:00, or 90m, 2h, 1d from now."
            " Where that would be late here, functions may do it, if it is --exportable.",
        ),
    ] = None,
    anew: Annotated[bool, typer.Option("--again", help="Also what is done already and has not changed.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only tell what would go where, and when it would be done.")
    ] = False,
    wait: Annotated[bool, typer.Option("--wait", help="Wait for the results, with a progress bar.")] = False,
    upload: Annotated[
        Upload,
        typer.Option(
            "--upload",
            help="Send files themselves and fetch results: always, never, or where nodes do not see them.",
        ),
    ] = Upload.AUTO,
    as_json: JsonFlag = False,
) -> int:
    """Submit images to be cleaned; a folder's images are paired with their masks by name.

    The same again does only what is not yet done or has changed: the results' folder remembers what they are of. Where
    nodes do not see the files, they are uploaded, each once, and the results are fetched.
    """
    session = session_of(context, as_json)
    due = None if deadline is None else moment_meant(deadline, datetime.now().astimezone())
    image_format = format_named(image_format) if image_format is not None else None
    pairing = pair_images(inputs, mask, out=out, mask_needed=task_type is TaskType.INPAINT)
    output = session.output
    if task_type is TaskType.SEGMENT and image_format is None:
        image_format = "png"  # a mask's edges must not be blurred
    _tell_skipped(pairing, session.output)
    if not pairing.pairs:
        raise InvalidInput("nothing to submit: no image with a mask was found", hint=_where_masks_go(mask))
    wishes = {
        "model": model,
        "device": device,
        "format": image_format,
        "quality": quality,
        "radius": radius,
    } | dict(map(_setting, more or ()))
    common: dict[str, Any] = {
        "task_type": task_type,
        "config": {key: value for key, value in wishes.items() if value is not None},
        "priority": priority,
        "max_retries": max_retries,
        "timeout_s": timeout_s,
        "user_id": user or login_name(),
        "requires": parse_labels(require or ()),
    }
    if exportable:
        common["privacy"] = Privacy.EXPORTABLE
    if due is not None:
        common["deadline"] = due
    build(Task, common | {"image_path": "x"})  # before any folder is made: what cannot be a task is refused
    name_results(pairing.pairs, out, image_format)  # and what would overwrite its own input
    with contextlib.ExitStack() as held:
        folders = result_folders(pairing.pairs, out)
        shelf = Shelf.read(folders) if dry_run else held.enter_context(Shelf.held(folders, output.retell))
        sums = sums_of_pairs(pairing.pairs)
        named = named_results(pairing.pairs, sums, shelf, out, image_format)
        name = job or _default_job(inputs, pairing, out, shelf)
        tasks = [
            build(
                Task,
                common
                | {
                    "image_path": str(pair.image),
                    "mask_path": str(pair.mask) if pair.mask is not None else None,
                    "output_path": str(result.path),
                    "job": name,
                },
            )
            for pair, result in zip(pairing.pairs, named, strict=True)
        ]
        pieces = [
            Piece(pair, result.path, task, sums[pair])
            for pair, result, task in zip(pairing.pairs, named, tasks, strict=True)
        ]
        _tell_named(pairing, named, output)
        submission = Submission(FolderJob(name, pieces, shelf), pairing.skipped)
        try:
            submission.job.look(anew=anew)
            if dry_run:
                return run(_foresee(submission, session, queue, node))
            return run(_submit(submission, session, held, queue, node, wait, anew, upload))
        except KeyboardInterrupt:
            _tell_interrupted(submission, output)
            return INTERRUPTED


def _setting(typed: str) -> tuple[str, Any]:
    """``KEY=VALUE`` as it stands in a task's config: numbers, yes and no, and lists as YAML knows them."""
    key, equals, text = typed.partition("=")
    if not key.strip() or not equals:
        raise InvalidInput(f"--set wants KEY=VALUE, found {typed!r}", hint="such as --set precision=bf16")
    try:
        return key.strip(), yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise InvalidInput(
            f"--set {key}: {text!r} is no value: {' '.join(str(error).split())}", hint="put text in quotes: key='\"…\"'"
        ) from error


async def _foresee(submission: Submission, session: Session, queue: str, node: str) -> int:
    """Tell where what is to be done would go now, and when it would be done; nothing is submitted, nothing written."""
    output, to_do = session.output, [piece.task for piece in submission.job.to_do]
    done = len(submission.job.pieces) - len(to_do)
    answer = ForeseeAnswer()
    if to_do:
        async with session.client() as client:
            answer = await client.foresee(to_do, queue=queue, node=node)
    if output.as_json:
        output.document({"job": submission.name, "would": len(to_do), "done": done, **answer.model_dump(mode="json")})
        return OK
    if done:
        output.say(ntr("{n} is done already", "{n} are done already", done))
    output.say(ntr("{n} task would be submitted", "{n} tasks would be submitted", len(to_do)))
    for line in (*told_foreseen(answer, duration), *told_late(to_do, answer, duration)):
        output.say(line)
    return OK


async def _submit(
    submission: Submission,
    session: Session,
    held: contextlib.ExitStack,
    queue: str,
    node: str,
    wait: bool,
    anew: bool,
    upload: Upload,
) -> int:
    output, job = session.output, submission.job
    began = time.monotonic()
    async with session.client() as client:
        await choose_way(job, client, session.config, output, upload)
        await _send(submission, client, output, queue, node, anew)
        held.close()  # others may submit into these folders now
        for reason in dict.fromkeys(accepted.why for accepted in submission.accepted if accepted.why):
            output.talk(tr("waiting: {reason}", reason=retold(reason)))
        _tell_known(submission, output)
        await _note(submission, session, client)
        for refusal in submission.refused:
            output.error(refusal.error())
        code = REFUSED if submission.refused else OK
        if wait and submission.accepted:
            submission.watch = Watch([accepted.id for accepted in submission.accepted], job=submission.name or "")
            await follow(submission.watch, client, output, on_ended=job.note_ended)
            code = submission.watch.exit_code or code
            if job.unfetched:
                tell_unfetched(job, submission.how_to_wait, output)
                code = code or SOME_FAILED
    report = report_of(submission.name or "", submission.all_skipped, submission.ended, time.monotonic() - began)
    if output.as_json:
        output.document(_as_document(submission, report))
    elif submission.watch is not None or not (submission.accepted or submission.refused):
        show_report(report, output)
    elif submission.accepted:
        _tell_accepted(submission, output)
    return code


async def _note(submission: Submission, session: Session, client: AsyncClient) -> None:
    """Have it known elsewhere and later what was skipped, and where the results are."""
    if submission.name is None:
        return
    note_places(session.config.data_path, submission.name, submission.job.shelf.folders)
    skipped = counted(submission.all_skipped)[:_NOTED]
    try:
        async with asyncio.timeout(_NOTE_S):
            await client.note_job(submission.name, skipped)
    except (LcqError, TimeoutError):  # all of it was done long ago, or nobody is there and nothing had to be asked
        return


async def _send(submission: Submission, client: AsyncClient, output: Output, queue: str, node: str, anew: bool) -> None:
    if not submission.job.to_do:
        return
    try:
        uploads = uploads_of(submission.job, output)
        await submission.job.send(client, queue=queue, node=node, anew=anew, uploads=uploads)
    except LcqError:
        if submission.accepted:
            some, all_ = len(submission.accepted), len(submission.job.pieces)
            output.talk(tr("{some} of {all} tasks were submitted before this:", some=some, all=all_))
        raise


def _default_job(inputs: Sequence[Path], pairing: Pairing, out: Path | None, shelf: Shelf) -> str | None:
    """A name for what is more than one image: that which they had before, else one made of their folder and place."""
    folders = [path for path in inputs if path.is_dir()]
    if not folders and len(pairing.pairs) < 2:
        return None
    folder = folders[0] if folders else pairing.pairs[0].image.parent
    return shelf.job_of(pair.image for pair in pairing.pairs) or folder_job_name(folder.absolute(), out)


def _tell_named(pairing: Pairing, named: Sequence[Named], output: Output) -> None:
    others = [(pair, result) for pair, result in zip(pairing.pairs, named, strict=True) if result.why]
    for pair, result in others[:_SHOWN]:
        output.talk(
            tr(
                "{image}: its result is called {name}, for {why}",
                image=pair.image,
                name=result.path.name,
                why=retold(result.why),
            )
        )
    if len(others) > _SHOWN:
        output.talk(
            ntr(
                "and {n} more result has another name, for its own is taken",
                "and {n} more results have other names, for theirs are taken",
                len(others) - _SHOWN,
            )
        )


def _tell_known(submission: Submission, output: Output) -> None:
    """What earlier submits have to do with this one."""
    why = Counter(piece.why for piece in submission.job.pieces if piece.why)
    for reason, count in sorted(why.items()):
        match reason:
            case resumable.UNCHANGED:
                output.talk(tr("skipped {count}: {why}", count=count, why=retold(reason)))
            case resumable.EARLIER:
                output.talk(
                    tr("{count} still run or wait since an earlier submit: taken up, not submitted again", count=count)
                )
            case _:
                output.talk(tr("{count} done anew: {why}", count=count, why=retold(reason)))


def _where_masks_go(mask: Path | None) -> str:
    if mask is None:
        return T("name a mask or a folder of masks with --mask, or put NAME_mask.png beside each image")
    return T("the masks in --mask need the names of their images")


def _tell_skipped(pairing: Pairing, output: Output) -> None:
    for skipped in pairing.skipped[:_SHOWN]:
        output.talk(tr("skipped {path}: {why}", path=skipped.path, why=retold(skipped.why)))
    if len(pairing.skipped) > _SHOWN:
        rest = Counter(skipped.why.partition(":")[0] for skipped in pairing.skipped[_SHOWN:])
        reasons = tr(", ").join(f"{count} {retold(why)}" for why, count in rest.most_common())
        output.talk(tr("skipped {count} more: {reasons}", count=len(pairing.skipped) - _SHOWN, reasons=reasons))


def _tell_accepted(submission: Submission, output: Output) -> None:
    queues = Counter(accepted.queue for accepted in submission.accepted)
    where = ", ".join(f"{queue} {count}" for queue, count in queues.most_common())
    if len(submission.accepted) == 1:
        first = submission.accepted[0]
        output.say(tr("{id} {status} in {queue}", id=first.id, status=tr(first.status.value), queue=first.queue))
    else:
        output.say(
            ntr(
                "{n} task submitted as job {name} ({where})",
                "{n} tasks submitted as job {name} ({where})",
                len(submission.accepted),
                name=submission.name,
                where=where,
            )
        )
    output.talk(tr("wait for the results: {command}", command=submission.how_to_wait))


def _tell_interrupted(submission: Submission, output: Output) -> None:
    output.talk("")
    if not submission.accepted:
        of_job = "" if submission.name is None else f" --job {shlex.quote(submission.name)}"
        command = f"lcq tasks{of_job}"
        output.talk(tr("interrupted while submitting: what has arrived goes on, see it by {command}", command=command))
        return
    left = len(submission.accepted) - len(submission.ended)
    output.talk(
        ntr(
            "interrupted: {n} task goes on without you; wait again: {command}",
            "interrupted: {n} tasks go on without you; wait again: {command}",
            left,
            command=submission.how_to_wait,
        )
    )
    if submission.name is not None:
        command = submission.how_to_wait.replace("wait", "cancel", 1)
        output.talk(tr("to stop them: {command}", command=command))


def _as_document(submission: Submission, report: JobReport) -> dict[str, Any]:
    return {
        "job": submission.name,
        "accepted": submission.accepted,
        "refused": submission.refused,
        "skipped": [{"path": str(skipped.path), "why": skipped.why} for skipped in submission.all_skipped],
        "tasks": submission.ended,
        "report": report,
    }

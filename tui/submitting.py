"""What a submit form asks for: one picture, several, or folders as one job that can be taken up again."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from lcq.errors import InvalidInput
from lcq.folder import Pairing, name_results, pair_images
from lcq.foreseen import told_foreseen, told_late
from lcq.lang import tr
from lcq.models import Privacy, Task, TaskPriority, TaskType, explain_invalid
from lcq.moments import moment_meant
from lcq.resumable import FolderJob, Piece, Shelf, folder_job_name, named_results, result_folders, sums_of_pairs
from tui.text import counted, long_span

if TYPE_CHECKING:
    from lcq.client import AsyncClient
    from lcq.wire import Accepted, ForeseeAnswer, Refusal


@dataclass(frozen=True)
class Wish:
    """What is to be submitted. ``inputs``, ``mask`` and ``out`` are absolute paths."""

    inputs: tuple[str, ...]
    model: str
    user: str
    mask: str = ""  # a file for all, or a folder of masks; "": beside each image as NAME_mask.EXT
    out: str = ""  # the result's file of one picture, else the folder of results
    queue: str = ""
    priority: TaskPriority = TaskPriority.NORMAL
    job: str = ""
    exportable: bool = False  # its pictures may leave the house: functions may work on them
    deadline: str = ""  # when it is to be done, as it is typed: 17:30 or 2h, from when it is sent; "": there is none

    @property
    def is_folder(self) -> bool:
        """Whether it is more than one picture, and so a job."""
        return len(self.inputs) > 1 or any(Path(path).is_dir() for path in self.inputs)


@dataclass(frozen=True)
class Prepared:
    """The tasks that would be made, as far as files tell; what is skipped and why; which files are not here."""

    tasks: tuple[Task, ...]
    skipped: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()

    @property
    def warning(self) -> str:
        """Why they may well fail; "": nothing speaks for that. A node may see what this machine does not."""
        if self.missing:
            return tr("not found on this machine: {missing}", missing=", ".join(self.missing))
        if any(task.mask_path is None for task in self.tasks):
            return tr("no mask is named, and none lies beside the image")
        return ""


@dataclass(frozen=True)
class Sent:
    """What has become of a folder."""

    job: str
    accepted: tuple[Accepted, ...]
    refused: tuple[Refusal, ...]
    known: int  # were done already, unchanged


def prepare(wish: Wish) -> Prepared:
    """Look at the files, and make the tasks. Blocks on the disk.

    Raises:
        InvalidInput: what is asked for cannot be.
    """
    if wish.is_folder:
        pairing = _paired(wish)
        results = name_results(pairing.pairs, Path(wish.out) if wish.out else None)
        due = _deadline_of(wish)
        tasks = tuple(
            _task(wish, str(pair.image), str(pair.mask) if pair.mask else "", str(result.path), _job_of(wish), due)
            for pair, result in zip(pairing.pairs, results, strict=True)
        )
        why = Counter(one.why for one in pairing.skipped)
        return Prepared(
            tasks,
            tuple(tr("{count:,} skipped: {reason}", count=count, reason=reason) for reason, count in why.most_common()),
        )
    (image,) = wish.inputs
    mask = wish.mask
    if not mask and Path(image).is_file():
        with contextlib.suppress(InvalidInput):  # none lies beside it: then the node has to know
            pair = pair_images([Path(image)]).pairs[0]
            mask = str(pair.mask) if pair.mask is not None else ""
    missing = tuple(path for path in (image, mask) if path and not Path(path).is_file())
    return Prepared((_task(wish, image, mask, wish.out, wish.job, _deadline_of(wish)),), missing=missing)


def _paired(wish: Wish) -> Pairing:
    pairing = pair_images(
        [Path(path) for path in wish.inputs], Path(wish.mask) if wish.mask else None,
        out=Path(wish.out) if wish.out else None,
    )  # fmt: skip
    if not pairing.pairs:
        raise InvalidInput(
            "no image with a mask was found there",
            hint="masks lie beside images as NAME_mask.EXT, or name their folder",
        )
    return pairing


def _deadline_of(wish: Wish) -> datetime | None:
    """Raises:
    InvalidInput: what is typed is no moment to come.
    """
    return moment_meant(wish.deadline, datetime.now().astimezone()) if wish.deadline else None


def _task(wish: Wish, image: str, mask: str, output: str, job: str, deadline: datetime | None) -> Task:
    try:
        return Task(
            task_type=TaskType.INPAINT, image_path=image, mask_path=mask or None, output_path=output or None,
            config={"model": wish.model}, priority=wish.priority, user_id=wish.user, job=job or None,
            privacy=Privacy.EXPORTABLE if wish.exportable else Privacy.PRIVATE, deadline=deadline,
        )  # fmt: skip
    except ValidationError as error:
        raise InvalidInput(explain_invalid(error)) from error


def _job_of(wish: Wish) -> str:
    if wish.job:
        return wish.job
    first = Path(wish.inputs[0])
    return folder_job_name(first if first.is_dir() else first.parent, Path(wish.out) if wish.out else None)


def folder_job(wish: Wish, shelf: Shelf, pairing: Pairing) -> FolderJob:
    """The job of a folder as ``lcq submit`` makes it: what is done already and has not changed is not done again."""
    out = Path(wish.out) if wish.out else None
    sums = sums_of_pairs(pairing.pairs)
    named = named_results(pairing.pairs, sums, shelf, out, None)
    name = wish.job or shelf.job_of(pair.image for pair in pairing.pairs) or _job_of(wish)
    pieces, due = [], _deadline_of(wish)
    for pair, result in zip(pairing.pairs, named, strict=True):
        task = _task(wish, str(pair.image), str(pair.mask) if pair.mask else "", str(result.path), name, due)
        pieces.append(Piece(pair, result.path, task, sums[pair]))
    job = FolderJob(name, pieces, shelf)
    job.look()
    return job


async def send_folder(wish: Wish, client: AsyncClient) -> Sent:
    """Give the cluster what of a folder is not done.

    Raises:
        InvalidInput: what is asked for cannot be.
        LcqError: the cluster does not answer. What it has taken by then goes on.
    """
    pairing = await asyncio.to_thread(_paired, wish)
    folders = result_folders(pairing.pairs, Path(wish.out) if wish.out else None)
    with contextlib.ExitStack() as held:
        shelf = await asyncio.to_thread(held.enter_context, Shelf.held(folders, lambda _: None))
        job = await asyncio.to_thread(folder_job, wish, shelf, pairing)
        await job.send(client, queue=wish.queue)
    accepted = tuple(piece.accepted for piece in job.pieces if piece.accepted is not None)
    refused = tuple(piece.refused for piece in job.pieces if piece.refused is not None)
    return Sent(job.name or "", accepted, refused, sum(piece.done for piece in job.pieces))


def told(prepared: Prepared, answer: ForeseeAnswer) -> list[str]:
    """Where the tasks would go and when they would be done, a line each."""
    lines = [counted(len(prepared.tasks), "task") + tr(" would go:")]
    lines += told_foreseen(answer, _span)
    lines += told_late(prepared.tasks, answer, _span)
    return [*lines, *filter(None, (prepared.warning,)), *prepared.skipped]


def _span(seconds: float) -> str:
    return long_span(seconds * 1000)

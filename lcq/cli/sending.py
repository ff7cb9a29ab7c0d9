"""The way that files take to the nodes: by their paths, or uploaded, with a progress bar; and results back."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path

from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from lcq.cli.output import Output
from lcq.client import AsyncClient
from lcq.client.courier import Courier
from lcq.config import DistributedConfig
from lcq.errors import InvalidInput, StorageUnreachable
from lcq.lang import retold, tr
from lcq.resumable import FolderJob, Uploads

_TOLD = 5  # results that could not be fetched


class Upload(StrEnum):
    """When files are sent themselves, not their paths."""

    AUTO = "auto"
    ALWAYS = "always"
    NEVER = "never"


async def choose_way(
    job: FolderJob, client: AsyncClient, config: DistributedConfig, output: Output, upload: Upload
) -> None:
    """Decide how the files of ``job`` come to the nodes, and how its results come back.

    Raises:
        InvalidInput: they have to be uploaded, and cannot be.
        LcqError: the cluster does not answer.
    """
    if not job.to_do or upload is Upload.NEVER:
        return
    job.courier = await Courier.of(client, config)
    if job.courier is None:
        if upload is Upload.ALWAYS:
            raise InvalidInput(
                "this scheduler is older than uploads", hint="upgrade it, or put the files where its nodes see them"
            )
        return
    why = "" if upload is Upload.ALWAYS else await job.courier.unseen(client, _inputs(job), job.shelf.folders)
    if upload is Upload.AUTO and not why:
        return
    try:
        await asyncio.to_thread(job.courier.open)
    except StorageUnreachable as trouble:
        if not why:
            raise
        raise _neither(why, trouble) from trouble
    if why:
        output.talk(tr("{why}: files are uploaded, and results fetched", why=retold(why)))
    job.upload()


def _neither(why: str, trouble: StorageUnreachable) -> InvalidInput:
    return InvalidInput(
        f"{why}, and it cannot be uploaded: {trouble.message}",
        hint="put the files where all nodes see them, or give the cluster a storage.url that you reach",
    )


def _inputs(job: FolderJob) -> list[Path]:
    paths = [path for piece in job.to_do for path in (piece.pair.image, piece.pair.mask) if path is not None]
    return list(dict.fromkeys(paths))


def uploads_of(job: FolderJob, output: Output) -> Uploads:
    """What brings the files of ``job`` into the cluster's storage, and shows how far that is."""

    async def upload(files: Mapping[str, Path]) -> None:
        courier = job.courier
        if courier is None:
            return
        total = sum(path.stat().st_size for path in files.values())
        columns = (TextColumn(tr("uploading")), BarColumn(), DownloadColumn(), TransferSpeedColumn())
        with Progress(*columns, console=output.talk_console, transient=True) as progress:
            bar = progress.add_task("", total=total)
            await asyncio.to_thread(courier.upload, files, moved=lambda count: progress.advance(bar, count))

    return upload


def tell_unfetched(job: FolderJob, how: str, output: Output) -> None:
    """Say which results are not here although they are done."""
    for task, why in list(job.unfetched.items())[:_TOLD]:
        output.talk(tr("the result of {task} could not be fetched: {why}", task=task, why=retold(why)))
    waiting = tr("{count} results wait in the cluster's storage; fetch them: {how}", count=len(job.unfetched), how=how)
    output.talk(waiting)

"""lcq backup, restore: the state of a cluster in a file, and back out of it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lcq.cli.examples import examples
from lcq.cli.output import Column, Output, duration
from lcq.cli.session import OK, JsonFlag, Session, run, session_of
from lcq.errors import InvalidInput
from lcq.lang import ntr, retold, tr
from lcq.log import setup_logging

if TYPE_CHECKING:
    from lcq.backup import Progress
    from lcq.backup_file import Contents
    from lcq.config import DistributedConfig

app = typer.Typer()


@app.command(
    epilog=examples("lcq backup monday.lcq", "lcq backup monday.lcq --blobs", "lcq backup --verify monday.lcq")
)
def backup(
    context: typer.Context,
    file: Annotated[Path | None, typer.Argument(metavar="[FILE]", help="The new file; or the one to verify.")] = None,
    verify: Annotated[
        bool, typer.Option("--verify", help="Write nothing: read all of it and check its digest.")
    ] = False,
    blobs: Annotated[bool, typer.Option("--blobs", help="With the uploads and results that its tasks name.")] = False,
    list_them: Annotated[
        bool, typer.Option("--list", help="List those that schedulers with these settings keep.")
    ] = False,
    as_json: JsonFlag = False,
) -> int:
    """Write the whole state of the cluster into a file while it works; where Redis is reached from here."""
    session = session_of(context, as_json)
    if verify and blobs:
        raise InvalidInput("--blobs is for making a backup, --verify for reading one", hint="leave one of them out")
    if list_them:
        return _list(session)
    if file is None:
        raise InvalidInput("a backup into which file?", hint="lcq backup FILE")
    return _verify(session, file) if verify else run(_backup(session, file, with_blobs=blobs))


def _list(session: Session) -> int:
    from lcq.backup import kept_backups
    from lcq.backups import backup_folder

    output, folder = session.output, backup_folder(session.config)
    found = kept_backups(folder)
    if output.as_json:
        told = [{"file": str(path), "bytes": path.stat().st_size} for path in found]
        output.document({"folder": str(folder), "backups": told})
        return OK
    rows = ((str(path), f"{path.stat().st_size + 1023 >> 10:,}") for path in found)
    output.table(
        [Column("BACKUP"), Column("KIB", right=True, whole=True)],
        rows,
        empty=tr("no backups in {folder}", folder=folder),
    )
    return OK


def _verify(session: Session, file: Path) -> int:
    from lcq.backup_file import verified

    _tell(verified(file), session.output)
    return OK


async def _backup(session: Session, file: Path, *, with_blobs: bool) -> int:
    from lcq.backup import make_backup
    from lcq.state.manager import StateManager
    from lcq.storage.opening import store_of

    setup_logging(session.log_level or "warning")
    config, output = session.config, session.output
    store = await asyncio.to_thread(store_of, config) if with_blobs else None
    async with _redis_of(config) as url, StateManager(config, url=url) as state:
        with _shown(output) as progress:
            made = await make_backup(state, file, store=store, progress=progress)
    if output.as_json:
        output.document(
            {"file": str(made.path), "tasks": made.tasks, "bytes": made.size_bytes, "at_ms": made.at_ms,
             "seconds": round(made.seconds, 3), "blobs": made.blobs, "blobs_missing": made.blobs_missing}
        )  # fmt: skip
        return OK
    output.say(
        ntr(
            "{file}: {n} task, {kib} KiB, {time}",
            "{file}: {n} tasks, {kib} KiB, {time}",
            made.tasks,
            file=made.path,
            kib=made.size_bytes + 1023 >> 10,
            time=duration(made.seconds),
        )
    )
    if with_blobs:
        output.say(tr("blobs: {count} in it, {missing} are gone", count=made.blobs, missing=made.blobs_missing))
    return OK


@app.command(epilog=examples("lcq restore monday.lcq", "lcq restore monday.lcq --as-copy --paused"))
def restore(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="What 'lcq backup' has written.")],
    replace: Annotated[
        bool, typer.Option("--replace", help="All that the namespace holds now is lost; else it must be empty.")
    ] = False,
    as_copy: Annotated[
        bool, typer.Option("--as-copy", help="With an id of its own, beside the cluster that it was taken from.")
    ] = False,
    paused: Annotated[
        bool, typer.Option("--paused", help="Pause every queue: nothing starts until one resumes it.")
    ] = False,
    as_json: JsonFlag = False,
) -> int:
    """Put a backup into an empty state, while no scheduler runs there; what ran is queued again."""
    session = session_of(context, as_json)
    return run(_restore(session, file, {"replace": replace, "as_copy": as_copy, "paused": paused}))


async def _restore(session: Session, file: Path, how: dict[str, bool]) -> int:
    from lcq.backup import restore_backup
    from lcq.storage.opening import store_of

    setup_logging(session.log_level or "warning")
    config, output = session.config, session.output
    store = await asyncio.to_thread(store_of, config)
    async with _redis_of(config) as url:
        with _shown(output) as progress:
            done = await restore_backup(file, config, url, store=store, progress=progress, **how)
    if output.as_json:
        output.document(
            {"file": str(file), "tasks": done.by_state, "handed_back": done.handed_back, "blobs": done.blobs,
             "left_out": [{"id": task, "why": why} for task, why in done.left_out], "seconds": round(done.seconds, 3)}
        )  # fmt: skip
        return OK
    counts = ", ".join(f"{count} {tr(state)}" for state, count in sorted(done.by_state.items()))
    output.say(tr("restored in {time}: {counts}", time=duration(done.seconds), counts=counts or tr("no tasks")))
    if done.handed_back:
        output.say(
            ntr("{n} task ran then: it is queued again", "{n} tasks ran then: they are queued again", done.handed_back)
        )
    for task, why in done.left_out:
        output.talk(tr("left out, its record is damaged: {task} {why}", task=task, why=retold(why)))
    if how["paused"]:
        output.talk(tr("every queue is paused: 'lcq resume QUEUE' lets it go on"))
    return OK


def _tell(found: Contents, output: Output) -> None:
    head, end = found.head, found.end
    if output.as_json:
        output.document({"file": str(found.path), "bytes": found.size_bytes, "head": head, "end": end})
        return
    from lcq.cli.output import clock

    output.facts(
        [
            (tr("backup"), str(found.path)),
            (tr("bytes"), f"{found.size_bytes:,}"),
            (tr("shows"), clock(end["at_ms"])),
            (tr("tasks"), str(end["tasks"])),
            (tr("blobs"), str(end["end"].get("blob_end", 0))),
            (tr("cluster"), f"{head.get('cluster')} {head.get('namespace')}"),
            ("LCQ", f"{head.get('lcq')}, {tr('state of format {number}', number=head.get('state_format'))}"),
            (tr("digest"), tr("it is sound: {sha256}", sha256=end["sha256"])),
        ]
    )


@contextlib.asynccontextmanager
async def _redis_of(config: DistributedConfig) -> AsyncIterator[str]:
    """The address of the cluster's Redis; a private server runs at least for so long."""
    if not config.redis.is_private:
        yield config.redis.address
        return
    from lcq.embedded import PrivateServer
    from lcq.server import make_data_folder

    make_data_folder(config.data_path)
    async with PrivateServer(config.data_path) as server:
        yield server.url


@contextlib.contextmanager
def _shown(output: Output) -> Iterator[Progress]:
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
    from rich.progress import Progress as Bars

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Bars(*columns, console=output.talk_console, transient=True, disable=output.as_json) as bars:
        known: dict[str, Any] = {}

        def progress(what: str, done: int, total: int) -> None:
            if what not in known:
                known[what] = bars.add_task(tr(what), total=total or None)
            bars.update(known[what], completed=done, total=total or None)

        yield progress

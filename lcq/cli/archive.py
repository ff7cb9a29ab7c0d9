"""lcq archive: what was kept of tasks that the cluster has forgotten."""

from __future__ import annotations

import contextlib
import csv
import json
import sys
from collections.abc import Iterable, Iterator
from datetime import date
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, Any, Literal

import typer

from lcq.cli.examples import examples
from lcq.cli.output import Column, clock, duration, tail
from lcq.cli.session import OK, JsonFlag, Session, run, session_of
from lcq.errors import InvalidInput, LcqError, TaskNotFound
from lcq.lang import ntr, retold, tr

if TYPE_CHECKING:
    from lcq.archive import Archive, Row

app = typer.Typer(no_args_is_help=True)
Format = Literal["jsonl", "csv", "parquet"]
_BRIEFLY_S = 1.0

Folder = Annotated[
    Path | None, typer.Option("--folder", metavar="FOLDER", help="Where the archive is; default: archive.folder.")
]


def _archive(session: Session, folder: Path | None) -> Archive:
    from lcq.archive import Archive

    found = folder or session.config.archive.folder
    if found is None:
        raise InvalidInput(
            "no archive is kept: archive.folder is not set",
            hint="set it for schedulers, or name one with --folder",
        )
    return Archive(found)


def _day(typed: str | None, option: str) -> date | None:
    try:
        return None if typed is None else date.fromisoformat(typed)
    except ValueError as error:
        raise InvalidInput(f"{option}: {typed!r} is no day", hint="such as 2026-11-30") from error


@app.command("list", epilog=examples("lcq archive list"))
def list_days(context: typer.Context, folder: Folder = None, as_json: JsonFlag = False) -> int:
    """List the days of which there is something, and say whether the archive takes tasks in."""
    session = session_of(context, as_json)
    archive, output = _archive(session, folder), session.output
    days = archive.days()
    trouble = "" if folder is not None else run(_trouble(session))
    if output.as_json:
        told = [{"day": str(one.day), "bytes": one.size_bytes, "open": one.is_open} for one in days]
        output.document({"folder": str(archive.folder), "days": told, "trouble": trouble})
        return OK
    output.table(
        [Column("DAY", whole=True), Column("KIB", right=True, whole=True), Column("FILES"), Column("NOTE")],
        (
            (
                str(one.day),
                f"{one.size_bytes + 1023 >> 10:,}",
                ", ".join(file.name for file in one.files),
                tr("still open") if one.is_open else "",
            )
            for one in days
        ),
        empty=tr("nothing was archived yet in {folder}", folder=archive.folder),
    )
    if trouble:
        output.talk(tr("the archive takes nothing in: {why}", why=retold(trouble)))
    return OK


async def _trouble(session: Session) -> str:
    with contextlib.suppress(LcqError):
        async with session.client(min(_BRIEFLY_S, session.patience_s)) as client:
            return (await client.info()).upkeep_errors.get("archive", "")
    return ""


@app.command(epilog=examples("lcq archive show 06ft3k", "lcq archive show 06ft3k --json"))
def show(
    context: typer.Context,
    task: Annotated[str, typer.Argument(metavar="ID", help="A task's id, or the beginning of one.")],
    folder: Folder = None,
    as_json: JsonFlag = False,
) -> int:
    """Show what was kept of a task; it reads all of the archive."""
    from lcq.ids import normalise_prefix

    session = session_of(context, as_json)
    archive, output = _archive(session, folder), session.output
    found = archive.find(normalise_prefix(task))
    if not found:
        raise TaskNotFound(task)
    if output.as_json:
        output.document([_whole(row) for row in found])
        return OK
    for number, row in enumerate(found):
        if number:
            output.say()
        seconds = row.get("seconds")
        output.facts(
            [
                (tr("task"), str(row["id"])),
                (tr("state"), tr(str(row.get("status") or ""))),
                (tr("image"), str(row.get("image") or "")),
                (tr("model"), str(row.get("model") or "")),
                (tr("user"), str(row.get("user") or "")),
                (tr("job"), str(row.get("job") or "")),
                (tr("queue"), str(row.get("queue") or "")),
                (tr("node"), str(row.get("node") or "")),
                (tr("submitted"), clock(row.get("submitted_ms"))),
                (tr("finished"), clock(row.get("finished_ms"))),
                (tr("attempts"), str(row.get("attempt") or 0)),
                (tr("took"), duration(seconds) if seconds else ""),
                (tr("result"), str(row.get("output") or "")),
                (
                    tr("error"),
                    " ".join(filter(None, (str(row.get("code") or ""), retold(str(row.get("message") or ""))))),
                ),
                (tr("archived"), clock(row.get("archived_ms"))),
            ]
        )
    return OK


def _whole(row: Row) -> dict[str, Any]:
    """The row, with what is JSON in it as what it says."""
    parsed = dict(row)
    for name in ("task", "attempts"):
        with contextlib.suppress(ValueError, TypeError):
            parsed[name] = json.loads(parsed[name])
    return parsed


@app.command(
    epilog=examples(
        "lcq archive export --since 2026-11-01 --format csv --out november.csv", "lcq archive export | jq .image"
    )
)
def export(
    context: typer.Context,
    since: Annotated[str | None, typer.Option("--since", metavar="DAY", help="Archived on this day or later.")] = None,
    until: Annotated[str | None, typer.Option("--until", metavar="DAY", help="Or on this day or earlier.")] = None,
    form: Annotated[Format, typer.Option("--format", help="jsonl: a task a line.")] = "jsonl",
    out: Annotated[Path | None, typer.Option("--out", metavar="FILE", help="Write it there instead.")] = None,
    folder: Folder = None,
) -> int:
    """Write what was archived as one table, each task once."""
    session = session_of(context)
    rows = _archive(session, folder).rows(since=_day(since, "--since"), until=_day(until, "--until"))
    if form == "parquet":
        from lcq.archive import write_parquet

        if out is None:
            raise InvalidInput("Parquet is for a file", hint="name one with --out")
        count = _Count(rows)
        write_parquet(out, count)
    else:
        count = _Count(rows)
        with _opened(out) as file:
            _write(count, form, file)
    if out is not None:
        session.output.talk(ntr("{file}: {n} task", "{file}: {n} tasks", count.count, file=tail(str(out))))
    return OK


class _Count:
    """Rows, counted as they pass."""

    def __init__(self, rows: Iterable[Row]) -> None:
        self._rows, self.count = rows, 0

    def __iter__(self) -> Iterator[Row]:
        for row in self._rows:
            self.count += 1
            yield row


@contextlib.contextmanager
def _opened(out: Path | None) -> Iterator[IO[str]]:
    if out is None:
        yield sys.stdout
        return
    try:
        with out.open("w", encoding="utf-8", newline="") as file:
            yield file
    except OSError as error:
        raise InvalidInput(f"{out} cannot be written: {error.strerror}", hint="name another file") from error


def _write(rows: Iterable[Row], form: Format, file: IO[str]) -> None:
    if form == "jsonl":
        for row in rows:
            file.write(json.dumps(row) + "\n")
        return
    from lcq.archive import COLUMNS
    from lcq.usage import as_text_cell

    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(COLUMNS)
    for row in rows:
        writer.writerow([as_text_cell(row.get(name)) for name in COLUMNS])

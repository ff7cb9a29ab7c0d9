"""The archive of tasks: what is appended is whole and there once for readers, whatever dies or is full meanwhile."""

from __future__ import annotations

import errno
import json
import os
from datetime import date
from pathlib import Path

import pytest

from lcq import archive as archive_module
from lcq.archive import COLUMNS, Archive, Row, row_of
from lcq.errors import ArchiveUnusable, DiskFull
from lcq.models import Attempt, TaskRecord, TaskStatus
from tests.nodes import a_result, a_task

MONDAY, TUESDAY, WEDNESDAY = date(2026, 11, 23), date(2026, 11, 24), date(2026, 11, 25)


def a_row(task_id: str = "a", revision: int = 3) -> Row:
    record = TaskRecord(
        task=a_task(id="0123456789abcdef", job="wedding", user_id="ann"),
        status=TaskStatus.COMPLETED, revision=revision,
        queue="cpu-light", priority="normal", attempt=1, node="gpu-1", finished_ms=5, result=a_result(),
    )  # fmt: skip
    attempts = [Attempt(number=1, node="gpu-1", started_ms=1, ended_ms=5, outcome="completed")]
    return row_of(record, attempts, 7) | {"id": task_id}


def ids(rows: object) -> list[str]:
    return [row["id"] for row in rows]  # type: ignore[attr-defined]


def test_a_row_has_every_column_of_the_type_that_it_says() -> None:
    row = a_row()
    assert list(row) == list(COLUMNS)
    assert all(value is None or isinstance(value, COLUMNS[name]) for name, value in row.items())
    assert json.loads(row["attempts"])[0]["outcome"] == "completed"
    assert json.loads(row["task"])["job"] == "wedding"


def test_what_was_appended_twice_is_there_once_and_a_half_line_is_none(tmp_path: Path) -> None:
    archive = Archive(tmp_path / "a")
    archive.add([a_row("a"), a_row("b")], MONDAY)
    with (tmp_path / "a" / "2026-11-23.jsonl").open("ab") as file:
        file.write(b'{"id": "c", "revi')  # its writer died
    archive.add([a_row("b"), a_row("c")], MONDAY)  # the next one does it again
    archive.add([a_row("a"), a_row("a", 9)], TUESDAY)  # and one died at midnight; it was run again, too
    assert ids(archive.rows()) == ["a", "b", "c", "a"]
    assert ids(archive.rows(since=TUESDAY)) == ["a", "a"]
    assert [row["revision"] for row in archive.find("a")] == [3, 9]
    assert (tmp_path / "a" / "2026-11-23.jsonl").stat().st_mode & 0o777 == 0o600


def sealed(archive: Archive, form: str) -> None:
    archive.add([a_row("a"), a_row("b"), a_row("a")], MONDAY)
    archive.add([a_row("c")], TUESDAY)
    assert archive.seal(TUESDAY, form) == 1  # type: ignore[arg-type]
    assert archive.seal(TUESDAY, form) == 0  # type: ignore[arg-type]
    monday, tuesday = archive.days()
    assert (monday.is_open, tuesday.is_open) == (False, True)
    assert len(monday.files) == 1
    assert ids(archive.rows()) == ["a", "b", "c"]
    archive.add([a_row("d")], MONDAY)  # by one whose clock is slow
    assert ids(archive.rows(until=MONDAY)) == ["a", "b", "d"]
    assert archive.seal(WEDNESDAY, form) == 2  # type: ignore[arg-type]
    assert ids(archive.rows()) == ["a", "b", "d", "c"]
    assert next(iter(archive.rows())) == a_row("a")
    assert not [path for path in archive.folder.iterdir() if path.name.startswith(".")]


def test_a_day_that_is_over_becomes_one_file_with_each_row_once(tmp_path: Path) -> None:
    sealed(Archive(tmp_path), "jsonl")


def test_the_same_as_parquet_and_from_one_to_the_other(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    sealed(Archive(tmp_path), "parquet")
    assert {path.suffix for path in tmp_path.iterdir()} == {".parquet"}
    (tmp_path / "2026-11-26.parquet").write_bytes(b"none")
    with pytest.raises(ArchiveUnusable, match="2026-11-26"):
        list(Archive(tmp_path).rows())


def test_a_disk_that_fills_up_leaves_no_half_of_it_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = Archive(tmp_path)
    archive.add([a_row("a")], MONDAY)
    whole = (tmp_path / "2026-11-23.jsonl").read_bytes()
    write = os.write

    def fills_up(number: int, data: bytes) -> int:
        if len(data) < 200:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(number, data[:150])

    monkeypatch.setattr(archive_module.os, "write", fills_up)
    with pytest.raises(DiskFull, match="the archive takes nothing in"):
        archive.add([a_row("b")], MONDAY)
    assert (tmp_path / "2026-11-23.jsonl").read_bytes() == whole


def test_a_folder_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ArchiveUnusable, match="file"):
        Archive(tmp_path / "file").add([a_row()], MONDAY)
    assert Archive(tmp_path / "nowhere").days() == ()

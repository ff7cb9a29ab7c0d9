"""Saved views and rows that are taken away, without a terminal: kept whole, readable by their owner alone."""

from __future__ import annotations

import csv
import io
import json
import stat
from pathlib import Path

import pytest

from lcq.errors import LcqError
from lcq.models import TaskStatus
from tests.tui.fakes import a_failure, a_task
from tui import export
from tui.columns import TASK_COLUMNS, TASK_FIELDS, TASK_MORE, lay_out_sideways
from tui.desk import Desk
from tui.saved import SHIPPED, SavedView, SavedViews, state_of, toggled, with_state
from tui.store import task_row


def a_view(name: str = "mine", **more: object) -> SavedView:
    return SavedView(name, "tasks", **({"filter_text": "node:gpu-1"} | more))  # type: ignore[arg-type]


def test_a_saved_view_is_there_in_the_next_console_and_nobody_else_may_read_it(tmp_path: Path) -> None:
    path = tmp_path / "lcq" / "views.json"
    view = a_view(sort="took", descending=True, columns=("id", "why"))
    SavedViews(path).save(view)
    assert SavedViews(path).all == (view, *SHIPPED)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    SavedViews(path).delete("mine")
    assert SavedViews(path).all == SHIPPED


def test_two_consoles_of_one_user_lose_none_of_each_others_views(tmp_path: Path) -> None:
    one, other = (SavedViews(tmp_path / "views.json") for _ in range(2))
    one.save(a_view("a"))
    other.save(a_view("b"))
    assert {"a", "b"} <= {view.name for view in SavedViews(tmp_path / "views.json").all}


@pytest.mark.parametrize("content", ['{"views": [{"name": "hal', "[]", '{"views": 3}', "\x00"])
def test_a_damaged_file_is_told_and_put_aside_not_overwritten(tmp_path: Path, content: str) -> None:
    path = tmp_path / "views.json"
    path.write_text(content)
    saved = SavedViews(path)
    assert "cannot be read" in saved.problem
    assert saved.all == SHIPPED
    saved.save(a_view())
    assert (tmp_path / "views.damaged.json").read_text() == content
    assert SavedViews(path).all[0] == a_view()


def test_a_view_that_means_nothing_here_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "views.json"
    path.write_text(json.dumps({"views": [{"name": "x", "mode": "hologram"}, {"name": "ok", "mode": "nodes"}, 7]}))
    assert [view.name for view in SavedViews(path).all if not view.shipped] == ["ok"]


def test_where_the_file_cannot_be_written_that_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(LcqError, match="cannot be saved"):
        SavedViews(tmp_path / "file" / "views.json").save(a_view())


def test_every_shipped_view_can_be_meant() -> None:
    desk = Desk(None, None)  # type: ignore[arg-type]
    for shipped in SHIPPED:
        view = {"tasks": desk.tasks, "nodes": desk.nodes, "queues": desk.queues}[shipped.mode]
        view.set_filter(shipped.filter_text)  # type: ignore[attr-defined]
        assert not view.filter.problem  # type: ignore[attr-defined]
        assert shipped.sort in ("", *view.sorts)  # type: ignore[attr-defined]
        assert set(shipped.columns or ()) <= {column.id for column in (*TASK_COLUMNS, *TASK_MORE)}


@pytest.mark.parametrize(
    ("before", "clause", "after"),
    [
        ("", "state:failed", "state:failed"), ("age<1m state:queued don't", "state:done", "age<1m don't state:done"),
        ('state:a "state: b" -state:c', "", '"state: b"'), ("x STATE=q", "", "x"),
    ],
)  # fmt: skip
def test_choosing_a_state_leaves_the_rest_of_the_filter(before: str, clause: str, after: str) -> None:
    assert with_state(before, clause) == after
    assert state_of(after) == clause


def test_a_clause_is_put_in_and_taken_out() -> None:
    assert toggled(toggled("a 'b c'", "needs:attention"), "needs:attention") == "a 'b c'"


# ---------------------------------------------------------------- rows as files


def values(image: str = "/p/a.jpg") -> export.Values:
    record = a_task(image, status=TaskStatus.FAILED, failure=a_failure("no [memory]"), submitted_ms=1_000_000)
    return export.values_of(task_row(record), TASK_FIELDS, 1_090_000)


def test_a_row_is_told_by_the_names_that_a_filter_knows() -> None:
    told = json.loads(export.as_json([values()]))
    assert (told["state"], told["age_s"], told["submitted_at"]) == ("failed", 90.0, "1970-01-01T00:16:40.000+00:00")
    assert (told["cause"], told["needs"], told["took_s"]) == ("out_of_memory", "attention", None)


def test_a_text_that_a_spreadsheet_would_run_is_made_harmless() -> None:
    rows = list(csv.DictReader(io.StringIO(export.as_csv([values("=cmd|'/c calc'!A0"), values('-x, "q"\n.jpg')]))))
    assert [row["image"] for row in rows] == ["'=cmd|'/c calc'!A0", '\'-x, "q"␊.jpg']


@pytest.mark.parametrize("ending", ["csv", "json"])
def test_a_file_is_its_owners_alone_and_never_overwritten_unasked(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"rows.{ending}"
    size = export.write_rows(path, [values()])
    assert (path.stat().st_size, stat.S_IMODE(path.stat().st_mode)) == (size, 0o600)
    before = path.read_bytes()
    with pytest.raises(export.FileIsThere):
        export.write_rows(path, [])
    assert path.read_bytes() == before
    export.write_rows(path, [], overwrite=True)
    assert path.read_bytes() != before
    assert [one.name for one in tmp_path.iterdir()] == [path.name]


def test_what_cannot_be_written_is_told(tmp_path: Path) -> None:
    with pytest.raises(LcqError, match="cannot be written"):
        export.write_rows(tmp_path / "nowhere" / "a.csv", [])
    with pytest.raises(LcqError, match="neither"):
        export.write_rows(tmp_path / "a.xlsx", [])


# ---------------------------------------------------------------- columns


def test_sideways_the_first_column_stays_and_the_width_is_filled_exactly() -> None:
    for width in (5, 13, 14, 40, 117, 400):
        for start in (0, 3, 9):
            for wide in (False, True):
                laid = lay_out_sideways(TASK_COLUMNS, width, start=start, wide=wide)
                assert laid[0][0].id == "id"
                assert sum(room for _, room in laid) + len(laid) - 1 <= width
                assert [column.id for column, _ in laid[1:2]] in ([], [TASK_COLUMNS[1 + start].id])

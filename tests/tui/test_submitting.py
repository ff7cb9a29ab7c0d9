"""The submit form's wishes: one picture or a folder, what would become of them, and what is sent."""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from textual.widgets import Input, Select

from lcq.errors import InvalidInput, UnknownCommand
from lcq.models import Privacy, TaskPriority
from lcq.moments import told_moment
from lcq.wire import ForeseeAnswer, Foreseen, Refusal
from tests.conftest import wait_until
from tests.tui.fakes import FakeCluster, a_node
from tui.screens.submit import SubmitForm
from tui.submitting import Prepared, Wish, prepare, told


def a_folder(path: Path) -> Path:
    """Two images with their masks beside them, and one without."""
    folder = path / "shots [1]"
    folder.mkdir()
    for name in ("a.png", "a_mask.png", "b.jpg", "b_mask.png", "c.png"):
        (folder / name).write_bytes(b"x")
    return folder


def a_wish(*inputs: Path, **more: Any) -> Wish:
    return Wish(tuple(map(str, inputs)), "cv2-telea", "maria", **more)


def test_a_folder_becomes_tasks_with_their_masks_results_and_a_job_and_says_what_it_skips(tmp_path):
    folder = a_folder(tmp_path)
    prepared = prepare(a_wish(folder, priority=TaskPriority.LOW))
    assert [Path(task.image_path).name for task in prepared.tasks] == ["a.png", "b.jpg"]
    assert [Path(task.mask_path or "").name for task in prepared.tasks] == ["a_mask.png", "b_mask.png"]
    assert {Path(task.output_path or "").parent for task in prepared.tasks} == {folder / "cleaned"}
    assert len({task.job for task in prepared.tasks}) == 1
    assert prepared.tasks[0].job
    assert {task.priority for task in prepared.tasks} == {TaskPriority.LOW}
    assert len(prepared.skipped) == 1
    assert prepared.skipped[0].startswith("1 skipped: ")


def test_one_picture_takes_the_mask_beside_it_and_says_which_files_are_not_here(tmp_path):
    folder = a_folder(tmp_path)
    (task,) = prepare(a_wish(folder / "a.png")).tasks
    assert task.mask_path == str(folder / "a_mask.png")
    (task,) = prepare(a_wish(folder / "c.png")).tasks
    assert (task.mask_path, task.job) == (None, None)
    assert prepare(a_wish(folder / "c.png")).warning == "no mask is named, and none lies beside the image"
    assert prepare(a_wish(folder / "a.png")).warning == ""
    assert prepare(a_wish(tmp_path / "x.png")).missing == (str(tmp_path / "x.png"),)
    (task,), (other,) = (prepare(a_wish(tmp_path / "x.png", exportable=may)).tasks for may in (False, True))
    assert (task.privacy, other.privacy) == (Privacy.PRIVATE, Privacy.EXPORTABLE)


def test_a_deadline_is_typed_as_for_lcq_submit_and_the_dry_run_says_which_moment_it_is_and_how_late(tmp_path):
    folder = a_folder(tmp_path)
    before = datetime.now().astimezone()
    prepared = prepare(a_wish(folder, deadline="2h"))
    due = {task.deadline for task in prepared.tasks}
    assert len(due) == 1, "all of a folder have the same"
    (deadline,) = due
    assert timedelta(hours=2) <= deadline - before < timedelta(hours=2, minutes=5)
    (alone,) = prepare(a_wish(folder / "a.png", deadline="2h")).tasks
    assert alone.deadline >= deadline
    kept = told(prepared, ForeseeAnswer(foreseen=(Foreseen(queue="q", count=2, seconds=7.0, done_s=90.0),)))
    assert kept[2].startswith(f"to be done by {told_moment(deadline)}, in 1h5")
    assert not any("LATE" in line for line in kept)
    late = told(prepared, ForeseeAnswer(foreseen=(Foreseen(queue="q", count=2, seconds=7.0, done_s=86_400.0),)))
    assert late[3].startswith("! LATE: the last would be done about 22h")
    with pytest.raises(InvalidInput, match="'soon' is no moment"):
        prepare(a_wish(folder, deadline="soon"))
    assert prepare(a_wish(folder)).tasks[0].deadline is None


def test_what_cannot_be_submitted_is_told(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(InvalidInput, match="no image with a mask"):
        prepare(a_wish(tmp_path / "empty"))
    with pytest.raises(InvalidInput, match="must be a model's name"):
        prepare(Wish((str(tmp_path / "x.png"),), "no such [model]", "maria"))


def test_the_dry_run_says_where_when_why_and_what_would_be_refused(tmp_path):
    prepared = Prepared(prepare(a_wish(a_folder(tmp_path))).tasks, ("1 skipped: no mask",), ("/p/x.png",))
    answer = ForeseeAnswer(
        foreseen=(
            Foreseen(queue="gpu-high", count=2, seconds=7.0, done_s=90.0),
            Foreseen(queue="cpu-light", count=1, seconds=1.0, why="no node is online"),
            Foreseen(queue="gpu-low", count=1, seconds=9.0, done_s=10.0, guessed=True),
        ),
        refused=(Refusal(id="1", code="unknown_model", message="no model 'x'", hint="lcq nodes"),), refusals=4,
    )  # fmt: skip
    assert told(prepared, answer) == [
        "2 tasks would go:", "2 to gpu-high, 7 s of work, the last done in about 1m30s",
        "1 to cpu-light, 1 s of work, nobody can say when (no node is online)",
        "1 to gpu-low, 9 s of work by a guess, the last done in about 10.0s",
        "4 would be refused: no model 'x' (lcq nodes)", "not found on this machine: /p/x.png", "1 skipped: no mask",
    ]  # fmt: skip


async def test_a_folder_is_submitted_after_its_dry_run_was_seen(open_console, tmp_path, monkeypatch):
    # On a busy machine enter came later than the dry run that a rest in typing begins, and had been seen to.
    monkeypatch.setattr("tui.screens.submit._TYPING_PAUSE_S", 600)
    folder = a_folder(tmp_path)
    cluster = FakeCluster([], [a_node()])
    async with open_console(cluster) as console:
        await console.press("s")
        await console.opens(SubmitForm)
        field = console.app.screen.query_one("#image", Input)
        field.value = str(folder)
        console.app.screen.query_one("#exportable", Select).value = "yes"
        console.app.screen.query_one("#deadline", Input).value = "90m"
        await console.press("enter")  # sooner than it could be seen
        await wait_until(lambda: "2 to cpu-light, 4 s of work, the last done in about 30" in console.text())
        assert "1 skipped" in console.text()
        assert re.search(r"to be done by \S+ \S+, in 1h", console.text())
        assert "functions would be paid 0.6 EUR for these at most" in console.text()
        assert cluster.calls == []
        await wait_until(lambda: console.app.screen._told_of is not None)
        await console.press("enter")
        await wait_until(lambda: [name for name, _ in cluster.calls] == ["submit_folder"])
        assert cluster.calls[0][1].inputs == (str(folder),)
        assert (cluster.calls[0][1].exportable, cluster.calls[0][1].deadline) == (True, "90m")
        await wait_until(lambda: "submitted 1 task of job job-of-it, 2 were done already" in console.text())


async def test_where_a_scheduler_is_too_old_to_say_that_is_said_and_it_can_be_sent(open_console, tmp_path, monkeypatch):
    async def cannot(*_: object, **__: object) -> ForeseeAnswer:
        raise UnknownCommand("protocol 2 has no command 'foresee'")

    cluster = FakeCluster([], [a_node()])
    monkeypatch.setattr(cluster, "foresee", cannot)
    async with open_console(cluster) as console:
        await console.press("s")
        await console.opens(SubmitForm)
        console.app.screen.query_one("#image", Input).value = str(a_folder(tmp_path))
        await wait_until(lambda: "older and cannot say" in console.text())
        await console.press("enter")
        await wait_until(lambda: [name for name, _ in cluster.calls] == ["submit_folder"])

"""What a killed agent left beside results is removed once nobody can want it any more, and nothing else is."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest

from lcq.errors import SchedulerUnreachable
from lcq.ids import new_id
from lcq.models import Attempt, Task, TaskPriority, TaskRecord, TaskStatus, TaskType
from lcq.wire import GetTasks, GetTasksAnswer, History, HistoryAnswer
from tests.conftest import wait_until
from worker import leftovers
from worker.leftovers import Leftovers


class Scheduler:
    """Answers as a control line would, about tasks that are told to it."""

    def __init__(self) -> None:
        self.told: dict[str, HistoryAnswer] = {}
        self.looks = 0
        self.is_away = False

    def task(self, status: TaskStatus, *outcomes: str) -> str:
        task = Task(id=new_id(), task_type=TaskType.INPAINT, image_path="cat.png")
        record = TaskRecord(
            task=task, status=status, revision=1, queue="cpu-light", priority=TaskPriority.NORMAL, attempt=len(outcomes)
        )
        attempts = tuple(
            Attempt(number=number, node="node-1", started_ms=1, outcome=outcome)
            for number, outcome in enumerate(outcomes, 1)
        )
        self.told[task.id] = HistoryAnswer(record=record, attempts=attempts, events=(), explanation="")
        return task.id

    async def ask(self, request: Any, *, patience_s: float) -> Any:
        self.looks += isinstance(request, GetTasks)  # each look begins with one
        if self.is_away:
            raise SchedulerUnreachable("tcp://nowhere:1", patience_s)
        if isinstance(request, GetTasks):
            known = [self.told[task].record for task in request.ids if task in self.told]
            return GetTasksAnswer(tasks=tuple(known), missing=())
        assert isinstance(request, History)
        return self.told[request.task_id]


@pytest.fixture(autouse=True)
def _often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leftovers, "_EVERY_S", 0.02)


def staged(folder: Path, task: str, attempt: int, *, age_s: float = 60) -> Path:
    path = folder / f".cat.png.{task}-{attempt}.lcq-tmp"
    path.write_bytes(b"half")
    then = path.stat().st_mtime - age_s
    os.utime(path, (then, then))
    return path


async def looked_twice(one: Leftovers, scheduler: Scheduler) -> None:
    life = asyncio.create_task(one.clear_up())
    before = scheduler.looks
    await wait_until(lambda: scheduler.looks >= before + 3, what="it has looked twice, and begins again")
    life.cancel()
    await asyncio.wait({life})


async def test_only_what_nobody_can_want_any_more_is_removed(tmp_path: Path) -> None:
    scheduler, results = Scheduler(), tmp_path / "out"
    results.mkdir()
    late = scheduler.task(TaskStatus.COMPLETED, "completed", "superseded")
    cancelled = scheduler.task(TaskStatus.CANCELLED, "cancelled")
    reborn = scheduler.task(TaskStatus.COMPLETED, "completed")  # a failover of Redis took its first life back
    running = scheduler.task(TaskStatus.PROCESSING, "failed", "running")
    gone = [staged(results, late, 2), staged(results, cancelled, 1), staged(results, reborn, 4)]
    stay = [
        staged(results, late, 1),  # committed, and still to be renamed by whoever waited for the verdict
        staged(results, running, 1),  # may yet be committed late
        staged(results, running, 2),
        staged(results, new_id(), 1),  # of a task that nobody knows
        staged(results, cancelled, 3, age_s=0),
        staged(results, late, 7),  # ours
    ]
    (results / "cat.png").write_bytes(b"whole")
    first = Leftovers(tmp_path / "folders.json", scheduler, is_ours=lambda key: False)  # type: ignore[arg-type]
    first.expect_in(results)
    after_a_kill = Leftovers(
        tmp_path / "folders.json",
        scheduler,  # type: ignore[arg-type]
        is_ours=lambda key: key == (late, 7),
    )
    await looked_twice(after_a_kill, scheduler)
    assert not [path for path in gone if path.exists()]
    assert all(path.exists() for path in (*stay, results / "cat.png"))


async def test_while_nobody_answers_nothing_is_removed_and_it_looks_again(tmp_path: Path) -> None:
    scheduler = Scheduler()
    path = staged(tmp_path, scheduler.task(TaskStatus.CANCELLED, "cancelled"), 1)
    one = Leftovers(tmp_path / "folders.json", scheduler, is_ours=lambda key: False)  # type: ignore[arg-type]
    one.expect_in(tmp_path)
    scheduler.is_away = True
    await looked_twice(one, scheduler)
    assert path.exists()
    scheduler.is_away = False
    life = asyncio.create_task(one.clear_up())
    await wait_until(lambda: not path.exists(), what="the leftover goes")
    life.cancel()
    await asyncio.wait({life})


@pytest.mark.parametrize("content", ["", "{", "7", "[7, null]"])
def test_a_damaged_memory_of_folders_is_begun_anew(tmp_path: Path, content: str) -> None:
    (tmp_path / "folders.json").write_text(content)
    one = Leftovers(tmp_path / "folders.json", Scheduler(), is_ours=lambda key: False)  # type: ignore[arg-type]
    one.expect_in(tmp_path)
    assert str(tmp_path) in (tmp_path / "folders.json").read_text()

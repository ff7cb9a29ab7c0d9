"""What was written during attempts: in files, of each so much, of all so much, and told by its place."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from lcq.config import TaskLogsConfig
from lcq.ids import new_id
from worker.task_logs import TaskLogs

A, B, C = ((new_id(), number) for number in (1, 1, 2))


def logs_in(folder: Path, **terms: float) -> TaskLogs:
    config = TaskLogsConfig.model_validate(terms)
    return TaskLogs(folder / "logs", terms=lambda: config)


async def whole(logs: TaskLogs, key: tuple[str, int], limit: int = 500) -> list[tuple[str, str, int]]:
    """All that is kept of a log, read in pieces: who, what, how much was cut before it."""
    lines: list[tuple[str, str, int]] = []
    begin = 0
    while True:
        kept = await logs.read(key, begin, limit)
        lines += [(line.source, line.text, line.cut) for line in kept.lines]
        assert kept.next > begin or not kept.lines
        begin = kept.next
        if begin >= kept.size:
            return lines


async def test_lines_are_kept_as_they_came_and_read_by_another_agent_later(tmp_path: Path) -> None:
    logs = logs_in(tmp_path)
    logs.begin(A)
    logs.note(A, "cpu/0", b"one\ntw")
    logs.say(A, "WARNING", "slow")
    logs.note(A, "cpu/0", "o \x1b[31mred\x1b[0m\nthr\u00e9".encode())
    logs.note(B, "cpu/1", b"another's\n")
    assert [text for _, text, _ in await whole(logs, A)] == ["one", "slow", "two red"]
    logs.end(A)
    await logs.flush()
    later = logs_in(tmp_path)
    assert await whole(later, A, 1) == [
        ("cpu/0", "one", 0), ("agent", "slow", 0), ("cpu/0", "two red", 0), ("cpu/0", "thré", 0)
    ]  # fmt: skip
    newest = await later.read(A, -1, 2)
    assert [(line.text, line.level) for line in newest.lines] == [("two red", ""), ("thré", "")]
    assert abs(newest.lines[0].at_ms - time.time() * 1000) < 3_600_000
    assert not (await later.read(C, 0, 10)).is_there
    assert oct((tmp_path / "logs").stat().st_mode & 0o777) == "0o700"


async def test_of_a_long_one_the_beginning_and_the_end_are_kept_and_what_lay_between_is_told(tmp_path: Path) -> None:
    logs = logs_in(tmp_path, attempt_kib=64)
    for number in range(20_000):
        logs.note(A, "cpu/0", b"line %05d\n" % number)
        if number % 1000 == 0:
            await logs.flush()
    lines = await whole(logs, A)
    kept = await logs.read(A, -1, 1)
    assert lines[0] == ("cpu/0", "line 00000", 0)
    assert lines[-1] == ("cpu/0", "line 19999", 0)
    assert sum(cut for *_, cut in lines) == kept.size - kept.kept
    assert [cut > 0 for *_, cut in lines].count(True) == 1
    assert 32 * 1024 < kept.kept <= 64 * 1024
    assert sum(file.stat().st_size for file in (tmp_path / "logs").iterdir()) == kept.kept
    numbers = [int(text.split()[1]) for _, text, _ in lines]
    assert numbers == sorted(set(numbers))
    # Who reads on from a place that is gone is told of the gap, too.
    (first, *_), head = (await logs.read(A, 40 * 1024, 1)).lines, 32 * 1024
    assert first.cut == first.number - 40 * 1024
    assert first.number > head


async def test_a_line_without_end_is_kept_in_pieces(tmp_path: Path) -> None:
    logs = logs_in(tmp_path)
    logs.note(A, "cpu/0", b"x" * 40_000)
    logs.end(A)
    lines = await whole(logs, A)
    assert "".join(text for _, text, _ in lines) == "x" * 40_000


async def test_too_old_ones_go_and_then_the_oldest_but_none_of_an_attempt_that_runs(tmp_path: Path) -> None:
    logs = logs_in(tmp_path, attempt_kib=1024, total_mib=1, keep_s=3600)
    keys = [(new_id(), 1) for _ in range(4)]
    for age_s, key in zip((7200, 7000, 60, 0), keys, strict=True):
        logs.note(key, "cpu/0", b"x" * 900 + b"\n")
        await logs.flush()
        for file in (tmp_path / "logs").glob(f"{key[0]}*"):
            os.utime(file, (time.time() - age_s, time.time() - age_s))
    logs = logs_in(tmp_path, attempt_kib=4096, total_mib=1, keep_s=3600)
    big = new_id(), 1
    logs.begin(keys[0])
    logs.begin(big)
    logs.note(big, "cpu/0", (b"y" * 999 + b"\n") * 1040)
    assert (await logs.read(big, -1, 1)).is_there
    assert [(await logs.read(key, 0, 1)).is_there for key in keys] == [True, False, False, False]


async def test_a_full_disk_costs_lines_and_no_more(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    logs = logs_in(tmp_path)
    logs.note(A, "cpu/0", b"before\n")
    await logs.flush()
    (file,) = (tmp_path / "logs").iterdir()
    aside = file.rename(tmp_path / "aside")
    file.mkdir()  # nothing can be written there now
    logs.note(A, "cpu/0", b"lost\n")
    await logs.flush()
    await logs.flush()
    assert caplog.text.count("logs of tasks cannot be kept") == 1
    file.rmdir()
    aside.rename(file)
    logs.note(A, "cpu/0", b"after\n")
    assert [(text, cut > 0) for _, text, cut in await whole(logs, A)] == [("before", False), ("after", True)]


async def test_where_nothing_is_to_be_kept_nothing_is(tmp_path: Path) -> None:
    logs = logs_in(tmp_path, attempt_kib=0)
    logs.note(A, "cpu/0", b"one\n")
    assert not (await logs.read(A, 0, 1)).is_there
    assert not list((tmp_path / "logs").iterdir())

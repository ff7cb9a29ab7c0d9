"""The log viewer: followed, searched, windowed, marked, saved; whatever comes, the cursor stays on its line."""

from __future__ import annotations

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from lcq.errors import NoLog
from lcq.models import Attempt, TaskStatus
from lcq.wire import LogLine, TaskLogAnswer
from tests.conftest import wait_until
from tests.tui.fakes import FakeCluster, a_failure, a_node, a_task, now_ms
from tui.loglines import MOST_LINES, WINDOWS, Line, LogLines, wrapped
from tui.screens.log import LogScreen
from tui.text import cells, clean


def a_line(number: int, text: str = "", *, at_ms: int = 0, level: str = "INFO") -> Line:
    return Line((0, number), at_ms or 1_000_000 + number * 1000, "agent", level, text or f"line {number}")


def some_lines(count: int) -> LogLines:
    lines = LogLines()
    lines.add(a_line(number) for number in range(count))
    return lines


def test_following_the_cursor_is_on_the_newest_and_moving_stops_that():
    lines = some_lines(10)
    assert lines.here == 9
    lines.add([a_line(10)])
    assert (lines.here, lines.follow) == (10, True)
    lines.move(-3)
    lines.add([a_line(11), a_line(11), a_line(3)])  # told twice, and old: passed over
    assert (lines.here, lines.follow, len(lines)) == (7, False, 12)
    lines.set_follow(True)
    assert lines.here == 11


def test_the_cursor_stays_on_its_line_whatever_comes_and_goes():
    chance = random.Random(5)
    lines = some_lines(50)
    lines.move(-20)
    number = 50
    for _ in range(300):
        before = lines.cursor
        match chance.randrange(3):
            case 0:
                lines.add(a_line(number + n) for n in range(30))
                number += 30
            case 1:
                lines.tick(1_000_000 + number * 1000)
            case 2:
                lines.next_window()
        kept = {line.key for line in lines.shown}
        assert lines.cursor in kept or not kept
        if before in kept:
            assert lines.cursor == before
        else:
            lines.to(chance.randrange(max(1, len(lines))))
    assert lines.total <= MOST_LINES
    assert lines.dropped + lines.total == number


def test_a_window_holds_what_is_young_enough_and_what_has_no_time():
    lines = LogLines()
    lines.tick(100_000_000)
    lines.add([a_line(1, at_ms=1000), Line((0, 2), 0, "kept", "", "timeless"), a_line(3, at_ms=99_999_000)])
    lines.next_window()
    assert (WINDOWS[lines.window][0], [line.key[1] for line in lines.shown]) == ("1m", [2, 3])
    lines.tick(100_070_000)
    lines.add([a_line(4, at_ms=100_069_000)])
    assert [line.key[1] for line in lines.shown] == [2, 4]


def test_searching_goes_round_and_says_how_many_there_are():
    lines = some_lines(20)
    lines.find("LINE 1")
    assert (lines.matches, lines.here) == (11, 19)
    assert lines.next_match(1)
    assert lines.here == 1
    assert lines.next_match(-1)
    assert lines.here == 19
    lines.find("nowhere")
    assert not lines.next_match(1)
    assert lines.matches == 0


def test_what_is_marked_is_what_is_saved():
    lines = some_lines(3)
    assert lines.as_text().count("\n") == 3
    lines.to(1)
    lines.mark()
    assert lines.as_text() == "1970-01-01T00:16:41.000+00:00 agent INFO line 1\n"
    lines.mark()
    assert lines.as_text().count("\n") == 3


@given(st.text(max_size=120), st.integers(2, 40))
def test_wrapped_pieces_are_the_text_and_fit(text, width):
    shown = clean(text)
    pieces = wrapped(shown, width)
    assert "".join(pieces) == shown
    assert all(cells(piece) <= width for piece in pieces)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(1, 4), min_size=1, max_size=40), st.integers(1, 12), st.integers(0, 39), st.booleans())
def test_the_cursor_is_always_in_sight(heights, height, index, follow):
    lines = some_lines(len(heights))
    lines.to(index)
    lines.set_follow(follow)
    lines.reveal(height, heights)
    here = lines.here
    assert lines.top <= here
    assert lines.top == here or sum(heights[lines.top : here + 1]) <= height


def said(number: int, text: str, **more: object) -> LogLine:
    return LogLine.model_validate({"number": number, "at_ms": now_ms(), "source": "agent", "text": text} | more)


async def test_a_nodes_log_is_followed_searched_wrapped_and_saved(open_console, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cluster = FakeCluster([a_task()], [a_node("gpu-1")])
    evil = "a\x1b]52;c;x\x07b [red]写真[/foo] " + "long " * 40
    cluster.logs["gpu-1"] = [said(1, "joined scheduler"), said(2, evil, level="ERROR", source="cpu/0")]
    async with open_console(cluster, size=(80, 24)) as console:
        await console.press("4", "l")
        await wait_until(lambda: "joined scheduler" in console.text())
        screen = console.app.screen
        assert isinstance(screen, LogScreen)
        assert "\x1b" not in console.text()
        assert "[red]写真[/foo]" in console.text()
        assert "FOLLOWING" in console.text()
        assert {cells(line) for line in console.lines()} == {80}
        cluster.logs["gpu-1"].append(said(3, "a new line"))
        await wait_until(lambda: "a new line" in console.text())
        await console.press("w", "T", "slash", *"long", "enter")
        assert console.text().count("long") > 15
        assert "/long: 1 line" in console.text()
        assert {cells(line) for line in console.lines()} == {80}
        await console.press("M", "S", "enter")
        await wait_until(lambda: list(tmp_path.glob("*.log")) != [])
        (path,) = tmp_path.glob("*.log")
        assert path.stat().st_mode & 0o077 == 0
        await wait_until(lambda: "long long" in path.read_text())
        assert path.read_text().count("\n") == 1  # the one that is marked
        cluster.boots["gpu-1"], cluster.logs["gpu-1"] = "b2", [said(0, "up again")]
        await wait_until(lambda: "up again" in console.text())
        assert "was started anew" in "\n".join(line.text for line in screen.lines.shown)
        cluster.log_trouble = NoLog("gpu-1", "it is offline")
        await wait_until(lambda: "it is offline" in console.text())
        await console.press("escape", "escape")
        await wait_until(lambda: not isinstance(console.app.screen, LogScreen))


async def test_a_tasks_log_has_what_its_attempts_left_and_what_its_node_tells(open_console):
    task = a_task(status=TaskStatus.PROCESSING, node="gpu-1", attempt=2)
    cluster = FakeCluster([task], [a_node("gpu-1")])
    cluster.history[task.id] = [
        Attempt(number=1, node="gpu-0", started_ms=now_ms(), ended_ms=now_ms(), outcome="failed", failure=a_failure(),
                log="Traceback\nCUDA out of memory"),
        Attempt(number=2, node="gpu-1", started_ms=now_ms()),
    ]  # fmt: skip
    cluster.logs["gpu-1"] = [said(1, "of another"), said(2, "tile 3 of 9", source="cpu/0", task=task.id)]
    async with open_console(cluster, size=(120, 24)) as console:
        await console.press("l")
        await wait_until(lambda: "tile 3 of 9" in console.text())
        text = console.text()
        assert "attempt 1 on gpu-0 failed; its runner wrote last:" in text
        assert "CUDA out of memory" in text
        assert "of another" not in text


async def test_a_tasks_kept_logs_are_shown_attempt_by_attempt_and_the_newest_is_followed(open_console):
    task = a_task(status=TaskStatus.PROCESSING, node="gpu-1", attempt=3)
    cluster = FakeCluster([task], [a_node("gpu-1")])
    log = "Traceback\nCUDA out of memory"
    cluster.history[task.id] = [
        Attempt(number=1, node="gpu-0", started_ms=now_ms(), outcome="failed", failure=a_failure(), log=log),
        Attempt(number=2, node="gpu-1", started_ms=now_ms(), outcome="failed", failure=a_failure()),
        Attempt(number=3, node="gpu-1", started_ms=now_ms()),
    ]

    def kept(number: int, *lines: LogLine, size: int, kept: int, is_open: bool = False) -> TaskLogAnswer:
        return TaskLogAnswer(
            task=task.id, attempt=number, node="gpu-1", lines=lines, next=size, size=size, kept=kept, is_open=is_open
        )

    second = (said(0, "a\x1b]52;c;x\x07b [red]begun"), said(900, "broke", level="ERROR", cut=850))
    third = said(0, "tile 1", source="cpu/0")
    cluster.task_logs[task.id] = {
        1: NoLog("gpu-0", "it is offline; what attempt 1 wrote is still on its host"),
        2: kept(2, *second, size=1000, kept=150),
        3: kept(3, third, size=50, kept=50, is_open=True),
    }
    async with open_console(cluster, size=(80, 24)) as console:
        await console.press("l")
        await wait_until(lambda: "tile 1" in console.text())
        text = console.text()
        assert "-- attempt 1 on gpu-0: failed --" in text
        assert "CUDA out of memory" in text
        assert "b [red]begun" in text
        assert "-- 850 bytes were written here and not kept" in text
        assert "\x1b" not in text
        assert {cells(line) for line in console.lines()} == {80}
        cluster.task_logs[task.id][3] = kept(3, third, said(50, "tile 2"), size=70, kept=70, is_open=True)
        await wait_until(lambda: "tile 2" in console.text())
        assert console.text().count("tile 1") == 1

"""The console in Chinese: everything is said in it, and two-celled characters push nothing out of its place."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import pytest
from textual.widgets import Static

from lcq.lang import speak, tr
from lcq.models import ErrorClass, Failure, NodeStatus, TaskStatus
from tests.conftest import wait_until
from tests.tui.fakes import FakeCluster, a_failure, a_node, a_task
from tui.app import ConsoleApp
from tui.columns import (
    ACT_COLUMNS,
    CAUSE_COLUMNS,
    NODE_COLUMNS,
    QUEUE_COLUMNS,
    STATE_WORDS,
    TASK_COLUMNS,
    TASK_MORE,
    fleet_columns,
    state_cell,
)
from tui.commands import COMMANDS
from tui.desk import Desk
from tui.screens.dialogs import Help
from tui.text import cells, counted
from tui.widgets.frame import KeyLine


@pytest.fixture(autouse=True)
def _chinese() -> Iterator[None]:
    speak("zh")
    yield
    speak("en")


def is_chinese(text: str) -> bool:
    return any("\u4e00" <= char <= "\u9fff" for char in text)


def a_console() -> ConsoleApp:
    tasks = [a_task(f"/p/{status}.jpg", status=status) for status in TaskStatus]
    tasks.append(a_task("/p/x.jpg", status=TaskStatus.FAILED, failure=a_failure(), node="gpu-1"))
    cluster = FakeCluster(tasks, [a_node("gpu-1"), a_node("gpu-2")])
    return ConsoleApp(Desk(cluster, cluster, cluster="t"))


def lines_of(app: ConsoleApp) -> list[str]:
    return ["".join(segment.text for segment in strip) for strip in app.screen._compositor.render_strips()]


def test_every_head_fits_its_column_in_cells():
    every = (*TASK_COLUMNS, *TASK_MORE, *QUEUE_COLUMNS, *NODE_COLUMNS, *CAUSE_COLUMNS, *ACT_COLUMNS)
    for column in (*every, *fleet_columns(str)):
        assert is_chinese(column.shown_title), column.title
        assert cells(column.shown_title) <= column.width, column.title


def test_every_state_has_its_letter_and_a_word_that_fits():
    assert all(is_chinese(tr(word)) for word in STATE_WORDS)
    for status in TaskStatus:
        text, _ = state_cell(status)
        assert text[:2] == state_cell(status)[0][:2]
        assert cells(text) <= 12


def test_every_command_is_called_in_chinese():
    for command in COMMANDS:
        assert is_chinese(command.shown_title), command.title
        assert command.label in ("", "1:1") or is_chinese(command.shown_label), command.label
    assert counted(3000, "task") == "3,000 个任务"


@pytest.mark.parametrize("size", [(80, 24), (120, 40), (60, 15)])
async def test_every_line_of_every_view_is_as_wide_as_the_terminal(size):
    app = a_console()
    async with app.run_test(size=size) as pilot:
        await wait_until(lambda: app.desk.link.loaded)
        for key in "123456":
            await pilot.press(key)
            app.show_news()
            await pilot.pause()
            lines = lines_of(app)
            assert len(lines) == size[1]
            assert {cells(line) for line in lines} == {size[0]}, key
            assert is_chinese(lines[0])
            footer = app.screen.query_one(KeyLine)
            assert cells(footer.text) <= size[0]
            assert f"? {tr('keys')} " in f"{footer.text} "  # the way to all of them is never cut


async def test_the_columns_stand_below_their_heads_at_80x24():
    app = a_console()
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.press("2")
        await wait_until(lambda: any("> 处理中" in line for line in lines_of(app)))
        lines = lines_of(app)
        head = next(line for line in lines if "编号" in line and "状态" in line)
        at = cells(head[: head.index("状态")])
        assert {"~", ".", ">", "#", "x", "-"} <= {line_at(line, at) for line in lines[lines.index(head) + 1 :]}


def line_at(line: str, cell: int) -> str:
    """The character at a cell of a line."""
    for at in range(len(line)):
        if cells(line[:at]) == cell:
            return line[at]
    return ""


async def test_the_help_of_a_screen_and_a_question_are_in_chinese():
    app = a_console()
    async with app.run_test(size=(80, 24)) as pilot:
        await wait_until(lambda: app.desk.link.loaded)
        await pilot.press("question_mark")
        assert isinstance(app.screen, Help)
        told = str(app.screen.query_one("#help-text Static", Static).render())
        titles = [line for line in told.splitlines() if line[:14].strip()]  # else it goes on with the one before
        assert all(is_chinese(line) for line in titles)
        starts = {line.index(title) for line in titles for title in [tr("Cancel")] if line.endswith(title)}
        assert all(one == other for one, other in pairwise(starts))
        await pilot.press("escape", "q")
        assert any("退出控制台？" in line for line in lines_of(app))


async def test_what_nodes_and_failures_say_of_themselves_is_chinese_in_every_view_and_detail():
    failure = Failure(
        error_class=ErrorClass.BAD_INPUT, code="image_truncated", message="/p/x.jpg: ends too early (3,000 bytes)"
    )
    tasks = [a_task("/p/x.jpg", status=TaskStatus.FAILED, failure=failure, node="gpu-1")]
    died = a_node("gpu-1", status=NodeStatus.OFFLINE, why="the agent on gpu-1 died")
    cluster = FakeCluster(tasks, [died])
    app = ConsoleApp(Desk(cluster, cluster, cluster="t"))
    async with app.run_test(size=(120, 40)) as pilot:
        await wait_until(lambda: app.desk.link.loaded)
        for keys, said in (
            ("1", "gpu-1 上的代理死了"), ("4", "gpu-1 上的代理死了"), ("4d", "gpu-1 上的代理死了"),
            ("2d", "文件不完整"), ("5", "文件不完整"), ("5d", "文件不完整"),
        ):  # fmt: skip
            await pilot.press(*keys)
            await wait_until(lambda said=said: said in "".join(lines_of(app)), what=f"{keys}: {said}")
            shown = "".join(lines_of(app))
            assert [word for word in (" died", " too early", " offline", "bad_input") if word in shown] == [], keys
            if keys[1:]:
                await pilot.press("escape")

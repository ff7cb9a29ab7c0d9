"""The table: exact widths, and work only for what is on the screen and different."""

from __future__ import annotations

import gc
import itertools
from collections.abc import Callable

import pytest
from rich.cells import cell_len
from rich.segment import Segment

from lcq.models import TaskStatus
from tests.conftest import wait_until
from tests.tui.fakes import FakeCluster, a_task, many_tasks, now_ms
from tui.columns import NODE_COLUMNS, QUEUE_COLUMNS, TASK_COLUMNS, lay_out
from tui.screens.detail import TaskScreen

NAMES = [
    "写真-東京タワー.png", "e\u0301a\u0308 combining.jpg", "👨\u200d👩\u200d👧 family.heic", "🇩🇪🇫🇷.png",
    "tab\there.png", "new\nline.png", "x" * 300, "", "ﷺ.png", "\u200b\u200b",
]  # fmt: skip


@pytest.mark.parametrize("width", [5, 20, 37, 57, 77, 97, 117, 197])
@pytest.mark.parametrize("columns", [TASK_COLUMNS, QUEUE_COLUMNS, NODE_COLUMNS], ids=["tasks", "queues", "nodes"])
def test_columns_fill_the_width_exactly(columns, width):
    layout = lay_out(columns, width)
    assert sum(room for _, room in layout) + len(layout) - 1 <= width
    if width >= 57:
        assert sum(room for _, room in layout) + len(layout) - 1 == width


def test_narrow_tables_keep_what_matters_most():
    assert {"id", "age", "state", "why", "queue", "progress"} <= {column.id for column, _ in lay_out(TASK_COLUMNS, 77)}


def test_live_columns_stand_on_the_left_and_only_one_still_column_before_them():
    for columns in (TASK_COLUMNS, QUEUE_COLUMNS, NODE_COLUMNS):
        live = [index for index, column in enumerate(columns) if column.live]
        assert live == list(range(1, 1 + len(live)))


async def test_every_line_is_exactly_as_wide_as_the_terminal(open_console):
    tasks = [a_task(f"/p/{name}x", why=name, task_user_id=name[:100] or "x") for name in NAMES]
    async with open_console(FakeCluster(tasks), size=(100, 24)) as console:
        for size in ((100, 24), (81, 24), (40, 10), (133, 30)):
            await console.pilot.resize_terminal(*size)
            await console.settle()
            widths = {cell_len(line) for line in console.lines()}
            assert widths == {size[0]}


async def test_a_line_has_no_two_neighbouring_segments_of_one_style(open_console):
    async with open_console(FakeCluster(many_tasks(60))) as console:
        table = console.table
        for y in range(1, table.size.height):
            segments: list[Segment] = list(table.render_line(y))
            body = segments[:-1]  # the last is the scroll bar
            assert all(one.style != two.style for one, two in itertools.pairwise(body))


@pytest.mark.usefixtures("as_painted")
async def test_with_100k_tasks_only_lines_on_the_screen_that_differ_are_rendered(open_console):
    cluster = FakeCluster(many_tasks(100_000))
    watched = gc.get_freeze_count()
    async with open_console(cluster) as console:
        assert gc.get_freeze_count() > watched + 100_000, "the garbage collector leaves the rows alone"
        table, view = console.table, console.desk.tasks
        assert len(view) == 100_000
        await console.press("j")
        shown = [row.id for row in view.window()]
        far = [view.id_at(index) for index in range(50_000, 50_500)]
        fixed = now_ms()
        table._now_ms = lambda: fixed  # hold the clock: ages are no part of this
        table.sync()
        await console.pilot.pause()

        async def rendered_by(change: Callable[[], object]) -> int:
            """How many lines; told anew where a banner (the machine is busy) has moved the table meanwhile."""
            while True:
                place, before = table.region, table.rendered_lines
                change()
                await console.settle()
                if table.region == place:
                    return table.rendered_lines - before

        assert (
            await rendered_by(
                lambda: [cluster.change(task_id, "cancel_task", status=TaskStatus.CANCELLED) for task_id in far]
            )
            == 0
        )
        assert console.desk.store.tasks.rows[far[0]].status is TaskStatus.CANCELLED
        queue = itertools.cycle(["gpu-low", "gpu-high"])
        assert (
            await rendered_by(
                lambda to=queue: [cluster.change(task_id, "reroute_task", queue=next(to)) for task_id in shown[5:8]]
            )
            == 3
        )

        # Above the window: the operator's rows stay, nothing is rendered anew but for a step of the scroll bar.
        new = (a_task(f"/p/new-{number}.jpg", submitted_ms=now_ms()) for number in range(400))
        assert await rendered_by(lambda: [cluster.add(next(new)) for _ in range(40)]) <= table.size.height
        assert [row.id for row in view.window()] == shown


async def test_a_change_is_one_flush_however_many_there_are(open_console):
    cluster = FakeCluster(many_tasks(2000))
    async with open_console(cluster) as console:
        table = console.table
        syncs = 0
        real = table.sync

        def counted() -> None:
            nonlocal syncs
            syncs += 1
            real()

        table.sync = counted  # type: ignore[method-assign]
        for task_id in list(cluster.records)[:1500]:
            cluster.change(task_id, "cancel_task", status=TaskStatus.CANCELLED)
        await console.settle()
        assert syncs < 30


async def test_sorting_by_keys_and_by_a_click_on_the_header_keeps_the_cursors_task(open_console):
    cluster = FakeCluster(many_tasks(50))
    async with open_console(cluster) as console:
        await console.press("j", "j", "j")
        view, chosen = console.desk.tasks, console.desk.tasks.cursor_id
        await console.press("greater_than_sign")
        assert view.sort == "progress"
        await console.press("less_than_sign", "less_than_sign", "O")
        assert (view.sort, view.descending, view.cursor_id) == ("id", True, chosen)
        layout = [column.id for column, _ in console.table.shown_columns]
        left = 2 + sum(room + 1 for _, room in console.table.shown_columns[: layout.index("state")])
        await console.pilot.click(console.table, offset=(left + 1, 0))
        await wait_until(lambda: view.sort == "state")
        assert view.cursor_id == chosen


async def test_a_click_moves_the_cursor_and_a_double_click_opens(open_console):
    cluster = FakeCluster(many_tasks(50))
    async with open_console(cluster) as console:
        wanted = console.desk.tasks.id_at(4)
        await console.pilot.click(console.table, offset=(10, 5))
        await wait_until(lambda: console.desk.tasks.cursor_id == wanted)
        await console.pilot.click(console.table, offset=(10, 5), times=2)
        await wait_until(lambda: isinstance(console.app.screen, TaskScreen) and console.app.screen.task_id == wanted)


async def test_the_wheel_scrolls_and_leaves_the_cursor_on_its_task(open_console):
    cluster = FakeCluster(many_tasks(200))
    async with open_console(cluster) as console:
        await console.press("j")
        chosen = console.desk.tasks.cursor_id
        console.desk.tasks.scroll(60)
        await console.settle()
        assert console.desk.tasks.cursor_id == chosen
        assert console.desk.tasks.cursor_line is None
        await console.press("k")
        assert console.desk.tasks.cursor_line == 0

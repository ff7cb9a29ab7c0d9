"""Odd text (CJK, combining marks, flags, joiners, controls) in every column and every panel: no line is ever off."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len

from lcq.models import ActRecord, Attempt, DeviceReading, NodeStatus, TaskStatus
from tests.conftest import wait_until
from tests.tui.fakes import FakeCluster, a_failure, a_node, a_task, now_ms
from tui.columns import ACT_COLUMNS, CAUSE_COLUMNS, NODE_COLUMNS, QUEUE_COLUMNS, TASK_COLUMNS, TASK_MORE, fleet_columns
from tui.screens.cause import CauseScreen
from tui.screens.detail import TaskScreen
from tui.screens.log import LogScreen
from tui.screens.node import NodeScreen
from tui.screens.queue import QueueScreen
from tui.screens.small import SMALLEST, SizeNote
from tui.store import ActRow, CauseRow, NodeRow, QueueRow, TaskRow
from tui.text import clean, fit

ODD = (
    "写真-東京タワー.png", "naïve cafe\u0301 e\u0301\u0301\u0301\u0301", "👨\u200d👩\u200d👧\u200d👦",
    "\U0001f1e9\U0001f1ea\U0001f3f4\U000e0067\U000e007f", "a\tb\nc\rd", "\x1b]0;owned\x07\x1b[31m", "[red]x[/foo] [b",
    "\u202egnp.exe", "한글 \uff76\uff80 \uff21\uff22", "\ufe0f❤\ufe0f☎\ufe0f", "\U0001f44d\U0001f3fd 1\ufe0f\u20e3",
    "\u0600\u0650\u0651 עברית", "\U0001f9d1\u200d\U0001f680", "\ufffe\ud7ff", "", " ", "٣٤" * 40, "字" * 200,
)  # fmt: skip
texts = st.one_of(st.sampled_from(ODD), st.text(max_size=40))
ROWS = {TaskRow: (*TASK_COLUMNS, *TASK_MORE), NodeRow: (*NODE_COLUMNS, *fleet_columns(lambda node: ODD[2])),
        QueueRow: QUEUE_COLUMNS, CauseRow: CAUSE_COLUMNS, ActRow: ACT_COLUMNS}  # fmt: skip


def a_row(kind: type, text: str) -> object:
    """A row of which every field that may be any text is this one."""
    told = clean(text)
    match kind:
        case _ if kind is TaskRow:
            row = TaskRow(told, TaskStatus.FAILED, 1, told, a_task().priority)
        case _ if kind is NodeRow:
            row = NodeRow(told, NodeStatus.DRAINING)  # type: ignore[assignment]
        case _ if kind is CauseRow:
            row = CauseRow(told, told, told, told, 3, 5)  # type: ignore[assignment]
        case _ if kind is ActRow:
            row = ActRow(told, 5, told, told)  # type: ignore[assignment]
        case _:
            row = QueueRow(told)  # type: ignore[assignment]
    for slot in type(row).__slots__:
        if isinstance(getattr(row, slot), str) and slot not in ("status", "priority", "_haystack"):
            setattr(row, slot, told)
    return row


@pytest.mark.parametrize("kind", ROWS, ids=lambda kind: kind.__name__)
@settings(max_examples=40, deadline=None)
@given(text=texts, width=st.integers(0, 60))
def test_every_cell_of_every_column_is_exactly_as_wide_as_its_column(kind, text, width):
    row = a_row(kind, text)
    for column in ROWS[kind]:
        said, _ = column.cell(row, now_ms())  # type: ignore[arg-type]
        shown = fit(clean(said), width, right=column.right)
        assert cell_len(shown) == width, (column.id, said)
        assert "\x1b" not in shown


def an_odd_cluster(chance: random.Random) -> FakeCluster:
    def odd() -> str:
        return chance.choice(ODD) + chance.choice(ODD)

    reading = DeviceReading(total_mib=10, free_mib=5, busy=0.3, fault=odd(), warm=(odd(), odd()))
    nodes = [
        a_node(f"gpu-{n}", why=odd(), readings={"cpu": reading}, telemetry={"x": odd()}, running=1,
               status=chance.choice(list(NodeStatus)))
        for n in range(2)
    ]  # fmt: skip
    tasks = [
        a_task(f"/p/{odd()}x", status=status, node=chance.choice(("gpu-0", "gpu-1")), why=odd(), stage=odd(),
               task_user_id=f"u{odd()[:40]}", task_job=f"j{odd()[:40]}", task_metadata={"note": odd()},
               failure=a_failure(f"{odd()} broke") if status is TaskStatus.FAILED else None, queue="cpu-light")
        for status in (*TaskStatus, TaskStatus.FAILED)
    ]  # fmt: skip
    cluster = FakeCluster(tasks, nodes)
    cluster.paused["cpu-light"] = odd()
    cluster.audit = [
        ActRecord(id=f"{now_ms()}-{n}", at_ms=now_ms(), act=odd(), actor=odd(), reason=odd(), command=odd(), on=odd())
        for n in range(4)
    ]
    for task in tasks:
        cluster.history[task.id] = [
            Attempt(number=1, node="gpu-0", started_ms=now_ms(), outcome="failed", failure=a_failure(odd()), log=odd())
        ]
    return cluster


async def test_every_line_of_every_screen_is_exactly_as_wide_as_the_terminal(open_console):
    size = (80, 24)
    cluster = an_odd_cluster(random.Random(size[0]))
    async with open_console(cluster, size=size) as console:

        def all_fit() -> None:
            for line in console.lines():
                assert cell_len(line) == size[0], (type(console.app.screen).__name__, line)
                assert "\x1b" not in line

        await console.press("g")
        ways = (
            ("d", TaskScreen), ("l", LogScreen), ("escape", TaskScreen), ("escape", None), ("1", None), ("3", None),
            ("d", QueueScreen), ("escape", None), ("4", None), ("d", NodeScreen), ("escape", None), ("6", None),
            ("5", None),
        )  # fmt: skip
        for key, kind in ways:
            await console.press(key)
            if kind is not None:
                await console.opens(kind)
            await console.settle()
            all_fit()
        await wait_until(lambda: "out_of_memory" in console.text())
        all_fit()
        await console.press("d")
        await console.opens(CauseScreen)
        all_fit()


async def test_a_terminal_too_small_for_any_layout_says_so_also_over_a_question(open_console):
    async with open_console(FakeCluster([a_task()]), size=(80, 24)) as console:
        await console.press("X")
        await wait_until(lambda: console.app.screen.is_modal)
        question = console.app.screen
        for size in ((40, 11), (200, 10), (1, 1)):
            await console.pilot.resize_terminal(*size)
            await wait_until(lambda: isinstance(console.app.screen, SizeNote), what=f"the note at {size}")
            await console.pilot.pause()
            assert {cell_len(line) for line in console.lines()} == {size[0]}
            await console.press("y")  # what cannot be seen is not answered
        assert console.cluster.calls == []
        await console.pilot.resize_terminal(*SMALLEST)
        await wait_until(lambda: console.app.screen is question)
        await console.press("escape")
        await wait_until(lambda: not console.app.screen.is_modal)
        assert {cell_len(line) for line in console.lines()} == {SMALLEST[0]}
        assert "QUEUED" in console.text()

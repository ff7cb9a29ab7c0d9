"""All about a node, a queue and a cause: what they say, their plots, their keys, and the ways from one to another."""

from __future__ import annotations

import pytest

from lcq.models import DeviceReading, DeviceSample, MinuteTally, NodeStatus, TaskStatus
from tests.conftest import wait_until
from tests.tui.fakes import FakeCluster, a_failure, a_node, a_task, now_ms
from tests.tui.test_commands import check_keys
from tui.screens.cause import CauseScreen, trend
from tui.screens.log import LogScreen
from tui.screens.node import NodeScreen, left_ms
from tui.screens.queue import QueueScreen
from tui.store import TaskRow, task_row
from tui.text import cells


def a_running_task(image: str, *, progress: float, took_ms: int = 60_000) -> TaskRow:
    return task_row(
        a_task(image, status=TaskStatus.PROCESSING, node="gpu-1", progress=progress, started_ms=now_ms() - took_ms)
    )


def test_what_is_left_of_a_task_goes_by_its_own_pace():
    now = now_ms()
    half = a_running_task("/p/a.jpg", progress=0.25)
    assert left_ms(half, now) == pytest.approx(180_000, rel=0.05)
    assert left_ms(a_running_task("/p/b.jpg", progress=0.0), now) is None
    assert left_ms(task_row(a_task()), now) is None


def test_a_trend_counts_failures_by_minute_and_leaves_out_what_is_older_than_an_hour():
    now = now_ms()
    ages = (1, 30, 61, 59 * 60, 61 * 60)
    tasks = [task_row(a_task(status=TaskStatus.FAILED, finished_ms=now - age * 1000)) for age in ages]
    values = trend(tasks, now).series[0].values
    assert (len(values), values[0], values[-1], values[-2], sum(v or 0 for v in values)) == (60, 1, 2, 1, 4)


def a_cluster() -> FakeCluster:
    reading = DeviceReading(total_mib=8192, free_mib=2048, busy=0.87, temperature_c=83, power_w=240, warm=("lama",))
    node = a_node(
        "gpu-1", status=NodeStatus.DRAINING, running=2, why="maria: new driver", readings={"cpu": reading},
        hand_back_ms=now_ms() + 600_000,
    )  # fmt: skip
    tasks = [
        a_task("/p/写真.tif", status=TaskStatus.PROCESSING, node="gpu-1", progress=0.5, started_ms=now_ms() - 60_000),
        a_task("/p/b.tif", status=TaskStatus.PROCESSING, node="gpu-1", started_ms=now_ms()),
        a_task("/p/c.tif", status=TaskStatus.FAILED, node="gpu-1", failure=a_failure("[red] broke"),
               finished_ms=now_ms()),
        a_task("/p/d.tif", submitted_ms=now_ms() - 900_000),
    ]  # fmt: skip
    cluster = FakeCluster(tasks, [node, a_node("gpu-2")])
    minute = now_ms() // 60_000
    cluster.tallies = [
        MinuteTally(minute=minute - ago, waiting_in={"cpu-light": 60 - ago}, completed_in={"cpu-light": 3})
        for ago in range(59, -1, -1)
    ]
    cluster.samples["gpu-1"] = {
        "cpu": tuple(
            DeviceSample(at_ms=now_ms() - age * 30_000, busy=0.5, used_mib=4096, total_mib=8192)
            for age in range(100, 0, -1)
        )
    }
    return cluster


@pytest.mark.parametrize("size", [(120, 40), (80, 24), (60, 15)])
async def test_a_node_tells_its_devices_its_tasks_and_how_its_drain_goes(open_console, size):
    cluster = a_cluster()
    async with open_console(cluster, size=size) as console:
        await console.press("4", "g", "d")
        await console.opens(NodeScreen)
        screen = console.app.screen
        assert isinstance(screen, NodeScreen)
        check_keys(console.app, screen)
        await wait_until(lambda: any("⠀" < char <= "⣿" for char in console.text()), what="the plots of its devices")
        assert {cells(line) for line in console.lines()} == {size[0]}
        said = {name: str(section.content) for name, section in screen._sections.items()}
        assert "~ DRAINING  gpu-1" in said["head"]
        assert "2 tasks" in said["drain"]
        assert "1m0" in said["drain"]
        assert "1 of which nothing is known yet" in " ".join(said["drain"].split())
        assert "hands back" in said["drain"]
        assert "写真.tif" in said["tasks"]
        assert ("[red] broke" if size[0] == 120 else "c.tif") in said["failed"]
        facts = str(screen._panes[0].facts.content)
        assert "busy 87%" in facts
        assert "memory 6.0 of 8.0 GiB" in facts
        assert "83 C   240 W" in facts
        assert "loaded: lama" in facts
        assert ("\n" in facts) == (size[0] < 120), "what does not fit goes on below, and is not torn apart"
        if size[0] == 120:
            await console.press("l")
            await console.opens(LogScreen)
            await console.press("escape", "right_curly_bracket")
            await wait_until(lambda: "gpu-2" in str(screen._sections["head"].content))
            assert str(screen._sections["drain"].content) == ""
            await console.press("enter")
            await wait_until(lambda: console.desk.tasks.filter.text == "node:gpu-2")


async def test_a_queue_tells_its_hour_who_serves_it_and_what_waits(open_console):
    async with open_console(a_cluster(), size=(80, 24)) as console:
        await wait_until(lambda: len(console.desk.store.minutes) == 60)
        await console.press("3", "G", "k", "d")
        await console.opens(QueueScreen)
        screen = console.app.screen
        assert isinstance(screen, QueueScreen)
        assert screen.row_id == "cpu-light"
        await wait_until(lambda: any("⠀" < char <= "⣿" for char in console.text()), what="the queue's plots")
        said = {name: str(section.content) for name, section in screen._sections.items()}
        assert "2 processing" in said["head"]
        assert "gpu-1" in said["served"]
        assert "DRAINING" in said["served"]
        assert "d.tif" in said["waiting"]
        assert "写真.tif" in said["running"]
        assert {cells(line) for line in console.lines()} == {80}


async def test_a_cause_tells_its_trend_and_what_its_tasks_have_in_common(open_console):
    async with open_console(a_cluster(), size=(80, 24)) as console:
        await console.press("5")
        await wait_until(lambda: "out_of_memory" in console.text())
        await console.press("d")
        await console.opens(CauseScreen)
        screen = console.app.screen
        assert isinstance(screen, CauseScreen)
        check_keys(console.app, screen)
        await wait_until(lambda: "1 task in the last hour" in console.text())
        said = {name: str(section.content) for name, section in screen._sections.items()}
        assert "x out_of_memory" in said["head"]
        assert "[red] broke" in said["head"]
        assert "gpu-1 (1)" in said["common"]
        assert "c.tif" in said["tasks"]
        await console.press("enter")
        await wait_until(lambda: console.desk.tasks.filter.text == "state:failed cause=out_of_memory")

"""What walking the console by every key has found: keys that did nothing without a word, words that were not so."""

from __future__ import annotations

import asyncio
import re

import pytest

from lcq.models import Device, DeviceKind, DeviceReading
from tests.conftest import wait_until
from tests.tui.fakes import FakeCluster, a_failure, a_node, a_task
from tui.columns import TASK_COLUMNS, lay_out
from tui.commands import Scope, commands_of
from tui.store import node_row
from tui.text import cells
from tui.widgets.devices import bar

_BY_VIEW = {"2": Scope.TASKS, "3": Scope.QUEUES, "4": Scope.NODES, "5": Scope.CAUSES, "6": Scope.ACTIVITY,
            "8": Scope.SCHEDULES, "9": Scope.KEYS}  # fmt: skip
_NEEDS_NO_ROW = ("submit", "group_causes")


async def test_where_there_is_no_row_each_key_that_needs_one_says_so(open_console):
    async with open_console(FakeCluster()) as console:
        for view, scope in _BY_VIEW.items():
            await console.press(view)
            screen = console.app.screen
            console.desk.store.queues.replace(())
            for command in commands_of(scope):
                if command.id in _NEEDS_NO_ROW:
                    continue
                console.desk.say("-")
                await screen.run_action(command.id)
                await wait_until(lambda: console.desk.said.text != "-", what=f"a word on {command.id} in {view}")
                assert "nothing to do" in console.desk.said.text
                assert console.app.screen is screen


async def test_no_view_says_that_there_is_nothing_before_the_cluster_has_said_so(open_console, monkeypatch):
    cluster = FakeCluster([a_task(status="failed", failure=a_failure())])
    answers = asyncio.Event()

    async def dead(*_, real=cluster.dead, **__):
        await answers.wait()
        return await real()

    monkeypatch.setattr(cluster, "dead", dead)
    async with open_console(cluster) as console:
        await console.press("5")
        await wait_until(lambda: "5 Causes" in console.text())
        assert "reading the cluster" in console.text()
        assert "no task has failed" not in console.text()
        assert "0 causes" not in console.text()
        answers.set()
        await wait_until(lambda: "1 cause   1 failed task" in console.text())


def test_a_column_of_names_is_no_wider_than_the_longest_and_others_have_the_rest():
    plain = {column.id: width for column, width in lay_out(TASK_COLUMNS, 117)}
    fitted = {column.id: width for column, width in lay_out(TASK_COLUMNS, 117, {"node": 6, "queue": 8})}
    assert (fitted["node"], fitted["queue"]) == (6, 8)
    assert fitted["image"] > plain["image"]
    assert set(fitted) == set(plain), "none comes and goes with names"
    assert sum(fitted.values()) + len(fitted) - 1 == 117
    longer = {column.id: width for column, width in lay_out(TASK_COLUMNS, 117, {"node": 60, "queue": 60})}
    assert {name: longer[name] for name in ("node", "queue")} == {name: plain[name] for name in ("node", "queue")}
    head = {column.id: column for column in TASK_COLUMNS}["queue"].title
    assert {c.id: w for c, w in lay_out(TASK_COLUMNS, 117, {"queue": 1})}["queue"] > cells(head)


def test_a_nodes_gpus_are_called_as_its_settings_call_them_and_not_by_serial_numbers():
    gpus = [Device(id=f"GPU-{n}7c1-44", kind=DeviceKind.GPU, name="RTX", slots=1, vram_mib=8000) for n in "ba"]
    record = a_node()
    capability = record.capability.model_copy(update={"devices": (*record.capability.devices, *gpus)})
    readings = {one.id: DeviceReading(busy=0.5) for one in (*gpus, record.capability.devices[0])}
    row = node_row(record.model_copy(update={"capability": capability, "readings": readings}))
    assert [name for name, _ in row.load][:3] == ["cpu", "gpu0", "gpu1"]


@pytest.mark.parametrize(
    ("share", "drawn"), [(0, "··········"), (1, "━━━━━━━━━━"), (0.56, "━━━━━╸····"), (7, "━" * 10)]
)
def test_a_bar_is_filled_to_half_a_cell(share, drawn):
    assert bar(share) == drawn


async def test_the_fleet_shows_every_device_below_its_nodes_where_there_is_room(open_console):
    gpus = [Device(id=f"GPU-{n}7c1-44", kind=DeviceKind.GPU, name="RTX", slots=1, vram_mib=8000) for n in "ba"]
    record = a_node("gpu-01")
    capability = record.capability.model_copy(update={"devices": tuple(gpus)})
    told = DeviceReading(busy=0.5, total_mib=8192, free_mib=2048, temperature_c=90, power_w=300)
    node = record.model_copy(update={"capability": capability, "readings": {one.id: told for one in gpus}})
    async with open_console(FakeCluster((), [node, a_node("gone", status="offline")])) as console:
        await console.press("1")
        line = r"gpu-01 gpu1 .*━━━━━····· +50% .*━━━━━━━╸··.* 6.0/8.0G .*90 C .*300 W"
        await wait_until(lambda: re.search(line, console.text()), what="a line on each GPU")
        assert not re.search("gone (cpu|gpu)", console.text()), "what a node that is gone said last is no news"
        await console.pilot.resize_terminal(80, 14)
        await wait_until(lambda: "gpu1 " not in console.text(), what="the nodes to have the room")

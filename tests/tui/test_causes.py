"""Causes: told apart by what is chosen, and what their tasks are found by."""

from __future__ import annotations

import pytest
from textual.widgets import OptionList

from lcq.models import TaskStatus
from tests.conftest import wait_until
from tests.tui.fakes import FakeCluster, a_failure, a_task
from tui.screens.cause import CauseScreen
from tui.screens.causes import died_of, where_of
from tui.screens.detail import TaskScreen
from tui.screens.dialogs import Chooser
from tui.screens.tasks import TasksScreen
from tui.store import CauseRow, Store, task_row


def a_failed(image: str, **more: object):
    values = {"failure": a_failure("tried to allocate 9 GiB"), "node": "gpu-1", "size": (3000, 2000)} | more
    return a_task(image, status=TaskStatus.FAILED, **values)


async def test_b_tells_causes_apart_and_acts_and_links_mean_just_that_group(open_console):
    ours = a_failed("/p/1.jpg", size=(6000, 4000))
    cluster = FakeCluster([a_failed("/p/0.jpg"), ours, a_failed("/p/2.jpg", node="gpu-2", size=None)])
    async with open_console(cluster, size=(80, 24)) as console:
        await console.press("5")
        await wait_until(lambda: len(console.desk.causes) == 1)
        await console.press("b")
        await console.opens(Chooser)
        listed = console.app.screen.query_one(OptionList)
        listed.highlighted = [one.value for one in console.app.screen._choices].index(("by", "node,size"))
        await console.press("enter")
        await wait_until(lambda: len(console.desk.causes) == 3)
        await wait_until(lambda: "by error, node, size" in console.text() and "gpu-2 ?" in console.text())
        row = next(row for row in console.desk.causes.rows() if ("size", ">16MP") in row.of)
        console.desk.causes.move_to(console.desk.causes.index_of(row.id))
        await console.press("r")
        await wait_until(lambda: "Retry 1 task" in console.text())
        await console.press("n", "d")
        await wait_until(lambda: isinstance(console.app.screen, CauseScreen) and ">16MP" in console.text())
        await console.press("enter")
        await wait_until(lambda: [task.id for task in console.desk.tasks.rows()] == [ours.id])
        assert console.desk.tasks.filter.text == "state:failed cause=out_of_memory node=gpu-1 size>=16"


def a_cause(text: str, *of: tuple[str, str]) -> CauseRow:
    return CauseRow(f"oom: {text} {of}", "oom", "resource", text, 1, 5, of=of)


@pytest.mark.parametrize(
    ("row", "where"),
    [
        (a_cause("tried to allocate <n> GiB, <n> GiB free"), 'error:"tried to allocate"'),
        (a_cause("host memory is gone"), 'error:"host memory is gone"'),
        (a_cause("<n>"), ""),
        (a_cause("host memory is gone", ("model", "my \"lama\""), ("node", ""), ("size", "")),
         """error:"host memory is gone" model='my "lama"' node= -size>=0"""),
    ],
)  # fmt: skip
def test_its_tasks_are_found_by_what_tells_it_from_others_of_its_code(row, where):
    store = Store()
    store.causes.replace([row, a_cause("GiB free <n>"), a_cause("<n> of <n>")])
    assert where_of(row, store) == f"state:failed cause=oom {where}".rstrip()
    store.causes.replace([row])
    assert "error:" not in where_of(row, store), "one of a code is found by that"


def test_a_task_is_of_a_group_by_all_that_tells_it_apart():
    task = task_row(a_failed("/p/0.jpg", failure=a_failure("gone", "oom")))
    assert died_of(task, a_cause("gone", ("model", task.model), ("node", "gpu-1"), ("size", "4-16MP")))
    for other in (("model", "mat"), ("node", ""), ("size", "<1MP")):
        assert not died_of(task, a_cause("gone", other))


async def test_the_tasks_of_a_cause_are_seen_also_where_the_details_of_one_were_open(open_console):
    cluster = FakeCluster([a_failed("/p/0.jpg"), a_task("/p/1.jpg")])
    async with open_console(cluster, size=(80, 24)) as console:
        await console.press("2", "enter")
        await console.opens(TaskScreen)
        await console.press("5")
        await wait_until(lambda: len(console.desk.causes) == 1)
        await console.press("enter")
        await wait_until(lambda: isinstance(console.app.screen, TasksScreen) and len(console.desk.tasks) == 1)

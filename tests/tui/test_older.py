"""More tasks than the console holds: what fits the filter is looked for beyond them, and always said how far."""

from __future__ import annotations

import pytest

from lcq.errors import InvalidInput, SchedulerUnreachable
from lcq.models import ActRecord, TaskStatus
from tests.conftest import wait_until
from tests.tui.fakes import FakeCluster, many_tasks
from tui import older
from tui.commands import Scope
from tui.desk import Desk
from tui.line import Scene, understand
from tui.screens.command_line import CommandLine
from tui.screens.detail import TaskScreen


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> FakeCluster:
    """Sixty tasks, ten of each state in turn; the window holds the newest twelve of them."""
    monkeypatch.setattr("tui.source.WINDOW", 12)
    monkeypatch.setattr(older, "LOOK_S", 0.01)
    return FakeCluster(many_tasks(60))


async def test_what_fits_the_filter_is_looked_for_beyond_the_window(open_console, cluster):
    async with open_console(cluster) as console:
        console.app.screen.set_filter_text("state:failed")
        await wait_until(lambda: len(console.desk.tasks) == 10)
        await wait_until(lambda: "older: 8 fit (all looked at)" in console.text())
        assert "newest of 60" in console.text()
        assert "[failed 10]" in console.text(), "the counts are the cluster's"
        console.app.screen.set_filter_text("000003.jpg")
        await wait_until(lambda: "older: 1 fit" in console.text() and "000003.jpg" in console.text())
        old = "0000000000000003"
        cluster.change(old, "retry_task", status=TaskStatus.QUEUED)
        await console.settle()
        assert console.desk.store.tasks.rows[old].status is TaskStatus.QUEUED, "it is followed like any other"


async def test_the_list_goes_on_beyond_the_window_as_one_comes_to_its_end(open_console, cluster):
    async with open_console(cluster, size=(100, 14)) as console:
        await console.press("g")
        for _ in range(12):
            await console.press("G")
            if len(console.desk.tasks) == 60:
                break
            await wait_until(lambda: console.desk.tasks.top + 2 * console.desk.tasks.height <= len(console.desk.tasks)
                             or len(console.desk.tasks) == 60)  # fmt: skip
        assert len(console.desk.tasks) == 60
        await console.press("G")
        await wait_until(lambda: "000000.jpg" in console.text())
        assert console.desk.store.beyond == 0


async def test_it_is_said_where_it_was_cut_and_that_nobody_can_be_asked(open_console, cluster, monkeypatch):
    monkeypatch.setattr(older, "MOST", 5)
    async with open_console(cluster) as console:
        console.app.screen.set_filter_text("state:done|failed")
        await wait_until(lambda: "(cut at " in console.text())
        assert len(console.desk.tasks) < 20
        cluster.act_trouble = SchedulerUnreachable("tcp://gpu-1:5571", 4.0)
        console.desk.feed.refetch()
        await wait_until(lambda: "older ones cannot be asked for" in console.text())


async def test_a_task_that_an_act_names_is_fetched_from_beyond_the_window_and_only_a_lost_one_is_forgotten(
    open_console, cluster, monkeypatch
):
    monkeypatch.setattr("tui.source.WINDOW", 40)  # more than two screens of them: nobody asks for others unfiltered
    old, gone = "0000000000000003", "0" * 16
    del cluster.records[gone]
    cluster.audit = [ActRecord(id="1-1", at_ms=1, act="retry", actor="ivo", command="c", on=f"ids={old}")]
    async with open_console(cluster, size=(80, 24)) as console:
        before = console.desk.store.beyond
        await console.press("6")
        await wait_until(lambda: console.desk.acts.cursor is not None)
        await console.press("enter")
        await wait_until(lambda: "000003.jpg" in console.text())
        assert console.desk.store.beyond == before - 1
        await console.press("escape")
        cluster.audit = [ActRecord(id="2-1", at_ms=2, act="retry", actor="ivo", command="c", on=f"ids={gone}")]
        await wait_until(lambda: (row := console.desk.acts.cursor) is not None and row.id == "2-1")
        await console.press("enter")
        await wait_until(lambda: "the cluster has forgotten it" in console.text())


async def test_any_task_is_opened_by_how_its_id_begins(open_console, cluster, monkeypatch):
    monkeypatch.setattr("tui.source.WINDOW", 40)
    async with open_console(cluster, size=(80, 24)) as console:
        for line, said in (
            ("000000000000000z", "no task 000000000000000z: there never was one"),
            ("00000000000000", "fits several"),
            ("O000000000000003", "000003.jpg"),
        ):
            before = console.desk.store.beyond
            await console.press("colon")
            await console.opens(CommandLine)
            console.app.screen.query_one("#command").value = f"task {line}"
            await console.press("enter")
            await wait_until(lambda said=said: said in console.text(), what=said)
        assert isinstance(console.app.screen, TaskScreen)
        await wait_until(lambda: "0000000000000003" in console.desk.store.tasks.rows)
        assert console.desk.store.beyond == before - 1


async def test_an_act_on_ids_of_which_one_is_beyond_the_window_means_just_those(cluster):
    desk = Desk(cluster, cluster)
    desk.store.load(await cluster.snapshot(12))
    desk.flush()
    new, old = "0000000000000059", "0000000000000003"
    scene = Scene(desk, (Scope.EVERYWHERE, Scope.TABLE, Scope.TASKS))
    assert understand(f"retry {new} {old}", scene).where == f"id={new}|{old}"
    with pytest.raises(InvalidInput, match="no id"):
        understand("task what?", scene)

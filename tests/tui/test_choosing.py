"""Ways to look, by keys: states, what needs attention, order, columns, saved views; and rows that are taken away."""

from __future__ import annotations

import json

from textual.widgets import Input

from lcq.models import NodeStatus, TaskStatus
from tests.conftest import wait_until
from tests.tui.fakes import FakeCluster, a_failure, a_node, a_task, now_ms
from tui.screens.choose import AskLine, ColumnsPanel, ViewsPanel
from tui.screens.dialogs import Chooser, Question
from tui.screens.nodes import NodesScreen
from tui.screens.tasks import TasksScreen


def a_cluster() -> FakeCluster:
    start = now_ms() - 60_000
    tasks = [a_task(f"/photos/{number}.jpg", submitted_ms=start + number) for number in range(3)]
    tasks.append(a_task("/photos/bad.jpg", status=TaskStatus.FAILED, failure=a_failure(), submitted_ms=start))
    return FakeCluster(tasks, [a_node("gpu-1"), a_node("gpu-2", status=NodeStatus.OFFLINE)])


async def test_states_are_gone_through_by_tab_and_what_needs_attention_shows_by_one_key(open_console):
    async with open_console(a_cluster()) as console:
        await console.press("slash", *"photos", "enter", "tab")
        assert console.desk.tasks.filter.text == "photos state:pending"
        await console.press("shift+tab", "exclamation_mark")
        assert console.desk.tasks.filter.text == "photos needs:attention"
        assert "1 of 4" in console.text()
        await console.press("exclamation_mark")
        assert len(console.desk.tasks) == 4
        await console.press("4", "exclamation_mark")
        assert [row.id for row in console.desk.nodes.rows()] == ["gpu-2"]


async def test_columns_and_order_are_chosen_and_kept_with_the_filter_under_a_name(open_console):
    async with open_console(a_cluster(), size=(160, 40)) as console:
        await console.press("C")
        await console.opens(ColumnsPanel)
        await console.press("down", "space", "end", "space", "K", "enter")  # no AGE; LAST ERROR, and not as the last
        await console.opens(TasksScreen)
        chosen = console.table.chosen
        assert chosen is not None
        assert "age" not in chosen
        assert "error" in chosen
        await console.press("o")
        await console.opens(Chooser)
        await console.press("down", "enter")
        await wait_until(lambda: console.desk.tasks.sort == "id")
        await console.press("exclamation_mark", "apostrophe")
        await console.opens(ViewsPanel)
        await console.press("s")
        await console.opens(AskLine)
        await console.press(*"bad", "enter")
        await wait_until(lambda: isinstance(console.app.screen, ViewsPanel) and "bad " in console.text())
        await console.press("escape", "exclamation_mark", "4")
        console.table.choose(None)
        await console.press("apostrophe")
        await console.opens(ViewsPanel)
        await console.press("enter")  # the first: the one just saved
        await wait_until(lambda: isinstance(console.app.screen, TasksScreen) and len(console.desk.tasks) == 1)
        assert (console.table.chosen, console.desk.tasks.sort) == (chosen, "id")
        await console.press("apostrophe")
        await console.opens(ViewsPanel)
        await console.press("D")
        await console.opens(Question)
        await console.press("y")
        await wait_until(lambda: all(view.shipped for view in console.desk.saved.all))


async def test_a_shipped_view_of_the_nodes_leads_there(open_console):
    async with open_console(a_cluster()) as console:
        await console.press("apostrophe")
        await console.opens(ViewsPanel)
        await console.press("end", "up", "enter")
        await wait_until(lambda: isinstance(console.app.screen, NodesScreen) and len(console.desk.nodes) == 1)
        await console.press("colon", *"view waits longest", "enter")
        await console.opens(TasksScreen)
        await wait_until(lambda: console.desk.tasks.filter.text == "state:waiting")


async def test_sideways_the_hidden_columns_come_into_sight_beside_the_id(open_console):
    async with open_console(a_cluster(), size=(60, 20)) as console:
        assert "IMAGE" not in console.text()
        await console.press("w", *["shift+right"] * 8)
        assert "IMAGE" in console.text()
        assert "bad.jpg" in console.text()
        assert console.table.shown_columns[0][0].id == "id"
        await console.press("w")
        assert "AGE" in console.text()


async def test_rows_are_copied_and_saved_and_no_file_is_overwritten_unasked(open_console, tmp_path, monkeypatch):
    sent: list[str] = []
    path = tmp_path / "rows.json"
    async with open_console(a_cluster()) as console:
        monkeypatch.setattr(console.app, "copy_to_clipboard", sent.append)
        await console.press("g", "Y")
        await wait_until(lambda: sent)
        assert json.loads(sent[0])["id"] == console.desk.tasks.cursor_id
        for answer in ("", "n", "y"):
            await console.press("S")
            await console.opens(AskLine)
            console.app.screen.query_one(Input).value = str(path)
            await console.press("enter")
            if answer:
                await console.opens(Question)
                await console.press(answer)
            await wait_until(lambda: str(path) in (console.desk.said.text if console.desk.said else ""))
            told = json.loads(path.read_text())
            assert len(told) == (1 if answer == "y" else 4), answer
            assert console.desk.said is not None
            assert answer != "n" or "left as it is" in console.desk.said.text
            console.desk.say("")
            if answer == "n":
                await console.press("space")  # what is marked is what is meant


async def test_where_words_and_numbers_have_no_room_states_without_tasks_go_first(open_console):
    start = now_ms() - 60_000
    done = [a_task(f"/p/{number}.jpg", status=TaskStatus.COMPLETED, submitted_ms=start) for number in range(240)]
    async with open_console(FakeCluster(done), size=(80, 24)) as console:
        await wait_until(lambda: "[all 240] completed 240" in console.text())
        await console.press("slash", *"state:failed", "enter")
        await wait_until(lambda: "completed 240 [failed 0]" in " ".join(console.text().split()))

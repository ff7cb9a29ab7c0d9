"""Tasks done again with something changed: what differs, which go themselves, and which new ones are made."""

from __future__ import annotations

from typing import Any

import pytest
from textual.widgets import Input, Select

from lcq.changing import AGAIN_OF, Changes, changed, differences, parameters_of, read_parameters
from lcq.errors import InvalidInput, NothingToUndo
from lcq.models import TaskPriority, TaskRecord, TaskStatus
from lcq.wire import BulkAnswer, Refusal
from tests.conftest import wait_until
from tests.tui.fakes import FakeCluster, a_failure, a_node, a_task
from tui import acts
from tui.changing import again
from tui.screens.forms import ChangeForm
from tui.screens.tasks import TasksScreen

FAILED, DONE = TaskStatus.FAILED, TaskStatus.COMPLETED


def a_record(status: TaskStatus = FAILED, **more: Any) -> TaskRecord:
    config = {"model": "lama", "radius": 5, "format": "png", "steps": [1, 2], "soft": True}
    return a_task("/p/1.jpg", status=status, **({"task_config": config, "task_mask_path": "/p/1_mask.png"} | more))


async def done_by(act: Any, *records: TaskRecord) -> FakeCluster:
    cluster = FakeCluster(records, [a_node()])
    await act.run(cluster, "why")
    return cluster


def test_parameters_are_typed_as_they_are_shown_and_come_back_as_they_were():
    task = a_record().task
    text = parameters_of(task)
    assert text == "radius=5 format=png steps=[1,2] soft=true"
    assert {"model": "lama", **read_parameters(text)} == task.model_dump(mode="json")["config"]


@pytest.mark.parametrize("typed", ["radius", "=5", "radius 5", "x=[1"])
def test_what_is_no_parameter_is_told(typed):
    with pytest.raises(InvalidInput):
        read_parameters(typed)


async def test_with_another_place_alone_the_same_tasks_go_with_the_revisions_seen():
    failed, done, waits = a_record(), a_record(DONE), a_record(TaskStatus.QUEUED)
    act = again([failed, done, waits], Changes(queue="gpu-low"))
    assert act.ids == (failed.id, done.id)
    assert act.skipped == "cannot be retried: 1 queued"
    cluster = await done_by(act, failed, done, waits)
    assert cluster.calls[:2] == [("reroute", ((failed.id,), "gpu-low", "")), ("retry", (done.id,))]
    assert cluster.calls[2] == ("reroute", ((done.id,), "gpu-low", "")), "what was completed moves once it is open"
    assert set(cluster.reasons_given) == {"why"}


async def test_another_priority_is_set_after_the_retry_and_only_where_it_is_another():
    low, high = a_record(), a_record().model_copy(update={"priority": TaskPriority.HIGH})
    cluster = await done_by(again([low, high], Changes(priority=TaskPriority.HIGH)), low, high)
    assert cluster.calls == [("retry", (low.id, high.id)), ("prioritise", ((low.id,), TaskPriority.HIGH))]


async def test_what_was_done_in_several_moves_is_taken_back_in_all_of_them_the_last_first():
    done = a_record(DONE)
    cluster = FakeCluster([done], [a_node()])
    answer = await again([done], Changes(queue="gpu-low", priority=TaskPriority.HIGH)).run(cluster, "why")
    assert [name for name, _ in cluster.calls] == ["retry", "reroute", "prioritise"]
    assert len(answer.acts) == 3
    taken = await acts.undo("Retry it", ("retry it", "move it", "raise it")).run(cluster, "")
    assert [told for _, told in cluster.calls[3:]] == ["raise it", "move it", "retry it"]
    assert taken.done == ("retry it", "move it", "raise it")[::-1]


async def test_what_cannot_be_taken_back_whole_says_what_of_it_was_not():
    class HalfWay(FakeCluster):
        async def undo(self, act: str) -> BulkAnswer:
            if act == "late":
                raise NothingToUndo(act)
            if act == "retry":
                refused = tuple(Refusal(id=one, code="transition_refused", message="it has moved on") for one in "ab")
                return BulkAnswer(done=("c",), refused=refused)
            return BulkAnswer(done=("a", "c"), refused=(Refusal(id="b", code="x", message="it runs"),))

    act = acts.undo("Retry 3 tasks", ("late", "retry", "move"))
    answer = await act.run(HalfWay([], []), "")
    assert answer.done == ("c",)
    assert {one.id: one.message for one in answer.refused} == {
        "b": "it runs",
        "a": "only its last change is taken back, what was done before is not: it has moved on",
        "late": NothingToUndo("late").message,
    }
    with pytest.raises(NothingToUndo):
        await acts.undo("Retry 1 task", ("late",)).run(HalfWay([], []), "")


async def test_another_model_makes_new_tasks_that_say_whose_they_are_and_the_old_ones_stay():
    record = a_record()
    changes = Changes(model="mat", parameters={"radius": 9}, timeout_s=60.0, node="gpu-1")
    act = again([record], changes)
    cluster = await done_by(act, record)
    (name, (tasks, queue, node)) = cluster.calls[0]
    assert (name, queue, node) == ("submit_many", "", "gpu-1")
    (task,) = tasks
    assert dict(task.config) == {"radius": 9, "model": "mat"}
    assert (task.timeout_s, task.mask_path, task.image_path) == (60.0, "/p/1_mask.png", "/p/1.jpg")
    assert task.metadata[AGAIN_OF] == record.id
    assert task.id != record.id
    assert cluster.records[record.id] == record


def test_what_differs_is_told_and_what_does_not_is_not():
    one, other = a_record(), a_record(task_timeout_s=60.0)
    changes = Changes(model="mat", timeout_s=30.0, priority=TaskPriority.NORMAL, mask="", queue="gpu-low")
    assert differences([one, other], changes) == [
        "model lama -> mat", "time-out as each has it -> 30", "mask /p/1_mask.png -> none",
        "place cpu-light -> gpu-low",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "changes", [Changes(model="no such [model]"), Changes(max_retries=1000), Changes(timeout_s=-1.0)]
)
def test_what_cannot_be_a_task_is_told_before_anything_is_sent(changes):
    with pytest.raises(InvalidInput):
        changed(a_record().task, changes)


# ---------------------------------------------------------------- the forms


async def form_of(console: Any) -> ChangeForm:
    await console.opens(ChangeForm)
    screen = console.app.screen
    assert isinstance(screen, ChangeForm)
    return screen


async def test_r_capital_opens_a_filled_form_says_what_differs_and_retries_so(open_console):
    record = a_record(failure=a_failure())
    cluster = FakeCluster([record], [a_node()])
    async with open_console(cluster) as console:
        await console.press("j", "R")
        form = await form_of(console)
        assert form.query_one("#model", Input).value == "lama"
        assert form.query_one("#parameters", Input).value == "radius=5 format=png steps=[1,2] soft=true"
        form.query_one("#place", Select).value = "node gpu-1"
        await wait_until(lambda: "the same task; place cpu-light -> gpu-1" in " ".join(console.text().split()))
        form.query_one("#timeout", Input).value = "soon"
        await wait_until(lambda: "length of time" in console.text())
        form.query_one("#timeout", Input).focus()
        await console.press("enter")
        assert isinstance(console.app.screen, ChangeForm)
        assert cluster.calls == []
        form.query_one("#timeout", Input).value = "600"
        await console.press("enter")
        await wait_until(lambda: cluster.calls == [("reroute", ((record.id,), "", "gpu-1"))])


async def test_r_capital_on_what_waits_says_in_the_form_that_nothing_can_be_done(open_console):
    async with open_console(FakeCluster([a_task()], [a_node()])) as console:
        await console.press("g", "R")
        await form_of(console)
        await wait_until(lambda: "nothing to do: cannot be retried: 1 queued" in console.text())


async def test_e_submits_an_edited_task_anew_with_other_files(open_console, tmp_path):
    cluster = FakeCluster([a_record(DONE)], [a_node()])
    async with open_console(cluster) as console:
        await console.press("j", "e")
        form = await form_of(console)
        form.query_one("#image", Input).value = str(tmp_path / "other.png")
        form.query_one("#mask", Input).value = ""
        await wait_until(lambda: "a new task; the old one stays as it is" in " ".join(console.text().split()))
        form.query_one("#model", Input).focus()
        await console.press("enter")
        await wait_until(lambda: [name for name, _ in cluster.calls] == ["submit_many"])
        task = cluster.calls[0][1][0][0]
        assert (task.image_path, task.mask_path) == (str(tmp_path / "other.png"), None)
        await console.press("e", "escape")
        await console.opens(TasksScreen)

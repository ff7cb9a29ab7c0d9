"""Words for people: comments on tasks, and who knows of which cause; neither gets in anybody's way."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest
import redis

from lcq.client import AsyncClient
from lcq.config import DistributedConfig
from lcq.errors import CauseNotFound, InvalidInput, NothingToUndo, TaskNotFound, TransitionRefused
from lcq.ids import new_id
from lcq.models import TaskStatus
from lcq.scheduler import Scheduler
from lcq.state.manager import StateManager
from lcq.state.moves.notes import ACKS_KEPT, NOTES_KEPT
from tests.audit import audit
from tests.nodes import LIGHT, Node, a_failure, a_task


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lcq.state.scripts.UNDO_KEPT", timedelta(minutes=10))


async def test_a_note_stays_with_its_task_through_whatever_happens_and_gets_in_nobodys_way(
    state: StateManager, eye: redis.Redis
) -> None:
    task = a_task()
    await state.submit_task(task, queue=LIGHT)
    seen = (await state.reader.task(task.id)).revision
    await state.comment_task(task.id, actor="ivo", text="[b]roll back?", command="c1")
    await state.comment_task(task.id, actor="ivo", text="[b]roll back?", command="c1")  # a copy that came late
    await state.cancel_task(task.id, why="by ann", revision=seen, command="c2")  # what ann saw is still so
    await state.comment_task(task.id, actor="ann", text="duplicate")
    await state.undo_task(task.id, of="c2")
    record = await state.reader.task(task.id)
    assert record.status is TaskStatus.QUEUED
    assert [(note.actor, note.text) for note in record.notes] == [("ivo", "[b]roll back?"), ("ann", "duplicate")]
    assert all(note.at_ms > 0 for note in record.notes)
    audit(eye)


async def test_a_note_is_taken_back_also_when_the_task_has_moved_on(state: StateManager, eye: redis.Redis) -> None:
    task = a_task()
    await state.submit_task(task, queue=LIGHT)
    await state.comment_task(task.id, actor="ivo", text="one", command="c1")
    await state.comment_task(task.id, actor="ivo", text="two", command="c2")
    await state.cancel_task(task.id)
    await state.undo_comment(task.id, of="c1", command="u1")
    await state.undo_comment(task.id, of="c1", command="u1")
    assert [note.text for note in (await state.reader.task(task.id)).notes] == ["two"]
    with pytest.raises(NothingToUndo):
        await state.undo_comment(task.id, of="c1")
    await state.undo_comment(task.id, of="c2")
    assert not eye.hexists(f"{{lcq}}:task:{task.id}", "notes")
    audit(eye)


async def test_a_task_keeps_its_newest_notes_and_one_that_is_not_there_none(state: StateManager) -> None:
    task = a_task()
    await state.submit_task(task, queue=LIGHT)
    for number in range(NOTES_KEPT + 3):
        await state.comment_task(task.id, actor="ivo", text=str(number))
    assert [note.text for note in (await state.reader.task(task.id)).notes][:2] == ["3", "4"]
    with pytest.raises(TaskNotFound):
        await state.comment_task(new_id(), actor="ivo", text="?")


@pytest.mark.parametrize("kept", ["", "no json", "[1]", '[{"at_ms": "soon"}]', json.dumps({"a": 1})])
async def test_notes_that_cannot_be_read_cost_a_task_nothing(state: StateManager, eye: redis.Redis, kept: str) -> None:
    task = a_task()
    await state.submit_task(task, queue=LIGHT)
    eye.hset(f"{{lcq}}:task:{task.id}", "notes", kept)
    record = await state.reader.task(task.id)
    assert (record.notes, record.damaged) == ((), "")


async def test_a_cause_is_acknowledged_for_all_to_see_until_that_is_withdrawn(
    state: StateManager, node: Node, eye: redis.Redis
) -> None:
    task = a_task(max_retries=0)
    await state.submit_task(task, queue=LIGHT)
    await node.claim_ids()
    await node.fail(task.id, failure=a_failure(code="out_of_memory"))
    (cause,) = (await state.reader.dead()).causes
    assert cause.acknowledged is None
    assert (cause.models, cause.nodes, cause.sizes) == ((task.model,), (node.id,), ())
    assert (len(cause.trend), cause.trend[-1]) == (12, 1)
    await state.acknowledge_cause(cause.code, cause.text, actor="ivo", note="1.8 again", command="c1")
    (known,) = (await state.reader.dead()).causes
    assert known.acknowledged is not None
    assert (known.acknowledged.actor, known.acknowledged.text) == ("ivo", "1.8 again")
    for number in range(ACKS_KEPT + 2):
        await state.acknowledge_cause(cause.code, str(number), actor="ivo")
    assert eye.hlen("{lcq}:acks") == ACKS_KEPT
    assert not eye.hexists("{lcq}:acks", f"{cause.code}: {cause.text}"), "the oldest goes"
    await state.acknowledge_cause(cause.code, cause.text, actor="ivo")
    await state.acknowledge_cause(cause.code, cause.text, actor="ann", withdraw=True)
    assert (await state.reader.dead()).causes[0].acknowledged is None
    for withdraw in (True, False):
        with pytest.raises(CauseNotFound):
            await state.acknowledge_cause("unheard_of", "x", actor="ann", withdraw=withdraw)
    audit(eye)


async def test_clients_comment_acknowledge_and_take_back_and_the_audit_has_it(redis_url: str) -> None:
    config = DistributedConfig(zeromq={"base_port": 0, "control_port": 0})  # type: ignore[arg-type]
    async with Scheduler(config, redis_url=redis_url) as scheduler:
        address = scheduler.control_endpoint.removeprefix("tcp://")
        async with AsyncClient(DistributedConfig(), scheduler=address, actor="ann", timeout_s=60) as ann:
            one = await ann.submit(a_task())
            missing = new_id()
            answer = await ann.comment([one.id, missing], "check the mask")
            assert answer.done == (one.id,)
            assert [(refusal.id, refusal.code) for refusal in answer.refused] == [(missing, "task_not_found")]
            assert [note.text for note in (await ann.get(one.id)).notes] == ["check the mask"]
            assert "check the mask" in (await ann.acts())[0].on
            assert (await ann.undo(answer.acts[0])).done == (f"comment {one.id}",)
            assert (await ann.get(one.id)).notes == ()
            with pytest.raises(CauseNotFound):
                await ann.acknowledge("out_of_memory", "", note="?")


async def test_causes_are_told_apart_by_model_node_and_size_where_that_is_asked_for(state: StateManager) -> None:
    nodes = [Node(state, f"node-{number}") for number in (1, 2)]
    for node in nodes:
        await node.hello()
    for node, size in ((nodes[0], (3000, 2000)), (nodes[0], None), (nodes[1], (300, 200)), (nodes[1], (3000, 2000))):
        task = a_task(max_retries=0)
        await state.submit_task(task, queue=LIGHT, size=size)
        assert await node.claim_ids() == [task.id]
        await node.fail(task.id, failure=a_failure(code="out_of_memory"))
    (together,) = (await state.reader.dead()).causes
    assert (together.count, together.of) == (4, {})
    by_node = (await state.reader.dead(by=("node",))).causes
    assert [(one.count, one.of) for one in by_node] == [(2, {"node": "node-2"}), (2, {"node": "node-1"})]
    by_all = (await state.reader.dead(by=("size", "model"))).causes
    assert {(one.count, one.of["size"], one.of["model"]) for one in by_all} == {
        (2, "4-16MP", task.model), (1, "", task.model), (1, "<1MP", task.model),
    }  # fmt: skip
    assert {one.text for one in by_all} == {together.text}
    with pytest.raises(InvalidInput, match="not grouped by 'colour'"):
        await state.reader.dead(by=("node", "colour"))


async def test_who_has_acknowledged_a_cause_takes_just_that_back_unless_somebody_has_spoken_since(
    state: StateManager, node: Node, eye: redis.Redis
) -> None:
    task = a_task(max_retries=0)
    await state.submit_task(task, queue=LIGHT)
    await node.claim_ids()
    await node.fail(task.id, failure=a_failure(code="out_of_memory"))
    (cause,) = (await state.reader.dead()).causes
    name = f"{cause.code}: {cause.text}"

    async def told() -> str:
        known = (await state.reader.dead()).causes[0].acknowledged
        return f"{known.actor}: {known.text}" if known is not None else ""

    await state.acknowledge_cause(cause.code, cause.text, actor="ivo", note="mine", command="c1")
    await state.acknowledge_cause(cause.code, cause.text, actor="ann", note="no, mine", command="c2")
    assert await state.reader.acts.undoable("c2") == (f"cause {name}",)
    with pytest.raises(TransitionRefused, match="known to ann"):
        await state.undo_acknowledgement(name, of="c1")
    await state.undo_acknowledgement(name, of="c2", command="u2")
    await state.undo_acknowledgement(name, of="c2", command="u2")
    assert await told() == "ivo: mine"
    assert await state.reader.acts.undoable("c2", by="u2") == (f"cause {name}",), "a copy of the undo finds the same"
    with pytest.raises(NothingToUndo):
        await state.undo_acknowledgement(name, of="c2")
    await state.acknowledge_cause(cause.code, cause.text, actor="ivo", withdraw=True, command="c3")
    with pytest.raises(TransitionRefused, match="open again"):
        await state.undo_acknowledgement(name, of="c1")
    await state.undo_acknowledgement(name, of="c3")
    assert await told() == "ivo: mine"
    await state.undo_acknowledgement(name, of="c1")
    assert await told() == ""
    audit(eye)


async def test_an_acknowledgement_is_taken_back_through_a_scheduler(redis_url: str, state: StateManager, node: Node):
    task = a_task(max_retries=0)
    await state.submit_task(task, queue=LIGHT)
    await node.claim_ids()
    await node.fail(task.id, failure=a_failure(code="out_of_memory"))
    config = DistributedConfig(zeromq={"base_port": 0, "control_port": 0})  # type: ignore[arg-type]
    async with Scheduler(config, redis_url=redis_url) as scheduler:
        address = scheduler.control_endpoint.removeprefix("tcp://")
        async with AsyncClient(DistributedConfig(), scheduler=address, actor="ann", timeout_s=60) as ann:
            (cause,) = (await ann.dead()).causes
            act = await ann.acknowledge(cause.code, cause.text, note="mine")
            assert (await ann.acts(limit=1))[0].undo_ms > 0
            assert (await ann.undo(act)).done == (f"cause {cause.code}: {cause.text}",)
            assert (await ann.dead()).causes[0].acknowledged is None

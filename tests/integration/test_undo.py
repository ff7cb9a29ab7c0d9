"""Taking acts back: exactly what was done, where nothing has happened since; else each is told why not."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta

import pytest
import redis

from lcq.client import AsyncClient
from lcq.config import DistributedConfig
from lcq.errors import NothingToUndo, TransitionRefused
from lcq.models import Privacy, TaskPriority, TaskStatus
from lcq.routing import Route
from lcq.scheduler import Scheduler
from lcq.state.manager import StateManager
from tests.audit import Hash, audit, lane_of
from tests.conftest import wait_until
from tests.nodes import HEAVY, LIGHT, Node, a_failure, a_task


async def _have_done_by(state: StateManager, task: str, command: str) -> None:
    record = await state.reader.task(task)
    asked = record.task.model_copy(update={"deadline": datetime(2026, 12, 24, 9, tzinfo=UTC)})
    await state.set_deadline(asked, revision=record.revision, why="by ann", command=command)


async def _let_leave(state: StateManager, task: str, command: str, home: Route | None = None) -> None:
    record = await state.reader.task(task)
    asked = record.task.model_copy(update={"privacy": Privacy.EXPORTABLE})
    await state.set_privacy(asked, revision=record.revision, home=home, why="by ann", command=command)


ACTS: dict[str, Callable[[StateManager, str, str], Awaitable[object]]] = {
    "retry": lambda state, task, command: state.retry_task(task, queue=HEAVY, why="by ann", command=command),
    "move": lambda state, task, command: state.reroute_task(task, queue=HEAVY, why="by ann", command=command),
    "send to a node": lambda state, task, command: state.reroute_task(
        task, queue=LIGHT, node="node-1", why="by ann", command=command
    ),
    "prioritise": lambda state, task, command: state.prioritise_task(
        task, priority=TaskPriority.LOW, why="by ann", command=command
    ),
    "cancel": lambda state, task, command: state.cancel_task(task, why="by ann", command=command),
    "have done by another moment": _have_done_by,
    "let leave the house": _let_leave,
    "say who may leave, and move": lambda state, task, command: _let_leave(state, task, command, Route(HEAVY, 7.0)),
}
HARMLESS = (
    "prioritise",
    "have done by another moment",
    "let leave the house",
    "say who may leave, and move",
)  # to an attempt that runs
OF_EACH_CHANGE = ("rev", "updated_ms", "why")


@pytest.fixture(autouse=True)
def patience(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten minutes instead of 15 s: a slow machine must not be too late."""
    if "for_15_s" not in request.node.name:
        monkeypatch.setattr("lcq.state.scripts.UNDO_KEPT", timedelta(minutes=10))


async def some_tasks(state: StateManager, eye: redis.Redis, node: Node) -> dict[TaskStatus, str]:
    """One task of each status, with others around that keep the queue's order worth something."""
    ids = {}
    for status in TaskStatus:
        for user in ("ann", "bob"):
            await state.submit_task(a_task(user_id=user, job="wedding"), queue=LIGHT, cost_s=3)
        task = a_task(user_id="ann", job="wedding", max_retries=1)
        await state.submit_task(task, queue=LIGHT, cost_s=2)
        ids[status] = task.id
    for status in (TaskStatus.PENDING, TaskStatus.COMPLETED, TaskStatus.FAILED, TaskStatus.PROCESSING):
        await state.reroute_task(ids[status], queue=LIGHT, node=node.id)
        assert await node.claim_ids() == [ids[status]]
        match status:
            case TaskStatus.PENDING:
                await node.fail(ids[status], failure=a_failure(code="download"))
            case TaskStatus.COMPLETED:
                await node.finish(ids[status])
            case TaskStatus.FAILED:
                await node.fail(ids[status])
                eye.zadd("{lcq}:delayed", {ids[status]: 1})
                await state.release_due()
                assert await node.claim_ids() == [ids[status]]
                await node.fail(ids[status], 2)
    await state.cancel_task(ids[TaskStatus.CANCELLED])
    assert {status: (await state.reader.task(task)).status for status, task in ids.items()} == {s: s for s in ids}
    return ids


def lanes(eye: redis.Redis, tasks: dict[str, Hash]) -> dict[str, list[str]]:
    """Every lane's tasks in their order."""
    names = {lane_of(t) for t in tasks.values() if t["status"] == "queued"}
    return {name: eye.zrange(f"{{lcq}}:{name}", 0, -1) for name in names}


@pytest.mark.parametrize("act", ACTS)
async def test_an_act_taken_back_leaves_everything_as_it_was(state: StateManager, eye: redis.Redis, act: str) -> None:
    node = Node(state, queues=(LIGHT, HEAVY))
    await node.hello()
    for status, task in (await some_tasks(state, eye, node)).items():
        before = audit(eye).tasks
        order = lanes(eye, before)
        try:
            await ACTS[act](state, task, f"command-{task}")
        except TransitionRefused:
            continue  # not an act for this status
        if act not in HARMLESS and status is TaskStatus.PROCESSING:
            with pytest.raises(TransitionRefused, match="the act ended a running attempt"):
                await state.undo_task(task, of=f"command-{task}", why="taken back by ann")
            continue
        assert audit(eye).tasks[task]["rev"] != before[task]["rev"]
        await state.undo_task(task, of=f"command-{task}", why="taken back by ann")
        after = audit(eye).tasks
        assert after[task]["why"] == "taken back by ann"
        assert after[task]["rev"] == str(int(before[task]["rev"]) + 2)
        for name in OF_EACH_CHANGE:
            after[task][name] = before[task][name]
        assert after == before
        assert lanes(eye, after) == order


@pytest.mark.parametrize("act", ["move", "send to a node", *HARMLESS, "cancel"])
async def test_what_waited_far_back_is_there_again(state: StateManager, eye: redis.Redis, act: str) -> None:
    tasks = [a_task(user_id="ann") for _ in range(4)]
    for task in tasks:
        await state.submit_task(task, queue=LIGHT, cost_s=2)
    order = lanes(eye, audit(eye).tasks)
    for task in reversed(tasks):
        await ACTS[act](state, task.id, f"command-{task.id}")
        await state.undo_task(task.id, of=f"command-{task.id}", why="taken back by ann")
        assert lanes(eye, audit(eye).tasks) == order


async def test_what_has_moved_on_is_not_taken_back_and_what_it_did_is_told(
    state: StateManager, eye: redis.Redis
) -> None:
    node = Node(state)
    await node.hello()
    task = a_task()
    await state.submit_task(task, queue=LIGHT)
    await state.prioritise_task(task.id, priority=TaskPriority.URGENT, command="c1")
    await node.claim()
    with pytest.raises(TransitionRefused, match=f"cannot undo task {task.id}: it is processing"):
        await state.undo_task(task.id, of="c1")
    assert (await state.reader.task(task.id)).priority is TaskPriority.URGENT
    audit(eye)


async def test_several_acts_are_taken_back_in_turn_the_last_first(state: StateManager, eye: redis.Redis) -> None:
    node = Node(state, queues=(LIGHT, HEAVY))
    await node.hello()
    task = (await some_tasks(state, eye, node))[TaskStatus.COMPLETED]
    before = audit(eye).tasks
    for act in ("retry", "move", "prioritise"):  # what a retry with another place and priority is made of
        await ACTS[act](state, task, act)
    with pytest.raises(TransitionRefused, match="it is queued"):
        await state.undo_task(task, of="retry")
    for act in ("prioritise", "move", "retry"):
        await state.undo_task(task, of=act, why="taken back by ann")
    after = audit(eye).tasks
    for name in OF_EACH_CHANGE:
        after[task][name] = before[task][name]
    assert after == before
    await ACTS["retry"](state, task, "r2")
    await ACTS["move"](state, task, "m2")
    await state.undo_task(task, of="m2")
    await ACTS["prioritise"](state, task, "p2")  # somebody else's
    with pytest.raises(TransitionRefused, match="it is queued"):
        await state.undo_task(task, of="r2")


async def test_an_act_is_taken_back_once(state: StateManager) -> None:
    task = a_task()
    await state.submit_task(task, queue=LIGHT)
    await state.reroute_task(task.id, queue=HEAVY, command="c1")
    told = await asyncio.gather(
        *(state.undo_task(task.id, of="c1", command=f"u{n}") for n in range(3)), return_exceptions=True
    )
    assert [type(one) for one in told if one is not None] == [NothingToUndo] * 2
    await state.undo_task(task.id, of="c1", command="u0")  # a copy of the command that did it is told the same


async def test_an_act_can_be_taken_back_for_15_s_and_then_has_left_nothing(
    state: StateManager, eye: redis.Redis
) -> None:
    task = a_task()
    await state.submit_task(task, queue=LIGHT)
    await state.reroute_task(task.id, queue=HEAVY, command="c1")
    assert 0 < eye.pttl("{lcq}:undo:c1") <= 15_000
    eye.pexpire("{lcq}:undo:c1", 1)
    await wait_until(lambda: not eye.exists("{lcq}:undo:c1"))
    with pytest.raises(NothingToUndo, match="act c1 has done nothing to task"):
        await state.undo_task(task.id, of="c1")
    await state.reroute_task(task.id, queue=LIGHT, why="by routing")  # no operator's command: nothing is kept
    assert not [name for name in eye.scan_iter() if ":undo:" in name]


async def test_a_pause_and_a_resumption_are_taken_back_with_who_paused_and_why(
    state: StateManager, eye: redis.Redis
) -> None:
    await state.pause_queue(LIGHT, actor="ann", reason="disk full", command="c1")
    await state.resume_queue(LIGHT, actor="bob", command="c2")
    with pytest.raises(TransitionRefused, match=f"queue {LIGHT}: it is open"):
        await state.undo_queue(LIGHT, of="c1")
    await state.undo_queue(LIGHT, of="c2", why="taken back by bob")
    (paused,) = [queue for queue in await state.reader.queues() if queue.paused]
    assert (paused.name, paused.paused_by, paused.paused_reason) == (LIGHT, "ann", "disk full")
    await state.undo_queue(LIGHT, of="c1", why="taken back by ann")  # it is as that act has left it, once more
    assert not any(queue.paused for queue in await state.reader.queues())
    with pytest.raises(NothingToUndo):
        await state.undo_queue(LIGHT, of="c1")
    audit(eye)


async def test_any_acts_taken_back_in_turn_leave_all_books_right(state: StateManager, eye: redis.Redis) -> None:
    chance = random.Random(random.getrandbits(32))
    node = Node(state, queues=(LIGHT, HEAVY))
    await node.hello()
    ids = list((await some_tasks(state, eye, node)).values())
    commands: list[tuple[str, str]] = []
    for number in range(120):
        task = chance.choice(ids)
        try:
            if chance.random() < 0.4 and commands:
                command, task = commands.pop(chance.randrange(len(commands)))
                await state.undo_task(task, of=command, command=f"u{number}")
            elif chance.random() < 0.15:
                await node.claim()
            else:
                await ACTS[chance.choice(list(ACTS))](state, task, f"c{number}")
                commands.append((f"c{number}", task))
        except (TransitionRefused, NothingToUndo):
            pass
    audit(eye)


async def test_who_did_what_is_listed_with_what_can_be_taken_back_and_undo_does_it(redis_url: str) -> None:
    config = DistributedConfig(zeromq={"base_port": 0, "control_port": 0})  # type: ignore[arg-type]
    async with Scheduler(config, redis_url=redis_url) as scheduler:
        address = scheduler.control_endpoint.removeprefix("tcp://")
        async with AsyncClient(DistributedConfig(), scheduler=address, actor="ann", timeout_s=60) as ann:
            one, other = (await ann.submit_many([a_task(), a_task()])).accepted
            await ann.submit(a_task(id="0m84x2sshh0b4yjp", job="wedding"))
            await ann.note_job("wedding", ())  # a part of a submit, and nobody's act
            moved = await ann.reroute([one.id, other.id], queue=HEAVY, reason="too big")
            assert moved.revisions == tuple([(await ann.get(each.id)).revision for each in (one, other)])
            paused = await ann.pause(LIGHT, reason="lunch")
            await ann.cancel(other.id)
            acts = await ann.acts()
            assert [(act.act, act.actor, act.reason, act.undo_ms > 0) for act in acts] == [
                ("cancel", "ann", "", True), ("pause", "ann", "lunch", True), ("reroute", "ann", "too big", True),
                ("submit", "ann", "", False), ("submit", "ann", "", False),
            ]  # fmt: skip
            assert [act.outcome for act in acts] == ["1 done", "", "2 done", "", ""]
            assert [act.id for act in await ann.acts(before=acts[1].id, limit=1)] == [acts[2].id]
            assert await ann.acts(actor="bob") == ()
            back = await ann.undo(moved.acts[0], reason="not so big")
            assert back.done == (one.id,)
            assert [(refusal.id, refusal.code) for refusal in back.refused] == [(other.id, "transition_refused")]
            assert (await ann.get(one.id)).queue == LIGHT
            assert (await ann.get(one.id)).why == "taken back by ann: not so big"
            assert (await ann.undo(paused)).done == (f"queue {LIGHT}",)
            assert not any(queue.paused for queue in await ann.queues())
            with pytest.raises(NothingToUndo):
                await ann.undo(paused)


async def test_the_answer_of_an_act_tells_the_revision_that_the_next_one_goes_by(redis_url: str) -> None:
    config = DistributedConfig(zeromq={"base_port": 0, "control_port": 0})  # type: ignore[arg-type]
    async with Scheduler(config, redis_url=redis_url) as scheduler:
        address = scheduler.control_endpoint.removeprefix("tcp://")
        async with AsyncClient(DistributedConfig(), scheduler=address, actor="ann", timeout_s=60) as ann:
            task = (await ann.submit(a_task())).id
            (seen,) = (await ann.prioritise(task, TaskPriority.HIGH, revisions=[1])).revisions
            assert (await ann.prioritise(task, TaskPriority.HIGH, revisions=[seen])).revisions == (seen,), "as it was"
            (after,) = (await ann.cancel(task, revisions=[seen])).revisions
            (again,) = (await ann.retry(task, revisions=[after])).revisions
            assert again == (await ann.get(task)).revision == seen + 2
            assert [one.code for one in (await ann.cancel(task, revisions=[after])).refused] == ["transition_refused"]

"""Every move: from every state, in a race, and twice; what it answers, writes, and tells."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import random
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from importlib import resources
from pathlib import Path

import pytest
import redis

from lcq.errors import (
    IdempotencyConflict,
    NodeNotFound,
    NothingToUndo,
    StaleBoot,
    TaskNotFound,
    TransitionRefused,
)
from lcq.ids import new_id
from lcq.models import (
    DeviceReading,
    ErrorClass,
    Failure,
    NodeCapability,
    NodeStatus,
    Privacy,
    TaskPriority,
    TaskRecord,
    TaskStatus,
)
from lcq.moves import LEGAL_MOVES, starts_of
from lcq.routing import Route
from lcq.state.manager import RULES, StateManager
from lcq.state.records import digest_of
from lcq.state.scripts import POISON_DEATHS, move_names
from tests.audit import Hash, audit, keys_of
from tests.conftest import wait_until
from tests.nodes import HEAVY, LIGHT, Node, a_failure, a_result, a_task

LONG_AGO = 1  # ms since 1970: by every clock, this has passed
DUE = datetime(2026, 12, 24, 9, tzinfo=UTC)


@dataclass
class Stage:
    """A task in a state, with an attempt behind it that was lost, and the two nodes that play with it."""

    state: StateManager
    eye: redis.Redis
    node: Node
    other: Node
    id: str
    attempt: int  # the newest one; 1 is always the lost one, of ``node``

    def hash(self) -> Hash:
        return self.eye.hgetall(f"{{lcq}}:task:{self.id}")  # type: ignore[no-any-return]

    def let_pass(self, deadlines: str) -> None:
        """Move this task's entry in a sorted set of times into the past, if it has one."""
        self.eye.zadd(f"{{lcq}}:{deadlines}", {self.id: LONG_AGO}, xx=True)

    async def record(self) -> TaskRecord:
        return await self.state.reader.task(self.id)

    async def to_be_done_by(self, deadline: datetime | None, *, behind: int = 0) -> int:
        """``behind``: by who looked so many revisions ago."""
        record = await self.record()
        asked = record.task.model_copy(update={"deadline": deadline})
        return await self.state.set_deadline(asked, revision=record.revision - behind, why="by ann")

    async def let_leave(self, privacy: Privacy, *, home: str = "", behind: int = 0) -> int:
        """``home``: the queue where it waits from now on; ``behind``: by who looked so many revisions ago."""
        record = await self.record()
        asked = record.task.model_copy(update={"privacy": privacy})
        route = Route(home, 7.0) if home else None
        return await self.state.set_privacy(asked, revision=record.revision - behind, home=route, why="by ann")


async def staged(state: StateManager, eye: redis.Redis, status: TaskStatus) -> Stage:
    node, other = Node(state), Node(state, "node-2")
    for one in (node, other):
        await one.hello()
    task = a_task(job="wedding")
    await state.submit_task(task, queue=LIGHT)
    stage = Stage(state, eye, node, other, task.id, 1)
    assert await node.claim_ids() == [task.id]
    stage.let_pass("leases")
    await state.expire_leases()  # QUEUED again, with a lost attempt behind it
    if status != TaskStatus.QUEUED:
        assert await other.claim_ids() == [task.id]
        stage.attempt = 2
    match status:
        case TaskStatus.PENDING:
            await other.fail(task.id, 2, a_failure(code="download"))
        case TaskStatus.COMPLETED:
            await other.finish(task.id, 2)
        case TaskStatus.FAILED:
            await other.fail(task.id, 2, a_failure(ErrorClass.BAD_INPUT, "mask_size"))
        case TaskStatus.CANCELLED:
            await state.cancel_task(task.id)
    assert (await stage.record()).status == status
    return stage


def kept(client: redis.Redis) -> Callable[[], None]:
    """All that is there now, to be had again: one journey instead of a dozen moves. ``client`` does not decode."""
    names = client.keys()
    values = {name: (max(0, client.pttl(name)), client.dump(name)) for name in names}

    def set_again() -> None:
        with client.pipeline(transaction=True) as pipeline:
            pipeline.flushall()
            for name, (ttl_ms, value) in values.items():
                pipeline.restore(name, ttl_ms, value)
            pipeline.execute()

    return set_again


Act = Callable[[Stage], Awaitable[object]]


async def _expire(stage: Stage) -> object:
    stage.let_pass("leases")
    return await stage.state.expire_leases()


async def _release_due(stage: Stage) -> object:
    stage.let_pass("delayed")
    return await stage.state.release_due()


async def _forget(stage: Stage) -> object:
    stage.let_pass("expiry")
    return await stage.state.forget_tasks()


async def _beat_without_it(stage: Stage) -> object:
    stage.let_pass(f"held:{stage.other.id}")
    return await stage.other.beat()


async def _finish(stage: Stage) -> object:
    if (await stage.record()).status == TaskStatus.PROCESSING:
        return await stage.other.finish(stage.id, stage.attempt)
    return await stage.node.finish(stage.id, 1)


async def _hello_of_a_new_boot(stage: Stage) -> object:
    return await Node(stage.state, stage.other.id, boot=new_id()).hello()


async def _undo(stage: Stage) -> object:
    """Take back a command that has done to the task as it stands what such a command would have done."""
    told = stage.hash()
    move, status = {
        TaskStatus.QUEUED: ("retry_task", TaskStatus.FAILED),
        TaskStatus.CANCELLED: ("cancel_task", TaskStatus.QUEUED),
    }.get(TaskStatus(told.get("status", "failed")), ("prioritise_task", told.get("status")))
    order = {name: told[name] for name in ("priority", "score", "tag", "place") if name in told}
    before = {"prioritise_task": order, "cancel_task": {**told, "queued_ms": told.get("queued_ms", "1")}}.get(
        move, {**told, "status": "failed", "class": "bad_input", "code": "mask_size", "finished_ms": "5"}
    )
    stays = ("json", "digest", "idem", "model", "user", "job", "rev", "updated_ms", "why", "waits_ms")
    entry = {"rev": int(told.get("rev", 0)), "at_ms": 1, "move": move, "status": status}
    entry["before"] = {name: value for name, value in before.items() if name not in stays}
    if told and TaskStatus(told["status"]) not in (TaskStatus.COMPLETED, TaskStatus.FAILED):
        stage.eye.hset("{lcq}:undo:c1", stage.id, json.dumps(entry))
        stage.eye.expire("{lcq}:undo:c1", 60)
    with contextlib.suppress(NothingToUndo):
        await stage.state.undo_task(stage.id, of="c1")
    return None


MOVES: dict[str, Act] = {
    "submit_task": lambda s: s.state.submit_task(a_task(id=s.id, job="wedding"), queue=HEAVY),
    "release_due": _release_due,
    "claim_tasks": lambda s: s.other.claim(),
    "finish_task": _finish,
    "retake_task": lambda s: s.node.retake(s.id),
    "fail_task": lambda s: s.other.fail(s.id, s.attempt),
    "release_task": lambda s: s.other.release(s.id, s.attempt),
    "expire_leases": _expire,
    "cancel_task": lambda s: s.state.cancel_task(s.id, why="by ann"),
    "retry_task": lambda s: s.state.retry_task(s.id, queue=HEAVY, why="by ann"),
    "reroute_task": lambda s: s.state.reroute_task(s.id, queue=HEAVY, why="by ann"),
    "prioritise_task": lambda s: s.state.prioritise_task(s.id, priority=TaskPriority.URGENT),
    "set_deadline": lambda s: s.to_be_done_by(DUE),
    "set_privacy": lambda s: s.let_leave(Privacy.EXPORTABLE),
    "undo_task": _undo,
    "register_node": _hello_of_a_new_boot,
    "beat_node": _beat_without_it,
    "leave_node": lambda s: s.other.leave(),
    "lose_node": lambda s: s.other.lose(),
    "forget_tasks": _forget,
    "isolate_task": lambda s: s.state.isolate_task(s.id, found="a test says so"),
}
REFUSE = {"finish_task", "fail_task", "release_task", "cancel_task", "retry_task", "reroute_task", "prioritise_task"}
REFUSE |= {"retake_task", "set_deadline", "set_privacy"}
EVENTS_OF = {"beat_node": "release_task", "leave_node": "release_task"}  # what they do is to hand back


@pytest.mark.parametrize("status", TaskStatus)
@pytest.mark.parametrize("move", MOVES)
async def test_a_move_does_what_its_table_says_or_changes_nothing(
    state: StateManager, eye: redis.Redis, move: str, status: TaskStatus
) -> None:
    stage = await staged(state, eye, status)
    before, last = stage.hash(), eye.xlen("{lcq}:events")
    legal = status in LEGAL_MOVES[move]
    if move in REFUSE and not legal:
        with pytest.raises(TransitionRefused) as refusal:
            await MOVES[move](stage)
        assert refusal.value.state == status
    else:
        await MOVES[move](stage)
    after = stage.hash()
    if legal:
        now = TaskStatus(after["status"]) if after else None
        assert now in LEGAL_MOVES[move][status]
        told = [fields for _, fields in eye.xrange("{lcq}:events")][last:]
        told = [fields for fields in told if fields.get("id") == stage.id]
        assert [fields["move"] for fields in told] == [EVENTS_OF.get(move, move)]
        if after:
            assert int(after["rev"]) == int(before["rev"]) + 1
    else:
        assert after == before
    audit(eye)


@pytest.mark.parametrize("move", sorted(REFUSE))
async def test_a_move_of_a_task_that_is_not_there_says_so(state: StateManager, eye: redis.Redis, move: str) -> None:
    stage = await staged(state, eye, TaskStatus.QUEUED)
    stage.id = new_id()
    with pytest.raises(TaskNotFound):
        await {**MOVES, "finish_task": lambda s: s.node.finish(s.id)}[move](stage)
    audit(eye)


@pytest.mark.parametrize("status", TaskStatus)
async def test_of_any_two_moves_that_race_each_wins_or_loses_whole(
    state: StateManager, redis_url: str, eye: redis.Redis, status: TaskStatus
) -> None:
    chance = random.Random(random.getrandbits(32))
    async with StateManager(state.config, url=redis_url) as second:

        async def later(move: str, stage: Stage) -> object:
            for _ in range(chance.randrange(4)):
                await asyncio.sleep(0)
            try:
                return await MOVES[move](stage)
            except (TransitionRefused, TaskNotFound, StaleBoot) as refusal:
                return refusal

        stage = await staged(state, eye, status)
        twin = Stage(second, eye, *(Node(second, n.id) for n in (stage.node, stage.other)), stage.id, stage.attempt)
        id_, attempt = stage.id, stage.attempt
        with redis.Redis.from_url(redis_url) as client:
            set_again = kept(client)
            for one, other in itertools.combinations_with_replacement(MOVES, 2):
                for each in (stage, twin):
                    each.id, each.attempt = id_, attempt
                await asyncio.gather(later(one, stage), later(other, twin))
                audit(eye)
                set_again()
        audit(eye)


# ---------------------------------------------------------------- the table, the scripts, the document


def _states_in(text: str) -> set[TaskStatus]:
    return {status for status in TaskStatus if re.search(rf"\b{status.name}\b", text)}


def test_the_table_names_every_script_there_is() -> None:
    assert set(LEGAL_MOVES) == set(move_names())
    assert set(MOVES) == {move for move, starts in LEGAL_MOVES.items() if starts}


@pytest.mark.parametrize("move", LEGAL_MOVES)
def test_the_head_of_each_script_says_what_the_table_says(move: str) -> None:
    text = (resources.files("lcq.state") / "lua" / f"{move}.lua").read_text(encoding="utf-8")
    head = re.match(rf"-- {move}: ((?:.|\n-- )+?)\.(?:\s|$)", text)
    assert head, "the first comment is one sentence that begins with the move's name"
    starts, arrow, ends = head[1].partition("->")
    if arrow:
        assert _states_in(starts) == set(starts_of(move))
        assert ("nothing" in starts) == (None in LEGAL_MOVES[move])
        reached = {end for results in LEGAL_MOVES[move].values() for end in results}
        same = _states_in(starts) if "the same" in ends else set()
        assert _states_in(ends) | same == reached - {None}
        assert ("nothing" in ends) == (None in reached)
    else:
        assert not LEGAL_MOVES[move]
    assert [line.split()[1] for line in text.splitlines() if re.match(r"-- (KEYS|ARGV|RETURNS) ", line)] == [
        "KEYS",
        "ARGV",
        "RETURNS",
    ]


def test_the_document_says_what_the_table_says() -> None:
    text = (Path(__file__).parents[2] / "docs" / "states.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+_\w+)` \| ([^|]*) \| ([^|]*) \|", text, re.MULTILINE)

    def states(cell: str) -> set[TaskStatus | None]:
        return {None if name == "nothing" else TaskStatus(name) for name in re.findall(r"\w+", cell)}

    told: dict[str, dict[TaskStatus | None, set[TaskStatus | None]]] = {}
    for move, starts, ends in rows:
        for start in states(starts):
            told.setdefault(move, {})[start] = states(ends)
    assert told == {move: {a: set(b) for a, b in moves.items()} for move, moves in LEGAL_MOVES.items() if moves}


def test_the_document_says_what_each_class_of_failure_does() -> None:
    text = (Path(__file__).parents[2] / "docs" / "states.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\w+) \| (yes|no) \| ?([^|]*) \| ?(yes|no|) \|", text, re.MULTILINE)
    told = {name: (retried == "yes", when == "at once", avoids == "yes") for name, retried, when, avoids in rows}
    assert told == {name.value: (rule.retry, rule.at_once, rule.avoid) for name, rule in RULES.items()}


# ---------------------------------------------------------------- submit


async def test_the_same_task_submitted_twice_is_one_task(state: StateManager, eye: redis.Redis) -> None:
    task = a_task()
    first = await state.submit_task(task, queue=LIGHT)
    again = await state.submit_task(task, queue=HEAVY)
    assert (first.duplicate, again.duplicate) == (False, True)
    assert (again.id, again.queue, again.status) == (task.id, LIGHT, TaskStatus.QUEUED)
    assert list(audit(eye).tasks) == [task.id]


async def test_a_client_that_lost_its_answer_finds_its_task_by_the_key_under_a_new_id(state: StateManager) -> None:
    first = await state.submit_task(a_task(), queue=LIGHT, key="cat-1")
    again = await state.submit_task(a_task(), queue=LIGHT, key="cat-1")
    assert (again.id, again.duplicate) == (first.id, True)


async def test_a_key_that_was_used_for_something_else_is_a_conflict(state: StateManager, eye: redis.Redis) -> None:
    first = await state.submit_task(a_task(), queue=LIGHT, key="cat-1")
    with pytest.raises(IdempotencyConflict) as refusal:
        await state.submit_task(a_task(max_retries=9), queue=LIGHT, key="cat-1")
    assert (refusal.value.key, refusal.value.task_id) == ("cat-1", first.id)
    assert list(audit(eye).tasks) == [first.id]


async def test_of_many_submits_of_one_key_at_once_one_makes_the_task(
    state: StateManager, redis_url: str, eye: redis.Redis
) -> None:
    async with StateManager(state.config, url=redis_url) as second:
        told = await asyncio.gather(
            *(one.submit_task(a_task(), queue=LIGHT, key="k") for _ in range(10) for one in (state, second))
        )
    assert len({answer.id for answer in told}) == 1
    assert [answer.duplicate for answer in told].count(False) == 1
    assert len(audit(eye).tasks) == 1


async def test_a_key_is_free_again_when_its_task_is_forgotten(state: StateManager, eye: redis.Redis) -> None:
    first = await state.submit_task(a_task(), queue=LIGHT, key="k")
    await state.cancel_task(first.id)
    eye.zadd("{lcq}:expiry", {first.id: LONG_AGO})
    assert await state.forget_tasks() == 1
    again = await state.submit_task(a_task(max_retries=1), queue=LIGHT, key="k")
    assert not again.duplicate
    assert list(audit(eye).tasks) == [again.id]


async def test_a_duty_goes_on_for_as_long_as_there_is_much_to_do(state: StateManager, eye: redis.Redis) -> None:
    due = await state.now_ms() + 3_600_000
    ids = [
        told.id
        for told in await asyncio.gather(*(state.submit_task(a_task(), queue=LIGHT, due_ms=due) for _ in range(450)))
    ]
    eye.zadd("{lcq}:delayed", dict.fromkeys(ids, LONG_AGO))
    assert await state.release_due() == 450
    for task_id in ids:
        await state.cancel_task(task_id)
    eye.zadd("{lcq}:expiry", dict.fromkeys(ids, LONG_AGO))
    assert await state.forget_tasks() == 450
    assert audit(eye).tasks == {}


async def test_a_task_for_later_waits_for_its_time(state: StateManager, node: Node, eye: redis.Redis) -> None:
    due = await state.now_ms() + 3_600_000
    told = await state.submit_task(a_task(), queue=LIGHT, due_ms=due)
    assert told.status == TaskStatus.PENDING
    assert (await state.reader.task(told.id)).due_ms == due
    assert await state.release_due() == 0
    assert await node.claim() == ()
    eye.zadd("{lcq}:delayed", {told.id: LONG_AGO})
    assert await state.release_due() == 1
    assert await node.claim_ids() == [told.id]
    audit(eye)


async def test_a_time_that_has_passed_is_now(state: StateManager) -> None:
    assert (await state.submit_task(a_task(), queue=LIGHT, due_ms=LONG_AGO)).status == TaskStatus.QUEUED


# ---------------------------------------------------------------- claim, finish, fail, release


async def test_two_nodes_racing_for_a_task_leave_one_lease(
    state: StateManager, node: Node, redis_url: str, eye: redis.Redis
) -> None:
    async with StateManager(state.config, url=redis_url) as second:
        other = Node(second, "node-2")
        await other.hello()
        for _ in range(20):
            task = await state.submit_task(a_task(), queue=LIGHT)
            grants = await asyncio.gather(node.claim(), other.claim(), node.claim(), other.claim())
            assert [grant.task.id for granted in grants for grant in granted] == [task.id]
    audit(eye)


async def test_a_claim_brings_the_task_as_it_was_submitted_with_its_token(state: StateManager, node: Node) -> None:
    task = a_task(metadata={"é": ["🐈", 1, 2.5, None, True]}, timeout_s=7)
    await state.submit_task(task, queue=LIGHT)
    (grant,) = await node.claim(lease_ms=1234)
    assert (grant.task, grant.attempt, grant.device, grant.lease_ms) == (task, 1, "cpu", 1234)
    record = await state.reader.task(task.id)
    assert (record.node, record.device, record.attempt) == ("node-1", "cpu", 1)
    assert record.lease_deadline_ms == (record.started_ms or 0) + 1234


async def test_a_claim_takes_no_more_than_it_asked_for_and_no_less_than_there_is(
    state: StateManager, node: Node, eye: redis.Redis
) -> None:
    for _ in range(5):
        await state.submit_task(a_task(), queue=LIGHT)
    assert [len(await node.claim(slots)) for slots in (2, 2, 2, 2)] == [2, 2, 1, 0]
    audit(eye)


async def test_a_node_gets_only_models_and_queues_that_it_names(state: StateManager, eye: redis.Redis) -> None:
    node = Node(state, models=["cv2-ns"], queues=[HEAVY])
    await node.hello()
    await state.submit_task(a_task("cv2-telea"), queue=HEAVY)
    await state.submit_task(a_task("cv2-ns"), queue=LIGHT)
    assert await node.claim(9) == ()
    wanted = await state.submit_task(a_task("cv2-ns"), queue=HEAVY)
    assert await node.claim_ids(9) == [wanted.id]
    audit(eye)


async def test_a_result_told_twice_counts_once(state: StateManager, eye: redis.Redis) -> None:
    stage = await staged(state, eye, TaskStatus.PROCESSING)
    await stage.other.finish(stage.id, 2)
    done = stage.hash()
    await stage.other.finish(stage.id, 2)
    assert stage.hash() == done
    assert eye.hget("{lcq}:node:node-2", "completed") == "1"
    assert (await state.reader.totals())["completed"] == 1
    audit(eye)


async def test_a_result_told_again_after_an_operators_retry_does_not_end_the_new_run(
    state: StateManager, eye: redis.Redis
) -> None:
    stage = await staged(state, eye, TaskStatus.COMPLETED)
    await state.retry_task(stage.id, queue=LIGHT)
    await stage.other.finish(stage.id, 2)  # settled long ago: the node may forget it
    assert (await stage.record()).status == TaskStatus.QUEUED
    with pytest.raises(TransitionRefused):
        await stage.node.finish(stage.id, 1)  # never settled, but of the run that the operator replaced
    assert (await stage.record()).status == TaskStatus.QUEUED
    audit(eye)


async def test_a_late_result_counts_while_a_newer_attempt_runs_and_that_one_is_told_to_stop(
    state: StateManager, eye: redis.Redis
) -> None:
    stage = await staged(state, eye, TaskStatus.PROCESSING)
    await stage.node.finish(stage.id, 1)
    record = await stage.record()
    assert (record.status, record.node, record.result) == (TaskStatus.COMPLETED, "node-1", a_result())
    _, lost = await stage.other.beat((stage.id, 2))
    assert [(one.task_id, one.attempt) for one in lost] == [(stage.id, 2)]
    with pytest.raises(TransitionRefused):
        await stage.other.finish(stage.id, 2)
    assert [a.outcome for a in await state.reader.attempts(stage.id)] == ["completed", "superseded"]
    assert (await state.reader.totals())["late"] == 1
    audit(eye)


async def test_a_late_result_gets_its_name_before_it_commits_and_nobody_else_can_commit_meanwhile(
    state: StateManager, eye: redis.Redis
) -> None:
    stage = await staged(state, eye, TaskStatus.PROCESSING)
    assert await stage.node.retake(stage.id) == 3
    record = await stage.record()
    assert (record.status, record.node, record.attempt) == (TaskStatus.PROCESSING, "node-1", 3)
    _, lost = await stage.other.beat((stage.id, 2))
    assert [(one.task_id, one.attempt) for one in lost] == [(stage.id, 2)]
    told = [fields for _, fields in eye.xrange("{lcq}:events") if fields["move"] == "retake_task"]
    assert [(fields["from"], fields["superseded"]) for fields in told] == [("node-2", "2")]
    for late in (stage.other.finish(stage.id, 2), stage.other.retake(stage.id, 2), stage.node.finish(stage.id, 1)):
        with pytest.raises(TransitionRefused):
            await late
    await stage.node.finish(stage.id, 3)
    record = await stage.record()
    assert (record.status, record.node, record.why) == (TaskStatus.COMPLETED, "node-1", "late result of attempt 1")
    outcomes = [(one.outcome, one.result_of) for one in await state.reader.attempts(stage.id)]
    assert outcomes == [("failed", 0), ("superseded", 0), ("completed", 1)]
    totals = await state.reader.totals()
    assert (totals["late"], totals["fenced"], totals["completed"]) == (1, 2, 1)
    audit(eye)


async def test_who_takes_its_task_back_twice_has_it_once_and_a_lease_anew(
    state: StateManager, eye: redis.Redis
) -> None:
    stage = await staged(state, eye, TaskStatus.QUEUED)
    assert await stage.node.retake(stage.id) == 2
    eye.zadd("{lcq}:leases", {stage.id: LONG_AGO})
    assert await stage.node.retake(stage.id) == 2, "its answer was lost"
    assert await stage.node.retake(stage.id, 2) == 2, "or the agent asks by the number that it was told"
    assert await state.expire_leases() == ()
    assert (await state.reader.totals())["late"] == 1
    audit(eye)


@pytest.mark.parametrize("how", ["expire", "lose", "reborn", "beat"])
async def test_a_task_that_was_taken_back_and_lapsed_again_has_lost_no_retry_and_can_be_taken_back_once_more(
    state: StateManager, eye: redis.Redis, how: str
) -> None:
    """Its node was killed before the result had its name: there is no work to repeat."""
    stage = await staged(state, eye, TaskStatus.QUEUED)
    retries = (await stage.record()).retries
    assert await stage.node.retake(stage.id) == 2
    match how:
        case "expire":
            stage.let_pass("leases")
            await state.expire_leases()
        case "lose":
            await stage.node.lose()
        case "reborn":
            stage.node = Node(state, boot=new_id())
            await stage.node.hello()
        case "beat":
            stage.let_pass("held:node-1")
            await stage.node.beat()
    record = await stage.record()
    kept = how == "beat"  # which does not list what it has not heard of: its lease decides
    assert (record.status, record.retries) == (TaskStatus.PROCESSING if kept else TaskStatus.QUEUED, retries)
    if not kept:
        assert await stage.other.claim_ids() == [stage.id]
        assert await stage.node.retake(stage.id) == 4
        assert [one.result_of for one in await state.reader.attempts(stage.id)] == [0, 1, 0, 1]
    audit(eye)


async def test_a_node_that_was_counted_out_and_then_goes_gives_back_what_it_had_come_back_with(
    state: StateManager, eye: redis.Redis
) -> None:
    stage = await staged(state, eye, TaskStatus.QUEUED)
    await stage.node.lose()
    assert await stage.node.retake(stage.id) == 2
    await stage.node.leave()
    assert await stage.other.claim_ids() == [stage.id], "it did not have to wait for a lease"
    audit(eye)


@pytest.mark.parametrize("act", ["cancel_task", "reroute_task", "retry_task"])
async def test_what_an_operator_has_ended_or_begun_anew_is_taken_back_by_nobody(
    state: StateManager, eye: redis.Redis, act: str
) -> None:
    stage = await staged(state, eye, TaskStatus.FAILED if act == "retry_task" else TaskStatus.QUEUED)
    if act == "reroute_task":
        await stage.node.retake(stage.id)  # and also not by a claim of before
    await MOVES[act](stage)
    with pytest.raises(TransitionRefused):
        await stage.node.retake(stage.id)
    audit(eye)


async def test_a_boot_that_was_replaced_and_another_node_take_nothing_back(
    state: StateManager, eye: redis.Redis
) -> None:
    stage = await staged(state, eye, TaskStatus.QUEUED)
    await Node(state, boot="boot-2").hello()
    with pytest.raises(StaleBoot):
        await stage.node.retake(stage.id)
    with pytest.raises(TransitionRefused):
        await stage.other.retake(stage.id)
    assert await Node(state, boot="boot-3").retake(stage.id) == 2, "a boot that has not said hello yet may"
    audit(eye)


@pytest.mark.parametrize("attempt", [-1, 0, 3, 2**31, 2**63])
@pytest.mark.parametrize("move", ["finish", "retake", "fail", "release"])
async def test_an_attempt_that_never_was_can_end_nothing(
    state: StateManager, eye: redis.Redis, move: str, attempt: int
) -> None:
    stage = await staged(state, eye, TaskStatus.PROCESSING)
    before = stage.hash()
    with pytest.raises(TransitionRefused):
        await getattr(stage.other, move)(stage.id, attempt)
    assert stage.hash() == before
    assert (await state.reader.totals()).get("fenced", 0) == (move != "retake"), "who only asks has told nothing yet"
    audit(eye)


@pytest.mark.parametrize("move", ["finish", "retake", "fail", "release"])
async def test_another_nodes_attempt_cannot_be_ended(state: StateManager, eye: redis.Redis, move: str) -> None:
    stage = await staged(state, eye, TaskStatus.PROCESSING)
    before = stage.hash()
    with pytest.raises(TransitionRefused):
        await getattr(stage.node, move)(stage.id, 2)
    assert stage.hash() == before
    audit(eye)


@pytest.mark.parametrize("error_class", ErrorClass)
async def test_a_failure_does_what_its_class_says(
    state: StateManager, eye: redis.Redis, error_class: ErrorClass
) -> None:
    stage = await staged(state, eye, TaskStatus.PROCESSING)
    failure, rule = a_failure(error_class, "some_code"), RULES[error_class]
    before_ms = await state.now_ms()
    await stage.other.fail(stage.id, 2, failure)
    record, fields = await stage.record(), stage.hash()
    assert record.failure == failure
    if not rule.retry:
        assert (record.status, record.finished_ms) == (TaskStatus.FAILED, record.updated_ms)
    elif rule.at_once:
        assert record.status == TaskStatus.QUEUED
    else:
        assert record.status == TaskStatus.PENDING
        assert record.due_ms is not None
        assert before_ms < record.due_ms <= await state.now_ms() + 3_600_000
    assert record.retries == 1 + rule.retry  # the lost attempt was one
    assert fields.get("avoid", "") == ("node-2" if rule.avoid else "")
    assert fields["deaths"] == ("1" if rule.death else "0")
    blamed = {node.id: node.failed for node in await state.reader.nodes()}
    assert blamed == {"node-1": 1, "node-2": error_class != ErrorClass.BAD_INPUT}  # the lost attempt was node-1's
    assert (await state.reader.attempts(stage.id))[1].failure == failure
    stored = stage.hash()
    await stage.other.fail(stage.id, 2, failure)  # told twice
    assert stage.hash() == stored
    audit(eye)


async def test_back_off_doubles_with_each_retry_up_to_its_cap(redis_url: str, eye: redis.Redis) -> None:
    from lcq.config import DistributedConfig, RetryConfig

    config = DistributedConfig(retries=RetryConfig(base_s=100, max_s=350))
    async with StateManager(config, url=redis_url) as state:
        node = Node(state)
        await node.hello()
        task = await state.submit_task(a_task(max_retries=4), queue=LIGHT)
        for attempt, longest_s in enumerate((100, 200, 350, 350), start=1):
            await node.claim()
            await node.fail(task.id, attempt)
            record = await state.reader.task(task.id)
            assert 0 <= (record.due_ms or 0) - record.updated_ms <= longest_s * 1000
            eye.zadd("{lcq}:delayed", {task.id: LONG_AGO}, xx=True)
            await state.release_due()
        await node.claim()
        await node.fail(task.id, 5)
        record = await state.reader.task(task.id)
        assert (record.status, record.retries, record.attempt) == (TaskStatus.FAILED, 4, 5)
        assert [node.failed for node in await state.reader.nodes()] == [5]
    audit(eye)


async def test_a_task_that_brought_down_two_runners_is_poison(
    state: StateManager, node: Node, eye: redis.Redis
) -> None:
    task = await state.submit_task(a_task(max_retries=99), queue=LIGHT)
    for attempt in range(1, POISON_DEATHS + 1):
        await node.claim()
        await node.fail(task.id, attempt, a_failure(ErrorClass.CRASH, "runner_died"))
    record = await state.reader.task(task.id)
    assert record.status == TaskStatus.FAILED
    assert record.failure is not None
    assert (record.failure.error_class, record.failure.code) == (ErrorClass.CRASH, "poison")
    assert record.failure.message == "brought down 2 runners, last: it did not answer"
    await state.retry_task(task.id, queue=LIGHT)
    await node.claim()
    await node.fail(task.id, 3, a_failure(ErrorClass.CRASH, "runner_died"))
    assert (await state.reader.task(task.id)).status == TaskStatus.QUEUED, "an operator's retry counts anew"
    audit(eye)


async def test_nodes_that_vanish_make_no_poison(state: StateManager, eye: redis.Redis) -> None:
    task = await state.submit_task(a_task(max_retries=9), queue=LIGHT)
    for boot in "abcd":
        node = Node(state, boot=boot)
        await node.hello()
        assert await node.claim_ids() == [task.id]
        assert await node.lose() == 1
    record = await state.reader.task(task.id)
    assert (record.status, record.retries) == (TaskStatus.QUEUED, 4)
    audit(eye)


async def test_hand_back_costs_no_retry_and_told_twice_gives_back_once(state: StateManager, eye: redis.Redis) -> None:
    stage = await staged(state, eye, TaskStatus.PROCESSING)
    await stage.other.release(stage.id, 2)
    given_back = stage.hash()
    await stage.other.release(stage.id, 2)
    assert stage.hash() == given_back
    assert (given_back["status"], given_back["retries"]) == ("queued", "1")
    with pytest.raises(TransitionRefused):
        await stage.node.release(stage.id, 2)  # not its own, also not a second time
    audit(eye)


async def test_a_lease_that_runs_out_is_found_once(state: StateManager, eye: redis.Redis) -> None:
    stage = await staged(state, eye, TaskStatus.PROCESSING)
    assert await state.expire_leases() == ()
    stage.let_pass("leases")
    (ended,) = await state.expire_leases()
    assert (ended.task_id, ended.node) == (stage.id, "node-2")
    assert await state.expire_leases() == ()
    failure = (await stage.record()).failure
    assert failure is not None
    assert failure.code == "lease_expired"
    audit(eye)


async def test_a_lost_attempt_of_a_task_without_retries_fails_it(state: StateManager, node: Node) -> None:
    task = await state.submit_task(a_task(max_retries=0), queue=LIGHT)
    await node.claim()
    await node.lose()
    assert (await state.reader.task(task.id)).status == TaskStatus.FAILED


# ---------------------------------------------------------------- operators


async def test_cancel_says_where_a_runner_must_be_ended(state: StateManager, eye: redis.Redis) -> None:
    running = await staged(state, eye, TaskStatus.PROCESSING)
    ended = await state.cancel_task(running.id, why="by ann")
    assert (ended.node, ended.attempt) == ("node-2", 2)
    assert (await running.record()).why == "by ann"
    eye.flushall()
    waiting = await staged(state, eye, TaskStatus.QUEUED)
    assert (await state.cancel_task(waiting.id)).node == ""
    with pytest.raises(TransitionRefused, match="it is cancelled"):
        await state.cancel_task(waiting.id)
    audit(eye)


@pytest.mark.parametrize("move", ["cancel_task", "reroute_task", "prioritise_task"])
async def test_an_operator_who_looked_too_long_ago_is_told_so(state: StateManager, eye: redis.Redis, move: str) -> None:
    stage = await staged(state, eye, TaskStatus.PROCESSING)
    seen = (await stage.record()).revision
    more = {"cancel_task": {}, "reroute_task": {"queue": HEAVY}, "prioritise_task": {"priority": TaskPriority.LOW}}
    with pytest.raises(TransitionRefused, match="look again"):
        await getattr(state, move)(stage.id, revision=seen - 1, **more[move])
    await getattr(state, move)(stage.id, revision=seen, **more[move])
    audit(eye)


async def test_retry_of_what_has_changed_since_is_refused_and_twice_too(state: StateManager, eye: redis.Redis) -> None:
    stage = await staged(state, eye, TaskStatus.FAILED)
    seen = (await stage.record()).revision
    with pytest.raises(TransitionRefused, match="look again"):
        await state.retry_task(stage.id, queue=LIGHT, revision=seen + 1)
    await state.retry_task(stage.id, queue=LIGHT, revision=seen)
    with pytest.raises(TransitionRefused, match="completed or failed or cancelled"):
        await state.retry_task(stage.id, queue=LIGHT)
    record = await stage.record()
    assert (record.status, record.retries, record.failure, record.attempt) == (TaskStatus.QUEUED, 0, None, 2)
    assert len(await state.reader.attempts(stage.id)) == 2, "history stays"
    audit(eye)


async def test_reroute_to_a_node_is_for_that_node_alone(state: StateManager, node: Node, eye: redis.Redis) -> None:
    other = Node(state, "node-2")
    await other.hello()
    task = await state.submit_task(a_task(), queue=LIGHT)
    await state.reroute_task(task.id, queue=LIGHT, node="node-2")
    assert await node.claim() == ()
    audit(eye)
    assert await other.claim_ids() == [task.id]
    ended = await state.reroute_task(task.id, queue=LIGHT)
    assert (ended.node, ended.attempt) == ("node-2", 1)
    assert await node.claim_ids() == [task.id]
    with pytest.raises(TransitionRefused):
        await other.finish(task.id, 1)  # what was cancelled for the reroute is not a late result
    audit(eye)


async def test_prioritise_to_the_same_band_changes_nothing(state: StateManager, eye: redis.Redis) -> None:
    stage = await staged(state, eye, TaskStatus.QUEUED)
    before = stage.hash()
    await state.prioritise_task(stage.id, priority=TaskPriority.NORMAL)
    assert stage.hash() == before
    await state.prioritise_task(stage.id, priority=TaskPriority.URGENT)
    await state.prioritise_task(stage.id, priority=TaskPriority.URGENT)
    assert int(stage.hash()["rev"]) == int(before["rev"]) + 1
    audit(eye)


async def test_a_deadline_is_set_changed_and_taken_away_and_the_task_waits_where_it_did(
    state: StateManager, eye: redis.Redis
) -> None:
    stage = await staged(state, eye, TaskStatus.QUEUED)
    task, before = (await stage.record()).task, stage.hash()
    others = [(await state.submit_task(a_task(job="wedding"), queue=LIGHT, cost_s=2)).id for _ in range(3)]
    order = await state.reader.lane_ids(LIGHT, task.lane, limit=9)
    assert set(order) == {stage.id, *others}
    with pytest.raises(TransitionRefused, match="look again"):
        await stage.to_be_done_by(DUE, behind=1)
    for deadline in (DUE, DUE, DUE + timedelta(days=1), None):
        revision = await stage.to_be_done_by(deadline)
        record = await stage.record()
        assert (record.task.deadline, record.revision) == (deadline, revision)
        assert stage.hash().get("done_by_ms", "") == str(record.task.deadline_ms or "")
        audit(eye)
    assert int(stage.hash()["rev"]) == int(before["rev"]) + 3, "the same deadline changes nothing"
    for far_back in reversed(order):  # as those of one user wait, each behind the one before
        await Stage(state, eye, stage.node, stage.other, far_back, 1).to_be_done_by(DUE + timedelta(days=9))
        assert await state.reader.lane_ids(LIGHT, task.lane, limit=9) == order
        audit(eye)
    assert (await state.submit_task(task, queue=LIGHT)).duplicate, "asked again as it was submitted, it is the same"
    granted = {
        grant.task.id: grant.task.deadline for grant in [*await stage.node.claim(4), *await stage.other.claim(4)]
    }
    assert granted == dict.fromkeys(order, DUE + timedelta(days=9)), "none is taken for damaged"


async def test_a_deadline_that_an_older_lcq_kept_in_the_json_alone_can_be_taken_away(
    state: StateManager, eye: redis.Redis
) -> None:
    stage = await staged(state, eye, TaskStatus.QUEUED)
    asked = json.loads(stage.hash()["json"]) | {"deadline": DUE.isoformat()}
    older = json.dumps(dict(reversed(asked.items())))
    eye.hset(f"{{lcq}}:task:{stage.id}", mapping={"json": older, "digest": digest_of(older)})
    assert (await stage.record()).task.deadline == DUE
    assert "done_by_ms" not in stage.hash()
    await stage.to_be_done_by(None)
    assert (await stage.record()).task.deadline is None
    audit(eye)
    assert await stage.other.claim_ids() == [stage.id], "it is not taken for damaged"


@pytest.mark.parametrize("status", [TaskStatus.PENDING, TaskStatus.QUEUED, TaskStatus.PROCESSING])
async def test_what_may_leave_the_house_is_said_anew_and_what_waits_for_functions_comes_home(
    state: StateManager, eye: redis.Redis, status: TaskStatus
) -> None:
    stage = await staged(state, eye, status)
    first = await stage.record()
    with pytest.raises(TransitionRefused, match="look again"):
        await stage.let_leave(Privacy.EXPORTABLE, behind=1)
    assert await stage.let_leave(Privacy.EXPORTABLE) == first.revision + 1
    assert await stage.let_leave(Privacy.EXPORTABLE) == first.revision + 1, "the same changes nothing"
    assert await state.reader.exportable([stage.id, "0" * 16]) == {stage.id}
    audit(eye)
    out = await stage.record()
    assert out == first.model_copy(
        update={"task": out.task, "revision": first.revision + 1, "updated_ms": out.updated_ms, "why": "by ann"}
    )
    assert await stage.let_leave(Privacy.PRIVATE, home=HEAVY) == first.revision + 2
    audit(eye)
    home = await stage.record()
    assert (home.status, home.task) == (status, first.task)
    stays = status is TaskStatus.PROCESSING
    assert (home.queue, home.cost_s) == ((LIGHT, first.cost_s) if stays else (HEAVY, 7.0))
    assert (home.due_ms, home.retries, home.attempt) == (first.due_ms, first.retries, first.attempt)
    assert (await state.submit_task(first.task, queue=LIGHT)).duplicate, (
        "asked again as it was submitted, it is the same"
    )
    if stays:
        await stage.other.fail(stage.id, stage.attempt, a_failure(code="download"))
        stage.let_pass("delayed")
        await state.release_due()
    elif status is TaskStatus.PENDING:
        stage.let_pass("delayed")
        await state.release_due()
    one = Node(state, "node-3", queues=(LIGHT, HEAVY))
    await one.hello()
    assert [grant.task.privacy for grant in await one.claim(2)] == [Privacy.PRIVATE], "it is not taken for damaged"


async def test_a_running_task_keeps_its_new_priority_for_its_next_attempt(
    state: StateManager, eye: redis.Redis
) -> None:
    stage = await staged(state, eye, TaskStatus.PROCESSING)
    await state.prioritise_task(stage.id, priority=TaskPriority.URGENT)
    await stage.other.release(stage.id, 2)
    assert (await stage.record()).priority == TaskPriority.URGENT
    audit(eye)


async def test_a_queue_is_paused_once_and_resumed_once(state: StateManager, node: Node, eye: redis.Redis) -> None:
    task = await state.submit_task(a_task(), queue=LIGHT)
    await state.pause_queue(LIGHT, actor="ann", reason="disk")
    with pytest.raises(TransitionRefused, match="paused already"):
        await state.pause_queue(LIGHT, actor="bob")
    record = next(queue for queue in await state.reader.queues() if queue.name == LIGHT)
    assert (record.paused, record.paused_by, record.paused_reason) == (True, "ann", "disk")
    assert await node.claim() == ()
    await state.resume_queue(LIGHT, actor="ann")
    with pytest.raises(TransitionRefused, match="not paused"):
        await state.resume_queue(LIGHT, actor="ann")
    assert await node.claim_ids() == [task.id]
    audit(eye)


# ---------------------------------------------------------------- nodes


async def test_a_node_that_restarted_gives_up_what_it_held_and_its_old_boot_is_refused(
    state: StateManager, eye: redis.Redis
) -> None:
    stage = await staged(state, eye, TaskStatus.PROCESSING)
    reborn = Node(state, "node-2", boot="boot-2")
    assert await reborn.hello() == NodeStatus.ONLINE
    record = await stage.record()
    assert record.status == TaskStatus.QUEUED
    assert record.failure is not None
    assert record.failure.code == "node_restarted"
    for word in (stage.other.hello, stage.other.claim, stage.other.beat, stage.other.leave):
        with pytest.raises(StaleBoot):
            await word()
    assert await stage.other.lose() is None
    audit(eye)


async def test_hello_twice_of_one_boot_keeps_what_it_holds(state: StateManager, eye: redis.Redis) -> None:
    stage = await staged(state, eye, TaskStatus.PROCESSING)
    before = stage.hash()
    assert await stage.other.hello() == NodeStatus.ONLINE
    assert stage.hash() == before
    narrower = Node(state, "node-2", models=["cv2-ns"])
    await narrower.hello()
    audit(eye)


async def test_a_beat_renews_leases_and_notes_progress(state: StateManager, eye: redis.Redis) -> None:
    stage = await staged(state, eye, TaskStatus.PROCESSING)
    stage.let_pass("leases")
    assert await stage.other.beat((stage.id, 2)) == (NodeStatus.ONLINE, ())
    assert await state.expire_leases() == ()
    record = await stage.record()
    assert (record.progress, record.stage) == (0.5, "fill")
    audit(eye)


async def test_a_beat_hears_which_attempts_are_not_its_own_any_more(state: StateManager, eye: redis.Redis) -> None:
    stage = await staged(state, eye, TaskStatus.PROCESSING)
    nobodys = new_id()
    _, lost = await stage.node.beat((stage.id, 1), (stage.id, 2), (nobodys, 1))
    assert {(one.task_id, one.attempt) for one in lost} == {(stage.id, 1), (stage.id, 2), (nobodys, 1)}
    assert (await stage.record()).node == "node-2"
    _, lost = await stage.other.beat((stage.id, 1), (stage.id, 2))
    assert [(one.task_id, one.attempt) for one in lost] == [(stage.id, 1)], "its own, but not its running one"
    audit(eye)


async def test_a_grant_that_never_reached_its_node_is_released_by_its_next_beat_but_one(
    state: StateManager, eye: redis.Redis
) -> None:
    stage = await staged(state, eye, TaskStatus.PROCESSING)
    await stage.other.beat()
    assert (await stage.record()).status == TaskStatus.PROCESSING, "it may still be on its way"
    stage.let_pass("held:node-2")
    await stage.other.beat()
    record = await stage.record()
    assert (record.status, record.retries) == (TaskStatus.QUEUED, 1)
    assert record.why == "the grant never reached node-2"
    audit(eye)


async def test_a_lost_node_gives_up_all_it_held_once_and_a_beat_brings_it_back(
    state: StateManager, node: Node, eye: redis.Redis
) -> None:
    ids = [(await state.submit_task(a_task(), queue=LIGHT)).id for _ in range(3)]
    await node.claim(3)
    assert await node.lose(seen_before_ms=LONG_AGO) is None, "it was seen after that"
    assert await node.lose() == 3
    assert await node.lose() is None
    assert await node.claim() == ()
    audit(eye)
    status, lost = await node.beat(*((task_id, 1) for task_id in ids))
    assert (status, len(lost)) == (NodeStatus.ONLINE, 3)
    assert len(await node.claim(9)) == 3
    audit(eye)


async def test_a_node_that_leaves_hands_back_and_leaving_twice_is_leaving(
    state: StateManager, node: Node, eye: redis.Redis
) -> None:
    task = await state.submit_task(a_task(), queue=LIGHT)
    await node.claim()
    await node.leave()
    told = eye.xlen("{lcq}:events")
    await node.leave()
    assert eye.xlen("{lcq}:events") == told
    record = await state.reader.task(task.id)
    assert (record.status, record.retries) == (TaskStatus.QUEUED, 0)
    assert [one.status for one in await state.reader.nodes()] == [NodeStatus.OFFLINE]
    audit(eye)


async def test_a_drained_node_keeps_what_it_has_takes_nothing_new_and_stays_so_over_a_restart(
    state: StateManager, node: Node, eye: redis.Redis
) -> None:
    first = await state.submit_task(a_task(), queue=LIGHT)
    await state.submit_task(a_task(), queue=LIGHT)
    await node.claim()
    await state.drain_node("node-1", why="by ann")
    with pytest.raises(TransitionRefused, match="draining"):
        await state.drain_node("node-1")
    assert await node.claim() == ()
    assert (await node.beat((first.id, 1)))[0] == NodeStatus.DRAINING
    await node.finish(first.id)
    audit(eye)
    reborn = Node(state, boot="boot-2")
    assert await reborn.hello() == NodeStatus.DRAINING
    audit(eye)
    await state.activate_node("node-1")
    with pytest.raises(TransitionRefused, match="online"):
        await state.activate_node("node-1")
    assert len(await reborn.claim()) == 1
    audit(eye)


async def test_a_drained_node_that_is_away_can_be_activated_and_takes_work_when_it_comes_back(
    state: StateManager, node: Node, eye: redis.Redis
) -> None:
    await state.drain_node("node-1")
    await node.lose()
    await state.activate_node("node-1", why="by ann")
    with pytest.raises(TransitionRefused, match="offline"):
        await state.activate_node("node-1")
    audit(eye)
    assert (await node.beat())[0] == NodeStatus.ONLINE
    audit(eye)


async def test_a_node_whose_beat_is_overdue_is_suspect_with_no_other_consequence_until_its_next(
    state: StateManager, node: Node, eye: redis.Redis
) -> None:
    running, next_one = a_task(), a_task()
    await state.submit_task(running, queue=LIGHT)
    assert await node.claim_ids() == [running.id]
    now = await state.now_ms()
    assert not await state.suspect_node("node-1", boot="boot-1", seen_before_ms=now - 60_000, why="late")
    assert not await state.suspect_node("node-1", boot="another", seen_before_ms=now, why="late")
    assert await state.suspect_node("node-1", boot="boot-1", seen_before_ms=now, why="no beat for 5 s")
    (record,) = await state.reader.nodes()
    assert (record.status, record.why, record.running) == (NodeStatus.SUSPECT, "no beat for 5 s", 1)
    await state.submit_task(next_one, queue=LIGHT)
    assert await node.claim_ids() == [next_one.id]
    audit(eye)
    assert await node.beat((running.id, 1), (next_one.id, 1)) == (NodeStatus.ONLINE, ())
    assert (await state.reader.nodes())[0].why == ""
    await state.drain_node("node-1", why="by ann")
    assert not await state.suspect_node("node-1", boot="boot-1", seen_before_ms=2**52, why="late")
    audit(eye)


async def test_an_act_is_done_once_a_command_and_told_again_as_the_first_time(
    state: StateManager, node: Node, eye: redis.Redis
) -> None:
    task = a_task()
    await state.submit_task(task, queue=LIGHT)
    await node.claim()
    first = await state.cancel_task(task.id, command="c1")
    await state.retry_task(task.id, queue=LIGHT, command="c2")
    assert await state.cancel_task(task.id, command="c1") == first, "and the new run is not cancelled"
    assert (await state.reader.task(task.id)).status is TaskStatus.QUEUED
    await state.retry_task(task.id, queue=LIGHT, command="c2")
    with pytest.raises(TransitionRefused):
        await state.retry_task(task.id, queue=LIGHT, command="c3")
    await state.cancel_task(task.id, command="c4")
    with pytest.raises(TransitionRefused):  # nothing was done, so nothing is remembered: it may be done now
        await state.cancel_task(task.id, command="c3")
    await state.retry_task(task.id, queue=LIGHT, command="c3")
    audit(eye)
    assert eye.pttl("{lcq}:done:c1") > 0, "it is not kept for ever"


async def test_a_beat_tells_how_devices_are_and_a_fault_that_comes_or_goes_is_an_event(
    state: StateManager, node: Node, eye: redis.Redis
) -> None:
    async def told(**readings: DeviceReading) -> list[tuple[str, str]]:
        last = eye.xlen("{lcq}:events")
        await node.beat(readings=readings)
        (record,) = await state.reader.nodes()
        assert record.readings == readings
        news = [fields for _, fields in eye.xrange("{lcq}:events")][last:]
        assert all(fields["move"] == "beat_node" and fields["status"] == "online" for fields in news)
        return [(fields["device"], fields["fault"]) for fields in news]

    assert await told() == []
    assert await told(cpu=DeviceReading(free_mib=900, total_mib=1000, warm=("lama",), busy=0.25)) == []
    assert await told(cpu=DeviceReading(free_mib=10)) == []
    assert await told(cpu=DeviceReading(fault="too hot")) == [("cpu", "too hot")]
    assert await told(cpu=DeviceReading(fault="too hot", free_mib=3)) == []
    assert await told(cpu=DeviceReading(fault="gone")) == [("cpu", "gone")]
    assert await told(cpu=DeviceReading()) == [("cpu", "")]
    assert await told(cpu=DeviceReading(), gpu=DeviceReading(fault="fell off the bus")) == [("gpu", "fell off the bus")]
    assert await told(cpu=DeviceReading()) == [("gpu", "")]
    audit(eye)


async def test_an_operators_word_to_free_memory_is_an_event_that_changes_nothing_else(
    state: StateManager, node: Node, eye: redis.Redis
) -> None:
    before = eye.hgetall("{lcq}:node:node-1")
    await state.release_models("node-1", why="released by ann: a film")
    assert eye.hgetall("{lcq}:node:node-1") == before
    fields = eye.xrevrange("{lcq}:events", count=1)[0][1]
    assert fields == {
        "move": "release_models", "node": "node-1", "status": "online", "why": "", "reason": "released by ann: a film"
    }  # fmt: skip
    await node.leave()
    with pytest.raises(TransitionRefused, match="cannot release node node-1: it is offline"):
        await state.release_models("node-1")
    audit(eye)


async def test_a_second_hello_of_one_boot_may_bring_other_devices_or_none(
    state: StateManager, node: Node, eye: redis.Redis
) -> None:
    task = await state.submit_task(a_task(), queue=LIGHT)
    assert await node.claim_ids() == [task.id]
    none = NodeCapability(left_out={"cpu": "its self-test failed"})
    await state.register_node("node-1", boot="boot-1", capability=none, serves={})
    (record,) = await state.reader.nodes()
    assert (record.slots, record.capability.left_out) == (0, {"cpu": "its self-test failed"})
    assert not (await state.reader.fleet()).is_served(LIGHT, "cv2-telea")
    audit(eye)
    assert await node.hello() == NodeStatus.ONLINE
    assert (await state.reader.fleet()).is_served(LIGHT, "cv2-telea")
    await node.finish(task.id)
    audit(eye)


async def test_a_poison_that_said_all_it_could_is_still_a_record_that_can_be_read(
    state: StateManager, node: Node
) -> None:
    task = await state.submit_task(a_task(), queue=LIGHT)
    wordy = Failure(error_class=ErrorClass.CRASH, code="runner_died", message="é" * 2000)
    for attempt in (1, 2):
        await node.claim()
        await node.fail(task.id, attempt, wordy)
    failure = (await state.reader.task(task.id)).failure
    assert failure is not None
    assert (failure.code, len(failure.message)) == ("poison", 2000)


async def test_acts_on_a_node_that_is_not_there_say_so(state: StateManager) -> None:
    for act in (state.drain_node, state.activate_node, state.release_models):
        with pytest.raises(NodeNotFound):
            await act("nobody")
    for word in (Node(state).claim, Node(state).beat, Node(state).leave):
        with pytest.raises(StaleBoot):
            await word()


async def test_a_node_is_forgotten_when_it_is_long_gone_and_its_late_result_brings_no_ghost(
    state: StateManager, eye: redis.Redis
) -> None:
    stage = await staged(state, eye, TaskStatus.QUEUED)
    assert await state.forget_nodes(silence_ms=0) == 0, "online nodes stay"
    await stage.node.leave()
    eye.zadd("{lcq}:nodes", {"node-1": LONG_AGO})
    assert await state.forget_nodes(silence_ms=1000) == 1
    assert await state.forget_nodes(silence_ms=1000) == 0
    await stage.node.finish(stage.id, 1)
    assert (await stage.record()).status == TaskStatus.COMPLETED
    assert set(audit(eye).nodes) == {"node-2"}


# ---------------------------------------------------------------- what schedulers share


async def test_a_duty_has_one_holder_until_it_stops_asking(state: StateManager, eye: redis.Redis) -> None:
    told = await asyncio.gather(*(state.take_duty("tasks", f"s{n}", hold_ms=60_000) for n in range(5)))
    (holder,) = (number for number, now_ms in enumerate(told) if now_ms is not None)
    assert await state.take_duty("tasks", f"s{holder}", hold_ms=60_000)
    eye.delete("{lcq}:duty:tasks")
    assert await state.take_duty("tasks", "another", hold_ms=60_000)
    audit(eye)


async def test_schedulers_show_since_when_they_listen_without_a_pause(state: StateManager, eye: redis.Redis) -> None:
    async def show(scheduler: str, gap_ms: int) -> None:
        await state.take_duty("nodes", scheduler, hold_ms=60_000, listens_gap_ms=gap_ms)

    await show("a", 60_000)
    await show("b", 60_000)  # whoever has not the duty listens as well
    first = await state.reader.listening()
    assert set(first) == {"a", "b"}
    assert all(ear.last_ms == ear.since_ms for ear in first.values())
    await wait_for_another_ms(eye)
    await show("a", 60_000)
    await show("b", 0)  # any pause is too long for that one
    ears = await state.reader.listening()
    assert ears["a"].since_ms == first["a"].since_ms < ears["a"].last_ms
    assert ears["b"].since_ms == ears["b"].last_ms > first["b"].last_ms
    audit(eye)
    await state.withdraw_scheduler("a")
    eye.hset("{lcq}:listening", "b", "1000 1000")  # it showed something for the last time long ago
    await state.announce_scheduler("c", "tcp://c:1", hold_ms=60_000)
    assert await state.reader.listening() == {}


async def wait_for_another_ms(eye: redis.Redis) -> None:
    """Redis counts in milliseconds."""
    (began, micros) = eye.time()
    await wait_until(lambda: eye.time() >= (began, micros + 2000) or eye.time()[0] > began, what="two milliseconds")


async def test_schedulers_are_listed_until_they_fall_silent(state: StateManager) -> None:
    await state.announce_scheduler("s1", "tcp://one:1", hold_ms=60_000)
    await state.announce_scheduler("s2", "tcp://two:2", hold_ms=-1)
    assert await state.reader.schedulers() == {"s1": "tcp://one:1"}
    await state.announce_scheduler("s3", "tcp://three:3", hold_ms=60_000)
    assert await state.reader.schedulers() == {"s1": "tcp://one:1", "s3": "tcp://three:3"}
    await state.withdraw_scheduler("s1")
    assert await state.reader.schedulers() == {"s3": "tcp://three:3"}


async def test_an_acts_answer_is_kept_byte_for_byte_for_a_copy_that_comes_later(
    state: StateManager, eye: redis.Redis
) -> None:
    answer = bytes(range(256))
    assert await state.recall_answer("c1") is None
    await state.note_act("c1", answer, {"actor": "ann", "cmd": "cancel"})
    assert await state.recall_answer("c1") == answer
    ((_, act),) = eye.xrange("{lcq}:acts")
    assert act == {"actor": "ann", "cmd": "cancel"}
    audit(eye)


async def test_the_audit_reads_much_in_portions_and_sees_the_same(
    state: StateManager, node: Node, eye: redis.Redis, monkeypatch: pytest.MonkeyPatch
):
    await state.submit_task(a_task(job="wedding"), queue=LIGHT, key="k")
    await node.claim()
    whole = keys_of(eye)
    assert {key.kind for key in whole} == {"hash", "list", "string", "set", "zset", "stream"}
    monkeypatch.setattr("tests.audit._AT_A_TIME", 7)
    assert keys_of(eye) == whole
    audit(eye)

"""F-46: a record in Redis that somebody has changed is reported and isolated, never obeyed; all others go on."""

from __future__ import annotations

import json
import random
from collections.abc import Callable

import pytest
import redis

from lcq.client import Client
from lcq.config import DistributedConfig
from lcq.errors import StaleBoot, TransitionRefused
from lcq.models import NodeStatus, TaskStatus
from lcq.state.manager import StateManager
from lcq.wire import ListTasks
from tests.audit import audit
from tests.cluster import drill, running_cluster
from tests.conftest import wait_until_sync
from tests.nodes import LIGHT, Node, a_task

LONG_AGO = 1
Harm = Callable[[redis.Redis, str], object]


@pytest.fixture
async def state(redis_url: str):
    async with StateManager(DistributedConfig(), url=redis_url) as state:
        yield state


@pytest.fixture
def eye(redis_url: str):
    with redis.Redis.from_url(redis_url, decode_responses=True) as client:
        yield client


def _set(field: str, value: str) -> Harm:
    return lambda eye, task_id: eye.hset(f"{{lcq}}:task:{task_id}", field, value)


def _drop(field: str) -> Harm:
    return lambda eye, task_id: eye.hdel(f"{{lcq}}:task:{task_id}", field)


def _other_type(eye: redis.Redis, task_id: str) -> None:
    eye.delete(f"{{lcq}}:task:{task_id}")
    eye.set(f"{{lcq}}:task:{task_id}", "\x00\xff garbage")


def _attempts_other_type(eye: redis.Redis, task_id: str) -> None:
    eye.delete(f"{{lcq}}:attempts:{task_id}")
    eye.set(f"{{lcq}}:attempts:{task_id}", "garbage")


def _another_picture(eye: redis.Redis, task_id: str) -> None:
    """The worst kind: valid in every way, but not what was asked for."""
    asked = json.loads(eye.hget(f"{{lcq}}:task:{task_id}", "json"))
    eye.hset(f"{{lcq}}:task:{task_id}", "json", json.dumps(asked | {"output_path": "/etc/cron.d/evil"}))


HARMS: dict[str, Harm] = {
    **{f"no {field}": _drop(field) for field in ("json", "digest", "idem", "model", "user", "queue", "status", "rev",
                                                 "priority", "attempt", "max_retries", "queued_ms")},
    **{f"{field}={value}": _set(field, value) for field, value in (
        ("status", "sleeping"), ("status", "completed"), ("rev", "many"), ("priority", "royal"), ("attempt", "7"),
        ("attempt", "nan"), ("attempt", "1e300"), ("queue", "no-such"), ("model", "cv2-ns"), ("score", "x"),
        ("retries", "-"), ("json", "{"), ("json", "[]"), ("json", '"x"'), ("json", "{}"), ("eased", "by_magic"),
        ("digest", "0" * 64), ("job", "another"), ("deadline_ms", "soon"))},
    "another type": _other_type,
    "attempts of another type": _attempts_other_type,
    "another picture": _another_picture,
}  # fmt: skip


EVENTS: list[tuple[str, dict[str, str]]] = [
    ("cancel_task", {"from": "node-1"}),
    ("reroute_task", {"from": "node-1", "attempt": "x"}),
    ("drain_node", {}),
    ("release_models", {"node": "node-1"}),
    ("", {"status": "queued"}),
]


@pytest.mark.parametrize("harm", HARMS.values(), ids=HARMS)
async def test_a_damaged_task_that_waits_is_failed_and_kept_and_all_others_run(
    state: StateManager, eye: redis.Redis, harm: Harm
) -> None:
    node = Node(state)
    await node.hello()
    tasks = [a_task(job="wedding") for _ in range(3)]
    for task in tasks:
        await state.submit_task(task, queue=LIGHT)
    damaged = tasks[0].id
    harm(eye, damaged)
    listed = await state.reader.list_tasks(ListTasks())
    assert [record.id for record in listed.tasks] == [task.id for task in reversed(tasks)]

    granted = [*await node.claim_ids(8), *await node.claim_ids(8)]

    assert sorted(granted) == sorted(task.id for task in tasks[1:])
    record = await state.reader.task(damaged)
    assert record.status == TaskStatus.FAILED
    assert record.failure is not None
    assert record.failure.code == "record_damaged"
    assert (await state.reader.list_tasks(ListTasks(cause="record_damaged"))).tasks == (record,)
    assert (await state.reader.totals())["isolated"] == 1
    for task_id in granted:
        await node.finish(task_id)
    audit(eye, events=False)


# A beat writes the deadline anew; and a running task's lane is only looked at when it waits again.
WHILE_IT_RUNS = {name: harm for name, harm in HARMS.items() if name not in ("deadline_ms=soon", "model=cv2-ns")}


@pytest.mark.parametrize("harm", WHILE_IT_RUNS.values(), ids=WHILE_IT_RUNS)
async def test_a_task_that_is_damaged_while_it_runs_neither_stops_the_sweep_nor_runs_on(
    state: StateManager, eye: redis.Redis, harm: Harm
) -> None:
    node = Node(state)
    await node.hello()
    tasks = [a_task(job="wedding") for _ in range(3)]
    for task in tasks:
        await state.submit_task(task, queue=LIGHT)
    assert len(await node.claim_ids(3)) == 3
    damaged = tasks[1].id
    harm(eye, damaged)
    await node.beat(*((task.id, 1) for task in tasks))  # a node's beat is not stopped by it
    eye.zadd("{lcq}:leases", {task.id: LONG_AGO for task in tasks}, xx=True)

    await state.expire_leases()

    others = {tasks[0].id, tasks[2].id}
    for task_id in others:
        assert (await state.reader.task(task_id)).status == TaskStatus.QUEUED
    granted = {*await node.claim_ids(8), *await node.claim_ids(8)}
    assert granted == others  # what only its JSON tells, the next claim finds
    assert (await state.reader.task(damaged)).status == TaskStatus.FAILED
    audit(eye, events=False)


@pytest.mark.parametrize("index", ["delayed", "leases", "expiry", "lane:cpu-light:cv2-telea", "held:node-1"])
async def test_an_id_without_a_record_is_taken_off_every_list(
    state: StateManager, eye: redis.Redis, index: str
) -> None:
    node = Node(state)
    await node.hello()
    ghost, task = a_task(), a_task()
    await state.submit_task(task, queue=LIGHT)
    eye.zadd(f"{{lcq}}:{index}", {ghost.id: LONG_AGO})
    eye.sadd("{lcq}:lanes", "cpu-light:cv2-telea")
    await state.expire_leases()
    await state.release_due()
    await state.forget_tasks()
    assert await node.claim_ids(4) == [task.id]
    await node.beat((task.id, 1))
    assert eye.zscore(f"{{lcq}}:{index}", ghost.id) is None
    audit(eye, events=False)


async def test_an_operators_retry_runs_a_task_whose_json_was_unharmed(state: StateManager, eye: redis.Redis) -> None:
    node = Node(state)
    await node.hello()
    task = a_task(job="wedding")
    await state.submit_task(task, queue=LIGHT)
    eye.hset(f"{{lcq}}:task:{task.id}", "priority", "royal")
    assert await node.claim_ids(4) == []
    await state.retry_task(task.id, queue=LIGHT)
    assert await node.claim_ids(4) == [task.id]
    await node.finish(task.id)
    audit(eye, events=False)


async def test_what_has_ended_stays_ended_also_where_its_record_is_damaged(
    state: StateManager, eye: redis.Redis
) -> None:
    node = Node(state)
    await node.hello()
    task = a_task()
    await state.submit_task(task, queue=LIGHT)
    await node.claim_ids()
    await node.finish(task.id)
    eye.hset(f"{{lcq}}:task:{task.id}", mapping={"status": "queued", "rev": "?"})
    with pytest.raises(TransitionRefused):
        await state.cancel_task(task.id)
    record = await state.reader.task(task.id)
    assert (record.status, record.result is not None) == (TaskStatus.COMPLETED, True)
    audit(eye, events=False)


async def test_a_result_is_taken_although_the_record_of_its_attempt_is_damaged(
    state: StateManager, eye: redis.Redis
) -> None:
    node = Node(state)
    await node.hello()
    task = a_task()
    await state.submit_task(task, queue=LIGHT)
    await node.claim_ids()
    eye.lset(f"{{lcq}}:attempts:{task.id}", 0, '{"number": 1, "no')
    assert [one.outcome for one in await state.reader.attempts(task.id)] == ["damaged"]
    await node.finish(task.id)
    assert (await state.reader.task(task.id)).status == TaskStatus.COMPLETED
    eye.zadd("{lcq}:expiry", {task.id: LONG_AGO})
    assert await state.forget_tasks() == 1
    assert audit(eye, events=False).tasks == {}


@pytest.mark.parametrize(
    ("field", "value"),
    [("capability", "{"), ("capability", '{"devices": 1}'), ("serves", "[]]"), ("lanes", "7"), ("boot", None),
     ("status", "asleep"), ("status", None), ("readings", "{{"), ("telemetry", "no"), ("retired", "{"),
     ("seen_ms", "never"), (None, None)],
)  # fmt: skip
async def test_a_node_whose_record_is_damaged_says_hello_again_and_keeps_what_it_holds(
    state: StateManager, eye: redis.Redis, field: str | None, value: str | None
) -> None:
    node, other = Node(state), Node(state, "node-2")
    for one in (node, other):
        await one.hello()
    tasks = [a_task(), a_task()]
    for task in tasks:
        await state.submit_task(task, queue=LIGHT)
    (held,) = await node.claim_ids(1)
    name = "{lcq}:node:node-1"
    if field is None:
        eye.delete(name)
        eye.set(name, "garbage")
    elif value is None:
        eye.hdel(name, field)
    else:
        eye.hset(name, field, value)

    nodes = {record.id: record for record in await state.reader.nodes()}  # as the console and routing read it
    assert nodes["node-2"].status == NodeStatus.ONLINE
    await state.reader.fleet()
    if nodes["node-1"].damaged:  # as the scheduler's sweep does
        await state.isolate_node("node-1", found=nodes["node-1"].damaged)
    assert len(await other.claim_ids(1)) == 1
    try:
        await node.beat((held, 1))
    except StaleBoot:
        await node.hello()
        await node.beat((held, 1))
    await node.hello()
    record = next(one for one in await state.reader.nodes() if one.id == "node-1")
    assert (record.status, record.running, record.damaged) == (NodeStatus.ONLINE, 1, "")
    await node.finish(held)
    assert (await state.reader.task(held)).status == TaskStatus.COMPLETED
    assert (await state.reader.task(held)).attempt == 1
    audit(eye, events=False)


async def test_a_drain_outlives_the_damage_of_a_nodes_record(state: StateManager, eye: redis.Redis) -> None:
    node = Node(state)
    await node.hello()
    await state.drain_node("node-1", why="by ann")
    eye.hset("{lcq}:node:node-1", "capability", "{")
    await state.isolate_node("node-1", found="a test says so")
    assert await node.hello() == NodeStatus.DRAINING


def test_a_real_cluster_goes_on_through_every_kind_of_damage(
    redis_url: str, tmp_path, eye: redis.Redis, rng: random.Random
) -> None:
    with running_cluster(redis_url, tmp_path / "c") as cluster:
        cluster.start_scheduler()
        cluster.start_agent("node-1", slots=1)
        with cluster.client() as client:
            client.pause("cpu-light")
            client.pause("cpu-intensive")
            work = [drill() for _ in range(2 * len(HARMS))]
            client.submit_many(work)
            victims = rng.sample([task.id for task in work], len(HARMS))
            for victim, harm in zip(victims, HARMS.values(), strict=True):
                harm(eye, victim)
            for move, fields in EVENTS:
                eye.xadd("{lcq}:events", {"move": move, **fields})
            eye.hset("{lcq}:node:node-1", "capability", '{"devices": 3}')
            eye.zadd("{lcq}:nodes", {"ghost": 1})
            eye.hset("{lcq}:schedulers", "ghost", "nonsense")
            eye.sadd("{lcq}:lanes", "nonsense")
            eye.zadd("{lcq}:delayed", {"not an id": 1})
            wait_until_sync(lambda: {node.id: node.status for node in client.nodes()}.get("node-1") == "online")
            client.resume("cpu-light")
            client.resume("cpu-intensive")
            sound = [task.id for task in work if task.id not in victims]
            done = client.wait(sound, timeout_s=60)
            assert {record.status for record in done} == {TaskStatus.COMPLETED}, cluster.logs()
            shown = {record.id: record for record in client.tasks()}
            assert set(shown) == {task.id for task in work}
            left = wait_until_sync(lambda: _all_isolated(client, victims), timeout=60)
            assert left == set(victims)
            history = client.history(victims[0])
            assert history.record.failure is not None
            assert history.record.failure.code == "record_damaged"
        assert cluster.processes["scheduler"].poll() is None
        log = cluster.log_path("scheduler").read_text()
        assert "event" in log
        assert "is damaged" in log


def _all_isolated(client: Client, victims: list[str]) -> set[str]:
    failed = {record.id for record in client.tasks(status=TaskStatus.FAILED, cause="record_damaged")}
    return failed if failed >= set(victims) else set()

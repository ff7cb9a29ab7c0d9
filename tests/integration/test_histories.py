"""What is kept for charts: by minute of the cluster and its queues, by half minute of each device; all expires."""

from __future__ import annotations

import json
from collections import Counter

import redis

from lcq.models import DeviceReading
from lcq.state.manager import StateManager
from tests.audit import audit
from tests.nodes import HEAVY, LIGHT, Node, a_task

READING = DeviceReading(total_mib=8192, free_mib=2048, busy=0.871, temperature_c=70.6, power_w=None)


async def test_a_minute_tells_what_was_done_what_waits_and_how_busy_devices_are(
    state: StateManager, node: Node
) -> None:
    tasks = [a_task() for _ in range(3)]
    for task in tasks:
        await state.submit_task(task, queue=LIGHT)
    (first,) = await node.claim_ids()
    await node.finish(first)
    await node.claim_ids()
    await state.note_depths()
    await node.beat(readings={"cpu": READING})

    before, *both = (await state.reader.minutes(3))[-3:]  # a minute may have begun in between

    counted = [(one.submitted, one.claimed, one.completed, one.failed, one.cancelled) for one in both]
    assert tuple(map(sum, zip(*counted, strict=True))) == (3, 2, 1, 0, 0)
    assert [one.completed_in for one in both if one.completed] == [{LIGHT: 1}]
    assert [(one.waiting, one.running, one.waiting_in[LIGHT]) for one in both if one.waiting is not None] == [(1, 1, 1)]
    assert [(one.busy, one.memory) for one in both if one.busy is not None] == [(0.87, 0.75)]
    assert before.waiting is None
    assert before.busy is None


async def test_a_device_is_sampled_every_half_minute_and_an_hour_of_it_is_kept(
    state: StateManager, node: Node, eye: redis.Redis
) -> None:
    for _ in range(3):
        await node.beat(readings={"cpu": READING})
    assert eye.llen("{lcq}:use:node-1") == 1
    eye.hset("{lcq}:node:node-1", "sampled_ms", 0)
    await node.beat(readings={"cpu": DeviceReading(busy=0.5), "GPU-1": READING})

    history = await state.reader.device_history("node-1")

    assert [sample.busy for sample in history["cpu"]] == [0.87, 0.5]
    assert [(one.used_mib, one.total_mib) for one in history["cpu"]] == [(6144, 8192), (None, None)]
    assert [(one.temperature_c, one.power_w) for one in history["GPU-1"]] == [(71, None)]
    audit(eye)  # it has a time to live
    eye.rpush("{lcq}:use:node-1", *[json.dumps({"at": n, "devices": {"cpu": [1, 1, 1, 1, 1]}}) for n in range(200)])
    eye.rpush("{lcq}:use:node-1", "{", json.dumps({"at": 1, "devices": {"cpu": 7}}))  # damage hides no other sample
    eye.hset("{lcq}:node:node-1", "sampled_ms", 0)
    await node.beat(readings={"cpu": READING})
    assert eye.llen("{lcq}:use:node-1") == 120
    assert len((await state.reader.device_history("node-1"))["cpu"]) == 118


async def test_a_node_that_tells_nothing_of_its_devices_has_no_history(
    state: StateManager, node: Node, eye: redis.Redis
) -> None:
    await node.beat()
    assert await state.reader.device_history("node-1") == {}
    audit(eye)


async def test_what_came_into_a_queue_less_what_left_it_is_what_it_holds(
    state: StateManager, node: Node, eye: redis.Redis
) -> None:
    done, moved, cancelled, again, failed = tasks = [a_task(max_retries=0) for _ in range(5)]
    for task in tasks:
        await state.submit_task(task, queue=LIGHT)
    for task in (done, failed):
        await state.reroute_task(task.id, queue=LIGHT, node=node.id)  # in its queue still
        assert await node.claim_ids() == [task.id]
    await node.finish(done.id)
    await node.fail(failed.id)
    await state.reroute_task(moved.id, queue=HEAVY)
    await state.cancel_task(cancelled.id)
    await state.cancel_task(again.id)
    await state.retry_task(again.id, queue=HEAVY, command="c1")
    await state.retry_task(cancelled.id, queue=LIGHT, command="c2")
    await state.undo_task(cancelled.id, of="c2", why="taken back")

    unknown = await state.reader.minutes(2)
    await state.note_depths()
    told = await state.reader.minutes(2)

    came, left = Counter[str](), Counter[str]()
    is_told = any(eye.hexists(f"{{lcq}}:minute:{minute.minute}", "flows") for minute in told)
    for minute in told:  # another may have begun in between, at which nobody has looked
        eye.hset(f"{{lcq}}:minute:{minute.minute}", "flows", 1)
    for minute in await state.reader.minutes(2):
        came.update(minute.came_in)
        left.update(minute.left_in)
    assert (came[LIGHT], left[LIGHT]) == (5 + 1, 6)
    assert (came[HEAVY], left[HEAVY]) == (2, 0)
    assert [one.came_in for one in unknown] == [{}, {}], "an older scheduler counts nothing: that is not none"
    assert is_told, "the minute in which somebody has looked"


async def test_a_minute_in_which_only_what_came_was_counted_expires(state: StateManager, eye: redis.Redis) -> None:
    task = a_task()
    await state.submit_task(task, queue=LIGHT)
    await state.cancel_task(task.id)
    for name in eye.scan_iter("{lcq}:minute:*"):
        eye.delete(name)
    await state.retry_task(task.id, queue=HEAVY)
    (minute,) = eye.scan_iter("{lcq}:minute:*")
    assert eye.hgetall(minute) == {f"came/{HEAVY}": "1"}
    audit(eye)

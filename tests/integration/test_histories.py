"""What is kept for charts: by minute of the cluster and its queues, by half minute of each device; all expires."""

from __future__ import annotations

import json

import redis

from lcq.models import DeviceReading
from lcq.state.manager import StateManager
from tests.audit import audit
from tests.nodes import LIGHT, Node, a_task

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

    *before, now = (await state.reader.minutes(3))[-3:]
    told = now if now.completed else before[-1]  # a minute may have begun in between

    assert (told.submitted, told.claimed, told.completed, told.failed, told.cancelled) == (3, 2, 1, 0, 0)
    assert told.completed_in == {LIGHT: 1}
    assert (now.waiting, now.running, now.waiting_in[LIGHT]) == (1, 1, 1)
    assert (now.busy, now.memory) == (0.87, 0.75)
    assert before[0].waiting is None
    assert before[0].busy is None


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

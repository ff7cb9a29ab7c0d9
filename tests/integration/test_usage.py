"""What was used is counted once for each attempt and each end, and outlives the tasks that it is of."""

from __future__ import annotations

import json

import redis

from lcq.config import DistributedConfig, PricesConfig, ReportConfig, RetryConfig
from lcq.models import UsageRow
from lcq.state.manager import StateManager
from lcq.usage import By, today_of
from tests.audit import audit
from tests.nodes import LIGHT, Node, a_failure, a_task


async def used(state: StateManager, by: By) -> dict[str, UsageRow]:
    days = (today_of(await state.now_ms() - 86_400_000), today_of(await state.now_ms()))
    return {row.name: row for row in (await state.reader.usage(days)).rows(by)}


def make_old(eye: redis.Redis, task_id: str, seconds: float) -> None:
    """Let the last attempt of a task have taken so long."""
    name = f"{{lcq}}:attempts:{task_id}"
    record = json.loads(eye.lindex(name, -1))
    record["started_ms"] = record["ended_ms"] - int(seconds * 1000)
    eye.lset(name, -1, json.dumps(record))


async def test_each_attempt_and_each_end_is_counted_once_and_outlives_its_task(
    state: StateManager, node: Node, eye: redis.Redis
):
    other = Node(state, "node-2")
    await other.hello()
    first = (await state.submit_task(a_task(user_id="ann", job="wedding", max_retries=3), queue=LIGHT)).id
    await node.claim()
    await node.fail(first, 1, a_failure())  # a back-off: it has not ended
    await state.account_tasks()
    assert not await used(state, "user")
    eye.zadd("{lcq}:delayed", {first: 1})
    await state.release_due()
    await other.claim()
    await other.finish(first, 2)
    make_old(eye, first, 9)
    second = (await state.submit_task(a_task(user_id="bob", job="party"), queue=LIGHT)).id
    await state.cancel_task(second, command="c1")
    for _ in range(2):
        await state.account_tasks()
    rows = await used(state, "user")
    assert (rows["ann"].completed, rows["ann"].attempts, rows["ann"].retries) == (1, 2, 1)
    assert 9 <= rows["ann"].cpu_s < 60
    assert rows["ann"].megapixels == 12e-6
    assert (rows["bob"].cancelled, rows["bob"].attempts) == (1, 0)
    nodes = await used(state, "node")
    assert (nodes["node-1"].attempts, nodes["node-1"].completed) == (1, 0)
    assert (nodes["node-2"].attempts, nodes["node-2"].completed) == (1, 1)
    assert (await used(state, "job"))["wedding"].tasks == 1
    assert sum(row.tasks for row in (await used(state, "day")).values()) == 2
    audit(eye)
    await state.retry_task(first, queue=LIGHT, command="c2")
    await state.undo_task(first, of="c2")  # that it ended so was counted
    await state.account_tasks()
    assert (await used(state, "user"))["ann"].completed == 1
    await state.retry_task(first, queue=LIGHT)
    await node.claim()
    await node.finish(first, 3)
    eye.zadd("{lcq}:expiry", {first: 1})
    assert await state.forget_tasks() == 1  # and counts what nobody has counted yet
    await state.account_tasks()
    rows = await used(state, "user")
    assert (rows["ann"].completed, rows["ann"].attempts) == (2, 3)
    assert 0 < eye.ttl(next(eye.scan_iter("{lcq}:usage:*"))) <= 402 * 86_400
    audit(eye)


async def test_an_hour_costs_what_the_node_its_label_or_its_device_does(redis_url: str, eye: redis.Redis):
    prices = PricesConfig(nodes={"node-1": 8.0}, labels={"zone=cloud": 4.0}, cpu=2.0)
    config = DistributedConfig(report=ReportConfig(prices=prices), retries=RetryConfig(base_s=3600, max_s=3600))
    async with StateManager(config, url=redis_url) as state:
        for node in (Node(state), Node(state, "node-2", labels={"zone": "cloud"}), Node(state, "node-3")):
            await node.hello()
            task = (await state.submit_task(a_task(user_id=node.id), queue=LIGHT)).id
            await node.claim()
            await node.finish(task, 1)
            make_old(eye, task, 3600)
        await state.account_tasks()
        costs = {name: row.cost for name, row in (await used(state, "user")).items()}
        assert costs == {"node-1": 2.0, "node-2": 1.0, "node-3": 0.5}, "an hour of one of four slots"

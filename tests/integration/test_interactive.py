"""Slots that are kept for people who wait: which are, what may have them, and for how long."""

from __future__ import annotations

import redis

from lcq.config import DistributedConfig
from lcq.costs import SHIPPED
from lcq.models import TaskPriority
from lcq.outlook import Outlook
from lcq.reserve import kept_slots
from lcq.state.manager import StateManager
from lcq.wire import Grant
from tests.audit import audit
from tests.conftest import wait_until
from tests.nodes import HEAVY, LIGHT, NS, TELEA, Node, a_task
from tests.unit.test_placement import a_node, fleet

NORMAL, HIGH, URGENT = TaskPriority.NORMAL, TaskPriority.HIGH, TaskPriority.URGENT


async def many(
    state: StateManager, count: int, priority: TaskPriority = NORMAL, *, interactive: bool = False, **more: str
) -> list[str]:
    tasks = [a_task(more.get("model", TELEA), user_id=more.get("user", "ann"), priority=priority) for _ in range(count)]
    for task in tasks:
        await state.submit_task(
            task, queue=more.get("queue", LIGHT), node=more.get("node", ""), interactive=interactive
        )
    return [task.id for task in tasks]


def ids(grants: tuple[Grant, ...]) -> list[str]:
    return [grant.task.id for grant in grants]


async def test_kept_slots_are_for_what_is_of_priority_high_or_urgent_alone(state: StateManager, node: Node) -> None:
    batch = await many(state, 40)
    assert ids(await node.claim(4, most_others=3)) == batch[:3]
    assert await node.claim(1, most_others=3) == ()
    assert await node.claim(16, most_others=3) == (), "nor is any held ahead"
    high = await many(state, 2, HIGH, user="ben")
    urgent = await many(state, 1, URGENT, user="cid", model=NS)
    assert ids(await node.claim(1, most_others=3)) == urgent
    assert ids(await node.claim(5, most_others=3)) == high
    await node.finish(batch[0])
    assert ids(await node.claim(2, most_others=3)) == batch[3:4]
    assert ids(await node.claim(2)) == batch[4:6], "without anybody who waits it is as it ever was"
    audit(redis.Redis.from_url(state.url, decode_responses=True))


async def test_one_claim_fills_both_kinds_of_slots_each_in_its_order(state: StateManager) -> None:
    node = Node(state, queues=(LIGHT, HEAVY))
    await node.hello()
    batch, heavy = await many(state, 3), await many(state, 2, queue=HEAVY, user="ben")
    pinned, high = await many(state, 1, node=node.id), await many(state, 25, HIGH, user="cid")
    got = ids(await node.claim(8, most_others=1))
    assert got[0] == pinned[0], "what is kept for the node counts as other work too"
    assert got[1:] == high[:7]
    got = ids(await node.claim(4, most_others=3))
    assert got == high[7:11]
    for task_id in high[11:]:
        await state.cancel_task(task_id)
    got = ids(await node.claim(4, most_others=3))
    assert (len(got), set(got) <= {*batch, *heavy}) == (2, True)
    audit(redis.Redis.from_url(state.url, decode_responses=True))


async def test_a_user_at_its_limit_has_no_kept_slot_either(redis_url: str) -> None:
    config = DistributedConfig.model_validate({"quotas": {"in_flight": 1}, "redis": {"url": redis_url}})
    async with StateManager(config) as state:
        node = Node(state)
        await node.hello()
        (first, _), (other,) = await many(state, 2, HIGH), await many(state, 1, HIGH, user="ben")
        assert ids(await node.claim(4, most_others=0)) == [first, other]
        audit(redis.Redis.from_url(redis_url, decode_responses=True))


async def test_slots_are_kept_from_a_request_of_somebody_who_waits_until_a_while_after(redis_url: str) -> None:
    config = DistributedConfig.model_validate({"http": {"interactive_s": 3600}, "redis": {"url": redis_url}})
    async with StateManager(config) as state:
        node = Node(state)
        await node.hello()
        (record,) = await state.reader.nodes()
        (device,) = record.capability.devices
        await many(state, 1, HIGH)
        assert await Outlook(state.reader).kept(record, device, 2) == 0, "nobody waits for that"
        await many(state, 1, HIGH, interactive=True)
        assert (await state.reader.fleet()).interactive == {(LIGHT, TELEA)}

        async def kept() -> int:
            return await Outlook(state.reader).kept(record, device, 2)

        async def is_kept() -> bool:
            return await kept() == 2

        async def is_over() -> bool:
            return await kept() == 0

        await wait_until(is_kept)
        client = redis.Redis.from_url(redis_url, decode_responses=True)
        audit(client)
        assert 0 < client.pttl("{lcq}:interactive") <= 3_600_000
        client.hincrby("{lcq}:interactive", f"{LIGHT}:{TELEA}", -3_600_000)
        await wait_until(is_over)


def test_slots_are_kept_where_they_are_most_and_never_all():
    def kept(most: int, *slots: int) -> list[int]:
        nodes = [a_node(f"n{place}", slots=count) for place, count in enumerate(slots)]
        stations = fleet(*nodes, costs=SHIPPED).timetable.stations.values()
        found = kept_slots(stations, [("gpu-low", "lama")], most)
        assert sum(found.values()) == min(most, sum(slots) - 1)
        assert kept_slots(stations, [("gpu-low", "mat"), ("cpu-light", "lama")], most) == {}
        return [found.get((f"n{place}", station.device.id), 0) for place, station in enumerate(stations)]

    assert kept(1, 1) == [0]
    assert kept(1, 1, 1, 1) == [1, 0, 0]
    assert kept(1, 2, 4) == [0, 1]
    assert kept(5, 2, 4) == [1, 4]
    assert kept(4, 2, 4) == [1, 3]
    assert kept(99, 2, 4) == [1, 4]
    assert kept(0, 2, 4) == [0, 0]


def test_queues_that_share_devices_share_what_is_kept_there():
    stations = fleet(a_node("big", slots=4, vram_mib=9000), costs=SHIPPED).timetable.stations.values()
    both = kept_slots(stations, [("gpu-low", "lama"), ("gpu-high", "lama")], 2)
    assert list(both.values()) == [2]

"""Tasks that require labels: who is granted them, what they wait for, and how an operator changes it."""

from __future__ import annotations

import json
from collections.abc import Mapping

import pytest
import redis

from lcq.costs import SHIPPED
from lcq.errors import TooManyRequirements
from lcq.models import DeviceKind, DeviceReading, ErrorClass, TaskStatus
from lcq.placement import Patience
from lcq.routing import route
from lcq.state.manager import StateManager
from lcq.state.scripts import MOST_LABELLED_LANES
from lcq.why import why_of
from tests.audit import audit
from tests.nodes import LIGHT, NS, TELEA, Node, a_failure, a_task, the_cpu

RACK_3 = {"rack": "3"}


async def a_node(state: StateManager, name: str, labels: Mapping[str, str]) -> Node:
    node = Node(state, name, labels=labels)
    await node.hello()
    return node


async def submitted(state: StateManager, requires: Mapping[str, str], *, node: str = "", model: str = TELEA) -> str:
    task = a_task(model, requires=dict(requires))
    return (await state.submit_task(task, queue=LIGHT, node=node)).id


async def test_a_task_is_granted_only_to_nodes_that_have_all_its_labels(state: StateManager, eye: redis.Redis) -> None:
    plain = await a_node(state, "plain", {})
    near = await a_node(state, "near", {"rack": "3", "zone": "b"})
    both = await a_node(state, "both", {"rack": "3", "zone": "a", "paid": "yes"})
    task = await submitted(state, {"zone": "a", "rack": "3"})
    audit(eye)
    assert await plain.claim_ids() == await near.claim_ids() == []
    assert await both.claim_ids() == [task]
    audit(eye)
    assert not eye.exists("{lcq}:labelled")


async def test_tasks_with_and_without_requirements_keep_one_order(state: StateManager) -> None:
    node = await a_node(state, "racked", RACK_3)
    other = await a_node(state, "other", {"rack": "4"})
    wanted = [await submitted(state, requires) for requires in ({}, RACK_3, {}, {"rack": "4"}, RACK_3)]
    assert await node.claim_ids(9) == [wanted[0], wanted[1], wanted[2], wanted[4]]
    assert await other.claim_ids(9) == [wanted[3]]


async def test_a_task_pinned_to_a_node_waits_for_the_label_too(state: StateManager, eye: redis.Redis) -> None:
    await a_node(state, "a", {})
    task = await submitted(state, RACK_3, node="a")
    audit(eye)
    fleet, record = await state.reader.fleet(), await state.reader.task(task)
    assert why_of(record, fleet).text == "node a has not all labels that the task requires (rack=3); it has none"
    assert await Node(state, "a").claim_ids() == []
    again = await a_node(state, "a", RACK_3)
    assert await again.claim_ids() == [task]
    audit(eye)


async def test_an_operators_word_over_the_agents_counts_at_the_next_claim(
    state: StateManager, eye: redis.Redis
) -> None:
    node = await a_node(state, "a", RACK_3)
    first, second = await submitted(state, RACK_3), await submitted(state, {"rack": "9"})
    eye.hset("{lcq}:node:a", "relabelled", json.dumps({"rack": None}))
    assert await node.claim_ids(9) == []
    (record,) = await state.reader.nodes()
    assert record.labels == {}
    eye.hset("{lcq}:node:a", "relabelled", json.dumps({"rack": "9"}))
    assert await node.claim_ids(9) == [second]
    await node.hello()
    assert await node.claim_ids(9) == []
    eye.hdel("{lcq}:node:a", "relabelled")
    assert await node.claim_ids(9) == [first]


async def test_a_task_that_failed_leaves_its_node_only_where_another_one_has_the_label(state: StateManager) -> None:
    node = await a_node(state, "a", RACK_3)
    await a_node(state, "unlabelled", {})
    task = await submitted(state, RACK_3)
    crash = a_failure(ErrorClass.CRASH, "runner_died")
    assert await node.claim_ids() == [task]
    await node.fail(task, 1, crash)
    assert await node.claim_ids() == [task]
    other = await a_node(state, "b", RACK_3)
    await node.fail(task, 2, a_failure(ErrorClass.BAD_OUTPUT, "not_finite"))
    assert await node.claim_ids() == []
    assert await other.claim_ids() == [task]


async def test_a_reroute_changes_what_a_task_requires(state: StateManager, eye: redis.Redis) -> None:
    one, two = await a_node(state, "one", {"rack": "1"}), await a_node(state, "two", {"rack": "2"})
    task = await submitted(state, {"rack": "1"})
    asked = (await state.reader.task(task)).task.model_copy(update={"requires": {"rack": "2"}})
    await state.reroute_task(task, queue=LIGHT, asked=asked)
    audit(eye)
    assert (await state.reader.task(task)).task.requires == {"rack": "2"}
    assert await one.claim_ids() == []
    assert await two.claim_ids() == [task]
    await state.reroute_task(task, queue=LIGHT, asked=asked.model_copy(update={"requires": {}}))
    audit(eye)
    assert (await state.reader.task(task)).task.requires == {}
    assert await one.claim_ids() == [task]
    await state.reroute_task(task, queue=LIGHT)  # says nothing of labels
    assert (await state.reader.task(task)).task.requires == {}
    await state.cancel_task(task)
    await state.retry_task(task, queue=LIGHT)
    assert (await state.reader.task(task)).task.requires == {}
    audit(eye)


async def test_too_many_different_requirements_at_once_are_refused_and_known_ones_are_not(
    state: StateManager, eye: redis.Redis
) -> None:
    first, *_ = [await submitted(state, {"n": str(number)}) for number in range(MOST_LABELLED_LANES)]
    with pytest.raises(TooManyRequirements, match="none can wait for n=new too"):
        await submitted(state, {"n": "new"})
    await submitted(state, {"n": "0"})
    free = await submitted(state, {})
    with pytest.raises(TooManyRequirements):
        await state.reroute_task(free, queue=LIGHT, asked=a_task(requires={"n": "new"}))
    assert (await state.reader.task(free)).task.requires == {}
    node = await a_node(state, "a", {"n": "0"})
    assert len(await node.claim_ids(9)) == 3
    await submitted(state, {"n": "new"})
    audit(eye)
    assert (await state.reader.task(first)).status is TaskStatus.PROCESSING


async def test_routing_counts_only_nodes_with_the_labels_and_says_which_one_is_missing(state: StateManager) -> None:
    await a_node(state, "a", {"rack": "1"})
    ns = Node(state, "b", models=(NS,), labels={"rack": "2"})
    await ns.hello()
    fleet = await state.reader.fleet()
    assert fleet.is_served(LIGHT, a_task(requires={"rack": "1"}).lane)
    assert not fleet.is_served(LIGHT, a_task(requires={"rack": "2"}).lane)

    def why(requires: Mapping[str, str]) -> str:
        return route(a_task(requires=dict(requires)), fleet, queue=LIGHT).why

    assert why({"rack": "1"}) == ""
    assert why(RACK_3) == "no node has label rack=3 (there is rack=1, 2)"
    assert why({"rack": "2"}) == f"of the nodes with model {TELEA}, no node has label rack=2 (there is rack=1)"


async def test_a_node_that_has_the_label_and_is_away_is_named(state: StateManager) -> None:
    await a_node(state, "a", {})
    away = await a_node(state, "b", RACK_3)
    await away.leave()
    why = route(a_task(requires=RACK_3), await state.reader.fleet(), queue=LIGHT).why
    assert why == "node b, which has label rack=3, is offline: left in order"


async def test_a_task_that_requires_labels_is_not_left_to_a_faster_device_that_may_not_have_them(
    state: StateManager,
) -> None:
    node = Node(state, "slow", models=("lama",), labels=RACK_3)
    await node.hello()
    plain = await submitted(state, {}, model="lama")
    labelled = await submitted(state, RACK_3, model="lama")
    capability = the_cpu(("lama",))
    (cpu,) = capability.devices

    async def claimed(patience: Patience) -> list[str]:
        grants = await state.claim_tasks(
            node=node.id, boot=node.boot, device="cpu", kind=DeviceKind.CPU, slots=9, lanes=node.models,
            queues=node.queues, costs=SHIPPED.curves_as_json(capability, cpu), patience=patience,
        )  # fmt: skip
        return [grant.task.id for grant in grants]

    assert await claimed({LIGHT: {"lama": (0.01, 0.01, 0.001)}}) == [labelled]
    assert await claimed({}) == [plain]


async def test_beats_leave_labels_as_they_are(state: StateManager) -> None:
    node = await a_node(state, "a", RACK_3)
    await node.beat(readings={"cpu": DeviceReading(free_mib=5)})
    (record,) = await state.reader.nodes()
    assert record.labels == RACK_3

"""Blame, quarantine, probes and the budget of retries, move by move, with every key accounted for."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import redis

from lcq.config import DistributedConfig, QuarantineConfig, RetryConfig
from lcq.errors import NodeNotFound, StaleBoot, TransitionRefused
from lcq.models import (
    Device,
    DeviceKind,
    DeviceReading,
    ErrorClass,
    Failure,
    Lowered,
    NodeRecord,
    NodeStatus,
    TaskStatus,
)
from lcq.slow import LEARNED, WINDOW
from lcq.state.manager import StateManager
from lcq.wire import Outcome, Step, Want
from tests.audit import audit
from tests.chaos.rig import a_rig
from tests.conftest import wait_until
from tests.light_node import LightNode, a_light_node, light_nodes
from tests.nodes import LIGHT, TELEA, Node, a_failure, a_result, a_task, the_cpu

BAD = a_failure(ErrorClass.BAD_OUTPUT, "stripes")
LONG_AGO = 1


@pytest.fixture
async def state(redis_url: str) -> AsyncIterator[StateManager]:
    config = DistributedConfig(
        retries=RetryConfig(base_s=0, max_s=0, per_minute=1000, per_cause_per_minute=10, share=0, longest_wait_s=500),
        quarantine=QuarantineConfig(tasks=3, pause_s=100, longest_pause_s=300, probation=2),
    )
    async with StateManager(config, url=redis_url) as state:
        yield state


@pytest.fixture
async def pair(state: StateManager) -> tuple[Node, Node]:
    """Two nodes that do the same work."""
    nodes = Node(state), Node(state, "node-2", "boot-2")
    for node in nodes:
        await node.hello()
    return nodes


async def submitted(state: StateManager, count: int = 1, **fields: object) -> list[str]:
    return [(await state.submit_task(a_task(**fields), queue=LIGHT)).id for _ in range(count)]


async def record_of(state: StateManager, node: Node) -> NodeRecord:
    return next(one for one in await state.reader.nodes() if one.id == node.id)


async def failed_once(node: Node, failure: Failure = BAD) -> bool:
    (grant,) = await node.claim()
    return await node.state.fail_task(grant.task.id, attempt=grant.attempt, node=node.id, failure=failure)


# ---------------------------------------------------------------- blame


async def test_tasks_that_fail_on_one_node_count_against_it_until_it_is_too_much(
    state: StateManager, pair: tuple[Node, Node], eye: redis.Redis
) -> None:
    await submitted(state, 3)
    assert [await failed_once(pair[0]) for _ in range(3)] == [False, False, True]
    assert (await record_of(state, pair[0])).blame == pytest.approx(3, abs=0.1)
    assert (await record_of(state, pair[1])).blame == 0
    audit(eye)


async def test_a_task_that_fails_on_a_second_node_too_clears_the_first(
    state: StateManager, pair: tuple[Node, Node], eye: redis.Redis
) -> None:
    await submitted(state, 2)
    for _ in range(2):
        await failed_once(pair[0])
    for _ in range(2):
        await failed_once(pair[1])
    assert [(await record_of(state, node)).blame for node in pair] == [pytest.approx(0, abs=0.01), 0]
    audit(eye)


@pytest.mark.parametrize("error_class", [ErrorClass.BAD_INPUT, ErrorClass.RESOURCE])
async def test_a_bad_input_and_a_lack_of_memory_are_nobodys_fault(
    state: StateManager, pair: tuple[Node, Node], error_class: ErrorClass
) -> None:
    await submitted(state, 8)
    assert not any([await failed_once(pair[0], a_failure(error_class, "x")) for _ in range(8)])
    assert (await record_of(state, pair[0])).blame == 0


async def test_nobody_is_blamed_where_there_is_nobody_to_compare_with(state: StateManager, node: Node) -> None:
    await submitted(state, 8)
    assert not any([await failed_once(node) for _ in range(8)])
    assert (await record_of(state, node)).blame == 0


async def test_what_is_pinned_to_a_node_says_nothing_about_it(state: StateManager, pair: tuple[Node, Node]) -> None:
    await state.submit_task(a_task(), queue=LIGHT, node="node-1")
    await failed_once(pair[0])
    assert (await record_of(state, pair[0])).blame == 0


async def test_a_completed_task_takes_a_part_of_the_blame_away(state: StateManager, pair: tuple[Node, Node]) -> None:
    await submitted(state)
    await failed_once(pair[0])
    for task_id in await submitted(state, 40):
        assert await state.reader.task(task_id)
    for grant in await pair[0].claim(40):
        await pair[0].finish(grant.task.id, grant.attempt)
    assert (await record_of(state, pair[0])).blame < 0.1


async def test_a_suspected_nodes_word_alone_costs_a_task_nothing(
    state: StateManager, pair: tuple[Node, Node], eye: redis.Redis
) -> None:
    first, second = await submitted(state, 2, max_retries=1)
    await failed_once(pair[0])
    await failed_once(pair[0], a_failure(ErrorClass.CRASH, "runner_died"))
    records = [await state.reader.task(task_id) for task_id in (first, second)]
    assert [(one.status, one.retries) for one in records] == [(TaskStatus.QUEUED, 1), (TaskStatus.QUEUED, 0)]
    assert eye.hget(f"{{lcq}}:task:{second}", "deaths") == "0"
    assert eye.hget(f"{{lcq}}:task:{second}", "avoid") == "node-1"


async def test_a_transient_failure_that_may_be_the_nodes_is_tried_elsewhere(
    state: StateManager, pair: tuple[Node, Node]
) -> None:
    (task_id,) = await submitted(state, max_retries=1)
    await failed_once(pair[0], a_failure(ErrorClass.TRANSIENT, "disk_slow"))
    assert await pair[0].claim_ids() == []
    assert await pair[1].claim_ids() == [task_id]


# ---------------------------------------------------------------- quarantine


async def test_quarantine_takes_no_work_and_gives_back_what_the_node_has_cost(
    state: StateManager, pair: tuple[Node, Node], eye: redis.Redis
) -> None:
    crashed, running = await submitted(state, 2, max_retries=1)
    await failed_once(pair[0], a_failure(ErrorClass.CRASH, "runner_died"))
    assert await pair[0].claim_ids() == [running]
    assert (await state.reader.task(crashed)).retries == 1
    assert await state.quarantine_node("node-1", why="failed") == 1
    audit(eye)
    assert (await state.reader.task(crashed)).retries == 0
    assert eye.hget(f"{{lcq}}:task:{crashed}", "deaths") == "0"
    assert await pair[0].claim_ids(3) == []
    await pair[0].finish(running)  # what it runs it may finish
    record = await record_of(state, pair[0])
    assert (record.status, record.why) == (NodeStatus.QUARANTINED, "failed")
    assert await pair[1].claim_ids(3) == [crashed]
    with pytest.raises(TransitionRefused):
        await state.quarantine_node("node-1")
    with pytest.raises(NodeNotFound):
        await state.quarantine_node("nobody")
    audit(eye)


async def test_quarantine_outlives_restarts_and_silence_with_its_reason(
    state: StateManager, pair: tuple[Node, Node], eye: redis.Redis
) -> None:
    await state.quarantine_node("node-1", why="stripes")
    await pair[0].lose()
    assert (await pair[0].beat())[0] is NodeStatus.QUARANTINED
    assert (await record_of(state, pair[0])).why == "stripes"
    await pair[0].lose()
    assert await Node(state, boot="boot-9").hello() is NodeStatus.QUARANTINED
    assert (await record_of(state, pair[0])).why == "stripes"
    audit(eye)


async def test_a_node_is_probed_after_a_pause_that_doubles_and_forgiven_on_probation(
    state: StateManager, pair: tuple[Node, Node], eye: redis.Redis
) -> None:
    def pause_s() -> float:
        record = eye.hgetall("{lcq}:node:node-1")
        return (int(float(record["probe_ms"])) - int(eye.time()[0]) * 1000) / 1000

    await state.quarantine_node("node-1", why="stripes")
    assert 90 < pause_s() <= 101
    assert await state.settle_probe("node-1", boot="boot-1", passed=True) is None, "nobody has asked it to"
    for expected_s in (200, 300, 300):
        assert not await state.probe_node("node-1", boot="boot-1")
        eye.hset("{lcq}:node:node-1", "probe_ms", LONG_AGO)
        assert await state.probe_node("node-1", boot="boot-1")
        assert await state.probe_node("node-1", boot="boot-1"), "it is asked until it answers"
        status = await state.settle_probe("node-1", boot="boot-1", passed=False, detail="grey")
        assert status is NodeStatus.QUARANTINED
        assert expected_s - 10 < pause_s() <= expected_s + 1
    assert (await record_of(state, pair[0])).why == "stripes; probe failed: grey"
    eye.hset("{lcq}:node:node-1", "probe_ms", LONG_AGO)
    assert await state.probe_node("node-1", boot="boot-1")
    with pytest.raises(StaleBoot):
        await state.settle_probe("node-1", boot="boot-0", passed=True)
    assert await state.settle_probe("node-1", boot="boot-1", passed=True) is NodeStatus.ONLINE
    assert await state.settle_probe("node-1", boot="boot-1", passed=True) is None, "told twice"
    audit(eye)
    ids = await submitted(state, 4)
    assert await pair[0].claim_ids(4) == ids[:1], "on probation: one at a time"
    assert await pair[0].claim_ids(4) == []
    await pair[0].finish(ids[0])
    assert await pair[0].claim_ids(4) == ids[1:2]
    await pair[0].finish(ids[1])
    assert await pair[0].claim_ids(4) == ids[2:]
    record = await record_of(state, pair[0])
    assert (record.probation, record.why) == (0, "")
    audit(eye)


async def test_failing_on_probation_leads_back_and_the_pause_is_longer(
    state: StateManager, pair: tuple[Node, Node], eye: redis.Redis
) -> None:
    await state.quarantine_node("node-1", why="stripes")
    eye.hset("{lcq}:node:node-1", "probe_ms", LONG_AGO)
    await state.probe_node("node-1", boot="boot-1")
    await state.settle_probe("node-1", boot="boot-1", passed=True)
    await submitted(state, 2)
    assert [await failed_once(pair[0]) for _ in range(2)] == [False, True]
    await state.quarantine_node("node-1", why="again")
    assert eye.hget("{lcq}:node:node-1", "quarantines") == "2"


async def test_an_operators_quarantine_is_never_probed_and_ends_by_activation_with_a_clean_slate(
    state: StateManager, pair: tuple[Node, Node], eye: redis.Redis
) -> None:
    await submitted(state)
    await failed_once(pair[0])
    await state.quarantine_node("node-1", why="by ann", probed=False)
    assert not await state.probe_node("node-1", boot="boot-1")
    await state.activate_node("node-1")
    record = await record_of(state, pair[0])
    assert (record.status, record.blame, record.probation) == (NodeStatus.ONLINE, 0, 0)
    assert not eye.exists("{lcq}:blame:node-1")
    await state.quarantine_node("node-1", why="the cluster")
    await state.quarantine_node("node-1", why="by ann", probed=False)
    assert (await record_of(state, pair[0])).probe_ms is None
    audit(eye)


# ---------------------------------------------------------------- the budget of retries


async def test_a_retry_over_the_budget_waits_longer_says_why_and_costs_nothing(
    state: StateManager, node: Node, eye: redis.Redis
) -> None:
    ids = await submitted(state, 14, max_retries=1)
    for grant in await node.claim(14):
        await node.fail(grant.task.id, grant.attempt)
    records = [await state.reader.task(task_id) for task_id in ids]
    assert [(one.status, one.retries) for one in records[:10]] == [(TaskStatus.QUEUED, 1)] * 10
    over = records[10:]
    assert [(one.status, one.retries) for one in over] == [(TaskStatus.PENDING, 0)] * 4
    dues = [one.due_ms or 0 for one in over]
    apart = [due - before for before, due in itertools.pairwise(dues)]
    assert all(abs(one - 6000) <= 2 for one in apart), f"six seconds apart, as ten a minute are: {dues}"
    assert 0 < dues[0] - over[0].updated_ms <= 6000
    assert over[0].why.startswith("over the retry budget (retries of cpu-light/storage_timeout, 10 a minute): waits ")
    other = (await submitted(state))[0]
    grants = {grant.task.id: grant for grant in await node.claim(11)}
    await node.fail(other, grants[other].attempt, a_failure(ErrorClass.TRANSIENT, "other_cause"))
    assert (await state.reader.task(other)).status == TaskStatus.QUEUED, "another cause has a budget of its own"
    audit(eye)


async def test_a_retry_waits_no_longer_than_the_longest_wait(state: StateManager, node: Node, eye: redis.Redis) -> None:
    ids = await submitted(state, 200)
    for grant in await node.claim(200):
        await node.fail(grant.task.id, grant.attempt)
    records = [await state.reader.task(task_id) for task_id in ids]
    assert max((one.due_ms or 0) - one.updated_ms for one in records) <= 500_000
    assert 0 < eye.pttl("{lcq}:budget") <= 620_000


async def test_what_was_completed_of_late_lets_more_retries_through(redis_url: str, eye: redis.Redis) -> None:
    terms = RetryConfig(base_s=0, max_s=0, per_minute=10, per_cause_per_minute=10, share=1.0)
    async with StateManager(DistributedConfig(retries=terms), url=redis_url) as state:
        node = Node(state)
        await node.hello()
        await submitted(state, 40)
        grants = await node.claim(40)
        for grant in grants[:20]:
            await node.finish(grant.task.id)
        for grant in grants[20:]:
            await node.fail(grant.task.id)
        counts = await state.reader.counts()
        assert (counts[TaskStatus.QUEUED], counts[TaskStatus.PENDING]) == (20, 0)
        audit(eye)


async def test_a_lost_node_is_no_storm(state: StateManager, node: Node) -> None:
    await submitted(state, 30)
    await node.claim(30)
    assert await node.lose() == 30
    assert (await state.reader.counts())[TaskStatus.QUEUED] == 30


async def test_what_a_dead_dependency_fails_costs_no_retry(state: StateManager, pair: tuple[Node, Node]) -> None:
    (task_id,) = await submitted(state, max_retries=0)
    for attempt in range(1, 6):
        node = pair[(attempt + 1) % 2]  # each leaves it to the other
        (grant,) = await node.claim()
        await node.fail(task_id, grant.attempt, a_failure(ErrorClass.TRANSIENT, "iopaint_unreachable"))
        assert (await state.reader.task(task_id)).retries == 0, attempt
    assert (await record_of(state, pair[0])).blame == 0


# ---------------------------------------------------------------- what runners said last


async def test_a_device_whose_own_agent_does_not_trust_it_is_held_with_the_reason(
    redis_url: str, tmp_path: Path
) -> None:
    alarm = "had 2 memory errors that ECC could not correct"
    async with (
        a_rig(redis_url, tmp_path) as rig,
        a_light_node([rig.scheduler.control_endpoint], name="doubtful") as node,
    ):
        node.readings = {"cpu": DeviceReading(alarm=alarm)}  # it tells so with every beat for a while
        await rig.until_node(node.name, NodeStatus.QUARANTINED)
        assert alarm in (await rig.node(node.name)).why
        with redis.Redis.from_url(redis_url, decode_responses=True) as eye:
            acts = [fields for _, fields in eye.xrange("{lcq}:acts") if fields["act"] == "quarantine"]
        assert [(act["actor"], act["reason"]) for act in acts] == [("cluster", alarm)]


async def test_a_device_in_doubt_that_waiting_tasks_need_works_on_and_says_so_until_it_can_be_spared(
    redis_url: str, tmp_path: Path
) -> None:
    alarm = "had 2 memory errors that ECC could not correct"
    async with (
        a_rig(redis_url, tmp_path) as rig,
        a_light_node([rig.scheduler.control_endpoint], name="doubtful") as node,
    ):

        async def told(alarm: str) -> NodeRecord:
            """As it is known when one of its beats has told so."""
            node.readings = {"cpu": DeviceReading(alarm=alarm)}
            node.membership.beat_now()

            async def is_known() -> NodeRecord | None:
                now = await rig.node(node.name)
                return now if bool(now.doubted) is bool(alarm) else None

            known = await wait_until(is_known, what=f"a beat that tells {alarm!r}")
            assert known is not None
            return known

        await rig.client.submit(a_task())
        now = await told(alarm)
        assert now.status is NodeStatus.ONLINE
        assert (
            now.doubted["cpu"]
            == f"{alarm}; it works on, because nothing else takes {TELEA} from {LIGHT}, where tasks wait"
        )
        assert now.caution("cpu").startswith("works, in doubt: it had 2 memory errors")
        await told("")  # over by itself
        await told(alarm)
        async with a_light_node([rig.scheduler.control_endpoint], name="other"):
            await rig.until_node(node.name, NodeStatus.QUARANTINED)
            assert (await rig.node(node.name)).doubted == {}
    with redis.Redis.from_url(redis_url, decode_responses=True) as eye:
        cautions = [fields for _, fields in eye.xrange("{lcq}:events") if fields["move"] == "caution_device"]
        assert [(one["node"], one["device"], one["what"], one["on"]) for one in cautions] == [
            (node.name, "cpu", "doubt", "1")
        ]
        audit(eye)


async def test_a_device_that_is_given_less_has_fewer_tasks_at_a_time_until_it_has_as_much_again(
    state: StateManager, node: Node, eye: redis.Redis
) -> None:
    await submitted(state, 9)
    less = Lowered(times=4.0, behind=3.0, most=2, why="is slow")
    assert await state.lower_device(node.id, "cpu", less)
    assert (await record_of(state, node)).lowered == {"cpu": less}
    assert not await state.lower_device(node.id, "gpu-7", less)
    first = await node.claim(4)
    assert len(first) == 2
    assert await node.claim(4) == ()
    await node.finish(first[0].task.id)
    assert len(await node.claim(4)) == 1
    picture = await state.reader.fleet()
    assert len(picture.timetable.stations[node.id, "cpu"].free_s) == 2
    assert await state.lower_device(node.id, "cpu", None)
    assert len(await node.claim(4)) == 4
    assert await state.lower_device(node.id, "cpu", less)
    await state.activate_node(node.id, device="cpu")
    assert (await record_of(state, node)).lowered == {}
    await state.lower_device(node.id, "cpu", less)
    await state.quarantine_node(node.id, why="is slow")
    assert (await record_of(state, node)).lowered == {}, "it takes nothing now"
    assert not await state.lower_device(node.id, "cpu", less)
    audit(eye)


async def test_a_device_that_has_become_slow_is_given_less_and_then_held_and_one_that_never_was_is_not(
    redis_url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    terms = QuarantineConfig(slow_s=0, pause_s=1000)
    async with (
        a_rig(redis_url, tmp_path, quarantine=terms) as rig,
        light_nodes(2, [rig.scheduler.control_endpoint]) as (steady, fading),
    ):

        async def work(node: LightNode, seconds: float, *, warm: bool = True, pinned: bool = False) -> None:
            """One attempt that says it took so long."""
            await rig.client.submit(a_task(), node=node.name if pinned else "")
            want = Want(device="cpu", slots=1, warm=(TELEA,) if warm else ())
            answer = await node.line.ask(Step(node_id=node.name, boot_id=node.boot_id, want=(want,)))
            (grant,) = answer.grants
            result = a_result().model_copy(update={"seconds": seconds})
            outcome = Outcome(task_id=grant.task.id, attempt=grant.attempt, device="cpu", result=result)
            await node.line.ask(Step(node_id=node.name, boot_id=node.boot_id, outcomes=(outcome,)))

        async def is_learned() -> bool:
            fleet = await rig.scheduler.state.reader.recent_fleet(within_s=0.5)
            return any(curve.samples >= LEARNED for curve in fleet.costs.curves.values())

        for node in (steady, fading):
            await rig.until_node(node.name, NodeStatus.ONLINE)
        for _ in range(LEARNED):
            await work(fading, 2.0)
        await wait_until(is_learned)
        for _ in range(WINDOW):
            await work(steady, 2.0)
            await work(fading, 2.0)
        for _ in range(8):
            await work(fading, 9.0, warm=False)
        assert (await rig.node(fading.name)).status is NodeStatus.ONLINE, "it loaded the model: that takes long"
        for _ in range(8):
            await work(fading, 9.0, pinned=True)
        assert (await rig.node(fading.name)).status is NodeStatus.ONLINE, "somebody gave it what takes long"

        # Where little waits, a device that is given less leaves all of it to the other one.
        await rig.client.submit_many([a_task(priority="low") for _ in range(40)])

        async def is_less() -> bool:
            await work(fading, 9.0)
            return bool((await rig.node(fading.name)).lowered)

        await wait_until(is_less, what="the slow one is given less")
        lowered = (await rig.node(fading.name)).lowered["cpu"]
        assert (lowered.most, lowered.times) == (2, 4.5)
        assert (await rig.node(fading.name)).status is NodeStatus.ONLINE
        fleet = await rig.scheduler.state.reader.fleet()
        assert fleet.timetable.stations[fading.name, "cpu"].behind == lowered.behind

        async def is_as_before() -> bool:
            await work(fading, 2.0)
            return not (await rig.node(fading.name)).lowered

        await wait_until(is_as_before, what="it is fast again, and has as much as before")
        for _ in range(3):  # the picture at hand is of when it was given less
            await work(fading, 2.0)
        assert len([one for one in caplog.messages if "is given as much as before" in one]) == 1
        await wait_until(is_less, what="it is slow once more")

        async def is_held() -> bool:
            await work(fading, 9.0)
            return (await rig.node(fading.name)).status is NodeStatus.QUARANTINED

        await wait_until(is_held, what="the slow one is held")
        why = (await rig.node(fading.name)).why
        assert "times as long as is usual" in why
        assert f"where {steady.name} did not" in why
        for _ in range(20):
            await work(steady, 9.0)
        assert (await rig.node(steady.name)).status is NodeStatus.ONLINE, "it is the last one"
    with redis.Redis.from_url(redis_url, decode_responses=True) as eye:
        acts = [fields for _, fields in eye.xrange("{lcq}:acts") if fields["act"] == "quarantine"]
        assert [(act["actor"], act["on"]) for act in acts] == [("cluster", f"node={fading.name}")]
        audit(eye)


async def test_the_log_is_kept_with_the_last_two_attempts(state: StateManager, node: Node, eye: redis.Redis) -> None:
    (task_id,) = await submitted(state, max_retries=9)
    for attempt in range(1, 5):
        await node.claim()
        await state.fail_task(task_id, attempt=attempt, node=node.id, failure=a_failure(), log=f"line {attempt}")
    assert [one.log for one in await state.reader.attempts(task_id)] == ["", "", "line 3", "line 4"]
    audit(eye)


# ---------------------------------------------------------------- by device


async def test_of_a_node_with_two_devices_the_one_that_fails_is_held_probed_and_forgiven_alone(
    state: StateManager, eye: redis.Redis
) -> None:
    devices = tuple(Device(id=name, kind=DeviceKind.CPU, slots=4) for name in ("left", "right"))
    capability = the_cpu().model_copy(update={"devices": devices})
    await state.register_node("node-1", boot="b", capability=capability, serves={"left": (LIGHT,), "right": (LIGHT,)})

    async def claim(device: str, slots: int = 1) -> list[str]:
        grants = await state.claim_tasks(
            node="node-1", boot="b", device=device, kind=DeviceKind.CPU, slots=slots,
            lanes=(TELEA,), queues=(LIGHT,), lease_ms=60_000,
        )  # fmt: skip
        return [grant.task.id for grant in grants]

    async def record() -> NodeRecord:
        return (await state.reader.nodes())[0]

    ids = await submitted(state, 3)
    for task_id in ids:
        assert await claim("left") == [task_id], "what it has failed it leaves to the other one"
        too_much = await state.fail_task(task_id, attempt=1, node="node-1", failure=BAD)
    assert too_much
    assert (await record()).device_blame["left"][0] == pytest.approx(3, abs=0.1)
    assert await claim("left") == []
    assert await state.quarantine_node("node-1", why="stripes", device="left") == 1  # the first one's; others were free
    audit(eye)
    now = await record()
    assert (now.status, now.quarantined, now.serves["left"]) == (NodeStatus.ONLINE, {"left": "stripes"}, ())
    assert await claim("right", 3) == ids
    assert (await submitted(state), await claim("left"))[1] == []

    assert (await state.beat_node("node-1", boot="b")).probed == ("left",)
    eye.hset("{lcq}:node:node-1", "probe_ms@left", LONG_AGO)
    assert await state.probe_node("node-1", boot="b", device="left")
    await state.quarantine_node("node-1", why="by ann", probed=False, device="right")
    assert (await record()).status is NodeStatus.QUARANTINED, "each of its devices is"
    status = await state.settle_probe("node-1", boot="b", passed=True, device="left")
    assert (status, (await record()).status) == (NodeStatus.ONLINE, NodeStatus.ONLINE)
    assert (await record()).on_probation == {"left": 2}
    assert len(await claim("left", 3)) == 1
    await state.activate_node("node-1", device="right")
    assert (await record()).quarantined == {}
    audit(eye)

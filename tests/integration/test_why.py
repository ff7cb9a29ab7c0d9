"""Why a task waits, asked of a real scheduler about a real Redis: each reason as it comes about, and exact counts."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator

import pytest
import redis

from lcq.client import AsyncClient
from lcq.config import DistributedConfig, LeaseConfig, QuotasConfig, RetryConfig, UserQuota, ZeroMqConfig
from lcq.models import Device, DeviceKind, DeviceReading, ErrorClass, Failure, ModelOffer, TaskPriority, TaskType
from lcq.reasons import Why, WhyCode
from lcq.scheduler import Scheduler
from lcq.wire import Beat, Outcome, Want, WhyAnswer
from tests.audit import audit
from tests.conftest import wait_until
from tests.integration.test_ladder import CPU, GPU, Host, Stage
from tests.nodes import a_result, a_task

SMALL = Device(id="cpu", kind=DeviceKind.CPU, cores=2, memory_mib=3000, slots=1)  # good enough for cpu-light alone
NS = ModelOffer(kinds=(DeviceKind.CPU,))
LAMA = ModelOffer(kinds=(DeviceKind.GPU, DeviceKind.CPU))
CRASH = Failure(error_class=ErrorClass.CRASH, code="runner_died", message="it died")
AWAY = Failure(error_class=ErrorClass.TRANSIENT, code="storage_timeout", message="it did not answer")
BROKEN = Failure(error_class=ErrorClass.BAD_INPUT, code="image_missing", message="no a.png")


@pytest.fixture
async def stage(redis_url: str) -> AsyncIterator[Stage]:
    config = DistributedConfig(
        zeromq=ZeroMqConfig(base_port=0, control_port=0),
        leases=LeaseConfig(beat_s=60, lease_s=3600),
        quotas=QuotasConfig(users={"max": UserQuota(in_flight=1)}),
        retries=RetryConfig(base_s=3600, max_s=3600, per_minute=4, per_cause_per_minute=4),
    )
    async with Scheduler(config, redis_url=redis_url) as scheduler:
        address = scheduler.control_endpoint.removeprefix("tcp://")
        async with AsyncClient(config, scheduler=address) as client, asyncio.TaskGroup() as group:
            stage = Stage(scheduler, client, group)
            yield stage
            for host in stage.hosts:
                host.cancel()


async def submitted(stage: Stage, model: str = "cv2-ns", **more: object) -> str:
    place = {name: more.pop(name) for name in ("queue", "node") if name in more}
    return (await stage.client.submit(a_task(model, **more), **place)).id


async def a_host(stage: Stage, name: str = "a", *devices: Device, **models: ModelOffer) -> Host:
    return await stage.host(name, *(devices or (SMALL,)), **(models or {"cv2-ns": NS}))


async def told(stage: Stage, task_id: str, code: WhyCode, **facts: object) -> Why:
    """The reason, after a check that it is this one, with these facts, and that the task's history says the same."""
    why = await stage.client.why(task_id)
    assert why.code is code, why
    assert {name: why.facts[name] for name in facts} == facts
    history = await stage.client.history(task_id)
    assert history.why is not None
    assert (history.why.code, history.explanation) == (code, history.why.text)
    return why


async def test_where_nobody_can_run_it_that_is_the_reason_and_it_changes_with_the_fleet(stage: Stage) -> None:
    task = await submitted(stage, "lama", config={"model": "lama", "device": "cuda"})
    await told(stage, task, WhyCode.NO_NODE, known=0)
    host = await a_host(stage)
    await told(stage, task, WhyCode.NO_MODEL, model="lama")
    await a_host(stage, "b", SMALL, lama=NS)
    await told(stage, task, WhyCode.NO_DEVICE, model="lama", device="gpu")
    tiny = Device(id="GPU-0", kind=DeviceKind.GPU, vram_mib=1500)
    await a_host(stage, "c", tiny, lama=LAMA)
    await told(stage, task, WhyCode.MISSES_MEMORY, node="c", device="GPU-0", needs_mib=2000, misses_mib=500)
    good = await a_host(stage, "d", GPU, lama=LAMA)
    await told(stage, task, WhyCode.WAITS_TURN, behind=0)
    await good.beat(**{"GPU-1": DeviceReading(total_mib=2500, free_mib=700, foreign_mib=1800)})
    await told(stage, task, WhyCode.SHORT_OF_MEMORY, node="d", needs_mib=2000, free_mib=700, misses_mib=1300)
    await good.beat(**{"GPU-1": DeviceReading(fault="fell off the bus")})
    await told(stage, task, WhyCode.DEVICE_FAULT, node="d", fault="fell off the bus")
    upscale = await submitted(stage, task_type=TaskType.UPSCALE)
    await told(stage, upscale, WhyCode.NO_ABILITY, task_type="upscale")
    racked = await submitted(stage, requires={"rack": "3"})
    await told(stage, racked, WhyCode.NO_LABEL, requires="rack=3")
    await stage.client.reroute([racked], labels={}, reason="any will do")
    await told(stage, racked, WhyCode.WAITS_TURN)
    await a_host(stage, "e", SMALL, **{"cv2-telea": NS})
    elsewhere = await submitted(stage, "cv2-telea", queue="cpu-intensive")
    await told(stage, elsewhere, WhyCode.NOT_SERVED, queue="cpu-intensive")
    assert host.name == "a"


async def test_a_withheld_model_says_what_it_needs(stage: Stage) -> None:
    host = await a_host(stage)
    state = stage.scheduler.state
    (node,) = await state.reader.nodes()
    capability = node.capability.model_copy(
        update={"withheld": {"lama": LAMA}, "left_out": {"lama": "no IOPaint answers at http://x"}}
    )
    await state.register_node(host.name, boot=host.name, capability=capability, serves=dict(node.serves))
    task = await submitted(stage, "lama")
    await told(stage, task, WhyCode.DEPENDENCY_DOWN, node="a", left_out="no IOPaint answers at http://x")


async def test_an_act_on_a_queue_or_a_node_is_the_reason_until_it_is_undone(stage: Stage) -> None:
    await a_host(stage)
    await a_host(stage, "b", SMALL, lama=NS)
    task, pinned = await submitted(stage), await submitted(stage, node="a")
    await stage.client.pause("cpu-light", reason="upgrade")
    why = await told(stage, task, WhyCode.QUEUE_PAUSED, queue="cpu-light", by=stage.client.actor, reason="upgrade")
    assert why.facts["since_ms"] is not None
    await stage.client.resume("cpu-light")
    await told(stage, task, WhyCode.WAITS_TURN)
    of_job = await submitted(stage, job="zoo")
    await stage.client.pause_job("zoo", reason="lunch")
    why = await told(stage, of_job, WhyCode.JOB_PAUSED, job="zoo", by=stage.client.actor, reason="lunch")
    assert why.facts["since_ms"] is not None
    await stage.client.resume_job("zoo")
    await told(stage, of_job, WhyCode.WAITS_TURN)
    await stage.client.drain("a", reason="new GPU")
    await told(stage, task, WhyCode.ALL_DRAINING, node="a")
    await told(stage, pinned, WhyCode.PINNED_NODE_DOWN, node="a", status="draining")
    await stage.client.quarantine("a", reason="stripes")
    await told(stage, task, WhyCode.ALL_QUARANTINED, node="a")
    await stage.client.activate("a")
    await told(stage, task, WhyCode.WAITS_TURN)
    await a_host(stage, "g", SMALL, GPU, lama=LAMA)
    on_gpu = await submitted(stage, "lama", config={"model": "lama", "device": "cuda"})
    await told(stage, on_gpu, WhyCode.WAITS_TURN)
    await stage.client.quarantine("g", device="GPU-1", reason="stripes")
    await told(stage, on_gpu, WhyCode.DEVICE_QUARANTINED, node="g", device="GPU-1")
    await stage.client.activate("g", device="GPU-1")
    await told(stage, on_gpu, WhyCode.WAITS_TURN)
    await told(stage, await submitted(stage, node="b"), WhyCode.PINNED_NODE_UNFIT, node="b")


async def test_a_node_that_falls_silent_is_the_reason_then_its_loss(stage: Stage) -> None:
    host = await a_host(stage)
    await a_host(stage, "b", SMALL, lama=NS)
    running, task, pinned = await submitted(stage), await submitted(stage), await submitted(stage, node="a")
    state = stage.scheduler.state
    await state.reroute_task(pinned, queue="cpu-light", node="a")
    grant = await host.claim(SMALL)
    assert grant is not None
    assert grant.task.id == pinned, "what is kept for a node comes first"
    await told(stage, pinned, WhyCode.RUNNING, node="a", attempt=1)
    await state.suspect_node("a", boot="a", seen_before_ms=2**52, why="no beat for 90.0 s")
    await told(stage, running, WhyCode.SUSPECT_NODE, node="a")
    await told(stage, pinned, WhyCode.SUSPECT_NODE, node="a")
    await host.beat()
    await told(stage, task, WhyCode.WAITS_TURN, behind=1)
    await state.lose_node("a", boot="a", seen_before_ms=2**52, code="node_silent", message="silent")
    await told(stage, running, WhyCode.ALL_OFFLINE, node="a")
    await state.forget_nodes(silence_ms=-1000)
    why = await stage.client.why(pinned)
    assert why.code is WhyCode.PINNED_NODE_GONE, why


async def test_an_attempt_and_its_end_are_told(stage: Stage) -> None:
    host = await a_host(stage)
    good, bad, gone = await submitted(stage), await submitted(stage), await submitted(stage)
    grants = [await host.claim(SMALL), await host.claim(SMALL)]
    assert None not in grants
    await told(stage, good, WhyCode.RUNNING, node="a", device="cpu", attempt=1)
    done = Outcome(task_id=good, attempt=1, device="cpu", result=a_result())
    await host.step(outcomes=(done,))
    await host.fail(grants[1], BROKEN)
    await stage.client.cancel([gone], reason="twice")
    await told(stage, good, WhyCode.COMPLETED, node="a", result="/photos/cat.out.png")
    await told(stage, bad, WhyCode.FAILED, failure="image_missing", error_class="bad_input")
    why = await told(stage, gone, WhyCode.CANCELLED)
    assert why.text == f"cancelled by {stage.client.actor}: twice"


async def test_a_retry_waits_for_its_time_or_for_the_budget(stage: Stage) -> None:
    host = await a_host(stage)
    later, *others = [await submitted(stage, max_retries=9, queue="cpu-light") for _ in range(9)]
    first, *grants = (await host.step(Want(device="cpu", slots=9))).grants
    assert [first.task.id, *(grant.task.id for grant in grants)] == [later, *others]
    await host.fail(first, AWAY)
    await told(stage, later, WhyCode.BACKOFF, failure="storage_timeout", retries=1, max_retries=9)
    for grant in grants:
        await host.fail(grant, CRASH)
    await told(stage, others[0], WhyCode.WAITS_TURN)
    why = await told(stage, others[-1], WhyCode.RETRY_BUDGET, failure="runner_died")
    assert isinstance(why.facts["until_ms"], int)


async def test_a_task_that_its_node_failed_waits_for_the_other_one(stage: Stage) -> None:
    host, other = await a_host(stage), await a_host(stage, "b")
    first = await submitted(stage)
    assert await other.claim(SMALL)
    task = await submitted(stage)
    grant = await host.claim(SMALL)
    assert grant is not None
    await stage.scheduler.state.release_task(task, attempt=1, node="a")
    assert (await stage.client.why(task)).code is WhyCode.WAITS_TURN
    grant = await host.claim(SMALL)
    assert grant is not None
    await host.fail(grant, CRASH)
    why = await stage.client.why(task)
    if why.code in (WhyCode.BACKOFF, WhyCode.RETRY_BUDGET):
        pytest.fail(f"a crash is retried at once: {why}")
    assert (why.code, why.facts["node"]) == (WhyCode.AVOIDS_NODE, "a")
    assert await host.claim(SMALL) is None
    await other.step(outcomes=(Outcome(task_id=first, attempt=1, device="cpu", result=a_result()),))
    await told(stage, task, WhyCode.WAITS_TURN)


async def test_a_users_limit_of_what_runs_is_the_reason_until_one_has_ended(stage: Stage) -> None:
    host = await a_host(stage)
    first, second = [await submitted(stage, user_id="max") for _ in range(2)]
    await told(stage, second, WhyCode.WAITS_TURN, behind=1)
    grant = await host.claim(SMALL)
    assert grant is not None
    assert grant.task.id == first
    await told(stage, second, WhyCode.USER_LIMIT, user="max", in_flight=1, most=1)
    assert await host.claim(SMALL) is None
    await told(stage, second, WhyCode.USER_LIMIT)
    await host.step(outcomes=(Outcome(task_id=first, attempt=1, device="cpu", result=a_result()),))
    await told(stage, second, WhyCode.WAITS_TURN, behind=0)


async def test_what_is_left_for_a_faster_device_says_so_while_a_slower_one_has_a_slot(stage: Stage) -> None:
    fast, slow = (
        Device(id="cpu", kind=DeviceKind.CPU, cores=2, memory_mib=3000, slots=1, name=name) for name in ("fast", "slow")
    )
    quick, lame = [await a_host(stage, one.name, one, lama=NS) for one in (fast, slow)]
    for device, host, seconds in ((fast, quick, 1.0), (slow, lame, 60.0)):
        for _ in range(5):
            task = await submitted(stage, "lama", queue="cpu-light", node=host.name)
            grant = await host.claim(device)
            assert grant is not None
            result = a_result().model_copy(update={"seconds": seconds})
            await host.step(outcomes=(Outcome(task_id=task, attempt=1, device="cpu", result=result),))
    first, task = [await submitted(stage, "lama", queue="cpu-light") for _ in range(2)]
    grant = await quick.claim(fast)
    assert grant is not None
    assert grant.task.id == first

    async def is_left() -> bool:
        return (await stage.client.why(task)).code is WhyCode.LEFT_FOR_FASTER

    await wait_until(is_left, what="what was learned is known")
    await told(stage, task, WhyCode.LEFT_FOR_FASTER, node="slow")


async def test_what_is_for_later_says_until_when(stage: Stage) -> None:
    state = stage.scheduler.state
    await a_host(stage)
    task, due_ms = a_task("cv2-ns"), await state.now_ms() + 3_600_000
    await state.submit_task(task, queue="cpu-light", due_ms=due_ms)
    await told(stage, task.id, WhyCode.SCHEDULED, until_ms=due_ms)


async def test_a_record_that_cannot_be_read_is_said_to_be(stage: Stage, eye: redis.Redis) -> None:
    task = await submitted(stage)
    eye.hset(f"{{lcq}}:task:{task}", "rev", "many")
    await told(stage, task, WhyCode.DAMAGED)


async def test_a_queue_that_is_configured_no_more_is_the_reason(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lcq.moving.Mover.is_due", lambda *_, **__: False)  # else it is moved, before or after that
    await a_host(stage)
    task = a_task("cv2-ns")
    await stage.scheduler.state.submit_task(task, queue="attic", forced=True)
    await told(stage, task.id, WhyCode.NO_QUEUE, queue="attic")


# ---------------------------------------------------------------- behind whom, exactly


async def test_behind_whom_a_task_waits_is_exact_whatever_has_happened(stage: Stage, eye: redis.Redis) -> None:
    chance = random.Random(5)
    host = await a_host(stage, "a", CPU, **{"cv2-ns": NS, "cv2-telea": NS})
    ids = [
        await submitted(
            stage,
            chance.choice(["cv2-ns", "cv2-telea", "lama"]),
            user_id=chance.choice(["ann", "bob", "eve"]),
            priority=chance.choice(list(TaskPriority)),
            queue="cpu-light",
        )
        for _ in range(60)
    ]
    for _ in range(5):
        assert await host.claim(SMALL)
    await stage.client.cancel(ids[40:44], reason="twice")
    await stage.client.prioritise(ids[20:30], TaskPriority.HIGH)
    await stage.client.reroute(ids[30:34], queue="cpu-intensive")
    await stage.client.pause("cpu-intensive")
    audit(eye)
    names = ("priority", "user", "status", "queue", "model", "score")
    known = {task: dict(zip(names, eye.hmget(f"{{lcq}}:task:{task}", *names), strict=True)) for task in ids}
    there = [
        task
        for task, t in known.items()
        if (t["status"], t["queue"]) == ("queued", "cpu-light") and t["model"] != "lama"
    ]
    there.sort(key=lambda task: (float(known[task]["score"]), task))
    codes = set()
    for place, task in enumerate(there):
        band = TaskPriority(known[task]["priority"]).band
        before = [known[other] for other in there[:place]]
        higher = sum(TaskPriority(other["priority"]).band < band for other in before)
        own = sum(
            other["user"] == known[task]["user"] and TaskPriority(other["priority"]).band >= band for other in before
        )
        why = await stage.client.why(task)
        assert (why.facts["behind"], why.facts["behind_higher_bands"], why.facts["behind_others"]) == (
            place,
            higher,
            place - higher - own,
        )
        expected = WhyCode.BEHIND_BAND if higher else WhyCode.BEHIND_SHARE if place - own else WhyCode.WAITS_TURN
        assert why.code is expected
        codes.add(why.code)
    assert codes == {WhyCode.BEHIND_BAND, WhyCode.BEHIND_SHARE, WhyCode.WAITS_TURN}
    await stage.client.resume("cpu-intensive")
    above = [task for task, t in known.items() if t["queue"] == "cpu-intensive" and t["model"] != "lama"]
    assert above
    await told(stage, there[0], WhyCode.BEHIND_QUEUE, before_queue="cpu-intensive", behind_queue=len(above), behind=0)


async def test_many_tasks_of_one_score_are_counted_by_their_ids(stage: Stage) -> None:
    await a_host(stage)
    ids = sorted([await submitted(stage, user_id=f"user-{number}", queue="cpu-light") for number in range(33)])
    behind = [(await stage.client.why(task)).facts["behind"] for task in ids]
    assert behind == list(range(33))


async def test_tasks_that_an_older_lcq_has_queued_leave_the_bands_untold(stage: Stage, eye: redis.Redis) -> None:
    await a_host(stage)
    old, new = await submitted(stage), await submitted(stage)
    for name in ("rank:cpu-light:cv2-ns:normal", "mine:cpu-light:cv2-ns:normal:anonymous"):
        assert eye.zrem(f"{{lcq}}:{name}", old) == 1
    why = await told(stage, new, WhyCode.WAITS_TURN, behind=1, behind_higher_bands=None, behind_others=None)
    assert why.text.startswith("waits for its turn in cpu-light, behind 1 task;")


async def test_of_many_tasks_each_is_told_what_it_would_be_told_alone(stage: Stage) -> None:
    host = await a_host(stage)
    ids = [await submitted(stage) for _ in range(3)]
    ids.append(await submitted(stage, "lama"))
    ids.append(await submitted(stage, job="mine"))
    await stage.client.pause_job("mine", reason="lunch")
    granted = await host.claim(SMALL)
    assert granted is not None

    async def all_told() -> dict[str, WhyAnswer] | None:
        told = await stage.client.whys([*ids, "0" * 16])
        return told if len(told) >= len(ids) else None  # some may be missing, where it would take too long

    whys = await wait_until(all_told)
    assert whys is not None
    assert set(whys) == set(ids), "what is not there is left out"
    for task_id in ids:
        alone = await stage.client.why(task_id)
        told = whys[task_id].why
        assert (told.code, told.facts.get("behind")) == (alone.code, alone.facts.get("behind"))
    assert whys[ids[4]].why.code is WhyCode.JOB_PAUSED
    assert whys[granted.task.id].why.code is WhyCode.RUNNING
    assert whys[ids[0]].revision == (await stage.client.get(ids[0])).revision
    await stage.client.resume_job("mine")

    async def is_seen() -> bool:
        seen = (await stage.client.whys(ids)).get(ids[4])
        return seen is not None and seen.why.code is WhyCode.WAITS_TURN

    await wait_until(is_seen, what="it is told again, and not what was true before")


async def test_a_beat_of_the_node_and_each_start_change_what_is_told(stage: Stage) -> None:
    host = await a_host(stage)
    first, second = await submitted(stage), await submitted(stage)
    assert (await stage.client.why(second)).facts["behind"] == 1
    answer = await host.step(Want(device="cpu", slots=1))
    assert [grant.task.id for grant in answer.grants] == [first]
    assert (await stage.client.why(second)).facts["behind"] == 0
    await host.line.ask(Beat(node_id="a", boot_id="a"), patience_s=20)

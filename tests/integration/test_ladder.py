"""The ladder and the rest of what a scheduler's side does for devices, spoken over its real control socket."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import pytest
import redis
import zmq

from lcq import outlook
from lcq.client import AsyncClient
from lcq.config import DistributedConfig, LeaseConfig, RetryConfig, ZeroMqConfig
from lcq.errors import NodeNotFound, TransitionRefused
from lcq.models import (
    Device,
    DeviceKind,
    DeviceReading,
    Ease,
    ErrorClass,
    Failure,
    ModelOffer,
    NodeCapability,
    TaskRecord,
    TaskStatus,
    TaskType,
)
from lcq.scheduler import Scheduler
from lcq.state import learned
from lcq.wire import Beat, Grant, Hello, Order, Outcome, Step, StepAnswer, Want
from tests.audit import audit
from tests.conftest import wait_until
from tests.nodes import a_result, a_task
from worker.line import ControlLine

GPU = Device(id="GPU-1", kind=DeviceKind.GPU, vram_mib=2500, slots=1)
BIG = Device(id="GPU-2", kind=DeviceKind.GPU, vram_mib=5000, slots=1)
CPU = Device(id="cpu", kind=DeviceKind.CPU, cores=8, memory_mib=16_000, slots=1)
BOTH = (DeviceKind.GPU, DeviceKind.CPU)
SUPPLE = ModelOffer(kinds=BOTH, eases=(Ease.SMALLER_TILE, Ease.LOWER_PRECISION))
OOM = Failure(error_class=ErrorClass.RESOURCE, code="out_of_memory", message="CUDA out of memory")
DISK = Failure(error_class=ErrorClass.RESOURCE, code="disk_full", message="no space left on /data")


@dataclass
class Host:
    """A node without runners: it says what a test wants, over a real DEALER."""

    line: ControlLine
    name: str
    devices: tuple[Device, ...]
    models: dict[str, ModelOffer]
    orders: list[Order] = field(default_factory=list)

    async def hello(self) -> None:
        capability = NodeCapability(devices=self.devices, models=self.models)
        await self.line.ask(Hello(node_id=self.name, boot_id=self.name, capability=capability), patience_s=20)

    async def step(self, *want: Want, outcomes: tuple[Outcome, ...] = ()) -> StepAnswer:
        step = Step(node_id=self.name, boot_id=self.name, want=want, outcomes=outcomes)
        return await self.line.ask(step, patience_s=20)

    async def claim(self, device: Device, *, fits_mib: int | None = None) -> Grant | None:
        answer = await self.step(Want(device=device.id, slots=1, fits_mib=fits_mib))
        return answer.grants[0] if answer.grants else None

    async def fail(self, grant: Grant, failure: Failure = OOM) -> None:
        outcome = Outcome(task_id=grant.task.id, attempt=grant.attempt, device=grant.device, failure=failure)
        (verdict,) = (await self.step(outcomes=(outcome,))).verdicts
        assert verdict.verdict == "settled", verdict

    async def beat(self, **readings: DeviceReading) -> None:
        await self.line.ask(Beat(node_id=self.name, boot_id=self.name, devices=readings), patience_s=20)


@dataclass
class Stage:
    """A scheduler, a client of it, and the hosts that tests bring in."""

    scheduler: Scheduler
    client: AsyncClient
    group: asyncio.TaskGroup
    hosts: list[asyncio.Task[None]] = field(default_factory=list)

    async def host(self, name: str, *devices: Device, **models: ModelOffer) -> Host:
        """A node that has said hello; ``models`` default to one lama that can be eased."""
        ready: asyncio.Future[Host] = asyncio.get_running_loop().create_future()
        self.hosts.append(self.group.create_task(self._live(ready, name, devices, models or {"lama": SUPPLE})))
        return await ready

    async def _live(
        self, ready: asyncio.Future[Host], name: str, devices: tuple[Device, ...], models: dict[str, ModelOffer]
    ) -> None:
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        orders: list[Order] = []
        try:
            async with ControlLine(
                context, name.encode(), on_order=orders.append, on_late=lambda reply: None
            ) as line, asyncio.TaskGroup() as lives:  # fmt: skip
                lives.create_task(line.listen())
                line.connect(self.scheduler.control_endpoint)
                host = Host(line, name, devices, models, orders)
                await host.hello()
                ready.set_result(host)
                await asyncio.Event().wait()
        finally:
            context.term()

    async def submit(self, **more: Any) -> str:
        config = {"model": "lama"} | more.pop("config", {})
        task = a_task(config=config, **{name: more.pop(name) for name in ("max_retries", "task_type") if name in more})
        return (await self.client.submit(task, **more)).id

    async def record(self, task_id: str) -> TaskRecord:
        return await self.client.get(task_id)

    async def explanation(self, task_id: str) -> str:
        return (await self.client.history(task_id)).explanation


@pytest.fixture
async def stage(redis_url: str) -> AsyncIterator[Stage]:
    config = DistributedConfig(
        zeromq=ZeroMqConfig(base_port=0, control_port=0),
        leases=LeaseConfig(beat_s=60, lease_s=3600),
        retries=RetryConfig(base_s=3600, max_s=3600),
    )
    async with Scheduler(config, redis_url=redis_url) as scheduler:
        address = scheduler.control_endpoint.removeprefix("tcp://")
        client = AsyncClient(config, scheduler=address, actor="ann", timeout_s=30)
        async with client, asyncio.TaskGroup() as group:
            stage = Stage(scheduler, client, group)
            yield stage
            for host in stage.hosts:
                host.cancel()


async def test_an_attempt_that_ran_out_of_memory_is_made_easier_step_by_step_and_loses_no_retry(
    stage: Stage, eye: redis.Redis
) -> None:
    small, big = await stage.host("small", GPU), await stage.host("big", BIG)
    slow = await stage.host("slow", CPU)
    task_id = await stage.submit(max_retries=0)
    taken: list[tuple[str, tuple[Ease, ...]]] = []
    for host, device in ((small, GPU), (small, GPU), (small, GPU), (big, BIG), (slow, CPU)):
        grant = await host.claim(device)
        assert grant is not None, f"{host.name} got nothing after {taken}"
        taken.append((host.name, grant.eased))
        audit(eye)
        await host.fail(grant)
    steps = (Ease.SMALLER_TILE, Ease.LOWER_PRECISION, Ease.BIGGER_GPU, Ease.CPU)
    assert taken == [
        ("small", ()), ("small", steps[:1]), ("small", steps[:2]), ("big", steps[:3]), ("slow", steps)
    ]  # fmt: skip
    history = await stage.client.history(task_id)
    record = history.record
    assert (record.status, record.retries, record.attempt, record.eased) == (TaskStatus.FAILED, 0, 5, steps)
    assert record.failure is not None
    assert record.failure.message == (
        "CUDA out of memory (tried: a smaller tile, lower precision, a bigger GPU, the CPU)"
    )
    assert [attempt.eased for attempt in history.attempts] == [steps[:n] for n in range(5)]
    eased = [event.fields["ease"] for event in history.events if "ease" in event.fields]
    assert eased == list(steps)
    audit(eye)


async def test_the_step_is_said_while_the_task_waits_and_ends_with_an_operators_retry(
    stage: Stage, eye: redis.Redis
) -> None:
    """On a GPU that is large enough also for what is predicted once it is learned that the memory did not do."""
    host = await stage.host("alone", BIG, lama=ModelOffer(kinds=BOTH, eases=(Ease.SMALLER_TILE,)))
    task_id = await stage.submit(max_retries=0)
    grant = await host.claim(BIG)
    assert grant is not None
    await host.fail(grant)
    record = await stage.record(task_id)
    assert (record.status, record.eased, record.retries) == (TaskStatus.QUEUED, (Ease.SMALLER_TILE,), 0)
    assert record.why == "out_of_memory on alone: goes on with smaller_tile"
    grant = await host.claim(BIG)
    assert grant is not None
    assert "with a smaller tile" in await stage.explanation(task_id)
    await host.fail(grant)
    assert (await stage.record(task_id)).status == TaskStatus.FAILED
    await stage.client.retry(task_id)
    assert (await stage.record(task_id)).eased == ()
    again = await host.claim(BIG)
    assert again is not None
    assert (again.attempt, again.eased) == (3, ())
    audit(eye)


async def test_what_was_made_easier_stays_so_over_a_hand_back_and_a_lost_attempt(stage: Stage) -> None:
    host = await stage.host("small", GPU)
    await stage.submit()
    for outcome in ("fail", "hand back", "crash", "finish"):
        grant = await host.claim(GPU)
        assert grant is not None
        assert grant.eased == (() if outcome == "fail" else (Ease.SMALLER_TILE,))
        token = {"task_id": grant.task.id, "attempt": grant.attempt}
        crash = Failure(error_class=ErrorClass.CRASH, code="runner_died", message="signal 9")
        said = {
            "fail": Outcome(**token, failure=OOM), "hand back": Outcome(**token, handed_back=True),
            "crash": Outcome(**token, failure=crash), "finish": Outcome(**token, result=a_result()),
        }[outcome]  # fmt: skip
        await host.step(outcomes=(said,))
    assert (await stage.record(grant.task.id)).status == TaskStatus.COMPLETED


async def test_a_failure_told_twice_takes_one_step(stage: Stage, eye: redis.Redis) -> None:
    host = await stage.host("small", GPU)
    task_id = await stage.submit()
    grant = await host.claim(GPU)
    assert grant is not None
    await asyncio.gather(host.fail(grant), host.fail(grant))
    await host.fail(grant)
    assert (await stage.record(task_id)).eased == (Ease.SMALLER_TILE,)
    audit(eye)


async def test_a_full_disk_knows_no_ladder_and_the_task_goes_elsewhere(stage: Stage, eye: redis.Redis) -> None:
    full, other = await stage.host("full", GPU), await stage.host("other", GPU)
    task_id = await stage.submit()
    grant = await full.claim(GPU)
    assert grant is not None
    await full.fail(grant, DISK)
    record = await stage.record(task_id)
    assert (record.status, record.eased, record.retries) == (TaskStatus.PENDING, (), 1)
    eye.zadd("{lcq}:delayed", {task_id: 1})
    await stage.scheduler.state.release_due()
    assert await full.claim(GPU) is None
    assert await other.claim(GPU) is not None
    audit(eye)


async def test_with_no_step_left_the_failure_counts_as_any_other(stage: Stage) -> None:
    host = await stage.host("small", GPU, lama=ModelOffer(kinds=(DeviceKind.GPU,)))
    task_id = await stage.submit(config={"device": "cuda"})
    grant = await host.claim(GPU)
    assert grant is not None
    await host.fail(grant)
    record = await stage.record(task_id)
    assert (record.status, record.retries, record.eased) == (TaskStatus.PENDING, 1, ())
    assert record.failure == OOM


# ---------------------------------------------------------------- memory and readings


async def test_a_claim_that_does_not_fit_is_not_granted_and_the_reason_is_told(stage: Stage) -> None:
    host = await stage.host("x", BIG)
    task_id = await stage.submit(config={"device": "cuda"})
    assert (await stage.record(task_id)).vram_mib == 2000
    assert await host.claim(BIG, fits_mib=1500) is None
    await host.beat(**{BIG.id: DeviceReading(total_mib=5000, free_mib=1500, foreign_mib=3300)})

    async def said() -> bool:
        return (await stage.explanation(task_id)).startswith("waits for memory")

    await wait_until(said, what="the reason, once the picture of the fleet is fresh")
    assert await stage.explanation(task_id) == (
        "waits for memory: gpu GPU-2 of node x has 1,500 of 5,000 MiB free (other programs hold 3,300), it needs 2,000"
    )
    assert await host.claim(BIG, fits_mib=2000) is not None


async def test_a_nodes_own_word_on_a_models_need_decides_whether_it_fits(stage: Stage) -> None:
    host = await stage.host("x", GPU, lama=ModelOffer(kinds=(DeviceKind.GPU,), vram_mib=1300))
    await stage.submit()
    assert await host.claim(GPU, fits_mib=1299) is None
    assert await host.claim(GPU, fits_mib=1300) is not None


async def test_what_was_learned_of_whole_pictures_keeps_none_that_is_made_smaller_from_being_tried_there(
    stage: Stage, eye: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That it ran out of memory is known two seconds later: by that, only a larger GPU would do."""
    monkeypatch.setattr(learned, "_AGE_S", -1)
    monkeypatch.setattr(outlook, "_FLEET_AGE_S", -1)
    host = await stage.host("alone", GPU)
    task_id, whole = await stage.submit(max_retries=0), await stage.submit(max_retries=0)
    taken: list[tuple[Ease, ...]] = []
    for _ in range(3):
        grant = await host.claim(GPU, fits_mib=GPU.vram_mib)
        assert grant is not None, f"nothing after {taken}: {await stage.explanation(task_id)}"
        assert grant.task.id == task_id
        taken.append(grant.eased)
        audit(eye)
        await host.fail(grant)
        await host.beat(**{GPU.id: DeviceReading(total_mib=GPU.vram_mib, free_mib=GPU.vram_mib)})
    assert taken == [(), (Ease.SMALLER_TILE,), (Ease.SMALLER_TILE, Ease.LOWER_PRECISION)]
    assert (await stage.record(task_id)).status == TaskStatus.FAILED
    assert await host.claim(GPU, fits_mib=GPU.vram_mib) is None, "one that is whole is not tried in vain"
    assert (await stage.record(whole)).status == TaskStatus.QUEUED


async def test_a_cpu_that_tells_its_memory_is_not_held_to_a_gpus_needs(stage: Stage) -> None:
    host = await stage.host("x", CPU)
    await stage.submit(config={"device": "cpu"})
    assert await host.claim(CPU, fits_mib=10) is not None


async def test_tasks_leave_the_queue_of_a_gpu_that_has_a_fault_for_one_that_has_none(stage: Stage) -> None:
    host = await stage.host("sick", GPU, CPU)
    task_id = await stage.submit(config={"model": "lama"})
    before = await stage.record(task_id)
    assert before.queue == "gpu-low"
    await host.beat(**{GPU.id: DeviceReading(fault="it fell off the bus")})

    async def moved() -> bool:
        return (await stage.record(task_id)).queue == "cpu-light"

    await wait_until(moved, what="the task moved to the CPU")
    assert (await stage.record(task_id)).why == "nothing serves gpu-low with lama now; moved"
    assert await host.claim(CPU) is not None


async def test_a_task_of_a_type_that_nobody_can_do_waits_with_its_reason_until_somebody_can(stage: Stage) -> None:
    plain = await stage.host("plain", CPU)
    task_id = await stage.submit(task_type=TaskType.UPSCALE)
    reason = "no node can upscale with model lama (it can: inpaint); no model of any node can"
    assert (await stage.record(task_id)).why == reason
    assert await stage.explanation(task_id) == reason
    assert await plain.claim(CPU) is None
    both = ModelOffer(kinds=(DeviceKind.CPU,), task_types=(TaskType.INPAINT, TaskType.UPSCALE))
    able = await stage.host("able", CPU, lama=both)

    async def claimed() -> Grant | None:
        return await able.claim(CPU)

    grant = await wait_until(claimed, what="the task in a queue that it serves")
    assert grant.task.id == task_id


# ---------------------------------------------------------------- release


async def test_release_is_an_act_that_reaches_its_node_through_any_scheduler(stage: Stage, redis_url: str) -> None:
    host = await stage.host("x", CPU)
    config = stage.scheduler.config
    async with Scheduler(config, redis_url=redis_url) as second:
        address = second.control_endpoint.removeprefix("tcp://")
        async with AsyncClient(config, scheduler=address, actor="bob") as client:
            await client.release("x", reason="a film")
            with pytest.raises(NodeNotFound):
                await client.release("moon")
    await wait_until(lambda: host.orders, what="the order")
    assert host.orders == [Order(cmd="release", reason="released by bob: a film")]
    with redis.Redis.from_url(redis_url, decode_responses=True) as eye:
        acts = [fields for _, fields in eye.xrange("{lcq}:acts")]
    assert [(act["act"], act["actor"], act["on"]) for act in acts] == [("release", "bob", "node=x")]


async def test_release_of_a_node_that_is_gone_is_refused(stage: Stage) -> None:
    await stage.host("x", CPU)
    await stage.scheduler.state.leave_node("x", boot="x")
    with pytest.raises(TransitionRefused, match="it is offline"):
        await stage.client.release("x")

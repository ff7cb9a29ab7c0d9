"""Where tasks wait and who takes them while nodes come and go: a real scheduler, real sockets, nodes of set speeds."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import redis
from PIL import Image
from typer.testing import CliRunner

from lcq.cli.main import app
from lcq.client import AsyncClient
from lcq.config import DistributedConfig
from lcq.costs import CostKey, device_class
from lcq.models import (
    Device,
    DeviceKind,
    DeviceReading,
    Event,
    ModelOffer,
    NodeCapability,
    TaskRecord,
    TaskStatus,
)
from lcq.scheduler import Scheduler
from lcq.wire import Beat, Bye, Grant, Hello, ListTasks, Outcome, Running, Step, Submit, Want
from tests.audit import audit
from tests.conftest import wait_until
from tests.logs import logging_kept
from tests.nodes import a_result, a_task

BOTH = (DeviceKind.GPU, DeviceKind.CPU)


def a_cpu(name: str) -> Device:
    return Device(id="d", kind=DeviceKind.CPU, name=name, cores=1, memory_mib=2000)


def a_gpu(name: str = "G", vram_mib: int = 9000) -> Device:
    return Device(id="d", kind=DeviceKind.GPU, name=name, vram_mib=vram_mib)


@dataclass
class LiveNode:
    """A node that asks and tells over the control socket as an agent does, when its test wants it to."""

    client: AsyncClient
    device: Device
    name: str
    held: dict[str, Grant] = field(default_factory=dict)

    async def come(self) -> None:
        capability = NodeCapability(devices=(self.device,), models={"lama": ModelOffer(kinds=BOTH)})
        await self.client.ask(Hello(node_id=self.name, boot_id="b", capability=capability))
        await self.beat()

    async def beat(self) -> None:
        running = tuple(Running(task_id=one, attempt=grant.attempt) for one, grant in self.held.items())
        reading = {"d": DeviceReading(warm=("lama",))}
        await self.client.ask(Beat(node_id=self.name, boot_id="b", running=running, devices=reading))

    async def take(self, *, warm: bool = True) -> str:
        """The task that it is given; "" if none."""
        want = (Want(device="d", slots=1, warm=("lama",) if warm else ()),)
        answer = await self.client.ask(Step(node_id=self.name, boot_id="b", want=want))
        self.held |= {grant.task.id: grant for grant in answer.grants}
        return answer.grants[0].task.id if answer.grants else ""

    async def finish(self, task_id: str) -> None:
        attempt = self.held.pop(task_id).attempt
        outcome = Outcome(task_id=task_id, attempt=attempt, result=a_result(), peak_mib=123)
        await self.client.ask(Step(node_id=self.name, boot_id="b", outcomes=(outcome,)))

    async def go(self) -> None:
        await self.client.ask(Bye(node_id=self.name, boot_id="b"))


@dataclass
class Live:
    scheduler: Scheduler
    client: AsyncClient

    async def node(self, device: Device, name: str) -> LiveNode:
        node = LiveNode(self.client, device, name)
        await node.come()
        return node

    async def submit(self, count: int = 1, **more: object) -> list[str]:
        tasks = [a_task("lama", **more) for _ in range(count)]
        answer = await self.client.submit_many(tasks)
        assert not answer.refused
        return [one.id for one in answer.accepted]

    async def waiting(self, queue: str) -> int:
        answer = await self.client.ask(ListTasks(queue=queue, status=TaskStatus.QUEUED, limit=1))
        return answer.total

    async def record(self, task_id: str) -> TaskRecord:
        return (await self.client.get_many([task_id]))[0]


@asynccontextmanager
async def living(redis_url: str, **settings: object) -> AsyncIterator[Live]:
    config = DistributedConfig.model_validate(
        {"zeromq": {"base_port": 0, "control_port": 0}, "leases": {"lease_s": 600, "beat_s": 60}} | settings
    )
    async with AsyncExitStack() as stack:
        scheduler = await stack.enter_async_context(Scheduler(config, redis_url=redis_url))
        address = scheduler.control_endpoint.removeprefix("tcp://")
        client = AsyncClient(DistributedConfig(), scheduler=address, actor="ann", timeout_s=60)
        yield Live(scheduler, await stack.enter_async_context(client))


@pytest.fixture
async def live(redis_url: str) -> AsyncIterator[Live]:
    async with living(redis_url) as live:
        yield live


@pytest.fixture
def eye(redis_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_url, decode_responses=True) as client:
        yield client


def teach(eye: redis.Redis, device: Device, seconds: float) -> None:
    """Have it known that a picture takes so long on devices like this."""
    key = CostKey("lama", "", "", device_class(device))
    eye.rpush(f"{{lcq}}:cost:{key}", *[f"1 {seconds} 0 1 {seconds} {2 * seconds}"] * 30)
    eye.zadd("{lcq}:costs", {str(key): 1})


def events(eye: redis.Redis) -> list[Event]:
    return [Event(id=name, move=fields.pop("move"), fields=fields) for name, fields in eye.xrange("{lcq}:events")]


# ---------------------------------------------------------------- queues that lose and gain who serves them


async def test_tasks_of_a_queue_that_loses_its_last_subscriber_are_moved(live: Live, eye: redis.Redis) -> None:
    gpu = await live.node(a_gpu(), "gpu")
    ids = await live.submit(700)
    assert await live.waiting("gpu-low") == 700
    await live.node(a_cpu("C"), "cpu")
    await gpu.go()
    await wait_until(lambda: _all_in(live, "cpu-light", 700), what="all of them wait where a node serves them")
    told = events(eye)
    left_ms = next(one.at_ms for one in told if one.move == "leave_node")
    moved_ms = [one.at_ms for one in told if one.move == "reroute_task"]
    assert len(moved_ms) == len(ids)
    print(f"\n700 tasks: the last of them was moved {max(moved_ms) - left_ms} ms after its queue's last node had left")
    audit(eye)


async def _all_in(live: Live, queue: str, count: int) -> bool:
    return await live.waiting(queue) == count


async def test_tasks_that_no_gpu_left_is_large_enough_for_are_moved_and_others_stay(live: Live) -> None:
    large, small = await live.node(a_gpu(vram_mib=24_000), "large"), await live.node(a_gpu("S", 2500), "small")
    whole = {"config": {"model": "lama", "hd_strategy": "original"}}
    tasks = (a_task("lama", **whole), a_task("lama", **whole))
    answer = await live.client.ask(Submit(tasks=tasks, sizes=((4000, 3000), (600, 400))))
    big, ordinary = (one.id for one in answer.accepted)
    assert (await live.record(big)).queue == "gpu-high"
    assert (await live.record(big)).vram_mib > 9000
    await live.node(a_gpu("M", 9000), "middling")  # serves gpu-high too, and is too small for it
    await large.go()
    await wait_until(lambda: _is_in(live, big, "gpu-low"), what="it waits where it can be tried, cut up")
    assert (await live.record(ordinary)).queue == "gpu-low"
    assert await small.take() in (big, ordinary)


async def _is_in(live: Live, task_id: str, queue: str) -> bool:
    return (await live.record(task_id)).queue == queue


async def test_tasks_that_wait_for_nobody_start_when_a_node_comes(live: Live) -> None:
    (task_id,) = await live.submit()
    assert (await live.record(task_id)).why.startswith("no node is online")
    node = await live.node(a_cpu("C"), "cpu")
    assert await wait_until(node.take, what="it is given the task") == task_id
    assert (await live.record(task_id)).queue == "cpu-light"


async def test_an_idle_device_gets_the_tail_of_a_queue_that_it_does_not_serve(live: Live, eye: redis.Redis) -> None:
    await live.node(a_cpu("C"), "cpu")
    await live.submit(40)
    assert await live.waiting("cpu-light") == 40
    gpu = await live.node(a_gpu(), "gpu")
    assert await wait_until(gpu.take, what="it has work too")
    await wait_until(lambda: _is_shared(live), what="both have a share")
    audit(eye)


async def _is_shared(live: Live) -> bool:
    return min(await live.waiting("cpu-light"), await live.waiting("gpu-low")) > 0


# ---------------------------------------------------------------- the tail goes to the fast


async def test_a_slow_device_leaves_the_last_task_to_a_fast_one_and_takes_it_when_that_is_gone(
    redis_url: str, eye: redis.Redis
) -> None:
    slow_cpu, fast_cpu = a_cpu("Slow"), a_cpu("Fast")
    teach(eye, slow_cpu, 600.0)
    teach(eye, fast_cpu, 20.0)
    async with living(redis_url) as live:
        slow, fast = await live.node(slow_cpu, "slow"), await live.node(fast_cpu, "fast")
        first, second = await live.submit(2)
        assert await wait_until(fast.take) == first
        await wait_until(lambda: _knows_that(live, "fast"), what="the scheduler's picture shows what runs")
        for _ in range(5):
            assert await slow.take() == ""
        assert (await live.record(second)).status is TaskStatus.QUEUED
        await fast.finish(first)
        assert await fast.take() == second
        (third,) = await live.submit()
        await wait_until(lambda: _knows_that(live, "fast"), what="the scheduler's picture shows what runs")
        assert await slow.take() == ""
        await fast.go()  # and hands back what it had
        assert await wait_until(slow.take, what="nobody faster is left") in (second, third)
        audit(eye)


async def _knows_that(live: Live, busy: str) -> bool:
    fleet = await live.scheduler.state.reader.recent_fleet(within_s=0.5)
    return bool(fleet.busy_s.get((busy, "d"))) and any(fleet.backlog.values())


async def test_a_task_waits_for_a_busy_warm_device_only_if_that_is_sooner_than_a_load(
    redis_url: str, eye: redis.Redis
) -> None:
    cpu = a_cpu("Equal")
    teach(eye, cpu, 6.0)
    key = CostKey("lama", "", "", device_class(cpu))
    eye.rpush(f"{{lcq}}:cost:{key}", *["1 306 0 0 306 612"] * 5)  # where it had to be loaded
    async with living(redis_url) as live:
        warm, cold = await live.node(cpu, "warm"), await live.node(cpu, "cold")
        first, second = await live.submit(2)
        assert await wait_until(warm.take) == first
        await wait_until(lambda: _knows_that(live, "warm"), what="the scheduler's picture shows what runs")
        assert await cold.take(warm=False) == ""
        await live.submit(100)  # 600 s of work for one: it pays to load the model
        await wait_until(lambda: _has_backlog(live, 500.0), what="the scheduler's picture shows what waits")
        assert await cold.take(warm=False) == second


async def _has_backlog(live: Live, seconds: float) -> bool:
    fleet = await live.scheduler.state.reader.recent_fleet(within_s=0.5)
    return fleet.timetable.waiting("cpu-light") > seconds


async def test_while_there_is_much_to_do_the_slow_devices_work_too(redis_url: str, eye: redis.Redis) -> None:
    slow_cpu, fast_cpu = a_cpu("Slow"), a_cpu("Fast")
    teach(eye, slow_cpu, 60.0)
    teach(eye, fast_cpu, 20.0)
    async with living(redis_url) as live:
        slow, fast = await live.node(slow_cpu, "slow"), await live.node(fast_cpu, "fast")
        await live.submit(30)
        assert await wait_until(fast.take)
        await wait_until(lambda: _knows_that(live, "fast"))
        assert await slow.take()


async def test_a_fast_device_that_never_comes_keeps_a_task_from_a_slow_one_for_a_while_only(
    redis_url: str, eye: redis.Redis
) -> None:
    """It says that it is idle, and asks for nothing: whatever the reason, its promise has an end."""
    slow_cpu, fast_cpu = a_cpu("Slow"), a_cpu("Fast")
    teach(eye, slow_cpu, 600.0)
    teach(eye, fast_cpu, 0.5)
    async with living(redis_url) as live:
        slow, _ = await live.node(slow_cpu, "slow"), await live.node(fast_cpu, "fast")
        (task_id,) = await live.submit()
        assert await slow.take() == ""
        assert await wait_until(slow.take, what="it has waited long enough") == task_id


# ---------------------------------------------------------------- sizes, and what is told of costs


async def test_the_size_of_an_image_comes_with_its_task_or_is_read_where_it_lies_in_the_roots(
    redis_url: str, tmp_path: Path
) -> None:
    (tmp_path / "in").mkdir()
    for folder in (tmp_path, tmp_path / "in"):
        Image.new("RGB", (64, 48)).save(folder / "a.png")
    inside, outside = a_task("lama", image_path=str(tmp_path / "in" / "a.png")), str(tmp_path / "a.png")
    async with living(redis_url) as live:
        known = await live.client.submit(inside)
        (untold,) = (await live.client.ask(Submit(tasks=(a_task("lama", image_path=outside),)))).accepted
        assert [(await live.record(one.id)).size for one in (known, untold)] == [(64, 48), None]
    async with living(redis_url, storage={"roots": [str(tmp_path / "in")]}) as live:
        tasks = (inside.model_copy(update={"id": a_task().id}),) * 1
        (seen,) = (await live.client.ask(Submit(tasks=tasks))).accepted
        assert (await live.record(seen.id)).size == (64, 48)
        odd = Submit(tasks=(tasks[0].model_copy(update={"id": a_task().id}),), sizes=((-5, 1 << 60),))
        (corrected,) = (await live.client.ask(odd)).accepted
        assert (await live.record(corrected.id)).size == (64, 48)


async def test_lcq_models_stats_and_lcq_task_show_predictions_beside_what_came(live: Live) -> None:
    node = await live.node(a_cpu("C"), "cpu")
    (before,) = await live.client.costs()
    assert (before.model, before.device_class, before.attempts, before.basis) == ("lama", "cpu C x1", 0, "measured")
    assert "(shipped, measured)" in await lcq(live, "models", "stats")
    ids = await live.submit(3)
    for grant in [await wait_until(node.take) for _ in ids]:  # all before one has taught what the next takes
        await node.finish(grant)

    async def is_learned() -> bool:
        return all(one.attempts == len(ids) and one.basis == "learned" for one in await live.client.costs())

    await wait_until(is_learned)
    (told,) = await live.client.costs()
    assert (told.model, told.device_class, told.attempts, told.peak_mib) == ("lama", "cpu C x1", 3, 123)
    assert (told.actual_p50_s, told.predicted_p50_s, told.under_p90) == (0.25, pytest.approx(18.3), 1.0)
    assert told.error_p50 == pytest.approx(0.986, abs=1e-3)
    assert await live.client.costs("mat") == ()
    document = json.loads(await lcq(live, "models", "stats", "--json"))
    assert document["costs"][0]["error_p50"] == told.error_p50
    shown = await lcq(live, "models", "stats", "lama")
    for words in (
        "default",
        "cpu C x1",
        "18.3s / 36.6s",
        "0.25s / 0.25s",
        "99% / 99%",
        "100%",
        "123 / 920 MiB (shipped)",
    ):
        assert words in shown
    task = await lcq(live, "task", ids[0])
    assert "18.3s (P90 36.6s)" in task
    assert "0.25s" in task


async def lcq(live: Live, *words: str) -> str:
    address = live.scheduler.control_endpoint.removeprefix("tcp://")
    environment = {"NO_COLOR": "1", "COLUMNS": "300"}

    def invoke() -> str:
        with logging_kept():
            result = CliRunner().invoke(app, ["--scheduler", address, *words], env=environment)
        assert result.exit_code == 0, result.output
        return result.stdout

    return await asyncio.to_thread(invoke)

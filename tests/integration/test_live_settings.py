"""A scheduler whose files change: queues come and go with what waits in them; what cannot be had changes nothing."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from lcq import reload
from lcq.config import ConfigManager
from lcq.errors import StaleBoot
from lcq.models import Device, DeviceKind, ModelOffer, NodeCapability, QueueConfig, TaskStatus
from lcq.reload import ConfigFollower
from lcq.scheduler import Scheduler
from lcq.wire import AskSettings, Beat, Hello, HelloAnswer, Info, Submit
from tests.conftest import wait_until
from tests.nodes import LIGHT, TELEA, a_task

CORES = Device(id="cpu", kind=DeviceKind.CPU, cores=8, memory_mib=8000, slots=2)
SPARE = QueueConfig(name="spare", kind=DeviceKind.CPU, min_cores=2, port_offset=2)
TWO = (QueueConfig(name=LIGHT, kind=DeviceKind.CPU), SPARE)


class Live:
    """A scheduler in this process, with the file that it follows, and one node that says what a test has it say."""

    def __init__(self, scheduler: Scheduler, follower: ConfigFollower, path: Path) -> None:
        self.scheduler, self.follower, self.path = scheduler, follower, path

    def write(self, queues: Sequence[QueueConfig] = TWO, **more: Any) -> None:
        """New settings; read at once, as at a SIGHUP."""
        write(self.path, queues, **more)
        self.follower.read_now()

    async def hello(self) -> HelloAnswer:
        capability = NodeCapability(devices=(CORES,), models={TELEA: ModelOffer(kinds=(DeviceKind.CPU,))})
        return await self.scheduler.nodes.hello(
            Hello(node_id="node-1", boot_id="boot-1", capability=capability), b"node-1/boot-1"
        )

    async def beat(self) -> None:
        await self.scheduler.nodes.beat(Beat(node_id="node-1", boot_id="boot-1"), b"node-1/boot-1")

    async def submit(self, queue: str = "") -> str:
        answer = await self.scheduler.tasks.submit(Submit(tasks=(a_task(),), queue=queue))
        assert not answer.refused
        return answer.accepted[0].id

    async def queue_of(self, task_id: str) -> str:
        return (await self.scheduler.state.reader.task(task_id)).queue


def write(path: Path, queues: Sequence[QueueConfig] = TWO, **more: Any) -> None:
    told = {"queues": [one.model_dump(mode="json") for one in queues], "zeromq": {"base_port": 0, "control_port": 0}}
    path.write_text(json.dumps(told | more) + "\n")


@pytest.fixture
async def live(redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Live]:
    monkeypatch.setattr(reload, "_LOOK_S", 3600.0)
    monkeypatch.setattr(reload, "_FLOOR_S", 3600.0)
    path = tmp_path / "lcq.yaml"
    write(path)
    manager = ConfigManager(path)
    async with Scheduler(manager.config, redis_url=redis_url) as scheduler, asyncio.TaskGroup() as group:
        follower = scheduler.followed(manager)
        life = group.create_task(follower.follow())
        yield Live(scheduler, follower, path)
        life.cancel()


async def test_a_queue_that_is_taken_away_loses_its_tasks_to_others_also_those_that_somebody_had_put_there(
    live: Live,
) -> None:
    assert (await live.hello()).serves == {"cpu": ("spare", LIGHT)}
    chosen, by_itself = await live.submit("spare"), await live.submit()
    live.write(TWO[:1])
    await wait_until(lambda: live.scheduler.site.rings.keys() == {LIGHT})
    for task_id in (chosen, by_itself):
        await wait_until_in(live, task_id, LIGHT)
    record = await live.scheduler.state.reader.task(chosen)
    assert (record.status, record.why) == (TaskStatus.QUEUED, "there is no queue spare any more; moved")
    with pytest.raises(StaleBoot):
        await live.beat()
    assert (await live.hello()).serves == {"cpu": (LIGHT,)}
    await live.beat()
    info = await live.scheduler.tasks.info(Info())
    assert [queue.name for queue in info.queues] == [LIGHT]
    assert [queue.name for queue in await live.scheduler.state.reader.queues()] == [LIGHT]


async def test_where_nothing_could_run_them_tasks_leave_a_queue_that_is_no_more_all_the_same(live: Live) -> None:
    task_id = await live.submit("spare")  # no node has said hello
    live.write(TWO[:1])
    await wait_until_in(live, task_id, LIGHT)


async def test_a_new_queue_rings_takes_tasks_and_is_served_after_the_next_hello(live: Live) -> None:
    await live.hello()
    before = dict(live.scheduler.site.rings)
    fast = QueueConfig(name="fast", kind=DeviceKind.CPU, min_cores=4, port_offset=3)
    live.write((*TWO, fast))
    await wait_until(lambda: "fast" in live.scheduler.site.rings)
    assert {name: live.scheduler.site.rings[name] for name in before} == before, "bells that stay are not bound anew"
    with pytest.raises(StaleBoot):
        await live.beat()
    assert (await live.hello()).serves == {"cpu": ("fast", "spare", LIGHT)}
    assert await live.queue_of(await live.submit("fast")) == "fast"


async def test_a_hello_that_was_under_way_when_the_queues_changed_is_said_again(live: Live) -> None:
    under_way = asyncio.create_task(live.hello())
    await asyncio.sleep(0)  # it has looked at the queues, and waits for Redis
    live.scheduler.state.follow(live.scheduler.state.config.model_copy(update={"queues": TWO[:1]}))
    live.scheduler.nodes.greet_anew()
    assert (await under_way).serves == {"cpu": ("spare", LIGHT)}
    with pytest.raises(StaleBoot):
        await live.beat()
    assert (await live.hello()).serves == {"cpu": (LIGHT,)}
    await live.beat()


async def test_a_threshold_that_is_raised_takes_a_node_out_of_a_queue_and_its_tasks_follow(live: Live) -> None:
    await live.hello()
    live.write((TWO[0], SPARE.model_copy(update={"min_cores": 64})))
    await wait_until(lambda: live.scheduler.state.config.queues[1].min_cores == 64)
    task_id = await live.submit("spare")
    assert (await live.hello()).serves == {"cpu": (LIGHT,)}
    assert await live.queue_of(task_id) == "spare", "there is such a queue: what somebody put there waits there"
    assert await live.queue_of(await live.submit()) == LIGHT


async def test_a_budget_that_is_lowered_while_money_is_spent_counts_at_once(live: Live) -> None:
    live.write(serverless={"overflow_after_s": 5, "budget": {"hour": 2}})
    await wait_until(lambda: live.scheduler.state.config.serverless.budget.hour == 2)
    assert live.scheduler.state.reader.serverless.overflow_after_s == 5
    assert (await live.scheduler.state.reader.spend()).budget.hour == 2
    live.write(serverless={"budget": {"hour": 0.5}})
    await wait_until(lambda: live.scheduler.state.config.serverless.budget.hour == 0.5)
    assert live.scheduler.state.config.serverless.overflow_after_s == 60


async def test_a_queue_whose_port_is_taken_is_refused_and_all_stays_as_it_was(live: Live) -> None:
    rings = dict(live.scheduler.site.rings)
    bells = dict(live.scheduler.queues._bound)
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        live.scheduler.state.config = live.scheduler.state.config.model_copy(
            update={"zeromq": live.scheduler.state.config.zeromq.model_copy(update={"base_port": port - 3})}
        )
        live.write((*TWO, QueueConfig(name="fast", kind=DeviceKind.CPU, port_offset=3)), retries={"base_s": 9})
        await wait_until(lambda: "cannot bind queue fast" in live.follower.error)
    assert live.scheduler.site.rings == rings
    assert live.scheduler.queues._bound == bells
    assert live.scheduler.state.config.retries.base_s == 1.0
    info = await live.scheduler.tasks.info(Info())
    assert (info.config_refused, "queue fast" in info.config_error) == (1, True)


async def test_retention_leases_and_quarantine_hold_at_once_in_the_scripts_and_in_the_next_hello(live: Live) -> None:
    live.write(retention={"completed_s": 7}, leases={"beat_s": 1, "lease_s": 9}, quarantine={"half_life_s": 5})
    await wait_until(lambda: live.scheduler.state.config.retention.completed_s == 7)
    assert "BLAME_HALF_LIFE_MS = 5000" in live.scheduler.state._scripts.header
    greeting = await live.hello()
    assert (greeting.beat_ms, greeting.lease_ms) == (1000, 9000)
    task_id = await live.submit()
    await live.scheduler.state.cancel_task(task_id, why="by ann")
    score = await live.scheduler.state._redis.zscore("{lcq}:expiry", task_id)
    assert score is None or score - await live.scheduler.state.now_ms() <= 7000


async def test_the_settings_that_a_scheduler_goes_by_are_told_with_who_said_them_and_without_secrets(
    live: Live,
) -> None:
    live.write(discovery={"key": "hunter2hunter2hunter2"}, retries={"base_s": 2})
    await wait_until(lambda: live.scheduler.state.config.retries.base_s == 2)
    assert live.follower.waiting == ("discovery.key",)
    told = await live.scheduler.tasks.settings(AskSettings())
    assert told.values["retries"]["base_s"] == 2
    assert told.origins["retries.base_s"] == f"{live.path}:1"
    assert "hunter2" not in told.model_dump_json()


async def wait_until_in(live: Live, task_id: str, queue: str) -> None:
    async def is_there() -> bool:
        return await live.queue_of(task_id) == queue

    await wait_until(is_there)

"""Several schedulers on one Redis, all active: work and words find the one that lives, and nothing is done twice."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from lcq.client import AsyncClient
from lcq.config import DistributedConfig
from lcq.models import NodeStatus, TaskStatus
from lcq.state.manager import StateManager
from lcq.wire import Pause, Retry
from tests.audit import audit
from tests.cluster import Cluster, drill, free_port, running_cluster
from tests.conftest import wait_until
from tests.light_node import a_light_node
from tests.nodes import a_task


@pytest.fixture
def cluster(redis_url: str, tmp_path: Path) -> Iterator[Cluster]:
    # An agent that heard no bell would not ask for work as long as any of these tests runs.
    with running_cluster(redis_url, tmp_path / "c", LCQ_AGENT__POLL_S="3600") as cluster:
        yield cluster


@pytest.fixture
def second_port() -> int:
    return free_port()


def endpoint(port: int) -> str:
    return f"tcp://127.0.0.1:{port}"


def a_client(*ports: int) -> AsyncClient:
    return AsyncClient(DistributedConfig(), scheduler=",".join(f"127.0.0.1:{port}" for port in ports), timeout_s=30)


async def knows_both(client: AsyncClient) -> None:
    async def asked() -> bool:
        await client.info()
        return len(client._connected) == 2

    await wait_until(asked, what="the client to hear of the second scheduler")


async def beats_again(client: AsyncClient, node: str) -> None:
    """Two beats from now, the node has been told what its scheduler knows."""

    async def last() -> int:
        return next(one.seen_ms for one in await client.nodes() if one.id == node)

    for _ in range(2):
        before = await last()

        async def is_later(before: int = before) -> bool:
            return await last() > before

        await wait_until(is_later, what=f"a beat of {node}")


async def test_a_task_given_to_one_scheduler_wakes_the_idle_agent_of_another_at_once(
    cluster: Cluster, second_port: int
):
    cluster.start_scheduler()
    cluster.start_agent("node-1")
    cluster.start_scheduler("second", port=second_port)
    took = []
    async with a_client(second_port) as client:
        client._learn = lambda told: None  # type: ignore[method-assign]  # this one speaks to the second alone
        for _ in range(5):  # each finds the agent idle again
            began = time.monotonic()
            accepted = await client.submit(drill())
            (record,) = await client.wait([accepted.id], timeout_s=60)
            took.append(time.monotonic() - began)
            assert (record.status, record.node) == (TaskStatus.COMPLETED, "node-1")
    print(f"\nsubmitted at another scheduler than the agent's, done after {[f'{s * 1000:.0f} ms' for s in took]}")


async def test_when_a_scheduler_is_killed_its_clients_and_agents_go_on_at_the_next(cluster: Cluster, second_port: int):
    cluster.start_scheduler()
    cluster.start_agent("node-1")
    cluster.start_scheduler("second", port=second_port)
    async with a_client(cluster.control_port) as client:
        await knows_both(client)
        await beats_again(client, "node-1")
        long = await client.submit(drill("drill-sleep", seconds=2))
        await wait_until(lambda: running(client, long.id))
        await asyncio.to_thread(cluster.kill, "scheduler")
        killed = time.monotonic()
        accepted = await client.submit(drill())
        answered_s = time.monotonic() - killed
        await client.wait([accepted.id], timeout_s=60)
        done_s = time.monotonic() - killed
        await client.wait([long.id], timeout_s=60)
        attempts = (await client.history(long.id)).attempts
        begun = [attempt.outcome for attempt in attempts if attempt.outcome != "handed_back"]  # a grant it took with it
        assert begun == ["completed"], "what ran when it died was done once"
    print(f"\nscheduler killed: the next submit accepted after {answered_s:.2f} s, done after {done_s:.2f} s")


async def running(client: AsyncClient, task_id: str) -> bool:
    return (await client.get(task_id)).status == TaskStatus.PROCESSING


async def test_after_a_restart_of_its_scheduler_the_death_of_a_node_is_noticed_as_soon_as_before(
    redis_url: str, tmp_path: Path
):
    with running_cluster(redis_url, tmp_path / "c", LCQ_LEASES__LEASE_S="60") as cluster:  # its silence tells nothing
        cluster.start_scheduler()
        async with a_client(cluster.control_port) as client:
            async with a_light_node([endpoint(cluster.control_port)]) as node:
                await wait_until(lambda: len(node.beats) > 4, what="its lifeline to have stayed")
                await asyncio.to_thread(cluster.kill, "scheduler")
                await asyncio.to_thread(cluster.start_scheduler)
                await wait_until(lambda: len(node.welcomes) == 2, what="the node at the new one")
                beats = len(node.beats)
                await wait_until(lambda: len(node.beats) > beats + 2, what="a lifeline to the new one")
            died = time.monotonic()

            async def is_offline() -> bool:
                return [one.status for one in await client.nodes()] == [NodeStatus.OFFLINE]

            await wait_until(is_offline, timeout=60, what="its death to be noticed")
    print(f"\nnode killed after a restart of its scheduler: noticed after {time.monotonic() - died:.2f} s")


async def test_a_client_whose_first_scheduler_is_down_at_the_start_asks_the_next(cluster: Cluster, second_port: int):
    cluster.start_scheduler("second", port=second_port)
    async with a_client(cluster.control_port, second_port) as client:
        assert (await client.submit(a_task())).status == TaskStatus.QUEUED
    config = DistributedConfig(
        data_dir=cluster.folder / "elsewhere",
        zeromq={"control_port": cluster.control_port},  # type: ignore[arg-type]
        schedulers=[f"127.0.0.1:{second_port}"],  # type: ignore[arg-type]
    )
    async with AsyncClient(config, timeout_s=30) as client:
        assert len(await client.nodes()) == 0
    async with a_light_node([endpoint(cluster.control_port), endpoint(second_port)]) as node:
        assert node.welcomes


async def test_a_command_told_to_two_schedulers_at_once_is_done_once_and_both_say_so(
    cluster: Cluster, second_port: int, redis_url: str
):
    cluster.start_scheduler()
    cluster.start_scheduler("second", port=second_port)
    async with (
        a_client(cluster.control_port) as first,
        a_client(second_port) as second,
        a_light_node([endpoint(second_port)], takes=True) as node,
    ):
        for client in (first, second):
            client._learn = lambda told: None  # type: ignore[method-assign]
        for _ in range(8):
            accepted = await first.submit(a_task())
            await first.wait([accepted.id], timeout_s=30)
            again = Retry(ids=(accepted.id,), actor="ann")
            told = await asyncio.gather(first.ask(again), second.ask(again))
            assert told[0] == told[1]
            assert told[0].done == (accepted.id,)
            await first.wait([accepted.id], timeout_s=30)
            pause = Pause(queue="cpu-light", actor="ann")
            await asyncio.gather(first.ask(pause), second.ask(pause))
            await second.resume("cpu-light")
            history = await first.history(accepted.id)
            assert [attempt.outcome for attempt in history.attempts] == ["completed", "completed"]
            assert [event.move for event in history.events].count("retry_task") == 1
        node.takes = False
    with redis.Redis.from_url(redis_url, decode_responses=True) as eye:
        acts = [act for _, act in eye.xrange("{lcq}:acts")]
        assert sum(act["act"] == "retry" for act in acts) == 8
        assert sum(act["act"] == "pause" for act in acts) == 8


async def test_a_refusal_is_the_answer_to_every_copy_of_a_command(cluster: Cluster, second_port: int):
    cluster.start_scheduler()
    cluster.start_scheduler("second", port=second_port)
    async with a_client(cluster.control_port) as first, a_client(second_port) as second:
        for client in (first, second):
            client._learn = lambda told: None  # type: ignore[method-assign]
        accepted = await first.submit(a_task())
        too_early = Retry(ids=(accepted.id,), actor="ann")
        assert (await first.ask(too_early)).refused
        await first.cancel(accepted.id)
        assert (await second.ask(too_early)).refused, "what a person was refused is not done behind their back"
        assert (await second.get(accepted.id)).status == TaskStatus.CANCELLED


async def test_a_scheduler_that_dies_between_an_act_and_its_answer_has_done_it_for_the_next_one_too(
    redis_url: str,
):
    async with StateManager(url=redis_url) as first, StateManager(url=redis_url) as second:
        task = a_task()
        await first.submit_task(task, queue="cpu-light")
        await first.cancel_task(task.id)
        await first.retry_task(task.id, queue="cpu-light", command="c1")
        await first.cancel_task(task.id)  # it has come to an end again before the copy arrives
        await second.retry_task(task.id, queue="cpu-light", command="c1")
        assert (await second.reader.task(task.id)).status == TaskStatus.CANCELLED
        await second.retry_task(task.id, queue="cpu-light", command="c2")
        assert (await second.reader.task(task.id)).status == TaskStatus.QUEUED
    with redis.Redis.from_url(redis_url, decode_responses=True) as eye:
        audit(eye)


@pytest.mark.chaos
async def test_a_rolling_restart_under_load_loses_nothing_and_delays_nothing_for_long(
    cluster: Cluster, second_port: int
):
    ports = {"first": cluster.control_port, "second": second_port}
    for name, port in ports.items():
        cluster.start_scheduler(name, port=port)
    cluster.start_agent("node-1", port=ports["first"])
    cluster.start_agent("node-2", port=ports["second"])
    accepted: list[str] = []
    async with a_client(*ports.values()) as client:

        async def keep_submitting() -> None:
            while True:
                answer = await client.submit_many([drill("drill-sleep", seconds=0.05) for _ in range(2)])
                assert not answer.refused
                accepted.extend(one.id for one in answer.accepted)
                await asyncio.sleep(0.1)

        load = asyncio.create_task(keep_submitting())
        await asyncio.sleep(1)
        for name, port in ports.items():
            await asyncio.to_thread(cluster.kill, name, signal.SIGTERM)
            await asyncio.to_thread(cluster.start_scheduler, name, port=port)
            await asyncio.sleep(1)
        load.cancel()
        await asyncio.wait({load})
        assert load.cancelled()
        records = await client.wait(accepted, timeout_s=60)
        assert {record.status for record in records} == {TaskStatus.COMPLETED}
        histories = [await client.history(task_id) for task_id in accepted]
    outcomes = [[attempt.outcome for attempt in history.attempts] for history in histories]
    assert all(one.count("completed") == 1 for one in outcomes)
    again = [one for one in outcomes if len(one) > 1]
    assert all(set(one) <= {"handed_back", "completed"} for one in again), "nothing was computed twice"
    waits = sorted((record.started_ms or 0) - record.submitted_ms for record in records)
    median_ms, most_ms = waits[len(waits) // 2], waits[-1]
    print(
        f"\nrolling restart of 2 schedulers: {len(waits)} tasks, waited {median_ms} ms (median), {most_ms} ms (most);"
        f" {len(again)} grants came to nobody"
    )
    assert most_ms < 9000

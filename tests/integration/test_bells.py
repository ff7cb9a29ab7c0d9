"""Tickets hurry and never decide: with none of them every task completes; with them nobody waits for a poll."""

from __future__ import annotations

from pathlib import Path

import pytest

from lcq.client import AsyncClient
from lcq.config import DistributedConfig
from lcq.models import TaskStatus
from lcq.queues import QueueManager
from lcq.scheduler import Scheduler
from tests.cluster import Cluster, drill, running_cluster
from tests.conftest import wait_until


def config_of(cluster: Cluster) -> DistributedConfig:
    return DistributedConfig(
        data_dir=cluster.folder,
        zeromq={"base_port": 0, "control_port": cluster.control_port},
        leases={"beat_s": 0.5, "lease_s": 3},
    )


async def start_agent(cluster: Cluster, client: AsyncClient, name: str) -> None:
    cluster.start_agent(name, slots=1, wait=False)  # the scheduler runs on this very loop: it must not be blocked

    async def online() -> bool:
        return any(node.id == name for node in await client.nodes())

    await wait_until(online, what=f"{name} online")


async def test_with_every_ticket_thrown_away_all_tasks_still_complete(
    redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    thrown_away = []
    monkeypatch.setattr(QueueManager, "ring", lambda self, queue, **more: thrown_away.append(queue))
    with running_cluster(redis_url, tmp_path / "c", LCQ_AGENT__POLL_S="0.2") as cluster:
        async with (
            Scheduler(config_of(cluster), redis_url=redis_url) as scheduler,
            AsyncClient(scheduler=scheduler.control_endpoint.removeprefix("tcp://")) as client,
        ):
            await start_agent(cluster, client, "node-1")
            answer = await client.submit_many([drill() for _ in range(50)])
            records = await client.wait([accepted.id for accepted in answer.accepted], timeout_s=120)
    assert {record.status for record in records} == {TaskStatus.COMPLETED}
    assert thrown_away


async def test_a_task_submitted_to_an_idle_cluster_starts_without_waiting_for_a_poll(redis_url: str, tmp_path: Path):
    with running_cluster(redis_url, tmp_path / "c", LCQ_AGENT__POLL_S="3600") as cluster:
        async with (
            Scheduler(config_of(cluster), redis_url=redis_url) as scheduler,
            AsyncClient(scheduler=scheduler.control_endpoint.removeprefix("tcp://")) as client,
        ):
            await start_agent(cluster, client, "node-1")
            for _ in range(5):  # each finds the agent idle again
                accepted = await client.submit(drill())
                (record,) = await client.wait([accepted.id], timeout_s=120)
                assert record.status == TaskStatus.COMPLETED
            assert scheduler.queues.tickets_sent >= 1


async def test_a_task_that_finds_one_agent_full_and_one_idle_does_not_wait_for_the_full_one(
    redis_url: str, tmp_path: Path
):
    with running_cluster(redis_url, tmp_path / "c", LCQ_AGENT__POLL_S="3600") as cluster:
        async with (
            Scheduler(config_of(cluster), redis_url=redis_url) as scheduler,
            AsyncClient(scheduler=scheduler.control_endpoint.removeprefix("tcp://")) as client,
        ):
            await start_agent(cluster, client, "node-1")
            await start_agent(cluster, client, "node-2")
            long = await client.submit(drill("drill-sleep", seconds=600), node="node-1")

            async def runs() -> bool:
                return (await client.get(long.id)).status == TaskStatus.PROCESSING

            await wait_until(runs, what="node-1 full")
            for _ in range(6):
                accepted = await client.submit(drill())
                (record,) = await client.wait([accepted.id], timeout_s=120)
                assert record.node == "node-2"
            await client.cancel([long.id])

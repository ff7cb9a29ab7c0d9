"""F-36: a runner that no kill ends blocks its own slot, and nothing else; the slot comes back by itself."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

import worker.slot as slot_module
from lcq.models import TaskStatus
from tests.cluster import drill, running_cluster
from tests.conftest import wait_until
from worker.agent import Agent
from worker.slot import SlotState


async def test_a_slot_whose_runner_survives_its_kill_is_set_aside_and_comes_back_when_it_is_gone(
    redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(slot_module, "_KILL_S", 0.3)
    monkeypatch.setenv("LCQ_DRILLS", "1")
    immortal: set[int] = set()

    def kill(group: int, number: int) -> None:
        if group not in immortal:
            os.killpg(group, number)

    with running_cluster(redis_url, tmp_path / "c") as cluster:
        await asyncio.to_thread(cluster.start_scheduler)
        config = cluster.config.model_copy(
            update={"agent": cluster.config.agent.model_copy(update={"name": "node-1", "slots": 2})}
        )
        with cluster.client() as client:

            async def has_failed(task_id: str) -> bool:
                return (await asyncio.to_thread(client.get, task_id)).status == TaskStatus.FAILED

            async with Agent(config, scheduler=f"127.0.0.1:{cluster.control_port}", kill=kill) as agent:
                running = asyncio.create_task(agent.run())
                await wait_until(lambda: agent._pool.count(SlotState.FREE) == 2, timeout=60)
                await asyncio.wait_for(agent._membership.joined.wait(), 60)
                immortal.update(slot.pid for slot in agent._pool.slots if slot.pid)
                stuck = drill("drill-hang").model_copy(update={"timeout_s": 3.0, "max_retries": 0})
                assert (await asyncio.to_thread(client.submit_many, [stuck])).accepted
                await wait_until(lambda: agent._pool.count(SlotState.UNKILLABLE) == 1, timeout=60)
                # Its attempt is over all the same.
                await wait_until(lambda: has_failed(stuck.id), timeout=60)
                others = [drill() for _ in range(10)]
                await asyncio.to_thread(client.submit_many, others)
                records = await asyncio.to_thread(client.wait, [task.id for task in others], timeout_s=60)
                assert {record.status for record in records} == {TaskStatus.COMPLETED}
                assert agent._pool.count(SlotState.UNKILLABLE) == 1
                monkeypatch.undo()
                immortal.clear()
                await wait_until(
                    lambda: agent._pool.count(SlotState.FREE) == 2, what="both slots, by themselves", timeout=60
                )
                agent.request_stop(at_once=True)
                await running

"""The autoscaling signal of a real scheduler, and the shell example of docs/autoscale.md run as it stands."""

from __future__ import annotations

import asyncio
import json
import os
import re
import sys
from pathlib import Path

import pytest
import redis

from lcq.errors import UnknownQueue
from lcq.models import NodeStatus
from lcq.wire import DrainIdle, Outcome
from tests.audit import audit
from tests.integration.test_ladder import Stage
from tests.integration.test_why import SMALL, a_host, stage, submitted
from tests.nodes import a_result

__all__ = ("stage",)  # the fixture


async def test_the_signal_follows_the_work_and_names_the_nodes_that_nothing_would_miss(stage: Stage) -> None:
    first = await a_host(stage, "first")
    await a_host(stage, "second")
    before = await stage.client.autoscale()
    assert {one.node for one in before.idle} == {"first", "second"}
    tasks = [await submitted(stage, queue="cpu-light") for _ in range(6)]
    assert await first.claim(SMALL)
    found = await stage.client.autoscale(target_wait_s=0.001)
    light = next(queue for queue in found.queues if queue.queue == "cpu-light")
    assert (light.waiting, light.running, light.live_slots, light.wanted_slots) == (5, 1, 2, 6)
    assert light.backlog_s > 0
    assert light.oldest_wait_s >= 0
    assert found.idle == (), "what waits would go to either"
    await stage.client.cancel(tasks[1:])
    assert [one.node for one in (await stage.client.autoscale()).idle] == ["second"]
    kept = await submitted(stage, node="second")
    assert (await stage.client.autoscale()).idle == (), "a task is kept for it"
    await stage.client.cancel([kept])
    await first.step(outcomes=(Outcome(task_id=tasks[0], attempt=1, device="cpu", result=a_result()),))
    idle = (await stage.client.autoscale()).idle
    assert [one.node for one in idle] == ["second", "first"], "the one that worked last is the last to go"


async def test_idle_nodes_are_drained_longest_first_once_a_command_and_as_acts(stage: Stage, eye: redis.Redis) -> None:
    for name in ("a", "b", "c"):
        await a_host(stage, name)
    for number, name in enumerate(("b", "c", "a")):
        eye.hset(f"{{lcq}}:node:{name}", mapping={"registered_ms": 1000 + number, "idle_ms": 1000 + number})
    act = DrainIdle(count=2, actor="ann", reason="night")
    assert (await stage.client.ask(act)).drained == ("b", "c")
    assert (await stage.client.ask(act)).drained == ("b", "c")
    nodes = {node.id: node for node in await stage.client.nodes()}
    assert [nodes[name].status for name in "abc"] == [NodeStatus.ONLINE, NodeStatus.DRAINING, NodeStatus.DRAINING]
    assert nodes["b"].why == "drained by ann: night"
    acts = [fields for _, fields in eye.xrange("{lcq}:acts")]
    assert [(one["act"], one["actor"], one["reason"], one["on"]) for one in acts] == [
        ("drain", "ann", "night", "node=b"), ("drain", "ann", "night", "node=c"),
        ("drain_idle", "ann", "night", "count=2"),
    ]  # fmt: skip
    with pytest.raises(UnknownQueue):
        await stage.client.drain_idle(1, queue="attic")
    assert await stage.client.drain_idle(1, queue="gpu-high") == ()
    assert await stage.client.drain_idle(9) == ("a",)
    audit(eye)


async def test_the_shell_example_starts_machines_for_work_and_gives_idle_ones_up(stage: Stage, tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "autoscale.md").read_text()
    (script,) = re.findall(r"```bash\n(.*?)```", page, flags=re.DOTALL)
    (tmp_path / "scale.sh").write_text(script)
    for name in ("start", "stop"):
        command = tmp_path / name
        command.write_text(f'#!/bin/sh\necho "$@" >> "{tmp_path}/{name}ed"\n')
        command.chmod(0o755)
    host, port = stage.scheduler.control_endpoint.removeprefix("tcp://").split(":")
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "QUEUE": "cpu-light", "TARGET_S": "0.001",
        "START_NODES": str(tmp_path / "start"), "STOP_NODES": str(tmp_path / "stop"), "LCQ_SCHEDULER_HOST": host,
        "LCQ_ZEROMQ__CONTROL_PORT": port, "LCQ_DATA_DIR": str(tmp_path),
    }  # fmt: skip

    async def run() -> dict[str, str]:
        process = await asyncio.create_subprocess_exec(
            "bash", str(tmp_path / "scale.sh"), env=environment, cwd=tmp_path,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip
        said, _ = await process.communicate()
        assert process.returncode == 0, said.decode()
        return {name: path.read_text() for name in ("started", "stoped") if (path := tmp_path / name).exists()}

    tasks = [await submitted(stage, queue="cpu-light") for _ in range(3)]
    assert await run() == {"started": "3\n"}
    for name in ("a", "b", "c"):
        await a_host(stage, name)
    assert await run() == {"started": "3\n"}, "there is a slot for each"
    await stage.client.cancel(tasks)
    told = await run()
    assert sorted(told["stoped"].split()) == ["a", "b", "c"]
    assert json.dumps([node.status for node in await stage.client.nodes()]) == json.dumps(["draining"] * 3)

"""How tests/data/v1 was made: by the real code of protocol 1, on a real server. Not a test, and not run again.

    git archive 833c289 | tar x -C /tmp/v1
    PYTHONPATH=/tmp/v1 python tests/make_v1_fixtures.py tests/data/v1

``appendonly.aof``: the log of a private server on which tasks of every state, nodes, attempts, a paused queue and
jobs were left. ``talk.json``: what an agent and a client of that version say, as frames, with the scheduler's answers
and the JSON schema by which that version reads each. Of a later version, make a new folder; this one stays as it is.
"""

from __future__ import annotations

import asyncio
import base64
import json
import shutil
import sys
import tempfile
from pathlib import Path

import zmq
import zmq.asyncio

from lcq import wire
from lcq.config import DistributedConfig, RetryConfig
from lcq.embedded import PrivateServer
from lcq.ids import new_id
from lcq.models import (
    Device,
    DeviceKind,
    ErrorClass,
    Failure,
    NodeCapability,
    Task,
    TaskPriority,
    TaskResult,
    TaskType,
)
from lcq.scheduler import Scheduler
from lcq.state.manager import StateManager

TELEA, NS, LIGHT, INTENSIVE = "cv2-telea", "cv2-ns", "cpu-light", "cpu-intensive"
CAPABILITY = NodeCapability(
    devices=(Device(id="cpu", kind=DeviceKind.CPU, slots=2, cores=8, memory_mib=8000),),
    models={TELEA: (DeviceKind.CPU,), NS: (DeviceKind.CPU,)},
    host="studio-1",
    version="0.1.0",
)
RESULT = TaskResult(path="/photos/cleaned/a.png", bytes=5, sha256="ab" * 32, width=4, height=3, seconds=0.25)
DISK = Failure(error_class=ErrorClass.TRANSIENT, code="storage_timeout", message="it did not answer")
BAD = Failure(error_class=ErrorClass.BAD_INPUT, code="mask_size_mismatch", message="the mask is 4 x 3")


def a_task(name: str, **fields: object) -> Task:
    return Task(task_type=TaskType.INPAINT, image_path=f"/photos/{name}.png", mask_path="/photos/m.png", **fields)


async def leave_state(state: StateManager) -> None:
    """Every state, each with a past."""

    async def hello(node: str, boot: str) -> None:
        serves = {"cpu": (INTENSIVE, LIGHT)}
        await state.register_node(node, boot=boot, capability=CAPABILITY, serves=serves)

    async def claim(node: str, boot: str, slots: int = 1) -> list[str]:
        grants = await state.claim_tasks(
            node=node, boot=boot, device="cpu", slots=slots, models=(TELEA, NS), queues=(INTENSIVE, LIGHT)
        )
        return [grant.task.id for grant in grants]

    for node in ("studio-1", "studio-2", "studio-3"):
        await hello(node, f"{node}-boot-1")
    await hello("studio-2", "studio-2-boot-2")
    for name in ("done", "done-again", "spoilt", "unwanted", "backs-off", "runs", "runs-too"):
        await state.submit_task(a_task(name, job="holiday"), queue=LIGHT, key=f"key-{name}")
        (task_id,) = await claim("studio-1", "studio-1-boot-1")
        attempt, node = 1, "studio-1"
        if name == "done-again":
            await state.release_task(task_id, attempt=1, node=node)
            (task_id,) = await claim("studio-2", "studio-2-boot-2")
            attempt, node = 2, "studio-2"
        if name.startswith("done"):
            await state.finish_task(task_id, attempt=attempt, node=node, result=RESULT)
        elif name == "spoilt":
            await state.fail_task(task_id, attempt=1, node=node, failure=BAD)
        elif name == "unwanted":
            await state.cancel_task(task_id, why="by ann")
        elif name == "backs-off":
            await state.fail_task(task_id, attempt=1, node=node, failure=DISK)
    await state.beat_node(
        "studio-1", boot="studio-1-boot-1", running=[wire.Running(task_id=task_id, attempt=1, progress=0.5)]
    )
    later = await state.now_ms() + 1000
    await state.submit_task(a_task("later", user_id="ben"), queue=LIGHT, due_ms=later)
    for number in range(3):
        await state.submit_task(a_task(f"waits-{number}", user_id="ben", job="wedding"), queue=LIGHT, cost_s=2.0)
    await state.submit_task(a_task("urgent", priority=TaskPriority.URGENT, config={"model": NS}), queue=LIGHT)
    await state.submit_task(a_task("pinned"), queue=LIGHT, node="studio-2", forced=True)
    await state.submit_task(a_task("heavy"), queue=INTENSIVE, forced=True)
    await state.pause_queue(INTENSIVE, actor="ann", reason="new disks")
    await state.drain_node("studio-3", why="drained by ann")
    await state.leave_node("studio-3", boot="studio-3-boot-1")
    await state.note_act(new_id(), b"\x81", {"act": "pause", "actor": "ann"})


async def record_talk(endpoint: str) -> list[dict[str, object]]:
    """Each command of an agent and of a client, asked of a real scheduler."""
    context = zmq.asyncio.Context()
    socket = context.socket(zmq.DEALER)
    socket.linger = 0
    socket.connect(endpoint)
    told: list[dict[str, object]] = []

    async def ask(request: wire.Request) -> None:
        frame = wire.pack_request(request)
        await socket.send(frame)
        while (reply := wire.unpack_reply(answer := await asyncio.wait_for(socket.recv(), 20))).order is not None:
            continue
        reply.answer(request.ANSWER)  # no refusals here
        told.append(
            {
                "cmd": request.CMD,
                "request": base64.b64encode(frame).decode(),
                "answer": base64.b64encode(answer).decode(),
                "shape": request.ANSWER.model_json_schema(),
            }
        )

    me = {"node_id": "studio-9", "boot_id": "boot-1"}
    tasks = [a_task(name, job="talk", config={"model": TELEA}) for name in "abcd"]
    first, second, third, fourth = (task.id for task in tasks)
    await ask(wire.Hello(**me, capability=CAPABILITY))
    await ask(wire.Submit(tasks=tuple(tasks[:2]), actor="ann", queue=LIGHT))
    await ask(wire.Step(**me, want=(wire.Want(device="cpu", slots=2, warm=(TELEA,)),)))
    running = tuple(wire.Running(task_id=one, attempt=1, progress=0.5, stage="fill") for one in (first, second))
    await ask(wire.Beat(**me, running=running, telemetry={"load": 1.5, "not_claiming": "no"}))
    outcomes = (
        wire.Outcome(task_id=first, attempt=1, device="cpu", result=RESULT),
        wire.Outcome(task_id=second, attempt=1, device="cpu", failure=BAD),
    )
    await ask(wire.Step(**me, outcomes=outcomes))
    await ask(wire.Submit(tasks=tuple(tasks[2:]), keys=("k1", "k2"), actor="ann", queue=LIGHT))
    await ask(wire.Prioritise(ids=(third,), priority=TaskPriority.HIGH))
    await ask(wire.Reroute(ids=(third,), queue=INTENSIVE, reason="faster"))
    await ask(wire.Cancel(ids=(fourth,), reason="not wanted"))
    await ask(wire.Retry(ids=(second,)))
    await ask(wire.Pause(queue=LIGHT, actor="ann", reason="lunch"))
    for question in (
        wire.Info(), wire.Find(prefix=first), wire.GetTasks(ids=(first, second, third, fourth)), wire.ListTasks(),
        wire.History(task_id=second), wire.Nodes(), wire.Queues(), wire.Jobs(), wire.Events(after="0-0"),
    ):  # fmt: skip
        await ask(question)
    await ask(wire.Resume(queue=LIGHT))
    await ask(wire.Drain(node="studio-9", reason="new GPU"))
    await ask(wire.Activate(node="studio-9"))
    await ask(wire.Bye(**me))
    socket.close()
    context.term()
    return told


async def make(folder: Path) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        config = DistributedConfig(retries=RetryConfig(base_s=1, max_s=1))
        with PrivateServer(Path(scratch) / "state") as server:
            async with StateManager(config, url=server.url) as state:
                await leave_state(state)
        (log,) = (Path(scratch) / "state").rglob("*.incr.aof")
        shutil.copy(log, folder / "appendonly.aof")
        quiet = DistributedConfig(zeromq={"base_port": 0, "control_port": 0}, leases={"beat_s": 30, "lease_s": 300})
        with PrivateServer(Path(scratch) / "talk") as server:
            async with Scheduler(quiet, redis_url=server.url) as scheduler:
                talk = await record_talk(scheduler.control_endpoint)
        (folder / "talk.json").write_text(json.dumps(talk, indent=1) + "\n")


if __name__ == "__main__":
    asyncio.run(make(Path(sys.argv[1])))

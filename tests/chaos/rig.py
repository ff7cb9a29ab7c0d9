"""A small cluster in the test's own process: a real Redis and real runners, a scheduler and agents in our loop."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from lcq.client import AsyncClient
from lcq.config import AgentConfig, DistributedConfig, LeaseConfig, QuarantineConfig, RetryConfig, ZeroMqConfig
from lcq.models import Attempt, NodeRecord, NodeStatus, Task, TaskStatus, TaskType
from lcq.scheduler import Scheduler
from tests import scripted_runner
from tests.conftest import wait_until
from tests.forked import Program
from worker.agent import Agent

SCRIPTED = scripted_runner.COMMAND
ENDED = frozenset({TaskStatus.COMPLETED, TaskStatus.FAILED, TaskStatus.CANCELLED})


def scripted(do: str = "done", *, max_retries: int = 3, timeout_s: float = 600.0, **config: object) -> Task:
    """A task for a scripted runner; ``final`` is where its result goes."""
    return Task(
        task_type=TaskType.INPAINT,
        image_path="x.png",
        output_path=str(config["final"]) if "final" in config else None,
        config={"model": "cv2-telea", "do": do, **config},
        max_retries=max_retries,
        timeout_s=timeout_s,
    )


@dataclass(frozen=True)
class Photo:
    """A task that writes "attempt N" beside its final name, and ends once its gate is open to that attempt."""

    folder: Path

    def task(self, *, max_retries: int = 3, timeout_s: float = 600.0) -> Task:
        self.folder.mkdir(parents=True, exist_ok=True)
        gate = str(self.folder / "gate-{attempt}")
        return scripted("write", final=str(self.final), gate=gate, max_retries=max_retries, timeout_s=timeout_s)

    @property
    def final(self) -> Path:
        return self.folder / "photo.png"

    def open_to(self, attempt: int) -> None:
        (self.folder / f"gate-{attempt}").touch()

    def staged(self) -> list[str]:
        """The files that attempts have left beside the final name."""
        return sorted(path.name for path in self.folder.iterdir() if path.suffix == ".lcq-tmp")

    async def until_begun(self, attempt: int) -> None:
        """Wait until a runner is at ``attempt``: the scheduler knows of it before the node has heard of its grant."""
        mark = f"-{attempt}.lcq-tmp"
        await wait_until(
            lambda: any(name.endswith(mark) for name in self.staged()), what=f"a runner to be at attempt {attempt}"
        )


@dataclass
class Rig:
    """One scheduler, one client of it, and the agents a test lets live."""

    config: DistributedConfig
    scheduler: Scheduler
    client: AsyncClient
    folder: Path

    @contextlib.asynccontextmanager
    async def agent(
        self, name: str = "node-1", *, slots: int = 2, runner: Sequence[str] = SCRIPTED
    ) -> AsyncIterator[Agent]:
        """An agent that works while the block lasts, and then leaves, handing back what it is at."""
        settings = AgentConfig(name=name, slots=slots, poll_s=0.2, drain_s=5)
        config = self.config.model_copy(update={"agent": settings, "data_dir": self.folder / name})
        address = self.scheduler.control_endpoint.removeprefix("tcp://")
        async with Agent(config, scheduler=address, runner=runner) as agent, asyncio.TaskGroup() as group:
            group.create_task(agent.run())
            try:
                async with asyncio.timeout(60):
                    await agent._membership.joined.wait()
                yield agent
            finally:
                agent.request_stop(at_once=True)

    async def status(self, task_id: str) -> TaskStatus:
        return (await self.client.get(task_id)).status

    async def until(self, task_id: str, *wanted: TaskStatus, timeout: float = 60.0) -> TaskStatus:
        async def reached() -> TaskStatus | None:
            status = await self.status(task_id)
            return status if status in wanted else None

        found = await wait_until(reached, timeout=timeout, what=f"{task_id} to be {' or '.join(wanted)}")
        assert found is not None
        return found

    async def attempts(self, task_id: str) -> tuple[Attempt, ...]:
        return (await self.client.history(task_id)).attempts

    async def node(self, name: str) -> NodeRecord:
        return next(node for node in await self.client.nodes() if node.id == name)

    async def until_node(self, name: str, wanted: NodeStatus, *, timeout: float = 60.0) -> None:
        async def reached() -> bool:
            return any(node.id == name and node.status == wanted for node in await self.client.nodes())

        await wait_until(reached, timeout=timeout, what=f"{name} to be {wanted}")

    async def until_attempt(self, task_id: str, number: int, *, node: str = "", timeout: float = 60.0) -> None:
        """Wait until attempt ``number`` runs, on ``node`` if one is named."""

        async def reached() -> bool:
            record = await self.client.get(task_id)
            return (record.status, record.attempt) == (TaskStatus.PROCESSING, number) and record.node == (
                node or record.node
            )

        await wait_until(reached, timeout=timeout, what=f"attempt {number} of {task_id} to run {node}")

    async def total(self, name: str) -> int:
        return (await self.scheduler.state.reader.totals()).get(name, 0)

    async def is_the_committed_one(self, task_id: str, photo: Photo, attempt: int) -> None:
        """Check that just the work of ``attempt`` was committed, and that the file is its own and nobody else's."""
        record, attempts = await self.client.get(task_id), await self.attempts(task_id)
        assert record.status is TaskStatus.COMPLETED, record
        assert [one.result_of or one.number for one in attempts if one.outcome == "completed"] == [attempt], attempts
        assert photo.final.read_bytes() == f"attempt {attempt}".encode()
        assert record.result is not None
        assert record.result.sha256 == hashlib.sha256(photo.final.read_bytes()).hexdigest()

    async def commits(self, task_id: str) -> int:
        """How many attempts of this task have committed a result: never more than one."""
        return sum(attempt.outcome == "completed" for attempt in await self.attempts(task_id))


@contextlib.contextmanager
def scripted_agent(
    rig: Rig, name: str, *options: str, failpoints: str = "", beside: Rig | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """``tests.scripted_agent`` as a process of ``rig``'s cluster; what is left of it is ended with the block.

    It is told of the scheduler of ``beside``, too.
    """
    schedulers = [one.scheduler.control_endpoint.removeprefix("tcp://") for one in (rig, beside) if one]
    address = ",".join(schedulers)
    environment = os.environ | {"LCQ_DRILLS": "1", "LCQ_FAILPOINTS": failpoints}
    command = [sys.executable, "-m", "tests.scripted_agent", address, str(rig.folder / name), name, *options]
    with (rig.folder / f"{name}.log").open("ab") as log:
        process = Program(command, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGCONT)
            process.terminate()
        try:
            process.wait(20)
        finally:
            process.kill()
            process.wait()


@contextlib.asynccontextmanager
async def a_rig(
    redis_url: str,
    folder: Path,
    *,
    beat_s: float = 0.4,
    lease_s: float = 6.0,
    lost_after_s: float = 0.5,
    retry_s: float = 0.05,
    quarantine: QuarantineConfig | None = None,
) -> AsyncIterator[Rig]:
    config = DistributedConfig(
        zeromq=ZeroMqConfig(base_port=0, control_port=0),
        leases=LeaseConfig(beat_s=beat_s, lease_s=lease_s, lost_after_s=lost_after_s),
        retries=RetryConfig(base_s=retry_s, max_s=retry_s),
        quarantine=quarantine or QuarantineConfig(),
    )
    async with Scheduler(config, redis_url=redis_url) as scheduler:
        address = scheduler.control_endpoint.removeprefix("tcp://")
        async with AsyncClient(config, scheduler=address, actor="ann", timeout_s=30) as client:
            yield Rig(config, scheduler, client, folder)

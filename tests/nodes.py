"""A node as the state sees it, and the tasks it is given: what tests of moves are made of."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from lcq.models import (
    Device,
    DeviceKind,
    DeviceReading,
    ErrorClass,
    Failure,
    ModelOffer,
    NodeCapability,
    NodeStatus,
    Task,
    TaskResult,
    TaskType,
)
from lcq.state.manager import StateManager
from lcq.wire import Grant, Running

TELEA, NS = "cv2-telea", "cv2-ns"
LIGHT, HEAVY = "cpu-light", "cpu-intensive"


def a_task(model: str = TELEA, **fields: object) -> Task:
    """A task that nothing has to be done for."""
    return Task.model_validate(
        {"task_type": TaskType.INPAINT, "image_path": "/photos/cat.png", "config": {"model": model}} | fields
    )


def a_result(path: str = "/photos/cat.out.png") -> TaskResult:
    return TaskResult(path=path, bytes=5, sha256="ab" * 32, width=4, height=3, seconds=0.25)


def a_failure(error_class: ErrorClass = ErrorClass.TRANSIENT, code: str = "storage_timeout") -> Failure:
    return Failure(error_class=error_class, code=code, message="it did not answer")


def the_cpu(
    models: Iterable[str] = (TELEA, NS), *, slots: int = 4, labels: Mapping[str, str] | None = None
) -> NodeCapability:
    """One CPU with these models."""
    return NodeCapability(
        devices=(Device(id="cpu", kind=DeviceKind.CPU, slots=slots),),
        models=dict.fromkeys(models, ModelOffer(kinds=(DeviceKind.CPU,))),
        labels=labels or {},
    )


@dataclass
class Node:
    """One boot of one node, and what it may say."""

    state: StateManager
    id: str = "node-1"
    boot: str = "boot-1"
    models: Sequence[str] = (TELEA, NS)
    queues: Sequence[str] = (LIGHT,)
    labels: Mapping[str, str] = field(default_factory=dict)

    async def hello(self) -> NodeStatus:
        capability = the_cpu(self.models, labels=self.labels)
        welcome = await self.state.register_node(
            self.id, boot=self.boot, capability=capability, serves={"cpu": tuple(self.queues)}
        )
        return welcome.status

    async def claim(
        self, slots: int = 1, *, warm: Sequence[str] = (), lease_ms: int = 60_000, most_others: int | None = None
    ) -> tuple[Grant, ...]:
        return await self.state.claim_tasks(
            node=self.id, boot=self.boot, device="cpu", kind=DeviceKind.CPU, slots=slots, lanes=self.models,
            queues=self.queues, warm=warm, lease_ms=lease_ms, most_others=most_others,
        )  # fmt: skip

    async def claim_ids(self, slots: int = 1, *, warm: Sequence[str] = ()) -> list[str]:
        return [grant.task.id for grant in await self.claim(slots, warm=warm)]

    async def finish(self, task_id: str, attempt: int = 1) -> None:
        await self.state.finish_task(task_id, attempt=attempt, node=self.id, result=a_result())

    async def retake(self, task_id: str, attempt: int = 1) -> int:
        """The attempt as which the late result of ``attempt`` is to be told."""
        return (await self.state.retake_task(task_id, attempt=attempt, node=self.id, boot=self.boot)).attempt

    async def fail(self, task_id: str, attempt: int = 1, failure: Failure | None = None) -> None:
        await self.state.fail_task(task_id, attempt=attempt, node=self.id, failure=failure or a_failure())

    async def release(self, task_id: str, attempt: int = 1) -> None:
        await self.state.release_task(task_id, attempt=attempt, node=self.id)

    async def beat(
        self, *running: tuple[str, int], readings: Mapping[str, DeviceReading] | None = None
    ) -> tuple[NodeStatus, tuple[Running, ...]]:
        said = (Running(task_id=task_id, attempt=attempt, progress=0.5, stage="fill") for task_id, attempt in running)
        heard = await self.state.beat_node(self.id, boot=self.boot, running=said, readings=readings)
        return heard.status, heard.lost

    async def leave(self) -> None:
        await self.state.leave_node(self.id, boot=self.boot)

    async def lose(self, *, seen_before_ms: int = 2**52) -> int | None:
        return await self.state.lose_node(
            self.id, boot=self.boot, seen_before_ms=seen_before_ms, code="node_lost", message=f"{self.id} died"
        )

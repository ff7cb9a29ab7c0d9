"""The bodies of /v1: what may be asked, and what is answered where it is not a model of LCQ itself."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Header, Query
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, JsonValue

from lcq.models import (
    ActRecord,
    Cause,
    JobSummary,
    NodeRecord,
    Privacy,
    QueueRecord,
    TaskPriority,
    TaskRecord,
    TaskType,
)
from lcq.wire import MAX_BATCH, Accepted, Refusal

Text = Annotated[str, Field(max_length=4096, pattern=r"^[^\x00]*$")]
Key = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        max_length=200,
        description="the same key with the same request is done once, and answered the same",
    ),
]
Limit = Annotated[int, Query(ge=1, le=MAX_BATCH)]
Name = Annotated[str, Query(max_length=128)]


class Body(BaseModel):
    """The common ground: unknown members are refused, so that a misspelt one is not overlooked."""

    model_config = ConfigDict(extra="forbid")


class Wanted(Body):
    """A task to be: the members of ``Task``."""

    id: str | None = Field(default=None, pattern=r"^[0-9a-hjkmnp-tv-z]{16}$", description="default: a new one")
    task_type: TaskType = TaskType.INPAINT
    image_path: Text | None = Field(
        default=None, min_length=1, description="a path or URL that agents reach, or blob:SHA256"
    )
    mask_path: Text | None = Field(default=None, min_length=1)
    output_path: Text | None = Field(default=None, min_length=1)
    config: dict[str, JsonValue] = Field(default_factory=dict, description="model, device, and what the model knows")
    priority: TaskPriority = TaskPriority.NORMAL
    max_retries: int = Field(default=3, ge=0, le=100)
    timeout_s: float = Field(default=600.0, gt=0, le=7 * 24 * 3600)
    user_id: str | None = Field(
        default=None, min_length=1, max_length=128, description="default: who asks; another one only for operators"
    )
    job: str | None = Field(default=None, min_length=1, max_length=128)
    metadata: dict[str, JsonValue] = Field(default_factory=dict)
    requires: dict[str, str] = Field(default_factory=dict, description="labels that its node must have")
    privacy: Privacy = Field(
        default=Privacy.PRIVATE, description="exportable: functions outside the house may have its pictures"
    )
    deadline: AwareDatetime | None = Field(
        default=None, description="when it is to be done, with its time zone: 2026-12-24T17:30:00+01:00"
    )

    def values(self) -> dict[str, Any]:
        """What was said, for ``lcq.models.build``."""
        return self.model_dump(exclude_none=True)


class Submitted(Body):
    tasks: list[Wanted] = Field(min_length=1, max_length=MAX_BATCH)
    queue: str = Field(default="", max_length=128, description="default: routed")
    node: str = Field(default="", max_length=128, description="only this node may run them")
    reason: str = Field(default="", max_length=500)


class Taken(BaseModel):
    """What became of each: accepted for good, or refused with its reason."""

    accepted: list[Accepted]
    refused: list[Refusal]


class TaskPage(BaseModel):
    tasks: list[TaskRecord]
    total: int = Field(description="how many match; with where, which no index counts: all tasks")
    looked_at: int
    next: str = Field(description='the cursor of the next page; "": this is the last one')


class JobPage(BaseModel):
    jobs: list[JobSummary]
    next: str


class ActPage(BaseModel):
    acts: list[ActRecord]
    next: str


class NodeList(BaseModel):
    nodes: list[NodeRecord]


class QueueList(BaseModel):
    queues: list[QueueRecord]


class CauseList(BaseModel):
    causes: list[Cause]
    total: int
    looked_at: int


class Acted(BaseModel):
    """The act, by which it can be undone, and the task as it is now."""

    act: str
    task: TaskRecord


class Did(BaseModel):
    """The act, by which it is found in the audit, and where it can be taken back undone."""

    act: str


class JobActed(BaseModel):
    act: str
    done: int
    refused: list[dict[str, Any]]
    seen: int


class Reason(Body):
    reason: str = Field(default="", max_length=500)


class OnTask(Reason):
    revision: int | None = Field(default=None, ge=0, description="what you saw: a task that has moved on is refused")


class Rerouted(OnTask):
    queue: str = Field(default="", max_length=128)
    node: str = Field(default="", max_length=128)
    labels: dict[str, str] | None = None


class Prioritised(OnTask):
    priority: TaskPriority


class Redated(OnTask):
    deadline: AwareDatetime | None = Field(description="to be done by then; null: no matter when")


class Reclassed(OnTask):
    privacy: Privacy = Field(description="exportable: functions outside the house may have its pictures; private: not")


class Commented(Body):
    text: str = Field(min_length=1, max_length=500)


class RetriedJob(Reason):
    cause: str = Field(default="", max_length=64, description="only failures of this code")


class ReroutedJob(Reason):
    queue: str = Field(default="", max_length=128)
    node: str = Field(default="", max_length=128)
    labels: dict[str, str] | None = None


class PrioritisedJob(Reason):
    priority: TaskPriority


class Deadline(Reason):
    deadline_s: float | None = Field(default=None, ge=0, le=30 * 24 * 3600)


class OnDevice(Reason):
    device: str = Field(default="", max_length=128, description='its id, or the beginning of that; "": the node')


class DeviceSet(OnDevice):
    slots: int | None = Field(default=None, ge=0, le=1024)
    queues: list[str] | None = Field(default=None, max_length=100)


class Labelled(Reason):
    labels: dict[str, str] = Field(default_factory=dict)
    without: list[str] = Field(default_factory=list, max_length=100)
    forget: list[str] = Field(default_factory=list, max_length=100)


class Acknowledged(Body):
    cause: str = Field(min_length=1, max_length=64)
    text: str = Field(default="", max_length=200)
    note: str = Field(default="", max_length=500)
    withdraw: bool = False


class DrainedIdle(Reason):
    count: int = Field(ge=1, le=10_000)
    queue: str = Field(default="", max_length=128)


class Warmth(Reason):
    count: int = Field(default=0, ge=0, le=1024, description="instances; 0: as many as its settings want warm")
    node: str = Field(default="", max_length=64, description="which is to do it; default: any that calls it")
    model: str = Field(default="", max_length=64, description="to be loaded; default: the one that takes longest")


def task_values(wanted: Wanted, *, caller_name: str, may_name_others: bool) -> dict[str, Any]:
    """The members of a ``Task`` for who asks: it is its user's, unless an operator says whose."""
    values = wanted.values()
    if not may_name_others or "user_id" not in values:
        values["user_id"] = caller_name
    return values

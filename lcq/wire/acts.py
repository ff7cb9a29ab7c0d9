"""What operators and clients may have done: to tasks, jobs, queues and nodes."""

from __future__ import annotations

from typing import ClassVar, Generic

from pydantic import Field

from lcq.labels import Labels
from lcq.models import Privacy, Skips, Task, TaskPriority, TaskStatus
from lcq.wire.message import MAX_BATCH, AnswerT, Done, Message, Refusal, Request


class Act(Request[AnswerT], Generic[AnswerT]):
    """An operator's act: has an actor and a reason, is written to the audit, is safe to send twice."""

    IS_AUDITED: ClassVar[bool] = True
    actor: str = Field(default="anonymous", max_length=128)
    reason: str = Field(default="", max_length=500)

    @property
    def begins_long(self) -> bool:
        """Whether this is the first of many commands that make one act: the audit tells that it has begun, too."""
        return False


class BulkAnswer(Message):
    """What became of each id."""

    done: tuple[str, ...] = ()
    refused: tuple[Refusal, ...] = ()
    revisions: tuple[int, ...] = ()  # of those that are done, now: one each, 0 where none is known; (): an older peer
    # The ids of the commands that did it: filled in by who asked, so it never travels.
    acts: tuple[str, ...] = Field(default=(), exclude_if=lambda acts: not acts)


class Accepted(Message):
    id: str
    queue: str
    status: TaskStatus
    duplicate: bool = False  # the same idempotency key had been submitted before: this is that task
    why: str = ""  # why it has to wait although it was accepted


class SubmitAnswer(Message):
    accepted: tuple[Accepted, ...] = ()
    refused: tuple[Refusal, ...] = ()


class Submit(Act[SubmitAnswer]):
    """New tasks. Each is accepted durably or refused by itself."""

    CMD = "submit"
    ANSWER = SubmitAnswer
    tasks: tuple[Task, ...] = Field(min_length=1, max_length=MAX_BATCH)
    keys: tuple[str, ...] = ()  # idempotency keys, one a task; default: the task's id
    sizes: tuple[tuple[int, int] | None, ...] = ()  # of the images: width and height, one a task; None: not known
    queue: str = ""  # "": routed
    node: str = ""  # only this node may run it
    interactive: bool = False  # somebody waits for each: slots are kept for such (http.interactive_slots)


class _OnTasks(Act[BulkAnswer]):
    ANSWER = BulkAnswer
    ids: tuple[str, ...] = Field(min_length=1, max_length=MAX_BATCH)
    revisions: tuple[int, ...] = ()  # what the operator saw; an id that has moved on is refused


class Cancel(_OnTasks):
    CMD = "cancel"


class Retry(_OnTasks):
    """Terminal tasks go back to their queue, their counts anew."""

    CMD = "retry"


class Reroute(_OnTasks):
    CMD = "reroute"
    queue: str = ""
    node: str = ""
    labels: Labels | None = None  # that their nodes must have from now on; None: as before


class Prioritise(_OnTasks):
    CMD = "prioritise"
    priority: TaskPriority


class SetDeadline(_OnTasks):
    """Tasks that have not ended are to be done by another moment."""

    CMD = "set_deadline"
    done_by_ms: int | None = Field(default=None, ge=1, le=253_402_300_799_999)  # since 1970; None: no matter when


class SetPrivacy(_OnTasks):
    """The pictures of tasks that have not ended may leave the house from now on, or may not."""

    CMD = "set_privacy"
    privacy: Privacy


class Comment(Act[BulkAnswer]):
    """A note for people is kept with tasks, in whatever state they are and whatever has happened to them since."""

    CMD = "comment"
    ANSWER = BulkAnswer
    ids: tuple[str, ...] = Field(min_length=1, max_length=MAX_BATCH)
    text: str = Field(min_length=1, max_length=500)


class Acknowledge(Act[Done]):
    """Somebody knows of what failed tasks died of; the act's reason is what they have to say of it."""

    CMD = "acknowledge"
    ANSWER = Done
    cause: str = Field(min_length=1, max_length=64)  # its code
    text: str = Field(default="", max_length=200)  # what the messages have in common, as ``Dead`` answers it
    withdraw: bool = False  # it is open again


class Undo(Act[BulkAnswer]):
    """What another act has done to tasks or a queue is taken back, where nothing else has happened to them since."""

    CMD = "undo"
    ANSWER = BulkAnswer
    act: str = Field(min_length=1, max_length=64)  # the id of that command


class Pause(Act[Done]):
    CMD = "pause"
    ANSWER = Done
    queue: str


class Resume(Act[Done]):
    CMD = "resume"
    ANSWER = Done
    queue: str


class AsideAnswer(Message):
    moved: int  # waiting tasks that were taken out of their lanes, or brought back, by now
    is_last: bool = True  # else the scheduler goes on with the rest by itself


class PauseJob(Act[AsideAnswer]):
    """No task of the job starts until it is resumed; what runs goes on, what is submitted for it waits."""

    CMD = "pause_job"
    ANSWER = AsideAnswer
    job: str


class ResumeJob(Act[AsideAnswer]):
    """The job's tasks wait in their old places again."""

    CMD = "resume_job"
    ANSWER = AsideAnswer
    job: str


class Refusals(Message):
    """Tasks of a job that were refused for the same cause."""

    count: int
    example: Refusal


class JobActAnswer(Message):
    """How far an act on a job has come, and what became of its tasks."""

    done: int = 0  # tasks changed by this command, also where it had to be told several times
    refused: tuple[Refusals, ...] = ()
    after: str = ""  # where the next command has to go on; empty: this was the end of the job
    seen: int = 0  # tasks of the job that this command has come past, whether they were meant or not
    total: int = 0  # that the job has; 0: from an older scheduler


class _OnJob(Act[JobActAnswer]):
    ANSWER = JobActAnswer
    job: str = Field(min_length=1, max_length=128)
    after: str = Field(default="", max_length=16)  # the id of the last task that an earlier command has seen to

    @property
    def begins_long(self) -> bool:
        return not self.after


class NoteJob(Act[Done]):
    """What a submit of the job had no work with, and why: kept with the job, for its report."""

    CMD = "note_job"
    IS_AUDITED = False  # its submit is
    ANSWER = Done
    job: str = Field(min_length=1, max_length=128)
    skipped: tuple[Skips, ...] = Field(default=(), max_length=100)


class CancelJob(_OnJob):
    """Those of the job's tasks that have not ended are cancelled."""

    CMD = "cancel_job"


class RetryJob(_OnJob):
    """Those of the job's tasks that failed go back to their queues, their counts anew."""

    CMD = "retry_job"
    cause: str = ""  # only failures of this code


class RerouteJob(_OnJob):
    """Those of the job's tasks that have not ended go elsewhere."""

    CMD = "reroute_job"
    queue: str = ""
    node: str = ""
    labels: Labels | None = None


class PrioritiseJob(_OnJob):
    """Those of the job's tasks that have not ended get another priority."""

    CMD = "prioritise_job"
    priority: TaskPriority


class Drain(Act[Done]):
    """The node finishes what it has and takes nothing new."""

    CMD = "drain"
    ANSWER = Done
    node: str
    deadline_s: float | None = Field(default=None, ge=0, le=30 * 24 * 3600)  # then what still runs is handed back


class DrainIdleAnswer(Message):
    drained: tuple[str, ...] = ()


class DrainIdle(Act[DrainIdleAnswer]):
    """So many of the nodes that nothing would miss take nothing new, the one that has been idle longest first."""

    CMD = "drain_idle"
    ANSWER = DrainIdleAnswer
    count: int = Field(ge=1, le=10_000)
    queue: str = ""  # only of the nodes that serve it


class Activate(Act[Done]):
    """The node, or a device of it that is in quarantine, takes work again."""

    CMD = "activate"
    ANSWER = Done
    node: str
    device: str = ""  # its id, or the beginning of that; "": the whole node, with all its devices


class Quarantine(Act[Done]):
    """The node, or one device of it, takes nothing new, and is not probed: only ``activate`` ends it."""

    CMD = "quarantine"
    ANSWER = Done
    node: str
    device: str = ""  # its id, or the beginning of that; "": the whole node


class StopNode(Act[Done]):
    """The node's agent drains and ends. Started again, it works as before."""

    CMD = "stop_node"
    ANSWER = Done
    node: str
    deadline_s: float | None = Field(default=None, ge=0, le=30 * 24 * 3600)  # None: its own agent.drain_s


class SetDevice(Act[Done]):
    """How many slots a device of a node has, and which queues it serves, until that is taken back."""

    CMD = "set_device"
    ANSWER = Done
    node: str
    device: str = ""  # its id, or the beginning of that; "": the only one
    slots: int | None = Field(default=None, ge=0, le=1024)  # None: as before; 0: as its agent has it
    queues: tuple[str, ...] | None = None  # None: as before; (): all that it is good enough for


class LabelNode(Act[Done]):
    """Labels of a node over those that its agent tells, until that is taken back."""

    CMD = "label_node"
    ANSWER = Done
    node: str
    labels: Labels = Field(default_factory=dict)
    without: tuple[str, ...] = ()  # names of labels that it is not to have, whatever its agent tells
    forget: tuple[str, ...] = ()  # names of which what its agent tells counts again


class Release(Act[Done]):
    """The node frees what its loaded models hold; the next task loads its model anew."""

    CMD = "release"
    ANSWER = Done
    node: str


class WarmFunctionAnswer(Message):
    """Who was asked to wake how many."""

    node: str
    model: str
    count: int


class WarmFunction(Act[WarmFunctionAnswer]):
    """Instances of a function are woken: calls that load its model, and are paid for."""

    CMD = "warm_function"
    ANSWER = WarmFunctionAnswer
    function: str = Field(min_length=1, max_length=64)
    count: int = Field(default=0, ge=0, le=1024)  # 0: as many as its settings want warm, at least one
    node: str = Field(default="", max_length=64)  # "": any that calls it
    model: str = Field(default="", max_length=64)  # "": of those it can run, the one that takes longest

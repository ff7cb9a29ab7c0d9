"""The words of the control socket and the tickets: every message as a typed model, in this one file.

A request is a msgpack map ``{v, id, cmd, …}``; its answer ``{v, id, ok: {…}}`` or
``{v, id, error: {code, message, hint}}``. Unknown fields are ignored; an unknown command or version is
refused by name. A command's id makes it safe to send twice: the second time gets the first one's answer.
Where several schedulers live, an answer also has their addresses: ``schedulers: […]``.
No image byte ever travels here, and no pickle.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Generic, Literal, TypeVar

import msgpack
from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, ValidationError, field_validator

from lcq.autoscale import DEFAULT_TARGET_S, Scale
from lcq.errors import InvalidInput, LcqError, ProtocolError, UnknownCommand, VersionMismatch, error_from_wire
from lcq.ids import new_id
from lcq.labels import Labels
from lcq.models import (
    Attempt,
    Cause,
    DeviceReading,
    Ease,
    Event,
    Failure,
    JobReport,
    JobSummary,
    NodeCapability,
    NodeRecord,
    QueueConfig,
    QueueRecord,
    Skips,
    Task,
    TaskPriority,
    TaskRecord,
    TaskResult,
    TaskStatus,
    explain_invalid,
    finite_only,
)
from lcq.reasons import Why
from lcq.versions import in_words_of_1

PROTOCOL_VERSION = 2
OLDEST_PROTOCOL = 1
"""What a scheduler still answers, in that version's words (lcq/versions.py); see docs/decisions/0006-versions.md."""

MAX_MESSAGE_BYTES = 16 * 2**20
MOST_IN_HAND = 16  # grants a slot that an agent may hold ahead, where the work is that short
MAX_LOG = 4096  # characters of what a runner wrote that a failure carries
MAX_BATCH = 500  # tasks or ids in one command; clients send longer lists in pieces


class Message(BaseModel):
    """The common ground: frozen, typed; fields a newer peer added are ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)


AnswerT = TypeVar("AnswerT", bound=Message)


class Request(Message, Generic[AnswerT]):
    """What may be asked. ``ANSWER`` is the model of the answer's ``ok``."""

    CMD: ClassVar[str]
    ANSWER: ClassVar[type[Message]]

    id: str = Field(default_factory=new_id)
    _version: int = PrivateAttr(PROTOCOL_VERSION)

    @property
    def version(self) -> int:
        """The protocol of who asked; the answer is told in it."""
        return self._version


class Done(Message):
    """Nothing to say but that it was done."""


# ---------------------------------------------------------------- agent → scheduler


class Orders(Message):
    """What operators and the cluster want of a node and its devices, told with each beat until it changes.

    What is not named is as the agent itself would have it.
    """

    slots: dict[str, int] = Field(default_factory=dict)  # device id -> attempts at a time
    out: dict[str, str] = Field(default_factory=dict)  # device id -> why it is in quarantine, and takes nothing
    hand_back_s: float | None = None  # after so long what still runs is handed back; None: it may go on
    stop: bool = False  # drain, and end


class HelloAnswer(Message):
    scheduler_id: str
    version: str
    beat_ms: int
    lease_ms: int
    serves: dict[str, tuple[str, ...]]  # device id -> queues, own class first
    rings: dict[str, str]  # queue -> endpoint of its PUSH socket
    lifeline: str  # "host:port" of the plain TCP lifeline, "" if there is none
    schedulers: tuple[str, ...] = ()  # control endpoints of all live schedulers
    status: str = "online"
    same_host: bool = False  # rings and lifeline are at the host at which the control socket was reached
    orders: Orders | None = None  # None: from an older scheduler, which has none

    def reached_at(self, endpoint: str) -> HelloAnswer:
        """This, as it is to be read by who reached the scheduler at ``endpoint`` ("tcp://host:port")."""
        if not self.same_host:
            return self
        host = endpoint.removeprefix("tcp://").rpartition(":")[0]
        rings = {queue: f"tcp://{host}:{ring.rpartition(':')[2]}" for queue, ring in self.rings.items()}
        lifeline = f"{host}:{self.lifeline.rpartition(':')[2]}" if self.lifeline else ""
        return self.model_copy(update={"rings": rings, "lifeline": lifeline})


class Hello(Request[HelloAnswer]):
    """An agent introduces itself; attempts of an earlier boot of the same node are given up."""

    CMD = "hello"
    ANSWER = HelloAnswer
    node_id: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")
    boot_id: str = Field(min_length=1, max_length=64)
    capability: NodeCapability
    home: str = Field(default="", max_length=64)  # of its data folder: the same over restarts, another for any other


class Outcome(Message):
    """How an attempt ended: exactly one of ``result``, ``failure`` or ``handed_back``."""

    task_id: str
    attempt: int
    device: str = ""
    result: TaskResult | None = None
    failure: Failure | None = None
    handed_back: bool = False  # given back unfinished (drain); costs the task no retry
    peak_mib: int = 0  # the most of the host's memory that the attempt held at a time; 0: not known
    log: str = Field(default="", max_length=MAX_LOG)  # what its runner wrote last, with a failure


class Want(Message):
    """Free slots of one device, to be filled."""

    device: str
    slots: int = Field(ge=1)
    warm: tuple[str, ...] = ()  # models loaded there now
    fits_mib: int | None = None  # memory of the device that its free slots may use together; None: not known


class Grant(Message):
    """A lease: the right to one attempt. (task.id, attempt) is the token every later word must show."""

    task: Task
    attempt: int
    device: str
    lease_ms: int
    eased: tuple[Ease, ...] = ()  # how to make it easier than asked for: earlier attempts ran out of memory


class Verdict(Message):
    """What became of a reported outcome: ``settled``, or ``refused`` because the token is no longer live."""

    task_id: str
    attempt: int
    verdict: Literal["settled", "refused"]
    detail: str = ""


class StepAnswer(Message):
    verdicts: tuple[Verdict, ...] = ()
    grants: tuple[Grant, ...] = ()


class Step(Request[StepAnswer]):
    """Finished attempts and free slots in one message; the answer settles and fills them."""

    CMD = "step"
    ANSWER = StepAnswer
    node_id: str
    boot_id: str
    outcomes: tuple[Outcome, ...] = ()
    want: tuple[Want, ...] = ()


class Running(Message):
    task_id: str
    attempt: int
    progress: float = Field(default=0.0, ge=0, le=1)
    stage: str = ""


class BeatAnswer(Message):
    lost: tuple[Running, ...] = ()  # attempts that are no longer this node's: end their runners
    status: str = "online"  # online, draining, quarantined: what the cluster wants of the node
    schedulers: tuple[str, ...] = ()
    probe: bool = False  # show with fresh runners that you work, and say so by ``probed``
    probe_devices: tuple[str, ...] = ()  # the same, for these of its devices alone
    orders: Orders | None = None  # None: from an older scheduler, which has none
    now_ms: int | None = None  # what the cluster's clock shows, in ms since 1970


class Beat(Request[BeatAnswer]):
    """A node lives: renews all its leases, tells how far it is and how it feels."""

    CMD = "beat"
    ANSWER = BeatAnswer
    node_id: str
    boot_id: str
    running: tuple[Running, ...] = ()
    telemetry: dict[str, float | str] = Field(default_factory=dict)
    devices: dict[str, DeviceReading] = Field(default_factory=dict)  # device id -> how it is

    @field_validator("telemetry", mode="before")
    @classmethod
    def _drop_what_is_no_number(cls, told: Any) -> Any:
        """A sensor that says NaN must not cost the node its leases."""
        return finite_only(told) if isinstance(told, Mapping) else told


class Probed(Request[Done]):
    """A node in quarantine has tried its devices, or the one that is, with fresh runners and a golden picture."""

    CMD = "probed"
    ANSWER = Done
    node_id: str
    boot_id: str
    passed: bool
    detail: str = Field(default="", max_length=2000)  # what failed, and how
    device: str = ""  # "": all of them, because the whole node is in quarantine


class Bye(Request[Done]):
    """A drained agent leaves in order."""

    CMD = "bye"
    ANSWER = Done
    node_id: str
    boot_id: str


# ---------------------------------------------------------------- scheduler → agent, at any time


class Order(Message):
    """A word that hurries what the next beat would tell anyway. Agents do not answer it.

    ``beat``: beat now, for there are new ``Orders``; only for agents that know them (``NodeCapability.knows``).
    """

    cmd: Literal["cancel", "drain", "resume", "release", "wake", "beat"]
    task_id: str = ""
    attempt: int = 0
    reason: str = ""


# ---------------------------------------------------------------- operators and clients → scheduler


class Refusal(Message):
    """Why one of several ids or tasks was not done."""

    id: str
    code: str
    message: str
    hint: str = ""

    @classmethod
    def of(cls, subject: str, error: LcqError) -> Refusal:
        return cls(id=subject, code=error.code, message=error.message, hint=error.hint)

    def error(self) -> LcqError:
        return error_from_wire(self.code, self.message, self.hint)


class Act(Request[AnswerT], Generic[AnswerT]):
    """An operator's act: has an actor and a reason, is written to the audit, is safe to send twice."""

    actor: str = Field(default="anonymous", max_length=128)
    reason: str = Field(default="", max_length=500)


class BulkAnswer(Message):
    """What became of each id."""

    done: tuple[str, ...] = ()
    refused: tuple[Refusal, ...] = ()


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


class _OnJob(Act[JobActAnswer]):
    ANSWER = JobActAnswer
    job: str = Field(min_length=1, max_length=128)
    after: str = Field(default="", max_length=16)  # the id of the last task that an earlier command has seen to


class NoteJob(Act[Done]):
    """What a submit of the job had no work with, and why: kept with the job, for its report."""

    CMD = "note_job"
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


class InfoAnswer(Message):
    scheduler_id: str
    version: str
    protocol: int
    redis: str
    queues: tuple[QueueConfig, ...]
    last_event_id: str
    pid: int
    config_error: str = ""  # why the scheduler's configuration file, as it is now, is not taken over


class Info(Request[InfoAnswer]):
    CMD = "info"
    ANSWER = InfoAnswer


class FindAnswer(Message):
    id: str


class Find(Request[FindAnswer]):
    """The whole id of which ``prefix`` is a unique beginning."""

    CMD = "find"
    ANSWER = FindAnswer
    prefix: str = Field(min_length=1)


class GetTasksAnswer(Message):
    tasks: tuple[TaskRecord, ...] = ()
    missing: tuple[str, ...] = ()


class GetTasks(Request[GetTasksAnswer]):
    CMD = "get_tasks"
    ANSWER = GetTasksAnswer
    ids: tuple[str, ...] = Field(min_length=1, max_length=MAX_BATCH)


class ListTasksAnswer(Message):
    tasks: tuple[TaskRecord, ...] = ()
    total: int = 0  # how many match before the cut
    cursor: str = ""  # "" when there is no more


class ListTasks(Request[ListTasksAnswer]):
    """Newest first, a page at a time; all filters given must hold."""

    CMD = "list_tasks"
    ANSWER = ListTasksAnswer
    status: TaskStatus | None = None
    queue: str = ""
    node: str = ""
    job: str = ""
    cause: str = ""
    limit: int = Field(default=100, ge=1, le=MAX_BATCH)
    cursor: str = ""


class DeadAnswer(Message):
    causes: tuple[Cause, ...] = ()  # the most frequent first
    total: int = 0  # failed tasks that match
    looked_at: int = 0  # of them: the newest, where there are very many


class Dead(Request[DeadAnswer]):
    """The failed tasks, by what they died of. ``ListTasks`` gives them one by one, ``Retry`` puts them back."""

    CMD = "dead"
    ANSWER = DeadAnswer
    cause: str = ""  # only this code
    job: str = ""


class CostStats(Message):
    """How good predictions were for one model, precision, engine and class of device; see lcq.costs.Calibration."""

    model: str
    precision: str  # "": the engine's choice
    engine: str
    device_class: str
    attempts: int  # the last ones, by which all else is told
    predicted_p50_s: float
    actual_p50_s: float
    predicted_p90_s: float
    actual_p90_s: float
    error_p50: float  # half of the predictions were off by no more than this share
    error_p90: float
    under_p90: float  # share of attempts that took no longer than their predicted P90
    peak_mib: int = 0
    fixed_s: float  # what is predicted now: this, and as much a megapixel
    s_per_megapixel: float
    load_s: float = 0.0


class CostsAnswer(Message):
    costs: tuple[CostStats, ...] = ()


class Costs(Request[CostsAnswer]):
    """What is known of costs, and how good predictions were."""

    CMD = "costs"
    ANSWER = CostsAnswer
    model: str = ""  # only of this one


class HistoryAnswer(Message):
    record: TaskRecord
    attempts: tuple[Attempt, ...]
    events: tuple[Event, ...]
    explanation: str  # why it waits or what became of it, in one line
    why: Why | None = None  # the same, with its code; None: from an older scheduler


class History(Request[HistoryAnswer]):
    CMD = "history"
    ANSWER = HistoryAnswer
    task_id: str


class WhyAnswer(Message):
    id: str
    status: TaskStatus
    why: Why


class AskWhy(Request[WhyAnswer]):
    """Why a task waits, or what became of it."""

    CMD = "why"
    ANSWER = WhyAnswer
    task_id: str


class AutoscaleAnswer(Message):
    scale: Scale


class Autoscale(Request[AutoscaleAnswer]):
    """How many slots each queue wants so that what waits begins within ``target_wait_s``, and which nodes are idle."""

    CMD = "autoscale"
    ANSWER = AutoscaleAnswer
    target_wait_s: float = Field(default=DEFAULT_TARGET_S, ge=0.001, le=30 * 24 * 3600)


class NodesAnswer(Message):
    nodes: tuple[NodeRecord, ...] = ()


class Nodes(Request[NodesAnswer]):
    CMD = "nodes"
    ANSWER = NodesAnswer


class QueuesAnswer(Message):
    queues: tuple[QueueRecord, ...] = ()


class Queues(Request[QueuesAnswer]):
    CMD = "queues"
    ANSWER = QueuesAnswer


class JobsAnswer(Message):
    jobs: tuple[JobSummary, ...] = ()


class Jobs(Request[JobsAnswer]):
    """Jobs, newest first."""

    CMD = "jobs"
    ANSWER = JobsAnswer
    name: str = ""  # "": all
    limit: int = Field(default=100, ge=1, le=1000)


class ReportJobAnswer(Message):
    report: JobReport


class ReportJob(Request[ReportJobAnswer]):
    """What has become of a job: done, skipped and why, failed and why, what it took, and when it will be done."""

    CMD = "report_job"
    ANSWER = ReportJobAnswer
    job: str = Field(min_length=1, max_length=128)


class EventsAnswer(Message):
    events: tuple[Event, ...] = ()
    last_id: str
    gap: bool = False  # the reader fell off the end of the stream and must take a snapshot


class Events(Request[EventsAnswer]):
    """Events after an id; waits up to ``wait_ms`` for the first one."""

    CMD = "events"
    ANSWER = EventsAnswer
    after: str = Field(default="$", pattern=r"^(\$|[0-9]{1,19}-[0-9]{1,19})$")  # "$": from now on
    wait_ms: int = Field(default=0, ge=0, le=30_000)
    limit: int = Field(default=1000, ge=1, le=10_000)


REQUESTS: dict[str, type[Request[Any]]] = {
    kind.CMD: kind
    for kind in (
        Hello, Step, Beat, Probed, Bye, Submit, Cancel, Retry, Reroute, Prioritise, Pause, Resume, Drain, Activate,
        Quarantine, Release, StopNode, SetDevice, LabelNode, PauseJob, ResumeJob, CancelJob, RetryJob, RerouteJob,
        PrioritiseJob, NoteJob, Info,
        Find, GetTasks, ListTasks, Dead, History, AskWhy, Costs, Nodes, Queues, Jobs, ReportJob, Events,
        Autoscale, DrainIdle,
    )
}  # fmt: skip


# ---------------------------------------------------------------- frames


class Ticket(Message):
    """What a PUSH socket carries: queue ``queue`` has a task. A bell, never a right."""

    queue: str
    task_id: str = ""


def _packed(values: dict[str, Any]) -> bytes:
    try:
        return bytes(msgpack.packb(values))
    except (UnicodeEncodeError, OverflowError) as error:
        raise InvalidInput(f"{values.get('cmd', 'a message')} cannot be sent: {error}") from error


def _unpacked(frame: bytes) -> dict[str, Any]:
    try:
        values = msgpack.unpackb(frame)
    except (ValueError, msgpack.UnpackException, UnicodeDecodeError) as error:
        raise ProtocolError(f"a frame of {len(frame)} bytes is not msgpack: {error}") from error
    if not isinstance(values, dict):
        raise ProtocolError(f"a message is a map, found {type(values).__name__}")
    return values


def pack_request(request: Request[Any]) -> bytes:
    return _packed(request.model_dump(mode="json") | {"v": PROTOCOL_VERSION, "cmd": request.CMD})


def unpack_request(frame: bytes) -> Request[Any]:
    """Raises:
    ProtocolError: the frame, its version, its command or one of its fields cannot be understood.
        ``request_id`` of the error holds the id to answer to, where there was one.
    """
    values = _unpacked(frame)
    request_id = str(values.get("id", ""))
    version = values.get("v")
    try:
        command = values.get("cmd")
        if not (type(version) is int and OLDEST_PROTOCOL <= version <= PROTOCOL_VERSION):
            raise VersionMismatch(
                f"this scheduler speaks protocol {PROTOCOL_VERSION}, and older ones from {OLDEST_PROTOCOL} on; "
                f"the message has {version!r}",
                hint="bring schedulers to the newest LCQ version first, then agents and clients",
            )
        kind = REQUESTS.get(command) if isinstance(command, str) else None
        if kind is None:
            raise UnknownCommand(
                f"protocol {PROTOCOL_VERSION} has no command {command!r}",
                hint="is the peer newer than this scheduler? 'lcq version' tells both",
            )
        try:
            request = kind.model_validate(values, extra="ignore")
        except ValidationError as error:
            raise ProtocolError(f"{command}: {explain_invalid(error)}") from error
    except ProtocolError as error:
        error.request_id = request_id
        if not isinstance(error, VersionMismatch):
            error.peer_version = version
        raise
    request._version = version
    return request


def pack_answer(
    request_id: str, answer: Message, schedulers: tuple[str, ...] = (), version: int = PROTOCOL_VERSION
) -> bytes:
    """The answer as a peer of that protocol version reads it.

    ``schedulers``: where else one may ask; told where there is an else.
    """
    told = answer.model_dump(mode="json")
    more = {"schedulers": schedulers} if schedulers else {}
    said = told if version == PROTOCOL_VERSION else in_words_of_1(told)
    return _packed({"v": version, "id": request_id, "ok": said, **more})


def pack_error(request_id: str, error: LcqError, version: int | None = None) -> bytes:
    body = {"code": error.code, "message": error.message, "hint": error.hint}
    return _packed({"v": version or PROTOCOL_VERSION, "id": request_id, "error": body})


def pack_order(order: Order, version: int = PROTOCOL_VERSION) -> bytes:
    return _packed(order.model_dump(mode="json") | {"v": version, "order": True})


class Reply(Message):
    """What comes out of a scheduler's socket: the answer or error to request ``id``, or an order."""

    id: str = ""
    ok: dict[str, Any] | None = None
    error: dict[str, Any] | None = None
    order: Order | None = None
    schedulers: tuple[str, ...] = ()  # control endpoints of all live schedulers, where there are several

    def answer(self, kind: type[AnswerT]) -> AnswerT:
        """Raises:
        LcqError: the peer's refusal, as the class its code names.
        """
        if self.error is not None:
            raise error_from_wire(
                str(self.error.get("code", "error")),
                str(self.error.get("message", "")),
                str(self.error.get("hint", "")),
            )
        try:
            return kind.model_validate(self.ok or {}, extra="ignore")
        except ValidationError as error:
            raise ProtocolError(f"the answer is not one we know: {explain_invalid(error)}") from error


def unpack_reply(frame: bytes) -> Reply:
    values = _unpacked(frame)
    if values.get("v") != PROTOCOL_VERSION:
        mismatch = VersionMismatch(
            f"we speak protocol {PROTOCOL_VERSION}, the scheduler {values.get('v')!r}",
            hint="bring the scheduler to this LCQ version, or newer: schedulers come first, then agents and clients",
        )
        mismatch.request_id = str(values.get("id", ""))
        raise mismatch
    try:
        if values.get("order"):
            return Reply(order=Order.model_validate(values))
        return Reply.model_validate(values)
    except ValidationError as error:
        raise ProtocolError(f"a scheduler's message that is not one we know: {explain_invalid(error)}") from error


def pack_ticket(ticket: Ticket) -> bytes:
    return _packed(ticket.model_dump(mode="json"))


def unpack_ticket(frame: bytes) -> Ticket:
    try:
        return Ticket.model_validate(_unpacked(frame))
    except ValidationError as error:
        raise ProtocolError(f"a ticket that is not one we know: {explain_invalid(error)}") from error

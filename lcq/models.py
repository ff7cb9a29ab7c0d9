"""The nouns of LCQ: task, attempt, queue, node, device and their states.

Values that cross an edge (file, wire, Redis, HTTP) are strict frozen pydantic models, with the unit in
the field's name. Building one checks it: the ``ValidationError`` (a ``ValueError``) names the field.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Collection, Iterable, Mapping
from datetime import UTC, datetime
from enum import StrEnum
from functools import lru_cache
from types import MappingProxyType
from typing import Annotated, Any, Self, TypeAlias, TypeVar

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    ValidationError,
    field_validator,
    model_validator,
)

from lcq.errors import InvalidInput
from lcq.ids import id_time, is_id, new_id
from lcq.labels import Labels, labelled_lane, satisfies, split_lane


class TaskType(StrEnum):
    """What is to be done with the image."""

    INPAINT = "inpaint"
    UPSCALE = "upscale"
    SEGMENT = "segment"
    PLUGIN = "plugin"


class TaskStatus(StrEnum):
    """Where a task is in its life (docs/states.md). The only place where a state is spelled."""

    PENDING = "pending"
    QUEUED = "queued"
    PROCESSING = "processing"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_terminal(self) -> bool:
        return self in TERMINAL_STATES


TERMINAL_STATES = frozenset({TaskStatus.COMPLETED, TaskStatus.FAILED, TaskStatus.CANCELLED})


class TaskPriority(StrEnum):
    """The bands of a queue, most urgent first."""

    URGENT = "urgent"
    HIGH = "high"
    NORMAL = "normal"
    LOW = "low"

    @property
    def band(self) -> int:
        """0 for the most urgent band, 3 for the least."""
        return _BANDS[self]

    def raised(self, steps: int) -> TaskPriority:
        """The priority ``steps`` bands more urgent (negative: less), stopping at the ends."""
        return list(TaskPriority)[min(3, max(0, self.band - steps))]


_BANDS = {priority: band for band, priority in enumerate(TaskPriority)}


class NodeStatus(StrEnum):
    """Whether a node takes work, and if not, why."""

    ONLINE = "online"
    SUSPECT = "suspect"  # its beats are late; it counts as there until its lease has run out
    DRAINING = "draining"  # finishes what it has, takes nothing new, by an operator's wish
    QUARANTINED = "quarantined"  # takes nothing because it failed where others succeeded
    OFFLINE = "offline"


class Privacy(StrEnum):
    """Whether a task's pictures may leave the house."""

    PRIVATE = "private"
    EXPORTABLE = "exportable"  # functions of others may work on it (kind serverless)


class DeviceKind(StrEnum):
    CPU = "cpu"
    GPU = "gpu"
    SERVERLESS = "serverless"


class ErrorClass(StrEnum):
    """Why an attempt did not succeed; decides what happens next (docs/states.md)."""

    BAD_INPUT = "bad_input"  # the task itself cannot be done: failed at once, no node is blamed
    RESOURCE = "resource"  # memory or disk ran out
    TRANSIENT = "transient"  # the world was in the way: back-off and retry
    CRASH = "crash"  # the runner died, hung or ran out of time, or its node was lost
    BAD_OUTPUT = "bad_output"  # the result failed its check: retry on another node


# ---------------------------------------------------------------- values inside models


def _freeze(value: Any) -> Any:
    if isinstance(value, Mapping):
        return MappingProxyType({str(key): _freeze(inner) for key, inner in value.items()})
    if isinstance(value, list | tuple):
        return tuple(_freeze(inner) for inner in value)
    return value


def _thaw(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _thaw(inner) for key, inner in value.items()}
    if isinstance(value, tuple):
        return [_thaw(inner) for inner in value]
    return value


MAX_DEPTH = 32  # of config and metadata: far above any real one, far below where a parser gives up


def _no_surrogate(text: str) -> str:
    if any("\ud800" <= char <= "\udfff" for char in text):
        raise ValueError("must be valid Unicode text (found a lone surrogate)")
    return text


def _only_json(value: Any, depth: int = 0) -> Any:
    """Refuse what JSON cannot carry, so that a task comes back exactly as it was sent."""
    if depth > MAX_DEPTH:
        raise ValueError(f"must not be nested deeper than {MAX_DEPTH}")
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return _no_surrogate(value)
    if isinstance(value, int):
        if not -(2**63) <= value < 2**64:
            raise ValueError(f"the number {value} does not fit 64 bits")
        return value
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"{value} has no JSON form")
        return value
    if isinstance(value, Mapping):
        for key, inner in value.items():
            if not isinstance(key, str):
                raise ValueError(f"keys must be text, found {key!r}")
            _no_surrogate(key)
            _only_json(inner, depth + 1)
        return value
    if isinstance(value, list | tuple):
        for inner in value:
            _only_json(inner, depth + 1)
        return value
    raise ValueError(f"{type(value).__name__} has no JSON form")


def _no_nul(text: str) -> str:
    if "\x00" in text:
        raise ValueError("must not contain a NUL byte")
    return _no_surrogate(text)


FrozenJson = Annotated[
    Mapping[str, Any],
    BeforeValidator(lambda value: _only_json(value)),  # it has a second argument, which is not pydantic's
    AfterValidator(_freeze),
    PlainSerializer(_thaw, return_type=dict[str, Any]),
]
Text: TypeAlias = Annotated[str, AfterValidator(_no_nul)]
Name: TypeAlias = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._@+-]{0,127}$")]


class Value(BaseModel):
    """The common ground of all edge models: frozen, strict about names, typed; every number is finite."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False, defer_build=True)


def _is_empty(value: Collection[Any]) -> bool:
    return not value


def _is_none(value: object) -> bool:
    return value is None


def _is_private(value: Privacy) -> bool:
    return value is Privacy.PRIVATE


def finite_only(values: Mapping[str, Any]) -> dict[str, Any]:
    """``values`` without those that are NaN or infinite."""
    return {name: value for name, value in values.items() if not isinstance(value, float) or math.isfinite(value)}


_ValueT = TypeVar("_ValueT", bound=Value)


def explain_invalid(error: ValidationError) -> str:
    """Say what pydantic found, as one line for a person: each field, what is wrong, what was given."""
    parts = []
    for problem in error.errors(include_url=False, include_context=False):
        field = ".".join(str(step) for step in problem["loc"]) or "value"
        given = "" if problem["type"] == "missing" else f", found {problem['input']!r:.80}"
        parts.append(f"{field}: {problem['msg'].removeprefix('Value error, ')}{given}")
    return "; ".join(parts)


def build(model: type[_ValueT], values: Mapping[str, Any]) -> _ValueT:
    """Make a ``model`` from loose values.

    Raises:
        InvalidInput: with one line that names each field that is wrong.
    """
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise InvalidInput(f"{model.__name__}: {explain_invalid(error)}") from error


# ---------------------------------------------------------------- tasks


def lane_name(model: str, task_type: TaskType) -> str:
    """The lane, within each queue, of tasks of this type for ``model``. A node reads the lanes of what it can do."""
    return model if task_type is TaskType.INPAINT else f"{model}~{task_type}"  # no model's name has a ~


@lru_cache(maxsize=4096)
def model_of(lane: str) -> str:
    """The model whose tasks wait in ``lane``."""
    return split_lane(lane)[0].partition("~")[0]


DEVICE_WISH = re.compile(r"^(auto|cpu|gpu|cuda(:\d+)?|mps)$")
_FIRST_DAY, _LAST_DAY = datetime(1970, 1, 2, tzinfo=UTC), datetime(9999, 12, 30, tzinfo=UTC)
DEFAULT_MODEL = "cv2-telea"


SOURCE, RESULT = "lcq.source", "lcq.result"
"""Keys of a task's metadata: where its submitter has the image, and will have the result, where agents see neither."""


class Task(Value):
    """One image to process, as its submitter asked for it; it never changes after that.

    ``image_path`` and ``mask_path`` are paths that the node can read; the mask's bright pixels (> 127)
    are what is to be replaced. ``config`` goes to the engine: ``model``, ``device`` (auto, cpu, gpu,
    cuda, cuda:N), and what the model knows (``radius``, ``format``, ``quality`` …). ``requires`` are labels that the
    node must have. ``privacy``: whether its pictures may leave the house. ``deadline``: when it is to be done;
    where the house is predicted to miss that, and it may leave it, a function does it.
    """

    id: str = Field(default_factory=new_id)
    task_type: TaskType
    image_path: Text = Field(min_length=1, max_length=4096)
    mask_path: Text | None = Field(default=None, min_length=1, max_length=4096)
    output_path: Text | None = Field(default=None, min_length=1, max_length=4096)
    config: FrozenJson = Field(default_factory=dict)
    priority: TaskPriority = TaskPriority.NORMAL
    max_retries: int = Field(default=3, ge=0, le=100)
    timeout_s: float = Field(default=600.0, gt=0, le=7 * 24 * 3600, allow_inf_nan=False)
    user_id: Text = Field(default="anonymous", min_length=1, max_length=128)
    job: Text | None = Field(default=None, min_length=1, max_length=128)
    metadata: FrozenJson = Field(default_factory=dict)
    requires: Labels = Field(default_factory=dict, exclude_if=_is_empty)  # left out: its JSON is as it always was
    privacy: Privacy = Field(default=Privacy.PRIVATE, exclude_if=_is_private)  # left out, too
    deadline: AwareDatetime | None = Field(default=None, exclude_if=_is_none)

    @field_validator("id")
    @classmethod
    def _id_has_its_form(cls, value: str) -> str:
        if not is_id(value):
            raise ValueError("must be 16 characters of Crockford's base 32, as lcq.ids.new_id() makes them")
        return value

    @field_validator("deadline")
    @classmethod
    def _is_in_the_calendar(cls, value: datetime | None) -> datetime | None:
        """In every time zone: whoever tells it would fail at a year 0, or 10,000."""
        return value if value is None else min(_LAST_DAY, max(_FIRST_DAY, value))

    @field_validator("config")
    @classmethod
    def _config_says_what_it_wants(cls, value: Mapping[str, Any]) -> Mapping[str, Any]:
        model = value.get("model", DEFAULT_MODEL)
        if not isinstance(model, str) or not re.match(r"^[A-Za-z0-9][A-Za-z0-9._+-]{0,63}$", model):
            raise ValueError(f"config.model must be a model's name, found {model!r}")
        device = value.get("device", "auto")
        if not isinstance(device, str) or not DEVICE_WISH.match(device):
            raise ValueError(f"config.device must be auto, cpu, gpu, cuda, cuda:N or mps, found {device!r}")
        return value

    @property
    def model(self) -> str:
        """The model asked for."""
        return str(self.config.get("model", DEFAULT_MODEL))

    @property
    def source(self) -> str:
        """What people know its image as: where whoever submitted it has it, if that is not where it is read from."""
        named = self.metadata.get(SOURCE)
        return named if isinstance(named, str) and named else self.image_path

    @property
    def lane(self) -> str:
        """The lane it waits in, within its queue."""
        return labelled_lane(lane_name(self.model, self.task_type), self.requires)

    @property
    def device(self) -> str:
        """The device wish: auto, cpu, gpu, cuda, cuda:N or mps."""
        return str(self.config.get("device", "auto"))

    @property
    def deadline_ms(self) -> int | None:
        """When it is to be done, in ms since 1970; None: whenever its turn comes."""
        return None if self.deadline is None else round(self.deadline.timestamp() * 1000)

    @property
    def created_at(self) -> datetime:
        """When the task was made, read from its id."""
        return id_time(self.id)

    def to_json(self) -> str:
        """This task as JSON; ``Task.from_json`` gives back an equal one."""
        return self.model_dump_json()

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        """The task that ``to_json`` wrote; fields that a newer version added are ignored.

        Raises:
            ValidationError: naming each field that is wrong.
        """
        return cls.model_validate_json(text, extra="ignore")


class TaskResult(Value):
    """What a completed attempt left behind."""

    path: Text
    bytes: int = Field(ge=0)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    input_sha256: str = Field(default="", pattern=r"^([0-9a-f]{64})?$")  # so that a mix-up can be seen
    width: int = Field(ge=0)
    height: int = Field(ge=0)
    mask_fraction: float = Field(default=0.0, ge=0, le=1)
    seconds: float = Field(ge=0)
    notes: tuple[str, ...] = ()
    cost: float = Field(default=0.0, ge=0, exclude_if=operator.not_)  # what a function was paid for it


class Ease(StrEnum):
    """The steps by which a task that ran out of memory is made easier, in the order they are tried."""

    SMALLER_TILE = "smaller_tile"  # work on smaller windows, with less context
    LOWER_PRECISION = "lower_precision"
    BIGGER_GPU = "bigger_gpu"
    CPU = "cpu"


class Failure(Value):
    """Why an attempt ended without a result."""

    error_class: ErrorClass
    code: str = Field(pattern=r"^[a-z0-9_]{1,64}$")
    message: Text = Field(max_length=2000)


class Bill(Value):
    """What an attempt at a function was reserved for, in whole millionths of the budget's currency."""

    worst: int = Field(default=0, ge=0)


class Attempt(Value):
    """One run of a task on one node."""

    number: int = Field(ge=1)
    node: str
    device: str = ""
    started_ms: int
    ended_ms: int | None = None
    outcome: str = "running"  # running, completed, failed, handed_back, cancelled, rerouted, superseded; damaged
    failure: Failure | None = None
    eased: tuple[Ease, ...] = ()  # what was made easier for it, because earlier ones ran out of a resource
    peak_mib: int = 0  # the most of its host's memory that it held at a time, also where it was killed; 0: not known
    device_peak_mib: int = 0  # the same of its GPU's memory, where the engine can tell
    seconds: float = 0.0  # of work, where it was completed
    megapixels: float = 0.0  # that were worked on, by estimate; 0: nothing was predicted for it
    predicted_s: float = 0.0  # what it was expected to take (P50, P90), and to hold of its device's memory
    predicted_p90_s: float = 0.0
    predicted_mib: int = 0
    guessed: bool = False  # those seconds were an estimate: measured by nobody on such a device, and not learned
    warm: bool = False  # its model was loaded there
    cost: str = ""  # what these were predicted by, as lcq.costs.CostKey writes it
    log: str = ""  # what its runner wrote last, where it failed
    result_of: int = 0  # it only put the late result of that attempt in its place; 0: it did the work itself
    spend: Bill | None = Field(default=None, exclude_if=lambda bill: bill is None)  # None: it is not paid for
    spent: int = Field(
        default=0, ge=0, exclude_if=operator.not_
    )  # millionths, once it has ended; a late bill corrects it


class Note(Value):
    """What somebody had to say, for other people to read."""

    at_ms: int
    actor: str
    text: str


class Cause(Value):
    """Failed tasks that died of the same: a code, and what their messages have in common."""

    error_class: ErrorClass
    code: str
    text: str
    count: int
    newest: str  # the id of one of them
    newest_ms: int
    oldest_ms: int = 0  # 0: told by an older scheduler
    nodes: tuple[str, ...] = ()  # where they failed last
    models: tuple[str, ...] = ()  # with which models, the most frequent first
    sizes: tuple[str, ...] = ()  # of which classes of size their images are (lcq.causes.size_class), likewise
    trend: tuple[int, ...] = ()  # how many in each five minutes of the last hour, the oldest first
    acknowledged: Note | None = None  # by whom, and what they had to say of it
    # Where causes are told apart by more than that, what these tasks have in common: model, node, size; "": not known.
    of: dict[str, str] = Field(default_factory=dict, exclude_if=lambda of: not of)


class TaskRecord(Value):
    """A task and all that has become of it, at one revision. Times are ms since 1970 by Redis's clock.

    ``task`` is as it was submitted, but for what an operator has changed: what it requires (by a reroute), and its
    deadline.
    """

    task: Task
    status: TaskStatus
    revision: int
    queue: str
    priority: TaskPriority
    pinned_node: str = ""
    forced: bool = False  # an operator chose the queue: routing leaves it there
    attempt: int = 0
    retries: int = 0
    node: str = ""
    device: str = ""
    progress: float = 0.0
    stage: str = ""
    submitted_ms: int = 0
    updated_ms: int = 0
    due_ms: int | None = None
    started_ms: int | None = None
    finished_ms: int | None = None
    lease_deadline_ms: int | None = None
    failure: Failure | None = None
    result: TaskResult | None = None
    eased: tuple[Ease, ...] = ()  # the steps taken so far
    vram_mib: int = 0  # what it is predicted to need of a GPU's memory; 0: not known
    size: tuple[int, int] | None = None  # of its image: width and height, where the header told at its submit
    cost_s: float = 0.0  # predicted seconds of work
    ends_ms: int | None = None  # when the running attempt is predicted to end
    why: str = ""  # why it waits, or who changed it last and for what reason
    damaged: str = ""  # what of its record could not be read; then no field of it is sure
    notes: tuple[Note, ...] = ()  # comments, the oldest first

    @property
    def id(self) -> str:
        return self.task.id


class Skips(Value):
    """Inputs of a job that needed no work, or could get none: why, how many, one of them."""

    why: str
    count: int
    example: str = ""


class UsageRow(Value):
    """What was used, by one user, job, node or model, or on one day (UTC). ``cost`` is in ``report.currency``."""

    name: str
    completed: int = 0
    failed: int = 0
    cancelled: int = 0
    attempts: int = 0  # of these and of others: what an attempt took counts on the day it ended
    retries: int = 0  # that counted against max_retries
    megapixels: float = 0.0  # of results
    gpu_s: float = 0.0  # for so long attempts had a slot of a GPU
    cpu_s: float = 0.0
    cost: float = 0.0
    function_s: float = 0.0  # of a function

    @property
    def work_s(self) -> float:
        """For so long attempts had a slot of anything."""
        return self.gpu_s + self.cpu_s + self.function_s

    @property
    def tasks(self) -> int:
        """That ended."""
        return self.completed + self.failed + self.cancelled


class Eta(Value):
    """When a job is likely to be done: in one of two cases, and in nine of ten, seconds from now."""

    p50_s: float | None = None  # None: nobody can say, see ``why``
    p90_s: float | None = None
    why: str = ""
    guessed: bool = False  # by estimates alone: nobody has measured such work there, and none of the job is done


class JobSummary(Value):
    """A named group of tasks with its counts by status."""

    name: str
    submitted_ms: int
    counts: dict[TaskStatus, int]
    paused: str = ""  # by whom and why; empty if it is not
    paused_ms: int | None = None
    left_s: float = 0.0  # of work, predicted for what has not ended; 0: not known
    done_predicted_s: float = 0.0  # what was predicted for what is done, and what that took on its slots
    done_spent_s: float = 0.0
    seconds: float = 0.0  # of work, of what is done
    megapixels: float = 0.0
    skipped: tuple[Skips, ...] = ()  # by its last submit
    eta: Eta | None = None  # None: it has ended

    @property
    def total(self) -> int:
        return sum(self.counts.values())

    @property
    def unfinished(self) -> int:
        return sum(count for status, count in self.counts.items() if not status.is_terminal)


class JobReport(Value):
    """What has become of a job, all in all."""

    name: str
    done: int = 0
    unfinished: int = 0
    cancelled: int = 0
    unknown: int = 0  # were given to the cluster, which knows nothing of them any more
    skipped: tuple[Skips, ...] = ()
    failed: tuple[Cause, ...] = ()  # the most frequent first
    seconds: float = 0.0  # of work, of what is done
    megapixels: float = 0.0
    paused: str = ""
    eta: Eta | None = None
    took_s: float | None = None  # from the submit to the end, by the clock; None: not known

    @property
    def failures(self) -> int:
        return sum(cause.count for cause in self.failed)


# ---------------------------------------------------------------- queues


class QueueConfig(Value):
    """One queue: which devices may serve it, and its place among the PUSH sockets."""

    name: Name
    """Its name, which tasks and filters use."""
    kind: DeviceKind
    """The kind of device that may serve it."""
    min_vram_mib: int = Field(default=0, ge=0)
    """So much memory a GPU must have, in MiB."""
    min_cores: int = Field(default=0, ge=0)
    """So many cores the host must have."""
    min_memory_mib: int = Field(default=0, ge=0)
    """So much memory the host must have, in MiB."""
    port_offset: int = Field(default=0, ge=0, le=1000)
    """Its PUSH socket is bound at zeromq.base_port + this: each queue has another."""


DEFAULT_QUEUES: tuple[QueueConfig, ...] = (
    QueueConfig(name="gpu-high", kind=DeviceKind.GPU, min_vram_mib=8000, port_offset=0),
    QueueConfig(name="gpu-medium", kind=DeviceKind.GPU, min_vram_mib=4000, port_offset=1),
    QueueConfig(name="gpu-low", kind=DeviceKind.GPU, min_vram_mib=2000, port_offset=2),
    QueueConfig(name="cpu-intensive", kind=DeviceKind.CPU, min_cores=4, min_memory_mib=4000, port_offset=3),
    QueueConfig(name="cpu-light", kind=DeviceKind.CPU, port_offset=4),
    QueueConfig(name="serverless", kind=DeviceKind.SERVERLESS, port_offset=5),
)


class QueueRecord(Value):
    """A queue as it stands: its configuration, whether it is paused, its counts."""

    config: QueueConfig
    paused: bool = False
    paused_by: str = ""
    paused_reason: str = ""
    paused_ms: int | None = None
    counts: dict[TaskStatus, int] = Field(default_factory=dict)
    oldest_queued_ms: int | None = None
    nodes: tuple[str, ...] = ()  # live nodes that serve it

    @property
    def name(self) -> str:
        return self.config.name


# ---------------------------------------------------------------- nodes


class Prewarm(Value):
    """Instances of a function that are woken before they are needed, and kept until they are not."""

    instances: int = Field(default=0, ge=0, le=1024)
    share: float = Field(default=0.5, ge=0, le=1)  # of serverless.overflow_after_s, from which on overflow is near
    idle_after_s: float = Field(default=120.0, ge=0)


class Device(Value):
    """A GPU or the CPU of a node: the unit that serves queues."""

    id: Name  # "cpu", or a GPU's UUID
    kind: DeviceKind
    name: str = ""
    slots: int = Field(default=1, ge=1, le=1024)
    cores: int = Field(default=0, ge=0)
    memory_mib: int = Field(default=0, ge=0)
    vram_mib: int = Field(default=0, ge=0)
    queues: tuple[str, ...] | None = None  # serves exactly these, whatever they ask for: its owner's wish
    worst_price: float = Field(default=0.0, ge=0, exclude_if=operator.not_)  # of one attempt, where it is paid for
    prewarm: Prewarm | None = Field(default=None, exclude_if=operator.not_)  # of a function
    price_s: float = Field(default=0.0, ge=0, exclude_if=operator.not_)  # of a second of a function's call
    price_call: float = Field(default=0.0, ge=0, exclude_if=operator.not_)  # of a call beside that
    endpoint: Text = Field(default="", exclude_if=operator.not_)  # where a function is, without what only it may know
    only: tuple[str, ...] = Field(default=(), exclude_if=operator.not_)  # of its node's models; (): all of its kind

    def satisfies(self, queue: QueueConfig) -> bool:
        """Whether this device is good enough for ``queue``, or was told to serve it."""
        if self.queues is not None:
            return queue.name in self.queues and self.kind == queue.kind
        return (
            self.kind == queue.kind
            and self.vram_mib >= queue.min_vram_mib
            and self.cores >= queue.min_cores
            and self.memory_mib >= queue.min_memory_mib
        )


class RestCode(StrEnum):
    """Why a device takes no new work for a while, until its agent lets it work again by itself."""

    DISK_FULL = "disk_full"
    TOO_HOT = "too_hot"
    BUSY_ELSEWHERE = "busy_elsewhere"  # other programs use it
    ENDPOINT_AWAY = "endpoint_away"  # of a function, which does not answer


class FunctionReading(Value):
    """How a function is, by what its calls have answered to one agent; counted since that agent began."""

    warm: int = Field(default=0, ge=0)  # instances heard within the time for which its platform keeps one
    cold: int = Field(default=0, ge=0)  # cold starts
    in_flight: int = Field(default=0, ge=0)  # calls that it is at now, warm-ups too
    start_s: float = Field(default=0.0, ge=0)  # what the last cold start took: until it could work, and loading
    load_s: float = Field(default=0.0, ge=0)  # of that, loading the model
    in_vain: int = Field(default=0, ge=0, exclude_if=operator.not_)  # calls in a row that reached nothing
    rests_until_ms: int | None = Field(default=None, exclude_if=_is_none)  # by Redis's clock; None: it does not rest
    trials: int | None = Field(default=None, ge=0, exclude_if=_is_none)  # calls that try whether it answers again, now
    """None: it answers, as far as anybody knows, or it rests; 0: the next call tries it, alone."""
    not_woken: Text = Field(default="", exclude_if=operator.not_)
    """Code and message of what the last warm-up failed of; "": of nothing, or an instance has answered since."""


class DeviceReading(Value):
    """How a device is now: what a beat tells of each. None: not known on this hardware.

    A number that is none (NaN, infinite, busy beyond all) is a sensor's hiccup: it counts as not known, so that
    it never costs a node the beat that renews its leases.
    """

    total_mib: int | None = None  # memory of the device
    free_mib: int | None = None
    foreign_mib: int | None = None  # taken by programs that are not this agent's
    busy: float | None = Field(default=None, ge=0, le=1)  # utilisation
    temperature_c: float | None = None
    power_w: float | None = None
    foreign_busy: float | None = Field(default=None, ge=0, le=1)  # of its time that other programs used it
    slows_down_c: int | None = None  # the temperature from which on it slows itself down
    too_hot: bool = False  # and it does so now
    warm: tuple[str, ...] = ()  # models loaded in its runners
    fault: str = ""  # why it takes no work: fell off the bus, failed its self-test; or rests, and returns by itself
    rest: str = ""  # where it only rests: which RestCode that is; a newer agent may have others
    alarm: str = ""  # why its results are not to be trusted, although it works: it is to be quarantined
    function: FunctionReading | None = Field(default=None, exclude_if=operator.not_)  # of the kind serverless

    @model_validator(mode="before")
    @classmethod
    def _drop_what_is_no_number(cls, values: Any) -> Any:
        if not isinstance(values, Mapping):
            return values
        told = finite_only(values)
        for name in ("busy", "foreign_busy"):
            share = told.get(name)
            if isinstance(share, int | float) and not 0 <= share <= 1:
                del told[name]
        return told


class ModelOffer(Value):
    """A model that an engine offers: what it is good for, where it runs, what it needs."""

    kinds: tuple[DeviceKind, ...] = Field(min_length=1)  # best first
    task_types: tuple[TaskType, ...] = (TaskType.INPAINT,)
    engine: str = ""
    vram_mib: int = Field(default=0, ge=0)  # for one picture of ordinary size; 0: not known
    memory_mib: int = Field(default=0, ge=0)
    seconds: dict[DeviceKind, float] = Field(default_factory=dict)  # first guess for one picture
    eases: tuple[Ease, ...] = ()  # what its engine can do with less memory


class NodeCapability(Value):
    """What a node can do: its devices, and the models its engines offer on them.

    ``left_out``: devices, engines and models that are not offered, each with the reason. ``withheld``: those of the
    models that only need something to come back that is away: tasks for them may wait. ``labels``: what its own
    configuration says of it; ``NodeRecord.labels`` is what counts.
    """

    devices: tuple[Device, ...] = ()
    models: dict[str, ModelOffer] = Field(default_factory=dict)
    left_out: dict[str, str] = Field(default_factory=dict)
    withheld: dict[str, ModelOffer] = Field(default_factory=dict)
    host: str = ""
    version: str = ""
    labels: Labels = Field(default_factory=dict, exclude_if=_is_empty)
    knows: tuple[str, ...] = Field(default=(), exclude_if=_is_empty)  # what it may be told that older agents may not

    @field_validator("models", mode="before")
    @classmethod
    def _as_0_1_wrote_them(cls, value: Any) -> Any:
        """Version 0.1's first form, still in its Redis and on its agents' lips: only the kinds of device."""
        if not isinstance(value, Mapping):
            return value
        return {name: {"kinds": offer} if isinstance(offer, list | tuple) else offer for name, offer in value.items()}

    def serves(self, queues: Iterable[QueueConfig]) -> dict[str, tuple[str, ...]]:
        """The queues of each device, its own class (the most demanding it satisfies) first."""
        by_demand = sorted(queues, key=lambda q: (q.min_vram_mib, q.min_cores, q.min_memory_mib), reverse=True)
        return {
            device.id: tuple(queue.name for queue in by_demand if device.satisfies(queue)) for device in self.devices
        }

    def can_run(self, device: Device, model: str, task_type: TaskType) -> bool:
        """Whether ``model`` does that on ``device``, going by what its engine said of itself."""
        offer = self.models.get(model)
        return (
            offer is not None
            and device.kind in offer.kinds
            and (not device.only or model in device.only)
            and task_type in offer.task_types
            and (device.kind != DeviceKind.GPU or not device.vram_mib or offer.vram_mib <= device.vram_mib)
        )

    def lanes_of(self, device: Device) -> frozenset[str]:
        """The lanes that ``device`` reads of each queue it serves."""
        return frozenset(
            lane_name(model, task_type)
            for model, offer in self.models.items()
            for task_type in offer.task_types
            if self.can_run(device, model, task_type)
        )


class DeviceWish(Value):
    """What an operator has set of a device of a node. None: its own counts."""

    slots: int | None = None
    queues: tuple[str, ...] | None = None
    why: str = ""  # who set it, and the reason


class Lowered(Value):
    """A device is given less than it could do, because it has become slow (lcq/slow.py)."""

    times: float  # so many times as long its attempts take as is usual for them
    behind: float = 1.0  # and as what was learned of its class says: predictions for it are longer by that
    most: int = 1  # attempts at a time
    why: str = ""  # in words that follow its name


class NodeRecord(Value):
    """A node as the cluster sees it. Times are ms since 1970 by Redis's clock."""

    id: str
    boot_id: str
    status: NodeStatus
    capability: NodeCapability
    serves: dict[str, tuple[str, ...]] = Field(default_factory=dict)  # device id -> queues
    registered_ms: int = 0
    seen_ms: int = 0
    beat_ms: int = 0  # how often it was told to beat, and how long it may be silent; 0: by an older scheduler
    lease_ms: int = 0
    scheduler: str = ""  # the id of the one that it said hello to last: only by that one it is heard
    running: int = 0
    idle_ms: int = 0  # when its last attempt ended and it ran nothing more; 0: not known
    completed: int = 0
    failed: int = 0  # attempts that failed here; not by their input, nor because what they need beside it was away
    telemetry: dict[str, float | str] = Field(default_factory=dict)
    readings: dict[str, DeviceReading] = Field(default_factory=dict)  # device id -> how it is
    why: str = ""  # who drained or quarantined it, and the reason
    damaged: str = ""  # what of its record could not be read; then only its name is sure
    blame: float = 0.0  # what it failed and others may not have, as of ``blame_ms``; fades (lcq/health.py)
    blame_ms: int = 0
    probation: int = 0  # tasks that it has still to complete after a quarantine
    probe_ms: int | None = None  # when a quarantined node is probed; None: not by itself
    relabelled: dict[str, str | None] = Field(default_factory=dict)  # an operator's word over its own; None: taken away
    good_for: dict[str, tuple[str, ...]] = Field(default_factory=dict)  # device id -> queues, were nothing set or held
    wishes: dict[str, DeviceWish] = Field(default_factory=dict)  # device id -> what an operator has set of it
    quarantined: dict[str, str] = Field(default_factory=dict)  # device id -> why it is in quarantine, alone
    device_blame: dict[str, tuple[float, int]] = Field(default_factory=dict)  # device id -> blame, as of which ms
    on_probation: dict[str, int] = Field(default_factory=dict)  # device id -> tasks that it has still to complete
    lowered: dict[str, Lowered] = Field(default_factory=dict)  # device id -> how much less it is given, and why
    doubted: dict[str, str] = Field(default_factory=dict)  # device id -> its alarm, and why it works on all the same
    hand_back_ms: int | None = None  # when a draining node hands back what it still runs; None: it may go on
    stopping: bool = False  # its agent ends as soon as it has drained

    @property
    def slots(self) -> int:
        return sum(device.slots for device in self.capability.devices)

    @property
    def is_quarantined_by_device(self) -> bool:
        """Whether each of its devices is in quarantine by itself."""
        return bool(self.capability.devices) and all(one.id in self.quarantined for one in self.capability.devices)

    def caution(self, device: str) -> str:
        """What is held against ``device`` although it works, in words; "": nothing."""
        if device in self.doubted:
            return f"works, in doubt: it {self.doubted[device]}"
        lowered = self.lowered.get(device)
        return f"is given less ({lowered.most} at a time): it {lowered.why}" if lowered else ""

    @property
    def labels(self) -> Mapping[str, str]:
        """The labels that count: those that the agent told, with what an operator has set or taken away."""
        both = {**self.capability.labels, **self.relabelled}
        return {key: value for key, value in sorted(both.items()) if value is not None}

    def reads(self, device: Device, lane: str) -> bool:
        """Whether ``device``, one of this node's, takes tasks from this lane of the queues that it serves."""
        base, requires = split_lane(lane)
        return base in self.capability.lanes_of(device) and (not requires or satisfies(self.labels, requires))


class Event(Value):
    """One thing that happened, as the move that did it wrote it down."""

    id: str  # the stream id, "ms-n"
    move: str
    fields: dict[str, str]

    @property
    def at_ms(self) -> int:
        return int(self.id.partition("-")[0])


class MinuteTally(Value):
    """What one minute saw happen to tasks."""

    minute: int  # since 1970, by Redis's clock
    submitted: int = 0
    claimed: int = 0
    completed: int = 0
    failed: int = 0
    cancelled: int = 0
    waiting: int | None = None  # tasks queued and pending when it was last looked at; None, here and below: not known
    running: int | None = None
    waiting_in: dict[str, int] = Field(default_factory=dict)  # queue -> the same of it
    completed_in: dict[str, int] = Field(default_factory=dict)  # queue -> of its tasks
    came_in: dict[str, int] = Field(default_factory=dict)  # queue -> tasks that came into it; empty: not known
    left_in: dict[str, int] = Field(default_factory=dict)  # queue -> that left it: ended, or moved; empty: not known
    busy: float | None = None  # mean use of the devices that tell theirs, 0 to 1
    memory: float | None = None  # share of all devices' memory that was taken


class DeviceSample(Value):
    """How a device was at one moment, as it is kept for charts. None: not known."""

    at_ms: int
    busy: float | None = None  # 0 to 1
    used_mib: int | None = None
    total_mib: int | None = None
    temperature_c: int | None = None
    power_w: int | None = None


class ActRecord(Value):
    """What somebody has done to the cluster, as the audit keeps it."""

    id: str  # its place in the audit
    at_ms: int
    act: str  # the command: retry, drain, …
    actor: str
    reason: str = ""
    command: str = ""  # the command's id: what ``undo`` is told
    on: str = ""  # to what: "ids=… queue=…"
    outcome: str = ""  # "3 done, 1 refused", where it was to several
    undo_ms: int = 0  # for so long it can still be taken back; 0: it cannot

"""What agents and schedulers say to each other."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, field_validator

from lcq.models import DeviceReading, Ease, Failure, NodeCapability, Task, TaskResult, finite_only
from lcq.wire.message import MAX_LOG, Done, Message, Request

MOST_SEEN = 64
"""Files that are asked after at a time."""


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
    lifeline_key: str = ""  # by which the agent proves that the lifeline is its own; "": that is not asked for

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
    device_peak_mib: int = 0  # the same of its GPU's memory, where the engine can tell
    log: str = Field(default="", max_length=MAX_LOG)  # what its runner wrote last, with a failure
    cost: float | None = Field(default=None, ge=0, exclude_if=lambda cost: cost is None)  # at a function


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


class CallAnswer(Message):
    """``path``: of the call's own address, by which others are lent; "": none are here."""

    path: str = ""
    public: str = ""  # where functions reach what is lent
    http: str = ""  # "host:port" of the scheduler's HTTP for its agents; "": they go by ``public``, too
    same_host: bool = False  # that is at the host at which the control socket was reached

    def reached_at(self, endpoint: str) -> CallAnswer:
        """This, as it is to be read by who reached the scheduler at ``endpoint`` ("tcp://host:port")."""
        if not (self.same_host and self.http):
            return self
        host = endpoint.removeprefix("tcp://").rpartition(":")[0]
        return self.model_copy(update={"http": f"{host}:{self.http.rpartition(':')[2]}", "same_host": False})


class OpenCall(Request[CallAnswer]):
    """A function is about to be called for an attempt: whether the scheduler lends addresses for its pictures.

    The prices, in the currency of the budget, and ``timeout_s`` are those by which a late bill is read.
    """

    CMD = "open_call"
    ANSWER = CallAnswer
    IS_KEPT = False
    node_id: str
    boot_id: str
    task_id: str = Field(min_length=1, max_length=64)
    attempt: int = Field(ge=1)
    seconds: float = Field(ge=0, le=24 * 3600)  # that the attempt may take
    price_call: float = Field(default=0.0, ge=0)
    price_s: float = Field(default=0.0, ge=0)
    timeout_s: float = Field(default=0.0, ge=0)


class Step(Request[StepAnswer]):
    """Finished attempts and free slots in one message; the answer settles and fills them."""

    CMD = "step"
    ANSWER = StepAnswer
    node_id: str
    boot_id: str
    outcomes: tuple[Outcome, ...] = ()
    want: tuple[Want, ...] = ()


class RetakeAnswer(Message):
    """``attempt`` 0: its result does not count any more, and ``why``."""

    attempt: int = 0  # under which the result is to be told once its file has its name
    lease_ms: int = 0  # for so long, from when it was asked, the task is surely the node's
    why: str = ""


class Retake(Request[RetakeAnswer]):
    """A node has the result of an attempt that was taken back from it: if it counts, it is to have its place first."""

    CMD = "retake"
    ANSWER = RetakeAnswer
    node_id: str
    boot_id: str
    task_id: str
    attempt: int


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


MOST_THUMBNAIL_PX = 1024
MOST_THUMBNAIL_CHARS = 700_000  # of base64: half a megabyte, three of them far below MAX_MESSAGE_BYTES


class ThumbnailPart(Message):
    """One small picture, or why there is none. ``width`` and ``height`` are those of the whole file, upright."""

    data: str = Field(default="", max_length=MOST_THUMBNAIL_CHARS)  # base64 of a JPEG, or WebP; of a mask: a grey PNG
    width: int = Field(default=0, ge=0)
    height: int = Field(default=0, ge=0)
    bytes: int = Field(default=0, ge=0)  # of the file
    why: str = Field(default="", max_length=2000)


class ThumbnailWish(Message):
    """Files that somebody wants to look at. The agent makes small pictures of them, and answers by ``pictured``."""

    id: str
    files: dict[str, str]  # "before", "mask", "after", "overlay": the path of each
    longest: int = Field(ge=16, le=MOST_THUMBNAIL_PX)
    box: tuple[float, float, float, float]
    mask: str = ""  # that is laid over "overlay", which is the image's path
    webp: bool = False  # as WebP, masks too


class Pictured(Request[Done]):
    """The small pictures that a ``ThumbnailWish`` asked for."""

    CMD = "pictured"
    ANSWER = Done
    IS_KEPT = False
    node_id: str
    boot_id: str
    wish: str
    parts: dict[str, ThumbnailPart]


MOST_LOG_LINES = 500
MOST_LOG_CHARS = 65_536  # of all lines of one answer


class LogLine(Message):
    """One line of an agent's log, or of what one of its runners wrote. Its number only grows, while that agent runs."""

    number: int
    at_ms: int  # by the clock of the agent's host
    source: str  # "agent", or the slot whose runner wrote it
    level: str = ""  # where the agent said so: DEBUG, INFO, WARNING, ERROR
    task: str = ""  # the attempt that ran in that slot
    attempt: int = 0
    text: str
    cut: int = Field(default=0, exclude_if=lambda cut: not cut)  # so many bytes before it were not kept


class LogWish(Message):
    """What somebody wants to read of an agent's log. The agent answers by ``logged``."""

    id: str
    after: int = -1  # only lines with greater numbers, the oldest first; -1: the newest
    limit: int = Field(ge=1, le=MOST_LOG_LINES)
    task: str = ""  # only lines of this task, or that name it


class Logged(Request[Done]):
    """The lines that a ``LogWish`` asked for."""

    CMD = "logged"
    ANSWER = Done
    IS_KEPT = False
    node_id: str
    boot_id: str
    wish: str
    lines: tuple[LogLine, ...] = Field(default=(), max_length=MOST_LOG_LINES)
    first: int = 0  # the number of the oldest line that the agent still has
    last: int = -1  # up to which it has looked: ask for what comes after that


class TaskLogWish(Message):
    """What somebody wants to read of an attempt's log. The agent answers by ``task_logged``."""

    id: str
    task: str
    attempt: int
    begin: int = Field(default=-1, ge=-1)  # at that byte of it, the oldest line first; -1: the newest ones
    limit: int = Field(ge=1, le=MOST_LOG_LINES)


class TaskLogged(Request[Done]):
    """The lines that a ``TaskLogWish`` asked for; the number of each is the byte at which it begins."""

    CMD = "task_logged"
    ANSWER = Done
    IS_KEPT = False
    node_id: str
    boot_id: str
    wish: str
    lines: tuple[LogLine, ...] = Field(default=(), max_length=MOST_LOG_LINES)
    next: int = 0  # begin there to read what follows
    size: int = 0  # bytes that it has so far
    kept: int = 0  # and of them still are there
    is_open: bool = False  # the attempt still runs: more may come
    is_there: bool = True  # false: nothing is known of it any more, or nothing was written


class SeenFile(Message):
    """A file as somebody sees it: how many bytes it has, and the SHA-256 of the first of them (lcq.glance)."""

    path: str = Field(min_length=1, max_length=4096)
    size: int = Field(ge=0)
    head: str = Field(pattern=r"^[0-9a-f]{64}$")


class SeeWish(Message):
    """Files of which somebody wants to know whether this host sees them too. The agent answers by ``saw``."""

    id: str
    files: tuple[SeenFile, ...] = Field(max_length=MOST_SEEN)


class Saw(Request[Done]):
    """Which files of a ``SeeWish`` are there, and the same."""

    CMD = "saw"
    ANSWER = Done
    IS_KEPT = False
    node_id: str
    boot_id: str
    wish: str
    seen: tuple[str, ...] = ()  # their paths


class WarmWish(Message):
    """Instances of a function that are to be woken. The agent first asks what may be paid for, by ``Warm``."""

    device: str
    model: str
    count: int = Field(ge=1, le=1024)  # calls at the same time


class WarmAnswer(Message):
    calls: int = 0  # that are paid for
    why: str = ""  # why not all that were asked for are


class Warm(Request[WarmAnswer]):
    """A node is about to wake a function: what that may cost at most is reserved, as far as the budget allows."""

    CMD = "warm"
    ANSWER = WarmAnswer
    node_id: str
    boot_id: str
    device: str
    count: int = Field(ge=1, le=1024)


class Warmed(Request[Done]):
    """What the calls cost that ``Warm`` has reserved something for."""

    CMD = "warmed"
    ANSWER = Done
    node_id: str
    boot_id: str
    warm_up: str  # the id of that request
    cost: float = Field(ge=0)


class Order(Message):
    """A word that hurries what the next beat would tell anyway. Agents do not answer it.

    ``beat``: beat now, for there are new ``Orders``; ``picture``: make what ``wish`` says; ``log``: tell the lines
    that ``log`` asks for; ``task_log``: the same of an attempt; ``see``: look for files; ``warm``: wake a function.
    All six only for agents that know them (``NodeCapability.knows``).
    """

    cmd: Literal["cancel", "drain", "resume", "release", "wake", "beat", "picture", "log", "task_log", "see", "warm"]
    task_id: str = ""
    attempt: int = 0
    reason: str = ""
    wish: ThumbnailWish | None = Field(default=None, exclude_if=lambda wish: wish is None)
    log: LogWish | None = Field(default=None, exclude_if=lambda wish: wish is None)
    task_log: TaskLogWish | None = Field(default=None, exclude_if=lambda wish: wish is None)
    see: SeeWish | None = Field(default=None, exclude_if=lambda wish: wish is None)
    warm: WarmWish | None = Field(default=None, exclude_if=lambda wish: wish is None)

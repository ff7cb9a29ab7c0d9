"""What operators and clients may ask."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from lcq.autoscale import DEFAULT_TARGET_S, Scale
from lcq.functions import FunctionRecord
from lcq.models import (
    ActRecord,
    Attempt,
    Cause,
    Event,
    JobReport,
    JobSummary,
    NodeRecord,
    QueueConfig,
    QueueRecord,
    Task,
    TaskRecord,
    TaskStatus,
    UsageRow,
)
from lcq.reasons import Why
from lcq.usage import By
from lcq.wire.message import MAX_BATCH, Message, Refusal, Request
from lcq.wire.nodes import MOST_LOG_LINES, MOST_SEEN, MOST_THUMBNAIL_PX, LogLine, SeenFile, ThumbnailPart


class InfoAnswer(Message):
    scheduler_id: str
    version: str
    protocol: int
    redis: str
    queues: tuple[QueueConfig, ...]
    last_event_id: str
    pid: int
    config_error: str = ""  # why the scheduler's configuration files, as they are now, are not taken over
    config_refused: int = 0  # how often they were not
    upkeep_errors: dict[str, str] = Field(
        default_factory=dict
    )  # by duty for operators (archive, backup): what is wrong
    config_waiting: tuple[str, ...] = ()  # keys that have changed since its start, and need a restart
    now_ms: int | None = None  # what the cluster's clock shows, in ms since 1970
    agreed: str = ""  # fingerprints of settings on which a cluster has to agree (lcq.agreement)


class Info(Request[InfoAnswer]):
    CMD = "info"
    ANSWER = InfoAnswer


class SettingsAnswer(Message):
    """``values``: as a file would say them, section in section; secrets are hidden. ``origins``: by key, who said it:
    of what is not at its default."""

    values: dict[str, Any]
    origins: dict[str, str] = Field(default_factory=dict)


class AskSettings(Request[SettingsAnswer]):
    """What settings a scheduler goes by now."""

    CMD = "settings"
    ANSWER = SettingsAnswer


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
    total: int = 0  # how many match before the cut; with ``where``, which no index counts: all tasks
    cursor: str = ""  # "" when there is no more
    looked_at: int = 0  # how many this page was chosen from


class ListTasks(Request[ListTasksAnswer]):
    """Newest first, a page at a time; all filters given must hold.

    ``where`` is a filter in LCQ's own language (docs/filter.md). Its pages may be short, even empty, where few of very
    many tasks fit: the cursor tells whether there is more.
    """

    CMD = "list_tasks"
    ANSWER = ListTasksAnswer
    where: str = Field(default="", max_length=2000)  # lcq.query.MOST_LENGTH
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
    by: tuple[str, ...] = ()  # told apart by these, too: lcq.causes.APART; an older scheduler does not look at it


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
    predicted_mib: int = 0  # of the device's memory: the median of what was predicted, and of what was held
    peak_mib: int = 0
    peak_p95_mib: int = 0
    held_within: float = 0.0  # share of attempts that held no more than was predicted
    out_of_memory: int = 0  # attempts that ran out of it
    memory_attempts: int = 0  # by which all that is predicted; 0: what was shipped
    fixed_s: float  # what is predicted now: this, and as much a megapixel
    s_per_megapixel: float
    load_s: float = 0.0
    basis: str = ""  # of the seconds predicted now: "learned", or of what was shipped: "measured", "estimate"


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
    currency: str = ""  # of what attempts were paid


class History(Request[HistoryAnswer]):
    CMD = "history"
    ANSWER = HistoryAnswer
    task_id: str


class Foreseen(Message):
    """Some of the tasks that were asked about: where they would go, and why they would wait there."""

    queue: str
    count: int
    seconds: float  # of work, in all
    done_s: float | None = None  # until the last of them is done; None: nobody can say
    why: str = ""
    guessed: bool = False  # what one of them takes there nobody has measured, or learned
    worst_cost: float = 0.0  # what functions may be paid for all of them, at most


class ForeseeAnswer(Message):
    currency: str = ""
    foreseen: tuple[Foreseen, ...] = ()
    refused: tuple[Refusal, ...] = ()  # one of each kind
    refusals: int = 0


class Foresee(Request[ForeseeAnswer]):
    """Where tasks would go, and when they would be done, if they were submitted now. Nothing is submitted."""

    CMD = "foresee"
    ANSWER = ForeseeAnswer
    tasks: tuple[Task, ...] = Field(min_length=1, max_length=MAX_BATCH)
    sizes: tuple[tuple[int, int] | None, ...] = ()
    queue: str = ""
    node: str = ""
    each_stands_for: float = Field(default=1.0, ge=1, le=1_000_000)  # where these are a sample of more


class WhyAnswer(Message):
    id: str
    status: TaskStatus
    why: Why
    revision: int = 0  # of the task, when it was so; 0: from an older scheduler


class AskWhy(Request[WhyAnswer]):
    """Why a task waits, or what became of it."""

    CMD = "why"
    ANSWER = WhyAnswer
    task_id: str


MOST_WHYS = 100  # tasks in one command: a screen of them


class WhysAnswer(Message):
    whys: tuple[WhyAnswer, ...] = ()


class AskWhys(Request[WhysAnswer]):
    """Why each of these tasks is where it is, for a list: at most a second old, and not of what would take too long."""

    CMD = "whys"
    ANSWER = WhysAnswer
    ids: tuple[str, ...] = Field(min_length=1, max_length=MOST_WHYS)


class AutoscaleAnswer(Message):
    scale: Scale


class Autoscale(Request[AutoscaleAnswer]):
    """How many slots each queue wants so that what waits begins within ``target_wait_s``, and which nodes are idle."""

    CMD = "autoscale"
    ANSWER = AutoscaleAnswer
    target_wait_s: float = Field(default=DEFAULT_TARGET_S, ge=0.001, le=30 * 24 * 3600)


class SpendBook(Message):
    """What a span of time has cost, in the budget's currency. ``limit``: None where there is none."""

    name: str  # "hour", "day", "month"; of the days, the date (UTC)
    spent: float = 0.0
    reserved: float = 0.0  # the worst that what runs now may still cost
    calls: int = 0
    limit: float | None = None
    users: dict[str, float] = Field(default_factory=dict)  # of a day: spent and reserved, by user
    users_reserved: dict[str, float] = Field(default_factory=dict)  # what of that is reserved; an older scheduler: {}


class SpendAnswer(Message):
    currency: str = ""
    now: tuple[SpendBook, ...] = ()  # this hour, today, this month
    days: tuple[SpendBook, ...] = ()  # today first
    job: SpendBook | None = None  # the one that was asked for
    job_limit: float | None = None  # what all tasks of one job may cost; None: as much as there is
    user_limit: float | None = None  # what one user's tasks may cost in a day


class AskSpend(Request[SpendAnswer]):
    """What serverless functions have cost, and may."""

    CMD = "spend"
    ANSWER = SpendAnswer
    days: int = Field(default=0, ge=0, le=400)
    job: str = Field(default="", max_length=128)


class FunctionsAnswer(Message):
    functions: tuple[FunctionRecord, ...] = ()
    currency: str = ""


class AskFunctions(Request[FunctionsAnswer]):
    """The functions that nodes call, and how each is."""

    CMD = "functions"
    ANSWER = FunctionsAnswer


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
    after: str = Field(default="", max_length=128)  # a job: only those that were submitted before it


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


class ActsAnswer(Message):
    acts: tuple[ActRecord, ...] = ()


class Acts(Request[ActsAnswer]):
    """Who did what to the cluster and why, newest first."""

    CMD = "acts"
    ANSWER = ActsAnswer
    before: str = Field(default="", pattern=r"^([0-9]{1,19}-[0-9]{1,19})?$")  # only what is older than this act
    actor: str = Field(default="", max_length=128)
    limit: int = Field(default=100, ge=1, le=1000)


class ThumbnailAnswer(Message):
    parts: dict[str, ThumbnailPart] = Field(default_factory=dict)  # "before", "mask", "after", as far as asked for
    node: str = ""  # whose agent made them


class AskThumbnail(Request[ThumbnailAnswer]):
    """Small pictures of a task, as a node that reaches its files sees them now. Nothing is kept of them anywhere."""

    CMD = "thumbnail"
    ANSWER = ThumbnailAnswer
    IS_KEPT = False
    task_id: str
    parts: tuple[Literal["before", "mask", "after", "overlay"], ...] = ("before", "mask", "after")
    webp: bool = False  # as WebP; else JPEG, and masks as PNG
    longest: int = Field(default=320, ge=16, le=MOST_THUMBNAIL_PX)  # pixels of the longer side
    box: tuple[float, float, float, float] = (0.0, 0.0, 1.0, 1.0)  # which part of the pictures, in shares


class StoreAnswer(Message):
    """``url`` and ``mark``: where blobs are; whoever finds the mark there needs nobody in between."""

    url: str
    mark: str = ""
    http: str = ""  # "host:port" of the scheduler's HTTP, which hands them out to everybody else; "": it has none
    same_host: bool = False  # that is at the host at which the control socket was reached
    loopback: bool = False  # only processes of its own host reach it: then all of them see the same files
    web: bool = False  # whether tasks may name public web addresses
    urls: tuple[str, ...] = ()  # beginnings of what else they may name

    def reached_at(self, endpoint: str) -> StoreAnswer:
        """This, as it is to be read by who reached the scheduler at ``endpoint`` ("tcp://host:port")."""
        if not (self.same_host and self.http):
            return self
        host = endpoint.removeprefix("tcp://").rpartition(":")[0]
        return self.model_copy(update={"http": f"{host}:{self.http.rpartition(':')[2]}", "same_host": False})


class AskStore(Request[StoreAnswer]):
    """Where the cluster's blobs are, and what tasks may name beside them and paths."""

    CMD = "store"
    ANSWER = StoreAnswer
    IS_KEPT = False


class SeesAnswer(Message):
    unseen: dict[str, str] = Field(default_factory=dict)  # path -> a node that does not see it, or has not said so
    nodes: int = 0  # how many live


class AskSees(Request[SeesAnswer]):
    """Whether all live nodes see these files, as whoever asks sees them."""

    CMD = "sees"
    ANSWER = SeesAnswer
    IS_KEPT = False
    files: tuple[SeenFile, ...] = Field(max_length=MOST_SEEN)


class LogAnswer(Message):
    node: str
    boot: str  # of the agent that told it: another one begins its numbers anew
    lines: tuple[LogLine, ...] = ()
    first: int = 0  # the number of the oldest line that the agent still has
    last: int = -1  # up to which it has looked: ask for what comes after that


class TaskLogAnswer(Message):
    task: str
    attempt: int
    node: str
    lines: tuple[LogLine, ...] = ()  # the number of each is the byte of the log at which it begins
    next: int = 0  # begin there to read what follows
    size: int = 0  # bytes that it has so far
    kept: int = 0  # and of them still are there
    is_open: bool = False  # the attempt still runs: more may come
    is_there: bool = True  # false: nothing is known of it any more, or nothing was written


class ReadTaskLog(Request[TaskLogAnswer]):
    """What was written during an attempt of a task, as far as the agent that ran it has kept it."""

    CMD = "read_task_log"
    ANSWER = TaskLogAnswer
    IS_KEPT = False
    task: str = Field(min_length=1, max_length=64)
    attempt: int = Field(default=0, ge=0)  # 0: the newest one
    begin: int = Field(default=-1, ge=-1)  # at that byte of it, the oldest line first; -1: the newest ones
    limit: int = Field(default=200, ge=1, le=MOST_LOG_LINES)


class ReadLog(Request[LogAnswer]):
    """What the agent of a node has logged of late, and what its runners wrote, as far as the agent still has it."""

    CMD = "read_log"
    ANSWER = LogAnswer
    IS_KEPT = False
    node: str = Field(min_length=1, max_length=64)
    after: int = Field(default=-1, ge=-1)  # only lines with greater numbers, the oldest first; -1: the newest
    limit: int = Field(default=200, ge=1, le=MOST_LOG_LINES)
    task: str = Field(default="", max_length=64)  # only lines of this task, or that name it


class ReportAnswer(Message):
    """``rows``: by what was asked; ``days``: each of the days asked for; ``total``: all of it."""

    by: By
    currency: str = ""
    rows: tuple[UsageRow, ...] = ()
    days: tuple[UsageRow, ...] = ()
    total: UsageRow = UsageRow(name="")
    others: dict[str, tuple[UsageRow, ...]] = Field(default_factory=dict)  # by the other dimensions, where asked for


class Report(Request[ReportAnswer]):
    """What was used since then ("30d", "4w", "2026-11-01"), by user, job, node, model or day; ``whole``: by each."""

    CMD = "report"
    ANSWER = ReportAnswer
    since: str = Field(default="30d", max_length=20)
    by: By = "user"
    whole: bool = False

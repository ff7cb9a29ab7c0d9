"""The settings of LCQ: one model of every key, and the layers it is read from."""

from __future__ import annotations

import difflib
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlencode

import platformdirs
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PrivateAttr,
    ValidationError,
    field_validator,
    model_validator,
)

from lcq.alert_config import AlertingConfig as AlertingConfig
from lcq.alert_config import AlertReceiver as AlertReceiver
from lcq.alert_config import AlertRule as AlertRule
from lcq.alert_config import refuse_contradictions
from lcq.environment import AsText, deaf, told_by
from lcq.errors import InvalidConfig
from lcq.labels import Labels
from lcq.lang import as_language
from lcq.log import LogFormat as LogFormat
from lcq.log import LogLevel as LogLevel
from lcq.models import DEFAULT_QUEUES, QueueConfig, TaskPriority, TaskType
from lcq.runner_config import DEFAULT_SOURCES as DEFAULT_SOURCES
from lcq.runner_config import FunctionConfig as FunctionConfig
from lcq.runner_config import IopaintConfig as IopaintConfig
from lcq.runner_config import LimitsConfig as LimitsConfig
from lcq.runner_config import ModelsConfig as ModelsConfig
from lcq.runner_config import ModelSource as ModelSource
from lcq.runner_config import Section, Sha256
from lcq.settings.layers import Layers, config_files, merged, read_layers, read_text

FunctionName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,31}$")]


class ZeroMqConfig(Section):
    """Where sockets are bound, and where they are found."""

    host: str = "localhost"
    """The host that agents and clients connect to. Schedulers bind it too, unless ``bind`` says otherwise."""
    bind: str = "127.0.0.1"
    """The address a scheduler binds. Another one than loopback takes keys: ``lcq keys init`` (docs/enrolment.md)."""
    curve: Literal["auto", "always"] = "auto"
    """Where keys are asked for and shown, and all is encrypted (CURVE): off loopback, or "always"."""
    server_key_file: Path | None = None
    """The file with the schedulers' key, the same for all of a cluster; default: keys/server.json in data_dir."""
    key_file: Path | None = None
    """The file with the key of who connects; default, in data_dir: keys/client.json, of an agent
    keys/node-NAME.json."""
    trusted_network: bool = False
    """Allow other addresses than loopback without keys, where nothing is encrypted or authenticated: whoever reaches
    the ports may submit and steer. Only for a network (or a VPN) whose every member you trust. Where there are keys
    they count all the same."""
    base_port: int = Field(default=5555, ge=0, le=65535)
    """The first PUSH port; queue n is at base_port + its port_offset. 0: free ports are chosen."""
    control_port: int = Field(default=5571, ge=0, le=65535)
    """The ROUTER's port. 0: a free one is chosen."""


class RedisConfig(Section):
    """The state store. With neither url nor host, or with enabled: false, a private server is started."""

    enabled: bool = True
    """false: whatever else is said here, start a private server in data_dir."""
    host: str | None = None
    """The host of the server."""
    port: int = Field(default=6379, ge=1, le=65535)
    """Its port."""
    url: str | None = None
    """redis://, rediss:// (TLS) or unix:// URL, with user:password@ where the server asks for it; or
    redis+sentinel://host-1:26379,host-2:26379/mymaster/0. Wins over host and port."""
    ca_file: Path | None = None
    """For rediss://: the authority that signed the server's certificate; default: those the system trusts."""
    cert_file: Path | None = None
    """For a server that asks for one: our certificate."""
    key_file: Path | None = None
    """The key of that certificate."""
    namespace: str = Field(default="{lcq}", pattern=r"^\{[A-Za-z0-9_.-]+\}$")
    """The hash tag that every key begins with, so that clusters can share a server."""
    unsafe: bool = False
    """Accept a server that may lose data (no AOF, or an eviction policy)."""
    trusted_network: bool = False
    """Accept a server at another address than loopback that asks nobody for a password or a certificate: whoever
    reaches it may read and change everything. Only for a network (or a VPN) whose every member you trust."""
    durability: Literal["everysec", "fsync"] = "everysec"
    """When a submit or a result counts as accepted. "everysec": when Redis has written it to its log: what no
    death of a process can take, and a loss of power only for about the last second. "fsync": when its log is on the
    disk."""

    @property
    def is_private(self) -> bool:
        return not self.enabled or (self.url is None and self.host is None)

    @property
    def address(self) -> str:
        """The URL of the configured server, with its files for TLS. Only for a server that is not private."""
        url = self.url or f"redis://{self.host}:{self.port}/0"
        files = {"ssl_ca_certs": self.ca_file, "ssl_certfile": self.cert_file, "ssl_keyfile": self.key_file}
        named = urlencode({option: str(file.absolute()) for option, file in files.items() if file is not None})
        return url + ("&" if "?" in url else "?") * bool(named) + named


def _listed(value: Any) -> Any:
    return tuple(one.strip() for one in value.split(",") if one.strip()) if isinstance(value, str) else value


class DiscoveryConfig(Section):
    """How schedulers are found on the LAN by mDNS (docs/discovery.md). Only where no address is configured."""

    enabled: bool = True
    """Look for schedulers, and as a scheduler announce this one, where it is bound to more than loopback."""
    cluster: str | None = Field(default=None, pattern=r"^[A-Za-z0-9][A-Za-z0-9._@+-]{0,63}$")
    """A scheduler announces this name (default: lcq); agents and clients take only the cluster of this name or id."""
    interfaces: Annotated[tuple[str, ...], AsText, BeforeValidator(_listed)] = ()
    """Names (eth0) or addresses of the interfaces to use; default: all that are up, but loopback."""
    key: str | None = Field(default=None, repr=False)
    """A secret of the cluster, at least 16 characters: schedulers sign by it, and whoever has it believes nothing
    that is not signed so."""
    key_file: Path | None = None
    """The file that has it, instead."""

    @property
    def has_key(self) -> bool:
        return self.key is not None or self.key_file is not None


class LeaseConfig(Section):
    """How silence is judged."""

    beat_s: float = Field(default=3.0, gt=0, le=60)
    """How often an agent beats."""
    lease_s: float = Field(default=15.0, gt=0, le=3600)
    """How long an attempt stays with a silent node."""
    lost_after_s: float = Field(default=1.0, ge=0, le=60)
    """How long after its lifeline closed a process may come back before its attempts run elsewhere."""

    @model_validator(mode="after")
    def _several_beats_a_lease(self) -> LeaseConfig:
        if self.lease_s < 2 * self.beat_s:
            raise ValueError(f"lease_s must be at least twice beat_s, found {self.lease_s} and {self.beat_s}")
        return self


class RetryConfig(Section):
    """Back-off: full jitter over base_s * 2^retries, at most max_s. And the budget of all retries together: what is
    over it waits longer, and loses no retry by that."""

    base_s: float = Field(default=1.0, ge=0, le=3600)
    """The pause before retry n is drawn from 0 to base_s * 2^n."""
    max_s: float = Field(default=60.0, ge=0, le=24 * 3600)
    """What such a pause is at most."""
    per_minute: float = Field(default=600.0, ge=1)
    """Retries in the whole cluster that are always within the budget."""
    per_cause_per_minute: float = Field(default=120.0, ge=1)
    """The same for those of one queue that failed with one code."""
    share: float = Field(default=0.2, ge=0, le=10)
    """More retries for each task that was completed in the last minute (in that queue)."""
    longest_wait_s: float = Field(default=600.0, gt=0, le=24 * 3600)
    """What a retry over the budget waits at most."""


class QuarantineConfig(Section):
    """A node that fails where others succeed takes nothing until a probe has shown that it works again."""

    enabled: bool = True
    """Whether nodes are put into quarantine by themselves; operators may do so always."""
    tasks: int = Field(default=5, ge=2, le=100)
    """So many tasks a node may have failed of late, more than its successes make up for."""
    share: float = Field(default=0.34, gt=0, le=1)
    """The share of the nodes that may be in quarantine at once; one always may."""
    pause_s: float = Field(default=60.0, gt=0, le=24 * 3600)
    """How long after the first quarantine it is probed. Each further one before its probation is over doubles it."""
    longest_pause_s: float = Field(default=3600.0, gt=0, le=7 * 24 * 3600)
    """What that pause is at most."""
    probation: int = Field(default=5, ge=1, le=1000)
    """Tasks that a forgiven node has to complete, one at a time. Two that fail meanwhile put it back."""
    half_life_s: float = Field(default=300.0, gt=0, le=24 * 3600)
    """After so long a failure counts half."""
    slow_times: float | None = Field(default=3.0, gt=1, le=1000)
    """A device is slow whose attempts take so many times as long as what was learned of them predicts, while others
    do not: it is given less, and where it stays slow it is quarantined. null: however slow one is, it stays."""
    slow_s: float = Field(default=60.0, ge=0, le=24 * 3600)
    """For how long that must be so, before it is given less; and again, before it is quarantined."""


Weight = Annotated[float, Field(gt=0, le=1000)]


class SharesConfig(Section):
    """How users share a queue, by predicted seconds of work: twice the weight, twice the work done meanwhile.

    A weight counts for what is submitted while it holds."""

    default: Weight = 1.0
    """The weight of every user that is not named."""
    users: dict[str, Weight] = Field(default_factory=dict)
    """The weights of some users, such as {ann: 2.0}."""

    def of(self, user: str) -> float:
        return self.users.get(user, self.default)


class UserQuota(Section):
    """What one user may. What is null here is as it is for every user."""

    in_flight: int | None = Field(default=None, ge=1)
    """How many of its tasks may run at a time."""
    per_minute: float | None = Field(default=None, gt=0)
    """How many tasks it may submit a minute."""


class QuotasConfig(Section):
    """Limits to what is taken in and run. All off by default."""

    queued: int | None = Field(default=None, ge=1)
    """How many tasks may wait in one queue; then it is full, and refuses more. null: as many as come."""
    queues: dict[str, Annotated[int, Field(ge=1)]] = Field(default_factory=dict)
    """Other numbers for some queues, such as {gpu-high: 500}."""
    displace: bool = False
    """Let an urgent task into a full queue: the youngest task of the lowest band that waits there is cancelled."""
    in_flight: int | None = Field(default=None, ge=1)
    """How many tasks of one user may run at a time. More of them wait in their places while others pass."""
    per_minute: float | None = Field(default=None, gt=0)
    """How many tasks one user may submit a minute. A minute's worth may come at once."""
    users: dict[str, UserQuota] = Field(default_factory=dict)
    """Other limits for some users, such as {ann: {in_flight: 8, per_minute: 600}}."""

    def most_queued(self, queue: str) -> int:
        """0: no limit."""
        return self.queues.get(queue, self.queued or 0)

    def most_per_minute(self, user: str) -> float:
        """0: no limit."""
        own = self.users.get(user)
        return (own.per_minute if own else None) or self.per_minute or 0.0

    def may_run(self, user: str) -> int | None:
        """How many tasks of ``user`` may run at a time; None: no limit."""
        own = self.users.get(user)
        return (own.in_flight if own else None) or self.in_flight

    @property
    def most_in_flight(self) -> dict[str, Any] | None:
        """As the scripts read it; None: no limit for anybody."""
        users = {user: own.in_flight for user, own in self.users.items() if own.in_flight is not None}
        if self.in_flight is None and not users:
            return None
        return {"users": users} | ({} if self.in_flight is None else {"default": self.in_flight})


class BudgetConfig(Section):
    """What serverless functions may cost, in a currency of yours. A call's worst price is reserved before it, by one
    script: several schedulers cannot spend more together either. null: no limit."""

    hour: float | None = Field(default=None, ge=0)
    """In each hour of the clock (UTC)."""
    day: float | None = Field(default=None, ge=0)
    """In each day (UTC)."""
    month: float | None = Field(default=None, ge=0)
    """In each calendar month (UTC)."""
    job: float | None = Field(default=None, ge=0)
    """For all tasks of one job together."""
    user_day: float | None = Field(default=None, ge=0)
    """For one user's tasks in a day."""
    currency: str = Field(default="", max_length=8)
    """What it is called where it is shown, and prices of functions are in; "": report.currency, or else USD."""


class ServerlessConfig(Section):
    """When work goes to functions (agent.functions): only tasks that may (lcq submit --exportable), only where it is
    done sooner than here, only within the budget."""

    overflow_after_s: float = Field(default=60.0, ge=0)
    """A task stays where it is done within so long by devices of the house; one with a deadline, where that is kept."""
    budget: BudgetConfig = BudgetConfig()


class RetentionConfig(Section):
    """How long records of finished tasks are kept. A change counts for those that finish after it."""

    completed_s: float = Field(default=24 * 3600.0, gt=0)
    """Records of completed and cancelled tasks, in seconds: a day."""
    failed_s: float = Field(default=7 * 24 * 3600.0, gt=0)
    """Records of failed ones: a week."""
    events: int = Field(default=100_000, ge=1000)
    """How many events the stream keeps, about."""


class ArchiveConfig(Section):
    """Where tasks go before they are forgotten (docs/archive.md). Off by default."""

    folder: Path | None = None
    """Schedulers write a file a day there; null: what is forgotten is gone."""
    format: Literal["jsonl", "parquet"] = "jsonl"
    """What a file is when its day is over: lines of JSON, compressed; or Parquet (pip install 'lcq[parquet]')."""
    hold_hours: float = Field(default=72.0, ge=0, le=24 * 366)
    """While the archive cannot be written, tasks stay in Redis for so much longer; then they go without."""


class BackupConfig(Section):
    """Backups that schedulers make by themselves (docs/backup.md). Off by default."""

    every_hours: float | None = Field(default=None, ge=0.1, le=24 * 366)
    """How often; null: never."""
    keep: int = Field(default=7, ge=1, le=10_000)
    """So many of them are kept; the oldest go."""
    folder: Path | None = None
    """Where they go; null: the folder "backups" in the data folder."""
    blobs: bool = False
    """Whether the uploads and results that tasks name are in them."""


class ScheduleConfig(Section):
    """Images that are submitted again and again by themselves (docs/schedules.md)."""

    cron: str = Field(min_length=9, max_length=200)
    """When: minute, hour, day, month, weekday, such as "30 2 * * mon-fri"."""
    timezone: str = "UTC"
    """By whose clocks, such as Europe/Berlin."""
    inputs: tuple[Path, ...] = Field(min_length=1)
    """Images, and folders of them, as schedulers and nodes see them."""
    mask: Path | None = None
    """One mask for all, or a folder of masks; null: NAME_mask.EXT beside each image."""
    out: Path | None = None
    """Where results go; null: the folder "cleaned" beside each image."""
    again: bool = False
    """Also those whose results are there, and newer than image and mask."""
    model: str = ""
    """The model; "": as lcq submit without --model."""
    settings: dict[str, Any] = Field(default_factory=dict)
    """What else the model is to know, as --set gives it."""
    task_type: TaskType = TaskType.INPAINT
    """What is to be done."""
    queue: str = ""
    """"": the router chooses."""
    priority: TaskPriority = TaskPriority.NORMAL
    """Before whom in the queue."""
    user: str = Field(default="schedule", min_length=1, max_length=128)
    """For whom."""
    missed: Literal["once", "skip"] = "once"
    """When no scheduler ran at the time: run it once, late; or leave it out, where it is over late_minutes."""
    late_minutes: float = Field(default=60.0, ge=0, le=366 * 24 * 60)
    """For "skip": how late it may be."""

    @model_validator(mode="after")
    def _is_a_time(self) -> ScheduleConfig:
        from lcq.timetable import Cron

        Cron(self.cron, self.timezone).check()
        for path in (*self.inputs, *filter(None, (self.mask, self.out))):
            if not path.is_absolute():
                raise ValueError(f"paths must be absolute, found {str(path)!r}")
        return self


class WindowConfig(Section):
    """When some nodes take work. Outside of it they are drained."""

    nodes: tuple[str, ...] = ()
    """Their names, or patterns of them: "desk-*"."""
    labels: Labels = Field(default_factory=dict)
    """Or all that have these labels, such as {room: studio}."""
    open: str
    """From when to when, by the clocks on the wall: "20:00-07:00"."""
    days: str = ""
    """On which weekdays it opens: "mon-fri", "sat,sun"; "": all."""
    timezone: str = "UTC"
    """Whose clocks, such as Europe/Berlin."""
    stop: Literal["finish", "now"] = "finish"
    """What becomes of what runs when it closes: it goes on, or is handed back at once, at no cost."""

    @model_validator(mode="after")
    def _is_a_window(self) -> WindowConfig:
        from lcq.timetable import Window

        Window(self.open, self.days, self.timezone).check()
        if not self.nodes and not self.labels:
            raise ValueError("says of no nodes: nodes or labels is needed")
        return self


Named = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
Price = Annotated[float, Field(ge=0, le=1_000_000)]


class PricesConfig(Section):
    """What an hour costs, for reports. Of a node: shared by all its slots; of a device: by its own."""

    nodes: dict[str, Price] = Field(default_factory=dict)
    """By a node's name, such as {gpu-1: 2.40}: the whole host."""
    labels: dict[str, Price] = Field(default_factory=dict)
    """By a label of nodes that have no price by name, such as {"zone=cloud": 3.10}."""
    gpus: dict[str, Price] = Field(default_factory=dict)
    """By a part of a GPU's name, such as {H200: 3.50}: each GPU of a node that has no price of its own."""
    gpu: Price = 0.0
    """Any other GPU."""
    cpu: Price = 0.0
    """The CPU of a host that has no price of its own."""

    @field_validator("labels")
    @classmethod
    def _are_labels(cls, labels: dict[str, float]) -> dict[str, float]:
        for label in labels:
            if "=" not in label:
                raise ValueError(f"must be NAME=VALUE, such as zone=cloud; found {label!r}")
        return labels


class ReportConfig(Section):
    """What ``lcq report`` tells of work that was done (docs/report.md)."""

    keep_days: float = Field(default=400.0, ge=1, le=3660)
    """For so many days each day's counters are kept; they are of all tasks, also those that were forgotten."""
    currency: str = Field(default="", max_length=8)
    """What costs are told in, such as EUR; "": where functions were paid, what their budget is in."""
    prices: PricesConfig = PricesConfig()

    @property
    def terms(self) -> str:
        """The prices as scripts read them."""
        labels = [[*label.split("=", 1), price] for label, price in self.prices.labels.items()]
        gpus = [[part, price] for part, price in self.prices.gpus.items()]
        told = {"nodes": self.prices.nodes, "labels": labels, "gpus": gpus}
        return json.dumps(told | {"gpu": self.prices.gpu, "cpu": self.prices.cpu})


class DeviceConfig(Section):
    """What the owner of a host wants of one of its devices."""

    enabled: bool = True
    """false: leave the device alone."""
    slots: int | None = Field(default=None, ge=1, le=1024)
    """Attempts at a time; default: by its memory, the cores, and the models."""
    queues: tuple[str, ...] | None = None
    """Serve exactly these queues, whatever they ask for; default: all that it is good enough for."""


class RecycleConfig(Section):
    """When a runner is replaced between two attempts, so that what leaks in it does no harm."""

    tasks: int | None = Field(default=None, ge=1)
    """After so many attempts; default: never for that."""
    grown_mib: int | None = Field(default=2048, ge=1)
    """When it holds so much more memory than it once did with the same models loaded; null: never for that."""


class BusyElsewhereConfig(Section):
    """For workstations: nothing new is begun on a device while programs that are not LCQ's use it. Off by default."""

    gpu_percent: float | None = Field(default=None, gt=0, le=100)
    """A GPU of whose time they use so much; null: whatever they use is no matter."""
    cpu_percent: float | None = Field(default=None, gt=0, le=100)
    """The same for the CPU, of all cores together."""
    after_s: float = Field(default=10.0, ge=0, le=3600)
    """How long it must be so."""
    quiet_s: float = Field(default=30.0, ge=0, le=24 * 3600)
    """Work is begun again when they have used half of that, or less, for so long."""
    release: bool = True
    """Free what loaded models hold there, for those programs."""


class HeatConfig(Section):
    """A GPU that is too hot begins nothing new until it has cooled down."""

    enabled: bool = True
    """Whether heat is looked at."""
    limit_c: float | None = Field(default=None, gt=0, le=150)
    """Too hot; null: the temperature at which the GPU slows itself down, as its driver tells it."""
    cooler_c: float = Field(default=10.0, ge=0, le=100)
    """So much cooler it must be to work again."""
    readings: int = Field(default=4, ge=1, le=1000)
    """So many in a row must agree, both ways; there is about one a second."""


class DiskConfig(Section):
    """Nothing new is begun where a disk has less room than this: the disk of the data folder, of the models, and of
    each folder that results go to."""

    floor_mib: int = Field(default=64, ge=0)
    """So much room, in MiB."""
    floor_percent: float = Field(default=0.0, ge=0, lt=100)
    """Of the whole disk; where this is more than floor_mib, it counts."""


class TaskLogsConfig(Section):
    """What runners write during attempts, kept in files under data_dir of their host (docs/logs.md)."""

    attempt_kib: int = Field(default=1024, ge=0, le=2**20)
    """So much of each attempt, in KiB: half of it from its beginning, the rest from its end. 0: nothing is kept."""
    total_mib: int = Field(default=256, ge=1)
    """So much of all attempts of a node together, in MiB: the oldest go first."""
    keep_s: float = Field(default=7 * 24 * 3600.0, gt=0)
    """So long after the last word of an attempt, in seconds: a week."""


class RunnerLimits(Section):
    """What one process of a runner may take of its host; null: what the agent itself may."""

    memory_mib: int | None = Field(default=None, ge=256)
    """Address space. CUDA reserves far more than it uses: only for runners on a CPU."""
    files: int | None = Field(default=None, ge=64)
    """Open files."""
    processes: int | None = Field(default=None, ge=16)
    """Processes and threads of its user in all, others of that user counted: for a user that only runners have."""
    file_mib: int | None = Field(default=None, ge=16)
    """How large a file it writes may become."""
    core_mib: int | None = Field(default=0, ge=0)
    """A core dump, which would have pictures in it."""


class RunnerConfig(Section):
    """What runners, in which strangers' pictures are read, are kept from (docs/security.md). They never get more rights
    than they were started with."""

    user: str | None = None
    """Their own user (a name, or 1000:1000), where the agent is root; null: the agent's."""
    network: Literal["auto", "off", "on"] = "auto"
    """"off": a runner has no network. "auto": the same, but where the kernel does not let this agent do that, or where
    an IOPaint neighbour is configured. "on": for engines of others that need one."""
    environment: tuple[str, ...] = ()
    """Further variables of the agent's environment that they get, such as ["HTTPS_PROXY", "MY_ENGINE_*"]; the usual
    ones of loaders and compute libraries they have anyway."""
    limits: RunnerLimits = RunnerLimits()
    strict: bool = True
    """A runner that cannot be kept from what is said here does not start. false: it does, and says so."""


class AgentConfig(Section):
    """One compute host."""

    name: str | None = None
    """The node's name; default: the host's name."""
    slots: int | None = Field(default=None, ge=1, le=1024)
    """Attempts at a time on the CPU; default: half the cores, at least one."""
    models: tuple[str, ...] | None = None
    """Offer only these models; default: all that its engines have."""
    labels: Labels = Field(default_factory=dict)
    """What tasks may require of this node, such as {"rack": "3"}. ``lcq label`` goes over it."""
    drain_s: float = Field(default=60.0, ge=0)
    """How long SIGTERM waits for running attempts before it hands them back."""
    no_progress_s: float = Field(default=300.0, gt=0)
    """A runner that reports no progress for so long is ended."""
    recycle: RecycleConfig = RecycleConfig()
    poll_s: float = Field(default=3.0, gt=0, le=3600)
    """How often an idle agent asks for work although no bell rang (jittered): the floor, not the way."""
    devices: dict[str, DeviceConfig] = Field(default_factory=dict)
    """Wishes a device, by "cpu", "gpu" (every GPU), its number in nvidia-smi ("gpu0"), or its UUID (or the
    beginning of that); the most exact name wins."""
    functions: dict[FunctionName, FunctionConfig] = Field(default_factory=dict)
    """Serverless functions that this node calls, by a name of yours: each is a device of the kind serverless."""
    self_test: bool = True
    """Inpaint a tiny picture with each engine on each device before saying hello; what fails is left out."""
    model_memory_mib: int | None = Field(default=None, ge=0)
    """Memory that the loaded models of one runner may keep; the one used longest ago goes first. Default: a
    share of what the device has."""
    busy_elsewhere: BusyElsewhereConfig = BusyElsewhereConfig()
    heat: HeatConfig = HeatConfig()
    disk: DiskConfig = DiskConfig()
    task_logs: TaskLogsConfig = TaskLogsConfig()
    runner: RunnerConfig = RunnerConfig()
    thumbnails: bool = True
    """Make small pictures of tasks when a console asks that cannot reach their files. Nothing is kept of them."""
    clock_skew_s: float = Field(default=5.0, gt=0)
    """Warn where the wall clock of this host is off by more from the cluster's. Nothing but a warning: no deadline
    of the cluster goes by it."""
    metrics_port: int | None = Field(default=None, ge=0, le=65535)
    """The port at which Prometheus reads what this agent measures (docs/metrics.md). 0: a free one, which the log
    tells; null: none."""
    metrics_bind: str = "127.0.0.1"
    """The address of that port. Whoever reaches it may read, and nothing else."""

    @field_validator("functions")
    @classmethod
    def _no_name_of_hardware(cls, functions: dict[str, FunctionConfig]) -> dict[str, FunctionConfig]:
        if taken := [name for name in functions if re.match(r"^(cpu|gpu\d*)$", name)]:
            raise ValueError(f"a function cannot be called {taken[0]}: that is a device of the host")
        return functions

    @field_validator("labels", mode="before")
    @classmethod
    def _as_text(cls, given: Any) -> Any:
        """In a file, 3 and "3" are the same label; a list may say rack=3."""
        if isinstance(given, list | tuple) and all(isinstance(one, str) and "=" in one for one in given):
            given = dict(one.split("=", 1) for one in given)
        if not isinstance(given, Mapping):
            return given
        return {key: str(value) if type(value) in (int, float) else value for key, value in given.items()}


class BlobsConfig(DiskConfig):
    """Bytes that a cluster keeps by their SHA-256: what clients have uploaded, and results that have no other place.

    The floor is that of the disk on which a scheduler keeps them, or what has come of uploads.
    """

    floor_mib: int = Field(default=256, ge=0)
    limit_mib: int = Field(default=50 * 1024, ge=1)
    """So much they may be in all; then uploads are refused."""
    keep_hours: float = Field(default=24.0, ge=1, le=24 * 365)
    """What no task needs goes when nobody has used it for so long. A task needs its input until it is forgotten
    (``retention``), and so does its result."""


class StorageConfig(Section):
    """Which files tasks may name, and where the cluster keeps bytes."""

    roots: tuple[Path, ...] = ()
    """Pictures, masks and results must lie inside one of these folders, links resolved. None: wherever the agent's
    user may read and write. A scheduler refuses what lies outside by its name, an agent whatever leads out."""
    url: str = ""
    """Where blobs are: file:///mnt/share/lcq, s3://bucket/folder, gs://… (what fsspec knows; of s3 and gs the extras
    ``lcq[s3]`` and ``lcq[gs]``). "": a folder beside the state. Whoever can reach it (agents and clients are told)
    does so; all others go through the scheduler's HTTP."""
    options: dict[str, Any] = Field(default_factory=dict, repr=False)
    """How such places are reached, as fsspec's file systems take it, by scheme: {"s3": {"profile": "lcq"}}. Secrets
    are better in the files and variables that their libraries read."""
    urls: tuple[str, ...] = ()
    """Beginnings of what tasks may name there, such as "s3://studio/in". An agent goes there with its own rights."""
    web: bool = False
    """Whether tasks may name pictures at http(s):// addresses. Only public ones are ever asked, under ``limits``."""
    blobs: BlobsConfig = BlobsConfig()
    http: str = ""
    """The scheduler's HTTP, such as http://head:8081; "": at scheduler_host and scheduler_port."""
    token: str = Field(default="", repr=False)
    """What agents and clients show there."""
    cache_mib: int = Field(default=1024, ge=0)
    """Of blobs, an agent keeps so much for the next task: the mask of a thousand pictures is fetched once."""

    @field_validator("roots")
    @classmethod
    def _absolute(cls, roots: tuple[Path, ...]) -> tuple[Path, ...]:
        for root in roots:
            if not root.is_absolute():
                raise ValueError(f"must be absolute paths, found {str(root)!r}")
        return roots

    @field_validator("url", "http")
    @classmethod
    def _has_scheme(cls, url: str) -> str:
        if url and not re.match(r"^[A-Za-z][A-Za-z0-9+.-]*://", url):
            raise ValueError("must begin with a scheme, such as file:///mnt/share or s3://bucket")
        return url.rstrip("/")

    @field_validator("urls")
    @classmethod
    def _have_schemes(cls, urls: tuple[str, ...]) -> tuple[str, ...]:
        for url in urls:
            if not re.match(r"^[a-z][a-z0-9+.-]*://[^/]", url):
                raise ValueError(f"must name a scheme and a host or bucket, such as s3://studio/in; found {url!r}")
        return urls


HttpRole = Literal["viewer", "submitter", "operator"]


class HttpToken(Section):
    """Who may ask over HTTP. ``lcq token`` makes one: the token itself is kept nowhere."""

    role: HttpRole = "viewer"
    """A viewer looks; a submitter gives tasks and has its own cancelled and retried, too; an operator may all."""
    sha256: Sha256
    """Of the token."""


class HttpConfig(Section):
    """The scheduler's HTTP, at scheduler_port: /v1, the APIs of IOPaint and Lama Cleaner, /metrics (docs/http.md)."""

    enabled: bool = True
    """Whether a scheduler answers HTTP at all."""
    bind: str = "127.0.0.1"
    """The address it is bound to. Another one than loopback needs tokens."""
    tokens: dict[Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._@+-]{0,63}$")], HttpToken] = Field(
        default_factory=dict
    )
    """By the name that acts and tasks then bear. None, on loopback: whoever is on this host may all."""
    hosts: Annotated[tuple[str, ...], BeforeValidator(_listed)] = ()
    """Names, beside this host's own and addresses, by which it may be asked: what a browser sends as Host."""
    origins: Annotated[tuple[str, ...], BeforeValidator(_listed)] = ()
    """Web pages of other origins that may use it, such as ["https://tools.example"]. None: only its own pages."""
    public_url: str = ""
    """The address by which functions elsewhere reach this scheduler, such as https://lcq.studio.example: those without
    an exchange are then lent addresses there, each good for one transfer of one picture, and asynchronous ones call
    back there (docs/serverless.md). "": none are lent."""
    body_mib: int = Field(default=128, ge=1, le=64 * 1024)
    """How large one request may be."""
    body_s: float = Field(default=120.0, gt=0)
    """How long it may take to arrive."""
    uploads: int = Field(default=16, ge=1)
    """Bodies that are taken in at a time; others wait for their turn."""
    connections: int = Field(default=1000, ge=1)
    """How many may be open at a time; more are told to come again."""
    per_minute: float | None = Field(default=6000.0, gt=0)
    """Requests of one client (a token; without tokens an address); a sixth of it may come at once. null: any number."""
    answer_s: float = Field(default=600.0, gt=0)
    """How long a request that waits for its picture waits; then its task is cancelled."""
    interactive_slots: int = Field(default=1, ge=0)
    """So many slots of the cluster are kept for people who wait for a picture over the parents' APIs, and for other
    tasks of priority high and urgent: of those that can do what was asked for, but never all. 0: none."""
    interactive_s: float = Field(default=60.0, gt=0, le=24 * 3600)
    """For so long after each such request; then they do other work again."""
    model: str = ""
    """What who speaks the parents' APIs has that has chosen none, such as cv2; "": lama where a node has it."""
    web_app: str = ""
    """The parent's web app at /: a folder with its index.html, or "iopaint" or "lama_cleaner": that of the wheel
    installed here."""
    save_folder: Path | None = None
    """Where results go that its users save there; null: they save in their browsers alone."""

    @field_validator("public_url")
    @classmethod
    def _is_an_address(cls, url: str) -> str:
        if url and not re.match(r"^https?://[^/\s?#@]+(/[^\s?#]*)?$", url):
            raise ValueError("must begin with http:// or https:// and a host, and have no user, ? or #")
        return url.rstrip("/")


class TracingConfig(Section):
    """Traces of tasks by OpenTelemetry (docs/logs.md). Needs the extra: pip install 'lcq[otel]'."""

    endpoint: str | None = Field(default=None, pattern=r"^https?://")
    """Where spans go by OTLP over HTTP, such as http://collector:4318; null: where OTEL_EXPORTER_OTLP_ENDPOINT of the
    environment says, or nowhere."""
    share: float = Field(default=1.0, ge=0, le=1)
    """Of so many tasks, chosen by their ids: everywhere the same."""


class ConsoleConfig(Section):
    """How ``lcq console`` looks to this user."""

    theme: str = ""
    """Its colours: lcq-dark, lcq-light, lcq-blue and lcq-blue-light (for eyes that see red and green alike),
    lcq-ansi and lcq-ansi-light (the terminal's own sixteen), or a theme of Textual. "": what suits the terminal."""
    remember: bool = True
    """Whether colours that were chosen in the console are there again at its next start, before ``theme``."""
    record_mib: int = Field(default=200, ge=1)
    """How large a recording may become; then it ends."""
    record_hours: float = Field(default=12.0, gt=0, le=24 * 365)
    """How long it may go on."""
    keys: dict[str, str] = Field(default_factory=dict)
    """Keys of one's own: the id of a command, and its keys with spaces between them. A bad or double one is told at the
    start."""
    pictures: Literal["auto", "cells", "sixel", "kitty"] = "auto"
    """How pictures are drawn: in cells (half-blocks), or in pixels where the terminal has them and the extra
    ``pictures`` is installed. "auto" asks the terminal, but not through tmux, screen or SSH: a picture in
    pixels is a megabyte."""
    bell: bool = True
    """Ring the terminal's bell when an alert begins (docs/alerts.md) that nobody has silenced."""
    notify: Literal["off", "osc9", "osc777"] = "off"
    """Have the terminal show a notification on the desktop then, where it can: OSC 9 (iTerm2, WezTerm, kitty,
    Windows Terminal) or OSC 777 (rxvt-unicode, foot, Ghostty, VTE). tmux needs allow-passthrough."""


CONTEXT_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"


class ContextConfig(Section):
    """Another cluster that clients and consoles can look at: where it is, and with which keys. What is not set here is
    at its default, whatever the settings outside say: nothing leads to two clusters at once."""

    production: bool = False
    """Consoles start read-only there."""
    scheduler_host: str = "localhost"
    """Where its scheduler is."""
    schedulers: Annotated[tuple[str, ...], BeforeValidator(_listed)] = ()
    """Further schedulers of it, each as HOST or HOST:PORT."""
    data_dir: Path | None = None
    """For a cluster of ``lcq up`` with a data folder of its own."""
    zeromq: ZeroMqConfig = ZeroMqConfig()
    redis: RedisConfig = RedisConfig()
    discovery: DiscoveryConfig = DiscoveryConfig()
    queues: tuple[QueueConfig, ...] = DEFAULT_QUEUES


class DistributedConfig(BaseModel):
    """Every setting of a cluster. ``load()`` reads the layers; calling it takes defaults, LCQ_* and arguments.

    Environment names join sections with two underscores: ``LCQ_REDIS__HOST``.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, defer_build=True)

    enabled: bool = True
    """Whether this host takes part in a cluster at all."""
    scheduler_host: str = "localhost"
    """Where the scheduler is, for agents, clients and consoles."""
    schedulers: Annotated[tuple[str, ...], AsText, BeforeValidator(_listed)] = ()
    """Further schedulers of the same cluster, each as HOST or HOST:PORT: agents, clients and consoles ask any that
    answers. Whoever has found one learns of the others by itself; these are for when the first is away at the start."""
    scheduler_port: int = Field(default=8081, ge=0, le=65535)
    """The scheduler's HTTP port (``http``). 0: a free one is chosen."""
    data_dir: Path | None = None
    """Where a private server and spools keep their files; default: the user's data folder."""
    log_level: LogLevel = "info"
    """How much is logged."""
    log_format: LogFormat = "auto"
    """How schedulers and agents write it: "json" a JSON document a line, "pretty" for people; "auto": for people
    where stderr is a terminal, else JSON."""
    lang: Annotated[Literal["", "en", "zh"], BeforeValidator(as_language)] = ""
    """The language of the command line and the console; "": that of the locale. Logs and JSON are English always."""
    zeromq: ZeroMqConfig = ZeroMqConfig()
    redis: RedisConfig = RedisConfig()
    discovery: DiscoveryConfig = DiscoveryConfig()
    leases: LeaseConfig = LeaseConfig()
    retries: RetryConfig = RetryConfig()
    quarantine: QuarantineConfig = QuarantineConfig()
    shares: SharesConfig = SharesConfig()
    quotas: QuotasConfig = QuotasConfig()
    serverless: ServerlessConfig = ServerlessConfig()
    retention: RetentionConfig = RetentionConfig()
    report: ReportConfig = ReportConfig()
    archive: ArchiveConfig = ArchiveConfig()
    backup: BackupConfig = BackupConfig()
    schedules: dict[Named, ScheduleConfig] = Field(default_factory=dict)
    windows: dict[Named, WindowConfig] = Field(default_factory=dict)
    agent: AgentConfig = AgentConfig()
    limits: LimitsConfig = LimitsConfig()
    storage: StorageConfig = StorageConfig()
    http: HttpConfig = HttpConfig()
    models: ModelsConfig = Field(default_factory=ModelsConfig)
    iopaint: IopaintConfig = IopaintConfig()
    tracing: TracingConfig = TracingConfig()
    console: ConsoleConfig = ConsoleConfig()
    production: bool = False
    """Whether this cluster is one where a mistake is dear: consoles start read-only."""
    contexts: dict[Annotated[str, Field(pattern=CONTEXT_NAME)], ContextConfig] = Field(default_factory=dict)
    """Further clusters by name, for ``--context NAME``."""
    context: str | None = None
    """The one that is meant where nobody says; null: the settings outside of ``contexts``."""
    queues: tuple[QueueConfig, ...] = DEFAULT_QUEUES
    alerting: AlertingConfig = AlertingConfig()
    alerts: tuple[AlertRule, ...] = ()
    """Rules of what people are to be told of, beside those that LCQ ships (docs/alerts.md)."""

    _outside: DistributedConfig | None = PrivateAttr(default=None)

    def __init__(self, **given: Any) -> None:
        super().__init__(**merged(told_by(os.environ, type(self)), given))

    @model_validator(mode="after")
    def _queues_do_not_collide(self) -> DistributedConfig:
        names = [queue.name for queue in self.queues]
        offsets = [queue.port_offset for queue in self.queues]
        if not names:
            raise ValueError("queues: there must be at least one; leave the key out for the usual six")
        if len(set(names)) < len(names):
            raise ValueError(f"queues: each name once, found {names}")
        if len(set(offsets)) < len(offsets):
            raise ValueError(f"queues: each port_offset once, found {offsets}")
        unknown = [name for name in self.quotas.queues if name not in names]
        if unknown:
            raise ValueError(f"quotas.queues: no such queue: {', '.join(unknown)}; there are {', '.join(names)}")
        refuse_contradictions(self.alerts, self.alerting, tuple(names))
        paid, told = self.serverless.budget.currency, self.report.currency
        if paid and told and paid != told:
            raise ValueError(
                f"serverless.budget.currency is {paid}, and report.currency {told}: lcq report adds both; name one"
            )
        return self

    @property
    def overflow(self) -> ServerlessConfig:
        """``serverless``, with the currency that holds."""
        currency = self.serverless.budget.currency or self.report.currency or "USD"
        budget = self.serverless.budget.model_copy(update={"currency": currency})
        return self.serverless.model_copy(update={"budget": budget})

    def in_context(self, name: str) -> DistributedConfig:
        """These settings for the cluster of that context; "": for the one outside of ``contexts``.

        Raises:
            InvalidConfig: there is no such context.
        """
        outside = self._outside or self
        if not name:
            return outside
        if name not in self.contexts:
            near = difflib.get_close_matches(name, self.contexts, n=1)
            known = ", ".join(self.contexts) or "none: add one under contexts in lcq.yaml"
            raise InvalidConfig(
                f"no context {name!r}", hint=f"did you mean {near[0]!r}?" if near else f"there is {known}"
            )
        there = self.contexts[name]
        keys = ContextConfig.model_fields.keys()
        found = outside.model_copy(update={key: getattr(there, key) for key in keys} | {"context": name})
        found.__pydantic_fields_set__.difference_update(keys - there.model_fields_set)
        found._outside = outside
        return found

    @property
    def data_path(self) -> Path:
        """The data folder of this user, or the one configured."""
        return self.data_dir or Path(platformdirs.user_data_dir("lcq"))

    @property
    def models_path(self) -> Path:
        """Where weights are kept."""
        return self.models.folder or self.data_path / "models"

    @property
    def storage_path(self) -> Path:
        """Where a scheduler keeps blobs, and what has come of uploads."""
        return self.data_path / "storage"

    @property
    def has_address(self) -> bool:
        """Whether somebody has said where the scheduler is: then it is not looked for."""
        return "scheduler_host" in self.model_fields_set or bool(self.schedulers)

    @property
    def control_endpoint(self) -> str:
        """Where clients reach the scheduler's ROUTER."""
        return f"tcp://{self.scheduler_host}:{self.zeromq.control_port}"


def load(
    path: Path | None = None, *, overrides: Mapping[str, Any] | None = None, context: str | None = None
) -> DistributedConfig:
    """Read the settings: defaults, then each file, then LCQ_* of the environment, then ``overrides`` (flags).

    The files are those of ``lcq.settings.layers.config_files``: of the system, of the user, of this folder, and the one
    that is named by ``path`` or ``$LCQ_CONFIG``. ``context`` names the cluster that is meant ("": the one outside of
    ``contexts``); None: as the settings say.

    Raises:
        InvalidConfig: naming of all that is wrong the file, line and key, and the nearest known key.
    """
    return _read(path, overrides, context)[0]


def _read(
    path: Path | None, overrides: Mapping[str, Any] | None, context: str | None
) -> tuple[DistributedConfig, Layers]:
    layers = read_layers(config_files(path), DistributedConfig, environment=os.environ, flags=overrides)
    found = validated(layers)
    meant = found.context if context is None else context
    return found.model_copy(update={"context": None}).in_context(meant or ""), layers


def validated(layers: Layers) -> DistributedConfig:
    """The settings that ``layers`` make.

    Raises:
        InvalidConfig: all that is wrong with them.
    """
    wrong: ValidationError | None = None
    config: DistributedConfig | None = None
    with deaf():
        try:
            config = DistributedConfig(**layers.values)
        except ValidationError as error:
            wrong = error
        if config is not None and not layers.failed and not layers.not_json:
            return config
        if len(layers.failed) == 1 and wrong is None and not layers.not_json:
            raise layers.failed[0][1]
        from lcq.settings.problems import problems_of, refusal

        raise refusal(problems_of(wrong, layers, DistributedConfig)) from wrong


class ConfigManager:
    """Owns the settings of a process: where they were read from, and what they are now."""

    def __init__(
        self, path: Path | None = None, *, overrides: Mapping[str, Any] | None = None, context: str | None = None
    ) -> None:
        """``context``: as for ``load``.

        Raises:
            InvalidConfig: naming the file, each key that is wrong, and the nearest known key.
        """
        self._path = path
        self._overrides = overrides
        self._context = context
        self.config, self.layers = _read(path, overrides, context)
        self._were_there = {file for file, stamp in self.stamps().items() if stamp is not None}

    def stamps(self) -> dict[Path, tuple[int, int, int] | None]:
        """By file that is or may be read, what changes when it does; None while there is none."""
        return {file: _stamp(file) for file, _ in config_files(self._path)}

    def reload(self) -> DistributedConfig:
        """Read the layers again. A bad file keeps the settings that hold now, and so does one that is not whole.

        Raises:
            InvalidConfig: what is wrong with the new ones; the old ones stay.
        """
        there = {file for file, stamp in self.stamps().items() if stamp is not None}
        for file in there:
            _refuse_half_written(file)
        for file in self._were_there - there:
            raise InvalidConfig(f"{file} is gone", hint="put it back, or restart without it")
        self.config, self.layers = _read(self._path, self._overrides, self._context)
        self._were_there = there
        return self.config


def _stamp(file: Path) -> tuple[int, int, int] | None:
    try:
        status = file.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino


def _refuse_half_written(path: Path) -> None:
    """Raises:
    InvalidConfig: the file may have been read, or cut off, in the middle.
    """
    content = read_text(path).rstrip(" \t")
    if not content.strip():
        raise InvalidConfig(f"{path} is empty", hint="if that is meant, restart; else write it again")
    if not content.endswith(("\n", "}")):
        last = content.count("\n") + 1
        raise InvalidConfig(f"{path}: line {last} does not end: half-written?", hint="end the file with a line break")

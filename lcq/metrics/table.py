"""Every metric there is: its name, what it says, its labels, who tells it. docs/metrics.md is made of this."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType

FETCH_S = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
RUN_S = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0)
WAIT_S = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0, 7200.0, 14400.0)
REDIS_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
LAG_S = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
HTTP_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 600.0)


class Kind(StrEnum):
    """What Prometheus calls its type."""

    GAUGE = "gauge"
    COUNTER = "counter"
    HISTOGRAM = "histogram"


class Scope(StrEnum):
    """Who tells it, and of what. Its value is the heading in docs/metrics.md."""

    CLUSTER = "Of the whole cluster"
    SCHEDULER = "Of one scheduler"
    AGENT = "Of one agent"


@dataclass(frozen=True)
class Metric:
    """One family. ``name`` is as it is asked for: a counter's ends in ``_total``, seconds in ``_seconds``.

    ``buckets``: upper bounds of a histogram's, in its unit.
    """

    name: str
    kind: Kind
    scope: Scope
    about: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()


def _of(scope: Scope, *rows: tuple[str, Kind, str, tuple[str, ...]]) -> tuple[Metric, ...]:
    return tuple(Metric(name, kind, scope, about, labels) for name, kind, about, labels in rows)


def _timed(scope: Scope, buckets: tuple[float, ...], *rows: tuple[str, str, tuple[str, ...]]) -> tuple[Metric, ...]:
    return tuple(Metric(name, Kind.HISTOGRAM, scope, about, labels, buckets) for name, about, labels in rows)


_G, _C = Kind.GAUGE, Kind.COUNTER
_DEVICE = ("node", "device")

METRICS: tuple[Metric, ...] = (
    *_of(
        Scope.CLUSTER,
        ("lcq_tasks", _G, "Tasks that are kept, by status.", ("status",)),
        ("lcq_tasks_submitted_total", _C, "Tasks taken in.", ()),
        ("lcq_tasks_completed_total", _C, "Tasks whose result was committed.", ()),
        ("lcq_tasks_failed_total", _C, "Tasks that failed for good.", ()),
        ("lcq_tasks_cancelled_total", _C, "Tasks that were cancelled, by people or because they were displaced.", ()),
        ("lcq_tasks_displaced_total", _C, "Tasks cancelled to make room for an urgent one in a full queue.", ()),
        ("lcq_attempts_claimed_total", _C, "Attempts granted to nodes.", ()),
        ("lcq_attempts_retried_total", _C, "Attempts that ended without a result and are tried again.", ()),
        ("lcq_attempts_eased_total", _C, "Attempts out of memory that go on with less, or elsewhere.", ()),
        ("lcq_leases_lost_total", _C, "Leases lost: their node fell silent, died, or was started anew.", ()),
        ("lcq_results_fenced_total", _C, "Outcomes that were refused: another attempt, or an operator, was first.", ()),
        ("lcq_results_late_total", _C, "Late results of older attempts that counted all the same.", ()),
        ("lcq_records_damaged_total", _C, "Records in Redis that were damaged, and set aside.", ()),
        ("lcq_clock_set_total", _C, "How often Redis's clock was set, and all deadlines moved along.", ()),
        ("lcq_queue_tasks", _G, "Tasks of a queue, by status.", ("queue", "status")),
        ("lcq_queue_oldest_seconds", _G, "How long the task that waits longest in it has been queued; 0: none waits.",
         ("queue",)),
        ("lcq_queue_backlog_seconds", _G, "Predicted work that waits in it, in seconds of one slot.", ("queue",)),
        ("lcq_functions_spent", _G, "What functions have cost this hour, day or month (UTC), in the budget's currency.",
         ("span",)),
        ("lcq_functions_reserved", _G, "What those calls that run now may cost at most, by the span they count for.",
         ("span",)),
        ("lcq_functions_budget", _G, "What functions may cost in it; left out where there is no limit.", ("span",)),
        ("lcq_queue_paused", _G, "1: an operator has paused it.", ("queue",)),
        ("lcq_queue_nodes", _G, "Live nodes that serve it.", ("queue",)),
        ("lcq_nodes", _G, "Nodes by status.", ("status",)),
        ("lcq_slots", _G, "Slots of all live nodes: busy or free.", ("state",)),
        ("lcq_schedulers", _G, "Schedulers that say that they live.", ()),
        ("lcq_alerts", _G, "Alerts of LCQ's own rules (docs/alerts.md) that are firing.", ("severity", "silenced")),
        ("lcq_node_up", _G, "0: the node is offline, 1: it is anything else.", ("node",)),
        ("lcq_node_takes_work", _G, "1: it is online or suspect; 0: it takes nothing new.", ("node",)),
        ("lcq_node_seen_seconds", _G, "How long ago it was heard last.", ("node",)),
        ("lcq_node_slots", _G, "Its slots: busy or free.", ("node", "state")),
        ("lcq_node_completed_total", _C, "Attempts completed there.", ("node",)),
        ("lcq_node_failed_total", _C, "Attempts that failed there, not by their input or what was away.", ("node",)),
        ("lcq_device_works", _G, "1: the device takes work; 0: it rests, is out of order or in quarantine.", _DEVICE),
        ("lcq_device_use_ratio", _G, "Its use, 0 to 1.", _DEVICE),
        ("lcq_device_memory_bytes", _G, "Its memory: of a GPU its own, of the CPU the host's.", _DEVICE),
        ("lcq_device_memory_free_bytes", _G, "What of that is free.", _DEVICE),
        ("lcq_device_temperature_celsius", _G, "How hot it is.", _DEVICE),
        ("lcq_device_power_watts", _G, "What it draws.", _DEVICE),
        ("lcq_device_warm_instances", _G, "Of a function: instances that its platform should still keep.", _DEVICE),
        ("lcq_device_cold_starts_total", _C, "Of a function: cold starts, since its agent began.", _DEVICE),
        ("lcq_device_cold_start_seconds", _G, "Of a function: what the last cold start took.", _DEVICE),
        ("lcq_device_calls_in_flight", _G, "Of a function: calls that it is at.", _DEVICE),
        ("lcq_device_calls_in_vain", _G, "Of a function: calls in a row that reached nothing.", _DEVICE),
        ("lcq_device_function_state", _G, "Of a function, 1: its state, of offered, rests, tried.",
         (*_DEVICE, "state")),
    ),
    *_of(
        Scope.SCHEDULER,
        ("lcq_scheduler_info", _G, "Always 1: which LCQ and which Redis this is.", ("version", "redis")),
        ("lcq_redis_up", _G, "0: Redis does not answer, and what is of the whole cluster is missing.", ()),
        ("lcq_redis_refuses_tasks", _G, "1: Redis could lose data by its own policy, so new tasks are refused.", ()),
        ("lcq_settings_ok", _G, "0: its files of settings are wrong, and what held before goes on holding.", ()),
        ("lcq_settings_refused_total", _C, "How often files of settings were not taken over.", ()),
        ("lcq_settings_need_restart", _G, "Keys that were changed and hold only from its next start on.", ()),
        ("lcq_handshakes_failed_total", _C, "Connections refused because of their keys, or that spoke no ZMTP.", ()),
        ("lcq_http_requests_total", _C, "HTTP requests that were answered.", ("method", "route", "status")),
        ("lcq_http_requests_under_way", _G, "HTTP requests that are not answered yet.", ()),
        ("lcq_disk_bytes", _G, "Size of the disk of its data folder, and of its blobs.", ("place",)),
        ("lcq_disk_free_bytes", _G, "What of that it could still write.", ("place",)),
        ("lcq_attempts_failed_total", _C, "Attempts that failed; the task is retried or failed.", ("class", "outcome")),
        ("lcq_notices_total", _C, "Notices of alerts: sent, or given up.", ("receiver", "outcome")),
    ),
    *_timed(
        Scope.SCHEDULER, WAIT_S,
        ("lcq_task_wait_seconds", "From when a task was queued until it was granted to a node.", ("queue",)),
        ("lcq_task_done_seconds", "From when a task was submitted until its result was committed.", ("queue",)),
    ),
    *_timed(
        Scope.SCHEDULER, RUN_S,
        ("lcq_attempt_seconds", "From the grant of an attempt to its commit, of those that completed.", ("queue",)),
        ("lcq_attempt_run_seconds", "What of that its engine worked.", ("queue",)),
    ),
    *_timed(Scope.SCHEDULER, REDIS_S, ("lcq_redis_seconds", "A round trip to Redis, with up to 128 moves in it.", ())),
    *_timed(Scope.SCHEDULER, LAG_S, ("lcq_event_loop_lag_seconds", "How late its event loop was, twice a second.", ())),
    *_timed(Scope.SCHEDULER, HTTP_S, ("lcq_http_request_seconds", "What an answer took.", ("method", "route"))),
    *_of(
        Scope.AGENT,
        ("lcq_agent_info", _G, "Always 1: which node and which LCQ this is.", ("node", "version")),
        ("lcq_agent_joined", _G, "1: it is registered with a scheduler that answers.", ()),
        ("lcq_agent_claims", _G, "1: it takes tasks, or would if there were any.", ()),
        ("lcq_agent_slots", _G, "Slots of a device: busy, free, or other (their runner starts, ends, or is broken).",
         ("device", "state")),
        ("lcq_agent_device_works", _G, "1: the device takes work; 0: it rests or is out of order.", ("device",)),
        ("lcq_agent_device_use_ratio", _G, "Its use, 0 to 1.", ("device",)),
        ("lcq_agent_device_memory_bytes", _G, "Its memory: of a GPU its own, of the CPU the host's.", ("device",)),
        ("lcq_agent_device_memory_free_bytes", _G, "What of that is free.", ("device",)),
        ("lcq_agent_device_temperature_celsius", _G, "How hot it is.", ("device",)),
        ("lcq_agent_device_power_watts", _G, "What it draws.", ("device",)),
        ("lcq_agent_device_warm_instances", _G, "Of a function: instances that its platform should still keep.",
         ("device",)),
        ("lcq_agent_device_cold_starts_total", _C, "Of a function: cold starts.", ("device",)),
        ("lcq_agent_device_cold_start_seconds", _G, "Of a function: what the last cold start took.", ("device",)),
        ("lcq_agent_device_calls_in_flight", _G, "Of a function: calls that it is at.", ("device",)),
        ("lcq_agent_device_calls_in_vain", _G, "Of a function: calls in a row that reached nothing.", ("device",)),
        ("lcq_agent_device_function_state", _G, "Of a function, 1: its state, of offered, rests, tried.",
         ("device", "state")),
        ("lcq_agent_attempts_total", _C, "Attempts: completed, failed, handed_back, stopped.", ("outcome", "class")),
        ("lcq_agent_unsettled", _G, "Outcomes that no scheduler has settled yet.", ()),
        ("lcq_agent_runners_started_total", _C, "Runners started, the first ones too.", ()),
        ("lcq_agent_disk_bytes", _G, "Size of the disk of its data folder and of its models.", ("place",)),
        ("lcq_agent_disk_free_bytes", _G, "What of that it could still write.", ("place",)),
        ("lcq_agent_settings_ok", _G, "0: its files of settings are wrong, and what held before goes on holding.", ()),
        ("lcq_agent_settings_refused_total", _C, "How often files of settings were not taken over.", ()),
    ),
    *_timed(
        Scope.AGENT, FETCH_S,
        ("lcq_agent_fetch_seconds", "Bringing the files of a task here that lie elsewhere.", ()),
        ("lcq_agent_commit_seconds", "Giving a result its name, or carrying it to where it belongs.", ()),
        ("lcq_agent_beat_seconds", "From a beat to its answer.", ()),
    ),
    *_timed(
        Scope.AGENT, RUN_S,
        ("lcq_agent_run_seconds", "What an engine worked at an attempt that completed.", ("device",)),
        ("lcq_agent_attempt_seconds", "From when an attempt came until its outcome could be told.", ("device",)),
    ),
    *_timed(Scope.AGENT, LAG_S, ("lcq_agent_event_loop_lag_seconds", "How late its event loop was.", ())),
)  # fmt: skip

BY_NAME: Mapping[str, Metric] = MappingProxyType({one.name: one for one in METRICS})
HISTOGRAMS: Mapping[str, Metric] = MappingProxyType({one.name: one for one in METRICS if one.kind is Kind.HISTOGRAM})

PROCESS_METRICS = (
    "process_cpu_seconds_total",
    "process_max_fds",
    "process_open_fds",
    "process_resident_memory_bytes",
    "process_start_time_seconds",
    "process_virtual_memory_bytes",
)
"""What Prometheus's own library tells of a process beside, on Linux."""

"""docs/metrics.md, made from the table of metrics. ``make metrics`` writes it anew."""

from __future__ import annotations

from pathlib import Path

from lcq.metrics.table import METRICS, PROCESS_METRICS, Kind, Metric, Scope

PAGE = Path(__file__).parents[1] / "docs" / "metrics.md"

_HEAD = """# Metrics

A scheduler tells Prometheus how the cluster and itself are at `/metrics` of its HTTP port (8081; a viewer's token
where there are any, see [http.md](http.md)), and an agent that has `--metrics-port` (`agent.metrics_port`) how it
is, at `/metrics` there. Both speak Prometheus's text format, and OpenMetrics to who asks for that. This page is
written by `make metrics` from the table in `lcq/metrics/table.py`, out of which alone anything can be told; a test
compares the two, and another one a real cluster with the rules and panels below.

<!-- not run here: tests/integration/test_metrics_live.py asks both, at ports of its own -->
```
lcq-agent --scheduler studio-1:5571 --metrics-port 9471
curl -s http://127.0.0.1:9471/metrics
curl -s http://127.0.0.1:8081/metrics
```

To begin with: [`sample-config/prometheus`](../sample-config/prometheus) has a scrape configuration and alert rules,
and [`sample-config/grafana/lcq.json`](../sample-config/grafana/lcq.json) a dashboard. Without Prometheus LCQ
watches itself: [alerts.md](alerts.md).

- **Several schedulers.** What is *of the whole cluster* is read from Redis, so each scheduler tells the same of it.
  Never add these up: `max without (instance) (lcq_queue_tasks)`, and for counters `max without (instance)
  (rate(lcq_tasks_completed_total[5m]))`. What is *of one scheduler* counts what that one has done, and is added up:
  `sum without (instance) (rate(lcq_attempt_seconds_count[5m]))`.
- **What a scrape costs.** Redis is asked of queues and nodes, never of tasks, and once a second at most, however
  many ask. A million tasks make it no dearer.
- **Labels** are names of queues, nodes, devices, routes, and closed lists: no task, job, user or path. A metric
  keeps to 500 series; what would be more is counted under `other`.
- **Without Redis** a scheduler still answers, with `lcq_redis_up 0` and all that is its own.
- **Counters** of the cluster begin with its state in Redis, all others with their process.
- **An agent's port** is on loopback, and bound elsewhere by `agent.metrics_bind`. It has no tokens: whoever reaches
  it may read how the host and its devices are, and can do nothing.

What waits: `lcq_queue_tasks{status="queued"}`, `lcq_queue_oldest_seconds`. How long for: `histogram_quantile(0.9,
sum by (le, queue) (rate(lcq_task_wait_seconds_bucket[5m])))`. Whether it gets through: `lcq_slots`,
`lcq_queue_backlog_seconds`. What fails, and of what class: `sum by (class) (rate(lcq_attempts_failed_total[5m]))`.
Whether the scheduler itself keeps up: `lcq_redis_seconds`, `lcq_event_loop_lag_seconds`.
"""
_ABOUT = {
    Scope.CLUSTER: "At `/metrics` of each scheduler, the same at all of them: take the `max`, never the `sum`.",
    Scope.SCHEDULER: "At `/metrics` of each scheduler: its own, to be added up.",
    Scope.AGENT: "At an agent's `--metrics-port`.",
}
_COLUMNS = "| metric | type | labels | what it says |\n|---|---|---|---|"
_TAIL = """## Of each process

Beside these both tell what Prometheus's own library does of a process, on Linux: {names}.
"""


def page() -> str:
    """The page as the table has it."""
    parts = [_HEAD]
    for scope in Scope:
        rows = "\n".join(_row(metric) for metric in METRICS if metric.scope is scope)
        parts.append(f"## {scope.value}\n\n{_ABOUT[scope]}\n\n{_COLUMNS}\n{rows}\n")
    parts.append(_TAIL.format(names=", ".join(f"`{name}`" for name in PROCESS_METRICS)))
    return "\n".join(parts)


def _row(metric: Metric) -> str:
    about = metric.about
    if metric.kind is Kind.HISTOGRAM:
        about += f" Buckets from {metric.buckets[0]:g} to {metric.buckets[-1]:g} s."
    return f"| `{metric.name}` | {metric.kind} | {', '.join(f'`{one}`' for one in metric.labels)} | {about} |"

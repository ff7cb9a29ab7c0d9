"""Traces: whose ids are whose, what of them is told, and that nothing is while they are off."""

from __future__ import annotations

import subprocess
import sys

import pytest
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from lcq import tracing
from lcq.config import DistributedConfig
from lcq.models import Task, TaskType
from lcq.tracing import ATTEMPT, TASK, Tracer, endpoint_of, span_of, trace_of, traced


def a_task(**more: object) -> Task:
    return Task.model_validate({"task_type": TaskType.INPAINT, "image_path": "/a.png", **more})


def test_a_trace_is_known_by_its_task_alone_and_goes_below_the_callers_span() -> None:
    task = a_task()
    assert trace_of(task) == trace_of(Task.from_json(task.to_json()))
    assert trace_of(task)[0] != trace_of(a_task())[0]
    given = a_task(metadata={"traceparent": f"00-{'0a' * 16}-{'0b' * 8}-01"})
    assert trace_of(given) == (int("0a" * 16, 16), int("0b" * 8, 16))
    for wrong in ("", "00-xyz", f"00-{'0' * 32}-{'0b' * 8}-01", 7):
        assert trace_of(a_task(id=task.id, metadata={"traceparent": wrong})) == trace_of(task)
    assert len({span_of(task.id, ATTEMPT, 1), span_of(task.id, ATTEMPT, 2), span_of(task.id, TASK)}) == 3


def test_of_a_share_of_tasks_all_spans_are_told_and_of_others_none() -> None:
    exporter = InMemorySpanExporter()
    some, none = Tracer("agent", exporter, share=0.5), Tracer("agent", exporter, share=0.0)
    tasks = [a_task() for _ in range(60)]
    told = [some.tell("run", task, begun_ns=1, ended_ns=2) for task in tasks]
    again = [some.tell("commit", task, begun_ns=1, ended_ns=2) for task in tasks]
    assert [bool(one) for one in told] == [bool(one) for one in again]
    assert 5 < sum(map(bool, told)) < 55
    assert not any(none.tell("run", task, begun_ns=1) for task in tasks)
    some.close()
    spans = exporter.get_finished_spans()
    assert len(spans) == 2 * sum(map(bool, told))
    assert {(span.start_time, span.end_time, span.parent is not None) for span in spans} == {(1, 2, True)}


def test_where_spans_go_is_configured_or_in_the_environment_and_else_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    here = DistributedConfig(tracing={"endpoint": "http://collector:4318/"})  # type: ignore[arg-type]
    assert endpoint_of(here, {}) == "http://collector:4318/v1/traces"
    assert endpoint_of(here, {"OTEL_SDK_DISABLED": "true"}) is None
    assert endpoint_of(DistributedConfig(), {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318"}) == ""
    assert endpoint_of(DistributedConfig(), {}) is None
    for name in ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)
    with traced(DistributedConfig(), "scheduler"):
        assert tracing.active is None


def test_what_is_not_traced_has_loaded_nothing_of_it() -> None:
    script = "import sys, lcq.scheduler, lcq.client, worker.agent; print('opentelemetry.sdk' in sys.modules)"
    told = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert told.stdout == "False\n"

"""Traces of tasks (OpenTelemetry) across client, scheduler and agent: behind the extra otel, and nothing while off.

Nothing has to be carried for them: a task's id says the id of its trace, and its attempt's number the ids of the spans
that others are below. So every process tells its part by itself, whatever version another one has, and what is told
twice is the same span.
"""

from __future__ import annotations

import atexit
import contextlib
import importlib.util
import os
import random
import re
import time
from collections.abc import Iterator, Mapping
from hashlib import sha256
from types import MappingProxyType
from typing import TYPE_CHECKING

from lcq.errors import InvalidConfig

if TYPE_CHECKING:
    from opentelemetry.sdk.trace.export import SpanExporter

    from lcq.config import DistributedConfig
    from lcq.models import Task

TRACEPARENT = "traceparent"
"""In a task's metadata: the W3C trace context of whoever wants it in a trace of its own."""

TASK, CLAIM, ATTEMPT = "task", "claim", "attempt"
"""The spans that others are below: the root, and of each attempt its claim and what its node made of it."""

_FORM = re.compile(r"^00-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-[0-9a-f]{2}$")
_FLUSH_MS = 5_000
_NO_FACTS: Mapping[str, str | float] = MappingProxyType({})
_NEEDED = "opentelemetry.exporter.otlp.proto.http.trace_exporter"
_BY_ENVIRONMENT = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")


def trace_of(task: Task) -> tuple[int, int]:
    """The trace of a task, and the span that its root is below (0: none)."""
    given = task.metadata.get(TRACEPARENT)
    found = _FORM.match(given) if isinstance(given, str) else None
    return (int(found[1], 16), int(found[2], 16)) if found else (_number(task.id, 16), 0)


def span_of(task_id: str, what: str, attempt: int = 0) -> int:
    """The id of one of the spans that others are below."""
    return _number(f"{task_id}/{what}/{attempt}", 8)


def _number(text: str, size: int) -> int:
    return int.from_bytes(sha256(f"lcq {text}".encode()).digest()[:size], "big") or 1


class Tracer:
    """Tells spans of tasks to a collector. Its calls take microseconds: what is told leaves by a thread of its own."""

    def __init__(self, role: str, exporter: SpanExporter, *, share: float = 1.0, instance: str = "") -> None:
        """``role``: scheduler, agent or client. ``share`` of the tasks are traced, by the ids of their traces."""
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
        from opentelemetry.sdk.trace.id_generator import IdGenerator
        from opentelemetry.sdk.trace.sampling import ALWAYS_ON

        from lcq import __version__

        class Ids(IdGenerator):
            """Gives the ids that the next span is to have."""

            trace, span = 0, 0

            def generate_trace_id(self) -> int:
                return self.trace

            def generate_span_id(self) -> int:
                return self.span

        self._ids = Ids()
        named = {"service.name": f"lcq-{role}", "service.version": __version__}
        if instance:
            named["service.instance.id"] = instance
        self._provider = TracerProvider(
            sampler=ALWAYS_ON, resource=Resource.create(named), id_generator=self._ids, shutdown_on_exit=False
        )
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("lcq", __version__)
        self._below_this = round(min(1.0, max(0.0, share)) * 2**64)

    def tell(
        self,
        name: str,
        task: Task,
        *,
        attempt: int = 0,
        span: int = 0,
        parent: int = 0,
        begun_ns: int,
        ended_ns: int = 0,
        error: str = "",
        link: int = 0,
        facts: Mapping[str, str | float] = _NO_FACTS,
    ) -> int:
        """Tell a span that is over; answers its id (0: this task is not traced).

        ``span``: its id, where others are below it; ``parent``: the one it is below, by default the root. ``error``:
        what went wrong. ``link``: another span of the trace that it has to do with. Times are ns since the epoch.
        """
        from opentelemetry import trace
        from opentelemetry.trace.status import Status, StatusCode

        trace_id, above = trace_of(task)
        if trace_id & (2**64 - 1) >= self._below_this:
            return 0
        is_root = name == TASK
        root = span_of(task.id, TASK)
        parent = above if is_root else parent or root
        self._ids.trace, self._ids.span = trace_id, root if is_root else span or random.getrandbits(64) or 1

        def context_of(one: int) -> trace.SpanContext:
            return trace.SpanContext(trace_id, one, is_remote=True, trace_flags=trace.TraceFlags(1))

        where = trace.set_span_in_context(trace.NonRecordingSpan(context_of(parent))) if parent else None
        attributes: dict[str, str | float] = {"lcq.task": task.id, "lcq.model": task.model}
        attributes |= {"lcq.job": task.job} if task.job else {}
        attributes |= {"lcq.attempt": attempt} if attempt else {}
        attributes |= {f"lcq.{key}": value for key, value in facts.items() if value != ""}
        told = self._tracer.start_span(
            name,
            context=where,
            attributes=attributes,
            links=[trace.Link(context_of(link))] if link else None,
            start_time=begun_ns,
        )
        if error:
            told.set_status(Status(StatusCode.ERROR, error))
        told.end(ended_ns or time.time_ns())
        return self._ids.span

    def claimed(self, task: Task, attempt: int, *, begun_ns: int, facts: Mapping[str, str | float]) -> None:
        """An attempt was granted; one that is not the first has to do with the one before."""
        link = span_of(task.id, ATTEMPT, attempt - 1) if attempt > 1 else 0
        span = span_of(task.id, CLAIM, attempt)
        self.tell(CLAIM, task, attempt=attempt, span=span, begun_ns=begun_ns, link=link, facts=facts)

    def close(self) -> None:
        """See what was told to the collector, for some seconds."""
        self._provider.force_flush(_FLUSH_MS)
        self._provider.shutdown()


active: Tracer | None = None
"""None while nothing is traced: all that it costs then is to see that."""


def endpoint_of(config: DistributedConfig, environment: Mapping[str, str] = os.environ) -> str | None:
    """Where spans go: "" as the environment (OTEL_*) says, None nowhere."""
    if environment.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return None
    if config.tracing.endpoint:
        base = config.tracing.endpoint.rstrip("/")
        return base if base.endswith("/v1/traces") else f"{base}/v1/traces"
    return "" if any(environment.get(name) for name in _BY_ENVIRONMENT) else None


@contextlib.contextmanager
def traced(config: DistributedConfig, role: str, *, instance: str = "") -> Iterator[None]:
    """Trace as configured for as long as the block lasts; where somebody does already, that goes on.

    Raises:
        InvalidConfig: ``tracing.endpoint`` is set, and what is needed is not installed.
    """
    global active
    endpoint = endpoint_of(config)
    if endpoint is None or active is not None:
        yield
        return
    if not _is_installed():
        if not config.tracing.endpoint:  # the environment is for all programs of a host, and need not mean us
            yield
            return
        raise InvalidConfig(
            "tracing.endpoint is set, and OpenTelemetry is not installed", hint="pip install 'lcq[otel]', or unset it"
        )
    tracer = active = Tracer(role, _exporter(endpoint), share=config.tracing.share, instance=instance)
    try:
        yield
    finally:
        active = None
        tracer.close()


def trace_from_here(config: DistributedConfig) -> None:
    """Trace what this process submits as configured, until it ends. Where that cannot be, nothing is."""
    global active
    endpoint = endpoint_of(config)
    if endpoint is None or active is not None or not _is_installed():
        return
    active = Tracer("client", _exporter(endpoint), share=config.tracing.share)
    atexit.register(active.close)


def _exporter(endpoint: str) -> SpanExporter:
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

    return OTLPSpanExporter(endpoint=endpoint or None, timeout=_FLUSH_MS / 1000)


def _is_installed() -> bool:
    try:
        return importlib.util.find_spec(_NEEDED) is not None
    except ModuleNotFoundError:
        return False

"""Traces of tasks: told by every process by itself, and one tree all the same."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from lcq import tracing
from lcq.config import DistributedConfig
from lcq.models import TaskStatus
from lcq.tracing import trace_of
from tests.cluster import drill, running_cluster
from tests.conftest import wait_until_sync


@dataclass
class Collector:
    """An OTLP/HTTP receiver: the spans that came, by their traces, each with the service that told it."""

    port: int = 0
    spans: dict[bytes, list[tuple[str, Span]]] = field(default_factory=dict)

    def take_in(self, body: bytes) -> None:
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            service = next(one.value.string_value for one in resource.resource.attributes if one.key == "service.name")
            for scope in resource.scope_spans:
                for span in scope.spans:
                    self.spans.setdefault(span.trace_id, []).append((service, span))


@pytest.fixture
def collector() -> Iterator[Collector]:
    found = Collector()

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            assert self.path == "/v1/traces"
            found.take_in(self.rfile.read(int(self.headers["content-length"])))
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
    found.port = server.server_address[1]
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield found
    server.shutdown()
    server.server_close()


def test_all_spans_of_a_task_are_one_tree_over_all_processes_and_retries_are_linked(redis_url, tmp_path, collector):
    endpoint = f"http://127.0.0.1:{collector.port}"
    more = {"LCQ_TRACING__ENDPOINT": endpoint, "OTEL_BSP_SCHEDULE_DELAY": "100"}
    with running_cluster(redis_url, tmp_path / "data", **more) as cluster:
        cluster.start_scheduler()
        cluster.start_agent(slots=1)
        config = DistributedConfig(tracing={"endpoint": endpoint})
        with tracing.traced(config, "client"), cluster.client() as client:
            task = drill("drill-transient", failures=1).model_copy(update={"job": "night"})
            given = f"00-{'ab' * 16}-{'cd' * 8}-01"
            other = drill().model_copy(update={"metadata": {"traceparent": given}})
            client.submit_many([task, other])
            assert {one.status for one in client.wait([task.id, other.id])} == {TaskStatus.COMPLETED}
        trace_id = trace_of(task)[0].to_bytes(16, "big")
        wait_until_sync(lambda: len(collector.spans.get(trace_id, ())) >= 13, what="all spans")
        told = collector.spans[trace_id]
        names = {span.span_id: span.name for _, span in told}
        assert len(names) == len(told), "none is told twice"
        tree = sorted((span.name, names.get(span.parent_span_id, ""), service) for service, span in told)
        each = [
            ("attempt", "claim", "lcq-agent"), ("claim", "task", "lcq-scheduler"),
            ("commit", "attempt", "lcq-scheduler"), ("queued", "task", "lcq-scheduler"),
            ("run", "attempt", "lcq-agent"),
        ]  # fmt: skip
        stages = [one for one in tree if one[1] == "run"]
        assert ("drilled", "run", "lcq-agent") in stages
        assert [one for one in tree if one not in stages] == sorted(
            [*each, *each, ("submit", "task", "lcq-client"), ("task", "", "lcq-scheduler")]
        )
        of = {(span.name, attempt_of(span)): span for _, span in told}
        assert [link.span_id for link in of["claim", 2].links] == [of["attempt", 1].span_id]
        assert of["attempt", 1].status.code == Status.STATUS_CODE_ERROR
        assert of["attempt", 2].status.code != Status.STATUS_CODE_ERROR
        for name in ("attempt", "run", "queued"):
            assert of[name, 2].end_time_unix_nano >= of[name, 2].start_time_unix_nano > 0
        # Who has a trace already has the task in it.
        roots = lambda: [span for _, span in collector.spans.get(b"\xab" * 16, ()) if span.name == "task"]  # noqa: E731
        wait_until_sync(lambda: bool(roots()), what="the root below the caller's span")
        assert roots()[0].parent_span_id == b"\xcd" * 8


def attempt_of(span: Span) -> int:
    return next((one.value.int_value for one in span.attributes if one.key == "lcq.attempt"), 0)

"""What is measured: the instruments, how they are told, and the page that lists them all."""

from __future__ import annotations

import os
import re

import pytest
from prometheus_client.parser import text_string_to_metric_families

from lcq.metrics.exposition import Sheet, exposed, put_reading
from lcq.metrics.instruments import Counts, Histogram
from lcq.metrics.table import METRICS, PROCESS_METRICS, Kind, Metric, Scope
from lcq.models import DeviceReading, FunctionReading
from tests.metrics_page import PAGE, page

RENEW = os.environ.get("LCQ_RENEW_METRICS") == "1"
_BASE_UNITS = ("_seconds", "_bytes", "_celsius", "_watts", "_ratio", "_total", "_info")
_NOT_OF_A_LABEL = {"task", "task_id", "id", "job", "user", "user_id", "path", "message"}


def told(sheet: Sheet) -> dict[str, float]:
    """What the text says, by name and labels."""
    content, _ = exposed(sheet)
    return {
        sample.name + "".join(f"{{{label}={value}}}" for label, value in sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(content.decode())
        for sample in family.samples
    }


def test_the_page_of_metrics_is_their_table() -> None:
    if RENEW:
        PAGE.write_text(page(), encoding="utf-8")
    assert PAGE.read_text(encoding="utf-8") == page(), "where this is meant: make metrics"


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
def test_a_metric_is_named_as_prometheus_wants_it(metric: Metric) -> None:
    assert re.fullmatch(r"lcq_[a-z_]+", metric.name)
    assert metric.name.endswith("_total") == (metric.kind is Kind.COUNTER)
    assert metric.name.startswith("lcq_agent_") == (metric.scope is Scope.AGENT)
    assert metric.about.endswith(".")
    assert bool(metric.buckets) == (metric.kind is Kind.HISTOGRAM)
    assert list(metric.buckets) == sorted(metric.buckets)
    assert not _NOT_OF_A_LABEL & set(metric.labels), "what has no end is no label"
    for unit in ("_ms", "_s", "_mib", "_minutes", "_percent"):
        assert not metric.name.endswith(unit), f"in base units: {_BASE_UNITS}"


def test_no_metric_is_named_twice() -> None:
    names = [one.name for one in METRICS]
    assert len(names) == len(set(names))


def test_a_histogram_is_told_in_buckets_that_hold_those_before_them() -> None:
    waits = Histogram("lcq_task_wait_seconds")
    for seconds in (0.04, 0.05, 0.2, 20_000, -3):
        waits.note(seconds, "cpu-light")
    sheet = Sheet()
    sheet.put_histogram(waits)
    found = told(sheet)
    name = "lcq_task_wait_seconds"
    assert found[f"{name}_bucket{{le=0.05}}{{queue=cpu-light}}"] == 3  # a bound is in its bucket; -3 counts as 0
    assert found[f"{name}_bucket{{le=0.25}}{{queue=cpu-light}}"] == 4
    assert found[f"{name}_bucket{{le=14400.0}}{{queue=cpu-light}}"] == 4
    assert found[f"{name}_bucket{{le=+Inf}}{{queue=cpu-light}}"] == found[f"{name}_count{{queue=cpu-light}}"] == 5
    assert found[f"{name}_sum{{queue=cpu-light}}"] == pytest.approx(20_000.29)


def test_a_histogram_without_labels_is_there_before_anything_happened() -> None:
    sheet = Sheet()
    sheet.put_histogram(Histogram("lcq_redis_seconds"))
    assert told(sheet)["lcq_redis_seconds_count"] == 0


def test_whatever_labels_come_a_metric_stays_of_a_bounded_size() -> None:
    counts, waits = Counts("lcq_attempts_failed_total"), Histogram("lcq_task_wait_seconds")
    for number in range(3000):
        counts.note(f"class {number}", "failed")
        waits.note(1, f"queue {number}")
    assert len(counts.values) <= 501
    assert counts.values["other", "other"] >= 2499
    assert len(list(waits.spreads())) <= 501


def test_only_what_the_table_has_can_be_told_and_what_is_not_known_is_left_out() -> None:
    sheet = Sheet()
    with pytest.raises(KeyError):
        sheet.put("lcq_made_up", 1)
    with pytest.raises(ValueError, match="labels"):
        sheet.put("lcq_queue_paused", 1)
    put_reading(sheet, "lcq_device", DeviceReading(busy=0.5, total_mib=2), "gpu-1", 'GPU-"\\\n')
    sheet.put("lcq_node_seen_seconds", float("nan"), "gpu-1")
    found = told(sheet)
    assert found['lcq_device_use_ratio{device=GPU-"\\\n}{node=gpu-1}'] == 0.5
    assert found['lcq_device_memory_bytes{device=GPU-"\\\n}{node=gpu-1}'] == 2 * 2**20
    assert not [name for name in found if "temperature" in name or "node_seen" in name]


def test_a_function_is_in_one_state_at_a_time() -> None:
    sheet = Sheet()
    for device, reading in (
        ("offered", DeviceReading(function=FunctionReading(in_vain=2))),
        ("rests", DeviceReading(function=FunctionReading(), rest="endpoint_away")),
        ("tried", DeviceReading(function=FunctionReading(trials=0))),
        ("cpu", DeviceReading()),
    ):
        put_reading(sheet, "lcq_device", reading, "far", device)
    found = told(sheet)
    ones = {name for name, value in found.items() if "function_state" in name and value}
    assert ones == {
        f"lcq_device_function_state{{device={state}}}{{node=far}}{{state={state}}}"
        for state in ("offered", "rests", "tried")
    }
    assert found["lcq_device_calls_in_vain{device=offered}{node=far}"] == 2


def test_who_asks_for_openmetrics_gets_it_and_the_process_tells_of_itself() -> None:
    content, media_type = exposed(Sheet(), "application/openmetrics-text;version=1.0.0,text/plain;q=0.5")
    assert media_type.startswith("application/openmetrics-text")
    assert content.endswith(b"# EOF\n")
    assert set(PROCESS_METRICS) <= {name.partition("{")[0] for name in told(Sheet())}

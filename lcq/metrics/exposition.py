"""Samples as Prometheus reads them: its text format, or OpenMetrics where the one who asks wants that.

Its library is loaded when somebody asks for the first time: no start waits for it.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import Any

from lcq.function_state import FunctionState, state_of
from lcq.metrics.instruments import Counts, Histogram, Labels
from lcq.metrics.table import BY_NAME, METRICS, Kind
from lcq.models import DeviceReading

_MIB = 2**20


class Sheet:
    """What one scrape is told. Only metrics of the table can be put on it."""

    def __init__(self) -> None:
        self._values: dict[str, dict[Labels, float]] = defaultdict(dict)
        self._histograms: dict[str, Histogram] = {}

    def put(self, name: str, value: float | None, *labels: str) -> None:
        """A value under ``labels``, in the order in which the table has them; None: not known, so it is left out."""
        metric = BY_NAME[name]
        if len(labels) != len(metric.labels):
            raise ValueError(f"{name} has the labels {metric.labels}, not {labels}")
        if value is not None and math.isfinite(value):
            self._values[name][labels] = float(value)

    def put_counts(self, counts: Counts) -> None:
        self._values[counts.name] |= {labels: float(value) for labels, value in counts.values.items()}

    def take(self, other: Sheet) -> None:
        """All that is on another one."""
        for name, values in other._values.items():
            self._values[name] |= values

    def put_histogram(self, histogram: Histogram) -> None:
        self._histograms[histogram.metric.name] = histogram

    def collect(self) -> Iterator[Any]:
        """The families, as Prometheus's library writes them; in the order of the table."""
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

        for metric in METRICS:
            family: Any
            if metric.name in self._histograms:
                family = HistogramMetricFamily(metric.name, metric.about, labels=metric.labels)
                for labels, spread in self._histograms[metric.name].spreads():
                    family.add_metric(labels, _cumulated(metric.buckets, spread.counts), spread.total)
                yield family
            elif metric.name in self._values:
                kind = CounterMetricFamily if metric.kind is Kind.COUNTER else GaugeMetricFamily
                family = kind(metric.name, metric.about, labels=metric.labels)
                for labels, value in sorted(self._values[metric.name].items()):
                    family.add_metric(labels, value)
                yield family


def put_reading(sheet: Sheet, name: str, reading: DeviceReading, *labels: str) -> None:
    """How a device is, as far as its hardware tells, under the metrics that begin with ``name``."""
    sheet.put(f"{name}_use_ratio", reading.busy, *labels)
    sheet.put(f"{name}_memory_bytes", None if reading.total_mib is None else reading.total_mib * _MIB, *labels)
    sheet.put(f"{name}_memory_free_bytes", None if reading.free_mib is None else reading.free_mib * _MIB, *labels)
    sheet.put(f"{name}_temperature_celsius", reading.temperature_c, *labels)
    sheet.put(f"{name}_power_watts", reading.power_w, *labels)
    function = reading.function
    if function is not None:
        sheet.put(f"{name}_warm_instances", function.warm, *labels)
        sheet.put(f"{name}_cold_starts_total", function.cold, *labels)
        sheet.put(f"{name}_cold_start_seconds", function.start_s if function.cold else None, *labels)
        sheet.put(f"{name}_calls_in_flight", function.in_flight, *labels)
        sheet.put(f"{name}_calls_in_vain", function.in_vain, *labels)
        for state in FunctionState:
            sheet.put(f"{name}_function_state", int(state is state_of(reading)), *labels, state)


def _cumulated(buckets: tuple[float, ...], counts: Iterable[int]) -> list[tuple[str, float]]:
    """Prometheus's buckets hold what is at most so large: each also what those before it hold."""
    told, so_far = [], 0
    for bound, count in zip((*map(_bound, buckets), "+Inf"), counts, strict=True):
        so_far += count
        told.append((bound, float(so_far)))
    return told


def _bound(value: float) -> str:
    return repr(float(value))


def exposed(sheet: Sheet, accept: str = "") -> tuple[bytes, str]:
    """``sheet`` and what this process takes of its host; and the media type. ``accept``: as the request has it."""
    from prometheus_client.exposition import choose_encoder
    from prometheus_client.process_collector import ProcessCollector
    from prometheus_client.registry import CollectorRegistry

    registry = CollectorRegistry(auto_describe=False)  # of this answer alone: nothing is of the whole process
    registry.register(sheet)
    ProcessCollector(registry=registry)
    encode, media_type = choose_encoder(accept)
    return encode(registry), media_type

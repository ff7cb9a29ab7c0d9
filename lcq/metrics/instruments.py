"""Counters and histograms, as cheap as an addition; nothing of them is of the whole process."""

from __future__ import annotations

import asyncio
import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from lcq.metrics.table import HISTOGRAMS

_MOST_SERIES = 500
"""Of one metric: whatever labels come, it does not grow beyond that. What is more is counted as ``other``."""
_OTHER = "other"
_LAG_EVERY_S = 0.5

Labels = tuple[str, ...]


@dataclass
class Spread:
    """How often values fell into each bucket, the last beyond all bounds, and their sum."""

    counts: list[int]
    total: float = 0.0


class Histogram:
    """Values of one metric of the table, by its labels."""

    def __init__(self, name: str) -> None:
        self.metric = HISTOGRAMS[name]
        self._spreads: dict[Labels, Spread] = {}
        if not self.metric.labels:
            self._new(())

    def _new(self, labels: Labels) -> Spread:
        if len(self._spreads) >= _MOST_SERIES and labels not in self._spreads:
            labels = (_OTHER,) * len(labels)
        return self._spreads.setdefault(labels, Spread([0] * (len(self.metric.buckets) + 1)))

    def note(self, value: float, *labels: str) -> None:
        """A value in the metric's unit; what is below 0, as by clocks that were set, counts as 0."""
        value = max(0.0, value)
        spread = self._spreads.get(labels) or self._new(labels)
        spread.counts[bisect_left(self.metric.buckets, value)] += 1
        spread.total += value

    def spreads(self) -> Iterator[tuple[Labels, Spread]]:
        yield from sorted(self._spreads.items())


@dataclass
class Counts:
    """A counter of the table, by its labels."""

    name: str
    values: Counter[Labels] = field(default_factory=Counter)

    def note(self, *labels: str) -> None:
        if labels not in self.values and len(self.values) >= _MOST_SERIES:
            labels = (_OTHER,) * len(labels)
        self.values[labels] += 1


class SchedulerMeasures:
    """What one scheduler process has measured since its start."""

    def __init__(self) -> None:
        self.task_wait = Histogram("lcq_task_wait_seconds")
        self.task_done = Histogram("lcq_task_done_seconds")
        self.attempt = Histogram("lcq_attempt_seconds")
        self.attempt_run = Histogram("lcq_attempt_run_seconds")
        self.redis = Histogram("lcq_redis_seconds")
        self.loop_lag = Histogram("lcq_event_loop_lag_seconds")
        self.attempts_failed = Counts("lcq_attempts_failed_total")
        self.notices = Counts("lcq_notices_total")

    @property
    def histograms(self) -> tuple[Histogram, ...]:
        return tuple(one for one in vars(self).values() if isinstance(one, Histogram))

    @property
    def counts(self) -> tuple[Counts, ...]:
        return tuple(one for one in vars(self).values() if isinstance(one, Counts))


async def watch_lag(lag: Histogram) -> None:
    """Look twice a second how late the event loop is, until cancelled."""
    while True:
        due = time.monotonic() + _LAG_EVERY_S
        await asyncio.sleep(_LAG_EVERY_S)
        lag.note(time.monotonic() - due)

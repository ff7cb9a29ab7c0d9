"""How often each client may ask: a bucket that fills with time. Pure."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable

_REMEMBERED = 10_000  # clients; who was forgotten has a full bucket, as one that has not asked for a minute


class Rates:
    """Buckets by client. ``clock``: seconds that only grow."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()  # client -> what it has left, as of when

    def take(self, client: str, per_minute: float | None) -> float:
        """Count one request. 0: it may; else in how many seconds it may again."""
        if per_minute is None:
            return 0.0
        most = max(1.0, per_minute / 6)
        now = self._clock()
        left, as_of = self._left.pop(client, (most, now))
        left = min(most, left + (now - as_of) * per_minute / 60)
        may = left >= 1
        self._left[client] = (left - 1 if may else left, now)
        if len(self._left) > _REMEMBERED:
            self._left.popitem(last=False)
        return 0.0 if may else (1 - left) * 60 / per_minute

"""Breakers: models whose work needs something elsewhere that is away are not offered until it answers again."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable
from dataclasses import dataclass

from lcq.clock import steady_now
from lcq.config import IopaintConfig

_log = logging.getLogger(__name__)
_IN_A_ROW = 3  # failures of one engine, after which its models are withdrawn
_PAUSE_S = (5.0, 120.0)  # first and longest pause before a look whether it answers again
_TICK_S = 0.2


@dataclass
class _Breaker:
    """What is known of one engine's dependency."""

    in_a_row: int = 0
    pauses: int = 0  # since it last worked
    opened_at: float | None = None
    until: float = 0.0
    why: str = ""


class Breakers:
    """Told of each engine's failures to reach what it needs, and of its successes. Run ``watch()``.

    ``on_change(engine, why)``: its models are not to be offered; with "" as the reason they are again. ``answers``
    tells whether what an engine needs is there; it may block for a second.
    """

    def __init__(
        self,
        *,
        on_change: Callable[[str, str], None],
        answers: Callable[[str], bool],
        pause_s: tuple[float, float] = _PAUSE_S,
    ) -> None:
        self._on_change = on_change
        self._answers = answers
        self._pause_s = pause_s
        self._breakers: dict[str, _Breaker] = {}
        self._opened = asyncio.Event()

    def failed(self, engine: str, why: str) -> None:
        """An attempt of ``engine`` found what it needs away."""
        breaker = self._breakers.setdefault(engine, _Breaker())
        breaker.in_a_row += 1
        if breaker.in_a_row >= _IN_A_ROW and breaker.opened_at is None:
            breaker.opened_at, breaker.why = steady_now(), why
            self._wait(breaker)
            _log.warning("the models of %s are not offered until it is back: %s", engine, why)
            self._on_change(engine, why)
            self._opened.set()

    def worked(self, engine: str) -> None:
        """An attempt of ``engine`` reached what it needs."""
        breaker = self._breakers.get(engine)
        if breaker is not None and breaker.opened_at is None:
            del self._breakers[engine]

    def _wait(self, breaker: _Breaker) -> None:
        first, longest = self._pause_s
        pause_s = min(longest, first * 2 ** min(breaker.pauses, 20))
        breaker.until = steady_now() + pause_s * random.uniform(0.75, 1.25)  # not all nodes at the same moment
        breaker.pauses += 1

    async def watch(self) -> None:
        """Offer again what answers again, until cancelled."""
        while True:
            await self._opened.wait()
            opened = {name: one for name, one in self._breakers.items() if one.opened_at is not None}
            if not opened:
                self._opened.clear()
                continue
            for engine, breaker in opened.items():
                if steady_now() >= breaker.until:
                    await self._look(engine, breaker)
            await asyncio.sleep(_TICK_S)

    async def _look(self, engine: str, breaker: _Breaker) -> None:
        if not await asyncio.to_thread(self._answers, engine):
            self._wait(breaker)
            return
        away_s = steady_now() - (breaker.opened_at or 0.0)
        _log.warning("what %s needs answers again after %.0f s: its models are offered again", engine, away_s)
        breaker.opened_at = None
        breaker.in_a_row = _IN_A_ROW - 1  # one more failure is enough, and then the pause is longer
        self._on_change(engine, "")


def answers(engine: str, iopaint: IopaintConfig) -> bool:
    """Whether what ``engine`` needs is there; True where only an attempt can tell."""
    if engine != "iopaint" or iopaint.url is None:
        return True
    from worker.engines.iopaint_api import IopaintApi  # httpx: only where it is needed

    api = IopaintApi(iopaint.url)
    try:
        return api.is_up()
    finally:
        api.close()

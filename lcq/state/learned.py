"""What was learned of costs: what ``finish_task`` keeps in Redis, fitted for whoever predicts."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

from lcq.costs import KEPT, SHIPPED, CostBook, CostKey, Curve, Observation, fitted, shipped_curve
from lcq.memory_costs import Held, remembering
from lcq.models import DeviceKind
from lcq.state.connection import Client, our_errors
from lcq.state.keys import Keys

_AGE_S = 2.0  # how old the book may be
_FULL_AGE_S = 10.0  # how old a curve may be that has seen as much as is kept: it hardly moves any more


@dataclass(frozen=True)
class _Known:
    curve: Curve
    learned_ms: float  # when the newest attempt of it was kept
    fitted_at: float


class LearnedCosts:
    """The costs of one cluster, as its attempts have told them; read again when they are asked for and are old."""

    def __init__(self, url: str, redis: Client, keys: Keys) -> None:
        self._url = url
        self._redis = redis
        self._keys = keys
        self._book = SHIPPED
        self._read_at = float("-inf")
        self._reading = asyncio.Lock()
        self._known: dict[str, _Known] = {}

    async def book(self) -> CostBook:
        """What is known of costs now, at most two seconds old.

        Raises:
            StateUnavailable: Redis does not answer.
        """
        async with self._reading:  # who asks meanwhile waits: what is here may be hours old, or was never read
            now = time.monotonic()
            if now - self._read_at > _AGE_S:
                await self._read(now)
                self._read_at = now
            return self._book

    async def _read(self, now: float) -> None:
        async with our_errors(self._url):
            kept = await self._redis.zrange(self._keys.costs, 0, -1, withscores=True)
        stale = [name for name, learned_ms in kept if self._is_stale(name, learned_ms, now)]
        gone = self._known.keys() - {name for name, _ in kept}
        if not stale and not gone:
            return
        scores = dict(kept)
        for name in gone:
            del self._known[name]
        seen, held = await self._kept(stale)
        for name in stale:
            key = _key(name)
            if key is not None:
                shipped = shipped_curve(key.model, DeviceKind(key.kind), cores=key.cores)
                curve = remembering(fitted(seen[name], shipped), held[name])
                self._known[name] = _Known(curve, scores[name], now)
        found = {key: known.curve for name, known in self._known.items() if (key := _key(name)) is not None}
        self._book = CostBook(found)

    def _is_stale(self, name: str, learned_ms: float, now: float) -> bool:
        known = self._known.get(name)
        if known is None:
            return True
        is_full = known.curve.samples >= KEPT
        return known.learned_ms != learned_ms and (not is_full or now - known.fitted_at > _FULL_AGE_S)

    async def observations(self) -> dict[CostKey, tuple[tuple[Observation, ...], tuple[Held, ...]]]:
        """The attempts that are kept of each cost, oldest first: what they took, and what they held.

        Raises:
            StateUnavailable: Redis does not answer.
        """
        async with our_errors(self._url):
            names = sorted(await self._redis.zrange(self._keys.costs, 0, -1))
        seen, held = await self._kept(names)
        return {key: (seen[name], held[name]) for name in names if (key := _key(name)) is not None}

    async def _kept(self, names: list[str]) -> tuple[dict[str, tuple[Observation, ...]], dict[str, tuple[Held, ...]]]:
        if not names:
            return {}, {}
        async with our_errors(self._url):
            pipe = self._redis.pipeline(transaction=False)
            for name in names:
                pipe.lrange(self._keys.cost(name), 0, -1)
                pipe.lrange(self._keys.memory(name), 0, -1)
            answers = await pipe.execute()
        seen: dict[str, tuple[Observation, ...]] = {}
        held: dict[str, tuple[Held, ...]] = {}
        for name, took, kept in zip(names, answers[::2], answers[1::2], strict=True):
            seen[name] = tuple(one for text in took if (one := _observation(text)) is not None)
            held[name] = tuple(told for text in kept if (told := _held(text)) is not None)
            if not held[name] and (key := _key(name)) is not None and key.kind == DeviceKind.CPU:
                # As an older scheduler kept it: of a processor's memory only, beside the seconds.
                held[name] = tuple(Held(one.megapixels, one.peak_mib) for one in seen[name])
        return seen, held


def _key(name: str) -> CostKey | None:
    """The key of that name; None where it is none of ours."""
    try:
        key = CostKey.parse(name)
        DeviceKind(key.kind)
    except ValueError:
        return None
    return key


def _observation(text: str) -> Observation | None:
    """As ``finish_task`` wrote it; None where it cannot be read."""
    try:
        megapixels, seconds, peak_mib, warm, predicted_s, predicted_p90_s = map(float, text.split())
    except ValueError:
        return None
    return Observation(megapixels, seconds, int(peak_mib), warm == 1, predicted_s, predicted_p90_s)


def _held(text: str) -> Held | None:
    """As ``learn_memory`` of lua/_prelude.lua wrote it; None where it cannot be read."""
    try:
        megapixels, peak_mib, predicted_mib, is_short = map(float, text.split())
    except ValueError:
        return None
    return Held(megapixels, int(peak_mib), int(predicted_mib), is_short == 1)

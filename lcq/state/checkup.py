"""What a Redis tells of itself to who looks after it: one look, no judgement."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from redis import exceptions as redis_errors

from lcq.errors import LcqError
from lcq.state.connection import connect, our_errors

_ASKED = 20
_SETTINGS = ("appendfsync", "min-replicas-to-write", "protected-mode", "maxmemory", "maxmemory-policy")
_ANSWER_S = 5.0


@dataclass(frozen=True)
class RedisFacts:
    """INFO of a server, some of its CONFIG (empty where the account may not), and how it answered.

    ``answers_ms``: how long each of some answers took, the quickest first. ``ahead_s``: how far this host's clock is
    ahead of the server's, give or take ``error_s``.
    """

    info: Mapping[str, Any]
    settings: Mapping[str, str] = field(default_factory=dict)
    answers_ms: tuple[float, ...] = ()
    ahead_s: float = 0.0
    error_s: float = 0.0

    @property
    def version(self) -> str:
        """What it is, for a person."""
        valkey = self.info.get("valkey_version")
        return f"Valkey {valkey}" if valkey else f"Redis {self.info.get('redis_version', '?')}"

    @property
    def compatible(self) -> tuple[int, ...]:
        """The version of Redis that it is, or behaves like."""
        return tuple(int(part) for part in str(self.info.get("redis_version", "0")).split(".")[:2])


async def look_at(url: str) -> RedisFacts:
    """Raises:
    StateUnavailable: it does not answer, or refuses.
    """
    client = connect(url)
    try:
        async with our_errors(url, within_s=_ANSWER_S):
            info = await client.info()
            settings: dict[str, str] = {}
            with contextlib.suppress(redis_errors.ResponseError):
                settings = dict(await client.config_get(*_SETTINGS))
            answers: list[tuple[float, float, float]] = []
            for _ in range(_ASKED):
                wall, began = time.time(), time.perf_counter()
                seconds, micros = await client.time()
                took_s = time.perf_counter() - began
                answers.append((took_s, wall + took_s / 2 - (int(seconds) + int(micros) / 1e6), took_s / 2))
    finally:
        with contextlib.suppress(LcqError, redis_errors.RedisError, OSError):
            await client.aclose()
    answers.sort()
    _, ahead_s, error_s = answers[0]
    return RedisFacts(info, settings, tuple(round(took * 1000, 3) for took, _, _ in answers), ahead_s, error_s)

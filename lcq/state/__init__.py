"""Redis decides: the keys, the moves, the one writer and the one reader."""

from __future__ import annotations

from lcq.loading import without

with without("opentelemetry.sdk"):  # where lcq[otel] is installed, redis would load all of it at every start
    import redis.asyncio  # noqa: F401

"""How Redis is reached, what it must be, and whose errors its errors become."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from typing import Any, TypeAlias

from redis import asyncio as redis
from redis import exceptions as redis_errors
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from lcq.errors import StateOverloaded, StateUnavailable, UnsafeState, without_password

MINIMUM_VERSION = (6, 2)


Client: TypeAlias = Any  # redis-py's types cannot say that decode_responses makes every answer text


def connect(url: str, *, read_timeout_s: float | None = 10.0) -> Client:
    """A client for ``url`` (redis://, rediss://, unix://). Connects when first used; never retries by itself,

    because a script sent twice is a move made twice: who asked decides.
    """
    return redis.Redis.from_url(
        url,
        decode_responses=True,
        socket_connect_timeout=3.0,
        socket_timeout=read_timeout_s,
        retry=Retry(NoBackoff(), 0),
        **({} if url.startswith("unix") else {"socket_keepalive": True}),
    )


@contextlib.contextmanager
def our_errors(url: str) -> Iterator[None]:
    """Turn redis-py's errors into ours where they enter."""
    try:
        yield
    except redis_errors.ResponseError as error:
        raise _of_reply(url, error) from error
    except (redis_errors.RedisError, OSError, asyncio.IncompleteReadError) as error:
        raise StateUnavailable(url, str(error) or type(error).__name__) from error


# redis-py takes the code off the text of those replies that it has a class for, and leaves it on all others.
_NOT_NOW = (
    redis_errors.ReadOnlyError,
    redis_errors.ClusterDownError,  # and MASTERDOWN
    redis_errors.TryAgainError,
    redis_errors.NoPermissionError,
)


def _of_reply(url: str, error: redis_errors.ResponseError) -> Exception:
    text = str(error)
    if isinstance(error, redis_errors.OutOfMemoryError) or "OOM command not allowed" in text:
        return StateOverloaded(url)  # the second form comes from inside a script, on Redis 6
    if isinstance(error, _NOT_NOW) or text.startswith(("BUSY", "MISCONF", "NOREPLICAS")):
        return StateUnavailable(url, text)
    return error


async def check_server(client: Client, url: str, *, unsafe: bool) -> str:
    """Refuse a server that is too old or that may lose data by its own policy. Answers its version.

    Raises:
        UnsafeState: naming the setting, what was found, and the command that mends it.
        StateUnavailable: it does not answer.
    """
    shown = without_password(url)
    with our_errors(url):
        info = await client.info("server")
        version = str(info.get("valkey_version") or info["redis_version"])
        found = tuple(int(part) for part in str(info["redis_version"]).split(".")[:2])
        if found < MINIMUM_VERSION:
            raise UnsafeState(f"Redis at {shown} is {version}", hint="LCQ needs Redis 6.2 or newer, or Valkey")
        if unsafe:
            return version
        memory = await client.info("memory")
        persistence = await client.info("persistence")
    policy = memory.get("maxmemory_policy", "noeviction")
    if policy != "noeviction":
        raise UnsafeState(
            f"Redis at {shown} may throw tasks away: maxmemory-policy is {policy}",
            hint="redis-cli config set maxmemory-policy noeviction, or set redis.unsafe: true",
        )
    if not persistence.get("aof_enabled"):
        raise UnsafeState(
            f"Redis at {shown} forgets accepted tasks when it stops: appendonly is off",
            hint="redis-cli config set appendonly yes, or set redis.unsafe: true",
        )
    return version

"""How Redis is reached, what it must be, and whose errors its errors become."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any, TypeAlias

from redis import asyncio as redis
from redis import exceptions as redis_errors
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from lcq.errors import StateOverloaded, StateUnavailable, UnsafeState, without_password

MINIMUM_VERSION = (6, 2)
ANSWER_S = 10.0  # how long an answer may take before the server is taken for gone
_MOST_CONNECTIONS = 32  # of one client: a herd of questions waits for its turn, instead of becoming one of connections


Client: TypeAlias = Any  # redis-py's types cannot say that decode_responses makes every answer text


def connect(url: str) -> Client:
    """A client for ``url`` (redis://, rediss://, unix://). Connects when first used; never retries by itself,

    because a script sent twice is a move made twice: who asked decides. Every use stands in ``our_errors``.
    """
    pool: Any = redis.BlockingConnectionPool.from_url(
        url,
        max_connections=_MOST_CONNECTIONS,
        timeout=None,  # the time-out is in our_errors
        decode_responses=True,
        socket_connect_timeout=3.0,
        # The time-out is in our_errors: redis-py's own sends under asyncio.wait_for, which on Python 3.11 swallows a
        # cancellation now and then, and an asyncio.Task that does not hear of its end is waited for without end.
        socket_timeout=None,
        retry=Retry(NoBackoff(), 0),
        **({} if url.startswith("unix") else {"socket_keepalive": True}),
    )
    return redis.Redis.from_pool(pool)


@contextlib.asynccontextmanager
async def our_errors(url: str, *, within_s: float = ANSWER_S) -> AsyncIterator[None]:
    """Turn redis-py's errors into ours where they enter, and silence of ``within_s`` into one of them."""
    try:
        async with asyncio.timeout(within_s):
            yield
    except TimeoutError as error:
        raise StateUnavailable(url, f"not a word within {within_s:g} s") from error
    except (redis_errors.RedisError, OSError, asyncio.IncompleteReadError) as error:
        raise ours(url, error) from error


def ours(url: str, error: Exception) -> Exception:
    """The error of LCQ that ``error``, from redis-py, stands for; itself where it is a bug of ours."""
    if isinstance(error, redis_errors.ResponseError):
        return _of_reply(url, error)
    return StateUnavailable(url, str(error) or type(error).__name__)


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
    async with our_errors(url):
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

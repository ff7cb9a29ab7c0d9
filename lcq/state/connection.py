"""How Redis is reached, what it must be, and whose errors its errors become."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import ipaddress
import random
import re
import time
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any, TypeAlias

from redis import asyncio as redis
from redis import exceptions as redis_errors
from redis.asyncio.connection import (
    AbstractConnection,
    BlockingConnectionPool,
    Connection,
    SSLConnection,
    UnixDomainSocketConnection,
    parse_url,
)
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from lcq.errors import (
    InvalidConfig,
    StateDamaged,
    StateOverloaded,
    StateUnavailable,
    UnsafeState,
    without_password,
)
from lcq.state.sentinels import EXAMPLE, SCHEMES, Address, SentinelUrl

MINIMUM_VERSION = (6, 2)
ANSWER_S = 10.0  # how long an answer may take before the server is taken for gone
CONNECT_S = 3.0
_BACK_OFF_S = (0.05, 1.0)  # between attempts to connect: first and longest pause, of which each is a chance part
_MOST_CONNECTIONS = 32  # of one client: a herd of questions waits for its turn, instead of becoming one of connections


Client: TypeAlias = Any  # redis-py's types cannot say that decode_responses makes every answer text


class _BackOff:
    """Keeps the connections of one client from trying all the time while the server is away.

    All who would connect before the pause is over get the failure of the last attempt. The pause is chosen anew after
    each failure, evenly between nothing and a bound that doubles (full jitter): many schedulers and consoles lose the
    same server in the same moment, and must not come back in the same one.
    """

    def __init__(self) -> None:
        self._failures = 0
        self._not_before = 0.0
        self._succeeded = 0.0
        self._last: Exception | None = None
        self.address: Address | None = None  # of the primary that was found last, where Sentinels name it

    def check(self) -> None:
        if self._last is not None and time.monotonic() < self._not_before:
            raise self._last.with_traceback(None)

    def failed(self, error: Exception, *, began: float) -> None:
        """An attempt that began at ``began`` (monotonic seconds) has failed; one from before the last success tells

        of the server that was there then, and keeps nobody waiting.
        """
        if began < self._succeeded:
            return
        shortest_s, longest_s = _BACK_OFF_S
        pause_s = min(longest_s, shortest_s * 2 ** min(self._failures, 16))
        self._failures += 1
        self._not_before = time.monotonic() + random.uniform(0, pause_s)
        self._last = error

    def succeeded(self) -> None:
        self._failures, self._last, self._succeeded = 0, None, time.monotonic()


# What a server says that is not, or is no longer, the primary.
_NOT_PRIMARY = re.compile(r"^(READONLY|MASTERDOWN|UNBLOCKED) |-READONLY |against a read only replica")


class _NotPrimaryError(redis_errors.ConnectionError):
    """The server is there, but is not the one that may be written."""


@functools.cache
def _driver() -> Mapping[str, Any]:
    """What connections tell of redis-py: each would look for its version by reading all that its package says of
    itself, which is most of the work of a new one."""
    try:
        from redis.driver_info import DriverInfo
    except ImportError:  # an older one looks once
        return {}
    return {"driver_info": DriverInfo()}


class _Ours(AbstractConnection):
    """What all our connections do: back off together, and leave a server that is not the primary."""

    def __init__(self, *, back_off: _BackOff, sentinels: SentinelUrl | None = None, **how: Any) -> None:
        super().__init__(**{**_driver(), **how})
        self._back_off = back_off
        self._sentinels = sentinels

    async def connect(self) -> None:
        if self.is_connected:
            return
        self._back_off.check()
        began = time.monotonic()
        try:
            await super().connect()  # type: ignore[no-untyped-call]
        except (redis_errors.RedisError, OSError) as error:
            self._back_off.failed(error, began=began)
            raise
        self._back_off.succeeded()

    async def _connect(self) -> None:
        if self._sentinels is not None and isinstance(self, Connection):
            self.host, self.port = self._back_off.address = await self._sentinels.primary()
        await super()._connect()  # type: ignore[safe-super,no-untyped-call]  # a kind of connection stands behind us

    async def read_response(self, *args: Any, **options: Any) -> Any:
        try:
            return await super().read_response(*args, **options)
        except redis_errors.ResponseError as error:
            if not (isinstance(error, redis_errors.ReadOnlyError) or _NOT_PRIMARY.search(str(error))):
                raise
            await self.disconnect(nowait=True)  # the next attempt asks anew who the primary is, and where
            raise _NotPrimaryError(f"it is not the primary any more: {_said(error)}") from error


class _Tcp(_Ours, Connection):  # type: ignore[misc]  # redis-py says the types of host and port nowhere
    pass


class _Tls(_Ours, SSLConnection):  # type: ignore[misc]
    pass


class _Unix(_Ours, UnixDomainSocketConnection):
    pass


_KINDS: dict[Any, Any] = {Connection: _Tcp, SSLConnection: _Tls, UnixDomainSocketConnection: _Unix}


async def _greet_primary(connection: Any) -> None:
    """Log in, and leave at once where a Sentinel has named one that is a replica now."""
    await connection.on_connect()
    try:
        await connection.send_command("ROLE")
        role = (await connection.read_response())[0]
    except redis_errors.NoPermissionError:
        return  # a reader's account need not have it; it goes by the Sentinels' word
    if role not in ("master", b"master"):
        raise _NotPrimaryError(f"{connection.host}:{connection.port} is not the primary, although a Sentinel names it")


def connect(url: str) -> Client:
    """A client for ``url`` (redis://, rediss://, unix://, redis+sentinel://, rediss+sentinel://). Connects when first

    used; never retries by itself, because a script sent twice is a move made twice: who asked decides. Every use
    stands in ``our_errors``.

    Raises:
        InvalidConfig: it is no such URL, or names a file that is not there.
    """
    how: dict[str, Any]
    if url.partition("://")[0] in SCHEMES:
        sentinels = SentinelUrl.read(url)
        how = dict(sentinels.server) | {"sentinels": sentinels, "redis_connect_func": _greet_primary}
        kind = _KINDS[how.pop("connection_class", Connection)]
    else:
        try:
            how = dict(parse_url(url))
        except ValueError as error:
            raise InvalidConfig(
                f"redis.url: {without_password(url)} cannot be read",
                hint=f"write redis://, rediss:// or unix:// with an address, or {EXAMPLE}; what is not a letter or a "
                "digit in a password is written as %XX",
            ) from error
        kind = _KINDS[how.pop("connection_class", Connection)]
    for option in ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile"):
        if option in how and not Path(how[option]).is_file():
            raise InvalidConfig(
                f"redis: there is no file {how[option]}", hint="see redis.ca_file, redis.cert_file and redis.key_file"
            )
    pool = BlockingConnectionPool(
        max_connections=_MOST_CONNECTIONS,
        timeout=None,  # the time-out is in our_errors
        connection_class=kind,
        decode_responses=True,
        socket_connect_timeout=CONNECT_S,
        # The time-out is in our_errors: redis-py's own sends under asyncio.wait_for, which on Python 3.11 swallows a
        # cancellation now and then, and an asyncio.Task that does not hear of its end is waited for without end.
        socket_timeout=None,
        retry=Retry(NoBackoff(), 0),
        back_off=_BackOff(),
        **how,
    )
    return redis.Redis.from_pool(pool)


async def leave_former_primary(client: Client) -> None:
    """Close the connections of ``client`` if most of its Sentinels name another primary than theirs.

    A primary that is cut off from them takes writes for as long as we reach it, and all of those will be lost.
    """
    pool = client.connection_pool
    sentinels: SentinelUrl | None = pool.connection_kwargs.get("sentinels")
    known: Address | None = pool.connection_kwargs["back_off"].address
    if sentinels is not None and known is not None and await sentinels.agreed_primary() not in (None, known):
        await pool.disconnect()


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
    refused = isinstance(error, redis_errors.AuthenticationError | redis_errors.BusyLoadingError | _NotPrimaryError)
    return StateUnavailable(url, _said(error) or type(error).__name__, refused=refused, hint=_hint(url, error))


# Replies that tell of a bug of ours, or of a record that is not what it should be. All others tell of the server.
_OUR_FAULT = re.compile(r"^(ERR|WRONGTYPE|NOSCRIPT|EXECABORT|NOPROTO|SYNTAX|[^A-Z]|[A-Z][a-z ])")
_FULL = re.compile(r"OOM command not allowed|^OOM |command not allowed when used memory")
# Said from within a script, on Redis 6.
_IN_SCRIPT = re.compile(r"-(READONLY|MISCONF|NOREPLICAS|MASTERDOWN|LOADING|CLUSTERDOWN|TRYAGAIN|BUSY) ")
# redis-py takes the code off the text of those replies that it has a class for, and leaves it on all others.
_NAMED = (
    redis_errors.ReadOnlyError,
    redis_errors.ClusterDownError,  # and MASTERDOWN
    redis_errors.TryAgainError,
    redis_errors.AskError,  # and MOVED
    redis_errors.NoPermissionError,
)


# A reply in a pipeline is told with the command that it was for, as the text of a tuple.
_IN_PIPELINE = re.compile(
    r"^Command # \d+ \(.*?\) of pipeline caused error: (?:\(['\"])?(?P<said>.*?)(?:['\"],\))?$", re.DOTALL
)


_WHERE = re.compile(r" script: [0-9a-f]{40}, on @user_script:\d+\.?")


def _said(error: Exception) -> str:
    """What the server said, without what redis-py puts around it."""
    text = str(error)
    piped = _IN_PIPELINE.match(text)
    return _WHERE.sub("", piped["said"] if piped else text)


def _of_reply(url: str, error: redis_errors.ResponseError) -> Exception:
    text = _said(error)
    if isinstance(error, redis_errors.OutOfMemoryError) or _FULL.search(text):
        return StateOverloaded(url)
    if isinstance(error, _NAMED) or _IN_SCRIPT.search(text) or not _OUR_FAULT.match(text):
        return StateUnavailable(url, text, refused=True, hint=_hint(url, error))
    return StateDamaged(url, text)


_WAIT = "this passes by itself, or its log says what is wrong"


def _hint(url: str, error: Exception) -> str:
    """What to do about a refusal; "" where nothing better can be said than for any."""
    text = _said(error)
    if isinstance(error, redis_errors.NoPermissionError) or text.startswith("NOPERM"):
        return "allow it in this user's ACL; docs/redis.md has what LCQ needs"
    if isinstance(error, _NotPrimaryError):
        return "redis.url must lead to the primary; by way of Sentinels it is found again by itself"
    if isinstance(error, redis_errors.AuthenticationError):
        return "set user and password in redis.url as the server's ACL has them: redis://user:password@host:6379/0"
    if "CERTIFICATE_VERIFY_FAILED" in text:
        return "name the file of the authority that signed its certificate in redis.ca_file"
    if "SSL" in text or (url.startswith("rediss") and isinstance(error, redis_errors.TimeoutError)):
        return "rediss:// is for a port that speaks TLS, redis:// for one that does not"
    return _WAIT if isinstance(error, redis_errors.ResponseError | redis_errors.BusyLoadingError) else ""


def _is_loopback(address: str) -> bool:
    return ipaddress.ip_address(address.partition("%")[0]).is_loopback


async def _say_nothing(connection: Any) -> None:
    """Log in as nobody."""
    connection._parser.on_connect(connection)


async def is_open(client: Client) -> bool:
    """Whether the server of ``client`` is on another host, or at least not on loopback, and lets in whoever reaches it:
    one that shows neither a password nor a certificate."""
    pool = client.connection_pool
    if issubclass(pool.connection_class, UnixDomainSocketConnection):
        return False
    shown = ("username", "password", "credential_provider", "ssl_certfile", "ssl_keyfile")
    how = {name: value for name, value in pool.connection_kwargs.items() if name not in shown}
    stranger = pool.connection_class(**how | {"back_off": _BackOff(), "redis_connect_func": _say_nothing})
    try:
        async with asyncio.timeout(CONNECT_S):
            await stranger.connect()
            peer = stranger._writer.get_extra_info("peername")
            if peer is None or _is_loopback(str(peer[0])):
                return False
            await stranger.send_command("PING", check_health=False)
            return (await stranger.read_response()) in ("PONG", b"PONG")
    except (redis_errors.RedisError, OSError, TimeoutError):
        return False  # it asks who one is
    finally:
        await stranger.disconnect(nowait=True)


async def check_server(client: Client, url: str, *, unsafe: bool, trusted_network: bool = False) -> str:
    """Refuse a server that is too old, that may lose data by its own policy, or that lets in whoever reaches it.

    ``unsafe``, ``trusted_network``: it may do the one or the other. Answers its version.

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
        if not trusted_network and await is_open(client):
            raise UnsafeState(
                f"Redis at {shown} lets in whoever reaches it: it asked for no password",
                hint="give it accounts (docs/redis.md, sample-config/redis/users.acl) and put ours into redis.url; "
                "or set redis.trusted_network: true, where nobody else reaches it",
            )
        if unsafe:
            return version
        memory = await client.info("memory")
        persistence = await client.info("persistence")
    if (risk := risk_of(url, memory, persistence)) is not None:
        raise risk
    return version


def risk_of(url: str, memory: Mapping[str, Any], persistence: Mapping[str, Any]) -> UnsafeState | None:
    """By which of its settings the server may lose data, going by two sections of its INFO; None if by none."""
    shown = without_password(url)
    policy = memory.get("maxmemory_policy", "noeviction")
    if policy != "noeviction":
        return UnsafeState(
            f"Redis at {shown} may throw tasks away: maxmemory-policy is {policy}",
            hint="redis-cli config set maxmemory-policy noeviction, or set redis.unsafe: true",
        )
    if not persistence.get("aof_enabled") and not persistence.get("loading"):  # while it reads its log, that is closed
        return UnsafeState(
            f"Redis at {shown} forgets accepted tasks when it stops: appendonly is off",
            hint="redis-cli config set appendonly yes, or set redis.unsafe: true",
        )
    return None

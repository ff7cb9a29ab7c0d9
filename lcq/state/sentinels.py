"""Sentinels: what a redis+sentinel:// URL says, and which server its Sentinels call the primary now."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from redis import asyncio as redis
from redis import exceptions as redis_errors
from redis.asyncio.connection import SSLConnection, parse_url
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from lcq.errors import InvalidConfig, without_password

SCHEMES = {"redis+sentinel": "redis", "rediss+sentinel": "rediss"}
EXAMPLE = "redis+sentinel://host-1:26379,host-2:26379,host-3:26379/mymaster/0"
_PORT = 26379
_ASK_S = 1.0  # a Sentinel that says nothing for so long is passed over: there are others
_ASK_BUSY_S = 5.0  # where none of them said anything in time, they may all be on a host that has too much to do
_SILENT = "does not answer"
_FORM = f"write it as {EXAMPLE}"

Address = tuple[str, int]


@dataclass(frozen=True)
class SentinelUrl:
    """The Sentinels, the name they know the primary by, and how to speak to both."""

    shown: str  # the URL without its passwords
    sentinels: tuple[Address, ...]
    name: str
    server: dict[str, Any]  # keyword arguments for a connection to the primary, but for where it is
    sentinel: dict[str, Any]

    @classmethod
    def read(cls, url: str) -> SentinelUrl:
        """Take ``redis+sentinel://[user:password@]host[:port],…/name[/db][?…]`` apart.

        ``rediss+sentinel`` speaks TLS with both. The user and password are for the servers; for the Sentinels they are
        ``sentinel_username`` and ``sentinel_password`` in the query.

        Raises:
            InvalidConfig: it names no Sentinel or no primary, or something in it cannot be read.
        """
        shown = without_password(url)
        parts = urlsplit(url)
        name, _, database = parts.path.strip("/").partition("/")
        account, _, hosts = parts.netloc.rpartition("@")
        if not hosts or not name:
            missing = "names no primary" if hosts else "names no Sentinel"
            raise InvalidConfig(f"redis.url: {shown} {missing}", hint=_FORM)
        if database and not database.isdigit():
            raise InvalidConfig(f"redis.url: {shown} asks for the database {database!r}", hint=_FORM)
        sentinels = tuple(_address(host, shown) for host in hosts.split(","))
        account += "@" if account else ""
        try:
            # One host stands for all, so that what redis-py understands in a URL is understood here too.
            plain = parse_url(f"{SCHEMES[parts.scheme]}://{account}sentinel/{database or 0}?{parts.query}")
        except ValueError as error:
            raise InvalidConfig(f"redis.url: {shown} cannot be read", hint=_FORM) from error
        server: dict[str, Any] = {key: value for key, value in plain.items() if key not in ("host", "port")}
        sentinel = {
            key.removeprefix("sentinel_"): server.pop(key)
            for key in ("sentinel_username", "sentinel_password")
            if key in server
        }
        if server.get("connection_class") is SSLConnection:
            sentinel |= {"ssl": True} | {key: value for key, value in server.items() if key.startswith("ssl_")}
        return cls(shown, sentinels, name, server, sentinel)

    async def primary(self) -> Address:
        """Where the primary is, by the word of most of the Sentinels that answer.

        Raises:
            redis.exceptions.ConnectionError: none of them names it; says what each said.
        """
        said = await self._ask_all()
        if _SILENT in said and all(isinstance(answer, str) for answer in said):
            said = await self._ask_all(_ASK_BUSY_S)
        named = Counter(answer for answer in said if not isinstance(answer, str))
        if not named:
            told = "; ".join(
                f"{host}:{port} {answer}" for (host, port), answer in zip(self.sentinels, said, strict=True)
            )
            raise redis_errors.ConnectionError(f"no Sentinel names a primary {self.name!r}: {told}")
        return named.most_common(1)[0][0]

    async def agreed_primary(self) -> Address | None:
        """The primary that more than half of all the Sentinels name; None if none is."""
        named = Counter(answer for answer in await self._ask_all() if not isinstance(answer, str))
        return next((address for address, votes in named.items() if 2 * votes > len(self.sentinels)), None)

    async def _ask_all(self, patience_s: float | None = None) -> list[Address | str]:
        patience_s = _ASK_S if patience_s is None else patience_s
        return list(await asyncio.gather(*(self._ask(host, port, patience_s) for host, port in self.sentinels)))

    async def _ask(self, host: str, port: int, patience_s: float) -> Address | str:
        """The primary that one Sentinel names, or why it names none."""
        client: Any = redis.Redis(
            host=host,
            port=port,
            decode_responses=True,
            socket_timeout=None,
            retry=Retry(NoBackoff(), 0),
            **self.sentinel,
        )
        # Of our own, and not the pool's: who is cancelled while a pool takes a connection back leaves it open.
        connection: Any = client.connection_pool.make_connection()
        try:
            async with asyncio.timeout(patience_s):
                await connection.connect()
                await connection.send_command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self.name)
                answer = await connection.read_response()
        except TimeoutError:
            return _SILENT
        except (redis_errors.RedisError, OSError) as error:
            return f"says {error}"
        finally:
            await connection.disconnect(nowait=True)
        if not answer:
            return "does not know it"
        return (str(answer[0]), int(answer[1]))


def _address(text: str, shown: str) -> Address:
    try:
        parts = urlsplit(f"//{text}")
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
    if not host:
        raise InvalidConfig(f"redis.url: {shown}: {text!r} is not a Sentinel's address", hint=_FORM)
    return host, port or _PORT

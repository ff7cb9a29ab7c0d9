"""What an agent measures, and the port at which Prometheus reads it: ``--metrics-port``, on loopback unless told."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from email.utils import formatdate
from http import HTTPStatus

from lcq.config import AgentConfig
from lcq.errors import InvalidConfig
from lcq.metrics.exposition import Sheet, exposed
from lcq.metrics.instruments import Counts, Histogram

_log = logging.getLogger(__name__)
_PATH = "/metrics"
_ASKED_S = 10.0
_MOST_BYTES = 16 * 1024  # of a request
_MOST_AT_ONCE = 16


class AgentMeasures:
    """What one agent has measured since its start."""

    def __init__(self) -> None:
        self.fetch = Histogram("lcq_agent_fetch_seconds")
        self.commit = Histogram("lcq_agent_commit_seconds")
        self.beat = Histogram("lcq_agent_beat_seconds")
        self.run = Histogram("lcq_agent_run_seconds")
        self.attempt = Histogram("lcq_agent_attempt_seconds")
        self.loop_lag = Histogram("lcq_agent_event_loop_lag_seconds")
        self.attempts = Counts("lcq_agent_attempts_total")
        self.runners_started = 0

    def runner_started(self) -> None:
        self.runners_started += 1

    def put_on(self, sheet: Sheet) -> None:
        for histogram in (self.fetch, self.commit, self.beat, self.run, self.attempt, self.loop_lag):
            sheet.put_histogram(histogram)
        sheet.put_counts(self.attempts)
        sheet.put("lcq_agent_runners_started_total", self.runners_started)


@asynccontextmanager
async def metrics_port(config: AgentConfig, fill: Callable[[Sheet], None]) -> AsyncIterator[str]:
    """Answer ``GET /metrics`` with what ``fill`` puts on a sheet, while the block lasts; its "host:port".

    "" where ``agent.metrics_port`` is not set: then there is no port.

    Raises:
        InvalidConfig: the port is taken, or the address is not this host's.
    """
    if config.metrics_port is None:
        yield ""
        return
    free = asyncio.Semaphore(_MOST_AT_ONCE)

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with free, asyncio.timeout(_ASKED_S):
                await _answer(reader, writer, fill)
        except (OSError, TimeoutError, ValueError, asyncio.LimitOverrunError):
            pass  # whoever asked so gets no answer
        finally:
            writer.close()

    bind = "127.0.0.1" if config.metrics_bind == "localhost" else config.metrics_bind
    try:
        server = await asyncio.start_server(answer, bind, config.metrics_port, limit=_MOST_BYTES)
    except OSError as error:
        raise InvalidConfig(
            f"cannot bind the metrics to {bind}:{config.metrics_port}: {error.strerror}",
            hint="set agent.metrics_port (--metrics-port) to another one, or 0 for a free one",
        ) from error
    host, port = server.sockets[0].getsockname()[:2]
    where = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    _log.info("metrics are at http://%s%s", where, _PATH)
    try:
        yield where
    finally:
        server.close()
        await server.wait_closed()


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, fill: Callable[[Sheet], None]) -> None:
    """One request, one answer, and the connection ends."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    request, *rest = head.split("\r\n")
    method, _, target = request.partition(" ")
    path = target.partition(" ")[0].partition("?")[0]
    headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in rest)}
    status, media_type, content = HTTPStatus.OK, "text/plain; charset=utf-8", b""
    if path != _PATH:
        status, content = HTTPStatus.NOT_FOUND, f"there is {_PATH} here, and nothing else\n".encode()
    elif method not in ("GET", "HEAD"):
        status, content = HTTPStatus.METHOD_NOT_ALLOWED, b"only GET\n"
    else:
        sheet = Sheet()
        fill(sheet)
        content, media_type = await asyncio.to_thread(exposed, sheet, headers.get("accept", ""))
    told = [
        f"HTTP/1.1 {status.value} {status.phrase}",
        f"Date: {formatdate(usegmt=True)}",
        f"Content-Type: {media_type}",
        f"Content-Length: {len(content)}",
        "X-Content-Type-Options: nosniff",
        "Cache-Control: no-store",
        "Connection: close",
    ]
    writer.write("\r\n".join([*told, "", ""]).encode("latin-1") + (b"" if method == "HEAD" else content))
    await writer.drain()
    with contextlib.suppress(OSError):
        writer.write_eof()

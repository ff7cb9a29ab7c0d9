"""A Redis server on a TCP port, to be killed, stopped and started again at will: what a proxy can stand in front of."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

import redis

from lcq.embedded import find_server
from tests.cluster import free_port
from tests.conftest import wait_until_sync


class TcpServer:
    """One server on ``port`` of the loopback, with its append-only file in ``folder``."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it on what it has written before; returns when it answers."""
        self._folder.mkdir(parents=True, exist_ok=True)
        options = {"port": self.port, "bind": "127.0.0.1", "dir": self._folder, "appendonly": "yes", "save": ""}
        arguments = [text for name, value in options.items() for text in (f"--{name}", str(value))]
        self._process = subprocess.Popen([find_server(), *arguments], stdout=subprocess.DEVNULL)
        wait_until_sync(self._answers, timeout=60, what="the server to answer")

    def _answers(self) -> bool:
        with contextlib.suppress(redis.RedisError), redis.Redis(port=self.port) as client:
            return bool(client.ping())
        return False

    def kill(self) -> None:
        """kill -9."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(30)
            self._process = None


@contextlib.contextmanager
def tcp_server(folder: Path) -> Iterator[TcpServer]:
    """A running one."""
    server = TcpServer(folder)
    try:
        server.start()
        yield server
    finally:
        server.kill()

"""systemd's side of sd_notify: the datagram socket to which a service says how it is."""

from __future__ import annotations

import contextlib
import secrets
import socket
from collections.abc import Iterator

from tests.conftest import wait_until_sync


class Notified:
    """What a service has said, a line each, in order. ``environment``: what it is started with."""

    def __init__(self, *, watchdog_s: float = 0.0) -> None:
        name = f"lcq-test-{secrets.token_hex(8)}"
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind("\0" + name)
        self._socket.setblocking(False)
        self.environment = {"NOTIFY_SOCKET": f"@{name}"}
        if watchdog_s:
            self.environment["WATCHDOG_USEC"] = str(round(watchdog_s * 1_000_000))
        self._said: list[str] = []

    @property
    def said(self) -> list[str]:
        with contextlib.suppress(BlockingIOError):
            while True:
                self._said += self._socket.recv(65536).decode().splitlines()
        return self._said

    def count(self, line: str) -> int:
        return self.said.count(line)

    def status(self) -> str:
        """The last one that was told."""
        told = [line for line in self.said if line.startswith("STATUS=")]
        return told[-1].removeprefix("STATUS=") if told else ""

    def wait(self, line: str, times: int = 1) -> None:
        wait_until_sync(lambda: self.count(line) >= times, what=f"{line} {times} times, of {self.said[-6:]}")

    def close(self) -> None:
        self._socket.close()


@contextlib.contextmanager
def notified(*, watchdog_s: float = 0.0) -> Iterator[Notified]:
    manager = Notified(watchdog_s=watchdog_s)
    try:
        yield manager
    finally:
        manager.close()

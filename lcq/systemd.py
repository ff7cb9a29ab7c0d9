"""What systemd is told of this process (sd_notify): that it is ready, how it is, that it stops, that its loop turns.

Under anything else than systemd nothing is told, and nothing costs anything. The watchdog is fed by the event loop
itself: a loop that hangs feeds it no more, whatever threads still live.
"""

from __future__ import annotations

import asyncio
import contextlib
import faulthandler
import logging
import os
import socket
import time
from collections.abc import AsyncIterator, Callable, MutableMapping

_log = logging.getLogger(__name__)
_FEEDS = 3  # in the time after which systemd takes us for dead: one that is late kills nobody
_SLOWEST_S = 5.0  # between two looks at how we are, also without a watchdog
_VARIABLES = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")


class ServiceManager:
    """The service manager that started this process, if one did. ``watchdog_s``: 0 where it does not watch us."""

    def __init__(self, address: str = "", *, watchdog_s: float = 0.0) -> None:
        """``address``: of its datagram socket; a path, or one that begins with @ (Linux's abstract ones)."""
        self.watchdog_s = watchdog_s
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self._socket: socket.socket | None = None
        self._status = ""
        self._is_stopping = False
        if address:
            try:
                self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
                self._socket.setblocking(False)
            except OSError as error:
                _log.warning("systemd cannot be told how this service is: %s", error)

    @classmethod
    def of_this_process(cls, environment: MutableMapping[str, str] = os.environ) -> ServiceManager:
        """The one that the environment names. The variables are taken out of it: no child of ours is the service."""
        address, usec, pid = (environment.pop(name, "") for name in _VARIABLES)
        if not address.startswith(("/", "@")):  # "vsock:" and what may come
            return cls()
        is_watched = usec.isdecimal() and pid in ("", str(os.getpid()))
        return cls(address, watchdog_s=int(usec) / 1_000_000 if is_watched else 0.0)

    def ready(self, status: str) -> None:
        """The start, or the reading of new settings, is over. ``status``: a line for ``systemctl status``."""
        self._status = status
        self._tell("READY=1", f"STATUS={_line(status)}")

    def reloading(self) -> None:
        """Settings are read again; ``ready`` says when that is over."""
        self._tell("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self, patience_s: float) -> None:
        """This process ends, and may need ``patience_s`` seconds for what still runs."""
        self._is_stopping = True
        self._tell("STOPPING=1", f"EXTEND_TIMEOUT_USEC={round(patience_s * 1_000_000)}")

    @contextlib.asynccontextmanager
    async def watched(self, status: Callable[[], str]) -> AsyncIterator[None]:
        """While the block lasts, this loop feeds the watchdog, and ``status()`` is told whenever it has changed."""
        if self._socket is None:
            yield
            return
        if self.watchdog_s:
            faulthandler.enable()  # systemd's SIGABRT then leaves in the journal where each thread stood
        feeding = asyncio.create_task(self._feed(status), name="systemd")
        try:
            yield
        finally:
            feeding.cancel()
            await asyncio.wait({feeding})

    async def _feed(self, status: Callable[[], str]) -> None:
        pause_s = min(_SLOWEST_S, self.watchdog_s / _FEEDS) if self.watchdog_s else _SLOWEST_S
        while True:
            said = ["WATCHDOG=1"] if self.watchdog_s else []
            now = status()
            if now != self._status and not self._is_stopping:
                self._status = now
                said.append(f"STATUS={_line(now)}")
            if said:
                self._tell(*said)
            await asyncio.sleep(pause_s)

    def close(self) -> None:
        """Let go of its socket."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _tell(self, *lines: str) -> None:
        if self._socket is None:
            return
        try:
            self._socket.sendto("\n".join(lines).encode(), self._address)
        except OSError as error:  # it is busy, or being started anew: the next word comes soon
            _log.debug("systemd was not told %s: %s", lines[0], error)


def _line(text: str) -> str:
    return " ".join(text.split())[:500]

"""An IOPaint server of our own: one child process, from its start to its end."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from typing import IO

import psutil

from lcq.leash import leashed
from worker.engines.iopaint_api import IopaintApi

_log = logging.getLogger(__name__)
_LINES, _LINE, _QUOTED = 40, 2000, 600
_GRACE_S = 1.0
_KILL_S = 5.0  # a killed process that is not gone by then is stuck in the kernel
_NOT_INHERITED = ("PYTHONPATH", "PYTHONHOME")  # of this Python; the server has one of its own


class ServerNotStarted(Exception):
    """The program could not be run at all."""


def not_runnable(command: Sequence[str]) -> str:
    """Why ``command`` cannot be run on this host; "" where it can."""
    program = command[0]
    if shutil.which(program) is not None:
        return ""
    if os.path.dirname(program) == "":  # noqa: PTH120 - a name to be looked for, not a path
        return f"there is no program {program} in PATH"
    if os.path.isdir(program):  # noqa: PTH112
        return f"{program} is a folder, not a program"
    return f"{program} may not be executed" if os.path.exists(program) else f"there is no {program}"  # noqa: PTH110


class IopaintServer:
    """A running server that has, or is loading, ``model``.

    It stays in this process's group, so that what ends the group ends it; on Linux the kernel ends it with
    this process too. Make it in a thread that lives as long as the process: to the kernel that one is its
    parent. What it prints goes to the log.
    """

    def __init__(self, command: Sequence[str], model: str, *, device: str, more: Sequence[str] = ()) -> None:
        """Start ``command`` on a free port of the loopback interface.

        ``device``: cpu, cuda or mps. ``more``: further options of its ``start``.

        Raises:
            ServerNotStarted: the program cannot be run.
        """
        self.model = model
        self._lines: deque[str] = deque(maxlen=_LINES)
        self._reservation, port = _reserved_port()
        whole = [*command, "start", "--host", "127.0.0.1", "--port", str(port), "--model", model, "--device", device]
        environment = {name: value for name, value in os.environ.items() if name not in _NOT_INHERITED}
        try:
            self._child = subprocess.Popen(
                leashed([*whole, *more]),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env={**environment, "PYTHONUNBUFFERED": "1"},
                text=True,
                encoding="utf-8",
                errors="replace",
            )
        except (OSError, ValueError) as error:
            self._reservation.close()
            raise ServerNotStarted(f"{command[0]} cannot be started: {error}") from error
        assert self._child.stdout is not None  # noqa: S101 - it is a pipe
        self._drain = threading.Thread(target=self._listen, args=(self._child.stdout,), name="iopaint", daemon=True)
        self._drain.start()
        self.api = IopaintApi(f"http://127.0.0.1:{port}")
        _log.info("IOPaint %d starts with model %s at %s", self._child.pid, model, self.api.url)

    def _listen(self, output: IO[str]) -> None:
        with output:
            while line := output.readline(_LINE):  # a bar of progress may come without an end of line
                if line := line.rstrip():
                    self._lines.append(line)
                    _log.info("IOPaint %d: %s", self._child.pid, line)

    @property
    def pid(self) -> int:
        return self._child.pid

    @property
    def lives(self) -> bool:
        return self._child.poll() is None

    def has_ended(self, *, within_s: float) -> bool:
        """Whether it is gone; it is given ``within_s`` seconds to be."""
        with suppress(subprocess.TimeoutExpired):
            self._child.wait(within_s)
        return not self.lives

    def last_words(self) -> str:
        """How it ended, and what it printed last, on one line."""
        if not self.lives:
            self._drain.join(_GRACE_S)  # what it said just before the end may still be in the pipe
        said = " ".join(" | ".join(tuple(self._lines)[-5:]).split())
        said = "".join(char for char in said if char.isprintable())[-_QUOTED:]
        return _end_of(self._child.poll()) + (f"; its last words: {said}" if said else "; it said nothing")

    def held_bytes(self) -> int:
        """Main memory that it and its children use."""
        held = 0
        for process in self._tree():
            with suppress(psutil.Error):
                held += process.memory_info().rss
        return held

    def end(self, *, grace_s: float = _GRACE_S) -> None:
        """End it and its children; those that are not gone after ``grace_s`` are killed. Twice is once."""
        tree = self._tree()
        if grace_s:
            _signal(tree, signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired):
                self._child.wait(grace_s)
        _signal(tree, signal.SIGKILL)
        try:
            self._child.wait(_KILL_S)
        except subprocess.TimeoutExpired:
            _log.error("IOPaint %d cannot be killed; it is left behind", self._child.pid)
        self.api.close()
        self._reservation.close()

    def _tree(self) -> list[psutil.Process]:
        """It and what it has started; the command may be a script that starts the real one."""
        if not self.lives:
            return []
        try:
            head = psutil.Process(self._child.pid)
            return [head, *head.children(recursive=True)]
        except psutil.Error:
            return []


def _signal(processes: Sequence[psutil.Process], number: signal.Signals) -> None:
    for process in processes:
        with suppress(psutil.Error):  # psutil sees to it that the number has not gone to another process
            process.send_signal(number)


def _end_of(code: int | None) -> str:
    if code is None:
        return "it is still running"
    if code >= 0:
        return f"it ended with exit code {code}"
    killed = " (by hand, or because memory ran out)" if code == -signal.SIGKILL else ""
    return f"it was ended by {signal.Signals(-code).name}{killed}"


def _reserved_port() -> tuple[socket.socket, int]:
    """A free port of the loopback interface, and the socket that keeps it free of others until the server has it.

    On Linux two sockets may be bound to one port if both allow it (servers do) and the first does not listen;
    until it is closed, the kernel gives the port to nobody who asks for any. Elsewhere it is closed already.
    """
    reservation = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    reservation.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    reservation.bind(("127.0.0.1", 0))
    port = int(reservation.getsockname()[1])
    if sys.platform != "linux":
        reservation.close()
    return reservation, port

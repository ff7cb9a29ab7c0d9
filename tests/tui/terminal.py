"""A real terminal for tests: a pty with a program on it, what it sent, and what stands on its screen (read by pyte)."""

from __future__ import annotations

import asyncio
import os
import pty
import re
import sys
import termios
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from types import MappingProxyType

import pyte

from tests.conftest import wait_until

_WITH_TERMINAL = """
import fcntl, os, sys, termios
os.setsid()
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execvp(sys.argv[1], sys.argv[1:])
"""
_PATIENCE_S = 120.0  # a whole cluster and its console on a busy machine: each of them may have to wait for the others
_MODE = re.compile(rb"\x1b\[\?(\d+)([hl])")


class Terminal:
    """A pty with a program on it that has it as its controlling terminal; ``seen`` is all that it has sent."""

    def __init__(self, ours: int, process: asyncio.subprocess.Process, size: tuple[int, int]) -> None:
        self._ours, self.process = ours, process
        self.seen = bytearray()
        self._screen = pyte.Screen(*size)
        self._stream = pyte.ByteStream(self._screen)
        self._painted = 0  # so much of what was seen is on the screen
        asyncio.get_running_loop().add_reader(ours, self._read)  # at once: a full pty would hold the program up

    def _read(self) -> None:
        try:
            while chunk := os.read(self._ours, 65536):
                self.seen.extend(chunk)
        except BlockingIOError:  # nothing there now
            pass
        except OSError:  # its other end is closed
            asyncio.get_running_loop().remove_reader(self._ours)

    def hold(self) -> None:
        """Read nothing more, as a terminal that has stopped: what is sent fills the pty, and then waits."""
        asyncio.get_running_loop().remove_reader(self._ours)

    def go_on(self) -> None:
        asyncio.get_running_loop().add_reader(self._ours, self._read)

    def close(self) -> None:
        """Be gone, as a window that is closed or a line that is cut. Later calls do nothing."""
        if self._ours >= 0:
            asyncio.get_running_loop().remove_reader(self._ours)
            os.close(self._ours)
            self._ours = -1

    def type(self, text: str) -> None:
        os.write(self._ours, text.encode())

    async def shows(self, text: str, *, after: int = 0) -> int:
        """Wait until ``text`` has been sent behind the place ``after``; gives the place behind it."""

        def found() -> int:
            self._read()
            return self.seen.find(text.encode(), after) + 1

        return await wait_until(found, what=f"{text!r} on the terminal") + len(text) - 1

    def lines(self) -> list[str]:
        """What stands on the screen now, without the spaces at the ends of lines."""
        self._read()
        self._stream.feed(bytes(self.seen[self._painted :]))
        self._painted = len(self.seen)
        return [line.rstrip() for line in self._screen.display]

    async def stands(self, *patterns: str, gone: str = "") -> re.Match[str]:
        """Wait until each of ``patterns`` is found in a line of the screen, and ``gone`` in none; gives the first.

        Fails with the screen as it is, if that does not come.
        """

        def found() -> re.Match[str] | None:
            lines = self.lines()
            if gone and any(re.search(gone, line) for line in lines):
                return None
            hits = [next(filter(None, (re.search(one, line) for line in lines)), None) for one in patterns]
            return hits[0] if all(hits) else None

        try:
            return await wait_until(found, what=" and ".join(patterns), timeout=_PATIENCE_S)
        except BaseException as failure:
            failure.add_note("on the screen:\n" + "\n".join(self.lines()))
            raise

    def check_sane(self) -> None:
        """No alternate screen, no mouse, no pasting mode is left on; the cursor is there."""
        self._read()
        modes = {int(number): state == b"h" for number, state in _MODE.findall(self.seen)}
        assert 1049 in modes
        assert [mode for mode, on in modes.items() if on and mode not in (7, 25)] == []
        assert modes[25]
        assert len(re.findall(rb"\x1b\[>\d+u", self.seen)) <= self.seen.count(b"\x1b[<u"), "the keyboard is as before"
        assert b"Traceback" not in self.seen


@asynccontextmanager
async def on_a_terminal(
    *command: str, size: tuple[int, int] = (80, 24), environment: Mapping[str, str] = MappingProxyType({})
) -> AsyncIterator[Terminal]:
    """Run ``command`` on a terminal of ``size`` (columns, lines), with ``environment`` beside our own."""
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (size[1], size[0]))
    # readline, which pytest loads, has told our children its own idea of the size
    own = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", _WITH_TERMINAL, *command, stdin=theirs, stdout=theirs, stderr=theirs,
        env=own | {"TERM": "xterm-256color", "PS1": "$ "} | dict(environment),
    )  # fmt: skip
    os.close(theirs)
    os.set_blocking(ours, False)
    terminal = Terminal(ours, process, size)
    try:
        yield terminal
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        terminal.close()

"""The console on a real terminal: however it ends, the terminal is left as it was found (pitfall 14)."""

from __future__ import annotations

import asyncio
import os
import pty
import re
import shutil
import signal
import sys
import termios
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.conftest import wait_until

_CONSOLE = """
import sys
from pathlib import Path
from lcq.config import DistributedConfig
import tui.app

def boom():
    raise ZeroDivisionError("a fault made by the test")

began = tui.app.ConsoleApp.on_mount

def breaks(self):
    began(self)
    self.set_timer(0.5, boom)

if sys.argv[2:] == ["broken"]:
    tui.app.ConsoleApp.on_mount = breaks
sys.exit(tui.app.run_console(DistributedConfig(data_dir=Path(sys.argv[1]))))
"""
_WITH_TERMINAL = """
import fcntl, os, sys, termios
os.setsid()
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execvp(sys.argv[1], sys.argv[1:])
"""
_MODE = re.compile(rb"\x1b\[\?(\d+)([hl])")


class Terminal:
    """A pty with a program on it that has it as its controlling terminal; ``seen`` is all that it has sent."""

    def __init__(self, ours: int, process: asyncio.subprocess.Process) -> None:
        self._ours, self.process = ours, process
        self.seen = bytearray()

    def _read(self) -> None:
        try:
            while chunk := os.read(self._ours, 65536):
                self.seen.extend(chunk)
        except (BlockingIOError, OSError):  # nothing there now; OSError: its other end is closed
            pass

    def type(self, text: str) -> None:
        os.write(self._ours, text.encode())

    async def shows(self, text: str, *, after: int = 0) -> int:
        """Wait until ``text`` has been sent behind the place ``after``; gives the place behind it."""

        def found() -> int:
            self._read()
            return self.seen.find(text.encode(), after) + 1

        return await wait_until(found, what=f"{text!r} on the terminal") + len(text) - 1

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
async def on_a_terminal(*command: str) -> AsyncIterator[Terminal]:
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 80))
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", _WITH_TERMINAL, *command,
        stdin=theirs, stdout=theirs, stderr=theirs, env=os.environ | {"TERM": "xterm-256color", "PS1": "$ "},
    )  # fmt: skip
    os.close(theirs)
    os.set_blocking(ours, False)
    try:
        yield Terminal(ours, process)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        os.close(ours)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP], ids=["TERM", "HUP"])
async def test_a_signal_ends_it_in_order(tmp_path: Path, number: signal.Signals) -> None:
    async with on_a_terminal(sys.executable, "-c", _CONSOLE, str(tmp_path)) as terminal:
        await terminal.shows("Waiting for the cluster")
        terminal.type("\x1a")  # ctrl-z, where no shell could bring it back
        await terminal.shows("cannot be put aside")
        terminal.process.send_signal(number)
        await terminal.shows("\x1b[?1049l")
        assert await terminal.process.wait() == 0
        terminal.check_sane()
    assert (tmp_path / "console.log").exists()


async def test_a_fault_of_its_own_ends_it_in_order_and_says_where_the_details_are(tmp_path: Path) -> None:
    async with on_a_terminal(sys.executable, "-c", _CONSOLE, str(tmp_path), "broken") as terminal:
        await terminal.shows("error: the console failed: ZeroDivisionError")
        assert await terminal.process.wait() == 1
        terminal.check_sane()


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs a shell with job control")
async def test_ctrl_z_gives_the_shell_back_and_fg_the_console(tmp_path: Path) -> None:
    program = tmp_path / "console.py"
    program.write_text(_CONSOLE)
    async with on_a_terminal("bash", "--norc", "--noprofile", "--noediting", "-i") as terminal:
        terminal.type(f"{sys.executable} {program} {tmp_path}/data\n")
        place = await terminal.shows("Waiting for the cluster")
        terminal.type("\x1a")
        place = await terminal.shows("\x1b[?1049l", after=place)
        place = await terminal.shows("Stopped", after=place)
        terminal.check_sane()
        terminal.type("fg\n")
        place = await terminal.shows("\x1b[?1049h", after=place)
        place = await terminal.shows("Waiting for the cluster", after=place)
        terminal.type("q")
        place = await terminal.shows("Leave the console?", after=place)
        terminal.type("y")
        await terminal.shows("\x1b[?1049l", after=place)
        terminal.type("exit\n")
        await terminal.process.wait()
        terminal.check_sane()

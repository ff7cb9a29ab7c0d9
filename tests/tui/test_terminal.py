"""The console on a real terminal: however it ends, the terminal is left as it was found (pitfall 14)."""

from __future__ import annotations

import shutil
import signal
import sys
from pathlib import Path

import pytest

from tests.tui.terminal import on_a_terminal

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

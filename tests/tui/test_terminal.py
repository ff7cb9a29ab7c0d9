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


LCQ = [sys.executable, "-m", "lcq.cli.main"]


async def test_the_consoles_name_is_seen_at_once_and_a_console_that_cannot_be_leaves_the_terminal_as_it_was(
    tmp_path: Path,
) -> None:
    (tmp_path / "lcq.yaml").write_text("console: {theme: of nobody}\n")
    async with on_a_terminal(*LCQ, "--config", str(tmp_path / "lcq.yaml"), "console") as console:
        place = await console.shows("\x1b[1m LCQ")
        await console.shows("\x1b[?1049l", after=place)
        await console.shows("of nobody", after=place)
        assert await console.process.wait() == 2
        console.check_sane()


async def test_a_signal_before_the_first_frame_leaves_the_terminal_as_it_was(tmp_path: Path) -> None:
    slow = tmp_path / "lcq_slow"
    slow.mkdir()
    (slow / "sitecustomize.py").write_text(
        "import sys, time\n"
        "class Slow:\n"
        "    def find_spec(self, name, *_):\n"
        "        if name == 'tui.app':\n"
        "            time.sleep(600)\n"
        "sys.meta_path.insert(0, Slow())\n"
    )
    async with on_a_terminal(*LCQ, "console", environment={"PYTHONPATH": str(slow)}) as console:
        await console.shows("\x1b[1m LCQ")
        console.process.terminate()
        assert await console.process.wait() == -signal.SIGTERM
        console.check_sane()

"""A terminal that is slower than the console, that stops, or that is gone: nobody waits for it (pitfall 6)."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import signal
import sys
import termios
import threading
import tty
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import wait_until
from tests.tui.terminal import Terminal, on_a_terminal
from tui.outlet import BEHIND_BYTES, MOST_BYTES, Outlet

_A_FRAME = 60_000  # more than a frame of 120x40 ever takes
_CONSOLE = """
import asyncio, json, os, signal, sys
from pathlib import Path
from tests.tui.fakes import FakeCluster, a_node, many_tasks
from tui.app import ConsoleApp
from tui.desk import Desk

async def tell(app, path):
    ticks = 0
    while True:
        await asyncio.sleep(0.05)
        ticks += 1
        lines = []
        if app.is_running and app.screen_stack and app.screen.size:  # not while its screens are taken away
            lines = ["".join(part.text for part in strip).rstrip() for strip in app.screen._compositor.render_strips()]
        told = {"ticks": ticks, "waiting": app._driver.outlet.waiting if app._driver else 0, "lines": lines}
        path.with_suffix(".new").write_text(json.dumps(told))
        os.replace(path.with_suffix(".new"), path)

async def main(folder):
    cluster = FakeCluster(many_tasks(300), [a_node()])
    app = ConsoleApp(Desk(cluster, cluster, cluster="test"), user="maria", crash_log=folder / "crash.log")
    for number in (signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, app.exit, 0)
    async with asyncio.TaskGroup() as tasks:
        telling = tasks.create_task(tell(app, folder / "told.json"))
        await app.run_async()
        telling.cancel()
    return app.return_code

sys.exit(asyncio.run(main(Path(sys.argv[1]))))
"""


class Stopped:
    """A console whose terminal has stopped, and what it tells of itself by another way."""

    def __init__(self, terminal: Terminal, folder: Path) -> None:
        self.terminal, self._file = terminal, folder / "told.json"

    @property
    def told(self) -> dict[str, Any]:
        return dict(json.loads(self._file.read_text()))

    async def stop(self) -> None:
        """Stop reading, and type until the console is behind."""
        self.terminal.hold()
        for _ in range(200):
            self.terminal.type("Gg")  # each paints the whole table anew
            await self.works_on(2)
            if self.told["waiting"] > BEHIND_BYTES:
                return
        raise AssertionError("the terminal takes whatever it is sent")

    async def works_on(self, ticks: int) -> None:
        goal = self.told["ticks"] + ticks
        await wait_until(lambda: self.told["ticks"] >= goal, what="the console's loop to go on")


async def test_a_terminal_that_stops_holds_nothing_up_and_gets_the_newest_frame_when_it_goes_on(tmp_path: Path) -> None:
    command = (sys.executable, "-c", _CONSOLE, str(tmp_path))
    async with on_a_terminal(*command, size=(120, 40)) as terminal:
        await terminal.stands("LIVE", "300 of 300")
        console = Stopped(terminal, tmp_path)
        await console.stop()
        for _ in range(20):
            terminal.type("Ggjk")  # and a queue of thirty writes would be full by now
            await console.works_on(1)
        terminal.type("4")
        await wait_until(lambda: any("ONLINE" in line for line in console.told["lines"]), what="it to hear the key")
        assert console.told["waiting"] < BEHIND_BYTES + _A_FRAME
        seen = len(terminal.seen)
        terminal.go_on()
        await terminal.stands("gpu-1 .*ONLINE")
        assert len(terminal.seen) - seen < BEHIND_BYTES + 3 * _A_FRAME, "what is old by now is sent all the same"
        # the first line has a clock
        await wait_until(
            lambda: terminal.lines()[1:] == console.told["lines"][1:], what="the screen to be as it should"
        )

        terminal.type("2")
        await terminal.stands("300 of 300")
        await console.stop()
        terminal.process.send_signal(signal.SIGTERM)
        assert await terminal.process.wait() == 0
        terminal.go_on()
        await terminal.shows("\x1b[?1049l")
        terminal.check_sane()


async def test_a_terminal_that_is_gone_ends_the_console_whatever_it_still_had_to_send(tmp_path: Path) -> None:
    command = (sys.executable, "-c", _CONSOLE, str(tmp_path))
    async with on_a_terminal(*command, size=(120, 40)) as terminal:
        await terminal.stands("LIVE", "300 of 300")
        console = Stopped(terminal, tmp_path)
        await console.stop()
        terminal.close()
        assert await terminal.process.wait() == 0
    assert not (tmp_path / "crash.log").exists()


@pytest.fixture
def full_pty() -> Iterator[tuple[int, int]]:
    """A pty (our end, the program's) that nobody reads, and in which there is no room left."""
    ours, theirs = pty.openpty()
    tty.setraw(theirs)
    os.set_blocking(theirs, False)
    try:
        while True:
            os.write(theirs, b"." * 1000)
    except BlockingIOError:
        os.set_blocking(theirs, True)
    yield ours, theirs
    for one in (ours, theirs):
        with contextlib.suppress(OSError):  # a test has closed it
            os.close(one)


def test_no_more_is_kept_for_a_terminal_than_a_bound_and_its_last_words_come_in_place_of_it(full_pty) -> None:
    ours, theirs = full_pty
    outlet = Outlet(theirs, lambda: None)
    outlet.start()
    for _ in range(1000):
        outlet.write("x" * 1000)
    assert BEHIND_BYTES < outlet.waiting <= MOST_BYTES
    assert outlet.is_behind
    assert not outlet.end(0.05)
    outlet.give_up("that is all")
    termios.tcflush(theirs, termios.TCOFLUSH)
    outlet.join(60)
    assert not outlet.is_alive()
    seen = b""
    while not seen.endswith(b"that is all"):
        seen += os.read(ours, 65536)
    assert len(seen) < 2 * 65536


async def test_whoever_is_gone_is_told_of_once_and_nothing_is_kept_for_them(full_pty) -> None:
    ours, theirs = full_pty
    gone = threading.Event()
    outlet = Outlet(theirs, gone.set)
    outlet.start()
    outlet.write("x" * 1000)
    os.close(ours)
    await wait_until(gone.is_set)
    outlet.write("more")
    assert outlet.waiting == 0
    assert outlet.end(60)

"""The program around the screens: how it ends, how it fails, and where it finds its cluster."""

from __future__ import annotations

import asyncio
import os
import pty
import sys
from pathlib import Path

import pytest

from lcq.config import DistributedConfig
from lcq.errors import InvalidInput, StateUnavailable
from tests.conftest import wait_until
from tests.tui.fakes import FakeCluster, a_task
from tui.app import ConsoleApp, run_console_async
from tui.cluster import Cluster, redis_url
from tui.desk import Desk


async def test_a_fault_of_the_console_goes_into_a_file_and_ends_it_in_order(tmp_path):
    cluster = FakeCluster([a_task()])
    log = tmp_path / "data" / "crash.log"
    app = ConsoleApp(Desk(cluster, cluster), crash_log=log)
    async with app.run_test():

        def broken() -> None:
            raise ZeroDivisionError("a fault made by the test")

        app.call_later(broken)
        await wait_until(lambda: app.return_code == 1)
    assert "a fault made by the test" in log.read_text()


async def test_without_a_terminal_the_console_says_what_to_use_instead(monkeypatch):
    monkeypatch.setattr(sys.stdin, "isatty", lambda: False)
    with pytest.raises(InvalidInput, match="needs a terminal"):
        await run_console_async(DistributedConfig())


async def test_where_no_cluster_runs_the_console_is_told_how_to_start_one(tmp_path):
    config = DistributedConfig(data_dir=tmp_path)
    with pytest.raises(StateUnavailable, match="lcq up"):
        redis_url(config)
    async with Cluster(config) as cluster:
        with pytest.raises(StateUnavailable, match="no cluster is running"):
            await cluster.snapshot()


def test_a_configured_redis_is_the_one_to_read():
    config = DistributedConfig(redis={"url": "redis://example:6379/1"})
    assert redis_url(config) == "redis://example:6379/1"


async def test_on_a_real_terminal_it_opens_leaves_on_sigterm_and_puts_the_screen_back(tmp_path):
    program = (
        "import sys; from pathlib import Path; from lcq.config import DistributedConfig;"
        "from tui.app import run_console; sys.exit(run_console(DistributedConfig(data_dir=Path(sys.argv[1]))))"
    )
    ours, theirs = pty.openpty()
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, str(tmp_path),
        stdin=theirs, stdout=theirs, stderr=theirs, env=os.environ | {"TERM": "xterm-256color"},
    )  # fmt: skip
    os.close(theirs)
    os.set_blocking(ours, False)
    seen = bytearray()

    def shown(text: bytes) -> bool:
        try:
            while chunk := os.read(ours, 65536):
                seen.extend(chunk)
        except (BlockingIOError, OSError):  # nothing there now; OSError: its end is closed
            pass
        return text in bytes(seen)

    try:
        await wait_until(lambda: shown(b"\x1b[?1049h"), what="the alternate screen to be entered")
        await wait_until(lambda: shown(b"Waiting for the cluster"))
        process.terminate()
        await wait_until(lambda: shown(b"\x1b[?1049l"), what="the alternate screen to be left")
        assert await process.wait() == 0
        assert shown(b"\x1b[?25h")
        assert b"Traceback" not in seen
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        os.close(ours)
    assert "console.log" in {path.name for path in tmp_path.iterdir()}


async def test_the_scheduler_named_on_the_command_line_is_the_one_that_is_commanded(tmp_path: Path) -> None:
    config = DistributedConfig(data_dir=tmp_path)
    async with Cluster(config, scheduler="127.0.0.1:6001") as cluster:
        assert (await cluster._commander()).endpoint == "tcp://127.0.0.1:6001"

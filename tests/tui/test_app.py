"""The program around the screens: how it ends, how it fails, and where it finds its cluster."""

from __future__ import annotations

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


async def test_the_scheduler_named_on_the_command_line_is_the_one_that_is_commanded(tmp_path: Path) -> None:
    config = DistributedConfig(data_dir=tmp_path)
    async with Cluster(config, scheduler="127.0.0.1:6001") as cluster:
        assert (await cluster._commander()).endpoint == "tcp://127.0.0.1:6001"

"""F-46: no file that LCQ owns grows for ever."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
import redis

import lcq.server
from lcq.embedded import PrivateServer
from tests.conftest import wait_until, wait_until_sync


def test_the_log_of_a_private_server_is_kept_small_while_it_runs(tmp_path: Path) -> None:
    with PrivateServer(tmp_path / "data") as server:
        log = server.folder / "server.log"
        with log.open("ab") as file:
            file.write(b"x" * 79 + b"\n" * 1)
            file.write((b"x" * 79 + b"\n") * 60_000)
        wait_until_sync(lambda: not log.exists() or log.stat().st_size < 4 * 2**20)
        with redis.Redis.from_url(server.url) as client:
            client.config_rewrite()  # it says so in its log
        wait_until_sync(lambda: log.exists() and log.stat().st_size > 0, what="the server goes on with a new one")
        assert sorted(path.name for path in server.folder.glob("server.log*")) == ["server.log", "server.log.1"]


def test_the_append_log_of_a_private_server_is_rewritten_as_it_grows(tmp_path: Path) -> None:
    with PrivateServer(tmp_path / "data") as server, redis.Redis.from_url(server.url) as client:
        assert client.config_get("auto-aof-rewrite-*") == {
            "auto-aof-rewrite-percentage": "100", "auto-aof-rewrite-min-size": "67108864",
        }  # fmt: skip
        client.config_set("auto-aof-rewrite-min-size", 2**20)
        written = 0

        def held() -> int:
            return int(client.info("persistence")["aof_current_size"])

        # One key, written again and again; when it is rewritten is the server's business, that it is must be seen.
        while held() >= written / 3 or written < 20 * 2**20:
            client.set("k", b"v" * 65_536)
            written += 65_536
            assert written < 500 * 2**20, f"{held() >> 20} MiB held"
        print(f"{written >> 20} MiB written, {held() >> 10} KiB held")


async def test_the_log_of_an_agent_of_lcq_up_is_kept_small_while_it_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lcq.server, "_LOOK_AT_LOG_S", 0.02)
    monkeypatch.setattr(lcq.server, "_LOG_BYTES", 10_000)
    log = tmp_path / "agent.log"
    with log.open("ab", buffering=0) as agents:
        async with asyncio.TaskGroup() as group:
            keeping = group.create_task(lcq.server.keep_small(log))
            for _ in range(5):
                agents.write(b"x" * 20_000)
                await wait_until(lambda: log.stat().st_size == 0)
            agents.write(b"the end\n")
            keeping.cancel()
    assert log.read_bytes() == b"the end\n"
    assert (tmp_path / "agent.log.1").stat().st_size == 20_000

"""F-25: a Redis that still reads its log after a restart has that log closed; that is no reason to call it unsafe."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import redis

from lcq.config import DistributedConfig
from lcq.errors import LcqError, StateUnavailable
from lcq.state.connection import risk_of
from lcq.state.manager import StateManager
from tests.conftest import wait_until_sync
from tests.redis_rig import is_rewritten, running_server


async def test_a_server_that_reads_its_log_is_away_and_not_unsafe(tmp_path: Path) -> None:
    # It would take a minute, looks every 50 ms whether somebody wants something, and is killed in the end.
    slow = {"key_load_delay": "20000", "loading_process_events_interval_bytes": "1024"}
    with running_server(tmp_path / "redis", **slow) as server:
        with server.client() as client:
            client.mset({f"{number}": random.randbytes(400) for number in range(3000)})
            client.bgrewriteaof()  # a snapshot is read key by key
            wait_until_sync(lambda: is_rewritten(client), what="the log is rewritten")
        server.kill()
        server.start(wait=False)
        with server.client() as client:
            wait_until_sync(lambda: _loads(client), what="it reads its log")
            memory, persistence = client.info("memory"), client.info("persistence")
            assert persistence["loading"], "it was read too soon for this test"
            assert not persistence["aof_enabled"], "only if that is so is there anything to test"
            assert risk_of(server.url, memory, persistence) is None
        with pytest.raises(LcqError) as refusal:
            async with StateManager(DistributedConfig(), url=server.url):
                pass
        server.kill()
        assert type(refusal.value) is StateUnavailable
        assert "loading" in str(refusal.value).lower()


def _loads(client: redis.Redis) -> bool:
    try:
        return bool(client.info("persistence")["loading"])
    except (redis.RedisError, OSError):  # not there yet
        return False

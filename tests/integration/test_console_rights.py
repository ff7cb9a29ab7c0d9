"""An operator who loses the right to read while looking: told in words, acts refused, and well again by itself."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import redis

from lcq.config import DistributedConfig
from lcq.state.manager import StateManager
from tests.conftest import wait_until
from tests.nodes import LIGHT, a_task
from tui.cluster import Cluster
from tui.desk import Desk


async def test_rights_that_are_taken_away_are_told_and_their_return_is_noticed(
    state: StateManager, redis_url: str, eye: redis.Redis, tmp_path: Path
) -> None:
    await state.submit_task(a_task(), queue=LIGHT)
    eye.execute_command("ACL", "SETUSER", "viewer", "reset", "on", ">secret", "~*", "+@all")
    as_viewer = re.sub(r"://([^/]*@)?", "://viewer:secret@", redis_url, count=1)
    config = DistributedConfig(data_dir=tmp_path, redis={"url": as_viewer})
    try:
        async with Cluster(config) as cluster, asyncio.TaskGroup() as tasks:
            desk = Desk(cluster, cluster)
            feed = tasks.create_task(desk.feed.run(), name="feed")
            await wait_until(lambda: desk.link.loaded and not desk.link.is_stale)
            eye.execute_command("ACL", "SETUSER", "viewer", "-@all")
            await wait_until(lambda: desk.link.is_stale and "refuses" in desk.link.trouble)
            assert "permission" in desk.link.trouble.casefold()
            assert "ACL" in desk.link.trouble
            assert "secret" not in desk.link.trouble
            assert "no news from the cluster since" in desk.refusal
            assert len(desk.store.tasks.rows) == 1, "what was seen is still shown, as old"
            eye.execute_command("ACL", "SETUSER", "viewer", "+@all")
            await wait_until(lambda: not desk.link.is_stale)
            feed.cancel()
    finally:
        eye.execute_command("ACL", "DELUSER", "viewer")

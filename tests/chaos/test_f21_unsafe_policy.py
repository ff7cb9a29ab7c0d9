"""F-21: a Redis that may throw data away by its own policy is refused at the start, and noticed when it becomes one."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest

from lcq.errors import UnsafeState
from tests.cluster import Cluster, drill, running_cluster
from tests.conftest import wait_until_sync
from tests.processes import lcq
from tests.redis_rig import running_server


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"maxmemory_policy": "allkeys-lru"}, "maxmemory-policy is allkeys-lru"),
        pytest.param({"appendonly": "no"}, "appendonly is off", marks=pytest.mark.chaos),
    ],
    ids=["evicts", "forgets"],
)
def test_a_scheduler_refuses_to_start_on_it_unless_told_otherwise(tmp_path: Path, settings: dict[str, str], said: str):
    with running_server(tmp_path / "redis", password="s3cret", **settings) as server:
        (place := tmp_path / "lcq").mkdir()  # what is there is killed with it
        with lcq("scheduler", cwd=place, LCQ_REDIS__URL=server.url, LCQ_DATA_DIR=str(tmp_path / "d")) as process:
            _, errors = process.communicate(timeout=60)
        assert process.returncode == 2
        assert said in errors
        assert "redis.unsafe" in errors
        assert "s3cret" not in errors
        with running_cluster(server.url, tmp_path / "c", LCQ_REDIS__UNSAFE="1") as cluster:
            cluster.start_scheduler()
            with cluster.client() as client:
                client.submit(drill("cv2-ns"))


def log_of(cluster: Cluster) -> str:
    return cluster.log_path("scheduler").read_text()


@pytest.mark.parametrize(
    ("setting", "bad", "good", "said"),
    [
        ("maxmemory-policy", "allkeys-lru", "noeviction", "maxmemory-policy is allkeys-lru"),
        ("appendonly", "no", "yes", "appendonly is off"),
    ],
)
def test_a_policy_changed_while_it_runs_is_told_once_and_refuses_new_tasks_until_it_is_mended(
    tmp_path: Path, setting: str, bad: str, good: str, said: str
):
    with (
        running_server(tmp_path / "redis") as server,
        running_cluster(server.url, tmp_path / "c") as cluster,
    ):
        cluster.start_scheduler()
        with cluster.client() as client:
            earlier = client.submit(drill("cv2-ns"))
            server.ask("CONFIG", "SET", setting, bad)
            wait_until_sync(lambda: said in log_of(cluster), what="the scheduler's log says so")
            with pytest.raises(UnsafeState, match=said):
                client.submit(drill("cv2-ns"))
            client.cancel(earlier.id)  # what is there can still be steered
            server.ask("CONFIG", "SET", setting, good)

            def is_taken() -> bool:
                with contextlib.suppress(UnsafeState):
                    client.submit(drill("cv2-ns"))
                    return True
                return False

            wait_until_sync(is_taken, what="tasks are taken again")
        assert log_of(cluster).count(said) == 1
        assert cluster.processes["scheduler"].poll() is None

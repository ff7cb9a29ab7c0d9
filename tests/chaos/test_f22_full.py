"""F-22: Redis reaches maxmemory; new tasks are refused clearly, running ones finish, and it recovers by itself."""

from __future__ import annotations

from pathlib import Path

import pytest

from lcq.errors import StateOverloaded
from lcq.models import TaskStatus
from tests.audit import audit
from tests.cluster import drill, running_cluster
from tests.conftest import wait_until_sync
from tests.redis_rig import Server, running_server


def fill(server: Server) -> None:
    """Have others' data in the server, and its limit a little below what it uses: its buffers come and go."""
    with server.client() as eye:
        eye.rpush("others", *["x" * 65536] * 64)
        eye.config_set("maxmemory", int(eye.info("memory")["used_memory"]) - 2**20)


@pytest.mark.parametrize("durability", ["everysec", pytest.param("fsync", marks=pytest.mark.chaos)])
def test_a_full_redis_refuses_new_tasks_and_lets_running_ones_finish(tmp_path: Path, durability: str):
    with (
        running_server(tmp_path / "redis") as server,
        running_cluster(server.url, tmp_path / "c", LCQ_REDIS__DURABILITY=durability) as cluster,
    ):
        cluster.start_scheduler()
        cluster.start_agent(slots=2)
        with cluster.client() as client:
            running = [client.submit(drill("drill-sleep", seconds=2)).id for _ in range(2)]
            queued = [accepted.id for accepted in client.submit_many([drill() for _ in range(50)]).accepted]
            wait_until_sync(lambda: client.get(running[0]).status == TaskStatus.PROCESSING, what="it runs")
            fill(server)
            with pytest.raises(StateOverloaded, match=r"is full and refuses new tasks.*raise its maxmemory"):
                client.submit(drill())
            answer = client.submit_many([drill() for _ in range(3)])
            assert {refusal.code for refusal in answer.refused} == {"state_overloaded"}
            records = client.wait(running + queued, timeout_s=60)
            assert {record.status for record in records} == {TaskStatus.COMPLETED}
            with pytest.raises(StateOverloaded):
                client.submit(drill())
            server.ask("DEL", "others")
            again = client.submit(drill())
            (record,) = client.wait(again.id, timeout_s=60)
            assert record.status == TaskStatus.COMPLETED
        for name, process in cluster.processes.items():
            assert process.poll() is None, f"{name} ended"
        log = cluster.log_path("scheduler").read_text()
        assert log.count("is full and refuses new tasks") == 1, log
        assert log.count("has room for new tasks again") == 1, log
        with server.client() as eye:
            audit(eye)

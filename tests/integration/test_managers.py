"""The managers as plain components: the seed's usage example, and what one process of them serves."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from lcq import Client, NodeManager, QueueManager, Task, TaskManager, TaskType
from lcq.config import DistributedConfig
from lcq.errors import UnsafeState

EXAMPLE = """\
from lcq import (
    Task, TaskType, TaskManager,
    QueueManager, NodeManager,
    DistributedConfig
)

task = Task(
    task_type=TaskType.INPAINT,
    image_path="/path/to/image.jpg",
    config={"model": "lama", "device": "cuda"}
)

task_manager = TaskManager()
queue_manager = QueueManager()
node_manager = NodeManager()

task_manager.start()
queue_manager.start()
node_manager.start()
"""


@pytest.fixture
def private_ports(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LCQ_ZEROMQ__BASE_PORT", "0")
    monkeypatch.setenv("LCQ_ZEROMQ__CONTROL_PORT", "0")
    monkeypatch.setenv("LCQ_DATA_DIR", str(tmp_path / "data"))


@pytest.mark.usefixtures("private_ports")
def test_the_seeds_usage_example_runs_verbatim_and_its_process_ends_by_itself(tmp_path: Path):
    script = tmp_path / "example.py"
    script.write_text(EXAMPLE + "print(node_manager.endpoint)\n")
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("tcp://127.0.0.1:")
    assert "Traceback" not in done.stderr


def test_the_readme_shows_the_example_that_is_tested():
    readme = (Path(__file__).parents[2] / "README.md").read_text()
    assert EXAMPLE in readme


@pytest.mark.usefixtures("private_ports")
def test_three_managers_started_plainly_take_tasks_and_explain_why_they_wait():
    managers = (TaskManager(), QueueManager(), NodeManager())
    for manager in managers:
        manager.start()
    try:
        node_manager = managers[2]
        assert isinstance(node_manager, NodeManager)
        with Client(DistributedConfig(), scheduler=node_manager.endpoint.removeprefix("tcp://")) as client:
            task = Task(task_type=TaskType.INPAINT, image_path="/path/to/image.jpg", config={"model": "lama"})
            accepted = client.submit(task)
            assert accepted.id == task.id
            assert client.history(task.id).explanation == "no node is online; start one with lcq-agent"
    finally:
        for manager in reversed(managers):
            manager.stop()
            manager.stop()  # twice is harmless


@pytest.mark.usefixtures("private_ports")
def test_managers_can_be_started_again_after_a_stop():
    manager = TaskManager()
    for _ in range(2):
        manager.start()
        manager.stop()


def test_a_configured_redis_that_may_lose_data_is_refused_with_the_remedy(
    redis_server, redis_url: str, monkeypatch: pytest.MonkeyPatch
):
    import redis

    monkeypatch.setenv("LCQ_REDIS__URL", redis_url)
    with redis.Redis.from_url(redis_url) as admin:
        admin.config_set("maxmemory-policy", "allkeys-lru")
        try:
            with pytest.raises(
                UnsafeState, match=r"maxmemory-policy is allkeys-lru.*config set maxmemory-policy noeviction"
            ):
                TaskManager().start()
        finally:
            admin.config_set("maxmemory-policy", "noeviction")

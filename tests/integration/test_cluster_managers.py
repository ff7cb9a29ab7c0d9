"""Agents as guests of a cluster manager: stopped as it stops them while they work, and no task pays for it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from lcq.client import Client
from lcq.config import DistributedConfig
from lcq.models import NodeStatus, TaskStatus
from tests.cluster import QUICK, Cluster, drill, running_cluster
from tests.conftest import wait_until_sync

SBATCH = Path(__file__).parents[2] / "sample-config" / "slurm" / "lcq-agents.sbatch"


class Slurm:
    """What a batch job sees of it: its variables, and ``scontrol``, which writes down what it was asked."""

    def __init__(self, cluster: Cluster, folder: Path) -> None:
        self.folder = folder
        self.asked = folder / "asked"
        programs = folder / "bin"
        programs.mkdir()
        for name, line in (
            ("scontrol", f'echo "$@" >> {self.asked}'),
            ("lcq-agent", f'exec {sys.executable} -m worker.cli "$@"'),
            ("lcq", f'exec {sys.executable} -m lcq.cli.main "$@"'),
        ):
            (programs / name).write_text(f"#!/bin/sh\n{line}\n")
            (programs / name).chmod(0o755)
        self.environment = {
            **os.environ, **QUICK, "PATH": f"{programs}:{os.environ['PATH']}", "LCQ_AGENT__DRAIN_S": "0.5",
            "LCQ_AGENTS_SCHEDULER": f"127.0.0.1:{cluster.control_port}", "LCQ_AGENTS_DATA_DIR": str(folder / "agents"),
            "SLURM_JOB_ID": "4711", "SLURM_ARRAY_JOB_ID": "4700", "SLURM_ARRAY_TASK_ID": "3",
            "SLURM_CPUS_PER_TASK": "2", "SLURMD_NODENAME": "gpu-17",
        }  # fmt: skip

    @contextlib.contextmanager
    def job(self, **more: str):
        with (self.folder / "job.log").open("ab") as log:
            shell = subprocess.Popen([SBATCH], env=self.environment | more, stdout=log, stderr=log, cwd=self.folder)
        try:
            yield shell
        finally:
            if shell.poll() is None:
                for process in (*psutil.Process(shell.pid).children(recursive=True), shell):
                    with contextlib.suppress(psutil.Error, ProcessLookupError):
                        process.kill()
            shell.wait(60)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The home of who submits jobs, on a disk that all hosts see: the operator's key is there."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("LCQ_DATA_DIR", raising=False)
    subprocess.run([sys.executable, "-m", "lcq.cli.main", "keys", "init"], check=True, timeout=120, cwd=tmp_path)
    return tmp_path / "home" / "lcq"


@pytest.fixture
def cluster(redis_url: str, tmp_path: Path, home: Path):
    # A lease longer than the test: what is given back here was handed back, or told by a lifeline.
    with running_cluster(
        redis_url, tmp_path / "c", LCQ_LEASES__LEASE_S="60", LCQ_ZEROMQ__CURVE="always",
        LCQ_ZEROMQ__SERVER_KEY_FILE=str(home / "keys" / "server.json"),
    ) as cluster:  # fmt: skip
        cluster.start_scheduler()
        yield cluster


@pytest.fixture
def client(cluster: Cluster, home: Path):
    """The operator's."""
    config = DistributedConfig.model_validate({"data_dir": home, "zeromq": {"curve": "always"}})
    with Client(config, scheduler=f"127.0.0.1:{cluster.control_port}", timeout_s=30) as client:
        yield client


@pytest.mark.chaos  # that SIGTERM hands back at no cost is tried each time by test_kill.py
@pytest.mark.parametrize("end", ["its shell, near its end", "all its processes"])
def test_a_batch_job_that_slurm_ends_hands_its_tasks_back_at_no_cost(
    cluster: Cluster, client: Client, tmp_path: Path, end: str
):
    slurm = Slurm(cluster, tmp_path)
    log, key = tmp_path / "job.log", tmp_path / "agents" / "keys" / "node-slurm-4700_3.json"
    with slurm.job(LCQ_ZEROMQ__CURVE="always", SLURM_JOB_END_TIME="1" if "near" in end else "9999999999") as shell:
        node = wait_until_sync(lambda: shell.poll() is not None or next(iter(client.nodes()), None), what="its agent")
        assert shell.poll() is None, log.read_text()
        assert (node.id, node.capability.labels) == ("slurm-4700_3", {"slurm-node": "gpu-17"})
        assert key.exists()
        ids = [one.id for one in client.submit_many([drill("drill-sleep", seconds=60) for _ in range(2)]).accepted]
        wait_until_sync(lambda: ids and all(client.get(task).progress > 0 for task in ids), what="both at work")
        if end.startswith("its shell"):  # --signal=B:TERM
            shell.send_signal(signal.SIGTERM)
        else:  # scancel, preemption
            for process in (shell, *psutil.Process(shell.pid).children(recursive=True)):
                process.send_signal(signal.SIGTERM)
        assert shell.wait(120) == 0, log.read_text()
        records = [client.get(task) for task in ids]
        assert {record.status for record in records} == {TaskStatus.QUEUED}
        assert [record.retries for record in records] == [0, 0]
        wait_until_sync(lambda: [one.status for one in client.nodes()] == [NodeStatus.OFFLINE])
    if "near" in end:  # it comes back under the same name, with the same key
        assert slurm.asked.read_text() == "requeue 4700_3\n"
        assert key.exists()
    else:
        assert not slurm.asked.exists()
        assert not key.exists()
        assert "revoked" in log.read_text()

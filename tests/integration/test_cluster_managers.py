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
        ):
            (programs / name).write_text(f"#!/bin/sh\n{line}\n")
            (programs / name).chmod(0o755)
        self.environment = {
            **os.environ, **QUICK, "PATH": f"{programs}:{os.environ['PATH']}", "LCQ_AGENT__DRAIN_S": "0.5",
            "LCQ_AGENTS_SCHEDULER": f"127.0.0.1:{cluster.control_port}", "LCQ_DATA_DIR": str(folder / "agents"),
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
def cluster(redis_url: str, tmp_path: Path):
    # A lease longer than the test: what is given back here was handed back, or told by a lifeline.
    with running_cluster(redis_url, tmp_path / "c", LCQ_LEASES__LEASE_S="60") as cluster:
        cluster.start_scheduler()
        yield cluster


@pytest.mark.chaos  # that SIGTERM hands back at no cost is tried each time by test_kill.py
@pytest.mark.parametrize("whom", ["its shell", "all its processes"])
def test_a_batch_job_that_slurm_ends_hands_its_tasks_back_at_no_cost(cluster: Cluster, tmp_path: Path, whom: str):
    slurm = Slurm(cluster, tmp_path)
    with cluster.client() as client, slurm.job(SLURM_JOB_END_TIME="1") as shell:
        node = wait_until_sync(lambda: next(iter(client.nodes()), None), what="the job's agent")
        assert (node.id, node.capability.labels) == ("slurm-4700_3", {"slurm-node": "gpu-17"})
        ids = [one.id for one in client.submit_many([drill("drill-sleep", seconds=60) for _ in range(2)]).accepted]
        wait_until_sync(lambda: ids and all(client.get(task).progress > 0 for task in ids), what="both at work")
        if whom == "its shell":  # --signal=B:TERM
            shell.send_signal(signal.SIGTERM)
        else:  # scancel, preemption
            for process in (shell, *psutil.Process(shell.pid).children(recursive=True)):
                process.send_signal(signal.SIGTERM)
        assert shell.wait(120) == 0, (tmp_path / "job.log").read_text()
        records = [client.get(task) for task in ids]
        assert {record.status for record in records} == {TaskStatus.QUEUED}
        assert [record.retries for record in records] == [0, 0]
        wait_until_sync(lambda: [one.status for one in client.nodes()] == [NodeStatus.OFFLINE])
        assert slurm.asked.read_text() == "requeue 4700_3\n"

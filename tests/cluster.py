"""A real cluster for tests: schedulers and agents as processes of their own, on a real server, to be killed at will."""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from lcq.client import Client
from lcq.config import DistributedConfig
from lcq.models import NodeStatus, Task, TaskType
from tests.forked import Program

QUICK = {
    "LCQ_LEASES__BEAT_S": "0.5",
    "LCQ_LEASES__LEASE_S": "3",
    "LCQ_LEASES__LOST_AFTER_S": "0.5",
    "LCQ_RETRIES__BASE_S": "0.05",
    "LCQ_DRILLS": "1",
    "LCQ_LOG_FORMAT": "pretty",
}
_START_S = 120.0
_ASK_S = 0.1  # between two questions whether a node is online: each costs the processor what its start needs


def free_port() -> int:
    """A loopback port that is free, and that stays so while a killed scheduler is started again.

    From below the range from which the kernel gives ports to everybody who asks for any. Not by ``random``: tests that
    run side by side start from the same seed.
    """
    while True:
        port = 15_000 + secrets.randbelow(16_000)
        with contextlib.suppress(OSError), socket.socket() as probe:
            probe.bind(("127.0.0.1", port))
            return port


def drill(name: str = "drill-noop", *, requires: Mapping[str, str] | None = None, **config: object) -> Task:
    """A task for the drill engine: real runners, no image."""
    return Task(
        task_type=TaskType.INPAINT,
        image_path=f"{name}.png",
        config={"model": name, **config},
        requires=requires or {},
    )


@dataclass
class Cluster:
    """Processes on one Redis. ``control_port`` stays the same when the scheduler is started again.

    ``is_forked``: they may be born by fork (tests/forked.py); not where their command lines or environments are read.
    """

    redis_url: str
    folder: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    control_port: int = field(default_factory=free_port)
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    is_forked: bool = True

    @property
    def config(self) -> DistributedConfig:
        return DistributedConfig(data_dir=self.folder, zeromq={"control_port": self.control_port})  # type: ignore[arg-type]

    def client(self) -> Client:
        """A client of the first scheduler; use it by ``with``."""
        return Client(self.config, scheduler=f"127.0.0.1:{self.control_port}", timeout_s=30)

    def start_scheduler(
        self, name: str = "scheduler", *, port: int | None = None, wait: bool = True
    ) -> subprocess.Popen[bytes]:
        """Start a scheduler; returns when it answers at ``port`` (default: the cluster's control port)."""
        control = port or self.control_port
        more = {"LCQ_ZEROMQ__BASE_PORT": "0", "LCQ_ZEROMQ__CONTROL_PORT": str(control)}
        process = self._start(name, [sys.executable, "-m", "lcq.cli.main", "scheduler"], more)
        deadline = time.monotonic() + _START_S
        while wait:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", control), timeout=1):
                return process
            self._check(name, deadline, "listen")
            time.sleep(0.02)
        return process

    def start_agent(
        self,
        name: str = "node-1",
        *,
        slots: int = 2,
        host: str = "127.0.0.1",
        port: int | None = None,
        wait: bool = True,
    ) -> subprocess.Popen[bytes]:
        """Start an agent; returns when its node is online."""
        address = f"{host}:{port or self.control_port}"
        command = [sys.executable, "-m", "worker.cli", "--scheduler", address, "--name", name, "--slots", str(slots)]
        process = self._start(name, command, {"LCQ_AGENT__DRAIN_S": "20"})
        deadline = time.monotonic() + _START_S
        with self.client() as client:
            while wait and not any(node.id == name and node.status == NodeStatus.ONLINE for node in client.nodes()):
                self._check(name, deadline, "come online")
                time.sleep(_ASK_S)
        return process

    def _start(self, name: str, command: list[str], more: Mapping[str, str]) -> subprocess.Popen[bytes]:
        environment = os.environ | QUICK | dict(self.environment) | dict(more)
        environment |= {"LCQ_REDIS__URL": self.redis_url, "LCQ_DATA_DIR": str(self.folder)}
        self.folder.mkdir(parents=True, exist_ok=True)
        with self.log_path(name).open("ab") as log:
            start = Program if self.is_forked else subprocess.Popen
            process = start(command, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self.processes[name] = process
        return process

    def log_path(self, name: str) -> Path:
        return self.folder / f"{name}.log"

    def _check(self, name: str, deadline: float, what: str) -> None:
        if self.processes[name].poll() is not None or time.monotonic() > deadline:
            log = self.log_path(name).read_text(errors="replace")[-3000:]
            raise AssertionError(f"{name} did not {what} (exit code {self.processes[name].poll()}):\n{log}")

    def kill(self, name: str, how: signal.Signals = signal.SIGKILL) -> None:
        """Send ``how`` to one process and, if that ends it, wait for its end."""
        process = self.processes[name]
        process.send_signal(how)
        if how in (signal.SIGKILL, signal.SIGTERM):
            process.wait(_START_S)

    def runners(self, agent: str) -> list[psutil.Process]:
        """The runner processes of an agent."""
        children = psutil.Process(self.processes[agent].pid).children(recursive=True)
        found = []
        for child in children:
            with contextlib.suppress(psutil.Error):  # it has just ended, or waits to be taken leave of
                line = " ".join(child.cmdline())
                if "worker.runner" in line and "warden.py" not in line:
                    found.append(child)
        return found

    def logs(self) -> str:
        """Everything the processes wrote, for a failing test's message."""
        return "\n".join(f"--- {path.name}\n{path.read_text(errors='replace')}" for path in self.folder.glob("*.log"))

    def stop(self) -> None:
        """End all processes, agents first: in order, then at once; kills what does not go."""
        for name in reversed(self.processes):
            process = self.processes[name]
            if process.poll() is None:
                process.send_signal(signal.SIGCONT)
                process.terminate()
        for process in reversed(self.processes.values()):
            for patience_s in (1, 15):
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(patience_s)
                    break
                process.terminate()  # told twice, an agent waits for nothing that runs
            else:
                process.kill()
                process.wait(15)


@contextlib.contextmanager
def running_cluster(redis_url: str, folder: Path, *, is_forked: bool = True, **environment: str) -> Iterator[Cluster]:
    """A cluster without processes yet; whatever was started in it is ended."""
    cluster = Cluster(redis_url, folder, environment, is_forked=is_forked)
    try:
        yield cluster
    finally:
        cluster.stop()

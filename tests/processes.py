"""Real processes in tests: started, looked for, and shown to be gone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from lcq.embedded_watch import started_at
from tests.conftest import wait_until_sync
from tests.forked import Program


def lives(pid: int) -> bool:
    return started_at(pid) is not None


def kill_and_wait(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
    wait_until_sync(lambda: not lives(pid), what=f"the end of process {pid}")


def processes_about(folder: Path) -> dict[int, str]:
    """The command lines of all living processes with ``folder`` in their arguments, environment or as their place."""
    found = {}
    for process in psutil.process_iter():
        try:
            arguments = process.cmdline()
            hints = [*arguments, process.cwd(), *process.environ().values()]  # a Redis overwrites all but its place
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
        if process.pid != os.getpid() and any(str(folder) in hint for hint in hints):
            found[process.pid] = " ".join(arguments)
    return found


@contextmanager
def lcq(*arguments: str, cwd: Path, is_forked: bool = True, **settings: str) -> Iterator[subprocess.Popen[str]]:
    """``lcq`` as a process in the folder ``cwd``; whatever it left there is killed when the block ends.

    ``is_forked``: as with a ``Cluster``.
    """
    environment = {**os.environ, **settings}
    start = Program if is_forked else subprocess.Popen
    process = start(
        [sys.executable, "-m", "lcq.cli.main", *arguments],
        cwd=cwd,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    except BaseException as failure:
        code = process.poll()
        process.kill()
        failure.add_note(f"lcq {' '.join(arguments)} (exit code {code}) said: {process.communicate()}")
        raise
    finally:
        process.kill()
        process.communicate()
        for pid in processes_about(cwd):
            with suppress(ProcessLookupError):  # it may end by itself meanwhile
                os.kill(pid, signal.SIGKILL)

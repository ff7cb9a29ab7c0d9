"""Functions as they really run: functions-framework's server in a process of its own, with LCQ's handler in it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from tests.cluster import free_port

SAMPLES = Path(__file__).parent.parent / "sample-config" / "functions"


@contextlib.contextmanager
def functions_framework(log: Path, *, workers: int = 1, **environment: str) -> Iterator[str]:
    """The address of a function that cleans pictures. ``environment``: what Function reads."""
    port = free_port()
    command = [
        sys.executable, "-m", "functions_framework", "--target", "clean", "--source", str(SAMPLES / "http" / "main.py"),
        "--host", "127.0.0.1", "--port", str(port),
    ]  # fmt: skip
    with log.open("wb") as out:
        process = subprocess.Popen(
            command,
            env={**os.environ, **environment, "THREADS": "1", "WORKERS": str(workers)},
            stdout=out,
            stderr=out,
            start_new_session=True,
        )
        try:
            address = f"http://127.0.0.1:{port}"
            deadline = time.monotonic() + 120
            while not _answers(address):
                if process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"the function did not start: {log.read_text(errors='replace')[-2000:]}")
                time.sleep(0.1)
            yield address
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _answers(address: str) -> bool:
    try:
        urllib.request.urlopen(address, data=b"{}", timeout=5)
    except urllib.error.HTTPError:
        return True  # it refuses what is no call
    except OSError:
        return False
    return True

"""An S3 server of one's own: moto's, in a process."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.cluster import free_port


@dataclass(frozen=True)
class S3:
    """``environment``: what whoever uses it has to be told."""

    url: str

    @property
    def options(self) -> dict[str, Any]:
        """As storage.options has them for s3."""
        return {
            "key": "lcq-tests",
            "secret": "lcq-tests",
            "client_kwargs": {"endpoint_url": self.url, "region_name": "us-east-1"},
        }

    def make_bucket(self, name: str) -> None:
        request = urllib.request.Request(f"{self.url}/{name}", method="PUT")
        with urllib.request.urlopen(request, timeout=60) as answer:
            assert answer.status == 200


@contextlib.contextmanager
def s3_server(folder: Path, *command: str, host: str = "127.0.0.1") -> Iterator[S3]:
    """One that listens at ``host``; ``command`` goes before that which starts it."""
    port = free_port()
    with (folder / "s3.log").open("wb") as log:
        server = subprocess.Popen(
            [*command, sys.executable, "-m", "moto.server", "-H", host, "-p", str(port)], stdout=log, stderr=log
        )
        try:
            yield S3(f"http://{host}:{port}")
        finally:
            server.kill()
            server.wait()


def wait_for(s3: S3, patience_s: float = 300.0) -> None:
    until = time.monotonic() + patience_s
    while True:
        try:
            with urllib.request.urlopen(s3.url, timeout=10):
                return
        except OSError:
            assert time.monotonic() < until, "the S3 server does not answer"
            time.sleep(0.1)

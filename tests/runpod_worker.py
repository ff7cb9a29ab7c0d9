"""A worker of tests/runpod.py: asks for a job, does it by our handler, reports; as RunPod's own package does."""

from __future__ import annotations

import json
import sys
import urllib.request
from typing import Any

from worker.function import on_runpod


def main(endpoint: str, name: str) -> None:
    while True:
        job = _asked(f"{endpoint}/job-take/{name}")
        if job is None:
            continue
        try:
            told = {"output": on_runpod(job)}
        except Exception as error:  # noqa: BLE001 - the edge: it is what RunPod's package reports
            told = {"error": f"{type(error).__name__}: {error}"}
        _asked(f"{endpoint}/job-done/{name}/{job['id']}", json.dumps(told).encode())


def _asked(url: str, data: bytes | None = None) -> Any:
    with urllib.request.urlopen(urllib.request.Request(url, data=data), timeout=60) as answer:
        return json.loads(answer.read() or b"null")


if __name__ == "__main__":
    main(*sys.argv[1:])

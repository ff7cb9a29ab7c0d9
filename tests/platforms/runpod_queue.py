"""RunPod's platform as both sides see it: /run, /status and /cancel for callers, and the jobs for the real worker."""

from __future__ import annotations

import json
import queue
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Queue:
    """``url``: what a caller is told; ``workers_url``: below that are job-take and job-done of workers."""

    url: str = ""
    workers_url: str = ""
    jobs: dict[str, dict[str, Any]] = field(default_factory=dict)
    """How each stands, as /status tells it."""

    def environment(self, worker: str) -> dict[str, str]:
        """What RunPod tells a worker of that name."""
        return {
            "RUNPOD_POD_ID": worker,
            "RUNPOD_WEBHOOK_GET_JOB": f"{self.workers_url}/job-take/$ID?gpu=none",
            "RUNPOD_WEBHOOK_POST_OUTPUT": f"{self.workers_url}/job-done/$RUNPOD_POD_ID/$ID?gpu=none",
            "RUNPOD_SKIP_AUTO_SYSTEM_CHECKS": "true",  # they ask the internet
        }


@contextmanager
def runpod_queue() -> Iterator[Queue]:
    """One endpoint's. A job that a worker has taken is given to nobody else."""
    waiting: queue.Queue[dict[str, Any]] = queue.Queue()
    told = Queue()
    ended = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            match self._path():
                case ["v2", "endpoint", "status", job]:
                    return self._state(job)
                case ["workers", "job-take", _]:
                    return self._take()
                case ["workers", "job-stop", _]:
                    ended.wait(1.0)
                    return self._answer(204)
            return self._answer(404, {"error": "not found"})

        def do_POST(self) -> None:
            said = json.loads(self.rfile.read(int(self.headers.get("Content-Length", 0))) or b"{}")
            match self._path():
                case ["v2", "endpoint", "run"]:
                    job = f"{uuid.uuid4()}-e1"
                    told.jobs[job] = {"id": job, "status": "IN_QUEUE"}
                    waiting.put({"id": job, "input": said["input"]})
                    return self._answer(200, told.jobs[job])
                case ["v2", "endpoint", "cancel", job] if job in told.jobs:
                    told.jobs[job] = {"id": job, "status": "CANCELLED"}
                    return self._state(job)
                case ["workers", "job-done", worker, job]:
                    failed = "error" in said
                    state = {"id": job, "workerId": worker, "status": "FAILED" if failed else "COMPLETED"}
                    told.jobs[job] = state | {name: said[name] for name in ("output", "error") if name in said}
                    return self._answer(200, {})
            return self._answer(404, {"error": "not found"})

        def _path(self) -> list[str]:
            return self.path.partition("?")[0].strip("/").split("/")

        def _state(self, job: str) -> None:
            state = told.jobs.get(job)
            return self._answer(404, {"error": "job not found"}) if state is None else self._answer(200, state)

        def _take(self) -> None:
            until = time.monotonic() + 5
            while not ended.is_set() and time.monotonic() < until:
                try:
                    job = waiting.get(timeout=0.1)
                except queue.Empty:
                    continue
                if told.jobs[job["id"]]["status"] == "IN_QUEUE":
                    told.jobs[job["id"]] = {"id": job["id"], "status": "IN_PROGRESS"}
                    return self._answer(200, job)
            return self._answer(204)

        def _answer(self, status: int, document: Any = None) -> None:
            body = b"" if document is None else json.dumps(document).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    address = f"http://127.0.0.1:{server.server_address[1]}"
    told.url, told.workers_url = f"{address}/v2/endpoint", f"{address}/workers"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield told
    finally:
        ended.set()
        server.shutdown()
        server.server_close()
        thread.join()

"""RunPod as far as its clients see it: /run, /status, /cancel and /health of a queue-based endpoint, and real workers.

The details are those of RunPod's documentation: the states of a job, what each answer has in it (delayTime and
executionTime in milliseconds), the least that a policy may ask for, for how long a result is kept, and how large a
call may be. A job that nobody has reported on is TIMED_OUT when its time of execution is over, and forgotten when its
time to live is. Workers are processes of their own, which ask for jobs and report, with our handler in them: those of
the suite (tests/runpod_worker.py), or RunPod's own (``make platforms``).
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections import Counter, deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

ENDPOINT = "/v2/clean"
MOST_BYTES = 10 * 10**6  # of what /run takes
KEPT_S = 30 * 60.0  # a result, at most
TAKE_S = 1.0  # how long a worker that asks for a job waits for one
LEAST_RUN_MS, LEAST_TTL_MS = 5_000, 10_000
ENDED = ("COMPLETED", "FAILED", "CANCELLED", "TIMED_OUT")


@dataclass
class Job:
    """``lie``: what is told of it beside the truth."""

    input: Any
    run_s: float
    kept_s: float
    lie: str = ""
    id: str = field(default_factory=lambda: f"{uuid.uuid4()}-u1")
    state: str = "IN_QUEUE"
    output: Any = None
    error: str = ""
    came: float = field(default_factory=time.monotonic)
    began: float = 0.0
    ended: float = 0.0

    @property
    def key(self) -> str:
        return str(self.input.get("key", ""))

    def look(self) -> None:
        if self.state == "IN_PROGRESS" and time.monotonic() > self.began + self.run_s:
            self.state, self.ended = "TIMED_OUT", time.monotonic()

    @property
    def is_forgotten(self) -> bool:
        now = time.monotonic()
        return now > self.came + self.kept_s or bool(self.ended and now > self.ended + KEPT_S)

    @property
    def told(self) -> dict[str, Any]:
        told: dict[str, Any] = {"id": self.id, "status": self.state}
        if self.began:
            told["delayTime"] = int(1000 * (self.began - self.came))
        if self.ended and self.began:
            told["executionTime"] = int(1000 * (self.ended - self.began))
        if self.state == "COMPLETED":
            told["output"] = self.output
        if self.state == "FAILED":
            told["error"] = self.error
        return told


@dataclass
class RunPod:
    """``lies``: what is said of the next jobs, one each; after that the truth is. ``ran``: the keys of the calls that a
    worker has begun; ``cancelled``: how many jobs were.

    "forgotten" (404, and it runs on), "denied" (401), "failed" (FAILED, whatever it is), "empty" (COMPLETED without an
    output), "other" (the state of another job), "queued" (IN_QUEUE for ever), "told once" (COMPLETED the first time,
    then 404).
    """

    folder: Path
    url: str = ""
    is_throttled: bool = False  # no worker gets a job
    lies: deque[str] = field(default_factory=deque)
    jobs: dict[str, Job] = field(default_factory=dict)
    waiting: deque[Job] = field(default_factory=deque)
    ran: Counter[str] = field(default_factory=Counter)
    cancelled: int = 0
    workers: list[subprocess.Popen[bytes]] = field(default_factory=list)
    ended: threading.Event = field(default_factory=threading.Event)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def environment(self, worker: str) -> dict[str, str]:
        """What RunPod tells its own worker of that name."""
        return {
            "RUNPOD_POD_ID": worker,
            "RUNPOD_WEBHOOK_GET_JOB": f"{self.url}/job-take/$ID?gpu=none",
            "RUNPOD_WEBHOOK_POST_OUTPUT": f"{self.url}/job-done/$RUNPOD_POD_ID/$ID?gpu=none",
            "RUNPOD_SKIP_AUTO_SYSTEM_CHECKS": "true",  # they ask the internet
        }

    def start_worker(self) -> None:
        with (self.folder / "runpod.log").open("ab") as log:
            command = [sys.executable, "-m", "tests.runpod_worker", self.url, f"worker-{len(self.workers)}"]
            self.workers.append(subprocess.Popen(command, env=dict(os.environ), stdout=log, stderr=log))

    def kill_workers(self) -> None:
        """By SIGKILL; as many others are started."""
        there = [one for one in self.workers if one.poll() is None]
        for one in there:
            one.send_signal(signal.SIGKILL)
            one.wait()
        for _ in there:
            self.start_worker()

    # ------------------------------------------------------------ what is asked

    def run(self, body: bytes) -> tuple[int, Any]:
        if len(body) > MOST_BYTES:
            return 413, {"error": "payload too large"}
        try:
            asked = json.loads(body)
            policy = asked.get("policy") or {}
            run_ms, ttl_ms = policy.get("executionTimeout", 600_000), policy.get("ttl", 24 * 3_600_000)
        except (ValueError, AttributeError):
            return 400, {"error": "bad request: it is no JSON object"}
        if not isinstance(asked.get("input"), dict):
            return 400, {"error": "bad request: input is required"}
        if run_ms < LEAST_RUN_MS or ttl_ms < LEAST_TTL_MS:
            return 400, {"error": f"bad request: executionTimeout of {run_ms} ms, or ttl of {ttl_ms} ms, is too short"}
        lie = self.lies.popleft() if self.lies else ""
        job = Job(asked["input"], run_ms / 1000, ttl_ms / 1000, lie)
        self.jobs[job.id] = job
        self.waiting.append(job)
        return 200, {"id": job.id, "status": job.state}

    def status(self, job_id: str) -> tuple[int, Any]:
        job = self.jobs.get(job_id)
        if job is None or job.is_forgotten or job.lie == "forgotten":
            return 404, {"error": "job not found"}
        job.look()
        match job.lie:
            case "denied":
                return 401, {"error": "unauthorized"}
            case "failed":
                return 200, {"id": job.id, "status": "FAILED", "error": "worker exited with exit code 1"}
            case "empty" if job.state == "COMPLETED":
                return 200, {"id": job.id, "status": "COMPLETED"}
            case "other":
                return 200, {"id": str(uuid.uuid4()), "status": "COMPLETED", "output": {"key": "another/1"}}
            case "queued":
                return 200, {"id": job.id, "status": "IN_QUEUE"}
            case "told once" if job.state == "COMPLETED":
                job.lie = "forgotten"
        return 200, job.told

    def cancel(self, job_id: str) -> tuple[int, Any]:
        job = self.jobs.get(job_id)
        if job is None or job.is_forgotten:
            return 404, {"error": "job not found"}
        if job.state not in ENDED:
            job.state, job.ended = "CANCELLED", time.monotonic()
            self.cancelled += 1
        return 200, {"id": job.id, "status": job.state}

    def take(self) -> Job | None:
        """The next job for a worker."""
        while self.waiting and not self.is_throttled:
            job = self.waiting.popleft()
            if job.state == "IN_QUEUE" and not job.is_forgotten:
                job.state, job.began = "IN_PROGRESS", time.monotonic()
                self.ran[job.key] += 1
                return job
        return None

    def report(self, job_id: str, told: dict[str, Any]) -> None:
        job = self.jobs[job_id]
        job.look()
        if job.state == "IN_PROGRESS":
            job.output, job.error, job.ended = told.get("output"), str(told.get("error", "")), time.monotonic()
            job.state = "FAILED" if "error" in told else "COMPLETED"

    @property
    def health(self) -> dict[str, Any]:
        states = Counter(job.state for job in self.jobs.values())
        there = sum(one.poll() is None for one in self.workers)
        jobs = {"inQueue": states["IN_QUEUE"], "inProgress": states["IN_PROGRESS"]}
        return {"jobs": jobs, "workers": {"ready": there}}


@contextmanager
def runpod(folder: Path, *, workers: int = 1) -> Iterator[RunPod]:
    """An endpoint with so many workers, until the block ends; its address is ``url``."""
    plan = RunPod(folder)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._any(b"")

        def do_POST(self) -> None:
            self._any(self.rfile.read(int(self.headers.get("Content-Length", 0))))

        def _any(self, body: bytes) -> None:
            asked = self.path.partition("?")[0]
            path, what, *more = asked.removeprefix(ENDPOINT).split("/")
            if path or not asked.startswith(ENDPOINT):
                return self._answer(404, {"error": "endpoint not found"})
            if what in ("job-take", "job-stop"):
                return self._answer(*self._waited(what))
            with plan.lock:
                match (self.command, what, more):
                    case "POST", "run", []:
                        told = plan.run(body)
                    case _, "status", [job]:
                        told = plan.status(job)
                    case "POST", "cancel", [job]:
                        told = plan.cancel(job)
                    case "GET", "health", []:
                        told = 200, plan.health
                    case "POST", "job-done", [_, job]:
                        told = 200, plan.report(job, json.loads(body))
                    case _:
                        told = 404, {"error": "no such operation"}
            return self._answer(*told)

        def _waited(self, what: str) -> tuple[int, Any]:
            """The next job for a worker that is still there; of those that are to be stopped it hears nothing."""
            until = time.monotonic() + TAKE_S
            while time.monotonic() < until and not plan.ended.wait(0.02):
                if select.select([self.connection], [], [], 0)[0]:  # it has hung up: it has nothing to say meanwhile
                    break
                with plan.lock:
                    taken = plan.take() if what == "job-take" else None
                if taken is not None:
                    return 200, {"id": taken.id, "input": taken.input}
            return 204, None

        def _answer(self, status: int, told: Any) -> None:
            data = json.dumps(told).encode() if status != 204 else b""
            self.send_response(status)
            if data:
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *args: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.handle_error = lambda *_: None  # type: ignore[method-assign]  # cuts are on purpose
    plan.url = f"http://127.0.0.1:{server.server_address[1]}{ENDPOINT}"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        for _ in range(workers):
            plan.start_worker()
        yield plan
    finally:
        plan.ended.set()
        for one in plan.workers:
            with contextlib.suppress(ProcessLookupError):
                one.kill()
            one.wait()
        server.shutdown()
        server.server_close()
        thread.join()

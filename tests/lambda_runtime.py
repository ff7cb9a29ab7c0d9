"""AWS Lambda as far as its clients see it: a Runtime API for the real awslambdaric, and Invoke for the real boto3."""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import threading
import uuid
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


@dataclass
class Lambda:
    """``url``: what boto3 is told as its endpoint. ``refusals``: errors with which the next invokes are answered.
    ``ran``: the keys of the calls that the function was given."""

    start: Callable[[], subprocess.Popen[bytes]]
    url: str = ""
    refusals: deque[tuple[int, str]] = field(default_factory=deque)
    invoked: int = 0
    ran: Counter[str] = field(default_factory=Counter)
    running: dict[str, _Event] = field(default_factory=dict)
    runtimes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def kill_runtime(self) -> None:
        """By SIGKILL; another one is started. What it was at is answered as AWS does."""
        _killed(self.runtimes[-1])
        for event in [self.running.pop(one) for one in list(self.running)]:
            told = {"errorType": "Runtime.ExitError", "errorMessage": "Runtime exited with error: signal: killed"}
            event.answer, event.error = json.dumps(told).encode(), "Unhandled"
            event.done.set()
        self.runtimes.append(self.start())


@dataclass
class _Event:
    payload: bytes
    id: str = field(default_factory=lambda: str(uuid.uuid4()))
    done: threading.Event = field(default_factory=threading.Event)
    answer: bytes = b""
    error: str = ""


@contextmanager
def lambda_function(handler: str, folder: Path, log: Path) -> Iterator[Lambda]:
    """The function ``handler`` (module.name, found in ``folder``), run by awslambdaric."""
    waiting: queue.Queue[_Event] = queue.Queue()
    ended = threading.Event()
    environment = dict(os.environ)

    def start() -> subprocess.Popen[bytes]:
        with log.open("ab") as out:
            command = [sys.executable, "-m", "awslambdaric", handler]
            return subprocess.Popen(
                command, cwd=folder, env=environment, stdout=out, stderr=out, start_new_session=True
            )  # fmt: skip

    told = Lambda(start)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:  # the runtime asks for its next event
            while not ended.is_set():
                try:
                    event = waiting.get(timeout=0.1)
                except queue.Empty:
                    continue
                told.running[event.id] = event
                told.ran[str(json.loads(event.payload).get("key"))] += 1
                headers = {
                    "Lambda-Runtime-Aws-Request-Id": event.id,
                    "Lambda-Runtime-Deadline-Ms": "9999999999999",
                    "Lambda-Runtime-Invoked-Function-Arn": "arn:aws:lambda:us-east-1:1:function:clean",
                }
                return self._answer(200, event.payload, headers)
            self.close_connection = True
            return None

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            parts = self.path.split("/")
            if "invocation" in parts:  # the runtime tells what became of one
                event = told.running.pop(parts[-2], None)
                if event is not None:  # of one that was killed nobody hears
                    event.answer, event.error = body, "Unhandled" if parts[-1] == "error" else ""
                    event.done.set()
                return self._answer(202, b"{}")
            if "runtime" in parts:
                return self._answer(202, b"{}")
            told.invoked += 1  # a client: POST /2015-03-31/functions/NAME/invocations
            if told.refusals:
                status, code = told.refusals.popleft()
                return self._answer(status, json.dumps({"message": "no"}).encode(), {"x-amzn-ErrorType": code})
            event = _Event(body)
            waiting.put(event)
            event.done.wait(120)
            headers = {"X-Amz-Function-Error": event.error} if event.error else {}
            return self._answer(200, event.answer, headers)

        def _answer(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
            self.send_response(status)
            for name, value in (headers or {}).items():
                self.send_header(name, value)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.handle_error = lambda *_: None  # type: ignore[method-assign]  # a runtime that is killed breaks off
    address = f"127.0.0.1:{server.server_address[1]}"
    told.url = f"http://{address}"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    environment["AWS_LAMBDA_RUNTIME_API"] = address
    told.runtimes.append(start())
    try:
        yield told
    finally:
        ended.set()
        _killed(told.runtimes[-1])
        server.shutdown()
        server.server_close()
        thread.join()


def _killed(process: subprocess.Popen[bytes]) -> None:
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()

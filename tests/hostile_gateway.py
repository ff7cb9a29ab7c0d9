"""What stands before a function on a bad day: an HTTP proxy that delays, cuts, refuses and repeats, as it is told."""

from __future__ import annotations

import socket
import threading
import time
import urllib.error
import urllib.request
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Gateway:
    """``faults``: what becomes of the next calls, one each; after that ``always`` does ("": all is well). ``keys``: the
    idempotency keys of all calls that came, ``passed`` of those that were handed on. ``came``, ``answered``: when, by
    the monotonic clock.

    "busy:N" (429, Retry-After N), "unavailable", "cut before" (nothing is handed on), "cut after" (it is, and its
    answer is lost), "twice" (handed on two times), "late" (answered when nobody waits any more), "slow" (the answer
    trickles), "refuse:CODE", "garbage".
    """

    behind: str
    url: str = ""
    faults: deque[str] = field(default_factory=deque)
    keys: list[str] = field(default_factory=list)
    passed: list[str] = field(default_factory=list)
    always: str = ""
    came: list[float] = field(default_factory=list)
    answered: list[float] = field(default_factory=list)
    ended: threading.Event = field(default_factory=threading.Event)
    lock: threading.Lock = field(default_factory=threading.Lock)


@contextmanager
def hostile_gateway(behind: str, *, port: int = 0) -> Iterator[Gateway]:
    """A gateway to the function at ``behind``, until the block ends; at a port of its own, or at this one."""
    plan = Gateway(behind)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            key = self.headers.get("Idempotency-Key", "")
            with plan.lock:
                plan.keys.append(key)
                plan.came.append(time.monotonic())
                fault, _, more = (plan.faults.popleft() if plan.faults else plan.always).partition(":")
            match fault:
                case "busy":
                    return self._answer(429, b"slow down", retry=more)
                case "unavailable":
                    return self._answer(503, b"no instance")
                case "refuse":
                    return self._answer(int(more), b"no")
                case "garbage":
                    return self._answer(200, b'{"key": "somebody else\'s"}')
                case "cut before":
                    return self._cut()
            status, answer = self._handed_on(body, key)
            match fault:
                case "cut after":
                    self._cut()
                case "twice":
                    self._answer(*self._handed_on(body, key))
                case "late":
                    plan.ended.wait(60)
                    self._cut()
                case "slow":
                    self._trickle(status, answer)
                case _:
                    self._answer(status, answer)
            return None

        def _handed_on(self, body: bytes, key: str) -> tuple[int, bytes]:
            with plan.lock:
                plan.passed.append(key)
            headers = {"Content-Type": "application/json", "Idempotency-Key": key}
            request = urllib.request.Request(plan.behind, data=body, headers=headers)
            try:
                with urllib.request.urlopen(request, timeout=120) as answer:
                    return answer.status, answer.read()
            except urllib.error.HTTPError as refused:
                return refused.code, refused.read()

        def _answer(self, status: int, body: bytes, *, retry: str = "") -> None:
            plan.answered.append(time.monotonic())
            self.send_response(status)
            if retry:
                self.send_header("Retry-After", retry)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def _trickle(self, status: int, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            for place in range(0, len(body), 64):
                if plan.ended.is_set():
                    return
                self.wfile.write(body[place : place + 64])
                time.sleep(0.2)

        def _cut(self) -> None:
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)

        def log_message(self, *args: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    server.daemon_threads = True
    server.handle_error = lambda *_: None  # type: ignore[method-assign]  # cuts are on purpose
    plan.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield plan
    finally:
        plan.ended.set()
        server.shutdown()
        server.server_close()
        thread.join()

"""What stands before a function on a bad day: an HTTP proxy that delays, cuts, refuses and repeats, as it is told."""

from __future__ import annotations

import socket
import threading
import time
import urllib.error
import urllib.request
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

_GARBAGE = b'{"key": "somebody else\'s"}'
_OF_THE_HOP = frozenset({"host", "connection", "content-length", "transfer-encoding", "keep-alive", "expect"})
_opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def _headers_of(told: Mapping[str, str]) -> dict[str, str]:
    ours = {"server", "date"}
    return {name: value for name, value in told.items() if name.lower() not in _OF_THE_HOP | ours}


@dataclass
class Gateway:
    """``faults``: what becomes of the next calls, one each; after that ``always`` does ("": all is well). ``keys``: the
    idempotency keys of all calls that came, ``passed`` of those that were handed on. ``came``, ``answered``: when, by
    the monotonic clock.

    "busy:N" (429, Retry-After N), "unavailable", "cut before" (nothing is handed on), "cut after" (it is, and its
    answer is lost), "twice" (handed on two times), "late" (answered when nobody waits any more), "delay:S" (handed on
    after so many seconds), "held" (handed on once ``let`` is set), "slow" (the answer trickles), "refuse:CODE",
    "garbage"; "refuse after:CODE" and "garbage after" (the same, once it was handed on).

    What is asked at "/" goes to ``behind`` itself, all else to the same path there. ``is_hit``: whether a request, by
    its method and path, is one of those that faults are for; what else comes is handed on, and counted nowhere.
    ``key_of``: the idempotency key in a body, where no header has it.
    """

    behind: str
    is_hit: Callable[[str, str], bool] = lambda method, path: True
    key_of: Callable[[bytes], str] = lambda body: ""
    url: str = ""
    faults: deque[str] = field(default_factory=deque)
    keys: list[str] = field(default_factory=list)
    passed: list[str] = field(default_factory=list)
    always: str = ""
    spares_wakes: bool = False  # all is well with calls that only wake
    came: list[float] = field(default_factory=list)
    answered: list[float] = field(default_factory=list)
    let: threading.Event = field(default_factory=threading.Event)
    ended: threading.Event = field(default_factory=threading.Event)
    lock: threading.Lock = field(default_factory=threading.Lock)


@contextmanager
def hostile_gateway(
    behind: str,
    *,
    port: int = 0,
    is_hit: Callable[[str, str], bool] = lambda method, path: True,
    key_of: Callable[[bytes], str] = lambda body: "",
) -> Iterator[Gateway]:
    """A gateway to the function at ``behind``, until the block ends; at a port of its own, or at this one."""
    plan = Gateway(behind, is_hit, key_of)
    root = "{0.scheme}://{0.netloc}".format(urlsplit(behind))

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _any(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            if not plan.is_hit(self.command, self.path):
                return self._answer(*self._handed_on(body), is_counted=False)
            key = self.headers.get("Idempotency-Key") or plan.key_of(body)
            with plan.lock:
                plan.keys.append(key)
                plan.came.append(time.monotonic())
                is_spared = plan.spares_wakes and b'"warm":true' in body
                faulty = "" if is_spared else plan.faults.popleft() if plan.faults else plan.always
                fault, _, more = faulty.partition(":")
            match fault:
                case "busy":
                    return self._answer(429, b"slow down", {"Retry-After": more})
                case "unavailable":
                    return self._answer(503, b"no instance")
                case "refuse":
                    return self._answer(int(more), b"no")
                case "garbage":
                    return self._answer(200, _GARBAGE)
                case "cut before":
                    return self._cut()
                case "delay":
                    plan.ended.wait(float(more))
                case "held":
                    plan.let.wait(60)
            told = self._passed(body, key)
            match fault:
                case "cut after":
                    self._cut()
                case "refuse after":
                    self._answer(int(more), b"no")
                case "garbage after":
                    self._answer(200, _GARBAGE)
                case "twice":
                    self._answer(*self._passed(body, key))
                case "late":
                    plan.ended.wait(60)
                    self._cut()
                case "slow":
                    self._trickle(*told)
                case _:
                    self._answer(*told)
            return None

        do_POST = do_GET = do_PUT = do_DELETE = _any  # noqa: N815 - the names that the library calls

        def _passed(self, body: bytes, key: str) -> tuple[int, bytes, dict[str, str]]:
            with plan.lock:
                plan.passed.append(key)
            return self._handed_on(body)

        def _handed_on(self, body: bytes) -> tuple[int, bytes, dict[str, str]]:
            headers = {name: value for name, value in self.headers.items() if name.lower() not in _OF_THE_HOP}
            url = plan.behind if self.path == "/" else root + self.path
            method = self.command
            request = urllib.request.Request(url, data=body or None, headers=headers, method=method)
            try:
                with _opener.open(request, timeout=120) as answer:
                    return answer.status, answer.read(), _headers_of(answer.headers)
            except urllib.error.HTTPError as refused:
                return refused.code, refused.read(), _headers_of(refused.headers)

        def _answer(
            self, status: int, body: bytes, headers: Mapping[str, str] | None = None, *, is_counted: bool = True
        ) -> None:
            if is_counted:
                plan.answered.append(time.monotonic())
            self._begin(status, body, headers)
            self.wfile.write(body)

        def _begin(self, status: int, body: bytes, headers: Mapping[str, str] | None) -> None:
            self.send_response(status)
            for name, value in (headers or {}).items():
                self.send_header(name, value)
            if status != HTTPStatus.NO_CONTENT:
                self.send_header("Content-Length", str(len(body)))
            self.end_headers()

        def _trickle(self, status: int, body: bytes, headers: Mapping[str, str]) -> None:
            self._begin(status, body, headers)
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

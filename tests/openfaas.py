"""A gateway that behaves as OpenFaaS does: /function/NAME waits, /async-function/NAME queues and calls back.

The details are those of the gateway's queue proxy and of its queue-worker: which headers are on the answer (X-Call-Id,
X-Start-Time) and on the callback (X-Call-Id, X-Function-Status, X-Function-Name, X-Duration-Seconds), and that nobody
looks at what the callback is answered. Behind it is the handler of sample-config/functions/openfaas.
"""

from __future__ import annotations

import http.client
import socket
import threading
import time
import urllib.error
import urllib.request
import uuid
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

from worker.function import on_openfaas

NAME = "clean"
TOOK_S = 1.5  # what it says that each call took


@dataclass
class OpenFaas:
    """``faults``: what becomes of the next queued calls, one each; after that all is well. ``keys``: of all calls that
    the function was given; ``callbacks``: what each callback was answered; ``told``: their headers; ``urls``: where.

    "silent" (the function runs, nobody calls back), "lost" (it never runs), "twice" (called back two times), "early"
    (called back before the 202 is read), "cut" (queued, and the 202 is lost), "other" (called back with the id of
    another call), "broken" (the function answers 500, with no reply of ours), "away" (there is no function: 503
    without a body, as the queue-worker tells it), "full" (the queue does not take it), "closed" (the queue is away),
    "held" (called back when ``release`` is set), "late" (``late_s`` after it is done).
    """

    late_s: float = 30.0

    url: str = ""
    faults: deque[str] = field(default_factory=deque)
    keys: list[str] = field(default_factory=list)
    callbacks: list[int] = field(default_factory=list)
    urls: list[str] = field(default_factory=list)
    told: list[dict[str, str]] = field(default_factory=list)
    release: threading.Event = field(default_factory=threading.Event)

    def run(self, body: bytes, key: str, fault: str) -> tuple[int, bytes]:
        if fault == "away":
            return 503, b""
        self.keys.append(key)
        if fault == "broken":
            return 500, b"exit status 1"
        answer = on_openfaas(SimpleNamespace(body=body), None)  # as its template hands it over
        return answer["statusCode"], str(answer["body"]).encode()

    def work(self, body: bytes, key: str, url: str, call_id: str, fault: str) -> None:
        """What the queue-worker does with one message."""
        if fault == "lost":
            return
        status, answer = self.run(body, key, fault)
        if fault == "silent":
            return
        if fault == "held":
            self.release.wait(120)
        if fault == "late":
            self.release.wait(self.late_s)
        headers = {
            "Content-Type": "application/json",
            "X-Call-Id": str(uuid.uuid4()) if fault == "other" else call_id,
            "X-Duration-Seconds": f"{TOOK_S:f}",
            "X-Function-Status": str(status),
            "X-Function-Name": NAME,
        }
        for _ in range(2 if fault == "twice" else 1):
            self.urls.append(url)
            self.told.append(headers)
            request = urllib.request.Request(url, data=answer, headers=headers, method="POST")
            try:
                with urllib.request.urlopen(request, timeout=60) as heard:
                    self.callbacks.append(heard.status)
            except urllib.error.HTTPError as refused:
                self.callbacks.append(refused.code)
            except (OSError, http.client.HTTPException):  # nobody is there, or cut it: it is not called back again
                self.callbacks.append(0)


@contextmanager
def openfaas() -> Iterator[OpenFaas]:
    """A gateway with the function ``NAME``, until the block ends."""
    plan = OpenFaas()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            key = self.headers.get("Idempotency-Key", "")
            call_id = self.headers.get("X-Call-Id") or str(uuid.uuid4())
            if self.path == f"/function/{NAME}":
                return self._answer(*plan.run(body, key, ""), call_id)
            if self.path != f"/async-function/{NAME}":
                return self._answer(404, b"there is no such route", call_id)
            fault = plan.faults.popleft() if plan.faults else ""
            if fault == "full":
                return self._answer(500, b"nats: maximum payload exceeded", call_id)
            if fault == "closed":
                return self._answer(500, b"nats: connection closed", call_id)
            worker = threading.Thread(
                target=plan.work, args=(body, key, self.headers["X-Callback-Url"], call_id, fault), daemon=True
            )
            worker.start()
            if fault == "early":
                worker.join()
            if fault == "cut":
                self.close_connection = True
                return self.connection.shutdown(socket.SHUT_RDWR)
            return self._answer(202, b"", call_id)

        def _answer(self, status: int, body: bytes, call_id: str) -> None:
            self.send_response(status)
            self.send_header("X-Call-Id", call_id)
            self.send_header("X-Start-Time", str(time.time_ns()))
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.handle_error = lambda *_: None  # type: ignore[method-assign]  # cuts are on purpose
    plan.url = f"http://127.0.0.1:{server.server_address[1]}/function/{NAME}"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield plan
    finally:
        plan.release.set()
        server.shutdown()
        server.server_close()
        thread.join()

"""A real HTTP server with one file, that can be told to behave badly."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class FileServer:
    """What is served, and how. ``asked`` gets the Range header of each request, or "all"."""

    content: bytes
    ranges: bool = True
    etag: str = '"1"'
    status: int = 200
    tells_length: bool = True
    breaks_after: list[int] = field(default_factory=list)  # bytes of each of the next answers; then it is well
    stalls_after: int | None = None  # bytes; then nothing more comes until the server ends
    wrong_part: bool = False
    asked: list[str] = field(default_factory=list)
    url: str = ""
    ended: threading.Event = field(default_factory=threading.Event)


@contextmanager
def file_server(content: bytes) -> Iterator[FileServer]:
    """Serve ``content`` at ``url`` on loopback until the block ends."""
    plan = FileServer(content)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            wanted = self.headers.get("Range")
            plan.asked.append(wanted or "all")
            if plan.status != 200:
                self.send_error(plan.status)
                return
            total, begin = len(plan.content), 0
            valid = self.headers.get("If-Range") in (None, plan.etag)
            if wanted and plan.ranges and valid:
                begin = int(re.fullmatch(r"bytes=(\d+)-", wanted)[1])  # type: ignore[index]
                if begin >= total:
                    self.send_response(416)
                    self.send_header("Content-Range", f"bytes */{total}")
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                    return
                begin += plan.wrong_part
                self.send_response(206)
                self.send_header("Content-Range", f"bytes {begin}-{total - 1}/{total}")
            else:
                self.send_response(200)
            if plan.tells_length:
                self.send_header("Content-Length", str(total - begin))
            if plan.etag:
                self.send_header("ETag", plan.etag)
            self.send_header("Connection", "close")
            self.end_headers()
            part = plan.content[begin:]
            if plan.breaks_after:
                part = part[: plan.breaks_after.pop(0)]
            with suppress(OSError):  # clients go away in the middle: that is what is tested
                if plan.stalls_after is not None:
                    self.wfile.write(part[: plan.stalls_after])
                    self.wfile.flush()
                    plan.ended.wait()
                    return
                self.wfile.write(part)

        def log_message(self, *_: object) -> None:
            pass  # what is tested may own stderr

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        plan.url = f"http://127.0.0.1:{server.server_port}/big-lama.pt"
        try:
            yield plan
        finally:
            plan.ended.set()
            server.shutdown()
            thread.join()

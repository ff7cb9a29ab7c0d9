"""What is known of a call that had no answer: whether it went out decides whether it is paid for."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from lcq.models import TaskType
from lcq.runner_config import FunctionConfig
from worker.calls import Call, parcel
from worker.engines.endpoints import (
    CallFailed,
    EndpointAway,
    EndpointRefuses,
    OutcomeUnknown,
    endpoint_of,
)

CALL = Call(key="06ft3k/1", task_type=TaskType.INPAINT, model="cv2-telea", image=parcel(b"i"), mask=parcel(b"m"))


@contextmanager
def server(answer: Callable[[str, str], tuple[int, bytes] | None]) -> Iterator[str]:
    """Answers each question, by its method and path, with a status and a body; None: it cuts the connection."""

    class Handler(BaseHTTPRequestHandler):
        def _any(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            told = answer(self.command, self.path)
            if told is None:
                self.connection.close()
                self.close_connection = True
                return
            self.send_response(told[0])
            self.send_header("Content-Length", str(len(told[1])))
            self.end_headers()
            self.wfile.write(told[1])

        do_POST = do_GET = do_CONNECT = _any  # noqa: N815 - the names that the library calls

        def log_message(self, *_: object) -> None:
            pass

    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"http://127.0.0.1:{httpd.server_address[1]}"
    finally:
        httpd.shutdown()
        thread.join()
        httpd.server_close()


def called(**config: object) -> None:
    settings = {"models": {"cv2-telea": 0.2}, "timeout_s": 30} | config
    endpoint = endpoint_of(FunctionConfig.model_validate(settings))
    try:
        endpoint.call(CALL, timeout_s=30)
    finally:
        endpoint.close()


def test_a_call_that_a_proxy_did_not_let_out_has_not_run(monkeypatch: pytest.MonkeyPatch) -> None:
    with server(lambda method, path: (407, b"who are you")) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy)
        with pytest.raises(EndpointAway, match="407"):
            called(url="https://clean.example")


@pytest.mark.parametrize("token", ["one\ntwo", "schlüssel"])
def test_a_token_that_no_header_can_carry_lets_no_call_out(tmp_path: Path, token: str) -> None:
    (tmp_path / "token").write_text(token)
    with pytest.raises(EndpointRefuses, match="single line of ASCII"):
        called(url="http://127.0.0.1:9", auth={"token_file": str(tmp_path / "token")})


def test_what_has_gone_out_may_have_run_whatever_the_endpoint_is() -> None:
    with server(lambda method, path: None) as cutting, pytest.raises(OutcomeUnknown):
        called(url=cutting)
    with server(lambda method, path: (202, b"")) as queueing, pytest.raises(CallFailed, match="does not answer it"):
        called(url=queueing)
    with server(lambda method, path: (301, b"")) as moved, pytest.raises(EndpointRefuses):
        called(url=moved)


@pytest.mark.parametrize("status", [400, 401])
def test_a_job_that_was_taken_may_run_though_its_state_is_not_told(status: int) -> None:
    def answer(method: str, path: str) -> tuple[int, bytes]:
        return (200, b'{"id": "j", "status": "IN_QUEUE"}') if path.endswith("/run") else (status, b"no")

    with server(answer) as address, pytest.raises(OutcomeUnknown, match="it has taken the call"):
        called(kind="runpod", url=address)


def test_what_the_sdk_of_lambda_does_not_send_has_not_run(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (
        ("AWS_ACCESS_KEY_ID", "lcq"),
        ("AWS_SECRET_ACCESS_KEY", "lcq"),
        ("AWS_DEFAULT_REGION", "us-east-1"),
        ("AWS_ENDPOINT_URL_LAMBDA", "https://lambda.example"),
        ("HTTPS_PROXY", "http://127.0.0.1:9"),
    ):
        monkeypatch.setenv(name, value)
    with pytest.raises(EndpointAway, match="cannot be reached"):
        called(kind="lambda", url="clean")
    with pytest.raises(EndpointAway, match="the SDK does not call it"):
        called(kind="lambda", url="clean", region="no such one!")

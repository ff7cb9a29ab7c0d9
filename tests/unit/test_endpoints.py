"""What is known of a call that had no answer: whether it went out decides whether it is paid for."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from lcq.health import NO_RETRY_LOST
from lcq.models import Device, DeviceKind, ErrorClass, TaskType
from lcq.runner_config import FunctionConfig
from tests.conftest import wait_until_sync
from tests.unit.test_lying_functions import engine, work
from worker.calls import Call, Instance, Reply, Trouble, parcel
from worker.engines.base import EngineError, EngineSettings, Picture, Work
from worker.engines.endpoints import (
    Callback,
    Called,
    CallFailed,
    EndpointAway,
    EndpointBusy,
    EndpointRefuses,
    InputRefused,
    OutcomeUnknown,
    endpoint_of,
)
from worker.engines.function import FunctionEngine

CALL = Call(key="06ft3k/1", task_type=TaskType.INPAINT, model="cv2-telea", image=parcel(b"i"), mask=parcel(b"m"))


@contextmanager
def server(
    answer: Callable[[str, str, bytes], tuple[int, bytes] | None], heads: Mapping[str, str] | None = None
) -> Iterator[str]:
    """Answers each question, by its method, path and body, with a status and a body; None: it cuts the connection."""

    class Handler(BaseHTTPRequestHandler):
        def _any(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            told = answer(self.command, self.path, body)
            if told is None:
                self.connection.close()
                self.close_connection = True
                return
            self.send_response(told[0])
            for name, value in (heads or {}).items():
                self.send_header(name, value)
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


def config(**settings: object) -> FunctionConfig:
    return FunctionConfig.model_validate({"models": {"cv2-telea": 0.2}, "timeout_s": 30} | settings)


def called(call: Call = CALL, **settings: object) -> object:
    """What answers ``call``."""
    function = config(**settings)
    endpoint = endpoint_of(function)
    try:
        return endpoint.call(call, timeout_s=function.timeout_s)
    finally:
        endpoint.close()


@pytest.fixture
def cloud(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Has boto3 call Lambda at this address, whatever is said to it, and to proxies, where the tests run."""
    for name in [*os.environ]:
        if name.startswith(("AWS_", "BOTO_")) or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    for name, value in (
        ("AWS_CONFIG_FILE", os.devnull),
        ("AWS_SHARED_CREDENTIALS_FILE", os.devnull),
        ("AWS_EC2_METADATA_DISABLED", "true"),
        ("AWS_ACCESS_KEY_ID", "lcq"),
        ("AWS_SECRET_ACCESS_KEY", "lcq"),
        ("AWS_DEFAULT_REGION", "us-east-1"),
    ):
        monkeypatch.setenv(name, value)
    return partial(monkeypatch.setenv, "AWS_ENDPOINT_URL_LAMBDA")


def test_a_call_that_a_proxy_did_not_let_out_has_not_run(monkeypatch: pytest.MonkeyPatch) -> None:
    with server(lambda *_: (407, b"who are you")) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy)
        with pytest.raises(EndpointAway, match="407"):
            called(url="https://clean.example")


@pytest.mark.parametrize("token", ["one\ntwo", "schlüssel"])
def test_a_token_that_no_header_can_carry_lets_no_call_out(tmp_path: Path, token: str) -> None:
    (tmp_path / "token").write_text(token)
    with pytest.raises(EndpointRefuses, match="single line of ASCII"):
        called(url="http://127.0.0.1:9", auth={"token_file": str(tmp_path / "token")})


def test_what_has_gone_out_may_have_run_whatever_the_endpoint_is() -> None:
    with server(lambda *_: None) as cutting, pytest.raises(OutcomeUnknown):
        called(url=cutting)
    with server(lambda *_: (202, b"")) as queueing, pytest.raises(CallFailed, match="does not answer it"):
        called(url=queueing)
    with server(lambda *_: (301, b"")) as moved, pytest.raises(EndpointRefuses):
        called(url=moved)


class Nobody:
    """Whom no gateway calls back."""

    def callback(self, seconds: float) -> Callback:
        return Callback("http://127.0.0.1:9/once", "name")

    def called(self, callback: Callback, wait_s: float) -> Called | None:
        return None


@pytest.mark.parametrize(("status", "known"), [(200, OutcomeUnknown), (204, OutcomeUnknown), (302, EndpointRefuses)])
def test_a_gateway_that_does_not_queue_may_have_run_what_it_took(status: int, known: type[Exception]) -> None:
    with server(lambda *_: (status, b"")) as gateway:
        function = config(**{"kind": "openfaas", "async": True, "url": f"{gateway}/function/clean"})
        endpoint = endpoint_of(function, Nobody())
        with pytest.raises(known, match="does not queue"):
            endpoint.call(CALL, timeout_s=30)
        endpoint.close()


# ---------------------------------------------------------------- RunPod


@pytest.fixture
def brisk(monkeypatch: pytest.MonkeyPatch) -> None:
    """A job's state is asked for without long pauses."""
    monkeypatch.setattr("worker.engines.endpoints._POLL_S", (0.01, 0.01))


class RunPod:
    """Answers /run with a job, and each question for its state with the next of ``told``; the last one always."""

    def __init__(self, *told: tuple[int, bytes] | None, run: bytes = b'{"id": "j", "status": "IN_QUEUE"}') -> None:
        self.told, self.run = list(told), run
        self.asked: list[str] = []
        self.policy: dict[str, int] = {}

    def __call__(self, method: str, path: str, body: bytes) -> tuple[int, bytes] | None:
        self.asked.append(path.removeprefix("/"))
        if path.endswith("/run"):
            self.policy = json.loads(body)["policy"]
            return 200, self.run
        if path.endswith("/cancel/j"):
            return 200, b'{"id": "j", "status": "CANCELLED"}'
        return self.told.pop(0) if len(self.told) > 1 else self.told[0]


DONE = (200, b'{"id": "j", "status": "COMPLETED", "output": {"key": "06ft3k/1"}}')


@pytest.mark.usefixtures("brisk")
@pytest.mark.parametrize(
    "trouble",
    [(500, b"no"), (502, b""), (503, b""), (429, b""), None, (200, b"<html>"), (404, b"no such job"), (401, b"no"),
     (200, b'{"id": "other", "status": "COMPLETED", "output": {"key": "of another"}}')],
)  # fmt: skip
def test_what_a_question_for_a_job_is_answered_with_is_not_taken_for_what_became_of_the_job(
    trouble: tuple[int, bytes] | None,
) -> None:
    told = RunPod(trouble, (200, b'{"id": "j", "status": "IN_PROGRESS"}'), trouble, DONE)
    with server(told) as address:
        assert called(kind="runpod", url=address) == {"key": "06ft3k/1"}
    assert told.asked == ["run", *["status/j"] * 4]


@pytest.mark.usefixtures("brisk")
@pytest.mark.parametrize("status", [400, 401, 404])
def test_a_job_that_was_taken_may_run_though_its_state_is_not_told(status: int) -> None:
    for put_url, after in (("", ["cancel/j"]), ("http://store/result", [])):  # that result is looked for
        told = RunPod((status, b"no"))
        with server(told) as address, pytest.raises(OutcomeUnknown, match="it has taken the call"):
            called(CALL.model_copy(update={"put_url": put_url}), kind="runpod", url=address)
        assert told.asked == ["run", *["status/j"] * 3, *after]


@pytest.mark.parametrize("answer", [b"<html>", b"[]", b'{"status": "IN_QUEUE"}', b'{"id": "../../cancel"}'])
def test_a_run_that_is_answered_with_no_job_may_have_been_taken_all_the_same(answer: bytes) -> None:
    told = RunPod(DONE, run=answer)
    with server(told) as address, pytest.raises(OutcomeUnknown, match="names no job"):
        called(kind="runpod", url=address)
    assert told.asked == ["run"]


@pytest.mark.usefixtures("brisk")
@pytest.mark.parametrize(("timeout_s", "policy"), [(3, (5_000, 33_000)), (120, (120_000, 150_000))])
def test_a_job_is_kept_until_its_state_has_been_asked_for_and_no_policy_is_under_the_least(
    timeout_s: float, policy: tuple[int, int]
) -> None:
    told = RunPod(DONE)
    with server(told) as address:
        called(kind="runpod", url=address, timeout_s=timeout_s)
    assert (told.policy["executionTimeout"], told.policy["ttl"]) == policy


@pytest.mark.usefixtures("brisk")
def test_the_job_of_an_attempt_that_nobody_waits_for_is_cancelled() -> None:
    class Enough(Exception): ...

    def progress(fraction: float, stage: str) -> None:
        if any(path.startswith("status/") for path in told.asked):
            raise Enough

    told = RunPod((200, b'{"id": "j", "status": "IN_PROGRESS"}'))
    with server(told) as address, pytest.raises(Enough):
        engine(address, kind="runpod").run(work(progress))
    assert "cancel/j" in told.asked


@pytest.mark.usefixtures("brisk")
def test_a_job_that_is_not_wanted_any_more_is_cancelled_also_where_it_had_no_name_yet() -> None:
    given_up = threading.Event()
    asked: list[str] = []

    def answer(method: str, path: str, body: bytes) -> tuple[int, bytes]:
        asked.append(path.removeprefix("/"))
        if path.endswith("/run"):
            given_up.wait(60)
        return 200, b'{"id": "j", "status": "IN_QUEUE"}'

    with server(answer) as address:
        endpoint = endpoint_of(config(kind="runpod", url=address))
        ended: list[BaseException] = []

        def call() -> None:
            try:
                endpoint.call(CALL, timeout_s=30)
            except OutcomeUnknown as unknown:
                ended.append(unknown)

        caller = threading.Thread(target=call)
        caller.start()
        wait_until_sync(lambda: asked, what="the call is being taken")
        endpoint.cancel()
        endpoint.close()
        given_up.set()
        caller.join(60)
    assert [str(one) for one in ended] == ["it was given up"]
    assert asked == ["run", "cancel/j"]


# ---------------------------------------------------------------- AWS Lambda


LAMBDA_SAYS = (
    (502, "", OutcomeUnknown), (504, "", OutcomeUnknown), (503, "", EndpointBusy), (429, "", EndpointBusy),
    (500, "", CallFailed), (403, "", EndpointRefuses), (413, "", InputRefused),
    (500, "ServiceException", OutcomeUnknown), (502, "EC2ThrottledException", EndpointBusy),
    (502, "KMSDisabledException", EndpointRefuses),
)  # fmt: skip


def test_what_stands_before_lambda_is_believed_no_more_than_before_any_function(cloud: Callable[[str], None]) -> None:
    heads: dict[str, str] = {}
    status = 0
    with server(lambda *_: (status, b"no"), heads) as address:
        cloud(address)
        endpoint = endpoint_of(config(kind="lambda", url="clean"))
        for number, error, known in LAMBDA_SAYS:
            status, heads["x-amzn-ErrorType"] = number, error
            with pytest.raises(known):
                endpoint.call(CALL, timeout_s=30)
        endpoint.close()


def test_what_the_sdk_of_lambda_does_not_send_has_not_run(
    cloud: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    cloud("https://lambda.example")
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    with pytest.raises(EndpointAway, match="cannot be reached"):
        called(kind="lambda", url="clean")
    with pytest.raises(EndpointAway, match="the SDK does not call it"):
        called(kind="lambda", url="clean", region="no such one!")


@pytest.mark.parametrize("code", ["endpoint_busy", "iopaint_unreachable", "function_unknown", "mask_full"])
def test_what_a_function_says_itself_is_paid_for_and_costs_a_try_whatever_it_calls_it(code: str) -> None:
    """Else a task whose function has lost what it needs would be called, and paid for, without end."""
    trouble = Trouble(error_class=ErrorClass.TRANSIENT, code=code, message="no")
    reply = Reply(key=CALL.key, trouble=trouble, seconds=2.0, instance=Instance(id="i", is_cold=True, start_s=3.0))
    with server(lambda method, path, body: (500, reply.model_dump_json().encode())) as url:
        config = {"url": url, "models": {"cv2-telea": 0.2}, "price_s": 0.01, "timeout_s": 30}
        device = Device(id="burst", kind=DeviceKind.SERVERLESS)
        engine = FunctionEngine(EngineSettings(device=device, function=FunctionConfig.model_validate(config)))
        picture = Picture(np.zeros((8, 8, 3), np.uint8), np.eye(8, dtype=np.bool_))
        work = Work(TaskType.INPAINT, "cv2-telea", picture, {}, lambda fraction, stage: None, key=CALL.key)
        with pytest.raises(EngineError) as told:
            engine.run(work)
    assert told.value.code not in NO_RETRY_LOST | {"function_unknown"}
    assert work.cost == pytest.approx(0.05), "what its reply says, its cold start with it"

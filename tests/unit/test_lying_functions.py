"""Functions that lie: whatever they answer, they harm nothing but their own calls, and no secret is told on."""

from __future__ import annotations

import json
import struct
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import cv2
import msgpack
import numpy as np
import pytest

from lcq.lent import seconds_of
from lcq.models import Device, DeviceKind, ErrorClass, FunctionReading, Task, TaskType
from lcq.runner_config import FunctionConfig, LimitsConfig
from worker.calls import Call, Instance, parcel
from worker.engines import function as function_engine
from worker.engines.base import EngineError, EngineSettings, Picture, Work
from worker.engines.exchanges import Place
from worker.engines.function import FunctionEngine
from worker.engines.hidden import Hidden
from worker.engines.picture_bytes import encode_picture
from worker.engines.shelf import Shelf
from worker.engines.work import AttemptFailed, run_task
from worker.function import Function

Answer = Callable[[BaseHTTPRequestHandler, dict[str, Any]], None]
KEY = "06ft3kzzzzzzzzzz/1"


@contextmanager
def liar(answer: Answer) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def _any(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            try:
                answer(self, json.loads(body) if self.command == "POST" else {})
            except OSError:
                return  # whoever asked has had enough

        do_POST = do_GET = do_PUT = _any  # noqa: N815 - the names that the library calls

        def log_message(self, *_: object) -> None: ...

    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    httpd.daemon_threads = True
    threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{httpd.server_address[1]}"
    finally:
        httpd.shutdown()
        httpd.server_close()


def say(to: BaseHTTPRequestHandler, status: int, body: bytes, **heads: str) -> None:
    to.send_response(status)
    for name, value in heads.items():
        to.send_header(name, value)
    to.send_header("Content-Length", str(len(body)))
    to.end_headers()
    to.wfile.write(body)


def replies(status: int = 200, **more: Any) -> Answer:
    """Gives the picture back as it came, and says ``more`` beside that."""

    def answer(to: BaseHTTPRequestHandler, call: dict[str, Any]) -> None:
        asked = call.get("input", call)
        reply = {"key": asked["key"], "result": asked["image"], "seconds": 0.5, "instance": {"id": "one"}} | more
        is_job = "input" in call
        document = {"id": "j", "status": "COMPLETED", "output": reply} if is_job else reply
        say(to, status, json.dumps(document).encode())

    return answer


def trouble(**told: str) -> dict[str, Any]:
    return {"result": None, "trouble": {"error_class": "transient", "code": "strange", "message": "no"} | told}


def picture() -> Picture:
    pixels = np.zeros((12, 16, 3), np.uint8)
    mask = np.zeros((12, 16), np.bool_)
    mask[4:8, 4:8] = True
    return Picture(pixels, mask)


def engine(url: str, **config: Any) -> FunctionEngine:
    settings = {"url": url, "models": {"cv2-telea": 0.2}, "price_s": 0.01, "price_call": 0.001, "timeout_s": 60}
    device = Device(id="burst", kind=DeviceKind.SERVERLESS)
    return FunctionEngine(EngineSettings(device=device, function=FunctionConfig.model_validate(settings | config)))


def work(progress: Callable[[float, str], None] = lambda fraction, stage: None) -> Work:
    return Work(TaskType.INPAINT, "cv2-telea", picture(), {}, progress, key=KEY)


def ended(answer: Answer, **config: Any) -> tuple[EngineError, Work]:
    asked = work()
    with liar(answer) as url, pytest.raises(EngineError) as told:
        engine(url, **config).run(asked)
    return told.value, asked


@pytest.mark.parametrize(
    ("told", "code", "error_class"),
    [
        # These would cost nothing, lose no try, and so never end; who is away, or was not called, an agent knows.
        ({"code": "endpoint_unreachable"}, "function_error", ErrorClass.TRANSIENT),
        ({"code": "storage_unreachable"}, "function_error", ErrorClass.TRANSIENT),
        ({"code": "function_unknown"}, "function_error", ErrorClass.TRANSIENT),
        ({"code": "call_too_large"}, "function_error", ErrorClass.TRANSIENT),
        ({"code": "No code! " * 99}, "function_error", ErrorClass.TRANSIENT),
        # Two of these would make the task poison, and the node a suspect.
        ({"error_class": "crash"}, "strange", ErrorClass.TRANSIENT),
        ({"error_class": "bad_input", "code": "mask_full"}, "mask_full", ErrorClass.BAD_INPUT),
    ],
)
def test_a_function_says_only_what_it_can_know_and_is_paid_what_it_took(
    told: dict[str, str], code: str, error_class: ErrorClass
) -> None:
    error, asked = ended(replies(500, **trouble(**told)))
    assert (error.code, error.error_class) == (code, error_class)
    assert asked.cost == pytest.approx(0.001 + 0.01 * 0.5)


def test_what_a_function_took_is_told_though_it_has_no_result(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), picture().pixels)
    cv2.imwrite(str(tmp_path / "mask.png"), picture().mask.astype(np.uint8) * 255)
    task = Task(
        task_type=TaskType.INPAINT,
        image_path=str(tmp_path / "a.png"),
        mask_path=str(tmp_path / "mask.png"),
        output_path=str(tmp_path / "out.png"),
        config={"model": "cv2-telea"},
    )
    for more in (trouble(), {"result": parcel(encode_picture(picture().pixels[:9])).model_dump()}):
        with liar(replies(**more)) as url:
            one = engine(url)
            shelf = Shelf([one], one.settings)
            with pytest.raises(AttemptFailed) as end:
                run_task(task, attempt=1, shelf=shelf, limits=LimitsConfig(), progress=lambda fraction, stage: None)
        assert end.value.cost == pytest.approx(0.006)


def test_what_it_says_of_its_instances_can_be_told_on() -> None:
    for start_s in (float("inf"), 1e300):
        strange = {"id": "\ud800\n" + "x" * 999, "is_cold": True, "start_s": start_s, "load_s": start_s}
        with liar(replies(instance=strange)) as url:
            one = engine(url, kind="runpod")
            one.run(work())
        (instance,) = one.answered()
        msgpack.packb(instance.model_dump())
        assert instance.id == "x" * len(instance.id)
        reading = FunctionReading(cold=1, start_s=instance.start_s, load_s=instance.load_s)
        assert FunctionReading.model_validate_json(reading.model_dump_json()).start_s == 86400
    assert Instance(start_s=3.5).start_s == 3.5


@pytest.mark.parametrize("kind", ["http", "runpod"])
def test_an_answer_of_brackets_breaks_nobody(kind: str) -> None:
    error, _ = ended(lambda to, call: say(to, 500 if kind == "http" else 200, b"[" * 100_000), kind=kind)
    assert error.code == ("function_failed" if kind == "http" else "function_unknown")
    assert seconds_of(b'{"seconds": 1' + b"0" * 400 + b"}", "2.5") == 2.5


def test_an_answer_is_as_long_as_calls_are_and_no_longer() -> None:
    error, _ = ended(replies(notes=["n" * 2**21]), payload_kib=64)
    assert error.code == "function_failed"
    assert "1,088 KiB" in str(error)
    with liar(replies(notes=["n" * 2**16])) as url:
        asked = work()
        engine(url).run(asked)
    assert asked.notes == ["n" * 500]


def test_whose_headers_trickle_is_not_waited_for_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    over = threading.Event()

    def trickles(to: BaseHTTPRequestHandler, call: dict[str, Any]) -> None:
        to.wfile.write(b"HTTP/1.1 200 OK\r\n")
        while not over.wait(0.05):
            to.wfile.write(b"X-More: 1\r\n")

    monkeypatch.setattr(function_engine, "_LATE_S", 0.2)
    try:
        error, _ = ended(trickles, timeout_s=0.3)
    finally:
        over.set()
    assert error.code == "function_unknown"


# ---------------------------------------------------------------- secrets


@pytest.mark.parametrize("status", [200, 401, 500])
@pytest.mark.parametrize("header", ["Authorization", "X-Functions-Key"])
def test_a_token_that_is_said_back_is_told_to_nobody(tmp_path: Path, header: str, status: int) -> None:
    (tmp_path / "token").write_text("s3cr3t-of-the-house")

    def echo(to: BaseHTTPRequestHandler, call: dict[str, Any]) -> None:
        said = f"I got {to.headers[header]} and {to.path}"
        if status == 401:
            say(to, status, said.encode())
        elif status == 500:
            replies(500, **trouble(message=said))(to, call)
        else:
            replies(notes=[said])(to, call)

    asked = work()
    with liar(echo) as url:
        one = engine(
            f"{url}/clean?code=key-in-the-address", auth={"token_file": str(tmp_path / "token"), "header": header}
        )
        if status == 200:
            one.run(asked)
            told = " ".join(asked.notes)
        else:
            with pytest.raises(EngineError) as end:
                one.run(asked)
            told = str(end.value)
    assert "I got" in told
    assert "s3cr3t" not in told
    assert "key-in-the" not in told


def test_what_is_hidden_is_also_where_it_was_cut_short_or_stands_alone() -> None:
    hidden = Hidden()
    hidden.add("abcdefghijklmnopqrstuvwxyz")
    hidden.add_url(
        "https://b.example/o/1-image.png?X-Amz-Credential=us%2Feast&X-Amz-Signature=0123456789abcdef0123456789"
    )
    hidden.add_url("https://lcq.example/v1/once/abcdefghij0123456789ABCDEFGHIJ")
    hidden.add_url("https://me:pass-word@lcq.example/clean", is_right=False)
    assert hidden("at Bearer abcdefghijklmnopqr") == "at Bearer …"
    assert hidden("abcdefghijklmnopqrstuvwxyz, abcdefghijklmnopqrstuvwxyz!") == "…, …!"
    assert hidden("signed 0123456789abcdef0123456789 by us") == "signed … by us"
    assert hidden("POST /v1/once/abcdefghij0123456789ABCDEFGHIJ") == "POST /v1/once/…"
    assert hidden("pass-word of clean, Bearer of news") == "… of clean, Bearer of news"
    hidden.add("ab")
    assert hidden("about") == "about"  # what is so short may be in any word


# ---------------------------------------------------------------- pictures


def bomb(width: int, height: int) -> bytes:
    """A PNG that says that it has so many pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\0" * 99)) + chunk(b"IEND", b"")


def test_a_picture_that_says_it_is_huge_is_not_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    huge = bomb(30_000, 30_000)
    monkeypatch.setattr(cv2, "imdecode", lambda *_: pytest.fail("it was decoded"))
    with liar(replies(result=parcel(huge).model_dump())) as url, pytest.raises(EngineError) as end:
        engine(url).run(work())
    assert (end.value.error_class, end.value.code) == (ErrorClass.BAD_OUTPUT, "output_shape")
    assert "30,000 x 30,000" in str(end.value)
    assert not Place("t", 1, "a" * 16, most=192).is_picture(huge)
    assert Place("t", 1, "a" * 16, most=192).most_bytes < 2 * 2**20
    status, reply = Function({})(call_with(parcel(huge)).model_dump(mode="json"))
    assert (status, reply["trouble"]["code"]) == (500, "output_shape")


def test_a_picture_of_another_size_is_no_result() -> None:
    other = parcel(encode_picture(np.zeros((8, 8, 3), np.uint8)))
    error, asked = ended(replies(result=other.model_dump()))
    assert (error.error_class, error.code) == (ErrorClass.BAD_OUTPUT, "output_shape")
    assert asked.cost == 0.001 + 0.01 * 0.5, "it has worked"


def call_with(image: Any, **more: Any) -> Call:
    mask = parcel(encode_picture(picture().mask))
    return Call(key=KEY, model="cv2-telea", image=image, mask=mask, **({"inline_most": 2**20} | more))


# ---------------------------------------------------------------- the function's side


def test_a_function_takes_no_redirection_for_a_place_and_follows_none() -> None:
    asked: list[str] = []

    def moved(to: BaseHTTPRequestHandler, call: dict[str, Any]) -> None:
        asked.append(to.path)
        say(to, 307, b"", Location="/inside")

    data = encode_picture(picture().pixels)
    with liar(moved) as url:
        call = call_with(parcel(data), put_url=f"{url}/result")
        _, reply = Function({})(call.model_dump(mode="json"))
        assert reply["trouble"]["code"] == "result_not_taken"
        _, reply = Function({})(call_with(parcel(data, url=f"{url}/image")).model_dump(mode="json"))
        assert reply["trouble"]["code"] == "bytes_unreachable"
    assert asked == ["/result", "/image"]


def test_a_function_works_for_nobody_who_waits_no_more() -> None:
    over = threading.Event()
    data = encode_picture(picture().pixels)

    def trickles(to: BaseHTTPRequestHandler, call: dict[str, Any]) -> None:
        to.send_response(200)
        to.send_header("Content-Length", str(len(data)))
        to.end_headers()
        for at in range(len(data)):
            to.wfile.write(data[at : at + 1])
            if over.wait(0.1):
                return

    one = Function({})
    one.warm_up()
    with liar(trickles) as url:
        try:
            image = parcel(data, url=f"{url}/image")
            _, reply = one(call_with(image, seconds_left=1.5).model_dump(mode="json"))
        finally:
            over.set()
    assert reply["trouble"]["code"] == "too_slow"
    assert "of the picture there" in reply["trouble"]["message"]
    one._lock.acquire()  # it does one call at a time, and this one waits for its turn
    answered: list[Any] = []
    waiting = threading.Thread(
        target=lambda: answered.append(one(call_with(parcel(data), seconds_left=0.05).model_dump(mode="json")))
    )
    waiting.start()
    time.sleep(0.1)
    one._lock.release()
    waiting.join(60)
    assert answered[0][1]["trouble"]["code"] == "too_slow"

"""What goes between agents and functions: calls as a function reads them, and answers as an agent reads them."""

from __future__ import annotations

import base64
import contextlib
import json
import logging
import random
import socketserver
import ssl
import tempfile
import threading
from collections.abc import Iterator
from functools import partial
from typing import Any

import httpx
import numpy as np

from lcq.lent import Terms, left_in, seconds_of
from lcq.models import Device, DeviceKind, TaskType
from lcq.runner_config import FunctionConfig
from lcq.spend import book_of
from tests.fuzz.mutation import as_json
from tests.fuzz.targets import Finding, Try
from worker import function as functions
from worker.calls import CallRefused, parcel, read_call, read_reply, waking_call
from worker.engines import endpoints
from worker.engines import function as engines
from worker.engines.base import EngineError, EngineSettings, Picture, Work
from worker.engines.picture_bytes import encode_picture

KEY = "06ft3kzzzzzzzzzz/1"
_MODEL = "cv2-telea"
_TIMEOUT_S = 0.3
_STATUSES = (200, 400, 413, 422, 500)


def changed(data: bytes, chance: random.Random) -> bytes:
    """JSON with other values in it, and where a picture came inline, mostly with the sums that it has now."""
    found = as_json(data, chance)
    if chance.random() < 0.2:
        return found
    try:
        whole = json.loads(found)
        waiting = [whole]
        while waiting:
            one = waiting.pop()
            waiting += one.values() if isinstance(one, dict) else one if isinstance(one, list) else ()
            if isinstance(one, dict) and isinstance(one.get("inline"), str) and one["inline"]:
                one |= parcel(base64.b64decode(one["inline"])).model_dump(mode="json")
        return json.dumps(whole).encode()
    except (ValueError, RecursionError):
        return found


def _picture() -> Picture:
    pixels = np.arange(24 * 16 * 3, dtype=np.uint8).reshape(16, 24, 3)
    mask = np.zeros((16, 24), np.bool_)
    mask[4:8, 6:12] = True
    return Picture(pixels, mask)


# ---------------------------------------------------------------- calls, as a function reads them


def calls() -> list[bytes]:
    """A call with everything in it, one that wakes, one with addresses, and none."""
    picture = _picture()
    image, mask = encode_picture(picture.pixels), encode_picture(picture.mask)
    whole = {
        "v": 1, "key": KEY, "task_type": "inpaint", "model": _MODEL, "config": {"radius": 4, "cv2_radius": 4},
        "eased": [], "image": parcel(image).model_dump(), "mask": parcel(mask).model_dump(), "put_url": "",
        "inline_most": 100_000, "seconds_left": 5.0,
    }  # fmt: skip
    woken = waking_call(KEY, _MODEL, hold_s=0.0, seconds_left=5.0).model_dump(mode="json")
    elsewhere = whole | {"image": parcel(image, url="http://127.0.0.1:9/image").model_dump()}
    return [json.dumps(one).encode() for one in (whole, woken, elsewhere, {"key": KEY}, [], whole | {"v": 2})]


@contextlib.contextmanager
def called() -> Iterator[Try]:
    """What a function of ours makes of a document: an answer to that call, in words that an agent reads."""
    logging.getLogger(functions.__name__).setLevel(logging.CRITICAL)  # it logs each failure with all of its steps
    with tempfile.TemporaryDirectory() as folder, _instead(functions, "_MOST_PIXELS", 512 * 512):
        function = functions.Function({"LCQ_FUNCTION_MODELS": folder})

        def read(data: bytes) -> None:
            try:
                call = read_call(data)
            except CallRefused:
                call = None
            if call is not None and (call.hold_s or call.put_url or call.image.url or call.mask.url):
                return  # that is waited for, or goes over the network
            status, told = function(data)
            if status not in _STATUSES:
                raise Finding(f"a status of {status}")
            reply = read_reply(json.dumps(told, allow_nan=False).encode(), call.key if call is not None else "")
            if reply.trouble is not None and reply.trouble.code == "function_error":
                raise Finding(f"not foreseen: {reply.trouble.message}")

        yield read


# ---------------------------------------------------------------- answers, as an agent reads them


def answers() -> list[bytes]:
    """What functions and those before them have answered, by platform: JSON of statuses, headers and bodies."""
    result = parcel(encode_picture(_picture().pixels)).model_dump(mode="json")
    reply = {
        "v": 1, "key": KEY, "result": result, "trouble": None, "seconds": 0.5, "notes": ["a note"],
        "instance": {"id": "i-1", "is_cold": True, "start_s": 2.0, "load_s": 1.0},
    }  # fmt: skip
    trouble = {"error_class": "bad_input", "code": "mask_size", "message": "the mask has another size"}
    broken = reply | {"result": None, "trouble": trouble}
    date = "Wed, 21 Oct 2065 07:28:00 GMT"
    job = {"id": "job-1", "status": "IN_QUEUE"}
    told: list[tuple[str, list[tuple[int, dict[str, str], Any]]]] = [
        ("http", [(200, {"content-type": "application/json"}, reply)]),
        ("http", [(422, {}, broken)]),
        ("http", [(429, {"retry-after": "7"}, "slow down")]),
        ("http", [(503, {"Retry-After": date}, "")]),
        ("http", [(503, {"Retry-After": "Mon, 1 Jan 99999999999999999999 00:00:00 GMT"}, "")]),
        ("http", [(502, {}, "<html>")]),
        ("http", [(202, {"content-encoding": "gzip"}, "taken")]),
        ("runpod", [(200, {}, job), (200, {}, job | {"status": "COMPLETED", "output": reply})]),
        ("runpod", [(200, {}, job | {"status": "FAILED", "error": "out of \\ud800 memory"})]),
        ("runpod", [(200, {}, job), (404, {}, "no such job"), (405, {}, ""), (200, {}, job | {"status": "TIMED_OUT"})]),
        ("bill", [(200, {"x-duration-seconds": "1.5"}, reply)]),
        ("bill", [(200, {"result:": '{"sha256": "a", "size": Infinity}'}, "[" * 100_000)]),
        ("bill", [(200, {}, '{"price_call": 1' + "0" * 400 + ', "price_s": 0, "timeout_s": 1}')]),
    ]
    return [json.dumps({"kind": kind, "answers": [list(one) for one in steps]}).encode() for kind, steps in told]


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    allow_reuse_address = True
    answers: list[bytes]

    def handle_error(self, *_: Any) -> None:
        """Whoever asks may leave."""


class _Handler(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        length = 0
        while (line := self.rfile.readline(65_536)) not in (b"\r\n", b"\n", b""):
            name, _, value = line.partition(b":")
            if name.lower() == b"content-length":
                length = int(value)
        self.rfile.read(length)
        server = self.server
        if isinstance(server, _Server) and server.answers:
            self.wfile.write(server.answers.pop(0) if len(server.answers) > 1 else server.answers[0])


def _as_http(answer: Any) -> bytes:
    """Whatever ``answer`` says, as bytes on a socket: nothing stands between a stranger and us that would refuse it."""
    status, headers, body = [*answer, 200, {}, ""][:3] if isinstance(answer, list) else (200, {}, answer)
    text = body if isinstance(body, str) else json.dumps(body)
    data = text.encode("utf-8", "surrogatepass")
    lines = [f"HTTP/1.1 {status if isinstance(status, int) and 100 <= status < 1000 else 200} x"]
    named = headers if isinstance(headers, dict) else {}
    lines += [f"{name}: {value}" for name, value in named.items() if "\n" not in f"{name}{value}" and ":" not in name]
    lines += [f"Content-Length: {len(data)}", "Connection: close", "", ""]
    return "\r\n".join(lines).encode("utf-8", "replace") + data


@contextlib.contextmanager
def _instead(module: Any, name: str, value: Any) -> Iterator[None]:
    before = getattr(module, name)
    setattr(module, name, value)
    try:
        yield
    finally:
        setattr(module, name, before)


@contextlib.contextmanager
def answered() -> Iterator[Try]:
    """What an agent's engine makes of it, over a real socket: pixels, or a refusal of the closed list."""
    config = {"models": {_MODEL: 0.2}, "price_s": 0.01, "timeout_s": _TIMEOUT_S, "payload_kib": 64}
    quick = partial(httpx.Client, verify=ssl.create_default_context())  # to read all certificates takes the most time
    with (
        _instead(endpoints, "_POLL_S", (0.001, 0.01)),
        _instead(engines, "_TRIES_BUSY", 1),
        _instead(httpx, "Client", quick),
        _Server(("127.0.0.1", 0), _Handler) as server,
    ):
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        url = f"http://127.0.0.1:{server.server_address[1]}/v2/x"
        settings = {
            kind: EngineSettings(
                device=Device(id="burst", kind=DeviceKind.SERVERLESS),
                function=FunctionConfig.model_validate(config | {"kind": kind, "url": url}),
            )
            for kind in ("http", "runpod")
        }

        def read(data: bytes) -> None:
            try:
                told = json.loads(data)
                kind, steps = told["kind"], told["answers"]
            except (ValueError, KeyError, TypeError, RecursionError):
                kind, steps = "http", [[200, {}, base64.b64encode(data).decode()]]
            if not isinstance(steps, list) or not steps:
                steps = [steps]
            if kind == "bill":
                _billed(steps[0])
                return
            server.answers = [_as_http(step) for step in steps[:8]]
            work = Work(TaskType.INPAINT, _MODEL, _picture(), {"radius": 4}, lambda fraction, stage: None, key=KEY)
            try:
                engines.FunctionEngine(settings["runpod" if kind == "runpod" else "http"]).run(work)
            except EngineError as refusal:
                str(refusal).encode()  # as it travels on
            "".join(work.notes).encode()
            if work.cost is not None and not 0 <= work.cost < 1e9:
                raise Finding(f"it costs {work.cost}")

        try:
            yield read
        finally:
            server.shutdown()


def _billed(step: Any) -> None:
    """The same as a bill that comes late; and what the books have of it."""
    _, headers, body = [*step, 200, {}, ""][:3] if isinstance(step, list) else (200, {}, step)
    named = headers if isinstance(headers, dict) else {}
    text = body if isinstance(body, str) else json.dumps(body)
    data = text.encode("utf-8", "surrogatepass")
    seconds = seconds_of(data, str(next(iter(named.values()), ""))[:200])
    terms = Terms.read(text)
    if terms is not None and seconds is not None and not terms.price(seconds) >= 0:
        raise Finding(f"a bill of {terms.price(seconds)}")
    fields = {str(name): value if isinstance(value, str) else json.dumps(value) for name, value in named.items()}
    left_in(1, {"result:0123456789abcdef": text, "reply:": text} | fields)
    book_of({"spent": text[:40], "reserved": "1"} | fields)

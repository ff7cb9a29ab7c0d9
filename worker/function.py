"""The function's side of serverless: one call of an agent, done by the same engines that nodes have.

A file of a few lines makes it a function of a platform (sample-config/functions): ``http`` for functions-framework
(Cloud Run functions) and everything else that gives a Flask request, ``on_openfaas`` for OpenFaaS, ``on_lambda`` for
AWS Lambda, ``KnativeFunction`` for Knative's func-python, ``on_runpod`` for RunPod. Models come from
``LCQ_FUNCTION_MODELS`` (a folder of weights as ``lcq models`` makes it); an instance loads each once and keeps it. One
call is done at a time in an instance.
"""

from __future__ import annotations

import base64
import contextlib
import json
import logging
import math
import os
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, MutableMapping
from http import HTTPStatus
from pathlib import Path
from typing import Any, TypeVar

import psutil

from lcq.ids import new_id
from lcq.models import Device, DeviceKind, ErrorClass
from lcq.runner_config import LimitsConfig
from worker.calls import MOST_NOTES, Call, CallRefused, Instance, Reply, Trouble, parcel, read_call
from worker.engines.base import Engine, EngineError, EngineSettings, Picture, Work
from worker.engines.check import BadOutput, check_output
from worker.engines.picture_bytes import decode_mask, decode_picture, encode_picture
from worker.engines.registry import make_engines
from worker.engines.shelf import Shelf

T = TypeVar("T")
_log = logging.getLogger(__name__)
logging.getLogger("httpx").setLevel(logging.WARNING)  # it logs addresses, and those are rights here
_MIB = 2**20
_LONGEST = 2000  # characters of a message
_MOST_BYTES = 512 * _MIB  # of a picture behind an address
_MOST_PIXELS = int(LimitsConfig.model_fields["image_pixels"].default)
_PIECE = 256 * 1024
_CONNECT_S = 10.0

_IMPORTED_S = time.time() - psutil.Process().create_time()
"""From the start of the process until this module was there: the first part of a cold start."""

_AGAIN_S = (0.5, 1.5)  # pauses before a transfer is tried again
_FOR_NOW = frozenset({HTTPStatus.CONFLICT, HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.REQUEST_TIMEOUT})

_STATUS = {ErrorClass.BAD_INPUT: HTTPStatus.UNPROCESSABLE_ENTITY}


class Function:
    """What an instance does. ``Function()`` is cheap; engines are made with the first call, or by ``warm_up()``."""

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        """``environment``: ``LCQ_FUNCTION_MODELS``, a folder of weights; ``LCQ_FUNCTION_DEVICE``, ``cpu`` or ``gpu``;
        ``LCQ_FUNCTION_WARM``, models to be loaded by ``warm_up()``, with commas between them."""
        self._environment = environment
        self._lock = threading.Lock()
        self._shelf: Shelf | None = None
        self._calls = 0
        self._start_s = 0.0  # until the engines were there, and what LCQ_FUNCTION_WARM names was loaded
        self._warmed_s = 0.0  # of that, loading
        self._load_s = 0.0  # of this call, loading its model
        self.id = ""  # made with its first call: a server may fork its workers from a process that has this already

    def warm_up(self) -> None:
        """Make the engines, and load the models that ``LCQ_FUNCTION_WARM`` names. A second time costs nothing."""
        with self._lock:
            self._warm_up()

    def _warm_up(self) -> Shelf:
        if self._shelf is None:
            began = time.monotonic()
            self._shelf = _shelf(self._environment)
            loading = time.monotonic()
            for model in filter(None, self._environment.get("LCQ_FUNCTION_WARM", "").split(",")):
                with contextlib.suppress(KeyError, EngineError):  # its first task tells in words what is wrong
                    self._shelf.load(model.strip(), {})
            self._warmed_s = time.monotonic() - loading
            self._start_s = _IMPORTED_S + time.monotonic() - began  # not what it waited for its first call
        return self._shelf

    def __call__(self, document: Any) -> tuple[int, dict[str, Any]]:
        """The status and the JSON document that answer a call. Never raises but for what ends the process."""
        try:
            call = read_call(document)
        except CallRefused as refused:
            trouble = Trouble(error_class=ErrorClass.BAD_INPUT, code="call_refused", message=str(refused)[:_LONGEST])
            return int(HTTPStatus.BAD_REQUEST), Reply(key="", trouble=trouble).model_dump(mode="json")
        until = time.monotonic() + call.seconds_left if call.seconds_left else math.inf  # waiting for its turn is of it
        with self._lock:
            self._calls += 1
            self.id = self.id or new_id()
            is_cold = self._calls == 1
            began, self._load_s = time.monotonic(), 0.0
            try:
                shelf = self._warm_up()
                began = time.monotonic()  # what came before it is of the start
                reply = self._done(call, shelf, until)
            except Exception as error:  # noqa: BLE001 - the edge: whatever it was, the agent is told in words
                _log.exception("call %s failed", call.key)
                reply = _failed(call, *_trouble_of(error))
            seconds = time.monotonic() - began
            instance = Instance(id=self.id, load_s=self._load_s)
            if is_cold:  # then loading is of the start, and not told twice
                seconds -= self._load_s
                instance = Instance(
                    id=self.id,
                    is_cold=True,
                    start_s=max(0.0, self._start_s) + self._load_s,
                    load_s=self._warmed_s + self._load_s,
                )
        status = HTTPStatus.OK
        if reply.trouble is not None:
            status = _STATUS.get(reply.trouble.error_class, HTTPStatus.INTERNAL_SERVER_ERROR)
        told = reply.model_copy(update={"seconds": max(0.0, seconds), "instance": instance})
        return int(status), told.model_dump(mode="json")

    def _done(self, call: Call, shelf: Shelf, until: float) -> Reply:
        if call.model not in shelf.offers:
            here = ", ".join(sorted(shelf.offers)) or "none"
            why = f" ({shelf.left_out[call.model]})" if call.model in shelf.left_out else ""
            message = f"this function has no model {call.model!r}{why}; it has: {here}"
            return _failed(call, ErrorClass.TRANSIENT, "model_not_here", message)

        def progress(fraction: float, stage: str) -> None:
            _in_time(until, f"at {fraction:.0%} of {stage}")

        progress(0.0, "its turn")
        if call.warm:
            self._loaded(call, shelf)
            time.sleep(call.hold_s)
            return Reply(key=call.key, result=call.image)
        pixels = decode_picture(_bytes_of(call.image, until), most=_MOST_PIXELS)
        picture = Picture(pixels, decode_mask(_bytes_of(call.mask, until), most=_MOST_PIXELS))
        if picture.mask.shape != picture.pixels.shape[:2]:
            raise EngineError("mask_size", "the mask has another size than the picture")
        engine = self._loaded(call, shelf)
        work = Work(call.task_type, call.model, picture, call.config, progress, call.eased)
        pixels = engine.run(work)
        check_output(call.task_type, picture, pixels)
        data = encode_picture(pixels)
        if call.put_url:
            _put(call.put_url, data, until)
            result = parcel(data, url=_without_right(call.put_url))
        elif len(data) > call.inline_most:
            message = f"its result has {len(data):,} bytes, and an answer may carry {call.inline_most:,}"
            return _failed(call, ErrorClass.TRANSIENT, "result_too_large", message)
        else:
            result = parcel(data)
        notes = tuple(str(note)[:500] for note in work.notes)[:MOST_NOTES]
        return Reply(key=call.key, result=result, notes=notes)

    def _loaded(self, call: Call, shelf: Shelf) -> Engine:
        """The engine that has the model of this call, loaded: once an instance."""
        began, was_warm = time.monotonic(), call.model in shelf.warm
        engine = shelf.load(call.model, call.config)
        self._load_s = 0.0 if was_warm else time.monotonic() - began
        return engine


def _failed(call: Call, error_class: ErrorClass, code: str, message: str) -> Reply:
    trouble = Trouble(error_class=error_class, code=code, message=" ".join(message.split())[:_LONGEST])
    return Reply(key=call.key, trouble=trouble)


def _shelf(environment: Mapping[str, str]) -> Shelf:
    memory_mib = psutil.virtual_memory().total // _MIB
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    kind = DeviceKind.GPU if environment.get("LCQ_FUNCTION_DEVICE", "cpu").lower() == "gpu" else DeviceKind.CPU
    settings = EngineSettings(
        device=Device(id=str(kind), kind=kind, cores=cores, memory_mib=memory_mib),
        threads=cores,
        models_path=Path(environment.get("LCQ_FUNCTION_MODELS", "models")),
    )
    engines, left_out = make_engines(settings)
    for name, why in left_out.items():
        _log.warning("without engine %s: %s", name, why)
    return Shelf(engines, settings)


def _trouble_of(error: Exception) -> tuple[ErrorClass, str, str]:
    match error:
        case EngineError():
            return error.error_class, error.code, str(error)
        case BadOutput():
            return ErrorClass.BAD_OUTPUT, error.code, str(error)
        case CallRefused():
            return ErrorClass.TRANSIENT, "bytes_damaged", str(error)
        case MemoryError():
            return ErrorClass.RESOURCE, "out_of_memory", f"the function has too little memory: {error}"
        case _:
            return ErrorClass.TRANSIENT, "function_error", f"{type(error).__name__}: {error}"


def _in_time(until: float, where: str) -> None:
    if time.monotonic() > until:
        raise EngineError("too_slow", f"nobody waits for it any more, {where}", error_class=ErrorClass.TRANSIENT)


def _bytes_of(parcel_: Any, until: float) -> bytes:
    if not parcel_.url:
        data: bytes = parcel_.opened()
        return data
    import httpx  # here: calls with everything in them need none

    def fetched(is_again: bool) -> bytes:
        with httpx.stream("GET", parcel_.url, timeout=httpx.Timeout(60.0, connect=_CONNECT_S)) as answer:
            if answer.status_code != HTTPStatus.OK:
                raise _NotMoved("bytes_unreachable", "the picture's address answered", answer.status_code)
            taken = bytearray()
            for piece in answer.iter_bytes(256 * 1024):
                _in_time(until, f"with {len(taken):,} of {parcel_.size:,} bytes of the picture there")
                taken += piece
                if len(taken) > min(parcel_.size, _MOST_BYTES):
                    raise CallRefused("more bytes came than were announced")
        return bytes(taken)

    whole: bytes = parcel_.checked(_moved(fetched))
    return whole


class _NotMoved(EngineError):
    """The address of a picture refused it."""

    def __init__(self, code: str, said: str, status: int) -> None:
        super().__init__(code, f"{said} {status}", error_class=ErrorClass.TRANSIENT)
        self.may_change = status >= HTTPStatus.INTERNAL_SERVER_ERROR or status in _FOR_NOW


def _moved(move: Callable[[bool], T]) -> T:
    """What ``move`` gives: tried again after what may be so for a moment only. A transfer that breaks off uses no
    address up."""
    import httpx

    for tries, pause_s in enumerate(_AGAIN_S):
        with contextlib.suppress(httpx.TransportError):
            try:
                return move(tries > 0)
            except _NotMoved as refused:
                if not refused.may_change:
                    raise
        time.sleep(pause_s)
    return move(True)


def _without_right(url: str) -> str:
    """``url`` as it may be told: what gives the right to it may be in its query, or in its path."""
    scheme, _, rest = url.partition("://")
    return f"{scheme}://{rest.partition('/')[0]}/…"


def _put(url: str, data: bytes, until: float) -> None:
    import httpx

    def pieces() -> Iterator[bytes]:
        for at in range(0, len(data), _PIECE):
            _in_time(until, f"with {at:,} of {len(data):,} bytes of the result put away")
            yield data[at : at + _PIECE]

    # Content-Type: without one some stores keep nothing of it. Content-Length: S3 takes no chunks.
    headers = {"Content-Type": "image/png", "Content-Length": str(len(data))}

    def put(is_again: bool) -> None:
        answer = httpx.put(url, content=pieces(), headers=headers, timeout=httpx.Timeout(60.0, connect=_CONNECT_S))
        if is_again and answer.status_code == HTTPStatus.GONE:
            return  # the try before was whole, and its answer was lost
        if not HTTPStatus.OK <= answer.status_code < HTTPStatus.MULTIPLE_CHOICES:  # nor is a redirection a place for it
            raise _NotMoved("result_not_taken", "the result's address answered", answer.status_code)

    _moved(put)


# ---------------------------------------------------------------- platforms

_function = Function()


def http(request: Any) -> tuple[str, int, dict[str, str]]:
    """A Flask request's answer: the entry point for functions-framework."""
    status, document = _function(request.get_data())
    return json.dumps(document), status, {"Content-Type": "application/json"}


def on_openfaas(event: Any, context: Any) -> dict[str, Any]:
    """The entry point for OpenFaaS's template python3-http: ``handle``, whether a caller waits or its queue-worker."""
    status, document = _function(event.body)
    return {"statusCode": status, "headers": {"Content-Type": "application/json"}, "body": json.dumps(document)}


def on_lambda(event: Any, context: Any) -> dict[str, Any]:
    """The entry point for AWS Lambda: ``event`` is the call itself, or what a function URL makes of its request."""
    if isinstance(event, Mapping) and "requestContext" in event and "body" in event:
        body = event["body"] or ""
        data = base64.b64decode(body) if event.get("isBase64Encoded") else body
        status, document = _function(data)
        headers = {"Content-Type": "application/json"}
        return {"statusCode": status, "headers": headers, "body": json.dumps(document)}
    return _function(event)[1]


def on_runpod(job: Mapping[str, Any]) -> dict[str, Any]:
    """The entry point for RunPod: ``runpod.serverless.start({"handler": on_runpod})``."""
    return _function(job.get("input"))[1]


class KnativeFunction:
    """The entry point for Knative's func-python: ``def new(): return KnativeFunction()``."""

    def start(self, config: Any) -> None:
        """Make the engines before the first call comes."""
        _function.warm_up()

    def ready(self) -> tuple[bool, str]:
        return True, "its engines are made with the first call, where they are not yet"

    async def handle(
        self,
        scope: MutableMapping[str, Any],
        receive: Callable[[], Awaitable[MutableMapping[str, Any]]],
        send: Callable[[MutableMapping[str, Any]], Awaitable[None]],
    ) -> None:
        """One ASGI request."""
        import asyncio

        body = bytearray()
        while True:
            message = await receive()
            body += message.get("body", b"")
            if message["type"] == "http.disconnect" or not message.get("more_body", False):
                break
        status, document = await asyncio.to_thread(_function, bytes(body))
        headers = [(b"content-type", b"application/json")]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": json.dumps(document).encode()})

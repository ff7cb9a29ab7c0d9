"""The function engine: what a device of the kind serverless does is done by a function somewhere else.

A time-out, or a connection that was cut, says nothing about whether the function ran. Where results go by way of
``exchange``, the result is looked for there before anything is called again: by this attempt, and first of all by the
next one. Its name holds the task, the attempt, and what was asked.
"""

from __future__ import annotations

import concurrent.futures
import hashlib
import json
import logging
import threading
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from numpy.typing import NDArray

from lcq.errors import LcqError, StorageUnreachable
from lcq.models import TaskType
from lcq.runner_config import FunctionConfig
from lcq.storage.objects import Objects
from worker.calls import Call, CallRefused, Instance, Parcel, Reply, parcel, read_reply
from worker.engines.base import (
    DeviceKind,
    Engine,
    EngineError,
    EngineSettings,
    ErrorClass,
    Estimate,
    ModelOffer,
    Picture,
    Progress,
    Work,
)
from worker.engines.endpoints import (
    CallFailed,
    EndpointAway,
    EndpointBusy,
    EndpointRefuses,
    InputRefused,
    OutcomeUnknown,
    endpoint_of,
)
from worker.engines.picture_bytes import decode_picture, encode_picture

_log = logging.getLogger(__name__)
_TICK_S = 0.1
_LOOK_S = 1.0  # between two looks whether a result has come after all
_TRIES_BUSY = 3  # of one attempt, at an endpoint that takes no more calls
_LONGEST_BUSY_S = 10.0  # that an attempt waits for it: for longer the node leaves it alone, and tasks go elsewhere
_GRACE_S = 5.0  # beyond the time that a call may take, for its result to be there
_MOST_BYTES = 512 * 2**20  # of a result


class FunctionEngine(Engine):
    """The models that ``agent.functions.NAME.models`` names, run by that function."""

    name = "function"
    self_test = False  # it would be paid for

    def __init__(self, settings: EngineSettings) -> None:
        super().__init__(settings)
        self._function = _Function(settings, settings.function) if settings.function is not None else None

    def capabilities(self) -> Mapping[str, ModelOffer]:
        kind = DeviceKind.SERVERLESS
        return {model: ModelOffer(kinds=(kind,), seconds={kind: seconds}) for model, seconds in self._seconds.items()}

    @property
    def _seconds(self) -> Mapping[str, float]:
        return self._function.config.models if self._function is not None else {}

    def estimate(self, work: Work) -> Estimate:
        """What it takes there; nothing of this host's memory."""
        return Estimate(seconds=self._seconds.get(work.model, 0.0))

    def answered(self) -> tuple[Instance, ...]:
        """The instances that have answered since this was asked last."""
        return self._function.take_answered() if self._function is not None else ()

    def run(self, work: Work) -> NDArray[Any]:
        """The picture as the function gives it back, from what its answer carries or what it has left in the exchange.

        Raises:
            EngineError: what the function says of its own trouble; endpoint_unreachable, endpoint_busy,
                endpoint_refused: it has not run, and the task loses no try; call_refused: the task's fault;
                call_too_large: another device has to do it; function_failed: it broke; function_unknown: nobody knows
                whether it ran; result_missing, reply_unreadable, bytes_damaged, output_unreadable.
            Cancelled: by way of ``progress``.
        """
        if self._function is None:
            raise EngineError("model_not_here", "this device calls no function", error_class=ErrorClass.TRANSIENT)
        return self._function.run(work)


class _Function:
    """One function, and the exchange by which large pictures go there."""

    def __init__(self, settings: EngineSettings, config: FunctionConfig) -> None:
        self.config = config
        self._named = f"function {settings.device.id}"
        self.exchange = _Exchange(config, settings.storage_options)
        self._answered: list[Instance] = []

    def take_answered(self) -> tuple[Instance, ...]:
        """As ``FunctionEngine.answered``."""
        answered, self._answered = tuple(self._answered), []
        return answered

    def run(self, work: Work) -> NDArray[Any]:
        """As ``FunctionEngine.run``."""
        call, names = self.call_of(work)
        earlier = self.exchange.earlier(names)
        if earlier is not None:
            work.notes.append("an earlier call, whose answer was lost, had left the result")
            for name in names:
                self.exchange.forget(name)
            return _pixels(earlier, work.picture, work.task_type)
        began = time.monotonic()
        try:
            reply, data = self._asked(call, names[-1], work.progress)
        except EngineError as error:
            if error.code != "function_unknown":  # there it may still be read, and its result be found
                self.exchange.forget(names[-1])
            raise
        if reply is not None:
            self._note(work, reply)
        else:
            work.notes.append("its answer was lost; the result was found where it had been left")
            work.cost = self.config.price_of(time.monotonic() - began)
        self.exchange.forget(names[-1])
        return _pixels(data, work.picture, work.task_type)

    def _note(self, work: Work, reply: Reply) -> None:
        instance = reply.instance
        work.cost = self.config.price_of(reply.seconds + (instance.start_s if instance.is_cold else 0.0))
        work.notes.extend(reply.notes)
        if instance.is_cold:
            work.notes.append(f"cold start: {instance.start_s:.1f} s, of a model {instance.load_s:.1f} s")

    # ------------------------------------------------------------ the call

    def call_of(self, work: Work) -> tuple[Call, list[str]]:
        """What is asked, and the names that this attempt's result, and those of the ones before it, have."""
        config, exchange = self.config, self.exchange
        image, mask = encode_picture(work.picture.pixels), encode_picture(work.picture.mask)
        room = config.inline_bytes
        is_small = (len(image) + len(mask)) * 4 // 3 + 4096 <= room
        if not is_small and not exchange.is_there:
            raise EngineError(
                "call_too_large",
                f"the picture and its mask have {(len(image) + len(mask)) >> 10:,} KiB as PNG, and a call carries "
                f"{room >> 10:,} (set exchange, or payload_kib where the platform takes more)",
                error_class=ErrorClass.TRANSIENT,
            )
        task_id, _, attempt = work.key.partition("/")
        asked = _digest(work, image, mask)
        names = [f"{task_id}/{number}-{asked}.png" for number in range(1, int(attempt or 1) + 1)]
        timeout_s = config.timeout_s
        sent = [parcel(one) if is_small else exchange.sent(one, f"{task_id}/{attempt}-{what}.png", timeout_s)
                for one, what in ((image, "image"), (mask, "mask"))]  # fmt: skip
        call = Call(
            key=work.key or f"none/{attempt or 1}",
            task_type=work.task_type,
            model=work.model,
            config=dict(work.config),
            eased=work.eased,
            image=sent[0],
            mask=sent[1],
            put_url=exchange.place_for(names[-1], timeout_s) if exchange.is_there else "",
            inline_most=room * 3 // 4 - 4096,
            seconds_left=timeout_s,
        )
        return call, names

    def _asked(self, call: Call, name: str, progress: Progress) -> tuple[Reply | None, bytes]:
        """What was answered, and the bytes of the result; None: they were found, and the answer never came."""
        began = time.monotonic()
        try:
            document = self._answer(call, progress)
        except OutcomeUnknown as unknown:
            found = self.exchange.awaited(name, began + self.config.timeout_s + _GRACE_S, progress)
            if found is not None:
                return None, found
            raise EngineError(
                "function_unknown", f"{self._named}: {unknown}; nobody knows whether it ran, and no result is there",
                error_class=ErrorClass.TRANSIENT,
            ) from unknown  # fmt: skip
        try:
            reply = read_reply(document, call.key)
        except CallRefused as strange:
            raise EngineError(
                "reply_unreadable", f"{self._named}: its answer cannot be used: {strange}",
                error_class=ErrorClass.TRANSIENT,
            ) from strange  # fmt: skip
        if reply.instance.id:
            self._answered.append(reply.instance)
        if reply.trouble is not None:
            trouble = reply.trouble
            raise EngineError(trouble.code, f"{self._named}: {trouble.message}", error_class=trouble.error_class)
        assert reply.result is not None  # noqa: S101 - read_reply has looked
        try:
            if reply.result.inline:
                return reply, reply.result.opened()
            return reply, reply.result.checked(self.exchange.fetched(name, reply.result))
        except CallRefused as damaged:
            raise EngineError(
                "bytes_damaged", f"{self._named}: {damaged}", error_class=ErrorClass.TRANSIENT
            ) from damaged

    def _answer(self, call: Call, progress: Progress) -> bytes | Mapping[str, Any]:
        """Raises:
        OutcomeUnknown; EngineError for all else that is known.
        """
        tries = 0
        while True:
            tries += 1
            endpoint = endpoint_of(self.config)
            try:
                asked = _Waiting(partial(endpoint.call, call, timeout_s=self.config.timeout_s))
                answer: bytes | Mapping[str, Any] = asked.awaited(lambda: progress(0.0, "function"))
                return answer
            except EndpointBusy as busy:
                if tries >= _TRIES_BUSY or busy.again_s > _LONGEST_BUSY_S:
                    raise self._error("endpoint_busy", busy, again_s=busy.again_s) from busy
                until = time.monotonic() + busy.again_s
                while time.monotonic() < until:
                    progress(0.0, "function: waiting to be taken")
                    time.sleep(_TICK_S)
            except EndpointAway as away:
                raise self._error("endpoint_unreachable", away) from away
            except EndpointRefuses as refuses:
                raise self._error("endpoint_refused", refuses) from refuses
            except CallFailed as failed:
                raise self._error("function_failed", failed) from failed
            except InputRefused as refused:
                raise self._error("call_refused", refused, ErrorClass.BAD_INPUT) from refused
            except OutcomeUnknown:
                raise
            except BaseException:  # cancelled: nobody waits any more
                endpoint.cancel()
                raise
            finally:
                endpoint.close()

    def _error(
        self, code: str, error: Exception, error_class: ErrorClass = ErrorClass.TRANSIENT, *, again_s: float = 0.0
    ) -> EngineError:
        return EngineError(code, f"{self._named}: {error}", error_class=error_class, again_s=again_s)


def _pixels(data: bytes, picture: Picture, task_type: TaskType) -> NDArray[Any]:
    """The pixels of a result; of an inpainting only those in the holes are taken over.

    Raises:
        EngineError: output_unreadable, output_shape.
    """
    pixels = decode_picture(data)
    if task_type is not TaskType.INPAINT:
        return pixels
    if pixels.shape != picture.pixels.shape or pixels.dtype != picture.pixels.dtype:
        raise EngineError(
            "output_shape",
            f"it gave a picture of {pixels.shape}, {pixels.dtype}, for one of {picture.pixels.shape}, "
            f"{picture.pixels.dtype}",
            error_class=ErrorClass.BAD_OUTPUT,
        )
    return pixels


def _digest(work: Work, image: bytes, mask: bytes) -> str:
    """What was asked, in 16 characters: the same task with another picture or configuration has another."""
    told = hashlib.sha256()
    for part in (image, mask, json.dumps([work.task_type, work.model, dict(work.config), work.eased]).encode()):
        told.update(hashlib.sha256(part).digest())
    return told.hexdigest()[:16]


class _Waiting(concurrent.futures.Future[Any]):
    """A call in a thread of its own: it may outlive whoever waits for it."""

    def __init__(self, function: Callable[[], Any]) -> None:
        super().__init__()
        threading.Thread(target=self._run, args=(function,), name="function call", daemon=True).start()

    def _run(self, function: Callable[[], Any]) -> None:
        try:
            self.set_result(function())
        except BaseException as error:  # noqa: BLE001 - it goes to the one who waits
            self.set_exception(error)

    def awaited(self, tick: Callable[[], None]) -> Any:
        """What it gives or raises; ``tick`` is called all the while, and may raise."""
        while not concurrent.futures.wait([self], timeout=_TICK_S).done:
            tick()
        return self.result()


class _Exchange:
    """Where pictures and results lie for one call."""

    def __init__(self, config: FunctionConfig, options: Mapping[str, Mapping[str, Any]]) -> None:
        self._base = config.exchange.rstrip("/")
        self._options = options
        self._opened: Objects | None = None

    @property
    def is_there(self) -> bool:
        return bool(self._base)

    @property
    def _objects(self) -> Objects:
        if self._opened is None:
            scheme = self._base.partition("://")[0].lower()
            self._opened = Objects(scheme, self._options.get(scheme))
        return self._opened

    def sent(self, data: bytes, name: str, seconds: float) -> Parcel:
        """``data`` under that name, to be read by whoever has the address, for so long.

        Raises:
            EngineError: it cannot be reached.
        """
        url = f"{self._base}/{name}"
        with _reached():
            self._objects.write(url, data)
            return parcel(data, url=self._objects.signed(url, seconds=seconds + _GRACE_S))

    def place_for(self, name: str, seconds: float) -> str:
        """The address at which that result may be put, for so long."""
        with _reached():
            return self._objects.signed(f"{self._base}/{name}", seconds=seconds + _GRACE_S, writes=True)

    def fetched(self, name: str, told: Parcel) -> bytes:
        """The result of that name, which a reply says is there."""
        data = self._read(name)
        if data is None:
            raise EngineError(
                "result_missing", f"the function says that it left {told.size:,} bytes, and none are there",
                error_class=ErrorClass.TRANSIENT,
            )  # fmt: skip
        return data

    def earlier(self, names: list[str]) -> bytes | None:
        """The result that an attempt before this one has left, whole; None: there is none."""
        if not self._base:
            return None
        for name in reversed(names[:-1]):
            data = self._whole(name)
            if data is not None:
                return data
        return None

    def awaited(self, name: str, until: float, progress: Progress) -> bytes | None:
        """The result of that name, looked for until that moment of the monotonic clock."""
        if not self._base:
            return None
        while True:
            data = self._whole(name)
            if data is not None or time.monotonic() > until:
                return data
            looked = time.monotonic()
            while time.monotonic() - looked < _LOOK_S:
                progress(0.0, "function: looking for its result")
                time.sleep(_TICK_S)

    def forget(self, name: str) -> None:
        """Remove what this call has left; what cannot be removed now is the bucket's own rule's to remove."""
        if not self._base:
            return
        folder, _, last = name.rpartition("/")
        attempt = last.partition("-")[0]
        for one in (name, f"{folder}/{attempt}-image.png", f"{folder}/{attempt}-mask.png"):
            try:
                self._objects.delete(f"{self._base}/{one}")
            except (LcqError, OSError) as error:
                _log.info("%s stays in the exchange: %s", one, error)

    def _whole(self, name: str) -> bytes | None:
        data = self._read(name)
        if data is None:
            return None
        try:
            decode_picture(data)
        except EngineError:
            return None  # not all of it is there yet
        return data

    def _read(self, name: str) -> bytes | None:
        url = f"{self._base}/{name}"
        with _reached():
            size = self._objects.size(url)
            if size is None or not 0 < size <= _MOST_BYTES:
                return None
            try:
                return b"".join(self._objects.read(url))
            except FileNotFoundError:
                return None


class _reached:  # noqa: N801 - used as a context manager only
    """Names what the exchange's library says."""

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, StorageUnreachable):
            raise EngineError("storage_unreachable", str(error), error_class=ErrorClass.TRANSIENT) from error
        if isinstance(error, LcqError):
            raise EngineError("config_invalid", str(error), error_class=ErrorClass.TRANSIENT) from error

"""The function engine: what a device of the kind serverless does is done by a function somewhere else.

A time-out, or a connection that was cut, says nothing about whether the function ran. Where results go by way of
``exchange``, the result is looked for there before anything is called again: by this attempt, and first of all by the
next one. Its name holds the task, the attempt, and what was asked.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, TypeVar

from numpy.typing import NDArray

from lcq.health import FUNCTION_UNKNOWN
from lcq.models import TaskType
from lcq.routing import CALL_TOO_LARGE
from lcq.runner_config import FunctionConfig
from worker.calls import Call, CallRefused, Instance, Reply, Trouble, parcel, read_reply
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
    CallTooLarge,
    EndpointAway,
    EndpointBusy,
    EndpointRefuses,
    InputRefused,
    OutcomeUnknown,
    endpoint_of,
)
from worker.engines.exchanges import (
    GRACE_S,
    Exchange,
    LentExchange,
    NoExchange,
    ObjectExchange,
    Place,
    PlaceAway,
    Waiting,
    aside,
    forgotten,
)
from worker.engines.hidden import Hidden
from worker.engines.picture_bytes import decode_picture, encode_picture

_LONGEST_NOTE = 500
_MOST_TIMES = 64  # so many times the pixels of the picture a result may have, where it may be larger
_TICK_S = 0.1
_TRIES_BUSY = 3  # of one attempt, at an endpoint that takes no more calls
_LATE_S = 10.0  # beyond the time that a call may take: what trickles is never late by itself
_BROKEN = "function_failed"
_AWAY_S = 30.0  # for which a place that is away is looked at again: the function has been paid by then
_LOOK_AGAIN_S = 1.0
_LONGEST_BUSY_S = 10.0  # that an attempt waits for it: for longer the node leaves it alone, and tasks go elsewhere
_NO_EXCHANGE = "set exchange, http.public_url of the schedulers, or payload_kib where the platform takes more"

T = TypeVar("T")


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
        self.exchange = ObjectExchange(config.exchange, settings.storage_options) if config.exchange else None
        self._answered: list[Instance] = []

    def take_answered(self) -> tuple[Instance, ...]:
        """As ``FunctionEngine.answered``."""
        answered, self._answered = tuple(self._answered), []
        return answered

    def run(self, work: Work) -> NDArray[Any]:
        """As ``FunctionEngine.run``."""
        lent = LentExchange(work.call) if work.call is not None else None
        try:
            return self._run(work, self.exchange or lent or NoExchange(_NO_EXCHANGE), lent)
        finally:
            if lent is not None:
                if self.exchange is not None:  # the result is not looked for here: nothing of the call is needed
                    lent.ended()
                lent.close()

    def _run(self, work: Work, exchange: Exchange, callbacks: LentExchange | None) -> NDArray[Any]:
        image, mask = encode_picture(work.picture.pixels), encode_picture(work.picture.mask)
        place = place_of(work, image, mask)
        earlier = aside(
            lambda: exchange.earlier(place), work.progress, size=place.most_bytes if place.attempt > 1 else 0
        )
        if earlier is not None:
            work.notes.append("an earlier call, whose answer was lost, had left the result")
            work.cost = 0.0  # that call has its own bill
            forgotten(exchange, place, work.progress)
            return _pixels(earlier, work.picture, work.task_type)
        began = time.monotonic()
        try:
            call = self._prepared(work, image, mask, exchange)
            reply, data = self._asked(call, place, exchange, callbacks, work)
        except EngineError as error:
            if error.code != FUNCTION_UNKNOWN:  # there it may still be read, and its result be found
                forgotten(exchange, place, work.progress)
            raise
        if reply is None:
            work.notes.append("its answer was lost; the result was found where it had been left")
            work.cost = self.config.price_of(time.monotonic() - began)
        forgotten(exchange, place, work.progress)
        return _pixels(data, work.picture, work.task_type)

    def _note(self, work: Work, reply: Reply, hidden: Hidden) -> None:
        """What it says that it took is paid for, also where it has no result."""
        instance = reply.instance
        work.cost = self.config.price_of(reply.billed_s)
        work.notes.extend(hidden(note[:_LONGEST_NOTE]) for note in reply.notes)
        if instance.is_cold:
            work.notes.append(f"cold start: {instance.start_s:.1f} s, of a model {instance.load_s:.1f} s")

    # ------------------------------------------------------------ the call

    def _prepared(self, work: Work, image: bytes, mask: bytes, exchange: Exchange) -> Call:
        """As ``call_of``; what is small is called also where the exchange keeps silent."""
        try:
            return aside(partial(self.call_of, work, image, mask, exchange), work.progress, size=len(image) + len(mask))
        except EngineError as error:
            if not (error.code == "storage_unreachable" and self._is_small(image, mask)):
                raise
            return self.call_of(work, image, mask, NoExchange(""))

    def _is_small(self, image: bytes, mask: bytes) -> bool:
        """Whether both go inside a call."""
        return (len(image) + len(mask)) * 4 // 3 + 4096 <= self.config.inline_bytes

    def call_of(self, work: Work, image: bytes, mask: bytes, exchange: Exchange) -> Call:
        """What is asked, with the PNG of the picture and its mask in it or where the function gets them."""
        config = self.config
        pictures = {"image": image, "mask": mask}
        room = config.inline_bytes
        is_small = self._is_small(image, mask)
        if not is_small and not exchange.is_there:
            raise EngineError(
                CALL_TOO_LARGE,
                f"the picture and its mask have {(len(image) + len(mask)) >> 10:,} KiB as PNG, and a call carries "
                f"{room >> 10:,} ({exchange.lack})",
                error_class=ErrorClass.TRANSIENT,
            )
        place = place_of(work, image, mask)
        try:
            seconds = config.timeout_s + (_TRIES_BUSY - 1) * _LONGEST_BUSY_S  # it may be taken at the last try only
            sent, put_url = exchange.prepared(place, {} if is_small else pictures, seconds)
        except EngineError as error:
            if not (is_small and error.code == "storage_unreachable"):
                raise
            sent, put_url = {}, ""  # it all goes inside the call; should its answer be lost, nobody will know
        return Call(
            key=work.key or "none/1",
            task_type=work.task_type,
            model=work.model,
            config=dict(work.config),
            eased=work.eased,
            image=sent.get("image") or parcel(image),
            mask=sent.get("mask") or parcel(mask),
            put_url=put_url,
            inline_most=room * 3 // 4 - 4096,
            seconds_left=config.timeout_s,
        )

    def _asked(
        self, call: Call, place: Place, exchange: Exchange, callbacks: LentExchange | None, work: Work
    ) -> tuple[Reply | None, bytes]:
        """What was answered, and the bytes of the result; None: they were found, and the answer never came."""
        hidden, progress = Hidden(), work.progress
        try:
            document = self._answer(call, callbacks, hidden, progress)
        except _Unanswered as unknown:
            found = self._left(exchange, place, progress, until=unknown.began + self.config.timeout_s + GRACE_S)
            if found is not None:
                return None, found
            raise EngineError(
                FUNCTION_UNKNOWN, f"{self._named}: {unknown}; nobody knows whether it ran, and no result is there",
                error_class=ErrorClass.TRANSIENT,
            ) from unknown  # fmt: skip
        except EngineError as broken:
            found = self._left(exchange, place, progress) if broken.code == _BROKEN else None
            if found is not None:
                return None, found
            raise
        try:
            reply = read_reply(document, call.key)
        except CallRefused as strange:
            found = self._left(exchange, place, progress)
            if found is not None:
                return None, found
            raise EngineError(
                "reply_unreadable", f"{self._named}: its answer cannot be used: {hidden(str(strange))}",
                error_class=ErrorClass.TRANSIENT,
            ) from strange  # fmt: skip
        if reply.instance.id:
            self._answered.append(reply.instance)
        self._note(work, reply, hidden)
        if reply.trouble is not None:
            if reply.trouble.error_class is not ErrorClass.BAD_INPUT:  # where it was called twice, the other one may
                found = self._left(exchange, place, progress)  # have used up its addresses, and left the result
                if found is not None:
                    return None, found
            raise self._told(reply.trouble, hidden)
        told = reply.result
        assert told is not None  # noqa: S101 - read_reply has looked
        try:
            if told.inline:
                return reply, told.opened()
            size = min(told.size, place.most_bytes)
            return reply, self._looked(
                lambda: aside(lambda: exchange.fetched(place, told), progress, size=size), progress
            )
        except CallRefused as damaged:
            raise EngineError(
                "bytes_damaged", f"{self._named}: {damaged}", error_class=ErrorClass.TRANSIENT
            ) from damaged

    def _left(self, exchange: Exchange, place: Place, progress: Progress, *, until: float = 0.0) -> bytes | None:
        """What the function has left, whatever was said of its call; looked for until then, and once at least."""
        return self._looked(lambda: exchange.awaited(place, until, progress), progress)

    def _looked(self, look: Callable[[], T], progress: Progress) -> T:
        """What ``look`` finds where the function may have left something: that the place is away says nothing of it. A
        scheduler that is started again is back in a moment: so it is paid for once.

        Raises:
            EngineError: function_unknown, for storage_unreachable: the next attempt looks again.
        """
        given_up = time.monotonic() + _AWAY_S
        while True:
            try:
                return look()
            except PlaceAway as away:
                if time.monotonic() > given_up:
                    raise self._unseen(away) from away
                _pause(_LOOK_AGAIN_S, partial(progress, 0.0, "function: its result cannot be looked for now"))
            except EngineError as error:
                if error.code not in ("storage_unreachable", "endpoint_refused"):  # by these nothing would be paid
                    raise
                raise self._unseen(error) from error

    def _unseen(self, error: EngineError) -> EngineError:
        return EngineError(
                FUNCTION_UNKNOWN, f"{self._named}: it may have run, and its result cannot be looked for now: {error}",
            error_class=ErrorClass.TRANSIENT,
        )  # fmt: skip

    def _told(self, trouble: Trouble, hidden: Hidden) -> EngineError:
        error_class, code = trouble.as_told
        return EngineError(code, f"{self._named}: {hidden(trouble.message)}", error_class=error_class)

    def _answer(
        self, call: Call, callbacks: LentExchange | None, hidden: Hidden, progress: Progress
    ) -> bytes | Mapping[str, Any]:
        """Raises:
        _Unanswered; EngineError for all else that is known.
        """
        if self.config.is_async and callbacks is None:
            nowhere = EndpointRefuses(
                "it calls back, and no scheduler has an address for that: set http.public_url there"
            )
            raise self._error("endpoint_refused", nowhere)
        tries = 0
        while True:
            tries += 1
            endpoint = endpoint_of(self.config, callbacks, hidden=hidden)
            began = time.monotonic()
            try:
                asked = Waiting(partial(endpoint.call, call, timeout_s=self.config.timeout_s))
                answer: bytes | Mapping[str, Any] = asked.awaited(self._waiting(progress))
                return answer
            except EndpointBusy as busy:
                if tries >= _TRIES_BUSY or busy.again_s > _LONGEST_BUSY_S:
                    raise self._error("endpoint_busy", busy, again_s=busy.again_s) from busy
                _pause(busy.again_s, partial(progress, 0.0, "function: waiting to be taken"))
            except EndpointAway as away:
                raise self._error("endpoint_unreachable", away) from away
            except EndpointRefuses as refuses:
                raise self._error("endpoint_refused", refuses) from refuses
            except CallTooLarge as large:
                raise self._error(CALL_TOO_LARGE, large) from large
            except CallFailed as failed:
                raise self._error(_BROKEN, failed) from failed
            except InputRefused as refused:
                raise self._error("call_refused", refused, ErrorClass.BAD_INPUT) from refused
            except OutcomeUnknown as unknown:
                raise _Unanswered(str(unknown), began) from unknown
            except BaseException:  # cancelled: nobody waits any more
                endpoint.cancel()
                raise
            finally:
                endpoint.close()

    def _waiting(self, progress: Progress) -> Callable[[], None]:
        """What is done while one call is waited for."""
        longest_s = self.config.timeout_s
        until = time.monotonic() + longest_s + _LATE_S

        def tick() -> None:
            progress(0.0, "function")
            if time.monotonic() > until:
                raise OutcomeUnknown(f"its answer was not whole {_LATE_S:g} s after the {longest_s:g} s of a call")

        return tick

    def _error(
        self, code: str, error: Exception, error_class: ErrorClass = ErrorClass.TRANSIENT, *, again_s: float = 0.0
    ) -> EngineError:
        return EngineError(code, f"{self._named}: {error}", error_class=error_class, again_s=again_s)


class _Unanswered(OutcomeUnknown):
    """A call has no answer; it ``began`` by the monotonic clock then."""

    def __init__(self, said: str, began: float) -> None:
        super().__init__(said)
        self.began = began


def _pixels(data: bytes, picture: Picture, task_type: TaskType) -> NDArray[Any]:
    """The pixels of a result; of an inpainting only those in the holes are taken over.

    Raises:
        EngineError: output_unreadable, output_shape.
    """
    pixels = decode_picture(data, most=most_pixels(picture, task_type))
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


def most_pixels(picture: Picture, task_type: TaskType) -> int:
    """How many a result can have: what claims to have more is not decoded."""
    return math.prod(picture.pixels.shape[:2]) * (1 if task_type is TaskType.INPAINT else _MOST_TIMES)


def _pause(seconds: float, tick: Callable[[], None]) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        tick()
        time.sleep(_TICK_S)


def place_of(work: Work, image: bytes, mask: bytes) -> Place:
    """What the result of this attempt is known by."""
    task_id, _, attempt = work.key.partition("/")
    most = most_pixels(work.picture, work.task_type)
    return Place(task_id, int(attempt or 1), _digest(work, image, mask), most)


def _digest(work: Work, image: bytes, mask: bytes) -> str:
    """What was asked, in 16 characters: the same task with another picture or configuration has another."""
    told = hashlib.sha256()
    for part in (image, mask, json.dumps([work.task_type, work.model, dict(work.config), work.eased]).encode()):
        told.update(hashlib.sha256(part).digest())
    return told.hexdigest()[:16]

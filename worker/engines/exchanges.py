"""Where pictures for a function, and its results, lie while it is called: an object store, or the scheduler.

Either way the function gets addresses that are good for this call alone, and what it leaves is known by the task, the
attempt, and a digest of what was asked: so that a lost answer is no lost result.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import hashlib
import logging
import math
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from http import HTTPStatus
from typing import Any, Protocol, TypeVar

import httpx

from lcq.errors import LcqError, StorageFull, StorageUnreachable
from lcq.routing import CALL_TOO_LARGE
from lcq.storage.objects import Objects
from worker.calls import CallAddress, CallRefused, Parcel, parcel
from worker.engines.base import EngineError, ErrorClass, Progress
from worker.engines.endpoints import Callback, CallbacksAway, Called
from worker.engines.picture_bytes import decode_picture

_log = logging.getLogger(__name__)
T = TypeVar("T")
_TICK_S = 0.1
_LOOK_S = 1.0  # between two looks whether a result has come after all
GRACE_S = 5.0
"""Beyond the time that a call may take, for its result to be there."""

_MOST_BYTES = 512 * 2**20  # of a result
_BYTES_A_PIXEL = 8  # a PNG of 16 bits in three colours has six, were it packed not at all
_AROUND = 2**20  # bytes of a PNG beside its pixels
_CONNECT_S = 10.0
_SILENCE_S = 30.0  # how long a transfer from or to a scheduler may stand still
_TRIES = 3  # to reach it: one that is started again is back in a moment
_AGAIN_S = 0.5
PATIENCE_S = 30.0
"""How long an exchange may take, beside what its bytes take at the least speed."""

_LEAST_SPEED = 256 * 1024  # bytes a second
_TIDY_S = 5.0  # how long an attempt waits for what its call has left to be removed
_WAIT_S = 10.0  # how long a scheduler is asked to wait for a reply before it is asked anew


class OutOfPatience(Exception):
    """What was waited for took too long; it goes on, and nobody waits for it any more."""


class Waiting(concurrent.futures.Future[Any]):
    """A call in a thread of its own: it may outlive whoever waits for it."""

    def __init__(self, function: Callable[[], Any]) -> None:
        super().__init__()
        threading.Thread(target=self._run, args=(function,), name="function call", daemon=True).start()

    def _run(self, function: Callable[[], Any]) -> None:
        try:
            self.set_result(function())
        except BaseException as error:  # noqa: BLE001 - it goes to the one who waits
            self.set_exception(error)

    def awaited(self, tick: Callable[[], None], *, patience_s: float = math.inf) -> Any:
        """What it gives or raises; ``tick`` is called all the while, and may raise.

        Raises:
            OutOfPatience: it has not ended within ``patience_s``.
        """
        until = time.monotonic() + patience_s
        while not concurrent.futures.wait([self], timeout=_TICK_S).done:
            tick()
            if time.monotonic() > until:
                raise OutOfPatience
        return self.result()


@dataclass(frozen=True)
class Place:
    """What the result of an attempt is known by. ``asked``: 16 digits of a SHA-256. ``most``: pixels that it may have;
    0: any number."""

    task: str
    attempt: int
    asked: str
    most: int = 0

    @property
    def name(self) -> str:
        return f"{self.task}/{self.attempt}-{self.asked}.png"

    @property
    def earlier(self) -> tuple[Place, ...]:
        """Those of the attempts before it, the newest first."""
        return tuple(replace(self, attempt=number) for number in range(self.attempt - 1, 0, -1))

    @property
    def most_bytes(self) -> int:
        """Of the file that its result is: what has more holds something else."""
        return min(_MOST_BYTES, self.most * _BYTES_A_PIXEL + _AROUND) if self.most else _MOST_BYTES

    def is_picture(self, data: bytes) -> bool:
        """Whether ``data`` is a picture that its result may be."""
        try:
            decode_picture(data, most=self.most)
        except EngineError:
            return False
        return True


class Exchange(Protocol):
    """One call's pictures and result."""

    is_there: bool
    lack: str
    """What to do where it is not, in words."""

    def prepared(self, place: Place, pictures: Mapping[str, bytes], seconds: float) -> tuple[dict[str, Parcel], str]:
        """``pictures`` (image, mask; or none) where the function can read them, and the address at which it may put
        the result, all for so long.

        Raises:
            EngineError: storage_unreachable; endpoint_refused: it is not what its configuration says.
        """

    def fetched(self, place: Place, told: Parcel) -> bytes:
        """The result that a reply says is there.

        Raises:
            EngineError: result_missing, storage_unreachable. CallRefused: it is something else.
        """

    def earlier(self, place: Place) -> bytes | None:
        """The result that an attempt before this one has left, whole; None: there is none."""

    def awaited(self, place: Place, until: float, progress: Progress) -> bytes | None:
        """This attempt's result, looked for until that moment of the monotonic clock."""

    def forget(self, place: Place) -> None:
        """Remove what this call, and those before it, have left."""

    def close(self) -> None: ...


class NoExchange:
    """All goes inside the call."""

    is_there = False

    def __init__(self, lack: str) -> None:
        self.lack = lack

    def prepared(self, place: Place, pictures: Mapping[str, bytes], seconds: float) -> tuple[dict[str, Parcel], str]:
        return {}, ""

    def fetched(self, place: Place, told: Parcel) -> bytes:
        raise _missing(told)

    def earlier(self, place: Place) -> bytes | None:
        return None

    def awaited(self, place: Place, until: float, progress: Progress) -> bytes | None:
        return None

    def forget(self, place: Place) -> None: ...

    def close(self) -> None: ...


class ObjectExchange:
    """An object store, by presigned addresses."""

    is_there = True
    lack = ""

    def __init__(self, base: str, options: Mapping[str, Mapping[str, Any]]) -> None:
        """``base``: ``agent.functions.NAME.exchange``; ``options``: ``storage.options``."""
        self._base = base.rstrip("/")
        self._options = options
        self._opened: Objects | None = None

    @property
    def objects(self) -> Objects:
        if self._opened is None:
            scheme = self._base.partition("://")[0].lower()
            self._opened = Objects(scheme, self._options.get(scheme))
        return self._opened

    def prepared(self, place: Place, pictures: Mapping[str, bytes], seconds: float) -> tuple[dict[str, Parcel], str]:
        sent = {}
        with _reached():
            for what, data in pictures.items():
                url = self._picture(place, what)
                self.objects.write(url, data)
                sent[what] = parcel(data, url=self.objects.signed(url, seconds=seconds + GRACE_S))
            return sent, self.objects.signed(self._url(place), seconds=seconds + GRACE_S, writes=True)

    def fetched(self, place: Place, told: Parcel) -> bytes:
        data = self._read(place, told.size)
        if data is None:
            raise _missing(told)
        return told.checked(data)

    def earlier(self, place: Place) -> bytes | None:
        for one in place.earlier:
            data = self._whole(one)
            if data is not None:
                return data
        return None

    def awaited(self, place: Place, until: float, progress: Progress) -> bytes | None:
        return _looked_for(lambda: self._whole(place), place, until, progress)

    def forget(self, place: Place) -> None:
        for one in (place, *place.earlier):
            for url in (self._url(one), self._picture(one, "image"), self._picture(one, "mask")):
                try:
                    self.objects.delete(url)
                except (LcqError, OSError) as error:  # the bucket's own rule removes it
                    _log.info("%s stays in the exchange: %s", url, error)

    def close(self) -> None: ...

    def _url(self, place: Place) -> str:
        return f"{self._base}/{place.name}"

    def _picture(self, place: Place, what: str) -> str:
        return f"{self._base}/{place.task}/{place.attempt}-{what}.png"

    def _whole(self, place: Place) -> bytes | None:
        data = self._read(place)
        return data if data is not None and place.is_picture(data) else None  # else not all of it is there yet

    def _read(self, place: Place, told: int | None = None) -> bytes | None:
        """What is there; None: nothing. ``told``: the bytes that it is said to have.

        Raises:
            CallRefused: it has another size, or one that no result has.
        """
        url = self._url(place)
        with _reached():
            size = self.objects.size(url)
            if not size:
                return None
            if told is not None and not size == told <= place.most_bytes:
                raise CallRefused(f"{size:,} bytes are there, and {told:,} were announced")
            if size > place.most_bytes:
                return None
            try:
                return b"".join(self.objects.read(url))
            except FileNotFoundError:
                return None


class LentExchange:
    """The scheduler, by addresses of which each is good for one transfer (lcq/http/v1_lent.py)."""

    is_there = True
    lack = ""

    def __init__(self, address: CallAddress) -> None:
        self._address = address
        self._bases = list(dict.fromkeys(one.rstrip("/") for one in (address.base, address.public) if one))
        # Not through the environment's proxy: what is meant is a scheduler of this cluster.
        self._client = httpx.Client(
            timeout=httpx.Timeout(_SILENCE_S, connect=_CONNECT_S), trust_env=False, follow_redirects=False
        )

    def prepared(self, place: Place, pictures: Mapping[str, bytes], seconds: float) -> tuple[dict[str, Parcel], str]:
        wanted: dict[str, Any] = {
            what: {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)} for what, data in pictures.items()
        }
        lent = self._lent(wanted | {"result": place.asked, "seconds": seconds + GRACE_S})
        sent = {}
        for what, data in pictures.items():
            self._sent(lent[f"put_{what}"], data)
            sent[what] = parcel(data, url=self._public(lent[f"get_{what}"]))
        return sent, self._public(lent["put_result"])

    def callback(self, seconds: float) -> Callback:
        """Where the gateway of a call that takes so long at most is to call back.

        Raises:
            EngineError: storage_unreachable.
        """
        lent = self._lent({"reply": True, "seconds": seconds})
        return Callback(self._public(lent["post_reply"]), lent["name"])

    def called(self, callback: Callback, wait_s: float) -> Called | None:
        """What the gateway has called back with; waited for, so long at most, and some seconds at most. None: nothing
        yet.

        Raises:
            CallbacksAway.
        """
        try:
            reply = self._left(reply=callback.name, wait_s=min(wait_s, _WAIT_S))["reply"]
            if reply is None:
                return None
            document = self._fetched(reply)
        except EngineError as away:
            raise CallbacksAway(str(away)) from away
        return Called(int(reply.get("status", HTTPStatus.OK)), document, str(reply.get("call_id", "")))

    def fetched(self, place: Place, told: Parcel) -> bytes:
        data = self._result(place, place.attempt)
        if data is None:
            raise _missing(told)
        return told.checked(data)

    def earlier(self, place: Place) -> bytes | None:
        return self._whole(place, 0) if place.attempt > 1 else None

    def awaited(self, place: Place, until: float, progress: Progress) -> bytes | None:
        return _looked_for(lambda: self._whole(place, place.attempt), place, until, progress)

    def forget(self, place: Place) -> None:
        self.end()

    def end(self) -> None:
        """The call is over: what came by its addresses goes, and they are good for nothing but its bill."""
        try:
            self._asked("DELETE", self._address.path)
        except EngineError as error:  # the scheduler's own sweep removes it
            _log.info("what this call has left stays for a while: %s", error)

    def ended(self) -> None:
        """As ``end``; a scheduler that keeps silent is not waited for."""
        with contextlib.suppress(OutOfPatience):
            Waiting(self.end).awaited(lambda: None, patience_s=_TIDY_S)

    def close(self) -> None:
        self._client.close()

    def _whole(self, place: Place, attempt: int) -> bytes | None:
        """The result of ``attempt`` (0: of any), if it is a picture."""
        data = self._result(place, attempt)
        return data if data is not None and place.is_picture(data) else None

    def _result(self, place: Place, attempt: int) -> bytes | None:
        for number in range(_TRIES):
            for found in self._left(asked=place.asked)["results"]:
                if attempt in (0, found["attempt"]) and found["size"] <= place.most_bytes:
                    try:
                        return self._fetched(found)
                    except _Used:  # it was whole for the scheduler, and not for us: another address is lent
                        if number == _TRIES - 1:
                            raise
                        break
            else:
                return None
        return None

    def _fetched(self, found: Mapping[str, Any]) -> bytes:
        """Raises:
        EngineError: storage_unreachable, or it is not what was left there.
        """
        data = self._asked("GET", str(found["path"])).content
        told = Parcel(sha256=found["sha256"], size=found["size"], url="lent")
        try:
            return told.checked(data)
        except CallRefused as damaged:
            raise EngineError("bytes_damaged", str(damaged), **_TRANSIENT) from damaged

    def _left(self, **asked: Any) -> Any:
        return self._asked("GET", f"{self._address.path}/left", params=asked).json()

    def _lent(self, wanted: Mapping[str, Any]) -> Any:
        return self._asked("POST", f"{self._address.path}/addresses", json=dict(wanted)).json()

    def _sent(self, path: str, data: bytes) -> None:
        self._asked("PUT", path, content=data, headers={"Content-Type": "image/png"})

    def _public(self, path: str) -> str:
        return self._address.public.rstrip("/") + path

    def _asked(self, method: str, path: str, **more: Any) -> httpx.Response:
        """Raises:
        EngineError: storage_unreachable, or the scheduler refuses it.
        """
        said = ""
        for number in range(_TRIES):
            for base in tuple(self._bases):
                try:
                    answer = self._client.request(method, base + path, **more)
                except httpx.HTTPError as error:
                    said = " ".join(str(error).split()) or type(error).__name__
                    continue
                if answer.status_code == HTTPStatus.GONE and method == "PUT" and number:
                    return answer  # the try before was whole, and its answer was lost
                if answer.status_code < HTTPStatus.BAD_REQUEST:
                    self._bases.sort(key=lambda one: one != base)
                    return answer
                said = _refusal(answer)
                match answer.status_code:
                    case HTTPStatus.GONE:
                        raise _unreachable(said, _Used)
                    case HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
                        raise EngineError(CALL_TOO_LARGE, f"the scheduler takes no such picture: {said}", **_TRANSIENT)
                    case status if status < HTTPStatus.INTERNAL_SERVER_ERROR and status not in _FOR_NOW:
                        raise _unreachable(said)
            time.sleep(_AGAIN_S * (number + 1))
        raise PlaceAway(f"the scheduler, where pictures are to lie: {said}")


_TRANSIENT: dict[str, Any] = {"error_class": ErrorClass.TRANSIENT}


class PlaceAway(EngineError):
    """Nobody answers there: nothing is known of what lies there."""

    def __init__(self, said: str) -> None:
        super().__init__("storage_unreachable", said, **_TRANSIENT)


class _Used(EngineError):
    """An address has had its one transfer."""


def _unreachable(said: str, kind: type[EngineError] = EngineError) -> EngineError:
    return kind("storage_unreachable", f"the scheduler, where pictures are to lie: {said}", **_TRANSIENT)


_FOR_NOW = frozenset({HTTPStatus.CONFLICT, HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.REQUEST_TIMEOUT})


def _refusal(answer: httpx.Response) -> str:
    """What a scheduler says, without the address that it was asked by."""
    try:
        return f"{answer.status_code}: {answer.json()['detail']}"[:300]
    except (ValueError, KeyError, TypeError):
        return str(answer.status_code)


def _missing(told: Parcel) -> EngineError:
    return EngineError(
        "result_missing", f"the function says that it left {told.size:,} bytes, and none are there", **_TRANSIENT
    )


def aside(work: Callable[[], T], progress: Progress, *, size: int = 0) -> T:
    """What ``work``, by which ``size`` bytes come or go, gives or raises: while an exchange keeps silent, whoever waits
    still shows that it lives, and does not wait for ever.

    Raises:
        EngineError: storage_unreachable: it took too long.
    """
    patience_s = PATIENCE_S + size / _LEAST_SPEED
    try:
        done: T = Waiting(work).awaited(lambda: progress(0.0, "function: exchange"), patience_s=patience_s)
    except OutOfPatience:
        raise EngineError(
            "storage_unreachable", f"the exchange has not answered within {patience_s:.0f} s", **_TRANSIENT
        ) from None
    return done


def forgotten(exchange: Exchange, place: Place, progress: Progress) -> None:
    """Have removed what a call has left. A slow exchange is not waited for: removing goes on."""
    with contextlib.suppress(OutOfPatience):
        removing = Waiting(lambda: exchange.forget(place))
        removing.awaited(lambda: progress(0.9, "function: tidying up"), patience_s=_TIDY_S)


def _looked_for(look: Callable[[], bytes | None], place: Place, until: float, progress: Progress) -> bytes | None:
    def tick() -> None:
        progress(0.0, "function: looking for its result")

    while True:
        data = aside(look, lambda *_: tick(), size=place.most_bytes if place.most else 0)
        if data is not None or time.monotonic() > until:
            return data
        looked = time.monotonic()
        while time.monotonic() - looked < _LOOK_S:
            tick()
            time.sleep(_TICK_S)


@contextlib.contextmanager
def _reached() -> Iterator[None]:
    """Names what the exchange's library says."""
    try:
        yield
    except StorageUnreachable as error:
        raise PlaceAway(f"the exchange: {error}") from error
    except StorageFull as error:
        raise EngineError("storage_unreachable", f"the exchange: {error}", **_TRANSIENT) from error
    except LcqError as error:
        raise EngineError("endpoint_refused", f"the exchange: {error}", **_TRANSIENT) from error

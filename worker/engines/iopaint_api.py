"""The calls of IOPaint's HTTP API that LCQ makes, and what its errors mean."""

from __future__ import annotations

import json
import re
import socket
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from worker.engines.base import EngineError, ErrorClass

if TYPE_CHECKING:  # else where a server is called: every runner has this module, and few have a server
    import httpx

_CONNECT_S = 5.0
_LONGEST_SAID = 500

_NO_MEMORY = re.compile(
    r"out of memory|OutOfMemoryError|MemoryError|Unable to allocate|DefaultCPUAllocator"
    r"|(CUFFT|CUBLAS|CUDNN|HIPFFT|HIPBLAS)_(STATUS_)?(INTERNAL_ERROR_\w*_)?ALLOC(ATION)?_FAILED|CUFFT_INTERNAL_ERROR",
    re.IGNORECASE,
)


class NoAnswer(Exception):
    """The server could not be reached (``is_refused``), or hung up before it answered."""

    def __init__(self, message: str, *, is_refused: bool) -> None:
        super().__init__(message)
        self.is_refused = is_refused


@dataclass(frozen=True)
class Answer:
    """What came back for a picture: its bytes, and the seed that was used, "" if the server did not say."""

    image: bytes
    seed: str


class IopaintApi:
    """The server at ``url``. It is asked directly, past any proxy; each call opens a connection of its own.

    Every call raises NoAnswer where there is none, and EngineError for an answer that is an error. None has a
    time limit but for connecting: how long a picture may take is its task's to say. A peer that vanishes from
    the network is noticed within half a minute.
    """

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        import httpx

        # A pool would only keep connections that the server, or a proxy before it, may have closed meanwhile.
        limits = httpx.Limits(max_keepalive_connections=0)
        self._client = httpx.Client(
            base_url=self.url,
            timeout=httpx.Timeout(None, connect=_CONNECT_S),
            transport=httpx.HTTPTransport(socket_options=_keep_alive(), limits=limits),
        )

    def close(self) -> None:
        """Call it once no call is under way."""
        self._client.close()

    def is_up(self) -> bool:
        """Whether a server answers there. Takes a second at most."""
        import httpx

        try:
            return self._client.get("/api/v1/model", timeout=1.0).status_code == HTTPStatus.OK
        except httpx.TransportError:
            return False

    def current_model(self) -> str | None:
        """The loaded model; None where the server has lost it, as it does after a switch to an unknown one."""
        response = self._call("GET", "/api/v1/model")
        if response.status_code == HTTPStatus.INTERNAL_SERVER_ERROR:
            return None
        return self._name(self._good(response))

    def models(self) -> frozenset[str]:
        """The models that it could switch to."""
        found = self._read(self._good(self._call("GET", "/api/v1/server-config")))
        try:
            return frozenset(str(info["name"]) for info in found["modelInfos"])
        except (KeyError, TypeError):
            raise self._is_no_iopaint("its server-config has no modelInfos") from None

    def switch(self, model: str) -> None:
        """Load ``model``. Never ask for one that is not in ``models()``: the server would be broken after that."""
        now = self._name(self._good(self._call("POST", "/api/v1/model", json.dumps({"name": model}).encode())))
        if now != model:
            raise self._is_no_iopaint(f"asked for model {model}, it loaded {now}")

    def inpaint(self, body: bytes) -> Answer:
        """The answer to ``body``, a JSON text."""
        response = self._good(self._call("POST", "/api/v1/inpaint", body))
        return Answer(response.content, response.headers.get("x-seed", ""))

    def _call(self, method: str, path: str, body: bytes | None = None) -> httpx.Response:
        import httpx

        headers = {"content-type": "application/json"} if body is not None else None
        try:
            return self._client.request(method, path, content=body, headers=headers)
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            raise NoAnswer(_one_line(str(error)) or type(error).__name__, is_refused=True) from error
        except (httpx.TransportError, httpx.DecodingError) as error:
            raise NoAnswer(_one_line(str(error)) or type(error).__name__, is_refused=False) from error

    def _name(self, response: httpx.Response) -> str:
        found = self._read(response)
        if not isinstance(found, dict) or not isinstance(found.get("name"), str):
            raise self._is_no_iopaint(f"its model is {response.text!r:.80}")
        return str(found["name"])

    def _read(self, response: httpx.Response) -> Any:
        try:
            return response.json()
        except ValueError:
            raise self._is_no_iopaint(f"{response.request.url.path} gave {response.text!r:.80}") from None

    def _is_no_iopaint(self, found: str) -> EngineError:
        return EngineError(
            "iopaint_unreachable",
            f"what answers at {self.url} is no IOPaint 1.x server: {found} (see iopaint in the configuration)",
            error_class=ErrorClass.TRANSIENT,
        )

    def _good(self, response: httpx.Response) -> httpx.Response:
        """``response``, if it is not an error.

        Raises:
            EngineError: out_of_memory, config_invalid, iopaint_refused or engine_error, in the server's words.
        """
        if response.status_code == HTTPStatus.OK:
            return response
        said = _said(response)
        match response.status_code:
            case 422:
                raise EngineError("config_invalid", f"IOPaint does not take the task's config: {said}")
            case 400:
                raise EngineError("iopaint_refused", f"IOPaint refuses the picture: {said}")
            case 500 if _NO_MEMORY.search(said):
                raise EngineError(
                    "out_of_memory", f"IOPaint ran out of memory: {said}", error_class=ErrorClass.RESOURCE
                )
            case 500:
                raise EngineError("engine_error", f"IOPaint failed: {said}", error_class=ErrorClass.CRASH)
            case 502 | 503 | 504:  # a proxy before it
                raise NoAnswer(f"{response.status_code}: {said}", is_refused=True)
            case status:
                raise self._is_no_iopaint(f"it answered {status} to {response.request.url.path}: {said}")


def _said(response: httpx.Response) -> str:
    """An error in the server's words, without what it was sent: a 422 repeats the whole picture."""
    try:
        found = response.json()
    except ValueError:
        found = None
    match found:
        case {"detail": list(problems)}:
            words = "; ".join(_problem(problem) for problem in problems)
        case {"error": str(kind), "errors": str(errors)}:
            words = errors if kind in errors or kind == "HTTPException" else f"{kind}: {errors}"
        case {"detail": str(detail)}:
            words = detail
        case _:
            words = response.text
    return _one_line(words)[:_LONGEST_SAID] or "(no words)"


def _problem(problem: Any) -> str:
    match problem:
        case {"loc": list(steps), "msg": str(message)}:
            place = ".".join(str(step) for step in steps if step != "body")
            return f"{place}: {message}" if place else message
        case _:
            return "?"


def _one_line(text: str) -> str:
    return "".join(char for char in " ".join(text.split()) if char.isprintable())


def _keep_alive() -> list[tuple[int, int, int]]:
    options = [(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)]
    for name, value in (("TCP_KEEPIDLE", 10), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 3)):
        if hasattr(socket, name):  # not on every system
            options.append((socket.IPPROTO_TCP, getattr(socket, name), value))
    return options

"""How functions are called: HTTP, OpenFaaS's queue, AWS Lambda, RunPod. Each call ends in an answer, or in what is
known without one.

Nothing here is tried twice: whether that may be done only its caller knows.
"""

from __future__ import annotations

import contextlib
import email.utils
import json
import re
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Protocol

import httpx

from lcq.runner_config import FunctionConfig
from worker.calls import KEY_HEADER, Call
from worker.engines.credentials import NoCredentials, forget_identity, shown_with
from worker.engines.hidden import Hidden

_CONNECT_S = 10.0
_QUEUED_S = 30.0  # how long a gateway may take to queue a call
_FUNCTION_PATH = re.compile(r"/(async-)?function/")
_POLL_S = (0.25, 3.0)  # first and longest pause between two questions for a job's state
_ASK_S = 30.0  # how long one of them may take
_TRIES_UNTOLD = 3  # of them, where it is refused to tell it
_LEAST_POLICY_S = (5.0, 10.0)  # that RunPod takes for the time of an execution, and of a job
_KEPT_S = 30.0  # a job, and its result, beyond the time that a call may take
_JOB = re.compile(r"[A-Za-z0-9._:-]{1,200}")
_BUSY = frozenset({HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE})
_GATEWAY = frozenset({HTTPStatus.BAD_GATEWAY, HTTPStatus.GATEWAY_TIMEOUT, HTTPStatus.REQUEST_TIMEOUT})
_NOT_SENT = (
    httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.ProxyError, httpx.UnsupportedProtocol,
    httpx.LocalProtocolError, httpx.InvalidURL,
)  # fmt: skip
_LONGEST = 300  # characters of a foreign answer that are told
_BESIDE = 2**20  # bytes of an answer that may come beside what a call may carry
_USUAL_PAUSE_S, _LONGEST_PAUSE_S = 2.0, 300.0


class EndpointAway(Exception):
    """The call did not reach it: nothing has run."""


class EndpointBusy(Exception):
    """It takes no more calls now, and did not take this one. ``again_s``: when it wants to be asked again;
    ``is_full``: it is there, and has as many as it takes; else nobody may be there to take any."""

    def __init__(self, message: str, again_s: float, *, is_full: bool = False) -> None:
        super().__init__(message)
        self.again_s = again_s
        self.is_full = is_full


class EndpointRefuses(Exception):
    """It is not what its configuration says: no such function, a wrong token, a call that it does not understand.
    ``status``: by which HTTP says so; 0: it does not."""

    def __init__(self, message: str, status: int = 0) -> None:
        super().__init__(message)
        self.status = status


class CallFailed(Exception):
    """The platform says that the function broke."""


class InputRefused(Exception):
    """The platform will not hand over this call, whoever asks again."""


class CallTooLarge(Exception):
    """It takes no call of this size, and did not take this one."""


class CallbacksAway(Exception):
    """Who would hear what is called back cannot be asked now."""


class OutcomeUnknown(Exception):
    """It may have run, may run still, or never will: there was no answer."""


_ENDS = (EndpointAway, EndpointBusy, EndpointRefuses, CallTooLarge, CallFailed, InputRefused, OutcomeUnknown)


class Endpoint:
    """One function. Used by one thread at a time; ``cancel`` from any.

    ``hidden``: what of its calls is told to nobody: none of its errors has that in it, whatever was answered.
    """

    def __init__(self, config: FunctionConfig, hidden: Hidden) -> None:
        self._config = config
        self.hidden = hidden
        if config.kind != "lambda":
            hidden.add_url(config.url, is_right=False)

    def call(self, call: Call, *, timeout_s: float) -> bytes | Mapping[str, Any]:
        """The document that answers ``call``; ``timeout_s`` is all the time that it may take.

        Raises:
            EndpointAway, EndpointBusy, EndpointRefuses, CallTooLarge, CallFailed, InputRefused, OutcomeUnknown.
        """
        for url in (call.image.url, call.mask.url, call.put_url):
            self.hidden.add_url(url)
        try:
            return self._call(call, timeout_s=timeout_s)
        except _ENDS as end:
            end.args = (self.hidden(str(end)), *end.args[1:])
            raise

    def _call(self, call: Call, *, timeout_s: float) -> bytes | Mapping[str, Any]:
        raise NotImplementedError

    def _shown(self, url: str, headers: Mapping[str, str], body: bytes | None) -> dict[str, str]:
        """``headers``, and those that show who calls.

        Raises:
            EndpointRefuses: there are none; no call goes out.
        """
        try:
            return shown_with(self._config, self.hidden, url, headers, body)
        except NoCredentials as none:
            raise EndpointRefuses(str(none)) from none

    def cancel(self) -> None:
        """Nobody waits any more: what can be stopped there, is."""

    def close(self) -> None: ...


@dataclass(frozen=True)
class Callback:
    """Where a gateway is to call back; ``name``: what that reply is asked for by."""

    url: str
    name: str


@dataclass(frozen=True)
class Called:
    """What a gateway called back with: the function's ``status`` and answer, and by which id it knows the call."""

    status: int
    document: bytes
    call_id: str


class Callbacks(Protocol):
    """Who has an address for gateways that call back, and hears what they say there."""

    def callback(self, seconds: float) -> Callback:
        """Where the gateway of a call that takes so long at most is to call back."""

    def called(self, callback: Callback, wait_s: float) -> Called | None:
        """What it has called back with; None: nothing, for so long.

        Raises:
            CallbacksAway.
        """


def endpoint_of(
    config: FunctionConfig, callbacks: Callbacks | None = None, *, hidden: Hidden | None = None
) -> Endpoint:
    """The endpoint that ``config`` describes. Connects to nothing. Without ``callbacks`` every call is waited for.
    ``hidden`` learns what of its calls is to be told to nobody."""
    hidden = hidden if hidden is not None else Hidden()
    if config.is_async and callbacks is not None:
        return QueuedEndpoint(config, hidden, callbacks)
    match config.kind:
        case "lambda":
            return LambdaEndpoint(config, hidden)
        case "runpod":
            return RunPodEndpoint(config, hidden)
        case _:
            return HttpEndpoint(config, hidden)


# ---------------------------------------------------------------- HTTP


class HttpEndpoint(Endpoint):
    """A POST that waits for the answer."""

    def __init__(self, config: FunctionConfig, hidden: Hidden) -> None:
        super().__init__(config, hidden)
        self._client = httpx.Client(follow_redirects=False)

    def _call(self, call: Call, *, timeout_s: float) -> bytes | Mapping[str, Any]:
        body = call.model_dump_json().encode()
        url = self._config.url
        if self._config.kind == "openfaas":
            url = _FUNCTION_PATH.sub("/function/", url, count=1)
        headers = self._shown(url, {"Content-Type": "application/json", KEY_HEADER: call.key}, body)
        most = self._config.inline_bytes + _BESIDE
        status, answered, data = _asked(self._client, "POST", url, timeout_s, headers, body, most=most)
        if status == HTTPStatus.OK or _is_ours(data):
            return data
        if status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
            forget_identity(self._config)
        if HTTPStatus.OK < status < HTTPStatus.MULTIPLE_CHOICES:  # it may run, and nobody will hear of it
            raise CallFailed(f"it has taken the call, and does not answer it ({_said(status, data)}): see its address")
        raise _trouble(status, answered, data)

    def cancel(self) -> None:
        """The connection is cut; a function that has begun goes on."""
        self._client.close()

    def close(self) -> None:
        self._client.close()


def _asked(
    client: httpx.Client,
    method: str,
    url: str,
    timeout_s: float,
    headers: Mapping[str, str],
    body: bytes | None = None,
    *,
    most: int = _BESIDE,
) -> tuple[int, httpx.Headers, bytes]:
    """Status, headers and body of an answer that was whole within ``timeout_s``, and has ``most`` bytes.

    Raises:
        EndpointAway: no byte of what is asked has gone out; OutcomeUnknown: some may have; CallFailed: its answer is
            too long.
    """
    until = time.monotonic() + timeout_s
    timeout = httpx.Timeout(timeout_s, connect=min(_CONNECT_S, timeout_s))
    try:
        with client.stream(method, url, headers=dict(headers), content=body, timeout=timeout) as answer:
            taken = bytearray()
            for piece in answer.iter_bytes():
                taken += piece
                if time.monotonic() > until:  # a body that trickles is never late by itself
                    raise OutcomeUnknown(f"its answer was not whole after {timeout_s:g} s")
                if len(taken) > most:
                    raise CallFailed(f"its answer has more than the {most >> 10:,} KiB that may come (payload_kib)")
            return answer.status_code, answer.headers, bytes(taken)
    except _NOT_SENT as away:
        raise EndpointAway(f"it cannot be reached: {_line(away)}") from away
    except httpx.TimeoutException as late:
        raise OutcomeUnknown(f"it had not answered after {timeout_s:g} s") from late
    except (httpx.HTTPError, RuntimeError) as cut:  # RuntimeError: the client was closed meanwhile
        raise OutcomeUnknown(f"the connection was cut before its answer came: {_line(cut)}") from cut


def _trouble(status: int, headers: httpx.Headers, data: bytes) -> Exception:
    said = _said(status, data)
    if status in _BUSY:
        is_full = status == HTTPStatus.TOO_MANY_REQUESTS
        return EndpointBusy(f"it takes no more calls now ({said})", _pause_of(headers), is_full=is_full)
    if status in _GATEWAY:
        return OutcomeUnknown(f"what stands before it gave up waiting ({said})")
    if status in (HTTPStatus.BAD_REQUEST, HTTPStatus.REQUEST_ENTITY_TOO_LARGE, HTTPStatus.UNPROCESSABLE_ENTITY):
        return InputRefused(f"it refused the call ({said})")
    if status < HTTPStatus.INTERNAL_SERVER_ERROR:
        return EndpointRefuses(f"it is not what was expected ({said}): see its address and its token", status)
    return CallFailed(f"it broke ({said})")


def _is_ours(data: bytes) -> bool:
    """Whether a refusal is the function's own reply, and not what stands before it."""
    with contextlib.suppress(ValueError, RecursionError):
        told = json.loads(data)
        return isinstance(told, dict) and "key" in told and "trouble" in told
    return False


def _said(status: int, data: bytes) -> str:
    text = " ".join(data[:_LONGEST].decode("utf-8", "replace").split())
    return f"{status}: {text}" if text else str(status)


def _pause_of(headers: Mapping[str, str]) -> float:
    """Seconds until it may be asked again, by Retry-After: a number, or a date."""
    told = headers.get("retry-after", "")
    seconds = _USUAL_PAUSE_S
    with contextlib.suppress(ValueError, TypeError, OverflowError):  # the last: a year of twenty digits
        seconds = float(told) if told.isdigit() else email.utils.parsedate_to_datetime(told).timestamp() - time.time()
    return min(_LONGEST_PAUSE_S, max(0.1, seconds))


# ---------------------------------------------------------------- OpenFaaS, asynchronous


class QueuedEndpoint(Endpoint):
    """OpenFaaS's /async-function: the gateway queues the call, says so (202), and calls back when it is done."""

    def __init__(self, config: FunctionConfig, hidden: Hidden, callbacks: Callbacks) -> None:
        super().__init__(config, hidden)
        self._callbacks = callbacks
        self._client = httpx.Client(follow_redirects=False)
        self._stopped = threading.Event()

    def _call(self, call: Call, *, timeout_s: float) -> bytes | Mapping[str, Any]:
        until = time.monotonic() + timeout_s
        callback = self._callbacks.callback(timeout_s)
        self.hidden.add_url(callback.url)
        call_id = self._queued(call, callback, min(_QUEUED_S, timeout_s))
        while not self._stopped.is_set():
            left_s = until - time.monotonic()
            called = self._heard(callback, max(0.0, left_s))
            if called is not None:
                return _told_back(called, call_id)
            if left_s <= 0:
                raise OutcomeUnknown(f"its gateway had not called back after {timeout_s:g} s")
        raise OutcomeUnknown("it was given up")

    def _queued(self, call: Call, callback: Callback, timeout_s: float) -> str:
        """The id by which its gateway knows the call; "": it has not said, and may have queued it all the same.

        Raises:
            EndpointAway, EndpointBusy, EndpointRefuses, CallTooLarge, InputRefused: it is in no queue.
            OutcomeUnknown: something has it that does not queue.
        """
        body = call.model_dump_json().encode()
        url = _FUNCTION_PATH.sub("/async-function/", self._config.url, count=1)
        headers = {
            "Content-Type": "application/json",
            "Accept-Encoding": "identity",  # handed on to the function, and its answer back as it is
            KEY_HEADER: call.key,
            "X-Callback-Url": callback.url,
        }
        try:
            status, answered, data = _asked(self._client, "POST", url, timeout_s, self._shown(url, headers, body), body)
        except OutcomeUnknown:
            return ""
        if status == HTTPStatus.ACCEPTED:
            return str(answered.get("x-call-id", ""))
        if status in _GATEWAY:
            return ""
        if status == HTTPStatus.INTERNAL_SERVER_ERROR and b"maximum payload" in data:
            raise CallTooLarge(f"its queue takes no call of this size ({_said(status, data)}): lower payload_kib")
        if status < HTTPStatus.BAD_REQUEST:
            strange = f"it does not queue, as asynchronous gateways do ({_said(status, data)})"
            is_taken = status < HTTPStatus.MULTIPLE_CHOICES  # by something, which may have run it
            raise OutcomeUnknown(strange) if is_taken else EndpointRefuses(strange)
        trouble = _trouble(status, answered, data)
        if isinstance(trouble, CallFailed):
            raise EndpointAway(f"its queue has not taken the call ({_said(status, data)})")
        raise trouble

    def _heard(self, callback: Callback, left_s: float) -> Called | None:
        try:
            return self._callbacks.called(callback, left_s)
        except CallbacksAway:  # the scheduler is away for a moment: what is called back meanwhile comes to another one
            self._stopped.wait(min(left_s, _POLL_S[0]))
            return None

    def cancel(self) -> None:
        """What is queued is done all the same; its bill comes late."""
        self._stopped.set()
        self._client.close()

    def close(self) -> None:
        self._client.close()


def _told_back(called: Called, call_id: str) -> bytes:
    """The function's answer in what a gateway has called back with.

    Raises:
        EndpointBusy, EndpointRefuses, CallFailed, InputRefused, OutcomeUnknown.
    """
    if call_id and called.call_id and called.call_id != call_id:
        raise OutcomeUnknown(f"what was called back is of call {called.call_id[:80]!r}, and ours is {call_id[:80]!r}")
    if called.status < HTTPStatus.BAD_REQUEST or _is_ours(called.document):
        return called.document
    raise _trouble(called.status, httpx.Headers(), called.document)


# ---------------------------------------------------------------- AWS Lambda


class LambdaEndpoint(Endpoint):
    """Invoke, waited for. The SDK's own retries are off: they would run what still runs a second time."""

    def __init__(self, config: FunctionConfig, hidden: Hidden) -> None:
        super().__init__(config, hidden)
        self._client: Any = None

    def _call(self, call: Call, *, timeout_s: float) -> bytes | Mapping[str, Any]:
        client = self._connected()
        import botocore.exceptions as sdk

        try:
            answer = client.invoke(
                FunctionName=self._config.url, InvocationType="RequestResponse", Payload=call.model_dump_json().encode()
            )
            payload: bytes = answer["Payload"].read()
        except sdk.ClientError as refused:
            raise _lambda_trouble(refused.response) from refused
        except (sdk.EndpointConnectionError, sdk.ConnectTimeoutError, sdk.ProxyConnectionError) as no:
            raise EndpointAway(f"it cannot be reached: {_line(no)}") from no
        except (sdk.HTTPClientError, sdk.ConnectionError, sdk.IncompleteReadError, OSError) as cut:
            raise OutcomeUnknown(f"there was no answer: {_line(cut)}") from cut
        except sdk.BotoCoreError as unsent:  # of the SDK itself: no credentials, no such region, no such name
            raise EndpointAway(f"the SDK does not call it: {_line(unsent)}") from unsent
        if answer.get("FunctionError"):
            said = payload[:_LONGEST].decode("utf-8", "replace")
            if "Task timed out" in said:
                raise CallFailed(f"it took longer than its own limit ({said})")
            raise CallFailed(f"it broke ({said})")
        return payload

    def _connected(self) -> Any:
        if self._client is None:
            try:
                import boto3
                from botocore.config import Config
                from botocore.exceptions import BotoCoreError
            except ImportError as missing:
                raise EndpointRefuses("kind: lambda needs boto3: pip install 'lcq[lambda]'") from missing
            options = Config(
                read_timeout=self._config.timeout_s + 5, connect_timeout=_CONNECT_S, retries={"total_max_attempts": 1}
            )
            try:
                session = boto3.session.Session()  # its own: several threads may call, and the default one is for one
                self._client = session.client("lambda", config=options, region_name=self._config.region or None)
            except (BotoCoreError, ValueError) as unusable:
                raise EndpointAway(f"the SDK does not call it: {_line(unusable)}") from unusable
        return self._client

    def cancel(self) -> None:
        """Lambda has no way to stop a call."""

    def close(self) -> None:
        if self._client is not None:
            self._client.close()


def _lambda_trouble(response: Mapping[str, Any]) -> Exception:
    error = response.get("Error", {})
    code, said = str(error.get("Code", "")), f"{error.get('Code')}: {error.get('Message')}"[:_LONGEST]
    told = response.get("ResponseMetadata", {})
    headers = told.get("HTTPHeaders", {})
    if code in ("TooManyRequestsException", "ThrottlingException", "EC2ThrottledException"):
        return EndpointBusy(f"it takes no more calls now ({said})", _pause_of(headers), is_full=True)
    if code in ("InvalidRequestContentException", "RequestTooLargeException", "UnsupportedMediaTypeException"):
        return InputRefused(f"it refused the call ({said})")
    if code == "ServiceException":
        return OutcomeUnknown(f"its platform had trouble of its own ({said})")
    if code.isdigit() or not code:  # no error of Lambda's: of what stands before it
        return _trouble(int(told.get("HTTPStatusCode", code or 0)), headers, str(error.get("Message", "")).encode())
    return EndpointRefuses(f"it is not what was expected ({said})")


# ---------------------------------------------------------------- RunPod


class RunPodEndpoint(Endpoint):
    """/run, and /status until it is done. What a question for the state is answered with says nothing of the job, but
    for the state itself: it is asked again."""

    def __init__(self, config: FunctionConfig, hidden: Hidden) -> None:
        super().__init__(config, hidden)
        self._client = httpx.Client(follow_redirects=False)
        self._stopped = threading.Event()
        self._asks_by = "GET"
        self._lock = threading.Lock()  # of what follows
        self._job = ""
        self._is_cancelled = self._is_at_work = self._is_closed = False

    def _call(self, call: Call, *, timeout_s: float) -> bytes | Mapping[str, Any]:
        until = time.monotonic() + timeout_s
        with self._lock:
            self._is_at_work = True
        try:
            return self._awaited(self._taken(call, timeout_s), until, timeout_s)
        except OutcomeUnknown:
            if not call.put_url or self._stopped.is_set():  # nobody could find what it does
                self._cancel_job()
            raise
        finally:
            with self._lock:
                self._is_at_work, is_closed = False, self._is_closed
            if is_closed:
                self._client.close()

    def _taken(self, call: Call, timeout_s: float) -> dict[str, Any]:
        """What /run answers; the job has its name from then on.

        Raises:
            EndpointAway, EndpointBusy, EndpointRefuses, CallFailed, InputRefused, OutcomeUnknown.
        """
        least_run_s, least_kept_s = _LEAST_POLICY_S
        policy = {
            "executionTimeout": int(1000 * max(least_run_s, timeout_s)),
            "ttl": int(1000 * max(least_kept_s, timeout_s + _KEPT_S)),
        }
        asked = {"input": call.model_dump(mode="json"), "policy": policy}
        try:
            told = self._json("POST", "run", min(30.0, timeout_s), asked, key=call.key)
        except _Unreadable as strange:  # something has the call
            raise OutcomeUnknown(f"it may have taken the call, and names no job: {strange}") from strange
        job = told.get("id")
        if not isinstance(job, str) or not _JOB.fullmatch(job):
            raise OutcomeUnknown(f"it may have taken the call, and names no job: {str(told)[:_LONGEST]}")
        with self._lock:
            self._job = job
        return told

    def _awaited(self, told: Mapping[str, Any], until: float, timeout_s: float) -> Mapping[str, Any]:
        pause_s, longest_s = _POLL_S
        untold = 0  # questions in a row by which it was not told
        while True:
            match told.get("status"):
                case "COMPLETED":
                    output = told.get("output")
                    if not isinstance(output, dict):
                        raise CallFailed(f"its output is none of ours: {str(output)[:_LONGEST]}")
                    return output
                case "FAILED":
                    raise CallFailed(f"it broke: {str(told.get('error'))[:_LONGEST]}")
                case "CANCELLED" | "TIMED_OUT" as ended:
                    raise CallFailed(f"its platform says {ended}")
            if self._stopped.wait(pause_s):
                raise OutcomeUnknown("it was given up")
            if time.monotonic() > until:
                self._cancel_job()
                raise OutcomeUnknown(f"it was not done after {timeout_s:g} s")
            pause_s = min(longest_s, pause_s * 1.5)
            try:
                told, untold = self._state(min(_ASK_S, max(1.0, until - time.monotonic()))), 0
            except (EndpointAway, EndpointBusy, CallFailed, OutcomeUnknown):  # of the question: the job may run on
                continue
            except (EndpointRefuses, InputRefused) as refuses:  # it may be so for a moment, and for ever
                untold += 1
                if untold >= _TRIES_UNTOLD:
                    raise OutcomeUnknown(f"it has taken the call, and its state is not told: {refuses}") from refuses

    def _state(self, timeout_s: float) -> dict[str, Any]:
        """How the job stands. RunPod's own server for trials wants to be asked by POST."""
        try:
            told = self._json(self._asks_by, f"status/{self._job}", timeout_s)
        except EndpointRefuses as refuses:
            if self._asks_by == "POST" or refuses.status != HTTPStatus.METHOD_NOT_ALLOWED:
                raise
            self._asks_by = "POST"
            told = self._json("POST", f"status/{self._job}", timeout_s, {})
        if told.get("id", self._job) != self._job:
            raise EndpointRefuses(f"it told the state of another job: {str(told.get('id'))[:80]!r}")
        return told

    def cancel(self) -> None:
        """The job is cancelled; one that is just being taken, as soon as it has its name."""
        self._stopped.set()
        self._cancel_job()

    def _cancel_job(self) -> None:
        with self._lock:
            job, was_cancelled = self._job, self._is_cancelled
            self._is_cancelled = bool(job)
        if job and not was_cancelled:
            with contextlib.suppress(Exception):
                self._json("POST", f"cancel/{job}", 5.0, {})

    def close(self) -> None:
        """A call that is under way closes it when it ends: cut off, it would not learn which job to cancel."""
        with self._lock:
            self._is_closed = True
            is_at_work = self._is_at_work
        if not is_at_work:
            self._client.close()

    def _json(self, method: str, path: str, timeout_s: float, asked: Any = None, *, key: str = "") -> dict[str, Any]:
        headers = {KEY_HEADER: key} if key else {}
        body = None if asked is None else json.dumps(asked).encode()
        if body is not None:
            headers["Content-Type"] = "application/json"
        url = f"{self._config.url.rstrip('/')}/{path}"
        headers = self._shown(url, headers, body)
        most = self._config.inline_bytes + _BESIDE
        status, answered, data = _asked(self._client, method, url, timeout_s, headers, body, most=most)
        if status == HTTPStatus.NOT_FOUND and path.startswith("status/"):
            raise EndpointRefuses(f"its platform knows nothing of the job ({_said(status, data)})")
        if status >= HTTPStatus.BAD_REQUEST:
            raise _trouble(status, answered, data)
        try:
            told = json.loads(data)
        except (ValueError, RecursionError) as strange:
            raise _Unreadable(f"its answer is no JSON ({_said(status, data)})") from strange
        if not isinstance(told, dict):
            raise _Unreadable(f"its answer is none of RunPod's: {str(told)[:_LONGEST]}")
        return told


class _Unreadable(EndpointRefuses):
    """It answered as if all were well, and what it said is no JSON object."""


def _line(error: BaseException) -> str:
    said = " ".join(str(error).split()) or type(error).__name__
    return said[:_LONGEST]

"""Where the IOPaint server is whose pictures a runner fetches: one of our own, or one of somebody else's.

Loaded when an engine has a model of it to offer: a runner without an IOPaint, as most are, begins without all this.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import fcntl
import hashlib
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, Protocol, TypeVar

import platformdirs

from lcq.runner_config import IopaintConfig
from worker.engines.base import DeviceKind, EngineError, EngineSettings, ErrorClass, Progress
from worker.engines.iopaint_api import Answer, IopaintApi, NoAnswer
from worker.engines.iopaint_server import IopaintServer, ServerNotStarted, not_runnable

_log = logging.getLogger(__name__)
_TICK_S = 0.1  # how often progress is told, and a cancel heard, while waiting
_DYING_S = 1.0  # how long a server that hung up may take to be gone
_AT_ONCE_S = 0.25  # who hangs up so soon was not at work on the picture
_T = TypeVar("_T")


def _command(config: IopaintConfig) -> tuple[str, ...] | None:
    if config.venv is not None:
        return (str(config.venv.expanduser() / "bin" / "iopaint"),)
    if config.command is not None:
        return (os.path.expanduser(config.command[0]), *config.command[1:])  # noqa: PTH111 - it may be a bare name
    return None


def _to_retry(code: str, message: str) -> EngineError:
    return EngineError(code, message, error_class=ErrorClass.TRANSIENT)


def _died(message: str) -> EngineError:
    return EngineError("iopaint_died", message, error_class=ErrorClass.CRASH)


def neighbour(settings: EngineSettings) -> Neighbour:
    """The server that ``settings.iopaint`` names; none is started before it is asked for a picture."""
    return _ServerElsewhere(settings.iopaint) if settings.iopaint.url else _OwnServer(settings)


def why_not_runnable(config: IopaintConfig) -> str:
    """Why the program that ``config`` names cannot be run; "" where it can, or where it names none."""
    command = _command(config)
    return not_runnable(command) if command is not None else ""


class Neighbour(Protocol):
    """Where the server is."""

    def inpaint(self, model: str, body: bytes, progress: Progress) -> Answer: ...

    def held_bytes(self, model: str | None = None) -> int:
        """Of this device's memory; with ``model`` 0 where it has another."""

    def unload(self, model: str) -> None: ...


# ---------------------------------------------------------------- waiting


class _Call(concurrent.futures.Future[_T]):
    """A call in a thread that nobody has to wait for: it may outlive both the attempt and our patience."""

    def __init__(self, function: Callable[[], _T]) -> None:
        super().__init__()
        threading.Thread(target=self._run, args=(function,), name="iopaint call", daemon=True).start()

    def _run(self, function: Callable[[], _T]) -> None:
        try:
            self.set_result(function())
        except BaseException as error:  # noqa: BLE001 - it goes to the one who waits
            self.set_exception(error)

    def awaited(self, tick: Callable[[], None]) -> _T:
        """What it gives or raises; ``tick`` is called all the while, and may raise."""
        while not concurrent.futures.wait([self], timeout=_TICK_S).done:
            tick()
        return self.result()


def _ticking(progress: Progress, stage: str) -> Callable[[], None]:
    return lambda: progress(0.0, stage)  # IOPaint does not tell how far it is


def _limited(tick: Callable[[], None], seconds: float, error: Callable[[], EngineError]) -> Callable[[], None]:
    """``tick`` that raises ``error`` once ``seconds`` have passed."""
    deadline = time.monotonic() + seconds

    def limited() -> None:
        tick()
        if time.monotonic() > deadline:
            raise error()

    return limited


# ---------------------------------------------------------------- a server of our own


class _OwnServer:
    """Starts a server when it is needed, and again after it broke; ends it when nobody needs it."""

    def __init__(self, settings: EngineSettings) -> None:
        self._config = settings.iopaint
        self._device = _device_there(settings)
        self._server: IopaintServer | None = None

    def inpaint(self, model: str, body: bytes, progress: Progress) -> Answer:
        server = self._ready(model, progress)
        try:
            return self._answer(server, body, progress)
        except NoAnswer as error:  # it had ended, though its process was not gone yet; no picture has reached it
            _log.warning("IOPaint %d does not answer any more (%s); another is started", server.pid, error)
            self._end(grace_s=0)
        server = self._started(model, progress)
        try:
            return self._answer(server, body, progress)
        except NoAnswer as error:
            raise self._broke_off(server, error) from error

    def _answer(self, server: IopaintServer, body: bytes, progress: Progress) -> Answer:
        """What ``server`` makes of ``body``. After any error but a refusal of the picture there is no server left.

        Raises:
            NoAnswer: it could not be reached at all, or was dying when it was asked; it is left to the caller.
        """
        asked_at = time.monotonic()
        try:
            stage = f"inpaint with {server.model}"
            return _Call(lambda: server.api.inpaint(body)).awaited(_ticking(progress, stage))
        except NoAnswer as error:
            # The kernel may still take a connection for a process that was killed, and then reset it.
            if error.is_refused or time.monotonic() - asked_at < _AT_ONCE_S:
                raise
            raise self._broke_off(server, error) from error
        except EngineError as error:
            if error.error_class is not ErrorClass.BAD_INPUT:
                self._end()  # what is broken in there is not known: the next task gets a fresh one
            raise
        except BaseException:  # nobody waits any more, and it must not get a second picture while it has this one
            self._end(grace_s=0)
            raise

    def _broke_off(self, server: IopaintServer, error: NoAnswer) -> EngineError:
        server.has_ended(within_s=_DYING_S)
        message = f"the IOPaint server broke off while it worked ({error}): {server.last_words()}"
        self._end(grace_s=0)
        return _died(message)

    def _ready(self, model: str, progress: Progress) -> IopaintServer:
        """Our server, with ``model``: the one that runs, switched if need be, or a new one."""
        server = self._server
        if server is not None and not server.lives:
            _log.warning("IOPaint %d is gone (%s); another is started", server.pid, server.last_words())
            self._end(grace_s=0)
        elif server is not None and server.model == model:
            return server
        elif server is not None:
            if self._switched(server, model, progress):
                return server
            self._end()
        return self._started(model, progress)

    def _switched(self, server: IopaintServer, model: str, progress: Progress) -> bool:
        """Whether it has switched to ``model``. If not, a new one may fetch its weights, or say what is wrong."""

        def switch() -> bool:
            if model not in server.api.models():
                return False
            server.api.switch(model)
            return True

        tick = _limited(_ticking(progress, f"load {model}"), self._config.start_s, lambda: self._slow(server, model))
        try:
            is_switched = _Call(switch).awaited(tick)
        except (NoAnswer, EngineError) as error:
            self._end(grace_s=0)
            if isinstance(error, EngineError) and error.code in ("iopaint_slow", "out_of_memory"):
                raise
            _log.warning("IOPaint %d did not switch to %s: %s", server.pid, model, error)
            return False
        except BaseException:
            self._end(grace_s=0)
            raise
        if is_switched:
            server.model = model
        return is_switched

    def _started(self, model: str, progress: Progress) -> IopaintServer:
        command = _command(self._config)
        assert command is not None  # noqa: S101 - without one no model is offered
        more = [*self._config.options]
        if self._config.model_dir is not None:
            more += ["--model-dir", str(self._config.model_dir.expanduser())]
        try:
            server = self._server = IopaintServer(command, model, device=self._device, more=more)
        except ServerNotStarted as error:
            raise _to_retry("iopaint_not_started", str(error)) from error
        tick = _limited(
            _ticking(progress, f"start IOPaint with {model}"), self._config.start_s, lambda: self._slow(server, model)
        )
        try:
            while not server.api.is_up():
                if not server.lives:
                    raise _to_retry(
                        "iopaint_not_started",
                        f"IOPaint did not start with model {model} on {self._device}: {server.last_words()}",
                    )
                tick()
                time.sleep(_TICK_S)
        except BaseException:
            self._end(grace_s=0)
            raise
        _log.info("IOPaint %d is ready with model %s", server.pid, model)
        return server

    def _slow(self, server: IopaintServer, model: str) -> EngineError:
        return _to_retry(
            "iopaint_slow",
            f"IOPaint has not loaded model {model} in {self._config.start_s:g} s (iopaint.start_s): "
            f"{server.last_words()}",
        )

    def held_bytes(self, model: str | None = None) -> int:
        server = self._server
        if server is None or self._device != "cpu" or model not in (None, server.model):
            return 0
        return server.held_bytes()

    def unload(self, model: str) -> None:
        if self._server is not None and self._server.model == model:
            self._end()

    def _end(self, **how: float) -> None:
        server, self._server = self._server, None
        if server is not None:
            server.end(**how)


def _device_there(settings: EngineSettings) -> str:
    """This device by IOPaint's names. Which GPU is the runner's own concern: its environment shows it just one."""
    if settings.device.kind is not DeviceKind.GPU:
        return "cpu"
    return "mps" if settings.device.id == "mps" else "cuda"


# ---------------------------------------------------------------- a server of somebody else's


class _ServerElsewhere:
    """A server that is not ours: used by one runner at a time, switched to what a task needs, never ended."""

    def __init__(self, config: IopaintConfig) -> None:
        self._start_s = config.start_s
        self._api = IopaintApi(config.url or "")

    def inpaint(self, model: str, body: bytes, progress: Progress) -> Answer:
        try:
            with self._turn(progress) as follow:
                switching = _Call(lambda: self._switch(model))
                follow(switching)
                switching.awaited(_limited(_ticking(progress, f"load {model}"), self._start_s, self._slow))
                working = _Call(lambda: self._api.inpaint(body))
                follow(working)
                return working.awaited(_ticking(progress, f"inpaint with {model}"))
        except NoAnswer as error:
            if error.is_refused:
                raise _to_retry(
                    "iopaint_unreachable",
                    f"no IOPaint answers at {self._api.url}: {error} (is it running? see iopaint.url)",
                ) from error
            raise _died(f"the IOPaint at {self._api.url} broke off while it worked: {error}") from error

    def _switch(self, model: str) -> None:
        if self._api.current_model() == model:
            return
        known = self._api.models()
        if model not in known:  # asking for it would break the server
            raise _to_retry(
                "model_not_here",
                f"the IOPaint at {self._api.url} has no model {model!r}, only {', '.join(sorted(known)) or 'none'}",
            )
        self._api.switch(model)

    @contextlib.contextmanager
    def _turn(self, progress: Progress) -> Iterator[Callable[[_Call[Any]], None]]:
        """Have the server to ourselves. Until the calls that are followed have ended, even if nobody waits for them."""
        lock = _open_lock(self._api.url)
        calls: list[_Call[Any]] = []
        try:
            tick = _limited(_ticking(progress, f"wait for {self._api.url}"), self._start_s, self._busy)
            while not _is_locked(lock):
                tick()
                time.sleep(_TICK_S)
            yield calls.append
        finally:
            if calls:
                calls[-1].add_done_callback(lambda call: os.close(lock))
            else:
                os.close(lock)

    def _slow(self) -> EngineError:
        return _to_retry(
            "iopaint_slow",
            f"the IOPaint at {self._api.url} has not switched its model in {self._start_s:g} s (iopaint.start_s)",
        )

    def _busy(self) -> EngineError:
        return _to_retry(
            "iopaint_busy",
            f"the IOPaint at {self._api.url} was busy with other tasks of this host for {self._start_s:g} s "
            "(iopaint.start_s); give it fewer slots, or each runner a server of its own (iopaint.command)",
        )

    def held_bytes(self, model: str | None = None) -> int:
        return 0

    def unload(self, model: str) -> None:
        """It is not ours to end."""


def _open_lock(url: str) -> int:
    """A file that stands for the server at ``url`` to all runners of this user on this host."""
    folder = (
        platformdirs.user_data_path("lcq") / "locks"
    )  # the runtime folder of a user who is not logged in is another
    file = folder / f"iopaint-{hashlib.sha256(url.encode()).hexdigest()[:16]}.lock"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise _to_retry("io_error", f"cannot make {file}, which keeps tasks apart: {error.strerror}") from error


def _is_locked(lock: int) -> bool:
    """Whether we have it now; it is given back by closing it."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True

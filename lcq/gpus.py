"""The GPUs of this machine, asked so that one that hangs holds up nobody, and a driver that broke is tried again."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

from lcq import nvml
from lcq.models import DeviceReading
from lcq.nvml import FATAL_XIDS, NO_DRIVER, RESET, UNREADABLE, Gpu, Session, Vitals, broken
from lcq.torch_gpus import TORCH_PROBE, torch_gpus

__all__ = ["Gpu", "Gpus", "Vitals"]

T = TypeVar("T")
_ROOT = Path("/")
_LONGEST_RETRY_S = 600.0
_PARTING_S = 2.0


@dataclass(frozen=True)
class _Ecc:
    """Uncorrected errors of a GPU's memory: how many, how many of them came last, and when (monotonic)."""

    count: int
    new: int = 0
    since: float = 0.0


class _Call(Generic[T]):
    """A function that may never come back, in a thread that nobody has to wait for, not even at exit."""

    def __init__(self, function: Callable[[], T]) -> None:
        self._began = time.monotonic()
        self._function = function
        self._done = threading.Event()
        self._value: T | None = None
        self._error: Exception | None = None
        threading.Thread(target=self._run, name="lcq-gpus", daemon=True).start()

    def _run(self) -> None:
        try:
            self._value = self._function()
        except UNREADABLE as error:
            self._error = error
        finally:
            self._done.set()

    @property
    def is_done(self) -> bool:
        return self._done.is_set()

    @property
    def age_s(self) -> float:
        return time.monotonic() - self._began

    def result(self, patience_s: float) -> T:
        """What it returned or raised, within ``patience_s`` of its beginning.

        Raises:
            TimeoutError: it is not back.
        """
        if not self._done.wait(max(0.0, patience_s - self.age_s)):
            raise TimeoutError
        if self._error is not None:
            raise self._error
        return self._value  # type: ignore[return-value]  # done without an error: it is a T


class Gpus:
    """The GPUs of this machine, while the block lasts.

    Never raises for what is wrong with a driver or a GPU: ``problem`` says what is wrong with the driver (empty:
    nothing), a reading's ``fault`` what is wrong with one GPU. After a fault the driver is started anew now and
    then, so that a GPU that was reset is found again. Any thread may use it.
    """

    def __init__(
        self,
        *,
        environment: Mapping[str, str] | None = None,
        root: Path = _ROOT,
        timeout_s: float = 1.0,
        silence_s: float = 5.0,
        start_timeout_s: float = 20.0,
        retry_s: float = 30.0,
        alarm_s: float = 45.0,
        torch_probe: Sequence[str] = TORCH_PROBE,
    ) -> None:
        """``environment``: the one whose CUDA_VISIBLE_DEVICES is obeyed, default: this process's.

        ``root``: where /dev, /proc and /sys are found. ``timeout_s``: how long a reading may take; a GPU that is
        late is told of as it was last known, and as faulty after ``silence_s``. ``start_timeout_s``: how long the
        driver's start may take (without persistence mode it wakes every GPU). ``retry_s``: how soon after a fault
        the driver is started anew; twice as long after each time that did not help. ``alarm_s``: for how long new
        errors of a GPU's memory are told with its readings (for some beats, and for less than its first quarantine
        takes: what it shows after that is judged by itself).
        """
        self.problem = ""
        self.driver = ""
        self.cuda = ""
        self.unreadable: Mapping[str, str] = {}  # "gpu2" -> why nothing is known of it, not even its UUID
        self._environment = os.environ if environment is None else environment
        self._root = root
        self._timeout_s = timeout_s
        self._silence_s = silence_s
        self._start_timeout_s = start_timeout_s
        self._retry_s = self._first_retry_s = retry_s
        self._alarm_s = alarm_s
        self._torch_probe = torch_probe
        self._lock = threading.Lock()
        self._session: Session | None = None
        self._found: tuple[Gpu, ...] = ()
        self._looks: dict[str, _Call[Vitals]] = {}  # by UUID
        self._listening: _Call[list[tuple[str, int]]] | None = None
        self._starting: _Call[Session] | None = None
        self._retry_at: float | None = None  # when the driver is to be started anew
        self._faulty: frozenset[str] = frozenset()  # UUIDs
        self._last: dict[str, Vitals] = {}
        self._xids: dict[str, int] = {}  # by UUID of the GPU
        self._ecc: dict[str, _Ecc] = {}  # by UUID

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def open(self) -> None:
        """Look at what there is. Takes no longer than its time-outs, and raises nothing."""
        starting = _Call(partial(nvml.start, self._environment))
        try:
            self._session = session = starting.result(self._start_timeout_s)
        except TimeoutError:
            self.problem = (
                f"NVIDIA's driver did not answer within {self._start_timeout_s:g} s: a GPU hangs, or the driver "
                "does; see dmesg, and whether nvidia-smi comes back"
            )
        except UNREADABLE as error:
            self.problem = nvml.explain(error, self._root)
        else:
            self.driver, self.cuda, self.unreadable = session.driver, session.cuda, session.unreadable
            self._found = tuple(session.gpus)
            if not self._found and not self.unreadable:
                self.problem = "NVIDIA's driver runs and shows no GPU (nvidia-smi -L; a container needs --gpus)"
        self._add_others()

    def _add_others(self) -> None:
        """AMD's and Apple's. What is wrong with them is told where NVIDIA's driver gives nothing to tell."""
        others, trouble = torch_gpus(root=self._root, environment=self._environment, command=self._torch_probe)
        if others and not self._found:
            others = tuple(gpu.model_copy(update={"number": number}) for number, gpu in enumerate(others))
        self._found += others
        if self.is_absent and (others or trouble):
            self.problem = trouble

    def close(self) -> None:
        """Let go of the driver, if it lets us."""
        with self._lock:
            session, self._session = self._session, None
            if session is None or self._is_inside():
                return  # a thread that hangs in the library ends with this process
        with contextlib.suppress(TimeoutError, *UNREADABLE):
            _Call(partial(nvml.end, session)).result(_PARTING_S)

    @property
    def is_absent(self) -> bool:
        """Whether this machine simply has no GPU: nothing is wrong, there is just none."""
        return self.problem == NO_DRIVER

    def found(self) -> tuple[Gpu, ...]:
        """The GPUs and MIG instances that were there at the start, also those that are not to be used."""
        return self._found

    def readings(self, own_pids: Collection[int] = ()) -> dict[str, DeviceReading]:
        """UUID -> how it is now, for each that was found.

        ``own_pids``: whose memory is not foreign, and their process groups'. Takes about ``timeout_s`` at most.
        """
        return {uuid: vitals.reading for uuid, vitals in self.vitals(own_pids).items()}

    def vitals(self, own_pids: Collection[int] = ()) -> dict[str, Vitals]:
        """Like ``readings``, with all that is known."""
        own = frozenset(own_pids)
        with self._lock:
            asked = [gpu for gpu in self._found if gpu.seen_by == "nvml"]
            self._last |= {gpu.uuid: _of_others(gpu) for gpu in self._found if gpu.seen_by != "nvml"}
            if asked:
                session = self._current_session()
                self._last |= self._ask(session, asked, own) if session else self._meanwhile(asked)
            return dict(self._last)

    # ------------------------------------------------------------ asking: each GPU in a thread of its own

    def _ask(self, session: Session, gpus: Sequence[Gpu], own: frozenset[int]) -> dict[str, Vitals]:
        if session.events is not None and self._listening is None:
            self._listening = _Call(partial(nvml.gather_xids, session))
        for gpu in gpus:
            if gpu.uuid not in self._looks or self._looks[gpu.uuid].is_done:
                self._looks[gpu.uuid] = _Call(partial(nvml.look, session, gpu, own))
        out = {gpu.uuid: self._answer(gpu) for gpu in gpus}
        self._plan_restart([uuid for uuid, vitals in out.items() if vitals.reading.fault])
        self._hear_xids()
        return {gpu.uuid: self._with_alarm(gpu, self._with_xid(gpu, out[gpu.uuid])) for gpu in gpus}

    def _answer(self, gpu: Gpu) -> Vitals:
        look = self._looks[gpu.uuid]
        try:
            return look.result(self._timeout_s)
        except TimeoutError:
            if look.age_s < self._silence_s and gpu.uuid in self._last:
                return self._last[gpu.uuid]
            return broken(f"no answer for {look.age_s:.0f} s: see dmesg; if it stays so, {RESET}")
        except UNREADABLE as error:
            return broken(nvml.fault(error))

    def _hear_xids(self) -> None:
        if self._listening is None:
            return
        try:
            heard = self._listening.result(self._timeout_s)
        except TimeoutError:
            return  # heard next time
        except UNREADABLE:
            heard = []  # the readings say what is wrong
        self._listening = None
        for uuid, xid in heard:
            if self._xids.get(uuid) not in FATAL_XIDS:
                self._xids[uuid] = xid

    def _with_xid(self, gpu: Gpu, vitals: Vitals) -> Vitals:
        xid = self._xids.get(gpu.parent or gpu.uuid)
        if xid is None:
            return vitals
        reading = vitals.reading
        if xid in FATAL_XIDS and not reading.fault:
            reading = reading.model_copy(update={"fault": f"Xid {xid}: {FATAL_XIDS[xid]}; {RESET}"})
        return vitals.model_copy(update={"xid": xid, "reading": reading})

    def _with_alarm(self, gpu: Gpu, vitals: Vitals) -> Vitals:
        """Memory errors that ECC could not correct make results wrong, or tasks fail, on a GPU that works on."""
        count = vitals.ecc_uncorrected
        if count is None:
            return vitals
        known = self._ecc.get(gpu.uuid)
        if known is None or count < known.count:  # what was before us is nobody's news; the driver was started anew
            known = _Ecc(count)
        elif count > known.count:
            known = _Ecc(count, count - known.count, time.monotonic())
        self._ecc[gpu.uuid] = known
        if not known.new or time.monotonic() - known.since >= self._alarm_s:
            return vitals
        alarm = (
            f"had {known.new} memory error{'s' if known.new > 1 else ''} that ECC could not correct "
            f"({count} since its driver was loaded): if more come, {RESET}"
        )
        return vitals.model_copy(update={"reading": vitals.reading.model_copy(update={"alarm": alarm})})

    def _is_inside(self) -> bool:
        """Whether a thread is inside the library."""
        calls: list[_Call[Any] | None] = [*self._looks.values(), self._listening, self._starting]
        return any(call is not None and not call.is_done for call in calls)

    # ------------------------------------------------------------ starting the driver anew

    def _plan_restart(self, faulty: Collection[str]) -> None:
        self._faulty = frozenset(faulty)
        if not faulty:
            self._retry_at, self._retry_s = None, self._first_retry_s
        elif self._retry_at is None:
            self._retry_at = time.monotonic() + self._retry_s
        elif time.monotonic() >= self._retry_at and not self._is_inside():
            self._retry_at = None
            self._retry_s = min(_LONGEST_RETRY_S, 2 * self._retry_s)
            session, self._session = self._session, None
            self._starting = _Call(partial(_start_anew, session, self._environment))

    def _current_session(self) -> Session | None:
        """The one in which GPUs can be asked; takes over what a new start has brought."""
        if self._starting is not None and self._starting.is_done:
            try:
                self._session = self._starting.result(0)
            except UNREADABLE as error:
                self.problem = nvml.explain(error, self._root)
            else:
                self.problem = ""
                for gpu in self._found:
                    if gpu.uuid in self._faulty:  # what its state is now is told anew
                        self._xids.pop(gpu.parent or gpu.uuid, None)
            self._starting = None
        return self._session

    def _meanwhile(self, gpus: Sequence[Gpu]) -> dict[str, Vitals]:
        """While the driver starts anew: what was last known. If it does not start: what is wrong."""
        trouble = self.problem
        if self._starting is not None:
            if self._starting.age_s < self._start_timeout_s:
                return {}
            trouble = f"NVIDIA's driver has not answered for {self._starting.age_s:.0f} s: see dmesg; {RESET}"
        self._plan_restart([gpu.uuid for gpu in gpus])
        return {gpu.uuid: broken(trouble) for gpu in gpus}


def _start_anew(session: Session | None, environment: Mapping[str, str]) -> Session:
    if session is not None:
        with contextlib.suppress(*UNREADABLE):  # what matters is whether it starts
            nvml.end(session)
    return nvml.start(environment)


def _of_others(gpu: Gpu) -> Vitals:
    return Vitals(reading=DeviceReading(total_mib=gpu.vram_mib or None))

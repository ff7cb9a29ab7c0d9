"""What NVML tells of NVIDIA's GPUs, in our words. Each call may never come back: lcq.gpus makes them in threads.

GPUs are known by UUID: NVML counts them in another order than CUDA does.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import psutil
import pynvml
from pydantic import Field

from lcq.models import DeviceReading, Value
from lcq.visibility import Seen, hidden

_MIB = 2**20
_LIBRARY = "libnvidia-ml.so.1"
NO_DRIVER = "no NVIDIA driver"
_UNSEEN_MIB = 512  # what the driver keeps for itself and lists under no process
_NAME_LENGTH = 128  # of a device's id

NvmlError: type[Exception] = pynvml.NVMLError
UNREADABLE = (NvmlError, OSError, ValueError)  # ValueError: names that are no UTF-8, numbers that are none

# Errors that mean the GPU or the driver is gone; any other only means that this one thing is not told.
_GONE = frozenset(
    {
        pynvml.NVML_ERROR_UNINITIALIZED,
        pynvml.NVML_ERROR_DRIVER_NOT_LOADED,
        pynvml.NVML_ERROR_GPU_IS_LOST,
        pynvml.NVML_ERROR_RESET_REQUIRED,
        pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH,
        28,  # NVML_ERROR_GPU_NOT_FOUND, which older versions of pynvml do not name
    }
)
_NO_SAMPLES = frozenset({pynvml.NVML_SUCCESS, pynvml.NVML_ERROR_NOT_FOUND})  # nothing new of any program
# Xids after which NVIDIA's catalogue asks for a reset of the GPU: nothing that runs there can be trusted.
FATAL_XIDS = {
    62: "its controller halted",
    64: "a broken row of memory could not be replaced",
    79: "it has fallen off the bus",
    95: "memory errors that could not be contained",
    119: "its system processor does not answer",
    120: "an error of its system processor",
}
RESET = "reset it (nvidia-smi --gpu-reset) or reboot, then restart the agent"
_FAULTS = {
    pynvml.NVML_ERROR_GPU_IS_LOST: f"it has fallen off the bus, or is otherwise out of reach: see dmesg; {RESET}",
    pynvml.NVML_ERROR_RESET_REQUIRED: f"it needs a reset: {RESET}",
    28: "it is no longer there",
    pynvml.NVML_ERROR_NOT_FOUND: "it is no longer there",
    pynvml.NVML_ERROR_UNINITIALIZED: "NVIDIA's driver was unloaded",
    pynvml.NVML_ERROR_DRIVER_NOT_LOADED: "NVIDIA's driver was unloaded",
}
_MISMATCH = (
    "driver/library version mismatch: NVIDIA's driver was updated and the old one still runs in the kernel; "
    "reboot, or unload and load the nvidia modules, then restart the agent"
)
_PROBLEMS = {
    pynvml.NVML_ERROR_DRIVER_NOT_LOADED: "NVIDIA's driver is installed but not loaded: see what nvidia-smi says "
    "and whether the nvidia module fits this kernel (dkms status, dmesg)",
    pynvml.NVML_ERROR_NO_PERMISSION: "no permission to use NVIDIA's driver: this user must be able to read and "
    "write /dev/nvidia* (ls -l /dev/nvidia*; a container needs --gpus)",
    pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH: _MISMATCH,
    pynvml.NVML_ERROR_FUNCTION_NOT_FOUND: f"{_LIBRARY} lacks functions that every NVIDIA driver of these years "
    "has: it is too old, or not NVIDIA's; install the driver anew",
    pynvml.NVML_ERROR_GPU_IS_LOST: f"a GPU has fallen off the bus and NVIDIA's driver does not start: {RESET}",
    pynvml.NVML_ERROR_RESET_REQUIRED: f"a GPU needs a reset before NVIDIA's driver starts: {RESET}",
    pynvml.NVML_ERROR_IRQ_ISSUE: "NVIDIA's driver gets no interrupts from a GPU: see dmesg, reboot",
    pynvml.NVML_ERROR_INSUFFICIENT_POWER: "a GPU gets too little power: check its power cables",
}
_MIG_EMPTY = "MIG is switched on, with no instance: make some (nvidia-smi mig -cgi … -C), or switch it off"
_PROHIBITED = "its compute mode is Prohibited: nvidia-smi -c DEFAULT"


class Gpu(Value):
    """A GPU, or a MIG instance of one: what does not change while it is there.

    ``number`` is nvidia-smi's (an instance has its GPU's), -1 where there is none. ``unusable`` says why it is
    not offered, empty if it is. ``environment`` binds a process to it.
    """

    uuid: str
    name: str = ""
    number: int = -1
    vram_mib: int = 0
    pci: str = ""
    parent: str = ""  # the UUID of the GPU that this MIG instance is part of
    exclusive: bool = False  # set so that only one process may use it at a time
    shared_memory: bool = False  # has none of its own: uses the machine's
    unusable: str = ""
    environment: dict[str, str] = Field(default_factory=dict)
    seen_by: Literal["nvml", "torch"] = "nvml"


class GpuProcess(Value):
    """A program on a GPU. ``used_mib`` None: the system does not tell."""

    pid: int
    used_mib: int | None = None


class Vitals(Value):
    """How a GPU is now. None: this hardware, driver or container does not tell.

    ECC counts are errors since the driver was loaded, and (``_ever``) in the GPU's life. ``xid`` is the last
    critical error that was reported while this process watched.
    """

    reading: DeviceReading
    power_limit_w: float | None = None
    ecc_corrected: int | None = None
    ecc_uncorrected: int | None = None
    ecc_corrected_ever: int | None = None
    ecc_uncorrected_ever: int | None = None
    xid: int | None = None
    processes: tuple[GpuProcess, ...] | None = None
    persistent: bool | None = None  # whether the driver keeps it awake while no program uses it


@dataclass
class Session:
    """NVML between its start and its end: handles are good only within one."""

    driver: str = ""
    cuda: str = ""
    gpus: list[Gpu] = field(default_factory=list)
    unreadable: dict[str, str] = field(default_factory=dict)  # "gpu2" -> what its driver said
    handles: dict[str, Any] = field(default_factory=dict)  # by UUID
    boards: dict[str, Any] = field(default_factory=dict)  # by UUID: the handle of the GPU that it is part of
    events: Any = None
    watched: dict[int, str] = field(default_factory=dict)  # handle -> UUID of the GPU
    sampled_us: dict[str, int] = field(default_factory=dict)  # by UUID: the newest sample of its programs' use so far


def start(environment: Mapping[str, str]) -> Session:
    """Start NVML and look at every GPU. ``environment`` is the one whose CUDA_VISIBLE_DEVICES is obeyed.

    Raises:
        NvmlError: the driver does not start; ``explain`` says why.
    """
    pynvml.nvmlInit()
    try:
        return _first_look(environment)
    except BaseException:
        pynvml.nvmlShutdown()
        raise


def _first_look(environment: Mapping[str, str]) -> Session:
    session = Session(driver=str(_told("nvmlSystemGetDriverVersion") or ""), cuda=_cuda_version())
    for number in range(pynvml.nvmlDeviceGetCount()):
        try:
            _add_board(session, number)
        except UNREADABLE as error:
            session.unreadable[f"gpu{number}"] = fault(error)
    seen = [
        Seen(gpu.uuid, gpu.name, gpu.number, gpu.pci, gpu.uuid if gpu.unusable == _MIG_EMPTY else gpu.parent)
        for gpu in session.gpus
    ]
    reasons = hidden(seen, environment, all_seen=not session.unreadable)
    session.gpus = [
        gpu.model_copy(update={"unusable": reasons[gpu.uuid]}) if gpu.uuid in reasons else gpu for gpu in session.gpus
    ]
    _watch(session)
    return session


def _add_board(session: Session, number: int) -> None:
    board = pynvml.nvmlDeviceGetHandleByIndex(number)
    gpu = _gpu(board, number)
    mode = _told("nvmlDeviceGetMigMode", board)
    if mode is None or mode[0] != 1:
        session.gpus.append(gpu)
        session.handles[gpu.uuid] = session.boards[gpu.uuid] = board
        return
    empty = True
    for place in range(_told("nvmlDeviceGetMaxMigDeviceCount", board) or 0):
        handle = _told("nvmlDeviceGetMigDeviceHandleByIndex", board, place)
        if handle is None:
            continue
        empty = False
        instance = _gpu(handle, number, board=gpu)
        session.gpus.append(instance)
        session.handles[instance.uuid], session.boards[instance.uuid] = handle, board
    if empty:
        session.gpus.append(gpu.model_copy(update={"unusable": _MIG_EMPTY}))
        session.handles[gpu.uuid] = session.boards[gpu.uuid] = board


def _watch(session: Session) -> None:
    events = _told("nvmlEventSetCreate")
    if events is None:
        return
    for gpu in session.gpus:
        board = session.boards[gpu.uuid]
        if _address(board) not in session.watched:
            session.watched[_address(board)] = gpu.parent or gpu.uuid
            with contextlib.suppress(pynvml.NVMLError):  # its next reading says what is wrong
                pynvml.nvmlDeviceRegisterEvents(board, pynvml.nvmlEventTypeXidCriticalError, events)
    session.events = events


def look(session: Session, gpu: Gpu, own_pids: Collection[int]) -> Vitals:
    """How ``gpu`` is now.

    Raises:
        NvmlError: it cannot be read; ``fault`` says why.
    """
    handle, board = session.handles.get(gpu.uuid), session.boards.get(gpu.uuid)
    if handle is None:  # NVML was started anew since it was found: one that it could not even name is still what it was
        why = session.unreadable.get(f"gpu{gpu.number}")
        return broken(why or "no longer there: taken out, or the MIG instance was removed; restart the agent")
    total, free, used = _memory(handle, shared=gpu.shared_memory)
    processes = _processes(handle)
    rates = _told("nvmlDeviceGetUtilizationRates", handle)
    power = _told("nvmlDeviceGetPowerUsage", handle)
    limit = _told("nvmlDeviceGetEnforcedPowerLimit", board)
    ecc = [
        _told("nvmlDeviceGetTotalEccErrors", board, kind, counter)
        for counter in (pynvml.NVML_VOLATILE_ECC, pynvml.NVML_AGGREGATE_ECC)
        for kind in (pynvml.NVML_MEMORY_ERROR_TYPE_CORRECTED, pynvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED)
    ]
    reading = DeviceReading(
        total_mib=total,
        free_mib=free,
        foreign_mib=None if used is None or gpu.shared_memory else foreign_mib(used, processes, own_pids),
        busy=None if rates is None else min(1.0, rates.gpu / 100),
        temperature_c=_told("nvmlDeviceGetTemperature", board, pynvml.NVML_TEMPERATURE_GPU),
        power_w=None if power is None else power / 1000,
        foreign_busy=_foreign_busy(session, gpu.uuid, handle, own_pids, is_idle=rates is None or not rates.gpu),
        slows_down_c=_told("nvmlDeviceGetTemperatureThreshold", board, pynvml.NVML_TEMPERATURE_THRESHOLD_SLOWDOWN),
        too_hot=_is_too_hot(board),
    )
    kept = _told("nvmlDeviceGetPersistenceMode", board)
    return Vitals(
        reading=reading,
        power_limit_w=None if limit is None else limit / 1000,
        ecc_corrected=ecc[0],
        ecc_uncorrected=ecc[1],
        ecc_corrected_ever=ecc[2],
        ecc_uncorrected_ever=ecc[3],
        processes=processes,
        persistent=None if kept is None else bool(kept),
    )


def _foreign_busy(
    session: Session, uuid: str, handle: Any, own_pids: Collection[int], *, is_idle: bool
) -> float | None:
    """The share of its time that programs which are not ours used it; None where that cannot be told.

    Not every system tells by program (Windows with WDDM, MIG instances, some containers), and a container may tell of
    programs by numbers that mean nothing in it. ``is_idle``: nobody uses it, as far as is known.

    Raises:
        NvmlError: the GPU or the driver is gone.
    """
    try:
        samples = pynvml.nvmlDeviceGetProcessUtilization(handle, session.sampled_us.get(uuid, 0))
    except AttributeError:
        return None
    except pynvml.NVMLError as error:
        if error.value in _GONE:
            raise
        if error.value not in _NO_SAMPLES:
            return None
        samples = []
    newest: dict[int, Any] = {}
    for one in samples:
        if one.pid not in newest or one.timeStamp > newest[one.pid].timeStamp:
            newest[one.pid] = one
    if not newest:
        return 0.0 if is_idle else None
    session.sampled_us[uuid] = max(one.timeStamp for one in newest.values())
    used = {pid: min(100, int(one.smUtil)) for pid, one in newest.items() if one.smUtil}
    foreign = {pid: percent for pid, percent in used.items() if not _is_ours(pid, own_pids)}
    if not all(psutil.pid_exists(pid) for pid in foreign):
        return None
    return min(1.0, sum(foreign.values()) / 100)


def _is_too_hot(board: Any) -> bool:
    """Whether it slows itself down for its temperature, by its hardware: what a driver does earlier is gentle.

    Raises:
        NvmlError: the GPU or the driver is gone.
    """
    reasons = _told("nvmlDeviceGetCurrentClocksEventReasons", board)
    if reasons is None:
        reasons = _told("nvmlDeviceGetCurrentClocksThrottleReasons", board)
    return bool((reasons or 0) & pynvml.nvmlClocksThrottleReasonHwThermalSlowdown)


def gather_xids(session: Session) -> list[tuple[str, int]]:
    """The critical errors since the last call: UUID of the GPU, and Xid.

    Raises:
        NvmlError: they cannot be read.
    """
    found: list[tuple[str, int]] = []
    while True:
        try:
            event = pynvml.nvmlEventSetWait_v2(session.events, 0)
        except pynvml.NVMLError_Timeout:
            return found  # no more of them
        uuid = session.watched.get(_address(event.device))
        if uuid is not None:
            found.append((uuid, int(event.eventData)))


def broken(why: str) -> Vitals:
    """The vitals of a GPU of which nothing but its fault is known."""
    return Vitals(reading=DeviceReading(fault=why))


def fault(error: Exception) -> str:
    """What is wrong with one GPU, for a person."""
    if not isinstance(error, pynvml.NVMLError):
        return f"it gave an answer that cannot be read: {error}"
    if error.value == pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH:
        return _MISMATCH
    return _FAULTS.get(error.value) or f"it cannot be read: {error} (NVML error {error.value}): see dmesg"


def explain(error: Exception, root: Path) -> str:
    """What is wrong with the driver, for a person."""
    if not isinstance(error, pynvml.NVMLError):
        return f"NVIDIA's driver gave an answer that cannot be read: {error}"
    code = error.value
    if code == pynvml.NVML_ERROR_LIBRARY_NOT_FOUND:
        return _explain_missing_library(root)
    if code == pynvml.NVML_ERROR_DRIVER_NOT_LOADED and not _nvidia_hardware(root):
        return NO_DRIVER
    return _PROBLEMS.get(code) or f"NVIDIA's driver does not start: {error} (NVML error {code}): see dmesg"


def _explain_missing_library(root: Path) -> str:
    try:
        ctypes.CDLL(_LIBRARY)  # pynvml does not tell what was wrong with it
    except OSError as error:
        if sys.platform == "linux" and "No such file" not in str(error):
            return f"{_LIBRARY} is there but cannot be loaded ({error}): install NVIDIA's driver anew"
    if (root / "proc/driver/nvidia/version").exists():
        return (
            f"the kernel runs NVIDIA's driver but {_LIBRARY} is not found: install the driver's libraries; "
            "a container needs --gpus (NVIDIA's container toolkit)"
        )
    places = _nvidia_hardware(root)
    if places:
        return f"an NVIDIA GPU is there (PCI {', '.join(places)}) but no NVIDIA driver: install it"
    return NO_DRIVER


def foreign_mib(used_mib: int, processes: Sequence[GpuProcess] | None, own_pids: Collection[int]) -> int | None:
    """How much of ``used_mib`` belongs to programs that are not ours; None if that cannot be told.

    In a container, or where the system does not account by process, the list is empty or without numbers:
    then all that is used is foreign if nothing of ours can be there, and else nobody knows.
    """
    listed = None if processes is None else [process.used_mib for process in processes]
    if listed is None or None in listed or used_mib - sum(mib or 0 for mib in listed) > _UNSEEN_MIB:
        return None if own_pids else used_mib
    return sum(process.used_mib or 0 for process in processes or () if not _is_ours(process.pid, own_pids))


def _is_ours(pid: int, own_pids: Collection[int]) -> bool:
    if pid in own_pids:
        return True
    with contextlib.suppress(AttributeError, ProcessLookupError, PermissionError):
        if os.getpgid(pid) in own_pids:  # a program that one of our runners started
            return True
    with contextlib.suppress(psutil.Error):  # or one that went into a session of its own: a warden inherits them all
        above = pid
        while own_pids and above > 1:
            above = psutil.Process(above).ppid()
            if above in own_pids:
                return True
    return False


def _told(function: str, *arguments: Any) -> Any:
    """What an NVML function answers; None where this hardware, driver or pynvml does not tell.

    Raises:
        NVMLError: the GPU or the driver is gone.
    """
    asked = getattr(pynvml, function, None)
    if asked is None:
        return None
    try:
        return asked(*arguments)
    except pynvml.NVMLError as error:
        if error.value in _GONE:
            raise
        return None


def _gpu(handle: Any, number: int, *, board: Gpu | None = None) -> Gpu:
    uuid = str(pynvml.nvmlDeviceGetUUID(handle))
    total, _, _ = _memory(handle)
    mode = _told("nvmlDeviceGetComputeMode", handle) if board is None else None
    place = _told("nvmlDeviceGetPciInfo", handle) if board is None else None
    unusable = _PROHIBITED if mode == pynvml.NVML_COMPUTEMODE_PROHIBITED else ""
    if board is not None:
        unusable = board.unusable
    if "/" in uuid or len(uuid) > _NAME_LENGTH:
        unusable = "this driver names MIG instances in an old form: install NVIDIA's driver 470 or newer"
    return Gpu(
        uuid=uuid,
        name=str(_told("nvmlDeviceGetName", handle) or ""),
        number=number,
        vram_mib=psutil.virtual_memory().total // _MIB if total is None else total,
        pci=board.pci if board is not None else _text(place.busId) if place is not None else "",
        parent=board.uuid if board is not None else "",
        exclusive=mode == pynvml.NVML_COMPUTEMODE_EXCLUSIVE_PROCESS or (board is not None and board.exclusive),
        shared_memory=total is None,
        unusable=unusable,
        environment={"CUDA_VISIBLE_DEVICES": uuid},
    )


def _memory(handle: Any, *, shared: bool = False) -> tuple[int | None, int | None, int | None]:
    """Total, free and used by programs, in MiB. None: it has no memory of its own (``shared``: the machine's).

    Raises:
        NVMLError: it cannot be read.
    """
    if shared:
        memory = psutil.virtual_memory()
        return memory.total // _MIB, memory.available // _MIB, (memory.total - memory.available) // _MIB
    try:
        # The second version tells the driver's own share apart from that of programs.
        memory = pynvml.nvmlDeviceGetMemoryInfo(handle, version=pynvml.nvmlMemory_v2)
    except pynvml.NVMLError as error:
        if error.value in _GONE:
            raise
        try:
            memory = pynvml.nvmlDeviceGetMemoryInfo(handle)
        except pynvml.NVMLError_NotSupported:
            return None, None, None
    return memory.total // _MIB, memory.free // _MIB, memory.used // _MIB


def _processes(handle: Any) -> tuple[GpuProcess, ...] | None:
    """The programs that use it; None if the system does not tell."""
    lists = [
        _told("nvmlDeviceGetComputeRunningProcesses", handle),
        _told("nvmlDeviceGetGraphicsRunningProcesses", handle),
    ]
    if lists[0] is None:
        return None
    used: dict[int, int | None] = {}
    for one in lists[0] + (lists[1] or []):  # a program that computes and draws is in both
        mib = None if one.usedGpuMemory is None else int(one.usedGpuMemory) // _MIB
        before = used.get(one.pid)
        used[one.pid] = mib if before is None else max(before, mib or 0)
    return tuple(GpuProcess(pid=pid, used_mib=mib) for pid, mib in used.items())


def _cuda_version() -> str:
    version = _told("nvmlSystemGetCudaDriverVersion_v2") or 0
    return f"{version // 1000}.{version % 1000 // 10}" if version else ""


def end(session: Session) -> None:
    """Let go of NVML.

    Raises:
        NvmlError: it does not want to.
    """
    if session.events is not None:
        _told("nvmlEventSetFree", session.events)
    pynvml.nvmlShutdown()


def _address(handle: Any) -> int:
    return ctypes.cast(handle, ctypes.c_void_p).value or 0


def _text(value: str | bytes) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else value


def _nvidia_hardware(root: Path) -> list[str]:
    """Where on the PCI bus NVIDIA's display adapters and accelerators sit, as Linux tells it."""
    places = []
    for device in sorted((root / "sys/bus/pci/devices").glob("*")):
        try:
            vendor, kind = ((device / name).read_text().strip() for name in ("vendor", "class"))
        except OSError:
            continue
        if vendor == "0x10de" and kind.startswith(("0x03", "0x12")):
            places.append(device.name)
    return places

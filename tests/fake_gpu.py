"""GPUs that are not there: a libnvidia-ml.so.1 of our own for child processes, which obeys a file as they run.

gpus = FakeGpus(tmp_path)                                  # builds the library; skips the test without gcc
gpus.set([FakeGpu("GPU-a…", free_mib=3000), …])            # NVML's order is the list's
subprocess.run(command, env=os.environ | gpus.environment)   # loads it through the real nvidia-ml-py
gpus.set([replace(gpu, free_mib=500)])                     # seen at the child's next look
gpus.set([replace(gpu, error=GPU_IS_LOST)])                # it fell off the bus
gpus.set([replace(gpu, hangs=("nvmlDeviceGetMemoryInfo_v2",))])   # does not return while this holds
gpus.set([], init=DRIVER_NOT_LOADED)
"""

from __future__ import annotations

import atexit
import functools
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

_SOURCE = Path(__file__).parent / "fake_nvml" / "nvml.c"

NOT_SUPPORTED, NO_PERMISSION, DRIVER_NOT_LOADED, GPU_IS_LOST, VERSION_MISMATCH = 3, 4, 9, 15, 18


@dataclass(frozen=True)
class FakeMig:
    """One MIG instance of a GPU. ``processes``: pid -> MiB."""

    uuid: str
    name: str = "NVIDIA A100-SXM4-40GB MIG 1g.5gb"
    total_mib: int = 4864
    free_mib: int = 4800
    processes: Mapping[int, int | None] = field(default_factory=dict)


@dataclass(frozen=True)
class FakeGpu:
    """One GPU. None: this hardware does not tell. ``processes``, ``graphics``: pid -> MiB (None: not told)."""

    uuid: str
    name: str = "NVIDIA GeForce RTX 3080"
    total_mib: int = 10240
    free_mib: int = 10000
    reserved_mib: int | None = 200  # of the driver; None: a driver that knows only the old memory call
    bus: str = "0000:01:00"
    busy: int | None = 0  # percent
    temperature: int | None = 40
    power_w: float | None = 60.0
    power_limit_w: float | None = 320.0
    ecc: tuple[int, int, int, int] | None = None  # volatile corrected, uncorrected, aggregate corrected, uncorrected
    persistent: int | None = None  # whether the driver keeps it awake; None: not told
    compute_mode: int = 0  # 2: prohibited, 3: exclusive process
    mig: tuple[FakeMig, ...] | None = None  # () is MIG switched on, with no instance
    processes: Mapping[int, int | None] = field(default_factory=dict)
    graphics: Mapping[int, int | None] = field(default_factory=dict)
    uses: Mapping[int, int] | None = None  # pid -> percent of its time; None: not told by program
    slowdown_c: int | None = None  # the temperature at which it slows itself down
    reasons: int | None = None  # why its clocks are low, as NVML's bits: 64 is too hot, by its hardware
    xids: tuple[int, ...] = ()  # what was added since a process began to watch is told to it
    error: int = 0  # of every call about this GPU
    fails: Mapping[str, int] = field(default_factory=dict)  # function -> NVML error code
    hangs: tuple[str, ...] = ()  # functions that do not return


class FakeGpus:
    """The GPUs of a machine that a test makes up. ``folder`` is where their state is kept."""

    def __init__(self, folder: Path) -> None:
        self._library = _library()
        self._state = folder / "fake-nvml.state"
        self.set(())

    @property
    def environment(self) -> dict[str, str]:
        """What a child process needs to see them, on top of ``os.environ``."""
        return {
            "LD_LIBRARY_PATH": os.pathsep.join(filter(None, [str(self._library), os.environ.get("LD_LIBRARY_PATH")])),
            "FAKE_NVML_STATE": str(self._state),
        }

    def set(
        self,
        gpus: Iterable[FakeGpu] = (),
        *,
        init: int = 0,
        driver: str = "550.54.14",
        cuda: int = 12040,
        generation: int = 0,
        fails: Mapping[str, int] | None = None,
        hangs: Iterable[str] = (),
    ) -> None:
        """From now on the machine has these. A new ``generation`` is a driver that was reset."""
        lines = [f"init {init}", f"driver {driver}", f"cuda {cuda}", f"generation {generation}"]
        lines += _rules(fails or {}, hangs)
        for gpu in gpus:
            lines += _gpu_lines(gpu)
        written = self._state.with_suffix(".new")
        written.write_text("\n".join(lines) + "\n", encoding="utf-8")
        written.replace(self._state)  # whoever reads it reads all of it


def build_library(source: str, folder: Path) -> Path:
    """A libnvidia-ml.so.1 from C ``source`` in ``folder``, which is for LD_LIBRARY_PATH. Skips without gcc."""
    if shutil.which("gcc") is None:
        pytest.skip("gcc is not installed, the stand-in for NVIDIA's library cannot be built")
    library = folder / "libnvidia-ml.so.1"
    command = ["gcc", "-shared", "-fPIC", "-O1", "-Wall", "-Wextra", "-Werror", "-pthread", "-o", str(library)]
    subprocess.run([*command, "-x", "c", "-"], input=source, text=True, check=True)
    return folder


@functools.cache
def _library() -> Path:
    kept = tempfile.TemporaryDirectory(prefix="lcq-fake-nvml-")
    atexit.register(kept.cleanup)
    return build_library(_SOURCE.read_text(encoding="utf-8"), Path(kept.name))


def _gpu_lines(gpu: FakeGpu) -> list[str]:
    numbers = {
        "total": gpu.total_mib,
        "free": gpu.free_mib,
        "reserved": gpu.reserved_mib,
        "busy": gpu.busy,
        "temperature": gpu.temperature,
        "power": None if gpu.power_w is None else round(gpu.power_w * 1000),
        "limit": None if gpu.power_limit_w is None else round(gpu.power_limit_w * 1000),
        "compute_mode": gpu.compute_mode,
        "mig_mode": None if gpu.mig is None else 1,
        "slowdown": gpu.slowdown_c,
        "reasons": gpu.reasons,
        "persistent": gpu.persistent,
        "error": gpu.error,
    }
    lines = ["gpu", f"uuid {gpu.uuid}", f"name {gpu.name}", f"bus {gpu.bus}"]
    lines += [f"{key} {number}" for key, number in numbers.items() if number is not None]
    if gpu.ecc is not None:
        lines.append("ecc " + " ".join(str(count) for count in gpu.ecc))
    lines += _process_lines("process", gpu.processes) + _process_lines("graphics", gpu.graphics)
    if gpu.uses is not None:
        lines += ["uses", *(f"use {pid} {percent}" for pid, percent in gpu.uses.items())]
    lines += [f"xid {xid}" for xid in gpu.xids]
    lines += _rules(gpu.fails, gpu.hangs)
    for instance in gpu.mig or ():
        lines += ["mig", f"uuid {instance.uuid}", f"name {instance.name}", "reserved 0"]
        lines += [f"total {instance.total_mib}", f"free {instance.free_mib}"]
        lines += _process_lines("process", instance.processes)
    return lines


def _process_lines(kind: str, processes: Mapping[int, int | None]) -> list[str]:
    return [f"{kind} {pid} {-1 if mib is None else mib}" for pid, mib in processes.items()]


def _rules(fails: Mapping[str, int], hangs: Iterable[str]) -> list[str]:
    return [f"fail {name} {code}" for name, code in fails.items()] + [f"hang {name}" for name in hangs]

"""What is to be said of the GPUs of this host, their driver, and the torch that is to use them."""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.util
import re
from collections.abc import Iterator
from pathlib import Path

import psutil

from lcq.doctor.findings import Finding, Level, finding
from lcq.gpus import Gpu, Gpus, Vitals
from lcq.lang import N

_PATIENCE_S = 5.0
_MUCH = 0.25  # of a GPU's memory, held by programs that are not ours
_RUNNER = "worker.runner"


def gpus(where: str, *, root: Path = Path("/")) -> Iterator[Finding]:
    """All there is to say. Takes seconds where a driver has to wake its GPUs. ``root``: where /dev is found."""
    with Gpus(timeout_s=_PATIENCE_S) as there:
        if there.is_absent:
            yield finding("gpu_none", Level.OK, where, N("no GPU: the CPU does the work"))
            return
        vitals = there.vitals(_runners())
        found = list(_of_driver(there, where, root))
        for gpu in there.found():
            found += _of_gpu(gpu, vitals.get(gpu.uuid), where)
        nvidia = [gpu for gpu in there.found() if gpu.seen_by == "nvml"]
        if nvidia:
            found += _of_torch(there.cuda, where)
        yield from found
        if not any(one.level >= Level.WARNING for one in found):
            names = ", ".join(dict.fromkeys(gpu.name for gpu in there.found()))
            yield finding(
                "gpu_ok",
                Level.OK,
                where,
                N("{count} x {names}, driver {driver}, CUDA {cuda}"),
                count=len(there.found()),
                names=names,
                driver=there.driver or "-",
                cuda=there.cuda or "-",
            )


def _runners() -> list[int]:
    """The processes of this host that are runners of an agent: what they hold is not foreign."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if _RUNNER in process.cmdline():
                found.append(process.pid)
    return found


def _of_driver(there: Gpus, where: str, root: Path) -> Iterator[Finding]:
    if there.problem:
        yield finding("gpu_driver", Level.PROBLEM, where, "{problem}", problem=there.problem)
        return
    for name, why in there.unreadable.items():
        yield finding("gpu_fault", Level.PROBLEM, where, "{name}: {why}", name=name, why=why)
    dev = root / "dev"
    if (dev / "nvidiactl").exists() and not (dev / "nvidia-uvm").exists():
        yield finding(
            "gpu_no_unified_memory",
            Level.WARNING,
            where,
            N("/dev/nvidia-uvm is not there: CUDA finds no device for who may not make it"),
            fix=N("sudo nvidia-modprobe -c=0 -u, and systemctl enable --now nvidia-persistenced"),
        )


def _of_gpu(gpu: Gpu, vitals: Vitals | None, where: str) -> Iterator[Finding]:
    name = f"gpu{gpu.number}" if gpu.number >= 0 else gpu.uuid
    facts = {"name": name, "model": gpu.name}
    if gpu.unusable:
        yield finding("gpu_fault", Level.WARNING, where, "{name} ({model}): {why}", why=gpu.unusable, **facts)
    if vitals is None:
        return
    reading = vitals.reading
    if reading.fault:
        yield finding("gpu_fault", Level.PROBLEM, where, "{name} ({model}): {why}", why=reading.fault, **facts)
        return
    if vitals.ecc_uncorrected:
        yield finding(
            "gpu_errors",
            Level.WARNING,
            where,
            N(
                "{name} ({model}): {count} memory errors that ECC could not correct since its driver was loaded: "
                "results may be wrong"
            ),
            fix=N("nvidia-smi -q -d ECC,PAGE_RETIREMENT,ROW_REMAPPER; reset it; if more come, it is to be replaced"),
            count=vitals.ecc_uncorrected,
            **facts,
        )
    if vitals.xid is not None:
        yield finding(
            "gpu_errors",
            Level.WARNING,
            where,
            N("{name} ({model}): Xid {xid}, while we looked"),
            fix=N("dmesg | grep Xid; NVIDIA's catalogue of Xid errors says what each means"),
            xid=vitals.xid,
            **facts,
        )
    foreign, total = reading.foreign_mib, reading.total_mib or gpu.vram_mib
    if foreign is not None and total and foreign > _MUCH * total:
        yield finding(
            "gpu_taken",
            Level.WARNING,
            where,
            N(
                "{name} ({model}): programs that are not LCQ's hold {foreign:,} of {total:,} MiB: what fits "
                "there is less"
            ),
            fix=N("nvidia-smi shows which; agent.busy_elsewhere keeps tasks away while they work"),
            foreign=foreign,
            total=total,
            **facts,
        )
    if vitals.persistent is False:
        yield finding(
            "gpu_not_persistent",
            Level.NOTE,
            where,
            N("{name} ({model}): persistence mode is off: the driver wakes it anew for the first program, for seconds"),
            fix="sudo systemctl enable --now nvidia-persistenced",
            **facts,
        )


def _of_torch(driver_cuda: str, where: str) -> Iterator[Finding]:
    """Whether the torch that is installed fits the driver. It is not loaded: that takes seconds."""
    installed, built_for = torch_build()
    if not installed:
        yield finding(
            "gpu_no_torch",
            Level.NOTE,
            where,
            N("torch is not installed: models that need it (lama) are not offered here"),
            fix="pip install 'lcq[torch]'",
        )
    elif not built_for:
        yield finding(
            "gpu_torch_for_cpu",
            Level.WARNING,
            where,
            N("torch {torch} is built for CPUs alone: it does not see the GPU"),
            fix=N("pip install --force-reinstall torch, with the build for CUDA {cuda} (pytorch.org names its index)"),
            torch=installed,
            cuda=driver_cuda or "12",
        )
    elif driver_cuda and _numbers(built_for)[:1] > _numbers(driver_cuda)[:1]:
        yield finding(
            "gpu_torch_too_new",
            Level.PROBLEM,
            where,
            N("torch {torch} is built for CUDA {built}, the driver knows CUDA up to {cuda}: it finds no GPU"),
            fix=N("install a newer driver, or a torch that is built for CUDA {cuda}"),
            torch=installed,
            built=built_for,
            cuda=driver_cuda,
        )


def torch_build() -> tuple[str, str]:
    """The version of torch that is installed, and the CUDA it is built for; "" where there is none."""
    try:
        version = importlib.metadata.version("torch")
        spec = importlib.util.find_spec("torch")
    except (importlib.metadata.PackageNotFoundError, ValueError):
        return "", ""
    if spec is None or not spec.origin:
        return "", ""
    try:
        text = Path(spec.origin).with_name("version.py").read_text(encoding="utf-8")
    except OSError:
        return version, ""
    said = re.search(r"^cuda\b[^=]*=\s*'([0-9.]+)'", text, re.MULTILINE)
    return version, said[1] if said else ""


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part.isdigit())

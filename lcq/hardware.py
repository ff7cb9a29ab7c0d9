"""What this machine has for work: cores, memory, devices; as much as this process may really use."""

from __future__ import annotations

import math
import os
import re
import socket
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath

import psutil

from lcq.models import Device, DeviceKind

_MIB = 2**20
_ROOT = Path("/")


def usable_cores(*, root: Path = _ROOT) -> int:
    """How many cores this process may use: its CPU affinity, and no more than its cgroup's quota. At least 1.

    ``root`` is where /proc and /sys are found.
    """
    try:
        allowed = len(os.sched_getaffinity(0))
    except AttributeError:  # not on this system
        allowed = os.cpu_count() or 1
    quotas = _limits(root, "cpu", _cpu_quota)
    return max(1, min([allowed, *(math.floor(quota) for quota in quotas)]))


def usable_memory_mib(*, root: Path = _ROOT) -> int:
    """How much memory this process may use, in MiB: the machine's, and no more than its cgroup's limit."""
    return int(min([psutil.virtual_memory().total, *_limits(root, "memory", _memory_limit)])) // _MIB


def host_name() -> str:
    """This host's name, in the form that a node's name may have."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", socket.gethostname().partition(".")[0]).lstrip("._-")[:60]
    return name or "node"


def detect_devices(*, cpu_slots: int | None = None) -> tuple[Device, ...]:
    """The devices of this machine. ``cpu_slots``: attempts at a time on the CPU; default: half its cores."""
    cores = usable_cores()
    cpu = Device(
        id="cpu",
        kind=DeviceKind.CPU,
        name=_cpu_name(),
        slots=cpu_slots or max(1, cores // 2),
        cores=cores,
        memory_mib=usable_memory_mib(),
    )
    return (cpu,)


def _cpu_name() -> str:
    try:
        info = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    model = re.search(r"^model name\s*:\s*(.+)$", info, re.MULTILINE)
    return " ".join(model[1].split()) if model else ""


# ---------------------------------------------------------------- cgroups


def _limits(root: Path, controller: str, read: Callable[[Path], float | None]) -> Iterator[float]:
    """What ``read`` finds in this process's cgroup of ``controller`` and in those above it."""
    for folder in _cgroup_folders(root, controller):
        limit = read(folder)
        if limit is not None:
            yield limit


def _cgroup_folders(root: Path, controller: str) -> Iterator[Path]:
    paths = _own_cgroups(root)
    for mount_point, kind, options in _cgroup_mounts(root):
        path = paths.get("") if kind == "cgroup2" else paths.get(controller) if controller in options else None
        if path is None:
            continue
        # In a container the path may be the host's: what is not there is passed over, up to the mount itself.
        inside = PurePosixPath(path.lstrip("/"))
        for part in (inside, *inside.parents):
            yield root / mount_point.lstrip("/") / part


def _own_cgroups(root: Path) -> dict[str, str]:
    """Controller -> this process's path; "" is the path in the one tree of cgroup v2."""
    paths: dict[str, str] = {}
    for line in _lines(root / "proc/self/cgroup"):
        parts = line.split(":", 2)
        if len(parts) == 3:
            for controller in parts[1].split(","):
                paths[controller] = parts[2]
    return paths


def _cgroup_mounts(root: Path) -> Iterator[tuple[str, str, frozenset[str]]]:
    """Mount point, file system (cgroup or cgroup2) and options of each mounted cgroup tree."""
    for line in _lines(root / "proc/self/mountinfo"):
        before, _, after = line.partition(" - ")
        fields, kind = before.split(), after.split()
        if len(fields) > 4 and len(kind) > 2 and kind[0] in ("cgroup", "cgroup2"):
            yield fields[4], kind[0], frozenset(kind[2].split(","))


def _cpu_quota(folder: Path) -> float | None:
    both = _words(folder / "cpu.max")  # v2: "quota period", or "max period"
    if len(both) != 2:
        both = _words(folder / "cpu.cfs_quota_us") + _words(folder / "cpu.cfs_period_us")
    if len(both) != 2 or both[0] in ("max", "-1") or not all(word.isdigit() for word in both):
        return None
    return int(both[0]) / int(both[1]) if int(both[1]) else None


def _memory_limit(folder: Path) -> float | None:
    words = _words(folder / "memory.max") or _words(folder / "memory.limit_in_bytes")
    return float(words[0]) if words and words[0].isdigit() else None


def _words(file: Path) -> list[str]:
    return " ".join(_lines(file)).split()


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []

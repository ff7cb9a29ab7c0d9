"""What this machine has for work: cores, memory, devices; as much as this process may really use."""

from __future__ import annotations

import math
import os
import platform
import re
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import psutil

from lcq.config import AgentConfig, DeviceConfig
from lcq.errors import InvalidConfig
from lcq.gpus import Gpus
from lcq.models import Device, DeviceKind, Prewarm, Value

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


# ---------------------------------------------------------------- CPU, memory, disk


class Cpu(Value):
    """The processors of this machine, and how much of them this process may use."""

    name: str = ""
    physical_cores: int | None = None  # None: the system does not tell
    logical_cores: int = 1
    usable_cores: int = 1
    flags: tuple[str, ...] = ()  # of those that make inpainting faster, the ones it has


class Memory(Value):
    """The machine's memory, and what this process may still take of it, in MiB."""

    total_mib: int
    usable_mib: int  # no more than the cgroup's limit
    available_mib: int  # without making others swap, or breaking the cgroup's limit


class Disk(Value):
    """The disk that a folder is on."""

    folder: str
    total_mib: int
    free_mib: int  # for this user


_FLAGS = (
    "sse4_2", "avx", "avx2", "fma", "f16c", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16", "avx512_fp16",
    "amx_tile", "amx_bf16", "amx_int8", "neon", "bf16", "i8mm", "sve", "sve2",
)  # fmt: skip
_ARM_NAMES = {"asimd": "neon", "svebf16": "bf16"}  # as Linux has them


def cpu(*, root: Path = _ROOT) -> Cpu:
    """The processors of this machine. ``root`` is where /proc and /sys are found."""
    name, flags = _cpu_name_and_flags(root)
    return Cpu(
        name=name,
        physical_cores=psutil.cpu_count(logical=False),
        logical_cores=psutil.cpu_count() or 1,
        usable_cores=usable_cores(root=root),
        flags=tuple(flag for flag in _FLAGS if flag in flags),
    )


def memory(*, root: Path = _ROOT) -> Memory:
    """The memory of this machine. ``root`` is where /proc and /sys are found."""
    machine = psutil.virtual_memory()
    left = [machine.available, *_limits(root, "memory", _memory_left)]
    return Memory(
        total_mib=machine.total // _MIB,
        usable_mib=usable_memory_mib(root=root),
        available_mib=max(0, int(min(left))) // _MIB,
    )


def disk(folder: Path) -> Disk:
    """The disk that ``folder`` is on, or will be once it has been made."""
    there = next(place for place in (folder.absolute(), *folder.absolute().parents) if place.exists())
    usage = psutil.disk_usage(str(there))
    return Disk(folder=str(folder), total_mib=usage.total // _MIB, free_mib=usage.free // _MIB)


def _cpu_name_and_flags(root: Path) -> tuple[str, frozenset[str]]:
    if sys.platform == "darwin":
        return _sysctl("machdep.cpu.brand_string"), _mac_flags()
    facts: dict[str, str] = {}
    for line in _lines(root / "proc/cpuinfo"):
        key, _, value = line.partition(":")
        facts.setdefault(key.strip().lower(), value.strip())
    name = facts.get("model name", facts.get("hardware", "")) or platform.processor()
    words = facts.get("flags", facts.get("features", "")).split()
    return " ".join(name.split()), frozenset(_ARM_NAMES.get(word, word) for word in words)


def _mac_flags() -> frozenset[str]:
    if platform.machine() == "arm64":
        return frozenset({"neon"})
    words = f"{_sysctl('machdep.cpu.features')} {_sysctl('machdep.cpu.leaf7_features')}".lower()
    return frozenset({"avx" if word == "avx1.0" else word.replace("sse4.2", "sse4_2") for word in words.split()})


def _sysctl(name: str) -> str:
    try:
        run = subprocess.run(["/usr/sbin/sysctl", "-n", name], capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return ""
    return run.stdout.strip()


# ---------------------------------------------------------------- devices

_SLOT_MIB = 1000  # of the machine's memory for one attempt on the CPU
GPU_NEED_MIB = 4000
"""Memory of a GPU that one attempt is taken to need where nothing is known of its model."""
_MOST_GPU_SLOTS = 4  # more of them wait for one another


@dataclass(frozen=True)
class Detected:
    """What this machine has for work.

    ``left_out``: what is not offered, by device (or "gpu" where it is the driver), and why. ``environments``: by
    device, the variables that bind a process to it and keep it off the others.
    """

    devices: tuple[Device, ...]
    left_out: Mapping[str, str]
    environments: Mapping[str, Mapping[str, str]]


def cpu_slots(cores: int, memory_mib: int) -> int:
    """Attempts at a time on a CPU: half its cores, and no more than its memory carries."""
    return max(1, min(cores // 2, memory_mib // _SLOT_MIB))


def gpu_slots(vram_mib: int, need_mib: int, cores_share: int) -> int:
    """Attempts at a time on a GPU of ``vram_mib``, of which a model takes ``need_mib``.

    ``cores_share``: the cores that are there to feed it.
    """
    return max(1, min(_MOST_GPU_SLOTS, vram_mib // max(1, need_mib), cores_share))


def detect_devices(config: AgentConfig, gpus: Gpus, *, need_mib: int = GPU_NEED_MIB) -> Detected:
    """The devices of this machine, as far as their owner's settings (``agent.devices``) offer them.

    ``need_mib``: memory that one attempt on a GPU needs; a GPU has as many slots as that leaves room for.

    Raises:
        InvalidConfig: ``agent.devices`` names one that is not here, or several by one name.
    """
    found = gpus.found()
    wishes, missing = _wishes(config, gpus)
    cores, memory_mib = usable_cores(), usable_memory_mib()
    devices: list[Device] = []
    left_out = dict(missing)
    if gpus.problem and not gpus.is_absent:
        left_out["gpu"] = gpus.problem
    left_out |= gpus.unreadable
    environments: dict[str, Mapping[str, str]] = {"cpu": {"CUDA_VISIBLE_DEVICES": "", "HIP_VISIBLE_DEVICES": "-1"}}

    usable = [gpu for gpu in found if not gpu.unusable and wishes[gpu.uuid].enabled]
    cores_share = max(1, cores // max(1, len(usable)))
    for gpu in found:
        wish = wishes[gpu.uuid]
        if gpu.unusable or not wish.enabled:
            left_out[gpu.uuid] = gpu.unusable or _SWITCHED_OFF
            continue
        slots = 1 if gpu.exclusive else wish.slots or gpu_slots(gpu.vram_mib, need_mib, cores_share)
        devices.append(
            Device(
                id=gpu.uuid,
                kind=DeviceKind.GPU,
                name=gpu.name,
                slots=slots,
                cores=cores_share,
                memory_mib=memory_mib,
                vram_mib=gpu.vram_mib,
                queues=wish.queues,
            )
        )
        environments[gpu.uuid] = gpu.environment
    wish = wishes["cpu"]
    if wish.enabled:
        slots = wish.slots or config.slots or cpu_slots(cores, memory_mib)
        name, _ = _cpu_name_and_flags(_ROOT)
        cpu = Device(
            id="cpu",
            kind=DeviceKind.CPU,
            name=name,
            slots=slots,
            cores=cores,
            memory_mib=memory_mib,
            queues=wish.queues,
        )
        devices.insert(0, cpu)
    else:
        left_out["cpu"] = _SWITCHED_OFF
    for name, function in config.functions.items():
        if function.lack:
            left_out[name] = function.lack
            continue
        slots = function.concurrency
        devices.append(
            Device(
                id=name,
                kind=DeviceKind.SERVERLESS,
                name=function.kind,
                slots=slots,
                worst_price=function.worst_price,
                prewarm=Prewarm(**function.prewarm.model_dump()) if function.prewarm.instances else None,
                price_s=function.price_s,
                price_call=function.price_call,
                endpoint=function.shown_url,
            )
        )
        environments[name] = environments["cpu"]
    return Detected(tuple(devices), left_out, environments)


_SWITCHED_OFF = "switched off by agent.devices (enabled: false)"


def _wishes(config: AgentConfig, gpus: Gpus) -> tuple[dict[str, DeviceConfig], dict[str, str]]:
    """What is wanted of each device, and the names of those that should be here and, broken, are not.

    Raises:
        InvalidConfig: a name fits no device, or several.
    """
    found = gpus.found()
    layers: dict[str, list[str]] = {"cpu": ["cpu"]}  # device -> the names that fit it, the most exact last
    layers |= {gpu.uuid: ["gpu", f"gpu{gpu.number}"] for gpu in found}
    missing: dict[str, str] = {}
    for name in sorted(config.devices, key=len):
        if name in ("cpu", "gpu") or any(name in names for names in layers.values()):
            continue
        fitting = {gpu.uuid for gpu in found if gpu.uuid.startswith(name)}
        if not fitting:  # of a GPU with MIG its instances are meant
            fitting = {gpu.uuid for gpu in found if gpu.parent.startswith(name)}
            several = len({gpu.parent for gpu in found if gpu.uuid in fitting}) > 1
        else:
            several = len(fitting) > 1
        if not name or several:
            raise InvalidConfig(
                f"agent.devices: {name!r} fits {len(fitting)} devices: {', '.join(sorted(fitting))}",
                hint="write more of the UUID",
            )
        trouble = gpus.problem or "; ".join(f"{one}: {why}" for one, why in gpus.unreadable.items())
        if not fitting and trouble and not gpus.is_absent and re.match(r"gpu\d+$|GPU-|MIG-", name):
            missing[name] = f"agent.devices names it, and it is not found: {trouble}"
        elif not fitting:
            known = ["cpu", *(f"gpu{gpu.number} ({gpu.uuid})" if gpu.number >= 0 else gpu.uuid for gpu in found)]
            raise InvalidConfig(
                f"agent.devices: there is no device {name!r} here; there is {', '.join(known)}"
                + (f" ({gpus.problem})" if gpus.problem else ""),
                hint="lcq-agent probe lists what this host has",
            )
        for uuid in fitting:
            layers[uuid].append(name)
    return {device: _laid_over(config, names) for device, names in layers.items()}, missing


def _laid_over(config: AgentConfig, names: Sequence[str]) -> DeviceConfig:
    """What is said under ``names``, the later ones over the earlier, key by key."""
    said: dict[str, Any] = {}
    for name in names:
        wish = config.devices.get(name)
        if wish is not None:
            said |= wish.model_dump(exclude_unset=True)
    return DeviceConfig(**said)


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


def _memory_left(folder: Path) -> float | None:
    """What may still be taken below the limit, if there is one. Cached files that nobody uses give way."""
    limit = _memory_limit(folder)
    used = _words(folder / "memory.current") or _words(folder / "memory.usage_in_bytes")
    if limit is None or not used or not used[0].isdigit():
        return limit
    idle = 0
    for line in _lines(folder / "memory.stat"):
        key, _, value = line.partition(" ")
        if key in ("inactive_file", "total_inactive_file") and value.strip().isdigit():
            idle = max(idle, int(value))
    return limit - int(used[0]) + idle


def _words(file: Path) -> list[str]:
    return " ".join(_lines(file)).split()


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []

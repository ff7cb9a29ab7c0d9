"""The slots of this node's devices, and the ground that each runner stands on."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from lcq.config import DistributedConfig
from lcq.costs import KNOWN_MODELS
from lcq.hardware import GPU_NEED_MIB, Detected
from lcq.models import Device, DeviceKind
from worker.confinement import environment_for, runner_user, terms_of
from worker.settings import EngineSettings

_THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OPENCV_FOR_THREADS_NUM")

# The part of a device's memory that loaded models may keep; pictures, and what is computed on them, have the rest.
_MODELS_PART = {DeviceKind.GPU: 0.5, DeviceKind.CPU: 0.25}


@dataclass(frozen=True)
class SlotPlan:
    """Room for one attempt on a device: the environment that pins a runner to it, what the runner is told, and what it
    is kept from (``worker.warden.confine``)."""

    name: str  # "cpu/0"
    device: str
    environment: Mapping[str, str]
    settings: EngineSettings = field(default_factory=EngineSettings)
    is_first: bool = True  # of its device: the one whose runner tests it
    terms: str = ""


def gpu_need_mib(config: DistributedConfig) -> int:
    """Memory of a GPU that the neediest model which this host may offer takes, by what is known of it by name."""
    names = config.agent.models
    if names is None:
        with contextlib.suppress(OSError):
            names = tuple(entry.name for entry in config.models_path.iterdir() if entry.is_dir())
        names = (*(names or ()), *config.iopaint.models)
    facts = [KNOWN_MODELS.get(name) for name in names]
    return max(
        (fact.vram_mib if fact else GPU_NEED_MIB for fact in facts if fact is None or DeviceKind.GPU in fact.kinds),
        default=GPU_NEED_MIB,
    )


def plan_slots(found: Detected, config: DistributedConfig, *, cores: int) -> tuple[SlotPlan, ...]:
    """The slots of the devices ``found``, which share ``cores``.

    Raises:
        InvalidConfig: runners cannot be kept from what they are to be kept from.
    """
    threads = _threads(found.devices, cores)
    user = runner_user(config.agent.runner)
    home = {"HOME": user.home} if user is not None else {}
    terms, inherited = {}, {}
    for kind in {device.kind for device in found.devices}:
        calls = kind is DeviceKind.SERVERLESS
        terms[kind] = terms_of(config, calls_functions=calls)
        inherited[kind] = environment_for(config.agent.runner, os.environ, calls_functions=calls) | home
    return tuple(
        SlotPlan(
            name=f"{device.id}/{number}",
            device=device.id,
            environment=_environment(inherited[device.kind], found.environments[device.id], threads[device.id, number]),
            settings=EngineSettings(
                device=device,
                threads=threads[device.id, number],
                memory_mib=_model_memory(device, config),
                models_path=config.models_path.absolute(),
                roots=config.storage.roots,
                models=config.models,
                iopaint=config.iopaint,
                function=config.agent.functions.get(device.id),
                storage_options=config.storage.options if device.kind is DeviceKind.SERVERLESS else {},
            ),
            is_first=number == 0,
            terms=terms[device.kind],
        )
        for device in found.devices
        for number in range(device.slots)
    )


def _threads(devices: Sequence[Device], cores: int) -> dict[tuple[str, int], int]:
    """Threads of each slot, so that all at work use each core once: more than that makes every one slower.

    Where there is a CPU to serve, a GPU's slot is left one core to feed it, and the CPU's slots share the others.
    """
    slots = [(device, number) for device in devices for number in range(device.slots)]
    on_cpu = [(device.id, number) for device, number in slots if device.kind is DeviceKind.CPU]
    shared = on_cpu or [(device.id, number) for device, number in slots]
    free = max(0, cores - (len(slots) - len(shared)))
    threads = {(device.id, number): 1 for device, number in slots}
    for place, slot in enumerate(shared):
        threads[slot] = max(1, free // len(shared) + (place < free % len(shared)))
    return threads


def _model_memory(device: Device, config: DistributedConfig) -> int:
    if config.agent.model_memory_mib is not None:
        return config.agent.model_memory_mib
    has = device.vram_mib if device.kind is DeviceKind.GPU else device.memory_mib
    return int(has * _MODELS_PART.get(device.kind, 0.0)) // device.slots


def _environment(inherited: Mapping[str, str], binding: Mapping[str, str], threads: int) -> dict[str, str]:
    """A runner's environment: what it may have of ours (it is told what it needs), bound to its device."""
    environment = dict(inherited)
    # The same modules as ours, and nothing from the folder that the agent happened to be started in.
    environment["PYTHONPATH"] = os.pathsep.join(path or os.getcwd() for path in sys.path)  # noqa: PTH109
    environment.update(dict.fromkeys(_THREAD_VARIABLES, str(threads)))
    environment["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"  # as nvidia-smi counts them, should anybody count
    environment.update(binding)
    return environment

"""What this node offers: its devices, their slots, the models it has, and the ground each runner stands on."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass

from lcq import __version__
from lcq.config import AgentConfig
from lcq.errors import UnknownModel
from lcq.hardware import detect_devices, host_name
from lcq.models import Device, DeviceKind, NodeCapability
from worker.engines.registry import DRILLS_VARIABLE, offered_models

_THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OPENCV_FOR_THREADS_NUM")


@dataclass(frozen=True)
class SlotPlan:
    """Room for one attempt on a device: its name, and the environment that pins a runner to its share."""

    name: str  # "cpu/0"
    device: str
    environment: Mapping[str, str]


def offered_capability(config: AgentConfig) -> NodeCapability:
    """What the agent of this host can do, as far as its settings allow it.

    Raises:
        UnknownModel: ``config.models`` names one that no engine here has.
    """
    models = offered_models()
    if config.models is not None:
        for wanted in config.models:
            if wanted not in models:
                raise UnknownModel(wanted, models)
        models = {model: kinds for model, kinds in models.items() if model in config.models}
    return NodeCapability(
        devices=detect_devices(cpu_slots=config.slots), models=models, host=host_name(), version=__version__
    )


def plan_slots(capability: NodeCapability) -> tuple[SlotPlan, ...]:
    """The slots of all devices of ``capability``."""
    return tuple(
        SlotPlan(name=f"{device.id}/{number}", device=device.id, environment=_environment(device))
        for device in capability.devices
        for number in range(device.slots)
    )


def _environment(device: Device) -> dict[str, str]:
    """A runner's environment: ours, without our settings (it is told what it needs), bound to its device."""
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith("LCQ_") or name == DRILLS_VARIABLE
    }
    # The same modules as ours, and nothing from the folder that the agent happened to be started in.
    environment["PYTHONPATH"] = os.pathsep.join(path or os.getcwd() for path in sys.path)  # noqa: PTH109
    environment["CUDA_VISIBLE_DEVICES"] = device.id if device.kind is DeviceKind.GPU else ""
    if device.cores:
        share = str(max(1, device.cores // device.slots))
        environment.update(dict.fromkeys(_THREAD_VARIABLES, share))
    return environment

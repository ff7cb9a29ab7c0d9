"""The ground that a runner's engines stand on, as the agent of their host lays it out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from lcq.models import Device, DeviceKind
from lcq.runner_config import FunctionConfig, IopaintConfig, ModelsConfig


class EngineSettings(BaseModel):
    """What an engine may know of its host: its device, its share of it, where weights are."""

    model_config = ConfigDict(frozen=True, defer_build=True)

    device: Device = Device(id="cpu", kind=DeviceKind.CPU)
    threads: int = 1  # this slot's share of the free cores
    memory_mib: int = 0  # that loaded models may keep in all; 0: no limit
    models_path: Path = Path("models")  # where weights are kept
    roots: tuple[Path, ...] = ()  # that tasks may reach; none: anywhere
    models: ModelsConfig = ModelsConfig()
    iopaint: IopaintConfig = IopaintConfig()
    function: FunctionConfig | None = None  # what a device of the kind serverless calls
    storage_options: dict[str, Any] = Field(default_factory=dict)  # how its exchange is reached

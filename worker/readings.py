"""How this host and its devices are now, for the beats: read aside, so that a driver that hangs holds up nobody."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import os
from collections.abc import Callable, Collection, Mapping, Sequence

import psutil

from lcq.hardware import memory
from lcq.models import Device, DeviceKind, DeviceReading
from worker.aside import Aside

_log = logging.getLogger(__name__)

PERIOD_S = 0.75  # no claim is told of free memory that is older than a second
_PATIENCE_S = 2.0

ReadGpus = Callable[[Collection[int]], Mapping[str, DeviceReading]]
"""Reads all GPUs; what the process groups given hold there is not foreign. May block."""


class Readings:
    """The last reading of each device of ``devices``. Run ``watch()``; ``on_read`` is called after each.

    ``read_gpus`` is asked only where there are GPUs; ``own_groups``: the process groups of our runners.
    """

    def __init__(
        self,
        devices: Sequence[Device],
        *,
        read_gpus: ReadGpus,
        own_groups: Callable[[], Collection[int]],
        on_read: Callable[[], None],
    ) -> None:
        self.have(devices)
        self._on_read = on_read
        self._gpus: Mapping[str, DeviceReading] = {}
        self.foreign_cpu: float | None = None
        """The share of all cores that others use; None: nobody has measured it."""
        self._aside = Aside("reading of the GPUs", lambda: read_gpus(own_groups()))
        self._hung = ""

    def have(self, devices: Sequence[Device]) -> None:
        """These are the devices from now on."""
        self._devices = {device.id: device for device in devices}

    async def watch(self) -> None:
        """Read the GPUs again and again, for ever."""
        while any(device.kind is DeviceKind.GPU for device in self._devices.values()):
            try:
                fresh = await self._aside.ask(patience_s=_PATIENCE_S)
            except TimeoutError:
                if not self._hung:
                    _log.error("the GPUs' driver does not answer; its last readings stand in, no GPU is given new work")
                self._hung = f"the driver has not answered for {self._aside.silent_s:.0f} s"
            else:
                if self._hung:
                    _log.warning("the GPUs' driver answers again")
                self._hung = ""
                self._gpus = {device: sound(reading) for device, reading in fresh.items()}
            self._on_read()
            await asyncio.sleep(PERIOD_S)

    def of(self, device: str) -> DeviceReading:
        """How ``device`` is, as last read; its ``fault`` says what is wrong with it, or with that reading."""
        known = self._devices[device]
        if known.kind is DeviceKind.CPU:
            return _cpu_reading(known).model_copy(update={"foreign_busy": self.foreign_cpu})
        if known.kind is DeviceKind.SERVERLESS:
            return DeviceReading()
        reading = self._gpus.get(device, DeviceReading(total_mib=known.vram_mib or None))
        return reading.model_copy(update={"fault": self.fault(device)})

    def fault(self, device: str) -> str:
        """Why ``device`` is to be given no work at the moment; "" where nothing is known against it."""
        if self._devices[device].kind is not DeviceKind.GPU:
            return ""
        return self._hung or (self._gpus[device].fault if device in self._gpus else "")

    @property
    def faults(self) -> dict[str, str]:
        """What the last readings say is wrong with devices. A driver that does not answer says nothing of them."""
        return {device: reading.fault for device, reading in self._gpus.items() if reading.fault}


def room_mib(reading: DeviceReading, *, busy_mib: Sequence[int], idle_mib: int) -> int | None:
    """Memory of a device that its free slots may use together; None where that cannot be told.

    ``busy_mib``: what each busy slot was granted, or holds; ``idle_mib``: what loaded models hold in the free
    slots, which is theirs to use again.
    """
    total, free, foreign = reading.total_mib, reading.free_mib, reading.foreign_mib
    if total is None:
        return None
    if foreign is None:
        return None if free is None else max(0, free + idle_mib - sum(busy_mib))
    ours = total - foreign - free if free is not None else 0
    busy = max(sum(busy_mib), ours - idle_mib) if busy_mib else 0  # granted, or measured: whatever is more
    return max(0, total - foreign - busy)


def sound(reading: DeviceReading) -> DeviceReading:
    """``reading`` without numbers that cannot be sent, as hardware tells them when it is in trouble."""
    odd = {
        name: None
        for name in ("busy", "temperature_c", "power_w", "foreign_busy")
        if (value := getattr(reading, name)) is not None and not math.isfinite(value)
    }
    return reading.model_copy(update=odd) if odd else reading


def _cpu_reading(device: Device) -> DeviceReading:
    return DeviceReading(total_mib=device.memory_mib or None, free_mib=memory().available_mib)


def host_telemetry() -> dict[str, float | str]:
    """Load and memory of this host, as far as they can be told."""
    said: dict[str, float | str] = {
        "cpu_percent": psutil.cpu_percent(),
        "memory_available_mib": float(memory().available_mib),
        "cores": float(os.cpu_count() or 1),
    }
    with contextlib.suppress(OSError):
        said["load_1m"] = round(os.getloadavg()[0], 2)
    return said


def finite(telemetry: Mapping[str, float | str]) -> dict[str, float | str]:
    """``telemetry`` without numbers that have no form on the wire."""
    return {name: value for name, value in telemetry.items() if isinstance(value, str) or math.isfinite(value)}

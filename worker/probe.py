"""What lcq-agent probe shows: this host's hardware, what of it would serve which queues, and what not and why."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from pydantic import Field
from rich.text import Text

from lcq import __version__
from lcq.cli.output import Column, Output
from lcq.config import DistributedConfig
from lcq.gpus import Gpu, Gpus, Vitals
from lcq.hardware import Cpu, Disk, Memory, cpu, detect_devices, disk, host_name, memory
from lcq.lang import retold, tr
from lcq.models import Device, NodeCapability, Value
from worker.devices import gpu_need_mib

_PATIENCE_S = 5.0  # there is but this one look at each GPU


class ProbedGpu(Value):
    """A GPU, and how it is now."""

    gpu: Gpu
    vitals: Vitals


class ProbedDevice(Value):
    """A device that an agent would offer, and the queues that it would serve, its own class first."""

    device: Device
    queues: tuple[str, ...]


class Report(Value):
    """All that is known of this host. ``gpu_problem``: what is wrong with the GPUs' driver, empty if nothing is."""

    host: str
    version: str
    cpu: Cpu
    memory: Memory
    disk: Disk
    gpu_driver: str = ""
    cuda: str = ""
    gpu_problem: str = ""
    gpus: tuple[ProbedGpu, ...] = ()
    devices: tuple[ProbedDevice, ...] = ()
    left_out: dict[str, str] = Field(default_factory=dict)


def probe(config: DistributedConfig) -> Report:
    """Look at this host as an agent with these settings would. Needs no scheduler.

    Raises:
        InvalidConfig: ``agent.devices`` names a device that is not here.
    """
    with Gpus(timeout_s=_PATIENCE_S) as gpus:
        detected = detect_devices(config.agent, gpus, need_mib=gpu_need_mib(config))
        vitals = gpus.vitals()
        capability = NodeCapability(devices=detected.devices)
        serves = capability.serves(config.queues)
        left_out = dict(detected.left_out)
        left_out |= {uuid: now.reading.fault for uuid, now in vitals.items() if now.reading.fault}
        left_out |= _unknown_queues(config)
        return Report(
            host=host_name(),
            version=__version__,
            cpu=cpu(),
            memory=memory(),
            disk=disk(config.data_path),
            gpu_driver=gpus.driver,
            cuda=gpus.cuda,
            gpu_problem=gpus.problem,
            gpus=tuple(ProbedGpu(gpu=gpu, vitals=vitals[gpu.uuid]) for gpu in gpus.found()),
            devices=tuple(
                ProbedDevice(device=device, queues=serves[device.id])
                for device in detected.devices
                if device.id not in left_out
            ),
            left_out=left_out,
        )


def _unknown_queues(config: DistributedConfig) -> Mapping[str, str]:
    known = {queue.name for queue in config.queues}
    return {
        f"queue {queue}": f"agent.devices.{name}.queues names it; configured are {', '.join(sorted(known))}"
        for name, wish in config.agent.devices.items()
        for queue in wish.queues or ()
        if queue not in known
    }


def show(report: Report, output: Output) -> None:
    """Tell ``report``, to a program or to a person."""
    if output.as_json:
        output.document(report)
        return
    output.facts(_facts(report))
    if report.gpus:
        output.heading("GPUs")
        output.table(_GPU_COLUMNS, (_gpu_row(one) for one in report.gpus))
    output.heading(tr("Devices that an agent here would offer"))
    output.table(_DEVICE_COLUMNS, (_device_row(one) for one in report.devices), empty=tr("none"))
    if report.left_out:
        output.heading(tr("Left out"))
        output.table((Column("What", whole=True), Column("Why", wrapped=True)), _left_out(report))


def _left_out(report: Report) -> Iterable[tuple[str, str]]:
    return ((what, retold(why)) for what, why in report.left_out.items())


def _facts(report: Report) -> Iterable[tuple[str, str]]:
    of = report.cpu
    physical = tr("{n} cores, ", n=of.physical_cores) if of.physical_cores is not None else ""
    yield tr("host"), f"{report.host}, lcq {report.version}"
    yield tr("cpu"), of.name
    yield (
        tr("cores"),
        tr(
            "{cores}{threads} threads, {usable} usable here",
            cores=physical,
            threads=of.logical_cores,
            usable=of.usable_cores,
        ),
    )
    yield tr("flags"), " ".join(of.flags) or tr("none that makes inpainting faster")
    room = report.memory
    limit = tr(", limited to {mib:,}", mib=room.usable_mib) if room.usable_mib < room.total_mib else ""
    yield (
        tr("memory"),
        tr("{free:,} of {total:,} MiB available{limit}", free=room.available_mib, total=room.total_mib, limit=limit),
    )
    yield (
        tr("disk"),
        tr(
            "{free:,} of {total:,} MiB free at {folder}",
            free=report.disk.free_mib,
            total=report.disk.total_mib,
            folder=report.disk.folder,
        ),
    )
    driver = f"NVIDIA {report.gpu_driver}" + (f", CUDA {report.cuda}" if report.cuda else "")
    yield tr("gpu driver"), retold(report.gpu_problem) or (driver if report.gpu_driver else tr("none"))


_GPU_COLUMNS = (
    Column("GPU", whole=True),
    Column("Name"),
    Column("UUID"),
    Column("Free MiB", right=True),
    Column("of", right=True),
    Column("Others'", right=True),
    Column("Busy", right=True),
    Column("°C", right=True),
    Column("Watt", right=True),
    Column("ECC", right=True),  # corrected + not corrected
    Column("ever", right=True),
    Column("Xid", right=True),
    Column("Programs", right=True),
)
_DEVICE_COLUMNS = (
    Column("Device"),
    Column("Name"),
    Column("Slots", right=True),
    Column("Queues", wrapped=True),
)


def _gpu_row(one: ProbedGpu) -> list[str | Text]:
    gpu, vitals, reading = one.gpu, one.vitals, one.vitals.reading
    power = _number(reading.power_w)
    if power and vitals.power_limit_w is not None:
        power += f"/{vitals.power_limit_w:.0f}"
    number = (f"gpu{gpu.number}" if gpu.number >= 0 else gpu.uuid) + ("/mig" if gpu.parent else "")
    return [
        Text(number, style="red" if reading.fault else "yellow" if gpu.unusable else "green"),
        gpu.name,
        gpu.uuid,
        _number(reading.free_mib),
        _number(gpu.vram_mib),
        _number(reading.foreign_mib),
        "" if reading.busy is None else f"{reading.busy:.0%}",
        _number(reading.temperature_c),
        power,
        _errors(vitals.ecc_corrected, vitals.ecc_uncorrected),
        _errors(vitals.ecc_corrected_ever, vitals.ecc_uncorrected_ever),
        _number(vitals.xid),
        "" if vitals.processes is None else str(len(vitals.processes)),
    ]


def _device_row(one: ProbedDevice) -> list[str | Text]:
    queues = ", ".join(one.queues) or Text(tr("none: it is not good enough for any queue"), style="yellow")
    return [one.device.id, one.device.name, str(one.device.slots), queues]


def _errors(corrected: int | None, uncorrected: int | None) -> str:
    return "" if corrected is None or uncorrected is None else f"{corrected}+{uncorrected}"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:,.0f}"

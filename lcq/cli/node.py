"""lcq node: all that the cluster knows of one node and its devices."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated

import typer
from rich.text import Text

from lcq.cli.examples import examples
from lcq.cli.output import Column, age, status_text
from lcq.cli.session import OK, JsonFlag, Session, run, session_of
from lcq.errors import NodeNotFound
from lcq.labels import told_labels
from lcq.models import Device, DeviceKind, DeviceReading, NodeRecord

app = typer.Typer()


@app.command(epilog=examples("lcq node studio-2", "lcq node --json studio-2"))
def node(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NODE", help="Its name, as 'lcq nodes' shows it.")],
    as_json: JsonFlag = False,
) -> int:
    """Show one node: what it does, how each of its devices is, and whatever keeps one from work."""
    return run(_node(session_of(context, as_json), name))


async def _node(session: Session, name: str) -> int:
    output = session.output
    async with session.client() as client:
        found = next((one for one in await client.nodes() if one.id == name), None)
    if found is None:
        raise NodeNotFound(name)
    if output.as_json:
        output.document(found)
        return OK
    output.facts(_facts(found))
    known = {device.id: device for device in found.capability.devices}
    for device_id in (*known, *(one for one in found.readings if one not in known)):
        output.heading(device_id)
        output.facts(_device_facts(found, device_id, known.get(device_id)))
    left_out = {what: why for what, why in found.capability.left_out.items() if what not in found.readings}
    if left_out:
        output.heading("Left out")
        output.table([Column("WHAT", whole=True), Column("WHY", wrapped=True)], sorted(left_out.items()))
    return OK


def _facts(found: NodeRecord) -> Iterable[tuple[str, str | Text]]:
    told = found.telemetry
    yield "node", found.id
    yield "status", status_text(found.status)
    yield "why", found.why
    yield "new work", str(told.get("not_claiming", ""))
    yield "settings", str(told.get("config_error", ""))
    yield "heard", f"{age(found.seen_ms)} ago" if found.seen_ms else ""
    yield "host", found.capability.host
    yield "version", found.capability.version
    yield "labels", told_labels(found.labels)
    yield "busy", f"{found.running} of {found.slots} slots"
    yield "done", f"{found.completed}, failed {found.failed}"
    yield "models", ", ".join(sorted(found.capability.models))
    load, cores = told.get("load_1m"), told.get("cores")
    on = f" on {cores:.0f} cores" if isinstance(cores, float) else ""
    yield "load", f"{load:.1f}{on}" if isinstance(load, float) else ""
    yield "clock", _told_clock(found)
    yield "probation", f"{found.probation} tasks to go" if found.probation else ""


def _told_clock(found: NodeRecord) -> str:
    warning = str(found.telemetry.get("clock_warning", ""))
    ahead, error = found.telemetry.get("clock_offset_s"), found.telemetry.get("clock_error_s")
    if warning or not isinstance(ahead, float) or not isinstance(error, float):
        return warning
    way = "ahead of" if ahead > 0 else "behind"
    return f"{abs(ahead):.2f} s {way} the cluster's (± {error:.2f} s)"


def _device_facts(found: NodeRecord, device_id: str, device: Device | None) -> Iterable[tuple[str, str | Text]]:
    reading = found.readings.get(device_id, DeviceReading())
    yield "name", device.name if device else ""
    yield "slots", str(device.slots) if device else ""
    yield "serves", ", ".join(found.serves.get(device_id, ()))
    yield "state", _told_state(found, device_id, reading, device)
    wish = found.wishes.get(device_id)
    yield "set", wish.why if wish else ""
    yield "memory", _told_memory(reading, device)
    used = "" if reading.busy is None else f"{reading.busy:.0%}"
    others = "" if reading.foreign_busy is None else f"{reading.foreign_busy:.0%} by other programs"
    yield "in use", ", ".join(filter(None, (used, others)))
    slows = "" if reading.slows_down_c is None else f" (slows itself down at {reading.slows_down_c} °C)"
    yield "heat", "" if reading.temperature_c is None else f"{reading.temperature_c:.0f} °C{slows}"
    yield "power", "" if reading.power_w is None else f"{reading.power_w:.0f} W"
    yield "warm", ", ".join(reading.warm)


def _told_state(found: NodeRecord, device_id: str, reading: DeviceReading, device: Device | None) -> str:
    if device_id in found.quarantined:
        return f"in quarantine: {found.quarantined[device_id]}"
    if reading.rest:
        return f"rests, {reading.fault}"
    if reading.fault or device is None:
        why = reading.fault or found.capability.left_out.get(device_id, "")
        return "takes no work" + (f": {why}" if why else "")
    left = found.on_probation.get(device_id, 0)
    if caution := found.caution(device_id):
        return caution
    return f"on probation, {left} tasks to go" if left else "takes work"


def _told_memory(reading: DeviceReading, device: Device | None) -> str:
    size_mib = (device.vram_mib if device.kind is DeviceKind.GPU else device.memory_mib) if device else 0
    total_mib = size_mib if reading.total_mib is None else reading.total_mib
    if reading.free_mib is None:
        return f"{total_mib:,} MiB" if total_mib else ""
    others = f", {reading.foreign_mib:,} by other programs" if reading.foreign_mib else ""
    return f"{reading.free_mib:,} of {total_mib:,} MiB free{others}"

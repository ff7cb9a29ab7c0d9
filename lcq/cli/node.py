"""lcq node: all that the cluster knows of one node and its devices."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated

import typer
from rich.text import Text

from lcq.cli.asking import ask_and_tell
from lcq.cli.examples import examples
from lcq.cli.instances import told_cold_starts
from lcq.cli.output import Column, Output, age, status_text, time_of_day
from lcq.cli.session import JsonFlag, session_of
from lcq.client import AsyncClient
from lcq.errors import NodeNotFound
from lcq.function_state import told_standing, told_why
from lcq.labels import told_labels
from lcq.lang import N, ntr, retold, tr
from lcq.models import Device, DeviceKind, DeviceReading, NodeRecord

app = typer.Typer()


@app.command(epilog=examples("lcq node studio-2", "lcq node --json studio-2"))
def node(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NODE", help="Its name, as 'lcq nodes' shows it.")],
    as_json: JsonFlag = False,
) -> int:
    """Show one node: what it does, how each of its devices is, and whatever keeps one from work."""
    return ask_and_tell(session_of(context, as_json), lambda client: _node(client, name), _tell)


async def _node(client: AsyncClient, name: str) -> NodeRecord:
    found = next((one for one in await client.nodes() if one.id == name), None)
    if found is None:
        raise NodeNotFound(name)
    return found


def _tell(found: NodeRecord, output: Output) -> None:
    output.facts(_facts(found))
    known = {device.id: device for device in found.capability.devices}
    for device_id in (*known, *(one for one in found.readings if one not in known)):
        output.heading(device_id)
        output.facts(_device_facts(found, device_id, known.get(device_id)))
    left_out = {what: why for what, why in found.capability.left_out.items() if what not in found.readings}
    if left_out:
        output.heading(tr("Left out"))
        output.table(
            [Column("WHAT", whole=True), Column("WHY", wrapped=True)],
            [(what, retold(why)) for what, why in sorted(left_out.items())],
        )


def _facts(found: NodeRecord) -> Iterable[tuple[str, str | Text]]:
    told = found.telemetry
    yield tr("node"), found.id
    yield tr("status"), status_text(found.status)
    yield tr("why"), retold(found.why)
    yield tr("new work"), retold(str(told.get("not_claiming", "")))
    yield tr("settings"), retold(str(told.get("config_error", "")))
    yield tr("heard"), tr("{age} ago", age=age(found.seen_ms)) if found.seen_ms else ""
    yield tr("host"), found.capability.host
    yield tr("version"), found.capability.version
    yield tr("labels"), told_labels(found.labels)
    yield tr("busy"), tr("{running} of {slots} slots", running=found.running, slots=found.slots)
    yield tr("done"), tr("{done}, failed {failed}", done=found.completed, failed=found.failed)
    yield tr("models"), ", ".join(sorted(found.capability.models))
    load, cores = told.get("load_1m"), told.get("cores")
    on = tr(" on {cores:.0f} cores", cores=cores) if isinstance(cores, float) else ""
    yield tr("load"), f"{load:.1f}{on}" if isinstance(load, float) else ""
    yield tr("clock"), _told_clock(found)
    yield tr("probation"), ntr("{n:,} task to go", "{n:,} tasks to go", found.probation) if found.probation else ""


def _told_clock(found: NodeRecord) -> str:
    warning = str(found.telemetry.get("clock_warning", ""))
    ahead, error = found.telemetry.get("clock_offset_s"), found.telemetry.get("clock_error_s")
    if warning or not isinstance(ahead, float) or not isinstance(error, float):
        return retold(warning)
    form = N("{s:.2f} s ahead of the cluster's (± {error:.2f} s)")
    if ahead <= 0:
        form = N("{s:.2f} s behind the cluster's (± {error:.2f} s)")
    return tr(form, s=abs(ahead), error=error)


def _device_facts(found: NodeRecord, device_id: str, device: Device | None) -> Iterable[tuple[str, str | Text]]:
    reading = found.readings.get(device_id, DeviceReading())
    yield tr("name"), device.name if device else ""
    yield tr("slots"), str(device.slots) if device else ""
    yield tr("serves"), ", ".join(found.serves.get(device_id, ()))
    yield tr("state"), _told_state(found, device_id, reading, device)
    wish = found.wishes.get(device_id)
    yield tr("set"), retold(wish.why) if wish else ""
    yield tr("memory"), _told_memory(reading, device)
    used = "" if reading.busy is None else f"{reading.busy:.0%}"
    others = "" if reading.foreign_busy is None else tr("{busy:.0%} by other programs", busy=reading.foreign_busy)
    yield tr("in use"), tr(", ").join(filter(None, (used, others)))
    at = reading.slows_down_c
    slows = "" if at is None else tr(" (slows itself down at {celsius} °C)", celsius=at)
    yield tr("heat"), "" if reading.temperature_c is None else f"{reading.temperature_c:.0f} °C{slows}"
    yield tr("power"), "" if reading.power_w is None else f"{reading.power_w:.0f} W"
    yield tr("warm"), ", ".join(reading.warm) if reading.function is None else ""
    yield from _function_facts(reading)


def _function_facts(reading: DeviceReading) -> Iterable[tuple[str, str | Text]]:
    function = reading.function
    if function is None:
        return
    yield tr("instances"), tr("{n:,} warm", n=function.warm)
    yield tr("cold starts"), told_cold_starts(function)
    yield tr("calls"), tr("{n:,} in flight", n=function.in_flight)


def _told_state(found: NodeRecord, device_id: str, reading: DeviceReading, device: Device | None) -> str:
    if device_id in found.quarantined:
        return tr("in quarantine: {why}", why=retold(found.quarantined[device_id]))
    standing = told_standing(reading.function, time_of_day)
    if reading.rest:
        return told_why(reading.fault, standing) if standing else tr("rests, {fault}", fault=retold(reading.fault))
    if reading.fault or device is None:
        why = reading.fault or found.capability.left_out.get(device_id, "")
        return tr("takes no work: {fault}", fault=retold(why)) if why else tr("takes no work")
    left = found.on_probation.get(device_id, 0)
    if caution := found.caution(device_id):
        return retold(caution)
    if not left:
        return standing or tr("takes work")
    return ntr("on probation, {n:,} task to go", "on probation, {n:,} tasks to go", left)


def _told_memory(reading: DeviceReading, device: Device | None) -> str:
    size_mib = (device.vram_mib if device.kind is DeviceKind.GPU else device.memory_mib) if device else 0
    total_mib = size_mib if reading.total_mib is None else reading.total_mib
    if reading.free_mib is None:
        return f"{total_mib:,} MiB" if total_mib else ""
    others = tr(", {mib:,} by other programs", mib=reading.foreign_mib) if reading.foreign_mib else ""
    return tr("{free:,} of {total:,} MiB free{others}", free=reading.free_mib, total=total_mib, others=others)

"""lcq nodes, queues, drain, activate, pause, resume: the fleet, and who may take work."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable, Sequence
from typing import Annotated, Any

import typer

from lcq.autoscale import DEFAULT_TARGET_S, QueueScale
from lcq.cli.asking import ask_and_tell
from lcq.cli.examples import examples
from lcq.cli.instances import told_instances
from lcq.cli.output import Column, Output, age, duration, status_text, time_of_day
from lcq.cli.session import OK, REFUSED, JsonFlag, Reason, Session, run, session_of
from lcq.client import AsyncClient
from lcq.errors import InvalidInput, LcqError, SchedulerUnreachable
from lcq.function_state import told_briefly
from lcq.labels import parse_labels, told_labels
from lcq.lang import N, ntr, retold, tr
from lcq.models import Device, DeviceKind, DeviceReading, NodeRecord, QueueRecord, TaskStatus
from lcq.wire import AsideAnswer, Refusal

app = typer.Typer()

_HEADS = {
    TaskStatus.QUEUED: N("QUEUED"),
    TaskStatus.PENDING: N("PENDING"),
    TaskStatus.PROCESSING: N("PROCESSING"),
    TaskStatus.COMPLETED: N("COMPLETED"),
    TaskStatus.FAILED: N("FAILED"),
}

_SPARED = {_HEADS[TaskStatus.COMPLETED]: 4, _HEADS[TaskStatus.PENDING]: 3}

_SHOWN_ID = 12  # of a GPU's UUID: enough to tell the GPUs of a host apart, and to name one in a configuration

NodeNames = Annotated[list[str], typer.Argument(metavar="NODE", help="Names, as 'lcq nodes' shows them.")]
OneJob = Annotated[str, typer.Option("--job", metavar="NAME", help="This job, in whichever queues its tasks are.")]
QueueNames = Annotated[list[str] | None, typer.Argument(metavar="QUEUE", help="Names, as 'lcq queues' shows them.")]


@app.command(epilog=examples("lcq nodes", "lcq nodes --json"))
def nodes(context: typer.Context, as_json: JsonFlag = False) -> int:
    """List the nodes and their devices: what they have, what they do, what is left out and why."""
    return ask_and_tell(session_of(context, as_json), AsyncClient.nodes, _tell_nodes, key="nodes")


def _tell_nodes(found: Sequence[NodeRecord], output: Output) -> None:
    output.table(
        [
            Column("NODE", whole=True),
            Column("STATUS", whole=True),
            Column("BUSY", right=True, whole=True),
            Column("DEVICES", spared=3),
            Column("QUEUES"),
            Column("MODELS", spared=5),
            Column("LABELS", spared=2),
            Column("DONE", right=True, whole=True, spared=4),
            Column("FAILED", right=True, whole=True, spared=1),
            Column("HEARD", right=True, whole=True, spared=1),
            Column("NOTE"),
        ],
        (
            (
                node.id,
                status_text(node.status),
                f"{node.running}/{node.slots}",
                ", ".join(device.name or device.id for device in node.capability.devices),
                ", ".join(dict.fromkeys(name for names in node.serves.values() for name in names)),
                ", ".join(sorted(node.capability.models)),
                told_labels(node.labels),
                str(node.completed),
                str(node.failed),
                tr("{age} ago", age=age(node.seen_ms)) if node.seen_ms else "",
                _note(node),
            )
            for node in found
        ),
        empty=tr("no nodes: start one with 'lcq-agent', or use 'lcq up'"),
    )
    _show_devices(found, output)
    _show_left_out(found, output)


def _note(node: NodeRecord) -> str:
    why = retold(node.why or str(node.telemetry.get("not_claiming", node.telemetry.get("clock_warning", ""))))
    if node.stopping:
        return tr("ends when it has drained; {why}", why=why)
    return why


def _show_devices(found: Iterable[NodeRecord], output: Output) -> None:
    rows = [_device_row(node, device) for node in found for device in node.capability.devices]
    if not rows:
        return
    output.heading(tr("Devices"))
    output.table(
        [
            Column("NODE", whole=True),
            Column("DEVICE", whole=True),
            Column("NAME", spared=5),
            Column("SLOTS", right=True, whole=True),
            Column("FREE", right=True, whole=True),
            Column("OF MIB", right=True, whole=True, spared=4),
            Column("OTHERS", right=True, whole=True, spared=6),
            Column("LOAD", right=True, whole=True),
            Column("TEMP", right=True, whole=True, spared=3),
            Column("WARM", spared=2),
            Column("QUEUES", spared=1),
        ],
        rows,
    )


def _device_row(node: NodeRecord, device: Device) -> tuple[str, ...]:
    reading = node.readings.get(device.id, DeviceReading())
    size_mib = device.vram_mib if device.kind is DeviceKind.GPU else device.memory_mib
    total_mib = size_mib if reading.total_mib is None else reading.total_mib
    return (
        node.id,
        device.id[:_SHOWN_ID],
        device.name,
        str(device.slots),
        "" if reading.free_mib is None else f"{reading.free_mib:,}",
        f"{total_mib:,}" if total_mib else "",
        "" if reading.foreign_mib is None else f"{reading.foreign_mib:,}",
        "" if reading.busy is None else f"{reading.busy:.0%}",
        "" if reading.temperature_c is None else f"{reading.temperature_c:.0f} °C",
        ", ".join(reading.warm) if reading.function is None else told_instances(reading.function),
        _told_service(node, device, reading),
    )


def _told_service(node: NodeRecord, device: Device, reading: DeviceReading) -> str:
    standing = told_briefly(reading.function, time_of_day)
    if reading.rest:
        return standing or tr("rests: {why}", why=tr(reading.rest.replace("_", " ")))
    if reading.fault:
        return tr("takes no work")
    queues = ", ".join(node.serves.get(device.id, ()))
    return f"{queues} ({standing})" if standing else queues


def _show_left_out(found: Iterable[NodeRecord], output: Output) -> None:
    rows = []
    for node in found:
        held = {device: tr("in quarantine: {why}", why=retold(why)) for device, why in node.quarantined.items()}
        faults = {device: retold(reading.fault) for device, reading in node.readings.items() if reading.fault}
        cautions = {device: retold(node.caution(device)) for device in (*node.lowered, *node.doubted)}
        told = {tr("new work"): "not_claiming", tr("settings"): "config_error", tr("clock"): "clock_warning"}
        troubles = {what: retold(str(node.telemetry[name])) for what, name in told.items() if node.telemetry.get(name)}
        left_out = {what: retold(why) for what, why in node.capability.left_out.items()}
        all_of_it = left_out | cautions | faults | held | troubles
        rows += [(node.id, what, why) for what, why in sorted(all_of_it.items())]
    if not rows:
        return
    output.heading(tr("Left out"))
    output.table([Column("NODE", whole=True), Column("WHAT", whole=True), Column("WHY", wrapped=True)], rows)


@app.command(epilog=examples("lcq queues", "lcq queues --json"))
def queues(context: typer.Context, as_json: JsonFlag = False) -> int:
    """List the queues: what waits in each, who serves it, whether it is paused."""
    return ask_and_tell(session_of(context, as_json), AsyncClient.queues, _tell_queues, key="queues")


def _tell_queues(found: Sequence[QueueRecord], output: Output) -> None:
    output.table(
        [
            Column("QUEUE", whole=True),
            *(Column(head, right=True, whole=True, spared=_SPARED.get(head, 0)) for head in _HEADS.values()),
            Column("OLDEST", right=True, whole=True, spared=1),
            Column("NODES", spared=2),
            Column("NOTE"),
        ],
        (
            (
                queue.name,
                *(str(queue.counts.get(status, 0)) for status in _HEADS),
                age(queue.oldest_queued_ms),
                ", ".join(queue.nodes),
                _paused(queue),
            )
            for queue in found
        ),
        empty=tr("no queues"),
    )


def _paused(queue: QueueRecord) -> str:
    if not queue.paused:
        return ""
    by = queue.paused_by or tr("somebody")
    return tr("paused by {by} {reason}", by=by, reason=queue.paused_reason).rstrip()


DeviceName = Annotated[
    str, typer.Option("--device", metavar="DEVICE", help="Only this device; a unique beginning of its id will do.")
]
Deadline = Annotated[
    float | None,
    typer.Option("--deadline", metavar="SECONDS", min=0, help="Then hand back what still runs, at no cost for tasks."),
]


@app.command(epilog=examples("lcq drain studio-2 --reason 'new GPU'", "lcq drain studio-2 --deadline 300"))
def drain(
    context: typer.Context,
    names: NodeNames,
    deadline: Deadline = None,
    reason: Reason = "",
    as_json: JsonFlag = False,
) -> int:
    """Let nodes finish what they have and take nothing new; 'lcq activate' undoes it."""
    return _each(
        session_of(context, as_json),
        names,
        tr("draining"),
        lambda client, name: client.drain(name, deadline_s=deadline, reason=reason),
    )


@app.command(
    epilog=examples(
        "lcq autoscale --target-wait 60", "lcq autoscale --json", "lcq autoscale --drain-idle 2 --reason 'night'"
    )
)
def autoscale(
    context: typer.Context,
    target_wait: Annotated[
        float,
        typer.Option("--target-wait", metavar="SECONDS", min=0.001, help="How long a task may wait before it begins."),
    ] = DEFAULT_TARGET_S,
    drain_idle: Annotated[
        int | None,
        typer.Option("--drain-idle", metavar="N", min=1, max=10_000, help="Drain at most N idle nodes, longest first."),
    ] = None,
    queue: Annotated[
        str, typer.Option("--queue", metavar="NAME", help="With --drain-idle: only nodes that serve this queue.")
    ] = "",
    reason: Reason = "",
    as_json: JsonFlag = False,
) -> int:
    """Tell how many slots each queue wants, and which nodes are idle, for whoever starts and stops machines."""
    return run(_autoscale(session_of(context, as_json), target_wait, drain_idle, queue, reason))


async def _autoscale(session: Session, target_s: float, drain_idle: int | None, queue: str, reason: str) -> int:
    output = session.output
    async with session.client() as client:
        drained = await client.drain_idle(drain_idle, queue=queue, reason=reason) if drain_idle else None
        found = await client.autoscale(target_wait_s=target_s)
    if output.as_json:
        more = {} if drained is None else {"drained": drained}
        output.document(found.model_dump(mode="json") | more)
        return OK
    if drained is not None:
        names = " ".join(drained)
        output.say(tr("draining: {names}", names=names) if drained else tr("no node is idle: none was drained"))
    output.table(
        [
            Column("QUEUE", whole=True),
            Column("WAITING", right=True, whole=True),
            Column("RUNNING", right=True, whole=True),
            Column("BACKLOG", right=True, whole=True, spared=2),
            Column("OLDEST", right=True, whole=True, spared=3),
            Column("SLOTS", right=True, whole=True),
            Column("WANTED", right=True, whole=True),
            Column("NOTE", spared=1),
        ],
        (
            (
                queue.queue,
                str(queue.waiting),
                str(queue.running),
                tr("{told}, a guess", told=duration(queue.backlog_s)) if queue.guessed else duration(queue.backlog_s),
                duration(queue.oldest_wait_s) if queue.waiting else "",
                str(queue.live_slots),
                str(queue.wanted_slots),
                _wants(queue),
            )
            for queue in found.queues
        ),
    )
    for one in found.idle:
        output.say(
            ntr(
                "idle: {node} ({n} slot), for {span}",
                "idle: {node} ({n} slots), for {span}",
                one.slots,
                node=one.node,
                span=duration(one.idle_s),
            )
        )
    return OK


def _wants(queue: QueueScale) -> str:
    if queue.paused:
        return tr("paused")
    return tr("{count} that nothing serves", count=queue.unserved) if queue.unserved else ""


@app.command(epilog=examples("lcq stop studio-2", "lcq stop studio-2 --deadline 60 --reason 'moves to another room'"))
def stop(
    context: typer.Context,
    names: NodeNames,
    deadline: Deadline = None,
    reason: Reason = "",
    as_json: JsonFlag = False,
) -> int:
    """Let the agents of nodes drain and end. Started again, they work as before."""
    return _each(
        session_of(context, as_json),
        names,
        tr("stopping"),
        lambda client, name: client.stop_node(name, deadline_s=deadline, reason=reason),
    )


@app.command(epilog=examples("lcq activate studio-2", "lcq activate studio-2 --device GPU-5e1f"))
def activate(
    context: typer.Context,
    names: NodeNames,
    device: DeviceName = "",
    reason: Reason = "",
    as_json: JsonFlag = False,
) -> int:
    """Let nodes, or a device of one, that were drained or quarantined take work again."""
    return _each(
        session_of(context, as_json),
        names,
        tr("active"),
        lambda client, name: client.activate(name, device=device, reason=reason),
    )


@app.command(
    epilog=examples("lcq quarantine studio-2 --reason 'draws stripes'", "lcq quarantine studio-2 --device GPU-5e1f")
)
def quarantine(
    context: typer.Context,
    names: NodeNames,
    device: DeviceName = "",
    reason: Reason = "",
    as_json: JsonFlag = False,
) -> int:
    """Let nodes, or a device of one, take nothing more, and give back the retries they have cost; 'lcq activate' ends
    it."""
    return _each(
        session_of(context, as_json),
        names,
        tr("quarantined"),
        lambda client, name: client.quarantine(name, device=device, reason=reason),
    )


@app.command(
    "set",
    epilog=examples(
        "lcq set studio-2 --slots 2",
        "lcq set studio-2 --device GPU-5e1f --queues gpu-low,gpu-medium",
        "lcq set studio-2 --default",
    ),
)
def set_device(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NODE", help="Its name, as 'lcq nodes' shows it.")],
    device: Annotated[
        str, typer.Option("--device", metavar="DEVICE", help="Which of its devices; the beginning of its id will do.")
    ] = "",
    slots: Annotated[
        int | None, typer.Option("--slots", metavar="N", min=1, max=1024, help="Attempts at a time.")
    ] = None,
    queues: Annotated[str, typer.Option("--queues", metavar="A,B", help="Serve just these queues.")] = "",
    default: Annotated[
        bool, typer.Option("--default", help="Undo: slots and queues as the agent itself has them.")
    ] = False,
    reason: Reason = "",
    as_json: JsonFlag = False,
) -> int:
    """Set how many slots a device has and which queues it serves, while it runs. Holds over restarts until undone."""
    wanted: tuple[str, ...] | None = tuple(filter(None, (one.strip() for one in queues.split(",")))) or None
    count = slots
    if default:
        count = 0 if slots is None else slots
        wanted = () if wanted is None else wanted
    return _each(
        session_of(context, as_json),
        [name],
        tr("set"),
        lambda client, node: client.set_device(node, device, slots=count, queues=wanted, reason=reason),
    )


@app.command(
    epilog=examples(
        "lcq label studio-2 rack=3", "lcq label studio-2 --without rack", "lcq label studio-2 --forget rack"
    )
)
def label(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NODE", help="Its name, as 'lcq nodes' shows it.")],
    labels: Annotated[
        list[str] | None, typer.Argument(metavar="NAME=VALUE", help="What tasks may require of it.")
    ] = None,
    without: Annotated[
        list[str] | None, typer.Option("--without", metavar="NAME", help="It has no such label, whatever it says.")
    ] = None,
    forget: Annotated[
        list[str] | None, typer.Option("--forget", metavar="NAME", help="Undo: what the agent itself says counts.")
    ] = None,
    reason: Reason = "",
    as_json: JsonFlag = False,
) -> int:
    """Set labels of a node over those that its agent has, while it runs. Holds over restarts until undone."""
    wanted = parse_labels(labels or ())
    return _each(
        session_of(context, as_json),
        [name],
        tr("labelled"),
        lambda client, node: client.label_node(node, wanted, without=without or (), forget=forget or (), reason=reason),
    )


@app.command(epilog=examples("lcq release studio-2", "lcq release studio-2 --reason 'the GPU is wanted for a film'"))
def release(context: typer.Context, names: NodeNames, reason: Reason = "", as_json: JsonFlag = False) -> int:
    """Let nodes free the memory that loaded models hold; the next task loads its model anew."""
    return _each(
        session_of(context, as_json), names, tr("released"), lambda client, name: client.release(name, reason=reason)
    )


@app.command(epilog=examples("lcq pause gpu-high --reason 'driver update'", "lcq pause --job holiday"))
def pause(
    context: typer.Context,
    names: QueueNames = None,
    job: OneJob = "",
    reason: Reason = "",
    as_json: JsonFlag = False,
) -> int:
    """Let queues, or a job, give out no more tasks; running ones finish, waiting ones keep their places."""
    names = _queues_or_job(names, job)
    if job:
        return _on_job(
            session_of(context, as_json), job, tr("paused"), lambda client, name: client.pause_job(name, reason=reason)
        )
    return _each(
        session_of(context, as_json), names, tr("paused"), lambda client, name: client.pause(name, reason=reason)
    )


@app.command(epilog=examples("lcq resume gpu-high", "lcq resume --job holiday"))
def resume(
    context: typer.Context,
    names: QueueNames = None,
    job: OneJob = "",
    reason: Reason = "",
    as_json: JsonFlag = False,
) -> int:
    """Let paused queues, or a paused job, give out tasks again."""
    names = _queues_or_job(names, job)
    if job:
        return _on_job(
            session_of(context, as_json),
            job,
            tr("resumed"),
            lambda client, name: client.resume_job(name, reason=reason),
        )
    return _each(
        session_of(context, as_json), names, tr("resumed"), lambda client, name: client.resume(name, reason=reason)
    )


def _queues_or_job(names: list[str] | None, job: str) -> list[str]:
    if bool(names) == bool(job):
        raise InvalidInput("say what: either queues or --job NAME", hint="lcq queues and lcq jobs list them")
    return names or []


def _on_job(
    session: Session, job: str, done_word: str, act: Callable[[AsyncClient, str], Coroutine[Any, Any, AsideAnswer]]
) -> int:
    """Do ``act`` for the job, and say how far it is."""

    async def ask() -> AsideAnswer:
        async with session.client() as client:
            return await act(client, job)

    output = session.output
    answer = run(ask())
    if output.as_json:
        output.document({"done": [job], "refused": [], "moved": answer.moved, "is_last": answer.is_last})
    else:
        form = N("{done}: job {job} ({moved} waiting tasks)")
        if not answer.is_last:
            form = N("{done}: job {job} ({moved} waiting tasks by now)")
        output.say(tr(form, done=done_word, job=job, moved=answer.moved))
        if not answer.is_last:
            output.talk(tr("it holds for all of them from now on; the scheduler goes on with the others by itself"))
    return OK


def _each(
    session: Session,
    names: list[str],
    done_word: str,
    act: Callable[[AsyncClient, str], Coroutine[Any, Any, str | None]],
) -> int:
    """Do ``act`` for each name, and say for which it was done; one that is refused does not keep the others from it."""
    output = session.output
    done: list[str] = []
    refused: list[Refusal] = []

    async def ask() -> None:
        async with session.client() as client:
            for name in dict.fromkeys(names):
                try:
                    await act(client, name)
                except SchedulerUnreachable:
                    raise
                except LcqError as error:
                    refused.append(Refusal.of(name, error))
                    output.error(error)
                else:
                    done.append(name)

    run(ask())
    if output.as_json:
        output.document({"done": done, "refused": refused})
    elif done:
        output.say(tr("{done}: {names}", done=done_word, names=" ".join(done)))
    return REFUSED if refused else OK

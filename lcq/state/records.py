"""Redis hashes as our models: the one place that knows the fields' text form."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from hashlib import sha256

from pydantic import ValidationError

from lcq.models import (
    Attempt,
    DeviceReading,
    DeviceSample,
    DeviceWish,
    Ease,
    ErrorClass,
    Event,
    Failure,
    JobSummary,
    Lowered,
    MinuteTally,
    NodeCapability,
    NodeRecord,
    NodeStatus,
    Note,
    Privacy,
    QueueConfig,
    QueueRecord,
    Skips,
    Task,
    TaskPriority,
    TaskRecord,
    TaskResult,
    TaskStatus,
    TaskType,
    explain_invalid,
)
from lcq.task_fields import size_of
from lcq.why import Hold
from lcq.wire import Orders

Hash = Mapping[str, str]
RECORD_DAMAGED = "record_damaged"  # the code of a task that was failed because of its record, as in _damage.lua
_PRIORITIES = frozenset(TaskPriority)
LONGEST_MESSAGE = 2000  # what a Failure may say; a move may have put words in front of what a node said


def digest_of(task_json: str) -> str:
    """What two submits of the same task have in common: its JSON but for the id.

    A client that lost its answer may come with the same key and a new id.
    """
    told = json.loads(task_json)
    told.pop("id")
    return sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()


def granted_task(task_id: str, text: str, digest: str) -> Task:
    """The task that was submitted as ``task_id``, or has been changed since by a move; ``digest`` is that of ``text``.

    Raises:
        ValueError: it is not what was submitted.
    """
    task = Task.from_json(text)
    if task.id != task_id:
        raise ValueError(f"its JSON is that of task {task.id}")
    if digest_of(text) != digest:
        raise ValueError("its JSON is not what was submitted: the digest differs")
    return task


def may_leave(task_json: str) -> bool:
    """Whether a task's pictures may leave the house; not so where its JSON cannot be read."""
    try:
        told = json.loads(task_json)
    except ValueError:
        return False
    return isinstance(told, dict) and told.get("privacy") == Privacy.EXPORTABLE


def told_damage(error: Exception) -> str:
    """What is wrong with a record, in one line."""
    if isinstance(error, ValidationError):
        return explain_invalid(error)[:500]
    if isinstance(error, KeyError):
        return f"has no {error}"
    return " ".join(str(error).split())[:500] or type(error).__name__


def damaged_task(task_id: str, fields: Hash, found: str) -> TaskRecord:
    """What can be shown of a task whose record cannot be read."""
    try:
        status = TaskStatus(fields.get("status", ""))
    except ValueError:
        status = TaskStatus.FAILED
    return TaskRecord(
        task=Task(id=task_id, task_type=TaskType.INPAINT, image_path=fields.get("image") or "?"),
        status=status,
        revision=whole(fields.get("rev")),
        queue=fields.get("queue", ""),
        priority=TaskPriority.NORMAL,
        failure=Failure(
            error_class=ErrorClass.BAD_INPUT, code=RECORD_DAMAGED, message=f"its record cannot be read: {found}"
        ),
        why=f"its record cannot be read: {found}",
        damaged=found or "?",
    )


def damaged_node(node_id: str, found: str) -> NodeRecord:
    """What can be shown of a node whose record cannot be read."""
    return NodeRecord(
        id=node_id,
        boot_id="",
        status=NodeStatus.OFFLINE,
        capability=NodeCapability(),
        why=f"its record cannot be read: {found}",
        damaged=found or "?",
    )


def _integer(fields: Hash, name: str) -> int | None:
    text = fields.get(name)
    return int(float(text)) if text else None


def task_record(fields: Hash) -> TaskRecord:
    failure = None
    if fields.get("code"):
        failure = Failure(
            error_class=ErrorClass(fields["class"]),
            code=fields["code"],
            message=fields.get("message", "")[:LONGEST_MESSAGE],
        )
    task = Task.from_json(fields["json"])
    if "requires" in fields:  # an operator's reroute has changed that
        task = Task.model_validate(task.model_dump() | {"requires": json.loads(fields["requires"])})
    return TaskRecord(
        task=task,
        status=TaskStatus(fields["status"]),
        revision=int(fields["rev"]),
        queue=fields["queue"],
        priority=TaskPriority(fields["priority"]),
        pinned_node=fields.get("pinned", ""),
        forced=fields.get("forced") == "1",
        attempt=_integer(fields, "attempt") or 0,
        retries=_integer(fields, "retries") or 0,
        node=fields.get("node", ""),
        device=fields.get("device", ""),
        progress=float(fields.get("progress") or 0),
        stage=fields.get("stage", ""),
        submitted_ms=_integer(fields, "submitted_ms") or 0,
        updated_ms=_integer(fields, "updated_ms") or 0,
        due_ms=_integer(fields, "due_ms"),
        started_ms=_integer(fields, "started_ms"),
        finished_ms=_integer(fields, "finished_ms"),
        lease_deadline_ms=_integer(fields, "deadline_ms"),
        failure=failure,
        result=TaskResult.model_validate_json(fields["result"], extra="ignore") if fields.get("result") else None,
        eased=steps(fields.get("eased", "")),
        vram_mib=_integer(fields, "vram") or 0,
        size=size_of(fields.get("size", "")),
        cost_s=float(fields.get("cost") or 0),
        ends_ms=_integer(fields, "ends_ms"),
        why=fields.get("why", ""),
        notes=notes(fields.get("notes", "")),
    )


def notes(text: str) -> tuple[Note, ...]:
    """What people have said; what cannot be read is left out."""
    try:
        told = json.loads(text) if text else []
        return tuple(Note.model_validate(one, extra="ignore") for one in told)
    except (ValueError, TypeError):
        return ()


def backlog(fields: Hash) -> dict[tuple[TaskPriority, str], float]:
    """What waits in a queue, by band and lane, in seconds; a field that cannot be read counts for nothing."""
    found = {}
    for name, text in fields.items():
        priority, _, lane = name.partition("/")
        if priority in _PRIORITIES and whole(text) > 0:
            found[TaskPriority(priority), lane] = whole(text) / 1000
    return found


def whole(text: str | None) -> int:
    """A counter's value; one that is no number counts nothing."""
    try:
        return int(text or 0)
    except ValueError:
        return 0


def real(text: str | None) -> float:
    """A number of seconds; what is none counts nothing."""
    try:
        return float(text or 0)
    except ValueError:
        return 0.0


def steps(text: str) -> tuple[Ease, ...]:
    """The steps by which a task was made easier."""
    return tuple(Ease(step) for step in text.split(",") if step)


def attempt(text: str, number: int) -> Attempt:
    """The task's attempt of this number; one that says only that it is damaged where it cannot be read."""
    try:
        found = Attempt.model_validate_json(text, extra="ignore")
    except ValidationError:
        return Attempt(number=number, node="", started_ms=0, outcome="damaged")
    return found if found.number == number else Attempt(number=number, node="", started_ms=0, outcome="damaged")


def event(stream_id: str, fields: Hash) -> Event:
    rest = dict(fields)
    return Event(id=stream_id, move=rest.pop("move", ""), fields=rest)


@lru_cache(maxsize=4096)
def _capability(text: str) -> NodeCapability:
    """What a node can do: read anew only where it has said something else, for all nodes are read twice a second."""
    return NodeCapability.model_validate_json(text, extra="ignore")


def serves(text: str) -> dict[str, tuple[str, ...]]:
    """Device -> the queues it serves."""
    return {device: tuple(queues) for device, queues in json.loads(text or "{}").items()}


def orders(text: str, now_ms: int) -> Orders:
    """What a node is to be told, as settle_node in _prelude.lua has written it."""
    told = json.loads(text or "{}")
    due = told.get("hand_back_ms")
    return Orders(
        slots=told.get("slots") or {},
        out=told.get("out") or {},
        hand_back_s=None if due is None else max(0.0, (due - now_ms) / 1000),
        stop=bool(told.get("stop")),
    )


def probed_devices(text: str) -> tuple[str, ...]:
    """The devices in quarantine that are probed when their time has come."""
    return tuple(json.loads(text).get("probed") or ()) if text else ()


def _of_devices(fields: Hash, name: str) -> dict[str, str]:
    """What the record says of devices: device -> the field ``name`` of it."""
    return {field.partition("@")[2]: value for field, value in fields.items() if field.startswith(f"{name}@")}


def node_record(node_id: str, fields: Hash, running: int) -> NodeRecord:
    out = _of_devices(fields, "out")
    blame_ms = _of_devices(fields, "blame_ms")
    device_blame = {
        device: (float(value), int(float(blame_ms.get(device, 0))))
        for device, value in _of_devices(fields, "blame").items()
    }
    blame = max(((float(fields.get("blame") or 0), _integer(fields, "blame_ms") or 0), *device_blame.values()))
    on_probation = {device: whole(value) for device, value in _of_devices(fields, "probation").items()}
    readings = {
        device: DeviceReading.model_validate(told, extra="ignore")
        for device, told in json.loads(fields.get("readings") or "{}").items()
    }
    doubted = {device: why for device, why in _of_devices(fields, "doubt").items() if device in readings}
    serves_now = serves(fields["serves"])
    by_device = json.loads(fields.get("by_device") or "{}")
    record = NodeRecord(
        id=node_id,
        boot_id=fields["boot"],
        status=NodeStatus(fields["status"]),
        capability=_capability(fields["capability"]),
        serves=serves_now,
        registered_ms=_integer(fields, "registered_ms") or 0,
        seen_ms=_integer(fields, "seen_ms") or 0,
        beat_ms=_integer(fields, "beat_ms") or 0,
        lease_ms=_integer(fields, "lease_ms") or 0,
        scheduler=fields.get("at", ""),
        running=running,
        idle_ms=_integer(fields, "idle_ms") or 0,
        completed=_integer(fields, "completed") or 0,
        failed=_integer(fields, "failed") or 0,
        telemetry=json.loads(fields.get("telemetry") or "{}"),
        readings=readings,
        why=fields.get("why", ""),
        blame=blame[0],
        blame_ms=blame[1],
        probation=max((_integer(fields, "probation") or 0, *on_probation.values())),
        probe_ms=_integer(fields, "probe_ms"),
        relabelled=json.loads(fields.get("relabelled") or "{}"),
        good_for={device: tuple(can["queues"]) for device, can in by_device.items()} or serves_now,
        wishes={
            device: DeviceWish.model_validate(wish, extra="ignore")
            for device, wish in json.loads(fields.get("set") or "{}").items()
        },
        quarantined=out,
        device_blame=device_blame,
        on_probation=on_probation,
        lowered={
            device: Lowered.model_validate_json(told, extra="ignore")
            for device, told in _of_devices(fields, "slow").items()
        },
        doubted={device: why for device, why in doubted.items() if readings[device].alarm},
        hand_back_ms=_integer(fields, "hand_back_ms"),
        stopping=bool(fields.get("stopping")) and fields.get("stopping") == fields["boot"],
    )
    if record.is_quarantined_by_device and record.status in (NodeStatus.ONLINE, NodeStatus.SUSPECT):
        why = "; ".join(f"{device}: {reason}" for device, reason in sorted(out.items()))
        return record.model_copy(update={"status": NodeStatus.QUARANTINED, "why": why})
    return record


def hold(fields: Hash) -> Hold | None:
    """Who has paused a queue; None where nobody has."""
    if fields.get("paused") != "1":
        return None
    return Hold(
        by=fields.get("paused_by", ""),
        reason=fields.get("paused_reason", ""),
        since_ms=_integer(fields, "paused_ms"),
    )


def hold_of_job(text: str) -> Hold:
    """Who has paused a job."""
    told = json.loads(text)
    return Hold(by=str(told.get("by", "")), reason=str(told.get("reason", "")), since_ms=told.get("at_ms"))


def queue_record(
    config: QueueConfig,
    fields: Hash,
    counts: dict[TaskStatus, int],
    oldest_ms: int | None,
    nodes: tuple[str, ...],
) -> QueueRecord:
    return QueueRecord(
        config=config,
        paused=fields.get("paused") == "1",
        paused_by=fields.get("paused_by", ""),
        paused_reason=fields.get("paused_reason", ""),
        paused_ms=_integer(fields, "paused_ms"),
        counts=counts,
        oldest_queued_ms=oldest_ms,
        nodes=nodes,
    )


def pause_of(text: str) -> tuple[str, int]:
    """Who paused a job and why, in words that follow "paused", and since when."""
    try:
        told = json.loads(text)
        reason = f": {told['reason']}" if told["reason"] else ""
        return f"by {told['by']}{reason}", int(told["at_ms"])
    except (ValueError, KeyError, TypeError):
        return "by nobody knows whom", 0


def job_summary(name: str, submitted_ms: float, fields: Hash, pause: tuple[str, int] | None = None) -> JobSummary:
    counts = {status: count for status in TaskStatus if (count := whole(fields.get(status)))}
    told, since_ms = pause or ("", None)

    def summed(field: str) -> float:  # nothing where an older version has begun the job, which kept no sums
        return max(0, whole(fields.get(field))) / 1000 if "summed" in fields else 0.0

    return JobSummary(
        name=name,
        submitted_ms=int(submitted_ms),
        counts=counts,
        paused=told,
        paused_ms=since_ms,
        left_s=summed("left_ms"),
        done_predicted_s=summed("done_cost_ms"),
        done_spent_s=summed("spent_ms"),
        seconds=summed("work_ms"),
        megapixels=summed("pixels") / 1000,
        skipped=_skips(fields.get("skipped", "")),
    )


def _skips(text: str) -> tuple[Skips, ...]:
    try:
        return tuple(Skips.model_validate(one, extra="ignore") for one in json.loads(text or "[]"))
    except (ValueError, TypeError):
        return ()


# ---------------------------------------------------------------- histories, for charts

_TALLIES = ("submitted", "claimed", "completed", "failed", "cancelled")
_GAUGES = ("waiting", "running")
_DEVICES = ("busy_told", "busy_percent", "used_mib", "total_mib")


def minute_fields(queues: Sequence[str]) -> list[str]:
    """What is read of a minute's counters."""
    of_queues = [f"{kind}/{queue}" for kind in ("waiting", "completed", "came", "left") for queue in queues]
    return [*_TALLIES, *_GAUGES, *_DEVICES, "flows", *of_queues]


def minute_tally(minute: int, told: Mapping[str, str | None], queues: Sequence[str]) -> MinuteTally:
    """One minute of what ``minute_fields`` names. Counters of an older scheduler have no gauges."""
    tallies = {name: whole(told[name]) for name in _TALLIES}
    gauges = {name: None if told[name] is None else whole(told[name]) for name in _GAUGES}
    devices, percent, used, total = (whole(told[name]) for name in _DEVICES)
    return MinuteTally(
        minute=minute,
        **tallies,
        **gauges,
        waiting_in={q: whole(told[f"waiting/{q}"]) for q in queues if told[f"waiting/{q}"] is not None},
        completed_in={q: count for q in queues if (count := whole(told[f"completed/{q}"]))},
        came_in={q: whole(told[f"came/{q}"]) for q in queues} if told["flows"] else {},
        left_in={q: whole(told[f"left/{q}"]) + whole(told[f"completed/{q}"]) for q in queues} if told["flows"] else {},
        busy=min(1.0, percent / 100 / devices) if devices else None,
        memory=min(1.0, used / total) if total else None,
    )


def device_history(texts: Iterable[str]) -> dict[str, tuple[DeviceSample, ...]]:
    """The samples of a node by device, in the order in which they came; what cannot be read is left out."""
    found: dict[str, list[DeviceSample]] = {}
    for text in texts:
        try:
            sample = json.loads(text)
            for device, values in sample["devices"].items():
                busy, used, total, heat, power = (None if value < 0 else value for value in values)
                found.setdefault(device, []).append(
                    DeviceSample(
                        at_ms=sample["at"],
                        busy=None if busy is None else min(1.0, busy / 100),
                        used_mib=used,
                        total_mib=total,
                        temperature_c=heat,
                        power_w=power,
                    )
                )
        except (ValueError, KeyError, TypeError, AttributeError):
            continue
    return {device: tuple(samples) for device, samples in found.items()}

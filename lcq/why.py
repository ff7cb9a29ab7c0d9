"""Why a task is where it is: one reason of the closed list, from a picture of the fleet and of its place. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from lcq.costs import Prediction
from lcq.errors import NodeNotFound, UnknownModel, UnknownQueue
from lcq.function_state import FunctionState, state_of
from lcq.labels import split_lane
from lcq.models import (
    Device,
    DeviceKind,
    ErrorClass,
    NodeRecord,
    NodeStatus,
    TaskPriority,
    TaskRecord,
    TaskStatus,
    model_of,
)
from lcq.placement import WORTH_WAITING_S
from lcq.reasons import Fact, Why, WhyCode, about, because
from lcq.routing import (
    WARM_NEEDS,
    Fleet,
    Requirements,
    is_barred,
    requirements_of,
    route,
    told_steps,
    why_no_queue,
)

_Z90 = 1.2816  # standard deviations from the middle of a bell to its P90
OVER_BUDGET = "over the retry budget"  # what fail_attempt in _prelude.lua begins with, where a budget is spent


@dataclass(frozen=True)
class Hold:
    """Who holds a queue or a job back, and since when."""

    by: str
    reason: str = ""
    since_ms: int | None = None


@dataclass(frozen=True)
class Standing:
    """What Redis knows of a task's place beside its record, at one moment."""

    now_ms: int = 0
    ahead: Mapping[str, int] = field(default_factory=dict)  # by lane: the tasks before it that its devices read too
    higher: int | None = 0  # of these: of a higher band; None: not known, for an older LCQ has put some there
    own: int = 0  # of these: of its user, and not of a higher band
    avoids: str = ""  # the node that failed it, and is not to have it
    paused: Hold | None = None  # its queue
    job_paused: Hold | None = None
    depths: Mapping[tuple[str, str], int] = field(default_factory=dict)  # queued tasks by queue and lane
    in_flight: int = 0  # tasks of its user that run
    most_in_flight: int | None = None  # that may run; None: as many as like
    kept: Mapping[tuple[str, str], int] = field(default_factory=dict)  # by node and device: slots for people who wait

    @property
    def behind(self) -> int:
        return sum(self.ahead.values())

    @property
    def others(self) -> int:
        """Of these: of other users, and not of a higher band."""
        return 0 if self.higher is None else self.behind - self.higher - self.own


UNPLACED = Standing()


def rivals(record: TaskRecord, fleet: Fleet, lanes: Iterable[tuple[str, str]]) -> tuple[str, ...]:
    """The lanes, of those that hold tasks, whose tasks compete with a queued one: its devices read them too.

    ``lanes`` as ``StateReader.lanes`` has them. Of a task that is kept for a node: the lanes kept for it that the node
    can read; they have its name for a queue, ``@node``.
    """
    own = record.task.lane
    try:
        need = requirements_of(record, fleet)
    except UnknownModel:
        return (own,)
    devices = list(_candidates(record, need, fleet))
    owner = f"@{record.pinned_node}" if record.pinned_node else record.queue
    there = {lane for queue, lane in lanes if queue == owner}
    if record.pinned_node:  # which lanes are kept for a node is not listed: it may be any that it can read
        there |= {lane for node, device in devices for lane in node.capability.lanes_of(device)}
    found = {lane for lane in there if any(node.reads(device, lane) for node, device in devices)}
    return tuple(sorted(found | {own}))


def _candidates(record: TaskRecord, need: Requirements, fleet: Fleet) -> Iterable[tuple[NodeRecord, Device]]:
    """The devices that would take the task where it waits."""
    if not record.pinned_node:
        yield from fleet.serving(record.queue, need)
        return
    node = fleet.node(record.pinned_node)
    if node is None:
        return
    queue = fleet.queue(record.queue)
    for device in node.capability.devices:
        if node.capability.can_run(device, need.model, need.task_type) and (queue is None or device.kind is queue.kind):
            yield node, device


# ---------------------------------------------------------------- the one reason


def why_of(record: TaskRecord, fleet: Fleet, standing: Standing = UNPLACED) -> Why:
    """Why a task waits, or what became of it: one line that a person can act on, with its code and its facts."""
    if record.damaged:
        return because(WhyCode.DAMAGED, f"its record cannot be read: {record.damaged}", found=record.damaged)
    match record.status:
        case TaskStatus.PENDING:
            return _pending(record, standing)
        case TaskStatus.QUEUED:
            return _with_deadline(_queued(record, fleet, standing), record, standing)
        case TaskStatus.PROCESSING:
            return _with_deadline(_running(record, fleet, standing), record, standing)
        case TaskStatus.COMPLETED:
            took = f" in {record.result.seconds:.2f} s" if record.result else ""
            path = record.result.path if record.result else ""
            late = _after_deadline(record.finished_ms, record)
            return because(
                WhyCode.COMPLETED,
                f"completed by {record.node}{took}{f', {late}' if late else ''}",
                node=record.node,
                result=path,
                finished_ms=record.finished_ms,
            )
        case TaskStatus.FAILED:
            return _failed(record)
        case TaskStatus.CANCELLED:
            told = f"cancelled{' ' if record.why else ''}{record.why}"
            return because(WhyCode.CANCELLED, told, by=record.why, finished_ms=record.finished_ms)


def _with_deadline(why: Why, record: TaskRecord, standing: Standing) -> Why:
    """``why``, with what is predicted of the task's deadline."""
    deadline_ms = record.task.deadline_ms
    if deadline_ms is None or not standing.now_ms:
        return why
    told = f"{why.text}; to be done by {_moment(deadline_ms, standing.now_ms)}"
    if standing.now_ms > deadline_ms:
        told += ", which is missed"
    elif late := _after_deadline(why.facts.get("finish_p50_ms"), record):
        told += f", and would be {late}"
    return why.model_copy(update={"text": told})


def _after_deadline(done_ms: Fact, record: TaskRecord) -> str:
    """How late it is by its deadline; "" where it is not."""
    deadline_ms = record.task.deadline_ms
    if deadline_ms is None or not isinstance(done_ms, int) or done_ms <= deadline_ms:
        return ""
    return f"{about((done_ms - deadline_ms) / 1000)} after its deadline"


def _pending(record: TaskRecord, standing: Standing) -> Why:
    failure, due_ms = record.failure, record.due_ms
    until = f", until {_moment(due_ms, standing.now_ms)}" if due_ms else ""
    if failure is None:
        return because(WhyCode.SCHEDULED, f"waits for its time{until}", until_ms=due_ms)
    if record.why.startswith(OVER_BUDGET):
        return because(
            WhyCode.RETRY_BUDGET,
            f"waits for its retry after {failure.code}: {record.why}{until}",
            until_ms=due_ms,
            failure=failure.code,
            budget=record.why,
        )
    because_of = f": {record.why}" if record.why else f" (retry {record.retries} of {record.task.max_retries})"
    return because(
        WhyCode.BACKOFF,
        f"waits for its retry after {failure.code}{because_of}{until}",
        until_ms=due_ms,
        failure=failure.code,
        retries=record.retries,
        max_retries=record.task.max_retries,
    )


def _failed(record: TaskRecord) -> Why:
    failure = record.failure
    told = f"failed: {failure.code}: {failure.message}" if failure else "failed"
    why = because(
        WhyCode.FAILED,
        told,
        failure=failure.code if failure else "",
        error_class=failure.error_class.value if failure else "",
        node=record.node,
        finished_ms=record.finished_ms,
    )
    if failure is not None and failure.error_class is ErrorClass.BAD_INPUT:
        return why.model_copy(update={"hint": "mend its input, then lcq retry ID"})
    return why


def _running(record: TaskRecord, fleet: Fleet, standing: Standing) -> Why:
    easier = f", with {told_steps(record.eased)}" if record.eased else ""
    told = f"runs on {record.node} ({record.device}), attempt {record.attempt}, {record.progress:.0%}{easier}"
    node = fleet.node(record.node)
    if node is not None and node.status is NodeStatus.SUSPECT:
        return _suspect(node, f"{told}; that node is suspect: {node.why}", standing)
    finish: tuple[int | None, int | None] = (None, None)
    device = next((one for one in node.capability.devices if one.id == record.device), None) if node else None
    if node is not None and device is not None and record.started_ms and standing.now_ms:
        need = requirements_of(record, fleet)
        offer = node.capability.models.get(need.model)
        curve = fleet.costs.curve(need.model, device, precision=need.precision, offer=offer)
        lowered = node.lowered.get(device.id)
        run = curve.scaled(lowered.behind if lowered else 1.0).predict(need.megapixels)
        ends = [record.started_ms + int(s * 1000) for s in (run.seconds_p50, run.seconds_p90)]
        finish = (max(standing.now_ms, ends[0]), max(standing.now_ms, ends[1]))
        if standing.now_ms > ends[1]:
            told += f"; it takes longer than predicted ({about(run.seconds_p90)})"
        else:
            told += f"; done in about {_spans(finish, standing.now_ms)}{', a guess' if run.guessed else ''}"
    if is_barred(record, fleet):
        told += "; its pictures may not leave the house any more: another attempt would be made in the house"
    return because(
        WhyCode.RUNNING,
        told,
        node=record.node,
        device=record.device,
        attempt=record.attempt,
        since_ms=record.started_ms,
        progress=record.progress,
        finish_p50_ms=finish[0],
        finish_p90_ms=finish[1],
    )


def _suspect(node: NodeRecord, told: str, standing: Standing) -> Why:
    silent_ms = max(0, standing.now_ms - node.seen_ms) if standing.now_ms else None
    return because(WhyCode.SUSPECT_NODE, told, node=node.id, silent_ms=silent_ms)


# ---------------------------------------------------------------- queued


def _queued(record: TaskRecord, fleet: Fleet, standing: Standing) -> Why:
    held = _held_back(record, fleet, standing)
    if held is not None:
        return held
    if is_barred(record, fleet):
        told = f"{record.queue} is a queue of functions, and its pictures may not leave the house"
        return because(WhyCode.MAY_NOT_LEAVE, told, queue=record.queue)
    try:
        need = requirements_of(record, fleet)
        if not need.kinds:
            return why_no_queue(need, record.task.device, record.queue)
        here = {"queue": record.queue, "node": record.pinned_node}
        reason = route(record.task, fleet, **here, size=record.size, eased=record.eased).reason
    except NodeNotFound:
        told = f"is kept for node {record.pinned_node}, which is gone; lcq reroute it"
        return because(WhyCode.PINNED_NODE_GONE, told, node=record.pinned_node)
    except UnknownModel as error:
        return because(WhyCode.NO_MODEL, str(error), model=record.task.model, node="", left_out="")
    except UnknownQueue as error:
        return because(WhyCode.NO_QUEUE, str(error), queue=record.queue)
    if reason is not None:
        return _until_tried(reason, fleet, standing)
    serving = list(_candidates(record, need, fleet))
    return (
        _all_suspect(serving, standing)
        or _short_of_memory(record, need, fleet, serving)
        or _avoiding(record, serving, standing)
        or _no_budget(record, fleet, serving)
        or _at_limit(record, standing)
        or _kept_slots(record, fleet, serving, standing)
        or _while_tried(_its_turn(record, need, fleet, serving, standing), serving)
    )


def _until_tried(why: Why, fleet: Fleet, standing: Standing) -> Why:
    """``why``, where that is a function which rests: with when it is tried again, if its agent tells that."""
    if why.code is not WhyCode.ENDPOINT_AWAY:
        return why
    node = fleet.node(str(why.facts["node"]))
    reading = node.readings.get(str(why.facts["device"])) if node else None
    function = reading.function if reading else None
    until_ms = function.rests_until_ms if function else None
    told = why.text
    if function is not None and until_ms is not None:
        when = _moment(until_ms, standing.now_ms)
        told = "; ".join((told, f"it is tried again at {when}, calls in vain so far: {function.in_vain:,}"))
    return why.model_copy(update={"text": told, "facts": {**why.facts, "until_ms": until_ms}})


def _while_tried(why: Why, serving: Sequence[tuple[NodeRecord, Device]]) -> Why:
    """``why``, where functions alone are left to run it, and each of them is tried by one call at a time: with that."""
    for node, device in serving:
        reading = node.readings.get(device.id)
        if reading is None or state_of(reading) is not FunctionState.TRIED:
            return why
    if not serving:
        return why
    node, device = serving[0]
    tried = f"{device.id} of node {node.id} was away, and is tried by one call at a time"
    return why.model_copy(update={"text": "; ".join((why.text, tried))})


def _held_back(record: TaskRecord, fleet: Fleet, standing: Standing) -> Why | None:
    job = record.task.job or ""
    if job in fleet.paused_jobs or standing.job_paused is not None:
        hold = standing.job_paused or Hold(by=fleet.paused_jobs[job])
        told = f"job {job} is paused {_by(hold, fleet.paused_jobs.get(job, ''), standing)}"
        return because(WhyCode.JOB_PAUSED, told, job=job, by=hold.by, reason=hold.reason, since_ms=hold.since_ms)
    queue = record.queue
    if queue in fleet.paused or standing.paused is not None:
        hold = standing.paused or Hold(by=fleet.paused[queue])
        told = f"queue {queue} is paused {_by(hold, fleet.paused.get(queue, ''), standing)}"
        return because(WhyCode.QUEUE_PAUSED, told, queue=queue, by=hold.by, reason=hold.reason, since_ms=hold.since_ms)
    return None


def _by(hold: Hold, told: str, standing: Standing) -> str:
    who = told or f"by {hold.by}" + (f": {hold.reason}" if hold.reason else "")
    return who + (f", since {_moment(hold.since_ms, standing.now_ms)}" if hold.since_ms else "")


def _all_suspect(serving: list[tuple[NodeRecord, Device]], standing: Standing) -> Why | None:
    if not serving or any(node.status is not NodeStatus.SUSPECT for node, _ in serving):
        return None
    node = max((node for node, _ in serving), key=lambda one: (one.seen_ms, one.id))
    return _suspect(node, f"waits for node {node.id}, which could run it and is suspect: {node.why}", standing)


def _short_of_memory(
    record: TaskRecord, need: Requirements, fleet: Fleet, serving: Iterable[tuple[NodeRecord, Device]]
) -> Why | None:
    """What every device that could run this is short of, where that is memory; else nothing."""
    short: list[tuple[int, str, str, int, int, int]] = []
    said: dict[tuple[str, str], str] = {}
    for node, device in serving:
        reading = node.readings.get(device.id)
        if device.kind is not DeviceKind.GPU or reading is None or reading.free_mib is None:
            return None
        needed = fleet.claim_need(node, device, need, record.vram_mib)
        if need.model in reading.warm:
            needed = int(needed * WARM_NEEDS)
        if reading.free_mib >= needed:
            return None
        total = device.vram_mib if reading.total_mib is None else reading.total_mib
        others = f" (other programs hold {reading.foreign_mib:,})" if reading.foreign_mib else ""
        told = f"gpu {device.id} of node {node.id} has {reading.free_mib:,} of {total:,} MiB free{others}"
        said[node.id, device.id] = f"{told}, it needs {needed:,}"
        missing = needed - reading.free_mib
        short.append((missing, node.id, device.id, needed, reading.free_mib, reading.foreign_mib or 0))
    if not short:
        return None
    missing, node_id, device_id, needed, free, foreign = min(short)
    more = f"; so with {len(short) - 1} more" if len(short) > 1 else ""
    return because(
        WhyCode.SHORT_OF_MEMORY,
        f"waits for memory: {said[node_id, device_id]}{more}",
        node=node_id,
        device=device_id,
        needs_mib=needed,
        free_mib=free,
        misses_mib=missing,
        foreign_mib=foreign,
    )


def _avoiding(record: TaskRecord, serving: list[tuple[NodeRecord, Device]], standing: Standing) -> Why | None:
    """That it is left to other nodes by the only one which has a slot."""
    others = sorted({node.id for node, _ in serving if node.id != standing.avoids})
    if not standing.avoids or record.pinned_node or not others or len(others) == len({n.id for n, _ in serving}):
        return None
    if any(_free_slots(node) for node, _ in serving if node.id in others):
        return None
    if not any(_free_slots(node) for node, _ in serving if node.id == standing.avoids):
        return None
    told = f"node {standing.avoids} failed it, so it waits for a slot of {', '.join(others)}"
    return because(WhyCode.AVOIDS_NODE, told, node=standing.avoids)


def _no_budget(record: TaskRecord, fleet: Fleet, serving: Sequence[tuple[NodeRecord, Device]]) -> Why | None:
    """That only functions serve it where it is, and there is no money for them now."""
    if fleet.overflow is None or any(device.kind is not DeviceKind.SERVERLESS for _, device in serving):
        return None
    lack = fleet.overflow.lack(record.task.user_id, record.task.job or "")
    return because(WhyCode.NO_BUDGET, lack, queue=record.queue) if lack else None


def _at_limit(record: TaskRecord, standing: Standing) -> Why | None:
    most = standing.most_in_flight
    if most is None or standing.in_flight < most:
        return None
    user = record.task.user_id
    told = f"user {user} has {standing.in_flight} running, as many as it may ({most})"
    return because(WhyCode.USER_LIMIT, told, user=user, in_flight=standing.in_flight, most=most)


def _kept_slots(
    record: TaskRecord, fleet: Fleet, serving: Iterable[tuple[NodeRecord, Device]], standing: Standing
) -> Why | None:
    """That all slots which are free are kept for people who wait, and it would have one of them else."""
    if not standing.kept or record.priority.band <= TaskPriority.HIGH.band:
        return None
    free: list[str] = []  # a slot each: whose it is
    for node, device in serving:
        station = fleet.timetable.stations.get((node.id, device.id))
        here = station.free_s.count(0.0) if station else 0
        if here > standing.kept.get((node.id, device.id), 0):
            return None
        free += [node.id] * here
    if standing.behind >= len(free):
        return None
    told = f"waits while slots are kept for people who wait for a picture: all that node {free[0]} has free"
    return because(WhyCode.KEPT_SLOTS, told, node=free[0], kept=len(free))


def _free_slots(node: NodeRecord) -> int:
    return max(0, node.slots - node.running)


# ---------------------------------------------------------------- its turn


def _taken_first(
    record: TaskRecord, fleet: Fleet, serving: Iterable[tuple[NodeRecord, Device]], standing: Standing
) -> dict[tuple[str, str], int]:
    """What waits in queues of classes above, which the devices that could run it serve too, by queue and lane.

    Of the device that has the least of that; so it is nothing where one would turn to the task's queue at once.
    """
    least: dict[tuple[str, str], int] | None = None
    for node, device in serving:
        served = node.serves.get(device.id, ())
        earlier = served[: served.index(record.queue)] if record.queue in served and not record.pinned_node else ()
        found = {
            (queue, lane): count
            for (queue, lane), count in standing.depths.items()
            if count and queue in earlier and queue not in fleet.paused and node.reads(device, lane)
        }
        if least is None or sum(found.values()) < sum(least.values()):
            least = found
    return least or {}


@dataclass(frozen=True)
class Forecast:
    """When a waiting task is predicted to start and to be done, in seconds from now."""

    start_p50_s: float
    start_p90_s: float
    finish_p50_s: float
    finish_p90_s: float
    guessed: bool = False  # by estimates that nobody has measured


def forecast(
    record: TaskRecord,
    need: Requirements,
    fleet: Fleet,
    serving: Iterable[tuple[NodeRecord, Device]],
    standing: Standing,
    first: Mapping[tuple[str, str], int],
) -> Forecast | None:
    """When a task is predicted to start and to be done; None where no device takes it.

    The work before it (``first`` before its queue is turned to) flows evenly over the slots that may do it, each as
    fast as its device is at this model, from when it is free. Single attempts vary as their curves say, each by
    itself, which the P90 allows for.
    """
    timetable = fleet.timetable
    slots: list[tuple[float, float]] = []
    runs: list[Prediction] = []
    free = 0
    for node, device in serving:
        station = timetable.stations.get((node.id, device.id))
        if station is None:
            continue
        offer = node.capability.models.get(need.model)
        curve = fleet.costs.curve(need.model, device, precision=need.precision, offer=offer).scaled(station.behind)
        run = curve.predict(need.megapixels, warm=need.model in station.warm)
        typical = fleet.costs.typical(need.model, device.kind, precision=need.precision, offer=offer)
        speed = _share(typical.seconds(need.megapixels), curve.seconds(need.megapixels))
        slots += [(free_s, speed) for free_s in station.free_s]
        runs += [run] * len(station.free_s)
        if not _is_left(record, need, fleet, node, device):
            free += station.free_s.count(0.0)
    if not slots:
        return None
    work_s, variance = _work(record, need, fleet, standing, first)
    speed = sum(own for _, own in slots)
    p50 = sum(run.seconds_p50 for run in runs) / len(runs)
    own = _deviation(p50, sum(run.seconds_p90 for run in runs) / len(runs))
    start = 0.0 if standing.behind + sum(first.values()) < free else _flowed(slots, work_s)
    spread = math.sqrt(variance + sum(free_s > 0 for free_s, _ in slots) * own**2) / speed if start else 0.0
    return Forecast(
        start_p50_s=start,
        start_p90_s=start + _Z90 * spread,
        finish_p50_s=start + p50,
        finish_p90_s=start + p50 + _Z90 * math.hypot(spread, own),
        guessed=any(run.guessed for run in runs),
    )


def _work(
    record: TaskRecord, need: Requirements, fleet: Fleet, standing: Standing, first: Mapping[tuple[str, str], int]
) -> tuple[float, float]:
    """Typical seconds of what is before a task, and how much that varies, squared."""
    own = {(record.queue, lane): count for lane, count in standing.ahead.items()}
    own_s, own_variance = _work_of(own, need, fleet, standing)
    other_s, other_variance = _work_of(first, need, fleet, standing)
    if other_s <= 0:
        return own_s, own_variance
    # The devices share themselves between the users of all their queues: others are before it with what is of a higher
    # band, and in its own band with as much as is before it in its own queue, and one more.
    bands: dict[bool, float] = {}
    for name in {name for name, _ in first}:
        for (band, _), seconds in fleet.backlog.get(name, {}).items():
            if band.band <= record.priority.band:
                is_higher = band.band < record.priority.band
                bands[is_higher] = bands.get(is_higher, 0.0) + seconds
    even_s = own_s + next(iter(need.seconds.values()), 1.0)
    counted_s = min(other_s, bands.get(True, 0.0) + min(bands.get(False, 0.0), even_s)) if bands else other_s
    return own_s + counted_s, own_variance + other_variance * counted_s / other_s


def _work_of(
    before: Mapping[tuple[str, str], int], need: Requirements, fleet: Fleet, standing: Standing
) -> tuple[float, float]:
    """Typical seconds of so many tasks a queue and lane, and how much that varies, squared."""
    work_s = variance = 0.0
    for (name, lane), count in before.items():
        queue = fleet.queue(name)
        kind = queue.kind if queue else next(iter(need.kinds), DeviceKind.CPU)
        one = fleet.costs.typical(model_of(lane), kind).predict()
        base, _ = split_lane(lane)
        there_s = sum(seconds for (_, of), seconds in fleet.backlog.get(name, {}).items() if of == base)
        there = sum(
            many for (of, other), many in standing.depths.items() if of == name and split_lane(other)[0] == base
        )
        mean = there_s / there if there_s > 0 and there else one.seconds_p50
        work_s += count * mean
        variance += count * (mean * _share(_deviation(one.seconds_p50, one.seconds_p90), one.seconds_p50)) ** 2
    return work_s, variance


def _flowed(slots: list[tuple[float, float]], work_s: float) -> float:
    """Seconds until so much work has been done by slots of these (seconds until it is free, speed); and one is free."""
    speed, done, now = 0.0, 0.0, 0.0
    for free_s, own in sorted(slots):
        if speed and done + speed * (free_s - now) >= work_s:
            break
        done += speed * (free_s - now)
        now, speed = free_s, speed + own
    return now + max(0.0, work_s - done) / speed


def _is_left(record: TaskRecord, need: Requirements, fleet: Fleet, node: NodeRecord, device: Device) -> bool:
    """Whether that device leaves the task to faster ones, as ``claim_tasks`` does by the same terms."""
    if record.pinned_node or record.attempt or record.task.requires:
        return False
    timetable, name = fleet.timetable, (node.id, device.id)
    station = timetable.stations.get(name)
    lane, _ = split_lane(record.task.lane)
    terms = timetable.patience(name, station.warm if station else ()).get(record.queue, {}).get(lane)
    if station is None or terms is None:
        return False
    curve = timetable.curve(station, lane, need.precision)
    here = curve.predict(need.megapixels, warm=need.model in station.warm).seconds_p50
    return here - max(terms[0], terms[1] + here * terms[2]) > WORTH_WAITING_S


def _left_for_faster(
    record: TaskRecord,
    need: Requirements,
    fleet: Fleet,
    serving: Iterable[tuple[NodeRecord, Device]],
    standing: Standing,
    times: Forecast | None,
) -> Why | None:
    """That all slots which are free leave it to faster devices, and it would have one of them else."""
    stations = fleet.timetable.stations
    free = [
        (node, device, station.free_s.count(0.0))
        for node, device in serving
        if (station := stations.get((node.id, device.id))) is not None and 0.0 in station.free_s
    ]
    if not free or standing.behind >= sum(count for *_, count in free):
        return None
    if not all(_is_left(record, need, fleet, node, device) for node, device, _ in free):
        return None
    node = free[0][0]
    when = _when(times, standing) if times else ""
    told = f"waits for a faster device: node {node.id} has a slot, and would be done later{when}"
    return because(WhyCode.LEFT_FOR_FASTER, told, node=node.id, **_moments(times, standing))


def _share(whole: float, part: float) -> float:
    return whole / max(1e-6, part)


def _deviation(p50: float, p90: float) -> float:
    return max(0.0, p90 - p50) / _Z90


def _its_turn(
    record: TaskRecord,
    need: Requirements,
    fleet: Fleet,
    serving: list[tuple[NodeRecord, Device]],
    standing: Standing,
) -> Why:
    first = _taken_first(record, fleet, serving, standing)
    times = forecast(record, need, fleet, serving, standing, first)
    left = None if first else _left_for_faster(record, need, fleet, serving, standing, times)
    if left is not None:
        return left
    before = max(sorted({queue for queue, _ in first}), key=lambda name: _of_queue(first, name), default="")
    facts: dict[str, Fact] = {
        "queue": record.queue,
        "before_queue": before,
        "behind_queue": sum(first.values()),
        "behind": standing.behind,
        "behind_higher_bands": standing.higher,
        "behind_others": None if standing.higher is None else standing.others,
        **_moments(times, standing),
    }
    when = _when(times, standing)
    place = f"waits for its turn in {record.queue}"
    if first:
        waits = f"{_tasks(sum(first.values()))} wait{'s' if sum(first.values()) == 1 else ''} there"
        told = f"{place}; its devices take turns between its users and those of {before}, a class above ({waits})"
        return because(WhyCode.BEHIND_QUEUE, told + when, **facts)
    if standing.higher:
        told = f"{place} behind {_tasks(standing.higher)} of higher priority, {standing.behind} in all"
        return because(WhyCode.BEHIND_BAND, told + when, **facts)
    if standing.others:
        told = f"{place} behind {_tasks(standing.others)} of others by fair shares, {standing.behind} in all"
        return because(WhyCode.BEHIND_SHARE, told + when, **facts)
    own = "as the next one"
    if standing.behind:
        own = f"behind {_tasks(standing.behind)}" + (" of its user" if standing.higher is not None else "")
    return because(WhyCode.WAITS_TURN, f"{place}, {own}{when}", **facts)


def _of_queue(depths: Mapping[tuple[str, str], int], queue: str) -> int:
    return sum(count for (name, _), count in depths.items() if name == queue)


def _moments(times: Forecast | None, standing: Standing) -> dict[str, Fact]:
    """A forecast as facts."""
    if times is None or not standing.now_ms:
        return dict.fromkeys(("start_p50_ms", "start_p90_ms", "finish_p50_ms", "finish_p90_ms"))
    return {
        "start_p50_ms": _later(standing, times.start_p50_s),
        "start_p90_ms": _later(standing, times.start_p90_s),
        "finish_p50_ms": _later(standing, times.finish_p50_s),
        "finish_p90_ms": _later(standing, times.finish_p90_s),
    }


def _when(times: Forecast | None, standing: Standing) -> str:
    """A forecast in words, to stand behind others."""
    if times is None or not standing.now_ms:
        return ""
    begins = "starts now"
    if times.start_p90_s > 0:
        begins = f"starts in about {about(times.start_p50_s)} (P90 {about(times.start_p90_s)})"
    guessed = ", a guess" if times.guessed else ""
    return f"; {begins}, done in about {about(times.finish_p50_s)} (P90 {about(times.finish_p90_s)}){guessed}"


def _later(standing: Standing, seconds: float) -> int:
    return standing.now_ms + int(seconds * 1000)


# ---------------------------------------------------------------- words


def _tasks(count: int) -> str:
    return "1 task" if count == 1 else f"{count:,} tasks"


def _spans(moments: tuple[int | None, int | None], now_ms: int) -> str:
    p50, p90 = (max(0, (moment or now_ms) - now_ms) / 1000 for moment in moments)
    return f"{about(p50)} (P90 {about(p90)})"


def _moment(at_ms: int | None, now_ms: int) -> str:
    """A moment of Redis's clock; and how far away, where it is known what time it is there."""
    if at_ms is None:
        return "?"
    told = f"{datetime.fromtimestamp(at_ms / 1000, UTC):%Y-%m-%d %H:%M:%S}Z"
    if not now_ms:
        return told
    away_s = (at_ms - now_ms) / 1000
    return f"{told} (in {about(away_s)})" if away_s >= 0 else f"{told} ({about(-away_s)} ago)"

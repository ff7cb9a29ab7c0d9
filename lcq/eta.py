"""When a job is likely to be done: by what is left of it, who works on it, what else waits. Pure: no I/O, no clock."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from lcq.costs import ORDINARY_MEGAPIXELS
from lcq.errors import UnknownModel
from lcq.models import Eta, JobSummary, TaskRecord, TaskStatus
from lcq.routing import Fleet, requirements

_PRIOR_TASKS = 5  # as many done tasks weigh as much as what was predicted
_LEAST_SPREAD = 1.5  # P90 over P50, however well a job has kept to its predictions: slots are idle between attempts
_LAST_STEP_S = 0.5  # and for the last word to come, where the machine is busy
_UNSEEN_SPREAD = 2.0
_DEFAULT_S = 1.0  # a task of which nothing was predicted


@dataclass(frozen=True)
class Crew:
    """Who works on a job: slots that take its tasks, and how sure their predictions are (P90 over P50)."""

    slots: int
    spread: float = _UNSEEN_SPREAD
    why: str = ""  # where there are no slots


@dataclass(frozen=True)
class Rivals:
    """What else waits in the queues of a job, in predicted seconds."""

    before: float = 0.0  # of higher bands: it starts first
    others: Mapping[str, float] = field(default_factory=dict)  # of its own band, by user: slots are shared with them
    own: float = 0.0  # of other jobs of its own user


def crew_of(sample: Iterable[TaskRecord], fleet: Fleet) -> Crew:
    """The slots of all devices that take one of these tasks from where it waits."""
    slots: dict[tuple[str, str], int] = {}
    spreads: list[float] = []
    why = ""
    for record in sample:
        if record.queue in fleet.paused and record.status is not TaskStatus.PROCESSING:
            why = why or f"queue {record.queue} is paused {fleet.paused[record.queue]}"
            continue
        try:
            need = requirements(record.task, fleet)
        except UnknownModel as unknown:
            why = why or unknown.message
            continue
        for node, device in fleet.serving(record.queue, need):
            if record.pinned_node not in ("", node.id):
                continue
            if (node.id, device.id) not in slots:
                told = fleet.costs.predict(need.model, device, ORDINARY_MEGAPIXELS)
                spreads.append(told.seconds_p90 / max(told.seconds_p50, 1e-6))
            slots[node.id, device.id] = device.slots
    if not slots:
        return Crew(0, why=why or "nothing that is online takes its tasks")
    return Crew(sum(slots.values()), max(spreads, default=_UNSEEN_SPREAD))


def job_eta(job: JobSummary, crew: Crew, rivals: Rivals) -> Eta | None:
    """When ``job`` is likely to be done; None if it is.

    Its work goes by the predictions that came with its tasks, corrected by how what is done of it has kept to them.
    Slots are shared evenly with other users of its band until those have no more, as the order in a queue is fair.
    """
    if job.unfinished == 0:
        return None
    if job.paused:
        return Eta(why=f"paused {job.paused}")
    if crew.slots == 0:
        return Eta(why=crew.why)
    running = min(job.counts.get(TaskStatus.PROCESSING, 0), job.unfinished)
    done = job.counts.get(TaskStatus.COMPLETED, 0)
    each = job.left_s / job.unfinished or (job.done_spent_s / done if done else _DEFAULT_S)
    prior = _PRIOR_TASKS * each
    bias = (job.done_spent_s + prior) / (job.done_predicted_s + prior) if done else 1.0
    each *= bias
    waiting = each * (job.unfinished - running)
    mine = waiting + each * running / 2
    shared = sum(min(waiting, theirs) for theirs in rivals.others.values()) + rivals.before if waiting else 0.0
    workers = min(crew.slots, job.unfinished)
    last = each * (1 - 1 / workers) / 2  # the slots do not come to their end at one time

    def until(ahead: float) -> float:
        return mine / workers + ahead / crew.slots + last

    own = rivals.own if waiting else 0.0
    spread = max(_LEAST_SPREAD, 1 + (crew.spread - 1) / math.sqrt(1 + done))
    return Eta(p50_s=until(shared + own / 2), p90_s=spread * until(shared + own) + _LAST_STEP_S)

"""When a job is likely to be done: by what is left of it, who works on it, what else waits. Pure: no I/O, no clock."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from statistics import fmean

from lcq.costs import Curve
from lcq.errors import UnknownModel
from lcq.models import Eta, JobSummary, TaskRecord, TaskStatus, lane_name
from lcq.routing import Fleet, Requirements, requirements_of

_PRIOR_TASKS = 2  # as many tasks that are done or half done weigh as much as what is predicted now
BETWEEN = 1.05  # a slot is idle, or waits for a word, for so much more than its attempts take
_LEAST_SPREAD = 1.25  # P90 over P50, however well a job has kept to its predictions: machines have other things to do
_LAST_STEP_S = 0.5  # and for the last word to come, where the machine is busy
_UNSEEN_SPREAD = 2.0
_UNSEEN_FACTOR = 0.25  # how far off predictions may be as a whole, beside their spread: of a logarithm
_DEFAULT_S = 1.0  # a task of which nothing was predicted
_Z90 = 1.2816  # standard deviations from the middle of a bell to its P90


@dataclass(frozen=True)
class Crew:
    """Who works on a job: slots that take its tasks, and how sure their predictions are (P90 over P50)."""

    slots: int
    spread: float = _UNSEEN_SPREAD
    why: str = ""  # where there are no slots
    pace: float = (
        1.0  # how long its tasks take there by what is known now, as a share of what was predicted at their submit
    )
    running_s: float = 0.0  # of a task that runs, what was predicted at its submit; 0: not known
    elapsed_s: float = 0.0  # for how long it has run
    guessed: bool = False  # what its tasks take there nobody has measured, or learned


@dataclass(frozen=True)
class Rivals:
    """What else waits in the queues of a job, in predicted seconds."""

    before: float = 0.0  # of higher bands: it starts first
    others: Mapping[str, float] = field(default_factory=dict)  # of its own band, by user: slots are shared with them
    own: float = 0.0  # of other jobs of its own user


def crew_of(sample: Iterable[TaskRecord], fleet: Fleet, *, now_ms: int = 0) -> Crew:
    """The slots of all devices that take one of these tasks from where it waits. ``now_ms``: by Redis's clock."""
    slots: dict[tuple[str, str], int] = {}
    spreads: list[float] = []
    predicted, expected = 0.0, 0.0
    running: list[tuple[float, float]] = []
    guessed: list[bool] = []
    why = ""
    for record in sample:
        if record.queue in fleet.paused and record.status is not TaskStatus.PROCESSING:
            why = why or f"queue {record.queue} is paused {fleet.paused[record.queue]}"
            continue
        try:
            need = requirements_of(record, fleet)
        except UnknownModel as unknown:
            why = why or unknown.message
            continue
        members, curves = _curves_of(record.queue, need, fleet)
        if record.pinned_node:
            members = {name: count for name, count in members.items() if name[0] == record.pinned_node}
        slots.update(members)
        if not members:
            continue
        spreads += [curve.spread for curve in curves]
        guessed += [curve.guessed for curve in curves]
        if record.cost_s > 0:
            predicted += record.cost_s
            speed = sum(count / max(1e-6, curve.seconds(need.megapixels)) for curve, count in curves.items())
            expected += sum(curves.values()) / speed
        if record.status is TaskStatus.PROCESSING and record.started_ms and now_ms:
            running.append((record.cost_s, max(0.0, (now_ms - record.started_ms) / 1000)))
    if not slots:
        return Crew(0, why=why or "nothing that is online takes its tasks")
    return Crew(
        sum(slots.values()),
        max(spreads, default=_UNSEEN_SPREAD),
        pace=expected / predicted if predicted and expected else 1.0,
        running_s=fmean(cost_s for cost_s, _ in running) if running else 0.0,
        elapsed_s=fmean(elapsed_s for _, elapsed_s in running) if running else 0.0,
        guessed=any(guessed),
    )


def _curves_of(
    queue: str, need: Requirements, fleet: Fleet
) -> tuple[Mapping[tuple[str, str], int], Mapping[Curve, int]]:
    """The devices that take such a task, with their slots, and how many slots there are of each cost."""
    members, curves = fleet.members(queue, need), Counter[Curve]()
    for name, count in members.items():
        station = fleet.timetable.stations.get(name)
        if station is not None:
            lane = lane_name(need.model, need.task_type)
            curves[fleet.timetable.curve(station, lane, need.precision)] += count
    return members, curves


def job_eta(job: JobSummary, crew: Crew, rivals: Rivals) -> Eta | None:
    """When ``job`` is likely to be done; None if it is.

    Its work goes by the predictions that came with its tasks, corrected by what is known of such tasks by now, and by
    how what is done of it, and what runs, has kept to them. Slots are shared evenly with other users of its band until
    those have no more, as the order in a queue is fair.
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
    each *= _pace(job, crew, running, each)
    waiting = each * (job.unfinished - running)
    mine = waiting + each * running / 2
    shared = sum(min(waiting, theirs) for theirs in rivals.others.values()) + rivals.before if waiting else 0.0
    workers = min(crew.slots, job.unfinished)
    # Slots do not come to their end at one time, and the less the more their tasks vary.
    varies = max(0.0, crew.spread - 1) / _Z90
    last = each * ((1 - 1 / workers) / 2 + varies * math.log(workers) / 2)

    def until(ahead: float) -> float:
        return BETWEEN * (mine / workers + ahead / crew.slots + last)

    own = rivals.own if waiting else 0.0
    # All of it may be off by a factor, of which what is done and half done tells ever more; and each attempt by itself.
    factor = (math.log(max(1.0, crew.spread)) + _UNSEEN_FACTOR) / math.sqrt(1 + _PRIOR_TASKS / 2 + done + running / 2)
    single = varies * each * math.sqrt((job.unfinished + 1) / 2) / workers
    p50_s = until(shared + own / 2)
    p90_s = max(_LEAST_SPREAD, math.exp(_Z90 * factor)) * until(shared + own) + _Z90 * single + _LAST_STEP_S
    return Eta(p50_s=p50_s, p90_s=p90_s, guessed=crew.guessed and not done)


def _pace(job: JobSummary, crew: Crew, running: int, each: float) -> float:
    """How long what is left takes, as a share of what was predicted.

    Those that run count with what they have had, and for half: of those that are done the short ones are done first, so
    that they alone would say that all goes faster than it does.
    """
    prior = _PRIOR_TASKS * each
    predicted = job.done_predicted_s + prior + running * crew.running_s / 2
    spent = job.done_spent_s + prior * crew.pace + (running * crew.elapsed_s if crew.running_s else 0.0)
    return spent / predicted if predicted else crew.pace

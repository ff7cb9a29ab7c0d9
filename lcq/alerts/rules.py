"""When an alert begins, lasts, and is over, of how things are. Pure: no I/O, no clock."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from lcq.alert_config import AlertRule
from lcq.alerts.records import AlertRecord, Alerts, AlertStatus, Condition, Happening
from lcq.models import MinuteTally, NodeRecord, NodeStatus, QueueRecord, TaskStatus

_REFRESH_MS = 60_000  # so often are value and words of an alert written anew, where nothing else changes
_LONGEST = 300
Subject = str


@dataclass(frozen=True)
class Picture:
    """How the cluster is at a moment, as far as rules look at it.

    ``schedulers``: how each says that it is. ``spent``: of the budget for this hour, day and month (UTC) the share that
    is spent, or reserved for what runs; ``spent_out``: those of them into which not even the
    cheapest call fits any more.
    """

    now_ms: int
    queues: Sequence[QueueRecord] = ()
    nodes: Sequence[NodeRecord] = ()
    minutes: Sequence[MinuteTally] = ()
    schedulers: Mapping[str, Condition] = field(default_factory=dict)
    spent: Mapping[str, float] = field(default_factory=dict)
    spent_out: Collection[str] = ()


@dataclass(frozen=True)
class Measured:
    """A value in the unit of its kind of rule, and what it is in words."""

    value: float
    text: str


WELL = Measured(0, "")


def measure(rule: AlertRule, picture: Picture) -> dict[Subject, Measured]:
    """What ``rule`` looks at, by what it is of; of what is not here nothing is known, and it is no alert."""
    found = dict(_MEASURES[rule.when](rule, picture))
    if rule.queues and rule.when.startswith("queue_"):
        found = {name: one for name, one in found.items() if name in rule.queues}
    if rule.nodes and not rule.when.startswith("queue_"):
        found = {name: one for name, one in found.items() if name in rule.nodes}
    return found


_Found = Iterator[tuple[Subject, Measured]]


def _queue_age(_rule: AlertRule, picture: Picture) -> _Found:
    for queue in picture.queues:
        since_ms = queue.oldest_queued_ms
        if queue.paused or since_ms is None:
            yield queue.name, WELL
        else:
            waits_s = max(0.0, (picture.now_ms - since_ms) / 1000)
            yield queue.name, Measured(waits_s, f"{queue.name}: a task has waited for {told_span(waits_s)}")


def _waiting(queue: QueueRecord) -> int:
    return queue.counts.get(TaskStatus.QUEUED, 0)


def _queue_depth(_rule: AlertRule, picture: Picture) -> _Found:
    for queue in picture.queues:
        yield queue.name, Measured(_waiting(queue), f"{queue.name}: {_waiting(queue)} tasks wait")


def _queue_unserved(_rule: AlertRule, picture: Picture) -> _Found:
    for queue in picture.queues:
        waits = 0 if queue.nodes or queue.paused else _waiting(queue)
        yield queue.name, Measured(waits, f"{queue.name}: {waits} tasks wait, and no node serves it")


def _fail_rate(rule: AlertRule, picture: Picture) -> _Found:
    last = picture.minutes[-max(1, round(rule.window_s / 60)) :]
    failed, ended = sum(one.failed for one in last), sum(one.failed + one.completed for one in last)
    if ended < rule.least:
        yield "", WELL
    else:
        words = f"{failed} of {ended} tasks failed in the last {told_span(60 * len(last))} ({failed / ended:.0%})"
        yield "", Measured(failed / ended, words)


def _node_down(_rule: AlertRule, picture: Picture) -> _Found:
    for node in picture.nodes:
        is_down = node.status is NodeStatus.OFFLINE and not _left_in_order(node)
        yield node.id, Measured(1, f"node {node.id} is down{_because(node.why)}") if is_down else WELL


def _left_in_order(node: NodeRecord) -> bool:
    return node.why == "left in order"


def _node_quarantined(_rule: AlertRule, picture: Picture) -> _Found:
    for node in picture.nodes:
        if node.status is NodeStatus.QUARANTINED:
            yield node.id, Measured(1, f"node {node.id} is in quarantine{_because(node.why)}")
        elif node.quarantined and node.status is not NodeStatus.OFFLINE:
            device, why = min(node.quarantined.items())
            yield node.id, Measured(1, f"{device} of node {node.id} is in quarantine{_because(why)}")
        else:
            yield node.id, WELL


def _disk(_rule: AlertRule, picture: Picture) -> _Found:
    for node in picture.nodes:
        used = node.telemetry.get("disk_used")
        if isinstance(used, int | float) and node.status is not NodeStatus.OFFLINE:
            yield node.id, Measured(float(used), f"a disk of node {node.id} is {used:.0%} full")
    for scheduler, condition in picture.schedulers.items():
        if condition.disk_used is not None:
            words = f"a disk of the scheduler on {condition.host or scheduler} is {condition.disk_used:.0%} full"
            yield scheduler, Measured(condition.disk_used, words)


def _spend(_rule: AlertRule, picture: Picture) -> _Found:
    for budget, share in picture.spent.items():
        told = f"{share:.0%} of the budget for this {budget} is spent or reserved"
        if budget in picture.spent_out:
            yield budget, Measured(max(share, 1.0), f"{told}, and no further call fits into it")
        else:
            yield budget, Measured(share, told)


def _handshakes(rule: AlertRule, picture: Picture) -> _Found:
    minutes = max(1, round(rule.window_s / 60))
    for scheduler, condition in picture.schedulers.items():
        failed = sum(condition.handshakes[-minutes:])
        words = (
            f"{failed} connections to the scheduler on {condition.host or scheduler} were refused because of their "
            f"keys in {told_span(60 * minutes)}"
        )
        yield scheduler, Measured(failed, words)


def _bad_settings(_rule: AlertRule, picture: Picture) -> _Found:
    for scheduler, condition in picture.schedulers.items():
        words = f"the settings of the scheduler on {condition.host or scheduler} are wrong: {condition.settings_error}"
        yield scheduler, Measured(int(bool(condition.settings_error)), words[:_LONGEST])
    for node in picture.nodes:
        wrong = str(node.telemetry.get("config_error", "")) if node.status is not NodeStatus.OFFLINE else ""
        yield node.id, Measured(int(bool(wrong)), f"the settings of node {node.id} are wrong: {wrong}"[:_LONGEST])


_MEASURES = {
    "queue_age": _queue_age,
    "queue_depth": _queue_depth,
    "queue_unserved": _queue_unserved,
    "fail_rate": _fail_rate,
    "node_down": _node_down,
    "node_quarantined": _node_quarantined,
    "disk": _disk,
    "spend": _spend,
    "handshakes": _handshakes,
    "bad_settings": _bad_settings,
}


def _because(why: str) -> str:
    return f": {why}"[:_LONGEST] if why else ""


def told_span(seconds: float) -> str:
    """A length of time in at most two units: 90 s, 31 m, 4 h 20 m, 2 d 3 h."""
    whole = round(seconds)
    if whole < 120:
        return f"{whole} s"
    if whole < 7200:
        return f"{whole // 60} m"
    if whole < 2 * 24 * 3600:
        return f"{whole // 3600} h" + (f" {whole % 3600 // 60} m" if whole % 3600 >= 60 else "")
    return f"{whole // 86_400} d" + (f" {whole % 86_400 // 3600} h" if whole % 86_400 >= 3600 else "")


# ---------------------------------------------------------------- begins, lasts, is over


def judged(
    before: AlertRecord | None, rule: AlertRule | None, subject: Subject, found: Measured | None, now_ms: int
) -> AlertRecord | None:
    """The alert as it is now, the same object where nothing has changed; None: there is none (any more).

    ``rule``: None where it holds no longer. ``found``: None where nothing is known of the subject.
    """
    if rule is None or not rule.enabled:
        return None
    if found is not None and found.value > rule.limit:
        return _true(before, rule, subject, found, now_ms)
    if before is None or not before.is_firing:
        return None
    if found is not None and found.value > rule.well_at:  # not bad any more, and not well either: as it was
        return before.model_copy(update={"well_ms": None}) if before.well_ms is not None else before
    if before.well_ms is None:
        before = before.model_copy(update={"well_ms": now_ms})
    return None if now_ms - (before.well_ms or now_ms) >= rule.clear_s * 1000 else before


def _true(before: AlertRecord | None, rule: AlertRule, subject: Subject, found: Measured, now_ms: int) -> AlertRecord:
    alert = before or AlertRecord(rule=rule.name, subject=subject, since_ms=now_ms)
    changes: dict[str, object] = {}
    if alert.well_ms is not None:
        changes["well_ms"] = None
    if (alert.severity, alert.when) != (rule.severity, rule.when):
        changes |= {"severity": rule.severity, "when": rule.when}
    if not alert.is_firing and now_ms - alert.since_ms >= rule.patience_s * 1000:
        changes |= {"status": AlertStatus.FIRING, "fired_ms": now_ms}
    is_old = now_ms - alert.looked_ms >= _REFRESH_MS
    if changes or before is None or (is_old and (alert.value, alert.text) != (found.value, found.text)):
        changes |= {"value": found.value, "text": found.text[:_LONGEST], "looked_ms": now_ms}
    return alert.model_copy(update=changes) if changes else alert


@dataclass(frozen=True)
class Change:
    """What has become of one alert since it was looked at last.

    ``alert``: as it is now, or was last. ``turned``: it has begun (firing) or is over (cleared): that goes into the
    events and the audit. ``tell``: what its receivers are to be told, if anything.
    """

    alert: AlertRecord
    before: AlertRecord | None
    after: AlertRecord | None
    turned: Happening | None = None
    tell: Happening | None = None

    @property
    def name(self) -> str:
        return self.alert.name


def changes(
    rules: Iterable[AlertRule], picture: Picture, known: Alerts, *, repeat_s: float, notified: Mapping[str, bool]
) -> Iterator[Change]:
    """Everything that has changed. ``notified``: by rule, whether anybody is to be told."""
    by_name = {alert.name: alert for alert in known.alerts}
    seen: set[str] = set()
    holding = {rule.name: rule for rule in rules}
    for rule in holding.values():
        for subject, found in measure(rule, picture).items() if rule.enabled else ():
            name = f"{rule.name}/{subject}"
            seen.add(name)
            yield from _changed(by_name.get(name), rule, subject, found, known, picture.now_ms, repeat_s, notified)
    for name, alert in by_name.items():
        if name not in seen:
            of_rule = holding.get(alert.rule)
            yield from _changed(alert, of_rule, alert.subject, None, known, picture.now_ms, repeat_s, notified)


def _changed(
    before: AlertRecord | None,
    rule: AlertRule | None,
    subject: Subject,
    found: Measured | None,
    known: Alerts,
    now_ms: int,
    repeat_s: float,
    notified: Mapping[str, bool],
) -> Iterator[Change]:
    after = judged(before, rule, subject, found, now_ms)
    if (after or before) is None:
        return
    was, now = before is not None and before.is_firing, after is not None and after.is_firing
    turned = None if was == now else Happening.FIRING if now else Happening.CLEARED
    tell: Happening | None = None
    if after is not None and rule is not None and now and known.silence_of(after) is None and notified.get(rule.name):
        again_s = repeat_s if rule.repeat_s is None else rule.repeat_s
        if not after.told_ms:
            tell = Happening.FIRING
        elif again_s and now_ms - after.told_ms >= again_s * 1000 and after.well_ms is None:
            tell = Happening.REPEATED
    elif turned is Happening.CLEARED and before is not None and before.told_ms:
        tell = Happening.CLEARED  # also while it is silenced: who was told that it began waits for this
    if after is not None and tell is not None:
        after = after.model_copy(update={"told_ms": now_ms})
    about = after or before
    if about is not None and after is not before:
        yield Change(about, before, after, turned, tell)

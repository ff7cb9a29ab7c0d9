"""When an alert begins, lasts, is told and is over: pure, on pictures of a cluster."""

from __future__ import annotations

import re
from collections.abc import Iterable

import pytest
from pydantic import ValidationError

from lcq.alert_config import SHIPPED_RULES, USUAL, AlertingConfig, AlertReceiver, AlertRule, rules_of
from lcq.alerts.keeper import PerMinute
from lcq.alerts.records import AlertRecord, Alerts, AlertStatus, Condition, Happening, Silence
from lcq.alerts.rules import Change, Measured, Picture, changes, judged, measure, told_span
from lcq.config import DistributedConfig
from lcq.models import (
    DEFAULT_QUEUES,
    MinuteTally,
    NodeCapability,
    NodeRecord,
    NodeStatus,
    QueueRecord,
    TaskStatus,
)

NOW = 1_800_000_000_000


def a_queue(waits: int = 0, *, oldest_s: float | None = None, nodes: tuple[str, ...] = ("n",), paused: bool = False):
    return QueueRecord(
        config=DEFAULT_QUEUES[4],
        counts={TaskStatus.QUEUED: waits},
        oldest_queued_ms=None if oldest_s is None else NOW - int(oldest_s * 1000),
        nodes=nodes,
        paused=paused,
    )


def a_node(name: str = "gpu-1", status: NodeStatus = NodeStatus.ONLINE, **fields: object) -> NodeRecord:
    return NodeRecord(id=name, boot_id="b", status=status, capability=NodeCapability(), **fields)  # type: ignore[arg-type]


def a_rule(when: str = "queue_age", **fields: object) -> AlertRule:
    return AlertRule.model_validate({"name": "r", "when": when, **fields})


def value_of(rule: AlertRule, **picture: object) -> dict[str, float]:
    found = measure(rule, Picture(NOW, **picture))  # type: ignore[arg-type]
    return {subject: one.value for subject, one in found.items()}


# ---------------------------------------------------------------- what is looked at


def test_the_oldest_task_counts_but_not_in_a_queue_that_somebody_has_paused() -> None:
    rule = a_rule("queue_age")
    assert value_of(rule, queues=[a_queue(3, oldest_s=90)]) == {"cpu-light": 90}
    assert value_of(rule, queues=[a_queue(3, oldest_s=90, paused=True)]) == {"cpu-light": 0}
    assert value_of(rule, queues=[a_queue()]) == {"cpu-light": 0}
    assert value_of(a_rule("queue_age", queues=["gpu-high"]), queues=[a_queue(3, oldest_s=90)]) == {}


def test_what_waits_where_no_node_serves_is_not_only_deep() -> None:
    assert value_of(a_rule("queue_depth"), queues=[a_queue(7)]) == {"cpu-light": 7}
    assert value_of(a_rule("queue_unserved"), queues=[a_queue(7)]) == {"cpu-light": 0}
    assert value_of(a_rule("queue_unserved"), queues=[a_queue(7, nodes=())]) == {"cpu-light": 7}


def test_a_share_of_failures_is_of_the_window_and_of_enough_tasks() -> None:
    minutes = [MinuteTally(minute=n, failed=10, completed=0) for n in range(5)]
    minutes += [MinuteTally(minute=n, failed=1, completed=9) for n in range(5, 10)]
    assert value_of(a_rule("fail_rate", window_s=300), minutes=minutes) == {"": 0.1}
    assert value_of(a_rule("fail_rate", window_s=600), minutes=minutes) == {"": 0.55}
    assert value_of(a_rule("fail_rate", window_s=600, least=101), minutes=minutes) == {"": 0}


def test_a_node_that_died_is_down_and_one_that_left_in_order_is_not() -> None:
    dead = a_node("dead", NodeStatus.OFFLINE, why="the agent on dead died")
    left = a_node("left", NodeStatus.OFFLINE, why="left in order")
    rule = a_rule("node_down")
    assert value_of(rule, nodes=[dead, left, a_node("here")]) == {"dead": 1, "left": 0, "here": 0}
    assert value_of(a_rule("node_down", nodes=["here"]), nodes=[dead, left, a_node("here")]) == {"here": 0}


def test_a_device_in_quarantine_is_as_bad_as_its_node() -> None:
    held = a_node("held", NodeStatus.QUARANTINED, why="it fails")
    by_device = a_node("device", quarantined={"GPU-1": "it is slow"})
    found = measure(a_rule("node_quarantined"), Picture(NOW, nodes=[held, by_device, a_node("well")]))
    assert {name: one.value for name, one in found.items()} == {"held": 1, "device": 1, "well": 0}
    assert found["device"].text == "GPU-1 of node device is in quarantine: it is slow"


def test_disks_handshakes_and_settings_are_of_nodes_and_of_schedulers() -> None:
    told = Condition(host="studio", disk_used=0.5, handshakes=(50, *[0] * 9, 2, 3), settings_error="line 3: what")
    picture = {
        "schedulers": {"s-1": told, "s-2": Condition()},
        "nodes": [a_node("n", telemetry={"disk_used": 0.97, "config_error": "x"})],
    }
    assert value_of(a_rule("disk"), **picture) == {"n": 0.97, "s-1": 0.5}
    assert value_of(a_rule("handshakes", window_s=120), **picture) == {"s-1": 5, "s-2": 0}
    assert value_of(a_rule("handshakes", window_s=3600), **picture) == {"s-1": 55, "s-2": 0}
    assert value_of(a_rule("bad_settings"), **picture) == {"s-1": 1, "s-2": 0, "n": 1}


def test_what_is_spent_of_a_budget_is_looked_at_once_somebody_tells_it() -> None:
    assert value_of(a_rule("spend")) == {}
    assert value_of(a_rule("spend"), spent={"serverless": 0.95}) == {"serverless": 0.95}
    assert value_of(a_rule("spend"), spent={"hour": 0.8}, spent_out={"hour"}) == {"hour": 1.0}, "no call fits any more"


def test_every_kind_of_rule_can_be_measured_of_an_empty_cluster() -> None:
    for when in USUAL:
        assert isinstance(measure(a_rule(when), Picture(NOW)), dict)


# ---------------------------------------------------------------- begins, lasts, is over


def followed(rule: AlertRule, values: Iterable[float | None], *, step_ms: int = 30_000) -> list[AlertRecord | None]:
    """The alert after each look, ``step_ms`` apart; None: the subject is not there."""
    seen: list[AlertRecord | None] = []
    before: AlertRecord | None = None
    for number, value in enumerate(values):
        found = None if value is None else Measured(value, f"it is {value:g}")
        before = judged(before, rule, "cpu-light", found, NOW + number * step_ms)
        seen.append(before)
    return seen


def stages(seen: Iterable[AlertRecord | None]) -> list[str]:
    return ["-" if one is None else str(one.status) for one in seen]


def test_an_alert_begins_only_when_its_rule_has_been_true_for_long_enough() -> None:
    rule = a_rule(over=10, for_s=60)
    assert stages(followed(rule, [11, 11, 11, 11])) == ["pending", "pending", "firing", "firing"]
    assert stages(followed(rule, [11, 10, 11, 11])) == ["pending", "-", "pending", "pending"]
    assert stages(followed(a_rule(over=10, for_s=0), [10, 11])) == ["-", "firing"]


def test_an_alert_is_over_only_when_it_has_been_well_for_long_enough() -> None:
    rule = a_rule(over=10, for_s=0, clear_s=60)
    assert stages(followed(rule, [11, 10, 11, 10, 10, 10])) == ["firing"] * 5 + ["-"]


def test_between_bad_and_well_an_alert_stays_as_it_is() -> None:
    rule = a_rule(over=10, clear_under=5, for_s=0, clear_s=0)
    assert stages(followed(rule, [7, 11, 7, 7, 5])) == ["-", "firing", "firing", "firing", "-"]
    slowly = a_rule(over=10, clear_under=5, for_s=0, clear_s=45)
    assert stages(followed(slowly, [11, 4, 7, 4, 4, 4])) == ["firing"] * 5 + ["-"]


def test_what_is_gone_is_well_and_a_rule_that_is_turned_off_ends_its_alerts_at_once() -> None:
    rule = a_rule(over=10, for_s=0, clear_s=30)
    assert stages(followed(rule, [11, None, None])) == ["firing", "firing", "-"]
    firing = followed(rule, [11])[0]
    assert judged(firing, None, "cpu-light", Measured(11, ""), NOW) is None
    assert judged(firing, rule.model_copy(update={"enabled": False}), "cpu-light", Measured(11, ""), NOW) is None


def test_an_alert_that_only_goes_on_is_written_anew_once_a_minute_and_not_at_each_look() -> None:
    rule = a_rule(over=10, for_s=0)
    first, second, third = followed(rule, [11, 12, 13])
    assert second is first
    assert third is not None
    assert (third.value, third.text) == (13, "it is 13")


def test_whose_clock_was_set_back_does_not_fire_at_once() -> None:
    rule = a_rule(over=10, for_s=60)
    begun = judged(None, rule, "", Measured(11, ""), NOW)
    assert judged(begun, rule, "", Measured(11, ""), NOW - 3600_000) is begun


# ---------------------------------------------------------------- who is told, and when


def looked(
    known: Alerts, rule: AlertRule, value: float, *, repeat_s: float = 3600, notified: bool = True
) -> Change | None:
    """What one look at the age of a queue's oldest task finds changed."""
    picture = Picture(known.now_ms, queues=[a_queue(1, oldest_s=value + (NOW - known.now_ms) / 1000)])
    found = list(changes([rule], picture, known, repeat_s=3600, notified={rule.name: notified}))
    assert len(found) <= 1
    return found[0] if found else None


class Told:
    """A rule looked at again and again; what came of it."""

    def __init__(self, **fields: object) -> None:
        self.rule = a_rule(over=10, for_s=0, clear_s=0, **fields)
        self.known = Alerts(now_ms=NOW)
        self.told: list[str] = []

    def look(self, value: float, *, after_s: float = 60) -> str:
        """What is told after so long, "" if nothing."""
        self.known = self.known.model_copy(update={"now_ms": self.known.now_ms + int(after_s * 1000)})
        change = looked(self.known, self.rule, value)
        if change is not None:
            kept = () if change.after is None else (change.after,)
            self.known = self.known.model_copy(update={"alerts": kept})
        return str(change.tell or "") if change is not None else ""

    def silence(self, seconds: float, subject: str = "") -> None:
        until_ms = self.known.now_ms + int(seconds * 1000)
        one = Silence(rule="r", subject=subject, until_ms=until_ms, actor="ann")
        self.known = self.known.model_copy(update={"silences": (one,)})


def test_who_is_told_is_told_once_when_it_begins_again_from_time_to_time_and_when_it_is_over() -> None:
    cluster = Told(repeat_s=150)
    assert [cluster.look(value) for value in (5, 11, 11, 11, 11, 11, 5, 5)] == [
        "", "firing", "", "", "repeated", "", "cleared", "",
    ]  # fmt: skip


def test_what_is_silenced_is_told_when_the_silence_is_over_and_only_if_it_still_is() -> None:
    cluster = Told()
    cluster.silence(150)
    assert [cluster.look(value) for value in (11, 11, 11, 11)] == ["", "", "firing", ""]
    other = Told()
    other.silence(150)
    assert [other.look(value) for value in (11, 5, 5, 5)] == ["", "", "", ""]


def test_who_was_told_that_it_began_is_told_that_it_is_over_also_in_a_silence() -> None:
    cluster = Told()
    assert cluster.look(11) == "firing"
    cluster.silence(3600)
    assert cluster.look(5) == "cleared"


def test_a_silence_of_one_subject_leaves_others_to_be_heard() -> None:
    cluster = Told()
    cluster.silence(3600, "gpu-high")
    assert cluster.look(11) == "firing"
    same = Told()
    same.silence(3600, "cpu-light")
    assert same.look(11) == ""
    alert = same.known.alerts[0]
    assert same.known.silence_of(alert) is not None
    assert same.known.firing == ()


def test_an_alert_of_whom_nobody_is_told_is_an_alert_all_the_same() -> None:
    change = looked(Alerts(now_ms=NOW), a_rule(over=10, for_s=0), 11, notified=False)
    assert change is not None
    assert (change.turned, change.tell) == (Happening.FIRING, None)
    assert change.alert.status is AlertStatus.FIRING


def test_the_worst_alerts_come_first() -> None:
    alerts = [
        AlertRecord(rule="a", status=AlertStatus.FIRING, fired_ms=1),
        AlertRecord(rule="b", status=AlertStatus.FIRING, fired_ms=2, severity="critical"),
        AlertRecord(rule="c", status=AlertStatus.PENDING, severity="critical"),
    ]
    assert [one.rule for one in Alerts(alerts=tuple(alerts)).firing] == ["b", "a"]


# ---------------------------------------------------------------- settings


def test_own_rules_stand_beside_those_that_are_shipped_and_one_of_the_same_name_in_its_place() -> None:
    own = AlertRule(name="disk", when="disk", enabled=False)
    other = AlertRule(name="deep", when="queue_depth", queues=("gpu-high",))
    rules = rules_of((own, other), AlertingConfig())
    assert [rule.name for rule in rules].count("disk") == 1
    assert len(rules) == len(SHIPPED_RULES) + 1
    assert next(rule for rule in rules if rule.name == "disk") is own
    assert rules_of((other,), AlertingConfig(shipped=False)) == (other,)


@pytest.mark.parametrize(
    ("values", "why"),
    [
        ({"alerts": [{"name": "a", "when": "disk"}, {"name": "a", "when": "disk"}]}, "each name once"),
        ({"alerts": [{"name": "a", "when": "disk", "notify": ["ops"]}]}, "no such receiver: ops; there are none"),
        ({"alerts": [{"name": "a", "when": "queue_age", "queues": ["gpu"]}]}, "no such queue: gpu"),
        ({"alerts": [{"name": "a", "when": "disk", "over": 0.5, "clear_under": 0.6}]}, "clear_under must be at most"),
        ({"alerting": {"receivers": {"a": {}}}}, "give url or command"),
        ({"alerting": {"receivers": {"a": {"url": "ftp://x"}}}}, "https:// or http://"),
        ({"alerting": {"receivers": {"a": {"url": "http://x", "secret": "s", "secret_file": "f"}}}}, "not both"),
    ],
)
def test_settings_that_contradict_themselves_are_refused(values: dict[str, object], why: str) -> None:
    with pytest.raises(ValidationError, match=why):
        DistributedConfig.model_validate(values)


def test_secrets_of_receivers_are_shown_nowhere() -> None:
    from lcq.settings.secrets import hidden

    values = {"alerting": {"receivers": {"ops": {"url": "http://x", "secret": "s3", "bearer": "b3"}}}}
    config = DistributedConfig.model_validate(values)
    assert "s3" not in repr(config)
    shown = str(hidden(config.model_dump(mode="json"), DistributedConfig))
    assert not {"s3", "b3", "http://x"} & set(re.findall(r"[a-z0-9:/]+", shown))
    assert AlertReceiver(url="http://x", bearer="b3").bearer == "b3"


def test_a_growing_count_is_told_by_the_minute() -> None:
    counts = PerMinute(3)
    assert counts.note(5, 100) == (5,)
    assert counts.note(7, 100) == (7,)
    assert counts.note(8, 101) == (7, 1)
    assert counts.note(8, 110) == (0, 0, 0)


@pytest.mark.parametrize(
    ("seconds", "words"), [(5, "5 s"), (600, "10 m"), (15_600, "4 h 20 m"), (14_400, "4 h"), (183_600, "2 d 3 h")]
)
def test_lengths_of_time_are_told_in_two_units_at_most(seconds: float, words: str) -> None:
    assert told_span(seconds) == words

"""The autoscaling signal: how many slots a queue wants, and which nodes nothing would miss."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from lcq.autoscale import idle_nodes, scale, wanted_slots
from lcq.models import DEFAULT_QUEUES, NodeStatus, QueueRecord, TaskPriority, TaskStatus
from tests.unit.test_why import LARGE_CPU, NOW, ON_CPU, a_fleet, a_node

COUNTS = st.integers(0, 5000)
SECONDS = st.floats(0, 1e6)
TARGETS = st.floats(0.1, 1e5)
LIGHT = next(queue for queue in DEFAULT_QUEUES if queue.name == "cpu-light")


@given(backlog_s=SECONDS, more_s=SECONDS, waiting=COUNTS, running=COUNTS, target_s=TARGETS, longer_s=TARGETS)
def test_wanted_slots_keep_what_runs_reach_the_target_and_follow_the_work(
    backlog_s, more_s, waiting, running, target_s, longer_s
):
    def wanted(work_s: float, target: float) -> int:
        return wanted_slots(backlog_s=work_s, waiting=waiting, running=running, target_s=target)

    found = wanted(backlog_s, target_s)
    assert running <= found <= running + waiting
    assert (found > 0) == (waiting + running > 0)
    assert found * target_s >= backlog_s * (1 - 1e-9) or found == running + waiting or not waiting
    assert wanted(backlog_s + more_s, target_s) >= found
    assert wanted(backlog_s, target_s + longer_s) <= found


def test_a_queue_tells_its_work_its_slots_and_what_nothing_serves():
    fleet = replace(
        a_fleet(a_node("a", running=2), a_node("b", status=NodeStatus.OFFLINE)),
        backlog={"cpu-light": {(TaskPriority.NORMAL, "cv2-ns"): 240.0, (TaskPriority.LOW, "lama"): 60.0}},
    )
    record = QueueRecord(
        config=LIGHT,
        counts={TaskStatus.QUEUED: 30, TaskStatus.PROCESSING: 2},
        oldest_queued_ms=NOW - 90_000,
    )
    depths = {("cpu-light", "cv2-ns"): 24, ("cpu-light", "lama"): 6}
    found = scale(fleet, [record], depths, now_ms=NOW, target_s=60)
    (queue,) = found.queues
    assert (queue.waiting, queue.running, queue.backlog_s, queue.oldest_wait_s) == (30, 2, 300.0, 90.0)
    assert (queue.live_slots, queue.wanted_slots, queue.unserved) == (2, 5, 6)
    assert (found.live_slots, found.wanted_slots) == (2, 5)
    assert not queue.guessed, "both models were measured on processors"
    guessed = replace(fleet, backlog={"cpu-light": {(TaskPriority.LOW, "mat"): 60.0, (TaskPriority.LOW, "lama"): 1.0}})
    assert scale(guessed, [record], depths, now_ms=NOW).queues[0].guessed
    gone = replace(fleet, backlog={"cpu-light": {(TaskPriority.LOW, "mat"): 0.0}})
    assert not scale(gone, [record], depths, now_ms=NOW).queues[0].guessed
    paused = scale(fleet, [record.model_copy(update={"paused": True})], depths, now_ms=NOW, target_s=60)
    assert (paused.queues[0].wanted_slots, paused.queues[0].paused) == (2, True)


def test_the_node_that_has_been_idle_longest_comes_first_and_none_that_is_needed():
    since = {"registered_ms": NOW - 900_000}
    nodes = [
        a_node("fresh", idle_ms=NOW - 1_000, **since),
        a_node("old", idle_ms=NOW - 60_000, **since),
        a_node("never", idle_ms=NOW - 90_000, registered_ms=NOW - 70_000),
        a_node("busy", running=1, **since),
        a_node("away", status=NodeStatus.DRAINING, **since),
        a_node("suspect", status=NodeStatus.SUSPECT, **since),
        a_node("kept", idle_ms=NOW - 99_000, **since),
        a_node("wanted", LARGE_CPU, models={"lama": ON_CPU}, **since),
    ]
    depths = {("cpu-intensive", "lama"): 3}
    found = idle_nodes(a_fleet(*nodes), depths, now_ms=NOW, kept_for={"kept"})
    assert [(one.node, one.idle_s) for one in found] == [("never", 70.0), ("old", 60.0), ("fresh", 1.0)]
    paused = replace(a_fleet(*nodes), paused={"cpu-intensive": "by ivo"})
    assert idle_nodes(paused, depths, now_ms=NOW)[0].node == "wanted"

"""Why a task is where it is: each code from a picture of its own, with its line and its facts, exactly."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lcq.config import BudgetConfig
from lcq.costs import CostBook, CostKey, Curve, device_class
from lcq.models import (
    DEFAULT_QUEUES,
    Device,
    DeviceKind,
    DeviceReading,
    ErrorClass,
    Failure,
    ModelOffer,
    NodeCapability,
    NodeRecord,
    NodeStatus,
    RestCode,
    Task,
    TaskPriority,
    TaskRecord,
    TaskResult,
    TaskStatus,
    TaskType,
)
from lcq.reasons import MEANINGS, Fact, Why, WhyCode, brief
from lcq.routing import Fleet, requirements
from lcq.spend import Book, Overflow, Spend
from lcq.why import Hold, Standing, forecast, rivals, why_of

NOW = 1_800_000_000_000  # 2027-01-15 08:00:00Z
ID = "06ft3k0000000000"
CPU = Device(id="cpu", kind=DeviceKind.CPU, slots=2)
LARGE_CPU = Device(id="cpu", kind=DeviceKind.CPU, slots=2, cores=8, memory_mib=8000)
GPU = Device(id="GPU-1", kind=DeviceKind.GPU, vram_mib=3000)
ON_CPU = ModelOffer(kinds=(DeviceKind.CPU,))
ON_GPU = ModelOffer(kinds=(DeviceKind.GPU,))
CRASH = Failure(error_class=ErrorClass.CRASH, code="runner_died", message="it died")


def a_node(name: str = "a", *devices: Device, status: NodeStatus = NodeStatus.ONLINE, **more: object) -> NodeRecord:
    told = {name: more.pop(name) for name in ("models", "left_out", "withheld", "labels") if name in more}
    capability = NodeCapability.model_validate({"devices": devices or (CPU,), "models": {"cv2-ns": ON_CPU}} | told)
    return NodeRecord.model_validate(
        {
            "id": name, "boot_id": "b", "status": status, "capability": capability,
            "serves": capability.serves(DEFAULT_QUEUES),
        } | more
    )  # fmt: skip


def a_fleet(*nodes: NodeRecord) -> Fleet:
    return Fleet(queues=DEFAULT_QUEUES, nodes=nodes)


def a_task(model: str = "cv2-ns", **more: object) -> Task:
    config = {"model": model} | ({"device": more.pop("device")} if "device" in more else {})
    return Task.model_validate(
        {"id": ID, "task_type": TaskType.INPAINT, "image_path": "a.jpg", "config": config, "user_id": "ann"} | more
    )


def waiting(task: Task | None = None, **more: object) -> TaskRecord:
    base = {"task": task or a_task(), "status": "queued", "revision": 1, "queue": "cpu-light", "priority": "normal"}
    return TaskRecord.model_validate(base | more)


def a_turn(behind: int, higher: int | None, others: int | None, *, first: int = 0) -> dict[str, object]:
    before = {"before_queue": "cpu-intensive" if first else "", "behind_queue": first}
    return before | {"queue": "cpu-light", "behind": behind, "behind_higher_bands": higher, "behind_others": others}


HERE = Standing(now_ms=NOW)
QUARANTINED, DRAINING = NodeStatus.QUARANTINED, NodeStatus.DRAINING
LARGE = waiting(a_task("mat"), queue="gpu-medium", vram_mib=4000)
MAT = {"models": {"mat": ON_GPU}}
CROWDED = a_node(
    "a", GPU.model_copy(update={"vram_mib": 8000}), **MAT,
    readings={"GPU-1": DeviceReading(total_mib=8000, free_mib=3000, foreign_mib=4000)},
)  # fmt: skip
RESULT = TaskResult(path="/out/a.png", bytes=5, sha256="ab" * 32, width=4, height=3, seconds=0.25)

KEEPING = replace(a_fleet(a_node()), busy_s={("a", CPU.id): (5.0,) * (CPU.slots - 1)})
FAST, SLOW = (Device(id="cpu", kind=DeviceKind.CPU, name=name) for name in ("fast", "slow"))
SPEEDS = {
    CostKey("lama", "", "", device_class(device)): Curve(seconds, 0.0, samples=50)
    for device, seconds in ((FAST, 1.0), (SLOW, 60.0))
}
UNEVEN = replace(
    a_fleet(*(a_node(one.name, one, models={"lama": ON_CPU}) for one in (FAST, SLOW))),
    costs=CostBook(SPEEDS),
    backlog={"cpu-light": {(TaskPriority.NORMAL, "lama"): 1.0}},
    busy_s={("fast", "cpu"): (0.5,)},
)
ON_CALL = ModelOffer(kinds=(DeviceKind.SERVERLESS,))
SPENT = replace(
    a_fleet(a_node("far", Device(id="burst", kind=DeviceKind.SERVERLESS), models={"cv2-ns": ON_CALL})),
    overflow=Overflow(60.0, Spend(BudgetConfig(day=1, currency="EUR"), day=Book(0.5, 0.4)), price=0.2),
)
MORE_OF_A_REST = {RestCode.ENDPOINT_AWAY: ("until_ms",)}

# Each: what is known, the code, the whole line, the facts (but for predictions, which have tests of their own).
TABLE = [
    (
        (waiting(status="pending", due_ms=NOW + 90_000), a_fleet(), HERE),
        WhyCode.SCHEDULED,
        "waits for its time, until 2027-01-15 08:01:30Z (in 90 s)",
        {"until_ms": NOW + 90_000},
    ),
    (
        (waiting(status="pending", due_ms=NOW + 4_000, failure=CRASH, retries=1), a_fleet(), HERE),
        WhyCode.BACKOFF,
        "waits for its retry after runner_died (retry 1 of 3), until 2027-01-15 08:00:04Z (in 4.0 s)",
        {"until_ms": NOW + 4_000, "failure": "runner_died", "retries": 1, "max_retries": 3},
    ),
    (
        (
            waiting(
                status="pending",
                due_ms=NOW + 30_000,
                failure=CRASH,
                why="over the retry budget (all retries, 60 a minute): waits 30 s, at no cost",
            ),
            a_fleet(),
            HERE,
        ),
        WhyCode.RETRY_BUDGET,
        (
            "waits for its retry after runner_died: over the retry budget (all retries, 60 a minute): waits 30 s, at no"
            " cost, until 2027-01-15 08:00:30Z (in 30 s)"
        ),
        {
            "until_ms": NOW + 30_000,
            "failure": "runner_died",
            "budget": "over the retry budget (all retries, 60 a minute): waits 30 s, at no cost",
        },
    ),
    (
        (waiting(), a_fleet(a_node()), replace(HERE, paused=Hold("ivo", "upgrade", NOW - 60_000))),
        WhyCode.QUEUE_PAUSED,
        "queue cpu-light is paused by ivo: upgrade, since 2027-01-15 07:59:00Z (60 s ago)",
        {"queue": "cpu-light", "by": "ivo", "reason": "upgrade", "since_ms": NOW - 60_000},
    ),
    (
        (waiting(a_task(job="zoo")), a_fleet(a_node()), replace(HERE, job_paused=Hold("ivo", "lunch", NOW - 60_000))),
        WhyCode.JOB_PAUSED,
        "job zoo is paused by ivo: lunch, since 2027-01-15 07:59:00Z (60 s ago)",
        {"job": "zoo", "by": "ivo", "reason": "lunch", "since_ms": NOW - 60_000},
    ),
    (
        (waiting(), a_fleet(), HERE),
        WhyCode.NO_NODE,
        "no node is online; start one with lcq-agent",
        {"known": 0},
    ),
    (
        (waiting(a_task("lama")), a_fleet(a_node("a", left_out={"lama": "no weights"})), HERE),
        WhyCode.NO_MODEL,
        "no node has model lama (node a: no weights)",
        {"model": "lama", "node": "a", "left_out": "no weights"},
    ),
    (
        (
            waiting(a_task("lama")),
            a_fleet(a_node("a", left_out={"lama": "no IOPaint answers"}, withheld={"lama": ON_CPU})),
            HERE,
        ),
        WhyCode.DEPENDENCY_DOWN,
        "no node has model lama (node a: no IOPaint answers)",
        {"model": "lama", "node": "a", "left_out": "no IOPaint answers"},
    ),
    (
        (waiting(a_task(task_type="upscale")), a_fleet(a_node()), HERE),
        WhyCode.NO_ABILITY,
        "no node can upscale with model cv2-ns (it can: inpaint); no model of any node can",
        {"model": "cv2-ns", "task_type": "upscale"},
    ),
    (
        (waiting(a_task(requires={"rack": "3"})), a_fleet(a_node(labels={"rack": "4"})), HERE),
        WhyCode.NO_LABEL,
        "no node has label rack=3 (there is rack=4)",
        {"requires": "rack=3"},
    ),
    (
        (waiting(a_task("lama", device="cuda"), queue="gpu-low"), a_fleet(a_node(models={"lama": ON_CPU})), HERE),
        WhyCode.NO_DEVICE,
        "1 node has model lama, but none has a GPU, which gpu-low needs",
        {"model": "lama", "device": "gpu"},
    ),
    (
        (waiting(a_task(device="cuda"), queue="gpu-high"), a_fleet(a_node()), HERE),
        WhyCode.NO_DEVICE,
        "model cv2-ns does not run on cuda; retry it elsewhere",
        {"model": "cv2-ns", "device": "cuda"},
    ),
    (
        (waiting(queue="attic"), a_fleet(a_node()), HERE),
        WhyCode.NO_QUEUE,
        None,
        {"queue": "attic"},
    ),
    (
        (waiting(queue="cpu-intensive"), a_fleet(a_node()), HERE),
        WhyCode.NOT_SERVED,
        "1 node has model cv2-ns, but none serves cpu-intensive",
        {"model": "cv2-ns", "queue": "cpu-intensive"},
    ),
    (
        (LARGE, a_fleet(a_node("a", GPU, **MAT)), HERE),
        WhyCode.MISSES_MEMORY,
        "1 node has model mat, the largest GPU has 3000 MiB, it needs 4000 MiB: GPU-1 of node a misses 1000 MiB",
        {"model": "mat", "node": "a", "device": "GPU-1", "needs_mib": 4000, "has_mib": 3000, "misses_mib": 1000},
    ),
    (
        (waiting(), a_fleet(a_node(status=QUARANTINED, why="failed 3 of 4"), a_node("b", models={})), HERE),
        WhyCode.ALL_QUARANTINED,
        "node a, which has model cv2-ns, is quarantined: failed 3 of 4 (lcq activate a ends that)",
        {"node": "a", "reason": "failed 3 of 4"},
    ),
    (
        (waiting(), a_fleet(a_node(status=DRAINING, why="drained by ivo"), a_node("b", models={})), HERE),
        WhyCode.ALL_DRAINING,
        "node a, which has model cv2-ns, is draining: drained by ivo (lcq activate a ends that)",
        {"node": "a", "reason": "drained by ivo"},
    ),
    (
        (
            waiting(),
            a_fleet(a_node(status=NodeStatus.OFFLINE, why="no beat for 15 s"), a_node("b", models={})),
            HERE,
        ),
        WhyCode.ALL_OFFLINE,
        "node a, which has model cv2-ns, is offline: no beat for 15 s",
        {"node": "a", "reason": "no beat for 15 s"},
    ),
    (
        (waiting(), a_fleet(a_node(quarantined={"cpu": "failed its self-test twice"})), HERE),
        WhyCode.DEVICE_QUARANTINED,
        "cpu cpu of node a takes no work: in quarantine: failed its self-test twice",
        {"node": "a", "device": "cpu", "reason": "failed its self-test twice"},
    ),
    (
        (waiting(), a_fleet(a_node(readings={"cpu": DeviceReading(fault="failed its self-test")})), HERE),
        WhyCode.DEVICE_FAULT,
        "cpu cpu of node a takes no work: failed its self-test",
        {"node": "a", "device": "cpu", "fault": "failed its self-test"},
    ),
    *(
        (
            (waiting(), a_fleet(a_node(readings={"cpu": DeviceReading(fault="told", rest=code)})), HERE),
            WhyCode(code),
            "cpu cpu of node a takes no work: told",
            {"node": "a", "device": "cpu", "fault": "told"} | dict.fromkeys(MORE_OF_A_REST.get(code, ())),
        )
        for code in RestCode
    ),
    (
        (waiting(), a_fleet(a_node(readings={"cpu": DeviceReading(fault="tired", rest="a newer code")})), HERE),
        WhyCode.DEVICE_FAULT,
        "cpu cpu of node a takes no work: tired",
        {"node": "a", "device": "cpu", "fault": "tired"},
    ),
    (
        (
            waiting(pinned_node="a"),
            a_fleet(a_node(readings={"cpu": DeviceReading(fault="told", rest="too_hot")}), a_node("b")),
            HERE,
        ),
        WhyCode.TOO_HOT,
        "cpu cpu of node a takes no work: told",
        {"node": "a", "device": "cpu", "fault": "told"},
    ),
    (
        (waiting(pinned_node="moon"), a_fleet(a_node()), HERE),
        WhyCode.PINNED_NODE_GONE,
        "is kept for node moon, which is gone; lcq reroute it",
        {"node": "moon"},
    ),
    (
        (waiting(pinned_node="a"), a_fleet(a_node(status=DRAINING, why="drained by ivo"), a_node("b")), HERE),
        WhyCode.PINNED_NODE_DOWN,
        "node a is draining: drained by ivo",
        {"node": "a", "status": "draining", "reason": "drained by ivo"},
    ),
    (
        (waiting(pinned_node="a"), a_fleet(a_node(models={"lama": ON_CPU}), a_node("b")), HERE),
        WhyCode.PINNED_NODE_UNFIT,
        "node a has no model cv2-ns; it has lama",
        {"node": "a"},
    ),
    (
        (LARGE, a_fleet(CROWDED), HERE),
        WhyCode.SHORT_OF_MEMORY,
        "waits for memory: gpu GPU-1 of node a has 3,000 of 8,000 MiB free (other programs hold 4,000), it needs 4,000",
        {
            "node": "a",
            "device": "GPU-1",
            "needs_mib": 4000,
            "free_mib": 3000,
            "misses_mib": 1000,
            "foreign_mib": 4000,
        },
    ),
    (
        (waiting(), a_fleet(a_node(), a_node("b", running=2)), replace(HERE, avoids="a")),
        WhyCode.AVOIDS_NODE,
        "node a failed it, so it waits for a slot of b",
        {"node": "a"},
    ),
    (
        (
            waiting(),
            a_fleet(a_node(status=NodeStatus.SUSPECT, why="no beat for 5.0 s", seen_ms=NOW - 5_000)),
            HERE,
        ),
        WhyCode.SUSPECT_NODE,
        "waits for node a, which could run it and is suspect: no beat for 5.0 s",
        {"node": "a", "silent_ms": 5_000},
    ),
    (
        (
            waiting(status="processing", node="a", device="cpu", attempt=1, started_ms=NOW - 9_000),
            a_fleet(a_node(status=NodeStatus.SUSPECT, why="no beat for 5.0 s", seen_ms=NOW - 5_000)),
            HERE,
        ),
        WhyCode.SUSPECT_NODE,
        "runs on a (cpu), attempt 1, 0%; that node is suspect: no beat for 5.0 s",
        {"node": "a", "silent_ms": 5_000},
    ),
    (
        (waiting(), a_fleet(a_node()), replace(HERE, in_flight=3, most_in_flight=3)),
        WhyCode.USER_LIMIT,
        "user ann has 3 running, as many as it may (3)",
        {"user": "ann", "in_flight": 3, "most": 3},
    ),
    (
        (waiting(a_task(privacy="exportable"), queue="serverless"), SPENT, HERE),
        WhyCode.NO_BUDGET,
        "the budget for today is 1 EUR, of which 0.9 are spent or reserved, and an attempt may cost 0.2",
        {"queue": "serverless"},
    ),
    (
        (waiting(queue="serverless"), SPENT, HERE),
        WhyCode.MAY_NOT_LEAVE,
        "serverless is a queue of functions, and its pictures may not leave the house",
        {"queue": "serverless"},
    ),
    (
        (waiting(), KEEPING, replace(HERE, kept={("a", "cpu"): 1})),
        WhyCode.KEPT_SLOTS,
        "waits while slots are kept for people who wait for a picture: all that node a has free",
        {"node": "a", "kept": 1},
    ),
    (
        (waiting(a_task("lama")), UNEVEN, Standing()),
        WhyCode.LEFT_FOR_FASTER,
        "waits for a faster device: node slow has a slot, and would be done later",
        {"node": "slow"},
    ),
    (
        (
            waiting(),
            a_fleet(a_node("a", LARGE_CPU, running=2)),
            Standing(ahead={"cv2-ns": 3}, higher=2, depths={("cpu-intensive", "cv2-ns"): 9, ("gpu-low", "cv2-ns"): 8}),
        ),
        WhyCode.BEHIND_QUEUE,
        (
            "waits for its turn in cpu-light; its devices take turns between its users and those of cpu-intensive,"
            " a class above (9 tasks wait there)"
        ),
        a_turn(3, 2, 1, first=9),
    ),
    (
        (waiting(), a_fleet(a_node(running=2)), Standing(ahead={"cv2-ns": 1200, "lama": 30}, higher=7, own=3)),
        WhyCode.BEHIND_BAND,
        "waits for its turn in cpu-light behind 7 tasks of higher priority, 1230 in all",
        a_turn(1230, 7, 1220),
    ),
    (
        (waiting(), a_fleet(a_node(running=2)), Standing(ahead={"cv2-ns": 1200, "lama": 30}, own=3)),
        WhyCode.BEHIND_SHARE,
        "waits for its turn in cpu-light behind 1,227 tasks of others by fair shares, 1230 in all",
        a_turn(1230, 0, 1227),
    ),
    (
        (waiting(), a_fleet(a_node(running=2)), Standing(ahead={"cv2-ns": 1}, own=1)),
        WhyCode.WAITS_TURN,
        "waits for its turn in cpu-light, behind 1 task of its user",
        a_turn(1, 0, 0),
    ),
    (
        (waiting(), a_fleet(a_node(running=2)), Standing(ahead={"cv2-ns": 5}, higher=None)),
        WhyCode.WAITS_TURN,
        "waits for its turn in cpu-light, behind 5 tasks",
        a_turn(5, None, None),
    ),
    (
        (waiting(), a_fleet(a_node()), Standing()),
        WhyCode.WAITS_TURN,
        "waits for its turn in cpu-light, as the next one",
        a_turn(0, 0, 0),
    ),
    (
        (waiting(status="processing", node="a", device="cpu", attempt=2, progress=0.5), a_fleet(), HERE),
        WhyCode.RUNNING,
        "runs on a (cpu), attempt 2, 50%",
        {"node": "a", "device": "cpu", "attempt": 2, "since_ms": None, "progress": 0.5},
    ),
    (
        (waiting(status="completed", node="a", result=RESULT, finished_ms=NOW), a_fleet(), HERE),
        WhyCode.COMPLETED,
        "completed by a in 0.25 s",
        {"node": "a", "result": "/out/a.png", "finished_ms": NOW},
    ),
    (
        (waiting(status="failed", node="a", failure=CRASH, finished_ms=NOW), a_fleet(), HERE),
        WhyCode.FAILED,
        "failed: runner_died: it died",
        {"failure": "runner_died", "error_class": "crash", "node": "a", "finished_ms": NOW},
    ),
    (
        (waiting(status="cancelled", why="by ivo: twice", finished_ms=NOW), a_fleet(), HERE),
        WhyCode.CANCELLED,
        "cancelled by ivo: twice",
        {"by": "by ivo: twice", "finished_ms": NOW},
    ),
    (
        (waiting(damaged="rev is no number"), a_fleet(a_node()), HERE),
        WhyCode.DAMAGED,
        "its record cannot be read: rev is no number",
        {"found": "rev is no number"},
    ),
]
PREDICTED = {"start_p50_ms", "start_p90_ms", "finish_p50_ms", "finish_p90_ms"}


@pytest.mark.parametrize(("known", "code", "text", "facts"), TABLE, ids=[f"{row[1]}" for row in TABLE])
def test_each_reason_has_its_code_its_line_its_facts_and_what_to_do(known, code, text, facts):
    why = why_of(*known)
    assert why.code is code
    assert text in (None, why.text)
    assert "\n" not in why.text
    assert {name: value for name, value in why.facts.items() if name not in PREDICTED} == facts
    assert set(why.facts) == set(MEANINGS[code].facts)
    assert "{" not in why.hint


def test_the_table_leaves_no_code_out():
    assert {row[1] for row in TABLE} | {WhyCode.OTHER} == set(WhyCode) == set(MEANINGS)


def test_the_page_has_all_codes_with_what_they_mean():
    page = (Path(__file__).parents[2] / "docs" / "why.md").read_text()
    rows = [
        f"| `{code}` | {one.says} | {', '.join(f'`{name}`' for name in one.facts)} | {one.do.replace('|', '/')} |"
        for code, one in MEANINGS.items()
    ]
    assert [line for line in page.splitlines() if line.startswith("| `")] == rows, "\n".join(rows)


def test_a_code_of_a_newer_scheduler_is_another_one_with_its_line():
    told = {"code": "moon_is_full", "text": "the moon is full", "facts": {"moon": 1}, "hint": "wait"}
    assert Why.model_validate(told) == Why(code=WhyCode.OTHER, text="the moon is full", facts={"moon": 1}, hint="wait")


def test_what_waits_with_a_free_slot_starts_now_and_a_running_one_tells_when_it_is_done():
    why = why_of(waiting(), a_fleet(a_node()), HERE)
    assert why.text.startswith("waits for its turn in cpu-light, as the next one; starts now, done in about")
    assert why.facts["start_p50_ms"] == why.facts["start_p90_ms"] == NOW
    running = waiting(status="processing", node="a", device="cpu", attempt=1, started_ms=NOW)
    done = why_of(running, a_fleet(a_node()), HERE)
    assert (done.facts["finish_p50_ms"], done.facts["finish_p90_ms"]) == (
        why.facts["finish_p50_ms"],
        pytest.approx(why.facts["finish_p90_ms"], abs=2),
    )
    assert "guess" not in why.text + done.text, "what cv2 takes was measured"
    on_gpu = a_node("a", GPU, models={"lama": ON_GPU})
    guessed = why_of(waiting(a_task("lama"), queue="gpu-low"), a_fleet(on_gpu), HERE)
    assert guessed.text.endswith(", a guess")
    assert why_of(
        waiting(
            a_task("lama"), queue="gpu-low", status="processing", node="a", device="GPU-1", attempt=1, started_ms=NOW
        ),
        a_fleet(on_gpu),
        HERE,
    ).text.endswith(", a guess")
    late = why_of(running, a_fleet(a_node()), Standing(now_ms=NOW + 60_000))
    assert "it takes longer than predicted" in late.text


@given(
    ahead=st.dictionaries(st.sampled_from(["cv2-ns", "cv2-telea", "lama"]), st.integers(0, 10_000)),
    more=st.integers(1, 1000),
    slots=st.integers(1, 64),
    busy_s=st.lists(st.floats(0, 600), max_size=64),
)
def test_predictions_are_in_order_and_more_before_a_task_never_makes_it_earlier(ahead, more, slots, busy_s):
    record = waiting()
    device = CPU.model_copy(update={"slots": slots})

    def at(tasks: dict[str, int], *nodes: NodeRecord):
        fleet = replace(a_fleet(*nodes), busy_s={("a", "cpu"): tuple(busy_s)})
        need = requirements(record.task, fleet)
        found = forecast(record, need, fleet, list(fleet.serving("cpu-light", need)), Standing(ahead=tasks), {})
        assert found is not None
        return found

    one = a_node("a", device)
    times = at(ahead, one)
    assert 0 <= times.start_p50_s <= times.start_p90_s
    assert times.start_p50_s <= times.finish_p50_s <= times.finish_p90_s
    assert times.start_p90_s <= times.finish_p90_s
    assert at(ahead | {"cv2-ns": ahead.get("cv2-ns", 0) + more}, one).start_p50_s >= times.start_p50_s
    assert at(ahead, one, a_node("b", device)).start_p50_s <= times.start_p50_s * (1 + 1e-9)


def test_a_queue_that_is_taken_first_counts_only_where_every_device_does_so_and_nobody_has_paused_it():
    standing = Standing(depths={("cpu-intensive", "cv2-ns"): 9, ("cpu-intensive", "lama"): 4})
    large, small = a_node("a", LARGE_CPU, running=2), a_node("b", running=2)
    assert why_of(waiting(), a_fleet(large), standing).code is WhyCode.BEHIND_QUEUE
    assert why_of(waiting(), a_fleet(large, small), standing).code is WhyCode.WAITS_TURN
    paused = replace(a_fleet(large), paused={"cpu-intensive": "by ivo"})
    assert why_of(waiting(), paused, standing).code is WhyCode.WAITS_TURN
    assert why_of(waiting(queue="cpu-intensive"), a_fleet(large), standing).code is WhyCode.WAITS_TURN


def test_the_rivals_of_a_task_are_the_lanes_that_its_devices_read_too():
    lanes = [
        ("cpu-light", "cv2-ns"), ("cpu-light", "cv2-telea"), ("cpu-light", "lama"), ("gpu-low", "lama"),
        ("cpu-light", "cv2-ns?rack=3"), ("@a", "cv2-ns?rack=3"),
    ]  # fmt: skip
    both = {"models": {"cv2-ns": ON_CPU, "cv2-telea": ON_CPU}}
    plain = a_fleet(a_node("a", **both), a_node("b", models={"lama": ON_CPU}))
    assert rivals(waiting(), plain, lanes) == ("cv2-ns", "cv2-telea")
    racked = a_fleet(a_node("a", labels={"rack": "3"}, **both))
    assert rivals(waiting(), racked, lanes) == ("cv2-ns", "cv2-ns?rack=3", "cv2-telea")
    assert rivals(waiting(pinned_node="a"), racked, lanes) == ("cv2-ns", "cv2-ns?rack=3", "cv2-telea")
    assert rivals(waiting(a_task("mat")), plain, lanes) == ("mat",)


def test_in_a_list_the_number_or_the_name_comes_first() -> None:
    now = 1_000_000

    def short(code: WhyCode, text: str = "in full", **facts: Fact) -> str:
        return brief(Why(code=code, text=text, facts=facts), now)

    turn: dict[str, Fact] = {"behind": 1230, "start_p50_ms": now + 180_000}
    assert short(WhyCode.WAITS_TURN, **turn) == "behind 1,230, starts in 3 min"
    assert short(WhyCode.WAITS_TURN, behind=0, start_p50_ms=now) == "the next one, starts now"
    assert short(WhyCode.WAITS_TURN, behind=2, start_p50_ms=None) == "behind 2"
    assert short(WhyCode.BEHIND_BAND, **turn, behind_higher_bands=7).startswith("behind 1,230 (7 of higher priority), ")
    queue: dict[str, Fact] = {"before_queue": "gpu-high", "behind_queue": 4}
    assert short(WhyCode.BEHIND_QUEUE, **turn, **queue) == "behind 4 of gpu-high, starts in 3 min"
    later: dict[str, Fact] = {"until_ms": now + 20_000, "failure": "oom"}
    assert short(WhyCode.BACKOFF, **later) == "retry after oom in 20 s"
    assert short(WhyCode.RETRY_BUDGET, **later) == "retry after oom in 20 s: over the retry budget"
    assert short(WhyCode.SCHEDULED, until_ms=now - 1) == "due now"
    assert short(WhyCode.QUEUE_PAUSED, "queue q is paused by ann") == "queue q is paused by ann"
    assert short(WhyCode.JOB_PAUSED, by="ann", reason="lunch") == "job paused by ann: lunch"
    assert short(WhyCode.QUEUE_PAUSED, by="ann", reason="") == "queue paused by ann"


def test_a_function_that_rests_says_until_when_and_one_that_is_tried_that_one_call_does_so() -> None:
    burst = Device(id="burst", kind=DeviceKind.SERVERLESS)
    task = waiting(a_task(privacy="exportable"), queue="serverless")

    def why(**told: object) -> Why:
        node = a_node("far", burst, models={"cv2-ns": ON_CALL}, readings={"burst": DeviceReading.model_validate(told)})
        return why_of(task, a_fleet(node), HERE)

    rests = {"fault": "its function is left alone", "rest": "endpoint_away"}
    away = why(**rests, function={"rests_until_ms": NOW + 12_000, "in_vain": 3})
    assert away.text == (
        "serverless burst of node far takes no work: its function is left alone; it is tried again at "
        "2027-01-15 08:00:12Z (in 12 s), calls in vain so far: 3"
    )
    assert (away.code, away.facts["until_ms"]) == (WhyCode.ENDPOINT_AWAY, NOW + 12_000)
    assert brief(away, NOW) == "burst rests, again in 12 s (node far)"
    assert brief(why(**rests), NOW).endswith("its function is left alone"), "its agent is older"
    tried = why(function={"trials": 1, "in_vain": 4})
    assert tried.code is WhyCode.WAITS_TURN
    assert tried.text.endswith("; burst of node far was away, and is tried by one call at a time")
    assert "was away" not in why(function={}).text


def test_kept_slots_are_a_reason_only_for_what_would_have_one_of_them_else() -> None:
    kept = replace(HERE, kept={("a", CPU.id): 1})

    def code(fleet: Fleet, standing: Standing, **more: object) -> WhyCode:
        return why_of(waiting(**more), fleet, standing).code

    assert code(KEEPING, kept) is WhyCode.KEPT_SLOTS
    assert code(KEEPING, kept, priority="high") is WhyCode.WAITS_TURN
    assert code(KEEPING, replace(kept, ahead={"cv2-ns": 3})) is WhyCode.BEHIND_SHARE
    assert code(a_fleet(a_node()), kept) is WhyCode.WAITS_TURN, "other slots are free"
    both = replace(KEEPING, nodes=(*KEEPING.nodes, a_node("b")))
    assert code(both, kept) is WhyCode.WAITS_TURN, "another node has some"


@pytest.mark.parametrize(
    ("away_s", "behind", "told"),
    [
        (3600, 0, "; to be done by 2027-01-15 09:00:00Z (in 60 min)"),
        (5, 400, " after its deadline"),
        (-60, 0, "; to be done by 2027-01-15 07:59:00Z (60 s ago), which is missed"),
    ],
)
def test_the_reason_says_what_becomes_of_a_deadline(away_s: int, behind: int, told: str) -> None:
    record = waiting(a_task(deadline=datetime.fromtimestamp(NOW / 1000 + away_s, UTC)))
    ahead = {"cv2-ns": behind} if behind else {}
    why = why_of(record, a_fleet(a_node()), replace(HERE, ahead=ahead, higher=0))
    assert why.text.endswith(told)
    assert (", and would be " in why.text) == bool(behind)
    assert "deadline" not in why_of(waiting(), a_fleet(a_node()), HERE).text
    at = round(NOW + 1000 * away_s)
    done = record.model_copy(update={"status": TaskStatus.COMPLETED, "node": "a", "finished_ms": at + 90_000})
    assert why_of(done, a_fleet()).text == "completed by a, 90 s after its deadline"
    in_time = done.model_copy(update={"finished_ms": at})
    assert why_of(in_time, a_fleet()).text == "completed by a"

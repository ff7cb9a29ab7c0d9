"""The store: snapshots, events in any order, and nothing that is told twice counts twice."""

from __future__ import annotations

from collections import Counter

import pytest

from lcq.errors import StateUnavailable
from lcq.models import DeviceReading, Event, NodeStatus, TaskPriority, TaskRecord, TaskStatus
from lcq.task_fields import parse_where
from tests.tui.fakes import FakeCluster, a_failure, a_node, a_task, many_tasks, now_ms
from tui.columns import TASK_COLUMNS
from tui.desk import Desk
from tui.source import trouble_of
from tui.store import Store, node_row


async def a_store(cluster: FakeCluster) -> Store:
    store = Store()
    store.load(await cluster.snapshot())
    store.tasks.take()
    return store


def counts_hold(store: Store) -> bool:
    found = Counter(row.status for row in store.tasks.rows.values())
    return store.counts == {status: found[status] for status in TaskStatus}


async def test_an_event_moves_a_task_on_and_the_counts_with_it():
    task = a_task()
    cluster = FakeCluster([task])
    store = await a_store(cluster)
    cluster.change(task.id, "claim_tasks", status=TaskStatus.PROCESSING, node="gpu-1", attempt=1)
    store.apply(cluster.log)
    row = store.tasks.rows[task.id]
    assert (row.status, row.node, row.attempt, row.revision) == (TaskStatus.PROCESSING, "gpu-1", 1, 2)
    assert row.started_ms == cluster.log[0].at_ms
    assert counts_hold(store)


async def test_news_told_twice_or_late_changes_nothing():
    task = a_task()
    cluster = FakeCluster([task])
    store = await a_store(cluster)
    cluster.change(task.id, "claim_tasks", status=TaskStatus.PROCESSING, node="gpu-1", attempt=1)
    cluster.change(task.id, "finish_task", status=TaskStatus.COMPLETED)
    claim, finish = cluster.log
    store.apply([finish])
    shown = store.tasks.rows[task.id]
    store.apply([claim, finish, claim])
    assert store.tasks.rows[task.id].status is TaskStatus.COMPLETED
    assert store.tasks.rows[task.id] is shown
    assert counts_hold(store)


async def test_a_submitted_task_is_there_before_its_record_is_read():
    cluster = FakeCluster()
    store = await a_store(cluster)
    record = cluster.add(a_task("/photos/new.jpg", task_job="spring"))
    store.apply(cluster.log)
    row = store.tasks.rows[record.id]
    assert (row.image, row.job, row.model, row.partial) == ("/photos/new.jpg", "spring", "cv2-telea", True)
    store.put_tasks([record])
    assert store.tasks.rows[record.id].partial is False
    assert store.tasks.rows[record.id].max_attempts == 4


async def test_a_record_older_than_an_event_is_not_taken():
    task = a_task()
    cluster = FakeCluster([task])
    store = await a_store(cluster)
    cluster.change(task.id, "cancel_task", status=TaskStatus.CANCELLED)
    store.apply(cluster.log)
    store.put_tasks([task])
    assert store.tasks.rows[task.id].status is TaskStatus.CANCELLED


async def test_a_forgotten_task_is_gone_and_a_late_record_does_not_bring_it_back():
    task = a_task()
    cluster = FakeCluster([task])
    store = await a_store(cluster)
    cluster.forget(task.id)
    store.apply(cluster.log)
    store.put_tasks([task])
    assert task.id not in store.tasks.rows
    assert store.tasks.take().gone == {task.id}
    assert counts_hold(store)


async def test_an_event_of_an_unknown_task_asks_for_its_record():
    task = a_task()
    cluster = FakeCluster([task])
    store = Store()
    cluster.change(task.id, "claim_tasks", status=TaskStatus.PROCESSING)
    store.apply(cluster.log)
    assert store.take_wanted(10) == [task.id]
    assert store.take_wanted(10) == []


async def test_a_failure_is_told_until_an_operator_retries():
    task = a_task(status=TaskStatus.PROCESSING)
    cluster = FakeCluster([task])
    store = await a_store(cluster)
    cluster.change(
        task.id, "fail_task", status=TaskStatus.FAILED, extra={"class": "crash", "code": "runner_died", "message": "9"}
    )
    store.apply(cluster.log)
    assert store.tasks.rows[task.id].error == "runner_died: 9"
    cluster.change(task.id, "retry_task", status=TaskStatus.QUEUED)
    store.apply(cluster.log)
    assert store.tasks.rows[task.id].error == ""


@pytest.mark.parametrize(
    "fields",
    [{"id": "x", "rev": "many", "status": "queued"}, {"rev": "1"}, {"id": "x", "rev": "1", "status": "asleep",
      "submitted_ms": "1"}, {}],
)  # fmt: skip
async def test_an_event_that_makes_no_sense_is_counted_and_left(fields):
    cluster = FakeCluster([a_task()])
    store = await a_store(cluster)
    cluster.emit("submit_task", **fields)
    store.apply(cluster.log)
    assert len(store.tasks.rows) == 1
    assert counts_hold(store)


async def test_every_text_is_cleaned_at_the_door():
    evil = "a\x1b]52;c;eA==\x07\u202e[/red]\x9b2J\u200b"
    record = a_task(evil, task_user_id=evil, task_job=evil, why=evil, stage=evil, node="n", failure=a_failure(evil))
    node = a_node(why=evil, telemetry={evil: evil})
    cluster = FakeCluster([record], [node])
    cluster.paused["cpu-light"] = evil
    store = await a_store(cluster)
    cluster.change(record.id, "fail_task", why=evil, extra={"code": "c", "message": evil})
    store.apply(cluster.log)
    seen = "\n".join(
        str(getattr(row, slot))
        for shelf in (store.tasks, store.nodes, store.queues)
        for row in shelf.rows.values()
        for slot in type(row).__slots__
        if slot != "_haystack"
    )
    assert "[/red]" in seen
    assert not set(seen) & set("\x1b\x07\x9b\u202e\u200b")


async def test_a_poll_that_finds_no_difference_changes_no_version():
    cluster = FakeCluster([a_task()], [a_node()])
    store = await a_store(cluster)
    store.nodes.take()
    store.put_nodes(cluster.node_records.values())
    store.put_tasks(cluster.records.values())
    assert not store.nodes.take()
    assert not store.tasks.take()


async def test_a_node_event_shows_at_once_and_asks_for_a_poll():
    cluster = FakeCluster([], [a_node("gpu-1")])
    store = await a_store(cluster)
    await cluster.drain("gpu-1", reason="driver")
    store.apply(cluster.log)
    assert store.nodes.rows["gpu-1"].status is NodeStatus.DRAINING
    assert store.nodes.rows["gpu-1"].why == "driver"
    assert store.polling_due


async def test_what_an_event_said_of_a_node_does_not_outlive_the_next_look_at_it():
    cluster = FakeCluster([], [a_node("gpu-1")])
    store = await a_store(cluster)
    before = tuple(cluster.node_records.values())
    store.put_nodes(before)
    await cluster.drain("gpu-1", reason="driver")
    store.apply(cluster.log)
    store.put_nodes(before)  # it has been activated since
    assert store.nodes.rows["gpu-1"].status is NodeStatus.ONLINE


async def test_a_node_that_is_no_longer_reported_is_gone():
    cluster = FakeCluster([], [a_node("gpu-1"), a_node("gpu-2")])
    store = await a_store(cluster)
    del cluster.node_records["gpu-1"]
    store.put_nodes(await cluster.nodes())
    assert list(store.nodes.rows) == ["gpu-2"]


async def test_a_snapshot_that_was_cut_says_how_much_is_missing():
    cluster = FakeCluster([a_task()], total=312_000)
    store = await a_store(cluster)
    assert store.beyond == 311_999


async def test_changing_priority_keeps_the_rest():
    task = a_task(submitted_ms=now_ms() - 5000)
    cluster = FakeCluster([task])
    store = await a_store(cluster)
    cluster.change(task.id, "prioritise_task", priority=TaskPriority.URGENT)
    store.apply(cluster.log)
    row = store.tasks.rows[task.id]
    assert (row.priority, row.submitted_ms, row.image) == (TaskPriority.URGENT, task.submitted_ms, "/photos/cover.jpg")


def test_what_a_node_tells_is_shown_in_a_persons_units():
    row = node_row(
        a_node(telemetry={"cpu_percent": 71.2, "memory_available_mib": 2048.0, "gpu": "idle", "load_1m": 4.62})
    )
    assert dict(row.load) == {
        "processor": "71%", "memory available": "2.0 GiB", "gpu": "idle", "load, 1 minute": "4.6",
    }  # fmt: skip


def test_a_node_whose_settings_are_not_taken_over_says_why_where_nothing_else_is_wrong():
    wrong = {"config_error": "lcq.yaml: line 2: agent.slots: must be a whole number"}
    assert node_row(a_node(telemetry=wrong)).why.startswith("its settings stay as they were: lcq.yaml: line 2")
    assert node_row(a_node(telemetry=wrong, why="drained by ann")).why == "drained by ann"


def test_a_nodes_clock_is_told_where_it_is_off_by_more_than_is_known_of_it():
    def told(offset: float, error: float) -> dict[str, str]:
        return dict(node_row(a_node(telemetry={"clock_offset_s": offset, "clock_error_s": error})).load)

    assert told(-7.3, 0.01) == {"clock": "-7.3 s"}
    assert told(0.02, 0.001) == told(0.5, 0.9) == {}


def test_how_a_nodes_devices_are_is_told_in_a_few_words():
    evil = "warm" + chr(27) + "[31m"
    readings = {
        "GPU-8f3a1c22-55aa": DeviceReading(
            total_mib=12288, free_mib=3072, foreign_mib=8192, busy=0.5, temperature_c=61.4, warm=("lama", evil)
        ),
        "cpu": DeviceReading(fault="its self-test failed"),
    }
    told = dict(node_row(a_node(readings=readings)).load)
    assert told.keys() == {"GPU-8f3a1c22", "cpu"}
    assert told["cpu"] == "takes no work: its self-test failed"
    assert told["GPU-8f3a1c22"].startswith("3.0 of 12.0 GiB free, others hold 8.0, 50% busy, 61 °C, warm: lama, ")
    assert chr(27) not in told["GPU-8f3a1c22"]


def test_trouble_is_told_without_passwords():
    trouble = trouble_of(StateUnavailable("unix://:s3cret@/run/redis.sock?db=0", "gone"))
    assert "s3cret" not in trouble


@pytest.mark.parametrize(("new", "changes"), [(6_000, 15_000), pytest.param(20_000, 50_000, marks=pytest.mark.chaos)])
async def test_a_burst_of_changes_and_new_tasks_is_taken_in_once_a_task_however_many_there_are(new, changes):
    cluster = FakeCluster([a_task() for _ in range(10)])
    store = await a_store(cluster)
    ids = [cluster.add(a_task(status=TaskStatus.QUEUED)).id for _ in range(new)]
    for number in range(changes):  # some tasks many times
        task_id = ids[number % 1_500]
        cluster.change(task_id, "prioritise_task", priority=list(TaskPriority)[number % 3])
    store.apply(cluster.log)
    taken = store.tasks.take()
    assert taken.changed == set(ids), "what one frame has to take in is bounded by the tasks, whatever came"
    assert not taken.everything
    assert not store.tasks.take()
    assert counts_hold(store)
    last = cluster.records[ids[0]]
    assert (store.tasks.rows[ids[0]].priority, store.tasks.rows[ids[0]].revision) == (last.priority, last.revision)


async def test_the_window_keeps_its_size_while_tasks_come_and_says_what_is_beyond_it():
    tasks = many_tasks(300)
    store = await a_store(cluster := FakeCluster(tasks))
    store.tasks.take()
    oldest = tasks[0].id
    store.cut(300, lambda task_id: False)
    assert (len(store.tasks.rows), store.oldest) == (300, ""), "nothing is over it"
    for number in range(300, 420):
        cluster.add(_copy(tasks[0], f"{number:016d}"))
    store.apply(cluster.log)
    store.cut(300, lambda task_id: task_id == oldest)
    assert oldest in store.tasks.rows, "it is looked at"
    assert len(store.tasks.rows) - 1 + store.beyond == 419
    assert len(store.tasks.rows) == 301
    assert store.oldest == min(set(store.tasks.rows) - {oldest})
    assert counts_hold(store)
    assert len(store.tasks.take().gone) == 119
    cluster.log.clear()
    cluster.change(tasks[5].id, "claim_tasks", status=TaskStatus.PROCESSING)
    store.apply(cluster.log)
    assert store.take_wanted(10) == [], "nobody looks there"
    store.seeking = True
    cluster.change(tasks[5].id, "finish_task", status=TaskStatus.COMPLETED)
    store.apply(cluster.log)
    assert store.take_wanted(10) == [tasks[5].id]


async def test_what_was_read_from_beyond_the_window_goes_before_the_window_does_unless_somebody_looks():
    tasks = many_tasks(400)
    cluster = FakeCluster(tasks)
    snapshot = await cluster.snapshot(200)
    store = Store()
    store.load(snapshot)
    assert store.put_older(tasks[150:200]) == 50
    store.seeking = True
    for number in range(400, 470):
        cluster.add(_copy(tasks[0], f"{number:016d}"))
    store.apply(cluster.log)
    before = len(store.tasks.rows)
    cut = min(snapshot.tasks, key=lambda record: record.id).id
    store.cut(400, lambda task_id: False)
    assert len(store.tasks.rows) == before, "there is room"
    store.seeking = False
    store.cut(200, lambda task_id: False)
    assert store.cuts == 1
    assert not {record.id for record in tasks[150:200]} & set(store.tasks.rows)
    assert cut not in store.tasks.rows
    assert len(store.tasks.rows) == 200
    assert counts_hold(store)


def _copy(record: TaskRecord, task_id: str) -> TaskRecord:
    return record.model_copy(update={"task": record.task.model_copy(update={"id": task_id}), "submitted_ms": now_ms()})


async def test_how_large_a_tasks_image_is_can_be_seen_sorted_by_and_filtered_by():
    sizes = [(4096, 2730), None, (512, 512), (10_000, 300)]
    cluster = FakeCluster(a_task(f"/p/{n}.jpg", size=size) for n, size in enumerate(sizes))
    desk = Desk(cluster, cluster)
    desk.store.load(await cluster.snapshot())
    fresh = Event(id="1-1", move="submit_task", fields={
        "id": "z" * 16, "status": "queued", "rev": "1", "submitted_ms": "1", "size": "6000x4000", "queue": "cpu-light",
    })  # fmt: skip
    desk.store.apply([fresh])
    desk.flush()
    (column,) = [column for column in TASK_COLUMNS if column.id == "size"]
    desk.tasks.set_sort("size", descending=True)
    shown = [column.cell(row, 0)[0] for row in desk.tasks.rows()]
    assert shown == ["6000x4000", "4096x2730", "10000x300", "512x512", "--"]
    desk.tasks.set_filter("size>3.1 -size>20")
    assert [row.size for row in desk.tasks.rows()] == ["4096x2730"]
    records = cluster.records.values()
    assert [one.size for one in records if parse_where("size<=3").matches(one, 0)] == [(512, 512), (10_000, 300)]

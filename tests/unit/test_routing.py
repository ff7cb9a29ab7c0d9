"""Routing is a pure function: what goes where, and why nothing fits."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lcq.errors import NodeNotFound, UnknownModel, UnknownQueue
from lcq.models import (
    DEFAULT_QUEUES,
    Device,
    DeviceKind,
    ErrorClass,
    Failure,
    NodeCapability,
    NodeRecord,
    NodeStatus,
    Task,
    TaskRecord,
    TaskStatus,
    TaskType,
)
from lcq.routing import Fleet, explain, route

CPU = Device(id="cpu", kind=DeviceKind.CPU, cores=8, memory_mib=16000, slots=4)
LAPTOP = Device(id="cpu", kind=DeviceKind.CPU, cores=2, memory_mib=8000, slots=1)


def gpu(vram_mib: int) -> Device:
    return Device(id=f"GPU-{vram_mib}", kind=DeviceKind.GPU, vram_mib=vram_mib, slots=1)


def node(name: str, *devices: Device, models: str = "cv2-telea", status: NodeStatus = NodeStatus.ONLINE) -> NodeRecord:
    kinds = tuple({device.kind for device in devices})
    capability = NodeCapability(devices=devices, models=dict.fromkeys(models.split(), kinds))
    return NodeRecord(
        id=name, boot_id="b", status=status, capability=capability, serves=capability.serves(DEFAULT_QUEUES)
    )


def fleet(*nodes: NodeRecord, waiting: dict[str, int] | None = None, paused: dict[str, str] | None = None) -> Fleet:
    return Fleet(queues=DEFAULT_QUEUES, nodes=nodes, waiting=waiting or {}, paused=paused or {})


def task(model: str = "cv2-telea", **config: str) -> Task:
    return Task(task_type=TaskType.INPAINT, image_path="a.jpg", config={"model": model, **config})


def test_an_opencv_task_goes_to_the_least_capable_cpu_queue_that_a_node_serves():
    assert route(task(), fleet(node("big", CPU))).queue == "cpu-light"


def test_lama_prefers_a_gpu_and_takes_the_cpu_where_there_is_none():
    assert route(task("lama"), fleet(node("g", gpu(2500), models="lama"))).queue == "gpu-low"
    assert route(task("lama"), fleet(node("c", LAPTOP, models="lama"))).queue == "cpu-light"


def test_a_device_serves_its_own_class_first_and_then_the_classes_below():
    capability = NodeCapability(devices=(gpu(24000),))
    assert capability.serves(DEFAULT_QUEUES) == {"GPU-24000": ("gpu-high", "gpu-medium", "gpu-low")}


def test_the_device_wish_is_obeyed():
    both = fleet(node("g", gpu(9000), models="lama"), node("c", CPU, models="lama"))
    assert route(task("lama", device="cpu"), both).queue.startswith("cpu")
    assert route(task("lama", device="cuda"), both).queue.startswith("gpu")


def test_a_long_backlog_in_the_least_capable_queue_sends_a_task_to_one_that_finishes_it_sooner():
    small, large = node("s", gpu(2500), models="lama"), node("l", gpu(9000), models="lama")
    only_small_serves = fleet(small, waiting={"gpu-low": 0})
    assert route(task("lama"), only_small_serves).queue == "gpu-low"
    assert route(task("lama"), fleet(small, large, waiting={"gpu-low": 500})).queue != "gpu-low"


def test_nodes_that_take_no_work_do_not_count():
    resting = fleet(node("d", CPU, status=NodeStatus.DRAINING), node("o", CPU, status=NodeStatus.OFFLINE))
    chosen = route(task(), resting)
    assert chosen.queue == "cpu-light"
    assert chosen.why == "no node is online (2 known: lcq nodes)"


@pytest.mark.parametrize(
    ("picture", "asked", "reason"),
    [
        (fleet(), task(), "no node is online; start one with lcq-agent"),
        (fleet(node("a", CPU)), task("mat"), "no node has model mat"),
        (
            fleet(node("a", CPU, models="lama")),
            task("lama", device="cuda"),
            "1 node has model lama, but none has a GPU, which gpu-low, gpu-medium, gpu-high needs",
        ),
        (
            fleet(node("a", gpu(2500), models="mat"), node("b", gpu(3000), models="mat")),
            task("mat", device="cuda"),
            "2 nodes have model mat, the largest GPU has 3000 MiB, it needs 4000 MiB",
        ),
        (fleet(node("a", CPU)), task(device="cuda"), "model cv2-telea does not run on cuda; retry it elsewhere"),
    ],
)
def test_what_nothing_can_run_says_why_in_words_a_person_can_act_on(picture, asked, reason):
    assert route(asked, picture).why == reason


def test_an_unknown_model_is_refused_with_the_nearest_name_and_the_image():
    with pytest.raises(UnknownModel) as refusal:
        route(task("lamma"), fleet())
    assert str(refusal.value) == "a.jpg: no such model: 'lamma' (did you mean 'lama'?)"


def test_a_model_that_only_a_node_knows_is_known():
    assert route(task("house-special"), fleet(node("a", CPU, models="house-special"))).why == ""


def test_an_unknown_queue_or_node_is_refused_by_name():
    with pytest.raises(UnknownQueue, match="did you mean 'gpu-high'"):
        route(task(), fleet(), queue="gpu-hihg")
    with pytest.raises(NodeNotFound, match="no node 'moon'"):
        route(task(), fleet(), node="moon")


def test_an_operators_queue_is_obeyed_even_where_nothing_serves_it_and_says_so():
    chosen = route(task("lama"), fleet(node("a", CPU, models="lama")), queue="gpu-high")
    assert chosen.queue == "gpu-high"
    assert "none has a GPU" in chosen.why


@given(
    vrams=st.lists(st.integers(1000, 40000), max_size=6),
    cpus=st.integers(0, 3),
    model=st.sampled_from(["cv2-telea", "lama", "mat", "zits"]),
    device=st.sampled_from(["auto", "cpu", "cuda"]),
    backlog=st.dictionaries(st.sampled_from([queue.name for queue in DEFAULT_QUEUES]), st.integers(0, 10000)),
)
def test_a_route_without_a_reason_always_has_a_live_device_that_fits(vrams, cpus, model, device, backlog):
    models = "cv2-telea lama mat zits"
    nodes = [node(f"g{i}", gpu(vram), models=models) for i, vram in enumerate(vrams)]
    nodes += [node(f"c{i}", CPU, models=models) for i in range(cpus)]
    picture = fleet(*nodes, waiting=backlog)
    chosen = route(task(model, device=device), picture)
    queue = picture.queue(chosen.queue)
    assert queue is not None
    if not chosen.why:
        assert picture.live_slots(chosen.queue, model) > 0
        assert device != "cpu" or queue.kind == DeviceKind.CPU
        assert device != "cuda" or queue.kind == DeviceKind.GPU


def record(status: TaskStatus, **more: object) -> TaskRecord:
    base = {"task": task(), "status": status, "revision": 1, "queue": "cpu-light", "priority": "normal"}
    return TaskRecord.model_validate(base | more)


@pytest.mark.parametrize(
    ("asked", "picture", "answer"),
    [
        (
            record(TaskStatus.QUEUED),
            fleet(node("a", CPU), paused={"cpu-light": "by maria: upgrade"}),
            "queue cpu-light is paused by maria: upgrade",
        ),
        (record(TaskStatus.QUEUED), fleet(), "no node is online; start one with lcq-agent"),
        (
            record(TaskStatus.QUEUED),
            fleet(node("a", CPU), waiting={"cpu-light": 12}),
            "waits for its turn in cpu-light (12 queued there)",
        ),
        (
            record(TaskStatus.QUEUED, pinned_node="moon"),
            fleet(node("a", CPU)),
            "is kept for node moon, which is gone; lcq reroute it",
        ),
        (
            record(
                TaskStatus.PENDING,
                retries=2,
                failure=Failure(error_class=ErrorClass.TRANSIENT, code="io_error", message="m"),
            ),
            fleet(),
            "waits for its retry after io_error (retry 2 of 3)",
        ),
        (
            record(
                TaskStatus.FAILED,
                failure=Failure(error_class=ErrorClass.BAD_INPUT, code="image_missing", message="no a.jpg"),
            ),
            fleet(),
            "failed: image_missing: no a.jpg",
        ),
        (record(TaskStatus.CANCELLED, why="by ivo: twice"), fleet(), "cancelled by ivo: twice"),
        (
            record(TaskStatus.PROCESSING, node="n1", device="cpu", attempt=2, progress=0.5),
            fleet(),
            "runs on n1 (cpu), attempt 2, 50%",
        ),
    ],
)
def test_explain_says_in_one_line_why_a_task_waits_or_what_became_of_it(asked, picture, answer):
    assert explain(asked, picture) == answer

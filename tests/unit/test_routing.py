"""Routing is a pure function: what goes where, and why nothing fits."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lcq.config import BudgetConfig
from lcq.costs import CostBook, CostKey, Curve, device_class
from lcq.errors import NodeNotFound, UnknownModel, UnknownQueue
from lcq.models import (
    DEFAULT_QUEUES,
    Device,
    DeviceKind,
    DeviceReading,
    Ease,
    ErrorClass,
    Failure,
    ModelOffer,
    NodeCapability,
    NodeRecord,
    NodeStatus,
    Task,
    TaskRecord,
    TaskStatus,
    TaskType,
)
from lcq.routing import EaseStep, Fleet, earlier_route, foresee, next_ease, requirements, route, route_again
from lcq.spend import Overflow, Spend
from lcq.why import why_of

CPU = Device(id="cpu", kind=DeviceKind.CPU, cores=8, memory_mib=16000, slots=4)
LAPTOP = Device(id="cpu", kind=DeviceKind.CPU, cores=2, memory_mib=8000, slots=1)


def gpu(vram_mib: int) -> Device:
    return Device(id=f"GPU-{vram_mib}", kind=DeviceKind.GPU, vram_mib=vram_mib, slots=1)


def node(name: str, *devices: Device, models: str = "cv2-telea", status: NodeStatus = NodeStatus.ONLINE) -> NodeRecord:
    kinds = tuple({device.kind for device in devices})
    capability = NodeCapability(devices=devices, models=dict.fromkeys(models.split(), ModelOffer(kinds=kinds)))
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


def test_what_nobody_has_measured_is_foreseen_as_a_guess():
    on_cpu, on_gpu = fleet(node("a", CPU, models="lama")), fleet(node("a", gpu(8000), models="lama"))
    assert [foresee(task("lama"), here).guessed for here in (on_cpu, on_gpu)] == [False, True]
    assert foresee(task("lama", device="cuda"), fleet()).guessed, "nor where nobody is there"
    both = fleet(node("a", CPU, models="lama"), node("b", CPU, models="lama"))
    assert not foresee(task("lama"), both, node="a").guessed
    key = CostKey("lama", "", "", device_class(gpu(8000)))
    learned = replace(on_gpu, costs=CostBook({key: Curve(0.1, 0.1, samples=20)}))
    assert not foresee(task("lama"), learned).guessed


def test_a_device_serves_its_own_class_first_and_then_the_classes_below():
    capability = NodeCapability(devices=(gpu(24000),))
    assert capability.serves(DEFAULT_QUEUES) == {"GPU-24000": ("gpu-high", "gpu-medium", "gpu-low")}


def test_the_device_wish_is_obeyed():
    both = fleet(node("g", gpu(9000), models="lama"), node("c", CPU, models="lama"))
    assert route(task("lama", device="cpu"), both).queue.startswith("cpu")
    assert route(task("lama", device="cuda"), both).queue.startswith("gpu")


def test_a_long_backlog_in_the_least_capable_queue_sends_a_task_to_one_that_finishes_it_sooner():
    small, large = node("s", gpu(2500), models="lama"), node("l", gpu(9000), models="lama")
    large = large.model_copy(update={"serves": {"GPU-9000": ("gpu-high",)}})
    assert route(task("lama"), fleet(small, waiting={"gpu-low": 500})).queue == "gpu-low"
    assert route(task("lama"), fleet(small, large)).queue == "gpu-low"
    assert route(task("lama"), fleet(small, large, waiting={"gpu-low": 500})).queue == "gpu-high"


def test_no_task_goes_to_the_class_of_a_gpu_that_serves_its_own_class_too_only_to_overtake_what_waits_there():
    small, large = node("s", gpu(2500), models="lama"), node("l", gpu(9000), models="lama")
    assert route(task("lama"), fleet(small, large, waiting={"gpu-low": 500})).queue == "gpu-low"
    assert route(task("lama"), fleet(large, waiting={"gpu-low": 500})).queue == "gpu-low"


def test_nodes_that_take_no_work_do_not_count():
    resting = fleet(node("d", CPU, status=NodeStatus.DRAINING), node("o", CPU, status=NodeStatus.OFFLINE))
    chosen = route(task(), resting)
    assert chosen.queue == "cpu-light"
    assert chosen.why == "node d, which has model cv2-telea, is draining (lcq activate d ends that)"


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
            (
                "2 nodes have model mat, the largest GPU has 3000 MiB, it needs 4000 MiB: "
                "GPU-3000 of node b misses 1000 MiB"
            ),
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
    asked = task(model, device=device)
    chosen = route(asked, picture)
    queue = picture.queue(chosen.queue)
    assert queue is not None
    if not chosen.why:
        assert picture.live_slots(chosen.queue, requirements(asked, picture)) > 0
        assert device != "cpu" or queue.kind == DeviceKind.CPU
        assert device != "cuda" or queue.kind == DeviceKind.GPU


# ---------------------------------------------------------------- what offers tell


def offering(name: str, *devices: Device, status: NodeStatus = NodeStatus.ONLINE, readings: dict[str, DeviceReading]
             | None = None, left_out: dict[str, str] | None = None, **offers: ModelOffer) -> NodeRecord:  # fmt: skip
    capability = NodeCapability(
        devices=devices,
        models={model.replace("_", "-"): offer for model, offer in offers.items()},
        left_out=left_out or {},
    )
    return NodeRecord(
        id=name, boot_id="b", status=status, capability=capability, serves=capability.serves(DEFAULT_QUEUES),
        readings=readings or {},
    )  # fmt: skip


GPU_ONLY = ModelOffer(kinds=(DeviceKind.GPU,))
CPU_ONLY = ModelOffer(kinds=(DeviceKind.CPU,))
ANYWHERE = ModelOffer(kinds=(DeviceKind.GPU, DeviceKind.CPU))


def test_what_is_not_known_of_a_model_its_offers_tell_the_most_cautious_of_them():
    one = ModelOffer(kinds=(DeviceKind.GPU,), vram_mib=3500, seconds={DeviceKind.GPU: 2.0})
    other = ModelOffer(kinds=(DeviceKind.CPU, DeviceKind.GPU), vram_mib=5000, seconds={DeviceKind.CPU: 60.0})
    picture = fleet(offering("a", gpu(4000), house=one), offering("b", gpu(9000), CPU, house=other))
    need = requirements(task("house"), picture)
    assert need.kinds == (DeviceKind.GPU, DeviceKind.CPU)
    assert need.vram_mib == 5000
    assert need.seconds == {DeviceKind.GPU: 2.0, DeviceKind.CPU: 60.0}
    chosen = route(task("house"), picture)
    assert (chosen.queue, chosen.seconds, chosen.vram_mib) == ("gpu-high", 2.0, 5000)


def test_what_is_known_of_a_model_by_name_no_offer_changes():
    loud = ModelOffer(kinds=(DeviceKind.GPU,), vram_mib=9000, seconds={DeviceKind.GPU: 99.0})
    need = requirements(task("lama"), fleet(offering("a", gpu(24000), lama=loud)))
    assert (need.vram_mib, need.seconds[DeviceKind.GPU]) == (2000, 0.5)
    assert need.kinds == (DeviceKind.GPU, DeviceKind.CPU)


@pytest.mark.parametrize(
    ("vram_mib", "queue"), [(1, "gpu-low"), (2000, "gpu-low"), (2001, "gpu-medium"), (4001, "gpu-high")]
)
def test_a_gpu_task_goes_to_the_lowest_class_whose_every_gpu_is_large_enough(vram_mib, queue):
    offer = ModelOffer(kinds=(DeviceKind.GPU,), vram_mib=vram_mib)
    assert route(task("house"), fleet(offering("a", gpu(24000), house=offer))).queue == queue


def test_a_model_that_needs_more_than_any_queue_promises_waits_and_says_so():
    offer = ModelOffer(kinds=(DeviceKind.GPU,), vram_mib=12_000)
    chosen = route(task("house"), fleet(offering("a", gpu(24000), house=offer)))
    assert chosen.why == "model house needs 12000 MiB of a GPU, and no queue asks for as much"


def test_of_several_gpus_of_a_node_only_those_large_enough_count():
    offer = ModelOffer(kinds=(DeviceKind.GPU,), vram_mib=5000)
    picture = fleet(offering("a", gpu(4096), gpu(24000), house=offer))
    need = requirements(task("house"), picture)
    assert [picture.live_slots(queue, need) for queue in ("gpu-low", "gpu-medium", "gpu-high")] == [1, 1, 1]
    mat = requirements(task("mat"), fleet(offering("a", gpu(2048), gpu(4096), mat=GPU_ONLY)))
    small = fleet(offering("a", gpu(2048), gpu(4096), mat=GPU_ONLY))
    assert [small.live_slots(queue, mat) for queue in ("gpu-low", "gpu-medium", "gpu-high")] == [1, 1, 0]


def test_a_model_that_is_offered_on_one_kind_of_device_only_is_not_sent_to_the_other():
    both = fleet(offering("a", gpu(9000), CPU, lama=CPU_ONLY))
    assert route(task("lama"), both).queue == "cpu-light"
    chosen = route(task("lama", device="cuda"), both)
    assert chosen.why == "1 node has model lama, but none on its GPU, which gpu-low, gpu-medium, gpu-high needs"


def test_a_device_with_a_fault_takes_no_tasks_and_is_named_where_nothing_else_would():
    away = {"GPU-9000": DeviceReading(fault="it fell off the bus")}
    sick = offering("a", gpu(9000), CPU, lama=ANYWHERE, readings=away)
    assert route(task("lama"), fleet(sick)).queue == "cpu-light"
    assert not fleet(sick).is_served("gpu-low", "lama")
    chosen = route(task("lama", device="gpu"), fleet(sick))
    assert chosen.why == "gpu GPU-9000 of node a takes no work: it fell off the bus"


def test_an_owners_queues_are_obeyed_but_not_beyond_what_the_device_has():
    odd = gpu(6000).model_copy(update={"queues": ("gpu-high",)})
    assert route(task("lama"), fleet(offering("a", odd, lama=GPU_ONLY))).queue == "gpu-high"
    large = ModelOffer(kinds=(DeviceKind.GPU,), vram_mib=7000)
    assert "largest GPU has 6000 MiB, it needs 8000" in route(task("house"), fleet(offering("a", odd, house=large))).why


def test_a_model_that_a_node_has_left_out_says_why():
    picture = fleet(offering("a", CPU, left_out={"lama": "no weights; lcq models pull lama"}))
    assert route(task("lama"), picture).why == "no node has model lama (node a: no weights; lcq models pull lama)"
    pinned = route(task("lama"), picture, node="a")
    assert pinned.why == "node a has no model lama; it has none (node a: no weights; lcq models pull lama)"


# ---------------------------------------------------------------- types of task


def an_upscale(model: str = "lama", **config: str) -> Task:
    return Task(task_type=TaskType.UPSCALE, image_path="a.jpg", config={"model": model, **config})


UPSCALES = ModelOffer(kinds=(DeviceKind.CPU,), task_types=(TaskType.UPSCALE,))
DOES_BOTH = ModelOffer(kinds=(DeviceKind.CPU,), task_types=(TaskType.INPAINT, TaskType.UPSCALE))


@pytest.mark.parametrize(
    ("nodes", "reason"),
    [
        (
            [offering("a", CPU, lama=CPU_ONLY)],
            "no node can upscale with model lama (it can: inpaint); no model of any node can",
        ),
        (
            [offering("a", CPU, lama=CPU_ONLY), offering("b", CPU, esrgan=UPSCALES, swin=DOES_BOTH)],
            "no node can upscale with model lama (it can: inpaint); models that can: esrgan, swin",
        ),
        ([offering("a", CPU, esrgan=UPSCALES)], "no node has model lama"),
        ([offering("a", CPU, lama=UPSCALES, status=NodeStatus.OFFLINE)], "no node is online (1 known: lcq nodes)"),
        ([offering("a", CPU, lama=DOES_BOTH), offering("b", CPU, lama=CPU_ONLY)], ""),
    ],
)
def test_a_task_of_a_type_that_no_node_can_do_waits_and_says_who_could(nodes, reason):
    assert route(an_upscale(), fleet(*nodes)).why == reason


def test_a_node_that_cannot_do_this_type_is_no_place_to_go_and_says_so():
    picture = fleet(offering("a", CPU, lama=CPU_ONLY), offering("b", LAPTOP, lama=DOES_BOTH))
    chosen = route(an_upscale(), picture)
    assert (chosen.queue, chosen.why) == ("cpu-light", "")
    assert picture.live_slots("cpu-light", requirements(an_upscale(), picture)) == LAPTOP.slots
    assert not picture.is_served("cpu-intensive", "lama~upscale")
    why = route(an_upscale(), picture, node="a").why
    assert why == "node a cannot upscale with model lama (it can: inpaint)"


def test_a_task_for_one_node_waits_in_a_queue_whose_devices_there_can_run_it():
    both = offering("a", CPU, gpu(2048), gpu(9000), lama=ANYWHERE, mat=GPU_ONLY)
    assert route(task("lama"), fleet(both), node="a").queue == "gpu-low"
    assert route(task("mat"), fleet(both), node="a").queue == "gpu-medium"
    assert route(task("lama", device="cpu"), fleet(both), node="a").queue == "cpu-light"
    small = route(task("mat"), fleet(offering("a", gpu(2048), mat=GPU_ONLY)), node="a")
    assert (small.queue, small.why) == ("gpu-low", "")  # its chooser is obeyed
    none = route(task("lama", device="cuda"), fleet(offering("a", CPU, lama=ANYWHERE)), node="a")
    assert (none.queue, none.why) == ("gpu-high", "node a has no gpu that runs model lama")


# ---------------------------------------------------------------- the ladder


EASES = (Ease.SMALLER_TILE, Ease.LOWER_PRECISION)
SUPPLE = ModelOffer(kinds=(DeviceKind.GPU, DeviceKind.CPU), eases=EASES)


def out_of_memory(node: str = "a", device: str = "GPU-2500", queue: str = "gpu-low", *eased: Ease, wish: str = "auto",
                  **more: object) -> TaskRecord:  # fmt: skip
    base = {"task": task("lama", device=wish), "queue": queue, "node": node, "device": device, "eased": eased}
    return record(TaskStatus.PROCESSING, **base, **more)


def test_the_ladder_is_climbed_step_by_step_to_its_end():
    picture = fleet(
        offering("a", gpu(2500), lama=SUPPLE), offering("b", gpu(5000), lama=SUPPLE),
        offering("c", gpu(9000), lama=SUPPLE), offering("d", CPU, lama=SUPPLE),
    )  # fmt: skip
    running, taken = out_of_memory(), []
    while (step := next_ease(running, picture)) is not None:
        taken.append((step.ease, step.queue))
        place = {"gpu-medium": ("b", "GPU-5000"), "gpu-high": ("c", "GPU-9000")}.get(step.queue, ("a", "GPU-2500"))
        place = ("d", "cpu") if step.ease is Ease.CPU else place
        running = out_of_memory(*place, step.queue, *running.eased, step.ease)
    assert taken == [
        (Ease.SMALLER_TILE, "gpu-low"),
        (Ease.LOWER_PRECISION, "gpu-low"),
        (Ease.BIGGER_GPU, "gpu-medium"),
        (Ease.BIGGER_GPU, "gpu-high"),
        (Ease.CPU, "cpu-light"),
    ]


def test_a_step_that_the_engine_on_that_node_does_not_know_is_left_out():
    plain = ModelOffer(kinds=(DeviceKind.GPU,), eases=(Ease.LOWER_PRECISION,))
    picture = fleet(offering("a", gpu(2500), lama=plain), offering("b", gpu(2500), lama=SUPPLE))
    assert next_ease(out_of_memory(), picture) == EaseStep(Ease.LOWER_PRECISION, "gpu-low")
    assert next_ease(out_of_memory("gone"), picture) is None


@pytest.mark.parametrize("more", [{"forced": True}, {"pinned_node": "a"}])
def test_a_task_that_an_operator_has_put_somewhere_is_eased_there_and_moved_nowhere(more):
    picture = fleet(offering("a", gpu(2500), lama=SUPPLE), offering("b", gpu(9000), CPU, lama=SUPPLE))
    assert next_ease(out_of_memory(**more), picture) == EaseStep(Ease.SMALLER_TILE, "gpu-low")
    assert next_ease(out_of_memory("a", "GPU-2500", "gpu-low", *EASES, **more), picture) is None


@pytest.mark.parametrize(
    ("others", "step"),
    [
        ([offering("b", gpu(2500), lama=ANYWHERE)], None),
        ([offering("b", gpu(5000), lama=ANYWHERE, status=NodeStatus.DRAINING)], None),
        ([offering("b", gpu(5000), mat=ANYWHERE)], None),
        ([offering("b", gpu(5000), lama=CPU_ONLY)], None),
        ([offering("b", gpu(5000), lama=ANYWHERE, readings={"GPU-5000": DeviceReading(fault="gone")})], None),
        ([offering("b", gpu(5000), lama=ANYWHERE)], EaseStep(Ease.BIGGER_GPU, "gpu-medium")),
        ([offering("b", gpu(9000), lama=ANYWHERE)], EaseStep(Ease.BIGGER_GPU, "gpu-medium")),
        ([offering("b", CPU, lama=ANYWHERE)], EaseStep(Ease.CPU, "cpu-light")),
        ([offering("b", CPU, lama=GPU_ONLY)], None),
    ],
)
def test_bigger_and_slower_devices_are_tried_only_where_they_would_take_it(others, step):
    assert next_ease(out_of_memory(), fleet(offering("a", gpu(2500), lama=ANYWHERE), *others)) == step


def test_a_gpu_that_serves_classes_below_its_own_is_left_for_a_bigger_one_only():
    lone = offering("a", gpu(9000), lama=ANYWHERE)
    running = out_of_memory("a", "GPU-9000")
    assert next_ease(running, fleet(lone, offering("b", gpu(5000), lama=ANYWHERE))) is None
    bigger = fleet(lone, offering("b", gpu(24000), lama=ANYWHERE))
    assert next_ease(running, bigger) == EaseStep(Ease.BIGGER_GPU, "gpu-high", avoid=True)


def test_the_bigger_gpu_may_be_in_the_same_host():
    picture = fleet(offering("a", gpu(2500), gpu(5000), lama=ANYWHERE))
    assert next_ease(out_of_memory(), picture) == EaseStep(Ease.BIGGER_GPU, "gpu-medium")


def test_the_cpu_is_for_tasks_that_leave_the_device_to_us_and_paused_queues_are_no_way_out():
    nodes = (offering("a", gpu(2500), lama=ANYWHERE), offering("b", gpu(9000), CPU, lama=ANYWHERE))
    paused = {"gpu-medium": "by ann", "gpu-high": "by ann"}
    assert next_ease(out_of_memory(), fleet(*nodes, paused=paused)) == EaseStep(Ease.CPU, "cpu-light")
    assert next_ease(out_of_memory(wish="cuda"), fleet(*nodes, paused=paused)) is None
    paused["cpu-light"] = "by ann"
    assert next_ease(out_of_memory(), fleet(*nodes, paused=paused)) == EaseStep(Ease.CPU, "cpu-intensive")


def test_on_the_cpu_there_is_no_way_up():
    picture = fleet(offering("a", CPU, lama=ANYWHERE), offering("b", gpu(9000), lama=ANYWHERE))
    assert next_ease(out_of_memory("a", "cpu", "cpu-light"), picture) is None


def test_a_task_that_is_routed_again_keeps_the_steps_it_has_taken():
    low, high, cpu = (offering(name, one, lama=ANYWHERE) for name, one in
                      (("a", gpu(2500)), ("b", gpu(9000)), ("c", CPU)))  # fmt: skip
    waiting = record(TaskStatus.QUEUED, task=task("lama"), queue="gpu-medium", eased=(Ease.BIGGER_GPU,))
    assert route_again(waiting, fleet(low, high)).queue in ("gpu-medium", "gpu-high")
    assert route_again(waiting, fleet(low)).why
    waiting = record(TaskStatus.QUEUED, task=task("lama"), queue="cpu-light", eased=(Ease.CPU,))
    assert route_again(waiting, fleet(low, cpu)).queue == "cpu-light"
    assert route_again(waiting, fleet(low)).why
    waiting = record(TaskStatus.QUEUED, task=task("lama"), queue="cpu-light")
    assert route_again(waiting, fleet(low)).queue == "gpu-low"


# ---------------------------------------------------------------- waiting for memory


def crowded(free_mib: int | None, *, name: str = "x", **more: object) -> NodeRecord:
    reading = DeviceReading(total_mib=8000, free_mib=free_mib, foreign_mib=4200, **more)
    return offering(name, gpu(8000), mat=GPU_ONLY, readings={"GPU-8000": reading})


WAITS_FOR_MEMORY = (
    "waits for memory: gpu GPU-8000 of node x has 3,100 of 8,000 MiB free (other programs hold 4,200), it needs 4,000"
)
ITS_TURN = "waits for its turn in gpu-medium, as the next one"


@pytest.mark.parametrize(
    ("nodes", "answer"),
    [
        ([crowded(3100)], WAITS_FOR_MEMORY),
        ([crowded(3100), crowded(90, name="y")], WAITS_FOR_MEMORY + "; so with 1 more"),
        ([crowded(3999), crowded(4000, name="y")], ITS_TURN),
        ([crowded(3100), crowded(None, name="y")], ITS_TURN),
        ([crowded(3100, warm=("mat",))], ITS_TURN),
        ([offering("x", gpu(8000), mat=GPU_ONLY)], ITS_TURN),
    ],
)
def test_a_task_that_waits_for_memory_says_where_it_is_and_who_has_it(nodes, answer):
    asked = record(TaskStatus.QUEUED, task=task("mat"), queue="gpu-medium", vram_mib=4000)
    assert why_of(asked, fleet(*nodes)).text == answer


def test_what_the_engine_on_a_node_says_it_needs_goes_before_the_prediction():
    modest = ModelOffer(kinds=(DeviceKind.GPU,), vram_mib=1300)
    readings = {"GPU-2048": DeviceReading(total_mib=2048, free_mib=1200)}
    picture = fleet(offering("x", gpu(2048), lama=modest, readings=readings))
    asked = record(TaskStatus.QUEUED, task=task("lama"), queue="gpu-low", vram_mib=2000)
    told = "waits for memory: gpu GPU-2048 of node x has 1,200 of 2,048 MiB free, it needs 1,300"
    assert why_of(asked, picture).text == told


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
            "waits for its turn in cpu-light, as the next one",
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
    assert why_of(asked, picture).text == answer


# ---------------------------------------------------------------- deadlines

NOW = datetime(2026, 11, 30, 17, tzinfo=UTC)


def overflowing(after_s: float, *, busy_functions: int = 0, now_ms: int = int(NOW.timestamp() * 1000)) -> Fleet:
    """A house with a hundred tasks before the next one, and a function."""
    kind = DeviceKind.SERVERLESS
    burst = Device(id="burst", kind=kind, slots=4, worst_price=0.1)
    offer = ModelOffer(kinds=(kind,), seconds={kind: 1.0})
    capability = NodeCapability(devices=(burst,), models={"cv2-telea": offer})
    far = NodeRecord(
        id="far", boot_id="b", status=NodeStatus.ONLINE, capability=capability, serves={"burst": ("serverless",)}
    )
    crowd = fleet(node("house", LAPTOP), far, waiting={"cpu-light": 100, "serverless": busy_functions})
    return replace(crowd, overflow=Overflow(after_s, Spend(BudgetConfig()), 0.1, now_ms))


def due(seconds: float, privacy: str = "exportable") -> Task:
    return Task.model_validate(task().model_dump() | {"deadline": NOW + timedelta(seconds=seconds), "privacy": privacy})


HOUSE_S = foresee(task(), overflowing(0)).done_s or 0.0


@pytest.mark.parametrize(
    ("share", "after_s", "goes_to"),
    [
        (0.8, 3600, "serverless"),  # the house would miss it, though it would be soon enough for others
        (1.1, 3600, "serverless"),  # nor is it surely in time
        (1.3, 3600, "cpu-light"),
        (1.3, 0, "cpu-light"),  # it is in time: nobody has to be paid, though others would go out
        (-1, 3600, "serverless"),  # it is missed already: as soon as can be
    ],
)
def test_what_is_to_be_done_by_a_deadline_goes_out_where_the_house_would_miss_it(
    share: float, after_s: float, goes_to: str
):
    assert HOUSE_S > 4
    here = overflowing(after_s)
    assert route(due(share * HOUSE_S), here).queue == goes_to
    assert route(due(share * HOUSE_S, privacy="private"), here).queue == "cpu-light"


def test_a_deadline_that_nobody_keeps_is_missed_least_where_it_is_done_first():
    late = due(0.5 * HOUSE_S)
    assert route(late, overflowing(3600, busy_functions=10_000)).queue == "cpu-light"
    assert route(late, overflowing(3600)).queue == "serverless"
    assert route(late, overflowing(3600, now_ms=0)).queue == "cpu-light", "nobody knows what time it is"


def test_what_waits_in_the_house_is_moved_to_where_its_deadline_is_kept_though_little_is_gained():
    def waiting(asked: Task) -> TaskRecord:
        return TaskRecord(
            task=asked,
            status=TaskStatus.QUEUED,
            queue="cpu-light",
            priority=asked.priority,
            submitted_ms=1,
            updated_ms=1,
            revision=1,
            cost_s=0.1,
        )

    crowd = overflowing(0, busy_functions=int(HOUSE_S * 0.9 * 4))
    then_s = foresee(due(1), crowd, queue="serverless").done_s or 0.0
    assert 0.7 * HOUSE_S < then_s < HOUSE_S
    moved = earlier_route(waiting(due((then_s + HOUSE_S) / 2)), crowd)
    assert moved is not None
    assert moved.queue == "serverless"
    assert earlier_route(waiting(due(then_s - 1)), crowd) is None, "it is missed there too"
    plain = Task.model_validate(task().model_dump() | {"privacy": "exportable"})
    assert earlier_route(waiting(plain), crowd) is None


def test_what_a_function_has_failed_comes_home_from_the_queue_of_functions_though_little_is_gained():
    crowd = overflowing(0, busy_functions=int(HOUSE_S * 0.9 * 4))  # whose budget allows more
    asked = Task.model_validate(task().model_dump() | {"privacy": "exportable"})
    waiting = TaskRecord(
        task=asked, status=TaskStatus.QUEUED, queue="serverless", priority=asked.priority, submitted_ms=1,
        updated_ms=1, revision=1, cost_s=0.1,
    )  # fmt: skip
    assert earlier_route(waiting, crowd) is None, "others stay"
    broke = Failure(error_class=ErrorClass.TRANSIENT, code="function_failed", message="it said 500")
    moved = earlier_route(waiting.model_copy(update={"failure": broke}), crowd)
    assert moved is not None
    assert moved.queue == "cpu-light"


def test_what_may_not_leave_the_house_goes_to_no_function_also_where_only_those_have_its_model():
    kind = DeviceKind.SERVERLESS
    far = next(one for one in overflowing(0).nodes if one.id == "far")
    offers = {"brand-new": ModelOffer(kinds=(kind,), seconds={kind: 1.0})}
    capability = far.capability.model_copy(update={"models": offers})
    alone = fleet(far.model_copy(update={"capability": capability}))
    private = task("brand-new")
    assert requirements(private, alone).kinds == ()
    refused = route(private, alone)
    assert refused.queue != "serverless"
    assert refused.why
    assert route(Task.model_validate(private.model_dump() | {"privacy": "exportable"}), alone).queue == "serverless"

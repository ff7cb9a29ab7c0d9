"""The timetable is pure: where a task is predicted to be done first, and what is left for faster devices."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lcq.costs import CostBook, CostKey, Curve, device_class
from lcq.models import (
    DEFAULT_QUEUES,
    Device,
    DeviceKind,
    DeviceReading,
    Ease,
    Lowered,
    ModelOffer,
    NodeCapability,
    NodeRecord,
    NodeStatus,
    QueueConfig,
    Task,
    TaskPriority,
    TaskRecord,
    TaskStatus,
    TaskType,
)
from lcq.placement import FASTER, USERS_TOLD, Backlog
from lcq.routing import Fleet, Route, earlier_route, requirements, route

NORMAL, URGENT, LOW = TaskPriority.NORMAL, TaskPriority.URGENT, TaskPriority.LOW
QUEUE = "gpu-low"
LAMA = (NORMAL, "lama")
TASK = Task(task_type=TaskType.INPAINT, image_path="a.jpg", config={"model": "lama"})


def a_node(name: str, *, vram_mib: int = 2500, slots: int = 1, queues: tuple[str, ...] = (), warm: bool = True,
           status: NodeStatus = NodeStatus.ONLINE) -> NodeRecord:  # fmt: skip
    device = Device(id="g", kind=DeviceKind.GPU, name=name.partition("-")[0], vram_mib=vram_mib, slots=slots)
    capability = NodeCapability(devices=(device,), models={"lama": ModelOffer(kinds=(DeviceKind.GPU,))})
    return NodeRecord(
        id=name, boot_id="b", status=status, capability=capability,
        serves={"g": queues} if queues else capability.serves(DEFAULT_QUEUES),
        readings={"g": DeviceReading(warm=("lama",) if warm else ())},
    )  # fmt: skip


def seconds(load_s: float = 0.0, **of_class: float) -> CostBook:
    """What a task takes on each class of GPU, whatever its size. All of them are a middle one's equals."""
    return CostBook({
        CostKey("lama", "", "", f"gpu {name}"): Curve(one, 0.0, spread=2.0, load_s=load_s, samples=10)
        for name, one in of_class.items()
    })  # fmt: skip


def fleet(*nodes: NodeRecord, costs: CostBook, backlog: dict[str, Backlog] | None = None,
          queues: tuple[QueueConfig, ...] = DEFAULT_QUEUES, **busy: float) -> Fleet:  # fmt: skip
    """``busy``: seconds until the device of that node (with _ for -) is free."""
    free = {(name.replace("_", "-"), "g"): (left,) for name, left in busy.items()}
    return Fleet(queues=queues, nodes=nodes, costs=costs, backlog=backlog or {QUEUE: {}}, busy_s=free)


def finish_s(
    picture: Fleet, queue: str = QUEUE, *, priority: TaskPriority = NORMAL, more_s: float = 0.0, user: str = ""
) -> float:
    need = requirements(TASK, picture)
    told = picture.timetable.finish_s(
        queue,
        "lama",
        lambda: [picture.timetable.stations[node.id, device.id] for node, device in picture.serving(queue, need)],
        priority=priority,
        more_s=more_s,
        user=user,
    )
    assert told is not None
    return told


speeds = st.floats(0.1, 100)
amounts = st.floats(0, 1000)


# ---------------------------------------------------------------- when a task would be done


def test_an_idle_device_begins_at_once():
    assert finish_s(fleet(a_node("a"), costs=seconds(a=3.0))) == 3.0


def test_what_runs_has_to_end_first():
    assert finish_s(fleet(a_node("a"), costs=seconds(a=3.0), a=2.0)) == 5.0


def test_what_waits_is_shared_by_all_slots_at_their_speeds():
    costs = seconds(slow=4.0, fast=1.0)
    typical = costs.typical("lama", DeviceKind.GPU).seconds(1.0)
    one = fleet(a_node("slow"), costs=costs, backlog={QUEUE: {LAMA: 10 * typical}})
    both = fleet(a_node("slow"), a_node("fast"), costs=costs, backlog={QUEUE: {LAMA: 10 * typical}})
    assert finish_s(one) == pytest.approx(10 * 4.0 + 4.0)
    assert finish_s(both) == pytest.approx(10 / (1 / 4 + 1 / 1) + 1.0)


def test_what_waits_in_lower_bands_waits_on():
    picture = fleet(a_node("a"), costs=seconds(a=1.0), backlog={QUEUE: {LAMA: 5.0, (LOW, "lama"): 50.0}})
    assert finish_s(picture, priority=URGENT) == 1.0
    assert finish_s(picture) == 6.0
    assert finish_s(picture, priority=LOW) == 56.0


def test_a_bigger_gpu_helps_the_class_below_once_its_own_is_empty():
    backlog = {QUEUE: {LAMA: 10.0}, "gpu-high": {LAMA: 6.0}}
    big = a_node("big", vram_mib=9000)
    small = fleet(a_node("small"), big, costs=seconds(small=1.0, big=1.0), backlog=backlog)
    assert finish_s(small, "gpu-high") == pytest.approx(6.0 + 1.0)
    assert finish_s(small) == pytest.approx(6.0 + (10 - 6) / 2 + 1.0)


def test_a_device_shares_itself_between_the_users_of_all_its_queues():
    backlog = {QUEUE: {LAMA: 4.0}, "gpu-high": {LAMA: 100.0, (URGENT, "lama"): 10.0}}
    alone = fleet(a_node("big", vram_mib=9000), costs=seconds(big=1.0), backlog=backlog)

    def when(user: str, **users: str) -> float:
        names = {queue.replace("_", "-"): frozenset(one.split()) for queue, one in users.items()}
        return finish_s(replace(alone, users=names), user=user)

    assert when("ann", gpu_low="ann", gpu_high="ann") == pytest.approx(110 + 4 + 1), "her own class goes first"
    assert when("ann", gpu_low="ann", gpu_high="ben") == pytest.approx(10 + 4 * 2 + 1), "every other start is hers"
    assert when("ann", gpu_low="ann", gpu_high="ann ben") == pytest.approx(10 + 4 * 2 + 1)
    assert when("ann", gpu_low="ann cleo", gpu_high="ben") == pytest.approx(10 + 4 * 1.5 + 1)
    assert when("ann", gpu_low="", gpu_high="ben cleo") == pytest.approx(10 + 4 * 3 + 1)
    little = replace(
        alone, users={"gpu-high": frozenset({"ben"})}, backlog={QUEUE: {LAMA: 50.0}, "gpu-high": {LAMA: 6.0}}
    )
    assert finish_s(little, user="ann") == pytest.approx(6 + 50 + 1), (
        "it is all for the lower class once the upper is empty, and that is later for what it gave away"
    )


def drains(backlog: dict[str, Backlog], *nodes: NodeRecord, **users: str) -> tuple[float, float]:
    """When the lower class and the upper one are empty, where every task takes a second."""
    names = {queue.replace("_", "-"): frozenset(one.split()) for queue, one in users.items()}
    costs = seconds(**{node.capability.devices[0].name: 1.0 for node in nodes})
    timetable = replace(fleet(*nodes, costs=costs, backlog=backlog), users=names).timetable
    return timetable.drained_s(QUEUE), timetable.drained_s("gpu-high")


def test_when_a_queue_will_be_empty_follows_the_order_of_claims():
    big, small = a_node("big", vram_mib=9000), a_node("small")
    backlog: dict[str, Backlog] = {QUEUE: {LAMA: 10.0}, "gpu-high": {LAMA: 6.0}}
    assert drains(backlog, big, gpu_low="ann", gpu_high="ann") == pytest.approx((16, 6)), "her own class first"
    assert drains(backlog, big, gpu_low="ann", gpu_high="ben") == pytest.approx((16, 12)), "by turns"
    assert drains(backlog, big, gpu_low="ann cleo", gpu_high="ben") == pytest.approx((15, 16)), "a third is his"
    assert drains(backlog, big, gpu_low="ann ben", gpu_high="ben") == pytest.approx((16, 12)), "his own class first"
    # The small one helps below; of two that are alike the big one is half the lower class's.
    assert drains(backlog, big, small, gpu_low="ann", gpu_high="ben") == pytest.approx(
        (10 / 1.5, 10 / 1.5 + 6 - 5 / 1.5)
    )
    assert drains(backlog, big) == pytest.approx((16, 6)), "an older LCQ tells of no users"
    assert drains(backlog) == (0, 0), "nobody serves them"


def test_what_is_of_a_higher_band_is_done_first_whichever_queue_it_waits_in():
    backlog: dict[str, Backlog] = {QUEUE: {LAMA: 4.0, (LOW, "lama"): 20.0}, "gpu-high": {(LOW, "lama"): 6.0}}
    big = a_node("big", vram_mib=9000)
    assert drains(backlog, big, gpu_low="ann", gpu_high="ann") == pytest.approx((30, 10))
    assert drains(backlog, big, gpu_low="ann", gpu_high="ben") == pytest.approx((30, 4 + 12))


@given(
    waits=st.dictionaries(
        st.tuples(st.sampled_from([QUEUE, "gpu-medium", "gpu-high"]), st.sampled_from([URGENT, NORMAL, LOW])), amounts
    ),
    users=st.dictionaries(st.sampled_from([QUEUE, "gpu-medium", "gpu-high"]), st.frozensets(st.sampled_from("abc"))),
    busy=st.lists(amounts, min_size=1, max_size=4),
)
def test_no_order_of_claims_does_more_than_all_work_and_the_last_queue_is_empty_when_all_is_done(waits, users, busy):
    backlog: dict[str, dict[tuple[TaskPriority, str], float]] = {}
    for (queue, band), one in waits.items():
        backlog.setdefault(queue, {})[band, "lama"] = one
    nodes = [a_node(f"big-{number}", vram_mib=9000) for number in range(len(busy))]
    free = {f"big_{number}": left for number, left in enumerate(busy)}
    picture = replace(fleet(*nodes, costs=seconds(big=1.0), backlog=dict(backlog), **free), users=users)
    work, done, ends = sum(waits.values()), 0.0, 0.0
    free_s = sorted(busy)
    for number, (since, until) in enumerate(zip(free_s, [*free_s[1:], float("inf")], strict=True), start=1):
        if work and done + number * (until - since) >= work:
            ends = since + (work - done) / number
            break
        done += number * (until - since)
    empty = {queue: picture.timetable.drained_s(queue) for queue in backlog}
    assert max(empty.values(), default=0.0) == pytest.approx(ends, rel=1e-6, abs=1e-6)
    for queue, bands in backlog.items():
        assert empty[queue] >= sum(bands.values()) / len(busy) * (1 - 1e-6)


def test_who_has_little_in_a_queue_comes_before_what_others_flood_it_with():
    backlog: dict[str, Backlog] = {QUEUE: {LAMA: 1000.0, (URGENT, "lama"): 3.0}}
    picture = replace(
        fleet(a_node("a"), costs=seconds(a=1.0), backlog=backlog, a=2.0), users={QUEUE: frozenset({"ben"})}
    )
    assert finish_s(picture, user="ben") == pytest.approx(2 + 1003 + 1)
    assert finish_s(picture, user="ann") == pytest.approx(2 + 3 + 1)
    assert finish_s(picture, user="ann", more_s=50.0) == pytest.approx(2 + 3 + 100 + 1), (
        "her job gets every other start"
    )
    small = replace(picture, users={QUEUE: frozenset({"ben", "ann"})}, tasks_of={QUEUE: {"ben": 998, "ann": 2}})
    assert finish_s(small, user="ann") == pytest.approx(2 + 3 + 2 * 2 + 1), "her two, and two of his"
    assert finish_s(small, user="ben") == pytest.approx(2 + 3 + 998 + 2 + 1)
    many = replace(picture, users={QUEUE: frozenset(f"user {n}" for n in range(USERS_TOLD))})
    assert finish_s(many, user="ann") == pytest.approx(2 + 1003 + 1), "she may be one of those who are not told"


def test_one_picture_of_a_small_user_is_not_sent_to_a_slow_device_because_others_flood_the_fast_one():
    slow = a_cpu_node()
    costs = CostBook({
        **seconds(g=1.0).curves,
        CostKey("lama", "", "", device_class(slow.capability.devices[0])): Curve(40.0, 0.0, samples=10),
    })  # fmt: skip
    flooded = fleet(a_node("g"), slow, costs=costs, backlog={QUEUE: {LAMA: 5000.0}})
    assert route(
        TASK.model_copy(update={"user_id": "ben"}), replace(flooded, users={QUEUE: frozenset({"ben"})})
    ).queue == ("cpu-light")
    assert route(
        TASK.model_copy(update={"user_id": "ann"}), replace(flooded, users={QUEUE: frozenset({"ben"})})
    ).queue == (QUEUE)


def test_a_model_that_is_not_loaded_there_is_loaded_first():
    costs = seconds(load_s=5.0, a=1.0)
    assert finish_s(fleet(a_node("a", warm=False), costs=costs)) == 6.0
    assert finish_s(fleet(a_node("a", warm=True), costs=costs)) == 1.0


def test_what_was_routed_since_the_picture_was_taken_counts_too():
    assert finish_s(fleet(a_node("a"), costs=seconds(a=1.0)), more_s=7.0) == 8.0


stations = st.lists(st.tuples(st.sampled_from("abc"), amounts), min_size=1, max_size=6)


@given(devices=stations, of_class=st.tuples(speeds, speeds, speeds), waits=amounts, more=st.tuples(speeds, amounts))
def test_another_device_never_makes_the_predicted_finish_later(devices, of_class, waits, more):
    costs = seconds(**dict(zip("abc", of_class, strict=True)))
    backlog = {QUEUE: {LAMA: waits}}
    nodes = [a_node(f"{kind}-{number}") for number, (kind, _) in enumerate(devices)]
    busy = {f"{kind}_{number}": left for number, (kind, left) in enumerate(devices)}
    before = fleet(*nodes, costs=costs, backlog=backlog, **busy)
    after = fleet(*nodes, a_node("a-new"), costs=costs, backlog=backlog, **busy, a_new=more[1])
    assert finish_s(after) <= finish_s(before) * (1 + 1e-9) + 1e-9


@given(devices=stations, of_class=st.tuples(speeds, speeds, speeds), waits=amounts, also=amounts)
def test_more_work_that_waits_never_makes_it_earlier(devices, of_class, waits, also):
    costs = seconds(**dict(zip("abc", of_class, strict=True)))
    nodes = [a_node(f"{kind}-{number}") for number, (kind, _) in enumerate(devices)]
    less = fleet(*nodes, costs=costs, backlog={QUEUE: {LAMA: waits}})
    more = fleet(*nodes, costs=costs, backlog={QUEUE: {LAMA: waits + also}})
    assert finish_s(less) <= finish_s(more) * (1 + 1e-9)


# ---------------------------------------------------------------- which queue


EXPRESS = QueueConfig(name="express", kind=DeviceKind.GPU, min_vram_mib=2000, port_offset=9)


def chosen_finish_s(picture: Fleet) -> float:
    return finish_s(picture, route(TASK, picture).queue)


@given(devices=stations, of_class=st.tuples(speeds, speeds, speeds), waits=amounts, new=amounts, express_s=speeds)
def test_another_live_queue_never_makes_the_predicted_finish_later(devices, of_class, waits, new, express_s):
    costs = seconds(**dict(zip("abc", of_class, strict=True)), express=express_s)
    nodes = [a_node(f"{kind}-{number}") for number, (kind, _) in enumerate(devices)]
    queues = (*DEFAULT_QUEUES, EXPRESS)
    backlog = {QUEUE: {LAMA: waits}, "express": {LAMA: new}}
    before = fleet(*nodes, costs=costs, backlog=backlog, queues=queues)
    after = fleet(*nodes, a_node("express", queues=("express",)), costs=costs, backlog=backlog, queues=queues)
    assert chosen_finish_s(after) <= chosen_finish_s(before) * (1 + 1e-9)


@given(
    vrams=st.lists(st.tuples(st.integers(1000, 40_000), st.sampled_from(list(NodeStatus))), min_size=1, max_size=6),
    waits=st.dictionaries(st.sampled_from([queue.name for queue in DEFAULT_QUEUES]), amounts),
    need_mib=st.sampled_from([1500, 2000, 4000, 8000, 20_000]),
)
def test_a_queue_that_does_not_fit_is_never_chosen_while_one_does(vrams, waits, need_mib):
    offer = ModelOffer(kinds=(DeviceKind.GPU,), vram_mib=need_mib)
    nodes = []
    for number, (vram_mib, status) in enumerate(vrams):
        one = a_node(f"a-{number}", vram_mib=vram_mib, status=status)
        nodes.append(one.model_copy(update={"capability": one.capability.model_copy(update={"models": {"x": offer}})}))
    picture = fleet(*nodes, costs=CostBook(), backlog={queue: {(NORMAL, "x"): one} for queue, one in waits.items()})
    asked = Task(task_type=TaskType.INPAINT, image_path="a.jpg", config={"model": "x"})
    need = requirements(asked, picture)
    chosen = route(asked, picture)
    fitting = [queue for queue in DEFAULT_QUEUES if need.fits(queue) and picture.live_slots(queue.name, need)]
    assert bool(chosen.why) == (not fitting)
    if fitting:
        assert chosen.queue in [queue.name for queue in fitting]


def test_a_large_picture_that_is_shown_whole_goes_where_it_fits_and_else_where_it_can_be_cut_up():
    whole = Task(task_type=TaskType.INPAINT, image_path="a.jpg", config={"model": "lama", "hd_strategy": "original"})
    small, large = a_node("small"), a_node("large", vram_mib=24_000)
    size = (4000, 3000)
    both = fleet(small, large, costs=seconds(small=1.0, large=5.0))
    assert requirements(whole, both, size=size).vram_mib == 2000 + 11 * 950
    assert route(whole, both, size=size).queue == "gpu-high"
    assert route(TASK, both, size=size).queue == QUEUE
    alone = route(whole, fleet(small, costs=seconds(small=1.0)), size=size)
    assert (alone.queue, alone.why, alone.vram_mib) == (QUEUE, "", 2000)


def test_tasks_of_one_submit_are_spread_over_queues_as_their_work_adds_up():
    slow = a_cpu_node()
    cpu = slow.capability.devices[0]
    costs = CostBook({
        **seconds(g=1.0).curves, CostKey("lama", "", "", device_class(cpu)): Curve(4.0, 0.0, samples=10)
    })  # fmt: skip
    placed: dict[str, float] = {}
    picture = replace(fleet(a_node("g"), slow, costs=costs), placed_s=placed)
    for _ in range(50):
        one = route(TASK, picture)
        placed[one.queue] = placed.get(one.queue, 0.0) + one.seconds
    assert placed == {QUEUE: 40.0, "cpu-light": 40.0}


# ---------------------------------------------------------------- moved later


def a_cpu_node(name: str = "c", *, cores: int = 2) -> NodeRecord:
    cpu = Device(id="c", kind=DeviceKind.CPU, cores=cores, memory_mib=16_000)
    capability = NodeCapability(devices=(cpu,), models={"lama": ModelOffer(kinds=(DeviceKind.CPU,))})
    return NodeRecord(
        id=name, boot_id="b", status=NodeStatus.ONLINE, capability=capability,
        serves=capability.serves(DEFAULT_QUEUES), readings={"c": DeviceReading(warm=("lama",))},
    )  # fmt: skip


def waits_in(queue: str, **more: object) -> TaskRecord:
    return TaskRecord(task=TASK, status=TaskStatus.QUEUED, revision=1, queue=queue, priority=NORMAL, cost_s=1.0, **more)  # type: ignore[arg-type]


def test_the_tail_of_a_long_queue_goes_to_devices_that_were_not_there_when_it_was_submitted():
    backlog: dict[str, Backlog] = {"cpu-light": {LAMA: 500.0}}
    picture = fleet(a_cpu_node(), a_node("g"), costs=seconds(g=1.0), backlog=backlog)
    better = earlier_route(waits_in("cpu-light"), picture)
    assert better is not None
    assert better.queue == QUEUE
    for stays in ({"forced": True}, {"pinned_node": "c"}, {"eased": (Ease.CPU,)}):
        assert earlier_route(waits_in("cpu-light", **stays), picture) is None
    picture.note_placed(Route(QUEUE, 400.0))
    assert earlier_route(waits_in("cpu-light"), picture) is None


def test_a_task_is_not_moved_to_a_queue_of_the_same_devices_only_to_go_before_others():
    picture = fleet(a_cpu_node(cores=8), costs=CostBook(), backlog={"cpu-light": {LAMA: 500.0}})
    assert route(TASK, picture).queue == "cpu-light"
    assert earlier_route(waits_in("cpu-light"), picture) is None


def test_a_lane_has_as_much_room_as_the_largest_device_that_serves_it():
    small, large = a_node("small"), a_node("large", vram_mib=9000)
    picture = fleet(small, large, costs=CostBook())
    assert picture.room_in(QUEUE, "lama") == 9000
    assert picture.room_in("gpu-high", "lama") == 9000
    assert fleet(small, costs=CostBook()).room_in("gpu-high", "lama") is None
    assert fleet(a_cpu_node(), costs=CostBook()).room_in("cpu-light", "lama") == float("inf")


# ---------------------------------------------------------------- what is left for faster devices


def promise(picture: Fleet, name: str, *, warm: bool = True) -> tuple[float, float, float] | None:
    told = picture.timetable.patience((name, "g"), ["lama"] if warm else [])
    return told.get(QUEUE, {}).get("lama")


def test_a_slow_device_is_told_when_the_fast_ones_will_have_done_all():
    costs = seconds(slow=10.0, fast=1.0)
    typical = costs.typical("lama", DeviceKind.GPU).seconds(1.0)
    picture = fleet(a_node("slow"), a_node("fast"), costs=costs, backlog={QUEUE: {LAMA: 4 * typical}}, fast=0.5)
    assert promise(picture, "slow") == pytest.approx((0.5 + 4.0, 0.5, 0.1))
    assert promise(picture, "fast") is None


def test_a_device_that_has_become_slow_is_predicted_so_with_fewer_slots_and_leaves_to_its_equals():
    costs, backlog = seconds(a=2.0), {QUEUE: {LAMA: 8.0}}
    less = Lowered(times=5.0, behind=4.0, most=1)
    slow = a_node("a-1", slots=2).model_copy(update={"lowered": {"g": less}})
    alone = fleet(slow, costs=costs)
    assert finish_s(alone) == 8.0
    assert alone.timetable.stations["a-1", "g"].free_s == (0.0,)
    both = fleet(slow, a_node("a-2"), costs=costs, backlog=backlog)
    assert promise(both, "a-1") == pytest.approx((8.0, 0.0, 0.25))
    assert promise(both, "a-2") is None


def test_equals_leave_nothing_to_each_other():
    picture = fleet(a_node("a-1"), a_node("a-2"), costs=seconds(a=1.0), backlog={QUEUE: {LAMA: 9.0}})
    assert promise(picture, "a-1") is None
    nearly = fleet(a_node("a"), a_node("b"), costs=seconds(a=1.0, b=FASTER + 0.01), backlog={QUEUE: {LAMA: 9.0}})
    assert promise(nearly, "a") is None


def test_a_device_that_has_to_load_leaves_to_its_equal_what_that_has_loaded():
    picture = fleet(
        a_node("a-1", warm=False), a_node("a-2"), costs=seconds(load_s=20.0, a=1.0), backlog={QUEUE: {LAMA: 3.0}}
    )
    assert promise(picture, "a-1", warm=False) == pytest.approx((3.0, 0.0, 1 / 21), abs=1e-3)
    assert promise(picture, "a-1", warm=True) is None


def test_nothing_is_promised_by_what_is_gone_or_where_nothing_waits():
    backlog: dict[str, Backlog] = {QUEUE: {LAMA: 4.0}}
    costs = seconds(slow=10.0, fast=1.0)
    gone = fleet(a_node("slow"), a_node("fast", status=NodeStatus.OFFLINE), costs=costs, backlog=backlog)
    assert promise(gone, "slow") is None
    assert promise(fleet(a_node("slow"), a_node("fast"), costs=costs), "slow") is None
    assert promise(gone, "unheard-of") is None


def test_a_fast_device_with_more_urgent_work_of_its_own_class_promises_no_more_than_it_can_keep():
    big = a_node("big", vram_mib=9000)
    costs = seconds(small=10.0, big=1.0)
    typical = costs.typical("lama", DeviceKind.GPU).seconds(1.0)
    picture = fleet(
        a_node("small"), big, costs=costs,
        backlog={QUEUE: {LAMA: typical}, "gpu-high": {LAMA: 100 * typical}},
    )  # fmt: skip
    told = promise(picture, "small")
    assert told is not None
    assert told[1] == pytest.approx(100.0)


@given(fast_s=speeds, slow_s=speeds, waits=st.floats(0.1, 1000), busy=amounts, longer=amounts)
def test_the_longer_a_fast_device_is_busy_the_less_it_promises(fast_s, slow_s, waits, busy, longer):
    def told(left: float) -> tuple[float, float, float] | None:
        costs = seconds(slow=slow_s, fast=fast_s)
        picture = fleet(a_node("slow"), a_node("fast"), costs=costs, backlog={QUEUE: {LAMA: waits}}, fast=left)
        return promise(picture, "slow")

    sooner, later = told(busy), told(busy + longer)
    assert (sooner is None) == (later is None) == (fast_s >= FASTER * slow_s)
    if sooner and later:
        assert sooner[0] <= later[0] + 0.001
        assert sooner[1] <= later[1] + 0.001

"""What attempts take is predicted with their grant, kept with their record, and learned by whoever predicts next."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, replace

import redis

from lcq.costs import KEPT, MOST_KEYS, SHIPPED, CostBook, CostKey, Curve
from lcq.memory_costs import ENOUGH
from lcq.models import (
    Attempt,
    Device,
    DeviceKind,
    Ease,
    ErrorClass,
    ModelOffer,
    NodeCapability,
    NodeRecord,
    NodeStatus,
    TaskResult,
)
from lcq.outlook import Outlook
from lcq.routing import EaseStep, requirements
from lcq.state.learned import LearnedCosts
from lcq.state.manager import StateManager
from lcq.state.reader import StateReader
from tests.audit import audit
from tests.nodes import LIGHT, TELEA, a_failure, a_result, a_task

CPU = Device(id="cpu", kind=DeviceKind.CPU, name="Test CPU", slots=2, cores=4)
KEY = CostKey("lama", "", "nets", "cpu Test CPU x2")


@dataclass
class Worker:
    """A node that does what it is given in as long as it is told."""

    state: StateManager
    device: Device = CPU
    id: str = "worker"

    @property
    def capability(self) -> NodeCapability:
        offer = ModelOffer(kinds=(DeviceKind.CPU,), engine="nets")
        return NodeCapability(devices=(self.device,), models={"lama": offer, TELEA: offer})

    async def hello(self) -> None:
        await self.state.register_node(self.id, boot="b", capability=self.capability, serves={"cpu": (LIGHT,)})

    async def claim(self, book: CostBook = SHIPPED, *, warm: tuple[str, ...] = ()) -> str:
        (grant,) = await self.state.claim_tasks(
            node=self.id, boot="b", device="cpu", kind=DeviceKind.CPU, slots=1, queues=(LIGHT,), warm=warm,
            lanes=self.capability.lanes_of(self.device), costs=book.curves_as_json(self.capability, self.device),
        )  # fmt: skip
        return grant.task.id

    async def finish(self, task_id: str, result: TaskResult, *, peak_mib: int = 0, attempt: int = 1) -> Attempt:
        await self.state.finish_task(task_id, attempt=attempt, node=self.id, result=result, peak_mib=peak_mib)
        return (await self.state.reader.attempts(task_id))[attempt - 1]


def took(seconds: float) -> TaskResult:
    return a_result().model_copy(update={"seconds": seconds})


async def submit(state: StateManager, *, size: tuple[int, int] | None = (4000, 3000), **config: object) -> str:
    task = a_task("lama", config={"model": "lama", "hd_strategy": "original", **config})
    return (await state.submit_task(task, queue=LIGHT, size=size)).id


async def worked(worker: Worker, seconds: float, *, book: CostBook = SHIPPED, warm: bool = True) -> Attempt:
    """One task, submitted, claimed and done in so many seconds."""
    await submit(worker.state)
    task_id = await worker.claim(book, warm=("lama",) if warm else ())
    return await worker.finish(task_id, took(seconds), peak_mib=700)


async def a_worker(state: StateManager) -> Worker:
    worker = Worker(state)
    await worker.hello()
    return worker


async def test_an_attempt_keeps_what_was_predicted_for_it_beside_what_it_took(state: StateManager) -> None:
    worker = await a_worker(state)
    task_id = await submit(state)
    assert (await state.reader.task(task_id)).size == (4000, 3000)
    await worker.claim(warm=("lama",))
    told = SHIPPED.predict("lama", CPU, 12.0)
    (running,) = await state.reader.attempts(task_id)
    assert (running.megapixels, running.warm, running.cost) == (12.0, True, str(KEY))
    assert abs(running.predicted_s - told.seconds_p50) < 0.001
    assert abs(running.predicted_p90_s - told.seconds_p90) < 0.001
    assert running.predicted_mib == told.peak_mib
    record = await state.reader.task(task_id)
    assert abs(((record.ends_ms or 0) - (record.started_ms or 0)) / 1000 - told.seconds_p50) < 0.01
    ended = await worker.finish(task_id, took(33.0), peak_mib=4321)
    assert (ended.seconds, ended.peak_mib, ended.predicted_s) == (33.0, 4321, running.predicted_s)
    assert (await state.reader.task(task_id)).ends_ms is None


async def test_a_model_that_has_to_be_loaded_is_predicted_with_its_load(state: StateManager) -> None:
    worker = await a_worker(state)
    cold = await worked(worker, 1.0, warm=False)
    warm = await worked(worker, 1.0)
    assert abs(cold.predicted_s - warm.predicted_s - SHIPPED.curve("lama", CPU).load_s) < 0.001
    assert (cold.warm, warm.warm) == (False, True)


async def test_what_attempts_took_is_what_the_next_are_predicted_to_take(state: StateManager, redis_url: str) -> None:
    worker = await a_worker(state)
    for _ in range(12):
        await worked(worker, 3.0)
    async with StateReader(redis_url) as another:  # a scheduler that was started later learns what the first has seen
        book = await another.learned.book()
        fleet = await another.fleet()
    assert set(book.curves) == {KEY}
    told = book.predict("lama", CPU, 12.0, offer=worker.capability.models["lama"])
    assert (told.samples, told.peak_mib) == (12, 700)
    assert 2.9 < told.seconds_p50 < 3.1
    assert fleet.costs == book
    attempt = await worked(worker, 3.0, book=book)
    assert 2.9 < attempt.predicted_s < 3.1


async def test_who_asks_while_another_reads_hears_what_was_learned_too(state: StateManager, redis_url: str) -> None:
    """Also after a quiet hour, and the first time: else what comes then goes by what was true long ago, or shipped."""
    worker = await a_worker(state)
    await worked(worker, 3.0)
    async with StateReader(redis_url) as another:
        for book in await asyncio.gather(another.learned.book(), another.learned.book()):
            assert set(book.curves) == {KEY}
        await another.recent_fleet(within_s=60.0)
        await state.register_node("new", boot="b", capability=worker.capability, serves={"cpu": (LIGHT,)})
        another._fleet_at -= 3600.0
        for fleet in await asyncio.gather(*(another.recent_fleet(within_s=60.0) for _ in range(3))):
            assert {node.id for node in fleet.nodes} == {"worker", "new"}


async def test_what_a_second_hello_of_the_same_boot_adds_is_predicted_and_learned_from(state: StateManager) -> None:
    """As where a model is pulled: until something else was learned, claims did not hear what it takes there."""
    worker = await a_worker(state)
    outlook, models = Outlook(state.reader), worker.capability.models
    told = []
    for some in ((TELEA,), (TELEA, "lama")):
        capability = worker.capability.model_copy(update={"models": {name: models[name] for name in some}})
        node = NodeRecord(id="worker", boot_id="b", status=NodeStatus.ONLINE, capability=capability, serves={})
        costs, _ = await outlook.of(node, CPU, ())
        told.append(set(json.loads(costs)["lanes"]))
    assert told == [{TELEA}, {TELEA, "lama"}]


async def test_precisions_are_learned_apart(state: StateManager) -> None:
    worker = await a_worker(state)
    for precision in ("bf16", "int3"):
        task_id = await submit(state, precision=precision)
        await worker.claim()
        await worker.finish(task_id, took(1.0))
    seen = await state.reader.learned.observations()
    assert {key.precision for key in seen} == {"bf16", "other"}


async def test_of_an_unknown_size_an_ordinary_picture_is_predicted(state: StateManager) -> None:
    worker = await a_worker(state)
    task_id = await submit(state, size=None)
    await worker.claim()
    assert (await worker.finish(task_id, took(1.0))).megapixels == 1.0


async def test_the_last_attempts_are_kept_and_no_more(state: StateManager, eye: redis.Redis) -> None:
    worker = await a_worker(state)
    for number in range(KEPT + 5):
        eye.zadd("{lcq}:costs", {str(KEY): 1}) if number else None  # nothing was learned of late
        await worked(worker, 1.0 + number)
    ((seen, _),) = (await state.reader.learned.observations()).values()
    assert [one.seconds for one in seen] == [1.0 + number for number in range(5, KEPT + 5)]
    audit(eye)


async def test_where_attempts_end_faster_than_they_say_anything_new_some_are_passed_over(
    state: StateManager, eye: redis.Redis
) -> None:
    worker = await a_worker(state)
    eye.rpush(f"{{lcq}}:cost:{KEY}", *["1 1 0 1 1 2"] * KEPT)
    eye.zadd("{lcq}:costs", {str(KEY): 4e12})  # just now, by a clock that is far ahead
    await worked(worker, 99.0)
    ((seen, _),) = (await state.reader.learned.observations()).values()
    assert {one.seconds for one in seen} == {1.0}


async def test_of_too_many_costs_those_learned_longest_ago_are_forgotten(state: StateManager, eye: redis.Redis) -> None:
    worker = await a_worker(state)
    for number in range(MOST_KEYS):
        eye.zadd("{lcq}:costs", {f"m{number}||nets|cpu x": number + 1})
        eye.rpush(f"{{lcq}}:cost:m{number}||nets|cpu x", "1 1 0 1 1 2")
    await worked(worker, 1.0)
    seen = await state.reader.learned.observations()
    assert len(seen) == MOST_KEYS
    assert KEY in seen
    assert CostKey("m0", "", "nets", "cpu x") not in seen
    audit(eye)


async def test_an_attempt_that_was_made_easier_teaches_nothing_of_others(state: StateManager) -> None:
    worker = await a_worker(state)
    task_id = await submit(state)
    await worker.claim()
    failure = a_failure(ErrorClass.RESOURCE, "out_of_memory")
    step = EaseStep(Ease.SMALLER_TILE, LIGHT)
    await state.fail_task(task_id, attempt=1, node=worker.id, failure=failure, easier=step)
    await worker.claim()
    assert (await worker.finish(task_id, took(1.0), attempt=2)).seconds == 1.0
    assert all(not seen for seen, _ in (await state.reader.learned.observations()).values())


async def test_what_cannot_be_read_of_costs_is_passed_over(state: StateManager, eye: redis.Redis) -> None:
    worker = await a_worker(state)
    await worked(worker, 1.0)
    eye.rpush(f"{{lcq}}:cost:{KEY}", "no numbers", "1 2 3")
    eye.zadd("{lcq}:costs", {"not a key": 1, "a|b|c|warp drive": 2})
    assert [len(seen) for seen, _ in (await state.reader.learned.observations()).values()] == [1]
    learned = LearnedCosts(state.url, state.reader.clients[0], state.reader.keys)
    assert (await learned.book()).curves[KEY].samples == 1


async def test_gpus_do_not_learn_from_what_was_held_of_their_hosts_memory(state: StateManager) -> None:
    gpu = Device(id="cpu", kind=DeviceKind.GPU, name="Test GPU", vram_mib=9000)
    worker = replace(await a_worker(state), device=gpu)
    offer = ModelOffer(kinds=(DeviceKind.GPU,), engine="nets")
    capability = NodeCapability(devices=(gpu,), models={"lama": offer})
    await submit(state)
    (grant,) = await state.claim_tasks(
        node=worker.id, boot="b", device="cpu", kind=DeviceKind.GPU, slots=1, queues=(LIGHT,), lanes=["lama"],
        costs=SHIPPED.curves_as_json(capability, gpu),
    )  # fmt: skip
    await worker.finish(grant.task.id, took(2.0), peak_mib=50_000)
    (curve,) = (await state.reader.learned.book()).curves.values()
    assert curve.predict(1.0).peak_mib == 2000


GPU = Device(id="GPU-0", kind=DeviceKind.GPU, name="Test GPU", vram_mib=4000)


async def run_on_gpu(state: StateManager, *, device_peak_mib: int = 0, fails: bool = False) -> Attempt:
    """One ordinary picture with lama on a GPU of 4000 MiB: what was kept of its attempt."""
    offer = ModelOffer(kinds=(DeviceKind.GPU,), engine="nets")
    capability = NodeCapability(devices=(GPU,), models={"lama": offer})
    await state.register_node("g", boot="b", capability=capability, serves={GPU.id: ("gpu-low",)})
    task = a_task("lama", config={"model": "lama"}, max_retries=0)
    await state.submit_task(task, queue="gpu-low", size=(1000, 1000))
    book = await LearnedCosts(state.url, state.reader.clients[0], state.reader.keys).book()
    (grant,) = await state.claim_tasks(
        node="g", boot="b", device=GPU.id, kind=DeviceKind.GPU, slots=1, queues=("gpu-low",), lanes=["lama"],
        warm=["lama"], costs=book.curves_as_json(capability, GPU),
    )  # fmt: skip
    told = {"attempt": 1, "node": "g", "peak_mib": 999, "device_peak_mib": device_peak_mib}
    if fails:
        await state.fail_task(grant.task.id, failure=a_failure(ErrorClass.RESOURCE, code="out_of_memory"), **told)
    else:
        await state.finish_task(grant.task.id, result=took(1.0), **told)
    return (await state.reader.attempts(grant.task.id))[0]


async def gpu_memory(state: StateManager) -> tuple[float, int, float]:
    """What is predicted for an ordinary picture, by how many attempts; and what routing wants to be free for it."""
    learned = LearnedCosts(state.url, state.reader.clients[0], state.reader.keys)
    book = await learned.book()
    curve = book.curve("lama", GPU, offer=ModelOffer(kinds=(DeviceKind.GPU,), engine="nets"))
    need = requirements(a_task("lama"), replace(await state.reader.fleet(), costs=book))
    return round(curve.memory(1.0)), curve.mib_samples, need.vram_mib


async def test_what_a_gpus_attempts_held_of_its_memory_is_learned_and_decides_where_the_next_fit(
    state: StateManager, eye: redis.Redis
) -> None:
    first = await run_on_gpu(state, device_peak_mib=1100)
    assert (first.device_peak_mib, first.peak_mib) == (1100, 999)
    assert await gpu_memory(state) == (2000, 0, 2000)  # one alone lowers nothing
    for _ in range(ENOUGH - 1):
        await run_on_gpu(state, device_peak_mib=1100)
    assert await gpu_memory(state) == (1100, ENOUGH, 1210)
    last = await run_on_gpu(state, device_peak_mib=1100)
    assert last.predicted_mib == 1100
    assert (first.guessed, last.guessed) == (True, False), "what its class takes was learned meanwhile"
    audit(eye)


async def test_an_attempt_that_ran_out_of_memory_raises_what_is_predicted_at_once(
    state: StateManager, eye: redis.Redis
) -> None:
    await run_on_gpu(state, fails=True)
    assert await gpu_memory(state) == (2500, 1, 2750)
    ((_, held),) = (await state.reader.learned.observations()).values()
    assert [(one.is_short, one.predicted_mib) for one in held] == [(True, 2000)]
    audit(eye)


# ---------------------------------------------------------------- what waits and runs, in seconds


async def test_the_fleet_knows_the_work_that_waits_and_runs_in_seconds(state: StateManager, eye: redis.Redis) -> None:
    worker = await a_worker(state)
    await state.submit_task(a_task("lama"), queue=LIGHT, cost_s=2.5)
    await state.submit_task(a_task(TELEA), queue=LIGHT, cost_s=0.25)
    await state.submit_task(a_task(TELEA), queue=LIGHT, cost_s=0.5, node="elsewhere")
    timetable = (await state.reader.fleet()).timetable
    assert timetable.waiting(LIGHT) == 3.25
    task_id = await worker.claim(CostBook({KEY: Curve(100.0, 0.0)}))
    fleet = await state.reader.fleet()
    assert fleet.timetable.waiting(LIGHT) == 0.75
    ((name, (left_s,)),) = fleet.busy_s.items()
    assert name == (worker.id, "cpu")
    assert 0 < left_s <= 100
    await worker.finish(task_id, took(1.0))
    fleet = await state.reader.fleet()
    assert not fleet.busy_s
    audit(eye)


async def test_a_queue_that_is_empty_has_no_backlog_whatever_was_counted(state: StateManager, eye: redis.Redis) -> None:
    """An older scheduler counts nothing: what it takes out of a queue would be counted there for ever."""
    worker = await a_worker(state)
    await state.submit_task(a_task("lama"), queue=LIGHT, cost_s=2.5)
    eye.hincrby(f"{{lcq}}:backlog:{LIGHT}", "normal/lama", 7000)
    assert (await state.reader.fleet()).timetable.waiting(LIGHT) == 9.5
    await worker.claim()
    assert (await state.reader.fleet()).timetable.waiting(LIGHT) == 0
    audit(eye)

"""What a device may take: what it can do, what fits its memory, and for which of a node's devices a task is."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import pytest
import redis

from lcq.config import DistributedConfig
from lcq.models import (
    Device,
    DeviceKind,
    ErrorClass,
    ModelOffer,
    NodeCapability,
    QueueConfig,
    TaskType,
)
from lcq.state.manager import StateManager
from lcq.wire import Grant
from tests.audit import audit
from tests.nodes import LIGHT, a_failure, a_task

LOW, MEDIUM, HIGH = "gpu-low", "gpu-medium", "gpu-high"
CPU = Device(id="cpu", kind=DeviceKind.CPU, cores=8, memory_mib=16_000, slots=4)
GPU, BOTH = (DeviceKind.GPU,), (DeviceKind.GPU, DeviceKind.CPU)


def gpu(vram_mib: int, **more: object) -> Device:
    return Device.model_validate(
        {"id": f"GPU-{vram_mib}", "kind": DeviceKind.GPU, "vram_mib": vram_mib, "slots": 4} | more
    )


@dataclass
class Host:
    """A node with several devices, as NodeManager speaks for it."""

    state: StateManager
    devices: tuple[Device, ...]
    models: Mapping[str, ModelOffer] = field(default_factory=lambda: {"lama": ModelOffer(kinds=BOTH)})
    id: str = "host"

    @property
    def capability(self) -> NodeCapability:
        return NodeCapability(devices=self.devices, models=dict(self.models))

    @property
    def serves(self) -> dict[str, tuple[str, ...]]:
        return self.capability.serves(self.state.config.queues)

    async def hello(self) -> None:
        await self.state.register_node(self.id, boot="b", capability=self.capability, serves=self.serves)

    async def grants(
        self, device: Device, *, slots: int = 9, fits_mib: int | None = None, warm: Iterable[str] = (),
        needs_mib: Mapping[str, int] | None = None,
    ) -> tuple[Grant, ...]:  # fmt: skip
        return await self.state.claim_tasks(
            node=self.id, boot="b", device=device.id, kind=device.kind, slots=slots,
            lanes=self.capability.lanes_of(device), queues=self.serves[device.id], fits_mib=fits_mib, warm=warm,
            needs_mib=needs_mib,
        )  # fmt: skip

    async def claim(self, device: Device, **more: object) -> list[str]:
        return [grant.task.id for grant in await self.grants(device, **more)]  # type: ignore[arg-type]


async def submitted(
    state: StateManager, queue: str = LOW, *, vram_mib: int = 0, model: str = "lama", node: str = "",
    task_type: TaskType = TaskType.INPAINT,
) -> str:  # fmt: skip
    task = a_task(model, task_type=task_type)
    return (await state.submit_task(task, queue=queue, vram_mib=vram_mib, node=node)).id


# ---------------------------------------------------------------- memory


async def test_grants_fit_together_what_is_free_and_the_rest_keeps_its_place(
    state: StateManager, eye: redis.Redis
) -> None:
    big = gpu(9000)
    host = Host(state, (big,))
    await host.hello()
    ids = [await submitted(state, vram_mib=2000) for _ in range(4)]
    assert await host.claim(big, fits_mib=1999) == []
    assert await host.claim(big, fits_mib=5999) == ids[:2]
    audit(eye)
    assert await host.claim(big, fits_mib=2000) == ids[2:3]
    assert await host.claim(big) == ids[3:], "who does not know its memory knows no limit"


async def test_what_does_not_fit_lets_others_pass_and_is_taken_as_soon_as_it_does(
    state: StateManager, eye: redis.Redis
) -> None:
    big = gpu(9000)
    host = Host(state, (big,))
    await host.hello()
    large = await submitted(state, vram_mib=6000)
    small = [await submitted(state, vram_mib=1000) for _ in range(3)]
    assert await host.claim(big, slots=2, fits_mib=5000) == small[:2]
    assert await host.claim(big, slots=2, fits_mib=7000) == [large, small[2]]
    audit(eye)


async def test_each_queue_is_looked_into_with_what_the_ones_before_have_left(state: StateManager) -> None:
    big = gpu(9000)
    host = Host(state, (big,))
    await host.hello()
    low, high = await submitted(state, LOW, vram_mib=2000), await submitted(state, HIGH, vram_mib=2000)
    assert await host.claim(big, fits_mib=3000) == [high]
    assert await host.claim(big, fits_mib=3000) == [low]


async def test_a_warm_model_needs_half(state: StateManager) -> None:
    big = gpu(9000)
    host = Host(state, (big,))
    await host.hello()
    ids = [await submitted(state, vram_mib=2000) for _ in range(3)]
    assert await host.claim(big, fits_mib=999, warm=["lama"]) == []
    assert await host.claim(big, fits_mib=2000, warm=["lama"]) == ids[:2]
    assert await host.claim(big, fits_mib=1999) == []


async def test_what_the_node_itself_knows_of_a_model_goes_before_the_prediction(state: StateManager) -> None:
    small = gpu(2048)
    host = Host(state, (small,))
    await host.hello()
    task = await submitted(state, vram_mib=2000)
    assert await host.claim(small, fits_mib=1900) == []
    assert await host.claim(small, fits_mib=1900, needs_mib={"lama": 1901}) == []
    assert await host.claim(small, fits_mib=1900, needs_mib={"lama": 1900}) == [task]


async def test_a_need_that_is_not_known_always_fits(state: StateManager) -> None:
    big = gpu(9000)
    host = Host(state, (big,))
    await host.hello()
    ids = [await submitted(state) for _ in range(2)]
    assert await host.claim(big, fits_mib=0) == ids


async def test_the_need_is_kept_in_the_record(state: StateManager) -> None:
    assert (await state.reader.task(await submitted(state, vram_mib=2345))).vram_mib == 2345
    assert (await state.reader.task(await submitted(state))).vram_mib == 0


# ---------------------------------------------------------------- types of task, kinds of device


async def test_a_device_is_given_only_what_its_model_can_do_there(state: StateManager, eye: redis.Redis) -> None:
    types = (TaskType.INPAINT, TaskType.UPSCALE)
    both = Host(state, (CPU,), {"lama": ModelOffer(kinds=BOTH, task_types=types)}, id="both")
    plain = Host(state, (CPU,), id="plain")
    upscaler = Host(state, (CPU,), {"lama": ModelOffer(kinds=BOTH, task_types=types[1:])}, id="upscaler")
    for host in (both, plain, upscaler):
        await host.hello()
    ids = {kind: [await submitted(state, LIGHT, task_type=kind) for _ in range(2)] for kind in types}
    audit(eye)
    assert await plain.claim(CPU) == ids[TaskType.INPAINT]
    assert await upscaler.claim(CPU, slots=1, warm=["lama"]) == ids[TaskType.UPSCALE][:1]
    assert await both.claim(CPU) == ids[TaskType.UPSCALE][1:]
    audit(eye)


async def test_a_lane_of_another_type_is_another_lane_for_who_else_could(state: StateManager, eye: redis.Redis) -> None:
    able = Host(state, (CPU,), {"lama": ModelOffer(kinds=BOTH, task_types=tuple(TaskType))}, id="able")
    plain = Host(state, (CPU,), id="plain")
    await able.hello()
    await plain.hello()
    task = await submitted(state, LIGHT, task_type=TaskType.SEGMENT)
    assert await able.claim(CPU) == [task]
    bad = a_failure(ErrorClass.BAD_OUTPUT, "size")
    await state.fail_task(task, attempt=1, node="able", failure=bad)
    assert await able.claim(CPU) == [task], "nobody else can, though plain has the model"
    audit(eye)


async def test_each_gpu_of_a_host_takes_from_its_own_class_down(state: StateManager) -> None:
    small, big = gpu(2048), gpu(9000)
    host = Host(state, (small, big, CPU))
    await host.hello()
    ids = {queue: await submitted(state, queue) for queue in (LOW, MEDIUM, HIGH, LIGHT)}
    assert await host.claim(small) == [ids[LOW]]
    assert await host.claim(big) == [ids[HIGH], ids[MEDIUM]]
    assert await host.claim(CPU) == [ids[LIGHT]]


async def test_a_model_offered_on_one_kind_of_device_is_claimed_by_no_other(state: StateManager) -> None:
    big = gpu(9000)
    host = Host(state, (big, CPU), {"lama": ModelOffer(kinds=GPU)})
    await host.hello()
    light, low = await submitted(state, LIGHT), await submitted(state, LOW)
    assert await host.claim(CPU) == []
    assert await host.claim(big) == [low]
    assert not (await state.reader.fleet()).is_served(LIGHT, "lama")
    assert (await state.reader.task(light)).status == "queued"


async def test_a_model_that_needs_more_than_a_gpu_has_is_not_claimed_by_it_whatever_its_owner_wishes(
    state: StateManager,
) -> None:
    odd, big = gpu(4000, queues=(HIGH,)), gpu(9000)
    host = Host(state, (odd, big), {"house": ModelOffer(kinds=GPU, vram_mib=7000)})
    await host.hello()
    task = await submitted(state, HIGH, model="house")
    assert await host.claim(odd) == []
    assert await host.claim(big) == [task]


@pytest.mark.parametrize("queue", [LOW, MEDIUM, LIGHT])
async def test_a_task_for_one_node_is_for_those_of_its_devices_that_serve_its_queue(
    state: StateManager, eye: redis.Redis, queue: str
) -> None:
    small, big = gpu(2048), gpu(9000)
    host = Host(state, (small, big, CPU))
    await host.hello()
    served = [device for device in host.devices if queue in host.serves[device.id]]
    for device in host.devices:
        task = await submitted(state, queue, node="host")
        taken = await host.claim(device)
        assert taken == ([task] if device in served else [])
        if not taken:
            await state.cancel_task(task)
    audit(eye)


async def test_a_task_for_one_node_in_a_queue_it_does_not_serve_is_for_its_devices_of_that_kind(
    state: StateManager,
) -> None:
    small = gpu(2048)
    host = Host(state, (small, CPU))
    await host.hello()
    task = await submitted(state, HIGH, node="host")
    assert await host.claim(CPU) == []
    assert await host.claim(small) == [task]


async def test_queues_of_a_configuration_of_ones_own_have_their_kinds(redis_url: str) -> None:
    queues = (
        QueueConfig(name="fast", kind=DeviceKind.GPU),
        QueueConfig(name="slow", kind=DeviceKind.CPU, port_offset=1),
    )
    async with StateManager(DistributedConfig(queues=queues), url=redis_url) as state:
        host = Host(state, (gpu(2048).model_copy(update={"queues": ()}), CPU))
        await host.hello()
        task = await submitted(state, "fast", node="host")
        assert await host.claim(CPU) == []
        assert await host.claim(host.devices[0]) == [task]

"""The slots of a node's devices: what each runner is told, and the environment that binds it to its device."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from lcq.config import DistributedConfig
from lcq.hardware import Detected
from lcq.models import Device, DeviceKind
from worker.devices import SlotPlan, gpu_need_mib, plan_slots

UUID = "GPU-5b1c3f2e-0000-1111-2222-333344445555"


def a_cpu(slots: int = 1, memory_mib: int = 16_000) -> Device:
    return Device(id="cpu", kind=DeviceKind.CPU, slots=slots, cores=8, memory_mib=memory_mib)


def a_gpu(uuid: str = UUID, slots: int = 1) -> Device:
    return Device(id=uuid, kind=DeviceKind.GPU, slots=slots, vram_mib=8000, memory_mib=16_000)


def plans(*devices: Device, cores: int = 8, config: DistributedConfig | None = None) -> tuple[SlotPlan, ...]:
    environments = {
        device.id: {"CUDA_VISIBLE_DEVICES": device.id if device.kind is DeviceKind.GPU else ""} for device in devices
    }
    return plan_slots(Detected(devices, {}, environments), config or DistributedConfig(), cores=cores)


@pytest.mark.parametrize(
    ("cores", "devices", "threads"),
    [
        (8, [a_cpu(4)], [2, 2, 2, 2]),
        (8, [a_cpu(3)], [3, 3, 2]),
        (2, [a_cpu(4)], [1, 1, 1, 1]),
        (8, [a_cpu(3), a_gpu(), a_gpu("GPU-2")], [2, 2, 2, 1, 1]),
        (8, [a_gpu(slots=2)], [4, 4]),
        (1, [a_cpu(1), a_gpu()], [1, 1]),
    ],
)
def test_slots_at_work_use_each_core_once(cores: int, devices: list[Device], threads: list[int]):
    planned = plans(*devices, cores=cores)
    assert [plan.settings.threads for plan in planned] == threads
    assert [plan.environment["OMP_NUM_THREADS"] for plan in planned] == [str(number) for number in threads]


def test_each_slot_has_its_name_and_the_first_of_a_device_tests_it():
    planned = plans(a_cpu(2), a_gpu(slots=2))
    assert [plan.name for plan in planned] == ["cpu/0", "cpu/1", f"{UUID}/0", f"{UUID}/1"]
    assert [plan.is_first for plan in planned] == [True, False, True, False]
    assert [plan.settings.device.id for plan in planned] == ["cpu", "cpu", UUID, UUID]


def test_a_runner_sees_its_own_gpu_by_uuid_and_one_of_the_cpu_sees_none(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2")
    on_cpu, on_gpu = plans(a_cpu(), a_gpu())
    assert on_cpu.environment["CUDA_VISIBLE_DEVICES"] == ""
    assert on_gpu.environment["CUDA_VISIBLE_DEVICES"] == UUID
    assert on_gpu.environment["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID"


def test_loaded_models_may_keep_a_part_of_the_devices_memory_or_what_the_owner_says():
    assert [plan.settings.memory_mib for plan in plans(a_cpu(2), a_gpu(slots=2))] == [2000, 2000, 2000, 2000]
    config = DistributedConfig(agent={"model_memory_mib": 700})  # type: ignore[arg-type]
    assert {plan.settings.memory_mib for plan in plans(a_cpu(2), a_gpu(), config=config)} == {700}


def test_a_runner_is_told_what_it_needs_and_inherits_none_of_our_settings(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("LCQ_REDIS__URL", "redis://secret@host")
    monkeypatch.setenv("LCQ_DRILLS", "1")
    monkeypatch.setenv("HOME", "/home/ann")
    config = DistributedConfig(data_dir=Path("data"), iopaint={"models": ("mat",)})  # type: ignore[arg-type]
    (plan,) = plans(a_cpu(), config=config)
    assert {name for name in plan.environment if name.startswith("LCQ_")} == {"LCQ_DRILLS"}
    assert plan.environment["HOME"] == "/home/ann"
    assert plan.settings.models_path == Path(os.getcwd(), "data", "models")  # noqa: PTH109
    assert "mat" in plan.settings.iopaint.models


def test_a_gpu_is_shared_out_by_the_neediest_model_that_the_host_may_offer(tmp_path: Path) -> None:
    def need(**more: object) -> int:
        return gpu_need_mib(DistributedConfig(data_dir=tmp_path, **more))  # type: ignore[arg-type]

    assert need() == 4000  # nothing is known
    assert need(agent={"models": ["cv2-ns", "lama"]}) == 2000
    (tmp_path / "models" / "lama").mkdir(parents=True)
    assert need() == 2000
    assert need(iopaint={"command": ["iopaint"], "models": ["ldm"]}) == 3000
    (tmp_path / "models" / "my-own").mkdir()
    assert need() == 4000  # one that nobody has heard of

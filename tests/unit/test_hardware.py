"""What a machine has for work, told from file trees such as containers show."""

from __future__ import annotations

import os
import re
import socket
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import psutil
import pytest

from lcq.config import AgentConfig
from lcq.errors import InvalidConfig
from lcq.gpus import Gpu, Gpus
from lcq.hardware import (
    Detected,
    cpu,
    cpu_slots,
    detect_devices,
    disk,
    gpu_slots,
    host_name,
    memory,
    usable_cores,
    usable_memory_mib,
)
from lcq.models import DeviceKind

MIB = 2**20

V2 = "30 23 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw\n"
V1 = (
    "31 23 0:28 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n"
    "35 23 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
)


@pytest.fixture(autouse=True)
def _sixteen_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(16)))


def a_tree(root: Path, *, cgroup: str, mounts: str, files: dict[str, str]) -> Path:
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text(cgroup)
    (root / "proc/self/mountinfo").write_text(mounts)
    for name, content in files.items():
        file = root / "sys/fs/cgroup" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)
    return root


@pytest.mark.parametrize(
    ("quota", "cores"),
    [("max 100000", 16), ("400000 100000", 4), ("250000 100000", 2), ("50000 100000", 1), ("3200000 100000", 16)],
)
def test_the_cores_are_the_affinity_and_no_more_than_the_quota(tmp_path: Path, quota: str, cores: int):
    root = a_tree(tmp_path, cgroup="0::/job\n", mounts=V2, files={"job/cpu.max": quota + "\n"})
    assert usable_cores(root=root) == cores


def test_the_tightest_limit_on_the_way_up_holds(tmp_path: Path):
    files = {"a/cpu.max": "300000 100000", "a/b/cpu.max": "max 100000", "a/memory.max": str(512 * 2**20)}
    root = a_tree(tmp_path, cgroup="0::/a/b\n", mounts=V2, files=files | {"a/b/memory.max": "max"})
    assert usable_cores(root=root) == 3
    assert usable_memory_mib(root=root) == 512


def test_cgroup_v1_limits_are_found_by_controller(tmp_path: Path):
    files = {
        "cpu,cpuacct/job/cpu.cfs_quota_us": "600000\n",
        "cpu,cpuacct/job/cpu.cfs_period_us": "100000\n",
        "memory/job/memory.limit_in_bytes": str(256 * 2**20),
        "memory/memory.limit_in_bytes": "9223372036854771712",
    }
    root = a_tree(tmp_path, cgroup="4:memory:/job\n3:cpu,cpuacct:/job\n", mounts=V1, files=files)
    assert usable_cores(root=root) == 6
    assert usable_memory_mib(root=root) == 256


def test_a_v1_quota_of_minus_one_is_none(tmp_path: Path):
    files = {"cpu,cpuacct/cpu.cfs_quota_us": "-1", "cpu,cpuacct/cpu.cfs_period_us": "100000"}
    root = a_tree(tmp_path, cgroup="3:cpu,cpuacct:/\n", mounts=V1, files=files)
    assert usable_cores(root=root) == 16


def test_in_a_container_that_hides_its_hosts_path_the_limits_at_the_mount_hold(tmp_path: Path):
    root = a_tree(
        tmp_path, cgroup="0::/kubepods/pod1/box\n", mounts=V2, files={"cpu.max": "200000 100000", "memory.max": "max"}
    )
    assert usable_cores(root=root) == 2
    assert usable_memory_mib(root=root) == psutil.virtual_memory().total // 2**20


@pytest.mark.parametrize("content", ["", "nonsense", "1", "-5 100000", "100000 0", "a b"])
def test_a_limit_that_cannot_be_understood_is_no_limit(tmp_path: Path, content: str):
    root = a_tree(tmp_path, cgroup="0::/\n", mounts=V2, files={"cpu.max": content, "memory.max": content})
    assert usable_cores(root=root) == 16


def test_a_system_without_cgroups_has_all_it_has(tmp_path: Path):
    assert usable_cores(root=tmp_path) == 16
    assert usable_memory_mib(root=tmp_path) == psutil.virtual_memory().total // 2**20


@pytest.mark.parametrize(
    ("name", "shown"),
    [("gpu-1.studio.lan", "gpu-1"), ("Bücher box", "B-cher-box"), ("-x", "x"), ("", "node"), ("a" * 80, "a" * 60)],
)
def test_the_hosts_name_is_one_that_a_node_may_have(monkeypatch: pytest.MonkeyPatch, name: str, shown: str):
    monkeypatch.setattr(socket, "gethostname", lambda: name)
    assert host_name() == shown
    assert re.match(r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$", host_name())


# ---------------------------------------------------------------- CPU, memory, disk

XEON = """processor	: 0
model name	: Intel(R) Xeon(R)   Gold 6430
flags		: fpu sse4_2 avx2 avx512f avx512_bf16 amx_bf16 lm

processor	: 1
model name	: another
"""
ARM = "processor	: 0\nFeatures	: fp asimd i8mm svebf16\nHardware	: Neoverse N2\n"


@pytest.mark.parametrize(
    ("cpuinfo", "name", "flags"),
    [
        (XEON, "Intel(R) Xeon(R) Gold 6430", ("sse4_2", "avx2", "avx512f", "avx512_bf16", "amx_bf16")),
        (ARM, "Neoverse N2", ("neon", "bf16", "i8mm")),
    ],
)
def test_a_cpu_tells_its_name_and_the_flags_that_matter(
    tmp_path: Path, cpuinfo: str, name: str, flags: tuple[str, ...]
):
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/cpuinfo").write_text(cpuinfo)
    found = cpu(root=tmp_path)
    assert (found.name, found.flags, found.usable_cores) == (name, flags, 16)


def test_memory_is_what_the_cgroup_still_leaves_and_idle_files_do_not_count(tmp_path: Path):
    files = {
        "job/memory.max": str(1000 * MIB),
        "job/memory.current": str(700 * MIB),
        "job/memory.stat": f"anon {300 * MIB}\ninactive_file {200 * MIB}\n",
    }
    found = memory(root=a_tree(tmp_path, cgroup="0::/job\n", mounts=V2, files=files))
    assert (found.usable_mib, found.available_mib) == (1000, 500)
    assert found.total_mib == psutil.virtual_memory().total // MIB


def test_memory_over_the_cgroups_limit_is_none_not_less(tmp_path: Path):
    files = {"memory/memory.limit_in_bytes": str(10 * MIB), "memory/memory.usage_in_bytes": str(30 * MIB)}
    found = memory(root=a_tree(tmp_path, cgroup="4:memory:/\n", mounts=V1, files=files))
    assert (found.usable_mib, found.available_mib) == (10, 0)


def test_memory_of_a_system_without_cgroups_is_the_machines(tmp_path: Path):
    found = memory(root=tmp_path)
    assert 0 < found.available_mib <= found.usable_mib == found.total_mib


def test_the_disk_of_a_folder_that_is_yet_to_be_made_is_its_parents(tmp_path: Path):
    found = disk(tmp_path / "a/b/c")
    assert found.folder == str(tmp_path / "a/b/c")
    assert 0 < found.free_mib <= found.total_mib == psutil.disk_usage(str(tmp_path)).total // MIB


# ---------------------------------------------------------------- devices


@dataclass
class TheGpus:
    """What ``detect_devices`` asks of ``Gpus``, without asking a driver."""

    gpus: tuple[Gpu, ...] = ()
    problem: str = ""
    is_absent: bool = False
    unreadable: dict[str, str] = field(default_factory=dict)

    def found(self) -> tuple[Gpu, ...]:
        return self.gpus


NONE = TheGpus(problem="no NVIDIA driver", is_absent=True)
BIG = Gpu(uuid="GPU-b1g", name="RTX 4090", number=0, vram_mib=24564, environment={"CUDA_VISIBLE_DEVICES": "GPU-b1g"})
SMALL = Gpu(uuid="GPU-5ma11", name="GTX 1650", number=1, vram_mib=4096)
MIG_1, MIG_2 = (Gpu(uuid=f"MIG-{n}", name="A100 MIG", number=2, vram_mib=4864, parent="GPU-5p1it") for n in (1, 2))


def detect(gpus: TheGpus = NONE, **agent: Any) -> Detected:
    return detect_devices(AgentConfig.model_validate(agent), cast(Gpus, gpus))


def slots_of(detected: Detected) -> dict[str, int]:
    return {device.id: device.slots for device in detected.devices}


def test_without_gpus_the_cpu_is_the_one_device_and_nothing_is_left_out():
    detected = detect()
    (device,) = detected.devices
    assert (device.id, device.kind, device.vram_mib, device.cores) == ("cpu", DeviceKind.CPU, 0, 16)
    assert device.memory_mib > 0
    assert detected.left_out == {}
    assert detected.environments == {"cpu": {"CUDA_VISIBLE_DEVICES": "", "HIP_VISIBLE_DEVICES": "-1"}}


@pytest.mark.parametrize(
    ("cores", "memory_mib", "slots"), [(16, 64_000, 8), (16, 3_900, 3), (2, 64_000, 1), (1, 200, 1)]
)
def test_a_cpu_has_slots_for_half_its_cores_as_far_as_memory_goes(cores: int, memory_mib: int, slots: int):
    assert cpu_slots(cores, memory_mib) == slots


@pytest.mark.parametrize(
    ("vram_mib", "need_mib", "cores", "slots"),
    [(24_564, 4000, 16, 4), (24_564, 9000, 16, 2), (8_192, 4000, 16, 2), (24_564, 4000, 2, 2), (2_000, 4000, 8, 1),
     (80_000, 0, 8, 4), (8_000, 4000, 0, 1)],
)  # fmt: skip
def test_a_gpu_has_slots_for_what_its_memory_and_its_share_of_the_cores_carry(
    vram_mib: int, need_mib: int, cores: int, slots: int
):
    assert gpu_slots(vram_mib, need_mib, cores) == slots


def test_every_gpu_is_a_device_with_its_share_of_the_cores():
    detected = detect(TheGpus((BIG, SMALL)))
    assert [device.id for device in detected.devices] == ["cpu", "GPU-b1g", "GPU-5ma11"]
    assert slots_of(detected) == {"cpu": slots_of(detect())["cpu"], "GPU-b1g": 4, "GPU-5ma11": 1}
    _, big, _ = detected.devices
    assert (big.kind, big.name, big.vram_mib, big.cores) == (DeviceKind.GPU, "RTX 4090", 24564, 8)
    assert detected.environments["GPU-b1g"] == {"CUDA_VISIBLE_DEVICES": "GPU-b1g"}


def test_a_gpu_that_takes_one_program_has_one_slot_whatever_was_wished():
    exclusive = BIG.model_copy(update={"exclusive": True})
    assert slots_of(detect(TheGpus((exclusive,)), devices={"gpu": {"slots": 3}}))["GPU-b1g"] == 1


def test_what_is_not_offered_is_left_out_with_its_reason():
    hidden = SMALL.model_copy(update={"unusable": "hidden by CUDA_VISIBLE_DEVICES=0"})
    gpus = TheGpus((BIG, hidden), unreadable={"gpu2": "it has fallen off the bus"})
    detected = detect(gpus, devices={"cpu": {"enabled": False}})
    assert [device.id for device in detected.devices] == ["GPU-b1g"]
    assert detected.left_out == {
        "cpu": "switched off by agent.devices (enabled: false)",
        "GPU-5ma11": "hidden by CUDA_VISIBLE_DEVICES=0",
        "gpu2": "it has fallen off the bus",
    }
    assert detected.devices[0].cores == 16, "a GPU that is not used has no share"


@pytest.mark.parametrize(
    ("config", "module", "why"),
    [
        ({"exchange": "s3://bucket"}, "s3fs", "exchange s3:// needs s3fs: pip install 'lcq[s3]'"),
        ({"auth": {"oidc": True}}, "google.auth", "auth.oidc needs google-auth: pip install 'lcq[google]'"),
        ({"kind": "lambda", "url": "f"}, "boto3", "kind: lambda needs boto3: pip install 'lcq[lambda]'"),
    ],
)
def test_a_function_that_could_never_be_called_is_left_out(
    monkeypatch: pytest.MonkeyPatch, config: dict[str, Any], module: str, why: str
):
    asked = {"burst": {"url": "https://clean.example", "models": {"lama": 4}} | config}
    assert "burst" in slots_of(detect(functions=asked))
    monkeypatch.setattr("lcq.runner_config._is_installed", lambda name: name != module)
    detected = detect(functions=asked)
    assert (slots_of(detected).keys(), detected.left_out) == ({"cpu"}, {"burst": why})


def test_a_driver_that_does_not_work_is_left_out_and_the_cpu_works():
    detected = detect(TheGpus(problem="driver/library version mismatch"))
    assert [device.id for device in detected.devices] == ["cpu"]
    assert detected.left_out == {"gpu": "driver/library version mismatch"}


@pytest.mark.parametrize(
    ("agent", "slots"),
    [
        ({"slots": 5}, {"cpu": 5, "GPU-b1g": 4, "GPU-5ma11": 1}),
        ({"slots": 5, "devices": {"cpu": {"slots": 6}}}, {"cpu": 6, "GPU-b1g": 4, "GPU-5ma11": 1}),
        ({"slots": 5, "devices": {"gpu": {"slots": 2}}}, {"cpu": 5, "GPU-b1g": 2, "GPU-5ma11": 2}),
        ({"slots": 5, "devices": {"gpu": {"slots": 2}, "gpu1": {"slots": 3}}},
         {"cpu": 5, "GPU-b1g": 2, "GPU-5ma11": 3}),
        ({"slots": 5, "devices": {"gpu1": {"slots": 3}, "GPU-5": {"slots": 7}}},
         {"cpu": 5, "GPU-b1g": 4, "GPU-5ma11": 7}),
        ({"slots": 5, "devices": {"gpu": {"enabled": False}, "gpu0": {"enabled": True}}}, {"cpu": 5, "GPU-b1g": 4}),
        ({"slots": 5, "devices": {"GPU-b1g": {"enabled": False}}}, {"cpu": 5, "GPU-5ma11": 1}),
    ],
)  # fmt: skip
def test_the_most_exact_name_in_the_settings_wins(agent: dict[str, Any], slots: dict[str, int]):
    assert slots_of(detect(TheGpus((BIG, SMALL)), **agent)) == slots


def test_wishes_under_several_names_add_up_key_by_key():
    wishes = {"gpu": {"slots": 2}, "gpu1": {"queues": ["gpu-low"]}}
    _, big, small = detect(TheGpus((BIG, SMALL)), devices=wishes).devices
    assert (big.slots, big.queues) == (2, None)
    assert (small.slots, small.queues) == (2, ("gpu-low",))


def test_a_wish_for_a_gpu_with_mig_is_one_for_its_instances():
    gpus = TheGpus((BIG, MIG_1, MIG_2))
    wishes = {"gpu2": {"slots": 2}, "GPU-5p1it": {"queues": ["gpu-low"]}, "MIG-2": {"enabled": False}}
    detected = detect(gpus, slots=1, devices=wishes)
    assert slots_of(detected) == {"cpu": 1, "GPU-b1g": 4, "MIG-1": 2}
    assert detected.devices[2].queues == ("gpu-low",)


@pytest.mark.parametrize(
    ("gpus", "name", "words"),
    [
        (TheGpus((BIG, SMALL)), "gpu2", "no device 'gpu2' here; there is cpu, gpu0 (GPU-b1g), gpu1 (GPU-5ma11)"),
        (TheGpus((BIG, SMALL)), "GPU-f", "there is no device 'GPU-f' here"),
        (TheGpus((BIG, SMALL)), "cuda:0", "there is no device 'cuda:0' here"),
        (TheGpus((BIG, SMALL)), "GPU-", "'GPU-' fits 2 devices: GPU-5ma11, GPU-b1g"),
        (NONE, "gpu0", "there is no device 'gpu0' here; there is cpu (no NVIDIA driver)"),
        (TheGpus(problem="broken"), "quantum", "there is no device 'quantum' here"),
    ],
)  # fmt: skip
def test_a_name_that_fits_no_device_or_several_is_refused_with_what_there_is(gpus: TheGpus, name: str, words: str):
    with pytest.raises(InvalidConfig, match=re.escape(words)):
        detect(gpus, devices={name: {"slots": 1}})


@pytest.mark.parametrize(
    "gpus", [TheGpus(problem="the driver hangs"), TheGpus((SMALL,), unreadable={"gpu0": "the driver hangs"})]
)
def test_a_named_gpu_that_is_broken_today_does_not_keep_the_rest_from_work(gpus: TheGpus):
    detected = detect(gpus, devices={"GPU-b1g": {"slots": 2}, "gpu": {"slots": 3}})
    assert "cpu" in slots_of(detected)
    assert "agent.devices names it, and it is not found" in detected.left_out["GPU-b1g"]
    assert "the driver hangs" in detected.left_out["GPU-b1g"]

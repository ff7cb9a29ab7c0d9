"""What a machine has for work, told from file trees such as containers show."""

from __future__ import annotations

import os
import re
import socket
from pathlib import Path

import psutil
import pytest

from lcq.hardware import detect_devices, host_name, usable_cores, usable_memory_mib
from lcq.models import DeviceKind

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


def test_the_cpu_is_one_device_with_half_its_cores_as_slots():
    (cpu,) = detect_devices()
    assert (cpu.id, cpu.kind, cpu.vram_mib) == ("cpu", DeviceKind.CPU, 0)
    assert cpu.slots == max(1, cpu.cores // 2)
    assert cpu.memory_mib > 0


def test_the_number_of_slots_can_be_set():
    assert detect_devices(cpu_slots=5)[0].slots == 5

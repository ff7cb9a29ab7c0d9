"""GPUs as NVML shows them: a library of our own under the real nvidia-ml-py, in child processes."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pynvml
import pytest

from lcq.nvml import GpuProcess, foreign_mib
from lcq.torch_gpus import torch_gpus
from lcq.visibility import Seen, hidden
from tests.conftest import wait_until_sync
from tests.fake_gpu import (
    DRIVER_NOT_LOADED,
    GPU_IS_LOST,
    NO_PERMISSION,
    NOT_SUPPORTED,
    VERSION_MISMATCH,
    FakeGpu,
    FakeGpus,
    FakeMig,
    build_library,
)

FAST = FakeGpu("GPU-bbbb1111-0000", name="NVIDIA RTX 4090", total_mib=24564, free_mib=24000, bus="0000:41:00")
SLOW = FakeGpu("GPU-aaaa2222-0000", name="NVIDIA T4", total_mib=15360, free_mib=15000, bus="0000:01:00")
SLICED = FakeGpu(
    "GPU-cccc3333-0000",
    name="NVIDIA A100-SXM4-40GB",
    total_mib=40960,
    free_mib=31000,
    mig=(FakeMig("MIG-11111111-aaaa", free_mib=4000, processes={77: 700}), FakeMig("MIG-22222222-bbbb")),
)

WATCHER = """
import json, os, pathlib, sys, threading
from lcq.gpus import Gpus
gpus = None
for line in sys.stdin:
    word, options = json.loads(line)
    if word == "open":
        if gpus is not None:
            gpus.close()
        if "root" in options:
            options["root"] = pathlib.Path(options["root"])
        gpus = Gpus(**options)
        gpus.open()
        answer = {
            "problem": gpus.problem, "absent": gpus.is_absent, "driver": gpus.driver, "cuda": gpus.cuda,
            "unreadable": dict(gpus.unreadable), "found": [gpu.model_dump(mode="json") for gpu in gpus.found()],
        }
    elif word == "threads":
        answer = threading.active_count()
    else:
        answer = {uuid: now.model_dump(mode="json") for uuid, now in gpus.vitals(options).items()}
    print(json.dumps(answer), flush=True)
if gpus is not None:
    gpus.close()
"""

# Loads what a watcher needs, and becomes one by fork for each that is asked for: a whole process, without its start.
NURSERY = """
import json, os, socket, sys
import lcq.gpus
line = socket.socket(fileno=int(sys.argv[1]))
while True:
    words, pipes, _, _ = socket.recv_fds(line, 2**16, 2)
    if not words:
        sys.exit()
    asked = json.loads(words)
    if "left" in asked:
        line.sendall(b"%d" % os.waitstatus_to_exitcode(os.waitpid(asked["left"], 0)[1]))
        continue
    born = os.fork()
    if not born:
        break
    for pipe in pipes:
        os.close(pipe)
    line.sendall(b"%d" % born)
line.close()
for number, pipe in enumerate(pipes):
    os.dup2(pipe, number)
    os.close(pipe)
os.environ.clear()
os.environ.update(asked["environment"])
"""


class Nursery:
    """Where watchers come from. What the loader reads of ``environment`` holds for all of them."""

    def __init__(self, environment: dict[str, str]) -> None:
        self._line, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-c", NURSERY + WATCHER, str(theirs.fileno())],
                env={"CUDA_DEVICE_ORDER": "", **os.environ} | environment,
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
            )

    def bear(self, environment: dict[str, str], pipes: list[int]) -> int:
        """A new watcher's pid; ``pipes`` are its stdin and stdout."""
        whole = {"CUDA_DEVICE_ORDER": "", **os.environ} | environment
        socket.send_fds(self._line, [json.dumps({"environment": whole}).encode()], pipes)
        return int(self._line.recv(20))

    def left(self, pid: int) -> int:
        """Wait for a watcher's end; its exit code. One that does not end is killed, after a minute."""
        self._line.sendall(json.dumps({"left": pid}).encode())
        if not select.select([self._line], [], [], 60)[0]:
            os.kill(pid, signal.SIGKILL)
        return int(self._line.recv(20))

    def close(self) -> None:
        self._line.close()
        self._process.wait()


class Watcher:
    """A process that looks at the GPUs with ``lcq.gpus``, when told to."""

    def __init__(self, nursery: Nursery, environment: dict[str, str]) -> None:
        (inside, into), (out, outside) = os.pipe(), os.pipe()
        self._nursery = nursery
        self._pid = nursery.bear(environment, [inside, outside])
        os.close(inside)
        os.close(outside)
        self._told = os.fdopen(into, "w", encoding="utf-8")
        self._said = os.fdopen(out, encoding="utf-8")
        self._code: int | None = None

    def open(self, **options: Any) -> dict[str, Any]:
        return self._ask("open", options)

    def vitals(self, own_pids: tuple[int, ...] = ()) -> dict[str, Any]:
        return self._ask("vitals", own_pids)

    def reading(self, uuid: str) -> dict[str, Any]:
        return self.vitals()[uuid]["reading"]

    def threads(self) -> int:
        return self._ask("threads", None)

    def end(self) -> int:
        """Its exit code, once its input has ended."""
        if self._code is None:
            self._told.close()
            self._said.close()
            self._code = self._nursery.left(self._pid)
        return self._code

    def _ask(self, word: str, options: Any) -> Any:
        print(json.dumps([word, options]), file=self._told, flush=True)
        return json.loads(self._said.readline())


@pytest.fixture
def gpus(tmp_path: Path) -> FakeGpus:
    return FakeGpus(tmp_path)


@pytest.fixture(scope="module")
def nurseries() -> Iterator[Callable[[str], Nursery]]:
    """One for each place where the loader is to look for the library."""
    known: dict[str, Nursery] = {}

    def nursery(path: str) -> Nursery:
        if path not in known:
            known[path] = Nursery({"LD_LIBRARY_PATH": path})
        return known[path]

    yield nursery
    for one in known.values():
        one.close()


@pytest.fixture
def start(gpus: FakeGpus, nurseries: Callable[[str], Nursery]) -> Iterator[Callable[..., Watcher]]:
    """Start a watcher: a process of each test's own. One that goes on with other tests' now and then saw no GPU."""
    started: list[Watcher] = []

    def start(**environment: str) -> Watcher:
        whole = gpus.environment | environment
        started.append(Watcher(nurseries(whole["LD_LIBRARY_PATH"]), whole))
        return started[-1]

    yield start
    assert [watcher.end() for watcher in started] == [0] * len(started)


# ---------------------------------------------------------------- what is there, and how it is


def test_gpus_are_known_by_uuid_and_have_nvidia_smis_numbers(gpus: FakeGpus, start: Callable[..., Watcher]):
    gpus.set([FAST, SLOW])
    opened = start().open()
    assert [(gpu["uuid"], gpu["number"], gpu["name"], gpu["vram_mib"]) for gpu in opened["found"]] == [
        (FAST.uuid, 0, "NVIDIA RTX 4090", 24564),
        (SLOW.uuid, 1, "NVIDIA T4", 15360),
    ]
    assert [gpu["environment"] for gpu in opened["found"]] == [
        {"CUDA_VISIBLE_DEVICES": FAST.uuid},
        {"CUDA_VISIBLE_DEVICES": SLOW.uuid},
    ]
    assert (opened["problem"], opened["driver"], opened["cuda"]) == ("", "550.54.14", "12.4")


def test_a_reading_tells_memory_load_heat_power_errors_and_programs(gpus: FakeGpus, start: Callable[..., Watcher]):
    busy = replace(
        FAST, free_mib=20000, busy=37, temperature=71, power_w=301.5, power_limit_w=450, ecc=(1, 2, 30, 4),
        processes={4001: 1500, 4002: 2500}, graphics={4002: 2600, 4003: 100}, slowdown_c=95,
    )  # fmt: skip
    gpus.set([busy])
    watcher = start()
    watcher.open()
    now = watcher.vitals(own_pids=(4001,))[FAST.uuid]
    assert now["reading"] == {
        "total_mib": 24564, "free_mib": 20000, "foreign_mib": 2700, "busy": 0.37, "temperature_c": 71.0,
        "power_w": 301.5, "foreign_busy": None, "slows_down_c": 95, "too_hot": False,
        "warm": [], "fault": "", "rest": "", "alarm": "",
    }  # fmt: skip
    assert now["power_limit_w"] == 450
    assert [now[f"ecc_{kind}"] for kind in ("corrected", "uncorrected", "corrected_ever", "uncorrected_ever")] == [
        1, 2, 30, 4,
    ]  # fmt: skip
    assert now["processes"] == [
        {"pid": 4001, "used_mib": 1500},
        {"pid": 4002, "used_mib": 2600},
        {"pid": 4003, "used_mib": 100},
    ]


def test_memory_that_foreign_programs_take_is_seen_at_the_next_reading(gpus: FakeGpus, start: Callable[..., Watcher]):
    gpus.set([FAST, SLOW])
    watcher = start()
    watcher.open()
    assert watcher.reading(SLOW.uuid)["free_mib"] == 15000
    gpus.set([FAST, replace(SLOW, free_mib=900, processes={1: 14100})])
    reading = watcher.reading(SLOW.uuid)
    assert (reading["free_mib"], reading["foreign_mib"]) == (900, 14100)
    assert watcher.reading(FAST.uuid)["free_mib"] == 24000


def test_new_memory_errors_that_ecc_cannot_correct_are_an_alarm_for_a_while_and_older_ones_are_none(
    gpus: FakeGpus, start: Callable[..., Watcher]
):
    def after(uncorrected: int) -> str:
        gpus.set([replace(FAST, ecc=(7, uncorrected, 30, 40))])
        return str(watcher.reading(FAST.uuid)["alarm"])

    watcher = start()
    gpus.set([replace(FAST, ecc=(7, 3, 30, 40))])
    watcher.open(alarm_s=1000.0)
    assert after(3) == "", "they were there before"
    assert "had 2 memory errors that ECC could not correct (5 since its driver was loaded)" in after(5)
    assert "had 2 memory errors" in after(5), "it stays for some beats"
    assert "had 1 memory error that" in after(6)
    assert after(0) == "", "the driver was loaded anew"
    assert "had 1 memory error that" in after(1)
    watcher = start()
    watcher.open(alarm_s=0.0)
    assert after(1) == after(9) == "", "its time is over"


def test_what_programs_that_are_not_ours_use_is_told_where_it_can_be_told_for_sure(
    gpus: FakeGpus, start: Callable[..., Watcher]
):
    def foreign(own: tuple[int, ...] = (), **fields: object) -> float | None:
        gpus.set([replace(FAST, **fields)])
        told: float | None = watcher.vitals(own)[FAST.uuid]["reading"]["foreign_busy"]
        return told

    watcher = start()
    gpus.set([FAST])
    watcher.open()
    us, other, nobody = os.getpid(), os.getppid(), 2**30  # which this host does not know
    assert foreign(uses={us: 30, other: 60}, busy=90) == pytest.approx(0.9)
    assert foreign((us,), uses={us: 30, other: 60}, busy=90) == pytest.approx(0.6)
    assert foreign((us,), uses={us: 30}, busy=30) == 0
    assert foreign(uses={}, busy=0) == 0
    assert foreign(uses={us: 70, other: 80}) == 1, "no more than all"
    assert foreign(uses={}, busy=50) is None, "somebody does, and nobody says who"
    assert foreign(uses={us: 10, nobody: 60}, busy=70) is None, "numbers of another namespace: it may be us"
    assert foreign(uses={us: 10, nobody: 0}, busy=10) == pytest.approx(0.1)
    assert foreign(uses=None, busy=50) is None, "as WDDM and MIG have it"


def test_what_a_runner_starts_in_a_session_of_its_own_is_no_foreign_program(
    gpus: FakeGpus, start: Callable[..., Watcher]
):
    child = subprocess.Popen(["sleep", "60"], start_new_session=True)
    try:
        gpus.set([replace(FAST, uses={child.pid: 80}, busy=80)])
        watcher = start()
        watcher.open()
        assert watcher.vitals((os.getpid(),))[FAST.uuid]["reading"]["foreign_busy"] == 0
        assert watcher.vitals()[FAST.uuid]["reading"]["foreign_busy"] == pytest.approx(0.8)
    finally:
        child.kill()
        child.wait()


def test_a_gpu_is_too_hot_where_its_hardware_slows_it_down_for_that_and_not_for_power_or_by_its_driver(
    gpus: FakeGpus, start: Callable[..., Watcher]
):
    watcher = start()
    gpus.set([FAST])
    watcher.open()
    told = {}
    for reasons in (0, 0x4, 0x8, 0x20, 0x40, 0x48, None):
        gpus.set([replace(FAST, reasons=reasons, slowdown_c=93)])
        told[reasons] = watcher.reading(FAST.uuid)["too_hot"]
    assert {reasons for reasons, hot in told.items() if hot} == {0x40, 0x48}


def test_what_the_hardware_does_not_tell_is_none_and_no_fault(gpus: FakeGpus, start: Callable[..., Watcher]):
    silent = replace(FAST, reserved_mib=None, busy=None, temperature=None, power_w=None, power_limit_w=None, xids=(31,))
    gpus.set([replace(silent, fails={"nvmlDeviceGetComputeRunningProcesses_v3": NO_PERMISSION})])
    watcher = start()
    watcher.open()
    now = watcher.vitals(own_pids=(1,))[FAST.uuid]
    assert now["reading"] == {
        "total_mib": 24564, "free_mib": 24000, "foreign_mib": None, "busy": None, "temperature_c": None,
        "power_w": None, "foreign_busy": None, "slows_down_c": None, "too_hot": False,
        "warm": [], "fault": "", "rest": "", "alarm": "",
    }  # fmt: skip
    assert {now[name] for name in ("power_limit_w", "ecc_corrected", "ecc_uncorrected_ever", "xid", "processes")} == {
        None
    }


def test_a_gpu_without_memory_of_its_own_has_the_machines(gpus: FakeGpus, start: Callable[..., Watcher]):
    none = {"nvmlDeviceGetMemoryInfo": NOT_SUPPORTED, "nvmlDeviceGetMemoryInfo_v2": NOT_SUPPORTED}
    gpus.set([replace(FAST, fails=none)])
    watcher = start()
    (found,) = watcher.open()["found"]
    assert found["shared_memory"]
    assert found["vram_mib"] == watcher.reading(FAST.uuid)["total_mib"] > 0


def test_each_mig_instance_is_a_gpu_by_its_own_uuid_with_its_boards_temperature(
    gpus: FakeGpus, start: Callable[..., Watcher]
):
    gpus.set([FAST, SLICED])
    watcher = start()
    found = watcher.open()["found"]
    assert [(gpu["uuid"], gpu["number"], gpu["parent"], gpu["vram_mib"]) for gpu in found] == [
        (FAST.uuid, 0, "", 24564),
        ("MIG-11111111-aaaa", 1, SLICED.uuid, 4864),
        ("MIG-22222222-bbbb", 1, SLICED.uuid, 4864),
    ]
    now = watcher.vitals()["MIG-11111111-aaaa"]
    assert (now["reading"]["free_mib"], now["reading"]["foreign_mib"]) == (4000, 700)
    assert (now["reading"]["temperature_c"], now["reading"]["power_w"]) == (40, None)


@pytest.mark.parametrize(
    ("gpu", "words"),
    [
        (replace(SLICED, mig=()), "MIG is switched on, with no instance"),
        (replace(SLICED, mig=(FakeMig("MIG-GPU-cccc3333-0000/1/0"),)), "driver 470 or newer"),
        (replace(FAST, compute_mode=2), "nvidia-smi -c DEFAULT"),
        (FAST, ""),
    ],
)
def test_a_gpu_that_no_program_may_use_says_why(
    gpus: FakeGpus, start: Callable[..., Watcher], gpu: FakeGpu, words: str
):
    gpus.set([gpu])
    (found,) = start().open()["found"]
    assert words in found["unusable"]
    assert bool(found["unusable"]) == bool(words)


def test_a_gpu_set_to_one_process_is_told_as_such(gpus: FakeGpus, start: Callable[..., Watcher]):
    gpus.set([replace(FAST, compute_mode=3), SLOW])
    assert [gpu["exclusive"] for gpu in start().open()["found"]] == [True, False]


# ---------------------------------------------------------------- what goes wrong with one GPU


def test_a_gpu_that_falls_off_the_bus_is_told_the_others_go_on_and_after_a_reset_it_is_back(
    gpus: FakeGpus, start: Callable[..., Watcher]
):
    gpus.set([FAST, SLOW])
    watcher = start()
    watcher.open(retry_s=0.05)
    assert watcher.reading(FAST.uuid)["fault"] == ""
    gpus.set([replace(FAST, error=GPU_IS_LOST), SLOW])
    now = watcher.vitals()
    assert "fallen off the bus" in now[FAST.uuid]["reading"]["fault"]
    assert "nvidia-smi --gpu-reset" in now[FAST.uuid]["reading"]["fault"]
    assert now[FAST.uuid]["reading"]["free_mib"] is None
    assert (now[SLOW.uuid]["reading"]["fault"], now[SLOW.uuid]["reading"]["free_mib"]) == ("", 15000)
    gpus.set([FAST, SLOW], generation=1)  # handles of before are good for nothing now
    reading = wait_until_sync(
        lambda: (now := watcher.reading(FAST.uuid))["free_mib"] and now, what="the reset GPU is read again"
    )
    assert reading["fault"] == ""
    assert watcher.reading(SLOW.uuid)["fault"] == ""


def test_what_is_wrong_with_a_lost_gpu_is_still_told_after_its_driver_was_started_anew(
    gpus: FakeGpus, start: Callable[..., Watcher]
):
    gpus.set([FAST, SLOW])
    watcher = start()
    watcher.open(retry_s=0.01)
    gpus.set([replace(FAST, error=GPU_IS_LOST), SLOW], generation=1)  # SLOW too can be read only after a new start
    assert "fallen off the bus" in watcher.reading(SLOW.uuid)["fault"]
    wait_until_sync(lambda: watcher.reading(SLOW.uuid)["fault"] == "", what="the driver's new start")
    assert "fallen off the bus" in watcher.reading(FAST.uuid)["fault"]


def test_a_driver_that_does_not_start_again_is_told_of_each_gpu_until_it_does(
    gpus: FakeGpus, start: Callable[..., Watcher]
):
    gpus.set([FAST])
    watcher = start()
    watcher.open(retry_s=0.01)
    gpus.set([FAST], generation=1, init=VERSION_MISMATCH)
    wait_until_sync(lambda: "driver/library version mismatch" in watcher.reading(FAST.uuid)["fault"])
    gpus.set([FAST], generation=2)
    wait_until_sync(lambda: watcher.reading(FAST.uuid)["fault"] == "")


def test_a_mig_instance_that_was_removed_is_told_as_gone(gpus: FakeGpus, start: Callable[..., Watcher]):
    gpus.set([SLICED])
    watcher = start()
    watcher.open(retry_s=0.01)
    assert SLICED.mig is not None
    gpus.set([replace(SLICED, mig=SLICED.mig[:1])], generation=1)
    wait_until_sync(lambda: "the MIG instance was removed" in watcher.reading("MIG-22222222-bbbb")["fault"])
    assert watcher.reading("MIG-11111111-aaaa")["fault"] == ""


def test_a_gpu_that_hangs_does_not_hold_up_the_others_and_may_come_back(gpus: FakeGpus, start: Callable[..., Watcher]):
    gpus.set([FAST, SLOW])
    watcher = start()
    watcher.open(timeout_s=0.2, silence_s=0.2)
    watcher.vitals()
    gpus.set([replace(FAST, hangs=("nvmlDeviceGetMemoryInfo_v2",)), replace(SLOW, free_mib=123)])
    now = watcher.vitals()
    assert "no answer for" in now[FAST.uuid]["reading"]["fault"]
    assert (now[SLOW.uuid]["reading"]["fault"], now[SLOW.uuid]["reading"]["free_mib"]) == ("", 123)
    watcher.vitals()
    watcher.vitals()
    assert watcher.threads() == 2, "one waits for the dead GPU, however often it is asked for"
    gpus.set([FAST, SLOW])
    wait_until_sync(lambda: watcher.reading(FAST.uuid)["fault"] == "")


@pytest.mark.parametrize("hangs", ["nvmlDeviceGetMemoryInfo_v2", "nvmlShutdown"])
def test_a_process_ends_although_a_thread_of_it_hangs_in_the_driver(
    gpus: FakeGpus, start: Callable[..., Watcher], hangs: str
):
    gpus.set([FAST])
    watcher = start()
    watcher.open(timeout_s=0.1)
    gpus.set([replace(FAST, hangs=(hangs,))], hangs=[hangs])
    watcher.vitals()
    assert watcher.end() == 0


def test_a_gpu_that_is_late_is_told_of_as_it_was_last_known(gpus: FakeGpus, start: Callable[..., Watcher]):
    gpus.set([FAST])
    watcher = start()
    watcher.open(timeout_s=0.05, silence_s=3600)
    wait_until_sync(lambda: watcher.reading(FAST.uuid)["free_mib"] == 24000)
    gpus.set([replace(FAST, free_mib=1, hangs=("nvmlDeviceGetUtilizationRates",))])
    reading = watcher.reading(FAST.uuid)
    assert (reading["fault"], reading["free_mib"]) == ("", 24000)


def test_a_gpu_that_cannot_even_be_named_is_left_out_by_its_number(gpus: FakeGpus, start: Callable[..., Watcher]):
    gpus.set([replace(FAST, error=GPU_IS_LOST), SLOW, replace(FAST, uuid="GPU-x", fails={"nvmlDeviceGetUUID": 999})])
    opened = start().open()
    assert [gpu["uuid"] for gpu in opened["found"]] == [SLOW.uuid]
    assert "fallen off the bus" in opened["unreadable"]["gpu0"]
    assert "Unknown Error (NVML error 999)" in opened["unreadable"]["gpu2"]
    assert opened["problem"] == ""


def test_numbers_name_no_gpu_while_one_that_cannot_be_named_may_count_too(
    gpus: FakeGpus, start: Callable[..., Watcher]
):
    gpus.set([replace(FAST, error=GPU_IS_LOST), SLOW])
    (found,) = start(CUDA_VISIBLE_DEVICES="0").open()["found"]
    assert "which cannot be told here: name the GPUs by UUID" in found["unusable"]


def test_an_xid_after_which_a_gpu_needs_a_reset_is_a_fault_and_a_programs_own_error_is_not(
    gpus: FakeGpus, start: Callable[..., Watcher]
):
    gpus.set([FAST, SLOW])
    watcher = start()
    watcher.open()
    watcher.vitals()
    gpus.set([replace(FAST, xids=(31,)), replace(SLOW, xids=(119, 13))])
    now = watcher.vitals()
    assert (now[FAST.uuid]["xid"], now[FAST.uuid]["reading"]["fault"]) == (31, "")
    assert now[SLOW.uuid]["xid"] == 119
    assert now[SLOW.uuid]["reading"]["fault"].startswith("Xid 119: its system processor does not answer; reset it")
    assert watcher.reading(SLOW.uuid)["fault"], "it stays a fault"


# ---------------------------------------------------------------- what goes wrong with the driver


def test_every_way_in_which_a_driver_does_not_start_is_said_and_none_is_raised(
    gpus: FakeGpus, start: Callable[..., Watcher], tmp_path: Path
):
    (tmp_path / "sys/bus/pci/devices/0000:01:00.0").mkdir(parents=True)
    (tmp_path / "sys/bus/pci/devices/0000:01:00.0/vendor").write_text("0x10de\n")
    (tmp_path / "sys/bus/pci/devices/0000:01:00.0/class").write_text("0x030000\n")
    watcher = start()
    words = {
        VERSION_MISMATCH: "driver/library version mismatch",
        NO_PERMISSION: "/dev/nvidia*",
        DRIVER_NOT_LOADED: "installed but not loaded",
        GPU_IS_LOST: "fallen off the bus",
        17: "(NVML error 17)",
        999: "Unknown Error (NVML error 999)",
    }
    codes = [value for name, value in vars(pynvml).items() if name.startswith("NVML_ERROR_")]
    for code in codes:
        gpus.set([FAST], init=code)
        opened = watcher.open(root=str(tmp_path))
        assert opened["found"] == []
        assert not opened["absent"]
        assert len(opened["problem"]) > 20
        assert words.get(code, "") in opened["problem"]
        assert watcher.vitals() == {}
    gpus.set([FAST])
    assert watcher.open()["problem"] == ""


def test_a_host_whose_driver_is_not_loaded_because_it_has_no_gpu_has_no_problem(
    gpus: FakeGpus, start: Callable[..., Watcher], tmp_path: Path
):
    gpus.set([], init=DRIVER_NOT_LOADED)
    opened = start().open(root=str(tmp_path))
    assert (opened["problem"], opened["absent"]) == ("no NVIDIA driver", True)


def test_a_driver_that_shows_no_gpu_is_a_problem(gpus: FakeGpus, start: Callable[..., Watcher]):
    gpus.set([])
    opened = start().open()
    assert "shows no GPU" in opened["problem"]


def test_a_driver_that_hangs_at_its_start_is_given_up_in_time(gpus: FakeGpus, start: Callable[..., Watcher]):
    gpus.set([FAST], hangs=["nvmlInitWithFlags"])
    watcher = start()
    opened = watcher.open(start_timeout_s=0.1)
    assert "did not answer within 0.1 s" in opened["problem"]
    assert watcher.vitals() == {}


def test_without_a_library_the_host_tells_whether_there_should_be_one(start: Callable[..., Watcher], tmp_path: Path):
    watcher = start(LD_LIBRARY_PATH="")
    bare, in_kernel, on_bus = (tmp_path / name for name in ("bare", "kernel", "bus"))
    (in_kernel / "proc/driver/nvidia").mkdir(parents=True)
    (in_kernel / "proc/driver/nvidia/version").write_text("NVRM version: 550\n")
    (on_bus / "sys/bus/pci/devices/0000:0a:00.0").mkdir(parents=True)
    (on_bus / "sys/bus/pci/devices/0000:0a:00.0/vendor").write_text("0x10de\n")
    (on_bus / "sys/bus/pci/devices/0000:0a:00.0/class").write_text("0x030200\n")
    opened = watcher.open(root=str(bare))
    if "libnvidia-ml" in opened["problem"] or opened["found"]:
        pytest.skip("this host has NVIDIA's library")
    assert (opened["problem"], opened["absent"]) == ("no NVIDIA driver", True)
    assert "--gpus" in watcher.open(root=str(in_kernel))["problem"]
    opened = watcher.open(root=str(on_bus))
    assert "an NVIDIA GPU is there (PCI 0000:0a:00.0) but no NVIDIA driver" in opened["problem"]
    assert not opened["absent"]


def test_a_library_that_is_broken_is_told_from_one_that_is_not_there(start: Callable[..., Watcher], tmp_path: Path):
    empty, foreign = tmp_path / "empty", tmp_path / "foreign"
    empty.mkdir()
    (empty / "libnvidia-ml.so.1").write_bytes(b"")
    foreign.mkdir()
    build_library("int nothing_of_nvidias;", foreign)
    assert "libnvidia-ml.so.1 is there but cannot be loaded" in start(LD_LIBRARY_PATH=str(empty)).open()["problem"]
    assert "libnvidia-ml.so.1 lacks functions" in start(LD_LIBRARY_PATH=str(foreign)).open()["problem"]


# ---------------------------------------------------------------- whose memory it is


@pytest.mark.parametrize(
    ("used", "processes", "own", "foreign"),
    [
        (3000, {10: 1000, 11: 2000}, {10}, 2000),
        (3300, {10: 1000, 11: 2000}, {10}, 2000),  # a little is always the driver's
        (3000, {10: 3000}, {10}, 0),
        (0, {}, {10}, 0),
        (9000, {}, set(), 9000),  # a container shows no processes: nothing of it is ours
        (9000, {}, {10}, None),
        (9000, {10: 1000}, {10}, None),
        (3000, {10: None, 11: 2000}, {10}, None),
        (3000, {10: None}, set(), 3000),
        (3000, None, {10}, None),
        (3000, None, set(), 3000),
    ],
)
def test_memory_is_foreign_if_it_is_not_ours_and_unknown_if_programs_cannot_be_seen(
    used: int, processes: dict[int, int | None] | None, own: set[int], foreign: int | None
):
    listed = None if processes is None else [GpuProcess(pid=pid, used_mib=mib) for pid, mib in processes.items()]
    assert foreign_mib(used, listed, own) == foreign


def test_the_memory_of_a_program_that_a_runner_started_is_not_foreign():
    runner = subprocess.Popen(
        [sys.executable, "-c", "import subprocess; print(subprocess.Popen(['sleep', '60']).pid, flush=True); input()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    assert runner.stdout is not None
    server = int(runner.stdout.readline())
    try:
        assert foreign_mib(500, [GpuProcess(pid=server, used_mib=500)], {runner.pid}) == 0
        assert foreign_mib(500, [GpuProcess(pid=server, used_mib=500)], {2**30}) == 500
    finally:
        os.kill(server, 9)
        runner.communicate(b"\n")


# ---------------------------------------------------------------- which of them are ours to use

A, B = Seen("GPU-aaaa-1", "T4", 0, "00000000:41:00.0"), Seen("GPU-abbb-2", "T4", 1, "00000000:01:00.0")
OTHER = Seen("GPU-cccc-3", "RTX 4090", 2, "00000000:81:00.0")
M1, M2 = (Seen(f"MIG-{n}{n}", "A100 MIG 1g.5gb", 3, "00000000:c1:00.0", "GPU-dddd-4") for n in (1, 2))


@pytest.mark.parametrize(
    ("value", "gpus", "visible"),
    [
        (None, (A, B), (A, B)),
        ("", (A, B), ()),
        ("-1", (A, B), ()),
        ("none", (A, B), ()),
        ("GPU-aaaa-1", (A, B), (A,)),
        ("GPU-ab", (A, B), (B,)),
        ("GPU-a", (A, B), ()),  # fits both
        ("GPU-aaaa-1,GPU-gone,GPU-abbb-2", (A, B), (A,)),  # CUDA reads no further than what it does not know
        ("0", (A,), (A,)),
        ("0", (A, B), (B,)),  # equal ones are counted as they sit on the bus
        ("1", (A, B), (A,)),
        (" 1 , 0 ", (A, B), (A, B)),
        ("7", (A, B), ()),
        ("0,7,1", (A, B), (B,)),
        ("1,0,2", (A, B, OTHER), (A, B, OTHER)),  # all of them, in whatever order
        ("0", (A, OTHER), ()),  # the fastest is first, and who knows which that is
        ("MIG-22", (A, M1, M2), (M2,)),
        ("GPU-dddd-4", (A, M1, M2), (M1, M2)),
        ("GPU-aaaa-1", (A, M1, M2), (A,)),
        ("0", (M1, M2), ()),
    ],
)
def test_the_gpus_that_cuda_visible_devices_hides_are_hidden(
    value: str | None, gpus: tuple[Seen, ...], visible: tuple[Seen, ...]
):
    reasons = hidden(gpus, {} if value is None else {"CUDA_VISIBLE_DEVICES": value})
    assert [gpu for gpu in gpus if gpu.uuid not in reasons] == list(visible)
    assert all(f"CUDA_VISIBLE_DEVICES={value}" in why for why in reasons.values())


def test_numbers_that_cannot_be_mapped_with_certainty_say_what_would_make_them_certain():
    asked = {"CUDA_VISIBLE_DEVICES": "0"}
    assert "set CUDA_DEVICE_ORDER=PCI_BUS_ID, or name the GPUs by UUID" in hidden((A, OTHER), asked)[A.uuid]
    assert set(hidden((A, OTHER), asked | {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"})) == {OTHER.uuid}
    assert "name the MIG instances by UUID" in hidden((M1, M2), asked)[M1.uuid]
    assert "name the GPUs by UUID" in hidden((A, B), asked, all_seen=False)[A.uuid]
    assert "CUDA stops reading at '7'" in hidden((A, B), {"CUDA_VISIBLE_DEVICES": "0,7,1"})[A.uuid]


@pytest.mark.parametrize(
    ("value", "gpus", "visible"),
    [
        ("all", (A, B), (A, B)),
        ("void", (A, B), (A, B)),  # CDI says so, and has chosen otherwise
        ("", (A, B), (A, B)),
        ("none", (A, B), ()),
        ("/var/run/nvidia-container-devices", (A, B), (A, B)),
        ("5", (A,), (A,)),  # the host's number of the only one that the container was given
        ("1", (A, B), (B,)),  # a privileged container sees all of them
        ("GPU-aaaa-1", (A, B, OTHER), (A,)),
        ("GPU-elsewhere", (A, B), (A, B)),
        ("3:0", (A, M1, M2), (M1, M2)),
    ],
)
def test_the_gpus_that_a_containers_runtime_was_told_to_hide_are_hidden(
    value: str, gpus: tuple[Seen, ...], visible: tuple[Seen, ...]
):
    reasons = hidden(gpus, {"NVIDIA_VISIBLE_DEVICES": value})
    assert [gpu for gpu in gpus if gpu.uuid not in reasons] == list(visible)


def test_both_variables_hold():
    environment = {"NVIDIA_VISIBLE_DEVICES": "0", "CUDA_VISIBLE_DEVICES": "GPU-abbb-2"}
    assert set(hidden((A, B), environment)) == {A.uuid, B.uuid}


def test_a_hidden_gpu_is_not_offered_and_says_by_what(gpus: FakeGpus, start: Callable[..., Watcher]):
    gpus.set([FAST, SLOW])
    found = start(CUDA_VISIBLE_DEVICES="0", CUDA_DEVICE_ORDER="PCI_BUS_ID").open()["found"]
    assert {gpu["uuid"]: gpu["unusable"] for gpu in found} == {
        FAST.uuid: "hidden by CUDA_VISIBLE_DEVICES=0",
        SLOW.uuid: "",  # NVML's second is the first on the bus
    }


# ---------------------------------------------------------------- AMD and Apple, through torch


with_torch = pytest.mark.skipif(find_spec("torch") is None, reason="torch is not installed: lcq[torch]")


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def test_torch_is_not_asked_where_no_amd_or_apple_gpu_can_be(tmp_path: Path):
    assert torch_gpus(root=tmp_path, platform="linux", command=["/no/such/program"]) == ((), "")


@with_torch
def test_apples_and_amds_gpus_are_found_through_torch(tmp_path: Path):
    told = [
        {"backend": "mps", "index": 0, "uuid": "", "name": "Apple GPU", "total_mib": 12000},
        {"backend": "hip", "index": 1, "uuid": "GPU-5af", "name": "AMD Instinct MI210", "total_mib": 65000},
        {"backend": "cuda", "index": 0, "uuid": "GPU-1", "name": "NVIDIA T4", "total_mib": 15000},
    ]
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev/kfd").touch()
    command = python(f"print('a warning of torch'); print({json.dumps(told)!r})")
    (apple, amd), trouble = torch_gpus(
        root=tmp_path, platform="linux", environment={"HIP_VISIBLE_DEVICES": "2,3"}, command=command
    )
    assert (trouble, apple.uuid, apple.shared_memory, apple.environment) == ("", "mps", True, {})
    assert (amd.uuid, amd.vram_mib, amd.environment) == ("GPU-5af", 65000, {"HIP_VISIBLE_DEVICES": "3"})


@with_torch
@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("import time; time.sleep(600)", "did not say within"),
        ("import os; os.abort()", "exit code -6"),
        ("raise SystemExit('no kernel image')", "exit code 1 no kernel image"),
        ("print('nonsense')", "could not say"),
        ("", "could not say"),
        ("print('[{}]')", "could not say"),
    ],
)
def test_a_torch_that_hangs_crashes_or_babbles_is_a_reason_and_no_more(tmp_path: Path, code: str, words: str):
    timeout_s = 0.3 if "sleep" in code else 60.0
    found, trouble = torch_gpus(root=tmp_path, platform="darwin", command=python(code), timeout_s=timeout_s)
    assert found == ()
    assert words in trouble


@with_torch
def test_torch_on_a_host_without_a_gpu_answers_with_none():
    run = subprocess.run(
        [sys.executable, "-m", "worker.torch_devices"], capture_output=True, text=True, timeout=60, check=True
    )
    found = json.loads(run.stdout)
    if found:
        pytest.skip(f"this host has {found[0]['name']}")
    assert found == []

"""An agent with two GPUs that are not there (tests/fake_gpu.py) and a CPU: real processes, real NVML calls."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from lcq.models import DeviceReading, NodeCapability, Task, TaskType
from lcq.wire import Beat, Hello, HelloAnswer, Message, Request, Step, StepAnswer, Want
from tests.conftest import wait_until
from tests.fake_gpu import GPU_IS_LOST, FakeGpu, FakeGpus
from tests.forked import Program
from tests.integration.test_agent import SchedulerDouble
from worker.health import read_health

A = FakeGpu("GPU-aaaaaaaa-0000-0000-0000-000000000001", total_mib=10_000, free_mib=10_000, reserved_mib=None)
B = FakeGpu("GPU-bbbbbbbb-0000-0000-0000-000000000002", total_mib=10_000, free_mib=10_000, bus="0000:02:00")
_MEMORY_CALLS = ("nvmlDeviceGetMemoryInfo", "nvmlDeviceGetMemoryInfo_v2")


class Fleet(SchedulerDouble):
    """A scheduler that grants each task on the device that it names (``config.on``).

    ``clock_s``: how far the cluster's clock is ahead of this host's.
    """

    clock_s = 0.0

    def _answer(self, request: Request) -> Message:
        match request:
            case Hello():
                answer = super()._answer(request)
                assert isinstance(answer, HelloAnswer)
                devices = request.capability.devices
                serves = {device.id: ("gpu-low" if device.vram_mib else "cpu-light",) for device in devices}
                return answer.model_copy(update={"serves": serves})
            case Beat():
                answer = super()._answer(request)
                return answer.model_copy(update={"now_ms": int((time.time() + self.clock_s) * 1000)})
            case Step():
                verdicts = tuple(self._verdict(outcome) for outcome in request.outcomes)
                wanted = {want.device: want.slots for want in request.want}
                grants = []
                for task in tuple(self.tasks):
                    device = str(task.config["on"])
                    if wanted.get(device, 0):
                        wanted[device] -= 1
                        self.tasks.remove(task)
                        self.tasks.appendleft(task)  # the next one that is granted
                        grants.append(self._grant(device))
                return StepAnswer(verdicts=verdicts, grants=tuple(grants))
        return super()._answer(request)

    @property
    def said(self) -> NodeCapability | None:
        """The capability of the last hello."""
        hellos = self.of(Hello)
        return hellos[-1].capability if hellos else None

    def offered(self) -> set[str]:
        return {device.id for device in self.said.devices} if self.said else set()

    def wants(self, since: int = 0) -> dict[str, Want]:
        """By device, the last wish of the steps after the first ``since`` requests."""
        return {want.device: want for r in self.heard[since:] if isinstance(r, Step) for want in r.want}

    def reading(self, gpu: FakeGpu) -> DeviceReading:
        beats = self.of(Beat)
        return beats[-1].devices[gpu.uuid] if beats else DeviceReading()


def a_drill(on: str, model: str = "drill-noop", **config: object) -> Task:
    return Task(task_type=TaskType.INPAINT, image_path="x.png", config={"model": model, "on": on, **config})


class Host:
    """A host with GPUs, and the agent on it."""

    def __init__(self, folder: Path, scheduler: Fleet) -> None:
        self.folder = folder
        self.scheduler = scheduler
        self.gpus = FakeGpus(folder)
        self.gpus.set([A, B])
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, script: Mapping[str, object] | None = None, **settings: str) -> None:
        """Start the agent: with drills in real runners, or with scripted ones."""
        options = []
        if script is not None:
            self.script(script)
            options = ["--script", str(self.folder / "script.json")]
        command = [sys.executable, "-m", "tests.impatient_agent", f"127.0.0.1:{self.scheduler.port}"]
        environment = os.environ | {"LCQ_DRILLS": "1"} | self.gpus.environment | settings
        with self.log.open("ab") as log:
            self.process = Program(
                [*command, str(self.folder / "data"), *options], env=environment, stdout=log, stderr=log
            )

    def script(self, script: Mapping[str, object]) -> None:
        (self.folder / "script.json").write_text(json.dumps(script))

    @property
    def log(self) -> Path:
        return self.folder / "agent.log"

    def runners(self) -> dict[str, dict[str, str]]:
        """The environments of the runners, by the GPU that each sees."""
        assert self.process is not None
        environments = []
        for child in psutil.Process(self.process.pid).children():
            with contextlib.suppress(psutil.NoSuchProcess):  # it has just ended
                environments.append(child.environ())
        return {found["CUDA_VISIBLE_DEVICES"]: found for found in environments if "CUDA_VISIBLE_DEVICES" in found}

    def runner_pids(self, gpu: FakeGpu) -> list[int]:
        """The processes of the runners that see ``gpu``, wardens among them."""
        assert self.process is not None
        found = []
        for child in psutil.Process(self.process.pid).children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                if child.environ().get("CUDA_VISIBLE_DEVICES") == gpu.uuid:
                    found.append(child.pid)
        return found

    async def until(self, condition: Callable[[], object], what: str = "") -> None:
        """``wait_until``, with the agent's log where it was in vain."""
        try:
            await wait_until(condition, what=what)
        except BaseException:
            print(self.log.read_text()[-4000:])
            raise

    async def until_offered(self, *gpus: FakeGpu) -> None:
        wanted = {"cpu", *(gpu.uuid for gpu in gpus)}
        await self.until(lambda: self.scheduler.offered() == wanted, f"a hello with {wanted}")


@pytest.fixture
async def host(tmp_path: Path) -> AsyncIterator[Host]:
    async with Fleet() as scheduler:
        host = Host(tmp_path, scheduler)
        try:
            yield host
        finally:
            if host.process is not None:
                host.process.terminate()
                await wait_until(lambda: host.process is None or host.process.poll() is not None)


async def test_each_gpu_has_a_runner_of_its_own_pinned_by_uuid_and_work_is_done_on_all(host: Host):
    host.start()
    await host.until_offered(A, B)
    for gpu in (A, B):
        await host.until(lambda gpu=gpu: gpu.uuid in host.runners())
        assert host.runners()[gpu.uuid]["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID"
    assert "" in host.runners(), "the CPU's runner sees no GPU"
    tasks = [a_drill(on) for on in ("cpu", A.uuid, B.uuid)]
    host.scheduler.give(*tasks)
    for task in tasks:
        outcome = await host.scheduler.outcome(task)
        assert outcome.result is not None
        assert outcome.device == task.config["on"]
    models = host.scheduler.said.models if host.scheduler.said else {}
    assert set(models["drill-noop"].kinds) == {"cpu", "gpu"}
    assert models["cv2-ns"].kinds == ("cpu",)


async def test_memory_that_foreign_programs_take_is_in_the_beats_and_out_of_the_wishes(host: Host):
    host.start()
    await host.until_offered(A, B)
    await host.until(lambda: host.scheduler.wants().get(A.uuid), "a wish for the first GPU")
    assert host.scheduler.wants()[A.uuid].fits_mib == 10_000
    assert host.scheduler.wants()["cpu"].fits_mib is None
    host.gpus.set([replace(A, free_mib=4000, busy=90, temperature=71, processes={1: 6000}), B])
    await host.until(lambda: host.scheduler.reading(A).foreign_mib == 6000)
    reading = host.scheduler.reading(A)
    assert (reading.total_mib, reading.free_mib, reading.busy, reading.temperature_c) == (10_000, 4000, 0.9, 71)
    seen = len(host.scheduler.heard)
    await host.until(lambda: A.uuid in host.scheduler.wants(seen))
    assert host.scheduler.wants(seen)[A.uuid].fits_mib == 4000


async def test_what_a_busy_slot_was_granted_is_not_promised_again(host: Host):
    gate = host.folder / "gate"
    host.start({"*": {"vram_mib": 3000, "models": ["lama"]}}, LCQ_AGENT__DEVICES='{"gpu": {"slots": 2}}')
    await host.until_offered(A, B)
    task = a_drill(A.uuid, "lama", do="write", final=str(host.folder / "out.png"), gate=str(gate))
    host.scheduler.give(task)
    await host.until(lambda: host.scheduler.granted)
    seen = len(host.scheduler.heard)
    await host.until(lambda: A.uuid in host.scheduler.wants(seen), "a wish for the second slot")
    assert host.scheduler.wants(seen)[A.uuid].fits_mib == 7000
    gate.touch()
    assert (await host.scheduler.outcome(task)).result is not None


async def test_a_gpu_that_falls_off_the_bus_is_withdrawn_its_work_ends_and_the_other_goes_on(host: Host):
    host.start({})
    await host.until_offered(A, B)
    stuck, other = a_drill(B.uuid, do="progress"), a_drill(A.uuid, do="write", final=str(host.folder / "o.png"))
    other = other.model_copy(update={"config": {**other.config, "gate": str(host.folder / "gate")}})
    host.scheduler.give(stuck, other)
    await host.until(lambda: len(host.scheduler.granted) == 2)
    host.gpus.set([A, replace(B, error=GPU_IS_LOST)])
    await host.until_offered(A)
    assert host.scheduler.said is not None
    assert "fallen off the bus" in host.scheduler.said.left_out[B.uuid]
    assert len({hello.boot_id for hello in host.scheduler.of(Hello)}) == 1
    failure = (await host.scheduler.outcome(stuck)).failure
    assert failure is not None
    assert (failure.error_class, failure.code) == ("crash", "device_failed")
    await host.until(lambda: "fallen off the bus" in host.scheduler.reading(B).fault)
    seen = len(host.scheduler.heard)
    (host.folder / "gate").touch()
    assert (await host.scheduler.outcome(other)).result is not None
    await host.until(lambda: A.uuid in host.scheduler.wants(seen))
    assert B.uuid not in host.scheduler.wants(seen)
    assert B.uuid not in host.runners()

    host.gpus.set([A, B])
    await host.until_offered(A, B)
    again = a_drill(B.uuid)
    host.scheduler.give(again)
    assert (await host.scheduler.outcome(again)).result is not None


async def test_gpus_that_fail_their_self_test_or_start_no_runner_are_left_out_with_the_reason_until_they_do(host: Host):
    black = {"cv2-ns": "cv2-ns came out black", "cv2-telea": "cv2-telea came out black"}
    host.start({A.uuid: {"fails": black}, B.uuid: {"dies": True}})
    await host.until_offered()
    assert host.scheduler.said is not None
    assert host.scheduler.said.left_out == {
        A.uuid: "cv2-ns came out black; cv2-telea came out black",
        B.uuid: "its runner exited with code 5",
    }
    await host.until(lambda: "came out black" in host.scheduler.reading(A).fault)
    assert f"leaving out {A.uuid}: cv2-ns came out black" in host.log.read_text()
    task = a_drill("cpu")
    host.scheduler.give(task)
    assert (await host.scheduler.outcome(task)).result is not None
    host.script({})
    await host.until_offered(A, B)
    assert host.scheduler.said.left_out == {}


async def test_a_driver_that_hangs_holds_up_no_beat_and_work_in_progress_goes_on(host: Host):
    host.start({})
    await host.until_offered(A, B)
    await host.until(lambda: host.scheduler.reading(A).free_mib == 10_000)
    gate = host.folder / "gate"
    host.gpus.set([replace(A, hangs=_MEMORY_CALLS), B])
    beats = len(host.scheduler.of(Beat))
    await host.until(lambda: "no answer" in host.scheduler.reading(A).fault, "the fault in a beat")
    await host.until(lambda: len(host.scheduler.of(Beat)) > beats + 2, "beats while it hangs")
    task = a_drill("cpu", do="write", final=str(host.folder / "out.png"), gate=str(gate))
    gate.touch()
    host.scheduler.give(task)
    assert (await host.scheduler.outcome(task)).result is not None
    seen = len(host.scheduler.heard)
    await host.until(lambda: "cpu" in host.scheduler.wants(seen))
    assert A.uuid not in host.scheduler.wants(seen)
    host.gpus.set([A, B])
    await host.until_offered(A, B)


async def test_a_gpu_that_is_switched_off_or_has_no_engine_is_left_out_and_says_so(host: Host):
    script = {"cpu": {}, "*": {"models": [], "left_out": {"lama": "torch is not installed"}}}
    host.start(script, LCQ_AGENT__DEVICES=json.dumps({A.uuid: {"enabled": False}}))
    await host.until_offered()
    assert host.scheduler.said is not None
    assert "agent.devices" in host.scheduler.said.left_out[A.uuid]
    assert "torch is not installed" in host.scheduler.said.left_out[B.uuid]
    assert A.uuid not in host.runners()


async def test_a_gpu_rests_while_others_use_it_or_it_is_too_hot_its_attempt_goes_on_and_it_works_again(host: Host):
    terms = {"gpu_percent": 40, "after_s": 0.3, "quiet_s": 0.3}
    host.start({}, LCQ_AGENT__BUSY_ELSEWHERE=json.dumps(terms), LCQ_AGENT__DEVICES='{"gpu": {"slots": 2}}')
    quiet = [replace(gpu, uses={}, slowdown_c=93) for gpu in (A, B)]
    host.gpus.set(quiet)
    await host.until_offered(A, B)
    await host.until(lambda: A.uuid in host.runners())
    first = a_drill(A.uuid, "cv2-ns")
    host.scheduler.give(first)
    await host.scheduler.outcome(first)
    await host.until(lambda: host.scheduler.reading(A).warm == ("cv2-ns",))
    gate = host.folder / "gate"
    task = a_drill(A.uuid, do="write", final=str(host.folder / "out.png"), gate=str(gate))
    host.scheduler.give(task)
    await host.until(lambda: host.scheduler.granted)

    ours = {int(pid): 30 for pid in host.runner_pids(A)}
    hot = replace(quiet[1], temperature=95)
    host.gpus.set([replace(quiet[0], uses={**ours, os.getpid(): 60}, busy=90), hot])
    await host.until(lambda: host.scheduler.reading(A).rest == "busy_elsewhere", "the first GPU rests")
    await host.until(lambda: host.scheduler.reading(B).rest == "too_hot", "the second GPU rests")
    assert "other programs use 60% of it" in host.scheduler.reading(A).fault
    assert host.scheduler.reading(B).fault == "too hot: 95 °C, 93 °C slow it down; it works again at 83 °C"
    told = read_health(host.folder / "data" / "agents" / "node-1")
    assert told is not None
    assert set(told.resting) == {A.uuid, B.uuid}
    assert told.not_claiming == told.warning == "", "the CPU works on"
    assert abs(float(host.scheduler.of(Beat)[-1].telemetry["clock_offset_s"])) < 5
    host.scheduler.clock_s = 60.0
    await host.until(lambda: "clock_warning" in host.scheduler.of(Beat)[-1].telemetry)
    assert "s behind the cluster's" in str(host.scheduler.of(Beat)[-1].telemetry["clock_warning"])
    seen = len(host.scheduler.heard)
    await host.until(lambda: "cpu" in host.scheduler.wants(seen))
    assert set(host.scheduler.wants(seen)) == {"cpu"}, "nothing new on either GPU"
    gate.touch()
    assert (await host.scheduler.outcome(task)).result is not None, "what ran there has gone on"
    await host.until(lambda: host.scheduler.reading(A).warm == (), "its models have made room for the others")

    host.gpus.set([replace(quiet[0], uses={os.getpid(): 20}, busy=20), replace(hot, temperature=84)])
    await host.until(lambda: host.scheduler.reading(A).rest == "", "the first GPU works again")
    assert host.scheduler.reading(B).rest == "too_hot", "cooler by nine degrees, and not by ten"
    host.gpus.set(quiet)
    await host.until(lambda: host.scheduler.reading(B).rest == "", "so does the second")
    seen = len(host.scheduler.heard)
    await host.until(lambda: {A.uuid, B.uuid} <= set(host.scheduler.wants(seen)))
    assert host.scheduler.offered() == {"cpu", A.uuid, B.uuid}
    assert len({hello.boot_id for hello in host.scheduler.of(Hello)}) == 1

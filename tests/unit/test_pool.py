"""The runner pool, with real child processes."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import psutil
import pytest

import worker.slot as slot_module
from lcq.config import LimitsConfig
from lcq.embedded_watch import started_at
from lcq.models import Device, DeviceKind, Ease, ErrorClass, Task, TaskType
from lcq.wire import Grant
from tests import scripted_runner
from tests.conftest import wait_until
from worker.attempt import Ended, key_of
from worker.devices import SlotPlan
from worker.pool import RunnerPool
from worker.processes import Kill, RunnerRecords
from worker.protocol import Cancel, Setup, pack_word
from worker.settings import EngineSettings
from worker.slot import RUNNER, PoolSettings, Shown, SlotState

SCRIPTED = scripted_runner.COMMAND
CPU = Device(id="cpu", kind=DeviceKind.CPU)
A_GPU = Device(id="GPU-1", kind=DeviceKind.GPU, vram_mib=8000)


def alive(pid: int) -> bool:
    return started_at(pid) is not None


class Pool:
    """A pool under test, and what it told."""

    def __init__(self, device: Device) -> None:
        self.device = device
        self.ended: list[Ended] = []
        self.states: list[SlotState] = []
        self.shown: list[Shown] = []

    async def on_ended(self, ended: Ended) -> None:
        self.ended.append(ended)

    def grant(self, do: str, *, timeout_s: float = 600.0, **config: object) -> Grant:
        model = str(config.pop("model", "cv2-telea"))
        task = Task(
            task_type=TaskType.INPAINT,
            image_path="x.png",
            config={"model": model, "do": do, **config},
            timeout_s=timeout_s,
        )
        return Grant(task=task, attempt=1, device=self.device.id, lease_ms=15_000)

    async def free(self) -> None:
        await wait_until(lambda: self.pool.count(SlotState.FREE) == len(self.pool.slots), what="all slots free")

    async def run(self, grant: Grant) -> Ended:
        """Start ``grant`` once all is free, and give back how it ended."""
        await self.free()
        before = len(self.ended)
        assert self.pool.start(grant)
        await wait_until(lambda: len(self.ended) > before, what="the attempt's end")
        return self.ended[-1]


@asynccontextmanager
async def a_pool(
    tmp_path: Path,
    *,
    slots: int = 1,
    command: Sequence[str] = SCRIPTED,
    no_progress_s: float = 300.0,
    kill: Kill = os.killpg,
    environment: dict[str, str] | None = None,
    device: Device = CPU,
    self_test: bool = False,
    on_line: Callable[[str, Grant | None, str], None] | None = None,
) -> AsyncIterator[Pool]:
    told = Pool(device)
    variables = {**os.environ, **(environment or {})}
    settings_of = EngineSettings(device=device)
    plans = [
        SlotPlan(f"{device.id}/{number}", device.id, variables, settings_of, is_first=number == 0)
        for number in range(slots)
    ]
    settings = PoolSettings(
        boot_id="boot",
        no_progress_s=no_progress_s,
        limits=LimitsConfig(),
        records=RunnerRecords(tmp_path / "runners.json"),
        self_test=self_test,
        command=command,
        kill=kill,
        on_line=on_line,
    )
    told.pool = RunnerPool(
        plans, settings, on_ended=told.on_ended, on_change=told.states.append, on_shown=told.shown.append
    )
    async with told.pool:
        yield told


async def test_what_a_runner_writes_is_told_with_its_slot_and_its_attempt(tmp_path: Path):
    lines: list[tuple[str, str, str]] = []

    def note(slot: str, grant: Grant | None, line: str) -> None:
        lines.append((slot, grant.task.id if grant is not None else "", line))

    async with a_pool(tmp_path, on_line=note) as told:
        grant = told.grant("talk")
        await told.run(grant)
        await wait_until(lambda: len(lines) >= 2)
    assert lines == [("cpu/0", grant.task.id, "loading"), ("cpu/0", grant.task.id, "\x1b[31m 50%\r100%\x1b[0m")]


async def test_an_attempt_ends_with_its_result_and_its_slot_is_free_and_warm(tmp_path: Path):
    async with a_pool(tmp_path) as told:
        grant = told.grant("done")
        ended = await told.run(grant)
        assert ended.result is not None
        assert ended.key == key_of(grant)
        await told.free()
        (want,) = told.pool.wants()
        assert (want.device, want.slots, want.warm) == ("cpu", 1, ("cv2-telea",))
        assert told.pool.running() == ()


async def test_a_busy_slot_takes_no_second_grant(tmp_path: Path):
    async with a_pool(tmp_path) as told:
        await told.free()
        assert told.pool.start(told.grant("hang"))
        assert not told.pool.start(told.grant("done"))
        assert told.pool.wants() == ()


async def test_a_grant_for_a_device_that_is_not_here_is_not_started(tmp_path: Path):
    async with a_pool(tmp_path) as told:
        await told.free()
        assert not told.pool.start(told.grant("done").model_copy(update={"device": "GPU-1"}))


async def test_a_grant_goes_to_the_slot_where_its_model_is_warm(tmp_path: Path):
    async with a_pool(tmp_path, slots=3) as told:
        await told.free()
        warm = told.pool.slots[1]
        warm.warm = ("cv2-ns",)
        assert told.pool.start(told.grant("hang", model="cv2-ns"))
        assert warm.grant is not None


async def test_a_failure_the_runner_tells_is_the_attempts_failure_and_the_runner_stays(tmp_path: Path):
    async with a_pool(tmp_path) as told:
        await told.free()
        pid = told.pool.slots[0].pid
        ended = await told.run(told.grant("fail", **{"class": "bad_input"}))
        assert ended.failure is not None
        assert ended.failure.code == "told_to"
        await told.free()
        assert told.pool.slots[0].pid == pid


@pytest.mark.parametrize("error_class", [ErrorClass.RESOURCE, ErrorClass.CRASH])
async def test_f31_a_runner_whose_engine_ran_out_of_memory_or_broke_is_replaced(
    tmp_path: Path, error_class: ErrorClass
):
    async with a_pool(tmp_path) as told:
        await told.free()
        pid = told.pool.slots[0].pid
        await told.run(told.grant("fail", **{"class": error_class.value}))
        await told.free()
        assert told.pool.slots[0].pid != pid
        assert not alive(pid)


@pytest.mark.parametrize(("do", "words"), [("exit", "exited with code 7"), ("kill", "SIGKILL")])
async def test_a_runner_that_dies_ends_its_attempt_as_a_crash_that_says_how(tmp_path: Path, do: str, words: str):
    async with a_pool(tmp_path) as told:
        ended = await told.run(told.grant(do))
        assert ended.failure is not None
        assert (ended.failure.error_class, ended.failure.code) == (ErrorClass.CRASH, "runner_died")
        assert words in ended.failure.message
        assert (await told.run(told.grant("done"))).result is not None  # the slot works on


@pytest.mark.parametrize("do", ["close", "nonsense"])
async def test_a_runner_that_cannot_be_heard_any_more_is_ended(tmp_path: Path, do: str):
    async with a_pool(tmp_path) as told:
        await told.free()
        pid = told.pool.slots[0].pid
        ended = await told.run(told.grant(do))
        assert ended.failure is not None
        assert ended.failure.code == "runner_died"
        assert not alive(pid)
        assert (await told.run(told.grant("done"))).result is not None


async def test_the_result_of_a_runner_that_died_right_after_it_counts(tmp_path: Path):
    async with a_pool(tmp_path) as told:
        await told.free()
        pid = told.pool.slots[0].pid
        ended = await told.run(told.grant("done and die"))
        assert ended.result is not None
        await wait_until(lambda: told.pool.slots[0].pid not in (pid, None))
        assert (await told.run(told.grant("done"))).result is not None


async def test_an_attempt_over_its_time_is_killed_whatever_progress_it_tells(tmp_path: Path):
    async with a_pool(tmp_path) as told:
        await told.free()
        pid = told.pool.slots[0].pid
        ended = await told.run(told.grant("progress", timeout_s=0.3))
        assert ended.failure is not None
        assert (ended.failure.error_class, ended.failure.code) == (ErrorClass.CRASH, "timed_out")
        assert not alive(pid), "the slot may not be free while the process is there"


async def test_f35_an_attempt_without_progress_is_killed_long_before_its_time_is_over(tmp_path: Path):
    async with a_pool(tmp_path, no_progress_s=0.3) as told:
        ended = await told.run(told.grant("hang"))
        assert ended.failure is not None
        assert ended.failure.code == "no_progress"


async def test_progress_is_shown_and_keeps_an_attempt_alive(tmp_path: Path):
    async with a_pool(tmp_path, no_progress_s=1.0) as told:
        await told.free()
        told.pool.start(told.grant("progress", timeout_s=2.0))
        await wait_until(lambda: any(one.stage == "going on" and one.progress == 0.5 for one in told.pool.running()))
        await wait_until(lambda: told.ended)
        assert told.ended[0].failure is not None
        assert told.ended[0].failure.code == "timed_out"


@pytest.mark.parametrize("hand_back", [True, False])
async def test_a_stopped_attempt_has_no_outcome_of_its_own_and_its_process_is_gone(tmp_path: Path, hand_back: bool):
    async with a_pool(tmp_path) as told:
        await told.free()
        pid = told.pool.slots[0].pid
        grant = told.grant("hang")
        told.pool.start(grant)
        assert told.pool.stop(key_of(grant), hand_back=hand_back)
        await wait_until(lambda: told.ended)
        assert told.ended == [Ended(grant, handed_back=hand_back)]
        assert not alive(pid)
        await told.free()


@pytest.mark.parametrize("hand_back", [True, False])
async def test_a_runner_that_gives_its_attempt_up_when_told_to_stays_warm(tmp_path: Path, hand_back: bool):
    async with a_pool(tmp_path) as told:
        await told.free()
        pid = told.pool.slots[0].pid
        grant = told.grant("until cancelled")
        told.pool.start(grant)
        await wait_until(lambda: told.pool.slots[0].stage == "going on")
        assert told.pool.stop(key_of(grant), hand_back=hand_back)
        await told.free()
        assert told.ended == [Ended(grant, handed_back=hand_back)]
        assert told.pool.slots[0].pid == pid
        assert told.pool.wants()[0].warm == ("cv2-telea",)
        assert (await told.run(told.grant("done"))).result is not None
        assert told.pool.slots[0].pid == pid


@pytest.mark.parametrize("hand_back", [True, False])
async def test_a_result_that_crosses_a_stop_counts_only_where_it_was_to_be_handed_back(tmp_path: Path, hand_back: bool):
    async with a_pool(tmp_path) as told:
        await told.free()
        grant = told.grant("until cancelled", then="done")
        told.pool.start(grant)
        await wait_until(lambda: told.pool.slots[0].stage == "going on")
        told.pool.stop(key_of(grant), hand_back=hand_back)
        await wait_until(lambda: told.ended)
        assert (told.ended[0].result is not None) == hand_back
        assert not told.ended[0].handed_back


async def test_a_runner_that_dies_of_a_stop_is_replaced_and_nobody_is_blamed(tmp_path: Path):
    async with a_pool(tmp_path) as told:
        await told.free()
        pid = told.pool.slots[0].pid
        grant = told.grant("until cancelled", then="exit")
        told.pool.start(grant)
        await wait_until(lambda: told.pool.slots[0].stage == "going on")
        told.pool.stop(key_of(grant))
        await wait_until(lambda: told.ended)
        assert told.ended == [Ended(grant)]
        await told.free()
        assert told.pool.slots[0].pid != pid


async def test_a_runner_that_gives_up_by_itself_has_crashed(tmp_path: Path):
    async with a_pool(tmp_path) as told:
        failure = (await told.run(told.grant("give up"))).failure
        assert failure is not None
        assert (failure.error_class, failure.code) == (ErrorClass.CRASH, "engine_error")


async def test_what_is_to_be_made_easier_is_told_to_the_runner(tmp_path: Path):
    async with a_pool(tmp_path) as told:
        steps = (Ease.SMALLER_TILE, Ease.LOWER_PRECISION)
        ended = await told.run(told.grant("eased").model_copy(update={"eased": steps}))
        assert ended.result is not None
        assert ended.result.notes == ("smaller_tile", "lower_precision")


async def test_memory_is_released_at_once_where_nothing_runs_and_else_after_the_attempt(tmp_path: Path):
    async with a_pool(tmp_path, slots=2) as told:
        await told.free()
        busy, idle = told.pool.slots
        gate = tmp_path / "gate"
        idle.start(told.grant("done", held_mib=300))
        await wait_until(lambda: idle.state is SlotState.FREE and idle.warm)
        assert idle.held_mib == 300
        busy.start(told.grant("write", final=str(tmp_path / "out.png"), gate=str(gate)))
        told.pool.release()
        await wait_until(lambda: not idle.warm)
        assert idle.held_mib == 0
        gate.touch()
        await wait_until(lambda: len(told.shown) == 4 and busy.state is SlotState.FREE, what="all four Ready words")
        assert not busy.warm


async def test_stopping_what_does_not_run_here_does_nothing(tmp_path: Path):
    async with a_pool(tmp_path) as told:
        await told.free()
        grant = told.grant("hang")
        told.pool.start(grant)
        assert not told.pool.stop((grant.task.id, 2))
        assert not told.pool.stop(("0" * 16, 1))
        assert told.pool.running()


async def test_f27_what_a_dead_runner_left_in_its_group_is_ended_too(tmp_path: Path):
    pid_file = tmp_path / "pid"
    async with a_pool(tmp_path) as told:
        ended = await told.run(told.grant("child", pid_file=str(pid_file)))
        assert ended.failure is not None
        assert not alive(int(pid_file.read_text()))


async def test_a_runner_that_does_not_start_makes_its_slot_broken_and_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setattr(slot_module, "_AGAIN_S", (0.01, 0.05))
    async with a_pool(tmp_path, command=(*SCRIPTED, "--never-ready")) as told:
        await wait_until(lambda: told.pool.count(SlotState.BROKEN) == 1)
        assert told.pool.wants() == ()
        assert "broken" in caplog.text
        assert "exited with code 3" in caplog.text


async def test_a_command_that_is_not_there_makes_its_slot_broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(slot_module, "_AGAIN_S", (0.01, 0.05))
    async with a_pool(tmp_path, command=(str(tmp_path / "no-such-program"),)) as told:
        await wait_until(lambda: told.pool.count(SlotState.BROKEN) == 1)


async def test_a_runner_that_keeps_dying_idle_makes_its_slot_broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(slot_module, "_AGAIN_S", (0.01, 0.05))
    async with a_pool(tmp_path, command=(*SCRIPTED, "--die-idle")) as told:
        await wait_until(lambda: told.pool.count(SlotState.BROKEN) == 1)


async def test_a_grant_that_meets_a_dying_runner_is_handed_back_not_failed(tmp_path: Path):
    async with a_pool(tmp_path) as told:
        await told.free()
        (runner,) = psutil.Process(told.pool.slots[0].pid).children()
        runner.kill()
        grant = told.grant("done")
        told.pool.start(grant)
        await wait_until(lambda: told.ended)
        ended = told.ended[0]
        # Which of the two it was is the kernel's to say; it is never a plain loss.
        assert ended.handed_back or (ended.failure is not None and ended.failure.code == "runner_died")
        assert (await told.run(told.grant("done"))).result is not None


async def test_f36_a_runner_that_survives_its_kill_blocks_only_its_own_slot_until_it_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setattr(slot_module, "_KILL_S", 0.2)
    immortal: set[int] = set()

    def kill(group: int, number: int) -> None:
        if group not in immortal:
            os.killpg(group, number)

    async with a_pool(tmp_path, slots=2, kill=kill) as told:
        await told.free()
        stuck, other = told.pool.slots
        immortal.add(stuck.pid or 0)
        stuck_pid = stuck.pid
        stuck.start(told.grant("hang", timeout_s=0.2))
        await wait_until(lambda: stuck.state is SlotState.UNKILLABLE)
        assert [ended.failure and ended.failure.code for ended in told.ended] == ["timed_out"]
        assert other.state is SlotState.FREE
        assert told.pool.start(told.grant("done"))
        await wait_until(lambda: len(told.ended) == 2)
        assert stuck.pid == stuck_pid
        assert stuck.state is SlotState.UNKILLABLE
        immortal.clear()
        await told.free()
        assert stuck.pid != stuck_pid
        assert "unkillable" in caplog.text


async def test_when_the_pool_is_left_no_runner_lives_and_none_is_on_record(tmp_path: Path):
    async with a_pool(tmp_path, slots=2) as told:
        await told.free()
        pids = [slot.pid for slot in told.pool.slots]
        assert all(pid is not None and alive(pid) for pid in pids)
        told.pool.start(told.grant("hang"))
    assert not any(pid is not None and alive(pid) for pid in pids)
    assert (tmp_path / "runners.json").read_text() == "[]"


# ---------------------------------------------------------------- what runners show


def a_script(tmp_path: Path, **values: object) -> tuple[str, ...]:
    """The scripted runner's command, with ``values`` for every device. Call it again to change them."""
    script = tmp_path / "script.json"
    script.write_text(json.dumps({"*": {"log": str(tmp_path / "setups"), **values}}))
    return (*SCRIPTED, "--script", str(script))


def setups(tmp_path: Path) -> list[str]:
    return [line.split()[1] for line in (tmp_path / "setups").read_text().splitlines()]


async def test_only_the_first_runner_of_a_device_tests_it(tmp_path: Path):
    async with a_pool(tmp_path, slots=3, command=a_script(tmp_path), self_test=True) as told:
        await told.free()
        assert sorted(setups(tmp_path)) == ["tested", "untested", "untested"]
        assert {shown.slot for shown in told.shown if shown.tested} == {"cpu/0"}
        await told.run(told.grant("exit"))
        await told.free()
        assert sorted(setups(tmp_path)) == ["tested", "untested", "untested", "untested"]


async def test_without_a_self_test_nobody_tests(tmp_path: Path):
    async with a_pool(tmp_path, command=a_script(tmp_path), device=A_GPU) as told:
        await told.run(told.grant("exit"))
        await told.free()
        assert setups(tmp_path) == ["untested", "untested"]


@pytest.mark.parametrize("do", ["exit", "fail"])
async def test_a_gpu_is_tested_again_after_a_crash_there(tmp_path: Path, do: str):
    async with a_pool(tmp_path, slots=2, command=a_script(tmp_path), device=A_GPU, self_test=True) as told:
        await told.free()
        told.pool.slots[1].start(told.grant(do, **{"class": "crash"}))
        await wait_until(lambda: setups(tmp_path).count("tested") == 2)
        await told.free()
        assert told.shown[-1].slot == "GPU-1/1"


async def test_a_gpu_that_ran_out_of_memory_is_not_tested_for_it(tmp_path: Path):
    async with a_pool(tmp_path, command=a_script(tmp_path), device=A_GPU, self_test=True) as told:
        await told.run(told.grant("fail", **{"class": "resource"}))
        await told.free()
        assert setups(tmp_path) == ["tested", "untested"]


async def test_a_runner_that_does_not_come_says_why_once_its_slot_is_broken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(slot_module, "_AGAIN_S", (0.01, 0.05))
    async with a_pool(tmp_path, command=a_script(tmp_path, dies=True)) as told:
        await wait_until(lambda: told.shown)
        assert told.shown[0].ready is None
        assert told.shown[0].why == "its runner exited with code 5"
        a_script(tmp_path)
        await told.free()
        assert told.shown[-1].ready is not None


async def test_a_runner_that_is_not_ready_in_time_breaks_its_slot_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(slot_module, "_START_S", 0.5)
    async with a_pool(tmp_path, command=a_script(tmp_path, gate=str(tmp_path / "gate"))) as told:
        await wait_until(lambda: told.pool.count(SlotState.BROKEN))
        assert told.shown[-1].why == "its runner is not ready after 0.5 s"


async def test_a_runner_with_nothing_to_do_is_ended_and_another_one_asked_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(slot_module, "_USELESS_S", (0.3, 0.3))
    command = a_script(tmp_path, fails={"cv2-ns": "all black", "cv2-telea": "all black"})
    async with a_pool(tmp_path, command=command, self_test=True) as told:
        await wait_until(lambda: told.pool.count(SlotState.OUT) == 1)
        assert told.pool.wants() == ()
        assert told.shown[0].ready is not None
        assert set(told.shown[0].ready.failed) == {"cv2-ns", "cv2-telea"}
        a_script(tmp_path)
        await told.free()
        assert set(setups(tmp_path)) == {"tested"}, "only a test can bring it back"


async def test_on_a_failed_device_idle_runners_end_and_none_starts_until_it_is_back(tmp_path: Path):
    async with a_pool(tmp_path, slots=2, command=a_script(tmp_path), device=A_GPU, self_test=True) as told:
        await told.free()
        pids = {slot.pid for slot in told.pool.slots}
        told.pool.hold("GPU-1", "fell off the bus")
        await wait_until(lambda: told.pool.count(SlotState.OUT) == 2)
        assert not any(pid is not None and alive(pid) for pid in pids)
        assert told.pool.wants() == ()
        assert not told.pool.start(told.grant("done"))
        told.pool.resume("GPU-1")
        await told.free()
        assert setups(tmp_path)[2:] == ["tested", "tested"]


async def test_an_attempt_on_a_failed_device_may_end_well_and_its_runner_is_replaced(tmp_path: Path):
    async with a_pool(tmp_path, device=A_GPU) as told:
        await told.free()
        pid = told.pool.slots[0].pid
        gate = tmp_path / "gate"
        told.pool.start(told.grant("write", final=str(tmp_path / "out.png"), gate=str(gate)))
        told.pool.hold("GPU-1", "fell off the bus")
        gate.touch()
        await wait_until(lambda: told.ended)
        assert told.ended[0].result is not None
        await wait_until(lambda: told.pool.count(SlotState.OUT) == 1)
        told.pool.resume("GPU-1")
        await told.free()
        assert told.pool.slots[0].pid != pid


async def test_an_attempt_that_does_not_end_on_a_failed_device_is_a_crash(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(slot_module, "_FAULT_S", 0.1)
    async with a_pool(tmp_path, device=A_GPU) as told:
        await told.free()
        told.pool.start(told.grant("progress"))
        told.pool.hold("GPU-1", "fell off the bus")
        await wait_until(lambda: told.ended)
        failure = told.ended[0].failure
        assert failure is not None
        assert (failure.error_class, failure.code) == (ErrorClass.CRASH, "device_failed")
        assert failure.message == "GPU-1: fell off the bus"


async def test_an_attempt_goes_on_where_the_device_is_back_in_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(slot_module, "_FAULT_S", 0.1)
    async with a_pool(tmp_path, device=A_GPU) as told:
        await told.free()
        told.pool.start(told.grant("progress", timeout_s=0.6))
        told.pool.hold("GPU-1", "the driver does not answer")
        told.pool.resume("GPU-1")
        await wait_until(lambda: told.ended)
        failure = told.ended[0].failure
        assert failure is not None
        assert failure.code == "timed_out", "it had all the time that it was given"


# ---------------------------------------------------------------- the real runner


async def test_the_real_runner_does_drills_and_reports_progress(tmp_path: Path):
    async with a_pool(tmp_path, command=RUNNER, environment={"LCQ_DRILLS": "1"}) as told:
        await told.free()
        told.pool.start(told.grant("", model="drill-sleep", seconds=0.5))
        await wait_until(lambda: any(one.stage == "sleep" for one in told.pool.running()))
        await wait_until(lambda: told.ended)
        assert told.ended[0].result is not None
        crashed = await told.run(told.grant("", model="drill-crash"))
        assert crashed.failure is not None
        assert "SIGKILL" in crashed.failure.message
        transient = await told.run(told.grant("", model="drill-transient"))
        assert transient.failure is not None
        assert transient.failure.error_class is ErrorClass.TRANSIENT


async def test_the_real_runner_gives_an_attempt_up_when_told_to_and_does_the_next_one(tmp_path: Path):
    async with a_pool(tmp_path, command=RUNNER, environment={"LCQ_DRILLS": "1"}) as told:
        await told.free()
        pid = told.pool.slots[0].pid
        stopped = told.grant("", model="drill-sleep", seconds=1000)
        told.pool.start(stopped)
        await wait_until(lambda: any(one.stage == "sleep" for one in told.pool.running()))
        told.pool.stop(key_of(stopped))
        await told.free()
        assert told.ended == [Ended(stopped)]
        assert (await told.run(told.grant("", model="drill-sleep", seconds=0.1))).result is not None
        assert told.pool.slots[0].pid == pid


async def test_a_cancel_that_comes_after_the_end_of_an_attempt_does_not_hit_the_next_one(tmp_path: Path):
    async with a_pool(tmp_path, command=RUNNER, environment={"LCQ_DRILLS": "1"}) as told:
        await told.run(told.grant("", model="drill-noop"))
        await told.free()
        slot = told.pool.slots[0]
        assert slot._line is not None
        for _ in range(3):  # heard while nothing runs, and right in front of the next attempt
            slot._line.say(Cancel())
            ended = await told.run(told.grant("", model="drill-sleep", seconds=0.1))
            assert ended.result is not None


async def test_the_real_runner_ignores_signals_meant_for_the_agent(tmp_path: Path):
    async with a_pool(tmp_path, command=RUNNER, environment={"LCQ_DRILLS": "1"}) as told:
        await told.free()
        pid = told.pool.slots[0].pid
        assert pid is not None
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            os.kill(pid, number)
        assert (await told.run(told.grant("", model="drill-noop"))).result is not None
        assert told.pool.slots[0].pid == pid


async def test_the_real_runner_ends_when_its_line_is_closed_even_in_the_middle_of_work(tmp_path: Path):
    import socket

    ours, its = socket.socketpair()
    with ours, its:
        process = await asyncio.create_subprocess_exec(
            *RUNNER, "--fd", str(its.fileno()), "--parent", str(os.getpid()), pass_fds=(its.fileno(),)
        )  # fmt: skip
        its.close()
        ours.sendall(pack_word(Setup(settings=EngineSettings())))
        assert await asyncio.to_thread(ours.recv, 1)  # it is ready
        ours.close()
        async with asyncio.timeout(120):
            assert await process.wait() == 1


def shared_by(told: Pool, slots: int, *, threads: int) -> list[SlotPlan]:
    """The ground of so many slots of which each has so many threads."""
    settings = EngineSettings(device=told.device, threads=threads)
    return [
        SlotPlan(f"cpu/{number}", "cpu", dict(os.environ), settings, is_first=number == 0) for number in range(slots)
    ]


async def test_a_runner_whose_share_of_the_cores_has_changed_is_replaced_after_what_it_does(tmp_path: Path):
    async with a_pool(tmp_path) as told:
        await told.free()
        (slot,) = told.pool.slots
        grant, old = told.grant("until cancelled"), slot.pid
        assert told.pool.start(grant)
        await wait_until(lambda: slot.stage == "going on")
        assert told.pool.resize("cpu", shared_by(told, 2, threads=3)) == ()
        await wait_until(lambda: told.pool.count(SlotState.FREE) == 1)  # the new one
        assert slot.pid == old  # what runs goes on where it is
        assert told.pool.stop(key_of(grant))  # its runner gives it up and would stay
        await wait_until(lambda: slot.pid not in (None, old) and told.pool.count(SlotState.FREE) == 2)
        kept = [one.pid for one in told.pool.slots]
        assert told.pool.resize("cpu", shared_by(told, 2, threads=3)) == ()  # nothing has changed
        assert told.pool.resize("cpu", shared_by(told, 3, threads=3)) == ()
        await wait_until(lambda: told.pool.count(SlotState.FREE) == 3)
        assert [one.pid for one in told.pool.slots][:2] == kept


async def test_an_idle_runner_gets_its_new_share_of_the_cores_at_once(tmp_path: Path):
    async with a_pool(tmp_path) as told:
        await told.free()
        (slot,) = told.pool.slots
        old = slot.pid
        told.pool.resize("cpu", shared_by(told, 1, threads=4))
        await wait_until(lambda: slot.pid not in (None, old) and told.pool.count(SlotState.FREE) == 1)
        assert not alive(old)

"""The agent against a scheduler's side of the wire: real sockets, real runner processes, real signals."""

from __future__ import annotations

import asyncio
import errno
import functools
import json
import math
import os
import signal
import subprocess
import sys
from collections import OrderedDict, deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import psutil
import pytest
import zmq

import worker.agent as agent_module
import worker.disks as disks_module
import worker.slot as slot_module
from lcq.config import DistributedConfig
from lcq.embedded_watch import started_at
from lcq.errors import InvalidInput, LcqError, NodeNameTaken, StaleBoot, StateUnavailable, UnknownCommand, UnknownModel
from lcq.models import Task, TaskType
from lcq.sockets import Mailbox, make_socket
from lcq.systemd import ServiceManager
from lcq.wire import (
    Beat,
    BeatAnswer,
    Bye,
    Done,
    Grant,
    Hello,
    HelloAnswer,
    Message,
    Order,
    Outcome,
    Request,
    Retake,
    RetakeAnswer,
    Step,
    StepAnswer,
    Ticket,
    Verdict,
    pack_answer,
    pack_error,
    pack_order,
    pack_ticket,
    unpack_request,
)
from tests import forked, scripted_runner
from tests.conftest import wait_until, wait_until_sync
from worker import cli
from worker.agent import Agent
from worker.processes import MARK, RunnerRecord, RunnerRecords
from worker.slot import SlotState

SCRIPTED = scripted_runner.COMMAND
BEAT_MS = 100
SELDOM_MS = 30_000
"""Beats with which no scheduler that answers is taken for silent, and left, however slow this machine is."""


def alive(pid: int) -> bool:
    return started_at(pid) is not None


def a_task(do: str, *, timeout_s: float = 600.0, **config: object) -> Task:
    config = {"model": "cv2-telea", "do": do, **config}
    return Task(task_type=TaskType.INPAINT, image_path="x.png", config=config, timeout_s=timeout_s)


class SchedulerDouble:
    """The other end of the wire: answers as a scheduler would, or as a test wants it to misbehave."""

    def __init__(self, *, lease_ms: int = 60_000) -> None:
        self.lease_ms, self.beat_ms = lease_ms, BEAT_MS
        self.tasks: deque[Task] = deque()
        self.heard: list[Request] = []
        self.outcomes: dict[tuple[str, int], Outcome] = {}
        self.granted: list[Grant] = []
        self.attempts: dict[str, int] = {}
        self.refuse: set[str] = set()  # task ids whose outcomes are refused
        self.was_there: dict[str, bool] = {}  # whether a result's file was in its place when it was first told of
        self.taken_back: set[str] = set()  # tasks that are lost whenever a beat lists them
        self.knows_retake = True  # older ones do not
        self.status = "online"
        self.error: LcqError | None = None  # the answer to everything
        self.hello_error: LcqError | None = None
        self.beat_error: LcqError | None = None
        self.schedulers: tuple[str, ...] = ()
        self.deaf = False  # nothing is heard
        self.hold: type[Request] | None = None  # answers to these wait in ``held``
        self.held: list[tuple[bytes, bytes]] = []
        self.copies = 1
        self.lifelines: list[bytes] = []  # what each said
        self._line_writers: list[asyncio.StreamWriter] = []
        self._answers: OrderedDict[str, bytes] = OrderedDict()
        self.peer = b""

    async def __aenter__(self) -> SchedulerDouble:
        self.context = zmq.Context()
        self.router = make_socket(self.context, zmq.ROUTER)
        self.port = self.router.bind_to_random_port("tcp://127.0.0.1")
        self.endpoint = f"tcp://127.0.0.1:{self.port}"
        self.mailbox = Mailbox(self.router)
        push = make_socket(self.context, zmq.PUSH, high_water=4)
        ring_port = push.bind_to_random_port("tcp://127.0.0.1")
        self.ring = f"tcp://127.0.0.1:{ring_port}"
        self.bell = Mailbox(push)
        self.lifeline_server = await asyncio.start_server(self._hold_lifeline, "127.0.0.1", 0)
        port = self.lifeline_server.sockets[0].getsockname()[1]
        self.lifeline = f"127.0.0.1:{port}"
        self._serving = asyncio.create_task(self._serve())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._serving.cancel()
        await asyncio.wait({self._serving})
        self.mailbox.close()
        self.bell.close()
        self.cut_lifelines()
        self.lifeline_server.close()
        await self.lifeline_server.wait_closed()
        self.context.term()

    # ------------------------------------------------------------ the wire

    async def _serve(self) -> None:
        async for batch in self.mailbox.batches():
            for sender, frame in batch:
                if not self.deaf:
                    self._hear(sender, frame)

    def _hear(self, sender: bytes, frame: bytes) -> None:
        self.peer = sender
        request = unpack_request(frame)
        answer = self._answers.get(request.id)
        if answer is None:
            self.heard.append(request)
            answer = self._answers[request.id] = self._packed(request)
        if self.hold is not None and isinstance(request, self.hold):
            self.held.append((sender, answer))
            return
        for _ in range(self.copies):
            self.mailbox.send(sender, answer)

    def release(self) -> None:
        """Let the held answers go."""
        self.hold = None
        for sender, answer in self.held:
            self.mailbox.send(sender, answer)
        self.held.clear()

    def _packed(self, request: Request) -> bytes:
        error = self.error
        match request:
            case Hello():
                error = error or self.hello_error
            case Beat():
                error = error or self.beat_error
            case Retake() if not self.knows_retake:
                error = error or UnknownCommand(request.CMD)
        return pack_error(request.id, error) if error else pack_answer(request.id, self._answer(request))

    def _answer(self, request: Request) -> Message:
        match request:
            case Hello():
                return HelloAnswer(
                    scheduler_id=f"double-{self.port}",
                    version="0",
                    beat_ms=self.beat_ms,
                    lease_ms=self.lease_ms,
                    serves={"cpu": ("cpu-light",)},
                    rings={"cpu-light": self.ring},
                    lifeline=self.lifeline,
                    schedulers=self.schedulers,
                    status=self.status,
                )
            case Step():
                verdicts = tuple(self._verdict(outcome) for outcome in request.outcomes)
                grants = tuple(self._grant(want.device) for want in request.want for _ in range(self._for(want.slots)))
                return StepAnswer(verdicts=verdicts, grants=grants)
            case Beat():
                lost = tuple(one for one in request.running if one.task_id in self.taken_back)
                return BeatAnswer(lost=lost, status=self.status, schedulers=self.schedulers)
            case Retake() if request.task_id in self.refuse:
                return RetakeAnswer(why="it does not count any more")
            case Retake():
                return RetakeAnswer(attempt=request.attempt + 1, lease_ms=60_000)
            case Bye():
                return Done()
        raise AssertionError(request)

    def _for(self, slots: int) -> int:
        return min(slots, len(self.tasks))

    def _grant(self, device: str) -> Grant:
        task = self.tasks.popleft()
        self.attempts[task.id] = self.attempts.get(task.id, 0) + 1
        grant = Grant(task=task, attempt=self.attempts[task.id], device=device, lease_ms=self.lease_ms)
        self.granted.append(grant)
        return grant

    def _verdict(self, outcome: Outcome) -> Verdict:
        self.outcomes[outcome.task_id, outcome.attempt] = outcome
        if outcome.result is not None:
            self.was_there.setdefault(outcome.task_id, Path(outcome.result.path).exists())
        word = "refused" if outcome.task_id in self.refuse else "settled"
        return Verdict(task_id=outcome.task_id, attempt=outcome.attempt, verdict=word)

    async def _hold_lifeline(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._line_writers.append(writer)
        number = len(self.lifelines)
        self.lifelines.append(b"")
        while chunk := await reader.read(100):
            self.lifelines[number] += chunk
        writer.close()

    def cut_lifelines(self) -> None:
        for writer in self._line_writers:
            writer.close()

    # ------------------------------------------------------------ what tests say and ask

    def order(self, cmd: str, **more: object) -> None:
        self.mailbox.send(self.peer, pack_order(Order(cmd=cmd, **more)))

    def give(self, *tasks: Task) -> None:
        """Have tasks ready, and tell the agent."""
        self.tasks.extend(tasks)
        self.order("wake")

    def ring_bell(self) -> bool:
        """Whether somebody was in the ring."""
        missed = self.bell.dropped
        self.bell.send(pack_ticket(Ticket(queue="cpu-light")))
        return self.bell.dropped == missed

    def of(self, kind: type[Request]) -> list[Request]:
        return [request for request in self.heard if isinstance(request, kind)]

    async def outcome(self, task: Task, attempt: int = 1) -> Outcome:
        return await wait_until(lambda: self.outcomes.get((task.id, attempt)), what=f"the outcome of {task.config}")


@pytest.fixture
async def scheduler() -> AsyncIterator[SchedulerDouble]:
    async with SchedulerDouble() as double:
        yield double


def a_config(tmp_path: Path, *, slots: int = 1, **agent: object) -> DistributedConfig:
    return DistributedConfig(
        data_dir=tmp_path / "data", agent={"name": "node-1", "slots": slots, "drain_s": 5, **agent}
    )


@asynccontextmanager
async def an_agent(
    tmp_path: Path,
    scheduler: SchedulerDouble,
    *,
    slots: int = 1,
    runner: Sequence[str] = SCRIPTED,
    kill: Callable[[int, int], None] = os.killpg,
    ready: bool = True,
    **settings: object,
) -> AsyncIterator[Agent]:
    config = a_config(tmp_path, slots=slots, **settings)
    async with Agent(config, scheduler=f"127.0.0.1:{scheduler.port}", runner=runner, kill=kill) as agent:
        running = asyncio.create_task(agent.run())
        try:
            if ready:
                await wait_until(lambda: scheduler.of(Step), what="the agent's first step")
                await wait_until(lambda: agent._pool.count(SlotState.FREE) == slots)
            yield agent
        finally:
            agent.request_stop(at_once=True)
            await running


# ---------------------------------------------------------------- the plain way


async def test_an_agent_says_hello_takes_a_task_reports_its_outcome_and_says_goodbye(tmp_path, scheduler):
    task = a_task("done")
    scheduler.beat_ms = SELDOM_MS
    async with an_agent(tmp_path, scheduler) as agent:
        scheduler.give(task)
        outcome = await scheduler.outcome(task)
        assert outcome.result is not None
        assert outcome.device == "cpu"
        await wait_until(lambda: not agent._outcomes)
    (hello,) = scheduler.of(Hello)
    assert hello.node_id == "node-1"
    assert set(hello.capability.models) == {"cv2-telea", "cv2-ns"}
    assert [device.slots for device in hello.capability.devices] == [1]
    assert scheduler.of(Bye)


async def test_finishing_and_asking_again_travel_in_one_step(tmp_path, scheduler):
    tasks = [a_task("done") for _ in range(5)]
    async with an_agent(tmp_path, scheduler):
        before = len(scheduler.of(Step))
        scheduler.give(*tasks)
        await scheduler.outcome(tasks[-1])
    steps = [step for step in scheduler.of(Step)[before:] if step.outcomes]
    assert all(step.want for step in steps[:-1])
    assert [step.want[0].warm for step in steps[:-1]] == [("cv2-telea",)] * 4


async def test_all_free_slots_are_asked_for_at_once(tmp_path, scheduler):
    async with an_agent(tmp_path, scheduler, slots=3) as agent:
        scheduler.order("wake")  # a step of before, when not all were ready, may still be on its way
        await wait_until(lambda: any(step.want and step.want[0].slots == 3 for step in scheduler.of(Step)))
        scheduler.give(*(a_task("hang") for _ in range(3)))
        await wait_until(lambda: agent._pool.count(SlotState.BUSY) == 3)


async def test_beats_tell_progress_and_how_the_node_feels(tmp_path, scheduler):
    task = a_task("progress")
    async with an_agent(tmp_path, scheduler):
        scheduler.give(task)
        beat = await wait_until(
            lambda: next((b for b in scheduler.of(Beat) if b.running and b.running[0].progress == 0.5), None)
        )
    assert (beat.running[0].task_id, beat.running[0].attempt, beat.running[0].stage) == (task.id, 1, "going on")
    assert {"cpu_percent", "memory_available_mib", "load_1m", "slots_busy", "slots_broken"} <= set(beat.telemetry)
    assert beat.telemetry["slots_busy"] == 1
    assert beat.devices["cpu"].busy == pytest.approx(float(beat.telemetry["cpu_percent"]) / 100)


async def test_a_finished_attempt_is_beaten_for_until_its_verdict(tmp_path, scheduler):
    task, _final, gate = a_writer(tmp_path)
    async with an_agent(tmp_path, scheduler) as agent:
        scheduler.give(task)
        await wait_until(lambda: agent._pool.running())
        scheduler.hold = Step
        gate.touch()
        await wait_until(lambda: agent._outcomes and not agent._pool.running())
        seen = len(scheduler.heard)
        await wait_until(lambda: any(isinstance(r, Beat) and r.running for r in scheduler.heard[seen + 1 :]))
        scheduler.release()


# ---------------------------------------------------------------- bells


async def test_a_bell_wakes_an_idle_agent_and_a_full_one_is_not_in_the_ring(tmp_path, scheduler):
    task = a_task("hang")
    async with an_agent(tmp_path, scheduler, poll_s=1000) as agent:
        await wait_until(scheduler.ring_bell, what="the idle agent in the ring")
        scheduler.tasks.append(task)
        await wait_until(lambda: scheduler.ring_bell() and scheduler.granted, what="a bell that brings a step")
        await wait_until(lambda: agent._pool.running())
        await wait_until(lambda: not scheduler.ring_bell(), what="the full agent out of the ring")
        scheduler.order("cancel", task_id=task.id, attempt=1)
        await wait_until(scheduler.ring_bell, what="the agent back in the ring")


async def test_a_task_whose_bell_was_lost_is_found_by_the_slow_poll(tmp_path, scheduler):
    task = a_task("done")
    async with an_agent(tmp_path, scheduler, poll_s=0.05):
        scheduler.tasks.append(task)
        await scheduler.outcome(task)


# ---------------------------------------------------------------- attempts that end badly


async def test_a_killed_runner_is_a_crash_and_its_slot_recovers(tmp_path, scheduler):
    killed, after = a_task("hang"), a_task("done")
    async with an_agent(tmp_path, scheduler) as agent:
        scheduler.give(killed)
        await wait_until(lambda: agent._pool.running())
        os.kill(agent._pool.slots[0].pid, signal.SIGKILL)
        failure = (await scheduler.outcome(killed)).failure
        assert failure is not None
        assert (failure.error_class, failure.code) == ("crash", "runner_died")
        assert "SIGKILL" in failure.message
        scheduler.give(after)
        assert (await scheduler.outcome(after)).result is not None


async def test_an_attempt_over_its_time_is_reported_as_timed_out(tmp_path, scheduler):
    task, after = a_task("progress", timeout_s=0.3), a_task("done")
    async with an_agent(tmp_path, scheduler):
        scheduler.give(task)
        failure = (await scheduler.outcome(task)).failure
        assert failure is not None
        assert (failure.error_class, failure.code) == ("crash", "timed_out")
        scheduler.give(after)
        assert (await scheduler.outcome(after)).result is not None


async def test_f35_a_hung_attempt_is_ended_while_the_heartbeat_goes_on(tmp_path, scheduler):
    task = a_task("hang")
    async with an_agent(tmp_path, scheduler, no_progress_s=0.5):
        scheduler.give(task)
        await wait_until(lambda: any(beat.running for beat in scheduler.of(Beat)))
        failure = (await scheduler.outcome(task)).failure
        assert failure is not None
        assert failure.code == "no_progress"


async def test_f36_an_unkillable_runner_blocks_its_slot_only_and_is_told_in_the_beats(tmp_path, scheduler, monkeypatch):
    monkeypatch.setattr(slot_module, "_KILL_S", 0.2)
    stuck: set[int] = set()

    def kill(group: int, number: int) -> None:
        if group not in stuck:
            os.killpg(group, number)

    task, after = a_task("hang", timeout_s=0.2), a_task("done")
    async with an_agent(tmp_path, scheduler, slots=2, kill=kill) as agent:
        stuck.update(slot.pid for slot in agent._pool.slots)
        scheduler.give(task)
        await scheduler.outcome(task)
        await wait_until(lambda: any(beat.telemetry["slots_unkillable"] == 1 for beat in scheduler.of(Beat)))
        scheduler.give(after)
        assert (await scheduler.outcome(after)).result is not None
        stuck.clear()
        await wait_until(lambda: agent._pool.count(SlotState.FREE) == 2)


# ---------------------------------------------------------------- what runners show is what is offered


def a_script(tmp_path: Path, **values: object) -> tuple[str, ...]:
    """The scripted runner's command, with ``values`` for every device. Call it again to change them."""
    script = tmp_path / "script.json"
    script.write_text(json.dumps({"*": values}))
    return (*SCRIPTED, "--script", str(script))


async def test_no_hello_is_said_before_the_first_runner_has_shown_what_it_can_do(tmp_path, scheduler):
    gate = tmp_path / "gate"
    runner = a_script(tmp_path, gate=str(gate), models=["cv2-ns"], left_out={"lama": "no weights"})
    async with an_agent(tmp_path, scheduler, runner=runner, ready=False) as agent:
        await wait_until(lambda: agent._pool.slots[0].pid)
        assert not scheduler.heard
        gate.touch()
        await wait_until(lambda: scheduler.of(Hello))
        hello = scheduler.of(Hello)[0]
        assert set(hello.capability.models) == {"cv2-ns"}
        assert hello.capability.left_out == {"lama": "no weights"}


async def test_when_a_runner_has_less_to_offer_a_second_hello_of_the_same_boot_says_so(tmp_path, scheduler):
    runner = a_script(tmp_path)
    going_on, dying = a_task("until cancelled"), a_task("exit")
    async with an_agent(tmp_path, scheduler, slots=2, runner=runner) as agent:
        scheduler.give(going_on)
        await wait_until(lambda: agent._pool.running())
        a_script(tmp_path, models=["cv2-ns"])
        scheduler.give(dying)
        assert set(scheduler.of(Hello)[0].capability.models) == {"cv2-ns", "cv2-telea"}
        await wait_until(lambda: set(scheduler.of(Hello)[-1].capability.models) == {"cv2-ns"})
        assert len({hello.boot_id for hello in scheduler.of(Hello)}) == 1
        seen = len(scheduler.heard)
        await wait_until(lambda: any(isinstance(r, Beat) and r.running for r in scheduler.heard[seen:]))
        assert (going_on.id, 1) not in scheduler.outcomes


async def test_a_node_on_which_nothing_works_says_why_and_offers_itself_once_something_does(
    tmp_path, scheduler, monkeypatch
):
    monkeypatch.setattr(slot_module, "_AGAIN_S", (0.01, 0.05))
    async with an_agent(tmp_path, scheduler, runner=a_script(tmp_path, dies=True), ready=False):
        await wait_until(lambda: scheduler.of(Beat))
        hello = scheduler.of(Hello)[0]
        assert hello.capability.devices == ()
        assert hello.capability.left_out == {"cpu": "its runner exited with code 5"}
        assert scheduler.of(Beat)[-1].devices["cpu"].fault == "its runner exited with code 5"
        assert not scheduler.of(Step)
        a_script(tmp_path)
        await wait_until(lambda: any(step.want for step in scheduler.of(Step)))
        await wait_until(lambda: scheduler.of(Hello)[-1].capability.left_out == {})


async def test_a_device_that_shows_nothing_for_too_long_does_not_hold_the_hello_up(tmp_path, scheduler, monkeypatch):
    monkeypatch.setattr(agent_module, "_SHOW_S", 0.2)
    gate = tmp_path / "gate"
    async with an_agent(tmp_path, scheduler, runner=a_script(tmp_path, gate=str(gate)), ready=False):
        await wait_until(lambda: scheduler.of(Hello))
        assert scheduler.of(Hello)[0].capability.left_out == {"cpu": "its runner is not ready yet"}
        gate.touch()
        await wait_until(lambda: any(step.want for step in scheduler.of(Step)))


async def test_beats_tell_how_each_device_is_and_what_is_warm_there(tmp_path, scheduler):
    task = a_task("done")
    async with an_agent(tmp_path, scheduler):
        scheduler.give(task)
        await wait_until(lambda: scheduler.of(Beat) and scheduler.of(Beat)[-1].devices["cpu"].warm == ("cv2-telea",))
        reading = scheduler.of(Beat)[-1].devices["cpu"]
        assert reading.free_mib
        assert reading.fault == ""


async def test_numbers_that_are_none_never_break_a_beat(tmp_path, scheduler, monkeypatch):
    monkeypatch.setattr(agent_module, "host_telemetry", lambda: {"cpu_percent": math.nan, "load_1m": 0.5})
    async with an_agent(tmp_path, scheduler):
        await wait_until(lambda: len(scheduler.of(Beat)) > 2)
        assert "cpu_percent" not in scheduler.of(Beat)[-1].telemetry
        assert scheduler.of(Beat)[-1].telemetry["load_1m"] == 0.5


# ---------------------------------------------------------------- disks


async def test_f45_a_node_whose_disk_is_full_takes_nothing_says_why_and_recovers_alone(
    tmp_path, scheduler, monkeypatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setattr(disks_module, "_LOOK_S", 0.02)
    out = tmp_path / "out"
    out.mkdir()
    failing = a_task("fail", **{"class": "resource", "code": "disk_full"})
    failing = failing.model_copy(update={"output_path": str(out / "x.png")})
    after = a_task("done")

    def fallocate(descriptor: int, offset: int, size: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    async with an_agent(tmp_path, scheduler, poll_s=0.05) as agent:
        with monkeypatch.context() as full:
            full.setattr(os, "posix_fallocate", fallocate)
            scheduler.give(failing)
            assert (await scheduler.outcome(failing)).failure.code == "disk_full"
            await wait_until(lambda: agent._pool.count(SlotState.FREE) == 1)
            seen = len(scheduler.heard)
            scheduler.give(after)
            await wait_until(lambda: "not_claiming" in scheduler.of(Beat)[-1].telemetry)
            assert scheduler.of(Beat)[-1].telemetry["not_claiming"] == f"the disk of {out} is full"
            beats = len(scheduler.of(Beat))
            await wait_until(lambda: len(scheduler.of(Beat)) > beats + 2)
            assert not any(isinstance(r, Step) and r.want for r in scheduler.heard[seen:])
        assert (await scheduler.outcome(after)).result is not None
        await wait_until(lambda: "not_claiming" not in scheduler.of(Beat)[-1].telemetry)
    assert f"the disk of {out} is full" in caplog.text


# ---------------------------------------------------------------- orders


async def test_released_memory_is_no_longer_asked_for_as_warm(tmp_path, scheduler):
    task = a_task("done")
    async with an_agent(tmp_path, scheduler, poll_s=0.05) as agent:
        scheduler.give(task)
        await wait_until(lambda: agent._pool.warm("cpu") == ("cv2-telea",))
        pid = agent._pool.slots[0].pid
        scheduler.order("release", reason="another program needs it")
        await wait_until(lambda: scheduler.of(Step)[-1].want and not scheduler.of(Step)[-1].want[0].warm)
        assert agent._pool.slots[0].pid == pid


async def test_a_cancelled_attempt_whose_runner_hears_it_costs_no_warm_model(tmp_path, scheduler):
    task, after = a_task("until cancelled"), a_task("done")
    async with an_agent(tmp_path, scheduler) as agent:
        scheduler.give(task)
        await wait_until(lambda: any(one.stage == "going on" for one in agent._pool.running()))
        pid = agent._pool.slots[0].pid
        scheduler.order("cancel", task_id=task.id, attempt=1)
        await wait_until(lambda: not agent._pool.running())
        scheduler.give(after)
        assert (await scheduler.outcome(after)).result is not None
        assert agent._pool.slots[0].pid == pid
    assert (task.id, 1) not in scheduler.outcomes


@pytest.mark.parametrize("how", ["order", "beat"])
async def test_a_cancelled_attempt_is_ended_and_not_reported(tmp_path, scheduler, how):
    task, after = a_task("hang"), a_task("done")
    async with an_agent(tmp_path, scheduler) as agent:
        scheduler.give(task)
        await wait_until(lambda: agent._pool.running())
        pid = agent._pool.slots[0].pid
        if how == "order":
            scheduler.order("cancel", task_id=task.id, attempt=1, reason="not needed")
        else:
            scheduler.taken_back.add(task.id)
        await wait_until(lambda: not agent._pool.running())
        assert not alive(pid), "the slot is free only when the process is gone"
        scheduler.give(after)
        await scheduler.outcome(after)
    assert (task.id, 1) not in scheduler.outcomes


async def test_a_cancelled_attempts_half_written_file_is_removed(tmp_path, scheduler):
    final = tmp_path / "out" / "x.png"
    task = a_task("write", final=str(final), gate=str(tmp_path / "never"))
    task = task.model_copy(update={"output_path": str(final)})
    async with an_agent(tmp_path, scheduler) as agent:
        scheduler.give(task)
        await wait_until(lambda: final.parent.exists() and list(final.parent.iterdir()))
        scheduler.order("cancel", task_id=task.id, attempt=1)
        await wait_until(lambda: not agent._pool.running())
        assert not list(final.parent.iterdir())


async def test_an_attempt_cancelled_before_its_grant_came_is_never_begun(tmp_path, scheduler):
    task, after = a_task("hang"), a_task("done")
    async with an_agent(tmp_path, scheduler) as agent:
        scheduler.hold = Step
        scheduler.give(task)
        await wait_until(lambda: scheduler.granted and scheduler.held)
        scheduler.order("cancel", task_id=task.id, attempt=1)
        scheduler.release()
        scheduler.give(after)
        await scheduler.outcome(after)
        assert not agent._pool.running()


async def test_a_draining_node_asks_for_nothing_until_it_is_resumed(tmp_path, scheduler):
    task = a_task("done")
    async with an_agent(tmp_path, scheduler):
        scheduler.status = "draining"
        scheduler.order("drain", reason="maintenance")
        beats = len(scheduler.of(Beat))
        await wait_until(lambda: len(scheduler.of(Beat)) > beats + 1)
        steps = len(scheduler.of(Step))
        scheduler.give(task)
        beats = len(scheduler.of(Beat))
        await wait_until(lambda: len(scheduler.of(Beat)) > beats + 2)
        assert len(scheduler.of(Step)) == steps
        scheduler.status = "online"  # the next beat tells, though no order came
        assert (await scheduler.outcome(task)).result is not None


# ---------------------------------------------------------------- grants are honoured once, or handed back


async def test_an_answer_that_comes_several_times_starts_its_grants_once(tmp_path, scheduler):
    scheduler.copies = 3
    tasks = [a_task("done") for _ in range(4)]
    async with an_agent(tmp_path, scheduler, slots=2):
        scheduler.give(*tasks)
        for task in tasks:
            assert (await scheduler.outcome(task)).result is not None
    assert not any(outcome.handed_back for outcome in scheduler.outcomes.values())
    assert len(scheduler.outcomes) == len(tasks)


async def test_a_step_that_was_heard_but_not_answered_in_time_is_asked_again_and_done_once(tmp_path, scheduler):
    task = a_task("done")
    async with an_agent(tmp_path, scheduler):
        scheduler.hold = Step
        scheduler.give(task)
        await wait_until(lambda: len(scheduler.held) >= 2, what="the same step asked again")
        assert len(scheduler.granted) == 1
        scheduler.release()
        assert (await scheduler.outcome(task)).result is not None
    assert len(scheduler.outcomes) == 1


async def test_a_grant_that_comes_when_nobody_waits_for_it_any_more_is_honoured_all_the_same(tmp_path, scheduler):
    async with an_agent(tmp_path, scheduler) as agent:
        late = Grant(task=a_task("done"), attempt=1, device="cpu", lease_ms=1000)
        answered = scheduler.of(Step)[-1]
        scheduler.mailbox.send(scheduler.peer, pack_answer(answered.id, StepAnswer(grants=(late,))))
        assert (await scheduler.outcome(late.task)).result is not None
        busy = a_task("hang")
        scheduler.give(busy)
        await wait_until(lambda: agent._pool.running())
        too_late = Grant(task=a_task("done"), attempt=1, device="cpu", lease_ms=1000)
        scheduler.mailbox.send(scheduler.peer, pack_answer(answered.id, StepAnswer(grants=(too_late,))))
        assert (await scheduler.outcome(too_late.task)).handed_back


async def test_a_grant_for_a_device_that_is_not_here_is_handed_back(tmp_path, scheduler):
    async with an_agent(tmp_path, scheduler):
        grant = Grant(task=a_task("done"), attempt=1, device="GPU-1", lease_ms=1000)
        answered = scheduler.of(Step)[-1]
        scheduler.mailbox.send(scheduler.peer, pack_answer(answered.id, StepAnswer(grants=(grant,))))
        assert (await scheduler.outcome(grant.task)).handed_back


# ---------------------------------------------------------------- results are published by right only


def a_writer(tmp_path: Path) -> tuple[Task, Path, Path]:
    final, gate = tmp_path / "out" / "x.png", tmp_path / "gate"
    return a_task("write", final=str(final), gate=str(gate)), final, gate


async def test_a_result_has_its_final_name_when_it_is_reported(tmp_path, scheduler):
    task, final, gate = a_writer(tmp_path)
    gate.touch()
    async with an_agent(tmp_path, scheduler):
        scheduler.give(task)
        outcome = await scheduler.outcome(task)
        assert outcome.result is not None
        assert outcome.result.path == str(final)
        assert [file.name for file in final.parent.iterdir()] == ["x.png"]


async def until_its_lease_is_in_doubt(agent: Agent, scheduler: SchedulerDouble, task: Task) -> None:
    """Have ``task`` run, and no beat answered meanwhile: an answer that is under way could renew its lease yet."""
    scheduler.hold = Beat
    scheduler.give(task)
    await wait_until(lambda: agent._pool.running())
    scheduler.deaf, scheduler.hold = True, None
    await wait_until(lambda: not agent._leases.is_sure((task.id, 1)))


@pytest.mark.parametrize("verdict", ["settled", "refused"])
@pytest.mark.parametrize("knows_retake", [True, False], ids=["", "older scheduler"])
async def test_f04_a_result_whose_task_may_have_been_taken_back_waits_for_a_beat_and_then_for_whether_it_counts(
    tmp_path, verdict, knows_retake
):
    task, final, gate = a_writer(tmp_path)
    async with SchedulerDouble(lease_ms=200) as scheduler, an_agent(tmp_path, scheduler) as agent:
        scheduler.knows_retake = knows_retake
        if verdict == "refused":
            scheduler.refuse.add(task.id)
        await until_its_lease_is_in_doubt(agent, scheduler, task)
        scheduler.taken_back.add(task.id)  # a beat that told of it before would have ended it
        gate.touch()
        await wait_until(lambda: agent._outcomes)
        (staged,) = final.parent.iterdir()
        assert staged != final
        scheduler.deaf = False
        comes_back = knows_retake and verdict == "settled"
        await scheduler.outcome(task, attempt=2 if comes_back else 1)
        assert scheduler.was_there[task.id] == comes_back
        await wait_until(lambda: not agent._outcomes)
        assert [file.name for file in final.parent.iterdir()] == (["x.png"] if verdict == "settled" else [])


async def test_f06_a_result_whose_lease_was_in_doubt_and_is_not_lost_is_there_when_the_scheduler_hears_of_it(tmp_path):
    task, final, gate = a_writer(tmp_path)
    async with SchedulerDouble(lease_ms=200) as scheduler, an_agent(tmp_path, scheduler) as agent:
        await until_its_lease_is_in_doubt(agent, scheduler, task)
        gate.touch()
        await wait_until(lambda: agent._outcomes)
        assert not final.exists()
        scheduler.deaf = False
        await scheduler.outcome(task)
        assert scheduler.was_there[task.id]
        await wait_until(lambda: not agent._outcomes)
        assert [file.name for file in final.parent.iterdir()] == ["x.png"]


# ---------------------------------------------------------------- schedulers that go away


async def test_f18_what_ends_while_no_scheduler_answers_is_spooled_and_delivered_later(
    tmp_path, scheduler, caplog: pytest.LogCaptureFixture
):
    caplog.set_level("INFO", "worker")
    task, _final, gate = a_writer(tmp_path)
    async with an_agent(tmp_path, scheduler) as agent:
        scheduler.give(task)
        await wait_until(lambda: agent._pool.running())
        scheduler.deaf = True
        await wait_until(lambda: "no scheduler answers" in caplog.text)
        gate.touch()
        spool = tmp_path / "data" / "agents" / "node-1" / "spool"
        await wait_until(lambda: spool.exists() and list(spool.glob("*.json")), what="the outcome on disk")
        scheduler.deaf = False
        assert (await scheduler.outcome(task)).result is not None
        await wait_until(lambda: not list(spool.iterdir()), what="the spool empty again")
        assert "answers again" in caplog.text
    assert caplog.text.count("no scheduler answers") == 1


async def test_f18_an_outcome_of_an_earlier_run_is_reported_before_the_hello(tmp_path, scheduler):
    task, _final, gate = a_writer(tmp_path)
    gate.touch()
    async with SchedulerDouble() as first, an_agent(tmp_path, first) as agent:
        first.hold = Step
        first.give(task)
        await wait_until(lambda: first.granted and first.held)
        first.hold = None
        first.deaf = True
        for sender, answer in first.held:
            first.mailbox.send(sender, answer)
        await wait_until(lambda: agent._outcomes, what="an outcome that nobody hears")
    async with an_agent(tmp_path, scheduler):
        assert (await scheduler.outcome(task)).result is not None
    kinds = [type(request) for request in scheduler.heard]
    assert kinds.index(Step) < kinds.index(Hello)
    assert not list((tmp_path / "data" / "agents" / "node-1" / "spool").iterdir())


async def test_an_agent_started_before_its_scheduler_joins_when_there_is_one(
    tmp_path, caplog: pytest.LogCaptureFixture
):
    async with SchedulerDouble() as scheduler:
        scheduler.deaf = True
        async with an_agent(tmp_path, scheduler, ready=False):
            await wait_until(lambda: "start one with 'lcq up'" in caplog.text)
            assert scheduler.endpoint in caplog.text
            scheduler.deaf = False
            await wait_until(lambda: scheduler.of(Step))


async def test_when_a_scheduler_falls_silent_the_next_one_is_joined_and_running_work_goes_on(tmp_path, scheduler):
    task, final, gate = a_writer(tmp_path)
    async with SchedulerDouble() as second, an_agent(tmp_path, scheduler) as agent:
        scheduler.give(task)
        await wait_until(lambda: agent._pool.running())
        pid = agent._pool.slots[0].pid
        scheduler.schedulers = second.schedulers = (scheduler.endpoint, second.endpoint)
        await wait_until(lambda: agent._membership._schedulers)  # not before: on a slow machine it would go there
        scheduler.deaf = True
        await wait_until(lambda: any(beat.running for beat in second.of(Beat)))
        gate.touch()
        assert (await second.outcome(task)).result is not None
        assert agent._pool.slots[0].pid == pid
        await wait_until(lambda: second.lifelines)
        await wait_until(lambda: scheduler.lifelines[0].endswith(b"bye\n"), what="no false alarm at the first")
    assert final.exists()


async def test_a_scheduler_that_knows_us_no_more_is_told_hello_again_and_nothing_is_ended(tmp_path, scheduler):
    task = a_task("progress")
    async with an_agent(tmp_path, scheduler) as agent:
        scheduler.give(task)
        await wait_until(lambda: agent._pool.running())
        scheduler.beat_error = StaleBoot("node-1")
        await wait_until(lambda: len(scheduler.of(Hello)) > 1)
        scheduler.beat_error = None
        assert {hello.boot_id for hello in scheduler.of(Hello)} == {agent.boot_id}
        assert agent._pool.running()


async def test_an_agent_whose_name_was_taken_ends_and_leaves_no_runner(tmp_path, scheduler):
    scheduler.hello_error = StaleBoot("node-1")
    config = a_config(tmp_path)
    async with Agent(config, scheduler=f"127.0.0.1:{scheduler.port}", runner=SCRIPTED) as agent:
        with pytest.raises(StaleBoot, match="--name"):
            await agent.run()
        assert not any(slot.pid and alive(slot.pid) for slot in agent._pool.slots)


async def test_an_agent_that_was_named_waits_until_the_one_that_has_its_name_is_gone(tmp_path, scheduler):
    scheduler.hello_error = NodeNameTaken("node-1", "studio")
    async with an_agent(tmp_path, scheduler, ready=False) as agent:
        await wait_until(lambda: "on host studio" in agent.not_claiming, timeout=60)
        scheduler.hello_error = None
        await wait_until(lambda: not agent.not_claiming, timeout=60)
        assert len({hello.home for hello in scheduler.of(Hello)}) == 1
        assert scheduler.of(Hello)[0].home


async def test_redis_away_is_said_once_and_survived(tmp_path, scheduler, caplog: pytest.LogCaptureFixture):
    task = a_task("done")
    scheduler.beat_ms = SELDOM_MS
    async with an_agent(tmp_path, scheduler):
        scheduler.error = StateUnavailable("redis://x", "connection refused")
        beats = len(scheduler.of(Beat))
        await wait_until(lambda: scheduler.order("beat") or len(scheduler.of(Beat)) > beats + 3)
        scheduler.error = None
        scheduler.give(task)
        assert (await scheduler.outcome(task)).result is not None
    assert caplog.text.count("leases are not renewed") == 1
    assert len(scheduler.of(Hello)) == 1


# ---------------------------------------------------------------- the lifeline


async def test_the_lifeline_names_the_boot_comes_back_when_cut_and_says_bye_at_the_end(tmp_path, scheduler):
    async with an_agent(tmp_path, scheduler) as agent:
        words = f"node-1 {agent.boot_id}\n".encode()
        await wait_until(lambda: scheduler.lifelines == [words])
        scheduler.cut_lifelines()
        await wait_until(lambda: scheduler.lifelines == [words, words])
    await wait_until(lambda: scheduler.lifelines[1] == words + b"bye\n")


# ---------------------------------------------------------------- names, models, orphans


async def test_two_agents_of_one_name_cannot_run_on_one_host(tmp_path, scheduler):
    async with Agent(a_config(tmp_path)):
        with pytest.raises(InvalidInput, match="--name"):
            async with Agent(a_config(tmp_path)):
                pass


async def test_agents_without_a_name_are_numbered(tmp_path):
    config = a_config(tmp_path, name=None)
    async with Agent(config) as first, Agent(config) as second:
        assert second.node_id == f"{first.node_id}-2"


async def test_an_agent_that_was_told_to_stop_while_it_took_another_name_stops(tmp_path, monkeypatch):
    monkeypatch.setattr(cli, "Agent", functools.partial(Agent, runner=SCRIPTED))
    told = asyncio.Event()
    told.set()
    async with asyncio.timeout(60):
        await cli._run_one(a_config(tmp_path, name=None), None, None, told, ServiceManager())


async def test_a_model_that_no_engine_has_is_refused_by_name(tmp_path):
    async with Agent(a_config(tmp_path, models=["cv2-tela"]), runner=SCRIPTED) as agent:
        with pytest.raises(UnknownModel, match="cv2-telea"):
            await agent.run()
        assert not any(slot.pid and alive(slot.pid) for slot in agent._pool.slots)


async def test_only_the_models_that_were_chosen_are_offered(tmp_path, scheduler):
    async with an_agent(tmp_path, scheduler, models=["cv2-ns"]):
        pass
    assert set(scheduler.of(Hello)[0].capability.models) == {"cv2-ns"}


def a_sleeper(**environment: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", "import time; time.sleep(1000)"]
    return subprocess.Popen(command, start_new_session=True, env=os.environ | environment)


def test_f28_a_sweep_ends_the_recorded_processes_and_no_bystander(tmp_path: Path):
    recorded, reused, bystander = a_sleeper(), a_sleeper(), a_sleeper()
    try:
        file = tmp_path / "runners.json"
        records = RunnerRecords(file)
        records.add(RunnerRecord(recorded.pid, started_at(recorded.pid) or "", "boot-1"))
        records.add(RunnerRecord(reused.pid, "12345", "boot-1"))  # that number was another process's
        assert RunnerRecords(file).sweep() == (recorded.pid,)
        assert recorded.wait(20) == -signal.SIGKILL
        assert reused.poll() is None
        assert bystander.poll() is None
    finally:
        for process in (recorded, reused, bystander):
            process.kill()
            process.wait()


def test_f27_a_sweep_ends_what_a_dead_runner_had_started(tmp_path: Path):
    program = (
        "import subprocess, sys; p = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(1000)']);"
        "print(p.pid, flush=True)"
    )
    leader = subprocess.Popen(
        [sys.executable, "-c", program],
        start_new_session=True,
        stdout=subprocess.PIPE,
        env=os.environ | {MARK: "boot-1"},
    )
    started = started_at(leader.pid) or ""
    assert leader.stdout is not None
    with leader.stdout:
        child = int(leader.stdout.readline())
    leader.wait(20)
    assert alive(child)
    records = RunnerRecords(tmp_path / "runners.json")
    records.add(RunnerRecord(leader.pid, started, "boot-1"))
    assert RunnerRecords(tmp_path / "runners.json").sweep() == (child,)
    wait_until_sync(lambda: not alive(child), what="its end")  # not its being reaped: some first processes never do


@pytest.mark.parametrize("content", ["", "{", '[{"pid": 1}]', "[1]"])
def test_a_damaged_record_of_runners_ends_nobody(tmp_path: Path, content: str):
    (tmp_path / "runners.json").write_text(content)
    assert RunnerRecords(tmp_path / "runners.json").sweep() == ()


# ---------------------------------------------------------------- the program itself


class Program:
    """``lcq-agent`` as a process of its own, with drills."""

    def __init__(self, tmp_path: Path, scheduler: SchedulerDouble, *options: str, is_forked: bool = True) -> None:
        self.scheduler = scheduler
        self.log = tmp_path / "agent.log"
        start = forked.Program if is_forked else subprocess.Popen
        command = [sys.executable, "-m", "worker.cli", "--scheduler", f"127.0.0.1:{scheduler.port}"]
        command += ["--name", "node-1", "--slots", "2", "--data-dir", str(tmp_path / "data"), *options]
        with self.log.open("ab") as log:
            self.process = start(
                command, env=os.environ | {"LCQ_DRILLS": "1", "LCQ_AGENT__DRAIN_S": "30"}, stdout=log, stderr=log
            )

    async def ended(self) -> int:
        return await wait_until(lambda: None if self.process.poll() is None else (self.process.returncode, True))

    def runners(self) -> list[int]:
        children = psutil.Process(self.process.pid).children()
        return [child.pid for child in children if "worker.runner" in child.cmdline()]


@pytest.fixture
async def program(request, tmp_path, scheduler) -> AsyncIterator[Program]:
    scheduler.beat_ms = SELDOM_MS
    program = Program(tmp_path, scheduler, is_forked=getattr(request, "param", True))
    try:
        await wait_until(lambda: any(step.want for step in scheduler.of(Step)), what="the program's first step")
        yield program
    finally:
        program.process.kill()
        program.process.wait()


def a_drill(model: str, **config: object) -> Task:
    return Task(task_type=TaskType.INPAINT, image_path="x.png", config={"model": model, **config})


async def begun(program: Program, scheduler: SchedulerDouble, task: Task) -> None:
    """Have ``task`` run there: a grant is not heard yet, and a slot that is asked for anew has begun it."""
    scheduler.give(task)
    await wait_until(lambda: scheduler.granted)
    heard = len(scheduler.of(Step))
    scheduler.order("wake")
    await wait_until(lambda: len(scheduler.of(Step)) > heard, what="its next step, which knows of the grant")


async def test_sigterm_lets_running_attempts_finish_and_takes_nothing_new(program: Program, scheduler):
    running, waiting = a_drill("drill-sleep", seconds=4.0), a_drill("drill-noop")
    await begun(program, scheduler, running)
    program.process.terminate()
    await wait_until(lambda: b"draining" in program.log.read_bytes())
    scheduler.give(waiting)
    assert await program.ended() == (0, True)
    assert scheduler.outcomes[running.id, 1].result is not None
    assert len(scheduler.granted) == 1
    assert scheduler.of(Bye)


async def test_a_second_sigterm_hands_back_at_once_what_runs(program: Program, scheduler):
    task = a_drill("drill-sleep", seconds=1000)
    await begun(program, scheduler, task)
    runners = program.runners()
    program.process.terminate()
    await wait_until(lambda: b"draining" in program.log.read_bytes())
    program.process.send_signal(signal.SIGINT)
    assert await program.ended() == (0, True)
    assert scheduler.outcomes[task.id, 1].handed_back
    assert scheduler.of(Bye)
    assert not any(alive(pid) for pid in runners)


async def test_f27_when_the_agent_is_killed_its_runners_die(program: Program, scheduler):
    scheduler.give(a_drill("drill-hang"))
    await wait_until(lambda: scheduler.granted)
    runners = await wait_until(lambda: pids if len(pids := program.runners()) == 2 else None)
    program.process.kill()
    program.process.wait()
    await wait_until(lambda: not any(alive(pid) for pid in runners), what="the runners' end")


async def test_an_agents_death_closes_its_lifeline(program: Program, scheduler):
    await wait_until(lambda: scheduler.lifelines and scheduler.lifelines[0])
    reader_ends = scheduler._line_writers[0]
    program.process.kill()
    program.process.wait()
    await wait_until(reader_ends.is_closing, what="the kernel closing the lifeline")
    assert not scheduler.lifelines[0].endswith(b"bye\n")


@pytest.mark.parametrize("program", [False], indirect=True, ids=["started"])
async def test_f29_the_agents_process_loads_no_engine(program: Program, scheduler):
    scheduler.give(a_drill("drill-noop"))
    await wait_until(lambda: scheduler.outcomes)
    maps = {region.path for region in psutil.Process(program.process.pid).memory_maps()}
    assert not [name for name in ("cv2", "libcuda", "libtorch", "_imaging") if any(name in path for path in maps)]


async def test_the_log_says_where_it_joined_and_what_it_serves(program: Program, scheduler):
    line = next(line for line in program.log.read_text().splitlines() if "joined" in line)
    for part in ("agent node-1", f"double-{scheduler.port}", scheduler.endpoint, "cpu-light with 2 slot(s)", "cv2-ns"):
        assert part in line


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--name", "no good"], "cannot be the name"),
        (["--models", "cv2-tela"], "did you mean 'cv2-telea'"),
        (["--scheduler", "host:port"], "not the address of a scheduler"),
        (["--config", "/no/such/file"], "cannot read the configuration"),
    ],
)
def test_what_cannot_be_started_says_why_in_one_line_and_exits_2(tmp_path: Path, options: list[str], words: str):
    run = forked.run(
        [sys.executable, "-m", "worker.cli", "--data-dir", str(tmp_path), *options],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert run.returncode == 2
    assert words in run.stderr
    assert len(run.stderr.splitlines()) == 1


def test_the_version_is_an_answer_on_stdout():
    run = subprocess.run(
        [sys.executable, "-m", "worker.cli", "--version"], capture_output=True, text=True, timeout=60, check=True
    )
    assert run.stdout.startswith("lcq-agent ")


def test_runner_records_are_plain_json(tmp_path: Path):
    records = RunnerRecords(tmp_path / "runners.json")
    records.add(RunnerRecord(4711, "123", "boot-1", "mark-1"))
    assert json.loads((tmp_path / "runners.json").read_text()) == [
        {"pid": 4711, "started": "123", "boot_id": "boot-1", "mark": "mark-1"}
    ]


def test_a_record_that_cannot_be_written_leaves_no_half_of_itself(tmp_path: Path):
    (tmp_path / "runners.json").mkdir()  # cannot be replaced by a file
    RunnerRecords(tmp_path / "runners.json").add(RunnerRecord(4711, "123", "boot-1", "mark-1"))
    assert [path.name for path in tmp_path.iterdir()] == ["runners.json"]

"""A slot: room for one attempt at a time, with a runner process that is watched, ended and started again."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import random
import signal
import socket
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import cast

from lcq import failpoints
from lcq.clock import steady_now
from lcq.config import LimitsConfig, RecycleConfig
from lcq.errors import ProtocolError
from lcq.ids import new_id
from lcq.models import DeviceKind, ErrorClass, Failure
from lcq.runner_config import FunctionConfig
from lcq.wire import Grant
from worker.attempt import Bringer, Brought, Ended, NotBrought, about_grant
from worker.calls import CallAddress, Instance
from worker.devices import SlotPlan
from worker.last_words import LastWords
from worker.processes import Kill, ProcessGroup, RunnerRecord, RunnerRecords
from worker.protocol import (
    Cancel,
    Cancelled,
    Done,
    Failed,
    Progress,
    Ready,
    Release,
    Run,
    Setup,
    Stop,
    Word,
    Words,
    pack_word,
)
from worker.warden import CANNOT_START, NOT_CONFINED
from worker.wear import Wear

_log = logging.getLogger(__name__)

RUNNER = (sys.executable, "-P", "-m", "worker.runner")
"""The runner's command; its warden adds ``--fd N --parent PID``."""

_START_S = 300.0  # a cold disk, a big engine library, and its test with every model
_LAST_WORDS_S = 0.5  # what a runner said just before it died may still be on the way
_KILL_S = 5.0  # a killed process that is not gone by then is stuck in the kernel
_STOP_S = 1.0
_FAULT_S = 10.0  # what a runner may still do on a device that seems to have failed: end well, or crash
_CANCEL_S = 1.0  # a runner that gives its attempt up by then keeps its warm models
_AGAIN_S = (0.2, 30.0)  # first and longest pause between starts that fail
_USELESS_S = (30.0, 600.0)  # the same for a runner that finds nothing it could do
_BROKEN_AFTER = 3  # failed starts in a row
_SETTLED_S = 10.0  # a runner that lived so long did start well


class SlotState(StrEnum):
    STARTING = "starting"
    FREE = "free"
    BUSY = "busy"
    BROKEN = "broken"  # its runner does not start; tried again from time to time
    UNKILLABLE = "unkillable"  # its runner was killed and is still there
    OUT = "out"  # nothing works on its device; looked at again from time to time, or when the device is back


@dataclass(frozen=True)
class Shown:
    """What the runner of a slot says that it can do; ``tested``: after its self-test.

    ``ready`` is None where the slot has no runner, nor is about to have one: ``why``.
    """

    slot: str
    device: str
    ready: Ready | None
    tested: bool = False
    why: str = ""


@dataclass(frozen=True)
class PoolSettings:
    """What all slots have in common. ``self_test``: the first runner of a device tests it."""

    boot_id: str
    no_progress_s: float
    limits: LimitsConfig
    records: RunnerRecords
    self_test: bool = False
    recycle: RecycleConfig = field(default_factory=RecycleConfig)
    command: Sequence[str] = RUNNER
    kill: Kill = os.killpg
    on_spawn: Callable[[], None] = lambda: None  # a runner was started
    on_line: Callable[[str, Grant | None, str], None] | None = None  # slot, its grant, a line that its runner wrote
    on_output: Callable[[str, Grant, bytes], None] | None = None  # the same as it comes, while there is a grant
    on_answered: Callable[[str, Instance], None] = lambda device, instance: None  # of the function that it is
    bringer: Bringer | None = None
    opener: Callable[[Grant, FunctionConfig], Awaitable[CallAddress | None]] | None = None  # of functions
    loose: set[str] = field(default_factory=set)  # what was told already of what runners could not be kept from


class _Sign(StrEnum):
    """What a slot hears that is not a runner's word."""

    EXITED = "exited"  # the process is gone
    CLOSED = "closed"  # nothing more will come from it
    GIVEN = "given"  # there is a grant to begin
    BROUGHT = "brought"  # its files are here, or cannot be had
    STOP = "stop"  # the attempt is to end: it is no longer ours
    HAND_BACK = "hand back"  # the attempt is to end, and to run elsewhere
    HELD = "held"  # the device has failed
    RENEW = "renew"  # another runner is to take this one's place


class _Line(asyncio.Protocol):
    """The agent's end of a runner's socket: turns its bytes into words in the slot's inbox."""

    def __init__(self, inbox: asyncio.Queue[Word | _Sign]) -> None:
        self._inbox = inbox
        self._words = Words()
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        try:
            for word in self._words.feed(data):
                self._inbox.put_nowait(word)
        except ProtocolError as error:
            _log.error("a runner speaks nonsense: %s", error)
            self.close()

    def connection_lost(self, error: Exception | None) -> None:
        self._inbox.put_nowait(_Sign.CLOSED)

    def say(self, word: Word) -> None:
        if self._transport is not None:
            self._transport.write(pack_word(word))

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()


@dataclass(frozen=True)
class _Runner:
    """A living runner: its process, its line, and what it has said."""

    process: ProcessGroup
    line: _Line
    inbox: asyncio.Queue[Word | _Sign]
    words: LastWords


class RunnerDied(Exception):
    """A runner ended, or closed its line, without having been told to; says how."""


class _DeviceFailed(Exception):
    """The runner's device is no good at the moment."""


class _Renewed(Exception):
    """Another runner is to take this one's place."""


class _Useless(Exception):
    """The runner has nothing that it could do on its device."""


class Slot:
    """Room for one attempt: keeps a runner there, and hands it one grant after the other."""

    def __init__(
        self,
        plan: SlotPlan,
        settings: PoolSettings,
        *,
        on_ended: Callable[[Ended], Awaitable[None]],
        on_change: Callable[[SlotState], None],
        on_shown: Callable[[Shown], None],
    ) -> None:
        self.plan = plan
        self.state = SlotState.STARTING
        self.grant: Grant | None = None
        self.progress = 0.0
        self.stage = ""
        self.warm: tuple[str, ...] = ()
        self.held_mib = 0  # of the device's memory, by loaded models
        self.pid: int | None = None  # of the living runner's process group
        self.is_retiring = False
        self.settings = settings
        self._on_ended = on_ended
        self._on_change = on_change
        self._on_shown = on_shown
        self._inbox: asyncio.Queue[Word | _Sign] = asyncio.Queue()
        self._line: _Line | None = None
        self._process: ProcessGroup | None = None
        self._wear = Wear(settings.recycle)
        self._worn = ""  # why the runner is not to do another attempt
        self._peak_mib = 0  # of the attempt that is here, as far as it was looked at
        self._failed_starts = 0
        self._useless = 0  # runners in a row that had nothing to do
        self._tests = settings.self_test and plan.is_first  # whether the next runner tests the device
        self._fault = ""
        self._again = asyncio.Event()

    # ------------------------------------------------------------ what the pool asks of it

    def start(self, grant: Grant) -> None:
        """Begin ``grant``; only where the state is FREE."""
        self.grant = grant
        self.progress, self.stage = 0.0, ""
        self._peak_mib = 0
        self._to(SlotState.BUSY)
        self._inbox.put_nowait(_Sign.GIVEN)

    def stop(self, *, hand_back: bool) -> None:
        """End the attempt that is here."""
        self._inbox.put_nowait(_Sign.HAND_BACK if hand_back else _Sign.STOP)

    def release(self) -> None:
        """Have the runner free what its models hold: now, or after what it does now."""
        if self._line is not None and self.state in (SlotState.FREE, SlotState.BUSY):
            self._line.say(Release())

    def look(self) -> None:
        """See how much memory the attempt holds: what is killed cannot be asked any more."""
        if self.grant is not None and self._process is not None:
            self._peak_mib = max(self._peak_mib, self._process.rss_mib())

    def hold(self, why: str) -> None:
        """The device has failed: start no attempt and no runner until ``resume()``.

        An attempt that does not come to its end soon is ended as a crash.
        """
        self._fault = why
        self._test_again()
        self._inbox.put_nowait(_Sign.HELD)

    def resume(self) -> None:
        """The device is good again."""
        self._fault = ""
        self._again.set()

    def renew(self) -> bool:
        """Replace the runner, after its attempt; the next one tests the device. Answers False where that has failed."""
        if self._fault:
            return False
        self._tests = self.plan.is_first
        self._failed_starts = 0
        self._inbox.put_nowait(_Sign.RENEW)
        self._again.set()  # where there is none at the moment, one is started now
        return True

    def refit(self, plan: SlotPlan) -> None:
        """Stand on ``plan`` from now on; a runner that was told of other threads, weights or IOPaint is replaced, after
        its attempt."""
        told, now = self.plan.settings, plan.settings
        is_other = (told.threads, told.models, told.iopaint) != (now.threads, now.models, now.iopaint)
        self.plan = plan
        if is_other and not self._fault:
            self._inbox.put_nowait(_Sign.RENEW)

    def retire(self) -> None:
        """Be no more, after the attempt that is here."""
        self.is_retiring = True
        self._inbox.put_nowait(_Sign.RENEW)
        self._again.set()

    def _to(self, state: SlotState) -> None:
        if state is not self.state:
            self.state = state
            self._on_change(state)

    # ------------------------------------------------------------ its life

    async def live(self, group: asyncio.TaskGroup) -> None:
        """Keep a runner and let it work, until cancelled or retired; then the runner is gone too."""
        loop = asyncio.get_running_loop()
        while not self.is_retiring:
            if self._fault:
                self._to(SlotState.OUT)
                await self._pause(None)
                continue
            began = loop.time()
            try:
                await self._one_runner(group)
            except (_DeviceFailed, _Renewed):
                continue
            except _Useless:
                await self._wait_for_better()
            except OSError as error:
                await self._back_off(RunnerDied(f"cannot be started: {error}"))
            except RunnerDied as end:
                if loop.time() - began >= _SETTLED_S:
                    self._failed_starts = 0
                self._test_again()
                await self._back_off(end)

    async def _one_runner(self, group: asyncio.TaskGroup) -> None:
        """One runner from its start to its end. Returns when another one is to take its place.

        Raises:
            OSError: it cannot be started.
            RunnerDied: it did not get ready, or did not stay.
            _DeviceFailed: it was ended, because of its device.
            _Renewed: another one is wanted.
            _Useless: it found nothing to do.
        """
        self._inbox = asyncio.Queue()
        runner = await self._spawn()
        self.pid, self._line, self._process = runner.process.pid, runner.line, runner.process
        self._wear, self._worn = Wear(self.settings.recycle), ""
        watch: asyncio.Task[None] | None = None
        try:
            watch = group.create_task(self._watch(runner), name=f"watch of runner {self.plan.name}")
            await self._until_ready(runner)
            usable = True
            while usable:
                self._to(SlotState.FREE)
                await self._until_given(runner)
                usable = await self._attempt(runner)
                self._failed_starts = 0
        except (RunnerDied, _DeviceFailed):
            if not await self._end(runner):
                await self._outlive(runner)
            raise
        finally:
            self.pid, self._line, self._process, self.warm, self.held_mib = None, None, None, (), 0
            await self._end(runner, politely=self.grant is None)  # at once where it has ended already
            if watch is not None:
                watch.cancel()
            runner.line.close()
            runner.words.close()

    async def _spawn(self) -> _Runner:
        inbox = self._inbox
        ours, its = socket.socketpair()
        with its:
            try:
                ours.setblocking(False)
                _, line = await asyncio.get_running_loop().create_connection(lambda: _Line(inbox), sock=ours)
            except BaseException:
                ours.close()
                raise
            # Nothing is awaited from here on: a process that has begun is always seen to its end.
            mark = new_id()
            words = LastWords(self._note_line, on_data=self._note_output)
            try:
                process = ProcessGroup.start(
                    self.settings.command,
                    environment=self.plan.environment,
                    mark=mark,
                    line=its,
                    output=words.writer,
                    kill=self.settings.kill,
                    terms=self.plan.terms,
                )
            except OSError:
                line.close()
                words.close()
                raise
            words.started()
        self.settings.on_spawn()
        self.settings.records.add(RunnerRecord(process.pid, process.started, self.settings.boot_id, mark))
        return _Runner(process, line, inbox, words)

    def _note_line(self, line: str) -> None:
        """Take in a line that the runner wrote, whatever it was doing."""
        if self.settings.on_line is not None:
            self.settings.on_line(self.plan.name, self.grant, line)

    def _note_output(self, data: bytes) -> None:
        if self.settings.on_output is not None and self.grant is not None:
            self.settings.on_output(self.plan.name, self.grant, data)

    async def _watch(self, runner: _Runner) -> None:
        code = await runner.process.exited()
        _log.debug("runner %s (%d) %s", self.plan.name, runner.process.pid, _told(code))
        runner.inbox.put_nowait(_Sign.EXITED)

    async def _until_ready(self, runner: _Runner) -> None:
        tests = self._tests
        runner.line.say(Setup(settings=self.plan.settings, self_test=tests))
        try:
            async with asyncio.timeout(_START_S):
                word = await runner.inbox.get()
        except TimeoutError:
            self._failed_starts = max(self._failed_starts, _BROKEN_AFTER - 1)  # it has had time enough for three
            raise RunnerDied(f"is not ready after {_START_S:g} s") from None
        match word:
            case Ready():
                self._take_in(word, tested=tests)
            case _Sign.HELD:
                raise _DeviceFailed
            case _Sign.RENEW:
                raise _Renewed
            case _:
                raise await self._death(runner)
        if not word.offers:
            raise _Useless
        self._tests = False
        self._useless = 0

    def _take_in(self, word: Ready | Done | Failed | Cancelled, *, tested: bool = False) -> None:
        self.warm, self.held_mib = word.warm, word.held_mib
        if not isinstance(word, Ready):
            on_device = self.held_mib if self.plan.settings.device.kind is DeviceKind.GPU else 0
            self._worn = self._wear.note(word.warm, word.rss_mib + on_device)
            for instance in word.answered if not self.is_retiring else ():  # perhaps of another address by now
                self.settings.on_answered(self.plan.device, instance)
        else:
            if word.loose and word.loose not in self.settings.loose:
                self.settings.loose.add(word.loose)
                _log.info("runners here are not kept from all that they could be: %s (docs/security.md)", word.loose)
            self._show(word, tested=tested)

    def _show(self, ready: Ready | None, *, tested: bool = False, why: str = "") -> None:
        if not self.is_retiring:  # another may stand in its place by now
            self._on_shown(Shown(self.plan.name, self.plan.device, ready, tested=tested, why=why))

    async def _until_given(self, runner: _Runner) -> None:
        while True:
            match await runner.inbox.get():
                case _Sign.GIVEN:
                    return
                case Ready() as ready:
                    self._take_in(ready)
                case _Sign.EXITED | _Sign.CLOSED:
                    await self._begin_no_more()
                    raise await self._death(runner)
                case _Sign.HELD:
                    await self._begin_no_more()
                    raise _DeviceFailed
                case _Sign.RENEW:
                    await self._begin_no_more()
                    raise _Renewed
                case _:
                    continue  # a stop for an attempt that has just ended

    async def _begin_no_more(self) -> None:
        """Take no grant; hand back one whose runner was gone before it could begin: not the task's fault."""
        self._to(SlotState.STARTING)
        if self.grant is not None:
            await self._on_ended(Ended.not_begun(self.grant))
            self.grant = None

    def _test_again(self) -> None:
        """Believe a GPU only after a test: what brought its runner down may be its own fault."""
        if self.settings.self_test and self.plan.settings.device.kind is DeviceKind.GPU:
            self._tests = True

    async def _death(self, runner: _Runner) -> RunnerDied:
        """How a runner ended that is dead, or about to be."""
        try:
            async with asyncio.timeout(_LAST_WORDS_S):
                return RunnerDied(_told(await runner.process.exited()))
        except TimeoutError:
            return RunnerDied("closed its line")

    async def _back_off(self, end: RunnerDied) -> None:
        self._failed_starts += 1
        longest = _AGAIN_S[1]
        pause_s = min(longest, _AGAIN_S[0] * 2 ** min(self._failed_starts, 20)) * random.uniform(0.75, 1.25)
        if self._failed_starts < _BROKEN_AFTER:
            _log.warning("runner %s %s; starting another in %.1f s", self.plan.name, end, pause_s)
            self._to(SlotState.STARTING)
        else:
            if self._failed_starts == _BROKEN_AFTER:
                _log.error(
                    "slot %s is broken: its runner %s (what it wrote stands above; tried again, at least every %g s)",
                    self.plan.name,
                    end,
                    longest,
                )
            self._to(SlotState.BROKEN)
            self._show(None, why=f"its runner {end}")
        await self._pause(pause_s)

    async def _wait_for_better(self) -> None:
        """Start no other runner for a while: this one has just said that nothing here can be used."""
        self._to(SlotState.OUT)
        first, longest = _USELESS_S
        pause_s = min(longest, first * 2 ** min(self._useless, 20)) * random.uniform(0.75, 1.25)
        self._useless += 1
        await self._pause(pause_s)

    async def _pause(self, pause_s: float | None) -> None:
        """Wait; less, where the device is said to be good again meanwhile, or the slot is to be no more."""
        if self.is_retiring:
            return
        self._again.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(pause_s):
                await self._again.wait()

    # ------------------------------------------------------------ one attempt

    async def _attempt(self, runner: _Runner) -> bool:
        """Let the runner do the grant that is here. Answers whether the runner can do another."""
        grant = self.grant
        assert grant is not None  # noqa: S101 - by _until_given
        with about_grant(grant, slot=self.plan.name):
            return await self._do(runner, grant)

    async def _do(self, runner: _Runner, grant: Grant) -> bool:
        parts: list[tuple[str, int, int]] = []
        began_ns = time.time_ns()
        brought = await self._brought(runner, grant)
        ran_ns = time.time_ns()
        if self.settings.bringer is not None and self.settings.bringer.is_needed(grant.task):
            parts.append(("fetch", began_ns, ran_ns))
        if isinstance(brought, Brought):
            call = await self._opened(grant)
            await failpoints.reach("agent.tell")
            runner.words.begin()
            runner.line.say(
                Run(
                    task=brought.task,
                    attempt=grant.attempt,
                    limits=self.settings.limits,
                    eased=grant.eased,
                    also=brought.also,
                    call=call,
                )
            )
            await failpoints.passed("agent.tell")
            ended, usable = await self._until_ended(runner, grant)
            parts.append(("run", ran_ns, time.time_ns()))
        else:
            ended, usable = brought
        if ended.failure is not None and ended.failure.error_class is ErrorClass.CRASH:
            self._test_again()
        gone = usable or await self._end(runner)
        if ended.result is not None or ended.failure is not None:
            killed_mib = 0 if usable else runner.process.peak_mib
            ended = replace(ended, peak_mib=max(ended.peak_mib, self._peak_mib, killed_mib))
        if ended.failure is not None and ended.failure.error_class is not ErrorClass.BAD_INPUT:
            ended = replace(ended, log=runner.words.tail())
        runner.words.settle()
        await self._on_ended(replace(ended, parts=tuple(parts)))
        self.grant = None
        if not gone:
            await self._outlive(runner)
        if usable and self._worn:
            _log.info("runner %s %s: another one takes its place", self.plan.name, self._worn)
            usable = False
        if not usable:
            self._to(SlotState.STARTING)
        return usable

    async def _opened(self, grant: Grant) -> CallAddress | None:
        """By which the runner has addresses lent at the scheduler, where its device may have use for some."""
        function = self.plan.settings.function
        if self.settings.opener is None or function is None or not function.may_be_lent:
            return None
        return await self.settings.opener(grant, function)

    async def _brought(self, runner: _Runner, grant: Grant) -> Brought | tuple[Ended, bool]:
        """The task with all its files here; or how the attempt has ended before it began, and whether the runner is
        any good after it."""
        bringer = self.settings.bringer
        if bringer is None or not bringer.is_needed(grant.task):
            return Brought(grant.task)
        self.stage = "fetch"
        inbox = runner.inbox
        bringing = asyncio.ensure_future(bringer.bring(grant))
        bringing.add_done_callback(lambda _: inbox.put_nowait(_Sign.BROUGHT))
        try:
            while True:
                match await inbox.get():
                    case _Sign.BROUGHT if bringing.cancelled():  # somebody else has given it up
                        return Ended.not_begun(grant), True
                    case _Sign.BROUGHT if bringing.done():
                        return bringing.result()
                    case _Sign.STOP | _Sign.HAND_BACK as why:
                        return (Ended.not_begun(grant) if why is _Sign.HAND_BACK else Ended(grant)), True
                    case _Sign.EXITED | _Sign.CLOSED | _Sign.HELD | _Sign.RENEW:  # the attempt has not begun
                        return Ended.not_begun(grant), False
                    case Ready() as ready:
                        self._take_in(ready)
        except NotBrought as refusal:
            return Ended(grant, failure=refusal.failure), True
        finally:
            bringing.cancel()

    async def _until_ended(self, runner: _Runner, grant: Grant) -> tuple[Ended, bool]:
        """How the attempt ended, and whether the runner is any good after it."""
        loop = asyncio.get_running_loop()
        timeout_s, quiet_s = grant.task.timeout_s, self.settings.no_progress_s
        wall = loop.time() + timeout_s
        quiet = loop.time() + quiet_s
        began = steady_now()
        last_words = fault = float("inf")
        stopped: Ended | None = None  # how it is to end, once it was told to stop
        is_sound = True  # as far as its device is
        while True:
            try:
                async with asyncio.timeout_at(min(wall, quiet, last_words, fault)):
                    word = await runner.inbox.get()
            except TimeoutError:
                now = loop.time()
                if stopped is not None:
                    return stopped, False
                if now >= fault and not self._fault:  # the device came back in time
                    fault = float("inf")
                    continue
                if now >= fault:
                    return _crashed(grant, "device_failed", f"{grant.device}: {self._fault}"), False
                if now >= last_words:
                    return _crashed(grant, "runner_died", f"its runner {await self._death(runner)}"), False
                if now >= wall:
                    took = f"took longer than {timeout_s:g} s (timeout_s; a smaller image takes less)"
                    return _crashed(grant, "timed_out", took), False
                return _crashed(grant, "no_progress", f"its runner reported no progress for {quiet_s:g} s"), False
            match word:
                case Progress(fraction=fraction, stage=stage):
                    self.progress, self.stage = fraction, stage
                    if stopped is None:
                        quiet = loop.time() + quiet_s
                case Done() as done:  # also in time for a hand-back; a cancelled one is nobody's any more
                    self._take_in(done)
                    ended = Ended(
                        grant,
                        result=done.result,
                        staged=done.staged,
                        found=done.found,
                        peak_mib=done.peak_mib,
                        device_peak_mib=done.device_peak_mib,
                        stages=done.stages,
                    )
                    return (ended if stopped is None or stopped.handed_back else stopped), is_sound
                case Failed() as failed:
                    self._take_in(failed)
                    ended = Ended(
                        grant,
                        failure=failed.failure,
                        again_s=failed.again_s,
                        cost=failed.cost,
                        peak_mib=failed.peak_mib,
                        device_peak_mib=failed.device_peak_mib,
                        stages=failed.stages,
                    )
                    usable = is_sound and failed.failure.error_class not in (ErrorClass.CRASH, ErrorClass.RESOURCE)
                    return (ended if stopped is None or stopped.handed_back else stopped), usable
                case Cancelled() as cancelled:
                    self._take_in(cancelled)
                    gave_up = _crashed(grant, "engine_error", "its runner gave it up without having been told to")
                    # What it started, and left running, ends with the attempt: so the runner has to end too.
                    is_clean = is_sound and stopped is not None and not runner.process.has_begun_since(began)
                    return stopped or gave_up, is_clean
                case Ready() as ready:  # it was to free its memory, just before this attempt
                    self._take_in(ready)
                case _Sign.STOP | _Sign.HAND_BACK as why:
                    if stopped is None:
                        runner.line.say(Cancel())
                        quiet = loop.time() + _CANCEL_S
                    stopped = Ended(grant, handed_back=why is _Sign.HAND_BACK)
                case _Sign.RENEW:
                    is_sound = False
                case _Sign.HELD:
                    is_sound = False
                    fault = loop.time() + _FAULT_S
                case _Sign.CLOSED:  # nothing can come any more
                    died = f"its runner {await self._death(runner)}"
                    return stopped or _crashed(grant, "runner_died", died), False
                case _Sign.EXITED:  # its last words may still be on the way
                    last_words = min(last_words, loop.time() + _LAST_WORDS_S)

    # ------------------------------------------------------------ its end

    async def _end(self, runner: _Runner, *, politely: bool = False) -> bool:
        """End the runner and all it started. Answers whether they are gone; they are not if the kill did not kill."""
        if politely:
            runner.line.say(Stop())
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_STOP_S):
                    await runner.process.exited()
        try:
            async with asyncio.timeout(_KILL_S):
                await runner.process.gone()
        except TimeoutError:
            return False
        self.settings.records.remove(runner.process.pid)
        return True

    async def _outlive(self, runner: _Runner) -> None:
        """Leave the slot unused until its killed runner is really gone."""
        _log.error(
            "slot %s is unkillable: runner %d was killed and is still there (a stuck device or disk?); the other slots "
            "go on, this one comes back by itself once the process is gone",
            self.plan.name,
            runner.process.pid,
        )
        self._to(SlotState.UNKILLABLE)
        while not await self._end(runner):
            continue
        _log.warning("slot %s: runner %d is gone at last", self.plan.name, runner.process.pid)


def _crashed(grant: Grant, code: str, message: str) -> Ended:
    return Ended(grant, failure=Failure(error_class=ErrorClass.CRASH, code=code, message=message))


def _told(code: int) -> str:
    """An exit code, in words that follow "its runner"."""
    if code == NOT_CONFINED:
        return "cannot be kept from what agent.runner says (agent.runner.strict: false lets it work all the same)"
    if code == CANNOT_START:
        return "cannot be started"
    if code >= 0:
        return f"exited with code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    more = " (out of memory? the kernel's log knows)" if name == "SIGKILL" else ""
    return f"was killed by {name}{more}"

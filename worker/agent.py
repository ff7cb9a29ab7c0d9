"""The agent: one compute host's voice. Asks for work, hands it to runners, reports what came of it, beats.

It never touches Redis and never loads an engine. Whatever it is told twice it does once; whatever it is
granted it does, or hands back.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Self

import psutil
import zmq.asyncio

from lcq.client import find_scheduler
from lcq.config import DistributedConfig
from lcq.errors import InvalidConfig, LcqError, SchedulerUnreachable, StaleBoot, VersionMismatch
from lcq.ids import new_id
from lcq.models import NodeStatus
from lcq.wire import (
    Beat,
    BeatAnswer,
    Bye,
    Grant,
    Hello,
    HelloAnswer,
    Order,
    Outcome,
    Reply,
    Running,
    Step,
    StepAnswer,
)
from worker.bells import Bells
from worker.devices import offered_capability, plan_slots
from worker.home import agent_home
from worker.lifeline import Lifeline
from worker.line import ControlLine
from worker.outcomes import Outcomes, discard_staged
from worker.pool import RUNNER, Ended, Key, PoolSettings, RunnerPool, SlotState, key_of
from worker.processes import Kill

_log = logging.getLogger(__name__)

_FLOOR_S = (2.0, 5.0)  # the poll under the bells, jittered
_HELLO_S = 3.0  # how long one scheduler may take to answer hello before another is tried
_AGAIN_S = (0.5, 5.0)  # first and longest pause after a refusal, such as Redis being away
_OTHER_VERSION_S = 10.0
_LAST_WORDS_S = 5.0  # how long a leaving agent waits for the verdicts on what it reported
_BYE_S = 2.0
_REMEMBERED = 10_000  # grants, so that a second copy of an answer starts nothing
_TAKES_NOTHING = frozenset({NodeStatus.DRAINING, NodeStatus.QUARANTINED})


class Agent:
    """One node. ``async with Agent(config) as agent: await agent.run()``; ``request_stop()`` ends it.

    Raises on entering:
        LcqError: the name is taken, a model is unknown, the data folder cannot be used.
    """

    def __init__(
        self,
        config: DistributedConfig,
        *,
        scheduler: str | None = None,
        runner: Sequence[str] = RUNNER,
        kill: Kill = os.killpg,
    ) -> None:
        """``scheduler``: "HOST:PORT"; default: the cluster of this user, or the configured address.

        ``runner`` is the command of a runner; ``kill`` is what ends its process group.
        """
        self._config = config
        self._scheduler = scheduler
        self._runner = runner
        self._kill = kill
        self.boot_id = new_id()
        self._stack = AsyncExitStack()
        self._stop = asyncio.Event()
        self._hurry = asyncio.Event()
        self._joined = asyncio.Event()
        self._step_due = asyncio.Event()
        self._stirred = asyncio.Event()  # something has changed that a leaving agent may wait for
        self._fatal: LcqError | None = None
        self._status = NodeStatus.ONLINE
        self._greeting: HelloAnswer | None = None
        self._schedulers: tuple[str, ...] = ()
        self._leases: dict[Key, float] = {}  # attempt -> until when it is surely ours, by our monotonic clock
        self._granted: OrderedDict[Key, None] = OrderedDict()
        self._steps: deque[str] = deque(maxlen=256)  # ids of the steps that were asked
        self._stepping = False
        self._unfilled = False

    # ------------------------------------------------------------ its life

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            home = stack.enter_context(agent_home(self._config.data_path, self._config.agent.name))
            self.node_id = home.node_id
            self._capability = offered_capability(self._config.agent)
            find_scheduler(self._config, self._scheduler)  # a wrong address is told at once
            records = home.records
            records.sweep()
            self._outcomes = Outcomes(home.spool, self.boot_id)
            recalled = self._outcomes.recall()
            if recalled:
                _log.info("agent %s: %d outcomes of an earlier run wait to be reported", self.node_id, recalled)
            self._lifeline = Lifeline(self.node_id, self.boot_id)
            context = zmq.asyncio.Context()
            stack.callback(context.term)
            identity = f"{self.node_id}/{self.boot_id}".encode()
            self._line = await stack.enter_async_context(
                ControlLine(context, identity, on_order=self._obey, on_late=self._hear_late)
            )
            self._bells = await stack.enter_async_context(Bells(context, on_ring=self._step_due.set))
            self._pool = RunnerPool(
                plan_slots(self._capability),
                PoolSettings(
                    boot_id=self.boot_id,
                    no_progress_s=self._config.agent.no_progress_s,
                    limits=self._config.limits,
                    records=records,
                    command=self._runner,
                    kill=self._kill,
                ),
                on_ended=self._conclude,
                on_change=self._slot_changed,
            )
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    async def run(self) -> None:
        """Work until ``request_stop()``, then leave in order; when this returns, no runner lives.

        Raises:
            StaleBoot: another agent has taken this node's name.
        """
        async with asyncio.TaskGroup() as group, self._pool:
            lives = [
                group.create_task(life, name=name)
                for name, life in (
                    ("control line", self._line.listen()),
                    ("bells", self._bells.listen()),
                    ("lifeline", self._lifeline.hold()),
                    ("joined", self._stay_joined()),
                    ("steps", self._take_steps()),
                    ("spool", self._outcomes.keep_old_ones()),
                )
            ]
            try:
                await self._stop.wait()
                if self._fatal is None:
                    await self._leave()
            finally:
                await self._outcomes.keep()
                for life in lives:
                    life.cancel()
        if self._fatal is not None:
            raise self._fatal

    def request_stop(self, *, at_once: bool = False) -> None:
        """Let ``run()`` drain and return. ``at_once``: hand back what runs, without waiting for it."""
        self._stop.set()
        if at_once:
            self._hurry.set()
        self._stir()

    def _stir(self) -> None:
        self._stirred.set()

    async def _until(self, condition: Callable[[], bool], *, patience_s: float) -> bool:
        """Wait until ``condition`` holds, looking whenever something has changed; False if it did not in time."""
        try:
            async with asyncio.timeout(patience_s):
                while not condition():
                    self._stirred.clear()
                    await self._stirred.wait()
        except TimeoutError:
            return False
        return True

    async def _leave(self) -> None:
        """Take nothing new, finish until the deadline, give the rest back, say goodbye."""
        self._tune_bells()
        running = len(self._pool.running())
        drain_s = self._config.agent.drain_s
        if running and not self._hurry.is_set():
            _log.info("agent %s: draining, %d attempts may go on for %g s", self.node_id, running, drain_s)
        await self._until(lambda: not self._pool.running() or self._hurry.is_set(), patience_s=drain_s)
        left = self._pool.running()
        if left:
            _log.info("agent %s: handing back %d attempts", self.node_id, len(left))
            for attempt in left:
                self._pool.stop((attempt.task_id, attempt.attempt), hand_back=True)
            await self._until(lambda: not self._pool.running(), patience_s=_LAST_WORDS_S + 1)
        if self._joined.is_set():
            self._step_due.set()
            told = await self._until(
                lambda: not self._outcomes and not self._stepping or not self._joined.is_set(), patience_s=_LAST_WORDS_S
            )
            if told and self._joined.is_set():
                await self._say_bye()
        if self._outcomes:
            _log.warning("agent %s: %d outcomes wait in the spool for its next start", self.node_id, len(self._outcomes))

    async def _say_bye(self) -> None:
        try:
            await self._line.ask(Bye(node_id=self.node_id, boot_id=self.boot_id), patience_s=_BYE_S)
        except LcqError as error:
            _log.info("agent %s: left without a goodbye: %s", self.node_id, error)
            return  # our end will look like a death, and what we still hold is run elsewhere at once
        await self._lifeline.bye()
        _log.info("agent %s: left in order", self.node_id)

    # ------------------------------------------------------------ joining, beating

    async def _stay_joined(self) -> None:
        """Be registered with a scheduler that answers: the one we have, else the next."""
        while True:
            try:
                greeting = await self._join()
            except StaleBoot as replaced:
                self._give_up(replaced)
                return
            self._greeting = greeting
            self._welcome(greeting)
            try:
                await self._beat(greeting)
            finally:
                self._joined.clear()
                self._stir()

    def _give_up(self, error: LcqError) -> None:
        self._fatal = error
        self._stop.set()

    def _endpoints(self) -> Iterator[str]:
        """Where to say hello: where we were, at every scheduler we have been told of, and where we began."""
        seen = set()
        configured = find_scheduler(self._config, self._scheduler)
        for endpoint in (self._line.endpoint or configured, *self._schedulers, configured):
            if endpoint not in seen:
                seen.add(endpoint)
                yield endpoint

    async def _join(self) -> HelloAnswer:
        """Say hello until somebody answers.

        Raises:
            StaleBoot: a newer agent has this node's name.
        """
        warned = ""
        while True:
            for endpoint in self._endpoints():
                self._line.connect(endpoint)
                pause_s = 0.0
                try:
                    await self._report_earlier()
                    hello = Hello(node_id=self.node_id, boot_id=self.boot_id, capability=self._capability)
                    greeting = await self._line.ask(hello, patience_s=_HELLO_S * random.uniform(0.75, 1.25))
                except StaleBoot:
                    raise
                except SchedulerUnreachable as silence:
                    error: LcqError = SchedulerUnreachable(endpoint, _HELLO_S)
                    del silence
                except LcqError as refusal:
                    error = refusal
                    pause_s = _OTHER_VERSION_S if isinstance(refusal, VersionMismatch) else _AGAIN_S[1]
                else:
                    if warned:
                        _log.info("agent %s: scheduler answers again", self.node_id)
                    return greeting
                if str(error) != warned:
                    warned = str(error)
                    _log.warning("agent %s: %s; goes on and joins by itself", self.node_id, error)
                await asyncio.sleep(pause_s * random.uniform(0.75, 1.25))

"""The agent: one compute host's voice. Asks for work, hands it to runners, reports what came of it, beats.

It never touches Redis and never loads an engine. Whatever it is told twice it does once; whatever it is
granted it does, or hands back.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import os
import random
import secrets
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from types import TracebackType
from typing import Self

import zmq

from lcq import __version__, failpoints, tracing
from lcq.agreement import EVERYWHERE, OF_AGENTS, Agreed
from lcq.client.addresses import find_schedulers
from lcq.clock import steady_now
from lcq.config import ConfigManager, DistributedConfig
from lcq.errors import InvalidConfig, LcqError, NodeNameTaken, StaleBoot, UnknownCommand, UnknownModel
from lcq.gpus import Gpus
from lcq.hardware import Detected, detect_devices, usable_cores
from lcq.health import DEPENDENCY_DOWN
from lcq.ids import new_id
from lcq.keyring import agent_file, credential_for, nodes_with_keys
from lcq.log import about, set_log_level
from lcq.metrics.exposition import Sheet, put_reading
from lcq.metrics.instruments import watch_lag
from lcq.models import DeviceKind, DeviceReading, ErrorClass, Failure, NodeCapability, NodeStatus, RestCode
from lcq.reload import ConfigFollower, Role
from lcq.roots import Roots
from lcq.runner_config import FunctionConfig
from lcq.wire import (
    Beat,
    BeatAnswer,
    Bye,
    Grant,
    Hello,
    HelloAnswer,
    OpenCall,
    Order,
    Orders,
    Outcome,
    Probed,
    Reply,
    Retake,
    Running,
    Step,
    StepAnswer,
    Want,
)
from worker.attempt import Ended, Key, about_grant, key_of
from worker.attempt_trace import tell_attempt
from worker.bells import Bells
from worker.breaker import Breakers, answers
from worker.calls import CallAddress
from worker.confinement import environment_for, make_device_files, open_way, runner_user, terms_of
from worker.devices import gpu_need_mib, plan_slots
from worker.disks import Disks
from worker.endpoint_keeper import EndpointKeeper, as_silence
from worker.functions_named import NamedFunctions
from worker.hand import Hand
from worker.health import HealthFile
from worker.home import NamedByKey, agent_home
from worker.instances import Instances
from worker.leases import Leases
from worker.leftovers import Leftovers
from worker.lifeline import Lifeline
from worker.line import ControlLine
from worker.log_teller import TELL_S, LogTeller
from worker.logbook import Logbook
from worker.membership import Membership
from worker.metrics import AgentMeasures, metrics_port
from worker.outcomes import Outcomes, Right, discard_staged, result_folder
from worker.pool import RunnerPool
from worker.porter import Porter
from worker.processes import Kill
from worker.readings import finite, host_telemetry
from worker.rests import Rest
from worker.retest import Retest
from worker.runner_log import RunnerLog
from worker.seeker import Seeker
from worker.service import Service
from worker.sights import SightTeller
from worker.skew import Skew
from worker.slot import RUNNER, PoolSettings, Shown, SlotState
from worker.task_logs import TaskLogs
from worker.thumbnails import PATIENCE_S, Thumbnails
from worker.waker import Look, Waker

_log = logging.getLogger(__name__)

_POLL_JITTER = (0.7, 1.5)
_EARLIER_S = 3.0  # how long the outcomes of an earlier run may take before the hello is said all the same
_AGAIN_S = (0.5, 5.0)  # first and longest pause after a refusal, such as Redis being away
_LAST_WORDS_S = 5.0  # how long a leaving agent waits for the verdicts on what it reported
_BYE_S = 2.0
_LEAVE_S = 2 * (_LAST_WORDS_S + 2) + _BYE_S + 15.0  # beside the drain: what comes after it, and the end of runners
_STORE_S = 30.0
_LOOK_TICK_S = 0.2  # how soon a stop is seen while it is found out whether a function is there
_OPEN_S = 5.0  # how long the address of a function's call may take
_LONGEST_CALL_S, _CALL_GRACE_S = 24 * 3600.0, 60.0
_RETAKE_S = 5.0  # how long the answer whether a late result counts may take; the next beat asks again
_NOBODY_S = 1.0  # of that, how long there may be no connection by which to ask
_LOOK_FOR_KEYS_S = 2.0
_SHOW_S = 60.0  # how long a hello waits for a device that nothing is known of; it can join later
_TAKES_NOTHING = frozenset({NodeStatus.DRAINING, NodeStatus.QUARANTINED})


class Agent:
    """One node. ``async with Agent(config) as agent: await agent.run()``; ``request_stop()`` ends it.

    Raises on entering:
        LcqError: the name is taken, a device is wished for that is not here, the data folder cannot be used.
    """

    def __init__(
        self,
        config: DistributedConfig,
        *,
        scheduler: str | None = None,
        runner: Sequence[str] = RUNNER,
        kill: Kill = os.killpg,
        manager: ConfigManager | None = None,
    ) -> None:
        """``scheduler``: "HOST:PORT", several with commas; default: the cluster of this user, or as configured.

        ``runner`` is the command of a runner; ``kill`` is what ends its process group. ``manager`` read ``config``:
        then its file is followed.
        """
        self._config = config
        self._agreed = Agreed((*EVERYWHERE, *OF_AGENTS))
        self._scheduler = scheduler
        self._runner = runner
        self._kill = kill
        self._roots = Roots(config.storage.roots)
        self._follower: ConfigFollower | None = None
        if manager is not None:
            self._follower = ConfigFollower(manager, roles=(Role.AGENT,), on_change=self._follow_config)
        self.boot_id = new_id()
        self._measures = AgentMeasures()
        self._told: dict[str, DeviceReading] = {}  # how our devices are, as the last beat said
        self._came: dict[Key, float] = {}  # when each attempt came that has not ended, by steady_now()
        self._is_open = False  # all of it has been made
        self.metrics_at = ""
        """"host:port" of its metrics; "": they are told nowhere."""
        self._logbook = Logbook(self._note_told)
        self._runner_log = RunnerLog()
        self._began_ns: dict[Key, int] = {}  # when each attempt came, by the wall clock, while attempts are traced
        self._task_logs: TaskLogs | None = None
        self._stack = AsyncExitStack()
        self._stop = asyncio.Event()
        self._hurry = asyncio.Event()
        self._step_due = asyncio.Event()
        self._stirred = asyncio.Event()  # something has changed that a leaving agent may wait for
        self._fatal: LcqError | None = None
        self._orders = Orders()  # as they were told last
        self._status = NodeStatus.ONLINE
        self._greeting: HelloAnswer | None = None
        self._said: tuple[str, NodeCapability | None] = ("", None)  # who was told of what we offer, for the log
        self._leases = Leases()
        self._skew = Skew(config.agent.clock_skew_s)
        self._steps: deque[str] = deque(maxlen=256)  # ids of the steps that were asked
        self._stepping = False
        self._unfilled = False
        self._trouble = "it has not joined a scheduler yet"
        self._refused = ""  # why its last step was refused
        self._eased = asyncio.Event()  # what was refused may be granted now
        self._late: asyncio.Queue[StepAnswer] = asyncio.Queue()
        self._probes: asyncio.Queue[Probed] = asyncio.Queue()
        self._beats_heard: asyncio.Queue[tuple[set[Key], set[Key], float]] = asyncio.Queue()  # while some are in doubt
        self._hand_back_at: float | None = None  # by steady_now(): when what still runs goes back
        self._deadline_moved = asyncio.Event()

    # ------------------------------------------------------------ its life

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            logging.getLogger().addHandler(self._logbook)
            stack.callback(logging.getLogger().removeHandler, self._logbook)
            self._functions = NamedFunctions(self._config.agent.functions)
            home = stack.enter_context(
                agent_home(self._config.data_path, self._config.agent.name, keyed=nodes_with_keys(self._config))
            )
            self.node_id = home.node_id
            self._home, self._home_id = home, home.identity
            self._key_file = agent_file(self._config, self.node_id)
            known = find_schedulers(self._config, self._scheduler, key_file=self._key_file)  # tells a wrong one at once
            user = runner_user(self._config.agent.runner)
            open_way(user, self._config.data_path, home.folder.parent, home.folder)
            port = metrics_port(self._config.agent, self._put_metrics)
            self.metrics_at = await stack.enter_async_context(port)
            self._task_logs = TaskLogs(home.folder / "logs", terms=lambda: self._config.agent.task_logs)
            stack.enter_context(tracing.traced(self._config, "agent", instance=home.node_id))
            records = home.records
            records.sweep()
            gpus = await asyncio.to_thread(stack.enter_context, Gpus())  # wakes them: that may take seconds
            self._gpus = gpus
            self._found = found = detect_devices(self._config.agent, gpus, need_mib=gpu_need_mib(self._config))
            if any(device.kind is DeviceKind.GPU for device in found.devices):
                await asyncio.to_thread(make_device_files)
            self._own_slots = {device.id: device.slots for device in found.devices}
            self._slots_now = dict(self._own_slots)
            self._porter = await stack.enter_async_context(
                Porter(
                    home.folder,
                    config=lambda: self._config,
                    roots=self._roots,
                    ask=self._ask_store,
                    fetched=self._measures.fetch.note,
                    runner_uid=user.uid if user is not None else None,
                )
            )
            self._outcomes = Outcomes(
                home.spool, self.boot_id, self._roots, carrier=self._porter, committed=self._measures.commit.note
            )
            recalled = self._outcomes.recall()
            if recalled:
                _log.info("agent %s: %d outcomes of an earlier run wait to be reported", self.node_id, recalled)
            self._porter.forget_others(self._outcomes.staged())
            self._health = HealthFile(home.folder)
            self._thumbnails = Thumbnails(
                self.node_id,
                self.boot_id,
                tell=lambda told: self._line.ask(told, patience_s=PATIENCE_S),
                limits=lambda: self._config.limits,
                roots=self._config.storage.roots,
                is_on=lambda: self._config.agent.thumbnails,
                borrow=self._porter.borrowed,
                environment=environment_for(self._config.agent.runner, os.environ),
                terms=terms_of(self._config),
            )
            self._log_teller = LogTeller(
                self.node_id,
                self.boot_id,
                self._logbook,
                self._task_logs,
                tell=lambda told: self._line.ask(told, patience_s=TELL_S),
            )
            self._sights = SightTeller(
                self.node_id, self.boot_id, self._roots, tell=lambda told: self._line.ask(told, patience_s=TELL_S)
            )
            self._lifeline = Lifeline(self.node_id, self.boot_id, on_lost=lambda: self._membership.scheduler_died())
            context = zmq.Context()
            stack.callback(context.term)
            # Whoever takes a name over at a ROUTER gets its answers: so nobody else may know all of this one.
            identity = f"{self.node_id}/{self.boot_id}/{secrets.token_hex(8)}".encode()
            self._line = await stack.enter_async_context(
                ControlLine(
                    context,
                    identity,
                    on_order=self._obey,
                    on_late=self._hear_late,
                    credential=credential_for(self._config, known, self._key_file),
                    on_admitted=lambda: self._bells.admitted(),
                    late=lambda: credential_for(self._config, self._where_schedulers_are(), self._key_file),
                )
            )
            self._membership = Membership(
                self.node_id,
                self._line,
                configured=self._where_schedulers_are,
                before_hello=self._report_earlier_boots,
                ready=self._until_shown,
                hello=self._hello,
                beat=self._beat,
                on_welcome=self._welcome,
                on_beat=self._hear_beat,
                shortest_lease_s=lambda: self._leases.shortest_s,
                on_parted=self._stir,
                on_trouble=self._note_trouble,
                yields_name=self._config.agent.name is None,
            )
            self._seeker = Seeker(
                self._config, self._scheduler, joined=self._membership.joined, key_file=self._key_file
            )
            self._bells = await stack.enter_async_context(
                Bells(context, on_ring=self._step_due.set, admission=lambda: self._line.admission)
            )
            self._leftovers = Leftovers(
                home.folder / "folders.json", self._line, is_ours=lambda key: key in self._held()
            )
            self._disks = Disks(
                (home.folder, self._config.data_path, self._config.models_path),
                terms=self._config.agent.disk,
                on_change=self._disks_changed,
            )
            self._hand = Hand({device.id: device.slots for device in found.devices})
            self._instances = Instances(
                self._functions.now,
                in_flight=lambda device: (
                    sum(slot.grant is not None for slot in self._pool.on(device)) + self._waker.in_flight(device)
                ),
                standing=lambda device: self._endpoints.standing(device),
                shown_ms=self._skew.shown_ms,
            )
            self._waker = Waker(
                self.node_id,
                self.boot_id,
                self._functions,
                ask=lambda asked: self._line.ask(asked),
                room=lambda device, calls: self._endpoints.room(device, calls),
                begun=lambda device, key: self._endpoints.begun(device, key),
                answered=self._instances.note,
                woken=self._instances.woken,
                ended=self._endpoint_told,
                changed=lambda: self._membership.beat_now(),
            )
            self._pool = RunnerPool(
                plan_slots(found, self._config, cores=usable_cores()),
                PoolSettings(
                    boot_id=self.boot_id,
                    no_progress_s=self._config.agent.no_progress_s,
                    limits=self._config.limits,
                    records=records,
                    self_test=self._config.agent.self_test,
                    recycle=self._config.agent.recycle,
                    command=self._runner,
                    kill=self._kill,
                    on_spawn=self._measures.runner_started,
                    on_line=self._runner_log.note,
                    on_output=self._note_output,
                    on_answered=self._instances.note,
                    bringer=self._porter,
                    opener=self._open_call,
                ),
                on_ended=self._conclude,
                on_change=self._slot_changed,
                on_shown=self._hear_shown,
            )
            self._retest = Retest(self._pool, on_done=self._probed)
            self._service = Service(
                found,
                self._pool,
                config=self._config.agent,
                is_tested=self._config.agent.self_test,
                read_gpus=gpus.readings,
                on_shown=self._stir,
                on_offer=self._offer_changed,
                on_taking=self._taking_changed,
            )
            self._breakers = Breakers(
                on_change=self._service.suspend, answers=lambda engine: answers(engine, self._config.iopaint)
            )
            self._endpoints = EndpointKeeper(self._endpoint_changed, ask=self._ask_endpoint)
            self._is_open = True
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
            NodeNameTaken: the same, of another data folder, or a key has come for another node; and nobody has named
                this one: the next has another name.
            UnknownModel: ``agent.models`` names one that no engine here knows.
        """
        with about(node=self.node_id):
            await self._live()

    async def _live(self) -> None:
        self._show_until = steady_now() + _SHOW_S
        async with asyncio.TaskGroup() as group, self._pool:
            lives = [
                group.create_task(life, name=name)
                for name, life in (
                    ("control line", self._line.listen()),
                    ("bells", self._bells.listen()),
                    ("lifeline", self._lifeline.hold()),
                    ("joined", self._stay_joined()),
                    ("seeker", self._seek()),
                    ("name", self._take_keys_name()),
                    ("steps", self._take_steps()),
                    ("late answers", self._take_in_late()),
                    ("hand", self._give_back_in_time()),
                    ("drain", self._hand_back_in_time()),
                    ("probes", self._report_probes()),
                    ("doubts", self._resolve_doubts()),
                    ("breakers", self._breakers.watch()),
                    ("endpoints", self._endpoints.watch()),
                    ("spool", self._outcomes.keep_old_ones()),
                    ("devices", self._service.watch()),
                    ("disks", self._disks.watch()),
                    *([("settings", self._follower.follow())] if self._follower is not None else ()),
                    ("leftovers", self._leftovers.clear_up()),
                    ("thumbnails", self._thumbnails.run()),
                    ("log", self._log_teller.run()),
                    ("task logs", self._logs.run()),
                    ("sights", self._sights.run()),
                    ("warm-ups", self._waker.run()),
                    *([("event loop's lag", watch_lag(self._measures.loop_lag))] if self.metrics_at else ()),
                )
            ]
            try:
                await self._stop.wait()
                if self._fatal is None:
                    await self._leave()
            finally:
                await self._outcomes.keep()
                unfinished = self._pool.grants()
                for life in lives:
                    life.cancel()
        await self._logs.flush()
        for grant in unfinished:  # its runner is gone now, with nobody to clean up after it
            await discard_staged(grant.task, grant.attempt, roots=self._roots)
        if self._fatal is not None:
            raise self._fatal

    def request_stop(self, *, at_once: bool = False) -> None:
        """Let ``run()`` drain and return. ``at_once``: hand back what runs, without waiting for it."""
        self._stop.set()
        if at_once:
            self._hurry.set()
        self._stir()

    def read_settings(self, when_read: Callable[[], object] = lambda: None) -> None:
        """Read the configuration again, now. ``when_read`` is called when that is done."""
        if self._follower is None:
            when_read()
            return
        self._follower.when_read = when_read
        self._follower.read_now()

    def _follow_config(self, config: DistributedConfig) -> None:
        """Take over what may change while we run (``lcq.reload.LIVE``).

        Raises:
            InvalidConfig: ``agent.devices`` or ``agent.models`` names what is not here, or ``agent.functions`` what no
                runner here could call; then nothing changes.
        """
        before = self._config
        agent, was = config.agent, before.agent
        other_slots = (agent.slots, agent.devices, agent.functions) != (was.slots, was.devices, was.functions)
        if agent.functions != was.functions:
            terms_of(config)
        found = detect_devices(config.agent, self._gpus, need_mib=gpu_need_mib(config)) if other_slots else None
        runners_change = (config.models, config.iopaint) != (before.models, before.iopaint)
        if config.agent.models != before.agent.models and not runners_change:
            try:  # where they change, they are yet to show what they have
                self._service.check_models(config.agent.models)
            except UnknownModel as error:
                raise InvalidConfig(f"agent.models: {error.message}", hint=error.hint) from error
        self._config = config
        set_log_level(config.log_level)
        self._service.follow(config.agent)
        self._disks.follow(config.agent.disk)
        self._skew.follow(config.agent.clock_skew_s)
        self._pool.follow(limits=config.limits, no_progress_s=agent.no_progress_s, recycle=agent.recycle)
        if found is not None:
            self._follow_devices(found)
        if runners_change:
            for device in self._own_slots:
                self._refit(device)
        self._step_due.set()

    def _follow_devices(self, found: Detected) -> None:
        """Have as many slots as our settings want now of each device that was there at the start, and its queues; and
        just the functions that they name, as they name them. What is at work at another goes on to its end."""
        wanted = {one.id: one for one in found.devices}
        functions = tuple(one for one in found.devices if one.kind is DeviceKind.SERVERLESS)
        ours = (one for one in self._found.devices if one.kind is not DeviceKind.SERVERLESS)
        devices = (*(wanted.get(one.id, one) for one in ours), *functions)
        gone = self._own_slots.keys() - {one.id for one in devices}
        environments = {**self._found.environments, **found.environments}
        self._found = replace(self._found, devices=devices, environments=environments)
        self._own_slots = {one.id: one.slots for one in devices}
        changed = self._functions.follow(self._config.agent.functions)
        self._instances.follow(self._functions.now)
        for name in changed:
            self._endpoints.forget(name)
        self._service.have(self._found)
        for name in gone:
            self._slots_now.pop(name)
            self._hand.resize(name, 0)
            self._pool.resize(name, ())
        self._follow_slots()
        for name in changed:
            if name in self._functions.now:
                self._refit(name)
                _log.info("agent %s: function %s is called as the settings say now", self.node_id, name)
            else:
                _log.info("agent %s: function %s is called no more", self.node_id, name)
        if changed:
            self._membership.hello_again()

    @property
    def _logs(self) -> TaskLogs:
        assert self._task_logs is not None  # noqa: S101 - by __aenter__
        return self._task_logs

    def _note_output(self, slot: str, grant: Grant, data: bytes) -> None:
        self._logs.note(key_of(grant), slot, data)

    def _note_told(self, key: Key, level: str, text: str) -> None:
        if self._task_logs is not None:
            self._task_logs.say(key, level, text)

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
        await self._give_back_hand()
        running = len(self._pool.running())
        drain_s = self._config.agent.drain_s
        if self._hand_back_at is not None:  # an operator has given another deadline
            drain_s = max(0.0, self._hand_back_at - steady_now())
        if running and not self._hurry.is_set():
            _log.info("agent %s: draining, %d attempts may go on for %g s", self.node_id, running, drain_s)
        await self._until(lambda: not self._pool.running() or self._hurry.is_set(), patience_s=drain_s)
        left = self._pool.running()
        if left:
            _log.info("agent %s: handing back %d attempts", self.node_id, len(left))
            for attempt in left:
                self._pool.stop((attempt.task_id, attempt.attempt), hand_back=True)
            await self._until(lambda: not self._pool.running(), patience_s=_LAST_WORDS_S + 2)
        if self._membership.joined.is_set():
            self._step_due.set()
            told = await self._until(
                lambda: not (self._outcomes or self._stepping) or not self._membership.joined.is_set(),
                patience_s=_LAST_WORDS_S,
            )
            if told and self._membership.joined.is_set():
                await self._say_bye()
        if self._outcomes:
            _log.warning(
                "agent %s: %d outcomes wait in the spool for its next start", self.node_id, len(self._outcomes)
            )

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
        try:
            await self._membership.keep()
        except (StaleBoot, UnknownModel) as end:
            self._fatal = end
            self._stop.set()
        except NodeNameTaken as end:
            self._home.leave_name()
            self._fatal = end
            self._stop.set()

    async def _seek(self) -> None:
        try:
            await self._seeker.seek()
        except InvalidConfig as end:
            self._fatal = end
            self._stop.set()

    async def _take_keys_name(self) -> None:
        """An agent that nobody has named, and that is in nobody's hands: be the node for which a key comes."""
        if self._config.agent.name is not None or self._line.admission.credential is not None:
            return
        known = nodes_with_keys(self._config)
        while self._line.admission.credential is None:
            await asyncio.sleep(_LOOK_FOR_KEYS_S)
            found = nodes_with_keys(self._config)
            new = sorted(set(found) - {*known, self.node_id})
            known = found
            if new and not self._membership.joined.is_set():
                self._fatal = NamedByKey(new[0])
                self._stop.set()
                return

    def _where_schedulers_are(self) -> tuple[str, ...]:
        return tuple(
            dict.fromkeys(
                (*find_schedulers(self._config, self._scheduler, key_file=self._key_file), *self._seeker.found)
            )
        )

    async def _until_shown(self) -> None:
        """Wait until each device's first runner has shown what it can do, or that it cannot.

        Raises:
            UnknownModel: none of them knows one that is wanted.
        """
        if self._service.capability is None:
            patience_s = max(0.0, self._show_until - steady_now())
            await self._until(lambda: not self._service.is_undecided, patience_s=patience_s)
            self._service.check_models()
        self._service.take_up()

    def _hello(self) -> Hello:
        self._functions.said()
        return Hello(node_id=self.node_id, boot_id=self.boot_id, capability=self._offered, home=self._home_id)

    @property
    def _offered(self) -> NodeCapability:
        assert self._service.capability is not None  # noqa: S101 - by _until_shown
        return self._service.capability

    def _offer_changed(self) -> None:
        """Tell the scheduler that what we can do is no longer what it was told."""
        if not self._stop.is_set():
            self._membership.hello_again()

    async def _report_earlier_boots(self) -> None:
        """Deliver what this node did before it was restarted.

        Before the hello, because that gives up all that the earlier boot held: a result that comes after it
        is a late one, and somebody may have begun the work anew.
        """
        if self._greeting is not None:
            return
        if self._outcomes.doubtful_of_earlier_boots():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_EARLIER_S):
                    await self._outcomes.resolve_earlier(self._retake)
        earlier = self._outcomes.to_report()
        if earlier:
            step = Step(node_id=self.node_id, boot_id=self.boot_id, outcomes=earlier)
            await failpoints.reach("agent.deliver")
            try:
                answer = await self._line.ask(step, patience_s=_EARLIER_S)
            except StaleBoot:
                return  # this scheduler wants the hello first: so be it
            await failpoints.passed("agent.deliver")
            await self._outcomes.settle(answer.verdicts)

    def _welcome(self, greeting: HelloAnswer) -> None:
        greeting = greeting.reached_at(self._line.endpoint)
        self._functions.welcomed()
        said = (greeting.scheduler_id, self._offered)
        if said != self._said:
            self._said = said
            self._log_joined(greeting)
        self._greeting = greeting
        self._lifeline.attach(greeting.lifeline, greeting.lifeline_key)
        self._bells.found_at(greeting.rings)
        self._follow(greeting.status, "")
        self._follow_orders(greeting.orders)
        self._step_due.set()

    def _log_joined(self, greeting: HelloAnswer) -> None:
        serves = [
            f"{', '.join(greeting.serves.get(device.id, ())) or 'no queue'} with {device.slots} slot(s) on {device.id}"
            for device in self._offered.devices
        ]
        _log.info(
            "agent %s: joined scheduler %s at %s, serves %s; models %s",
            self.node_id,
            greeting.scheduler_id,
            self._line.endpoint,
            "; ".join(serves) or "nothing",
            ", ".join(sorted(self._offered.models)) or "none",
        )

    def _beat(self) -> Beat:
        telemetry, readings = self._telemetry(), self._service.readings()
        self._told = {
            device: self._instances.told_with(device, self._with_load(device, one, telemetry))
            for device, one in readings.items()
        }
        return Beat(
            node_id=self.node_id,
            boot_id=self.boot_id,
            running=tuple(self._held().values()),
            telemetry=telemetry,
            devices=self._told,
        )

    def _with_load(self, device: str, reading: DeviceReading, telemetry: Mapping[str, float | str]) -> DeviceReading:
        """A CPU is as busy as its host, which the telemetry has just been asked for; a GPU has told it by itself."""
        percent = telemetry.get("cpu_percent")
        if device != "cpu" or reading.busy is not None or not isinstance(percent, float):
            return reading
        return reading.model_copy(update={"busy": min(1.0, max(0.0, percent / 100))})

    def _held(self) -> dict[Key, Running]:
        """All attempts that are ours: running, or done and not settled."""
        held = {
            (task_id, attempt): Running(task_id=task_id, attempt=attempt, progress=1.0, stage="report")
            for task_id, attempt in self._outcomes.held()
        }
        return held | {(one.task_id, one.attempt): one for one in (*self._hand.running(), *self._pool.running())}

    def _hear_beat(self, beat: Beat, answer: BeatAnswer, asked_at: float) -> None:
        self._measures.beat.note(steady_now() - asked_at)
        if answer.now_ms is not None:
            self._skew.note(answer.now_ms, asked_at=asked_at, told_at=steady_now())
        lost = {(one.task_id, one.attempt) for one in answer.lost}
        held = {(one.task_id, one.attempt) for one in beat.running}
        self._leases.renew(held - lost, asked_at)
        for key in lost:
            self._leases.end(key)
            self._end_lost(key, "the cluster took it back")
        if any(map(self._outcomes.is_doubtful, held)) or self._outcomes.doubtful_of_earlier_boots():
            self._beats_heard.put_nowait((held, lost, asked_at))
        self._follow(answer.status, "")
        self._follow_orders(answer.orders)
        for device in (("",) if answer.probe else answer.probe_devices) if not self._stop.is_set() else ():
            self._retest.begin(device)

    async def _resolve_doubts(self) -> None:
        """Publish or report what waited for a beat to say whose it is."""
        while True:
            held, lost, asked_at = await self._beats_heard.get()
            resolved = await self._outcomes.resolve(
                held, lost, asked_at=asked_at, lease_is_sure=self._leases.is_sure, retake=self._retake
            )
            for key in resolved:
                self._leases.end(key)
                self._step_due.set()
            self._stir()

    async def _retake(self, key: Key) -> Right | None:
        asked_at = steady_now()
        request = Retake(node_id=self.node_id, boot_id=self.boot_id, task_id=key[0], attempt=key[1])
        try:
            answer = await self._line.ask(request, patience_s=_RETAKE_S, nobody_s=_NOBODY_S)
        except UnknownCommand:
            return None  # an older scheduler: the verdict decides
        if not answer.attempt:
            return None
        with about(task=key[0], attempt=key[1]):
            _log.info("task %s: the late result of attempt %d counts, as attempt %d", *key, answer.attempt)
        return Right(answer.attempt, asked_at + answer.lease_ms / 1000)

    def _hear_shown(self, shown: Shown) -> None:
        self._service.hear(shown)
        self._retest.hear(shown)

    def _probed(self, device: str, passed: bool, detail: str) -> None:
        of = f" of {device}" if device else ""
        _log.warning("agent %s: the probe%s %s%s", self.node_id, of, "passed" if passed else "failed: ", detail)
        self._probes.put_nowait(
            Probed(node_id=self.node_id, boot_id=self.boot_id, passed=passed, detail=detail, device=device)
        )

    async def _report_probes(self) -> None:
        while True:
            probed = await self._probes.get()
            try:
                await self._line.ask(probed)
            except LcqError as refusal:  # a beat will ask for a probe again
                _log.warning("agent %s: cannot report the probe: %s", self.node_id, refusal)

    def _telemetry(self) -> dict[str, float | str]:
        self._tell_health()
        said = {
            **host_telemetry(),
            "slots_busy": float(self._pool.count(SlotState.BUSY)),
            "slots_broken": float(self._pool.count(SlotState.BROKEN)),
            "slots_unkillable": float(self._pool.count(SlotState.UNKILLABLE)),
            "outcomes_unsettled": float(len(self._outcomes)),
        }
        not_claiming = self._refused or self._disks.full or self._service.why_all_rest
        if not_claiming:  # other reasons are over when a beat arrives, or are the cluster's own
            said["not_claiming"] = not_claiming
        if self._disks.rooms:
            said["disk_used"] = round(max(room.used for room in self._disks.rooms.values()), 4)
        offset = self._skew.offset
        if offset is not None:
            said |= {"clock_offset_s": round(offset.ahead_s, 3), "clock_error_s": round(offset.error_s, 3)}
        if self._skew.warning:
            said["clock_warning"] = self._skew.warning
        if self._seeker.ignored:
            said["announcements_ignored"] = float(self._seeker.ignored)
        said["agreed"] = self._agreed.told(self._config)
        if self._follower is not None and self._follower.error:
            said |= {"config_error": self._follower.error, "config_refused": float(self._follower.refused)}
        return finite(said)

    @property
    def not_claiming(self) -> str:
        """Why this agent claims no task now; "" if it does, as far as it has free slots."""
        wished = f"the cluster wants it {self._status.value}" if self._status in _TAKES_NOTHING else ""
        trouble = "; ".join(filter(None, (self._trouble, self._seeker.why if self._trouble else "")))
        return trouble or self._refused or self._disks.full or self._service.why_all_rest or wished

    @property
    def running(self) -> int:
        """How many attempts run now."""
        return len(self._pool.running())

    @property
    def config_error(self) -> str:
        """Why the files of settings, as they are now, are not taken over; "" if nothing is wrong with them."""
        return self._follower.error if self._follower is not None else ""

    @property
    def stop_s(self) -> float:
        """How long ``run()`` may need at most, in seconds, once it was told to stop."""
        return self._config.agent.drain_s + _LEAVE_S

    def _note_trouble(self, why: str) -> None:
        self._trouble = why
        if not why:
            self._eased.set()
        self._tell_health()

    def _tell_health(self) -> None:
        self._health.tell(self.not_claiming, self._service.resting, self._skew.warning)

    # ------------------------------------------------------------ orders

    def _obey(self, order: Order) -> None:
        match order.cmd:
            case "cancel":
                key = (order.task_id, order.attempt)
                self._leases.remember(key)  # its grant may still be on the way
                self._end_lost(key, order.reason or "cancelled")
            case "drain":
                self._follow(NodeStatus.DRAINING, order.reason)
            case "resume":
                self._follow(NodeStatus.ONLINE, order.reason)
            case "release":
                _log.info("agent %s: frees what models hold%s", self.node_id, f" ({order.reason})" * bool(order.reason))
                self._pool.release()
            case "wake":
                self._step_due.set()
            case "beat":
                self._membership.beat_now()
            case "picture" if order.wish is not None:
                self._thumbnails.wish(order.wish)
            case "log" if order.log is not None:
                self._log_teller.wish(order.log)
            case "task_log" if order.task_log is not None:
                self._log_teller.wish(order.task_log)
            case "see" if order.see is not None:
                self._sights.wish(order.see)
            case "warm" if order.warm is not None:
                self._waker.wish(order.warm)

    def _follow_orders(self, orders: Orders | None) -> None:
        """Do with our devices, and with ourselves, what operators want; an older scheduler wants nothing of this."""
        if orders is None:
            return
        self._orders = orders
        self._follow_slots()
        self._service.set_aside(orders.out)
        self._hand_back_at = None if orders.hand_back_s is None else steady_now() + orders.hand_back_s
        self._deadline_moved.set()
        if orders.stop and not self._stop.is_set():
            _log.info("agent %s: an operator wants it to end", self.node_id)
            self.request_stop()

    def _follow_slots(self) -> None:
        """What an operator has set goes over our own settings."""
        for device, own in self._own_slots.items():
            self._resize(device, self._orders.slots.get(device, own))

    def _resize(self, device: str, slots: int) -> None:
        had = self._slots_now.get(device, 0)  # a new function has none yet
        if slots == had:
            return
        _log.info("agent %s: %s has %d slots now, had %d", self.node_id, device, slots, had)
        self._slots_now[device] = slots
        self._hand.resize(device, slots)
        self._service.resize(device, slots, self._refit(device))
        self._step_due.set()

    def _refit(self, device: str) -> tuple[str, ...]:
        """Have the slots of ``device`` as our settings are now. Answers the names of those that end."""
        slots = self._slots_now
        devices = tuple(
            one.model_copy(update={"slots": slots[one.id]}) for one in self._found.devices if one.id in slots
        )
        plans = plan_slots(replace(self._found, devices=devices), self._config, cores=usable_cores())
        return self._pool.resize(device, [plan for plan in plans if plan.device == device])

    async def _hand_back_in_time(self) -> None:
        """While we drain with a deadline: at that, hand back what still runs."""
        while True:
            self._deadline_moved.clear()
            left_s = None if self._hand_back_at is None else max(0.0, self._hand_back_at - steady_now())
            try:
                async with asyncio.timeout(left_s):
                    await self._deadline_moved.wait()
                continue
            except TimeoutError:
                pass
            running = self._pool.running()
            if running:
                _log.info("agent %s: the drain's deadline is over, %d attempts go back", self.node_id, len(running))
            for attempt in running:
                self._pool.stop((attempt.task_id, attempt.attempt), hand_back=True)
            await self._deadline_moved.wait()

    def _end_lost(self, key: Key, why: str) -> None:
        in_hand = self._hand.drop(key)
        if in_hand:
            self._endpoints.dropped(key)
            self._porter.drop(key)
        if in_hand or self._pool.stop(key):
            with about(task=key[0], attempt=key[1]):
                _log.info("agent %s: ending task %s, attempt %d: %s", self.node_id, *key, why)
        if in_hand:
            self._logs.end(key)

    def _follow(self, status: str, why: str) -> None:
        """Take work or not, as the cluster wants it."""
        try:
            wished = NodeStatus(status)
        except ValueError:  # a newer scheduler's word
            return
        if wished is not self._status:
            reason = f" ({why})" if why else ""
            _log.info("agent %s: the cluster wants it %s%s", self.node_id, wished.value, reason)
            self._status = wished
            self._step_due.set()
            self._tell_health()
        self._tune_bells()

    # ------------------------------------------------------------ steps

    @property
    def _takes_work(self) -> bool:
        return not self._stop.is_set() and self._status not in _TAKES_NOTHING and not self._disks.full

    def _free(self) -> tuple[Want, ...]:
        """The free slots of the devices that take work."""
        return tuple(want for want in self._pool.wants() if self._service.takes(want.device))

    def _wish(self) -> tuple[Want, ...]:
        """What to ask for: the free slots and the room in hand, and what fits there."""
        wishes = self._hand.wants(self._free()) if self._takes_work else ()
        return tuple(
            want.model_copy(update={"slots": room, "fits_mib": self._service.room_mib(want.device)})
            for want in wishes
            if self._service.takes(want.device)
            and self._functions.is_known(want.device)
            and (room := self._endpoints.room(want.device, want.slots)) > 0
        )

    def _room_changed(self) -> None:
        """There are other places for work than before: on devices, or on disks."""
        self._step_due.set()
        self._tune_bells()

    def _disks_changed(self) -> None:
        self._service.rest_all(Rest(RestCode.DISK_FULL, self._disks.full) if self._disks.full else None)
        self._room_changed()

    def _endpoint_changed(self, device: str) -> None:
        """A function is to be left alone, or tried, or is there again."""
        self._service.keep(device, self._endpoints.rest(device), self._endpoints.most(device))
        self._step_due.set()

    def _taking_changed(self) -> None:
        """Other devices than before take work: tasks that wait for them had better be routed by that."""
        self._room_changed()
        self._membership.beat_now()
        self._tell_health()

    async def _take_steps(self) -> None:
        """Report and ask whenever there is something to report or to ask for, one step at a time."""
        pause_s = _AGAIN_S[0]
        while True:
            await self._until_step_due()
            await self._membership.joined.wait()
            self._step_due.clear()
            want = self._wish()
            step = Step(node_id=self.node_id, boot_id=self.boot_id, outcomes=self._outcomes.to_report(), want=want)
            if not step.outcomes and not step.want:
                continue
            began = steady_now()
            self._steps.append(step.id)
            self._stepping = True
            try:
                await failpoints.reach("agent.ask", error=LcqError)
                answer = await self._line.ask(step)
                await failpoints.passed("agent.ask", error=LcqError)
                await self._take_in(answer, began)
            except LcqError as refusal:
                if isinstance(refusal, StaleBoot):
                    self._membership.beat_now()  # it is told the same, and says hello
                elif str(refusal) != self._refused:
                    self._refused = str(refusal)
                    _log.warning("agent %s: cannot report or ask for work: %s", self.node_id, refusal)
                self._tell_health()
                self._eased.clear()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(pause_s * random.uniform(0.5, 1.0)):
                        await self._eased.wait()
                pause_s = min(_AGAIN_S[1], 2 * pause_s)
                self._step_due.set()
            else:
                self._refused, pause_s = "", _AGAIN_S[0]
                self._tell_health()
                self._unfilled = len(answer.grants) < sum(one.slots for one in want)
                self._tune_bells()
            finally:
                self._stepping = False
                self._stir()

    async def _until_step_due(self) -> None:
        """Wait for a reason, or for the floor under all bells where one may have been missed."""
        waiting = bool(self._outcomes) or (self._takes_work and bool(self._free()))
        try:
            poll_s = self._config.agent.poll_s * random.uniform(*_POLL_JITTER)
            async with asyncio.timeout(poll_s if waiting else None):
                await self._step_due.wait()
        except TimeoutError:
            return

    async def _take_in(self, answer: StepAnswer, asked_at: float) -> None:
        for grant in answer.grants:  # first: a beat that does not list one gives it back
            await self._accept(grant, asked_at)
        await self._outcomes.settle(answer.verdicts)

    async def _accept(self, grant: Grant, asked_at: float) -> None:
        """Begin what was granted, or hand it back; never neither."""
        if self._leases.is_known(key_of(grant)):
            return  # a copy of an answer, or cancelled before it came
        with about_grant(grant):
            await self._take(grant, asked_at)

    async def _take(self, grant: Grant, asked_at: float) -> None:
        key = key_of(grant)
        await failpoints.reach("agent.lease")
        self._leases.remember(key)
        self._leases.begin(grant, asked_at)
        self._came[key] = steady_now()
        self._endpoints.begun(grant.device, key)
        await failpoints.passed("agent.lease")
        await failpoints.reach("agent.begin")
        folder = result_folder(grant.task)
        if folder is not None:
            self._leftovers.expect_in(folder)
            self._disks.used(folder)
        self._porter.expect(grant)
        self._logs.begin(key)
        if tracing.active is not None:
            self._began_ns[key] = time.time_ns()
        is_known = self._functions.is_known(grant.device, asked_at)  # else its price was reserved by older settings
        if self._stop.is_set() or not is_known or not self._begin(grant):
            _log.info("agent %s: handing back task %s, attempt %d: no slot is free for it now", self.node_id, *key)
            await self._conclude(Ended.not_begun(grant))
        await failpoints.passed("agent.begin")

    def _begin(self, grant: Grant) -> bool:
        """Give ``grant`` to a slot, or keep it for the next free one. Answers False where there is none for it."""
        return self._service.offers(grant.device) and (self._pool.start(grant) or self._hand.take(grant))

    async def _give_back_in_time(self) -> None:
        while True:
            for grant in await self._hand.overdue():
                await self._conclude(Ended.not_begun(grant))

    async def _give_back_hand(self) -> None:
        for grant in self._hand.empty():
            await self._conclude(Ended.not_begun(grant))

    async def _take_in_late(self) -> None:
        while True:
            await self._take_in(await self._late.get(), asked_at=-math.inf)  # ours, but nobody knows for how long

    def _hear_late(self, reply: Reply) -> None:
        """A second answer to a step, or one that nobody waits for any more: its grants are ours all the same."""
        if reply.ok is None or reply.id not in self._steps:
            return
        try:
            answer = reply.answer(StepAnswer)
        except LcqError as error:
            _log.warning("agent %s: %s", self.node_id, error)
            return
        if not all(self._leases.is_known(key_of(grant)) for grant in answer.grants):
            self._late.put_nowait(answer)

    # ------------------------------------------------------------ how attempts end

    async def _conclude(self, ended: Ended) -> None:
        """Take in how an attempt ended; its slot is free after that."""
        ended = await self._told_of_endpoint(self._porter.told(ended))
        with about_grant(ended.grant, cause=ended.failure.code if ended.failure is not None else ""):
            await self._report(ended)
        self._logs.end(ended.key)
        if tracing.active is not None:
            tell_attempt(tracing.active, ended, node=self.node_id, began_ns=self._began_ns.pop(ended.key, 0))

    async def _told_of_endpoint(self, ended: Ended) -> Ended:
        """``ended``, once the keeper of endpoints knows of it; with what it makes of the failure."""
        device, key, failure = ended.grant.device, ended.key, ended.failure
        if not self._functions.is_function(device) or (ended.result is None and failure is None):
            self._endpoints.dropped(key)
            return ended
        is_there: bool | None = None
        if failure is not None and not self._is_older(device, key):
            is_doubtful = self._endpoints.is_doubtful(device, key, failure)
            is_there = await self._is_there(device) if is_doubtful else None
        if self._is_older(device, key):  # it went where nothing is called any more, or by other terms
            return ended if failure is None else replace(ended, failure=as_silence(key, failure))
        if failure is None:
            self._endpoints.worked(device, key)
            return ended
        return replace(
            ended,
            failure=self._endpoints.failed(device, key, failure, again_s=ended.again_s, is_there=is_there),
        )

    def _is_older(self, device: str, key: Key) -> bool:
        """Whether an attempt began before its function was changed."""
        return self._functions.is_older(device, self._came.get(key, math.inf))

    async def _is_there(self, device: str) -> bool | None:
        """Whether a function is there that has cut a call; None: nobody can tell, or we are to stop meanwhile."""
        look = self._waker.look(device)
        while not (look.done() or self._stop.is_set()):
            await asyncio.wait((look,), timeout=_LOOK_TICK_S)
        return look.result() if look.done() else None

    def _ask_endpoint(self, device: str) -> bool:
        """Try a function that was left alone by a tiny call; the keeper hears of that as of any."""

        def over(look: Look) -> None:
            if look.result() is None:
                self._endpoints.not_asked(device)

        self._waker.look(device).add_done_callback(over)
        return True

    def _endpoint_told(self, device: str, key: Key, failure: Failure | None, again_s: float) -> None:
        """A call that was to wake a function has ended: the keeper of endpoints learns from it as from any."""
        if failure is None:
            self._endpoints.worked(device, key)
        else:
            self._endpoints.failed(device, key, failure, again_s=again_s)

    async def _report(self, ended: Ended) -> None:
        grant, failure = ended.grant, ended.failure
        await failpoints.reach("agent.conclude")
        engine = "" if self._functions.is_function(grant.device) else self._service.engine_of(grant.task.model)
        if ended.result is not None:
            if not ended.result.cost:  # what is paid for is not held ahead: it would be reserved for all that time
                self._hand.learn(grant.device, ended.result.seconds)
            self._breakers.worked(engine)
        if failure is not None and engine and failure.code in DEPENDENCY_DOWN:
            self._breakers.failed(engine, failure.message)
        if failure is not None:
            _log.warning("task %s, attempt %d: %s: %s", *ended.key, failure.code, failure.message)
            if failure.error_class is not ErrorClass.BAD_INPUT:  # whatever it was, it may be the next one's end too
                self._hand.unlearn(grant.device)
                await self._give_back_hand()
        came = self._came.pop(ended.key, None)
        if ended.result is None and (failure is None or failure.error_class is ErrorClass.CRASH):
            await discard_staged(grant.task, grant.attempt, roots=self._roots)  # nobody was left to do it
        if ended.result is not None or failure is not None or ended.handed_back:
            outcome = Outcome(
                task_id=grant.task.id,
                attempt=grant.attempt,
                device=grant.device,
                result=ended.result,
                failure=failure,
                handed_back=ended.handed_back,
                peak_mib=ended.peak_mib,
                device_peak_mib=ended.device_peak_mib,
                log=ended.log,
                cost=ended.cost,
            )
            reported = await self._outcomes.add(
                outcome, ended.staged, found=ended.found, lease_is_sure=lambda: self._leases.is_sure(ended.key)
            )
            self._note_room(grant, reported)
            self._note_ended(reported, came)
            self._step_due.set()
        else:
            self._measures.attempts.note("stopped", "")
        self._porter.drop(ended.key, keep_result=self._outcomes.is_doubtful(ended.key))
        if self._outcomes.is_doubtful(ended.key):
            self._membership.beat_now()  # that tells whose it is
        else:
            self._leases.end(ended.key)
        self._stir()
        await failpoints.passed("agent.conclude")

    def _note_ended(self, outcome: Outcome, came: float | None) -> None:
        """Count an attempt; ``came``: when it did, by steady_now()."""
        if outcome.failure is not None:
            self._measures.attempts.note("failed", outcome.failure.error_class)
        elif outcome.result is not None:
            self._measures.attempts.note("completed", "")
            self._measures.run.note(outcome.result.seconds, outcome.device)
        else:
            self._measures.attempts.note("handed_back", "")
        if came is not None and not outcome.handed_back:
            self._measures.attempt.note(steady_now() - came, outcome.device)

    def _put_metrics(self, sheet: Sheet) -> None:
        """What is told at ``agent.metrics_port``."""
        sheet.put("lcq_agent_info", 1, self.node_id, __version__)
        self._measures.put_on(sheet)
        sheet.put("lcq_agent_settings_ok", int(self._follower is None or not self._follower.error))
        sheet.put("lcq_agent_settings_refused_total", self._follower.refused if self._follower is not None else 0)
        if not self._is_open:
            return  # it has just begun, and there is nothing to ask yet
        sheet.put("lcq_agent_joined", int(self._membership.joined.is_set()))
        sheet.put("lcq_agent_claims", int(not self.not_claiming))
        sheet.put("lcq_agent_unsettled", len(self._outcomes))
        for place, folder in (("data", self._config.data_path), ("models", self._config.models_path)):
            if room := self._disks.rooms.get(folder):
                sheet.put("lcq_agent_disk_bytes", room.total, place)
                sheet.put("lcq_agent_disk_free_bytes", room.free, place)
        for device, reading in (self._told or self._service.readings()).items():
            slots = Counter(slot.state for slot in self._pool.on(device))
            sheet.put("lcq_agent_slots", slots[SlotState.BUSY], device, "busy")
            sheet.put("lcq_agent_slots", slots[SlotState.FREE], device, "free")
            sheet.put("lcq_agent_slots", slots.total() - slots[SlotState.BUSY] - slots[SlotState.FREE], device, "other")
            sheet.put("lcq_agent_device_works", int(self._service.takes(device)), device)
            put_reading(sheet, "lcq_agent_device", reading, device)

    async def _ask_store(self) -> tuple[str, str, str]:
        """Where the scheduler says that blobs are.

        Raises:
            LcqError: it does not answer, or is older than blobs.
        """
        from lcq.wire.questions import AskStore  # few agents ever need it

        told = (await self._line.ask(AskStore(), patience_s=_STORE_S)).reached_at(self._line.endpoint)
        return told.url, told.mark, told.http

    async def _open_call(self, grant: Grant, function: FunctionConfig) -> CallAddress | None:
        """By which the runner of an attempt has addresses lent; None: the scheduler lends none, or does not answer."""
        ask = OpenCall(
            node_id=self.node_id,
            boot_id=self.boot_id,
            task_id=grant.task.id,
            attempt=grant.attempt,
            seconds=min(_LONGEST_CALL_S, grant.task.timeout_s + _CALL_GRACE_S),
            price_call=function.price_call,
            price_s=function.price_s,
            timeout_s=function.timeout_s,
        )
        try:
            told = (await self._line.ask(ask, patience_s=_OPEN_S)).reached_at(self._line.endpoint)
        except LcqError as error:  # also of one that is older than such addresses: what is small goes inside the call
            _log.info("task %s, attempt %d: no address is lent to its function: %s", *key_of(grant), error)
            return None
        base = f"http://{told.http}" if told.http else ""
        return CallAddress(path=told.path, public=told.public, base=base) if told.path else None

    def _note_room(self, grant: Grant, outcome: Outcome) -> None:
        """A full disk fails the next attempt too: nothing is begun until there is room."""
        folder = result_folder(grant.task) or self._porter.folder
        if outcome.failure is not None and outcome.failure.code == "disk_full":
            self._disks.found_full(folder)
        elif outcome.result is not None and outcome.result.path:
            self._disks.used(folder)

    def _slot_changed(self, state: SlotState) -> None:
        if state is SlotState.FREE and not self._disks.full:
            for device in {want.device for want in self._free()}:
                grant = self._hand.next_for(device)
                if grant is not None:
                    self._pool.start(grant)
        if state is SlotState.FREE:
            self._step_due.set()
        self._tune_bells()
        self._stir()

    def _tune_bells(self) -> None:
        """Be in the rings of the queues that a free slot serves, once a step has found them empty."""
        greeting = self._greeting
        want = self._free() if greeting is not None and self._takes_work else ()
        if not want:
            self._unfilled = False
        queues = {queue for one in want for queue in greeting.serves.get(one.device, ())} if greeting else set()
        self._bells.attend(queues if self._unfilled else ())

"""NodeManager: the nodes. Owns the ROUTER that agents, consoles and clients talk to, and the lifelines."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import time
from collections.abc import Iterable, Sequence
from contextlib import AsyncExitStack

import zmq

from lcq import __version__, tracing
from lcq.clock import ClockWatch, steady_now
from lcq.commit_trace import tell_commit
from lcq.component import Complaints, Ground, Manager, complained, run_beside
from lcq.costs import CostKey
from lcq.errors import LcqError, NotFound, StaleBoot, StateUnavailable, TaskNotFound, TransitionRefused
from lcq.gate import Gate, open_gate
from lcq.health import KNOWS_ORDERS, alarm_verdict, is_held_by_device, verdict
from lcq.ids import new_id
from lcq.key_desk import KeyDesk
from lcq.key_record import KeyRecord
from lcq.lifelines import KNOWS_LIFELINE_KEY, LifelineKeys
from lcq.log import about
from lcq.logs import Logs
from lcq.models import (
    DeviceKind,
    ErrorClass,
    Event,
    Failure,
    Lowered,
    NodeCapability,
    NodeRecord,
    NodeStatus,
    TaskStatus,
    model_of,
)
from lcq.outlook import Outlook
from lcq.previews import Previews
from lcq.routing import BROKE_AT_FUNCTION, LIVE, OUT_OF_MEMORY, home_of, next_ease, told_steps
from lcq.sights import Sights
from lcq.silence import overdue_ms, unheard_ms
from lcq.slow import SlowWatch, Took, is_told, lowered_by, slow_verdict, used_by_others
from lcq.sockets import (
    BACKLOG,
    LAST_WORDS_MS,
    MOST_RECONNECT_S,
    KeyedMailbox,
    Mailbox,
    advertised_host,
    bind_socket,
    guesses_host,
    make_socket,
)
from lcq.state.feed import batches
from lcq.state.manager import Heard
from lcq.versions import knows_order
from lcq.wire import (
    MOST_IN_HAND,
    AskSees,
    AskThumbnail,
    Beat,
    BeatAnswer,
    Bye,
    Done,
    Grant,
    Hello,
    HelloAnswer,
    Logged,
    Order,
    Outcome,
    Pictured,
    Probed,
    ReadLog,
    ReadTaskLog,
    Retake,
    RetakeAnswer,
    Saw,
    Step,
    StepAnswer,
    TaskLogged,
    Verdict,
    Want,
    WarmWish,
    pack_order,
)

_log = logging.getLogger(__name__)
_TICK_S = 0.25
_LATE_S = 0.75
_DUTY_HOLD_MS = 3000
_FORGET_NODE_MS = 24 * 3600 * 1000
_COSTS_AGE_S = 10.0
_BY_DEVICE = frozenset({"activate_node", "quarantine_node", "settle_probe"})


class NodeManager(Manager):
    """Registers nodes, grants and settles their attempts, and notices when one is gone."""

    def __init__(self, ground: Ground | None = None) -> None:
        super().__init__(ground)
        self._addresses: dict[str, bytes] = {}  # node -> its DEALER's identity at this ROUTER
        self._known: dict[str, NodeRecord] = {}  # what claims need to know of a node, read once a hello
        self._greeting = 0  # which one holds: another since what nodes are told at their hello has changed
        self._greeted: dict[str, int] = {}  # node -> the greeting that it was told
        self._line_keys = LifelineKeys()
        self._lifelines: dict[tuple[str, str], int] = {}  # (node, boot) -> open lifelines
        self._lines: set[asyncio.StreamWriter] = set()
        self._closing = asyncio.Event()
        self._listen_until = 0.0
        self._clock = ClockWatch()
        self._slow = SlowWatch()
        self._shifts: int | None = None  # how often the deadlines were shifted after Redis's clock, as last read

    @property
    def _beat_s(self) -> float:
        return self._ground.config.leases.beat_s

    @property
    def endpoint(self) -> str:
        """Where the ROUTER is reached."""
        return self._ground.site.control_endpoint

    async def _open(self, ground: Ground, stack: AsyncExitStack) -> None:
        self._ground = ground
        self._state = ground.state
        self._outlook = Outlook(ground.state.reader)
        previews = Previews(ground.state.reader, order=self.order, is_here=self._addresses.__contains__)
        sights = Sights(ground.state.reader, order=self.order, is_here=self._addresses.__contains__)
        logs = Logs(ground.state.reader, order=self.order, is_here=self._addresses.__contains__)
        for kind, handler in (
            (Hello, self.hello), (Step, self.step), (Beat, self.beat), (Retake, self.retake), (Probed, self.probed),
            (Bye, self.bye),
            (AskThumbnail, previews.thumbnail), (Pictured, previews.pictured),
            (ReadLog, logs.read), (Logged, logs.logged), (ReadTaskLog, logs.read_task), (TaskLogged, logs.task_logged),
            (AskSees, sights.sees), (Saw, sights.saw),
        ):  # fmt: skip
            ground.site.desk.serve(kind, handler)  # type: ignore[arg-type]
        key_desk = KeyDesk(ground.state, told=lambda: ground.site.desk.server_keys, places=self._all_endpoints)
        for kind_of_key, of_key in key_desk.handlers:
            ground.site.desk.serve(kind_of_key, of_key)
        context = zmq.Context()
        stack.callback(context.term)
        zeromq = ground.config.zeromq
        self._gate = gate = await open_gate(ground, context, stack)
        router = make_socket(context, zmq.ROUTER, gate=gate)
        self._mailbox = Mailbox(router) if gate is None else KeyedMailbox(router)
        # The last answers may hold grants: one that is lost makes its task wait for the next scheduler to find out.
        stack.callback(self._mailbox.close, linger_ms=LAST_WORDS_MS)
        if gate is not None:
            watch = gate.watch(router)
            stack.callback(watch.close)
            await run_beside(stack, ("handshakes", watch.watch()))
        trusted = zeromq.trusted_network
        port = bind_socket(
            router, zeromq.bind, zeromq.control_port, "the control socket", "zeromq.control_port", trusted=trusted
        )
        host = advertised_host(ground.config)
        ground.site.control_endpoint = f"tcp://{host}:{port}"
        self._group = await stack.enter_async_context(asyncio.TaskGroup())
        if gate is not None:
            gate.allowed.on_revoked(self._shut_out, stack)
            gate.on_turned(lambda: self._mailbox.bind_again(gate))
        bind = "127.0.0.1" if zeromq.bind == "localhost" else zeromq.bind
        lifelines = await asyncio.start_server(self._hold_lifeline, bind, 0, backlog=BACKLOG)
        stack.push_async_callback(self._close_lifelines, lifelines)
        ground.site.lifeline = f"{host}:{lifelines.sockets[0].getsockname()[1]}"
        self._listen_first()
        await run_beside(
            stack,
            ("control socket", self._serve()),
            ("orders", self._order_on_events()),
            ("node duties", self._watch_nodes()),
        )

    # ------------------------------------------------------------ the ROUTER

    async def _serve(self) -> None:
        if self._gate is not None:
            await self._serve_holders(self._gate)
        async for batch in self._mailbox.batches():
            for frames in batch:
                if len(frames) == 2:
                    self._group.create_task(self._answer(frames[0], frames[1]), name="answer")

    async def _serve_holders(self, gate: Gate) -> None:
        """As ``_serve``, where each message comes with the key of who has sent it."""
        async for batch in self._mailbox.batches():
            for frames in batch:
                if len(frames) != 3:
                    continue
                key = frames[2].decode()
                holder = gate.allowed.holder(key)
                if holder is None:  # it was let in once
                    self._cut(key)
                else:
                    self._group.create_task(self._answer(frames[0], frames[1], holder), name="answer")

    def _cut(self, key: str) -> None:
        if isinstance(self._mailbox, KeyedMailbox):
            self._mailbox.cut(key)

    def _shut_out(self, record: KeyRecord) -> None:
        """A key may connect no more: break its connections, and take back what its node holds."""
        _log.warning("key %s (%s, %s) is not let in any more: cut", record.fingerprint, record.name, record.role)
        self._cut(record.key)
        if record.node:
            self._group.create_task(self._lose_shut_out(record), name=f"shut out {record.node}")

    async def _lose_shut_out(self, record: KeyRecord) -> None:
        if self._gate is None or any(one.node == record.node for one in self._gate.allowed.holders()):
            return  # it has another key by now
        try:
            node = next((one for one in await self._state.reader.nodes() if one.id == record.node), None)
            if node is None or node.status is NodeStatus.OFFLINE:
                return
            self._addresses.pop(node.id, None)
            given_up = await self._state.lose_node(
                node.id,
                boot=node.boot_id,
                seen_before_ms=await self._state.now_ms(),
                code="node_lost",
                message=f"the key of node {node.id} was revoked",
            )
        except LcqError as refusal:  # its silence will tell the same
            _log.warning("node %s, whose key was revoked, is not given up yet: %s", record.node, refusal)
            return
        if given_up is not None:
            _log.warning("the key of node %s was revoked; %d of its attempts run elsewhere", node.id, given_up)

    def _all_endpoints(self) -> tuple[str, ...]:
        site = self._ground.site
        return tuple(dict.fromkeys((site.control_endpoint, *site.desk.schedulers)))

    async def _answer(self, sender: bytes, frame: bytes, holder: KeyRecord | None = None) -> None:
        self._mailbox.send(sender, await self._ground.site.desk.answer(frame, sender, holder))

    def order(self, node: str, order: Order) -> None:
        """Hurry a node that is connected here. What is lost on the way its next beat will tell it."""
        address = self._addresses.get(node)
        if address is None:
            return
        version = self._ground.site.desk.version_of(address)
        if knows_order(version, order.cmd):
            self._mailbox.send(address, pack_order(order, version))

    def _have_it_beat(self, node: str) -> None:
        """Have a node fetch its new orders at once, where its agent knows of any."""
        known = self._known.get(node)
        if known is not None and KNOWS_ORDERS in known.capability.knows:
            self.order(node, Order(cmd="beat"))

    async def _order_on_events(self) -> None:
        """Tell nodes at once what an operator's move, made through any scheduler, means for them."""
        async for events in batches(self._state.feed):
            for event in events or ():
                try:
                    self._order_for(event)
                except (KeyError, ValueError) as damage:
                    _log.error("event %s (%s) cannot be read and is passed over: %r", event.id, event.move, damage)

    def _order_for(self, event: Event) -> None:
        fields = event.fields
        if event.move == "activate_node":
            self._slow.pardon(fields["node"], fields.get("device", ""))
        if event.move in ("cancel_task", "reroute_task") and fields.get("from"):
            attempt = int(fields["attempt"])
            self.order(
                fields["from"],
                Order(cmd="cancel", task_id=fields["id"], attempt=attempt, reason=fields["why"]),
            )
        elif event.move in ("finish_task", "retake_task") and fields.get("from"):
            attempt = int(fields["superseded"])
            self.order(
                fields["from"],
                Order(cmd="cancel", task_id=fields["id"], attempt=attempt, reason=fields["why"]),
            )
        elif event.move == "drain_node":
            self.order(fields["node"], Order(cmd="drain", reason=fields["why"]))
            self._have_it_beat(fields["node"])
        elif event.move in ("stop_node", "set_device") or (event.move in _BY_DEVICE and fields.get("device")):
            self._have_it_beat(fields["node"])
        elif event.move == "activate_node":
            self.order(fields["node"], Order(cmd="resume", reason=fields["why"]))
            self._have_it_beat(fields["node"])
        elif event.move == "release_models":
            self.order(fields["node"], Order(cmd="release", reason=fields["reason"]))
        elif event.move == "wish_warm_up":
            wish = WarmWish(device=fields["device"], model=fields["model"], count=int(fields["count"]))
            self.order(fields["node"], Order(cmd="warm", reason=fields["reason"], warm=wish))

    def greet_anew(self) -> None:
        """What nodes are told at their hello has changed: have each say it again, in place of its next beat.

        That every agent understands, of whatever version. What it holds goes on: a hello of the same boot gives
        nothing up.
        """
        self._greeting += 1
        for node in self._addresses:
            self._have_it_beat(node)

    # ------------------------------------------------------------ what agents say

    async def hello(self, hello: Hello, sender: bytes) -> HelloAnswer:
        """Raises:
        StaleBoot: a newer process has taken this node's name.
        NodeNameTaken: an agent with another data folder has it.
        """
        config, site, greeting = self._ground.config, self._ground.site, self._greeting
        serves = hello.capability.serves(config.queues)
        welcome = await self._state.register_node(
            hello.node_id,
            boot=hello.boot_id,
            capability=hello.capability,
            serves=serves,
            via=site.scheduler_id,
            home=hello.home,
        )
        self._addresses[hello.node_id] = sender
        self._greeted[hello.node_id] = greeting
        self._known[hello.node_id] = NodeRecord(
            id=hello.node_id,
            boot_id=hello.boot_id,
            status=welcome.status,
            capability=hello.capability,
            serves=serves,
            good_for=serves,
        )
        _log.info("node %s says hello: %s", hello.node_id, _told(hello))
        return HelloAnswer(
            scheduler_id=site.scheduler_id,
            version=__version__,
            beat_ms=int(config.leases.beat_s * 1000),
            lease_ms=int(config.leases.lease_s * 1000),
            serves=dict(welcome.serves),
            rings=dict(site.rings),
            lifeline=site.lifeline,
            schedulers=site.desk.schedulers,
            status=welcome.status,
            orders=welcome.orders,
            same_host=guesses_host(config),
            lifeline_key=self._line_keys.key_for(hello.node_id, hello.boot_id) if self._gate is not None else "",
        )

    async def step(self, step: Step, sender: bytes) -> StepAnswer:
        """Settle what has ended, then fill what is free.

        Raises:
            StaleBoot: the node must say hello first.
        """
        self._addresses[step.node_id] = sender
        node = await self._node(step.node_id, step.boot_id) if step.want else None
        settled = asyncio.gather(*(self._settle(step.node_id, outcome) for outcome in step.outcomes))
        if any(outcome.failure is not None for outcome in step.outcomes):
            await settled  # it may be its last failure before a quarantine: nothing is granted before that is known
        # Asked for together, they travel to Redis in one pipeline, in this order: the slots are free by then.
        verdicts, grants = await asyncio.gather(
            settled, asyncio.gather(*(self._claim(node, want) for want in step.want if node is not None))
        )
        return StepAnswer(verdicts=tuple(verdicts), grants=tuple(grant for granted in grants for grant in granted))

    async def _settle(self, node: str, outcome: Outcome) -> Verdict:
        cause = outcome.failure.code if outcome.failure is not None else ""
        with about(node=node, task=outcome.task_id, attempt=outcome.attempt, cause=cause):
            if tracing.active is None:
                return await self._settled(node, outcome)
            begun_ns = time.time_ns()
            verdict = await self._settled(node, outcome)
            await tell_commit(tracing.active, self._state.reader, outcome, verdict, node=node, begun_ns=begun_ns)
            return verdict

    async def _settled(self, node: str, outcome: Outcome) -> Verdict:
        task_id, attempt, took = outcome.task_id, outcome.attempt, None
        try:
            if outcome.result is not None:
                took = await self._state.finish_task(
                    task_id,
                    attempt=attempt,
                    node=node,
                    result=outcome.result,
                    peak_mib=outcome.peak_mib,
                    device_peak_mib=outcome.device_peak_mib,
                )
            elif outcome.failure is not None:
                await self._fail(node, outcome, outcome.failure)
            else:
                await self._state.release_task(task_id, attempt=attempt, node=node, cost=outcome.cost)
        except (TaskNotFound, TransitionRefused) as refusal:
            return Verdict(task_id=task_id, attempt=attempt, verdict="refused", detail=str(refusal))
        if took is not None:
            with contextlib.suppress(TaskNotFound):  # its record has been forgotten at once: then it says nothing
                await self._compare(node, task_id, took)
        return Verdict(task_id=task_id, attempt=attempt, verdict="settled")

    async def _fail(self, node: str, outcome: Outcome, failure: Failure) -> None:
        """End an attempt; one that ran out of memory is made easier for as long as there is a step to take, and what
        a function has failed goes on in the house, where that can do it.

        Raises:
            TaskNotFound, TransitionRefused: the attempt is no longer the task's.
        """
        task_id, attempt, easier, home = outcome.task_id, outcome.attempt, None, None
        if failure.error_class is ErrorClass.RESOURCE and failure.code == OUT_OF_MEMORY:
            record = await self._state.reader.task(task_id)
            if record.status is TaskStatus.PROCESSING and (record.attempt, record.node) == (attempt, node):
                easier = None if record.damaged else next_ease(record, await self._state.reader.fleet())
                if easier is None and record.eased:
                    tried = f" (tried: {told_steps(record.eased)})"
                    failure = failure.model_copy(update={"message": failure.message[: 2000 - len(tried)] + tried})
        elif failure.code in BROKE_AT_FUNCTION:
            home = home_of(await self._state.reader.task(task_id), await self._state.reader.fleet())
        is_too_much = await self._state.fail_task(
            task_id,
            attempt=attempt,
            node=node,
            failure=failure,
            easier=easier,
            home=home,
            cost=outcome.cost,
            log=outcome.log,
            peak_mib=outcome.peak_mib,
            device_peak_mib=outcome.device_peak_mib,
        )
        if is_too_much:
            await self._judge(node, task_id, attempt)

    async def _compare(self, node_id: str, task_id: str, took: Took) -> None:
        """Give less to a device that has become slow, and then quarantine it, unless others are as slow or too few."""
        reader, terms = self._state.reader, self._ground.config.quarantine
        try:
            cost = CostKey.parse(took.cost)
        except ValueError:  # of a model with an odd name: nothing is learned of it
            return
        fleet = await reader.recent_fleet(within_s=_COSTS_AGE_S)
        times = self._slow.note(node_id, took, fleet.costs.curves.get(cost), terms)
        if not times or not terms.enabled:
            station = fleet.timetable.stations.get((node_id, took.device))
            if station is not None and station.lowered is not None:
                await self._see_to_lowered(node_id, took, station.lowered)
            return
        record, waiting, nodes = await reader.task(task_id), await reader.lanes(), await reader.nodes()
        node = next((one for one in nodes if one.id == node_id), None)
        if node is None or node.status not in LIVE or took.device in node.quarantined:
            return
        said = slow_verdict(
            node,
            took.device,
            times=times,
            queue=record.queue,
            lane=record.task.lane,
            slow=self._slow,
            waiting=waiting,
            nodes=nodes,
            terms=terms,
        )
        if said.is_out:
            self._slow.hold(node_id, took.device)
            await self._hold(node, took.device, said.why)
            return
        behind = self._slow.behind(node_id, took)
        self._slow.begin_anew(node_id, took.device)
        device = next((one for one in node.capability.devices if one.id == took.device), None)
        if not said.why or device is None:
            return
        before = node.lowered.get(device.id)
        lowered = lowered_by(times, behind or (before.behind if before else times), device.slots, said.why)
        if await self._state.lower_device(node_id, device.id, lowered):
            _log.warning("device %s of node %s is given less: it %s", device.id, node_id, said.why)

    async def _see_to_lowered(self, node_id: str, took: Took, lowered: Lowered) -> None:
        """Give a device as much as before once it is as fast; else keep what is predicted for it about right."""
        behind, terms = self._slow.behind(node_id, took), self._ground.config.quarantine
        is_over = not terms.enabled or terms.slow_times is None or self._slow.is_well(node_id, took)
        if not is_over and is_told(lowered, behind):
            return
        nodes = await self._state.reader.nodes()
        now = next((one.lowered.get(took.device) for one in nodes if one.id == node_id), None)
        if now is None:  # `lowered` is of a moment ago, and that has ended since
            return
        if is_over:
            await self._state.lower_device(node_id, took.device, None)
            _log.warning("device %s of node %s is given as much as before", took.device, node_id)
        else:
            now = now.model_copy(update={"behind": round(max(1.0, behind), 2)})
            await self._state.lower_device(node_id, took.device, now)

    async def _judge(self, node_id: str, task_id: str, attempt: int) -> None:
        """Quarantine a device that has failed too much, or its node, unless others fail as much or are too few."""
        reader, terms = self._state.reader, self._ground.config.quarantine
        record = await reader.task(task_id)
        attempts = await reader.attempts(task_id)
        waiting, nodes = await reader.lanes(), await reader.nodes()
        node = next((one for one in nodes if one.id == node_id), None)
        if node is None or attempt > len(attempts):
            return
        device = attempts[attempt - 1].device
        why = verdict(
            node_id,
            queue=record.queue,
            lane=record.task.lane,
            waiting=waiting,
            nodes=nodes,
            terms=terms,
            device=device if is_held_by_device(node) else "",
        )
        if why:
            await self._hold(node, device, why)
        else:
            _log.warning("node %s fails much, and stays: nobody well could do its work instead", node_id)

    async def _node(self, node_id: str, boot_id: str) -> NodeRecord:
        known = self._known.get(node_id)
        if known is None or known.boot_id != boot_id:
            # It was registered by another scheduler, or before a restart of this one.
            for record in await self._state.reader.nodes():
                self._known[record.id] = record
            known = self._known.get(node_id)
        if known is None or known.boot_id != boot_id:
            raise StaleBoot(node_id)
        return known

    async def _claim(self, node: NodeRecord, want: Want) -> Iterable[Grant]:
        device = next((one for one in node.capability.devices if one.id == want.device), None)
        if device is None:
            return ()
        lanes = node.capability.lanes_of(device)
        costs, patience = await self._outlook.of(node, device, want.warm)
        is_gpu = device.kind is DeviceKind.GPU  # of a CPU's memory no task says beforehand what it needs
        held = asyncio.Event()
        learned = await self._outlook.learned_mib(node, device) if is_gpu and want.fits_mib is not None else {}
        kept = await self._outlook.kept(node, device, self._state.config.http.interactive_slots)
        grants = await self._state.claim_tasks(
            node=node.id,
            boot=node.boot_id,
            device=device.id,
            kind=device.kind,
            slots=min(want.slots, (1 + MOST_IN_HAND) * device.slots),
            lanes=lanes,
            queues=node.good_for.get(device.id, ()),  # the script knows what an operator has made of that
            warm=want.warm,
            fits_mib=want.fits_mib if is_gpu else None,
            needs_mib={lane: mib for lane, mib in _told_needs(node.capability, lanes).items() if lane not in learned},
            learned_mib=learned,
            via=self._ground.site.scheduler_id,
            costs=costs,
            patience=patience,
            most_others=device.slots - kept if kept else None,
            worst_price=device.worst_price,
            on_held=held.set,
        )
        self._outlook.note(node, device, patience, held=held.is_set())
        return grants

    async def beat(self, beat: Beat, sender: bytes) -> BeatAnswer:
        """Raises:
        StaleBoot: the node must say hello first.
        """
        self._addresses[beat.node_id] = sender
        if self._greeted.get(beat.node_id, self._greeting) != self._greeting:
            raise StaleBoot(beat.node_id)
        heard = await self._state.beat_node(
            beat.node_id,
            boot=beat.boot_id,
            running=beat.running,
            telemetry=beat.telemetry,
            readings=beat.devices,
            via=self._ground.site.scheduler_id,
        )
        await self._hold_alarming(beat, heard)
        self._slow.hear(beat.node_id, devices=used_by_others(beat.devices), telemetry=beat.telemetry)
        node, boot = beat.node_id, beat.boot_id
        probe = heard.status is NodeStatus.QUARANTINED and await self._state.probe_node(node, boot=boot)
        probed = [one for one in heard.probed if await self._state.probe_node(node, boot=boot, device=one)]
        return BeatAnswer(
            lost=heard.lost,
            status=heard.status,
            schedulers=self._ground.site.desk.schedulers,
            probe=probe,
            probe_devices=tuple(probed),
            orders=heard.orders,
            now_ms=heard.now_ms,
        )

    async def retake(self, asked: Retake, sender: bytes) -> RetakeAnswer:
        """Raises:
        StaleBoot: a newer process has taken this node's name.
        """
        try:
            retaken = await self._state.retake_task(
                asked.task_id, attempt=asked.attempt, node=asked.node_id, boot=asked.boot_id
            )
        except (TaskNotFound, TransitionRefused) as refusal:
            return RetakeAnswer(why=str(refusal))
        return RetakeAnswer(attempt=retaken.attempt, lease_ms=retaken.lease_ms)

    async def _hold_alarming(self, beat: Beat, heard: Heard) -> None:
        """Quarantine devices whose own agent says that their work is not to be trusted, if they can be spared."""
        alarming = {
            device: one.alarm for device, one in beat.devices.items() if one.alarm and device not in heard.orders.out
        }
        if not alarming or heard.status not in LIVE or not self._ground.config.quarantine.enabled:
            return
        reader, terms = self._state.reader, self._ground.config.quarantine
        for device, why in alarming.items():
            waiting, nodes = await reader.lanes(), await reader.nodes()  # as they are without the device before
            record = next((one for one in nodes if one.id == beat.node_id), None)
            if record is None or device not in record.readings:
                return
            doubt = alarm_verdict(record, device, waiting=waiting, nodes=nodes, terms=terms)
            if not doubt:
                await self._hold(record, device, why)
            elif record.doubted.get(device) != doubt and await self._state.doubt_device(record.id, device, doubt):
                _log.error("device %s of node %s %s", device, record.id, doubt)

    async def _hold(self, node: NodeRecord, device: str, why: str) -> None:
        """Put a device into quarantine: with its node, where that cannot be held by device."""
        held = device if is_held_by_device(node) else ""
        try:
            given_back = await self._state.quarantine_node(node.id, why=why, device=held)
        except (NotFound, TransitionRefused):
            return  # somebody was first
        name = f"device {held} of node {node.id}" if held else f"node {node.id}"
        _log.error("%s is quarantined: it %s; %d tasks got a retry back", name, why, given_back)
        on = f"node={node.id}" + (f" device={held}" if held else "")
        act = {"act": "quarantine", "actor": "cluster", "reason": why, "command": new_id(), "on": on}
        await self._state.note_act(act["command"], b"", act)

    async def probed(self, probed: Probed, sender: bytes) -> Done:
        """Raises:
        StaleBoot: the node must say hello first.
        """
        node = probed.node_id
        status = await self._state.settle_probe(
            node, boot=probed.boot_id, passed=probed.passed, detail=probed.detail, device=probed.device
        )
        name = f"device {probed.device} of node {node}" if probed.device else f"node {node}"
        if status is NodeStatus.ONLINE:
            _log.warning("%s passed its probe, and works again, on probation", name)
            if not probed.device:
                self.order(node, Order(cmd="resume", reason="passed its probe"))
        elif status is not None:
            _log.error("%s stays in quarantine, its probe failed: %s", name, probed.detail)
        return Done()

    async def bye(self, bye: Bye, sender: bytes) -> Done:
        """Raises:
        StaleBoot: another process has this node's name now.
        """
        await self._state.leave_node(bye.node_id, boot=bye.boot_id)
        self._addresses.pop(bye.node_id, None)
        self._known.pop(bye.node_id, None)
        self._line_keys.forget(bye.node_id)
        self._greeted.pop(bye.node_id, None)
        self._outlook.forget(bye.node_id)
        self._slow.forget(bye.node_id)
        _log.info("node %s left in order", bye.node_id)
        return Done()

    # ------------------------------------------------------------ noticing who is gone

    async def _hold_lifeline(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One agent's lifeline: its kernel closes it when the process dies, however it dies."""
        self._lines.add(writer)
        with contextlib.closing(writer):
            try:
                async with asyncio.timeout(10):
                    words = (await reader.readline()).decode("utf-8", "replace").split()
            except (TimeoutError, ValueError, OSError):
                words = []
            if not self._is_an_agents(words):
                self._lines.discard(writer)  # a lifeline is plain TCP: a stranger's would be held for ever
                return
            line = (words[0], words[1])
            self._lifelines[line] = self._lifelines.get(line, 0) + 1
            _notice_a_dead_link(writer.get_extra_info("socket"))
            try:
                in_order = await _until_closed(reader)
            finally:
                self._lifelines[line] -= 1
                if not self._lifelines[line]:
                    del self._lifelines[line]
                self._lines.discard(writer)
        if not in_order and not self._closing.is_set():
            self._group.create_task(self._lifeline_closed(*line), name=f"lifeline of {line[0]}")

    def _is_an_agents(self, words: Sequence[str]) -> bool:
        """Whether who says this may hold a lifeline: where keys are asked for, an agent that has said hello here."""
        if self._gate is None or len(words) < 2:
            return len(words) >= 2
        known = self._known.get(words[0])
        if known is None or known.boot_id != words[1]:
            return False
        return KNOWS_LIFELINE_KEY not in known.capability.knows or self._line_keys.is_proved(words)

    async def _close_lifelines(self, server: asyncio.Server) -> None:
        self._closing.set()  # these lines end because we do: nobody is lost
        server.close()
        for writer in tuple(self._lines):
            writer.close()
        await server.wait_closed()

    async def _lifeline_closed(self, node: str, boot: str) -> None:
        try:
            half_s = self._ground.config.leases.lost_after_s / 2
            await self._stay_open_for(half_s)  # a beat that was in the air when it died is no sign of life
            closed_ms = await self._state.now_ms()
            await self._stay_open_for(half_s)
            if (node, boot) in self._lifelines or self._closing.is_set():
                return
            given_up = await self._state.lose_node(
                node,
                boot=boot,
                seen_before_ms=closed_ms,
                code="node_lost",
                message=f"the agent on {node} died",
            )
        except StateUnavailable:
            return  # the silence of the node will tell the same, once Redis is back
        if given_up is not None:
            _log.warning("node %s died; %d of its attempts run elsewhere", node, given_up)

    async def _stay_open_for(self, seconds: float) -> None:
        """Wait so long; less, where this scheduler ends."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._closing.wait()

    def _listen_first(self) -> None:
        """After a pause of our own, hear everybody's next beat before anybody is declared lost.

        Who was cut off meanwhile connects anew first, which takes as long as its pause between two tries.
        """
        self._listen_until = time.monotonic() + self._beat_s * 1.5 + MOST_RECONNECT_S

    @property
    def _gap_ms(self) -> int:
        """After a longer pause between two of its looks a scheduler counts as one that has not listened.

        However short its beats are: a busy one is late by some tenths of a second all the time, and listens all the
        same.
        """
        return int(1000 * (_TICK_S + max(self._beat_s / 2, _LATE_S)))

    async def _watch_nodes(self) -> None:
        scheduler_id = self._ground.site.scheduler_id
        last = time.monotonic()
        complaints = Complaints("node duties")
        while True:
            await asyncio.sleep(_TICK_S)
            now = time.monotonic()
            if now - last > _TICK_S + self._beat_s / 2:
                _log.warning("this scheduler stood still for %.1f s; listening before judging", now - last)
                self._listen_first()
            last = now
            try:
                set_by_ms = await self._look_at_clock()
                may_judge = now >= self._listen_until or set_by_ms
                judged_ms = await self._state.take_duty(
                    "nodes", scheduler_id, hold_ms=_DUTY_HOLD_MS if may_judge else 0, listens_gap_ms=self._gap_ms
                )
                if time.monotonic() - now > self._beat_s / 2:
                    self._listen_first()  # we stood still in here, or Redis did: beats may be waiting to be heard
                    continue
                if judged_ms is None:
                    continue
                if set_by_ms:
                    await self._follow_clock(set_by_ms)
                    continue
                judged_ms = min(judged_ms, self._clock.most_ms())
                for duty in (self._expire, self._judge_silent_nodes, self._forget):
                    await complained(duty(judged_ms), complaints)
            except StateUnavailable:
                self._listen_first()
            except LcqError as refusal:
                complaints.say(refusal)

    async def _look_at_clock(self) -> int:
        """By how many ms Redis's clock has been set since the last look, if nobody has seen to that."""
        asked_at = steady_now()
        now_ms, shifts = await self._state.clock()
        set_by_ms = self._clock.note(now_ms, asked_at=asked_at, told_at=steady_now())
        is_news = set_by_ms != 0 and shifts == self._shifts
        self._shifts = shifts
        if set_by_ms:
            self._listen_first()
        return set_by_ms if is_news else 0

    async def _follow_clock(self, set_by_ms: int) -> None:
        leases = await self._state.shift_deadlines(set_by_ms, shifts=self._shifts or 0)
        if leases is not None:
            _log.warning(
                "Redis's clock was set by %+.1f s (or another server took over); %d leases were moved along",
                set_by_ms / 1000,
                leases,
            )

    async def _expire(self, judged_ms: int) -> None:
        for ended in await self._state.expire_leases(judged_ms=judged_ms):
            facts = {"task": ended.task_id, "node": ended.node}
            _log.warning("the lease of task %s on %s has run out", *facts.values(), extra=facts)

    async def _forget(self, _judged_ms: int) -> None:
        await self._state.forget_nodes(silence_ms=_FORGET_NODE_MS)

    async def _judge_silent_nodes(self, now_ms: int) -> None:
        """Suspect nodes whose beat is overdue, lose those silent for a lease: each by what it was told at its hello."""
        leases = self._ground.config.leases
        ears = await self._state.reader.listening()
        for node in await self._state.reader.nodes():
            if node.damaged:
                await self._state.isolate_node(node.id, found=node.damaged)
                continue
            silent_ms = now_ms - node.seen_ms
            lease_ms = node.lease_ms or int(leases.lease_s * 1000)
            if silent_ms >= lease_ms and node.status is not NodeStatus.OFFLINE:
                await self._lose_silent_node(node, now_ms - lease_ms, lease_ms)
                continue
            beat_ms = node.beat_ms or leases.beat_s * 1000
            overdue = overdue_ms(beat_ms, lease_ms)
            unheard = unheard_ms(
                node.seen_ms, node.scheduler, ears, beat_ms=beat_ms, gap_ms=self._gap_ms, now_ms=now_ms
            )
            if unheard >= overdue and node.status is NodeStatus.ONLINE:
                why = f"no beat for {silent_ms / 1000:.1f} s"
                await self._state.suspect_node(node.id, boot=node.boot_id, seen_before_ms=now_ms - overdue, why=why)

    async def _lose_silent_node(self, node: NodeRecord, silent_since_ms: int, lease_ms: int) -> None:
        message = f"node {node.id} has been silent for {lease_ms / 1000:g} s"
        given_up = await self._state.lose_node(
            node.id, boot=node.boot_id, seen_before_ms=silent_since_ms, code="node_silent", message=message
        )
        if given_up is not None:
            _log.warning("%s; %d of its attempts run elsewhere", message, given_up)


def _told_needs(capability: NodeCapability, lanes: Iterable[str]) -> dict[str, int]:
    """What the node's own engines say that a task needs of a GPU, by lane."""
    needs = ((lane, capability.models[model_of(lane)].vram_mib) for lane in lanes)
    return {lane: vram_mib for lane, vram_mib in needs if vram_mib}


def _told(hello: Hello) -> str:
    devices = ", ".join(f"{device.id} ({device.slots} slots)" for device in hello.capability.devices)
    return f"{devices or 'no device'}; models {', '.join(sorted(hello.capability.models)) or 'none'}"


def _notice_a_dead_link(line: socket.socket) -> None:
    """Have the kernel close a lifeline whose other end has vanished without a word: else it would be kept for ever."""
    line.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, seconds in (("TCP_KEEPIDLE", 15), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 6)):
        if hasattr(socket, option):  # macOS names the first one otherwise
            line.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), seconds)


async def _until_closed(reader: asyncio.StreamReader) -> bool:
    """Wait for the end of a lifeline; False if it is the end of its agent, who said no ``bye`` before."""
    said = b""
    try:
        while chunk := await reader.read(64):
            said = (said + chunk)[-64:]
    except ConnectionError:
        return False
    except OSError:
        return True  # a link that carries nothing: of the agent that says nothing, its lease decides
    return said.endswith(b"bye\n")

"""QueueManager: the queues' bells. Owns one PUSH socket a queue and rings it while tasks wait."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable, Sequence
from contextlib import AsyncExitStack

import zmq

from lcq.component import Ground, Manager, run_beside
from lcq.errors import InvalidConfig, LcqError
from lcq.gate import open_gate
from lcq.key_record import KeyRecord, KeyRole
from lcq.models import QueueConfig, TaskStatus
from lcq.sockets import HandshakeWatch, Mailbox, advertised_host, bind_socket, make_socket
from lcq.state.feed import batches
from lcq.wire import Ticket, pack_ticket

_MOST_TICKETS = 64  # at a time and queue: a bell for everybody idle, no flood
_FIRST_AGAIN_S = 0.02
_LAST_AGAIN_S = 0.5
_IDLE_S = 5.0  # the floor under the events
_WAKING_MOVES = frozenset({"resume_queue", "move_aside", "activate_node", "register_node", "settle_probe"})


class QueueManager(Manager):
    """Rings for every task that becomes ready, and again until it is claimed or nobody is idle.

    A ticket is a bell, never a right: losing one costs at most ``_LAST_AGAIN_S``, never a task.
    """

    def __init__(self, ground: Ground | None = None) -> None:
        super().__init__(ground)
        self._bound: dict[int, tuple[Mailbox, str]] = {}  # port_offset -> a bell, and its endpoint
        self._rings: dict[str, Mailbox] = {}
        self._watches: dict[Mailbox, HandshakeWatch] = {}  # where keys are asked for
        self._waiting = asyncio.Event()
        self.tickets_sent = 0

    async def _open(self, ground: Ground, stack: AsyncExitStack) -> None:
        self._ground = ground
        self._context = zmq.Context()
        stack.callback(self._context.term)
        self._gate = gate = await open_gate(ground, self._context, stack)
        if gate is not None:
            self._group = await stack.enter_async_context(asyncio.TaskGroup())
        stack.callback(self._close_rings)  # which ends what watches them
        if gate is not None:
            gate.allowed.on_revoked(self._shut_out, stack)
            gate.on_turned(self._ring_anew)
        for queue in ground.config.queues:
            self._bound[queue.port_offset] = self._bind(queue)
        self._hang_up(ground.config.queues)
        await run_beside(stack, ("ring on events", self._ring_on_events()), ("ring again", self._ring_again()))

    def _bind(self, queue: QueueConfig) -> tuple[Mailbox, str]:
        """A bell of ``queue``, and the endpoint at which it rings.

        Raises:
            InvalidConfig: its port is taken.
        """
        config = self._ground.config
        socket = make_socket(self._context, zmq.PUSH, high_water=_MOST_TICKETS, gate=self._gate)
        watch = self._gate.watch(socket) if self._gate is not None else None
        port = config.zeromq.base_port and config.zeromq.base_port + queue.port_offset
        try:
            bound = bind_socket(
                socket,
                config.zeromq.bind,
                port,
                f"queue {queue.name}",
                "zeromq.base_port",
                trusted=config.zeromq.trusted_network,
            )
        except InvalidConfig:
            if watch is not None:
                watch.close()
            socket.close(linger=0)
            raise
        bell = Mailbox(socket)
        if watch is not None:
            self._watches[bell] = watch
            self._group.create_task(watch.watch(), name=f"handshakes of {queue.name}")
        return bell, f"tcp://{advertised_host(config)}:{bound}"

    def _shut_out(self, record: KeyRecord) -> None:
        """Nobody knows at which end of a bell a key hears it: all agents connect anew, and this one cannot."""
        if record.role is KeyRole.AGENT:
            self._group.create_task(self._ring_anew(), name="bells bound again")

    async def _ring_anew(self) -> None:
        if self._gate is not None:
            await asyncio.gather(*(bell.bind_again(self._gate) for bell, _ in self._bound.values()))

    def _hang_up(self, queues: Iterable[QueueConfig]) -> None:
        """Let each queue ring the bell that is bound at its place."""
        told = {queue.name: self._bound[queue.port_offset] for queue in queues}
        self._rings = {name: bell for name, (bell, _) in told.items()}
        rings = self._ground.site.rings
        rings.clear()
        rings.update({name: endpoint for name, (_, endpoint) in told.items()})

    def _close_rings(self) -> None:
        for bell, _ in self._bound.values():
            self._close(bell)

    def _close(self, bell: Mailbox) -> None:
        watch = self._watches.pop(bell, None)
        if watch is not None:
            watch.close()
        bell.close()

    def follow(self, queues: Sequence[QueueConfig]) -> None:
        """Ring for just these queues from now on. A bell whose port stays needed stays bound, whatever it rings for.

        Raises:
            InvalidConfig: the port of a new one is taken; then everything is as it was.
        """
        new: dict[int, tuple[Mailbox, str]] = {}
        try:
            for queue in queues:
                if queue.port_offset not in self._bound:
                    new[queue.port_offset] = self._bind(queue)
        except InvalidConfig:
            for bell, _ in new.values():
                self._close(bell)
            raise
        self._bound |= new
        self._hang_up(queues)
        for offset in self._bound.keys() - {queue.port_offset for queue in queues}:
            self._close(self._bound.pop(offset)[0])
        self._waiting.set()

    def ring(self, queue: str, *, tickets: int = 1, task_id: str = "") -> None:
        """Wake up to ``tickets`` idle agents of ``queue``. Nobody idle: nothing happens."""
        frame = pack_ticket(Ticket(queue=queue, task_id=task_id))
        mailbox = self._rings.get(queue)
        if mailbox is None:  # of a queue that has just been taken out of the settings
            return
        for _ in range(min(tickets, _MOST_TICKETS)):
            missed = mailbox.dropped
            mailbox.send(frame)
            if mailbox.dropped > missed:  # nobody is in the ring: all are busy, or there is none
                return
            self.tickets_sent += 1

    async def _ring_on_events(self) -> None:
        async for events in batches(self._ground.state.feed):
            if events is None:
                self._waiting.set()
                continue
            ready: dict[str, int] = {}
            for event in events:
                if event.fields.get("status") == TaskStatus.QUEUED:
                    queue = event.fields.get("queue", "")
                    ready[queue] = ready.get(queue, 0) + 1
                if event.move in _WAKING_MOVES:
                    self._waiting.set()
            for queue, count in ready.items():
                self.ring(queue, tickets=count)
            if ready:
                self._waiting.set()

    async def _ring_again(self) -> None:
        """While tasks wait, ring for them, sooner at first: a ticket may have gone to one who was just busy."""
        pause = _FIRST_AGAIN_S
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._waiting.wait()
                pause = _FIRST_AGAIN_S
                await asyncio.sleep(pause)
            self._waiting.clear()
            try:
                ready = await self._ground.state.reader.ready()
            except LcqError:  # StateManager's feed or another duty has said so
                pause = _LAST_AGAIN_S
                continue
            for queue, depth in ready.items():
                if depth:
                    self.ring(queue, tickets=depth)
            pause = min(pause * 2, _LAST_AGAIN_S) if any(ready.values()) else _IDLE_S

"""QueueManager: the queues' bells. Owns one PUSH socket a queue and rings it while tasks wait."""

from __future__ import annotations

import asyncio
import contextlib
from contextlib import AsyncExitStack

import zmq

from lcq.component import Ground, Manager, run_beside
from lcq.errors import LcqError
from lcq.models import TaskStatus
from lcq.sockets import Mailbox, advertised_host, bind_socket, make_socket, refuse_open_bind
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
        self._rings: dict[str, Mailbox] = {}
        self._waiting = asyncio.Event()
        self.tickets_sent = 0

    async def _open(self, ground: Ground, stack: AsyncExitStack) -> None:
        self._ground = ground
        zeromq = ground.config.zeromq
        refuse_open_bind(ground.config)
        context = zmq.Context()
        stack.callback(context.term)
        for queue in ground.config.queues:
            socket = make_socket(context, zmq.PUSH, high_water=_MOST_TICKETS)
            ring = self._rings[queue.name] = Mailbox(socket)
            stack.callback(ring.close)
            port = zeromq.base_port and zeromq.base_port + queue.port_offset
            bound = bind_socket(socket, zeromq.bind, port, f"queue {queue.name}", "zeromq.base_port")
            ground.site.rings[queue.name] = f"tcp://{advertised_host(ground.config)}:{bound}"
        await run_beside(stack, ("ring on events", self._ring_on_events()), ("ring again", self._ring_again()))

    def ring(self, queue: str, *, tickets: int = 1, task_id: str = "") -> None:
        """Wake up to ``tickets`` idle agents of ``queue``. Nobody idle: nothing happens."""
        frame = pack_ticket(Ticket(queue=queue, task_id=task_id))
        mailbox = self._rings[queue]
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
                if queue in self._rings:
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

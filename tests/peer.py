"""A scheduler's socket whose answers a test decides: a real ROUTER, real frames, no scheduler behind it."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from typing import Any, cast

import zmq

from lcq.client import AsyncClient
from lcq.config import DistributedConfig
from lcq.errors import LcqError, UnknownCommand
from lcq.models import Event, Task, TaskRecord, TaskStatus, TaskType
from lcq.sockets import Mailbox, make_socket
from lcq.wire import EventsAnswer, GetTasksAnswer, InfoAnswer, Message, Request, pack_answer, pack_error, unpack_request
from tests.conftest import wait_until

PATIENT_S = 30.0

Answer = Message | LcqError | None
Handler = Callable[[Any], Answer | Awaitable[Answer]]


class Peer:
    """A ROUTER that answers as each test wants; what a handler answers None to, it never heard."""

    def __init__(self, **handlers: Handler) -> None:
        self.handlers: dict[str, Handler] = {
            "whys": lambda ask: UnknownCommand("an older scheduler knows no 'whys'"),
            "store": lambda ask: UnknownCommand("an older scheduler knows no 'store'"),
        }
        self.handlers |= handlers
        self.heard: list[Any] = []  # Requests, of every kind; once, however often a client that waits long sends one
        self.senders: list[bytes] = []
        self.endpoint = ""
        self._mailbox: Mailbox | None = None

    @contextlib.asynccontextmanager
    async def listening(self) -> AsyncIterator[Peer]:
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        socket = make_socket(context, zmq.ROUTER)
        socket.bind(self.endpoint or "tcp://127.0.0.1:*")
        self.endpoint = cast(bytes, socket.last_endpoint).decode()
        self._mailbox = Mailbox(socket)
        try:
            async with asyncio.TaskGroup() as group:
                serving = group.create_task(self._serve(self._mailbox))
                yield self
                serving.cancel()
        finally:
            self._mailbox.close()
            context.term()

    async def _serve(self, mailbox: Mailbox) -> None:
        async with asyncio.TaskGroup() as answering:
            async for batch in mailbox.batches():
                for sender, frame in batch:
                    request = unpack_request(frame)
                    if request.id not in {one.id for one in self.heard}:
                        self.heard.append(request)
                        self.senders.append(sender)
                    answering.create_task(self._answer(sender, request))

    async def _answer(self, sender: bytes, request: Request[Any]) -> None:
        answer = self.handlers[request.CMD](request)
        if inspect.isawaitable(answer):
            answer = await answer
        if isinstance(answer, LcqError):
            await self.send(sender, pack_error(request.id, answer))
        elif answer is not None:
            await self.send(sender, pack_answer(request.id, answer))

    async def send(self, sender: bytes, frame: bytes) -> None:
        assert self._mailbox is not None
        self._mailbox.send(sender, frame)

    def heard_of(self, command: str) -> list[Any]:
        return [request for request in self.heard if command == request.CMD]

    def client(self, timeout_s: float = PATIENT_S) -> AsyncClient:
        return AsyncClient(DistributedConfig(), scheduler=self.endpoint, actor="ann", timeout_s=timeout_s)


def a_task(**values: Any) -> Task:
    return Task(task_type=TaskType.INPAINT, image_path="a.png", **values)


def a_record(task_id: str, status: TaskStatus = TaskStatus.QUEUED) -> TaskRecord:
    task = a_task(id=task_id)
    return TaskRecord(task=task, status=status, revision=1, queue="cpu-light", priority=task.priority)


def info(last_event_id: str = "0-0") -> InfoAnswer:
    return InfoAnswer(
        scheduler_id="s", version="9", protocol=1, redis="8", queues=(), last_event_id=last_event_id, pid=1
    )


class Story:
    """Tasks and events that a peer tells about; tests move them on."""

    def __init__(self, ids: Iterable[str]) -> None:
        self.status = dict.fromkeys(ids, TaskStatus.QUEUED)
        self.events: list[Event] = []
        self.gap = False

    def move(self, task_id: str, to: TaskStatus, *, silently: bool = False) -> None:
        self.status[task_id] = to
        if not silently:
            fields = {"id": task_id, "status": to.value}
            self.events.append(Event(id=f"1000-{len(self.events) + 1}", move="test", fields=fields))

    @property
    def last_id(self) -> str:
        return self.events[-1].id if self.events else "0-0"

    def peer(self) -> Peer:
        return Peer(info=lambda ask: info(self.last_id), get_tasks=self.get_tasks, events=self.tell)

    def get_tasks(self, ask: Any) -> GetTasksAnswer:
        return GetTasksAnswer(tasks=tuple(a_record(one, self.status[one]) for one in ask.ids if one in self.status))

    async def tell(self, ask: Any) -> EventsAnswer:
        await wait_until(lambda: self.gap or self.last_id != ask.after, what="an event, a gap, or the end")
        gap, self.gap = self.gap, False
        news = tuple(event for event in self.events if order(event.id) > order(ask.after))
        return EventsAnswer(events=() if gap else news, last_id=self.last_id, gap=gap)


def order(event_id: str) -> tuple[int, ...]:
    return tuple(map(int, event_id.split("-")))

"""What agents have logged of late and kept of attempts: asked for by who reads it, told by the agents themselves."""

from __future__ import annotations

from collections.abc import Callable

from lcq.errors import InvalidInput, LogElsewhere, LogNotKept, NodeNotFound, NoLog
from lcq.health import KNOWS_LOG, KNOWS_TASK_LOGS
from lcq.ids import new_id
from lcq.models import Attempt, NodeRecord, NodeStatus
from lcq.state.reader import StateReader
from lcq.wire import (
    Done,
    LogAnswer,
    Logged,
    LogWish,
    Order,
    ReadLog,
    ReadTaskLog,
    TaskLogAnswer,
    TaskLogged,
    TaskLogWish,
)
from lcq.wishes import Wishes

_MOST_AT_A_TIME = 64  # questions that wait for their agents
_ANSWER_S = 2.5  # an agent answers at once, or not at all


class Logs:
    """Brings the lines that an agent keeps to who asks for them. Nothing is kept here."""

    def __init__(
        self, reader: StateReader, *, order: Callable[[str, Order], None], is_here: Callable[[str], bool]
    ) -> None:
        """``order`` tells a node; ``is_here``: whether that node speaks to this scheduler."""
        self._reader, self._order, self._is_here = reader, order, is_here
        self._wishes: Wishes[Logged] = Wishes(patience_s=_ANSWER_S)
        self._task_wishes: Wishes[TaskLogged] = Wishes(patience_s=_ANSWER_S)

    async def read(self, request: ReadLog, sender: bytes) -> LogAnswer:
        """Raises:
        NodeNotFound.
        NoLog: its agent cannot be asked: why not.
        LogElsewhere: it speaks to another scheduler.
        """
        node = request.node
        record = await self._node(node)
        if record is None:
            raise NodeNotFound(node)
        self._check(record, KNOWS_LOG, "what its agent wrote to its own log file is still on its host")
        wish = LogWish(id=new_id(), after=request.after, limit=request.limit, task=request.task)
        told = await self._wishes.ask(wish.id, lambda: self._order(node, Order(cmd="log", log=wish)))
        if told is None:
            raise _silent(node)
        return LogAnswer(node=node, boot=told.boot_id, lines=told.lines, first=told.first, last=told.last)

    async def read_task(self, request: ReadTaskLog, sender: bytes) -> TaskLogAnswer:
        """Raises:
        TaskNotFound.
        InvalidInput: it has no such attempt.
        NoLog: no node has taken it yet; or the agent that ran it cannot be asked: why not.
        LogElsewhere: that one speaks to another scheduler.
        """
        attempt = await self._attempt(request)
        node = attempt.node
        record = await self._node(node)
        if record is None:
            raise NoLog(node, "it has left the cluster, and has been forgotten")
        kept = f"what attempt {attempt.number} wrote is still on its host, and can be read when it is back"
        self._check(record, KNOWS_TASK_LOGS, kept)
        wish = TaskLogWish(
            id=new_id(), task=request.task, attempt=attempt.number, begin=request.begin, limit=request.limit
        )
        told = await self._task_wishes.ask(wish.id, lambda: self._order(node, Order(cmd="task_log", task_log=wish)))
        if told is None:
            raise _silent(node)
        return TaskLogAnswer(
            task=request.task,
            attempt=attempt.number,
            node=node,
            lines=told.lines,
            next=told.next,
            size=told.size,
            kept=told.kept,
            is_open=told.is_open,
            is_there=told.is_there,
        )

    async def _attempt(self, request: ReadTaskLog) -> Attempt:
        attempts = await self._reader.attempts(request.task)
        if not attempts:
            await self._reader.task(request.task)  # which says where there is none
            raise NoLog("", "no node has taken it yet", of=f"task {request.task}")
        if not request.attempt:
            return attempts[-1]
        for attempt in attempts:
            if attempt.number == request.attempt:
                return attempt
        known = ", ".join(str(one.number) for one in attempts)
        raise InvalidInput(f"task {request.task} has no attempt {request.attempt}", hint=f"it has {known}")

    async def _node(self, node: str) -> NodeRecord | None:
        return next((one for one in await self._reader.nodes() if one.id == node), None)

    def _check(self, record: NodeRecord, ability: str, kept: str) -> None:
        """Raises:
        NoLog: the agent cannot be asked for that. ``kept``: what is left on the host of one that is gone.
        LogElsewhere.
        """
        if record.status is NodeStatus.OFFLINE:
            raise NoLog(record.id, f"it is offline; {kept}")
        if ability not in record.capability.knows:
            version = record.capability.version or "of an unknown version"
            raise LogNotKept(record.id, f"its agent (lcq {version}) is too old for that")
        if not self._is_here(record.id):
            raise LogElsewhere(record.id, "it speaks to another scheduler")
        if len(self._wishes) + len(self._task_wishes) >= _MOST_AT_A_TIME:
            raise NoLog(record.id, f"{_MOST_AT_A_TIME} others are reading logs just now")

    async def logged(self, told: Logged, sender: bytes) -> Done:
        """Take in what an agent tells; nobody may wait for it any more."""
        return self._wishes.take_in(told)

    async def task_logged(self, told: TaskLogged, sender: bytes) -> Done:
        """The same of an attempt."""
        return self._task_wishes.take_in(told)


def _silent(node: str) -> LogElsewhere:
    return LogElsewhere(node, f"its agent has not answered within {_ANSWER_S:g} s")

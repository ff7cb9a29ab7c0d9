"""What agents have logged of late: asked for by who reads it, told by the agents themselves. Nothing is kept here."""

from __future__ import annotations

from collections.abc import Callable

from lcq.errors import LogElsewhere, NodeNotFound, NoLog
from lcq.health import KNOWS_LOG
from lcq.ids import new_id
from lcq.models import NodeStatus
from lcq.state.reader import StateReader
from lcq.wire import Done, LogAnswer, Logged, LogWish, Order, ReadLog
from lcq.wishes import Wishes

_MOST_AT_A_TIME = 64  # questions that wait for their agents
_ANSWER_S = 2.5  # an agent answers at once, or not at all


class Logs:
    """Brings the lines that an agent keeps to who asks for them."""

    def __init__(
        self, reader: StateReader, *, order: Callable[[str, Order], None], is_here: Callable[[str], bool]
    ) -> None:
        """``order`` tells a node; ``is_here``: whether that node speaks to this scheduler."""
        self._reader, self._order, self._is_here = reader, order, is_here
        self._wishes: Wishes[Logged] = Wishes(patience_s=_ANSWER_S)

    async def read(self, request: ReadLog, sender: bytes) -> LogAnswer:
        """Raises:
        NodeNotFound.
        NoLog: its agent cannot be asked: why not.
        LogElsewhere: it speaks to another scheduler.
        """
        node = request.node
        record = next((one for one in await self._reader.nodes() if one.id == node), None)
        if record is None:
            raise NodeNotFound(node)
        if record.status is NodeStatus.OFFLINE:
            raise NoLog(node, "it is offline; what its agent wrote to its own log file is still on its host")
        if KNOWS_LOG not in record.capability.knows:
            raise NoLog(
                node, f"its agent (lcq {record.capability.version or 'of an unknown version'}) is too old for that"
            )
        if not self._is_here(node):
            raise LogElsewhere(node, "it speaks to another scheduler")
        if len(self._wishes) >= _MOST_AT_A_TIME:
            raise NoLog(node, f"{_MOST_AT_A_TIME} others are reading logs just now")
        wish = LogWish(id=new_id(), after=request.after, limit=request.limit, task=request.task)
        told = await self._wishes.ask(wish.id, lambda: self._order(node, Order(cmd="log", log=wish)))
        if told is None:
            raise LogElsewhere(node, f"its agent has not answered within {_ANSWER_S:g} s")
        return LogAnswer(node=node, boot=told.boot_id, lines=told.lines, first=told.first, last=told.last)

    async def logged(self, told: Logged, sender: bytes) -> Done:
        """Take in what an agent tells; nobody may wait for it any more."""
        return self._wishes.take_in(told)

"""Which files agents see: asked by who submits, so that only what they do not see has to be sent. Nothing is kept."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from lcq.ids import new_id
from lcq.models import NodeRecord, NodeStatus
from lcq.state.reader import StateReader
from lcq.storage.addresses import KNOWS_ADDRESSES
from lcq.wire import AskSees, Done, Order, Saw, SeenFile, SeesAnswer, SeeWish
from lcq.wishes import Wishes

_MOST_AT_A_TIME = 256  # questions that wait for their agents
_ANSWER_S = 3.0  # a disk that does not answer by then is not one to work on


class Sights:
    """Asks every agent that lives, and speaks to this scheduler."""

    def __init__(
        self, reader: StateReader, *, order: Callable[[str, Order], None], is_here: Callable[[str], bool]
    ) -> None:
        """``order`` tells a node; ``is_here``: whether that node speaks to this scheduler."""
        self._reader, self._order, self._is_here = reader, order, is_here
        self._wishes: Wishes[Saw] = Wishes(patience_s=_ANSWER_S)

    async def sees(self, request: AskSees, sender: bytes) -> SeesAnswer:
        """Which of some files some agent does not see. Who is not asked, or does not answer, sees none of them; agents
        that are older than the question take every task's paths as they are, and see all."""
        nodes = [node for node in await self._reader.nodes() if node.status is not NodeStatus.OFFLINE]
        told = await asyncio.gather(*(self._seen_by(node, request.files) for node in nodes))
        unseen: dict[str, str] = {}
        for node, seen in zip(nodes, told, strict=True):
            for file in request.files:
                if file.path not in seen:
                    unseen.setdefault(file.path, node.id)
        return SeesAnswer(unseen=unseen, nodes=len(nodes))

    async def _seen_by(self, node: NodeRecord, files: tuple[SeenFile, ...]) -> frozenset[str]:
        if KNOWS_ADDRESSES not in node.capability.knows:
            return frozenset(file.path for file in files)
        if not self._is_here(node.id) or len(self._wishes) >= _MOST_AT_A_TIME:
            return frozenset()
        wish = SeeWish(id=new_id(), files=files)
        told = await self._wishes.ask(wish.id, lambda: self._order(node.id, Order(cmd="see", see=wish)))
        return frozenset(told.seen) if told is not None else frozenset()

    async def saw(self, told: Saw, sender: bytes) -> Done:
        """Take in what an agent tells; nobody may wait for it any more."""
        return self._wishes.take_in(told)

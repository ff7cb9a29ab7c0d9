"""Small pictures of tasks: asked for by who looks at them, made by the agents that reach the files. None is kept."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from lcq.errors import NodeElsewhere, NoThumbnail
from lcq.ids import new_id
from lcq.models import NodeRecord, NodeStatus, TaskRecord
from lcq.picture_parts import KNOWS_PICTURES, Part, files_of, why_another, why_none
from lcq.state.reader import StateReader
from lcq.wire import AskThumbnail, Done, Order, Pictured, ThumbnailAnswer, ThumbnailPart, ThumbnailWish
from lcq.wishes import Wishes

MOST_AT_A_TIME = 32  # wishes that wait for their agents
_ANSWER_S = 12.0  # an agent gives up before that, and says so
_NODES_ASKED = 2  # one after the other, in less than a client waits


class Previews:
    """Has small pictures made. What a node cannot show the next may: the one that has done the task is asked first."""

    def __init__(
        self, reader: StateReader, *, order: Callable[[str, Order], None], is_here: Callable[[str], bool]
    ) -> None:
        """``order`` tells a node; ``is_here``: whether that node speaks to this scheduler."""
        self._reader, self._order, self._is_here = reader, order, is_here
        self._wishes: Wishes[Pictured] = Wishes(patience_s=_ANSWER_S)

    @property
    def waiting(self) -> int:
        """How many wishes wait for their agents."""
        return len(self._wishes)

    async def thumbnail(self, request: AskThumbnail, sender: bytes) -> ThumbnailAnswer:
        """Raises:
        TaskNotFound.
        NoThumbnail: no node can be asked.
        NodeElsewhere: those that can speak to another scheduler.
        """
        record = await self._reader.task(request.task_id)
        tried = [attempt.node for attempt in await self._reader.attempts(request.task_id)]
        files = {part: path for part, path in files_of(record).items() if part in request.parts}
        if "overlay" in request.parts and "mask" in files_of(record):
            files["overlay"] = record.task.image_path
        parts = {part: ThumbnailPart(why=why_none(part, record)) for part in request.parts if part not in files}
        if not files:
            return ThumbnailAnswer(parts={str(part): one for part, one in parts.items()})
        best, able = self._able(record, tried, await self._reader.nodes())
        answered = ""
        for node in [one for one in able if self._is_here(one)][:_NODES_ASKED]:
            left = {part: path for part, path in files.items() if part not in parts or not parts[part].data}
            if not left:
                break
            told = await self._ask(node, left, request, record.task.mask_path or "")
            for part in left if told is not None else ():
                one = _judged(part, told.parts.get(part), record, node) if told is not None else None
                if one is not None and (one.data or part not in parts):
                    parts[part] = one
                    answered = answered if answered and not one.data else node
        if best and not self._is_here(best) and not any(one.data for one in parts.values()):
            raise NodeElsewhere(record.id, f"{best} speaks to another scheduler")
        if not answered:
            raise NoThumbnail(record.id, f"none of those that could has answered within {_ANSWER_S:g} s")
        return ThumbnailAnswer(parts={str(part): one for part, one in parts.items()}, node=answered)

    async def pictured(self, told: Pictured, sender: bytes) -> Done:
        """Take in what an agent has made; nobody may wait for it any more."""
        return self._wishes.take_in(told)

    @staticmethod
    def _able(record: TaskRecord, tried: Iterable[str], nodes: Iterable[NodeRecord]) -> tuple[str, list[str]]:
        """The node that knows the task's files best, and all that can be asked, best first."""
        able = {
            node.id: node
            for node in nodes
            if node.status is not NodeStatus.OFFLINE and KNOWS_PICTURES in node.capability.knows
        }
        if not able:
            raise NoThumbnail(record.id, "no live agent shows pictures (agent.thumbnails is off, or they are older)")
        first = [node for node in dict.fromkeys((record.node, *reversed(list(tried)))) if node in able]
        others = sorted((node for node in able if node not in first), key=lambda node: able[node].running)
        ranked = [*first, *others]
        return ranked[0], ranked

    async def _ask(self, node: str, files: dict[Part, str], request: AskThumbnail, mask: str) -> Pictured | None:
        if len(self._wishes) >= MOST_AT_A_TIME:
            raise NoThumbnail(
                request.task_id, f"{MOST_AT_A_TIME} others are looked at just now; look again in a moment"
            )
        wish = ThumbnailWish(
            id=new_id(),
            files={str(part): path for part, path in files.items()},
            longest=request.longest,
            box=request.box,
            mask=mask if "overlay" in files else "",
            webp=request.webp,
        )
        return await self._wishes.ask(wish.id, lambda: self._order(node, Order(cmd="picture", wish=wish)))


def _judged(part: Part, told: ThumbnailPart | None, record: TaskRecord, node: str) -> ThumbnailPart | None:
    """What a node has told, unless it is of another file that lies there under this name."""
    if told is None or not told.data:
        return told
    why = why_another(part, record, size=(told.width, told.height), file_bytes=told.bytes)
    return ThumbnailPart(why=f"on {node} {why}") if why else told

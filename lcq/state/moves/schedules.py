"""What is kept of schedules, and what windows do to nodes."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import timedelta

from lcq.errors import NodeNotFound, TransitionRefused
from lcq.state.moves.mover import Mover

_REMEMBERED_MS = timedelta(days=90) // timedelta(milliseconds=1)


@dataclass(frozen=True)
class SeenSchedule:
    """``since_ms``: what is due later than this was not run yet. ``paused_by``: "" where it is not paused."""

    now_ms: int
    since_ms: int
    paused_by: str
    paused_reason: str


class ScheduleMoves(Mover):
    """The moves of schedules and windows. No two runs of a schedule do the same twice: its tasks have keys."""

    async def see_schedule(self, name: str, *, mark: str) -> SeenSchedule:
        """What is kept of a schedule; one that is new, or has another ``mark``, begins now."""
        answer = await self._move("see_schedule", name, mark, _REMEMBERED_MS)
        return SeenSchedule(int(answer[1]), int(float(answer[2])), str(answer[3]), str(answer[4]))

    async def end_schedule(self, name: str, *, due_ms: int, **told: str | int) -> bool:
        """A run is over; answers whether this was the first to say so."""
        answer = await self._move("end_schedule", name, due_ms, json.dumps({"due_ms": due_ms, **told}))
        return bool(answer[0] == "ok")

    async def pause_schedule(self, name: str, *, actor: str, reason: str = "", command: str = "") -> None:
        """Raises:
        TransitionRefused: it is paused already.
        """
        answer = await self._move("pause_schedule", name, actor, reason, _REMEMBERED_MS, command=command)
        if answer[0] == "refused":
            raise TransitionRefused("pause_schedule", f"schedule {name}", answer[1])

    async def resume_schedule(self, name: str, *, actor: str, reason: str = "", command: str = "") -> None:
        """Raises:
        TransitionRefused: it is not paused.
        """
        answer = await self._move("resume_schedule", name, actor, reason, command=command)
        if answer[0] == "refused":
            raise TransitionRefused("resume_schedule", f"schedule {name}", answer[1])

    async def window_node(self, node: str, *, closing: str, why: str, at_once: bool = False) -> bool:
        """Have a node drained because its window has closed, by ``closing`` (which one), or, "", take work again.

        Answers whether it was changed: each closing counts once, and what operators have done since holds.

        Raises:
            NodeNotFound
        """
        answer = await self._move("window_node", node, closing, why, "1" if at_once else "")
        if answer[0] == "missing":
            raise NodeNotFound(node)
        return bool(answer[0] == "ok")

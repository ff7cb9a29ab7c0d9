"""StateManager: the only writer of Redis. One method a move, each one Lua script, all or nothing."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta

from lcq.state.connection import our_errors
from lcq.state.moves.access import AccessMoves
from lcq.state.moves.alerts import AlertMoves
from lcq.state.moves.attempts import RULES, AttemptMoves
from lcq.state.moves.calls import CallMoves
from lcq.state.moves.copies import CopyMoves
from lcq.state.moves.duties import Duties
from lcq.state.moves.jobs import JobMoves
from lcq.state.moves.nodes import Heard, NodeMoves
from lcq.state.moves.notes import NoteMoves
from lcq.state.moves.schedules import ScheduleMoves
from lcq.state.moves.tasks import Ended, TaskMoves
from lcq.state.moves.undo import UndoMoves
from lcq.state.moves.warm_ups import WarmUpMoves
from lcq.state.scripts import ANSWERS_KEPT

__all__ = ["RULES", "Ended", "Heard", "StateManager"]

_ACTS_KEPT = 100_000


class StateManager(
    TaskMoves,
    UndoMoves,
    NoteMoves,
    AlertMoves,
    AttemptMoves,
    JobMoves,
    NodeMoves,
    AccessMoves,
    CallMoves,
    CopyMoves,
    ScheduleMoves,
    WarmUpMoves,
    Duties,
):
    """Owns Redis for writing. ``async with StateManager(config, url=…) as state``.

    Calls made at the same time share one pipeline. Every method raises ``StateUnavailable`` while Redis does
    not answer; then the move may or may not have been made, and asking again is safe.
    """

    async def recall_answer(self, command_id: str) -> bytes | None:
        """The answer that an earlier copy of this command got."""
        async with our_errors(self.url):
            text = await self._redis.get(self.keys.answer(command_id))
        return None if text is None else text.encode("latin-1")

    async def note_act(self, command_id: str, answer: bytes, act: Mapping[str, str]) -> None:
        """Write an operator's act to the audit stream, and keep its answer for a copy that comes later.

        ``act`` is empty where it was refused: then only the answer is kept.
        """
        keep_ms = ANSWERS_KEPT // timedelta(milliseconds=1)
        fields = [text for pair in act.items() for text in pair]
        await self._move("note_act", command_id, answer.decode("latin-1"), keep_ms, _ACTS_KEPT, *fields)

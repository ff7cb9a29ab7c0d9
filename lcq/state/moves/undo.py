"""The moves that take an operator's act back."""

from __future__ import annotations

from lcq.errors import NothingToUndo, TaskNotFound, TransitionRefused
from lcq.state.moves.mover import Mover


class UndoMoves(Mover):
    """What a command has done is kept for ``UNDO_KEPT``; exactly that is taken back, or nothing."""

    async def undo_task(self, task_id: str, *, of: str, why: str = "", command: str = "") -> None:
        """Take back what the command ``of`` has done to a task.

        ``command``: the id of the command that asks for it; a second time with that id is told as the first.

        Raises:
            NothingToUndo: that command has done nothing to it, or too long ago.
            TransitionRefused: something else has happened to it since, or the act ended a running attempt.
            TaskNotFound: it has been forgotten meanwhile.
        """
        answer = await self._move("undo_task", task_id, why, of, command=command)
        match answer[0]:
            case "nothing":
                raise NothingToUndo(of, f"task {task_id}")
            case "missing":
                raise TaskNotFound(task_id)
            case "moved_on":
                raise TransitionRefused(
                    "undo_task", f"task {task_id}", answer[1], hint=f"it has moved on since: {answer[2] or answer[1]}"
                )
            case "ended":
                raise TransitionRefused(
                    "undo_task", f"task {task_id}", "queued", hint="the act ended a running attempt: that is gone"
                )

    async def undo_queue(self, queue: str, *, of: str, why: str = "", command: str = "") -> None:
        """Take back a pause or a resumption.

        Raises:
            NothingToUndo: the command ``of`` has done neither to this queue, or too long ago.
            TransitionRefused: somebody has paused or resumed it since.
        """
        answer = await self._move("undo_queue", queue, why, of, command=command)
        if answer[0] == "nothing":
            raise NothingToUndo(of, f"queue {queue}")
        if answer[0] == "moved_on":
            by = f" by {answer[2]}" if answer[2] else ""
            raise TransitionRefused("undo_queue", f"queue {queue}", answer[1] + by, hint="look again")

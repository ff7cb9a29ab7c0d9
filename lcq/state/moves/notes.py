"""The moves that keep what people have to say: of a task, and of what failed tasks died of."""

from __future__ import annotations

from lcq.errors import CauseNotFound, NothingToUndo, TaskNotFound, TransitionRefused
from lcq.state.moves.mover import Mover

NOTES_KEPT = 20  # with a task, the newest; the audit has them all
ACKS_KEPT = 256


class NoteMoves(Mover):
    """Words for people. No task changes its state by them."""

    async def comment_task(self, task_id: str, *, actor: str, text: str, command: str = "") -> None:
        """Keep a note with a task, in whatever state it is.

        ``command``: the id of the command that asks for it; a second time with that id is told as the first.

        Raises:
            TaskNotFound: it was never submitted, or its record has expired.
        """
        answer = await self._move("comment_task", task_id, actor, text, NOTES_KEPT, command=command)
        if answer[0] == "missing":
            raise TaskNotFound(task_id)

    async def undo_comment(self, task_id: str, *, of: str, command: str = "") -> None:
        """Take the note away that the command ``of`` has left.

        Raises:
            NothingToUndo: it has left none with this task, or too long ago.
            TaskNotFound: the task has been forgotten meanwhile.
        """
        answer = await self._move("undo_comment", task_id, of, command=command)
        if answer[0] == "nothing":
            raise NothingToUndo(of, f"task {task_id}")
        if answer[0] == "missing":
            raise TaskNotFound(task_id)

    async def acknowledge_cause(
        self, code: str, text: str, *, actor: str, note: str = "", withdraw: bool = False, command: str = ""
    ) -> None:
        """Note that somebody knows of the failures of this code and text, or take that back.

        Raises:
            CauseNotFound: no task failed so, or nobody has acknowledged it.
        """
        answer = await self._move(
            "acknowledge_cause", code, text, actor, note, ACKS_KEPT, int(withdraw), command=command
        )
        if answer[0] == "missing":
            raise CauseNotFound(code, text, acknowledged=withdraw)

    async def undo_acknowledgement(self, cause: str, *, of: str, command: str = "") -> None:
        """Take back that the command ``of`` has made a cause (``code: text``) known, or open again.

        Raises:
            NothingToUndo: it has done neither, or too long ago.
            TransitionRefused: somebody has said something else of it since.
        """
        answer = await self._move("undo_acknowledgement", cause, of, command=command)
        if answer[0] == "nothing":
            raise NothingToUndo(of, f"cause {cause}")
        if answer[0] == "moved_on":
            now = f"known to {answer[1]}" if answer[1] else "open again"
            raise TransitionRefused("undo_acknowledgement", f"cause {cause}", now, hint="look again")

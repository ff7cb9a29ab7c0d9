"""The moves of queues and of jobs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from lcq.errors import JobNotFound, TransitionRefused
from lcq.models import Skips
from lcq.state.moves.mover import Mover

_LOOKED_AT = 100  # tasks a script of a walk looks at
_MOVED = 25  # of these that it moves at most: each leaves a lane, its line and the books, or comes back
_ASIDE_MS = 4.0  # of the server's processor that it takes, where its version can tell: then it stops at the next task


class JobMoves(Mover):
    """What operators do to a queue, or to a job, as a whole."""

    async def pause_queue(self, queue: str, *, actor: str, reason: str = "", command: str = "") -> None:
        """Raises:
        TransitionRefused: it is paused already.
        """
        answer = await self._move("pause_queue", queue, actor, reason, command=command)
        if answer[0] == "refused":
            raise TransitionRefused("pause_queue", f"queue {queue}", "paused already")

    async def resume_queue(self, queue: str, *, actor: str, reason: str = "", command: str = "") -> None:
        """Raises:
        TransitionRefused: it is not paused.
        """
        answer = await self._move("resume_queue", queue, actor, reason, command=command)
        if answer[0] == "refused":
            raise TransitionRefused("resume_queue", f"queue {queue}", "not paused")

    async def pause_job(self, job: str, *, actor: str, reason: str = "", command: str = "") -> None:
        """From now on none of its tasks starts. ``move_aside`` has then to be called until it says that it is through.

        Raises:
            JobNotFound, TransitionRefused: there is none of that name, or it is paused already.
        """
        answer = await self._move("pause_job", job, actor, reason, command=command)
        self._refuse_job("pause_job", job, answer, "paused already")

    async def resume_job(self, job: str, *, actor: str, reason: str = "", command: str = "") -> None:
        """From now on what is submitted for it may start again; what waits comes back by ``move_aside``.

        Raises:
            JobNotFound, TransitionRefused: there is none of that name, or it is not paused.
        """
        answer = await self._move("resume_job", job, actor, reason, command=command)
        self._refuse_job("resume_job", job, answer, "not paused")

    async def note_job(self, job: str, skipped: Sequence[Skips]) -> bool:
        """Keep with a job what a submit of it has skipped. Answers whether there is such a job."""
        told = json.dumps([one.model_dump() for one in skipped])
        return bool((await self._move("note_job", job, told))[0] == "ok")

    async def move_aside(self, job: str) -> tuple[int, bool]:
        """One part of the way through a job that was paused or resumed. Answers how many tasks changed their side,
        and whether that was the last part. Any scheduler may do any part; nothing is done twice."""
        answer = await self._move("move_aside", job, _LOOKED_AT, _MOVED, _ASIDE_MS)
        return int(answer[1]), answer[2] == "1"

    def _refuse_job(self, move: str, job: str, answer: list[Any], state: str) -> None:
        if answer[0] == "missing":
            raise JobNotFound(job)
        if answer[0] == "refused":
            raise TransitionRefused(move, f"job {job}", state)

"""The moves that time asks for, and the clock that they go by."""

from __future__ import annotations

import json
from collections.abc import Mapping

from lcq.ids import new_id
from lcq.state.connection import our_errors
from lcq.state.moves.attempts import most_in_flight
from lcq.state.moves.copies import CopiedTask, copied_tasks
from lcq.state.moves.mover import Mover
from lcq.state.moves.tasks import Ended

_LIMIT = 200  # tasks that one timed duty moves in one script: it must never hold the server for long
_BILLED = 50  # that are counted in one
_LAPSES = 50  # fewer, for each takes more: 0.3 to 0.74 ms with a million tasks there
_FORGOTTEN = 50  # 0.2 to 0.4 ms each
_BATCHES = 25  # of these, one after another while there is more to do: other scripts run in between


class Duties(Mover):
    """What one scheduler does for all, again and again. Each may be made twice."""

    async def expire_leases(self, *, judged_ms: int | None = None) -> tuple[Ended, ...]:
        """Attempts whose lease has run out go back to their queues. Answers whose they were.

        ``judged_ms`` (default: now): by Redis's clock, when the one who judges was awake. If he stands still before
        this gets to Redis, a lease that ran out meanwhile, unheard by him, is not his to judge; nor is one by a time
        to which Redis's clock has just been set.
        """
        ended: list[Ended] = []
        for _ in range(_BATCHES * _LIMIT // _LAPSES):
            answer = await self._move("expire_leases", _LAPSES, "" if judged_ms is None else judged_ms)
            ended += [Ended(task, node, 0) for task, node in zip(answer[1::2], answer[2::2], strict=True)]
            if len(answer) // 2 < _LAPSES:
                break
        return tuple(ended)

    async def release_due(self) -> int:
        """Pending tasks whose time has come are queued. Answers how many."""
        return await self._in_batches("release_due")

    async def recall_tasks(self) -> int:
        """What was kept back for a quota goes back where there is room. Answers of how many users some still is."""
        return int((await self._move("recall_tasks", most_in_flight(self.config), _LIMIT))[1])

    async def account_tasks(self) -> int:
        """Count what tasks that have ended have used, for reports. Answers how many were looked at."""
        done = 0
        for _ in range(_BATCHES):
            count = int((await self._move("account_tasks", _BILLED, *self._terms))[1])
            done += count
            if count < _BILLED:
                break
        return done

    async def copy_expired(self, limit: int) -> tuple[CopiedTask, ...]:
        """Some of the tasks whose retention is over, whole, for the archive."""
        return copied_tasks((await self._move("copy_expired", limit))[1:])

    async def note_upkeep(self, duty: str, *, error: str = "", **more: str | int) -> None:
        """Keep how a duty for operators ("backup", "archive") went: what went wrong, and facts that last."""
        await self._move("note_upkeep", duty, error, json.dumps(more))

    async def forget_tasks(self, *, overdue_ms: int = 0) -> int:
        """Remove records that outlived their retention, by ``overdue_ms`` at least. Answers how many."""
        done = 0
        for _ in range(_BATCHES * _LIMIT // _FORGOTTEN):
            count = int((await self._move("forget_tasks", _FORGOTTEN, *self._terms, overdue_ms))[1])
            done += count
            if count < _FORGOTTEN:
                break
        return done

    async def forget_archived(self, revisions: Mapping[str, int]) -> int:
        """Remove just these of them, by id, where they are at that revision still. Answers how many there were."""
        told = [text for pair in revisions.items() for text in pair]
        return int((await self._move("forget_tasks", 0, *self._terms, 0, *told))[1]) if told else 0

    @property
    def _terms(self) -> tuple[str, int]:
        """What work costs, and for how many seconds it is told."""
        return self.config.report.terms, int(self.config.report.keep_days * 24 * 3600)

    async def _in_batches(self, move: str) -> int:
        done = 0
        for _ in range(_BATCHES):
            count = int((await self._move(move, _LIMIT))[1])
            done += count
            if count < _LIMIT:
                break
        return done

    async def forget_nodes(self, *, silence_ms: int) -> int:
        """Remove nodes that have been offline for longer than ``silence_ms``. Answers how many."""
        return int((await self._move("forget_nodes", silence_ms))[1])

    async def note_depths(self) -> None:
        """Keep with this minute what waits and what runs, for charts."""
        await self._move("note_depths", *(queue.name for queue in self.config.queues))

    async def now_ms(self) -> int:
        """Redis's clock, by which every deadline is judged."""
        async with our_errors(self.url):
            seconds, micros = await self._redis.time()
        return int(seconds) * 1000 + int(micros) // 1000

    async def clock(self) -> tuple[int, int]:
        """What Redis's clock shows, and how many times the deadlines were shifted after it."""
        async with our_errors(self.url), self._redis.pipeline(transaction=False) as pipe:
            (seconds, micros), shifts = await pipe.time().hget(self.keys.totals, "clock_set").execute()
        return int(seconds) * 1000 + int(micros) // 1000, int(shifts or 0)

    async def shift_deadlines(self, by_ms: int, *, shifts: int) -> int | None:
        """Redis's clock has been set by ``by_ms``: let every deadline be as far away as it was.

        ``shifts`` is what ``clock()`` said before that. Answers how many leases were moved; None where another
        scheduler has done it.
        """
        answer = await self._move("shift_deadlines", by_ms, shifts)
        return int(answer[1]) if answer[0] == "ok" else None

    async def take_duty(
        self, duty: str, scheduler_id: str, *, hold_ms: int, listens_gap_ms: int | None = None
    ) -> int | None:
        """Redis's time if ``scheduler_id`` does ``duty`` now, else None; it keeps it by asking again in ``hold_ms``.

        Two schedulers that both believe it for a moment do no harm: every duty is a move that may be made twice.
        ``listens_gap_ms``: by asking it also shows the others that it listens to its nodes; whoever has not asked for
        longer than this stood still, and listens only since then (``reader.listening``). None: it shows nothing.
        With no ``hold_ms`` it asks for nothing, and shows only that.
        """
        gap = "" if listens_gap_ms is None else listens_gap_ms
        answer = await self._move("take_duty", duty, scheduler_id, hold_ms, gap)
        return int(answer[1]) if answer[0] == "ok" else None

    async def announce_scheduler(self, scheduler_id: str, endpoint: str, *, hold_ms: int, cluster: str = "") -> str:
        """Publish a scheduler's control endpoint for ``hold_ms``; forgets those that fell silent.

        Answers the id of this cluster, which is ``cluster`` (default: a new one) where it had none yet.
        """
        answer = await self._move("announce_scheduler", scheduler_id, endpoint, hold_ms, cluster or new_id())
        return str(answer[1])

    async def withdraw_scheduler(self, scheduler_id: str) -> None:
        """Take a stopping scheduler off the list; its duties pass on when their short hold ends."""
        async with our_errors(self.url):
            await self._redis.hdel(self.keys.schedulers, scheduler_id)
            await self._redis.hdel(self.keys.listening, scheduler_id)

"""Why tasks are where they are: of one as exactly as it can be told, of a whole screen of them at little cost."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace

from lcq.models import TaskRecord, TaskStatus
from lcq.reasons import Why
from lcq.routing import Fleet
from lcq.state.manager import StateManager
from lcq.why import rivals, why_of
from lcq.wire import WhyAnswer

_LOOKS = 5  # at a task that moves on while it is looked at
_AT_ONCE = 8  # tasks that are looked at, before others have their turn
_LONGEST_S = 0.25  # for one command about many; what it has not come to by then is not told
_KEPT_S = 0.5  # as old may a reason be that is told again: many may look at the same tasks
_MOST_KEPT = 2000


class Explainer:
    """Tells the one reason of a task, or of each of many."""

    def __init__(self, state: StateManager, fleet: Callable[[], Awaitable[Fleet]]) -> None:
        """``fleet`` is a picture that may be half a second old; for one task a new one is taken."""
        self._state = state
        self._reader = state.reader
        self._fleet = fleet
        self._told: OrderedDict[str, tuple[float, WhyAnswer]] = OrderedDict()

    async def one(self, task_id: str) -> tuple[TaskRecord, Why]:
        """A task, and why it is where it is: by what Redis says now, and not while the task moved on meanwhile.

        Raises:
            TaskNotFound
        """
        record = await self._reader.task(task_id)
        for _ in range(_LOOKS):
            fleet = await self._reader.fleet()
            lanes = await self._reader.all_lanes() if record.status is TaskStatus.QUEUED else ()
            why = await self._why(record, fleet, lanes, None)
            seen, record = record, await self._reader.task(task_id)
            if record.revision == seen.revision:
                break
        return seen, why

    async def many(self, ids: Sequence[str]) -> list[WhyAnswer]:
        """The reasons of these tasks, in their order, at most a second old; those that are not there are left out.

        So are the last ones where it would take too long: whoever shows them asks again anyway.
        """
        now = time.monotonic()
        until = now + _LONGEST_S
        known = {task_id: told[1] for task_id in ids if (told := self._told.get(task_id)) and now - told[0] <= _KEPT_S}
        found = await self._reader.tasks(task_id for task_id in ids if task_id not in known)
        if found:
            fleet, lanes, depths = await self._fleet(), await self._reader.all_lanes(), await self._reader.depths()
            records = list(found.values())
            for start in range(0, len(records), _AT_ONCE):
                if time.monotonic() > until:
                    break
                some = records[start : start + _AT_ONCE]
                whys = await asyncio.gather(*(self._why(record, fleet, lanes, depths) for record in some))
                for record, why in zip(some, whys, strict=True):
                    known[record.id] = answer = WhyAnswer(
                        id=record.id, status=record.status, why=why, revision=record.revision
                    )
                    self._told[record.id] = (now, answer)
                    self._told.move_to_end(record.id)
            while len(self._told) > _MOST_KEPT:
                self._told.popitem(last=False)
        return [known[task_id] for task_id in ids if task_id in known]

    async def _why(
        self,
        record: TaskRecord,
        fleet: Fleet,
        lanes: Sequence[tuple[str, str]],
        depths: dict[tuple[str, str], int] | None,
    ) -> Why:
        competing = rivals(record, fleet, lanes) if record.status is TaskStatus.QUEUED else ()
        standing = await self._reader.standing(record, competing, depths=depths)
        most = self._state.config.quotas.may_run(record.task.user_id)
        kept = fleet.kept_slots(self._state.config.http.interactive_slots)
        return why_of(record, fleet, replace(standing, most_in_flight=most, kept=kept))

"""Waiting tasks that had better wait elsewhere: nothing serves them any more, or they would be done earlier there."""

from __future__ import annotations

import asyncio
import itertools
import logging
import time

from lcq.errors import LcqError, StateUnavailable
from lcq.models import DeviceKind, TaskRecord
from lcq.routing import Fleet, Route, earlier_route, route_again, way_home
from lcq.state.manager import StateManager

_log = logging.getLogger(__name__)
_AT_ONCE = 200  # tasks in one pipeline
_LONGEST_S = 0.5  # in one go, so that other duties have their turn
_EVERY_S = 1.0  # also where nothing is known to have changed
_IDLE_SHARE = 10  # a look that moves nothing is followed by so many times its length without one
_USERS = 32  # of a queue, whose last tasks are looked at beside them, where functions may take what is late
_ENDS = 5  # tasks of each
_TAIL = 20  # tasks at the end of a lane that are looked at for a queue where they are done earlier
_PORTION = 500  # tasks of a lane of which it is only looked whether they may leave the house


class Mover:
    """Routes waiting tasks again when the fleet has changed. What an operator has put somewhere stays there, as long as
    there is such a queue."""

    def __init__(self, state: StateManager) -> None:
        self._state = state
        self._looked: dict[tuple[str, str], int] = {}  # how many tasks of a lane stay, by this look at all of them
        self._through: set[tuple[str, str]] = set()
        self._changed = False  # since that look began
        self._further: dict[tuple[str, str], int] = {}  # how far into a lane it was looked who may leave the house
        self._next = 0.0  # when there is to be another look, or this one goes on

    def is_due(self, *, changed: bool) -> bool:
        """Whether waiting tasks are to be looked at now. ``changed``: the fleet has, since this was asked last.

        What has just changed is looked at at once. Else looking takes a small share of the time, however many tasks
        nothing serves: nobody else is to wait for that.
        """
        if changed:
            self._changed = True
            self._through.clear()
        return changed or time.monotonic() >= self._next

    async def move_stranded(self, fleet: Fleet) -> None:
        """Move the tasks of lanes that no live device serves, or none that is large enough for them, to where one does.

        A little of each lane at a time; the next call goes on where this one stopped.

        Raises:
            StateUnavailable: Redis does not answer.
        """
        began = time.monotonic()
        moved = 0
        while True:
            lanes = [
                (queue, lane, room_mib)
                for queue, lane in await self._state.reader.lanes()
                if (queue, lane) not in self._through
                and (room_mib := _room_in(fleet, queue, lane)) != float("inf")  # else whatever waits there can run
            ]
            for queue, lane, room_mib in lanes:
                moved += await self._look_on(queue, lane, room_mib, fleet)
            if not lanes or time.monotonic() - began > _LONGEST_S:
                break
        spent = time.monotonic() - began
        self._next = time.monotonic() + spent * (0 if moved else _IDLE_SHARE)
        if not lanes:
            self._through.clear()
            self._looked.clear()
            if not self._changed:
                self._next = time.monotonic() + max(_EVERY_S, spent * _IDLE_SHARE)
            self._changed = False

    async def _look_on(self, queue: str, lane: str, room_mib: float | None, fleet: Fleet) -> int:
        """Look at the next tasks of a lane. Answers how many were moved."""
        stayed = self._looked.get((queue, lane), 0)
        ids = await self._state.reader.lane_ids(queue, lane, limit=_AT_ONCE, after=stayed)
        if not ids:
            self._through.add((queue, lane))
            self._looked.pop((queue, lane), None)
            return 0
        records = await self._state.reader.tasks(ids)
        meant = [one for one in records.values() if room_mib is None or one.vram_mib > room_mib]
        why = f"nothing serves {queue} with {lane} now; moved"
        if fleet.queue(queue) is None:
            why = f"there is no queue {queue} any more; moved"
        elif room_mib is not None:
            why = f"no device that serves {queue} has as much memory now; moved"
        moved = await self._moved([(one, _again(one, fleet)) for one in meant], fleet, why)
        self._looked[queue, lane] = stayed + len(ids) - moved
        return moved

    async def move_tails(self, fleet: Fleet) -> None:
        """Move the last tasks of long queues to others where they are predicted to be done much earlier.

        Predictions err, devices come: so one device may have become idle while a queue that it does not serve, and
        whose work it could have shared when that was submitted, has much left.

        Raises:
            StateUnavailable: Redis does not answer.
        """
        for queue, lane in await self._state.reader.lanes():
            if queue in fleet.paused or (fleet.timetable.drained_s(queue) < 1.0 and not _is_paid(fleet, queue)):
                continue
            ids = await self._state.reader.lane_ids(queue, lane, limit=_TAIL, from_end=True)
            if not ids:
                continue
            if fleet.overflow is not None:  # behind the last that may leave the house others may wait, which may not
                users = itertools.islice(fleet.users.get(queue, ()), _USERS)
                ids += await self._state.reader.ends_of_users(queue, lane, users, each=_ENDS)
                ids += await self._next_that(queue, lane, may_leave=True)
            records = await self._state.reader.tasks(dict.fromkeys(ids))
            for record in records.values():
                better = earlier_route(record, fleet)
                if better is None and fleet.overflow is None:
                    break  # nor for those before it
                if better is None:
                    continue  # another may be one that may leave the house
                why = f"is done earlier in {better.queue}; moved"
                if record.task.deadline is not None and _is_paid(fleet, better.queue):
                    why = f"{record.queue} would be late for its deadline; moved to {better.queue}"
                await self._moved([(record, better)], fleet, why)

    async def bring_home(self, fleet: Fleet) -> None:
        """Move what waits for functions, and may not leave the house any more, to where the house does it.

        Raises:
            StateUnavailable: Redis does not answer.
        """
        for queue, lane in await self._state.reader.lanes():
            if not _is_paid(fleet, queue):
                continue
            ids = await self._next_that(queue, lane, may_leave=False)
            for record in (await self._state.reader.tasks(ids)).values():
                home = way_home(record, fleet)
                if home is not None:
                    await self._move(record, home, fleet, f"may not leave the house; moved to {home.queue}")

    async def _next_that(self, queue: str, lane: str, *, may_leave: bool) -> tuple[str, ...]:
        """The next tasks of a lane whose pictures may, or may not, leave the house: of those that may, from its end on.

        A few at a time: the next call goes on where this one stopped, and begins anew after the last.
        """
        seen = self._further.pop((queue, lane), 0)
        ids = await self._state.reader.lane_ids(queue, lane, limit=_PORTION, after=seen, from_end=may_leave)
        out = await self._state.reader.exportable(ids)
        wanted = [place for place, one in enumerate(ids) if (one in out) is may_leave]
        if len(wanted) > _TAIL:
            self._further[queue, lane] = seen + wanted[_TAIL]
        elif len(ids) == _PORTION:
            self._further[queue, lane] = seen + _PORTION
        return tuple(ids[place] for place in wanted[:_TAIL])

    async def _moved(self, wanted: list[tuple[TaskRecord, Route | None]], fleet: Fleet, why: str) -> int:
        """How many of them were moved to where they are wanted."""
        moves = [
            self._move(record, route, fleet, why)
            for record, route in wanted
            if route is not None and not record.damaged and not (record.forced and fleet.queue(record.queue))
        ]
        return sum(await asyncio.gather(*moves))

    async def _move(self, record: TaskRecord, route: Route, fleet: Fleet, why: str) -> bool:
        try:
            await self._state.reroute_task(
                record.id, queue=route.queue, why=why, revision=record.revision, forced=False, cost_s=route.seconds
            )
        except StateUnavailable:
            raise
        except LcqError as error:
            _log.debug("task %s stays in %s: %s", record.id, record.queue, error)
            return False
        fleet.note_placed(route)
        return True


def _again(record: TaskRecord, fleet: Fleet) -> Route | None:
    """Where a task can run now; None where it cannot anywhere else."""
    try:
        better = route_again(record, fleet)
    except LcqError as error:
        _log.debug("task %s stays in %s: %s", record.id, record.queue, error)
        return None
    is_gone = fleet.queue(record.queue) is None  # then anywhere else is better, if only to wait
    return None if better.queue == record.queue or (better.why and not is_gone) else better


def _is_paid(fleet: Fleet, queue: str) -> bool:
    """Whether what waits there may wait for money, however fast it would be done with some."""
    known = fleet.queue(queue)
    return known is not None and known.kind is DeviceKind.SERVERLESS


def _room_in(fleet: Fleet, queue: str, lane: str) -> float | None:
    """As ``Fleet.room_in``; nothing has room for what waits in a queue that is in the settings no more."""
    return fleet.room_in(queue, lane) if fleet.queue(queue) is not None else None

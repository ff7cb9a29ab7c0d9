"""How a client follows what happens, and waits for tasks to end."""

from __future__ import annotations

import asyncio
import functools
import logging
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from typing import TypeVar

from lcq.client.connection import SILENT_S
from lcq.client.looking import listed
from lcq.client.submitting import Submitting
from lcq.errors import LcqError, SchedulerUnreachable, StateUnavailable
from lcq.models import TERMINAL_STATES, Event, TaskRecord
from lcq.wire import Events, EventsAnswer

log = logging.getLogger(__name__)

ResultT = TypeVar("ResultT")

_LONG_POLL_MS = 2000  # how long a question for events is held; and how late a restarted scheduler is noticed
_FLOOR_S = 20.0  # while waiting for tasks: look at them at least so often, whatever the events say
_AWAY = (SchedulerUnreachable, StateUnavailable)


class Following(Submitting):
    """How a client waits, for as long as it takes."""

    async def events(self, after: str = "$") -> AsyncIterator[Event]:
        """What happens from now on (``after="$"``), or since the event of that id, for as long as you listen.

        A scheduler that goes away is waited for. Where events had been dropped before they could be read, a
        warning is logged; ``event_pages`` lets a program see it.
        """
        async for page in self.event_pages(after):
            if page.gap:
                log.warning("events before %s are no longer kept: some were missed", page.last_id)
            for event in page.events:
                yield event

    async def event_pages(self, after: str = "$") -> AsyncIterator[EventsAnswer]:
        """As ``events``, in the pages they come in; ``gap`` means: take a snapshot, some were missed."""
        if after == "$":
            after = (await self.info()).last_event_id
        while True:
            page = await self._next_events(after)
            after = page.last_id
            if page.events or page.gap:
                yield page

    async def _next_events(self, after: str, wait_ms: int = _LONG_POLL_MS) -> EventsAnswer:
        # A new request each time: a scheduler answers one that it has refused before with the same refusal.
        return await self._persist(lambda: self.ask(Events(after=after, wait_ms=wait_ms), hold_s=wait_ms / 1000))

    async def _persist(
        self, attempt: Callable[[], Awaitable[ResultT]], through: tuple[type[LcqError], ...] = _AWAY
    ) -> ResultT:
        """The result of ``attempt``, made again while the scheduler or its Redis is away."""
        pause_s = SILENT_S[0]
        told = False
        while True:
            try:
                return await attempt()
            except through as away:
                if not told:
                    log.warning("%s: waiting for it to come back", away.message)
                told = True
                await asyncio.sleep(pause_s * random.uniform(0.75, 1.25))
                pause_s = min(2 * pause_s, SILENT_S[1])

    async def as_completed(self, ids: Iterable[str], timeout_s: float | None = None) -> AsyncIterator[TaskRecord]:
        """Each of these tasks as it comes to its end, the sooner the earlier. Needs whole ids.

        Restarts of the scheduler and of Redis are sat out; only at the start the scheduler has to be there. A task
        of this client's own that a failover of Redis has lost is submitted again, under its key.

        Raises:
            TaskNotFound: one of them is not there.
            TimeoutError: after ``timeout_s`` some had not ended.
            SchedulerUnreachable: it does not answer at the start.
        """
        loop = asyncio.get_running_loop()
        deadline = None if timeout_s is None else loop.time() + timeout_s
        waiting = dict.fromkeys(ids)
        if not waiting:
            return
        try:
            async with asyncio.timeout_at(deadline):
                # Before the snapshot, so that nothing is missed.
                after = (await self._persist(self.info, (StateUnavailable,))).last_event_id
                records = await self._persist(lambda: self._found(list(waiting)), (StateUnavailable,))
            looked_at = loop.time()
            while True:
                for record in records:
                    if record.status.is_terminal and record.id in waiting:
                        del waiting[record.id]
                        self._submissions.forget(record.id)
                        yield record
                if not waiting:
                    return
                async with asyncio.timeout_at(deadline):
                    page = await self._next_events(after)
                    after = page.last_id
                    overdue = loop.time() - looked_at > _FLOOR_S
                    if page.gap or overdue or any(event.move == "note_failover" for event in page.events):
                        changed, looked_at = list(waiting), loop.time()
                    else:
                        changed = [task_id for task_id in _ended_in(page) if task_id in waiting]
                    records = await self._persist(functools.partial(self._found, changed))
        except TimeoutError as late:
            raise TimeoutError(f"after {timeout_s:g} s {len(waiting)} tasks had not ended") from late

    async def wait(self, ids: str | Iterable[str], timeout_s: float | None = None) -> list[TaskRecord]:
        """These tasks, in the order given, when all of them have come to their end.

        Raises:
            TaskNotFound, TimeoutError, SchedulerUnreachable: as ``as_completed`` says.
        """
        wanted = listed(ids)
        ended = {record.id: record async for record in self.as_completed(wanted, timeout_s)}
        return [ended[task_id] for task_id in wanted]


def _ended_in(page: EventsAnswer) -> list[str]:
    """The ids of the tasks that these events saw come to an end."""
    endings = (event for event in page.events if event.fields.get("status") in TERMINAL_STATES)
    return list(dict.fromkeys(event.fields.get("id", "") for event in endings))

"""Where the console's facts come from and where its wishes go: what it needs of both, and the feed between.

The feed is the one task that reads the cluster. Its link knows when the last answer came, so that the
screen can never look live when it is not.
"""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Protocol, TypeVar

from pydantic import ValidationError

from lcq.errors import LcqError
from lcq.lang import retold_error, tr
from tui.store import MINUTES_SHOWN, SnapshotLike, Store, TaskRow, task_row
from tui.text import clean

if TYPE_CHECKING:
    from lcq.alerts.records import Alerts
    from lcq.models import (
        ActRecord,
        Attempt,
        DeviceSample,
        Event,
        JobSummary,
        MinuteTally,
        NodeRecord,
        Privacy,
        QueueRecord,
        Task,
        TaskPriority,
        TaskRecord,
    )
    from lcq.picture_parts import Part
    from lcq.reasons import Why
    from lcq.spend import Book, Spend
    from lcq.state.glance import TaskGlance
    from lcq.wire import (
        Accepted,
        BulkAnswer,
        DeadAnswer,
        EventsAnswer,
        ForeseeAnswer,
        InfoAnswer,
        KeyAnswer,
        KeysAnswer,
        ListTasksAnswer,
        LogAnswer,
        SpendAnswer,
        SubmitAnswer,
        TaskLogAnswer,
        ThumbnailAnswer,
        WhyAnswer,
    )
    from lcq.wire.schedules import RanSchedule, SchedulesAnswer
    from tui.submitting import Sent, Wish

STALE_AFTER_S = 1.4
"""An answer comes at least every WAIT_MS; silence for so long is told to the operator."""
WAIT_MS = 700
GATHER_S = 0.1
"""After news, so long until it is asked for more: a thousand changes a second come in ten pieces, not in eighty."""
POLL_S = 1.0
_CALM_POLL_S = 5.0  # where nothing happens, and nothing in sight goes on without events
ANSWER_S = 5.0
SNAPSHOT_S = 60.0  # without a further piece of it
WINDOW = 100_000
"""So many tasks, the newest, are held here: each takes some 0.7 kB, and the console as a whole is to stay under 150 MB.
Beyond them the scheduler looks (tui/older.py)."""
CAUSES_S = 5.0  # between two looks at all failures
_ALERTS_S = 5.0  # between two looks at alerts, where no event tells of them
_PAID_S = 5.0  # between two looks at what functions cost
ACTS_READ = 200
"""So many of the newest are looked at again each second; older ones are read once (tui/older_acts.py)."""
_MINUTES_AGAIN = 3  # the one under way, and those that a late word or a slow look may still change
_RETRY_S = 0.5
_POLLED_IDS = 300
_MANY_ROWS = 20_000
_TIDIED_AFTER = 10_000  # events: what they were read with leaves holes
_SLICE = 1000  # records or events taken in before the screen has its turn
_SKEW_TOLD_MS = 3_000


class Reader(Protocol):
    """Reads the cluster's state. Every call raises LcqError when the cluster does not answer."""

    async def now_ms(self) -> int: ...
    async def snapshot(
        self, limit: int = WINDOW, take: Callable[[Sequence[TaskGlance | TaskRecord]], None] | None = None
    ) -> SnapshotLike:
        """With ``take``, that is given the tasks in pieces and perhaps in short, and the answer may have none."""

    async def events(self, after: str, wait_ms: int, limit: int) -> EventsAnswer: ...
    async def tasks(self, ids: Sequence[str]) -> Mapping[str, TaskRecord]: ...
    async def glances(self, ids: Sequence[str]) -> Sequence[TaskGlance | TaskRecord]: ...
    async def nodes(self) -> Sequence[NodeRecord]: ...
    async def queues(self, nodes: Sequence[NodeRecord] | None = None) -> Sequence[QueueRecord]:
        """``nodes``: as they have been read just now, where somebody has."""

    async def minutes(self, count: int = 60) -> tuple[MinuteTally, ...]: ...
    async def device_history(self, node: str) -> Mapping[str, Sequence[DeviceSample]]: ...
    async def dead(self, *, by: Sequence[str] = ()) -> DeadAnswer:
        """``by``: causes are told apart by these, too (lcq.causes.APART)."""

    async def spend(self) -> Spend:
        """What functions have cost this hour, today and this month; its budget is not what a scheduler goes by."""

    async def spend_of_days(self, days: int) -> Mapping[str, Book]: ...
    async def spend_of_jobs(self, limit: int = 200) -> Mapping[str, Book]: ...

    async def alerts(self) -> Alerts:
        """What is an alert, or is about to be, and what is silenced."""

    async def acts(self, limit: int, before: str = "") -> Sequence[ActRecord]:
        """The newest acts below the one of the id ``before``; "": of all."""

    async def task(self, task_id: str) -> TaskRecord: ...
    async def find(self, typed: str) -> str:
        """The id that begins so. Raises TaskNotFound, or AmbiguousId."""

    async def attempts(self, task_id: str) -> Sequence[Attempt]: ...
    async def task_events(self, record: TaskRecord, *, limit: int = 200) -> Sequence[Event]: ...


class Commander(Protocol):
    """Asks the scheduler for changes, and for reasons. Every call raises LcqError with the scheduler's reason."""

    async def info(self) -> InfoAnswer: ...
    async def why(self, task_id: str) -> Why: ...
    async def whys(self, ids: Sequence[str]) -> Mapping[str, WhyAnswer]: ...
    async def jobs(self, name: str) -> Sequence[JobSummary]: ...
    async def thumbnail(
        self, task_id: str, *, parts: Sequence[Part], longest: int, box: tuple[float, float, float, float]
    ) -> ThumbnailAnswer: ...
    async def read_log(self, node: str, *, after: int = -1, limit: int = 200, task: str = "") -> LogAnswer: ...
    async def read_task_log(
        self, task_id: str, *, attempt: int = 0, begin: int = -1, limit: int = 200
    ) -> TaskLogAnswer: ...
    async def submit(self, task: Task, *, queue: str = "") -> Accepted: ...
    async def foresee(self, tasks: Sequence[Task], *, queue: str = "") -> ForeseeAnswer: ...
    async def submit_folder(self, wish: Wish) -> Sent: ...
    async def submit_many(
        self, tasks: Sequence[Task], *, queue: str = "", node: str = "", reason: str = ""
    ) -> SubmitAnswer: ...
    async def retry(self, ids: Sequence[str], *, revisions: Sequence[int], reason: str = "") -> BulkAnswer: ...
    async def cancel(self, ids: Sequence[str], *, revisions: Sequence[int], reason: str = "") -> BulkAnswer: ...
    async def reroute(
        self, ids: Sequence[str], *, revisions: Sequence[int], queue: str = "", node: str = "", reason: str = ""
    ) -> BulkAnswer: ...
    async def prioritise(
        self, ids: Sequence[str], priority: TaskPriority, *, revisions: Sequence[int], reason: str = ""
    ) -> BulkAnswer: ...
    async def set_deadline(
        self, ids: Sequence[str], deadline: datetime | None, *, revisions: Sequence[int], reason: str = ""
    ) -> BulkAnswer: ...
    async def set_privacy(
        self, ids: Sequence[str], privacy: Privacy, *, revisions: Sequence[int], reason: str = ""
    ) -> BulkAnswer: ...
    async def comment(self, ids: Sequence[str], text: str) -> BulkAnswer: ...
    async def acknowledge(self, cause: str, text: str, *, note: str = "", withdraw: bool = False) -> str: ...
    async def silence(self, rule: str, *, seconds: float, subject: str = "", reason: str = "") -> str: ...
    async def unsilence(self, rule: str, *, subject: str = "", reason: str = "") -> str: ...
    async def undo(self, act: str) -> BulkAnswer: ...
    async def pause(self, queue: str, *, reason: str = "") -> str: ...
    async def resume(self, queue: str, *, reason: str = "") -> str: ...
    async def drain(self, node: str, *, deadline_s: float | None = None, reason: str = "") -> None: ...
    async def activate(self, node: str, *, reason: str = "") -> None: ...
    async def block(self, node: str, *, reason: str = "") -> None: ...
    async def stop_node(self, node: str, *, deadline_s: float | None = None, reason: str = "") -> None: ...
    async def page(self, where: str = "", *, limit: int = 100, cursor: str = "") -> ListTasksAnswer: ...
    async def budget(self) -> SpendAnswer:
        """What functions may cost: the limits of a scheduler's settings."""

    async def schedules(self) -> SchedulesAnswer: ...
    async def run_schedule(self, name: str, *, reason: str = "") -> RanSchedule: ...
    async def pause_schedule(self, name: str, *, reason: str = "") -> None: ...
    async def resume_schedule(self, name: str, *, reason: str = "") -> None: ...
    async def keys(self) -> KeysAnswer: ...
    async def own_key(self) -> str:
        """The public half of the key by which this console asks; "": it is asked for none."""

    async def revoke_key(self, key: str, *, reason: str = "") -> KeyAnswer: ...
    def matching(self, where: str) -> AsyncIterator[TaskRecord]:
        """Every task that the filter ``where`` fits, also beyond the window; raises InvalidInput if it says nothing."""


class Link:
    """How fresh the facts are."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self.on_change: Callable[[], None] = lambda: None  # called when ``state`` is another, but not by time alone
        self.loaded = False
        self.trouble = ""  # what the last failed call said
        self.skew_ms = 0  # Redis's clock minus ours, where they differ by seconds
        self.redis_ms: float | None = None  # how long the last question to each took, there and back
        self.control_ms: float | None = None
        self.control_trouble = ""  # why no scheduler answers; "" while one does
        self.control_lost_at: datetime | None = None
        self.settings_trouble = ""  # why the scheduler's settings, as its files are now, are not taken over
        self.behind_ms = 0  # how old the newest event is that has been taken in, while more of them wait
        self._began = clock()
        self._answered: float | None = None
        self._answered_at: datetime | None = None

    def answer(self) -> None:
        """The cluster has answered just now."""
        was_silent = self.is_stale
        self._answered, self._answered_at, self.trouble = self._clock(), datetime.now(UTC), ""
        if was_silent:
            self.on_change()

    def fail(self, trouble: str) -> None:
        told, self.trouble = self.trouble, clean(trouble)
        if told != self.trouble:
            self.on_change()

    def feel_control(self, took_ms: float) -> None:
        """A scheduler has answered just now."""
        was_lost = bool(self.control_trouble)
        self.control_ms, self.control_trouble, self.control_lost_at = took_ms, "", None
        if was_lost:
            self.on_change()

    def lose_control(self, trouble: str) -> None:
        """No scheduler has answered."""
        self.control_ms, self.control_trouble = None, clean(trouble)
        if self.control_lost_at is None:
            self.control_lost_at = datetime.now(UTC)
            self.on_change()

    def note_settings(self, trouble: str) -> None:
        """What the scheduler says of its settings; "" where it has taken them over."""
        if trouble != self.settings_trouble:
            self.settings_trouble = trouble
            self.on_change()

    @property
    def refusal(self) -> str:
        """Why no act may be sent now; "" where it may: what is shown is how things are, and somebody would do it."""
        if self.is_stale:
            since = tr(" since {since:%H:%M:%S}Z", since=self.since) if self.since is not None else ""
            return tr("there is no news from the cluster{since}, so what is shown may not be so any more", since=since)
        if not self.loaded:
            return tr("the cluster has not been read yet")
        return (
            tr("nobody would do it: {control_trouble}", control_trouble=self.control_trouble)
            if self.control_trouble
            else ""
        )

    @property
    def state(self) -> tuple[object, ...]:
        """What is shown of it at once when it changes; all else has a second's time."""
        stale = self.trouble if self.is_stale else ""
        return self.loaded, self.is_stale, self.control_trouble, stale, self.settings_trouble

    @property
    def silence_s(self) -> float:
        """Seconds since the last answer, or since the start if there was none."""
        return self._clock() - (self._began if self._answered is None else self._answered)

    @property
    def stale_in_s(self) -> float | None:
        """In how many seconds the facts will be stale, if nothing comes until then; None: they are, or cannot be."""
        if self.is_stale or not (self.loaded or self.trouble):
            return None
        return max(0.0, STALE_AFTER_S - self.silence_s)

    @property
    def is_stale(self) -> bool:
        return self.silence_s > STALE_AFTER_S and (self.loaded or bool(self.trouble))

    @property
    def since(self) -> datetime | None:
        """When the last answer came, None if never."""
        return self._answered_at

    @property
    def now_ms(self) -> int:
        """The time by Redis's clock, as well as it is known."""
        return time.time_ns() // 1_000_000 + self.skew_ms

    def note_skew(self, there_ms: int) -> None:
        """Redis's clock shows ``there_ms`` just now."""
        skew = there_ms - time.time_ns() // 1_000_000
        self.skew_ms = skew if abs(skew) > _SKEW_TOLD_MS else 0


TROUBLES = (LcqError, OSError, TimeoutError, ValidationError)


def trouble_of(error: BaseException) -> str:
    """One line on what went wrong."""
    if isinstance(error, TimeoutError) and not str(error):
        return tr("the cluster does not answer")
    if isinstance(error, ValidationError):
        return tr("the cluster's answer is not one this console knows: {title}", title=error.title)
    return retold_error(error) or type(error).__name__


def give_back_memory() -> None:
    """Give the system back what the C library keeps for later, where it can do that (glibc): what a hundred thousand
    records are read with is not needed again."""
    import ctypes  # here: the first frame needs nothing of it

    if trim := getattr(ctypes.CDLL(None), "malloc_trim", None):
        trim(0)


_T = TypeVar("_T")


class Feed:
    """Keeps a store up to date: a snapshot, then every event, and polls for what events do not tell."""

    def __init__(
        self,
        reader: Reader,
        store: Store,
        link: Link,
        *,
        on_screen: Callable[[], Iterable[str]] = tuple,
        view: Callable[[], str] = str,
    ) -> None:
        """``on_screen``: tasks worth polling; ``view``: which view is in sight: "causes" and "activity" are polled."""
        self._reader, self._store, self._link = reader, store, link
        self._on_screen, self._view = on_screen, view
        self._causes_read = self._alerts_read = self._paid_read = 0.0
        self._again = self._has_come = False
        self._woken = asyncio.Event()  # events have come, or somebody wishes something read now
        self.read_up_to = ""  # the newest event that the store has taken in

    def refetch(self) -> None:
        """Read everything again at the next chance."""
        self._again = True
        self._woken.set()

    def poke(self) -> None:
        """Read now what events do not tell, what the view in sight alone shows before all else: one has come to it."""
        self._store.polling_due = self._has_come = True
        self._woken.set()

    def look_at_alerts(self) -> None:
        """Read the alerts at the next chance."""
        self._store.alerts_due = True
        self.poke()

    def recount(self) -> None:
        """Look at all failures at the next chance: something has been done to them."""
        self._causes_read = 0.0
        self.poke()

    async def run(self) -> None:
        """Read until cancelled; troubles go to the link and are tried again."""
        while True:
            try:
                await self._load_and_follow()
            except TROUBLES as error:
                self._link.fail(trouble_of(error))
                await asyncio.sleep(_RETRY_S)

    async def _load_and_follow(self) -> None:
        rows: list[TaskRow] = []
        async with asyncio.timeout(SNAPSHOT_S) as deadline:

            def take(records: Sequence[TaskGlance | TaskRecord]) -> None:  # never all at once: rows take less room
                rows.extend(map(task_row, records))
                deadline.reschedule(asyncio.get_running_loop().time() + SNAPSHOT_S)

            snapshot = await self._reader.snapshot(limit=WINDOW, take=take)
        self._again = False
        self._store.load(snapshot, rows)
        is_much = len(rows) >= _MANY_ROWS
        rows.clear()  # this goes on for as long as all is well: a row that changes or leaves is not to be kept here
        if is_much:
            give_back_memory()
            gc.freeze()  # a full collection looks through all of them each time: tens of ms, for nothing
        self._link.loaded = True
        self._link.answer()
        self.read_up_to = after = snapshot.last_event_id
        polled, calm, tidied = time.monotonic(), False, self._store.heard
        asking: asyncio.Task[EventsAnswer] | None = None
        try:
            while not self._again:
                if asking is None:
                    asking = asyncio.create_task(self._ask(self._reader.events(after, WAIT_MS, _SLICE)), name="events")
                    asking.add_done_callback(lambda _: self._woken.set())
                await self._woken.wait()
                self._woken.clear()
                is_behind = has_come = False
                if asking.done():
                    answer, asking = asking.result(), None
                    if answer.gap:
                        return  # what was missed cannot be told event by event: start over
                    self._store.apply(answer.events)
                    has_come = bool(answer.events)
                    calm = calm and not has_come
                    is_behind = len(answer.events) >= _SLICE
                    self._link.behind_ms = max(0, self._link.now_ms - answer.events[-1].at_ms) if is_behind else 0
                    self.read_up_to = after = answer.last_id
                if self._has_come:
                    self._has_come = False
                    await self._read_view()
                pause_s = _CALM_POLL_S if calm and self.is_still else POLL_S
                due = time.monotonic() - polled > pause_s
                if due or (self._store.polling_due and time.monotonic() - polled > POLL_S / 4):
                    polled, calm = time.monotonic(), True
                    await self._poll()
                    if self._store.heard - tidied >= _TIDIED_AFTER:
                        tidied = self._store.heard
                        give_back_memory()
                elif self._store.polling_due:  # it was read just now, and is to be read again soon
                    asyncio.get_running_loop().call_later(POLL_S / 4, self._woken.set)
                if has_come and not is_behind:
                    await asyncio.sleep(GATHER_S)
        finally:
            if asking is not None:
                asking.cancel()
                await asyncio.wait({asking})

    @property
    def is_still(self) -> bool:
        """Nothing in sight goes on by itself, as nodes' beats and tasks' progress do."""
        return self._view() not in ("fleet", "nodes") and not any(True for _ in self._on_screen())

    async def _ask(self, call: Awaitable[_T]) -> _T:
        async with asyncio.timeout(ANSWER_S):
            answer = await call
        self._link.answer()
        return answer

    async def _poll(self) -> None:
        self._store.polling_due = False
        if self._view() in ("nodes", "fleet") and self._store.has_functions:
            await self._read_paid()
        nodes = await self._ask(self._reader.nodes())
        self._store.put_nodes(nodes)
        self._store.put_queues(await self._ask(self._reader.queues(nodes)))
        ids = dict.fromkeys([*self._on_screen(), *self._store.take_wanted(_POLLED_IDS)])
        if ids:
            self._store.put_tasks(await self._ask(self._reader.glances(list(ids)[: 2 * _POLLED_IDS])))
        await self._read_minutes()
        if self._store.alerts_due or time.monotonic() - self._alerts_read > _ALERTS_S:
            self._store.put_alerts(await self._ask(self._reader.alerts()))
            self._alerts_read = time.monotonic()
        await self._read_view()

    async def _read_view(self) -> None:
        """What the view in sight alone shows."""
        match self._view():
            case "causes" if time.monotonic() - self._causes_read > CAUSES_S:
                self._store.put_causes(await self._ask(self._reader.dead(by=self._store.causes_by)))
                self._causes_read = time.monotonic()
            case "activity":
                acts = await self._ask(self._reader.acts(ACTS_READ))
                self._store.put_acts(acts, self._link.now_ms, limit=ACTS_READ)

    async def _read_paid(self) -> None:
        """What functions have cost today, for who looks at nodes that call them."""
        if time.monotonic() - self._paid_read > _PAID_S:
            day = (await self._ask(self._reader.spend())).day
            self._store.put_paid({name: day.of_function(name).spent for name in day.functions})
            self._paid_read = time.monotonic()

    async def _read_minutes(self) -> None:
        """The counters of the last hour: all of them once, then those that may have changed."""
        if not self._store.put_minutes(await self._ask(self._reader.minutes(_MINUTES_AGAIN))):
            self._store.put_minutes(await self._ask(self._reader.minutes(MINUTES_SHOWN)))

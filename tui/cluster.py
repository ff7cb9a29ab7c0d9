"""A real cluster as the console's source: found when asked, and found again when it has moved."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from importlib import import_module
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from lcq.errors import LcqError, StateUnavailable

if TYPE_CHECKING:  # loaded when first needed, after the first frame: they bring redis and zmq
    from datetime import datetime

    from lcq.alerts.records import Alerts
    from lcq.client import AsyncClient
    from lcq.config import DistributedConfig
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
    from lcq.state.reader import Snapshot, StateReader
    from lcq.wire import (
        Accepted,
        BulkAnswer,
        DeadAnswer,
        EventsAnswer,
        ForeseeAnswer,
        InfoAnswer,
        KeyAnswer,
        KeysAnswer,
        ListTasks,
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

_LOOK_S = 2.0  # between two looks whether the schedulers are others by now: a file says so
_ACT_S = 4.0  # an operator wants to hear soon that nobody answers


class NoClusterHere(StateUnavailable):
    """Redis is to be private, and nothing runs on this user's data folder."""

    def __init__(self, data_path: Path) -> None:
        self.url = ""
        LcqError.__init__(
            self,
            f"no cluster is running on {data_path}",
            hint="start one with 'lcq up', or set redis.url and scheduler_host to look at another",
        )


def redis_url(config: DistributedConfig) -> str:
    """Where Redis is: as configured, or where this user's private one runs now.

    Raises:
        NoClusterHere: it is to be private, and none is running.
    """
    if not config.redis.is_private:
        return config.redis.address
    from lcq.embedded import read_cluster_file

    cluster = read_cluster_file(config.data_path)
    if cluster is None:
        raise NoClusterHere(config.data_path)
    return cluster.redis_url


def cluster_name(config: DistributedConfig) -> str:
    """The cluster as the title names it: its context, or its namespace at its scheduler's host."""
    return config.context or f"{config.redis.namespace.strip('{}')}@{config.scheduler_host}"


class Cluster:
    """Reads by a StateReader and commands by an AsyncClient, both opened when first needed.

    Use it in an ``async with`` block. A cluster that was started anew, elsewhere, is found by the next
    snapshot or command. Every call raises LcqError when nobody answers.
    """

    def __init__(self, config: DistributedConfig, *, scheduler: str | None = None) -> None:
        """``scheduler`` ("HOST:PORT", several with commas) is commanded; default: as the configuration says."""
        self._config = config
        self._scheduler = scheduler
        self._reader: StateReader | None = None
        self._client: AsyncClient | None = None
        self._looked = 0.0  # for schedulers

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._close_reader()
        await self._close_client()

    # ------------------------------------------------------------ connections

    async def _close_reader(self) -> None:
        reader, self._reader = self._reader, None
        if reader is not None:
            await reader.__aexit__(None, None, None)

    async def _close_client(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            await client.__aexit__(None, None, None)

    async def _find_reader(self) -> StateReader:
        if self._reader is None:
            await asyncio.to_thread(import_module, "lcq.state.reader")  # a key pressed meanwhile is answered meanwhile
        from lcq.state.reader import StateReader

        url = redis_url(self._config)
        if self._reader is None or self._reader.url != url:
            await self._close_reader()
            self._reader = StateReader(url, namespace=self._config.redis.namespace, queues=self._config.queues)
        return self._reader

    @property
    def _open_reader(self) -> StateReader:
        if self._reader is None:
            raise NoClusterHere(self._config.data_path)
        return self._reader

    async def _commander(self) -> AsyncClient:
        if self._client is None:
            await asyncio.to_thread(import_module, "lcq.client.asynchronous")
        from lcq.client import AsyncClient, find_schedulers

        now = time.monotonic()
        if self._client is not None and now - self._looked < _LOOK_S:
            return self._client
        self._looked = now
        if self._client is None or self._client.given != find_schedulers(self._config, self._scheduler):
            await self._close_client()
            client = AsyncClient(self._config, scheduler=self._scheduler, timeout_s=_ACT_S)
            self._client = await client.__aenter__()
        return self._client

    # ------------------------------------------------------------ reading

    async def snapshot(
        self, limit: int = 200_000, take: Callable[[Sequence[TaskGlance | TaskRecord]], None] | None = None
    ) -> Snapshot:
        return await (await self._find_reader()).snapshot(limit, take)

    async def now_ms(self) -> int:
        return await (await self._find_reader()).now_ms()

    async def events(self, after: str, wait_ms: int, limit: int) -> EventsAnswer:
        return await self._open_reader.events(after, wait_ms, limit)

    async def tasks(self, ids: Sequence[str]) -> dict[str, TaskRecord]:
        return await self._open_reader.tasks(ids)

    async def glances(self, ids: Sequence[str]) -> list[TaskGlance | TaskRecord]:
        return await self._open_reader.glances(ids)

    async def nodes(self) -> tuple[NodeRecord, ...]:
        return await self._open_reader.nodes()

    async def queues(self, nodes: Sequence[NodeRecord] | None = None) -> tuple[QueueRecord, ...]:
        return await self._open_reader.queues(nodes)

    async def minutes(self, count: int = 60) -> tuple[MinuteTally, ...]:
        return await self._open_reader.minutes(count)

    async def device_history(self, node: str) -> dict[str, tuple[DeviceSample, ...]]:
        return await self._open_reader.device_history(node)

    async def dead(self, *, by: Sequence[str] = ()) -> DeadAnswer:
        return await self._open_reader.dead(by=by)

    async def alerts(self) -> Alerts:
        return await self._open_reader.alerts()

    async def spend(self) -> Spend:
        return await self._open_reader.spend()

    async def spend_of_days(self, days: int) -> dict[str, Book]:
        return await self._open_reader.spend_of_days(days)

    async def spend_of_jobs(self, limit: int = 200) -> dict[str, Book]:
        return await self._open_reader.spend_of_jobs(limit)

    async def acts(self, limit: int, before: str = "") -> tuple[ActRecord, ...]:
        return await self._open_reader.acts.page(limit=limit, before=before)

    async def list_tasks(self, query: ListTasks) -> ListTasksAnswer:
        return await (await self._find_reader()).list_tasks(query)

    async def task(self, task_id: str) -> TaskRecord:
        return await self._open_reader.task(task_id)

    async def find(self, typed: str) -> str:
        return await self._open_reader.find(typed)

    async def attempts(self, task_id: str) -> tuple[Attempt, ...]:
        return await self._open_reader.attempts(task_id)

    async def task_events(self, record: TaskRecord, *, limit: int = 200) -> tuple[Event, ...]:
        return await self._open_reader.task_events(record, limit=limit)

    # ------------------------------------------------------------ commanding

    async def info(self) -> InfoAnswer:
        told = await (await self._commander()).info()
        if self._reader is not None and told.queues:  # the settings of this host may know of others, or of older ones
            self._reader.queue_configs = told.queues
        return told

    async def why(self, task_id: str) -> Why:
        return await (await self._commander()).why(task_id)

    async def whys(self, ids: Sequence[str]) -> dict[str, WhyAnswer]:
        return await (await self._commander()).whys(ids)

    async def read_log(self, node: str, *, after: int = -1, limit: int = 200, task: str = "") -> LogAnswer:
        return await (await self._commander()).log(node, after=after, limit=limit, task=task)

    async def read_task_log(
        self, task_id: str, *, attempt: int = 0, begin: int = -1, limit: int = 200
    ) -> TaskLogAnswer:
        return await (await self._commander()).task_log(task_id, attempt=attempt, begin=begin, limit=limit)

    async def jobs(self, name: str) -> tuple[JobSummary, ...]:
        return await (await self._commander()).jobs(name)

    async def thumbnail(
        self, task_id: str, *, parts: Sequence[Part], longest: int, box: tuple[float, float, float, float]
    ) -> ThumbnailAnswer:
        return await (await self._commander()).thumbnail(task_id, parts=parts, longest=longest, box=box)

    async def submit(self, task: Task, *, queue: str = "") -> Accepted:
        return await (await self._commander()).submit(task, queue=queue)

    async def foresee(self, tasks: Sequence[Task], *, queue: str = "") -> ForeseeAnswer:
        return await (await self._commander()).foresee(tasks, queue=queue)

    async def submit_folder(self, wish: Wish) -> Sent:
        from tui.submitting import send_folder

        return await send_folder(wish, await self._commander())

    async def submit_many(
        self, tasks: Sequence[Task], *, queue: str = "", node: str = "", reason: str = ""
    ) -> SubmitAnswer:
        return await (await self._commander()).submit_many(tasks, queue=queue, node=node, reason=reason)

    async def retry(self, ids: Sequence[str], *, revisions: Sequence[int], reason: str = "") -> BulkAnswer:
        return await (await self._commander()).retry(ids, revisions=revisions, reason=reason)

    async def cancel(self, ids: Sequence[str], *, revisions: Sequence[int], reason: str = "") -> BulkAnswer:
        return await (await self._commander()).cancel(ids, revisions=revisions, reason=reason)

    async def reroute(
        self, ids: Sequence[str], *, revisions: Sequence[int], queue: str = "", node: str = "", reason: str = ""
    ) -> BulkAnswer:
        commander = await self._commander()
        return await commander.reroute(ids, queue=queue, node=node, revisions=revisions, reason=reason)

    async def prioritise(
        self, ids: Sequence[str], priority: TaskPriority, *, revisions: Sequence[int], reason: str = ""
    ) -> BulkAnswer:
        return await (await self._commander()).prioritise(ids, priority, revisions=revisions, reason=reason)

    async def set_deadline(
        self, ids: Sequence[str], deadline: datetime | None, *, revisions: Sequence[int], reason: str = ""
    ) -> BulkAnswer:
        return await (await self._commander()).set_deadline(ids, deadline, revisions=revisions, reason=reason)

    async def set_privacy(
        self, ids: Sequence[str], privacy: Privacy, *, revisions: Sequence[int], reason: str = ""
    ) -> BulkAnswer:
        return await (await self._commander()).set_privacy(ids, privacy, revisions=revisions, reason=reason)

    async def comment(self, ids: Sequence[str], text: str) -> BulkAnswer:
        return await (await self._commander()).comment(ids, text)

    async def acknowledge(self, cause: str, text: str, *, note: str = "", withdraw: bool = False) -> str:
        return await (await self._commander()).acknowledge(cause, text, note=note, withdraw=withdraw)

    async def silence(self, rule: str, *, seconds: float, subject: str = "", reason: str = "") -> str:
        return await (await self._commander()).silence(rule, seconds=seconds, subject=subject, reason=reason)

    async def unsilence(self, rule: str, *, subject: str = "", reason: str = "") -> str:
        return await (await self._commander()).unsilence(rule, subject=subject, reason=reason)

    async def undo(self, act: str) -> BulkAnswer:
        return await (await self._commander()).undo(act)

    async def pause(self, queue: str, *, reason: str = "") -> str:
        return await (await self._commander()).pause(queue, reason=reason)

    async def resume(self, queue: str, *, reason: str = "") -> str:
        return await (await self._commander()).resume(queue, reason=reason)

    async def drain(self, node: str, *, deadline_s: float | None = None, reason: str = "") -> None:
        await (await self._commander()).drain(node, deadline_s=deadline_s, reason=reason)

    async def activate(self, node: str, *, reason: str = "") -> None:
        await (await self._commander()).activate(node, reason=reason)

    async def block(self, node: str, *, reason: str = "") -> None:
        await (await self._commander()).quarantine(node, reason=reason)

    async def stop_node(self, node: str, *, deadline_s: float | None = None, reason: str = "") -> None:
        await (await self._commander()).stop_node(node, deadline_s=deadline_s, reason=reason)

    async def page(self, where: str = "", *, limit: int = 100, cursor: str = "") -> ListTasksAnswer:
        return await (await self._commander()).page(where, limit=limit, cursor=cursor)

    async def budget(self) -> SpendAnswer:
        return await (await self._commander()).spend()

    async def schedules(self) -> SchedulesAnswer:
        return await (await self._commander()).schedules()

    async def run_schedule(self, name: str, *, reason: str = "") -> RanSchedule:
        return await (await self._commander()).run_schedule(name, reason=reason)

    async def pause_schedule(self, name: str, *, reason: str = "") -> None:
        await (await self._commander()).pause_schedule(name, reason=reason)

    async def resume_schedule(self, name: str, *, reason: str = "") -> None:
        await (await self._commander()).resume_schedule(name, reason=reason)

    async def keys(self) -> KeysAnswer:
        return await (await self._commander()).keys()

    async def own_key(self) -> str:
        from lcq.keyring import client_file, credential_for

        client = await self._commander()
        own = await asyncio.to_thread(credential_for, self._config, client.endpoints, client_file(self._config))
        return own.pair.public if own is not None else ""

    async def revoke_key(self, key: str, *, reason: str = "") -> KeyAnswer:
        return await (await self._commander()).revoke_key(key, reason=reason)

    async def matching(self, where: str) -> AsyncIterator[TaskRecord]:
        async for record in (await self._commander()).tasks(where):
            yield record

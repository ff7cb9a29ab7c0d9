"""What a program uses to talk to a cluster: AsyncClient, and Client for code without an event loop."""

from __future__ import annotations

import asyncio
import functools
import getpass
import logging
import os
import random
import re
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, Self, TypeVar, cast

import zmq

from lcq.autoscale import DEFAULT_TARGET_S, Scale
from lcq.background import BackgroundLoop, Held
from lcq.config import DistributedConfig, load
from lcq.embedded import read_cluster_file
from lcq.errors import (
    InvalidInput,
    LcqError,
    NoMulticast,
    ProtocolError,
    SchedulerUnreachable,
    SeveralClusters,
    StateUnavailable,
    TaskNotFound,
)
from lcq.ids import is_id, normalise_prefix
from lcq.image_size import Size, read_sizes
from lcq.models import (
    TERMINAL_STATES,
    Event,
    JobReport,
    JobSummary,
    NodeRecord,
    QueueRecord,
    Skips,
    Task,
    TaskPriority,
    TaskRecord,
    TaskStatus,
)
from lcq.reasons import Why
from lcq.sockets import Mailbox, make_socket
from lcq.wire import (
    MAX_BATCH,
    MAX_MESSAGE_BYTES,
    Accepted,
    Act,
    Activate,
    AnswerT,
    AsideAnswer,
    AskWhy,
    Autoscale,
    BulkAnswer,
    Cancel,
    CancelJob,
    Costs,
    CostStats,
    Dead,
    DeadAnswer,
    Drain,
    DrainIdle,
    Events,
    EventsAnswer,
    Find,
    GetTasks,
    History,
    HistoryAnswer,
    Info,
    InfoAnswer,
    JobActAnswer,
    Jobs,
    LabelNode,
    ListTasks,
    ListTasksAnswer,
    Nodes,
    NoteJob,
    Pause,
    PauseJob,
    Prioritise,
    PrioritiseJob,
    Quarantine,
    Queues,
    Refusal,
    Refusals,
    Release,
    Reply,
    ReportJob,
    Request,
    Reroute,
    RerouteJob,
    Resume,
    ResumeJob,
    Retry,
    RetryJob,
    SetDevice,
    StopNode,
    Submit,
    SubmitAnswer,
    pack_request,
    unpack_reply,
)

log = logging.getLogger(__name__)

ResultT = TypeVar("ResultT")
P = ParamSpec("P")

_NOBODY_S = (0.01, 0.2)  # first and longest pause between tries while there is no connection
_SILENT_S = (0.5, 4.0)  # first and longest pause before a request that got no answer is sent again
_LOOK_AROUND_S = 3.0  # how long the LAN is listened to where nobody has said where the scheduler is
_AWAY_S = 0.2  # between two tries while the scheduler's Redis is away
_JOB_ACT_S = 5.0  # that a scheduler may take for one command on a whole job
_LONG_POLL_MS = 2000  # how long a question for events is held; and how late a restarted scheduler is noticed
_FLOOR_S = 20.0  # while waiting for tasks: look at them at least so often, whatever the events say
_AWAY = (SchedulerUnreachable, StateUnavailable)
_SUBMITTED_KEPT = 20_000  # tasks that a client can submit again, the newest
_SUBMITTED_S = 3600.0  # and for how long: what a failover of Redis loses was submitted seconds before it
_ADDRESS = re.compile(r"^(?:tcp://)?(?P<host>\[[0-9A-Fa-f:.%]+\]|[^\s:/\[\]]+)(?::(?P<port>\d{1,5}))?$")
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1", "[::1]"})


@dataclass(frozen=True)
class _Submitted:
    """A task as it was given to the cluster, to be given again if a failover of Redis lost it."""

    task: Task
    key: str
    queue: str
    node: str
    at: float


def find_schedulers(config: DistributedConfig, scheduler: str | None = None) -> tuple[str, ...]:
    """The control endpoints (``tcp://host:port``) of the schedulers to talk to, each once, at least one.

    Those are the ones of ``scheduler`` ("HOST:PORT" or "HOST", several with commas between them); else the cluster
    that runs on this user's data folder, unless the configuration names another host; else the configured address;
    and with these two the further ones that ``schedulers`` of the configuration names.

    Raises:
        InvalidInput: one of them is not an address.
    """
    if scheduler is not None:
        return tuple(dict.fromkeys(_endpoint_of(one, config) for one in scheduler.split(",")))
    first = config.control_endpoint
    if config.scheduler_host in _LOOPBACK:
        cluster = read_cluster_file(config.data_path)
        if cluster is not None:
            first = cluster.control_endpoint
    return tuple(dict.fromkeys((first, *(_endpoint_of(one, config) for one in config.schedulers))))


def looks_around(config: DistributedConfig, scheduler: str | None = None) -> bool:
    """Whether a scheduler is to be looked for on the LAN: nobody has said where it is, and this user runs none here."""
    if scheduler is not None or config.has_address or not config.discovery.enabled:
        return False
    return read_cluster_file(config.data_path) is None


async def listens(endpoint: str) -> bool:
    """Whether somebody has bound this address of this host."""
    host, _, port = endpoint.removeprefix("tcp://").rpartition(":")
    try:
        async with asyncio.timeout(1.0):
            _, writer = await asyncio.open_connection(host, int(port))
    except (OSError, TimeoutError):
        return False
    writer.close()
    return True


async def _found_around(config: DistributedConfig, patience_s: float) -> tuple[str, ...]:
    """The schedulers that the LAN tells of; none if it tells of none.

    Raises:
        SeveralClusters: of several clusters.
        InvalidConfig: there is something wrong with ``discovery.key``.
    """
    from lcq.discovery import Browser

    try:
        async with Browser(config.discovery) as browser:
            choice = await browser.listen(patience_s)
    except NoMulticast as trouble:
        log.warning("%s", trouble.message)
        return ()
    if len(choice.clusters) > 1:
        raise SeveralClusters(choice.why)
    if not choice.endpoints:
        log.warning("%s", choice.why or f"no scheduler is announced on the LAN either (listened for {patience_s:g} s)")
    return choice.endpoints


def _endpoint_of(address: str, config: DistributedConfig) -> str:
    parts = _ADDRESS.match(address.strip())
    port = int(parts["port"] or config.zeromq.control_port) if parts else 0
    if not parts or not 0 < port < 65536:
        raise InvalidInput(
            f"{address!r} is not the address of a scheduler",
            hint=f"give HOST:PORT, for example gpu-1:{config.zeromq.control_port or 5571}",
        )
    return f"tcp://{parts['host']}:{port}"


def _host_and_port(endpoint: str) -> tuple[str, str]:
    host, _, port = endpoint.removeprefix("tcp://").rpartition(":")
    return ("127.0.0.1" if host in _LOOPBACK else host), port


def login_name() -> str:
    """Who runs this program, as far as the system knows."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container may run a uid that has no name
        return f"uid-{os.getuid()}"


def _pieces(items: Sequence[ResultT]) -> Iterator[Sequence[ResultT]]:
    for start in range(0, len(items), MAX_BATCH):
        yield items[start : start + MAX_BATCH]


def _listed(ids: str | Iterable[str]) -> tuple[str, ...]:
    return (ids,) if isinstance(ids, str) else tuple(ids)


class AsyncClient:
    """A connection to a cluster, for ``async with``. Safe to use from many coroutines of one event loop.

    Every request is sent again, under the same id, until it is answered: a lost message or a scheduler that
    is restarted costs time, and nothing is done twice. After ``timeout_s`` without an answer
    ``SchedulerUnreachable`` is raised. What a scheduler refuses is raised as the ``LcqError`` it names.

    It is connected to every scheduler that it was given or that an answer has named, and asks those that are
    there in turn: while one of them lives, a request is answered.
    """

    def __init__(
        self,
        config: DistributedConfig | None = None,
        *,
        scheduler: str | None = None,
        actor: str | None = None,
        timeout_s: float = 10.0,
    ) -> None:
        """``config`` default: the layers of ``lcq.config.load()``; ``actor``: the login name.

        ``scheduler``: "HOST:PORT", or several with commas; default: as the configuration says.

        Raises:
            InvalidConfig, InvalidInput: the settings or ``scheduler`` cannot be used.
        """
        config = config or load()
        self.given = find_schedulers(config, scheduler)
        """Where to ask by what is configured; ``endpoints`` may come from the LAN instead."""
        self.endpoints = self.given
        self._config = config if looks_around(config, scheduler) else None
        self.actor = (actor or login_name())[:128]
        self.timeout_s = timeout_s
        self._waiting: dict[str, asyncio.Future[Reply]] = {}
        self._submitted: OrderedDict[str, _Submitted] = OrderedDict()  # by id, until its end has been seen
        self._context: zmq.Context[zmq.Socket[bytes]] | None = None
        self._mailbox: Mailbox | None = None
        self._receiver: asyncio.Task[None] | None = None
        self._connected: dict[str, None] = {}  # endpoints, in the order in which they were learnt
        self._told: tuple[str, ...] = ()

    @property
    def endpoint(self) -> str:
        """The first of the schedulers that this client was given."""
        return self.endpoints[0]

    async def __aenter__(self) -> Self:
        """Raises:
        InvalidInput: an address is none.
        SeveralClusters: no address is configured, and the LAN tells of more than one cluster.
        """
        if self._config is not None and not await listens(self.given[0]):
            found = await _found_around(self._config, min(_LOOK_AROUND_S, self.timeout_s))
            self.endpoints = found or self.given
        self._context = zmq.Context()
        self._socket = make_socket(self._context, zmq.DEALER)
        self._mailbox = Mailbox(self._socket)
        self._told, self._connected = (), {}
        for endpoint in self.endpoints:
            try:
                self._connect(endpoint)
            except zmq.ZMQError as error:
                self._mailbox.close()
                self._context.term()
                raise InvalidInput(
                    f"cannot connect to {endpoint}: {error.strerror}", hint="check --scheduler and scheduler_host"
                ) from error
        self._receiver = asyncio.create_task(self._receive(self._mailbox), name="lcq client receiver")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._receiver is not None:
            self._receiver.cancel()
            await asyncio.wait({self._receiver})
        if self._mailbox is not None:
            self._mailbox.close()
        if self._context is not None:
            self._context.term()
        self._receiver = self._mailbox = self._context = None

    # ------------------------------------------------------------ whom to ask

    def _connect(self, endpoint: str) -> None:
        self._socket.ipv6 = "[" in endpoint
        self._socket.connect(endpoint)
        self._connected[endpoint] = None

    def _learn(self, told: tuple[str, ...]) -> None:
        """Ask the schedulers that an answer names too, and no more those that it names no longer."""
        self._told = told
        given = {_host_and_port(endpoint) for endpoint in self.endpoints}
        found = {endpoint: _host_and_port(endpoint) for endpoint in told}
        # A scheduler that we know by another address may be on another host: its 127.0.0.1 is not ours.
        are_here = any(place in given for place in found.values())
        more = [
            endpoint
            for endpoint, (host, port) in found.items()
            if (host, port) not in given and (are_here or host != "127.0.0.1")
        ]
        for endpoint in more:
            if endpoint not in self._connected:
                try:
                    self._connect(endpoint)
                except zmq.ZMQError as error:
                    log.debug("cannot connect to %s: %s", endpoint, error.strerror)
        for endpoint in [known for known in self._connected if known not in (*self.endpoints, *more)]:
            self._socket.disconnect(endpoint)
            del self._connected[endpoint]

    # ------------------------------------------------------------ one request, one answer

    async def ask(self, request: Request[AnswerT], *, hold_s: float = 0.0) -> AnswerT:
        """The answer to any request of ``lcq.wire``. ``hold_s``: how long the scheduler may think about it.

        An act that meets a scheduler whose Redis is away is asked for again under its id, which is safe, in that time.

        Raises:
            SchedulerUnreachable: nobody answered in time; the request may have been done all the same.
            StateUnavailable: Redis was away all the time; the same holds.
            LcqError: the scheduler's refusal, as the class its code names.
        """
        mailbox = self._mailbox
        if mailbox is None:
            raise RuntimeError("the client is not open: use it in a with block")
        frame = pack_request(request)
        if len(frame) > MAX_MESSAGE_BYTES:
            raise InvalidInput(
                f"a {request.CMD} of {len(frame)} bytes is over the limit of {MAX_MESSAGE_BYTES}",
                hint="make the tasks' config and metadata smaller, or send fewer at a time",
            )
        reply: Reply | None = None
        try:
            async with asyncio.timeout(self.timeout_s + hold_s):
                while reply is None or (isinstance(request, Act) and _is_away(reply)):
                    if reply is not None:
                        await asyncio.sleep(_AWAY_S * random.uniform(0.5, 1.5))
                    answered = self._waiting[request.id] = asyncio.get_running_loop().create_future()
                    await self._send_until_answered(mailbox, frame, answered, hold_s)
                    reply = answered.result()
        except TimeoutError as late:
            if reply is None:
                raise SchedulerUnreachable(", ".join(self._connected), self.timeout_s + hold_s) from late
        finally:
            self._waiting.pop(request.id, None)
        return reply.answer(cast("type[AnswerT]", request.ANSWER))

    @staticmethod
    async def _send_until_answered(
        mailbox: Mailbox, frame: bytes, answered: asyncio.Future[Reply], hold_s: float
    ) -> None:
        nobody_s, silent_s = _NOBODY_S[0], _SILENT_S[0]
        while not answered.done():
            dropped_before = mailbox.dropped
            mailbox.send(frame)
            if mailbox.dropped > dropped_before:
                pause_s, nobody_s = nobody_s, min(2 * nobody_s, _NOBODY_S[1])
            else:
                pause_s, silent_s = hold_s + silent_s, min(2 * silent_s, _SILENT_S[1])
            await asyncio.wait({answered}, timeout=pause_s * random.uniform(0.75, 1.25))

    async def _receive(self, mailbox: Mailbox) -> None:
        async for batch in mailbox.batches():
            for frames in batch:
                try:
                    reply = unpack_reply(frames[-1])
                except ProtocolError as error:  # it does not say to whom it speaks, so everybody must know
                    for waiting in self._waiting.values():
                        if not waiting.done():
                            waiting.set_exception(error)
                    continue
                if reply.schedulers and reply.schedulers != self._told:
                    self._learn(reply.schedulers)
                answered = self._waiting.get(reply.id)
                if answered is not None and not answered.done():
                    answered.set_result(reply)

    # ------------------------------------------------------------ submitting

    async def submit(
        self, task: Task, *, queue: str = "", node: str = "", key: str | None = None, reason: str = ""
    ) -> Accepted:
        """Give one task to the cluster; when this returns it is stored for good.

        ``queue`` and ``node`` override routing. ``key`` (default: the task's id) makes submitting safe to
        repeat: the same key answers with the same task.

        Raises:
            InvalidInput, StateOverloaded, IdempotencyConflict: why the task was refused.
        """
        keys = (key,) if key is not None else ()
        answer = await self.submit_many([task], queue=queue, node=node, keys=keys, reason=reason)
        if answer.refused:
            raise answer.refused[0].error()
        return answer.accepted[0]

    async def submit_many(
        self,
        tasks: Iterable[Task],
        *,
        queue: str = "",
        node: str = "",
        keys: Sequence[str] = (),
        reason: str = "",
    ) -> SubmitAnswer:
        """Give many tasks to the cluster, each accepted or refused by itself, in the order given.

        Raises:
            InvalidInput: ``keys`` are given, but not one a task.
        """
        wanted = tuple(tasks)
        if keys and len(keys) != len(wanted):
            raise InvalidInput(f"{len(wanted)} tasks need as many keys, found {len(keys)}")
        accepted: list[Accepted] = []
        refused: list[Refusal] = []
        for start in range(0, len(wanted), MAX_BATCH):
            piece = slice(start, start + MAX_BATCH)
            answer = await self.ask(
                Submit(
                    tasks=wanted[piece],
                    keys=tuple(keys[piece]),
                    sizes=await asyncio.to_thread(_sizes, wanted[piece]),
                    queue=queue,
                    node=node,
                    actor=self.actor,
                    reason=reason,
                )
            )
            accepted += answer.accepted
            refused += answer.refused
            self._remember(answer, wanted[piece], keys[piece], queue, node)
        return SubmitAnswer(accepted=tuple(accepted), refused=tuple(refused))

    def _remember(
        self, answer: SubmitAnswer, tasks: Sequence[Task], keys: Sequence[str], queue: str, node: str
    ) -> None:
        now = time.monotonic()
        refused = {refusal.id for refusal in answer.refused}
        named = [(task, key) for task, key in zip(tasks, keys or [task.id for task in tasks], strict=True)]
        taken = [(task, key) for task, key in named if task.id not in refused]
        for accepted, (task, key) in zip(answer.accepted, taken, strict=False):
            # Where the key was known already, the task goes by the id it had then.
            again = task if task.id == accepted.id else task.model_copy(update={"id": accepted.id})
            self._submitted[accepted.id] = _Submitted(again, key, queue, node, now)
            self._submitted.move_to_end(accepted.id)
        while self._submitted and (
            len(self._submitted) > _SUBMITTED_KEPT or now - next(iter(self._submitted.values())).at > _SUBMITTED_S
        ):
            self._submitted.popitem(last=False)

    async def _submit_lost(self, ids: Iterable[str]) -> None:
        """Give those of ``ids`` that the cluster does not know any more to it again, as they were, under their keys.

        Raises:
            TaskNotFound: one is not there that this client has not submitted, or not lately.
            LcqError: one is refused now.
        """
        lost: list[str] = []
        for piece in _pieces(tuple(ids)):
            lost += (await self.ask(GetTasks(ids=tuple(piece)))).missing
        for task_id in lost:
            given = self._submitted.get(task_id)
            if given is None or time.monotonic() - given.at > _SUBMITTED_S:
                raise TaskNotFound(task_id)
        log.warning("%d tasks are unknown to the cluster, as Redis has lost them: submitting them again", len(lost))
        to_where = groupby((self._submitted[task_id] for task_id in lost), lambda given: (given.queue, given.node))
        for (queue, node), group in to_where:
            again = list(group)
            answer = await self.submit_many(
                [given.task for given in again],
                queue=queue,
                node=node,
                keys=[given.key for given in again],
                reason="lost by a failover of Redis",
            )
            for refusal in answer.refused:
                raise refusal.error()

    # ------------------------------------------------------------ looking

    async def find(self, prefix: str) -> str:
        """The whole id that ``prefix`` is the unique beginning of; a whole id comes back as it is.

        Raises:
            TaskNotFound: no id begins so.
            AmbiguousId: several do.
        """
        typed = normalise_prefix(prefix)
        if is_id(typed):
            return typed
        if not typed:
            raise InvalidInput("an empty task id", hint="lcq tasks lists them")
        return (await self.ask(Find(prefix=typed))).id

    async def get(self, id_or_prefix: str) -> TaskRecord:
        """A task as it stands.

        Raises:
            TaskNotFound, AmbiguousId: as ``find`` says.
        """
        return (await self.get_many([await self.find(id_or_prefix)]))[0]

    async def get_many(self, ids: Iterable[str]) -> list[TaskRecord]:
        """The tasks of these (whole) ids, in the order given.

        Raises:
            TaskNotFound: for the first that is not there.
        """
        records = []
        for piece in _pieces(tuple(ids)):
            answer = await self.ask(GetTasks(ids=tuple(piece)))
            found = {record.id: record for record in answer.tasks}
            for task_id in piece:
                if task_id not in found:
                    raise TaskNotFound(task_id)
                records.append(found[task_id])
        return records

    async def known(self, ids: Iterable[str]) -> list[TaskRecord]:
        """The tasks of those of these (whole) ids that are there."""
        records: list[TaskRecord] = []
        for piece in _pieces(tuple(ids)):
            records += (await self.ask(GetTasks(ids=tuple(piece)))).tasks
        return records

    async def page(
        self,
        *,
        status: TaskStatus | None = None,
        queue: str = "",
        node: str = "",
        job: str = "",
        cause: str = "",
        limit: int = 100,
        cursor: str = "",
    ) -> ListTasksAnswer:
        """One page of the tasks for which all filters given hold, newest first, with the total."""
        return await self.ask(
            ListTasks(
                status=status,
                queue=queue,
                node=node,
                job=job,
                cause=cause,
                limit=max(1, min(limit, MAX_BATCH)),
                cursor=cursor,
            )
        )

    async def tasks(
        self,
        *,
        status: TaskStatus | None = None,
        queue: str = "",
        node: str = "",
        job: str = "",
        cause: str = "",
        limit: int | None = None,
    ) -> AsyncIterator[TaskRecord]:
        """The tasks for which all filters given hold, newest first, fetched page by page."""
        left, cursor = limit, ""
        while left is None or left > 0:
            size = MAX_BATCH if left is None else min(left, MAX_BATCH)
            answer = await self.page(
                status=status, queue=queue, node=node, job=job, cause=cause, limit=size, cursor=cursor
            )
            for record in answer.tasks:
                yield record
            if left is not None:
                left -= len(answer.tasks)
            cursor = answer.cursor
            if not cursor:
                return

    async def dead(self, *, cause: str = "", job: str = "") -> DeadAnswer:
        """The failed tasks by what they died of; only those of the code ``cause``, or of ``job``."""
        return await self.ask(Dead(cause=cause, job=job))

    async def costs(self, model: str = "") -> tuple[CostStats, ...]:
        """What is known of costs, of all models or of one, and how good predictions were."""
        return (await self.ask(Costs(model=model))).costs

    async def history(self, id_or_prefix: str) -> HistoryAnswer:
        """A task with its attempts, its events, and one line on why it waits or what became of it."""
        return await self.ask(History(task_id=await self.find(id_or_prefix)))

    async def why(self, id_or_prefix: str) -> Why:
        """Why a task waits, or what became of it: one reason of the closed list in ``lcq.reasons``."""
        return (await self.ask(AskWhy(task_id=await self.find(id_or_prefix)))).why

    async def nodes(self) -> tuple[NodeRecord, ...]:
        """All nodes the cluster knows."""
        return (await self.ask(Nodes())).nodes

    async def queues(self) -> tuple[QueueRecord, ...]:
        """All queues with their counts."""
        return (await self.ask(Queues())).queues

    async def jobs(self, name: str = "", *, limit: int = 100) -> tuple[JobSummary, ...]:
        """Jobs, newest first; with ``name`` only that one.

        Raises:
            JobNotFound: there is none of that name.
        """
        return (await self.ask(Jobs(name=name, limit=limit))).jobs

    async def report_job(self, job: str) -> JobReport:
        """What has become of a job, all in all.

        Raises:
            JobNotFound: there is none of that name, or it has been forgotten.
        """
        return (await self.ask(ReportJob(job=job))).report

    async def note_job(self, job: str, skipped: Sequence[Skips]) -> None:
        """Have kept with a job what a submit of it has skipped, and why.

        Raises:
            JobNotFound: there is none of that name: none of its tasks is known.
        """
        await self.ask(NoteJob(job=job, skipped=tuple(skipped), actor=self.actor))

    async def info(self) -> InfoAnswer:
        """Which scheduler this is: versions, its Redis, its queues, the newest event's id."""
        return await self.ask(Info())

    # ------------------------------------------------------------ following

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
        pause_s = _SILENT_S[0]
        told = False
        while True:
            try:
                return await attempt()
            except through as away:
                if not told:
                    log.warning("%s: waiting for it to come back", away.message)
                told = True
                await asyncio.sleep(pause_s * random.uniform(0.75, 1.25))
                pause_s = min(2 * pause_s, _SILENT_S[1])

    async def _looked_at(self, ids: Sequence[str]) -> list[TaskRecord]:
        """The tasks of ``ids``; those of them that a failover of Redis lost are submitted again first.

        Raises:
            TaskNotFound: one is not there that this client has not submitted.
        """
        while True:
            try:
                return await self.get_many(ids)
            except TaskNotFound as unknown:
                if unknown.task_id not in self._submitted:
                    raise
            await self._submit_lost(ids)

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
                records = await self._persist(lambda: self._looked_at(list(waiting)), (StateUnavailable,))
            looked_at = loop.time()
            while True:
                for record in records:
                    if record.status.is_terminal and record.id in waiting:
                        del waiting[record.id]
                        self._submitted.pop(record.id, None)
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
                    records = await self._persist(functools.partial(self._looked_at, changed))
        except TimeoutError as late:
            raise TimeoutError(f"after {timeout_s:g} s {len(waiting)} tasks had not ended") from late

    async def wait(self, ids: str | Iterable[str], timeout_s: float | None = None) -> list[TaskRecord]:
        """These tasks, in the order given, when all of them have come to their end.

        Raises:
            TaskNotFound, TimeoutError, SchedulerUnreachable: as ``as_completed`` says.
        """
        wanted = _listed(ids)
        ended = {record.id: record async for record in self.as_completed(wanted, timeout_s)}
        return [ended[task_id] for task_id in wanted]

    # ------------------------------------------------------------ steering

    async def cancel(self, ids: str | Iterable[str], *, revisions: Sequence[int] = (), reason: str = "") -> BulkAnswer:
        """Cancel tasks; a running attempt is told to stop. What has become of each is in the answer.

        ``revisions`` (one an id, optional) are what the caller saw: a task that has moved on is refused.
        """
        return await self._on_tasks(Cancel, ids, revisions, reason)

    async def retry(self, ids: str | Iterable[str], *, revisions: Sequence[int] = (), reason: str = "") -> BulkAnswer:
        """Put tasks that have come to an end back into their queue, their counts anew."""
        return await self._on_tasks(Retry, ids, revisions, reason)

    async def reroute(
        self,
        ids: str | Iterable[str],
        *,
        queue: str = "",
        node: str = "",
        labels: Mapping[str, str] | None = None,
        revisions: Sequence[int] = (),
        reason: str = "",
    ) -> BulkAnswer:
        """Move tasks to a queue, to one node, or to nodes with these labels. A running attempt is cancelled first.

        ``labels``: what the tasks require from now on, whatever they required before; ``{}``: any node will do.
        """
        return await self._on_tasks(Reroute, ids, revisions, reason, queue=queue, node=node, labels=labels)

    async def prioritise(
        self,
        ids: str | Iterable[str],
        priority: TaskPriority,
        *,
        revisions: Sequence[int] = (),
        reason: str = "",
    ) -> BulkAnswer:
        """Give tasks another priority."""
        return await self._on_tasks(Prioritise, ids, revisions, reason, priority=priority)

    async def _on_tasks(
        self,
        command: type[Request[BulkAnswer]],
        ids: str | Iterable[str],
        revisions: Sequence[int],
        reason: str,
        **wish: object,
    ) -> BulkAnswer:
        wanted = _listed(ids)
        if revisions and len(revisions) != len(wanted):
            raise InvalidInput(f"{len(wanted)} tasks need as many revisions, found {len(revisions)}")
        done: list[str] = []
        refused: list[Refusal] = []
        for start in range(0, len(wanted), MAX_BATCH):
            piece = slice(start, start + MAX_BATCH)
            values: dict[str, Any] = {"ids": wanted[piece], "revisions": tuple(revisions[piece]), **wish}
            answer = await self.ask(command(actor=self.actor, reason=reason, **values))
            done += answer.done
            refused += answer.refused
        return BulkAnswer(done=tuple(done), refused=tuple(refused))

    async def pause(self, queue: str, *, reason: str = "") -> None:
        """Let ``queue`` give out no more tasks; running ones finish."""
        await self.ask(Pause(queue=queue, actor=self.actor, reason=reason))

    async def resume(self, queue: str, *, reason: str = "") -> None:
        """Let ``queue`` give out tasks again."""
        await self.ask(Resume(queue=queue, actor=self.actor, reason=reason))

    async def pause_job(self, job: str, *, reason: str = "") -> AsideAnswer:
        """Let no task of ``job`` start; running ones finish, and what is submitted for it waits."""
        return await self.ask(PauseJob(job=job, actor=self.actor, reason=reason), hold_s=_JOB_ACT_S)

    async def resume_job(self, job: str, *, reason: str = "") -> AsideAnswer:
        """Let the tasks of ``job`` wait in their old places again."""
        return await self.ask(ResumeJob(job=job, actor=self.actor, reason=reason), hold_s=_JOB_ACT_S)

    async def cancel_job(self, job: str, *, reason: str = "") -> JobActAnswer:
        """Cancel those tasks of ``job`` that have not ended. The answer counts them."""
        return await self._on_job(lambda after: CancelJob(job=job, after=after, actor=self.actor, reason=reason))

    async def retry_job(self, job: str, *, cause: str = "", reason: str = "") -> JobActAnswer:
        """Put those tasks of ``job`` that failed (of the code ``cause``) back into their queues."""
        return await self._on_job(
            lambda after: RetryJob(job=job, cause=cause, after=after, actor=self.actor, reason=reason)
        )

    async def reroute_job(
        self,
        job: str,
        *,
        queue: str = "",
        node: str = "",
        labels: Mapping[str, str] | None = None,
        reason: str = "",
    ) -> JobActAnswer:
        """Move those tasks of ``job`` that have not ended, as ``reroute`` does."""
        wanted = None if labels is None else dict(labels)
        return await self._on_job(
            lambda after: RerouteJob(
                job=job, queue=queue, node=node, labels=wanted, after=after, actor=self.actor, reason=reason
            )
        )

    async def prioritise_job(self, job: str, priority: TaskPriority, *, reason: str = "") -> JobActAnswer:
        """Give those tasks of ``job`` that have not ended another priority."""
        return await self._on_job(
            lambda after: PrioritiseJob(job=job, priority=priority, after=after, actor=self.actor, reason=reason)
        )

    async def _on_job(self, command: Callable[[str], Request[JobActAnswer]]) -> JobActAnswer:
        """Ask for an act on a whole job, a command after the other, and sum up what they say."""
        done, after = 0, ""
        refused: dict[str, Refusals] = {}
        while True:
            answer = await self.ask(command(after), hold_s=_JOB_ACT_S)
            done += answer.done
            for one in answer.refused:
                known = refused.get(one.example.code)
                refused[one.example.code] = Refusals(
                    count=one.count + (known.count if known else 0), example=known.example if known else one.example
                )
            after = answer.after
            if not after:
                return JobActAnswer(done=done, refused=tuple(refused.values()))

    async def drain(self, node: str, *, deadline_s: float | None = None, reason: str = "") -> None:
        """Let ``node`` finish what it has and take nothing new.

        ``deadline_s``: after so long it hands back what still runs, at no cost for the tasks.

        Raises:
            AgentTooOld: its agent knows no deadline.
        """
        await self.ask(Drain(node=node, deadline_s=deadline_s, actor=self.actor, reason=reason))

    async def autoscale(self, *, target_wait_s: float = DEFAULT_TARGET_S) -> Scale:
        """How many slots each queue wants so that what waits begins in time, and which nodes are idle."""
        return (await self.ask(Autoscale(target_wait_s=target_wait_s))).scale

    async def drain_idle(self, count: int, *, queue: str = "", reason: str = "") -> tuple[str, ...]:
        """Drain at most so many of the idle nodes, the longest idle first. Answers which.

        ``queue``: only of those that serve it.
        """
        return (await self.ask(DrainIdle(count=count, queue=queue, actor=self.actor, reason=reason))).drained

    async def stop_node(self, node: str, *, deadline_s: float | None = None, reason: str = "") -> None:
        """Have the agent of ``node`` drain and end; ``deadline_s`` as for ``drain``, by default its own agent.drain_s.

        Raises:
            AgentTooOld: its agent cannot be stopped from afar.
        """
        await self.ask(StopNode(node=node, deadline_s=deadline_s, actor=self.actor, reason=reason))

    async def activate(self, node: str, *, device: str = "", reason: str = "") -> None:
        """Let ``node``, or only ``device`` of it, take work again."""
        await self.ask(Activate(node=node, device=device, actor=self.actor, reason=reason))

    async def quarantine(self, node: str, *, device: str = "", reason: str = "") -> None:
        """Let ``node``, or only ``device`` of it, take nothing new until activated; it may finish what it runs."""
        await self.ask(Quarantine(node=node, device=device, actor=self.actor, reason=reason))

    async def set_device(
        self,
        node: str,
        device: str = "",
        *,
        slots: int | None = None,
        queues: Sequence[str] | None = None,
        reason: str = "",
    ) -> None:
        """Set how many slots a device of ``node`` has, and which queues it serves; that outlives restarts.

        ``device`` may be left out where there is one. None leaves a setting as it is; 0 slots and no queues (``()``)
        undo it: what the agent itself says counts again.

        Raises:
            DeviceNotFound, UnknownQueue
            AgentTooOld: its agent cannot change its slots while it runs.
        """
        told = None if queues is None else tuple(queues)
        await self.ask(SetDevice(node=node, device=device, slots=slots, queues=told, actor=self.actor, reason=reason))

    async def label_node(
        self,
        node: str,
        labels: Mapping[str, str] | None = None,
        *,
        without: Iterable[str] = (),
        forget: Iterable[str] = (),
        reason: str = "",
    ) -> None:
        """Set labels of ``node`` over those that its agent tells; that outlives restarts.

        ``without``: labels that it is not to have. ``forget``: undo either, so that what its agent tells counts again.
        """
        await self.ask(
            LabelNode(
                node=node,
                labels=labels or {},
                without=tuple(without),
                forget=tuple(forget),
                actor=self.actor,
                reason=reason,
            )
        )

    async def release(self, node: str, *, reason: str = "") -> None:
        """Let ``node`` free what its loaded models hold; the next task loads its model anew."""
        await self.ask(Release(node=node, actor=self.actor, reason=reason))


def _sizes(tasks: Sequence[Task]) -> tuple[Size | None, ...]:
    """How large the images are, as far as this host can see them: the cluster predicts by it."""
    return tuple(read_sizes(task.image_path if task.image_path.startswith("/") else "" for task in tasks))


def _is_away(reply: Reply) -> bool:
    return reply.error is not None and reply.error.get("code") == StateUnavailable.code


def _ended_in(page: EventsAnswer) -> list[str]:
    """The ids of the tasks that these events saw come to an end."""
    endings = (event for event in page.events if event.fields.get("status") in TERMINAL_STATES)
    return list(dict.fromkeys(event.fields.get("id", "") for event in endings))


def _waits(
    method: Callable[Concatenate[AsyncClient, P], Coroutine[Any, Any, ResultT]],
) -> Callable[Concatenate[Client, P], ResultT]:
    """``method`` for code without an event loop: called on the background loop, waited for here."""

    @functools.wraps(method)
    def call(self: Client, /, *args: P.args, **kwargs: P.kwargs) -> ResultT:
        return self._loop.run(method(self._client, *args, **kwargs))

    return call


def _iterates(
    method: Callable[Concatenate[AsyncClient, P], AsyncIterator[ResultT]],
) -> Callable[Concatenate[Client, P], Iterator[ResultT]]:
    """``method`` for code without an event loop: what it yields, one by one."""

    @functools.wraps(method)
    def call(self: Client, /, *args: P.args, **kwargs: P.kwargs) -> Iterator[ResultT]:
        return self._loop.iterate(method(self._client, *args, **kwargs))

    return call


class Client:
    """``AsyncClient`` for code without an event loop: the same methods, each waits for its answer.

    Use it in a ``with`` block. All clients of a process share one background event loop.
    """

    def __init__(
        self,
        config: DistributedConfig | None = None,
        *,
        scheduler: str | None = None,
        actor: str | None = None,
        timeout_s: float = 10.0,
    ) -> None:
        """As ``AsyncClient``."""
        self._client = AsyncClient(config, scheduler=scheduler, actor=actor, timeout_s=timeout_s)
        self._loop = BackgroundLoop.shared()
        self._held: Held[AsyncClient] | None = None

    def __enter__(self) -> Self:
        self._held = self._loop.hold(self._client)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._held is not None:
            self._held.release()
            self._held = None

    @property
    def endpoint(self) -> str:
        return self._client.endpoint

    @property
    def endpoints(self) -> tuple[str, ...]:
        return self._client.endpoints

    @property
    def actor(self) -> str:
        return self._client.actor

    ask = _waits(AsyncClient.ask)
    submit = _waits(AsyncClient.submit)
    submit_many = _waits(AsyncClient.submit_many)
    find = _waits(AsyncClient.find)
    get = _waits(AsyncClient.get)
    get_many = _waits(AsyncClient.get_many)
    known = _waits(AsyncClient.known)
    page = _waits(AsyncClient.page)
    tasks = _iterates(AsyncClient.tasks)
    dead = _waits(AsyncClient.dead)
    costs = _waits(AsyncClient.costs)
    history = _waits(AsyncClient.history)
    why = _waits(AsyncClient.why)
    nodes = _waits(AsyncClient.nodes)
    queues = _waits(AsyncClient.queues)
    jobs = _waits(AsyncClient.jobs)
    report_job = _waits(AsyncClient.report_job)
    note_job = _waits(AsyncClient.note_job)
    info = _waits(AsyncClient.info)
    events = _iterates(AsyncClient.events)
    event_pages = _iterates(AsyncClient.event_pages)
    as_completed = _iterates(AsyncClient.as_completed)
    wait = _waits(AsyncClient.wait)
    cancel = _waits(AsyncClient.cancel)
    retry = _waits(AsyncClient.retry)
    reroute = _waits(AsyncClient.reroute)
    prioritise = _waits(AsyncClient.prioritise)
    pause = _waits(AsyncClient.pause)
    resume = _waits(AsyncClient.resume)
    pause_job = _waits(AsyncClient.pause_job)
    resume_job = _waits(AsyncClient.resume_job)
    cancel_job = _waits(AsyncClient.cancel_job)
    retry_job = _waits(AsyncClient.retry_job)
    reroute_job = _waits(AsyncClient.reroute_job)
    prioritise_job = _waits(AsyncClient.prioritise_job)
    drain = _waits(AsyncClient.drain)
    drain_idle = _waits(AsyncClient.drain_idle)
    autoscale = _waits(AsyncClient.autoscale)
    activate = _waits(AsyncClient.activate)
    quarantine = _waits(AsyncClient.quarantine)
    stop_node = _waits(AsyncClient.stop_node)
    set_device = _waits(AsyncClient.set_device)
    label_node = _waits(AsyncClient.label_node)
    release = _waits(AsyncClient.release)

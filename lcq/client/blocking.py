"""Client: AsyncClient for code without an event loop."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, Self, TypeVar

from lcq.background import BackgroundLoop, Held
from lcq.client.asynchronous import AsyncClient
from lcq.config import DistributedConfig

ResultT = TypeVar("ResultT")
P = ParamSpec("P")


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
    foresee = _waits(AsyncClient.foresee)
    get = _waits(AsyncClient.get)
    get_many = _waits(AsyncClient.get_many)
    known = _waits(AsyncClient.known)
    page = _waits(AsyncClient.page)
    tasks = _iterates(AsyncClient.tasks)
    dead = _waits(AsyncClient.dead)
    acts = _waits(AsyncClient.acts)
    undo = _waits(AsyncClient.undo)
    costs = _waits(AsyncClient.costs)
    usage = _waits(AsyncClient.usage)
    history = _waits(AsyncClient.history)
    why = _waits(AsyncClient.why)
    whys = _waits(AsyncClient.whys)
    thumbnail = _waits(AsyncClient.thumbnail)
    store = _waits(AsyncClient.store)
    sees = _waits(AsyncClient.sees)
    log = _waits(AsyncClient.log)
    task_log = _waits(AsyncClient.task_log)
    nodes = _waits(AsyncClient.nodes)
    queues = _waits(AsyncClient.queues)
    jobs = _waits(AsyncClient.jobs)
    report_job = _waits(AsyncClient.report_job)
    note_job = _waits(AsyncClient.note_job)
    info = _waits(AsyncClient.info)
    settings = _waits(AsyncClient.settings)
    events = _iterates(AsyncClient.events)
    event_pages = _iterates(AsyncClient.event_pages)
    as_completed = _iterates(AsyncClient.as_completed)
    wait = _waits(AsyncClient.wait)
    cancel = _waits(AsyncClient.cancel)
    retry = _waits(AsyncClient.retry)
    reroute = _waits(AsyncClient.reroute)
    prioritise = _waits(AsyncClient.prioritise)
    set_deadline = _waits(AsyncClient.set_deadline)
    set_privacy = _waits(AsyncClient.set_privacy)
    comment = _waits(AsyncClient.comment)
    acknowledge = _waits(AsyncClient.acknowledge)
    schedules = _waits(AsyncClient.schedules)
    run_schedule = _waits(AsyncClient.run_schedule)
    pause_schedule = _waits(AsyncClient.pause_schedule)
    resume_schedule = _waits(AsyncClient.resume_schedule)
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
    functions = _waits(AsyncClient.functions)
    warm_function = _waits(AsyncClient.warm_function)
    spend = _waits(AsyncClient.spend)
    activate = _waits(AsyncClient.activate)
    quarantine = _waits(AsyncClient.quarantine)
    stop_node = _waits(AsyncClient.stop_node)
    set_device = _waits(AsyncClient.set_device)
    label_node = _waits(AsyncClient.label_node)
    release = _waits(AsyncClient.release)
    alerts = _waits(AsyncClient.alerts)
    silence = _waits(AsyncClient.silence)
    unsilence = _waits(AsyncClient.unsilence)
    test_alerts = _waits(AsyncClient.test_alerts)
    keys = _waits(AsyncClient.keys)
    invite_key = _waits(AsyncClient.invite_key)
    enrol_key = _waits(AsyncClient.enrol_key)
    join = _waits(AsyncClient.join)
    replace_key = _waits(AsyncClient.replace_key)
    revoke_key = _waits(AsyncClient.revoke_key)

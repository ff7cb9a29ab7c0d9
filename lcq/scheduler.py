"""The scheduler: the three managers on one ground, announced so that others find them. Stateless; run several."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Self

from lcq import __version__
from lcq.alerts.keeper import AlertKeeper
from lcq.announcement import Announcement
from lcq.archivist import Archivist
from lcq.backups import Backups
from lcq.component import Complaints, Ground, run_beside
from lcq.config import ConfigManager, DistributedConfig
from lcq.desk import Site
from lcq.errors import LcqError, StateFormatMismatch, StateUnavailable
from lcq.http.door import HttpDoor
from lcq.keeper import Keeper
from lcq.lender import Lender
from lcq.log import set_log_level
from lcq.metrics.instruments import watch_lag
from lcq.nodes import NodeManager
from lcq.queues import QueueManager
from lcq.reload import ConfigFollower, Role
from lcq.schedules import Timekeeper
from lcq.sockets import is_loopback
from lcq.state.manager import StateManager
from lcq.tasks import TaskManager
from lcq.tracing import traced
from lcq.wire import OLDEST_PROTOCOL, PROTOCOL_VERSION

_log = logging.getLogger(__name__)
_ANNOUNCE_S = 2.0


class Scheduler:
    """One scheduler on the Redis at ``redis_url``. ``async with Scheduler(config, redis_url=…) as scheduler``.

    Raises on entering:
        StateUnavailable, UnsafeState: Redis is away, or may lose data.
        AddressRefused: what is needed to reach ``storage.url`` is not installed.
        StateFormatMismatch: a newer LCQ has written what is there.
        InvalidConfig: a port is taken, or an address may not be bound.
    """

    def __init__(self, config: DistributedConfig, *, redis_url: str) -> None:
        self.config = config
        self.redis_url = redis_url
        self._stack = AsyncExitStack()
        self._stop = asyncio.Event()
        self._superseded: StateFormatMismatch | None = None
        self._cluster_id = ""  # as Redis has it; put there again after a flush

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            stack.enter_context(traced(self.config, "scheduler"))
            self.state = await stack.enter_async_context(StateManager(self.config, url=self.redis_url))
            self.site = Site(self.state)
            ground = Ground(self.state, self.site)
            self.tasks = await stack.enter_async_context(TaskManager(ground))
            self.queues = await stack.enter_async_context(QueueManager(ground))
            self.nodes = await stack.enter_async_context(NodeManager(ground))
            await stack.enter_async_context(Archivist(ground))
            await stack.enter_async_context(Timekeeper(ground))
            self.keeper = await stack.enter_async_context(Keeper(ground))
            await stack.enter_async_context(Backups(ground, self.keeper.depot.store))
            self.alerts = await stack.enter_async_context(AlertKeeper(ground))
            Lender(ground).serve()
            self.http = await stack.enter_async_context(HttpDoor(ground, self.keeper.depot))
            await self._announce()
            stack.push_async_callback(self._withdraw)
            await run_beside(
                stack,
                ("announce", self._keep_announced()),
                ("event loop's lag", watch_lag(self.state.measures.loop_lag)),
            )
            await self._open_announcer(stack)
            self._stack = stack.pop_all()
        also = f" and {self.http.address}" if self.http.address else ""
        _log.info("scheduler %s answers at %s%s", self.site.scheduler_id, self.control_endpoint, also)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    @property
    def control_endpoint(self) -> str:
        """Where agents, consoles and clients reach this scheduler."""
        return self.site.control_endpoint

    @property
    def condition(self) -> str:
        """How it is, in a line: where it answers, and what is wrong."""
        settings = self.site.settings
        refused = f"the settings stay as they were: {settings.error}" if settings is not None and settings.error else ""
        return "; ".join(filter(None, (f"answers at {self.control_endpoint}", self.state.watch.trouble, refused)))

    def followed(
        self, manager: ConfigManager, *, also: Callable[[DistributedConfig], object] | None = None
    ) -> ConfigFollower:
        """A follower of the settings that this scheduler was made with. ``also`` gets what has changed too, for an
        agent that lives by the same files."""

        def follow(config: DistributedConfig) -> None:
            before = self.state.config
            if config.queues != before.queues:
                self.queues.follow(config.queues)  # first: it may be refused, and then all stays as it was
            self.state.follow(config)
            if config.queues != before.queues or config.leases != before.leases:
                self.nodes.greet_anew()
            self.tasks.look_again()
            set_log_level(config.log_level)
            if also is not None:
                also(config)

        roles = (Role.SCHEDULER,) if also is None else (Role.SCHEDULER, Role.AGENT)
        self.site.settings = ConfigFollower(manager, roles=roles, on_change=follow)
        return self.site.settings

    def request_stop(self) -> None:
        """Let ``run()`` return."""
        self._stop.set()

    async def run(self) -> None:
        """Serve until ``request_stop()``.

        Raises:
            StateFormatMismatch: a newer scheduler has taken the state over; this one may not write it any more.
        """
        await self._stop.wait()
        if self._superseded is not None:
            raise self._superseded

    async def _announce(self) -> None:
        hold_ms = int(_ANNOUNCE_S * 3 * 1000)
        self._cluster_id = await self.state.announce_scheduler(
            self.site.scheduler_id, self.control_endpoint, hold_ms=hold_ms, cluster=self._cluster_id
        )
        self.site.desk.schedulers = tuple((await self.state.reader.schedulers()).values())

    async def _open_announcer(self, stack: AsyncExitStack) -> None:
        """Be found by mDNS, wherever this scheduler can be reached from another host."""
        config = self.config
        if not config.discovery.enabled or (is_loopback(config.zeromq.bind) and not config.discovery.interfaces):
            return
        from lcq.discovery import Announcer

        announcer = Announcer(config.discovery, bind=config.zeromq.bind, told=self._words)
        await run_beside(stack, ("mDNS", announcer.keep()))

    def _words(self, addresses: tuple[str, ...]) -> Announcement:
        return Announcement(
            scheduler=self.site.scheduler_id,
            cluster=self.config.discovery.cluster or "lcq",
            cluster_id=self._cluster_id,
            addresses=addresses,
            port=int(self.control_endpoint.rpartition(":")[2]),
            protocol=PROTOCOL_VERSION,
            oldest=OLDEST_PROTOCOL,
            version=__version__,
            at_s=int(time.time()),
        )

    async def _keep_announced(self) -> None:
        complaints = Complaints("announcing this scheduler")
        while True:
            await asyncio.sleep(_ANNOUNCE_S)
            try:
                await self._announce()
            except StateFormatMismatch as newer:
                self._superseded = newer
                self._stop.set()
                return
            except StateUnavailable:
                continue  # the feed has said so
            except LcqError as refusal:
                complaints.say(refusal)

    async def _withdraw(self) -> None:
        try:
            await self.state.withdraw_scheduler(self.site.scheduler_id)
        except StateUnavailable:
            _log.info("Redis is away: this scheduler's address expires there by itself")

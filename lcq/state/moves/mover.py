"""How a move gets to Redis: its script, the pipeline that callers share, what it means when Redis is away."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Any, Self

from redis import exceptions as redis_errors

from lcq import failpoints
from lcq.clock import steady_now
from lcq.config import DistributedConfig
from lcq.errors import StateFormatMismatch, StateOverloaded, StateUnavailable, without_password
from lcq.metrics.instruments import SchedulerMeasures
from lcq.state.connection import check_server, connect, our_errors, ours
from lcq.state.disk_log import DiskLog
from lcq.state.feed import Feed
from lcq.state.reader import StateReader
from lcq.state.scripts import STATE_FORMAT, Scripts
from lcq.state.watch import Failover, ServerWatch

_log = logging.getLogger(__name__)
_BATCH = 128  # scripts in one pipeline: enough to share a round trip, few enough to let readers in between


class Mover:
    """What ``StateManager`` is built on: a move, by name, from anywhere inside ``async with``. Subclasses name them."""

    def __init__(self, config: DistributedConfig | None = None, *, url: str | None = None) -> None:
        self.config = config or DistributedConfig()
        self.url = url or self.config.redis.address
        self.reader = StateReader(self.url, namespace=self.config.redis.namespace, queues=self.config.queues)
        self.reader.serverless = self.config.overflow
        self.keys = self.reader.keys
        self.feed = Feed(self.reader)
        self.server_version = ""
        self.measures = SchedulerMeasures()
        """What the moves took and did, for who watches."""
        self._scripts = Scripts(self.config)
        self._redis = connect(self.url)
        self._written = DiskLog(self.url, self._redis, self.keys.synced, is_synced=False)
        is_synced = self.config.redis.durability == "fsync"
        self._kept = DiskLog(self.url, self._redis, self.keys.synced, is_synced=True) if is_synced else self._written
        self.watch = ServerWatch(
            self.url, self._redis, self.reader.clients, unsafe=self.config.redis.unsafe, noted=self._note_failover
        )
        self._asked: list[tuple[str, Sequence[Any], asyncio.Future[list[Any]]]] = []
        self._something_asked = asyncio.Event()
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        """Raises:
        StateUnavailable: the server does not answer.
        UnsafeState: the server may lose data, and the configuration does not accept that.
        StateFormatMismatch: a newer LCQ has written what is there.
        """
        async with AsyncExitStack() as stack:
            stack.push_async_callback(self._redis.aclose)
            await stack.enter_async_context(self.reader)
            known = self.config.redis
            self.server_version = await check_server(
                self._redis, self.url, unsafe=known.unsafe, trusted_network=known.trusted_network
            )
            await self._kept.check()
            await self._adopt()  # which brings all scripts to a server that has not got them
            # Before the group: what fails inside of one comes out as a group of errors, and nobody looks for that.
            await stack.enter_async_context(self.feed)
            group = await stack.enter_async_context(asyncio.TaskGroup())
            pump = group.create_task(self._pump(), name="state pump")
            stack.callback(pump.cancel)
            stack.callback(group.create_task(self.watch.run(), name="server watch").cancel)
            for log in {self._written, self._kept}:
                stack.callback(group.create_task(log.run(), name="disk log").cancel)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    async def _adopt(self) -> None:
        (answer,) = await self._run([("adopt_state", [1, self.keys.root], None)])
        if isinstance(answer, Exception):
            raise answer
        if answer[0] == "other_format":
            raise StateFormatMismatch(self.url, answer[1], STATE_FORMAT)
        _, had, now = answer
        if had != now:
            _log.info("the state at %s is of format %s now, was %s", without_password(self.url), now, had or "new")

    async def _note_failover(self, failover: Failover) -> None:
        """Have it in the events, where consoles see it; whichever scheduler notices first tells all."""
        await self._move("note_failover", failover.run_id, failover.lost_ms, failover.lost_bytes, str(failover))

    def follow(self, config: DistributedConfig) -> None:
        """Go by these settings from now on. Where Redis is, and under which names, stays as it was at the start."""
        self.config = config
        self.reader.queue_configs = config.queues
        self.reader.serverless = config.overflow
        scripts = Scripts(config)
        if scripts.header != self._scripts.header:
            self._scripts = scripts  # they get to Redis when the first of them is run there

    # ------------------------------------------------------------ how moves travel

    async def _load_scripts(self) -> None:
        async with our_errors(self.url):
            pipe = self._redis.pipeline(transaction=False)
            for text in self._scripts.texts.values():
                pipe.script_load(text)
            await pipe.execute()

    async def _move(self, name: str, *arguments: str | int | float, command: str = "") -> list[Any]:
        """Run one script; answers its list. Calls of one turn of the loop travel together.

        ``command``: the id of the operator's command that this is a part of; it is done once however often told, and
        not undone by Redis's death.
        """
        await failpoints.reach(f"state.{name}", error=self._unavailable)
        done: asyncio.Future[list[Any]] = asyncio.get_running_loop().create_future()
        keys = (self.keys.root, self.keys.done(command)) if command else (self.keys.root,)
        self._asked.append((name, [len(keys), *keys, *map(str, arguments)], done))
        self._something_asked.set()
        answer = await done
        if answer[0] == "other_format":
            raise StateFormatMismatch(self.url, answer[1], STATE_FORMAT)
        if command:
            await self._written.has_all()
        await failpoints.passed(f"state.{name}", error=self._unavailable)
        return answer

    def _unavailable(self, point: str) -> StateUnavailable:
        return StateUnavailable(self.url, f"failpoint {point}")

    async def _pump(self) -> None:
        while True:
            await self._something_asked.wait()
            batch, self._asked = self._asked[:_BATCH], self._asked[_BATCH:]
            if not self._asked:
                self._something_asked.clear()
            try:
                answers = await self._run(batch)
            except asyncio.CancelledError:
                for _, _, done in (*batch, *self._asked):
                    done.cancel()
                raise
            for (_, _, done), answer in zip(batch, answers, strict=True):
                if done.done():
                    continue
                if isinstance(answer, Exception):
                    done.set_exception(answer)
                else:
                    done.set_result(answer)

    async def _run(self, batch: Sequence[tuple[str, Sequence[Any], Any]]) -> list[Any]:
        try:
            async with our_errors(self.url):
                answers = await self._pipeline(batch)
                forgotten = [
                    place for place, answer in enumerate(answers) if isinstance(answer, redis_errors.NoScriptError)
                ]
                if forgotten:  # the server was restarted or flushed its scripts: none of these has run
                    await self._load_scripts()
                    again = await self._pipeline([batch[place] for place in forgotten])
                    for place, answer in zip(forgotten, again, strict=True):
                        answers[place] = answer
        except Exception as error:  # noqa: BLE001 - handed to every caller who waits for this pipeline
            if isinstance(error, StateUnavailable):
                self.watch.failed(error)
            return [error] * len(batch)
        told = [ours(self.url, answer) if isinstance(answer, Exception) else answer for answer in answers]
        self._tell_watch(told)
        return told

    def _tell_watch(self, answers: Sequence[object]) -> None:
        refused = next((one for one in answers if isinstance(one, StateUnavailable)), None)
        if refused is None or not all(isinstance(one, StateUnavailable) for one in answers):
            self.watch.answered()
        elif not isinstance(refused, StateOverloaded):
            self.watch.failed(refused)

    async def _pipeline(self, batch: Sequence[tuple[str, Sequence[Any], Any]]) -> list[Any]:
        pipe = self._redis.pipeline(transaction=False)
        for name, arguments, _ in batch:
            pipe.evalsha(self._scripts.digests[name], *arguments)
        began = steady_now()
        answers = list(await pipe.execute(raise_on_error=False))
        self.measures.redis.note(steady_now() - began)
        return answers

    async def _until_kept(self) -> None:
        """Return when what was answered is durable, as redis.durability wants it."""
        await self._kept.has_all()

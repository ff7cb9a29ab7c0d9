"""Membership: hello to a scheduler that answers, beats to it, and hello to the next when it falls silent."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import Awaitable, Callable, Iterator

from lcq.clock import steady_now
from lcq.errors import LcqError, SchedulerUnreachable, StaleBoot, UnknownModel, VersionMismatch
from lcq.wire import Beat, BeatAnswer, Hello, HelloAnswer
from worker.line import ControlLine

_log = logging.getLogger(__name__)
_HELLO_S = 3.0  # how long one scheduler may take to answer hello before another is tried
_SILENT_BEATS = 2
_REFUSED_S = 2.0  # such as Redis being away
_OTHER_VERSION_S = 10.0


class Membership:
    """Keeps a node registered. The callbacks say what to tell, and are told what came back.

    ``configured``: the endpoint to begin with, asked anew each time; ``before_hello`` and ``ready`` are awaited
    in front of each hello; ``on_beat`` gets the beat, its answer, and until when (``steady_now()``) that renewed
    its leases.
    """

    def __init__(
        self,
        name: str,
        line: ControlLine,
        *,
        configured: Callable[[], str],
        before_hello: Callable[[], Awaitable[None]],
        ready: Callable[[], Awaitable[None]],
        hello: Callable[[], Hello],
        beat: Callable[[], Beat],
        on_welcome: Callable[[HelloAnswer], None],
        on_beat: Callable[[Beat, BeatAnswer, float], None],
        on_parted: Callable[[], None],
    ) -> None:
        self.joined = asyncio.Event()
        self._name = name
        self._line = line
        self._configured = configured
        self._before_hello = before_hello
        self._ready = ready
        self._hello = hello
        self._beat = beat
        self._on_welcome = on_welcome
        self._on_beat = on_beat
        self._on_parted = on_parted
        self._schedulers: tuple[str, ...] = ()
        self._beat_due = asyncio.Event()
        self._hello_due = False

    def hello_again(self) -> None:
        """What the hello says has changed: say it again, as soon as the beat under way has been answered."""
        self._hello_due = True
        self._beat_due.set()

    def beat_now(self) -> None:
        """Do not wait for the time of the next beat."""
        self._beat_due.set()

    async def keep(self) -> None:
        """Be registered with a scheduler that answers, for ever.

        Raises:
            StaleBoot: a newer agent has this node's name.
            UnknownModel: by ``ready``.
        """
        silent = ""
        while True:
            greeting = await self._join(silent)
            self._schedulers = greeting.schedulers
            self.joined.set()
            self._on_welcome(greeting)
            self._line.ask_again()
            try:
                await self._keep_beating(greeting)
                silent = ""
            except SchedulerUnreachable:
                silent = self._line.endpoint
            finally:
                self.joined.clear()
                self._on_parted()

    def _endpoints(self, silent: str) -> Iterator[str]:
        """Where to say hello: where we were, at every scheduler we were told of, where we began; ``silent`` last."""
        configured = self._configured()
        known = dict.fromkeys((self._line.endpoint or configured, *self._schedulers, configured))
        yield from sorted(known, key=lambda endpoint: endpoint == silent)

    async def _join(self, silent: str) -> HelloAnswer:
        """Say hello until somebody answers; ``silent`` is the endpoint that has just ceased to.

        Raises:
            StaleBoot: a newer agent has this node's name.
            UnknownModel: by ``ready``.
        """
        told: set[str] = set()
        while True:
            for endpoint in self._endpoints(silent):
                pause_s = 0.0
                try:
                    self._line.connect(endpoint)
                    await self._before_hello()
                    await self._ready()
                    self._hello_due = False
                    greeting = await self._line.ask(self._hello(), patience_s=_HELLO_S * random.uniform(0.75, 1.25))
                except (StaleBoot, UnknownModel):
                    raise
                except SchedulerUnreachable:
                    said = (
                        f"no scheduler answers at {endpoint} (start one with 'lcq up' or 'lcq scheduler', or name it "
                        "with --scheduler HOST:PORT)"
                    )
                except LcqError as refusal:
                    said = str(refusal)
                    pause_s = _OTHER_VERSION_S if isinstance(refusal, VersionMismatch) else _REFUSED_S
                else:
                    if told:
                        _log.info("agent %s: scheduler answers again", self._name)
                    return greeting
                if said not in told:
                    told.add(said)
                    _log.warning("agent %s: %s; it goes on and joins as soon as one answers", self._name, said)
                await asyncio.sleep(pause_s * random.uniform(0.75, 1.25))

    async def _keep_beating(self, greeting: HelloAnswer) -> None:
        """Beat, until the scheduler is to be told hello again.

        Raises:
            SchedulerUnreachable: it has been silent for two beats.
        """
        beat_s, lease_s = greeting.beat_ms / 1000, greeting.lease_ms / 1000
        refused = ""
        while not self._hello_due:
            self._beat_due.clear()
            began = steady_now()
            beat = self._beat()
            try:
                answer = await self._line.ask(beat, patience_s=_SILENT_BEATS * beat_s)
            except StaleBoot:
                _log.warning("agent %s: the scheduler does not know us any more, saying hello again", self._name)
                return
            except SchedulerUnreachable:
                raise
            except LcqError as refusal:  # it lives, but cannot renew: Redis is away
                if str(refusal) != refused:
                    refused = str(refusal)
                    _log.warning("agent %s: leases are not renewed: %s", self._name, refusal)
            else:
                refused = ""
                self._schedulers = answer.schedulers or self._schedulers
                self._on_beat(beat, answer, began + lease_s)
            spent_s = steady_now() - began
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(0.0, beat_s * random.uniform(0.9, 1.0) - spent_s)):
                    await self._beat_due.wait()

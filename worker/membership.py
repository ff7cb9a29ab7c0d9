"""Membership: hello to a scheduler that answers, beats to it, and hello to the next when it falls silent."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import Awaitable, Callable, Iterator, Sequence

from lcq.clock import steady_now
from lcq.errors import LcqError, NodeNameTaken, SchedulerUnreachable, StaleBoot, UnknownModel, VersionMismatch
from lcq.wire import Beat, BeatAnswer, Hello, HelloAnswer
from worker.line import ControlLine, NotAnswered

_log = logging.getLogger(__name__)
_HELLO_S = (3.0, 12.0)  # how long one scheduler may take to answer hello before another is tried: at first, at most
_NOBODY_S = 0.3  # of that, how long there may be no connection to it
_SILENT_BEATS = 2
_BEATS_A_LEASE = 3  # at least, of a lease that was granted by a scheduler with other settings
_REFUSED_S = 2.0  # such as Redis being away
_OTHER_VERSION_S = 10.0
_TAKEN_S = 3.0  # how long a name may be another's before it is given up


class Membership:
    """Keeps a node registered. The callbacks say what to tell, and are told what came back.

    ``configured``: the endpoints to begin with, asked anew each time; ``before_hello`` and ``ready`` are awaited
    in front of each hello; ``on_beat`` gets the beat, its answer, and when (``steady_now()``) it was first sent;
    ``shortest_lease_s`` says by what lease the beats must hurry, where one is shorter than this scheduler's own;
    ``yields_name``: where another agent lives under this name, give it up instead of waiting until that has gone.
    ``on_trouble`` is told why the node is in no scheduler's hands, and "" when it is again.
    """

    def __init__(
        self,
        name: str,
        line: ControlLine,
        *,
        configured: Callable[[], Sequence[str]],
        before_hello: Callable[[], Awaitable[None]],
        ready: Callable[[], Awaitable[None]],
        hello: Callable[[], Hello],
        beat: Callable[[], Beat],
        on_welcome: Callable[[HelloAnswer], None],
        on_beat: Callable[[Beat, BeatAnswer, float], None],
        shortest_lease_s: Callable[[], float],
        on_parted: Callable[[], None],
        on_trouble: Callable[[str], None],
        yields_name: bool = False,
    ) -> None:
        self._yields_name = yields_name
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
        self._shortest_lease_s = shortest_lease_s
        self._on_parted = on_parted
        self._on_trouble = on_trouble
        self._schedulers: tuple[str, ...] = ()
        self._beat_due = asyncio.Event()
        self._hello_due = False
        self._attached: asyncio.Timeout | None = None

    def hello_again(self) -> None:
        """What the hello says has changed: say it again, as soon as the beat under way has been answered."""
        self._hello_due = True
        self._beat_due.set()

    def beat_now(self) -> None:
        """Do not wait for the time of the next beat."""
        self._beat_due.set()

    def scheduler_died(self) -> None:
        """Our scheduler's end of the lifeline is gone: say hello to another, or to the one that comes in its place."""
        if self._attached is not None:
            self._attached.reschedule(asyncio.get_running_loop().time())

    async def keep(self) -> None:
        """Be registered with a scheduler that answers, for ever.

        Raises:
            StaleBoot: a newer agent has this node's name.
            NodeNameTaken: an agent of another data folder has it, and it is to be yielded.
            UnknownModel: by ``ready``.
        """
        silent = ""
        while True:
            greeting = await self._join(silent)
            self._schedulers = greeting.schedulers or self._schedulers
            self.joined.set()
            self._on_welcome(greeting)
            self._line.ask_again()
            try:
                async with asyncio.timeout(None) as self._attached:
                    await self._keep_beating(greeting)
                silent = ""
            except (SchedulerUnreachable, TimeoutError):
                silent = self._line.endpoint
                self._on_trouble(f"the scheduler at {silent} does not answer any more")
            finally:
                self._attached = None
                self.joined.clear()
                self._on_parted()

    def _endpoints(self, silent: str) -> Iterator[str]:
        """Where to say hello: where we were, at every scheduler we were told of, where we began; ``silent`` last.

        Those we were told of in any order, so that all nodes of one that has died do not go to the same next one.
        """
        configured = self._configured()
        told = random.sample(self._schedulers, len(self._schedulers))
        known = dict.fromkeys((self._line.endpoint or configured[0], *told, *configured))
        yield from sorted(known, key=lambda endpoint: endpoint == silent)

    async def _join(self, silent: str) -> HelloAnswer:
        """Say hello until somebody answers; ``silent`` is the endpoint that has just ceased to.

        Raises:
            StaleBoot: a newer agent has this node's name.
            UnknownModel: by ``ready``.
        """
        told: set[str] = set()
        taken_since: float | None = None
        patience_s, nobody_s = _HELLO_S[0], _NOBODY_S
        while True:
            for endpoint in self._endpoints(silent):
                pause_s = 0.0
                try:
                    self._line.connect(endpoint)
                    await self._before_hello()
                    await self._ready()
                    self._hello_due = False
                    greeting = await self._line.ask(
                        self._hello(), patience_s=patience_s * random.uniform(0.75, 1.25), nobody_s=nobody_s
                    )
                except (StaleBoot, UnknownModel):
                    raise
                except NodeNameTaken as refusal:
                    # The one before us may have died just now: its scheduler notices within moments.
                    taken_since = taken_since if taken_since is not None else steady_now()
                    if self._yields_name and steady_now() - taken_since > _TAKEN_S:
                        raise
                    said, pause_s = str(refusal), _REFUSED_S
                except NotAnswered as shut:
                    said, pause_s = str(shut), _REFUSED_S
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
                    self._on_trouble("")
                    return greeting
                self._on_trouble(said)
                if said not in told:
                    told.add(said)
                    _log.warning("agent %s: %s; it goes on and joins as soon as one answers", self._name, said)
                await asyncio.sleep(pause_s * random.uniform(0.75, 1.25))
            # A link may be slow: who gave up on everybody is more patient in the next round.
            patience_s, nobody_s = min(1.5 * patience_s, _HELLO_S[1]), min(2 * nobody_s, _HELLO_S[1])

    async def _keep_beating(self, greeting: HelloAnswer) -> None:
        """Beat, until the scheduler is to be told hello again.

        Raises:
            SchedulerUnreachable: it has been silent for two beats; or it can renew nothing, and there are others
                that perhaps can.
        """
        beat_s = greeting.beat_ms / 1000
        renewed, refused = steady_now(), ""
        while not self._hello_due:
            self._beat_due.clear()
            began = steady_now()
            beat = self._beat()
            try:
                answer = await self._line.ask(beat, patience_s=_SILENT_BEATS * beat_s)
            except StaleBoot:
                _log.info("agent %s: the scheduler does not know us any more, saying hello again", self._name)
                return
            except SchedulerUnreachable:
                raise
            except LcqError as refusal:  # it lives, but cannot renew: Redis is away
                if str(refusal) != refused:
                    refused = str(refusal)
                    _log.warning("agent %s: leases are not renewed: %s", self._name, refusal)
                    self._on_trouble(refused)
                if steady_now() - renewed > _SILENT_BEATS * beat_s and len(set(self._endpoints(""))) > 1:
                    raise SchedulerUnreachable(self._line.endpoint, steady_now() - renewed) from refusal
            else:
                if refused:
                    _log.info("agent %s: leases are renewed again", self._name)
                    self._on_trouble("")
                renewed, refused = steady_now(), ""
                self._schedulers = answer.schedulers or self._schedulers
                self._on_beat(beat, answer, began)
            spent_s = steady_now() - began
            pause_s = min(beat_s, self._shortest_lease_s() / _BEATS_A_LEASE)
            if refused:
                pause_s = min(pause_s, _REFUSED_S)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(0.0, pause_s * random.uniform(0.9, 1.0) - spent_s)):
                    await self._beat_due.wait()

"""Failpoints: named places in the code where a drill may kill, stop, delay or fail this process.

``LCQ_FAILPOINTS="agent.leased=kill; state.finish_task=error-after@2"`` arms them, and only where ``LCQ_DRILLS=1`` says
that this cluster is for drills; alone it is refused, because a drill that is believed to run and does not proves
nothing, and one that nobody wanted costs tasks. One entry is ``point=action[-after][:seconds][@n]``:

    kill          SIGKILL to this process
    stop          SIGSTOP to this process
    error         the operation is not done, and an error is reported
    delay         the operation waits for ``seconds``
    hang          the whole event loop stands still for ``seconds``, while threads live

``-after``: once the operation has been done; so ``error-after`` does it, and then reports an error. ``@n``: the n-th
time only; without it, every time.
"""

from __future__ import annotations

import errno
import logging
import os
import re
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from lcq.errors import InvalidConfig
from lcq.moves import LEGAL_MOVES

_log = logging.getLogger(__name__)

DRILLS_VARIABLE = "LCQ_DRILLS"
"""1: this process may be used for drills. The one LCQ_ variable that a runner inherits."""
VARIABLE = "LCQ_FAILPOINTS"

AGENT_POINTS: Mapping[str, str] = {
    "agent.ask": "a step goes to the scheduler; after: its answer has come, and nothing of it has been taken in",
    "agent.lease": "a grant is noted as ours; after: no slot knows of it yet",
    "agent.begin": "a slot is given the grant; after: its runner has not been told",
    "agent.tell": "the runner is told what to do",
    "agent.conclude": "an attempt has ended, its result is staged, and nobody but the agent knows",
    "agent.retake": "the cluster is asked whether a late result counts; after: it does, and has not got its name yet",
    "agent.rename": "a result gets its final name",
    "agent.spool": "an outcome goes to the disk",
    "agent.settle": "a verdict is acted upon; after: its outcome is forgotten",
    "agent.deliver": "outcomes of an earlier boot are reported, before the hello",
}
STATE_POINTS: Mapping[str, str] = {f"state.{move}": "a move travels to Redis and back" for move in LEGAL_MOVES}
POINTS: Mapping[str, str] = {**AGENT_POINTS, **STATE_POINTS}
_TAKE_ERRORS = frozenset({"agent.ask", "agent.rename", "agent.spool", *STATE_POINTS})  # elsewhere nothing can fail

_ENTRY = re.compile(
    r"(?P<point>[\w.]+)=(?P<action>kill|stop|error|delay|hang)(?P<after>-after)?(?::(?P<seconds>\d+(?:\.\d+)?))?(?:@(?P<nth>\d+))?"
)


@dataclass(frozen=True)
class _Armed:
    action: str
    seconds: float
    nth: int | None  # None: every time


@dataclass
class _Drill:
    armed: dict[tuple[str, bool], list[_Armed]] = field(default_factory=dict)  # by (point, after)
    reached: Counter[tuple[str, bool]] = field(default_factory=Counter)


_drill = _Drill()


def arm_from_environment() -> None:
    """Arm what ``LCQ_FAILPOINTS`` names; called once, where a process begins.

    Raises:
        InvalidConfig: it is set without LCQ_DRILLS=1, or names what there is not.
    """
    text = os.environ.get(VARIABLE, "")
    if not text:
        return
    if os.environ.get(DRILLS_VARIABLE) != "1":
        raise InvalidConfig(
            f"{VARIABLE} is set ({text!r}), and this is no cluster for drills",
            hint=f"unset it, or set {DRILLS_VARIABLE}=1 where tasks may be lost for a drill",
        )
    _drill.armed = _parsed(text)
    _log.warning("failpoints are armed: %s", text)


@contextmanager
def armed(text: str) -> Iterator[None]:
    """Arm ``text`` in this process for as long as the block lasts.

    Raises:
        InvalidConfig: it names what there is not.
    """
    before, _drill.armed, _drill.reached = _drill.armed, _parsed(text), Counter()
    try:
        yield
    finally:
        _drill.armed = before


def unmet() -> frozenset[tuple[str, bool]]:
    """What is armed and has not done its part: (point, whether after). A drill with some of these proves little."""
    return frozenset(
        place for place, entries in _drill.armed.items() if _drill.reached[place] < max(one.nth or 1 for one in entries)
    )


def _parsed(text: str) -> dict[tuple[str, bool], list[_Armed]]:
    found: dict[tuple[str, bool], list[_Armed]] = {}
    for entry in filter(None, map(str.strip, text.split(";"))):
        parts = _ENTRY.fullmatch(entry)
        if parts is None or parts["point"] not in POINTS:
            raise InvalidConfig(
                f"{VARIABLE}: {entry!r} is no failpoint",
                hint=f"point=kill|stop|error|delay|hang[-after][:seconds][@n], with one of: {', '.join(POINTS)}",
            )
        if parts["action"] == "error" and parts["point"] not in _TAKE_ERRORS:
            raise InvalidConfig(f"{VARIABLE}: {entry!r}: nothing can fail there", hint="kill, stop or delay can be had")
        one = _Armed(parts["action"], float(parts["seconds"] or 0), int(parts["nth"]) if parts["nth"] else None)
        found.setdefault((parts["point"], bool(parts["after"])), []).append(one)
    return found


def _broken(point: str) -> Exception:
    return OSError(errno.EIO, f"failpoint {point}")


async def reach(point: str, *, error: Callable[[str], Exception] = _broken) -> None:
    """What ``point`` is armed with, before its operation is done. Raises ``error(point)`` where that is an error."""
    if _drill.armed:
        await _meet(point, False, error)


async def passed(point: str, *, error: Callable[[str], Exception] = _broken) -> None:
    """The same, once the operation has been done."""
    if _drill.armed:
        await _meet(point, True, error)


async def _meet(point: str, after: bool, error: Callable[[str], Exception]) -> None:
    _drill.reached[point, after] += 1
    for one in _drill.armed.get((point, after), ()):
        if one.nth not in (None, _drill.reached[point, after]):
            continue
        _log.warning("failpoint %s%s: %s", point, " (after)" * after, one.action)
        match one.action:
            case "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            case "stop":
                os.kill(os.getpid(), signal.SIGSTOP)
            case "delay":
                import asyncio  # here, so that an engine that has drills need not load it

                await asyncio.sleep(one.seconds)
            case "hang":
                time.sleep(one.seconds)  # noqa: ASYNC251 - that is the drill
            case _:
                raise error(point)

"""What runners write, as lines of the agent's own log: each with its attempt, and of a flood only so much."""

from __future__ import annotations

import logging
import re

from lcq.clock import steady_now
from lcq.log import RUNNER_LOG
from lcq.wire import Grant
from worker.logbook import bare

_log = logging.getLogger(RUNNER_LOG)
_AT_ONCE = 500  # lines of one slot, and after that
_PER_S = 100.0
_LEVEL = re.compile(r"^(DEBUG|INFO|WARNING|ERROR|CRITICAL)\b")
_LEVELS = {"WARNING": logging.WARNING, "ERROR": logging.ERROR, "CRITICAL": logging.CRITICAL}


class RunnerLog:
    """Passes lines on; what is too much is counted, and stands in the task's own log."""

    def __init__(self) -> None:
        self._room: dict[str, tuple[float, float]] = {}  # of each slot: how many lines, and when that was so
        self._left_out: dict[str, int] = {}

    def note(self, slot: str, grant: Grant | None, line: str) -> None:
        """A whole line that the runner in ``slot`` wrote."""
        facts: dict[str, object] = {"slot": slot}
        if grant is not None:
            facts |= {"task": grant.task.id, "attempt": grant.attempt, "job": grant.task.job or ""}
        now = steady_now()
        room, then = self._room.get(slot, (_AT_ONCE, now))
        room = min(_AT_ONCE, room + (now - then) * _PER_S)
        if room < 1:
            self._room[slot] = (room, now)
            self._left_out[slot] = self._left_out.get(slot, 0) + 1
            return
        self._room[slot] = (room - 1, now)
        left_out = self._left_out.pop(slot, 0)
        if left_out:
            _log.warning("%d lines of this runner are left out here: its tasks' logs have them", left_out, extra=facts)
        text = bare(line)
        if text:
            told = _LEVEL.match(text)
            _log.log(_LEVELS.get(told[1], logging.INFO) if told else logging.INFO, "%s", text, extra=facts)

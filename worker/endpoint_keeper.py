"""The keeper of endpoints: a function that is away is left alone for a while, and then tried with one call.

A call that was cut says little by itself: the function may be away, or the task brings it down. Where no other task's
calls tell, a tiny one does (worker/waker.py), so that no task uses up its tries while nobody is answered, and one that
kills uses them up as anywhere.

Pure but for ``watch()``, which sleeps: the clock is given, so ten minutes can be told in a moment.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable
from dataclasses import dataclass, field

from lcq.clock import steady_now
from lcq.function_state import LEFT_ALONE
from lcq.health import FUNCTION_UNKNOWN, IS_AWAY
from lcq.models import ErrorClass, Failure, RestCode
from worker.attempt import Key
from worker.rests import Rest

_log = logging.getLogger(__name__)
IN_A_ROW = 3
"""Calls of one function that reach nothing, after which it is left alone."""

PAUSE_S = (5.0, 120.0)
"""First and longest pause before it is tried again."""

SPREAD = (0.75, 1.25)
"""A pause is longer or shorter by so much: not all nodes are to come at the same moment."""

MOST_FREE = 20
"""An attempt that is not among so many first of its task loses a try as ever: it may be the task that kills."""

_MOST_SUSPECTS = 256
_TICK_S = 0.2
_OWN_TROUBLE = frozenset({"call_too_large", "storage_unreachable", "config_invalid", "model_not_here"})
"""Codes that say nothing of the endpoint: it was not called."""


@dataclass
class _Endpoint:
    """What is known of one function."""

    in_a_row: int = 0  # calls that reached nothing
    tasks: set[str] = field(default_factory=set)  # whose calls these were
    is_sure: bool = False  # one of them had surely not run: no task can be to blame
    pauses: int = 0  # since it last answered
    opened_at: float | None = None  # None: it answers, as far as anybody knows
    until: float = 0.0  # when it is tried again
    asked_until: float = 0.0  # until when it wants to be left alone, by its own word
    is_tried: bool = False  # the pause is over, and one call may tell
    culprit: str = ""  # the one task whose calls were cut, where it is left alone for that: it may be what kills
    is_asked: bool = False  # a tiny call is to tell, and no task's
    trials: set[Key] = field(default_factory=set)
    why: str = ""


@dataclass(frozen=True)
class Standing:
    """How a function stands. ``until``: when it is tried again, by the steady clock; None: it does not rest.
    ``trials``: calls that try it now; None: it is not being tried.
    """

    in_vain: int = 0  # calls in a row that reached nothing
    until: float | None = None
    trials: int | None = None


def as_silence(key: Key, failure: Failure) -> Failure:
    """What is told of an attempt whose function is away: it loses no try by what may have run."""
    if failure.code != FUNCTION_UNKNOWN or key[1] > MOST_FREE:
        return failure
    return Failure(error_class=failure.error_class, code="endpoint_silent", message=failure.message)


class EndpointKeeper:
    """Told of each attempt at a function that begins and ends; knows which functions are to be left alone.

    A function is left alone after ``IN_A_ROW`` calls that reached nothing, or where it asks for that. Calls of which
    nobody knows whether they ran count too, unless all are of one task, which may be what brings it down: of such a one
    who tells of it finds out first whether the function is there (``is_doubtful``). After the pause one call at a time
    may try it: the first that is answered, however, ends this, and another that is not makes the next pause twice as
    long. Where one task alone had been cut, that is a tiny call, if ``ask(device)`` begins one (who answers True calls
    ``not_asked`` where it comes to nothing); and a task that was let off so is not let off again before it is answered.
    ``on_change(device)`` is called when ``rest`` or ``most`` may have changed.
    """

    def __init__(
        self,
        on_change: Callable[[str], None],
        *,
        clock: Callable[[], float] = steady_now,
        chance: Callable[[float, float], float] = random.uniform,
        pause_s: tuple[float, float] = PAUSE_S,
        ask: Callable[[str], bool] = lambda device: False,
    ) -> None:
        self._on_change = on_change
        self._ask = ask
        self._suspects: dict[tuple[str, str], None] = {}  # device and task: was let off, and the function was there
        self._clock = clock
        self._chance = chance
        self._pause_s = pause_s
        self._endpoints: dict[str, _Endpoint] = {}
        self._opened = asyncio.Event()

    # ------------------------------------------------------------ what is told

    def begun(self, device: str, key: Key) -> None:
        """The attempt ``key`` calls the function ``device``."""
        endpoint = self._endpoints.get(device)
        if endpoint is not None and endpoint.is_tried:
            endpoint.trials.add(key)

    def forget(self, device: str) -> None:
        """The function ``device`` is another one now, or is no more: nothing is known of it."""
        for suspect in [one for one in self._suspects if one[0] == device]:
            del self._suspects[suspect]
        known = self._endpoints.pop(device, None)
        if known is not None and known.opened_at is not None:
            self._on_change(device)

    def dropped(self, key: Key) -> None:
        """The attempt ended without having told anything: it was cancelled, or handed back."""
        for endpoint in self._endpoints.values():
            endpoint.trials.discard(key)

    def worked(self, device: str, key: Key) -> None:
        """The function answered the attempt ``key``."""
        self._suspects.pop((device, key[0]), None)
        endpoint = self._endpoints.get(device)
        if endpoint is None:
            return
        is_trial = key in endpoint.trials
        endpoint.trials.discard(key)
        if endpoint.opened_at is None or is_trial or endpoint.is_tried:
            del self._endpoints[device]
            if endpoint.culprit and endpoint.culprit != key[0]:
                self._suspects[device, endpoint.culprit] = None
                if len(self._suspects) > _MOST_SUSPECTS:
                    del self._suspects[next(iter(self._suspects))]
            if endpoint.opened_at is not None:
                away_s = self._clock() - endpoint.opened_at
                _log.warning("function %s answers again after %.0f s", device, away_s)
                self._on_change(device)
        else:  # of a call that began before: it seems to be there, and may be tried as soon as it wants to be
            endpoint.in_a_row = endpoint.pauses = 0
            endpoint.until = max(self._clock(), endpoint.asked_until)

    def is_doubtful(self, device: str, key: Key, failure: Failure) -> bool:
        """Whether it had better be found out, before ``failed`` is told of ``failure``, if the function is there."""
        endpoint = self._endpoints.get(device)
        is_open = endpoint is not None and endpoint.opened_at is not None
        return failure.code == FUNCTION_UNKNOWN and not is_open and (device, key[0]) not in self._suspects

    def failed(
        self, device: str, key: Key, failure: Failure, *, again_s: float = 0.0, is_there: bool | None = None
    ) -> Failure:
        """The attempt ``key`` ended with ``failure``; the function wants to be left alone for ``again_s`` (0: it said
        nothing of that). ``is_there``: whether it has answered since; None: nobody has asked. Answers what is to be
        reported.

        That is ``endpoint_silent`` where nobody knows whether it ran, and the function has answered nobody else
        either: that loses the task no try, and is paid for, as it may have run.
        """
        if failure.code not in IS_AWAY:
            if failure.error_class is ErrorClass.CRASH or failure.code in _OWN_TROUBLE:
                self.dropped(key)
            else:
                self.worked(device, key)
            return failure
        if is_there:
            self.dropped(key)
            return failure
        endpoint = self._endpoints.setdefault(device, _Endpoint())
        is_trial = key in endpoint.trials
        endpoint.trials.discard(key)
        now = self._clock()
        if again_s > 0:
            endpoint.asked_until = max(endpoint.asked_until, now + again_s)
            endpoint.until = max(endpoint.until, endpoint.asked_until)
        endpoint.in_a_row += 1
        if endpoint.opened_at is None:
            endpoint.tasks.add(key[0])
            endpoint.is_sure = endpoint.is_sure or failure.code != FUNCTION_UNKNOWN
            if is_there is False:
                endpoint.culprit = key[0]
            is_away = endpoint.in_a_row >= IN_A_ROW and (endpoint.is_sure or len(endpoint.tasks) > 1)
            if again_s > 0 or is_there is False or is_away:
                endpoint.opened_at = now
                self._leave_alone(device, endpoint, failure.message)
        elif is_trial:
            self._leave_alone(device, endpoint, failure.message)
        elif key[0] != endpoint.culprit:
            endpoint.culprit = ""  # another task was cut as well: neither brings it down
        return as_silence(key, failure) if endpoint.opened_at is not None else failure

    def _leave_alone(self, device: str, endpoint: _Endpoint, message: str) -> None:
        why = message.partition(f"function {device}: ")[2] or message  # without the picture of the one that told it
        first, longest = self._pause_s
        pause_s = min(longest, first * 2 ** min(endpoint.pauses, 20)) * self._chance(*SPREAD)
        endpoint.until = max(self._clock() + pause_s, endpoint.asked_until)
        endpoint.pauses += 1
        endpoint.is_tried, endpoint.is_asked, endpoint.why = False, False, why
        left_s = endpoint.until - self._clock()
        _log.warning("function %s is left alone for %.0f s (pause %d): %s", device, left_s, endpoint.pauses, why)
        self._on_change(device)
        self._opened.set()

    # ------------------------------------------------------------ what is known

    def rest(self, device: str) -> Rest | None:
        """Why ``device`` is called by nobody now; None: it may be."""
        endpoint = self._endpoints.get(device)
        if endpoint is None or endpoint.opened_at is None or endpoint.is_tried:
            return None
        return Rest(RestCode.ENDPOINT_AWAY, LEFT_ALONE.format(why=endpoint.why))

    def standing(self, device: str) -> Standing:
        """How ``device`` stands; one that answers, or is no function, in no special way."""
        endpoint = self._endpoints.get(device)
        if endpoint is None or endpoint.opened_at is None:
            return Standing(endpoint.in_a_row if endpoint is not None else 0)
        if endpoint.is_tried:
            return Standing(endpoint.in_a_row, trials=len(endpoint.trials))
        return Standing(endpoint.in_a_row, until=endpoint.until)

    def most(self, device: str) -> int | None:
        """How many calls at a time it may have; None: as many as there are slots for."""
        endpoint = self._endpoints.get(device)
        return 1 if endpoint is not None and endpoint.is_tried else None

    def room(self, device: str, slots: int) -> int:
        """Of ``slots`` that are free there, those for which work may be asked now."""
        endpoint = self._endpoints.get(device)
        if endpoint is None or endpoint.opened_at is None:
            return slots
        return min(slots, 1 - len(endpoint.trials)) if endpoint.is_tried and not endpoint.is_asked else 0

    def look(self) -> None:
        """Let those be tried whose pause is over."""
        now = self._clock()
        for device, endpoint in self._endpoints.items():
            if endpoint.opened_at is not None and not endpoint.is_tried and now >= endpoint.until:
                _log.info("function %s is tried with one call", device)
                endpoint.is_tried = True
                endpoint.is_asked = bool(endpoint.culprit) and self._ask(device)
                self._on_change(device)

    def not_asked(self, device: str) -> None:
        """The tiny call came to nothing: a task's is to tell."""
        endpoint = self._endpoints.get(device)
        if endpoint is not None and endpoint.is_asked:
            endpoint.is_asked = False
            self._on_change(device)

    async def watch(self) -> None:
        """Look all the while, until cancelled."""
        while True:
            await self._opened.wait()
            if all(one.opened_at is None or one.is_tried for one in self._endpoints.values()):
                self._opened.clear()
                continue
            self.look()
            await asyncio.sleep(_TICK_S)

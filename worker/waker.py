"""Wakes functions: calls that load a model and do nothing else, where the scheduler wants it and pays for it; and
finds out by one such call whether a function is there.

They are made here and not by runners: those are for tasks, and a function that sleeps may take minutes to wake.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from lcq.errors import LcqError
from lcq.health import IS_AWAY
from lcq.models import ErrorClass, Failure
from lcq.runner_config import FunctionConfig
from lcq.wire import Warm, WarmAnswer, Warmed, WarmWish
from worker.aside import Aside
from worker.attempt import Key
from worker.calls import Call, CallRefused, Instance, read_reply, waking_call
from worker.functions_named import NamedFunctions

if TYPE_CHECKING:
    from worker.engines.endpoints import Endpoint

_log = logging.getLogger(__name__)
_GRACE_S = 60.0  # beyond the time that a call may take; its own deadlines come first
_LONGEST = 2000  # characters of a message
_LOOK_S = 60.0  # how long a call may take that is to find out whether the function is there
_HOLD_S = 0.5  # what is warm already stays busy for so long: calls beside it come to others, which wake


@dataclass(frozen=True)
class _Woken:
    """What a call came to. ``again_s``: for how long the function wants to be left alone."""

    cost: float
    failure: Failure | None = None
    instance: Instance | None = None
    again_s: float = 0.0
    is_full: bool = False  # it is there, and takes no more calls now


Look = asyncio.Future[bool | None]
"""Whether a function is there; None: nobody could find out."""


class Waker:
    """Does what it is wished, each function at most once at a time. ``run()`` as long as the agent lives.

    ``ask`` asks the scheduler; ``room`` tells how many of so many calls the function may have now; ``answered`` is told
    which instances have; ``woken`` of what a warm-up failed, if it did; ``begun`` and ``ended`` of each call, as of
    that of an attempt, the latter with for how many seconds the function wants to be left alone; ``changed`` is called
    when calls have begun, and when they are over.
    """

    def __init__(
        self,
        node_id: str,
        boot_id: str,
        functions: NamedFunctions,
        *,
        ask: Callable[[Any], Awaitable[Any]],
        room: Callable[[str, int], int],
        begun: Callable[[str, Key], object],
        answered: Callable[[str, Instance], None],
        woken: Callable[[str, Failure | None], None],
        ended: Callable[[str, Key, Failure | None, float], object],
        changed: Callable[[], object],
    ) -> None:
        self._node_id, self._boot_id, self._functions = node_id, boot_id, functions
        self._ask, self._room, self._begun, self._ended = ask, room, begun, ended
        self._answered, self._woken, self._changed = answered, woken, changed
        self._wishes: asyncio.Queue[WarmWish | str] = asyncio.Queue(maxsize=64)  # a name: it is to be looked for
        self._looks: dict[str, Look] = {}
        self._waking: set[str] = set()
        self._calls: Counter[str] = Counter()

    def in_flight(self, device: str) -> int:
        """The calls that are waking that function now."""
        return self._calls[device]

    def wish(self, wish: WarmWish) -> None:
        """Somebody wants instances of a function to be awake; one that is being woken is left at that."""
        if wish.device not in self._functions.now or wish.device in self._waking:
            return
        with contextlib.suppress(asyncio.QueueFull):
            self._wishes.put_nowait(wish)
            self._waking.add(wish.device)

    def look(self, device: str) -> Look:
        """Whether that function is there: whether it answers one call, whatever it says. Whoever asks while that call
        is under way gets the same answer. None: there is no money for it, no scheduler that knows of such calls, or
        calls go by a queue, of which one that is waited for tells nothing; or it is named no more, or otherwise."""
        look = self._looks.get(device)
        if look is None:
            look = asyncio.get_running_loop().create_future()
            config = self._functions.now.get(device)
            if config is None or config.is_async:
                look.set_result(None)
                return look
            try:
                self._wishes.put_nowait(device)
            except asyncio.QueueFull:
                look.set_result(None)
            else:
                self._looks[device] = look
        return look

    async def run(self) -> None:
        """For ever: wake what is wished for, and look for what is asked for."""
        try:
            async with asyncio.TaskGroup() as group:
                while True:
                    wish = await self._wishes.get()
                    if isinstance(wish, str):
                        group.create_task(self._look_for(wish), name=f"look for {wish}")
                    else:
                        group.create_task(self._do(wish), name=f"wake {wish.device}")
        finally:
            for device, look in tuple(self._looks.items()):
                self._found(device, look, None)

    async def _look_for(self, device: str) -> None:
        look = self._looks[device]
        try:
            await self._find_out(device, look)
        except LcqError as refusal:  # also of a scheduler that is older than such calls
            _log.info("function %s: a call that finds out whether it is there: %s", device, refusal)
        finally:
            self._found(device, look, None)

    def _found(self, device: str, look: Look, is_there: bool | None) -> None:
        if not look.done():
            del self._looks[device]
            look.set_result(is_there)

    async def _find_out(self, device: str, look: Look) -> None:
        """Raises:
        LcqError: the scheduler is away, or older than such calls.
        """
        config = self._named(device)
        if config is None:
            return
        model = min(config.models, key=lambda name: (config.models[name], name))  # what it has least to do for
        asked = Warm(node_id=self._node_id, boot_id=self._boot_id, device=device, count=1)
        allowed: WarmAnswer = await self._ask(asked)
        if not allowed.calls:
            _log.warning("function %s: nobody can find out whether it is there: %s", device, allowed.why)
            return
        (woken,) = await self._called(asked, config, 1, model, timeout_s=min(_LOOK_S, config.timeout_s))
        failure = woken.failure
        is_there = failure is None or failure.code not in IS_AWAY or woken.is_full
        _log.info("function %s %s", device, "is there" if is_there else f"is not there: {failure and failure.message}")
        self._found(device, look, is_there if config == self._functions.now.get(device) else None)
        await self._settle(asked, woken.cost)

    async def _do(self, wish: WarmWish) -> None:
        try:
            await self._wake(wish)
        except LcqError as refusal:  # what was reserved counts as paid, where nobody tells otherwise
            _log.warning("function %s cannot be woken: %s", wish.device, refusal)
        finally:
            self._waking.discard(wish.device)

    async def _wake(self, wish: WarmWish) -> None:
        config = self._named(wish.device)
        count = self._room(wish.device, min(wish.count, config.concurrency)) if config is not None else 0
        if config is None or count < 1:
            _log.info("function %s is not woken: it is left alone for now", wish.device)
            return
        asked = Warm(node_id=self._node_id, boot_id=self._boot_id, device=wish.device, count=count)
        allowed: WarmAnswer = await self._ask(asked)
        if allowed.why:
            _log.warning("function %s is woken by %d calls only: %s", wish.device, allowed.calls, allowed.why)
        if not allowed.calls:
            return
        ended = await self._called(asked, config, allowed.calls, wish.model, timeout_s=config.timeout_s)
        cost = sum(one.cost for one in ended)
        failures = [one.failure for one in ended if one.failure is not None]
        self._woken(wish.device, failures[0] if failures else None)
        troubles = Counter(failure.message for failure in failures)
        for trouble, times in troubles.items():
            _log.warning("function %s: %d of %d calls that wake it: %s", wish.device, times, len(ended), trouble)
        _log.info("function %s: %d calls have woken it, for %.6f", wish.device, len(ended) - troubles.total(), cost)
        await self._settle(asked, cost)

    async def _settle(self, asked: Warm, cost: float) -> None:
        """Tell what the calls of a warm-up have cost.

        Raises:
            LcqError: the scheduler is away; then what was reserved counts as paid.
        """
        await self._ask(Warmed(node_id=self._node_id, boot_id=self._boot_id, warm_up=asked.id, cost=cost))

    def _named(self, device: str) -> FunctionConfig | None:
        """How that function is called; None: nobody names it any more, or the cluster, which reserves what a call may
        cost, does not know yet that it has changed."""
        return self._functions.now.get(device) if self._functions.is_known(device) else None

    async def _called(
        self, asked: Warm, config: FunctionConfig, count: int, model: str, *, timeout_s: float
    ) -> list[_Woken]:
        """What so many calls at the same time come to, for which there is money by ``asked``."""
        device = asked.device
        hold_s = _HOLD_S if count > 1 else 0.0
        call = partial(self._call, config, device, model, hold_s=hold_s, timeout_s=timeout_s)
        self._calls[device] += count
        self._changed()
        try:
            return await asyncio.gather(*(call((asked.id, number)) for number in range(1, count + 1)))
        finally:
            self._calls[device] -= count
            self._changed()

    async def _call(
        self, config: FunctionConfig, device: str, model: str, key: Key, *, timeout_s: float, hold_s: float
    ) -> _Woken:
        from worker.engines.endpoints import endpoint_of  # httpx: only where it is needed

        endpoint = endpoint_of(config.model_copy(update={"timeout_s": timeout_s}))
        call = waking_call(f"{key[0]}/{key[1]}", model, hold_s=hold_s, seconds_left=timeout_s)
        self._begun(device, key)
        try:
            woken = await Aside("function call", partial(_woken, endpoint, config, call, timeout_s)).ask(
                patience_s=timeout_s + _GRACE_S
            )
        except TimeoutError:
            woken = _failed("function_unknown", "it answers nothing, not even that it is late", config.worst_price)
        finally:
            endpoint.close()
        if config == self._functions.now.get(device):  # else it says nothing of the one that there is now
            if woken.instance is not None:
                self._answered(device, woken.instance)
            self._ended(device, key, woken.failure, woken.again_s)
        return woken


def _woken(endpoint: Endpoint, config: FunctionConfig, call: Call, timeout_s: float) -> _Woken:
    """What came of it. What may have run is taken to have cost most."""
    from worker.engines import endpoints

    try:
        reply = read_reply(endpoint.call(call, timeout_s=timeout_s), call.key)
    except endpoints.EndpointAway as away:
        return _failed("endpoint_unreachable", str(away))
    except endpoints.EndpointBusy as busy:
        return replace(_failed("endpoint_busy", str(busy), again_s=busy.again_s), is_full=busy.is_full)
    except (endpoints.EndpointRefuses, endpoints.InputRefused, endpoints.CallTooLarge) as refuses:
        return _failed("endpoint_refused", str(refuses))
    except endpoints.CallFailed as failed:
        return _failed("function_failed", str(failed), config.worst_price)
    except CallRefused as strange:
        return _failed("reply_unreadable", str(strange), config.worst_price)
    except endpoints.OutcomeUnknown as unknown:
        return _failed("function_unknown", str(unknown), config.worst_price)
    instance, trouble = reply.instance, reply.trouble
    cost = config.price_of(reply.billed_s)
    if trouble is None:
        return _Woken(cost, instance=instance)
    error_class, code = trouble.as_told
    said = " ".join(endpoint.hidden(trouble.message).split()) or code
    failure = Failure(error_class=error_class, code=code, message=said[:_LONGEST])
    return _Woken(cost, failure=failure, instance=instance)


def _failed(code: str, message: str, cost: float = 0.0, *, again_s: float = 0.0) -> _Woken:
    failure = Failure(error_class=ErrorClass.TRANSIENT, code=code, message=message[:_LONGEST])
    return _Woken(cost, failure=failure, again_s=again_s)

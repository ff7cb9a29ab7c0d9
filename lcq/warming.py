"""Wakes functions before they are needed: where overflow is near, and where somebody asks for it (docs/serverless.md).

Nothing is called from here. A node is told, asks what may be paid for, calls, and tells what it cost.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, Iterable
from datetime import timedelta
from typing import Any

from lcq.errors import (
    AgentTooOld,
    BudgetSpent,
    FunctionNotFound,
    InvalidInput,
    LcqError,
    NodeNotFound,
    TransitionRefused,
)
from lcq.functions import (
    Kept,
    functions_in,
    functions_of,
    kept_warm,
    model_to_wake,
    models_of,
    wakes,
    why_not,
)
from lcq.health import KNOWS_WARM_UPS
from lcq.models import Device, DeviceKind, NodeRecord, Privacy, model_of
from lcq.routing import Fleet, at_home_s
from lcq.spend import Overflow
from lcq.state.manager import StateManager
from lcq.wire import (
    AskFunctions,
    Done,
    FunctionsAnswer,
    Request,
    Warm,
    WarmAnswer,
    Warmed,
    WarmFunction,
    WarmFunctionAnswer,
)

_log = logging.getLogger(__name__)
_EVERY_S = 2.0
_PAUSE = timedelta(seconds=30)  # whatever came of it, a function is not woken again by itself within this
_HOLD = timedelta(hours=1, minutes=10)  # a call takes an hour at most
_LOST_S = 60.0  # between two looks for warm-ups that nobody has told of
_TAIL = 20  # tasks at the end of a lane that are looked at
_SPANS = {"hour": "this hour", "day": "today", "month": "this month"}


class Warming:
    """The scheduler's part of it. ``look`` and ``settle_lost`` are for the one scheduler that does such duties."""

    def __init__(self, state: StateManager) -> None:
        self._state = state
        self._next = self._next_lost = 0.0
        self._near: dict[str, tuple[float, str]] = {}  # function -> when overflow was near last, and for which model
        self._said: dict[str, str] = {}  # function -> why it is not woken, as said last

    @property
    def handlers(self) -> Iterable[tuple[type[Request[Any]], Callable[[Any, bytes], Awaitable[Any]]]]:
        """Which command is answered by what."""
        return (
            (WarmFunction, self.warm),
            (Warm, self.reserve),
            (Warmed, self.settle),
            (AskFunctions, self.functions),
        )

    # ------------------------------------------------------------ by itself

    async def look(self, fleet: Fleet) -> None:
        """Where overflow is near, or was a moment ago, have the functions woken that are to be warm then.

        Raises:
            StateUnavailable: Redis does not answer.
        """
        now, overflow, kept = time.monotonic(), fleet.overflow, kept_warm(fleet)
        if overflow is None or not kept or now < self._next:
            return
        self._next = now + _EVERY_S
        late_s = await self._late(fleet, overflow, {model for one in kept for model in models_of(one.node, one.device)})
        for one in kept:
            name = one.device.id
            if model := wakes(one, late_s, overflow.after_s):
                self._near[name] = (now, model)
            at, model = self._near.get(name, (float("-inf"), ""))
            if one.calls and now - at <= one.prewarm.idle_after_s and model in models_of(one.node, one.device):
                await self._wake(one, model, overflow)

    async def _late(self, fleet: Fleet, overflow: Overflow, models: set[str]) -> dict[str, float]:
        """By model, when the house is predicted to be done with the last waiting task that may leave it; of one with a
        deadline, as ``Overflow.late_s`` tells it."""
        reader, late_s = self._state.reader, dict[str, float]()
        for queue, lane in await reader.lanes():
            known, model = fleet.queue(queue), model_of(lane)
            if known is None or known.kind is DeviceKind.SERVERLESS or model not in models or queue in fleet.paused:
                continue
            records = (await reader.tasks(await reader.lane_ids(queue, lane, limit=_TAIL, from_end=True))).values()
            for record in records:
                if record.task.privacy is Privacy.EXPORTABLE and not (record.damaged or record.forced):
                    done_s = overflow.late_s(at_home_s(record, fleet), record.task.deadline_ms)
                    late_s[model] = max(late_s.get(model, 0.0), done_s)
        return late_s

    async def _wake(self, one: Kept, model: str, overflow: Overflow) -> None:
        name = one.device.id
        why = overflow.spend.lack(one.device.worst_price)
        try:
            if not why and await self._state.wish_warm_up(
                one.node.id, name, model=model, count=one.calls, why="overflow is near", pause=_PAUSE
            ):
                _log.info("function %s: node %s wakes it with %d calls: overflow is near", name, one.node.id, one.calls)
        except (NodeNotFound, TransitionRefused) as gone:
            why = str(gone)
        if why != self._said.get(name, ""):
            self._said[name] = why
            if why:
                _log.warning("function %s is not woken although overflow is near: %s", name, why)

    async def settle_lost(self) -> None:
        """Of warm-ups that nobody has told of, take the worst to be true.

        Raises:
            StateUnavailable: Redis does not answer.
        """
        now = time.monotonic()
        if now < self._next_lost:
            return
        self._next_lost = now + _LOST_S
        lost = await self._state.settle_lost_warm_ups()
        if lost:
            _log.warning("nobody has told what %d warm-ups of functions cost: they count as the dearest", lost)

    # ------------------------------------------------------------ what is asked

    async def functions(self, ask: AskFunctions, sender: bytes = b"") -> FunctionsAnswer:
        spend = await self._state.reader.spend()
        nodes = await self._state.reader.nodes()
        return FunctionsAnswer(functions=functions_of(nodes, spend.hour.functions), currency=spend.budget.currency)

    async def warm(self, act: WarmFunction, sender: bytes = b"") -> WarmFunctionAnswer:
        """Raises:
        FunctionNotFound, NodeNotFound, AgentTooOld
        InvalidInput: the function has not that model, or takes fewer calls at a time.
        BudgetSpent: there is no money for a single call now.
        LcqError: it takes nothing now; says why.
        """
        node, device = await self._caller(act)
        name, models = device.id, models_of(node, device)
        model = model_to_wake(node, device, act.model)
        if not model:
            raise InvalidInput(
                f"function {name} has no model {act.model}", hint=f"it has: {', '.join(sorted(models)) or 'none'}"
            )
        count = act.count or min(device.slots, device.prewarm.instances if device.prewarm else 1)
        if count > device.slots:
            raise InvalidInput(
                f"function {name} takes {device.slots} calls at a time: {count} instances cannot be woken",
                hint=f"wake fewer, or raise agent.functions.{name}.concurrency on node {node.id}",
            )
        lack = (await self._state.reader.spend()).lack(device.worst_price)
        if lack:
            raise BudgetSpent(f"function {name} is not woken: {lack}")
        why = f"by {act.actor}" + (f": {act.reason}" if act.reason else "")
        await self._state.wish_warm_up(node.id, name, model=model, count=count, why=why, command=act.id)
        return WarmFunctionAnswer(node=node.id, model=model, count=count)

    async def _caller(self, act: WarmFunction) -> tuple[NodeRecord, Device]:
        """The node that is to wake the function, and the function as that has it."""
        nodes = await self._state.reader.nodes()
        if act.node and all(one.id != act.node for one in nodes):
            raise NodeNotFound(act.node)
        every = [(node, device) for node, device in functions_in(nodes) if act.node in ("", node.id)]
        callers = sorted((one for one in every if one[1].id == act.function), key=lambda one: one[0].id)
        if not callers:
            raise FunctionNotFound(act.function, {device.id for _, device in every}, node=act.node)
        able = [one for one in callers if KNOWS_WARM_UPS in one[0].capability.knows]
        if not able:
            node = callers[0][0]
            raise AgentTooOld(node.id, "wake a function", node.capability.version)
        reasons = [why_not(*one) for one in able]
        if all(reasons):
            raise LcqError(
                f"function {act.function} takes nothing now: {reasons[0]}", hint="'lcq functions' shows when it does"
            )
        return able[reasons.index("")]

    async def reserve(self, request: Warm, sender: bytes = b"") -> WarmAnswer:
        """Raises:
        StaleBoot: the node must say hello first.
        """
        nodes = {node.id: node for node in await self._state.reader.nodes()}
        node = nodes.get(request.node_id)
        device = next((one for _, one in functions_in([node] if node else []) if one.id == request.device), None)
        if device is None:
            return WarmAnswer(why=f"node {request.node_id} calls no function {request.device}")
        reserved = await self._state.reserve_warm_up(
            request.id,
            node=request.node_id,
            boot=request.boot_id,
            device=device.id,
            count=request.count,
            worst_price=device.worst_price,
            hold=_HOLD,
        )
        span = _SPANS.get(reserved.lacking, "")
        return WarmAnswer(calls=reserved.calls, why=f"the budget for {span} allows no more" if span else "")

    async def settle(self, request: Warmed, sender: bytes = b"") -> Done:
        await self._state.settle_warm_up(request.warm_up, cost=request.cost)
        return Done()

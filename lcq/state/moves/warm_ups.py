"""Moves on warm-ups: calls that only wake instances of functions, and are paid for as others are."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import timedelta

from lcq.errors import NodeNotFound, StaleBoot, TransitionRefused
from lcq.spend import bill_of, millionths
from lcq.state.moves.mover import Mover

_MILLISECOND = timedelta(milliseconds=1)


@dataclass(frozen=True)
class Reserved:
    """What the budget allows of a warm-up. ``lacking``: the span of time that allows no more; "": it allows all."""

    calls: int
    lacking: str = ""


class WarmUpMoves(Mover):
    """What wakes functions before they are needed."""

    async def wish_warm_up(
        self,
        node: str,
        device: str,
        *,
        model: str,
        count: int,
        why: str,
        pause: timedelta = timedelta(),
        command: str = "",
    ) -> bool:
        """Have a node told to wake ``count`` instances of a function, with ``model`` loaded.

        Within ``pause`` the function of that name is not woken again, by whichever node: then False; without one it is
        whenever somebody asks.

        Raises:
            NodeNotFound, TransitionRefused: it is offline.
        """
        answer = await self._move(
            "wish_warm_up", node, device, model, count, pause // _MILLISECOND, why, command=command
        )
        if answer[0] == "missing":
            raise NodeNotFound(node)
        if answer[0] == "refused":
            raise TransitionRefused("wish_warm_up", f"node {node}", answer[1])
        return bool(answer[0] == "ok")

    async def reserve_warm_up(
        self, warm_up: str, *, node: str, boot: str, device: str, count: int, worst_price: float, hold: timedelta
    ) -> Reserved:
        """Reserve what ``count`` calls may cost at most, each ``worst_price``, or as many as the budget allows.

        Told twice under the same id it is done once. Where nobody settles it within ``hold``, the worst is taken to be
        true.

        Raises:
            StaleBoot: the node is not registered with this boot id.
        """
        bill = json.dumps(bill_of(self.config.serverless.budget, worst_price))
        answer = await self._move("reserve_warm_up", warm_up, node, boot, device, count, hold // _MILLISECOND, bill)
        if answer[0] == "stale":
            raise StaleBoot(node)
        return Reserved(int(answer[1]), answer[2])

    async def settle_warm_up(self, warm_up: str, *, cost: float) -> None:
        """What was reserved makes way for what it cost, at most by what was reserved. Telling it twice is harmless."""
        await self._move("settle_warm_up", warm_up, millionths(cost))

    async def settle_lost_warm_ups(self) -> int:
        """Of those that nobody has told of in time, take the worst to be true. Answers how many there were."""
        return int((await self._move("settle_warm_up", "", 0))[1])

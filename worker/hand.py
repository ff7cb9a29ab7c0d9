"""The hand: the next attempts of a device whose work is so short that asking for each would cost more than doing it.

It holds no more than what is predicted to be begun within 50 ms. A grant that has lain here for much longer than that
is given back, at no cost for its task, so that nothing waits for a busy node; and nothing more is held until the device
has shown again that its work is short.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable, Mapping, Sequence

from lcq.wire import MOST_IN_HAND, Grant, Running, Want
from worker.attempt import Key, key_of

SHORT_S = 0.05
_PATIENCE_S = 0.25
_REMEMBERED = 8  # results by which a device's next one is predicted


class Hand:
    """Grants that wait for a slot of this node."""

    def __init__(self, slots: Mapping[str, int]) -> None:
        self._slots = dict(slots)  # device -> how many
        self._recent: dict[str, deque[float]] = {device: deque(maxlen=_REMEMBERED) for device in slots}
        self._waiting: dict[str, deque[tuple[float, Grant]]] = {device: deque() for device in slots}
        self._filled = asyncio.Event()

    def resize(self, device: str, slots: int) -> None:
        """``device``, which may be new, has so many slots from now on."""
        self._slots[device] = slots
        self._recent.setdefault(device, deque(maxlen=_REMEMBERED))
        self._waiting.setdefault(device, deque())

    def learn(self, device: str, seconds: float) -> None:
        """An attempt on ``device`` took so long."""
        if device in self._recent:
            self._recent[device].append(seconds)

    def unlearn(self, device: str) -> None:
        """Something went wrong on ``device``: hold nothing ahead before it has shown again how long its work takes."""
        if device in self._recent:
            self._recent[device].clear()

    def room(self, device: str) -> int:
        """How many more grants may be asked for ahead."""
        recent = self._recent.get(device)
        if not recent or len(recent) < _REMEMBERED:
            return 0
        predicted_s = max(sum(recent) / len(recent), SHORT_S / MOST_IN_HAND)
        return int(SHORT_S / predicted_s) * self._slots[device] - len(self._waiting[device])

    def wants(self, free: Sequence[Want]) -> tuple[Want, ...]:
        """``free`` slots, and room in hand, as one wish a device."""
        known = {want.device: want for want in free}
        out = []
        for device in self._slots:
            want, room = known.get(device), max(0, self.room(device))
            slots = (want.slots if want else 0) + room
            if slots:
                out.append(Want(device=device, slots=slots, warm=want.warm if want else ()))
        return tuple(out)

    def take(self, grant: Grant) -> bool:
        """Keep ``grant`` for the next free slot. Answers False where there is no room for it."""
        if self.room(grant.device) <= 0:
            return False
        self._waiting[grant.device].append((asyncio.get_running_loop().time(), grant))
        self._filled.set()
        return True

    def next_for(self, device: str) -> Grant | None:
        """The grant that has waited longest for a slot of ``device``; it is no longer in hand."""
        waiting = self._waiting.get(device)
        return waiting.popleft()[1] if waiting else None

    def drop(self, key: Key) -> bool:
        """Forget the attempt ``key``. Answers False where it is not in hand."""
        for waiting in self._waiting.values():
            for entry in waiting:
                if key_of(entry[1]) == key:
                    waiting.remove(entry)
                    return True
        return False

    def empty(self) -> tuple[Grant, ...]:
        """All that is in hand, to be given back."""
        grants = tuple(self._grants())
        for waiting in self._waiting.values():
            waiting.clear()
        return grants

    async def overdue(self) -> tuple[Grant, ...]:
        """Wait until something has lain here for too long; it is no longer in hand."""
        while True:
            await self._filled.wait()
            if not any(self._waiting.values()):
                self._filled.clear()
                continue
            await asyncio.sleep(_PATIENCE_S / 2)
            too_old = asyncio.get_running_loop().time() - _PATIENCE_S
            late = []
            for device, waiting in self._waiting.items():
                while waiting and waiting[0][0] < too_old:
                    late.append(waiting.popleft()[1])
                    # The work is not as short as predicted. Without this the step that gives back would take again.
                    self._recent[device].clear()
            if late:
                return tuple(late)

    def running(self) -> tuple[Running, ...]:
        """What is in hand, as the beat lists it: its leases are ours."""
        return tuple(Running(task_id=g.task.id, attempt=g.attempt, stage="in hand") for g in self._grants())

    def _grants(self) -> Iterable[Grant]:
        return (grant for waiting in self._waiting.values() for _, grant in waiting)

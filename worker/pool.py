"""The pool: the slots of an agent, and who of them does what is granted."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import replace
from types import TracebackType
from typing import Self

from lcq.config import LimitsConfig, RecycleConfig
from lcq.wire import Grant, Running, Want
from worker.attempt import Ended, Key, key_of
from worker.devices import SlotPlan
from worker.slot import PoolSettings, Shown, Slot, SlotState

_LOOK_S = 0.25  # how often it is looked at how much memory attempts hold


class RunnerPool:
    """The slots of an agent. ``async with``: when the block is left, no runner lives.

    ``on_ended`` is awaited for each attempt before its slot is free again; ``on_change`` is called with
    the new state of a slot, ``on_shown`` with what its runner can do.
    """

    def __init__(
        self,
        plans: Sequence[SlotPlan],
        settings: PoolSettings,
        *,
        on_ended: Callable[[Ended], Awaitable[None]],
        on_change: Callable[[SlotState], None],
        on_shown: Callable[[Shown], None],
    ) -> None:
        self._new_slot = functools.partial(Slot, on_ended=on_ended, on_change=on_change, on_shown=on_shown)
        self._settings = settings
        self._on_change = on_change
        self.slots = tuple(self._new_slot(plan, settings) for plan in plans)
        self._lives: list[asyncio.Task[None]] = []
        self._group = asyncio.TaskGroup()

    async def __aenter__(self) -> Self:
        await self._group.__aenter__()
        self._lives = [self._begin(slot) for slot in self.slots]
        self._lives.append(self._group.create_task(self._look(), name="memory"))
        return self

    def _begin(self, slot: Slot) -> asyncio.Task[None]:
        return self._group.create_task(self._see_out(slot), name=f"slot {slot.plan.name}")

    async def _see_out(self, slot: Slot) -> None:
        """Let a slot live; one that was retired is forgotten."""
        await slot.live(self._group)
        self.slots = tuple(one for one in self.slots if one is not slot)
        self._on_change(SlotState.FREE)  # what it kept back, while it was busy, may begin on another slot

    def resize(self, device: str, plans: Sequence[SlotPlan]) -> tuple[str, ...]:
        """Have just these slots of ``device``: new ones begin at once, others end after what they do now.

        Those that go on with other threads get another runner after what they do now, else they keep theirs. Where
        ``device`` is a function that is called otherwise now, other slots stand beside them meanwhile: calls are long.
        Answers the names of those that end.
        """
        wanted = {plan.name: plan for plan in plans}
        ended = []
        for slot in self.on(device):
            plan = wanted.get(slot.plan.name)
            if slot.is_retiring:
                continue
            if plan is None:
                slot.retire()
                ended.append(slot.plan.name)
            elif plan.settings.function != slot.plan.settings.function:
                slot.retire()
            else:
                slot.refit(plan)
        known = {slot.plan.name for slot in self.on(device) if not slot.is_retiring}
        new = [self._new_slot(plan, self._settings) for name, plan in wanted.items() if name not in known]
        self.slots += tuple(new)
        self._lives = [life for life in self._lives if not life.done()] + [self._begin(slot) for slot in new]
        return tuple(ended)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for life in self._lives:
            if not life.cancelling():  # a second one would break into its cleaning up
                life.cancel()
        if self._lives:
            await asyncio.wait(self._lives)
        await self._group.__aexit__(kind, error, trace)

    async def _look(self) -> None:
        while True:
            await asyncio.sleep(_LOOK_S)
            for slot in self.slots:
                slot.look()

    def follow(self, *, limits: LimitsConfig, no_progress_s: float, recycle: RecycleConfig) -> None:
        """Hold to these from the next attempt on; to ``recycle`` from the next runner of a slot on."""
        self._settings = replace(self._settings, limits=limits, no_progress_s=no_progress_s, recycle=recycle)
        for slot in self.slots:
            slot.settings = self._settings

    def start(self, grant: Grant) -> bool:
        """Begin ``grant`` on a free slot of its device, one where its model is warm if there is one.

        Answers False where no slot is free.
        """
        free = [slot for slot in self._free() if slot.plan.device == grant.device]
        if not free:
            return False
        min(free, key=lambda slot: grant.task.model not in slot.warm).start(grant)
        return True

    def stop(self, key: Key, *, hand_back: bool = False) -> bool:
        """End the attempt ``key``. Answers False where it does not run here."""
        for slot in self.slots:
            if slot.grant is not None and key_of(slot.grant) == key:
                slot.stop(hand_back=hand_back)
                return True
        return False

    def release(self, device: str = "") -> None:
        """Have every runner, or those of ``device``, free what its models hold, a busy one after its attempt."""
        for slot in self.slots:
            if device in ("", slot.plan.device):
                slot.release()

    def hold(self, device: str, why: str) -> None:
        """``device`` has failed: its idle runners end, its attempts soon, and none is started."""
        for slot in self.on(device):
            slot.hold(why)

    def resume(self, device: str) -> None:
        """``device`` is good again."""
        for slot in self.on(device):
            slot.resume()

    def renew(self, device: str = "") -> frozenset[str]:
        """Replace every runner, a busy one after its attempt, and test each device; or only those of ``device``.

        Answers the devices that are tested.
        """
        slots = [slot for slot in self.slots if not slot.is_retiring and device in ("", slot.plan.device)]
        return frozenset(slot.plan.device for slot in slots if slot.renew())

    def _free(self) -> tuple[Slot, ...]:
        """The slots that can begin something: no more than their device is to have, while busy ones retire."""
        out: list[Slot] = []
        for device in dict.fromkeys(slot.plan.device for slot in self.slots):
            slots = self.on(device)
            retiring = sum(slot.is_retiring and slot.grant is not None for slot in slots)
            free = [slot for slot in slots if slot.state is SlotState.FREE and not slot.is_retiring]
            out += free[: max(0, len(free) - retiring)]
        return tuple(out)

    def on(self, device: str) -> tuple[Slot, ...]:
        """The slots of ``device``."""
        return tuple(slot for slot in self.slots if slot.plan.device == device)

    def warm(self, device: str) -> tuple[str, ...]:
        """The models that are loaded on ``device``."""
        return tuple(dict.fromkeys(model for slot in self.on(device) for model in slot.warm))

    def groups(self) -> Collection[int]:
        """The process groups of the living runners."""
        return frozenset(slot.pid for slot in self.slots if slot.pid is not None)

    def wants(self) -> tuple[Want, ...]:
        """The free slots of each device that has any."""
        free: dict[str, list[Slot]] = {}
        for slot in self._free():
            free.setdefault(slot.plan.device, []).append(slot)
        return tuple(
            Want(device=device, slots=len(slots), warm=tuple(dict.fromkeys(m for slot in slots for m in slot.warm)))
            for device, slots in free.items()
        )

    def grants(self) -> tuple[Grant, ...]:
        """What the slots are at."""
        return tuple(slot.grant for slot in self.slots if slot.grant is not None)

    def running(self) -> tuple[Running, ...]:
        """The attempts that are here, and how far they are."""
        return tuple(
            Running(task_id=slot.grant.task.id, attempt=slot.grant.attempt, progress=slot.progress, stage=slot.stage)
            for slot in self.slots
            if slot.grant is not None
        )

    def count(self, state: SlotState) -> int:
        return sum(slot.state is state for slot in self.slots)

"""What a device should know before it claims: what work takes there, and what it had better leave for faster ones."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping

from lcq.costs import ORDINARY_MEGAPIXELS, CostBook
from lcq.errors import StateUnavailable
from lcq.memory_costs import room_needed
from lcq.models import Device, NodeCapability, NodeRecord, model_of
from lcq.placement import Patience
from lcq.state.reader import StateReader

_FLEET_AGE_S = 0.5
# For so much longer than was promised tasks are left to others; whatever keeps those from coming, then one is taken.
_PATIENCE_AT_MOST = 1.5
_PATIENCE_MORE_S = 2.0

_MOST_KEPT = 10_000  # devices

Name = tuple[str, str]
"""Node and device."""


class Outlook:
    """Of the devices that claim through one scheduler."""

    def __init__(self, reader: StateReader, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._reader = reader
        self._clock = clock
        # By what book, for what it can do (a hello of the same boot may say more), and how far it is behind its class:
        # its costs.
        self._told: dict[Name, tuple[CostBook, NodeCapability, float, str]] = {}
        self._patient_until: dict[Name, float] = {}

    async def of(self, node: NodeRecord, device: Device, warm: Iterable[str]) -> tuple[str, Patience]:
        """What ``claim_tasks`` is to know: the costs of work there, and the patience. Nothing where Redis is away."""
        name = (node.id, device.id)
        try:
            fleet = await self._reader.recent_fleet(within_s=_FLEET_AGE_S)
        except StateUnavailable:
            return "", {}
        known, station = self._told.get(name), fleet.timetable.stations.get(name)
        behind = station.behind if station else 1.0
        if known is None or known[0] is not fleet.costs or known[1:3] != (node.capability, behind):
            if len(self._told) > _MOST_KEPT:  # of nodes that went without a word
                self._told.clear()
                self._patient_until.clear()
            costs = fleet.costs.curves_as_json(node.capability, device, behind=behind)
            known = self._told[name] = (fleet.costs, node.capability, behind, costs)
        until = self._patient_until.get(name)
        if until is not None and self._clock() > until:
            del self._patient_until[name]
            return known[3], {}
        return known[3], fleet.timetable.patience(name, warm)

    async def learned_mib(self, node: NodeRecord, device: Device) -> Mapping[str, int]:
        """What an ordinary task of each lane has to have of that GPU's memory, where that was learned."""
        try:
            costs = (await self._reader.recent_fleet(within_s=_FLEET_AGE_S)).costs
        except StateUnavailable:
            return {}
        told = {}
        for lane in node.capability.lanes_of(device):
            offer = node.capability.models[model_of(lane)]
            learned = costs.learned_memory(lane, device, offer=offer)
            if learned is not None:
                told[lane] = room_needed(learned, ORDINARY_MEGAPIXELS, otherwise=offer.vram_mib)
        return told

    async def kept(self, node: NodeRecord, device: Device, most: int) -> int:
        """How many slots of that device are kept for people who wait: ``most`` in all, where they were of late."""
        try:
            fleet = await self._reader.recent_fleet(within_s=_FLEET_AGE_S)
        except StateUnavailable:
            return 0
        return fleet.kept_slots(most).get((node.id, device.id), 0)

    def note(self, node: NodeRecord, device: Device, patience: Patience, *, held: bool) -> None:
        """Whether that device has left tasks to others: it will not for much longer than they promised."""
        if not held:
            self._patient_until.pop((node.id, device.id), None)
            return
        promised = max((terms[0] for lanes in patience.values() for terms in lanes.values()), default=0.0)
        until = self._clock() + _PATIENCE_AT_MOST * promised + _PATIENCE_MORE_S
        self._patient_until.setdefault((node.id, device.id), until)

    def forget(self, node_id: str) -> None:
        """A node is gone."""
        for kept in (self._told, self._patient_until):
            for name in [name for name in kept if name[0] == node_id]:
                del kept[name]

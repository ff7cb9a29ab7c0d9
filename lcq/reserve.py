"""Which slots are kept for people who wait for a picture, while somebody does. Pure: no I/O, no clock."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from lcq.placement import Station

Name = tuple[str, str]
"""Node and device."""


def kept_slots(stations: Iterable[Station], wanted: Iterable[tuple[str, str]], most: int) -> Mapping[Name, int]:
    """How many slots of each device are kept: ``most`` for each queue and lane of ``wanted``, of those that serve it.

    Devices with several slots give one or more of theirs first, the largest of them most; a device with one slot is
    kept whole where there are others. All but one slot of those that serve a lane may be kept: other work goes on.
    """
    known = sorted(stations, key=lambda one: (-len(one.free_s), one.name))
    kept: dict[Name, int] = {}
    for queue, lane in sorted(wanted):
        serving = [one for one in known if queue in one.queues and lane in one.lanes]
        all_slots = sum(len(one.free_s) for one in serving)
        missing = min(most, all_slots - 1) - sum(kept.get(one.name, 0) for one in serving)
        for leaves in (1, 0):  # first what leaves each device a slot for other work
            for one in serving:
                more = min(missing, len(one.free_s) - leaves - kept.get(one.name, 0))
                if more > 0:
                    kept[one.name] = kept.get(one.name, 0) + more
                    missing -= more
    return kept

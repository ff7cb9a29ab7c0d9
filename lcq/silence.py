"""Silence: how long a node's beats may be missed before it is shown as suspect. Pure.

A node is heard by one scheduler only, the one that it said hello to last. While that one stood still, or Redis did, its
nodes were not silent: nobody listened to them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

_SUSPECT_BEATS = 1.5  # a beat comes 0.9 to 1 beats after the last: half a beat more is more than any jitter of ours
_STANDSTILL_MS = 2000  # and a busy host stands still for so long, however short its beats are (docs/faults.md)
_OF_LEASE = 0.75  # but there is to be a warning before the lease runs out
_MOVING_BEATS = 3.0  # after two beats with no answer an agent looks for another scheduler


class Ear(NamedTuple):
    """How well a scheduler listens: when it showed that last, and since when without a pause. Ms by Redis's clock."""

    last_ms: int
    since_ms: int


def overdue_ms(beat_ms: float, lease_ms: float) -> int:
    """For how long a node that is to beat every ``beat_ms`` may go unheard without being suspect."""
    return int(max(_SUSPECT_BEATS * beat_ms, min(beat_ms + _STANDSTILL_MS, _OF_LEASE * lease_ms)))


def unheard_ms(
    seen_ms: int, scheduler: str, ears: Mapping[str, Ear], *, beat_ms: float, gap_ms: float, now_ms: int
) -> int:
    """For how long a node last heard at ``seen_ms`` has said nothing to a ``scheduler`` that listened.

    One that has shown nothing for ``gap_ms`` is frozen or dead: its nodes have so long to find another one. Of one that
    never showed anything (an older version, or it ended in order) nothing is known, and all silence counts.
    """
    ear = ears.get(scheduler)
    if ear is None:
        return now_ms - seen_ms
    is_listening = now_ms - ear.last_ms <= gap_ms
    return now_ms - max(seen_ms, ear.since_ms if is_listening else int(ear.last_ms + _MOVING_BEATS * beat_ms))

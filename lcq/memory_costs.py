"""How much of its device's memory an attempt holds, by the size of its picture: learned from what was held. Pure.

Too little costs an attempt, and a bit too much only room: so it goes by the upper edge of what was seen, says no less
than the shipped figure until it has seen enough, and what ran out of memory raises it at once.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from lcq.costs import KEPT, Curve, quantile, repeated_medians

ENOUGH = 8
"""Completed attempts whose memory is known, from which on the shipped figure says nothing any more."""

MARGIN = 1.1
"""By how much more than what is predicted has to be free, where a task is placed by what was learned."""

_UPPER = 0.95  # of what was held: the line runs there
_WIDE = 1.5  # as in lcq.costs: from so different sizes on a slope can be told
_MORE = 1.25  # so much more is expected for each attempt that ran out of memory …
_MOST_MORE = 2.0  # … up to this: a program that takes memory away is no reason to think a model endlessly large
_AS_LARGE = 0.9  # of the picture that ran out: completed ones from this size on speak against it


@dataclass(frozen=True)
class Held:
    """What one attempt held at its peak (0: not known), and what had been predicted for it (0: nothing)."""

    megapixels: float
    peak_mib: int
    predicted_mib: int = 0
    is_short: bool = False  # it ran out of memory


def remembering(curve: Curve, held: Sequence[Held]) -> Curve:
    """``curve`` with its memory after what was held, the oldest first; with nothing seen, itself.

    Before ``ENOUGH`` attempts its own figure is only raised, as far as they were above it. What ran out of memory
    counts until as many that were as large have been completed since.
    """
    seen = [one for one in held[-KEPT:] if one.megapixels > 0]
    told = [one for one in seen if not one.is_short and one.peak_mib > 0]
    line = curve
    if told:
        line = _fitted(curve, told)
    short = [one for place, one in enumerate(seen) if one.is_short and not _is_disproved(one, seen[place + 1 :])]
    if not short or not line.remembers:
        return line
    more = min(_MOST_MORE, _MORE ** len(short))
    line = replace(line, fixed_mib=line.fixed_mib * more, mib_per_megapixel=line.mib_per_megapixel * more)
    lacking = max(one.peak_mib - line.memory(one.megapixels) for one in short)
    return replace(line, fixed_mib=line.fixed_mib + max(0.0, lacking), mib_samples=max(1, line.mib_samples))


def _fitted(curve: Curve, told: Sequence[Held]) -> Curve:
    over = [one.peak_mib - curve.memory(one.megapixels) for one in told]
    if curve.remembers and len(told) < ENOUGH:
        more = quantile(over, _UPPER)
        return replace(curve, fixed_mib=curve.fixed_mib + more, mib_samples=len(told)) if more > 0 else curve
    sizes = [one.megapixels for one in told]
    if max(sizes) >= _WIDE * min(sizes):
        _, slope = repeated_medians([(one.megapixels, float(one.peak_mib)) for one in told])
        line = replace(curve, fixed_mib=0.0, mib_per_megapixel=slope, mib_from=0.0)
    elif curve.remembers:  # of one size nothing is said of others: as before, in proportion
        share = quantile((one.peak_mib / curve.memory(one.megapixels) for one in told), _UPPER)
        slope = curve.mib_per_megapixel * share
        return replace(curve, fixed_mib=curve.fixed_mib * share, mib_per_megapixel=slope, mib_samples=len(told))
    else:
        line = replace(curve, fixed_mib=0.0)
    fixed = quantile((one.peak_mib - line.memory(one.megapixels) for one in told), _UPPER)
    return replace(line, fixed_mib=max(0.0, fixed), mib_samples=len(told))


def room_needed(learned: Curve, megapixels: float, *, otherwise: int) -> int:
    """MiB that have to be free for such an attempt, with a margin; before ``ENOUGH`` no less than ``otherwise``."""
    needed = math.ceil(learned.memory(megapixels) * MARGIN)
    return needed if learned.mib_samples >= ENOUGH else max(needed, otherwise)


def _is_disproved(short: Held, later: Iterable[Held]) -> bool:
    """Whether enough that were as large have been completed since."""
    large = _AS_LARGE * short.megapixels
    return sum(1 for one in later if not one.is_short and one.peak_mib > 0 and one.megapixels >= large) >= ENOUGH


@dataclass(frozen=True)
class MemoryCalibration:
    """How good predictions of memory were for one key, over the attempts that are kept."""

    predicted_mib: int  # the median of what was predicted
    peak_mib: int  # the median of what was held
    peak_p95_mib: int
    held_within: float  # share of attempts that held no more than was predicted
    out_of_memory: int  # attempts that ran out of it


def memory_calibration(held: Iterable[Held]) -> MemoryCalibration:
    """What was predicted against what was held."""
    held = list(held)
    told = [one for one in held if not one.is_short and one.peak_mib > 0]
    sure = [one for one in told if one.predicted_mib > 0]
    return MemoryCalibration(
        predicted_mib=round(quantile((one.predicted_mib for one in sure), 0.5)),
        peak_mib=round(quantile((one.peak_mib for one in told), 0.5)),
        peak_p95_mib=round(quantile((one.peak_mib for one in told), _UPPER)),
        held_within=sum(one.peak_mib <= one.predicted_mib for one in sure) / len(sure) if sure else 0.0,
        out_of_memory=sum(one.is_short for one in held),
    )

"""What comes into a queue and leaves it, a minute, and when it is empty at that pace: pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice

from lcq.models import MinuteTally

LATE = 10
"""Of so many minutes that are over, the newest of which it is known, a pace is the mean."""
GROWS = 0.5
"""Who gets so many tasks a minute more than it is rid of, grows."""
MINUTE_MS = 60_000


@dataclass(frozen=True, slots=True)
class Flow:
    """A queue's tasks a minute, of late: that came into it, that left it in whatever way, that were completed.

    ``begun``: those completed in the minute under way; where work has begun after a rest, the pace is at least that.
    """

    came: float
    left: float
    done: float
    begun: int = 0

    @property
    def grows(self) -> bool:
        return self.came - self.left > GROWS

    def empty_in_ms(self, waiting: int) -> float | None:
        """How long ``waiting`` tasks take at this pace; None where nothing is done."""
        return waiting / max(self.done, self.begun) * MINUTE_MS if self.done else None


def flow_of(minutes: Sequence[MinuteTally], queue: str) -> Flow | None:
    """The pace of a queue by what was counted, the oldest minute first; None where that is not known.

    The last minute is under way and tells too little. One in which no scheduler counted is passed over.
    """
    known = list(islice((one for one in reversed(minutes[:-1]) if queue in one.came_in), LATE))
    if not known:
        return None
    return Flow(
        came=_mean(one.came_in[queue] for one in known),
        left=_mean(one.left_in.get(queue, 0) for one in known),
        done=_mean(one.completed_in.get(queue, 0) for one in known),
        begun=minutes[-1].completed_in.get(queue, 0),
    )


def _mean(counts: Iterable[int]) -> float:
    found = list(counts)
    return sum(found) / len(found)

"""Leases as the node sees them: what it was granted, and until when each attempt is surely its own."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Iterable

from lcq.clock import steady_now
from lcq.wire import Grant
from worker.attempt import Key, key_of

_REMEMBERED = 10_000  # tokens, so that a second copy of an answer starts nothing


class Leases:
    """Told of every grant and of every renewal; knows what to trust.

    Times are ``steady_now()`` from before the request that brought the lease was first sent: by Redis's clock
    it began later, so what is sure here is sure there.
    """

    def __init__(self) -> None:
        self._known: OrderedDict[Key, None] = OrderedDict()
        self._until: dict[Key, float] = {}
        self._lengths: dict[Key, float] = {}

    def is_known(self, key: Key) -> bool:
        """Whether this attempt was granted, or taken back, before."""
        return key in self._known

    def remember(self, key: Key) -> None:
        """Let no later grant of ``key`` be news: it has come, or it was taken back before it came."""
        self._known[key] = None
        if len(self._known) > _REMEMBERED:
            self._known.popitem(last=False)

    def begin(self, grant: Grant, asked_at: float) -> None:
        """The attempt is ours from now on; ``asked_at``: when the step that brought it was first sent."""
        self._lengths[key_of(grant)] = grant.lease_ms / 1000
        self._until[key_of(grant)] = asked_at + grant.lease_ms / 1000

    def renew(self, keys: Iterable[Key], asked_at: float) -> None:
        """A beat that listed ``keys``, first sent at ``asked_at``, was answered. What has ended since stays ended.

        Each is renewed by its own length: it may have been granted by a scheduler with other settings.
        """
        for key in keys:
            if key in self._until:
                self._until[key] = asked_at + self._lengths[key]

    def end(self, key: Key) -> None:
        self._until.pop(key, None)
        self._lengths.pop(key, None)

    @property
    def shortest_s(self) -> float:
        """The length of the shortest lease that is held; infinite where there is none."""
        return min(self._lengths.values(), default=math.inf)

    def is_sure(self, key: Key) -> bool:
        """Whether nobody else can have been granted this task by now."""
        return steady_now() < self._until.get(key, float("-inf"))

"""The functions that our settings name, while those change: what still goes by the terms of before. Pure but for the
clock.

The price of a call is reserved by what the cluster knows of its function. So a function whose terms have changed is
asked for nothing before the cluster knows them, and what was granted by those of before is given back. What is at work
goes on by them to its end; that says nothing of the function that there is now.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from lcq.clock import steady_now
from lcq.runner_config import FunctionConfig


class NamedFunctions:
    """Told of new settings by ``follow``, of each hello by ``said`` and of its answer by ``welcomed``."""

    def __init__(self, functions: Mapping[str, FunctionConfig]) -> None:
        self.now: Mapping[str, FunctionConfig] = dict(functions)
        """By name, as the settings are now."""
        self._ever = set(functions)
        self._changed_at: dict[str, float] = {}  # when each was last changed, by steady_now()
        self._known_at: dict[str, float] = {}  # since when the cluster knows that; inf: not yet
        self._said_at = -math.inf

    def follow(self, functions: Mapping[str, FunctionConfig]) -> tuple[str, ...]:
        """These are named from now on. Answers which are new, gone, or other ones than they were."""
        before, self.now = self.now, dict(functions)
        changed = tuple(name for name in {**before, **self.now} if before.get(name) != self.now.get(name))
        self._ever.update(functions)
        self._changed_at.update(dict.fromkeys(changed, steady_now()))
        self._known_at.update(dict.fromkeys(changed, math.inf))
        return changed

    def said(self) -> None:
        """A hello has just been made."""
        self._said_at = steady_now()

    def welcomed(self) -> None:
        """The last hello has been answered: the cluster knows what it said."""
        for name, known_at in self._known_at.items():
            if known_at == math.inf and self._said_at >= self._changed_at[name]:
                self._known_at[name] = steady_now()

    def is_function(self, device: str) -> bool:
        """Whether ``device`` is a function, or was one that is named no more."""
        return device in self._ever

    def is_known(self, device: str, asked_at: float = math.inf) -> bool:
        """Whether what was asked then about ``device`` (default: now) was answered by the terms that hold now."""
        known_at = self._known_at.get(device, -math.inf)
        return known_at < math.inf and known_at <= asked_at

    def is_older(self, device: str, began_at: float) -> bool:
        """Whether what began then at ``device`` went by terms of before."""
        return began_at < self._changed_at.get(device, -math.inf)

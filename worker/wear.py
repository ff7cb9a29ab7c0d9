"""Wear: when a runner has grown so old or so big that another one is to take its place."""

from __future__ import annotations

from collections.abc import Iterable

from lcq.config import RecycleConfig


class Wear:
    """What one runner has done, and how it has grown. Told after each attempt."""

    def __init__(self, policy: RecycleConfig) -> None:
        self._policy = policy
        self._attempts = 0
        self._least: dict[frozenset[str], int] = {}  # loaded models -> the least that was held with just these

    def note(self, warm: Iterable[str], held_mib: int) -> str:
        """An attempt has ended, with these models loaded and that much memory held. Why it is worn out, or ""."""
        self._attempts += 1
        loaded = frozenset(warm)
        least = self._least[loaded] = min(self._least.get(loaded, held_mib), held_mib)
        tasks, grown_mib = self._policy.tasks, self._policy.grown_mib
        if tasks is not None and self._attempts >= tasks:
            return f"has done {self._attempts} attempts (agent.recycle.tasks)"
        if grown_mib is not None and held_mib - least >= grown_mib:
            return (
                f"holds {held_mib:,} MiB after {self._attempts} attempts, and has held {least:,} with the same models "
                f"(agent.recycle.grown_mib is {grown_mib:,})"
            )
        return ""

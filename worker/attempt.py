"""An attempt on this host, as its parts tell each other of it: its token, its files, how it ended."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from lcq.log import about
from lcq.models import Failure, Task, TaskResult
from lcq.wire import Grant

Key = tuple[str, int]  # (task id, attempt)


@dataclass(frozen=True)
class Ended:
    """How an attempt ended: with a result, with a failure, or neither, because it was told to stop.

    ``staged`` is the result's file before it is renamed; "" where there is none. ``found``: the mark of what had its
    final name when the attempt began; None: not known. ``handed_back``: the attempt is to be given back, at no cost
    for the task. ``peak_mib``: the most memory it held at a time; ``device_peak_mib``: of its GPU's; 0: not known.
    ``again_s``: so long what it failed for wants to be left alone. ``cost``: what was paid for what failed, or was
    handed back; None: nobody knows, or nothing is paid for there.
    ``log``: what its runner wrote last, where it failed. ``parts``: what took time here (fetch, run), from when to
    when; ``stages``: those of the runner's work, and when each began; in ns since the epoch.
    """

    grant: Grant
    result: TaskResult | None = None
    staged: str = ""
    found: str | None = None
    failure: Failure | None = None
    again_s: float = 0.0
    cost: float | None = None
    handed_back: bool = False
    peak_mib: int = 0
    device_peak_mib: int = 0
    log: str = ""
    parts: tuple[tuple[str, int, int], ...] = field(default=(), compare=False)
    stages: tuple[tuple[str, int], ...] = field(default=(), compare=False)

    @classmethod
    def not_begun(cls, grant: Grant) -> Ended:
        """``grant`` given back before anything of it was begun: it has cost nothing."""
        return cls(grant, handed_back=True, cost=0.0)

    @property
    def key(self) -> Key:
        return key_of(self.grant)


def key_of(grant: Grant) -> Key:
    """The token of an attempt."""
    return grant.task.id, grant.attempt


def about_grant(grant: Grant, **facts: object) -> AbstractContextManager[None]:
    """A block whose lines of the log carry which attempt they are about."""
    return about(task=grant.task.id, attempt=grant.attempt, job=grant.task.job, **facts)


@dataclass(frozen=True)
class Brought:
    """A task whose files are all here: ``also`` are folders that its runner may reach beside ``storage.roots``."""

    task: Task
    also: tuple[Path, ...] = ()


class NotBrought(Exception):
    """What a task names cannot be had here; ``failure`` says why."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(f"{failure.code}: {failure.message}")
        self.failure = failure


class Bringer(Protocol):
    """Who has the files brought that a task names and that lie elsewhere."""

    def is_needed(self, task: Task) -> bool:
        """Whether there are any."""

    async def bring(self, grant: Grant) -> Brought:
        """Raises:
        NotBrought.
        """

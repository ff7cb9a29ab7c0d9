"""The processes below an agent, as tests of faults look at them."""

from __future__ import annotations

import psutil


def warden_of(runner: psutil.Process) -> psutil.Process:
    """The process in the middle, between the agent and its runner."""
    warden = runner.parent()
    assert warden is not None
    assert any(word.endswith("warden.py") for word in warden.cmdline())
    return warden


def children_of(process: psutil.Process) -> list[psutil.Process]:
    """All that live below it."""
    return [child for child in process.children(recursive=True) if child.status() != psutil.STATUS_ZOMBIE]

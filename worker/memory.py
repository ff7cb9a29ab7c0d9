"""What this process holds of the host's memory, now and at most: read by a runner of itself, in microseconds."""

from __future__ import annotations

import contextlib
import os
import resource
import sys

_MIB = 1024**2


def forget_peak() -> None:
    """Let ``peak_mib()`` count from now on. Where the kernel cannot, it counts from the beginning."""
    with contextlib.suppress(OSError), open("/proc/self/clear_refs", "w", encoding="ascii") as told:
        told.write("5")


def peak_mib() -> int:
    """The most that this process has held at a time."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak * (1024 if sys.platform == "linux" else 1) // _MIB


def rss_mib() -> int:
    """What this process holds now; 0 where that cannot be told."""
    try:
        with open("/proc/self/statm", encoding="ascii") as told:
            return int(told.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") // _MIB
    except OSError:
        return 0

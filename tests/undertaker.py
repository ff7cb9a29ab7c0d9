"""Ends what a pytest that was killed has left behind: schedulers, agents, Redis servers, and what those had started.

    python -I -S undertaker.py FOLDER SERVER < a pipe from that pytest

A process that is killed puts nothing in order, and the kernel (PR_SET_PDEATHSIG) looks at the thread that starts a
process, of which tests have many that end before. So this one waits until the pipe ends. Where nothing was said there
before, it kills what comes from that run: all that have its FOLDER in the variable that each test sets, and Python and
SERVER wherever they have it in their arguments or as their place. Who looks into the folder by other programs stays.

It is run by its path and knows the standard library only; it needs /proc.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

MARK = "XDG_DATA_HOME"
"""Of each process of a test, as tests/conftest.py sets it: below the folder of its run."""
BYE = b"."
_PAUSE_S, _PATIENCE_S = 0.05, 60.0
_QUIET = 3  # looks one after another that find nothing: what was just being started has come by then


def left(folder: str, programs: frozenset[str]) -> Iterator[int]:
    """The living processes of this user that come from the run in ``folder``."""
    for place in Path("/proc").iterdir():
        if not place.name.isdigit() or int(place.name) == os.getpid():
            continue
        with contextlib.suppress(OSError):
            if place.stat().st_uid == os.geteuid() and _is_of(place, folder, programs):
                yield int(place.name)


def _is_of(place: Path, folder: str, programs: frozenset[str]) -> bool:
    mark = f"{MARK}={folder}{os.sep}".encode()
    if any(variable.startswith(mark) for variable in (place / "environ").read_bytes().split(b"\0")):
        return True
    if str((place / "exe").readlink()).removesuffix(" (deleted)") not in programs:
        return False
    within = str((place / "cwd").readlink()) + os.sep
    return within.startswith(folder + os.sep) or f"{folder}{os.sep}".encode() in (place / "cmdline").read_bytes()


def end_all(folder: str, programs: frozenset[str]) -> None:
    """Kill them until no more come."""
    until, quiet = time.monotonic() + _PATIENCE_S, 0
    while quiet < _QUIET and time.monotonic() < until:
        quiet += 1
        for pid in left(folder, programs):
            quiet = 0
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(_PAUSE_S)


def main(folder: str, *programs: str) -> None:
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # they are for all that a terminal has started
    if not sys.stdin.buffer.read().endswith(BYE):
        end_all(folder, frozenset(map(os.path.realpath, (sys.executable, *programs))))


if __name__ == "__main__":
    main(*sys.argv[1:])

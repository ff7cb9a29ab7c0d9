"""Becomes another program, which the kernel ends when the process that started it dies.

    python -I -S leash.py PARENT_PID PROGRAM [ARGUMENT …]

A ``preexec_fn`` could ask for the same, but is not safe in a process with threads; this file is run by
its path, knows the standard library only, and is gone once the program runs in its place.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence

_PR_SET_PDEATHSIG = 1


def leashed(command: Sequence[str]) -> list[str]:
    """``command``, to be started by this very process, and sent SIGTERM when this process has died.

    On Linux; elsewhere the program is started all the same, and has to notice the death by itself. The
    kernel watches the thread that starts the program: start it from one that lives as long as the process.
    """
    return [sys.executable, "-I", "-S", __file__, str(os.getpid()), *command]


def main(arguments: Sequence[str]) -> None:
    parent, *command = arguments
    if sys.platform == "linux":
        import ctypes

        libc = ctypes.CDLL(None, use_errno=True)
        if libc.prctl(_PR_SET_PDEATHSIG, int(signal.SIGTERM), 0, 0, 0) != 0:
            raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) failed")
        signal.signal(signal.SIGTERM, signal.SIG_DFL)  # a parent that ignores it hands that on, and the leash is cut
    if os.getppid() != int(parent):
        sys.exit(1)  # it died before we were on its leash
    os.execvp(command[0], command)  # noqa: S606  no shell on purpose


if __name__ == "__main__":
    main(sys.argv[1:])

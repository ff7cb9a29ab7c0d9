"""The warden: a small process between the agent and one runner, from under which nothing the runner starts gets away.

    python -I -S warden.py AGENT_PID LINE_FD COMMAND [ARGUMENT …]

Whatever is orphaned below it becomes its own child, also what has left the runner's session or forked twice. It ends
all of it when the runner has ended, when the agent says so (``END``), and when the agent is gone: the kernel sends the
same signal then, and the pipe at its stdin ends. It kills only children of its own, and a child's number is nobody
else's until the warden has taken leave of it. It ends as the runner ended, or with 0 where it was told to.

It is run by its path and knows the standard library only: it is there for as long as its runner, and weighs little.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from types import FrameType

END = signal.SIGUSR2
"""What the agent, or the kernel when that has died, sends. SIGTERM and the like are the agent's to answer."""

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_POLL_S = (0.001, 0.05)  # first and longest pause while something that was killed is not gone yet
_CANNOT_START = 127
_IGNORED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class _Warden:
    """One runner's. ``status`` is how that ended, None while it lives."""

    def __init__(self) -> None:
        self.status: int | None = None
        self._runner = 0
        self._is_told = False
        self._woken, wake = os.pipe()
        os.set_blocking(self._woken, False)
        os.set_blocking(wake, False)
        signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
        for number in _IGNORED:
            signal.signal(number, signal.SIG_IGN)
        signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
        signal.signal(END, self._hear)

    def _hear(self, _number: int, _frame: FrameType | None) -> None:
        self._is_told = True

    def start(self, command: Sequence[str]) -> None:
        """Raises:
        OSError: the runner cannot be started.
        """
        self._runner = os.posix_spawnp(
            command[0],
            [*command, "--parent", str(os.getpid())],
            os.environ,
            file_actions=[(os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0)],
            setsigdef=[*_IGNORED, signal.SIGPIPE, signal.SIGXFSZ],
        )

    def watch(self) -> bool:
        """Return when all is to end; answers whether the runner ended by itself."""
        while self.status is None and not self._is_told:
            ready, _, _ = select.select([0, self._woken], [], [])
            if 0 in ready and not os.read(0, 1):  # the agent is gone
                self._is_told = True
            with contextlib.suppress(BlockingIOError):
                os.read(self._woken, 100)
            self._reap()
        return self.status is not None

    def end_all(self) -> None:
        """Kill what is below until nothing is: what a killed process leaves behind is ours then."""
        pause_s = _POLL_S[0]
        while True:
            for child in _children():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(child, signal.SIGKILL)
            if not self._reap():
                return
            time.sleep(pause_s)
            pause_s = min(2 * pause_s, _POLL_S[1])

    def _reap(self) -> bool:
        """Take leave of the children that have ended. Answers whether there are others."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return False
            if not pid:
                return True
            if pid == self._runner:
                self.status = status


def _children() -> Iterator[int]:
    me = os.getpid()
    try:
        with open(f"/proc/self/task/{me}/children", encoding="ascii") as told:
            yield from map(int, told.read().split())
    except OSError:  # a kernel that is built without that list
        for name in filter(str.isdigit, os.listdir("/proc")):  # noqa: PTH208 - pathlib weighs more
            with contextlib.suppress(OSError), open(f"/proc/{name}/stat", encoding="utf-8", errors="replace") as stat:
                if int(stat.read().rpartition(")")[2].split()[1]) == me:
                    yield int(name)


def _take_office(agent: int) -> None:
    """Have the kernel tell us of the agent's death, and give us every orphan below."""
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    for option, value in ((_PR_SET_PDEATHSIG, int(END)), (_PR_SET_CHILD_SUBREAPER, 1)):
        if libc.prctl(option, value, 0, 0, 0) != 0:
            raise OSError(ctypes.get_errno(), f"prctl({option}) failed")
    if os.getppid() != agent:
        sys.exit(1)  # it died before we were on its leash


def _leave_as(status: int) -> None:
    """End as the runner has ended."""
    code = os.waitstatus_to_exitcode(status)
    if code < 0:
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # the core is the runner's, not ours
        with contextlib.suppress(OSError):  # SIGKILL has no handler to reset
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    os._exit(code if code >= 0 else 128 - code)


def main(arguments: Sequence[str]) -> None:
    agent, line, *command = arguments
    warden = _Warden()
    if sys.platform == "linux":
        _take_office(int(agent))
    try:
        warden.start([*command, "--fd", line])
    except OSError as error:
        print(f"{command[0]} cannot be started: {error.strerror}", file=sys.stderr)  # noqa: T201
        sys.exit(_CANNOT_START)
    os.close(int(line))  # else its end would not be seen
    ended_by_itself = warden.watch()
    if sys.platform != "linux":
        os.killpg(0, signal.SIGKILL)  # no orphan comes to us there: the group is all that can be ended, we with it
    warden.end_all()
    if ended_by_itself and warden.status is not None:
        _leave_as(warden.status)


if __name__ == "__main__":
    main(sys.argv[1:])

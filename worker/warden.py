"""The warden: a small process between the agent and one runner, from under which nothing the runner starts gets away.

    python -I -S warden.py AGENT_PID LINE_FD TERMS COMMAND [ARGUMENT …]

Whatever is orphaned below it becomes its own child, also what has left the runner's session or forked twice. It ends
all of it when the runner has ended, when the agent says so (``END``), and when the agent is gone: the kernel sends the
same signal then, and the pipe at its stdin ends. It kills only children of its own, and a child's number is nobody
else's until the warden has taken leave of it. It ends as the runner ended, or with 0 where it was told to.

TERMS say what the runner is kept from (``confine``; worker/confinement.py writes them).

It is run by its path and knows the standard library only: it is there for as long as its runner, and weighs little.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from types import FrameType

END = signal.SIGUSR2
"""What the agent, or the kernel when that has died, sends. SIGTERM and the like are the agent's to answer."""

_PR_SET_PDEATHSIG = 1
_PR_SET_DUMPABLE = 4
_PR_SET_CHILD_SUBREAPER = 36
_PR_SET_NO_NEW_PRIVS = 38
_CLONE_NEWUSER = 0x10000000
_CLONE_NEWNET = 0x40000000
_POLL_S = (0.001, 0.05)  # first and longest pause while something that was killed is not gone yet
CANNOT_START = 127
"""The warden's exit code where there is no such program, or it may not be run."""

NOT_CONFINED = 126
"""The warden's exit code where the runner cannot be kept from what it is to be kept from."""

LOOSE = "LCQ_RUNNER_LOOSE"
"""The environment variable that tells a runner what it could not be kept from, although that was wished for."""

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

    def start(self, command: Sequence[str], loose: Sequence[str]) -> None:
        """``loose``: what the runner could not be kept from.

        Raises:
            OSError: it cannot be started.
        """
        self._runner = os.posix_spawnp(
            command[0],
            [*command, "--parent", str(os.getpid())],
            {**os.environ, **({LOOSE: "; ".join(loose)} if loose else {})},
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


# ---------------------------------------------------------------- what a runner is kept from


class NotConfined(Exception):
    """A process cannot be kept from what it is to be kept from; says from what, and why."""


def confine(terms: str) -> list[str]:
    """Keep this process, which must have one thread, and all that it becomes and starts, from what ``terms`` say.

    Always: from getting more rights than it has (no_new_privs). Words of ``terms``, with spaces between them:
    ``user=UID:GID:GROUP,…``; ``network=off``, or ``network=try`` where it is no matter if that fails; ``CORE=0`` and
    the like, a limit (setrlimit) of that name; ``lenient``: nothing has to succeed.

    Answers what has failed and may.

    Raises:
        NotConfined: what may not fail has.
    """
    import ctypes  # noqa: F401 - now: another user may not be able to read it
    import resource  # noqa: F401

    loose: list[str] = []
    words = dict(word.partition("=")[::2] for word in terms.split())
    user, network = words.pop("user", ""), words.pop("network", "")
    may_fail = words.pop("lenient", None) is not None

    def attempt(what: str, step: Callable[[], None], *, is_wish: bool = False) -> bool:
        try:
            step()
        except (OSError, ValueError, AttributeError) as error:
            trouble = f"{what}: {error.strerror if isinstance(error, OSError) else error}"
            if not (may_fail or is_wish):
                raise NotConfined(trouble) from error
            loose.append(trouble)
            return False
        return True

    is_root = os.geteuid() == 0
    is_cut_off = False
    if network and is_root:
        # Not by a user namespace, in which root would lose the files of others. Where root may not, as in many
        # containers, a user of its own may yet.
        only_way = network == "off" and not user
        is_cut_off = attempt("network", _leave_network, is_wish=not only_way)
        if not is_cut_off and user:
            loose.pop()
    if user:
        attempt("user", lambda: _become_user(user))
    if network and not is_cut_off and not (is_root and not user):
        attempt("network", _leave_network_as_user, is_wish=network == "try")
    if sys.platform == "linux":
        attempt("no_new_privs", lambda: _prctl(_PR_SET_NO_NEW_PRIVS, 1))
    for name, most in words.items():
        attempt(f"limit {name}", lambda name=name, most=most: _limit(name, int(most)))  # type: ignore[misc]
    return loose


def _prctl(option: int, value: int) -> None:
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, value, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), f"prctl({option}): {os.strerror(ctypes.get_errno())}")


def _unshare(flags: int) -> None:
    if sys.platform != "linux":
        raise OSError(0, "only Linux can take it away")
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(flags) != 0:
        raise OSError(ctypes.get_errno(), f"unshare: {os.strerror(ctypes.get_errno())}")


def _leave_network() -> None:
    """Into a network of its own, with nothing in it but the loopback interface."""
    _unshare(_CLONE_NEWNET)
    _raise_loopback()


def _leave_network_as_user() -> None:
    """The same by way of a user namespace, in which this user stays who it is."""
    uid, gid = os.geteuid(), os.getegid()
    _prctl(_PR_SET_DUMPABLE, 1)  # who has just changed its user may not write its own maps otherwise
    _unshare(_CLONE_NEWUSER | _CLONE_NEWNET)
    for name, content in (("setgroups", "deny"), ("uid_map", f"{uid} {uid} 1"), ("gid_map", f"{gid} {gid} 1")):
        with open(f"/proc/self/{name}", "w", encoding="ascii") as file:
            file.write(content)
    _raise_loopback()


def _raise_loopback() -> None:
    """A server of the runner's own (an IOPaint) is reached by it; without it 127.0.0.1 is nowhere."""
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    datagrams = libc.socket(2, 2, 0)  # AF_INET, SOCK_DGRAM: any socket will do. The module socket is large
    is_up = (1).to_bytes(2, sys.byteorder)
    try:
        if datagrams < 0 or libc.ioctl(datagrams, 0x8914, b"lo".ljust(16, b"\0") + is_up.ljust(24, b"\0")) != 0:
            raise OSError(ctypes.get_errno(), f"loopback: {os.strerror(ctypes.get_errno())}")
    finally:
        os.close(datagrams)


def _become_user(user: str) -> None:
    uid, gid, groups = user.split(":")
    if os.geteuid() == int(uid):
        return
    os.setgroups([int(group) for group in groups.split(",") if group])
    os.setgid(int(gid))
    os.setuid(int(uid))


def _limit(name: str, most: int) -> None:
    import resource

    kind = getattr(resource, f"RLIMIT_{name}")
    _, hard = resource.getrlimit(kind)
    most = most if hard == resource.RLIM_INFINITY else min(most, hard)
    resource.setrlimit(kind, (most, most))


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
    agent, line, terms, *command = arguments
    try:
        loose = confine(terms)  # us, and so the runner: what it is kept from is inherited
    except NotConfined as error:
        print(f"cannot be kept from what it should be: {error} (agent.runner)", file=sys.stderr)  # noqa: T201
        sys.exit(NOT_CONFINED)
    warden = _Warden()
    if sys.platform == "linux":
        _take_office(int(agent))
    try:
        warden.start([*command, "--fd", line], loose)
    except OSError as error:
        who = f" to user {os.geteuid()}: what leads to it has to be open to that user" if "user=" in terms else ""
        print(f"{command[0]} cannot be started: {error.strerror}{who}", file=sys.stderr)  # noqa: T201
        sys.exit(CANNOT_START)
    os.close(int(line))  # else its end would not be seen
    ended_by_itself = warden.watch()
    if sys.platform != "linux":
        os.killpg(0, signal.SIGKILL)  # no orphan comes to us there: the group is all that can be ended, we with it
    warden.end_all()
    if ended_by_itself and warden.status is not None:
        _leave_as(warden.status)


if __name__ == "__main__":
    main(sys.argv[1:])

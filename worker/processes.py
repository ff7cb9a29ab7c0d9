"""Child processes that end whole, and the record by which the next agent finds those that outlived this one."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

import psutil

import worker.warden as warden
from lcq.embedded_watch import started_at

_log = logging.getLogger(__name__)
_POLL_S = 0.02
_WARDEN_S = 0.5  # a warden that has not ended everything by then stands still, or cannot
_SWEEP_S = 5.0
_KIB = 1024

MARK = "LCQ_RUNNER_OF"
"""The environment variable by which a runner, and whatever it starts, is known as that of one record."""

Kill = Callable[[int, int], None]


class ProcessGroup:
    """A runner under its warden, which leads a session and process group of its own, and whatever the runner starts.

    ``peak_mib``: the most memory that one process of it has held at a time, as the kernel kept count; 0 until all of
    it has ended in order.
    """

    def __init__(self, child: subprocess.Popen[bytes], mark: str, kill: Kill) -> None:
        self._child = child
        self._mark = mark
        self._kill = kill
        self.pid = child.pid
        self.started = started_at(child.pid) or ""
        self.peak_mib = 0

    @classmethod
    def start(
        cls,
        command: Sequence[str],
        *,
        environment: Mapping[str, str],
        mark: str,
        line: socket.socket,
        output: int | None = None,
        kill: Kill = os.killpg,
        terms: str = "",
    ) -> Self:
        """Start ``command`` with ``line`` open in it; ``--fd N --parent PID`` are added. Blocks for milliseconds.

        ``mark`` is to be this one's only; ``kill`` sends a signal to a process group.

        ``output``: what it writes goes there; default: where ours goes. ``terms``: what it is kept from, as
        ``worker.warden.confine`` reads it.

        Raises:
            OSError: it cannot be started.
        """
        fd = line.fileno()
        child = subprocess.Popen(
            [sys.executable, "-I", "-S", warden.__file__, str(os.getpid()), str(fd), terms, *command],
            env={**environment, MARK: mark},
            stdin=subprocess.PIPE,  # never written to: it ends when we do
            stdout=output,
            stderr=output,
            pass_fds=(fd,),
            start_new_session=True,
        )
        return cls(child, mark, kill)

    def end(self) -> None:
        """Have everything ended. It is gone only once ``gone()`` says so."""
        self._signal(warden.END)

    def _signal(self, number: int) -> None:
        # Until we have reaped the child, its number cannot belong to anybody else.
        if self._child.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._kill(self.pid, number)

    async def exited(self) -> int:
        """Wait until the runner and all below it have ended. Answers the runner's exit code."""
        await self._until_zombie()
        if self._child.returncode is None:
            self._signal(signal.SIGKILL)  # of the group: a killed warden leaves it behind
            _, status, used = os.wait4(self.pid, 0)  # noqa: ASYNC222 - it is a zombie by now: this takes no time
            self._child.returncode = os.waitstatus_to_exitcode(status)
            self.peak_mib = used.ru_maxrss // _KIB
            if self._child.stdin is not None:
                self._child.stdin.close()
        return self._child.returncode

    async def gone(self) -> None:
        """End everything, and wait until nothing of it runs any more."""
        self.end()
        try:
            async with asyncio.timeout(_WARDEN_S):
                await self._until_zombie()
        except TimeoutError:
            self._signal(signal.SIGKILL)
        if await self.exited() != -signal.SIGKILL:
            return  # the warden was the last to leave
        while await asyncio.to_thread(self._kill_left):  # noqa: ASYNC110 - nothing tells of the end of a grandchild
            await asyncio.sleep(_POLL_S)

    def _kill_left(self) -> bool:
        """Kill what a killed warden has left behind. Answers whether anything still lives."""
        left = False
        for pid in psutil.pids():
            is_ours = _has_mark(pid, self._mark)
            if is_ours:
                _kill_one(pid)
            left = left or is_ours or (_group_of(pid) == self.pid and started_at(pid) is not None)
        return left

    def family(self) -> tuple[int, ...]:
        """The living processes below the warden, the runner first."""
        return tuple(_below(self.pid))

    def rss_mib(self) -> int:
        """Memory that all of them hold now."""
        return sum(map(_rss_bytes, self.family())) // _KIB**2

    def has_begun_since(self, then: float) -> bool:
        """Whether any of them, but the runner, was started after ``steady_now()`` was that."""
        return any(_began_at(pid) >= then - 1 / _TICKS for pid in self.family()[1:])

    async def _until_zombie(self) -> None:
        if self._child.returncode is not None:
            return
        if not hasattr(os, "pidfd_open"):
            while started_at(self.pid) is not None:  # noqa: ASYNC110 - no pidfd here
                await asyncio.sleep(_POLL_S)
            return
        descriptor = os.pidfd_open(self.pid)
        loop = asyncio.get_running_loop()
        ended = asyncio.Event()
        try:
            loop.add_reader(descriptor, ended.set)
            await ended.wait()
        finally:
            loop.remove_reader(descriptor)
            os.close(descriptor)


def _group_of(pid: int) -> int | None:
    try:
        return os.getpgid(pid)
    except ProcessLookupError:
        return None


_TICKS = os.sysconf("SC_CLK_TCK")


def _below(pid: int) -> Iterator[int]:
    for thread in sorted(Path(f"/proc/{pid}/task").glob("*/children")):
        with contextlib.suppress(OSError):
            for child in map(int, thread.read_text(encoding="ascii").split()):
                yield child
                yield from _below(child)


def _rss_bytes(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError):
        return 0


def _began_at(pid: int) -> float:
    """When ``pid`` was started, in seconds since the host was; minus infinity where it does not live."""
    started = started_at(pid)
    return int(started) / _TICKS if started is not None and started.isdigit() else float("-inf")


def _has_mark(pid: int, mark: str) -> bool:
    try:
        environment = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return False
    return f"{MARK}={mark}".encode() in environment and started_at(pid) is not None


def _kill_one(pid: int) -> bool:
    try:
        os.kill(pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        return False
    return True


# ---------------------------------------------------------------- what outlives an agent


@dataclass(frozen=True)
class RunnerRecord:
    """One runner, by its warden: (pid, started) names that for ever, a pid alone is used again.

    ``mark``: what only this warden and its descendants have in their environment.
    """

    pid: int
    started: str
    boot_id: str
    mark: str = ""  # "" in the records of version 0.1, whose mark was the boot id


class RunnerRecords:
    """The runners of this agent, in a file, so that the next one can end those that should not live."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._records: dict[int, RunnerRecord] = {}

    def add(self, record: RunnerRecord) -> None:
        self._records[record.pid] = record
        self._write()

    def remove(self, pid: int) -> None:
        if self._records.pop(pid, None) is not None:
            self._write()

    def _write(self) -> None:
        fresh = self._file.with_suffix(".tmp")
        try:
            fresh.write_text(json.dumps([asdict(record) for record in self._records.values()]), encoding="utf-8")
            fresh.replace(self._file)
        except OSError as error:
            with contextlib.suppress(OSError):
                fresh.unlink(missing_ok=True)
            # A full disk must not stop the work: the kernel ends runners with their agent anyway.
            _log.warning("cannot note the runners in %s: %s", self._file, error.strerror)

    def sweep(self) -> tuple[int, ...]:
        """Kill what is left of the runners in the file, and nothing else; answers the pids.

        Call it before the first ``add``, and only where no other agent uses the file.
        """
        recorded = self._read()
        swept: set[int] = set()
        until = time.monotonic() + _SWEEP_S
        # Again and again: what is killed may have started something a moment ago.
        while left := [pid for pid in psutil.pids() if recorded and any(_is_of(pid, one) for one in recorded)]:
            swept.update(pid for pid in left if _kill_one(pid))
            if time.monotonic() > until:
                _log.error("cannot end the processes that an earlier agent left behind: %s", sorted(left))
                break
            time.sleep(_POLL_S)
        if swept:
            _log.warning("ended %d processes that an earlier agent left behind: %s", len(swept), sorted(swept))
        return tuple(sorted(swept))

    def _read(self) -> list[RunnerRecord]:
        try:
            return [RunnerRecord(**values) for values in json.loads(self._file.read_text(encoding="utf-8"))]
        except FileNotFoundError:
            return []
        except (OSError, ValueError, TypeError) as error:
            _log.warning("%s cannot be read, so left-over runners are not looked for: %s", self._file, error)
            return []


def _is_of(pid: int, record: RunnerRecord) -> bool:
    """Whether ``pid`` is the recorded warden itself, or was started below it."""
    if pid == record.pid:
        return started_at(pid) == record.started
    if record.mark:
        return _has_mark(pid, record.mark)
    try:
        return os.getsid(pid) == record.pid and _has_mark(pid, record.boot_id)
    except ProcessLookupError:
        return False

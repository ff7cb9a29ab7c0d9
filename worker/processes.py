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
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

import psutil

from lcq.embedded_watch import started_at

_log = logging.getLogger(__name__)
_POLL_S = 0.02

MARK = "LCQ_RUNNER_OF"
"""The environment variable by which a runner, and whatever it starts, is known as that of one boot."""

Kill = Callable[[int, int], None]


class ProcessGroup:
    """A child in a session and process group of its own, and whatever it starts in there."""

    def __init__(self, child: subprocess.Popen[bytes], kill: Kill) -> None:
        self._child = child
        self._kill = kill
        self.pid = child.pid
        self.started = started_at(child.pid) or ""

    @classmethod
    def start(
        cls,
        command: Sequence[str],
        *,
        environment: Mapping[str, str],
        line: socket.socket,
        output: int | None = None,
        kill: Kill = os.killpg,
    ) -> Self:
        """Start ``command`` with ``line`` open in it. Blocks for the milliseconds that this takes.

        ``output``: what it writes goes there; default: where ours goes.

        Raises:
            OSError: it cannot be started.
        """
        child = subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            pass_fds=(line.fileno(),),
            start_new_session=True,
        )
        return cls(child, kill)

    def kill(self) -> None:
        """Kill every process of the group. It is gone only once ``exited()`` and ``gone()`` say so."""
        # Until we have reaped the child, its number cannot belong to anybody else.
        if self._child.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._kill(self.pid, signal.SIGKILL)

    async def exited(self) -> int:
        """Wait until the child itself has ended; what it left behind is killed. Answers its exit code."""
        await self._until_zombie()
        self.kill()
        return self._child.wait()

    async def gone(self) -> None:
        """Wait until nothing of the group runs any more."""
        await self.exited()
        while _is_group_alive(self.pid):  # noqa: ASYNC110 - nothing tells of the end of a grandchild
            await asyncio.sleep(_POLL_S)

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


def _is_group_alive(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    # Zombies answer too, and where nobody reaps them they stay: they hold no memory and no device.
    return any(_group_of(pid) == group and started_at(pid) is not None for pid in psutil.pids())


def _group_of(pid: int) -> int | None:
    try:
        return os.getpgid(pid)
    except ProcessLookupError:
        return None


# ---------------------------------------------------------------- what outlives an agent


@dataclass(frozen=True)
class RunnerRecord:
    """One runner process: (pid, started) names it for ever, a pid alone is used again."""

    pid: int
    started: str
    boot_id: str


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
            # A full disk must not stop the work: the kernel ends runners with their agent anyway.
            _log.warning("cannot note the runners in %s: %s", self._file, error.strerror)

    def sweep(self) -> tuple[int, ...]:
        """Kill what is left of the runners in the file, and nothing else; answers the pids.

        Call it before the first ``add``, and only where no other agent uses the file.
        """
        recorded = self._read()
        swept = []
        for pid in psutil.pids():
            if any(_is_of(pid, record) for record in recorded):
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, signal.SIGKILL)
                    swept.append(pid)
        if swept:
            _log.warning("ended %d processes that an earlier agent left behind: %s", len(swept), swept)
        return tuple(swept)

    def _read(self) -> list[RunnerRecord]:
        try:
            return [RunnerRecord(**values) for values in json.loads(self._file.read_text(encoding="utf-8"))]
        except FileNotFoundError:
            return []
        except (OSError, ValueError, TypeError) as error:
            _log.warning("%s cannot be read, so left-over runners are not looked for: %s", self._file, error)
            return []


def _is_of(pid: int, record: RunnerRecord) -> bool:
    """Whether ``pid`` is the recorded runner itself, or was started by it in its session."""
    if pid == record.pid:
        return started_at(pid) == record.started
    try:
        if os.getsid(pid) != record.pid:
            return False
        return psutil.Process(pid).environ().get(MARK) == record.boot_id
    except (ProcessLookupError, PermissionError, psutil.Error):
        return False

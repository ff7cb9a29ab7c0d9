"""A Redis that fails over, for tests: a primary, a replica, three Sentinels, each a real process to be killed at will.

All are the embedded server's binary: the one that knows how to be a Sentinel too.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from lcq.embedded import find_server
from lcq.leash import leashed
from tests.cluster import free_port

MASTER = "mymaster"
_REPLICATOR = "replicator"
DOWN_AFTER_MS = 600
_START_S = 90.0  # what a machine with far too much to do may take
_ASK_S = 10.0
_LATE_S = 10.0  # after which a failover that has not come is helped on

SAFE = {"appendonly": "yes", "appendfsync": "everysec", "maxmemory-policy": "noeviction"}


@dataclass
class Server:
    """One server process in a folder of its own. ``settings`` are lines of its configuration file.

    ``start()`` after ``kill()`` or ``stop()`` brings it back on the same port with the same files.
    """

    folder: Path
    settings: Mapping[str, str] = field(default_factory=dict)
    port: int = field(default_factory=free_port)
    arguments: tuple[str, ...] = ()
    password: str = ""
    environment: Mapping[str, str] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None

    @property
    def config_file(self) -> Path:
        return self.folder / "server.conf"

    @property
    def url(self) -> str:
        return f"redis://{f':{self.password}@' if self.password else ''}127.0.0.1:{self.port}/0"

    def client(self, *, patience_s: float = _ASK_S) -> redis.Redis:
        """A plain client; use it by ``with``. It gives up soon, and never asks twice: what it asks may be frozen."""
        return redis.Redis.from_url(
            self.url, decode_responses=True, socket_timeout=patience_s, retry=Retry(NoBackoff(), 0)
        )

    def ask(self, *command: str | int) -> object:
        """The answer to one command."""
        with self.client() as client:
            return client.execute_command(*command)

    @property
    def role(self) -> str:
        """``master`` or ``slave``; "" if it does not answer."""
        try:
            with self.client() as client:
                return str(client.info("replication")["role"])
        except (redis.RedisError, OSError):
            return ""

    def write_config(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        lines = {
            "bind": "127.0.0.1",
            "port": str(self.port),
            "dir": f'"{self.folder}"',
            "logfile": f'"{self.folder / "server.log"}"',
            "daemonize": "no",
            **({"requirepass": self.password} if self.password else {}),
        } | dict(self.settings)
        self.config_file.write_text("".join(f"{key} {value}\n" for key, value in lines.items()))

    def start(self, *, wait: bool = True) -> Server:
        """Start the process; returns when it answers PING (or with ``wait=False`` at once)."""
        if not self.config_file.exists():  # a Sentinel and a promoted replica write down there what they learn
            self.write_config()
        command = leashed([str(find_server()), str(self.config_file), *self.arguments])
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, env={**os.environ, **self.environment})
        if wait:
            self._wait_until_it_answers()
        return self

    def _wait_until_it_answers(self) -> None:
        deadline = time.monotonic() + _START_S
        while time.monotonic() < deadline and self.process is not None and self.process.poll() is None:
            with contextlib.suppress(redis.RedisError, OSError), self.client() as client:
                if client.ping():
                    return
            time.sleep(0.02)
        log = self.folder / "server.log"
        said = log.read_text(errors="replace")[-2000:] if log.exists() else "nothing"
        raise AssertionError(f"the server on port {self.port} does not answer; its log says {said}")

    def kill(self, how: signal.Signals = signal.SIGKILL) -> None:
        """Send ``how``; waits for the end where it ends the process."""
        if self.process is not None:
            self.process.send_signal(how)
            if how in (signal.SIGKILL, signal.SIGTERM):
                self.process.wait(_START_S)

    def freeze(self) -> None:
        """It answers nothing more, and its connections stay open."""
        self.kill(signal.SIGSTOP)

    def thaw(self) -> None:
        self.kill(signal.SIGCONT)

    def stop(self) -> None:
        """End it wholly, in whatever state it is."""
        process, self.process = self.process, None
        if process is None or process.poll() is not None:
            return
        process.send_signal(signal.SIGCONT)
        process.terminate()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(_START_S)


def is_rewritten(client: redis.Redis) -> bool:
    """Whether a server has ended writing its log anew, as a snapshot."""
    told = client.info("persistence")
    return not told["aof_rewrite_in_progress"] and not told["aof_rewrite_scheduled"]


@contextlib.contextmanager
def running_server(
    folder: Path, *, password: str = "", environment: Mapping[str, str] | None = None, **settings: str
) -> Iterator[Server]:
    """One server alone, with AOF and without eviction unless ``settings`` (underscores for dashes) say otherwise."""
    named = {key.replace("_", "-"): value for key, value in settings.items()}
    server = Server(folder, SAFE | named, password=password, environment=environment or {})
    try:
        yield server.start()
    finally:
        server.stop()


@dataclass
class Rig:
    """``first`` is the primary to begin with, ``second`` its replica; who is what later, ``primary`` tells."""

    first: Server
    second: Server
    sentinels: tuple[Server, ...]

    @property
    def servers(self) -> tuple[Server, Server]:
        return self.first, self.second

    @property
    def sentinel_addresses(self) -> tuple[str, ...]:
        return tuple(f"127.0.0.1:{sentinel.port}" for sentinel in self.sentinels)

    @property
    def url(self) -> str:
        """The address of whoever is primary, by way of the Sentinels."""
        who = f":{self.first.password}@" if self.first.password else ""
        return f"redis+sentinel://{who}{','.join(self.sentinel_addresses)}/{MASTER}/0"

    @property
    def primary_port(self) -> int:
        """The port that a majority of the living Sentinels names."""
        told: list[int] = []
        for sentinel in self.sentinels:
            with contextlib.suppress(redis.RedisError, OSError), sentinel.client() as client:
                told.append(int(client.sentinel_get_master_addr_by_name(MASTER)[1]))
        return max(set(told), key=told.count) if told else 0

    @property
    def primary(self) -> Server:
        """The server that the Sentinels name; the same object that a test kills."""
        port = self.primary_port
        return next(server for server in self.servers if server.port == port)

    @property
    def replica(self) -> Server:
        primary = self.primary
        return next(server for server in self.servers if server is not primary)

    def fail_over(self) -> Server:
        """Have the Sentinels change primary and replica, both alive; returns the new primary when it is one."""
        before = self.primary
        _wait(self, self._is_told_to_fail_over, "a Sentinel agrees to a failover")
        return self.wait_for_failover(before)

    def _is_told_to_fail_over(self) -> bool:
        try:
            self.sentinels[0].ask("SENTINEL", "FAILOVER", MASTER)
        except redis.ResponseError as error:  # it has not heard yet that the replica is well; or one is under way
            if not str(error).startswith(("NOGOODSLAVE", "INPROG")):
                raise
            return False
        return True

    def kill_primary(self) -> Server:
        """kill -9 the primary; returns the new one when it serves. The old one stays dead until ``start()``."""
        before = self.primary
        before.kill()
        return self.wait_for_failover(before)

    def wait_for_failover(self, before: Server, *, timeout: float = 120.0) -> Server:
        """Return the primary that took over from ``before``, when the Sentinels name it and it calls itself one."""
        after = next(server for server in self.servers if server is not before)
        deadline, late = time.monotonic() + timeout, time.monotonic() + _LATE_S
        while self.primary_port != after.port or after.role != "master":
            if time.monotonic() > deadline:
                raise AssertionError(f"no failover within {timeout:g} s: {self.logs()}")
            if time.monotonic() > late:
                late += _LATE_S
                self._be_content_with_an_old_replica()
            time.sleep(0.02)
        return after

    def _be_content_with_an_old_replica(self) -> None:
        """One whose link was down for ten times DOWN_AFTER_MS is not promoted; a busy test may have taken longer."""
        for sentinel in self.sentinels:
            with contextlib.suppress(redis.RedisError, OSError):
                sentinel.ask("SENTINEL", "SET", MASTER, "down-after-milliseconds", 10 * DOWN_AFTER_MS)

    def wait_in_sync(self, *, timeout: float = 90.0) -> None:
        """Return when the replica has all that the primary had when this was called."""
        with self.primary.client() as client:
            wanted = int(client.info("replication")["master_repl_offset"])
        deadline = time.monotonic() + timeout
        while True:
            with contextlib.suppress(redis.RedisError, OSError), self.replica.client() as client:
                told = client.info("replication")
                if told.get("master_link_status") == "up" and int(told.get("slave_repl_offset", -1)) >= wanted:
                    return
            if time.monotonic() > deadline:
                raise AssertionError(f"the replica is not in sync after {timeout:g} s: {self.logs()}")
            time.sleep(0.02)

    @contextlib.contextmanager
    def replica_cut_off(self) -> Iterator[None]:
        """What the primary acknowledges within the block does not reach the replica, though both live.

        ``kill_primary()`` within the block loses just those writes. The Sentinels promote the replica all the same, if
        that is soon: they leave it out when its link has been down for ten times DOWN_AFTER_MS.
        """
        primary = self.primary
        primary.ask("ACL", "SETUSER", _REPLICATOR, "off")
        primary.ask("CLIENT", "KILL", "USER", _REPLICATOR)
        try:
            yield
        finally:
            with contextlib.suppress(redis.RedisError, OSError):  # it may be dead; then its file has the user on
                primary.ask("ACL", "SETUSER", _REPLICATOR, "on")

    def logs(self) -> str:
        """What all five have written, for a failing test's message."""
        paths = [one.folder / "server.log" for one in (*self.servers, *self.sentinels)]
        return "\n".join(f"--- {path}\n{path.read_text(errors='replace')[-1500:]}" for path in paths if path.exists())

    def stop(self) -> None:
        for one in (*self.sentinels, *self.servers):
            one.stop()


@contextlib.contextmanager
def running_rig(folder: Path, *, password: str = "", **settings: str) -> Iterator[Rig]:
    """A primary, its replica and three Sentinels that know of each other; in about three seconds.

    ``settings`` (underscores for dashes) go to both servers; with ``password`` they ask clients for it.
    """
    named = {key.replace("_", "-"): value for key, value in settings.items()}
    data = SAFE | {
        "masteruser": _REPLICATOR,
        "masterauth": "replicates",
        "user": f"{_REPLICATOR} on >replicates +psync +replconf +ping",
        "repl-diskless-sync": "yes",
        "repl-diskless-sync-delay": "0",
        "repl-timeout": "5",
    }
    first = Server(folder / "first", data | named, password=password)
    second = Server(folder / "second", data | {"replicaof": f"127.0.0.1 {first.port}"} | named, password=password)
    watched = {"sentinel": _sentinel_lines(first)}
    sentinels = tuple(Server(folder / f"sentinel-{n}", watched, arguments=("--sentinel",)) for n in range(3))
    rig = Rig(first, second, sentinels)
    try:
        for server in rig.servers:
            server.start()
        _wait(rig, lambda: _is_followed(first), "the replica follows")
        for sentinel in sentinels:
            sentinel.start().ask("SENTINEL", "DEBUG", *_HASTE)
        _wait(rig, lambda: all(map(_knows_all, sentinels)), "the Sentinels know each other and the replica")
        yield rig
    finally:
        rig.stop()


# What a Sentinel does every second, or ten, it does so often here (milliseconds): tests wait for it. And one that got
# no processor for two seconds does not stand aside for the next thirty (its tilt).
_HASTE = (
    *("info-period", 200, "publish-period", 200, "ask-period", 200, "ping-period", 200),
    *("tilt-trigger", 30_000, "tilt-period", 1000),
)


def _sentinel_lines(primary: Server) -> str:
    lines = [
        f"monitor {MASTER} 127.0.0.1 {primary.port} 2",
        f"down-after-milliseconds {MASTER} {DOWN_AFTER_MS}",
        f"failover-timeout {MASTER} 4000",
        f"parallel-syncs {MASTER} 1",
    ]
    if primary.password:
        lines.append(f"auth-pass {MASTER} {primary.password}")
    return "\nsentinel ".join(lines)


def _is_followed(primary: Server) -> bool:
    with primary.client() as client:
        told = client.info("replication")
    return bool(told["connected_slaves"] == 1 and told["slave0"]["state"] == "online")


def _knows_all(sentinel: Server) -> bool:
    with sentinel.client() as client:
        told = client.sentinel_master(MASTER)
    return bool(
        told["num-other-sentinels"] == 2 and told["num-slaves"] == 1 and told["is_master"] and not told["is_sdown"]
    )


def _wait(rig: Rig, condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + _START_S
    while not _holds(condition):
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {_START_S:g} s: {what}; {rig.logs()}")
        time.sleep(0.02)


def _holds(condition: Callable[[], bool]) -> bool:
    try:
        return condition()
    except (redis.TimeoutError, redis.ConnectionError, OSError):  # it is too busy to answer
        return False

"""The storm: a whole cluster at work, and everything that can happen to it, at random. Then it heals, and is judged."""

from __future__ import annotations

import contextlib
import os
import random
import resource
import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import psutil
import redis

from lcq.client import Client
from lcq.config import DistributedConfig
from lcq.embedded import PrivateServer
from lcq.errors import LcqError
from lcq.ids import new_id
from lcq.models import TERMINAL_STATES, Event, TaskStatus
from lcq.state.keys import Keys
from lcq.state.records import task_record
from tests.audit import EXPIRING, Ledger
from tests.chaos.crowd import QUEUES, Customer, Notes, Operator, Person, Workshop
from tests.chaos.history import Recording, Stretch, Verdict, check
from tests.chaos.recorder import EventRecorder, snapshot
from tests.cluster import Cluster, free_port
from tests.forked import living
from tests.proxy import Proxy
from tests.redis_rig import MASTER, Rig, Server

SCHEDULERS = ("scheduler-1", "scheduler-2")
AGENTS = ("node-1", "node-2", "node-3", "node-4")
LEASE_S = 3.0
FACE = "127.0.0.2"
"""Where agents find the schedulers: proxies stand there, at the ports of each scheduler's own sockets."""

# "127.1" is 127.0.0.1, spelled so that it counts as no loopback address: then peers are told scheduler_host.
ENVIRONMENT = {
    "PYTHONFAULTHANDLER": "1",  # where an abort of a library happened
    "LCQ_ZEROMQ__BIND": "127.1",
    "LCQ_ZEROMQ__TRUSTED_NETWORK": "1",
    "LCQ_SCHEDULER_HOST": FACE,
    "LCQ_QUEUES": '[{"name": "cpu-intensive", "kind": "cpu"}, {"name": "cpu-light", "kind": "cpu", "port_offset": 1}]',
    "LCQ_AGENT__NO_PROGRESS_S": "2",
    "LCQ_AGENT__POLL_S": "1",
    "LCQ_RETRIES__MAX_S": "0.5",
    "LCQ_LEASES__LEASE_S": str(LEASE_S),
}
KEYS = Keys("{lcq}")
NO_REDIS = 3  # the exit code of a scheduler that finds none when it starts
_TICK_S = 0.05

Undo = Callable[[], bool]
"""Ends a fault; answers False where it has to be asked again later."""


class Store(Protocol):
    """The Redis of a storm, and what can happen to it."""

    @property
    def url(self) -> str: ...

    def connect(self) -> redis.Redis:
        """A client of whoever is the primary now."""

    def faults(self, rng: random.Random) -> Mapping[str, tuple[int, Callable[[], Undo]]]:
        """By name: how often it is chosen, and what does it and answers how it is undone."""

    def ensure_running(self) -> None: ...

    @property
    def lossy(self) -> Sequence[tuple[float, float]]:
        """When, by the monotonic clock, what clients were told may have been of writes that were lost."""


@dataclass
class LoneStore:
    """One private server, under its watch."""

    server: PrivateServer

    @property
    def url(self) -> str:
        return self.server.url

    def connect(self) -> redis.Redis:
        return redis.Redis.from_url(self.server.url, decode_responses=True, socket_timeout=5)

    def faults(self, rng: random.Random) -> Mapping[str, tuple[int, Callable[[], Undo]]]:
        return {"redis kill -9": (2, self._kill), "redis frozen": (1, lambda: self._freeze(rng.uniform(0.2, 2.0)))}

    def _kill(self) -> Undo:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.server.pid, signal.SIGKILL)
        return lambda: True  # its watch starts it again

    def _freeze(self, seconds: float) -> Undo:
        return frozen(self.server.pid, seconds)

    def ensure_running(self) -> None:
        self.server.ensure_running()

    @property
    def lossy(self) -> Sequence[tuple[float, float]]:
        return ()


class Reigns(threading.Thread):
    """Watches who is primary, and notes each time in which what was acknowledged may not have outlived a failover.

    Such a time lasts from the last moment at which one primary had its replica, until one has again and its history is
    another (its replication id: a new primary takes a new one). Guessed lengths would be wrong on a busy machine.
    """

    def __init__(self, rig: Rig) -> None:
        super().__init__(name="reigns", daemon=True)
        self.lossy: list[tuple[float, float]] = []
        self._rig = rig
        self._ended = threading.Event()

    def end(self) -> None:
        self._ended.set()
        self.join(20)

    def run(self) -> None:
        known, since = "", time.monotonic()
        while not self._ended.wait(_TICK_S):
            began = time.monotonic()
            history = self._history()
            if not history:
                continue
            if known and history != known:
                # Answers under way come a little later; of the last ones before, the replica may not have heard.
                self.lossy.append((since - 1, time.monotonic() + 3))
            known, since = history, began

    def _history(self) -> str:
        """The replication id of the one primary whose replica follows it; "" where that is not so."""
        told = []
        for server in self._rig.servers:
            try:
                with contextlib.closing(server.client()) as client:
                    told.append(client.info("replication"))
            except (redis.RedisError, OSError):
                return ""
        primaries = [one for one in told if one["role"] == "master"]
        follows = any(one["role"] == "slave" and one["master_link_status"] == "up" for one in told)
        return str(primaries[0]["master_replid"]) if len(primaries) == 1 and follows else ""


class RigStore:
    """A primary with a replica and three Sentinels: ``with RigStore(rig) as store``."""

    def __init__(self, rig: Rig) -> None:
        self.rig = rig
        self._reigns = Reigns(rig)

    def __enter__(self) -> RigStore:
        self._reigns.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._reigns.end()

    @property
    def lossy(self) -> Sequence[tuple[float, float]]:
        return self._reigns.lossy

    @property
    def url(self) -> str:
        return self.rig.url

    def connect(self) -> redis.Redis:
        try:
            return self.rig.primary.client()
        except StopIteration:
            raise redis.ConnectionError("no Sentinel names a primary") from None

    def faults(self, rng: random.Random) -> Mapping[str, tuple[int, Callable[[], Undo]]]:
        return {
            "redis primary kill -9": (2, lambda: self._kill_primary(rng.uniform(0, 3))),
            "redis primary kill -9, replica behind": (2, lambda: self._lose_writes(rng.uniform(0.2, 1.0))),
            "redis primary frozen": (2, lambda: self._freeze_primary(rng.uniform(0.2, 3))),
            "redis failover": (1, self._fail_over),
            "redis replica kill -9": (1, lambda: self._kill(self.rig.replica, rng.uniform(0, 2))),
            "sentinel kill -9": (1, lambda: self._kill(rng.choice(self.rig.sentinels), rng.uniform(0, 2))),
        }

    def _kill(self, server: Server, pause_s: float) -> Undo:
        server.kill()
        return after(pause_s, lambda: server.start(wait=False))

    def _kill_primary(self, pause_s: float) -> Undo:
        """Its place is taken before it comes back, as that of a host that has to boot."""
        dead, began = self.rig.primary, time.monotonic()
        dead.kill()

        def start_again() -> bool:
            if self.rig.primary_port == dead.port or time.monotonic() < began + pause_s:
                return False
            dead.start(wait=False)
            return True

        return start_again

    def _lose_writes(self, seconds: float) -> Undo:
        with self.rig.replica_cut_off():
            time.sleep(seconds)
            return self._kill_primary(0)

    def _freeze_primary(self, seconds: float) -> Undo:
        """Longer than the Sentinels' patience: it wakes up as one of two primaries."""
        assert self.rig.primary.process is not None
        return frozen(self.rig.primary.process.pid, seconds)

    def _fail_over(self) -> Undo:
        with contextlib.suppress(redis.RedisError, OSError):
            self.rig.sentinels[0].ask("SENTINEL", "FAILOVER", MASTER)
        return after(3, lambda: None)

    def ensure_running(self) -> None:
        for server in (*self.rig.servers, *self.rig.sentinels):
            if server.process is None or server.process.poll() is not None:
                server.start()
        self.rig.wait_in_sync(timeout=60)


def after(seconds: float, undo: Callable[[], object]) -> Undo:
    """``undo``, not before so many seconds have passed."""
    due = time.monotonic() + seconds

    def end() -> bool:
        if time.monotonic() < due:
            return False
        undo()
        return True

    return end


def send(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def frozen(pid: int, seconds: float) -> Undo:
    send(pid, signal.SIGSTOP)
    return after(seconds, lambda: send(pid, signal.SIGCONT))


class Link:
    """Everything between the agents and one scheduler: a proxy before each socket that it listens at."""

    def __init__(self, control_port: int) -> None:
        self._control_port = control_port
        self._proxies: dict[int, Proxy] = {}
        self._of: int | None = None  # the process whose sockets these are
        self._delay_s = 0.0
        self._is_cut = False
        self._reach(control_port)

    def follow(self, scheduler: subprocess.Popen[bytes]) -> None:
        """Stand before the sockets of this process, once it has them all."""
        if scheduler.pid == self._of:
            return
        try:
            listening = {
                one.laddr.port
                for one in psutil.Process(scheduler.pid).net_connections("tcp")
                if one.status == psutil.CONN_LISTEN
            }
        except psutil.Error:
            return
        if len(listening) < 4:  # control, two rings, lifeline
            return
        for port in set(self._proxies) - listening - {self._control_port}:
            self._proxies.pop(port).__exit__()
        for port in listening - set(self._proxies):
            self._reach(port)
        self._of = scheduler.pid

    def _reach(self, port: int) -> None:
        with contextlib.suppress(OSError):  # somebody has that port at our address: then that socket is cut off
            proxy = Proxy(port, port=port, listen=FACE)
            proxy.__enter__()
            proxy.delay_s = self._delay_s
            if self._is_cut:
                proxy.freeze()
            self._proxies[port] = proxy

    def cut(self) -> None:
        """Let nothing pass, and tell nobody."""
        self._is_cut = True
        for proxy in self._proxies.values():
            proxy.freeze()

    def mend(self) -> None:
        self._is_cut = False
        for proxy in self._proxies.values():
            proxy.thaw()

    def reset(self) -> None:
        for proxy in self._proxies.values():
            proxy.drop()

    def slow(self, seconds: float) -> None:
        self._delay_s = seconds
        for proxy in self._proxies.values():
            proxy.delay_s = seconds

    def close(self) -> None:
        for proxy in self._proxies.values():
            proxy.__exit__()


@dataclass(frozen=True)
class Size:
    """How much one process takes."""

    rss_mib: float
    files: int

    @classmethod
    def of(cls, pid: int) -> Size:
        process = psutil.Process(pid)
        return cls(process.memory_info().rss / 2**20, process.num_fds())


@dataclass
class Report:
    """What became of a storm."""

    seed: int
    seconds: float
    faults: Counter[str]
    acts: Counter[str]
    submitted: int
    unsure: int
    repeated: int
    refused: Counter[str]
    restarts: Counter[str]  # of processes that ended without being told to
    verdict: Verdict
    grown: list[str]  # what did not come back to where it was
    sizes: Mapping[str, tuple[Size, Size]]  # before and after
    keys: tuple[int, int]  # before any task, and when all are forgotten
    healed_s: float

    def __str__(self) -> str:
        def told(counts: Mapping[str, int]) -> str:
            return ", ".join(f"{name} {number}" for name, number in sorted(counts.items())) or "none"

        sizes = "; ".join(
            f"{name} {was.rss_mib:.0f} → {now.rss_mib:.0f} MiB, {was.files} → {now.files} files"
            for name, (was, now) in self.sizes.items()
        )
        return "\n".join(
            [
                f"storm of {self.seconds:.0f} s, LCQ_STORM_SEED={self.seed}",
                f"  faults ({self.faults.total()}): {told(self.faults)}",
                f"  operator: {told(self.acts)}",
                f"  clients: {self.submitted} tasks, {self.repeated} submitted again, {self.unsure} times unsure",
                f"  refused: {told(self.refused)}",
                f"  ends: {told(self.verdict.ends)}",
                f"  recoveries: {told(self.verdict.recoveries)}; late results {self.verdict.late}",
                f"  failovers took back {self.verdict.undone} events, of {self.verdict.excused} tasks that were seen",
                f"  ended by themselves: {told(self.restarts)}",
                f"  healed in {self.healed_s:.1f} s; keys {self.keys[0]} → {self.keys[1]}; {sizes}",
                f"  not back to where it was: {'; '.join(self.grown) or 'nothing'}",
                f"  verdict: {self.verdict}",
            ]
        )


def _together(sizes: Iterable[Size]) -> Size:
    listed = list(sizes)
    return Size(sum(size.rss_mib for size in listed), sum(size.files for size in listed))


def _bytes_of(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _size_now(pid: int) -> Size | None:
    try:
        return Size.of(pid)
    except psutil.Error:
        return None


class Storm:
    """``with Storm(…) as storm: storm.rage(seconds); report = storm.judge()``."""

    def __init__(
        self,
        store: Store,
        folder: Path,
        seed: int,
        *,
        customers: int = 2,
        crowd: int = 30,
        is_forked: bool = False,
        **environment: str,
    ) -> None:
        self.seed = seed
        self.notes = Notes()
        self._rng = random.Random(seed)
        self._store = store
        self._folder = folder
        self._cluster = Cluster(store.url, folder / "cluster", {**ENVIRONMENT, **environment}, is_forked=is_forked)
        self._ports = {name: free_port() for name in SCHEDULERS}
        self._links: dict[str, Link] = {}
        self._workshop = Workshop(folder / "work", random.Random(self._rng.random()))
        self._recorder = EventRecorder(store.connect)
        self._people: list[Person] = []
        self._customers, self._crowd = customers, crowd
        self._undo: list[tuple[str, Undo]] = []
        self._busy: set[str] = set()
        self._down: set[str] = set()
        self._faults: Counter[str] = Counter()
        self._restarts: Counter[str] = Counter()
        self._last_words: dict[str, str] = {}  # the end of the log of the first that ended so
        self._quiet: list[Stretch] = []
        self._seconds = 0.0
        self._stack = contextlib.ExitStack()

    # ------------------------------------------------------------ its life

    def __enter__(self) -> Storm:
        with contextlib.ExitStack() as stack:
            stack.enter_context(self._recorder)
            for name, port in self._ports.items():
                self._links[name] = Link(port)
                stack.callback(self._links[name].close)
            stack.callback(self._cluster.stop)
            stack.callback(self._end_all)
            for name in (*SCHEDULERS, *AGENTS):
                self._start(name)
            self._wait(self._is_whole, "the cluster is whole", 300)
            self._keys_before = self._lasting_keys()
            self._sizes_before = {name: Size.of(self._pid(name)) for name in (*SCHEDULERS, *AGENTS)}
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _start(self, name: str) -> None:
        if name in SCHEDULERS:
            self._cluster.start_scheduler(name, port=self._ports[name], wait=False)
        else:
            # Each begins at another scheduler, as agents that were set up at different times do.
            first = SCHEDULERS[AGENTS.index(name) % len(SCHEDULERS)]
            self._cluster.start_agent(name, slots=1, host=FACE, port=self._ports[first], wait=False)

    def _pid(self, name: str) -> int:
        return self._cluster.processes[name].pid

    def _is_whole(self) -> bool:
        """Whether all processes are there, and all nodes take work."""
        self._keep_up()
        try:
            with contextlib.closing(self._store.connect()) as eye:
                online = [eye.hget(KEYS.node(name), "status") == "online" for name in AGENTS]
                told = eye.hlen(KEYS.schedulers)
        except (redis.RedisError, OSError):
            return False
        return all(online) and told >= len(SCHEDULERS)

    def _keep_up(self) -> None:
        """What an init system does: whatever has ended is started again. What ended by itself is counted."""
        for name, process in list(self._cluster.processes.items()):
            code = process.poll()
            if code is not None and name not in self._down:
                kind = f"{name.partition('-')[0]} with code {code}"
                self._restarts[kind] += 1
                self._last_words.setdefault(kind, self._tail_of(self._folder / "cluster" / f"{name}.log"))
                self._start(name)
        for name, link in self._links.items():
            link.follow(self._cluster.processes[name])
        for trouble in self.notes.troubles:
            raise trouble

    def _wait(self, condition: Callable[[], bool], what: str, seconds: float) -> float:
        began = time.monotonic()
        while not condition():
            if time.monotonic() - began > seconds:
                raise AssertionError(
                    f"waited {seconds:g} s (LCQ_STORM_SEED={self.seed}): {what}\n{self.tail_of_logs()}"
                )
            time.sleep(_TICK_S)
        return time.monotonic() - began

    def tail_of_logs(self) -> str:
        """The end of what each process wrote."""
        return "\n".join(map(self._tail_of, sorted((self._folder / "cluster").glob("*.log"))))

    @staticmethod
    def _tail_of(log: Path) -> str:
        return f"--- {log.name}\n{log.read_text(errors='replace')[-1500:]}" if log.exists() else f"--- {log.name}: none"

    # ------------------------------------------------------------ the people

    def _gather(self, *, pause_s: float) -> None:
        ports = list(self._ports.values())
        for number in range(self._customers):
            rng = random.Random(self._rng.random())
            customer = Customer(f"customer-{number}", ports, self.notes, rng, self._workshop, crowd=self._crowd)
            self._people.append(customer)
        self._people.append(
            Operator("operator", ports, self.notes, random.Random(self._rng.random()), AGENTS, pause_s=pause_s)
        )
        for person in self._people:
            person.start()

    def _send_home(self, people: Sequence[Person]) -> None:
        for person in people:
            person.leave()
        for person in people:
            person.join(60)
            assert not person.is_alive(), f"{person.name} still waits for an answer"
        self._people = [person for person in self._people if person not in people]

    # ------------------------------------------------------------ the weather

    def rage(self, seconds: float, *, calm_s: float = 0.0, every_s: tuple[float, float] = (0.1, 1.0)) -> None:
        """Do something terrible every now and then, for so long, while people work; then heal.

        ``calm_s``: how long people go on working after that, in peace: then nobody may be taken for lost.
        """
        self._gather(pause_s=1.0)
        until = time.monotonic() + seconds
        self._seconds += seconds
        next_fault = time.monotonic() + self._rng.uniform(*every_s)
        while time.monotonic() < until:
            self._end_what_is_due()
            self._keep_up()
            if time.monotonic() >= next_fault:
                self._strike()
                next_fault = time.monotonic() + self._rng.uniform(*every_s)
            time.sleep(_TICK_S)
        self._send_home([person for person in self._people if isinstance(person, Operator)])
        self.heal()
        if calm_s:
            self.calm(calm_s)
        self._send_home(self._people)
        if self._store.lossy:
            self._reconcile()

    def _reconcile(self) -> None:
        """After failovers, clients look once more at all they ever submitted, and submit again what is unknown."""
        rng = random.Random(self._rng.random())
        customer = Customer("the last look", list(self._ports.values()), self.notes, rng, self._workshop, crowd=0)
        forgotten = {event.fields["id"] for event in self._recorder.events if event.move == "forget_tasks"}
        customer.look_at_all(but=forgotten)
        self._people.append(customer)
        customer.start()
        self._wait(lambda: customer.has_seen_all, "clients look at all they submitted", 300)
        self._send_home(self._people)

    def heal(self) -> None:
        """Undo every fault, and return when the cluster is whole again."""
        while self._undo:
            self._end_what_is_due()
            self._keep_up()
            time.sleep(_TICK_S)
        self._store.ensure_running()
        self._wait(self._is_made_whole, "the cluster heals", 300)

    def _is_made_whole(self) -> bool:
        """Take back what the operator left behind, then look."""
        self._keep_up()
        try:
            with contextlib.closing(self._store.connect()) as eye:
                drained = [name for name in AGENTS if eye.hexists(KEYS.node(name), "wish")]
                paused = [name for name in QUEUES if eye.hexists(KEYS.queue(name), "paused")]
        except (redis.RedisError, OSError):
            return False
        self._undo_by_hand(drained, paused)
        return self._is_whole()

    def _undo_by_hand(self, drained: Sequence[str], paused: Sequence[str]) -> None:
        if not drained and not paused:
            return
        port = self._ports[SCHEDULERS[0]]
        with Client(DistributedConfig(), scheduler=f"127.0.0.1:{port}", timeout_s=10) as client:
            for name in drained:
                with contextlib.suppress(LcqError):
                    client.activate(name)
            for name in paused:
                with contextlib.suppress(LcqError):
                    client.resume(name)

    def calm(self, seconds: float) -> None:
        """Let time pass without a fault, neither in the cluster nor in the work, and remember that it was so."""
        self._workshop.is_at_peace = True
        self._wait(self._have_ended(new_id()), "what was submitted in the storm ends", 600)
        self._recorder.catch_up()
        before = self._recorder.last_id
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            self._keep_up()
            time.sleep(_TICK_S)
        self._recorder.catch_up()
        self._quiet.append(Stretch(before, self._recorder.last_id))
        self._workshop.is_at_peace = False

    def _have_ended(self, made_before: str) -> Callable[[], bool]:
        """Whether none of the tasks of before still waits or runs."""

        def condition() -> bool:
            self._keep_up()
            try:
                with contextlib.closing(self._store.connect()) as eye:
                    going = [KEYS.by_status(one) for one in TaskStatus if one not in TERMINAL_STATES]
                    return all(task > made_before for name in going for task in eye.zrange(name, 0, -1))
            except (redis.RedisError, OSError):
                return False

        return condition

    def _end_what_is_due(self) -> None:
        self._undo = [(subject, undo) for subject, undo in self._undo if not self._has_ended(subject, undo)]

    def _has_ended(self, subject: str, undo: Undo) -> bool:
        if not undo():
            return False
        self._busy.discard(subject)
        return True

    def _strike(self) -> None:
        weights = {name: weight for name, (weight, _, _) in self._known_faults().items()}
        (name,) = self._rng.choices(tuple(weights), weights=list(weights.values()))
        _, subjects, strike = self._known_faults()[name]
        free = [subject for subject in subjects if subject not in self._busy]
        if not free:
            return
        subject = self._rng.choice(free)
        try:
            undo = strike(subject)
        except (StopIteration, redis.RedisError, OSError):  # Redis is just between two primaries
            return
        if undo is not None:
            self._faults[name] += 1
            self._busy.add(subject)
            self._undo.append((subject, undo))

    def _known_faults(self) -> dict[str, tuple[int, Sequence[str], Callable[[str], Undo | None]]]:
        """By name: how often, to whom, and what."""
        between = self._rng.uniform
        own = {
            "runner kill -9": (4, AGENTS, self._kill_runner),
            "runner frozen": (2, AGENTS, self._freeze_runner),
            "agent kill -9": (4, AGENTS, lambda name: self._end(name, signal.SIGKILL)),
            "agent frozen": (3, AGENTS, lambda name: frozen(self._pid(name), between(0.3, 2 * LEASE_S))),
            "agent ended in order": (2, AGENTS, lambda name: self._end(name, signal.SIGTERM)),
            "agent's disk full": (2, AGENTS, self._fill_disk),
            "scheduler kill -9": (3, SCHEDULERS, lambda name: self._end(name, signal.SIGKILL)),
            "scheduler frozen": (2, SCHEDULERS, lambda name: frozen(self._pid(name), between(0.3, 1.5 * LEASE_S))),
            "scheduler ended in order": (1, SCHEDULERS, lambda name: self._end(name, signal.SIGTERM)),
            "link cut silently": (3, ["link-1", "link-2"], self._cut),
            "link reset": (2, ["link-1", "link-2"], self._reset),
            "link slow": (2, ["link-1", "link-2"], self._slow),
        }
        of_store = {
            name: (weight, ["redis"], lambda _, strike=strike: strike())
            for name, (weight, strike) in self._store.faults(self._rng).items()
        }
        return {**own, **of_store}

    def _runners(self, agent: str) -> list[psutil.Process]:
        try:
            return self._cluster.runners(agent)
        except psutil.Error:
            return []

    def _kill_runner(self, agent: str) -> Undo | None:
        for runner in self._runners(agent)[:1]:
            with contextlib.suppress(psutil.Error):
                runner.kill()
                return after(0, lambda: None)
        return None

    def _freeze_runner(self, agent: str) -> Undo | None:
        for runner in self._runners(agent)[:1]:
            return frozen(runner.pid, self._rng.uniform(0.2, 4.0))
        return None

    def _end(self, name: str, how: signal.Signals) -> Undo:
        """End a process; some time after its end it is started again."""
        process = self._cluster.processes[name]
        self._down.add(name)
        send(process.pid, how)
        pause_s = self._rng.choice([0.0, 0.0, self._rng.uniform(0, 2)])
        due = time.monotonic() + pause_s

        def start_again() -> bool:
            if process.poll() is None or time.monotonic() < due:
                return False
            self._down.discard(name)
            self._start(name)
            return True

        return start_again

    def _fill_disk(self, agent: str) -> Undo | None:
        """Let no file that this agent and its runner write grow: the kernel refuses every write, as on a full disk."""
        try:
            whole = [psutil.Process(self._pid(agent)), *psutil.Process(self._pid(agent)).children(recursive=True)]
        except psutil.Error:
            return None

        def limit(process: psutil.Process, size: int) -> None:
            with contextlib.suppress(psutil.Error, OSError):
                process.rlimit(psutil.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))

        for process in whole:
            limit(process, 0)

        def give_room() -> None:
            with contextlib.suppress(psutil.Error):
                children = whole[0].children(recursive=True)  # those started meanwhile have inherited the limit
                for process in {*whole, *children}:
                    limit(process, resource.RLIM_INFINITY)

        return after(self._rng.uniform(0.3, 2.0), give_room)

    def _link(self, name: str) -> Link:
        return self._links[SCHEDULERS[int(name[-1]) - 1]]

    def _cut(self, name: str) -> Undo:
        link = self._link(name)
        link.cut()
        return after(self._rng.uniform(0.3, 1.5 * LEASE_S), link.mend)

    def _reset(self, name: str) -> Undo:
        self._link(name).reset()
        return after(0, lambda: None)

    def _slow(self, name: str) -> Undo:
        link = self._link(name)
        link.slow(self._rng.uniform(0.02, 0.3))
        return after(self._rng.uniform(1, 5), lambda: link.slow(0.0))

    # ------------------------------------------------------------ the judgement

    def sample(self) -> Mapping[str, float]:
        """How much there is of everything that must not grow for ever; empty while Redis does not answer."""
        home = self._folder / "cluster"
        own = [path for path in home.rglob("*") if path.is_file() and path.suffix != ".log"]  # the logs are ours
        found = {"files": float(len(own)), "file bytes": float(sum(_bytes_of(path) for path in own))}
        for kind, names in (("scheduler", SCHEDULERS), ("agent", AGENTS)):
            sizes = [size for name in names if (size := _size_now(self._pid(name))) is not None]
            found |= {f"{kind} MiB": max((size.rss_mib for size in sizes), default=0.0)}
            found |= {f"{kind} open files": float(max((size.files for size in sizes), default=0))}
        try:
            with contextlib.closing(self._store.connect()) as eye:
                found["keys"] = float(eye.dbsize())
                found["redis MiB"] = float(eye.info("memory")["used_memory"]) / 2**20
                found["redis connections"] = float(eye.info("clients")["connected_clients"])
                found["events"] = float(eye.xlen(KEYS.events))
        except (redis.RedisError, OSError):
            return {}
        return found

    def judge(self, *, patience_s: float = 600) -> Report:
        """Wait until every task has come to its end, hold the history against the promises, and see what is left."""
        try:
            healed_s = self._wait(self._is_done, "every task comes to its end", patience_s)
            # A result that had to wait for its verdict gets its name when its agent hears of that.
            self._wait(self._is_settled, f"nothing is left on disks: {self._left_files()}", 300)
        except AssertionError as late:
            verdict = check(self._recording())
            raise AssertionError(f"{late}\n{verdict}") from None
        verdict = check(self._recording())
        keys = (len(self._keys_before), len(self._forget_everything()))
        self._settle_sizes()
        sizes = self._sizes()
        report = Report(
            seed=self.seed,
            seconds=self._seconds,
            faults=self._faults,
            acts=self.notes.acts,
            submitted=len(self.notes.submissions),
            unsure=self.notes.unsure,
            repeated=self.notes.repeated,
            refused=self.notes.refused,
            restarts=self._restarts,
            verdict=verdict,
            grown=[*self._grown(), *self._new_keys(), *self._ended_by_themselves()],
            sizes=sizes,
            keys=keys,
            healed_s=healed_s,
        )
        self._end_all()
        self._cluster.stop()
        report.grown += [f"process {pid} still runs: {words}" for pid, words in self._left_processes().items()]
        return report

    def _is_done(self) -> bool:
        self._keep_up()
        with contextlib.suppress(redis.RedisError, OSError), contextlib.closing(self._store.connect()) as eye:
            counts = eye.hgetall(KEYS.counts)
            return not any(int(counts.get(status, 0)) for status in TaskStatus if status not in TERMINAL_STATES)
        return False

    def _recording(self) -> Recording:
        events, ledger, mortal = self._wait_for_one_moment()
        assert not self._recorder.trimmed, self._recorder.trimmed
        completed = [
            task_record(fields) for fields in ledger.tasks.values() if fields["status"] == TaskStatus.COMPLETED
        ]
        artifacts = [artifact for record in completed if (artifact := self._workshop.look_at(record)) is not None]
        artifacts += self.notes.artifacts
        return Recording(
            events=events,
            undone=tuple(self._recorder.undone),
            submissions=tuple(self.notes.submissions.values()),
            in_doubt=self.notes.seen_within(self._store.lossy),
            seen=self.notes.all_seen(),
            artifacts=tuple(artifacts),
            ledger=ledger,
            mortal=mortal,
            quiet=tuple(self._quiet),
        )

    def _wait_for_one_moment(self) -> tuple[tuple[Event, ...], Ledger, Mapping[str, bool]]:
        """Events and keys that belong together: what is read while a task is forgotten is of two moments."""
        until = time.monotonic() + 60
        while True:
            self._recorder.catch_up()
            before = self._recorder.last_id
            with contextlib.closing(self._store.connect()) as eye:
                ledger, mortal = snapshot(eye)
            self._recorder.catch_up()
            if self._recorder.last_id == before or time.monotonic() > until:
                return tuple(self._recorder.events), ledger, mortal
            time.sleep(_TICK_S)

    def _left_files(self) -> list[str]:
        """Outcomes in spools, and results under other than their final names."""
        homes = self._folder / "cluster" / "agents"
        places = [*homes.glob("*/spool/*"), *homes.glob("*/*.tmp"), *(self._folder / "work").rglob("*lcq-*")]
        return [str(path.relative_to(self._folder)) for path in places]

    def _is_settled(self) -> bool:
        self._keep_up()
        return not self._left_files()

    def _lasting_keys(self) -> set[str]:
        with contextlib.closing(self._store.connect()) as eye:
            names = {name.removeprefix("{lcq}:") for name in eye.scan_iter(count=1000)}
        return {name for name in names if not name.startswith(EXPIRING)}

    def _forget_everything(self) -> set[str]:
        """Let the time pass after which finished tasks are forgotten; answers the keys that are left."""
        with contextlib.closing(self._store.connect()) as eye:
            for task in eye.zrange(KEYS.root + ":expiry", 0, -1):
                eye.zadd(KEYS.root + ":expiry", {task: 1}, xx=True)
            self._wait(lambda: not eye.exists(KEYS.ids), "all finished tasks are forgotten", 300)
        return self._lasting_keys()

    def _new_keys(self) -> Iterator[str]:
        always = {"acts", "totals", "counts", "events", "schedulers", "failover", "costs", "alerts"}
        for name in sorted(self._lasting_keys() - self._keys_before - always):
            if not name.startswith(("cost:", "memory:")):  # what has been learned stays; by how many keys is bounded
                yield f"the key {name} is left"

    def _sizes(self) -> Mapping[str, tuple[Size, Size]]:
        """By kind of process, how much all of them take together: before and now. Who serves whom is chance."""
        kinds = {"schedulers": SCHEDULERS, "agents": AGENTS}
        return {
            kind: (_together(self._sizes_before[name] for name in names), _together(map(self._size, names)))
            for kind, names in kinds.items()
        }

    def _size(self, name: str) -> Size:
        return Size.of(self._pid(name))

    def _settle_sizes(self) -> None:
        """Give dead connections the time after which they are noticed to be that."""
        until = time.monotonic() + 30
        while list(self._grown()) and time.monotonic() < until:
            time.sleep(0.5)

    def _grown(self) -> Iterator[str]:
        for kind, (was, now) in self._sizes().items():
            if now.files > was.files + 32:  # idle connections to Redis are kept, as many as were needed at once
                yield f"the {kind} have {now.files} files open, {was.files} before"
            if now.rss_mib > 1.5 * was.rss_mib + 64:
                yield f"the {kind} take {now.rss_mib:.0f} MiB, {was.rss_mib:.0f} before"

    def _ended_by_themselves(self) -> Iterator[str]:
        """A scheduler may refuse to start while Redis is away; nothing else has a reason to end."""
        for what, times in self._restarts.items():
            if what != f"scheduler with code {NO_REDIS}":
                yield f"a {what} ended by itself, {times} times; its last words:\n{self._last_words[what]}"

    def _left_processes(self) -> dict[int, str]:
        left = dict.fromkeys(living(), "a scheduler or an agent")
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.environ().get("LCQ_DATA_DIR") == str(self._folder / "cluster"):
                    left[process.pid] = " ".join(process.cmdline())
        return left

    def _end_all(self) -> None:
        """Whatever is frozen or cut goes on, so that everything can be ended."""
        for person in self._people:
            person.leave()
        self._store.ensure_running()
        for process in self._cluster.processes.values():
            send(process.pid, signal.SIGCONT)
            self._down.update(self._cluster.processes)
            with contextlib.suppress(psutil.Error):
                for child in psutil.Process(process.pid).children(recursive=True):
                    send(child.pid, signal.SIGCONT)
        for link in self._links.values():
            link.mend()

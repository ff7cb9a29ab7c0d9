"""What the console costs and how soon it answers, beside its budgets: ``lcq console`` on a real pty, 120x40.

    python -m benchmarks.console [--tasks N] [--million] [--rate N] [--state FOLDER] [--seconds S] [--only PART ...]

A private server with its log on, a scheduler, and N tasks in it, submitted by the real scripts; then so many changes a
second by the same (``benchmarks.changes``). The console runs as the command, on a pty that is read here: its bytes are
counted, its processor time and memory are those that /proc tells. ``--state`` keeps the tasks for the next time: the
whole takes some five minutes then. A folder with more tasks than N is good too, so use one for 100,000 and another for
a million. At the end all budgets are told once more, each kept or missed; what failed is told, and the rest goes on.

On a machine that does other things too, what takes time tells of those as well; so beside each such figure stands
what is left of it without the time in which the console was ready to run and another had the core
(/proc/PID/schedstat). What takes processor time is about right everywhere.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import json
import os
import platform
import pty
import re
import select
import signal
import statistics
import subprocess
import sys
import tempfile
import termios
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from lcq.embedded import PrivateServer
from tests.cluster import Cluster, running_cluster
from tui.lateness import VARIABLE

SIZE = (40, 120)
SLOW_BYTES_S = 30_000
KEYS = 100
STARTS = 7
PARTS = ("start", "idle", "busy", "late", "slow")
_REST_S = 12.0  # from then on nothing has stirred for long enough to be called idle
_PATIENCE_S = 120.0  # what runs at the lowest priority may be put off for long
_CURSOR = re.compile(rb"\x1b\[(\d+);1H(?:\x1b\[[\d;]*m)*>[ *]")
_WHAT_ARE_YOU, _A_TERMINAL = b"\x1b[c", b"\x1b[?62;22c"  # one with colours, and without pixels
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass
class Spent:
    """What a process has used up to a moment."""

    at: float
    cpu_s: float
    waited_s: float  # ready to run, without a core: of its main thread
    sent: int  # bytes to the terminal


@dataclass
class Figure:
    """One line of the table."""

    name: str
    value: float
    unit: str
    budget: float | None = None
    note: str = ""

    own: float | None = None
    """What is left of it without the time in which another had the core; None: it is no such time."""

    @property
    def verdict(self) -> str:
        """Whether its budget was kept: by itself, or by what the console alone took of the time."""
        if self.budget is None:
            return ""
        if self.value <= self.budget:
            return "kept"
        return "MISSED" if self.own is None or self.own > self.budget else "MISSED (its own part keeps it)"

    def __str__(self) -> str:
        budget = "" if self.budget is None else f"{self.budget:g}"
        value = f"{self.value:,.0f}" if self.value >= 1000 else f"{self.value:.3g}"
        own = "" if self.own is None else f" (own {self.own:.3g})"
        return f"| {self.name} | {value} {self.unit}{own} | {budget} | {self.verdict} | {self.note} |"


@dataclass
class Terminal:
    """A console on a pty. Whatever it sends is read, at most ``bytes_s`` of it a second where that is set."""

    command: Sequence[str]
    environment: dict[str, str]
    bytes_s: int = 0
    seen: bytearray = field(default_factory=bytearray)
    sent: int = 0

    def __enter__(self) -> Terminal:
        ours, theirs = pty.openpty()
        termios.tcsetwinsize(theirs, SIZE)
        self.began = time.monotonic()
        self.process = subprocess.Popen(
            [*self.command], env=self.environment, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )  # fmt: skip
        os.close(theirs)
        os.set_blocking(ours, False)
        self._ours = ours
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            with contextlib.suppress(TimeoutError):
                self.until(lambda: self.process.poll() is not None, "end")
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self._ours)

    def read(self, wait_s: float) -> None:
        """Take in what has come, after waiting for it for up to ``wait_s``."""
        if self.bytes_s:
            time.sleep(min(wait_s, 0.01))
        elif not select.select([self._ours], [], [], wait_s)[0]:
            return
        with contextlib.suppress(BlockingIOError, OSError):  # OSError: its other end is closed
            chunk = os.read(self._ours, self.bytes_s // 100 or 65536)
            self.sent += len(chunk)
            if _WHAT_ARE_YOU in chunk:
                os.write(self._ours, _A_TERMINAL)
            self.seen += chunk
            del self.seen[:-200_000]

    def until(self, found: Callable[[], object], what: str) -> float:
        """Read until ``found``; answers when that was."""
        deadline = time.monotonic() + _PATIENCE_S
        while not found():
            if time.monotonic() > deadline:
                raise TimeoutError(f"the console did not {what}; the last it sent: {bytes(self.seen[-2000:])!r}")
            self.read(0.05)
        return time.monotonic()

    def shows(self, text: bytes) -> float:
        return self.until(lambda: text in self.seen, f"show {text!r}")

    def read_for(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            self.read(left)

    def type(self, text: str) -> None:
        os.write(self._ours, text.encode())

    @property
    def spent(self) -> Spent:
        fields = Path(f"/proc/{self.process.pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
        waited_ns = int(Path(f"/proc/{self.process.pid}/schedstat").read_text(encoding="ascii").split()[1])
        return Spent(time.monotonic(), (int(fields[11]) + int(fields[12])) / _TICKS, waited_ns / 1e9, self.sent)

    def memory_mb(self, what: str = "VmRSS") -> float:
        status = Path(f"/proc/{self.process.pid}/status").read_text(encoding="ascii")
        found = re.search(rf"{what}:\s+(\d+) kB", status)
        return int(found[1]) * 1024 / 1e6 if found else 0.0


def cursor_line(seen: bytearray) -> int:
    """The screen line on which the table's cursor was painted last."""
    found = _CURSOR.findall(seen[-20_000:])
    return int(found[-1]) if found else 0


def percentile(values: Sequence[float], percent: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))] if ordered else 0.0


class Bench:
    """Runs the parts, and gathers their figures."""

    def __init__(self, cluster: Cluster, url: str, rate: float, seconds: float, tasks: int) -> None:
        self._cluster, self._url = cluster, url
        self._rate, self._seconds, self._tasks = rate, seconds, tasks
        self.figures: list[Figure] = []
        self.failed: dict[str, str] = {}  # part -> why

    def note(
        self, name: str, value: float, unit: str, budget: float | None = None, note: str = "", own: float | None = None
    ) -> None:
        figure = Figure(name, value, unit, budget, note, own)
        self.figures.append(figure)
        print(figure, flush=True)

    def console(self, *, bytes_s: int = 0, **more: str) -> Terminal:
        environment = os.environ | {
            "TERM": "xterm-256color", "COLORTERM": "truecolor", "LCQ_REDIS__URL": self._url,
            "LCQ_DATA_DIR": str(self._cluster.folder / "console"),
            "LCQ_ZEROMQ__CONTROL_PORT": str(self._cluster.control_port), "LCQ_SCHEDULER_HOST": "127.0.0.1", **more,
        }  # fmt: skip
        environment.pop("NO_COLOR", None)
        environment.pop("PYTHONDONTWRITEBYTECODE", None)  # an installed program is compiled once, not at each start
        return Terminal([str(Path(sys.executable).with_name("lcq")), "console"], environment, bytes_s)

    @contextlib.contextmanager
    def changes(self, seconds: float) -> Iterator[subprocess.Popen[bytes]]:
        command = [sys.executable, "-m", "benchmarks.changes", self._url]
        process = subprocess.Popen(
            [*command, "--rate", str(self._rate), "--seconds", str(seconds)], stdout=subprocess.PIPE
        )
        try:
            yield process
        finally:
            process.terminate()
            process.wait()

    def loaded(self, terminal: Terminal) -> None:
        terminal.shows(b"LIVE")
        terminal.read_for(3.0)  # whatever comes in with the first poll

    def start(self) -> None:
        """From the command to the first frame, and to the tasks."""
        with self.console() as terminal:  # compiles, where it is the first in a fresh checkout
            terminal.shows(b"LCQ")
        first, own, cpu, whole = [], [], [], []
        for turn in range(STARTS):
            with self.console() as terminal:
                at = terminal.shows(b"LCQ")
                spent = terminal.spent
                whole.append(terminal.shows(b"Fleet") - terminal.began)
                first.append(at - terminal.began)
                own.append(at - terminal.began - spent.waited_s)
                cpu.append(spent.cpu_s)
                if turn == 0:
                    there_s = terminal.shows(b"LIVE") - terminal.began
                    there_cpu_s = terminal.spent.cpu_s
        note = f"median of {STARTS}, {min(first):.2f} to {max(first):.2f} s"
        self.note("first paint", statistics.median(first), "s", 0.5, note, statistics.median(own))
        self.note("first whole frame", statistics.median(whole), "s", note=f"{min(whole):.2f} to {max(whole):.2f} s")
        self.note("processor time until the first paint", statistics.median(cpu), "s")
        self.note("all tasks there", there_s, "s", note=f"{self._tasks:,} tasks; {there_cpu_s:.1f} s of processor time")

    def idle(self) -> None:
        with self.console() as terminal:
            self.loaded(terminal)
            terminal.read_for(_REST_S)
            before = terminal.spent
            terminal.read_for(self._seconds)
            self._told_of(before, terminal.spent, "idle", cpu=1.0)
            self._memory(terminal, "idle")

    def busy(self) -> None:
        """Changes all the time, the newest tasks in sight, then keys among them."""
        with self.console() as terminal:
            self.loaded(terminal)
            with self.changes(self._seconds + 90) as changes:
                terminal.read_for(5.0)
                before, made = terminal.spent, self._events()
                terminal.read_for(self._seconds)
                after, done = terminal.spent, self._events() - made
                rate = done / (after.at - before.at)
                self.note("changes", rate, "a second", note=f"asked for {self._rate:,.0f}")
                self._told_of(before, after, "busy", cpu=15.0, sent=40.0)
                self.note("processor time a change", 1e6 * (after.cpu_s - before.cpu_s) / max(1, done), "us")
                self._keys(terminal)
                self._memory(terminal, "busy")
                changes.terminate()

    def _told_of(self, before: Spent, after: Spent, how: str, cpu: float, sent: float | None = None) -> None:
        seconds = after.at - before.at
        self.note(f"{how}: CPU", 100 * (after.cpu_s - before.cpu_s) / seconds, "% of a core", cpu)
        self.note(f"{how}: to the terminal", (after.sent - before.sent) / seconds / 1000, "kB/s", sent)

    def _memory(self, terminal: Terminal, how: str) -> None:
        note = f"at most {terminal.memory_mb('VmHWM'):.0f} MB, while the tasks came in"
        self.note(f"{how}: memory", terminal.memory_mb(), "MB", 150, note)

    def _keys(self, terminal: Terminal) -> None:
        """j and k by turns: from the key to the cursor on the other line."""
        terminal.type("jjjj")
        terminal.until(lambda: cursor_line(terminal.seen), "show a cursor")
        terminal.read_for(1.0)
        took, own, cpu_s = [], [], []
        for turn in range(KEYS):
            terminal.read_for(0.05 + 0.1 * (turn % 7) / 7)  # not in step with the console's own rhythm
            here, before = cursor_line(terminal.seen), terminal.spent
            terminal.type("kj"[turn % 2])
            at = terminal.until(lambda here=here: cursor_line(terminal.seen) != here, "move its cursor")
            after = terminal.spent
            took.append(1000 * (at - before.at))
            own.append(took[-1] - 1000 * (after.waited_s - before.waited_s))
            cpu_s.append(after.cpu_s - before.cpu_s)
        middle = f"P50 {percentile(took, 50):.0f} (own {percentile(own, 50):.0f})"
        note = f"{middle}; {1000 * statistics.mean(cpu_s):.1f} ms of processor time each"
        self.note("key to paint, P95", percentile(took, 95), "ms", 50, note, percentile(own, 95))

    def late(self) -> None:
        self._lateness("late", 0, 50)

    def slow(self) -> None:
        """A link of 30 kB/s: the loop must not wait for it."""
        self._lateness("slow link", SLOW_BYTES_S, None)

    def _lateness(self, how: str, bytes_s: int, p99: float | None) -> None:
        path = self._cluster.folder / "lateness.txt"
        with self.console(bytes_s=bytes_s, **{VARIABLE: str(path)}) as terminal:
            terminal.shows(b"LIVE")
            there = time.monotonic()
            with self.changes(self._seconds + 60):
                terminal.read_for(3.0)
                begun, before = time.monotonic(), terminal.spent
                terminal.read_for(self._seconds)
                ended, after = time.monotonic(), terminal.spent
            if bytes_s:
                sent = (after.sent - before.sent) / (after.at - before.at) / 1000
                self.note(f"{how}: to the terminal", sent, "kB/s", note=f"of {bytes_s / 1000:g} that it takes")
            terminal.bytes_s = 0
        rows = [tuple(map(float, line.split())) for line in path.read_text(encoding="ascii").splitlines()]
        then = [(1000 * late, 1000 * max(0.0, late - waited)) for at, late, waited in rows if begun <= at < ended]
        late, own = [one for one, _ in then], [one for _, one in then]
        if not late:
            raise TimeoutError("the console noted no lateness in that time")
        self.note(f"{how}: loop late, P99", percentile(late, 99), "ms", p99, own=percentile(own, 99))
        self.note(f"{how}: longest stall", max(late), "ms", 100 if bytes_s else None, own=max(own))
        coming = [(1000 * late, 1000 * max(0.0, late - waited)) for at, late, waited in rows if at < there]
        if coming and not bytes_s:
            self.note("longest stall while the tasks come in", max(coming)[0], "ms", own=max(own for _, own in coming))

    def _events(self) -> int:
        """How many events the stream has ever had."""
        from redis import Redis

        with Redis.from_url(self._url) as redis:
            return int(redis.xinfo_stream("{lcq}:events")["entries-added"])


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--tasks", type=int, default=100_000, metavar="N")
    arguments.add_argument("--million", action="store_true", help="a million tasks: an hour's submitting, at first")
    arguments.add_argument("--rate", type=float, default=1000, metavar="N", help="changes a second")
    arguments.add_argument("--seconds", type=float, default=20, metavar="S", help="of each part")
    arguments.add_argument("--state", type=Path, metavar="FOLDER", help="where the tasks are, or will be kept")
    arguments.add_argument("--only", nargs="*", choices=PARTS, default=PARTS, metavar="PART")
    chosen = arguments.parse_args()
    tasks, began = 1_000_000 if chosen.million else chosen.tasks, time.monotonic()
    with (
        tempfile.TemporaryDirectory() as folder,
        PrivateServer(chosen.state or Path(folder)) as server,
        running_cluster(server.tcp_url, Path(folder) / "c", LCQ_LEASES__LEASE_S="600") as cluster,
    ):
        subprocess.run([sys.executable, "-m", "benchmarks.changes", server.tcp_url, "--fill", str(tasks)], check=True)
        cluster.start_scheduler()
        bench = Bench(cluster, server.tcp_url, chosen.rate, chosen.seconds, tasks)
        print("| what | found | budget | | |\n|---|---:|---:|---|---|", flush=True)
        for part in chosen.only:
            try:
                getattr(bench, part)()
            except TimeoutError as error:  # the other parts are worth their time
                bench.failed[part] = str(error)
                print(f"| {part} | - | | FAILED | {error} |", flush=True)
    budgets = [one for one in bench.figures if one.budget is not None]
    missed = [one for one in budgets if one.verdict != "kept"]
    told = f"{len(budgets) - len(missed)} of {len(budgets)} budgets kept, {tasks:,} tasks at the start"
    print(f"\n{told}, load {os.getloadavg()[0]:.1f}, {time.monotonic() - began:.0f} s")
    for one in missed:
        print(f"missed: {one.name}: {one.value:.3g} {one.unit}, budget {one.budget:g}; {one.verdict}")
    print(
        json.dumps(
            {
                "python": platform.python_version(), "tasks": tasks, "load": os.getloadavg(), "failed": bench.failed,
                "figures": {one.name: round(one.value, 3) for one in bench.figures},
                "own": {one.name: round(one.own, 3) for one in bench.figures if one.own is not None},
            }
        )
    )  # fmt: skip
    sys.exit(1 if missed or bench.failed else 0)


if __name__ == "__main__":
    main()

"""The walk through docs/lan.md, "a LAN of five hosts": each block on the host that its heading names, timed.

``python -m tests.walk`` (as root, with iproute2 and util-linux) makes five network namespaces on one bridge, with
names, homes and data folders of their own, and types what the page says, word by word. Nothing of the host's own
network is used. It ends with the time each step took, and with an error where one did not do what the page promises.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from tests.pages import Block, blocks_of
from tests.site import ROOT

PAGE = PurePosixPath("docs/lan.md")
HEAD, DESK, NODES = "head", "desk", ("gpu-1", "gpu-2", "gpu-3")
ADDRESSES = {
    HEAD: "10.0.0.1",
    **{node: f"10.0.0.{11 + number}" for number, node in enumerate(NODES)},
    DESK: "10.0.0.30",
}
STAYS = re.compile(r"^(lcq scheduler|lcq-agent)( --\S+ \S+)*$")
"""The last line of a block that is a program which stays: it is left running."""
PATIENCE_S = 300.0


def run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, timeout=60, check=False, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip()}")


@dataclass
class Step:
    """What was done on one host, and how long it took; of what stays: until it was of use."""

    host: str
    what: str
    seconds: float
    said: str = ""


@dataclass
class Lan:
    """Five hosts, each a network namespace with a name and a home of its own, on one bridge."""

    folder: Path
    tag: str = field(default_factory=lambda: f"lcq{secrets.token_hex(3)}")
    made: list[str] = field(default_factory=list)
    running: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def __enter__(self) -> Lan:
        self._namespace("wire")
        self._in("wire", "ip", "link", "add", "br0", "type", "bridge", "mcast_snooping", "0")
        self._in("wire", "ip", "link", "set", "br0", "up")
        for number, (host, address) in enumerate(ADDRESSES.items()):
            self._namespace(host)
            cable = (
                "link",
                "add",
                "eth0",
                "type",
                "veth",
                "peer",
                "name",
                f"port{number}",
                "netns",
                f"{self.tag}-wire",
            )
            run("ip", "-n", f"{self.tag}-{host}", *cable)
            self._in("wire", "ip", "link", "set", f"port{number}", "master", "br0", "up")
            self._in(host, "ip", "addr", "add", f"{address}/24", "dev", "eth0")
            self._in(host, "ip", "link", "set", "eth0", "up")
            (self.folder / host).mkdir()
        return self

    def __exit__(self, *_: object) -> None:
        for process in reversed(self.running):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
        for process in self.running:
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait(30)
        for name in self.made:
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True, timeout=60)

    def _namespace(self, name: str) -> None:
        run("ip", "netns", "add", f"{self.tag}-{name}")
        self.made.append(f"{self.tag}-{name}")
        self._in(name, "ip", "link", "set", "lo", "up")

    def _in(self, host: str, *command: str) -> None:
        run("ip", "netns", "exec", f"{self.tag}-{host}", *command)

    def shell(self, host: str, script: str) -> list[str]:
        """The command that runs ``script`` on ``host``, under its name, the shared disk at /mnt/photos."""
        disk = self.folder / "disk"
        inside = (
            f'hostname "$1"; mkdir -p /mnt/photos; mount --bind "{disk}" /mnt/photos; exec bash -euo pipefail -c "$2"'
        )
        return ["ip", "netns", "exec", f"{self.tag}-{host}", "unshare", "--uts", "--mount", "--propagation", "private",
                "bash", "-euc", inside, "bash", host, script]  # fmt: skip

    def around(self, host: str) -> dict[str, str]:
        """What a fresh login there has in its environment."""
        programs = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        return {"HOME": str(self.folder / host), "USER": host, "PATH": programs, "LANG": "C.UTF-8", "COLUMNS": "120"}

    def do(self, host: str, script: str) -> str:
        """Run ``script`` to its end; what it wrote to stdout.

        Raises:
            RuntimeError: it failed.
        """
        done = subprocess.run(
            self.shell(host, script), cwd=self.folder / host, env=self.around(host), capture_output=True, text=True,
            check=False, timeout=PATIENCE_S, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        if done.returncode:
            raise RuntimeError(
                f"on {host}:\n{script}\nended with {done.returncode}:\n{done.stdout}{done.stderr}{self.logs()}"
            )
        return done.stdout

    def leave_running(self, host: str, script: str) -> None:
        """Start what stays, in a session of its own, its log in its home."""
        with (self.folder / host / "log").open("ab") as log:
            self.running.append(
                subprocess.Popen(
                    self.shell(host, script), cwd=self.folder / host, env=self.around(host), stdin=subprocess.DEVNULL,
                    stdout=log, stderr=log, start_new_session=True,
                )
            )  # fmt: skip

    def logs(self) -> str:
        """The last lines of whatever stays."""
        told = [(host, self.folder / host / "log") for host in ADDRESSES]
        return "".join(f"\n--- {host}\n{log.read_text(errors='replace')[-1500:]}" for host, log in told if log.exists())


def hosts_of(heading: str) -> tuple[str, ...]:
    """The hosts on which the blocks below a heading of the page are typed."""
    if heading.startswith("## On each node"):
        return NODES
    if heading.startswith("## On the desk"):
        return (DESK,)
    return (HEAD,) * (len(NODES) if "for each node" in heading else 1)


TOKEN = re.compile(r"\bTOKEN\b")


def steps(page: PurePosixPath = PAGE) -> Iterator[tuple[str, Block]]:
    """Each block of the page that is walked, with a host to type it on."""
    text = (ROOT / page).read_text(encoding="utf-8").splitlines()
    for block in blocks_of(page):
        if block.how == "run by":
            heading = next(line for line in reversed(text[: block.line]) if line.startswith("## "))
            for host in hosts_of(heading):
                yield host, block


def lay_out(disk: Path) -> None:
    """The disk that all see: scans and masks, under the same names."""
    for name, source in (("scans", "photos"), ("masks", "masks")):
        shutil.copytree(ROOT / "sample-config" / source, disk / name)


def until(lan: Lan, host: str, script: str, what: str) -> None:
    """Ask until ``script`` succeeds there.

    Raises:
        RuntimeError: it never does.
    """
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            lan.do(host, script)
        except RuntimeError as error:
            if time.monotonic() > deadline:
                raise RuntimeError(f"waited {PATIENCE_S:g} s for {what}; last:\n{error}") from error
            time.sleep(0.2)
        else:
            return


_ANSWERS = "lcq --patience 1 nodes >/dev/null"


def walk(folder: Path) -> list[Step]:
    """Walk through the page; ``folder`` is empty. What was done, in order.

    Raises:
        RuntimeError: a step did not do what the page says.
    """
    lay_out(folder / "disk")
    done: list[Step] = []
    tokens: list[str] = []
    with Lan(folder) as lan:
        for host, block in steps():
            script = TOKEN.sub(lambda _: tokens.pop(0), block.code, count=1)
            begun, said = time.monotonic(), ""
            last = script.strip().splitlines()[-1].split(" #")[0].strip()
            if STAYS.match(last):
                lan.leave_running(host, script)
                if host == HEAD:
                    until(lan, HEAD, _ANSWERS, "a scheduler that answers")
                else:
                    until(lan, HEAD, f"lcq node {host} >/dev/null", f"node {host}")
            else:
                said = lan.do(host, script)
            if "lcq keys invite" in script:
                tokens.append(said.split()[0])
                said = ""
            script = block.code
            what = "; ".join(line for line in script.strip().splitlines() if line.startswith("lcq"))
            done.append(Step(host, what, time.monotonic() - begun, said))
    photos = {path.stem for path in (folder / "disk" / "scans").iterdir()}
    cleaned = {path.stem for path in (folder / "disk" / "cleaned").iterdir() if path.suffix not in ("", ".json")}
    if not photos <= cleaned:
        raise RuntimeError(f"not cleaned: {sorted(photos - cleaned)}; there are {sorted(cleaned)}")
    return done


def main() -> int:
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="lcq-walk-") as folder:
        try:
            done = walk(Path(folder))
        except RuntimeError as error:
            print(error, file=sys.stderr)
            return 1
    for step in done:
        print(f"{step.seconds:6.1f} s  {step.host:6}  {step.what}")
        if step.said:
            print("".join(f"                  {line}\n" for line in step.said.splitlines()), end="")
    print(f"{time.monotonic() - begun:6.1f} s  in all, with the hosts made and taken away")
    return 0


if __name__ == "__main__":
    sys.exit(main())

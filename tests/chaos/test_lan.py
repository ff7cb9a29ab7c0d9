"""A LAN of network namespaces: schedulers with several interfaces, agents that know no address, and strangers."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import redis

from tests.audit import audit
from tests.cluster import Cluster, free_port, running_cluster
from tests.conftest import wait_until_sync
from tests.nodes import LIGHT

PATIENCE_S = 120.0
STRANGER = """
import asyncio, sys
from lcq.config import DiscoveryConfig
from lcq.discovery import Announcer
from tests.lan import words
key = sys.argv[2] if len(sys.argv) > 2 else None
said = words(addresses=(sys.argv[1],), port=5571)
asyncio.run(Announcer(DiscoveryConfig(key=key), bind=sys.argv[1], told=lambda _: said).keep())
"""


def run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, timeout=60, check=False, text=True)
    assert done.returncode == 0, (command, done.stderr)


@dataclass
class Lan:
    """Hosts, each a namespace; networks, each a bridge in a namespace of its own."""

    tag: str = field(default_factory=lambda: f"lcq{secrets.token_hex(3)}")
    made: list[str] = field(default_factory=list)
    cables: int = 0

    def host(self, name: str) -> str:
        """A new namespace with nothing but its loopback."""
        full = f"{self.tag}-{name}"
        run("ip", "netns", "add", full)
        self.made.append(full)
        self.inside(name, "ip", "link", "set", "lo", "up")
        return full

    def network(self, name: str) -> None:
        self.host(name)
        self.inside(name, "ip", "link", "add", "br0", "type", "bridge", "mcast_snooping", "0")
        self.inside(name, "ip", "link", "set", "br0", "up")

    def plug(self, host: str, network: str, address: str) -> None:
        """Give ``host`` an interface of this address (with its prefix length) on ``network``."""
        self.cables += 1
        here, there = f"eth{self.cables}", f"port{self.cables}"
        run("ip", "-n", f"{self.tag}-{host}", "link", "add", here, "type", "veth", "peer", "name", there, "netns",
            f"{self.tag}-{network}")  # fmt: skip
        self.inside(network, "ip", "link", "set", there, "master", "br0", "up")
        self.inside(host, "ip", "addr", "add", address, "dev", here)
        self.inside(host, "ip", "link", "set", here, "up")

    def exec(self, host: str, *command: str) -> list[str]:
        return ["ip", "netns", "exec", f"{self.tag}-{host}", *command]

    def inside(self, host: str, *command: str) -> None:
        run(*self.exec(host, *command))

    def peers(self, host: str) -> set[str]:
        """The other ends of the TCP connections of ``host``, but for its own loopback's."""
        done = subprocess.run(
            self.exec(host, "ss", "-Htn", "state", "established"),
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        )
        ends = {
            line.split()[-1].rpartition(":")[0].strip("[]").removeprefix("::ffff:") for line in done.stdout.splitlines()
        }
        return {end for end in ends if not end.startswith("127.")}


@pytest.fixture
def lan() -> Iterator[Lan]:
    if os.geteuid() != 0:
        pytest.skip("a network namespace needs root")
    missing = [program for program in ("ip", "ss") if shutil.which(program) is None]
    if missing:
        pytest.skip(f"not installed: {' and '.join(missing)} (apt install iproute2)")
    lan = Lan()
    try:
        yield lan
    finally:
        for name in lan.made:
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True, timeout=60)


@pytest.fixture
def eye(redis_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_url, decode_responses=True) as client:
        yield client


@contextlib.contextmanager
def a_cluster(redis_url: str, folder: Path, **more: str) -> Iterator[Cluster]:
    """One that is reached from its LAN, with nobody having said where."""
    around = {"LCQ_ZEROMQ__BIND": "0.0.0.0", "LCQ_ZEROMQ__TRUSTED_NETWORK": "1", "LCQ_DISCOVERY__ENABLED": "1"}
    with running_cluster(redis_url, folder, **around, **more) as cluster:
        yield cluster


def start_scheduler(cluster: Cluster, lan: Lan, host: str, name: str = "scheduler") -> None:
    ports = {"LCQ_ZEROMQ__BASE_PORT": "0", "LCQ_ZEROMQ__CONTROL_PORT": str(free_port())}
    cluster._start(name, lan.exec(host, sys.executable, "-m", "lcq.cli.main", "scheduler"), ports)


def start_agent(cluster: Cluster, lan: Lan, host: str) -> None:
    """An agent that was told nothing, with a data folder of its own."""
    agent = [sys.executable, "-m", "worker.cli", "--slots", "1", "--name", host]
    cluster._start(host, lan.exec(host, *agent, "--data-dir", str(cluster.folder / host)), {})


def is_online(eye: redis.Redis, node: str) -> bool:
    return bool(eye.hget(f"{{lcq}}:node:{node}", "status") == "online")


def wait_online(cluster: Cluster, eye: redis.Redis, *nodes: str) -> None:
    try:
        wait_until_sync(lambda: all(is_online(eye, node) for node in nodes), timeout=PATIENCE_S, what=f"{nodes} online")
    except BaseException:
        print(cluster.logs())
        raise


@pytest.mark.chaos
def test_agents_on_two_lans_find_the_scheduler_between_them_each_at_its_own_address(
    lan: Lan, redis_url: str, tmp_path: Path, eye: redis.Redis
):
    for network in ("lan-a", "lan-b"):
        lan.network(network)
    for host in ("head", "near", "far"):
        lan.host(host)
    lan.plug("head", "lan-a", "10.71.1.1/24")
    lan.plug("head", "lan-b", "10.71.2.1/24")
    lan.plug("near", "lan-a", "10.71.1.7/24")
    lan.plug("far", "lan-b", "10.71.2.7/24")
    with a_cluster(redis_url, tmp_path / "c") as cluster:
        start_agent(cluster, lan, "near")
        start_agent(cluster, lan, "far")
        start_scheduler(cluster, lan, "head")
        wait_online(cluster, eye, "near", "far")
        # Control socket, lifeline and the bells of its queues: all at the address by which it was found.
        wait_until_sync(lambda: lan.peers("near") == {"10.71.1.1"}, timeout=PATIENCE_S)
        wait_until_sync(lambda: lan.peers("far") == {"10.71.2.1"}, timeout=PATIENCE_S)
        told = subprocess.run(
            lan.exec("far", sys.executable, "-m", "lcq.cli.main", "nodes"),
            env=os.environ
            | {
                "LCQ_DISCOVERY__ENABLED": "1",
                "LCQ_ZEROMQ__TRUSTED_NETWORK": "1",
                "LCQ_DATA_DIR": str(tmp_path / "client"),
            },
            capture_output=True, text=True, timeout=120, check=False, cwd=tmp_path,
        )  # fmt: skip
        assert told.returncode == 0, told.stderr
        assert "near" in told.stdout
        assert "far" in told.stdout
        cluster.kill("far")
        wait_until_sync(lambda: not is_online(eye, "far"), timeout=PATIENCE_S, what="its lifeline to tell of its end")
    audit(eye)


@pytest.mark.chaos
def test_a_network_that_comes_late_or_again_is_used_at_both_ends(
    lan: Lan, redis_url: str, tmp_path: Path, eye: redis.Redis
):
    lan.network("lan")
    for host in ("head", "node", "later"):
        lan.host(host)
    with a_cluster(redis_url, tmp_path / "c") as cluster:
        start_scheduler(cluster, lan, "head")
        start_agent(cluster, lan, "node")
        lan.plug("node", "lan", "10.72.1.7/24")
        lan.plug("head", "lan", "10.72.1.1/24")
        wait_online(cluster, eye, "node")
        lan.inside("head", "ip", "addr", "add", "10.72.9.1/24", "dev", "eth2")
        lan.plug("later", "lan", "10.72.9.8/24")
        start_agent(cluster, lan, "later")
        wait_online(cluster, eye, "node", "later")
        assert lan.peers("later") == {"10.72.9.1"}
    audit(eye)


@pytest.mark.chaos
def test_strangers_on_the_lan_are_not_spoken_to_where_there_is_a_key(
    lan: Lan, redis_url: str, tmp_path: Path, eye: redis.Redis
):
    lan.network("lan")
    for number, host in enumerate(("head", "node", "stranger"), 1):
        lan.host(host)
        lan.plug(host, "lan", f"10.73.1.{number}/24")
    key = secrets.token_hex(16)
    with a_cluster(redis_url, tmp_path / "c", LCQ_DISCOVERY__KEY=key) as cluster:
        script = lan.exec("stranger", sys.executable, "-c", STRANGER, "10.73.1.3")
        cluster._start("unsigned", script, {})
        cluster._start("wrongly-signed", [*script, secrets.token_hex(16)], {})
        start_agent(cluster, lan, "node")

        def said(code: str) -> bool:
            return f"ignored ({code}," in cluster.log_path("node").read_text()

        wait_until_sync(lambda: said("unsigned") and said("wrong_signature"), timeout=PATIENCE_S)
        assert lan.peers("node") == set()
        start_scheduler(cluster, lan, "head")
        wait_online(cluster, eye, "node")
        assert lan.peers("node") == {"10.73.1.1"}
        ignored = wait_until_sync(
            lambda: "announcements_ignored" in (eye.hget("{lcq}:node:node", "telemetry") or ""), timeout=PATIENCE_S
        )
        assert ignored
        assert eye.scard(f"{{lcq}}:subs:{LIGHT}:cv2-telea") == 1
    audit(eye)

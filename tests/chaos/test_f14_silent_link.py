"""F-14: a link that carries nothing and says nothing: noticed at both ends, and nothing sent into it counts."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import redis

from lcq.client import AsyncClient
from lcq.config import DistributedConfig
from lcq.models import NodeStatus, TaskStatus
from lcq.scheduler import Scheduler
from tests.audit import audit
from tests.cluster import Cluster, drill, running_cluster
from tests.conftest import wait_until, wait_until_sync
from tests.light_node import a_light_node
from tests.nodes import LIGHT, a_task
from tests.proxy import Proxy

CONFIG = DistributedConfig(
    zeromq={"base_port": 0, "control_port": 0},  # type: ignore[arg-type]
    leases={"beat_s": 0.5, "lease_s": 3, "lost_after_s": 0.5},  # type: ignore[arg-type]
)
LOSSES = {"lose_node", "expire_leases"}


@pytest.fixture
def eye(redis_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_url, decode_responses=True) as client:
        yield client


def losses(eye: redis.Redis) -> list[dict[str, str]]:
    return [fields for _, fields in eye.xrange("{lcq}:events") if fields["move"] in LOSSES]


@dataclass
class Link:
    """All ways to a scheduler, each through a proxy: no other address of it is ever told to anybody."""

    direct: str  # where the scheduler really is
    endpoint: str
    proxies: list[Proxy]

    def freeze(self) -> None:
        for proxy in self.proxies:
            proxy.freeze()

    def thaw(self) -> None:
        for proxy in self.proxies:
            proxy.thaw()

    def delay(self, seconds: float) -> None:
        for proxy in self.proxies:
            proxy.delay_s = seconds


@contextlib.asynccontextmanager
async def a_link_to(scheduler: Scheduler) -> AsyncIterator[Link]:
    site = scheduler.site
    with contextlib.ExitStack() as stack:

        def through_proxy(address: str) -> str:
            before, _, port = address.rpartition(":")
            proxy = stack.enter_context(Proxy(int(port)))
            proxies.append(proxy)
            return f"{before}:{proxy.port}"

        proxies: list[Proxy] = []
        direct = site.control_endpoint
        site.control_endpoint = through_proxy(direct)
        site.lifeline = through_proxy(site.lifeline)
        site.rings[LIGHT] = through_proxy(site.rings[LIGHT])
        await scheduler._announce()
        link = Link(direct, site.control_endpoint, proxies)
        yield link
        link.thaw()


def a_client(endpoint: str) -> AsyncClient:
    client = AsyncClient(DistributedConfig(), scheduler=endpoint, timeout_s=30)
    client._learn = lambda told: None  # type: ignore[method-assign]
    return client


async def status_of(client: AsyncClient, node: str) -> NodeStatus:
    return next(one.status for one in await client.nodes() if one.id == node)


async def test_f14_a_node_behind_a_dead_link_is_noticed_and_what_was_sent_to_it_counts_for_nothing(
    redis_url: str, eye: redis.Redis
):
    async with (
        Scheduler(CONFIG, redis_url=redis_url) as scheduler,
        a_link_to(scheduler) as link,
        a_client(link.direct) as client,
        a_light_node([link.endpoint], name="far", only_there=True) as far,
        a_light_node([link.direct], name="near", only_there=True) as near,
    ):
        redone, cancelled = [(await client.submit(a_task())).id for _ in range(2)]
        await far.ask_for_work()
        assert len(far.grants) == 2
        link.freeze()
        cut = time.monotonic()
        await client.cancel(cancelled)  # an order that goes into the void
        asking = asyncio.create_task(far.ask_for_work())  # and a wish that does

        async def is_offline() -> bool:
            return await status_of(client, "far-0") is NodeStatus.OFFLINE

        await wait_until(is_offline, timeout=60, what="the node behind the dead link to be given up")
        noticed_s = time.monotonic() - cut
        await wait_until(lambda: far.troubles[-1], timeout=60, what="the node to notice it too")
        near.takes = True
        await near.ask_for_work()
        await near.finish_all()
        (record,) = await client.wait([redone], timeout_s=30)
        assert (record.node, record.attempt) == ("near-0", 2)
        assert far.grants, "the node at the other end knows of nothing"
        link.thaw()
        await wait_until(lambda: (cancelled, 1) in far.lost and (redone, 1) in far.lost, what="the node to be told")
        await asking
        assert await client.get(redone) == record, "its late words change nothing"
        assert (await client.get(cancelled)).status == TaskStatus.CANCELLED
        await wait_until(lambda: not far.troubles[-1], what="the node to be well again")
        print(f"\nlink frozen: the node given up after {noticed_s:.2f} s, with a lease of 3 s")
    audit(eye)


@pytest.mark.chaos
async def test_f14_a_node_whose_scheduler_is_behind_a_dead_link_goes_to_another_and_loses_nothing(
    redis_url: str, eye: redis.Redis
):
    async with (
        Scheduler(CONFIG, redis_url=redis_url) as first,
        a_link_to(first) as link,
        Scheduler(CONFIG, redis_url=redis_url) as second,
        a_client(second.control_endpoint) as client,
        a_light_node([link.endpoint], name="far") as far,
    ):
        await wait_until(lambda: len(far.membership._schedulers) == 2, what="the node to hear of the second")
        task_id = (await client.submit(a_task())).id
        await far.ask_for_work()
        link.freeze()
        cut = time.monotonic()
        await wait_until(lambda: far.at == second.site.scheduler_id, timeout=60, what="the node at the second")
        moved_s = far.welcomes[-1][0] - cut
        await wait_until(lambda: sum(beat > cut for beat in far.beats) > 8, what="some beats there")
        link.thaw()
        await far.finish_all()
        (record,) = await client.wait([task_id], timeout_s=30)
        assert (record.status, record.attempt) == (TaskStatus.COMPLETED, 1)
        assert losses(eye) == []
        print(f"\nlink frozen: its node is at another scheduler after {moved_s:.2f} s, with a beat of 0.5 s")
    audit(eye)


# ---------------------------------------------------------------- in a network of its own

HOST, GUEST = "10.213.87.1", "10.213.87.2"
USUAL = {"LCQ_LEASES__BEAT_S": "3", "LCQ_LEASES__LEASE_S": "15", "LCQ_LEASES__LOST_AFTER_S": "1"}


def run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, timeout=60)


class Network:
    """A network namespace joined to this host by one cable."""

    def __init__(self) -> None:
        self.name = f"lcq-{secrets.token_hex(3)}"
        self._ends = (f"{self.name}a", f"{self.name}b")

    def __enter__(self) -> Network:
        here, there = self._ends
        run("ip", "netns", "add", self.name)
        run("ip", "link", "add", here, "type", "veth", "peer", "name", there, "netns", self.name)
        run("ip", "addr", "add", f"{HOST}/30", "dev", here)
        run("ip", "link", "set", here, "up")
        self.inside("ip", "addr", "add", f"{GUEST}/30", "dev", there)
        self.inside("ip", "link", "set", there, "up")
        self.inside("ip", "link", "set", "lo", "up")
        return self

    def __exit__(self, *_: object) -> None:
        run("ip", "netns", "del", self.name)

    def inside(self, *command: str) -> None:
        run("ip", "netns", "exec", self.name, *command)

    def lose(self, share: float) -> None:
        """Drop this share of all packets, in both directions, without a word."""
        for way in ("INPUT", "OUTPUT"):
            self.inside("iptables", "-F", way)
            if share:
                chance = () if share == 1 else ("-m", "statistic", "--mode", "random", "--probability", str(share))
                self.inside("iptables", "-A", way, *chance, "-j", "DROP")


@pytest.fixture
def network() -> Iterator[Network]:
    if os.geteuid() != 0:
        pytest.skip("a network namespace needs root")
    missing = [program for program in ("ip", "iptables") if shutil.which(program) is None]
    if missing:
        pytest.skip(f"not installed: {' and '.join(missing)} (apt install iproute2 iptables)")
    with Network() as network:
        yield network


@contextlib.contextmanager
def a_cluster_across(network: Network, redis_url: str, folder: Path) -> Iterator[Cluster]:
    """A scheduler here, the agent "far" there, and "near" here."""
    open_to_all = {"LCQ_ZEROMQ__BIND": "0.0.0.0", "LCQ_ZEROMQ__TRUSTED_NETWORK": "1", "LCQ_SCHEDULER_HOST": HOST}
    with running_cluster(redis_url, folder, **USUAL, **open_to_all) as cluster:
        cluster.start_scheduler()
        agent = [sys.executable, "-m", "worker.cli", "--scheduler", f"{HOST}:{cluster.control_port}", "--slots", "2"]
        cluster._start("far", ["ip", "netns", "exec", network.name, *agent, "--name", "far"], {})
        cluster.start_agent("near")
        with cluster.client() as client:
            online = NodeStatus.ONLINE
            wait_until_sync(
                lambda: all(node.status is online for node in client.nodes()) and len(client.nodes()) == 2,
                timeout=60,
                what="both agents online",
            )
        yield cluster


@pytest.mark.chaos
def test_f14_a_host_whose_packets_all_vanish_is_given_up_within_its_lease_and_comes_back_by_itself(
    network: Network, redis_url: str, tmp_path: Path, eye: redis.Redis
):
    with a_cluster_across(network, redis_url, tmp_path / "c") as cluster, cluster.client() as client:
        task_id = client.submit(drill("drill-sleep", seconds=20), node="far").id
        other = client.submit(drill("drill-sleep", seconds=20)).id
        ids = [task_id, other]
        wait_until_sync(lambda: client.get(task_id).status is TaskStatus.PROCESSING, what="the task to run there")
        network.lose(1)
        cut = time.monotonic()
        wait_until_sync(lambda: client.get(task_id).status is TaskStatus.QUEUED, timeout=60, what="it to be given up")
        noticed_s = time.monotonic() - cut
        time.sleep(max(0.0, 25 - noticed_s))  # the fault itself
        network.lose(0)
        healed = time.monotonic()
        wait_until_sync(
            lambda: all(node.status is NodeStatus.ONLINE for node in client.nodes()), timeout=60, what="it to be back"
        )
        back_s = time.monotonic() - healed
        records = client.wait(ids, timeout_s=90)
        assert {record.status for record in records} == {TaskStatus.COMPLETED}
        assert all([attempt.outcome for attempt in client.history(one).attempts].count("completed") == 1 for one in ids)
    print(f"\nall packets dropped: given up after {noticed_s:.1f} s; back {back_s:.1f} s after they passed again")
    assert 11 < noticed_s < 45, "a lease is as long as it is since the last beat"
    audit(eye)


@pytest.mark.chaos
def test_f14_a_link_that_loses_a_fifth_of_its_packets_is_no_dead_one(
    network: Network, redis_url: str, tmp_path: Path, eye: redis.Redis
):
    with a_cluster_across(network, redis_url, tmp_path / "c") as cluster, cluster.client() as client:
        network.lose(0.2)
        until = time.monotonic() + 20
        done = 0
        while time.monotonic() < until:
            accepted = client.submit(drill("drill-sleep", seconds=1), node="far")
            (record,) = client.wait([accepted.id], timeout_s=60)
            assert (record.status, record.attempt) == (TaskStatus.COMPLETED, 1)
            done += 1
        assert losses(eye) == []
    print(f"\na fifth of all packets lost each way for 20 s: {done} tasks of 1 s done, nobody lost")
    audit(eye)


@pytest.mark.chaos
async def test_f14_a_slow_link_is_no_dead_one(redis_url: str, eye: redis.Redis):
    async with (
        Scheduler(CONFIG, redis_url=redis_url) as scheduler,
        a_link_to(scheduler) as link,
        a_client(link.direct) as client,
        a_light_node([link.endpoint], name="far", only_there=True) as far,
    ):
        await client.submit(a_task())
        await far.ask_for_work()
        link.delay(0.2)
        slow = time.monotonic()
        await wait_until(lambda: time.monotonic() - slow > 12, timeout=60, what="four leases' time")
        assert len(far.welcomes) == 1
        assert losses(eye) == []
        await far.finish_all()
        print(f"\n200 ms each way for 12 s, beat 0.5 s, lease 3 s: {sum(b > slow for b in far.beats)} beats, no loss")

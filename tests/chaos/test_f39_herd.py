"""F-39: a whole fleet that finds its scheduler again does not trample it: retries are spread, and all are back soon."""

from __future__ import annotations

import asyncio
import itertools
import signal
import statistics
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import redis
import zmq
from zmq.utils.monitor import recv_monitor_message

from tests.cluster import Cluster, running_cluster
from tests.conftest import wait_until
from tests.light_node import LightNode, light_nodes

_WATCHED = zmq.EVENT_CONNECTED | zmq.EVENT_CONNECT_RETRIED


@dataclass
class Watch:
    """What the sockets of a fleet do: when each connection stood, and the pauses before each further try."""

    connected: list[float] = field(default_factory=list)
    pauses_ms: list[int] = field(default_factory=list)

    def peak(self, window_s: float) -> int:
        """The most connections that came within ``window_s``."""
        times = sorted(self.connected)
        first, most = 0, 0
        for last, at in enumerate(times):
            while at - times[first] > window_s:
                first += 1
            most = max(most, last - first + 1)
        return most


@contextmanager
def watched(nodes: Sequence[LightNode], monkeypatch: pytest.MonkeyPatch) -> Iterator[Watch]:
    """Watch the control lines, the bells and the lifelines of ``nodes``."""
    watch = Watch()
    sockets = [part._mailbox._socket for node in nodes for part in (node.line, node.bells)]
    monitors = [socket.get_monitor_socket(_WATCHED) for socket in sockets]
    ended = threading.Event()

    def read() -> None:
        poller = zmq.Poller()
        for monitor in monitors:
            poller.register(monitor, zmq.POLLIN)
        while not ended.is_set():
            for monitor, _ in poller.poll(100):
                told = recv_monitor_message(monitor)
                if told["event"] == zmq.EVENT_CONNECTED:
                    watch.connected.append(time.monotonic())
                else:
                    watch.pauses_ms.append(int(told["value"]))

    connect = asyncio.open_connection

    async def counted(*place: object) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        made = await connect(*place)  # type: ignore[arg-type]
        watch.connected.append(time.monotonic())
        return made

    monkeypatch.setattr(asyncio, "open_connection", counted)
    reader = threading.Thread(target=read, name="socket watch", daemon=True)
    reader.start()
    try:
        yield watch
    finally:
        ended.set()
        reader.join(10)
        monkeypatch.undo()
        for socket, monitor in zip(sockets, monitors, strict=True):
            socket.disable_monitor()
            monitor.close()


async def meet_again(cluster: Cluster, count: int, down_s: float, monkeypatch: pytest.MonkeyPatch) -> None:
    cluster.start_scheduler()
    endpoint = f"tcp://127.0.0.1:{cluster.control_port}"
    async with light_nodes(count, [endpoint]) as nodes:
        began = time.monotonic()
        await wait_until(lambda: all(node.beats for node in nodes), timeout=90, what="all to have come")
        came_s = time.monotonic() - began
        await asyncio.sleep(1.5)  # their lifelines have stayed by now
        with watched(nodes, monkeypatch) as watch:
            await asyncio.to_thread(cluster.kill, "scheduler", signal.SIGKILL)
            await asyncio.sleep(down_s)
            await asyncio.to_thread(cluster.start_scheduler)
            stood = time.monotonic()
            await wait_until(
                lambda: all(node.welcomes[-1][0] > stood - 0.5 and node.beats[-1] > stood for node in nodes),
                timeout=90,
                what="all to be back",
            )
            back = sorted(node.welcomes[-1][0] - stood for node in nodes)
            await wait_until(lambda: len(watch.connected) >= 3 * count, timeout=90, what="bells and lifelines too")
        print(
            f"\n{count} nodes came in {came_s:.1f} s; scheduler killed, away {down_s:g} s and its start: half back"
            f" {statistics.median(back):.2f} s and all {back[-1]:.2f} s after it listened; {len(watch.connected)}"
            f" connects, at most {watch.peak(1.0)} in 1 s and {watch.peak(0.1)} in 0.1 s;"
            f" pauses {statistics.median(watch.pauses_ms):g} ms (median), {max(watch.pauses_ms)} ms (most)"
        )
        assert len(watch.connected) <= 6 * count, "three a node, and some that met a scheduler not yet ready"
        assert max(watch.pauses_ms) <= 2000, "whoever waits longer is missed for long"
        busiest = max(len(list(same)) for _, same in itertools.groupby(sorted(watch.pauses_ms)))
        assert busiest < len(watch.pauses_ms) / 20, "the pauses are not all the same"
        assert len({round(one, 2) for one in back}) > min(count / 10, 20), "they do not come in one moment"
        assert back[-1] < 30


@pytest.fixture
def eye(redis_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_url, decode_responses=True) as client:
        yield client


def lost_nodes(eye: redis.Redis) -> int:
    return sum(fields["move"] == "lose_node" for _, fields in eye.xrange("{lcq}:events"))


@pytest.mark.chaos
async def test_f39_a_hundred_nodes_meet_their_restarted_scheduler_in_turn(
    redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, eye: redis.Redis
):
    with running_cluster(redis_url, tmp_path / "c", LCQ_LEASES__BEAT_S="1", LCQ_LEASES__LEASE_S="15") as cluster:
        await meet_again(cluster, 100, 0, monkeypatch)
        assert lost_nodes(eye) == 0


@pytest.mark.chaos
async def test_f39_five_hundred_nodes_meet_their_restarted_scheduler_in_turn(
    redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, eye: redis.Redis
):
    usual = {"LCQ_LEASES__BEAT_S": "3", "LCQ_LEASES__LEASE_S": "15", "LCQ_LEASES__LOST_AFTER_S": "1"}
    with running_cluster(redis_url, tmp_path / "c", **usual) as cluster:
        await meet_again(cluster, 500, 8, monkeypatch)
        assert lost_nodes(eye) == 0

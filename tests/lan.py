"""The LAN of tests: multicast on loopback, without which some of them cannot be."""

from __future__ import annotations

import secrets
import socket
import struct
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import psutil
import pytest

from lcq.announcement import Announcement
from lcq.component import run_beside
from lcq.config import DiscoveryConfig
from lcq.discovery import Announcer

LOOPBACK = "127.0.0.1"


def has_multicast() -> bool:
    """Whether what is sent to a group on loopback arrives there."""
    group, word = "224.0.0.251", secrets.token_bytes(16)
    try:
        with (
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as ear,
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as mouth,
        ):
            ear.bind(("", 0))
            member = struct.pack("4s4s", socket.inet_aton(group), socket.inet_aton(LOOPBACK))
            ear.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, member)
            ear.settimeout(5)
            mouth.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton(LOOPBACK))
            mouth.sendto(word, (group, ear.getsockname()[1]))
            return ear.recv(64) == word
    except OSError:
        return False


needs_multicast = pytest.mark.skipif(not has_multicast(), reason="no multicast on loopback here")


def on_loopback(**more: str) -> DiscoveryConfig:
    return DiscoveryConfig.model_validate({"interfaces": (LOOPBACK,)} | more)


def words(**changed: object) -> Announcement:
    """What a scheduler of a cluster of its own might say."""
    said = {
        "scheduler": f"stranger-{secrets.token_hex(4)}", "cluster": "foreign", "cluster_id": secrets.token_hex(8),
        "addresses": (LOOPBACK,), "port": 9, "protocol": 2, "oldest": 1, "version": "9.9", "at_s": int(time.time()),
    }  # fmt: skip
    return Announcement(**(said | changed))  # type: ignore[arg-type]


@asynccontextmanager
async def announced(said: Announcement, **config: str) -> AsyncIterator[None]:
    """``said`` is on the LAN, whoever says it."""
    async with AsyncExitStack() as stack:
        announcer = Announcer(on_loopback(**config), bind=LOOPBACK, told=lambda _: said)
        await run_beside(stack, ("stranger", announcer.keep()))
        yield


def speaks_mdns(pid: int) -> bool:
    """Whether a process has a socket at the port of mDNS."""
    return any(one.laddr and one.laddr.port == 5353 for one in psutil.Process(pid).net_connections("udp"))

"""Whether what listens can be reached from here, and if not, which side keeps it from that."""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

from lcq.doctor.findings import Finding, Level, finding
from lcq.lang import N

PATIENCE_S = 3.0
_NO_ROUTE = frozenset({errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EHOSTDOWN, errno.ENETDOWN})


class Reach(Enum):
    """What came of an attempt to connect."""

    OPEN = "open"
    REFUSED = "refused"
    SILENT = "silent"
    NO_ROUTE = "no route"
    UNKNOWN_HOST = "unknown host"


@dataclass(frozen=True)
class Door:
    """A port that somebody listens at. ``what``: what it is for, in words; ``setting``: which key says where it is."""

    what: str
    host: str
    port: int
    setting: str
    needed: bool = True

    @property
    def address(self) -> str:
        return f"{self.host}:{self.port}"


async def reach(host: str, port: int, *, patience_s: float = PATIENCE_S) -> Reach:
    """Connect, and hang up at once."""
    try:
        async with asyncio.timeout(patience_s):
            _, writer = await asyncio.open_connection(host.strip("[]"), port)
    except TimeoutError:
        return Reach.SILENT
    except ConnectionRefusedError:
        return Reach.REFUSED
    except socket.gaierror:
        return Reach.UNKNOWN_HOST
    except OSError as error:
        if "Multiple exceptions" in str(error):  # several addresses of one name: the first of them tells
            return Reach.REFUSED if "refused" in str(error).lower() else Reach.NO_ROUTE
        return Reach.NO_ROUTE if error.errno in _NO_ROUTE else Reach.REFUSED
    writer.close()
    return Reach.OPEN


async def through(doors: list[Door], here: str) -> list[Finding]:
    """What is to be said of these, tried all at once from the host ``here``."""
    reached = await asyncio.gather(*(reach(door.host, door.port) for door in doors))
    found = [one for door, how in zip(doors, reached, strict=True) for one in _told(door, how, here)]
    if doors and not found:
        ports = ", ".join(sorted({str(door.port) for door in doors}, key=int))
        hosts = ", ".join(dict.fromkeys(door.host for door in doors))
        return [finding("port_ok", Level.OK, here, N("{hosts}: ports {ports} answer"), hosts=hosts, ports=ports)]
    return found


def _told(door: Door, how: Reach, here: str) -> Iterator[Finding]:
    level = Level.PROBLEM if door.needed else Level.WARNING
    facts = {"address": door.address, "what": door.what, "port": door.port, "host": door.host, "key": door.setting}
    match how:
        case Reach.REFUSED:
            yield finding(
                "port_refused",
                level,
                here,
                N("{what} at {address} is refused: that host is up, and nothing listens there for us"),
                fix=N(
                    "on {host}: ss -ltn 'sport = :{port}' shows nothing? start it; 127.0.0.1 alone? set {key}; "
                    "else a firewall there rejects"
                ),
                **facts,
            )
        case Reach.SILENT:
            yield finding(
                "port_silent",
                level,
                here,
                N(
                    "{what} at {address} gives no answer in {patience:g} s: a firewall drops what we send, or "
                    "the host is down"
                ),
                fix=N(
                    "on {host}: sudo ufw allow {port}/tcp, or firewall-cmd --permanent --add-port={port}/tcp && "
                    "firewall-cmd --reload"
                ),
                patience=PATIENCE_S,
                **facts,
            )
        case Reach.NO_ROUTE:
            yield finding(
                "port_no_route",
                level,
                here,
                N("{what} at {address}: there is no way to that host from here"),
                fix=N("ip route get {host}; is it on another network, or is a VPN down?"),
                **facts,
            )
        case Reach.UNKNOWN_HOST:
            yield finding(
                "port_unknown_host",
                level,
                here,
                N("{what}: no host is called {host}"),
                fix=N("set {key} to its address, or add the name to DNS or /etc/hosts"),
                **facts,
            )

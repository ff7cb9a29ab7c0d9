"""Schedulers on the LAN: announced and found by mDNS. The only place that knows zeroconf.

What is found is a hint where to ask (lcq/announcement.py). Where an address is configured none of this runs.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
import re
import socket
import time
from collections import Counter
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import psutil
import zeroconf
from zeroconf.asyncio import AsyncServiceBrowser, AsyncServiceInfo, AsyncZeroconf

from lcq.announcement import (
    SERVICE_TYPE,
    SHORTEST_KEY,
    Announcement,
    Choice,
    Network,
    Sighting,
    Terms,
    choose,
    judge,
)
from lcq.clock import steady_now
from lcq.config import DiscoveryConfig
from lcq.errors import InvalidConfig, NoMulticast
from lcq.wire import PROTOCOL_VERSION

_log = logging.getLogger(__name__)
logging.getLogger("zeroconf").setLevel(logging.ERROR)  # of every odd packet on the LAN it has something to say

_LOOK_S = 2.0  # between two looks at the interfaces
_REFRESH_S = 60.0  # between two words of a scheduler that nothing has changed for: the time in them is signed too
_RESOLVE_MS = 1500
_MOST_SEEN = 256  # services that are looked at at a time: a flood of names costs no more
_SETTLE_S = 0.5  # after the first answer, for a second cluster to be seen
_GOODBYE_S = 3.0


# ---------------------------------------------------------------- where, and by what key


@dataclass(frozen=True)
class Place:
    """An address of this host that multicast is sent from."""

    interface: str
    address: str
    network: Network

    @property
    def is_loopback(self) -> bool:
        return self.network.is_loopback


def places(wanted: tuple[str, ...] = (), bind: str = "") -> tuple[Place, ...]:
    """The addresses of the interfaces that are up, of those ``wanted`` by name or address; default: all but loopback.

    ``bind``: only what is reached at this address too ("" and the wildcards: all).
    """
    found = []
    up = {name for name, stats in psutil.net_if_stats().items() if stats.isup}
    for name, addresses in psutil.net_if_addrs().items():
        for one in addresses:
            if name not in up or one.family not in (socket.AF_INET, socket.AF_INET6):
                continue
            address = one.address.partition("%")[0]
            with contextlib.suppress(ValueError, TypeError):
                network = ipaddress.ip_network(f"{address}/{_prefix(one.netmask)}", strict=False)
                if network.is_link_local and network.version == 6:
                    continue
                found.append(Place(name, address, network))
    chosen = [place for place in found if not wanted and not place.is_loopback]
    chosen += [place for place in found if place.interface in wanted or place.address in wanted]
    covered = {"": None, "0.0.0.0": 4, "*": 4, "::": None, "[::]": None}  # noqa: S104 - looked for, not bound
    if bind in covered:
        version = covered[bind]
        chosen = [place for place in chosen if version in (None, place.network.version)]
    else:
        there = "127.0.0.1" if bind == "localhost" else bind
        chosen = [place for place in chosen if place.address == there]
    if any(place.network.version == 4 for place in chosen):  # of two ways the one that surely works; it reaches as far
        chosen = [place for place in chosen if place.network.version == 4]
    return tuple(sorted(set(chosen), key=lambda place: (place.interface, place.address)))


def _prefix(netmask: str | None) -> int:
    if not netmask:
        raise ValueError("no netmask")
    if ":" in netmask:
        return int(ipaddress.IPv6Address(netmask)).bit_count()
    return ipaddress.IPv4Network(f"0.0.0.0/{netmask}").prefixlen


def key_of(config: DiscoveryConfig) -> bytes | None:
    """The secret that announcements are signed by; None if there is none.

    Raises:
        InvalidConfig: there are two, its file cannot be read, or it is too short. Never says what it is.
    """
    if config.key is not None and config.key_file is not None:
        raise InvalidConfig("both discovery.key and discovery.key_file are set", hint="keep one of them")
    key, named = config.key, "discovery.key"
    if config.key_file is not None:
        named = f"the file {config.key_file} of discovery.key_file"
        try:
            key = config.key_file.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            why = error.strerror if isinstance(error, OSError) else "it is not text"
            raise InvalidConfig(f"{named} cannot be read: {why}", hint="make it with: openssl rand -hex 32") from error
    if key is None:
        return None
    key = key.strip()
    if len(key) < SHORTEST_KEY:
        raise InvalidConfig(
            f"{named} has {len(key)} characters, it must have at least {SHORTEST_KEY}",
            hint="make one with: openssl rand -hex 32",
        )
    return key.encode()


def _open(there: tuple[Place, ...]) -> AsyncZeroconf:
    """Raises:
    OSError: multicast cannot be had there.
    """
    versions = {place.network.version for place in there}
    version = {4: zeroconf.IPVersion.V4Only, 6: zeroconf.IPVersion.V6Only}
    return AsyncZeroconf(
        interfaces=[place.address for place in there],
        ip_version=zeroconf.IPVersion.All if len(versions) > 1 else version[versions.pop()],
    )


_TROUBLE = (OSError, zeroconf.Error, RuntimeError)


# ---------------------------------------------------------------- to be found


class Announcer:
    """Says on the LAN where this scheduler is, for as long as ``keep()`` runs, and takes it back at its end.

    ``told``: what to say, at the addresses that it is given. Interfaces that come and go are followed.
    """

    def __init__(
        self, config: DiscoveryConfig, *, bind: str, told: Callable[[tuple[str, ...]], Announcement | None]
    ) -> None:
        """Raises:
        InvalidConfig: there is something wrong with the key.
        """
        self._config = config
        self._key = key_of(config)
        self._bind = bind
        self._told = told
        self._trouble = ""
        self._renamed = 0

    async def keep(self) -> None:
        """Announce, for ever."""
        while True:
            there = await self._look()
            if there:
                try:
                    await self._announce_at(there)
                except zeroconf.NonUniqueNameException:
                    self._renamed += 1
                    self._say("somebody on the LAN claims this scheduler's mDNS name: taking another one")
                except _TROUBLE as error:
                    self._say(f"this scheduler cannot be announced on the LAN: {error}")
            await asyncio.sleep(_LOOK_S)

    async def _look(self) -> tuple[Place, ...]:
        return await asyncio.to_thread(places, self._config.interfaces, self._bind)

    def _say(self, trouble: str) -> None:
        if trouble != self._trouble:
            _log.warning("%s", trouble)
        self._trouble = trouble

    async def _announce_at(self, there: tuple[Place, ...]) -> None:
        """Returns when the interfaces are others."""
        said = self._words(there)
        if said is None:
            return
        lan = _open(there)
        try:
            await lan.zeroconf.async_wait_for_start()
            await lan.async_register_service(self._service(said))
            listed = ", ".join(said.addresses)
            _log.info("announced on the LAN as cluster %s at %s, port %d", said.cluster, listed, said.port)
            self._trouble = ""
            while await self._look() == there:
                now = self._words(there)
                if now is not None and (abs(now.at_s - said.at_s) >= _REFRESH_S or now.cluster_id != said.cluster_id):
                    said = now
                    await lan.async_update_service(self._service(said))
                await asyncio.sleep(_LOOK_S)
            _log.info("the interfaces have changed: announcing this scheduler anew")
        finally:
            with contextlib.suppress(TimeoutError, *_TROUBLE):
                async with asyncio.timeout(_GOODBYE_S):
                    await lan.async_unregister_all_services()
            with contextlib.suppress(TimeoutError, *_TROUBLE):
                async with asyncio.timeout(_GOODBYE_S):
                    await lan.async_close()

    def _words(self, there: tuple[Place, ...]) -> Announcement | None:
        return self._told(tuple(place.address for place in there))

    def _service(self, said: Announcement) -> AsyncServiceInfo:
        label = re.sub(r"[^A-Za-z0-9-]+", "-", said.scheduler)[:50].strip("-") + f"-{self._renamed}" * bool(
            self._renamed
        )
        return AsyncServiceInfo(
            SERVICE_TYPE,
            f"{label}.{SERVICE_TYPE}",
            port=said.port,
            properties=said.to_txt(self._key),
            server=f"lcq-{label}.local.",
            parsed_addresses=list(said.addresses),
        )


# ---------------------------------------------------------------- to find


class Browser:
    """What is announced on the LAN, judged; ``async with Browser(config) as browser``.

    ``changed`` is set whenever there is news; ``ignored`` counts what was not used, by reason.

    Raises on entering:
        InvalidConfig: there is something wrong with the key, or with the interfaces.
        NoMulticast: the LAN cannot be listened to.
    """

    def __init__(self, config: DiscoveryConfig) -> None:
        self._config = config
        self._key = key_of(config)
        self._seen: dict[str, Sighting] = {}
        self._news: asyncio.Queue[str] = asyncio.Queue()
        self._pending: set[str] = set()  # names that are being asked about
        self._told: set[tuple[str, str]] = set()
        self.changed = asyncio.Event()
        self.ignored: Counter[str] = Counter()
        self.places: tuple[Place, ...] = ()
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        self.places = await asyncio.to_thread(places, self._config.interfaces)
        if not self.places:
            wanted = ", ".join(self._config.interfaces)
            raise NoMulticast(f"no interface {wanted} is up here" if wanted else "no interface but loopback is up here")
        async with AsyncExitStack() as stack:
            try:
                lan = _open(self.places)
                stack.push_async_callback(_closed, lan)
                await lan.zeroconf.async_wait_for_start()
                listener = AsyncServiceBrowser(lan.zeroconf, [SERVICE_TYPE], handlers=[self._hear])
                stack.push_async_callback(listener.async_cancel)
            except _TROUBLE as error:
                raise NoMulticast(f"multicast cannot be had at {self.where}: {error}") from error
            group = await stack.enter_async_context(asyncio.TaskGroup())
            for number in range(8):  # one that does not answer does not keep the others from being asked
                stack.callback(group.create_task(self._resolve(lan.zeroconf), name=f"mDNS {number}").cancel)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    @property
    def where(self) -> str:
        """The interfaces that are listened to, in words."""
        return ", ".join(f"{place.interface} {place.address}" for place in self.places)

    @property
    def sightings(self) -> tuple[Sighting, ...]:
        """What is announced now."""
        return tuple(self._seen[name] for name in sorted(self._seen))

    def _hear(self, *, name: str, state_change: zeroconf.ServiceStateChange, **_: object) -> None:
        if state_change is zeroconf.ServiceStateChange.Removed:
            self._pending.discard(name)
            if self._seen.pop(name, None) is not None:
                self.changed.set()
        elif len(self._pending) < 4 * _MOST_SEEN:  # more than that is a flood
            self._pending.add(name)
            self._news.put_nowait(name)
        else:
            self.ignored["too_many"] += 1

    async def _resolve(self, lan: zeroconf.Zeroconf) -> None:
        while True:
            name = await self._news.get()
            info = AsyncServiceInfo(SERVICE_TYPE, name)
            with contextlib.suppress(*_TROUBLE):
                await info.async_request(lan, _RESOLVE_MS)
            if name in self._pending:  # else it has gone meanwhile
                self._pending.discard(name)
                self._note(name, info)

    def _note(self, name: str, info: AsyncServiceInfo) -> None:
        txt = {
            key.decode("utf-8", "replace"): (value or b"").decode("utf-8", "replace")
            for key, value in info.properties.items()
            if isinstance(key, bytes)
        }
        terms = Terms(
            key=self._key,
            cluster=self._config.cluster or "",
            networks=tuple(place.network for place in self.places if not place.is_loopback),
            own=frozenset(place.address for place in self.places),
            protocol=PROTOCOL_VERSION,
            may_be_loopback=any(place.is_loopback for place in self.places),
        )
        sighting = judge(name.removesuffix(f".{SERVICE_TYPE}"), txt, terms, time.time())
        if name not in self._seen and len(self._seen) >= _MOST_SEEN:
            least = next((known for known, one in self._seen.items() if one.ignored is not None), None)
            self.ignored["too_many"] += 1
            if least is None or sighting.ignored is not None:
                return
            del self._seen[least]
        self._seen[name] = sighting
        if sighting.ignored is not None:
            self.ignored[sighting.ignored.value] += 1
            self._tell(sighting)
        self.changed.set()

    def _tell(self, sighting: Sighting) -> None:
        news = (sighting.name, sighting.ignored.value if sighting.ignored else "")
        if news in self._told or len(self._told) >= _MOST_SEEN:
            return
        self._told.add(news)
        _log.warning("an announcement on the LAN is ignored (%s, %s): %s", news[1], sighting.name, sighting.why)

    async def listen(self, patience_s: float) -> Choice:
        """What to do by what is announced within ``patience_s``; sooner, where one is and no other one follows."""
        deadline = steady_now() + patience_s
        while True:
            choice = choose(self.sightings)
            if choice.endpoints:
                deadline = min(deadline, steady_now() + _SETTLE_S)
            self.changed.clear()
            try:
                async with asyncio.timeout(deadline - steady_now()):
                    await self.changed.wait()
            except TimeoutError:
                return choice

    async def collect(self, seconds: float) -> tuple[tuple[Sighting, ...], Choice]:
        """All that is announced within so many seconds, and what would be made of it."""
        await asyncio.sleep(seconds)
        return self.sightings, choose(self.sightings)


async def _closed(lan: AsyncZeroconf) -> None:
    with contextlib.suppress(TimeoutError, *_TROUBLE):
        async with asyncio.timeout(_GOODBYE_S):
            await lan.async_close()

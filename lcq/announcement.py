"""What a scheduler says of itself on the LAN, how that is signed, and what of it is believed. Pure: no I/O, no clock.

An announcement is a hint where to ask, and nothing more. docs/discovery.md says what a signature protects.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import lru_cache

from lcq.errors import InvalidInput
from lcq.routing import printable

SERVICE_TYPE = "_lcq._tcp.local."
FORM = "1"  # of the announcement: another one is not read
SHORTEST_KEY = 16  # characters
SPAN_S = 300  # by how much the time in a signed announcement and ours may differ

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@+-]{0,63}")
_VERSION = re.compile(r"[0-9A-Za-z.+-]{1,32}")
_MOST_ADDRESSES = 16
_MOST_TEXT = 250  # bytes of one key=value in a TXT record


class Ignored(StrEnum):
    """Why an announcement is not used. The closed list."""

    MALFORMED = "malformed"
    UNSIGNED = "unsigned"
    WRONG_SIGNATURE = "wrong_signature"
    STALE = "stale"
    OTHER_CLUSTER = "other_cluster"
    OTHER_PROTOCOL = "other_protocol"
    NO_ADDRESS = "no_address"


class Signed(StrEnum):
    NO = "no"
    YES = "yes"
    UNCHECKED = "unchecked"  # there is a signature, and no key here to check it by


@dataclass(frozen=True)
class Announcement:
    """One scheduler's words. ``at_s``: when they were said, seconds since 1970."""

    scheduler: str
    cluster: str
    cluster_id: str
    addresses: tuple[str, ...]
    port: int
    protocol: int
    oldest: int  # the oldest protocol that it still answers
    version: str
    at_s: int

    def to_txt(self, key: bytes | None) -> dict[str, str]:
        """The TXT record, signed if there is a ``key``. Addresses that do not fit into one are left out."""
        addresses = list(self.addresses[:_MOST_ADDRESSES])
        while len(",".join(addresses)) > _MOST_TEXT:
            addresses.pop()
        said = replace(self, addresses=tuple(addresses))
        txt = {
            "form": FORM, "scheduler": said.scheduler, "cluster": said.cluster, "id": said.cluster_id,
            "addresses": ",".join(addresses), "port": str(said.port), "protocol": str(said.protocol),
            "oldest": str(said.oldest), "version": said.version, "at": str(said.at_s),
        }  # fmt: skip
        return txt | {"sig": said.signature(key)} if key is not None else txt

    def signature(self, key: bytes) -> str:
        """An HMAC over all that is said."""
        words = [
            SERVICE_TYPE, FORM, self.scheduler, self.cluster, self.cluster_id, list(self.addresses), self.port,
            self.protocol, self.oldest, self.version, self.at_s,
        ]  # fmt: skip
        return hmac.new(_stretched(key), json.dumps(words).encode(), hashlib.sha256).hexdigest()


@lru_cache(maxsize=8)
def _stretched(key: bytes) -> bytes:
    """The key as it is used: who has overheard an announcement is to pay for each guess."""
    return hashlib.scrypt(key, salt=b"lcq discovery 1", n=2**14, r=8, p=1, dklen=32)


def read_txt(txt: Mapping[str, str]) -> tuple[Announcement, str]:
    """The announcement in a TXT record, and its signature ("": none), neither checked nor believed.

    Raises:
        InvalidInput: it is not in our form; says what is wrong, safe to print.
    """

    def text(name: str, form: re.Pattern[str]) -> str:
        value = txt.get(name, "")
        if not form.fullmatch(value):
            raise InvalidInput(f"{name} is {printable(value)[:80]!r}")
        return value

    def number(name: str, least: int, most: int) -> int:
        value = txt.get(name, "")
        if not re.fullmatch(r"[0-9]{1,12}", value) or not least <= int(value) <= most:
            raise InvalidInput(f"{name} is {printable(value)[:80]!r}")
        return int(value)

    if txt.get("form") != FORM:
        raise InvalidInput(f"form is {printable(txt.get('form', ''))[:80]!r}, known is {FORM}")
    listed = [one for one in txt.get("addresses", "").split(",") if one]
    if not listed or len(listed) > _MOST_ADDRESSES:
        raise InvalidInput(f"it names {len(listed)} addresses")
    for one in listed:
        try:
            ipaddress.ip_address(one)
        except ValueError as error:
            raise InvalidInput(f"{printable(one)[:80]!r} is no IP address") from error
    announcement = Announcement(
        scheduler=text("scheduler", _NAME),
        cluster=text("cluster", _NAME),
        cluster_id=text("id", _NAME),
        addresses=tuple(listed),
        port=number("port", 1, 65535),
        protocol=number("protocol", 1, 10**6),
        oldest=number("oldest", 1, 10**6),
        version=text("version", _VERSION),
        at_s=number("at", 0, 10**12 - 1),
    )
    signature = txt.get("sig", "")
    if signature and not re.fullmatch(r"[0-9a-f]{64}", signature):
        raise InvalidInput("sig is not 64 hexadecimal digits")
    return announcement, signature


@dataclass(frozen=True)
class Terms:
    """By what announcements are judged. ``cluster``: "" for any; ``networks``: those that this host is on, by its
    addresses ``own``.
    """

    key: bytes | None
    cluster: str
    networks: tuple[Network, ...]
    protocol: int
    own: frozenset[str] = frozenset()
    may_be_loopback: bool = False


@dataclass(frozen=True)
class Sighting:
    """An announcement as it was judged: ``endpoints`` to ask at, or why it is ignored."""

    name: str  # of the mDNS service, made printable
    announcement: Announcement | None
    signed: Signed
    endpoints: tuple[str, ...] = ()
    ignored: Ignored | None = None
    why: str = ""


def judge(name: str, txt: Mapping[str, str], terms: Terms, now_s: float) -> Sighting:
    """What is to be made of a service of this name with this TXT record at ``now_s``, seconds since 1970."""
    name = printable(name)[:100]
    try:
        said, signature = read_txt(txt)
    except InvalidInput as problem:
        return Sighting(name, None, Signed.NO, ignored=Ignored.MALFORMED, why=problem.message)
    signed = Signed.UNCHECKED if signature else Signed.NO

    def ignored(code: Ignored, why: str) -> Sighting:
        return Sighting(name, said, signed, ignored=code, why=why)

    if terms.key is not None:
        if not signature:
            return ignored(Ignored.UNSIGNED, "it is not signed, and there is a discovery.key here")
        if not hmac.compare_digest(signature, said.signature(terms.key)):
            return ignored(Ignored.WRONG_SIGNATURE, "it is not signed by the discovery.key that is here")
        signed = Signed.YES
        if abs(now_s - said.at_s) > SPAN_S:
            return ignored(
                Ignored.STALE,
                f"it was signed {_told_span(now_s - said.at_s)} our time: an old one sent again, or clocks that differ",
            )
    if terms.cluster not in ("", said.cluster, said.cluster_id):
        return ignored(Ignored.OTHER_CLUSTER, f"it is of cluster {said.cluster}, wanted is {terms.cluster}")
    if not said.oldest <= terms.protocol <= said.protocol:
        return ignored(
            Ignored.OTHER_PROTOCOL, f"it answers protocol {said.oldest} to {said.protocol}, we speak {terms.protocol}"
        )
    near, far = _usable(said.addresses, terms)
    usable = near + far if signed is Signed.YES else near  # who is not sure whose word it is stays in the LAN
    if not usable:
        listed = ", ".join(said.addresses[:4])
        return ignored(Ignored.NO_ADDRESS, f"none of its addresses ({listed}) is in a network that this host is on")
    return replace(Sighting(name, said, signed), endpoints=tuple(_endpoint(one, said.port) for one in usable))


def _told_span(seconds: float) -> str:
    return f"{abs(seconds):.0f} s {'before' if seconds > 0 else 'after'}"


def _usable(addresses: Iterable[str], terms: Terms) -> tuple[list[Address], list[Address]]:
    """Those in networks of ours, and those that are elsewhere; without any that cannot be a scheduler's."""
    near: list[Address] = []
    far: list[Address] = []
    for one in map(ipaddress.ip_address, addresses):
        if one.is_multicast or one.is_unspecified or one.is_reserved or getattr(one, "ipv4_mapped", None):
            continue
        if isinstance(one, ipaddress.IPv6Address) and (one.is_link_local or one.scope_id):
            continue  # says nothing without the link that it is on
        if one.is_loopback:
            if terms.may_be_loopback:
                near.append(one)
        elif any(one in network for network in terms.networks if network.version == one.version):
            near.append(one)
        else:
            far.append(one)
    # Two hosts may have the same address on networks of their own (docker0): ours leads to ourselves.
    others = [one for one in near if str(one) not in terms.own]
    return others or near, far


def _endpoint(address: Address, port: int) -> str:
    return f"tcp://[{address}]:{port}" if address.version == 6 else f"tcp://{address}:{port}"


@dataclass(frozen=True)
class Choice:
    """Where to ask, after all that has been seen; ``why`` nowhere, if nowhere."""

    endpoints: tuple[str, ...] = ()
    clusters: tuple[str, ...] = ()  # told, each with where it was seen
    why: str = ""


def choose(sightings: Sequence[Sighting]) -> Choice:
    """All schedulers of the one cluster that was seen; none where there are several: nobody can tell which is meant."""
    by_cluster: dict[tuple[str, str], list[Sighting]] = {}
    for one in sorted(sightings, key=lambda one: one.name):
        if one.endpoints and one.announcement is not None:
            by_cluster.setdefault((one.announcement.cluster_id, one.announcement.cluster), []).append(one)
    told = tuple(
        f"{name} ({cluster_id}, at {seen[0].endpoints[0].removeprefix('tcp://')})"
        for (cluster_id, name), seen in sorted(by_cluster.items())
    )
    if len({cluster_id for cluster_id, _ in by_cluster}) > 1:
        return Choice(clusters=told, why=f"{len(told)} clusters are announced here: {', '.join(told)}")
    endpoints = tuple(dict.fromkeys(where for seen in by_cluster.values() for one in seen for where in one.endpoints))
    if endpoints:
        return Choice(endpoints, told)
    reasons = sorted({one.why for one in sightings if one.why})
    return Choice(why=f"{len(sightings)} announcements are ignored: {'; '.join(reasons[:3])}" if sightings else "")

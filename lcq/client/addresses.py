"""Where a cluster's schedulers are, as far as settings, this user's data folder and the LAN tell."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Sequence
from pathlib import Path

from lcq.config import DistributedConfig
from lcq.embedded import read_cluster_file
from lcq.errors import InvalidInput, NoMulticast, SeveralClusters
from lcq.keyring import client_file, host_of, read_credential
from lcq.sockets import is_loopback

log = logging.getLogger(__name__)

LISTEN_S = 3.0  # how long the LAN is listened to where nobody has said where the scheduler is

_ADDRESS = re.compile(r"^(?:tcp://)?(?P<host>\[[0-9A-Fa-f:.%]+\]|[^\s:/\[\]]+)(?::(?P<port>\d{1,5}))?$")
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1", "[::1]"})


def find_schedulers(
    config: DistributedConfig, scheduler: str | None = None, *, key_file: Path | None = None
) -> tuple[str, ...]:
    """The control endpoints (``tcp://host:port``) of the schedulers to talk to, each once, at least one.

    Those are the ones of ``scheduler`` ("HOST:PORT" or "HOST", several with commas between them); else the cluster
    that runs on this user's data folder, unless the configuration names another host; else those where the key in
    ``key_file`` (default: this user's) was enrolled, if the configuration names none; else the configured address;
    and with these the further ones that ``schedulers`` of the configuration names.

    Raises:
        InvalidInput: one of them is not an address.
        InvalidConfig: the key cannot be read.
    """
    if scheduler is not None:
        return tuple(dict.fromkeys(_endpoint_of(one, config) for one in scheduler.split(",")))
    first = config.control_endpoint
    if config.scheduler_host in _LOOPBACK:
        cluster = read_cluster_file(config.data_path)
        if cluster is not None:
            first = cluster.control_endpoint
        elif not config.has_address:
            joined = _joined(config, key_file)
            if joined:
                return joined
    return tuple(dict.fromkeys((first, *(_endpoint_of(one, config) for one in config.schedulers))))


def looks_around(config: DistributedConfig, scheduler: str | None = None, *, key_file: Path | None = None) -> bool:
    """Whether a scheduler is to be looked for on the LAN: nobody has said where it is, and this user runs none here."""
    if scheduler is not None or config.has_address or not config.discovery.enabled:
        return False
    return read_cluster_file(config.data_path) is None and not _joined(config, key_file)


def _joined(config: DistributedConfig, key_file: Path | None) -> tuple[str, ...]:
    credential = read_credential(key_file or client_file(config))
    return tuple(f"tcp://{place}" for place in credential.schedulers) if credential is not None else ()


async def listens(endpoint: str) -> bool:
    """Whether somebody has bound this address of this host."""
    host, _, port = endpoint.removeprefix("tcp://").rpartition(":")
    try:
        async with asyncio.timeout(1.0):
            _, writer = await asyncio.open_connection(host, int(port))
    except (OSError, TimeoutError):
        return False
    writer.close()
    return True


def unbelieved(config: DistributedConfig, endpoints: Sequence[str]) -> str:
    """Why what the LAN tells is not to be used; "" if it is: anybody on a LAN can say that he is a scheduler."""
    elsewhere = [one for one in endpoints if not is_loopback(host_of(one))]
    if not elsewhere or config.discovery.has_key or config.zeromq.trusted_network:
        return ""
    return (
        f"the LAN tells of a scheduler at {elsewhere[0].removeprefix('tcp://')}, on its word alone: join it with a "
        "token (lcq keys invite), name it by --scheduler, sign its word by discovery.key, or set "
        "zeromq.trusted_network: true"
    )


async def found_around(config: DistributedConfig, patience_s: float = LISTEN_S) -> tuple[str, ...]:
    """The schedulers that the LAN tells of; none if it tells of none.

    Raises:
        SeveralClusters: of several clusters.
        InvalidConfig: there is something wrong with ``discovery.key``.
    """
    from lcq.discovery import Browser

    try:
        async with Browser(config.discovery) as browser:
            choice = await browser.listen(patience_s)
    except NoMulticast as trouble:
        log.warning("%s", trouble.message)
        return ()
    if len(choice.clusters) > 1:
        raise SeveralClusters(choice.why)
    if not choice.endpoints:
        log.warning("%s", choice.why or f"no scheduler is announced on the LAN either (listened for {patience_s:g} s)")
    why = unbelieved(config, choice.endpoints)
    if why:
        log.warning("%s", why)
        return ()
    return choice.endpoints


def _endpoint_of(address: str, config: DistributedConfig) -> str:
    parts = _ADDRESS.match(address.strip())
    port = int(parts["port"] or config.zeromq.control_port) if parts else 0
    if not parts or not 0 < port < 65536:
        raise InvalidInput(
            f"{address!r} is not the address of a scheduler",
            hint=f"give HOST:PORT, for example gpu-1:{config.zeromq.control_port or 5571}",
        )
    return f"tcp://{parts['host']}:{port}"


def host_and_port(endpoint: str) -> tuple[str, str]:
    """By what two endpoints are told to be the same: this host has one name."""
    host, _, port = endpoint.removeprefix("tcp://").rpartition(":")
    return ("127.0.0.1" if host in _LOOPBACK else host), port

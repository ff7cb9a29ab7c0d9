"""The examination: this host, its Redis where it has one, and the cluster where one is reachable."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from lcq.client import AsyncClient
from lcq.config import DistributedConfig
from lcq.doctor import cluster, gpus, host, ports, redis
from lcq.doctor.findings import Finding, Level, finding
from lcq.embedded import read_cluster_file
from lcq.errors import InvalidConfig, LcqError, SchedulerUnreachable, StateUnavailable
from lcq.hardware import host_name, memory
from lcq.lang import N

More = Callable[[DistributedConfig, str], Iterable[Finding]]
"""What another package adds of this host, such as the weights that lie here."""


async def examine(
    config: DistributedConfig,
    *,
    scheduler: str | None = None,
    config_file: Path | None = None,
    local: bool = False,
    patience_s: float = 5.0,
    more: Iterable[More] = (),
) -> list[Finding]:
    """All findings. ``local``: of this host alone. ``patience_s``: how long a scheduler may take to answer."""
    where = host_name()
    found = await asyncio.to_thread(lambda: list(of_host(config, where, config_file=config_file, more=more)))
    found += await of_redis(config, where)
    if not local:
        found += await of_cluster(config, where, scheduler=scheduler, patience_s=patience_s)
    return list(_once(found))


def _once(found: Iterable[Finding]) -> Iterator[Finding]:
    """This host's clock is held against Redis's by two ways; it is told of once."""
    known: set[str] = set()
    for one in found:
        if one.code != "clock_off" or one.where not in known:
            yield one
        if one.code == "clock_off":
            known.add(one.where)


def of_host(
    config: DistributedConfig, where: str, *, config_file: Path | None = None, more: Iterable[More] = ()
) -> Iterator[Finding]:
    """What needs nobody else: versions, files, disks, limits, GPUs, and what other packages add."""
    yield from host.versions(where)
    yield from host.secrets(config, where, config_file=config_file)
    yield from host.disks(host.places(config), where)
    yield from host.limits(where)
    yield from gpus.gpus(where)
    for one in more:
        yield from one(config, where)


async def of_redis(config: DistributedConfig, where: str) -> list[Finding]:
    """The Redis that is configured here, or the private one of this user's cluster; nothing where there is neither."""
    from lcq.state.checkup import look_at

    running = read_cluster_file(config.data_path)
    url = running.redis_url if config.redis.is_private and running is not None else ""
    if not config.redis.is_private:
        url = config.redis.address
    if not url:
        return []
    try:
        facts = await look_at(url)
    except StateUnavailable as away:
        return [_away(away, url)]
    except InvalidConfig as wrong:
        return [
            finding(
                "redis_unreachable",
                Level.PROBLEM,
                redis.place_of(url),
                "{why}",
                fix="{hint}",
                why=wrong.message,
                hint=wrong.hint,
            )
        ]
    found = list(redis.judged(facts, url, unsafe=config.redis.unsafe))
    bound_s = config.agent.clock_skew_s
    found += cluster.of_clock(where, facts.ahead_s, facts.error_s, bound_s)
    if url.startswith("unix://") or config.redis.is_private:
        found += redis.of_its_host(facts, where, available_mib=memory().available_mib)
    return found


def _away(away: StateUnavailable, url: str) -> Finding:
    if "NOPERM" in away.message or "no permissions" in away.message:  # a console's account: it reads tasks, not INFO
        return finding(
            "redis_unseen",
            Level.NOTE,
            redis.place_of(url),
            N("the account that is configured here may not look at it: nothing is known of its settings"),
            fix=N("lcq doctor on the scheduler's host, whose account may"),
        )
    return finding(
        "redis_unreachable",
        Level.PROBLEM,
        redis.place_of(url),
        "{why}",
        fix="{hint}",
        why=away.message,
        hint=away.hint,
    )


async def of_cluster(
    config: DistributedConfig, where: str, *, scheduler: str | None = None, patience_s: float = 5.0
) -> list[Finding]:
    """The cluster that a client with these settings would talk to."""
    client = AsyncClient(config, scheduler=scheduler, timeout_s=patience_s)
    try:
        async with client:
            seen = await cluster.look_around(client)
            endpoint = client.endpoint
    except SchedulerUnreachable as away:
        return await _nobody(config, where, client.endpoint, away, is_named=scheduler is not None)
    except LcqError as refusal:
        code = "version_protocol" if refusal.code == "version_mismatch" else "port_no_scheduler"
        why, hint = refusal.message, refusal.hint
        return [finding(code, Level.PROBLEM, client.endpoint, "{why}", fix="{hint}", why=why, hint=hint)]
    found = list(cluster.judged(seen, config, where))
    found += await ports.through(cluster.doors(seen, endpoint, config), where)
    found += cluster.of_binding(seen, endpoint)
    return found


async def _nobody(
    config: DistributedConfig, where: str, endpoint: str, away: SchedulerUnreachable, *, is_named: bool
) -> list[Finding]:
    """No scheduler answers: which side keeps us from it; or none is there to be asked."""
    if not is_named and not config.has_address and read_cluster_file(config.data_path) is None:
        return [
            finding(
                "port_no_scheduler",
                Level.NOTE,
                where,
                N("no cluster is reachable from here, and none is configured"),
                fix=N("lcq up starts one here; scheduler_host: HOST, or --scheduler, names another"),
            )
        ]
    address, _, port = endpoint.removeprefix("tcp://").rpartition(":")
    door = ports.Door(N("the control socket"), address, int(port), "zeromq.bind")
    found = await ports.through([door], where)
    if found and found[0].level >= Level.WARNING:
        return found
    return [
        finding(
            "port_no_scheduler",
            Level.PROBLEM,
            endpoint.removeprefix("tcp://"),
            N("something listens there and does not answer as a scheduler: {why}"),
            fix=N("is it another program's port, a frozen scheduler, or one that wants a key?"),
            why=away.message,
        )
    ]

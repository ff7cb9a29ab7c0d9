"""What is to be said of a Redis, going by what it tells of itself. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from lcq.doctor.findings import Finding, Level, finding
from lcq.errors import without_password
from lcq.lang import N
from lcq.state.checkup import RedisFacts
from lcq.state.connection import MINIMUM_VERSION

_SLOW_MS = (10.0, 100.0)  # the median of its answers: worth a warning; a problem
_FULL = (0.8, 0.95)  # of maxmemory
_MIB = 2**20


def judged(facts: RedisFacts, url: str, *, unsafe: bool = False) -> Iterator[Finding]:
    """All there is to say. ``unsafe``: somebody accepts a server that may lose data (``redis.unsafe``)."""
    where = place_of(url)
    risky = Level.NOTE if unsafe else Level.PROBLEM
    found = [
        *_of_policy(facts, where, risky),
        *_of_its_disk(facts, where),
        *_of_its_memory(facts, where),
        *_of_its_answers(facts, where),
        *_of_its_replicas(facts, url, where),
    ]
    yield from found
    if not any(one.level >= Level.WARNING for one in found):
        yield finding(
            "redis_ok",
            Level.OK,
            where,
            N("{version}: AOF {fsync}, {policy}, {used:,} MiB in use, answers in {median:.1f} ms"),
            version=facts.version,
            fsync=_fsync(facts),
            policy=facts.info.get("maxmemory_policy", "noeviction"),
            used=int(facts.info.get("used_memory", 0)) // _MIB,
            median=_median(facts),
        )


def place_of(url: str) -> str:
    """A server's address, for a person: no password, no options."""
    return without_password(url).partition("?")[0].removeprefix("unix://")


def _of_policy(facts: RedisFacts, where: str, risky: Level) -> Iterator[Finding]:
    info = facts.info
    if facts.compatible < MINIMUM_VERSION:
        yield finding(
            "redis_old",
            Level.PROBLEM,
            where,
            N("it is {version}; LCQ needs Redis 6.2 or newer, or Valkey"),
            fix=N("install a newer one; its files can be read by it"),
            version=facts.version,
        )
    if info.get("role") not in (None, "master"):
        yield finding(
            "redis_replica",
            Level.PROBLEM,
            where,
            N("it is a replica of {primary}, and cannot be written"),
            fix=N("redis: {{url: redis://{primary}/0}}, or an address by way of its Sentinels (docs/redis.md)"),
            primary=f"{info.get('master_host')}:{info.get('master_port')}",
        )
    if not info.get("aof_enabled") and not info.get("loading"):
        yield finding(
            "redis_forgets",
            risky,
            where,
            N("appendonly is off: accepted tasks are gone when it stops"),
            fix=N("redis-cli config set appendonly yes, and 'appendonly yes' in its redis.conf"),
        )
    elif _fsync(facts) == "no":
        yield finding(
            "redis_fsync_off",
            Level.WARNING,
            where,
            N("appendfsync is no: what was accepted in the last half minute is gone with the power"),
            fix=N("redis-cli config set appendfsync everysec, and the same in its redis.conf"),
        )
    policy = info.get("maxmemory_policy", "noeviction")
    if policy != "noeviction":
        yield finding(
            "redis_evicts",
            risky,
            where,
            N("maxmemory-policy is {policy}: when it is full it throws tasks away"),
            fix=N("redis-cli config set maxmemory-policy noeviction, and the same in its redis.conf"),
            policy=policy,
        )


def _of_its_disk(facts: RedisFacts, where: str) -> Iterator[Finding]:
    info = facts.info
    if info.get("aof_enabled") and info.get("aof_last_write_status", "ok") != "ok":
        yield finding(
            "redis_log_failing",
            Level.PROBLEM,
            where,
            N("it cannot write its log, and refuses all writes: is its disk full?"),
            fix=N("df -h on its host; its own log says why"),
        )
    elif info.get("aof_enabled") and info.get("aof_last_bgrewrite_status", "ok") != "ok":
        yield finding(
            "redis_log_failing",
            Level.WARNING,
            where,
            N(
                "the last time it could not write its log anew, which grows until it can: no memory for a fork, "
                "or no room"
            ),
            fix=N("sysctl vm.overcommit_memory=1 on its host; then redis-cli bgrewriteaof"),
        )
    if late := int(info.get("aof_delayed_fsync", 0)):
        yield finding(
            "redis_disk_slow",
            Level.NOTE,
            where,
            N("its disk was late {late:,} times since it started: answers waited for a sync"),
            fix=N("give its folder a faster disk, or one of its own"),
            late=late,
        )


def _of_its_memory(facts: RedisFacts, where: str) -> Iterator[Finding]:
    used, most = int(facts.info.get("used_memory", 0)), int(facts.info.get("maxmemory", 0))
    if not most or used < _FULL[0] * most:
        return
    yield finding(
        "redis_full",
        Level.PROBLEM if used >= _FULL[1] * most else Level.WARNING,
        where,
        N("{used:,} of {most:,} MiB are in use: when it is full, new tasks are refused"),
        fix=N("redis-cli config set maxmemory {more}mb, or keep finished tasks for less long (retention.completed_s)"),
        used=used // _MIB,
        most=most // _MIB,
        more=2 * most // _MIB,
    )


def _of_its_answers(facts: RedisFacts, where: str) -> Iterator[Finding]:
    median = _median(facts)
    if median >= _SLOW_MS[0]:
        yield finding(
            "redis_slow",
            Level.PROBLEM if median >= _SLOW_MS[1] else Level.WARNING,
            where,
            N("it takes {median:.0f} ms to answer, {most:.0f} ms at most: every step of a task waits for that"),
            fix=N("redis-cli --latency, redis-cli slowlog get; is it far away, or is its host busy?"),
            median=median,
            most=facts.answers_ms[-1],
        )


def _of_its_replicas(facts: RedisFacts, url: str, where: str) -> Iterator[Finding]:
    info = facts.info
    for number in range(int(info.get("connected_slaves", 0))):
        replica = info.get(f"slave{number}", {})
        if isinstance(replica, dict) and replica.get("state") != "online":
            yield finding(
                "redis_replica_lags",
                Level.WARNING,
                where,
                N("its replica {replica} is not in sync ({state})"),
                fix=N("see that replica's log"),
                replica=f"{replica.get('ip')}:{replica.get('port')}",
                state=replica.get("state"),
            )
    if "+sentinel" in url and facts.settings.get("min-replicas-to-write") == "0":
        yield finding(
            "redis_split_brain",
            Level.NOTE,
            where,
            N("min-replicas-to-write is 0: a primary that is cut off goes on taking writes that will be lost"),
            fix=N("redis-cli config set min-replicas-to-write 1, on all of its servers"),
        )
    is_here = url.startswith("unix://") or any(f"@{host}" in url or f"//{host}" in url for host in _HERE)
    if not is_here and "@" not in url and facts.settings:
        yield finding(
            "redis_open",
            Level.WARNING,
            where,
            N("it asks for no password: whoever reaches it may change everything"),
            fix=N("give it accounts (docs/redis.md), and LCQ_REDIS__URL=redis://lcq:PASSWORD@host:6379/0"),
        )


_HERE = ("127.0.0.1", "localhost", "[::1]")


def _fsync(facts: RedisFacts) -> str:
    return facts.settings.get("appendfsync", "on")


def _median(facts: RedisFacts) -> float:
    return facts.answers_ms[len(facts.answers_ms) // 2] if facts.answers_ms else 0.0


def of_its_host(facts: RedisFacts, where: str, *, available_mib: int, root: Path = Path("/")) -> Iterator[Finding]:
    """What this host's kernel may do to a Redis that runs here. ``root``: where /proc and /sys are found."""
    used_mib = int(facts.info.get("used_memory_rss", 0)) // _MIB
    if _read(root / "proc/sys/vm/overcommit_memory") == "0" and used_mib > available_mib // 2:
        yield finding(
            "limit_overcommit",
            Level.WARNING,
            where,
            N(
                "Redis holds {used:,} MiB, {available:,} are available, and vm.overcommit_memory is 0: its next "
                "snapshot may fail"
            ),
            fix=N("sysctl -w vm.overcommit_memory=1, and the same in /etc/sysctl.d/"),
            used=used_mib,
            available=available_mib,
        )
    if "[always]" in _read(root / "sys/kernel/mm/transparent_hugepage/enabled"):
        yield finding(
            "limit_huge_pages",
            Level.NOTE,
            where,
            N("transparent huge pages are always on: while Redis writes a snapshot, answers take longer"),
            fix=N("echo madvise > /sys/kernel/mm/transparent_hugepage/enabled"),
        )


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        return ""

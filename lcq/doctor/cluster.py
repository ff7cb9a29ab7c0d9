"""What is to be said of a cluster, going by what its schedulers tell of themselves and of their nodes."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from lcq import __version__
from lcq.agreement import differing, read_fingerprints
from lcq.client import AsyncClient
from lcq.config import DistributedConfig
from lcq.doctor.findings import Finding, Level, finding
from lcq.doctor.ports import Door
from lcq.errors import LcqError, SchedulerUnreachable
from lcq.lang import N
from lcq.models import NodeRecord, NodeStatus, TaskStatus
from lcq.sockets import is_loopback
from lcq.wire import PROTOCOL_VERSION, InfoAnswer

_LOOKED_AT = 500  # waiting tasks whose models are counted
_HEARD = frozenset({NodeStatus.ONLINE, NodeStatus.DRAINING, NodeStatus.QUARANTINED, NodeStatus.SUSPECT})
_TOO_FAR_S = 60.0  # a clock that is off by more is a problem: certificates and announcements fail


@dataclass(frozen=True)
class Seen:
    """What a cluster told. ``ahead_s``: how far our clock is ahead of its Redis's, give or take ``error_s``.

    ``wanted``: of the tasks that wait, how many want each model. ``settings``: of one scheduler; by section.
    """

    schedulers: tuple[InfoAnswer, ...]
    nodes: tuple[NodeRecord, ...]
    wanted: Mapping[str, int] = field(default_factory=dict)
    settings: Mapping[str, object] = field(default_factory=dict)
    ahead_s: float | None = None
    error_s: float = 0.0


async def look_around(client: AsyncClient) -> Seen:
    """Ask every scheduler that ``client`` knows who it is, and one of them the rest.

    Raises:
        SchedulerUnreachable: none answers.
        LcqError: what it refused, such as our protocol.
    """
    wall, began = time.time(), time.perf_counter()
    first = await client.info()
    took_s = time.perf_counter() - began
    ahead_s = None if first.now_ms is None else wall + took_s / 2 - first.now_ms / 1000
    infos = {first.scheduler_id: first}
    for _ in range(2 * client.known_schedulers):  # requests go round them
        more = await client.info()
        infos.setdefault(more.scheduler_id, more)
    nodes = await client.nodes()
    page = await client.page(status=TaskStatus.QUEUED, limit=_LOOKED_AT)
    wanted = Counter(record.task.model for record in page.tasks)
    settings: Mapping[str, object] = {}
    try:
        settings = (await client.settings()).values
    except SchedulerUnreachable:
        raise
    except LcqError:  # older than this question
        pass
    return Seen(tuple(infos.values()), nodes, wanted, settings, ahead_s, took_s / 2)


def judged(seen: Seen, config: DistributedConfig, where: str) -> Iterator[Finding]:
    """All there is to say of the cluster; ``where``: this host."""
    yield from of_versions(seen)
    yield from of_clocks(seen, config, where)
    yield from of_settings(seen)
    yield from of_models(seen)
    yield from of_nodes(seen.nodes)


# ---------------------------------------------------------------- versions, clocks, settings


def of_versions(seen: Seen) -> Iterator[Finding]:
    """Who runs another LCQ than the schedulers do, and than we."""
    found = {info.scheduler_id: info.version for info in seen.schedulers}
    newest = max(found.values(), key=_numbers, default=__version__)
    for scheduler in seen.schedulers:
        if scheduler.protocol != PROTOCOL_VERSION:
            yield finding(
                "version_protocol",
                Level.PROBLEM,
                scheduler.scheduler_id,
                N("it speaks protocol {theirs}, this program {ours}"),
                fix=N("bring schedulers to the newest LCQ first, then agents and clients (docs/upgrade.md)"),
                theirs=scheduler.protocol,
                ours=PROTOCOL_VERSION,
            )
    found |= {node.id: node.capability.version for node in seen.nodes if node.status in _HEARD}
    for name, version in found.items():
        if version and version != newest:
            yield finding(
                "version_differs",
                Level.WARNING,
                name,
                N("it runs LCQ {version}, the newest scheduler {newest}"),
                fix=N("pip install --upgrade lcq there, and restart it: it drains first (docs/upgrade.md)"),
                version=version,
                newest=newest,
            )


def of_clocks(seen: Seen, config: DistributedConfig, where: str) -> Iterator[Finding]:
    """How far this host's clock and the nodes' are off from Redis's."""
    bound_s = config.agent.clock_skew_s
    offs = {node.id: _offset(node) for node in seen.nodes if node.status in _HEARD}
    if seen.ahead_s is not None:
        offs[where] = (seen.ahead_s, seen.error_s)
    found = [one for name, off in offs.items() if off is not None for one in of_clock(name, *off, bound_s)]
    yield from found
    known = {name: off for name, off in offs.items() if off is not None}
    if known and not found:
        most = max(abs(ahead_s) for ahead_s, _ in known.values())
        yield finding(
            "clock_ok",
            Level.OK,
            where,
            N("within {most:.2f} s of Redis's (clocks looked at: {count})"),
            count=len(known),
            most=most,
        )


def _offset(node: NodeRecord) -> tuple[float, float] | None:
    ahead, error = node.telemetry.get("clock_offset_s"), node.telemetry.get("clock_error_s")
    return (ahead, error) if isinstance(ahead, float) and isinstance(error, float) else None


def of_clock(name: str, ahead_s: float, error_s: float, bound_s: float) -> Iterator[Finding]:
    """A clock that is off from Redis's by more than ``bound_s``, give or take ``error_s``."""
    off_s = abs(ahead_s)
    if off_s - error_s <= bound_s:
        return
    form = N("its clock is {off:.1f} s ahead of Redis's: times of files, certificates and announcements are wrong")
    if ahead_s < 0:
        form = N("its clock is {off:.1f} s behind Redis's: times of files, certificates and announcements are wrong")
    yield finding(
        "clock_off",
        Level.PROBLEM if off_s > _TOO_FAR_S else Level.WARNING,
        name,
        form,
        fix=N("there: sudo timedatectl set-ntp true; timedatectl shows whether it is synchronised"),
        off=off_s,
    )


def of_settings(seen: Seen) -> Iterator[Finding]:
    """Which settings differ that have to agree, which were refused, which wait for a restart."""
    found = list(_of_settings(seen))
    yield from found
    if not found:
        yield finding(
            "config_ok",
            Level.OK,
            _named(seen.schedulers),
            N("schedulers and nodes agree, and have taken over what files say"),
        )


def _of_settings(seen: Seen) -> Iterator[Finding]:
    for info in seen.schedulers:
        if info.config_error:
            yield _refused(info.scheduler_id, info.config_error)
        if info.config_waiting:
            yield finding(
                "config_needs_restart",
                Level.NOTE,
                info.scheduler_id,
                N("changed, and not in force yet: {keys}"),
                fix="sudo systemctl restart lcq-scheduler",
                keys=", ".join(info.config_waiting),
            )
    for node in seen.nodes:
        if node.status in _HEARD and node.telemetry.get("config_error"):
            yield _refused(node.id, str(node.telemetry["config_error"]))
    schedulers = {info.scheduler_id: read_fingerprints(info.agreed) for info in seen.schedulers}
    nodes = {
        node.id: read_fingerprints(str(node.telemetry.get("agreed", "")))
        for node in seen.nodes
        if node.status in _HEARD
    }
    head = next((told for told in schedulers.values() if told), {})
    for name, told in schedulers.items():
        yield from _drifted(name, differing(told, schedulers, {}))
    for name, told in nodes.items():
        yield from _drifted(name, differing(told, nodes, head))


def _drifted(name: str, keys: Sequence[str]) -> Iterator[Finding]:
    if keys:
        yield finding(
            "config_drift",
            Level.WARNING,
            name,
            N("its {keys} differ from those of the rest of the cluster"),
            fix=N("there: lcq config diff --all; have the files say the same"),
            keys=", ".join(keys),
        )


def _refused(name: str, why: str) -> Finding:
    return finding(
        "config_refused", Level.PROBLEM, name, N("it keeps its old settings: {why}"), fix="lcq config validate", why=why
    )


# ---------------------------------------------------------------- models, nodes


def of_models(seen: Seen) -> Iterator[Finding]:
    """Which models tasks wait for that no node has, or that some lack."""
    live = [node for node in seen.nodes if node.status in (NodeStatus.ONLINE, NodeStatus.SUSPECT)]
    for model, count in sorted(seen.wanted.items()):
        lack = [node for node in live if model not in node.capability.models]
        if not live or not lack:
            continue
        names = ", ".join(node.id for node in lack)
        whys = [why for node in lack if (why := _why_without(node, model))]
        facts = {"count": count, "model": model, "names": names, "why": f" ({whys[0]})" if whys else ""}
        fix = N("on a host that should: lcq models pull {model}, or the engine that has it (docs/models.md)")
        if len(lack) == len(live):
            yield finding(
                "model_wanted",
                Level.PROBLEM,
                names,
                N("{count} tasks wait for {model}, which no node has{why}"),
                fix=fix,
                **facts,
            )
        else:
            yield finding(
                "model_wanted",
                Level.NOTE,
                names,
                N("{count} tasks wait for {model}, which these nodes lack{why}"),
                fix=fix,
                **facts,
            )


def _why_without(node: NodeRecord, model: str) -> str:
    left_out = node.capability.left_out
    return next((why for what, why in left_out.items() if what in (model, f"model {model}")), "")


def of_nodes(nodes: Iterable[NodeRecord]) -> Iterator[Finding]:
    """Which nodes are not heard, take nothing, or have a device that does not work."""
    known = list(nodes)
    found = [one for node in known for one in _of_node(node)]
    yield from found
    online = [node for node in known if node.status is NodeStatus.ONLINE]
    if not online:
        yield finding(
            "node_none",
            Level.PROBLEM,
            "cluster",
            N("no node is online: tasks are taken in, and wait"),
            fix=N(
                "on a host with a GPU, or any: lcq-agent --scheduler HOST:PORT; 'lcq activate NODE' where one drains"
            ),
        )
    elif not any(one.level >= Level.WARNING for one in found):
        slots = sum(node.slots for node in online)
        yield finding(
            "node_ok",
            Level.OK,
            "cluster",
            N("online: {count}, with {slots} slots in all"),
            count=len(online),
            slots=slots,
        )


def _of_node(node: NodeRecord) -> Iterator[Finding]:
    if node.status is NodeStatus.OFFLINE:
        if node.running:
            yield finding(
                "node_silent",
                Level.PROBLEM,
                node.id,
                N("it is offline and still has tasks"),
                fix="lcq events --since 1h",
            )
        elif "left" not in node.why:
            yield finding(
                "node_silent",
                Level.NOTE,
                node.id,
                N("it is offline"),
                fix=N("on its host: systemctl status lcq-agent; it is forgotten by itself after a while"),
            )
        return
    if node.status is NodeStatus.SUSPECT:
        yield finding(
            "node_silent",
            Level.WARNING,
            node.id,
            N("it has not been heard for longer than a beat"),
            fix=N("on its host: lcq-agent doctor"),
        )
    if node.status is NodeStatus.QUARANTINED or node.quarantined:
        why = node.why or "; ".join(node.quarantined.values())
        yield finding(
            "node_quarantined",
            Level.WARNING,
            node.id,
            N("in quarantine: {why}"),
            fix=N("lcq node {node} shows it; it is probed by itself, and 'lcq activate {node}' ends it"),
            why=why,
            node=node.id,
        )
    not_claiming = str(node.telemetry.get("not_claiming", ""))
    if not_claiming and node.status is NodeStatus.ONLINE:
        yield finding(
            "node_takes_nothing",
            Level.WARNING,
            node.id,
            N("it takes no task: {why}"),
            fix=N("on its host: lcq-agent doctor"),
            why=not_claiming,
        )
    for device, reading in sorted(node.readings.items()):
        if (reading.fault and not reading.rest) or reading.alarm:
            yield finding(
                "node_device_fault",
                Level.WARNING,
                node.id,
                N("{device} takes no work: {why}"),
                fix=N("on its host: lcq-agent doctor"),
                device=device,
                why=reading.fault or reading.alarm,
            )


# ---------------------------------------------------------------- where a cluster listens


def doors(seen: Seen, endpoint: str, config: DistributedConfig) -> list[Door]:
    """The ports that agents and clients of this cluster need, at the host by which we reached it."""
    address = urlsplit(endpoint)
    host, control = address.hostname or "localhost", address.port or 0
    found = [Door(N("the control socket"), host, control, "zeromq.control_port")]
    zeromq = seen.settings.get("zeromq")
    base = zeromq.get("base_port", 0) if isinstance(zeromq, Mapping) else 0
    if base:
        found += [
            Door(N("the bells of queues"), host, base + queue.port_offset, "zeromq.base_port", needed=False)
            for queue in seen.schedulers[0].queues
        ]
    http = seen.settings.get("http")
    port = seen.settings.get("scheduler_port")
    if isinstance(http, Mapping) and http.get("enabled") and isinstance(port, int) and port:
        is_ours = is_loopback(host) or not is_loopback(str(http.get("bind", "")))
        if is_ours:  # else it is not meant to be reached from here
            found.append(Door("HTTP", host, port, "http.bind", needed=False))
    return found


def of_binding(seen: Seen, endpoint: str) -> Iterator[Finding]:
    """Whether other hosts can reach it at all."""
    zeromq = seen.settings.get("zeromq")
    if isinstance(zeromq, Mapping) and is_loopback(str(zeromq.get("bind", ""))):
        yield finding(
            "port_loopback",
            Level.NOTE,
            endpoint.removeprefix("tcp://"),
            N("the scheduler listens on {bind} alone: agents on other hosts cannot reach it"),
            fix=N("zeromq: {{bind: 0.0.0.0}}, after 'lcq keys init' (docs/enrolment.md)"),
            bind=zeromq["bind"],
        )


def _named(schedulers: Sequence[InfoAnswer]) -> str:
    return ", ".join(info.scheduler_id for info in schedulers)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part.isdigit())

"""What lcq doctor adds of a compute host: the weights that lie here, and how its agents are."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path

from lcq.config import DistributedConfig
from lcq.doctor.examine import of_cluster, of_host
from lcq.doctor.findings import Finding, Level, finding
from lcq.hardware import host_name
from lcq.lang import N
from worker.health import read_health
from worker.weights import WeightStore


def of_this_host(config: DistributedConfig, where: str) -> Iterator[Finding]:
    """The weights, each held against its checksum, and what each agent of this data folder says of itself."""
    yield from weights(config, where)
    yield from agents(config.data_path / "agents", where)


async def examined(config: DistributedConfig, *, scheduler: str | None, local: bool) -> list[Finding]:
    """What ``lcq-agent doctor`` tells: this host, and its way to the scheduler. Agents know no Redis."""
    where = host_name()
    found = await asyncio.to_thread(lambda: list(of_host(config, where, more=(of_this_host,))))
    if not any(one.area == "node" for one in found) and not _lives(config.data_path / "agents"):
        found.append(
            finding(
                "node_no_agent",
                Level.NOTE,
                where,
                N("no agent of this user runs on this host"),
                fix=N("lcq-agent --scheduler HOST:5571, or sudo lcq-agent --scheduler HOST:5571 install-service"),
            )
        )
    if not local:
        found += await of_cluster(config, where, scheduler=scheduler)
    return found


def _lives(folder: Path) -> bool:
    told = (read_health(home) for home in folder.glob("*"))
    return any(one is not None and one.is_alive for one in told)


def weights(config: DistributedConfig, where: str) -> Iterator[Finding]:
    """Whether installed weights are what was written. Reads them all: seconds for some gigabytes."""
    store = WeightStore(config.models_path, config.models)
    states = [state for state in store.verify() if state.state != "absent"]
    found = [
        finding(
            "model_damaged",
            Level.PROBLEM,
            where,
            N("the weights of {name}: {why}"),
            fix="lcq models rm {name} && lcq models pull {name}",
            name=state.name,
            why=state.found,
        )
        for state in states
        if state.state == "damaged"
    ]
    for state in states:
        folder = config.models_path / state.name
        files = [file for file in folder.glob("*") if not os.access(file, os.R_OK)] if folder.is_dir() else []
        if files or (folder.is_dir() and not os.access(folder, os.R_OK | os.X_OK)):
            found.append(
                finding(
                    "model_unreadable",
                    Level.PROBLEM,
                    where,
                    N("the weights of {name} cannot be read by this user"),
                    fix="sudo chmod -R a+rX {folder}",
                    name=state.name,
                    folder=str(folder),
                )
            )
    yield from found
    if states and not found:
        names = ", ".join(state.name for state in states if state.state == "installed")
        if names:
            yield finding("model_ok", Level.OK, where, N("weights are whole: {names}"), names=names)


def agents(folder: Path, where: str) -> Iterator[Finding]:
    """What the agents of this data folder last said: whether they claim tasks, and what waits in their spools."""
    for home in sorted(folder.glob("*")) if folder.is_dir() else ():
        told = read_health(home)
        if told is None or not told.is_alive:
            if kept := len(list((home / "spool").glob("*"))) if (home / "spool").is_dir() else 0:
                yield finding(
                    "node_spool",
                    Level.WARNING,
                    home.name,
                    N("its agent does not run, and {count} outcomes of it wait on this disk to be reported"),
                    fix="lcq-agent --name {name}",
                    count=kept,
                    name=home.name,
                )
        elif told.not_claiming:
            yield finding(
                "node_takes_nothing",
                Level.WARNING,
                home.name,
                N("it takes no task: {why}"),
                fix=N("lcq-agent --name {name} health says when it does again"),
                why=told.not_claiming,
                name=home.name,
            )

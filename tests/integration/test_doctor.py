"""The doctor at real clusters: of a healthy one it says nothing, of a broken one just what is broken."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from lcq.config import DistributedConfig
from lcq.doctor.examine import examine
from lcq.doctor.findings import Finding, Level
from tests.chaos.rig import Rig, a_rig
from tests.cluster import free_port, running_cluster
from tests.conftest import wait_until
from tests.faketime import SetClock
from tests.redis_rig import running_server
from worker.doctor import of_this_host

OWN = ("gpu", "limit")  # what is the business of whose machine this runs on
BUSY = frozenset({"redis_slow"})  # and how much it has to do


async def found_at(config: DistributedConfig, **how: Any) -> list[Finding]:
    return await examine(config, patience_s=60, more=(of_this_host,), **how)


def bad(findings: list[Finding]) -> dict[str, str]:
    """Of each code that is worse than a note: where."""
    found = (one for one in findings if one.level > Level.NOTE and one.area not in OWN)
    return {one.code: one.where for one in found if one.code not in BUSY}


@contextlib.asynccontextmanager
async def a_cluster(
    redis_url: str, folder: Path, **of_the_agent: Any
) -> AsyncIterator[tuple[Rig, DistributedConfig, str]]:
    """A scheduler and an agent whose settings differ by ``of_the_agent``; and the settings of who looks at them."""
    async with a_rig(redis_url, folder) as rig:
        own = rig.config.model_copy(update=of_the_agent)
        differing = dataclasses.replace(rig, config=own)
        async with differing.agent("gpu-1"):

            async def has_told() -> bool:
                return any("agreed" in node.telemetry for node in await rig.client.nodes())

            await wait_until(has_told, what="the node's first beat")
            told: Any = {"url": redis_url}
            config = rig.config.model_copy(
                update={"data_dir": folder / "data", "redis": type(rig.config.redis)(**told)}
            )
            yield rig, config, rig.scheduler.control_endpoint.removeprefix("tcp://")


async def test_of_a_healthy_cluster_nothing_is_said_but_that_it_is(redis_url: str, tmp_path: Path) -> None:
    async with a_cluster(redis_url, tmp_path) as (_, config, scheduler):
        found = await found_at(config, scheduler=scheduler)
    assert bad(found) == {}, [one.as_dict() for one in found]
    seen = {one.code for one in found}
    assert {"config_ok", "version_ok", "clock_ok", "port_ok", "key_ok", "disk_ok", "node_ok"} <= seen
    assert seen & {"redis_ok", *BUSY}


async def test_a_node_with_other_settings_is_found(redis_url: str, tmp_path: Path) -> None:
    limits = DistributedConfig(limits={"frames": 9}).limits  # type: ignore[arg-type]
    async with a_cluster(redis_url, tmp_path, limits=limits) as (_, config, scheduler):
        found = await found_at(config, scheduler=scheduler)
    assert bad(found) == {"config_drift": "gpu-1"}
    assert "limits" in next(one.found for one in found if one.code == "config_drift")


async def test_a_redis_without_a_log_is_found(tmp_path: Path) -> None:
    with running_server(tmp_path / "redis", appendonly="no") as server:
        config = DistributedConfig(data_dir=tmp_path / "data", redis={"url": server.url})  # type: ignore[arg-type]
        found = await found_at(config, local=True)
    assert bad(found) == {"redis_forgets": server.url}


async def test_an_account_that_may_only_read_tasks_is_no_problem_of_the_server(tmp_path: Path) -> None:
    with running_server(tmp_path / "redis") as server:
        server.ask(
            "ACL", "SETUSER", "view", "on", ">looks", "%R~{lcq}*", "resetchannels", "+@read", "+@connection", "+time"
        )
        url = f"redis://view:looks@127.0.0.1:{server.port}/0"
        found = await found_at(DistributedConfig(data_dir=tmp_path / "data", redis={"url": url}), local=True)  # type: ignore[arg-type]
    assert bad(found) == {}
    assert [one.where for one in found if one.code == "redis_unseen"] == [f"redis://127.0.0.1:{server.port}/0"]


async def test_a_redis_that_is_away_is_found(tmp_path: Path) -> None:
    url = f"redis://127.0.0.1:{free_port()}/0"
    found = await found_at(DistributedConfig(data_dir=tmp_path / "data", redis={"url": url}), local=True)  # type: ignore[arg-type]
    assert bad(found) == {"redis_unreachable": url}


async def test_a_scheduler_that_is_not_there_is_found_by_its_port(tmp_path: Path) -> None:
    config = DistributedConfig(data_dir=tmp_path / "data")
    found = await examine(config, scheduler=f"127.0.0.1:{free_port()}", patience_s=1)
    assert set(bad(found)) == {"port_refused"}


async def test_where_no_cluster_is_configured_none_is_missed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = DistributedConfig(data_dir=tmp_path / "data", zeromq={"control_port": free_port()})  # type: ignore[arg-type]
    found = await examine(config, patience_s=1)
    assert bad(found) == {}
    assert "port_no_scheduler" in {one.code for one in found}


@pytest.mark.chaos
def test_the_programs_find_a_clock_that_is_off_and_say_so_by_their_exit_codes(redis_url: str, tmp_path: Path) -> None:
    clock = SetClock(tmp_path)
    with running_cluster(redis_url, tmp_path / "data") as cluster:
        cluster.start_scheduler()
        cluster.start_agent("gpu-1")
        settings = os.environ | {"LCQ_DATA_DIR": str(tmp_path / "other"), "LCQ_REDIS__URL": redis_url}
        scheduler = ["--scheduler", f"127.0.0.1:{cluster.control_port}"]

        def ran(*command: str, **environment: str) -> tuple[int, dict[str, str]]:
            line = [sys.executable, "-m", *command]
            done = subprocess.run(line, env=settings | environment, capture_output=True, text=True, check=False)
            document = json.loads(done.stdout)
            assert document["exit_code"] == done.returncode
            bad = {one["code"]: one["where"] for one in document["findings"] if one["level"] in ("warning", "problem")}
            return done.returncode, {code: where for code, where in bad.items() if not code.startswith(OWN)}

        assert ran("lcq.cli.main", *scheduler, "doctor", "--json") == (0, {})
        clock.set("+30s")
        code, found = ran("lcq.cli.main", *scheduler, "doctor", "--json", **clock.environment)
        assert (code, set(found)) == (1, {"clock_off"})
        clock.set("+2h")
        code, found = ran("worker.cli", *scheduler, "doctor", "--json", **clock.environment)
        assert (code, set(found)) == (2, {"clock_off"})
        wrong = tmp_path / "wrong.yaml"
        wrong.write_text("agent: {drain_s: soon}\n")
        code, found = ran("worker.cli", *scheduler, "doctor", "--json", LCQ_CONFIG=str(wrong))
        assert (code, set(found)) == (2, {"config_invalid"})
        cluster.kill("scheduler", signal.SIGKILL)
        code, found = ran("worker.cli", *scheduler, "doctor", "--json")
        assert (code, set(found)) == (2, {"port_refused"})

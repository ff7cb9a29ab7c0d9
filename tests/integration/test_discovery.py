"""Schedulers that are found on the LAN: who announces, who is believed, who is used. On loopback's multicast."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import redis
from typer.testing import CliRunner

from lcq.announcement import SPAN_S, Ignored, Signed
from lcq.cli.main import app
from lcq.client import AsyncClient
from lcq.component import run_beside
from lcq.config import DistributedConfig
from lcq.discovery import Browser, key_of, places
from lcq.errors import InvalidConfig, NoMulticast, SeveralClusters
from lcq.models import NodeStatus
from lcq.scheduler import Scheduler
from tests.cluster import Cluster, free_port, running_cluster
from tests.conftest import wait_until, wait_until_sync
from tests.forked import run
from tests.lan import LOOPBACK, announced, needs_multicast, on_loopback, speaks_mdns, words
from tests.logs import logging_kept
from worker.seeker import Seeker

PATIENCE_S = 60.0


@pytest.fixture
def key() -> str:
    """A secret of this test, so that what others say on the same loopback is nothing to it."""
    return secrets.token_hex(16)


def settings(key: str, *, namespace: str = "{lcq}", **discovery: str) -> DistributedConfig:
    """A scheduler's on free ports, which is announced on loopback; or a client's that knows no address."""
    return DistributedConfig.model_validate(
        {
            "zeromq": {"base_port": 0, "control_port": 0},
            "redis": {"namespace": namespace},
            "discovery": {"enabled": True, "interfaces": (LOOPBACK,), "key": key} | discovery,
        }
    )


def a_client(config: DistributedConfig, folder: Path) -> AsyncClient:
    """One that knows no address; at the default one there is nobody."""
    zeromq = config.zeromq.model_copy(update={"control_port": free_port()})
    return AsyncClient(config.model_copy(update={"zeromq": zeromq, "data_dir": folder}), timeout_s=30)


@needs_multicast
async def test_a_scheduler_is_found_by_its_signed_word_and_not_after_its_end(redis_url: str, key: str) -> None:
    async with Browser(on_loopback(key=key)) as browser:
        async with Scheduler(settings(key, cluster="studio"), redis_url=redis_url) as scheduler:
            port = scheduler.control_endpoint.rpartition(":")[2]
            where = f"tcp://{LOOPBACK}:{port}"

            def seen() -> bool:
                return any(one.endpoints == (where,) and one.signed is Signed.YES for one in browser.sightings)

            await wait_until(seen, timeout=PATIENCE_S)
            assert (await browser.listen(PATIENCE_S)).endpoints == (where,)
        await wait_until(lambda: not seen(), timeout=PATIENCE_S, what="the word to be taken back")


@needs_multicast
async def test_what_strangers_say_is_ignored_and_counted_where_there_is_a_key(
    redis_url: str, key: str, caplog: pytest.LogCaptureFixture
) -> None:
    unsigned, wrong, old = words(), words(), words(at_s=int(time.time()) - 2 * SPAN_S)
    async with AsyncExitStack() as stack:
        browser = await stack.enter_async_context(Browser(on_loopback(key=key)))
        await stack.enter_async_context(announced(unsigned))
        await stack.enter_async_context(announced(wrong, key=secrets.token_hex(16)))
        await stack.enter_async_context(announced(old, key=key))
        await stack.enter_async_context(Scheduler(settings(key), redis_url=redis_url))

        def codes() -> dict[str, Ignored | None]:
            return {one.announcement.scheduler: one.ignored for one in browser.sightings if one.announcement}

        expected = {
            unsigned.scheduler: Ignored.UNSIGNED, wrong.scheduler: Ignored.WRONG_SIGNATURE, old.scheduler: Ignored.STALE
        }  # fmt: skip
        await wait_until(lambda: expected.items() <= codes().items(), timeout=PATIENCE_S)
        await wait_until(lambda: None in codes().values(), timeout=PATIENCE_S, what="the scheduler itself")
        assert f"tcp://{LOOPBACK}:9" not in (await browser.listen(PATIENCE_S)).endpoints
        assert {code.value for code in expected.values()} <= set(browser.ignored)
    for said in (unsigned, wrong, old):
        assert any(said.scheduler in line and "is ignored" in line for line in caplog.messages)


@needs_multicast
async def test_a_client_without_an_address_uses_all_schedulers_of_the_cluster(
    redis_url: str, key: str, tmp_path: Path
) -> None:
    config = settings(key)
    async with Scheduler(config, redis_url=redis_url) as first, Scheduler(config, redis_url=redis_url) as second:
        ports = {one.control_endpoint.rpartition(":")[2] for one in (first, second)}

        async def has_both() -> bool:
            async with a_client(config, tmp_path) as client:
                assert (await client.info()).scheduler_id in (first.site.scheduler_id, second.site.scheduler_id)
                return {where.rpartition(":")[2] for where in client.endpoints} == ports

        async with Browser(config.discovery) as browser:  # so that both have been heard
            await wait_until(lambda: len(browser.sightings) >= 2, timeout=PATIENCE_S)
        await wait_until(has_both, timeout=PATIENCE_S)


@needs_multicast
async def test_of_two_clusters_none_is_taken_until_one_is_named(redis_url: str, key: str, tmp_path: Path) -> None:
    one, two = settings(key, cluster="one"), settings(key, namespace="{two}", cluster="two")
    async with Scheduler(one, redis_url=redis_url), Scheduler(two, redis_url=redis_url) as second:
        open_to_any = settings(key)

        async def refusal() -> SeveralClusters | None:
            try:
                async with a_client(open_to_any, tmp_path):
                    return None
            except SeveralClusters as refused:
                return refused

        refused = await wait_until(refusal, timeout=PATIENCE_S)
        assert refused is not None
        assert "one (" in refused.message
        assert "two (" in refused.message
        assert "discovery.cluster" in refused.hint
        async with a_client(two, tmp_path) as client:
            assert (await client.info()).scheduler_id == second.site.scheduler_id


@needs_multicast
async def test_an_agent_between_two_clusters_takes_none_and_says_which_it_has_found(
    key: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = settings(key)
    zeromq = config.zeromq.model_copy(update={"control_port": free_port()})
    lost = config.model_copy(update={"zeromq": zeromq, "data_dir": tmp_path})
    seeker = Seeker(lost, None, joined=asyncio.Event())
    async with (
        announced(words(cluster="one"), key=key),
        announced(words(cluster="two"), key=key),
        AsyncExitStack() as stack,
    ):
        await run_beside(stack, ("seeker", seeker.seek()))
        await wait_until(lambda: "2 clusters are announced here" in seeker.why, timeout=PATIENCE_S)
        assert "one (" in seeker.why
        assert "two (" in seeker.why
        assert "set discovery.cluster" in seeker.why
        assert not seeker.found
        assert seeker.why in caplog.messages


@needs_multicast
async def test_the_command_shows_who_is_used_and_why_the_others_are_not(key: str, tmp_path: Path) -> None:
    ours, strange = words(cluster="studio"), words()
    around = {
        "LCQ_DISCOVERY__ENABLED": "1", "LCQ_DISCOVERY__INTERFACES": LOOPBACK, "LCQ_DISCOVERY__KEY": key,
        "LCQ_DATA_DIR": str(tmp_path), "COLUMNS": "240",
    }  # fmt: skip

    async def shown() -> str:
        done = await asyncio.to_thread(CliRunner().invoke, app, ["discover", "--seconds", "2"], env=around)
        assert done.exit_code in (0, 3), done.output
        return str(done.stdout)

    with logging_kept():
        async with announced(ours, key=key), announced(strange):
            text = await wait_until(
                lambda: shown_with(shown, ours.scheduler, strange.scheduler),
                timeout=PATIENCE_S,
                what="both to be shown",
            )
    row = next(line for line in text.splitlines() if ours.scheduler in line)
    assert f"studio ({ours.cluster_id})" in row
    assert f"{LOOPBACK}:9" in row
    assert "yes" in row
    row = next(line for line in text.splitlines() if strange.scheduler in line)
    assert "ignored: it is not signed, and there is a discovery.key here" in row


async def shown_with(shown: Callable[[], Awaitable[str]], *words: str) -> str:
    """What is shown, once it has all these words."""
    text = await shown()
    return text if all(word in text for word in words) else ""


async def test_a_client_that_was_given_an_address_does_not_look_around(key: str, tmp_path: Path) -> None:
    config = settings(key)

    def looks(scheduler: str | None = None, **more: object) -> bool:
        values = {"zeromq": {"control_port": 5571}, "discovery": config.discovery.model_dump(), "data_dir": tmp_path}
        return AsyncClient(DistributedConfig.model_validate(values | more), scheduler=scheduler)._config is not None

    assert looks()
    assert not looks("gpu-1")
    assert not looks(schedulers=("gpu-1:1",))
    assert not looks(scheduler_host="localhost")
    assert not looks(discovery={"enabled": False})


async def test_where_there_is_no_interface_it_says_so(key: str) -> None:
    with pytest.raises(NoMulticast, match="no interface nowhere0 is up here"):
        async with Browser(on_loopback(key=key).model_copy(update={"interfaces": ("nowhere0",)})):
            pass


def test_a_key_that_is_none_is_refused_and_never_shown(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text(f"{'k' * 32}\n")
    assert key_of(on_loopback(key_file=str(file))) == b"k" * 32
    assert key_of(on_loopback()) is None
    with pytest.raises(InvalidConfig, match="has 5 characters, it must have at least 16") as short:
        key_of(on_loopback(key="hush!"))
    assert "hush" not in str(short.value)
    with pytest.raises(InvalidConfig, match="both"):
        key_of(on_loopback(key="k" * 16, key_file=str(file)))
    with pytest.raises(InvalidConfig, match="cannot be read: No such file"):
        key_of(on_loopback(key_file=str(tmp_path / "none")))
    assert "hush" not in repr(on_loopback(key="hush!"))


def test_a_scheduler_that_only_this_host_reaches_has_no_place_on_the_lan() -> None:
    assert places(bind=LOOPBACK) == places(bind="localhost") == ()
    assert [place.address for place in places((LOOPBACK,), bind="localhost")] == [LOOPBACK]
    assert not any(place.is_loopback for place in places(bind="0.0.0.0"))


# ---------------------------------------------------------------- real processes


@pytest.fixture
def cluster(redis_url: str, tmp_path: Path, key: str) -> Iterator[Cluster]:
    around = {
        "LCQ_DISCOVERY__ENABLED": "1", "LCQ_DISCOVERY__INTERFACES": LOOPBACK, "LCQ_DISCOVERY__KEY": key
    }  # fmt: skip
    with running_cluster(redis_url, tmp_path / "c", **around) as running:
        yield running


def start_lost_agent(cluster: Cluster, name: str, folder: Path) -> None:
    """An agent that knows nothing of the cluster but its key."""
    command = [sys.executable, "-m", "worker.cli", "--name", name, "--slots", "1", "--data-dir", str(folder)]
    cluster._start(name, command, {"LCQ_ZEROMQ__CONTROL_PORT": str(free_port())})


@needs_multicast
@pytest.mark.timeout(240)
def test_an_agent_without_an_address_finds_its_scheduler_and_finds_it_again_elsewhere(
    cluster: Cluster, tmp_path: Path, key: str
) -> None:
    start_lost_agent(cluster, "lost", tmp_path / "agent")
    cluster.start_scheduler("first")

    def is_online(name: str) -> bool:
        with cluster.client() as client:
            return any(node.id == name and node.status is NodeStatus.ONLINE for node in client.nodes())

    wait_until_sync(lambda: is_online("lost"), timeout=PATIENCE_S)
    agent = cluster.processes["lost"]
    wait_until_sync(lambda: not speaks_mdns(agent.pid), timeout=PATIENCE_S, what="the agent to be silent on the LAN")

    asked = [sys.executable, "-m", "lcq.cli.main", "discover", "--json", "--seconds", "10"]
    environment = {"LCQ_DISCOVERY__ENABLED": "1", "LCQ_DISCOVERY__INTERFACES": LOOPBACK, "LCQ_DISCOVERY__KEY": key}
    told = run(asked, env=_environ(environment), capture_output=True, text=True, timeout=120, check=True, cwd=tmp_path)
    assert json.loads(told.stdout)["used"] == [f"tcp://{LOOPBACK}:{cluster.control_port}"]

    cluster.kill("first")  # at once, without a goodbye
    cluster.control_port = free_port()
    cluster.start_scheduler("second")
    wait_until_sync(lambda: is_online("lost"), timeout=2 * PATIENCE_S, what="the agent to find the one elsewhere")


def _environ(more: dict[str, str]) -> dict[str, str]:
    return os.environ | more


async def test_the_id_of_a_cluster_outlives_its_redis(redis_url: str, key: str) -> None:
    config = settings(key, enabled="false")
    async with Scheduler(config, redis_url=redis_url) as scheduler:
        before = scheduler._cluster_id
        with redis.Redis.from_url(redis_url, decode_responses=True) as eye:
            assert eye.get("{lcq}:cluster") == before
            eye.flushall()
            await wait_until(lambda: eye.get("{lcq}:cluster") == before, timeout=PATIENCE_S)
        async with Scheduler(config, redis_url=redis_url) as other:
            assert other._cluster_id == before

"""Blobs through a scheduler's HTTP, as agents and clients move them: whole, in pieces, over a link that breaks."""

from __future__ import annotations

import asyncio
import hashlib
import os
import time
from pathlib import Path

import pytest

from lcq.client.courier import Courier
from lcq.config import DistributedConfig
from lcq.errors import BlobMismatch, BlobNotFound, BlobTooLarge, LcqError, StorageFull, StorageUnreachable
from lcq.ids import new_id
from lcq.models import Task, TaskType
from lcq.scheduler import Scheduler
from lcq.storage import http as storage_http
from lcq.storage.http import HttpStore
from lcq.wire import StoreAnswer
from tests.http_api.conftest import Serve
from tests.nodes import Node
from tests.proxy import Proxy

WORDS = os.urandom(1 << 20)
SUM = hashlib.sha256(WORDS).hexdigest()


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source"
    path.write_bytes(WORDS)
    return path


def store_of(scheduler: Scheduler) -> HttpStore:
    return HttpStore(scheduler.http.address, tries=3)


async def test_blobs_go_up_and_come_down_as_they_were(scheduler: Scheduler, source: Path, tmp_path: Path) -> None:
    def both_ways() -> None:
        moved: list[int] = []
        with store_of(scheduler) as store:
            assert store.stat(SUM) is None
            assert store.put(source, SUM, moved=moved.append).size == len(WORDS)
            known = store.stat(SUM)
            assert known is not None
            assert known.size == len(WORDS)
            store.put(source, SUM)  # there already
            store.get(SUM, tmp_path / "target", moved=moved.append)
            assert (tmp_path / "target").read_bytes() == WORDS
            assert sum(moved) == 2 * len(WORDS)
            assert b"".join(store.read(SUM, offset=1000, length=77)) == WORDS[1000:1077]
            assert store.delete(SUM)
            assert not store.delete(SUM)
            with pytest.raises(BlobNotFound):
                store.get(SUM, tmp_path / "none")
            assert not (tmp_path / "none").exists()

    await asyncio.to_thread(both_ways)


async def test_what_is_refused_is_refused_with_its_reason_and_at_once(serve: Serve, source: Path) -> None:
    async with serve() as (scheduler, _):
        config = scheduler.config
        blobs = config.storage.blobs.model_copy(update={"limit_mib": 1})
        storage = config.storage.model_copy(update={"blobs": blobs})

        def refused(error: type[LcqError], sha256: str = SUM) -> None:
            with store_of(scheduler) as store, pytest.raises(error):
                store.put(source, sha256)

        await asyncio.to_thread(refused, BlobMismatch, "0" * 64)
        limits = config.limits.model_copy(update={"image_bytes": 1000})
        scheduler.state.config = config.model_copy(update={"limits": limits})
        await asyncio.to_thread(refused, BlobTooLarge)
        scheduler.state.config = config.model_copy(update={"storage": storage})
        await asyncio.to_thread(scheduler.keeper.depot.keep, b"something")
        await asyncio.to_thread(refused, StorageFull)


async def test_a_long_file_is_sent_in_several_requests(
    scheduler: Scheduler, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage_http, "PART", 300_000)

    def send() -> None:
        with store_of(scheduler) as store:
            store.put(source, SUM)

    await asyncio.to_thread(send)
    assert b"".join(scheduler.keeper.depot.read(SUM)) == WORDS


async def test_over_a_link_that_breaks_again_and_again_all_arrives_and_little_twice(
    scheduler: Scheduler, source: Path, tmp_path: Path
) -> None:
    """Cut after so many bytes, each time; every try goes on where the last one was."""

    def through(proxy: Proxy) -> None:
        url = f"http://127.0.0.1:{proxy.port}"
        cuts = [0.3, 0.6, 0.8]
        told = 0

        def cutting(count: int) -> None:
            nonlocal told
            told += count
            if cuts and told >= cuts[0] * len(WORDS):
                del cuts[0]
                proxy.drop()

        with HttpStore(url, tries=8) as store:
            store.put(source, SUM, moved=cutting)
            assert (cuts, told) == ([], len(WORDS))
            cuts, told = [0.3, 0.6, 0.8], 0
            store.get(SUM, tmp_path / "target", moved=cutting)
            assert (cuts, told) == ([], len(WORDS))
        assert (tmp_path / "target").read_bytes() == WORDS

    with Proxy(int(scheduler.http.address.rpartition(":")[2])) as proxy:
        await asyncio.to_thread(through, proxy)


async def test_nobody_there_is_told_after_some_tries(source: Path, tmp_path: Path) -> None:
    def ask() -> None:
        with HttpStore("http://127.0.0.1:9", tries=2) as store:
            with pytest.raises(StorageUnreachable):
                store.put(source, SUM)
            with pytest.raises(StorageUnreachable):
                store.get(SUM, tmp_path / "target")

    await asyncio.to_thread(ask)
    assert not (tmp_path / "target").exists()


def test_a_commands_upload_outlives_a_scheduler_that_is_started_again(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paused: list[float] = []
    monkeypatch.setattr(storage_http.time, "sleep", paused.append)
    told = StoreAnswer(url=f"file://{tmp_path}/not-here", mark="0" * 16, http="127.0.0.1:9")
    courier = Courier(DistributedConfig(data_dir=tmp_path), told)
    with pytest.raises(StorageUnreachable):
        courier.upload({SUM: source})
    assert sum(paused) > 30


async def test_a_sweep_leaves_what_tasks_name_and_takes_the_rest(scheduler: Scheduler, tmp_path: Path) -> None:
    await Node(scheduler.state).hello()
    depot = scheduler.keeper.depot
    named, mask, forgotten = (depot.keep(word).sha256 for word in (b"image", b"mask", b"forgotten"))
    task = Task(
        id=new_id(), task_type=TaskType.INPAINT, image_path=f"blob:{named}", mask_path=f"blob:{mask}",
        metadata={"source": "/home/ann/a.jpg"},
    )  # fmt: skip
    await scheduler.tasks.submit_task(task)
    at = time.time() - 3600 * 1000
    for sha256 in (named, mask, forgotten):
        os.utime(scheduler.config.storage_path / "blobs" / sha256[:2] / sha256, (at, at))
    assert await scheduler.keeper.sweep() == 1
    assert {blob.sha256 for blob in depot.store.blobs()} == {named, mask}

"""Disks without room stop the work, and let it go on by themselves."""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import pytest

import worker.disks as disks_module
from lcq.config import DiskConfig
from tests.conftest import wait_until
from worker.disks import Disks


@pytest.fixture(autouse=True)
def _look_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disks_module, "_LOOK_S", 0.02)
    monkeypatch.setattr(disks_module, "RESERVE_MIB", 1)


@pytest.fixture
async def disks(tmp_path: Path) -> AsyncIterator[Disks]:
    changes: list[str] = []
    own = tmp_path / "home"
    own.mkdir()
    disks = Disks([own], terms=DiskConfig(floor_mib=1), on_change=lambda: changes.append(disks.full))
    watch = asyncio.create_task(disks.watch())
    yield disks
    watch.cancel()
    with suppress(asyncio.CancelledError):
        await watch


async def test_a_disk_under_its_reserve_is_full_until_there_is_room_again(
    disks: Disks, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    caplog.set_level("INFO", "worker")
    assert disks.full == ""
    disks.follow(DiskConfig(floor_mib=2**40))
    await wait_until(lambda: disks.full)
    assert str(tmp_path / "home") in disks.full
    assert "MiB free" in disks.full
    disks.follow(DiskConfig(floor_mib=1))
    await wait_until(lambda: not disks.full)
    assert caplog.text.count("nothing new is begun") == 1
    assert caplog.text.count("there is room on the disk again") == 1


async def test_where_a_write_failed_nothing_is_begun_until_one_succeeds_there(
    disks: Disks, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    looks = []

    def fallocate(descriptor: int, offset: int, size: int) -> None:
        looks.append(size)
        raise OSError(errno.EDQUOT, "Disk quota exceeded")  # which no statvfs tells of

    monkeypatch.setattr(os, "posix_fallocate", fallocate)
    out = tmp_path / "out"
    out.mkdir()
    disks.found_full(out)
    assert disks.full == f"the disk of {out} is full"
    await wait_until(lambda: len(looks) > 2)
    assert disks.full
    monkeypatch.undo()
    await wait_until(lambda: not disks.full)
    assert not list(out.iterdir())


async def test_the_places_of_results_are_looked_at_too(disks: Disks, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    out = tmp_path / "out"
    out.mkdir()
    looked: set[str] = set()
    real = os.statvfs

    def statvfs(folder: Path) -> os.statvfs_result:
        looked.add(str(folder))
        return real(folder)

    monkeypatch.setattr(os, "statvfs", statvfs)
    disks.used(out)
    await wait_until(lambda: str(out) in looked)


async def test_a_place_that_has_gone_stops_nothing(disks: Disks, tmp_path: Path):
    disks.found_full(tmp_path / "never was")
    disks.used(tmp_path / "neither")
    await wait_until(lambda: not disks.full)


class Disk:
    """What every disk here says of its room: so many of 1000 MiB are free."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, free_mib: int) -> None:
        self.free_mib = free_mib
        self.asked: set[str] = set()
        real = os.statvfs

        def statvfs(folder: Path) -> os.statvfs_result:
            self.asked.add(str(folder))
            of = list(real(folder))
            of[0] = of[1] = 2**20  # the size of a block, and of a fragment
            of[2], of[3], of[4] = 1000, self.free_mib, self.free_mib
            return os.statvfs_result(of)

        monkeypatch.setattr(os, "statvfs", statvfs)


async def test_a_floor_in_percent_counts_where_it_is_more_and_says_so(disks: Disks, monkeypatch: pytest.MonkeyPatch):
    Disk(monkeypatch, 199)
    disks.follow(DiskConfig(floor_mib=10, floor_percent=20))
    await wait_until(lambda: disks.full)
    assert disks.full.endswith("home is full: 199 MiB free, of 200 that are kept in reserve (20% of it)")
    disks.follow(DiskConfig(floor_mib=10, floor_percent=1))
    await wait_until(lambda: not disks.full)


async def test_once_below_the_floor_there_must_be_a_little_more_than_it_and_the_reason_stays_the_same(
    disks: Disks, monkeypatch: pytest.MonkeyPatch
):
    disk = Disk(monkeypatch, 99)
    disks.follow(DiskConfig(floor_mib=100))
    await wait_until(lambda: disks.full)
    said = disks.full
    for free_mib in (100, 104, 90):
        disk.free_mib = free_mib
        disk.asked.clear()
        await wait_until(lambda: disk.asked, what="a look")
        disk.asked.clear()
        await wait_until(lambda: disk.asked, what="another, after what the first one said was told")
        assert disks.full == said
    disk.free_mib = 105
    await wait_until(lambda: not disks.full)
    disk.free_mib = 100
    disk.asked.clear()
    await wait_until(lambda: disk.asked)
    assert not disks.full


async def test_a_folder_of_results_that_is_not_there_yet_is_looked_at_by_what_is_there_of_its_way(
    disks: Disks, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    disk = Disk(monkeypatch, 500)
    (tmp_path / "share").mkdir()
    disks.used(tmp_path / "share" / "of" / "june")
    await wait_until(lambda: str(tmp_path / "share") in disk.asked)
    assert not disks.full

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
    disks = Disks(own, on_change=lambda: changes.append(disks.full))
    watch = asyncio.create_task(disks.watch())
    yield disks
    watch.cancel()
    with suppress(asyncio.CancelledError):
        await watch


async def test_a_disk_under_its_reserve_is_full_until_there_is_room_again(
    disks: Disks, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    caplog.set_level("INFO", "worker")
    assert disks.full == ""
    monkeypatch.setattr(disks_module, "RESERVE_MIB", 2**40)
    await wait_until(lambda: disks.full)
    assert str(tmp_path / "home") in disks.full
    assert "MiB free" in disks.full
    monkeypatch.setattr(disks_module, "RESERVE_MIB", 1)
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

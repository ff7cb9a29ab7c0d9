"""Whether a disk that LCQ writes has room: its floor is left to others."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple


def nearest(folder: Path) -> Path:
    """``folder``, or what is there of the way to it: it is made when something is put there."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return folder


class Room(NamedTuple):
    """Of a disk, in bytes: how large it is, and what of it LCQ could still write."""

    total: int
    free: int

    @property
    def used(self) -> float:
        """The share of it that is taken, 0 to 1."""
        return 1 - self.free / self.total if self.total else 0.0


def room_of(folder: Path) -> Room | None:
    """The room on the disk of ``folder``; None where that cannot be told. A disk on a network may hold it up."""
    try:
        disk = os.statvfs(nearest(folder))
    except OSError:
        return None
    return Room(disk.f_blocks * disk.f_frsize, disk.f_bavail * disk.f_frsize)


def lack_of_room(
    folder: Path, *, floor_mib: int, floor_percent: float = 0.0, more: float = 1.0, needed: int = 0
) -> str:
    """What is missing there once ``needed`` more bytes are written; "" if nothing is, or if it cannot be told.

    ``more``: so many times the floor there must be.
    """
    try:
        disk = os.statvfs(nearest(folder))
    except OSError:
        return ""
    free_mib, size_mib = (blocks * disk.f_frsize >> 20 for blocks in (disk.f_bavail, disk.f_blocks))
    floor_mib, is_share = max((floor_mib, False), (int(size_mib * floor_percent / 100), True))
    if free_mib - (needed >> 20) < floor_mib * more:
        of = f" ({floor_percent:g}% of it)" if is_share else ""
        wanted = f"{needed >> 20} MiB wanted, " if needed else ""
        return f"{wanted}{free_mib} MiB free, of {floor_mib} that are kept in reserve{of}"
    if disk.f_files and disk.f_favail < FEWEST_FILES:
        return f"room for {disk.f_favail} more files only"
    return ""


FEWEST_FILES = 16

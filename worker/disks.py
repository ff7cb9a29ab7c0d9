"""The disks that this node writes to: whether there is room, and if not, when there is again."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import tempfile
from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path

from lcq.config import DiskConfig
from lcq.storage.room import Room, room_of
from worker.aside import Aside

_log = logging.getLogger(__name__)

RESERVE_MIB = 64
"""What must fit where a write has failed, before more is begun."""

_LOOK_S = 3.0
_PATIENCE_S = 2.0  # for a network disk that does not answer; it says nothing about its room
_FOLDERS = 16  # places of results that are looked at, the last ones used
_FEWEST_FILES = 16
_MORE = 1.05  # of the floor there must be where a disk has been below it


class Disks:
    """Watches the folders ``own`` and those that results go to, against the floor of ``terms``.

    ``on_change`` is called when ``full`` has changed.
    """

    def __init__(self, own: Sequence[Path], *, terms: DiskConfig, on_change: Callable[[], None]) -> None:
        self.full = ""  # which is full, and what it takes; "" while there is room
        self.rooms: dict[Path, Room] = {}
        """What room there was in our own folders when they were looked at last."""
        self._own = tuple(own)
        self._terms = terms
        self._results: OrderedDict[Path, None] = OrderedDict()
        self._failed: set[Path] = set()  # a write failed here, whatever the disk says of its room
        self._below: dict[Path, str] = {}  # folders whose disk is below the floor -> what is said of it
        self._on_change = on_change
        self._due = asyncio.Event()
        self._look = Aside("room on disks", self._found_full)

    def follow(self, terms: DiskConfig) -> None:
        """Go by this floor from now on."""
        if terms != self._terms:
            self._terms = terms
            self._due.set()

    def used(self, folder: Path) -> None:
        """A result is to be written in ``folder``, or was."""
        is_new = folder not in self._results
        self._results[folder] = None
        self._results.move_to_end(folder)
        if len(self._results) > _FOLDERS:
            self._results.popitem(last=False)
        if is_new:
            self._due.set()

    def found_full(self, folder: Path) -> None:
        """A write in ``folder`` failed for want of room: nothing is to be begun until one succeeds there."""
        self._failed.add(folder)
        self._tell(f"the disk of {folder} is full")
        self._due.set()

    async def watch(self) -> None:
        """Look every few seconds, for ever."""
        while True:
            self._due.clear()
            try:
                self._tell(await self._look.ask(patience_s=_PATIENCE_S))
            except TimeoutError:
                _log.debug("the disks have not said what room they have for %.1f s", self._look.silent_s)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LOOK_S):
                    await self._due.wait()

    def _tell(self, full: str) -> None:
        if bool(full) != bool(self.full):
            if full:
                _log.error("%s: nothing new is begun until there is room", full)
            else:
                _log.info("there is room on the disk again: work is taken as before")
        if full != self.full:
            self.full = full
            self._on_change()

    def _found_full(self) -> str:
        self.rooms = {folder: room for folder in self._own if (room := room_of(folder)) is not None}
        for folder in tuple(self._failed):
            if not _takes_a_file(folder):
                return f"the disk of {folder} is full"
            self._failed.discard(folder)
        folders = dict.fromkeys((*self._own, *tuple(self._results)))
        self._below = {folder: said for folder, said in self._below.items() if folder in folders}
        for folder in folders:
            lack = _lack_of_room(folder, self._terms, more=_MORE if folder in self._below else 1.0)
            if not lack:
                self._below.pop(folder, None)
            elif folder not in self._below:  # said once: how much is free changes all the time
                self._below[folder] = f"the disk of {folder} is full: {lack}"
        return next(iter(self._below.values()), "")


def _lack_of_room(folder: Path, terms: DiskConfig, *, more: float = 1.0) -> str:
    """What is missing there; "" if nothing is, or if it cannot be told."""
    try:
        disk = os.statvfs(_nearest(folder))
    except OSError:
        return ""
    free_mib, size_mib = (blocks * disk.f_frsize >> 20 for blocks in (disk.f_bavail, disk.f_blocks))
    floor_mib = max(terms.floor_mib, int(size_mib * terms.floor_percent / 100))
    if free_mib < floor_mib * more:
        of = f" ({terms.floor_percent:g}% of it)" if floor_mib > terms.floor_mib else ""
        return f"{free_mib} MiB free, of {floor_mib} that are kept in reserve{of}"
    if disk.f_files and disk.f_favail < _FEWEST_FILES:
        return f"room for {disk.f_favail} more files only"
    return ""


def _nearest(folder: Path) -> Path:
    """``folder``, or what is there of the way to it: it is made when the first result comes."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return folder


def _takes_a_file(folder: Path) -> bool:
    """Whether a file of the reserve's size can be written there. It is gone afterwards."""
    if not hasattr(os, "posix_fallocate"):
        return not _lack_of_room(folder, DiskConfig())
    try:
        with tempfile.TemporaryFile(dir=folder, prefix=".lcq-room-") as file:
            os.posix_fallocate(file.fileno(), 0, RESERVE_MIB << 20)
    except OSError as error:
        return error.errno not in (errno.ENOSPC, errno.EDQUOT)
    return True

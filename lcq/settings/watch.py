"""Tells that files have changed, as far as the system tells us. A bell, never the truth: who hears it looks.

By watchfiles: inotify on Linux, its like elsewhere. Of network folders, and where a host has no watch left, nothing is
heard: whoever goes by this also looks now and then.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable
from pathlib import Path

_log = logging.getLogger(__name__)
_STEP_MS = 250  # between two looks of its thread at what it was told: 0.2 ms of a core a second (measured)
_QUIET_MS = 100
_ROUND_MS = 60_000


class FileWatch:
    """Calls ``on_change``, from a thread of its own, when one of the armed files changes, once for each ``arm()``."""

    def __init__(self, on_change: Callable[[], None]) -> None:
        self._on_change = on_change
        self._stop = threading.Event()  # of what is armed now
        self._watched: threading.Event | None = None  # the same, once changes of all its files are told

    @property
    def is_on(self) -> bool:
        """Whether changes of every file that was armed are told."""
        return self._watched is self._stop and not self._stop.is_set()

    def arm(self, files: Iterable[Path]) -> None:
        """Tell of changes of these files, which are there, and of no others."""
        self.disarm()
        paths = [str(file.absolute()) for file in files]
        if paths:
            self._stop = threading.Event()
            # No daemon: a process that ends waits for it, a quarter of a second at most.
            threading.Thread(target=self._watch, args=(paths, self._stop), name="file watch").start()

    def disarm(self) -> None:
        """Tell of nothing any more."""
        self._stop.set()

    def _watch(self, paths: list[str], stop: threading.Event) -> None:
        try:
            from watchfiles._rust_notify import RustNotify, WatchfilesRustInternalError
        except ImportError as error:
            _log.debug("changes of files are not told: %s", error)
            return
        try:
            notify = RustNotify(paths, False, False, 0, False, False)
            try:
                self._watched = stop
                while not stop.is_set():
                    told = notify.watch(_QUIET_MS, _STEP_MS, _ROUND_MS, stop)
                    if isinstance(told, set) and not stop.is_set():
                        stop.set()
                        self._on_change()
            finally:
                notify.close()
        except (OSError, WatchfilesRustInternalError) as error:  # no watch is left, or a file has just gone
            stop.set()
            _log.debug("changes of files are not told: %s", error)

"""What a runner writes to its output: passed on to our own stderr, and the end of it kept for when an attempt fails."""

from __future__ import annotations

import asyncio
import contextlib
import os

from lcq.wire import MAX_LOG

_STDERR = 2
_KEPT_BYTES = 4 * MAX_LOG  # a character takes four bytes at most


class LastWords:
    """A pipe: ``writer`` is for the runner; call ``started()`` once that has it, and ``close()`` when it is gone."""

    def __init__(self) -> None:
        self._reader, self.writer = os.pipe()
        os.set_blocking(self._reader, False)
        self._kept = bytearray()
        asyncio.get_running_loop().add_reader(self._reader, self._read)

    def started(self) -> None:
        """The runner has its own end: when it ends, so does the pipe."""
        os.close(self.writer)
        self.writer = -1

    def begin(self) -> None:
        """Keep only what is written from now on."""
        self._drain()
        self._kept.clear()

    def tail(self) -> str:
        """The last of what was written since ``begin()``, without control characters but the ends of lines."""
        self._drain()
        text = self._kept.decode("utf-8", "replace")
        return "".join(char for char in text if char.isprintable() or char in "\n\t")[-MAX_LOG:].strip()

    def close(self) -> None:
        if self.writer >= 0:
            self.started()
        if self._reader >= 0:
            self._drain()
        self._end()

    def _drain(self) -> None:
        """Take in all that is there: what a process wrote before it died is, by then."""
        while self._reader >= 0 and self._read():
            continue

    def _read(self) -> bool:
        """Answers whether there may be more."""
        try:
            data = os.read(self._reader, 65536)
        except BlockingIOError:
            return False
        if not data:
            self._end()
            return False
        self._kept += data
        del self._kept[:-_KEPT_BYTES]
        with contextlib.suppress(OSError):  # our own stderr may be gone: that is no reason to stop
            os.write(_STDERR, data)
        return True

    def _end(self) -> None:
        if self._reader >= 0:
            asyncio.get_running_loop().remove_reader(self._reader)
            os.close(self._reader)
            self._reader = -1

"""What a runner writes to its output: told as it comes, and the end of it kept for when an attempt fails."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable

from lcq.wire import MAX_LOG

_KEPT_BYTES = 4 * MAX_LOG  # a character takes four bytes at most


class LastWords:
    """A pipe: ``writer`` is for the runner; call ``started()`` once that has it, and ``close()`` when it is gone."""

    def __init__(
        self, on_line: Callable[[str], None] | None = None, *, on_data: Callable[[bytes], None] | None = None
    ) -> None:
        """``on_line`` is told each line as soon as it is whole, ``on_data`` what comes as it comes."""
        self._on_line, self._on_data = on_line, on_data
        self._begun = bytearray()  # a line that is not whole yet
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

    def settle(self) -> None:
        """Take in all that has been written so far; a line that was begun is over."""
        self._drain()
        self._end_line()

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
        if self._on_data is not None:
            self._on_data(data)
        self._tell_lines(data)
        return True

    def _tell_lines(self, data: bytes) -> None:
        if self._on_line is None:
            return
        *whole, rest = (self._begun + data).split(b"\n")
        self._begun = bytearray(rest[-_KEPT_BYTES:])
        for line in whole:
            self._on_line(line[-_KEPT_BYTES:].decode("utf-8", "replace"))

    def _end_line(self) -> None:
        if self._begun and self._on_line is not None:
            self._on_line(self._begun.decode("utf-8", "replace"))
            self._begun.clear()

    def _end(self) -> None:
        self._end_line()
        if self._reader >= 0:
            asyncio.get_running_loop().remove_reader(self._reader)
            os.close(self._reader)
            self._reader = -1

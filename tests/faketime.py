"""Clocks that are set while a process runs: libfaketime, told by a file. For tests marked chaos only."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

_PLACES = ("/usr/lib/*/faketime/libfaketimeMT.so.1", "/usr/lib/faketime/libfaketimeMT.so.1")


class SetClock:
    """The wall clock of processes that are started with ``environment``; steady clocks are left alone."""

    def __init__(self, folder: Path) -> None:
        found = [path for place in _PLACES for path in Path("/").glob(place.lstrip("/"))]
        if not found:
            pytest.skip("no libfaketime here (apt install libfaketime)")
        self._file = folder / "faketime"
        self.set("+0")
        self.environment: Mapping[str, str] = {
            "LD_PRELOAD": str(found[0]),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }

    def set(self, offset: str) -> None:
        """By ``offset`` from the host's clock, such as "-1h" or "+1d", from now on."""
        fresh = self._file.with_suffix(".new")
        fresh.write_text(offset + "\n")
        fresh.replace(self._file)
